"""The workers' connections, opened while the job is planned: none is left behind, and none is needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

import rowferry
import servers
from rowferry import endpoint
from rowferry.adapters import registry
from rowferry.adapters.protocol import SourceOptions, TargetOptions
from rowferry.engine.ahead import Ahead
from rowferry.engine.request import Request
from rowferry.errors import ConfigError, RowferryError

pytestmark = pytest.mark.server


@pytest.fixture
def ends(postgres_database: Callable[[], str]) -> tuple[str, str]:
    source, target = postgres_database(), postgres_database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("CREATE TABLE t AS SELECT g AS id, 'x' || g AS name FROM generate_series(1, 1000) g")
    return source, target


def sessions(server: servers.Postgres, urls: tuple[str, str]) -> int:
    names = [url.rpartition("/")[2] for url in urls]
    with server.connect() as c:
        found = c.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rowferry' AND datname = ANY (%s)", (names,)
        ).fetchone()
    assert found is not None
    return int(str(found[0]))


def wait_for(count: int, server: servers.Postgres, urls: tuple[str, str]) -> None:
    until = time.monotonic() + 10
    while (found := sessions(server, urls)) != count:
        assert time.monotonic() < until, f"{found} sessions, and not {count}"
        time.sleep(0.02)


@contextlib.contextmanager
def ahead_of(ends: tuple[str, str], workers: int) -> Iterator[Ahead]:
    request = Request(endpoint.parse(ends[0]), endpoint.parse(ends[1]), workers=workers)
    with (
        contextlib.closing(registry.open_source(request.source, SourceOptions())) as source,
        contextlib.closing(registry.open_target(request.target, TargetOptions())) as target,
        Ahead(request, source, target) as ahead,
    ):
        yield ahead


def test_each_worker_gets_a_pair_of_its_own(ends: tuple[str, str]) -> None:
    with ahead_of(ends, 3) as ahead:
        pairs = [ahead.take() for _ in range(4)]
        assert pairs.pop() == (None, None), "there are three workers"
        assert len({id(side) for pair in pairs for side in pair if side is not None}) == 6
        for writer, reader in pairs:
            assert writer is not None
            assert reader is not None
            writer.close()
            reader.close()


def test_what_nobody_took_is_closed(ends: tuple[str, str], postgres_server: servers.Postgres) -> None:
    with ahead_of(ends, 3):
        # Two that plan, one of the snapshot's, and three pairs.
        wait_for(9, postgres_server, ends)
    wait_for(0, postgres_server, ends)


def test_leaving_at_once_leaves_no_session_behind(ends: tuple[str, str], postgres_server: servers.Postgres) -> None:
    with ahead_of(ends, 5):
        pass
    time.sleep(0.3)
    wait_for(0, postgres_server, ends)


def test_refused_copy_leaves_no_session_behind(ends: tuple[str, str], postgres_server: servers.Postgres) -> None:
    with psycopg.connect(ends[1], autocommit=True) as c:
        c.execute("CREATE TABLE t (other int)")
    with pytest.raises(RowferryError):
        rowferry.copy(*ends, workers=4)
    wait_for(0, postgres_server, ends)


def test_target_that_cannot_be_opened_is_told_after_the_source(
    ends: tuple[str, str], postgres_server: servers.Postgres
) -> None:
    missing = postgres_server.url_of("no_such_database")
    with pytest.raises(RowferryError) as seen:
        rowferry.copy(missing, missing.replace("no_such_database", "no_other_database"))
    assert seen.value.exit_code == 3, "the source's error comes first"
    with pytest.raises(RowferryError) as seen:
        rowferry.copy(ends[0], missing)
    assert seen.value.exit_code == 4
    with pytest.raises(ConfigError):
        rowferry.copy(ends[0], ends[1] + "?no_such_option=1")
    wait_for(0, postgres_server, ends)


def test_workers_beyond_the_server_s_limit_leave_the_rows_to_the_others(
    ends: tuple[str, str], postgres_server: servers.Postgres
) -> None:
    """Two sessions that plan, one of the snapshot's, and one worker's pair: whoever finds none waits for it."""
    urls = tuple(postgres_server.url_of(url.rpartition("/")[2], "ferry_few", "few") for url in ends)
    with postgres_server.connect() as c:
        c.execute("DROP ROLE IF EXISTS ferry_few")
        c.execute("CREATE ROLE ferry_few LOGIN PASSWORD 'few' CONNECTION LIMIT 5")
        c.execute(f'GRANT ALL ON DATABASE "{ends[1].rpartition("/")[2]}" TO ferry_few'.encode())
    for url, right in zip(ends, ("SELECT ON ALL TABLES IN SCHEMA public", "ALL ON SCHEMA public"), strict=True):
        with psycopg.connect(url, autocommit=True) as c:
            c.execute(f"GRANT {right} TO ferry_few".encode())
    report = rowferry.copy(urls[0], urls[1], workers=3)
    assert report.tables[0].rows_committed == 1000
    for url in ends:
        with psycopg.connect(url, autocommit=True) as c:
            c.execute("DROP OWNED BY ferry_few")
    with postgres_server.connect() as c:
        c.execute("DROP ROLE ferry_few")
