"""Reads folders of files: ours, with all they remember, and anyone else's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.files import catalog, chunks
from rowferry.adapters.files.catalog import Folder
from rowferry.adapters.files.types import decode, type_in_file
from rowferry.adapters.files.wire import SUFFIXES, failures
from rowferry.adapters.protocol import Block, ReadRequest
from rowferry.convert import conversion
from rowferry.errors import ConfigError, RowferryError, SourceError
from rowferry.model import Bound, Endpoint, Table, TableName, is_own
from rowferry.types import Type

#: (bytes, modification time in ns, inode): equal only for a file that is still the same.
Stamp = tuple[int, int, int]


def check_options(endpoint: Endpoint) -> None:
    for name, _ in endpoint.query:
        raise ConfigError(f"{endpoint.scheme} has no URL option {name!r}")


class FilesSource:
    """The protocol's Source on a folder, or on one file. Files are taken as they were when the
    snapshot was opened; one that has changed since is an error, never other rows."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._stamps: dict[str, Stamp] | None = None
        self._token: str | None = None

    @staticmethod
    def open(endpoint: Endpoint) -> FilesSource:
        check_options(endpoint)
        path = endpoint.path or ""
        if not os.path.exists(path):
            raise SourceError(f"{path!r} does not exist")
        if not os.path.isdir(path) and not path.endswith(SUFFIXES[endpoint.scheme]):
            raise ConfigError(f"{path!r} is neither a folder nor a {SUFFIXES[endpoint.scheme][0]} file")
        return FilesSource(Folder(path, endpoint.scheme, SourceError))

    def list_tables(self) -> list[TableName]:
        names = (n for n in self._folder.tables() if not is_own(n.name))
        return sorted(names, key=lambda n: (n.schema or "", n.name))

    def list_views(self) -> list[TableName]:
        return []

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        return catalog.describe(self._folder, name)

    def _look(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for place in self._folder.tables().values():
            with failures(SourceError, place, "list"):
                paths = [place] if os.path.isfile(place) else [os.path.join(place, n) for n in os.listdir(place)]
                for path in paths:
                    if self._folder.is_data(os.path.basename(path)):
                        found[path] = _stamp(path)
        return found

    def state_token(self) -> str | None:
        return _token(self._look())

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        self._stamps = self._look()
        self._token = _token(self._stamps)
        return "one"

    def snapshot_id(self) -> str | None:
        return self._token

    def snapshot_note(self) -> str | None:
        return None

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        _refuse_where(where)
        return chunks.split(self._folder, table, chunk_bytes, chunk_rows_min)

    def reader(self) -> FilesReader:
        return FilesReader(self._folder, self._stamps)

    def count_unfit(self, table: Table, column: str, check: str) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is held open between reads."""


def _is_own(path: str) -> bool:
    """Whether a file is of rowferry's own tables, which are no part of the state that is copied."""
    return os.path.basename(os.path.dirname(os.path.dirname(path))) == catalog.OWN


def _refuse_where(where: str | None) -> None:
    if where:
        raise ConfigError(
            "files have no SQL of their own, so --where cannot be used on them",
            value=where,
            hint="copy them into DuckDB first, or make a DuckDB view over them and copy that by name",
        )


def _stamp(path: str) -> Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _token(stamps: dict[str, Stamp]) -> str:
    text = repr(sorted((os.path.basename(os.path.dirname(p)), os.path.basename(p), s) for p, s in stamps.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class FilesReader:
    """The protocol's Reader: one file open at a time."""

    def __init__(self, folder: Folder, stamps: dict[str, Stamp] | None) -> None:
        self._folder = folder
        self._stamps = stamps

    def read(self, request: ReadRequest) -> Iterator[Block]:
        _refuse_where(request.where)
        for path, first, last in self._parts(request):
            self._check(path)
            yield from self._file(request, path, first, last)
            self._check(path)

    def _parts(self, request: ReadRequest) -> list[tuple[str, int, int | None]]:
        files = self._folder.files(request.table.name)
        if not files:
            raise SourceError("the table's files are gone", table=str(request.table.name))
        wanted = request.bound.data.get("parts")
        if wanted is None:
            known = [f for f in files if self._stamps is None or f in self._stamps or _is_own(f)]
            return [(path, 0, None) for path in known]
        place = os.path.dirname(files[0])
        return [(os.path.join(place, name), int(first), int(last)) for name, first, last in wanted]

    def _check(self, path: str) -> None:
        if self._stamps is None or _is_own(path):
            return
        with failures(SourceError, path, "read"):
            if _stamp(path) != self._stamps.get(path):
                raise SourceError(f"{path!r} has changed since the copy began", hint="run the same command again")

    def _file(self, request: ReadRequest, path: str, first: int, last: int | None) -> Iterator[Block]:
        names = [name for name, _ in request.columns]
        file = self._folder.open(path)
        try:
            end = file.group_count if last is None else last
            if end > file.group_count:
                raise SourceError(f"{path!r} has changed: it holds {file.group_count} groups, not {end}")
            gone = [n for n in names if n not in file.schema.names]
            if gone:
                raise SourceError(f"{path!r} has no column {gone[0]!r}", table=str(request.table.name))
            stored = [_stored(file.schema.field(n)) for n in names]
            for batch in file.batches(names, first, end, _batch_rows(request)):
                arrays = [
                    _form(batch.column(name), stored[i], request.columns[i][1], name) for i, name in enumerate(names)
                ]
                whole = pa.RecordBatch.from_arrays(arrays, names=names)
                for start, rows in _slices(whole, request.batch_bytes):
                    yield Block(whole.slice(start, rows))
        finally:
            file.close()

    def fingerprint(self, name: TableName) -> str:
        return catalog.fingerprint(self._folder, name)

    def close(self) -> None:
        """Nothing is held open between reads."""


def _stored(field: pa.Field) -> Type:
    t = type_in_file(field)
    if t is None:
        raise SourceError(f"the Arrow type {field.type} cannot be read", column=field.name)
    return t


def _form(array: pa.Array, stored: Type, form: Type, name: str) -> pa.Array:
    """The column as the file's own type, then in the form that was asked for."""
    try:
        if form.arrow.equals(stored.arrow):
            return decode(array, form if form.kind == stored.kind else stored)
        way = conversion(stored, form)
        if isinstance(way, str):
            raise SourceError(way)
        return way.apply(decode(array, stored))[0]
    except RowferryError as error:
        raise error.at(column=name) from None


def _batch_rows(request: ReadRequest) -> int:
    table = request.table
    row_bytes = max(table.bytes // table.rows, 1) if table.rows else 256
    return max(1, min(request.batch_bytes // row_bytes, limits.BATCH_ROWS_MAX))


def _slices(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, rows) of slices of about the bytes that were asked for, where rows turned out wide."""
    count = max(1, min(batch.num_rows, batch.nbytes // (2 * batch_bytes)))
    step = -(-batch.num_rows // count) if batch.num_rows else 1
    for start in range(0, batch.num_rows, step):
        yield start, step
