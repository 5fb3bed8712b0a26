"""A user's question to a SQLite file, on a connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from rowferry.adapters.asking import wrapped
from rowferry.adapters.sqlite.wire import File, Session
from rowferry.errors import RowferryError

#: What a question gets that was interrupted: it took too long.
_INTERRUPTED = "SQLITE 9"

#: Runs a function while this process writes nothing, if that is so now; returns whether it was.
Turn = Callable[[Callable[[], None]], bool]


class SqliteAsker:
    """The protocol's Asker.

    turn: of a target. Its own transactions keep every reader out for a while, and nobody else can write meanwhile:
    it is asked between them, and an answer stands until the next one.
    """

    def __init__(self, file: File, turn: Turn | None = None) -> None:
        self._file = file
        self._turn = turn
        self._session: Session | None = None
        self._rows: list[tuple[Any, ...]] | None = None

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        if self._turn is None:
            return self._asked(sql)

        def ask() -> None:
            self._rows = self._asked(sql)

        if not self._turn(ask) and self._rows is None:
            raise self._file.error("this process writes the file just now", transient=True)
        assert self._rows is not None
        return self._rows

    def _asked(self, sql: str) -> list[tuple[Any, ...]]:
        if self._session is None:
            self._session = self._file.session()
            self._session.execute("PRAGMA trusted_schema = OFF")
        try:
            # Each time: the question itself is one statement of the user's.
            self._session.execute("PRAGMA query_only = ON")
            return self._session.execute(wrapped(sql))
        except RowferryError as error:
            error.transient = error.transient or error.code == _INTERRUPTED
            raise

    def cut(self) -> None:
        session = self._session
        if session is not None:
            with contextlib.suppress(RowferryError):
                session.database.interrupt()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
