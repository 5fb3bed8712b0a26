"""A transform's Python function: found, asked for its types on no rows, and held to them on every batch."""

from __future__ import annotations

import importlib
import operator
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.convert import Conversion, canonical_array, conversion
from rowferry.convert.value_text import value_text, visible
from rowferry.errors import ConfigError, DataError
from rowferry.stages.flow import OutColumn, Output
from rowferry.stages.frame import Frame
from rowferry.types import Type, arrow_field, from_arrow, type_of_field

_GIVES = "a RecordBatch, or a list of (table, RecordBatch)"
#: Characters of a function's own error that a message shows at most, and columns of a row.
_SHOWN_CHARACTERS = 300
_SHOWN_COLUMNS = 6


def load(path: str, folder: pathlib.Path) -> Callable[..., Any]:
    """The function that ``module:function`` names; the module may lie in ``folder``. Raises ConfigError."""
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"python = {path!r} is not of the form module:function")
    try:
        # Behind what is installed, so that a file of the folder takes no other module's place.
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's own module may fail in any way
        hint = f"it is looked for among the installed modules and in {folder.resolve()}"
        raise ConfigError(f"python = {path!r}: the module cannot be imported: {_said(error)}", hint=hint) from error
    try:
        found = operator.attrgetter(attribute)(module)
    except AttributeError:
        where = getattr(module, "__file__", None)
        raise ConfigError(f"python = {path!r}: {where or module_name} has no {attribute!r}") from None
    if not callable(found):
        raise ConfigError(f"python = {path!r} cannot be called: it is {type(found).__name__}")
    called: Callable[..., Any] = found
    return called


def _said(error: BaseException) -> str:
    return visible(f"{type(error).__name__}: {error}")[:_SHOWN_CHARACTERS]


class _Shape(msgspec.Struct, frozen=True):
    """What a function gives for one table."""

    schema: pa.Schema
    columns: tuple[OutColumn, ...]
    #: From the plain type of what it gives to the canonical type that its field says; None where they are one.
    ways: tuple[Conversion | None, ...]
    arrow: pa.Schema


