"""What the target makes, changes and drops. Every statement of it commits by itself: all of it can be run again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from rowferry.adapters.mysql import catalog, failure, tags, types
from rowferry.adapters.mysql.attached import Attachments, comment_of
from rowferry.adapters.mysql.control import Control
from rowferry.adapters.mysql.declared import BLOBS, SPATIAL, parse
from rowferry.adapters.mysql.making import collation
from rowferry.adapters.mysql.quoting import literal, qualified, quote, quotes
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import RefusedError, RowferryError, TargetError
from rowferry.model import Attachment, Column, Table, TableName

#: Literals that mean the same in every engine's SQL.
_COMMON_DEFAULT = re.compile(r"-?\d+(\.\d+)?|true|false|'(?:[^'\\]|'')*'", re.I)
#: Types whose columns have no literal default in MySQL.
_WITHOUT_DEFAULT = frozenset(("tinytext", "text", "mediumtext", "longtext", "json", *BLOBS, *SPATIAL))
_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
#: A table that a swap has put in place says so in its comment until the step after it.
_SWAPPED = "rowferry swap of "
_BAD_DEFAULT = 1067

_REFERENCING = """
SELECT DISTINCT table_schema, table_name, referenced_table_name, table_schema = referenced_table_schema
FROM information_schema.key_column_usage
WHERE referenced_table_schema = coalesce(?, DATABASE()) AND referenced_table_name = ?
"""
_COMMENT = """
SELECT table_comment FROM information_schema.tables
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
_AUTO = """
SELECT c.column_name, t.auto_increment FROM information_schema.columns c
JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE c.table_schema = coalesce(?, DATABASE()) AND c.table_name = ? AND c.extra LIKE '%auto_increment%'
"""


