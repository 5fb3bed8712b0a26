"""From two databases and a request to a plan: which tables, which columns, in which forms.

Nothing here writes. What cannot be carried exactly becomes a :class:`Refusal`; all of them are
collected, so that a user sees the whole list at once and not one an attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from rowferry import convert, selection
from rowferry.adapters import registry
from rowferry.adapters.protocol import Capabilities, Comparing, Folding, LooseKey, Placed, Source, Target
from rowferry.engine import replacing, spelling
from rowferry.engine.request import Request
from rowferry.engine.waves import with_waves
from rowferry.errors import ConfigError, RefusedError
from rowferry.model import (
    Column,
    ColumnPlan,
    Comparison,
    Refusal,
    Table,
    TableName,
    TablePlan,
)
from rowferry.stages import digest
from rowferry.types import TEXTS, Type

if TYPE_CHECKING:
    from rowferry.engine.job_starts import Begun
    from rowferry.engine.transforming import Asked, Passage

#: Kinds that travel as the engine's own bytes between two columns of one native type: what the
#: canonical form cannot hold (294276-12-31, intervals beyond 292 years, '[5:6]={7,8}') stays exact.
WIRE_PREFERRED = frozenset(
    ("decimal", "numeric", "time", "timetz", "timestamp", "timestamptz", "interval", "list", "opaque")
)

#: Reasons of a refusal that its one line names; the plan command shows them all.
REASONS_SHOWN = 12


class Findings(msgspec.Struct):
    """What a plan found. ``refusals`` by source table; ``blockers`` concern a table or the whole job."""

    tables: list[TablePlan] = msgspec.field(default_factory=list)
    refusals: dict[str, list[Refusal]] = msgspec.field(default_factory=dict)
    blockers: list[str] = msgspec.field(default_factory=list)
    missing_privileges: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    #: Unique keys of the target that may take keys of the source for one: asked about under the source's snapshot.
    loose_keys: list[tuple[TablePlan, LooseKey]] = msgspec.field(default_factory=list)

    def refuse(self, table: TableName, refusal: Refusal) -> None:
        self.refusals.setdefault(str(table), []).append(refusal)

    def sentences(self) -> list[str]:
        """All reasons, one line each; empty if the plan can be carried out."""
        out = list(self.blockers)
        for table, refusals in self.refusals.items():
            for r in refusals:
                place = f"table {table!r}" + (f", column {r.column!r}" if r.column is not None else "")
                count = "" if r.count is None else f" ({r.count:,} rows)"
                choices = f"; policies to choose from: {', '.join(r.policies)}" if r.policies else ""
                out.append(f"{place}: {r.reason}{count}{choices}")
        return out + [f"missing privilege: {p}" for p in self.missing_privileges]

    def require_none(self) -> None:
        """Raises RefusedError where there is any reason."""
        if reasons := self.sentences():
            shown = "; ".join(reasons[:REASONS_SHOWN])
            more = f"; and {len(reasons) - REASONS_SHOWN} more" if len(reasons) > REASONS_SHOWN else ""
            raise RefusedError(f"refused: {shown}{more}", hint="rowferry plan shows them all" if more else None)


def choose_tables(source: Source, request: Request) -> list[tuple[TableName, TableName | None]]:
    """The source tables that were asked for, each with its new name if it was given one.

    Views are copied only by name: without ``--table`` they are not even listed.
    """
    selectors = [selection.parse(text) for text in request.tables]
    chosen = selection.select(
        selectors,
        source.list_tables(),
        by_name_only=source.list_views() if selectors else (),
        source_engine=request.source.engine,
        target_engine=request.target.engine,
        spell=spelling.speller(request.names),
    )
    if request.where is not None and len(chosen) != 1:
        raise ConfigError(
            f"--where is a condition for one table, and {len(chosen)} are meant",
            hint="name it with --table, or give each its own in --config",
        )
    return chosen


def plan_copy(source: Source, target: Target, request: Request) -> Findings:
    """Plans a copy; raises only for a request that names what is not there, or for a failing side."""
    caps = registry.capabilities(request.target.engine)
    if isinstance(target, Folding) and target.folds_names():
        caps = msgspec.structs.replace(caps, names_fold_case=True)
    findings = Findings()
    if request.mode not in caps.modes:
        findings.blockers.append(f"{caps.engine} cannot be a target with --mode {request.mode}")
        return findings
    chosen = choose_tables(source, request)
    if not chosen:
        findings.notes.append("the source has no tables")
    named = [(name, _in_own_database(new or _own_name(name, request), target, caps)) for name, new in chosen]
    findings.blockers += spelling.name_problems(named, caps)
    if findings.blockers:
        return findings
    asked = asked_for([name for name, _ in named], request)
    for name, new in named:
        table = source.describe(name, census=True)
        if table is None:
            raise ConfigError("no such table in the source", table=str(name))
        if name in asked:
            findings.tables += _plan_passed(len(findings.tables), table, new, asked[name], target, request, findings)
            continue
        plan = _plan_table(len(findings.tables), table, new, target, request, findings, origin=source)
        if plan is not None:
            findings.tables.append(plan)
    findings.tables = with_unread(findings.tables, request)
    if any(p.unread for p in findings.tables) and request.on_error != "quarantine":
        findings.blockers.append(
            "a policy sets rows aside (quarantine), and the job does not: give it --on-error quarantine"
        )
    findings.blockers += [
        f'[table."{name}"] has a rule that sets rows aside (quarantine), and the job does not: '
        'give it --on-error quarantine, or on_error = "quarantine" in its config'
        for name in request.unset_aside
    ]
    if any(p.fed_by is not None for p in findings.tables):
        findings.blockers += _feeding_problems(findings.tables, caps)
    findings.tables = with_waves(findings.tables, findings.blockers, caps.self_references)
    for table in (p.target for p in findings.tables if p.target.volatile):
        looks = "is read again at the end" if not request.no_verify else "is not read again, as asked for"
        findings.notes.append(
            f"table {str(table.name)!r} in the target is not logged: a crash of its server empties it, also of chunks "
            f"that are done; it {looks}"
        )
    if request.mode in ("truncate", "replace"):
        together = {new for _, new in named}
        for standing in (p.target for p in findings.tables if p.exists):
            obstacles = target.obstacles(standing, request.mode, together)
            findings.blockers += [f"table {str(standing.name)!r} in the target: {o}" for o in obstacles]
    if request.mode == "replace":
        findings.tables = replacing.with_attachments(target, findings.tables, findings.blockers, findings.notes)
    findings.loose_keys = _loose_keys(source, target, findings.tables, request)
    if request.keep_duplicates is not None or any(p.dedup is not None for p in findings.tables):
        from rowferry.engine import deduplication

        judged = isinstance(target, Comparing)  # of a table that stands, its keys are asked about
        findings.blockers += deduplication.all_problems(findings.tables, request, judged)
    creating = [p.load_name or p.target.name for p in findings.tables if not p.exists or p.load_name]
    findings.missing_privileges += target.missing_privileges([p.target for p in findings.tables if p.exists], creating)
    return findings


def _loose_keys(
    source: Source, target: Target, plans: Sequence[TablePlan], request: Request
) -> list[tuple[TablePlan, LooseKey]]:
    """Of tables that stand and get texts, the unique keys that are to be asked about."""
    standing = [p for p in plans if p.exists and p.load_name is None and any(c.form.kind in TEXTS for c in p.columns)]
    if not standing or not isinstance(target, Comparing):
        return []
    keys = target.loose_keys([p.target for p in standing])
    if not keys:
        return []
    from rowferry.engine import colliding

    return colliding.questions(source, keys, standing, request)


def _measured(origin: Source, table: Table, request: Request) -> Table:
    """The table, its numbers without bounds looked at where the target has none."""
    digits_max = registry.capabilities(request.target.engine).measured_digits_max
    if digits_max is None or all(c.type.kind != "numeric" for c in table.columns):
        return table
    from rowferry.engine import measuring

    return measuring.measured(origin, table, request, digits_max)


def with_unread(tables: list[TablePlan], request: Request) -> list[TablePlan]:
    """The plans, knowing of which source columns unreadable values are set aside."""
    if all(policy != "quarantine" for _, policy in request.policies):
        return tables
    from rowferry.engine import unread

    return [unread.with_columns(plan, request) for plan in tables]


def asked_for(names: Sequence[TableName], request: Request) -> dict[TableName, Asked]:
    """What happens to the rows of tables on their way, of those with which anything does."""
    if not request.transforms:
        return {}
    from rowferry.engine import transforming

    return transforming.asked_for(names, request)


def passage(
    source: Table, asked: Asked, request: Request, standing: Callable[[], Table | None], begun: Begun | None = None
) -> Passage:
    """A table's way through its transform, which sees its columns in the forms that policies choose. standing: gives
    the target's table, where it stays as it is. begun: gives the start of the job whose rows are compared. Raises
    ConfigError for what cannot be done to them."""
    from rowferry.engine import transforming

    fields: list[tuple[str, Type, bool]] = []
    refusals: dict[str, Refusal] = {}
    for column in source.columns:
        policy = request.policy(str(source.name), column.name)
        if policy == "skip":
            continue
        forms = _forms(column, policy)
        if column.refusal is not None and policy not in column.refusal.policies:
            refusals[column.name] = msgspec.structs.replace(column.refusal, column=column.name)
        if not forms:
            refusals[column.name] = Refusal(column.name, f"{column.native or column.type} has no text form")
        if (none := _no_bool(source, column, request, policy)) is not None:
            refusals[column.name] = none
        fields.append((column.name, forms[0] if forms else column.type, column.nullable or policy == "null"))
    return transforming.passage(source, asked, fields, refusals, request, standing, begun)


def without_wire(table: Table) -> Table:
    """The table without the forms that are an engine's own bytes: two of them can be one value."""
    columns = (msgspec.structs.replace(c, forms=tuple(f for f in c.forms if f.kind != "wire")) for c in table.columns)
    return msgspec.structs.replace(table, columns=tuple(columns))


