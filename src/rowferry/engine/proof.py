"""What a copy shows at its end: that the target holds what was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from rowferry.adapters.protocol import Source, Target
from rowferry.engine.progress import EventHandler, Note, VerifyAdvanced, VerifyFinished, VerifyStarted
from rowferry.engine.report import RowDifference, TableReport
from rowferry.engine.request import Request
from rowferry.engine.reread import digest_table
from rowferry.engine.scan import reading
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.model import Digest, Plan, TablePlan


def prove(
    source: Source,
    target: Target,
    plan: Plan,
    reports: Sequence[TableReport],
    *,
    whole: set[int],
    stale: set[int],
    baseline: Callable[[int], Digest],
    request: Request,
    on_event: EventHandler,
    stop: threading.Event,
    reads: Callable[[Source, str], Source] = lambda source, side: source,
) -> list[TableReport]:
    """The reports with what was proven.

    whole: tables whose target is read again and held against the sum of what was sent; only where
        they differ the source is read again too, to name the rows.
    stale: tables some of whose rows were read under an older state of the source: both sides are
        read afresh and compared row by row.
    reads: gives a side as it may be read: not faster than was asked for.
    """
    out = list(reports)
    todo = sorted(whole | stale)
    if not todo:
        return out
    with reading(target, request.workers) as unheld:
        source, written = reads(source, "source"), reads(unheld, "target")
        for index in todo:
            table, report = plan.tables[index], reports[index]
            name = str(table.source.name)
            on_event(VerifyStarted(name, report.rows_committed))
            again = index in stale or plan.mode == "upsert"
            if not again:
                digest = digest_table(
                    written,
                    table,
                    "target",
                    request.workers,
                    on_rows=lambda rows: on_event(VerifyAdvanced(name, "target", rows)),  # noqa: B023
                    stop=stop,
                )
                added = digest - baseline(index)
                report = msgspec.structs.replace(report, digest_target=added, equal=added == report.digest_sent)
                again = not report.equal
                if not again:
                    report = msgspec.structs.replace(report, missing=0, extra=0, changed=0)
            if again:
                # Of rows that were set aside it has to be known whether they are the ones that are missing.
                named_max = max(request.named_max, report.rows_quarantined)
                found = _row_by_row(source, written, plan, table, request, named_max, stop)
                report = with_difference(report, found)
                if found.note:
                    on_event(Note(f"table {name!r}: {found.note}"))
            on_event(
                VerifyFinished(name, bool(report.equal), report.missing or 0, report.extra or 0, report.changed or 0)
            )
            out[index] = report
    return out


def _row_by_row(
    source: Source,
    written: Source,
    plan: Plan,
    table: TablePlan,
    request: Request,
    named_max: int,
    stop: threading.Event,
) -> TableDifference:
    """Compares both sides as they are now. After append and upsert the target may hold more."""
    return verify_tables(
        source,
        written,
        [table],
        workers=request.workers,
        contained=plan.mode in ("append", "upsert"),
        named_max=named_max,
        dedup_bytes=request.dedup_bytes,
        stop=stop,
    )[0]


def with_difference(report: TableReport, found: TableDifference) -> TableReport:
    """A report with what a comparison of both sides found."""
    return msgspec.structs.replace(
        report,
        digest_target=found.digest_target,
        equal=found.equal,
        missing=found.missing,
        extra=found.extra,
        changed=found.changed,
        named=tuple(
            RowDifference(row.kind, row.key, row.source, row.target, getattr(row, "count", 1)) for row in found.named
        ),
    )
