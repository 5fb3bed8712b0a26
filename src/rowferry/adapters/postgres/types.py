"""PostgreSQL's types and the canonical ones: both ways, and the codec of each form.

Three ways of reading a column exist: decoded by a codec into its canonical type; as the raw bytes
of its binary form (kind ``wire``), for another PostgreSQL; and as text (kind ``opaque``), cast in
the server. Types without a decoder have the last two, and those whose binary form holds OIDs of
this one database (arrays and composites of user types, reg*) the last alone.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from rowferry.types import Type

#: Engine's name in ``Type.native``.
PREFIX = "postgresql:"
#: User objects have OIDs from here on (FirstNormalObjectId).
FIRST_USER_OID = 16384
#: Longest varchar(n), char(n) that the server makes (MaxAttrSize).
TEXT_LENGTH_MAX = 10_485_760
DECIMAL_DIGITS_MAX = 76

OID, NAME, CHAR_BYTE = 26, 19, 18
NUMERIC, VARCHAR, BPCHAR = 1700, 1043, 1042
DATE, TIME, TIMETZ, TIMESTAMP, TIMESTAMPTZ, INTERVAL = 1082, 1083, 1266, 1114, 1184, 1186
BIT, VARBIT, JSONB = 1560, 1562, 3802
#: Types whose binary form is an OID (regproc, regclass, …): by name, or not at all.
REG_TYPES = frozenset((24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191))
#: Arrays whose lower bound is 0.
VECTORS = frozenset((22, 30))

_PLAIN = {
    16: Type("bool"), 21: Type("int16"), 23: Type("int32"), 20: Type("int64"), OID: Type("int64"),
    700: Type("float32"), 701: Type("float64"), 17: Type("binary"), 25: Type("text"), NAME: Type("text"),
    DATE: Type("date"), 2950: Type("uuid"), 114: Type("json"), JSONB: Type("jsonb"),
}  # fmt: skip
_TIMED = {TIME: "time", TIMETZ: "timetz", TIMESTAMP: "timestamp", TIMESTAMPTZ: "timestamptz"}

#: Canonical kind → codec of the kernel, where the kind alone decides.
_CODECS = {
    "bool": "bool", "int16": "int2", "int32": "int4", "int64": "int8", "float32": "float4", "float64": "float8",
    "numeric": "numeric_text", "text": "text", "char": "char", "binary": "bytea", "json": "text", "jsonb": "jsonb",
    "enum": "text", "bit": "bit", "varbit": "varbit", "date": "date", "time": "time", "timestamp": "timestamp",
    "timestamptz": "timestamptz", "interval": "interval", "uuid": "uuid", "opaque": "text", "timetz": "text",
}  # fmt: skip

#: Element types of lists: what format_type() calls them (without a size) → OID.
_ELEMENTS = {
    "boolean": 16, "bytea": 17, "name": NAME, "bigint": 20, "smallint": 21, "integer": 23, "text": 25, "oid": OID,
    "json": 114, "real": 700, "double precision": 701, "character": BPCHAR, "bpchar": BPCHAR,
    "character varying": VARCHAR, "date": DATE, "time without time zone": TIME,
    "timestamp without time zone": TIMESTAMP, "timestamp with time zone": TIMESTAMPTZ, "interval": INTERVAL,
    "bit": BIT, '"bit"': BIT, "bit varying": VARBIT, "numeric": NUMERIC, "uuid": 2950, "jsonb": JSONB,
}  # fmt: skip
#: Canonical kinds that a column takes as text and casts in the server: they have no encoder.
STAGED_KINDS = ("opaque", "timetz")


class TypeRow(msgspec.Struct, frozen=True):
    """A row of pg_type, as far as it concerns us."""

    oid: int
    schema: str
    name: str
    kind: str
    base: int
    base_typmod: int
    element: int
    relation: int
    has_binary: bool
    range_subtype: int
    labels: tuple[str, ...] = ()


class Forms(msgspec.Struct, frozen=True):
    """What a column is: its forms, best first, and the type under its domains."""

    forms: tuple[Type, ...]
    base_oid: int
    #: The base type as format_type() writes it.
    base_native: str
    #: A list form whose arrays have to be looked at.
    is_array: bool = False


def _own(oid: int, name: str) -> TypeRow:
    return TypeRow(oid, "pg_catalog", name, "b", 0, -1, 0, 0, True, 0)


#: Types whose rows are the same in every server: most tables have no others, and nothing is asked about them.
OWN = {
    oid: _own(oid, name)
    for oid, name in (
        (16, "bool"), (17, "bytea"), (20, "int8"), (21, "int2"), (23, "int4"), (25, "text"), (114, "json"),
        (700, "float4"), (701, "float8"), (BPCHAR, "bpchar"), (VARCHAR, "varchar"), (DATE, "date"), (TIME, "time"),
        (TIMESTAMP, "timestamp"), (TIMESTAMPTZ, "timestamptz"), (INTERVAL, "interval"), (TIMETZ, "timetz"),
        (NUMERIC, "numeric"), (2950, "uuid"), (JSONB, "jsonb"),
    )
}  # fmt: skip


def holds_oids(types: dict[int, TypeRow], oid: int) -> bool:
    """Whether the binary form of a type means something in its own database only, or is unknown to us."""
    row = types[oid]
    if row.kind == "d":
        return holds_oids(types, row.base)
    if row.kind in ("c", "p") or oid in REG_TYPES or not row.has_binary:
        return True
    if row.kind == "r":
        return holds_oids(types, row.range_subtype) if row.range_subtype else True
    if row.kind == "m":
        return holds_oids(types, row.range_subtype) if row.range_subtype else True
    if row.kind == "e":
        return False
    if is_array(row):
        return row.element >= FIRST_USER_OID or holds_oids(types, row.element)
    # An extension's type: what its bytes hold only it knows. Its text form is what pg_dump trusts.
    return oid >= FIRST_USER_OID


def is_array(row: TypeRow) -> bool:
    return row.kind == "b" and row.element != 0 and row.name.startswith("_")


def plain_type(row: TypeRow, typmod: int) -> Type | None:
    """The canonical type of a scalar that has a decoder (or, timetz, a text form of its own); else None."""
    oid = row.oid
    if oid in _PLAIN:
        return _PLAIN[oid]
    if row.kind == "e":
        return Type("enum", labels=row.labels)
    if oid == NUMERIC:
        return _numeric(typmod)
    if oid == VARCHAR:
        return Type("text", length=typmod - 4 if typmod >= 4 else None)
    if oid == BPCHAR:
        return Type("char", length=typmod - 4 if typmod >= 4 else None)
    if oid in (BIT, VARBIT):
        return Type("bit" if oid == BIT else "varbit", length=typmod if typmod > 0 else None)
    if oid in _TIMED:
        precision = typmod if 0 <= typmod < 6 else None
        return Type(_TIMED[oid], precision=precision, unit=None if oid == TIMETZ else "us")
    if oid == INTERVAL:
        precision = typmod & 0xFFFF if typmod >= 0 else 0xFFFF
        return Type("interval", precision=precision if precision < 6 else None)
    return None


def _numeric(typmod: int) -> Type:
    if typmod < 4:
        return Type("numeric")
    precision = ((typmod - 4) >> 16) & 0xFFFF
    scale = ((typmod - 4) & 0x7FF ^ 1024) - 1024
    # numeric(2,-3) holds multiples of 1000 up to 99000, numeric(3,5) values below 0.01: Arrow's
    # decimals have 0 ≤ scale ≤ precision, so these get the smallest one that holds them all.
    digits = precision - scale if scale < 0 else max(precision, scale)
    if digits > DECIMAL_DIGITS_MAX:
        return Type("numeric")
    return Type("decimal", precision=digits, scale=max(scale, 0))


def is_rounding(base_oid: int, typmod: int) -> bool:
    """Whether a column of this type changes values in a way that no canonical type expresses:
    numeric(2,-3) rounds to thousands, interval year to month drops the days."""
    if typmod < 0:
        return False
    if base_oid == NUMERIC:
        return ((typmod - 4) & 0x7FF) >= 1024
    return base_oid == INTERVAL and (typmod >> 16) & 0x7FFF != 0x7FFF


def column_forms(types: dict[int, TypeRow], oid: int, typmod: int, base_native: str) -> Forms:
    """All forms of a column whose type, under its domains, is ``oid`` with ``typmod``."""
    row = types[oid]
    native = PREFIX + base_native
    opaque = Type("opaque", native=native)
    wire = None if holds_oids(types, oid) else Type("wire", native=native)
    forms: list[Type] = []
    listed = False
    if is_array(row) and oid not in VECTORS:
        element = types[row.element]
        inner = plain_type(element, typmod) if element.kind == "b" else None
        if wire is not None and inner is not None and inner.kind != "timetz":
            forms.append(Type("list", element=inner))
            listed = True
    else:
        plain = plain_type(row, typmod)
        if plain is not None:
            forms.append(msgspec.structs.replace(plain, native=native) if plain.kind == "enum" else plain)
    if not forms:
        forms.append(opaque)
    if wire is not None:
        forms.append(wire)
    if forms[0].kind == "decimal":
        forms.append(Type("numeric"))
    if forms[0].kind not in ("opaque", "text", "char", "json", "jsonb", "enum", "timetz"):
        forms.append(opaque)
    return Forms(tuple(forms), oid, base_native, listed)


def base_native(forms: tuple[Type, ...]) -> str | None:
    """The PostgreSQL type that a column's forms speak of; None where its source is another engine."""
    for form in forms:
        if form.kind in ("wire", "opaque", "enum") and form.native and form.native.startswith(PREFIX):
            return form.native.removeprefix(PREFIX)
    return None


