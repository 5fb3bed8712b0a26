"""verify_tables against a row-by-row model, over tables that differ in every way."""

from __future__ import annotations

import collections
import threading

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.arrow_source import ArrowSource, plan_of
from rowferry import limits
from rowferry.engine import verify as verify_module
from rowferry.engine.narrow import Balance, groups_of
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.errors import SourceError, StoppedError, TargetError
from rowferry.types import TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, Type

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", None])), max_size=30)
COLUMNS = {"id": (Type("int32"), Type("int64")), "v": Type("text")}


def table_of(rows: list[tuple[int | None, str | None]], side: str) -> pa.Table:
    integer = pa.int32() if side == "source" else pa.int64()
    return pa.table({"id": pa.array([r[0] for r in rows], integer), "v": pa.array([r[1] for r in rows], pa.string())})


def compared(source: list, target: list, key: tuple[str, ...], **options: object) -> TableDifference:
    ours, theirs = ArrowSource({"t": table_of(source, "source")}), ArrowSource({"t": table_of(target, "target")}, 5, 2)
    found = verify_tables(ours, theirs, [plan_of(COLUMNS, key)], workers=2, **options)[0]
    assert all(reader.closed for reader in ours.readers + theirs.readers)
    return found


def model(source: list, target: list, keyed: bool) -> tuple[int, int, int]:
    """(missing, extra, changed), row by row."""
    left, right = collections.Counter(source), collections.Counter(target)
    surplus: dict[object, list[int]] = collections.defaultdict(lambda: [0, 0])
    for row in left | right:
        key = row[0] if keyed else row
        surplus[key][0] += max(left[row] - right[row], 0)
        surplus[key][1] += max(right[row] - left[row], 0)
    changed = sum(min(pair) for pair in surplus.values())
    return sum(a for a, _ in surplus.values()) - changed, sum(b for _, b in surplus.values()) - changed, changed


