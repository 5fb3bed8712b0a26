"""From any Arrow layout of a value to the plain one: encodings and offsets change, values never."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from rowferry import compute as pc
from rowferry.types import Type


def plain_layout(array: pa.Array, form: Type) -> pa.Array:
    """An array whose Arrow type has the canonical type ``form`` (types.from_arrow) as ``form.arrow``.

    n rows in, n rows out; the same array where it fits already. Raises ArrowInvalid (a value that
    the layout cannot hold, offsets beyond 2 GiB).
    """
    to = form.arrow
    if array.type.equals(to):
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return plain_layout(array.storage, form)
    t = array.type
    if pa.types.is_dictionary(t):
        return plain_layout(array.dictionary.take(array.indices), form)
    if pa.types.is_run_end_encoded(t):
        return plain_layout(pc.run_end_decode(array), form)
    if pa.types.is_null(t):
        return pa.nulls(len(array), to)
    if form.kind == "list":
        return _plain_list(array, form)
    if form.kind == "struct":
        return _plain_struct(array, form)
    if form.kind == "map":
        return _plain_map(array, form)
    # Safe casts: text and binary of other offsets, date64 (whole days only), time32, decimals of
    # other widths, float16, timestamps under another zone's name (the same instants).
    return pc.cast(array, to)


def _bitmap_mask(array: pa.Array) -> pa.Array | None:
    return pc.is_null(array) if array.null_count else None


def _plain_list(array: pa.Array, form: Type) -> pa.Array:
    assert form.element is not None
    t = array.type
    if not (pa.types.is_list(t) or pa.types.is_large_list(t)):
        array = _offset_list(array)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = array.offsets
    if first:
        offsets = pc.subtract(offsets, pa.scalar(first, offsets.type))
    values = plain_layout(array.values.slice(first, last - first), form.element)
    return pa.ListArray.from_arrays(offsets.cast(pa.int32()), values, type=form.arrow, mask=_bitmap_mask(array))


def _offset_list(array: pa.Array) -> pa.Array:
    """Fixed-size lists and list views as a large_list: their elements in order, counted by offsets."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    # list_flatten leaves out what lies under NULLs, so the lengths above count exactly its elements.
    values = pc.list_flatten(array)
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    return pa.LargeListArray.from_arrays(offsets, values, mask=_bitmap_mask(array))


def _plain_struct(array: pa.Array, form: Type) -> pa.Array:
    children = [plain_layout(array.field(i), field.type) for i, field in enumerate(form.fields)]
    if not children:
        return array
    mask = _bitmap_mask(array)
    return pa.StructArray.from_arrays(children, fields=list(form.arrow), mask=mask if mask is not None else None)


def _plain_map(array: pa.Array, form: Type) -> pa.Array:
    key, value = form.fields
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = pc.subtract(array.offsets, pa.scalar(first, pa.int32()))
    keys = plain_layout(array.keys.slice(first, last - first), key.type)
    items = plain_layout(array.items.slice(first, last - first), value.type)
    plain = pa.MapArray.from_arrays(offsets, keys, items, type=form.arrow)
    if not array.null_count:
        return plain
    return pc.if_else(pc.is_valid(array), plain, pa.scalar(None, form.arrow))


def rebuilt(array: pa.Array, t: Type, change: Callable[[pa.Array, Type], pa.Array]) -> pa.Array:
    """A list, struct or map of type ``t`` with its inner arrays changed; offsets and NULLs stay. n rows in, n out."""
    mask = _bitmap_mask(array)
    if t.kind == "struct":
        # field() leaves the parent's NULLs out, and keeps to its slice.
        parts = [change(array.field(i), f.type) for i, f in enumerate(t.fields)]
        fields = [pa.field(f.name, p.type) for f, p in zip(t.fields, parts, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=mask)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = pc.subtract(array.offsets, pa.scalar(first, pa.int32())) if first else array.offsets
    if t.kind == "list":
        assert t.element is not None
        values = change(array.values.slice(first, last - first), t.element)
        return pa.ListArray.from_arrays(offsets, values, mask=mask)
    keys = change(array.keys.slice(first, last - first), t.fields[0].type)
    items = change(array.items.slice(first, last - first), t.fields[1].type)
    if mask is not None:  # from_arrays of maps takes no mask: a NULL offset says it
        nothing = pa.concat_arrays([mask, pa.array([False])])
        offsets = pc.if_else(nothing, pa.scalar(None, pa.int32()), offsets)
    return pa.MapArray.from_arrays(offsets, keys, items)
