"""Values taken from a table in a CSV or Parquet file: read once, held in memory, shared by all workers.

What a CSV file holds is text, to the letter: ``007`` stays ``007``, an empty field is NULL, an empty field in
quotes an empty text. A Parquet file's columns have the types that it says.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import canonical_array, conversion
from rowferry.convert.value_text import value_text, visible
from rowferry.errors import ConfigError, DataError
from rowferry.stages.expressions import unknown
from rowferry.stages.flow import OutColumn
from rowferry.stages.spec import Lookup
from rowferry.types import INTEGERS, Type, type_of_field

#: Kinds whose values are one only if they are written alike, once they are of one type.
_KEYS = (*INTEGERS, "text", "char", "enum", "bit", "varbit", "bool", "decimal", "date", "time", "timestamp",
         "timestamptz", "uuid", "binary")  # fmt: skip
_INTEGER_FORMS = {"date": pa.int32(), "time": pa.int64(), "timestamp": pa.int64(), "timestamptz": pa.int64()}


class LookupPlan:
    """One look-up table, keyed by the values of our columns."""

    def __init__(self, keys: tuple[int, ...], columns: Sequence[OutColumn], taken: Sequence[OutColumn],
                 values: Sequence[pa.Array], rows: dict[Any, int], spec: Lookup,
                 inputs: dict[str, str]) -> None:  # fmt: skip
        #: Our columns, by place, in the order of ``on``.
        self.keys = keys
        self.taken = tuple(taken)
        #: As ``flow.Stage.inputs``.
        self.inputs = inputs
        self._columns = tuple(columns)
        self._values = tuple(values)
        self._rows = rows
        self._spec = spec

    def apply(self, keys: Sequence[pa.Array | None], count: int) -> tuple[list[pa.Array], list[tuple[int, str, str]]]:
        """``count`` key values in, for each taken column an array out, and (row, column, reason) of rows set aside.

        Raises DataError at the first row that finds nothing, where that stops the job.
        """
        forms = [_keyed(array, c.type) for array, c in zip(keys, self._columns, strict=True)]
        found = self._found_one(forms[0]) if len(forms) == 1 else self._found_many(forms)
        refused: list[tuple[int, str, str]] = []
        if found.null_count and self._spec.missing != "null":
            missing = pc.indices_nonzero(pc.is_null(found)).to_pylist()
            if self._spec.missing == "refuse":
                raise self._error(keys, missing[0])
            reason = f"{self._spec.file} has no such key"
            refused = [(row, self._columns[0].name, reason) for row in missing]
        return [pc.take(values, found) for values in self._values], refused

    def _found_one(self, form: pa.Array) -> pa.Array:
        """Each different value of a batch is looked up once."""
        coded = form.dictionary_encode()
        rows = pa.array([self._rows.get((value,)) for value in coded.dictionary.to_pylist()], pa.int64())
        return pc.take(rows, coded.indices)

    def _found_many(self, forms: Sequence[pa.Array]) -> pa.Array:
        tuples = zip(*(form.to_pylist() for form in forms), strict=True)
        return pa.array([self._rows.get(key) for key in tuples], pa.int64())

    def _error(self, keys: Sequence[pa.Array | None], row: int) -> DataError:
        shown = [
            f"{c.name} = {visible(repr(value_text(array, row, c.type)))}"
            for array, c in zip(keys, self._columns, strict=True)
        ]
        return DataError(
            f"the look-up table {self._spec.file} has no such key",
            column=self._columns[0].name,
            value=f"{', '.join(shown)} in row {row} of its batch",
            hint="add it there, or give the look-up missing = null or quarantine",
        )


def _keyed(array: pa.Array | None, t: Type) -> pa.Array:
    """A key column as values that Python tells apart just as they differ."""
    form = _INTEGER_FORMS.get(t.kind)
    assert array is not None
    return array if form is None else array.view(form)


def load(spec: Lookup, columns: Sequence[OutColumn], folder: pathlib.Path) -> LookupPlan:
    """Reads a look-up table for columns of ours.

    Raises ConfigError: no such file or column, types that do not compare, a key that is there twice or is NULL.
    """
    if not spec.on or not spec.take:
        raise ConfigError("a look-up needs on (our column = its column) and take (new column = its column)")
    table, mark = _read(spec.file, folder, [*spec.on.values(), *spec.take.values()])
    names = [c.name for c in columns]
    keys: list[int] = []
    parts: list[list[Any]] = []
    for ours, theirs in spec.on.items():
        if ours not in names:
            raise unknown(ours, names)
        keys.append(names.index(ours))
        parts.append(_key_values(spec, columns[keys[-1]], theirs, *table[theirs]))
    rows: dict[Any, int] = {}
    for row, key in enumerate(zip(*parts, strict=True)):
        if key in rows:
            shown = ", ".join(
                f"{theirs} = {visible(repr(value_text(table[theirs][0], row, table[theirs][1])))}"
                for theirs in spec.on.values()
            )
            raise ConfigError(
                f"the look-up table {spec.file} has a key twice, in its rows {rows[key] + 1} and {row + 1}",
                value=shown,
                hint="each row of ours may find one row only",
            )
        rows[key] = row
    taken = [OutColumn(ours, table[theirs][1]) for ours, theirs in spec.take.items()]
    values = [table[theirs][0] for theirs in spec.take.values()]
    inputs = {f"look-up table {spec.file!r}": mark}
    return LookupPlan(tuple(keys), [columns[i] for i in keys], taken, values, rows, spec, inputs)


def _key_values(spec: Lookup, column: OutColumn, name: str, array: pa.Array, form: Type) -> list[Any]:
    """The file's key column in the type of ours."""
    if column.type.kind not in _KEYS:
        raise ConfigError(f"a column of type {column.type} is no key to look up", column=column.name)
    way = conversion(form, column.type)
    if isinstance(way, str):
        raise ConfigError(f"{spec.file} has the column {name!r} as {form}: {way}", column=column.name)
    try:
        converted = way.apply(array)[0]
    except DataError as error:
        where = (error.value or "").replace(" of its batch", " of the file, counted from 0")
        raise ConfigError(
            f"{spec.file}, column {name!r}: a value is no {column.type}, as {column.name!r} is", value=where
        ) from None
    if converted.null_count:
        row = pc.indices_nonzero(pc.is_null(converted))[0].as_py()
        raise ConfigError(f"{spec.file} has no value in the key column {name!r} of its row {row + 1}")
    values: list[Any] = _keyed(converted, column.type).to_pylist()
    return values