def bare(native: str) -> str:
    """A type's name without sizes: ``timestamp(3) without time zone`` → ``timestamp without time zone``."""
    name = re.sub(r'("(?:[^"]|"")*")|\([^()]*\)', r"\1", native)
    return "interval" if name.startswith("interval ") else name


def typmod_of(oid: int, native: str) -> int:
    """The typmod that a type's name gives it: ``numeric(10,2)`` → 655366; -1 without a size."""
    found = re.search(r"\((\d+)(?:, ?(-?\d+))?\)", native)
    if found is None:
        return -1
    size, scale = int(found.group(1)), int(found.group(2) or 0)
    if oid == NUMERIC:
        return (size << 16 | scale & 0x7FF) + 4
    if oid in (VARCHAR, BPCHAR):
        return size + 4
    return 0x7FFF << 16 | size if oid == INTERVAL else size


def codec(form: Type, native: str | None) -> tuple[str, dict[str, Any]]:
    """The kernel's (codec, params) for a form of a column whose base type is ``native`` (None: unknown).

    Raises ValueError for a kind that has none.
    """
    if form.kind == "wire":
        return ("wire_numeric" if bare(native or "") == "numeric" else "wire"), {}
    if form.kind == "int64" and native == "oid":
        return "oid", {}
    if form.kind == "decimal":
        assert form.precision is not None
        name = "numeric_decimal128" if form.precision <= 38 else "numeric_decimal256"
        return name, {"precision": form.precision, "scale": form.scale}
    if form.kind == "list":
        assert form.element is not None
        element = bare(native).removesuffix("[]") if native and native.endswith("[]") else None
        inner = codec(form.element, element)
        return "list", {"inner": inner, "element_oid": _ELEMENTS.get(element or "") or element_oid(form.element)}
    if form.kind not in _CODECS:
        raise ValueError(f"no codec for {form}")
    return _CODECS[form.kind], {}


