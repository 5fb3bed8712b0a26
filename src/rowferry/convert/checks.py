"""Checks that a target asks of every value, beyond its type: masks of the values that fail."""

from __future__ import annotations

import decimal
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.nested import list_parts, parents_of
from rowferry.convert.numbers import negative_zeros
from rowferry.convert.step import either
from rowferry.convert.times import INT64, UNIT_DIGITS
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    FLOATS,
    TEXTS,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Type,
)

DAY_US = 86_400_000_000
#: Days from 1970-01-01 to 0000-01-01, 0001-01-01 and 9999-12-31.
YEAR_0_DAY = -719_528
YEAR_1_DAY = -719_162
YEAR_9999_DAY = 2_932_896
_NUL = re.compile(b"\0")
#: A string of a JSON document, or one of its numbers (then a group).
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', re.DOTALL)


class Check(msgspec.Struct, frozen=True):
    """``failing`` takes an array of one of ``kinds`` and gives the mask of the values that fail, or
    None where all pass; ``nearest`` gives the array with the nearest values that pass in their place
    (None: there are no such values)."""

    kinds: tuple[str, ...]
    reason: str
    failing: Callable[[pa.Array], pa.Array | None]
    nearest: Callable[[pa.Array], pa.Array] | None = None

    def __call__(self, array: pa.Array) -> pa.Array | None:
        return self.failing(array)


def _some(mask: pa.Array) -> pa.Array | None:
    return mask if pc.any(mask).as_py() else None


def _is_date(array: pa.Array) -> bool:
    return bool(pa.types.is_date32(array.type))


def _temporal_ints(array: pa.Array) -> pa.Array:
    return array.view(pa.int32() if _is_date(array) else INT64)


def _infinite(array: pa.Array) -> pa.Array | None:
    ints = _temporal_ints(array)
    low, high = (
        (DATE_MINUS_INFINITY, DATE_INFINITY) if _is_date(array) else (TIMESTAMP_MINUS_INFINITY, TIMESTAMP_INFINITY)
    )
    extremes = pc.min_max(ints).as_py()
    if extremes["min"] != low and extremes["max"] != high:
        return None
    return pc.or_(pc.equal(ints, pa.scalar(low, ints.type)), pc.equal(ints, pa.scalar(high, ints.type)))


def _year_range(array: pa.Array, first_day: int) -> tuple[int, int]:
    if _is_date(array):
        return first_day, YEAR_9999_DAY
    day = 86_400 * 10 ** UNIT_DIGITS[array.type.unit]
    # Nanoseconds reach from 1677 to 2262 only; the ends of int64 are infinities, not times.
    return max(first_day * day, -(2**63) + 1), min((YEAR_9999_DAY + 1) * day - 1, 2**63 - 2)


def _beyond_years(array: pa.Array, first_day: int = YEAR_1_DAY) -> pa.Array | None:
    ints = _temporal_ints(array)
    low, high = _year_range(array, first_day)
    extremes = pc.min_max(ints).as_py()
    if extremes["min"] is None or (extremes["min"] >= low and extremes["max"] <= high):
        return None
    beyond = pc.or_(pc.less(ints, pa.scalar(low, ints.type)), pc.greater(ints, pa.scalar(high, ints.type)))
    infinite = _infinite(array)  # a check of its own: some engines know infinities but no year 10000
    return _some(beyond if infinite is None else pc.and_(beyond, pc.invert(infinite)))


def _within_years(array: pa.Array, first_day: int = YEAR_1_DAY) -> pa.Array:
    ints = _temporal_ints(array)
    low, high = (pa.scalar(end, ints.type) for end in _year_range(array, first_day))
    ints = pc.if_else(pc.less(ints, low), low, pc.if_else(pc.greater(ints, high), high, ints))
    return ints.view(array.type)


def _no_year(array: pa.Array) -> pa.Array | None:
    one_byte = pc.and_(pc.greater_equal(array, 1901), pc.less_equal(array, 2155))
    return _some(pc.invert(pc.or_(one_byte, pc.equal(array, 0))))


def _nan(array: pa.Array) -> pa.Array | None:
    return _some(pc.is_nan(array))


def _negative_zero(array: pa.Array) -> pa.Array | None:
    return _some(negative_zeros(array))


def _not_finite(array: pa.Array) -> pa.Array | None:
    if pa.types.is_floating(array.type):
        return _some(pc.invert(pc.is_finite(array)))
    return _some(pc.match_substring_regex(array, pattern="^(?:NaN|-?Infinity)$"))


def _nul(array: pa.Array) -> pa.Array | None:
    data = array.buffers()[2]
    if data is None or not len(array):
        return None
    # One memchr over the whole batch; only where it hits, value by value.
    offsets = memoryview(array.buffers()[1]).cast("B").cast("i")
    start, end = offsets[array.offset], offsets[array.offset + len(array)]
    if _NUL.search(memoryview(data)[start:end]) is None:
        return None
    return _some(pc.match_substring(array, pattern="\0"))


