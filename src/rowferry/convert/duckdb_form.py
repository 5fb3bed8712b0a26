"""DuckDB's values and ours: which canonical type each of its types is, and arrays that enter and leave it.

Shared by the adapter, which reads and writes DuckDB's files, and by the transform, whose expressions DuckDB
works out. Nothing is left to casts that round or cut without a word.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import canonical_array
from rowferry.convert.layout import rebuilt
from rowferry.errors import DataError
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    TEXTS,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Field,
    Type,
)

#: DuckDB's −∞ is −(2^n − 1), one above Arrow's smallest integer, which is ours.
_DATE_MINUS = -(2**31) + 1
_TIMESTAMP_MINUS = -(2**63) + 1
#: 290309-12-22 BC 00:00:00. One microsecond earlier, DuckDB 2.0 prints a timestamp by
#: invalidating the whole database (INTERNAL, then FATAL error; measured).
_MICROSECONDS_MIN = -9_223_372_022_400_000_000
_MICROSECONDS_MAX = TIMESTAMP_INFINITY - 1
_UNIT_FACTORS = {"s": 1_000_000, "ms": 1_000, "us": 1}

INTERVAL = Type("interval", precision=6)
_TEXT = Type("text")
#: DuckDBPyType.id → canonical type. HUGEINT and its kin are below.
_PLAIN = {
    "boolean": Type("bool"), "tinyint": Type("int8"), "smallint": Type("int16"), "integer": Type("int32"),
    "bigint": Type("int64"), "utinyint": Type("uint8"), "usmallint": Type("uint16"), "uinteger": Type("uint32"),
    "ubigint": Type("uint64"), "float": Type("float32"), "double": Type("float64"), "varchar": _TEXT,
    "blob": Type("binary"), "date": Type("date"), "time": Type("time", unit="us"),
    "time_ns": Type("time", unit="ns"), "time with time zone": Type("timetz"),
    "timestamp": Type("timestamp", unit="us"), "timestamp_s": Type("timestamp", unit="s"),
    "timestamp_ms": Type("timestamp", unit="ms"), "timestamp_ns": Type("timestamp", unit="ns"),
    "timestamp with time zone": Type("timestamptz", unit="us"), "timestamptz_ns": Type("timestamptz", unit="ns"),
    "interval": INTERVAL, "uuid": Type("uuid"), "bit": Type("varbit"),
    # Wider than a decimal of 38 digits, which is all that DuckDB's Arrow carries exactly: as text.
    "hugeint": Type("numeric"), "uhugeint": Type("numeric"), "bignum": Type("numeric"),
    # Its text gives back every coordinate (shortest digits of each double).
    "geometry": Type("opaque", native="duckdb:GEOMETRY"),
    "null": _TEXT,
}  # fmt: skip


def quote(name: str) -> str:
    """An SQL identifier. DuckDB takes any characters in quotes but NUL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal: DuckDB knows no backslash escapes in one."""
    return "'" + text.replace("'", "''") + "'"


def canonical(native: Any) -> Type | None:
    """The canonical type of a DuckDBPyType; None where there is none (UNION, VARIANT, …)."""
    kind, text = str(native.id), str(native)
    if text == "JSON":
        return Type("json")
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "decimal":
        parts = dict(native.children)
        return Type("decimal", precision=int(parts["precision"]), scale=int(parts["scale"]))
    if kind == "enum":
        return Type("enum", labels=tuple(dict(native.children)["values"]))
    if kind in ("list", "array"):
        element = canonical(dict(native.children)["child"])
        return Type("list", element=element) if element else None
    if kind == "map":
        parts = dict(native.children)
        key, value = canonical(parts["key"]), canonical(parts["value"])
        return Type("map", fields=(Field("key", key), Field("value", value))) if key and value else None
    if kind == "struct":
        fields = [(name, canonical(inner)) for name, inner in native.children]
        if any(inner is None for _, inner in fields):
            return None
        return Type("struct", fields=tuple(Field(name, inner) for name, inner in fields if inner))
    return None


def read_expression(column: str, native: Any, form: Type) -> str:
    """SQL that gives a column in a form: the column itself, or an exact cast of it.

    UUID leaves as its 16 bytes; what has no exact Arrow form leaves as text.
    """
    name = quote(column)
    if form.kind in TEXTS:
        return name if str(native.id) == "varchar" else f"CAST({name} AS VARCHAR)"
    if not _carried(native):
        return name
    return f"CAST({name} AS {_read_type(native)})"


def _carried(native: Any) -> bool:
    """Whether the type, or one within it, is read through a cast."""
    kind = str(native.id)
    if kind in ("list", "array"):
        return _carried(dict(native.children)["child"])
    if kind in ("map", "struct"):
        return any(_carried(inner) for _, inner in native.children)
    return kind == "uuid" or kind == "enum" or _is_text_only(native)


def _is_text_only(native: Any) -> bool:
    """Types without an exact Arrow form of DuckDB's own: they travel as text."""
    form = canonical(native)
    return form is not None and form.kind in ("timetz", "varbit", "numeric", "opaque")


