"""The source: rows as a plain driver sees them, readers that are given up, cut, killed, and go on."""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

import mysql_servers
import rowferry
from rowferry import endpoint
from rowferry.adapters.mysql import open_source
from rowferry.adapters.mysql.source import MysqlSource
from rowferry.adapters.protocol import Cuttable, ReadRequest, SourceOptions
from rowferry.errors import ConfigError, DataError, SnapshotLostError, SourceError
from rowferry.model import Bound, Table, TableName
from servers import CANARY

pytestmark = pytest.mark.server

WIDE = "INSERT INTO t SELECT seq, REPEAT(CHAR(65 + seq MOD 26), 1000) FROM seq_1_to_{}"
TABLE = "CREATE TABLE t (id int PRIMARY KEY, text_ varchar(1000))"


@pytest.fixture
def database(url: str) -> str:
    return url.rpartition("/")[2]


@contextlib.contextmanager
def source_of(url: str, **options: dict[str, str]) -> Iterator[MysqlSource]:
    source = open_source(endpoint.parse(url), SourceOptions(**options))
    assert isinstance(source, MysqlSource)
    with contextlib.closing(source):
        yield source


def described(source: MysqlSource, name: str = "t", schema: str | None = None) -> Table:
    table = source.describe(TableName(schema, name))
    assert table is not None
    return table


def request(table: Table, bound: Bound | None = None, where: str | None = None) -> ReadRequest:
    return ReadRequest(table, tuple((c.name, c.type) for c in table.columns), bound or Bound({}), where)


def rows_of(source: MysqlSource, wanted: ReadRequest) -> int:
    with contextlib.closing(source.reader()) as reader:
        return sum(block.batch.num_rows for block in reader.read(wanted))


# ── what is read ─────────────────────────────────────────────────────────────────────────────────


def test_tables_of_other_databases_are_read_by_their_schema(
    mysql_server: mysql_servers.Mariadb, url: str, database: str, mysql_database: Callable[[], str]
) -> None:
    mysql_server.execute(TABLE, WIDE.format(10), database=database)
    elsewhere = mysql_database()
    with source_of(elsewhere) as source:
        assert source.list_tables() == []
        table = described(source, schema=database)
        source.open_snapshot(1)
        (bound,) = source.split(table, None, 1 << 20, 0)
        assert rows_of(source, request(table, bound)) == 10
    with source_of(mysql_server.url_of("")) as source:
        assert TableName(database, "t") in source.list_tables()
        assert all(name.schema not in (None, "mysql", "information_schema", "sys") for name in source.list_tables())


def test_views_are_listed_apart_and_read(mysql_server: mysql_servers.Mariadb, url: str, database: str) -> None:
    mysql_server.execute(
        TABLE, WIDE.format(10), "CREATE VIEW v AS SELECT id * 2 AS twice FROM t WHERE id > 3", database=database
    )
    with source_of(url) as source:
        assert source.list_tables() == [TableName(None, "t")]
        assert source.list_views() == [TableName(None, "v")]
        view = described(source, "v")
        assert source.open_snapshot(2) == "one"
        assert rows_of(source, request(view)) == 7


def test_a_condition_stands_in_parentheses_beside_the_bound(
    mysql_server: mysql_servers.Mariadb, url: str, database: str
) -> None:
    mysql_server.execute(TABLE, WIDE.format(3_000), "ANALYZE TABLE t", database=database)
    where = "id < 10 OR id > 2990 # the ends"
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        bounds = source.split(table, None, 300_000, 0)
        assert len(bounds) > 5
        assert sum(rows_of(source, request(table, b, where)) for b in bounds) == 19


@pytest.mark.parametrize("where", ["nonsense(", "no_such_column = 1", "1; DROP TABLE t"])
def test_a_condition_that_is_no_sql_is_an_error_of_the_request(
    mysql_server: mysql_servers.Mariadb, url: str, database: str, tmp_path: pathlib.Path, where: str
) -> None:
    mysql_server.execute(TABLE, WIDE.format(10), database=database)
    with pytest.raises((ConfigError, SourceError)):
        rowferry.copy(url, f"duckdb:///{tmp_path}/t.duckdb", tables=["t"], where=where)
    assert mysql_server.execute("SELECT COUNT(*) FROM t", database=database) == [(10,)]


