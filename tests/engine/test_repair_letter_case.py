"""Repair where the target's engine takes two keys for one that differ in letter case alone."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest

import mysql_servers
import rowferry
from rowferry import RowferryError

ROWS = "INSERT INTO t VALUES ('a', 1), ('B', 2), ('extra', 3)"


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v INTEGER)")
        connection.execute("INSERT INTO t VALUES ('A', 1), ('B', 5), ('new', 6)")
    return f"sqlite:///{tmp_path}/source.db"


def mended(source: str, target: str) -> None:
    """Without --delete-extra the row of the other key stands in the way, and stays; with it, it goes first."""
    with pytest.raises(RowferryError):
        rowferry.verify(source, target, repair=True)
    report = rowferry.verify(source, target, repair=True, delete_extra=True)
    assert report.exit_code == 0, report.error
    assert rowferry.verify(source, target).exit_code == 0


@pytest.mark.server
def test_repair_in_mysql_under_a_loose_collation(
    source: str, mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str]
) -> None:
    target = mysql_database()
    mysql_server.execute(
        "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v BIGINT) CHARACTER SET utf8mb4",
        ROWS,
        database=urlsplit(target).path[1:],
    )
    mended(source, target)


@pytest.mark.server
def test_repair_in_postgres_of_citext(source: str, postgres_database: Callable[[], str]) -> None:
    target = postgres_database()
    with psycopg.connect(target, autocommit=True) as connection:
        for statement in ("CREATE EXTENSION citext", "CREATE TABLE t (k citext PRIMARY KEY, v bigint)", ROWS):
            connection.execute(statement)
    mended(source, target)


def test_repair_in_sqlite_of_nocase(source: str, tmp_path: pathlib.Path) -> None:
    with sqlite3.connect(tmp_path / "target.db") as connection:
        connection.execute("CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v INTEGER)")
        connection.execute(ROWS)
    mended(source, f"sqlite:///{tmp_path}/target.db")
