"""Arrow batches as MySQL's LOAD DATA text: golden bytes, the slow twin, values and buffers that do not fit."""

from __future__ import annotations

import decimal
import random
import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import mysql_load_reference as twin
from kernels.fuzz_mysql_load import attempt
from kernels.mysql_load_values import COLUMNS, Codec, batch_of
from kernels.test_row_digest_hostile import Mutated
from rowferry._native.mysql_load import EncodeError, Encoder


def encode(
    batches: Sequence[pa.RecordBatch], columns: Sequence[Codec], block_bytes: int = 1 << 20, *, sql: bool = False
) -> list[bytes]:
    encoder = Encoder(list(columns), block_bytes=block_bytes, sql=sql, row_bytes_max=1 << 20 if sql else 0)
    blocks = []
    for batch in batches:
        encoder.begin(batch)
        while (block := encoder.fill()) is not None:
            blocks.append(bytes(block))
    blocks.append(bytes(encoder.rest()))
    return blocks


def tables() -> st.SearchStrategy[tuple[list[str], list[tuple[Any, ...]]]]:
    def rows(names: list[str]) -> st.SearchStrategy[tuple[list[str], list[tuple[Any, ...]]]]:
        row = st.tuples(*(st.none() | COLUMNS[name][2] for name in names))
        return st.tuples(st.just(names), st.lists(row, max_size=12))

    return st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6).flatmap(rows)


# --- golden bytes


def test_rows_for_load_data_are_these_bytes() -> None:
    columns: list[Codec] = [
        ("integer", {}), ("text", {}), ("decimal", {}), ("float", {}), ("date", {}), ("datetime", {"digits": 6}),
        ("time", {"digits": 6}), ("bit", {"length": 10}), ("bytes", {}), ("year", {}),
    ]  # fmt: skip
    types = [
        pa.int64(), pa.utf8(), pa.decimal128(10, 2), pa.float64(), pa.date32(), pa.timestamp("us"), pa.duration("us"),
        pa.utf8(), pa.binary(), pa.int16(),
    ]  # fmt: skip
    rows = [
        (-7, "a\tb\\\n\0'é", decimal.Decimal("-0.05"), 12.5, 0, -1, -3_723_000_001, "1000000001", b"\x09\xff", 0),
        (None,) * 10,
        (0, "", decimal.Decimal("100"), 1e300, 18262, 1_577_836_800_000_000, 0, "0" * 10, b"", 1999),
        (2**63 - 1, "\\N", decimal.Decimal("12345678.91"), -0.0, -719_528, 0, 1, "1" * 10, b"\\", 2155),
    ]
    assert b"".join(encode([batch_of(rows, types)], columns)) == (
        b"-7\ta\\tb\\\\\\n\\0'\xc3\xa9\t-0.05\t125e-1\t1970-01-01\t1969-12-31 23:59:59.999999\t-01:02:03.000001\t"
        b"\x02\x01\t\\t\xff\t0000\n"
        b"\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n"
        b"0\t\t100.00\t1e300\t2020-01-01\t2020-01-01 00:00:00\t00:00:00\t\\0\\0\t\t1999\n"
        b"9223372036854775807\t\\\\N\t12345678.91\t-0e0\t0000-01-01\t1970-01-01 00:00:00\t00:00:00.000001\t\x03\xff\t"
        b"\\\\\t2155\n"
    )


def test_rows_for_an_insert_are_these_tuples() -> None:
    columns: list[Codec] = [
        ("integer", {}),
        ("text", {}),
        ("float", {}),
        ("date", {}),
        ("bytes", {}),
        ("bit", {"length": 9}),
    ]
    types = [pa.int64(), pa.utf8(), pa.float64(), pa.date32(), pa.binary(), pa.utf8()]
    rows = [(1, "it's \\ \0 \n\t", 0.1, 0, b"\0'\\", "1" + "0" * 8), (None,) * 6, (-2, "", -3.0, 1, b"", "0" * 9)]
    assert b"".join(encode([batch_of(rows, types)], columns, sql=True)) == (
        b"(1,'it\\'s \\\\ \\0 \n\t',1e-1,'1970-01-01',X'00275c',X'0100'),(NULL,NULL,NULL,NULL,NULL,NULL),"
        b"(-2,'',-3e0,'1970-01-02',X'',X'0000')"
    )


