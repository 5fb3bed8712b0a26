"""What the decoder took, as Arrow: buffers become a RecordBatch without being copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

#: One column that ``rowferry._native.pg_copy.Decoder.take`` gave:
#: (length, nulls, [validity or None, further buffers in Arrow's order], child or None).
Taken = tuple[int, int, list[Any], Any]


def bare(rows: int) -> pa.RecordBatch:
    """A batch of so many rows without columns."""
    return pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), rows, [None]))


def assemble(schema: pa.Schema, taken: tuple[int, Sequence[Taken]]) -> pa.RecordBatch:
    """The RecordBatch of n rows × k columns that ``Decoder.take`` gave as buffers.

    schema: k fields whose Arrow types are those of the decoder's codecs (``types.Type.arrow``);
        a type of another width or layout is a ValueError, not a misread buffer.
    The batch keeps the kernel's buffers alive; nothing is copied.
    """
    rows, columns = taken
    if len(columns) != len(schema):
        raise ValueError(f"{len(columns)} columns were decoded, the schema has {len(schema)}")
    if not columns:
        return bare(rows)
    arrays = [build_array(field.type, column) for field, column in zip(schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def build_array(arrow_type: pa.DataType, column: Taken) -> pa.Array:
    """One column's (or one list's items') buffers as an Array."""
    length, nulls, buffers, child = column
    children = None
    if child is not None:
        if not pa.types.is_list(arrow_type):
            raise ValueError(f"a list was decoded where {arrow_type} is expected")
        children = [build_array(arrow_type.value_type, child)]
    elif len(buffers) == 2:
        size = length * arrow_type.bit_width
        if len(buffers[1]) * 8 < size or len(buffers[1]) * 8 >= size + 8:
            raise ValueError(f"{len(buffers[1])} bytes were decoded for {length} values of {arrow_type}")
    elif not (pa.types.is_string(arrow_type) or pa.types.is_binary(arrow_type)):
        raise ValueError(f"text or bytes were decoded where {arrow_type} is expected")
    views = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(arrow_type, length, views, nulls, children=children)
