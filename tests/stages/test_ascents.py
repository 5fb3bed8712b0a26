"""Keys that come in ascending order: put down as such, and claimed one by one where others reach in between."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry.stages.ascents import Ascents, ascent_of
from rowferry.stages.dedup import Keys, TableDedup
from rowferry.stages.digest import compare
from rowferry.stages.spec import Dedup
from rowferry.types import Type

EDGES = [-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1]


def table_of(kind: str = "int64", memory_bytes: int = 1 << 20) -> TableDedup:
    way = compare(Type(kind), Type(kind), source_engine="postgres", target_engine="duckdb")
    assert way is not None
    return TableDedup(Dedup(by=("k",)), ["k"], [way], memory_bytes)


def batch_of(numbers: list[int | None], type_: pa.DataType) -> pa.RecordBatch:
    # Not at the buffer's beginning, as batches that were cut are.
    return pa.RecordBatch.from_arrays([pa.array([7, *numbers], type_)], names=["k"]).slice(1)


class Model:
    """Keys and their owners, row by row."""

    def __init__(self) -> None:
        self.owners: dict[int | None, int] = {}
        self.tries: dict[int, list[int]] = {}
        self.number = 1

    def begin(self, chunk: int) -> tuple[int, list[int]]:
        self.number += 1
        earlier = list(self.tries.setdefault(chunk, []))
        self.tries[chunk].append(self.number)
        return self.number, earlier

    def kept(self, numbers: list[int | None], owner: int, earlier: list[int]) -> list[int | None]:
        out = []
        for number in numbers:
            held = self.owners.get(number)
            if held is None or (held != owner and held in earlier):
                self.owners[number] = owner
                out.append(number)
        return out


ascending = st.builds(
    lambda first, step, count: [first + step * i for i in range(count)],
    st.integers(-120, 120), st.sampled_from([1, 1, 3, 300]), st.integers(1, 40),
)  # fmt: skip
any_numbers = st.lists(st.one_of(st.integers(-120, 120), st.none()), max_size=8)
edges = st.lists(st.sampled_from(EDGES), max_size=4)
calls = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.one_of(ascending, ascending, any_numbers, edges), max_size=4)), max_size=12
)


@given(calls, st.sampled_from([16_384, 1 << 20]))
@settings(max_examples=300, deadline=None)
def test_tries_of_chunks_keep_what_the_model_keeps(
    given_calls: list[tuple[int, list[list[int | None]]]], memory_bytes: int
) -> None:
    table, model = table_of(memory_bytes=memory_bytes), Model()
    for chunk, batches in given_calls:
        one, (owner, earlier) = table.begin(chunk), model.begin(chunk)
        for numbers in batches:
            kept = one.filter(batch_of(numbers, pa.int64())).column(0).to_pylist()
            assert kept == model.kept(numbers, owner, earlier)
    table.close()


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64"])
def test_numbers_of_every_width_are_given_back_as_they_were(kind: str) -> None:
    type_ = Type(kind).arrow
    top = 2 ** (type_.bit_width - 1)
    for numbers in ([-top, -1, 0, top - 1], [5], list(range(-100, 100, 3))):
        column = batch_of(numbers, type_).column(0)
        one = ascent_of(column, 3)
        if kind == "int64" and len(numbers) == 4:
            assert one is None, "a step that four bytes do not hold"
        else:
            assert one is not None
            assert one.numbers(type_).equals(column)
    table = table_of(kind)
    one, other = table.begin(0), table.begin(1)
    assert one.filter(batch_of([1, 2, 3, 90], type_)).num_rows == 4
    assert other.filter(batch_of([2, 4], type_)).column(0).to_pylist() == [4]


@pytest.mark.parametrize(
    "numbers",
    [[], [None, 1], [2, 1], [1, 1], [0, 2**63 - 1, -(2**63), 5], [-(2**63), 2**63 - 1], [0, 2**32], [1, 3, 2, 9]],
)
def test_what_does_not_ascend_is_no_ascent(numbers: list[int | None]) -> None:
    assert ascent_of(pa.array(numbers, pa.int64()), 1) is None


def test_ascents_take_a_byte_or_two_a_key_and_no_more_than_they_may() -> None:
    held = Ascents(100_000)
    taken = 0
    for start in range(0, 10_000_000, 80_000):
        one = ascent_of(pa.array(range(start, start + 70_000, 7), pa.int64()), 2)
        assert one is not None
        taken += held.add(one)
    assert taken == 9
    opened = list(held.open(85_000, 85_000))
    assert [(one.first, one.last) for one in opened] == [(80_000, 149_993)]
    assert list(held.open(90_000, 120_000)) == []
    assert not held.add(opened[0])


def test_what_is_known_before_the_first_chunk_is_asked_for_key_by_key() -> None:
    table, other = table_of(), table_of()
    keys = other.keys()
    table.know(keys.of(batch_of([10, 5000], pa.int64())))
    one = table.begin(0)
    assert one.filter(batch_of([8, 9, 10, 11], pa.int64())).column(0).to_pylist() == [8, 9, 11]
    assert one.filter(batch_of(list(range(4999, 5002)), pa.int64())).column(0).to_pylist() == [4999, 5001]


def test_threads_that_meet_in_between_keep_each_key_once() -> None:
    table, kept = table_of(), []

    def work(number: int) -> None:
        one = table.begin(number)
        for start in range(0, 20_000, 500):
            at = (start * (1 + 2 * number)) % 20_000
            numbers = list(range(at, at + 600, 1 + number % 3))
            kept.append(one.filter(batch_of(numbers, pa.int64())).column(0).to_pylist())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [number for part in kept for number in part]
    assert len(found) == len(set(found))
    assert set(found) >= set(range(20_000))


def test_with_winners_no_key_is_taken_for_new_because_it_ascends() -> None:
    """Another row of the key may be the one that is kept."""
    way = compare(Type("int64"), Type("int64"), source_engine="postgres", target_engine="duckdb")
    assert way is not None
    dedup = Dedup(by=("k",), keep="last by v")
    ranked = TableDedup(dedup, ["k", "v"], [way, way], 1 << 20, ranked=True)
    batches = [pa.RecordBatch.from_pydict({"k": [1, 2, 3], "v": v}) for v in ([1, 1, 2], [2, 2, 1])]
    keys, rows = Keys(["k", "v"], [way, way], ("k",)), Keys(["k", "v"], [way, way], ())
    winning = pa.RecordBatch.from_pydict({"k": [1, 2, 3], "v": [2, 2, 2]})
    ranked.rank(keys.of(winning), rows.of(winning))
    for table in (ranked, ranked.fresh()):
        one = table.begin(0)
        assert [one.filter(batch).to_pydict() for batch in batches] == [
            {"k": [3], "v": [2]},
            {"k": [1, 2], "v": [2, 2]},
        ]