def test_shortest_digits_give_every_double_back_and_are_those_of_repr() -> None:
    rng = random.Random(7)
    values = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(50_000)]
    values += [2.0**k for k in range(-1074, 1024)] + [10.0**k for k in range(-307, 308)]
    values += [round(rng.uniform(-1e6, 1e6), 2) for _ in range(20_000)]
    values += [
        5e-324,
        2.2250738585072014e-308,
        2.225073858507201e-308,
        1.7976931348623157e308,
        9007199254740993.0,
        1e23,
    ]
    values = [v for v in values if v == v and abs(v) != float("inf")]
    text = b"".join(encode([pa.record_batch([pa.array(values)], names=["a"])], [("float", {})])).decode()
    for line, value in zip(text.splitlines(), values, strict=True):
        assert float(line) == value and decimal.Decimal(line) == decimal.Decimal(repr(value)), (line, value)


# --- the twin


@settings(max_examples=400, deadline=None)
@given(tables(), st.integers(0, 9), st.booleans())
def test_any_table_equals_the_twin_or_is_refused_by_both(
    table: tuple[list[str], list[tuple[Any, ...]]], slack: int, sql: bool
) -> None:
    names, rows = table
    columns, types = [COLUMNS[n][0] for n in names], [COLUMNS[n][1] for n in names]
    try:
        expected = (twin.encode_sql if sql else twin.encode_load)(rows, columns, types)
    except twin.Refused as refused:
        with pytest.raises(EncodeError) as caught:
            encode([batch_of(rows, types, slack)], columns, sql=sql)
        assert (caught.value.row, caught.value.column) == refused.args
        return
    # NULLs of an array that is not said to have any are none.
    assert b"".join(encode([batch_of(rows, types, slack)], columns, sql=sql)) == expected
    if not sql:
        cells = [[twin.cell(v, c, t) for v, c, t in zip(row, columns, types, strict=True)] for row in rows]
        assert twin.decode_load(expected) == cells


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3000), st.binary(max_size=3000), st.integers(-9, 9)), max_size=20),
       st.integers(1024, 5000), st.integers(1, 7))  # fmt: skip
def test_any_size_of_block_and_batch_gives_the_same_bytes(
    rows: list[tuple[Any, ...]], block_bytes: int, batch_rows: int
) -> None:
    columns: list[Codec] = [("text", {}), ("bytes", {}), ("integer", {})]
    types = [pa.utf8(), pa.binary(), pa.int64()]
    batches = [batch_of(rows[i : i + batch_rows], types) for i in range(0, len(rows), batch_rows)]
    blocks = encode(batches, columns, block_bytes)
    assert b"".join(blocks) == twin.encode_load(rows, columns, types)
    assert all(block_bytes - 512 <= len(block) <= block_bytes for block in blocks[:-1])
    tuples = [block for block in encode(batches, columns, block_bytes, sql=True) if block]
    assert b",".join(tuples) == twin.encode_sql(rows, columns, types)


def test_sets_across_the_ends_of_blocks_are_whole() -> None:
    labels = ["\t" * 200, "b" * 150, "", "d" * 90]
    codec: Codec = ("set", {"labels": labels})
    rows = [([label for k, label in enumerate(labels) if n >> k & 1] if n % 7 else None, n) for n in range(300)]
    types = [pa.list_(pa.utf8()), pa.int64()]
    for block_bytes in (1100, 1500, 2048):
        blocks = encode([batch_of(rows, types)], [codec, ("integer", {})], block_bytes)
        assert b"".join(blocks) == twin.encode_load(rows, [codec, ("integer", {})], types)


def test_blocks_of_an_insert_count_their_rows() -> None:
    encoder = Encoder([("text", {})], block_bytes=1024, sql=True, row_bytes_max=4096)
    encoder.begin(pa.record_batch([pa.array(["x" * 300] * 10 + ["y" * 1500] + ["z"] * 3)], names=["a"]))
    counted = []
    while (block := encoder.fill()) is not None:
        counted.append((encoder.block_rows, bytes(block).count(b"(")))
    rest = bytes(encoder.rest())
    counted.append((encoder.block_rows, rest.count(b"(")))
    assert sum(rows for rows, _ in counted) == 14
    assert all(rows == tuples for rows, tuples in counted)


