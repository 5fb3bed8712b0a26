"""Broken COPY BINARY streams for a number of seconds: the kernel gives the twin's rows or refuses with it.

    python tests/kernels/fuzz_pg_copy.py SECONDS [SEED]

Each stream goes both ways: as batches (``Decoder.take``) and into a digest (``Decoder.tally``), which must
give the same digest, and the tuples as they came. Three threads, each with decoders of its own, share
the memory that tuples were in; tuples are kept for a while and must not have changed meanwhile.

Its small size is a test; under AddressSanitizer it runs for minutes (tests/README.md). A difference
is printed with the columns and the bytes that made it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import itertools
import pathlib
import random
import sys
import time
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kernels import pg_copy_reference as twin
from kernels.pg_copy_values import bits, decode_all, digester, drain, framed, schema_of
from kernels.test_pg_copy_golden import GOLDEN, REFUSED
from rowferry._native.pg_copy import DecodeError, Decoder, FrameError
from rowferry.adapters.buffers import assemble
from rowferry.model import Digest

GOOD = [(codec, bytes.fromhex(field)) for _, codec, field, _ in GOLDEN]
BAD = [(codec, bytes.fromhex(field)) for _, codec, field, _ in REFUSED]
BYTES = [0, 1, 2, 4, 0x10, 0x27, 0x40, 0x7F, 0x80, 0xC0, 0xD0, 0xF0, 0xFE, 0xFF]
NULL = b"\xff\xff\xff\xff"
#: Codecs of which a field of any bytes (or of any ASCII) is a value.
WIDE = {"text", "name", "char", "bytea", "wire"}
THREADS = 3


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in; most often past the header."""
    out = bytearray(data)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        at = rng.randrange(len(out)) if rng.random() < 0.1 else rng.randrange(min(19, len(out) - 1), len(out))
        kind = rng.randrange(6)
        if kind <= 1:
            out[at] = rng.choice(BYTES)
        elif kind == 2:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            out[at:at] = bytes(rng.choice(BYTES) for _ in range(rng.randrange(1, 9)))
        else:
            out[at:at] = out[max(0, at - rng.randrange(1, 60)) : at]
        if len(out) < 2:
            break
    return bytes(out)


def make(rng: random.Random) -> tuple[list[twin.Codec], bytes]:
    """Columns, and a stream of the server's own fields in them, broken in places."""
    chosen = [rng.choice(GOOD if rng.random() < 0.95 else BAD) for _ in range(rng.randrange(1, 5))]
    stream = bytearray(twin.HEADER)
    huge = rng.random() < 0.003
    for _ in range(rng.choice([1, 2, 3, 20, 600])):
        stream += len(chosen).to_bytes(2, "big")
        for (name, _), field in chosen:
            if huge and name in WIDE:  # larger than what a decoder reads at once
                huge = False
                field = (size := rng.randrange(1 << 20, 5 << 20)).to_bytes(4, "big") + b"h" * size
            stream += field if rng.random() < 0.8 else NULL
    return [codec for codec, _ in chosen], mutate(bytes(stream + twin.TRAILER), rng)


def through_frames(stream: bytes, columns: list[twin.Codec], rng: random.Random) -> list[tuple[Any, ...]]:
    """The stream in messages and reads of any size, taken in batches of any size."""
    wire = framed(stream, [rng.randrange(1, max(2, len(stream))) for _ in range(rng.randrange(5))])
    decoder = Decoder(columns, 4096)
    rows: list[tuple[Any, ...]] = []
    at = 0
    while at < len(wire):
        piece = wire[at : at + rng.choice([1, 5, 100, 5000])]
        decoder.feed_messages(piece)
        at += len(piece)
        rows += drain(decoder, columns, rows_max=rng.choice([1, 7, 1000]), bytes_max=rng.choice([1, 100, 1 << 20]))
    decoder.finish()
    return rows


