"""PostgreSQL as a source: one exported snapshot, COPY BINARY off the socket, Arrow out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.buffers import assemble, bare
from rowferry.adapters.postgres import types
from rowferry.adapters.postgres.catalog import Catalog, fingerprint_of, from_table, shape_sql
from rowferry.adapters.postgres.chunks import Splitter, select_from
from rowferry.adapters.postgres.connect import Parameters, parameters
from rowferry.adapters.postgres.control import Connector
from rowferry.adapters.postgres.quoting import ident, literal, qualified
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.wire import ConnectionLostError, ServerError, error_fields
from rowferry.adapters.protocol import Asker, Block, Digits, LooseKey, Reader, ReadRequest, SourceOptions
from rowferry.adapters.servers import Coming, SnapshotReader
from rowferry.errors import DataError, SnapshotLostError, SourceError
from rowferry.model import Bound, Column, Endpoint, Table, TableName
from rowferry.types import Type

#: pg_partition_tree, generated columns: nothing older is tried.
VERSION_MIN = 12

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

#: A range of keys is read by a bitmap, page after page: row after row through the index costs the server 15 % more
#: where keys and pages are in the same order, and a page for each row where they are not.
_BY_PAGES = "SET LOCAL enable_indexscan = off"

#: Files of a table and its partitions. TRUNCATE gives new ones, and under a snapshot from before it
#: the table then seems empty: no error, no rows.
_FILES = """
SELECT string_agg(c.oid || ':' || c.relfilenode, ',' ORDER BY c.oid)
FROM (SELECT to_regclass({table})::oid AS oid UNION
      SELECT relid FROM pg_partition_tree(to_regclass({table})) WHERE isleaf) t
