"""The encoder: what it takes for each target, what it refuses, and where it says the fault lies."""

from __future__ import annotations

import decimal
import pathlib
import pickle
import struct
from typing import Any

import pyarrow as pa
import pytest

from kernels import pg_copy_reference as twin
from kernels.test_row_digest_hostile import Mutated
from rowferry._native.pg_copy import HEADER, TRAILER, DecodeError, Decoder, EncodeError, Encoder, frame_prefix

D = decimal.Decimal


def encode(codec: str, array: pa.Array, **params: Any) -> bytes:
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    return bytes(Encoder([(codec, params)]).encode(batch))


def fields(data: bytes) -> list[bytes | None]:
    return [row[0] for row in twin.split(twin.HEADER + data + twin.TRAILER, 1)]


def refused(codec: str, array: pa.Array, reason: str, **params: Any) -> None:
    """Value 1 of the array, and no other, is refused."""
    with pytest.raises(EncodeError, match=reason) as caught:
        encode(codec, array, **params)
    assert (caught.value.row, caught.value.column) == (1, 0)
    encode(codec, array.slice(0, 1), **params)
    encode(codec, array.slice(2), **params)


INTEGERS = [getattr(pa, f"{u}int{bits}")() for u in ("", "u") for bits in (8, 16, 32, 64)]
TARGETS = {"int2": ("!h", -(2**15), 2**15 - 1), "int4": ("!i", -(2**31), 2**31 - 1),
           "int8": ("!q", -(2**63), 2**63 - 1), "oid": ("!I", 0, 2**32 - 1)}  # fmt: skip


@pytest.mark.parametrize("source", INTEGERS, ids=str)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_encode_integer_of_any_width_fits_or_is_refused(source: pa.DataType, target: str) -> None:
    form, least, most = TARGETS[target]
    low = 0 if "u" in str(source) else -(2 ** (source.bit_width - 1))
    high = low + 2**source.bit_width - 1
    for value in sorted({low, low + 1, 0, 1, high - 1, high, least, most, least - 1, most + 1}):
        if not low <= value <= high:
            continue
        array = pa.array([0, value, 1], source)
        if least <= value <= most:
            assert fields(encode(target, array)) == [struct.pack(form, v) for v in (0, value, 1)]
        else:
            refused(target, array, "integer")


@pytest.mark.parametrize("source", INTEGERS, ids=str)
def test_encode_integer_as_numeric_keeps_its_value(source: pa.DataType) -> None:
    low = 0 if "u" in str(source) else -(2 ** (source.bit_width - 1))
    values = [low, 0, 1, 100, low + 2**source.bit_width - 1]
    assert fields(encode("numeric", pa.array(values, source))) == [twin.encode_numeric(str(v)) for v in values]


@pytest.mark.parametrize("t", [pa.decimal128(38, 0), pa.decimal128(38, 5), pa.decimal128(38, 38), pa.decimal256(76, 0),
                               pa.decimal256(76, 31), pa.decimal256(76, 76)], ids=str)  # fmt: skip
def test_encode_decimal_extremes_equal_the_twins(t: pa.DataType) -> None:
    most = 10**t.precision - 1
    edges = {
        0,
        1,
        -1,
        9999,
        10_000,
        10**16 - 1,
        10**16,
        -(10**16),
        2**63,
        2**64,
        2**64 - 1,
        2**127,
        2**128,
        most,
        -most,
    }
    values = sorted(v for v in edges if abs(v) <= most)
    with decimal.localcontext() as context:
        context.prec = 100
        array = pa.array([D(v).scaleb(-t.scale) for v in values], t)
        expected = [twin.encode_numeric(f"{D(v).scaleb(-t.scale):.{t.scale}f}") for v in values]
    assert fields(encode("numeric", array)) == expected


@pytest.mark.parametrize("text", ["", "-", ".", "1e5", "+1", " 1", "1 ", "1.2.3", "nan", "inf", "Infinite", "0x1", "١",
                                  "1,5", "--1", "-NaN", "Infinit", "1\0"])  # fmt: skip
def test_encode_numeric_text_that_is_not_canonical_is_refused(text: str) -> None:
    refused("numeric", pa.array(["1", text, "2"]), "canonical numeric|U.0000")


def test_encode_numeric_text_beyond_the_servers_range_is_refused() -> None:
    refused("numeric", pa.array(["0", "0." + "1" * 16_384, "1"]), "digits")
    refused("numeric", pa.array(["0", "1" * 131_073, "1"]), "digits")
    largest = ["9" * 131_072, "-0." + "0" * 16_382 + "1", "0" * 200_000 + "7"]
    assert fields(encode("numeric", pa.array(largest))) == [twin.encode_numeric(text) for text in largest]


