"""One suite, every adapter: what ``adapters/protocol.py`` promises, on real engines.

Rows go in and out by a plain driver (``quirks.py``), so that an adapter's reader is not judged by
its own writer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from adapters import contract
from adapters.contract import JOB, Ferry
from adapters.quirks import ODD_NAMES, QUIRKS, Parquet, Quirks, make_quirks
from rowferry import convert
from rowferry.adapters.protocol import WINNERS, Block, WriteRequest
from rowferry.errors import DataError, RowferryError, SourceError
from rowferry.model import Column, ColumnPlan, Comparison, Refusal, StepRow, Table, TableName
from rowferry.types import Type

SRC = pathlib.Path(__file__).resolve().parents[2] / "src"


def people(rows: int = 100, start: int = 0) -> pa.Table:
    """Rows of a bigint key, a text with traps in it, and a double."""
    texts = ["plain", "", 'quo\'te "x"', "new\nline\tand tab", "é€𝄞🚢", "back\\slash", "\\N", None]
    ids = list(range(start, start + rows))
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "name": pa.array([texts[i % len(texts)] for i in ids], pa.string()),
            "score": pa.array([None if i % 7 == 3 else i / 4 for i in ids], pa.float64()),
        },
        schema=pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("score", pa.float64())]),
    )


def tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


def wide(rows: int) -> pa.Table:
    """Rows of about 1 kB."""
    return pa.table({"id": pa.array(range(rows), pa.int64()), "text": [f"{i:0>1000}" for i in range(rows)]})


# --- source ---------------------------------------------------------------------------------


def test_list_tables_of_an_empty_database_is_empty(engine: Quirks) -> None:
    url = engine.url()
    if not isinstance(engine, Parquet):
        engine.execute(url, "CREATE TABLE gone (a INTEGER)", "DROP TABLE gone")
    with contract.source_at(url) as source:
        assert source.list_tables() == []
        assert source.list_views() == []


def test_list_tables_gives_all_in_name_order_without_our_own(engine: Quirks) -> None:
    url = engine.url()
    for name in ("zebra", "ant", "Mule"):
        engine.load(url, name, people(3))
    with contract.target_at(url) as target:
        assert target.ledger.open(create=True)
    with contract.source_at(url) as source:
        found = source.list_tables()
    assert sorted(str(n) for n in found) == ["Mule", "ant", "zebra"]
    assert found == sorted(found, key=lambda n: (n.schema or "", n.name))


def test_describe_missing_table_is_none(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(3))
    with contract.source_at(url) as source:
        assert source.describe(TableName(None, "nope")) is None
        assert source.describe(TableName("noschema", "t")) is None


def test_describe_says_columns_and_key(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(10), key=["id"])
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
    assert [c.name for c in table.columns] == ["id", "name", "score"]
    assert [c.type.kind for c in table.columns] == ["int64", "text", "float64"]
    assert all(c.type in c.forms for c in table.columns)
    assert all(c.refusal is None for c in table.columns)
    assert not table.column("id").nullable
    assert table.column("name").nullable
    assert table.fingerprint
    if engine.keys:
        assert table.primary_key == ("id",)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_listed_described_and_read(engine: Quirks, name: str) -> None:
    url, name = engine.url(), engine.possible(name)
    table = people(5).rename_columns(["id", name, "score"])
    engine.load(url, name, table)
    with contract.source_at(url) as source:
        assert source.list_tables() == [TableName(None, name)]
        assert [c.name for c in contract.described(source, name).columns] == ["id", name, "score"]
    assert contract.read_all(url, name) == tuples(table)


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_read_gives_every_row_as_it_was_loaded(engine: Quirks, rows: int) -> None:
    url = engine.url()
    engine.load(url, "t", people(rows))
    assert contract.read_all(url, "t") == tuples(people(rows))


def test_empty_table_has_a_chunk_that_yields_nothing(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(0), key=["id"])
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        bounds = source.split(table, None, 1 << 20, 0)
        assert len(bounds) >= 1
        with contextlib.closing(source.reader()) as reader:
            assert all(contract.batches(reader, contract.request(table, b)) == [] for b in bounds)


KEYS: dict[str, tuple[list[str], Any]] = {
    "dense": (["k"], lambda i: i),
    "sparse": (["k"], lambda i: i * i * 1_000_003 - 5),
    "text": (["k"], lambda i: f"{(i * 7919) % 20_000:05d}é"),
    "none": ([], lambda i: i),
}


@pytest.mark.parametrize("shape", KEYS)
def test_split_covers_each_row_once(engine: Quirks, shape: str) -> None:
    rows = 20_000
    key, make = KEYS[shape]
    table = pa.table({"k": [make(i) for i in range(rows)], "text": [f"{i:0>100}" for i in range(rows)]})
    url = engine.url()
    engine.load(url, "t", table, key=key)
    with contract.source_at(url) as source:
        described = contract.described(source, "t")
        source.open_snapshot(2)
        bounds = source.split(described, None, 200_000, 0)
        assert 3 <= len(bounds) <= 200 or not (key or engine.splits_keyless), "about 2.2 MB in chunks of 200 kB"
        with contextlib.closing(source.reader()) as reader, contextlib.closing(source.reader()) as other:
            parts = [
                contract.batches((reader, other)[n % 2], contract.request(described, b)) for n, b in enumerate(bounds)
            ]
    counts = [sum(b.num_rows for b in part) for part in parts]
    assert max(counts) < rows / 2 or len(counts) == 1, counts
    assert contract.values(b for part in parts for b in part) == sorted(tuples(table))


def test_split_of_a_composite_key_covers_each_row_once(engine: Quirks) -> None:
    rows = 20_000
    table = pa.table({"a": [f"g{i % 3}" for i in range(rows)], "b": range(rows), "c": ["x" * 100] * rows})
    url = engine.url()
    engine.load(url, "t", table, key=["a", "b"])
    got = contract.read_all(url, "t", chunk_bytes=200_000)
    assert sorted(got) == sorted(tuples(table))


@pytest.mark.engines("sqlite", "duckdb", "postgres", "mysql")
def test_split_with_where_covers_each_matching_row_once(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(5_000), key=["id"])
    got = contract.read_all(url, "t", chunk_bytes=50_000, where="id % 2 = 0 OR id < 10")
    assert got == [r for r in tuples(people(5_000)) if r[0] % 2 == 0 or r[0] < 10]


@pytest.mark.engines("sqlite", "postgres", "mysql")
def test_bounds_that_are_not_physical_cover_rows_that_come_later(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(5_000, start=1_000), key=["id"])
    with contract.source_at(url) as source:
        source.open_snapshot(1)
        bounds = source.split(contract.described(source, "t"), None, 50_000, 0)
    assert len(bounds) > 1
    assert not any(b.physical for b in bounds), "an integer key is no place"
    inserts = [f"INSERT INTO t VALUES ({i}, 'late', 1)" for i in (-7, 0, 999, 6_000, 10**15)]
    engine.execute(url, *inserts, "DELETE FROM t WHERE id = 1500")
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader:
            got = contract.values(b for x in bounds for b in contract.batches(reader, contract.request(table, x)))
    ids = [r[0] for r in got]
    assert ids == sorted({*range(1_000, 6_000), -7, 0, 999, 6_000, 10**15} - {1_500})


def test_read_gives_the_columns_that_were_asked_for_in_their_order(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(20))
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        (bound,) = source.split(table, None, 1 << 24, 0)
        columns = tuple((n, table.column(n).type) for n in ("score", "id"))
        with contextlib.closing(source.reader()) as reader:
            got = contract.batches(reader, contract.request(table, bound, columns=columns))
    assert sorted(r[1] for r in contract.values(got)) == list(range(20))


def test_reader_streams_in_bounded_batches(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", wide(20_000))
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        bounds = source.split(table, None, 1 << 30, 0)
        with contextlib.closing(source.reader()) as reader:
            sizes = [
                block.batch.nbytes
                for bound in bounds
                for block in reader.read(contract.request(table, bound, batch_bytes=1 << 20))
            ]
    assert len(sizes) >= 5, "20 MB in one go"
    # A batch may overshoot by its rounding and by buffers that grow in powers of two, not by more.
    assert max(sizes) <= 6 << 20


def test_closing_a_read_early_leaves_the_reader_usable(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", wide(10_000))
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        bounds = source.split(table, None, 1 << 30, 0)
        with contextlib.closing(source.reader()) as reader:
            started = iter(reader.read(contract.request(table, bounds[0])))
            assert next(started).batch.num_rows > 0
            started.close()  # type: ignore[attr-defined]
            got = [r for b in bounds for r in contract.values(contract.batches(reader, contract.request(table, b)))]
            assert reader.fingerprint(table.name) == table.fingerprint
    assert len(got) == 10_000


@pytest.mark.engines("postgres", "mysql")
def test_readers_see_one_state_while_the_table_changes(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(5_000), key=["id"])
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        assert source.open_snapshot(2) == "one"
        bounds = source.split(table, None, 50_000, 0)
        engine.execute(url, "DELETE FROM t WHERE id < 2500", "UPDATE t SET name = 'later'")
        with contextlib.closing(source.reader()) as a, contextlib.closing(source.reader()) as b:
            got = [
                x for n, bound in enumerate(bounds)
                for x in contract.batches((a, b)[n % 2], contract.request(table, bound))
            ]  # fmt: skip
    assert contract.values(got) == tuples(people(5_000))


def test_fingerprint_changes_with_the_columns_and_is_empty_when_the_table_is_gone(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(3))
    seen = []
    for change in ("start", "rows", "alter", "drop"):
        if change == "rows" and engine.alters:
            engine.execute(url, "INSERT INTO t VALUES (77, 'more', 1)")
        elif change == "alter" and engine.alters:
            engine.execute(url, "ALTER TABLE t ADD COLUMN more INTEGER")
        elif change == "alter":
            assert isinstance(engine, Parquet)
            engine.replace(url, "t", people(3).append_column("more", pa.array([1, 2, 3])))
        elif change == "drop" and engine.alters:
            engine.execute(url, "DROP TABLE t")
        elif change == "drop":
            assert isinstance(engine, Parquet)
            for path in engine.files(url, "t"):
                path.unlink()
        with contract.source_at(url) as source, contextlib.closing(source.reader()) as reader:
            seen.append(reader.fingerprint(TableName(None, "t")))
    start, rows, altered, dropped = seen
    assert start == rows, "rows are no part of the shape"
    assert altered not in (start, "")
    assert dropped == ""


def test_reading_a_table_that_is_gone_is_a_source_error(engine: Quirks) -> None:
    url = engine.url()
    engine.load(url, "t", people(3))
    engine.load(url, "other", people(3))
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        (bound, *_) = source.split(table, None, 1 << 24, 0)
    if isinstance(engine, Parquet):
        for path in engine.files(url, "t"):
            path.unlink()
    else:
        engine.execute(url, "DROP TABLE t")
    with contract.source_at(url) as source:
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader, pytest.raises(SourceError):
            contract.batches(reader, contract.request(table, bound))


# --- target ---------------------------------------------------------------------------------


@contextlib.contextmanager
def ferry_to(url: str, engine: Quirks, *, key: bool = False, waves: tuple[int, ...] = (0,)) -> Any:
    """A target with the table of ``people`` made and a job of some chunks in its ledger."""
    with contract.target_at(url) as target:
        table, columns = contract.new_table(target, people_table(key), "t")
        assert target.ledger.open(create=True)
        assert target.ledger.lock("key")
        target.ledger.create_job(contract.job_row(), contract.steps("create", "keys"), contract.chunk_rows(*waves))
        target.create_table(table, table.name, "sqlite")
        if key:
            target.add_keys(table, table.name)
        yield Ferry(target, table, columns)
        target.ledger.unlock("key")


def people_table(key: bool) -> Table:
    return Table(
        TableName(None, "origin"),
        (
            Column("id", Type("int64"), nullable=False, native="bigint", forms=(Type("int64"),)),
            Column("name", Type("text"), native="text", forms=(Type("text"),)),
            Column("score", Type("float64"), native="double precision", forms=(Type("float64"),)),
        ),
        primary_key=("id",) if key else (),
    )


def batch_of(rows: int, start: int = 0) -> list[pa.RecordBatch]:
    return people(rows, start).to_batches(max_chunksize=1_000)


def test_describe_of_a_missing_target_table_is_none_and_of_a_made_one_its_shape(engine: Quirks) -> None:
    url = engine.url()
    with contract.target_at(url) as target:
        assert target.describe(TableName(None, "t")) is None
        table, _ = contract.new_table(target, people_table(False), "t")
        target.create_table(table, table.name, "sqlite")
        target.create_table(table, table.name, "sqlite")  # again, as after a crash
        if engine.engine != "files":  # a folder is a table once it holds a file
            found = target.describe(TableName(None, "t"))
            assert found is not None
            assert [c.name for c in found.columns] == ["id", "name", "score"]
            assert [c.type.kind for c in found.columns] == ["int64", "text", "float64"]
            assert target.is_empty(TableName(None, "t"))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_made_and_written(engine: Quirks, name: str) -> None:
    url, name = engine.url(), engine.possible(name)
    table = people(5).rename_columns(["id", name, "score"])
    with contract.target_at(url) as target:
        columns = people_table(False).columns
        odd = Column(name, Type("text"), native="text", forms=(Type("text"),))
        shape = Table(TableName(None, "origin"), (columns[0], odd, columns[2]))
        made, plans = contract.new_table(target, shape, name)
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        target.create_table(made, made.name, "sqlite")
        Ferry(target, made, plans).carry(table.to_batches())
        target.add_keys(made, made.name)
    assert name in engine.tables(url)
    assert engine.rows(url, name) == tuples(table)


def test_commit_makes_rows_and_ledger_row_visible_together(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, waves=(0, 0)) as ferry:
        chunk = ferry.carry(batch_of(2_500))
        with contextlib.closing(ferry.target.writer()) as writer:
            assert writer.is_done(JOB, chunk)
            assert writer.pending(JOB) == 1
        done = next(c for c in ferry.target.ledger.chunks(JOB) if c.number == chunk.number)
        assert done == contract.finished(chunk, 2_500)
    assert engine.rows(url, "t") == tuples(people(2_500))


def test_an_empty_chunk_is_written_and_done(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine) as ferry:
        chunk = ferry.carry([])
        assert ferry.target.ledger.chunks(JOB)[0].state == "done"
        with contextlib.closing(ferry.target.writer()) as writer:
            assert writer.is_done(JOB, chunk)
            assert writer.claim(JOB) is None
            writer.rollback()


@pytest.mark.parametrize("stage", ["claimed", "written", "finished"])
def test_rollback_leaves_neither_rows_nor_ledger_row(engine: Quirks, stage: str) -> None:
    url = engine.url()
    with ferry_to(url, engine) as ferry:
        with contextlib.closing(ferry.target.writer()) as writer:
            chunk = writer.claim(JOB)
            assert chunk is not None
            if stage != "claimed":
                ferry.write(writer, chunk, batch_of(500))
            if stage == "finished":
                writer.finish(JOB, contract.finished(chunk, 500))
            writer.rollback()
        with contextlib.closing(ferry.target.writer()) as writer:
            assert writer.pending(JOB) == 1
            assert not writer.is_done(JOB, chunk)
        assert ferry.target.ledger.chunks(JOB)[0].state == "todo"
        ferry.carry(batch_of(700))
    assert engine.rows(url, "t") == tuples(people(700)), "the chunk came back and was carried once"


def test_closing_a_writer_in_the_middle_gives_its_chunk_back(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine) as ferry:
        writer = ferry.target.writer()
        chunk = writer.claim(JOB)
        ferry.write(writer, chunk, batch_of(500))
        writer.rollback()
        writer.close()
        ferry.carry(batch_of(100))
    assert len(engine.rows(url, "t")) == 100


def test_claims_go_by_wave_and_wait_for_the_wave_before(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, waves=(1, 0, 0)) as ferry, contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(ferry.target.writer()))
        one = first.claim(JOB)
        assert one is not None
        assert one.number == 1
        if contract.capabilities(url).parallel_writers:
            second = stack.enter_context(contextlib.closing(ferry.target.writer()))
            two = second.claim(JOB)
            assert two is not None
            assert two.number == 2
            third = stack.enter_context(contextlib.closing(ferry.target.writer()))
            assert third.claim(JOB) is None, "chunk 0 is of a later wave"
            third.rollback()
            assert third.pending(JOB) == 3
            ferry.write(second, two, batch_of(10, 10))
            second.finish(JOB, contract.finished(two, 10))
            second.commit()
        ferry.write(first, one, batch_of(10))
        first.finish(JOB, contract.finished(one, 10))
        first.commit()
        carried = 20 if contract.capabilities(url).parallel_writers else 10
        rest = 3 - carried // 10
        assert first.pending(JOB) == rest
        numbers = [ferry.carry(batch_of(10, carried + 10 * n)).number for n in range(rest)]
        assert numbers[-1] == 0, "the later wave comes last"
    assert [r[0] for r in engine.rows(url, "t")] == list(range(30))


def test_the_ledger_keeps_jobs_steps_and_chunks_as_they_were_given(engine: Quirks) -> None:
    url = engine.url()
    with contract.target_at(url) as target:
        assert not target.ledger.open(create=False)
        assert target.ledger.open(create=True)
        assert target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row("a", "key-a"), contract.steps("create"), contract.chunk_rows(0, 1))
        target.ledger.create_job(contract.job_row("b", "key-b"), [], [])
        target.ledger.create_job(contract.job_row("c", "key-c"), [], [])
        target.ledger.add_chunks("c", contract.chunk_rows(0))
        target.ledger.set_token("b", "state é")
        target.ledger.finish_job("b", {"status": "ok", "né": [1, None, "🚢"]})
    with contract.target_at(url) as target:
        assert target.ledger.open(create=False)
        a, b, c = target.ledger.jobs()
        assert (c.id, c.state) == ("c", "running")
        assert (a.id, a.state, a.plan, a.token) == ("a", "running", {"version": 1, "é": "🚢"}, None)
        assert (b.id, b.state, b.token) == ("b", "finished", "state é")
        assert b.report == {"status": "ok", "né": [1, None, "🚢"]}
        assert target.ledger.chunks("a") == contract.chunk_rows(0, 1)
        assert target.ledger.chunks("b") == []
        assert target.ledger.chunks("c") == contract.chunk_rows(0)
        assert target.ledger.steps("a") == contract.steps("create")


def test_winners_are_given_one_after_the_other_and_are_not_among_the_steps(engine: Quirks) -> None:
    url = engine.url()
    details = [{"keys": "a" * 300_000, "rows": f"é{n}"} for n in range(4)]
    with contract.target_at(url) as target:
        target.ledger.open(create=True)
        kept = (StepRow(n + 1, WINNERS, n % 2, "done", detail) for n, detail in enumerate(details))
        steps = itertools.chain(contract.steps("create"), kept)
        target.ledger.create_job(contract.job_row("a", "key-a"), steps, [])
        target.ledger.create_job(contract.job_row("b", "key-b"), contract.steps("create"), [])
    with contract.target_at(url) as target:
        target.ledger.open(create=False)
        assert target.ledger.steps("a") == contract.steps("create")
        assert list(target.ledger.winners("a", 0)) == [details[0], details[2]]
        assert list(target.ledger.winners("a", 1)) == [details[1], details[3]]
        assert list(target.ledger.winners("a", 2)) == list(target.ledger.winners("b", 0)) == []


def test_a_step_runs_once_and_keeps_what_it_returned(engine: Quirks) -> None:
    url = engine.url()
    ran = []
    with ferry_to(url, engine) as ferry:
        step = ferry.target.ledger.steps(JOB)[0]
        with pytest.raises(ZeroDivisionError):
            ferry.target.ledger.run_step(JOB, step, lambda: {"never": 1 // 0})
        assert ferry.target.ledger.steps(JOB)[0].state == "todo"
        for _ in range(2):
            ferry.target.ledger.run_step(JOB, step, lambda: ran.append(1) or {"rows": 5})  # type: ignore[func-returns-value]
        after = ferry.target.ledger.steps(JOB)
    assert ran == [1]
    assert [s.state for s in after] == ["done", "todo"]
    assert after[0].detail == {"rows": 5}


def test_redoing_a_table_makes_all_its_chunks_todo_again(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, waves=(0, 0)) as ferry:
        ferry.carry(batch_of(50))
        ferry.carry(batch_of(50, 50))
        ferry.target.ledger.redo_table(JOB, 0, lambda: ferry.target.truncate(ferry.table.name))
        assert ferry.target.ledger.chunks(JOB) == contract.chunk_rows(0, 0)
        ferry.carry(batch_of(30))
        ferry.carry(batch_of(30, 30))
    assert engine.rows(url, "t") == tuples(people(60))


LOCKER = """
import sys
from adapters import contract
from rowferry.errors import RowferryError
try:
    with contract.target_at(sys.argv[1]) as target:
        target.ledger.open(create=True)
        print("locked" if target.ledger.lock("key") else "held", flush=True)
        sys.stdin.read()
