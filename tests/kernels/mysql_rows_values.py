"""Batches of the kernel as plain values (see mysql_rows_reference), and strategies that make these."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from kernels.mysql_rows_reference import Column
from rowferry._native.mysql_rows import Decoder
from rowferry.adapters.buffers import assemble

ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(), "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
    "uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(),
    "float32": pa.float32(), "float64": pa.float64(), "numeric": pa.utf8(), "text": pa.utf8(), "char": pa.utf8(),
    "binary": pa.binary(), "date": pa.date32(), "timestamp": pa.timestamp("us"), "duration": pa.duration("us"),
    "uuid": pa.binary(16), "bits": pa.utf8(), "set": pa.list_(pa.field("item", pa.utf8())),
}  # fmt: skip


def arrow_type(column: Column) -> pa.DataType:
    kind, params = column
    if kind.startswith("decimal"):
        make = pa.decimal128 if kind == "decimal128" else pa.decimal256
        return make(params["precision"], params["scale"])
    return pa.binary(params["length"]) if kind == "fixed" else ARROW[kind]


def schema_of(columns: list[Column]) -> pa.Schema:
    return pa.schema([pa.field(f"c{i}", arrow_type(column)) for i, column in enumerate(columns)])


def plain(array: pa.Array) -> list[Any]:
    """The plain values of an array; floats as their bits, so that −0 is not 0."""
    if pa.types.is_date32(array.type):
        return array.view(pa.int32()).to_pylist()
    if pa.types.is_timestamp(array.type) or pa.types.is_duration(array.type):
        return array.view(pa.int64()).to_pylist()
    if pa.types.is_decimal(array.type):
        width = array.type.byte_width
        data = array.buffers()[1].to_pybytes()
        return [
            int.from_bytes(data[i * width :][:width], "little", signed=True) if valid else None
            for i, valid in enumerate(array.is_valid().to_pylist())
        ]
    return [bits(value) for value in array.to_pylist()]


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def exact(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with their floats as bits."""
    return [tuple(bits(value) for value in row) for row in rows]


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    batch.validate(full=True)
    return list(zip(*(plain(column) for column in batch.columns), strict=True))


def feed(decoder: Decoder, data: bytes) -> None:
    """As if the socket had given these bytes."""
    view = decoder.buffer_view(len(data))
    view[: len(data)] = data
    view.release()
    decoder.received(len(data))


def drain(decoder: Decoder, columns: list[Column], **limits: Any) -> list[tuple[Any, ...]]:
    """The batches that are complete."""
    rows: list[tuple[Any, ...]] = []
    while (taken := decoder.take(**limits)) is not None:
        assert taken[0] > 0
        rows += rows_of(assemble(schema_of(columns), taken))
    return rows


def decode_pieces(
    pieces: Iterable[bytes], columns: list[Column], sequence: int = 0, **limits: Any
) -> tuple[list[tuple[Any, ...]], bytes | None]:
    """All rows of a stream through the kernel, and what ended them (None: it was cut)."""
    decoder = Decoder(columns, 4096, sequence)
    rows: list[tuple[Any, ...]] = []
    for piece in pieces:
        feed(decoder, piece)
        rows += drain(decoder, columns, **limits)
    assert decoder.last is None or decoder.buffered == 0
    assert decoder.rows == len(rows)
    return rows, decoder.last


# -- strategies

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.integers(240, 300).map(lambda n: "é" * n)
BYTES = st.binary(max_size=80) | st.sampled_from([251, 300, 65_535, 65_536]).map(bytes)
MEMBERS = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=8)


def integers(size: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (size - 1)), 2 ** (size - 1) - 1) if signed else (0, 2**size - 1)
    return st.integers(low, high) | st.sampled_from([low, high]) | st.integers(0, 99)


def float32s() -> st.SearchStrategy[float]:
    return st.floats(width=32, allow_nan=False, allow_infinity=False)


PLAIN: dict[str, st.SearchStrategy[Any]] = {
    **{f"int{size}": integers(size, True) for size in (8, 16, 32, 64)},
    **{f"uint{size}": integers(size, False) for size in (8, 16, 32, 64)},
    "bool": st.booleans(),
    "float32": float32s(),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d:f}").filter(lambda t: t[0] != "+"),
    "text": TEXTS,
    "char": TEXTS.map(lambda text: text.rstrip(" ")),
    "binary": BYTES,
    "date": st.integers(-719_528, 2_932_896),
    "timestamp": st.integers(-719_528 * 86_400_000_000, 2_932_897 * 86_400_000_000 - 1)
    | st.integers(-719_528 * 86_400, 2_932_897 * 86_400 - 1).map(lambda s: s * 1_000_000),
    "duration": st.integers(-3_020_399_999_999, 3_020_399_999_999),
    "uuid": st.binary(min_size=16, max_size=16),
    "set": st.lists(MEMBERS, max_size=5),
}


@st.composite
def columns_of_a_kind_with_parameters(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(["decimal128", "decimal256", "fixed", "bits"]))
    if kind.startswith("decimal"):
        precision = draw(st.integers(1, 38 if kind == "decimal128" else 76))
        return kind, {"precision": precision, "scale": draw(st.integers(0, precision))}
    return kind, {"length": draw(st.integers(1, 64))}


COLUMNS = st.sampled_from(sorted(PLAIN)).map(lambda kind: (kind, {})) | columns_of_a_kind_with_parameters()


def values_of(column: Column) -> st.SearchStrategy[Any]:
    """Plain values of a column, NULL among them."""
    kind, params = column
    if kind.startswith("decimal"):
        most = 10 ** params["precision"] - 1
        return st.none() | st.integers(-most, most) | st.sampled_from([most, -most, 0])
    if kind == "fixed":
        return st.none() | st.binary(min_size=params["length"], max_size=params["length"])
    if kind == "bits":
        return st.none() | st.text("01", min_size=params["length"], max_size=params["length"])
    return st.none() | PLAIN[kind]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[tuple[Any, ...]]]:
    columns = draw(st.lists(COLUMNS, min_size=1, max_size=6))
    rows = draw(st.lists(st.tuples(*(values_of(column) for column in columns)), max_size=30))
    return columns, rows
