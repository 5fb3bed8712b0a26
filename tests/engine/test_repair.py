"""repair on a real DuckDB target: afterwards a fresh comparison finds what it should."""

from __future__ import annotations

import contextlib
import pathlib

import duckdb
import pytest

from rowferry import endpoint, limits
from rowferry.adapters import duckdb as adapter
from rowferry.adapters.protocol import SourceOptions, TargetOptions
from rowferry.engine import repair as repair_module
from rowferry.engine.repair import repair
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.errors import DataError, RefusedError
from rowferry.model import ColumnPlan, TableName, TablePlan
from rowferry.stages.digest import compare


class Pair:
    """Two DuckDB files with one table each."""

    def __init__(self, folder: pathlib.Path, source: list[str], target: list[str]) -> None:
        self.urls = {}
        for side, statements in (("source", source), ("target", target)):
            path = folder / f"{side}.duckdb"
            with duckdb.connect(str(path)) as connection:
                for statement in statements:
                    connection.execute(statement)
            self.urls[side] = f"duckdb:///{path}"

    def repaired(
        self, key: tuple[str, ...], delete_extra: bool = False, skip: tuple[str, ...] = ()
    ) -> tuple[TableDifference, int, TableDifference]:
        """What was found, the rows that were touched, and what is found then."""
        with (
            contextlib.closing(adapter.open_source(endpoint.parse(self.urls["source"]), SourceOptions())) as source,
            contextlib.closing(adapter.open_target(endpoint.parse(self.urls["target"]), TargetOptions())) as target,
        ):
            with contextlib.closing(target.as_source()) as written:
                plan = self._plan(source, written, key, skip)
                source.open_snapshot(2)
                written.open_snapshot(2)
                found = verify_tables(source, written, [plan], workers=2)[0]
            touched = repair(source, target, plan, found, delete_extra)
            with contextlib.closing(target.as_source()) as written:
                written.open_snapshot(2)
                after = verify_tables(source, written, [plan], workers=2)[0]
        return found, touched, after

    def _plan(self, source: object, target: object, key: tuple[str, ...], skip: tuple[str, ...]) -> TablePlan:
        ours, theirs = source.describe(TableName(None, "t")), target.describe(TableName(None, "t"))
        columns = []
        for column in ours.columns:
            if column.name not in skip:
                other = theirs.column(column.name)
                way = compare(column.type, other.type, source_engine="duckdb", target_engine="duckdb")
                columns.append(ColumnPlan(column.name, column.type, column.name, other, way))
        return TablePlan(0, ours, theirs, tuple(columns), key=key)


MANY = "CREATE TABLE t AS SELECT i::INTEGER AS id, 'v' || i AS v FROM range(30000) r(i)"


def test_repair_missing_changed_and_extra_rows_become_equal(tmp_path: pathlib.Path) -> None:
    pair = Pair(
        tmp_path,
        [MANY],
        [
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)",
            "INSERT INTO t SELECT i, 'v' || i FROM range(30000) r(i) WHERE i NOT IN (5, 29999)",
            "UPDATE t SET v = 'other' WHERE id IN (7, 8, 9)",
            "INSERT INTO t VALUES (-1, 'extra'), (50000, NULL)",
        ],
    )
    found, touched, after = pair.repaired(("id",))
    assert (found.missing, found.extra, found.changed) == (2, 2, 3)
    assert touched == 5
    assert (after.missing, after.extra, after.changed) == (0, 2, 0)
    found, touched, after = pair.repaired(("id",), delete_extra=True)
    assert touched == 2
    assert after.equal
    assert after.digest_source == after.digest_target


def test_repair_more_than_one_transaction_and_more_than_is_held(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFY_ROWS_HELD", 4000)
    monkeypatch.setattr(repair_module, "REPAIR_KEYS_MAX", 900)
    pair = Pair(
        tmp_path,
        ["CREATE TABLE t AS SELECT i AS id, 'v' || i AS v FROM range(6000) r(i)"],
        [
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)",
            "INSERT INTO t SELECT i, 'w' || i FROM range(3000, 9000) r(i)",
        ],
    )
    found, touched, after = pair.repaired(("id",), delete_extra=True)
    assert not found.complete
    assert (found.missing, found.extra, found.changed) == (3000, 3000, 3000)
    assert touched == 9000
    assert after.equal


