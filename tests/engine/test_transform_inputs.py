"""What a transform works with beside its config: look-up tables, keys and the job's start, between two runs."""

from __future__ import annotations

import pathlib
import sqlite3
import threading
from typing import Any

import duckdb
import msgspec
import pytest

import rowferry
from rowferry import ConfigError, StoppedError
from rowferry.adapters import registry

ROWS = 4_000
KEY = "0123456789abcdef0123456789abcdef"
SPEC: dict[str, Any] = {
    "rules": [{"columns": ["mail"], "do": "hash", "key_env": "RF_TEST_KEY"}],
    "lookups": [{"file": "areas.csv", "on": {"area": "code"}, "take": {"area_name": "name"}}],
}
AREAS = "code,name\n" + "".join(f"{i},Area {i}\n" for i in range(10))


class Ends:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "areas.csv").write_text(AREAS)
        with sqlite3.connect(folder / "source.db") as c:
            c.execute("create table c (id integer primary key, mail varchar(60), area varchar(9))")
            c.executemany("insert into c values (?, ?, ?)", ((i, f"m{i}@x.org", str(i % 10)) for i in range(ROWS)))
        c.close()

    @property
    def urls(self) -> tuple[str, str]:
        return f"sqlite:///{self.folder / 'source.db'}", f"duckdb:///{self.folder / 'target.duckdb'}"

    def copy(self, spec: dict[str, Any] = SPEC, **options: Any) -> rowferry.Report:
        given = {"specs": {"c": spec}, "folder": str(self.folder), "workers": 1, "chunk_bytes": 20_000}
        return rowferry.copy(*self.urls, **{**given, **options})

    def stop_in_the_middle(self, spec: dict[str, Any] = SPEC, **options: Any) -> None:
        stop = threading.Event()

        def on_event(event: Any) -> None:
            if type(event).__name__ == "ChunkFinished":
                stop.set()

        with pytest.raises(StoppedError):
            self.copy(spec, on_event=on_event, stop=stop, **options)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "target.duckdb"), read_only=True) as c:
            return c.execute(query).fetchall()


@pytest.fixture
def ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    monkeypatch.setattr(
        "rowferry.adapters.duckdb.capabilities",
        msgspec.structs.replace(registry.capabilities("duckdb"), chunk_rows_min=0),
    )
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    return Ends(tmp_path)


def test_resume_with_the_same_inputs_goes_on(ends: Ends) -> None:
    ends.stop_in_the_middle()
    report = ends.copy(verify=True)
    assert report.tables[0].chunks_taken_over
    assert ends.rows("select count(*), count(distinct mail), count(area_name) from c") == [(ROWS, ROWS, ROWS)]


