"""Runs a copy from the request to the report: finds or makes its job, plans, runs the workers, finishes.

    find the job ─► plan ─► commit the plan with all its chunks ─► steps before ─► chunks ─► steps after
                                                                     ─► verify ─► report in the ledger

Where a side fails in a way that may pass (a server restarts), all connections are closed and the
job is taken up again from its ledger, exactly as a new process would do it.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from rowferry import limits
from rowferry.adapters import registry
from rowferry.adapters.protocol import Noting, Orphaning, Source, Target
from rowferry.engine import cutting, letting_go, opening, outcome, planner, unique
from rowferry.engine.ahead import Ahead
from rowferry.engine.held_back import HeldBack
from rowferry.engine.jobs import plan_of
from rowferry.engine.progress import EventHandler, JobFinished, JobStarted, Note, Waiting
from rowferry.engine.report import Report
from rowferry.engine.request import Request, name_of
from rowferry.engine.steps import BEFORE, StepRunner, baseline_of, loaded_as, reset_action, steps_of
from rowferry.engine.stopping import Cutter
from rowferry.engine.worker import Shared, Worker, retry_wait_s
from rowferry.errors import (
    ConfigError,
    DataError,
    DifferenceError,
    LedgerError,
    RefusedError,
    RowferryError,
    SnapshotLostError,
    SourceError,
    StoppedError,
    TargetError,
)
from rowferry.failpoints import passing
from rowferry.model import ChunkRow, JobRow, Plan, StepRow, TablePlan, add_counts
from rowferry.types import dump


def copy(request: Request, on_event: EventHandler, stop: threading.Event, command: str = "copy") -> Report:
    """Runs the job of this request to its end. Raises what stopped it, with ``error.report`` where there is one."""
    request.check()
    opening.check_ends(request)
    job = Copy(request, on_event, stop, command)
    with letting_go.stages(request.transforms):
        return _until_done(job, on_event, stop)


def _until_done(job: Copy, on_event: EventHandler, stop: threading.Event) -> Report:
    tries = carried = 0
    while True:
        try:
            return job.attempt()
        except RowferryError as error:
            if stop.is_set() and error.transient:  # a connection that was cut, or a wait that was not ended
                raise job.stopped(error.report) from error
            # Only tries without any progress between them are counted: a long job may see many restarts.
            tries = 1 if job.carried > carried else tries + 1
            carried = job.carried
            if not error.transient or not job.began or tries >= limits.CHUNK_TRIES:
                raise
            wait_s = retry_wait_s(tries)
            on_event(Waiting(f"{error}; the job is taken up again in {wait_s:.1f} s"))
            stop.wait(wait_s)


class Copy:
    """One copy command; ``attempt`` may be called again after a failure that may pass."""

    def __init__(self, request: Request, on_event: EventHandler, stop: threading.Event, command: str) -> None:
        self._request = request
        self._on_event = on_event
        self._stop = stop
        self._command = command
        #: Both sides have answered and the plan stands: from here on a failure that may pass is worth another attempt.
        self.began = False
        #: The most chunks of the job that were done at any time.
        self.carried = 0
        #: The job that this command made or took up: another attempt goes on with it and with no other.
        self._job: JobRow | None = None
        self._started = time.monotonic()
        self._notes: list[str] = []
        #: Where the rows go that a dedup leaves out (``duplicates.Duplicates``), with --keep-duplicates.
        self._duplicates: Any = None
        #: The workers' connections, which are opened meanwhile.
        self._ahead: Ahead | None = None
        self._held_back = HeldBack(request, on_event)
        self._retries: dict[int, int] = {}
        #: When each table's first chunk of this run began and its last one ended (monotonic seconds).
        self._spans: dict[int, tuple[float, float]] = {}

    def attempt(self) -> Report:
        request = self._request
        with (
            Cutter(self._stop) as cutter,
            opening.PlannedTarget(request) as planned,
            opening.source_of(request) as source,
            contextlib.ExitStack() as held,
        ):
            cutter.watch(source)
            target = planned.to_plan_for()
            cutter.watch(target)
            opening.check_places(source, target)
            self._ahead = held.enter_context(Ahead(request, source, target))
            self._held_back.check(source, target)
            job = self._find(target) if target.ledger.open(create=False) else None
            if job is not None and job.state == "finished":
                return self._finished_before(job)
            findings = None if job else planner.plan_copy(source, target, request)
            if findings is not None:
                self._notes = list(findings.notes)
                findings.require_none()
            self._check_stop()
            target = planned.to_write()
            cutter.watch(target)
            return self._with_lock(source, target, findings, job)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise self.stopped()

    def stopped(self, report: Report | None = None) -> StoppedError:
        """What is raised on a request to stop, saying how to go on."""
        hint = self._resume_hint(self._job) if self.began and self._job else "nothing was copied yet"
        error = StoppedError("stopped on request", hint=hint)
        if report is not None:
            error.report = msgspec.structs.replace(
                report, status="stopped", exit_code=error.exit_code, error=str(error)
            )
        return error

    def _find(self, target: Target) -> JobRow | None:
        """The job that this command continues: by its name, else the latest unfinished one of the same key."""
        request, key = self._request, self._request.job_key()
        jobs = target.ledger.jobs()
        if self._job is not None and (mine := [j for j in jobs if j.id == self._job.id]):
            return mine[0]
        if request.job is not None:
            named = [j for j in jobs if j.name == request.job]
            if named and self._command != "resume" and named[-1].key != key:
                raise ConfigError(
                    f"job {request.job!r} is another command: its ends, tables, mode, names, where or policies differ",
                    hint="use its own options, or another --job name",
                )
            return named[-1] if named else None
        same = [j for j in jobs if j.key == key and j.state != "finished"]
        return same[-1] if same else None

    def _finished_before(self, job: JobRow) -> Report:
        report = Report.from_json(job.report) if job.report else None
        if report is None:
            raise LedgerError(f"job {job.name!r} is finished, but its report is missing")
        if self._job is None:
            self._on_event(Note(f"job {job.name!r} is finished already; nothing was copied"))
        return self._concluded(report)

    def _concluded(self, report: Report) -> Report:
        self._on_event(JobFinished(report))
        if report.exit_code and report.status != "quarantined":
            difference = DifferenceError(report.error or "source and target differ")
            difference.report = report
            raise difference
        return report

    def _with_lock(
        self, source: Source, target: Target, findings: planner.Findings | None, known: JobRow | None
    ) -> Report:
        """known: the unfinished job that was found; without one there are findings for a new one."""
        self.began = True
        target.ledger.open(create=True)
        key = known.key if known else self._request.job_key()
        if opening.lock_job(target, key, self._stop, 0 if self._request.join else limits.LOCK_PATIENCE_S):
            return self._own(source, target, findings, known, key)
        self._check_stop()
        if self._request.join:
            return self._join(source, target, findings, known, key)
        raise ConfigError("this job is being run by another process", hint="wait for it, or add workers with --join")

    def _own(
        self, source: Source, target: Target, findings: planner.Findings | None, known: JobRow | None, key: str
    ) -> Report:
        """Runs the job whose lock is held, from where it stands to its end."""
        try:
            job = self._find(target)
            if job is None and known is not None:  # it has been finished while its lock was waited for
                job = next((j for j in target.ledger.jobs() if j.id == known.id), None)
            if job is None:
                if findings is None:
                    raise LedgerError("the job was removed from the ledger meanwhile", hint="start it again")
                return self._run(source, target, *self._create(source, target, findings, key), resumed=False)
            if job.state == "finished":
                if self._request.job is None and self._job is None and not self._request.join:
                    raise ConfigError("another process has just finished this job")
                return self._finished_before(job)
            return self._run(source, target, job, self._plan_of(job), resumed=True)
        finally:
            target.ledger.unlock(key)

    def _plan_of(self, job: JobRow) -> Plan:
        plan = plan_of(job)
        if not self._request.transforms:
            return plan
        from rowferry.engine import transforming

        return msgspec.structs.replace(plan, tables=transforming.bound(plan.tables, self._request))

    # --- a new job ---------------------------------------------------------------------------

    def _create(self, source: Source, target: Target, findings: planner.Findings, key: str) -> tuple[JobRow, Plan]:
        """Fixes the snapshot, cuts the chunks and commits the plan with all of them."""
        request = self._request
        self._open_snapshot(source)
        now = datetime.datetime.now(datetime.UTC)
        job_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        tables: list[TablePlan] = []
        chunks: list[ChunkRow] = []
        gathered: set[int] = set()
        for table in findings.tables:
            self._check_stop()
            if table.fed_by is not None:
                tables.append(loaded_as(table, table.fed_by in gathered, job_id))
                continue
            bounds = cutting.cut(source, table, request)
            cutting.try_condition(source, table, bounds[0])
            deduplicated = _deduplication() if table.dedup is not None else None
            if request.mode == "upsert" and len(bounds) > 1 and not (deduplicated and deduplicated.makes_unique(table)):
                with self._held_back.watching(source, target, self._stop):
                    unique.require_unique_keys(self._held_back.reads(source), table, request.workers, self._stop)
            by_place = request.mode == "append" and len(bounds) > 1 and any(b.physical for b in bounds)
            if by_place or (deduplicated is not None and deduplicated.gathers(table, request.mode)):
                gathered.add(table.index)
            tables.append(loaded_as(table, table.index in gathered, job_id))
            chunks += [ChunkRow(table.index, n, bound, table.wave) for n, bound in enumerate(bounds)]
        self._ask_about_keys(source, target, findings)
        plan = Plan(request.source.safe_url, request.target.safe_url, request.mode, tuple(tables), self._options())
        steps = steps_of(plan)
        further: contextlib.AbstractContextManager[Iterable[StepRow]] = contextlib.nullcontext(())
        if any(table.dedup is not None for table in tables):
            further = self._first_pass(source, target, tables, len(steps))
        job = JobRow(
            id=job_id,
            name=request.job or job_id,
            key=key,
            state="running",
            created=now.isoformat(timespec="microseconds"),
            plan=dump(plan),
            token=self._token,
        )
        passing("planned")
        with further as winners:
            self._check_stop()
            # From here on the job may stand in the ledger, even where the answer to its COMMIT is lost.
            self._job = job
            target.ledger.create_job(job, itertools.chain(steps, winners), chunks)
        passing("job created")
        return job, plan

    def _ask_about_keys(self, source: Source, target: Target, findings: planner.Findings) -> None:
        """Raises RefusedError where the target would take keys of the source for one."""
        if not findings.loose_keys:
            return
        from rowferry.engine import colliding

        with self._held_back.watching(source, target, self._stop):
            held, say = self._held_back.reads(source), lambda text: self._on_event(Note(text))
            answers = colliding.ask(held, target, findings.loose_keys, self._request, self._stop, say)
        findings.blockers += answers.blockers
        findings.require_none()
        self._notes += answers.notes

    @contextlib.contextmanager
    def _first_pass(
        self, source: Source, target: Target, tables: list[TablePlan], first_number: int
    ) -> Iterator[Iterable[StepRow]]:
        """What the ledger is to keep of the pass over the source that some dedups need before the copy."""
        with contextlib.ExitStack() as found:
            with self._held_back.watching(source, target, self._stop):
                held = self._held_back.reads(source)
                winners = _deduplication().winner_steps(held, tables, first_number, self._request.workers, self._stop)
                steps = found.enter_context(winners)
            yield steps

    def _options(self) -> dict[str, Any]:
        """What a ``resume`` by name has to know of the command."""
        r = self._request
        transforming: dict[str, Any] = {}
        if r.transforms:
            transforming = {
                "specs": [list(s) for s in r.specs],
                "folder": os.path.abspath(r.folder),
                "functions": [(name, name_of(function)) for name, function in r.functions],
            }
        return {
            **transforming,
            **({"keep_duplicates": os.path.abspath(r.keep_duplicates)} if r.keep_duplicates else {}),
            **({"max_dedup_mb": r.max_dedup_mb} if r.max_dedup_mb else {}),
            "tables": list(r.tables),
            "names": r.names,
            "where": r.where,
            "wheres": [list(w) for w in r.wheres],
            "notes": self._notes,
            "policies": [list(p) for p in r.policies],
            "verify": r.verify,
            "no_verify": r.no_verify,
            "workers": r.workers,
            "target_triggers": r.target_triggers,
            "require_snapshot": r.require_snapshot,
            **self._quarantining(),
            **r.throttles(),
        }

    def _quarantining(self) -> dict[str, Any]:
        """Where rows that cannot be carried go, if anywhere."""
        if self._request.on_error != "quarantine":
            return {}
        from rowferry.engine import quarantine

        return quarantine.options_of(self._request)

    def _open_snapshot(self, source: Source) -> None:
        self._guarantee = source.open_snapshot(self._request.workers)
        self._token = _token_of(source)
        if self._request.require_snapshot and self._guarantee != "one":
            raise RefusedError(
                f"the source gives the snapshot guarantee {self._guarantee!r}, and --require-snapshot asks for 'one'",
                hint=source.snapshot_note(),
            )

    # --- running it --------------------------------------------------------------------------

    def _run(self, source: Source, target: Target, job: JobRow, plan: Plan, *, resumed: bool) -> Report:
        self._job = job
        if resumed:
            self._notes = self._notes or list(plan.options.get("notes", ()))  # of an earlier process's plan
            self._open_snapshot(source)
            self._take_over(source, target, job, plan)
        chunks = target.ledger.chunks(job.id)
        taken = {t.index: sum(1 for c in chunks if c.table == t.index and c.state == "done") for t in plan.tables}
        self._on_event(self._started_event(job, plan, chunks, resumed))
        return self._complete(source, target, job, plan, taken)

    def _complete(self, source: Source, target: Target, job: JobRow, plan: Plan, taken: dict[int, int]) -> Report:
        """All that is not done yet: steps, chunks, steps, proof, and the job's end in the ledger."""
        steps = StepRunner(job.id, plan, self._request.source.engine, target, self._on_event, self._stop)
        try:
            steps.run(before=True)
            self._work(source, target, job, plan)
            chunks = target.ledger.chunks(job.id)
            if missing := [c for c in chunks if c.state != "done"]:
                raise LedgerError(f"{len(missing)} chunks are not done, and no worker is left")
            if self._duplicates is not None and (said := self._duplicates.publish()):
                self._notes.append(said)
            steps.run(before=False)
            report = self._report(source, target, job, plan, chunks, taken)
            stale = {c.table for c in chunks if self._is_stale(c)}
            stale |= {t.index for t in plan.tables if t.fed_by in stale}
            report = self._prove(source, target, job, plan, report, stale)
        except StoppedError as error:
            error.hint = error.hint or self._resume_hint(job)
            error.report = error.report or self._failed(source, target, job, plan, taken, error)
            raise
        except RowferryError as error:
            error.report = error.report or self._failed(source, target, job, plan, taken, error)
            raise
        passing("proven")
        target.ledger.finish_job(job.id, report.to_json())
        passing("finished")
        return self._concluded(report)

    def _is_stale(self, chunk: ChunkRow) -> bool:
        """Whether a chunk's rows were read under another state of the source than the present one."""
        return chunk.state == "done" and chunk.snapshot != self._token

    def _take_over(self, source: Source, target: Target, job: JobRow, plan: Plan) -> None:
        """Prepares a resume: what was split by place under another state of the source is to be copied anew."""
        for table in (t for t in plan.tables if t.fed_by is None):
            now = source.describe(table.source.name, census=False)
            if now is None or now.fingerprint != table.source.fingerprint:
                raise SourceError(
                    "the table was altered or dropped since the job began",
                    table=str(table.source.name),
                    hint="start a new job for the new shape",
                )
        if job.token != self._token or any(table.dedup is not None for table in plan.tables):
            # (A dedup reads what was committed: the COMMIT of a process that has just died is waited for.)
            # First of all: from here on workers of another process, under the old state, finish no chunk any more.
            target.ledger.set_token(job.id, self._token)
        chunks = target.ledger.chunks(job.id)
        for table in plan.tables:
            mine = [c for c in chunks if c.table == table.index]
            seen = {c.snapshot for c in mine if c.state == "done"}
            if any(c.state != "done" for c in mine):
                seen.add(self._token)
            # The places of rows (ctid, rowid) mean nothing under another snapshot.
            if len(seen) > 1 and any(c.bound.physical for c in mine):
                passing("before redo")
                target.ledger.redo_table(job.id, table.index, lambda: reset_action(plan, table, target))  # noqa: B023

    def _work(self, source: Source, target: Target, job: JobRow, plan: Plan) -> None:
        """Runs the workers until no chunk is left, and raises what stopped them."""
        stop = threading.Event()
        shared = Shared(job.id, plan, source, target, stop, self._token, self._on_event, self._held_back, self._ahead)
        if plan.options.get("quarantine") and plan.tables:
            from rowferry.engine import quarantine

            shared.quarantine = quarantine.of_job(target, job.id, plan, self._request)
        deduplicating: Any = contextlib.nullcontext()
        if any(table.dedup is not None for table in plan.tables):
            deduplicating = _deduplication().deduplicating(shared, self._request, self._stop)
        with self._held_back.watching(source, target, stop), deduplicating as self._duplicates:
            self._let_work(shared, job)
        self.carried = max(self.carried, shared.carried)
        add_counts(self._retries, shared.retries)
        for table, (first, last) in shared.spans.items():
            self._spans[table] = (self._spans.get(table, (first, last))[0], last)
        if isinstance(shared.error, DataError):
            from rowferry.engine import unfit

            unfit_rows = unfit.count_unfit(source, plan, shared.error, self._request.workers, self._stop)
            if unfit_rows is not None:
                shared.error.message += f"; {unfit_rows:,} rows of the column hold such a value"
        if shared.error is not None:
            raise shared.error
        if self._stop.is_set():
            raise StoppedError("stopped on request", hint=self._resume_hint(job))

    def _let_work(self, shared: Shared, job: JobRow) -> None:
        """Starts the workers and waits for them."""
        workers = [Worker(number, shared) for number in range(self._request.workers)]
        for worker in workers:
            worker.start()
        until: float | None = None
        for worker in workers:
            while worker.is_alive() and (until is None or time.monotonic() < until):
                worker.join(0.1)
                if self._stop.is_set() and until is None:
                    shared.fail(StoppedError("stopped on request", hint=self._resume_hint(job)))
                    # Whoever waits for a server is cut off meanwhile (stopping.py); a thread that does not end even
                    # so is left behind: its transaction ends with the process.
                    until = time.monotonic() + limits.STOP_GRACE_S + limits.STOP_PATIENCE_S

    def _resume_hint(self, job: JobRow) -> str:
        return f"run the same command again, or: rowferry resume {self._request.target.safe_url} {job.name}"

    def _join(
        self, source: Source, target: Target, findings: planner.Findings | None, known: JobRow | None, key: str
    ) -> Report:
        """Adds this process's workers to a job that another process runs, and ends it if that one has died."""
        if not registry.capabilities(self._request.target.engine).server:
            raise ConfigError("only a server can be written by several processes at once", hint="leave out --join")
        job = self._find(target)
        while job is None or any(s.state != "done" for s in target.ledger.steps(job.id) if s.kind in BEFORE):
            if target.ledger.lock(key):
                return self._own(source, target, findings, known, key)
            if self._stop.wait(limits.CLAIM_POLL_S):
                raise self.stopped()
            job = self._find(target)
        if job.state == "finished":
            return self._finished_before(job)
        plan = self._plan_of(job)
        if any(table.dedup is not None for table in plan.tables):
            raise ConfigError(
                "the job deduplicates, and what one process has claimed another does not know", hint="leave out --join"
            )
        self._job = job
        self._guarantee = source.open_snapshot(self._request.workers, adopt=_snapshot_of(job.token))
        self._token = _token_of(source)
        if job.token != self._token:
            raise ConfigError("the source has another state than the job's readers see", hint="let the job end alone")
        chunks = target.ledger.chunks(job.id)
        self._on_event(self._started_event(job, plan, chunks, True))
        self._work(source, target, job, plan)
        if target.ledger.lock(key):
            return self._end_for_another(source, target, job, plan, key)
        report = self._report(source, target, job, plan, target.ledger.chunks(job.id), {})
        self._on_event(Note("no chunk is left; the process that began the job finishes it"))
        self._on_event(JobFinished(report))
        return report

    def _end_for_another(self, source: Source, target: Target, job: JobRow, plan: Plan, key: str) -> Report:
        """The process that began the job has ended: if it has not finished the job, this one does."""
        try:
            now = self._find(target)
            if now is None:
                raise LedgerError("the job was removed from the ledger meanwhile", hint="start it again")
            if now.state == "finished":
                return self._finished_before(now)
            if now.token != self._token:
                raise SnapshotLostError("another process has taken the job up under a new snapshot")
            return self._complete(source, target, job, plan, {})
        finally:
            target.ledger.unlock(key)

    # --- what it came to ---------------------------------------------------------------------

    def _started_event(self, job: JobRow, plan: Plan, chunks: list[ChunkRow], resumed: bool) -> JobStarted:
        return JobStarted(
            self._command,
            job.name,
            self._request.source.safe_url,
            self._request.target.safe_url,
            self._request.workers,
            outcome.table_totals(plan, chunks),
            self._guarantee,
            resumed,
        )

    def _report(
        self, source: Source, target: Target, job: JobRow, plan: Plan, chunks: list[ChunkRow], taken: dict[int, int]
    ) -> Report:
        tables = [
            outcome.table_report(
                t, chunks, taken.get(t.index, 0), self._retries.get(t.index, 0), self._spans.get(t.index, (0.0, 0.0))
            )
            for t in plan.tables
        ]
        mixed = len({c.snapshot for c in chunks if c.state == "done"}) > 1
        return Report(
            command=self._command,
            source=self._request.source.safe_url,
            target=self._request.target.safe_url,
            job=job.name,
            mode=plan.mode,
            snapshot="mixed" if mixed else self._guarantee,
            snapshot_note=source.snapshot_note(),
            seconds=time.monotonic() - self._started,
            workers=self._request.workers,
            tables=tuple(tables),
            notes=(*self._notes, *self._held_back.notes(), *(target.notes() if isinstance(target, Noting) else ())),
        )

    def _failed(
        self, source: Source, target: Target, job: JobRow, plan: Plan, taken: dict[int, int], error: RowferryError
    ) -> Report | None:
        """The report of a run that failed: what had arrived until then, where the ledger still answers."""
        if isinstance(error, TargetError) and error.transient:
            return None
        try:
            chunks = target.ledger.chunks(job.id)
            report = self._report(source, target, job, plan, chunks, taken)
        except RowferryError:
            return None  # the side that failed is the one that would have to be asked
        status = "stopped" if isinstance(error, StoppedError) else "failed"
        return msgspec.structs.replace(report, status=status, exit_code=error.exit_code, error=str(error))

    def _prove(
        self, source: Source, target: Target, job: JobRow, plan: Plan, report: Report, stale: set[int]
    ) -> Report:
        """Closes the counts, compares the digests and, where asked for or needed, reads the target again."""
        problems: list[str] = []
        steps = target.ledger.steps(job.id)
        notes, held = list(report.notes), self._held_back.notes()
        for counted in report.tables:
            problem = counted.unclosed() or (None if counted.staged else outcome.digest_problem(counted))
            if problem:
                problems.append(f"table {counted.source!r}: {problem}")
        if isinstance(target, Orphaning):
            names = [t.target.name for t in plan.tables]
            problems += [f"table {str(name)!r}: {o}" for name in names for o in target.orphans(name)]
        if stale and self._request.no_verify:
            notes.append("some chunks were read under an older snapshot and, as asked for, not verified")
        whole = {
            t.index for t in plan.tables if self._request.verify or t.target.volatile or unique.may_merge(t, plan.mode)
        }
        tables = list(report.tables)
        if (whole or stale) and not self._request.no_verify:
            from rowferry.engine import proof  # a copy that reads nothing again does not load what compares

            with self._held_back.watching(source, target, self._stop):
                tables = proof.prove(
                    source,
                    target,
                    plan,
                    report.tables,
                    whole=whole,
                    stale=stale,
                    baseline=lambda index: baseline_of(steps, index),
                    request=self._request,
                    on_event=self._on_event,
                    stop=self._stop,
                    reads=self._held_back.reads,
                )
            notes = [note for note in notes if note not in held] + list(self._held_back.notes())
        if any(t.rows_quarantined and t.equal is False for t in tables):
            from rowferry.engine import quarantine

            tables = quarantine.account_for(target, job.id, plan, tables, notes)
        problems += [
            f"table {t.target!r}: {t.missing or 0:,} rows missing, {t.extra or 0:,} extra, {t.changed or 0:,} changed"
            for t in tables
            if t.equal is False
        ]
        aside = sum(t.rows_quarantined for t in tables)
        status = "different" if problems else "quarantined" if aside else "ok"
        if aside:
            again = f"rowferry retry-quarantined {self._request.target.safe_url} {job.name}"
            problems.append(f"{aside:,} rows were quarantined: mend what stands beside them, then: {again}")
        return msgspec.structs.replace(
            report,
            tables=tuple(tables),
            notes=tuple(notes),
            status=status,
            exit_code=1 if problems else 0,
            error="; ".join(problems) or None,
            seconds=time.monotonic() - self._started,
        )


def _token_of(source: Source) -> str:
    """Names the state of the source that the readers see, once their snapshot is open.

    Where the state of the whole database has a name (files), that is it, and it is the same in the next
    process if nothing changed; else it is the name of the snapshot that the readers share.
    """
    snapshot = source.snapshot_id()
    if snapshot is None:
        return f"run:{secrets.token_hex(8)}"
    return snapshot if source.state_token() is not None else f"snapshot:{snapshot}"


def _snapshot_of(token: str | None) -> str | None:
    return token.removeprefix("snapshot:") if token and token.startswith("snapshot:") else None


def _deduplication() -> Any:
    """Loaded only where rows are deduplicated."""
    from rowferry.engine import deduplication

    return deduplication