def _escaped_nul(array: pa.Array) -> pa.Array | None:
    rough = pc.match_substring(array, pattern="\\u0000")
    if not pc.any(rough).as_py():
        return None
    # An escaped backslash before u0000 is no escape: the run of backslashes has to be odd.
    return _some(pc.match_substring_regex(array, pattern=r"(?:^|[^\\])(?:\\\\)*\\u0000"))


def _beyond_doubles(array: pa.Array) -> pa.Array | None:
    """Documents with a number that is neither an integer of 64 bits nor what a double prints."""
    rough = pc.match_substring_regex(array, pattern="[0-9][0-9.]{15}|[0-9][eE]")
    if not pc.any(rough).as_py():
        return None
    texts = pc.if_else(rough, array, pa.scalar(None, array.type)).to_pylist()
    unfit = pa.array([text is not None and not all(map(_is_held, _numbers(text))) for text in texts], pa.bool_())
    return _some(pc.and_(unfit, pc.is_valid(array)))


def _numbers(document: str) -> Iterator[str]:
    return (m[1] for m in _JSON_TOKEN.finditer(document) if m[1] is not None)


def _is_held(number: str) -> bool:
    if number.lstrip("-").isdigit() and -(2**63) <= int(number[:21]) < 2**64 and len(number) <= 20:
        return True
    return decimal.Decimal(repr(float(number))) == decimal.Decimal(number)


def _beyond_int64(array: pa.Array) -> pa.Array | None:
    return _some(pc.greater(array, pa.scalar(2**63 - 1, pa.uint64())))


def _day_length(array: pa.Array) -> int:
    return DAY_US * (1000 if array.type.unit == "ns" else 1)


def _full_day(array: pa.Array) -> pa.Array | None:
    return _some(pc.greater_equal(array.view(INT64), _day_length(array)))


def _below_day(array: pa.Array) -> pa.Array:
    last = _day_length(array) - 1
    return pc.min_element_wise(array.view(INT64), last, skip_nulls=False).view(array.type)


def _without_sign(array: pa.Array) -> pa.Array:
    return pc.if_else(negative_zeros(array), pa.scalar(0.0, array.type), array)


def _within_int64(array: pa.Array) -> pa.Array:
    return pc.min_element_wise(array, pa.scalar(2**63 - 1, pa.uint64()), skip_nulls=False)


_DATES = ("date", "timestamp", "timestamptz")
#: Name → check, as ``Target.checks`` gives them.
CHECKS: dict[str, Check] = {
    "finite_time": Check(_DATES, "is infinite", _infinite),
    "year_1_9999": Check(_DATES, "lies outside the years 1 to 9999", _beyond_years, _within_years),
    "year_0_9999": Check(
        _DATES,
        "lies outside the years 0 to 9999",
        functools.partial(_beyond_years, first_day=YEAR_0_DAY),
        functools.partial(_within_years, first_day=YEAR_0_DAY),
    ),
    "year_type": Check(("int16",), "is neither 0 nor a year from 1901 to 2155", _no_year),
    "no_nan": Check(FLOATS, "is not a number", _nan),
    "no_negative_zero": Check(FLOATS, "is −0.0", _negative_zero, _without_sign),
    "finite_number": Check((*FLOATS, "numeric"), "is not a finite number", _not_finite),
    "no_nul": Check(TEXTS, "holds the character U+0000", _nul),
    "no_escaped_nul": Check(("json", "jsonb"), "holds \\u0000", _escaped_nul),
    "json_doubles": Check(("json", "jsonb"), "holds a number with more digits than a double has", _beyond_doubles),
    "fits_int64": Check(("uint64",), "is 2^63 or more", _beyond_int64, _within_int64),
    "below_24h": Check(("time",), "is 24:00:00", _full_day, _below_day),
}


def failing(check: Check, array: pa.Array, type_: Type) -> pa.Array | None:
    """The mask of the rows in which a value, or one nested in it, fails; None where all pass."""
    if type_.kind in check.kinds:
        return check.failing(array)
    if not len(array) or not concerns(check, type_):
        return None
    if type_.kind == "list":
        assert type_.element is not None
        offsets, values = list_parts(array)
        mask = failing(check, values, type_.element)
        return None if mask is None else parents_of(mask, offsets, array)
    if type_.kind == "map":
        offsets, values = list_parts(array)
        mask = failing(check, values, Type("struct", fields=type_.fields))
        return None if mask is None else parents_of(mask, offsets, array)
    rows: Any = None
    for index, field in enumerate(type_.fields):
        rows = either(rows, failing(check, array.field(index), field.type))
    return None if rows is None else _some(pc.and_(pc.fill_null(rows, False), pc.is_valid(array)))


def concerns(check: Check, type_: Type) -> bool:
    """Whether values of the type can fail the check at all."""
    if type_.kind in check.kinds:
        return True
    inner = [f.type for f in type_.fields] + ([type_.element] if type_.element else [])
    return any(concerns(check, t) for t in inner)
