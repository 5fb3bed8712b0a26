"""Rows that cannot be carried, as they are kept: who they were, why they stayed behind, and all of their values.

A row is kept as JSON in the forms that it was read in (``convert.value_json``), from which it can be made again.
Everything is ASCII, so that any target's text column can hold it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.convert.value_json import from_json, to_json
from rowferry.errors import DataError, RowferryError
from rowferry.types import Type

#: Name and type of each row of a source's table: (column, form) pairs.
Forms = Sequence[tuple[str, Type]]

#: Places in a batch or a chunk, which say nothing of a row that was tried alone.
_IN_BATCH = re.compile(r" in row \d+ of its batch$")
_IN_CHUNK = re.compile(r", row [\d,]+ of this chunk| at row \d+$")
#: What our own messages have that not every database's encoding has.
_PLAIN = str.maketrans({"−": "-", "…": "...", "→": "->", "∞": "infinity", "’": "'", "“": '"', "”": '"'})
REASON_CHARACTERS_MAX = 1000

#: The table's columns; ``id`` is its key. The names need no quotes in any engine.
_LONG = Type("text")
COLUMNS: tuple[tuple[str, Type, bool], ...] = (
    ("id", Type("text", length=120), False),
    ("chunk_id", Type("text", length=100), False),
    ("job", Type("text", length=100), False),
    ("table_index", Type("int32"), False),
    ("source_table", _LONG, False),
    ("target_table", _LONG, False),
    ("chunk", Type("int32"), False),
    ("stage", Type("text", length=20), False),
    ("row_key", _LONG, True),
    ("column_name", _LONG, True),
    ("reason", _LONG, False),
    ("row_data", _LONG, False),
)

#: What a row had gone through when it was set aside. As the source gave it, before the table's transform:
READ = "read"
#: after the transform (or without one), before its values were converted to the target's types:
PASSED = "passed"
#: in the target's types, under the target's names: the target refused it.
CONVERTED = "converted"


#: What a value that the source could not read is kept under: ``{"unread": "0000-00-00"}``.
UNREAD = "unread"


class Kept(msgspec.Struct, frozen=True):
    """One row of the quarantine. ``row_key`` is the JSON of its key columns (None: it has none), ``row_data`` that of
    all its columns."""

    id: str
    chunk_id: str
    job: str
    table_index: int
    source_table: str
    target_table: str
    chunk: int
    stage: str
    row_key: str | None
    column_name: str | None
    reason: str
    row_data: str


class Set(msgspec.Struct, frozen=True):
    """A row that was set aside, before it is known where it will be kept: the texts alone, not the batch."""

    stage: str
    row_key: str | None
    column: str | None
    reason: str
    row_data: str


def set_aside(
    batch: pa.RecordBatch,
    index: int,
    forms: Forms,
    key: Sequence[str],
    stage: str,
    column: str | None,
    reason: str,
    texts: Mapping[str, str] | None = None,
) -> Set:
    """Row ``index`` of a batch whose columns are in ``forms``. key: names among them. texts: what stands in columns
    whose values are none of their forms: kept under ``UNREAD``, so that it is never taken for a value."""
    values = {name: to_json(batch.column(i), index, form) for i, (name, form) in enumerate(forms)}
    values.update({name: {UNREAD: text} for name, text in (texts or {}).items()})
    row_key = json.dumps({name: values[name] for name in key if name in values}) if key else None
    return Set(stage, row_key, column, plain(reason), json.dumps(values))


def plain(text: str) -> str:
    """A message in ASCII, without control characters and of bounded length."""
    ascii_text = text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in ascii_text)[:REASON_CHARACTERS_MAX]


def reason_of(error: RowferryError) -> str:
    """Why a row was refused, from the error that it caused alone."""
    reason = _IN_CHUNK.sub("", error.message)
    if error.value is not None:
        reason += f" (value: {_IN_BATCH.sub('', error.value)})"
    return f"{reason} [{error.code}]" if error.code else reason


def batch_of(rows: Sequence[Kept]) -> pa.RecordBatch:
    """n rows of the quarantine in the types of ``COLUMNS``."""
    arrays = [pa.array([getattr(row, name) for row in rows], t.arrow) for name, t, _ in COLUMNS]
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _, _ in COLUMNS])


def kept_in(batch: pa.RecordBatch) -> list[Kept]:
    """The inverse of :func:`batch_of`."""
    return [msgspec.convert(row, Kept) for row in batch.to_pylist()]


def rows_of(rows: Sequence[Kept], forms: Forms) -> pa.RecordBatch:
    """n kept rows made again: the columns of ``forms``, in their Arrow types. Raises DataError where one is damaged."""
    try:
        decoded: list[dict[str, Any]] = [json.loads(row.row_data) for row in rows]
        for name, form in forms:
            if any(isinstance(row[name], dict) and UNREAD in row[name] for row in decoded):
                raise DataError(f"it is no {form} yet, but what stands in the source", column=name)
        arrays = [from_json([row[name] for row in decoded], form) for name, form in forms]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"a row of the quarantine cannot be read: {' '.join(str(error).split())[:200]}") from None
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in forms])


def those_that_are_made(
    rows: Sequence[Kept], forms: Forms, on_damaged: Callable[[Kept, DataError], None]
) -> Sequence[Kept]:
    """The kept rows that :func:`rows_of` makes again; ``on_damaged`` is called with each other and its error."""
    with contextlib.suppress(DataError):
        rows_of(rows, forms)
        return rows
    whole = []
    for row in rows:
        try:
            rows_of([row], forms)
            whole.append(row)
        except DataError as error:
            on_damaged(row, error)
    return whole


def sift(
    batch: pa.RecordBatch, convert: Callable[[pa.RecordBatch], Any], on_unfit: Callable[[int, DataError], None]
) -> pa.RecordBatch:
    """The rows of a batch that ``convert`` takes; ``on_unfit`` is called with the index and the error of each other,
    in their order, and may raise to end it.

    The batch is halved with the very same conversion until single rows are left: of n rows k unfit ones cost at most
    2 k log2 n conversions of ever smaller slices, so that no rule is written twice.
    """
    unfit: list[int] = []

    def found(index: int, error: DataError) -> None:
        unfit.append(index)
        on_unfit(index, error)

    _halve(batch, 0, convert, found)
    if not unfit:
        return batch
    mask = [True] * batch.num_rows
    for index in unfit:
        mask[index] = False
    return batch.filter(pa.array(mask, pa.bool_()))


def _halve(
    rows: pa.RecordBatch, start: int, convert: Callable[[pa.RecordBatch], Any], found: Callable[[int, DataError], Any]
) -> None:
    try:
        convert(rows)
    except DataError as error:
        if error.transient:
            raise
        if rows.num_rows == 1:
            found(start, error)
            return
        half = rows.num_rows // 2
        _halve(rows.slice(0, half), start, convert, found)
        _halve(rows.slice(half), start + half, convert, found)
