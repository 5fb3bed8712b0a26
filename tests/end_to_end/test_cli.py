"""The command line as a user meets it: processes, exit codes, streams, signals, reports; no secrets anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

CANARY = "canary-s3cret"
SRC = str(pathlib.Path(__file__).resolve().parents[2] / "src")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SRC, "COLUMNS": "140", "LC_ALL": "C.UTF-8", **more}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rowferry", *map(str, arguments)]


def rowferry(*arguments: object, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs it to the end; holds every run to the rules that hold for all."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(**env), timeout=120)
    assert code is None or done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr
    if done.returncode and arguments:
        assert len(done.stderr.splitlines()) == 1, f"an error is one line: {done.stderr}"
        assert done.stderr.startswith("rowferry: ")
    return done


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> tuple[str, str]:
    """A SQLite database of two tables, and the URL of a DuckDB database that is not there yet."""
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as c:
        c.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(10,2))")
        c.executemany("INSERT INTO items VALUES (?, ?, ?)", [(i, f"item {i}", i / 4) for i in range(1000)])
        c.execute('CREATE TABLE "odd ""name""\n" (v TEXT)')
        c.execute('INSERT INTO "odd ""name""\n" VALUES (\'x\')')
        c.commit()
    return f"sqlite:///{tmp_path}/shop.db", f"duckdb:///{tmp_path}/shop.duckdb"


@pytest.fixture
def large(tmp_path: pathlib.Path) -> tuple[str, str]:
    """Enough rows that a copy can be stopped in the middle."""
    with contextlib.closing(sqlite3.connect(tmp_path / "large.db")) as c:
        c.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, t TEXT, n INTEGER)")
        c.execute(
            "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 1500000) "
            "INSERT INTO big SELECT i, 'text of row ' || i, i % 97 FROM g"
        )
        c.commit()
    return f"sqlite:///{tmp_path}/large.db", f"duckdb:///{tmp_path}/large.duckdb"


def rows_of(url: str, sql: str) -> Any:
    with contextlib.closing(duckdb.connect(url.removeprefix("duckdb:///"), read_only=True)) as c:
        return c.execute(sql).fetchall()


# --- usage ------------------------------------------------------------------------------------


def test_help_and_version_exit_with_0() -> None:
    assert "copy" in rowferry("--help").stdout
    assert re.fullmatch(r"rowferry \d+\.\d+\.\d+\n", rowferry("--version").stdout)
    for name in ("copy", "verify", "plan", "resume", "jobs"):
        assert "Usage: rowferry " + name in rowferry(name, "--help").stdout


def test_no_command_shows_the_help_and_exits_with_2() -> None:
    done = rowferry(code=2)
    assert "Usage: rowferry" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("sink",),
        ("copy",),
        ("copy", "sqlite:///a.db"),
        ("copy", "sqlite:///a.db", "duckdb:///b.db", "surplus"),
        ("copy", "sqlite:///a.db", "duckdb:///b.db", "--workers", "0"),
        ("copy", "sqlite:///a.db", "duckdb:///b.db", "--mode", "overwrite"),
        ("copy", "oracle://x/y", "duckdb:///b.db"),
        ("copy", "not a url", "duckdb:///b.db"),
        ("copy", f"oracle://u:{CANARY}@h/y", "duckdb:///b.db"),
        ("copy", f"postgresql://u:{CANARY}@h:port/y", "duckdb:///b.db"),
        ("copy", f"postgresql://u:{CANARY}@h/y", "duckdb:///b.db", f"postgresql://u:{CANARY}@h/y"),
        ("verify", "sqlite:///a.db", "duckdb:///b.db", "--delete-extra"),
        ("jobs", "oracle://x"),
    ],
    ids=str,
)
def test_a_wrong_request_exits_with_2(arguments: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    with contextlib.chdir(tmp_path):
        sqlite3.connect("a.db").close()
        rowferry(*arguments, code=2)


@pytest.mark.parametrize(
    "more",
    [
        ("--table", "nope"),
        ("--table", "items:x", "--table", "items:y"),
        ("--table", '"items'),
        ("--where", "id < 5"),
        ("--policy", "items.name"),
        ("--policy", "items.name=guess"),
        ("--report", "/no/such/folder/report.json"),
        ("--quiet", "--log-json"),
        ("--config", "absent.toml"),
    ],
    ids=str,
)
def test_a_request_that_does_not_fit_the_source_leaves_nothing_behind(
    shop: tuple[str, str], more: tuple[str, ...]
) -> None:
    source, target = shop
    rowferry("copy", source, target, *more, code=2)
    assert not pathlib.Path(target.removeprefix("duckdb:///")).exists()


def test_a_condition_that_the_source_refuses_exits_with_2_and_copies_nothing(shop: tuple[str, str]) -> None:
    source, target = shop
    done = rowferry("copy", source, target, "--table", "items", "--where", "no_such_column = 1", code=2)
    assert "no_such_column" in done.stderr
    rowferry("copy", source, target, "--table", "items", "--where", "id < 5")
    assert rows_of(target, "SELECT count(*) FROM items") == [(5,)]


def test_source_and_target_of_one_place_are_refused(shop: tuple[str, str]) -> None:
    source, _ = shop
    rowferry("copy", source, source, code=2)


def test_a_source_that_is_not_there_exits_with_3_or_2_and_is_not_made(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "absent.db"
    assert rowferry("copy", f"sqlite:///{path}", f"duckdb:///{tmp_path}/x", code=None).returncode in (2, 3)
    assert not path.exists()


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_is_not_there_exits_with_its_side(shop: tuple[str, str], side: str) -> None:
    nowhere = f"postgresql://u:{CANARY}@127.0.0.1:1/x"
    if side == "source":
        rowferry("copy", nowhere, shop[1], code=3)
    else:
        rowferry("copy", shop[0], nowhere, code=4)


# --- copying ----------------------------------------------------------------------------------


def test_copy_prints_lines_and_a_table_in_a_pipe(shop: tuple[str, str]) -> None:
    source, target = shop
    done = rowferry("copy", source, target, "--verify")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert re.search(r"items +1,000 .* equal", done.stdout)
    assert 'odd "name"\\n' in done.stdout, "a newline in a name does not break the line"
    assert "2 tables, 1,001 rows" in done.stdout.splitlines()[-1]
    assert "digests equal" in done.stdout.splitlines()[-1]
    assert rows_of(target, "SELECT count(*), sum(price) FROM items") == [(1000, sum(i / 4 for i in range(1000)))]


def test_copy_quiet_prints_nothing_and_errors_still(shop: tuple[str, str]) -> None:
    source, target = shop
    done = rowferry("copy", source, target, "--quiet", "--verify")
    assert done.stdout == done.stderr == ""
    assert "not empty" in rowferry("copy", source, target, "--quiet", code=2).stderr


def test_copy_log_json_is_json_and_has_a_line_for_each_chunk(shop: tuple[str, str], tmp_path: pathlib.Path) -> None:
    source, target = shop
    report = tmp_path / "r.json"
    done = rowferry("copy", source, target, "--log-json", "--report", report)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    tables = json.loads(report.read_text())["tables"]
    assert sum(1 for line in lines if line["event"] == "chunk") == sum(t["chunks"] for t in tables)
    assert lines[-1]["event"] == "finished"
    assert lines[-1]["rows_committed"] == 1001


def test_copy_report_closes_its_counts(shop: tuple[str, str], tmp_path: pathlib.Path) -> None:
    source, target = shop
    report = tmp_path / "r.json"
    rowferry("copy", source, target, "--verify", "--report", report)
    data = json.loads(report.read_text())
    assert (data["status"], data["exit_code"], data["error"]) == ("ok", 0, None)
    assert data["snapshot"] in ("one", "per table", "mixed", "none")
    for table in data["tables"]:
        assert table["rows_read"] + table["rows_generated"] == table["rows_sent"] == table["rows_committed"]
        assert table["digest_read"] == table["digest_sent"] == table["digest_target"]
        assert (table["missing"], table["extra"], table["changed"], table["equal"]) == (0, 0, 0, True)


def test_copy_takes_tables_names_and_where_from_options_and_config(
    shop: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    source, target = shop
    rowferry("copy", source, target, "--table", "items:cheap", "--where", "price < 10")
    assert rows_of(target, "SELECT count(*) FROM cheap") == [(40,)]
    config = tmp_path / "job.toml"
    config.write_text('tables = ["items:few"]\nworkers = 1\n[where]\nitems = "id < 7"\n')
    rowferry("copy", source, target, "--config", config)
    assert rows_of(target, "SELECT count(*) FROM few") == [(7,)]
    rowferry("copy", source, target, "--config", config, "--table", "items:more", "--where", "id < 9")
    assert rows_of(target, "SELECT count(*) FROM more") == [(9,)]
    config.write_text("wokers = 1\n")
    assert "wokers" in rowferry("copy", source, target, "--config", config, code=2).stderr


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('[table.items]\ndrop = ["nmae"]\n', "table 'items': drop: there is no column 'nmae'; did you mean 'name'?"),
        ("[table.itms]\n", "[table.'itms'] means none of the tables"),
        ('[table.items.dedup]\nkeep = "latest"\n', "dedup: keep = 'latest'; it is \"any\""),
        ('[table.items]\nset = { n = "lower(name" }\n', "table 'items', column 'n': 'lower(name' is no SQL expression"),
    ],
)
@pytest.mark.parametrize("command", ["copy", "plan", "verify"])
def test_what_is_wrong_with_rules_names_the_file_that_they_came_from(
    command: str, rules: str, said: str, shop: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    source, target = shop
    rowferry("copy", source, target)
    config = tmp_path / "job.toml"
    config.write_text(rules)
    mode = () if command == "verify" else ("--mode", "append")
    stderr = rowferry(command, source, target, *mode, "--config", config, code=2).stderr
    assert f"config '{config}'" in stderr
    assert said in stderr


def test_plan_says_what_would_happen_and_writes_nothing(shop: tuple[str, str], tmp_path: pathlib.Path) -> None:
    source, target = shop
    report = tmp_path / "plan.json"
    done = rowferry("plan", source, target, "--report", report)
    assert "DECIMAL(10,2)" in done.stdout
    assert not pathlib.Path(target.removeprefix("duckdb:///")).exists()
    assert json.loads(report.read_text())["exit_code"] == 0
    rowferry("copy", source, target)
    refused = rowferry("plan", source, target, "--report", report, code=None)
    assert refused.returncode == 2
    assert "not empty" in refused.stdout
    assert json.loads(report.read_text())["exit_code"] == 2


def test_a_failed_copy_leaves_a_report_of_its_failure(shop: tuple[str, str], tmp_path: pathlib.Path) -> None:
    report = tmp_path / "r.json"
    nowhere = f"postgresql://u:{CANARY}@127.0.0.1:1/x"
    done = rowferry("copy", nowhere, shop[1], "--report", report, "--log-json", code=3)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["status"], last["exit_code"]) == ("finished", "failed", 3)
    data = json.loads(report.read_text())
    assert (data["status"], data["exit_code"]) == ("failed", 3)
    assert data["error"]
    assert CANARY not in report.read_text()


def test_verify_names_rows_and_repairs_on_request(shop: tuple[str, str]) -> None:
    source, target = shop
    rowferry("copy", source, target)
    with contextlib.closing(duckdb.connect(target.removeprefix("duckdb:///"))) as c:
        c.execute("UPDATE items SET name = name || ' ' WHERE id = 77")
        c.execute("DELETE FROM items WHERE id = 123")
        c.execute("INSERT INTO items VALUES (9999, 'x', 1)")
    done = rowferry("verify", source, target, code=1)
    assert '"item 77" → "item 77 "' in done.stdout
    assert "1 missing, 1 extra, 1 changed" in done.stdout
    for key in ("77", "123", "9999"):
        assert re.search(rf'id="?{key}\b', done.stdout)
    assert "1 rows missing, 1 extra, 1 changed" in done.stderr
    rowferry("verify", source, target, "--repair", code=1)
    rowferry("verify", source, target, "--contained")
    rowferry("verify", source, target, "--repair", "--delete-extra")
    assert "equal" in rowferry("verify", source, target).stdout
    assert rows_of(target, "SELECT count(*) FROM items WHERE name = 'item ' || id") == [(1000,)]


# --- stopping and going on ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_5_and_resume_finishes(
    large: tuple[str, str], tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    source, target = large
    report = tmp_path / "r.json"
    arguments = command("copy", source, target, "--workers", "2", "--log-json", "--report", report)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "chunk":
                process.send_signal(number)
                break
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 5, said
    assert len(said.splitlines()) == 1
    assert "rowferry resume" in said
    data = json.loads(report.read_text())
    assert (data["status"], data["exit_code"]) == ("stopped", 5)
    listed = rowferry("jobs", target).stdout
    assert "running" in listed
    rowferry("resume", target, "--report", report, "--verify")
    (table,) = json.loads(report.read_text())["tables"]
    assert table["chunks_taken_over"] >= 1
    assert table["rows_committed"] == 1_500_000
    assert rows_of(target, "SELECT count(*), count(DISTINCT id), sum(n) FROM big") == [
        (1_500_000, 1_500_000, sum(i % 97 for i in range(1, 1_500_001)))
    ]
    assert "finished" in rowferry("jobs", target).stdout


def test_a_named_job_that_is_finished_is_not_run_again(shop: tuple[str, str]) -> None:
    source, target = shop
    rowferry("copy", source, target, "--job", "nightly")
    again = rowferry("copy", source, target, "--job", "nightly")
    assert "finished" in again.stdout
    assert rows_of(target, "SELECT count(*) FROM items") == [(1000,)]
    assert "nightly" in rowferry("jobs", target).stdout


def test_resume_without_a_job_exits_with_2(shop: tuple[str, str]) -> None:
    rowferry("resume", shop[1], code=2)
    rowferry("copy", *shop)
    rowferry("resume", shop[1], code=2)
    rowferry("resume", shop[1], "nope", code=2)


HOLDING = """
import sys, threading, time
from rowferry import cli
stop = threading.Event()
with cli._stopping(stop):
    print("ready", flush=True)
    stop.wait()
    print("stopping", flush=True)
    time.sleep(60)
