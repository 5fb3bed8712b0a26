"""The verify command over several tables, of which some cannot be compared or mended: the others are."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rowferry
from rowferry import ConfigError, RefusedError

SAME = "CREATE TABLE same AS SELECT range id FROM range(10)"
SOURCE = (
    SAME,
    "CREATE TABLE wide AS SELECT 1 id, 'x' more",
    "CREATE TABLE other AS SELECT 1 id, 'x' v",
    "ALTER TABLE other ADD PRIMARY KEY (id)",
    "CREATE TABLE heap AS SELECT range a FROM range(3)",
)
TARGET = (
    SAME,
    "CREATE TABLE wide AS SELECT 1 id, 2 extra_one",
    "CREATE TABLE other AS SELECT 1 id, 'y' v UNION ALL SELECT 2, 'z'",
    "ALTER TABLE other ADD PRIMARY KEY (id)",
    "CREATE TABLE heap AS SELECT range a FROM range(4)",
)


class Ends:
    def __init__(self, folder: pathlib.Path) -> None:
        self.paths = {side: folder / f"{side}.duckdb" for side in ("source", "target")}
        self.source, self.target = (f"duckdb:///{path}" for path in self.paths.values())
        self.folder = folder

    def run(self, side: str, *statements: str) -> list[Any]:
        with duckdb.connect(str(self.paths[side])) as connection:
            rows: list[Any] = []
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            return rows

    def verify(self, **options: Any) -> rowferry.Report:
        return rowferry.verify(self.source, self.target, **options)


@pytest.fixture
def ends(tmp_path: pathlib.Path) -> Ends:
    found = Ends(tmp_path)
    found.run("source", *SOURCE)
    found.run("target", *TARGET)
    return found


def test_one_sided_columns_are_a_difference_and_the_others_are_compared(ends: Ends) -> None:
    report = ends.verify()
    assert (report.exit_code, report.status) == (1, "different")
    tables = {t.source: t for t in report.tables}
    assert set(tables) == {"same", "wide", "other", "heap"}
    assert tables["same"].equal is True
    assert (tables["other"].changed, tables["other"].extra) == (1, 1)
    wide = tables["wide"]
    assert (wide.equal, wide.missing, wide.extra, wide.changed) == (False, None, None, None)
    assert wide.not_compared == ("column 'more' is in the source only", "column 'extra_one' is in the target only")
    assert "column 'more' is in the source only" in (report.error or "")
    assert rowferry.TableReport.from_json(wide.to_json()) == wide


def test_one_sided_columns_left_out_by_policy_are_none(ends: Ends) -> None:
    policies = {"wide.more": "skip", "wide.extra_one": "skip"}
    assert ends.verify(tables=["wide", "same"], policies=policies).equal is True
    assert ends.verify(tables=["wide"], policies={"wide.more": "skip"}).exit_code == 1


def test_every_column_left_out_or_of_another_type_is_said(ends: Ends) -> None:
    (wide,) = ends.verify(tables=["wide"], policies={"wide.*": "skip"}).tables
    assert wide.not_compared == ("no column is left to compare",)


def test_columns_that_cannot_be_compared_are_a_difference_of_their_table(tmp_path: pathlib.Path) -> None:
    for side, values in (("source", [[1]]), ("target", [1])):
        (tmp_path / side).mkdir()
        pq.write_table(pa.table({"a": values}), tmp_path / side / "odd.parquet")
        pq.write_table(pa.table({"a": [1]}), tmp_path / side / "same.parquet")
    odd, same = rowferry.verify(f"parquet:///{tmp_path}/source", f"parquet:///{tmp_path}/target").tables[::-1]
    assert (same.source, same.equal) == ("same", True)
    assert odd.not_compared == ("column 'a': list<element: int64> and int64 cannot be compared",)


def test_one_sided_columns_on_the_command_line(ends: Ends) -> None:
    path = ends.folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "rowferry", "verify", ends.source, ends.target, "--report", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "wide: not compared: column 'more' is in the source only" in done.stdout
    assert 'changed  id="1": v "x" → "y"' in done.stdout
    report = json.loads(path.read_text())
    assert [t["not_compared"] != [] for t in report["tables"]].count(True) == 1


def test_repair_mends_what_can_be_mended_and_leaves_the_rest(ends: Ends) -> None:
    """heap has no key by which its extra row could be deleted, wide has other columns."""
    ends.run("source", "INSERT INTO heap VALUES (7)")
    report = ends.verify(repair=True, delete_extra=True)
    assert report.exit_code == 1
    tables = {t.source: t for t in report.tables}
    assert (tables["other"].equal, tables["other"].repaired) == (True, 2)
    heap = tables["heap"]
    assert (heap.equal, heap.missing, heap.extra, heap.repaired) == (False, 0, 1, 1)
    assert tables["wide"].equal is False
    assert any("table 'heap' has no key by which its 1 extra rows could go" in note for note in report.notes)
    assert ends.run("target", "SELECT * FROM other") == [(1, "x")]
    assert ends.run("target", "SELECT a FROM heap ORDER BY a") == [(0,), (1,), (2,), (3,), (7,)]


def test_repair_of_a_table_without_a_key_inserts_what_is_missing(ends: Ends) -> None:
    ends.run("source", "INSERT INTO heap VALUES (0), (7)")
    report = ends.verify(repair=True, tables=["heap"])
    assert (report.exit_code, report.tables[0].repaired) == (1, 2)
    assert ends.run("target", "SELECT a FROM heap ORDER BY a") == [(0,), (0,), (1,), (2,), (3,), (7,)]


def test_repair_of_several_rows_of_one_key_leaves_them_and_goes_on(ends: Ends) -> None:
    ends.run("source", "CREATE TABLE bare AS SELECT 1 id, 'a' v", "ALTER TABLE bare ADD PRIMARY KEY (id)")
    ends.run("target", "CREATE TABLE bare AS SELECT 1 id, unnest(['b', 'c']) v")
    report = ends.verify(repair=True, tables=["bare", "other"])
    assert any("several rows of the target have one key" in note for note in report.notes)
    assert ends.run("target", "SELECT v FROM other WHERE id = 1") == [("x",)]
    assert ends.run("target", "SELECT count(*) FROM bare") == [(2,)]


def test_nothing_to_compare_is_a_wrong_request(tmp_path: pathlib.Path) -> None:
    ends = Ends(tmp_path)
    ends.run("source", "SELECT 1")
    ends.run("target", SAME)
    with pytest.raises(ConfigError, match="nothing to compare"):
        ends.verify()


def test_repair_before_which_a_trigger_stands_is_refused_whole(ends: Ends) -> None:
    ends.run("target", "CREATE TABLE log (id INTEGER)")
    ends.run("target", "CREATE TRIGGER noted AFTER INSERT ON other FOR EACH STATEMENT INSERT INTO log VALUES (1)")
    with pytest.raises(RefusedError, match="noted"):
        ends.verify(repair=True, delete_extra=True)
    assert ends.run("target", "SELECT v FROM other ORDER BY id") == [("y",), ("z",)]
