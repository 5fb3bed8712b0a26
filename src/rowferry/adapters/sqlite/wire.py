"""Sessions on a SQLite file, over the kernels where Python's own library can be reached, else over ``sqlite3``.

There is one copy of SQLite in the process, always: a second one would drop the first one's locks
when it closes a file (FACTS 3b). For the same reason nothing here ever opens the database file
beside SQLite; only ``os.stat`` looks at it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote as percent_encoded

import pyarrow as pa

from rowferry._native import sqlite_rows, sqlite_write
from rowferry._native.sqlite_rows import SqliteFailure, UnfitValue
from rowferry.adapters.sqlite import plain
from rowferry.adapters.transactions import atomic
from rowferry.errors import ConfigError, DataError, OutcomeUnknownError, RowferryError, TargetError
from rowferry.model import Endpoint

__all__ = ["File", "ProcessLock", "Session", "SqliteFailure", "UnfitValue", "library", "quote"]

#: How long a database that another process has locked is waited for, before the chunk is tried again (ms).
BUSY_MS = 5_000
#: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI; the URI's mode narrows it.
_OPEN_FLAGS = 0x2 | 0x4 | 0x40
#: Set to use the standard module instead of the kernels.
PLAIN_VARIABLE = "ROWFERRY_SQLITE_PLAIN"
_OPTIONS = ("timeout", "immutable")
#: Primary result codes and what they mean for us.
_CODES = {
    5: "the database is locked by another connection",
    6: "a table is locked by another connection",
    7: "out of memory",
    8: "the database is read-only",
    9: "interrupted",
    10: "the disk or file system failed",
    11: "the database file is damaged",
    13: "the disk is full",
    14: "the file cannot be opened",
    18: "a value is larger than this SQLite allows",
    23: "not authorised",
    26: "this is not a SQLite database, or it is encrypted",
}
_TRANSIENT = (5, 6, 17)
_DATA = (18, 19, 20)


def quote(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


@functools.cache
def library() -> str | None:
    """The shared object whose SQLite Python uses; None where its symbols cannot be reached."""
    import _sqlite3

    # A statically linked module has no file: its symbols may be the process's own.
    path = getattr(_sqlite3, "__file__", "") or ""
    try:
        version = sqlite_rows.library_version(path)
    except ImportError:
        return None
    import sqlite3

    return path if version == sqlite3.sqlite_version else None


def error_of(failure: SqliteFailure, kind: type[RowferryError], doing: str = "") -> RowferryError:
    """SQLite's failure as one of ours; ``kind`` is SourceError or TargetError (or a subclass)."""
    primary = failure.code & 0xFF
    meaning = _CODES.get(primary)
    message = f"{meaning} ({failure.message})" if meaning and meaning != failure.message else failure.message
    if primary in _DATA and issubclass(kind, TargetError):
        kind = DataError
    return kind(
        f"SQLite{doing}: {message}",
        code=f"SQLITE {failure.code}",
        transient=primary in _TRANSIENT,
        hint="end what holds the lock, or raise ?timeout= (seconds)" if primary in (5, 6) else None,
    )


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


class File:
    """A database file as an endpoint names it, and how its connections are opened.

    error: SourceError or TargetError, which failures become. create: a missing file is made.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        error: type[RowferryError],
        *,
        read_only: bool,
        create: bool = False,
        triggers: bool = True,
    ) -> None:
        assert endpoint.path is not None
        unknown = [name for name, _ in endpoint.query if name not in _OPTIONS]
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r} in the URL", hint=f"known are {', '.join(_OPTIONS)}")
        self.path = os.path.abspath(endpoint.path)
        self.error = error
        self.read_only = read_only
        self.create = create
        self.triggers = triggers
        self.immutable = endpoint.option("immutable", "0") not in ("0", "", None)
        try:
            self.busy_ms = int(float(endpoint.option("timeout", str(BUSY_MS / 1000)) or 0) * 1000)
        except ValueError:
            raise ConfigError("timeout in the URL is not a number of seconds") from None
        self.plain = bool(os.environ.get(PLAIN_VARIABLE)) or library() is None
        if self.plain and not triggers:
            raise ConfigError(
                "triggers cannot be disabled: this Python's SQLite library cannot be reached", hint="choose fire"
            )
        if os.path.isdir(self.path):
            raise error(f"{endpoint.path!r} is a folder, not a database file")
        if not create and not os.path.exists(self.path):
            raise error(f"there is no file {endpoint.path!r}")

    @property
    def writable(self) -> bool:
        """Whether this process could take SQLite's locks: the file and its folder can be written."""
        folder = os.path.dirname(self.path)
        return not self.immutable and _may(self.path, os.W_OK) and _may(folder, os.W_OK | os.X_OK)

    def session(self, error: type[RowferryError] | None = None) -> Session:
        """A new connection."""
        failures = error or self.error
        # Also what is only read is opened for writing where that may be: a journal that a crash left has to be
        # rolled back before anybody can read. What may not write says so by PRAGMA query_only.
        mode = "rwc" if self.create else "rw" if self.writable or not self.read_only else "ro"
        uri = f"file:{percent_encoded(os.fsencode(self.path))}?mode={mode}"
        try:
            try:
                return self._session(uri + ("&immutable=1" if self.immutable else ""), failures)
            except SqliteFailure as failure:
                # In WAL mode even a reader needs to write beside the file. Without a log there is nothing to miss.
                if failure.code & 0xFF not in (8, 14) or mode != "ro" or self._has_log():
                    raise
                return self._session(uri + "&immutable=1", failures)
        except SqliteFailure as failure:
            raise error_of(failure, failures, f" cannot open {os.path.basename(self.path)!r}") from None

    def _session(self, uri: str, error: type[RowferryError]) -> Session:
        database = self._open(uri)
        try:
            # The file is looked at only now.
            database.execute("PRAGMA schema_version", ())
            database.execute("SELECT count(*) FROM sqlite_master", ())
        except BaseException:
            database.close()
            raise
        return Session(database, error)

    def _has_log(self) -> bool:
        try:
            return os.stat(f"{self.path}-wal").st_size > 0
        except OSError:
            return False

    def _open(self, uri: str) -> Any:
        if self.plain:
            return plain.PlainDatabase(uri, self.busy_ms)
        return sqlite_rows.Database(library(), uri, _OPEN_FLAGS, self.busy_ms, self.triggers, not self.read_only)

    def stat_token(self) -> str:
        """The file's and its log's place, size and time of change: without opening them."""
        parts = []
        for path in (self.path, f"{self.path}-wal"):
            try:
                found = os.stat(path)
                parts.append(f"{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}")
            except OSError:
                parts.append("-")
        # An empty log says no more than none; the last connection to close removes it.
        if parts[1] != "-" and parts[1].split(".")[2] == "0":
            parts[1] = "-"
        return "/".join(parts)


