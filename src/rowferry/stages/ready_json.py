"""The ready-made rules json_take (paths of a JSON column to columns) and json_put (columns to one JSON object).

A document is read no deeper than its paths go, and what is taken is taken as it is written there: the digits of a
number, the spaces within an object.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import conversion
from rowferry.convert.value_text import value_text
from rowferry.errors import ConfigError
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import FREE_TEXTS, Made, Worked, by_value, rows_of, wrong
from rowferry.stages.spec import Rule
from rowferry.types import FLOATS, Type

JSON_KINDS = ("json", "jsonb")
#: One step of a path: .name, ."any name", [0].
_STEP = re.compile(r"\.([^.\[\]\"\s]+)|\.\"((?:[^\"\\]|\\.)*)\"|\[(\d+)\]")
#: What msgspec has in no field's name.
_NO_FIELD = re.compile(r'["\\\x00-\x1f]')
#: Exponents beyond this belong to no number that a column holds; as digits they would fill the memory.
_EXPONENT_MAX = 20_000

Path = tuple[str | int, ...]


def _path(text: str, table: str) -> Path:
    """``$.a."b c"[0]`` as its steps. Raises ConfigError."""
    text = text.strip()
    steps: list[str | int] = []
    at = 1 if text.startswith("$") else 0
    while at and at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            at = 0
            break
        name, quoted, index = found.groups()
        steps.append(int(index) if index is not None else name if name is not None else json.loads(f'"{quoted}"'))
        at = found.end()
    if not at:
        raise wrong(f"{text!r} is no path", None, table, hint='write it as $.a.b[0] or $."a name"')
    return tuple(steps)


class _Node:
    """One place in the documents: which of the new columns are taken here, and what lies deeper."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.names: dict[str, _Node] = {}
        self.indexes: dict[int, _Node] = {}
        self.members: list[tuple[str, _Node]] = []
        self.object: Any = None
        #: Its decoder gives a dict: names that a struct's field cannot have.
        self.as_dict = False
        self.array: Any = None

    def add(self, path: Path, column: int) -> None:
        if not path:
            self.taken.append(column)
            return
        step, rest = path[0], path[1:]
        child = (
            self.indexes.setdefault(step, _Node()) if isinstance(step, int) else self.names.setdefault(step, _Node())
        )
        child.add(rest, column)

    def close(self) -> None:
        """Makes the decoders: of an object only the members that are wanted are looked at."""
        raw = msgspec.Raw | msgspec.UnsetType
        if any(_NO_FIELD.search(name) for name in self.names):
            self.as_dict = True
            self.members = list(self.names.items())
            self.object = msgspec.json.Decoder(dict[str, msgspec.Raw])
        elif self.names:
            self.members = [(f"m{place}", child) for place, child in enumerate(self.names.values())]
            named = {f"m{place}": name for place, name in enumerate(self.names)}
            fields = [(name, raw, msgspec.UNSET) for name in named]
            self.object = msgspec.json.Decoder(msgspec.defstruct("Members", fields, rename=named))
        if self.indexes:
            self.array = msgspec.json.Decoder(list[msgspec.Raw])
        for child in (*self.names.values(), *self.indexes.values()):
            child.close()

    def read(self, document: bytes, row: list[bytes | None]) -> None:
        """Fills ``row`` with the raw JSON of what is taken from a document that is JSON. Raises msgspec.DecodeError."""
        for column in self.taken:
            row[column] = document
        if self.object is not None and document[:1] == b"{":
            found = self.object.decode(document)
            for name, child in self.members:
                inner = found.get(name, msgspec.UNSET) if self.as_dict else getattr(found, name)
                if inner is not msgspec.UNSET:
                    child.read(bytes(inner), row)
        elif self.array is not None and document[:1] == b"[":
            elements = self.array.decode(document)
            for index, child in self.indexes.items():
                if index < len(elements):
                    child.read(bytes(elements[index]), row)


_STRING = msgspec.json.Decoder(str)
#: Reads a document through, so that all of it is known to be JSON, and makes nothing of it.
_WHOLE = msgspec.json.Decoder(msgspec.Raw)


