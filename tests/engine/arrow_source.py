"""A Source over Arrow tables in memory: small, whole, and split into as many chunks as a test likes."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rowferry.adapters.protocol import Block, ReadRequest
from rowferry.model import Bound, Column, ColumnPlan, Table, TableName, TablePlan
from rowferry.stages.digest import compare
from rowferry.types import Type


class ArrowReader:
    def __init__(self, tables: dict[str, pa.Table]) -> None:
        self._tables = tables
        self.closed = False

    def read(self, request: ReadRequest) -> Iterator[Block]:
        assert not self.closed
        table = self._tables[str(request.table.name)]
        rows = table.slice(request.bound.data["start"], request.bound.data["count"])
        rows = rows.select([name for name, _ in request.columns])
        for (_, form), field in zip(request.columns, rows.schema, strict=True):
            assert field.type == form.arrow
        for batch in rows.to_batches(max_chunksize=request.bound.data["batch_rows"]):
            if batch.num_rows:
                yield Block(batch)

    def fingerprint(self, name: TableName) -> str:
        return "same" if str(name) in self._tables else ""

    def close(self) -> None:
        self.closed = True


class ArrowSource:
    """``chunk_rows`` and ``batch_rows`` cut the tables; the tables may be replaced between reads."""

    def __init__(self, tables: dict[str, pa.Table], chunk_rows: int = 7, batch_rows: int = 3) -> None:
        self.tables = tables
        self.chunk_rows = chunk_rows
        self.batch_rows = batch_rows
        self.readers: list[ArrowReader] = []

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        count = self.tables[str(table.name)].num_rows
        starts = range(0, max(count, 1), self.chunk_rows)
        return [Bound({"start": s, "count": self.chunk_rows, "batch_rows": self.batch_rows}) for s in starts]

    def reader(self) -> ArrowReader:
        self.readers.append(ArrowReader(self.tables))
        return self.readers[-1]


def plan_of(columns: dict[str, Type | tuple[Type, Type]], key: tuple[str, ...] = (), name: str = "t") -> TablePlan:
    """A plan for a table whose columns have one type, or (source, target) types."""
    plans, ours, theirs = [], [], []
    for column, types in columns.items():
        source, target = types if isinstance(types, tuple) else (types, types)
        comparison = compare(source, target, source_engine="duckdb", target_engine="duckdb")
        assert comparison is not None
        ours.append(Column(column, source))
        theirs.append(Column(column, target))
        plans.append(ColumnPlan(column, source, column, theirs[-1], comparison))
    table = TableName(None, name)
    return TablePlan(0, Table(table, tuple(ours)), Table(table, tuple(theirs)), tuple(plans), key=key)
