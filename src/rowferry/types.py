"""The canonical types: what a column *is*, apart from how one engine spells it.

A source gives each column in one :class:`Type`; a target takes each column in one.
``Type.arrow`` is the one Arrow type in which batches carry it, so any source fits any
target and an adapter has to know only its own engine (N + M mappings, never N × M).

Values that Arrow's own range or Python cannot hold are carried by convention:

* ``date`` / ``timestamp`` / ``timestamptz``: the smallest and largest integer of the
  storage are −infinity and +infinity. A finite value that would need them is refused.
* ``time``: 24:00:00 is 86,400,000,000 µs.
* ``numeric``: text such as ``-12.50``, ``NaN``, ``Infinity``, ``-Infinity``; no exponent.
* ``char``: without its padding. ``bit``/``varbit``: text of ``0`` and ``1``.
* ``enum``: text, one of ``labels`` where they are known.
* ``interval``: months, days, nanoseconds, never normalised into each other.
* ``timetz``: text, as PostgreSQL writes it (``10:00:00.5+05:30``).
* ``opaque``: the text form of the native type named in ``native`` (``postgresql:inet``).
* ``wire``: its raw bytes; only between two databases of the same engine.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
#: Kinds whose Arrow form is utf8.
TEXTS = ("text", "char", "numeric", "timetz", "json", "jsonb", "enum", "bit", "varbit", "opaque")
DATE_INFINITY = 2**31 - 1
DATE_MINUS_INFINITY = -(2**31)
TIMESTAMP_INFINITY = 2**63 - 1
TIMESTAMP_MINUS_INFINITY = -(2**63)

#: Key of a Field's metadata: the canonical type as JSON.
TYPE_KEY = b"rowferry.type"
#: Key of a Field's metadata: ``engine:native type``, as the source declared it.
NATIVE_KEY = b"rowferry.native"


class Type(msgspec.Struct, frozen=True):
    """One canonical type.

    kind: bool, int8…uint64, float32, float64, decimal, numeric, text, char, binary, date,
        time, timetz, timestamp, timestamptz, duration, interval, uuid, json, jsonb, enum,
        bit, varbit, list, struct, map, opaque, wire.
    precision: digits of a decimal (1–76); digits of fractional seconds of time, timestamp(tz),
        duration, interval (None: all that the unit has).
    scale: digits after the point of a decimal.
    length: characters of char and of a bounded text (varchar(n)), bytes of a bounded binary,
        bits of bit and of a bounded varbit.
    fixed: a binary whose every value has exactly ``length`` bytes.
    unit: s, ms, us or ns; of time (us, ns), timestamp, timestamptz, duration.
    element: of list; a map is (key, value) in ``fields``.
    fields: of struct and map.
    labels: of enum.
    native: of opaque, wire, enum: ``engine:type``.
    """

    kind: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    fixed: bool = False
    unit: str | None = None
    element: Type | None = None
    fields: tuple[Field, ...] = ()
    labels: tuple[str, ...] = ()
    native: str | None = None

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that batches carry this type in."""
        return _arrow(self)

    @property
    def is_integer(self) -> bool:
        return self.kind in INTEGERS

    def __str__(self) -> str:
        if self.kind == "decimal":
            return f"decimal({self.precision},{self.scale})"
        if self.kind in ("list",):
            return f"list<{self.element}>"
        if self.kind in ("struct", "map"):
            return f"{self.kind}<{', '.join(f'{f.name}: {f.type}' for f in self.fields)}>"
        if self.kind in ("opaque", "wire"):
            return f"{self.kind} {self.native}"
        size = self.length if self.length is not None else self.precision
        unit = f"[{self.unit}]" if self.unit and self.unit != "us" else ""
        return f"{self.kind}{'' if size is None else f'({size})'}{unit}"


class Field(msgspec.Struct, frozen=True):
    """A named part of a struct or map."""

    name: str
    type: Type


_PLAIN = {
    "bool": pa.bool_(), "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
    "uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(),
    "float32": pa.float32(), "float64": pa.float64(), "binary": pa.binary(), "wire": pa.binary(),
    "date": pa.date32(), "interval": pa.month_day_nano_interval(), "uuid": pa.binary(16),
}  # fmt: skip


