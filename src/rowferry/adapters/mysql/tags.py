"""``rowferry_columns``: what MySQL's own types do not tell of the columns that rowferry made.

A timestamptz stands in a DATETIME, a bool in a TINYINT, PostgreSQL's ``inet`` in a LONGTEXT: the canonical type
is kept here. A tag counts only while the column still has the type under which it was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from rowferry.adapters.mysql.quoting import quote
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import LedgerError
from rowferry.model import TableName
from rowferry.types import Type, dump

TAGS = "rowferry_columns"
_THERE = "SELECT 1 FROM information_schema.tables WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?"
_MADE = """
CREATE TABLE IF NOT EXISTS {table} (
  table_name varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  column_name varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  native longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  type longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (table_name, column_name)
) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
"""


class Tag(msgspec.Struct, frozen=True):
    """native: the column's MySQL type when it was made. type: the canonical type of what stands in it."""

    native: str
    type: Type


def _table(name: TableName) -> str:
    """The tags stand in the database of the tables that they are of."""
    return quote(TAGS) if name.schema is None else f"{quote(name.schema)}.{quote(TAGS)}"


def _is_there(session: MysqlSession, name: TableName) -> bool:
    return bool(session.execute(_THERE, (name.schema, TAGS)))


def read(session: MysqlSession, name: TableName) -> dict[str, Tag]:
    """The tag of each column that has one. Raises LedgerError where they cannot be read."""
    if not _is_there(session, name):
        return {}
    rows = session.execute(f"SELECT column_name, native, type FROM {_table(name)} WHERE table_name = ?", (name.name,))
    tags = {}
    try:
        for column, native, text in rows:
            tags[str(column)] = Tag(str(native), msgspec.json.decode(text, type=Type))
    except msgspec.MsgspecError as error:
        raise LedgerError(f"{TAGS} cannot be read: {error}", table=str(name), hint=f"drop {TAGS}") from None
    return tags


def write(session: MysqlSession, name: TableName, tags: Mapping[str, Tag]) -> None:
    """Replaces the tags of a table. Makes the table of tags, which commits what is open."""
    if not _is_there(session, name):
        if not tags:
            return
        session.query(_MADE.format(table=_table(name)))
    forget(session, name)
    for column, tag in tags.items():
        kept = msgspec.json.encode(dump(tag.type)).decode()
        session.run(f"INSERT INTO {_table(name)} VALUES (?, ?, ?, ?)", (name.name, column, tag.native, kept))


def forget(session: MysqlSession, name: TableName) -> None:
    if _is_there(session, name):
        session.run(f"DELETE FROM {_table(name)} WHERE table_name = ?", (name.name,))


def move(session: MysqlSession, old: TableName, new: TableName) -> None:
    """Within one database, as a swap is."""
    if _is_there(session, old):
        forget(session, new)
        session.run(f"UPDATE {_table(old)} SET table_name = ? WHERE table_name = ?", (new.name, old.name))


def same_native(a: str, b: str) -> bool:
    """Whether two spellings are one type: display widths of integers differ between servers."""
    return _plain(a) == _plain(b)


def _plain(native: str) -> str:
    text = re.sub(r"^((?:tiny|small|medium|big)?int)\(\d+\)(?!.*zerofill)", r"\1", native)
    return (
        "year"
        if text == "year(4)"
        else text.replace("CHARACTER SET utf8 COLLATE utf8_", "CHARACTER SET utf8mb3 COLLATE utf8mb3_")
    )
