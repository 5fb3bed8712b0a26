"""The kernel and its plain-Python twin agree: on every value, on every stream, on what they refuse."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import mysql_rows_reference as twin
from kernels.fuzz_mysql_rows import attempt, mutate
from kernels.mysql_rows_values import decode_pieces, exact, tables
from rowferry._native.mysql_rows import DecodeError, FrameError

Table = tuple[list[twin.Column], list[tuple[Any, ...]]]


@settings(max_examples=300, deadline=None)
@given(tables(), st.integers(0, 255))
def test_any_table_gives_its_rows_and_the_twins(table: Table, sequence: int) -> None:
    columns, rows = table
    stream = twin.encode(rows, columns, sequence)
    assert decode_pieces([stream], columns, sequence) == (exact(rows), twin.EOF)
    found, last = twin.decode(stream, columns, sequence)
    assert (exact(found), last) == (exact(rows), twin.EOF)


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(1, 40), st.integers(1, 300), st.randoms(use_true_random=False))
def test_any_cut_and_any_batch_size_gives_the_same_rows(
    table: Table, rows_max: int, bytes_max: int, rng: random.Random
) -> None:
    columns, rows = table
    stream = twin.encode(rows, columns)
    pieces, at = [], 0
    while at < len(stream):
        size = rng.randrange(1, 200)
        pieces.append(stream[at : at + size])
        at += size
    assert decode_pieces(pieces, columns, rows_max=rows_max, bytes_max=bytes_max) == (exact(rows), twin.EOF)


@settings(max_examples=600, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_mutated_stream_gives_the_twins_rows_or_is_refused_with_it(table: Table, rng: random.Random) -> None:
    columns, rows = table
    stream = mutate(twin.encode(rows, columns), rng)
    expected: Any
    try:
        found, last = twin.decode(stream, columns)
        expected = (exact(found), last)
    except twin.Malformed:
        expected = "refused"
    except twin.Cut:
        expected = None
    got: Any
    try:
        got = decode_pieces([stream], columns)
        got = got if got[1] is not None else None
    except (FrameError, DecodeError):
        got = "refused"
    assert got == expected


def floats() -> list[str]:
    """Texts of numbers that are hard to read: half way between two doubles, at the ends of the range, long."""
    rng = random.Random(7)
    found = [
        "2.2250738585072011e-308", "2.2250738585072014e-308", "4.9406564584124654e-324", "2.4703282292062327e-324",
        "2.4703282292062328e-324", "1.7976931348623157e308", "1.7976931348623158e308", "9007199254740993",
        "9007199254740992.9999999999999999", "1e23", "8.41e21", "5e-324", "0e999999", "1e-400", "-0", "-0.0",
        "0.000000000000000000000000000000000000000000001e45", "123456789012345678901234567890e-10", "000012.500",
        "6929495644600919.5", "3.7455744005952583e15", "1" + "0" * 308, "0." + "0" * 320 + "1",
    ]  # fmt: skip
    for _ in range(20_000):
        value = struct.unpack("<d", rng.randbytes(8))[0]
        if value - value == 0:
            found.append(repr(value))
            # The exact middle of two neighbours, and a digit to either side of it.
            found.append(f"{rng.randrange(10**18, 10**19)}e{rng.randrange(-340, 290)}")
    return found


def test_float_texts_give_the_double_that_python_reads() -> None:
    texts = floats()
    stream = twin.framed([*(twin.sized(text.encode()) for text in texts), twin.EOF])
    rows, _ = decode_pieces([stream], [("float64", {})])
    for text, (value,) in zip(texts, rows, strict=True):
        assert value == struct.pack("<d", float(text)), text


@pytest.mark.parametrize(
    "text", ["1e309", "-1e400", "inf", "nan", "1e", "1.", ".5", "", "+1", "1e5x", " 1", "0x10", "1_0", "0." + "1" * 400]
)
def test_float_text_that_no_server_writes_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="no finite"):
        decode_pieces([twin.framed([twin.sized(text.encode())])], [("float64", {})])


def test_servers_bytes_broken_in_places_give_the_twins_rows_or_are_refused() -> None:
    outcomes = [attempt(seed) for seed in range(1500)]
    assert {"rows", "refused", "cut"} <= set(outcomes)
    assert 200 < outcomes.count("refused") < 1200
