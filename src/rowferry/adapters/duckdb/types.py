"""DuckDB's types and ours, both ways: what a column is, how it is read and how it is written.

Nothing is left to DuckDB's own casts, several of which round or cut without a word (a text into
a decimal, nanoseconds into microseconds). A column is read by a cast only where that is exact,
and written only as exactly its own type, or through a guarded cast whose result is cast back and
held against the value.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters.duckdb.wire import GUARD, literal, quote
from rowferry.convert import canonical_array
from rowferry.errors import DataError
from rowferry.model import Refusal
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

_INTERVAL = Type("interval", precision=6)
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
    "interval": _INTERVAL, "uuid": Type("uuid"), "bit": Type("varbit"),
    # Wider than a decimal of 38 digits, which is all that DuckDB's Arrow carries exactly: as text.
    "hugeint": Type("numeric"), "uhugeint": Type("numeric"), "bignum": Type("numeric"),
    # Its text gives back every coordinate (shortest digits of each double).
    "geometry": Type("opaque", native="duckdb:GEOMETRY"),
    "null": _TEXT,
}  # fmt: skip

_DDL = {
    "bool": "BOOLEAN", "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT", "float32": "FLOAT",
    "float64": "DOUBLE", "text": "VARCHAR", "char": "VARCHAR", "binary": "BLOB", "date": "DATE",
    "timetz": "TIME WITH TIME ZONE", "interval": "INTERVAL", "uuid": "UUID", "json": "JSON", "jsonb": "JSON",
    "bit": "BIT", "varbit": "VARCHAR", "opaque": "VARCHAR", "numeric": "VARCHAR",
}  # fmt: skip
_TIME_DDL = {
    ("time", "us"): "TIME", ("time", "ns"): "TIME_NS", ("timestamp", "s"): "TIMESTAMP_S",
    ("timestamp", "ms"): "TIMESTAMP_MS", ("timestamp", "us"): "TIMESTAMP", ("timestamp", "ns"): "TIMESTAMP_NS",
    ("timestamptz", "us"): "TIMESTAMP WITH TIME ZONE", ("timestamptz", "ns"): "TIMESTAMPTZ_NS",
}  # fmt: skip


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


def plan_type(t: Type) -> tuple[str, Type] | Refusal:
    """The DDL type for a canonical type, and the canonical type in which it will be written."""
    if t.kind in ("timestamp", "timestamptz", "time"):
        unit = "us" if (t.kind == "timestamptz" and t.unit in ("s", "ms")) else (t.unit or "us")
        return _TIME_DDL[t.kind, unit], _with_unit(t, unit)
    if t.kind == "decimal":
        return _plan_decimal(t)
    if t.kind == "numeric":
        return Refusal(None, "DuckDB has no numeric without bounds", policies=("text", "skip"))
    if t.kind in ("interval", "duration"):
        return "INTERVAL", _INTERVAL if t.kind == "duration" or t.precision is None or t.precision > 6 else t
    if t.kind == "enum":
        return (f"ENUM({', '.join(map(literal, t.labels))})", t) if _labels_fit(t) else ("VARCHAR", t)
    if t.kind == "list":
        return _plan_list(t)
    if t.kind in ("struct", "map"):
        return _plan_fields(t)
    if t.kind == "wire":
        return Refusal(None, f"DuckDB does not know the bytes of {t.native}", policies=("skip",))
    return _DDL[t.kind], t


def _with_unit(t: Type, unit: str) -> Type:
    precision = t.precision
    if precision is None and t.unit in ("s", "ms") and unit == "us":
        precision = 0 if t.unit == "s" else 3
    return Type(t.kind, precision=precision, unit=unit)


def _plan_decimal(t: Type) -> tuple[str, Type] | Refusal:
    assert t.precision is not None and t.scale is not None
    scale = max(t.scale, 0)
    precision = max(t.precision - min(t.scale, 0), scale, 1)
    if precision > 38:
        return Refusal(
            None, f"DuckDB's decimals have 38 digits at the most, not {precision}", policies=("text", "skip")
        )
    return f"DECIMAL({precision},{scale})", Type("decimal", precision=precision, scale=scale)


def _labels_fit(t: Type) -> bool:
    return bool(t.labels) and len(set(t.labels)) == len(t.labels) and not any("\0" in label for label in t.labels)


def _plan_list(t: Type) -> tuple[str, Type] | Refusal:
    assert t.element is not None
    inner = plan_type(t.element)
    if isinstance(inner, Refusal):
        return inner
    return f"{inner[0]}[]", Type("list", element=inner[1])


def _plan_fields(t: Type) -> tuple[str, Type] | Refusal:
    planned: list[tuple[str, str, Type]] = []
    for field in t.fields:
        inner = plan_type(field.type)
        if isinstance(inner, Refusal):
            return inner
        planned.append((field.name, *inner))
    to = Type(t.kind, fields=tuple(Field(name, inner) for name, _, inner in planned))
    if t.kind == "map":
        return f"MAP({planned[0][1]}, {planned[1][1]})", to
    names = [name.lower() for name, _, _ in planned]
    if not names or len(set(names)) < len(names) or "" in names:
        return Refusal(None, "DuckDB needs a name of its own for each field of a struct", policies=("text", "skip"))
    return f"STRUCT({', '.join(f'{quote(name)} {ddl}' for name, ddl, _ in planned)})", to


def carrier(t: Type) -> str:
    """The SQL type as which a column in ``t.arrow`` (after :func:`to_duckdb`) enters DuckDB."""
    if t.kind in TEXTS:
        return "VARCHAR"
    if t.kind == "decimal":
        return f"DECIMAL({t.precision},{t.scale})"
    if t.kind == "list":
        assert t.element is not None
        return f"{carrier(t.element)}[]"
    if t.kind == "map":
        return f"MAP({carrier(t.fields[0].type)}, {carrier(t.fields[1].type)})"
    if t.kind == "struct":
        return f"STRUCT({', '.join(f'{quote(f.name)} {carrier(f.type)}' for f in t.fields)})"
    planned = plan_type(t)
    assert not isinstance(planned, Refusal)
    return planned[0]


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


def write_expression(name: str, t: Type, source: str, native: str) -> str:
    """SQL that writes the view's column ``name`` of type ``source`` (the carrier of ``t``, as DuckDB
    spells it) into a column of type ``native``."""
    quoted = quote(name)
    if source == native:
        return quoted
    cast = f"CAST({quoted} AS {native})"
    if t.kind in ("json", "jsonb", "enum"):
        return cast  # kept to the letter: JSON is only checked, an unknown label is an error
    if t.kind == "decimal" and native in ("HUGEINT", "UHUGEINT") and not t.scale:
        return cast
    message = literal(f"{GUARD}a value of type {t} is not held exactly by DuckDB's {native}: ")
    back = f"CAST({cast} AS {source})"
    shown = f"left(CAST({quoted} AS VARCHAR), 200)"
    return f"CASE WHEN {back} IS NOT DISTINCT FROM {quoted} THEN {cast} ELSE error({message} || {shown}) END"


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
        return _rebuild(array, t, to_duckdb)
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
        return _rebuild(array, t, _restore)
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


def _rebuild(array: pa.Array, t: Type, change: Any) -> pa.Array:
    """A nested array with its leaves changed; offsets and NULLs stay."""
    mask = pc.is_null(array) if array.null_count else None
    if t.kind == "struct":
        # field() leaves the parent's NULLs out, and keeps to its slice.
        parts = [change(array.field(i), f.type) for i, f in enumerate(t.fields)]
        fields = [pa.field(f.name, p.type) for f, p in zip(t.fields, parts, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=mask)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = pc.subtract(array.offsets, pa.scalar(first, pa.int32())) if first else array.offsets
    if t.kind == "list":
        assert t.element is not None
        values = change(array.values.slice(first, last - first), t.element)
        return pa.ListArray.from_arrays(offsets, values, mask=mask)
    keys = change(array.keys.slice(first, last - first), t.fields[0].type)
    items = change(array.items.slice(first, last - first), t.fields[1].type)
    if mask is not None:  # from_arrays of maps takes no mask: a NULL offset says it
        offsets = pc.if_else(
            pa.concat_arrays([mask, pa.array([False])]), pa.scalar(None, pa.int32()), offsets.cast(pa.int32())
        )
    return pa.MapArray.from_arrays(offsets, keys, items)
