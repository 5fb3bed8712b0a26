"""Checked expressions at work: DuckDB reads Arrow arrays where they lie, one query for each set of them.

Each worker has a DuckDB of its own, in memory, with one thread, without files, network or extensions. Only the
columns that an expression names enter it; rows leave in the order in which they came, as many as came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry import limits
from rowferry.convert import conversion
from rowferry.convert.duckdb_form import INTERVAL, canonical, from_duckdb, quote, read_expression, to_duckdb
from rowferry.convert.value_text import value_text, visible
from rowferry.errors import ConfigError, DataError, RowferryError
from rowferry.stages.expressions import Checked, blamed, internal
from rowferry.types import Type

#: Hours that fit Arrow's intervals, which count nanoseconds in 64 bits; DuckDB's count microseconds.
_HOURS_MAX = 2_562_046
_TYPED = "rf typed"
#: Columns whose values a message shows at most.
_SHOWN_COLUMNS = 4
#: Failing rows of a batch of which DuckDB is asked why, one by one (0.4 ms each).
_REASONS_MAX = 100


def connect() -> Any:
    """A DuckDB that reaches nothing but what it is given: the expressions of a configuration run in it."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": "1",
            "memory_limit": limits.EXPRESSION_MEMORY,
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        },
    )
    connection.execute("SET TimeZone = 'UTC'; SET Calendar = 'gregorian'; SET lock_configuration = true")
    return connection


def refusal(t: Type) -> str | None:
    """Why DuckDB cannot hold every value of a type as it is; None where it can."""
    if t.kind == "wire":
        return f"the bytes of {t.native} mean nothing to DuckDB"
    if t.kind == "decimal":
        assert t.precision is not None and t.scale is not None
        if t.precision > 38 or not 0 <= t.scale <= t.precision:
            return f"DuckDB's decimals have 38 digits at the most, which {t} does not fit"
    if t.kind == "struct":
        names = [f.name.lower() for f in t.fields]
        if not names or "" in names or len(set(names)) < len(names):
            return "DuckDB needs a name of its own for each field of a struct"
    for inner in (*(f.type for f in t.fields), *((t.element,) if t.element else ())):
        if inner.kind in ("interval", "duration"):
            return f"a {t.kind} that holds a {inner.kind} cannot be held exactly"
        found = refusal(inner)
        if found:
            return found
    return None


def _entering(array: pa.Array, t: Type) -> pa.Array:
    """A canonical array as DuckDB takes it. Raises DataError for a value that it cannot hold."""
    if t.kind in ("json", "jsonb"):
        return pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), array)
    if t.kind in ("interval", "duration"):
        way = conversion(t, INTERVAL)
        assert not isinstance(way, str)
        return way.apply(array)[0]
    return to_duckdb(array, t)


def failures() -> tuple[type[Exception], ...]:
    """What :meth:`Query.run` raises where a row is at fault."""
    import duckdb

    return duckdb.Error, DataError


class Made(msgspec.Struct, frozen=True):
    """What an expression gives: its canonical type, and the SQL that brings ``name`` to an exact Arrow form."""

    type: Type
    leaving: str


def _made(native: Any, name: str) -> Made | str:
    """How a value of a DuckDB type leaves; a text says why it has none of ours."""
    if str(native.id) == "hugeint":
        return Made(Type("decimal", precision=38, scale=0), f"CAST({quote(name)} AS DECIMAL(38, 0))")
    found = canonical(native)
    if found is None or found.kind == "opaque":
        return f"a result of DuckDB's type {native} has no canonical type"
    if _holds_interval(found) and found.kind != "interval":
        return "a result that holds intervals cannot leave DuckDB exactly"
    if found.kind == "interval":
        column = quote(name)
        beyond = f"abs(datepart('hour', {column})) > {_HOURS_MAX}"
        words = "'an interval of more hours than can be carried'"
        return Made(found, f"CASE WHEN {beyond} THEN error({words}) ELSE {column} END")
    return Made(found, read_expression(name, native, found))


def _holds_interval(t: Type) -> bool:
    inner = [f.type for f in t.fields] + ([t.element] if t.element else [])
    return t.kind == "interval" or any(map(_holds_interval, inner))


class Field(msgspec.Struct, frozen=True):
    """A column that expressions may read."""

    name: str
    type: Type


class Plan(msgspec.Struct, frozen=True):
    """Expressions over columns, typed: made once for a table, run by a :class:`Query` in each worker."""

    fields: tuple[Field, ...]
    checked: tuple[Checked, ...]
    made: tuple[Made, ...]


def plan(connection: Any, fields: Sequence[Field], checked: Sequence[Checked], columns: Sequence[str | None]) -> Plan:
    """The expressions of ``columns`` with the types that they give.

    Raises ConfigError where DuckDB refuses one, or where what it reads or gives is of a type that would change on
    its way.
    """
    made: list[Made] = []
    for index, expression in enumerate(checked):
        try:
            _require_exact(fields, expression)
            made.append(_typed(connection, fields, expression, _out(index)))
        except ConfigError as error:
            raise error.at(column=columns[index]) from None
    return Plan(tuple(fields), tuple(checked), tuple(made))


