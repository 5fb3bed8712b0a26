"""kill -9 of copies into and out of MySQL, at every step and at random instants: exactly the source's rows arrive."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import mysql_servers
from end_to_end import ferry

pytestmark = pytest.mark.server

INSTANTS = int(os.environ.get("ROWFERRY_TEST_KILLS", "8"))
ROWS = 30_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "900000")


class Pair:
    """A source of two tables, one with a key and one without, and a target to look at."""

    arguments: list[str]

    def fresh(self) -> None:
        raise NotImplementedError

    def check(self, run: Any) -> None:
        raise NotImplementedError


class PostgresToMysql(Pair):
    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        self.server: mysql_servers.Mariadb = request.getfixturevalue("mysql_server")
        source = request.getfixturevalue("postgres_database")()
        make: Callable[[], str] = request.getfixturevalue("mysql_database")
        self.url = make()
        self.database = self.url.rpartition("/")[2]
        with psycopg.connect(source, autocommit=True) as c:
            c.execute(
                f"create table big as select g::bigint id, md5(g::text) t, g * 1.5 n from generate_series(1, {ROWS}) g"
            )
            c.execute("alter table big alter n type numeric(12,2), add primary key (id)")
            c.execute(f"create table nokey as select * from big limit {ROWS // 2}")
            c.execute("analyze")
        self.arguments = ["copy", source, self.url, "--workers", "2"]

    def fresh(self) -> None:
        self.server.database(self.database)

    def facts(self) -> list[Any]:
        return [
            self.server.execute(
                f"select count(*), count(distinct id), sum(id), sum(n), sum(crc32(t)) from {t}", database=self.database
            )[0]
            for t in ("big", "nokey")
        ]

    def check(self, run: Any) -> None:
        (rows, ids, total, _, _), (rows_2, ids_2, _, _, _) = self.facts()
        assert (rows, ids, total) == (ROWS, ROWS, ROWS * (ROWS + 1) // 2)
        assert (rows_2, ids_2) == (ROWS // 2, ROWS // 2)
        left = self.server.execute("show tables like 'rowferry\\_%\\_%\\_%'", database=self.database)
        assert left == [], "a table of rowferry's own was left behind"


class PostgresReplacingInMysql(PostgresToMysql):
    """A table with an index and a foreign key is replaced: every step of DDL that there is."""

    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        super().__init__(request, folder)
        self.arguments += ["--mode", "replace", "--job", "killed"]

    def fresh(self) -> None:
        super().fresh()
        self.server.execute(
            "create table kept (id bigint primary key)",
            f"insert into kept select seq from seq_1_to_{ROWS}",
            "create table big (id bigint primary key, t varchar(50), n int, key by_t (t), "
            "constraint to_kept foreign key (id) references kept (id))",
            "insert into big values (1, 'old', 0)",
            database=self.database,
        )

    def check(self, run: Any) -> None:
        super().check(run)
        made = self.server.execute("show create table big", database=self.database)[0][1]
        assert "KEY `by_t` (`t`" in made and "CONSTRAINT `to_kept` FOREIGN KEY (`id`) REFERENCES `kept`" in made, made
        assert "rowferry" not in made, made


class SqliteAppendingToMysql(PostgresToMysql):
    """Rows are added to a table that has some; the one without a key is staged and added at the end."""

    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        self.server = request.getfixturevalue("mysql_server")
        make: Callable[[], str] = request.getfixturevalue("mysql_database")
        self.url = make()
        self.database = self.url.rpartition("/")[2]
        self.file = folder / "source.db"
        with contextlib.closing(sqlite3.connect(self.file)) as c:
            c.execute("create table big (id integer primary key, t text, n integer)")
            c.executemany("insert into big values (?, ?, ?)", ((i, f"row {i} " * 5, i * 7) for i in range(1, ROWS + 1)))
            c.execute("create table nokey (id integer, t text, n integer)")
            half = ((i, f"x{i} " * 40, i) for i in range(1, ROWS // 2 + 1))
            c.executemany("insert into nokey values (?, ?, ?)", half)
            c.commit()
        self.arguments = ["copy", f"sqlite:///{self.file}", self.url, "--workers", "2", "--mode", "append"]
        # By its name a job that is finished is known to be, and nothing is added twice.
        self.arguments += ["--job", "killed"]

    def fresh(self) -> None:
        super().fresh()
        for table, key in (("big", ", primary key (id)"), ("nokey", "")):
            self.server.execute(
                f"create table {table} (id bigint not null, t longtext collate utf8mb4_nopad_bin, n bigint{key})",
                f"insert into {table} values (-1, 'before', 0)",
                database=self.database,
            )

    def check(self, run: Any) -> None:
        (rows, ids, total, _, _), (rows_2, ids_2, _, _, _) = self.facts()
        assert (rows, ids, total) == (ROWS + 1, ROWS + 1, ROWS * (ROWS + 1) // 2 - 1)
        assert (rows_2, ids_2) == (ROWS // 2 + 1, ROWS // 2 + 1)
        left = self.server.execute("show tables like 'rowferry\\_%\\_%\\_%'", database=self.database)
        assert left == []


class MysqlToPostgres(Pair):
    def __init__(self, request: pytest.FixtureRequest, folder: pathlib.Path) -> None:
        server: mysql_servers.Mariadb = request.getfixturevalue("mysql_server")
        make: Callable[[], str] = request.getfixturevalue("mysql_database")
        source = make()
        server.execute(
            f"create table big as select seq id, md5(seq) t, seq * 1.5 n from seq_1_to_{ROWS}",
            "alter table big modify id bigint not null, add primary key (id)",
            f"create table nokey as select * from big limit {ROWS // 2}",
            database=source.rpartition("/")[2],
        )
        self.postgres = request.getfixturevalue("postgres_server")
        self.url = request.getfixturevalue("postgres_database")()
        self.arguments = ["copy", source, self.url, "--workers", "2"]

    def fresh(self) -> None:
        self.url = self.postgres.database(self.url.rpartition("/")[2])

    def check(self, run: Any) -> None:
        with psycopg.connect(self.url) as c:
            found = c.execute("select count(*), count(distinct id), sum(id) from big").fetchone()
            assert found == (ROWS, ROWS, ROWS * (ROWS + 1) // 2)
            found = c.execute("select count(*), count(distinct id) from nokey").fetchone()
            assert found == (ROWS // 2, ROWS // 2)


KINDS: dict[str, Callable[[pytest.FixtureRequest, pathlib.Path], Pair]] = {
    "postgres_mysql": PostgresToMysql,
    "replace_mysql": PostgresReplacingInMysql,
    "append_mysql": SqliteAppendingToMysql,
    "mysql_postgres": MysqlToPostgres,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replace_mysql", "append_mysql", "mysql_postgres"])
def test_kill_at_every_failpoint_then_again_ends_exact(
    kind: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    pair = KINDS[kind](request, tmp_path)
    pair.fresh()
    places = ferry.kill_at_every_failpoint(pair.arguments, pair.fresh, pair.check)
    assert places > 12, "too few places for a crash between any two steps to be met"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres_mysql", "append_mysql", "mysql_postgres"])
def test_kill_twice_at_random_instants_then_again_ends_exact(
    kind: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    pair = KINDS[kind](request, tmp_path)
    pair.fresh()
    full_s = ferry.run(*pair.arguments, expect=0).seconds
    for seed in range(INSTANTS):
        pair.fresh()
        rng = random.Random(f"{kind} {seed}")
        for _ in range(2):
            ferry.run_and_kill(*pair.arguments, after_s=rng.uniform(0.15, 1.0) * full_s)
        again = ferry.run(*pair.arguments)
        # Killed at its very end the job is finished, and a new one finds a table that is full.
        assert again.code in ((0,) if "--job" in pair.arguments else (0, 2)), f"instant {seed}: {again.output[-2000:]}"
        pair.check(again)


def test_server_that_crashes_in_mid_copy_comes_back_and_the_copy_ends_exact(tmp_path: pathlib.Path) -> None:
    server = mysql_servers.start()
    try:
        file, url = tmp_path / "source.db", server.database("crashed")
        with contextlib.closing(sqlite3.connect(file)) as c:
            c.execute("create table big (id integer primary key, t text)")
            c.executemany("insert into big values (?, ?)", ((i, f"row {i} " * 30) for i in range(1, 3 * ROWS + 1)))
            c.commit()
        process = ferry.start("copy", f"sqlite:///{file}", url, "--workers", "2", "--verify")
        # A server that is away before there is a job is a failure of the command, and rightly so.
        while process.poll() is None and not server.execute(
            "select 1 from information_schema.tables where table_schema = 'crashed' and table_name = 'big'"
        ):
            time.sleep(0.02)
        crashes = 0
        while crashes < 3 and process.poll() is None:
            time.sleep(0.2 + crashes * 0.3)
            server.stop(signal.SIGKILL)
            server.start()
            crashes += 1
        assert process.wait(120) == 0
        assert crashes, "the copy had ended before the server crashed"
        found = server.execute("select count(*), count(distinct id), sum(id) from big", database="crashed")
        assert found == [(3 * ROWS, 3 * ROWS, 3 * ROWS * (3 * ROWS + 1) // 2)]
    finally:
        server.discard()
