"""The driver: opening a file, cursors, transactions, and the driver's errors as ours.

DuckDB lets one process write a file, or several read it. All cursors of one :class:`Database`
share its memory and its lock; each cursor is a transaction of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from rowferry import limits
from rowferry.adapters.transactions import atomic
from rowferry.convert.duckdb_form import literal
from rowferry.errors import ConfigError, DataError, RowferryError
from rowferry.model import Endpoint

#: Threads of one database at the most: each holds buffers of its own under the memory limit, and
#: beyond the rowferry workers that feed them they only wait.
THREADS_MAX = 4
_OPTIONS = ("memory_limit", "threads", "storage_version")

#: The values themselves are at fault; trying again cannot help.
_VALUE_ERRORS = (
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
)
#: ``code`` of an error for want of memory.
OUT_OF_MEMORY = "OutOfMemory"
#: Where growing begins, and where it ends: room for a few of the largest cells (CELL_BYTES_MAX).
_START_MIB = 192
_MOST_MIB = 6144

#: The words of the SQL function error() with which our own guards refuse a value.
GUARD = "rowferry: "


def settings(endpoint: Endpoint, memory: str) -> dict[str, str]:
    """The driver's configuration for a URL; ``memory`` where it names no limit. Raises ConfigError."""
    options = dict(endpoint.query)
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(f"duckdb has no URL option {name!r}", hint=f"known are {', '.join(_OPTIONS)}")
    threads = options.get("threads", str(min(os.cpu_count() or 1, THREADS_MAX)))
    if not threads.isdigit() or not int(threads):
        raise ConfigError("the URL option threads is a number from 1", value=threads)
    config = {
        "memory_limit": options.get("memory_limit", memory),
        "threads": threads,
        # In order, one thread feeds the file at a time: 0.7–0.9 M rows/s against 1.6 M (measured).
        "preserve_insertion_order": "false",
        # A copy must not fetch code from the network because a type or a function name asks for it.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if "storage_version" in options:
        config["storage_compatibility_version"] = options["storage_version"]
    return config


class Database:
    """One open file (or, without a path, an empty database in memory).

    error: the class of what is raised, SourceError or TargetError.
    """

    def __init__(
        self, endpoint: Endpoint, error: type[RowferryError], *, read_only: bool, memory: str = limits.DUCKDB_MEMORY
    ) -> None:
        self.path = endpoint.path or ""
        self.read_only = read_only
        self._error = error
        self._lock = threading.Lock()
        config = settings(endpoint, memory)
        self._memory_is_given = endpoint.option("memory_limit") is not None
        self._memory_mib: int | None = None
        absent = not os.path.exists(self.path)
        if os.path.isdir(self.path):
            raise ConfigError(f"{self.path!r} is a folder, not a DuckDB file")
        # What is only looked at is not created: an absent target is planned for as an empty one.
        place = ":memory:" if absent and read_only else self.path
        try:
            self._root = duckdb.connect(place, read_only=read_only and not absent, config=config)
        except (duckdb.Error, RuntimeError) as failure:
            raise _open_error(failure, self.path, error) from None
        if not read_only:
            self._without_vacuum()
        self.alias = str(self._root.execute("SELECT current_database()").fetchall()[0][0])
        version = endpoint.option("storage_version")
        if version and not absent:
            self._check_version(version)

    def _without_vacuum(self) -> None:
        """Each chunk leaves a row group or two that are not full. Merging them as the file is closed cost
        6 CPU seconds for 6 million rows, half of all, and made the file 1.8 times as large (measured);
        DuckDB merges them whenever it next has reason to. Older versions do not know the setting."""
        with contextlib.suppress(duckdb.CatalogException):
            self._root.execute("SET GLOBAL max_vacuum_tasks = 0")

    @contextlib.contextmanager
    def straight_to_file(self) -> Iterator[None]:
        """What is committed within goes into the file itself where no other transaction is open: an index would be
        written whole into the write-ahead log, and from there a second time (62 MB each for 1.8 million rows, half a
        second of a copy of four)."""
        row = self._root.execute("SELECT current_setting('checkpoint_threshold')").fetchone()
        assert row is not None
        self._root.execute("SET GLOBAL checkpoint_threshold = '0B'")
        try:
            yield
        finally:
            self._root.execute(f"SET GLOBAL checkpoint_threshold = {literal(str(row[0]))}")

    def _check_version(self, asked: str) -> None:
        row = self._root.execute(
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = ?", [self.alias]
        ).fetchone()
        has = str(row[0]) if row else ""
        if asked not in has:
            self._root.close()
            raise ConfigError(
                f"{self.path!r} was made with storage version {has}, which an option cannot change",
                value=asked,
                hint="leave storage_version out, or copy into a new file",
            )

    def session(self, error: type[RowferryError] | None = None) -> Session:
        """A new cursor. May be called from any thread."""
        with self._lock:
            try:
                return Session(self._root.cursor(), error or self._error)
            except duckdb.Error as failure:
                raise as_error(failure, error or self._error) from None

    def set_memory(self, limit: str) -> None:
        """Another memory limit, unless the URL gave one."""
        if not self._memory_is_given:
            self._root.execute(f"SET GLOBAL memory_limit = {literal(limit)}")

    def grow(self) -> bool:
        """Doubles the memory limit, up to what the largest cells need; False where that is reached or
        the URL gave a limit. For the few tables that hold cells of many megabytes."""
        with self._lock:
            if self._memory_is_given:
                return False
            now = self._memory_mib or _START_MIB
            if now >= _MOST_MIB:
                return False
            self._memory_mib = min(now * 2, _MOST_MIB)
            self._root.execute(f"SET GLOBAL memory_limit = '{self._memory_mib}MiB'")
            return True

    def make_room(self, size: int) -> None:
        """Raises the memory limit by a need that is known beforehand, up to half of the machine's memory."""
        with self._lock:
            most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (2 << 20)
            wanted = min(_START_MIB + (size >> 20), most)
            if not self._memory_is_given and wanted > (self._memory_mib or _START_MIB):
                self._memory_mib = wanted
                self._root.execute(f"SET GLOBAL memory_limit = '{wanted}MiB'")

    def retried(self, failure: RowferryError) -> RowferryError:
        """The failure, to be tried again if it was a want of memory that could be met."""
        if failure.code == OUT_OF_MEMORY and self.grow():
            failure.transient = True
        return failure

    def close(self) -> None:
        self._root.close()


def _open_error(failure: Exception, path: str, error: type[RowferryError]) -> RowferryError:
    text = _first_line(failure)
    if "Could not set lock" in text:
        holder = text.partition("held in ")[2].partition(". See")[0]
        return error(
            f"{path!r} is in use by another process{f' ({holder})' if holder else ''}",
            hint="DuckDB lets one process write a file, or several read it: wait for it, or stop it",
        )
    if "not a valid DuckDB database" in text:
        return ConfigError(f"{path!r} is no DuckDB database")
    if "does not exist" in text:
        return error(f"{path!r} does not exist")
    if isinstance(failure, duckdb.InvalidInputException | duckdb.ParserException | duckdb.SyntaxException):
        return ConfigError(f"cannot open {path!r}: {text}")
    return error(f"cannot open {path!r}: {text}")


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def as_error(failure: BaseException, error: type[RowferryError]) -> RowferryError:
    """Our error for one of the driver's: DataError for a value, else ``error``."""
    text = _first_line(failure)
    if GUARD in text:
        return DataError(text.partition(GUARD)[2])
    _, _, rest = text.partition(": ")
    if isinstance(failure, _VALUE_ERRORS):
        return DataError(f"DuckDB refused a value: {rest or text}")
    if isinstance(failure, duckdb.TransactionException) and "conflict" in text.lower():
        return error(f"DuckDB: {text}", transient=True)
    if isinstance(failure, duckdb.OutOfMemoryException):
        hint = "raise the URL option memory_limit, or free space for DuckDB's temporary files"
        return error(f"DuckDB: {text}", hint=hint, code=OUT_OF_MEMORY)
    return error(f"DuckDB: {text}")


class Session:
    """One cursor: its own transaction, used by one thread at a time. All failures are rowferry errors."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, error: type[RowferryError]) -> None:
        self._cursor = cursor
        self._error = error
        self.in_transaction = False
        with self.errors():
            # Wall clock never enters: timestamptz is read and printed in UTC whatever TZ says.
            cursor.execute("SET TimeZone = 'UTC'")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as failure:
            raise as_error(failure, self._error) from None
        except RuntimeError as failure:  # the driver's own for "connection already closed" and the like
            raise self._error(f"DuckDB: {_first_line(failure)}") from None

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.errors():
            result = self._cursor.execute(sql, list(params)) if params else self._cursor.execute(sql)
            return result.fetchall() if result.description else []

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        rows = self.execute(sql, params)
        return int(rows[0][0]) if rows else 0

    def begin(self) -> None:
        self.execute("BEGIN TRANSACTION")
        self.in_transaction = True

    def commit(self) -> None:
        self.in_transaction = False
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Never raises: a transaction that cannot be rolled back dies with its cursor."""
        if not self.in_transaction:
            return
        self.in_transaction = False
        try:
            self._cursor.execute("ROLLBACK")
        except (duckdb.Error, RuntimeError):
            self.close()

    def atomic(self) -> contextlib.AbstractContextManager[None]:
        """The statements within are one transaction: the open one, or one of their own."""
        return atomic(self, self.in_transaction)

    def columns(self, sql: str) -> list[tuple[str, duckdb.sqltypes.DuckDBPyType]]:
        """Names and types of what a SELECT would give; nothing is run."""
        with self.errors():
            relation = self._cursor.sql(sql)
            return list(zip(relation.columns, relation.types, strict=True))

    def stream(self, sql: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The batches of a SELECT as they come; ``execute`` would hold the whole result (measured).

        Leaving early ends the query, and the cursor can be used again.
        """
        with self.errors():
            reader = self._cursor.sql(sql).to_arrow_reader(batch_rows)
        try:
            while True:
                with self.errors():
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        return
                    except (pa.ArrowException, OSError) as failure:
                        raise as_error(failure, self._error) from None
                yield batch
        finally:
            reader.close()

    @contextlib.contextmanager
    def view(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[None]:
        """Makes batches a view of this cursor, pulled once, as they are asked for.

        An error that ``batches`` raises passes through DuckDB as mere text; it is raised here as
        what it was.
        """
        feed = _Feed(batches)
        with self.errors():
            self._cursor.register(name, pa.RecordBatchReader.from_batches(schema, feed))
        try:
            yield
        except RowferryError:
            if feed.failure is not None:
                raise feed.failure from None
            raise
        finally:
            with contextlib.suppress(duckdb.Error, RuntimeError):  # in an aborted transaction it goes by rollback
                self._cursor.unregister(name)

    def interrupt(self) -> None:
        """From another thread: what this cursor runs now fails. Never raises."""
        with contextlib.suppress(duckdb.Error, RuntimeError):
            self._cursor.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error, RuntimeError):
            self._cursor.close()


class _Feed:
    """Iterates batches and remembers what went wrong. DuckDB calls it in threads of its own, one at a time."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self.failure: BaseException | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except BaseException as failure:
            self.failure = failure
            raise


class ProcessLock:
    """The lock of a job. The file's own lock keeps other processes out; this one keeps out the
    other threads of this process."""

    _held: ClassVar[set[tuple[str, str]]] = set()
    _guard = threading.Lock()

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        self._mine: set[str] = set()

    def acquire(self, job: str) -> bool:
        with self._guard:
            if (self._path, job) in self._held:
                return False
            self._held.add((self._path, job))
            self._mine.add(job)
            return True

    def release(self, job: str) -> None:
        with self._guard:
            self._held.discard((self._path, job))
            self._mine.discard(job)

    def release_all(self) -> None:
        for job in tuple(self._mine):
            self.release(job)