def _require_exact(fields: Sequence[Field], expression: Checked) -> None:
    for index in expression.reads:
        why = refusal(fields[index].type)
        if why:
            raise ConfigError(
                f"{expression.text!r} reads the column {fields[index].name!r} of type {fields[index].type}: {why}",
                hint="leave the column out of SQL expressions, or change it by a Python function",
            )


def _typed(connection: Any, fields: Sequence[Field], expression: Checked, name: str) -> Made:
    import duckdb

    # What reads no column fails on every row or on none: one row tells.
    feed = _Feed(_entered(fields, expression.reads, _empty(fields), 0 if expression.reads else 1))
    connection.register(_TYPED, feed)
    try:
        relation = connection.sql(f"SELECT {expression.sql} AS {quote(name)} FROM {quote(_TYPED)}")
        if len(relation.types) != 1:
            raise ConfigError(f"{expression.text!r} gives {len(relation.types)} columns")
        found = _made(relation.types[0], name)
        relation.to_arrow_table()
    except duckdb.Error as error:
        raise ConfigError(f"{expression.text!r}: {_readable(blamed(error), fields)}") from None
    finally:
        connection.unregister(_TYPED)
    if isinstance(found, str):
        raise ConfigError(f"{expression.text!r}: {found}", hint="cast it, for instance to VARCHAR")
    return found


def _readable(message: str, fields: Sequence[Field]) -> str:
    """DuckDB's words with the columns' own names."""
    for index in reversed(range(len(fields))):
        message = message.replace(internal(index), fields[index].name)
    return message


def _entered(
    fields: Sequence[Field], reads: Sequence[int], arrays: Sequence[pa.Array | None], count: int
) -> pa.RecordBatch:
    """The columns that are read, as DuckDB takes them; a column of nothing where there are none, to count rows by."""
    if not reads:
        return pa.RecordBatch.from_arrays([pa.nulls(count, pa.int8())], names=["rf nothing"])
    entered = []
    for index in reads:
        try:
            entered.append(_entering(arrays[index], fields[index].type))
        except DataError as error:
            raise error.at(column=fields[index].name) from None
    return pa.RecordBatch.from_arrays(entered, names=[internal(i) for i in reads])