def test_encode_float_only_exact_values_become_float4() -> None:
    good = [0.0, -0.0, 0.5, 1e-45, 3.4028234663852886e38, float("inf"), float("-inf")]
    single = [struct.pack("!f", v) for v in good]
    assert fields(encode("float4", pa.array(good, pa.float32()))) == single
    assert fields(encode("float4", pa.array(good[:3] + good[4:], pa.float64()))) == single[:3] + single[4:]
    assert fields(encode("float8", pa.array(good, pa.float32())))[:3] == [struct.pack("!d", v) for v in good[:3]]
    nan = fields(encode("float4", pa.array([float("nan")], pa.float64())))[0]
    assert nan is not None and struct.unpack("!f", nan)[0] != struct.unpack("!f", nan)[0]
    for value in (0.1, 16_777_217.0, 1e39, 1e-50, 5e-324):
        refused("float4", pa.array([1.0, value, 2.0], pa.float64()), "float4")


@pytest.mark.parametrize("codec", ["text", "varchar", "bpchar", "json", "xml", "enum", "name", "jsonb"])
@pytest.mark.parametrize("t", [pa.utf8(), pa.large_utf8()], ids=str)
def test_encode_text_with_nul_names_its_row(codec: str, t: pa.DataType) -> None:
    refused(codec, pa.array(["a", "b\0c", "d"], t), "U.0000")
    values = ["", "zażółć 🙂", "x" * 100_000, None]
    prefix = b"\1" if codec == "jsonb" else b""
    expected = [None if v is None else prefix + v.encode() for v in values]
    assert fields(encode(codec, pa.array(values, t))) == expected


def test_encode_text_with_nul_in_a_null_slot_is_no_fault() -> None:
    array = pa.Array.from_buffers(
        pa.utf8(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(struct.pack("<3i", 0, 1, 3)), pa.py_buffer(b"a\0b")]
    )
    assert fields(encode("text", array)) == [b"a", None]


@pytest.mark.parametrize("t", [pa.binary(), pa.large_binary(), pa.binary(3)], ids=str)
def test_encode_binary_is_as_it_is(t: pa.DataType) -> None:
    assert fields(encode("bytea", pa.array([b"\0\1\2", None, b"abc"], t))) == [b"\0\1\2", None, b"abc"]
    assert fields(encode("wire", pa.array([b"\0\1\2"], t))) == [b"\0\1\2"]


def test_encode_wire_numeric_shows_all_digits_and_no_more() -> None:
    texts = ["1.50", "-0.0001", "100", "10000.0", "0.00", "12.3456789", "1" + "0" * 30, "NaN", "Infinity"]
    bare = [twin.encode_numeric(text)[:6] + b"\0\0" + twin.encode_numeric(text)[8:] for text in texts]
    shown = ["1.5", "-0.0001", "100", "10000", "0", "12.3456789", "1" + "0" * 30, "NaN", "Infinity"]
    assert fields(encode("wire_numeric", pa.array(bare))) == [twin.encode_numeric(text) for text in shown]
    for bad in (b"", bytes(7), b"\0\1" + bytes(6), b"\0\1\0\0\0\0\0\0\x27\x10", bytes(10)):
        refused("wire_numeric", pa.array([bare[0], bad, None]), "malformed numeric")


UNITS = {"s": 1_000_000, "ms": 1000, "us": 1}
EPOCH = 946_684_800_000_000


@pytest.mark.parametrize("unit", sorted(UNITS))
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_encode_timestamp_of_any_unit_is_shifted(unit: str, zone: str | None) -> None:
    t, factor = pa.timestamp(unit, zone), UNITS[unit]
    codec = "timestamptz" if zone else "timestamp"
    values = [0, -1, 1, 10**9]
    array = pa.array(values, pa.int64()).view(t)
    assert fields(encode(codec, array)) == [struct.pack("!q", v * factor - EPOCH) for v in values]
    infinite = pa.array([2**63 - 1, -(2**63)], pa.int64()).view(t)
    assert fields(encode(codec, infinite)) == [b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7)]
    least, end = (-211_813_488_000_000_000 + EPOCH) // factor, (9_223_371_331_200_000_000 + EPOCH) // factor
    for beyond in [least - 1] + ([end] if end < 2**63 - 1 else [2**63 - 2][: factor > 1]):
        refused(codec, pa.array([least, beyond, 0], pa.int64()).view(t), "timestamp")


