"""The ready-made rule zero_date, and texts of dates as dates."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.step import bisecting
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import FREE_TEXTS, Action, Worked, rows_of, wrong
from rowferry.stages.spec import Rule
from rowferry.types import Type

#: MySQL's zero date, with the time that a DATETIME has beside it.
_ZERO = r"^0000-00-00(?:[ T]00:00:00(?:\.0{1,6})?)?$"
_MIDNIGHT = r"[ T]00:00:00(?:\.0{1,6})?$"
#: What Arrow's own reading of dates is held to: it also takes 2020-01-01 01:02, which no server writes.
_WRITTEN = {
    "date": r"^\d{4}-\d\d-\d\d$",
    "timestamp": r"^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d{1,6})?)?$",
}


def zero_date(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """MySQL's 0000-00-00, which is carried as text: NULL, or the date in ``replacement``; counted.

    to: date or timestamp makes such a column of the texts, and what is no date then (2020-02-31, 2020-00-15) is
    unfit; without it they stay text.
    """
    if column.type.kind not in FREE_TEXTS:
        hint = "where zero dates are NULL already, there is nothing left to do"
        if column.type.kind in ("date", "timestamp", "timestamptz"):
            hint = "read it as text (its policy: text), or let its policy null make them NULL"
        raise wrong(f"the rule zero_date is for dates as text, and this is {column.type}", column, table, hint=hint)
    if rule.to not in (None, "text", "date", "timestamp"):
        raise wrong(f"to is {rule.to!r}", column, table, hint="it is text, date or timestamp")
    type_ = column.type if rule.to is None or rule.to == "text" else Type(rule.to)
    replacement = rule.replacement
    if replacement is not None and _parsed(pa.array([replacement]), "timestamp").unfit:
        raise wrong(f"the replacement {replacement!r} is no date", column, table, hint="write it as 1970-01-01")
    if rule.to == "date" and replacement is not None and _parsed(pa.array([replacement]), "date").unfit:
        raise wrong(f"the replacement {replacement!r} has a time of day", column, table, hint="write the date alone")
    fill = pa.scalar(replacement, pa.utf8())

    def run(array: pa.Array) -> Worked:
        zeros = pc.fill_null(pc.match_substring_regex(array, pattern=_ZERO), False)
        count = pc.sum(zeros).as_py() or 0
        texts = pc.if_else(zeros, fill, array) if count else array
        if type_ is column.type:
            return Worked(texts, count)
        worked = _parsed(texts, type_.kind)
        worked.touched = count
        return worked

    return Action(type_, run, makes_null=replacement is None)


def _parsed(texts: pa.Array, kind: str) -> Worked:
    """Texts as dates or timestamps (µs); what is none is unfit, and NULL."""
    plain = texts
    if kind == "date":
        plain = pc.replace_substring_regex(texts, pattern=_MIDNIGHT, replacement="")
    written = pc.fill_null(pc.match_substring_regex(plain, pattern=_WRITTEN[kind]), False)
    plain = pc.if_else(written, plain, pa.scalar(None, pa.utf8()))
    to = Type(kind).arrow

    def one(text: Any) -> tuple[Any, bool]:
        try:
            return pa.scalar(text, pa.utf8()).cast(to).as_py(), True
        except pa.ArrowInvalid:
            return None, False

    function = bisecting(lambda array: array.cast(to), one, to).function
    assert function is not None
    values, _ = function(plain)
    lost = pc.and_(pc.is_valid(texts), pc.is_null(values))
    unfit = dict.fromkeys(rows_of(lost), f"is no {kind}") if pc.any(lost).as_py() else {}
    return Worked(values, 0, unfit)