def test_repair_composite_key_with_nulls_and_other_types(tmp_path: pathlib.Path) -> None:
    pair = Pair(
        tmp_path,
        [
            "CREATE TABLE t (a DECIMAL(10,2), b VARCHAR, moment TIMESTAMP_S)",
            "INSERT INTO t VALUES (1.5, 'x', '2024-01-01'), (1.5, NULL, 'infinity'), (2, 'y', NULL)",
        ],
        [
            "CREATE TABLE t (a DECIMAL(20,5), b VARCHAR, moment TIMESTAMP)",
            "INSERT INTO t VALUES (1.5, 'x', '2024-01-02'), (1.5, NULL, '-infinity'), (3, 'z', NULL)",
        ],
    )
    found, touched, after = pair.repaired(("a", "b"), delete_extra=True)
    assert (found.missing, found.extra, found.changed) == (1, 1, 2)
    assert touched == 4
    assert after.equal


def test_repair_key_that_is_not_unique_is_made_equal_only_with_delete_extra(tmp_path: pathlib.Path) -> None:
    pair = Pair(
        tmp_path,
        ["CREATE TABLE t (id INTEGER, v VARCHAR)", "INSERT INTO t VALUES (1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')"],
        [
            "CREATE TABLE t (id INTEGER, v VARCHAR)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'x'), (2, 'y'), (3, 'd'), (3, 'd')",
        ],
    )
    with pytest.raises(RefusedError, match="several rows of the target have one key"):
        pair.repaired(("id",))
    found, _, after = pair.repaired(("id",), delete_extra=True)
    assert (found.missing, found.extra, found.changed) == (1, 2, 1)
    assert after.equal


def test_repair_without_a_key_inserts_what_is_missing_and_deletes_nothing(tmp_path: pathlib.Path) -> None:
    pair = Pair(
        tmp_path,
        ["CREATE TABLE t (v VARCHAR)", "INSERT INTO t VALUES ('a'), ('a'), ('a'), ('b'), (NULL)"],
        ["CREATE TABLE t (v VARCHAR)", "INSERT INTO t VALUES ('a'), ('c')"],
    )
    with pytest.raises(RefusedError, match="no key by which its extra rows could be deleted"):
        pair.repaired((), delete_extra=True)
    found, touched, after = pair.repaired(())
    assert (found.missing, found.extra, touched) == (4, 1, 4)
    assert (after.missing, after.extra, after.changed) == (0, 1, 0)


def test_repair_value_that_does_not_fit_is_refused_and_nothing_is_lost(tmp_path: pathlib.Path) -> None:
    pair = Pair(
        tmp_path,
        ["CREATE TABLE t (id INTEGER, n INTEGER)", "INSERT INTO t VALUES (1, 300)"],
        ["CREATE TABLE t (id INTEGER, n TINYINT)", "INSERT INTO t VALUES (1, 30)"],
    )
    with pytest.raises(DataError, match=r"table 't', column 'n'.*300"):
        pair.repaired(("id",))
    with duckdb.connect(pair.urls["target"].removeprefix("duckdb:///")) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, 30)]


def test_repair_changed_rows_with_columns_that_were_not_compared_are_refused(tmp_path: pathlib.Path) -> None:
    table = "CREATE TABLE t (id INTEGER, v VARCHAR, note VARCHAR)"
    pair = Pair(
        tmp_path,
        [table, "INSERT INTO t VALUES (1, 'a', 'source'), (2, 'b', 'source')"],
        [table, "INSERT INTO t VALUES (1, 'x', 'precious')"],
    )
    with pytest.raises(RefusedError, match="would lose what stands in note"):
        pair.repaired(("id",), skip=("note",))
    assert pair.repaired(("id",))[2].equal
