"""The queue of chunks where one process writes: the ledger's rows, held in memory.

On a server the ledger itself is the queue (``SELECT … FOR UPDATE SKIP LOCKED``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from rowferry.model import ChunkRow


class ChunkQueue:
    """Hands out the chunks of one job to the threads of one process, lowest wave first.

    ``load`` reads the job's chunks from the ledger; it is called at the first claim of each job,
    and again after :meth:`forget` (chunks were added or are to be redone).
    """

    def __init__(self, load: Callable[[str], Iterable[ChunkRow]]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._todo: dict[str, dict[tuple[int, int], ChunkRow]] = {}
        self._held: dict[str, dict[tuple[int, int], ChunkRow]] = {}

    def _open(self, job: str) -> tuple[dict[tuple[int, int], ChunkRow], dict[tuple[int, int], ChunkRow]]:
        if job not in self._todo:
            chunks = sorted(
                (c for c in self._load(job) if c.state == "todo"), key=lambda c: (c.wave, c.table, c.number)
            )
            self._todo[job] = {(c.table, c.number): c for c in chunks}
            self._held[job] = {}
        return self._todo[job], self._held[job]

    def take(self, job: str) -> ChunkRow | None:
        """The next chunk of the lowest wave that is not done, or None if all of that wave are held."""
        with self._lock:
            todo, held = self._open(job)
            first = next(iter(todo.values()), None)
            if first is None or any(c.wave < first.wave for c in held.values()):
                return None
            del todo[first.table, first.number]
            held[first.table, first.number] = first
            return first

    def done(self, job: str, chunk: ChunkRow) -> None:
        with self._lock:
            self._open(job)[1].pop((chunk.table, chunk.number), None)

    def give_back(self, job: str, chunk: ChunkRow) -> None:
        """Puts a chunk that was taken back in its place."""
        with self._lock:
            todo, held = self._open(job)
            if held.pop((chunk.table, chunk.number), None) is not None:
                todo[chunk.table, chunk.number] = chunk
                self._todo[job] = dict(sorted(todo.items(), key=lambda i: (i[1].wave, *i[0])))

    def pending(self, job: str) -> int:
        with self._lock:
            todo, held = self._open(job)
            return len(todo) + len(held)

    def forget(self, job: str) -> None:
        """Reads the job's chunks from the ledger anew at the next claim."""
        with self._lock:
            self._todo.pop(job, None)
            self._held.pop(job, None)
