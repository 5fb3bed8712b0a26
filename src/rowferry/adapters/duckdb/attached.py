"""What a table has beside its columns, for the table that takes its place.

DuckDB adds no constraint but a primary key to a table that stands, so that the others are declared when the new
table is made; indexes, triggers and comments are made again, by DuckDB's own text, in the swap. A foreign key does
not follow its parent through a rename (2.0: "Table with name … does not exist" at the next insert).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rowferry.adapters.duckdb.catalog import qualified, schema_of
from rowferry.adapters.duckdb.wire import Session
from rowferry.convert.duckdb_form import quote
from rowferry.model import Attachment, Table, TableName

#: Made with the table itself.
DECLARED = ("unique constraint", "check constraint", "foreign key")
_KINDS = {"UNIQUE": DECLARED[0], "CHECK": DECLARED[1], "FOREIGN KEY": DECLARED[2]}
_HERE = "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"


def attachments(session: Session, table: Table, together: Collection[TableName]) -> list[Attachment]:
    """The protocol's Target.attachments."""
    place = (schema_of(table.name), table.name.name)
    have = _Folded(c.name.lower() for c in table.columns)
    out = []
    for kind, text, columns, name, parent in session.execute(
        "SELECT constraint_type, constraint_text, constraint_column_names, constraint_name, referenced_table "
        f"FROM duckdb_constraints() {_HERE} ORDER BY constraint_index",
        place,
    ):
        if kind in _KINDS:
            problem = None
            # A foreign key stays within its schema.
            if kind == "FOREIGN KEY" and TableName(table.name.schema, str(parent)) in {*together, table.name}:
                problem = f"{str(parent)!r} is replaced too, and in DuckDB foreign keys do not follow a renamed table"
            found = Attachment(_KINDS[kind], str(name), str(text), problem=problem)
            out.append(found.of_columns(list(dict.fromkeys(columns)), have))
    return [*out, *late(session, table)]


def late(session: Session, table: Table) -> list[Attachment]:
    """What is made again in the swap: indexes, triggers, comments."""
    place = (schema_of(table.name), table.name.name)
    have = _Folded(c.name.lower() for c in table.columns)
    out = []
    for name, sql, comment, parts in session.execute(
        f"SELECT index_name, sql, comment, CAST(expressions AS VARCHAR[]) FROM duckdb_indexes() {_HERE} ORDER BY 1",
        place,
    ):
        # Expressions are not taken apart: one of a column that is gone shows in the swap, which then is undone.
        plain = [_name(part) for part in parts or ()]
        found = Attachment("index", str(name), str(sql)).of_columns([c for c in plain if c is not None], have)
        out.append(found)
        if found.problem is not None:
            continue
        if comment is not None:
            where = f"{quote(schema_of(table.name))}.{quote(str(name))}"
            out.append(Attachment("comment on", str(name), f"COMMENT ON INDEX {where} IS {_literal(comment)}"))
    if session.execute("SELECT count(*) FROM duckdb_functions() WHERE function_name = 'duckdb_triggers'")[0][0]:
        rows = session.execute(f"SELECT trigger_name, sql FROM duckdb_triggers() {_HERE} ORDER BY 1", place)
        out += [Attachment("trigger", str(name), str(sql)) for name, sql in rows]
    for name, comment in session.execute(f"SELECT table_name, comment FROM duckdb_tables() {_HERE}", place):
        if comment is not None:
            said = f"COMMENT ON TABLE {qualified(table.name)} IS {_literal(comment)}"
            out.append(Attachment("comment on", str(name), said))
    for name, comment in session.execute(f"SELECT column_name, comment FROM duckdb_columns() {_HERE}", place):
        if comment is not None and str(name) in have:
            said = f"COMMENT ON COLUMN {qualified(table.name)}.{quote(str(name))} IS {_literal(comment)}"
            out.append(Attachment("comment on", str(name), said))
    return out


class _Folded(frozenset[str]):
    """Names of columns, which DuckDB compares without regard to case."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


def _name(expression: str) -> str | None:
    """The column, if an index's expression is one."""
    if re.fullmatch(r'"(?:[^"]|"")+"', expression):
        return expression[1:-1].replace('""', '"')
    return expression if re.fullmatch(r"[A-Za-z_]\w*", expression) else None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def declared(table: Table) -> list[str]:
    """The clauses of CREATE TABLE for what is made with the table."""
    return [a.definition for a in table.attachments if a.kind in DECLARED]


def lost(session: Session, table: Table, known: Sequence[Attachment]) -> list[str]:
    """What the old table has now that the new one was not made with, or could not have."""
    planned = {(a.kind, a.definition) for a in known if a.kind in DECLARED}
    return [
        str(a)
        for a in attachments(session, table, ())
        if (a.problem and not a.minor) or (a.kind in DECLARED and (a.kind, a.definition) not in planned)
    ]
