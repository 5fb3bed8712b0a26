"""Copies that keep one of like rows, against a row-by-row model: any number of workers, kill -9, bad input."""

from __future__ import annotations

import json
import os
import pathlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from end_to_end import ferry
from rowferry import endpoint
from rowferry.engine.jobs import request_of
from rowferry.engine.request import Request

ROWS = 12_000
Row = tuple[int, str | None, float | None, str]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "40000")
    monkeypatch.setenv("ROWFERRY_DEDUP_BYTES", "1000000")


def rows_with_repeats(seed: int = 5) -> list[Row]:
    """(id, k, u, note): about six rows of each key, spread over all chunks; NULL keys and NULL order values too."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for i in range(ROWS):
        key = None if rng.random() < 0.05 else f"key {rng.randrange(2000)}"
        rows.append((i, key, rng.choice([None, 1.5, 2.5, float(rng.randrange(9))]), f"n{rng.randrange(3)}"))
    return rows


def winners_of(rows: list[Row], *, last: bool) -> dict[str | None, set[float | None]]:
    """Of each key the order value that has to win: NULL loses to every value."""
    out: dict[str | None, set[float | None]] = {}
    for key in {row[1] for row in rows}:
        values = [row[2] for row in rows if row[1] == key and row[2] is not None]
        out[key] = {(max(values) if last else min(values)) if values else None}
    return out


class Ends:
    """A source with the rows, and a target that can be emptied."""

    def __init__(self, source: str, target: str, fresh: Callable[[], None], read: Callable[[], list[Row]]) -> None:
        self.source, self.target, self.fresh, self.read = source, target, fresh, read


def sqlite_duckdb(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    with sqlite3.connect(folder / "a.db") as c:
        c.execute("create table t (id integer primary key, k text, u real, note text)")
        c.executemany("insert into t values (?, ?, ?, ?)", rows_with_repeats())
    c.close()
    target = folder / "b.duckdb"

    def fresh() -> None:
        for path in folder.glob("b.duckdb*"):
            path.unlink()

    def read() -> list[Row]:
        with duckdb.connect(str(target), read_only=True) as d:
            return d.execute("select id, k, u, note from t").fetchall()  # type: ignore[return-value]

    return Ends(f"sqlite:///{folder / 'a.db'}", f"duckdb:///{target}", fresh, read)


def to_postgres(server: Any, source: str) -> Ends:
    url = [server.database()]

    def fresh() -> None:
        url[0] = server.database(url[0].rpartition("/")[2])

    def read() -> list[Row]:
        with psycopg.connect(url[0]) as c:
            return c.execute("select id, k, u, note from t").fetchall()  # type: ignore[return-value]

    return Ends(source, url[0], fresh, read)


def postgres_postgres(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    server = request.getfixturevalue("postgres_server")
    source = server.database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("create table t (id int primary key, k text, u float8, note text)")
        with c.cursor().copy("copy t from stdin") as copy:
            for row in rows_with_repeats():
                copy.write_row(row)
        c.execute("analyze")
    return to_postgres(server, source)


def mysql_postgres(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    mysql = request.getfixturevalue("mysql_server")
    url = mysql.database()
    with mysql.connect(url.rpartition("/")[2]) as c, c.cursor() as cursor:
        cursor.execute("create table t (id int primary key, k varchar(40) collate utf8mb4_bin, u double, note text)")
        cursor.executemany("insert into t values (%s, %s, %s, %s)", rows_with_repeats())
        c.commit()
        cursor.execute("analyze table t")
    return to_postgres(request.getfixturevalue("postgres_server"), url)


KINDS = {"sqlite_duckdb": sqlite_duckdb, "postgres_postgres": postgres_postgres, "mysql_postgres": mysql_postgres}


@pytest.fixture(params=list(KINDS))
def ends(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Ends]:
    yield KINDS[request.param](request, tmp_path)


def config_in(folder: pathlib.Path, dedup: str) -> str:
    path = folder / "job.toml"
    path.write_text(f"[table.t.dedup]\n{dedup}\n")
    return str(path)


def check_any(found: list[Row], rows: list[Row]) -> None:
    assert len(found) == len({row[1] for row in rows})
    assert {row[1] for row in found} == {row[1] for row in rows}
    assert set(found) <= set(rows)


def check_ordered(found: list[Row], rows: list[Row], *, last: bool) -> None:
    check_any(found, rows)
    want = winners_of(rows, last=last)
    assert {row[1]: {row[2]} for row in found} == want


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_copy_any_with_any_number_of_workers_keeps_each_key_once(
    ends: Ends, workers: int, tmp_path: pathlib.Path
) -> None:
    config = config_in(tmp_path, 'by = ["k"]')
    rows = rows_with_repeats()
    run = ferry.run(
        "copy", ends.source, ends.target, "--config", config, "--workers", str(workers), "--verify", expect=0
    )
    check_any(ends.read(), rows)
    report = run.table("t")
    assert report["rows_read"] == ROWS
    assert report["rows_deduplicated"] == ROWS - report["rows_committed"] > 0
    assert report["chunks"] > 3
    ferry.run("verify", ends.source, ends.target, "--config", config, expect=0)


def test_copy_ordered_gives_the_same_rows_with_any_number_of_workers(ends: Ends, tmp_path: pathlib.Path) -> None:
    rows = rows_with_repeats()
    for keep, last in (("last by u", True), ("first by u", False)):
        config = config_in(tmp_path, f'by = ["k"]\nkeep = "{keep}"')
        seen = []
        for workers in ("1", "5"):
            ends.fresh()
            ferry.run("copy", ends.source, ends.target, "--config", config, "--workers", workers, expect=0)
            seen.append(sorted(ends.read()))
        check_ordered(seen[0], rows, last=last)
        assert seen[0] == seen[1]
    ferry.run("verify", ends.source, ends.target, "--config", config, expect=0)


PLACES = ["claimed:3", "loaded:2", "loaded:5", "marked:4", "committed:1", "committed:6", "job created:1"]


@pytest.mark.parametrize(("dedup", "last"), [("", None), ('keep = "last by u"', True)])
def test_kill_in_between_then_again_keeps_each_key_once(
    ends: Ends, dedup: str, last: bool | None, tmp_path: pathlib.Path
) -> None:
    config = config_in(tmp_path, f'by = ["k"]\n{dedup}')
    rows = rows_with_repeats()
    rng = random.Random(11)
    whole: list[Row] | None = None
    for number, place in enumerate(PLACES):
        ends.fresh()
        workers = (1, 2, 5)[number % 3]
        arguments = ["copy", ends.source, ends.target, "--config", config, "--workers", str(workers)]
        killed = ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": place})
        assert killed.code == -9, f"{place}: {killed.output}"
        if number % 2:
            ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": f"loaded:{rng.randrange(1, 4)}"})
        again = ferry.run(*arguments)
        assert again.code == 0, f"{place}: {again.output}"
        found = ends.read()
        if last is None:
            check_any(found, rows)
        else:
            check_ordered(found, rows, last=last)
            whole = whole or sorted(found)
            assert sorted(found) == whole
        assert again.table("t")["rows_committed"] == len(found)


def test_rows_alike_in_all_columns_are_kept_once(tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (k text, u real)")
        c.executemany("insert into t values (?, ?)", [(f"x{i % 50}", None if i % 7 else i % 3) for i in range(5000)])
        want = sorted(c.execute("select distinct k, u from t").fetchall(), key=repr)
    c.close()
    for keep in ("any", "first by u"):
        target = tmp_path / f"{keep[0]}.duckdb"
        config = config_in(tmp_path, f'keep = "{keep}"')
        ferry.run("copy", f"sqlite:///{tmp_path}/a.db", f"duckdb:///{target}", "--config", config, expect=0)
        with duckdb.connect(str(target)) as d:
            assert sorted(d.execute("select k, u from t").fetchall(), key=repr) == want


def test_append_beside_rows_of_the_target(tmp_path: pathlib.Path) -> None:
    """Without against_target the target's own rows are no rivals, also after a kill; with it they are."""
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k text, u real, note text)")
        c.executemany("insert into t values (?, ?, ?, ?)", rows_with_repeats())
    c.close()
    rows = rows_with_repeats()
    keys = {row[1] for row in rows}
    held = [*sorted(k for k in keys if k is not None)[:300], "other"]
    for against in (False, True):
        target = tmp_path / f"{against}.duckdb"
        with duckdb.connect(str(target)) as d:
            d.execute("create table t (id bigint, k varchar, u double, note varchar)")
            d.executemany("insert into t values (?, ?, NULL, 'held')", [(-i - 1, k) for i, k in enumerate(held)])
        config = config_in(tmp_path, f'by = ["k"]\nagainst_target = {json.dumps(against)}')
        arguments = [
            "copy",
            f"sqlite:///{tmp_path}/a.db",
            f"duckdb:///{target}",
            "--config",
            config,
            "--mode",
            "append",
        ]
        assert ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": "committed:4"}).code == -9
        ferry.run(*arguments, "--verify", expect=0)
        with duckdb.connect(str(target)) as d:
            found = d.execute("select k from t where note <> 'held'").fetchall()
            assert d.execute("select count(*) from t where note = 'held'").fetchone() == (len(held),)
        want = keys - set(held) if against else keys
        assert len(found) == len(want)
        assert {k for (k,) in found} == want


