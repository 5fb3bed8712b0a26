"""Rows that cannot be carried: set aside with their reason, counted, proven around, sent again; kill -9 in between."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import rowferry
import servers
from end_to_end import ferry

ROWS = 3_000
#: id → what is wrong with it, in every target of these tests: a NULL, a text that is there already, a CHECK, a text
#: that is too long.
NULL, TWICE, CHECKED = 17, 2_900, 777
BAD = {NULL, TWICE, CHECKED}
_FIELDS = "row_key, column_name, reason, row_data, source_table, target_table, chunk, stage, job"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "30000")


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "source.db"
    with sqlite3.connect(path) as c:
        c.execute("create table a (id integer primary key, t text, n integer)")
        c.executemany(
            "insert into a values (?, ?, ?)",
            ((i, None if i == NULL else "r100" if i == TWICE else f"r{i}", -1 if i == CHECKED else i) for i in
             range(ROWS)),
        )  # fmt: skip
    c.close()
    return f"sqlite:///{path}"


class Place:
    """A target whose table refuses the bad rows, and what a test asks of it."""

    url: str

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def mend(self) -> None:
        """Does away with the rules that kept rows back."""
        raise NotImplementedError

    def fresh(self) -> None:
        """An empty table, and no ledger."""
        raise NotImplementedError

    def kept(self) -> list[dict[str, Any]]:
        rows = self.execute(f"select {_FIELDS} from {self.quarantine} order by row_key")
        return [dict(zip(_FIELDS.split(", "), row, strict=True)) for row in rows]

    quarantine = "rowferry_quarantine"

    def ids(self) -> list[int]:
        return [int(row[0]) for row in self.execute("select id from a order by id")]


_COLUMNS = "id bigint primary key, t varchar(50) not null, n bigint"


class Sqlite(Place):
    def __init__(self, folder: pathlib.Path, request: Any) -> None:
        self.path = folder / "target.db"
        self.url = f"sqlite:///{self.path}"
        self.fresh()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as c:
            rows = c.execute(sql).fetchall()
        c.close()
        return rows

    def fresh(self) -> None:
        for path in self.path.parent.glob("target.db*"):
            path.unlink()
        self.execute("create table a (id integer primary key, t text not null, n integer, unique (t), check (n >= 0))")

    def mend(self) -> None:
        self.execute("create table b (id integer primary key, t text, n integer)")
        self.execute("insert into b select * from a")
        self.execute("drop table a")
        self.execute("alter table b rename to a")


class Duckdb(Place):
    def __init__(self, folder: pathlib.Path, request: Any) -> None:
        self.path = folder / "target.duckdb"
        self.url = f"duckdb:///{self.path}"
        self.fresh()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path)) as c:
            return c.execute(sql).fetchall()

    def fresh(self) -> None:
        for path in self.path.parent.glob("target.duckdb*"):
            path.unlink()
        self.execute(f"create table a ({_COLUMNS}, unique (t), check (n >= 0))")

    def mend(self) -> None:
        self.execute("create table b as select * from a")
        self.execute("drop table a")
        self.execute("alter table b rename to a")


class Postgres(Place):
    quarantine = "rowferry.rowferry_quarantine"

    def __init__(self, folder: pathlib.Path, request: Any) -> None:
        self.server = request.getfixturevalue("postgres_server")
        self.url = request.getfixturevalue("postgres_database")()
        self.fresh()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as c:
            cursor = c.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def fresh(self) -> None:
        self.execute("drop schema if exists rowferry cascade; drop table if exists a")
        self.execute(f"create table a ({_COLUMNS}, unique (t) deferrable initially deferred, check (n >= 0))")

    def mend(self) -> None:
        self.execute("alter table a drop constraint a_t_key, drop constraint a_n_check, alter t drop not null")


class Mysql(Place):
    def __init__(self, folder: pathlib.Path, request: Any) -> None:
        self.server = request.getfixturevalue("mysql_server")
        self.url = request.getfixturevalue("mysql_database")()
        self.database = self.url.rpartition("/")[2].partition("?")[0]
        self.fresh()

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.server.execute(sql, database=self.database)
        return list(rows)

    def fresh(self) -> None:
        self.server.execute(*(f"drop table if exists {t}" for t in (
            "a", "rowferry_quarantine", "rowferry_chunks", "rowferry_steps", "rowferry_jobs", "rowferry_columns",
        )), database=self.database)  # fmt: skip
        self.execute(f"create table a ({_COLUMNS}, unique key t (t), constraint positive check (n >= 0))")

    def mend(self) -> None:
        self.execute("alter table a drop constraint positive, drop index t, modify t varchar(50) null")


PLACES: dict[str, Callable[[pathlib.Path, Any], Place]] = {
    "sqlite": Sqlite, "duckdb": Duckdb, "postgres": Postgres, "mysql": Mysql,
}  # fmt: skip


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    return PLACES[request.param](tmp_path, request)


def arguments(source: str, place: Place) -> list[str]:
    return ["copy", source, place.url, "--on-error", "quarantine", "--verify", "--workers", "2"]


def check_kept(place: Place) -> None:
    """All rows but the bad ones are there, once; the bad ones are in the quarantine, once, with all that they were."""
    ids = place.ids()
    kept = {int(json.loads(row["row_key"])["id"]): row for row in place.kept()}
    assert len(kept) == len(place.kept()) == 3
    # Of two rows with one text the first that came stands; under two workers that may be either.
    twice = ({TWICE, 100} & kept.keys()).pop()
    assert set(kept) == {NULL, CHECKED, twice}
    assert ids == [i for i in range(ROWS) if i not in kept]
    texts = {NULL: None, CHECKED: f"r{CHECKED}", twice: "r100"}
    for key, row in kept.items():
        assert json.loads(row["row_data"]) == {
            "id": str(key),
            "t": texts[key],
            "n": "-1" if key == CHECKED else str(key),
        }
        assert row["source_table"] == row["target_table"] == "a"
        assert row["job"]
        assert row["reason"].isascii()
    assert kept[NULL]["column_name"] == "t"
    assert "NOT NULL" in kept[NULL]["reason"]
    assert kept[NULL]["stage"] == "passed"
    assert kept[twice]["stage"] == "converted"


def test_copy_with_quarantine_keeps_bad_rows_and_the_target_is_what_was_sent(source: str, place: Place) -> None:
    run = ferry.run(*arguments(source, place), expect=1)
    table = run.table("a")
    assert (table["rows_read"], table["rows_sent"], table["rows_quarantined"]) == (ROWS, ROWS - 3, 3)
    assert table["rows_committed"] == ROWS - 3
    assert table["equal"] is True
    assert run.report is not None
    assert (run.report["status"], run.report["exit_code"]) == ("quarantined", 1)
    assert "3 quarantined" in run.output
    assert "retry-quarantined" in run.output
    assert table["chunks"] > 1
    check_kept(place)


def test_retry_after_mending_lands_all_rows_once(source: str, place: Place) -> None:
    ferry.run(*arguments(source, place), expect=1)
    stay = ferry.run("retry-quarantined", place.url, expect=1)
    assert "0 rows landed, 3 stay" in stay.output
    check_kept(place)
    place.mend()
    gone = ferry.run("retry-quarantined", place.url, expect=0)
    assert "3 rows landed, 0 stay" in gone.output
    assert place.ids() == list(range(ROWS))
    assert place.kept() == []
    assert "is empty" in ferry.run("retry-quarantined", place.url, expect=0).output
    assert ferry.run("verify", source, place.url, "--table", "a", expect=0).table("a")["equal"] is True


def test_retry_of_rows_of_which_some_still_do_not_fit_keeps_those_with_their_new_reason(
    source: str, tmp_path: pathlib.Path
) -> None:
    place = Sqlite(tmp_path, None)
    ferry.run(*arguments(source, place), expect=1)
    place.execute("update a set t = 'another' where t = 'r100'")
    report = rowferry.retry_quarantined(place.url)
    assert report.exit_code == 1
    assert [(t.rows_read, t.rows_committed, t.rows_quarantined) for t in report.tables] == [(3, 1, 2)]
    assert sorted(json.loads(r["row_key"])["id"] for r in place.kept()) == [str(NULL), str(CHECKED)]
    assert [row["column_name"] for row in place.kept() if "NOT NULL" in row["reason"]] == ["t"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "duckdb"])
def test_copy_killed_at_its_places_sets_each_row_aside_once(
    kind: str, source: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[kind](tmp_path, request)
    for failpoint in ("after quarantine:1", "refused:1", "set aside:2", "marked:3", "committed:2", "proven:1"):
        place.fresh()
        killed = ferry.run(*arguments(source, place), env={"ROWFERRY_FAILPOINT": failpoint})
        assert killed.code == -signal.SIGKILL, (failpoint, killed.output)
        again = ferry.run(*arguments(source, place), expect=1)
        assert again.table("a")["rows_quarantined"] == 3, failpoint
        check_kept(place)


@pytest.mark.parametrize("kind", list(PLACES))
def test_retry_killed_before_and_after_its_commit_lands_each_row_once(
    kind: str, source: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[kind](tmp_path, request)
    for failpoint in ("retry loaded:1", "retry settled:1", "retry committed:1"):
        place.fresh()
        ferry.run(*arguments(source, place), expect=1)
        place.mend()
        killed = ferry.run("retry-quarantined", place.url, env={"ROWFERRY_FAILPOINT": failpoint})
        assert killed.code == -signal.SIGKILL, (failpoint, killed.output)
        ferry.run("retry-quarantined", place.url, expect=0)
        assert place.ids() == list(range(ROWS)), failpoint
        assert place.kept() == []


def test_more_rows_than_max_quarantined_stop_the_job_which_goes_on_with_more(source: str, place: Place) -> None:
    stopped = ferry.run(*arguments(source, place), "--max-quarantined", "1", expect=1)
    assert "more than 1 rows would be quarantined" in stopped.output
    assert "--max-quarantined" in stopped.output
    assert len(place.kept()) <= 1
    ferry.run(*arguments(source, place), "--max-quarantined", "3", expect=1)
    check_kept(place)


def test_resume_by_name_goes_on_with_the_quarantine(source: str, tmp_path: pathlib.Path) -> None:
    place = Sqlite(tmp_path, None)
    ferry.run(*arguments(source, place), "--max-quarantined", "0", expect=1)
    assert place.kept() == []
    ferry.run("resume", place.url, "--max-quarantined", "10", expect=1)
    check_kept(place)


def test_without_on_error_the_first_bad_row_stops_the_copy_and_nothing_is_made(source: str, place: Place) -> None:
    run = ferry.run("copy", source, place.url, expect=1)
    assert "table 'a', chunk" in run.output
    with pytest.raises(Exception, match=r"(?i)no such table|does not exist|doesn't exist|exist"):
        place.kept()


def test_upsert_with_quarantine_is_proven_by_the_keys_of_what_was_set_aside(source: str, place: Place) -> None:
    place.execute("insert into a values (5, 'old', 5)")
    run = ferry.run(*arguments(source, place), "--mode", "upsert", expect=1)
    assert run.report is not None
    assert run.report["status"] == "quarantined", run.output
    assert run.table("a")["equal"] is True
    check_kept(place)


# --- what only a server refuses --------------------------------------------------------------------


def test_postgres_to_postgres_rows_that_triggers_foreign_keys_and_enums_refuse(
    postgres_database: Callable[[], str],
) -> None:
    source, target = postgres_database(), postgres_database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("create table a (id bigint primary key, kind text, parent int, note text, n numeric)")
        c.execute(
            "insert into a select g, 'good', g % 3, 'note ' || g, g * 1.5 from generate_series(1, 2000) g; "
            "update a set kind = 'unknown' where id = 10; update a set parent = 9 where id = 20; "
            "update a set note = 'boom' where id = 30; "
            "update a set note = (select string_agg(md5(i::text), '') from generate_series(1, 300) i) where id = 40"
        )
    with psycopg.connect(target, autocommit=True) as c:
        c.execute("create type kinds as enum ('good', 'bad')")
        c.execute("create table parents (id int primary key); insert into parents values (0), (1), (2)")
        c.execute(
            "create table a (id bigint primary key, kind kinds, parent int references parents "
            "deferrable initially deferred, note text, n numeric); create index on a (note)"
        )
        c.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin if new.note = 'boom' then "
            "raise exception 'a boom' using errcode = 'U0001'; end if; return new; end $$"
        )
        c.execute("create trigger refuse before insert on a for each row execute function refuse()")
    options = ["--table", "a", "--on-error", "quarantine", "--target-triggers", "fire", "--verify"]
    run = ferry.run("copy", source, target, *options, expect=1)
    assert run.table("a")["equal"] is True
    with psycopg.connect(target, autocommit=True) as c:
        found = dict(
            c.execute("select (row_key::json->>'id')::int, reason from rowferry.rowferry_quarantine").fetchall()
        )
        assert set(found) == {10, 20, 30, 40}, found
        assert "enum" in found[10] or "kinds" in found[10]
        assert "foreign key" in found[20]
        assert "a boom" in found[30]
        assert "index row" in found[40]
        c.execute("insert into parents values (9)")
        c.execute("drop trigger refuse on a; alter type kinds add value 'unknown'; drop index a_note_idx")
        ferry.run("retry-quarantined", target, expect=0)
        assert c.execute("select count(*) from a").fetchone() == (2000,)
        assert c.execute("select n::text from a where id = 20").fetchone() == ("30.0",)


def test_mysql_signals_and_texts_that_are_too_long_are_set_aside(
    mysql_server: Any, mysql_database: Callable[[], str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as c:
        c.execute("create table a (id integer primary key, t text)")
        c.executemany("insert into a values (?, ?)", ((i, "x" * 80 if i == 5 else f"r{i}") for i in range(500)))
        c.execute("update a set t = 'boom' where id = 400")
    c.close()
    url = mysql_database()
    database = url.rpartition("/")[2].partition("?")[0]
    mysql_server.execute(
        "create table a (id bigint primary key, t varchar(50))",
        "create trigger boom before insert on a for each row if new.t = 'boom' then signal sqlstate '45000' "
        "set message_text = 'a boom'; end if",
        database=database,
    )
    run = ferry.run(
        "copy", f"sqlite:///{path}", url, "--on-error", "quarantine", "--target-triggers", "fire", "--verify", expect=1
    )
    assert run.table("a")["rows_quarantined"] == 2
    rows = mysql_server.execute("select row_key, reason from rowferry_quarantine order by row_key", database=database)
    assert [json.loads(key)["id"] for key, _ in rows] == ["400", "5"]
    assert "a boom" in rows[0][1]


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture
def infinities(postgres_database: Callable[[], str]) -> str:
    url = postgres_database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("create table a (id bigint primary key, at timestamp, b bytea)")
        c.execute(
            "insert into a select g, case when g % 500 = 7 then 'infinity' else timestamp '2024-01-01' + g * "
            "interval '1 s' end, '\\x00ff' from generate_series(1, 2000) g"
        )
    return url


@pytest.mark.parametrize("scheme", ["parquet", "arrow"])
def test_files_keep_their_quarantine_among_rowferrys_own(scheme: str, infinities: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "out"
    url = f"{scheme}:///{folder}"
    run = ferry.run("copy", infinities, url, "--on-error", "quarantine", "--verify", expect=1)
    table = run.table("a")
    assert (table["rows_quarantined"], table["equal"]) == (4, True)
    assert table["chunks"] > 1
    ferry.run("retry-quarantined", url, expect=1)
    rows = _files_quarantine(folder, scheme)
    assert sorted(json.loads(r["row_data"])["id"] for r in rows) == ["1007", "1507", "507", "7"]
    assert all(json.loads(r["row_data"])["at"] == "infinity" for r in rows)
    assert all(json.loads(r["row_data"])["b"] == "AP8=" for r in rows)
    # They are no table of the folder.
    assert [str(t.source) for t in rowferry.plan(url, f"duckdb:///{tmp_path}/x.duckdb").tables] == ["a"]


def _files_quarantine(folder: pathlib.Path, scheme: str) -> list[dict[str, Any]]:
    place = folder / "_rowferry" / "rowferry_quarantine"
    if scheme == "parquet":
        return [r for p in sorted(place.glob("*.parquet")) for r in pq.read_table(p).to_pylist()]
    return [r for p in sorted(place.glob("*.arrow")) for r in pa.ipc.open_file(p).read_all().to_pylist()]


@pytest.mark.parametrize("failpoint", ["set aside:2", "marked:2", "committed:1"])
def test_files_copy_killed_sets_each_row_aside_once(failpoint: str, infinities: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "out"
    command = ["copy", infinities, f"parquet:///{folder}", "--on-error", "quarantine", "--verify"]
    assert ferry.run(*command, env={"ROWFERRY_FAILPOINT": failpoint}).code == -signal.SIGKILL
    ferry.run(*command, expect=1)
    assert len(_files_quarantine(folder, "parquet")) == 4
    assert sorted(pq.read_table(folder / "a").column("id").to_pylist()) == [i for i in range(1, 2001) if i % 500 != 7]


@pytest.mark.parametrize("failpoint", ["retry loaded:1", "journalled:1", "retry committed:1"])
def test_files_retry_killed_lands_each_row_once(failpoint: str, infinities: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "out"
    url = f"parquet:///{folder}"
    ferry.run("copy", infinities, url, "--on-error", "quarantine", expect=1)
    _rewrite_as_finite(folder)
    killed = ferry.run("retry-quarantined", url, env={"ROWFERRY_FAILPOINT": failpoint})
    assert killed.code == -signal.SIGKILL, killed.output
    ferry.run("retry-quarantined", url, expect=0)
    assert sorted(pq.read_table(folder / "a").column("id").to_pylist()) == list(range(1, 2001))
    assert _files_quarantine(folder, "parquet") == []
    assert not list(folder.rglob("*.tmp"))


def _rewrite_as_finite(folder: pathlib.Path) -> None:
    """What a user may do to mend a value: change it where it is kept."""
    for path in (folder / "_rowferry" / "rowferry_quarantine").glob("part-*.parquet"):
        table = pq.read_table(path)
        at = table.schema.get_field_index("row_data")
        mended = pc.replace_substring(table.column(at), '"infinity"', '"2030-01-01 00:00:00"')
        pq.write_table(table.set_column(at, table.schema.field(at), mended), path)


# --- requests that are wrong, and secrets -----------------------------------------------------------


def test_retry_of_a_job_that_is_not_there_or_not_finished_is_refused(source: str, tmp_path: pathlib.Path) -> None:
    place = Sqlite(tmp_path, None)
    ferry.run(*arguments(source, place), "--max-quarantined", "1", "--job", "mine", expect=1)
    assert "no job 'other'" in ferry.run("retry-quarantined", place.url, "other", expect=2).output
    assert "not finished" in ferry.run("retry-quarantined", place.url, "mine", expect=2).output


def test_a_rule_that_quarantines_without_the_jobs_quarantine_is_refused(source: str, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "job.toml"
    config.write_text('[table.a]\ncast = { t = { to = "int32", on_error = "quarantine" } }\n')
    run = ferry.run("copy", source, f"duckdb:///{tmp_path}/t.duckdb", "--config", str(config), expect=2)
    assert "--on-error quarantine" in run.output
    assert not os.path.exists(tmp_path / "t.duckdb")


def test_a_transforms_refused_rows_are_kept_as_the_source_gave_them_and_sent_through_it_again(
    source: str, tmp_path: pathlib.Path
) -> None:
    config, names = tmp_path / "job.toml", tmp_path / "names.csv"
    names.write_text("n,name\n" + "".join(f"{i},name {i}\n" for i in range(ROWS) if i != 50) + "-1,minus\n")
    config.write_text(
        'on_error = "quarantine"\n[table.a]\nwhere = "id % 2 = 0"\n[[table.a.lookups]]\n'
        f'file = "{names}"\non = {{ n = "n" }}\ntake = {{ name = "name" }}\nmissing = "quarantine"\n'
    )
    target = f"duckdb:///{tmp_path}/t.duckdb"
    run = ferry.run("copy", source, target, "--config", str(config), "--verify")
    table = run.table("a")
    assert (table["rows_quarantined"], table["rows_sent"]) == (1, ROWS // 2 - 1), run.output
    assert run.code == 1
    with duckdb.connect(f"{tmp_path}/t.duckdb") as c:
        rows = c.execute("select row_data, stage from rowferry_quarantine").fetchall()
    assert [(json.loads(data)["id"], stage) for data, stage in rows] == [("50", "read")]
    verified = ferry.run("verify", source, target, "--config", str(config), expect=0)
    assert "rows of the source that the job sets aside were not compared: 1" in verified.output
    ferry.run("retry-quarantined", target, expect=1)
    names.write_text(names.read_text() + "50,late\n")
    ferry.run("retry-quarantined", target, expect=0)
    verified = ferry.run("verify", source, target, "--config", str(config), expect=0)
    assert "not compared" not in verified.output
    with duckdb.connect(f"{tmp_path}/t.duckdb") as c:
        assert c.execute("select name from a where id = 50").fetchall() == [("late",)]
        assert c.execute("select count(*) from a").fetchall() == [(ROWS // 2,)]


def test_passwords_are_in_no_output_and_not_in_the_quarantine(source: str, request: pytest.FixtureRequest,
                                                              tmp_path: pathlib.Path) -> None:  # fmt: skip
    place = Postgres(tmp_path, request)
    assert servers.CANARY in place.url
    said = ferry.run(*arguments(source, place), expect=1).output
    said += ferry.run("retry-quarantined", place.url, expect=1).output
    assert servers.CANARY not in said
    assert servers.CANARY not in str(place.execute(f"select * from {place.quarantine}"))


# --- sent again, of a table of which one of several like rows is kept ---------------------------

#: Key k of each row; of these ids the text is NULL, which the target refuses: one whose key another row has (which
#: lands), two that have one key between them, and one alone. TWO_REFUSED's key is that of a row that a CHECK refuses.
HAS_ANOTHER, FIRST_OF_TWO, SECOND_OF_TWO, ALONE, CHECK_REFUSED = 10, 20, 21, 30, 40


@pytest.fixture
def repeated(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "repeated.db"
    keys = {HAS_ANOTHER: 11, SECOND_OF_TWO: FIRST_OF_TWO, 41: CHECK_REFUSED}
    nulls = {HAS_ANOTHER, FIRST_OF_TWO, SECOND_OF_TWO, ALONE}
    with sqlite3.connect(path) as c:
        c.execute("create table a (id integer primary key, k integer, t text, n integer)")
        c.executemany(
            "insert into a values (?, ?, ?, ?)",
            ((i, keys.get(i, i), None if i in nulls else f"r{i}", -1 if i == CHECK_REFUSED else i) for i in range(100)),
        )
    c.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("kind", list(PLACES))
def test_rows_that_are_sent_again_are_left_out_where_one_of_their_key_has_landed(
    kind: str, repeated: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[kind](tmp_path, request)
    place.execute("drop table a")
    place.execute("create table a (id bigint, k bigint, t varchar(50) not null, n bigint check (n >= 0))")
    config = tmp_path / "job.toml"
    config.write_text('[table.a.dedup]\nby = ["k"]\n')
    copy = [*arguments(repeated, place)[:-1], "1", "--config", str(config)]
    table = ferry.run(*copy, expect=1).table("a")
    # 41 was left out for the row that the CHECK refused: it had claimed their key.
    assert (table["rows_quarantined"], table["rows_deduplicated"]) == (5, 1)
    assert "0 rows landed" in ferry.run("retry-quarantined", place.url, expect=1).output
    assert len(place.kept()) == 5
    place.execute("create table b as select * from a")
    place.execute("drop table a")
    place.execute("alter table b rename to a")
    if kind in ("mysql",):
        place.execute("alter table a modify t varchar(50) null")
    report = rowferry.retry_quarantined(place.url)
    assert report.exit_code == 0
    assert [(t.rows_read, t.rows_committed, t.rows_deduplicated) for t in report.tables] == [(5, 3, 2)]
    assert place.kept() == []
    kept = [i for i in range(100) if i not in (HAS_ANOTHER, SECOND_OF_TWO, 41)]
    assert sorted(place.ids()) in (kept, sorted({*kept, SECOND_OF_TWO} - {FIRST_OF_TWO}))
    assert [tuple(row) for row in place.execute("select count(distinct k) from a")] == [(97,)]


def test_a_row_that_a_transform_had_set_aside_is_left_out_where_one_of_its_key_has_landed(
    repeated: str, tmp_path: pathlib.Path
) -> None:
    place = Sqlite(tmp_path, None)
    place.execute("drop table a")
    config = tmp_path / "job.toml"
    config.write_text(
        '[table.a]\ncast = { t = { to = "int64", on_error = "quarantine" } }\n'
        "where = \"t IS NULL OR t NOT IN ('r1', 'r2')\"\nset = { t = \"substr(t, CASE WHEN id IN (50, 51, 52) THEN 1 "
        'ELSE 2 END)" }\n[table.a.dedup]\nby = ["k"]\n'
    )
    copy = [*arguments(repeated, place)[:-1], "1", "--config", str(config)]
    assert ferry.run(*copy, expect=1).table("a")["rows_quarantined"] == 3
    # One of them is a row like another that has landed, and one stays as it is.
    for i, (k, t) in {50: ("7", "r50x"), 51: ("51", "r51"), 52: ("52", "x52")}.items():
        data = json.dumps({"id": str(i), "k": k, "t": "r9" if i == 51 else t, "n": "1"})
        place.execute(f"update {place.quarantine} set row_data = '{data}' where row_key like '%\"{i}\"%'")
    report = rowferry.retry_quarantined(place.url)
    assert [(t.rows_read, t.rows_committed, t.rows_quarantined) for t in report.tables] == [(3, 0, 3)]


@pytest.mark.parametrize(("mode", "against_target", "left_out"), [("append", False, 0), ("append", True, 1)])
def test_rows_that_are_sent_again_after_an_append_are_held_against_what_the_copy_was(
    mode: str, against_target: bool, left_out: int, repeated: str, tmp_path: pathlib.Path
) -> None:
    place = Sqlite(tmp_path, None)
    place.execute("drop table a")
    place.execute("create table a (id integer, k integer, t text not null, n integer)")
    place.execute(f"insert into a values (1000, {ALONE}, 'before', 1)")
    config = tmp_path / "job.toml"
    config.write_text(f'[table.a.dedup]\nby = ["k"]\nagainst_target = {str(against_target).lower()}\n')
    ferry.run(
        *arguments(repeated, place), "--config", str(config), "--mode", mode, "--where", f"id = {ALONE}", expect=1
    )
    place.execute("create table b as select * from a")
    place.execute("drop table a")
    place.execute("alter table b rename to a")
    report = rowferry.retry_quarantined(place.url)
    assert [(t.rows_read, t.rows_committed, t.rows_deduplicated) for t in report.tables] == [
        (1, 1 - left_out, left_out)
    ]
