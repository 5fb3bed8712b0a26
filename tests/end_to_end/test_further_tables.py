"""A function that feeds further tables: into folders of files, and where the target refuses their rows."""

from __future__ import annotations

import json
import pathlib
import sqlite3
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from end_to_end import ferry
from end_to_end.test_quarantine import CHECKED, NULL, PLACES, ROWS, TWICE, Place

#: ids that go to the further table ``few``: none of the later chunks has any.
FEW = range(1, 1_800, 2)
_FUNCTIONS = """
import pyarrow as pa
import pyarrow.compute as pc

def twice(batch):
    return [(None, batch), ("a", batch)]

def some(batch):
    ids = batch.column("id")
    few = pc.and_(pc.less(ids, 1800), pc.equal(pc.bit_wise_and(ids, 1), 1))
    return [(None, batch), ("few", batch.filter(few).select(["id", "t"]))]
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "30000")


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "source.db"
    with sqlite3.connect(path) as c:
        c.execute("create table s (id integer primary key, t text, n integer)")
        c.executemany(
            "insert into s values (?, ?, ?)",
            ((i, None if i == NULL else "r100" if i == TWICE else f"r{i}", -1 if i == CHECKED else i) for i in
             range(ROWS)),
        )  # fmt: skip
    c.close()
    return path


def arguments(source: pathlib.Path, target: str, function: str, *more: str) -> list[str]:
    (source.parent / "feeding.py").write_text(_FUNCTIONS)
    config = source.parent / "job.toml"
    config.write_text(f'[table.s]\npython = "feeding:{function}"\npython_keeps_rows = false\n')
    return ["copy", f"sqlite:///{source}", target, "--config", str(config), "--verify", *more]


# --- into files ---------------------------------------------------------------------------------


def ids_in(folder: pathlib.Path, scheme: str) -> list[int]:
    """What any reader of the folder sees, file by file."""
    found: list[int] = []
    for path in folder.glob(f"*.{scheme}"):
        rows = pq.read_table(path) if scheme == "parquet" else pa.ipc.open_file(path).read_all()
        found += rows.column("id").to_pylist()
    return sorted(found)


@pytest.mark.parametrize("scheme", ["parquet", "arrow"])
def test_further_tables_land_in_a_folder_of_files(scheme: str, source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    run = ferry.run(*arguments(source, f"{scheme}:///{out}", "some", "--workers", "2"), expect=0)
    assert run.report is not None
    own, few = run.report["tables"]
    assert own["chunks"] > 3
    assert (own["rows_committed"], own["rows_fed"], few["rows_committed"]) == (ROWS, len(FEW), len(FEW))
    assert own["equal"] is few["equal"] is True
    assert ids_in(out / "s", scheme) == list(range(ROWS))
    assert ids_in(out / "few", scheme) == list(FEW)


@pytest.mark.parametrize("failpoint", ["published beside:1", "published beside:2", "marked:2", "committed:2"])
@pytest.mark.parametrize("scheme", ["parquet", "arrow"])
def test_files_of_a_chunk_that_was_killed_between_two_of_them_land_once(
    scheme: str, failpoint: str, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    copy = arguments(source, f"{scheme}:///{out}", "some", "--workers", "1")
    assert ferry.run(*copy, env={"ROWFERRY_FAILPOINT": failpoint}).code == -9
    if failpoint.startswith("published"):
        # The further table's file has its name already, that of the chunk's own table has not.
        chunks = int(failpoint[-1])
        assert len(list((out / "few").glob(f"part-*.{scheme}"))) == chunks
        assert len(list((out / "s").glob(f"part-*.{scheme}"))) == chunks - 1
    run = ferry.run(*copy, expect=0)
    assert all(table["equal"] for table in (run.report or {})["tables"])
    assert ids_in(out / "s", scheme) == list(range(ROWS))
    assert ids_in(out / "few", scheme) == list(FEW)
    assert not list(out.glob("*/*.tmp"))


@pytest.mark.parametrize(("mode", "times"), [("replace", 1), ("truncate", 1), ("append", 2)])
def test_further_tables_that_stand_already_are_fed_once_in_every_mode(
    mode: str, times: int, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    copy = arguments(source, f"parquet:///{out}", "some", "--workers", "1")
    ferry.run(*copy, expect=0)
    for failpoint in ("published beside:2", "marked:2"):
        assert ferry.run(*copy, "--mode", mode, env={"ROWFERRY_FAILPOINT": failpoint}).code == -9
    run = ferry.run(*copy, "--mode", mode, expect=0)
    assert all(table["equal"] for table in (run.report or {})["tables"])
    assert ids_in(out / "s", "parquet") == sorted([*range(ROWS)] * times)
    assert ids_in(out / "few", "parquet") == sorted([*FEW] * times)
    assert sorted(path.name for path in out.iterdir()) == ["_rowferry", "few", "s"]


def test_a_further_file_of_a_killed_try_goes_where_the_next_try_has_none(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    copy = arguments(source, f"parquet:///{out}", "some", "--workers", "1")
    assert ferry.run(*copy, env={"ROWFERRY_FAILPOINT": "published beside:1"}).code == -9
    assert ids_in(out / "few", "parquet")
    with sqlite3.connect(source) as c:
        c.execute("delete from s where id < 1800")
    c.close()
    run = ferry.run(*copy, expect=0)
    assert [table["rows_committed"] for table in (run.report or {})["tables"]] == [ROWS - 1_800, 0]
    assert ids_in(out / "few", "parquet") == []


# --- rows of further tables that cannot be carried ----------------------------------------------


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    return PLACES[request.param](tmp_path, request)


def check_kept(place: Place, run: ferry.Run | None = None) -> None:
    """All rows are in the chunk's own table; those that the further one refuses are in the quarantine, once."""
    kept = {int(json.loads(row["row_key"])["id"]): row for row in place.kept()}
    twice = ({TWICE, 100} & kept.keys()).pop()
    assert sorted(kept) == sorted([NULL, CHECKED, twice])
    assert len(place.kept()) == 3
    assert place.ids() == [i for i in range(ROWS) if i not in kept]
    assert [tuple(row) for row in place.execute("select count(*), count(distinct id) from s")] == [(ROWS, ROWS)]
    assert {(row["source_table"], row["target_table"]) for row in kept.values()} == {("s", "a")}
    assert (kept[NULL]["stage"], kept[NULL]["column_name"]) == ("passed", "t")
    assert kept[twice]["stage"] == kept[CHECKED]["stage"] == "converted"
    assert json.loads(kept[CHECKED]["row_data"]) == {"id": str(CHECKED), "t": f"r{CHECKED}", "n": "-1"}
    if run is not None:
        own, further = (run.report or {})["tables"]
        assert (own["rows_read"], own["rows_generated"], own["rows_sent"]) == (ROWS, ROWS, ROWS)
        assert (own["rows_fed"], own["rows_quarantined"]) == (ROWS, 0)
        assert (further["rows_sent"], further["rows_committed"], further["rows_quarantined"]) == (ROWS - 3, ROWS - 3, 3)
        assert own["equal"] is further["equal"] is True