def _plan_passed(
    index: int, source: Table, name: TableName, asked: Asked, target: Target, request: Request, findings: Findings
) -> list[TablePlan]:
    """Plans a table whose rows are transformed or deduplicated: its own plan, and that of each table it feeds."""
    from rowferry.engine import transforming

    where = str(source.name)
    if not asked.transforms:
        plan = _plan_table(index, source, name, target, request, findings, passed=True)
        if plan is None:
            return []
        return [transforming.with_dedup(plan, asked)]
    passed = passage(source, asked, request, lambda: None if request.mode == "replace" else target.describe(name))
    if passed.in_the_way:
        for refusal in passed.in_the_way:
            findings.refuse(source.name, refusal)
        return []
    plans: list[TablePlan] = []
    for number, output in enumerate(passed.stage.outputs):
        into = name if output.table is None else _in_own_database_of(output.table, target, request)
        derived = transforming.derive(source, passed.fields, output)
        plan = _plan_table(index + number, derived, into, target, passed.after, findings, passed=True)
        if plan is None:
            return []
        plan = passed.through(plan, derived, number)
        if source.primary_key and not number and not derived.primary_key and not plan.exists:
            findings.notes.append(
                f"table {where!r}: its primary key ({', '.join(source.primary_key)}) does not carry over, since the "
                "transform makes or leaves out a column of it; a table that is made beforehand keeps its own"
            )
        # A dedup is of the table's own rows.
        plans.append(msgspec.structs.replace(plan, fed_by=index) if number else transforming.with_dedup(plan, asked))
    return plans