class Definer:
    """Runs DDL on the control session."""

    def __init__(self, control: Control, database: str) -> None:
        self._control = control
        self._database = database
        self._attached = Attachments(self._query, lambda: self._session.flavour.mariadb)

    @property
    def _session(self) -> MysqlSession:
        return self._control.session

    def _query(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return self._control.execute(sql, params)

    def describe(self, name: TableName) -> Table | None:
        return catalog.describe(self._session, name, as_target=True)

    # -- tables

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        natives = types.table_natives(table.columns, table.primary_key)
        if isinstance(natives, str):
            raise RefusedError(natives, table=str(name), hint="make the table in the target first, with another key")
        existing = self.describe(name)
        if existing is None:
            self._make_database(name)
            self._create(table, name, natives, source_engine)
        elif not _is_made(existing, table, natives):
            raise TargetError("a table of this name, with other columns, stands in the way", table=str(name))
        tags.write(self._session, name, types.tags_of(table.columns, natives, self._session.flavour))

    def _make_database(self, name: TableName) -> None:
        # CREATE DATABASE IF NOT EXISTS asks for the privilege even where there is nothing to do.
        if name.schema is not None and not self._query(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", name.schema
        ):
            self._query(f"CREATE DATABASE IF NOT EXISTS {quote(name.schema)} CHARACTER SET utf8mb4")

    def _create(self, table: Table, name: TableName, natives: dict[str, str], source_engine: str) -> None:
        with contextlib.suppress(RowferryError):
            # Else the first TIMESTAMP of a table changes whenever its row does. Only some users may say so.
            self._query("SET SESSION explicit_defaults_for_timestamp = 1")
        try:
            self._query(self._create_sql(table, name, natives, source_engine, defaults=True))
        except RowferryError as error:
            if failure.number_of(error) != _BAD_DEFAULT:
                raise
            # Another engine's default, which is none for the type that was made: rows bring their values.
            self._query(self._create_sql(table, name, natives, source_engine, defaults=False))

    def _create_sql(
        self, table: Table, name: TableName, natives: dict[str, str], source_engine: str, *, defaults: bool
    ) -> str:
        auto = _auto_column(table)
        parts = []
        for column in table.columns:
            words = [quote(column.name), natives[column.name], "NULL" if column.nullable else "NOT NULL"]
            if auto is not None and column.name == auto.name:
                words.append("AUTO_INCREMENT")
            elif defaults and (default := self._default(column, natives[column.name], source_engine)) is not None:
                words.append(f"DEFAULT {default}")
            parts.append(" ".join(words))
        if table.primary_key:
            # InnoDB lays its rows out along it: added later, it would copy the table.
            parts.append(f"PRIMARY KEY ({quotes(table.primary_key)})")
        if auto is not None and table.primary_key[:1] != (auto.name,):
            parts.append(f"KEY ({quote(auto.name)})")
        charset = f"CHARACTER SET utf8mb4 COLLATE {collation(self._session.flavour)}"
        return f"CREATE TABLE {qualified(name)} ({', '.join(parts)}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC {charset}"

    def _default(self, column: Column, native: str, source_engine: str) -> str | None:
        if column.default is None or column.identity:
            return None
        d = parse(native)
        if d is None or (d.name in _WITHOUT_DEFAULT and not self._session.flavour.mariadb):
            return None
        if source_engine == "mysql":
            return column.default
        return column.default if _COMMON_DEFAULT.fullmatch(column.default) else None

    def add_keys(self, table: Table, name: TableName) -> None:
        """The key was made with the table."""
        existing = self.describe(name)
        if existing is None:
            raise TargetError("the table is not there (any more)", table=str(name))
        if table.primary_key and not existing.primary_key:
            self._query(f"ALTER TABLE {qualified(name)} ADD PRIMARY KEY ({quotes(table.primary_key)})")

    def is_empty(self, name: TableName) -> bool:
        return not self._query(f"SELECT EXISTS (SELECT 1 FROM {qualified(name)})")[0][0]

    def truncate(self, name: TableName) -> None:
        """Empties a table. One that foreign keys point to cannot be truncated: its rows are deleted, if no row
        of another table could go or change with them."""
        referencing = self._referencing(name)
        if not referencing:
            self._query(f"TRUNCATE TABLE {qualified(name)}")
            return
        self._refuse_children(name, referencing)
        # A row may refer to another of this very table: in what order they go does not matter, all of them do.
        self._query("SET SESSION foreign_key_checks = 0")
        try:
            self._query(f"DELETE FROM {qualified(name)}")
        finally:
            self._query("SET SESSION foreign_key_checks = 1")
        self._refuse_children(name, referencing)  # rows that came meanwhile would be orphans

    def _refuse_children(self, name: TableName, children: Sequence[TableName]) -> None:
        for child in children:
            if not self.is_empty(child):
                raise TargetError(
                    f"rows of {child} point to it by a foreign key, so it cannot be emptied",
                    table=str(name),
                    hint="copy that table in the same job with --mode truncate, or empty it first",
                )

    def _referencing(self, name: TableName, *, itself: bool = False) -> list[TableName]:
        """Tables with foreign keys to this one, itself among them only if asked for."""
        # information_schema compares these names without case, whatever the server itself does.
        fold = self._session.variables.get("lower_case_table_names", "0") != "0"

        def same(a: str, b: str) -> bool:
            return a.lower() == b.lower() if fold else a == b

        found = []
        for schema, table, referenced, here in self._query(_REFERENCING, name.schema, name.name):
            own = bool(here) and same(str(table), name.name)
            if same(str(referenced), name.name) and (itself or not own):
                found.append(TableName(str(schema), str(table)))
        return found

    def is_referenced(self, name: TableName) -> bool:
        """Whether any foreign key points to the table, its own included."""
        return bool(self._referencing(name, itself=True))

    def drop(self, name: TableName) -> None:
        self._query(f"DROP TABLE IF EXISTS {qualified(name)}")
        tags.forget(self._session, name)

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        """Why an existing table can be not emptied (truncate) or not replaced (replace)."""
        with_it = {TableName(t.schema or self._database, t.name) for t in together}
        children = [child for child in self._referencing(table.name) if child not in with_it]
        if mode == "replace":
            if not children:
                return []
            named = ", ".join(str(child) for child in children)
            return [f"foreign keys of {named} point to it, and would go with the old one; --mode truncate keeps them"]
        return [
            f"rows of {str(child)!r} point to it by a foreign key, so it cannot be emptied; copy that table in "
            "the same job, empty it first, or choose --mode upsert"
            for child in children
            if not self.is_empty(child)
        ]

    # -- swap and merge

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        return self._attached.of(table, together)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        self._attached.attach(table, loaded, places, trial)

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment]) -> None:
        """Puts ``loaded`` in the place of ``name`` in one statement (RENAME TABLE), then drops the old one.

        A table that foreign keys point to is refused: they would follow the old one.
        """
        old = TableName(name.schema, loaded.name.replace("rowferry_new_", "rowferry_stage_", 1))
        mark = _SWAPPED + loaded.name
        if self._comment(loaded) is not None:
            there = self._comment(name) is not None
            if there:
                self._refuse_referenced(name)
                self._refuse_changed(loaded, name, attachments)
                self.drop(old)  # what an abandoned swap left under the name that the old table gets
            # Both names have the tags until the end; a tag counts only for a column of its type.
            tags.write(self._session, name, tags.read(self._session, loaded))
            self._query(f"ALTER TABLE {qualified(loaded)} COMMENT = {literal(mark)}")
            away = f"{qualified(name)} TO {qualified(old)}, " if there else ""
            self._query(f"RENAME TABLE {away}{qualified(loaded)} TO {qualified(name)}")
        elif self._comment(name) != mark:
            raise TargetError("the loaded table is not there (any more)", table=str(loaded))
        self.drop(old)
        self._attached.settle(attachments, loaded, name)
        tags.forget(self._session, loaded)

    def _refuse_changed(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment]) -> None:
        made = self.describe(loaded)
        assert made is not None
        if lost := self._attached.lost(msgspec.structs.replace(made, name=name), attachments):
            raise TargetError(
                f"made or changed on it since the job began, and lost if it were replaced: {', '.join(lost)}",
                table=str(name),
                hint="drop that and go on, or start the job anew",
            )

    def _comment(self, name: TableName) -> str | None:
        found = self._query(_COMMENT, name.schema, name.name)
        return str(found[0][0] or "") if found else None

    def _refuse_referenced(self, name: TableName) -> None:
        found = self._referencing(name)
        if found:
            children = ", ".join(str(child) for child in found)
            raise TargetError(
                f"it cannot be replaced, since foreign keys point to it: {children}",
                table=str(name),
                hint="use --mode truncate",
            )

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        """Adds all staged rows; the staged table goes once that is committed (dropping it commits)."""
        names = quotes(columns)
        rows = self._control.run(
            f"INSERT INTO {qualified(table.name)} ({names}) SELECT {names} FROM {qualified(staged)}"
        )
        self._control.after_commit(lambda: self.drop(staged))
        return rows

    def drop_staging(self, job: str) -> None:
        """What a crash between a step's commit and its last DROP has left of a job's own tables."""
        pattern = re.compile(rf"rowferry_(?:new|stage)_{re.escape(job[-8:])}_\d+")
        rows = self._query(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name LIKE ? "
            "AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
            f"rowferry\\_%\\_{job[-8:]}\\_%",
        )
        for schema, found in rows:
            if pattern.fullmatch(str(found)):
                self.drop(TableName(str(schema), str(found)))

    # -- sequences and triggers

    def set_sequences(self, table: Table) -> None:
        """Moves AUTO_INCREMENT above the largest value, never back."""
        name = table.name
        if (self._comment(name) or "").startswith(_SWAPPED):
            self._query(f"ALTER TABLE {qualified(name)} COMMENT = {literal(comment_of(table))}")
        for column, following in self._query(_AUTO, name.schema, name.name):
            value = self._query(f"SELECT max({quote(str(column))}) FROM {qualified(name)}")[0][0]
            if value is not None and int(value) > 0 and int(following or 1) <= int(value):
                self._query(f"ALTER TABLE {qualified(name)} AUTO_INCREMENT = {int(value) + 1}")

    def disable_triggers(self, table: Table, disable: bool) -> None:
        if disable and table.triggers:
            raise RefusedError(NO_DISABLING.format(name=table.name), hint=NO_DISABLING_HINT)


NO_DISABLING = "MySQL cannot disable the triggers of table {name}"
NO_DISABLING_HINT = "choose --target-triggers fire, or drop them and make them again afterwards"


def _auto_column(table: Table) -> Column | None:
    """The column that becomes AUTO_INCREMENT: a table has one at the most."""
    for column in table.columns:
        d = parse(column.native)
        if column.identity and not column.nullable and d is not None and d.name in _INTEGERS:
            return column
    return None


def _is_made(existing: Table, table: Table, natives: dict[str, str]) -> bool:
    """Whether a table is the one that was made before a crash. MySQL may have given it a key of its own
    (sql_generate_invisible_primary_key)."""
    columns = [c for c in existing.columns if c.name in natives or c.name != "my_row_id"]
    if [c.name for c in columns] != [c.name for c in table.columns]:
        return False
    return all(_same(have.native, natives[have.name]) for have in columns)


def _same(have: str, made: str) -> bool:
    if tags.same_native(have, made):
        return True
    a, b = parse(have), parse(made)
    # The server spells a few of them otherwise (JSON of MariaDB is a LONGTEXT with a check).
    return a is not None and b is not None and {a.name, b.name} <= {"json", "longtext"}
