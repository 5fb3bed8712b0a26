"""The verify command: pair two databases, compare them row by row, mend the target on request.

    open both sides ─► pair ─► compare each table ─► mend what differs ─► compare all of them afresh

Where a side fails in a way that may pass (a server restarts), all connections are closed and opened again,
and the table that was at work is compared from its beginning, under new snapshots; what was found of the
tables before it stays.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import msgspec

from rowferry import limits
from rowferry.adapters.protocol import Source, Target
from rowferry.engine import letting_go, opening, outcome, pairing
from rowferry.engine.pairing import Pairs, Unlike, pair
from rowferry.engine.progress import (
    EventHandler,
    JobFinished,
    JobStarted,
    Note,
    TableTotals,
    VerifyAdvanced,
    VerifyFinished,
    VerifyStarted,
    Waiting,
)
from rowferry.engine.proof import with_difference
from rowferry.engine.repair import repair
from rowferry.engine.report import Report, TableReport
from rowferry.engine.request import Request
from rowferry.engine.scan import Consumer, Side, blamed_on_target, key_is_read
from rowferry.engine.stopping import Cutter
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.engine.waves import waves_of
from rowferry.engine.worker import retry_wait_s
from rowferry.errors import ConfigError, RefusedError, RowferryError, StoppedError
from rowferry.model import Table, TablePlan


def verify(request: Request, on_event: EventHandler, stop: threading.Event) -> Report:
    """Compares source and target. Differences are in the report (``exit_code`` 1), not an exception."""
    request.check()
    opening.check_ends(request)
    run = Verification(request, on_event, stop)
    with letting_go.stages(request.transforms):
        try:
            return _until_done(run, on_event, stop)
        except BaseException as error:
            run.wake(error)
            raise


def _until_done(run: Verification, on_event: EventHandler, stop: threading.Event) -> Report:
    tries = steps = 0
    while True:
        try:
            return run.attempt()
        except RowferryError as error:
            if stop.is_set() and error.transient:  # a connection that was cut
                raise StoppedError("stopped on request") from error
            # As for a copy: only tries without any progress between them are counted.
            tries = 1 if run.steps > steps else tries + 1
            steps = run.steps
            if not error.transient or not run.began or tries >= limits.CHUNK_TRIES:
                raise
            wait_s = retry_wait_s(tries)
            on_event(Waiting(f"{error}; the verification goes on in {wait_s:.1f} s"))
            if stop.wait(wait_s):
                raise StoppedError("stopped on request") from error


class Look(msgspec.Struct):
    """One look at all tables; it may take several attempts, each under snapshots of its own."""

    found: dict[int, tuple[TableReport, TableDifference]] = msgspec.field(default_factory=dict)
    absent: list[TableReport] = msgspec.field(default_factory=list)
    #: What the source guaranteed in each attempt that compared anything.
    guarantees: list[str] = msgspec.field(default_factory=list)
    note: str | None = None

    @property
    def guarantee(self) -> str:
        return self.guarantees[0] if len(self.guarantees) == 1 else "mixed"


class Mending(msgspec.Struct):
    """How far a repair has come."""

    #: The table that is being repaired: what of that was committed is not known after a failure.
    at: int | None = None
    #: Tables that are through, and the rows that were inserted or deleted in each.
    done: set[int] = msgspec.field(default_factory=set)
    rows: dict[int, int] = msgspec.field(default_factory=dict)
    #: What could not be mended, and why.
    left: list[str] = msgspec.field(default_factory=list)
    #: Tables whose triggers are disabled now.
    silenced: dict[int, TablePlan] = msgspec.field(default_factory=dict)


class Verification:
    """One verify command; ``attempt`` may be called again after a failure that may pass."""

    def __init__(self, request: Request, on_event: EventHandler, stop: threading.Event) -> None:
        self._request = request
        self._on_event = on_event
        self._stop = stop
        self._started = time.monotonic()
        #: Both sides have answered: from here on a failure that may pass is worth another attempt.
        self.began = False
        #: Tables compared or mended so far: what another attempt does not do again.
        self.steps = 0
        self._announced = False
        self._pairs: Pairs | None = None
        self._look = Look()
        self._mending = Mending()
        self._second: Look | None = None

    def attempt(self) -> Report:
        """Does what is not done yet. Raises what stopped it."""
        if self._stop.is_set():
            raise StoppedError("stopped on request")
        request = self._request
        if self._second is None:
            with self._ends(read_only=not request.repair) as (source, target, written):
                if self._pairs is None:
                    self._pairs = self._paired(source, target, written)
                guarantee = self._open_snapshots(source, written)
                self._compare(source, written, guarantee, self._look)
                if request.repair and any(not found.equal for _, found in self._look.found.values()):
                    self._mend(source, target, written)
        if self._second is not None:
            # What was open holds what it saw before the repair: only a second look, at fresh ends, is the verdict.
            with self._ends(read_only=True) as (source, _, written):
                self._compare(source, written, self._open_snapshots(source, written), self._second)
        return self._report(self._second or self._look)

    @contextlib.contextmanager
    def _ends(self, *, read_only: bool) -> Iterator[tuple[Source, Target, Source]]:
        with (
            Cutter(self._stop) as cutter,
            opening.source_of(self._request) as source,
            opening.target_of(self._request, read_only=read_only) as target,
        ):
            cutter.watch(source)
            cutter.watch(target)
            with blamed_on_target():
                written = target.as_source()
            with contextlib.closing(written):
                self.began = True
                yield source, target, written

    def _paired(self, source: Source, target: Target, written: Source) -> Pairs:
        pairs = pair(source, written, self._request, target)
        if pairs.problems:
            raise RefusedError("; ".join(pairs.problems))
        if not (pairs.tables or pairs.absent or pairs.unlike):
            raise ConfigError("there is nothing to compare: the source has no tables")
        return pairs

    def _open_snapshots(self, source: Source, written: Source) -> str:
        guarantee = source.open_snapshot(self._request.workers)
        with blamed_on_target():
            written.open_snapshot(self._request.workers)
        return guarantee

    # --- comparing -----------------------------------------------------------------------------

    def _compare(self, source: Source, written: Source, guarantee: str, look: Look) -> None:
        """Compares the tables that this look has not compared yet."""
        assert self._pairs is not None
        absent = self._pairs.absent[len(look.absent) :]
        left = [plan for plan in self._pairs.tables if plan.index not in look.found]
        if not self._announced:
            self._announced = True
            self._on_event(self._started_event(self._pairs, guarantee))
        if not (look.found or look.absent):
            look.guarantees.clear()  # of an earlier attempt nothing is left
        if left or absent or not look.guarantees:
            look.guarantees.append(guarantee)
            look.note = source.snapshot_note()
        for plan in left:
            look.found[plan.index] = self._table(source, written, plan)
            self.steps += 1
        for table in absent:
            look.absent.append(self._absent(source, table))
            self.steps += 1

    def _started_event(self, pairs: Pairs, guarantee: str) -> JobStarted:
        return JobStarted(
            "verify",
            None,
            self._request.source.safe_url,
            self._request.target.safe_url,
            self._request.workers,
            tuple(TableTotals(str(t.source.name), t.source.rows, t.source.bytes) for t in pairs.tables),
            guarantee,
        )

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
            dedup_bytes=request.dedup_bytes,
            on_progress=lambda table, side, rows: self._on_event(VerifyAdvanced(name, side, rows)),
            stop=self._stop,
        )[0]
        seconds = time.monotonic() - began
        self._on_event(VerifyFinished(name, found.equal, found.missing, found.extra, found.changed, seconds))
        empty = outcome.table_report(plan, ())
        report = msgspec.structs.replace(
            empty,
            rows_read=found.digest_source.rows,
            digest_read=found.digest_source,
            digest_sent=None,
            seconds=seconds,
        )
        return with_difference(report, found), found

    # --- mending -------------------------------------------------------------------------------

    def _mend(self, source: Source, target: Target, written: Source) -> None:
        """Repairs what differs. All tables are looked at again then, since a row that was deleted may have
        taken others with it (ON DELETE CASCADE). Parents are repaired before the tables that refer to them."""
        assert self._pairs is not None
        plans, mending = self._pairs.tables, self._mending
        self._check_triggers([p for p in plans if not self._look.found[p.index][1].equal])
        if mending.at is not None:
            self._take_up(source, target, written, plans[mending.at])
        waves, _ = waves_of(plans)
        for plan in sorted(plans, key=lambda p: waves.get(p.target.name, 0)):
            found = self._look.found[plan.index][1]
            if found.equal or plan.index in mending.done:
                continue
            if found.extra and not self._request.delete_extra and not self._request.contained:
                name = str(plan.target.name)
                self._on_event(Note(f"table {name!r}: {found.extra:,} extra rows stay; --delete-extra removes them"))
            mending.at = plan.index
            self._mend_table(source, target, plan, found)
            mending.at = None
            mending.done.add(plan.index)
            self.steps += 1
        self._second = Look()

    def _mend_table(self, source: Source, target: Target, plan: TablePlan, found: TableDifference) -> None:
        delete_extra = self._request.delete_extra
        if delete_extra and found.extra and not key_is_read(plan):
            # What is missing can be inserted all the same.
            delete_extra = False
            self._leave(f"table {str(plan.target.name)!r} has no key by which its {found.extra:,} extra rows could go")
        if plan.target.triggers and self._request.target_triggers == "disable":
            self._mending.silenced[plan.index] = plan  # first: the answer to what disables them may be lost
            target.disable_triggers(plan.target, True)
        try:
            rows = repair(source, target, plan, found, delete_extra, self._stop)
            self._mending.rows[plan.index] = self._mending.rows.get(plan.index, 0) + rows
        except RefusedError as error:
            # It stays as it is, which the second look says; the other tables are none the worse for it.
            self._leave(f"not repaired: {error}")
        self._enable_triggers(target)

    def _enable_triggers(self, target: Target) -> None:
        for index, plan in list(self._mending.silenced.items()):
            target.disable_triggers(plan.target, False)
            del self._mending.silenced[index]

    def wake(self, error: BaseException) -> None:
        """The command ends by ``error``: enables what triggers are still disabled, on a connection of its own, and
        says so where that fails."""
        until = time.monotonic() + limits.STOP_PATIENCE_S
        while self._mending.silenced:
            try:
                with opening.target_of(self._request) as target, Cutter.after(target, until - time.monotonic()):
                    self._enable_triggers(target)
            except RowferryError as failure:
                # A server that comes back is waited for, a lock that somebody holds as well; not for ever.
                if not failure.transient or time.monotonic() >= until:
                    break
                time.sleep(limits.RETRY_WAIT_MIN_S)
        for plan in self._mending.silenced.values():
            names = ", ".join(plan.target.triggers)
            off = f"triggers of table {str(plan.target.name)!r} could not be enabled again: {names}"
            self._on_event(Note(off))
            if isinstance(error, RowferryError):
                error.hint = f"{error.hint}; {off}" if error.hint else off

    def _leave(self, why: str) -> None:
        self._mending.left.append(why)
        self._on_event(Note(why))

    def _take_up(self, source: Source, target: Target, written: Source, plan: TablePlan) -> None:
        """After a repair that was cut short: what of it had been committed is looked up, before more is written."""
        self._enable_triggers(target)
        before = self._look.found[plan.index][0].differences
        self._look.found[plan.index] = self._table(source, written, plan)
        mended = before - self._look.found[plan.index][0].differences
        self._mending.rows[plan.index] = self._mending.rows.get(plan.index, 0) + max(0, mended)

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

    # --- what it came to -----------------------------------------------------------------------

    def _report(self, look: Look) -> Report:
        assert self._pairs is not None
        pairs, mended = self._pairs, self._mending.rows
        tables = [(plan.index, *look.found[plan.index]) for plan in pairs.tables]
        reports = [msgspec.structs.replace(report, repaired=mended.get(index, 0)) for index, report, _ in tables]
        problems = [
            f"table {t.source!r}: {t.missing or 0:,} rows missing, {t.extra or 0:,} extra, {t.changed or 0:,} changed"
            for t in reports
            if t.equal is False
        ]
        problems += [f"table {str(t.name)!r}: the target has no such table" for t in pairs.absent]
        problems += [f"table {str(t.source.name)!r}: {', '.join(t.reasons)}" for t in pairs.unlike]
        report = Report(
            command="verify",
            source=self._request.source.safe_url,
            target=self._request.target.safe_url,
            status="different" if problems else "ok",
            exit_code=1 if problems else 0,
            error="; ".join(problems) or None,
            snapshot=look.guarantee,
            snapshot_note=look.note,
            seconds=time.monotonic() - self._started,
            workers=self._request.workers,
            tables=(*reports, *look.absent, *map(_unlike, pairs.unlike)),
            notes=(
                *self._notes(pairs, look),
                *(f"table {report.source!r}: {found.note}" for _, report, found in tables if found.note),
            ),
        )
        self._on_event(JobFinished(report))
        return report

    def _notes(self, pairs: Pairs, look: Look) -> list[str]:
        notes = [*pairs.notes, *self._mending.left]
        if pairs.unlike:
            notes.append("--policy TABLE.COLUMN=skip compares a table without the columns that are on one side only")
        if len(look.guarantees) > 1:
            notes.append(
                f"a connection was lost: the tables were compared under {len(look.guarantees)} snapshots, one after "
                "the other, each table under one"
            )
        return notes


def _unlike(pair: Unlike) -> TableReport:
    """The report of two tables whose columns differ: not a row of them was compared."""
    return TableReport(str(pair.source.name), str(pair.target.name), equal=False, not_compared=pair.reasons)
