"""A table that is transformed on its way: which spec is meant for it, its stage, and the table that comes out.

To the rest of the engine the table that comes out of a transform is a source table like any other
(``TablePlan.derived``): it is planned against the target, paired with it and compared with it. Only where rows
are read (``worker``, ``scan``) do they pass the stage first.
"""

from __future__ import annotations

import datetime
import functools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from rowferry import selection
from rowferry.engine import spelling
from rowferry.engine.request import Request, name_of
from rowferry.errors import ConfigError
from rowferry.model import Column, Refusal, Table, TableName, TablePlan
from rowferry.stages import flow, spec
from rowferry.types import Type, dump, load

if TYPE_CHECKING:
    from rowferry.engine.job_starts import Begun

P = ParamSpec("P")
T = TypeVar("T")
#: (name, the form that it is read in, nullable) of a source column.
Field = tuple[str, Type, bool]


class Asked(msgspec.Struct, frozen=True):
    """What is asked for one table, by the pattern that names it."""

    pattern: str
    spec: spec.TableSpec
    function: Callable[..., Any] | None = None

    @property
    def transforms(self) -> bool:
        return self.function is not None or self.spec.transforms


def of_rules(function: Callable[P, T]) -> Callable[P, T]:
    """What this refuses is about the rules of a table."""

    @functools.wraps(function)
    def marked(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except ConfigError as error:
            error.of_rules = True
            raise

    return marked


@of_rules
def asked_for(names: Sequence[TableName], request: Request) -> dict[TableName, Asked]:
    """What is asked for each of the chosen tables, of those for which anything is.

    A name as it stands wins over a glob. Raises ConfigError for a pattern that means none of the tables, and for
    two globs that mean the same one.
    """
    specs = _matched(names, request, request.specs, "the config's [table.{!r}]")
    functions = _matched(names, request, request.functions, "transform[{!r}]")
    found: dict[TableName, Asked] = {}
    for name in names:
        if name not in specs and name not in functions:
            continue
        pattern, plain = specs.get(name, ("", {}))
        found[name] = Asked(pattern, spec.load(plain), functions[name][1] if name in functions else None)
    return found


def _matched(
    names: Sequence[TableName], request: Request, given: Sequence[tuple[str, Any]], said: str
) -> dict[TableName, tuple[str, Any]]:
    default = selection.DEFAULT_SCHEMAS.get(request.source.engine)
    defaults = (default,) if default else ()
    out: dict[TableName, tuple[bool, str, Any]] = {}
    for pattern, what in given:
        selector = selection.parse(pattern)
        if selector.new_name is not None:
            raise ConfigError(
                f"{said.format(pattern)} gives a new name", hint='tables = ["NAME:NEWNAME"] (--table) renames a table'
            )
        matched = [name for name in names if selector.matches(name, defaults)]
        if not matched:
            raise ConfigError(f"{said.format(pattern)} means none of the tables", hint=_tables(names))
        for name in matched:
            before = out.get(name)
            if before is not None and before[0] == selector.is_glob:
                raise ConfigError(
                    f"{said.format(before[1])} and {said.format(pattern)} both mean it",
                    table=str(name),
                    hint="name it in full in one of them, which then holds alone",
                )
            if before is None or before[0]:
                out[name] = (selector.is_glob, pattern, what)
    return {name: (pattern, what) for name, (_, pattern, what) in out.items()}


def _tables(names: Sequence[TableName]) -> str:
    shown = ", ".join(repr(str(n)) for n in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"the tables are {shown}{more}" if names else "there are no tables"


# --- the stage -------------------------------------------------------------------------------

#: Opened stages, by what they were opened from: a look-up table is held once, whoever reads through it. And the
#: functions that were given as objects, by the token that stands for them in a plan: their request keeps them.
_stages: dict[bytes, flow.Stage] = {}
_functions: weakref.WeakValueDictionary[str, Callable[..., Any]] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def description(
    asked: Asked, fields: Sequence[Field], request: Request, started: datetime.datetime, lengths: dict[str, int]
) -> dict[str, Any]:
    """All that makes a table's stage, as plain JSON: ``TablePlan.transform``."""
    return {
        "spec": msgspec.to_builtins(msgspec.structs.replace(asked.spec, dedup=None)),
        "fields": dump([list(field) for field in fields]),
        "started": started.isoformat(),
        # As a resume from anywhere finds it.
        "folder": os.path.abspath(request.folder),
        "function": None if asked.function is None else _token_of(asked.function),
        "lengths": lengths,
    }


def _lengths(
    asked: Asked, fields: Sequence[Field], standing: Callable[[], Table | None], request: Request
) -> dict[str, int]:
    """Characters that the target's columns hold, by the source's names: for a ``truncate`` that says none itself.
    The target is asked only where there is one."""
    if not any(r.do == "truncate" and r.length is None and r.length_bytes is None for r in asked.spec.rules):
        return {}
    table = standing()
    if table is None:
        return {}
    held = {c.name: c.type.length for c in table.columns if c.type.kind in ("text", "char")}
    folded = {name.casefold(): length for name, length in held.items()}
    spell = spelling.speller(request.names)
    found: dict[str, int] = {}
    for name, _, _ in fields:
        called = spell(asked.spec.rename.get(name, name))
        length = held[called] if called in held else folded.get(called.casefold())
        if length is not None:
            found[name] = length
    return found


def _token_of(function: Callable[..., Any]) -> str:
    token = f"{name_of(function)}#{id(function)}"
    try:
        _functions[token] = function
    except TypeError:
        raise ConfigError(
            f"a {type(function).__name__} is no function that can be held here", hint="put it into a def of its own"
        ) from None
    return token


def stage_of(described: dict[str, Any], table: str, *, mended: bool = False) -> flow.Stage:
    """The stage of a ``TablePlan.transform``. Raises ConfigError for what it cannot be made of, and where look-up
    tables or keys are others than when the job began.

    mended: look-up tables may be others (a row that was set aside found nothing in them).
    """
    stage = _opened({name: value for name, value in described.items() if name != "inputs"}, table)
    began_with = described.get("inputs", {})
    for name, mark in stage.inputs.items():
        if began_with.get(name, mark) != mark and not (mended and name.startswith("look-up")):
            raise ConfigError(
                f"the {name} is another one than when the job began, and rows that are sent now would not be worked "
                "out as those before",
                table=table,
                hint="bring it back as it was; or begin anew, by --job with a new name (and --mode truncate or "
                "replace, since rows of the job before are there)",
            )
    return stage


def _opened(described: dict[str, Any], table: str) -> flow.Stage:
    key = msgspec.json.encode([described, table])
    with _lock:
        if key not in _stages:
            from rowferry.stages import transform

            function = None
            if described["function"] is not None:
                function = _functions.get(described["function"])
                if function is None:
                    named = described["function"].partition("#")[0]
                    raise ConfigError(
                        f"the function {named} was given as an object, which no ledger holds",
                        table=table,
                        hint="make the same call of rowferry.copy again",
                    )
            _stages[key] = transform.open(
                spec.load(described["spec"]),
                [(name, load(form, Type), nullable) for name, form, nullable in described["fields"]],
                table=table,
                started=datetime.datetime.fromisoformat(described["started"]),
                folder=described["folder"],
                function=function,
                lengths=described.get("lengths"),
            )
        return _stages[key]


def bound(plans: Sequence[TablePlan], request: Request) -> tuple[TablePlan, ...]:
    """Plans out of a ledger, with the functions of this call in the place of those that had been given then.

    Raises ConfigError where they cannot go on: look-up tables or keys are others than when the job began.
    """
    asked = asked_for(list(dict.fromkeys(plan.source.name for plan in plans)), request)
    out = []
    for plan in plans:
        function = asked[plan.source.name].function if plan.source.name in asked else None
        if plan.transform is not None and plan.transform["function"] is not None and function is not None:
            plan = msgspec.structs.replace(plan, transform={**plan.transform, "function": _token_of(function)})
        if plan.transform is not None:
            stage_of(plan.transform, str(plan.source.name))
        out.append(plan)
    return tuple(out)


def release() -> None:
    """Lets go of what stages hold, at the end of a run; whoever is at work with one has it still."""
    with _lock:
        _stages.clear()


class Passage(msgspec.Struct, frozen=True):
    """A source table's way through its transform, worked out once for all that comes of it."""

    source: Table
    fields: tuple[Field, ...]
    described: dict[str, Any]
    stage: Any
    #: Why columns that the transform reads cannot be read.
    in_the_way: tuple[Refusal, ...]
    #: The request as it holds for what comes out: what a policy says of a source column was said where it is read.
    after: Request

    def through(self, plan: TablePlan, derived: Table, number: int) -> TablePlan:
        """A plan that was made for ``derived``, as one that reads the source table."""
        forms = {name: form for name, form, _ in self.fields}
        return msgspec.structs.replace(
            plan,
            source=self.source,
            derived=derived,
            transform=self.described,
            reads=tuple((name, forms[name]) for name in self.stage.reads),
            output=number,
        )


@of_rules
def passage(
    source: Table,
    asked: Asked,
    fields: Sequence[Field],
    refusals: dict[str, Refusal],
    request: Request,
    standing: Callable[[], Table | None],
    begun: Begun | None = None,
) -> Passage:
    """Opens a table's stage. standing: gives the target's table, where it stays as it is. begun: gives the start of
    the job whose rows are compared (None: that is now).

    Raises ConfigError for what the stage cannot be made of.
    """
    if lost := [column for column in asked.spec.drop if column in source.primary_key]:
        raise ConfigError(
            f"drop: {lost[0]!r} is of the primary key, without which rows could not be told apart",
            table=str(source.name),
            column=lost[0],
            hint=f"to leave it out all the same, do not read it: --policy {source.name}.{lost[0]}=skip",
        )
    lengths = _lengths(asked, fields, standing, request)
    described = description(asked, fields, request, datetime.datetime.now(datetime.UTC), lengths)
    stage = stage_of(described, str(source.name))
    if begun is not None and stage.reads_start:
        described["started"] = begun(source, described)
        stage = stage_of(described, str(source.name))
    described["inputs"] = stage.inputs
    kept = tuple(p for p in request.policies if p[1] in ("null", "clamp"))
    return Passage(
        source=source,
        fields=tuple(fields),
        described=described,
        stage=stage,
        in_the_way=tuple(refusals[column] for column in stage.reads if column in refusals),
        after=msgspec.structs.replace(request, policies=kept),
    )


# --- what comes out --------------------------------------------------------------------------


def derive(source: Table, fields: Sequence[Field], output: flow.Output) -> Table:
    """The table that a transform makes of ``source``: keys and native types carry over with the columns whose
    values do."""
    forms = {name: form for name, form, _ in fields}
    columns = []
    for made in output.columns:
        if made.origin is None:
            columns.append(
                Column(made.name, made.type, made.nullable, native=_own_native(made.type), forms=(made.type,))
            )
            continue
        origin = source.column(made.origin)
        same = made.type == forms[made.origin]
        columns.append(
            Column(
                made.name,
                made.type,
                made.nullable,
                # In another form than its own (a text in the place of a date) it is not of that native type any more.
                native=origin.native if same and made.type == origin.type else _own_native(made.type),
                forms=(made.type,),
                default=origin.default if same else None,
                identity=origin.identity if same else None,
                collation=origin.collation if same else None,
            )
        )
    called: dict[str, str] = {}
    for made in output.columns:
        if made.origin is not None:
            called.setdefault(made.origin, made.name)

    def key(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(called[n] for n in names) if names and all(n in called for n in names) else ()

    whole = output.table is None
    return Table(
        name=source.name,
        columns=tuple(columns),
        primary_key=key(source.primary_key) if whole else (),
        unique_keys=tuple(k for k in map(key, source.unique_keys) if k) if whole else (),
        rows=source.rows,
        bytes=source.bytes,
        kind=source.kind,
        user_types=source.user_types,
    )


def _own_native(made: Type) -> str:
    """The native type of a column that holds texts of a type that only its own engine knows; else there is none."""
    return (made.native or "").partition(":")[2] if made.kind == "opaque" else ""


def table_named(text: str) -> TableName:
    """The target table that a function feeds: ``table`` or ``schema.table``."""
    selector = selection.parse(text)
    if selector.is_glob or selector.new_name is not None:
        raise ConfigError(f"a function feeds {text!r}, which is no table's name")
    return TableName(None if selector.schema is None else selector.schema.text, selector.name.text)


@of_rules
def with_dedup(plan: TablePlan, asked: Asked) -> TablePlan:
    """The plan of a table's own rows with its dedup, under the target's names, where one is asked for.

    Raises ConfigError for a column that is not there, and for a way of keeping that is none.
    """
    if asked.spec.dedup is None:
        return plan
    from rowferry.stages.dedup import way_of

    # Name after the transform → in the target.
    called = {c.source: c.target for c in plan.columns}
    try:
        way, column = way_of(asked.spec.dedup)
    except ConfigError as error:
        error.message = f"[table.{asked.pattern!r}] dedup: {error.message}"
        raise error.at(table=str(plan.source.name)) from None
    for name in (*asked.spec.dedup.by, *([column] if column else [])):
        if name not in called:
            raise ConfigError(
                f"[table.{asked.pattern!r}] dedup: there is no column {name!r} after the transform",
                table=str(plan.source.name),
                hint=f"the columns are {', '.join(called)}",
            )
    mapped = msgspec.structs.replace(
        asked.spec.dedup,
        by=tuple(called[name] for name in asked.spec.dedup.by),
        keep=f"{way} by {called[column]}" if column else asked.spec.dedup.keep,
    )
    return msgspec.structs.replace(plan, dedup=msgspec.to_builtins(mapped))
