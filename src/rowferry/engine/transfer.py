"""One chunk's rows between reader and writer: digest what was read, convert, digest what is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from rowferry import convert
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.errors import DataError, LedgerError, RefusedError, StoppedError
from rowferry.model import ColumnPlan, Digest, TablePlan, add_counts
from rowferry.stages.digest import Digester


class TableWay:
    """What stays the same for all chunks of a table: its conversions and the schema that is sent."""

    def __init__(self, plan: TablePlan) -> None:
        self.plan = plan
        self.comparisons = [c.comparison for c in plan.columns]
        self.conversions = [conversion_of(c, str(plan.source.name)) for c in plan.columns]
        self.not_null = ["not_null" in c.checks for c in plan.columns]
        self.identity = all(c.identity for c in self.conversions)
        self.schema = pa.schema([pa.field(c.target, c.column.type.arrow) for c in plan.columns])

    def convert(self, batch: pa.RecordBatch, touched: dict[str, int]) -> pa.RecordBatch:
        """Brings a batch of source forms to the target's types. Raises DataError naming the column."""
        arrays = []
        for index, (column, conversion) in enumerate(zip(self.plan.columns, self.conversions, strict=True)):
            array = batch.column(index)
            try:
                array, count = conversion.apply(array)
            except DataError as error:
                error.at(column=column.source)
                raise
            if count:
                touched[column.source] = touched.get(column.source, 0) + count
            if self.not_null[index] and array.null_count:
                raise DataError(
                    "a NULL, where the target's column is NOT NULL",
                    column=column.source,
                    hint="leave the rows out with --where, or allow NULL in the target",
                )
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def conversion_of(column: ColumnPlan, table: str) -> convert.Conversion:
    """The planned conversion of one column. The planner refused what has none."""
    checks = tuple(c for c in column.checks if c != "not_null")
    way = convert.conversion(column.form, column.column.type, checks, column.policy)
    if isinstance(way, str):
        raise RefusedError(way, table=table, column=column.source)
    return way


def write_request(plan: TablePlan, mode: str, job: str = "", chunk: int = 0) -> WriteRequest:
    """Rows of a planned table for its target, as the job's mode has them written."""
    upsert = mode == "upsert"
    return WriteRequest(
        table=plan.target,
        name=plan.load_name or plan.target.name,
        columns=plan.columns,
        mode="upsert" if upsert else "append",
        key=plan.key if upsert else (),
        raw=plan.raw,
        job=job,
        table_index=plan.index,
        chunk=chunk,
    )


def require_all(sent: int, accepted: int, to: str) -> None:
    """Raises LedgerError where the target did not take all rows that were sent."""
    if accepted != sent:
        raise LedgerError(
            f"{sent:,} rows were sent to {to!r} and the target accepted {accepted:,}; rolled back",
            hint="look for triggers, rules or rewrites on the target table",
        )


class Transfer:
    """Counts, digests and converts the blocks of one chunk as they pass."""

    #: Tables that get rows out of the same chunk (``staged.Branch``).
    branches: tuple[Any, ...] = ()
    #: Where rows go that cannot be carried, if anywhere (``quarantine.Aside``).
    aside: Any = None

    def __init__(self, way: TableWay, stop: threading.Event) -> None:
        self._way = way
        self._stop = stop
        self._read = Digester(way.comparisons, "source")
        # Without any conversion (or with raw frames) both digests are of the very same buffers: one is
        # computed, and is both.
        self._sent = self._read if way.identity or way.plan.raw else Digester(way.comparisons, "target")
        self.rows_read = 0
        self.rows_sent = 0
        self.bytes = 0
        self.touched: dict[str, int] = {}
        #: Where the source adds its rows itself, since it hands on raw frames.
        self.intake: Any = None
        if way.plan.raw:
            self.intake = self._read.intake(pa.schema([pa.field(c.source, c.form.arrow) for c in way.plan.columns]))
            if self.intake is None:
                raise AssertionError("raw frames of columns that no intake takes")

    @property
    def digest_read(self) -> Digest:
        return self._read.digest

    @property
    def digest_sent(self) -> Digest:
        return self._sent.digest

    def counts(self) -> dict[str, Any]:
        """What became of rows that were read and not sent: nothing, in a plain copy."""
        return {}

    def prepare(self) -> None:
        """The chunk is about to be committed."""

    def end(self, *, committed: bool) -> None:
        """The chunk is committed, or is given back."""

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yields the blocks that the writer takes."""
        for block in blocks:
            if self._stop.is_set():
                raise StoppedError("stopped")
            batch = block.batch
            self.rows_read += batch.num_rows
            add_counts(self.touched, block.touched or {})
            if self.intake is None:
                self._read.add(batch)
                batch = self._way.convert(batch, self.touched)
                if self._sent is not self._read:
                    self._sent.add(batch)
            self.rows_sent += batch.num_rows
            self.bytes += batch.nbytes if block.raw is None else len(block.raw)
            yield Block(batch, block.raw)
            del batch, block
