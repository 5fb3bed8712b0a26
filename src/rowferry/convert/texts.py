"""Between texts, and texts that stand for something: uuid, enum, json, bits, numbers; and binaries."""

from __future__ import annotations

from array import array as machine_array

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.step import PASS, SERVER_DECIDES, Function, Step, always, chain, checked, validity
from rowferry.types import Type

#: Kinds that can be written as text without losing anything, in their Arrow form as it is.
READABLE = ("text", "char", "numeric", "timetz", "json", "jsonb", "enum", "bit", "varbit", "opaque")
#: A number as our numeric text writes it: no exponent, no leading zeros, no minus before zero.
NUMERIC_PATTERN = r"^(?:0(?:\.[0-9]+)?|-?[1-9][0-9]*(?:\.[0-9]+)?|-0\.0*[1-9][0-9]*|NaN|-?Infinity)$"
INTEGER_PATTERN = r"^(?:0|-?[1-9][0-9]*)$"
BITS_PATTERN = r"^[01]*$"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
#: Places of the 32 digits in a uuid's 36 characters.
UUID_DIGITS = tuple(i for i in range(36) if i not in (8, 13, 18, 23))


def text_step(form: Type, to: Type) -> Step | str | None:
    """Both types are utf8, or one is and the other a uuid; None where the pair is none of ours."""
    if form.kind == "uuid":
        return chain(always(uuid_text), _bounded(36, to)) if to.kind in ("text", "char") else None
    if form.kind not in READABLE:
        return None
    if form.kind == to.kind:
        return _same_kind(form, to)
    if to.kind in ("text", "char"):
        return _bounded(_longest(form), to) if to.kind == "text" else _into_char(form, to)
    if form.kind in ("text", "char"):
        return _from_text(form, to)
    pair = {form.kind, to.kind}
    if pair == {"json", "jsonb"}:
        return SERVER_DECIDES
    if pair == {"bit", "varbit"}:
        return _into_bits(form, to)
    return None


def _same_kind(form: Type, to: Type) -> Step | str:
    if form.kind == "text":
        return _bounded(form.length, to)
    if form.kind == "char":
        return _bounded(form.length, to)
    if form.kind in ("bit", "varbit"):
        return _into_bits(form, to)
    if form.kind == "enum":
        return _into_enum(form, to)
    if form.kind == "timetz":
        return _timetz_precision(form, to)
    if form.kind == "opaque" and form.native != to.native:
        return f"{form.native} and {to.native} are different types"
    return PASS


def _from_text(form: Type, to: Type) -> Step | str | None:
    if to.kind in ("json", "jsonb", "opaque", "timetz"):
        return SERVER_DECIDES
    if to.kind == "uuid":
        return checked(_text_to_uuid)
    if to.kind == "enum":
        return _into_enum(form, to)
    if to.kind in ("bit", "varbit"):
        counted = _into_bits(Type("varbit"), to)
        return counted if isinstance(counted, str) else chain(checked(matching(BITS_PATTERN)), counted)
    if to.kind == "numeric":
        return checked(matching(NUMERIC_PATTERN))
    return None


def matching(pattern: str) -> Function:
    """Values pass as they are where they match; nothing else is near to them."""

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        good = pc.match_substring_regex(array, pattern=pattern)
        if pc.all(good).as_py() is not False:
            return array, None
        return pc.if_else(good, array, pa.scalar(None, pa.string())), pc.invert(good)

    return run


def _longest(form: Type) -> int | None:
    """Characters that a value of the type can have at most, where the type says so."""
    if form.kind == "enum" and form.labels:
        return max(map(len, form.labels))
    return form.length if form.kind in ("text", "char", "bit", "varbit") else None


def _bounded(longest: int | None, to: Type) -> Step:
    """Texts of at most ``longest`` characters into text(n) or char(n); longer ones are cut by clamp."""
    length = to.length
    if length is None or (longest is not None and longest <= length):
        return PASS
    limit = length

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        longest_bytes = pc.max(pc.binary_length(array)).as_py()
        if longest_bytes is None or longest_bytes <= limit:
            return array, None
        too_long = pc.greater(pc.utf8_length(array), limit)
        if not pc.any(too_long).as_py():
            return array, None
        return pc.utf8_slice_codeunits(array, 0, limit), too_long

    return checked(run)