def test_resume_with_another_look_up_table_is_refused_and_writes_nothing(ends: Ends) -> None:
    ends.stop_in_the_middle()
    before = ends.rows("select count(*) from c")
    (ends.folder / "areas.csv").write_text(AREAS.replace("Area 3", "Area drei"))
    with pytest.raises(ConfigError, match=r"look-up table 'areas.csv' is another one than when the job began"):
        ends.copy()
    assert ends.rows("select count(*) from c") == before
    (ends.folder / "areas.csv").write_text(AREAS)
    ends.copy()
    assert ends.rows("select count(*) from c where area_name = 'Area 3'") == [(ROWS // 10,)]


def test_resume_with_another_key_is_refused_and_the_key_stands_nowhere(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.stop_in_the_middle()
    monkeypatch.setenv("RF_TEST_KEY", KEY[::-1])
    with pytest.raises(ConfigError, match="key in RF_TEST_KEY is another one than when the job began") as caught:
        ends.copy()
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    assert KEY[::-1] not in str(caught.value)
    ends.copy()
    (plan,) = ends.rows("select plan::varchar from rowferry_jobs")[0]
    assert "key in RF_TEST_KEY" in plan
    assert KEY not in plan


def test_new_job_takes_a_changed_look_up_table(ends: Ends) -> None:
    ends.copy()
    (ends.folder / "areas.csv").write_text(AREAS.replace("Area 3", "Area drei"))
    ends.copy(mode="truncate")
    assert ends.rows("select count(*) from c where area_name = 'Area drei'") == [(ROWS // 10,)]


STAMPED: dict[str, Any] = {"set": {"loaded_at": "now()", "day": "today()"}}


@pytest.mark.parametrize("spec", [STAMPED, {"set": {"loaded_at": "now() - INTERVAL 1 DAY"}}])
def test_verify_takes_the_start_of_the_job_for_now(ends: Ends, spec: dict[str, Any]) -> None:
    ends.copy(spec)
    report = rowferry.verify(*ends.urls, specs={"c": spec}, folder=str(ends.folder))
    assert report.exit_code == 0
    assert report.tables[0].equal
    assert any("the start of job" in note for note in report.notes)


def test_verify_of_now_takes_the_last_job_and_says_how_many_there_are(ends: Ends) -> None:
    ends.copy(STAMPED)
    ends.copy(STAMPED, mode="truncate")
    report = rowferry.verify(*ends.urls, specs={"c": STAMPED}, folder=str(ends.folder))
    assert report.exit_code == 0
    assert any("the last of 2 by these rules" in note for note in report.notes)


def test_verify_of_now_without_a_job_in_the_ledger_is_refused(ends: Ends) -> None:
    ends.copy(STAMPED)
    other = {"set": {**STAMPED["set"], "more": "1 + id"}}
    with pytest.raises(ConfigError, match="no job that copied this table by these rules"):
        rowferry.verify(*ends.urls, specs={"c": other}, folder=str(ends.folder))
    with duckdb.connect(str(ends.folder / "target.duckdb")) as c:
        for (name,) in c.execute("select table_name from duckdb_tables() where table_name like 'rowferry%'").fetchall():
            c.execute(f"drop table {name}")
    with pytest.raises(ConfigError, match="no job that copied this table by these rules"):
        rowferry.verify(*ends.urls, specs={"c": STAMPED}, folder=str(ends.folder))


def test_verify_without_now_asks_no_ledger(ends: Ends) -> None:
    spec = {"set": {"twice": "id * 2"}}
    ends.copy(spec)
    report = rowferry.verify(*ends.urls, specs={"c": spec}, folder=str(ends.folder))
    assert report.exit_code == 0
    assert not any("start of job" in note for note in report.notes)


def test_retry_takes_a_mended_look_up_table_and_no_other_key(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {**SPEC, "lookups": [{**SPEC["lookups"][0], "missing": "quarantine"}]}
    (ends.folder / "areas.csv").write_text(AREAS.replace("3,Area 3\n", ""))
    report = ends.copy(spec, on_error="quarantine", job="nightly")
    assert report.tables[0].rows_quarantined == ROWS // 10
    (ends.folder / "areas.csv").write_text(AREAS)
    monkeypatch.setenv("RF_TEST_KEY", KEY[::-1])
    rowferry.retry_quarantined(ends.urls[1], "nightly")
    assert ends.rows("select count(*) from c where area = '3'") == [(0,)]
    reasons = ends.rows("select distinct reason from rowferry_quarantine")
    assert any("key in RF_TEST_KEY is another one" in reason for (reason,) in reasons)
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    rowferry.retry_quarantined(ends.urls[1], "nightly")
    assert ends.rows("select count(*), count(distinct mail) from c where area_name = 'Area 3'") == [
        (ROWS // 10, ROWS // 10)
    ]


def test_verify_of_several_tables_finds_the_start_of_each(ends: Ends) -> None:
    with sqlite3.connect(ends.folder / "source.db") as c:
        c.execute("create table d as select * from c")
    c.close()
    later = {"set": {"loaded_at": "now()"}}
    ends.copy(tables=["c"], specs={"c": STAMPED})
    ends.copy(tables=["d"], specs={"d": later})
    report = rowferry.verify(*ends.urls, specs={"c": STAMPED, "d": later}, folder=str(ends.folder))
    assert [t.equal for t in report.tables] == [True, True]
    assert len({note.partition("now() is ")[2] for note in report.notes}) == 2
