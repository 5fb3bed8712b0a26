"""Arrow as the text that PostgreSQL's COPY and MySQL's LOAD DATA both take: tabs, backslashes, ``\\N``, bytes as
``\\x…``."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def is_bytes(t: pa.DataType) -> bool:
    return pa.types.is_binary(t) or pa.types.is_large_binary(t)


def copy_text(batch: pa.RecordBatch) -> bytes:
    """n rows as n lines."""
    cells = []
    for column in batch.columns:
        if is_bytes(column.type):
            text = pa.array([None if v is None else f"\\\\x{v.hex()}" for v in column.to_pylist()], pa.utf8())
        elif pa.types.is_timestamp(column.type):
            text = pc.cast(pc.cast(column, pa.timestamp("us")), pa.utf8())
        else:
            text = pc.cast(column, pa.utf8())
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                for character, escaped in _ESCAPES:
                    text = pc.replace_substring(text, character, escaped)
        cells.append(pc.fill_null(text, "\\N"))
    rows = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, "\t"), "", "\n")
    return rows.buffers()[2].to_pybytes()[: pc.sum(pc.binary_length(rows)).as_py()]
