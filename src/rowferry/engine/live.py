"""The live display of a terminal: one of the sinks of ``engine.progress``, apart from the others since only
it needs to draw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from rowferry.engine.progress import (
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    ChunkTakenOver,
    Event,
    JobStarted,
    Note,
    StepStarted,
    TableTotals,
    Tally,
    VerifyAdvanced,
    VerifyFinished,
    VerifyStarted,
    Waiting,
    WentOn,
    chunks_words,
    count,
    plural,
    printable,
    rate,
)


class _RateColumn(ProgressColumn):
    """Rows/s and MB/s of a table since its first chunk of this run."""

    def render(self, task: Task) -> Text:
        seconds = task.fields["seconds"]
        if not seconds:
            return Text("")
        rows, size = task.fields["rows"], task.fields["bytes"]
        mb = f"{size / seconds / 1e6:,.1f} MB/s" if size else ""
        return Text(f"{rate(rows, seconds)} rows/s {mb}")


class LiveSink:
    """The live display: a bar for each table at work (finished ones beyond the screen are folded
    into the line above), rows/s, MB/s, ETA, retries."""

    def __init__(self, console: Console, scrub: Callable[[str], str] = str) -> None:
        self._console = console
        self._scrub = scrub
        self._lock = threading.Lock()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[shown]}", markup=False),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[alert]}", markup=False, style="yellow"),
            console=console,
        )
        self._live = Live(self._progress, console=console, refresh_per_second=8, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._tallies: dict[str, Tally] = {}
        self._verifying: set[str] = set()

    def __enter__(self) -> LiveSink:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self._start(event)
        elif isinstance(event, ChunkStarted):
            tally = self._tally(event.table)
            tally.begun = tally.begun or time.monotonic()
            self._show(event.table)
        elif isinstance(event, ChunkFinished):
            self._advance(event.table, event.rows_committed, event.bytes)
        elif isinstance(event, ChunkTakenOver):
            self._advance(event.table, event.rows_committed, 0)
        elif isinstance(event, ChunkRetried):
            self._tally(event.table).retries += 1
            self._show(event.table)
            self._print(f"{event.table}: chunk {event.chunk} again in {event.wait_s:.1f} s: {event.error}")
        elif isinstance(event, StepStarted):
            if event.table is not None:
                self._show(event.table, alert=event.kind)
        elif isinstance(event, VerifyStarted):
            self._verify_start(event)
        elif isinstance(event, VerifyAdvanced):
            self._progress.advance(self._task(event.table), event.rows)
        elif isinstance(event, VerifyFinished):
            self._verify_finish(event)
        elif isinstance(event, WentOn):
            self._print(f"goes on after {event.seconds:.1f} s: {event.reason}")
        elif isinstance(event, (Waiting, Note)):
            self._print(event.reason if isinstance(event, Waiting) else event.text)

    def _print(self, text: str) -> None:
        self._console.print(Text(printable(self._scrub(text))), soft_wrap=True)

    def _tally(self, table: str) -> Tally:
        return self._tallies.setdefault(table, Tally(TableTotals(table)))

    def _task(self, table: str) -> TaskID:
        if table not in self._tasks:
            name = printable(self._scrub(table))
            short = name if len(name) <= 28 else name[:27] + "…"
            fields: dict[str, Any] = {"shown": "", "alert": "", "rows": 0, "bytes": 0, "seconds": 0.0}
            self._tasks[table] = self._progress.add_task(short, total=None, visible=False, **fields)
        return self._tasks[table]

    def _start(self, event: JobStarted) -> None:
        job = f" {event.job}" if event.job else ""
        self._print(f"{event.command}{job}: {event.source} → {event.target}, {chunks_words(event.tables)}")
        for totals in event.tables:
            if totals.table not in self._tallies:
                self._tallies[totals.table] = Tally(totals, totals.chunks_taken_over, totals.rows_taken_over)

    def _advance(self, table: str, rows: int, size: int) -> None:
        tally = self._tally(table)
        tally.chunks += 1
        tally.rows += rows
        tally.bytes += size
        self._show(table)
        self._fold()

    def _show(self, table: str, alert: str = "") -> None:
        tally = self._tally(table)
        moved = tally.rows - tally.totals.rows_taken_over
        seconds = time.monotonic() - tally.begun if tally.begun is not None else 0.0
        retries = plural(tally.retries, "retry") if tally.retries else ""
        self._progress.update(
            self._task(table),
            total=tally.totals.chunks or None,
            completed=tally.chunks,
            visible=True,
            shown=f"{count(tally.rows)} rows",
            alert=alert or retries,
            rows=moved,
            bytes=tally.bytes,
            seconds=seconds,
        )

    def _fold(self) -> None:
        """Hides the oldest finished tables where the bars would not fit on the screen."""
        room = max(4, self._console.size.height - 6)
        shown = [t for t in self._tasks if self._progress.tasks[self._tasks[t]].visible]
        for table in shown[: max(0, len(shown) - room)]:
            if self._tallies[table].finished:
                self._progress.update(self._tasks[table], visible=False)

    def _verify_start(self, event: VerifyStarted) -> None:
        self._verifying.add(event.table)
        self._tally(event.table)
        task = self._task(event.table)
        self._progress.reset(task, total=event.rows or None, visible=True, rows=0, bytes=0, seconds=0.0)
        self._progress.update(task, shown="", alert="verifying")

    def _verify_finish(self, event: VerifyFinished) -> None:
        task = self._task(event.table)
        total = self._progress.tasks[task].total or 1
        verdict = "equal" if event.equal else "DIFFERENT"
        self._progress.update(task, total=total, completed=total, visible=True, alert=verdict)


def sink(stream: TextIO, scrub: Callable[[str], str] = str) -> LiveSink | None:
    """The display for a stream; None where it is no terminal that can draw one."""
    console = Console(file=stream, highlight=False)
    return LiveSink(console, scrub) if console.is_terminal and not console.is_dumb_terminal else None
