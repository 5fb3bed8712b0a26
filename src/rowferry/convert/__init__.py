"""Exact conversion between canonical types: what does not fit is refused or, by a policy, counted.

``conversion(form, to)`` says once per column whether and how values go from one type to another;
its ``apply`` runs on every batch. The rules: numbers by value, texts by characters, times by
instant or wall clock but never from one to the other, nothing rounded, cut or guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.checks import CHECKS, Check, concerns, failing
from rowferry.convert.layout import plain_layout
from rowferry.convert.nested import nested_step, without
from rowferry.convert.numbers import number_step
from rowferry.convert.step import PASS, Step, chain, checked, either
from rowferry.convert.texts import INTEGER_PATTERN, NUMERIC_PATTERN, binary_step, matching, text_step
from rowferry.convert.times import time_step
from rowferry.convert.value_text import value_text, visible
from rowferry.errors import DataError
from rowferry.types import FLOATS, INTEGERS, TEXTS, Type, from_arrow

__all__ = ["CHECKS", "Check", "Conversion", "canonical_array", "conversion", "value_text"]

_NUMBERS = (*INTEGERS, *FLOATS, "bool", "decimal", "numeric")
_TIMES = ("date", "time", "timestamp", "timestamptz", "duration", "interval")
_BINARIES = ("binary", "uuid", "wire")


class Conversion(msgspec.Struct, frozen=True):
    """How a column's values go from ``form`` to ``to``.

    identity: there is nothing to do at all; the array can be passed on as it is.
    lossless: every value fits, whatever it is (where False, the values or the server decide).
    """

    form: Type
    to: Type
    step: Step
    checks: tuple[str, ...] = ()
    policy: str | None = None

    @property
    def identity(self) -> bool:
        return self.step.function is None and not self.checks

    @property
    def lossless(self) -> bool:
        return self.step.lossless and not self.checks

    def apply(self, array: pa.Array) -> tuple[pa.Array, int]:
        """Converts n values in ``form.arrow`` to n values in ``to.arrow``; returns them and how many
        of them the policy touched. May return the array itself.

        Raises DataError, without table and column, at the first value that does not fit and that
        the policy (None, or clamp where nothing is near) does not settle.
        """
        result, unfit = array, None
        if self.step.function is not None:
            result, unfit = self.step.function(array)
        reasons = [] if unfit is None else [(unfit, f"does not fit {self.to}")]
        for name in self.checks:
            check = CHECKS[name]
            mask = failing(check, result, self.to)
            if mask is None:
                continue
            result = self._settled(check, result, mask)
            reasons.append((mask, check.reason))
            unfit = either(unfit, mask)
        if unfit is None:
            return result, 0
        unfit = pc.fill_null(unfit, False)
        count = pc.sum(unfit).as_py() or 0
        if not count:
            return result, 0
        if self.policy not in ("null", "clamp"):
            raise self._error(array, unfit, reasons, result)
        if self.policy == "null":
            return without(result, unfit), count
        nowhere = pc.and_(unfit, pc.is_null(result))
        if pc.any(nowhere).as_py():
            raise self._error(array, nowhere, reasons, result)
        return result, count

    def _settled(self, check: Check, array: pa.Array, mask: pa.Array) -> pa.Array:
        """The array with the nearest values that pass the check, NULL where there are none."""
        if check.nearest is not None and self.to.kind in check.kinds:
            return pc.if_else(pc.fill_null(mask, False), check.nearest(array), array)
        return without(array, mask)

    def _error(
        self, array: pa.Array, rows: pa.Array, reasons: list[tuple[pa.Array, str]], nearest: pa.Array
    ) -> DataError:
        row = pc.index(rows, True).as_py()
        reason = next(text for mask, text in reasons if mask[row].as_py())
        shown = visible(value_text(array, row, self.form) or "")
        if self.form.kind in TEXTS:
            shown = f"'{shown}'"  # spaces at the end are often what does not fit
        hint = "give the column the policy null"
        if nearest[row].is_valid:
            hint += " or clamp, or text where the target makes it"
        elif self.policy == "clamp":
            hint += "; clamp has no nearest value"
        else:
            hint += ", or text where the target makes it"
        return DataError(f"a value of type {self.form} {reason}", value=f"{shown} in row {row} of its batch", hint=hint)


def conversion(form: Type, to: Type, checks: Sequence[str] = (), policy: str | None = None) -> Conversion | str:
    """The conversion from ``form`` to ``to``; a text says why there is no exact one for this pair.

    checks: names of CHECKS that every converted value must pass; those that cannot concern the
        type are dropped. policy: None or another engine's business (refuse) | null | clamp.

    >>> conversion(Type("int32"), Type("int64")).lossless
    True
    """
    step = _step(form, to)
    if isinstance(step, str):
        return step
    concerned = tuple(name for name in checks if concerns(CHECKS[name], to))
    return Conversion(form, to, step, concerned, policy)


@functools.lru_cache(maxsize=4096)
def _step(form: Type, to: Type) -> Step | str:
    if form == to:
        return PASS
    step: Step | str | None = None
    if form.kind in _NUMBERS and to.kind in _NUMBERS:
        step = number_step(form, to)
    elif form.kind in _TIMES and to.kind in _TIMES:
        step = time_step(form, to)
    elif form.kind in _BINARIES and to.kind in _BINARIES:
        step = binary_step(form, to)
    elif (form.kind in TEXTS or form.kind == "uuid") and (to.kind in TEXTS or to.kind == "uuid"):
        step = text_step(form, to)
    elif form.kind in ("list", "struct", "map"):
        step = nested_step(form, to, _step)
    elif to.kind in ("text", "char") and (form.is_integer or form.kind == "decimal"):
        step = _number_to_text(form, to)
    elif form.kind in ("text", "char") and (to.is_integer or to.kind == "decimal"):
        step = _text_to_number(to)
    return f"there is no exact way from {form} to {to}" if step is None else step


def _number_to_text(form: Type, to: Type) -> Step | str | None:
    written, bounded = number_step(form, Type("numeric")), text_step(Type("numeric"), to)
    return chain(written, bounded) if isinstance(written, Step) and isinstance(bounded, Step) else None


def _text_to_number(to: Type) -> Step | str | None:
    """Only texts that the number itself would be written as (with any zeros after the point)."""
    pattern = INTEGER_PATTERN if to.is_integer else NUMERIC_PATTERN
    parsed = number_step(Type("numeric"), to)
    return chain(checked(matching(pattern)), parsed) if isinstance(parsed, Step) else None


def canonical_array(array: pa.Array | pa.ChunkedArray, type_: Type) -> pa.Array:
    """An array of any Arrow layout in ``type_.arrow``: n rows, the same values; not copied where it fits.

    Raises DataError where a value would change or the Arrow type has no canonical one.
    """
    if isinstance(array, pa.ChunkedArray):
        array = (
            array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks or [pa.array([], array.type)])
        )
    if array.type.equals(type_.arrow):
        return array
    form = from_arrow(array.type)
    if form is None:
        raise DataError(f"values of the Arrow type {array.type} have no canonical form")
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_.arrow)
    try:
        plain = plain_layout(array, form)
        if plain.type.equals(type_.arrow):
            return plain
        if form.kind == "binary" and type_.kind in TEXTS:
            return plain.cast(pa.binary()).cast(pa.string())  # a safe cast: refuses what is no UTF-8
    except pa.ArrowInvalid as error:
        raise DataError(f"values of the Arrow type {array.type} do not fit {type_}: {error}") from error
    way = conversion(form, type_)
    if isinstance(way, str):
        raise DataError(way)
    return way.apply(plain)[0]
