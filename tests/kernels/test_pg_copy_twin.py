"""The kernel and its plain-Python twin agree: on every value, on every stream, on what they refuse."""

from __future__ import annotations

import random
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import pg_copy_reference as twin
from kernels.fuzz_pg_copy import attempt, mutate
from kernels.pg_copy_values import (
    CODECS,
    batch_of,
    bits,
    decode_all,
    digester,
    drain,
    encode_all,
    framed,
    stream_of,
    tables,
    tally_all,
    values_of,
)
from rowferry._native.pg_copy import DecodeError, Decoder, Encoder, FrameError

Table = tuple[list[twin.Codec], list[tuple[Any, ...]]]


def plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(bits(value) for value in row) for row in rows]


@settings(max_examples=300, deadline=None)
@given(tables())
def test_encoder_any_table_equals_twin_and_decodes_to_the_same_rows(table: Table) -> None:
    columns, rows = table
    if columns:
        tuples = encode_all(rows, columns)
        # NaN has many bit patterns; the twin's is Python's own.
        assert tuples == twin.encode(rows, columns) or "nan" in str(rows)
    else:
        tuples = twin.encode(rows, columns)
    stream = twin.HEADER + tuples + twin.TRAILER
    assert decode_all(stream, columns) == plain(rows) == plain(twin.decode(stream, columns))


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(1, 40), st.integers(1, 300), st.randoms(use_true_random=False))
def test_decoder_any_cut_and_any_batch_size_gives_the_same_rows(
    table: Table, rows_max: int, bytes_max: int, rng: random.Random
) -> None:
    columns, rows = table
    stream = stream_of(rows, columns)
    wire = framed(stream, [rng.randrange(1, len(stream)) for _ in range(rng.randrange(8))])
    decoder = Decoder(columns, 4096)
    at, got = 0, 0
    while at < len(wire):
        piece = wire[at : at + rng.randrange(1, 200)]
        at += len(piece)
        assert decoder.feed_messages(piece) == len(piece)
        while (taken := decoder.take(rows_max, bytes_max)) is not None:
            assert taken[0] <= rows_max
            got += taken[0]
    decoder.finish()
    assert got == len(rows)
    assert decode_all(stream, columns, rows_max=rows_max, bytes_max=bytes_max) == plain(rows)


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(1, 30), st.randoms(use_true_random=False))
def test_tally_any_cut_gives_the_tuples_and_the_digest_of_the_batches(
    table: Table, times: int, rng: random.Random
) -> None:
    columns, rows = table[0], table[1] * times
    stream = stream_of(rows, columns)
    wire = framed(stream, [rng.randrange(1, len(stream)) for _ in range(rng.randrange(8))])
    decoder, into, batches = Decoder(columns, 4096), digester(columns), digester(columns)
    at, got, raw = 0, 0, b""
    while at < len(wire):
        piece = wire[at : at + rng.randrange(1, 400)]
        at += len(piece)
        assert decoder.feed_messages(piece) == len(piece)
        more = tally_all(decoder, columns, into)
        got, raw = got + more[0], raw + more[1]
    decoder.finish()
    assert (got, raw) == (len(rows), twin.encode(rows, columns))
    if columns:
        batches.add(batch_of(rows, columns))
        assert into.digest == batches.digest


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(1, 200))
def test_encoder_frames_hold_the_same_tuples(table: Table, frame_bytes: int) -> None:
    columns, rows = table
    if not columns:
        return
    wire = encode_all(rows, columns, frame_bytes)
    body, at = b"", 0
    while at < len(wire):
        assert wire[at : at + 1] == b"d"
        (size,) = struct.unpack_from("!i", wire, at + 1)
        assert size > 4
        body += wire[at + 5 : at + 1 + size]
        at += 1 + size
    assert at == len(wire)
    assert body == encode_all(rows, columns)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_encoder_sliced_batch_equals_the_slice(data: st.DataObject) -> None:
    codec = data.draw(CODECS)
    rows = [(value,) for value in data.draw(st.lists(values_of(codec), min_size=2, max_size=40))]
    start = data.draw(st.integers(0, len(rows)))
    count = data.draw(st.integers(0, len(rows)))
    sliced = batch_of(rows, [codec]).slice(start, count)
    assert bytes(Encoder([codec]).encode(sliced)) == encode_all(rows[start : start + count], [codec])


@settings(max_examples=600, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_decoder_mutated_stream_gives_the_twins_rows_or_refuses_with_it(table: Table, rng: random.Random) -> None:
    columns, rows = table
    stream = mutate(stream_of(rows, columns), rng)
    try:
        expected: Any = plain(twin.decode(stream, columns))
    except twin.Malformed:
        expected = None
    try:
        got: Any = decode_all(stream, columns)
    except (FrameError, DecodeError):
        got = None
    assert got == expected


@settings(max_examples=200, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_decoder_mutated_frames_never_crash(table: Table, rng: random.Random) -> None:
    columns, rows = table
    stream = stream_of(rows, columns)
    wire = mutate(framed(stream, [rng.randrange(1, len(stream)) for _ in range(4)]), rng)
    decoder = Decoder(columns)
    try:
        decoder.feed_messages(wire)
        while decoder.message() is not None:
            pass
        drain(decoder, columns)
        decoder.finish()
    except (FrameError, DecodeError):
        pass  # refused, which is what a broken stream is for
    assert decoder.rows <= len(wire) // 2


def test_decoder_servers_bytes_broken_in_places_give_the_twins_rows_or_are_refused() -> None:
    refused = [attempt(seed) for seed in range(400)]
    assert 100 < sum(refused) < 399
