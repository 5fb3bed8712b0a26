"""The sinks: what a terminal, a pipe and a log see, bounded and in one line each."""

import io
import json
import threading

import pytest
from rich.console import Console

from rowferry import limits
from rowferry.engine import sinks
from rowferry.engine.live import LiveSink
from rowferry.engine.progress import (
    ChunkFinished,
    ChunkRetried,
    ChunkStarted,
    ChunkTakenOver,
    Event,
    JobFinished,
    JobStarted,
    JsonSink,
    Note,
    PlainSink,
    StepFinished,
    TableTotals,
    VerifyAdvanced,
    VerifyFinished,
    VerifyStarted,
    Waiting,
)
from rowferry.engine.report import Report, TableReport

EVIL = "t\x1b[31m\n[bold]x"


def a_run(table: str = "flights", chunks: int = 3) -> list[Event]:
    events: list[Event] = [
        JobStarted("copy", "j1", "sqlite:///a.db", "duckdb:///b.db", 2, (TableTotals(table, 30, 300, chunks),), "one")
    ]
    for number in range(chunks):
        events += [ChunkStarted(table, number, 0), ChunkFinished(table, number, 0, 10, 10, 100, 0.1)]
    return [
        *events,
        VerifyStarted(table, 60),
        VerifyAdvanced(table, "source", 30),
        VerifyFinished(table, False, 1, 2, 3, 0.5),
        JobFinished(Report("copy", "a", "b", tables=(TableReport(table, table, rows_committed=30),))),
    ]


def plain(events: list[Event], **options: object) -> list[str]:
    stream = io.StringIO()
    with PlainSink(stream, **options) as sink:  # type: ignore[arg-type]
        for event in events:
            sink(event)
    return stream.getvalue().splitlines()


def test_plain_says_start_each_table_and_the_verdict() -> None:
    lines = plain(a_run())
    assert len(lines) == 3
    assert "sqlite:///a.db to duckdb:///b.db" in lines[0]
    assert "3 chunks" in lines[0]
    assert lines[1].startswith("flights: 30 rows")
    assert lines[2] == "flights: verified in 0.5 s: 1 missing, 2 extra, 3 changed"


def test_plain_is_bounded_by_tables_and_time_not_by_chunks() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    lines = plain(a_run(chunks=10_000), clock=clock)
    assert len(lines) <= 3 + now[0] / limits.PROGRESS_EVERY_S + 1
    retries: list[Event] = [ChunkRetried("t", n, 0, 2, 0.1, "broken") for n in range(1_000)]
    assert len(plain(retries)) == limits.RETRY_LINES_MAX + 1


def test_plain_counts_chunks_that_others_finished() -> None:
    totals = (TableTotals("t", 30, 0, 3, 1, 10),)
    events: list[Event] = [
        JobStarted("copy", "j", "a", "b", 1, totals, resumed=True), ChunkTakenOver("t", 1, 10),
        ChunkStarted("t", 2, 0), ChunkFinished("t", 2, 0, 10, 10, 1, 0.1),
    ]  # fmt: skip
    lines = plain(events)
    assert "1 of them done already" in lines[0]
    assert lines[1].startswith("t: 30 rows")


def test_plain_says_a_wait_once_and_steps_that_take_long() -> None:
    events: list[Event] = [Waiting("chunks that others hold", 3)] * 5
    events += [StepFinished("keys", "t", 0.1), StepFinished("keys", "t", 60.0), Note("read this")]
    assert plain(events) == ["waiting: chunks that others hold", "t: keys took 60.0 s", "note: read this"]


@pytest.mark.parametrize("kind", ["plain", "live"])
def test_names_cannot_steer_the_terminal(kind: str) -> None:
    stream = io.StringIO()
    sink = PlainSink(stream) if kind == "plain" else LiveSink(Console(file=stream, force_terminal=True, width=200))
    with sink:
        for event in [*a_run(EVIL), Note(EVIL)]:
            sink(event)
    assert "\x1b[31mx" not in stream.getvalue()
    assert "[31m\n" not in stream.getvalue()
    assert "[bold]x" in stream.getvalue(), "markup is text, not style"


def test_json_gives_one_line_for_each_chunk_and_the_end() -> None:
    stream = io.StringIO()
    with JsonSink(stream) as sink:
        for event in a_run(EVIL):
            sink(event)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["job", "chunk", "chunk", "chunk", "verify", "finished"]
    chunk = lines[1]
    assert (chunk["job"], chunk["table"], chunk["chunk"], chunk["rows_committed"]) == ("j1", EVIL, 0, 10)
    assert (lines[-1]["status"], lines[-1]["exit_code"], lines[-1]["rows_committed"]) == ("ok", 0, 30)


def test_sinks_redact() -> None:
    for make in (PlainSink, JsonSink):
        stream = io.StringIO()
        with make(stream, scrub=lambda text: text.replace("canary", "***")) as sink:
            sink(Note("the canary sings"))
        assert "canary" not in stream.getvalue()
        assert "***" in stream.getvalue()


def test_a_reader_that_went_away_does_not_stop_the_copy() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with PlainSink(Gone()) as sink:
        for event in a_run():
            sink(event)


def test_live_takes_events_of_many_threads() -> None:
    stream = io.StringIO()
    with LiveSink(Console(file=stream, force_terminal=True, width=120, height=20)) as sink:
        tables = [f"table {i}" for i in range(40)]
        threads = [threading.Thread(target=lambda t=t: [sink(e) for e in a_run(t)]) for t in tables]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "table 39" in stream.getvalue()


def test_make_chooses_by_options_and_terminal() -> None:
    stream = io.StringIO()
    assert isinstance(sinks.make(stream), PlainSink)
    assert isinstance(sinks.make(stream, log_json=True), JsonSink)
    quiet = sinks.make(stream, quiet=True)
    with quiet:
        for event in a_run():
            quiet(event)
    assert stream.getvalue() == ""
