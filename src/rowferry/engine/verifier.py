"""The verify command: pair two databases, compare them row by row, mend the target on request."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time

from rowferry.adapters.protocol import Source, Target
from rowferry.engine import opening, outcome, pairing
from rowferry.engine.pairing import Pairs, Unlike, pair
from rowferry.engine.planner import waves_of
from rowferry.engine.progress import (
    EventHandler,
    JobFinished,
    JobStarted,
    Note,
    TableTotals,
    VerifyAdvanced,
    VerifyFinished,
    VerifyStarted,
)
from rowferry.engine.proof import with_difference
from rowferry.engine.repair import repair
from rowferry.engine.report import Report, TableReport
from rowferry.engine.request import Request
from rowferry.engine.scan import Consumer, Side
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.errors import ConfigError, RefusedError
from rowferry.model import Table, TablePlan


def verify(request: Request, on_event: EventHandler, stop: threading.Event) -> Report:
    """Compares source and target. Differences are in the report (``exit_code`` 1), not an exception."""
    request.check()
    opening.check_ends(request)
    return Verification(request, on_event, stop).run()


class Verification:
    def __init__(self, request: Request, on_event: EventHandler, stop: threading.Event) -> None:
        self._request = request
        self._on_event = on_event
        self._stop = stop
        self._started = time.monotonic()

    def run(self) -> Report:
        request = self._request
        with (
            opening.source_of(request) as source,
            opening.target_of(request, read_only=not request.repair) as target,
            contextlib.closing(target.as_source()) as written,
        ):
            pairs = pair(source, written, request)
            if pairs.problems:
                raise RefusedError("; ".join(pairs.problems))
            guarantee = source.open_snapshot(request.workers)
            written.open_snapshot(request.workers)
            self._on_event(
                JobStarted(
                    "verify",
                    None,
                    request.source.safe_url,
                    request.target.safe_url,
                    request.workers,
                    tuple(TableTotals(str(t.source.name), t.source.rows, t.source.bytes) for t in pairs.tables),
                    guarantee,
                )
            )
            tables = [self._table(source, written, plan) for plan in pairs.tables]
            absent = [self._absent(source, table) for table in pairs.absent]
            note = source.snapshot_note()
            if request.repair and any(not found.equal for _, found in tables):
                tables = self._mend(source, target, pairs.tables, tables)
        return self._report(pairs, tables, absent, guarantee, note)

    def _absent(self, source: Source, table: Table) -> TableReport:
        """The report of a table that the target does not have: all its rows are missing, and are counted."""
        name, rows = str(table.name), table.rows
        plan = pairing.count_plan(table, self._request)
        if plan is not None:
            counts: list[int] = []
            consumers: list[Consumer] = [lambda batch: counts.append(batch.num_rows)] * self._request.workers
            with Side(source, plan, "source", self._request.workers, stop=self._stop) as side:
                side.scan(consumers[: side.threads])
            rows = sum(counts)
        return TableReport(name, name, rows_read=rows, equal=False, missing=rows, extra=0, changed=0)

    def _table(self, source: Source, written: Source, plan: TablePlan) -> tuple[TableReport, TableDifference]:
        request, name = self._request, str(plan.source.name)
        self._on_event(VerifyStarted(name, plan.source.rows + plan.target.rows))
        began = time.monotonic()
        found = verify_tables(
            source,
            written,
            [plan],
            workers=request.workers,
            contained=request.contained,
            named_max=request.named_max,
            on_progress=lambda table, side, rows: self._on_event(VerifyAdvanced(name, side, rows)),
            stop=self._stop,
        )[0]
        seconds = time.monotonic() - began
        self._on_event(VerifyFinished(name, found.equal, found.missing, found.extra, found.changed, seconds))
        empty = outcome.table_report(plan, ())
        report = dataclasses.replace(
            empty,
            rows_read=found.digest_source.rows,
            digest_read=found.digest_source,
            digest_sent=None,
            seconds=seconds,
        )
        return with_difference(report, found), found

    def _mend(
        self,
        source: Source,
        target: Target,
        plans: list[TablePlan],
        tables: list[tuple[TableReport, TableDifference]],
    ) -> list[tuple[TableReport, TableDifference]]:
        """Repairs what differs, then reads both sides afresh: only that second look is the verdict.

        All tables are read again, since a row that was deleted may have taken others with it
        (ON DELETE CASCADE). Parents are repaired before the tables that refer to them.
        """
        self._check_triggers(plans)
        waves, _ = waves_of(plans)
        repaired = [0] * len(plans)
        for index in sorted(range(len(plans)), key=lambda i: waves.get(plans[i].target.name, 0)):
            plan, found = plans[index], tables[index][1]
            if found.equal:
                continue
            if found.extra and not self._request.delete_extra and not self._request.contained:
                name = str(plan.target.name)
                self._on_event(Note(f"table {name!r}: {found.extra:,} extra rows stay; --delete-extra removes them"))
            silent = bool(plan.target.triggers) and self._request.target_triggers == "disable"
            if silent:
                target.disable_triggers(plan.target, True)
            try:
                repaired[index] = repair(source, target, plan, found, self._request.delete_extra, self._stop)
            finally:
                if silent:
                    target.disable_triggers(plan.target, False)
        with contextlib.closing(target.as_source()) as written, opening.source_of(self._request) as again:
            again.open_snapshot(self._request.workers)
            written.open_snapshot(self._request.workers)
            out = []
            for plan, count in zip(plans, repaired, strict=True):
                report, found = self._table(again, written, plan)
                out.append((dataclasses.replace(report, repaired=count), found))
        return out

    def _check_triggers(self, plans: list[TablePlan]) -> None:
        """A trigger of the target could change what a repair writes."""
        if self._request.target_triggers is not None:
            return
        for plan in plans:
            if plan.target.triggers:
                raise RefusedError(
                    f"it has triggers or rules ({', '.join(plan.target.triggers)}) that a repair would fire",
                    table=str(plan.target.name),
                    hint="choose --target-triggers fire or disable",
                )

    def _report(
        self,
        pairs: Pairs,
        tables: list[tuple[TableReport, TableDifference]],
        absent: list[TableReport],
        guarantee: str,
        note: str | None,
    ) -> Report:
        reports = [report for report, _ in tables]
        problems = [
            f"table {t.source!r}: {t.missing or 0:,} rows missing, {t.extra or 0:,} extra, {t.changed or 0:,} changed"
            for t in reports
            if t.equal is False
        ]
        problems += [f"table {str(t.name)!r}: the target has no such table" for t in pairs.absent]
        problems += [f"table {str(t.source.name)!r}: {', '.join(t.reasons)}" for t in pairs.unlike]
        reports += [*absent, *map(_unlike, pairs.unlike)]
        notes = list(pairs.notes)
        if pairs.unlike:
            notes.append("--policy TABLE.COLUMN=skip compares a table without the columns that are on one side only")
        if not reports:
            raise ConfigError("there is nothing to compare: the source has no tables")
        report = Report(
            command="verify",
            source=self._request.source.safe_url,
            target=self._request.target.safe_url,
            status="different" if problems else "ok",
            exit_code=1 if problems else 0,
            error="; ".join(problems) or None,
            snapshot=guarantee,
            snapshot_note=note,
            seconds=time.monotonic() - self._started,
            workers=self._request.workers,
            tables=tuple(reports),
            notes=(*notes, *(f"table {r.source!r}: {d.note}" for r, d in tables if d.note)),
        )
        self._on_event(JobFinished(report))
        return report


def _unlike(pair: Unlike) -> TableReport:
    """The report of two tables whose columns differ: not a row of them was compared."""
    return TableReport(str(pair.source.name), str(pair.target.name), equal=False, not_compared=pair.reasons)
