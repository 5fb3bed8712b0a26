"""Writes a SQLite file: batches through the write kernel, the chunk's ledger row in the same transaction.

One process writes, on one connection: SQLite has one writer at a time anyway, and a connection that
stays warm keeps its page cache. Workers take turns by chunk; whoever waits for its turn goes on
reading and converting until its queue is full.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import limits
from rowferry.adapters import sql_ledger
from rowferry.adapters.protocol import Asker, Block, KeyTrial, Ledger, LooseKey, TargetOptions, WriteRequest
from rowferry.adapters.queue import ChunkQueue
from rowferry.adapters.sqlite import attached, catalog
from rowferry.adapters.sqlite.loading import Load, insert_into, names_of, place_of
from rowferry.adapters.sqlite.source import SqliteSource
from rowferry.adapters.sqlite.types import kept_declaration, literal_fits, plan_type
from rowferry.adapters.sqlite.wire import File, ProcessLock, Session, quote
from rowferry.errors import DataError, RowferryError, TargetError
from rowferry.model import Attachment, ChunkRow, Column, ColumnPlan, Endpoint, Refusal, Table, TableName
from rowferry.types import FLOATS, Type

_LEDGER = sql_ledger.LedgerNames(
    jobs="rowferry_jobs", steps="rowferry_steps", chunks="rowferry_chunks", text="TEXT", key_text="TEXT"
)
_STAGED = "rowferry_staged"
#: Page cache of the writing connection (KiB, negative as SQLite wants it): the inner pages of a key's index stay.
_CACHE = -32 * 1024


class WriteSession:
    """The one writing connection, lent to one thread for a transaction or for a statement."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._owner: int | None = None

    @property
    def mine(self) -> bool:
        """This thread is in its transaction."""
        return self._owner == threading.get_ident()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._turn(lambda: self._session.execute(sql, params))
        return rows

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        rows: int = self._turn(lambda: self._session.run(sql, params))
        return rows

    def call(self, function: Callable[[Session], Any]) -> Any:
        """Runs a function on the connection, inside of this thread's transaction or alone."""
        return self._turn(lambda: function(self._session))

    def atomic(self, function: Callable[[Session], Any]) -> Any:
        """The same, in a transaction."""

        def run() -> Any:
            with self._session.atomic():
                return function(self._session)

        return self._turn(run)

    def _turn(self, function: Callable[[], Any]) -> Any:
        if self.mine:
            return function()
        with self._lock:
            return function()

    def begin(self) -> None:
        self._lock.acquire()
        self._begun()

    def try_begin(self) -> bool:
        """Begins a transaction if no other thread is in one."""
        if not self._lock.acquire(blocking=False):
            return False
        self._begun()
        return True

    def try_alone(self, function: Callable[[], None]) -> bool:
        """Runs a function while no thread is in a transaction; False where one is."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            function()
        finally:
            self._lock.release()
        return True

    def _begun(self) -> None:
        try:
            self._session.begin()
        except BaseException:
            self._lock.release()
            raise
        self._owner = threading.get_ident()

    def commit(self) -> None:
        """After a failure the transaction is still this thread's, to be rolled back."""
        self._session.commit()
        self._give_back()

    def rollback(self) -> None:
        """Rolls back what this thread began, if anything."""
        if not self.mine:
            return
        try:
            self._session.rollback()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self._owner = None
        self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._session.close()