def element_oid(element: Type) -> int:
    """The OID of the type that we make for a canonical type as an array's element."""
    oid = _ELEMENTS.get(bare(ddl(element)[0]))
    if oid is None:
        raise ValueError(f"no array of {element}")
    return oid


def ddl(form: Type) -> tuple[str, Type]:
    """The column type that PostgreSQL makes for a canonical type from elsewhere, and the canonical
    type that such a column takes. Raises ValueError, with the reason, where there is none."""
    kind = form.kind
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple
    if kind == "decimal":
        if form.scale is None or form.scale < 0:
            return "numeric", Type("numeric")
        return f"numeric({form.precision},{form.scale})", form
    if kind == "text":
        if form.length is None or not 0 < form.length <= TEXT_LENGTH_MAX:
            return "text", Type("text")
        return f"character varying({form.length})", Type("text", length=form.length)
    if kind == "char":
        if form.length is None or not 0 < form.length <= TEXT_LENGTH_MAX:
            return "bpchar", Type("char")
        return f"character({form.length})", Type("char", length=form.length)
    if kind in ("bit", "varbit"):
        name = "bit" if kind == "bit" and form.length else "bit varying"
        size = f"({form.length})" if form.length else ""
        return name + size, Type("bit" if name == "bit" else "varbit", length=form.length or None)
    if kind in _TIME_NAMES:
        return _timed_ddl(form)
    if kind in ("interval", "duration"):
        precision = _precision(form)
        return f"interval({precision})" if precision is not None else "interval", Type("interval", precision=precision)
    if kind in ("opaque", "enum") and form.native and form.native.startswith(PREFIX):
        return form.native.removeprefix(PREFIX), form
    if kind in ("opaque", "enum"):
        return "text", Type("text")
    if kind == "list":
        assert form.element is not None
        return _array_ddl(form.element)
    raise ValueError(f"PostgreSQL has no type for {form}")


