"""Sends quarantined rows again, after what kept them back was mended.

    read the quarantine ─► per job and table: made again ─► transform ─► convert ─► load ─┐
                                                                                        ├─► COMMIT
    the rows that landed leave the quarantine, the others stay with their new reason ────┘

A row lands exactly once, whatever ends the process: it leaves the quarantine in the transaction that loads it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from rowferry import convert, limits
from rowferry.adapters import registry
from rowferry.adapters.protocol import Block, Target, Writer
from rowferry.engine import letting_go, opening
from rowferry.engine.bisect import Search, refuses_rows
from rowferry.engine.jobs import plan_of
from rowferry.engine.progress import EventHandler, JobFinished, Note
from rowferry.engine.quarantine import Keeper, place, rows_in
from rowferry.engine.report import Report, TableReport
from rowferry.engine.request import Request
from rowferry.engine.spool import Spool
from rowferry.engine.transfer import TableWay, require_all, write_request
from rowferry.errors import ConfigError, DataError, RowferryError, StoppedError
from rowferry.failpoints import passing
from rowferry.model import ColumnPlan, JobRow, Plan, TableName, TablePlan
from rowferry.stages import quarantine as kept
from rowferry.stages.quarantine import Kept

if TYPE_CHECKING:
    from rowferry.engine.landed import Landed


def retry(asked: Request, on_event: EventHandler, stop: threading.Event) -> Report:
    """Sends the rows of the job that is named (None: of all) again. The report's ``rows_read`` are the rows that were
    tried, ``rows_committed`` those that landed, ``rows_deduplicated`` those of whose key a row had landed,
    ``rows_quarantined`` those that stay (then its exit code is 1).

    Raises ConfigError for a job that is not there, is not finished, or is being run.
    """
    began = time.monotonic()
    caps = registry.capabilities(asked.target.engine)
    name = place(caps, asked.ledger_schema)
    jobs = _jobs(asked, name)
    tables: list[TableReport] = []
    notes: list[str] = []
    for job, rows in jobs:
        if job is None or job.state != "finished":
            why = "is not in this ledger any more" if job is None else "is not finished"
            notes.append(f"job {job.name if job else rows[0].job!r} {why}: its {len(rows):,} rows stay")
            tables += _all_stay(rows)
            continue
        tables += _Retry(asked, name, job, caps.savepoints, on_event, stop).run()
    for note in notes:
        on_event(Note(note))
    left = sum(t.rows_quarantined for t in tables)
    report = Report(
        command="retry-quarantined",
        source=asked.target.safe_url,
        target=asked.target.safe_url,
        job=asked.job,
        status="quarantined" if left else "ok",
        exit_code=1 if left else 0,
        error=f"{left:,} rows stay in the quarantine, each with the reason of now" if left else None,
        seconds=time.monotonic() - began,
        workers=1,
        tables=tuple(tables),
        notes=tuple(notes),
    )
    on_event(JobFinished(report))
    return report


def _jobs(asked: Request, name: TableName) -> list[tuple[JobRow | None, list[Kept]]]:
    """The jobs that have rows in the quarantine (None: the ledger does not know it), with one row of each at least."""
    with opening.target_of(asked, read_only=True) as target:
        known = target.ledger.jobs() if target.ledger.open(create=False) else []
        if asked.job is not None:
            chosen = [j for j in known if asked.job in (j.name, j.id)]
            if not chosen:
                raise ConfigError(f"no job {asked.job!r} in this ledger", hint="see: rowferry jobs TARGET")
            if chosen[-1].state != "finished":
                raise ConfigError(
                    f"job {asked.job!r} is not finished", hint="finish it first, with rowferry resume TARGET"
                )
            known = chosen[-1:]
        if target.describe(name) is None:
            return []
        found: dict[str, list[Kept]] = {}
        for batch in rows_in(target, name):
            for row in kept.kept_in(batch):
                found.setdefault(row.job, []).append(msgspec.structs.replace(row, row_data="", row_key=None))
    by_id = {j.id: j for j in known}
    return [(by_id.get(job), rows) for job, rows in sorted(found.items()) if asked.job is None or job in by_id]


def _all_stay(rows: Sequence[Kept]) -> list[TableReport]:
    by_table = itertools.groupby(sorted(rows, key=_table_of), key=_table_of)
    counted = [(names, sum(1 for _ in group)) for names, group in by_table]
    return [TableReport(*names, rows_read=n, rows_quarantined=n) for names, n in counted]


def _table_of(row: Kept) -> tuple[str, str]:
    return row.source_table, row.target_table


#: Rows for one table.
Part = tuple[TableWay, pa.RecordBatch]


class _Retry:
    """One job's rows."""

    def __init__(
        self,
        asked: Request,
        name: TableName,
        job: JobRow,
        savepoints: bool,
        on_event: EventHandler,
        stop: threading.Event,
    ) -> None:
        self._plan: Plan = plan_of(job)
        self._asked = msgspec.structs.replace(asked, target_triggers=self._plan.options["target_triggers"])
        self._name = name
        self._job = job
        self._savepoints = savepoints
        self._on_event = on_event
        self._stop = stop
        self._counts: dict[int, list[int]] = {}
        #: Of tables that are deduplicated: what stands in the target, read when rows of one are first sent again.
        self._landed: dict[int, Landed] = {}

    def run(self) -> list[TableReport]:
        transformed = any(table.transform is not None for table in self._plan.tables)
        with letting_go.stages(transformed), opening.target_of(self._asked) as target:
            if not opening.lock_job(target, self._job.key, self._stop, limits.LOCK_PATIENCE_S):
                raise ConfigError(f"job {self._job.name!r} is being run by another process", hint="wait for it")
            try:
                self._send(target)
            finally:
                target.ledger.unlock(self._job.key)
        out = []
        for index, (tried, landed, filtered, like) in sorted(self._counts.items()):
            plan = self._plan.tables[index]
            report = TableReport(str(plan.source.name), str(plan.target.name))
            stay = tried - landed - filtered - like
            out.append(
                msgspec.structs.replace(
                    report,
                    rows_read=tried,
                    rows_sent=landed,
                    rows_committed=landed,
                    rows_filtered=filtered,
                    rows_deduplicated=like,
                    rows_quarantined=stay,
                    staged=True,
                )
            )
        return out

    def _send(self, target: Target) -> None:
        with Spool() as spool:
            for batch in rows_in(target, self._name):
                mine = pa.array([job == self._job.id for job in batch.column("job").to_pylist()], pa.bool_())
                spool.add(batch.filter(mine))
            keeper = Keeper(target, self._name)
            writer = target.writer()
            touched: dict[int, TablePlan] = {}
            silenced: list[TablePlan] = []
            try:
                for start in range(0, spool.rows, limits.RETRY_ROWS):
                    rows = [r for b in spool.batches(start, start + limits.RETRY_ROWS) for r in kept.kept_in(b)]
                    rows.sort(key=lambda r: (r.table_index, r.stage))
                    for (index, stage), group in itertools.groupby(rows, key=lambda r: (r.table_index, r.stage)):
                        if self._stop.is_set():
                            raise StoppedError("stopped on request", hint="the same command goes on where it stopped")
                        if index not in touched:
                            touched[index] = self._plan.tables[index]
                            # A row that passes the transform anew may come out for the tables that it feeds, too.
                            for table in (t for t in self._plan.tables if index in (t.index, t.fed_by)):
                                self._silence(target, table, silenced)
                        sending = _Sending(
                            target, writer, keeper, self._plan, index, stage, self._savepoints, self._landed_of
                        )
                        self._count(index, sending.send(list(group)))
            finally:
                writer.close()
                for landed in self._landed.values():
                    landed.close()
                for table in silenced:
                    target.disable_triggers(table.target, False)
            self._end(target, touched)

    def _landed_of(self, target: Target, way: TableWay) -> Landed | None:
        """What rows of a table are held against; None where they are not. No transaction is open when it is asked."""
        plan = way.plan
        if plan.dedup is None:
            return None
        from rowferry.engine import landed

        if plan.index not in self._landed and landed.applies(plan, self._plan.mode):
            self._landed[plan.index] = landed.Landed(target, plan, self._asked.target.engine, self._stop)
        return self._landed.get(plan.index)

    def _silence(self, target: Target, table: TablePlan, silenced: list[TablePlan]) -> None:
        if table.target.triggers and self._asked.target_triggers == "disable" and table not in silenced:
            silenced.append(table)
            target.disable_triggers(table.target, True)

    def _count(self, index: int, counts: tuple[int, int, int, int]) -> None:
        before = self._counts.setdefault(index, [0, 0, 0, 0])
        self._counts[index] = [a + b for a, b in zip(before, counts, strict=True)]

    def _end(self, target: Target, touched: dict[int, TablePlan]) -> None:
        """Puts sequences above what landed."""
        for index in touched:
            for table in self._plan.tables:
                if index in (table.index, table.fed_by):
                    now = target.describe(table.target.name)
                    if now is not None:
                        target.set_sequences(now)