class SqliteTarget:
    """The protocol's Target on one file."""

    def __init__(self, file: File) -> None:
        self._file = file
        session = file.session()
        session.execute(f"PRAGMA cache_size = {_CACHE}")
        # Constraints of existing tables are checked row by row; the order of tables is the plan's business.
        session.execute("PRAGMA foreign_keys = OFF")
        if file.read_only:
            session.execute("PRAGMA query_only = ON")
        self._session = WriteSession(session)
        self._lock = ProcessLock(file.path)
        self._queue = ChunkQueue(self._load_chunks)
        self.ledger: Ledger = sql_ledger.SqlLedger(
            self._session, _LEDGER, self._lock, exists=self._has_ledger, on_change=self._queue.forget
        )

    @staticmethod
    def open(endpoint: Endpoint, options: TargetOptions) -> SqliteTarget:
        triggers = options.triggers != "disable"
        return SqliteTarget(
            File(
                endpoint,
                TargetError,
                read_only=options.read_only,
                create=not options.read_only,
                triggers=triggers or options.read_only,
            )
        )

    def _has_ledger(self) -> bool:
        return bool(
            self._session.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (_LEDGER.chunks,))
        )

    def _load_chunks(self, job: str) -> list[ChunkRow]:
        return self.ledger.chunks(job)

    def describe(self, name: TableName) -> Table | None:
        found: Table | None = self._session.call(lambda s: catalog.describe(s, name, census=False, as_target=True))
        return found

    def is_empty(self, name: TableName) -> bool:
        return not self._session.execute(f"SELECT 1 FROM {place_of(name)} LIMIT 1")

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        planned = plan_type(form)
        if isinstance(planned, Refusal):
            return Refusal(column.name, planned.reason, planned.count, planned.policies)
        native, t = planned
        if (kept := kept_declaration(column.native, t)) is not None:
            native = kept
        return Column(column.name, t, column.nullable, native, (t,), literal_fits(column.default, t))

    def checks(self, column: Column) -> tuple[str, ...]:
        """SQLite stores NaN as NULL and −0.0 in a REAL column as 0, and its integers end at 2^63 − 1."""
        if column.type.kind in FLOATS:
            return ("no_nan", "no_negative_zero")
        return ("fits_int64",) if column.type.kind == "uint64" else ()

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        path, folder = self._file.path, os.path.dirname(self._file.path)
        missing = []
        if os.path.exists(path) and not os.access(path, os.W_OK):
            missing.append(f"write the file {path!r}")
        if not os.access(folder, os.W_OK | os.X_OK):
            missing.append(f"write the folder {folder!r} (SQLite keeps its journal there)")
        return missing

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        """SQLite would let children be orphaned here (foreign_keys is off while rows arrive): we do not."""
        found: list[str] = self._session.call(lambda s: catalog.children_with_rows(s, table.name, together))
        return [
            f"rows of {child!r} point to it by a foreign key; copy that table in the same job, empty it first, or "
            "choose --mode upsert"
            for child in found
        ]

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        found: list[Attachment] = self._session.call(lambda s: attached.attachments(s, table))
        return found

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        columns = [_column_sql(table, column) for column in table.columns]
        if table.primary_key and _rowid_key(table) is None:
            columns.append(f"PRIMARY KEY ({names_of(table.primary_key)})")
        columns += attached.declared(table)

        def create(session: Session) -> None:
            session.execute(f"CREATE TABLE IF NOT EXISTS {place_of(name)} ({', '.join(columns)})")
            catalog.write_tags(session, name, table.columns)

        self._session.atomic(create)

    def add_keys(self, table: Table, name: TableName) -> None:
        """Nothing: SQLite can declare a key only when a table is made, which create_table does."""

    def truncate(self, name: TableName) -> None:
        self._session.execute(f"DELETE FROM {place_of(name)}")

    def drop(self, name: TableName) -> None:
        def drop(session: Session) -> None:
            session.execute(f"DROP TABLE IF EXISTS {place_of(name)}")
            catalog.forget_tags(session, name)

        self._session.atomic(drop)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """Nothing: constraints are made with the table, indexes and triggers under its own name, in the swap."""

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        """In one transaction; indexes and triggers of the old table are made again on the new one."""

        def swap(session: Session) -> None:
            if catalog.shape_of(session, loaded) is None:
                return
            made = catalog.describe(session, loaded, census=False, as_target=True)
            assert made is not None
            found = attached.lost(session, msgspec.structs.replace(made, name=name), tuple(attachments))
            if found:
                raise TargetError(
                    f"made on it since the job began, and lost if it were replaced: {', '.join(found)}",
                    table=str(name),
                    hint="drop that and go on, or start the job anew",
                )
            kept = attached.made_again(session, msgspec.structs.replace(made, name=name))
            session.execute(f"DROP TABLE IF EXISTS {place_of(name)}")
            session.execute(f"ALTER TABLE {place_of(loaded)} RENAME TO {quote(name.name)}")
            catalog.move_tags(session, loaded, name)
            for attachment in kept:
                try:
                    session.execute(attachment.definition)
                except RowferryError as error:
                    raise TargetError(
                        f"{attachment.name!r} of the replaced table does not fit the new one: {error.message}",
                        table=str(name),
                        hint="drop it, and start again",
                    ) from None

        # Views that name the table are not looked into while it is away.
        self._session.execute("PRAGMA legacy_alter_table = ON")
        self._session.atomic(swap)

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        def merge(session: Session) -> int:
            if catalog.shape_of(session, staged) is None:
                return 0
            names = names_of(columns)
            rows = session.run(f"INSERT INTO {place_of(table.name)} ({names}) SELECT {names} FROM {place_of(staged)}")
            session.execute(f"DROP TABLE {place_of(staged)}")
            catalog.forget_tags(session, staged)
            return rows

        rows: int = self._session.atomic(merge)
        return rows

    def orphans(self, name: TableName) -> list[str]:
        """foreign_keys is off while rows arrive (and in SQLite unless asked for): what they break is counted here."""
        found: list[str] = self._session.call(lambda s: catalog.orphans(s, name))
        return found

    def set_sequences(self, table: Table) -> None:
        """Nothing: an INTEGER PRIMARY KEY goes on above its largest value, AUTOINCREMENT's counter too."""

    def disable_triggers(self, table: Table, disable: bool) -> None:
        """They are off on this connection from its beginning (never in the file), so a crash leaves none disabled."""
        if disable and table.triggers and self._file.triggers:
            raise TargetError("triggers are only disabled by --target-triggers disable", table=str(table.name))

    def writer(self) -> SqliteWriter:
        return SqliteWriter(self._session, self._queue)

    def repair(
        self,
        table: Table,
        columns: tuple[ColumnPlan, ...],
        key: Sequence[str],
        delete: pa.RecordBatch | None,
        insert: Sequence[pa.RecordBatch],
    ) -> int:
        def repair(session: Session) -> int:
            if delete is not None and delete.num_rows:
                if not key:
                    raise TargetError("rows without a key cannot be told apart, so none can be deleted")
                tests = " AND ".join(f"{quote(name)} IS ?" for name in key)
                keys = [table.column(name) for name in key]
                Load(session, f"DELETE FROM {place_of(table.name)} WHERE {tests}", keys).write([delete])
            inserted = 0
            if insert:
                into = _into(table, [c.target for c in columns])
                inserted = Load(session, insert_into(table.name, into), into).write(insert)
            return inserted

        try:
            rows: int = self._session.atomic(repair)
        except RowferryError as error:
            raise error.at(table=str(table.name)) from None
        return rows

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.sqlite import colliding

        found: list[LooseKey] = self._session.call(lambda s: [k for t in tables for k in colliding.loose_keys(s, t)])
        return found

    def key_trial(self, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> KeyTrial:
        from rowferry.adapters.sqlite.colliding import SqliteTrial

        session = self._file.session()
        try:
            return SqliteTrial(session, table, key, columns)
        except BaseException:
            session.close()
            raise

    def asker(self) -> Asker:
        from rowferry.adapters.sqlite.asking import SqliteAsker

        return SqliteAsker(self._file, self._session.try_alone)

    def as_source(self) -> SqliteSource:
        file = File(Endpoint("sqlite", "sqlite", path=self._file.path), TargetError, read_only=True)
        return SqliteSource(file, {}, shared=True)

    def close(self) -> None:
        self._lock.release_all()
        self._session.rollback()
        self._session.close()


def _rowid_key(table: Table) -> str | None:
    """The column that becomes the rowid itself: a primary key of one integer column."""
    if len(table.primary_key) != 1:
        return None
    column = table.column(table.primary_key[0])
    return column.name if column.type.is_integer else None


def _column_sql(table: Table, column: Column) -> str:
    """One column of CREATE TABLE. INTEGER PRIMARY KEY has to be spelled exactly so to be the rowid."""
    if column.name == _rowid_key(table):
        return f"{quote(column.name)} INTEGER PRIMARY KEY NOT NULL"
    required = "" if column.nullable and column.name not in table.primary_key else " NOT NULL"
    default = "" if column.default is None else f" DEFAULT {column.default}"
    return f"{quote(column.name)} {column.native}{required}{default}"


def _into(table: Table, names: Sequence[str]) -> list[Column]:
    return [table.column(name) for name in names]


class SqliteWriter:
    """The protocol's Writer: the queue is in memory, the transaction begins with the first rows."""

    def __init__(self, session: WriteSession, queue: ChunkQueue) -> None:
        self._session = session
        self._queue = queue
        self._held: tuple[str, ChunkRow] | None = None
        #: A savepoint stands in the open transaction.
        self._marked = False

    def claim(self, job: str) -> ChunkRow | None:
        chunk = self._queue.take(job)
        if chunk is not None:
            self._held = (job, chunk)
        return chunk

    def pending(self, job: str) -> int:
        return self._queue.pending(job)

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        try:
            batches = self._turn(block.batch for block in blocks)
            columns = [c.column for c in request.columns]
            if request.mode == "upsert":
                rows: int = self._session.call(lambda s: _upsert(s, request, columns, batches))
            else:
                rows = self._session.call(lambda s: Load(s, insert_into(request.name, columns), columns).write(batches))
            return rows
        except RowferryError as error:
            raise error.at(table=str(request.name)) from None

    def _turn(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Begins this chunk's transaction. While another thread is in its own, batches are fetched ahead."""
        if self._session.mine:
            return batches
        ahead: list[pa.RecordBatch] = []
        size = 0
        while not self._session.try_begin():
            batch = next(batches, None) if size < limits.QUEUE_BYTES else None
            if batch is None:
                self._session.begin()
                break
            ahead.append(batch)
            size += batch.nbytes
        return itertools.chain(_consumed(ahead), batches)

    def mark(self) -> None:
        # Before the first rows there is no transaction yet, and nothing to go back to but its beginning.
        if self._session.mine:
            if self._marked:
                self._session.execute("RELEASE rowferry_mark")
            self._session.execute("SAVEPOINT rowferry_mark")
            self._marked = True

    def undo(self) -> None:
        if self._marked:
            self._session.execute("ROLLBACK TO rowferry_mark")
        else:
            self._session.rollback()

    def begin(self) -> None:
        self._session.begin()

    def remove(self, name: TableName, column: str, values: Sequence[str]) -> int:
        if not self._session.mine:
            self._session.begin()
        marks = ", ".join("?" * len(values))
        return self._session.run(f"DELETE FROM {place_of(name)} WHERE {quote(column)} IN ({marks})", tuple(values))

    def finish(self, job: str, chunk: ChunkRow) -> None:
        if not self._session.mine:
            self._session.begin()
        sql_ledger.finish(self._session, _LEDGER, job, chunk)

    def commit(self) -> None:
        if self._session.mine:
            self._session.commit()
        self._marked = False
        if self._held is not None:
            self._queue.done(*self._held)
            self._held = None

    def rollback(self) -> None:
        self._marked = False
        # Where SQLite cannot go on it has rolled back by itself; if not, the next begin on the connection says so.
        with contextlib.suppress(RowferryError):
            self._session.rollback()
        if self._held is not None:
            self._queue.give_back(*self._held)
            self._held = None

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        return sql_ledger.is_done(self._session, _LEDGER, job, chunk)

    def close(self) -> None:
        self.rollback()


def _consumed(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches in their order, each let go of when the next is taken."""
    batches.reverse()
    while batches:
        yield batches.pop()


def _upsert(
    session: Session, request: WriteRequest, columns: Sequence[Column], batches: Iterable[pa.RecordBatch]
) -> int:
    """Stages the rows in a table whose key must be unique and not NULL, then merges; returns the rows staged."""
    declared = [
        f"{quote(c.name)} {c.native}{f' COLLATE {c.collation}' if c.collation else ''}"
        f"{' NOT NULL' if c.name in request.key else ''}"
        for c in columns
    ]
    keys, names = names_of(request.key), names_of(c.name for c in columns)
    session.execute(f"DROP TABLE IF EXISTS temp.{_STAGED}")
    session.execute(f"CREATE TEMP TABLE {_STAGED} ({', '.join(declared)}, UNIQUE ({keys}))")
    try:
        staged = Load(session, insert_into(request.name, columns, f"temp.{_STAGED}"), columns).write(batches)
    except DataError as error:
        raise DataError(f"a key was sent more than once, or is NULL: {error.message}", code=error.code) from None
    _refuse_other_rows(session, request, [c.name for c in columns if c.name in request.key and c.collation])
    rest = [quote(c.name) for c in columns if c.name not in request.key]
    action = f"UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in rest)}" if rest else "NOTHING"
    session.execute(
        f"INSERT INTO {place_of(request.name)} ({names}) SELECT {names} FROM temp.{_STAGED} WHERE true "
        f"ON CONFLICT ({keys}) DO {action}"
    )
    session.execute(f"DROP TABLE temp.{_STAGED}")
    return staged


def _refuse_other_rows(session: Session, request: WriteRequest, loose: Sequence[str]) -> None:
    """Raises DataError where a staged key finds a row of another key, which a collation (NOCASE, RTRIM) takes for the
    same: the merge would write over it. loose: key columns with such a collation."""
    if not loose:
        return
    pairs = ", ".join(f"s.{quote(k)}, t.{quote(k)}" for k in loose)
    same = " AND ".join(f"t.{quote(k)} = s.{quote(k)}" for k in request.key)
    other = " OR ".join(f"CAST(t.{quote(k)} AS BLOB) <> CAST(s.{quote(k)} AS BLOB)" for k in loose)
    for row in session.execute(
        f"SELECT {pairs} FROM temp.{_STAGED} s JOIN {place_of(request.name)} t ON {same} WHERE {other} LIMIT 1"
    ):
        raise DataError(
            f"the key {', '.join(repr(v) for v in row[::2])} would take the place of the row "
            f"{', '.join(repr(v) for v in row[1::2])}, which the column's collation takes for the same",
            column=loose[0] if len(loose) == 1 else None,
            hint="give the target's key column the collation BINARY, or change the row",
        )
