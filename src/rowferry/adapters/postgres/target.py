"""PostgreSQL as a target: the ledger in its own schema, DDL in transactions, COPY BINARY in."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from rowferry.adapters.postgres import ddl
from rowferry.adapters.postgres.catalog import Catalog
from rowferry.adapters.postgres.connect import parameters
from rowferry.adapters.postgres.control import Connector, Control
from rowferry.adapters.postgres.quoting import ident, literal, qualified
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.source import PostgresSource, require_version
from rowferry.adapters.postgres.writer import PostgresWriter, load, plan_way
from rowferry.adapters.protocol import (
    Asker,
    Block,
    KeyTrial,
    Ledger,
    LooseKey,
    Source,
    SourceOptions,
    TargetOptions,
    Writer,
)
from rowferry.adapters.servers import at, closed_on_failure, without_keys
from rowferry.adapters.sql_ledger import LedgerNames, SqlLedger
from rowferry.adapters.transactions import atomic
from rowferry.errors import RowferryError, TargetError
from rowferry.model import Attachment, Column, ColumnPlan, Endpoint, Refusal, Table, TableName
from rowferry.types import Type


def ledger_names(schema: str, make_schema: bool) -> LedgerNames:
    def table(name: str) -> str:
        return f"{ident(schema)}.{ident(name)}"

    return LedgerNames(
        jobs=table("jobs"),
        steps=table("steps"),
        chunks=table("chunks"),
        before=(f"CREATE SCHEMA IF NOT EXISTS {ident(schema)}",) if make_schema else (),
        index=f"CREATE INDEX IF NOT EXISTS chunks_todo ON {table('chunks')} (job, wave, table_index, number) "
        "WHERE state = 'todo'",
        share=" FOR SHARE",
    )


class PostgresTarget:
    """The protocol's Target. DDL and the ledger's queries run on one control connection."""

    def __init__(self, endpoint: Endpoint, options: TargetOptions) -> None:
        self._endpoint = endpoint
        self._options = options
        self._connector = Connector(parameters(endpoint), TargetError)
        self._sources: weakref.WeakSet[PostgresSource] = weakref.WeakSet()
        self._control = Control(self._connector)
        require_version(self._control.session, TargetError)
        self._lock = threading.RLock()
        self._catalog = Catalog(self._control.session, options.ledger_schema)
        self._definer = ddl.Definer(self._control, self._catalog)
        found = self._control.execute("SELECT count(*) FROM pg_namespace WHERE nspname = ?", (options.ledger_schema,))
        self._names = ledger_names(options.ledger_schema, make_schema=not found[0][0])
        self.ledger: Ledger = SqlLedger(self._control, self._names, self._control, exists=self._ledger_exists)

    def _ledger_exists(self) -> bool:
        tables = (self._names.jobs, self._names.steps, self._names.chunks)
        checks = " AND ".join(f"to_regclass({literal(t)}) IS NOT NULL" for t in tables)
        return self._control.execute(f"SELECT {checks}")[0][0] is True

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return atomic(self._control, self._control.session.in_transaction)

    def _fresh(self) -> ddl.Definer:
        """The definer, on the control session of now (it may have been replaced)."""
        self._catalog.use(self._control.session)
        return self._definer

    def describe(self, name: TableName) -> Table | None:
        with self._lock:
            self._fresh()
            return self._catalog.describe(name, as_target=True)

    def is_empty(self, name: TableName) -> bool:
        with self._lock:
            return self._fresh().is_empty(name)

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        with self._lock:
            return ddl.plan_column(column, form, self._fresh())

    def checks(self, column: Column) -> tuple[str, ...]:
        # json keeps \u0000 as it is written; jsonb cannot hold it. No text holds the character itself.
        return ("no_nul", "no_escaped_nul") if _holds_jsonb(column.type) else ("no_nul",)

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        with self._lock:
            return self._fresh().missing_privileges(list(tables), list(creating), self._options.ledger_schema)

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        with self._lock, at(table.name):
            return self._fresh().obstacles(table.name, mode, together)

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        with self._lock, at(name):
            self._fresh().create_table(table, name, source_engine)

    def add_keys(self, table: Table, name: TableName) -> None:
        with self._lock, at(name):
            self._fresh().add_keys(table, name)

    def truncate(self, name: TableName) -> None:
        with self._lock, at(name):
            self._fresh().truncate(name)

    def drop(self, name: TableName) -> None:
        with self._lock, at(name):
            self._fresh().drop(name)

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        with self._lock, at(table.name):
            return self._fresh().attachments(table, together)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        with self._lock, at(table.name), self._transaction():
            self._fresh().attach(table, loaded, places, trial)

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        with self._lock, at(name), self._transaction():
            self._fresh().swap(loaded, name, attachments)

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        with self._lock, at(table.name), self._transaction():
            return self._fresh().merge(staged, table, list(columns))

    def set_sequences(self, table: Table) -> None:
        with self._lock, at(table.name):
            self._fresh().set_sequences(table)

    def disable_triggers(self, table: Table, disable: bool) -> None:
        with self._lock, at(table.name):
            self._fresh().disable_triggers(table, disable)

    def writer(self) -> Writer:
        return PostgresWriter(self._connector, self._names)

    def repair(
        self,
        table: Table,
        columns: tuple[ColumnPlan, ...],
        key: Sequence[str],
        delete: pa.RecordBatch | None,
        insert: Sequence[pa.RecordBatch],
    ) -> int:
        session = self._connector.connect()
        try:
            session.begin()
            mode = "append"
            if insert and delete is not None and self._is_referenced(session, table, key):
                # Deleting a row would delete or orphan those that refer to it: replaced rows stay and change.
                mode, delete = "upsert", without_keys(delete, insert, key)
            if delete is not None and delete.num_rows:
                keys = [next(c for c in columns if c.target == name) for name in key]
                self._delete(session, table, keys, delete)
            way = plan_way(table.name, columns, mode, key)
            rows = load(session, way, columns, (Block(b) for b in insert), raw=False) if insert else 0
            session.commit()
            return rows
        except RowferryError as error:
            raise error.at(table=str(table.name)) from None
        finally:
            session.close()

    def _is_referenced(self, session: Session, table: Table, key: Sequence[str]) -> bool:
        """Whether foreign keys point to the table. Raises TargetError where its rows then cannot be replaced."""
        relation = literal(qualified(table.name))
        query = f"SELECT conname FROM pg_constraint WHERE contype = 'f' AND confrelid = {relation}::regclass LIMIT 1"
        found = session.query(query)
        if found and not any(set(key) == set(unique) for unique in (table.primary_key, *table.unique_keys)):
            raise TargetError(
                f"its rows cannot be replaced: the foreign key {found[0][0]!r} refers to them, and no unique key of "
                f"the table is ({', '.join(key)})"
            )
        return bool(found)

    def _delete(self, session: Session, table: Table, keys: list[ColumnPlan], rows: pa.RecordBatch) -> None:
        """Deletes rows by key, through a temporary table of the keys."""
        stage = TableName("pg_temp", "rowferry_keys")
        made = ", ".join(f"{ident(k.target)} {k.column.native}" for k in keys)
        session.query(f"CREATE TEMP TABLE IF NOT EXISTS rowferry_keys ({made}) ON COMMIT DROP")
        load(session, plan_way(stage, keys, "append", ()), keys, [Block(rows)], raw=False)
        same = " AND ".join(f"t.{ident(k.target)} = k.{ident(k.target)}" for k in keys)
        session.query(f"DELETE FROM {qualified(table.name)} AS t USING {qualified(stage)} AS k WHERE {same}")

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.postgres import colliding

        with self._lock:
            return colliding.loose_keys(self._control.session, tables)

    def key_trial(self, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> KeyTrial:
        from rowferry.adapters.postgres.colliding import PostgresTrial

        with at(table.name), closed_on_failure(self._connector.connect()) as session:
            return PostgresTrial(session, table, key, columns)

    def asker(self) -> Asker:
        from rowferry.adapters.postgres.asking import PostgresAsker

        return PostgresAsker(self._connector.connect)

    def as_source(self) -> Source:
        source = PostgresSource(self._endpoint, SourceOptions(), self._options.ledger_schema)
        self._sources.add(source)
        return source

    def cut(self) -> None:
        self._connector.cut()
        for source in list(self._sources):
            source.cut()

    def close(self) -> None:
        self._control.close()


def _holds_jsonb(type_: Type) -> bool:
    return type_.kind == "jsonb" or (type_.element is not None and _holds_jsonb(type_.element))
