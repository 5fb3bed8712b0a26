"""SQLite's declared types and ours: what a column may hold, how it is read, and how it is written.

SQLite binds a value to its cell, not to its column: a declared type is only an *affinity*. So a
column's canonical type is a list of candidates, of which the census (``catalog.py``) takes the first
that every value in the table fits.
"""

from __future__ import annotations

import re

from rowferry._native.sqlite_rows import KINDS
from rowferry.convert.times import UNIT_DIGITS
from rowferry.model import Refusal
from rowferry.types import FLOATS, INTEGERS, Type

#: Digits that a number in a NUMERIC column keeps: SQLite stores a fraction as a double.
NUMERIC_DIGITS_MAX = 15
#: Kinds that SQLite holds as the JSON text of the whole value.
NESTED = ("list", "struct", "map")
#: Kinds of text that have a reader of their own; the others are read as plain text.
_TEXT_KINDS = {"char": "char", "json": "json", "jsonb": "json", "numeric": "numeric", "bit": "bits", "varbit": "bits"}
_PLAIN_TEXTS = ("text", "enum", "timetz", "opaque")
_WIDTHS = {
    "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "float32": 4, "float64": 8, "date": 4, "timestamp": 8, "timestamptz": 8, "time": 8, "duration": 8, "interval": 16,
    "uuid": 16,
}  # fmt: skip
_SPELLING = re.compile(r"(?:[A-Za-z_]\w*(?: \w+)*\s*(?:\(\s*[+-]?\d+\s*(?:,\s*[+-]?\d+\s*)?\))?)?", re.ASCII)
#: Words that end a type in a column's definition.
_CLAUSES = re.compile(
    r"\b(?:PRIMARY|UNIQUE|NOT|NULL|DEFAULT|CHECK|COLLATE|REFERENCES|GENERATED|AS|CONSTRAINT|AUTOINCREMENT|ON)\b", re.I
)
_DECLARED = re.compile(r"\s*(.*?)\s*(?:\(\s*([+-]?\d+)\s*(?:,\s*([+-]?\d+)\s*)?\))?\s*", re.DOTALL)

TEXT = Type("text")
INT = Type("int64")
FLOAT = Type("float64")
BINARY = Type("binary")
_STAMPS = tuple(Type(kind, unit=unit) for kind in ("timestamp", "timestamptz") for unit in ("us", "ns"))
_ZONED_STAMPS = tuple(t for t in _STAMPS if t.kind == "timestamptz")


def affinity(declared: str) -> str:
    """SQLite's own rule (https://www.sqlite.org/datatype3.html, 3.1): INTEGER, TEXT, BLOB, REAL or NUMERIC."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in name or not name.strip():
        return "BLOB"
    if any(word in name for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


def candidates(declared: str) -> tuple[Type, ...]:
    """The types that a column declared so may be, best first; the census takes the first that all values fit."""
    match = _DECLARED.fullmatch(declared)
    assert match is not None
    name, precision, scale = " ".join(match[1].upper().split()), match[2], match[3]
    kind = affinity(declared)
    if "JSON" in name:
        return (Type("json"),)
    if name in ("UUID", "GUID", "UNIQUEIDENTIFIER"):
        return (Type("uuid"),)
    if kind == "INTEGER":
        # INTERVAL has INTEGER affinity by its letters; what else holds INT is one.
        return (INT,)
    if name.startswith(("DECIMAL", "NUMERIC")) and precision is not None and 1 <= int(precision) <= 76:
        digits = int(scale or 0)
        if 0 <= digits <= int(precision):
            return (Type("decimal", precision=int(precision), scale=digits),)
    if kind == "TEXT":
        return (TEXT,)
    if kind == "REAL":
        return (FLOAT,)
    if kind == "BLOB":
        return (BINARY,) if name else (TEXT, INT, FLOAT, BINARY)
    return _numeric_candidates(name)


def _numeric_candidates(name: str) -> tuple[Type, ...]:
    """Of a declared type with NUMERIC affinity that names no decimal."""
    if name.startswith("BOOL"):
        return (Type("bool"), INT)
    if name in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIMEOFFSET"):
        return (*_ZONED_STAMPS, INT, FLOAT)
    if name.startswith(("DATETIME", "TIMESTAMP")):
        return (*_STAMPS, Type("date"), INT, FLOAT)
    if name == "DATE":
        return (Type("date"), *_STAMPS, INT, FLOAT)
    if name in ("TIME", "TIME WITHOUT TIME ZONE"):
        return (Type("time", unit="us"), Type("time", unit="ns"), INT, FLOAT)
    return (INT, FLOAT, TEXT, BINARY)


def target_type(declared: str) -> Type:
    """What a column that exists already takes, so that the value comes back: by its affinity.

    A decimal beyond 15 digits in a NUMERIC column would lose its end, so no more are taken.
    """
    first = candidates(declared)[0]
    if first.kind == "decimal" and affinity(declared) != "TEXT":
        assert first.precision is not None
        assert first.scale is not None
        if first.scale <= NUMERIC_DIGITS_MAX:
            return Type("decimal", precision=min(first.precision, NUMERIC_DIGITS_MAX), scale=first.scale)
        return FLOAT
    return first


def kept_declaration(native: str, form: Type) -> str | None:
    """The source's own spelling of a type, where a column declared so holds the form exactly here, too.

    From SQLite to SQLite every declared type stays; from elsewhere those that mean the same.
    """
    if not _SPELLING.fullmatch(native) or _CLAUSES.search(native):
        return None
    if form not in candidates(native) or (form.kind == "decimal" and target_type(native) != form):
        return None
    return native


def plan_type(form: Type) -> tuple[str, Type] | Refusal:
    """(declared type, what write takes) of the column that holds a form exactly, or why there is none."""
    kind = form.kind
    if kind == "wire":
        return Refusal(None, f"SQLite has no place for {form}")
    if kind in INTEGERS:
        return "INTEGER", form
    if kind in FLOATS:
        return "REAL", form
    if kind == "decimal":
        return _plan_decimal(form)
    if kind == "text" and form.length is not None:
        return f"VARCHAR({form.length})", form
    if kind == "char" and form.length is not None:
        return f"CHAR({form.length})", form
    if kind == "struct" and len({f.name for f in form.fields}) != len(form.fields):
        return Refusal(None, "two fields of a struct have one name, which a JSON object cannot hold")
    if nested := next((p for p in map(plan_type, _inner(form)) if isinstance(p, Refusal)), None):
        return nested
    names = {
        "bool": "BOOLEAN", "binary": "BLOB", "date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP",
        "timestamptz": "TIMESTAMPTZ", "uuid": "UUID", "json": "JSON_TEXT", "jsonb": "JSON_TEXT",
    }  # fmt: skip
    return names.get(kind, "TEXT"), form


def _plan_decimal(form: Type) -> tuple[str, Type] | Refusal:
    assert form.precision is not None
    assert form.scale is not None
    if not 0 <= form.scale <= form.precision:
        return Refusal(None, f"{form} has a scale outside of its digits", policies=("text",))
    numeric = form.precision <= NUMERIC_DIGITS_MAX
    return f"{'DECIMAL' if numeric else 'DECIMAL_TEXT'}({form.precision},{form.scale})", form


def _inner(t: Type) -> list[Type]:
    return [f.type for f in t.fields] + ([t.element] if t.element else [])


def kernel_kind(t: Type) -> str:
    """The kernels' name for a kind."""
    if t.kind in _PLAIN_TEXTS or t.kind in NESTED:
        return "text"
    if t.kind == "binary":
        return "fixed" if t.fixed and t.length else "binary"
    return _TEXT_KINDS.get(t.kind, t.kind)


