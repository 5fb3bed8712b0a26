"""The ledger in MySQL: locks that die with their process, chunks taken once, commits whose answer is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

import mysql_servers
import servers
from adapters import contract
from rowferry import limits
from rowferry.adapters.protocol import Block, Target, WriteRequest
from rowferry.errors import LedgerError, OutcomeUnknownError, TargetError
from rowferry.model import Bound, ChunkRow, ColumnPlan, Comparison, StepRow, TableName

pytestmark = pytest.mark.server


def job_of(target: Target, chunks: int = 1, steps: tuple[StepRow, ...] = ()) -> None:
    target.ledger.open(create=True)
    target.ledger.create_job(contract.job_row(), list(steps), [ChunkRow(0, n, Bound({"n": n})) for n in range(chunks)])


def test_ledger_stands_beside_the_tables_and_is_none_of_them(target: Target, sql: Any) -> None:
    assert not target.ledger.open(create=False)
    assert target.ledger.open(create=True) and target.ledger.open(create=False)
    names = {row[0] for row in sql("SHOW TABLES")}
    assert names == {"rowferry_jobs", "rowferry_steps", "rowferry_chunks"}
    with contextlib.closing(target.as_source()) as source:
        assert source.list_tables() == []


def test_job_with_texts_of_every_kind_comes_back_as_it_was(target: Target) -> None:
    target.ledger.open(create=True)
    job = msgspec.structs.replace(
        contract.job_row(), name="näme '\"`\\ 𝄞", key="k" * 64, plan={"a": ["\\", "'", "\n", "é" * 100_000]}
    )
    steps = [StepRow(0, "create", 0, detail={"x": "'?\\"}), StepRow(1, "keys")]
    chunks = [ChunkRow(0, n, Bound({"low": "a'?\\`", "n": n}), wave=n % 2) for n in range(250)]
    target.ledger.create_job(job, steps, chunks)
    assert target.ledger.jobs() == [job]
    assert target.ledger.steps(job.id) == steps
    assert target.ledger.chunks(job.id) == chunks


# --- the job's lock


def test_lock_is_held_by_one_target_until_it_lets_go(target: Target, url: str) -> None:
    with contract.target_at(url) as other:
        assert target.ledger.lock("job") and not other.ledger.lock("job")
        assert other.ledger.lock("another job")
        target.ledger.unlock("job")
        assert other.ledger.lock("job") and not target.ledger.lock("job")


def test_locks_of_two_databases_are_not_one(target: Target, mysql_database: Callable[[], str]) -> None:
    with contract.target_at(mysql_database()) as other:
        assert target.ledger.lock("job") and other.ledger.lock("job")


def test_lock_of_a_target_that_is_closed_is_free(target: Target, url: str) -> None:
    with contract.target_at(url) as other:
        assert other.ledger.lock("job")
    assert target.ledger.lock("job")


def kill_lock_connection(target: Any, mysql_server: mysql_servers.Mariadb) -> None:
    mysql_server.execute(f"KILL {target._locks._session.id}")


def test_lock_is_taken_again_where_its_connection_was_lost(
    target: Any, url: str, mysql_server: mysql_servers.Mariadb
) -> None:
    job_of(target)
    assert target.ledger.lock("job")
    kill_lock_connection(target, mysql_server)
    with contextlib.closing(target.writer()) as writer, contract.target_at(url) as other:
        assert writer.claim(contract.JOB) is not None
        writer.rollback()
        assert not other.ledger.lock("job")


def test_lock_that_another_process_has_taken_meanwhile_ends_the_job_here(
    target: Any, url: str, mysql_server: mysql_servers.Mariadb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_PATIENCE_S", 0.3)
    job_of(target)
    assert target.ledger.lock("job")
    with contract.target_at(url) as other, contextlib.closing(target.writer()) as writer:
        kill_lock_connection(target, mysql_server)
        for _ in range(100):
            if other.ledger.lock("job"):
                break
            threading.Event().wait(0.02)
        with pytest.raises(LedgerError, match="another process has taken") as caught:
            writer.claim(contract.JOB)
        assert not caught.value.transient
        assert writer.claim(contract.JOB) is not None  # it is no longer this one's to keep
        writer.rollback()


# --- chunks


def test_chunk_is_taken_by_one_writer_and_goes_back_with_its_rollback(target: Target) -> None:
    job_of(target, chunks=3)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(contextlib.closing(target.writer())) for _ in range(4)]
        taken = [writer.claim(contract.JOB) for writer in writers]
        assert [None if c is None else c.number for c in taken] == [0, 1, 2, None]
        assert writers[3].pending(contract.JOB) == 3
        writers[1].rollback()
        writers[3].rollback()
        again = writers[3].claim(contract.JOB)
        assert again is not None and again.number == 1


def test_chunk_of_a_later_wave_waits_for_those_of_the_earlier_one(target: Target) -> None:
    target.ledger.open(create=True)
    chunks = [ChunkRow(0, 0, Bound({}), wave=1), ChunkRow(1, 0, Bound({}), wave=0)]
    target.ledger.create_job(contract.job_row(), [], chunks)
    with contextlib.closing(target.writer()) as a, contextlib.closing(target.writer()) as b:
        first = a.claim(contract.JOB)
        assert first is not None and first.wave == 0
        assert b.claim(contract.JOB) is None
        b.rollback()
        a.finish(contract.JOB, first)
        a.commit()
        second = b.claim(contract.JOB)
        assert second is not None and second.wave == 1


def test_chunks_are_finished_side_by_side_without_deadlock(target: Target) -> None:
    count = 120
    job_of(target, chunks=count)
    done: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with contextlib.closing(target.writer()) as writer:
                while (chunk := writer.claim(contract.JOB)) is not None or writer.pending(contract.JOB):
                    if chunk is not None:
                        writer.finish(contract.JOB, chunk)
                        writer.commit()
                        done.append(chunk.number)
                    else:
                        writer.rollback()
        except BaseException as error:  # noqa: BLE001 - asserted upon below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and sorted(done) == list(range(count))


def test_commit_whose_answer_is_lost_is_unknown_and_the_ledger_knows(
    url: str, mysql_server: mysql_servers.Mariadb
) -> None:
    proxy = servers.Proxy("127.0.0.1", mysql_server.port)
    through = url.replace(f":{mysql_server.port}/", f":{proxy.port}/") + "?ssl-mode=DISABLED"
    with contextlib.closing(proxy), contract.target_at(through) as target:
        job_of(target, chunks=2)
        with contextlib.closing(target.writer()) as writer:
            chunk = writer.claim(contract.JOB)
            assert chunk is not None
            writer.finish(contract.JOB, chunk)
            proxy.cut_at = b"COMMIT"
            with pytest.raises(OutcomeUnknownError) as caught:
                writer.commit()
            assert caught.value.transient and proxy.cuts == 1
            assert writer.is_done(contract.JOB, chunk)


def test_connection_that_is_lost_before_the_commit_leaves_the_chunk_to_be_done(
    target: Target, mysql_server: mysql_servers.Mariadb
) -> None:
    job_of(target)
    with contextlib.closing(target.writer()) as writer:
        chunk = writer.claim(contract.JOB)
        assert chunk is not None
        writer.finish(contract.JOB, chunk)
        mysql_server.execute(f"KILL {writer._session.id}")  # type: ignore[attr-defined]
        with pytest.raises(TargetError) as caught:
            writer.commit()
        assert caught.value.transient
        assert not writer.is_done(contract.JOB, chunk)


# --- steps


def test_step_of_ddl_is_run_again_where_its_mark_was_not_written(target: Target, sql: Any) -> None:
    step = StepRow(0, "create", 0)
    job_of(target, steps=(step,))
    runs = []

    def action() -> dict[str, Any]:
        sql("CREATE TABLE IF NOT EXISTS made (a int)")
        runs.append(1)
        if len(runs) == 1:
            raise TargetError("died here")
        return {"n": 1}

    with pytest.raises(TargetError, match="died here"):
        target.ledger.run_step(contract.JOB, step, action)
    target.ledger.run_step(contract.JOB, step, action)
    target.ledger.run_step(contract.JOB, step, action)
    assert len(runs) == 2
    assert target.ledger.steps(contract.JOB) == [msgspec.structs.replace(step, state="done", detail={"n": 1})]


def test_merge_and_its_mark_are_one_transaction(target: Target, sql: Any) -> None:
    step = StepRow(0, "merge", 0)
    job_of(target, steps=(step,))
    sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CREATE TABLE s (a int)", "INSERT INTO s VALUES (2), (3)")
    table = target.describe(TableName(None, "t"))
    assert table is not None

    def merge(then: Callable[[], None]) -> dict[str, Any]:
        rows = target.merge(TableName(None, "s"), table, ["a"])
        then()
        return {"rows": rows}

    def die() -> None:
        raise TargetError("died here")

    with pytest.raises(TargetError, match="died here"):
        target.ledger.run_step(contract.JOB, step, lambda: merge(die))
    assert sql("SELECT count(*) FROM t") == [(1,)] and sql("SELECT count(*) FROM s") == [(2,)]
    target.ledger.run_step(contract.JOB, step, lambda: merge(lambda: None))
    assert sql("SELECT a FROM t ORDER BY a") == [(1,), (2,), (3,)]
    assert sql("SHOW TABLES LIKE 's'") == []
    assert target.ledger.steps(contract.JOB)[0].detail == {"rows": 2}


def test_finished_job_leaves_no_staging_table_of_its_own(target: Target, sql: Any) -> None:
    target.ledger.open(create=True)
    job = msgspec.structs.replace(contract.job_row(), id="20260101T000000-deadbeef")
    target.ledger.create_job(job, [], [])
    sql("CREATE TABLE rowferry_stage_deadbeef_0 (a int)", "CREATE TABLE rowferry_new_0ther00_1 (a int)")
    target.ledger.finish_job(job.id, {"ok": True})
    left = {row[0] for row in sql("SHOW TABLES LIKE 'rowferry\\_%\\_%\\_%'")}
    assert left == {"rowferry_new_0ther00_1"}
    assert target.ledger.jobs()[0].state == "finished"


def test_binary_log_of_statements_takes_chunks_and_rows_all_the_same(
    url: str, sql: Any, mysql_server: mysql_servers.Mariadb
) -> None:
    """There InnoDB writes nothing under READ COMMITTED, and warns of statements that may not be repeatable."""
    with mysql_server.globals(binlog_format="'STATEMENT'"), contract.target_at(url) as target:
        sql("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, v int UNIQUE)")
        job_of(target, chunks=3)
        table = target.describe(TableName(None, "t"))
        assert table is not None
        columns = tuple(ColumnPlan(c.name, c.type, c.name, c, Comparison(c.type, c.type, "")) for c in table.columns)
        for number in range(3):
            ids = pa.array([number * 2 + 1, number * 2 + 2], pa.int32())
            block = Block(pa.RecordBatch.from_arrays([ids, ids], names=["id", "v"]))
            with contextlib.closing(target.writer()) as writer:
                chunk = writer.claim(contract.JOB)
                assert chunk is not None
                mode, key = ("append", ()) if number == 0 else ("upsert", ("id",))
                assert writer.write(WriteRequest(table, table.name, columns, mode=mode, key=key), [block]) == 2
                writer.finish(contract.JOB, chunk)
                writer.commit()
    assert sql("SELECT count(*), sum(v) FROM t") == [(6, 21)]
