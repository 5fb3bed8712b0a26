"""DuckDB's types and ours, both ways: what a column is, how it is read and how it is written.

Nothing is left to DuckDB's own casts, several of which round or cut without a word (a text into
a decimal, nanoseconds into microseconds). A column is read by a cast only where that is exact,
and written only as exactly its own type, or through a guarded cast whose result is cast back and
held against the value.
"""

from __future__ import annotations

from rowferry.adapters.duckdb.wire import GUARD
from rowferry.convert.duckdb_form import INTERVAL, literal, quote
from rowferry.model import Refusal
from rowferry.types import TEXTS, Field, Type

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
        return "INTERVAL", INTERVAL if t.kind == "duration" or t.precision is None or t.precision > 6 else t
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
