"""Arrow batches, true and lying ones, for a number of seconds: the load kernel gives the twin's bytes or refuses.

    python tests/kernels/fuzz_mysql_load.py SECONDS [SEED]

A true batch (sliced, at any address, cut into blocks of any size) gives the twin's bytes, or is refused at the twin's
row and column. A lying one (structs, offsets, bitmaps, formats and sizes that are altered after Arrow made them)
raises, or gives some bytes, but no more than its rows can; it never crashes, which AddressSanitizer looks at
(tests/README.md; with PYTHONMALLOC=malloc, so that it sees the ends of small buffers, too).
"""

from __future__ import annotations

import decimal
import pathlib
import random
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kernels import mysql_load_reference as twin
from kernels.mysql_load_values import COLUMNS, LABELS, batch_of
from kernels.test_row_digest_hostile import CArray, CSchema, Mutated
from rowferry._native.mysql_load import EncodeError, Encoder

NAMES = sorted(COLUMNS)
CHARACTERS = "ab01\\'\t\n\0é€😀 ,"
COUNTS = [-(2**63), -1, 0, 1, 2, 7, 200, 2**31, 2**48, 2**58, 2**61 - 1, 2**61, 2**62, 2**63 - 1]
FORMATS = [b"n", b"b", b"c", b"i", b"l", b"L", b"g", b"u", b"z", b"U", b"+l", b"+s", b"w:0", b"w:3", b"w:16",
           b"w:65536", b"w:2147483647", b"w:-1", b"w:99999999999", b"w:", b"d:", b"d:5", b"d:5,2", b"d:76,76,256",
           b"d:5,2,8", b"tdD", b"tsu:", b"tsn:UTC", b"tDn", b"ttu", b"", b"\xff", None]  # fmt: skip
#: What a NULL, or the longest value that the generator makes, can be written as: rows cannot give more.
CELL_BYTES_MAX = 1 << 12


def integer(rng: random.Random, bits: int, signed: bool) -> int:
    """At the ends, near 0, or of any number of bits."""
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    value = rng.choice([least, most, 0, 1, 100, rng.getrandbits(rng.randrange(1, bits + 1))])
    return max(least, min(most, -value if signed and rng.random() < 0.5 else value))


def value_of(name: str, rng: random.Random) -> Any:
    """A value (or NULL) for one of mysql_load_values' columns: what ``batch_of`` and the twin take."""
    (codec, params), t, _ = COLUMNS[name]
    if rng.random() < 0.15:
        return None
    if pa.types.is_boolean(t):
        return rng.random() < 0.5
    if pa.types.is_integer(t):
        return integer(rng, t.bit_width, pa.types.is_signed_integer(t))
    if pa.types.is_floating(t):
        plain = rng.choice([0.0, -0.0, 1.5, rng.uniform(-1e6, 1e6)])
        packed = rng.randbytes(t.bit_width // 8) if rng.random() < 0.7 else struct.pack("<f", plain)
        return struct.unpack("<f" if len(packed) == 4 else "<d", packed)[0]
    if pa.types.is_decimal(t):
        most = 10 ** rng.randrange(1, t.precision + 1) - 1
        return decimal.Decimal(rng.randint(-most, most)).scaleb(-t.scale, twin.WIDE)
    if pa.types.is_date32(t):
        return rng.choice([integer(rng, 32, True), rng.randrange(-800_000, 3_000_000)])
    if pa.types.is_temporal(t):
        near = rng.randrange(-(10**9), 10**11) * rng.choice([1, 1000, 10**6])
        return rng.choice([integer(rng, 64, True), near, near, near])
    if codec == "bit":
        return "".join(rng.choices("01", k=params["length"])) if rng.random() < 0.9 else "012"[: rng.randrange(4)]
    if codec == "enum":
        return rng.choice([*LABELS, "no label"] if rng.random() < 0.1 else LABELS)
    if codec == "set":
        labels = [label for label in params["labels"] if rng.random() < 0.6]
        return labels if rng.random() < 0.9 else labels[::-1]
    size = rng.choice([0, 1, 3, 5, 5, 6, 7, 8, 9, 40, 300])
    if pa.types.is_string(t):
        return "".join(rng.choices(CHARACTERS if rng.random() < 0.5 else "abc", k=size))
    if pa.types.is_fixed_size_binary(t):
        size = t.byte_width
    return rng.randbytes(size) if rng.random() < 0.5 else bytes(rng.choices(b"ab\\'\t\n\0", k=size))


def elsewhere(array: pa.Array, rng: random.Random, memory: list[bytearray]) -> pa.Array:
    """The array in memory of exactly the size it needs (``memory``, which can be written to), at any address."""
    buffers: list[pa.Buffer | None] = []
    # An array of lists names its children's buffers, too.
    for buffer in array.buffers()[: array.type.num_buffers]:
        if buffer is None:
            buffers.append(None)
            continue
        ahead = rng.choice([0, 0, 0, 1, 4])
        memory.append(bytearray(bytes(ahead) + buffer.to_pybytes()))
        buffers.append(pa.py_buffer(memory[-1]).slice(ahead))
    children = [elsewhere(array.values, rng, memory)] if pa.types.is_list(array.type) else None
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, array.offset, children)


