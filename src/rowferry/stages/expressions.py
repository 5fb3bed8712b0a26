"""SQL expressions, checked: read by DuckDB's own parser, and refused by name where they are not row-wise and the
same at every run.

An expression is taken apart as the parser's syntax tree: each column that it names is replaced by a name of ours
(so that ``"A"`` and ``a`` are two columns, as they are in the source), what means the present becomes the job's
start, and every function is looked up in DuckDB's catalogue. docs/TRANSFORM.md says what is refused and why.
"""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from rowferry.convert.duckdb_form import literal
from rowferry.errors import ConfigError

#: What means the present, as a function or as a bare word, and the type that it has.
_PRESENT = {
    "now": "TIMESTAMP WITH TIME ZONE", "current_timestamp": "TIMESTAMP WITH TIME ZONE",
    "get_current_timestamp": "TIMESTAMP WITH TIME ZONE", "transaction_timestamp": "TIMESTAMP WITH TIME ZONE",
    "today": "DATE", "current_date": "DATE", "current_localtimestamp": "TIMESTAMP", "localtimestamp": "TIMESTAMP",
    "current_localtime": "TIME", "localtime": "TIME", "current_time": "TIME WITH TIME ZONE",
    "get_current_time": "TIME WITH TIME ZONE",
}  # fmt: skip
#: Of those, the ones that SQL writes without parentheses.
_BARE = ("current_timestamp", "current_date", "current_time", "localtime", "localtimestamp")
#: Nodes of the tree that hold nothing but row-wise expressions.
_ROW_WISE = ("FUNCTION", "CONSTANT", "CAST", "TYPE", "OPERATOR", "COMPARISON", "CONJUNCTION", "CASE", "BETWEEN",
             "COLLATE")  # fmt: skip
_REFUSED_NODES = {
    "SUBQUERY": "a subquery (also EXISTS, ANY and ALL) sees more than its own row; take values by a look-up table",
    "WINDOW": "a window function sees more than its own row",
    "STAR": "* and COLUMNS() name no single column",
    "PARAMETER": "there is nothing to put in the place of a parameter",
    "POSITIONAL_REFERENCE": "columns are called by their names",
    "DEFAULT": "DEFAULT has no meaning here",
}
_REFUSED_OPERATORS = ("GROUPING_FUNCTION", "OPERATOR_UNPACK")
#: Marked as volatile so that nobody optimises them away, or as depending on the session, but row-wise for us.
_HARMLESS = ("error",)
#: Marked as always giving the same for the same arguments, which they do not: DuckDB's version is in them.
_DEPENDENT = {"version": "it changes with DuckDB's version", "alias": "it tells names inside DuckDB"}

_MEANINGLESS = ("query_location", "query_location_length", "alias", "is_operator")


#: Functions that expressions mostly consist of, known to be row-wise without the catalogue, whose reading is a sixth
#: of what a transform costs before its first row. A test asks the catalogue of each of them.
ROW_WISE = frozenset(
    ("lower", "upper", "trim", "ltrim", "rtrim", "||", "concat", "replace", "substring", "substr", "left", "right",
     "length", "strip_accents", "regexp_replace", "split_part", "lpad", "rpad", "contains", "starts_with", "~~", "!~~",
     "+", "-", "*", "/", "//", "%", "abs", "round", "floor", "ceil", "greatest", "least", "nullif", "strftime",
     "date_trunc", "date_part", "year", "month", "day", "md5", "sha256")
)  # fmt: skip


class _Function(NamedTuple):
    """A function of DuckDB's catalogue: scalar, aggregate, window, table, macro …; of a macro what it stands for."""

    kind: str
    stability: str | None
    body: str | None
    parameters: list[str]


#: DuckDB's own functions by name, read once (20 ms): they are the same in every connection of a process.
_CATALOGUE: dict[str, list[_Function]] = {}


