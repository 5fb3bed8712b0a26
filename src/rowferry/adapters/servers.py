"""What the adapters of servers share: connections that come back, and the frames of control, reader and writer.

An adapter hands in its own session; what a session must be able to do is :class:`Session`.
"""

from __future__ import annotations

import abc
import contextlib
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from rowferry import limits
from rowferry.adapters import sql_ledger
from rowferry.adapters.sql_ledger import LedgerNames
from rowferry.errors import LedgerError, RowferryError, TargetError
from rowferry.model import ChunkRow, TableName


class Session(Protocol):
    """One connection to a server, used by one thread at a time (``cut`` apart)."""

    @property
    def closed(self) -> bool: ...

    def readable(self) -> bool:
        """Whether the server has said something that nobody asked for. An idle session has nothing to read: what is
        there is the server's farewell, or its end."""

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def run(self, sql: str, params: Sequence[Any] = ()) -> int: ...

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=Session)


class Connector(abc.ABC, Generic[S]):
    """Opens sessions to one place, and can cut all of them from another thread."""

    def __init__(self, role: type[RowferryError]) -> None:
        self._role = role
        self._open: weakref.WeakSet[S] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cut = threading.Event()

    @abc.abstractmethod
    def _new(self) -> S:
        """A new session. Raises the role's error (transient where the server may come back) or ConfigError."""

    def connect(self) -> S:
        """One try. Raises the role's error (transient where the server may come back) or ConfigError."""
        if self._cut.is_set():
            raise self._role("the connection was cut on request", transient=True)
        session = self._new()
        with self._lock:
            self._open.add(session)
        return session

    def patiently(self) -> S:
        """Connects, waiting for a server that is being restarted (bounded as a chunk's tries are)."""
        wait_s = limits.RETRY_WAIT_MIN_S
        for number in range(limits.CHUNK_TRIES):
            try:
                return self.connect()
            except RowferryError as error:
                if not error.transient or number + 1 == limits.CHUNK_TRIES or self._cut.is_set():
                    raise
            self._cut.wait(random.uniform(wait_s / 2, wait_s))
            wait_s = min(2 * wait_s, limits.RETRY_WAIT_MAX_S)
        raise AssertionError("the last try returns or raises")

    def cut(self) -> None:
        """What any of the sessions waits for fails at once, and none is opened any more. Never raises."""
        self._cut.set()
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            session.cut()


class Coming(Generic[S]):
    """A session that is opened meanwhile, in a thread of its own."""

    def __init__(self, connector: Connector[S]) -> None:
        self._connector = connector
        self._session: S | None = None
        self._left = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rowferry-coming", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            session = self._connector.connect()
        except RowferryError:
            return  # who takes it connects itself, and learns what is wrong
        with self._lock:
            if not self._left:
                self._session = session
                return
        session.close()

    def take(self) -> S:
        """The session, or another where it did not come or has gone again. To be called once."""
        self._thread.join()
        session, self._session = self._session, None
        if session is not None:
            if not session.closed and not session.readable():
                return session
            session.close()
        return self._connector.connect()

    def close(self) -> None:
        """Closes what was not taken; waits for nobody."""
        with self._lock:
            self._left = True
            session, self._session = self._session, None
        if session is not None:
            session.close()


class Control(Generic[S]):
    """An SqlSession (see ``sql_ledger``) that reconnects between transactions, never within one."""

    #: The server's own code of a lost connection.
    lost_code = ""

    def __init__(self, connector: Connector[S]) -> None:
        self._connector = connector
        self._session = connector.connect()
        self._lock = threading.RLock()
        #: Between begin and commit or rollback.
        self._within = False

    @property
    def session(self) -> S:
        """The session, alive as far as can be seen from here."""
        with self._lock:
            if self._within:
                if self._session.closed:  # a new session would run the rest of the transaction without its beginning
                    raise TargetError("the connection was lost in a transaction", code=self.lost_code, transient=True)
                return self._session
            if self._session.closed or self._session.readable():
                self._session.close()
                self._session = self._connector.patiently()
                self._reconnected()
            return self._session

    def _reconnected(self) -> None:
        """Brings back what went with the old session."""

    @property
    def within(self) -> bool:
        return self._within

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self.session.execute(sql, params)

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        with self._lock:
            return self.session.run(sql, params)

    def begin(self) -> None:
        with self._lock:
            self.session.begin()
            self._within = True

    def commit(self) -> None:
        with self._lock:
            self._within = False
            self._session.commit()

    def rollback(self) -> None:
        with self._lock:
            self._within = False
            self._session.rollback()

    def close(self) -> None:
        self._session.close()


