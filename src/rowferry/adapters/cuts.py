"""Where the range of an integer key is cut into chunks, on all servers."""

from __future__ import annotations

#: Fewer chunks than this are not worth another one.
STAGGERED_MIN = 4


def even_cuts(low: int, high: int, count: int, *, staggered: bool = False) -> list[int]:
    """The boundaries between ``count`` equal ranges of the numbers low … high, ascending; each begins a range.

    staggered: the first range is half as large as the others, and so is one more, the last. Two workers of one speed
    then do not end all their chunks at the same moments, in which both wait for a COMMIT and nobody works; and they
    end the table together (docs/DECISIONS.md).

    >>> even_cuts(1, 100, 4), even_cuts(1, 100, 4, staggered=True)
    ([26, 51, 76], [13, 38, 63, 88])
    """
    span = high - low + 1
    if staggered and count >= STAGGERED_MIN:
        cuts = [low + span * (2 * i - 1) // (2 * count) for i in range(1, count + 1)]
    else:
        cuts = [low + span * i // count for i in range(1, count)]
    return sorted(set(cuts) - {low})
