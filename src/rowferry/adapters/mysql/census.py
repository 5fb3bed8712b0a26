"""Values that a declared type does not bind: the SQL that tells them (:mod:`counting` runs it).

* DATE, DATETIME, TIMESTAMP: zero dates, zero months or days, 2020-02-31 (ALLOW_INVALID_DATES).
* ENUM: the invalid value, which has number 0 and reads ''.
* TINYINT(1) that is to be a bool: numbers other than 0 and 1.
* Texts in a character set that has bytes without a character: the server sends ``?`` for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowferry.adapters.mysql.declared import DATED, LABELLED, TEXT_NAMES, Declared, parse
from rowferry.adapters.mysql.quoting import quote
from rowferry.model import Column, Refusal
from rowferry.types import Type

#: Character sets of which every value that can be stored has its own text in Unicode (each byte, or each
#: sequence that the server lets in, was tried). Any other may hold bytes that are no character.
FAITHFUL = frozenset((
    "utf8mb4", "utf8mb3", "utf8", "latin1", "latin2", "latin5", "latin7", "cp850", "cp852", "cp866", "keybcs2",
    "koi8r", "koi8u", "macce", "macroman", "utf16", "utf16le", "utf32",
))  # fmt: skip


def unfit_condition(name: str, native: str, form: Type) -> str | None:
    """SQL that is 1 for the values of a column that the form cannot hold; None where there can be none.

    It is 0 or NULL for all others; it is tested by the server only, and independent of its sql_mode.
    """
    d = parse(native)
    if d is None:
        return None
    column = quote(name)
    if d.name in DATED and form.kind in ("date", "timestamp", "timestamptz"):
        return _no_date(column, d)
    if d.name == "enum" and form.kind == "enum" and "" not in d.labels:
        return f"{column} + 0 = 0"
    if form.kind == "bool":
        return f"{column} NOT IN (0, 1)"
    if (d.name in TEXT_NAMES or d.name in LABELLED) and d.charset is not None and d.charset not in FAITHFUL:
        return _no_character(column)
    return None


def _no_date(column: str, d: Declared) -> str:
    if d.name == "timestamp":
        return f"MONTH({column}) = 0"
    # Most days are settled by the first two functions: each costs a million rows some 50 ms.
    unclear = f"(DAY({column}) NOT BETWEEN 1 AND 28 OR MONTH({column}) = 0)"
    return f"({unclear} AND (DAY({column}) = 0 OR MONTH({column}) = 0 OR DAY({column}) > DAY(LAST_DAY({column}))))"


def _no_character(column: str) -> str:
    sent = f"CONVERT({column} USING utf8mb4)"
    # Without all true question marks, a text is as long in its own character set as in Unicode. REPLACE is NULL
    # for a text beyond max_allowed_packet, of which nothing can be told then.
    shorter = f"CHAR_LENGTH(REPLACE({sent}, '?', '')) < CHAR_LENGTH(REPLACE({column}, '?', ''))"
    return f"({sent} LIKE '%?%' AND IFNULL({shorter}, {column} IS NOT NULL))"


def refusal_of(column: Column, count: int) -> Refusal:
    """Why the default form does not hold ``count`` values of the column."""
    d = parse(column.native)
    assert d is not None
    if d.name in DATED:
        reason = f"{d.name} values that are no dates (a zero year, month or day, or a day that its month has not)"
        return Refusal(column.name, reason, count, ("null", "text", "quarantine", "skip"))
    if d.name == "enum":
        reason = "the enum's invalid value '' (number 0), which is none of its labels"
        return Refusal(column.name, reason, count, ("null", "text", "quarantine", "skip"))
    if d.name == "tinyint":
        reason = "numbers that are neither 0 nor 1, so that the column is no bool: without the policy it is an int8"
        return Refusal(column.name, reason, count, ("text", "skip"))
    reason = f"texts with bytes that are no character of {d.charset}: the server sends '?' for them"
    return Refusal(column.name, reason, count, ("null", "quarantine", "skip"))


class Test(msgspec.Struct, frozen=True):
    """SQL of one column. ``unfit`` is 1 for the values that its default form cannot hold, else 0 or NULL; ``doubt``
    is cheaper, and 1 for all of these and perhaps some others."""

    column: str
    unfit: str
    doubt: str


def tests_of(columns: Sequence[Column], mariadb: bool) -> list[Test]:
    """One for each column whose type can hold what its default form cannot."""
    tests = []
    for c in columns:
        form = c.forms[0] if c.forms else c.type
        unfit = unfit_condition(c.name, c.native, form)
        if unfit is not None:
            tests.append(Test(c.name, unfit, _doubt(c, mariadb) or unfit))
    return tests


def _doubt(column: Column, mariadb: bool) -> str | None:
    """For a date, at half the price (CPU of MariaDB 10.11 for a million rows: 35 ms beyond the scan, not 70).

    TO_DAYS of MariaDB is NULL for every date with a zero in it but the year; what MySQL's is for 2020-00-05 is not
    known. ISNULL is not IS NULL, which is true of 0000-00-00 in a NOT NULL column.
    """
    d = parse(column.native)
    if d is None or d.name not in ("date", "datetime") or not mariadb:
        return None
    name = quote(column.name)
    zero = f"ISNULL(TO_DAYS({name}))" + (f" AND NOT ISNULL({name})" if column.nullable else "")
    return f"({zero} OR DAY({name}) > 28 AND DAY({name}) > DAY(LAST_DAY({name})))"


def any_doubt(tests: Sequence[Test]) -> str:
    """A condition that is true for all rows that the tests are about, and perhaps for others."""
    return " OR ".join(test.doubt for test in tests)


def counts_of(tests: Sequence[Test]) -> str:
    """What is to be selected: as many counts as tests."""
    return ", ".join(f"COUNT(CASE WHEN {test.unfit} THEN 1 END)" for test in tests)
