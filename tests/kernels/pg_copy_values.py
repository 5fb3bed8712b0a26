"""Plain values (see pg_copy_reference) to and from Arrow, and strategies that make them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from kernels.pg_copy_reference import HEADER, I32, I64, TRAILER, Codec, encode
from rowferry._native.pg_copy import Decoder, Encoder
from rowferry.adapters.buffers import assemble
from rowferry.stages.digest import Digester, compare
from rowferry.types import from_arrow as from_arrow_type

ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "oid": pa.int64(),
    "float4": pa.float32(), "float8": pa.float64(), "numeric_text": pa.utf8(), "text": pa.utf8(), "name": pa.utf8(),
    "char": pa.utf8(), "jsonb": pa.utf8(), "bytea": pa.binary(), "wire": pa.binary(), "wire_numeric": pa.binary(),
    "date": pa.date32(), "time": pa.time64("us"), "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"), "interval": pa.month_day_nano_interval(), "uuid": pa.binary(16),
    "bit": pa.utf8(), "varbit": pa.utf8(),
}  # fmt: skip
#: Types whose values Python's own types cannot all hold: compared as their integers.
AS_INTEGERS = {"date": pa.int32(), "time": pa.int64(), "timestamp": pa.int64(), "timestamptz": pa.int64()}


def arrow_type(codec: Codec) -> pa.DataType:
    name, params = codec
    if name.startswith("numeric_decimal"):
        make = pa.decimal128 if name == "numeric_decimal128" else pa.decimal256
        return make(params["precision"], params["scale"])
    if name == "list":
        return pa.list_(pa.field("item", arrow_type(params["inner"])))
    return ARROW[name]


def schema_of(columns: list[Codec]) -> pa.Schema:
    return pa.schema([pa.field(f"c{i}", arrow_type(codec)) for i, codec in enumerate(columns)])


def validity_of(values: list[Any]) -> pa.Buffer | None:
    if None not in values:
        return None
    return pa.array([value is not None for value in values]).buffers()[1]


def to_arrow(codec: Codec, values: list[Any]) -> pa.Array:
    """An array of the codec's canonical type."""
    name, params = codec
    wanted = arrow_type(codec)
    if name in AS_INTEGERS:
        return pa.array(values, AS_INTEGERS[name]).view(wanted)
    if name.startswith("numeric_decimal") or name == "interval":
        if name == "interval":
            data = b"".join(struct.pack("<iiq", *(value or (0, 0, 0))) for value in values)
        else:
            data = b"".join((value or 0).to_bytes(wanted.byte_width, "little", signed=True) for value in values)
        return pa.Array.from_buffers(wanted, len(values), [validity_of(values), pa.py_buffer(data)])
    if name == "list":
        ends = [0]
        for value in values:
            ends.append(ends[-1] + len(value or []))
        child = to_arrow(params["inner"], [item for value in values for item in value or []])
        offsets = pa.array(ends, pa.int32()).buffers()[1]
        return pa.Array.from_buffers(wanted, len(values), [validity_of(values), offsets], children=[child])
    return pa.array(values, wanted)


def from_arrow(codec: Codec, array: pa.Array) -> list[Any]:
    """The plain values of an array; floats as their bits, so that NaN equals NaN."""
    name, params = codec
    if name in AS_INTEGERS:
        return array.view(AS_INTEGERS[name]).to_pylist()
    if name.startswith("numeric_decimal"):
        width = array.type.byte_width
        data = array.buffers()[1].to_pybytes()
        return [
            int.from_bytes(data[(array.offset + i) * width :][:width], "little", signed=True) if ok else None
            for i, ok in enumerate(array.is_valid().to_pylist())
        ]
    if name == "interval":
        return [None if value is None else tuple(value) for value in array.to_pylist()]
    if name == "list":
        return [
            from_arrow(params["inner"], array.values[start:end]) if ok else None
            for ok, start, end in zip(
                array.is_valid().to_pylist(),
                array.offsets.to_pylist()[:-1],
                array.offsets.to_pylist()[1:],
                strict=True,
            )
        ]
    if name in ("float4", "float8"):
        return [bits(value) for value in array.to_pylist()]
    return array.to_pylist()


def bits(value: Any) -> Any:
    """Floats (in lists, too) as their bytes."""
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    return [bits(item) for item in value] if isinstance(value, list) else value


def framed(stream: bytes, cuts: Iterable[int] = ()) -> bytes:
    """A stream as CopyData messages, cut at these places."""
    places = sorted({0, len(stream), *(cut for cut in cuts if 0 < cut < len(stream))})
    return b"".join(
        b"d" + struct.pack("!i", end - start + 4) + stream[start:end] for start, end in itertools.pairwise(places)
    )


def stream_of(rows: list[tuple[Any, ...]], columns: list[Codec]) -> bytes:
    return HEADER + encode(rows, columns) + TRAILER


def decode_all(stream: bytes, columns: list[Codec], **limits: Any) -> list[tuple[Any, ...]]:
    """All rows of a whole stream through the kernel, as plain values; the batches are validated."""
    decoder = Decoder(columns)
    decoder.feed_rows(stream)
    rows = drain(decoder, columns, **limits)
    decoder.finish()
    return rows


