"""What a plan says of a transform and a dedup: what they do, in words, and what a few rows of the table become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.protocol import ReadRequest, Source
from rowferry.convert import value_text
from rowferry.engine import transforming
from rowferry.engine.prefetch import close
from rowferry.engine.report import Sample
from rowferry.errors import DataError
from rowferry.model import Bound, TablePlan
from rowferry.stages import spec
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
                close(blocks)
    finally:
        reader.close()
    return rows


def _shown(batch: pa.RecordBatch, row: int, forms: Forms) -> dict[str, str | None]:
    return {name: value_text(batch.column(i), row, form) for i, (name, form) in enumerate(forms)}


def sentences(plan: TablePlan) -> tuple[str, ...]:
    """What happens to a table's rows on their way, in the order in which it does."""
    said = _transform_sentences(plan.transform) if plan.transform is not None else []
    if plan.dedup is not None:
        said.append(_dedup_sentence(spec.load({"dedup": plan.dedup}).dedup or spec.Dedup()))
    return tuple(said)


def _transform_sentences(described: dict[str, Any]) -> list[str]:
    asked = spec.load(described["spec"])
    said = [f"rule {rule.do} on {', '.join(rule.columns)}" for rule in asked.rules]
    said += [f"look-up in {lookup.file}: {', '.join(lookup.take)}" for lookup in asked.lookups]
    said += [f"set {name} = {expression}" for name, expression in asked.set.items()]
    if asked.where is not None:
        said.append(f"where {asked.where}: the other rows are left out, and counted as filtered")
    for name, to in asked.cast.items():
        on_error = "" if isinstance(to, str) or to.on_error == "refuse" else f" (what does not fit: {to.on_error})"
        said.append(f"cast {name} to {to if isinstance(to, str) else to.to}{on_error}")
    said += [f"constant {name} = {value!r}" for name, value in asked.constant.items()]
    called = described["function"].partition("#")[0] if described["function"] is not None else asked.python
    if called is not None:
        said.append(
            f"function {called}" + ("" if asked.python_keeps_rows else ", which may add rows and leave some out")
        )
    return said


def _dedup_sentence(dedup: spec.Dedup) -> str:
    alike = f"alike in {', '.join(dedup.by)}" if dedup.by else "that are alike as a whole"
    if dedup.keep == "any":
        which = "whichever comes first: which row stands for a key may differ from run to run, the keys do not"
    else:
        which = f"the {dedup.keep}: the same one at every run"
    held = "; rows whose key the target holds already are dropped, too" if dedup.against_target else ""
    return f"of rows {alike} one is kept, {which}{held}"
