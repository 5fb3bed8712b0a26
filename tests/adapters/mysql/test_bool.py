"""TINYINT(1) as a bool, where that is asked for: its values looked at first, carried, compared, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import rowferry
from rowferry.errors import RefusedError

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def flags(sql: Sql) -> None:
    sql(
        "CREATE TABLE t (id int PRIMARY KEY, active tinyint(1) NOT NULL, seen tinyint(1), level tinyint(1), "
        "small tinyint(4))",
        "INSERT INTO t SELECT seq, seq % 2, if(seq % 3 = 0, NULL, seq % 3 = 1), seq % 4, seq % 100 FROM seq_1_to_5000",
    )


def types_of(path: Path) -> dict[str, str]:
    with duckdb.connect(str(path), read_only=True) as made:
        return {row[0]: row[1] for row in made.execute("DESCRIBE t").fetchall()}


@pytest.mark.usefixtures("flags")
def test_tinyint_is_a_number_where_nothing_else_is_asked_for(url: str, tmp_path: Path) -> None:
    target = tmp_path / "t.duckdb"
    rowferry.copy(url, f"duckdb:///{target}", tables=["t"])
    assert {types_of(target)[c] for c in ("active", "seen", "level", "small")} == {"TINYINT"}


@pytest.mark.usefixtures("flags")
def test_tinyint_is_a_bool_where_it_is_asked_for_and_verifies_with_the_policy_and_without(
    url: str, tmp_path: Path
) -> None:
    target = tmp_path / "t.duckdb"
    policies = {"t.active": "bool", "seen": "bool"}
    report = rowferry.copy(url, f"duckdb:///{target}", tables=["t"], policies=policies, verify=True)
    assert report.tables[0].equal
    assert types_of(target) == {
        "id": "INTEGER", "active": "BOOLEAN", "seen": "BOOLEAN", "level": "TINYINT", "small": "TINYINT",
    }  # fmt: skip
    with duckdb.connect(str(target), read_only=True) as made:
        counted = made.execute("SELECT count(*) FILTER (active), count(seen), count(*) FILTER (seen) FROM t").fetchone()
    assert counted == (2500, 3334, 1667)
    for asked in (policies, {}):
        assert rowferry.verify(url, f"duckdb:///{target}", tables=["t"], policies=asked).tables[0].equal


@pytest.mark.usefixtures("flags")
def test_other_numbers_are_refused_with_their_count_before_anything_is_made(url: str, tmp_path: Path) -> None:
    target = tmp_path / "t.duckdb"
    with pytest.raises(RefusedError) as caught:
        rowferry.copy(url, f"duckdb:///{target}", tables=["t"], policies={"t.*": "bool"})
    said = str(caught.value)
    assert "column 'level': numbers that are neither 0 nor 1" in said
    assert "(2,500 rows)" in said
    # The pattern fits columns that are no bools, too, which is no mistake.
    assert "'small'" not in said
    assert "'active'" not in said
    assert not target.exists()


@pytest.mark.usefixtures("flags")
def test_bool_of_a_column_that_is_none_is_refused_by_its_name(url: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"column 'small': tinyint\(4\) is not read as a bool"):
        rowferry.copy(url, f"duckdb:///{tmp_path}/t.duckdb", tables=["t"], policies={"t.small": "bool"})


def test_bool_goes_to_mysql_and_postgres_and_comes_back(
    url: str, sql: Sql, mysql_database: Callable[[], str], postgres_database: Callable[[], str]
) -> None:
    import psycopg

    sql("CREATE TABLE t (id int PRIMARY KEY, b tinyint(1))", "INSERT INTO t VALUES (1, 1), (2, 0), (3, NULL)")
    middle, last = postgres_database(), mysql_database()
    assert rowferry.copy(url, middle, tables=["t"], policies={"*": "bool"}, verify=True).tables[0].equal
    with psycopg.connect(middle) as made:
        assert made.execute("SELECT b FROM t ORDER BY id").fetchall() == [(True,), (False,), (None,)]
    assert rowferry.copy(middle, last, tables=["t"], verify=True).tables[0].equal
    assert rowferry.verify(url, last, tables=["t"]).tables[0].equal
    # What rowferry made for a bool is one without being asked for.
    again = postgres_database()
    assert rowferry.copy(last, again, tables=["t"], verify=True).tables[0].equal
    with psycopg.connect(again) as made:
        assert made.execute("SELECT pg_typeof(b)::text FROM t LIMIT 1").fetchone() == ("boolean",)


def test_bool_that_became_another_number_since_the_look_stops_the_copy_by_name(
    url: str, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rowferry.adapters.mysql import counting

    sql("CREATE TABLE t (id int PRIMARY KEY, b tinyint(1))", "INSERT INTO t VALUES (1, 1), (2, 0)")
    looked_at = counting.looked_at

    def then_changed(*given: Any) -> Any:
        found = looked_at(*given)
        sql("UPDATE t SET b = 2 WHERE id = 2")
        return found

    monkeypatch.setattr(counting, "looked_at", then_changed)
    with pytest.raises(rowferry.DataError) as caught:
        rowferry.copy(url, f"duckdb:///{tmp_path}/t.duckdb", tables=["t"], policies={"t.b": "bool"})
    assert (caught.value.table, caught.value.column, caught.value.value) == ("t", "b", "'2'")