class _Sending:
    """One transaction's rows: of one table, set aside at the same stage."""

    def __init__(
        self,
        target: Target,
        writer: Writer,
        keeper: Keeper,
        plan: Plan,
        index: int,
        stage: str,
        savepoints: bool,
        landed_of: Callable[[Target, TableWay], Landed | None],
    ) -> None:
        self._target = target
        self._writer = writer
        self._keeper = keeper
        self._job = plan
        self._plan = plan.tables[index]
        self._stage = stage
        self._savepoints = savepoints
        #: Why rows stay, by id.
        self._reasons: dict[str, tuple[str | None, str]] = {}
        self._landed_of = landed_of
        self._filtered = self._like = 0

    def send(self, rows: list[Kept]) -> tuple[int, int, int, int]:
        """Returns how many rows were tried, have landed, were left out by the transform's condition, and since a row
        of the same key had landed."""
        try:
            if self._stage == kept.READ:
                self._send_read(rows)
            else:
                self._send_made(rows)
        except BaseException:
            self._writer.rollback()
            raise
        stay = len(self._reasons)
        return len(rows), len(rows) - stay - self._filtered - self._like, self._filtered, self._like

    def _stays(self, row: Kept, error: RowferryError) -> None:
        self._reasons[row.id] = error.column, kept.plain(kept.reason_of(error))

    def _all_stay(self, rows: list[Kept], error: RowferryError) -> None:
        for row in rows:
            self._stays(row, error)
        self._settle(rows)

    def _settle(self, rows: list[Kept]) -> None:
        """Those that landed leave the quarantine, the others get their new reason; COMMIT. In the open transaction,
        or in one of its own where none is open."""
        self._keeper.remove(self._writer, rows)
        stay = []
        for row in rows:
            if row.id in self._reasons:
                column, reason = self._reasons[row.id]
                first, _, number = row.id.partition("~")
                # Another id: not every engine takes the key of a row that went in the same transaction.
                again = f"{first}~{int(number or 0) + 1}"
                stay.append(msgspec.structs.replace(row, id=again, column_name=column, reason=reason))
        self._keeper.write(self._writer, stay)
        passing("retry settled")
        self._writer.commit()
        passing("retry committed")

    # --- rows that were set aside after the transform, or without one -------------------------------

    def _send_made(self, rows: list[Kept]) -> None:
        try:
            way = way_now(self._target, self._plan, self._stage)
            landed = self._landed_of(self._target, way)
        except RowferryError as error:
            if error.transient:
                raise
            self._writer.begin()
            self._all_stay(rows, error)
            return
        forms = [(c.source, c.form) for c in way.plan.columns]
        whole = kept.those_that_are_made(rows, forms, self._stays)
        made = kept.rows_of(whole, forms)
        fit = kept.sift(made, lambda batch: way.convert(batch, {}), lambda i, error: self._stays(whole[i], error))
        left = [row for row in whole if row.id not in self._reasons]
        sent = way.convert(fit, {})
        if landed is not None and (fresh := landed.mask(sent)) is not None:
            left = [row for row, is_fresh in zip(left, fresh.to_pylist(), strict=True) if is_fresh]
            self._like += sent.num_rows - len(left)
            sent = sent.filter(fresh)
        request = write_request(way.plan, self._job.mode)
        self._writer.begin()
        with Spool() as spool:
            spool.add(sent)
            self._writer.mark()
            if spool.rows:
                search = Search(self._writer, request, spool, lambda i, error: self._stays(left[i], error))
                search.load(self._savepoints)
        passing("retry loaded")
        self._settle(rows)

    # --- rows that the transform had set aside ------------------------------------------------------

    def _send_read(self, rows: list[Kept]) -> None:
        """Each through the transform alone, so that it is known what comes of it; all in one transaction if the
        target takes all, else each in its own."""
        made = self._made(rows)
        self._writer.begin()
        try:
            self._write(made)
        except RowferryError as error:
            if not refuses_rows(error):
                raise
            self._writer.rollback()
            self._one_by_one(made)
            rows = [row for row in rows if row.id in self._reasons]
            if not rows:
                return
            self._writer.begin()
        passing("retry loaded")
        self._settle(rows)

    def _made(self, rows: list[Kept]) -> list[tuple[Kept, list[Part]]]:
        from rowferry.engine import transforming

        plan = self._plan
        out: list[tuple[Kept, list[Part]]] = []
        try:
            assert plan.transform is not None
            stage = transforming.stage_of(plan.transform, str(plan.source.name), mended=True)
            outputs = [t for t in self._job.tables if plan.index in (t.index, t.fed_by)]
            ways = {t.output: way_now(self._target, t, kept.PASSED) for t in outputs}
            landed = self._landed_of(self._target, ways[0])
            worker = stage.worker()
        except RowferryError as error:
            if error.transient:
                raise
            for row in rows:
                self._stays(row, error)
            return []
        try:
            for row in rows:
                try:
                    passed = worker.apply(kept.rows_of([row], plan.reads))
                    if passed.refused:
                        raise DataError(passed.refused[0].reason, column=passed.refused[0].column)
                    parts = [(ways[o], ways[o].convert(batch, {})) for o, batch in passed.batches if batch.num_rows]
                except DataError as error:
                    self._stays(row, error)
                    continue
                self._filtered += not parts
                fresh = self._fresh(parts, landed)
                self._like += bool(parts) and not fresh
                out.append((row, fresh))
        finally:
            worker.close()
        return out

    def _fresh(self, parts: list[Part], landed: Landed | None) -> list[Part]:
        """What came of a row, without those of the table's own rows of whose key one has landed."""
        out = []
        for way, batch in parts:
            mask = landed.mask(batch) if landed is not None and way.plan.index == self._plan.index else None
            batch = batch if mask is None else batch.filter(mask)
            if batch.num_rows:
                out.append((way, batch))
        return out

    def _write(self, made: list[tuple[Kept, list[Part]]]) -> None:
        by_table: dict[int, tuple[TableWay, list[pa.RecordBatch]]] = {}
        for _, parts in made:
            for way, batch in parts:
                by_table.setdefault(way.plan.index, (way, []))[1].append(batch)
        for way, batches in by_table.values():
            request = write_request(way.plan, self._job.mode)
            accepted = self._writer.write(request, [Block(batch) for batch in batches])
            require_all(sum(batch.num_rows for batch in batches), accepted, str(way.plan.target.name))

    def _one_by_one(self, made: list[tuple[Kept, list[Part]]]) -> None:
        for row, parts in made:
            self._writer.begin()
            try:
                self._write([(row, parts)])
            except RowferryError as error:
                if not refuses_rows(error):
                    raise
                self._writer.rollback()
                self._filtered -= not parts
                self._stays(row, error)
                continue
            self._settle([row])


