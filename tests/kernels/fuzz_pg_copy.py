"""Broken COPY BINARY streams for a number of seconds: the kernel gives the twin's rows or refuses with it.

    python tests/kernels/fuzz_pg_copy.py SECONDS [SEED]

Its small size is a test; under AddressSanitizer it runs for minutes (tests/README.md). A difference
is printed with the columns and the bytes that made it.
"""

from __future__ import annotations

import pathlib
import random
import sys
import time
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kernels import pg_copy_reference as twin
from kernels.pg_copy_values import bits, decode_all, drain, framed
from kernels.test_pg_copy_golden import GOLDEN, REFUSED
from rowferry._native.pg_copy import DecodeError, Decoder, FrameError

FIELDS = [(codec, bytes.fromhex(field)) for _, codec, field, _ in GOLDEN] + [
    (codec, bytes.fromhex(field)) for _, codec, field, _ in REFUSED
]
BYTES = [0, 1, 2, 4, 0x10, 0x27, 0x40, 0x7F, 0x80, 0xC0, 0xD0, 0xF0, 0xFE, 0xFF]
NULL = b"\xff\xff\xff\xff"


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in; most often past the header."""
    out = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
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
    chosen = [rng.choice(FIELDS) for _ in range(rng.randrange(1, 5))]
    stream = bytearray(twin.HEADER)
    for _ in range(rng.choice([1, 2, 3, 20, 600])):
        stream += len(chosen).to_bytes(2, "big")
        for _, field in chosen:
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


def attempt(seed: int) -> bool:
    """One stream; whether it was refused. AssertionError where kernel and twin differ."""
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
    assert got == expected, f"seed {seed}: columns {columns}, stream {stream.hex()}"
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
    first, refused = seed, 0
    while time.monotonic() < end:
        refused += attempt(seed)
        seed += 1
    print(f"{seed - first} streams, {refused} refused, none gave other rows than the twin's")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30))
