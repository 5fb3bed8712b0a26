"""Canonical types and what stands in a file: nearly the same, since a file keeps Arrow types.

Parquet has no interval of months, days and nanoseconds: it is kept as ISO 8601 text. A uuid has a
logical type of its own. All else that Arrow's types do not tell is in the field's metadata.
"""

from __future__ import annotations

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import canonical_array
from rowferry.convert.layout import rebuilt
from rowferry.errors import DataError
from rowferry.model import Refusal
from rowferry.types import Field, Type, from_arrow, type_of_field

PARQUET, ARROW = "parquet", "arrow"
_DIGITS_MAX = 76
_ISO = (
    r"^P(?:(?P<months>-?\d{1,10})M)?(?:(?P<days>-?\d{1,10})D)?"
    r"(?:T(?P<sign>-?)(?P<seconds>\d{1,10})(?:\.(?P<fraction>\d{1,9}))?S)?$"
)
_NANOSECONDS = 1_000_000_000


def plan_type(t: Type, file_format: str) -> Type | Refusal:
    """The canonical type in which a column of form ``t`` is written."""
    if t.kind == "wire":
        return Refusal(None, f"files do not know the bytes of {t.native}", policies=("skip",))
    if t.kind == "decimal":
        assert t.precision is not None and t.scale is not None
        scale = max(t.scale, 0)
        precision = max(t.precision - min(t.scale, 0), scale, 1)
        if precision > _DIGITS_MAX:
            return Refusal(None, f"a decimal has {_DIGITS_MAX} digits at the most, not {precision}", policies=("text",))
        return Type("decimal", precision=precision, scale=scale)
    if t.kind == "list":
        assert t.element is not None
        inner = plan_type(t.element, file_format)
        return inner if isinstance(inner, Refusal) else Type("list", element=inner)
    if t.kind in ("struct", "map"):
        fields: list[Field] = []
        for field in t.fields:
            part = plan_type(field.type, file_format)
            if isinstance(part, Refusal):
                return part
            fields.append(Field(field.name, part))
        if not fields and file_format == PARQUET:
            return Refusal(None, "Parquet has no struct without fields", policies=("skip",))
        return Type(t.kind, fields=tuple(fields))
    return t


def stored_type(t: Type, file_format: str) -> pa.DataType:
    """The Arrow type in which a file keeps a canonical type."""
    if t.kind == "uuid":
        return pa.uuid()
    if t.kind == "interval" and file_format == PARQUET:
        return pa.utf8()
    if t.kind == "list":
        assert t.element is not None
        return pa.list_(pa.field("item", stored_type(t.element, file_format)))
    if t.kind == "struct":
        return pa.struct([pa.field(f.name, stored_type(f.type, file_format)) for f in t.fields])
    if t.kind == "map":
        return pa.map_(*(stored_type(f.type, file_format) for f in t.fields))
    return t.arrow


def type_in_file(field: pa.Field) -> Type | None:
    """The canonical type of a file's field: its tag where that fits what is stored, else by the Arrow type."""
    plain = from_arrow(field.type)
    tagged = type_of_field(field)
    if tagged is None or plain is None:
        return plain
    try:
        return tagged if _fits(tagged, plain) else plain
    except (ValueError, AssertionError, AttributeError):  # a type only in form: another tool's metadata, or damaged
        return plain


def _fits(tagged: Type, plain: Type) -> bool:
    """Whether a column that Arrow calls ``plain`` can hold ``tagged`` as we would have stored it."""
    if tagged.kind == "interval":
        return plain.kind in ("interval", "text")
    if tagged.kind in ("timestamp", "timestamptz", "time", "duration"):
        return plain.kind == tagged.kind
    if tagged.kind == "list" and plain.kind == "list":
        assert tagged.element is not None and plain.element is not None
        return _fits(tagged.element, plain.element)
    if tagged.kind == plain.kind and tagged.kind in ("struct", "map"):
        return len(tagged.fields) == len(plain.fields) and all(
            a.name == b.name and _fits(a.type, b.type) if tagged.kind == "struct" else _fits(a.type, b.type)
            for a, b in zip(tagged.fields, plain.fields, strict=True)
        )
    return bool(tagged.arrow.equals(plain.arrow))


def encode(array: pa.Array, t: Type, file_format: str) -> pa.Array:
    """A canonical array in ``stored_type``; n rows."""
    to = stored_type(t, file_format)
    if array.type.equals(to):
        return array
    if t.kind == "uuid":
        return pa.ExtensionArray.from_storage(pa.uuid(), array)
    if t.kind == "interval":
        return _iso_texts(array)
    return rebuilt(array, t, lambda a, inner: encode(a, inner, file_format))


