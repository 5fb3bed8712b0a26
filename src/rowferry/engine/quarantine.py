"""The quarantine of a copy: rows that cannot be carried are kept in the target, in their chunk's own transaction.

convert fails ─┐
the transform  ├─► Aside (one chunk's) ─► rowferry_quarantine ─► COMMIT with the chunk's rows
the target     ┘
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry import convert, limits
from rowferry.adapters import registry
from rowferry.adapters.protocol import Block, Capabilities, ReadRequest, Target, Writer, WriteRequest
from rowferry.engine.bisect import Search, refuses_rows
from rowferry.engine.report import TableReport
from rowferry.engine.request import Request
from rowferry.engine.scan import reading
from rowferry.engine.spool import Spool
from rowferry.engine.transfer import TableWay
from rowferry.errors import DataError, LedgerError, RefusedError, RowferryError, StoppedError
from rowferry.model import (
    QUARANTINE_NAME,
    ChunkRow,
    Column,
    ColumnPlan,
    Comparison,
    Digest,
    Plan,
    Refusal,
    Table,
    TableName,
    TablePlan,
    add_counts,
)
from rowferry.stages import quarantine as kept
from rowferry.stages.digest import Digester
from rowferry.stages.flow import Refused
from rowferry.types import Type


def place(caps: Capabilities, ledger_schema: str) -> TableName:
    """Where the quarantine stands: beside the ledger. There rowferry has made tables already, nothing of it is copied
    or compared, and who drops the ledger drops it too."""
    return TableName(ledger_schema if caps.ledger_schema else None, QUARANTINE_NAME)


def table_plan(target: Target, name: TableName) -> TablePlan:
    """The way of our own columns into the quarantine's table. Raises RefusedError where they do not fit."""
    standing = target.describe(name)
    columns: list[ColumnPlan] = []
    for called, t, nullable in kept.COLUMNS:
        made = target.plan_column(Column(called, t, nullable, forms=(t,)), t)
        if isinstance(made, Refusal):
            raise RefusedError(f"the quarantine cannot be made: {made.reason}", table=str(name), column=called)
        if standing is not None:
            try:
                made = standing.column(called)
            except KeyError:
                raise RefusedError(
                    f"the quarantine has no column {called!r}: it is not of this version of rowferry",
                    table=str(name),
                    hint="send its rows again with the version that made it, or give the table another name",
                ) from None
        columns.append(ColumnPlan(called, t, called, made, Comparison(t, made.type, "")))
    table = Table(name, tuple(c.column for c in columns), primary_key=("id",))
    return TablePlan(0, table, standing or table, tuple(columns), exists=standing is not None)


def maker(target: Target, name: TableName) -> Callable[[], None]:
    """What makes the table, where there is none; it is idempotent."""
    plan = table_plan(target, name)

    def make() -> None:
        if not plan.exists:
            target.create_table(plan.target, name, "rowferry")
            target.add_keys(plan.target, name)

    return make


class Keeper:
    """Writes kept rows into the quarantine's table, and takes them out of it. For one target; of any thread."""

    def __init__(self, target: Target, name: TableName) -> None:
        self.name = name
        self._way = TableWay(table_plan(target, name))

    def write(self, writer: Writer, rows: Sequence[kept.Kept], chunk: ChunkRow | None = None) -> None:
        """Adds n rows in the open transaction. chunk: the one that they were set aside of."""
        if not rows:
            return
        request = WriteRequest(
            self._way.plan.target,
            self.name,
            self._way.plan.columns,
            job=rows[0].job,
            table_index=chunk.table if chunk else 0,
            chunk=chunk.number if chunk else 0,
        )
        accepted = writer.write(request, [Block(self._way.convert(kept.batch_of(rows), {}))])
        if accepted != len(rows):
            raise LedgerError(f"{len(rows):,} rows were sent to the quarantine, and it took {accepted:,}")

    def remove(self, writer: Writer, rows: Sequence[kept.Kept]) -> None:
        """Takes n rows out, in the open transaction."""
        gone = writer.remove(self.name, "id", [row.id for row in rows])
        if gone != len(rows):
            raise LedgerError(
                f"{gone:,} of {len(rows):,} rows were still in the quarantine: another process sends them again",
                transient=True,
            )


