"""Fixtures that every test may use: real PostgreSQL and MariaDB servers, and fresh databases on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

import mysql_servers
import servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest first: a worker that comes to one at the very end lets the others wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Postgres]:
    """One server for the whole run. Where there is none to be had, tests are skipped, but in CI they fail."""
    url = os.environ.get("ROWFERRY_TEST_POSTGRES_URL")
    if url:
        yield servers.given(url)
        return
    if servers.find_programs() is None:
        reason = "no PostgreSQL server programs; tools/prepare.sh postgres installs them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = servers.start()
    try:
        yield server
    finally:
        server.discard()


@pytest.fixture
def postgres_database(postgres_server: servers.Postgres) -> Iterator[Callable[[], str]]:
    """Makes new, empty databases and gives their URLs; they are dropped after the test."""
    made: list[str] = []

    def make() -> str:
        url = postgres_server.database()
        made.append(url.rpartition("/")[2])
        return url

    yield make
    for name in made:
        postgres_server.drop(name)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[mysql_servers.Mariadb]:
    """One MariaDB server for the whole run; where there is none to be had, as for ``postgres_server``."""
    url = os.environ.get("ROWFERRY_TEST_MYSQL_URL")
    if url:
        yield mysql_servers.given(url)
        return
    if mysql_servers.find_program("mariadbd") is None:
        reason = "no MariaDB server programs; tools/prepare.sh mariadb installs them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = mysql_servers.start()
    try:
        yield server
    finally:
        server.discard()


@pytest.fixture(scope="session")
def own_mysql_server(mysql_server: mysql_servers.Mariadb) -> Iterator[mysql_servers.Mariadb]:
    """A server that was started by us, whatever ROWFERRY_TEST_MYSQL_URL says: its globals may be changed, its
    socket and its certificate are at hand."""
    if mysql_server.folder is not None:
        yield mysql_server
        return
    server = mysql_servers.start()
    try:
        yield server
    finally:
        server.discard()


@pytest.fixture
def mysql_database(mysql_server: mysql_servers.Mariadb) -> Iterator[Callable[[], str]]:
    """Makes new, empty databases and gives their URLs; they are dropped after the test."""
    made: list[str] = []

    def make() -> str:
        url = mysql_server.database()
        made.append(url.rpartition("/")[2])
        return url

    yield make
    for name in made:
        mysql_server.drop(name)