class Session:
    """One connection, for one thread at a time. Failures become ``error`` (DataError for constraints)."""

    def __init__(self, database: Any, error: type[RowferryError]) -> None:
        self.database = database
        self.error = error

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self.database.execute(sql, tuple(params))
        except SqliteFailure as failure:
            raise error_of(failure, self.error) from None
        except (UnicodeEncodeError, OverflowError) as problem:
            raise self.error(f"SQLite cannot take a value of a statement: {problem}") from None
        return rows

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        self.execute(sql, params)
        return int(self.database.changes)

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        try:
            self.database.execute("COMMIT", ())
        except SqliteFailure as failure:
            error = error_of(failure, self.error, " cannot commit")
            # A disk that fails in COMMIT may or may not have kept it; the ledger knows after a reconnect.
            if failure.code & 0xFF == 10 and issubclass(self.error, TargetError):
                raise OutcomeUnknownError(error.message, code=error.code, transient=True) from None
            raise error from None

    def rollback(self) -> None:
        if self.database.in_transaction:
            self.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        return bool(self.database.in_transaction)

    def atomic(self) -> contextlib.AbstractContextManager[None]:
        """A transaction, or a part of the one that is open."""
        return atomic(self, self.in_transaction)

    def reader(self, sql: str, params: Sequence[Any], specs: Sequence[plain.Spec], utf8: bool) -> Any:
        """A kernel's Reader (or its twin). Raises SqliteFailure."""
        if isinstance(self.database, plain.PlainDatabase):
            return plain.PlainReader(self.database, sql, params, specs)
        return sqlite_rows.Reader(self.database, sql, tuple(params), list(specs), utf8)

    def census(self, sql: str, candidates: Sequence[Sequence[plain.Spec]], utf8: bool) -> tuple[int, list[Any]]:
        """Rows, and for each column (stored types, bytes, unfit of each candidate)."""
        try:
            if isinstance(self.database, plain.PlainDatabase):
                return plain.census(self.database, sql, (), candidates)
            counted: tuple[int, list[Any]] = sqlite_rows.census(
                self.database, sql, (), [list(c) for c in candidates], utf8
            )
            return counted
        except SqliteFailure as failure:
            raise error_of(failure, self.error) from None

    def writer(self, sql: str, specs: Sequence[plain.WriteSpec]) -> BatchWriter:
        """One prepared statement that takes batches."""
        try:
            if isinstance(self.database, plain.PlainDatabase):
                return BatchWriter(plain.PlainWriter(self.database, sql, specs), native=False)
            return BatchWriter(sqlite_write.Writer(self.database, sql, list(specs)), native=True)
        except SqliteFailure as failure:
            raise error_of(failure, self.error) from None

    def close(self) -> None:
        self.database.close()


class BatchWriter:
    """Gives batches to the kernel's Writer, or to its twin. Raises SqliteFailure, UnfitValue."""

    def __init__(self, writer: Any, native: bool) -> None:
        self._writer = writer
        self._native = native

    def write(self, batch: pa.RecordBatch) -> int:
        """Steps the statement for each row; returns how many rows it changed."""
        if not self._native:
            return int(self._writer.write(batch))
        sizes = [[b.size if b is not None else 0 for b in column.buffers()] for column in batch.columns]
        return int(self._writer.write(batch.__arrow_c_array__(), sizes))

    def close(self) -> None:
        self._writer.close()


class ProcessLock:
    """The job's lock: one process writes a SQLite file, so it is one lock a file, whatever the job.

    ``flock`` on a file beside the database, which dies with the process; never on the database itself,
    whose locks are SQLite's.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}-rowferry-lock"
        self._guard = threading.Lock()
        self._file: int | None = None
        self._jobs: set[str] = set()

    def acquire(self, job: str) -> bool:
        with self._guard:
            if self._file is None and not self._take():
                return False
            self._jobs.add(job)
            return True

    def _take(self) -> bool:
        while True:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise TargetError(f"the lock file {self._path!r} cannot be made: {error.strerror}") from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            # The one before may have removed the file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._path).st_ino == os.fstat(file).st_ino:
                    self._file = file
                    return True
            os.close(file)

    def release(self, job: str) -> None:
        with self._guard:
            self._jobs.discard(job)
            if not self._jobs:
                self._drop()

    def release_all(self) -> None:
        with self._guard:
            self._jobs.clear()
            self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._file)
            self._file = None