class _Feed:
    """A table that is always the batch which was put there last: a prepared query reads it at each run."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self.batch.schema, [self.batch])
        return reader.__arrow_c_stream__(requested_schema)


class Query:
    """A plan's expressions (or some of them), prepared in one worker's DuckDB."""

    def __init__(
        self, connection: Any, name: str, plan_: Plan, chosen: Sequence[int] | None = None, sql: str | None = None
    ) -> None:
        self._connection = connection
        self._plan = plan_
        self._name = name
        self._chosen = tuple(range(len(plan_.checked))) if chosen is None else tuple(chosen)
        self._types = [plan_.made[c].type for c in self._chosen]
        self._reads = tuple(sorted({i for c in self._chosen for i in plan_.checked[c].reads}))
        self._alone: dict[int, Query] = {}
        self._tries: dict[int, Query | None] = {}
        self._feed = _Feed(_entered(plan_.fields, self._reads, _empty(plan_.fields), 0))
        connection.register(_view(name), self._feed)
        if sql is not None:  # _tried: whether it worked comes beside the value
            self._types.append(Type("bool"))
        # A relation that is kept costs no more than a prepared statement (0.3 ms a run, half of what a new one costs),
        # whose rows would be copied once more on their way into Arrow.
        self._rows = connection.sql(sql or self._plain())
        _ = self._rows.types  # it is bound here, not at the first batch

    def _plain(self) -> str:
        made = self._plan.made
        inner = ", ".join(f"{self._plan.checked[c].sql} AS {quote(_out(c))}" for c in self._chosen)
        outer = ", ".join(f"{made[c].leaving} AS {quote(_out(c))}" for c in self._chosen)
        return f"SELECT {outer} FROM (SELECT {inner} FROM {quote(_view(self._name))})"

    def _sub(self, name: str) -> str:
        return f"{self._name} {name}"

    def run(self, arrays: Sequence[pa.Array | None], count: int) -> list[pa.Array]:
        """One array for each expression, ``count`` rows each, in canonical Arrow types.

        arrays: all fields of the plan; those that nothing reads may be anything. Raises duckdb.Error where an
        expression fails on a row, DataError where a value cannot enter, RowferryError where DuckDB itself is broken.
        """
        import duckdb

        if not count:
            return [pa.array([], t.arrow) for t in self._types]
        self._feed.batch = _entered(self._plan.fields, self._reads, arrays, count)
        try:
            table = self._rows.to_arrow_table()
        except (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException) as error:
            # No row must be blamed for it: after the first two all that follows in this connection fails.
            texts = " and ".join(repr(self._plan.checked[c].text) for c in self._chosen)
            raise RowferryError(
                f"DuckDB itself failed at {texts}: {blamed(error)}",
                hint="keep such values from the expression, by CASE WHEN or where",
            ) from None
        finally:
            self._feed.batch = self._feed.batch.slice(0, 0)
        if table.num_rows != count:
            raise AssertionError(f"{table.num_rows} rows came out of expressions over {count}")
        return [from_duckdb(column, t) for column, t in zip(table.columns, self._types, strict=True)]

    def error(
        self, expression: int, arrays: Sequence[pa.Array | None], failure: tuple[int, str], column: str | None
    ) -> DataError:
        """What stops the job: the expression, what DuckDB says, and the values that it met in the row."""
        checked, fields = self._plan.checked[expression], self._plan.fields
        row, why = failure
        seen = []
        for index in checked.reads[:_SHOWN_COLUMNS]:
            text = value_text(arrays[index], row, fields[index].type)
            seen.append(f"{fields[index].name} = {'NULL' if text is None else repr(visible(text))}")
        return DataError(
            f"{checked.text!r} fails: {why}",
            column=column,
            value=f"{', '.join(seen) or 'no column'} in row {row} of its batch",
            hint="write TRY(…) or TRY_CAST for NULL in its place, or give set_on_error",
        )

    def alone(self, expression: int) -> Query:
        """The same for one expression, which is asked for when one of several failed."""
        if self._chosen == (expression,):
            return self
        if expression not in self._alone:
            self._alone[expression] = Query(
                self._connection, self._sub(f"only {expression}"), self._plan, (expression,)
            )
        return self._alone[expression]

    def settled(
        self, expression: int, arrays: Sequence[pa.Array | None], count: int
    ) -> tuple[pa.Array, dict[int, str]]:
        """The expression's array with NULL on the rows where it fails, and what DuckDB says of each of them (of
        the first hundred; the others' reason is empty)."""
        tried = self._tried(expression)
        if tried is not None:
            with contextlib.suppress(*failures()):
                return self._told(expression, arrays, *tried.run(arrays, count))
        pieces: list[pa.Array] = []
        failed: dict[int, str] = {}
        for start, rows, outcome in self.alone(expression)._parts(arrays, 0, count):
            if isinstance(outcome, str):
                failed[start] = outcome
                pieces.append(pa.nulls(rows, self._plan.made[expression].type.arrow))
            else:
                pieces.append(outcome)
        return pa.concat_arrays(pieces), failed

    def _told(
        self, expression: int, arrays: Sequence[pa.Array | None], made: pa.Array, worked: pa.Array
    ) -> tuple[pa.Array, dict[int, str]]:
        rows = pc.indices_nonzero(pc.invert(worked)).to_pylist()
        failed = dict.fromkeys(rows, "")
        for row in rows[:_REASONS_MAX]:
            for _, _, outcome in self.alone(expression)._parts(arrays, row, 1):
                failed[row] = outcome if isinstance(outcome, str) else ""
        return made, failed

    def _tried(self, expression: int) -> Query | None:
        """A query that gives NULL where the expression fails, and whether it worked: one run instead of a search.

        None where DuckDB cannot try the expression (it calls error()).
        """
        if expression not in self._tries:
            checked, made, out = self._plan.checked[expression], self._plan.made[expression], quote(_out(expression))
            view = quote(_view(self._sub(f"try {expression}")))
            first = f"SELECT TRY(struct_pack(made := {checked.sql})) AS a FROM {view}"
            second = f"SELECT a IS NOT NULL AS fine, a.made AS {out} FROM ({first})"
            third = f"SELECT fine, TRY(struct_pack(made := {made.leaving})) AS b FROM ({second})"
            sql = f"SELECT b.made, fine AND b IS NOT NULL FROM ({third})"
            query: Query | None = None
            with contextlib.suppress(*failures()):
                query = Query(self._connection, self._sub(f"try {expression}"), self._plan, (expression,), sql)
            self._tries[expression] = query
        return self._tries[expression]

    def first_failure(
        self, expression: int, arrays: Sequence[pa.Array | None], count: int
    ) -> tuple[int, str] | pa.Array:
        """The first row on which the expression fails, and what DuckDB says; its array where it works on all of
        them, if not on all at once (for want of memory)."""
        pieces: list[pa.Array] = []
        for start, _, outcome in self.alone(expression)._parts(arrays, 0, count):
            if isinstance(outcome, str):
                return start, outcome
            pieces.append(outcome)
        return pa.concat_arrays(pieces)

    def _parts(
        self, arrays: Sequence[pa.Array | None], start: int, count: int
    ) -> Iterator[tuple[int, int, pa.Array | str]]:
        """Parts in order: (first row, rows, array), or (row, 1, why it fails)."""
        part = [a if a is None else a.slice(start, count) for a in arrays]
        try:
            made = self.run(part, count)[0]
        except failures() as error:
            if count == 1:
                yield start, 1, _readable(blamed(error), self._plan.fields)
                return
        else:
            yield start, count, made
            return
        half = count // 2
        yield from self._parts(arrays, start, half)
        yield from self._parts(arrays, start + half, count - half)


def _empty(fields: Sequence[Field]) -> list[pa.Array]:
    return [pa.array([], f.type.arrow) for f in fields]


def _view(name: str) -> str:
    return f"rf rows {name}"


def _out(index: int) -> str:
    return f"rf made {index}"