except RowferryError as error:
    print("refused", flush=True)
"""


def other_process(url: str) -> subprocess.Popen[str]:
    tests = str(pathlib.Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": f"{SRC}{os.pathsep}{tests}"}
    return subprocess.Popen(
        [sys.executable, "-c", LOCKER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_excludes_other_processes_and_dies_with_its_own(engine: Quirks) -> None:
    url = engine.url()
    with contract.target_at(url) as target:
        target.ledger.open(create=True)
        assert target.ledger.lock("key")
        with other_process(url) as other:
            assert said(other) in ("held", "refused")
            other.kill()
        target.ledger.unlock("key")
    with other_process(url) as other:
        assert said(other) == "locked"
        try:
            with contract.target_at(url) as target:
                target.ledger.open(create=True)
                taken = target.ledger.lock("key")
        except RowferryError:
            taken = False  # the whole database is the other's
        assert not taken
        other.send_signal(signal.SIGKILL)
        other.wait()
    with contract.target_at(url) as target:
        target.ledger.open(create=True)
        assert target.ledger.lock("key"), "the lock outlived its process"


def test_truncate_empties_and_drop_removes(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine) as ferry:
        ferry.carry(batch_of(50))
        assert not ferry.target.is_empty(ferry.table.name)
        ferry.target.truncate(ferry.table.name)
        assert ferry.target.is_empty(ferry.table.name)
        ferry.target.drop(ferry.table.name)
        ferry.target.drop(ferry.table.name)
        assert ferry.target.describe(ferry.table.name) is None
    assert "t" not in engine.tables(url)


def test_swap_puts_the_loaded_table_in_the_place_of_the_old(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(3), key=["id"])
    with contract.target_at(url) as target:
        table, columns = contract.new_table(target, people_table(True), "t")
        loaded = TableName(None, "rowferry_new_0")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        target.create_table(table, loaded, "sqlite")
        Ferry(target, table, columns).carry(batch_of(40, 100), name=loaded.name)
        target.add_keys(table, loaded)
        target.swap(loaded, table.name)
    assert engine.rows(url, "t") == tuples(people(40, 100))
    assert loaded.name not in engine.tables(url)


def test_merge_adds_all_staged_rows(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(3))
    with contract.target_at(url) as target:
        table, columns = contract.new_table(target, people_table(False), "t")
        staged = TableName(None, "rowferry_stage_x_0")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        target.create_table(table, staged, "sqlite")
        Ferry(target, table, columns).carry(batch_of(40, 100), name=staged.name)
        assert target.merge(staged, table, ["id", "name", "score"]) == 40
    assert engine.rows(url, "t") == tuples(people(3)) + tuples(people(40, 100))
    assert staged.name not in engine.tables(url)


@pytest.mark.engines("sqlite", "duckdb", "postgres", "mysql")
def test_upsert_replaces_rows_of_equal_key_and_adds_the_others(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(100), key=["id"])
    with contract.target_at(url) as target:
        existing = target.describe(TableName(None, "t"))
        assert existing is not None
        assert existing.primary_key == ("id",)
        _, columns = contract.new_table(target, people_table(True), "t")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        changed = people(100, 50).set_column(1, "name", pa.array(["upserted"] * 100))
        Ferry(target, existing, columns).carry(changed.to_batches(), mode="upsert", key=("id",))
    assert engine.rows(url, "t") == tuples(people(50)) + tuples(changed)


@pytest.mark.engines("sqlite", "duckdb", "postgres", "mysql")
def test_upsert_refuses_two_rows_of_one_key(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(10), key=["id"])
    twice = pa.concat_tables([people(5, 20), people(1, 22)]).combine_chunks()
    with contract.target_at(url) as target:
        existing = target.describe(TableName(None, "t"))
        assert existing is not None
        _, columns = contract.new_table(target, people_table(True), "t")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        ferry = Ferry(target, existing, columns)
        with contextlib.closing(target.writer()) as writer:
            chunk = writer.claim(JOB)
            assert chunk is not None
            with pytest.raises(RowferryError):
                rows = ferry.write(writer, chunk, twice.to_batches(), mode="upsert", key=("id",))
                assert rows == 6, "fewer rows accepted than sent"
                writer.finish(JOB, contract.finished(chunk, 6))
                writer.commit()
            writer.rollback()
    assert engine.rows(url, "t") == tuples(people(10))


@pytest.mark.engines("sqlite", "duckdb", "postgres", "mysql")
def test_a_duplicate_key_is_an_error_and_the_chunk_is_rolled_back(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(10), key=["id"])
    with contract.target_at(url) as target:
        existing = target.describe(TableName(None, "t"))
        assert existing is not None
        _, columns = contract.new_table(target, people_table(True), "t")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        ferry = Ferry(target, existing, columns)
        with contextlib.closing(target.writer()) as writer:
            chunk = writer.claim(JOB)
            assert chunk is not None
            with pytest.raises(RowferryError) as caught:
                ferry.write(writer, chunk, batch_of(10, 5))
                writer.finish(JOB, contract.finished(chunk, 10))
                writer.commit()
            assert not caught.value.transient
            writer.rollback()
        assert target.ledger.chunks(JOB)[0].state == "todo"
    assert engine.rows(url, "t") == tuples(people(10))


def test_repair_deletes_by_key_and_inserts_in_one_go(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(20), key=["id"])
    with contract.target_at(url) as target:
        existing = target.describe(TableName(None, "t"))
        assert existing is not None
        _, columns = contract.new_table(target, people_table(True), "t")
        keys = pa.RecordBatch.from_arrays([pa.array([3, 4], pa.int64())], names=["id"])
        insert = [contract.canonical(b, columns) for b in batch_of(2, 100)]
        assert target.repair(existing, columns, ("id",), keys, insert) == 2
    assert engine.rows(url, "t") == [r for r in tuples(people(20)) if r[0] not in (3, 4)] + tuples(people(2, 100))


def test_as_source_reads_what_was_committed(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, waves=(0, 0)) as ferry:
        ferry.carry(batch_of(2_000))
        ferry.carry(batch_of(2_000, 2_000))
        with contextlib.closing(ferry.target.as_source()) as source:
            table = contract.described(source, "t")
            source.open_snapshot(2)
            bounds = source.split(table, None, 50_000, 0)
            with contextlib.closing(source.reader()) as reader:
                got = [b for x in bounds for b in contract.batches(reader, contract.request(table, x))]
    assert contract.values(got) == tuples(people(4_000))


def test_a_read_only_target_writes_nothing(engine: Quirks) -> None:
    url = engine.url()
    engine.load_target(url, "t", people(3))
    before = engine.tables(url)
    with contract.target_at(url, read_only=True) as target:
        assert target.describe(TableName(None, "t")) is not None
        assert target.describe(TableName(None, "nope")) is None
        assert not target.is_empty(TableName(None, "t"))
        assert not target.ledger.open(create=False)
    assert engine.tables(url) == before


@pytest.mark.engines("sqlite", "duckdb", "parquet", "arrow")
def test_a_read_only_target_that_is_not_there_is_empty_or_refused_and_not_made(
    engine: Quirks, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "absent.db"
    with contextlib.suppress(RowferryError), contract.target_at(f"{engine.scheme}:///{path}", read_only=True) as target:
        assert target.describe(TableName(None, "t")) is None
        assert not target.ledger.open(create=False)
    assert not path.exists()


@pytest.mark.engines("sqlite", "duckdb", "parquet", "arrow")
def test_a_source_that_is_not_there_is_not_made(engine: Quirks, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "absent.db"
    with pytest.raises(RowferryError), contract.source_at(f"{engine.scheme}:///{path}"):
        pass
    assert not path.exists()


def test_sequences_and_privileges_have_nothing_to_say_of_a_plain_table(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, key=True) as ferry:
        ferry.carry(batch_of(20))
        ferry.target.set_sequences(ferry.table)
        assert ferry.target.missing_privileges([ferry.table], [TableName(None, "new")]) == []
    assert engine.rows(url, "t") == tuples(people(20))


# --- what must be refused ------------------------------------------------------------------


def cases(rows: list[tuple[Any, ...]]) -> list[Any]:
    """Parameters whose first is an engine's name."""
    shown = [" ".join(str(v)[:20] for v in row).replace("\0", "NUL") for row in rows]
    marks = [[pytest.mark.server] if QUIRKS[row[0]].server else [] for row in rows]
    return [pytest.param(*row, id=text, marks=m) for row, text, m in zip(rows, shown, marks, strict=True)]


