"""Compares tables of two databases: buckets of row digests first, then only the rows of those that differ.

Pass 1 reads both sides once and adds each row's digest to the bucket of its key; equal buckets are
done. Pass 2 reads both sides again, keeps the (key, row) digests of differing buckets, and counts
exactly what is missing, extra and changed: in several rounds where they are too many to be held.
Pass 3 reads the rows that are named, where pass 2 could not keep them, or kept what people cannot read.

No order, no bounds and no collation has to be common to the two sides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from rowferry import compute as pc
from rowferry import limits
from rowferry.adapters.protocol import Source
from rowferry.engine.naming import Names, choose
from rowferry.engine.narrow import ENTRIES, Balance, bucket_sums, differing, digests_of, flags_of, groups_of, total_of
from rowferry.engine.report import RowDifference
from rowferry.engine.scan import Consumer, Side, Sieve, scan_both
from rowferry.model import Digest, TablePlan
from rowferry.stages.digest import Digester

__all__ = ["RowDifference", "TableDifference", "verify_tables"]

#: Bytes of rows of differing buckets that pass 2 keeps, so that few differences need no pass 3.
KEPT_BYTES_MAX = 16 * limits.MIB

_MOVED = "rows were changing while they were compared; what is named was seen at the second look"

#: (index of the table's plan, side, rows read since the last call)
OnProgress = Callable[[int, str, int], None]


@dataclasses.dataclass(frozen=True)
class TableDifference:
    """What a comparison of one table found.

    missing, extra, changed: exact counts of rows. With a key, a key that has rows on both sides that
    are not the same counts as changed; without one, rows are compared as a multiset and nothing is
    ``changed``. Where only containment was asked for, extra is 0.
    named: the first differing rows, at most as many as were asked for.
    entries: for repair, surplus rows by key digest (narrow.ENTRIES), at most VERIFY_ROWS_HELD of
    them; ``complete`` says whether these are all.
    note: what has to be said about the comparison itself.
    """

    plan: int
    digest_source: Digest
    digest_target: Digest
    missing: int = 0
    extra: int = 0
    changed: int = 0
    named: tuple[RowDifference, ...] = ()
    entries: pa.Table = dataclasses.field(default_factory=ENTRIES.empty_table, repr=False, compare=False)
    complete: bool = True
    note: str | None = None

    @property
    def equal(self) -> bool:
        return not (self.missing or self.extra or self.changed)


def verify_tables(
    source: Source,
    target: Source,
    plans: Sequence[TablePlan],
    *,
    workers: int = 1,
    contained: bool = False,
    named_max: int = limits.VERIFY_ROWS_NAMED,
    dedup_bytes: int = limits.DEDUP_BYTES,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> list[TableDifference]:
    """Compares the tables of the plans, one after the other, both sides of each at the same time.

    workers: threads, and readers, of each side. contained: asks only that every source row is in
    the target. dedup_bytes: memory for the keys of a dedup. on_progress is called from several
    threads. Memory does not grow with the tables.

    Raises what the readers raise, with the table's name; StoppedError when ``stop`` was set.
    """
    out = []
    for plan in plans:
        with (
            _sieve(source, target, plan, workers, dedup_bytes, stop) as sieve,
            Side(source, plan, "source", workers, stop=stop, sieve=sieve) as ours,
            Side(target, plan, "target", workers, stop=stop) as theirs,
        ):
            out.append(_Comparison(plan, ours, theirs, contained, named_max, on_progress).run())
    return out


@contextlib.contextmanager
def _sieve(
    source: Source, target: Source, plan: TablePlan, workers: int, dedup_bytes: int, stop: threading.Event | None
) -> Iterator[Sieve | None]:
    """What the source's rows pass where of like ones only one was to be copied."""
    if plan.dedup is None:
        yield None
        return
    from rowferry.engine import deduplication

    with deduplication.sieve(source, target, plan, workers, dedup_bytes, stop) as sieve:
        yield sieve


