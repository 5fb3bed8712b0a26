"""What the askers of all engines share: the question as a subquery, and a connection that comes back."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar


def wrapped(sql: str) -> str:
    """The question as a subquery: only what reads fits in there, and it ends after two rows. The newlines end
    a comment in it."""
    return f"SELECT * FROM (\n{sql.strip().rstrip(';')}\n) AS rowferry_asked LIMIT 2"


class Session(Protocol):
    """What a session must be able to do."""

    @property
    def closed(self) -> bool: ...

    def readable(self) -> bool: ...

    def rollback(self) -> None: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=Session)


class ServerAsker(abc.ABC, Generic[S]):
    """The protocol's Asker on a server: each question is a read-only transaction of its own."""

    def __init__(self, connect: Callable[[], S]) -> None:
        self._connect = connect
        self._session: S | None = None

    @abc.abstractmethod
    def _opened(self, session: S) -> None:
        """What a new session is told first."""

    @abc.abstractmethod
    def _rows(self, session: S, sql: str) -> list[tuple[Any, ...]]:
        """Begins a read-only transaction and runs the statement in it."""

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        session = self._alive()
        try:
            return self._rows(session, wrapped(sql))
        finally:
            session.rollback()

    def _alive(self) -> S:
        session = self._session
        if session is not None and (session.closed or session.readable()):
            session.close()
            session = None
        if session is None:
            self._session = session = self._connect()
            self._opened(session)
        return session

    def cut(self) -> None:
        if (session := self._session) is not None:
            session.cut()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