class Checked(msgspec.Struct, frozen=True):
    """An expression that may run: its SQL in our names, and the columns that it reads (indices into the names)."""

    text: str
    sql: str
    reads: tuple[int, ...]
    #: It is nothing but this column: values pass as they are, without DuckDB.
    column: int | None = None
    #: The job's start is in it.
    present: bool = False


def internal(index: int) -> str:
    """The name that the column has within DuckDB."""
    return f"rf column {index}"


def resolve(name: str, names: Sequence[str]) -> int | None:
    """The column that a name in an expression means: the one of just this name, else the only one that differs in
    letter case. Raises ConfigError where several do."""
    if name in names:
        return names.index(name)
    alike = [i for i, other in enumerate(names) if other.casefold() == name.casefold()]
    if len(alike) > 1:
        shown = ", ".join(repr(names[i]) for i in alike)
        raise ConfigError(f"{name!r} could be any of {shown}", hint="write the column's name as it is, in quotes")
    return alike[0] if alike else None


def unknown(name: str, names: Iterable[str]) -> ConfigError:
    """No such column, and what may have been meant."""
    there = list(names)
    near = difflib.get_close_matches(name, there, 3, 0.6)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"there are {', '.join(there[:20])}"
    return ConfigError(f"there is no column {name!r}", hint=hint)


def blamed(error: Exception) -> str:
    """What DuckDB says of an expression, in one line and without what is ours alone."""
    text = str(error).split("\n\n")[0].split("Candidate bindings")[0]
    return " ".join(text.split())[:300]


