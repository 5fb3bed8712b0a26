"""Every error rowferry raises on purpose.

    RowferryError                 the root; carries table, chunk, column, value, hint, transient
    ├── ConfigError       exit 2  the request is wrong: usage, config, no such table
    │   └── RefusedError  exit 2  the plan holds something that cannot be carried exactly
    ├── DataError         exit 1  a value that cannot be carried was met in mid-copy
    ├── DifferenceError   exit 1  source and target (or counts) differ
    ├── SourceError       exit 3  the source failed
    │   └── SnapshotLostError     the state that all readers saw is gone: the job goes on under a new one
    ├── TargetError       exit 4  the target failed
    │   └── LedgerError   exit 4  the ledger failed or contradicts itself
    └── StoppedError      exit 5  stopped on request; the job can be resumed

An error is *terminal* unless it says ``transient=True``; that alone decides
whether a chunk is tried again. All pickle, so that they can cross processes.
"""

from __future__ import annotations

from typing import Any


class RowferryError(Exception):
    """What failed, the value seen, the value expected, what to do.

    ``str(error)`` is one line; it never holds a password.
    """

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        table: str | None = None,
        chunk: int | None = None,
        column: str | None = None,
        value: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.table = table
        self.chunk = chunk
        self.column = column
        self.value = value
        self.hint = hint
        #: The server's own code (SQLSTATE, errno), where it gave one.
        self.code = code
        self.transient = transient
        #: It is about the rules of a table, and the file that they were read from, where there is one.
        self.of_rules = False
        self.config: str | None = None
        #: The target refuses a row of those that were sent, and might take the others without it (quarantine).
        self.of_row = False
        #: Which of the rows that were sent it was, from 0, where the target said so.
        self.row: int | None = None
        #: What the run had to say for itself when it failed (``engine.report.Report``), where it got so far.
        self.report: Any = None

    def at(self, **place: Any) -> RowferryError:
        """Fills in the place (table, chunk, column) where the raiser did not know it."""
        for name, value in place.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        return self

    def __str__(self) -> str:
        place = [
            f"{name} {value!r}" if isinstance(value, str) else f"{name} {value}"
            for name, value in (
                ("config", self.config),
                ("table", self.table),
                ("chunk", self.chunk),
                ("column", self.column),
            )
            if value is not None
        ]
        text = f"{', '.join(place)}: {self.message}" if place else self.message
        if self.value is not None:
            text += f" (value: {self.value})"
        if self.code:
            text += f" [{self.code}]"
        if self.hint:
            text += f"; {self.hint}"
        return " ".join(text.split())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(cls: type[RowferryError], message: str, state: dict[str, Any]) -> RowferryError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class ConfigError(RowferryError):
    """The request itself is wrong; nothing was written."""

    exit_code = 2


class RefusedError(ConfigError):
    """The plan refuses: something cannot be carried exactly. Nothing was written."""


class DataError(RowferryError):
    """A value met in mid-copy cannot be carried; its chunk was rolled back."""

    exit_code = 1


class DifferenceError(RowferryError):
    """Counts or digests do not agree."""

    exit_code = 1


class SourceError(RowferryError):
    """The source failed."""

    exit_code = 3


class SnapshotLostError(SourceError):
    """The snapshot that the readers share is gone, or the job has gone on to another.

    No use in trying the same chunk again; the job can be taken up anew, so it is always transient.
    """

    def __init__(self, message: str, **place: Any) -> None:
        super().__init__(message, **{**place, "transient": True})


class TargetError(RowferryError):
    """The target failed."""

    exit_code = 4


class LedgerError(TargetError):
    """The ledger in the target failed or contradicts itself."""


class StoppedError(RowferryError):
    """Stopped on request (SIGINT, SIGTERM); the same command goes on."""

    exit_code = 5


class OutcomeUnknownError(TargetError):
    """The answer to a COMMIT was lost: only the ledger can say what happened."""
