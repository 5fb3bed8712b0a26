"""A column's DEFAULT, as information_schema tells it, where it is a plain literal.

MariaDB writes SQL (``'it''s'``, ``current_timestamp()``, ``NULL``), MySQL the bare value (``it's``) and marks
expressions in EXTRA. Here each becomes SQL that every engine reads alike: a number, or a text in quotes.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from rowferry.adapters.mysql.declared import BLOBS, DATED, SPATIAL, Declared, is_number_of, unescaped

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_TEXT = re.compile(r"(?:_[a-z0-9]+ ?)?'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_BITS = re.compile(r"b'[01]+'")
_BYTES = frozenset(("binary", "varbinary", *BLOBS, *SPATIAL))


def plain(default: Any, extra: str, d: Declared | None, mariadb: bool) -> str | None:
    """The default as SQL that is one literal; None where there is none, or it is an expression.

    Left out too: defaults of binary columns, whose bytes information_schema does not tell.
    """
    if default is None or d is None or d.name in _BYTES:
        return None
    text = str(default)
    if mariadb:
        return _of_sql(text, d)
    if "DEFAULT_GENERATED" in extra or re.match(r"CURRENT_TIMESTAMP", text, re.IGNORECASE):
        return None
    return _literal(text, d)


def _of_sql(sql: str, d: Declared) -> str | None:
    if _NUMBER.fullmatch(sql) or _BITS.fullmatch(sql):
        return _literal(sql, d)
    quoted = _TEXT.fullmatch(sql)
    return None if quoted is None else _literal(unescaped(quoted[1]), d)


def _literal(value: str, d: Declared) -> str | None:
    """A value as a literal for a column of this type."""
    if d.name == "bit":
        return value if _BITS.fullmatch(value) else None
    if is_number_of(d):
        return value if _NUMBER.fullmatch(value) else None
    text = "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    # Under its character set's name a literal is MySQL's alone: a set is a list elsewhere, a zero date is none.
    return f"_utf8mb4{text}" if d.name == "set" or (d.name in DATED and not _is_date(value)) else text


def _is_date(value: str) -> bool:
    """Whether other engines, too, take a DATE's or DATETIME's text for a day of the calendar."""
    try:
        datetime.date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True
