"""Transforms through the whole engine, on SQLite and DuckDB files: what arrives, what is counted, what is proven."""

from __future__ import annotations

import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rowferry
from rowferry import ConfigError, DataError, RefusedError, StoppedError
from rowferry.adapters import registry
from rowferry.engine.report import TableReport
from rowferry.engine.spool import Spool

ROWS = 6_000
#: Small chunks, so that there are some.
CHUNK_BYTES = 40_000

SPEC: dict[str, Any] = {
    "set": {
        "email": "lower(trim(email))",
        "full_name": "first || ' ' || last",
        "price": "CAST(price AS DECIMAL(12,2))",
    },
    "where": "gone IS NULL",
    "drop": ["gone", "first"],
    "rename": {"id": "customer", "last": "family"},
    "constant": {"origin": "shop"},
}


def row(i: int) -> tuple[Any, ...]:
    return (i, f"F{i}", f"L{i % 97}", f" Mail{i}@X.org ", i / 4, None if i % 3 else "x")


def expected() -> list[tuple[Any, ...]]:
    """What SPEC makes of the rows, one by one."""
    return [
        (i, last, email.strip(" ").lower(), f"{price:.2f}", f"{first} {last}", "shop")
        for i, first, last, email, price, gone in map(row, range(ROWS))
        if gone is None
    ]