def _in_own_database_of(name: str, target: Target, request: Request) -> TableName:
    from rowferry.engine import transforming

    caps = registry.capabilities(request.target.engine)
    parsed = selection.in_default(transforming.table_named(name), request.target.engine)
    assert parsed is not None
    return _in_own_database(parsed, target, caps)


def _feeding_problems(tables: Sequence[TablePlan], caps: Capabilities) -> list[str]:
    """What is in the way of tables that are fed from the chunks of another."""
    problems = spelling.name_problems([(p.source.name, p.target.name) for p in tables], caps)
    for plan in (p for p in tables if p.fed_by is not None):
        feeder = tables[plan.fed_by or 0]
        if any(key.parent == plan.target.name for key in feeder.target.foreign_keys):
            problems.append(
                f"table {str(feeder.target.name)!r} has a foreign key to {str(plan.target.name)!r}, whose rows come "
                "after its own in each chunk; drop the key and add it again after the copy"
            )
    return problems


def _own_name(name: TableName, request: Request) -> TableName:
    """What a table that was given no new name is called in the target."""
    spelled = spelling.respelled(name, spelling.speller(request.names))
    return name if spelled == name else selection.in_default(spelled, request.target.engine) or name


def _in_own_database(name: TableName, target: Target, caps: Capabilities) -> TableName:
    """The name without its schema where that is the database that the target is connected to: a table has one
    name, whichever way it was written."""
    if name.schema is None or not caps.schemas_are_databases or not isinstance(target, Placed):
        return name
    own = target.place()[1] or ""
    same = name.schema.lower() == own.lower() if caps.names_fold_case else name.schema == own
    return TableName(None, name.name) if same else name


