"""What happens while a job runs: events, and the sinks that show them.

The engine calls ``on_event(event)`` from any of its threads; every sink takes a lock of its
own, never raises for a terminal that went away, and holds memory by the number of tables,
not of chunks.

    live.LiveSink  a human at a terminal: a bar for each table, rows/s, MB/s, ETA, retries
    PlainSink      a pipe: one line for each table, and one at most every few seconds
    JsonSink       --log-json: one JSON line for each chunk, and for what else happens
    QuietSink      --quiet: nothing
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import msgspec

from rowferry import limits
from rowferry.engine.report import Report


class Event(msgspec.Struct, frozen=True):
    """The root. Tables are named by their source name as text."""


class TableTotals(msgspec.Struct, frozen=True):
    """What the plan says of one table; ``rows`` and ``bytes`` are estimates."""

    table: str
    rows: int = 0
    bytes: int = 0
    chunks: int = 0
    #: Done before this run began, and the rows that they hold.
    chunks_taken_over: int = 0
    rows_taken_over: int = 0


class JobStarted(Event, frozen=True):
    """command: copy | verify | resume."""

    command: str
    job: str | None
    source: str
    target: str
    workers: int
    tables: tuple[TableTotals, ...]
    snapshot: str | None = None
    resumed: bool = False


class StepStarted(Event, frozen=True):
    """A step beside the chunks: create, truncate, keys, sequences, swap, merge …"""

    kind: str
    table: str | None = None


class StepFinished(Event, frozen=True):
    kind: str
    table: str | None = None
    seconds: float = 0.0


class ChunkStarted(Event, frozen=True):
    table: str
    chunk: int
    worker: int


class ChunkFinished(Event, frozen=True):
    table: str
    chunk: int
    worker: int
    rows_read: int
    rows_committed: int
    bytes: int
    seconds: float
    tries: int = 1
    digest_read: str | None = None
    digest_sent: str | None = None


class ChunkTakenOver(Event, frozen=True):
    """A chunk that another process of the same job finished while this one ran."""

    table: str
    chunk: int
    rows_committed: int


class ChunkRetried(Event, frozen=True):
    """The chunk was rolled back and will be tried again after ``wait_s``."""

    table: str
    chunk: int
    worker: int
    tries: int
    wait_s: float
    error: str


class VerifyStarted(Event, frozen=True):
    """rows: estimate of what will be read on the sides together."""

    table: str
    rows: int = 0


class VerifyAdvanced(Event, frozen=True):
    """side: source | target; rows: read since the last event of this kind."""

    table: str
    side: str
    rows: int


class VerifyFinished(Event, frozen=True):
    table: str
    equal: bool
    missing: int = 0
    extra: int = 0
    changed: int = 0
    seconds: float = 0.0


class Waiting(Event, frozen=True):
    """Nothing to do but wait: for chunks that others hold, for a server that restarts."""

    reason: str
    pending: int = 0


class WentOn(Event, frozen=True):
    """A pause is over; ``reason`` says why, ``seconds`` how long it lasted."""

    reason: str
    seconds: float


class Note(Event, frozen=True):
    """A sentence that the user should read now, not only in the report."""

    text: str


class JobFinished(Event, frozen=True):
    report: Report


EventHandler = Callable[[Event], None]


class Sink(Protocol):
    """Where events go. A context manager, so that a live display gives the terminal back."""

    def __enter__(self) -> Sink: ...

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, event: Event) -> None: ...


def printable(text: str) -> str:
    """The text in one line and without control characters: a table's name cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def count(value: float) -> str:
    """A count for human eyes: ``336,776``."""
    return f"{value:,.0f}"


def plural(value: int, noun: str) -> str:
    """``1 chunk``, ``2 chunks``."""
    several = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count(value)} {noun if value == 1 else several}"


def rate(rows: int, seconds: float) -> str:
    """Rows per second for human eyes; '' where the time is too short to say."""
    return f"{rows / seconds:,.0f}" if seconds > 0 else ""


def _snapshot_words(snapshot: str | None) -> str:
    return "" if snapshot is None else f", snapshot: {snapshot}"


def chunks_words(tables: tuple[TableTotals, ...]) -> str:
    chunks = sum(t.chunks for t in tables)
    over = sum(t.chunks_taken_over for t in tables)
    taken = f", {count(over)} of them done already" if over else ""
    cut = f", {plural(chunks, 'chunk')}{taken}" if chunks else ""
    return plural(len(tables), "table") + cut


class QuietSink:
    """Shows nothing."""

    def __enter__(self) -> QuietSink:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        return None


class Tally(msgspec.Struct):
    """How far one table is."""

    totals: TableTotals
    chunks: int = 0
    rows: int = 0
    bytes: int = 0
    retries: int = 0
    begun: float | None = None
    told: bool = False

    @property
    def finished(self) -> bool:
        return self.chunks >= self.totals.chunks


