"""Lists, structs and maps as JSON text, both ways, for engines that have no such values of their own.

A struct is an object, a map an array of pairs. How a single value stands in JSON is its engine's own business:
it is given as ``leaves`` (n values of a plain type → n values that ``json`` writes, None for NULL) and as
``leaf_array`` (n values that ``json`` read → n values of a plain type; raises ValueError for one that is none).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from rowferry.errors import DataError
from rowferry.types import Type

Leaves = Callable[[pa.Array, Type], list[Any]]
LeafArray = Callable[[Sequence[Any], Type], pa.Array]


class _Null:
    """A NULL of the column itself (JSON's null is a NULL inside of a value)."""


_NULL = _Null()


def to_json(array: pa.Array, t: Type, leaves: Leaves) -> pa.Array:
    """n values of a nested type as n JSON texts."""
    values = _values(array, t, leaves)
    texts = [None if v is _NULL else json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in values]
    return pa.array(texts, pa.utf8())


def _values(array: pa.Array, t: Type, leaves: Leaves) -> list[Any]:
    """Python values that ``json`` writes; ``_NULL`` for NULL."""
    if t.kind == "list":
        assert t.element is not None
        return _sliced(array, [_plain(v) for v in _values(array.values, t.element, leaves)])
    if t.kind == "map":
        keys = _values(array.keys, t.fields[0].type, leaves)
        items = [_plain(v) for v in _values(array.items, t.fields[1].type, leaves)]
        return _sliced(array, [list(pair) for pair in zip(keys, items, strict=True)])
    if t.kind == "struct":
        names = [f.name for f in t.fields]
        parts = [[_plain(v) for v in _values(array.field(i), f.type, leaves)] for i, f in enumerate(t.fields)]
        valid = array.is_valid().to_pylist()
        rows = list(zip(*parts, strict=True)) if parts else [()] * len(array)
        return [dict(zip(names, row, strict=True)) if ok else _NULL for ok, row in zip(valid, rows, strict=True)]
    return [_NULL if v is None else v for v in leaves(array, t)]


def _plain(value: Any) -> Any:
    return None if value is _NULL else value


def _sliced(array: pa.Array, values: list[Any]) -> list[Any]:
    offsets = array.offsets.to_pylist()
    valid = array.is_valid().to_pylist()
    return [values[a:b] if ok else _NULL for a, b, ok in zip(offsets, offsets[1:], valid, strict=False)]


def from_json(texts: pa.Array, t: Type, leaf_array: LeafArray) -> pa.Array:
    """n JSON texts as n values of a nested type. Raises DataError where a text is no such value."""
    try:
        values = [None if text is None else json.loads(text, parse_constant=_refuse) for text in texts.to_pylist()]
        return _build(values, t, leaf_array)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException, ArithmeticError) as e:
        raise DataError(f"a text is not the JSON of {t}: {e}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _build(values: Sequence[Any], t: Type, leaf_array: LeafArray) -> pa.Array:
    if t.kind == "list":
        assert t.element is not None
        offsets, flat = _flattened(values)
        return pa.ListArray.from_arrays(offsets, _build(flat, t.element, leaf_array), type=t.arrow)
    if t.kind == "map":
        offsets, flat = _flattened(values)
        keys, items = ([pair[i] for pair in flat] for i in (0, 1))
        parts = (_build(part, f.type, leaf_array) for part, f in zip((keys, items), t.fields, strict=True))
        return pa.MapArray.from_arrays(offsets, *parts, type=t.arrow)
    if t.kind == "struct":
        arrays = [_build([None if v is None else v[f.name] for v in values], f.type, leaf_array) for f in t.fields]
        mask = pa.array([v is None for v in values], pa.bool_())
        return pa.StructArray.from_arrays(arrays, fields=list(t.arrow), mask=mask)
    return leaf_array(values, t)


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
