"""One MySQL session: variables pinned, SQL in, Python values out, failures as rowferry's errors."""

from __future__ import annotations

import contextlib
import re
import select
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pymysql import err
from pymysql.constants import FIELD_TYPE

from rowferry.adapters.mysql import failure, wire
from rowferry.adapters.mysql.quoting import filled, literal
from rowferry.errors import OutcomeUnknownError, RowferryError, SourceError

#: What the SQL of this adapter, and a user's --where, is written for: no ANSI_QUOTES, backslashes escape.
#: Zero dates, and days that their month has not, may be read, compared and written (a date of another engine never
#: is one); any other value that does not fit is an error; an explicit 0 is kept.
SQL_MODE = (
    "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,"
    "ALLOW_INVALID_DATES"
)

#: A source may stall while the target works, and the other way round; a network that was cut is noticed
#: sooner by TCP's probes. Seconds.
NET_TIMEOUT_S = 3_600
#: Between two chunks, and while a snapshot's session waits for its turn.
WAIT_TIMEOUT_S = 86_400
#: For another session's ALTER TABLE (metadata locks), and for another's rows. A reader may wait behind an
#: ALTER that waits for another reader of ours, which nobody would ever end: so not for long.
LOCK_WAIT_TIMEOUT_S, ROW_LOCK_WAIT_TIMEOUT_S = 60, 50

#: Session variables that change what is read or written, or that could end a long copy, whatever the
#: server's globals and its init_connect say. A server is asked which of them it has. Values are SQL.
PINNED = {
    "autocommit": "1",
    "completion_type": "0",
    "sql_mode": f"'{SQL_MODE}'",
    "time_zone": "'+00:00'",
    "character_set_client": "utf8mb4",
    "character_set_results": "utf8mb4",
    # Texts that have no collation of a column's are compared by their characters.
    "collation_connection": "utf8mb4_bin",
    "lc_time_names": "'en_US'",
    "lc_messages": "'en_US'",
    "old_mode": "''",
    # The number of rows, and what a row is.
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "sql_auto_is_null": "0",
    "sql_safe_updates": "0",
    "sql_if_exists": "0",
    "div_precision_increment": "4",
    "group_concat_max_len": "16777216",
    "max_sort_length": "65535",
    "sort_buffer_size": "2097152",
    "default_regex_flags": "''",
    "query_cache_type": "OFF",
    "sql_buffer_result": "0",
    "use_secondary_engine": "OFF",
    "show_gipk_in_create_table_and_information_schema": "1",
    "information_schema_stats_expiry": "0",
    "sql_quote_show_create": "1",
    # Not the global's value, but none: the tables as they are, not as they were at some time.
    "system_versioning_asof": "DEFAULT",
    "wsrep_dirty_reads": "0",
    "wsrep_trx_fragment_size": "0",
    # Constraints, and the warnings that tell of a value that was changed: LOAD DATA is taken at its count of them.
    "unique_checks": "1",
    "foreign_key_checks": "1",
    "check_constraint_checks": "1",
    "sql_notes": "1",
    "sql_warnings": "0",
    "max_error_count": "64",
    "note_verbosity": "'basic'",
    # Time and room.
    "max_statement_time": "0",
    "max_execution_time": "0",
    "max_session_mem_used": "9223372036854775807",
    "net_read_timeout": str(NET_TIMEOUT_S),
    "net_write_timeout": str(NET_TIMEOUT_S),
    "wait_timeout": str(WAIT_TIMEOUT_S),
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    "idle_write_transaction_timeout": "0",
    "lock_wait_timeout": str(LOCK_WAIT_TIMEOUT_S),
    "innodb_lock_wait_timeout": str(ROW_LOCK_WAIT_TIMEOUT_S),
    "low_priority_updates": "0",
}

#: What PyMySQL raises: its own errors, the socket's, and what it runs into where a server breaks the protocol.
_FAILURES = (err.Error, OSError, RuntimeError, AssertionError, IndexError, ValueError, struct.error)

#: What a session needs to be told by the server, beside the variables of ``PINNED``.
_ASKED = (
    "log_bin",
    "binlog_format",
    "log_slave_updates",
    "local_infile",
    "max_allowed_packet",
    "lower_case_table_names",
)

#: Result columns that become Python's numbers. All else is text, or bytes where the server says so.
DECODERS: dict[Any, Any] = {
    FIELD_TYPE.TINY: int,
    FIELD_TYPE.SHORT: int,
    FIELD_TYPE.INT24: int,
    FIELD_TYPE.LONG: int,
    FIELD_TYPE.LONGLONG: int,
    FIELD_TYPE.YEAR: int,
    FIELD_TYPE.FLOAT: float,
    FIELD_TYPE.DOUBLE: float,
}


class Flavour(msgspec.Struct, frozen=True):
    """Which server this is, and what it can do. ``version`` has three numbers."""

    mariadb: bool
    version: tuple[int, int, int]
    #: As the server writes it, for messages.
    text: str

    @staticmethod
    def parse(text: str) -> Flavour:
        """From the version in the server's greeting (``5.5.5-10.11.6-MariaDB-log``, ``8.4.3``)."""
        mariadb = "mariadb" in text.lower()
        # MariaDB puts 5.5.5- before its own number, for replicas that would not know a 10.
        shown = text.removeprefix("5.5.5-") if mariadb else text
        found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", shown)
        numbers = tuple(int(n or 0) for n in found.groups()) if found else (0, 0, 0)
        return Flavour(mariadb, (numbers[0], numbers[1], numbers[2]), shown)

    def __str__(self) -> str:
        return f"{'MariaDB' if self.mariadb else 'MySQL'} {self.text}"

    @property
    def skips_locked(self) -> bool:
        """SELECT … FOR UPDATE SKIP LOCKED."""
        return self.version >= ((10, 6, 0) if self.mariadb else (8, 0, 1))

    @property
    def has_backup_stage(self) -> bool:
        return self.mariadb and self.version >= (10, 4, 1)

    @property
    def has_uuid(self) -> bool:
        return self.mariadb and self.version >= (10, 7, 0)


