"""Values that the source's reader cannot read, set aside with what stands there: loose ones of SQLite, dates of MySQL
that are none, texts in no character set."""

from __future__ import annotations

import json
import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

import rowferry
from end_to_end import ferry
from end_to_end.test_quarantine import PLACES, Place, Sqlite

ROWS = 2_000
#: id → what stands in ``n``, a column of integers; and of an id whose text is no UTF-8.
LOOSE: dict[int, Any] = {3: "three", 700: 1.5, 1_900: b"\x00\xff"}
NO_UTF8 = 1_200
UNREAD = {*LOOSE, NO_UTF8}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "30000")


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "source.db"
    with sqlite3.connect(path) as c:
        c.execute("create table a (id integer primary key, t text, n integer)")
        c.executemany("insert into a values (?, ?, ?)", ((i, f"r{i}", LOOSE.get(i, i)) for i in range(ROWS)))
        c.execute(f"update a set t = cast(x'41ff42' as text) where id = {NO_UTF8}")
        c.execute("update a set n = null where id = 5")
    c.close()
    return f"sqlite:///{path}"


def copy(source: str, target: str, *more: str) -> list[str]:
    policies = ["--policy", "a.n=quarantine", "--policy", "a.t=quarantine"]
    return ["copy", source, target, "--on-error", "quarantine", "--verify", *policies, *more]


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    place = PLACES[request.param](tmp_path, request)
    place.execute("drop table a")
    place.execute("create table a (id bigint primary key, t varchar(50), n bigint)")
    return place


@pytest.mark.parametrize("workers", ["1", "3"])
def test_loose_values_of_sqlite_are_set_aside_as_they_stand_there(workers: str, source: str, place: Place) -> None:
    run = ferry.run(*copy(source, place.url, "--workers", workers), expect=1)
    table = run.table("a")
    assert (table["rows_read"], table["rows_sent"], table["rows_quarantined"]) == (ROWS, ROWS - 4, 4)
    assert (table["equal"], table["touched"]) == (True, {})
    assert place.ids() == [i for i in range(ROWS) if i not in UNREAD]
    kept = {int(json.loads(row["row_key"])["id"]): row for row in place.kept()}
    assert sorted(kept) == sorted(UNREAD)
    data = {i: json.loads(row["row_data"]) for i, row in kept.items()}
    assert data[3] == {"id": "3", "t": "r3", "n": {"unread": "three"}}
    assert data[700]["n"] == {"unread": "1.5"}
    assert data[1_900]["n"] == {"unread": "\\x00ff"}
    assert data[NO_UTF8] == {"id": str(NO_UTF8), "t": {"unread": "\\x41ff42"}, "n": str(NO_UTF8)}
    assert {row["column_name"] for row in kept.values()} == {"n", "t"}
    assert kept[3]["reason"] == "the source holds a value that is no int64 (value: three)"
    verified = ferry.run("verify", source, place.url, "--table", "a", "--policy", "a.?=quarantine", expect=0)
    assert verified.table("a")["equal"] is True


def test_rows_whose_values_were_mended_in_the_quarantine_land_and_the_others_stay(source: str, place: Place) -> None:
    ferry.run(*copy(source, place.url), expect=1)
    stay = ferry.run("retry-quarantined", place.url, expect=1)
    assert "0 rows landed, 4 stay" in stay.output
    data = json.dumps({"id": "3", "t": "r3", "n": "3"})
    place.execute(f"update {place.quarantine} set row_data = '{data}' where row_key like '%\"3\"%'")
    assert "1 row landed, 3 stay" in ferry.run("retry-quarantined", place.url, expect=1).output
    assert [tuple(row) for row in place.execute("select t, n from a where id = 3")] == [("r3", 3)]
    reasons = {"it is no int64 yet, but what stands in the source", "it is no text yet, but what stands in the source"}
    assert {row["reason"] for row in place.kept()} == reasons


def test_a_copy_killed_while_unread_rows_are_set_aside_has_each_once(source: str, tmp_path: pathlib.Path) -> None:
    for failpoint in ("set aside:2", "marked:2", "committed:1"):
        place = Sqlite(tmp_path, None)
        place.execute("drop table a")
        command = copy(source, place.url, "--workers", "1")
        assert ferry.run(*command, env={"ROWFERRY_FAILPOINT": failpoint}).code == -9
        ferry.run(*command, expect=1)
        assert place.ids() == [i for i in range(ROWS) if i not in UNREAD]
        assert sorted(int(json.loads(row["row_key"])["id"]) for row in place.kept()) == sorted(UNREAD)


