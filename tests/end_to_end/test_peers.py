"""The benchmark beside the peers, at a size at which it measures nothing: that it runs, and that it looks closely."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import mysql_servers
import servers
from end_to_end import ferry

PEERS = ferry.ROOT / "benchmarks/peers"
#: What needs nothing that the tests do not need themselves.
ALWAYS_THERE = {
    "rowferry, with digests",
    "psql | psql, binary",
    "psql | mariadb LOAD DATA",
    "ADBC → DuckDB",
    "ADBC → pyarrow",
    "sqlite3 + pyarrow",
}


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of the benchmark, importable."""
    monkeypatch.syspath_prepend(str(PEERS))
    return None


@pytest.mark.server
def test_side_by_side_at_its_small_size_runs_every_path_and_says_what_is_missing(
    postgres_server: servers.Postgres, mysql_server: mysql_servers.Mariadb, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(PEERS / "side_by_side.py"), "--scale", "0.0005", "--runs", "1", "--timeout", "60",
         "--postgres", postgres_server.url, "--mysql", mysql_server.url, "--json", str(out)],
        env={**os.environ, "ROWFERRY_BENCHMARK_PEERS": str(tmp_path / "none")},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert {r["path"] for r in results} == {
        "PostgreSQL → PostgreSQL", "PostgreSQL → DuckDB", "PostgreSQL → Parquet", "SQLite → DuckDB",
        "MySQL → PostgreSQL", "PostgreSQL → MySQL", "MySQL → DuckDB",
    }  # fmt: skip
    for r in results:
        assert f"{r['path']}, {r['table']}: {r['rows']:,} rows" in done.stdout
        if r["way"] in ALWAYS_THERE:
            assert len(r["costs"]) == 1, r
            assert r["costs"][0]["client_cpu_s"] > 0
            assert "WRONG" not in r["outcome"], r
        else:
            assert r["costs"] or r["outcome"].startswith(("not run: not installed", "FAILED")), r
    ours = [r for r in results if r["way"] == "rowferry, with digests"]
    assert len(ours) == 13  # six paths with two tables, SQLite's with one
    assert {r["outcome"] for r in ours} == {"exact"}
    # A server's processes are seen where the server runs here; SQLite → DuckDB has none.
    assert all((r["costs"][0]["servers_cpu_s"] is None) == r["path"].startswith("SQLite") for r in ours)
    for server, names in (
        (postgres_server, [row[0] for row in postgres_server.connect().execute("select datname from pg_database")]),
        (mysql_server, [row[0] for row in mysql_server.execute("show databases")]),
    ):
        assert not [name for name in names if str(name).startswith("rowferry_side")], server


def copy_of(table: Any, rows: int, path: pathlib.Path, *statements: str) -> Any:
    """What the benchmark finds in a DuckDB copy of ``table`` after ``statements`` were run on it."""
    import places

    with duckdb.connect(str(path)) as connection:
        reader = pa.Table.from_batches(table.batches(rows))  # noqa: F841 - DuckDB finds it by its name
        connection.execute(f"create table {table.name} as select * from reader")
        for statement in statements:
            connection.execute(statement)
    return places.Duckdb("duckdb", path).look(table)


