"""Numbers without bounds into an engine that has none: the decimal that holds them, or why there is none."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pymysql
import pytest

import rowferry
from rowferry import endpoint
from rowferry.adapters.protocol import Digits
from rowferry.engine.measuring import bounded
from rowferry.errors import RefusedError
from rowferry.model import Column
from rowferry.types import Type

NUMERIC = Column("n", Type("numeric"), forms=(Type("numeric"),))


@pytest.mark.parametrize(
    ("digits", "precision", "scale"),
    [
        (Digits(1, 0), 9, 0),
        (Digits(9, 2), 11, 2),
        (Digits(10, 2), 20, 2),
        (Digits(0, 3), 12, 3),
        (Digits(60, 5), 65, 5),
        (Digits(56, 9), 65, 9),
        # Beyond what the target has: it says so itself.
        (Digits(61, 5), 66, 5),
        (Digits(None, None), 65, 30),
    ],
)
def test_bounded_column_has_room_for_every_value(digits: Digits, precision: int, scale: int) -> None:
    column = bounded(NUMERIC, digits, 65)
    assert column.type == column.forms[0] == Type("decimal", precision=precision, scale=scale)
    assert column.forms[1:] == NUMERIC.forms
    assert column.refusal is None


def test_bounded_column_with_values_that_are_no_numbers_is_refused_with_their_count() -> None:
    column = bounded(NUMERIC, Digits(3, 1, special=7), 65)
    assert column.refusal is not None
    assert column.refusal.count == 7
    assert column.refusal.policies == ("text", "skip")
    assert column.type == NUMERIC.type


def from_mysql(url: str, sql: str) -> list[tuple[object, ...]]:
    e = endpoint.parse(url)
    with (
        pymysql.connect(
            host=e.host, port=e.port or 3306, user=e.user, password=e.password or "", database=e.database
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        return list(cursor.fetchall())


TYPES = "select column_name, column_type from information_schema.columns where table_schema = database() and "
TYPES += "table_name = 't' order by ordinal_position"


@pytest.mark.server
def test_numeric_without_bounds_becomes_the_decimal_that_holds_its_values(
    postgres_database: Callable[[], str], mysql_database: Callable[[], str]
) -> None:
    source, target = postgres_database(), mysql_database()
    with psycopg.connect(source, autocommit=True) as made:
        made.execute(
            "create table t (id int primary key, money numeric, small numeric not null, wide numeric, none numeric, "
            "whole numeric, huge numeric(100, 2))"
        )
        made.execute(
            "insert into t values (1, 12.50, 0.001, -1234567890123456789012345678901234567890.5, null, 7, 1), "
            "(2, -99999.9, 0, 0.25, null, -7000000000, 2.5), (3, null, -0.9, null, null, null, null)"
        )
    report = rowferry.copy(source, target, tables=["t"], verify=True)
    assert report.tables[0].equal
    assert report.tables[0].rows_committed == 3
    assert dict(from_mysql(target, TYPES)) == {
        "id": "int(11)", "money": "decimal(11,2)", "small": "decimal(12,3)", "wide": "decimal(47,2)",
        "none": "decimal(65,30)", "whole": "decimal(18,0)", "huge": "decimal(11,2)",
    }  # fmt: skip
    assert [tuple(None if v is None else str(v) for v in row) for row in from_mysql(
        target, "select money, small, wide, none, whole, huge from t order by id"
    )] == [
        ("12.50", "0.001", "-1234567890123456789012345678901234567890.50", None, "7", "1.00"),
        ("-99999.90", "0.000", "0.25", None, "-7000000000", "2.50"),
        (None, "-0.900", None, None, None, None),
    ]  # fmt: skip
    assert rowferry.verify(source, target, tables=["t"]).tables[0].equal
    back = postgres_database()
    assert rowferry.copy(target, back, tables=["t"], verify=True).tables[0].equal
    assert rowferry.verify(source, back, tables=["t"]).tables[0].equal


@pytest.mark.server
def test_numeric_that_no_decimal_holds_is_refused_before_anything_is_made(
    postgres_database: Callable[[], str], mysql_database: Callable[[], str]
) -> None:
    source, target = postgres_database(), mysql_database()
    with psycopg.connect(source, autocommit=True) as made:
        made.execute("create table t (id int primary key, n numeric, long numeric, deep numeric)")
        made.execute("insert into t values (1, 'NaN', 1, 1), (2, 'Infinity', 10::numeric ^ 70, 1e-50), (3, 1.5, 0, 0)")
    with pytest.raises(RefusedError) as caught:
        rowferry.copy(source, target, tables=["t"])
    said = str(caught.value)
    assert "column 'n': values that are no numbers (NaN, ±Infinity), which a decimal does not hold (2 rows)" in said
    assert "column 'long': MySQL's decimals have 65 digits at the most" in said
    assert "column 'deep': MySQL's decimals have 65 digits at the most" in said
    assert from_mysql(target, "show tables") == []
    policies = {"t.n": "text", "t.long": "text", "t.deep": "skip"}
    report = rowferry.copy(source, target, tables=["t"], policies=policies, verify=True)
    assert report.tables[0].equal
    assert [row[0] for row in from_mysql(target, "select n from t order by id")] == ["NaN", "Infinity", "1.5"]


@pytest.mark.server
def test_numeric_that_grew_since_its_job_began_is_refused_by_name_and_finds_room_for_a_little(
    postgres_database: Callable[[], str], mysql_database: Callable[[], str]
) -> None:
    source, target = postgres_database(), mysql_database()
    with psycopg.connect(source, autocommit=True) as made:
        made.execute("create table t (id int primary key, n numeric)")
        made.execute("insert into t values (1, 1.5)")
    rowferry.copy(source, target, tables=["t"])
    with psycopg.connect(source, autocommit=True) as made:
        made.execute("update t set n = 123456789.5")
    assert rowferry.copy(source, target, tables=["t"], mode="truncate", verify=True).tables[0].equal
    with psycopg.connect(source, autocommit=True) as made:
        made.execute("update t set n = 1.25")
    with pytest.raises(rowferry.DataError) as caught:
        rowferry.copy(source, target, tables=["t"], mode="truncate")
    assert caught.value.column == "n"
