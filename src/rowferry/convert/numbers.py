"""Between integers, decimals, floats, booleans and numbers written as text; exact by value."""

from __future__ import annotations

import decimal
import math
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.step import EXACT, PASS, Step, always, bisecting, checked
from rowferry.types import FLOATS, Type

#: Digits of decimals up to which Arrow prints without an exponent, whatever the value.
PLAIN_SCALE_MAX = 6
DECIMAL_DIGITS_MAX = 76


def integer_range(kind: str) -> tuple[int, int]:
    """Smallest and largest value of an integer kind."""
    bits = int(kind.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def number_step(form: Type, to: Type) -> Step | str | None:
    """Both types are bool, integer, float, decimal or numeric; None where the pair is none of ours."""
    if form.kind == "bool":
        return always(lambda a: pc.cast(a, to.arrow)) if to.is_integer else None
    if to.kind == "bool":
        return _integer_to_bool(form) if form.is_integer else None
    if form.is_integer:
        return _from_integer(form, to)
    if form.kind == "decimal":
        return _from_decimal(form, to)
    if form.kind == "numeric":
        return _from_numeric(to)
    if form.kind in FLOATS:
        return _from_float(form, to)
    return None


def _integer_to_bool(form: Type) -> Step:
    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        extremes = pc.min_max(array).as_py()
        result = pc.not_equal(array, pa.scalar(0, form.arrow))
        if extremes["min"] is None or (extremes["min"] >= 0 and extremes["max"] <= 1):
            return result, None
        unfit = pc.invert(pc.is_in(array, value_set=pa.array([0, 1], form.arrow)))
        return result, pc.and_(unfit, pc.is_valid(array))

    return checked(run)


def _from_integer(form: Type, to: Type) -> Step | str | None:
    low, high = integer_range(form.kind)
    if to.is_integer:
        to_low, to_high = integer_range(to.kind)
        if to_low <= low and high <= to_high:
            return always(lambda a: pc.cast(a, to.arrow))
        return bisecting(lambda a: pc.cast(a, to.arrow), into_integer(to.kind), to.arrow)
    if to.kind == "decimal":
        return _integer_to_decimal(form, to)
    if to.kind == "numeric":
        return always(lambda a: pc.cast(a, pa.string()))
    if to.kind in FLOATS:
        if high <= (2**53 if to.kind == "float64" else 2**24):
            return always(lambda a: pc.cast(a, to.arrow))
        return bisecting(lambda a: pc.cast(a, to.arrow), _into_float(to.kind), to.arrow)
    return None


def _integer_to_decimal(form: Type, to: Type) -> Step:
    assert to.precision is not None and to.scale is not None
    digits = len(str(integer_range(form.kind)[1]))
    wide_precision = digits + max(to.scale, 0)
    slow = into_decimal(to)
    if wide_precision > DECIMAL_DIGITS_MAX:
        return bisecting(_never, slow, to.arrow)
    make = pa.decimal128 if wide_precision <= 38 else pa.decimal256
    wide = make(wide_precision, max(to.scale, 0))

    def fast(array: pa.Array) -> pa.Array:
        return pc.cast(pc.cast(array, wide), to.arrow)

    if to.precision - to.scale >= digits and to.scale >= 0:
        return always(fast)
    return bisecting(fast, slow, to.arrow)


def _from_decimal(form: Type, to: Type) -> Step | str | None:
    assert form.precision is not None and form.scale is not None
    if to.kind == "decimal":
        assert to.precision is not None and to.scale is not None
        wider = to.scale >= form.scale and to.precision - to.scale >= form.precision - form.scale
        if wider:
            return always(lambda a: pc.cast(a, to.arrow))
        return bisecting(_rescaling(form, to), into_decimal(to), to.arrow)
    if to.is_integer:
        fast = _never if form.scale < 0 else lambda a: pc.cast(a, to.arrow)
        return bisecting(fast, into_integer(to.kind), to.arrow)
    if to.kind == "numeric":
        return always(decimal_text(form))
    if to.kind in FLOATS:
        return "a decimal fraction has no exact form in binary floating point"
    return None


def _rescaling(form: Type, to: Type) -> Callable[[pa.Array], pa.Array]:
    """Arrow's cast to a larger scale multiplies within 128 or 256 bits, and where that wraps around, a wrong
    number may come out and pass: what has too many digits is refused before."""
    assert form.precision is not None and form.scale is not None
    assert to.precision is not None and to.scale is not None
    up = to.scale - form.scale
    if up <= 0:
        return lambda a: pc.cast(a, to.arrow)
    digits = min(to.precision - up, form.precision)
    if digits < 1:
        return _never
    make = pa.decimal128 if form.precision <= 38 else pa.decimal256
    narrow = make(digits, form.scale)
    return lambda a: pc.cast(pc.cast(a, narrow), to.arrow)


def decimal_text(form: Type) -> Callable[[pa.Array], pa.Array]:
    """Prints decimals without an exponent, all ``scale`` digits after the point."""
    scale, precision = form.scale or 0, form.precision or 1
    if scale < 0:
        return lambda a: pa.array([None if v is None else format(v, "f") for v in a.to_pylist()], pa.string())
    if scale <= PLAIN_SCALE_MAX:
        return lambda a: pc.cast(a, pa.string())
    whole = (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, 0)

    def write(array: pa.Array) -> pa.Array:
        # Arrow prints 0E-10 where the scale is large: print the unscaled integer and put the point in.
        digits = pc.utf8_lpad(pc.cast(pc.abs(array.view(whole)), pa.string()), width=scale + 1, padding="0")
        head = pc.utf8_slice_codeunits(digits, 0, -scale)
        tail = pc.utf8_slice_codeunits(digits, -scale)
        sign = pc.if_else(pc.less(array.view(whole), pa.scalar(decimal.Decimal(0), whole)), "-", "")
        return pc.binary_join_element_wise(pc.binary_join_element_wise(sign, head, ""), tail, ".")

    return write


def _from_numeric(to: Type) -> Step | str | None:
    if to.kind == "numeric":
        return PASS
    if to.kind == "decimal":
        slow = into_decimal(to)
        return bisecting(lambda a: pc.cast(_short(a, to), to.arrow), lambda text: slow(decimal.Decimal(text)), to.arrow)
    if to.is_integer:
        slow_integer = into_integer(to.kind)
        return bisecting(_text_to_integer(to), lambda text: slow_integer(decimal.Decimal(text)), to.arrow)
    if to.kind in FLOATS:
        return "a decimal fraction has no exact form in binary floating point"
    return None


def _short(array: pa.Array, to: Type) -> pa.Array:
    """The texts themselves; raises ArrowInvalid where Arrow's reading of them as ``to`` may wrap around.

    It takes any number of digits and multiplies to the scale, both modulo 2**128 or 2**256, so that a number far
    beyond the type may come out as another one that fits. (A sign or a point counts as a digit here.)
    """
    assert to.precision is not None and to.scale is not None
    most = 38 if to.precision <= 38 else DECIMAL_DIGITS_MAX
    room = most - max(to.scale, 0)
    longest = pc.max(pc.binary_length(array)).as_py() or 0
    if longest > room:
        points = pc.find_substring(array, ".")
        whole = pc.if_else(pc.less(points, 0), pc.binary_length(array), points)
        if longest > most or pc.max(whole).as_py() > room:
            raise pa.ArrowInvalid("more digits than can be read without wrapping around")
    return array


#: The type by way of which 12.00 is known to be an integer.
_WHOLE_BY_VALUE = Type("decimal", precision=DECIMAL_DIGITS_MAX, scale=38)


def _text_to_integer(to: Type) -> Callable[[pa.Array], pa.Array]:
    def fast(array: pa.Array) -> pa.Array:
        try:
            return pc.cast(array, to.arrow)
        except pa.ArrowInvalid:  # 12.00 is an integer by value
            return pc.cast(pc.cast(_short(array, _WHOLE_BY_VALUE), _WHOLE_BY_VALUE.arrow), to.arrow)

    return fast


def _from_float(form: Type, to: Type) -> Step | str | None:
    if to.kind in FLOATS:
        if form.kind == to.kind:
            return PASS
        return always(lambda a: pc.cast(a, pa.float64())) if to.kind == "float64" else checked(_narrow_float)
    if to.is_integer:
        return bisecting(_float_to_integer(to), into_integer(to.kind), to.arrow)
    if to.kind in ("decimal", "numeric"):
        return "a binary floating point number has no short exact decimal form"
    return None


def _narrow_float(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    narrow = pc.cast(array, pa.float32())
    same = pc.or_(pc.equal(pc.cast(narrow, pa.float64()), array), pc.is_nan(array))
    if pc.all(same).as_py() is not False:
        return narrow, None
    # The nearest float32 of what lies beyond its range is its largest finite value, not infinity.
    overflow = pc.and_(pc.is_inf(narrow), pc.is_finite(array))
    largest = pa.scalar(3.4028234663852886e38, pa.float32())
    edge = pc.if_else(pc.less(array, 0.0), pc.negate(largest), largest)
    return pc.if_else(overflow, edge, narrow), pc.invert(same)


def negative_zeros(array: pa.Array) -> pa.Array:
    """Mask of the floats that are −0.0."""
    integer, least = (pa.int32(), -(2**31)) if array.type == pa.float32() else (pa.int64(), -(2**63))
    return pc.equal(array.view(integer), pa.scalar(least, integer))


def _float_to_integer(to: Type) -> Callable[[pa.Array], pa.Array]:
    def fast(array: pa.Array) -> pa.Array:
        if pc.any(negative_zeros(array)).as_py():
            raise pa.ArrowInvalid("−0.0 would lose its sign")
        return pc.cast(array, to.arrow)

    return fast


def _never(array: pa.Array) -> pa.Array:
    raise pa.ArrowInvalid("too wide for Arrow's decimals")


def into_integer(kind: str) -> Callable[[Any], tuple[int | None, bool]]:
    """One int, Decimal or float into an integer kind: the nearest value, and whether it is exact."""
    low, high = integer_range(kind)

    def slow(value: Any) -> tuple[int | None, bool]:
        if isinstance(value, decimal.Decimal) and not value.is_finite():
            return (None, False) if value.is_nan() else (high if value > 0 else low, False)
        if isinstance(value, float):
            if math.isnan(value):
                return None, False
            if math.isinf(value):
                return (high if value > 0 else low), False
            if value == 0.0 and math.copysign(1.0, value) < 0:
                return 0, False
        nearest = (
            int(value.to_integral_value(decimal.ROUND_HALF_EVEN, EXACT))
            if isinstance(value, decimal.Decimal)
            else round(value)
        )
        bounded = min(max(nearest, low), high)
        return bounded, bounded == value

    return slow


def into_decimal(to: Type) -> Callable[[Any], tuple[decimal.Decimal | None, bool]]:
    """One int or Decimal into a decimal type: the nearest value, and whether it is exact."""
    assert to.precision is not None and to.scale is not None
    step = decimal.Decimal((0, (1,), -to.scale))
    limit = decimal.Decimal((0, (9,) * to.precision, -to.scale))

    def slow(value: Any) -> tuple[decimal.Decimal | None, bool]:
        number = decimal.Decimal(value)
        if number.is_nan():
            return None, False
        if abs(number) > limit:
            return limit.copy_sign(number), False
        rounded = number.quantize(step, context=EXACT)
        if abs(rounded) > limit:
            return limit.copy_sign(number), False
        return rounded, rounded == number

    return slow


def _into_float(kind: str) -> Callable[[Any], tuple[float, bool]]:
    """One int into a float kind: the nearest value, and whether it is exact."""

    def slow(value: int) -> tuple[float, bool]:
        nearest = float(value)
        if kind == "float32":
            nearest = struct.unpack("<f", struct.pack("<f", nearest))[0]
        return nearest, int(nearest) == value

    return slow