def test_upsert_of_the_last_of_each_key(tmp_path: pathlib.Path, postgres_server: Any) -> None:
    url = postgres_server.database()
    rows = [row for row in rows_with_repeats() if row[1] is not None]
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k text not null, u real, note text)")
        c.executemany("insert into t values (?, ?, ?, ?)", rows)
    c.close()
    with psycopg.connect(url, autocommit=True) as p:
        p.execute("create table t (id bigint, k text primary key, u float8, note text)")
        p.execute("insert into t values (-1, 'key 1', 99, 'old'), (-2, 'mine', 99, 'old')")
    arguments = ["copy", f"sqlite:///{tmp_path}/a.db", url, "--mode", "upsert", "--config"]
    ferry.run(*arguments, config_in(tmp_path, 'by = ["k"]\nkeep = "last by u"'), expect=0)
    with psycopg.connect(url) as p:
        found: Any = p.execute("select id, k, u, note from t where note <> 'old'").fetchall()
        assert p.execute("select id from t where note = 'old'").fetchall() == [(-2,)]
    check_ordered(found, rows, last=True)


BAD = [
    ('by = ["nope"]', "nope"),
    ('by = ["k"]\nkeep = "newest"', "first by COLUMN"),
    ('by = ["k"]\nkeep = "last by nope"', "nope"),
    ('by = ["k", "k"]', "twice"),
    ('by = ["k"]\nkeep = "last by u"\nagainst_target = true', "against_target"),
    ('by = ["k"]\nkept = "any"', "kept"),
]