def options_of(request: Request) -> dict[str, Any]:
    """What a plan says of its quarantine: where it is."""
    name = place(registry.capabilities(request.target.engine), request.ledger_schema)
    return {"quarantine": [name.schema, name.name], "max_quarantined": request.max_quarantined}


def of_job(target: Target, job: str, plan: Plan, request: Request) -> Quarantine:
    """The quarantine of a job that this process works on."""
    rows_max = limits.QUARANTINED_MAX if request.max_quarantined is None else request.max_quarantined
    savepoints = registry.capabilities(request.target.engine).savepoints
    return Quarantine(target, job, plan, target.ledger.chunks(job), savepoints, rows_max)


class Quarantine:
    """What the workers of one process share of a job's quarantine."""

    def __init__(
        self, target: Target, job: str, plan: Plan, chunks: Sequence[ChunkRow], savepoints: bool, rows_max: int
    ) -> None:
        self.job = job
        self.savepoints = savepoints
        schema, name = plan.options["quarantine"]
        self.keeper = Keeper(target, TableName(schema, name))
        self.rows_max: int = rows_max
        self._rows = sum(c.rows_quarantined for c in chunks if c.state == "done")
        self._lock = threading.Lock()

    def aside(self, chunk: ChunkRow) -> ChunkAside:
        """For one try of a chunk."""
        return ChunkAside(self, chunk)

    def check_room(self, more: int, last: kept.Set) -> None:
        """Raises DataError where ``more`` rows beside those that are kept already are too many."""
        if self._rows + more > self.rows_max:
            where = f" of column {last.column!r}" if last.column else ""
            raise DataError(
                f"more than {self.rows_max:,} rows would be quarantined; the last one{where}: {last.reason}",
                hint="mend what they have in common, or go on with a larger --max-quarantined",
            )

    def reserve(self, rows: int, last: kept.Set) -> None:
        with self._lock:
            self.check_room(rows, last)
            self._rows += rows

    def give_back(self, rows: int) -> None:
        with self._lock:
            self._rows -= rows


class ChunkAside:
    """The rows of one try of a chunk that were set aside, of all tables that it feeds. Held as texts; never more than
    the job may set aside."""

    def __init__(self, quarantine: Quarantine, chunk: ChunkRow) -> None:
        self._quarantine = quarantine
        self._chunk = chunk
        self._reserved = 0
        self._bytes = 0
        self._rows: list[tuple[TablePlan, kept.Set]] = []

    def of(self, plan: TablePlan) -> Aside:
        """Takes the rows of one table."""
        return Aside(self, plan)

    def add(self, plan: TablePlan, row: kept.Set) -> None:
        self._quarantine.check_room(len(self._rows) + 1, row)
        self._bytes += len(row.row_data)
        if self._bytes > limits.QUARANTINED_BYTES_MAX:
            raise DataError(
                f"the rows of this chunk that would be quarantined are larger than "
                f"{limits.QUARANTINED_BYTES_MAX >> 20} MiB; the last one: {row.reason}",
                hint="mend what they have in common, or leave them out with --where",
            )
        self._rows.append((plan, row))

    def write(self, writer: Writer) -> None:
        """Writes the rows into the quarantine, in the chunk's transaction; what an earlier state of the source had
        left there of this chunk goes."""
        chunk, quarantine = self._chunk, self._quarantine
        chunk_id = f"{quarantine.job}/{chunk.table}/{chunk.number}"
        if chunk.bound.physical:
            writer.remove(quarantine.keeper.name, "chunk_id", [chunk_id])
        if not self._rows:
            return
        quarantine.reserve(len(self._rows), self._rows[-1][1])
        self._reserved = len(self._rows)
        rows = [self._kept(f"{chunk_id}/{n}", chunk_id, plan, row) for n, (plan, row) in enumerate(self._rows)]
        quarantine.keeper.write(writer, rows, chunk)

    def _kept(self, id: str, chunk_id: str, plan: TablePlan, row: kept.Set) -> kept.Kept:
        return kept.Kept(
            id,
            chunk_id,
            self._quarantine.job,
            plan.index,
            str(plan.source.name),
            str(plan.target.name),
            self._chunk.number,
            row.stage,
            row.row_key,
            row.column,
            row.reason,
            row.row_data,
        )

    def end(self, *, committed: bool) -> None:
        """The chunk is committed, or is given back."""
        if self._reserved and not committed:
            self._quarantine.give_back(self._reserved)
        self._reserved = 0


