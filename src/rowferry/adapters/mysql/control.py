"""The target's control connection, which comes back when the server does, and the job's lock on one of its own."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rowferry import limits
from rowferry.adapters.mysql.connect import Connector
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import LedgerError, RowferryError, TargetError

#: The lock's connection has nothing else to say; a server or a proxy that ends silent ones is spoken to in time.
LOCK_PING_S = 60.0


class JobLocks:
    """Named locks (``GET_LOCK``) of a connection of their own: they end with the process, or with the connection.

    A connection of their own because the control connection may be replaced at any time, and because
    nothing that waits there may keep this one from being looked after.
    """

    def __init__(self, connector: Connector, place: str) -> None:
        self._connector = connector
        #: Tells apart databases of one server, whose locks have one space of names.
        self._place = place
        self._session: MysqlSession | None = None
        self._lock = threading.RLock()
        self._held: set[str] = set()
        self._spoken = 0.0

    def acquire(self, job: str) -> bool:
        with self._lock:
            self.keep()
            if self._get(job):
                self._held.add(job)
                return True
            return False

    def release(self, job: str) -> None:
        with self._lock:
            if job not in self._held:
                return
            self._held.discard(job)
            # A lost connection has lost its locks as well: no new one is opened to say so.
            if self._is_alive():
                assert self._session is not None
                with contextlib.suppress(RowferryError):
                    self._session.execute("SELECT RELEASE_LOCK(?)", (self._name(job),))

    def keep(self) -> None:
        """Takes the locks again where their connection was lost. Raises LedgerError where another process has
        one of them by now, TargetError (transient) where the server does not answer."""
        with self._lock:
            if not self._held or self._is_alive():
                return
            for job in sorted(self._held):
                until = time.monotonic() + limits.LOCK_PATIENCE_S
                # The server may not have noticed yet that the old connection is gone.
                while not (mine := self._get(job)) and time.monotonic() < until:
                    time.sleep(limits.CLAIM_POLL_S)
                if not mine:
                    self._held.discard(job)
                    raise LedgerError(
                        "the connection was lost, and with it the job's lock, which another process has taken",
                        hint="that process goes on with the job",
                    )

    def close(self) -> None:
        with self._lock:
            self._held.clear()
            if self._session is not None:
                self._session.close()

    def _is_alive(self) -> bool:
        session = self._session
        # An idle session has nothing to read: what is there is the server's farewell, or its end.
        if session is None or session.closed or session.readable():
            return False
        if time.monotonic() - self._spoken < LOCK_PING_S:
            return True
        try:
            session.execute("SELECT 1")
        except RowferryError:
            return False
        self._spoken = time.monotonic()
        return True

    def _get(self, job: str) -> bool:
        if not self._is_alive():
            if self._session is not None:
                self._session.close()
            self._session = self._connector.patiently()
            self._spoken = time.monotonic()
        assert self._session is not None
        found = self._session.execute("SELECT GET_LOCK(?, 0)", (self._name(job),))[0][0]
        if found is None:
            raise TargetError("the server could not give the job's lock (GET_LOCK)", transient=True)
        return bool(found)

    def _name(self, job: str) -> str:
        """At most 64 characters, whatever the job is called."""
        return "rowferry." + hashlib.blake2b(f"{self._place}\0{job}".encode(), digest_size=16).hexdigest()


class Control:
    """An SqlSession (see ``sql_ledger``) that reconnects between transactions, never within one."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._session = connector.connect()
        self._lock = threading.RLock()
        #: Between begin and commit or rollback.
        self._within = False
        self._after: list[Callable[[], None]] = []

    @property
    def session(self) -> MysqlSession:
        """The session, alive as far as can be seen from here."""
        with self._lock:
            if self._within:
                if self._session.closed:  # a new session would run the rest of the transaction without its beginning
                    raise TargetError("the connection was lost in a transaction", code="2013/HY000", transient=True)
                return self._session
            if self._session.closed or self._session.readable():
                self._session.close()
                self._session = self._connector.patiently()
            return self._session

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
            self._after.clear()
            self.session.begin()
            self._within = True

    def commit(self) -> None:
        with self._lock:
            self._within = False
            after, self._after = self._after, []
            self._session.commit()
            for action in after:
                action()

    def rollback(self) -> None:
        with self._lock:
            self._within = False
            self._after.clear()
            self._session.rollback()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Runs ``action`` when what is open is committed (now, where nothing is): DDL would end the transaction."""
        with self._lock:
            if self._within:
                self._after.append(action)
            else:
                action()

    def close(self) -> None:
        self._session.close()