def quarantining(source: pathlib.Path, place: Place, *more: str) -> list[str]:
    return arguments(source, place.url, "twice", "--on-error", "quarantine", *more)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_rows_of_a_further_table_that_are_refused_are_set_aside_and_sent_again(
    workers: str, source: pathlib.Path, place: Place
) -> None:
    run = ferry.run(*quarantining(source, place, "--workers", workers), expect=1)
    assert "3 rows were quarantined" in run.output
    check_kept(place, run)
    assert "0 rows landed, 3 stay" in ferry.run("retry-quarantined", place.url, expect=1).output
    check_kept(place)
    place.mend()
    assert "3 rows landed, 0 stay" in ferry.run("retry-quarantined", place.url, expect=0).output
    assert place.ids() == list(range(ROWS))
    assert place.kept() == []


@pytest.mark.parametrize("failpoint", ["refused:1", "set aside:2", "marked:1", "committed:1"])
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_copy_killed_while_a_further_tables_rows_are_set_aside_has_each_once(
    kind: str, failpoint: str, source: pathlib.Path, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[kind](tmp_path, request)
    copy = quarantining(source, place, "--workers", "1")
    assert ferry.run(*copy, env={"ROWFERRY_FAILPOINT": failpoint}).code == -9
    check_kept(place, ferry.run(*copy, expect=1))


def test_rows_of_further_tables_count_for_max_quarantined(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = PLACES["sqlite"](tmp_path, None)
    copy = quarantining(source, place, "--workers", "1")
    stopped = ferry.run(*copy, "--max-quarantined", "2", expect=1)
    assert "more than 2 rows would be quarantined" in stopped.output
    assert len(place.kept()) <= 2
    check_kept(place, ferry.run(*copy, "--max-quarantined", "3", expect=1))


def test_a_further_table_whose_rows_all_fit_beside_one_whose_do_not(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The chunk's own table refuses rows, the further one none; and both together."""
    place = PLACES["duckdb"](tmp_path, None)
    place.execute("create table s (id bigint primary key, t varchar not null, n bigint check (n <> 5))")
    run = ferry.run(*quarantining(source, place, "--workers", "1"), expect=1)
    own, further = (run.report or {})["tables"]
    assert (own["rows_quarantined"], further["rows_quarantined"]) == (2, 3)
    assert (own["rows_sent"], further["rows_sent"], own["rows_fed"]) == (ROWS - 2, ROWS - 3, ROWS)
    kept: dict[str, list[Any]] = {"s": [], "a": []}
    for row in place.kept():
        kept[row["target_table"]].append(int(json.loads(row["row_key"])["id"]))
    assert sorted(kept["s"]) == [5, NULL]
    assert set(kept["a"]) >= {NULL, CHECKED}