#: (engine, existing column in its own DDL, the source's type, a value that does not fit, one that does)
NARROWER = [
    ("duckdb", "DECIMAL(5,1)", Type("decimal", precision=10, scale=2), "12.34", "12.30"),
    ("duckdb", "SMALLINT", Type("int64"), 40_000, 400),
    ("duckdb", "FLOAT", Type("float64"), 0.1, 0.5),
    ("duckdb", "TIMESTAMP_S", Type("timestamp", unit="us"), 1_500_000, 2_000_000),
    ("sqlite", "DECIMAL(5,1)", Type("decimal", precision=10, scale=2), "12.34", "12.30"),
    ("postgres", "numeric(5,1)", Type("decimal", precision=10, scale=2), "12.34", "12.30"),
    ("postgres", "smallint", Type("int64"), 40_000, 400),
    ("postgres", "real", Type("float64"), 0.1, 0.5),
    ("postgres", "varchar(3)", Type("text"), "ab   ", "abc"),
    ("postgres", "timestamp(0)", Type("timestamp", unit="us"), 600_000, 2_000_000),
    ("postgres", "text", Type("text"), "nul\0", "none"),
    ("mysql", "DECIMAL(5,1)", Type("decimal", precision=10, scale=2), "12.34", "12.30"),
    ("mysql", "SMALLINT", Type("int64"), 40_000, 400),
    ("mysql", "INT UNSIGNED", Type("int64"), -1, 4_294_967_295),
    ("mysql", "FLOAT", Type("float64"), 0.1, 0.5),
    ("mysql", "DOUBLE", Type("float64"), float("nan"), 0.1),
    ("mysql", "VARCHAR(3)", Type("text"), "abcd", "é€x"),
    ("mysql", "VARCHAR(3)", Type("text"), "abc ", "ab "),
    ("mysql", "CHAR(3)", Type("text"), "ab ", " ab"),
    ("mysql", "VARCHAR(3) CHARACTER SET latin1", Type("text"), "ł", "é"),
    ("mysql", "DATETIME", Type("timestamp", unit="us"), 900_000, 2_000_000),
    ("mysql", "TIMESTAMP", Type("timestamptz", unit="us"), -1_000_000, 2_000_000),
    ("mysql", "TIME", Type("duration", unit="us"), 500_000, 3_600_000_000),
    ("mysql", "TIME", Type("duration", unit="us"), 839 * 3_600_000_000, -838 * 3_600_000_000),
    ("mysql", "YEAR", Type("int16"), 1900, 1901),
    ("mysql", "ENUM('a','b')", Type("text"), "A", "a"),
    ("mysql", "BINARY(2)", Type("binary"), b"a", b"ab"),
    ("mysql", "JSON", Type("text"), "{", "{}"),
]


