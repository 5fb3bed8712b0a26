"""Unique keys that a collation or a prefix makes loose, and which keys they take for one, asked of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.colliding import KEYS, SqlTrial
from rowferry.adapters.mysql import layout
from rowferry.adapters.mysql.declared import BLOBS, SPATIAL, parse
from rowferry.adapters.mysql.loading import Loader
from rowferry.adapters.mysql.quoting import qualified, quote
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import Block, LooseKey
from rowferry.model import Column, ColumnPlan, Table, TableName

_PARTS = """
SELECT index_name, column_name, sub_part FROM information_schema.statistics
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND non_unique = 0
ORDER BY index_name, seq_in_index
"""
_BYTES = frozenset(("binary", "varbinary", "bit", *BLOBS, *SPATIAL))


def loose_keys(session: MysqlSession, table: Table) -> list[LooseKey]:
    found: dict[str, list[tuple[str | None, int | None]]] = {}
    for index, column, length in session.execute(_PARTS, (table.name.schema, table.name.name)):
        found.setdefault(str(index), []).append((column, None if length is None else int(length)))
    keys = (_key(table, index, parts) for index, parts in found.items())
    return [key for key in keys if key is not None]


def _key(table: Table, index: str, parts: Sequence[tuple[str | None, int | None]]) -> LooseKey | None:
    """The key, if it is loose."""
    names = tuple(name for name, _ in parts if name is not None)
    how, exact, sql = [], [], []
    for name, length in parts:
        column = None if name is None else table.column(name)
        said = "an expression" if column is None else _comparison(column, length)
        if said is not None:
            how.append(said)
        elif name is not None:
            exact.append(name)
        if name is not None:
            sql.append(quote(name) if length is None else f"LEFT({quote(name)}, {length})")
            sql[-1] += _collated(column)
    if not how:
        return None
    unasked = "it is of an expression" if len(names) < len(parts) else None
    return LooseKey(table.name, index, names, ", ".join(how), tuple(exact), tuple(sql), unasked=unasked)


def _comparison(column: Column, length: int | None) -> str | None:
    """How the column is compared, where that is not by its whole value."""
    if length is not None:
        by = f" by {column.collation}" if column.collation is not None else ""
        return f"{column.name}'s first {length:,} characters{by}"
    if column.collation is not None:
        return f"{column.name} by {column.collation}"
    return f"{column.name} as {column.native}" if column.type.kind == "opaque" else None


def _collated(column: Column | None) -> str:
    """The column's collation, said outright: two databases that say the same compare alike."""
    declared = None if column is None else parse(column.native)
    return "" if declared is None or declared.collation is None else f" COLLATE {declared.collation}"


class MysqlTrial(SqlTrial):
    """The protocol's KeyTrial, in a session of its own, which it closes."""

    #: The groups are sorted: a temporary table of them took four times as long.
    hint = "SQL_BIG_RESULT "

    def __init__(self, session: MysqlSession, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> None:
        self._session = session
        way = layout.layout_of(session, table.name, columns)
        spelled = ", ', ', ".join(_spelled(c, f) for c, f in zip(columns, way.fields, strict=True))
        # Padded or not: each text ends in its quote.
        super().__init__(key, quote(KEYS), qualified(table.name), f"CONCAT({spelled}) COLLATE utf8mb4_bin")
        made = ", ".join(f"{quote(c.target)} {f.native} NULL" for c, f in zip(columns, way.fields, strict=True))
        session.query(f"DROP TEMPORARY TABLE IF EXISTS {quote(KEYS)}")
        session.query(f"CREATE TEMPORARY TABLE {quote(KEYS)} ({made}) ENGINE=InnoDB")
        self._way = way.into(TableName(None, KEYS))

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        # Nobody waits for its COMMIT, and a savepoint needs a transaction.
        self._session.begin()
        Loader(self._session, self._way).load(Block(batch) for batch in batches)
        self._session.commit()

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._session.query(sql)

    def close(self) -> None:
        self._session.close()


def _spelled(column: ColumnPlan, field: layout.Field) -> str:
    """SQL of a column's value as a literal."""
    if field.declared.name in _BYTES:
        return f"CONCAT('x', QUOTE(HEX({quote(column.target)})))"
    return f"QUOTE(CONVERT({quote(column.target)} USING utf8mb4))"