class _Comparison:
    def __init__(
        self,
        plan: TablePlan,
        source: Side,
        target: Side,
        contained: bool,
        named_max: int,
        on_progress: OnProgress | None,
    ) -> None:
        self._plan = plan
        self._sides = (source, target)
        self._contained = contained
        self._named_max = named_max
        self._on_progress = on_progress

    def run(self) -> TableDifference:
        buckets = self._bucket_sums()
        totals = [total_of(side) for side in buckets]
        left_out = self._sides[0].left_out
        note = f"rows of the source that the job sets aside were not compared: {left_out:,}" if left_out else None
        found = TableDifference(self._plan.index, totals[0], totals[1], note=note)
        if totals[0] == totals[1] and buckets[0] == buckets[1]:
            return found
        return self._narrowed(found, buckets)

    def _bucket_sums(self) -> list[list[Digest]]:
        digesters: dict[str, list[Digester]] = {}

        def consumers_of(side: Side) -> list[Consumer]:
            digesters[side.name] = [side.digester() for _ in range(side.threads)]
            return [self._bucketing(side.name, digester) for digester in digesters[side.name]]

        scan_both(*self._sides, consumers_of)
        return [bucket_sums(digesters[side.name]) for side in self._sides]

    def _bucketing(self, side: str, digester: Digester) -> Consumer:
        def add(batch: pa.RecordBatch) -> None:
            digester.add_buckets(batch)
            if self._on_progress is not None:
                self._on_progress(self._plan.index, side, batch.num_rows)

        return add

    def _narrowed(self, found: TableDifference, buckets: list[list[Digest]]) -> TableDifference:
        unequal = differing(*buckets)
        rows = [a.rows + b.rows for a, b in zip(*buckets, strict=True)]
        counts = {"missing": 0, "extra": 0, "changed": 0}
        entries = ENTRIES.empty_table()
        named: list[RowDifference] = []
        complete, moved = True, False
        for group in groups_of(unequal, rows, limits.VERIFY_ROWS_HELD):
            round_ = _Round(self._sides, group)
            round_.read()
            moved = moved or round_.moved(buckets)
            differing_rows = self._counted(round_.balance.entries(), counts)
            if len(named) < self._named_max and len(differing_rows):
                named += self._named(round_, differing_rows, self._named_max - len(named))
            room = limits.VERIFY_ROWS_HELD - len(entries)
            complete = complete and len(differing_rows) <= room
            entries = pa.concat_tables([entries, differing_rows.slice(0, room)])
        return dataclasses.replace(
            found,
            missing=counts["missing"],
            extra=counts["extra"],
            changed=counts["changed"],
            named=tuple(sorted(named[: self._named_max], key=_order_of_key)),
            entries=entries,
            complete=complete,
            note="; ".join(filter(None, (found.note, _MOVED if moved else None))) or None,
        )

    def _counted(self, entries: pa.Table, counts: dict[str, int]) -> pa.Table:
        """Adds to the counts; returns the entries that are a difference (of containment: not the extra ones)."""
        changed = pc.min_element_wise(entries["source"], entries["target"])
        total_changed = pc.sum(changed).as_py() or 0
        counts["changed"] += total_changed
        counts["missing"] += (pc.sum(entries["source"]).as_py() or 0) - total_changed
        if self._contained:
            return entries.filter(pc.greater(entries["source"], 0))
        counts["extra"] += (pc.sum(entries["target"]).as_py() or 0) - total_changed
        return entries

    def _named(self, round_: _Round, entries: pa.Table, named_max: int) -> list[RowDifference]:
        names = Names(self._plan, choose(entries, named_max))
        if round_.kept is not None and not any(side.readable for side in self._sides):
            for side in self._sides:
                consumer = names.consumer(side)
                for batch in round_.kept[side.name]:
                    consumer(batch)
        else:
            scan_both(*self._sides, lambda side: [names.consumer(side) for _ in range(side.threads)], readable=True)
        named = names.differences()
        return [row for row in named if row.kind != "extra"] if self._contained else named


def _order_of_key(row: RowDifference) -> list[tuple[int, str]]:
    """Shorter keys first, so that numbers come in their order."""
    return [(len(value or ""), value or "") for value in row.key.values()]


class _Round:
    """One read of both sides for some of the differing buckets."""

    def __init__(self, sides: tuple[Side, Side], group: list[int]) -> None:
        self._sides = sides
        self._flags = flags_of(group)
        self._group = group
        self.balance = Balance(limits.VERIFY_ROWS_HELD)
        #: The rows themselves by side, while they are few; None where they became too many.
        self.kept: dict[str, list[pa.RecordBatch]] | None = {side.name: [] for side in sides}
        self._kept_bytes = 0
        self._digesters: dict[str, list[Digester]] = {side.name: [] for side in sides}
        self._lock = threading.Lock()

    def read(self) -> None:
        scan_both(*self._sides, lambda side: [self._consumer(side) for _ in range(side.threads)])

    def moved(self, buckets: list[list[Digest]]) -> bool:
        """Whether the rows of these buckets are no longer those of the first pass."""
        for side, before in zip(self._sides, buckets, strict=True):
            now = bucket_sums(self._digesters[side.name])
            if any(now[i] != before[i] for i in self._group):
                return True
        return False

    def _consumer(self, side: Side) -> Consumer:
        digester = side.digester()
        self._digesters[side.name].append(digester)
        weight = 1 if side.name == "source" else -1

        def take(batch: pa.RecordBatch) -> None:
            kept = digester.select(batch, self._flags)
            if not kept.num_rows:
                return
            digester.add_buckets(kept)
            keys, rows = digests_of(digester, kept)
            self.balance.add(keys, rows, weight)
            self._keep(side.name, kept)

        return take

    def _keep(self, side: str, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._kept_bytes += batch.nbytes
            if self._kept_bytes > KEPT_BYTES_MAX:
                self.kept = None
            if self.kept is not None:
                self.kept[side].append(batch)
