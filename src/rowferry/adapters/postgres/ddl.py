"""What the target makes, changes and drops: tables, types, keys, sequences, triggers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from rowferry.adapters.postgres import types
from rowferry.adapters.postgres.attached import Attachments
from rowferry.adapters.postgres.catalog import LITERAL_DEFAULT, Catalog, from_table
from rowferry.adapters.postgres.control import Control
from rowferry.adapters.postgres.dependents import dependents, obstacles, referencing
from rowferry.adapters.postgres.quoting import ident, idents, literal, qualified, schema_of
from rowferry.errors import RefusedError, TargetError
from rowferry.model import Attachment, Column, Refusal, Table, TableName
from rowferry.types import Type

#: Literals that mean the same in every engine's SQL.
_COMMON_DEFAULT = re.compile(r"-?\d+(\.\d+)?|true|false|'(?:[^'\\]|'')*'", re.I)
_IDENTITY_TYPES = ("smallint", "integer", "bigint")
_TYPE_SCHEMA = re.compile(r'"((?:[^"]|"")*)"\."')


#: A type's name as format_type writes it: quoted where need be, perhaps with its schema.
_TYPE_NAME = re.compile(r"""(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)(?:\.(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*))?""")


def plan_column(column: Column, form: Type, known: Known) -> Column | Refusal:
    """The column that is made for a source column read as ``form``."""
    live = is_live(column, form)
    if live:
        return msgspec.structs.replace(column, native=column.native, type=form, generated=False, refusal=None)
    if form.kind == "wire":
        return Refusal(column.name, f"the raw bytes of {form.native} mean nothing to PostgreSQL")
    try:
        made, type_ = types.ddl(form)
    except ValueError as error:
        return Refusal(column.name, str(error), policies=("text", "skip"))
    theirs = column.native.removeprefix(types.PREFIX)
    if form.kind in ("opaque", "enum") and type_ == form:
        if not known.exists(made) and not (form.kind == "enum" and _TYPE_NAME.fullmatch(made)):
            reason = f"the target has no type {made}: make it there first"
            return Refusal(column.name, reason, policies=("text", "skip"))
    elif known.forms_of(theirs)[:1] == (form,):
        # The source's declared type means exactly this form here, too: oid, name, a domain.
        made, type_ = theirs, form
    forms = known.forms_of(made)
    return msgspec.structs.replace(
        column, native=made, type=type_, forms=forms, generated=False, refusal=None, collation=None
    )


def is_live(column: Column, form: Type) -> bool:
    """Whether the source is a PostgreSQL server and ``form`` is one that its own type is written in.
    Its user types then come along with the table."""
    if form.kind == "wire":
        return (form.native or "").startswith(types.PREFIX)
    own = column.forms[0] if column.forms else column.type
    # What a server gives has a wire form, or (composites and their kind) one form alone.
    server = any(f.kind == "wire" for f in column.forms) or len(column.forms) == 1
    native = types.base_native(column.forms)
    return server and native is not None and (form == own or form.kind == "opaque")


class Known(Protocol):
    """What the target knows of types."""

    def exists(self, native: str) -> bool: ...

    def forms_of(self, native: str) -> tuple[Type, ...]:
        """The forms of a column of this type; none where ``native`` is not what format_type calls a type."""


class Definer:
    """Runs DDL on the control session; inside the caller's transaction, where there is one."""

    def __init__(self, control: Control, catalog: Catalog) -> None:
        self._control = control
        self._catalog = catalog
        self._attachments = Attachments(self._query, control.session.version)

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._control.execute(sql)

    def exists(self, native: str) -> bool:
        return self._type_oid(native) is not None

    def _type_oid(self, native: str) -> int | None:
        """A type's OID; None where there is none, or the text is no type's name."""
        try:
            found = self._control.execute("SELECT to_regtype(?)::oid", (native,))[0][0]
        except TargetError as error:
            if error.code not in ("42601", "42704", "3F000"):
                raise
            return None
        return None if found is None else int(found)

    def forms_of(self, native: str) -> tuple[Type, ...]:
        oid = self._type_oid(native)
        if oid is None or self._formatted(native) != native:
            return ()
        return self._catalog.forms_of(oid, native)

    def _make_schema(self, schema: str) -> None:
        # CREATE SCHEMA IF NOT EXISTS asks for the privilege even where there is nothing to do.
        found = self._control.execute("SELECT count(*) FROM pg_namespace WHERE nspname = ?", (schema,))
        if not found[0][0]:
            self._query(f"CREATE SCHEMA {ident(schema)}")

    # -- tables

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        self._make_schema(schema_of(name))
        self._make_types(table)
        columns = [self._column_ddl(c, source_engine) for c in table.columns]
        existing = self._catalog.describe(name, as_target=True)
        if existing is not None:
            if [(c.name, c.native) for c in existing.columns] == [
                (c.name, self._formatted(c.native)) for c in table.columns
            ]:
                return  # made before a crash
            raise TargetError("a table of this name, with other columns, stands in the way", table=str(name))
        # Chunks are committed one by one: autovacuum would vacuum and analyse the half-loaded table beside the
        # load, again and again. add_keys gives the table back to it.
        self._query(
            f"CREATE TABLE {qualified(name)} ({', '.join(columns)}) "
            "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)"
        )

    def _formatted(self, native: str) -> str:
        """A type's name as format_type writes it."""
        found = self._type_oid(native)
        if found is None:
            return native
        typmod = types.typmod_of(found, native)
        return str(self._query(f"SELECT format_type({found}, {typmod})")[0][0])

    def _make_types(self, table: Table) -> None:
        """Enums, domains and composites that are not there yet, as the source had them."""
        for made in table.user_types:
            if self.exists(made.name):
                continue
            schema = _TYPE_SCHEMA.match(made.name)
            if schema:
                self._make_schema(schema.group(1).replace('""', '"'))
            try:
                self._query(made.definition)
            except TargetError as error:
                error.hint = error.hint or f"make the {made.kind} {made.name} in the target first"
                raise
            self._catalog.forget_types()
        # Each type once: a table of numbers and texts has a few types and many columns.
        for column in {c.native: c for c in reversed(table.columns)}.values():
            found = self.exists(column.native)
            if not found and column.type.kind == "enum" and column.type.labels:
                self._make_enum(column)
                found = self.exists(column.native)
            if not found:
                raise RefusedError(
                    f"the target has no type {column.native}, and the source could not bring it along",
                    table=str(table.name),
                    column=column.name,
                    hint="make the type in the target, or choose --policy TABLE.COLUMN=text into a column of text",
                )

    def _make_enum(self, column: Column) -> None:
        """An enum whose labels travelled with its column (through a file, through another engine)."""
        if not _TYPE_NAME.fullmatch(column.native):
            return
        schema = re.match(r'"((?:[^"]|"")*)"\.|(\w+)\.', column.native)
        if schema:
            self._make_schema((schema.group(1) or schema.group(2) or "").replace('""', '"'))
        labels = ", ".join(literal(label) for label in column.type.labels)
        self._query(f"CREATE TYPE {column.native} AS ENUM ({labels})")
        self._catalog.forget_types()

    def _column_ddl(self, column: Column, source_engine: str) -> str:
        from_here = source_engine == "postgres"
        parts = [ident(column.name), column.native]
        if column.collation and from_here and self._collation_exists(column.collation):
            parts.append(f"COLLATE {column.collation}")
        if not column.nullable:
            parts.append("NOT NULL")
        if column.identity and not column.nullable and column.native in _IDENTITY_TYPES:
            kind = "ALWAYS" if column.identity == "always" and from_here else "BY DEFAULT"
            parts.append(f"GENERATED {kind} AS IDENTITY")
        elif column.default is not None and not column.identity:
            pattern = LITERAL_DEFAULT if from_here else _COMMON_DEFAULT
            if pattern.fullmatch(column.default):
                parts.append(f"DEFAULT {column.default}")
        return " ".join(parts)

    def _collation_exists(self, collation: str) -> bool:
        return self._control.execute("SELECT to_regcollation(?) IS NOT NULL", (collation,))[0][0] is True

    def add_keys(self, table: Table, name: TableName) -> None:
        self._query(f"ALTER TABLE {qualified(name)} RESET (autovacuum_enabled, toast.autovacuum_enabled)")
        if not table.primary_key or self._has_key(name):
            return
        # With the default of 64 MB a key of two million numbers is sorted on disk: 0.70 s instead of 0.50.
        # The setting ends with the step's transaction.
        self._query(
            "SELECT set_config('maintenance_work_mem', "
            "greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, 262144)::text || 'kB', true)"
        )
        self._query(f"ALTER TABLE {qualified(name)} ADD PRIMARY KEY ({idents(table.primary_key)})")

    def _has_key(self, name: TableName) -> bool:
        """Whether the table has its primary key already: the job may have died right after it was made."""
        table = literal(qualified(name))
        found = self._query(f"SELECT count(*) FROM pg_index WHERE indrelid = {table}::regclass AND indisprimary")
        return bool(found[0][0])

    def is_empty(self, name: TableName) -> bool:
        table = self._table(name)
        return self._query(f"SELECT NOT EXISTS (SELECT FROM {from_table(table)})")[0][0] is True

    def _table(self, name: TableName) -> Table:
        table = self._catalog.describe(name, as_target=True)
        if table is None:
            raise TargetError("the table is not there (any more)", table=str(name))
        return table

    def truncate(self, name: TableName) -> None:
        """Empties a table. One that foreign keys point to cannot be truncated, even by empty tables: its
        rows are deleted, if no row of another table could go or change with them."""
        table = self._table(name)
        children = referencing(self._query, name)
        if not children:
            only = "ONLY " if table.kind == "table" else ""
            self._query(f"TRUNCATE {only}{qualified(name)}")
            return
        for child, _, _ in children:
            if self._query(f"SELECT EXISTS (SELECT FROM {qualified(child)})")[0][0] is True:
                raise TargetError(
                    f"rows of {qualified(child)} point to it by a foreign key, so it cannot be emptied",
                    table=str(name),
                    hint="copy that table in the same job with --mode truncate, or empty it first",
                )
        self._query(f"DELETE FROM {from_table(table)}")

    def drop(self, name: TableName) -> None:
        self._query(f"DROP TABLE IF EXISTS {qualified(name)}")

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        return self._attachments.of(table, together)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        self._attachments.attach(table, loaded, places, trial)

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment]) -> None:
        """Drops ``name`` and gives ``loaded`` its name, and all that the old table has beside its columns; in one
        transaction."""
        old, new = literal(qualified(name)), literal(qualified(loaded))
        if self._query(f"SELECT to_regclass({new}) IS NULL")[0][0] is True:
            raise TargetError("the loaded table is not there (any more)", table=str(loaded))
        late: list[Attachment] = []
        key = None
        if self._query(f"SELECT to_regclass({old}) IS NOT NULL")[0][0] is True:
            # The plan has asked already; what hangs on the table now came while the job ran.
            if found := dependents(self._query, name):
                raise TargetError(
                    f"it cannot be replaced, since on it depend: {', '.join(found)}",
                    table=str(name),
                    hint="use --mode truncate",
                )
            made = msgspec.structs.replace(self._table(loaded), name=name)
            if lost := self._attachments.lost(made, attachments):
                raise TargetError(
                    f"made or changed on it since the job began, and lost if it were replaced: {', '.join(lost)}",
                    table=str(name),
                    hint="drop that and go on, or start the job anew",
                )
            late = self._attachments.late(made)
            key = self._attachments.key_name(name) if self._table(name).primary_key == made.primary_key else None
            self._query(f"DROP TABLE {qualified(name)}")
        self._query(f"ALTER TABLE {qualified(loaded)} RENAME TO {ident(name.name)}")
        self._rename_made(loaded, name, key)
        self._attachments.settle(attachments, late, loaded, name)

    def _rename_made(self, loaded: TableName, name: TableName, key: str | None) -> None:
        """Key and sequence names that PostgreSQL made from the loading name. key: what the key is to be called."""
        rows = self._query(
            "SELECT 'TABLE', conname::text FROM pg_constraint "
            f"WHERE conrelid = {literal(qualified(name))}::regclass AND contype = 'p' UNION ALL "
            "SELECT 'SEQUENCE', s.relname FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' "
            f"WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {literal(qualified(name))}::regclass"
        )
        for kind, made in rows:
            wanted = key if key is not None and kind == "TABLE" else made.replace(loaded.name, name.name, 1)
            if wanted == made or len(wanted.encode()) > 63:
                continue
            taken = TableName(name.schema, wanted)
            if self._query(f"SELECT to_regclass({literal(qualified(taken))}) IS NOT NULL")[0][0] is True:
                continue
            if kind == "TABLE":
                self._query(f"ALTER TABLE {qualified(name)} RENAME CONSTRAINT {ident(made)} TO {ident(wanted)}")
            else:
                sequence = qualified(TableName(name.schema, made))
                self._query(f"ALTER SEQUENCE {sequence} RENAME TO {ident(wanted)}")

    def merge(self, staged: TableName, table: Table, columns: list[str]) -> int:
        names = idents(columns)
        rows = self._control.run(
            f"INSERT INTO {qualified(table.name)} ({names}) OVERRIDING SYSTEM VALUE "
            f"SELECT {names} FROM {qualified(staged)}"
        )
        self.drop(staged)
        return rows

    def obstacles(self, name: TableName, mode: str, together: Collection[TableName]) -> list[str]:
        return obstacles(self._query, name, mode, together)

    # -- sequences and triggers

    def set_sequences(self, table: Table) -> None:
        """Moves each sequence that fills an integer column past the column's largest value, never back."""
        for column, sequence in self._sequences(table.name):
            start, step, last, called = self._query(
                f"SELECT q.seqstart, q.seqincrement, s.last_value, s.is_called FROM {sequence} s, pg_sequence q "
                f"WHERE q.seqrelid = {literal(sequence)}::regclass"
            )[0]
            end = "max" if step > 0 else "min"
            value = self._query(f"SELECT {end}({ident(column)})::int8 FROM {qualified(table.name)}")[0][0]
            if value is None:
                continue
            following = last + (step if called else 0)
            up = step > 0
            if (following > value if up else following < value) or (value < start if up else value > start):
                continue  # it stands beyond already; setval takes no value outside its bounds
            self._query(f"SELECT setval({literal(sequence)}::regclass, {value}, true)")

    def _sequences(self, name: TableName) -> list[tuple[str, str]]:
        """(column, sequence) of identities, serials, and defaults of nextval('…')."""
        rows = self._query(
            "SELECT DISTINCT a.attname, quote_ident(n.nspname) || '.' || quote_ident(s.relname) "
            "FROM pg_attribute a JOIN pg_depend d ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid "
            "AND d.refobjsubid = a.attnum AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) "
            "OR (d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.objid IN "
            "(SELECT oid FROM pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum)) "
            "JOIN pg_class s ON s.relkind = 'S' AND s.oid = CASE WHEN d.classid = 'pg_class'::regclass "
            "THEN d.objid ELSE d.refobjid END JOIN pg_namespace n ON n.oid = s.relnamespace "
            f"WHERE a.attrelid = {literal(qualified(name))}::regclass AND NOT a.attisdropped "
            "AND a.atttypid IN (20, 21, 23) ORDER BY 1, 2"
        )
        return [(column, sequence) for column, sequence in rows]

    def disable_triggers(self, table: Table, disable: bool) -> None:
        """Turns the user triggers and rules that the plan named off, or on as they were."""
        name = qualified(table.name)
        known = self._query(
            f"SELECT 'TRIGGER', tgname::text FROM pg_trigger WHERE tgrelid = {literal(name)}::regclass "
            "AND NOT tgisinternal UNION ALL SELECT 'RULE', rulename::text FROM pg_rewrite "
            f"WHERE ev_class = {literal(name)}::regclass AND rulename <> '_RETURN'"
        )
        there = {str(n) for _, n in known}
        for kind, trigger in known:
            if trigger in table.triggers:
                word = "DISABLE" if disable else "ENABLE ALWAYS" if trigger in table.triggers_always else "ENABLE"
                self._query(f"ALTER TABLE {name} {word} {kind} {ident(trigger)}")
        missing = [t for t in table.triggers if t not in there]
        if missing and disable:
            raise TargetError(
                f"triggers of its partitions cannot be disabled from here: {', '.join(missing)}", table=str(table.name)
            )

    # -- privileges

    def missing_privileges(self, tables: list[Table], creating: list[TableName], ledger_schema: str) -> list[str]:
        problems = []
        user, database, temporary, create, read_only = self._query(
            "SELECT current_user, current_database(), has_database_privilege(current_database(), 'TEMP'), "
            "has_database_privilege(current_database(), 'CREATE'), "
            "pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool"
        )[0]
        if read_only is True:
            problems.append(f"database {database} is read-only (a standby, or default_transaction_read_only)")
        schemas = dict.fromkeys([schema_of(n) for n in creating] + [ledger_schema])
        for schema in schemas:
            found = self._control.execute(
                "SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE') "
                "FROM pg_namespace WHERE nspname = ?",
                (schema,),
            )
            if found and found[0][0] is not True:
                problems.append(f"user {user} may not CREATE in schema {schema}")
            elif not found and create is not True:
                problems.append(f"user {user} may not CREATE schema {schema} in database {database}")
        for table in tables:
            problems += self._missing_on(table, user, temporary is True)
        return problems

    def _missing_on(self, table: Table, user: str, temporary: bool) -> list[str]:
        name = literal(qualified(table.name))
        problems = [
            f"user {user} may not {privilege} table {table.name}"
            for privilege in ("INSERT", "SELECT")
            if self._query(f"SELECT has_table_privilege({name}::regclass, '{privilege}')")[0][0] is not True
        ]
        if not temporary and any(c.type.kind in types.STAGED_KINDS for c in table.columns):
            problems.append(f"user {user} may not make the TEMPORARY table that {table.name} is loaded through")
        return problems
