"""A condition that the source does not take: the request is wrong, and says where, before anything is written."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Callable
from urllib.parse import urlsplit

import duckdb
import psycopg
import pytest

import mysql_servers
import rowferry
from rowferry import ConfigError, SourceError

TABLE = "CREATE TABLE t (a INT PRIMARY KEY, b INT)"
ROW = "INSERT INTO t VALUES (1, 0)"

Source = Callable[[str], str]


@pytest.fixture
def source(
    tmp_path: pathlib.Path,
    postgres_database: Callable[[], str],
    mysql_server: mysql_servers.Mariadb,
    mysql_database: Callable[[], str],
) -> Source:
    """Makes a source of a kind, and gives its URL."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            with sqlite3.connect(tmp_path / "source.db") as connection:
                connection.execute(TABLE)
                connection.execute(ROW)
            return f"sqlite:///{tmp_path}/source.db"
        if kind == "duckdb":
            with duckdb.connect(str(tmp_path / "source.duckdb")) as file:
                file.execute(TABLE)
                file.execute(ROW)
            return f"duckdb:///{tmp_path}/source.duckdb"
        if kind == "postgres":
            url = postgres_database()
            with psycopg.connect(url, autocommit=True) as server:
                server.execute(TABLE)
                server.execute(ROW)
            return url
        url = mysql_database()
        mysql_server.execute(TABLE, ROW, database=urlsplit(url).path[1:])
        return url

    return make


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres", "mysql"])
@pytest.mark.parametrize("where", ["a >< 1", "no_such = 1", "(SELECT x FROM no_such) = 1"])
def test_condition_that_is_no_sql_of_the_source_is_named_and_nothing_is_written(
    source: Source, kind: str, where: str, tmp_path: pathlib.Path
) -> None:
    url, target = source(kind), f"duckdb:///{tmp_path}/target.duckdb"
    for command in (rowferry.copy, rowferry.plan):
        with pytest.raises(ConfigError, match="--where") as caught:
            command(url, target, tables=["t"], where=where)
        assert caught.value.exit_code == 2
        assert caught.value.table == "t"
    assert rowferry.copy(url, target, tables=["t"], where="a > 0").tables[0].rows_committed == 1
    assert len(rowferry.jobs(target)) == 1


@pytest.mark.server
def test_failure_that_is_not_the_conditions_stays_the_sources(
    source: Source, postgres_database: Callable[[], str]
) -> None:
    url = source("postgres")
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE VIEW v AS SELECT a / b AS c FROM t")
    with pytest.raises(SourceError, match="division by zero"):
        rowferry.copy(url, postgres_database(), tables=["v"], where="c = 1")
    with pytest.raises(ConfigError, match=r"--where.*division by zero"):
        rowferry.copy(url, postgres_database(), tables=["t"], where="a / b = 1")
