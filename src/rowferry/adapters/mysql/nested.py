"""Lists, structs and maps as JSON text, intervals as ISO 8601, both ways: MySQL has no such values of its own.

A struct is an object, a map an array of pairs. What JSON has no number for is text: decimals, times and uuids
as they are usually written, NaN and infinities as ``nan``, ``inf``, ``-inf``, bytes as ``\\x…``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import pyarrow as pa

from rowferry.adapters import json_text
from rowferry.convert import value_text
from rowferry.errors import DataError
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    FLOATS,
    TEXTS,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Type,
)

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAY_S = 86_400
_DATE = r"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK = r"(?P<sign>-?)(?P<hours>\d{2,12}):(?P<minutes>\d\d):(?P<seconds>\d\d)(?:\.(?P<fraction>\d{1,9}))?"
_MOMENT = re.compile(f"(?:{_DATE})?(?: (?=.))?(?:{_CLOCK})?(?:\\+00)?(?P<era> BC)?")
_INTERVAL = re.compile(r"P(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(-?)(\d+)(?:\.(\d{1,9}))?S)?")


def to_text(array: pa.Array, t: Type) -> pa.Array:
    """n values of a nested type, or n intervals, as n texts."""
    return intervals_to_text(array) if t.kind == "interval" else to_json(array, t)


# ── intervals ────────────────────────────────────────────────────────────────────────────────────


def intervals_to_text(array: pa.Array) -> pa.Array:
    """Months, days and seconds, each with its own sign, as ``P14M-3DT4.5S``; an empty one is ``PT0S``."""
    return pa.array([None if v is None else _interval_text(*v) for v in array.to_pylist()], pa.utf8())


def _interval_text(months: int, days: int, nanoseconds: int) -> str:
    text = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if nanoseconds or not text:
        seconds, fraction = divmod(abs(nanoseconds), 10**9)
        tail = f".{fraction:09}".rstrip("0") if fraction else ""
        text += f"T{'-' if nanoseconds < 0 else ''}{seconds}{tail}S"
    return "P" + text


def intervals_from_text(texts: pa.Array) -> pa.Array:
    """The inverse. Raises DataError where a text is no such interval."""
    return pa.array(
        [None if text is None else _interval(text) for text in texts.to_pylist()], pa.month_day_nano_interval()
    )


def _interval(text: str) -> pa.MonthDayNano:
    found = _INTERVAL.fullmatch(text)
    if found is None or len(text) < 3 or text.endswith("T"):
        raise DataError("a text is no interval in ISO 8601 of months, days and seconds", value=repr(text[:200]))
    months, days, sign, seconds, fraction = found.groups()
    nanoseconds = int(seconds or 0) * 10**9 + int((fraction or "").ljust(9, "0"))
    parts = (int(months or 0), int(days or 0), -nanoseconds if sign else nanoseconds)
    if abs(parts[0]) >= 2**31 or abs(parts[1]) >= 2**31 or abs(parts[2]) >= 2**63:
        raise DataError("an interval beyond 32-bit months and days and 64-bit nanoseconds", value=repr(text[:200]))
    return pa.MonthDayNano(parts)


# ── nested values ────────────────────────────────────────────────────────────────────────────────


def to_json(array: pa.Array, t: Type) -> pa.Array:
    """n values of a nested type as n JSON texts."""
    return json_text.to_json(array, t, _leaves)


def from_json(texts: pa.Array, t: Type) -> pa.Array:
    """n JSON texts as n values of a nested type. Raises DataError where a text is no such value."""
    return json_text.from_json(texts, t, _leaf_array)


def _leaves(array: pa.Array, t: Type) -> list[Any]:
    if t.kind in FLOATS:
        return [repr(v) if v is not None and not math.isfinite(v) else v for v in array.to_pylist()]
    if t.kind in ("binary", "wire"):
        return [None if v is None else "\\x" + v.hex() for v in array.to_pylist()]
    if t.kind == "interval":
        return list(intervals_to_text(array).to_pylist())
    if t.kind == "bool" or t.is_integer or t.kind in TEXTS:
        return list(array.to_pylist())
    return [value_text(array, i, t) for i in range(len(array))]  # none is so long that it would be cut


def _leaf_array(values: Sequence[Any], t: Type) -> pa.Array:
    if t.kind in FLOATS:
        return pa.array([float(v) if isinstance(v, str) else v for v in values], pa.float64()).cast(t.arrow)
    if t.kind == "bool" or t.is_integer:
        kind = bool if t.kind == "bool" else int  # pyarrow would cut off what is after the point
        if any(type(v) is not kind for v in values if v is not None):
            raise ValueError(f"a value is no {t}")
        return pa.array(values, t.arrow)
    if any(v is not None and not isinstance(v, str) for v in values):
        raise ValueError(f"a value is no text of {t}")
    if t.kind in TEXTS:
        return pa.array(values, pa.utf8())
    if t.kind == "interval":
        return intervals_from_text(pa.array(values, pa.utf8()))
    if t.kind == "decimal":
        with localcontext(prec=100):
            return pa.array([None if v is None else Decimal(v) for v in values], t.arrow)
    if t.kind in ("binary", "wire"):
        return pa.array([None if v is None else bytes.fromhex(v.removeprefix("\\x")) for v in values], t.arrow)
    if t.kind == "uuid":
        return pa.array([None if v is None else bytes.fromhex(v.replace("-", "")) for v in values], t.arrow)
    parse: Callable[[str], int] = _days if t.kind == "date" else lambda text: _units(text, t)
    storage = pa.int32() if t.kind == "date" else pa.int64()
    return pa.array([None if v is None else parse(v) for v in values], storage).view(t.arrow)


def _days(text: str) -> int:
    if text in ("infinity", "-infinity"):
        return DATE_INFINITY if text == "infinity" else DATE_MINUS_INFINITY
    found = _MOMENT.fullmatch(text)
    if found is None or found["year"] is None or found["hours"] is not None:
        raise ValueError(f"{text!r} is no date")
    return _days_of(found)


def _units(text: str, t: Type) -> int:
    """A timestamp, time of day or duration in its unit."""
    if text in ("infinity", "-infinity") and t.kind in ("timestamp", "timestamptz"):
        return TIMESTAMP_INFINITY if text == "infinity" else TIMESTAMP_MINUS_INFINITY
    found, digits = _MOMENT.fullmatch(text), _DIGITS[t.unit or "us"]
    dated = t.kind in ("timestamp", "timestamptz")
    if found is None or found["hours"] is None or (found["year"] is not None) != dated:
        raise ValueError(f"{text!r} is no {t}")
    fraction = (found["fraction"] or "").rstrip("0")
    if len(fraction) > digits:
        raise ValueError(f"{text!r} has more digits than {t}")
    seconds = int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + int(found["seconds"])
    units: int = seconds * 10**digits + int(fraction.ljust(digits, "0") or 0)
    units = -units if found["sign"] else units
    return units + (_days_of(found) * _DAY_S * 10**digits if dated else 0)


def _days_of(found: re.Match[str]) -> int:
    """Days since 1970-01-01 of a date in the Gregorian calendar, with years before Christ."""
    year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    year = 1 - year if found["era"] else year
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise ValueError(f"{found[0]!r} is no date")
    shifted = year - (month <= 2)
    era, of_era = divmod(shifted, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return int(era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468)
