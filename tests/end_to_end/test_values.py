"""Nothing is lost or changed in silence: what a target, or rowferry itself, could do to values and rows unseen."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import psycopg
import pytest

from end_to_end.ferry import run

Database = Callable[[], str]


def execute(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def sqlite(path: pathlib.Path, script: str) -> str:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("value", "type_", "arrives"),
    [
        ("'xy'", '"char"', False),
        ("repeat('x', 70)", "name", False),
        ("'(1,5)'", "int4range", False),
        ("'[2,5)'", "int4range", True),
        ("'10:00+02'", "timetz", False),
        ("'10:00:00+02'", "timetz", True),
        ("'1 fat & (rat)'", "tsvector", False),
    ],
)
def test_text_that_the_server_would_read_as_something_else_is_refused(
    postgres_database: Database, value: str, type_: str, arrives: bool
) -> None:
    source, target = postgres_database(), postgres_database()
    execute(source, f"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, {value}), (2, NULL)")
    execute(target, f"CREATE TABLE t (id int PRIMARY KEY, v {type_})")
    done = run("copy", source, target, expect=0 if arrives else 1)
    rows = execute(target, "SELECT id, v::text FROM t ORDER BY id")
    if arrives:
        assert rows == execute(source, "SELECT id, v FROM t ORDER BY id")
    else:
        assert rows == []
        assert type_ == "name" or "column 'v'" in done.output, done.output


@pytest.mark.parametrize(
    ("type_", "value", "into"),
    [
        ("numeric", "1.2356", "numeric(10,2)"),
        ("numeric", "'NaN'", "integer"),
        ("timestamp", "'2020-01-01 00:00:00.6'", "timestamp(0)"),
        ("text", "'ab   '", "varchar(3)"),
        ("text", "'ab '", "char(3)"),
        ("float8", "0.1", "real"),
        ("float8", "'-0'", "integer"),
        ("int", "16777217", "real"),
        ("bigint", "9007199254740993", "float8"),
        ("numeric[]", "'{1.256}'", "numeric(5,2)[]"),
        ("interval", "'1 day 1.5 s'", "interval(0)"),
        ("varbit", "B'10101'", "bit(7)"),
    ],
)
def test_existing_columns_round_and_cut_nothing(postgres_database: Database, type_: str, value: str, into: str) -> None:
    source, target = postgres_database(), postgres_database()
    execute(source, f"CREATE TABLE t (id int PRIMARY KEY, v {type_}); INSERT INTO t VALUES (1, {value})")
    execute(target, f"CREATE TABLE t (id int PRIMARY KEY, v {into})")
    done = run("copy", source, target, expect=1)
    assert "column 'v'" in done.output and execute(target, "SELECT * FROM t") == []


@pytest.mark.parametrize("engine", ["postgresql", "sqlite", "duckdb"])
def test_upsert_takes_no_key_twice_in_different_chunks(
    tmp_path: pathlib.Path, postgres_database: Database, engine: str
) -> None:
    rows = ",".join(f"({i}, '{'x' * 100}{i}')" for i in range(3000))
    source = sqlite(tmp_path / "s.db", f"CREATE TABLE k (id int, v text); INSERT INTO k VALUES {rows}, (5, 'other')")
    table = "CREATE TABLE k (id int NOT NULL PRIMARY KEY, v text)"
    target = {"sqlite": f"sqlite:///{tmp_path}/t.db", "duckdb": f"duckdb:///{tmp_path}/t.duckdb"}.get(engine)
    if engine == "sqlite":
        sqlite(tmp_path / "t.db", table)
    elif engine == "duckdb":
        with duckdb.connect(f"{tmp_path}/t.duckdb") as connection:
            connection.execute(table)
    else:
        target = postgres_database()
        execute(target, table)
    small = {"ROWFERRY_CHUNK_BYTES": "50000"}
    done = run("copy", source, str(target), "--mode", "upsert", env=small, expect=1)
    assert "id" in done.output and "value: 5" in done.output, done.output
    sqlite(tmp_path / "s.db", "DELETE FROM k WHERE v = 'other'")
    run("copy", source, str(target), "--mode", "upsert", "--verify", env=small, expect=0)


def test_a_key_twice_in_one_chunk_is_the_datas_fault(tmp_path: pathlib.Path, postgres_database: Database) -> None:
    source = sqlite(tmp_path / "s.db", "CREATE TABLE k (id int, v text); INSERT INTO k VALUES (1, 'a'), (1, 'b')")
    target = postgres_database()
    execute(target, "CREATE TABLE k (id int PRIMARY KEY, v text)")
    done = run("copy", source, target, "--mode", "upsert", expect=1)
    assert "more than once" in done.output and execute(target, "SELECT * FROM k") == []


def test_only_rowferrys_own_tables_are_left_out(tmp_path: pathlib.Path, postgres_database: Database) -> None:
    script = (
        'CREATE TABLE rowferry_x (a int); INSERT INTO rowferry_x VALUES (1); CREATE TABLE "_under" (a int);'
        "CREATE VIRTUAL TABLE notes USING fts5(body); CREATE TABLE notes_archive (a int);"
        "INSERT INTO notes_archive VALUES (2);"
    )
    tables = {"rowferry_x", "_under", "notes_archive"}
    source = sqlite(tmp_path / "s.db", script)
    middle = postgres_database()
    for left, right in [
        (source, middle),
        (middle, f"duckdb:///{tmp_path}/t.duckdb"),
        (f"duckdb:///{tmp_path}/t.duckdb", f"parquet:///{tmp_path}/p"),
        (f"parquet:///{tmp_path}/p", f"sqlite:///{tmp_path}/t.db"),
    ]:
        done = run("copy", left, right, "--verify", expect=0)
        assert done.report is not None
        assert {t["source"] for t in done.report["tables"]} == tables
    connection = sqlite3.connect(tmp_path / "t.db")
    assert connection.execute("SELECT * FROM rowferry_x").fetchall() == [(1,)]
    connection.close()


def test_names_that_the_target_cannot_hold_are_refused_by_the_plan(
    tmp_path: pathlib.Path, postgres_database: Database
) -> None:
    source = sqlite(tmp_path / "s.db", 'CREATE TABLE t (a int, "" text); CREATE TABLE ok (a int)')
    for target in (postgres_database(), f"duckdb:///{tmp_path}/t.duckdb"):
        done = run("copy", source, target, expect=2)
        assert "no empty names" in done.output
    own = postgres_database()
    execute(own, "CREATE TABLE rowferry_jobs (a int)")
    done = run("copy", own, f"duckdb:///{tmp_path}/u.duckdb", expect=2)
    assert "rowferry's own" in done.output


def test_rows_of_a_table_that_the_target_does_not_have_are_counted(postgres_database: Database) -> None:
    source, target = postgres_database(), postgres_database()
    execute(source, "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'a'), (2, NULL)")
    execute(source, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    execute(target, "CREATE TABLE t (id int PRIMARY KEY, more text); INSERT INTO t VALUES (1, 'x')")
    without = run("verify", source, target, expect=1)
    assert "target only" in without.output and without.table("u")["missing"] == 2
    done = run("verify", source, target, "--policy", "t.more=skip", expect=1)
    assert done.table("u")["missing"] == 2 and done.table("u")["equal"] is False
    assert done.table("t")["equal"] is True


@pytest.mark.parametrize("engine", ["postgresql", "sqlite"])
def test_upsert_by_a_key_that_the_target_compares_without_letter_case(
    tmp_path: pathlib.Path, postgres_database: Database, engine: str
) -> None:
    rows = ",".join(f"('k{i:05}', '{'x' * 100}')" for i in range(3000))
    script = f"CREATE TABLE k (id text PRIMARY KEY, v text); INSERT INTO k VALUES {rows}, ('K00001', 'other')"
    source = sqlite(tmp_path / "s.db", script)
    if engine == "sqlite":
        target = sqlite(tmp_path / "t.db", "CREATE TABLE k (id text NOT NULL COLLATE NOCASE PRIMARY KEY, v text)")
    else:
        target = postgres_database()
        execute(target, "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        execute(target, "CREATE TABLE k (id text COLLATE ci PRIMARY KEY, v text)")
    done = run("copy", source, target, "--mode", "upsert", env={"ROWFERRY_CHUNK_BYTES": "50000"}, expect=2)
    assert "1 such keys ('K00001' and 'k00001')" in done.output, done.output