def _arrow(t: Type) -> pa.DataType:
    if t.kind == "binary" and t.fixed and t.length:
        return pa.binary(t.length)
    if t.kind in _PLAIN:
        return _PLAIN[t.kind]
    if t.kind in TEXTS:
        return pa.utf8()
    if t.kind == "decimal":
        assert t.precision is not None and t.scale is not None
        make = pa.decimal128 if t.precision <= 38 else pa.decimal256
        return make(t.precision, t.scale)
    if t.kind == "time":
        return pa.time64(t.unit or "us")
    if t.kind == "timestamp":
        return pa.timestamp(t.unit or "us")
    if t.kind == "timestamptz":
        return pa.timestamp(t.unit or "us", "UTC")
    if t.kind == "duration":
        return pa.duration(t.unit or "us")
    if t.kind == "list":
        assert t.element is not None
        return pa.list_(pa.field("item", t.element.arrow))
    if t.kind == "struct":
        return pa.struct([pa.field(f.name, f.type.arrow) for f in t.fields])
    if t.kind == "map":
        return pa.map_(t.fields[0].type.arrow, t.fields[1].type.arrow)
    raise ValueError(f"no Arrow type for kind {t.kind!r}")


def from_arrow(t: pa.DataType) -> Type | None:
    """The canonical type of a plain Arrow type; None where there is none (unions, …).

    Strings, binaries and lists of any layout, dictionaries and run-end encodings count as
    what they hold; :func:`canonical_array` brings their arrays to the canonical layout.
    """
    if isinstance(t, pa.BaseExtensionType):
        if t.extension_name == "arrow.uuid":
            return Type("uuid")
        if t.extension_name == "arrow.json":
            return Type("json")
        return from_arrow(t.storage_type)
    if pa.types.is_dictionary(t) or pa.types.is_run_end_encoded(t):
        return from_arrow(t.value_type)
    for kind, plain in _PLAIN.items():
        if kind not in ("wire", "uuid") and t.equals(plain):
            return Type(kind)
    if pa.types.is_float16(t):
        return Type("float32")
    if pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t):
        return Type("text")
    if pa.types.is_fixed_size_binary(t):
        return Type("binary", length=t.byte_width, fixed=True)
    if pa.types.is_large_binary(t) or pa.types.is_binary_view(t):
        return Type("binary")
    if pa.types.is_decimal(t):
        return Type("decimal", precision=t.precision, scale=t.scale)
    if pa.types.is_date64(t):
        return Type("date")
    if pa.types.is_time(t):
        return Type("time", unit="ns" if t.unit == "ns" else "us")
    if pa.types.is_timestamp(t):
        return Type("timestamptz" if t.tz else "timestamp", unit=t.unit)
    if pa.types.is_duration(t):
        return Type("duration", unit=t.unit)
    if pa.types.is_map(t):
        key, value = from_arrow(t.key_type), from_arrow(t.item_type)
        return Type("map", fields=(Field("key", key), Field("value", value))) if key and value else None
    if pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t) or pa.types.is_list_view(t):
        element = from_arrow(t.value_type)
        return Type("list", element=element) if element else None
    if pa.types.is_struct(t):
        fields = [(f.name, from_arrow(f.type)) for f in t]
        if any(inner is None for _, inner in fields):
            return None
        return Type("struct", fields=tuple(Field(n, inner) for n, inner in fields if inner))
    if pa.types.is_null(t):
        return Type("text")
    return None


def dump(value: Any) -> Any:
    """A struct of ours as plain JSON values (what is at its default is left out)."""
    if isinstance(value, msgspec.Struct):
        names, defaults = value.__struct_fields__, value.__struct_defaults__
        kept: dict[str, Any] = {}
        for i, name in enumerate(names, len(defaults) - len(names)):
            held = getattr(value, name)
            if i < 0 or held != defaults[i]:
                kept[name] = dump(held)
        return kept
    if isinstance(value, (list, tuple)):
        return [dump(v) for v in value]
    if isinstance(value, dict):
        return {k: dump(v) for k, v in value.items()}
    return value


def load(data: Any, as_type: Any) -> Any:
    """The inverse of :func:`dump`; raises ``msgspec.ValidationError`` naming the path."""
    return msgspec.convert(data, as_type)


def arrow_field(name: str, t: Type, native: str | None = None, nullable: bool = True) -> pa.Field:
    """An Arrow field that carries its canonical (and native) type in its metadata."""
    metadata = {TYPE_KEY: msgspec.json.encode(dump(t))}
    if native:
        metadata[NATIVE_KEY] = native.encode()
    return pa.field(name, t.arrow, nullable, metadata)


def type_of_field(field: pa.Field) -> Type | None:
    """The canonical type of a field: its metadata's where it fits the Arrow type, else by the Arrow type."""
    tagged = (field.metadata or {}).get(TYPE_KEY)
    if tagged:
        try:
            return msgspec.json.decode(tagged, type=Type)
        except msgspec.DecodeError:  # another tool's metadata under our key: the Arrow type decides
            return from_arrow(field.type)
    return from_arrow(field.type)