# --- what does not fit


@pytest.mark.parametrize(
    ("codec", "array", "row", "reason"),
    [
        (("integer", {"required": True}), pa.array([1, None]), 1, "NULL"),
        (("integer", {"least": -5, "most": 5}), pa.array([5, -5, 6]), 2, "range"),
        (("integer", {"least": 0, "most": 5}), pa.array([0, -1]), 1, "range"),
        (("integer", {"least": 0, "most": 2**63 - 1}), pa.array([2**63 - 1, 2**63], pa.uint64()), 1, "range"),
        (("float", {}), pa.array([1.0, float("inf")]), 1, "infinity"),
        (("float", {}), pa.array([1.0, float("nan")], pa.float32()), 1, "NaN"),
        (("date", {}), pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32()), 1, "infinity"),
        (("date", {}), pa.array([-719_528, -719_529], pa.int32()).view(pa.date32()), 1, "year"),
        (("datetime", {"digits": 6}), pa.array([0, 2**63 - 1]).view(pa.timestamp("ns")), 1, "infinity"),
        (("datetime", {"digits": 3}), pa.array([1000, 1]).view(pa.timestamp("us")), 1, "digits"),
        (("datetime", {"digits": 6}), pa.array([1000, 1]).view(pa.timestamp("ns")), 1, "digits"),
        (("time", {"digits": 6}), pa.array([3_020_399_999_999, 3_020_400_000_000]).view(pa.duration("us")), 1, "838"),
        (("text", {"length": 3}), pa.array(["ééé", "éééé"]), 1, "longer"),
        (("bytes", {"length": 3}), pa.array([b"123", b"1234"]), 1, "longer"),
        (("bytes", {"length": 3, "fixed": True}), pa.array([b"123", b"12"]), 1, "bytes"),
        (("bit", {"length": 2}), pa.array(["01", "1"]), 1, "bit string"),
        (("bit", {"length": 2}), pa.array(["01", "02"]), 1, "bit string"),
        (("enum", {"labels": ["a", "1"]}), pa.array(["1", "2"]), 1, "labels"),
        (("set", {"labels": ["a", "b"]}), pa.array([["a", "b"], ["b", "a"]]), 1, "order"),
        (("set", {"labels": ["a", "b"]}), pa.array([["a"], ["a", "a"]]), 1, "repeated"),
        (("set", {"labels": ["a", "b"]}), pa.array([["a"], [None]]), 1, "NULL"),
        (("set", {"labels": ["a", "b"]}), pa.array([["a"], ["c"]]), 1, "labels"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sql", [False, True])
def test_value_that_does_not_fit_is_refused_with_its_place(
    codec: Codec, array: pa.Array, row: int, reason: str, sql: bool
) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([0] * len(array)), array], names=["i", "a"])
    encoder = Encoder([("integer", {}), codec], sql=sql)
    encoder.begin(batch)
    with pytest.raises(EncodeError, match=reason) as caught:
        encoder.fill()
    assert (caught.value.row, caught.value.column) == (row, 1)
    encoder.begin(batch.slice(0, 1))  # it goes on
    assert encoder.fill() is None


def test_row_larger_than_a_statement_is_refused() -> None:
    encoder = Encoder([("bytes", {})], block_bytes=2048, sql=True, row_bytes_max=4096)
    encoder.begin(pa.record_batch([pa.array([b"x" * 900, b"y" * 3000])], names=["a"]))
    assert encoder.fill() is not None  # the first row, before the second one
    with pytest.raises(EncodeError, match="max_allowed_packet"):
        encoder.fill()


@pytest.mark.parametrize(
    ("codec", "array"),
    [
        (("integer", {}), pa.array([1.5])),
        (("text", {}), pa.array([1])),
        (("text", {}), pa.array(["a"], pa.large_utf8())),
        (("text", {}), pa.array(["a"]).dictionary_encode()),
        (("uuid_text", {}), pa.array([b"12345678"], pa.binary(8))),
        (("decimal", {}), pa.array(["1.5"])),
        (("set", {"labels": ["a"]}), pa.array([[1]])),
        (("date", {}), pa.array([1])),
    ],
)
def test_arrow_type_that_is_not_the_codecs_is_refused(codec: Codec, array: pa.Array) -> None:
    with pytest.raises(TypeError, match="does not take"):
        Encoder([codec]).begin(pa.RecordBatch.from_arrays([array], names=["a"]))


