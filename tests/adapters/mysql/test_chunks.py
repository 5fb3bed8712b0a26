"""Cutting tables into chunks: each row in exactly one, along an index, whatever the key is made of."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

import mysql_servers
import rowferry
from rowferry import endpoint, limits
from rowferry.adapters.mysql import catalog, counting
from rowferry.adapters.mysql.chunks import Splitter, select_from
from rowferry.adapters.mysql.connect import connect, parameters
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import LedgerError, SourceError
from rowferry.model import Bound, Table, TableName

pytestmark = pytest.mark.server

ROWS = 20_000
FROM = f"FROM seq_1_to_{ROWS}"
WIDE = "REPEAT('x', 80)"

#: Columns of the key and the table's other clauses; the key's values; the kinds of its boundaries.
KEYS: dict[str, tuple[str, str, list[str]]] = {
    "int": ("k int PRIMARY KEY", "seq", ["integer"]),
    "negative": ("k bigint PRIMARY KEY", "CAST(seq AS SIGNED) * 2 - 20000", ["integer"]),
    "unsigned": ("k bigint unsigned PRIMARY KEY", "18446744073709551616 - seq", ["integer"]),
    "sparse": ("k bigint PRIMARY KEY", "seq * seq * 7 - 5", ["integer"]),
    "first_of_two": ("k int, l int, PRIMARY KEY (k, l)", "seq DIV 4, seq MOD 4", ["integer"]),
    "few_firsts": ("k int, l int, PRIMARY KEY (k, l)", "seq MOD 3, seq", ["integer", "integer"]),
    "three": (
        "k tinyint, l varchar(9), m date, PRIMARY KEY (k, l, m)",
        "seq MOD 2, CONCAT('t', seq MOD 7), '2020-01-01' + INTERVAL seq DAY",
        ["integer", "text:utf8mb4:utf8mb4_bin", "temporal"],
    ),
    "loose_text": (
        "k varchar(50) COLLATE utf8mb4_general_ci PRIMARY KEY",
        "CONCAT(IF(seq MOD 2, 'Ä', 'a'), CHAR(65 + seq MOD 26), MD5(seq), '\\'\\\\ ')",
        ["text:utf8mb4:utf8mb4_general_ci"],
    ),
    "latin_char": (
        "k char(40) CHARACTER SET latin1 COLLATE latin1_german2_ci, l datetime(3), PRIMARY KEY (k, l)",
        "CONCAT('ß', MD5(seq DIV 2)), '2020-01-01' + INTERVAL seq SECOND",
        ["text:latin1:latin1_german2_ci", "temporal"],
    ),
    "uuid": ("k uuid PRIMARY KEY", "UUID()", ["plain"]),
    "binary": ("k binary(16) PRIMARY KEY", "UNHEX(MD5(seq))", ["hex"]),
    "varbinary": ("k varbinary(20) PRIMARY KEY", "CONCAT(x'00', UNHEX(MD5(seq)))", ["hex"]),
    "decimal": ("k decimal(30, 10) PRIMARY KEY", "(CAST(seq AS SIGNED) - 10000) * 1.0000000001", ["decimal"]),
    "timestamp": ("k timestamp(6) PRIMARY KEY", "'2020-01-01' + INTERVAL seq * 7 MICROSECOND", ["temporal"]),
    "time": ("k time(6) PRIMARY KEY", "SEC_TO_TIME(CAST(seq AS SIGNED) * 100 - 1000000)", ["temporal"]),
    "descending": ("k varbinary(16), PRIMARY KEY (k DESC)", "UNHEX(MD5(seq))", ["hex"]),
    "unique": ("k varchar(40) NOT NULL, l int NOT NULL, UNIQUE (k)", "MD5(seq), seq", ["text:utf8mb4:utf8mb4_bin"]),
}


@pytest.fixture
def session(mysql_database: Callable[[], str]) -> Iterator[MysqlSession]:
    session = connect(parameters(endpoint.parse(mysql_database())), SourceError)
    yield session
    session.close()


def make(session: MysqlSession, ddl: str, values: str, *, analyze: bool = True) -> tuple[Table, str]:
    database = str(session.query("SELECT DATABASE()")[0][0])
    session.query(f"CREATE TABLE t ({ddl}, pad varchar(100)) COLLATE utf8mb4_bin")
    session.query(f"INSERT INTO t SELECT {values}, {WIDE} {FROM}")
    if analyze:
        session.query("ANALYZE TABLE t")
    table = catalog.describe(session, TableName(None, "t"))
    assert table is not None
    return table, database


def counts(session: MysqlSession, table: Table, database: str, bounds: list[Bound]) -> list[int]:
    return [int(session.query(f"SELECT COUNT(*) {select_from(table, database, b, None)}")[0][0]) for b in bounds]


def test_a_first_column_of_one_large_value_is_not_cut_by_arithmetic(session: MysqlSession) -> None:
    """One customer has nine tenths of the rows, all others a row or two."""
    values = f"IF(seq > {ROWS // 10}, 777, seq), seq"
    table, database = make(session, "k int, l int, PRIMARY KEY (k, l)", values)
    bounds = Splitter(session, database).split(table, None, 200_000, 0)
    found = counts(session, table, database, bounds)
    assert sum(found) == ROWS
    assert max(found) < 4 * ROWS / len(bounds)


@pytest.mark.parametrize("shape", KEYS)
def test_every_row_is_in_one_chunk_that_reads_a_range_of_the_index(session: MysqlSession, shape: str) -> None:
    ddl, values, hows = KEYS[shape]
    table, database = make(session, ddl, values)
    bounds = Splitter(session, database).split(table, None, 200_000, 0)
    assert 6 <= len(bounds) <= 60
    found = counts(session, table, database, bounds)
    assert sum(found) == ROWS
    assert max(found) <= 4 * ROWS / len(bounds)
    assert [how for _, how in bounds[0].data["key"]] == hows
    assert not any(b.physical for b in bounds)
    assert (bounds[0].data["low"], bounds[-1].data["high"]) == (None, None)
    for bound in bounds:
        names, rows = session.table(f"EXPLAIN SELECT pad {select_from(table, database, bound, None)}")
        plan = dict(zip(names, rows[0], strict=True))
        assert (plan["type"], plan["key"]) == ("range", "PRIMARY" if table.primary_key else "k"), plan
    # No row twice: the chunks' rows together are as many different ones as the table has.
    key = ", ".join(f"`{name}`" for name in table.identifying_key)
    parts = " UNION ".join(f"(SELECT {key} {select_from(table, database, b, None)})" for b in bounds)
    assert int(session.query(f"SELECT COUNT(*) FROM ({parts}) AS u")[0][0]) == ROWS


@pytest.mark.parametrize(
    ("ddl", "values"),
    [
        ("k int", "seq"),
        ("k double PRIMARY KEY", "seq * 1.1e0"),
        ("k varchar(99) NOT NULL, PRIMARY KEY (k(10))", "MD5(seq)"),
        ("k enum('a') NOT NULL, l int", "'a', seq"),
        ("k int, UNIQUE (k)", "seq"),
        ("k varchar(99) NOT NULL, l int NOT NULL, PRIMARY KEY (k(10)), UNIQUE (l) IGNORED", "MD5(seq), seq"),
        ("k varchar(9), l int, PRIMARY KEY (k, l DESC)", "'x', seq"),
    ],
)
def test_a_table_without_a_key_to_cut_along_is_one_stream(session: MysqlSession, ddl: str, values: str) -> None:
    table, database = make(session, ddl, values)
    (bound,) = Splitter(session, database).split(table, None, 200_000, 0)
    assert bound.data == {}
    assert counts(session, table, database, [bound]) == [ROWS]


@pytest.mark.parametrize("ddl", ["k int PRIMARY KEY", "k binary(3) PRIMARY KEY"])
def test_a_table_that_was_just_loaded_is_cut_though_its_statistics_are_empty(session: MysqlSession, ddl: str) -> None:
    session.query(f"CREATE TABLE t ({ddl}, pad varchar(100)) STATS_AUTO_RECALC=0, STATS_PERSISTENT=1")
    session.query("ANALYZE TABLE t")
    value = "UNHEX(LPAD(HEX(seq), 6, '0'))" if "binary" in ddl else "seq"
    session.query(f"INSERT INTO t SELECT {value}, {WIDE} {FROM}")
    table = catalog.describe(session, TableName(None, "t"))
    database = str(session.query("SELECT DATABASE()")[0][0])
    assert table is not None
    bounds = Splitter(session, database).split(table, None, 200_000, 0)
    assert 4 <= len(bounds) <= 80
    found = counts(session, table, database, bounds)
    assert sum(found) == ROWS
    assert max(found) < ROWS / 2


@pytest.mark.parametrize("analyzed", [True, False])
def test_rows_that_were_counted_by_the_way_are_not_looked_for_again(
    session: MysqlSession, monkeypatch: pytest.MonkeyPatch, analyzed: bool
) -> None:
    table, database = make(session, "id int PRIMARY KEY, d date", "seq, '2020-01-01'", analyze=analyzed)
    counted: dict[TableName, int] = {}
    counting.looked_at(table, session, counted=lambda rows: counted.update({table.name: rows}))
    assert counted == {table.name: ROWS}
    monkeypatch.delattr(Splitter, "_has_more_than")
    bounds = Splitter(session, database, counted).split(table, None, 200_000, 0)
    assert sum(counts(session, table, database, bounds)) == ROWS
    assert 6 <= len(bounds) <= 20
    assert sum(bound.rows or 0 for bound in bounds) > ROWS - 100
    session.query("DELETE FROM t")
    counting.looked_at(table, session, counted=lambda rows: counted.update({table.name: rows}))
    assert counted == {table.name: 0}
    assert len(Splitter(session, database, counted).split(table, None, 200_000, 0)) == 1


def test_bounds_cover_rows_that_come_later(session: MysqlSession) -> None:
    table, database = make(session, *KEYS["int"][:2])
    bounds = Splitter(session, database).split(table, None, 200_000, 0)
    session.query("INSERT INTO t VALUES (-2147483648, ''), (0, ''), (2147483647, '')")
    assert sum(counts(session, table, database, bounds)) == ROWS + 3


def test_fewer_rows_than_asked_for_make_fewer_chunks(session: MysqlSession) -> None:
    table, database = make(session, *KEYS["int"][:2])
    splitter = Splitter(session, database)
    assert len(splitter.split(table, None, 200_000, ROWS // 2)) in (2, 3)
    assert len(splitter.split(table, None, 200_000, 10 * ROWS)) == 1
    assert len(splitter.split(table, None, 1 << 30, 0)) == 1


def test_a_condition_may_end_in_a_comment_and_makes_fewer_chunks(session: MysqlSession) -> None:
    table, database = make(session, *KEYS["int"][:2])
    where = "k MOD 2 = 0 OR k < 10 -- every other one"
    bounds = Splitter(session, database).split(table, where, 200_000, 0)
    found = [int(session.query(f"SELECT COUNT(*) {select_from(table, database, b, where)}")[0][0]) for b in bounds]
    assert sum(found) == ROWS // 2 + 5
    rare = Splitter(session, database).split(table, "k = 7", 200_000, 0)
    assert 1 <= len(rare) < len(bounds) + 1


def test_a_table_has_no_more_chunks_than_the_ledger_takes(
    session: MysqlSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHUNKS_PER_TABLE_MAX", 10)
    table, database = make(session, *KEYS["binary"][:2])
    bounds = Splitter(session, database).split(table, None, 1, 0)
    assert len(bounds) <= 11
    assert sum(counts(session, table, database, bounds)) == ROWS


def test_partitioned_tables_are_cut_as_a_whole(mysql_server: mysql_servers.Mariadb, session: MysqlSession) -> None:
    session.query("CREATE TABLE t (k int PRIMARY KEY, pad varchar(100)) PARTITION BY HASH (k) PARTITIONS 4")
    session.query(f"INSERT INTO t SELECT seq, {WIDE} {FROM}")
    session.query("ANALYZE TABLE t")
    table = catalog.describe(session, TableName(None, "t"))
    database = str(session.query("SELECT DATABASE()")[0][0])
    assert table is not None
    bounds = Splitter(session, database).split(table, None, 200_000, 0)
    assert len(bounds) > 5
    assert sum(counts(session, table, database, bounds)) == ROWS


def test_a_view_is_one_stream(session: MysqlSession) -> None:
    make(session, *KEYS["int"][:2])
    session.query("CREATE VIEW v AS SELECT * FROM t")
    view = catalog.describe(session, TableName(None, "v"))
    assert view is not None
    (bound,) = Splitter(session, str(session.query("SELECT DATABASE()")[0][0])).split(view, None, 1_000, 0)
    assert bound.data == {}


@pytest.mark.parametrize(("workers", "chunks"), [(2, 4), (3, 3), (5, 5), (6, 6)])
def test_chunks_of_many_rows_divide_among_the_workers(
    mysql_database: Callable[[], str], tmp_path: pathlib.Path, workers: int, chunks: int
) -> None:
    url = mysql_database()
    session = connect(parameters(endpoint.parse(url)), SourceError)
    session.query("CREATE TABLE t (id int PRIMARY KEY)")
    session.query(f"INSERT INTO t SELECT seq FROM seq_1_to_{5 * limits.DUCKDB_CHUNK_ROWS_MIN + 40_000}")
    session.query("ANALYZE TABLE t")
    session.close()
    plan = rowferry.plan(url, f"duckdb:///{tmp_path / 'target.duckdb'}", workers=workers, chunk_bytes=1 << 20)
    assert [table.chunks for table in plan.tables] == [chunks]


@pytest.mark.parametrize(
    ("how", "value"),
    [
        ("integer", "1 OR 1=1"),
        ("decimal", "1) OR (1=1"),
        ("hex", "00' OR '1'='1"),
        ("text:utf8mb4:utf8mb4_bin", "zz"),
        ("text:utf8mb4 x'' OR 1=1:x", "00"),
    ],
)
def test_a_tampered_bound_is_no_sql(how: str, value: str) -> None:
    table = Table(TableName(None, "t"), (), primary_key=("k",))
    bound = Bound({"key": [["k", how]], "low": [value], "high": None})
    with pytest.raises(LedgerError, match="bound"):
        select_from(table, "d", bound, None)
    assert msgspec.structs.replace(bound, data={}) == Bound({})
