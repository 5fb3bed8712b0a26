"""Between dates, timestamps, times, durations and intervals, in integers: infinities stay what they are."""

from __future__ import annotations

from array import array as machine_array

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.step import PASS, Step, always, checked, falses, validity
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Type,
)

UNIT_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
DAY_S = 86_400
INT64 = pa.int64()


def digits_of(t: Type) -> int:
    """Digits of fractional seconds that the type's storage unit has."""
    return 9 if t.kind == "interval" else UNIT_DIGITS[t.unit or "us"]


def precision_of(t: Type) -> int:
    """Digits of fractional seconds that a value of the type can have."""
    return digits_of(t) if t.precision is None else min(t.precision, digits_of(t))


def time_step(form: Type, to: Type) -> Step | str | None:
    """Both types are of the temporal kinds; None where the pair is none of ours."""
    pair = (form.kind, to.kind)
    if form.kind == to.kind:
        if form.kind == "date":
            return PASS
        if form.kind == "interval":
            return _interval_precision(form, to)
        return _rescale_step(form, to, infinities=form.kind in ("timestamp", "timestamptz"))
    if pair == ("date", "timestamp"):
        return checked(lambda a: _date_to_timestamp(a, to))
    if pair == ("timestamp", "date"):
        return checked(lambda a: _timestamp_to_date(a, form))
    if pair == ("duration", "interval"):
        return _duration_to_interval(form, to)
    if pair == ("interval", "duration"):
        return checked(lambda a: _interval_to_duration(a, to))
    if pair == ("time", "duration"):
        return _time_to_duration(form, to)
    if pair == ("duration", "time"):
        return checked(lambda a: _duration_to_time(a, form, to))
    if set(pair) == {"timestamp", "timestamptz"}:
        return "a wall clock time is no instant: a time zone would have to be assumed"
    return None


def _rescale_step(form: Type, to: Type, infinities: bool) -> Step:
    up = digits_of(to) - digits_of(form)
    #: Digits at the end of a source integer that have to be zero.
    loose = max(0, digits_of(form) - precision_of(to)) if precision_of(form) > precision_of(to) else 0
    if up == 0 and loose == 0:
        return PASS

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        ints, unfit = _rescale(array.view(INT64), up, loose, infinities)
        return ints.view(to.arrow), unfit

    if up < 0 and loose == 0:  # the declared precision says that nothing is cut
        return checked(run) if form.precision is None else Step(run, lossless=True)
    return checked(run)


def _rescale(ints: pa.Array, up: int, loose: int, infinities: bool) -> tuple[pa.Array, pa.Array | None]:
    """Integers times 10**up; those with other than zeros in the last ``loose`` digits do not fit."""
    unfit: pa.Array | None = None
    infinite: pa.Array | None = None
    original = ints
    extremes = pc.min_max(ints).as_py()
    low, high = extremes["min"], extremes["max"]
    if low is None:
        return ints, None
    if infinities and (low == TIMESTAMP_MINUS_INFINITY or high == TIMESTAMP_INFINITY):
        infinite = pc.is_in(ints, value_set=pa.array([TIMESTAMP_MINUS_INFINITY, TIMESTAMP_INFINITY], INT64))
        ints = pc.if_else(infinite, 0, ints)
    cut = max(loose, -up)
    if cut:
        step = 10**cut
        floored = floor_divide(ints, step)
        exact = pc.equal(pc.multiply(floored, step), ints)
        if pc.all(exact).as_py() is False:
            unfit = pc.invert(exact)
        ints = floored
        up += cut
    if up > 0:
        # One below the ends of int64: the ends themselves are infinities.
        room = (2**63 - 2 if infinities else 2**63 - 1) // 10**up
        extremes = pc.min_max(ints).as_py()
        if extremes["min"] < -room or extremes["max"] > room:
            beyond = pc.or_(pc.less(ints, -room), pc.greater(ints, room))
            ints = pc.if_else(pc.less(ints, -room), -room, pc.if_else(pc.greater(ints, room), room, ints))
            unfit = beyond if unfit is None else pc.or_(unfit, beyond)
        ints = pc.multiply(ints, 10**up)
    if infinite is not None:
        ints = pc.if_else(infinite, original, ints)
    return ints, unfit


def floor_divide(ints: pa.Array, step: int) -> pa.Array:
    quotient = pc.divide(ints, step)  # rounds towards zero
    below = pc.greater(pc.multiply(quotient, step), ints)
    return pc.subtract(quotient, below.cast(INT64))


def _time_to_duration(form: Type, to: Type) -> Step:
    """A time of day is the duration since midnight (MySQL's TIME is both)."""
    rescaled = _rescale_step(form, to, infinities=False)
    if rescaled.function is None:
        return always(lambda a: a.view(INT64).view(to.arrow))
    return rescaled


def _duration_to_time(array: pa.Array, form: Type, to: Type) -> tuple[pa.Array, pa.Array | None]:
    """Durations from 0 to 24 hours, as the time of day after midnight."""
    ints, unfit = array.view(INT64), None
    day = DAY_S * 10 ** digits_of(form)
    extremes = pc.min_max(ints).as_py()
    if extremes["min"] is not None and (extremes["min"] < 0 or extremes["max"] > day):
        unfit = pc.or_(pc.less(ints, 0), pc.greater(ints, day))
        ints = pc.max_element_wise(pc.min_element_wise(ints, day, skip_nulls=False), 0, skip_nulls=False)
    loose = max(0, digits_of(form) - precision_of(to)) if precision_of(form) > precision_of(to) else 0
    ints, finer = _rescale(ints, digits_of(to) - digits_of(form), loose, infinities=False)
    return ints.view(to.arrow), finer if unfit is None else unfit if finer is None else pc.or_(unfit, finer)


