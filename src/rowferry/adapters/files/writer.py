"""The protocol's Writer of a folder: one file a chunk and table, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters.files import catalog
from rowferry.adapters.files.catalog import OWN, Folder
from rowferry.adapters.files.ledger import JOURNAL, FilesLedger, part_name, settle
from rowferry.adapters.files.repair import rewrite_without
from rowferry.adapters.files.types import encode, stored_type
from rowferry.adapters.files.wire import TABLE_KEY, TEMPORARY, PartWriter, failures, publish, sync_folder, write_json
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.adapters.queue import ChunkQueue
from rowferry.errors import DataError, LedgerError, OutcomeUnknownError, TargetError
from rowferry.failpoints import passing
from rowferry.model import QUARANTINE_NAME, ChunkRow, ColumnPlan, TableName
from rowferry.types import dump

#: What the files of rows that were sent again begin with.
RETRIED = "retried-"


def read_schema(folder: Folder, name: TableName) -> pa.Schema:
    """The schema that a new part of a table has: its first file's, in the types that we store."""
    files = folder.files(name)
    if not files:
        raise TargetError("the table is gone", table=str(name))
    file = folder.open(files[0])
    try:
        fields = []
        for field, column in zip(file.schema, catalog.describe_schema(folder, file.schema, files[0]), strict=True):
            stored = stored_type(column.type, folder.format)
            # A stranger's file keeps its own type (timestamps of Parquet excepted, whose seconds it lacks).
            fields.append(pa.field(field.name, stored, field.nullable, field.metadata))
        metadata = {k: v for k, v in file.metadata.items() if k == TABLE_KEY}
        return pa.schema(fields, metadata)
    finally:
        file.close()