def test_encode_nanoseconds_only_whole_microseconds() -> None:
    array = pa.array([-1_000, 2_000], pa.int64())
    assert fields(encode("timestamp", array.view(pa.timestamp("ns")))) == [
        struct.pack("!q", v - EPOCH) for v in (-1, 2)
    ]
    for odd in (1, -1, 999, -1_001, 2**63 - 2):
        refused("timestamp", pa.array([0, odd, 0], pa.int64()).view(pa.timestamp("ns")), "whole microseconds")
    refused("time", pa.array([0, 1, 0], pa.int64()).view(pa.time64("ns")), "whole microseconds")
    refused("interval", months_days_nanos([(0, 0, 0), (0, 0, 1), (0, 0, 0)]), "whole microseconds")


def test_encode_date_range_and_infinity() -> None:
    array = pa.array([2**31 - 1, -(2**31), 0], pa.int32()).view(pa.date32())
    assert fields(encode("date", array)) == [struct.pack("!i", v) for v in (2**31 - 1, -(2**31), -10_957)]
    for beyond in (2**31 - 2, -(2**31) + 1, -2_451_546 + 10_957, 2_145_031_949 + 10_957):
        refused("date", pa.array([0, beyond, 1], pa.int32()).view(pa.date32()), "date")


@pytest.mark.parametrize(("t", "storage", "factor"), [
    (pa.time32("s"), pa.int32(), 10**6), (pa.time32("ms"), pa.int32(), 10**3), (pa.time64("us"), pa.int64(), 1),
])  # fmt: skip
def test_encode_time_reaches_24_00_and_no_further(t: pa.DataType, storage: pa.DataType, factor: int) -> None:
    last = 86_400_000_000 // factor
    assert fields(encode("time", pa.array([0, last], storage).view(t))) == [
        struct.pack("!q", v) for v in (0, 86_400_000_000)
    ]
    refused("time", pa.array([0, last + 1, 0], storage).view(t), "24:00")
    refused("time", pa.array([0, -1, 0], storage).view(t), "24:00")


def months_days_nanos(values: list[tuple[int, int, int]]) -> pa.Array:
    data = b"".join(struct.pack("<iiq", *value) for value in values)
    return pa.Array.from_buffers(pa.month_day_nano_interval(), len(values), [None, pa.py_buffer(data)])


def test_encode_interval_and_duration() -> None:
    assert fields(encode("interval", months_days_nanos([(-1, 2, -3_000)]))) == [struct.pack("!qii", -3, 2, -1)]
    for unit, factor in UNITS.items():
        array = pa.array([-7], pa.int64()).view(pa.duration(unit))
        assert fields(encode("interval", array)) == [struct.pack("!qii", -7 * factor, 0, 0)]
    refused("interval", pa.array([0, 2**62, 0], pa.int64()).view(pa.duration("s")), "interval")


def test_encode_bits_only_zero_and_one() -> None:
    assert fields(encode("varbit", pa.array(["101", "", "1" * 9]))) == [
        b"\0\0\0\3\xa0", b"\0\0\0\0", b"\0\0\0\x09\xff\x80",
    ]  # fmt: skip
    refused("bit", pa.array(["1", "12", "0"]), "0 and 1")


def test_encode_list_of_any_layout() -> None:
    values = [[1, None], [], None, [3]]
    for t in (pa.list_(pa.int32()), pa.large_list(pa.int32())):
        array = pa.array([[9, 9], *values], t).slice(1)
        data = encode("list", array, inner=("int4", {}), element_oid=23)
        columns: list[twin.Codec] = [("list", {"inner": ("int4", {}), "element_oid": 23})]
        assert data == twin.encode([(v,) for v in values], columns)
    refused("list", pa.array([["a"], ["b", "\0"], []]), "U.0000", inner=("text", {}), element_oid=25)


def test_encode_null_type_gives_nulls() -> None:
    for codec in ("int4", "text", "numeric", "uuid", "date"):
        assert fields(encode(codec, pa.nulls(3))) == [None] * 3
    assert fields(encode("list", pa.nulls(2), inner=("int4", {}), element_oid=23)) == [None] * 2