def _read(file: str, folder: pathlib.Path, wanted: Sequence[str]) -> tuple[dict[str, tuple[pa.Array, Type]], str]:
    """The columns that are wanted, as arrays with their canonical types, and what tells the file from another."""
    path = folder / file
    if not path.is_file():
        raise ConfigError(f"there is no look-up table {str(path)!r}")
    try:
        mark = _mark(path)
        table = _read_csv(path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else _read_parquet(path)
        if _mark(path) != mark:
            raise ValueError("it changes while it is read")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"the look-up table {str(path)!r} cannot be read: {' '.join(str(error).split())}") from None
    columns: dict[str, tuple[pa.Array, Type]] = {}
    for name in wanted:
        if table.schema.names.count(name) != 1:
            several = ConfigError(f"there are several columns {name!r}")
            wrong = several if name in table.schema.names else unknown(name, table.schema.names)
            wrong.message = f"the look-up table {file}: {wrong.message}"
            raise wrong
        field = table.schema.field(name)
        t = type_of_field(field)
        if t is None:
            raise ConfigError(f"the look-up table {file} has the column {name!r} of type {field.type}")
        try:
            columns[name] = (canonical_array(table.column(name), t), t)
        except DataError as error:
            raise ConfigError(f"the look-up table {file}, column {name!r}: {error}") from None
    return columns, mark


def _mark(path: pathlib.Path) -> str:
    """A file's size and the hash of all of it. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return f"{file.tell()}:{digest.hexdigest()}"


def _read_csv(path: pathlib.Path) -> pa.Table:
    from pyarrow import csv

    with csv.open_csv(path, parse_options=_csv_layout(path)) as reader:
        names = reader.schema.names
    return csv.read_csv(
        path,
        parse_options=_csv_layout(path),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _csv_layout(path: pathlib.Path) -> Any:
    from pyarrow import csv

    return csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)


def _read_parquet(path: pathlib.Path) -> pa.Table:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read()
