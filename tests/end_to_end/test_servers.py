"""Servers that crash, connections that are cut, processes that are stopped, killed and joined: each row once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import psycopg
import pytest

import rowferry
import servers
from end_to_end import ferry
from rowferry import ConfigError, DifferenceError, SourceError, StoppedError, TargetError
from rowferry.engine.progress import ChunkFinished, StepStarted, VerifyAdvanced, VerifyStarted, Waiting
from rowferry.errors import LedgerError

ROWS = 20_000
CHUNK_BYTES = 60_000


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[servers.Postgres, servers.Postgres]]:
    """Two servers of this module's own, to be crashed."""
    if servers.find_programs() is None:
        reason = "no PostgreSQL server programs; tools/prepare.sh postgres installs them"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    source = servers.start()
    try:
        target = servers.start()
        try:
            yield source, target
        finally:
            target.discard()
    finally:
        source.discard()


def facts(url: str, *tables: str) -> list[Any]:
    with psycopg.connect(url) as c:
        return [
            c.execute(f"select count(*), sum(hashtextextended(x::text, 0)::numeric) from {t} x").fetchone()
            for t in tables or ("big", "nokey")
        ]


def execute(url: str, *statements: str) -> Any:
    with psycopg.connect(url, autocommit=True) as c:
        for statement in statements:
            cursor = c.execute(statement)
        return cursor.fetchall() if cursor.description else None


def others(server: servers.Postgres) -> list[Any]:
    """rowferry's sessions on a server."""
    return execute(
        server.url_of("postgres"),
        "select pid, state, left(query, 60) from pg_stat_activity where application_name = 'rowferry'",
    )


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.02)
    return found


class Ends:
    """Two tables, one with a key and one split by place, in a new database; and a new, empty target."""

    def __init__(self, source: servers.Postgres, target: servers.Postgres) -> None:
        self.source_server, self.target_server = source, target
        self.source_url, self.target_url = source.database(), target.database()
        execute(
            self.source_url,
            f"create table big as select g::bigint id, md5(g::text) t, g * 1.5 n from generate_series(1, {ROWS}) g",
            "alter table big add primary key (id)",
            f"create table nokey as select * from big limit {ROWS // 2}",
            "analyze",
        )
        self.want = facts(self.source_url)

    def copy(self, **options: Any) -> rowferry.Report:
        options = {"chunk_bytes": CHUNK_BYTES, "source": self.source_url, "target": self.target_url} | options
        return rowferry.copy(options.pop("source"), options.pop("target"), **options)

    def check(self) -> None:
        assert facts(self.target_url) == self.want

    def check_closed(self) -> None:
        """Nothing of ours is left on either server."""
        wait_for(lambda: not others(self.source_server) and not others(self.target_server), 5)
        assert not [t for t in threading.enumerate() if t.name.startswith("rowferry")]


@pytest.fixture
def ends(pair: tuple[servers.Postgres, servers.Postgres]) -> Ends:
    return Ends(*pair)


class At:
    """An event handler that does something once, at the n-th event of a kind."""

    def __init__(self, kind: type, number: int, action: Callable[[], Any], /, **fields: Any) -> None:
        self._kind, self._left, self._action, self._fields = kind, number, action, fields
        self._lock = threading.Lock()

    def __call__(self, event: Any) -> None:
        if not isinstance(event, self._kind) or any(getattr(event, k) != v for k, v in self._fields.items()):
            return
        with self._lock:
            self._left -= 1
            now = self._left == 0
        if now:
            self._action()


def crash(server: servers.Postgres) -> None:
    server.stop(signal.SIGQUIT)
    server.start()


# --- servers that crash, backends that are ended


