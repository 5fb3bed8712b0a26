"""Helpers of the contract suite: an adapter driven by hand, one call of the protocol after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import convert, endpoint
from rowferry.adapters import registry
from rowferry.adapters.protocol import (
    Block,
    Capabilities,
    Reader,
    ReadRequest,
    Source,
    SourceOptions,
    Target,
    TargetOptions,
    Writer,
    WriteRequest,
)
from rowferry.model import (
    Bound,
    ChunkRow,
    Column,
    ColumnPlan,
    Comparison,
    JobRow,
    Refusal,
    StepRow,
    Table,
    TableName,
)
from rowferry.stages.digest import Digester, compare
from rowferry.types import Type

JOB = "job-1"


def capabilities(url: str) -> Capabilities:
    return registry.capabilities(endpoint.parse(url).engine)


@contextlib.contextmanager
def source_at(url: str, **options: Any) -> Iterator[Source]:
    with contextlib.closing(registry.open_source(endpoint.parse(url), SourceOptions(**options))) as source:
        yield source


@contextlib.contextmanager
def target_at(url: str, **options: Any) -> Iterator[Target]:
    with contextlib.closing(registry.open_target(endpoint.parse(url), TargetOptions(**options))) as target:
        yield target


def described(source: Source, name: str) -> Table:
    table = source.describe(TableName(None, name))
    assert table is not None
    return table


def request(table: Table, bound: Bound, **more: Any) -> ReadRequest:
    """Reads the columns in the forms that they come in by default."""
    columns = more.pop("columns", None) or tuple((c.name, c.type) for c in table.columns)
    return ReadRequest(table=table, columns=columns, bound=bound, **more)


def intake_of(forms: Sequence[Type]) -> Any:
    """What a source's raw frames are digested by: columns of these forms, each compared as itself."""
    pairs = [compare(form, form, source_engine="postgres", target_engine="postgres") for form in forms]
    schema = pa.schema([(str(i), form.arrow) for i, form in enumerate(forms)])
    intake = Digester([p for p in pairs if p], "source").intake(schema)
    assert intake is not None
    return intake


def batches(reader: Reader, wanted: ReadRequest) -> list[pa.RecordBatch]:
    """All batches of a chunk, each held to what the protocol says of its shape."""
    found = []
    for block in reader.read(wanted):
        assert block.batch.num_rows > 0, "an empty block"
        assert block.batch.schema.names == [name for name, _ in wanted.columns]
        assert [f.type for f in block.batch.schema] == [form.arrow for _, form in wanted.columns]
        block.batch.validate(full=True)
        found.append(block.batch)
    return found


def values(found: Iterable[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    """Rows of batches as tuples, in the order of their first column."""
    rows = [row for batch in found for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]
    return sorted(rows, key=lambda r: (r[0] is None, r[0] if r[0] is not None else 0))


def read_all(url: str, name: str, *, chunk_bytes: int = 1 << 24, where: str | None = None) -> list[tuple[Any, ...]]:
    """All rows of a table as the source adapter gives them, over all chunks."""
    with source_at(url) as source:
        table = described(source, name)
        source.open_snapshot(1)
        bounds = source.split(table, where, chunk_bytes, 0)
        with contextlib.closing(source.reader()) as reader:
            return values(b for bound in bounds for b in batches(reader, request(table, bound, where=where)))


def planned(target: Target, column: Column) -> ColumnPlan | Refusal:
    """The way of one source column into a new table, as the planner would find it."""
    into = target.plan_column(column, column.type)
    if isinstance(into, Refusal):
        return into
    way = convert.conversion(column.type, into.type, target.checks(into))
    if isinstance(way, str):
        return Refusal(column.name, way)
    comparison = Comparison(column.type, into.type, "")
    return ColumnPlan(column.name, column.type, into.name, into, comparison, None, target.checks(into))


def new_table(target: Target, source: Table, name: str) -> tuple[Table, tuple[ColumnPlan, ...]]:
    """The target table that a copy of ``source`` would make (nothing is made yet)."""
    columns = []
    for column in source.columns:
        found = planned(target, column)
        assert isinstance(found, ColumnPlan), f"{column}: {found}"
        columns.append(found)
    table = Table(
        name=TableName(None, name), columns=tuple(c.column for c in columns), primary_key=source.primary_key,
        unique_keys=source.unique_keys,
    )  # fmt: skip
    return table, tuple(columns)


def canonical(batch: pa.RecordBatch, columns: Sequence[ColumnPlan]) -> pa.RecordBatch:
    """The batch as ``Writer.write`` wants it, by the engine's own conversions."""
    arrays = []
    for index, plan in enumerate(columns):
        checks = tuple(c for c in plan.checks if c != "not_null")
        way = convert.conversion(plan.form, plan.column.type, checks)
        assert not isinstance(way, str), way
        arrays.append(way.apply(convert.canonical_array(batch.column(index), plan.form))[0])
    schema = pa.schema([pa.field(p.target, p.column.type.arrow) for p in columns])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def job_row(name: str = JOB, key: str = "key") -> JobRow:
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    return JobRow(id=name, name=name, key=key, state="running", created=created, plan={"version": 1, "é": "🚢"})


def chunk_rows(*waves: int) -> list[ChunkRow]:
    return [ChunkRow(0, number, Bound({"part": number}), wave) for number, wave in enumerate(waves)]


@dataclasses.dataclass
class Ferry:
    """A target with a job in its ledger, a table made, and writers to carry chunks with."""

    target: Target
    table: Table
    columns: tuple[ColumnPlan, ...]

    def write(
        self, writer: Writer, chunk: ChunkRow, given: Sequence[pa.RecordBatch], *, mode: str = "append",
        key: tuple[str, ...] = (), name: str | None = None, job: str = JOB,
    ) -> int:  # fmt: skip
        wanted = WriteRequest(
            table=self.table,
            name=TableName(None, name) if name else self.table.name,
            columns=self.columns,
            mode=mode,
            key=key,
            job=job,
            table_index=chunk.table,
            chunk=chunk.number,
        )
        return writer.write(wanted, [Block(canonical(b, self.columns)) for b in given])

    def carry(self, given: Sequence[pa.RecordBatch], job: str = JOB, **how: Any) -> ChunkRow:
        """One chunk from claim to commit."""
        with contextlib.closing(self.target.writer()) as writer:
            chunk = writer.claim(job)
            assert chunk is not None
            rows = sum(b.num_rows for b in given)
            assert self.write(writer, chunk, given, job=job, **how) == rows
            writer.finish(job, finished(chunk, rows))
            writer.commit()
            return chunk


def finished(chunk: ChunkRow, rows: int) -> ChunkRow:
    return msgspec.structs.replace(
        chunk, state="done", rows_read=rows, rows_committed=rows, bytes=rows * 8, digest_read=f"{rows}:{7:032x}",
        digest_sent=f"{rows}:{(1 << 127) + 5:032x}", touched={"ä": 2}, snapshot="s1", seconds=0.25,
        counts={"filtered": 3, "outputs": {"1": {"sent": 2, "digest": f"2:{5:032x}"}}},
    )  # fmt: skip


def steps(*kinds: str) -> list[StepRow]:
    return [StepRow(number, kind, 0) for number, kind in enumerate(kinds)]