class Parser:
    """Checks expressions over a DuckDB connection, whose parser and catalogue it asks."""

    def __init__(self, connection: Any, started: datetime.datetime) -> None:
        self.connection = connection
        self._started = started.astimezone(datetime.UTC)
        self._skeleton = self._tree("NULL", "NULL")[0]

    def check(self, text: str, names: Sequence[str]) -> Checked:
        """The expression over columns of these names. Raises ConfigError with what is wrong and what to do."""
        try:
            return self._check(text, names)
        except RecursionError:
            raise ConfigError("the expression is nested too deeply") from None

    def _check(self, text: str, names: Sequence[str]) -> Checked:
        frame, node = self._tree(text, text)
        if frame != self._skeleton or node.get("alias"):
            raise ConfigError(f"{text!r} is more than one expression", hint="no FROM, WHERE, LIMIT, AS … or DISTINCT")
        walk = _Walk(self, names)
        rewritten = walk.expression(node, frozenset())
        reads = tuple(sorted(walk.reads))
        if rewritten["class"] == "COLUMN_REF" and len(rewritten["column_names"]) == 1:
            return Checked(text, "", reads, column=reads[0])
        return Checked(text, self._sql(rewritten, text), reads, present=walk.present)

    def _tree(self, sql: str, shown: str) -> tuple[Any, dict[str, Any]]:
        """The select statement without its one expression, and the expression."""
        answer = json.loads(self._ask("SELECT json_serialize_sql(?)", f"SELECT {sql}\n"))
        if answer.get("error"):
            raise ConfigError(f"{shown!r} is no SQL expression: {answer.get('error_message')}")
        statements = answer["statements"]
        chosen = statements[0]["node"].get("select_list", []) if len(statements) == 1 else []
        if len(chosen) != 1:
            raise ConfigError(f"{shown!r} is more than one expression")
        node = {key: value for key, value in statements[0]["node"].items() if key != "select_list"}
        return _without_places([node, *(v for k, v in statements[0].items() if k != "node")]), chosen[0]

    def _sql(self, node: dict[str, Any], text: str) -> str:
        """SQL for a tree, which has to be read back as just that tree."""
        answer = json.loads(self._ask("SELECT json_serialize_sql(?)", "SELECT NULL"))
        answer["statements"][0]["node"]["select_list"] = [node]
        sql = str(self._ask("SELECT json_deserialize_sql(?)", json.dumps(answer)))
        head, body = sql[:7], sql[7:]
        if head != "SELECT " or _without_places(self._tree(body, text)[1]) != _without_places(node):
            raise ConfigError(f"{text!r} cannot be taken apart safely", hint="write it in plainer SQL")
        return body

    def _ask(self, sql: str, argument: str) -> Any:
        return self.connection.execute(sql, [argument]).fetchall()[0][0]

    def present(self, kind: str) -> dict[str, Any]:
        """The job's start as a constant of a type."""
        start = self._started
        text = {
            "DATE": f"{start:%Y-%m-%d}",
            "TIME": f"{start:%H:%M:%S.%f}",
            "TIME WITH TIME ZONE": f"{start:%H:%M:%S.%f}+00",
            "TIMESTAMP": f"{start:%Y-%m-%d %H:%M:%S.%f}",
            "TIMESTAMP WITH TIME ZONE": f"{start:%Y-%m-%d %H:%M:%S.%f}+00",
        }[kind]
        return self._tree(f"CAST({literal(text)} AS {kind})", "the job's start")[1]

    def require_row_wise(self, name: str, seen: tuple[str, ...] = ()) -> None:
        """Raises ConfigError unless the function works on one row and always gives the same for it."""
        name = name.lower()
        if name in ROW_WISE:
            return
        entries = self._entries(name)
        kinds = {entry.kind for entry in entries}
        if name in _DEPENDENT:
            raise ConfigError(f"{name}() is refused: {_DEPENDENT[name]}")
        if name == "unnest" or (kinds & {"table", "table_macro"} and not kinds & {"scalar", "macro", "aggregate"}):
            raise ConfigError(f"{name}() is refused: it makes rows", hint="a Python function may (docs/TRANSFORM.md)")
        if "aggregate" in kinds or "window" in kinds:
            hint = f"list_{name}(…) works on a list within a row" if self._entries(f"list_{name}") else None
            raise ConfigError(f"{name}() is refused: it sees more than its own row", hint=hint)
        if not kinds:
            raise self._unknown_function(name)
        for entry in entries:
            if entry.kind == "macro":
                self._check_macro(name, entry.body or "", entry.parameters, seen)
            elif entry.kind == "scalar" and entry.stability != "CONSISTENT" and name not in _HARMLESS:
                raise ConfigError(
                    f"{name}() is refused: it does not give the same at every run",
                    hint="a row that is sent again has to be the same row; now() is the job's start",
                )

    def _check_macro(self, name: str, body: str, parameters: Sequence[str], seen: tuple[str, ...]) -> None:
        """A macro is what it stands for; what means the present cannot be replaced within one."""
        if name in seen:
            return
        walk = _Walk(self, (), macro=name, seen=(*seen, name))
        walk.expression(self._tree(body, name)[1], frozenset(parameters))

    def _entries(self, name: str) -> list[_Function]:
        if not _CATALOGUE:
            rows = self.connection.execute(
                "SELECT DISTINCT lower(function_name), function_type, stability, macro_definition, "
                "CASE WHEN macro_definition IS NULL THEN [] ELSE parameters END FROM duckdb_functions() WHERE internal"
            ).fetchall()
            catalogue: dict[str, list[_Function]] = {}
            for function, *entry in rows:
                catalogue.setdefault(function, []).append(_Function(*entry))
            _CATALOGUE.update(catalogue)
        return _CATALOGUE.get(name, [])

    def _unknown_function(self, name: str) -> ConfigError:
        known = [n for n, entries in _CATALOGUE.items() if any(e.kind in ("scalar", "macro") for e in entries)]
        near = difflib.get_close_matches(name, known, 3, 0.6)
        return ConfigError(
            f"there is no function {name}()", hint=f"did you mean {', '.join(near)}?" if near else "see DuckDB's manual"
        )


