"""Batches into a SQLite table: the statement, and the values as the write kernel takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from rowferry.adapters.sqlite import nested
from rowferry.adapters.sqlite.types import NESTED, write_spec
from rowferry.adapters.sqlite.wire import Session, SqliteFailure, UnfitValue, error_of, quote
from rowferry.errors import ConfigError, DataError, TargetError
from rowferry.model import Column, TableName


def place_of(name: TableName) -> str:
    if name.schema not in (None, "main"):
        raise ConfigError("SQLite has no schemas", table=str(name), hint="give the table a name with --table")
    return f"main.{quote(name.name)}"


def names_of(columns: Iterable[str]) -> str:
    return ", ".join(map(quote, columns))


def insert_into(name: TableName, columns: Sequence[Column], place: str | None = None) -> str:
    """OR ABORT: a constraint's own ON CONFLICT IGNORE or REPLACE would lose rows without a word."""
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR ABORT INTO {place or place_of(name)} ({names_of(c.name for c in columns)}) VALUES ({marks})"


class Load:
    """One statement with a parameter for each column, that takes batches in the columns' canonical types."""

    def __init__(self, session: Session, sql: str, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._writer = session.writer(sql, [write_spec(c.type, c.native) for c in columns])

    def write(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Returns how many rows SQLite says it has changed."""
        rows = 0
        try:
            for batch in batches:
                rows += self._writer.write(self._prepared(batch))
        except UnfitValue as unfit:
            column = self._columns[unfit.column]
            raise DataError(
                f"SQLite would store this text as a number in a column declared {column.native or 'so'}",
                column=column.name,
                value=unfit.shown,
                hint="declare the column TEXT",
            ) from None
        except SqliteFailure as failure:
            raise error_of(failure, TargetError) from None
        finally:
            self._writer.close()
        return rows

    def _prepared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with what is nested as JSON texts."""
        arrays = []
        for place, column in enumerate(self._columns):
            array = batch.column(place)
            if not array.type.equals(column.type.arrow):
                raise TargetError(f"a batch carries {array.type} for {column.type}", column=column.name)
            arrays.append(nested.to_json(array, column.type) if column.type.kind in NESTED else array)
        return pa.RecordBatch.from_arrays(arrays, names=[str(i) for i in range(len(arrays))])
