"""Reads a DuckDB database: parallel cursors over ranges of rowid, each streaming."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.duckdb import catalog, chunks
from rowferry.adapters.duckdb.wire import Database, Session
from rowferry.adapters.protocol import Asker, Block, ReadRequest
from rowferry.convert.duckdb_form import from_duckdb, quote, read_expression
from rowferry.errors import ConfigError, RowferryError, SourceError
from rowferry.model import Bound, Endpoint, Table, TableName
from rowferry.types import Type

#: DuckDB's own memory while it is only read: nothing is sorted or joined, and what it caches of the
#: file is read once. 64 MB cost no CPU against 192, and 160 MB less at the peak (measured).
MEMORY = "64MB"
#: Rows of one batch at the least, where no cell is long: wider ones are cut afterwards.
_BATCH_ROWS_MIN = 64
#: Bytes that a batch of rows with long cells may come to.
_LONG_BATCH_BYTES = 32 << 20


class DuckdbSource:
    """The protocol's Source on one database file.

    Opened by itself, the file is read-only to us and locked against any writer, so that all
    cursors see one state. As the second side of a target, it shares the target's instance.
    """

    def __init__(self, database: Database, *, shared: bool) -> None:
        self._database = database
        self._shared = shared
        self._control = database.session(SourceError)
        self._lock = threading.Lock()
        self._waiting: list[Session] = []
        self._snapshot: str | None = None

    @staticmethod
    def open(endpoint: Endpoint) -> DuckdbSource:
        if not os.path.exists(endpoint.path or ""):
            raise SourceError(f"{endpoint.path!r} does not exist")
        return DuckdbSource(Database(endpoint, SourceError, read_only=True, memory=MEMORY), shared=False)

    def list_tables(self) -> list[TableName]:
        return catalog.list_tables(self._control)

    def list_views(self) -> list[TableName]:
        return catalog.list_tables(self._control, views=True)

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        table = catalog.describe(self._control, name, census)
        if table is not None and table.kind == "view" and not self._shared:
            self._database.set_memory(limits.DUCKDB_MEMORY)  # a view may sort, join and group
        return table

    def state_token(self) -> str | None:
        """Size, time and inode of the file and its log: nobody can write while we read."""
        if self._shared:
            return None
        parts = []
        for path in (self._database.path, f"{self._database.path}.wal"):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            except OSError as failure:
                raise SourceError(f"cannot look at {path!r}: {failure.strerror}") from None
            parts.append(f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}")
        return "/".join(parts)

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        tables = self.list_tables()
        for _ in range(readers):
            session = self._database.session(SourceError)
            _begin(session, tables[0] if tables else None)
            self._waiting.append(session)
        self._snapshot = self.state_token() or f"duckdb-{uuid.uuid4().hex}"
        return "one"

    def snapshot_id(self) -> str | None:
        return self._snapshot

    def snapshot_note(self) -> str | None:
        if not self._shared:
            return None
        return "DuckDB: each cursor has a transaction of its own, begun at once in the one process that can write"

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        if where:
            self._check_where(table, where)
        return chunks.split(self._control, table, chunk_bytes, chunk_rows_min)

    def _check_where(self, table: Table, where: str) -> None:
        try:
            self._control.columns(f"SELECT 1 FROM {catalog.qualified(table.name)}" + chunks.condition(Bound({}), where))
        except SourceError as error:
            raise ConfigError(
                f"the condition of --where cannot be used: {error.message}", table=str(table.name), value=where
            ) from None

    def reader(self) -> DuckdbReader:
        with self._lock:
            session = self._waiting.pop() if self._waiting else None
        if session is None:
            session = self._database.session(SourceError)
            _begin(session, None)
        return DuckdbReader(self._database, session, self._give_back)

    def _give_back(self, session: Session) -> None:
        """A reader that is closed in good order leaves its transaction to the next."""
        if not session.in_transaction:
            session.close()
            return
        with self._lock:
            self._waiting.append(session)

    def count_unfit(self, table: Table, column: str, check: str) -> int | None:
        tests = {
            "finite_time": "isinf({})",
            "no_nan": "isnan({})",
            "finite_number": "NOT isfinite({})",
            "fits_int64": "{} > 9223372036854775807",
        }
        if check not in tests or table.column(column).native == "TIMESTAMPTZ_NS":
            return None
        test = tests[check].format(quote(column))
        try:
            rows = self._control.execute(
                f"SELECT count(*) FROM {catalog.qualified(table.name)} WHERE {quote(column)} IS NOT NULL AND {test}"
            )
        except RowferryError:
            return None  # the check does not concern this type
        return int(rows[0][0])

    def asker(self) -> Asker:
        from rowferry.adapters.duckdb.asking import DuckdbAsker

        return DuckdbAsker(self._database, SourceError)

    def close(self) -> None:
        for session in [*self._waiting, self._control]:
            session.rollback()
            session.close()
        self._waiting.clear()
        if not self._shared:
            self._database.close()


def _begin(session: Session, table: TableName | None) -> None:
    """Begins a transaction and fixes its state: DuckDB takes the snapshot at the first read, not at BEGIN."""
    session.begin()
    session.execute("SELECT count(*) FROM duckdb_tables()")
    if table is not None:
        session.execute(f"SELECT 1 FROM {catalog.qualified(table)} LIMIT 1")


class DuckdbReader:
    """The protocol's Reader: one cursor with one transaction."""

    def __init__(self, database: Database, session: Session, give_back: Callable[[Session], None]) -> None:
        self._database = database
        self._session = session
        self._give_back = give_back
        self._closed = False

    def read(self, request: ReadRequest) -> Iterator[Block]:
        if not self._session.in_transaction:
            _begin(self._session, None)
        try:
            yield from self._blocks(request)
        except RowferryError as error:
            # The error has ended the transaction for DuckDB; the next chunk begins another.
            self._session.rollback()
            raise self._database.retried(error) from None

    def _blocks(self, request: ReadRequest) -> Iterator[Block]:
        place = catalog.qualified(request.table.name)
        natives = dict(self._session.columns(f"SELECT * FROM {place}"))
        gone = [c for c, _ in request.columns if c not in natives]
        if gone:
            raise SourceError(f"the table has no column {gone[0]!r} any more", table=str(request.table.name))
        # Columns leave under numbers: DuckDB would rename those that differ in case only.
        fields = ", ".join(
            f"{read_expression(c, natives[c], form)} AS c{i}" for i, (c, form) in enumerate(request.columns)
        )
        names = [c for c, _ in request.columns]
        forms = [form for _, form in request.columns]
        for where, batch_rows in self._readings(request, natives):
            sql = f"SELECT {fields} FROM {place}" + chunks.condition(request.bound, where)
            for batch in self._session.stream(sql, batch_rows):
                whole = pa.RecordBatch.from_arrays(
                    [_column(batch.column(i), form, names[i]) for i, form in enumerate(forms)], names=names
                )
                for part in _parts(whole, request.batch_bytes):
                    yield Block(part)

    def _readings(self, request: ReadRequest, natives: dict[str, Any]) -> list[tuple[str | None, int]]:
        """(condition, rows of a batch) of the queries that together read a chunk: one, or where
        cells are long, one for the rows without such and one, a few rows at a time, for those with."""
        rows = _batch_rows(request)
        if request.table.kind != "table":
            return [(request.where, rows)]
        asked = [(c, natives[c]) for c, _ in request.columns]
        known = catalog.lengths(self._session, request.table.name, asked)
        long = {c: k for c, k in known.items() if k.longest > catalog.LONG_CELL_BYTES}
        if not long:
            return [(request.where, rows)]
        few = max(1, request.batch_bytes // max(k.longest for k in long.values()))
        if not all(k.plain for k in long.values()):
            return [(request.where, few)]
        short = " AND ".join(
            f"coalesce(octet_length(CAST({quote(c)} AS BLOB)) <= {catalog.LONG_CELL_BYTES}, true)"
            if str(natives[c].id) == "blob"
            else f"coalesce(strlen({quote(c)}) <= {catalog.LONG_CELL_BYTES}, true)"
            for c in long
        )
        asked_too = f"(\n{request.where}\n) AND " if request.where else ""
        most = max(1, _LONG_BATCH_BYTES // catalog.LONG_CELL_BYTES)
        return [(f"{asked_too}{short}", min(rows, most)), (f"{asked_too}NOT ({short})", few)]

    def fingerprint(self, name: TableName) -> str:
        if not self._session.in_transaction:
            _begin(self._session, None)
        return catalog.fingerprint(self._session, name)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._give_back(self._session)


def _column(array: pa.Array, form: Type, name: str) -> pa.Array:
    try:
        return from_duckdb(array, form)
    except RowferryError as error:
        raise error.at(column=name) from None


def _batch_rows(request: ReadRequest) -> int:
    table = request.table
    row_bytes = max(table.bytes // table.rows, 1) if table.rows else 256
    return max(_BATCH_ROWS_MIN, min(request.batch_bytes // row_bytes, limits.BATCH_ROWS_MAX))


def _parts(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """A batch whose rows turned out wide, cut into slices of about the bytes that were asked for."""
    count = max(1, min(batch.num_rows, batch.nbytes // (2 * batch_bytes)))
    if count == 1:
        if batch.num_rows:
            yield batch
        return
    step = -(-batch.num_rows // count)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)
