"""A user's question to a DuckDB database, on a cursor of its own."""

from __future__ import annotations

from typing import Any

import duckdb

from rowferry.adapters.asking import wrapped
from rowferry.adapters.duckdb.wire import Database, Session
from rowferry.errors import RowferryError


class DuckdbAsker:
    """The protocol's Asker: each question is a read-only transaction of its own, beside those that write."""

    def __init__(self, database: Database, error: type[RowferryError]) -> None:
        self._database = database
        self._error = error
        self._session: Session | None = None
        self._cut = False

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        if self._session is None:
            self._session = self._database.session(self._error)
        session, text = self._session, wrapped(sql)
        self._cut = False
        try:
            with session.errors():
                if len(duckdb.extract_statements(text)) != 1:
                    raise self._error("DuckDB: not exactly one statement")
            session.execute("BEGIN TRANSACTION READ ONLY")
            session.in_transaction = True
            return session.execute(text)
        except RowferryError as error:
            error.transient = error.transient or self._cut
            raise
        finally:
            session.rollback()

    def cut(self) -> None:
        session = self._session
        if session is not None:
            self._cut = True
            session.interrupt()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
