"""Writes folders of files: one file a chunk, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters.files import catalog
from rowferry.adapters.files.catalog import FILE_NAME_BYTES_MAX, OWN, SCHEMA_STEM, Folder, TableNote
from rowferry.adapters.files.ledger import FilesLedger, part_name
from rowferry.adapters.files.repair import rewrite_without
from rowferry.adapters.files.source import FilesSource, check_options
from rowferry.adapters.files.types import encode, plan_type, stored_type
from rowferry.adapters.files.wire import TABLE_KEY, PartWriter, failures, publish, sync_folder, write_json
from rowferry.adapters.protocol import Block, Ledger, TargetOptions, WriteRequest
from rowferry.adapters.queue import ChunkQueue
from rowferry.errors import ConfigError, DataError, LedgerError, OutcomeUnknownError, SourceError, TargetError
from rowferry.model import Attachment, ChunkRow, Column, ColumnPlan, Endpoint, Refusal, Table, TableName
from rowferry.types import Type, arrow_field, dump

#: The job's name of files that a repair writes.
_REPAIR = "repair"


class FilesTarget:
    """The protocol's Target on a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._queue = ChunkQueue(lambda job: self._files_ledger.chunks(job))
        self._files_ledger = FilesLedger(folder, self._queue.forget)
        self.ledger: Ledger = self._files_ledger

    @staticmethod
    def open(endpoint: Endpoint, options: TargetOptions) -> FilesTarget:
        check_options(endpoint)
        path = endpoint.path or ""
        if os.path.exists(path) and not os.path.isdir(path):
            raise ConfigError(f"{path!r} is not a folder: a target of files is one")
        if not options.read_only:
            with failures(TargetError, path, "create"):
                os.makedirs(path, exist_ok=True)
        return FilesTarget(Folder(path, endpoint.scheme, TargetError))

    def _there(self) -> bool:
        return os.path.isdir(self._folder.path)

    def describe(self, name: TableName) -> Table | None:
        return catalog.describe(self._folder, name) if self._there() else None

    def is_empty(self, name: TableName) -> bool:
        table = self.describe(name)
        return table is None or not table.rows

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        planned = plan_type(form, self._folder.format)
        if isinstance(planned, Refusal):
            return Refusal(column.name, planned.reason, planned.count, planned.policies)
        native = column.native or str(stored_type(planned, self._folder.format))
        return Column(column.name, planned, column.nullable, native, (planned,))

    def checks(self, column: Column) -> tuple[str, ...]:
        # Other readers of the files would take our integers for −∞ and +∞ as times.
        return ("finite_time",)

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        """Nothing hangs on a folder."""
        return []

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        return []

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """Nothing: files have no indexes."""

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        path = os.path.abspath(self._folder.path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        missing = [] if os.access(path, os.W_OK | os.X_OK) else [f"write the folder {path!r}"]
        for table in tables:
            place = self._folder.folder_of(table.name)
            if os.path.isdir(place) and not os.access(place, os.W_OK | os.X_OK):
                missing.append(f"write the folder {place!r}")
        for name in creating:
            if len(catalog.encode_name(name).encode()) > FILE_NAME_BYTES_MAX:
                missing.append(f"make a folder for the table {str(name)[:40]!r}…: percent-encoded its name is too long")
        return missing

    # Tables.

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        place = self._folder.folder_of(name)
        note = TableNote(table.primary_key, table.unique_keys, table.user_types, source_engine)
        fields = [
            _field(c, self._folder.format, f"{source_engine}:{c.native}" if c.native else None) for c in table.columns
        ]
        schema = pa.schema(fields, catalog.note_metadata(note))
        path = self._schema_path(name)
        with failures(TargetError, place, "create"):
            os.makedirs(place, exist_ok=True)
            part = PartWriter(path, self._folder.format, schema)
            try:
                part.finish()
                publish(path)
            except BaseException:
                part.abandon()
                raise
            sync_folder(self._folder.path)

    def _as_folder(self, name: TableName) -> None:
        """A table that is a single file becomes a folder that holds it: more files are to come."""
        old = self._folder.tables().get(name)
        if old is None or not os.path.isfile(old):
            return
        place = self._folder.folder_of(name)
        with failures(TargetError, place, "create"):
            os.makedirs(place, exist_ok=True)
            os.rename(old, os.path.join(place, os.path.basename(old)))
            sync_folder(place)
            sync_folder(self._folder.path)

    def _schema_path(self, name: TableName) -> str:
        return os.path.join(self._folder.folder_of(name), SCHEMA_STEM + self._folder.suffix)

    def add_keys(self, table: Table, name: TableName) -> None:
        """Nothing: files enforce no keys. The primary key stands in the files' metadata from the start."""

    def truncate(self, name: TableName) -> None:
        place = self._folder.folder_of(name)
        self._as_folder(name)
        files = self._folder.files(name)
        if not files:
            return
        if not os.path.exists(self._schema_path(name)):
            # A folder that others filled: what it looked like is kept before its rows go.
            self._keep_schema(name, files[0])
        with failures(TargetError, place, "empty"):
            for path in self._folder.files(name):
                if path != self._schema_path(name):
                    os.unlink(path)
            sync_folder(place)

    def _keep_schema(self, name: TableName, path: str) -> None:
        file = self._folder.open(path)
        try:
            schema = file.schema
        finally:
            file.close()
        target = self._schema_path(name)
        with failures(TargetError, target, "write"):
            part = PartWriter(target, self._folder.format, schema)
            part.finish()
            publish(target)

    def drop(self, name: TableName) -> None:
        """Renamed away first, so that a table is never seen half-removed."""
        self._as_folder(name)
        place = self._folder.folder_of(name)
        if not os.path.isdir(place):
            return
        grave = os.path.join(self._folder.path, OWN, f"dropped-{uuid.uuid4().hex}")
        with failures(TargetError, place, "remove"):
            os.makedirs(os.path.dirname(grave), exist_ok=True)
            os.rename(place, grave)
            sync_folder(self._folder.path)
            shutil.rmtree(grave)

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        """Two renames; run again after a crash between them, the second is all that is left to do."""
        new, place = self._folder.folder_of(loaded), self._folder.folder_of(name)
        if not os.path.isdir(new):
            return
        self.drop(name)
        with failures(TargetError, place, "rename"):
            os.rename(new, place)
            sync_folder(self._folder.path)

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        """Moves the staged files over, one rename each; the rows of those that an earlier try moved count too."""
        source, place = self._folder.folder_of(staged), self._folder.folder_of(table.name)
        if not os.path.isdir(source):
            return 0
        self._as_folder(table.name)
        listed = os.path.join(source, "merge.json")
        with failures(TargetError, source, "merge"):
            if not os.path.exists(listed):
                described = catalog.describe(self._folder, staged)
                names = [os.path.basename(p) for p in self._folder.files(staged) if p != self._schema_path(staged)]
                write_json(listed, {"rows": described.rows if described else 0, "files": names})
            with open(listed, encoding="utf-8") as file:
                plan = json.load(file)
            for name in plan["files"]:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(os.path.join(source, name), os.path.join(place, name))
            sync_folder(place)
        self.drop(staged)
        return int(plan["rows"])

    def set_sequences(self, table: Table) -> None:
        """Nothing: files have no sequences."""

    def disable_triggers(self, table: Table, disable: bool) -> None:
        """Nothing: files have no triggers."""

    def writer(self) -> FilesWriter:
        return FilesWriter(self._folder, self._files_ledger, self._queue, self._as_folder)

    def repair(
        self,
        table: Table,
        columns: tuple[ColumnPlan, ...],
        key: Sequence[str],
        delete: pa.RecordBatch | None,
        insert: Sequence[pa.RecordBatch],
    ) -> int:
        """Files that hold deleted rows are written anew beside the old ones, a part with the new rows is
        added, and all are renamed into place at the end."""
        finished: list[PartWriter] = []
        inserted = 0
        self._as_folder(table.name)
        place = self._folder.folder_of(table.name)
        try:
            with failures(TargetError, place, "repair"):
                if delete is not None and delete.num_rows:
                    if not key:
                        raise TargetError("rows without a key cannot be told apart", table=str(table.name))
                    finished += rewrite_without(self._folder, table, key, delete)
                if insert:
                    path = os.path.join(place, part_name(f"{_REPAIR}{uuid.uuid4().hex}", 0, 0, self._folder.suffix))
                    part = PartWriter(path, self._folder.format, read_schema(self._folder, table.name))
                    finished.append(part)
                    shape = Shape(part, self._folder.format, columns)
                    for batch in insert:
                        inserted += shape.add(batch)
                    part.finish()
                for part in finished:
                    publish(part.path)
        except BaseException:
            for part in finished:
                part.abandon()
            raise
        return inserted

    def as_source(self) -> FilesSource:
        return FilesSource(Folder(self._folder.path, self._folder.format, SourceError))

    def close(self) -> None:
        self._files_ledger.unlock_all()


def _field(column: Column, file_format: str, native: str | None) -> pa.Field:
    tagged = arrow_field(column.name, column.type, native, column.nullable)
    return tagged.with_type(stored_type(column.type, file_format))


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
    """The protocol's Writer: one file a chunk. The file's name appears at commit."""

    def __init__(
        self, folder: Folder, ledger: FilesLedger, queue: ChunkQueue, as_folder: Callable[[TableName], None]
    ) -> None:
        self._folder = folder
        self._as_folder = as_folder
        self._ledger = ledger
        self._queue = queue
        self._held: tuple[str, ChunkRow] | None = None
        self._part: PartWriter | None = None

    def claim(self, job: str) -> ChunkRow | None:
        chunk = self._queue.take(job)
        self._held = None if chunk is None else (job, chunk)
        return chunk

    def pending(self, job: str) -> int:
        return self._queue.pending(job)

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        if self._part is not None:
            raise TargetError("a chunk is open already", table=str(request.name), chunk=request.chunk)
        assert self._held is not None
        self._as_folder(request.name)
        job, chunk = self._held
        name = part_name(job, chunk.table, chunk.number, self._folder.suffix)
        path = os.path.join(self._folder.folder_of(request.name), name)
        part = self._part = PartWriter(path, self._folder.format, read_schema(self._folder, request.name))
        shape = Shape(part, self._folder.format, request.columns)
        for block in blocks:
            with _values(path):
                shape.add(block.batch)
        return part.rows

    def finish(self, job: str, chunk: ChunkRow) -> None:
        if self._part is None:
            raise LedgerError("no rows were written for this chunk", chunk=chunk.number)
        note: dict[str, Any] = {"job": job, "chunk": dump(chunk)}
        with _values(self._part.path):
            self._part.finish(msgspec.json.encode(note))

    def commit(self) -> None:
        assert self._part is not None and self._held is not None
        path = self._part.path
        try:
            publish(path)
        except OSError as failure:
            if os.path.exists(path):
                raise OutcomeUnknownError(f"{path!r} may not be on disk: {failure.strerror}", transient=True) from None
            raise TargetError(f"cannot rename {path!r}: {failure.strerror}") from None
        self._part = None
        self._queue.done(*self._held)
        self._held = None

    def rollback(self) -> None:
        if self._part is not None:
            self._part.abandon()
            self._part = None
        if self._held is not None:
            self._queue.give_back(*self._held)
            self._held = None

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        return self._ledger.is_done(job, chunk)

    def close(self) -> None:
        self.rollback()


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
