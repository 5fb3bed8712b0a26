"""The bounded queue between reader and writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from rowferry.adapters.protocol import Block
from rowferry.engine.prefetch import Prefetch
from rowferry.errors import SourceError


def blocks(count: int, size: int = 1000, made: list[int] | None = None) -> Iterator[Block]:
    for number in range(count):
        if made is not None:
            made.append(number)
        yield Block(pa.record_batch({"a": pa.array([number] * size, pa.int64())}))


def test_blocks_pass_in_order() -> None:
    with Prefetch(blocks(100), 50_000) as ahead:
        assert [b.batch.column(0)[0].as_py() for b in ahead] == list(range(100))


def test_reader_stops_at_the_bound_in_bytes() -> None:
    made: list[int] = []
    with Prefetch(blocks(100, made=made), 40_000) as ahead:
        time.sleep(0.1)
        assert len(made) <= 7, "8,000 bytes a block: five wait, one is in hand"
        assert sum(1 for _ in ahead) == 100


def test_a_block_larger_than_the_bound_passes_alone() -> None:
    with Prefetch(blocks(3, size=100_000), 1_000) as ahead:
        assert sum(1 for _ in ahead) == 3


def test_an_error_arrives_after_the_blocks_before_it() -> None:
    def failing() -> Iterator[Block]:
        yield from blocks(2)
        raise SourceError("gone", transient=True)

    seen = 0
    with pytest.raises(SourceError, match="gone"), Prefetch(failing(), 1 << 20) as ahead:
        for _ in ahead:
            seen += 1
    assert seen == 2


def test_leaving_early_closes_the_iterator_and_ends_the_thread() -> None:
    closed = threading.Event()

    def endless() -> Iterator[Block]:
        try:
            while True:
                yield from blocks(1)
        finally:
            closed.set()

    with Prefetch(endless(), 10_000) as ahead:
        next(iter(ahead))
    assert closed.is_set()
    assert not [t for t in threading.enumerate() if t.name == "rowferry-reader"]