class Call:
    """One table's function. Threads call it at the same time: it keeps no state, or guards it itself."""

    def __init__(
        self, function: Callable[..., Any], columns: Sequence[OutColumn], table: str, keeps_rows: bool
    ) -> None:
        self._function = function
        self._table = table
        self._keeps_rows = keeps_rows
        self._columns = tuple(columns)
        self._schema = pa.schema([arrow_field(c.name, c.type, nullable=c.nullable) for c in columns])
        self._name = getattr(function, "__qualname__", None) or type(function).__name__
        self._shapes: dict[str | None, _Shape] = {}
        self._single = False
        self.outputs = self._asked()

    def _asked(self) -> tuple[Output, ...]:
        """The outputs, as the function gives them for no rows. Raises ConfigError."""
        empty = self._schema.empty_table().to_batches() or [
            pa.RecordBatch.from_arrays([pa.array([], f.type) for f in self._schema], schema=self._schema)
        ]
        try:
            result = self._function(empty[0])
        except Exception as error:  # the user's own code may fail in any way
            hint = "it is called with no rows first, to learn its types"
            raise ConfigError(f"the function {self._name} fails on no rows: {_said(error)}", hint=hint) from error
        self._single = isinstance(result, pa.RecordBatch)
        try:
            given = self._tables(result)
        except DataError as error:
            raise ConfigError(error.message, hint=error.hint) from None
        # The table that is copied comes first, wherever the function names it.
        for name, batch in sorted(given.items(), key=lambda item: item[0] is not None):
            if batch.num_rows:
                raise ConfigError(f"the function {self._name} makes {batch.num_rows} rows of none")
            self._shapes[name] = self._shape(batch.schema)
        if not self._shapes:
            raise ConfigError(f"the function {self._name} gives no table for no rows, so its types are unknown")
        return tuple(Output(name, shape.columns) for name, shape in self._shapes.items())

    def _shape(self, schema: pa.Schema) -> _Shape:
        if not schema.names or len(set(schema.names)) < len(schema.names) or "" in schema.names:
            raise ConfigError(f"the function {self._name} gives columns without names of their own: {schema.names}")
        columns: list[OutColumn] = []
        ways: list[Conversion | None] = []
        for field in schema:
            plain, said = from_arrow(field.type), type_of_field(field)
            if plain is None or pa.types.is_null(field.type):
                hint = "give the array a type, such as pa.array([], pa.int64())"
                raise ConfigError(
                    f"the function {self._name} gives the type {field.type}", column=field.name, hint=hint
                )
            # A field that kept our metadata is of the type that it says, where its values are held to that.
            way = conversion(plain, said) if said is not None and said != plain else None
            to: Type = said if said is not None and isinstance(way, Conversion) else plain
            columns.append(OutColumn(field.name, to, field.nullable))
            ways.append(way if isinstance(way, Conversion) else None)
        arrow = pa.schema([pa.field(c.name, c.type.arrow) for c in columns])
        return _Shape(schema, tuple(columns), tuple(ways), arrow)

    def _tables(self, result: Any) -> dict[str | None, pa.RecordBatch]:
        """What the function gave, by table; None is the table that is copied. Raises DataError."""
        if isinstance(result, pa.RecordBatch):
            return {None: result}
        if not isinstance(result, (list, tuple)):
            raise DataError(f"the function {self._name} gives {type(result).__name__}, not {_GIVES}")
        given: dict[str | None, pa.RecordBatch] = {}
        for item in result:
            if not (
                isinstance(item, (list, tuple))
                and len(item) == 2
                and (item[0] is None or isinstance(item[0], str))
                and isinstance(item[1], pa.RecordBatch)
            ):
                raise DataError(f"the function {self._name} gives {type(item).__name__} in its list, not {_GIVES}")
            name = None if item[0] == self._table else item[0]
            if name in given:
                raise DataError(f"the function {self._name} gives the table {item[0]!r} twice")
            given[name] = item[1]
        return given

    def run(self, frame: Frame, arrays: Sequence[pa.Array | None]) -> None:
        """Puts what the function makes of the frame's rows into ``frame.passed``; raises DataError."""
        batch = pa.RecordBatch.from_arrays(list(arrays), schema=self._schema)
        if not batch.num_rows:
            return
        try:
            given = self._called(batch)
        except DataError as error:
            raise self._located(batch, error) from error.__cause__
        rows = sum(part.num_rows for part in given.values())
        frame.passed.filtered += max(0, batch.num_rows - rows)
        frame.passed.generated += max(0, rows - batch.num_rows)
        for index, (name, shape) in enumerate(self._shapes.items()):
            if name in given and given[name].num_rows:
                frame.passed.batches.append((index, self._canonical(given[name], shape)))

    def _called(self, batch: pa.RecordBatch) -> dict[str | None, pa.RecordBatch]:
        """What the function gives for a batch, of the shape that it has for no rows."""
        try:
            result = self._function(batch)
        except Exception as error:  # the user's own code may fail in any way
            raise DataError(f"the function {self._name} raises {_said(error)}") from error
        given = self._tables(result)
        for name, part in given.items():
            shape = self._shapes.get(name)
            if shape is None:
                there = ", ".join(repr(n or self._table) for n in self._shapes)
                raise DataError(
                    f"the function {self._name} gives the table {name or self._table!r}, on no rows only {there}",
                    hint="it has to give every table each time, if need be without rows",
                )
            self._check(part, shape)
        rows = sum(part.num_rows for part in given.values())
        if self._keeps_rows and rows != batch.num_rows:
            raise DataError(
                f"the function {self._name} makes {rows} rows of {batch.num_rows}",
                hint="say python_keeps_rows = false if it is meant to",
            )
        return given

    def _check(self, part: pa.RecordBatch, shape: _Shape) -> None:
        if part.schema.names != shape.schema.names:
            raise DataError(
                f"the function {self._name} gives the columns {', '.join(part.schema.names)}, "
                f"on no rows {', '.join(shape.schema.names)}"
            )
        for field, planned, array in zip(part.schema, shape.schema, part.columns, strict=True):
            if not field.type.equals(planned.type):
                raise DataError(
                    f"the function {self._name} gives {field.type}, on no rows {planned.type}",
                    column=field.name,
                    hint="give its arrays their types, such as pa.array(values, pa.int64())",
                )
            if not planned.nullable and array.null_count:
                raise DataError(f"the function {self._name} gives NULL where its schema has none", column=field.name)

    def _canonical(self, part: pa.RecordBatch, shape: _Shape) -> pa.RecordBatch:
        arrays = []
        for column, way, array in zip(shape.columns, shape.ways, part.columns, strict=True):
            try:
                plain = canonical_array(array, column.type if way is None else way.form)
                arrays.append(plain if way is None else way.apply(plain)[0])
            except DataError as error:
                raise error.at(column=column.name) from None
        return pa.RecordBatch.from_arrays(arrays, schema=shape.arrow)

    def _located(self, batch: pa.RecordBatch, error: DataError) -> DataError:
        """The error with the first row that brings it about, found by halves; without one where no single row does."""
        low, part, found = 0, batch, error
        while part.num_rows > 1:
            half = part.num_rows // 2
            first = self._failure(part.slice(0, half))
            if first is not None:
                part, found = part.slice(0, half), first
                continue
            second = self._failure(part.slice(half))
            if second is None:
                return error
            low, part, found = low + half, part.slice(half), second
        row = low
        shown = [
            f"{c.name} = {visible(repr(value_text(batch.column(i), row, c.type)))}"
            for i, c in enumerate(self._columns[:_SHOWN_COLUMNS])
        ]
        found.value = f"{', '.join(shown)} in row {row} of its batch"
        found.__cause__ = found.__cause__ or error.__cause__
        return found

    def _failure(self, batch: pa.RecordBatch) -> DataError | None:
        try:
            self._called(batch)
        except DataError as error:
            return error
        return None
