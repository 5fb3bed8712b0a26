"""Where a table's dedup meets its job: what the plan refuses, where its rows are loaded, and what is known again
when the job is taken up.

What finished chunks have claimed is read back from the target, where it is exact by itself: a chunk's rows are
there if and only if the chunk is done. Nothing has to be written beside them that could contradict them.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters.protocol import Source, Target
from rowferry.engine import winners
from rowferry.engine.request import Request
from rowferry.engine.scan import Consumer, Side, Sieve, reading
from rowferry.engine.transfer import TableWay
from rowferry.errors import ConfigError, RowferryError
from rowferry.model import ChunkRow, Plan, StepRow, Table, TableName, TablePlan
from rowferry.stages.dedup import Keys, TableDedup, way_of
from rowferry.stages.spec import Dedup

if TYPE_CHECKING:
    from rowferry.engine.duplicates import Duplicates
    from rowferry.engine.worker import Shared


def dedup_of(plan: TablePlan) -> Dedup:
    return msgspec.convert(plan.dedup, Dedup)


def all_problems(plans: Sequence[TablePlan], request: Request, asked: bool) -> list[str]:
    """What is in the way of the tables' dedups, in plain words. asked: loose keys of tables that stand already are
    asked about (``colliding``)."""
    out = [problem for plan in plans for problem in problems(plan, request, asked)]
    if request.keep_duplicates is not None:
        from rowferry.engine import duplicates

        if all(plan.dedup is None for plan in plans):
            out.append("--keep-duplicates: no table has a dedup in the config")
        elif (problem := duplicates.problem(request.keep_duplicates)) is not None:
            out.append(problem)
    return out


def problems(plan: TablePlan, request: Request, asked: bool) -> list[str]:
    """The same for one table."""
    if plan.dedup is None:
        return []
    dedup, name = dedup_of(plan), f"table {str(plan.source.name)!r}: dedup"
    try:
        way, column = way_of(dedup)
    except ConfigError as error:
        return [f"{name}: {error}"]
    out = []
    if request.join:
        out.append(
            f"{name}: with --join another process would drop rows whose keys this one has claimed, which neither "
            "knows of the other; leave out --join, and give this one more --workers"
        )
    if len(set(dedup.by)) != len(dedup.by):
        out.append(f"{name}: a column comes twice in by = [{', '.join(dedup.by)}]")
    if dedup.against_target and (way != "any" or request.mode != "append"):
        out.append(f'{name}: against_target goes with keep = "any" and --mode append')
    if request.mode == "upsert" and way == "any":
        out.append(
            f"{name}: after a resume it could not be told which of the target's rows an upsert has written, so that "
            'another row of the same key could win; choose keep = "last by COLUMN" (or "first by COLUMN")'
        )
    if column is not None:
        planned = next(c for c in plan.columns if c.target == column)
        if (why := winners.unordered(planned.form)) is not None:
            out.append(f"{name}, column {column!r}: {why}")
    if asked and plan.exists and plan.load_name is None:
        return out
    return out + [f"{name}, {why}" for why in _loose(plan, dedup, request)]


def _loose(plan: TablePlan, dedup: Dedup, request: Request) -> list[str]:
    """Key columns by which the target could take two keys for one, where nobody can be asked."""
    by = dedup.by or tuple(c.target for c in plan.columns)
    keyed = {name for key in (plan.target.primary_key, *plan.target.unique_keys) for name in key}
    out = []
    for name in by:
        column = plan.target.column(name)
        loose = column.collation is not None or column.type.kind == "opaque"
        if name in keyed and loose and not _is_kept(plan, name, request):
            how = f"by {column.collation}" if column.collation is not None else f"as {column.native}"
            out.append(
                f"column {name!r}: the target's key compares it {how}, so that two keys could be one there; bring it "
                f'to one spelling (set = {{ {name} = "lower({name})" }}) into a column that is compared by its bytes'
            )
    return out


def _is_kept(plan: TablePlan, name: str, request: Request) -> bool:
    """Whether a key column of a table that will be made is compared as in the source, whose keys the table gets."""
    if plan.exists or request.source.engine != request.target.engine:
        return False
    column = next(c for c in plan.columns if c.target == name)
    theirs = (plan.derived or plan.source).column(column.source)
    return (theirs.native, theirs.collation) == (column.column.native, column.column.collation)


def gathers(plan: TablePlan, mode: str) -> bool:
    """Whether rows are to be added to the target's all at once, at the end: beside the target's own rows a resume
    could not tell what its finished chunks have claimed."""
    return plan.dedup is not None and mode == "append" and plan.exists and not dedup_of(plan).against_target


def is_ranked(plan: TablePlan) -> bool:
    """Whether it is looked for winners before the copy."""
    return plan.dedup is not None and way_of(dedup_of(plan))[0] != "any"


def makes_unique(plan: TablePlan) -> bool:
    """Whether what is sent has each key of an upsert once, whatever the source has."""
    if plan.dedup is None:
        return False
    by = dedup_of(plan).by
    return bool(by) and set(by) <= set(plan.key)


@contextlib.contextmanager
def winner_steps(
    source: Source, tables: Sequence[TablePlan], first_number: int, workers: int, stop: threading.Event
) -> Iterator[Iterator[StepRow]]:
    """The first pass over all tables that need one: what the ledger is to keep of it."""
    with winners.Found() as found:
        for plan in tables:
            if is_ranked(plan):
                try:
                    found.add(plan.index, winners.find(source, plan, workers, stop))
                except RowferryError as error:
                    raise error.at(table=str(plan.source.name))  # noqa: B904 - the same error
        yield found.steps(first_number)


@contextlib.contextmanager
def deduplicating(shared: Shared, request: Request, stop: threading.Event) -> Iterator[Duplicates | None]:
    """While workers are at work: ``shared.dedups`` knows what the chunks that are done have claimed. Gives the file
    of what is left out, where it is wanted, whose journal is closed at the end."""
    chunks = shared.target.ledger.chunks(shared.job)
    file = None
    if request.keep_duplicates is not None:
        from rowferry.engine.duplicates import Duplicates

        file = Duplicates(request.keep_duplicates, shared.job, shared.plan.tables, chunks)
    try:
        shared.dedups = open_dedups(shared.target, shared.job, shared.plan, chunks, request.dedup_bytes, stop, file)
        yield file
    finally:
        close(shared.dedups)
        if file is not None:
            file.close()


def open_dedups(
    target: Target,
    job: str,
    plan: Plan,
    chunks: Sequence[ChunkRow],
    memory_bytes: int,
    stop: threading.Event,
    duplicates: Duplicates | None = None,
) -> dict[int, TableDedup]:
    """What has been claimed, by table, as it stands in the target and in the ledger; memory_bytes: of all together."""
    asked = [table for table in plan.tables if table.dedup is not None]
    out: dict[int, TableDedup] = {}
    try:
        for table in asked:
            out[table.index] = one = TableDedup(
                dedup_of(table),
                [c.target for c in table.columns],
                [c.comparison for c in table.columns],
                memory_bytes // len(asked),
                ranked=is_ranked(table),
                # What a catalog says; a condition or a transform may leave fewer, which then have too much room.
                rows_expected=max(0, table.source.rows) if table.where is None else 0,
            )
            if duplicates is not None:
                one.taker_of = functools.partial(duplicates.of, table)
            if one.winners is not None:
                winners.load(one, table, target.ledger.winners(job, table.index))
            begun = any(c.table == table.index and c.state == "done" for c in chunks)
            if table.dedup is not None and dedup_of(table).against_target and table.exists:
                _know(target, table, table.target, one, stop)
            if begun and plan.mode != "upsert" and not (dedup_of(table).against_target and table.load_name is None):
                _know(target, table, _loaded(table), one, stop)
    except BaseException:
        close(out)
        raise
    return out


def _loaded(plan: TablePlan) -> Table:
    """The table that the job's rows are in."""
    name: TableName = plan.load_name or plan.target.name
    return msgspec.structs.replace(plan.target, name=name)


