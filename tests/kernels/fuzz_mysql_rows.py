"""Broken streams of MySQL's rows for a number of seconds: the kernel gives the twin's rows or refuses with it.

    python tests/kernels/fuzz_mysql_rows.py SECONDS [SEED]

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

from kernels import mysql_rows_reference as twin
from kernels.mysql_rows_golden import GOLDEN, REFUSED
from kernels.mysql_rows_values import decode_pieces, exact
from rowferry._native.mysql_rows import DecodeError, FrameError

GOOD = [(column, field) for _, column, field, _ in GOLDEN]
BAD = [(column, twin.sized(text)) for column, text in REFUSED]
BYTES = [0, 1, 2, 4, 0x2D, 0x2E, 0x30, 0x39, 0x3A, 0x65, 0x7F, 0x80, 0xC0, 0xED, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF]
OK = b"\xfe\0\0\2\0\0\0"
ERR = b"\xff\x15\x04#28000Access denied"


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in."""
    out = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        at = rng.randrange(len(out))
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


def make(rng: random.Random) -> tuple[list[twin.Column], int, bytes]:
    """Columns, the first packet's number, and a stream of the server's own fields in them, broken in places:
    in a row's payload, so that its packet's length is right, or anywhere."""
    chosen = [rng.choice(GOOD if rng.random() < 0.95 else BAD) for _ in range(rng.randrange(1, 5))]
    payloads = []
    for _ in range(rng.choice([1, 2, 3, 20, 600])):
        payload = b"".join(field if rng.random() < 0.8 else b"\xfb" for _, field in chosen)
        payloads.append(mutate(payload, rng) if rng.random() < 0.01 else payload)
    sequence = rng.randrange(256)
    stream = twin.framed([*payloads, rng.choice([twin.EOF, twin.EOF, OK, ERR])], sequence)
    return [column for column, _ in chosen], sequence, mutate(stream, rng) if rng.random() < 0.5 else stream


def attempt(seed: int) -> str:
    """One stream: rows, refused or cut. AssertionError where kernel and twin differ."""
    rng = random.Random(seed)
    columns, sequence, stream = make(rng)
    outcome = "rows"
    expected: Any = None
    try:
        rows, last = twin.decode(stream, columns, sequence)
        expected = (exact(rows), last)
    except twin.Malformed:
        outcome = "refused"
    except twin.Cut:
        outcome = "cut"
    pieces = [stream]
    if rng.random() < 0.3:
        size = rng.choice([1, 5, 100, 5000])
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    limits = {"rows_max": rng.choice([1, 7, 1000]), "bytes_max": rng.choice([1, 100, 1 << 20])}
    got: Any
    try:
        got = decode_pieces(pieces, columns, sequence, **limits)
        found = "cut" if got[1] is None else "rows"
    except (FrameError, DecodeError):
        got, found = None, "refused"
    same = found == outcome and (outcome != "rows" or got == expected)
    assert same, f"seed {seed}: {found}, not {outcome}: columns {columns}, from {sequence}, stream {stream.hex()}"
    return outcome


def main(seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    first, refused = seed, 0
    while time.monotonic() < end:
        refused += attempt(seed) == "refused"
        seed += 1
    print(f"{seed - first} streams, {refused} refused, none gave other rows than the twin's")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30))
