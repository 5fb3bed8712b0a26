"""Pairs two databases for verify: which table with which, which column with which, compared as what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from rowferry import selection
from rowferry.adapters import registry
from rowferry.adapters.protocol import Source, Target
from rowferry.engine import planner, spelling
from rowferry.engine.request import Request
from rowferry.engine.scan import blamed_on_target
from rowferry.errors import ConfigError
from rowferry.model import Column, ColumnPlan, Comparison, Table, TableName, TablePlan
from rowferry.stages import digest
from rowferry.types import TEXTS, Type

if TYPE_CHECKING:
    from rowferry.engine.job_starts import Begun
    from rowferry.engine.transforming import Asked, Passage


class Unlike(msgspec.Struct, frozen=True):
    """Two tables whose columns are not the same ones: their rows cannot be compared."""

    source: Table
    target: Table
    reasons: tuple[str, ...]


class Pairs(msgspec.Struct):
    """What a verification will compare, and what it cannot."""

    tables: list[TablePlan] = msgspec.field(default_factory=list)
    #: Source tables that the target does not have at all: every row of theirs is missing.
    absent: list[Table] = msgspec.field(default_factory=list)
    unlike: list[Unlike] = msgspec.field(default_factory=list)
    #: What the request leaves open (ambiguous names): nothing is compared.
    problems: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


def pair(source: Source, target: Source, request: Request, written: Target) -> Pairs:
    """Pairs the tables that were asked for. Raises ConfigError for a name that the source does not have.

    written: the target as what copies are written to, whose ledger says when they began.
    """
    pairs = Pairs()
    chosen = planner.choose_tables(source, request)
    partners = _partners(chosen, target, request, pairs)
    asked = planner.asked_for([name for name, _ in chosen], request)
    begun = _begun_in(written, request, pairs) if asked else None
    fed: set[TableName] = set()
    for name, partner in partners.items():
        table = source.describe(name, census=True)
        if table is None:
            raise ConfigError("no such table in the source", table=str(name))
        if name in asked:
            fed |= _pair_passed(table, partner, asked[name], target, request, pairs, begun)
        elif (other := _described(target, partner)) is None:
            pairs.absent.append(table)
        else:
            _pair_table(table, other, request, pairs)
    pairs.tables = planner.with_unread(pairs.tables, request)
    _note_the_rest(target, {*partners.values(), *fed}, request, pairs)
    return pairs


def _begun_in(written: Target, request: Request, pairs: Pairs) -> Begun:
    from rowferry.engine import job_starts

    return job_starts.begun_in(written, request, pairs.notes)


def _described(target: Source, name: TableName) -> Table | None:
    with blamed_on_target():
        return target.describe(name, census=True)


def _pair_passed(
    source: Table, partner: TableName, asked: Asked, target: Source, request: Request, pairs: Pairs, begun: Begun | None
) -> set[TableName]:
    """Pairs what comes out of a source table's transform and dedup with the tables that it goes to; returns those
    beside its own."""
    from rowferry.engine import transforming

    if not asked.transforms:
        other = _described(target, partner)
        if other is None:
            pairs.absent.append(source)
        else:
            _pair_output(planner.without_wire(source), source, other, asked, None, 0, request, pairs)
        return set()
    passage = planner.passage(source, asked, request, lambda: _described(target, partner), begun)
    if passage.in_the_way:
        reasons = tuple(f"column {r.column!r}: {r.reason}" for r in passage.in_the_way)
        pairs.unlike.append(Unlike(source, source, reasons))
        return set()
    fed: set[TableName] = set()
    for number, output in enumerate(passage.stage.outputs):
        into = partner
        if output.table is not None:
            into = selection.in_default(transforming.table_named(output.table), request.target.engine) or partner
            fed.add(into)
        shape = transforming.derive(source, passage.fields, output)
        other = _described(target, into)
        if other is not None:
            _pair_output(shape, source, other, asked, passage, number, request, pairs)
        elif number:
            absent = msgspec.structs.replace(shape, name=into)
            pairs.unlike.append(Unlike(source, absent, ("the target has no such table",)))
        else:
            pairs.absent.append(source)
    return fed


def _pair_output(
    shape: Table,
    source: Table,
    other: Table,
    asked: Asked,
    passage: Passage | None,
    number: int,
    request: Request,
    pairs: Pairs,
) -> None:
    """Pairs one table that comes out of ``source``."""
    from rowferry.engine import transforming

    known = len(pairs.tables)
    _pair_table(shape, other, request if passage is None else passage.after, pairs)
    if len(pairs.tables) == known:
        return
    plan = pairs.tables[-1]
    if passage is not None:
        plan = passage.through(plan, shape, number)
    if not number:
        plan = transforming.with_dedup(plan, asked)
    pairs.tables[-1] = msgspec.structs.replace(plan, source=source)


def _partners(
    chosen: Sequence[tuple[TableName, TableName | None]], target: Source, request: Request, pairs: Pairs
) -> dict[TableName, TableName]:
    """The target table of each source table, by its name there; under ``--match-names loose`` by what is there.

    A new name that was given with --table and is in the target as it is written wins over any likeness.
    """
    partners = {name: new or name for name, new in chosen}
    if request.match_names != "loose":
        return partners
    with blamed_on_target():
        tables, views = target.list_tables(), target.list_views()
    taken = {new for _, new in chosen if new is not None and new in {*tables, *views}}
    for names in (tables, views):
        wanted = {partner: name for name, partner in partners.items() if partner not in taken}
        matched = spelling.match_loosely(list(wanted), [n for n in names if n not in taken], spelling.fold_table)
        for name, found in matched.pairs.items():
            partners[wanted[name]] = found
            taken.add(found)
        for ours, theirs in matched.ambiguous:
            pairs.problems.append(f"{_riddle('tables', ours, theirs)}; say which with --table NAME:NEWNAME")
    return partners


def _riddle(what: str, ours: Iterable[object], theirs: Iterable[object]) -> str:
    mine, others = (", ".join(repr(str(n)) for n in names) for names in (ours, theirs))
    return f"ambiguous under --match-names loose: {what} {mine} of the source and {others} of the target"


def _note_the_rest(target: Source, partners: set[TableName], request: Request, pairs: Pairs) -> None:
    """Says what only the target has, and what would be paired if names were taken less exactly."""
    if request.tables and not pairs.absent:
        return
    with blamed_on_target():
        rest = [n for n in target.list_tables() if n not in partners]
    there = {spelling.fold_table(n): n for n in rest}
    alike = [(t.name, there[f]) for t in pairs.absent if (f := spelling.fold_table(t.name)) in there]
    if alike and request.match_names != "loose":
        mine, its = map(str, alike[0])
        more = f" (and {len(alike) - 1} more such tables)" if len(alike) > 1 else ""
        pairs.notes.append(f"{mine!r} is called {its!r} in the target{more}: --match-names loose pairs such names")
    if rest and not request.tables:
        pairs.notes.append(f"only the target has: {', '.join(map(str, rest))}")


def count_plan(table: Table, request: Request) -> TablePlan | None:
    """A plan that reads one column of a source table alone, to count its rows; None where it has none."""
    if not table.columns:
        return None
    column = table.columns[0]
    forms = column.forms or (column.type,)
    # A text form reads any value there can be.
    form = next((f for f in forms if f.kind in TEXTS), forms[0])
    plan = ColumnPlan(column.name, form, column.name, column, Comparison(form, form, ""))
    return TablePlan(0, table, table, (plan,), where=request.where_for(str(table.name)))


def _pair_table(source: Table, target: Table, request: Request, pairs: Pairs) -> None:
    columns: list[ColumnPlan] = []
    reasons: list[str] = []
    partners, alone = _column_partners(source, target, request, pairs)
    for column in source.columns:
        if column.name not in partners:
            continue
        other = target.column(partners[column.name])
        if request.policy(str(source.name), column.name) in ("null", "quarantine"):
            # The source reads as NULL, or leaves out, what does not fit its default form.
            column = msgspec.structs.replace(column, refusal=None)
        found = _pair_column(column, other, request)
        if found is None:
            why = f": {column.refusal.reason} ({column.refusal.count or 0:,} rows)" if column.refusal else ""
            reasons.append(
                f"column {column.name!r}: {column.native or column.type} and {other.native or other.type} "
                f"cannot be compared{why}"
            )
        else:
            columns.append(found)
    reasons += alone
    if reasons or not columns:
        pairs.unlike.append(Unlike(source, target, tuple(reasons) or ("no column is left to compare",)))
        return
    pairs.tables.append(
        TablePlan(
            index=len(pairs.tables),
            source=source,
            target=target,
            columns=tuple(columns),
            where=request.where_for(str(source.name)),
            exists=True,
            key=_shared_key(source, target, {c.source: c.target for c in columns}),
        )
    )


def _column_partners(source: Table, target: Table, request: Request, pairs: Pairs) -> tuple[dict[str, str], list[str]]:
    """Source column → target column, without what a policy leaves out; and what stands on one side only."""
    loose = request.match_names == "loose"
    fold: Callable[[str], str] = spelling.fold if loose else str
    skipped = {c.name for c in source.columns if request.policy(str(source.name), c.name) == "skip"}
    ours = [c.name for c in source.columns if c.name not in skipped]
    theirs = [c.name for c in target.columns if c.name not in skipped]
    # What is left out is left out on both sides, under whatever name the target has it.
    wanted, unwanted = {fold(n) for n in ours}, {fold(n) for n in skipped}
    theirs = [n for n in theirs if fold(n) in wanted or fold(n) not in unwanted]
    theirs = [n for n in theirs if n in ours or request.policy(str(source.name), n) != "skip"]
    matched = spelling.match_loosely(ours, theirs, fold)
    open_ = {n for group in matched.ambiguous for names in group for n in names}
    for mine, others in matched.ambiguous:
        pairs.problems.append(
            f"table {str(source.name)!r}: {_riddle('columns', mine, others)}; "
            "leave columns out with --policy TABLE.COLUMN=skip"
        )
    ours = [n for n in ours if n not in matched.pairs and n not in open_]
    theirs = [n for n in theirs if n not in matched.pairs.values() and n not in open_]
    alone = [f"column {n!r} is in the source only" for n in ours]
    alone += [f"column {n!r} is in the target only" for n in theirs]
    if not loose and {spelling.fold(n) for n in ours} & {spelling.fold(n) for n in theirs}:
        alone.append("--match-names loose takes names for one that differ in letter case and underscores only")
    return matched.pairs, alone


def _shared_key(source: Table, target: Table, names: dict[str, str]) -> tuple[str, ...]:
    """A key of either side, in the target's names: one that only one side enforces still names rows on both."""
    key = source.identifying_key
    if key and all(n in names for n in key):
        return tuple(names[n] for n in key)
    key = target.identifying_key
    return key if key and set(key) <= set(names.values()) else ()


