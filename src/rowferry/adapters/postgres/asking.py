"""A user's question to a PostgreSQL server, on a connection of its own."""

from __future__ import annotations

from typing import Any

from rowferry import limits
from rowferry.adapters.asking import ServerAsker
from rowferry.adapters.postgres.session import Session, values
from rowferry.adapters.postgres.wire import ConnectionLostError, ServerError
from rowferry.errors import RowferryError

#: A statement that was ended by statement_timeout, or by somebody: the next try may have an answer.
_CANCELLED = "57014"
#: Names are those that the user would write in psql; a lock that somebody holds is not waited for longer either.
_BEGIN = (
    "BEGIN READ ONLY; SET LOCAL search_path TO DEFAULT; "
    f"SET LOCAL statement_timeout = {round(limits.SIGNAL_TIMEOUT_S * 1000)}"
)


class PostgresAsker(ServerAsker[Session]):
    """The protocol's Asker."""

    def _opened(self, session: Session) -> None:
        """Nothing: what it needs is set in each transaction."""

    def _rows(self, session: Session, sql: str) -> list[tuple[Any, ...]]:
        session.query(_BEGIN)
        try:
            # The extended protocol takes one statement and no more.
            return values(session.wire.extended(sql, []))
        except (ServerError, ConnectionLostError) as error:
            raise _timed_out(session.error(error)) from None


def _timed_out(error: RowferryError) -> RowferryError:
    error.transient = error.transient or error.code == _CANCELLED
    return error
