"""Rows without a parent in a SQLite target: SQLite takes them while foreign_keys is off, so the report says so."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3

import pytest

import rowferry
from rowferry import DifferenceError

CHILD = "CREATE TABLE child (id INTEGER PRIMARY KEY, a INT, b INT REFERENCES parent, FOREIGN KEY (a, b) REFERENCES two)"
PARENTS = ("CREATE TABLE parent (id INTEGER PRIMARY KEY)", "CREATE TABLE two (x INT, y INT, PRIMARY KEY (x, y))")


def run(path: pathlib.Path, *statements: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as c:
        for statement in statements:
            c.execute(statement)
        c.commit()
    return f"sqlite:///{path}"


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    return run(
        tmp_path / "source.db",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, a INT, b INT)",
        "INSERT INTO child VALUES (1, 1, 1), (2, NULL, 1), (3, 9, 7), (4, 9, 8)",
    )


@pytest.mark.parametrize("mode", ["create", "append", "truncate", "replace", "upsert"])
def test_rows_without_a_parent_are_counted_by_foreign_key(source: str, tmp_path: pathlib.Path, mode: str) -> None:
    target = run(
        tmp_path / "target.db", *PARENTS, CHILD, "INSERT INTO parent VALUES (1)", "INSERT INTO two VALUES (1, 1)"
    )
    with pytest.raises(DifferenceError) as raised:
        rowferry.copy(source, target, mode=mode)
    assert raised.value.exit_code == 1
    report = raised.value.report
    assert (report.exit_code, report.status, report.rows_committed) == (1, "different", 4)
    assert "table 'child': 2 rows have no parent in 'parent' (foreign key b; the first has rowid 3)" in report.error
    assert "table 'child': 2 rows have no parent in 'two' (foreign key a, b; the first has rowid 3)" in report.error


def test_rows_that_have_their_parents_are_no_trouble(source: str, tmp_path: pathlib.Path) -> None:
    target = run(
        tmp_path / "target.db",
        *PARENTS,
        CHILD,
        "INSERT INTO parent VALUES (1), (7), (8)",
        "INSERT INTO two VALUES (1, 1), (9, 7), (9, 8)",
    )
    assert rowferry.copy(source, target, mode="append", verify=True).exit_code == 0


def test_foreign_keys_that_cannot_be_checked_are_said(source: str, tmp_path: pathlib.Path) -> None:
    child = "CREATE TABLE child (id INTEGER PRIMARY KEY, a INT REFERENCES parent (v), b INT)"
    target = run(tmp_path / "target.db", "CREATE TABLE parent (id INTEGER PRIMARY KEY, v INT)", child)
    with pytest.raises(DifferenceError, match=r"its foreign keys could not be checked: .*foreign key mismatch"):
        rowferry.copy(source, target, mode="append")
