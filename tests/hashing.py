"""Small ways to the digest kernel, for its tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import reference
from rowferry._native.row_digest import Hasher


def program(spec: str | tuple[str, list[Any]]) -> tuple[str, int, tuple[Any, ...]]:
    """The kernel's column for a spec of docs/DIGEST.md."""
    name, inner = reference.parse_spec(spec) if isinstance(spec, str) else spec
    children = tuple(program(i) for i in inner)
    if name.startswith("number("):
        return ("number", int(name[7:-1]), ())
    if name == "float(unsigned zero)":
        return ("float unsigned zero", 0, ())
    if name == "map":
        return ("map", 0, (("struct", 0, children),))
    return (name, 0, children)


def sizes_of(batch: pa.RecordBatch) -> list[int]:
    """Bytes of each buffer, as the kernel wants them beside the C structs."""
    return [0 if b is None else b.size for column in batch.columns for b in column.buffers()]


def batch_of(columns: Sequence[pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns), names=[str(i) for i in range(len(columns))])


def kernel_rows(
    specs: Sequence[str], columns: Sequence[pa.Array], key: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """(key digests, row digests) as numbers."""
    batch = batch_of(columns)
    keys, rows, _ = Hasher([program(s) for s in specs], key).rows(batch, sizes_of(batch))
    numbers = [[int.from_bytes(d[i : i + 16], "big") for i in range(0, len(d), 16)] for d in (keys, rows)]
    return numbers[0], numbers[1]


def kernel_sum(specs: Sequence[str], columns: Sequence[pa.Array]) -> str:
    """``rows:sum`` as model.Digest writes it."""
    batch = batch_of(columns)
    hasher = Hasher([program(s) for s in specs])
    hasher.add(batch, sizes_of(batch))
    rows, total = hasher.result()
    return f"{rows}:{total:032x}"