def drain(decoder: Decoder, columns: list[Codec], **limits: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    while (taken := decoder.take(**limits)) is not None:
        batch = assemble(schema_of(columns), taken)
        for column in batch.columns:
            # 24:00 is a value of ours (types.py), which pyarrow's full validation does not know.
            column.validate(full="time64" not in str(column.type))
        assert batch.num_rows == taken[0] > 0
        if not columns:
            rows += [()] * taken[0]
            continue
        rows += zip(
            *(from_arrow(codec, column) for codec, column in zip(columns, batch.columns, strict=True)), strict=True
        )
    return rows


def digester(columns: list[Codec]) -> Digester:
    """Compares each column as the canonical type of its own Arrow type."""
    forms = [from_arrow_type(field.type) for field in schema_of(columns)]
    pairs = [compare(form, form, source_engine="postgres", target_engine="postgres") for form in forms if form]
    assert len(pairs) == len(columns)
    return Digester([pair for pair in pairs if pair], "source")


def tally_all(decoder: Decoder, columns: list[Codec], into: Digester) -> tuple[int, bytes]:
    """How many rows a decoder gave to an intake, and their tuples."""
    intake = into.intake(schema_of(columns))
    rows, raw = 0, b""
    while (taken := decoder.tally(intake)) is not None:
        rows += taken[0]
        raw += bytes(taken[1])
    return rows, raw


def batch_of(rows: list[tuple[Any, ...]], columns: list[Codec]) -> pa.RecordBatch:
    arrays = [to_arrow(codec, [row[i] for row in rows]) for i, codec in enumerate(columns)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(columns))


def encode_all(rows: list[tuple[Any, ...]], columns: list[Codec], frame_bytes: int = 0) -> bytes:
    return bytes(Encoder(columns).encode(batch_of(rows, columns), frame_bytes))


# -- strategies

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.text(CHARACTERS, max_size=40)


def integers(bits_: int) -> st.SearchStrategy[int]:
    least, most = -(2 ** (bits_ - 1)), 2 ** (bits_ - 1) - 1
    return st.integers(least, most) | st.sampled_from([least, -1, 0, 1, most])


def numeric_texts() -> st.SearchStrategy[str]:
    digits = st.text("0123456789", max_size=24)

    def make(sign: str, whole: str, zeros: int, fraction: str) -> str:
        whole = (whole + "0" * zeros).lstrip("0") or "0"
        text = whole + ("." + fraction if fraction else "")
        return sign + text if text.strip("0.") else text

    finite = st.builds(make, st.sampled_from(["", "-"]), digits, st.integers(0, 9), digits)
    return finite | st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "0", "0.00", "1" + "0" * 500, "0." + "0" * 99 + "1"]
    )


DATES = st.integers(-2_451_545 + 10_957, 2_145_031_948 + 10_957) | st.sampled_from([I32, -I32 - 1])
TIMESTAMPS = st.integers(-211_813_488_000_000_000 + 946_684_800_000_000, I64 - 1) | st.sampled_from([I64, -I64 - 1])
# The server's last instant is below the largest 64-bit count from 2000.
TIMESTAMPS = TIMESTAMPS.filter(lambda v: v in (I64, -I64 - 1) or v - 946_684_800_000_000 < 9_223_371_331_200_000_000)

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(), "int2": integers(16), "int4": integers(32), "int8": integers(64),
    "oid": st.integers(0, 2**32 - 1), "float4": st.floats(width=32), "float8": st.floats(),
    "numeric_text": numeric_texts(), "text": TEXTS, "name": TEXTS, "char": TEXTS.map(lambda s: s.rstrip(" ")),
    "jsonb": TEXTS, "bytea": st.binary(max_size=80), "wire": st.binary(max_size=80), "date": DATES,
    "time": st.integers(0, 86_400_000_000), "timestamp": TIMESTAMPS, "timestamptz": TIMESTAMPS,
    "interval": st.tuples(integers(32), integers(32), st.integers(-(I64 // 1000), I64 // 1000).map(lambda v: v * 1000)),
    "uuid": st.binary(min_size=16, max_size=16),
    "bit": st.text("01", max_size=70), "varbit": st.text("01", max_size=70),
}  # fmt: skip


@st.composite
def decimal_codecs(draw: st.DrawFn) -> Codec:
    name, most = draw(st.sampled_from([("numeric_decimal128", 38), ("numeric_decimal256", 76)]))
    precision = draw(st.integers(1, most))
    return name, {"precision": precision, "scale": draw(st.integers(0, precision))}


SIMPLE = st.sampled_from(sorted(PLAIN)).map(lambda name: (name, {})) | decimal_codecs()
LISTS = SIMPLE.map(lambda inner: ("list", {"inner": inner, "element_oid": 23}))
CODECS = SIMPLE | LISTS


def values_of(codec: Codec) -> st.SearchStrategy[Any]:
    """Plain values of a codec, nulls among them."""
    name, params = codec
    if name == "list":
        return st.none() | st.lists(values_of(params["inner"]), max_size=6)
    if name.startswith("numeric_decimal"):
        most = 10 ** params["precision"] - 1
        return st.none() | st.integers(-most, most) | st.sampled_from([most, -most, 0])
    return st.none() | PLAIN[name]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Codec], list[tuple[Any, ...]]]:
    columns = draw(st.lists(CODECS, max_size=6))
    rows = draw(st.lists(st.tuples(*(values_of(codec) for codec in columns)), max_size=30))
    return columns, rows
