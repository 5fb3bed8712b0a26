"""Bad input: one clear line, the right exit code, no traceback, no secret, nothing half-written."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import subprocess
import time
from typing import Any

import duckdb
import psycopg
import pytest

from end_to_end import ferry

CANARY = "p%40ss-canary"
CANARY_PLAIN = "p@ss-canary"


def sqlite_file(path: pathlib.Path, *statements: str) -> str:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path}"


def expect(code: int, *arguments: str) -> ferry.Run:
    run = ferry.run(*arguments)
    assert run.code == code, f"exit {run.code}, not {code}: {run.output}"
    assert "Traceback" not in run.output
    assert CANARY not in run.output
    assert CANARY_PLAIN not in run.output
    return run


def error_line(run: ferry.Run) -> str:
    lines = [line for line in run.output.splitlines() if line.startswith("rowferry:")]
    assert len(lines) == 1, run.output
    return lines[0]


def test_unknown_scheme_exits_2(tmp_path: pathlib.Path) -> None:
    assert "oracle" in error_line(expect(2, "copy", "oracle://x/y", f"sqlite:///{tmp_path}/a.db"))


def test_source_and_target_the_same_place_exits_2(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(tmp_path / "a.db", "create table t (a)")
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    error_line(expect(2, "copy", url, url))
    error_line(expect(2, "copy", url, f"sqlite:///{tmp_path}/b.db"))


def test_missing_source_file_exits_3_and_is_not_made(tmp_path: pathlib.Path) -> None:
    error_line(expect(3, "copy", f"sqlite:///{tmp_path}/no.db", f"duckdb:///{tmp_path}/x.duckdb"))
    assert not (tmp_path / "no.db").exists()


def test_no_such_table_exits_2_and_names_what_is_near(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(tmp_path / "a.db", "create table flights (a)")
    run = expect(2, "copy", url, f"duckdb:///{tmp_path}/x.duckdb", "--table", "flight")
    assert "flights" in error_line(run)
    assert not (tmp_path / "x.duckdb").exists()


@pytest.mark.parametrize("target", ["duckdb:///{}/out.duckdb", "sqlite:///{}/out.db", "parquet:///{}/out"])
def test_empty_table_and_all_null_column_arrive(tmp_path: pathlib.Path, target: str) -> None:
    url = sqlite_file(
        tmp_path / "a.db",
        "create table none (a integer, b text)",
        "create table nulls (a integer primary key, b integer, c)",
        "insert into nulls (a) values (1), (2)",
    )
    run = ferry.run("copy", url, target.format(tmp_path), "--verify", expect=0)
    assert run.table("none")["rows_committed"] == 0
    assert run.table("nulls")["rows_committed"] == 2
    assert run.table("nulls")["digest_target"] == run.table("nulls")["digest_read"]


def test_loose_values_are_refused_by_name_with_count_and_policies(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(
        tmp_path / "a.db",
        "create table t (id integer primary key, n integer)",
        "insert into t (n) values (1), ('abc'), (2.5), (NULL)",
    )
    run = expect(2, "copy", url, f"duckdb:///{tmp_path}/x.duckdb")
    line = error_line(run)
    for word in ("'t'", "'n'", "2", "text"):
        assert word in line, line
    assert not (tmp_path / "x.duckdb").exists()


def test_loose_values_under_the_policy_text_arrive_as_text(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(
        tmp_path / "a.db",
        "create table t (id integer primary key, n integer)",
        "insert into t (n) values (1), ('abc'), (2.5), (NULL), (x'ff')",
    )
    ferry.run("copy", url, f"duckdb:///{tmp_path}/x.duckdb", "--policy", "t.n=text", "--verify", expect=0)
    with duckdb.connect(f"{tmp_path}/x.duckdb", read_only=True) as c:
        assert [r[0] for r in c.execute("select n from t order by id").fetchall()] == ["1", "abc", "2.5", None, "\\xff"]


def test_invalid_utf8_is_refused_by_column(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(
        tmp_path / "a.db",
        "create table t (id integer primary key, word text)",
        "insert into t (word) values ('good'), (cast(x'ff41' as text))",
    )
    run = ferry.run("copy", url, f"duckdb:///{tmp_path}/x.duckdb")
    assert run.code in (1, 2), run.output
    assert "word" in error_line(run)


@pytest.mark.parametrize("target", ["duckdb:///{}/x.duckdb", "sqlite:///{}/x.db", "parquet:///{}/x", "arrow:///{}/x"])
def test_a_cell_of_100_mb_arrives_in_bounded_memory(tmp_path: pathlib.Path, target: str) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as c:
        c.execute("create table t (id integer primary key, b blob)")
        c.execute("insert into t values (1, randomblob(100000000)), (2, x'01')")
    c.close()
    url = f"sqlite:///{path}"
    run = ferry.run("copy", url, target.format(tmp_path), "--workers", "1", expect=0, cold=True)
    assert run.table("t")["rows_committed"] == 2
    # DuckDB's own memory, which grows for such a cell, is in the sum.
    assert 100 < run.peak_mib < 300 + 3 * 100 + (100 if target.startswith("duckdb") else 0)
    ferry.run("verify", url, target.format(tmp_path), expect=0)


def test_odd_names_arrive_everywhere(tmp_path: pathlib.Path) -> None:
    odd = 'we"ird; drop table t; -- é\n😀'
    path = tmp_path / "a.db"
    quoted = '"' + odd.replace('"', '""') + '"'
    url = sqlite_file(path, f"create table {quoted} ({quoted} text)", f"insert into {quoted} values ('x')")
    ferry.run("copy", url, f"duckdb:///{tmp_path}/x.duckdb", "--verify", expect=0)
    ferry.run("copy", f"duckdb:///{tmp_path}/x.duckdb", f"parquet:///{tmp_path}/files", "--verify", expect=0)
    ferry.run("copy", f"parquet:///{tmp_path}/files", f"sqlite:///{tmp_path}/b.db", "--verify", expect=0)
    with sqlite3.connect(tmp_path / "b.db") as c:
        assert c.execute(f"select {quoted} from {quoted}").fetchall() == [("x",)]
    c.close()


def test_target_not_empty_exits_2_and_is_not_touched(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(tmp_path / "a.db", "create table t (id integer)", "insert into t values (2)")
    sqlite_file(tmp_path / "b.db", "create table t (id integer)", "insert into t values (1)")
    error_line(expect(2, "copy", url, f"sqlite:///{tmp_path}/b.db"))
    with sqlite3.connect(tmp_path / "b.db") as c:
        assert c.execute("select id from t").fetchall() == [(1,)]
    c.close()


def test_existing_narrower_column_is_refused(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(tmp_path / "a.db", "create table t (d decimal(12,4))", "insert into t values (1.2345)")
    with duckdb.connect(f"{tmp_path}/x.duckdb") as c:
        c.execute("create table t (d decimal(10,2))")
    run = ferry.run("copy", url, f"duckdb:///{tmp_path}/x.duckdb")
    assert run.code in (1, 2), run.output
    assert "'d'" in error_line(run)
    with duckdb.connect(f"{tmp_path}/x.duckdb", read_only=True) as c:
        assert c.execute("select count(*) from t").fetchone() == (0,)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Any:
    """A file system of 6 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("a file system of its own can only be mounted by root outside an unprivileged container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("target", ["sqlite:///{}/out.db", "duckdb:///{}/out.duckdb", "parquet:///{}/out"])
def test_full_disk_exits_4(tmp_path: pathlib.Path, small_disk: pathlib.Path, target: str) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as c:
        c.execute("create table t (id integer primary key, b blob)")
        c.executemany("insert into t values (?, ?)", ((i, os.urandom(1000)) for i in range(30_000)))
    c.close()
    run = expect(4, "copy", f"sqlite:///{path}", target.format(small_disk))
    assert error_line(run)


def test_read_only_target_folder_exits_4(tmp_path: pathlib.Path) -> None:
    url = sqlite_file(tmp_path / "a.db", "create table t (id integer)", "insert into t values (2)")
    (tmp_path / "file").write_text("not a folder")
    for target in (f"sqlite:///{tmp_path}/file/out.db", f"parquet:///{tmp_path}/file/out"):
        run = ferry.run("copy", url, target)
        assert run.code in (2, 4), run.output
        error_line(run)


def test_table_altered_in_mid_job_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "200000")
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as c:
        c.execute("create table t (id integer primary key, b text)")
        c.executemany("insert into t values (?, ?)", ((i, f"row {i}" * 10) for i in range(20_000)))
    c.close()
    arguments = ["copy", f"sqlite:///{path}", f"duckdb:///{tmp_path}/x.duckdb"]
    killed = ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": "committed:2"})
    assert killed.code == -9
    with sqlite3.connect(path) as c:
        c.execute("alter table t add column more integer")
    c.close()
    assert "altered" in error_line(expect(3, *arguments))


