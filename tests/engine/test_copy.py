"""The life of a job, on real DuckDB files: modes, names, policies, conditions, resume."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import duckdb
import pytest

import rowferry
from rowferry import ConfigError, DataError, RefusedError, SourceError


def sql(path: pathlib.Path, *statements: str) -> list[Any]:
    with duckdb.connect(str(path)) as connection:
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


@pytest.fixture
def ends(tmp_path: pathlib.Path) -> Any:
    class Ends:
        source = tmp_path / "source.duckdb"
        target = tmp_path / "target.duckdb"
        source_url = f"duckdb:///{source}"
        target_url = f"duckdb:///{target}"

        def copy(self, **options: Any) -> rowferry.Report:
            return rowferry.copy(self.source_url, self.target_url, **options)

    return Ends()


def test_report_closes_and_digests_agree(ends: Any) -> None:
    sql(ends.source, "create table t as select range id, 'v' || range v from range(1000)")
    report = ends.copy(verify=True)
    (table,) = report.tables
    assert (table.rows_read, table.rows_sent, table.rows_committed) == (1000, 1000, 1000)
    assert table.unclosed() is None
    assert table.digest_read == table.digest_sent == table.digest_target
    assert table.digest_read is not None
    assert table.digest_read.rows == 1000
    assert (table.missing, table.extra, table.changed) == (0, 0, 0)
    assert report.exit_code == 0
    assert report.snapshot is not None


def test_create_into_an_empty_compatible_table_keeps_it(ends: Any) -> None:
    sql(ends.source, "create table t as select 1::integer a, 'x' b")
    sql(ends.target, "create table t (b varchar, a bigint, c integer default 7)")
    ends.copy(verify=True)
    assert sql(ends.target, "select a, b, c from t") == [(1, "x", 7)]


def test_create_refuses_a_full_table_and_leaves_it(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 a")
    sql(ends.target, "create table t as select 2 a")
    with pytest.raises(RefusedError, match="not empty"):
        ends.copy()
    assert sql(ends.target, "select a from t") == [(2,)]


def test_append_adds_and_verifies_only_what_was_added(ends: Any) -> None:
    sql(ends.source, "create table t as select range a from range(10)")
    sql(ends.target, "create table t as select 100 + range a from range(5)")
    report = ends.copy(mode="append", verify=True)
    assert sql(ends.target, "select count(*), sum(a)::int from t") == [(15, 45 + 510)]
    assert report.tables[0].digest_target == report.tables[0].digest_sent


def test_truncate_empties_first(ends: Any) -> None:
    sql(ends.source, "create table t as select range a from range(10)")
    sql(ends.target, "create table t as select 100 a")
    ends.copy(mode="truncate", verify=True)
    assert sql(ends.target, "select count(*), max(a) from t") == [(10, 9)]


def test_replace_takes_the_sources_shape(ends: Any) -> None:
    sql(ends.source, "create table t (a integer primary key, b varchar)", "insert into t values (1, 'x')")
    sql(ends.target, "create table t as select 100 old")
    ends.copy(mode="replace", verify=True)
    assert sql(ends.target, "select a, b from t") == [(1, "x")]
    assert sql(
        ends.target,
        "select count(*) from duckdb_constraints() where constraint_type = 'PRIMARY KEY' and table_name = 't'",
    ) == [(1,)]
    names = [r[0] for r in sql(ends.target, "select table_name from duckdb_tables() order by 1")]
    assert not [n for n in names if n.startswith("rowferry_new")]


def test_upsert_updates_and_inserts_by_key(ends: Any) -> None:
    sql(ends.source, "create table t (k integer primary key, v varchar)", "insert into t values (1, 'new'), (2, 'two')")
    sql(
        ends.target, "create table t (k integer primary key, v varchar)", "insert into t values (1, 'old'), (9, 'nine')"
    )
    ends.copy(mode="upsert", verify=True)
    assert sql(ends.target, "select k, v from t order by k") == [(1, "new"), (2, "two"), (9, "nine")]


def test_upsert_without_a_key_is_refused(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 k")
    sql(ends.target, "create table t as select 1 k")
    with pytest.raises(RefusedError, match="key"):
        ends.copy(mode="upsert")


def test_tables_are_chosen_renamed_and_conditioned(ends: Any) -> None:
    sql(ends.source, "create table t as select range a from range(10)", "create table u as select 1 a")
    report = ends.copy(tables=["t:t_new"], where="a >= 7", verify=True)
    assert [t.target for t in report.tables] == ["t_new"]
    assert sql(ends.target, "select count(*), min(a) from t_new") == [(3, 7)]


@pytest.mark.parametrize("where", ["a < 5) OR (1 = 1", "(a < 5", "a < 5)", "b = 'x", "b = '(') OR (1 = 1"])
def test_a_condition_that_reaches_out_of_its_parentheses_is_refused(ends: Any, where: str) -> None:
    """Beside the bounds of a chunk it would undo them, and every chunk would hold all rows."""
    sql(ends.source, "create table t as select range a, 'x' b from range(10)")
    with pytest.raises(ConfigError, match="do not close"):
        ends.copy(where=where)


def test_a_condition_may_hold_parentheses_and_quotes_in_texts(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, 'x' b from range(10)")
    report = ends.copy(where="(b <> ') OR (1=1' AND b <> 'it''s') AND (a > 7 OR b = '(')")
    assert report.tables[0].rows_committed == 2


def test_one_condition_for_several_tables_is_refused(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 a", "create table u as select 1 a")
    with pytest.raises(ConfigError, match="where"):
        ends.copy(where="a = 1")


def test_unknown_table_names_what_is_near(ends: Any) -> None:
    sql(ends.source, "create table flights as select 1 a")
    with pytest.raises(ConfigError, match="flights"):
        ends.copy(tables=["flight"])


def test_existing_column_is_checked_value_by_value(ends: Any) -> None:
    sql(ends.source, "create table t as select range::bigint a from range(10)")
    sql(ends.target, "create table t (a tinyint)")
    ends.copy()
    sql(ends.source, "insert into t values (300), (301)")
    with pytest.raises(DataError, match=r"column 'a'.*2 rows .*300.*policy null"):
        ends.copy(mode="truncate")
    assert sql(ends.target, "select count(*) from t") == [(0,)]


def test_policy_null_is_counted_in_the_report(ends: Any) -> None:
    sql(ends.source, "create table t as select range::bigint * 50 a from range(10)")
    sql(ends.target, "create table t (a tinyint)")
    report = ends.copy(policies={"t.a": "null"})
    assert report.tables[0].touched == {"a": 7}
    assert sql(ends.target, "select count(a) from t") == [(3,)]


def test_policy_skip_leaves_the_column_out(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 a, 2 b")
    report = ends.copy(policies={"t.b": "skip"})
    assert [c[0] for c in sql(ends.target, "describe t")] == ["a"]
    assert any("'b'" in note for note in report.notes)


def test_null_into_not_null_is_a_data_error(ends: Any) -> None:
    sql(ends.source, "create table t as select null::integer a")
    sql(ends.target, "create table t (a integer not null)")
    with pytest.raises(DataError, match="NULL"):
        ends.copy()


def test_missing_target_column_and_unfilled_not_null_are_refused_together(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 a, 2 b")
    sql(ends.target, "create table t (a integer, c integer not null)")
    with pytest.raises(RefusedError) as error:
        ends.copy()
    assert "'b'" in str(error.value)
    assert "'c'" in str(error.value)


def test_named_job_that_is_finished_copies_nothing(ends: Any) -> None:
    sql(ends.source, "create table t as select 1 a")
    first = ends.copy(job="nightly")
    sql(ends.target, "delete from t")
    again = ends.copy(job="nightly")
    assert again.tables[0].rows_committed == first.tables[0].rows_committed
    assert sql(ends.target, "select count(*) from t") == [(0,)]
    with pytest.raises(ConfigError, match="nightly"):
        ends.copy(job="nightly", mode="append")


def kill(ends: Any, failpoint: str, *more: str) -> None:
    """Runs the copy in a process that dies at a failpoint."""
    code = "import sys; from rowferry.cli import main; main(sys.argv[1:])"
    process = subprocess.run(
        [sys.executable, "-c", code, "copy", ends.source_url, ends.target_url, *more],
        env={**os.environ, "ROWFERRY_FAILPOINT": failpoint, "ROWFERRY_CHUNK_BYTES": "100000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -9, process.stderr


def test_resume_of_an_unchanged_source_keeps_what_is_done(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b from range(20000)")
    kill(ends, "committed:3")
    report = ends.copy(verify=True)
    assert report.tables[0].chunks_taken_over >= 2
    assert sql(ends.target, "select count(*), count(distinct a) from t") == [(20000, 20000)]


def test_report_of_a_resumed_job_holds_the_notes_of_its_plan(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b, 1 c from range(20000)")
    kill(ends, "committed:3", "--policy", "t.c=skip")
    report = ends.copy(policies={"t.c": "skip"})
    assert report.tables[0].chunks_taken_over >= 2
    assert [note for note in report.notes if "column 'c' is left out" in note], report.notes


def test_resume_of_a_changed_source_redoes_tables_split_by_place(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b from range(20000)")
    kill(ends, "committed:3")
    sql(ends.source, "delete from t where a = 5", "insert into t values (30000, 'new')")
    report = ends.copy(verify=True)
    assert report.tables[0].chunks_taken_over == 0
    assert sql(ends.target, "select count(*), max(a), count(*) filter (where a = 5) from t") == [(20000, 30000, 0)]


def test_append_of_a_table_without_key_is_added_once_after_a_kill(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b from range(20000)")
    sql(ends.target, "create table t as select -1::bigint a, '' b")
    kill(ends, "committed:3", "--mode", "append")
    ends.copy(mode="append")
    assert sql(ends.target, "select count(*), count(distinct a) from t") == [(20001, 20001)]


def test_table_altered_since_the_job_began_stops_it_by_name(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b from range(20000)")
    kill(ends, "committed:2")
    sql(ends.source, "alter table t add column c integer")
    with pytest.raises(SourceError, match="altered") as error:
        ends.copy()
    assert error.value.table == "t"


def test_resume_and_jobs_work_by_name(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, repeat('x', 50) b from range(20000)")
    kill(ends, "committed:2", "--job", "night", "--verify")
    (job,) = rowferry.jobs(ends.target_url)
    assert (job.name, job.state) == ("night", "running")
    assert 0 < job.chunks_done < job.chunks
    report = rowferry.resume(ends.target_url, "night")
    assert report.equal
    assert rowferry.jobs(ends.target_url)[0].state == "finished"
    with pytest.raises(ConfigError, match="unfinished"):
        rowferry.resume(ends.target_url)


def test_plan_says_what_copy_would_do_and_writes_nothing(ends: Any) -> None:
    sql(ends.source, "create table t as select range a, 1.5::decimal(10,2) d from range(10)")
    found = rowferry.plan(ends.source_url, ends.target_url)
    assert found.exit_code == 0
    assert [c.source for c in found.tables[0].columns] == ["a", "d"]
    assert not ends.target.exists()
