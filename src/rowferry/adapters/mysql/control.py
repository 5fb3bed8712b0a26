"""The target's control connection, which comes back when the server does, and the job's lock on one of its own."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable

from rowferry.adapters import servers
from rowferry.adapters.mysql.connect import Connector
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import RowferryError, TargetError

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
            servers.take_again(self._held, self._get)

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


class Control(servers.Control[MysqlSession]):
    """The control connection. DDL commits what is open: what has to wait for a COMMIT is kept here."""

    lost_code = "2013/HY000"

    def __init__(self, connector: Connector) -> None:
        super().__init__(connector)
        self._after: list[Callable[[], None]] = []

    def begin(self) -> None:
        with self._lock:
            self._after.clear()
            super().begin()

    def commit(self) -> None:
        with self._lock:
            after, self._after = self._after, []
            super().commit()
            for action in after:
                action()

    def rollback(self) -> None:
        with self._lock:
            self._after.clear()
            super().rollback()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Runs ``action`` when what is open is committed (now, where nothing is): DDL would end the transaction."""
        with self._lock:
            if self._within:
                self._after.append(action)
            else:
                action()
