"""Jobs that are held back, on real servers: paused, stopped, killed and resumed, each row once."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pymysql
import pytest

import mysql_servers
import rowferry
import servers
from end_to_end import ferry
from rowferry import ConfigError, DataError, TargetError, limits
from rowferry.engine.progress import ChunkFinished, ChunkRetried, Waiting, WentOn

ROWS = 20_000
PAUSED = "select p from paused"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGNAL_EVERY_S", 0.1)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.02)
    return found


class Postgres:
    """A database of our own with a table that says whether to pause."""

    def __init__(self, url: str, paused: bool) -> None:
        self.url = url
        self.execute("create table paused (p boolean)", f"insert into paused values ({paused})")

    def execute(self, *statements: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as c:
            for statement in statements:
                cursor = c.execute(statement.encode())
            return cursor.fetchall() if cursor.description else None

    def pause(self, paused: bool) -> None:
        self.execute(f"update paused set p = {paused}")

    def count(self) -> int:
        return int(self.execute("select count(*) from big")[0][0])

    def busy(self) -> int:
        """Our sessions that have a transaction open which may write."""
        return int(self.execute(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'rowferry' and xact_start is not null and query not like '%rowferry_asked%'"
        )[0][0])  # fmt: skip


class Mysql:
    """The same on MySQL."""

    def __init__(self, url: str, paused: bool) -> None:
        self.url = url
        self.execute("create table paused (p boolean)", f"insert into paused values ({paused})")

    def execute(self, *statements: str) -> Any:
        from rowferry.endpoint import parse

        e = parse(self.url)
        c = pymysql.connect(
            host=e.host, port=e.port or 3306, user=e.user, password=e.password or "", database=e.database,
            autocommit=True,
        )  # fmt: skip
        try:
            cursor = c.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
        finally:
            c.close()

    def pause(self, paused: bool) -> None:
        self.execute(f"update paused set p = {paused}")

    def count(self) -> int:
        return int(self.execute("select count(*) from big")[0][0])

    def busy(self) -> int:
        return int(self.execute(
            "select count(*) from information_schema.innodb_trx t join information_schema.processlist p "
            "on p.id = t.trx_mysql_thread_id where p.db = database() and t.trx_rows_modified > 0"
        )[0][0])  # fmt: skip


Target = Postgres | Mysql


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with sqlite3.connect(tmp_path / "s.db") as c:
        c.execute("create table big (id integer primary key, t text)")
        c.executemany("insert into big values (?, ?)", ((i, f"row {i} " * 4) for i in range(ROWS)))
    c.close()
    return f"sqlite:///{tmp_path}/s.db"


@pytest.fixture(params=["postgres", "mysql"])
def make(request: pytest.FixtureRequest) -> Callable[[bool], Target]:
    if request.param == "postgres":
        database = request.getfixturevalue("postgres_database")
        return lambda paused: Postgres(database(), paused)
    database = request.getfixturevalue("mysql_database")
    return lambda paused: Mysql(database(), paused)


class Background:
    """A copy in a thread, with all its events.

    when_held: run by the worker that has to wait for the rate first, which then waits until the job is paused: that
    is in the middle of a chunk, however busy the machine is.
    """

    def __init__(self, source: str, target: str, when_held: Callable[[], None] | None = None, **options: Any) -> None:
        self._when_held = when_held
        self.events: list[Any] = []
        self.report: rowferry.Report | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(source, target, options))
        self._thread.start()

    def _run(self, source: str, target: str, options: dict[str, Any]) -> None:
        try:
            self.report = rowferry.copy(source, target, tables=["big"], on_event=self._take, **options)
        except BaseException as error:  # noqa: BLE001 - raised by ``end``
            self.error = error

    def _take(self, event: Any) -> None:
        self.events.append(event)
        if self._when_held is not None and isinstance(event, Waiting) and event.reason.startswith("held to"):
            self._when_held()
            wait_for(lambda: self.of(Waiting, "paused"))

    def of(self, kind: type, begins: str = "") -> list[Any]:
        return [e for e in list(self.events) if isinstance(e, kind) and getattr(e, "reason", "").startswith(begins)]

    def end(self) -> rowferry.Report:
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report


def test_a_job_waits_while_a_signal_is_true_and_then_copies_everything(
    source: str, make: Callable[[bool], Target]
) -> None:
    target = make(True)
    job = Background(source, target.url, pause_while=[("target", PAUSED)], verify=True, chunk_bytes=100_000)
    wait_for(lambda: job.of(Waiting, "paused: target: select p from paused: it is "))
    time.sleep(0.5)
    assert target.busy() == 0
    assert not job.of(ChunkFinished)
    target.pause(False)
    report = job.end()
    assert (report.exit_code, report.equal, target.count()) == (0, True, ROWS)
    assert len(job.of(WentOn)) == 1
    assert not job.of(ChunkRetried)
    assert any(n.startswith("paused 1 time,") for n in report.notes)


def test_a_chunk_that_is_held_for_too_long_is_given_back_and_copied_anew(
    source: str, make: Callable[[bool], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction stays open on the target, and no try of the chunk is counted."""
    monkeypatch.setattr(limits, "PAUSE_HOLD_S", 0.3)
    target = make(False)
    job = Background(
        source, target.url, lambda: target.pause(True), pause_while=[("target", PAUSED)], max_rows_per_s=8_000
    )
    given_back = wait_for(lambda: job.of(Waiting, "table 'big', chunk "))
    assert "given back after a pause of 0.3 s" in given_back[0].reason
    wait_for(lambda: target.busy() == 0)
    target.pause(False)
    report = job.end()
    assert (report.exit_code, target.count()) == (0, ROWS)
    assert report.tables[0].retries == 0
    assert any("given back: " in n for n in report.notes)