"""


def test_a_second_interrupt_kills() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT


# --- a terminal, a bug -----------------------------------------------------------------------


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def test_copy_at_a_terminal_shows_bars_and_gives_the_cursor_back(large: tuple[str, str]) -> None:
    with terminal() as (ours, theirs):
        process = subprocess.Popen(
            command("copy", *large), stdout=theirs, stderr=theirs, env=environment(TERM="xterm-256color")
        )
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end was closed, which is the end of the output
            while piece := os.read(ours, 65536):
                seen += piece
        assert process.wait(timeout=60) == 0
    text = seen.decode()
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "━" in text
    assert "rows/s" in text
    assert "1,500,000 rows" in text.splitlines()[-1]


BUG = f"""
import sys
from rowferry import cli

@cli.cli.command()
def boom():
    raise ZeroDivisionError("the password is {CANARY}")

cli.main(["boom"])
"""


def test_a_bug_exits_with_6_and_a_file_with_the_traceback(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUG],
        capture_output=True, text=True, env=environment(TMPDIR=str(tmp_path), PGPASSWORD=CANARY), timeout=60,
    )  # fmt: skip
    assert done.returncode == 6
    assert "Traceback" not in done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    (path,) = tmp_path.glob("rowferry-*.traceback.txt")
    assert str(path) in done.stderr
    assert "ZeroDivisionError" in path.read_text()
    assert CANARY not in path.read_text()


def test_output_into_a_closed_pipe_is_no_error(shop: tuple[str, str]) -> None:
    rowferry("copy", *shop)
    line = f"{' '.join(command('jobs', shop[1]))} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# --- secrets, on a real server ------------------------------------------------------------------


@pytest.mark.server
def test_a_wrong_password_exits_with_its_side_and_is_shown_nowhere(
    shop: tuple[str, str], tmp_path: pathlib.Path, postgres_database: Any
) -> None:
    url = re.sub(r"//[^@/]*@", f"//rowferry_no_such_role:{CANARY}@", postgres_database())
    report = tmp_path / "r.json"
    done = rowferry("copy", url, shop[1], "--report", report, code=3)
    assert "rowferry_no_such_role" in done.stderr or "password" in done.stderr
    assert CANARY not in report.read_text()
    rowferry("copy", shop[0], url, code=4)
    rowferry("plan", url, shop[1], code=3)
    rowferry("jobs", url, code=4)


@pytest.mark.server
def test_a_password_is_in_no_output_report_or_ledger(tmp_path: pathlib.Path, postgres_database: Any) -> None:
    import psycopg

    source, target = postgres_database(), postgres_database()
    password = re.search(r"//[^:/]*:([^@]+)@", source)
    if password is None:  # the server that was given lets us in without one
        source, target = (re.sub(r"//([^@/]*)@", rf"//\1:{CANARY}@", url) for url in (source, target))
    secret = password[1] if password else CANARY
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        c.execute("INSERT INTO t SELECT g, g::text FROM generate_series(1, 1000) g")
    report = tmp_path / "r.json"
    said = ""
    for arguments in (
        ("plan", source, target, "--report", report),
        ("copy", source, target, "--verify", "--log-json", "--report", report),
        ("verify", source, target, "--report", report),
        ("jobs", target),
    ):
        done = rowferry(*arguments)
        said += done.stdout + done.stderr + report.read_text()
    said += rowferry("copy", source, target, "--report", report, code=2).stderr + report.read_text()
    with psycopg.connect(target) as c:
        for name in ("jobs", "steps", "chunks"):
            rows = c.execute(f"SELECT x::text FROM rowferry.{name} x").fetchall()
            said += str(rows)
            assert rows or name == "steps"
    assert secret not in said