class _Walk:
    """One expression's tree on its way into our names."""

    def __init__(self, parser: Parser, names: Sequence[str], macro: str = "", seen: tuple[str, ...] = ()) -> None:
        self._parser = parser
        self._names = names
        self._macro = macro
        self._seen = seen
        self.reads: set[int] = set()
        self.present = False

    def expression(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        """The node rewritten. ``scope``: names that a lambda (or a macro) gives, in lower case."""
        kind = node["class"]
        if kind == "COLUMN_REF":
            return self._column(node, scope)
        if kind == "LAMBDA":
            return self._lambda(node, scope)
        if kind not in _ROW_WISE or node["type"] in _REFUSED_OPERATORS:
            why = _REFUSED_NODES.get(kind, "it is no row-wise expression")
            raise ConfigError(f"{kind.lower().replace('_', ' ')} is refused: {why}")
        if kind == "FUNCTION":
            return self._function(node, scope)
        return self._parts(node, scope)

    def _parts(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        return {key: self._part(value, scope) for key, value in node.items()}

    def _part(self, value: Any, scope: frozenset[str]) -> Any:
        if isinstance(value, list):
            return [self._part(item, scope) for item in value]
        if isinstance(value, dict):
            return self.expression(value, scope) if "class" in value else self._parts(value, scope)
        return value

    def _present(self, name: str) -> dict[str, Any]:
        if self._macro:
            raise ConfigError(
                f"{self._macro}() is refused: it means the present of each query", hint="now() is the job's start"
            )
        self.present = True
        return self._parser.present(_PRESENT[name])

    def _column(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        first, *rest = node["column_names"]
        if first.lower() in scope:
            return node
        index = None if self._macro else resolve(first, self._names)
        if index is not None:
            self.reads.add(index)
            return {**node, "column_names": [internal(index), *rest]}
        if first.lower() in _BARE and not rest:
            return self._present(first.lower())
        if self._macro:
            raise ConfigError(f"{self._macro}() is refused: it depends on {first}")
        raise unknown(first, self._names)

    def _lambda(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        if node.get("syntax_type") == "SINGLE_ARROW":  # JSON's arrow: both sides are expressions
            try:
                return self._parts(node, scope)
            except ConfigError as error:
                error.hint = error.hint or "a function of a list's elements is written lambda x: …"
                raise
        lhs = node["lhs"]
        given = [lhs] if lhs["class"] == "COLUMN_REF" else [a["expression"] for a in lhs.get("arguments", [])]
        inner = scope | {parameter["column_names"][0].lower() for parameter in given}
        return {**node, "expr": self.expression(node["expr"], inner)}

    def _function(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        node = self._without_method(node, scope)
        name = node["function_name"].lower()
        if node["filter"] or node["distinct"] or node["export_state"] or node["order_bys"]["orders"]:
            raise ConfigError(f"{name}() with DISTINCT, FILTER or ORDER BY is refused: it sees more than its own row")
        if name in _PRESENT and not node["arguments"]:
            return self._present(name)
        if name == "age" and len(node["arguments"]) == 1:
            raise ConfigError("age() of one date means the present of each query", hint="write age(now(), …)")
        self._parser.require_row_wise(name, self._seen)
        return self._parts(node, scope)

    def _without_method(self, node: dict[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        """``x.trim()`` as ``trim(x)``; a function of a schema only where it is DuckDB's own."""
        path = node["qualified_name"]["path"]
        if len(path) == 1:
            return node
        plain = {**node, "schema": "", "catalog": "", "qualified_name": {"path": path[-1:]}}
        if self._macro and [p.lower() for p in path[:-1]] in (["main"], ["system", "main"]):
            return plain
        if len(path) > 2 or self._macro or (path[0].lower() not in scope and resolve(path[0], self._names) is None):
            raise ConfigError(f"{'.'.join(path)}() is refused", hint="functions are called by their plain names")
        column = {
            "class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0,
            "query_location_length": 0, "column_names": [path[0]],
        }  # fmt: skip
        return {**plain, "arguments": [{"name": "", "expression": column}, *node["arguments"]]}


def _without_places(value: Any) -> Any:
    """A tree without what means nothing: where in the text its parts stand, and names that nobody calls."""
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if isinstance(value, Mapping):
        return {k: _without_places(v) for k, v in value.items() if k not in _MEANINGLESS}
    return value