@pytest.mark.parametrize(("dedup", "said"), BAD)
def test_dedup_that_makes_no_sense_is_refused_before_the_first_row(
    dedup: str, said: str, tmp_path: pathlib.Path
) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k text, u real, note text)")
        c.execute("insert into t values (1, 'a', 1, 'n')")
    c.close()
    config = config_in(tmp_path, dedup)
    ends = [f"sqlite:///{tmp_path}/a.db", f"duckdb:///{tmp_path}/b.duckdb"]
    run = ferry.run("copy", *ends, "--config", config, expect=2)
    assert said in run.output
    assert not os.path.exists(tmp_path / "b.duckdb")


def test_a_key_column_that_the_transform_drops_is_refused(tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k text, u real)")
    c.close()
    path = tmp_path / "job.toml"
    path.write_text('[table.t]\ndrop = ["k"]\n[table.t.dedup]\nby = ["k"]\n')
    ends = [f"sqlite:///{tmp_path}/a.db", f"duckdb:///{tmp_path}/b.duckdb"]
    run = ferry.run("copy", *ends, "--config", str(path), expect=2)
    assert "'k'" in run.output
    assert "id, u" in run.output


def test_an_ordering_column_with_null_and_nan_has_its_place(tmp_path: pathlib.Path, postgres_server: Any) -> None:
    """NULL loses to every value both ways; NaN is greater than infinity."""
    url = postgres_server.database()
    with psycopg.connect(url, autocommit=True) as p:
        p.execute("create table t (id int, k text, u float8)")
        values = [(1, "a", None), (2, "a", "nan"), (3, "a", "inf"), (4, "b", None), (5, "b", "-inf"), (6, "c", None)]
        p.cursor().executemany("insert into t values (%s, %s, %s)", values)
    for keep, want in (("last by u", [2, 5, 6]), ("first by u", [3, 5, 6])):
        target = tmp_path / f"{keep[:4]}.duckdb"
        config = config_in(tmp_path, f'by = ["k"]\nkeep = "{keep}"')
        ferry.run("copy", url, f"duckdb:///{target}", "--config", config, expect=0)
        with duckdb.connect(str(target)) as d:
            assert [i for (i,) in d.execute("select id from t order by id").fetchall()] == want


def test_an_ordering_column_without_order_is_refused_by_name(tmp_path: pathlib.Path, postgres_server: Any) -> None:
    url, other = postgres_server.database(), postgres_server.database()
    with psycopg.connect(url, autocommit=True) as p:
        p.execute("create table t (k int, n numeric, j jsonb)")
    for column, said in (("n", "cast"), ("j", "no order")):
        config = config_in(tmp_path, f'by = ["k"]\nkeep = "last by {column}"')
        run = ferry.run("copy", url, other, "--config", config, expect=2)
        assert said in run.output
        assert f"'{column}'" in run.output