JOIN pg_class c ON c.oid = t.oid
"""

#: SQL of rows that fail a check of convert.CHECKS; what is not here cannot occur in PostgreSQL.
_UNFIT = {
    "finite_time": "NOT isfinite({c})",
    "year_1_9999": "{c} < '0001-01-01' OR {c} >= '10000-01-01'",
    "year_0_9999": "{c} < '0001-01-01 BC' OR {c} >= '10000-01-01'",
    "no_nan": "{c} = 'NaN'",
    "finite_number": "{c}::text IN ('NaN', 'Infinity', '-Infinity')",
    "no_negative_zero": "{c} = 0 AND {c}::text = '-0'",
    "no_escaped_nul": "{c}::text LIKE '%\\u0000%'",
    "below_24h": "{c} = '24:00:00'",
}


class PostgresSource:
    """The protocol's Source. ``_session`` is for catalogue queries, each of which sees the present."""

    def __init__(self, endpoint: Endpoint, options: SourceOptions, ledger_schema: str = "rowferry") -> None:
        self.parameters: Parameters = parameters(endpoint)
        self._connector = Connector(self.parameters, SourceError)
        self._options = options
        self._lock = threading.Lock()
        self._session = self._connector.connect()
        require_version(self._session, SourceError)
        self._catalog = Catalog(self._session, ledger_schema)
        self._coming: Coming[Session] | None = None
        self._exporter: Session | None = None
        self._snapshot: str | None = None
        self._snapshot_id: str | None = None
        self._files: dict[TableName, str] = {}
        self._idle: list[Session] = []
        self._closed = False

    def list_tables(self) -> list[TableName]:
        with self._lock:
            return self._catalog.names("rp")

    def list_views(self) -> list[TableName]:
        with self._lock:
            return self._catalog.names("vmf")

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        with self._lock:
            try:
                return self._catalog.describe(name, census=census)
            except SourceError as error:
                error.at(table=str(name))
                raise

    def state_token(self) -> str | None:
        return None

    def expect_snapshot(self) -> None:
        if self._coming is None:
            self._coming = Coming(self._connector)

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        self._exporter = self._connector.connect() if self._coming is None else self._coming.take()
        self._coming = None
        if adopt is None:
            self._exporter.query(_BEGIN)
        else:
            self._adopt(self._exporter, adopt)
        # Its own export in either case: the readers here depend on no other process.
        self._snapshot, seen, started = self._exporter.query(
            "SELECT pg_export_snapshot(), txid_current_snapshot()::text, "
            "extract(epoch FROM pg_postmaster_start_time())::text"
        )[0]
        # A restarted server counts its snapshots from the beginning, so the name alone is not unique.
        self._snapshot_id = adopt or f"{self._snapshot}/{seen}/{started}"
        return "one"

    def _adopt(self, exporter: Session, snapshot_id: str) -> None:
        try:
            exporter.query(f"{_BEGIN}; SET TRANSACTION SNAPSHOT {literal(snapshot_id.partition('/')[0])}")
        except SourceError as error:
            if error.code not in ("22023", "42704"):
                raise
            raise SnapshotLostError("the snapshot of the process that began the job is gone", code=error.code) from None

    def snapshot_id(self) -> str | None:
        return self._snapshot_id

    def snapshot_note(self) -> str | None:
        return None

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        with self._lock:
            try:
                return Splitter(self._session, self._catalog).split(table, where, chunk_bytes, chunk_rows_min)
            except SourceError as error:
                error.at(table=str(table.name))
                raise

    def reader(self) -> Reader:
        if self._options.independent:
            from rowferry.adapters.postgres.independent import IndependentReader

            return IndependentReader(self)
        return PostgresReader(self)

    def count_unfit(self, table: Table, column: str, check: str) -> int | None:
        sql = _UNFIT.get(check)
        if sql is None:
            return None
        condition = sql.format(c=ident(column))
        with self._lock:
            found = self._session.query(f"SELECT count(*) FROM {from_table(table)} WHERE {condition}")
            return int(found[0][0])

    def digits(self, table: Table, columns: Sequence[str]) -> list[Digits]:
        asked = []
        for name in map(ident, columns):
            # NaN and the infinities have no scale.
            number = f"scale({name}) IS NOT NULL"
            asked += [
                f"trunc(max(abs({name})) FILTER (WHERE {number}))::text", f"max(scale({name}))",
                f"count(*) FILTER (WHERE {name} IS NOT NULL AND scale({name}) IS NULL)",
            ]  # fmt: skip
        with self._lock:
            row = self._session.query(f"SELECT {', '.join(asked)} FROM {from_table(table)}")[0]
        return [
            Digits(
                whole=None if largest is None else 0 if largest == "0" else len(largest),
                scale=None if scale is None else int(scale),
                special=int(special),
            )
            for largest, scale, special in zip(row[::3], row[1::3], row[2::3], strict=True)
        ]

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.postgres import colliding

        with self._lock:
            return colliding.loose_keys(self._session, tables)

    def asker(self) -> Asker:
        from rowferry.adapters.postgres.asking import PostgresAsker

        return PostgresAsker(self._connector.connect)

    def cut(self) -> None:
        self._connector.cut()

    def close(self) -> None:
        if self._coming is not None:
            self._coming.close()
        with self._lock:
            self._closed = True
            for session in (self._session, self._exporter, *self._idle):
                if session is not None:
                    session.close()
            self._idle.clear()

    # -- for readers

    @property
    def version(self) -> int:
        return self._session.version

    def take_session(self) -> Session:
        """A session for a reader: one that another has left, or a new one (whose login costs some 50 ms)."""
        with self._lock:
            while self._idle:
                session = self._idle.pop()
                if not session.wire.closed and not session.wire.readable():
                    return session
                session.close()
        return self._connector.connect()

    def leave_session(self, session: Session) -> None:
        with self._lock:
            if self._closed or session.wire.closed or session.in_transaction:
                session.close()
            else:
                self._idle.append(session)

    @property
    def snapshot(self) -> str | None:
        return self._snapshot

    def begin_sql(self) -> str:
        """Statements that begin a reader's transaction, in the snapshot if there is one."""
        if self._snapshot is None:
            return f"{_BEGIN}; {_BY_PAGES}"
        return f"{_BEGIN}; SET TRANSACTION SNAPSHOT {literal(self._snapshot)}; {_BY_PAGES}"

    def fingerprint(self, name: TableName) -> str:
        """The table's fingerprint at this moment, seen past every snapshot."""
        with self._lock:
            self._revive()
            return self._catalog.fingerprint(name)

    def check_unchanged(self, table: Table) -> None:
        """Raises SourceError where the table was altered, or emptied, since the snapshot."""
        with self._lock:
            self._revive()
            sql = _FILES.format(table=literal(qualified(table.name)))
            shape, files = self._session.queries(shape_sql(table.name), sql)
            if table.fingerprint and fingerprint_of(shape) != table.fingerprint:
                raise SourceError("the table was altered or dropped while it was read", table=str(table.name))
            if self._exporter is None:
                return
            if table.name not in self._files:
                self._files[table.name] = str(self._exporter.query(sql)[0][0])
            if str(files[0][0]) != self._files[table.name]:
                raise SourceError(
                    "the table was truncated or rewritten (TRUNCATE, VACUUM FULL, CLUSTER) while it was read",
                    table=str(table.name),
                    hint="run the same command again",
                )

    def _revive(self) -> None:
        """A new catalogue session where the old one was cut off."""
        if self._session.wire.closed or self._session.wire.readable():
            self._session.close()
            self._session = self._connector.connect()
            self._catalog.use(self._session)


def require_version(session: Session, role: type[SourceError] | Any) -> None:
    if session.version < VERSION_MIN:
        session.close()
        raise role(
            f"the server is PostgreSQL {session.wire.parameters.get('server_version')}; rowferry needs {VERSION_MIN}"
        )


def column_expression(column: Column, form: Type) -> str:
    """What COPY selects for a form: the column itself, or its text."""
    return f"{ident(column.name)}::text" if form.kind in types.STAGED_KINDS else ident(column.name)