# --- PostgreSQL ------------------------------------------------------------------------------


@pytest.mark.server
def test_wrong_password_exits_by_side_and_is_not_shown(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    database = postgres_server.database()
    user, _, rest = database.partition("://")[2].partition("@")
    wrong = f"postgresql://{user.split(':')[0]}:{CANARY}@{rest}"
    file = sqlite_file(tmp_path / "a.db", "create table t (a integer)")
    assert "password" in error_line(expect(3, "copy", wrong, f"duckdb:///{tmp_path}/x.duckdb"))
    error_line(expect(4, "copy", file, wrong))


@pytest.mark.server
def test_table_without_columns_is_refused_by_name(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("create table bare ()")
    assert "bare" in error_line(expect(2, "copy", url, f"duckdb:///{tmp_path}/x.duckdb"))


@pytest.mark.server
def test_name_beyond_63_bytes_is_refused(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    long = "é" * 32
    file = sqlite_file(tmp_path / "a.db", f'create table "{long}" (a integer)')
    assert "64 bytes" in error_line(expect(2, "copy", file, url))


@pytest.mark.server
def test_nul_in_text_into_postgres_names_the_column(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as c:
        c.execute("create table t (id integer primary key, word text)")
        c.executemany("insert into t (word) values (?)", [("a",), ("b\0c",)])
    c.close()
    run = ferry.run("copy", f"sqlite:///{path}", url)
    assert run.code in (1, 2), run.output
    assert "word" in error_line(run)
    with psycopg.connect(url) as c:
        assert c.execute("select count(*) from pg_tables where tablename = 't'").fetchone() in ((0,), (1,))
        if c.execute("select to_regclass('t')").fetchone() != (None,):
            assert c.execute("select count(*) from t").fetchone() == (0,)


@pytest.mark.server
def test_missing_privileges_are_named_in_plan_and_copy(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("create table t (a int); insert into t values (1)")
        c.execute("drop role if exists ferry_weak")
        c.execute("create role ferry_weak login password 'weak-canary'")
    weak = "postgresql://ferry_weak:weak-canary@" + url.rpartition("@")[2]
    run = expect(3, "copy", weak, f"duckdb:///{tmp_path}/x.duckdb", "--table", "t")
    assert "'t'" in error_line(run) or "table t" in error_line(run)
    file = sqlite_file(tmp_path / "a.db", "create table t2 (a integer)")
    run = ferry.run("copy", file, weak)
    assert run.code in (2, 4), run.output
    assert "weak-canary" not in run.output


@pytest.mark.server
def test_row_level_security_is_an_error_not_fewer_rows(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("create table t (a int); insert into t select generate_series(1, 10)")
        c.execute("drop role if exists ferry_rls")
        c.execute("create role ferry_rls login password 'weak-canary'; grant select on t to ferry_rls")
        c.execute("alter table t enable row level security; create policy p on t using (a < 4)")
    weak = "postgresql://ferry_rls:weak-canary@" + url.rpartition("@")[2]
    run = ferry.run("copy", weak, f"duckdb:///{tmp_path}/x.duckdb")
    assert run.code in (2, 3), run.output
    assert "security" in run.output


@pytest.mark.server
def test_target_triggers_are_a_blocker_without_a_policy(postgres_server: Any, tmp_path: pathlib.Path) -> None:
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("create table t (a text)")
        c.execute(
            "create function shout() returns trigger language plpgsql as "
            "$$ begin new.a := upper(new.a); return new; end $$"
        )
        c.execute("create trigger loud before insert on t for each row execute function shout()")
    file = sqlite_file(tmp_path / "a.db", "create table t (a text)", "insert into t values ('abc')")
    assert "loud" in error_line(expect(2, "copy", file, url))
    ferry.run("copy", file, url, "--target-triggers", "disable", "--verify", expect=0)
    with psycopg.connect(url) as c:
        assert c.execute("select a from t").fetchall() == [("abc",)]
        assert c.execute("select tgenabled::text from pg_trigger where tgname = 'loud'").fetchone() == ("O",)


def wait_for_a_job(target: str) -> None:
    """Waits until a job stands in the target's ledger (30 s at the most): a command that listens to signals."""
    until = time.monotonic() + 30
    with psycopg.connect(target, autocommit=True) as c:
        while time.monotonic() < until:
            made = c.execute("select to_regclass('rowferry.chunks') is not null").fetchone()
            if made == (True,) and c.execute("select count(*) from rowferry.chunks").fetchone() != (0,):
                return
            time.sleep(0.02)
    raise AssertionError("no job was begun")


@pytest.mark.server
def test_sigterm_exits_5_and_the_same_command_goes_on(postgres_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "200000")
    source, target = postgres_server.database(), postgres_server.database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("create table t as select g id, md5(g::text) v from generate_series(1, 400000) g")
        c.execute("alter table t add primary key (id)")
    process = ferry.start("copy", source, target)
    wait_for_a_job(target)
    process.terminate()
    code = process.wait(60)
    assert code in (0, 5)
    run = ferry.run("copy", source, target)
    assert run.code == (0 if code == 5 else 2), run.output
    with psycopg.connect(target) as c:
        assert c.execute("select count(*), count(distinct id) from t").fetchone() == (400_000, 400_000)


@pytest.mark.server
def test_second_process_exits_2_while_the_first_lives(postgres_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "100000")
    source, target = postgres_server.database(), postgres_server.database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("create table t as select g id, md5(g::text) v from generate_series(1, 600000) g")
        c.execute("alter table t add primary key (id)")
    process = ferry.start("copy", source, target)
    try:
        wait_for_a_job(target)
        second = ferry.run("copy", source, target)
        assert process.poll() is not None or second.code == 2, second.output
    finally:
        assert process.wait(120) == 0


def test_passwords_never_show_in_reports_or_files(tmp_path: pathlib.Path) -> None:
    file = sqlite_file(tmp_path / "a.db", "create table t (a integer)")
    run = ferry.run("copy", file, f"postgresql://user:{CANARY}@127.0.0.1:1/x", "--log-json")
    assert run.code == 4
    assert CANARY not in run.output
    assert CANARY_PLAIN not in run.output
    assert not run.report or CANARY_PLAIN not in str(run.report)
