"""Columns that the target's table computes by itself."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3

import pytest

import rowferry
from rowferry import RefusedError


def made(file: pathlib.Path, *statements: str) -> str:
    with contextlib.closing(sqlite3.connect(file)) as c:
        for statement in statements:
            c.execute(statement)
        c.commit()
    return f"sqlite:///{file}"


def rows(file: pathlib.Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as c:
        return c.execute("SELECT id, v FROM t ORDER BY id").fetchall()


COMPUTED = "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER AS (id * 2) STORED)"


def test_values_that_the_target_would_compute_otherwise_are_refused(tmp_path: pathlib.Path) -> None:
    source = made(
        tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)", "INSERT INTO t VALUES (1, 1)"
    )
    target = made(tmp_path / "b.db", COMPUTED)
    with pytest.raises(RefusedError, match="column 'v': the target's column is generated") as refused:
        rowferry.copy(source, target, mode="append", verify=True)
    assert "policies to choose from: skip" in str(refused.value)
    assert rows(tmp_path / "b.db") == []
    rowferry.copy(source, target, mode="append", policies={"t.v": "skip"})
    assert rows(tmp_path / "b.db") == [(1, 2)]


def test_a_column_that_both_sides_compute_is_said_not_to_be_compared(tmp_path: pathlib.Path) -> None:
    source = made(tmp_path / "a.db", COMPUTED, "INSERT INTO t (id) VALUES (1)")
    target = made(tmp_path / "b.db", COMPUTED)
    report = rowferry.copy(source, target, mode="append", verify=True)
    assert [n for n in report.notes if "'v' is computed by the target" in n]
    assert rows(tmp_path / "b.db") == [(1, 2)]
