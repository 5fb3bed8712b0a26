"""A server that does not keep the letter case of tables' names (lower_case_table_names = 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

import mysql_servers
import rowferry
from rowferry import RefusedError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folding_server() -> Iterator[mysql_servers.Mariadb]:
    """The setting is one of the data folder's: it takes a server of its own."""
    server = mysql_servers.start((*mysql_servers.USUAL, "lower-case-table-names=1"))
    try:
        yield server
    finally:
        server.discard()


def test_two_tables_that_would_be_one_are_refused(
    folding_server: mysql_servers.Mariadb,
    mysql_server: mysql_servers.Mariadb,
    mysql_database: Callable[[], str],
) -> None:
    source, target = mysql_database(), folding_server.database("folded")
    mysql_server.execute(
        "CREATE TABLE Foo (id INT PRIMARY KEY)", "CREATE TABLE foo (id INT PRIMARY KEY)",
        "INSERT INTO Foo VALUES (1)", "INSERT INTO foo VALUES (2)", database=urlsplit(source).path[1:],
    )  # fmt: skip
    with pytest.raises(RefusedError, match=r"tables 'Foo' and 'foo' would have one name in mysql"):
        rowferry.copy(source, target)
    assert folding_server.execute("SHOW TABLES LIKE '%foo'", database="folded") == []
    assert mysql_server.execute("SELECT id FROM foo", database=urlsplit(source).path[1:]) == [(2,)]
    rowferry.copy(source, target, tables=["Foo"])
    assert folding_server.execute("SELECT id FROM foo", database="folded") == [(1,)]


def test_two_names_of_one_target_table_are_refused(
    mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str]
) -> None:
    source, target = mysql_database(), mysql_database()
    here, there = (urlsplit(url).path[1:] for url in (source, target))
    mysql_server.execute(
        "CREATE TABLE a (id INT PRIMARY KEY)", "CREATE TABLE b (id INT PRIMARY KEY)",
        "INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (2)", database=here,
    )  # fmt: skip
    with pytest.raises(RefusedError, match=r"tables 'a' and 'b' would both be named 'x'"):
        rowferry.copy(source, target, tables=["a:x", f"b:{there}.x"])
    assert mysql_server.execute("SHOW TABLES LIKE 'x'", database=there) == []
    rowferry.copy(source, target, tables=[f"b:{there}.x"], verify=True)
    assert mysql_server.execute("SELECT id FROM x", database=there) == [(2,)]
