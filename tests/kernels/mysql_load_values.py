"""Columns that the load kernel writes, with values for them (times as integers of their unit), and their batches."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from kernels import mysql_load_reference as twin

Codec = tuple[str, dict[str, Any]]
LABELS = ("a", "", "b\\", "é\t", "c'c", *(f"label {i}" for i in range(40)))

#: Each codec with an Arrow type and values for it.
COLUMNS: dict[str, tuple[Codec, pa.DataType, st.SearchStrategy[Any]]] = {
    "bool": (("integer", {}), pa.bool_(), st.booleans()),
    "i8": (("integer", {"least": -100, "most": 100}), pa.int8(), st.integers(-128, 127)),
    "i16": (("integer", {}), pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "i32": (("integer", {}), pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "i64": (("integer", {"least": -(2**63), "most": 2**63 - 1}), pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "u8": (("integer", {}), pa.uint8(), st.integers(0, 255)),
    "u16": (("integer", {"least": 0, "most": 1000}), pa.uint16(), st.integers(0, 2**16 - 1)),
    "u32": (("integer", {}), pa.uint32(), st.integers(0, 2**32 - 1)),
    "u64": (("integer", {"least": 0, "most": 2**64 - 1}), pa.uint64(), st.integers(0, 2**64 - 1)),
    "year": (("year", {}), pa.int16(), st.integers(-1, 10_000)),
    "f32": (("float", {}), pa.float32(), st.floats(width=32, allow_nan=False)),
    "f64": (("float", {}), pa.float64(), st.floats()),
    "money": (("decimal", {}), pa.decimal128(15, 2), st.decimals(-(10**12), 10**12, places=2)),
    "whole": (("decimal", {}), pa.decimal128(38, 0), st.decimals(-(10**37), 10**37, places=0)),
    "small": (("decimal", {}), pa.decimal128(5, 5), st.decimals(0, decimal.Decimal("0.99999"), places=5)),
    "wide": (
        ("decimal", {}),
        pa.decimal256(65, 30),
        st.integers(-(10**65) + 1, 10**65 - 1).map(lambda n: decimal.Decimal(n).scaleb(-30, twin.WIDE)),
    ),
    "date": (("date", {}), pa.date32(), st.integers(-800_000, 3_000_000)),
    "dt": (("datetime", {"digits": 6}), pa.timestamp("us"), st.integers(-(2**63), 2**63 - 1)),
    "dt_near": (("datetime", {"digits": 6}), pa.timestamp("us", "UTC"), st.integers(-(10**16), 10**16)),
    "dt_s": (("datetime", {"digits": 0}), pa.timestamp("s"), st.integers(-(10**11), 10**12)),
    "dt_ms": (("datetime", {"digits": 2}), pa.timestamp("ms"), st.integers(-(10**12), 10**13).map(lambda n: n * 10)),
    "dt_ns": (("datetime", {"digits": 6}), pa.timestamp("ns"), st.integers(-(2**63), 2**63 - 1)),
    "dt_0": (("datetime", {"digits": 0}), pa.timestamp("us"), st.integers(-100, 100)),
    "time": (("time", {"digits": 6}), pa.duration("us"), st.integers(-4 * 10**12, 4 * 10**12)),
    "time_ns": (("time", {"digits": 6}), pa.duration("ns"), st.integers(-(10**15), 10**15).map(lambda n: n * 1000)),
    "time_of_day": (("time", {"digits": 3}), pa.time64("us"), st.integers(0, 86_400).map(lambda s: s * 10**6)),
    "text": (("text", {}), pa.utf8(), st.text(max_size=40)),
    "varchar": (("text", {"length": 5}), pa.utf8(), st.text(max_size=6)),
    "blob": (("bytes", {}), pa.binary(), st.binary(max_size=60)),
    "varbinary": (("bytes", {"length": 5}), pa.binary(), st.binary(max_size=6)),
    "binary": (("bytes", {"length": 4, "fixed": True}), pa.binary(4), st.binary(min_size=4, max_size=4)),
    "bit": (("bit", {"length": 13}), pa.utf8(), st.text("01", min_size=12, max_size=13)),
    "bit64": (("bit", {"length": 64}), pa.utf8(), st.text("01", min_size=64, max_size=64)),
    "uuid": (("bytes", {"length": 16, "fixed": True}), pa.binary(16), st.binary(min_size=16, max_size=16)),
    "uuid_text": (("uuid_text", {}), pa.binary(16), st.binary(min_size=16, max_size=16)),
    "enum": (("enum", {"labels": LABELS}), pa.utf8(), st.sampled_from([*LABELS, "A", "label 4", "b"])),
    "set": (
        ("set", {"labels": LABELS[:3]}),
        pa.list_(pa.utf8()),
        st.lists(st.sampled_from(["a", "", "b\\"]), unique=True, max_size=3),
    ),
    "required": (("text", {"required": True}), pa.utf8(), st.text(max_size=3)),
}


def batch_of(rows: Sequence[tuple[Any, ...]], types: Sequence[pa.DataType], slack: int = 0) -> pa.RecordBatch:
    """A batch; with ``slack`` its arrays are slices that begin in the middle of their buffers."""
    arrays = []
    for i, t in enumerate(types):
        values = [rows[0][i]] * slack + [row[i] for row in rows] if rows else []
        storage = pa.int64() if pa.types.is_temporal(t) and not pa.types.is_date32(t) else t
        array = pa.array(values, pa.int32() if pa.types.is_date32(t) else storage)
        arrays.append((array.view(t) if array.type != t else array).slice(slack if rows else 0))
    return pa.RecordBatch.from_arrays(arrays, names=[f"c{i}" for i in range(len(types))])
