"""What a table has beside its columns, for the table that takes its place.

SQLite adds no constraint to a table that stands: UNIQUE and FOREIGN KEY are declared when the new table is made.
Indexes and triggers are made again, by their own text, in the swap. A CHECK stands in the table's text alone,
which is not taken apart here.
"""

from __future__ import annotations

import re

from rowferry.adapters.sqlite import catalog
from rowferry.adapters.sqlite.wire import Session, quote
from rowferry.model import Attachment, Table

#: Comments, texts and quoted names: no word of theirs says anything of the table.
_QUOTED = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]", re.S)
#: What is only in the table's text, and why its loss matters.
_CLAUSES = (
    ("CHECK constraint", r"\bCHECK\s*\(", "SQLite keeps it in the table's text alone"),
    ("ON CONFLICT clause", r"\bON\s+CONFLICT\b", "SQLite keeps it in the table's text alone"),
    (
        "deferred constraint",
        r"(?<!NOT\s)\bDEFERRABLE\s+INITIALLY\s+DEFERRED\b",
        "SQLite keeps that in the table's text",
    ),
)
_PROPERTIES = (
    ("AUTOINCREMENT", r"\bAUTOINCREMENT\b"),
    ("STRICT", r"\)[\s\w,]*\bSTRICT\b[\s\w,]*\Z"),
    ("WITHOUT ROWID", r"\bWITHOUT\s+ROWID\b"),
    ("COLLATE", r"\bCOLLATE\s+(?!BINARY\b)\w+"),
)
#: Made with the table itself.
DECLARED = ("unique constraint", "foreign key")


def attachments(session: Session, table: Table) -> list[Attachment]:
    """The protocol's Target.attachments."""
    shape = catalog.shape_of(session, table.name)
    if shape is None:
        return []
    have = names_of(table)
    words = _QUOTED.sub("''", shape.sql)
    out = [*_uniques(session, shape, have), *_foreign_keys(session, shape, have), *_made_again(session, shape, have)]
    for what, pattern, reason in _CLAUSES:
        out += [Attachment(what, shape.name, problem=reason) for _ in re.findall(pattern, words, re.I)[:1]]
    for what, pattern in _PROPERTIES:
        if re.search(pattern, words, re.I):
            out.append(Attachment("property", what, problem="rowferry makes tables without it", minor=True))
    return out


def _uniques(session: Session, shape: catalog.Shape, have: Folded) -> list[Attachment]:
    out = []
    for row in session.execute(f"PRAGMA main.index_list({quote(shape.name)})"):
        if row[3] != "u":
            continue
        parts = [p for p in session.execute(f"PRAGMA main.index_xinfo({quote(row[1])})") if p[5]]
        listed = ", ".join(quote(p[2]) + ("" if p[4] == "BINARY" else f" COLLATE {quote(p[4])}") for p in parts)
        found = Attachment(DECLARED[0], ", ".join(p[2] for p in parts), f"UNIQUE ({listed})")
        out.append(found.of_columns([p[2] for p in parts], have))
    return sorted(out, key=lambda a: a.name)


def _foreign_keys(session: Session, shape: catalog.Shape, have: Folded) -> list[Attachment]:
    found: dict[int, list[tuple[str, str | None]]] = {}
    rest: dict[int, tuple[str, str, str]] = {}
    for number, _, parent, column, to, on_update, on_delete, *_ in session.execute(
        f"PRAGMA main.foreign_key_list({quote(shape.name)})"
    ):
        found.setdefault(number, []).append((column, to))
        rest[number] = (parent, on_update, on_delete)
    out = []
    for number, pairs in sorted(found.items()):
        parent, on_update, on_delete = rest[number]
        own = ", ".join(quote(c) for c, _ in pairs)
        theirs = f" ({', '.join(quote(to) for _, to in pairs if to)})" if all(to for _, to in pairs) else ""
        definition = (
            f"FOREIGN KEY ({own}) REFERENCES {quote(parent)}{theirs} ON UPDATE {on_update} ON DELETE {on_delete}"
        )
        name = f"({', '.join(c for c, _ in pairs)}) to {parent}"
        out.append(Attachment(DECLARED[1], name, definition).of_columns([c for c, _ in pairs], have))
    return out


def _made_again(session: Session, shape: catalog.Shape, have: Folded) -> list[Attachment]:
    """Indexes and triggers. What expressions and trigger bodies name is not known before they are made."""
    columns = dict(catalog.made_indexes(session, shape.name))
    return [
        Attachment(kind, name, sql).of_columns(columns.get(name, ()), have)
        for kind, name, sql in session.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE "
            "AND type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type, name",
            (shape.name,),
        )
    ]


def made_again(session: Session, table: Table) -> list[Attachment]:
    """The indexes and triggers of the table of this name that the table that takes its place can have."""
    shape = catalog.shape_of(session, table.name)
    return [] if shape is None else [a for a in _made_again(session, shape, names_of(table)) if a.problem is None]


class Folded(frozenset[str]):
    """Names of columns, which SQLite compares without regard to (ASCII) case."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


def names_of(table: Table) -> Folded:
    return Folded(c.name.lower() for c in table.columns)


def declared(table: Table) -> list[str]:
    """The clauses of CREATE TABLE for what is made with the table."""
    return [a.definition for a in table.attachments if a.kind in DECLARED]


def lost(session: Session, table: Table, known: tuple[Attachment, ...]) -> list[str]:
    """What the old table has now that the new one was not made with, or could not have."""
    planned = {(a.kind, a.definition) for a in known if a.kind in DECLARED}
    return [
        str(a)
        for a in attachments(session, table)
        if not a.minor and (a.problem or (a.kind in DECLARED and (a.kind, a.definition) not in planned))
    ]
