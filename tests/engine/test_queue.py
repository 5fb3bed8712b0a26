"""The in-memory queue of chunks where one process writes."""

from __future__ import annotations

from rowferry.adapters.queue import ChunkQueue
from rowferry.model import Bound, ChunkRow


def chunk(table: int, number: int, wave: int = 0, state: str = "todo") -> ChunkRow:
    return ChunkRow(table, number, Bound({}), wave, state)


def test_done_chunks_are_not_handed_out() -> None:
    queue = ChunkQueue(lambda job: [chunk(0, 0, state="done"), chunk(0, 1)])
    first = queue.take("j")
    assert first is not None
    assert first.number == 1
    assert queue.take("j") is None
    assert queue.pending("j") == 1
    queue.done("j", first)
    assert queue.pending("j") == 0


def test_a_later_wave_waits_for_all_of_the_one_before() -> None:
    queue = ChunkQueue(lambda job: [chunk(0, 0, wave=1), chunk(1, 0, wave=0)])
    parent = queue.take("j")
    assert parent is not None
    assert parent.table == 1
    assert queue.take("j") is None
    queue.done("j", parent)
    child = queue.take("j")
    assert child is not None
    assert child.table == 0


def test_a_chunk_given_back_comes_again_first() -> None:
    queue = ChunkQueue(lambda job: [chunk(0, n) for n in range(3)])
    first = queue.take("j")
    assert first is not None
    queue.give_back("j", first)
    again = queue.take("j")
    assert again is not None
    assert again.number == 0
    assert queue.pending("j") == 3
