"""What a table has beside its columns and its key, as SHOW CREATE TABLE says it: for the table that takes its place.

Indexes, checks and foreign keys are made on the loaded table before the swap, so that nobody waits for them and
what does not hold is found while the old table still stands. Indexes have names of their table's own. Those of
foreign keys (and MySQL's checks) are shared by a database's tables: they are made under a name aside, and get
their own once the old table is gone. Rights hang on the table's name, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from rowferry.adapters.mysql.quoting import qualified, quote
from rowferry.errors import DataError, RefusedError, RowferryError, TargetError
from rowferry.model import Attachment, Table, TableName

#: Runs a statement with its parameters on the target's control session.
Query = Callable[..., list[tuple[Any, ...]]]

#: The temporary table on which indexes and checks are tried.
TRIAL = "rowferry_staged"
_NAME = r"`(?:[^`]|``)+`"
_INDEX = re.compile(rf"\s+((?:UNIQUE |FULLTEXT |SPATIAL |VECTOR )?KEY) ({_NAME}) (.*?),?")
_FOREIGN_KEY = re.compile(
    rf"\s+CONSTRAINT ({_NAME}) (FOREIGN KEY \(.*?\)) REFERENCES (?:({_NAME})\.)?({_NAME}) (\(.*?\))(.*?),?"
)
_CHECK = re.compile(rf"\s+CONSTRAINT ({_NAME}) (CHECK \(.*\)(?: /\*!80016 NOT ENFORCED \*/)?),?")
#: What stands between quotes is no column's name.
_TEXTS = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.S)
_TABLE = """
SELECT engine, row_format, table_comment, table_type, create_options FROM information_schema.tables
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
_COLUMN_CHECKS = """
SELECT constraint_name, check_clause FROM information_schema.check_constraints
WHERE constraint_schema = coalesce(?, DATABASE()) AND table_name = ? AND level = 'Column' ORDER BY 1
"""
_COMMENTED = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND column_comment <> '' ORDER BY ordinal_position
"""
_TRIGGERS = """
SELECT trigger_name FROM information_schema.triggers
WHERE event_object_schema = coalesce(?, DATABASE()) AND event_object_table = ? ORDER BY 1
"""
_REFERENCED = """
SELECT DISTINCT constraint_name, referenced_table_schema, referenced_table_name
FROM information_schema.key_column_usage
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND referenced_table_name IS NOT NULL
"""
_CONSTRAINTS = """
SELECT constraint_name FROM information_schema.table_constraints
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
_INDEX_KIND, _CHECK_KIND, _FOREIGN_KIND, _COMMENT_KIND = "index", "check constraint", "foreign key", "comment on"
_EARLY = (_INDEX_KIND, _CHECK_KIND, _FOREIGN_KIND)