_SIMPLE = {
    "bool": ("boolean", Type("bool")), "int8": ("smallint", Type("int16")), "int16": ("smallint", Type("int16")),
    "uint8": ("smallint", Type("int16")), "int32": ("integer", Type("int32")), "uint16": ("integer", Type("int32")),
    "int64": ("bigint", Type("int64")), "uint32": ("bigint", Type("int64")),
    "uint64": ("numeric(20,0)", Type("decimal", precision=20, scale=0)), "float32": ("real", Type("float32")),
    "float64": ("double precision", Type("float64")), "numeric": ("numeric", Type("numeric")),
    "binary": ("bytea", Type("binary")), "date": ("date", Type("date")), "uuid": ("uuid", Type("uuid")),
    "json": ("json", Type("json")), "jsonb": ("jsonb", Type("jsonb")),
}  # fmt: skip
_TIME_NAMES = {
    "time": ("time", "without time zone"), "timetz": ("time", "with time zone"),
    "timestamp": ("timestamp", "without time zone"), "timestamptz": ("timestamp", "with time zone"),
}  # fmt: skip


def _precision(form: Type) -> int | None:
    """Digits of fractional seconds to declare: None for all six."""
    unit = {"s": 0, "ms": 3}.get(form.unit or "us")
    digits = form.precision if form.precision is not None else unit
    return digits if digits is not None and digits < 6 else None


def _timed_ddl(form: Type) -> tuple[str, Type]:
    name, zone = _TIME_NAMES[form.kind]
    precision = _precision(form)
    size = "" if precision is None else f"({precision})"
    unit = None if form.kind == "timetz" else "us"
    return f"{name}{size} {zone}", Type(form.kind, precision=precision, unit=unit)


def _array_ddl(element: Type) -> tuple[str, Type]:
    if element.kind in ("list", "struct", "map", "opaque", "enum", "timetz", "wire"):
        # Rows of PostgreSQL's nested arrays must have one length, and can be NULL only as a whole.
        raise ValueError(f"PostgreSQL has no exact type for a list of {element}")
    native, inner = ddl(element)
    return f"{native}[]", Type("list", element=inner)