@pytest.mark.parametrize("rows_held", [3, 500_000])
@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("keyed", [True, False])
def test_verify_any_two_tables_counts_and_names_as_the_model(
    monkeypatch: pytest.MonkeyPatch, rows_held: int, kept_bytes: int, keyed: bool
) -> None:
    monkeypatch.setattr(limits, "VERIFY_ROWS_HELD", rows_held)
    monkeypatch.setattr(verify_module, "KEPT_BYTES_MAX", kept_bytes)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ROWS, ROWS)
    def run(source: list, changes: list) -> None:
        target = [*source[: len(source) // 2], *changes]
        expected = model(source, target, keyed)
        found = compared(source, target, ("id",) if keyed else (), named_max=1000)
        assert (found.missing, found.extra, found.changed) == expected
        assert found.equal == (expected == (0, 0, 0))
        assert (found.digest_source == found.digest_target) == found.equal
        assert found.note is None
        named = collections.Counter()
        for row in found.named:
            named[row.kind] += row.count
        assert (named["missing"], named["extra"], named["changed"]) == expected
        assert_values(found, source, target)

    run()


def assert_values(found: TableDifference, source: list, target: list) -> None:
    """What is named stands in the tables as it is named."""
    ours = {(str(a), b) for a, b in source}
    theirs = {(str(a), b) for a, b in target}
    for row in found.named:
        if row.kind == "missing":
            assert row.target is None
            assert (row.source["id"], row.source["v"]) in ours
        elif row.kind == "extra":
            assert row.source is None
            assert (row.target["id"], row.target["v"]) in theirs
        else:
            assert set(row.source) == set(row.target) == {"v"}
            assert (row.key["id"], row.source["v"]) in ours
            assert (row.key["id"], row.target["v"]) in theirs


@settings(max_examples=15, deadline=None)
@given(ROWS, ROWS, st.booleans())
def test_verify_contained_extra_rows_are_no_difference(source: list, more: list, keyed: bool) -> None:
    found = compared(source, [*source, *more], ("id",) if keyed else (), contained=True)
    assert found.equal
    assert found.named == ()
    missing, _, changed = model(source, more, keyed)
    found = compared(source, more, ("id",) if keyed else (), contained=True, named_max=1000)
    assert (found.missing, found.extra, found.changed) == (missing, 0, changed)
    assert all(row.kind != "extra" for row in found.named)


def test_verify_many_rows_few_differences_every_kind_is_named() -> None:
    source = [(i, f"v{i}") for i in range(20_000)]
    target = [(i, "other" if i == 7 else f"v{i}") for i in range(20_000) if i != 19_999] + [(-5, "x"), (50_000, "y")]
    ours = ArrowSource({"t": table_of(source, "source")}, 5000, 1000)
    theirs = ArrowSource({"t": table_of(list(reversed(target)), "target")}, 3000, 700)
    found = verify_tables(ours, theirs, [plan_of(COLUMNS, ("id",))], workers=2, named_max=3)[0]
    assert (found.missing, found.extra, found.changed) == (1, 2, 1)
    assert {row.kind for row in found.named} == {"missing", "extra", "changed"}
    changed = next(row for row in found.named if row.kind == "changed")
    assert (changed.key, changed.source, changed.target) == ({"id": "7"}, {"v": "v7"}, {"v": "other"})
    assert found.complete
    assert len(found.entries) == 4


def test_verify_more_differences_than_are_held_counts_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFY_ROWS_HELD", 500)
    source = [(i, "a") for i in range(3000)]
    target = [(i, "b") for i in range(1000, 4000)]
    found = compared(source, target, ("id",), named_max=7)
    assert (found.missing, found.extra, found.changed) == (1000, 1000, 2000)
    assert len(found.named) == 7
    assert len(found.entries) == 500
    assert not found.complete


def test_verify_progress_each_row_of_each_side_once() -> None:
    seen: collections.Counter = collections.Counter()
    lock = threading.Lock()

    def note(table: int, side: str, rows: int) -> None:
        with lock:
            seen[table, side] += rows

    compared([(i, "a") for i in range(40)], [(i, "b") for i in range(30)], ("id",), on_progress=note)
    assert seen == {(0, "source"): 40, (0, "target"): 30}


def test_verify_rows_move_between_the_passes_the_note_says_so() -> None:
    plan = plan_of(COLUMNS, ("id",))
    ours = ArrowSource({"t": table_of([(1, "a"), (2, "b")], "source")})
    theirs = ArrowSource({"t": table_of([(1, "a"), (2, "other")], "target")})
    reads = []

    def change(table: int, side: str, rows: int) -> None:
        reads.append(side)
        if len(reads) == 2:  # after the only batch of each side was seen in the first pass
            theirs.tables["t"] = table_of([(1, "a"), (2, "b")], "target")

    found = verify_tables(ours, theirs, [plan], on_progress=change)[0]
    assert found.equal
    assert found.digest_source != found.digest_target
    assert found.note is not None


def test_verify_values_that_python_cannot_hold_are_named_as_text() -> None:
    t = Type("timestamp")
    stamps = [TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, 2**62, None]

    def table(values: list) -> pa.Table:
        return pa.table({"id": pa.array(range(4), pa.int32()), "at": pa.array(values, pa.int64()).view(t.arrow)})

    plan = plan_of({"id": Type("int32"), "at": t}, ("id",))
    ours, theirs = ArrowSource({"t": table(stamps)}), ArrowSource({"t": table([0, 0, 0, 0])})
    found = verify_tables(ours, theirs, [plan])[0]
    assert found.changed == 4
    assert [row.source["at"] for row in found.named] == [
        "infinity",
        "-infinity",
        "148108-07-06 14:00:27.387904",
        None,
    ]


@pytest.mark.parametrize("side", ["source", "target"])
def test_verify_a_reader_fails_the_error_names_the_table(side: str) -> None:
    sources = {s: ArrowSource({"t": table_of([(i, "a") for i in range(50)], s)}) for s in ("source", "target")}

    class Failing(ArrowSource):
        def reader(self):  # type: ignore[no-untyped-def]
            raise SourceError("connection refused")

    sources[side] = Failing(sources[side].tables)
    blamed = SourceError if side == "source" else TargetError
    with pytest.raises(blamed, match="table 't': connection refused"):
        verify_tables(sources["source"], sources["target"], [plan_of(COLUMNS, ("id",))], workers=2)


def test_verify_stopped_raises_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        compared([(1, "a")], [(1, "a")], ("id",), stop=stop)


def test_verify_key_that_is_not_compared_falls_back_to_the_multiset() -> None:
    plan = plan_of(COLUMNS, ("elsewhere",))
    ours, theirs = (ArrowSource({"t": table_of([(1, v)], s)}) for v, s in (("a", "source"), ("b", "target")))
    found = verify_tables(ours, theirs, [plan])[0]
    assert (found.missing, found.extra, found.changed) == (1, 1, 0)


def test_verify_empty_tables_are_equal() -> None:
    found = compared([], [], ("id",))
    assert found.equal
    assert found.digest_source.rows == 0


def test_balance_rows_that_cancel_do_not_pile_up() -> None:
    balance = Balance(rows_max=10)
    digests = pa.array([bytes([i]) * 16 for i in range(8)], pa.binary(16))
    for _ in range(100):
        balance.add(digests, digests, 1)
        balance.add(digests, digests, -1)
    balance.add(digests.slice(0, 1), digests.slice(1, 1), 1)
    assert balance.entries().to_pylist() == [{"key": b"\0" * 16, "source": 1, "target": 0}]


def test_groups_of_buckets_hold_no_more_than_allowed() -> None:
    rows = {1: 5, 2: 5, 3: 1, 4: 100, 5: 1}
    assert groups_of([1, 2, 3, 4, 5], [rows.get(i, 0) for i in range(6)], 10) == [[1, 2], [3], [4], [5]]