class Attachments:
    """Reads and makes them over the target's control session."""

    def __init__(self, query: Query, mariadb: Callable[[], bool]) -> None:
        self._query = query
        self._mariadb = mariadb

    def of(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        """The protocol's Target.attachments."""
        name = table.name
        engine, row_format, comment, kind, options = self._query(_TABLE, name.schema, name.name)[0]
        if kind == "SYSTEM VERSIONED":
            return [Attachment("history", name.name, problem="the rows' earlier versions would go with it")]
        if "partitioned" in str(options or ""):
            reason = "the table that takes its place would be a plain one"
            return [Attachment("partitioning", name.name, problem=reason)]
        have = {c.name.lower() for c in table.columns}
        found = [*self._parsed(name), *self._column_checks(name)]
        out = [_examined(a, have, together) for a in sorted(found, key=lambda a: _EARLY.index(a.kind))]
        gone = "MySQL drops it with its table, and its definer has to make it again"
        triggers = self._query(_TRIGGERS, name.schema, name.name)
        out += [Attachment("trigger", str(trigger), problem=gone) for (trigger,) in triggers]
        if comment:
            out.append(Attachment(_COMMENT_KIND, name.name, str(comment)))
        for (column,) in self._query(_COMMENTED, name.schema, name.name):
            out.append(Attachment(_COMMENT_KIND, str(column), problem="it is not made again", minor=True))
        if str(engine) != "InnoDB":
            out.append(Attachment("engine", str(engine), problem="the new table is of InnoDB", minor=True))
        elif str(row_format) != "Dynamic":
            out.append(Attachment("row format", str(row_format), problem="the new one is DYNAMIC", minor=True))
        return out

    def _parsed(self, name: TableName) -> list[Attachment]:
        made = str(self._query(f"SHOW CREATE TABLE {qualified(name)}")[0][1])
        return [a for line in made.split("\n")[1:] if (a := _parsed(line, name)) is not None]

    def _column_checks(self, name: TableName) -> list[Attachment]:
        """MariaDB's checks of single columns stand within the columns' lines. A JSON column's own comes with it."""
        if not self._mariadb():
            return []
        return [
            Attachment(_CHECK_KIND, str(column), f"CHECK ({clause})")
            for column, clause in self._query(_COLUMN_CHECKS, name.schema, name.name)
            if str(clause) != f"json_valid({quote(str(column))})"
        ]

    # -- before the swap

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """The protocol's Target.attach. What is there already is left alone: a crash may have come before."""
        wanted = [a for a in table.attachments if a.kind in _EARLY]
        if trial:
            self._try(table, loaded, [a for a in wanted if a.kind != _FOREIGN_KIND])
            return
        there = {(a.kind, a.name): a for a in self._parsed(loaded)}
        # All indexes at once: one reading of the rows.
        indexes = _index_clauses(wanted, there)
        if indexes:
            self._alter(table.name, loaded, indexes, "indexes")
        for number, a in enumerate(wanted):
            aside = self._aside(a, loaded, number)
            if a.kind != _INDEX_KIND and (a.kind, aside) not in there:
                parent = places.get(a.parent, a.parent) if a.parent is not None else None
                self._alter(table.name, loaded, [f"ADD {_clause(a, aside, parent)}"], str(a))

    def _aside(self, a: Attachment, loaded: TableName, number: int) -> str:
        """What it is called until the old table is gone."""
        if a.kind == _INDEX_KIND or (a.kind == _CHECK_KIND and self._mariadb()):
            return a.name
        return f"{loaded.name}_a{number}"

    def _try(self, table: Table, loaded: TableName, wanted: Sequence[Attachment]) -> None:
        trial = TableName(None, TRIAL)
        self._query(f"DROP TEMPORARY TABLE IF EXISTS {quote(TRIAL)}")
        self._query(f"CREATE TEMPORARY TABLE {quote(TRIAL)} LIKE {qualified(loaded)}")
        try:
            there = {(a.kind, a.name): a for a in self._parsed(trial)}
            for a in wanted:
                clauses = _index_clauses([a], there) if a.kind == _INDEX_KIND else [f"ADD {_clause(a, a.name)}"]
                if clauses:
                    self._alter(table.name, trial, clauses, str(a), RefusedError)
        finally:
            self._query(f"DROP TEMPORARY TABLE IF EXISTS {quote(TRIAL)}")

    def _alter(
        self,
        name: TableName,
        loaded: TableName,
        clauses: Sequence[str],
        what: str,
        kind: type[RowferryError] | None = None,
    ) -> None:
        try:
            self._query(f"ALTER TABLE {qualified(loaded)} {', '.join(clauses)}")
        except RowferryError as error:
            if error.transient:
                raise
            kind = kind or (DataError if isinstance(error, DataError) else TargetError)
            raise kind(
                f"its {what} cannot be made on the table that takes its place: {error.message}",
                table=str(name),
                code=error.code,
                hint="drop it first, or choose --mode truncate, which keeps the table as it is",
            ) from None

    # -- the swap

    def lost(self, table: Table, known: Sequence[Attachment]) -> list[str]:
        """What stands on the old table now and was not there, or was another, when the plan was made."""
        planned = {(a.kind, a.name, a.head, a.definition) for a in known}
        return [
            str(a)
            for a in self.of(table, {})
            if not a.minor and a.kind != _COMMENT_KIND and (a.kind, a.name, a.head, a.definition) not in planned
        ]

    def settle(self, attachments: Sequence[Attachment], loaded: TableName, name: TableName) -> None:
        """The old table is gone, and the names of its constraints are free. Can be run again."""
        refers = {
            str(constraint): TableName(str(schema), str(parent))
            for constraint, schema, parent in self._query(_REFERENCED, name.schema, name.name)
        }
        there = {str(row[0]) for row in self._query(_CONSTRAINTS, name.schema, name.name)}
        for number, a in enumerate(a for a in attachments if a.kind in _EARLY):
            aside = self._aside(a, loaded, number)
            if aside == a.name or aside not in there:
                continue
            drop = "FOREIGN KEY" if a.kind == _FOREIGN_KIND else "CHECK"
            # A parent that is replaced too may still have the name under which it was loaded.
            clause = _clause(a, a.name, refers.get(aside))
            # Every row was looked at when it was made aside; nothing can have come that it would not have stopped.
            self._query("SET SESSION foreign_key_checks = 0")
            try:
                self._query(f"ALTER TABLE {qualified(name)} DROP {drop} {quote(aside)}, ADD {clause}")
            finally:
                self._query("SET SESSION foreign_key_checks = 1")


def comment_of(table: Table) -> str:
    """The comment that the old table had."""
    kept = (a.definition for a in table.attachments if a.kind == _COMMENT_KIND and a.problem is None)
    return next(kept, "")


def _parsed(line: str, name: TableName) -> Attachment | None:
    """An index, foreign key or check of a line of SHOW CREATE TABLE."""
    if found := _INDEX.fullmatch(line):
        return Attachment(_INDEX_KIND, _bare(found[2]), found[3], found[1])
    if found := _FOREIGN_KEY.fullmatch(line):
        schema = name.schema if found[3] is None else _bare(found[3])
        return Attachment(
            _FOREIGN_KIND, _bare(found[1]), f"{found[5]}{found[6]}", found[2], TableName(schema, _bare(found[4]))
        )
    if found := _CHECK.fullmatch(line):
        return Attachment(_CHECK_KIND, _bare(found[1]), found[2])
    return None


def _bare(name: str) -> str:
    return name[1:-1].replace("``", "`")


def _columns_in(definition: str) -> list[str]:
    return list(dict.fromkeys(map(_bare, re.findall(_NAME, _TEXTS.sub("''", definition)))))


def _examined(a: Attachment, have: set[str], together: Mapping[TableName, Table]) -> Attachment:
    """With its problem, if it has one on the table that takes its place."""
    columns = _columns_in(a.head if a.kind == _FOREIGN_KIND else a.definition)
    known = a.of_columns(columns, [c for c in columns if c.lower() in have])
    parent = together.get(a.parent) if a.parent is not None and known.problem is None else None
    if parent is None:
        return known
    referred = tuple(_columns_in(a.definition))
    if any(referred == key[: len(referred)] for key in (parent.primary_key, *parent.unique_keys)):
        return known
    problem = f"it points to ({', '.join(referred)}) of {a.parent}, which is no key of what replaces that"
    return msgspec.structs.replace(known, problem=problem)


def _index_clauses(wanted: Sequence[Attachment], there: Mapping[tuple[str, str], Attachment]) -> list[str]:
    """What makes the indexes that are not there. One of the same name was made for AUTO_INCREMENT, and gives way."""
    clauses = []
    for a in wanted:
        if a.kind != _INDEX_KIND:
            continue
        now = there.get((a.kind, a.name))
        if now is None or (now.head, now.definition) != (a.head, a.definition):
            clauses += [f"DROP KEY {quote(a.name)}"] if now is not None else []
            clauses.append(f"ADD {_clause(a, a.name)}")
    return clauses


def _clause(a: Attachment, name: str, parent: TableName | None = None) -> str:
    """What follows ADD."""
    if a.kind == _INDEX_KIND:
        return f"{a.head} {quote(name)} {a.definition}"
    if a.kind == _CHECK_KIND:
        return f"CONSTRAINT {quote(name)} {a.definition}"
    assert a.parent is not None
    return f"CONSTRAINT {quote(name)} {a.head} REFERENCES {qualified(parent or a.parent)} {a.definition}"