class Kept:
    """Tuples that were given out lately, with what they hold."""

    def __init__(self) -> None:
        self._tuples: collections.deque[tuple[Any, bytes]] = collections.deque()

    def add(self, tuples: Any) -> None:
        self._tuples.append((tuples, hashlib.sha256(tuples).digest()))
        while len(self._tuples) > 12:
            self.drop()

    def drop(self) -> None:
        tuples, held = self._tuples.popleft()
        assert hashlib.sha256(tuples).digest() == held, "tuples that were given out have changed"


def digest_of(stream: bytes, columns: list[twin.Codec]) -> Digest:
    """The digest of a whole stream's batches."""
    decoder, into = Decoder(columns), digester(columns)
    decoder.feed_rows(stream)
    while (taken := decoder.take()) is not None:
        into.add(assemble(schema_of(columns), taken))
    return into.digest


def tallied(stream: bytes, columns: list[twin.Codec], rng: random.Random, kept: Kept) -> tuple[int, bytes, Digest]:
    """The stream in messages and reads of any size: its rows, its tuples, its digest."""
    wire = framed(stream, [rng.randrange(1, max(2, len(stream))) for _ in range(rng.randrange(5))])
    # Spare memory is of decoders of the usual size.
    decoder = Decoder(columns, 4096) if rng.random() < 0.3 else Decoder(columns)
    into = digester(columns)
    intake = into.intake(schema_of(columns))
    rows, raw, at = 0, b"", 0
    size = rng.choice([1, 5, 100, 5000, 70_000, len(wire)]) if len(wire) < 70_000 else rng.randrange(9_000, 900_000)
    while at < len(wire):
        piece = wire[at : at + size]
        if rng.random() < 0.5:
            decoder.feed_messages(piece)
        else:
            view = decoder.buffer_view(len(piece))
            view[: len(piece)] = piece
            view.release()
            decoder.received(len(piece))
        at += len(piece)
        if rng.random() < 0.8:
            while (taken := decoder.tally(intake)) is not None:
                rows, raw = rows + taken[0], raw + bytes(taken[1])
                kept.add(taken[1])
    while (taken := decoder.tally(intake)) is not None:
        rows, raw = rows + taken[0], raw + bytes(taken[1])
        kept.add(taken[1])
    decoder.finish()
    return rows, raw, into.digest


def attempt(seed: int, kept: Kept | None = None) -> bool:
    """One stream; whether it was refused. AssertionError where kernel and twin differ."""
    kept = kept or Kept()
    rng = random.Random(seed)
    columns, stream = make(rng)
    try:
        expected: Any = [tuple(bits(value) for value in row) for row in twin.decode(stream, columns)]
    except twin.Malformed:
        expected = None
    whole = rng.random() < 0.7
    try:
        got: Any = decode_all(stream, columns) if whole else through_frames(stream, columns, rng)
    except (FrameError, DecodeError):
        got = None
    place = f"seed {seed}: columns {columns}, stream {stream[:100_000].hex()}"
    assert got == expected, place
    counted: tuple[int, bytes, Digest] | None
    try:
        counted = tallied(stream, columns, rng, kept)
    except (FrameError, DecodeError):
        counted = None
    assert (counted is None) == (got is None), place
    if counted is not None:
        body = stream[19 + int.from_bytes(stream[15:19], "big") : -2]
        assert counted == (len(got), body, digest_of(stream, columns)), place
    if rng.random() < 0.2:  # frames broken too: only that it does not crash
        decoder = Decoder(columns)
        try:
            decoder.feed_messages(mutate(framed(stream, [len(stream) // 2]), rng))
            while decoder.message() is not None:
                continue
            drain(decoder, columns)
        except (FrameError, DecodeError):
            return True
    return got is None


def main(seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    seeds = itertools.count(seed)

    def several() -> tuple[int, int]:
        kept = Kept()
        streams = refused = 0
        while time.monotonic() < end:
            refused += attempt(next(seeds), kept)
            streams += 1
        return streams, refused

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        counts = [future.result() for future in [pool.submit(several) for _ in range(THREADS)]]
    streams, refused = (sum(count) for count in zip(*counts, strict=True))
    print(f"{streams} streams, {refused} refused, none gave other rows or another digest than the twin's")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30))
