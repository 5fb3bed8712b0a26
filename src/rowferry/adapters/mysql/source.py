"""MySQL and MariaDB as a source: sessions of one snapshot, result rows off the socket, Arrow out."""

from __future__ import annotations

import contextlib
import fnmatch
import threading
from collections.abc import Sequence

import msgspec

from rowferry.adapters.mysql import catalog, counting, snapshot
from rowferry.adapters.mysql.chunks import Splitter
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.declared import BOOL
from rowferry.adapters.mysql.identity import server_identity
from rowferry.adapters.mysql.quoting import literal
from rowferry.adapters.mysql.reader import MysqlReader
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import Asker, LooseKey, Reader, SourceOptions
from rowferry.errors import RowferryError, SnapshotLostError, SourceError
from rowferry.model import Bound, Endpoint, Table, TableName

#: Engines whose tables a consistent snapshot covers. Of any other (MyISAM, Aria, MEMORY, …) each
#: statement sees what is there when it runs.
VERSIONED_ENGINES = frozenset(("InnoDB", "ROCKSDB", "TokuDB"))
#: Sessions beyond the readers': one that is lost cannot be replaced in the snapshot once something was committed.
SPARE_SESSIONS = 1


class MysqlSource:
    """The protocol's Source. ``_session`` is for catalogue queries, each of which sees the present."""

    def __init__(self, endpoint: Endpoint, options: SourceOptions) -> None:
        self._connector = Connector(parameters(endpoint), SourceError)
        self._options = options
        self._lock = threading.RLock()
        self._session = self._connector.connect()
        #: The database of names without a schema; '' where the URL names none.
        self.database = self._connector.parameters.database or ""
        self._snapshot: snapshot.Snapshot | None = None
        self._idle: list[MysqlSession] = []
        #: Connected, and in no transaction yet.
        self._reserve: list[MysqlSession] = []
        self._unversioned: dict[TableName, str] = {}
        #: Rows of tables that were counted as they were looked at.
        self._counted: dict[TableName, int] = {}
        self._closed = False

    def place(self) -> tuple[str, str | None]:
        with self._lock:
            return server_identity(self._alive()), self.database or None

    def list_tables(self) -> list[TableName]:
        with self._lock:
            return catalog.list_tables(self._alive(), self.database or None)

    def list_views(self) -> list[TableName]:
        with self._lock:
            return catalog.list_views(self._alive(), self.database or None)

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        with self._lock:
            try:
                table = catalog.describe(self._alive(), name)
                if table is not None:
                    table = self._with_bools(table)
                    if table.kind != "view":
                        self._note_engine(name)
                return self._looked_at(table) if table is not None and census else table
            except SourceError as error:
                error.at(table=str(name))
                raise

    def _looked_at(self, table: Table) -> Table:
        def counted(rows: int) -> None:
            self._counted[table.name] = rows

        return counting.looked_at(table, self._alive(), self._helpers, counted)

    def _with_bools(self, table: Table) -> Table:
        """The table with those TINYINT(1) as bool that were asked for as such."""
        columns = [
            msgspec.structs.replace(c, type=BOOL, forms=(BOOL, *(f for f in c.forms if f != BOOL)))
            if BOOL in c.forms and self.policy(str(table.name), c.name) == "bool"
            else c
            for c in table.columns
        ]
        return msgspec.structs.replace(table, columns=tuple(columns))

    def _note_engine(self, name: TableName) -> None:
        sql = "SELECT engine FROM information_schema.tables WHERE table_schema = {} AND table_name = {}"
        found = self._session.query(sql.format(literal(name.schema or self.database), literal(name.name)))
        engine = str(found[0][0]) if found and found[0][0] else ""
        if engine and engine not in VERSIONED_ENGINES:
            self._unversioned[name] = engine

    def _helpers(self) -> list[MysqlSession]:
        """Sessions outside any snapshot, as many as there are readers besides the first; as many as can be had."""
        self._reserve = [s for s in self._reserve if not (s.closed or s.readable())]
        with contextlib.suppress(SourceError):
            while len(self._reserve) < self._options.workers - 1:
                self._reserve.append(self._connector.connect())
        return self._reserve

    def state_token(self) -> str | None:
        return None

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        with self._lock:
            for session in self._idle:
                session.close()
            self._idle = []
            count = max(readers, 1) + SPARE_SESSIONS
            self._snapshot = snapshot.open_snapshot(self._alive(), self._connect_reader, count)
            self._idle = list(self._snapshot.sessions)
            if adopt is not None and adopt != self._snapshot.id:
                raise SnapshotLostError(
                    "the database has gone on since the process that began the job took its snapshot, and MySQL's "
                    "snapshots cannot be handed on",
                    hint="let that process end the job alone",
                )
        return "none" if self._unversioned else self._snapshot.guarantee

    def snapshot_id(self) -> str | None:
        return self._snapshot.id if self._snapshot is not None else None

    def snapshot_note(self) -> str | None:
        notes = [self._snapshot.note] if self._snapshot is not None and self._snapshot.note else []
        if self._unversioned:
            named = ", ".join(f"{name} ({engine})" for name, engine in list(self._unversioned.items())[:10])
            more = f" and {len(self._unversioned) - 10} more" if len(self._unversioned) > 10 else ""
            notes.append(f"of tables without snapshots each chunk was read as it was just then: {named}{more}")
        return "; ".join(notes) or None

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        with self._lock:
            try:
                splitter = Splitter(self._alive(), self.database, self._counted)
                return splitter.split(table, where, chunk_bytes, chunk_rows_min)
            except SourceError as error:
                error.at(table=str(table.name))
                raise

    def reader(self) -> Reader:
        return MysqlReader(self)

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.mysql import colliding

        with self._lock:
            return [key for table in tables for key in colliding.loose_keys(self._alive(), table)]

    def asker(self) -> Asker:
        from rowferry.adapters.mysql.asking import MysqlAsker

        return MysqlAsker(self._connector.connect)

    def cut(self) -> None:
        self._connector.cut()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for session in (self._session, *self._idle, *self._reserve):
                session.close()
            self._idle.clear()
            self._reserve.clear()

    # -- for readers

    def take_session(self) -> MysqlSession:
        """A session in the snapshot: one that is idle, or a new one where nothing was committed since.

        Raises SnapshotLostError where there is none and the readers share a state.
        """
        with self._lock:
            while self._idle:
                session = self._idle.pop()
                if not session.closed and not session.readable():
                    return session
                session.close()
        shared = self._snapshot
        if shared is not None and shared.guarantee == "one":
            joined = snapshot.join_snapshot(shared, self._connect_reader)
            if joined is None:
                raise SnapshotLostError(
                    "the connection to the source was lost, and the snapshot with it",
                    hint="run the same command again; it goes on under a new snapshot",
                )
            return joined
        session = self._connect_reader()
        session.begin_snapshot()
        return session

    def _connect_reader(self) -> MysqlSession:
        # What helped to look at the tables is connected already.
        with self._lock:
            session = self._reserve.pop() if self._reserve else None
        if session is None or session.closed or session.readable():
            session = self._connector.connect()
        snapshot.unlogged(session)
        return session

    def leave_session(self, session: MysqlSession) -> None:
        with self._lock:
            if self._closed or session.closed or self._snapshot is None:
                session.close()
            else:
                self._idle.append(session)

    def fingerprint(self, name: TableName) -> str:
        """The table's fingerprint at this moment, seen past every snapshot."""
        with self._lock:
            return catalog.fingerprint(self._alive(), name)

    def policy(self, table: str, column: str) -> str | None:
        """The user's policy for a column: the last pattern that fits."""
        found = None
        for pattern, policy in self._options.policies.items():
            if pattern in (f"{table}.{column}", column) or fnmatch.fnmatchcase(f"{table}.{column}", pattern):
                found = policy
        return found

    def kill_query(self, session: MysqlSession) -> None:
        """Ends the statement that another session of this source is in; the session stays. Never raises."""
        with self._lock, contextlib.suppress(RowferryError):
            self._alive().query(f"KILL QUERY {session.id}")

    def _alive(self) -> MysqlSession:
        """The catalogue session; a new one where the old one was cut off."""
        if self._session.closed or self._session.readable():
            self._session.close()
            self._session = self._connector.connect()
        return self._session
