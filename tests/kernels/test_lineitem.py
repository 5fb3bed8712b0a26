"""The generator of lineitem, on which benchmarks stand: seeded, lazy, and of TPC-H's shape."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import pyarrow as pa
import pytest

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "lineitem.py"


@pytest.fixture(scope="module")
def lineitem() -> Any:
    spec = importlib.util.spec_from_file_location("lineitem", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batches_are_valid_seeded_and_of_the_asked_size(lineitem: Any) -> None:
    batches = list(lineitem.batches(10_000, batch_rows=4096))
    assert [b.num_rows for b in batches] == [4096, 4096, 1808]
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema == lineitem.SCHEMA
    again = list(lineitem.batches(10_000, batch_rows=4096))
    assert all(a.equals(b) for a, b in zip(batches, again, strict=True))
    assert not next(lineitem.batches(4096, seed=7)).equals(batches[0])


def test_primary_key_is_unique_and_values_keep_their_widths(lineitem: Any) -> None:
    table = pa.Table.from_batches(lineitem.batches(50_000))
    assert table.group_by(list(lineitem.PRIMARY_KEY)).aggregate([]).num_rows == 50_000
    for name, limit in (("l_comment", 44), ("l_shipmode", 10), ("l_shipinstruct", 25), ("l_returnflag", 1)):
        assert pa.compute.max(pa.compute.utf8_length(table[name])).as_py() <= limit


def test_a_stream_of_any_size_is_made_lazily(lineitem: Any) -> None:
    reader = lineitem.reader(scale_factor=1000)
    assert reader.read_next_batch().num_rows == lineitem.BATCH_ROWS
    assert lineitem.rows_of(1) == 6_000_000
    assert list(lineitem.batches(0)) == []
