"""Numbers in expressions as DuckDB has them: which type comes of two, and its arithmetic and casts by Arrow's kernels.

Whatever fails here (a sum that overflows, a text that is no number) is not decided here: the batch goes to DuckDB,
which has the last word on values and on errors. So a kernel may refuse too much, and must never give what DuckDB
would not.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from rowferry import compute as pc
from rowferry.types import FLOATS, INTEGERS, Type


class Undecided(Exception):
    """Only DuckDB knows what it makes of these values, or of this expression."""


#: The fields' arrays → the expression's values, an array or one value for all rows. Raises Undecided or what Arrow
#: raises.
Kernel = Callable[[Sequence[Any]], Any]
#: A literal that has no type yet: it takes that of what it meets.
LITERAL = Type("literal")
NULL = Type("null")
BOOL = Type("bool")
TEXT = Type("text")

_BITS = {kind: int(kind.removeprefix("u").removeprefix("int")) for kind in INTEGERS}
#: Digits that every value of an integer type fits.
_WHOLE_DIGITS = {kind: len(str(2 ** (bits - kind.startswith("int")) - 1)) for kind, bits in _BITS.items()}
#: Digits of DuckDB's decimals that are computed in 64 bits, and at all.
_DIGITS_SMALL, _DIGITS_MAX = 18, 38


class Typed(NamedTuple):
    """An expression with DuckDB's type for it. literal: the value of a number that stands there by itself."""

    type: Type
    run: Kernel
    literal: int | decimal.Decimal | None = None


def constant(value: Any, t: Type) -> Typed:
    try:
        scalar = pa.scalar(value, t.arrow)
    except pa.ArrowInvalid:  # it does not fit
        raise Undecided from None
    return Typed(t, lambda _: scalar)


def digits(text: str) -> decimal.Decimal:
    """The value of a number with a point, as many digits as are written."""
    return decimal.Decimal(text)


def is_signed(t: Type) -> bool:
    return bool(t.kind in _BITS and t.kind.startswith("int"))


def fits(value: int, t: Type) -> bool:
    bits = _BITS[t.kind]
    low, beyond = (-(1 << bits - 1), 1 << bits - 1) if is_signed(t) else (0, 1 << bits)
    return low <= value < beyond


def decimal_type(precision: int, scale: int) -> Type:
    return Type("decimal", precision=precision, scale=scale)


def _digits(t: Type) -> tuple[int, int]:
    assert t.precision is not None and t.scale is not None
    return t.precision, t.scale


def settled(one: Typed, t: Type) -> Typed:
    """A literal in a type that its neighbour has."""
    value = one.literal
    if value is None:
        raise Undecided
    if t.is_integer and isinstance(value, int) and fits(value, t):
        return constant(value, t)
    if t.kind == "float64":
        return constant(_as_double(value), t)
    if t.kind == "decimal":
        return constant(decimal.Decimal(value), t)
    raise Undecided


def _as_double(value: int | decimal.Decimal) -> float:
    """DuckDB divides the digits by a power of ten: exact digits and power, one rounding, as Python's reading."""
    if len(str(value).lstrip("-0.").replace(".", "")) > 15:
        raise Undecided
    return float(value)


def as_type(one: Typed, t: Type) -> Kernel:
    """The values in a type that holds each of them."""
    if one.literal is not None:
        return settled(one, t).run
    if one.type == t:
        return one.run
    return lambda arrays: pc.cast(one.run(arrays), t.arrow)


# Which type comes of several.


def common(parts: Sequence[Typed]) -> Type:
    """The type of a CASE, a COALESCE or a comparison of these. Raises Undecided where it is not one of the plain
    cases."""
    types = list(dict.fromkeys(part.type for part in parts if part.type not in (LITERAL, NULL)))
    literals = [part.literal for part in parts if part.literal is not None]
    if not types:
        return _of_literals(literals)
    t = types[0]
    for other in types[1:]:
        t = _wider(t, other)
    for value in literals:
        t = _with_literal(t, value)
    return t


def _of_literals(literals: Sequence[int | decimal.Decimal]) -> Type:
    if literals and all(isinstance(value, int) for value in literals):
        small = all(fits(int(value), Type("int32")) for value in literals)
        return Type("int32") if small else Type("int64")
    raise Undecided


def _wider(one: Type, other: Type) -> Type:
    if one.is_integer and other.is_integer and is_signed(one) == is_signed(other):
        return max(one, other, key=lambda t: _BITS[t.kind])
    if one.kind == other.kind == "decimal":
        (p, s), (q, r) = _digits(one), _digits(other)
        scale = max(s, r)
        whole = max(p - s, q - r)
        if whole + scale <= _DIGITS_MAX:
            return decimal_type(whole + scale, scale)
    raise Undecided