def _read_type(native: Any) -> str:
    kind = str(native.id)
    if kind == "uuid":
        return "BLOB"
    if kind == "enum" or _is_text_only(native):
        return "VARCHAR"
    children = dict(native.children) if kind in ("list", "array", "map", "struct") else {}
    if kind in ("list", "array"):
        return f"{_read_type(children['child'])}[]"
    if kind == "map":
        return f"MAP({_read_type(children['key'])}, {_read_type(children['value'])})"
    if kind == "struct":
        return f"STRUCT({', '.join(f'{quote(name)} {_read_type(inner)}' for name, inner in native.children)})"
    return str(native)


# Arrays.


def to_duckdb(array: pa.Array, t: Type) -> pa.Array:
    """A canonical array as DuckDB takes it: its −∞, uuid as UUID. Raises DataError for a time that
    DuckDB cannot hold."""
    if t.kind == "uuid":
        return pa.ExtensionArray.from_storage(pa.uuid(), array)
    if t.kind == "date":
        return _minus_infinity(array, pa.int32(), DATE_MINUS_INFINITY, _DATE_MINUS, None)
    if t.kind in ("timestamp", "timestamptz"):
        factor = _UNIT_FACTORS.get(t.unit or "us")
        finite = None if factor is None else (-(-_MICROSECONDS_MIN // factor), _MICROSECONDS_MAX // factor)
        return _minus_infinity(array, pa.int64(), TIMESTAMP_MINUS_INFINITY, _TIMESTAMP_MINUS, finite)
    if t.kind in ("list", "struct", "map") and _needs_change(t):
        return rebuilt(array, t, to_duckdb)
    return array


def from_duckdb(array: pa.Array, t: Type) -> pa.Array:
    """An array as DuckDB gives it in ``t.arrow``, with our −∞."""
    array = canonical_array(array, t)
    return _restore(array, t)


def _restore(array: pa.Array, t: Type) -> pa.Array:
    if t.kind == "date":
        return _swap(array, pa.int32(), _DATE_MINUS, DATE_MINUS_INFINITY)
    if t.kind in ("timestamp", "timestamptz"):
        return _swap(array, pa.int64(), _TIMESTAMP_MINUS, TIMESTAMP_MINUS_INFINITY)
    if t.kind in ("list", "struct", "map") and _needs_change(t):
        return rebuilt(array, t, _restore)
    return array


def _needs_change(t: Type) -> bool:
    inner = [f.type for f in t.fields] + ([t.element] if t.element else [])
    return t.kind in ("uuid", "date", "timestamp", "timestamptz") or any(map(_needs_change, inner))


def _swap(array: pa.Array, ints_type: pa.DataType, old: int, new: int) -> pa.Array:
    ints = array.view(ints_type)
    if pc.min_max(ints).as_py()["min"] not in (old, min(old, new)):
        return array
    return pc.if_else(pc.equal(ints, old), pa.scalar(new, ints_type), ints).view(array.type)


def _minus_infinity(
    array: pa.Array, ints_type: pa.DataType, old: int, new: int, finite: tuple[int, int] | None
) -> pa.Array:
    ints = array.view(ints_type)
    extremes = pc.min_max(ints).as_py()
    low, high = extremes["min"], extremes["max"]
    if low is None:
        return array
    top = DATE_INFINITY if ints_type == pa.int32() else TIMESTAMP_INFINITY
    least, most = finite or (new + 1, top - 1)
    if least <= low and high <= most:
        return array
    infinite = pc.or_(pc.equal(ints, old), pc.equal(ints, top))
    beyond = pc.and_(pc.invert(infinite), pc.or_(pc.less(ints, least), pc.greater(ints, most)))
    if pc.any(beyond).as_py():
        value = ints.filter(pc.fill_null(beyond, False))[0].as_py()
        raise DataError(f"a {array.type} beyond DuckDB's range", value=str(value))
    return pc.if_else(pc.equal(ints, old), pa.scalar(new, ints_type), ints).view(array.type)