class Shape:
    """Brings batches of planned columns into the columns and types of a part."""

    def __init__(self, part: PartWriter, file_format: str, columns: Sequence[ColumnPlan]) -> None:
        self._part = part
        self._format = file_format
        self._schema = part.schema
        self._types = [c.column.type for c in columns]
        place = {c.target: i for i, c in enumerate(columns)}
        self._places = [place.get(name) for name in self._schema.names]
        unknown = [c.target for c in columns if c.target not in self._schema.names]
        if unknown:
            raise TargetError(f"the table has no column {unknown[0]!r}")

    def add(self, batch: pa.RecordBatch) -> int:
        arrays = []
        for field, index in zip(self._schema, self._places, strict=True):
            if index is None:
                arrays.append(pa.nulls(batch.num_rows, field.type))
                continue
            column, t = batch.column(index), self._types[index]
            if not column.type.equals(t.arrow):
                raise TargetError(f"a batch carries {column.type} for {t}", column=field.name)
            if column.null_count and not field.nullable:
                raise DataError("NULL in a column that has none", column=field.name)
            arrays.append(encode(column, t, self._format))
        self._part.add(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        return int(batch.num_rows)


class FilesWriter:
    """The protocol's Writer: one file a chunk for each table. The files' names appear at commit, that of the chunk's
    own table last: its file is what says that the chunk is done."""

    def __init__(
        self, folder: Folder, ledger: FilesLedger, queue: ChunkQueue, as_folder: Callable[[TableName], None]
    ) -> None:
        self._folder = folder
        self._as_folder = as_folder
        self._ledger = ledger
        self._queue = queue
        self._held: tuple[str, ChunkRow] | None = None
        #: Path → the file that is being written, the chunk's own first.
        self._parts: dict[str, tuple[PartWriter, Shape]] = {}
        #: The file of the chunk's own table.
        self._own: str | None = None
        #: Of a transaction without a chunk: its name, what keeps out others, and files written anew without some rows.
        self._transaction: tuple[str, int] | None = None
        self._twins: list[PartWriter] = []

    def claim(self, job: str) -> ChunkRow | None:
        chunk = self._queue.take(job)
        self._held = None if chunk is None else (job, chunk)
        return chunk

    def pending(self, job: str) -> int:
        return self._queue.pending(job)

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        self._as_folder(request.name)
        part, shape = self._part(request)
        before = part.rows
        for block in blocks:
            with _values(part.path):
                shape.add(block.batch)
        return part.rows - before

    def _part(self, request: WriteRequest) -> tuple[PartWriter, Shape]:
        if self._held is not None:
            job, chunk = self._held
            name = part_name(job, request.table_index, chunk.number, self._folder.suffix)
        else:
            assert self._transaction is not None
            name = f"{RETRIED}{self._transaction[0]}{self._folder.suffix}"
        path = os.path.join(self._folder.folder_of(request.name), name)
        if path not in self._parts:
            part = PartWriter(path, self._folder.format, read_schema(self._folder, request.name))
            self._parts[path] = part, Shape(part, self._folder.format, request.columns)
            if self._held is not None and request.table_index == self._held[1].table and not _is_aside(request.name):
                self._own = path
        return self._parts[path]

    def mark(self) -> None:
        """Nothing: a file is undone whole."""

    def undo(self) -> None:
        for part, _ in self._parts.values():
            part.abandon()
        self._parts.clear()
        self._own = None

    def begin(self) -> None:
        lock = os.path.join(self._folder.path, OWN, "retry.lock")
        with failures(TargetError, lock, "open"):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._transaction = uuid.uuid4().hex, descriptor
        settle(self._folder)
        # Nobody else is in such a transaction: what stands half-written is a killed process's.
        for path in glob.glob(os.path.join(glob.escape(self._folder.path), "*", f"{RETRIED}*{TEMPORARY}")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def remove(self, name: TableName, column: str, values: Sequence[str]) -> int:
        """In the transaction of a chunk there is nothing to remove: its files take the place of older ones."""
        if self._held is not None:
            return 0
        table = catalog.describe(self._folder, name)
        if table is None or not values:
            return 0
        doomed = pa.RecordBatch.from_arrays([pa.array(list(values), pa.string())], names=[column])
        twins = rewrite_without(self._folder, table, (column,), doomed)
        self._twins += twins
        before = 0
        for twin in twins:
            file = self._folder.open(twin.path)
            try:
                before += sum(rows for rows, _ in file.groups())
            finally:
                file.close()
        return before - sum(twin.rows for twin in twins)

    def finish(self, job: str, chunk: ChunkRow) -> None:
        if self._own is None:
            raise LedgerError("no rows were written for this chunk", chunk=chunk.number)
        note: dict[str, Any] = {"job": job, "chunk": dump(chunk)}
        for path, (part, _) in self._parts.items():
            with _values(path):
                part.finish(msgspec.json.encode(note) if path == self._own else None)

    def commit(self) -> None:
        if self._held is None:
            self._commit_journal()
            return
        assert self._own is not None
        try:
            self._drop_stale(*self._held)
            for path in self._parts:
                if path != self._own:
                    publish(path)
                    passing("published beside")
            publish(self._own)
        except OSError as failure:
            if os.path.exists(self._own):
                raise OutcomeUnknownError(
                    f"{self._own!r} may not be on disk: {failure.strerror}", transient=True
                ) from None
            raise TargetError(f"cannot rename {self._own!r}: {failure.strerror}") from None
        self._parts.clear()
        self._own = None
        self._queue.done(*self._held)
        self._held = None

    def _drop_stale(self, job: str, chunk: ChunkRow) -> None:
        """What an earlier try of the chunk, killed before it was done, had set aside or given to further tables, and
        this one has not."""
        for table, name in ((chunk.table, TableName(None, QUARANTINE_NAME)), *self._ledger.fed_by(job, chunk.table)):
            place = self._folder.folder_of(name)
            path = os.path.join(place, part_name(job, table, chunk.number, self._folder.suffix))
            if path not in self._parts and os.path.exists(path):
                os.unlink(path)
                sync_folder(place)

    def _commit_journal(self) -> None:
        """All or nothing: the journal names every file that is to appear; once it stands, whoever comes next ends
        what is left of it."""
        assert self._transaction is not None
        parts = [part for part, _ in self._parts.values()]
        for part in parts:
            with _values(part.path):
                part.finish()
        files = [os.path.relpath(part.path, self._folder.path) for part in (*parts, *self._twins)]
        path = os.path.join(self._folder.path, OWN, f"{JOURNAL}{self._transaction[0]}.json")
        with failures(TargetError, path, "write"):
            write_json(path, {"publish": files})
        self._parts.clear()
        self._twins = []
        passing("journalled")
        with failures(TargetError, path, "carry out"):
            settle(self._folder)
        self._end_transaction()

    def _end_transaction(self) -> None:
        if self._transaction is not None:
            os.close(self._transaction[1])
            self._transaction = None

    def rollback(self) -> None:
        self.undo()
        for twin in self._twins:
            twin.abandon()
        self._twins = []
        self._end_transaction()
        if self._held is not None:
            self._queue.give_back(*self._held)
            self._held = None

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        return self._ledger.is_done(job, chunk)

    def close(self) -> None:
        self.rollback()


def _is_aside(name: TableName) -> bool:
    return name.name == QUARANTINE_NAME


@contextlib.contextmanager
def _values(path: str) -> Any:
    """A value that the format cannot hold is a DataError; what the system refuses is the target's."""
    try:
        with failures(TargetError, path, "write"):
            yield
    except TargetError as error:
        if isinstance(error.__context__, pa.ArrowInvalid):
            raise DataError(error.message) from None
        raise