class Snapshot(Protocol[S]):
    """What a reader needs of its source."""

    def take_session(self) -> S:
        """A session in the snapshot, for one reader alone. Raises SourceError."""

    def leave_session(self, session: S) -> None: ...

    def fingerprint(self, name: TableName) -> str: ...


class SnapshotReader(Generic[S]):
    """The frame of a Reader: one session of the snapshot, from a chunk to the next."""

    def __init__(self, source: Snapshot[S]) -> None:
        self._snapshot = source
        self._session: S | None = source.take_session()

    def fingerprint(self, name: TableName) -> str:
        return self._snapshot.fingerprint(name)

    def cut(self) -> None:
        session = self._session
        if session is not None:
            session.cut()

    def close(self) -> None:
        if self._session is not None:
            self._snapshot.leave_session(self._session)
            self._session = None

    def _open(self) -> S:
        if self._session is not None and (self._session.closed or self._session.readable()):
            self._session.close()
            self._session = None
        if self._session is None:
            self._session = self._snapshot.take_session()
        return self._session


class LedgerWriter(abc.ABC, Generic[S]):
    """The frame of a Writer: one connection, whose transactions hold a chunk's rows and its ledger row."""

    def __init__(self, connector: Connector[S], names: LedgerNames) -> None:
        self._connector = connector
        self._names = names
        self._session = connector.connect()
        #: A savepoint stands in the open transaction.
        self._marked = False

    def _alive(self) -> S:
        """The session, between transactions; a new one where the server has gone meanwhile."""
        if self._session.closed or self._session.readable():
            self._session.close()
            self._session = self._connector.patiently()
            self._reconnected()
        return self._session

    def _reconnected(self) -> None:
        """What there is to do after a connection was lost."""

    def claim(self, job: str) -> ChunkRow | None:
        self._marked = False
        session = self._alive()
        session.begin()
        return sql_ledger.claim(session, self._names, job)

    def pending(self, job: str) -> int:
        return sql_ledger.pending(self._alive(), self._names, job)

    def mark(self) -> None:
        # One of that name takes the place of the last.
        self._session.run("SAVEPOINT rowferry_mark")
        self._marked = True

    def undo(self) -> None:
        self._session.run("ROLLBACK TO SAVEPOINT rowferry_mark")

    def begin(self) -> None:
        self._marked = False
        self._alive().begin()

    @abc.abstractmethod
    def _place(self, name: TableName, column: str) -> tuple[str, str]:
        """A table and one of its columns in the engine's own quotes."""

    def remove(self, name: TableName, column: str, values: Sequence[str]) -> int:
        table, quoted = self._place(name, column)
        return self._session.run(
            f"DELETE FROM {table} WHERE {quoted} IN ({', '.join('?' * len(values))})", tuple(values)
        )

    def finish(self, job: str, chunk: ChunkRow) -> None:
        sql_ledger.finish(self._session, self._names, job, chunk)

    def commit(self) -> None:
        self._session.commit()

    def rollback(self) -> None:
        self._session.rollback()

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        return sql_ledger.is_done(self._alive(), self._names, job, chunk)

    def close(self) -> None:
        self._session.close()


def take_again(jobs: set[str], acquire: Callable[[str], bool]) -> None:
    """Takes the jobs' locks again, which went with a connection. The server may not have noticed yet that the old
    one is gone. Raises LedgerError where another process has one of them by now."""
    for job in sorted(jobs):
        until = time.monotonic() + limits.LOCK_PATIENCE_S
        while not (mine := acquire(job)) and time.monotonic() < until:
            time.sleep(limits.CLAIM_POLL_S)
        if not mine:
            jobs.discard(job)
            raise LedgerError(
                "the connection was lost, and with it the job's lock, which another process has taken",
                hint="that process goes on with the job",
            )


@contextlib.contextmanager
def at(name: TableName) -> Iterator[None]:
    """Errors say which table they are about."""
    try:
        yield
    except RowferryError as error:
        error.at(table=str(name))
        raise


@contextlib.contextmanager
def closed_on_failure(session: S) -> Iterator[S]:
    """A session that is handed on to its new owner, or closed where that comes to nothing."""
    try:
        yield session
    except BaseException:
        session.close()
        raise


def without_keys(delete: pa.RecordBatch, insert: Sequence[pa.RecordBatch], key: Sequence[str]) -> pa.RecordBatch:
    """The keys to delete that no inserted row has."""
    inserted = pa.Table.from_batches(insert).select(list(key))
    left = pa.Table.from_batches([delete]).join(inserted, keys=list(key), join_type="left anti").combine_chunks()
    return left.to_batches()[0] if left.num_rows else delete.slice(0, 0)
