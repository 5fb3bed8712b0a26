"""Values of a canonical array as JSON and back, without loss: what a quarantined row is kept as.

null                                    NULL
true, 12, 1.5                           bool, int8 … int32 and uint8 … uint32, floats (NaN, Infinity as text)
"9223372036854775807"                   int64, uint64, decimals and numerics: no reader rounds them
"…"                                     texts; uuids in groups of digits
"…" (base64)                            binary and wire
"2024-02-29", "infinity", "0044-03-15 BC"    dates, and so timestamps with their time of day
"-01:30:00.5"                           times and durations
{"months": 1, "days": 2, "nanoseconds": "3"}    intervals
[1, 2], [[key, value]], [of each field]         lists, maps, structs
"""

from __future__ import annotations

import base64
import binascii
import decimal
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.convert.times import UNIT_DIGITS, interval_parts
from rowferry.convert.value_text import value_text
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

#: Kinds whose text for people says all of the value, and is never cut.
_AS_SHOWN = frozenset(("uuid", "date", "timestamp", "timestamptz", "time", "duration"))
_DATE = re.compile(r"(\d{4,})-(\d\d)-(\d\d)( BC)?")
_TIMESTAMP = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:\+00)?( BC)?")
_CLOCK = re.compile(r"(-?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,9}))?")


def to_json(array: pa.Array, index: int, t: Type) -> Any:
    """The value in row ``index`` of an array in ``t.arrow``, as JSON values of Python."""
    scalar = array[index]
    if not scalar.is_valid:
        return None
    if t.kind in FLOATS:
        # A float32 by the shortest digits that give it again.
        value = float(scalar.cast(pa.string()).as_py()) if t.kind == "float32" else scalar.as_py()
        return (
            value if abs(value) < float("inf") else "NaN" if value != value else str(value).replace("inf", "Infinity")
        )
    if t.kind == "bool" or (t.is_integer and t.kind not in ("int64", "uint64")):
        return scalar.as_py()
    if t.kind in ("int64", "uint64"):
        return str(scalar.as_py())
    if t.kind == "decimal":
        return format(scalar.as_py(), "f")
    if t.kind in ("binary", "wire"):
        return base64.b64encode(scalar.as_py()).decode()
    if t.kind in _AS_SHOWN:
        return value_text(array, index, t)
    if t.kind == "interval":
        return _interval(array.slice(index, 1))
    if t.kind == "list":
        assert t.element is not None
        return [to_json(array.values, i, t.element) for i in _range(array, index)]
    if t.kind == "map":
        key, value_ = t.fields
        return [[to_json(array.keys, i, key.type), to_json(array.items, i, value_.type)] for i in _range(array, index)]
    if t.kind == "struct":
        row = array.slice(index, 1)
        return [to_json(row.field(i), 0, field.type) for i, field in enumerate(t.fields)]
    assert t.kind in TEXTS
    return scalar.as_py()


def _range(array: pa.Array, index: int) -> range:
    return range(array.offsets[index].as_py(), array.offsets[index + 1].as_py())


def _interval(array: pa.Array) -> dict[str, Any]:
    words, nanoseconds = interval_parts(array)
    raw = words.tobytes()
    months, days = (int.from_bytes(part, "little", signed=True) for part in (raw[:4], raw[4:]))
    return {"months": months, "days": days, "nanoseconds": str(nanoseconds[0].as_py())}


def from_json(values: Sequence[Any], t: Type) -> pa.Array:
    """The inverse: n JSON values as n values in ``t.arrow``. Raises DataError for what :func:`to_json` never gives."""
    try:
        return _array(values, t)
    except (
        ValueError,
        TypeError,
        KeyError,
        ArithmeticError,
        AttributeError,
        pa.ArrowException,
        binascii.Error,
    ) as error:
        raise DataError(f"a kept value is no {t}: {' '.join(str(error).split())[:200]}") from None


