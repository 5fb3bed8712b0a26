"""The target's control connection: it comes back when the server does, and with it the job's lock."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from rowferry import limits
from rowferry.adapters.postgres.connect import Parameters, connect
from rowferry.adapters.postgres.session import Session
from rowferry.errors import LedgerError, RowferryError, TargetError


class Connector:
    """Opens sessions to one place, and can cut all of them from another thread."""

    def __init__(self, parameters: Parameters, role: type[RowferryError]) -> None:
        self.parameters = parameters
        self._role = role
        self._open: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cut = threading.Event()

    def connect(self) -> Session:
        """One try. Raises the role's error (transient where the server may come back) or ConfigError."""
        if self._cut.is_set():
            raise self._role("the connection was cut on request", transient=True)
        session = connect(self.parameters, self._role)
        with self._lock:
            self._open.add(session)
        return session

    def patiently(self) -> Session:
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


class Control:
    """An SqlSession (see ``sql_ledger``) that reconnects between transactions, never within one."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._session = connector.connect()
        self._lock = threading.RLock()
        self._locks: set[str] = set()
        #: Between begin and commit or rollback.
        self._within = False

    @property
    def session(self) -> Session:
        """The session, alive as far as can be seen from here."""
        with self._lock:
            wire = self._session.wire
            if self._within:
                if wire.closed:  # a new session would run the rest of the transaction without its beginning
                    raise TargetError("the connection was lost in a transaction", code="08006", transient=True)
                return self._session
            # An idle session has nothing to read: what is there is the server's farewell, or its end.
            if wire.closed or wire.readable():
                self._session.close()
                self._session = self._connector.patiently()
                self._take_locks()
            return self._session

    def _take_locks(self) -> None:
        """The advisory locks went with the old session; another process may have them by now, or the
        server has not seen yet that the old session is gone."""
        for job in sorted(self._locks):
            until = time.monotonic() + limits.LOCK_PATIENCE_S
            while not (mine := self._acquire(job)) and time.monotonic() < until:
                time.sleep(limits.CLAIM_POLL_S)
            if not mine:
                self._locks.discard(job)
                raise LedgerError(
                    "the connection was lost, and with it the job's lock, which another process has taken",
                    hint="that process goes on with the job",
                )

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

    # -- the job's lock: an advisory lock of this session, so that it dies with the process

    def acquire(self, job: str) -> bool:
        with self._lock:
            if self._acquire(job):
                self._locks.add(job)
                return True
            return False

    def _acquire(self, job: str) -> bool:
        return bool(self._session.execute("SELECT pg_try_advisory_lock(?::bigint)", (lock_key(job),))[0][0])

    def release(self, job: str) -> None:
        with self._lock:
            if job in self._locks:
                self._locks.discard(job)
                # A lost session has lost its locks as well: no new one is opened to say so.
                if not self._session.wire.closed and not self._session.wire.readable():
                    with contextlib.suppress(RowferryError):
                        self._session.execute("SELECT pg_advisory_unlock(?::bigint)", (lock_key(job),))

    def close(self) -> None:
        self._session.close()


def lock_key(job: str) -> int:
    """64 bits of the job's name: advisory locks are numbers, one space for a database."""
    return int.from_bytes(hashlib.blake2b(f"rowferry {job}".encode(), digest_size=8).digest(), "big", signed=True)