class PostgresReader(SnapshotReader[Session]):
    """The protocol's Reader. Each chunk is one transaction that imports the snapshot, so that no
    lock is held on a table between its chunks."""

    def __init__(self, source: PostgresSource) -> None:
        super().__init__(source)
        self._source = source

    def read(self, request: ReadRequest) -> Iterator[Block]:
        from rowferry._native.pg_copy import DecodeError, Decoder, FrameError

        table = request.table
        columns = [(table.column(name), form) for name, form in request.columns]
        codecs = [types.codec(form, types.base_native(column.forms) or column.native) for column, form in columns]
        schema = pa.schema([pa.field(column.name, form.arrow) for column, form in columns])
        selected = ", ".join(column_expression(column, form) for column, form in columns)
        copied = (
            f"COPY (SELECT {selected} {select_from(table, request.bound, request.where)}) TO STDOUT (FORMAT binary)"
        )
        session = self._open()
        wire = session.wire
        complete = False
        try:
            wire.copy_out(f"{self._source.begin_sql()}; {copied}; COMMIT")
            stream = Stream(wire, Decoder(codecs))
            if request.intake is not None:
                for rows, tuples in stream.tallies(request.batch_bytes, request.intake):
                    yield Block(bare(rows), tuples)
            else:
                for taken in stream.batches(request.batch_bytes):
                    yield Block(assemble(schema, taken))
            self._source.check_unchanged(table)
            complete = True
        except ServerError as error:
            complete = not wire.closed  # the stream has read to ReadyForQuery
            raise self._error(session, error, table) from None
        except ConnectionLostError as error:
            raise session.error(error).at(table=str(table.name)) from None
        except DecodeError as error:
            name = columns[error.column][0].name
            raise DataError(
                f"{columns[error.column][0].native}: {error.reason}",
                table=str(table.name),
                column=name,
                value=f"bytes {error.value_hex}",
                hint=f"carry the column as text: --policy {table.name}.{name}=text",
            ) from None
        except FrameError as error:
            raise SourceError(f"the server's COPY stream is broken: {error}", table=str(table.name)) from None
        finally:
            # A stream that was left half-way would give its rest to the next statement.
            if not complete:
                wire.abandon()
            elif session.in_transaction:
                session.rollback()

    def _error(self, session: Session, error: ServerError, table: Table) -> Exception:
        found = session.error(error).at(table=str(table.name))
        if self._source.snapshot is not None and "snapshot" in found.message and found.code in ("22023", "42704"):
            return SnapshotLostError(
                "the source's snapshot is gone: the session that held it was ended",
                table=str(table.name),
                code=found.code,
                hint="run the same command again; it goes on under a new snapshot",
            )
        return found


class Stream:
    """The messages of one COPY … TO STDOUT, from its CopyOutResponse to ReadyForQuery."""

    def __init__(self, wire: Any, decoder: Any) -> None:
        self._wire = wire
        self._decoder = decoder
        self._read_bytes = limits.SOCKET_READ_BYTES
        self._done = False
        self._ready = False
        self._error: ServerError | None = None

    def _receive(self) -> None:
        view = self._decoder.buffer_view(self._read_bytes)
        count = self._wire.receive_into(view)
        view.release()
        self._decoder.received(count)
        while (message := self._decoder.message()) is not None:
            kind, payload = message
            if kind == b"c":
                self._done = True
            elif kind == b"E":
                self._error = self._error or ServerError(error_fields(payload))
                if self._error.fields.get("V", self._error.fields.get("S")) in ("FATAL", "PANIC"):
                    self._wire.abandon()
                    raise self._error
            elif kind == b"Z":
                self._ready = True
                self._wire.status = payload.decode()

    def batches(self, batch_bytes: int) -> Iterator[tuple[int, Any]]:
        """What ``Decoder.take`` gives, up to the end. Raises ServerError once the server is ready again."""
        return self._all(batch_bytes, lambda: self._decoder.take(limits.BATCH_ROWS_MAX, batch_bytes))

    def tallies(self, batch_bytes: int, intake: Any) -> Iterator[tuple[int, Any]]:
        """What ``Decoder.tally`` gives, as :meth:`batches`."""
        return self._all(batch_bytes, lambda: self._decoder.tally(intake))

    def _all(self, batch_bytes: int, take: Callable[[], tuple[int, Any] | None]) -> Iterator[tuple[int, Any]]:
        # Batches that are to be small (under a rate limit) are not gathered into large ones.
        self._wire.gather(batch_bytes >= limits.BATCH_BYTES)
        self._read_bytes = min(limits.SOCKET_READ_BYTES, batch_bytes)
        wanted = min(batch_bytes, limits.FIRST_BATCH_BYTES)
        while not (self._done or self._error):
            while self._decoder.buffered < wanted and not (self._done or self._error or self._ready):
                self._receive()
            taken = take()
            wanted = min(batch_bytes, 2 * wanted)
            if taken is not None:
                yield taken
            elif not (self._done or self._error):
                # One row is larger than a batch: its end is still to come.
                self._receive()
        if self._error is None:
            while (taken := take()) is not None:
                yield taken
            self._decoder.finish()
        while not self._ready:
            self._receive()
        self._wire.gather(False)
        if self._error is not None:
            raise self._error
