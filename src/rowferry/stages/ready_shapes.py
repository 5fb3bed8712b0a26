"""What a ready-made rule is made of, and what its kinds share: masks, types, counting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.errors import ConfigError
from rowferry.stages.flow import OutColumn
from rowferry.stages.spec import Rule
from rowferry.types import Type

#: Kinds that are free text: what else is carried as text (numeric, bit, inet …) has a form of its own.
FREE_TEXTS = ("text", "char", "opaque")


class Worked(msgspec.Struct):
    """n values after a rule. unfit: row → why it cannot be carried; there ``array`` has the nearest value or NULL."""

    array: pa.Array
    touched: int = 0
    unfit: dict[int, str] = msgspec.field(default_factory=dict)


class Action(msgspec.Struct, frozen=True):
    """One column's rule: the type it gives and the function from n values to n values.

    clamps: where a value is unfit there is a nearest one; else there is NULL.
    makes_null: a value may become NULL by the rule itself.
    inputs: as ``flow.Stage.inputs``.
    """

    type: Type
    run: Callable[[pa.Array], Worked]
    clamps: bool = False
    makes_null: bool = False
    inputs: dict[str, str] = {}


class Made(msgspec.Struct, frozen=True):
    """A rule over several columns at once: the columns it adds and the function that makes them."""

    columns: tuple[OutColumn, ...]
    #: rows → one Worked for each of ``columns``, and the rows that gave none (with the reason).
    run: Callable[[pa.RecordBatch], tuple[list[Worked], dict[int, str]]]


#: (rule, one matched column, table, length of the target's column) → Action.
ColumnMaker = Callable[[Rule, OutColumn, str, int | None], Action]
#: (rule, the matched columns, all columns, table) → Made.
TableMaker = Callable[[Rule, Sequence[OutColumn], Sequence[OutColumn], str], Made]


def wrong(message: str, column: OutColumn | None, table: str, **more: Any) -> ConfigError:
    return ConfigError(message, table=table, column=None if column is None else column.name, **more)


def free_text(rule: Rule, column: OutColumn, table: str) -> None:
    """Raises ConfigError where the column is no text."""
    if column.type.kind not in FREE_TEXTS:
        raise wrong(
            f"the rule {rule.do} is for text, and this is {column.type}",
            column,
            table,
            hint="name the text columns alone, or give this one the policy text",
        )


def changed(before: pa.Array, after: pa.Array) -> int:
    """How many values are other ones; NULL against NULL is none."""
    if before is after or before.equals(after):
        return 0
    differ = pc.fill_null(pc.not_equal(before, after), False)
    count: int = (pc.sum(differ).as_py() or 0) + abs(after.null_count - before.null_count)
    return count


def rows_of(mask: pa.Array) -> list[int]:
    """The rows where a mask is true."""
    return [int(row) for row in pc.indices_nonzero(mask).to_pylist()]


def replaced(array: pa.Array, mask: pa.Array, values: pa.Array) -> pa.Array:
    """The array with ``values``, one for each row where the mask (without NULLs) is true, in their places."""
    result = pc.replace_with_mask(array, mask, values)
    return result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result


def by_value(array: pa.Array, mask: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """The array with the function's texts in the rows of the mask: for the few that no kernel can do."""
    mask = pc.fill_null(mask, False)
    if not pc.any(mask).as_py():
        return array
    texts = [function(text) for text in array.filter(mask).to_pylist()]
    return replaced(array, mask, pa.array(texts, pa.utf8()))


def bounded(type_: Type, run: Callable[[pa.Array], Worked]) -> Callable[[pa.Array], Worked]:
    """The function, for a type whose length its results might exceed: those are unfit, and cut to it.

    A char's padding is no part of its value, so spaces that a rule left at its end go.
    """

    def bound(array: pa.Array) -> Worked:
        worked = run(array)
        result = worked.array
        if type_.kind == "char":
            result = pc.utf8_rtrim(result, characters=" ")
        if type_.length is not None:
            long = pc.fill_null(pc.greater(pc.utf8_length(result), type_.length), False)
            if pc.any(long).as_py():
                for row in rows_of(long):
                    worked.unfit[row] = f"would have {len(result[row].as_py())} characters and does not fit {type_}"
                result = pc.utf8_slice_codeunits(result, 0, type_.length)
        worked.array = result
        return worked

    return bound