class Aside:
    """One table's part of them: the chunk's own, or one that it feeds beside that."""

    def __init__(self, chunk: ChunkAside, plan: TablePlan) -> None:
        self.chunk = chunk
        self._plan = plan
        self._passed = tuple((c.source, c.form) for c in plan.columns)
        self._converted = tuple((c.target, c.column.type) for c in plan.columns)
        names = {c.target: c.source for c in plan.columns}
        # What a function gives to a further table has no key of the source's.
        self._target_key = [k for k in plan.key or plan.target.identifying_key if k in names]
        self._key = tuple(names[k] for k in self._target_key)
        comparisons = [c.comparison for c in plan.columns]
        self._digests = Digester(comparisons, "source"), Digester(comparisons, "target")
        #: How many they are.
        self.rows = 0

    @property
    def digest(self) -> Digest:
        """Of the rows that were set aside after the transform, or where there is none."""
        return self._digests[0].digest + self._digests[1].digest

    def _add(self, row: kept.Set) -> None:
        self.chunk.add(self._plan, row)
        self.rows += 1

    def refused(self, refused: Refused) -> None:
        """A row that the transform set aside."""
        reads = dict(self._plan.reads)
        forms = [(name, reads[name]) for name in refused.row.schema.names]
        key = self._plan.source.identifying_key
        self._add(kept.set_aside(refused.row, 0, forms, key, kept.READ, refused.column, refused.reason))

    def unread(self, rows: pa.RecordBatch) -> None:
        """Rows of which the source could not read all values: with the texts of those (``ReadRequest.unread``)."""
        plan = self._plan
        forms, stage, key = self._passed, kept.PASSED, self._key
        if plan.transform is not None:
            forms, stage, key = plan.reads, kept.READ, plan.source.identifying_key
        told = rows.num_columns - len(plan.unread)
        for index in range(rows.num_rows):
            texts = {name: rows.column(told + i)[index].as_py() for i, name in enumerate(plan.unread)}
            texts = {name: text for name, text in texts.items() if text is not None}
            column, text = next(iter(texts.items()))
            reason = f"the source holds a value that is no {dict(forms)[column]} (value: {text})"
            self._add(kept.set_aside(rows, index, forms, key, stage, column, reason, texts))

    def convert(self, way: TableWay, batch: pa.RecordBatch, touched: dict[str, int]) -> pa.RecordBatch:
        """``way.convert`` of the rows that it takes; the others are set aside."""
        seen: dict[str, int] = {}
        try:
            converted = way.convert(batch, seen)
        except DataError as error:
            if error.transient:
                raise
            seen = {}
            converted = way.convert(kept.sift(batch, lambda rows: way.convert(rows, {}), self._unfit(batch)), seen)
        add_counts(touched, seen)
        return converted

    def _unfit(self, batch: pa.RecordBatch) -> Callable[[int, DataError], None]:
        def found(index: int, error: DataError) -> None:
            self._digests[0].add(batch.slice(index, 1))
            self._add(
                kept.set_aside(batch, index, self._passed, self._key, kept.PASSED, error.column, kept.reason_of(error))
            )

        return found

    def refused_by_target(self, row: pa.RecordBatch, error: RowferryError) -> None:
        """A row, as it was sent, that the target does not take."""
        self._digests[1].add(row)
        self._add(
            kept.set_aside(
                row, 0, self._converted, self._target_key, kept.CONVERTED, error.column, kept.reason_of(error)
            )
        )