def test_keys_that_the_target_takes_for_one_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (k text, u real)")
        c.executemany("insert into t values (?, 1)", [("a",), ("A",)])
    c.close()
    with sqlite3.connect(tmp_path / "b.db") as c:
        c.execute("create table t (k text not null collate nocase primary key, u real)")
    c.close()
    config = config_in(tmp_path, 'by = ["k"]')
    ends = [f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"]
    run = ferry.run("copy", *ends, "--config", config, "--mode", "append", expect=2)
    assert "k by NOCASE" in run.output
    assert "1 such keys ('A' and 'a')" in run.output


def test_join_of_a_job_that_deduplicates_is_refused(tmp_path: pathlib.Path, postgres_server: Any) -> None:
    source, target = postgres_server.database(), postgres_server.database()
    with psycopg.connect(source, autocommit=True) as p:
        p.execute("create table t (k int)")
    config = config_in(tmp_path, 'by = ["k"]')
    run = ferry.run("copy", source, target, "--config", config, "--join", expect=2)
    assert "--join" in run.output


def test_keep_duplicates_writes_what_was_left_out_also_after_a_kill(tmp_path: pathlib.Path) -> None:
    rows = rows_with_repeats()
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k text, u real, note text)")
        c.executemany("insert into t values (?, ?, ?, ?)", rows)
    c.close()
    for number, dedup in enumerate(('by = ["k"]', 'by = ["k"]\nkeep = "first by u"')):
        target, file = tmp_path / f"{number}.duckdb", tmp_path / f"{number}.parquet"
        ends = [f"sqlite:///{tmp_path}/a.db", f"duckdb:///{target}"]
        arguments = ["copy", *ends, "--config", config_in(tmp_path, dedup), "--keep-duplicates", str(file)]
        assert ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": "committed:3"}).code == -9
        assert ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": "loaded:4"}).code == -9
        done = ferry.run(*arguments, expect=0)
        with duckdb.connect(str(target)) as d:
            kept = {i for (i,) in d.execute("select id from t").fetchall()}
        left = pq.read_table(file).to_pylist()
        assert sorted(int(json.loads(row["row"])["id"]) for row in left) == sorted(set(range(ROWS)) - kept)
        assert {row["table"] for row in left} == {"t"}
        assert "key (k)" in left[0]["reason"]
        assert len(left) == done.table("t")["rows_deduplicated"]
        by_id = {row[0]: row for row in rows}
        first = json.loads(left[0]["row"])
        assert (first["k"], first["u"], first["note"]) == by_id[int(first["id"])][1:]
        assert sorted(p.name for p in tmp_path.glob(f"{number}.parquet*")) == [file.name]


def test_memory_for_keys_is_an_option_that_a_resume_keeps(tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (id integer primary key, k integer)")
        c.executemany("insert into t values (?, ?)", [(i, i // 2) for i in range(ROWS)])
    c.close()
    ends = [f"sqlite:///{tmp_path}/a.db", f"duckdb:///{tmp_path}/b.duckdb"]
    config = config_in(tmp_path, 'by = ["k"]')
    path = pathlib.Path(config)
    path.write_text("max_dedup_mb = 2.5\n" + path.read_text())
    killed = ferry.run("copy", *ends, "--config", config, env={"ROWFERRY_FAILPOINT": "committed:2"})
    assert killed.code == -9
    with duckdb.connect(str(tmp_path / "b.duckdb")) as d:
        (plan,) = d.execute("select plan from rowferry_jobs").fetchall()[0]
        assert json.loads(plan)["options"]["max_dedup_mb"] == 2.5
    url = endpoint.parse(ends[1])
    assert request_of(Request(url, url), None).dedup_bytes == 2_500_000
    assert request_of(Request(url, url, max_dedup_mb=8), None).dedup_bytes == 8_000_000
    ferry.run("resume", ends[1], "--max-dedup-mb", "8", expect=0)
    with duckdb.connect(str(tmp_path / "b.duckdb")) as d:
        assert d.execute("select count(*), count(distinct k) from t").fetchone() == (ROWS // 2, ROWS // 2)
    ferry.run("verify", *ends, "--config", config, "--max-dedup-mb", "1", expect=0)
    assert "max-dedup-mb" in ferry.run("copy", *ends, "--max-dedup-mb", "0", expect=2).output


def test_keep_duplicates_that_makes_no_sense_is_refused(tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as c:
        c.execute("create table t (k text)")
    c.close()
    ends = [f"sqlite:///{tmp_path}/a.db", f"duckdb:///{tmp_path}/b.duckdb"]
    there = tmp_path / "there.parquet"
    there.touch()
    run = ferry.run("copy", *ends, "--keep-duplicates", str(tmp_path / "x.parquet"), expect=2)
    assert "no table has a dedup" in run.output
    for file, said in ((there, "there already"), (tmp_path / "no" / "x.parquet", "no such folder")):
        run = ferry.run(
            "copy", *ends, "--config", config_in(tmp_path, 'by = ["k"]'), "--keep-duplicates", str(file), expect=2
        )
        assert said in run.output
