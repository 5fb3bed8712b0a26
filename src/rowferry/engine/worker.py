"""A worker: a thread with a source and a target connection of its own, that takes chunk after chunk."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from rowferry import limits
from rowferry.adapters.protocol import Block, Cuttable, Reader, ReadRequest, Source, Target, Writer, WriteRequest
from rowferry.engine.ahead import Ahead
from rowferry.engine.held_back import HeldBack
from rowferry.engine.prefetch import Prefetch
from rowferry.engine.progress import ChunkFinished, ChunkRetried, ChunkStarted, EventHandler, Note, Waiting
from rowferry.engine.transfer import TableWay, Transfer, require_all, write_request
from rowferry.errors import (
    LedgerError,
    OutcomeUnknownError,
    RowferryError,
    SnapshotLostError,
    SourceError,
    StoppedError,
)
from rowferry.failpoints import passing
from rowferry.model import ChunkRow, Plan, TablePlan

if TYPE_CHECKING:
    from rowferry.engine.quarantine import Quarantine
    from rowferry.engine.staged import StagedTransfer
    from rowferry.stages.flow import StageWorker


class Shared(msgspec.Struct):
    """What the workers of one process share."""

    job: str
    plan: Plan
    source: Source
    target: Target
    stop: threading.Event
    #: The state that the source is read in: the job's token in the ledger.
    snapshot: str
    on_event: EventHandler
    held_back: HeldBack
    #: Connections that are opened already, where there are some.
    ahead: Ahead | None = None
    #: Held for changes of what follows; notified when a chunk has landed.
    lock: threading.Condition = msgspec.field(default_factory=threading.Condition)
    tries: dict[tuple[int, int], int] = msgspec.field(default_factory=dict)
    #: Tries beyond the first, by table.
    retries: dict[int, int] = msgspec.field(default_factory=dict)
    #: When each table's first chunk of this run began and its last one ended (monotonic seconds).
    spans: dict[int, tuple[float, float]] = msgspec.field(default_factory=dict)
    #: Chunks that this process has carried.
    carried: int = 0
    error: BaseException | None = None
    #: Where rows go that cannot be carried, if anywhere.
    quarantine: Quarantine | None = None
    #: Of tables of which one of several like rows is kept: what has been claimed, by the table's index.
    dedups: dict[int, Any] = msgspec.field(default_factory=dict)

    def widen(self, table: int, began: float) -> None:
        with self.lock:
            self.carried += 1
            self.lock.notify_all()
            self.spans[table] = (min(began, self.spans.get(table, (began, 0.0))[0]), time.monotonic())

    def fail(self, error: BaseException) -> None:
        """Keeps the first error and tells the others to stop: no worker waits for one that is gone."""
        with self.lock:
            if self.error is None or (isinstance(self.error, StoppedError) and not isinstance(error, StoppedError)):
                self.error = error
        self.stop.set()

    def await_chunk(self, carried: int) -> None:
        """Waits until more than ``carried`` chunks of this process have landed, or until it is time to look at
        those of others."""
        with self.lock:
            self.lock.wait_for(lambda: self.carried != carried or self.stop.is_set(), limits.CLAIM_POLL_S)

    def count_try(self, chunk: ChunkRow) -> int:
        with self.lock:
            key = (chunk.table, chunk.number)
            self.tries[key] = self.tries.get(key, 0) + 1
            self.retries[chunk.table] = self.retries.get(chunk.table, 0) + 1
            return self.tries[key]


def retry_wait_s(tries: int) -> float:
    """Exponential with full jitter, so that workers do not come back all at once."""
    return random.uniform(
        limits.RETRY_WAIT_MIN_S, min(limits.RETRY_WAIT_MAX_S, limits.RETRY_WAIT_MIN_S * 2 ** min(tries, 10))
    )


class Worker(threading.Thread):
    """Takes chunks until the ledger has none left that is not done."""

    def __init__(self, number: int, shared: Shared) -> None:
        super().__init__(name=f"rowferry-worker-{number}", daemon=True)
        self._number = number
        self._shared = shared
        self._throttle = shared.held_back.throttle
        #: Since when there was no chunk to take (monotonic seconds), and whether that was said.
        self._idle_since: float | None = None
        self._said = False
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        #: Claims in a row that failed, and how many chunks the process had carried when the first of them did.
        self._failures = 0
        self._carried_before = 0
        self._ways: dict[int, TableWay] = {}
        #: Of tables that are transformed: what this thread does it with.
        self._stages: dict[int, StageWorker] = {}

    def run(self) -> None:
        try:
            while not self._shared.stop.is_set() and self._next():
                pass
        except BaseException as error:  # noqa: BLE001 - the supervisor raises it in the caller's thread
            self._shared.fail(error)
        finally:
            self._close_stages()
            self._drop()

    def _drop(self) -> None:
        """Closes both connections; what they held goes back."""
        if self._writer is not None:
            self._writer.rollback()
            self._writer.close()
        if self._reader is not None:
            self._reader.close()
        self._writer = self._reader = None

    def _claim(self) -> tuple[ChunkRow | None, int]:
        """A chunk, or how many are not done while there is none to take."""
        shared = self._shared
        if self._writer is None and self._reader is None and shared.ahead is not None:
            self._writer, self._reader = shared.ahead.take()
        if self._writer is None:
            self._writer = shared.target.writer()
        if self._reader is None:
            self._reader = shared.source.reader()
        chunk = self._writer.claim(shared.job)
        if chunk is not None:
            return chunk, 0
        self._writer.rollback()
        return None, self._writer.pending(shared.job)

    def _next(self) -> bool:
        """Claims and carries one chunk. False when there is nothing left to do."""
        shared = self._shared
        carried = shared.carried
        if self._throttle is not None:
            self._throttle.between_chunks()
        try:
            chunk, pending = self._claim()
        except RowferryError as error:
            return self._not_claimed(error)
        self._failures = 0
        if chunk is None:
            if pending == 0:
                return False
            self._idle(pending)
            shared.await_chunk(carried)
            return True
        self._idle_since, self._said = None, False
        passing("claimed")
        plan = shared.plan.tables[chunk.table]
        try:
            self._carry(plan, chunk)
        except RowferryError as error:
            error.at(table=str(plan.source.name), chunk=chunk.number)
            self._drop()
            if self._throttle is not None and self._throttle.gave_back(error):
                return True
            tries = shared.count_try(chunk)
            if tries >= limits.CHUNK_TRIES and not isinstance(error, SnapshotLostError):
                # Both sides have answered every time: no outage (but a full disk, say), and a new snapshot is no help.
                error.transient = False
            if not error.transient or isinstance(error, SnapshotLostError):
                raise
            shared.held_back.failed(error, shared.carried)
            wait_s = retry_wait_s(tries)
            shared.on_event(
                ChunkRetried(str(plan.source.name), chunk.number, self._number, tries + 1, wait_s, str(error))
            )
            shared.stop.wait(wait_s)
        return True

    def _not_claimed(self, error: RowferryError) -> bool:
        """A side did not answer before a chunk was taken: waits and tries again, a bounded number of times.

        A worker that finds no connection (a server takes only so many) while others carry chunks leaves them to it.
        """
        shared = self._shared
        self._drop()
        if not error.transient or isinstance(error, SnapshotLostError):
            raise error
        self._failures += 1
        if self._failures == 1:
            self._carried_before = shared.carried
            shared.on_event(Waiting(f"worker {self._number}: {error}"))
        if self._failures >= limits.CHUNK_TRIES:
            if shared.carried == self._carried_before:
                raise error
            shared.on_event(Note(f"worker {self._number} leaves the others to it: {error}"))
            return False
        shared.stop.wait(retry_wait_s(self._failures))
        return True

    def _idle(self, pending: int) -> None:
        """Says why nothing happens, once it has been so for longer than a chunk usually takes."""
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if not self._said and now - self._idle_since > limits.IDLE_SAID_AFTER_S:
            self._said = True
            self._shared.on_event(Waiting("chunks that other workers hold", pending))

    def _carry(self, plan: TablePlan, chunk: ChunkRow) -> None:
        assert self._reader is not None
        assert self._writer is not None
        shared = self._shared
        began = time.monotonic()
        name = str(plan.source.name)
        shared.on_event(ChunkStarted(name, chunk.number, self._number))
        if self._reader.fingerprint(plan.source.name) != plan.source.fingerprint:
            raise SourceError(
                "the table was altered or dropped while the job ran",
                hint="finish with the old shape, or start a new job (--job) for the new one",
            )
        if plan.transform is None and plan.dedup is None and shared.quarantine is None:
            self._load(plan, chunk, Transfer(self._way(plan), shared.stop), began)
            return
        staged = self._staged(plan, chunk)
        try:
            if shared.quarantine is None:
                self._load(plan, chunk, staged, began)
                return
            accepted = self._write_passing(plan, chunk, staged)
            if accepted is None:
                staged.end(committed=False)
                self._close_stages()
                staged = self._staged(plan, chunk)
                accepted = self._write_sifted(plan, chunk, staged)
            staged.check_set_aside()
            self._land(plan, chunk, staged, accepted, began)
        except BaseException:
            staged.end(committed=False)
            self._close_stages()
            raise

    def _write_passing(self, plan: TablePlan, chunk: ChunkRow, staged: StagedTransfer) -> int | None:
        """Writes a chunk whose rows may be set aside; None where the target refuses some of them: the transaction
        is then as it was."""
        from rowferry.engine.quarantine import Watched

        assert self._writer is not None
        self._writer.mark()
        with self._reading(plan, chunk, staged) as blocks:
            watched = Watched(staged.through(blocks))
            try:
                accepted = self._writer.write(self._write_request(plan, chunk), watched)
                self._write_branches(chunk, staged)
                return accepted
            except RowferryError as error:
                if not watched.refused_by_target(error):
                    raise
        self._writer.undo()
        return None

    def _write_sifted(self, plan: TablePlan, chunk: ChunkRow, staged: StagedTransfer) -> int:
        """Reads the chunk again and writes the rows that the target takes."""
        from rowferry.engine.bisect import Sought
        from rowferry.engine.quarantine import Sifting

        assert self._writer is not None
        shared = self._shared
        assert shared.quarantine is not None and staged.aside is not None
        passing("refused")
        sifting = Sifting(self._writer, shared.quarantine.savepoints, shared.stop)
        with self._reading(plan, chunk, staged) as blocks, Sought() as spool:
            for block in staged.through(blocks):
                spool.add(block.batch)
            accepted, left = sifting.load(self._write_request(plan, chunk), spool, staged.aside)
            staged.leave_out(left)
            for branch in staged.branches:
                if branch.rows_sent:
                    assert branch.aside is not None
                    _, left = sifting.load(self._write_request(branch.plan, chunk), branch.spool, branch.aside)
                    branch.leave_out(left)
        return accepted

    def _way(self, plan: TablePlan) -> TableWay:
        way = self._ways.get(plan.index)
        if way is None:
            way = self._ways[plan.index] = TableWay(plan)
        return way

    def _staged(self, plan: TablePlan, chunk: ChunkRow) -> StagedTransfer:
        """What carries a chunk's rows through their stage, which is opened once for each thread."""
        from rowferry.engine import transforming
        from rowferry.engine.staged import Branch, StagedTransfer

        shared = self._shared
        rows_wanted = 0
        if plan.transform is not None:
            stage = transforming.stage_of(plan.transform, str(plan.source.name))
            if self._throttle is None or not self._throttle.paces:  # what was cut small is not put together again
                rows_wanted = stage.batch_rows
            if plan.index not in self._stages:
                self._stages[plan.index] = stage.worker()
        asides = shared.quarantine.aside(chunk) if shared.quarantine is not None else None
        aside = asides.of(plan) if asides is not None else None
        branches = [
            Branch(self._way(fed), asides.of(fed) if asides is not None else None)
            for fed in shared.plan.tables
            if fed.fed_by == plan.index
        ]
        dedup = shared.dedups[plan.index].begin(chunk.number) if plan.dedup is not None else None
        opened = self._stages.get(plan.index)
        return StagedTransfer(self._way(plan), shared.stop, opened, dedup, branches, aside, rows_wanted=rows_wanted)

    def _close_stages(self) -> None:
        stages, self._stages = self._stages, {}
        for stage in stages.values():
            stage.close()

    def _write_request(self, plan: TablePlan, chunk: ChunkRow) -> WriteRequest:
        return write_request(plan, self._shared.plan.mode, self._shared.job, chunk.number)

    def _load(self, plan: TablePlan, chunk: ChunkRow, transfer: Transfer, began: float) -> None:
        """One chunk from its read to its COMMIT."""
        assert self._writer is not None
        with self._reading(plan, chunk, transfer) as blocks:
            accepted = self._writer.write(self._write_request(plan, chunk), transfer.through(blocks))
        self._write_branches(chunk, transfer)
        self._land(plan, chunk, transfer, accepted, began)

    def _write_branches(self, chunk: ChunkRow, transfer: Transfer) -> None:
        """The rows of the tables that the chunk feeds beside its own."""
        assert self._writer is not None
        for branch in transfer.branches:
            if branch.rows_sent:
                accepted = self._writer.write(self._write_request(branch.plan, chunk), branch.blocks())
                require_all(branch.rows_sent, accepted, str(branch.plan.target.name))

    @contextlib.contextmanager
    def _reading(self, plan: TablePlan, chunk: ChunkRow, transfer: Transfer) -> Iterator[Iterable[Block]]:
        """The chunk's blocks as the source gives them, read ahead."""
        assert self._reader is not None
        read = ReadRequest(
            table=plan.source,
            columns=plan.reads or tuple((c.source, c.form) for c in plan.columns),
            bound=chunk.bound,
            where=plan.where,
            batch_bytes=limits.BATCH_BYTES if self._throttle is None else self._throttle.batch_bytes(plan.source),
            unread=plan.unread,
            intake=transfer.intake,
        )
        cut = self._reader.cut if isinstance(self._reader, Cuttable) else None
        with Prefetch(self._reader.read(read), limits.QUEUE_BYTES, cut) as ahead:
            yield ahead if self._throttle is None else self._throttle.paced(ahead, chunk)

    def _land(self, plan: TablePlan, chunk: ChunkRow, transfer: Transfer, accepted: int, began: float) -> None:
        """What comes after a chunk's rows: those that were set aside, its row in the ledger, COMMIT."""
        assert self._writer is not None
        shared, name = self._shared, str(plan.source.name)
        require_all(transfer.rows_sent, accepted, str(plan.target.name))
        passing("loaded")
        if transfer.aside is not None:
            transfer.aside.chunk.write(self._writer)
            passing("set aside")
        done = msgspec.structs.replace(
            chunk,
            state="done",
            rows_read=transfer.rows_read,
            rows_committed=accepted,
            bytes=transfer.bytes,
            digest_read=str(transfer.digest_read),
            digest_sent=str(transfer.digest_sent),
            touched=transfer.touched,
            snapshot=shared.snapshot,
            seconds=time.monotonic() - began,
            counts=transfer.counts(),
        )
        transfer.prepare()
        self._writer.finish(shared.job, done)
        passing("marked")
        self._commit(done)
        transfer.end(committed=True)
        passing("committed")
        shared.widen(plan.index, began)
        shared.held_back.refused(done.rows_quarantined)
        tries = shared.tries.get((chunk.table, chunk.number), 0) + 1
        shared.on_event(
            ChunkFinished(
                name,
                chunk.number,
                self._number,
                done.rows_read,
                accepted,
                done.bytes,
                done.seconds,
                tries,
                done.digest_read,
                done.digest_sent,
            )
        )

    def _commit(self, chunk: ChunkRow) -> None:
        """Commits; where the answer was lost, the ledger says whether it happened."""
        assert self._writer is not None
        try:
            self._writer.commit()
        except OutcomeUnknownError as lost:
            try:
                done = self._writer.is_done(self._shared.job, chunk)
            except RowferryError as error:
                error.transient = True  # still unknown: the claim after a reconnect will tell
                raise error from lost
            if not done:
                raise LedgerError("the connection was lost in COMMIT; it did not happen", transient=True) from lost