def test_source_crash_in_mid_copy_goes_on_under_a_new_snapshot(ends: Ends) -> None:
    report = ends.copy(on_event=At(ChunkFinished, 6, lambda: crash(ends.source_server)))
    ends.check()
    assert report.snapshot == "mixed"
    # What came under the older snapshot was read again, though nobody had asked for it.
    assert [t.equal for t in report.tables if t.source == "big"] == [True]
    assert sum(t.chunks for t in report.tables) > 20
    ends.check_closed()


def test_source_crash_declining_the_second_look(ends: Ends) -> None:
    report = ends.copy(on_event=At(ChunkFinished, 6, lambda: crash(ends.source_server)), no_verify=True)
    ends.check()
    assert report.snapshot == "mixed"
    assert [t.equal for t in report.tables] == [None, None]
    assert any("not verified" in note for note in report.notes)


def test_source_changed_between_two_snapshots_is_found_at_the_end(ends: Ends) -> None:
    def change() -> None:
        crash(ends.source_server)
        execute(ends.source_url, "update big set t = 'new'")

    with pytest.raises(DifferenceError, match="changed"):
        ends.copy(on_event=At(ChunkFinished, 6, change))


def test_target_crash_in_mid_copy_keeps_the_snapshot(ends: Ends) -> None:
    report = ends.copy(on_event=At(ChunkFinished, 6, lambda: crash(ends.target_server)))
    ends.check()
    assert report.snapshot == "one"
    ends.check_closed()


@pytest.mark.parametrize("kind", ["create", "keys"])
def test_target_crash_in_a_step_goes_on(ends: Ends, kind: str) -> None:
    ends.copy(on_event=At(StepStarted, 1, lambda: crash(ends.target_server), kind=kind))
    ends.check()


@pytest.mark.parametrize("mode", ["create", "append"])
def test_target_that_is_not_logged_is_warned_of_and_its_loss_is_found(ends: Ends, mode: str) -> None:
    execute(ends.target_url, "create unlogged table big (id bigint primary key, t text, n numeric)")
    if mode == "append":
        execute(ends.target_url, "insert into big values (-1, 'mine', 0)")
    options: dict[str, Any] = {"tables": ["big"], "mode": mode}
    plan = rowferry.plan(ends.source_url, ends.target_url, **options)
    assert plan.exit_code == 0
    assert any("'big' in the target is not logged" in note for note in plan.notes)
    # Unasked, the target is read again. The crash empties the table, and the ledger says that six chunks are done.
    with pytest.raises(DifferenceError, match="rows missing") as caught:
        ends.copy(**options, on_event=At(ChunkFinished, 6, lambda: crash(ends.target_server)))
    (table,) = caught.value.report.tables
    assert table.missing
    assert table.rows_committed == ROWS
    execute(ends.target_url, "truncate big")
    report = ends.copy(tables=["big"], mode="append")
    assert (report.equal, report.tables[0].equal) == (True, True)
    assert any("is read again at the end" in note for note in report.notes)


@pytest.mark.parametrize("side", ["source", "target"])
def test_crash_in_verify_goes_on(ends: Ends, side: str) -> None:
    server = ends.source_server if side == "source" else ends.target_server
    report = ends.copy(verify=True, on_event=At(VerifyStarted, 1, lambda: crash(server)))
    ends.check()
    assert all(t.equal for t in report.tables)


@pytest.mark.parametrize("side", ["source", "target"])
def test_crash_while_verify_reads_compares_that_table_again(ends: Ends, side: str) -> None:
    ends.copy()
    execute(ends.target_url, "update big set t = 'x' where id = 7", "delete from nokey where id = 8")
    server = ends.source_server if side == "source" else ends.target_server
    events: list[Any] = []
    at = At(VerifyAdvanced, 1, lambda: crash(server), side=side)

    def seen(event: Any) -> None:
        events.append(event)
        at(event)

    report = rowferry.verify(ends.source_url, ends.target_url, on_event=seen)
    assert report.exit_code == 1
    big, nokey = report.tables
    assert (big.missing, big.extra, big.changed) == (0, 0, 1)
    assert (nokey.missing, nokey.extra, nokey.changed) == (1, 0, 0)
    # Nothing had been found when the server went: all is of one snapshot after all.
    assert report.snapshot == "one"
    assert any(isinstance(e, Waiting) and "goes on in" in e.reason for e in events)
    ends.check_closed()


