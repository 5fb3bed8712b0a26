"""Even ranges of an integer key: every number in exactly one of them, none empty, whatever they are cut from."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowferry.adapters.cuts import STAGGERED_MIN, even_cuts


def widths(low: int, high: int, cuts: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise([low, *cuts, high + 1])]


@given(
    low=st.integers(-(2**63), 2**64 - 1), span=st.integers(1, 2**64) | st.integers(1, 50), count=st.integers(1, 300),
    staggered=st.booleans(),
)  # fmt: skip
def test_ranges_are_even_and_none_is_empty(low: int, span: int, count: int, staggered: bool) -> None:
    high = low + span - 1
    found = widths(low, high, even_cuts(low, high, count, staggered=staggered))
    assert sum(found) == span
    assert min(found) >= 1
    assert max(found) <= span // count + 1
    if span >= 2 * count:
        halves = staggered and count >= STAGGERED_MIN
        assert len(found) == count + halves
        whole = found[1:-1] if halves else found
        assert max(whole, default=0) - min(whole, default=0) <= 1
        if halves:
            assert {found[0], found[-1]} <= {span // (2 * count), span // (2 * count) + 1}


@pytest.mark.parametrize("staggered", [False, True])
def test_a_range_of_one_number_is_not_cut(staggered: bool) -> None:
    assert even_cuts(-7, -7, 9, staggered=staggered) == []


def test_the_halves_are_first_and_last() -> None:
    assert widths(0, 799, even_cuts(0, 799, 4)) == [200, 200, 200, 200]
    assert widths(0, 799, even_cuts(0, 799, 4, staggered=True)) == [100, 200, 200, 200, 100]
    assert widths(0, 299, even_cuts(0, 299, 3, staggered=True)) == [100, 100, 100]