def decode(array: pa.Array, t: Type) -> pa.Array:
    """A stored array of any Arrow layout in ``t.arrow``; n rows. Raises DataError."""
    if _has_text_interval(array.type, t):
        if t.kind == "interval":
            return _intervals(canonical_array(array, Type("text")))
        plain = from_arrow(array.type)
        assert plain is not None
        return rebuilt(canonical_array(array, plain), t, decode)
    return canonical_array(array, t)


def _has_text_interval(stored: pa.DataType, t: Type) -> bool:
    plain = from_arrow(stored)
    return plain is not None and _text_interval(plain, t)


def _text_interval(plain: Type, t: Type) -> bool:
    if t.kind == "interval":
        return plain.kind == "text"
    if t.element is not None and plain.element is not None:
        return _text_interval(plain.element, t.element)
    return any(_text_interval(a.type, b.type) for a, b in zip(plain.fields, t.fields, strict=False))


def _iso_texts(array: pa.Array) -> pa.Array:
    """``P14M3DT-1.5S``: the three parts as they are, none carried into another."""
    if not len(array):
        return pa.array([], pa.utf8())
    words = memoryview(array.buffers()[1])[array.offset * 16 : (array.offset + len(array)) * 16]
    months, days = (_integers(words.cast("i")[i::4].tobytes(), pa.int32(), array) for i in (0, 1))
    nanoseconds = _integers(words.cast("q")[1::2].tobytes(), pa.int64(), array)
    # The quotient is rounded towards zero, so that remainder and quotient share a sign.
    seconds = pc.divide(nanoseconds, _NANOSECONDS)
    rest = pc.subtract(nanoseconds, pc.multiply(seconds, _NANOSECONDS))
    digits = pc.utf8_lpad(pc.abs(rest).cast(pa.utf8()), 9, "0")
    fraction = pc.if_else(pc.equal(rest, 0), "", pc.binary_join_element_wise(".", pc.utf8_rtrim(digits, "0"), ""))
    sign = pc.if_else(pc.less(nanoseconds, 0), "-", "")
    parts = ["P", months.cast(pa.utf8()), "M", days.cast(pa.utf8()), "DT", sign, pc.abs(seconds).cast(pa.utf8())]
    return pc.binary_join_element_wise(*parts, fraction, "S", "")


def _integers(data: bytes, kind: pa.DataType, like: pa.Array) -> pa.Array:
    """Integers with the NULLs of another array."""
    plain = pa.Array.from_buffers(kind, len(like), [None, pa.py_buffer(data)])
    return pc.if_else(pc.is_valid(like), plain, pa.scalar(None, kind)) if like.null_count else plain


def _intervals(texts: pa.Array) -> pa.Array:
    parts = pc.extract_regex(texts, pattern=_ISO)
    bad = pc.and_(pc.is_valid(texts), pc.is_null(parts))
    if pc.any(bad).as_py():
        value = texts.filter(bad)[0].as_py()
        raise DataError("not an interval of months, days and seconds", value=value[:100])
    months, days, sign, seconds, fraction = (parts.field(i) for i in range(5))
    try:
        words = [_number(months).cast(pa.int32()), _number(days).cast(pa.int32())]
        # Counted downwards: the smallest integer has no positive twin.
        whole = pc.multiply_checked(_number(seconds), -_NANOSECONDS)
        below = pc.subtract_checked(whole, _number(pc.utf8_rpad(fraction, 9, "0")))
        nanoseconds = pc.if_else(
            pc.equal(sign, "-"), below, pc.negate_checked(pc.if_else(pc.equal(sign, "-"), 0, below))
        )
    except pa.ArrowInvalid:
        raise DataError("an interval beyond 32 bits of months and days, 64 of nanoseconds") from None
    data = bytearray(16 * len(texts))
    view = memoryview(data)
    for start, part in enumerate(words):
        view.cast("i")[start::4] = memoryview(pc.fill_null(part, 0).buffers()[1]).cast("B")[: 4 * len(texts)].cast("i")
    view.cast("q")[1::2] = memoryview(pc.fill_null(nanoseconds, 0).buffers()[1]).cast("B")[: 8 * len(texts)].cast("q")
    valid = pc.is_valid(texts)
    return pa.Array.from_buffers(
        pa.month_day_nano_interval(), len(texts), [valid.buffers()[1], pa.py_buffer(bytes(data))]
    )


def _number(texts: pa.Array) -> pa.Array:
    """Integers of texts; '' is 0. Raises ArrowInvalid beyond int64."""
    return pc.if_else(pc.equal(texts, ""), "0", texts).cast(pa.int64())
