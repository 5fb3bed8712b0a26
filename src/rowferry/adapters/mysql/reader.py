"""One reader of the source: a chunk's SELECT, and what its columns need before and after the decoder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters import servers
from rowferry.adapters.mysql import types, wire
from rowferry.adapters.mysql.chunks import select_from
from rowferry.adapters.mysql.declared import DATED, parse
from rowferry.adapters.mysql.failure import number_of
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import Block, ReadRequest
from rowferry.errors import DataError, RowferryError, SourceError
from rowferry.model import Column
from rowferry.types import Type

#: After a chunk, the locks on definitions that it took go with it (but see ``snapshot.unlogged``), and an ALTER
#: TABLE need not wait for the whole job.
SAVEPOINT = "rowferry"
#: How long the rest of an answer that nobody wants may take to end, once its statement was killed (seconds).
ABANDON_PATIENCE_S = 2.0
#: The table was altered or emptied since the snapshot, which the server finds when it is read.
_DEFINITION_CHANGED = 1412
_LOCK_WAIT = 1205
_DAY_US = 86_400_000_000


class Snapshot(servers.Snapshot[MysqlSession], Protocol):
    """What a reader needs of its source."""

    #: The database of names without a schema.
    database: str

    def policy(self, table: str, column: str) -> str | None: ...

    def kill_query(self, session: MysqlSession) -> None:
        """Ends the statement that the session is in; the session stays. Never raises."""


class MysqlReader(servers.SnapshotReader[MysqlSession]):
    """The protocol's Reader: one session of the snapshot, from a chunk to the next."""

    def __init__(self, source: Snapshot) -> None:
        super().__init__(source)
        self._source = source

    def read(self, request: ReadRequest) -> Iterator[Block]:
        table = str(request.table.name)
        columns = _Columns(request, self._source)
        sql = f"SELECT {columns.sql} {select_from(request.table, self._source.database, request.bound, request.where)}"
        session = self._open()
        rows: wire.Rows | None = None
        try:
            session.query(f"SAVEPOINT {SAVEPOINT}")
            rows = wire.read_batches(
                session.connection, sql, columns.carriers, columns.names, request.batch_bytes,
                null_dates=columns.null_dates,
            )  # fmt: skip
            for batch in rows:
                finished = columns.finished(batch)
                yield Block(finished, touched=columns.touched(rows.settled))
                del batch, finished
        except RowferryError as error:
            error.at(table=table)
            if number_of(error) == _DEFINITION_CHANGED:
                raise SourceError(
                    "the table was altered or emptied while it was read",
                    table=table,
                    code=error.code,
                    hint="run the same command again",
                ) from None
            if number_of(error) == _LOCK_WAIT:
                error.hint = "another session's ALTER TABLE or LOCK TABLES keeps readers out"
            raise
        finally:
            if rows is not None:
                self._end(session, rows)

    def _end(self, session: MysqlSession, rows: wire.Rows) -> None:
        """Leaves the session between two statements (closed where that cannot be). Never raises.

        A session that is closed has lost its snapshot, so rows that nobody wants any more are not answered
        by hanging up: their statement is killed, and what was under way is read to its end.
        """
        try:
            if next(rows, None) is not None:
                self._source.kill_query(session)
                until = time.monotonic() + ABANDON_PATIENCE_S
                while time.monotonic() < until and next(rows, None) is not None:
                    pass
        except RowferryError:
            # The statement's end by KILL; any other failure has closed the session.
            with contextlib.suppress(RowferryError):
                session.query("DO 0")  # a KILL that came too late ends this one instead
        rows.close()
        with contextlib.suppress(RowferryError):
            if not session.closed:
                session.query(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")


class _Columns:
    """The columns of one SELECT: what is asked of the server, what the decoder takes, what the caller gets.

    Behind the wanted columns come those that say whether a value beside them is what it seems
    (``types.unfit_expression``), where only the server knows.
    """

    def __init__(self, request: ReadRequest, source: Snapshot) -> None:
        self._table = str(request.table.name)
        self._source = source
        self._wanted = [(request.table.column(name), form) for name, form in request.columns]
        self._schema = pa.schema([pa.field(name, form.arrow) for name, form in request.columns])
        self.names = [name for name, _ in request.columns]
        self.carriers = [types.carrier(column, form) for column, form in self._wanted]
        self.null_dates: list[bool] = []
        #: Position of a wanted column → position of the one that tells of it, and whether the policy is null.
        self._told: dict[int, tuple[int, bool]] = {}
        #: Values that were made NULL until now: by the server, and those that :meth:`touched` has told of.
        self._nulled, self._said = [0] * len(self._wanted), [0] * len(self._wanted)
        expressions = [self._expression(i, column, form) for i, (column, form) in enumerate(self._wanted)]
        for i, (column, form) in enumerate(self._wanted):
            if i in self._told:
                self._told[i] = (len(expressions), self._told[i][1])
                expressions.append(types.unfit_expression(column, form) or "0")
                self.names.append(f"unfit {column.name}")
                self.carriers.append(Type("int32"))
                self.null_dates.append(False)
        #: Columns whose values come as text, too, where they are no values of their forms; their first position.
        self._unread, self._unread_at = request.unread, len(expressions)
        for name in request.unread:
            column, form = next((c, f) for c, f in self._wanted if c.name == name)
            expressions.append(types.unread_expression(column, form))
            self.names.append(f"unread {name}")
            self.carriers.append(Type("text"))
            self.null_dates.append(False)
            self._schema = self._schema.append(pa.field(f"unread {name}", Type("text").arrow))
        # A row of nothing is still a row, which has to be counted.
        if not expressions:
            self.names, self.carriers, self.null_dates = [""], [Type("int32")], [False]
        self.sql = ", ".join(expressions) or "1"

    def _expression(self, i: int, column: Column, form: Type) -> str:
        declared = parse(column.native)
        null = self._source.policy(self._table, column.name) in ("null", "quarantine")
        dated = declared is not None and declared.name in DATED and form.kind in ("date", "timestamp", "timestamptz")
        self.null_dates.append(null and dated)
        if dated:
            return types.select_expression(column, form)
        if types.unfit_expression(column, form) is not None and (null or types.is_silent(column, form)):
            self._told[i] = (-1, null)
        return types.select_expression(column, form, "null" if null else None)

    def finished(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch of the wanted columns in their forms. Raises DataError for a value that is not what it seems."""
        if not self._wanted:
            return pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), batch.num_rows, [None]))
        for i, (at, null) in self._told.items():
            count = pc.sum(batch.column(at)).as_py() or 0
            if count and not null:
                column, form = self._wanted[i]
                raise DataError(
                    f"{count} values of this batch are not what the server sends for them: they are no {form}",
                    table=self._table,
                    column=column.name,
                    hint="give the column the policy null or text",
                )
            self._nulled[i] += count
        arrays = [self._formed(i, batch.column(i)) for i in range(len(self._wanted))]
        arrays += [batch.column(self._unread_at + i) for i in range(len(self._unread))]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _formed(self, i: int, array: pa.Array) -> pa.Array:
        """An array of the decoder's as the form has it."""
        column, form = self._wanted[i]
        if form.kind == "enum" and form.labels and "" not in form.labels and pc.any(pc.equal(array, "")).as_py():
            raise DataError(
                "the ENUM's invalid value '' (number 0), which is none of its labels",
                table=self._table,
                column=column.name,
                hint="give the column the policy null or text",
            )
        if self.carriers[i].arrow.equals(form.arrow):
            return array
        if form.kind == "time":
            extremes = pc.min_max(array.view(pa.int64())).as_py()
            if extremes["min"] is not None and not (extremes["min"] >= 0 and extremes["max"] <= _DAY_US):
                raise DataError("a TIME that is no time of a day", table=self._table, column=column.name)
            return array.view(pa.int64()).view(form.arrow)
        from rowferry.adapters.mysql import nested

        try:
            if form.kind == "interval":
                return nested.intervals_from_text(array)
            return nested.from_json(array, form)
        except RowferryError as error:
            raise error.at(table=self._table, column=column.name) from None

    def touched(self, settled: list[int]) -> dict[str, int] | None:
        """What the policy null made NULL in the rows since it was last asked. ``settled``: of all rows until now,
        as the decoder counted them, by its columns."""
        counts = {}
        for i, (column, _) in enumerate(self._wanted):
            count = settled[i] + self._nulled[i]
            if count > self._said[i] and column.name not in self._unread:
                counts[column.name] = count - self._said[i]
                self._said[i] = count
        return counts or None