def _plan_table(
    index: int,
    source: Table,
    name: TableName,
    target: Target,
    request: Request,
    findings: Findings,
    *,
    passed: bool = False,
    origin: Source | None = None,
) -> TablePlan | None:
    """Plans one table; adds to findings what is in the way, and returns None where columns could not be planned.

    passed: its rows pass a stage on their way, so that they travel as values and never as an engine's own bytes.
    origin: where numbers without bounds may be looked at, for a target that has none.
    """
    existing = target.describe(name)
    mode = request.mode
    build_new = existing is None or mode == "replace"
    if not source.columns:
        findings.blockers.append(f"table {str(source.name)!r} has no columns: there is nothing that could be copied")
        return None
    if existing is not None and mode == "create" and not target.is_empty(name):
        findings.blockers.append(
            f"table {str(name)!r} in the target is not empty; choose --mode append, truncate, replace or upsert"
        )
        return None
    if existing is not None and existing.kind == "view":
        findings.blockers.append(f"{str(name)!r} in the target is a view")
        return None
    if existing is not None and not build_new and existing.triggers and request.target_triggers is None:
        findings.blockers.append(
            f"table {str(name)!r} in the target has triggers or rules ({', '.join(existing.triggers)}) that could "
            "change what arrives; choose --target-triggers fire or disable"
        )
    if build_new and origin is not None:
        source = _measured(origin, source, request)
    into = None if build_new else existing
    columns = _plan_columns(source, into, target, request, findings, frozenset() if passed else WIRE_PREFERRED)
    by_value = [c for c in columns or () if c.form.kind == "wire" and source.column(c.source).type.kind == "numeric"]
    if columns is not None and by_value and not _is_raw(columns, source, request):
        # Read by value, a binary numeric has lost its display scale (1.50 → 1.5); only raw frames keep it.
        columns = _plan_columns(source, into, target, request, findings, WIRE_PREFERRED - {"numeric"})
    if columns is None:
        return None
    planned = _target_table(source, name, columns) if build_new else existing
    assert planned is not None
    key = _key(source, planned, columns, mode, findings)
    plan = TablePlan(
        index=index,
        source=source,
        target=planned,
        columns=tuple(columns),
        where=request.where_for(str(source.name)),
        exists=existing is not None,
        key=key,
        raw=not passed and _is_raw(columns, source, request),
    )
    if mode == "replace" and existing is not None:
        if existing.volatile:
            findings.notes.append(f"table {str(name)!r} in the target is not logged; the one that takes its place is")
        findings.notes += replacing.column_notes(existing, planned)
        # Those of the table that goes: children are swapped before their parents.
        above = tuple(k for k in existing.foreign_keys if k.parent != name)
        plan = msgspec.structs.replace(plan, target=msgspec.structs.replace(planned, foreign_keys=above))
        plan = msgspec.structs.replace(plan, load_name=TableName(name.schema, f"rowferry_new_{index}"))
    return plan


