"""Writes a DuckDB database: Arrow batches as a view, ``INSERT … SELECT``, the chunk's ledger row beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters import sql_ledger
from rowferry.adapters.duckdb import attached, catalog
from rowferry.adapters.duckdb.catalog import qualified, schema_of
from rowferry.adapters.duckdb.source import DuckdbSource
from rowferry.adapters.duckdb.types import carrier, plan_type, write_expression
from rowferry.adapters.duckdb.wire import Database, ProcessLock, Session
from rowferry.adapters.protocol import Asker, Block, Ledger, TargetOptions, WriteRequest
from rowferry.adapters.queue import ChunkQueue
from rowferry.convert.duckdb_form import canonical, quote, to_duckdb
from rowferry.errors import DataError, LedgerError, RowferryError, TargetError
from rowferry.model import Attachment, ChunkRow, Column, ColumnPlan, Endpoint, Refusal, StepRow, Table, TableName
from rowferry.types import Type

_LEDGER = sql_ledger.LedgerNames(
    jobs="main.rowferry_jobs", steps="main.rowferry_steps", chunks="main.rowferry_chunks", text="VARCHAR",
    key_text="VARCHAR",
)  # fmt: skip
_VIEW = "rowferry_batches"
#: DuckDB's memory for a row of a key's index, which it builds whole in memory: 3 million keys of 32
#: characters needed 270 bytes each, bigints 50 (measured). A limit only; what is not needed is not taken.
_KEY_ROW_BYTES = 400
_STAGED = "rowferry_staged"
#: Types that only DuckDB has, and the kinds they travel in: kept as they are from DuckDB to DuckDB.
_OWN_TYPES = {
    "HUGEINT": ("numeric", "decimal"),
    "UHUGEINT": ("numeric", "decimal"),
    "BIGNUM": ("numeric",),
    "BIT": ("varbit",),
    "GEOMETRY": ("opaque",),
}


class DuckdbLedger(sql_ledger.SqlLedger):
    """The ledger, whose steps that build indexes are written once."""

    def __init__(self, database: Database, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._database = database

    def run_step(self, job: str, step: StepRow, action: Callable[[], dict[str, Any] | None]) -> None:
        with self._database.straight_to_file() if step.kind == "keys" else contextlib.nullcontext():
            super().run_step(job, step, action)


class DuckdbTarget:
    """The protocol's Target on one database file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._control = database.session()
        self._lock = ProcessLock(database.path)
        self._queue = ChunkQueue(self._load_chunks)
        self.ledger: Ledger = DuckdbLedger(
            database,
            database.session(LedgerError) if database.read_only else self._control,
            _LEDGER,
            self._lock,
            exists=lambda: catalog.exists(self._control, TableName(None, "rowferry_chunks")),
            on_change=self._queue.forget,
        )

    @staticmethod
    def open(endpoint: Endpoint, options: TargetOptions) -> DuckdbTarget:
        return DuckdbTarget(Database(endpoint, TargetError, read_only=options.read_only))

    def _load_chunks(self, job: str) -> list[ChunkRow]:
        # Called from workers' threads: on a cursor of its own.
        session = self._database.session(LedgerError)
        try:
            names = sql_ledger.SqlLedger(session, _LEDGER, self._lock, exists=lambda: True)
            return names.chunks(job)
        finally:
            session.close()

    def describe(self, name: TableName) -> Table | None:
        return catalog.describe(self._control, name, census=False)

    def is_empty(self, name: TableName) -> bool:
        return not self._control.execute(f"SELECT 1 FROM {qualified(name)} LIMIT 1")

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        planned: tuple[str, Type] | Refusal
        if form.kind in _OWN_TYPES.get(column.native, ()) and not form.scale:
            planned = (column.native, form)
        else:
            planned = plan_type(form)
        if isinstance(planned, Refusal):
            return Refusal(column.name, planned.reason, planned.count, planned.policies)
        native, t = planned
        # A number that travels as text by policy is remembered as the number that it is.
        numeric = form.kind == "text" and column.type.kind in ("numeric", "decimal")
        # Not forms to be written in: what create_table is to remember of the source's column.
        forms = (Type("numeric") if numeric else t, Type("opaque", native=column.native))
        return Column(column.name, t, column.nullable, native, forms, _default(column, t))

    def checks(self, column: Column) -> tuple[str, ...]:
        return ()

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        path = self._database.path
        folder = os.path.dirname(os.path.abspath(path))
        missing = []
        if os.path.exists(path) and not os.access(path, os.W_OK):
            missing.append(f"write the file {path!r}")
        if not os.access(folder, os.W_OK | os.X_OK):
            missing.append(f"write the folder {folder!r} (DuckDB keeps its log there)")
        return missing

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        out = []
        for child, columns in catalog.children(self._control, table.name):
            if child in together:
                continue
            if mode == "replace":
                out.append(f"a foreign key of {str(child)!r} points to it, and DuckDB drops no such table")
                continue
            test = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns)
            if self._control.execute(f"SELECT 1 FROM {qualified(child)} WHERE {test} LIMIT 1"):
                out.append(
                    f"rows of {str(child)!r} point to it by a foreign key; copy that table in the same job, or empty "
                    "it first"
                )
        return out

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        return attached.attachments(self._control, table, together)

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        columns = [
            f"{quote(c.name)} {c.native}"
            + ("" if c.default is None else f" DEFAULT {c.default}")
            + ("" if c.nullable else " NOT NULL")
            for c in table.columns
        ]
        parts = ", ".join([*columns, *attached.declared(table)])
        with self._control.atomic():
            if name.schema is not None:
                self._control.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(name.schema)}")
            self._control.execute(f"CREATE TABLE IF NOT EXISTS {qualified(name)} ({parts})")
            catalog.write_tags(self._control, name, self._tags(table, name, source_engine), table.user_types)

    def _tags(self, table: Table, name: TableName, source_engine: str) -> dict[str, catalog.Tag]:
        """What the new table's own types do not tell of its columns."""
        planned = {c.name: c.forms or (c.type,) for c in table.columns}
        tags = {}
        for column, native in self._control.columns(f"SELECT * FROM {qualified(name)}"):
            if column not in planned:
                continue
            remembered, *declared = planned[column]
            source = f"{source_engine}:{declared[-1].native}" if declared and source_engine != "duckdb" else None
            kept = None if remembered == canonical(native) else remembered
            if kept is not None or source is not None:
                tags[column] = catalog.Tag(str(native), kept, source)
        return tags

    def add_keys(self, table: Table, name: TableName) -> None:
        if not table.primary_key or self._key(name, "PRIMARY KEY"):
            return
        columns = ", ".join(map(quote, table.primary_key))
        rows = int(self._control.execute(f"SELECT count(*) FROM {qualified(name)}")[0][0])
        self._database.make_room(rows * _KEY_ROW_BYTES)
        try:
            self._control.execute(f"ALTER TABLE {qualified(name)} ADD PRIMARY KEY ({columns})")
        except DataError as error:
            raise DataError(
                f"the rows do not allow the primary key ({', '.join(table.primary_key)}): {error.message}",
                table=str(name),
            ) from None

    def _key(self, name: TableName, *kinds: str) -> list[tuple[str, ...]]:
        return key_columns(self._control, name, *kinds)

    def truncate(self, name: TableName) -> None:
        self._control.execute(f"DELETE FROM {qualified(name)}")

    def drop(self, name: TableName) -> None:
        with self._control.atomic():
            self._control.execute(f"DROP TABLE IF EXISTS {qualified(name)}")
            catalog.forget_tags(self._control, name)

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """Nothing: constraints are made with the table, and a table that has indexes could not be renamed."""

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        """In one transaction. The old table goes first: DuckDB cannot rename a table that has indexes."""
        made = catalog.describe(self._control, loaded, False)
        if made is None:
            return
        made = msgspec.structs.replace(made, name=name)
        if lost := attached.lost(self._control, made, attachments):
            raise TargetError(
                f"made on it since the job began, and lost if it were replaced: {', '.join(lost)}",
                table=str(name),
                hint="drop that and go on, or start the job anew",
            )
        with self._control.atomic():
            late = attached.late(self._control, made)
            self._control.execute(f"DROP TABLE IF EXISTS {qualified(name)}")
            self._control.execute(f"ALTER TABLE {qualified(loaded)} RENAME TO {quote(name.name)}")
            catalog.move_tags(self._control, loaded, name)
            for attachment in (a for a in late if a.problem is None):
                try:
                    self._control.execute(attachment.definition)
                except RowferryError as error:
                    raise TargetError(
                        f"its {attachment} cannot be made on the table that takes its place: {error.message}",
                        table=str(name),
                        hint="drop it, and go on",
                    ) from None

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        names = ", ".join(map(quote, columns))
        with self._control.atomic():
            rows = self._control.run(
                f"INSERT INTO {qualified(table.name)} ({names}) SELECT {names} FROM {qualified(staged)}"
            )
            self.drop(staged)
        return rows

    def set_sequences(self, table: Table) -> None:
        """Nothing: DuckDB 2.0 has no way to move a sequence, and none that rowferry made."""

    def disable_triggers(self, table: Table, disable: bool) -> None:
        if disable and table.triggers:
            raise TargetError("DuckDB cannot disable triggers", table=str(table.name), hint="drop them, or choose fire")

    def writer(self) -> DuckdbWriter:
        return DuckdbWriter(self._database, self._queue)

    def repair(
        self,
        table: Table,
        columns: tuple[ColumnPlan, ...],
        key: Sequence[str],
        delete: pa.RecordBatch | None,
        insert: Sequence[pa.RecordBatch],
    ) -> int:
        session, inserted = self._control, 0
        with session.atomic():
            if delete is not None and delete.num_rows:
                self._delete(table, key, delete)
            if insert:
                load = Load(session, table.name, *_columns(columns))
                inserted = load.insert(Block(batch) for batch in insert)
        return inserted

    def _delete(self, table: Table, key: Sequence[str], delete: pa.RecordBatch) -> None:
        if not key:
            raise TargetError("rows without a key cannot be told apart, so none can be deleted", table=str(table.name))
        keys = Load(self._control, table.name, tuple(key), [table.column(name).type for name in key])
        keys.stage([Block(delete)])
        tests = " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM {_STAGED}.{quote(name)}" for name in key)
        self._control.run(f"DELETE FROM {qualified(table.name)} t USING {_STAGED} WHERE {tests}")
        self._control.execute(f"DROP TABLE {_STAGED}")

    def asker(self) -> Asker:
        from rowferry.adapters.duckdb.asking import DuckdbAsker

        return DuckdbAsker(self._database, TargetError)

    def as_source(self) -> DuckdbSource:
        return DuckdbSource(self._database, shared=True)

    def close(self) -> None:
        self._lock.release_all()
        self._control.rollback()
        self._control.close()
        self._database.close()