def json_take(rule: Rule, chosen: Sequence[OutColumn], fields: Sequence[OutColumn], table: str) -> Made:
    """New columns from paths into one column of JSON (or of text that is JSON); the column itself stays.

    What is not there, and JSON's null, is NULL. Text that is no JSON is unfit, as is a value of another type.
    """
    if len(chosen) != 1:
        raise wrong(f"the rule json_take is for one column, and {len(chosen)} match", None, table)
    source = chosen[0]
    if source.type.kind not in (*JSON_KINDS, *FREE_TEXTS):
        raise wrong(f"the rule json_take is for JSON and text, and this is {source.type}", source, table)
    root, readers, columns = _Node(), [], []
    for place, (name, text) in enumerate(rule.paths.items()):
        if any(field.name == name for field in fields):
            raise wrong(f"the rule json_take: there is a column {name!r} already", source, table)
        path_text, type_ = _typed(text, source, table)
        root.add(_path(path_text, table), place)
        readers.append(_reader(type_, path_text, source, table))
        columns.append(OutColumn(name, type_))
    root.close()

    def run(batch: pa.RecordBatch) -> tuple[list[Worked], dict[int, str]]:
        taken: list[list[bytes | None]] = []
        broken: dict[int, str] = {}
        for row, document in enumerate(batch.column(source.name).cast(pa.binary()).to_pylist()):
            raws: list[bytes | None] = [None] * len(columns)
            taken.append(raws)
            if document is None:
                continue
            try:
                root.read(bytes(_WHOLE.decode(document)).strip(), raws)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                broken[row] = f"is no JSON that could be read: {error}"
                taken[row] = [None] * len(columns)
        return [read([raws[place] for raws in taken]) for place, read in enumerate(readers)], broken

    return Made(tuple(columns), run)


def _typed(text: str, source: OutColumn, table: str) -> tuple[str, Type]:
    """``$.a as int64`` as path and type; text where none is said."""
    path, word, name = text.rpartition(" as ")
    if not word or '"' in name:
        return text, Type("text")
    from rowferry.stages.type_text import parse_type

    try:
        return path, parse_type(name)
    except ConfigError as error:
        raise error.at(table=table, column=source.name) from None


#: The raw JSON of one column's values → the values.
_Reader = Callable[[list[bytes | None]], Worked]


def _reader(type_: Type, path: str, source: OutColumn, table: str) -> _Reader:
    reason = f"has at {path.strip()} what does not fit {type_}"
    if type_.kind in JSON_KINDS:
        return lambda raws: Worked(
            pa.array([None if raw == b"null" else raw for raw in raws], pa.binary()).cast(pa.utf8())
        )
    if type_.kind in ("bool", "float64"):
        return _python_reader(_bool if type_.kind == "bool" else _float, type_, reason)
    way = conversion(Type("text"), type_)
    if isinstance(way, str):
        raise wrong(f"there is no way from JSON to {type_}", source, table, hint="take it as text and cast it")
    number = type_.is_integer or type_.kind in ("decimal", "numeric")

    def read(raws: list[bytes | None]) -> Worked:
        texts = pa.array([_scalar(raw, number) for raw in raws], pa.utf8())
        if way.step.function is None:
            return Worked(texts)
        values, unfit = way.step.function(texts)
        return Worked(values, 0, {} if unfit is None else dict.fromkeys(rows_of(pc.fill_null(unfit, False)), reason))

    return read


def _scalar(raw: bytes | None, number: bool) -> str | None:
    """A string's own text, or the JSON as it is written; digits alone of a number with an exponent or .0."""
    if raw is None or raw == b"null":
        return None
    if raw[:1] == b'"':
        return str(_STRING.decode(raw))
    text = raw.decode()
    if number and raw[:1] in b"-0123456789" and any(sign in text for sign in ".eE"):
        value = Decimal(text)
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and abs(exponent) <= _EXPONENT_MAX and value.adjusted() <= _EXPONENT_MAX:
            text = format(value, "f")
            if "." in text:
                text = text.rstrip("0").rstrip(".")
    return "0" if number and text == "-0" else text


def _python_reader(one: Callable[[bytes], Any], type_: Type, reason: str) -> _Reader:
    def read(raws: list[bytes | None]) -> Worked:
        values = [None if raw is None or raw == b"null" else one(raw) for raw in raws]
        unfit = {
            row: reason for row, raw in enumerate(raws) if raw is not None and raw != b"null" and values[row] is None
        }
        return Worked(pa.array(values, type_.arrow), 0, unfit)

    return read


def _bool(raw: bytes) -> bool | None:
    return {b"true": True, b"false": False}.get(raw)


def _float(raw: bytes) -> float | None:
    if raw[:1] not in (b"-", *(b"%d" % digit for digit in range(10))):
        return None
    value = float(raw)
    return value if math.isfinite(value) else None