def _plan_columns(
    source: Table,
    existing: Table | None,
    target: Target,
    request: Request,
    findings: Findings,
    wire_kinds: frozenset[str],
) -> list[ColumnPlan] | None:
    before = len(findings.refusals.get(str(source.name), ()))
    caps = registry.capabilities(request.target.engine)
    spell = spelling.speller(request.names)
    plans: list[ColumnPlan] = []
    for column in source.columns:
        policy = request.policy(str(source.name), column.name)
        if policy == "skip":
            note = f"table {str(source.name)!r}: column {column.name!r} is left out, as asked for"
            if note not in findings.notes:
                findings.notes.append(note)
            continue
        found: ColumnPlan | Refusal | None = _no_bool(source, column, request, policy)
        if found is not None:
            pass
        elif existing is None:
            problems = spelling.length_problem(spell(column.name), caps)
            found = (
                Refusal(column.name, problems[0], policies=("skip",))
                if problems
                else _new_column(column, target, request, policy, wire_kinds)
            )
        else:
            found = _existing_column(column, existing, target, request, policy, wire_kinds)
        if isinstance(found, Refusal):
            findings.refuse(source.name, found)
        elif found.column.generated:
            note = f"table {str(source.name)!r}: column {column.name!r} is computed by the target: neither copied nor "
            note += "compared here (rowferry verify compares it)"
            if note not in findings.notes:
                findings.notes.append(note)
        else:
            plans.append(found if existing is not None or column.name in source.primary_key else _nullable(found))
    for refusal in [*(_unfilled(existing, plans) if existing else ()), *_colliding(plans, caps)]:
        findings.refuse(source.name, refusal)
    if len(findings.refusals.get(str(source.name), ())) > before:
        return None
    if not plans:
        findings.refuse(source.name, Refusal(None, "no column is left to copy"))
        return None
    return plans


def _unfilled(existing: Table, plans: list[ColumnPlan]) -> list[Refusal]:
    """Target columns that get nothing and cannot do without."""
    fed = {p.target for p in plans}
    return [
        Refusal(c.name, "the target's column is NOT NULL without a default, and the source has no such column")
        for c in existing.columns
        if c.name not in fed and not c.nullable and c.default is None and not c.generated and not c.identity
    ]


def _no_bool(source: Table, column: Column, request: Request, policy: str | None) -> Refusal | None:
    """Why a column cannot be the bool that was asked for by its name; a pattern may fit columns that are none."""
    if policy != "bool" or column.type.kind == "bool" or not request.names_column(str(source.name), column.name):
        return None
    native = column.native or column.type
    return Refusal(column.name, f"{native} is not read as a bool (the policy is for MySQL's TINYINT(1))")


def _colliding(plans: list[ColumnPlan], caps: Capabilities) -> list[Refusal]:
    seen: dict[str, ColumnPlan] = {}
    out = []
    fold = caps.names_fold_case or caps.columns_fold_case
    for plan in plans:
        other = seen.setdefault(plan.target.lower() if fold else plan.target, plan)
        if other is not plan:
            same = other.target == plan.target
            what = f"both be named {plan.target!r}" if same else f"be one column in {caps.engine}"
            out.append(Refusal(plan.source, f"and {other.source!r} would {what}", policies=("skip",)))
    return out


