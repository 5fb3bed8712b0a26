"""Lists, structs and maps as JSON text, both ways: SQLite has no such values of its own.

A struct is an object, a map an array of pairs. What JSON has no number for (decimals, times, uuids,
bytes, NaN and infinities) is the text that SQLite would hold it as; bytes are ``\\x…``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.sqlite import plain
from rowferry.adapters.sqlite.types import NESTED, kernel_kind, read_spec, write_spec
from rowferry.errors import DataError
from rowferry.types import FLOATS, Type


def to_json(array: pa.Array, t: Type) -> pa.Array:
    """n values of a nested type as n JSON texts."""
    texts = [
        None if v is _NULL else json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in _values(array, t)
    ]
    return pa.array(texts, pa.utf8())


def from_json(texts: pa.Array, t: Type) -> pa.Array:
    """n JSON texts as n values of a nested type. Raises DataError where a text is no such value."""
    try:
        values = [None if text is None else json.loads(text, parse_constant=_refuse) for text in texts.to_pylist()]
        return _build(values, t)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException) as error:
        raise DataError(f"a text is not the JSON of {t}: {error}") from None


class _Null:
    """A NULL of the column itself (JSON's null is a NULL inside of a value)."""


_NULL = _Null()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _values(array: pa.Array, t: Type) -> list[Any]:
    """Python values that ``json`` writes; ``_NULL`` for NULL."""
    if t.kind == "list":
        assert t.element is not None
        return _sliced(array, [_plain(v) for v in _values(array.values, t.element)])
    if t.kind == "map":
        keys = _values(array.keys, t.fields[0].type)
        items = [_plain(v) for v in _values(array.items, t.fields[1].type)]
        return _sliced(array, [list(pair) for pair in zip(keys, items, strict=True)])
    if t.kind == "struct":
        names = [f.name for f in t.fields]
        parts = [[_plain(v) for v in _values(array.field(i), f.type)] for i, f in enumerate(t.fields)]
        valid = array.is_valid().to_pylist()
        rows = list(zip(*parts, strict=True)) if parts else [()] * len(array)
        return [dict(zip(names, row, strict=True)) if ok else _NULL for ok, row in zip(valid, rows, strict=True)]
    return [_NULL if v is None else v for v in _leaves(array, t)]


def _plain(value: Any) -> Any:
    return None if value is _NULL else value


def _sliced(array: pa.Array, values: list[Any]) -> list[Any]:
    offsets = array.offsets.to_pylist()
    valid = array.is_valid().to_pylist()
    return [values[a:b] if ok else _NULL for a, b, ok in zip(offsets, offsets[1:], valid, strict=False)]


def _leaves(array: pa.Array, t: Type) -> list[Any]:
    encoded = plain.encode(write_spec(t, "TEXT"), array)
    if t.kind in FLOATS:
        return [repr(v) if v is not None and not math.isfinite(v) else v for v in encoded]
    return ["\\x" + v.hex() if isinstance(v, bytes) else v for v in encoded]


def _build(values: Sequence[Any], t: Type) -> pa.Array:
    if t.kind == "list":
        assert t.element is not None
        offsets, flat = _flattened(values)
        return pa.ListArray.from_arrays(offsets, _build(flat, t.element), type=t.arrow)
    if t.kind == "map":
        offsets, flat = _flattened(values)
        keys, items = ([pair[i] for pair in flat] for i in (0, 1))
        parts = (_build(part, f.type) for part, f in zip((keys, items), t.fields, strict=True))
        return pa.MapArray.from_arrays(offsets, *parts, type=t.arrow)
    if t.kind == "struct":
        arrays = [_build([None if v is None else v[f.name] for v in values], f.type) for f in t.fields]
        mask = pa.array([v is None for v in values], pa.bool_())
        return pa.StructArray.from_arrays(arrays, fields=list(t.arrow), mask=mask)
    return _leaf_array(values, t)


def _flattened(values: Sequence[Any]) -> tuple[pa.Array, list[Any]]:
    """Offsets (NULL where the value is) and the elements one after the other."""
    offsets: list[int | None] = []
    flat: list[Any] = []
    for value in values:
        offsets.append(None if value is None else len(flat))
        if value is not None:
            if not isinstance(value, list):
                raise ValueError(f"{type(value).__name__} where an array should be")
            flat.extend(value)
    return pa.array([*offsets, len(flat)], pa.int32()), flat


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