def test_unread_rows_of_a_transformed_and_deduplicated_table_are_set_aside_before_it(
    source: str, tmp_path: pathlib.Path
) -> None:
    config = tmp_path / "job.toml"
    config.write_text('[table.a]\nset = { n = "n + 1" }\n[table.a.dedup]\nby = ["t"]\nkeep = "last by id"\n')
    out = tmp_path / "out"
    table = ferry.run(*copy(source, f"parquet:///{out}", "--config", str(config)), expect=1).table("a")
    assert (table["rows_read"], table["rows_sent"], table["rows_quarantined"]) == (ROWS, ROWS - 4, 4)
    assert table["equal"] is True
    rows = pq.read_table(out / "a").to_pylist()
    assert {row["id"]: row["n"] for row in rows} == {
        i: None if i == 5 else i + 1 for i in range(ROWS) if i not in UNREAD
    }
    kept = pq.read_table(out / "_rowferry" / "rowferry_quarantine").to_pylist()
    assert {row["stage"] for row in kept} == {"read"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policy", "a.n=quarantine", "--policy", "a.t=text"], "give it --on-error quarantine"),
        (["--on-error", "quarantine", "--policy", "a.n=null"], "policies to choose from: text, null, quarantine"),
    ],
)
def test_the_policy_without_the_jobs_quarantine_and_the_other_way_round_are_refused(
    more: list[str], said: str, source: str, tmp_path: pathlib.Path
) -> None:
    assert said in ferry.run("copy", source, f"duckdb:///{tmp_path}/t.duckdb", *more, expect=2).output


def test_the_policy_for_a_source_that_reads_all_is_refused(tmp_path: pathlib.Path) -> None:
    place = PLACES["duckdb"](tmp_path, None)
    with pytest.raises(rowferry.ConfigError, match="duckdb reads all"):
        rowferry.copy(
            place.url, f"sqlite:///{tmp_path}/t.db", tables=["a"], policies={"a.n": "quarantine"}, on_error="quarantine"
        )


def test_dates_of_mysql_that_are_none_are_set_aside(
    mysql_server: Any, mysql_database: Callable[[], str], place: Place
) -> None:
    url = mysql_database()
    database = url.rpartition("/")[2].partition("?")[0]
    mysql_server.execute(
        "set session sql_mode = ''",
        "create table a (id bigint primary key, t varchar(50), n bigint, d date, s datetime(3), e enum('x', 'y'), "
        "g varchar(10) character set greek)",
        "insert into a select seq, concat('r', seq), seq, '2020-02-29', '2021-01-02 03:04:05.678', 'x', 'g' "
        "from seq_0_to_499",
        "update a set d = '0000-00-00' where id = 7",
        "update a set s = '2020-00-10 01:02:03' where id = 8",
        "update a set d = '2021-02-00', e = 'nothing' where id = 9",
        "update a set g = cast(x'61ff' as binary) where id = 11",
        database=database,
    )
    place.execute("drop table a")
    policies = ["--policy", "a.[dseg]=quarantine"]
    run = ferry.run("copy", url, place.url, "--table", "a", "--on-error", "quarantine", "--verify", *policies, expect=1)
    table = run.table("a")
    assert (table["rows_sent"], table["rows_quarantined"], table["equal"]) == (496, 4, True)
    assert place.ids() == [i for i in range(500) if i not in (7, 8, 9, 11)]
    data = [json.loads(row["row_data"]) for row in place.kept()]
    data.sort(key=lambda row: int(row["id"]))
    good = {"d": "2020-02-29", "s": "2021-01-02 03:04:05.678", "e": "x", "g": "g"}
    assert [{name: row[name] for name in ("id", *good)} for row in data] == [
        {"id": "7", **good, "d": {"unread": "0000-00-00"}},
        {"id": "8", **good, "s": {"unread": "2020-00-10 01:02:03.000"}},
        {"id": "9", **good, "d": {"unread": "2021-02-00"}, "e": {"unread": ""}},
        {"id": "11", **good, "g": {"unread": "\\x61ff"}},
    ]
    verified = ferry.run("verify", url, place.url, "--table", "a", *policies, expect=0)
    assert verified.table("a")["equal"] is True