@pytest.mark.parametrize(
    "codec",
    [
        ("nothing", {}), ("text", {"digits": 3}), ("bit", {"length": 65}), ("bit", {}), ("time", {"digits": 7}),
        ("enum", {"labels": []}), ("enum", {"labels": ["a", "a"]}), ("text", {"length": -2}),
    ],
)  # fmt: skip
def test_codec_that_makes_no_sense_is_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"codec|bit|labels"):
        Encoder([codec])


def test_encoder_that_is_used_out_of_turn_says_so() -> None:
    batch = pa.record_batch([pa.array(["x" * 5000])], names=["a"])
    encoder = Encoder([("text", {})], block_bytes=1024)
    encoder.begin(batch)
    with pytest.raises(RuntimeError, match="not used up"):
        encoder.begin(batch)
    with pytest.raises(RuntimeError, match="not used up"):
        encoder.rest()
    block = encoder.fill()
    assert block is not None
    with memoryview(block), pytest.raises(RuntimeError, match="still in use"):
        encoder.fill()
    with pytest.raises(ValueError, match="columns"):
        Encoder([("text", {}), ("text", {})]).begin(batch)
    with pytest.raises(ValueError, match="blocks of"):
        Encoder([("text", {})], block_bytes=100)


# --- buffers that lie


@pytest.mark.parametrize("offsets", [(0, 2, 90), (0, 2, 1), (-5, 2, 2), (0, 0, 2**31 - 1), (3, 2, 2)])
@pytest.mark.parametrize("kind", [pa.utf8(), pa.binary()])
@pytest.mark.parametrize("sql", [False, True])
def test_offsets_that_reach_beyond_their_buffer_are_refused(offsets: tuple[int, ...], kind: Any, sql: bool) -> None:
    memory = bytearray(struct.pack("<3i", 0, 1, 2))
    array = pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(memory), pa.py_buffer(b"ab")])
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    memory[:] = struct.pack("<3i", *offsets)  # after pyarrow has looked at them
    encoder = Encoder([("text" if kind == pa.utf8() else "bytes", {})], sql=sql)
    encoder.begin(batch)
    with pytest.raises(EncodeError, match="offsets"):
        encoder.fill()


def test_offsets_of_a_list_that_reach_beyond_its_items_are_refused() -> None:
    memory = bytearray(struct.pack("<3i", 0, 1, 2))
    items = pa.array(["a", "a"])
    array = pa.Array.from_buffers(pa.list_(pa.utf8()), 2, [None, pa.py_buffer(memory)], children=[items])
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    memory[:] = struct.pack("<3i", 0, 1, 1000)
    encoder = Encoder([("set", {"labels": ["a", "b"]})])
    encoder.begin(batch)
    with pytest.raises(EncodeError, match="offsets"):
        encoder.fill()


class Shortened:
    """A batch whose buffers are said to be a byte shorter than they have to be."""

    def __init__(self, batch: pa.RecordBatch, place: int) -> None:
        self._batch = batch
        self.columns = [self]
        self._place = place

    def __arrow_c_array__(self) -> Any:
        return self._batch.__arrow_c_array__()

    def buffers(self) -> list[Any]:
        buffers = list(self._batch.column(0).buffers())
        whole = buffers[self._place]
        buffers[self._place] = whole.slice(0, self._needed(len(whole)) - 1)
        return buffers

    def _needed(self, size: int) -> int:
        array = self._batch.column(0)
        if self._place == 0:
            return (len(array) + 7) // 8
        if pa.types.is_string(array.type):
            return 4 * (len(array) + 1)
        return (len(array) * array.type.bit_width + 7) // 8


STRUCTS: list[tuple[Codec, pa.Array]] = [
    (("integer", {}), pa.array([1, None])),
    (("text", {}), pa.array(["a", "b"])),
    (("bytes", {}), pa.array([b"abc", b"def"], pa.binary(3))),
    (("set", {"labels": ["a"]}), pa.array([["a"], None])),
]


