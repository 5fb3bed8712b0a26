"""What a plan shows of a transform: a few rows of a table as they are, and what each of them becomes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rowferry.adapters.protocol import ReadRequest, Source
from rowferry.convert import value_text
from rowferry.engine import transforming
from rowferry.engine.report import Sample
from rowferry.errors import DataError
from rowferry.model import Bound, TablePlan
from rowferry.types import Type, load

ROWS_SHOWN = 3

Forms = Sequence[tuple[str, Type]]


def samples_of(source: Source, plan: TablePlan, bounds: Sequence[Bound]) -> tuple[Sample, ...]:
    """The first rows of a transformed table, before and after; a row that the transform refuses says why.

    Each row passes alone, so that it is known what became of it. Raises what the reader raises.
    """
    assert plan.transform is not None
    assert plan.derived is not None
    before: Forms = [(name, load(form, Type)) for name, form, _ in plan.transform["fields"]]
    after: Forms = [(c.name, c.type) for c in plan.derived.columns]
    stage = transforming.stage_of(plan.transform, str(plan.source.name))
    worker = stage.worker()
    out: list[Sample] = []
    try:
        for row in _first_rows(source, plan, before, bounds):
            shown = _shown(row, 0, before)
            try:
                passed = worker.apply(row.select(list(stage.reads)))
            except DataError as error:
                out.append(Sample(shown, problem=str(error)))
                continue
            rows = [batch for output, batch in passed.batches if output == plan.output]
            became = tuple(_shown(batch, i, after) for batch in rows for i in range(batch.num_rows))
            problem = passed.refused[0].reason if passed.refused else None
            out.append(Sample(shown, became[:ROWS_SHOWN], len(became), problem))
    finally:
        worker.close()
    return tuple(out)


def _first_rows(source: Source, plan: TablePlan, forms: Forms, bounds: Sequence[Bound]) -> list[pa.RecordBatch]:
    """The table's first rows, each as a batch of its own."""
    rows: list[pa.RecordBatch] = []
    reader = source.reader()
    try:
        for bound in bounds:
            request = ReadRequest(plan.source, tuple(forms), bound, plan.where)
            blocks = reader.read(request)
            try:
                for block in blocks:
                    wanted = min(block.batch.num_rows, ROWS_SHOWN - len(rows))
                    rows += [block.batch.slice(i, 1) for i in range(wanted)]
                    if len(rows) >= ROWS_SHOWN:
                        return rows
            finally:
                close = getattr(blocks, "close", None)
                if close is not None:
                    close()
    finally:
        reader.close()
    return rows


def _shown(batch: pa.RecordBatch, row: int, forms: Forms) -> dict[str, str | None]:
    return {name: value_text(batch.column(i), row, form) for i, (name, form) in enumerate(forms)}