def _array(values: Sequence[Any], t: Type) -> pa.Array:
    if t.kind in FLOATS:
        return pa.array([None if v is None else float(v) for v in values], t.arrow)
    if t.is_integer:
        return pa.array([None if v is None else int(v) for v in values], t.arrow)
    if t.kind == "decimal":
        return pa.array([None if v is None else decimal.Decimal(v) for v in values], t.arrow)
    if t.kind in ("binary", "wire"):
        return pa.array([None if v is None else base64.b64decode(v, validate=True) for v in values], t.arrow)
    if t.kind == "uuid":
        return pa.array([None if v is None else bytes.fromhex(v.replace("-", "")) for v in values], t.arrow)
    if t.kind == "date":
        return pa.array([None if v is None else _days(v) for v in values], pa.int32()).view(t.arrow)
    if t.kind in ("timestamp", "timestamptz"):
        return pa.array([None if v is None else _ticks(v, t) for v in values], pa.int64()).view(t.arrow)
    if t.kind in ("time", "duration"):
        digits = UNIT_DIGITS[t.unit or "us"]
        return pa.array([None if v is None else _clock(v, digits) for v in values], pa.int64()).view(t.arrow)
    if t.kind == "interval":
        parts = [None if v is None else (v["months"], v["days"], int(v["nanoseconds"])) for v in values]
        return pa.array([None if p is None else pa.MonthDayNano(p) for p in parts], t.arrow)
    if t.kind in ("list", "map"):
        return _nested(values, t)
    if t.kind == "struct":
        columns = [
            _array([None if v is None else v[i] for v in values], field.type) for i, field in enumerate(t.fields)
        ]
        mask = pa.array([v is None for v in values], pa.bool_())
        return pa.StructArray.from_arrays(columns, fields=list(t.arrow), mask=mask)
    return pa.array(values, t.arrow)


def _nested(values: Sequence[Any], t: Type) -> pa.Array:
    offsets: list[int] = [0]
    parts: list[Any] = []
    for value in values:
        parts += value or ()
        offsets.append(len(parts))
    # A NULL is told by its offset, an empty list by two that are equal.
    starts = pa.array(
        [None if v is None else o for v, o in zip(values, offsets, strict=False)] + offsets[-1:], pa.int32()
    )
    if t.kind == "list":
        assert t.element is not None
        return pa.ListArray.from_arrays(starts, _array(parts, t.element), type=t.arrow)
    key, value_ = t.fields
    keys, items = _array([p[0] for p in parts], key.type), _array([p[1] for p in parts], value_.type)
    return pa.MapArray.from_arrays(starts, keys, items, type=t.arrow)


def _days(text: str) -> int:
    if text in ("infinity", "-infinity"):
        return DATE_INFINITY if text == "infinity" else DATE_MINUS_INFINITY
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no date")
    year, month, day = (int(found[i]) for i in (1, 2, 3))
    return day_number(1 - year if found[4] else year, month, day)


def day_number(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a day of the Gregorian calendar; the inverse of ``value_text.civil_date``."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _ticks(text: str, t: Type) -> int:
    if text in ("infinity", "-infinity"):
        return TIMESTAMP_INFINITY if text == "infinity" else TIMESTAMP_MINUS_INFINITY
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no timestamp")
    digits = UNIT_DIGITS[t.unit or "us"]
    ticks: int = _days(found[1] + (found[3] or "")) * 86_400 * 10**digits + _clock(found[2], digits)
    return ticks


def _clock(text: str, digits: int) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None or len((found[5] or "").rstrip("0")) > digits:
        raise ValueError(f"{text[:60]!r} is no time of {digits} digits")
    seconds = int(found[2]) * 3600 + int(found[3]) * 60 + int(found[4])
    fraction = int((found[5] or "").ljust(digits, "0")[:digits] or 0)
    value: int = seconds * 10**digits + fraction
    return -value if found[1] else value