def _date_to_timestamp(array: pa.Array, to: Type) -> tuple[pa.Array, pa.Array | None]:
    days = array.view(pa.int32()).cast(INT64)
    infinite_low, infinite_high = pc.equal(days, DATE_MINUS_INFINITY), pc.equal(days, DATE_INFINITY)
    infinite = pc.or_(infinite_low, infinite_high)
    any_infinite = pc.any(infinite).as_py()
    if any_infinite:
        days = pc.if_else(infinite, 0, days)
    factor = DAY_S * 10 ** digits_of(to)
    room = (2**63 - 2) // factor
    beyond = pc.or_(pc.less(days, -room), pc.greater(days, room))
    unfit = beyond if pc.any(beyond).as_py() else None
    if unfit is not None:
        days = pc.max_element_wise(pc.min_element_wise(days, room, skip_nulls=False), -room, skip_nulls=False)
    ints = pc.multiply(days, factor)
    if any_infinite:
        ints = pc.if_else(infinite_low, TIMESTAMP_MINUS_INFINITY, ints)
        ints = pc.if_else(infinite_high, TIMESTAMP_INFINITY, ints)
    return ints.view(to.arrow), unfit


def _timestamp_to_date(array: pa.Array, form: Type) -> tuple[pa.Array, pa.Array | None]:
    ints = array.view(INT64)
    low, high = pc.equal(ints, TIMESTAMP_MINUS_INFINITY), pc.equal(ints, TIMESTAMP_INFINITY)
    infinite = pc.or_(low, high)
    factor = DAY_S * 10 ** digits_of(form)
    days = floor_divide(pc.if_else(infinite, 0, ints), factor)
    least, most = DATE_MINUS_INFINITY + 1, DATE_INFINITY - 1
    bounded = pc.max_element_wise(pc.min_element_wise(days, most, skip_nulls=False), least, skip_nulls=False)
    # A bounded day times the factor cannot overflow where it is the day itself.
    exact = pc.and_(pc.equal(bounded, days), pc.equal(pc.multiply(days, factor), ints))
    unfit = pc.invert(pc.or_(exact, infinite))
    days = pc.if_else(low, DATE_MINUS_INFINITY, pc.if_else(high, DATE_INFINITY, bounded))
    return days.cast(pa.int32()).view(pa.date32()), unfit if pc.any(unfit).as_py() else None


def interval_parts(array: pa.Array) -> tuple[memoryview, pa.Array]:
    """An interval array's months and days (as int64 that is zero where both are) and its nanoseconds."""
    data = memoryview(array.buffers()[1])[array.offset * 16 : (array.offset + len(array)) * 16].cast("q")
    nanoseconds = machine_array("q", data[1::2].tobytes())
    ints = pa.Array.from_buffers(INT64, len(array), [validity(array), pa.py_buffer(nanoseconds)])
    return data[::2], ints


def make_intervals(months_days: memoryview | None, nanoseconds: pa.Array) -> pa.Array:
    """Intervals of months and days as :func:`interval_parts` gives them (None: zero) and nanoseconds."""
    count = len(nanoseconds)
    words = machine_array("q", bytes(16 * count))
    if months_days is not None:
        words[::2] = machine_array("q", months_days.tobytes())
    start = nanoseconds.offset * 8
    words[1::2] = machine_array("q", memoryview(nanoseconds.buffers()[1])[start : start + count * 8].tobytes())
    return pa.Array.from_buffers(pa.month_day_nano_interval(), count, [validity(nanoseconds), pa.py_buffer(words)])


def _interval_precision(form: Type, to: Type) -> Step:
    loose = 9 - precision_of(to)
    if precision_of(form) <= precision_of(to):
        return PASS

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        if not len(array):
            return array, None
        months_days, nanoseconds = interval_parts(array)
        fitting, unfit = _rescale(nanoseconds, 0, loose, infinities=False)
        return (array, None) if unfit is None else (make_intervals(months_days, fitting), unfit)

    return checked(run)


def _duration_to_interval(form: Type, to: Type) -> Step:
    up = 9 - digits_of(form)
    loose = max(0, digits_of(form) - precision_of(to)) if precision_of(form) > precision_of(to) else 0

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        if not len(array):
            return pa.array([], to.arrow), None
        nanoseconds, unfit = _rescale(array.view(INT64), up, loose, infinities=False)
        return make_intervals(None, nanoseconds), unfit

    return always(lambda a: run(a)[0]) if up == 0 and loose == 0 else checked(run)


def _interval_to_duration(array: pa.Array, to: Type) -> tuple[pa.Array, pa.Array | None]:
    if not len(array):
        return pa.array([], to.arrow), None
    months_days, nanoseconds = interval_parts(array)
    ints, unfit = _rescale(nanoseconds, digits_of(to) - 9, 9 - precision_of(to), infinities=False)
    calendar = machine_array("q", months_days.tobytes())
    if any(calendar):
        # Months and days have no fixed length, so there is no nearest duration either.
        words = pa.Array.from_buffers(INT64, len(array), [None, pa.py_buffer(calendar)])
        has_calendar = pc.and_(pc.not_equal(words, 0), pc.is_valid(array))
        ints = pc.if_else(has_calendar, pa.scalar(None, INT64), ints)
        unfit = pc.or_(has_calendar, pc.fill_null(unfit if unfit is not None else falses(len(array)), False))
    return ints.view(to.arrow), unfit
