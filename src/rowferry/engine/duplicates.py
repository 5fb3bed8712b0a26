"""The rows that a dedup left out, written down: --keep-duplicates FILE.

While the job runs they go to FILE.rows, a journal of Arrow's that can be read up to where it ends, however that came:
those of each try of a chunk just before it is committed, so that none is lost. At the end of the job those of
the tries that were committed become FILE, as Parquet. A resume takes up the journal; of chunks that are not done it
forgets what it had, and of a chunk that is done the last try is the one that was committed.
"""

from __future__ import annotations

import json
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from rowferry.convert.value_json import to_json
from rowferry.engine.spool import Spool
from rowferry.errors import ConfigError, TargetError
from rowferry.model import ChunkRow, TablePlan

#: What the file holds of each row; ``row`` is the JSON of its columns, as they would have been sent.
SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("chunk", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
    ]
)
_TRY = pa.field("try", pa.int64(), nullable=False)
_JOURNAL = SCHEMA.append(_TRY)
_JOB = b"rowferry:job"

#: Name of a table, number of a chunk.
Chunk = tuple[str, int]


def problem(path: str) -> str | None:
    """What is in the way of a new job's file, in plain words."""
    if os.path.exists(path):
        return f"--keep-duplicates {path}: the file is there already; choose another"
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        return f"--keep-duplicates {path}: there is no such folder"
    return None


class Duplicates:
    """A job's journal. ``of`` for each chunk; ``publish`` at the end. Thread-safe."""

    def __init__(self, path: str, job: str, tables: Sequence[TablePlan], chunks: Sequence[ChunkRow]) -> None:
        """chunks: as they stand in the ledger. Raises ConfigError where the journal is another job's."""
        self.path = pathlib.Path(path)
        self._journal = pathlib.Path(f"{path}.rows")
        self._job = job
        self._lock = threading.Lock()
        self._names = {t.index: str(t.source.name) for t in tables if t.dedup is not None}
        done = {(self._names[c.table], c.number) for c in chunks if c.state == "done" and c.table in self._names}
        dropped = sum(c.counts.get("deduplicated", 0) for c in chunks if c.state == "done" and c.table in self._names)
        self._tries = 0
        #: The try whose rows count, of chunks that are done.
        self._valid: dict[Chunk, int] = {}
        try:
            self.lost = dropped - self._take_up(done)
        except OSError as error:
            raise self._failed(error) from error

    def _take_up(self, done: set[Chunk]) -> int:
        """Opens the journal anew, with the rows of chunks that are done; returns how many these are."""
        last = self._last()
        fresh = pathlib.Path(f"{self._journal}.new")
        rows = 0
        self._file = open(fresh, "wb")  # noqa: SIM115 - closed by close()
        self._writer = pa.ipc.new_stream(self._file, _JOURNAL.with_metadata({_JOB: self._job.encode()}))
        for batch in self._read():
            chunk, number = _place(batch)
            if chunk in done and last[chunk] == number:
                self._writer.write_batch(batch)
                self._valid[chunk] = number
                rows += batch.num_rows
        self._file.flush()
        os.replace(fresh, self._journal)
        self._tries = max(last.values(), default=0)
        return rows

    def _last(self) -> dict[Chunk, int]:
        """The last try of each chunk that the journal has."""
        return dict(_place(batch) for batch in self._read())

    def _read(self) -> Iterator[pa.RecordBatch]:
        """The journal's batches, up to where it was cut."""
        if not self._journal.exists():
            return
        with open(self._journal, "rb") as file:
            try:
                reader = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:  # it was cut before the first row
                return
            job = (reader.schema.metadata or {}).get(_JOB, b"").decode()
            if job != self._job:
                raise ConfigError(
                    f"{self._journal} holds the duplicates of another job, {job!r}", hint="move it, or choose another"
                )
            while True:
                try:
                    batch = reader.read_next_batch()
                except (StopIteration, pa.ArrowInvalid, OSError):
                    return
                if batch.num_rows:
                    yield batch

    def of(self, plan: TablePlan, chunk: int) -> ChunkDuplicates:
        with self._lock:
            self._tries += 1
            return ChunkDuplicates(self, plan, chunk, self._tries)

    def committed(self, chunk: Chunk, number: int) -> None:
        with self._lock:
            self._valid[chunk] = number

    def write(self, batches: Iterator[pa.RecordBatch]) -> None:
        try:
            with self._lock:
                for batch in batches:
                    self._writer.write_batch(batch)
                self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def publish(self) -> str | None:
        """Makes the file of the journal; a sentence for the report where rows are not in it."""
        import pyarrow.parquet as pq

        self.close()
        fresh = pathlib.Path(f"{self.path}.new")
        try:
            # All chunks are done: one whose COMMIT was never answered was committed by its last try.
            valid = self._last() | self._valid
            with pq.ParquetWriter(fresh, SCHEMA, compression="zstd") as out:
                for batch in self._read():
                    chunk, number = _place(batch)
                    if valid[chunk] == number:
                        out.write_batch(batch.drop_columns([_TRY.name]).cast(SCHEMA))
            os.replace(fresh, self.path)
            self._journal.unlink()
        except OSError as error:
            raise self._failed(error) from error
        if self.lost <= 0:
            return None
        return (
            f"{self.lost:,} rows that were left out are not in {self.path}: the journal of an earlier run is gone, or "
            "was cut by a crash of the machine"
        )

    def close(self) -> None:
        """The journal stays."""
        with self._lock:
            if not self._file.closed:
                self._writer.close()
                self._file.close()

    def _failed(self, error: OSError) -> TargetError:
        return TargetError(
            f"the rows that the dedup left out could not be written to {self.path}: {error.strerror or error}",
            hint="make room there; the job can be resumed",
        )


def _place(batch: pa.RecordBatch) -> tuple[Chunk, int]:
    """Which chunk the rows of a batch are of, and which try of it: each batch is of one."""
    return (batch["table"][0].as_py(), batch["chunk"][0].as_py()), batch["try"][0].as_py()


class ChunkDuplicates:
    """The rows that one try of a chunk leaves out: kept aside until it is committed."""

    def __init__(self, file: Duplicates, plan: TablePlan, chunk: int, number: int) -> None:
        self._file = file
        self._plan = plan
        self._chunk = chunk
        self._number = number
        self._spool = Spool()
        dedup: dict[str, Any] = plan.dedup or {}
        by = f"key ({', '.join(dedup['by'])})" if dedup.get("by") else "whole row"
        keep = dedup.get("keep", "any")
        what = "another row is kept" if keep == "any" else f"another row is the {keep}, or the same"
        self._reason = f"of the same {by} {what}"

    def add(self, batch: pa.RecordBatch) -> None:
        """n rows in the target's types."""
        columns = self._plan.columns
        texts = [
            json.dumps({c.target: to_json(batch.column(i), row, c.column.type) for i, c in enumerate(columns)})
            for row in range(batch.num_rows)
        ]
        count = len(texts)
        arrays = [
            pa.repeat(str(self._plan.source.name), count),
            pa.repeat(pa.scalar(self._chunk, pa.int64()), count),
            pa.repeat(self._reason, count),
            pa.array(texts, pa.string()),
            pa.repeat(pa.scalar(self._number, pa.int64()), count),
        ]
        self._spool.add(pa.RecordBatch.from_arrays(arrays, schema=_JOURNAL))

    def prepare(self) -> None:
        self._file.write(self._spool.batches())

    def commit(self) -> None:
        self._file.committed((str(self._plan.source.name), self._chunk), self._number)
        self._spool.close()

    def rollback(self) -> None:
        self._spool.close()