def _forms(column: Column, policy: str | None) -> list[Type]:
    """Forms to try, best first, without ``wire``; under the policy ``text`` only those that are text."""
    forms = [f for f in (column.forms or (column.type,)) if f.kind != "wire"]
    if policy == "text":
        return [f for f in forms if f.kind in TEXTS and f != column.type] or [f for f in forms if f.kind in TEXTS]
    return forms[:1]


def _wire(column: Column, request: Request, policy: str | None, kinds: frozenset[str]) -> Type | None:
    """The form of the engine's own bytes, where the column may travel in it."""
    if policy is not None or column.type.kind not in kinds or not _same_format(request):
        return None
    return next((f for f in column.forms if f.kind == "wire"), None)


def _same_format(request: Request) -> bool:
    source, target = (registry.capabilities(e.engine) for e in (request.source, request.target))
    return source.raw_format is not None and source.raw_format == target.raw_format and not request.independent


def _own_text(column: Column, request: Request, policy: str | None) -> Type | None:
    """The text that the column's own engine writes, where its values do not all fit the default form: a database
    of the same engine reads it back as the same value (MySQL's 0000-00-00)."""
    if column.refusal is None or policy not in (None, "text") or request.source.engine != request.target.engine:
        return None
    texts = (f for f in column.forms if f.kind == "opaque" and (f.native or "").partition(":")[2] == column.native)
    return next(texts, None)


def _new_column(
    column: Column, target: Target, request: Request, policy: str | None, kinds: frozenset[str]
) -> ColumnPlan | Refusal:
    named = msgspec.structs.replace(column, name=spelling.speller(request.names)(column.name))
    wire = _wire(column, request, policy, kinds)
    if wire is not None:
        planned = target.plan_column(named, wire)
        if not isinstance(planned, Refusal):
            return _column_plan(column, wire, planned, target, request, policy)
    own = _own_text(column, request, policy)
    if own is not None:
        planned = target.plan_column(named, own)
        if not isinstance(planned, Refusal) and planned.native == column.native:
            return _column_plan(column, own, planned, target, request, policy)
    if column.refusal is not None and policy not in column.refusal.policies:
        return msgspec.structs.replace(column.refusal, column=column.name)
    refusal = Refusal(column.name, f"{column.native or column.type} has no form that fits", policies=("skip",))
    forms = _forms(column, policy)
    for form in forms:
        planned = target.plan_column(named, form)
        found = (
            planned if isinstance(planned, Refusal) else _column_plan(column, form, planned, target, request, policy)
        )
        if not isinstance(found, Refusal):
            return found
        refusal = msgspec.structs.replace(found, column=column.name)
    return refusal


def _existing_column(
    column: Column, existing: Table, target: Target, request: Request, policy: str | None, kinds: frozenset[str]
) -> ColumnPlan | Refusal:
    name = spelling.speller(request.names)(column.name)
    try:
        into = existing.column(name)
    except KeyError:
        called = "" if name == column.name else f" as {name!r}"
        return Refusal(column.name, f"the target's table has no such column{called}", policies=("skip",))
    if into.generated:
        if not column.generated:
            why = "the target's column is generated: what it computes would stand there instead of the source's values"
            return Refusal(column.name, why, policies=("skip",))
        # Each side computes it; a note in the report says so, and verify compares what was computed.
        return ColumnPlan(column.name, column.type, into.name, into, _no_comparison(column.type))
    wire = _wire(column, request, policy, kinds)
    if wire is not None and wire in into.forms and column.native == into.native:
        return _column_plan(column, wire, msgspec.structs.replace(into, type=wire), target, request, policy)
    own = _own_text(column, request, policy)
    if own is not None and column.native == into.native:
        return _column_plan(column, own, msgspec.structs.replace(into, type=own), target, request, policy)
    if column.refusal is not None and policy not in column.refusal.policies:
        return msgspec.structs.replace(column.refusal, column=column.name)
    refusal = Refusal(column.name, f"no form fits the target's {into.native}", policies=("skip",))
    forms = _forms(column, policy)
    # An existing column of text may take a text form where the usual one has no exact way into it.
    forms += [f for f in column.forms if f.kind in TEXTS and f not in forms]
    for number, form in enumerate(forms):
        found = _column_plan(column, form, into, target, request, policy)
        if not isinstance(found, Refusal):
            return found
        if number == 0:
            refusal = found
    return refusal


