"""What a result's header says of its columns, held against the types that were asked for.

A value travels as text, so that the server's own column type decides what its text can mean: a FLOAT
shows six digits of what it holds, a text may have come in another character set, bytes are no text.
Whatever would be decoded into something else than the server holds is refused before the first row.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
from pymysql.charset import charset_by_id
from pymysql.constants import FIELD_TYPE

from rowferry.types import INTEGERS, Type

_INTEGERS = {
    FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG, FIELD_TYPE.YEAR,
}  # fmt: skip
_DECIMALS = {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL}
#: Without FLOAT, whose text has six digits.
_DOUBLES = {FIELD_TYPE.DOUBLE}
_BITS = {FIELD_TYPE.BIT}
_JSON = {FIELD_TYPE.JSON}
_STRINGS = {
    FIELD_TYPE.VARCHAR, FIELD_TYPE.VAR_STRING, FIELD_TYPE.STRING, FIELD_TYPE.ENUM, FIELD_TYPE.SET,
    FIELD_TYPE.TINY_BLOB, FIELD_TYPE.BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB,
}  # fmt: skip
#: MySQL 9's VECTOR.
_VECTOR = 242
_BYTES = {*_STRINGS, FIELD_TYPE.GEOMETRY, _VECTOR}
_DATES = {FIELD_TYPE.DATE, FIELD_TYPE.NEWDATE}
_TIMESTAMPS = {FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
#: Kinds whose text the server makes of ASCII characters, and what else than a text they may come as.
_FROM_TEXT = {
    "date": _DATES, "timestamp": _TIMESTAMPS, "timestamptz": _TIMESTAMPS, "duration": {FIELD_TYPE.TIME}, "uuid": set(),
}  # fmt: skip
_TEXTS = ("text", "char", "json", "enum", "opaque", "timetz")

_BINARY_CHARSET = 63
#: MariaDB's NOPAD collations have the number of the padding one, and this bit.
_NOPAD_BIT = 1024
#: Collations of UTF-8 that PyMySQL does not know: MySQL 8's utf8mb4_*_0900_*, MariaDB's language-specific ones of
#: utf8mb3 and utf8mb4, its uca1400 ones of both.
_UTF8_RANGES = ((255, 324), (576, 579), (608, 611), (2048, 2560))


class ColumnDefinition(msgspec.Struct, frozen=True):
    """One column of a result's header. length: bytes of its text at the most (of BIT: bits)."""

    name: str
    charset: int
    length: int
    type: int
    decimals: int

    @classmethod
    def parse(cls, payload: bytes) -> ColumnDefinition:
        """From a ColumnDefinition41 packet. Raises ValueError."""
        at, texts = 0, []
        for _ in range(6):  # catalogue, schema, table, original table, name, original name: all are short
            if at >= len(payload) or payload[at] >= 0xFB or at + 1 + payload[at] > len(payload):
                at, text = _long_text(payload, at)
            else:
                at, text = at + 1 + payload[at], payload[at + 1 : at + 1 + payload[at]]
            texts.append(text)
        if len(payload) < at + 13 or payload[at] != 12:
            raise ValueError("a broken column definition")
        charset, length, kind, _flags, decimals = struct.unpack_from("<HIBHB", payload, at + 1)
        return cls(texts[4].decode("utf-8", "replace"), charset, length, kind, decimals)

    @property
    def is_text(self) -> bool:
        """Characters in UTF-8: a string type (or JSON) whose values the server converted for us."""
        # MySQL's own JSON says that it is binary; it is utf8mb4 always.
        return self.type in _JSON or (self.type in _STRINGS and is_utf8(self.charset))


def _long_text(payload: bytes, at: int) -> tuple[int, bytes]:
    """A name of 251 bytes and more."""
    if at + 3 > len(payload) or payload[at] != 0xFC:
        raise ValueError("a broken column definition")
    size = int.from_bytes(payload[at + 1 : at + 3], "little")
    if at + 3 + size > len(payload):
        raise ValueError("a broken column definition")
    return at + 3 + size, payload[at + 3 : at + 3 + size]


def is_utf8(collation: int) -> bool:
    """Whether a collation's number is one of utf8mb4, utf8mb3 or ASCII."""
    if _NOPAD_BIT <= collation < 2 * _NOPAD_BIT:
        collation -= _NOPAD_BIT
    try:
        return charset_by_id(collation).name in ("utf8mb4", "utf8mb3", "utf8", "ascii")
    except KeyError:
        return any(low <= collation < high for low, high in _UTF8_RANGES)


def misfit(wanted: Type, found: ColumnDefinition) -> str | None:
    """Why values of this column of a result cannot be read as ``wanted``; None where they can."""
    if not _fits(wanted, found):
        return f"the server gives a column of type {found.type} (collation {found.charset}) where {wanted} is read"
    if wanted.kind == "bit" and found.length != wanted.length:
        return f"the server gives BIT({found.length}) where BIT({wanted.length}) is read"
    return None


def _fits(wanted: Type, found: ColumnDefinition) -> bool:
    kind = wanted.kind
    if kind in INTEGERS or kind == "bool":
        return found.type in _INTEGERS or (found.type in _DECIMALS and found.decimals == 0)
    if kind in ("float32", "float64"):
        return found.type in _DOUBLES
    if kind == "decimal":
        return found.type in _DECIMALS or found.type in _INTEGERS
    if kind == "numeric":
        return found.type in _DECIMALS or found.type in _INTEGERS or found.is_text
    if kind in ("binary", "wire"):
        return found.type in _BYTES and found.charset == _BINARY_CHARSET
    if kind == "bit":
        return found.type in _BITS
    if kind in _FROM_TEXT:
        return found.type in _FROM_TEXT[kind] or found.is_text
    if kind in _TEXTS:  # numbers, dates and times have a text, too
        ascii_types = {*_INTEGERS, *_DECIMALS, *_DATES, *_TIMESTAMPS, FIELD_TYPE.TIME, FIELD_TYPE.DOUBLE}
        return found.is_text or found.type in ascii_types
    return kind == "list" and found.is_text


def kernel_column(t: Type, null_unfit: bool = False) -> tuple[str, dict[str, Any]]:
    """What ``mysql_rows.Decoder`` is told of a column. Raises ValueError for a type that nothing comes as."""
    kind = t.kind
    if kind in INTEGERS or kind in ("bool", "float32", "float64", "numeric", "uuid", "char"):
        return kind, {}
    if kind == "decimal":
        assert t.precision is not None
        return "decimal128" if t.precision <= 38 else "decimal256", {"precision": t.precision, "scale": t.scale}
    if kind == "binary" and t.fixed and t.length:
        return "fixed", {"length": t.length}
    if kind in ("binary", "wire"):
        return "binary", {}
    if kind == "date":
        return "date", {"null_unfit": null_unfit}
    if kind in ("timestamp", "timestamptz") and t.unit in (None, "us"):
        return "timestamp", {"null_unfit": null_unfit}
    if kind == "duration" and t.unit in (None, "us"):
        return "duration", {}
    if kind == "bit" and t.length:
        return "bits", {"length": t.length}
    if kind == "list" and t.element is not None and t.element.kind in ("text", "enum"):
        return "set", {}
    if kind in _TEXTS:
        return "text", {}
    raise ValueError(f"MySQL's rows cannot be read as {t}")


def kernel_columns(fields: Sequence[Type], null_dates: Sequence[bool]) -> list[tuple[str, dict[str, Any]]]:
    """:func:`kernel_column` of each field."""
    unfit = null_dates or [False] * len(fields)
    return [kernel_column(t, null) for t, null in zip(fields, unfit, strict=True)]
