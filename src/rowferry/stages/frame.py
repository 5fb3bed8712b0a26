"""A batch on its way through a transform: its columns so far, and which of the batch's rows are still there."""

from __future__ import annotations

import re

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.errors import DataError
from rowferry.stages.flow import OutColumn, Passed, Refused

_ROW = re.compile(r"in row ([0-9]+) of its batch")


class Column(msgspec.Struct, frozen=True):
    """A column at one point of the transform, and the source columns that its values come from."""

    out: OutColumn
    deps: frozenset[str]

    @property
    def name(self) -> str:
        return self.out.name


class Frame:
    """n rows of the columns so far. An array is None where nothing reads the column and it never leaves."""

    def __init__(self, batch: pa.RecordBatch, arrays: list[pa.Array | None]) -> None:
        self.batch = batch
        self.arrays = arrays
        self.count = batch.num_rows
        self.passed = Passed([])
        self._masks: list[pa.Array] = []

    def keep(self, mask: pa.Array) -> None:
        """Leaves out the rows where the mask (no NULLs) is not true."""
        kept = pc.sum(mask).as_py() or 0
        if kept == self.count:
            return
        there = [i for i, array in enumerate(self.arrays) if array is not None]
        if there:
            whole = pa.RecordBatch.from_arrays([self.arrays[i] for i in there], names=[str(i) for i in there])
            for i, array in zip(there, pc.filter(whole, mask).columns, strict=True):
                self.arrays[i] = array
        self.count = kept
        self._masks.append(mask)

    def row(self, row: int) -> int:
        """The place that one of the rows still there has in the batch as it was read."""
        for mask in reversed(self._masks):
            row = pc.indices_nonzero(mask)[row].as_py()
        return row

    def refuse(self, refused: list[tuple[int, str, str]]) -> None:
        """Sets rows aside: (row, column, reason); of several reasons for one row the first counts."""
        if not refused:
            return
        gone: set[int] = set()
        for row, column, reason in sorted(refused, key=lambda r: r[0]):
            if row not in gone:
                gone.add(row)
                self.passed.refused.append(Refused(self.batch.slice(self.row(row), 1), column, reason))
        self.keep(pa.array([i not in gone for i in range(self.count)], pa.bool_()))

    def touch(self, column: str, count: int) -> None:
        if count:
            self.passed.touched[column] = self.passed.touched.get(column, 0) + count

    def placed(self, error: DataError) -> DataError:
        """The error with its row as the batch was read, before rows were left out."""
        if self._masks and error.value:
            error.value = _ROW.sub(lambda m: f"in row {self.row(int(m[1]))} of its batch", error.value)
        return error