def test_rows_without_columns_are_still_counted(mysql_server: mysql_servers.Mariadb, url: str, database: str) -> None:
    mysql_server.execute(TABLE, WIDE.format(1_234), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        assert rows_of(source, ReadRequest(table, (), Bound({}))) == 1_234


def test_an_enums_invalid_value_is_an_error_that_names_its_column_and_null_by_policy(
    mysql_server: mysql_servers.Mariadb, url: str, database: str
) -> None:
    mysql_server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, e enum('a'))",
        "SET sql_mode = ''",
        "INSERT INTO t VALUES (1, 'a'), (2, 'none such'), (3, NULL)",
        database=database,
    )
    with source_of(url) as source:
        table = described(source)
        assert table.column("e").refusal is not None and table.column("e").refusal.count == 1
        with pytest.raises(DataError) as caught:
            rows_of(source, request(table))
        assert (caught.value.table, caught.value.column) == ("t", "e")
    with source_of(url, policies={"t.e": "null"}) as source:
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader:
            blocks = list(reader.read(request(described(source))))
    got = pa.Table.from_batches([b.batch for b in blocks]).to_pydict()
    assert got["e"] == ["a", None, None]
    assert sum(sum((b.touched or {}).values()) for b in blocks) == 1


# ── readers that end before their time ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("rows", [3, 60_000])
def test_a_read_given_up_keeps_the_snapshot(
    mysql_server: mysql_servers.Mariadb, url: str, database: str, rows: int
) -> None:
    mysql_server.execute(TABLE, WIDE.format(rows), database=database)
    with source_of(url) as source:
        table = described(source)
        assert source.open_snapshot(1) == "one"
        reader = source.reader()
        mysql_server.execute("DELETE FROM t WHERE id = 1", database=database)
        for _ in range(3):
            blocks = reader.read(request(table))
            next(iter(blocks))
            began = time.monotonic()
            blocks.close()  # type: ignore[attr-defined]
            assert time.monotonic() - began < 3
        assert sum(b.batch.num_rows for b in reader.read(request(table))) == rows
        reader.close()