class Watched:
    """Iterates blocks and remembers whether they themselves failed: then it was not the target that refused rows."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = blocks
        self.failed = False

    def __iter__(self) -> Iterator[Block]:
        try:
            yield from self._blocks
        except Exception:
            self.failed = True
            raise

    def refused_by_target(self, error: RowferryError) -> bool:
        return not self.failed and refuses_rows(error)


class Sifting:
    """Loads the tables of a chunk that the target refused as it was, one after the other, each without the rows that
    it refuses.

    To ``Search`` it is the writer: where the engine has no savepoints, a trial load that is undone takes with it what
    the chunk had loaded before, of other tables, which is then loaded again.
    """

    def __init__(self, writer: Writer, savepoints: bool, stop: threading.Event) -> None:
        self._writer = writer
        self._savepoints = savepoints
        self._stop = stop
        self._before: list[Search] = []

    def load(self, request: WriteRequest, spool: Spool, aside: Aside) -> tuple[int, Digest]:
        """Returns how many rows were loaded, and the digest of those that were set aside. ``spool`` stays open until
        the chunk is loaded."""

        def refused(row: int, error: RowferryError) -> None:
            aside.refused_by_target(next(spool.batches(row, row + 1)), error)

        before = aside.digest
        search = Search(self, request, spool, refused, self._check)
        self.mark()
        loaded = search.load(self._savepoints)
        self._before.append(search)
        return loaded, aside.digest - before

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped")

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        return self._writer.write(request, blocks)

    def mark(self) -> None:
        self._writer.mark()

    def undo(self) -> None:
        self._writer.undo()
        if not self._savepoints:
            for search in self._before:
                search.load_again()


# --- looking into it ---------------------------------------------------------------------------


def rows_in(target: Target, name: TableName) -> Iterator[pa.RecordBatch]:
    """All rows of the quarantine, in the types of ``kept.COLUMNS``."""
    with reading(target, 1) as written:
        table = written.describe(name, census=False)
        if table is None:
            return
        columns = tuple((called, table.column(called).type) for called, _, _ in kept.COLUMNS)
        ways = [_exactly(form, t) for (_, form), (_, t, _) in zip(columns, kept.COLUMNS, strict=True)]
        reader = written.reader()
        try:
            for bound in written.split(table, None, limits.CHUNK_BYTES, 0):
                for block in reader.read(ReadRequest(table, columns, bound)):
                    arrays = [way.apply(block.batch.column(i))[0] for i, way in enumerate(ways)]
                    yield pa.RecordBatch.from_arrays(arrays, names=[called for called, _ in columns])
        finally:
            reader.close()


def _exactly(form: Type, to: Type) -> convert.Conversion:
    way = convert.conversion(form, to)
    if isinstance(way, str):
        raise LedgerError(f"the quarantine cannot be read: {way}", hint="another version of rowferry made it")
    return way


def account_for(
    target: Target, job: str, plan: Plan, reports: Sequence[TableReport], notes: list[str]
) -> list[TableReport]:
    """The reports of a proof in which rows that the target lacks, and that stand in the quarantine, are no difference:
    each by its key, and only where nothing else differs. notes: gets a sentence for each such table."""
    out = list(reports)
    for index, report in enumerate(reports):
        named = [row.key for row in report.named if row.kind == "missing"]
        if report.equal is not False or report.extra or report.changed or len(named) != report.missing:
            continue
        if report.missing > report.rows_quarantined:
            continue
        aside = {
            tuple(map(str, json.loads(row.row_key).values()))
            for batch in rows_in(target, TableName(*plan.options["quarantine"]))
            for row in kept.kept_in(batch)
            if row.job == job and row.table_index == plan.tables[index].index and row.row_key is not None
        }
        if all(tuple(map(str, key.values())) in aside for key in named):
            out[index] = msgspec.structs.replace(report, equal=True, missing=0, named=())
            notes.append(
                f"table {report.target!r}: the {report.missing:,} rows that it lacks are in the quarantine, by key"
            )
    return out