class Ends:
    """A source of two tables, and a target that is not there yet."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.source, self.target = folder / "source.db", folder / "target.duckdb"
        with sqlite3.connect(self.source) as c:
            c.execute(
                "create table c (id integer primary key, first text, last text, email text, price real, gone text)"
            )
            c.executemany("insert into c values (?, ?, ?, ?, ?, ?)", map(row, range(ROWS)))
            c.execute("create table plain (a integer, b text)")
            c.executemany("insert into plain values (?, ?)", ((i, str(i)) for i in range(100)))
        c.close()

    @property
    def urls(self) -> tuple[str, str]:
        return f"sqlite:///{self.source}", f"duckdb:///{self.target}"

    def copy(self, **options: Any) -> rowferry.Report:
        return rowferry.copy(*self.urls, **{"chunk_bytes": CHUNK_BYTES, **options})

    def verify(self, **options: Any) -> rowferry.Report:
        return rowferry.verify(*self.urls, **options)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.target), read_only=True) as c:
            return c.execute(query).fetchall()

    def change(self, *statements: str) -> None:
        with duckdb.connect(str(self.target)) as c:
            for statement in statements:
                c.execute(statement)


@pytest.fixture
def ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    small = msgspec.structs.replace(registry.capabilities("duckdb"), chunk_rows_min=0)
    monkeypatch.setattr("rowferry.adapters.duckdb.capabilities", small)
    return Ends(tmp_path)


COLUMNS = "customer, family, email, price::varchar, full_name, origin"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_copy_through_a_transform_sends_what_a_row_by_row_model_makes(ends: Ends, workers: int) -> None:
    report = ends.copy(tables=["c"], specs={"c": SPEC}, workers=workers, verify=True)
    assert ends.rows(f"select {COLUMNS} from c order by 1") == expected()
    (table,) = report.tables
    assert table.chunks > 3
    assert (table.rows_read, table.rows_filtered, table.rows_sent) == (ROWS, ROWS // 3, ROWS - ROWS // 3)
    assert table.unclosed() is None
    assert table.equal
    assert report.exit_code == 0


def test_the_target_has_the_types_names_and_key_of_what_comes_out(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": SPEC})
    shape = [(name, kind, null, key) for name, kind, null, key, *_ in ends.rows("describe c")]
    assert shape == [
        ("customer", "BIGINT", "NO", "PRI"),
        ("family", "VARCHAR", "YES", None),
        ("email", "VARCHAR", "YES", None),
        ("price", "DECIMAL(12,2)", "YES", None),
        ("full_name", "VARCHAR", "YES", None),
        ("origin", "VARCHAR", "NO", None),
    ]


def test_names_of_the_target_are_spelled_after_the_transform(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": {"rename": {"id": "CustomerNo"}}}, names="snake", verify=True)
    assert ends.rows("select min(customer_no), max(customer_no) from c") == [(0, ROWS - 1)]


def test_a_glob_means_every_table_that_no_name_means(ends: Ends) -> None:
    specs = {"*": {"constant": {"origin": "all"}}, "plain": {"constant": {"origin": "one"}}}
    ends.copy(specs=specs, verify=True)
    assert ends.rows("select distinct origin from c") == [("all",)]
    assert ends.rows("select distinct origin from plain") == [("one",)]


def test_verify_finds_and_names_rows_that_differ_after_the_transform(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": SPEC})
    assert ends.verify(tables=["c"], specs={"c": SPEC}).equal
    ends.change(
        "update c set email = 'other' where customer = 4",
        "delete from c where customer = 5",
        "insert into c values (-1, 'l', 'e', 1, 'f', 'shop')",
    )
    report = ends.verify(tables=["c"], specs={"c": SPEC})
    (table,) = report.tables
    assert (table.missing, table.extra, table.changed) == (1, 1, 1)
    assert {(r.kind, r.key["customer"]) for r in table.named} == {("missing", "5"), ("extra", "-1"), ("changed", "4")}
    changed = next(r for r in table.named if r.kind == "changed")
    assert changed.source is not None
    assert changed.target is not None
    assert (changed.source["email"], changed.target["email"]) == ("mail4@x.org", "other")
    mended = ends.verify(tables=["c"], specs={"c": SPEC}, repair=True, delete_extra=True)
    assert mended.equal
    assert ends.rows(f"select {COLUMNS} from c order by 1") == expected()


def test_verify_without_the_spec_says_that_columns_differ(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": SPEC})
    report = ends.verify(tables=["c"])
    assert report.exit_code == 1
    assert "'gone' is in the source only" in str(report.error)


def test_append_and_upsert_through_a_transform_are_verified(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": SPEC})
    ends.change("update c set email = 'old'", "delete from c where customer < 1000")
    report = ends.copy(tables=["c"], specs={"c": SPEC}, mode="upsert", verify=True)
    assert report.exit_code == 0
    assert ends.rows(f"select {COLUMNS} from c order by 1") == expected()
    with pytest.raises(RefusedError, match="not empty"):
        ends.copy(tables=["c"], specs={"c": SPEC})


def test_a_where_on_the_source_and_one_in_the_spec_hold_both(ends: Ends) -> None:
    report = ends.copy(tables=["c"], specs={"c": SPEC}, where="id < 3000", verify=True)
    (table,) = report.tables
    assert (table.rows_read, table.rows_filtered, table.rows_committed) == (3000, 1000, 2000)


# --- functions ---------------------------------------------------------------------------------


def shout(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = batch.schema.names.index("last")
    loud = pa.array([None if v is None else v + "!" for v in batch.column(at).to_pylist()], batch.schema.field(at).type)
    return batch.set_column(at, batch.schema.field(at), loud)


def split(batch: pa.RecordBatch) -> list[tuple[str | None, pa.RecordBatch]]:
    """Rows that are gone go to a table of their own; of each row its mail goes to another."""
    gone = [v is not None for v in batch.column("gone").to_pylist()]
    mails = batch.select(["id", "email"])
    return [
        (None, batch.filter(pa.array([not g for g in gone], pa.bool_()))),
        ("gone", batch.filter(pa.array(gone, pa.bool_())).select(["id", "gone"])),
        ("mails", pa.concat_batches([mails, mails])),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_function_given_as_an_object_changes_rows(ends: Ends, workers: int) -> None:
    report = ends.copy(tables=["c"], transform=shout, workers=workers, verify=True)
    assert report.exit_code == 0
    assert ends.rows("select count(*) from c where last like '%!'") == [(ROWS,)]
    assert ends.verify(tables=["c"], transform={"c": shout}).equal


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_several_outputs_of_a_function_land_together_and_are_counted(ends: Ends, workers: int) -> None:
    specs = {"c": {"python_keeps_rows": False}}
    report = ends.copy(tables=["c"], transform={"c": split}, specs=specs, workers=workers, verify=True)
    own, *_ = report.tables
    third = ROWS // 3
    assert [t.target for t in report.tables] == ["c", "gone", "mails"]
    assert [t.rows_committed for t in report.tables] == [ROWS - third, third, 2 * ROWS]
    assert (own.rows_read, own.rows_fed, own.rows_generated) == (ROWS, third + 2 * ROWS, 2 * ROWS)
    assert all(t.unclosed() is None and t.equal for t in report.tables)
    assert ends.rows("select count(*), min(gone) from gone") == [(third, "x")]
    assert ends.rows("select count(*), count(distinct id) from mails") == [(2 * ROWS, ROWS)]
    again = ends.verify(tables=["c"], transform={"c": split}, specs=specs)
    assert again.equal
    assert [t.target for t in again.tables] == ["c", "gone", "mails"]
    ends.change("delete from mails where id = 7")
    assert ends.verify(tables=["c"], transform={"c": split}, specs=specs).tables[2].missing == 2


@pytest.mark.parametrize("together", [False, True])
def test_append_of_rows_that_are_cut_by_place_makes_absent_tables_and_adds_to_those_that_stand(
    ends: Ends, together: bool
) -> None:
    def both(batch: pa.RecordBatch) -> list[tuple[str | None, pa.RecordBatch]]:
        return [(None, batch), ("letters", batch.select(["b"]))]

    options: dict[str, Any] = {"tables": ["plain"], "mode": "append", "chunk_bytes": 500, "verify": True}
    if together:
        options |= {"transform": {"plain": both}, "specs": {"plain": {"python_keeps_rows": False}}}
    for own, others in ((100, 100), (200, 200), (100, 300)):
        if others == 300:
            ends.change("drop table plain")  # what it feeds stands still
        report = ends.copy(**options)
        assert report.tables[0].chunks > 1
        assert [t.equal for t in report.tables] == [True] * len(report.tables)
        assert ends.rows("select count(*), count(distinct a) from plain") == [(own, 100)]
        if together:
            assert ends.rows("select count(*), count(distinct b) from letters") == [(others, 100)]


def test_a_function_cannot_be_resumed_by_name_and_says_so(ends: Ends) -> None:
    stop = threading.Event()

    def stopping(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows and batch.column(0)[0].as_py() > 1000:
            stop.set()
        return batch

    with pytest.raises(StoppedError):
        ends.copy(tables=["c"], transform={"c": stopping}, workers=1, stop=stop, job="mine")
    with pytest.raises(ConfigError, match=r"stopping.*which no ledger holds.*the same call"):
        rowferry.resume(ends.urls[1], "mine")
    report = ends.copy(tables=["c"], transform={"c": stopping}, workers=1, job="mine", verify=True)
    assert report.exit_code == 0
    assert report.tables[0].chunks_taken_over > 0
    assert ends.rows("select count(*), count(distinct id) from c") == [(ROWS, ROWS)]


def test_a_spec_is_known_again_to_a_resume_by_name(ends: Ends) -> None:
    stop = threading.Event()

    def watch(event: Any) -> None:
        if type(event).__name__ == "ChunkFinished":
            stop.set()

    with pytest.raises(StoppedError):
        ends.copy(tables=["c"], specs={"c": SPEC}, workers=1, stop=stop, on_event=watch, job="mine")
    report = rowferry.resume(ends.urls[1], "mine", source=ends.urls[0], verify=True)
    assert report.exit_code == 0
    assert report.tables[0].chunks_taken_over > 0
    assert report.tables[0].rows_filtered == ROWS // 3
    assert ends.rows(f"select {COLUMNS} from c order by 1") == expected()


def test_another_spec_is_another_job(ends: Ends) -> None:
    ends.copy(tables=["c"], specs={"c": SPEC}, job="mine")
    assert ends.copy(tables=["c"], specs={"c": SPEC}, job="mine").tables[0].rows_filtered == ROWS // 3
    with pytest.raises(ConfigError, match="another command"):
        ends.copy(tables=["c"], specs={"c": {**SPEC, "where": "true"}}, job="mine")


# --- what is refused ---------------------------------------------------------------------------


def adds_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.concat_batches([batch, batch])


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ({"d": SPEC}, r"\[table.'d'\] means none of the tables; the tables are 'c', 'plain'"),
        ({"c": {"set": {"x": "nope + 1"}}}, "no column 'nope'"),
        ({"c": {"set": {"x": "1 +"}}}, "is no SQL expression"),
        ({"c": {"where": "id"}}, "where"),
        ({"c": {"where": "random() < 0.5"}}, "random"),
        ({"c": {"set": {"n": "sum(id)"}}}, "sum"),
        ({"c": {"drop": ["nope"]}}, "no column 'nope'"),
        ({"c": {"drop": ["id"]}}, "'id' is of the primary key"),
        ({"c": {"rename": {"nope": "x"}}}, "no column 'nope'"),
        ({"c": {"rename": {"id": "first"}}}, "first"),
        ({"c": {"order": ["nope"]}}, "no column 'nope'"),
        ({"c": {"cast": {"email": "nonsense"}}}, "nonsense"),
        ({"c": {"cast": {"nope": "text"}}}, "no column 'nope'"),
        ({"c": {"lookups": [{"file": "absent.csv", "on": {"id": "id"}, "take": {"x": "y"}}]}}, "absent.csv"),
        ({"c": {"python": "no.such.module:f"}}, "no.such.module"),
        ({"c": {"dedup": {"by": ["nope"]}}}, "no column 'nope' after the transform"),
        ({"c": {"drop": ["gone"], "dedup": {"by": ["gone"]}}}, "no column 'gone' after the transform"),
        ({"c": {"rename": {"email": "mail"}, "dedup": {"by": ["id"], "keep": "last by email"}}}, "no column 'email'"),
        ({"c": {"wheer": "true"}}, "no key 'wheer'; did you mean where"),
        ({"*": {}, "c*": {"drop": ["gone"]}}, "both mean it"),
        ({"c:d": {}}, "gives a new name"),
    ],
)
def test_a_mistake_is_a_config_error_before_the_first_row(ends: Ends, specs: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ends.copy(specs=specs)
    assert not ends.target.exists()


def test_an_upsert_key_that_the_transform_does_not_give_is_refused(ends: Ends) -> None:
    ends.change("create table c (id bigint primary key, first varchar, last varchar, email varchar, price double)")
    with pytest.raises(RefusedError, match="column 'id': the target's column is NOT NULL"):
        ends.copy(tables=["c"], specs={"c": {"drop": ["gone"]}}, mode="upsert", policies={"c.id": "skip"})


def test_what_comes_out_must_fit_the_table_that_stands(ends: Ends) -> None:
    ends.change("create table c (id bigint primary key, email varchar)")
    with pytest.raises(RefusedError, match="the target's table has no such column"):
        ends.copy(tables=["c"], specs={"c": {"set": {"more": "id + 1"}}})


def test_a_function_that_makes_other_rows_than_it_declared_stops_the_job(ends: Ends) -> None:
    with pytest.raises(DataError, match=r"makes .* rows of") as caught:
        ends.copy(tables=["c"], transform=adds_rows)
    assert caught.value.table == "c"
    assert caught.value.chunk is not None


def test_a_further_table_of_the_name_of_another_is_refused(ends: Ends) -> None:
    def both(batch: pa.RecordBatch) -> list[tuple[str | None, pa.RecordBatch]]:
        return [(None, batch), ("plain", batch.select(["id"]))]

    with pytest.raises(RefusedError, match="would both be named 'plain'"):
        ends.copy(transform={"c": both}, specs={"c": {"python_keeps_rows": False}})


def test_an_expression_that_fails_on_a_row_names_table_chunk_and_column(ends: Ends) -> None:
    with pytest.raises(DataError) as caught:
        ends.copy(tables=["c"], specs={"c": {"set": {"n": "CAST(last AS INTEGER)"}}})
    assert (caught.value.table, caught.value.column) == ("c", "n")
    assert caught.value.chunk is not None
    assert "'L" in str(caught.value)


# --- plan --------------------------------------------------------------------------------------


def test_plan_shows_three_rows_before_and_after(ends: Ends) -> None:
    plan = rowferry.plan(*ends.urls, tables=["c"], specs={"c": SPEC})
    (table,) = plan.tables
    assert [s.before["id"] for s in table.samples] == ["0", "1", "2"]
    assert [len(s.after) for s in table.samples] == [0, 1, 1]
    assert table.samples[1].after[0] == {
        "customer": "1", "family": "L1", "email": "mail1@x.org", "price": "0.25", "full_name": "F1 L1",
        "origin": "shop",
    }  # fmt: skip
    assert ("price", "DECIMAL(12,2)") in [(c.target, c.target_type) for c in table.columns]
    assert "where gone IS NULL: the other rows are left out, and counted as filtered" in table.passes
    assert not ends.target.exists()


def test_plan_shows_a_row_that_the_transform_refuses(ends: Ends) -> None:
    plan = rowferry.plan(*ends.urls, tables=["c"], specs={"c": {"set": {"n": "CAST(last AS INTEGER)"}}})
    assert all("L" in (s.problem or "") for s in plan.tables[0].samples)


# --- the spool ---------------------------------------------------------------------------------


def _batches() -> list[pa.RecordBatch]:
    return [
        pa.record_batch({"a": pa.array(range(n), pa.int64()), "b": pa.array([f"v{i}" for i in range(n)], pa.string())})
        for n in (100, 1, 0, 300)
    ]


@pytest.mark.parametrize("bytes_max", [0, 3_000, 1 << 20])
def test_spool_gives_back_what_it_was_given_in_memory_and_from_disk(bytes_max: int) -> None:
    batches = _batches()
    with Spool(bytes_max) as spool:
        for batch in batches:
            spool.add(batch)
        for _ in range(2):
            assert [b.to_pylist() for b in spool.batches()] == [b.to_pylist() for b in batches if b.num_rows]


def test_several_outputs_that_do_not_fit_in_memory_land_all_the_same(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool.__init__, "__defaults__", (500,))
    report = ends.copy(tables=["c"], transform=split, specs={"c": {"python_keeps_rows": False}}, workers=2, verify=True)
    assert [t.equal for t in report.tables] == [True, True, True]


# --- against a model, at random ----------------------------------------------------------------

Record = dict[str, Any]
#: (what a spec may say, what it does to a row: None leaves it out). The parts apply in this order.
PARTS: list[tuple[dict[str, Any], Callable[[Record], Record | None]]] = [
    ({"set": {"a": "a * 2 + coalesce(b, 0)"}},
     lambda r: {**r, "a": None if r["a"] is None else r["a"] * 2 + (r["b"] or 0)}),
    ({"set": {"t": "upper(t)"}}, lambda r: {**r, "t": None if r["t"] is None else r["t"].upper()}),
    ({"set": {"u": "t || '-' || id"}}, lambda r: {**r, "u": None if r["t"] is None else f"{r['t']}-{r['id']}"}),
    ({"where": "a > 0 OR a IS NULL"}, lambda r: r if r["a"] is None or r["a"] > 0 else None),
    ({"cast": {"b": "text"}}, lambda r: {**r, "b": None if r["b"] is None else str(r["b"])}),
    ({"constant": {"c": 7}}, lambda r: {**r, "c": 7}),
    ({"rename": {"id": "key"}}, lambda r: {("key" if k == "id" else k): v for k, v in r.items()}),
]  # fmt: skip

texts = st.one_of(st.none(), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8))
numbers = st.one_of(st.none(), st.integers(-1000, 1000))


def combined(chosen: list[int]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for index in chosen:
        for key, value in PARTS[index][0].items():
            out[key] = {**out.get(key, {}), **value} if isinstance(value, dict) else value
    return out


def by_the_model(rows: list[Record], chosen: list[int]) -> list[Record]:
    out = []
    for before in rows:
        row: Record | None = dict(before)
        # Expressions of ``set`` see the row as it was before any of them.
        for index in sorted(chosen):
            if row is not None and "set" in PARTS[index][0]:
                made = PARTS[index][1](dict(before))
                assert made is not None
                row |= {name: made[name] for name in PARTS[index][0]["set"]}
        for index in sorted(chosen):
            if row is not None and "set" not in PARTS[index][0]:
                row = PARTS[index][1](row)
        if row is not None:
            out.append(row)
    return out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(st.tuples(numbers, numbers, texts), min_size=1, max_size=60),
    chosen=st.sets(st.integers(0, len(PARTS) - 1), min_size=1).map(sorted),
    workers=st.sampled_from([1, 2, 5]),
)
def test_any_spec_gives_what_a_row_by_row_model_gives(
    values: list[tuple[Any, ...]], chosen: list[int], workers: int
) -> None:
    rows = [{"id": i, "a": a, "b": b, "t": t} for i, (a, b, t) in enumerate(values)]
    expected = by_the_model(rows, chosen)
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/a.db", f"{folder}/b.db"
        with sqlite3.connect(source) as c:
            c.execute("create table t (id integer primary key, a integer, b integer, t text)")
            c.executemany("insert into t values (:id, :a, :b, :t)", rows)
        c.close()
        urls = f"sqlite:///{source}", f"sqlite:///{target}"
        specs = {"t": combined(chosen)}
        report = rowferry.copy(*urls, specs=specs, workers=workers, chunk_bytes=200, verify=True)
        assert report.exit_code == 0
        assert report.tables[0].rows_filtered == len(rows) - len(expected)
        names = list(by_the_model([{"id": 0, "a": 1, "b": 1, "t": ""}], chosen)[0])
        with sqlite3.connect(target) as c:
            found = c.execute(f"select {', '.join(names)} from t order by 1").fetchall()
        c.close()
        assert found == [tuple(row[name] for name in names) for row in expected]
        assert rowferry.verify(*urls, specs=specs).equal


def test_a_copy_without_any_of_it_loads_none_of_it(ends: Ends) -> None:
    program = (
        "import sys, rowferry\n"
        f"rowferry.copy({ends.urls[0]!r}, {ends.urls[1]!r})\n"
        "print([m for m in sys.modules if m.startswith(('rowferry.engine.transforming', 'rowferry.engine.staged', "
        "'rowferry.engine.samples', 'rowferry.config', 'rowferry.stages.'))])\n"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "['rowferry.stages.digest']"


def test_counts_that_do_not_close_are_told_apart_by_table() -> None:
    table = TableReport("a", "a", rows_read=10, rows_sent=4, rows_committed=4, rows_fed=5, rows_filtered=1)
    assert table.unclosed() is None
    assert "10 rows read + 0 generated, but 9 sent + 0 filtered" in str(
        msgspec.structs.replace(table, rows_filtered=0).unclosed()
    )
    further = TableReport("a", "b", rows_sent=5, rows_committed=5, further=True)
    assert further.unclosed() is None
    assert msgspec.structs.replace(further, rows_committed=4).unclosed() == "5 rows sent, but 4 committed"
