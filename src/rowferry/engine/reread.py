"""Reads one side of a table again and digests it: what ``copy --verify`` holds against what was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow as pa

from rowferry.adapters.protocol import Source
from rowferry.engine.scan import Consumer, Side
from rowferry.model import Digest, TablePlan
from rowferry.stages.digest import Digester


def digest_table(
    source: Source,
    plan: TablePlan,
    side: str,
    workers: int,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
    stop: threading.Event | None = None,
) -> Digest:
    """The digest of a whole table as ``side`` (source | target) of the plan. Raises what a reader raised."""

    def consumer(digester: Digester) -> Consumer:
        def take(batch: pa.RecordBatch) -> None:
            digester.add(batch)
            on_rows(batch.num_rows)

        return take

    with Side(source, plan, side, workers, stop=stop) as scanned:
        digesters = [scanned.digester() for _ in range(scanned.threads)]
        scanned.scan([consumer(d) for d in digesters])
    return sum((d.digest for d in digesters), Digest())