def _nullable(plan: ColumnPlan) -> ColumnPlan:
    """A column that is made for values of which a policy makes some NULL is not made NOT NULL."""
    if "not_null" not in plan.checks:
        return plan
    checks = tuple(c for c in plan.checks if c != "not_null")
    return msgspec.structs.replace(plan, column=msgspec.structs.replace(plan.column, nullable=True), checks=checks)


def _no_comparison(kind: Type) -> Comparison:
    return Comparison(kind, kind, "")


def _column_plan(
    column: Column, form: Type, into: Column, target: Target, request: Request, policy: str | None
) -> ColumnPlan | Refusal:
    checks = target.checks(into)
    way = convert.conversion(form, into.type, checks, policy)
    if isinstance(way, str):
        native = f"{column.native or column.type} → {into.native or into.type}"
        return Refusal(column.name, f"{native}: {way}", policies=("skip",))
    comparison = digest.compare(
        form, into.type, source_engine=request.source.engine, target_engine=request.target.engine
    )
    if comparison is None:
        return Refusal(
            column.name, f"{form} and {into.type} cannot be compared, so nothing could be proven", policies=("skip",)
        )
    # Under the policy null a value that does not fit becomes a NULL, where there was none.
    nulls = column.nullable or (policy == "null" and not (way.lossless and column.refusal is None))
    if not nulls or into.nullable:
        return ColumnPlan(column.name, form, into.name, into, comparison, policy, checks)
    return ColumnPlan(column.name, form, into.name, into, comparison, policy, (*checks, "not_null"))


def _target_table(source: Table, name: TableName, columns: list[ColumnPlan]) -> Table:
    """The table that will be made: the source's shape with the planned columns."""
    kept = {c.source: c.target for c in columns}

    def key(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(kept[n] for n in names) if all(n in kept for n in names) else ()

    return Table(
        name=name,
        columns=tuple(c.column for c in columns),
        primary_key=key(source.primary_key),
        unique_keys=tuple(k for k in map(key, source.unique_keys) if k),
        rows=source.rows,
        bytes=source.bytes,
        user_types=source.user_types,
    )


def _key(source: Table, target: Table, columns: list[ColumnPlan], mode: str, findings: Findings) -> tuple[str, ...]:
    """Target columns that identify a row on both sides."""
    names = {c.source: c.target for c in columns}
    source_keys = [k for k in (source.primary_key, *source.unique_keys) if k and all(n in names for n in k)]
    target_keys = [k for k in (target.primary_key, *target.unique_keys) if k]
    fed = set(names.values())
    if mode == "upsert":
        for key in target_keys:
            if all(n in fed for n in key):
                return key
        findings.refuse(source.name, Refusal(None, "upsert needs a primary key or a unique NOT NULL key in the target"))
        return ()
    for key in source_keys:
        mapped = tuple(names[n] for n in key)
        if any(set(mapped) == set(t) for t in target_keys):
            return mapped
    return tuple(names[n] for n in source_keys[0]) if source_keys else ()


def _is_raw(columns: list[ColumnPlan], source: Table, request: Request) -> bool:
    """Original bytes can be handed on: one engine, the same native types, nothing converted or checked."""
    if not _same_format(request) or request.on_error == "quarantine":
        return False  # a row is set aside by its values
    if request.max_rows_per_s or request.max_mb_per_s:
        return False  # a batch is cut into pieces
    for plan in columns:
        native = source.column(plan.source).native
        way = convert.conversion(plan.form, plan.column.type, (), None)
        if isinstance(way, str) or not way.identity or native != plan.column.native or "not_null" in plan.checks:
            return False
    return True