@pytest.mark.parametrize(("codec", "array"), [
    ("int4", pa.array([1.0])), ("int4", pa.array([True])), ("int8", pa.array(["1"])), ("float8", pa.array([1])),
    ("bool", pa.array([1])), ("text", pa.array([b"a"])), ("text", pa.array([1])), ("bytea", pa.array(["a"])),
    ("uuid", pa.array(["a"])), ("uuid", pa.array([b"a" * 15], pa.binary(15))), ("date", pa.array([1])),
    ("timestamp", pa.array([1])), ("timestamp", pa.array([1], pa.date32())), ("numeric", pa.array([1.5])),
    ("time", pa.array([1], pa.timestamp("us"))), ("bit", pa.array([b"1"])), ("jsonb", pa.array([b"1"])),
    ("int4", pa.array([[1]])), ("date", pa.array([1], pa.date64())), ("text", pa.array(["a"]).dictionary_encode()),
    ("text", pa.array(["a"], pa.string_view())), ("wire", pa.array(["a"])), ("interval", pa.array([1])),
    ("numeric", pa.array([D(100)], pa.decimal128(5, -2))), ("text", pa.array([{"a": 1}])),
], ids=str)  # fmt: skip
def test_encode_wrong_arrow_type_raises(codec: str, array: pa.Array) -> None:
    with pytest.raises(TypeError):
        encode(codec, array)


def test_encode_fault_names_row_and_column() -> None:
    batch = pa.RecordBatch.from_pydict({"a": list(range(5000)), "b": ["x"] * 4321 + ["\0"] + ["x"] * 678})
    encoder = Encoder([("int8", {}), ("text", {})])
    with pytest.raises(EncodeError, match="row 4321, column 1") as caught:
        encoder.encode(batch)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.row, copy.column, copy.reason) == (4321, 1, caught.value.reason)
    good = encoder.encode(batch.slice(0, 4321), 4096)
    assert memoryview(good)[:1] == b"d"


def test_encode_other_number_of_columns_raises() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1], "b": [2]})
    with pytest.raises(ValueError, match="2 columns, expected 1"):
        Encoder([("int8", {})]).encode(batch)
    with pytest.raises(TypeError, match="batch of columns"):
        Encoder([("int8", {})]).encode(pa.array([1]))


@pytest.mark.parametrize("columns", [[("int3", {})], [("list", {"inner": ("x", {}), "element_oid": 1})]])
def test_encoder_unknown_codec_raises(columns: list[twin.Codec]) -> None:
    with pytest.raises(ValueError, match="no codec"):
        Encoder(columns)


@pytest.mark.parametrize("values", [(0, 9), (-1, 2), (5, 2), (0, 2**31 - 1), (-(2**31), 0)])
def test_encode_offsets_outside_the_data_raise(values: tuple[int, int]) -> None:
    for codec, t in (
        ("text", pa.utf8()), ("bytea", pa.binary()), ("numeric", pa.utf8()), ("bit", pa.utf8()),
        ("list", pa.list_(pa.int64())),
    ):  # fmt: skip
        offsets = bytearray(8)
        data = [] if codec == "list" else [pa.py_buffer(b"010101")]
        children = [pa.array([1, 2])] if codec == "list" else None
        array = pa.Array.from_buffers(t, 1, [None, pa.py_buffer(offsets), *data], children=children)
        batch = pa.RecordBatch.from_arrays([array], names=["a"])
        struct.pack_into("<2i", offsets, 0, *values)  # after pyarrow has looked
        params = {"inner": ("int8", {}), "element_oid": 20} if codec == "list" else {}
        with pytest.raises(EncodeError, match="offsets"):
            Encoder([(codec, params)]).encode(batch)


class Lying:
    """A batch of one column that says its buffers are shorter than its arrays need."""

    def __init__(self, array: pa.Array, *sizes: int) -> None:
        self.batch = pa.RecordBatch.from_arrays([array], names=["a"])
        self.sizes = sizes
        self.columns = [self]

    def buffers(self) -> list[pa.Buffer]:
        return [pa.py_buffer(bytes(size)) for size in self.sizes]

    def __arrow_c_array__(self) -> tuple[Any, Any]:
        capsules: tuple[Any, Any] = self.batch.__arrow_c_array__()
        return capsules