@pytest.mark.parametrize("side", ["source", "target"])
def test_crash_between_two_tables_of_a_verify_keeps_what_was_found(ends: Ends, side: str) -> None:
    ends.copy()
    server = ends.source_server if side == "source" else ends.target_server
    started: list[str] = []

    def event(event: Any) -> None:
        if isinstance(event, VerifyStarted):
            started.append(event.table)
            if len(started) == 2:
                crash(server)

    report = rowferry.verify(ends.source_url, ends.target_url, on_event=event)
    assert report.equal is True
    assert report.snapshot == "mixed"
    assert any("under 2 snapshots" in note for note in report.notes)
    assert started == ["big", "nokey", "nokey"]


def test_verify_of_a_server_that_stays_away_ends_with_its_side(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    from rowferry import limits

    monkeypatch.setattr(limits, "CHUNK_TRIES", 3)
    ends.copy()
    for server, error in ((ends.source_server, SourceError), (ends.target_server, TargetError)):
        stay_away = At(VerifyAdvanced, 1, lambda: server.stop(signal.SIGQUIT))  # noqa: B023
        try:
            with pytest.raises(error):
                rowferry.verify(ends.source_url, ends.target_url, on_event=stay_away)
        finally:
            server.start()
    # A wrong port is told at once: nothing had begun.
    began = time.monotonic()
    with pytest.raises(SourceError):
        rowferry.verify(f"postgresql://postgres:x@127.0.0.1:{servers.free_port()}/x", ends.target_url)
    assert time.monotonic() - began < 5


def test_stop_while_verify_waits_for_a_server_ends_quickly(ends: Ends) -> None:
    ends.copy()
    stop = threading.Event()

    def event(event: Any) -> None:
        away(event)
        if isinstance(event, Waiting):
            stop.set()

    away = At(VerifyAdvanced, 1, lambda: ends.target_server.stop(signal.SIGQUIT))
    try:
        with pytest.raises(StoppedError):
            rowferry.verify(ends.source_url, ends.target_url, on_event=event, stop=stop)
    finally:
        ends.target_server.start()


@pytest.mark.parametrize("when", ["before", "after"])
def test_crash_in_a_repair_doubles_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Before the repair has written anything, and after all of it was committed while its answer was lost."""
    from rowferry.engine import verifier

    ends.copy()
    execute(
        ends.target_url, "delete from nokey where id <= 100", "delete from big where id = 5", "update big set n = 0"
    )
    crashed: list[str] = []
    mend = verifier.repair

    def repair(source: Any, target: Any, plan: Any, *rest: Any) -> int:
        name = plan.target.name.name
        if name not in crashed:
            crashed.append(name)
            if when == "after":
                mend(source, target, plan, *rest)
            ends.target_server.stop(signal.SIGQUIT)
        return mend(source, target, plan, *rest)

    def event(event: Any) -> None:
        if isinstance(event, Waiting):
            ends.target_server.start()

    monkeypatch.setattr(verifier, "repair", repair)
    report = rowferry.verify(ends.source_url, ends.target_url, repair=True, on_event=event)
    assert report.exit_code == 0
    # By value: a repair does not keep the scale in which an unbounded numeric is shown.
    by_value = "select count(*), count(distinct id), sum(n), min(t) from {}"
    for table in ("big", "nokey"):
        assert execute(ends.target_url, by_value.format(table)) == execute(ends.source_url, by_value.format(table))
    assert {t.source: t.repaired for t in report.tables} == {"big": ROWS, "nokey": 100}
    assert crashed == ["big", "nokey"]


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("which", ["all", "oldest", "newest"])
def test_terminated_backends_are_replaced(ends: Ends, side: str, which: str) -> None:
    server = ends.source_server if side == "source" else ends.target_server
    order = {"all": "", "oldest": "order by backend_start limit 2", "newest": "order by backend_start desc limit 1"}
    end = (
        "select pg_terminate_backend(pid) from (select pid from pg_stat_activity "
        f"where application_name = 'rowferry' {order[which]}) x"
    )
    ends.copy(on_event=At(ChunkFinished, 6, lambda: execute(server.url_of("postgres"), end)))
    ends.check()
    ends.check_closed()


def test_target_that_stays_away_ends_the_job_and_the_same_command_finishes(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rowferry import limits

    monkeypatch.setattr(limits, "CHUNK_TRIES", 3)
    with pytest.raises(TargetError):
        ends.copy(on_event=At(ChunkFinished, 6, lambda: ends.target_server.stop(signal.SIGQUIT)))
    ends.target_server.start()
    report = ends.copy()
    ends.check()
    assert sum(t.chunks_taken_over for t in report.tables) >= 1


def test_too_few_connections_leave_the_chunks_to_the_workers_that_have_one(ends: Ends) -> None:
    execute(
        ends.target_server.url_of("postgres"),
        "drop role if exists few",
        "create role few login password 'few' connection limit 3",
    )
    name = ends.target_url.rpartition("/")[2]
    execute(ends.target_url, f'grant create on database "{name}" to few', "grant create, usage on schema public to few")
    url = ends.target_server.url_of(name, "few", "few")
    ends.copy(target=url, workers=6)
    ends.check()


# --- answers to COMMIT that are lost


class CommitProxy:
    """Passes on to a server; at the n-th COMMIT of all connections it cuts that one, before or after the server has
    had it."""

    def __init__(self, server: servers.Postgres, number: int, before: bool) -> None:
        self._to, self._left, self._before = (server.host, server.port), number, before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _is_the_one(self, data: bytes) -> bool:
        if b"Q\0\0\0\x0bCOMMIT\0" not in data:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client and self._is_the_one(data):
                        self.cuts += 1
                        if not self._before:
                            server.sendall(data)
                            server.recv(1 << 16)
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_every_commit_s_answer_lost_once_doubles_nothing(
    ends: Ends, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In append mode, where a chunk (or a whole job) that is done twice shows."""
    from rowferry import limits

    # The server is there all the time: how long it is waited for proves nothing here.
    monkeypatch.setattr(limits, "RETRY_WAIT_MIN_S", 0.01)
    monkeypatch.setattr(limits, "CLAIM_POLL_S", 0.02)
    execute(ends.source_url, "drop table nokey", f"delete from big where id > {ROWS // 5}")
    want = facts(ends.source_url, "big")
    name = ends.target_url.rpartition("/")[2]
    number = 0
    while True:
        number += 1
        execute(
            ends.target_url,
            "drop schema if exists rowferry cascade",
            "drop table if exists big",
            "create table big (id bigint, t text, n numeric)",
        )
        proxy = CommitProxy(ends.target_server, number, before)
        user, password = ends.target_server.user, ends.target_server.password
        url = f"postgresql://{user}:{password}@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
        try:
            ends.copy(target=url, mode="append", chunk_bytes=150_000)
        finally:
            proxy.close()
        assert facts(ends.target_url, "big") == want, f"COMMIT {number}"
        assert execute(
            ends.target_url, "select count(*), count(*) filter (where state = 'finished') from rowferry.jobs"
        ) in ([(1, 1)],)
        if not proxy.cuts:
            break
    assert number > 6


# --- stopped by a signal


def start_and_signal(ends: Ends, number: int, *more: str, until: Callable[[], Any]) -> tuple[int, float, str]:
    """Starts the command, sends it a signal as soon as ``until`` holds; its exit code, how long it took to end, and
    what it said."""
    with open(os.path.join(os.environ["TMPDIR_OF_TEST"], "output"), "w+") as output:
        process = ferry.start(
            "copy",
            ends.source_url,
            ends.target_url,
            *more,
            env={"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)},
            output=output,
        )
        wait_for(until)
        process.send_signal(number)
        began = time.monotonic()
        code = process.wait(60)
        took_s = time.monotonic() - began
        output.seek(0)
        return code, took_s, output.read()


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("TMPDIR_OF_TEST", str(tmp_path))
    return tmp_path


def finish(ends: Ends, *more: str) -> ferry.Run:
    return ferry.run(
        "copy", ends.source_url, ends.target_url, *more, env={"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)}, expect=0
    )


@contextlib.contextmanager
def locked(url: str, table: str, mode: str = "access exclusive") -> Iterator[None]:
    with psycopg.connect(url) as c:
        c.execute(f"lock table {table} in {mode} mode")
        yield
        c.rollback()


def waits(server: servers.Postgres) -> Callable[[], Any]:
    """Whether one of our sessions waits for a lock there."""
    return lambda: execute(
        server.url_of("postgres"),
        "select 1 from pg_stat_activity where application_name = 'rowferry' and wait_event_type = 'Lock'",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_the_target_holds_everything_up_ends_quickly(
    ends: Ends, folder: pathlib.Path, number: signal.Signals
) -> None:
    execute(ends.target_url, "create table big (id bigint, t text, n numeric)")
    with locked(ends.target_url, "big", "share row exclusive"):
        code, took_s, said = start_and_signal(ends, number, until=waits(ends.target_server))
        assert code == 5, said
        assert took_s < 8
        assert "rowferry resume" in said
    ends_closed(ends)
    finish(ends)
    ends.check()


def ends_closed(ends: Ends) -> None:
    wait_for(lambda: not others(ends.source_server) and not others(ends.target_server), 5)


def test_stop_while_the_source_holds_planning_up_ends_quickly(ends: Ends, folder: pathlib.Path) -> None:
    with locked(ends.source_url, "big"):
        code, took_s, said = start_and_signal(ends, signal.SIGTERM, until=waits(ends.source_server))
    assert code == 5, said
    assert took_s < 8
    ends_closed(ends)
    finish(ends)
    ends.check()


def test_stop_in_a_step_ends_quickly_and_the_same_command_finishes(ends: Ends, folder: pathlib.Path) -> None:
    """The last step (a merge) waits for a table that somebody has locked."""
    execute(ends.target_url, "create table nokey (id bigint, t text, n numeric)")
    with locked(ends.target_url, "nokey", "share row exclusive"):
        code, took_s, said = start_and_signal(
            ends, signal.SIGINT, "--table", "nokey", "--mode", "append", until=waits(ends.target_server)
        )
        assert code == 5, said
        assert took_s < 8
        ends_closed(ends)
    finish(ends, "--table", "nokey", "--mode", "append")
    assert facts(ends.target_url, "nokey") == ends.want[1:]


def test_stop_in_verify_ends_quickly_and_the_same_command_finishes(ends: Ends, folder: pathlib.Path) -> None:
    execute(ends.target_url, "create table nokey (id bigint, t text, n numeric)")
    arguments = ["--table", "nokey", "--verify"]
    killed = ferry.run(
        "copy", ends.source_url, ends.target_url, *arguments, env={"ROWFERRY_FAILPOINT": "after sequences:1"}
    )
    assert killed.code == -signal.SIGKILL
    with locked(ends.target_url, "nokey"):
        code, took_s, said = start_and_signal(ends, signal.SIGINT, *arguments, until=waits(ends.target_server))
    assert code == 5, said
    assert took_s < 8
    finish(ends, *arguments)
    assert facts(ends.target_url, "nokey") == ends.want[1:]


def test_stop_by_event_leaves_no_session_and_no_thread(ends: Ends) -> None:
    stop = threading.Event()
    with pytest.raises(StoppedError, match="rowferry resume") as stopped:
        ends.copy(on_event=At(ChunkFinished, 5, stop.set), stop=stop)
    assert stopped.value.report.status == "stopped"
    ends.check_closed()
    ends.copy()
    ends.check()
    ends.check_closed()


def test_failed_worker_does_not_wait_for_a_source_that_is_silent(ends: Ends) -> None:
    """The target refuses a chunk while the source still thinks about its next row."""
    execute(
        ends.source_url,
        "create view slow as select g id, repeat('x', 2000000) t from generate_series(1, 8) g "
        "union all select 9, pg_sleep(100)::text",
    )
    execute(ends.target_url, "create table slow (id integer, t text check (length(t) < 10))")
    began = time.monotonic()
    with pytest.raises(rowferry.RowferryError, match="check"):
        ends.copy(tables=["slow"])
    assert time.monotonic() - began < 20
    ends.check_closed()


# --- several processes


def test_second_process_is_refused_and_a_joined_one_helps(ends: Ends, folder: pathlib.Path) -> None:
    execute(ends.target_url, "create table nokey (id bigint, t text, n numeric)")
    with locked(ends.target_url, "nokey", "share row exclusive"):
        owner = ferry.start("copy", ends.source_url, ends.target_url, env={"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)})
        wait_for(waits(ends.target_server))
        second = ferry.run("copy", ends.source_url, ends.target_url, expect=2)
        assert "--join" in second.output
        with open(folder / "joined", "w+") as output:
            joined = ferry.start("copy", ends.source_url, ends.target_url, "--join", output=output)
            wait_for(lambda: len(others(ends.target_server)) > 4)
    assert owner.wait(60) == 0
    assert joined.wait(60) == 0, (folder / "joined").read_text()
    ends.check()
    assert execute(ends.target_url, "select count(distinct snapshot) from rowferry.chunks") == [(1,)]


def test_joined_process_that_starts_first_runs_the_job(ends: Ends) -> None:
    together = [
        ferry.start("copy", ends.source_url, ends.target_url, "--join", env={"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)})
        for _ in range(3)
    ]
    assert [p.wait(60) for p in together] == [0, 0, 0]
    ends.check()


@pytest.mark.parametrize("dies", ["owner", "joined"])
def test_one_of_two_processes_killed_the_other_ends_the_job(ends: Ends, folder: pathlib.Path, dies: str) -> None:
    execute(ends.target_url, "create table nokey (id bigint, t text, n numeric)")
    env = {"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)}
    with locked(ends.target_url, "nokey", "share row exclusive"):
        owner = ferry.start("copy", ends.source_url, ends.target_url, env=env)
        wait_for(waits(ends.target_server))
        with open(folder / "joined", "w+") as output:
            joined = ferry.start("copy", ends.source_url, ends.target_url, "--join", env=env, output=output)
            wait_for(lambda: len(waiting(ends)) >= 4)
        (owner if dies == "owner" else joined).kill()
        (owner if dies == "owner" else joined).wait()
    left = joined if dies == "owner" else owner
    assert left.wait(60) == 0, (folder / "joined").read_text()
    ends.check()
    assert execute(ends.target_url, "select state from rowferry.jobs") == [("finished",)]


def waiting(ends: Ends) -> list[Any]:
    return execute(
        ends.target_url,
        "select 1 from pg_stat_activity where application_name = 'rowferry' and wait_event_type = 'Lock'",
    )


def test_worker_of_a_left_snapshot_finishes_no_chunk(ends: Ends, folder: pathlib.Path) -> None:
    """The first process dies, a joined one still works in its snapshot; a third takes the job up under another."""
    execute(ends.target_url, "create table nokey (id bigint, t text, n numeric)")
    env = {"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)}
    with locked(ends.target_url, "nokey", "share row exclusive"):
        owner = ferry.start("copy", ends.source_url, ends.target_url, env=env)
        wait_for(waits(ends.target_server))
        with open(folder / "joined", "w+") as output:
            joined = ferry.start("copy", ends.source_url, ends.target_url, "--join", env=env, output=output)
            wait_for(lambda: len(waiting(ends)) >= 4)
        owner.kill()
        owner.wait()
        token = execute(ends.target_url, "select token from rowferry.jobs")
        # Rows move: their places under the two snapshots differ.
        execute(ends.source_url, "update nokey set n = n + 1", "vacuum nokey", "update big set n = n + 1 where id < 0")
        with open(folder / "third", "w") as output:
            third = ferry.start("copy", ends.source_url, ends.target_url, env=env, output=output)
        wait_for(lambda: execute(ends.target_url, "select token from rowferry.jobs") != token)
    assert third.wait(60) == 0, (folder / "third").read_text()
    assert joined.wait(60) == 0, (folder / "joined").read_text()
    assert facts(ends.target_url) == facts(ends.source_url)


def test_two_jobs_into_one_new_target_at_the_same_time(ends: Ends) -> None:
    env = {"ROWFERRY_CHUNK_BYTES": str(CHUNK_BYTES)}
    both = [ferry.start("copy", ends.source_url, ends.target_url, "--table", t, env=env) for t in ("big", "nokey")]
    assert [p.wait(60) for p in both] == [0, 0]
    ends.check()


# --- what others do to the target meanwhile


def test_rows_of_others_in_the_target_are_found_by_verify(ends: Ends) -> None:
    add = At(
        ChunkFinished, 3, lambda: execute(ends.target_url, "insert into big values (-1, 'theirs', 0)"), table="big"
    )
    with pytest.raises(DifferenceError, match="1 extra"):
        ends.copy(verify=True, on_event=add)


@pytest.mark.parametrize(
    "what", ["alter table big alter n type text", "alter table big rename n to m", "drop table big"]
)
def test_target_table_changed_in_mid_job_ends_it_by_name(ends: Ends, what: str) -> None:
    with pytest.raises(TargetError, match="big"):
        ends.copy(on_event=At(ChunkFinished, 3, lambda: execute(ends.target_url, what), table="big"))
    ends.check_closed()


def test_target_column_of_the_same_width_but_another_type_takes_no_row(ends: Ends) -> None:
    """COPY BINARY would take a bigint's eight bytes for a timestamp's."""
    change = "alter table big alter id type timestamp using '2000-01-01'::timestamp + id * interval '1 us'"
    with pytest.raises(TargetError, match="big"):
        ends.copy(on_event=At(ChunkFinished, 3, lambda: execute(ends.target_url, change), table="big"))


def test_source_table_changed_in_mid_job_ends_it_by_name(ends: Ends) -> None:
    change = At(ChunkFinished, 3, lambda: execute(ends.source_url, "alter table big add z integer"), table="big")
    with pytest.raises(SourceError, match=r"big.*altered"):
        ends.copy(on_event=change)
    with pytest.raises(SourceError, match=r"big.*altered"):
        ends.copy()


def test_ledger_dropped_in_mid_job_is_named(ends: Ends) -> None:
    def drop_ledger() -> None:
        for _ in range(50):
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                execute(ends.target_url, "drop schema rowferry cascade")
                return

    drop = At(ChunkFinished, 3, drop_ledger)
    with pytest.raises(TargetError, match=r"rowferry\.chunks|ledger"):
        ends.copy(on_event=drop)
    ends.check_closed()


@pytest.mark.parametrize("plan", ["{}", '{"version": 0}', "not json"])
def test_job_of_another_version_is_a_ledger_error(ends: Ends, plan: str) -> None:
    stop = threading.Event()
    with pytest.raises(StoppedError):
        ends.copy(on_event=At(ChunkFinished, 3, stop.set), stop=stop)
    execute(ends.target_url, f"update rowferry.jobs set plan = '{plan}'")
    with pytest.raises(LedgerError, match="cannot be read"):
        ends.copy()
    with pytest.raises(LedgerError, match="cannot be read"):
        rowferry.resume(ends.target_url, source=ends.source_url)
    # The other jobs of the ledger are none the worse for it.
    ends.copy(tables=["big:other"], verify=True)
    broken, other = rowferry.jobs(ends.target_url)
    assert "cannot be read" in (broken.problem or "")
    assert (other.problem, other.state, other.rows_committed) == (None, "finished", ROWS)
    shown = ferry.run("jobs", ends.target_url, expect=4)
    assert "UNREADABLE: the plan of job" in shown.output
    assert "1 of 2 jobs of this ledger cannot be read" in shown.output


# --- resume


def test_resume_under_another_spelling_of_the_source_is_the_same_job(ends: Ends, folder: pathlib.Path) -> None:
    stop = threading.Event()
    with pytest.raises(StoppedError):
        ends.copy(on_event=At(ChunkFinished, 3, stop.set), stop=stop, job="nightly")
    spelled = ends.source_url.replace("127.0.0.1", "localhost")
    with locked(ends.target_url, "big", "share row exclusive"):
        first = ferry.start("resume", ends.target_url, "nightly", "--source", spelled)
        wait_for(waits(ends.target_server))
        with pytest.raises(ConfigError, match="another process"):
            ends.copy(job="nightly")
    assert first.wait(60) == 0
    ends.check()
    assert ends.copy(job="nightly").exit_code == 0
    with pytest.raises(ConfigError, match="nightly"):
        ends.copy(job="nightly", mode="append")


def test_resumed_twice_under_changed_files_verifies_what_is_older(tmp_path: pathlib.Path) -> None:
    """The state of the first resume is the state of the second one: what came before both is still older."""
    file, target = tmp_path / "source.db", tmp_path / "target.duckdb"

    def sql(statement: str) -> None:
        with contextlib.closing(sqlite3.connect(file)) as c, c:
            c.execute(statement)

    sql("create table t (id integer primary key, t text)")
    sql(
        "insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000) "
        "select i, 'row number ' || i from n"
    )
    run = ["copy", f"sqlite:///{file}", f"duckdb:///{target}", "--workers", "1"]
    env = {"ROWFERRY_CHUNK_BYTES": "20000"}
    assert ferry.run(*run, env=env | {"ROWFERRY_FAILPOINT": "committed:2"}).code == -9
    sql("update t set t = 'changed' where id = 1")
    assert ferry.run(*run, env=env | {"ROWFERRY_FAILPOINT": "committed:1"}).code == -9
    ended = ferry.run(*run, env=env)
    assert ended.code == 1, ended.output
    assert "1 changed" in ended.output


def test_append_resumed_under_a_changed_file_keeps_the_target_s_own_rows(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source.duckdb", tmp_path / "target.duckdb"
    with duckdb.connect(str(source)) as c:
        c.execute("create table t as select range a, repeat('x', 50) b from range(20000)")
    with duckdb.connect(str(target)) as c:
        c.execute("create table t as select -1::bigint a, 'own' b")
    run = ["copy", f"duckdb:///{source}", f"duckdb:///{target}", "--mode", "append", "--workers", "1"]
    env = {"ROWFERRY_CHUNK_BYTES": "100000"}
    assert ferry.run(*run, env=env | {"ROWFERRY_FAILPOINT": "committed:2"}).code == -9
    with duckdb.connect(str(source)) as c:
        c.execute("insert into t values (20000, 'late')")
    ferry.run(*run, env=env, expect=0)
    with duckdb.connect(str(target)) as c:
        found = c.execute("select count(*), count(distinct a), min(a), max(a) from t").fetchone()
    assert found == (20_002, 20_002, -1, 20_000)