def _width(t: Type) -> int:
    if t.kind == "decimal":
        return 16 if (t.precision or 0) <= 38 else 32
    if t.kind == "binary" and t.fixed:
        return t.length or 0
    return _WIDTHS.get(t.kind, 0)


def _digits(t: Type) -> int:
    return 9 if t.kind == "interval" else UNIT_DIGITS[t.unit or "us"] if t.kind in _WIDTHS else 0


def read_spec(t: Type, *, loose: bool = False, null_unfit: bool = False) -> tuple[int, int, int, int, int, int, bool]:
    """A column for the reading kernel. ``loose``: as text whatever is stored, blobs as ``\\x…``."""
    if loose:
        return KINDS["loose"], 0, 0, 0, 0, -1, null_unfit
    length = -1 if t.length is None or t.kind in ("enum", *NESTED) else t.length
    return KINDS[kernel_kind(t)], _width(t), _digits(t), t.precision or 0, t.scale or 0, length, null_unfit


def write_spec(t: Type, declared: str) -> tuple[int, int, int, int, bool, bool]:
    """A column for the writing kernel, by the declared type of the column that takes it."""
    kind = kernel_kind(t)
    if kind in ("char", "json", "numeric", "bits"):
        kind = "text"
    numeric = affinity(declared) in ("INTEGER", "REAL", "NUMERIC")
    as_number = t.kind == "decimal" and numeric and (t.precision or 0) <= NUMERIC_DIGITS_MAX
    return KINDS[kind], _width(t), _digits(t), t.scale or 0, as_number, numeric


def forms_of(t: Type) -> tuple[Type, ...]:
    """A type and the text form of the same values."""
    return (t,) if t == TEXT else (t, TEXT)


def value_default(sql: str | None) -> str | None:
    """A column's default where it is a plain literal, else None."""
    plain = r"[+-]?\d+(\.\d+)?|'(?:[^']|'')*'|true|false"
    return sql if sql is not None and re.fullmatch(plain, sql, re.IGNORECASE | re.DOTALL) else None


def literal_fits(sql: str | None, t: Type) -> str | None:
    """A literal of another engine, where it means the same value here."""
    if sql is None or value_default(sql) is None:
        return None
    if t.kind in ("text", "char"):
        return sql if sql.startswith("'") else None
    if t.kind == "bool":
        return {"true": "1", "false": "0", "1": "1", "0": "0"}.get(sql.lower())
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", sql) is not None
    return sql if number and (t.is_integer or t.kind in (*FLOATS, "decimal")) else None
