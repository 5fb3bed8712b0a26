"""Reads a SQLite file: readers that share one state, and rows in Arrow batches."""

from __future__ import annotations

import contextlib
import fnmatch
import threading
import time
from collections.abc import Iterator, Sequence

import pyarrow as pa

from rowferry import compute as pc
from rowferry import limits
from rowferry.adapters.protocol import Asker, Block, LooseKey, ReadRequest, SourceOptions
from rowferry.adapters.sqlite import catalog, chunks, nested
from rowferry.adapters.sqlite.types import NESTED, TEXT, read_spec
from rowferry.adapters.sqlite.wire import File, Session, SqliteFailure, UnfitValue, error_of, quote
from rowferry.errors import ConfigError, DataError, RowferryError, SourceError
from rowferry.model import Bound, Endpoint, Table, TableName
from rowferry.types import Type

#: How often readers are opened anew until no other process wrote in between (where no lock can be taken).
_SNAPSHOT_TRIES = 20
#: How often the write lock is asked for while another connection holds it.
_LOCK_POLL_S = 0.002


class SqliteSource:
    """The protocol's Source. ``policies``: patterns on ``table.column``, as the user gave them."""

    def __init__(self, file: File, policies: dict[str, str], *, shared: bool = False) -> None:
        self._file = file
        self._policies = dict(policies)
        #: The same process writes this file: its lock is not taken again.
        self._shared = shared
        self._control = file.session()
        self._control.execute("PRAGMA trusted_schema = OFF")
        self._control.execute("PRAGMA query_only = ON")
        self._utf8 = catalog.is_utf8(self._control)
        self._guard = threading.Lock()
        self._free: list[Session] = []
        self._all: list[Session] = []
        self._snapshot: str | None = None
        self._guarantee: str | None = None

    @staticmethod
    def open(endpoint: Endpoint, options: SourceOptions) -> SqliteSource:
        file = File(endpoint, SourceError, read_only=True)
        return SqliteSource(file, options.policies)

    def list_tables(self) -> list[TableName]:
        return catalog.list_tables(self._control)

    def list_views(self) -> list[TableName]:
        return catalog.list_views(self._control)

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        try:
            return catalog.describe(self._control, name, census=census)
        except RowferryError as error:
            raise error.at(table=str(name)) from None

    def state_token(self) -> str | None:
        # Bytes 24–27 of the header count every change in rollback mode; in WAL mode the log's own stat changes.
        header = self._control.database.header()
        return f"{self._file.stat_token()}/{header[24:28].hex()}"

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        """All readers begin while one connection holds SQLite's write lock, so that no commit falls between them.

        Where the file cannot be locked (read-only) they begin one after the other, again until the file is the
        same before and after. What is read of our own target is read under a transaction for each reader only
        while it reads: without a log an open one would keep our own writer from committing.
        """
        if self._shared:
            return self._fixed("per table")
        self._close_readers()
        if self._file.writable:
            with contextlib.closing(File.session(self._lockable())) as lock:
                self._take_lock(lock)
                self._open_readers(readers)
                lock.execute("ROLLBACK")
            return self._fixed("one")
        for _ in range(_SNAPSHOT_TRIES):
            before = self.state_token()
            self._open_readers(readers)
            if self.state_token() == before:
                return self._fixed("one")
            self._close_readers()
        self._open_readers(readers)
        return self._fixed("none")

    def _take_lock(self, lock: Session) -> None:
        """Polls by itself: SQLite's own busy handler sleeps up to 100 ms, and a busy writer leaves shorter gaps."""
        lock.execute("PRAGMA busy_timeout = 0")
        deadline = time.monotonic() + self._file.busy_ms / 1000
        while True:
            try:
                lock.execute("BEGIN IMMEDIATE")
                return
            except RowferryError as error:
                if not error.transient or time.monotonic() > deadline:
                    raise
            time.sleep(_LOCK_POLL_S)

    def _lockable(self) -> File:
        """The same file, opened for writing only to hold its lock for a moment."""
        return File(
            Endpoint("sqlite", "sqlite", path=self._file.path, query=(("timeout", str(self._file.busy_ms / 1000)),)),
            SourceError,
            read_only=False,
        )

    def _fixed(self, guarantee: str) -> str:
        self._guarantee = guarantee
        self._snapshot = self.state_token()
        return guarantee

    def _open_readers(self, count: int) -> None:
        # The control connection sees the same. It has to begin now: in rollback mode a writer that waits for
        # our readers to end lets no new one begin.
        self._begin(self._control)
        for _ in range(count):
            session = self._begun()
            self._free.append(session)
            self._all.append(session)

    def _begun(self) -> Session:
        """A connection whose read transaction has begun."""
        session = self._file.session()
        try:
            session.execute("PRAGMA trusted_schema = OFF")
            session.execute("PRAGMA query_only = ON")
            self._begin(session)
        except RowferryError:
            session.close()
            raise
        return session

    def _begin(self, session: Session) -> None:
        """Begins a read transaction: the first read fixes what it sees."""
        session.execute("BEGIN")
        session.execute("SELECT count(*) FROM sqlite_master")

    def _close_readers(self) -> None:
        self._control.rollback()
        while self._all:
            self._all.pop().close()
        self._free.clear()

    def snapshot_id(self) -> str | None:
        return self._snapshot

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        shape = catalog.shape_of(self._control, table.name)
        if shape is None:
            raise SourceError("the table is gone", table=str(table.name))
        return chunks.split(self._control, shape, table, chunk_bytes, chunk_rows_min)

    def reader(self) -> SqliteReader:
        """One of the snapshot's connections; a closed reader gives its own back, still in its transaction."""
        with self._guard:
            if self._free:
                return SqliteReader(self, self._free.pop())
        session = self._begun()
        # One more than were opened: it may only join if nothing was committed since.
        if self._guarantee == "one" and self.state_token() != self._snapshot:
            session.close()
            raise SourceError("the file has changed since its readers began", hint="start again", transient=False)
        with self._guard:
            self._all.append(session)
        return SqliteReader(self, session)

    def give_back(self, session: Session) -> None:
        if self._shared:
            with self._guard:
                if session in self._all:
                    self._all.remove(session)
            session.close()
            return
        with self._guard:
            if session in self._all:
                self._free.append(session)

    def snapshot_note(self) -> str | None:
        notes = []
        if self._guarantee == "none":
            notes.append("other processes kept writing while readers began, and the file cannot be locked")
        elif self._guarantee == "one" and not self._file.writable and not self._file.immutable:
            notes.append("the file cannot be locked; it did not change while the readers began")
        return "; ".join(notes) or None

    def policy(self, table: str, column: str) -> str | None:
        """The user's policy for a column: the last pattern that fits."""
        found = None
        for pattern, policy in self._policies.items():
            if pattern in (f"{table}.{column}", column) or fnmatch.fnmatchcase(f"{table}.{column}", pattern):
                found = policy
        return found

    @property
    def utf8(self) -> bool:
        return self._utf8

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.sqlite import colliding

        return [key for table in tables for key in colliding.loose_keys(self._control, table)]

    def asker(self) -> Asker:
        from rowferry.adapters.sqlite.asking import SqliteAsker

        return SqliteAsker(self._file)

    def close(self) -> None:
        with self._guard:
            self._close_readers()
        self._control.close()


