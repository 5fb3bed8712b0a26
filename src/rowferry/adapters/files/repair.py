"""Takes rows out of files: each file that holds one is written anew without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.files.catalog import Folder
from rowferry.adapters.files.types import decode
from rowferry.adapters.files.wire import PartWriter
from rowferry.errors import TargetError
from rowferry.model import Table
from rowferry.types import Type

#: Rows looked at together. Bounds memory beside the row group that a writer holds.
_BATCH_ROWS = 16_384


def key_tuples(columns: Sequence[pa.Array], types: Sequence[Type]) -> list[tuple[Any, ...]]:
    """The keys of n rows as n tuples that compare equal exactly where the values do.

    Times go by their integers: Python's own know neither the year 10000 nor nanoseconds.
    """
    lists = []
    for column, t in zip(columns, types, strict=True):
        if t.kind in ("float32", "float64"):  # by bits: NaN is equal to itself
            column = column.view(pa.int32() if t.kind == "float32" else pa.int64())
        elif t.kind == "date":
            column = column.view(pa.int32())
        elif t.kind in ("timestamp", "timestamptz", "time", "duration"):
            column = column.view(pa.int64())
        elif t.kind in ("list", "struct", "map"):
            raise TargetError(f"rows cannot be told apart by a key of {t}")
        lists.append(column.to_pylist())
    return list(zip(*lists, strict=True))


def rewrite_without(folder: Folder, table: Table, key: Sequence[str], delete: pa.RecordBatch) -> list[PartWriter]:
    """Writes ``.tmp`` twins of all files that hold a row with a key of ``delete``, without those rows.

    ``delete`` has the key's columns in their order, in the target's canonical types. Returns the
    finished twins, to be published.
    """
    types = [table.column(name).type for name in key]
    doomed = set(key_tuples(delete.columns, types))
    twins: list[PartWriter] = []
    try:
        for path in folder.files(table.name):
            if _holds(folder, path, key, types, doomed):
                twins.append(_twin(folder, path, key, types, doomed))
    except BaseException:
        for twin in twins:
            twin.abandon()
        raise
    return twins


def _keys(batch: pa.RecordBatch, key: Sequence[str], types: Sequence[Type]) -> list[tuple[Any, ...]]:
    return key_tuples([decode(batch.column(n), t) for n, t in zip(key, types, strict=True)], types)


def _holds(folder: Folder, path: str, key: Sequence[str], types: Sequence[Type], doomed: set[tuple[Any, ...]]) -> bool:
    file = folder.open(path)
    try:
        batches = file.batches(key, 0, file.group_count, _BATCH_ROWS)
        return any(not doomed.isdisjoint(_keys(batch, key, types)) for batch in batches)
    finally:
        file.close()


def _twin(
    folder: Folder, path: str, key: Sequence[str], types: Sequence[Type], doomed: set[tuple[Any, ...]]
) -> PartWriter:
    file = folder.open(path)
    try:
        twin = PartWriter(path, folder.format, file.schema)
        try:
            for batch in file.batches(file.schema.names, 0, file.group_count, _BATCH_ROWS):
                keep = pa.array([k not in doomed for k in _keys(batch, key, types)], pa.bool_())
                twin.add(pa.RecordBatch.from_arrays(batch.filter(keep).columns, schema=file.schema))
            twin.finish(file.chunk_metadata())
        except BaseException:
            twin.abandon()
            raise
        return twin
    finally:
        file.close()