class Lying(Mutated):
    """A batch of which some struct, format or size of a buffer is not true."""

    def __init__(self, batch: pa.RecordBatch, rng: random.Random) -> None:
        self._batch = batch
        self._rng = rng
        self._sizes_lie = rng.random() < 0.2
        self._lists: list[tuple[Any, Any]] = []  # addresses of buffers and children, with what they were
        super().__init__(batch, lambda _: None)
        for _ in range(rng.choice([0, 1, 1, 2])):
            schema, array = self._pick()
            (self._alter_schema if rng.random() < 0.25 else self._alter_array)(schema, array)

    def _pick(self) -> tuple[CSchema, CArray]:
        places = [(self.schema, self.array)]
        for i in range(self._batch.num_columns):
            if self._has(self.schema) and self._has(self.array):
                schema, array = self.schema.children[i], self.array.children[i]
                if schema and array:
                    places.append((schema.contents, array.contents))
        for schema, array in places[1:]:
            if schema.format == b"+l" and self._has(schema) and self._has(array):
                places.append((schema.children[0].contents, array.children[0].contents))
        return self._rng.choice(places)

    @staticmethod
    def _has(struct_: Any) -> bool:
        return bool(struct_.children) and struct_.n_children > 0 and bool(struct_.children[0])

    def _alter_schema(self, schema: CSchema, _: CArray) -> None:
        name = self._rng.choice(["format", "format", "format", "n_children", "children", "release", "dictionary"])
        if name == "format":
            self.set(schema, name, self._rng.choice(FORMATS))
        elif name == "n_children":
            self.set(schema, name, self._rng.choice(COUNTS))
        elif name == "dictionary":
            self.set(schema, name, type(schema.dictionary)(schema))
        else:
            self.set(schema, name, None)

    def _alter_array(self, _: CSchema, array: CArray) -> None:
        name = self._rng.choice(["length", "offset", "offset", "null_count", "n_buffers", "n_children", "release",
                                 "buffers", "children", "buffer"])  # fmt: skip
        if name == "buffer" and array.buffers and 0 < array.n_buffers < 4:
            place = self._rng.randrange(array.n_buffers)
            self._lists.append((array.buffers, (place, array.buffers[place])))
            array.buffers[place] = None
        elif name in ("release", "buffers", "children"):
            self.set(array, name, None)
        elif name != "buffer":
            self.set(array, name, self._rng.choice(COUNTS))

    def restore(self) -> None:
        super().restore()
        for pointers, (place, before) in reversed(self._lists):
            pointers[place] = before

    @property
    def columns(self) -> list[Any]:
        return [Sized(column, self._rng if self._sizes_lie else None) for column in self._batch.columns]


class Sized:
    """A column as the kernel asks it for its buffers; with ``rng`` one of them is shorter, or the last is missing."""

    def __init__(self, column: pa.Array, rng: random.Random | None) -> None:
        self._column = column
        self._rng = rng

    def buffers(self) -> list[pa.Buffer | None]:
        buffers = list(self._column.buffers())
        if self._rng is not None:
            place = self._rng.randrange(len(buffers))
            whole = buffers[place]
            if whole is None or self._rng.random() < 0.2:
                buffers.pop()
            else:
                buffers[place] = whole.slice(0, self._rng.randrange(whole.size + 1))
        return buffers


