"""Rates and signals: what passes when, what an answer means, and what is no question at all."""

from __future__ import annotations

import decimal
import pathlib
import sqlite3
import subprocess
import sys
import threading
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rowferry
from rowferry import ConfigError, endpoint, limits
from rowferry.adapters.protocol import Block
from rowferry.engine import throttle
from rowferry.engine.breaker import Breaker, Limit
from rowferry.engine.progress import ChunkFinished, JobStarted, StepStarted, VerifyFinished, Waiting, WentOn
from rowferry.engine.request import Request
from rowferry.errors import DataError, StoppedError, TargetError
from rowferry.model import Bound, ChunkRow, Table, TableName

CHUNK = ChunkRow(0, 0, Bound({}))


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- rates


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.5, 1e6),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 3)), min_size=1, max_size=60),
)
def test_bucket_lets_no_more_through_than_its_rate(rate: float, steps: list[tuple[float, float]]) -> None:
    """Each step: an idle time, and a batch of so many seconds' worth. Of any window what passed is bounded."""
    clock = Clock()
    bucket = throttle.Bucket(rate, clock)
    passed: list[tuple[float, float]] = []
    begun = clock.now + steps[0][0]
    for idle_s, worth_s in steps:
        clock.now += idle_s
        wait_s = bucket.take(worth_s * rate)
        assert wait_s >= 0
        clock.now += wait_s
        passed.append((clock.now, worth_s * rate))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            amount = sum(a for _, a in passed[first + 1 : last + 1])  # the first one was paid for before the window
            window_s = passed[last][0] - passed[first][0] + limits.PACE_CREDIT_S
            assert amount <= rate * window_s * (1 + 1e-9) + 1e-6
    assert sum(a for _, a in passed) <= rate * (clock.now - begun) * (1 + 1e-9) + 1e-6, "from the very first on"


def test_bucket_waits_no_longer_than_its_bound_for_one_huge_batch() -> None:
    clock = Clock()
    bucket = throttle.Bucket(1.0, clock)
    assert bucket.take(1e12) == limits.PACE_WAIT_MAX_S
    assert bucket.take(1) == limits.PACE_WAIT_MAX_S


def test_bucket_is_shared_by_threads() -> None:
    clock = Clock()
    bucket = throttle.Bucket(100.0, clock)
    waits: list[float] = []

    def take() -> None:
        waits.extend(bucket.take(1) for _ in range(250))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert max(waits) == pytest.approx(1000 / 100), "1,000 at 100 a second"


def request_of(**options: Any) -> Request:
    return Request(endpoint.parse("sqlite:///a.db"), endpoint.parse("duckdb:///b.duckdb"), **options)


@pytest.mark.parametrize(
    ("rates", "rows_max"),
    [({"max_rows_per_s": 1000.0}, 250), ({"max_mb_per_s": 0.008}, 250), ({"max_rows_per_s": 0.5}, 1), ({}, 10_000)],
)
def test_batches_are_cut_into_what_may_pass_in_a_moment(rates: dict[str, float], rows_max: int) -> None:
    """10,000 rows of eight bytes each."""
    batch = pa.record_batch({"n": pa.array(range(10_000), pa.int64())})
    held = throttle.Throttle(request_of(**rates), lambda e: None)
    pieces = list(held._pieces(Block(batch, touched={"n": 3})))
    assert pa.Table.from_batches([p.batch for p in pieces]).equals(pa.Table.from_batches([batch]))
    assert max(p.batch.num_rows for p in pieces) == rows_max
    assert sum((p.touched or {}).get("n", 0) for p in pieces) == 3, "what the source settled is counted once"


def test_raw_frames_are_not_cut() -> None:
    batch = pa.record_batch({"n": pa.array(range(10_000), pa.int64())})
    held = throttle.Throttle(request_of(max_rows_per_s=1.0), lambda e: None)
    block = Block(batch, b"frames")
    assert list(held._pieces(block)) == [block]


