"""MySQL and MariaDB as a target: the ledger beside the tables, LOAD DATA LOCAL in, DDL that can be run again."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.mysql import catalog, layout, privileges, types
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.control import Control, JobLocks
from rowferry.adapters.mysql.ddl import NO_DISABLING, NO_DISABLING_HINT, Definer
from rowferry.adapters.mysql.identity import server_identity
from rowferry.adapters.mysql.loading import Loader
from rowferry.adapters.mysql.quoting import qualified, quote
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.mysql.source import MysqlSource
from rowferry.adapters.mysql.writer import STAGE, MysqlWriter, put, unchecked
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
from rowferry.errors import ConfigError, RowferryError, TargetError
from rowferry.model import Attachment, Column, ColumnPlan, Endpoint, Refusal, Table, TableName
from rowferry.types import Type

LEDGER_TABLES = ("rowferry_jobs", "rowferry_steps", "rowferry_chunks")
#: Steps that are no DDL: one transaction with their marks.
TRANSACTIONAL_STEPS = frozenset(("merge", "baseline"))
#: Since when SELECT … FOR UPDATE passes over rows that others hold.
_SKIP_LOCKED = {True: (10, 6, 0), False: (8, 0, 1)}

_COLLATIONS = """
SELECT collation_name FROM information_schema.collation_character_set_applicability
"""


def ledger_names(session: MysqlSession) -> LedgerNames:
    """The ledger's tables in the session's own database."""
    flavour = session.flavour
    skips = flavour.version >= _SKIP_LOCKED[flavour.mariadb]
    jobs, steps, chunks = (quote(name) for name in LEDGER_TABLES)
    return LedgerNames(
        jobs=jobs,
        steps=steps,
        chunks=chunks,
        text="longtext",
        # What may be in a key; no more than InnoDB's oldest row format takes.
        key_text="varchar(150)",
        share=" LOCK IN SHARE MODE",
        claim=" FOR UPDATE SKIP LOCKED" if skips else " FOR UPDATE",
        key="`key`",
        table_options=" ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # A claim reads along it, so that it holds no more than the row it takes.
        chunks_more=", KEY chunks_todo (job, state, wave, table_index, number)",
    )


class MysqlLedger(SqlLedger):
    """The ledger, which clears up after itself at a job's end."""

    def __init__(self, definer: Definer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._definer = definer

    def finish_job(self, job: str, report: dict[str, Any]) -> None:
        self._definer.drop_staging(job)
        super().finish_job(job, report)


class MysqlTarget:
    """The protocol's Target. DDL and the ledger's queries run on one control connection."""

    def __init__(self, endpoint: Endpoint, options: TargetOptions) -> None:
        self._endpoint = endpoint
        self._options = options
        found = parameters(endpoint)
        if not found.database:
            raise ConfigError(
                "the target's URL names no database", hint="write mysql://user@host/database; the ledger stands there"
            )
        self._database = found.database
        self._connector = Connector(found, TargetError, local_infile=True)
        self._sources: weakref.WeakSet[MysqlSource] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._control = Control(self._connector)
        self._definer = Definer(self._control, self._database)
        self._names = ledger_names(self._control.session)
        self._locks = JobLocks(self._connector, self._database)
        self.ledger: Ledger = MysqlLedger(
            self._definer,
            self._control,
            self._names,
            self._locks,
            exists=self._ledger_exists,
            transactional_ddl=False,
            transactional_steps=TRANSACTIONAL_STEPS,
        )
        self._collations: frozenset[str] | None = None
        self._notes: dict[str, None] = {}
        if "SKIP" not in self._names.claim:
            self._notes["the server has no SKIP LOCKED: workers take their chunks one after the other"] = None

    def _ledger_exists(self) -> bool:
        found = self._control.execute(
            "SELECT count(*) FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name IN (?, ?, ?)",
            LEDGER_TABLES,
        )
        return int(found[0][0]) == len(LEDGER_TABLES)

    def place(self) -> tuple[str, str | None]:
        with self._lock:
            return server_identity(self._control.session), self._database

    def folds_names(self) -> bool:
        """Whether `Foo` and `foo` are one table here (lower_case_table_names)."""
        with self._lock:
            return self._control.session.variables.get("lower_case_table_names", "0") != "0"

    def notes(self) -> tuple[str, ...]:
        """What the report should say of how rows were written."""
        return tuple(self._notes)

    def _say_inserts(self) -> None:
        self._notes["the server does not take LOAD DATA LOCAL (local_infile is off): rows went in by INSERT"] = None

    # -- what is there, what would be made

    def describe(self, name: TableName) -> Table | None:
        with self._lock, at(name):
            return self._definer.describe(name)

    def is_empty(self, name: TableName) -> bool:
        with self._lock, at(name):
            return self._definer.is_empty(name)

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        with self._lock:
            if self._collations is None:
                self._collations = frozenset(str(row[0]) for row in self._control.execute(_COLLATIONS))
            return types.plan_column(column, form, self._control.session.flavour, collations=self._collations)

    def checks(self, column: Column) -> tuple[str, ...]:
        return types.checks(column, self._control.session.flavour)

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        with self._lock:
            session = self._control.session
            problems = privileges.missing(session, self._database, tables, creating, LEDGER_TABLES)
            for table in tables:
                if self._options.triggers == "disable" and table.triggers:
                    problems.append(f"{NO_DISABLING.format(name=table.name)}: {NO_DISABLING_HINT}")
                try:
                    if table.kind != "view":
                        layout.fields_of(session, table.name)
                except TargetError as error:
                    problems.append(str(error))
            return problems

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        with self._lock, at(table.name):
            return self._definer.obstacles(table, mode, together)

    # -- steps

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        with self._lock, at(name):
            self._definer.create_table(table, name, source_engine)

    def add_keys(self, table: Table, name: TableName) -> None:
        with self._lock, at(name):
            self._definer.add_keys(table, name)

    def truncate(self, name: TableName) -> None:
        with self._lock, at(name):
            self._definer.truncate(name)

    def drop(self, name: TableName) -> None:
        with self._lock, at(name):
            self._definer.drop(name)

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        with self._lock, at(table.name):
            return self._definer.attachments(table, together)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        with self._lock, at(table.name):
            self._definer.attach(table, loaded, places, trial)

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        with self._lock, at(name):
            self._definer.swap(loaded, name, attachments)

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        within = self._control.within
        with self._lock, at(table.name), unchecked(self._control.session, table), atomic(self._control, within):
            return self._definer.merge(staged, table, columns)

    def orphans(self, name: TableName) -> list[str]:
        with self._lock, at(name):
            return catalog.orphans(self._control.session, name)

    def set_sequences(self, table: Table) -> None:
        with self._lock, at(table.name):
            self._definer.set_sequences(table)

    def disable_triggers(self, table: Table, disable: bool) -> None:
        with self._lock, at(table.name):
            self._definer.disable_triggers(table, disable)

    # -- rows

    def writer(self) -> Writer:
        return MysqlWriter(self._connector, self._names, self._locks, self._say_inserts)

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
            if insert and delete is not None and self._definer.is_referenced(table.name):
                # Deleting a row would delete or orphan those that refer to it: replaced rows stay and change.
                mode, delete = "upsert", without_keys(delete, insert, key)
            if delete is not None and delete.num_rows:
                keys = [next(c for c in columns if c.target == name) for name in key]
                self._delete(session, table, keys, delete)
            rows = 0
            if insert:
                blocks = (Block(b) for b in insert)
                rows = put(
                    session,
                    table.name,
                    columns,
                    blocks,
                    mode=mode,
                    key=key,
                    triggers=table.triggers,
                    on_inserts=self._say_inserts,
                )
            session.commit()
            return rows
        except RowferryError as error:
            raise error.at(table=str(table.name)) from None
        finally:
            session.rollback()
            session.close()

    def _delete(self, session: MysqlSession, table: Table, keys: list[ColumnPlan], rows: pa.RecordBatch) -> None:
        """Deletes rows by key, through a temporary table of the keys."""
        way = layout.layout_of(session, table.name, keys)
        made = ", ".join(f"{quote(k.target)} {f.native}" for k, f in zip(keys, way.fields, strict=True))
        session.query(f"DROP TEMPORARY TABLE IF EXISTS {quote(STAGE)}")
        session.query(f"CREATE TEMPORARY TABLE {quote(STAGE)} ({made}) ENGINE=InnoDB")
        Loader(session, way.into(TableName(None, STAGE))).load([Block(rows)])
        same = " AND ".join(f"t.{quote(k.target)} <=> k.{quote(k.target)}" for k in keys)
        exact = layout.same_bytes(way, [k.target for k in keys], "t", "k")
        same += f" AND {exact}" if exact is not None else ""
        session.run(f"DELETE t FROM {qualified(table.name)} AS t JOIN {quote(STAGE)} AS k ON {same}")
        session.query(f"DROP TEMPORARY TABLE {quote(STAGE)}")

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        from rowferry.adapters.mysql import colliding

        with self._lock:
            return [key for table in tables for key in colliding.loose_keys(self._control.session, table)]

    def key_trial(self, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> KeyTrial:
        from rowferry.adapters.mysql.colliding import MysqlTrial

        with at(table.name), closed_on_failure(self._connector.connect()) as session:
            return MysqlTrial(session, table, key, columns)

    def asker(self) -> Asker:
        from rowferry.adapters.mysql.asking import MysqlAsker

        return MysqlAsker(self._connector.connect)

    def as_source(self) -> Source:
        source = MysqlSource(self._endpoint, SourceOptions())
        self._sources.add(source)
        return source

    def cut(self) -> None:
        self._connector.cut()
        for source in list(self._sources):
            source.cut()

    def close(self) -> None:
        self._locks.close()
        self._control.close()
