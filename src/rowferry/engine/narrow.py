"""From differing buckets to differing rows: multisets of (key digest, row digest), held as Arrow columns."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import pyarrow as pa

from rowferry import compute as pc
from rowferry import limits
from rowferry.model import Digest
from rowferry.stages.digest import DIGEST, Digester, digest_array

#: Surplus rows by key: key digest, rows that only the source has, rows that only the target has.
ENTRIES = pa.schema([("key", DIGEST), ("source", pa.int64()), ("target", pa.int64())])


class Balance:
    """Rows of both sides, each (key, row) pair with how often more the source has it than the target.

    Thread-safe. Holds at most about ``rows_max`` pairs that do not cancel each other out, and as many
    that were not yet summed up, at 40 bytes each.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._parts: list[pa.Table] = []
        self._pending = 0
        self._lock = threading.Lock()

    def add(self, keys: pa.Array, rows: pa.Array, weight: int) -> None:
        """n rows of one side; ``weight`` is 1 for the source and −1 for the target."""
        weights = pa.repeat(pa.scalar(weight, pa.int64()), len(keys))
        with self._lock:
            self._parts.append(pa.table({"key": keys, "row": rows, "weight": weights}))
            self._pending += len(keys)
            if self._pending > self._rows_max:
                self._sum_up()

    def _sum_up(self) -> None:
        summed = pa.concat_tables(self._parts).group_by(["key", "row"]).aggregate([("weight", "sum")])
        # What is even so far stays even if more of it comes: it would begin at 0 again.
        left = summed.filter(pc.not_equal(summed["weight_sum"], 0))
        self._parts = [left.select(["key", "row", "weight_sum"]).rename_columns(["key", "row", "weight"])]
        self._pending = 0

    def pairs(self) -> pa.Table:
        """The (key, row, weight) that are left, weight never 0."""
        with self._lock:
            if not self._parts:
                return pa.table(
                    {"key": pa.array([], DIGEST), "row": pa.array([], DIGEST), "weight": pa.array([], pa.int64())}
                )
            self._sum_up()
            return self._parts[0]

    def entries(self) -> pa.Table:
        """Surplus by key (schema ENTRIES), in the order of the key digests."""
        pairs = self.pairs()
        weight = pairs["weight"]
        table = pa.table(
            {
                "key": pairs["key"],
                "source": pc.max_element_wise(weight, 0),
                "target": pc.max_element_wise(pc.negate(weight), 0),
            }
        )
        summed = table.group_by("key").aggregate([("source", "sum"), ("target", "sum")])
        summed = summed.select(["key", "source_sum", "target_sum"]).rename_columns(ENTRIES.names)
        return summed.sort_by("key").cast(ENTRIES)


def bucket_sums(digesters: Iterable[Digester]) -> list[Digest]:
    """The bucket digests of one side, added up over its threads."""
    first, *more = [digester.buckets() for digester in digesters]
    for part in more:
        first = [a + b if b.rows else a for a, b in zip(first, part, strict=True)]
    return first


def total_of(buckets: Sequence[Digest]) -> Digest:
    """The digest of all rows of all buckets."""
    return Digest(sum(b.rows for b in buckets), sum(b.sum for b in buckets) % (1 << 128))


def differing(source: Sequence[Digest], target: Sequence[Digest]) -> list[int]:
    """The buckets whose digests differ."""
    return [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]


def groups_of(buckets: Sequence[int], rows: Sequence[int], rows_max: int) -> list[list[int]]:
    """Buckets in groups of at most ``rows_max`` rows each (a larger bucket alone)."""
    groups: list[list[int]] = []
    held = 0
    for bucket in buckets:
        if not groups or held + rows[bucket] > rows_max:
            groups.append([])
            held = 0
        groups[-1].append(bucket)
        held += rows[bucket]
    return groups


def flags_of(buckets: Sequence[int]) -> bytes:
    """One byte for each bucket: 1 for those that are wanted."""
    flags = bytearray(limits.VERIFY_BUCKETS)
    for bucket in buckets:
        flags[bucket] = 1
    return bytes(flags)


def digests_of(digester: Digester, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """(key digests, row digests) of a batch's rows."""
    keys, rows, _ = digester.rows(batch)
    return digest_array(keys), digest_array(rows)
