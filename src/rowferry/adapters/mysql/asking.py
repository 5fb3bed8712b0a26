"""A user's question to a MySQL or MariaDB server, on a connection of its own."""

from __future__ import annotations

from typing import Any

from rowferry import limits
from rowferry.adapters.asking import ServerAsker
from rowferry.adapters.mysql.session import MysqlSession


class MysqlAsker(ServerAsker[MysqlSession]):
    """The protocol's Asker."""

    def _opened(self, session: MysqlSession) -> None:
        timeout_s = limits.SIGNAL_TIMEOUT_S
        limit = f"max_statement_time = {timeout_s:g}"
        if not session.flavour.mariadb:
            limit = f"max_execution_time = {round(timeout_s * 1000)}"
        session.query(f"SET SESSION {limit}, lock_wait_timeout = {max(1, round(timeout_s))}")

    def _rows(self, session: MysqlSession, sql: str) -> list[tuple[Any, ...]]:
        # Reads the present each time, and writes nothing: the server refuses that in such a transaction.
        session.query("START TRANSACTION READ ONLY")
        return session.query(sql)
