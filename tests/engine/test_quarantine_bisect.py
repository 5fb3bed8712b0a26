"""The search for refused rows, against a target of a few lines whose rules are known: who is refused, and in how many
tries. (Real targets: tests/end_to_end/test_quarantine.py.)"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry import limits
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.engine.bisect import Search, Sought, refuses_rows
from rowferry.engine.spool import Spool
from rowferry.errors import DataError, RowferryError, TargetError
from rowferry.model import ForeignKey, Table, TableName


class Uniques:
    """Takes integers: no negative ones, and none twice. As a list that can go back to a mark."""

    def __init__(self, savepoints: bool, names_rows: bool) -> None:
        self.rows: list[int] = []
        self._mark = 0
        self._savepoints = savepoints
        self._names_rows = names_rows

    def mark(self) -> None:
        if self._savepoints:
            self._mark = len(self.rows)

    def undo(self) -> None:
        del self.rows[self._mark :]

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        values = [v for b in blocks for v in b.batch.column(0).to_pylist()]
        for row, value in enumerate(values):
            if value < 0 or value in self.rows:
                error = DataError(f"{value} is refused")
                error.row = row if self._names_rows else None
                raise error
            self.rows.append(value)
        return len(values)


def _search(writer: Any, values: list[int], batch_rows: int, mode: str = "append") -> tuple[Search, Spool]:
    spool = Spool()
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.int64())], names=["n"])
    for start in range(0, len(values), batch_rows):
        spool.add(batch.slice(start, batch_rows))
    table = Table(TableName(None, "t"), ())
    return Search(writer, WriteRequest(table, table.name, (), mode=mode), spool, lambda row, error: None), spool


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-3, 40), max_size=70), st.integers(1, 20), st.booleans(), st.booleans(),
    st.sampled_from(["append", "upsert"]),
)  # fmt: skip
def test_search_loads_what_row_by_row_would_be_taken(
    values: list[int], batch_rows: int, savepoints: bool, names_rows: bool, mode: str
) -> None:
    taken: list[int] = []
    refused = set()
    for row, value in enumerate(values):
        if value < 0 or value in taken:
            refused.add(row)
        else:
            taken.append(value)
    writer = Uniques(savepoints, names_rows)
    search, spool = _search(writer, values, batch_rows, mode)
    with spool:
        assert search.load(savepoints) == len(taken)
    assert search.refused == refused
    assert writer.rows == taken
    if savepoints and mode == "append":
        levels = math.ceil(math.log2(max(2, len(values))))
        assert search.tries <= 1 + len(refused) * (4 if names_rows else 2 * levels)


def test_search_of_refused_rows_without_end_stops_with_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BISECT_TRIES_MAX", 50)
    search, spool = _search(Uniques(True, False), [-1] * 1000, 100)
    with spool, pytest.raises(DataError, match="50 trial loads did not find them all"):
        search.load(True)
    assert search.tries == 51


def test_spool_beyond_its_limit_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPOOL_BYTES_MAX", 10_000)
    with Sought() as spool, pytest.raises(DataError, match="chunk is larger than"):
        for _ in range(100):
            spool.add(pa.RecordBatch.from_arrays([pa.array(range(1000))], names=["n"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.sampled_from([0, 100, 1 << 20]), st.data())
def test_spool_gives_any_range_of_rows(sizes: list[int], bytes_held_max: int, data: st.DataObject) -> None:
    rows = list(range(sum(sizes)))
    with Spool(bytes_held_max) as spool:
        at = 0
        for size in sizes:
            spool.add(pa.RecordBatch.from_arrays([pa.array(rows[at : at + size], pa.int64())], names=["n"]))
            at += size
        assert spool.rows == len(rows)
        for _ in range(3):
            start = data.draw(st.integers(0, len(rows)))
            end = data.draw(st.integers(start, len(rows)))
            assert [v for b in spool.batches(start, end) for v in b.column(0).to_pylist()] == rows[start:end]


def test_refuses_rows_of_errors_that_may_pass_or_are_nobodys_row_is_false() -> None:
    raised = TargetError("RAISE", code="P0001")
    assert not refuses_rows(raised)
    raised.of_row = True
    assert refuses_rows(raised)
    assert refuses_rows(DataError("x"))
    assert not refuses_rows(DataError("x", transient=True))
    assert not refuses_rows(RowferryError("x"))
    assert not refuses_rows(ValueError("x"))


class Family(Uniques):
    """Takes rows whose parent, their half, is there when their part ends; 0 needs none."""

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        values = [v for b in blocks for v in b.batch.column(0).to_pylist()]
        self.rows += values
        for value in values:
            if value and value // 2 not in self.rows:
                raise DataError(f"{value} has no parent")
        return len(values)


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(20)), st.sets(st.integers(0, 19), max_size=4))
def test_search_in_a_table_that_refers_to_itself_refuses_only_rows_without_a_parent(
    values: list[int], missing: set[int]
) -> None:
    values = [v for v in values if v not in missing]
    rooted = set()
    for value in sorted(values):
        if value == 0 or value // 2 in rooted:
            rooted.add(value)
    writer = Family(True, False)
    name = TableName(None, "t")
    table = Table(name, (), foreign_keys=(ForeignKey("self", ("parent",), name),))
    said: list[int] = []
    with Spool() as spool:
        spool.add(pa.RecordBatch.from_arrays([pa.array(values, pa.int64())], names=["n"]))
        search = Search(writer, WriteRequest(table, name, ()), spool, lambda row, error: said.append(values[row]))
        assert search.load(True) == len(rooted)
    assert set(writer.rows) == rooted
    assert len(writer.rows) == len(rooted)
    assert sorted(said) == sorted(set(values) - rooted)