def _with_literal(t: Type, value: int | decimal.Decimal) -> Type:
    if t.kind == "float64":
        return t
    if t.kind == "decimal":
        return _wider(t, literal_type(value))
    if t.is_integer and isinstance(value, int):
        return t if fits(value, t) else _wider(t, _of_literals([value]))
    raise Undecided


def literal_type(value: int | decimal.Decimal) -> Type:
    """Of a number beside a decimal: as many digits as are written; a whole one as an integer, which it is."""
    if isinstance(value, int):
        return decimal_type(_WHOLE_DIGITS[_of_literals([value]).kind], 0)
    written, scale = len(value.as_tuple().digits), -int(value.as_tuple().exponent)
    return decimal_type(max(written, scale + 1), scale)


# Comparisons.


def compared(one: Typed, other: Typed) -> tuple[Kernel, Kernel]:
    """Both as values of one type, which compare as DuckDB compares them."""
    t = common((one, other))
    if t.kind in FLOATS:
        return _without_nan(as_type(one, t)), _without_nan(as_type(other, t))
    if t.is_integer or t.kind in ("decimal", "text", "bool", "date", "timestamp", "timestamptz"):
        return as_type(one, t), as_type(other, t)
    raise Undecided


def _without_nan(run: Kernel) -> Kernel:
    """To DuckDB NaN equals NaN and is the greatest; to Arrow it equals nothing."""

    def checked(arrays: Sequence[Any]) -> Any:
        values = run(arrays)
        found = pc.is_nan(values) if isinstance(values, pa.Scalar) else pc.any(pc.is_nan(values))
        if found.as_py():
            raise Undecided
        return values

    return checked


# Arithmetic.

_CHECKED: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: pc.add_checked(a, b),
    "-": lambda a, b: pc.subtract_checked(a, b),
    "*": lambda a, b: pc.multiply_checked(a, b),
}
_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: pc.add(a, b),
    "-": lambda a, b: pc.subtract(a, b),
    "*": lambda a, b: pc.multiply(a, b),
}


def arithmetic(operator: str, one: Typed, other: Typed) -> Typed:
    """a + b, a - b, a * b. Raises Undecided."""
    if operator not in _CHECKED or (one.literal is not None and other.literal is not None):
        raise Undecided
    kinds = {one.type.kind, other.type.kind}
    if "decimal" in kinds:
        return _decimal_arithmetic(operator, one, other)
    t = common((one, other))
    if t.is_integer:
        return _run(_CHECKED[operator], as_type(one, t), as_type(other, t), t)
    if t.kind in FLOATS and kinds <= {t.kind, LITERAL.kind}:
        return _run(_PLAIN[operator], as_type(one, t), as_type(other, t), t)
    raise Undecided


def divided(one: Typed, other: Typed) -> Typed:
    """a / b, which is a number of floating point, whatever the two are. By zero it is infinite, or NaN."""
    t = Type("float64")
    if "float32" in (one.type.kind, other.type.kind) or (one.literal is not None and other.literal is not None):
        raise Undecided
    return _run(lambda a, b: pc.divide(a, b), _as_float(one), _as_float(other), t)


def _as_float(one: Typed) -> Kernel:
    """Numbers as DuckDB makes doubles of them; of more than 53 bits it has to do so itself."""
    if one.type.kind != "decimal":
        if one.literal is None and not (one.type.is_integer or one.type.kind == "float64"):
            raise Undecided
        return as_type(one, Type("float64"))
    run, scale = one.run, 10.0 ** _digits(one.type)[1]
    return lambda arrays: pc.divide(pc.cast(_unscaled(run(arrays)), pa.float64()), scale)


def _unscaled(values: Any) -> Any:
    """The digits of decimals as integers. Raises ArrowInvalid where they do not fit 64 bits."""
    if isinstance(values, pa.Scalar):
        raise Undecided
    whole = pa.Array.from_buffers(
        pa.decimal128(_DIGITS_MAX, 0), len(values), values.buffers(), values.null_count, values.offset
    )
    return pc.cast(pc.cast(whole, pa.decimal128(_DIGITS_SMALL, 0)), pa.int64())


def negated(one: Typed) -> Typed:
    """-a. Raises Undecided."""
    return _signs(one, lambda a: pc.negate_checked(a), lambda a: pc.negate(a))


def absolute(one: Typed) -> Typed:
    """abs(a). Raises Undecided."""
    return _signs(one, lambda a: pc.abs_checked(a), lambda a: pc.abs(a))


def _signs(one: Typed, checked: Callable[[Any], Any], plain: Callable[[Any], Any]) -> Typed:
    function = checked if is_signed(one.type) else plain
    if one.literal is not None or not (is_signed(one.type) or one.type.kind in ("decimal", *FLOATS)):
        raise Undecided
    return Typed(one.type, lambda arrays: function(one.run(arrays)))