class SqliteReader:
    """The protocol's Reader: one connection in the snapshot."""

    def __init__(self, source: SqliteSource, session: Session) -> None:
        self._source = source
        self._session = session
        self._error = session.error
        self._open = True

    def read(self, request: ReadRequest) -> Iterator[Block]:
        table = str(request.table.name)
        shape = catalog.shape_of(self._session, request.table.name)
        if shape is None:
            raise self._error("the table is gone", table=table)
        sql, params = self._select(request, shape)
        specs = [self._spec(request, name, form) for name, form in request.columns]
        specs += [read_spec(TEXT, loose=True) for _ in request.unread]
        schema = pa.schema(
            [pa.field(name, form.arrow) for name, form in request.columns]
            + [pa.field(f"unread {name}", TEXT.arrow) for name in request.unread]
        )
        try:
            try:
                rows = self._session.reader(sql, params, specs, self._source.utf8)
            except SqliteFailure as failure:
                raise self._where_error(request, failure) from None
            try:
                said: list[int] = [0] * len(specs)
                while (batch := rows.next_batch(limits.BATCH_ROWS_MAX, request.batch_bytes)) is not None:
                    settled = list(rows.settled())
                    news = zip(request.columns, settled, said, strict=False)
                    touched = {
                        name: count - before
                        for (name, _), count, before in news
                        if count > before and name not in request.unread
                    }
                    yield Block(self._batch(request, schema, *batch), touched=touched or None)
                    said = settled
                    del batch
            finally:
                rows.close()
        except UnfitValue as unfit:
            name, form = request.columns[unfit.column]
            place = "" if unfit.rowid is None else f" in the row of rowid {unfit.rowid}"
            raise DataError(
                f"{unfit.stored} {unfit.shown}{place} is no {form}",
                table=table,
                column=name,
                hint="give the column the policy text or null",
            ) from None
        except SqliteFailure as failure:
            raise error_of(failure, self._error, f" cannot read table {table!r}").at(table=table) from None
        except MemoryError:
            raise self._error("there is no memory for a batch", table=table) from None
        except RowferryError as error:
            raise error.at(table=table) from None

    def _select(self, request: ReadRequest, shape: catalog.Shape) -> tuple[str, list[object]]:
        known = {c[0] for c in shape.columns}
        gone = next((name for name, _ in request.columns if name not in known), None)
        if gone is not None:
            raise self._error("the column is gone", table=str(request.table.name), column=gone)
        columns = [f"t.{quote(name)}" for name, _ in request.columns]
        columns += [f"t.{quote(name)}" for name in request.unread]
        if shape.rowid is not None:
            columns.append(f"t.{shape.rowid}")  # for messages
        test, params = chunks.bound_condition(shape, request.bound)
        if request.where is not None:
            # The newline ends a comment in it.
            test = f"{test} AND ({request.where}\n)"
        return f"SELECT {', '.join(columns)} FROM main.{quote(shape.name)} AS t WHERE {test}", params

    def _spec(self, request: ReadRequest, name: str, form: Type) -> tuple[int, int, int, int, int, int, bool]:
        policy = self._source.policy(str(request.table.name), name)
        declared = next((c.type for c in request.table.columns if c.name == name), form)
        loose = form == TEXT and (declared != TEXT or policy == "text")
        return read_spec(form, loose=loose, null_unfit=policy in ("null", "quarantine"))

    def _where_error(self, request: ReadRequest, failure: SqliteFailure) -> RowferryError:
        if request.where is not None and failure.code & 0xFF == 1:
            return ConfigError(f"--where is not SQLite's SQL: {failure.message}", table=str(request.table.name))
        return error_of(failure, self._error)

    def _batch(
        self, request: ReadRequest, schema: pa.Schema, rows: int, parts: list[tuple[int, object, object, object]]
    ) -> pa.RecordBatch:
        arrays = []
        for (name, form), part in zip(request.columns, parts, strict=False):
            array = nested.array_of(form, rows, part)
            if form.kind in NESTED:
                try:
                    array = nested.from_json(array, form)
                except RowferryError as error:
                    raise error.at(column=name) from None
            arrays.append(array)
        places = {name: i for i, (name, _) in enumerate(request.columns)}
        for name, part in zip(request.unread, parts[len(arrays) :], strict=True):
            stored = nested.array_of(TEXT, rows, part)
            fits = arrays[places[name]].is_valid()
            arrays.append(pc.if_else(fits, pa.scalar(None, TEXT.arrow), stored))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def fingerprint(self, name: TableName) -> str:
        return catalog.fingerprint(self._session, name)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._source.give_back(self._session)