def way_now(target: Target, plan: TablePlan, stage: str) -> TableWay:
    """A table's way into the target as it is now: what kept rows back may have been mended there (a wider column, a
    NOT NULL that is gone). Raises DataError where there is none."""
    table = target.describe(plan.target.name)
    if table is None:
        raise DataError("the target has no such table any more", table=str(plan.target.name))
    columns = []
    for column in plan.columns:
        try:
            into = table.column(column.target)
        except KeyError:
            raise DataError("the target has no such column any more", column=column.target) from None
        if into.native == column.column.native and into.type.kind != column.column.type.kind:
            # The plan chose another form of the same type: the engine's own bytes, say.
            into = msgspec.structs.replace(into, type=column.column.type)
        made = stage == kept.CONVERTED
        source, form = (column.target, column.column.type) if made else (column.source, column.form)
        checks = target.checks(into)
        way = convert.conversion(form, into.type, checks, column.policy)
        if isinstance(way, str):
            raise DataError(way, column=column.target)
        checks = checks if into.nullable else (*checks, "not_null")
        columns.append(ColumnPlan(source, form, into.name, into, column.comparison, column.policy, checks))
    now = msgspec.structs.replace(plan, target=table, columns=tuple(columns), raw=False, load_name=None)
    return TableWay(now)
