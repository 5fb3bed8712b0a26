"""After a value stopped a copy: how many more there are, so that the user can choose a policy knowing it."""

from __future__ import annotations

import threading

import msgspec
import pyarrow as pa

from rowferry.adapters.protocol import Source
from rowferry.engine.scan import Consumer, Side
from rowferry.engine.transfer import conversion_of
from rowferry.errors import DataError, RowferryError
from rowferry.model import Plan


def count_unfit(source: Source, plan: Plan, error: DataError, workers: int, stop: threading.Event) -> int | None:
    """Reads the column of a DataError again and counts the values that its conversion refuses.

    None where that cannot be told: the value was refused by a reader or by the server, not by a
    conversion, or the source does not answer any more.
    """
    table = next((t for t in plan.tables if str(t.source.name) == error.table), None)
    column = next((c for c in table.columns if c.source == error.column), None) if table else None
    if table is None or column is None:
        return None
    conversion = conversion_of(msgspec.structs.replace(column, policy="null"), str(table.source.name))
    counts: list[int] = []

    def take(batch: pa.RecordBatch) -> None:
        counts.append(conversion.apply(batch.column(0))[1])

    consumers: list[Consumer] = [take] * workers
    try:
        with Side(source, table, "source", workers, columns=(column.target,), stop=stop) as side:
            side.scan(consumers[: side.threads])
    except RowferryError:
        return None  # the count is a help beside the error that is raised anyway
    return sum(counts) or None
