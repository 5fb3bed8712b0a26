"""One PostgreSQL session: settings pinned, SQL in, Python values out, failures as rowferry's errors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from rowferry.adapters.postgres import failure
from rowferry.adapters.postgres.wire import ConnectionLostError, Result, ServerError, Wire
from rowferry.errors import OutcomeUnknownError, RowferryError, TargetError

#: Settings that change what is read or written, or that could end a long copy, whatever the server,
#: the database or the role say. The empty search_path leaves pg_catalog alone: every name that we
#: write is qualified, and format_type() and casts to text qualify theirs.
PINNED = {
    "search_path": "",
    "client_encoding": "UTF8",
    "client_min_messages": "error",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "lc_monetary": "C",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "xmlbinary": "base64",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "escape_string_warning": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # A client that was killed, or whose network was cut, must not go on holding its chunk and the job's
    # lock: while a statement runs the server looks every second, while it waits for us by TCP's probes.
    "client_connection_check_interval": "1000",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "tcp_user_timeout": "120000",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "check_function_bodies": "off",
    "jit": "off",
}

#: Settings of PINNED that servers of each version have, by what they say at login.
_KNOWN: dict[str, frozenset[str]] = {}
_UNKNOWN_SETTING = "42704"

#: A placeholder, or what is quoted (to the end, where the quote does not end).
_PLACES = re.compile(r"""\?|'[^']*'?|"[^"]*"?""")

_INTEGER_OIDS = frozenset((20, 21, 23, 26, 28))
_FLOAT_OIDS = frozenset((700, 701))
_BOOL_OID = 16


def pin_sql(known: Collection[str] | None = None) -> str:
    """Statements that pin all settings, and give the names of those that this server's version has.

    known: those names, as another session on a server of this version was given them. Finding them costs 1 ms of
    every session, and setting what is known 0.4.

    A COMMIT that was answered has to outlive the server's crash, or chunks that were counted would be gone:
    ``synchronous_commit = off`` is raised to the least that says so, and whatever waits for more is left as it is.
    """
    durable = (
        "SELECT pg_catalog.set_config('synchronous_commit', 'local', false) "
        "WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'; "
    )
    if known is not None:
        # SET would make an empty search_path one of a schema whose name is empty.
        rest = "; ".join(f"SET {name} = '{PINNED[name]}'" for name in PINNED if name in known and PINNED[name])
        return f"{durable}SELECT pg_catalog.set_config('search_path', '', false); {rest}"
    pairs = ", ".join(f"('{name}', '{value}')" for name, value in PINNED.items())
    return durable + (
        "SELECT v.name, pg_catalog.set_config(v.name, v.value, false) FROM (VALUES "
        f"{pairs}) AS v(name, value) WHERE pg_catalog.current_setting(v.name, true) IS NOT NULL"
    )


def to_text(value: Any) -> str | None:
    """A parameter as the text that the server parses."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f"no parameter of type {type(value).__name__}")


def numbered(sql: str) -> str:
    """``?`` placeholders as ``$1`` …; those within quotes are left alone."""
    numbers = itertools.count(1)
    return _PLACES.sub(lambda found: f"${next(numbers)}" if found[0] == "?" else found[0], sql)


def values(result: Result) -> list[tuple[Any, ...]]:
    """Rows with integers, floats and booleans as Python's; everything else as text."""
    makers: list[Callable[[str], Any] | None] = []
    for oid in result.oids:
        if oid in _INTEGER_OIDS:
            makers.append(int)
        elif oid in _FLOAT_OIDS:
            makers.append(float)
        elif oid == _BOOL_OID:
            makers.append("t".__eq__)
        else:
            makers.append(None)
    if not any(makers):
        return list(result.rows)
    return [
        tuple(v if v is None or make is None else make(v) for v, make in zip(row, makers, strict=True))
        for row in result.rows
    ]


class Session:
    """One connection. ``role`` is the class of its errors: SourceError, TargetError or LedgerError.

    Used by one thread at a time. Outside begin … commit every statement is its own transaction.
    """

    def __init__(self, wire: Wire, role: type[RowferryError]) -> None:
        self.wire = wire
        self.role = role
        try:
            self._pin()
        except BaseException:
            wire.close()
            raise

    def _pin(self) -> None:
        version = self.wire.parameters.get("server_version", "")
        if (known := _KNOWN.get(version)) is not None:
            try:
                self.query(pin_sql(known))
                return
            except RowferryError as error:
                # Two builds that call themselves the same: nothing of the statements holds, and they are found anew.
                if error.code != _UNKNOWN_SETTING:
                    raise
        _KNOWN[version] = frozenset(str(name) for name, _ in self.query(pin_sql()))

    @property
    def version(self) -> int:
        """The server's major version."""
        digits = self.wire.parameters.get("server_version", "0").split(".")[0]
        return int("".join(c for c in digits if c.isdigit())[:2] or 0)

    @property
    def closed(self) -> bool:
        return self.wire.closed

    def readable(self) -> bool:
        return self.wire.readable()

    @property
    def in_transaction(self) -> bool:
        return self.wire.status != "I"

    def error(self, error: Exception) -> RowferryError:
        """A failure of the wire, as this session's error."""
        if isinstance(error, ServerError):
            return failure.from_server(error, self.role)
        if isinstance(error, ConnectionLostError):
            return failure.from_loss(error, self.role)
        raise error

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs statements without parameters in one round trip; returns the rows of the last."""
        try:
            results = self.wire.simple(sql)
        except (ServerError, ConnectionLostError) as error:
            raise self.error(error) from None
        return values(results[-1]) if results else []

    def queries(self, *sql: str) -> list[list[tuple[Any, ...]]]:
        """Runs statements without parameters in one round trip; returns the rows of each."""
        try:
            return [values(result) for result in self.wire.simple("; ".join(sql))]
        except (ServerError, ConnectionLostError) as error:
            raise self.error(error) from None

    def _run(self, sql: str, params: Sequence[Any]) -> Result:
        try:
            if not params:
                results = self.wire.simple(sql)
                return results[-1] if results else Result([], [])
            return self.wire.extended(numbered(sql), [to_text(p) for p in params])
        except (ServerError, ConnectionLostError) as error:
            raise self.error(error) from None

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement with ``?`` placeholders and returns its rows."""
        return values(self._run(sql, params))

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Runs one statement and returns how many rows it touched."""
        return self._run(sql, params).count

    def begin(self) -> None:
        self.query("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")

    def commit(self) -> None:
        """Raises OutcomeUnknownError where the answer was lost."""
        try:
            results = self.wire.simple("COMMIT")
        except ConnectionLostError as error:
            raise OutcomeUnknownError(f"the answer to COMMIT was lost: {error}", code="08007", transient=True) from None
        except ServerError as error:
            if self.wire.closed:
                raise OutcomeUnknownError(
                    f"the server went away in COMMIT: {error}", code=error.fields.get("C"), transient=True
                ) from None
            raise self.error(error) from None
        if not results or results[-1].tag != "COMMIT":
            raise TargetError("COMMIT was answered with ROLLBACK: the transaction had failed before", transient=True)

    def rollback(self) -> None:
        """Undoes what is open; closes the connection where that fails. Never raises."""
        try:
            if not self.wire.closed and self.wire.status != "I":
                self.wire.simple("ROLLBACK")
        except (ServerError, ConnectionLostError):
            self.wire.abandon()

    def cut(self) -> None:
        """From another thread: what this session waits for fails at once. Never raises."""
        self.wire.cut()

    def close(self) -> None:
        self.wire.close()