class MysqlSession:
    """One connection. ``role`` is the class of its errors: SourceError, TargetError or LedgerError.

    Used by one thread at a time. Outside begin … commit every statement is its own transaction.
    ``connection`` is the driver's, for :mod:`wire`.
    """

    def __init__(self, connection: Any, role: type[RowferryError]) -> None:
        self.connection = connection
        self.role = role
        self.flavour = Flavour.parse(str(connection.get_server_info()))
        self._within = False
        try:
            self.variables = self._pin()
        except BaseException:
            self.close()
            raise

    def _pin(self) -> dict[str, str]:
        """Sets every variable of ``PINNED`` that the server has; returns what it said of them before."""
        # First what would cut the answer to the question short, or end it.
        first = ["sql_mode", "sql_select_limit", "sql_big_selects"]
        if self.flavour.version >= ((10, 1, 1) if self.flavour.mariadb else (5, 7, 8)):
            first.append("max_statement_time" if self.flavour.mariadb else "max_execution_time")
        self.query("SET SESSION " + ", ".join(f"{name} = {PINNED[name]}" for name in first))
        names = ", ".join(literal(name) for name in (*PINNED, *_ASKED))
        found = {str(name).lower(): str(value) for name, value in self.query(_VARIABLES.format(names=names))}
        self.query("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in PINNED.items() if name in found))
        # A writer under REPEATABLE READ locks gaps between rows and runs into deadlocks with others; InnoDB
        # writes nothing under READ COMMITTED into a binary log of statements.
        statements = found.get("log_bin") == "ON" and found.get("binlog_format") == "STATEMENT"
        level = "REPEATABLE READ" if statements or issubclass(self.role, SourceError) else "READ COMMITTED"
        self.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}, READ WRITE")
        return found

    @property
    def closed(self) -> bool:
        return not self.connection.open

    @property
    def in_transaction(self) -> bool:
        return self._within

    @property
    def id(self) -> int:
        """The server's number of this connection (for KILL)."""
        return int(self.connection.thread_id())

    def readable(self) -> bool:
        """Something came while nothing was asked: the server's farewell, or the connection's end."""
        try:
            number = wire.descriptor(self.connection)
            return number is None or bool(select.select([number], [], [], 0)[0])
        except (OSError, ValueError):
            return True

    def _driven(self, sql: str) -> Any:
        """The driver's cursor after one statement. Raises the role's error."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(sql)
        except _FAILURES as error:
            raise self.error(error) from None
        return cursor

    def error(self, error: Exception) -> RowferryError:
        """A failure of the driver or of :mod:`wire`, as this session's error."""
        if isinstance(error, err.Error):
            return failure.from_driver(error, self.role)
        self.close()
        return self.role(f"the connection broke: {error}", code="2013/HY000", transient=True)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs one statement as it stands and returns its rows. Raises the role's error, or DataError."""
        return list(self._driven(sql).fetchall())

    def table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The same, with the names of the columns."""
        cursor = self._driven(sql)
        return [str(column[0]) for column in cursor.description or ()], list(cursor.fetchall())

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement with ``?`` placeholders and returns its rows."""
        return self.query(filled(sql, params) if params else sql)

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Runs one INSERT, UPDATE or DELETE and returns how many rows it found (an UPDATE: also those that
        had the new values already)."""
        return int(self._driven(filled(sql, params) if params else sql).rowcount)

    def begin(self) -> None:
        self.query("START TRANSACTION READ WRITE")
        self._within = True

    def begin_snapshot(self) -> None:
        """Begins a transaction that only reads, and whose view of all InnoDB tables is that of this instant.
        One that is open ends."""
        self.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        self._within = True

    def commit(self) -> None:
        """Raises OutcomeUnknownError where the answer was lost."""
        self._within = False
        try:
            self.connection.cursor().execute("COMMIT")
        except _FAILURES as error:
            if isinstance(error, err.Error) and not failure.is_loss(failure.code_of(error)) and not self.closed:
                raise self.error(error) from None
            said = self.error(error)
            raise OutcomeUnknownError(
                f"the answer to COMMIT was lost: {said.message}", code=said.code, transient=True
            ) from None

    def rollback(self) -> None:
        """Undoes what is open; closes the connection where that fails. Never raises."""
        self._within = False
        if self.closed:
            return
        try:
            self.connection.cursor().execute("ROLLBACK")
        except _FAILURES:
            self.close()

    def cut(self) -> None:
        """From another thread: what this session waits for fails at once. Never raises."""
        wire.cut(self.connection)

    def close(self) -> None:
        """Ends the session. Never raises."""
        self._within = False
        with contextlib.suppress(err.Error, OSError):
            self.connection.close()


_VARIABLES = "SHOW SESSION VARIABLES WHERE Variable_name IN ({names})"

#: Makes a session; what a source or a target is given to connect with.
Connect = Callable[[], MysqlSession]