def test_a_reader_that_is_cut_fails_at_once(mysql_server: mysql_servers.Mariadb, url: str, database: str) -> None:
    mysql_server.execute(TABLE, WIDE.format(10), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        reader = source.reader()
        assert isinstance(reader, Cuttable) and isinstance(source, Cuttable)
        threading.Timer(0.3, reader.cut).start()
        began = time.monotonic()
        with pytest.raises(SourceError) as caught:
            list(reader.read(request(table, where="SLEEP(0.6) = 0")))
        assert caught.value.transient
        assert time.monotonic() - began < 3
        # Nothing was committed since, so another session can take its place.
        assert sum(b.batch.num_rows for b in reader.read(request(table))) == 10
        reader.close()


def test_a_source_that_is_cut_opens_no_session_any_more(
    mysql_server: mysql_servers.Mariadb, url: str, database: str
) -> None:
    mysql_server.execute(TABLE, WIDE.format(10), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        reader = source.reader()
        source.cut()
        with pytest.raises(SourceError):
            list(reader.read(request(table)))
        reader.close()


@pytest.mark.parametrize("changed", [False, True])
def test_a_session_killed_in_mid_read_is_replaced_or_the_snapshot_is_lost(
    mysql_server: mysql_servers.Mariadb, url: str, database: str, changed: bool
) -> None:
    mysql_server.execute(TABLE, WIDE.format(60_000), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        reader = source.reader()
        blocks = reader.read(request(table))
        next(iter(blocks))
        ids = mysql_server.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{database}' AND id <> CONNECTION_ID()"
        )
        with contextlib.closing(mysql_server.connect()) as killer:
            for (number,) in ids:
                with contextlib.suppress(Exception):
                    killer.cursor().execute(f"KILL {number}")
        if changed:
            mysql_server.execute("DELETE FROM t WHERE id = 1", database=database)
        with pytest.raises(SourceError) as caught:
            list(blocks)
        assert caught.value.transient and CANARY not in str(caught.value)
        if changed:
            with pytest.raises(SnapshotLostError):
                list(reader.read(request(table)))
        else:
            assert sum(b.batch.num_rows for b in reader.read(request(table))) == 60_000
        assert reader.fingerprint(table.name) == table.fingerprint
        reader.close()


def test_a_killed_query_is_tried_again_on_the_same_snapshot(
    mysql_server: mysql_servers.Mariadb, url: str, database: str
) -> None:
    mysql_server.execute(TABLE, WIDE.format(10), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        reader = source.reader()
        mysql_server.execute("DELETE FROM t", database=database)

        def kill() -> None:
            until, found = time.monotonic() + 15, []
            while not found and time.monotonic() < until:
                time.sleep(0.02)
                found = mysql_server.execute(
                    f"SELECT id FROM information_schema.processlist WHERE db = '{database}' AND info LIKE '%SLEEP(20%' "
                    "AND id <> CONNECTION_ID()"
                )
            mysql_server.execute(f"KILL QUERY {found[0][0]}")

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(SourceError) as caught:
            list(reader.read(request(table, where="SLEEP(20 + id) = 0")))
        thread.join()
        assert caught.value.transient
        assert sum(b.batch.num_rows for b in reader.read(request(table))) == 10
        reader.close()


def test_a_new_index_stops_no_reader_and_a_table_made_anew_stops_it(
    mysql_server: mysql_servers.Mariadb, url: str, database: str
) -> None:
    mysql_server.execute(TABLE, WIDE.format(1_000), database=database)
    with source_of(url) as source:
        table = described(source)
        source.open_snapshot(1)
        reader = source.reader()
        assert sum(b.batch.num_rows for b in reader.read(request(table))) == 1_000
        mysql_server.execute("ALTER TABLE t ADD INDEX (id)", "DELETE FROM t WHERE id < 100", database=database)
        assert reader.fingerprint(table.name) == table.fingerprint
        assert sum(b.batch.num_rows for b in reader.read(request(table))) == 1_000
        mysql_server.execute("DROP TABLE t", TABLE, WIDE.format(1_000), database=database)
        assert reader.fingerprint(table.name) == table.fingerprint, "its columns are the same"
        with pytest.raises(SourceError, match="altered or emptied while it was read"):
            list(reader.read(request(table)))
        reader.close()


def test_a_copy_outlives_a_readers_death_where_nothing_changes(
    mysql_server: mysql_servers.Mariadb, url: str, database: str, tmp_path: pathlib.Path
) -> None:
    mysql_server.execute(TABLE, WIDE.format(100_000), "ANALYZE TABLE t", database=database)
    killed: list[int] = []
    done = threading.Event()

    def kill_once() -> None:
        with contextlib.closing(mysql_server.connect()) as c, c.cursor() as cursor:
            while not done.is_set() and not killed:
                cursor.execute(
                    "SELECT id FROM information_schema.processlist "
                    f"WHERE db = '{database}' AND info LIKE 'SELECT `id`, `text_` FROM%FORCE INDEX%'"
                )
                for (number,) in cursor.fetchall()[:1]:
                    with contextlib.suppress(Exception):
                        cursor.execute(f"KILL {number}")
                        killed.append(number)

    thread = threading.Thread(target=kill_once)
    thread.start()
    try:
        report = rowferry.copy(url, f"parquet:///{tmp_path}/out", verify=True)
    finally:
        done.set()
        thread.join()
    assert report.equal is True
    assert report.tables[0].rows_committed == 100_000
    if killed:
        assert report.tables[0].retries >= 1
