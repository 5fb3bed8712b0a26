"""Names and literals as MySQL reads them in our sessions (no ANSI_QUOTES, no NO_BACKSLASH_ESCAPES, utf8mb4)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rowferry.model import TableName

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"})


def quote(name: str) -> str:
    """A quoted identifier. A NUL cannot be in one: the server refuses it."""
    return "`" + name.replace("`", "``") + "`"


def quotes(names: Iterable[str]) -> str:
    return ", ".join(quote(n) for n in names)


def qualified(name: TableName, database: str | None = None) -> str:
    """``database``: the one of names without a schema; without it they are in the session's own."""
    schema = name.schema if name.schema is not None else database
    return quote(name.name) if schema is None else f"{quote(schema)}.{quote(name.name)}"


def literal(value: str | bytes | bytearray | int | float | bool | None) -> str:
    """A literal: text in the connection's character set (utf8mb4), bytes as a hexadecimal string."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.translate(_ESCAPES) + "'"
    if isinstance(value, (bytes, bytearray)):
        return f"x'{value.hex()}'"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "e" in text else f"{text}e0"  # without an exponent it would be a decimal
    raise TypeError(f"no literal for a {type(value).__name__}" + (f" {value}" if isinstance(value, float) else ""))


def filled(sql: str, params: Iterable[str | bytes | bytearray | int | float | bool | None]) -> str:
    """``?`` placeholders replaced by literals; those within quotes are left alone.

    MySQL has no unnamed parameters in its text protocol, and a prepared statement costs two round trips more.
    """
    values = iter(params)
    missing = object()
    out, quoted = [], ""
    skip = False
    for c in sql:
        if skip:
            skip = False
        elif quoted:
            skip = c == "\\" and quoted != "`"
            quoted = "" if c == quoted else quoted
        elif c in "'\"`":
            quoted = c
        elif c == "?":
            value: Any = next(values, missing)
            if value is missing:
                raise ValueError("fewer parameters than placeholders")
            c = literal(value)
        out.append(c)
    if next(values, missing) is not missing:
        raise ValueError("more parameters than placeholders")
    return "".join(out)