def one_value(type_: Type, value: Any) -> pa.Array:
    if type_.kind == "decimal":
        return pa.array([value], pa.string()).cast(type_.arrow)
    if type_.kind == "timestamp":
        return pa.array([value], pa.int64()).cast(type_.arrow)
    return pa.array([value], type_.arrow)


@pytest.mark.parametrize(
    ("name", "ddl", "form", "unfit", "fit"), NARROWER, ids=lambda v: str(v)[:24].replace("\0", "0")
)
def test_a_narrower_existing_column_takes_only_what_it_holds_exactly(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, name: str, ddl: str, form: Type, unfit: Any, fit: Any
) -> None:
    engine = make_quirks(name, tmp_path, request)
    url = engine.url()
    engine.execute(url, f"CREATE TABLE t (v {ddl})")
    with contract.target_at(url) as target:
        table = target.describe(TableName(None, "t"))
        assert table is not None
        into = table.columns[0]
        way = convert.conversion(form, into.type, target.checks(into))
        if isinstance(way, str):
            return  # refused by the plan: nothing can be changed in silence
        assert way.apply(one_value(form, fit))[1] == 0
        with pytest.raises(DataError):
            converted = way.apply(one_value(form, unfit))[0]
            # Some values the writer itself refuses: the engine would not round or cut them.
            target.ledger.open(create=True)
            target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
            plan = ColumnPlan("v", form, "v", into, Comparison(form, into.type, ""))
            batch = pa.RecordBatch.from_arrays([converted], schema=pa.schema([pa.field("v", into.type.arrow)]))
            with contextlib.closing(target.writer()) as writer:
                assert writer.claim(JOB) is not None
                try:
                    writer.write(WriteRequest(table, table.name, (plan,), job=JOB), [Block(batch)])
                finally:
                    writer.rollback()


