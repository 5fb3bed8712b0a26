"""kill -9 at every step and at random instants; the same command ends with exactly the source's rows."""

from __future__ import annotations

import os
import pathlib
import random
import sqlite3
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from end_to_end import ferry

#: Random instants for each pair: together with the failpoints every state of a job is met.
INSTANTS = int(os.environ.get("ROWFERRY_TEST_KILLS", "17"))
ROWS = 30_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "900000")


class SqliteToDuckdb:
    def __init__(self, folder: pathlib.Path) -> None:
        self.file, self.target = folder / "source.db", folder / "target.duckdb"
        with sqlite3.connect(self.file) as c:
            c.execute("create table big (id integer primary key, t text, n integer)")
            c.executemany("insert into big values (?, ?, ?)", ((i, f"row {i} " * 5, i * 7) for i in range(ROWS)))
            c.execute("create table nokey (t text)")
            c.executemany("insert into nokey values (?)", ((f"x{i % 50}",) for i in range(ROWS // 4)))
        c.close()
        self.arguments = ["copy", f"sqlite:///{self.file}", f"duckdb:///{self.target}", "--workers", "2"]

    def fresh(self) -> None:
        for path in self.target.parent.glob("target.duckdb*"):
            path.unlink()

    def check(self, run: Any) -> None:
        with duckdb.connect(str(self.target), read_only=True) as c:
            assert c.execute("select count(*), count(distinct id), sum(n) from big").fetchone() == (
                ROWS,
                ROWS,
                7 * ROWS * (ROWS - 1) // 2,
            )
            assert c.execute(
                "select count(*), min(c), max(c) from (select count(*) c from nokey group by t)"
            ).fetchone() == (50, ROWS // 200, ROWS // 200)


class PostgresSource:
    """Two tables in a database of their own: one with a key, one that can only be split by place."""

    def __init__(self, source_url: str) -> None:
        self.source_url = source_url
        with psycopg.connect(source_url, autocommit=True) as c:
            c.execute(
                f"create table big as select g::bigint id, md5(g::text) t, g * 1.5 n from generate_series(1, {ROWS}) g"
            )
            c.execute("alter table big add primary key (id)")
            c.execute(f"create table nokey as select * from big limit {ROWS // 2}")
            c.execute("analyze")

    def facts(self, url: str) -> list[Any]:
        with psycopg.connect(url) as c:
            return [
                c.execute(f"select count(*), sum(hashtextextended(x::text, 0)::numeric) from {t} x").fetchone()
                for t in ("big", "nokey")
            ]


class PostgresToPostgres(PostgresSource):
    def __init__(self, server: Any, folder: pathlib.Path) -> None:
        self.server = server
        super().__init__(server.database())
        self.target_url = server.database()
        self.want = self.facts(self.source_url)
        self.arguments = ["copy", self.source_url, self.target_url, "--workers", "2"]

    def fresh(self) -> None:
        self.target_url = self.server.database(self.target_url.rpartition("/")[2])

    def check(self, run: Any) -> None:
        assert self.facts(self.target_url) == self.want
        with psycopg.connect(self.target_url) as c:
            keys = c.execute(
                "select count(*) from pg_index where indrelid = 'big'::regclass and indisprimary"
            ).fetchone()
            assert keys == (1,)


class PostgresToParquet(PostgresSource):
    def __init__(self, server: Any, folder: pathlib.Path) -> None:
        super().__init__(server.database())
        self.folder = folder / "out"
        self.arguments = ["copy", self.source_url, f"parquet:///{self.folder}", "--workers", "2"]

    def fresh(self) -> None:
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        if self.folder.exists():
            self.folder.rmdir()

    def check(self, run: Any) -> None:
        ids = pq.read_table(self.folder / "big", columns=["id"]).column("id").to_pylist()
        assert len(ids) == ROWS
        assert sorted(ids) == list(range(1, ROWS + 1))
        rows = pq.read_table(self.folder / "nokey", columns=["id"]).column("id").to_pylist()
        assert len(rows) == len(set(rows)) == ROWS // 2
        assert not list(self.folder.rglob("*.tmp*"))


def make(kind: str, request: pytest.FixtureRequest, folder: pathlib.Path) -> Any:
    if kind == "sqlite_duckdb":
        return SqliteToDuckdb(folder)
    server = request.getfixturevalue("postgres_server")
    return PostgresToPostgres(server, folder) if kind == "postgres_postgres" else PostgresToParquet(server, folder)


KINDS = ["sqlite_duckdb", "postgres_postgres", "postgres_parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kill_at_every_failpoint_then_again_ends_exact(
    kind: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    pair = make(kind, request, tmp_path)
    places = ferry.kill_at_every_failpoint(pair.arguments, pair.fresh, pair.check)
    assert places > 12, "too few places for a crash between any two steps to be met"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kill_twice_at_random_instants_then_again_ends_exact(
    kind: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    pair = make(kind, request, tmp_path)
    full_s = ferry.run(*pair.arguments, expect=0).seconds
    for seed in range(INSTANTS):
        pair.fresh()
        rng = random.Random(f"{kind} {seed}")
        for _ in range(2):
            ferry.run_and_kill(*pair.arguments, after_s=rng.uniform(0.15, 1.0) * full_s)
        again = ferry.run(*pair.arguments)
        assert again.code in (0, 2), f"instant {seed}: {again.output[-2000:]}"
        pair.check(again)


def test_resume_after_kill_takes_finished_chunks_over(tmp_path: pathlib.Path) -> None:
    pair = SqliteToDuckdb(tmp_path)
    killed = ferry.run(*pair.arguments, env={"ROWFERRY_FAILPOINT": "committed:3"})
    assert killed.code == -9
    again = ferry.run(*pair.arguments, expect=0)
    assert again.table("big")["chunks_taken_over"] + again.table("nokey")["chunks_taken_over"] >= 2
    pair.check(again)


def test_resume_by_name_without_the_source_url_ends_exact(tmp_path: pathlib.Path) -> None:
    pair = SqliteToDuckdb(tmp_path)
    killed = ferry.run(*pair.arguments, "--job", "nightly", env={"ROWFERRY_FAILPOINT": "committed:2"})
    assert killed.code == -9
    ferry.run("resume", f"duckdb:///{pair.target}", "nightly", expect=0)
    pair.check(None)
    listed = ferry.run("jobs", f"duckdb:///{pair.target}", expect=0)
    assert "nightly" in listed.output
    assert "finished" in listed.output
