"""Lists, structs and maps as JSON text, both ways: SQLite has no such values of its own.

A struct is an object, a map an array of pairs. What JSON has no number for (decimals, times, uuids,
bytes, NaN and infinities) is the text that SQLite would hold it as; bytes are ``\\x…``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters import json_text
from rowferry.adapters.sqlite import plain
from rowferry.adapters.sqlite.types import NESTED, kernel_kind, read_spec, write_spec
from rowferry.types import FLOATS, Type


def to_json(array: pa.Array, t: Type) -> pa.Array:
    """n values of a nested type as n JSON texts."""
    return json_text.to_json(array, t, _leaves)


def from_json(texts: pa.Array, t: Type) -> pa.Array:
    """n JSON texts as n values of a nested type. Raises DataError where a text is no such value."""
    return json_text.from_json(texts, t, _leaf_array)


def _leaves(array: pa.Array, t: Type) -> list[Any]:
    encoded = plain.encode(write_spec(t, "TEXT"), array)
    if t.kind in FLOATS:
        return [repr(v) if v is not None and not math.isfinite(v) else v for v in encoded]
    return ["\\x" + v.hex() if isinstance(v, bytes) else v for v in encoded]


def _leaf_array(values: Sequence[Any], t: Type) -> pa.Array:
    spec = read_spec(t)
    column = plain.Filling(spec)
    for value in values:
        decoded = plain.decode(spec, _stored(value, t))
        if decoded is plain.UNFIT:
            raise ValueError(f"{value!r} is no {t}")
        column.append(decoded)
    return array_of(t, len(values), column.parts())


def _stored(value: Any, t: Type) -> Any:
    """A JSON value as the SQLite value that stands for it."""
    if isinstance(value, bool):
        return int(value) if t.kind == "bool" else plain.Text(b"?")
    if isinstance(value, str):
        if t.kind in FLOATS and value in ("nan", "inf", "-inf"):
            return float(value)
        if t.kind == "binary":
            return bytes.fromhex(value.removeprefix("\\x"))
        return plain.Text(value.encode())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"{value} is too large")
    if t.kind == "float64" and isinstance(value, int):
        return float(value)
    return value


def array_of(t: Type, rows: int, part: tuple[int, Any, Any, Any]) -> pa.Array:
    """A column of a batch as an Array in ``t.arrow`` (of texts where ``t`` is nested); buffers are not copied."""
    nulls, bits, offsets, data = part
    kind = pa.utf8() if t.kind in NESTED or kernel_kind(t) in ("text", "json") else t.arrow
    middle = [] if offsets is None else [pa.py_buffer(offsets)]
    buffers = [None if bits is None else pa.py_buffer(bits), *middle, pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, rows, buffers, nulls)
