"""Keys that come in ascending order, as most numbers do that count rows: batches of them that lie apart from all other
keys are new as a whole, and are put down as such instead of being asked for one by one.

What is kept of such a batch is its first number and the steps from each to the next, in one to four bytes. Where a
later batch reaches in between, it has to be known key by key after all: the batch is *opened*, and its keys are claimed
by the owner that it had.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from rowferry import compute as pc

_WIDTHS = (pa.uint8(), pa.uint16(), pa.uint32())


class Ascent(NamedTuple):
    """Numbers in strictly ascending order, and who claims them."""

    first: int
    last: int
    steps: pa.Array
    owner: int

    @property
    def bytes(self) -> int:
        """Of memory, with what Python takes for it."""
        return int(self.steps.nbytes) + 512

    def numbers(self, type_: pa.DataType) -> pa.Array:
        """As the column had them."""
        first = pa.array([self.first], pa.int64())
        if not len(self.steps):
            return pc.cast(first, type_)
        return pc.cast(pc.cumulative_sum(pa.concat_arrays([first, pc.cast(self.steps, pa.int64())])), type_)


def ascent_of(column: pa.Array, owner: int) -> Ascent | None:
    """A column of signed integers without NULL as an Ascent; None where it is none, or its steps are too wide."""
    count = len(column)
    if not count or column.null_count:
        return None
    first, last = column[0].as_py(), column[count - 1].as_py()
    if last - first < count - 1:
        return None
    try:
        # Checked: a step beyond 64 bits would come out as one in the other direction.
        steps = pc.subtract_checked(column.slice(1), column.slice(0, count - 1))
    except pa.ArrowInvalid:
        return None
    if count > 1:
        bounds = pc.min_max(steps)
        least, most = bounds["min"].as_py(), bounds["max"].as_py()
        if least <= 0 or most >> 32:
            return None
        steps = pc.cast(steps, next(t for t in _WIDTHS if not most >> t.bit_width))
    return Ascent(first, last, steps, owner)


class Ascents:
    """Those of one table, none of which overlap each other or what is known key by key. Under a lock of the caller.

    bytes_max: what they may take together.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._held: list[Ascent] = []
        #: What is known key by key lies within this range.
        self._known: tuple[int, int] | None = None

    def add(self, one: Ascent) -> bool:
        """Takes an ascent that lies apart from all others; False where it does not, or there is no room for it."""
        known = self._known
        if known is not None and one.first <= known[1] and one.last >= known[0]:
            return False
        place = bisect.bisect_left(self._held, one.first, key=lambda held: held.first)
        if place and self._held[place - 1].last >= one.first:
            return False
        if place < len(self._held) and self._held[place].first <= one.last:
            return False
        if self._bytes + one.bytes > self._bytes_max:
            return False
        self._held.insert(place, one)
        self._bytes += one.bytes
        return True

    def open(self, first: int, last: int) -> Iterator[Ascent]:
        """From now on keys between these are known one by one: gives the ascents whose keys have to be claimed
        before, each of which is forgotten then."""
        first, last = self._widened(first, last)
        start = bisect.bisect_left(self._held, first, key=lambda held: held.last)
        while start < len(self._held) and self._held[start].first <= last:
            one = self._held[start]
            # What is known is one range: all that lies within it is.
            yield one
            del self._held[start]
            self._bytes -= one.bytes
            if one.first < first or one.last > last:
                first, last = self._widened(one.first, one.last)
                start = bisect.bisect_left(self._held, first, key=lambda held: held.last)

    def _widened(self, first: int, last: int) -> tuple[int, int]:
        if self._known is not None:
            first, last = min(first, self._known[0]), max(last, self._known[1])
        self._known = (first, last)
        return first, last