def _pair_column(column: Column, other: Column, request: Request) -> ColumnPlan | None:
    """The first pair of forms that can be compared: the engine's own bytes where both sides are the
    same native type, else the canonical forms in their order."""
    engines = {"source_engine": request.source.engine, "target_engine": request.target.engine}
    for mine, theirs in _form_pairs(column, other, request):
        comparison: Comparison | None = digest.compare(mine, theirs, **engines)
        if comparison is not None:
            return ColumnPlan(column.name, mine, other.name, msgspec.structs.replace(other, type=theirs), comparison)
    return None


def _form_pairs(column: Column, other: Column, request: Request) -> list[tuple[Type, Type]]:
    pairs: list[tuple[Type, Type]] = []
    source, target = (registry.capabilities(e.engine) for e in (request.source, request.target))
    if (
        source.raw_format is not None
        and source.raw_format == target.raw_format
        and not request.independent
        and column.native == other.native
        and column.type.kind in planner.WIRE_PREFERRED
    ):
        pairs += [(f, f) for f in column.forms if f.kind == "wire" and f in other.forms]
    mine = [f for f in (column.forms or (column.type,)) if f.kind != "wire"]
    theirs = [f for f in (other.forms or (other.type,)) if f.kind != "wire"]
    # A default form that does not hold every value of the column is passed over for the next.
    if column.refusal is not None and len(mine) > 1:
        mine = mine[1:]
    if other.refusal is not None and len(theirs) > 1:
        theirs = theirs[1:]
    return pairs + [(a, b) for a in mine for b in theirs]
