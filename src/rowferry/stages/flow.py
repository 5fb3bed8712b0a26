"""How a transform and a dedup meet the engine: the shapes that pass between them.

A stage is made once for a table (``Stage``), and once for each thread that runs it (``StageWorker``): what is
costly to open (a DuckDB connection) is opened there. Both know Arrow and canonical types, no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from rowferry.types import Type


class OutColumn(msgspec.Struct, frozen=True):
    """A column that leaves a transform.

    origin: the source column whose values it holds unchanged or renamed (its native type and NOT NULL carry
    over), None where they were made.
    """

    name: str
    type: Type
    nullable: bool = True
    origin: str | None = None


class Output(msgspec.Struct, frozen=True):
    """A table that a transform feeds. table None: the one that the source table is copied to."""

    table: str | None
    columns: tuple[OutColumn, ...]


class Refused(msgspec.Struct, frozen=True):
    """A row that was set aside (on_error = quarantine): as the source gave it, one row of the batch's columns."""

    row: pa.RecordBatch
    column: str | None
    reason: str


class Passed(msgspec.Struct):
    """What became of one batch.

    batches: (index of the output, rows), in the outputs' own columns and canonical Arrow types.
    filtered: rows left out by a condition or by a function; generated: rows beyond those that were taken, of
    all outputs together, so that read + generated = sent + filtered + deduplicated + quarantined.
    touched: values that a policy or a truncation changed, by column.
    """

    batches: list[tuple[int, pa.RecordBatch]]
    filtered: int = 0
    generated: int = 0
    touched: dict[str, int] = msgspec.field(default_factory=dict)
    refused: list[Refused] = msgspec.field(default_factory=list)


class StageWorker(Protocol):
    """One thread's own."""

    def apply(self, batch: pa.RecordBatch) -> Passed:
        """n rows in the stage's ``reads`` columns (canonical Arrow types) in; raises DataError with column,
        value and the first offending row where the job must stop."""

    def close(self) -> None: ...


class Stage(Protocol):
    """A table's transform, checked and typed before the first row."""

    #: Source columns that have to be read, in this order; the batches of ``apply`` have exactly these.
    reads: tuple[str, ...]
    outputs: tuple[Output, ...]
    #: Rows that a batch should have at least, where calls have a cost of their own; 0: any batch is as good.
    batch_rows: int
    #: What it was made with beside the config, and what that holds: ``look-up table 'a.csv'`` → its size and hash.
    inputs: dict[str, str]
    #: Whether it reads the job's start (``now()``).
    reads_start: bool

    def worker(self) -> StageWorker: ...


def names(columns: Sequence[OutColumn]) -> tuple[str, ...]:
    return tuple(c.name for c in columns)
