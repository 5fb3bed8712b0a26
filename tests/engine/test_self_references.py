"""Tables whose foreign key points to themselves, as existing targets: children come before their parents."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pytest

import mysql_servers
import rowferry
from rowferry import DataError, DifferenceError, RefusedError

ROWS = 20_000
TREE = "CREATE TABLE tree (id INTEGER PRIMARY KEY, above INTEGER REFERENCES tree, name VARCHAR(20))"
#: Every row's parent comes after it, but for the last one's.
FILL = f"INSERT INTO tree SELECT i, CASE WHEN i < {ROWS} THEN i + 1 END, 'n' || i FROM range(1, {ROWS + 1}) r(i)"
MODES = ["create", "append", "truncate", "upsert"]


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as file:
        file.execute(TREE.replace(" REFERENCES tree", ""))
        file.execute(FILL)
    return f"duckdb:///{tmp_path}/source.duckdb"


@pytest.fixture
def postgres(postgres_database: Callable[[], str]) -> tuple[str, Callable[[str], list[Any]]]:
    url = postgres_database()

    def run(statement: str) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    run(TREE)
    return url, run


@pytest.mark.server
@pytest.mark.parametrize("mode", MODES)
def test_postgres_takes_them_in_one_statement(
    source: str, postgres: tuple[str, Callable[[str], list[Any]]], mode: str
) -> None:
    url, run = postgres
    report = rowferry.copy(source, url, mode=mode, chunk_bytes=50_000, verify=True)
    assert (report.exit_code, report.tables[0].chunks) == (0, 1)
    assert run("SELECT count(*), count(above) FROM tree") == [(ROWS, ROWS - 1)]
    if mode in ("truncate", "upsert"):
        assert rowferry.copy(source, url, mode=mode, job="again", verify=True).exit_code == 0
    assert rowferry.plan(source, url, mode="truncate").exit_code == 0


@pytest.mark.server
def test_postgres_refuses_rows_without_a_parent(
    source: str, postgres: tuple[str, Callable[[str], list[Any]]], tmp_path: pathlib.Path
) -> None:
    url, run = postgres
    with duckdb.connect(str(tmp_path / "source.duckdb")) as file:
        file.execute("DELETE FROM tree WHERE id = 77")
    with pytest.raises(DataError, match="foreign key"):
        rowferry.copy(source, url, mode="append")
    assert run("SELECT count(*) FROM tree") == [(0,)]


@pytest.mark.parametrize("mode", MODES)
def test_sqlite_takes_them_in_any_order_and_counts_rows_without_a_parent(
    source: str, tmp_path: pathlib.Path, mode: str
) -> None:
    with sqlite3.connect(tmp_path / "target.db") as connection:
        connection.execute(TREE)
    url = f"sqlite:///{tmp_path}/target.db"
    report = rowferry.copy(source, url, mode=mode, chunk_bytes=50_000, verify=True)
    assert report.exit_code == 0
    with duckdb.connect(str(tmp_path / "source.duckdb")) as file:
        file.execute("DELETE FROM tree WHERE id = 77")
    with pytest.raises(DifferenceError, match="1 rows have no parent in 'tree'"):
        rowferry.copy(source, url, mode="truncate")


@pytest.mark.server
@pytest.mark.parametrize("mode", MODES)
def test_mysql_takes_them_in_any_order_and_counts_rows_without_a_parent(
    source: str,
    mysql_server: mysql_servers.Mariadb,
    mysql_database: Callable[[], str],
    tmp_path: pathlib.Path,
    mode: str,
) -> None:
    url = mysql_database()
    tree = TREE.replace(" REFERENCES tree", "").replace("20))", "20), FOREIGN KEY (above) REFERENCES tree (id))")
    mysql_server.execute(tree, database=urlsplit(url).path[1:])
    report = rowferry.copy(source, url, mode=mode, chunk_bytes=50_000, verify=True)
    assert report.exit_code == 0
    assert report.tables[0].chunks > 2
    with duckdb.connect(str(tmp_path / "source.duckdb")) as file:
        file.execute("DELETE FROM tree WHERE id = 77")
    with pytest.raises(DifferenceError, match="1 rows have no parent in 'tree'"):
        rowferry.copy(source, url, mode="truncate")


def test_duckdb_is_refused_by_the_plan(source: str, tmp_path: pathlib.Path) -> None:
    with duckdb.connect(str(tmp_path / "target.duckdb")) as file:
        file.execute(TREE)
    with pytest.raises(RefusedError, match="foreign key to itself"):
        rowferry.copy(source, f"duckdb:///{tmp_path}/target.duckdb", mode="append")