def _default(column: Column, t: Type) -> str | None:
    """Numbers, truth values and texts are written alike everywhere; what else a literal means is the source's."""
    if column.default is None:
        return None
    plain = t.is_integer or t.kind in ("text", "char", "decimal", "float32", "float64", "bool")
    return column.default if plain else None


def key_columns(session: Session, name: TableName, *kinds: str) -> list[tuple[str, ...]]:
    """Column lists of the table's constraints of these kinds."""
    rows = session.execute(
        "SELECT constraint_type, constraint_column_names FROM duckdb_constraints() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?",
        (schema_of(name), name.name),
    )
    return [tuple(columns) for kind, columns in rows if kind in kinds]


def _columns(plans: Sequence[ColumnPlan]) -> tuple[list[str], list[Type]]:
    return [c.target for c in plans], [c.column.type for c in plans]


class Load:
    """The statements that bring batches of one shape into one table.

    names, types: the table's columns in the order of the batches', each in its ``type.arrow``.
    """

    def __init__(self, session: Session, name: TableName, names: Sequence[str], types: Sequence[Type]) -> None:
        self._session = session
        self._name = name
        self._names = tuple(names)
        self._types = tuple(types)
        natives = {c: str(native) for c, native in session.columns(f"SELECT * FROM {qualified(name)}")}
        gone = [c for c in self._names if c not in natives]
        if gone:
            raise TargetError(f"the table has no column {gone[0]!r} any more", table=str(name))
        # DuckDB's own spelling of the carriers, to compare types by.
        nulls = ", ".join(f"CAST(NULL AS {carrier(t)}) AS c{i}" for i, t in enumerate(self._types))
        self._carriers = [str(t) for _, t in session.columns(f"SELECT {nulls}")]
        values = [
            write_expression(f"c{i}", t, source, natives[c])
            for i, (c, t, source) in enumerate(zip(self._names, self._types, self._carriers, strict=True))
        ]
        self._select = f"SELECT {', '.join(values)} FROM {_VIEW}"
        self._select_named = (
            f"SELECT {', '.join(f'{v} AS {quote(c)}' for v, c in zip(values, self._names, strict=True))} FROM {_VIEW}"
        )
        arrays = [to_duckdb(pa.array([], t.arrow), t) for t in self._types]
        self._schema = pa.schema([pa.field(f"c{i}", a.type) for i, a in enumerate(arrays)])

    def _batches(self, blocks: Iterable[Block]) -> Iterator[pa.RecordBatch]:
        for block in blocks:
            arrays = []
            for i, t in enumerate(self._types):
                column = block.batch.column(i)
                if not column.type.equals(t.arrow):
                    raise TargetError(f"a batch carries {column.type} for {t}", column=self._names[i])
                try:
                    arrays.append(to_duckdb(column, t))
                except RowferryError as error:
                    raise error.at(column=self._names[i]) from None
            yield pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    @contextlib.contextmanager
    def _view(self, blocks: Iterable[Block]) -> Iterator[None]:
        with self._session.view(_VIEW, self._schema, self._batches(blocks)):
            # DuckDB must see each column as what we take it for: else it would cast by its own rules.
            seen = [str(t) for _, t in self._session.columns(f"SELECT * FROM {_VIEW}")]
            for name, t, expected, got in zip(self._names, self._types, self._carriers, seen, strict=True):
                if got != expected:
                    raise TargetError(f"DuckDB takes {t} for {got}, not {expected}", column=name)
            yield

    def insert(self, blocks: Iterable[Block]) -> int:
        """Inserts all rows; returns how many DuckDB says it has taken."""
        columns = ", ".join(map(quote, self._names))
        with self._view(blocks):
            return self._session.run(f"INSERT INTO {qualified(self._name)} ({columns}) {self._select}")

    def stage(self, blocks: Iterable[Block]) -> int:
        """Puts all rows into a table of this cursor's own, under the target's names; returns how many."""
        with self._view(blocks):
            self._session.execute(f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS {self._select_named}")
        return int(self._session.execute(f"SELECT count(*) FROM {_STAGED}")[0][0])

    def upsert(self, blocks: Iterable[Block], key: tuple[str, ...]) -> int:
        """Stages all rows, requires their keys to be unique, and merges them; returns the rows staged."""
        staged = self.stage(blocks)
        columns, keys = ", ".join(map(quote, self._names)), ", ".join(map(quote, key))
        self._check_keys(keys, key)
        place = qualified(self._name)
        if key in key_columns(self._session, self._name, "PRIMARY KEY", "UNIQUE"):
            rest = [quote(c) for c in self._names if c not in key]
            action = f"UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in rest)}" if rest else "NOTHING"
            self._session.run(
                f"INSERT INTO {place} ({columns}) SELECT {columns} FROM {_STAGED} ON CONFLICT ({keys}) DO {action}"
            )
        else:
            same = " AND ".join(f"t.{quote(k)} = s.{quote(k)}" for k in key)
            self._session.run(f"DELETE FROM {place} t USING {_STAGED} s WHERE {same}")
            self._session.run(f"INSERT INTO {place} ({columns}) SELECT {columns} FROM {_STAGED}")
        self._session.execute(f"DROP TABLE {_STAGED}")
        return staged

    def _check_keys(self, keys: str, key: tuple[str, ...]) -> None:
        """Of equal keys in one statement DuckDB keeps the first, without an error (measured)."""
        missing = " OR ".join(f"{quote(k)} IS NULL" for k in key)
        for test, reason in (
            (f"SELECT {keys} FROM {_STAGED} WHERE {missing} LIMIT 1", "is NULL"),
            (f"SELECT {keys} FROM {_STAGED} GROUP BY ALL HAVING count(*) > 1 LIMIT 1", "was sent more than once"),
        ):
            rows = self._session.execute(test)
            if rows:
                raise DataError(f"the key ({', '.join(key)}) {reason}", table=str(self._name), value=str(rows[0]))


class DuckdbWriter:
    """The protocol's Writer: one cursor, one transaction a chunk; the queue is in memory."""

    def __init__(self, database: Database, queue: ChunkQueue) -> None:
        self._database = database
        self._queue = queue
        self._session = database.session()
        self._held: tuple[str, ChunkRow] | None = None

    def claim(self, job: str) -> ChunkRow | None:
        chunk = self._queue.take(job)
        if chunk is None:
            return None
        self._held = (job, chunk)
        try:
            self._session.begin()
        except RowferryError:
            self.rollback()
            raise
        return chunk

    def pending(self, job: str) -> int:
        return self._queue.pending(job)

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        try:
            load = Load(self._session, request.name, *_columns(request.columns))
            if request.mode == "upsert":
                return load.upsert(blocks, request.key)
            return load.insert(blocks)
        except RowferryError as error:
            raise self._database.retried(error).at(table=str(request.name)) from None

    def mark(self) -> None:
        """Nothing: DuckDB has no savepoints, and a statement that fails ends the transaction."""

    def undo(self) -> None:
        self._session.rollback()
        self._session.begin()

    def begin(self) -> None:
        self._session.begin()

    def remove(self, name: TableName, column: str, values: Sequence[str]) -> int:
        marks = ", ".join("?" * len(values))
        return self._session.run(f"DELETE FROM {qualified(name)} WHERE {quote(column)} IN ({marks})", tuple(values))

    def finish(self, job: str, chunk: ChunkRow) -> None:
        sql_ledger.finish(self._session, _LEDGER, job, chunk)

    def commit(self) -> None:
        self._session.commit()
        if self._held is not None:
            self._queue.done(*self._held)
            self._held = None

    def rollback(self) -> None:
        self._session.rollback()
        if self._held is not None:
            self._queue.give_back(*self._held)
            self._held = None

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        session = self._database.session(LedgerError)
        try:
            return sql_ledger.is_done(session, _LEDGER, job, chunk)
        finally:
            session.close()

    def close(self) -> None:
        self.rollback()
        self._session.close()