@pytest.mark.parametrize(("codec", "array"), STRUCTS, ids=["integer", "text", "fixed", "set"])
@pytest.mark.parametrize(
    ("level", "part", "name", "value"),
    [
        ("batch", "array", "length", 2**62), ("batch", "array", "length", -1), ("batch", "array", "children", None),
        ("batch", "array", "n_children", 2), ("batch", "array", "null_count", 1), ("batch", "array", "offset", 1),
        ("batch", "schema", "children", None), ("batch", "schema", "n_children", 0),
        ("batch", "schema", "format", b"n"),
        ("column", "array", "length", 1), ("column", "array", "length", 2**62), ("column", "array", "offset", -1),
        # Times the width of a value, these are 0 in 64 bits.
        ("column", "array", "offset", 2**61 - 2), ("column", "array", "offset", 2**62 - 2),
        ("column", "array", "offset", 2**63 - 1), ("column", "array", "n_buffers", 1),
        ("column", "array", "n_buffers", 2**40), ("column", "array", "buffers", None),
        ("column", "array", "release", None), ("column", "schema", "release", None),
        ("column", "schema", "format", None), ("column", "schema", "format", b"w:-1"),
        ("column", "schema", "format", b"w:99999999999"), ("column", "schema", "format", b"d:5"),
        ("items", "array", "length", 2**62), ("items", "array", "offset", 2**62 - 1),
        ("items", "array", "buffers", None), ("items", "schema", "format", None), ("items", "array", "release", None),
        ("lists", "array", "children", None), ("lists", "array", "n_children", 0),
        ("lists", "schema", "children", None), ("lists", "schema", "n_children", 2),
    ],
)  # fmt: skip
def test_altered_structs_are_refused(
    codec: Codec, array: pa.Array, level: str, part: str, name: str, value: Any
) -> None:
    if level in ("items", "lists") and codec[0] != "set":
        array, codec = STRUCTS[-1][1], STRUCTS[-1][0]

    def alter(m: Mutated) -> None:
        place = (m.schema, m.array)
        if level != "batch":
            place = (m.schema.children[0].contents, m.array.children[0].contents)
        if level == "items":
            place = (place[0].children[0].contents, place[1].children[0].contents)
        m.set(place[0] if part == "schema" else place[1], name, value)

    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    mutated: Any = Mutated(batch, alter)
    mutated.columns = batch.columns
    try:
        with pytest.raises((ValueError, TypeError)):
            Encoder([codec]).begin(mutated)
    finally:
        mutated.restore()


def test_sizes_of_fewer_buffers_than_there_are_are_refused() -> None:
    class Fewer(Shortened):
        def buffers(self) -> list[Any]:
            return self._batch.column(0).buffers()[:2]  # type: ignore[no-any-return]

    batch: Any = Fewer(pa.RecordBatch.from_arrays([pa.array(["a"])], names=["a"]), 0)
    with pytest.raises(ValueError, match="sizes"):
        Encoder([("text", {})]).begin(batch)


def test_true_and_lying_batches_give_the_twins_bytes_or_are_refused() -> None:
    outcomes = [attempt(seed) for seed in range(1500)]
    for outcome in ((False, False), (False, True), (True, False), (True, True)):
        assert outcomes.count(outcome) > 100


@pytest.mark.parametrize(
    ("codec", "array", "place"),
    [
        (("text", {}), pa.array(["a", "b"]), 1),
        (("integer", {}), pa.array([1, 2]), 1),
        (("integer", {}), pa.array([True, False]), 1),
        (("decimal", {}), pa.array([decimal.Decimal("1.5")], pa.decimal128(5, 2)), 1),
        (("integer", {}), pa.array([1, None], pa.int32()), 0),
    ],
)
def test_buffers_that_are_too_short_are_refused(codec: Codec, array: pa.Array, place: int) -> None:
    batch: Any = Shortened(pa.RecordBatch.from_arrays([array], names=["a"]), place)
    with pytest.raises(ValueError, match="shorter"):
        Encoder([codec]).begin(batch)
