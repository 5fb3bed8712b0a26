"""Lists, structs and maps: converted element by element; a value fits where all its elements do."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.step import Function, Step
from rowferry.types import Type

#: Converts the elements' types: the conversion itself, handed in so that the modules stay in one order.
StepOf = Callable[[Type, Type], "Step | str"]


def nested_step(form: Type, to: Type, step_of: StepOf) -> Step | str | None:
    """Both types are lists, structs or maps; None where they are not of one shape."""
    if form.kind != to.kind:
        return None
    if form.kind == "list":
        assert form.element is not None and to.element is not None
        inner = step_of(form.element, to.element)
        if isinstance(inner, str):
            return f"its elements: {inner}"
        return _wrapped(inner, lambda function: _list_function(function, to))
    names, to_names = [f.name for f in form.fields], [f.name for f in to.fields]
    if form.kind == "struct" and names != to_names:
        return f"its fields are {', '.join(names)}, not {', '.join(to_names)}"
    steps: list[Step] = []
    for field, to_field in zip(form.fields, to.fields, strict=True):
        inner = step_of(field.type, to_field.type)
        if isinstance(inner, str):
            return f"its field {field.name}: {inner}"
        steps.append(inner)
    lossless = all(step.lossless for step in steps)
    if all(step.function is None for step in steps):
        return Step(None, lossless)
    make = _struct_function if form.kind == "struct" else _map_function
    return Step(make(steps, to), lossless)


def _wrapped(inner: Step, wrap: Callable[[Function], Function]) -> Step:
    return Step(None, inner.lossless) if inner.function is None else Step(wrap(inner.function), inner.lossless)


def list_parts(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The offsets of a list or map array, beginning with 0, and the elements that they count."""
    offsets = array.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    if first:
        offsets = pc.subtract(offsets, pa.scalar(first, offsets.type))
    values = array.values if pa.types.is_list(array.type) else _entries(array)
    return offsets, values.slice(first, last - first)


def _entries(array: pa.Array) -> pa.Array:
    """The (key, value) structs of a map array, not yet cut to its slice."""
    fields = [pa.field("key", array.type.key_type, False), pa.field("value", array.type.item_type)]
    return pa.StructArray.from_arrays([array.keys, array.items], fields=fields)


def parents_of(mask: pa.Array, offsets: pa.Array, array: pa.Array) -> pa.Array | None:
    """Rows of ``array`` (not NULL) that hold an element of the mask; None where there is none."""
    lists = pa.ListArray.from_arrays(offsets, pc.fill_null(mask, False))
    touched = bytearray(len(array))
    hits = pc.filter(pc.list_parent_indices(lists), pc.list_flatten(lists))
    for row in pc.unique(hits).to_pylist():
        touched[row] = 1
    rows = pa.Array.from_buffers(pa.int8(), len(array), [None, pa.py_buffer(bytes(touched))]).cast(pa.bool_())
    rows = pc.and_(rows, pc.is_valid(array))
    return rows if pc.any(rows).as_py() else None


def without(array: pa.Array, rows: pa.Array) -> pa.Array:
    """The array with NULL in the rows of the mask."""
    return pc.if_else(pc.fill_null(rows, False), pa.scalar(None, array.type), array)


def _hopeless(unfit: pa.Array, result: pa.Array) -> pa.Array:
    """Values that do not fit and have no nearest value."""
    return pc.and_(pc.fill_null(unfit, False), pc.is_null(result))


def _list_function(inner: Function, to: Type) -> Function:
    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        if not len(array):
            return pa.array([], to.arrow), None
        offsets, values = list_parts(array)
        converted, unfit = inner(values)
        mask = pc.is_null(array) if array.null_count else None
        result = pa.ListArray.from_arrays(offsets, converted, type=to.arrow, mask=mask)
        if unfit is None:
            return result, None
        rows = parents_of(unfit, offsets, array)
        lost = parents_of(_hopeless(unfit, converted), offsets, array)
        return (result if lost is None else without(result, lost)), rows

    return run


def _struct_function(steps: list[Step], to: Type) -> Function:
    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        children: list[pa.Array] = []
        rows: pa.Array | None = None
        lost: pa.Array | None = None
        valid = pc.is_valid(array)
        for index, step in enumerate(steps):
            child, unfit = array.field(index), None
            if step.function is not None:
                child, unfit = step.function(child)
            children.append(child)
            if unfit is not None:
                unfit = pc.and_(pc.fill_null(unfit, False), valid)
                rows = unfit if rows is None else pc.or_(rows, unfit)
                hopeless = pc.and_(_hopeless(unfit, child), valid)
                lost = hopeless if lost is None else pc.or_(lost, hopeless)
        mask = pc.is_null(array) if array.null_count else None
        result = pa.StructArray.from_arrays(children, fields=list(to.arrow), mask=mask)
        if rows is None or not pc.any(rows).as_py():
            return result, None
        return (without(result, lost) if pc.any(lost).as_py() else result), rows

    return run


def _map_function(steps: list[Step], to: Type) -> Function:
    entries = Type("struct", fields=to.fields)
    convert = _struct_function(steps, entries)

    def run(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        if not len(array):
            return pa.array([], to.arrow), None
        offsets, values = list_parts(array)
        converted, unfit = convert(values)
        if unfit is not None:
            rows = parents_of(unfit, offsets, array)
            if rows is not None:
                # A key that was clamped could meet another one: nothing is near to such a map.
                kept = pc.if_else(rows, pa.scalar(None, array.type), array)
                result, _ = run(kept)
                return result, rows
        keys, items = converted.field(0), converted.field(1)
        result = pa.MapArray.from_arrays(offsets, keys, items, type=to.arrow)
        return (without(result, pc.is_null(array)) if array.null_count else result), None

    return run