def _into_char(form: Type, to: Type) -> Step:
    """Spaces at the end would be lost among the padding: such values do not fit."""
    bounded = _bounded(_longest(form), to)
    if form.kind in ("numeric", "bit", "varbit", "timetz"):
        return bounded

    def strip(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        padded = pc.ends_with(array, pattern=" ")
        if not pc.any(padded).as_py():
            return array, None
        return pc.utf8_rtrim(array, characters=" "), padded

    if bounded.function is None:
        return checked(strip)

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        # The length counts before the spaces are stripped, and cutting can bare other spaces.
        assert bounded.function is not None
        cut, too_long = bounded.function(array)
        stripped, padded = strip(cut)
        if too_long is None:
            return stripped, padded
        ends = pc.ends_with(array, pattern=" ")
        return stripped, pc.or_(too_long, ends)

    return checked(run)


def _into_enum(form: Type, to: Type) -> Step:
    if not to.labels:
        return SERVER_DECIDES
    if form.kind == "enum" and form.labels and set(form.labels) <= set(to.labels):
        return PASS
    labels = pa.array(to.labels, pa.string())

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        known = pc.is_in(array, value_set=labels)
        unfit = pc.and_(pc.invert(known), pc.is_valid(array))
        if not pc.any(unfit).as_py():
            return array, None
        return pc.if_else(known, array, pa.scalar(None, pa.string())), unfit

    return checked(run)


def _into_bits(form: Type, to: Type) -> Step | str:
    if to.length is None or (form.kind == to.kind and form.length == to.length):
        return PASS
    if to.kind == "varbit":
        if form.length is not None and form.length <= to.length:
            return PASS
        return _bounded(None, to)
    if form.kind == "bit" and form.length is not None:
        return f"bit({form.length}) has another length than bit({to.length})"
    length = to.length

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        good = pc.equal(pc.binary_length(array), length)
        if pc.all(good).as_py() is not False:
            return array, None
        return pc.if_else(good, array, pa.scalar(None, pa.string())), pc.invert(good)

    return checked(run)


def _timetz_precision(form: Type, to: Type) -> Step:
    places = 6 if to.precision is None else to.precision
    if places >= 6 or (form.precision is not None and form.precision <= places):
        return PASS
    pattern = rf"\.[0-9]{{{places}}}[0-9]*[1-9]"

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        finer = pc.match_substring_regex(array, pattern=pattern)
        if not pc.any(finer).as_py():
            return array, None
        point = "." if places else ""
        return pc.replace_substring_regex(
            array, pattern=rf"\.([0-9]{{{places}}})[0-9]*", replacement=rf"{point}\1"
        ), finer

    return checked(run)


def uuid_text(array: pa.Array) -> pa.Array:
    """16-byte values as 36 lower-case characters."""
    count = len(array)
    if not count:
        return pa.array([], pa.string())
    data = memoryview(array.buffers()[1])[array.offset * 16 : (array.offset + count) * 16]
    digits = data.hex().encode()
    text = bytearray(b"-" * (36 * count))
    for place, index in zip(UUID_DIGITS, range(32), strict=True):
        text[place::36] = digits[index::32]
    offsets = machine_array("i", range(0, 36 * count + 1, 36))
    return pa.Array.from_buffers(
        pa.string(), count, [validity(array), pa.py_buffer(offsets), pa.py_buffer(bytes(text))]
    )


def _text_to_uuid(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    good = pc.match_substring_regex(array, pattern=UUID_PATTERN)
    unfit = pc.invert(good) if pc.all(good).as_py() is False else None
    nothing = pa.scalar("00000000-0000-0000-0000-000000000000")
    filled = pa.concat_arrays([pc.if_else(pc.fill_null(good, False), array, nothing)])
    count = len(filled)
    if not count:
        return pa.array([], pa.binary(16)), None
    text = filled.buffers()[2].to_pybytes()[: 36 * count]
    digits = bytearray(32 * count)
    for place, index in zip(UUID_DIGITS, range(32), strict=True):
        digits[index::32] = text[place::36]
    values = pa.Array.from_buffers(
        pa.binary(16),
        count,
        [
            validity(pc.if_else(good, array, pa.scalar(None, pa.string()))),
            pa.py_buffer(bytes.fromhex(digits.decode("ascii"))),
        ],
    )
    return values, unfit


def binary_step(form: Type, to: Type) -> Step | str | None:
    """Both types are binary or uuid (whose bytes they are) or wire; None where the pair is none of ours."""
    if form.kind == "wire" or to.kind == "wire":
        if form.kind == to.kind and form.native == to.native:
            return PASS
        return "the wire bytes of a type are understood only by the same type of the same engine"
    if form.kind == "uuid":
        form = Type("binary", length=16, fixed=True)
    if to.kind == "uuid":
        to = Type("binary", length=16, fixed=True)
    return _into_binary(form, to)


def _into_binary(form: Type, to: Type) -> Step | str:
    fixed_form = pa.types.is_fixed_size_binary(form.arrow)
    fixed_to = pa.types.is_fixed_size_binary(to.arrow)
    if fixed_form and fixed_to:
        return PASS if form.length == to.length else f"values of {form.length} bytes do not have {to.length} bytes"
    widen: Step = always(lambda a: pc.cast(a, pa.binary())) if fixed_form else PASS
    if to.length is None or (form.length is not None and form.length <= to.length and not fixed_to):
        return widen
    length = to.length
    if not fixed_to:
        return chain(widen, checked(_cut_binary(length)))

    def fix(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        good = pc.equal(pc.binary_length(array), length)
        unfit = pc.invert(good) if pc.all(good).as_py() is False else None
        if unfit is not None:
            array = pc.if_else(good, array, pa.scalar(None, pa.binary()))
        return pc.cast(array, to.arrow), unfit

    return checked(fix)


def _cut_binary(length: int) -> Function:
    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        too_long = pc.greater(pc.binary_length(array), length)
        if not pc.any(too_long).as_py():
            return array, None
        return pc.binary_slice(array, 0, length), too_long

    return run
