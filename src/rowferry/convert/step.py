"""What every conversion is made of: functions from an array to an array and the rows that did not fit."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import compute as pc

#: array → (converted array, mask of the rows whose value does not fit, or None where all do). Where the mask
#: is true the converted array holds the nearest value that fits, or NULL where there is none. The mask may
#: hold NULLs, which count as false.
Function = Callable[[pa.Array], tuple[pa.Array, pa.Array | None]]

#: Wide enough for every number an engine can print (PostgreSQL: 131,072 digits before the point,
#: 16,383 after), so that nothing is ever rounded here unless it is meant to be.
EXACT = decimal.Context(
    prec=200_000,
    rounding=decimal.ROUND_HALF_EVEN,
    Emax=999_999_999,
    Emin=-999_999_999,
    traps=[decimal.InvalidOperation],
)

#: Rows below which a batch that did not convert as a whole is taken apart in Python.
LEAF_ROWS = 32


class Step(msgspec.Struct, frozen=True):
    """One conversion between two types. ``function`` None: arrays pass as they are."""

    function: Function | None = None
    #: Every value fits; False also where only the server can decide.
    lossless: bool = True


#: The array passes as it is, and every value fits.
PASS = Step()
#: The array passes as it is; whether a value fits is decided by the server (text into inet).
SERVER_DECIDES = Step(None, lossless=False)


def always(function: Callable[[pa.Array], pa.Array]) -> Step:
    """A step in which every value fits."""
    return Step(lambda array: (function(array), None))


def checked(function: Function) -> Step:
    return Step(function, lossless=False)


def chain(first: Step, second: Step) -> Step:
    """Both steps, one after the other."""
    if first.function is None or second.function is None:
        function = first.function or second.function
        return Step(function, first.lossless and second.lossless)
    before, after = first.function, second.function

    def both(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        middle, unfit = before(array)
        result, unfit_after = after(middle)
        if unfit is not None:
            # What had nothing to be clamped to stays without a value, whatever the second step makes of NULL.
            return result, either(unfit, unfit_after)
        return result, unfit_after

    return Step(both, first.lossless and second.lossless)


def either(a: pa.Array | None, b: pa.Array | None) -> pa.Array | None:
    """The rows of one mask or the other."""
    if a is None or b is None:
        return b if a is None else a
    return pc.or_(pc.fill_null(a, False), pc.fill_null(b, False))


def bisecting(fast: Callable[[pa.Array], pa.Array], slow: Callable[[Any], tuple[Any, bool]], to: pa.DataType) -> Step:
    """A step from ``fast``, which converts a whole array or raises ArrowInvalid, and ``slow``, which
    takes one Python value and returns the (nearest) value that fits and whether that is exact.

    An array that ``fast`` refuses is halved until the halves convert or are small enough to go
    value by value, so that few bad values in a batch cost little.
    """

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        try:
            return fast(array), None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pieces: list[tuple[pa.Array, pa.Array]] = []
            halve(array, pieces)
            unfit = pa.concat_arrays([mask for _, mask in pieces])
            return pa.concat_arrays([piece for piece, _ in pieces]), unfit if pc.any(unfit).as_py() else None

    def halve(array: pa.Array, pieces: list[tuple[pa.Array, pa.Array]]) -> None:
        if len(array) > LEAF_ROWS:
            middle = len(array) // 2
            for part in (array.slice(0, middle), array.slice(middle)):
                try:
                    pieces.append((fast(part), falses(len(part))))
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    halve(part, pieces)
            return
        values: list[Any] = []
        unfit: list[bool] = []
        for value in array.to_pylist():
            nearest, fits = (None, True) if value is None else slow(value)
            values.append(nearest)
            unfit.append(not fits)
        pieces.append((_array(values, to), pa.array(unfit, pa.bool_())))

    return checked(run)


def _array(values: list[Any], to: pa.DataType) -> pa.Array:
    if not pa.types.is_decimal(to):
        return pa.array(values, to)
    # pyarrow counts the zeros after the point as digits, and so refuses 0.001 for decimal(2, 3).
    make = pa.decimal128 if to.bit_width == 128 else pa.decimal256
    unscaled = [None if v is None else v.scaleb(to.scale, EXACT) for v in values]
    return pa.array(unscaled, make(to.precision, 0)).view(to)


def falses(count: int) -> pa.Array:
    """A mask of ``count`` times false."""
    return pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bytes((count + 7) // 8))])


def validity(array: pa.Array) -> pa.Buffer | None:
    """The validity bitmap of an array, from bit 0 on; None where it has no NULLs."""
    if not array.null_count:
        return None
    # A cast or comparison of the mask has a bitmap that begins at bit 0, whatever the array's offset is.
    return pa.concat_arrays([pc.is_valid(array)]).buffers()[1]
