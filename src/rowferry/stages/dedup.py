"""Of rows that are alike one is kept: what has been claimed, by which chunk, and which rows may be claimed at all.

A row's key is the 128-bit digest of its key columns, as they are sent (docs/DIGEST.md), so that what the target
holds can be asked for the same keys. NULL is like NULL and NaN like NaN, as in SQL's DISTINCT, and −0.0 like 0.0.

Who comes first claims a key, for its chunk. A chunk that is rolled back keeps its claims: other chunks may have
dropped rows because of them, and are perhaps committed already. Only the chunk's next try takes them over.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry._native.key_set import MEMORY_BYTES_MIN, KeySet
from rowferry.errors import ConfigError, TargetError
from rowferry.model import Comparison
from rowferry.stages.ascents import Ascents, ascent_of
from rowferry.stages.digest import Digester, digest_array, digest_bytes
from rowferry.stages.spec import Dedup

Answer = TypeVar("Answer")

#: The owner of what was known before the first chunk of this run.
BEFORE = 1
#: Shares of a table's memory where winners are known: claims, contested keys, winning rows.
_SHARES = 3
#: The part of a table's memory for keys that are put down as they ascend, a byte or two each; the set has the rest.
_ASCENTS_PART = 8


class Dropped(Protocol):
    """Takes the rows that a chunk leaves out."""

    def add(self, batch: pa.RecordBatch) -> None: ...
    def prepare(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


def way_of(dedup: Dedup) -> tuple[str, str | None]:
    """(any | first | last, the ordering column). Raises ConfigError for what is neither."""
    way, by, column = dedup.keep.partition(" by ")
    if dedup.keep == "any":
        return "any", None
    if way in ("first", "last") and by and column:
        return way, column
    raise ConfigError(f"keep = {dedup.keep!r}", hint='it is "any", "first by COLUMN" or "last by COLUMN"')


class Keys:
    """Key digests of batches in the target's types. One thread at a time.

    columns: the batches' columns; by: those that make the key, none for all.
    """

    def __init__(self, columns: Sequence[str], comparisons: Sequence[Comparison], by: Sequence[str]) -> None:
        self.columns = tuple(by) or tuple(columns)
        self.places = [list(columns).index(name) for name in self.columns]
        self._digester = Digester([_by_value(comparisons[i]) for i in self.places], "target")

    def of(self, batch: pa.RecordBatch) -> bytes:
        """16 n bytes for n rows."""
        return self.of_narrow(batch.select(self.places))

    def of_narrow(self, batch: pa.RecordBatch) -> bytes:
        """The same, of a batch of the key columns alone."""
        return self._digester.rows(batch)[0]


def _by_value(comparison: Comparison) -> Comparison:
    """−0.0 and 0.0 are one key, as they are to SQL."""
    return (
        msgspec.structs.replace(comparison, spec="float(unsigned zero)") if comparison.spec == "float" else comparison
    )


class Winners:
    """Which rows may be kept of the keys that more than one row has.

    contested: key digests; rows: digests of the whole rows that win, in the same order.
    """

    def __init__(self, memory_bytes: int, folder: str) -> None:
        self.contested = _key_set(memory_bytes, folder)
        self.rows = _key_set(memory_bytes, folder)

    def add(self, keys: bytes, rows: bytes) -> None:
        self.contested.claim(keys, BEFORE)
        self.rows.claim(rows, BEFORE)

    def close(self) -> None:
        self.contested.close()
        self.rows.close()


class TableDedup:
    """A table's, for all threads of this process; ``begin`` for each try of a chunk.

    columns, comparisons: of the batches that ``filter`` takes, in the target's types.
    memory_bytes: for keys; beyond that they go to temporary files in ``folder``.
    ranked: with ``keep = "first by"`` and ``"last by"``; or with ``winners`` that another has found.
    rows_expected: as far as one knows (0: one does not).
    """

    def __init__(
        self,
        dedup: Dedup,
        columns: Sequence[str],
        comparisons: Sequence[Comparison],
        memory_bytes: int,
        *,
        ranked: bool = False,
        winners: Winners | None = None,
        rows_expected: int = 0,
        folder: str | None = None,
    ) -> None:
        ranked = ranked or winners is not None
        self.dedup = dedup
        self.columns = tuple(columns)
        self.comparisons = tuple(comparisons)
        self.folder = folder or tempfile.gettempdir()
        self._memory_bytes = memory_bytes
        share = memory_bytes // (_SHARES if ranked else 1)
        #: Of a table with one whole number as its key, what need not be in the set of claims.
        self._ascents: Ascents | None = None
        if not ranked and self._ascends():
            self._ascents = Ascents(share // _ASCENTS_PART)
            share -= share // _ASCENTS_PART
        # With winners, only keys of rows that others have as well are claimed: nobody knows how many.
        self.claims = _key_set(share, self.folder, 0 if ranked else rows_expected)
        self.winners = winners or (Winners(share, self.folder) if ranked else None)
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._owner = BEFORE
        #: Gives what takes the rows that a try of a chunk leaves out.
        self.taker_of: Callable[[int], Dropped] | None = None
        #: Owners of the tries of each chunk.
        self._tries: dict[int, list[int]] = {}

    def _ascends(self) -> bool:
        by = self.dedup.by or self.columns
        return len(by) == 1 and pa.types.is_signed_integer(self.comparisons[self.columns.index(by[0])].target.arrow)

    def keys(self) -> Keys:
        """Digests of what is claimed: of the key columns, with winners of the whole row. One for each thread."""
        return Keys(self.columns, self.comparisons, () if self.winners is not None else self.dedup.by)

    def know(self, keys: bytes) -> None:
        """Claims what finished chunks, or the target, have already. Thread-safe. Raises TargetError."""
        self._ascents = None  # nobody knows what lies between
        _asked(lambda: self.claims.claim(keys, BEFORE), self.folder)

    def knows(self, keys: bytes) -> pa.BooleanArray:
        """n booleans: whether a key of 16 bytes is claimed. Thread-safe. Raises TargetError."""
        return _mask(_asked(lambda: self.claims.contains(keys), self.folder)[0], len(keys) // 16)

    def ascend(self, batch: pa.RecordBatch, keys: Keys, owner: int) -> bool:
        """Claims all keys of a batch at once, where they lie apart from all others; False where they have to be
        claimed one by one, which they can be then. Thread-safe. Raises TargetError."""
        ascents = self._ascents
        if ascents is None:
            return False
        column = batch.column(keys.places[0])
        one = ascent_of(column, owner)
        with self._opening:
            if one is not None and ascents.add(one):
                return True
            bounds = pc.min_max(column).as_py()
            if bounds["min"] is None:
                return False  # NULLs alone
            for other in ascents.open(bounds["min"], bounds["max"]):
                numbers = pa.RecordBatch.from_arrays([other.numbers(column.type)], names=[""])
                digests = self.keys().of_narrow(numbers)
                _asked(lambda: self.claims.claim(digests, other.owner), self.folder)  # noqa: B023 - called at once
        return False

    def rank(self, keys: bytes, rows: bytes) -> None:
        """Gives some of the winners. Raises TargetError."""
        assert self.winners is not None
        add = self.winners.add
        _asked(lambda: add(keys, rows), self.folder)

    def begin(self, chunk: int) -> ChunkDedup:
        """For one try of a chunk; one thread's."""
        with self._lock:
            self._owner += 1
            tries = self._tries.setdefault(chunk, [])
            earlier = tuple(tries)
            tries.append(self._owner)
            return ChunkDedup(self, self._owner, earlier, self.taker_of(chunk) if self.taker_of else None)

    def fresh(self) -> TableDedup:
        """Another with the same winners, of which nothing is claimed; this one stays its winners' owner."""
        return TableDedup(
            self.dedup, self.columns, self.comparisons, self._memory_bytes, winners=self.winners, folder=self.folder
        )

    def close(self, *, winners: bool = True) -> None:
        self.claims.close()
        if winners and self.winners is not None:
            self.winners.close()


