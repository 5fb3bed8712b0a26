"""The plan command: what a copy would do, could refuse and would take; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from rowferry.adapters.protocol import Source
from rowferry.engine import cutting, letting_go, opening, planner
from rowferry.engine.report import PlannedColumn, PlannedTable, PlanReport, Sample
from rowferry.engine.request import Request
from rowferry.model import TablePlan

#: Bytes of source data per second and worker that two servers on one ordinary machine sustain
#: (measured: 60–90 MB/s of lineitem); only for the estimate that a plan shows.
BYTES_PER_S_PER_WORKER = 50_000_000


def preview(request: Request) -> PlanReport:
    """Plans a copy without carrying it out."""
    with letting_go.stages(request.transforms):
        return _preview(request)


def _preview(request: Request) -> PlanReport:
    request.check()
    opening.check_ends(request)
    with opening.source_of(request) as source, opening.target_to_plan_for(request) as target:
        findings = planner.plan_copy(source, target, request)
        guarantee = source.open_snapshot(1)
        blockers = list(findings.blockers)
        if request.require_snapshot and guarantee != "one":
            blockers.append(f"the snapshot guarantee would be {guarantee!r}, and --require-snapshot asks for 'one'")
        tables = [_planned(source, table, request, findings.tables) for table in findings.tables]
        tables += [PlannedTable(name, name, refusals=tuple(refusals)) for name, refusals in findings.refusals.items()]
        if findings.loose_keys:
            from rowferry.engine import colliding

            answers = colliding.ask(source, target, findings.loose_keys, request)
            blockers += answers.blockers
            findings.notes += answers.notes
    size = sum(t.bytes for t in tables if t.chunks)
    return PlanReport(
        source=request.source.safe_url,
        target=request.target.safe_url,
        mode=request.mode,
        tables=tuple(tables),
        missing_privileges=tuple(findings.missing_privileges),
        blockers=tuple(blockers),
        snapshot=guarantee,
        seconds=size / (BYTES_PER_S_PER_WORKER * request.workers) if size else None,
        notes=tuple(findings.notes),
    )


def _planned(source: Source, table: TablePlan, request: Request, tables: Sequence[TablePlan]) -> PlannedTable:
    # A table that another's chunks feed has none of its own.
    bounds = cutting.cut(source, tables[table.index if table.fed_by is None else table.fed_by], request)
    cutting.try_condition(source, table, bounds[0])
    samples: tuple[Sample, ...] = ()
    passes: tuple[str, ...] = ()
    if table.transform is not None or table.dedup is not None:
        from rowferry.engine.samples import samples_of, sentences

        passes = sentences(table)
        samples = samples_of(source, table, bounds) if table.transform is not None else ()
    shape = table.derived or table.source
    columns = tuple(
        PlannedColumn(
            source=c.source,
            source_type=shape.column(c.source).native or str(c.form),
            target=c.target,
            target_type=c.column.native,
            type=str(c.form),
            policy=c.policy,
            rules=c.comparison.rules,
        )
        for c in table.columns
    )
    return PlannedTable(
        source=str(table.source.name),
        target=str(table.target.name),
        rows=table.source.rows,
        bytes=table.source.bytes,
        chunks=len(bounds) if table.fed_by is None else 0,
        wave=table.wave,
        exists=table.exists,
        key=table.key,
        columns=columns,
        passes=passes,
        samples=samples,
    )