def rounded(one: Typed, scale: int) -> Typed:
    """round(a, scale) of a decimal, halves away from zero."""
    if one.type.kind != "decimal" or one.type.precision == _DIGITS_MAX or scale < 0:
        raise Undecided
    precision, places = _digits(one.type)
    if scale >= places:
        return one
    t = decimal_type(precision, scale)
    return Typed(t, lambda arrays: pc.cast(_rounded(one.run(arrays), one.type, scale), t.arrow))


def _run(function: Callable[[Any, Any], Any], left: Kernel, right: Kernel, t: Type) -> Typed:
    return Typed(t, lambda arrays: function(left(arrays), right(arrays)))


def _decimal_arithmetic(operator: str, one: Typed, other: Typed) -> Typed:
    left, right = _as_decimal(one), _as_decimal(other)
    (p, s), (q, r) = _digits(left.type), _digits(right.type)
    if operator == "*":
        precision, scale = p + q, s + r
    else:
        scale = max(s, r)
        precision = max(p - s, q - r) + scale + 1
    # A product of two numbers of 64 bits stays one of 64 bits, and fails where it does not fit.
    if operator == "*" and precision > _DIGITS_SMALL and max(p, q) <= _DIGITS_SMALL and scale < _DIGITS_SMALL:
        precision = _DIGITS_SMALL
    if precision > _DIGITS_MAX or scale > precision:
        raise Undecided
    t = decimal_type(precision, scale)
    function = _PLAIN[operator]
    return Typed(t, lambda arrays: pc.cast(function(left.run(arrays), right.run(arrays)), t.arrow))


def _as_decimal(one: Typed) -> Typed:
    """A decimal as it is; an integer, or a literal, as one that has room for it."""
    if one.type.kind == "decimal":
        return one
    if one.type.is_integer:
        t = decimal_type(_WHOLE_DIGITS[one.type.kind], 0)
        return Typed(t, as_type(one, t))
    if one.literal is not None:
        return constant(decimal.Decimal(one.literal), literal_type(one.literal))
    raise Undecided


# Casts.


def cast(one: Typed, to: Type) -> Typed:
    """CAST(one AS to). Raises Undecided."""
    if one.type == to:
        return one
    if one.literal is not None:
        return settled(one, to)
    source, run = one.type, one.run
    if source.kind == "decimal" and source.precision == _DIGITS_MAX and (to.scale or 0) < (source.scale or 0):
        raise Undecided
    if (source.is_integer and to.is_integer) or (source.kind == "bool" and to.is_integer):
        return Typed(to, lambda arrays: pc.cast(run(arrays), to.arrow))
    if source.is_integer and to.kind in ("float64", "text"):
        return Typed(to, lambda arrays: pc.cast(run(arrays), to.arrow))
    if source.is_integer and to.kind == "decimal":
        wide = decimal_type(_DIGITS_MAX, _digits(to)[1])
        return Typed(to, lambda arrays: pc.cast(pc.cast(run(arrays), wide.arrow), to.arrow))
    if source.kind == "decimal" and to.kind == "decimal":
        scale = _digits(to)[1]
        if scale >= _digits(source)[1]:
            return Typed(to, lambda arrays: pc.cast(run(arrays), to.arrow))
        return Typed(to, lambda arrays: pc.cast(_rounded(run(arrays), source, scale), to.arrow))
    if source.kind == "decimal" and to.is_integer:
        small = decimal_type(_DIGITS_SMALL, 0).arrow
        return Typed(
            to, lambda arrays: pc.cast(pc.cast(pc.cast(_rounded(run(arrays), source, 0), small), pa.int64()), to.arrow)
        )
    if source.kind == "text" and to.is_integer:
        return Typed(to, lambda arrays: pc.cast(_plain_digits(run(arrays)), to.arrow))
    raise Undecided


def _rounded(values: Any, t: Type, scale: int) -> Any:
    """Decimals of fewer places, halves away from zero. Not in their own type: of 99.9, for which there is no 100.0 in
    it, Arrow (26.0) may make 0.0 without a word."""
    precision, places = _digits(t)
    wider = pc.cast(values, decimal_type(precision + 1, places).arrow)
    return pc.round(wider, ndigits=scale, round_mode="half_towards_infinity")


def _plain_digits(values: Any) -> Any:
    """Texts that spell integers plainly. Spaces, points, exponents and the like are read by DuckDB."""
    plain = pc.match_substring_regex(values, pattern=r"\A-?[0-9]{1,18}\z")
    if not pc.all(plain, min_count=0).as_py():
        raise Undecided
    return values
