"""What does not fit, from the plan to the report: refused with its count, made NULL and counted, carried as text."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

import rowferry
from rowferry import endpoint
from rowferry.adapters.mysql import connect
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import DataError, RefusedError, SourceError

LOOSE = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"


@pytest.fixture
def session(url: str) -> Iterator[MysqlSession]:
    made = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    made.query(LOOSE)
    yield made
    made.close()


def with_session(url: str, sql: str) -> list[tuple[object, ...]]:
    made = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    try:
        return made.query(sql)
    finally:
        made.close()


@pytest.fixture
def dirty(session: MysqlSession) -> None:
    """10,000 rows, of which some do not fit in each of four columns."""
    session.query(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, d date NOT NULL, dt datetime(3) NULL, "
        "e enum('a','b') NOT NULL, c varchar(5) CHARACTER SET ascii NOT NULL, fine date NOT NULL)"
    )
    session.query(
        "INSERT INTO t SELECT seq, "
        "CASE seq % 7 WHEN 0 THEN '0000-00-00' WHEN 1 THEN '2020-02-31' ELSE '2020-01-01' END, "
        "if(seq % 5 = 0, '2020-00-10', '2020-01-01 01:02:03.5'), if(seq % 11 = 0, 'zz', 'a'), "
        "if(seq % 13 = 0, CAST(x'ff' AS BINARY), 'ok'), '2020-01-01' FROM seq_0_to_9999"
    )


COUNTS = {
    "d": sum(i % 7 < 2 for i in range(10_000)),
    "dt": sum(i % 5 == 0 for i in range(10_000)),
    "e": sum(i % 11 == 0 for i in range(10_000)),
    "c": sum(i % 13 == 0 for i in range(10_000)),
}


@pytest.mark.usefixtures("dirty")
def test_values_that_do_not_fit_are_refused_with_their_counts(url: str, tmp_path: Path) -> None:
    target = tmp_path / "t.duckdb"
    with pytest.raises(RefusedError) as caught:
        rowferry.copy(url, f"duckdb:///{target}", tables=["t"])
    said = str(caught.value)
    for column, count in COUNTS.items():
        assert f"column '{column}'" in said
        assert f"({count:,} rows)" in said
    assert "'fine'" not in said
    assert "policies to choose from: null, text, quarantine, skip" in said


@pytest.mark.usefixtures("dirty")
def test_policy_null_is_counted_chunk_by_chunk_and_makes_columns_nullable(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowferry.limits.CHUNK_BYTES", 100_000)
    target = tmp_path / "t.sqlite"
    policies = {"t.*": "null"}
    report = rowferry.copy(url, f"sqlite:///{target}", tables=["t"], policies=policies, verify=True)
    (table,) = report.tables
    assert table.chunks > 3
    assert table.touched == COUNTS
    assert table.rows_committed == 10_000
    assert table.equal
    with sqlite3.connect(target) as made:
        sql = "SELECT " + ", ".join(f"count(*) FILTER (WHERE {c} IS NULL)" for c in (*COUNTS, "fine")) + " FROM t"
        assert made.execute(sql).fetchone() == (*COUNTS.values(), 0)
        required = {row[1]: bool(row[3]) for row in made.execute("PRAGMA table_info(t)")}
    made.close()
    assert required == {"id": True, "d": False, "dt": False, "e": False, "c": False, "fine": True}
    again = rowferry.verify(url, f"sqlite:///{target}", tables=["t"], policies=policies)
    assert again.tables[0].equal


@pytest.mark.usefixtures("dirty")
def test_policy_null_into_an_existing_column_that_is_not_null_names_it(url: str, tmp_path: Path) -> None:
    target = tmp_path / "t.duckdb"
    with duckdb.connect(str(target)) as made:
        made.execute("CREATE TABLE t (id INTEGER, d DATE NOT NULL)")
    policies = {"t.d": "null", "t.dt": "skip", "t.e": "skip", "t.c": "skip", "t.fine": "skip"}
    with pytest.raises(DataError) as caught:
        rowferry.copy(url, f"duckdb:///{target}", tables=["t"], policies=policies)
    assert caught.value.column == "d"
    with duckdb.connect(str(target)) as made:
        assert made.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.usefixtures("dirty")
def test_policy_text_carries_the_servers_own_text(url: str, session: MysqlSession, tmp_path: Path) -> None:
    target = tmp_path / "t.duckdb"
    policies = {"t.d": "text", "t.dt": "text", "t.e": "text", "t.c": "null"}
    report = rowferry.copy(url, f"duckdb:///{target}", tables=["t"], policies=policies, verify=True)
    assert report.tables[0].touched == {"c": COUNTS["c"]}
    with duckdb.connect(str(target)) as made:
        got = made.execute("SELECT id, d, dt, e FROM t ORDER BY id").fetchall()
    expected = session.query("SELECT id, CAST(d AS CHAR), CAST(dt AS CHAR), e FROM t ORDER BY id")
    assert got == expected
    assert {row[1] for row in got} == {"0000-00-00", "2020-02-31", "2020-01-01"}
    assert {row[3] for row in got} == {"", "a"}


@pytest.mark.parametrize("mode", ["create", "append", "truncate", "replace"])
def test_dates_that_are_none_go_to_another_mysql_as_they_are(
    url: str, session: MysqlSession, mode: str, mysql_database: Callable[[], str]
) -> None:
    session.query(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, d date, n date NOT NULL, dt datetime(6) NOT NULL, "
        "ts timestamp(2) NULL, y year)"
    )
    session.query(
        "INSERT INTO t VALUES (0, '0000-00-00', '0000-00-00', '0000-00-00', '0000-00-00', 0), "
        "(1, '2020-00-10', '2020-02-31', '2020-02-00 01:02:03.000004', '1970-01-01 00:00:01', 1901), "
        "(2, '0000-01-01', '9999-12-31', '0000-12-31 23:59:59.999999', NULL, 2155), (-1, NULL, 0, 0, NULL, NULL)"
    )
    target = mysql_database()
    if mode != "create":
        rowferry.copy(url, target, tables=["t"])
        with_session(target, "DELETE FROM t")
    report = rowferry.copy(url, target, tables=["t"], mode=mode, verify=True)
    assert report.tables[0].equal
    assert report.tables[0].touched == {}
    ask = "SELECT id, CAST(d AS CHAR), CAST(n AS CHAR), CAST(dt AS CHAR), CAST(ts AS CHAR), y FROM t ORDER BY id"
    assert with_session(target, ask) == session.query(ask)
    assert len(with_session(target, ask)) == 4
    assert rowferry.verify(url, target, tables=["t"]).tables[0].equal


def test_enum_with_its_invalid_value_is_refused_by_another_mysql_too(
    url: str, session: MysqlSession, mysql_database: Callable[[], str]
) -> None:
    session.query(LOOSE)
    session.query("CREATE TABLE t (id int PRIMARY KEY, e enum('a','b') NOT NULL)")
    session.query("INSERT INTO t VALUES (1, 'zz'), (2, 'b')")
    target = mysql_database()
    with pytest.raises(RefusedError, match="number 0"):
        rowferry.copy(url, target, tables=["t"])
    report = rowferry.copy(url, target, tables=["t"], policies={"t.e": "text"}, verify=True)
    assert report.tables[0].equal
    assert with_session(target, "SELECT e FROM t ORDER BY id") == [("",), ("b",)]


def test_names_that_mysql_does_not_take_are_refused_before_anything_is_made(url: str, tmp_path: Path) -> None:
    source = tmp_path / "n.sqlite"
    with sqlite3.connect(source) as made:
        made.execute('CREATE TABLE "t" ("a b" int, "b " int, "c😀" int, d int)')
        made.execute('CREATE TABLE "u " (a int)')
    made.close()
    with pytest.raises(RefusedError) as caught:
        rowferry.copy(f"sqlite:///{source}", url, tables=["t"])
    assert "'b '" in str(caught.value)
    assert "'c😀'" in str(caught.value)
    assert "'a b'" not in str(caught.value)
    with pytest.raises(RefusedError, match="'u '"):
        rowferry.copy(f"sqlite:///{source}", url, tables=['"u "'])
    assert with_session(url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE()") == [(0,)]


def test_columns_that_differ_in_letter_case_alone_are_refused(url: str, postgres_database: Callable[[], str]) -> None:
    import psycopg

    source = postgres_database()
    with psycopg.connect(source, autocommit=True) as made:
        made.execute('CREATE TABLE t ("a" int, "A" int)')
    with pytest.raises(RefusedError, match="one column in mysql"):
        rowferry.copy(source, url, tables=["t"])
