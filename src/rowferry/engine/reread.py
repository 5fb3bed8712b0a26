"""Reads one side of a table again and digests it: what ``copy --verify`` holds against what was sent."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from rowferry import limits
from rowferry.adapters.protocol import ReadRequest, Source
from rowferry.errors import RowferryError, StoppedError
from rowferry.model import Bound, Digest, Table, TablePlan
from rowferry.stages.digest import Digester
from rowferry.types import Type


def side_of(plan: TablePlan, side: str) -> tuple[Table, tuple[tuple[str, Type], ...], str | None]:
    """The table of one side, its (column, form) pairs in the plan's order, and its condition."""
    if side == "source":
        return plan.source, tuple((c.source, c.form) for c in plan.columns), plan.where
    return plan.target, tuple((c.target, c.column.type) for c in plan.columns), None


def digest_table(
    source: Source,
    plan: TablePlan,
    side: str,
    workers: int,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
    stop: threading.Event | None = None,
) -> Digest:
    """The digest of a whole table as ``side`` of the plan. Raises what a reader raised."""
    table, columns, where = side_of(plan, side)
    todo = collections.deque(source.split(table, where, limits.CHUNK_BYTES, 0))
    total = [Digest()] * workers
    errors: list[BaseException] = []

    def run(number: int) -> None:
        digester = Digester([c.comparison for c in plan.columns], side)
        try:
            reader = source.reader()
            try:
                while not errors:
                    try:
                        bound: Bound = todo.popleft()
                    except IndexError:
                        break
                    for block in reader.read(ReadRequest(table, columns, bound, where, limits.BATCH_BYTES)):
                        if stop is not None and stop.is_set():
                            raise StoppedError("stopped on request")
                        digester.add(block.batch)
                        on_rows(block.batch.num_rows)
            finally:
                reader.close()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)
        total[number] = digester.digest

    threads = [threading.Thread(target=run, args=(n,), name=f"rowferry-reread-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        error = errors[0]
        raise error.at(table=str(table.name)) if isinstance(error, RowferryError) else error
    return sum(total, Digest())