def spoil(memory: Sequence[bytearray], rng: random.Random) -> None:
    """Writes into the buffers of a batch: offsets, bits and bytes that Arrow has not looked at."""
    for _ in range(rng.randrange(3)):
        data = rng.choice(memory)
        if len(data) >= 4 and rng.random() < 0.7:
            at = 4 * rng.randrange(len(data) // 4) + len(data) % 4
            data[at : at + 4] = struct.pack("<i", rng.choice([-(2**31), -1, 0, 1, 3, 1000, 2**31 - 1]))
        elif data:
            data[rng.randrange(len(data))] = rng.randrange(256)


def drain(encoder: Encoder, batch: Any, bytes_max: int) -> bytes:
    """All that a batch is written as. AssertionError where there is no end of it."""
    encoder.begin(batch)
    out, blocks = bytearray(), 0
    while (block := encoder.fill()) is not None:
        out += bytes(block)
        blocks += 1
        assert len(out) <= bytes_max and blocks <= bytes_max // 256, "more than these rows can be"
    return bytes(out)


def true_batch(rng: random.Random, seed: int) -> bool:
    """One batch that is as it says; whether kernel and twin refused it."""
    names = [rng.choice(NAMES) for _ in range(rng.randrange(1, 6))]
    columns, types = [COLUMNS[name][0] for name in names], [COLUMNS[name][1] for name in names]
    rows = [tuple(value_of(name, rng) for name in names) for _ in range(rng.choice([0, 1, 2, 5, 30]))]
    sql = rng.random() < 0.4
    encoder = Encoder(columns, block_bytes=rng.choice([1024, 1500, 1 << 20]), sql=sql, row_bytes_max=1 << 20)
    step = rng.choice([1, 3, 100])
    expected: Any
    try:
        expected = (twin.encode_sql if sql else twin.encode_load)(rows, columns, types)
    except twin.Refused as refused:
        expected = refused.args
    got: Any = b""
    try:
        parts = []
        for at in range(0, len(rows), step):
            batch = batch_of(rows[at : at + step], types, rng.choice([0, 0, 1, 9]))
            moved = [elsewhere(column, rng, []) for column in batch.columns]
            begun = at
            encoder.begin(pa.RecordBatch.from_arrays(moved, names=batch.schema.names))
            while (block := encoder.fill()) is not None:
                parts.append(bytes(block))
        parts.append(bytes(encoder.rest()))
        got = (b"," if sql else b"").join(part for part in parts if part)
    except EncodeError as error:
        got = (begun + error.row, error.column)
    assert got == expected, f"seed {seed}: columns {names}, sql {sql}: {got!r}, not {expected!r}"
    return isinstance(expected, tuple)


def lying_batch(rng: random.Random) -> bool:
    """One batch that is not as it says; whether it was refused."""
    names = [rng.choice(NAMES) for _ in range(rng.randrange(1, 4))]
    columns, types = [COLUMNS[name][0] for name in names], [COLUMNS[name][1] for name in names]
    rows = [tuple(value_of(name, rng) for name in names) for _ in range(rng.choice([1, 2, 5, 30]))]
    memory: list[bytearray] = []
    moved = [elsewhere(column, rng, memory) for column in batch_of(rows, types, rng.choice([0, 1, 9])).columns]
    batch = pa.RecordBatch.from_arrays(moved, names=[f"c{i}" for i in range(len(names))])
    spoil(memory, rng)
    encoder = Encoder(columns, block_bytes=1024, sql=rng.random() < 0.5, row_bytes_max=1 << 16)
    lying = Lying(batch, rng)
    refused = False
    try:
        length = lying.array.length
        drain(encoder, lying, CELL_BYTES_MAX * len(names) * max(0, min(length, 10_000)))
    except (ValueError, TypeError):
        refused = True
    finally:
        lying.restore()
    if refused:  # the encoder goes on with what is true
        good = batch_of([(None,) * len(names)], types)
        try:
            drain(encoder, good, 1 << 20)
        except EncodeError:
            assert "required" in names
    return refused


def attempt(seed: int) -> tuple[bool, bool]:
    """One batch: (whether it lies, whether it was refused). AssertionError where kernel and twin differ."""
    rng = random.Random(seed)
    lies = rng.random() < 0.6
    return lies, lying_batch(rng) if lies else true_batch(rng, seed)


def main(seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    counts = {(lies, refused): 0 for lies in (False, True) for refused in (False, True)}
    while time.monotonic() < end:
        counts[attempt(seed)] += 1
        seed += 1
    true, lying = (counts[lies, False] + counts[lies, True] for lies in (False, True))
    print(
        f"{true} true batches, {counts[False, True]} refused, none gave other bytes than the twin's; "
        f"{lying} lying ones, {counts[True, True]} refused"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30))