def test_chunks_under_a_rate_take_about_half_a_minute() -> None:
    table = Table(TableName(None, "t"), (), rows=1_000_000, bytes=100_000_000)
    usual = (40 << 20, 245_760)
    assert throttle.chunk_size(request_of(max_mb_per_s=1.0), table, *usual) == (30_000_000, 245_760)
    assert throttle.chunk_size(request_of(max_rows_per_s=1000.0), table, *usual) == (3_000_000, 30_000)
    assert throttle.chunk_size(request_of(max_rows_per_s=1000.0), table, 40 << 20, 0) == (3_000_000, 0)
    least = limits.PACE_CHUNK_BYTES_MIN
    assert throttle.chunk_size(request_of(max_rows_per_s=1.0), table, *usual) == (least, least // 100)
    assert throttle.chunk_size(request_of(max_mb_per_s=100.0), table, *usual) == usual
    unknown = Table(TableName(None, "t"), (), rows=0, bytes=0)
    assert throttle.chunk_size(request_of(max_rows_per_s=1.0), unknown, *usual) == usual


def test_a_wait_for_the_rate_ends_at_once_on_a_stop() -> None:
    batch = pa.record_batch({"n": pa.array(range(10), pa.int64())})
    held = throttle.Throttle(request_of(max_rows_per_s=0.01), lambda e: None)
    threading.Timer(0.1, held._stop.set).start()
    with pytest.raises(StoppedError):
        next(held.paced([Block(batch)], CHUNK))


# --- what an answer means


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([], "good"), ([(False,)], "good"), ([(0,)], "good"), ([(0.0,)], "good"), ([("0.00",)], "good"),
        ([(decimal.Decimal(0),)], "good"), ([(-0.0,)], "good"),
        ([(True,)], "paused"), ([(1,)], "paused"), ([(0.5,)], "paused"), ([("12.5",)], "paused"), ([(-1,)], "paused"),
        ([(None,)], "unread"), ([(float("nan"),)], "unread"), ([("NaN",)], "unread"),
    ],
)  # fmt: skip
def test_answers_are_good_paused_or_unread(rows: list[tuple[Any, ...]], kind: str) -> None:
    assert throttle.read(rows).kind == kind


@pytest.mark.parametrize("rows", [[(1, 2)], [(False,), (False,)], [("no",)], [(b"\0",)], [("",)], [()]])
def test_results_that_mean_nothing_are_refused(rows: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ConfigError):
        throttle.read(rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_rows_per_s": -1.0}, "--max-rows-per-s"),
        ({"max_mb_per_s": float("nan")}, "--max-mb-per-s"),
        ({"max_pause_s": float("inf")}, "--max-pause-s"),
        ({"pause_while": (("both", "select 1"),)}, "unknown side"),
        ({"pause_while": (("target", " "),)}, "no query"),
        ({"pause_while": (("target", "select 1) x; drop table t; select (1"),)}, "no query"),
        ({"pause_while": (("target", "select 1"),) * 17}, "17 signals"),
        ({"max_errors": "many"}, "--max-errors 'many'"),
        ({"max_refused": "3/0s"}, "--max-refused"),
        ({"max_errors": "-3/60s"}, "--max-errors"),
    ],
)
def test_requests_that_no_run_could_mean_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        request_of(**options).check()


def test_throttles_are_no_part_of_the_jobs_key() -> None:
    held = request_of(max_rows_per_s=5.0, max_mb_per_s=1.0, pause_while=(("source", "select 0"),), max_errors="3/60s")
    assert held.job_key() == request_of().job_key()


# --- on files


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with sqlite3.connect(tmp_path / "s.db") as c:
        c.execute("create table t (id integer primary key, v text)")
        c.executemany("insert into t values (?, ?)", ((i, f"value {i}") for i in range(20_000)))
        c.execute("create table other (n integer)")
    c.close()
    return f"sqlite:///{tmp_path}/s.db"