def test_a_signal_that_breaks_pauses_the_job_until_it_is_mended(source: str, make: Callable[[bool], Target]) -> None:
    target = make(False)
    job = Background(
        source, target.url, lambda: target.execute("drop table paused"), pause_while=[("target", PAUSED)],
        max_rows_per_s=8_000,
    )  # fmt: skip
    said = wait_for(lambda: job.of(Waiting, "paused"))
    assert "it cannot be read" in said[0].reason
    target.execute("create table paused (p boolean)")  # no row: nothing to wait for
    assert job.end().tables[0].rows_committed == target.count() == ROWS


def test_a_signal_that_hangs_counts_as_bad(
    source: str, make: Callable[[bool], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAUSE_UNREAD_MAX_S", 1.0)
    target = make(False)
    sleep = "select pg_sleep(600) is null" if isinstance(target, Postgres) else "select sleep(600)"
    with pytest.raises(TargetError, match="a signal could not be read") as caught:
        rowferry.copy(source, target.url, pause_while=[("target", sleep)])
    assert caught.value.exit_code == 4
    assert rowferry.copy(source, target.url).rows_committed == ROWS
    assert target.count() == ROWS


@pytest.mark.parametrize(
    "sql",
    [
        "drop table paused", "insert into paused values (true)", "select p from nowhere", "select p from", "delete",
        "select 1, 2", "select 'lag'", "select 1 union all select 2", "select 1; select 2", "update paused set p = 1",
        "select p from paused for update", "select p from paused) x; drop table paused; select * from (select 1",
    ],
)  # fmt: skip
def test_questions_that_write_or_do_not_parse_are_refused_before_the_first_row(
    source: str, make: Callable[[bool], Target], sql: str
) -> None:
    target = make(True)
    before = target.execute("select * from paused")
    with pytest.raises(ConfigError, match="--pause-while target") as caught:
        rowferry.copy(source, target.url, pause_while=[("target", sql)])
    assert caught.value.exit_code == 2
    assert target.execute("select * from paused") == before
    with pytest.raises((psycopg.Error, pymysql.Error)):
        target.count()


def test_a_function_that_writes_is_refused_by_the_server(source: str, postgres_database: Callable[[], str]) -> None:
    target = Postgres(postgres_database(), False)
    target.execute(
        "create function writes() returns boolean language sql volatile as "
        "'insert into paused values (true) returning p'"
    )
    with pytest.raises(ConfigError, match="read-only transaction"):
        rowferry.copy(source, target.url, pause_while=[("target", "select writes()")])
    assert target.execute("select * from paused") == [(False,)]


def test_a_pause_in_the_middle_of_a_load_outlives_the_servers_timeouts(
    source: str, own_mysql_server: mysql_servers.Mariadb, tmp_path: pathlib.Path
) -> None:
    """As a target (LOAD DATA stalls) and as a source (a result set stalls): longer than the server's own limits."""
    url, other = own_mysql_server.database(), own_mysql_server.database()
    target = Mysql(url, False)
    names = ("net_read_timeout", "net_write_timeout", "wait_timeout")
    before = [target.execute(f"select @@global.{n}")[0][0] for n in names]
    target.execute(*(f"set global {n} = 1" for n in names))
    try:
        for at, to in ((source, url), (url, other)):
            signals = [("target" if to == url else "source", PAUSED)]
            job = Background(at, to, lambda: target.pause(True), pause_while=signals, max_rows_per_s=8_000)
            wait_for(lambda job=job: job.of(Waiting, "paused"))  # type: ignore[misc]
            time.sleep(3)
            target.pause(False)
            report = job.end()
            assert report.tables[0].rows_committed == ROWS
            assert not job.of(ChunkRetried)
            assert not job.of(Waiting, "table"), "nothing was given back: the chunk was held"
    finally:
        target.execute(*(f"set global {n} = {v}" for n, v in zip(names, before, strict=True)))
        for name in (url, other):
            own_mysql_server.drop(name.rpartition("/")[2])


def test_too_many_failures_stop_the_job_and_it_goes_on_later(source: str, postgres_database: Callable[[], str]) -> None:
    """A table that refuses by a code that is worth another try, each time."""
    target = Postgres(postgres_database(), False)
    target.execute(
        "create table big (id bigint primary key, t text)",
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin if new.id = 15000 then raise exception 'not now' using errcode = '40001'; end if; return new; end $$",
        "create trigger refuse before insert on big for each row execute function refuse()",
    )
    options: dict[str, Any] = {"mode": "append", "target_triggers": "fire", "chunk_bytes": 100_000, "tables": ["big"]}
    with pytest.raises(TargetError, match="too many failures: 3 tries of chunks failed within 600 s") as caught:
        rowferry.copy(source, target.url, max_errors="2/10m", **options)
    assert caught.value.exit_code == 4
    assert "not now" in str(caught.value)
    assert target.count() < ROWS
    target.execute("drop trigger refuse on big")
    assert rowferry.copy(source, target.url, **options).rows_committed == ROWS
    assert target.count() == ROWS


def test_too_many_refused_rows_stop_the_job_and_it_goes_on_later(
    source: str, postgres_database: Callable[[], str]
) -> None:
    """Each hundredth row holds a NUL, which PostgreSQL has no text for."""
    with sqlite3.connect(source.removeprefix("sqlite:///")) as c:
        c.execute("update big set t = t || char(0) where id % 100 = 0")
    c.close()
    url = postgres_database()
    options: dict[str, Any] = {"on_error": "quarantine", "chunk_bytes": 100_000, "tables": ["big"]}
    with pytest.raises(DataError, match=r"too many rows were set aside: \d+ within 600 s") as caught:
        rowferry.copy(source, url, max_refused="50/10m", **options)
    assert caught.value.exit_code == 1
    report = rowferry.copy(source, url, max_refused="200", **options)
    table = report.tables[0]
    assert (table.rows_quarantined, table.rows_committed) == (ROWS // 100, ROWS - ROWS // 100)
    assert table.chunks_taken_over >= 1


# --- stopped and killed


def start(source: str, target: Target, output: Any) -> Any:
    return ferry.start(
        "copy", source, target.url, "--table", "big", "--pause-while", f"target:{PAUSED}", "--log-json", output=output,
        env={"ROWFERRY_CHUNK_BYTES": "100000"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_paused_job_ends_at_once_and_resume_knows_what_to_wait_for(
    source: str, make: Callable[[bool], Target], number: signal.Signals, tmp_path: pathlib.Path
) -> None:
    target = make(True)
    path = tmp_path / "output"
    with path.open("w") as output:
        process = start(source, target, output)
        try:
            wait_for(lambda: '"reason":"paused: target' in path.read_text())
            os.killpg(process.pid, number)
            # Well below the job's patience, well above what a busy machine needs.
            assert process.wait(30) == (5 if number != signal.SIGKILL else -signal.SIGKILL), path.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    again = ferry.run("resume", target.url, "--source", source, "--max-pause-s", "0.1", expect=5)
    assert "paused for longer than 0.1 s" in again.output
    target.pause(False)
    done = ferry.run("resume", target.url, "--source", source, "--verify", expect=0)
    assert done.report is not None
    assert done.table("big")["rows_committed"] == target.count() == ROWS


def test_the_command_line_says_why_it_waits(source: str, postgres_database: Callable[[], str]) -> None:
    target = Postgres(postgres_database(), True)
    stopped = ferry.run(
        "copy", source, target.url, "--pause-while", f"target:{PAUSED}", "--max-pause-s", "0.5",
        "--max-mb-per-s", "50", "--max-errors", "20/60s", expect=5,
    )  # fmt: skip
    assert "waiting: paused: target: select p from paused: it is true" in stopped.output
    assert stopped.report is not None
    assert stopped.report["status"] == "stopped"
    wrong = ferry.run("copy", source, target.url, "--pause-while", "select 1", expect=2)
    assert "source:SQL or target:SQL" in wrong.output
    config = pathlib.Path(source.removeprefix("sqlite:///")).with_name("job.toml")
    config.write_text(f'max_rows_per_s = 1e6\n[[pause_while]]\nside = "target"\nsql = "{PAUSED}"\n')
    target.pause(False)
    ferry.run("copy", source, target.url, "--config", str(config), expect=0)
    assert target.count() == ROWS


def test_a_joined_process_waits_by_itself(source: str, postgres_database: Callable[[], str]) -> None:
    """Each process asks, and has a rate of its own."""
    at = Postgres(postgres_database(), False)
    rowferry.copy(source, at.url)
    target = Postgres(postgres_database(), True)
    options: dict[str, Any] = {"pause_while": [("target", PAUSED)], "chunk_bytes": 100_000}
    first = Background(at.url, target.url, **options)
    wait_for(lambda: first.of(Waiting, "paused"))
    second = Background(at.url, target.url, join=True, **options)
    wait_for(lambda: second.of(Waiting, "paused"))
    assert not first.of(ChunkFinished) + second.of(ChunkFinished)
    target.pause(False)
    first.end(), second.end()
    assert target.count() == ROWS


def test_a_server_that_restarts_while_a_job_is_paused_is_waited_for(source: str) -> None:
    if servers.find_programs() is None:
        pytest.skip("no PostgreSQL server programs; tools/prepare.sh postgres installs them")
    server = servers.start()
    try:
        target = Postgres(server.database(), True)
        job = Background(source, target.url, pause_while=[("target", PAUSED)], chunk_bytes=100_000)
        wait_for(lambda: job.of(Waiting, "paused"))
        server.stop(signal.SIGQUIT)
        wait_for(lambda: [e for e in job.of(Waiting, "paused") if "cannot be read" in e.reason])
        server.start()
        target.pause(False)
        assert job.end().tables[0].rows_committed == target.count() == ROWS
    finally:
        server.discard()