@pytest.mark.parametrize(("codec", "array", "sizes"), [
    ("int8", pa.array([1, 2]), (0, 15)), ("int8", pa.array([1] * 9 + [None]), (1, 80)),
    ("bool", pa.array([True] * 9), (0, 1)), ("text", pa.array(["a", "b"]), (0, 11, 2)),
    ("numeric", pa.array([D(1), D(2)]), (0, 31)), ("uuid", pa.array([bytes(16)], pa.binary(16)), (0, 15)),
], ids=str)  # fmt: skip
def test_encode_buffers_shorter_than_the_array_raise(codec: str, array: pa.Array, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shorter"):
        Encoder([(codec, {})]).encode(Lying(array, *sizes))


STRUCTS: list[tuple[twin.Codec, pa.Array]] = [
    (("int8", {}), pa.array([1, None])),
    (("text", {}), pa.array(["a", "b"])),
    (("bytea", {}), pa.array([b"abc", b"def"], pa.binary(3))),
    (("list", {"inner": ("text", {}), "element_oid": 25}), pa.array([["a"], None])),
]


@pytest.mark.parametrize(("codec", "array"), STRUCTS, ids=["int8", "text", "fixed", "list"])
@pytest.mark.parametrize(
    ("level", "part", "name", "value"),
    [
        ("batch", "array", "length", 2**62), ("batch", "array", "length", -1), ("batch", "array", "children", None),
        ("batch", "array", "n_children", 2), ("batch", "array", "offset", 1), ("batch", "array", "offset", -1),
        ("batch", "array", "offset", 2**61 - 2), ("batch", "schema", "children", None),
        ("batch", "schema", "n_children", 0), ("batch", "schema", "format", b"n"), ("batch", "schema", "format", None),
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
def test_encode_altered_structs_raise(
    codec: twin.Codec, array: pa.Array, level: str, part: str, name: str, value: Any
) -> None:
    if level in ("items", "lists"):
        codec, array = STRUCTS[-1]

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
            Encoder([codec]).encode(mutated)
    finally:
        mutated.restore()


def test_encode_values_at_any_address() -> None:
    array = pa.array([1, -2, 2**62])
    moved = pa.Array.from_buffers(pa.int64(), 3, [None, pa.py_buffer(b"x" + array.buffers()[1].to_pybytes()).slice(1)])
    assert encode("int8", moved) == encode("int8", array)


def test_encode_data_shorter_than_its_offsets_raises() -> None:
    with pytest.raises(EncodeError, match="offsets"):
        Encoder([("text", {})]).encode(Lying(pa.array(["ab", "cd"]), 0, 12, 3))


@pytest.mark.parametrize("frame_bytes", [1, 100, 65_536])
def test_encode_large_rows_are_cut_into_messages(frame_bytes: int) -> None:
    sizes = (0, 99, 100, 101, 300_000, 1)
    batch = pa.RecordBatch.from_pydict({"a": [bytes([i]) * n for i, n in enumerate(sizes)]})
    wire = bytes(Encoder([("bytea", {})]).encode(batch, frame_bytes))
    body, at = b"", 0
    while at < len(wire):
        (size,) = struct.unpack_from("!i", wire, at + 1)
        assert wire[at : at + 1] == b"d" and 4 < size <= 2 * frame_bytes + 400
        body += wire[at + 5 : at + 1 + size]
        at += 1 + size
    assert body == bytes(Encoder([("bytea", {})]).encode(batch))


def test_encode_many_batches_good_and_bad_keeps_memory_flat() -> None:
    good = pa.RecordBatch.from_pydict({"a": ["x" * 100] * 10_000})
    bad = pa.RecordBatch.from_pydict({"a": ["x" * 100] * 9_999 + ["\0"]})
    encoder, decoder_bytes = Encoder([("text", {})]), 0

    def resident_mib() -> float:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    before = 0.0
    for i in range(200):
        if i == 20:
            before = resident_mib()
        tuples = encoder.encode(good, 65_536)
        with pytest.raises(EncodeError):
            encoder.encode(bad)
        decoder = Decoder([("text", {})])
        decoder.feed_messages(frame_prefix(19) + HEADER)
        decoder.feed_messages(tuples)
        taken = decoder.take()
        assert taken is not None
        decoder_bytes += len(taken[1][0][2][2])
        decoder.feed_messages(frame_prefix(9) + b"\0\1\0\0\0\3\xff\xff\xff")
        with pytest.raises(DecodeError):
            while decoder.take() is not None:
                continue
    assert decoder_bytes > 150 << 20
    assert resident_mib() < before + 16


def test_encode_empty_batch_gives_nothing() -> None:
    batch = pa.RecordBatch.from_pydict({"a": pa.array([], pa.int64())})
    assert bytes(Encoder([("int8", {})]).encode(batch, 65_536)) == b""
    assert bytes(Encoder([("int8", {})]).encode(batch)) == b""


def test_frame_prefix_and_constants() -> None:
    assert (HEADER, TRAILER) == (twin.HEADER, twin.TRAILER)
    assert frame_prefix(2) == b"d\0\0\0\6"
    assert frame_prefix(2**30 - 5) == b"d\x3f\xff\xff\xff"
    for bad in (-1, 2**30):
        with pytest.raises(ValueError, match="do not go"):
            frame_prefix(bad)