class ChunkDedup:
    """One try of a chunk: ``filter`` its batches in their order, then ``commit`` or ``rollback``."""

    def __init__(self, table: TableDedup, owner: int, earlier: tuple[int, ...], taker: Dropped | None) -> None:
        self._table = table
        self._owner = owner
        self._earlier = earlier
        self._taker = taker
        self._keys = Keys(table.columns, table.comparisons, table.dedup.by)
        self._rows = Digester(table.comparisons, "target") if table.winners is not None else None
        #: Rows that were left out, and those of the last batch, where they are wanted.
        self.dropped = 0
        self.left: pa.RecordBatch | None = None

    def filter(self, batch: pa.RecordBatch, *, left: bool = False) -> pa.RecordBatch:
        """n rows in the target's types; those that stay. With ``left``, the others are in ``self.left`` then.
        Raises TargetError where a temporary file fails, DataError."""
        self.left = None
        mask = self.mask(batch)
        if mask is None:
            return batch
        if left or self._taker is not None:
            self.left = pc.filter(batch, pc.invert(mask))
            if self._taker is not None:
                self._taker.add(self.left)
        return pc.filter(batch, mask)

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        """n booleans: the rows that stay; None where all do. Raises as :meth:`filter`."""
        if not batch.num_rows or self._table.ascend(batch, self._keys, self._owner):
            return None
        keys = self._keys.of(batch)
        if self._rows is None:
            claims = self._table.claims
            bits, kept = _asked(lambda: claims.claim(keys, self._owner, self._earlier), self._table.folder)
            mask = _mask(bits, batch.num_rows)
        else:
            mask = self._winning(keys, self._rows.rows(batch)[1])
            kept = mask.true_count
        self.dropped += batch.num_rows - kept
        return None if kept == batch.num_rows else mask

    def _winning(self, keys: bytes, rows: bytes) -> pa.BooleanArray:
        """Rows whose key no other row has, and of those that win the first of each."""
        winners, count, folder = self._table.winners, len(keys) // 16, self._table.folder
        assert winners is not None
        bits, contested = _asked(lambda: winners.contested.contains(keys), folder)
        if not contested:
            return pa.repeat(pa.scalar(True), count)
        shared = _mask(bits, count)
        winning = pc.and_(shared, _mask(_asked(lambda: winners.rows.contains(rows), folder)[0], count))
        digests = digest_array(rows).filter(winning)
        claimed = self._claimed(digests) if len(digests) else b""
        alone = pc.invert(shared)
        return pc.replace_with_mask(alone, winning, _mask(claimed, len(digests)))

    def _claimed(self, digests: pa.Array) -> bytes:
        asked, claims = digest_bytes(digests), self._table.claims
        return _asked(lambda: claims.claim(asked, self._owner, self._earlier), self._table.folder)[0]

    def prepare(self) -> None:
        """All batches have passed, and the chunk is about to be committed."""
        if self._taker is not None:
            self._taker.prepare()

    def commit(self) -> None:
        """The chunk's rows are in the target."""
        if self._taker is not None:
            self._taker.commit()

    def rollback(self) -> None:
        """They are not, or it is not known: what the chunk has claimed waits for its next try."""
        if self._taker is not None:
            self._taker.rollback()


def _mask(bits: bytes, count: int) -> pa.BooleanArray:
    return pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bits)])


def _key_set(memory_bytes: int, folder: str, rows_expected: int = 0) -> KeySet:
    return KeySet(max(memory_bytes, MEMORY_BYTES_MIN), folder, rows_expected)


def _asked(ask: Callable[[], Answer], folder: str) -> Answer:
    """What a key set answers; where its temporary files fail, an error that says so."""
    try:
        return ask()
    except OSError as error:
        raise TargetError(
            f"the keys of the dedup do not fit in memory, and a temporary file failed in {folder}: {error.strerror}",
            hint="make room there, set TMPDIR to another folder, or give it more memory with --max-dedup-mb",
        ) from error
