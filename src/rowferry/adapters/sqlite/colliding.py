"""Unique keys whose collation takes different texts for one (NOCASE, RTRIM), and which keys these are, asked of
SQLite itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.colliding import KEYS, SqlTrial
from rowferry.adapters.protocol import LooseKey
from rowferry.adapters.sqlite.loading import Load, insert_into, place_of
from rowferry.adapters.sqlite.wire import Session, quote
from rowferry.model import ColumnPlan, Table

_PLACE = f"temp.{KEYS}"
#: A partial index's condition is known from its text alone, which nobody here parses.
_PARTIAL, _EXPRESSION = "it is of some rows alone (WHERE)", "it is of an expression"


def loose_keys(session: Session, table: Table) -> list[LooseKey]:
    out = []
    for row in session.execute(f"PRAGMA main.index_list({quote(table.name.name)})"):
        index, unique, partial = str(row[1]), row[2], row[4]
        parts = [p for p in session.execute(f"PRAGMA main.index_xinfo({quote(index)})") if p[5]]
        loose = [p for p in parts if not _is_exact(p)]
        if not unique or not loose:
            continue
        names = tuple(str(p[2]) for p in parts if p[2] is not None)
        out.append(
            LooseKey(
                table=table.name,
                name=index,
                columns=names,
                how=", ".join("an expression" if p[2] is None else f"{p[2]} by {p[4].upper()}" for p in loose),
                exact=tuple(str(p[2]) for p in parts if _is_exact(p)),
                parts=tuple(f"{quote(p[2])} COLLATE {quote(p[4].upper())}" for p in parts if p[2] is not None),
                unasked=_EXPRESSION if len(names) < len(parts) else _PARTIAL if partial else None,
            )
        )
    return out


def _is_exact(part: Sequence[Any]) -> bool:
    return part[2] is not None and part[4].upper() == "BINARY"


class SqliteTrial(SqlTrial):
    """The protocol's KeyTrial, on a connection of its own, which it closes. The file is only read."""

    def __init__(self, session: Session, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> None:
        self._session = session
        spelled = " || ', ' || ".join(f"quote({quote(c.target)})" for c in columns)
        # The text has no collation of its own, whatever its columns have: it is compared by its bytes.
        super().__init__(key, _PLACE, place_of(table.name), f"({spelled})")
        self._columns = [c.column for c in columns]
        made = ", ".join(f"{quote(c.name)} {c.native}" for c in self._columns)
        session.execute(f"CREATE TEMP TABLE {KEYS} ({made})")
        self._insert = insert_into(table.name, self._columns, _PLACE)

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        # One transaction, of the temporary file alone: nobody else's lock is needed.
        self._session.execute("BEGIN")
        Load(self._session, self._insert, self._columns).write(batches)
        self._session.execute("COMMIT")

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._session.execute(sql)

    def close(self) -> None:
        self._session.close()