def _know(target: Target, plan: TablePlan, table: Table, dedup: TableDedup, stop: threading.Event) -> None:
    """Reads what a table of the target holds into the dedup: the columns of its keys."""
    there = msgspec.structs.replace(plan, target=table)
    with reading(target, 1) as written:
        keys = dedup.keys()

        def take(batch: pa.RecordBatch) -> None:
            dedup.know(keys.of_narrow(batch))

        consumers: list[Consumer] = [take]
        with Side(written, there, "target", 1, columns=keys.columns, stop=stop) as side:
            side.scan(consumers)


def close(dedups: dict[int, TableDedup]) -> None:
    for dedup in dedups.values():
        dedup.close()


# --- verifying -------------------------------------------------------------------------------


@contextlib.contextmanager
def sieve(
    source: Source, target: Source, plan: TablePlan, workers: int, memory_bytes: int, stop: threading.Event | None
) -> Iterator[Sieve]:
    """What lets those rows of the source through that a copy would have kept.

    With ``keep = "any"`` that may be any row of a key: it is the one that the target has, if it has one.
    """
    dedup = dedup_of(plan)
    names, comparisons = [c.target for c in plan.columns], [c.comparison for c in plan.columns]
    ranked = TableDedup(dedup, names, comparisons, memory_bytes, ranked=True)
    there = None
    try:
        if is_ranked(plan):
            parts = winners.find(source, plan, workers, stop)
        else:
            there = held = _There(target, plan, memory_bytes // 2, stop)
            parts = winners.ranked(source, plan, lambda batch, rows: held.has(rows), workers, stop, last=True)
        for keys, rows in parts:
            ranked.rank(keys, rows)
        if not dedup.against_target and there is not None:
            there.close()
            there = None
        yield lambda consumers: _sieved(plan, ranked.fresh(), there, consumers)
    finally:
        ranked.close()
        if there is not None:
            there.close()


class _There:
    """The rows that the target holds, and their keys. The methods are thread-safe."""

    def __init__(self, target: Source, plan: TablePlan, memory_bytes: int, stop: threading.Event | None) -> None:
        names, comparisons = [c.target for c in plan.columns], [c.comparison for c in plan.columns]
        by = dedup_of(plan).by
        self._rows = TableDedup(Dedup(), names, comparisons, memory_bytes // 2)
        self._keys = TableDedup(Dedup(by=by), names, comparisons, memory_bytes // 2)
        rows, keys = self._rows.keys(), self._keys.keys()

        def take(batch: pa.RecordBatch) -> None:
            self._rows.know(rows.of(batch))
            self._keys.know(keys.of(batch))

        consumers: list[Consumer] = [take]
        with Side(target, plan, "target", 1, stop=stop) as side:
            side.scan(consumers)

    def has(self, rows: bytes) -> pa.BooleanArray:
        """n booleans: whether it holds just this row."""
        return self._rows.knows(rows)

    def stands_for(self, keys: bytes, rows: bytes) -> pa.BooleanArray:
        """n booleans: whether it holds another row of this key, and not this one."""
        return pc.and_not(self._keys.knows(keys), self._rows.knows(rows))

    def close(self) -> None:
        self._rows.close()
        self._keys.close()


def _sieved(plan: TablePlan, dedup: TableDedup, there: _There | None, consumers: list[Consumer]) -> list[Consumer]:
    """Consumers for one scan: of rows that are alike in all columns one passes, whichever thread meets it."""

    def around(number: int, consumer: Consumer) -> Consumer:
        way, chunk = TableWay(plan), dedup.begin(number)
        keys, rows = Keys(dedup.columns, way.comparisons, dedup.dedup.by), Keys(dedup.columns, way.comparisons, ())
        columns = list(range(len(plan.columns)))

        def take(batch: pa.RecordBatch) -> None:
            sent = way.convert(batch.select(columns), {})
            mask = chunk.mask(sent)
            if there is not None:
                theirs = pc.invert(there.stands_for(keys.of(sent), rows.of(sent)))
                mask = theirs if mask is None else pc.and_(mask, theirs)
            batch = batch if mask is None else batch.filter(mask)
            if batch.num_rows:
                consumer(batch)

        return take

    return [around(number, consumer) for number, consumer in enumerate(consumers)]
