"""Writes folders of files: one file a chunk, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from rowferry.adapters.files import catalog
from rowferry.adapters.files.catalog import FILE_NAME_BYTES_MAX, OWN, SCHEMA_STEM, Folder, TableNote
from rowferry.adapters.files.ledger import FilesLedger, part_name
from rowferry.adapters.files.repair import rewrite_without
from rowferry.adapters.files.source import FilesSource, check_options
from rowferry.adapters.files.types import plan_type, stored_type
from rowferry.adapters.files.wire import PartWriter, failures, publish, sync_folder, write_json
from rowferry.adapters.files.writer import FilesWriter, Shape, read_schema
from rowferry.adapters.protocol import Ledger, TargetOptions
from rowferry.adapters.queue import ChunkQueue
from rowferry.errors import ConfigError, SourceError, TargetError
from rowferry.model import Attachment, Column, ColumnPlan, Endpoint, Refusal, Table, TableName
from rowferry.types import Type, arrow_field

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