def json_put(rule: Rule, chosen: Sequence[OutColumn], fields: Sequence[OutColumn], table: str) -> Made:
    """A new column ``into`` with one JSON object of the columns; they themselves stay. NULL is JSON's null.

    paths: the member (``name``, or ``$.a.b`` for one within another) → our column; what is not named there goes
    under its own name. Numbers go in with all their digits; NaN and the infinities, which JSON has not, are unfit.
    """
    into = rule.into or ""
    if any(field.name == into for field in fields):
        raise wrong(f"the rule json_put: there is a column {into!r} already", None, table)
    by_name = {column.name: column for column in chosen}
    members: dict[Path, OutColumn] = {}
    for member, name in rule.paths.items():
        if name not in by_name:
            raise wrong(f"the rule json_put: paths names {name!r}, which columns does not", None, table)
        path = _path(member, table) if member.startswith("$") else (member,)
        if not path or any(isinstance(step, int) for step in path):
            raise wrong(f"the rule json_put: {member!r} is no member of an object", None, table)
        members[path] = by_name[name]
    for name, column in by_name.items():
        if name not in rule.paths.values():
            if (name,) in members:
                raise wrong(f"the rule json_put: two columns would be the member {name!r}", column, table)
            members[(name,)] = column
    columns = list(members.values())
    writers = [_writer(column, table) for column in columns]
    pieces = _pieces(members, table)

    def run(batch: pa.RecordBatch) -> tuple[list[Worked], dict[int, str]]:
        unfit: dict[int, str] = {}
        written = [writer(batch.column(column.name), unfit) for column, writer in zip(columns, writers, strict=True)]
        parts = [piece if isinstance(piece, str) else written[piece] for piece in pieces]
        whole = pc.binary_join_element_wise(*parts, "") if len(batch) else pa.array([], pa.utf8())
        return [Worked(whole, 0, unfit)], {}

    return Made((OutColumn(into, Type("json"), False),), run)


def _pieces(members: dict[Path, OutColumn], table: str) -> list[str | int]:
    """The object's text between its values, and the values by their place among ``members``."""
    tree: dict[str, Any] = {}
    for place, path in enumerate(members):
        node = tree
        for step in path[:-1]:
            node = node.setdefault(str(step), {})
            if not isinstance(node, dict):
                raise wrong(f"the rule json_put: {step!r} is a value and an object", None, table)
        if str(path[-1]) in node:
            raise wrong(f"the rule json_put: {path[-1]!r} is there twice", None, table)
        node[str(path[-1])] = place
    pieces: list[str | int] = []

    def write(node: dict[str, Any]) -> None:
        pieces.append("{")
        for count, (name, inner) in enumerate(node.items()):
            pieces.append(("," if count else "") + json.dumps(name, ensure_ascii=False) + ":")
            if isinstance(inner, dict):
                write(inner)
            else:
                pieces.append(inner)
        pieces.append("}")

    write(tree)
    return pieces


#: What has to be escaped in a JSON string.
_SPECIAL = r'["\\\x00-\x1f]'
_Writer = Callable[[pa.Array, dict[int, str]], pa.Array]
_NO_NUMBER = r"^-?(?:NaN|Infinity|inf|nan)$"


def _writer(column: OutColumn, table: str) -> _Writer:
    """From a column's values to their JSON; ``null`` for NULL."""
    type_ = column.type
    kind = type_.kind
    if kind in JSON_KINDS:
        return lambda array, _: pc.fill_null(array, "null")
    if kind == "bool" or type_.is_integer:
        return lambda array, _: pc.fill_null(array.cast(pa.utf8()), "null")
    if kind in ("decimal", "numeric", *FLOATS):
        return lambda array, unfit: _numbers(array, type_, unfit)
    if kind in ("binary", "wire", "list", "struct", "map"):
        raise wrong(f"the rule json_put: a value of type {type_} has no JSON", column, table, hint="leave it out")

    def quote(array: pa.Array, unfit: dict[int, str]) -> pa.Array:
        if not pa.types.is_string(array.type):
            array = pa.array([value_text(array, row, type_) for row in range(len(array))], pa.utf8())
        escaped = by_value(
            array,
            pc.match_substring_regex(array, pattern=_SPECIAL),
            lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        )
        return pc.fill_null(pc.binary_join_element_wise('"', escaped, '"', ""), "null")

    return quote


def _numbers(array: pa.Array, type_: Type, unfit: dict[int, str]) -> pa.Array:
    if type_.kind in FLOATS:
        texts = array.cast(pa.utf8())
    else:
        way = conversion(type_, Type("numeric"))
        assert not isinstance(way, str)
        texts = way.apply(array)[0]
    none = pc.fill_null(pc.match_substring_regex(texts, pattern=_NO_NUMBER), False)
    for row in rows_of(none):
        unfit[row] = f"would hold {texts[row].as_py()}, which JSON has not"
    return pc.fill_null(texts, "null")
