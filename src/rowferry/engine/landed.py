"""What has landed of a table of which one of several like rows is kept: rows that are sent again are held against it.

In the copy the row that came first stood for its key. A row out of the quarantine comes last: where the target holds
one of its key by now, it is the one that is left out, whichever the copy would have chosen of the two.
"""

from __future__ import annotations

import threading

import msgspec
import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Target
from rowferry.engine import deduplication
from rowferry.engine.scan import Consumer, Side, reading
from rowferry.model import ColumnPlan, TablePlan
from rowferry.stages.dedup import TableDedup
from rowferry.stages.digest import compare
from rowferry.stages.spec import Dedup


def applies(plan: TablePlan, mode: str) -> bool:
    """Whether rows that are sent again are held against the target's. Not where it holds rows that the copy did not
    compare with, which cannot be told from those that it wrote; nor in an upsert, which writes over what it finds."""
    return plan.dedup is not None and mode != "upsert" and not deduplication.gathers(plan, mode)


class Landed:
    """Keys of the rows that a table of the target has now, and of those that were sent again since. One thread's.

    plan: its way into the table as it is now. Raises what reading it raises. To be closed.
    """

    def __init__(self, target: Target, plan: TablePlan, engine: str, stop: threading.Event) -> None:
        columns = tuple(_among_its_own(column, engine) for column in plan.columns)
        self._dedup = TableDedup(
            Dedup(by=deduplication.dedup_of(plan).by),
            [c.target for c in columns],
            [c.comparison for c in columns],
            limits.DEDUP_BYTES,
        )
        self._sent = 0
        keys = self._dedup.keys()
        consumers: list[Consumer] = [lambda batch: self._dedup.know(keys.of_narrow(batch))]
        there = msgspec.structs.replace(plan, columns=columns, load_name=None)
        try:
            with (
                reading(target, 1) as written,
                Side(written, there, "target", 1, columns=keys.columns, stop=stop) as side,
            ):
                side.scan(consumers)
        except BaseException:
            self.close()
            raise

    def mask(self, rows: pa.RecordBatch) -> pa.BooleanArray | None:
        """n booleans: the rows, in the target's types, whose key no row has that has landed; they count as landed from
        now on. None where that is all of them."""
        self._sent += 1
        return self._dedup.begin(self._sent).mask(rows)

    def close(self) -> None:
        self._dedup.close()


def _among_its_own(column: ColumnPlan, engine: str) -> ColumnPlan:
    """The column compared with other values of the target alone, in its present type."""
    t = column.column.type
    comparison = compare(t, t, source_engine=engine, target_engine=engine)
    return column if comparison is None else msgspec.structs.replace(column, comparison=comparison)