def switch(path: pathlib.Path) -> str:
    """A question to DuckDB that is true as long as a file is there."""
    return f"SELECT count(*) > 0 FROM glob('{path}')"


def test_rate_is_kept_by_all_workers_together(source: str, tmp_path: pathlib.Path) -> None:
    """A machine that is busy only makes it slower."""
    report = rowferry.copy(
        source, f"duckdb:///{tmp_path}/t.duckdb", max_rows_per_s=10_000, workers=4, chunk_bytes=50_000, tables=["t"]
    )
    assert report.tables[0].rows_committed == 20_000
    assert report.tables[0].chunks > 4
    assert report.seconds >= 20_000 / 10_000
    assert any("held to 10,000 rows/s" in note for note in report.notes)


@pytest.mark.parametrize("target", ["duckdb", "sqlite"])
def test_a_paused_job_copies_nothing_until_it_may(
    source: str, tmp_path: pathlib.Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGNAL_EVERY_S", 0.05)
    path = tmp_path / "paused"
    path.touch()
    events: list[Any] = []
    if target == "duckdb":
        signals = [("target", switch(path))]
    else:  # what another process writes into the target's own file between two chunks
        with sqlite3.connect(tmp_path / "t.sqlite") as c:
            c.execute("create table paused (p integer)")
            c.execute("insert into paused values (1)")
        c.close()
        signals = [("target", "select p from paused")]

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Waiting) and event.reason.startswith("paused"):
            assert not [e for e in events if isinstance(e, ChunkFinished)]
            if target == "duckdb":
                path.unlink()
            else:
                with sqlite3.connect(tmp_path / "t.sqlite") as c:
                    c.execute("update paused set p = 0")
                c.close()

    url = f"{target}:///{tmp_path}/t.{target}"
    report = rowferry.copy(source, url, tables=["t"], pause_while=signals, on_event=on_event)
    assert report.tables[0].rows_committed == 20_000
    kinds = [type(e) for e in events if isinstance(e, (Waiting, WentOn, ChunkFinished))]
    assert kinds[:2] == [Waiting, WentOn]
    assert "it is true" in next(e.reason for e in events if isinstance(e, Waiting)) or target == "sqlite"
    assert any(note.startswith("paused 1 time,") for note in report.notes)
    assert not [t for t in threading.enumerate() if t.name.startswith("rowferry")]


