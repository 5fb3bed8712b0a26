"""What the tests of the MySQL adapter begin with: an empty database, its server's statements, rowferry's target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mysql_servers
from adapters import contract
from rowferry.adapters.protocol import Target


@pytest.fixture
def url(mysql_database: Callable[[], str]) -> str:
    return mysql_database()


@pytest.fixture
def sql(mysql_server: mysql_servers.Mariadb, url: str) -> Callable[..., list[tuple[Any, ...]]]:
    database = url.rpartition("/")[2]
    return lambda *statements: mysql_server.execute(*statements, database=database)


@pytest.fixture
def target(url: str) -> Iterator[Target]:
    with contract.target_at(url) as found:
        yield found
