"""Batches that are put aside for a while: in memory while they are few, then in a temporary file."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from rowferry import limits


class Spool:
    """Batches of one schema, read back in their order, whole or by ranges of rows, as often as they are wanted.

    bytes_held_max: of Arrow data that stay in memory; with more, all go into a file, which is gone when the spool is
    closed (or the process ends). Use as a context manager, or close it.
    """

    def __init__(self, bytes_held_max: int = limits.SPOOL_BYTES) -> None:
        self._bytes_held_max = bytes_held_max
        self._held: list[pa.RecordBatch] = []
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None
        #: Row number of each batch's first row, and of the end.
        self._starts = [0]
        #: Of Arrow data that were added.
        self.bytes = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Raises OSError where the disk is full."""
        if not batch.num_rows:
            return
        self.bytes += batch.nbytes
        self._starts.append(self.rows + batch.num_rows)
        if self._writer is None and self.bytes <= self._bytes_held_max:
            self._held.append(batch)
            return
        if self._writer is None:
            self._file = tempfile.TemporaryFile(prefix="rowferry-spool-")  # noqa: SIM115 - closed by close()
            self._writer = pa.ipc.new_file(self._file, batch.schema)
            for held in self._held:
                self._writer.write_batch(held)
            self._held = []
        self._writer.write_batch(batch)

    @property
    def rows(self) -> int:
        return self._starts[-1]

    def batches(self, start: int = 0, end: int | None = None) -> Iterator[pa.RecordBatch]:
        """The rows from ``start`` up to ``end`` (None: to the last). Adding is over then."""
        end = self.rows if end is None else end
        if self._writer is not None and self._reader is None:
            assert self._file is not None
            self._writer.close()
            self._file.flush()
            self._reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        for number, (first, last) in enumerate(itertools.pairwise(self._starts)):
            if first < end and last > start:
                batch = self._held[number] if self._reader is None else self._reader.get_batch(number)
                low, high = max(start, first) - first, min(end, last) - first
                yield batch.slice(low, high - low)

    def close(self) -> None:
        self._held, self._reader, self._writer = [], None, None
        if self._file is not None:
            self._file.close()