#: Per engine, types that must not be taken as they are: by a refusal, or by a check on every value.
REFUSED = [
    ("duckdb", Type("decimal", precision=50, scale=2), None),
    ("duckdb", Type("numeric"), None),
    ("sqlite", Type("uint64"), 2**63),
    ("sqlite", Type("float64"), float("nan")),
    ("sqlite", Type("float64"), -0.0),
    ("sqlite", Type("float32"), -0.0),
    ("parquet", Type("timestamp", unit="us"), 2**63 - 1),
    ("mysql", Type("float64"), float("nan")),
    ("mysql", Type("float64"), float("inf")),
    ("mysql", Type("float64"), -0.0),
    ("mysql", Type("float32"), float("-inf")),
    ("mysql", Type("decimal", precision=70, scale=2), None),
    ("mysql", Type("decimal", precision=50, scale=40), None),
    ("mysql", Type("numeric"), None),
    ("mysql", Type("date"), 2**31 - 1),
    ("mysql", Type("timestamp", unit="us"), 2**63 - 1),
    ("mysql", Type("timestamp", unit="ns"), 1),
    ("mysql", Type("timestamptz", unit="us"), 2**63 - 1),
]


@pytest.mark.parametrize(("name", "form", "value"), cases(REFUSED))
def test_a_type_that_cannot_be_held_is_refused_or_checked(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, name: str, form: Type, value: Any
) -> None:
    engine = make_quirks(name, tmp_path, request)
    with contract.target_at(engine.url()) as target:
        found = contract.planned(target, Column("v", form, native=str(form), forms=(form,)))
        if isinstance(found, Refusal):
            assert found.reason
            return
        assert isinstance(found, ColumnPlan)
        assert value is not None, f"{form} was planned as {found.column.native}"
        way = convert.conversion(form, found.column.type, found.checks)
        assert not isinstance(way, str)
        with pytest.raises(DataError):
            way.apply(one_value(form, value))