class _Writer:
    """Writes lines to a stream; a stream that was closed at the other end is left alone from then on."""

    def __init__(self, stream: TextIO, scrub: Callable[[str], str] = str) -> None:
        self._stream: TextIO | None = stream
        self._scrub = scrub

    def line(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(printable(self._scrub(text)) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # the reader went away (ValueError: closed): the copy goes on
            self._stream = None


class PlainSink:
    """Plain lines for a pipe: the start, each table as it is done, the sum at most every few
    seconds, every retry (a bounded number of them), waits and notes."""

    def __init__(
        self,
        stream: TextIO,
        scrub: Callable[[str], str] = str,
        every_s: float = limits.PROGRESS_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = _Writer(stream, scrub)
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._told_at = clock()
        self._begun = clock()
        self._retries = 0
        self._waiting = ""

    def __enter__(self) -> PlainSink:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self._start(event)
        elif isinstance(event, ChunkStarted):
            tally = self._tally(event.table)
            tally.begun = tally.begun or self._clock()
        elif isinstance(event, ChunkFinished):
            self._advance(event.table, event.rows_committed, event.bytes)
        elif isinstance(event, ChunkTakenOver):
            self._advance(event.table, event.rows_committed, 0)
        elif isinstance(event, ChunkRetried):
            self._retry(event)
        elif isinstance(event, StepFinished) and event.seconds >= self._every_s:
            self._out.line(f"{event.table or 'job'}: {event.kind} took {event.seconds:.1f} s")
        elif isinstance(event, VerifyFinished):
            verdict = (
                "equal"
                if event.equal
                else (f"{count(event.missing)} missing, {count(event.extra)} extra, {count(event.changed)} changed")
            )
            took = f" in {event.seconds:.1f} s" if event.seconds else ""
            self._out.line(f"{event.table}: verified{took}: {verdict}")
        elif isinstance(event, Waiting) and event.reason != self._waiting:
            self._waiting = event.reason
            self._out.line(f"waiting: {event.reason}")
        elif isinstance(event, WentOn):
            self._waiting = ""  # the same reason may come again, and is another wait
            self._out.line(f"goes on after {event.seconds:.1f} s: {event.reason}")
        elif isinstance(event, Note):
            self._out.line(f"note: {event.text}")

    def _tally(self, table: str) -> Tally:
        return self._tallies.setdefault(table, Tally(TableTotals(table)))

    def _start(self, event: JobStarted) -> None:
        # A job may announce itself twice (copy, then its verification): what is known stays.
        for totals in event.tables:
            known = self._tallies.get(totals.table)
            if known is None:
                self._tallies[totals.table] = Tally(totals, totals.chunks_taken_over, totals.rows_taken_over)
        job = f" job {event.job}" if event.job else ""
        again = " goes on" if event.resumed else ""
        self._out.line(
            f"{event.command}{job}{again}: {event.source} to {event.target}, {chunks_words(event.tables)}, "
            f"{plural(event.workers, 'worker')}{_snapshot_words(event.snapshot)}"
        )

    def _advance(self, table: str, rows: int, size: int) -> None:
        tally = self._tally(table)
        tally.chunks += 1
        tally.rows += rows
        tally.bytes += size
        now = self._clock()
        if tally.finished and not tally.told and tally.totals.chunks:
            tally.told = True
            seconds = now - (tally.begun if tally.begun is not None else self._begun)
            self._out.line(f"{table}: {count(tally.rows)} rows, {rate(tally.rows, seconds) or '-'} rows/s")
        elif now - self._told_at >= self._every_s:
            self._told_at = now
            done, total = self._sum()
            self._out.line(f"{done} of {total}, {count(sum(t.rows for t in self._tallies.values()))} rows")

    def _sum(self) -> tuple[str, str]:
        done = sum(t.chunks for t in self._tallies.values())
        total = sum(t.totals.chunks for t in self._tallies.values())
        return count(done), f"{count(total)} chunks"

    def _retry(self, event: ChunkRetried) -> None:
        self._retries += 1
        if self._retries == limits.RETRY_LINES_MAX + 1:
            self._out.line("further retries are counted in the report only")
        elif self._retries <= limits.RETRY_LINES_MAX:
            self._out.line(
                f"{event.table}: chunk {event.chunk} failed (try {event.tries}), again in {event.wait_s:.1f} s: "
                f"{event.error}"
            )


#: The word of an event in JSON lines; events that are not here (starts, advances) have no line.
_JSON_WORDS: dict[type[Event], str] = {
    JobStarted: "job",
    StepFinished: "step",
    ChunkFinished: "chunk",
    ChunkTakenOver: "chunk_taken_over",
    ChunkRetried: "retry",
    VerifyFinished: "verify",
    Waiting: "wait",
    WentOn: "went_on",
    Note: "note",
}


class JsonSink:
    """One JSON object in a line: ``{"event": "chunk", "time": …, "job": …, "table": …, "chunk": 3, "rows_read": …}``.

    ``event`` is job, step, chunk, chunk_taken_over, retry, verify, wait, went_on, note or finished (status,
    exit_code, error and the sums of the report).
    """

    def __init__(self, stream: TextIO, scrub: Callable[[str], str] = str) -> None:
        self._out = _Writer(stream, scrub)
        self._lock = threading.Lock()
        self._job: str | None = None

    def __enter__(self) -> JsonSink:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, JobStarted):
                self._job = event.job
            data = self._data(event)
            if data is not None:
                head = {"event": data.pop("event"), "time": round(time.time(), 3), "job": self._job}
                self._out.line(json.dumps(head | data, ensure_ascii=False, separators=(",", ":")))

    def _data(self, event: Event) -> dict[str, Any] | None:
        if isinstance(event, JobFinished):
            r = event.report
            rows = {"rows_committed": r.rows_committed, "seconds": round(r.seconds, 6), "equal": r.equal}
            return {"event": "finished", "status": r.status, "exit_code": r.exit_code, "error": r.error, **rows}
        word = _JSON_WORDS.get(type(event))
        if word is None:
            return None
        data: dict[str, Any] = {"event": word, **msgspec.to_builtins(event)}
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in data.items()}