@pytest.mark.parametrize(
    ("side", "sql"),
    [
        ("source", "select nope"), ("source", "delete from t"), ("source", "select 1, 2"), ("source", "select 'a'"),
        ("source", "select 1; select 2"), ("source", "select id from t"), ("source", "pragma query_only = off"),
        ("target", "select nope"), ("target", "drop table t"), ("target", "select 1, 2"), ("target", "select 'no'"),
        ("target", "select 1; select 2"), ("target", "select unnest([1, 2])"), ("target", "create table x (n int)"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_asked_are_refused_before_anything_is_written(
    source: str, tmp_path: pathlib.Path, side: str, sql: str
) -> None:
    target = tmp_path / "t.duckdb"
    with pytest.raises(ConfigError) as caught:
        rowferry.copy(source, f"duckdb:///{target}", pause_while=[(side, sql)])
    assert caught.value.exit_code == 2
    assert f"--pause-while {side}" in str(caught.value)
    assert not target.exists()


def test_files_are_not_asked(source: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="the target cannot be asked"):
        rowferry.copy(source, f"parquet:///{tmp_path}/out", pause_while=[("target", "select 1")])
    assert not (tmp_path / "out").exists()


def test_a_pause_that_lasts_too_long_stops_the_job_and_resume_goes_on(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGNAL_EVERY_S", 0.05)
    path, url = tmp_path / "paused", f"duckdb:///{tmp_path}/t.duckdb"
    path.touch()
    with pytest.raises(StoppedError, match=r"paused for longer than 0\.2 s .*it is true") as caught:
        rowferry.copy(source, url, pause_while=[("target", switch(path))], max_pause_s=0.2)
    assert caught.value.exit_code == 5
    assert "resume" in str(caught.value)
    assert caught.value.report.status == "stopped"
    with pytest.raises(StoppedError, match="paused for longer"):  # the job remembers what it has to wait for
        rowferry.resume(url, source=source)
    assert rowferry.resume(url, source=source, pause_while=[("none", "")]).rows_committed == 20_000


def test_a_signal_that_becomes_unreadable_counts_as_bad_and_stops_the_job_as_its_sides_failure(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGNAL_EVERY_S", 0.05)
    monkeypatch.setattr(limits, "PAUSE_UNREAD_MAX_S", 0.3)
    path = tmp_path / "value.csv"
    path.write_text("v\n0\n")
    reasons: list[str] = []

    def on_event(event: Any) -> None:
        if isinstance(event, Waiting):
            reasons.append(event.reason)
            path.write_text("v\nbroken\n")

    options: dict[str, Any] = {"pause_while": [("target", f"select v from '{path}'")], "chunk_bytes": 20_000}
    url = f"duckdb:///{tmp_path}/t.duckdb"
    with pytest.raises(TargetError, match="could not be read") as caught:
        rowferry.copy(source, url, tables=["t"], max_rows_per_s=5_000, on_event=on_event, **options)
    assert not caught.value.transient
    assert any(r.startswith("paused") and "it cannot be read" in r for r in reasons)
    path.write_text("v\n0\n")
    assert rowferry.copy(source, url, tables=["t"], **options).tables[0].rows_committed == 20_000


def test_a_plain_copy_loads_nothing_of_it(source: str, tmp_path: pathlib.Path) -> None:
    program = (
        "import sys, rowferry\n"
        f"rowferry.copy({source!r}, 'duckdb:///{tmp_path}/t.duckdb')\n"
        "print([m for m in sys.modules if m.startswith('rowferry') and m.rpartition('.')[2] in "
        "('throttle', 'breaker', 'asking')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_duckdb_target_is_asked_while_a_worker_writes(tmp_path: pathlib.Path) -> None:
    """A cursor of its own: it sees what is committed, and writes nothing."""
    from rowferry.adapters import registry
    from rowferry.adapters.protocol import Asking, TargetOptions

    with duckdb.connect(str(tmp_path / "t.duckdb")) as c:
        c.execute("create sequence s")
    target = registry.open_target(endpoint.parse(f"duckdb:///{tmp_path}/t.duckdb"), TargetOptions())
    try:
        assert isinstance(target, Asking)
        asker = target.asker()
        assert asker.ask("select 7;") == [(7,)]
        with pytest.raises(TargetError, match=r"read-only|read only"):
            asker.ask("select nextval('s')")
        assert asker.ask("select 8 -- and no more") == [(8,)]
        asker.close()
    finally:
        target.close()


def test_a_question_that_takes_too_long_is_cut(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGNAL_TIMEOUT_S", -1.5)  # cut after half a second
    from rowferry.adapters import registry
    from rowferry.adapters.protocol import SourceOptions

    duckdb.connect(str(tmp_path / "s.duckdb")).close()
    sqlite3.connect(tmp_path / "s.db").execute("create table t (n)").connection.close()
    endless = {
        f"duckdb:///{tmp_path}/s.duckdb": "select count(*) from range(1000000000) a, range(1000000000) b",
        f"sqlite:///{tmp_path}/s.db": "with recursive n(i) as (select 1 union all select i + 1 from n) "
        "select count(*) from n",
    }
    for url, sql in endless.items():
        source = registry.open_source(endpoint.parse(url), SourceOptions())
        try:
            signal = throttle.Signal("source", sql, source)
            answer = signal.ask()
            assert answer.kind == "unread"
            assert "cannot be read" in answer.why
            signal.close()
        finally:
            source.close()


# --- the breaker


def broken(number: int = 0) -> TargetError:
    return TargetError(f"broken {number}", transient=True)


def test_breaker_stops_at_one_failure_more_than_allowed_and_says_what_was_counted() -> None:
    clock = Clock()
    breaker = Breaker("2/60s", None, 2, clock)
    breaker.failed(broken(), 1)
    breaker.failed(broken(), 3)
    with pytest.raises(TargetError, match=r"too many failures: 3 tries of chunks failed within 60 s and 7") as caught:
        breaker.failed(broken(9), 7)
    assert not caught.value.transient
    assert "broken 9" in str(caught.value)
    assert "--max-errors allows 2" in str(caught.value)


def test_breaker_forgets_what_is_older_than_its_window() -> None:
    clock = Clock()
    breaker = Breaker("2/60s", None, 2, clock)
    for _ in range(20):
        breaker.failed(broken(), 0)
        clock.now += 31
    whole_run = Breaker("2", None, 2, clock)
    for _ in range(2):
        whole_run.failed(broken(), 0)
        clock.now += 1e6
    with pytest.raises(TargetError, match="in this run"):
        whole_run.failed(broken(), 0)


def test_breaker_without_an_option_stops_only_where_more_fails_than_lands() -> None:
    clock = Clock()
    landing = Breaker(None, None, 2, clock)
    for number in range(500):
        landing.failed(broken(), number + 1)
    failing = Breaker(None, None, 2, clock)
    with pytest.raises(TargetError, match="too many failures: 51"):
        for number in range(500):
            failing.failed(broken(), number // 2)


def test_breaker_counts_refused_rows_in_its_window() -> None:
    clock = Clock()
    breaker = Breaker(None, "10/1m", 2, clock)
    breaker.refused(10)
    clock.now += 61
    breaker.refused(6)
    with pytest.raises(DataError, match="too many rows were set aside: 11 within 60 s"):
        breaker.refused(5)
    Breaker(None, None, 2, clock).refused(10**9)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("20", Limit(20)), ("20/60s", Limit(20, 60)), ("0/1.5h", Limit(0, 5400)), ("7/30", Limit(7, 30)),
     ("5/10m", Limit(5, 600))],
)  # fmt: skip
def test_limits_are_read(text: str, limit: Limit) -> None:
    assert Limit.parse("--max-errors", text) == limit


LAST = {"t": {"dedup": {"by": ["v"], "keep": "last by id"}}}


@pytest.mark.parametrize(("options", "reads"), [({"verify": True}, 2), ({"specs": LAST}, 2), ({}, 1)])
def test_a_proof_and_a_first_pass_read_no_faster_than_the_rate(
    source: str, tmp_path: pathlib.Path, options: dict[str, Any], reads: int
) -> None:
    report = rowferry.copy(
        source, f"duckdb:///{tmp_path}/t.duckdb", max_rows_per_s=20_000, workers=2, tables=["t"], **options
    )
    assert report.tables[0].rows_committed == 20_000
    assert report.seconds >= reads * 20_000 / 20_000


def test_a_proof_and_a_first_pass_wait_while_a_signal_is_true(
    source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGNAL_EVERY_S", 0.05)
    path = tmp_path / "paused"
    path.touch()
    events: list[Any] = []

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Waiting) and event.reason.startswith("paused"):
            path.unlink()
        if isinstance(event, StepStarted) and event.kind == "sequences":  # after the last chunk
            path.touch()

    report = rowferry.copy(
        source,
        f"duckdb:///{tmp_path}/t.duckdb",
        tables=["t"],
        specs=LAST,
        verify=True,
        pause_while=[("target", switch(path))],
        on_event=on_event,
    )
    assert report.tables[0].equal
    kinds = [type(e) for e in events if isinstance(e, (Waiting, WentOn, JobStarted, ChunkFinished, VerifyFinished))]
    assert kinds == [Waiting, WentOn, JobStarted, ChunkFinished, Waiting, WentOn, VerifyFinished]
    assert any(note.startswith("paused 2 times,") for note in report.notes)
    assert not [t for t in threading.enumerate() if t.name.startswith("rowferry")]