@pytest.mark.parametrize(
    ("name", "statement", "said"),
    [
        ("lineitem", "delete from lineitem where l_orderkey = 1 and l_linenumber = 2", "WRONG: 1,999 rows, not 2,000"),
        ("lineitem", "update lineitem set l_tax = l_tax + 0.01 where l_orderkey = 3", "WRONG: l_tax (sum"),
        ("lineitem", "update lineitem set l_comment = replace(l_comment, 'e', 'E')", "WRONG: l_comment (sum"),
        ("lineitem", "update lineitem set l_shipmode = rpad(l_shipmode, 10, ' ')", ""),
        ("lineitem", "alter table lineitem alter l_discount type double", "decimal as double"),
        ("lineitem", "alter table lineitem alter l_tax type varchar", "decimal as text"),
        ("events", "update events set e_title = '' where e_title is null", "WRONG: e_title (values there"),
        ("events", "update events set e_at = e_at + interval 1 microsecond where e_kind = 'login'", "WRONG: e_at"),
        ("events", "update events set e_body = null where octet_length(e_body) = 0", "WRONG: e_body (values there"),
        ("events", """update events set e_payload = replace(e_payload, 'naïve', 'naive')""", "WRONG: e_payload"),
    ],
)
def test_copy_that_lost_or_changed_values_is_told_from_an_exact_one(
    peers: None, tmp_path: pathlib.Path, name: str, statement: str, said: str
) -> None:
    import tables

    table, rows = tables.TABLES[name], 2_000
    wanted = tables.expected(table, rows)
    found, types = copy_of(table, rows, tmp_path / "exact.duckdb")
    # A uuid is text in the batches themselves, JSON, too.
    assert table.compare(found, wanted, types) == ("uuid as text" if name == "events" else "")
    found, types = copy_of(table, rows, tmp_path / "changed.duckdb", statement)
    outcome = table.compare(found, wanted, types)
    assert outcome.startswith(said), outcome
    assert bool(outcome) == bool(said)


def test_cost_counts_all_processes_of_a_command_and_tells_why_one_failed(peers: None) -> None:
    import cost

    burn = "import time; e = time.process_time() + 0.2; b = bytearray(64 << 20)\nwhile time.process_time() < e: pass"
    both = f"{sys.executable} -c '{burn}' & {sys.executable} -c '{burn}'; wait"
    taken = cost.measure(["bash", "-c", both], env=os.environ, timeout_s=60)
    assert taken.client_cpu_s >= 0.4
    assert 64 < taken.peak_mib < 128, "of the largest process, not of all, nor of the one that measures"
    assert taken.servers_cpu_s is None
    with pytest.raises(cost.FailedError, match="exit 3\nlast words"):
        cost.measure(["bash", "-c", "echo last words; exit 3"], env=os.environ, timeout_s=60)
    with pytest.raises(cost.FailedError, match="longer than 0 s"):
        cost.measure(["sleep", "60"], env=os.environ, timeout_s=0.2)


def test_cpu_of_a_process_holds_what_its_ended_children_used(peers: None) -> None:
    import cost

    burn = "import time; e = time.process_time() + 0.2\nwhile time.process_time() < e: pass"
    shell = subprocess.Popen(
        ["bash", "-c", f"read; {sys.executable} -c '{burn}'; echo; read"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell:
        before_s = cost.cpu_s_of([shell.pid])
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        shell.stdout.readline()
        assert 0.2 <= cost.cpu_s_of([shell.pid]) - before_s < 5
        shell.stdin.write(b"\n")


def test_events_are_valid_seeded_and_hold_what_text_formats_must_escape(peers: None) -> None:
    import copy_text
    import tables

    events = sys.modules["events"]
    batches = list(events.batches(5_000, batch_rows=2_048))
    assert [b.num_rows for b in batches] == [2_048, 2_048, 904]
    for batch, again in zip(batches, events.batches(5_000, batch_rows=2_048), strict=True):
        batch.validate(full=True)
        assert batch.schema == events.SCHEMA
        assert batch.equals(again)
    whole = pa.Table.from_batches(batches)
    assert len(set(whole["e_id"].to_pylist())) == 5_000
    for nullable in ("e_actor", "e_title", "e_body"):
        assert 0 < whole[nullable].null_count < 1_000
    titles = {t for t in whole["e_title"].to_pylist() if t is not None}
    assert {"", "NULL", "\\.", "tab\there", "two\nlines", "back\\slash \\N"} <= titles
    lines = copy_text.copy_text(batches[0]).split(b"\n")
    assert len(lines) == 2_049
    assert all(line.count(b"\t") == len(tables.TABLES["events"].columns) - 1 for line in lines[:-1])
