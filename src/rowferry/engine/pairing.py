"""Pairs two databases for verify: which table with which, which column with which, compared as what."""

from __future__ import annotations

import dataclasses

from rowferry.adapters import registry
from rowferry.adapters.protocol import Source
from rowferry.engine import planner
from rowferry.engine.request import Request
from rowferry.errors import ConfigError
from rowferry.model import Column, ColumnPlan, Comparison, Table, TablePlan
from rowferry.stages import digest
from rowferry.types import TEXTS, Type


@dataclasses.dataclass(slots=True)
class Pairs:
    """What a verification will compare, and what it cannot."""

    tables: list[TablePlan] = dataclasses.field(default_factory=list)
    #: Source tables that the target does not have at all: every row of theirs is missing.
    absent: list[Table] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def pair(source: Source, target: Source, request: Request) -> Pairs:
    """Pairs the tables that were asked for. Raises ConfigError for a name that the source does not have."""
    pairs = Pairs()
    chosen = planner.choose_tables(source, request)
    for name, new in chosen:
        table = source.describe(name, census=True)
        if table is None:
            raise ConfigError("no such table in the source", table=str(name))
        other = target.describe(new or name, census=True)
        if other is None:
            pairs.absent.append(table)
            continue
        _pair_table(table, other, request, pairs)
    if not request.tables:
        known = {new or name for name, new in chosen}
        more = [str(n) for n in target.list_tables() if n not in known]
        if more:
            pairs.notes.append(f"only the target has: {', '.join(more)}")
    return pairs


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
    problems: list[str] = []
    for column in source.columns:
        if request.policy(str(source.name), column.name) == "skip":
            continue
        try:
            other = target.column(column.name)
        except KeyError:
            problems.append(f"column {column.name!r} is in the source only")
            continue
        found = _pair_column(column, other, request)
        if found is None:
            problems.append(
                f"column {column.name!r}: {column.native or column.type} and {other.native or other.type} "
                "cannot be compared"
            )
        else:
            columns.append(found)
    mine = {c.name for c in source.columns}
    problems += [
        f"column {c.name!r} is in the target only"
        for c in target.columns
        if c.name not in mine and request.policy(str(source.name), c.name) != "skip"
    ]
    if problems:
        hint = "; leave columns out with --policy TABLE.COLUMN=skip"
        pairs.problems.append(f"table {str(source.name)!r}: {', '.join(problems)}{hint}")
        return
    names = {c.source for c in columns}
    pairs.tables.append(
        TablePlan(
            index=len(pairs.tables),
            source=source,
            target=target,
            columns=tuple(columns),
            where=request.where_for(str(source.name)),
            exists=True,
            key=_shared_key(source, target, names),
        )
    )


def _shared_key(source: Table, target: Table, names: set[str]) -> tuple[str, ...]:
    """A key of either side: one that only one side enforces still names rows on both."""
    for table in (source, target):
        key = table.identifying_key
        if key and all(n in names for n in key):
            return key
    return ()


def _pair_column(column: Column, other: Column, request: Request) -> ColumnPlan | None:
    """The first pair of forms that can be compared: the engine's own bytes where both sides are the
    same native type, else the canonical forms in their order."""
    engines = {"source_engine": request.source.engine, "target_engine": request.target.engine}
    for mine, theirs in _form_pairs(column, other, request):
        comparison: Comparison | None = digest.compare(mine, theirs, **engines)
        if comparison is not None:
            return ColumnPlan(column.name, mine, other.name, dataclasses.replace(other, type=theirs), comparison)
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
