"""One chunk's rows where they pass a transform or a dedup on their way: counted, digested, and parted by output."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Block
from rowferry.engine.spool import Spool
from rowferry.engine.transfer import TableWay, Transfer
from rowferry.errors import DataError, StoppedError
from rowferry.model import Digest, TablePlan, add_counts
from rowferry.stages.digest import Digester, compare
from rowferry.stages.flow import StageWorker

if TYPE_CHECKING:
    from rowferry.engine.quarantine import Aside


class Branch:
    """A further output of a transform: another table's rows out of the same chunk, written after the chunk's own.

    aside: where rows of it go that cannot be carried.
    """

    def __init__(self, way: TableWay, aside: Aside | None = None) -> None:
        self.way = way
        self.plan = way.plan
        self.aside = aside
        self._digester = Digester(way.comparisons, "target")
        self._left_out = Digest()
        #: The rows that are to be written, converted.
        self.spool = Spool()
        self.bytes = 0

    @property
    def digest(self) -> Digest:
        return self._digester.digest - self._left_out

    @property
    def rows_sent(self) -> int:
        return self.digest.rows

    def add(self, batch: pa.RecordBatch, touched: dict[str, int]) -> None:
        try:
            if self.aside is None:
                batch = self.way.convert(batch, touched)
            else:
                batch = self.aside.convert(self.way, batch, touched)
        except DataError as error:
            error.message += f" (of the rows for {str(self.plan.target.name)!r})"
            raise
        self._digester.add(batch)
        self.bytes += batch.nbytes
        self.spool.add(batch)

    def blocks(self) -> Iterator[Block]:
        for batch in self.spool.batches():
            yield Block(batch)

    def leave_out(self, refused: Digest) -> None:
        """Takes rows off that the target refused."""
        self._left_out += refused

    def counts(self) -> dict[str, Any]:
        """What the ledger keeps of it: ``ChunkRow.counts["outputs"][index]``."""
        out = {"sent": self.rows_sent, "digest": str(self.digest), "bytes": self.bytes}
        if self.aside is not None and self.aside.rows:
            out["quarantined"] = self.aside.rows
        return out

    def close(self) -> None:
        self.spool.close()


class StagedTransfer(Transfer):
    """A Transfer whose rows pass ``stage`` first (None: a dedup alone), and ``dedup`` when they are converted.

    rows_wanted: rows that the stage likes to have in a batch, for which some of the source's are put together.

    read is the digest of what the source gave, sent that of what leaves here.
    """

    def __init__(
        self,
        way: TableWay,
        stop: threading.Event,
        stage: StageWorker | None,
        dedup: Any = None,
        branches: Sequence[Branch] = (),
        aside: Aside | None = None,
        *,
        rows_wanted: int = 0,
    ) -> None:
        super().__init__(way, stop)
        self._stage = stage
        self._dedup = dedup
        self.branches: tuple[Branch, ...] = tuple(branches)
        self._outputs = {branch.plan.output: branch for branch in branches}
        if stage is not None:
            self._read = Digester(read_comparisons(way.plan), "source")
        self._sent = Digester(way.comparisons, "target")
        # Where nothing but a dedup stands between, what is sent is what was read without what was left out, which is
        # mostly less: each row is digested once, and these twice.
        self._by_difference = stage is None and aside is None and way.identity
        self._rows_wanted = rows_wanted
        self._waiting: list[pa.RecordBatch] = []
        self._changed: dict[str, int] = {"filtered": 0, "generated": 0}
        #: Where rows go that cannot be carried.
        self.aside = aside
        self._left_out = Digest()

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if self._stop.is_set():
                raise StoppedError("stopped")
            self.rows_read += block.batch.num_rows
            add_counts(self.touched, block.touched or {})
            batch = self._readable(block.batch)
            self._read.add(batch)
            yield from self._given(batch)
        if self._waiting:
            yield from self._given(None)

    def _readable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch without the rows that the source could not read, which are set aside."""
        unread = self._way.plan.unread
        if not unread:
            return batch
        from rowferry.engine.unread import parted

        batch, others = parted(batch, unread)
        if others is not None:
            assert self.aside is not None
            self.aside.unread(others)
        return batch

    def _given(self, batch: pa.RecordBatch | None) -> Iterator[Block]:
        """What the writer takes of a batch of the source, which may wait for others; None: none will come."""
        whole = self._gathered(batch)
        if whole is None:
            return
        for rows in (whole,) if self._stage is None else self._passed(self._stage, whole):
            if self.aside is None:
                rows = self._way.convert(rows, self.touched)
            else:
                rows = self.aside.convert(self._way, rows, self.touched)
            if self._dedup is not None:
                rows = self._dedup.filter(rows, left=self._by_difference)
                if self._by_difference and self._dedup.left is not None:
                    self._sent.add(self._dedup.left)
            if rows.num_rows:
                if not self._by_difference:
                    self._sent.add(rows)
                self.rows_sent += rows.num_rows
                self.bytes += rows.nbytes
                yield Block(rows)

    def _gathered(self, batch: pa.RecordBatch | None) -> pa.RecordBatch | None:
        """A batch as large as the stage likes them: each call of its expressions costs the same, however few rows."""
        if batch is not None:
            self._waiting.append(batch)
            rows = sum(b.num_rows for b in self._waiting)
            if rows < self._rows_wanted and sum(b.nbytes for b in self._waiting) < limits.STAGE_BYTES:
                return None
        waiting, self._waiting = self._waiting, []
        return waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting) if waiting else None

    def _passed(self, stage: StageWorker, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The table's own rows that come of a batch; those of other tables go to their branches."""
        passed = stage.apply(batch)
        self._changed["filtered"] += passed.filtered
        self._changed["generated"] += passed.generated
        add_counts(self.touched, passed.touched)
        for refused in passed.refused:
            if self.aside is None:
                raise DataError(refused.reason, column=refused.column, hint="set it aside with --on-error quarantine")
            self.aside.refused(refused)
        for output, rows in passed.batches:
            if output == 0:
                yield rows
            elif rows.num_rows:
                self._outputs[output].add(rows, self.touched)

    @property
    def digest_sent(self) -> Digest:
        if self._by_difference:
            return self._read.digest - self._sent.digest - self._left_out
        return self._sent.digest - self._left_out

    def leave_out(self, refused: Digest) -> None:
        """Takes rows off that were given, and that the target refused."""
        self.rows_sent -= refused.rows
        self._left_out += refused

    def check_set_aside(self) -> None:
        """Raises DataError where what was read is not what is sent and what is set aside together."""
        if self._stage is not None or self._dedup is not None or self.touched or self.aside is None:
            return
        if self.digest_read != self.digest_sent + self.aside.digest:
            raise DataError(
                f"read {self.digest_read} but sent {self.digest_sent} and set aside {self.aside.digest}: a conversion "
                "changed a value"
            )

    def prepare(self) -> None:
        """All rows are loaded, and the chunk is about to be committed."""
        if self._dedup is not None:
            self._dedup.prepare()

    def end(self, *, committed: bool) -> None:
        """Lets go of what the chunk held; what it claimed in the dedup stays its own only where it was committed."""
        for branch in self.branches:
            branch.close()
        if self.aside is not None:
            self.aside.chunk.end(committed=committed)
        if self._dedup is not None:
            if committed:
                self._dedup.commit()
            else:
                self._dedup.rollback()

    def counts(self) -> dict[str, Any]:
        """What became of rows that were not sent: ``ChunkRow.counts``."""
        out: dict[str, Any] = {what: count for what, count in self._changed.items() if count}
        if self._dedup is not None and self._dedup.dropped:
            out["deduplicated"] = self._dedup.dropped
        if self.aside is not None and self.aside.rows:
            out["quarantined"] = self.aside.rows
        if self.branches:
            out["outputs"] = {str(branch.plan.index): branch.counts() for branch in self.branches}
        return out


def read_comparisons(plan: TablePlan) -> list[Any]:
    """How the source's own columns are digested, before any transform: each as what it is."""
    out = []
    for name, form in plan.reads:
        comparison = compare(form, form, source_engine="", target_engine="")
        if comparison is None:
            raise AssertionError(f"column {name!r}: {form} cannot be digested")
        out.append(comparison)
    return out
