"""The target's control connection: it comes back when the server does, and with it the job's lock."""

from __future__ import annotations

import contextlib
import hashlib

from rowferry.adapters import servers
from rowferry.adapters.postgres.connect import Parameters, connect
from rowferry.adapters.postgres.session import Session
from rowferry.errors import RowferryError


class Connector(servers.Connector[Session]):
    """Opens sessions to one place, and can cut all of them from another thread."""

    def __init__(self, parameters: Parameters, role: type[RowferryError]) -> None:
        super().__init__(role)
        self.parameters = parameters

    def _new(self) -> Session:
        return connect(self.parameters, self._role)


class Control(servers.Control[Session]):
    """The control connection, which holds the job's lock as well."""

    lost_code = "08006"

    def __init__(self, connector: Connector) -> None:
        super().__init__(connector)
        self._locks: set[str] = set()

    def _reconnected(self) -> None:
        servers.take_again(self._locks, self._acquire)

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
                if not self._session.closed and not self._session.readable():
                    with contextlib.suppress(RowferryError):
                        self._session.execute("SELECT pg_advisory_unlock(?::bigint)", (lock_key(job),))


def lock_key(job: str) -> int:
    """64 bits of the job's name: advisory locks are numbers, one space for a database."""
    return int.from_bytes(hashlib.blake2b(f"rowferry {job}".encode(), digest_size=8).digest(), "big", signed=True)
