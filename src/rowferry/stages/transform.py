"""A table's transform: checked and typed before the first row, then run on each batch.

``open`` turns a :class:`~rowferry.stages.spec.TableSpec` into steps over columns; their order is that of the
spec's fields, but that a ``where`` which reads no column of ``set`` comes before it, so that nothing is worked
out for rows that are left out. A column that no step touches leaves in the very buffers in which it came.
docs/TRANSFORM.md says what each part means.
"""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import Conversion, conversion
from rowferry.errors import ConfigError, DataError, RowferryError
from rowferry.stages import callables, expression_query, expression_syntax, ready_made
from rowferry.stages.expression_query import Query
from rowferry.stages.expression_work import Asked, Swift, Work
from rowferry.stages.expressions import Parser, unknown
from rowferry.stages.flow import OutColumn, Output, Passed
from rowferry.stages.frame import Column, Frame
from rowferry.stages.spec import Cast, TableSpec
from rowferry.stages.type_text import parse_type
from rowferry.types import Type

#: What a worker does with each batch at one step.
Run = Callable[[Frame], None]

_INT64_MAX = 2**63 - 1
#: A rename, a cast and two text expressions over lineitem cost 0.25 CPU s per million rows in batches of 8,192
#: rows, 0.16 in batches of 16,384 and no less in larger ones (measured).
_BATCH_ROWS = 16_384


class Bench:
    """What one worker's steps share: its DuckDB, opened when the first step needs it."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._queries = 0

    @property
    def connection(self) -> Any:
        if self._connection is None:
            self._connection = expression_query.connect()
        return self._connection

    def swift(self, work: Work) -> Swift:
        self._queries += 1
        return Swift(work, lambda: self.connection, str(self._queries))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Step:
    """One part of a transform. ``bind`` gives what a worker runs; a step without state gives the same to all."""

    needs_duckdb = False

    def bind(self, bench: Bench) -> Run:
        raise NotImplementedError


class Transform:
    """The :class:`~rowferry.stages.flow.Stage` of one table."""

    def __init__(
        self, table: str, reads: tuple[str, ...], places: tuple[int | None, ...], outputs: tuple[Output, ...],
        steps: tuple[Step, ...], leave: tuple[int, ...], last: callables.Call | None, inputs: dict[str, str],
        reads_start: bool,
    ) -> None:  # fmt: skip
        self.table = table
        self.reads = reads
        self.outputs = outputs
        self.places = places
        self.steps = steps
        self.leave = leave
        self.last = last
        self.inputs = inputs
        self.reads_start = reads_start
        #: Rows that a batch should have at least (0: any): a run of DuckDB costs 0.35 ms, however few they are.
        self.batch_rows = _BATCH_ROWS if any(step.needs_duckdb for step in steps) else 0
        self.schema = pa.schema([pa.field(c.name, c.type.arrow) for c in outputs[0].columns]) if not last else None

    def worker(self) -> TransformWorker:
        return TransformWorker(self)


class TransformWorker:
    """One thread's own: its DuckDB and its prepared queries."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._bench = Bench()
        self._runs = [step.bind(self._bench) for step in transform.steps]

    def apply(self, batch: pa.RecordBatch) -> Passed:
        """n rows in the transform's ``reads`` (canonical Arrow types) in; what became of them out.

        Raises DataError with table, column, value and row where a row stops the job.
        """
        transform = self._transform
        if tuple(batch.schema.names) != transform.reads:
            raise AssertionError(f"a batch of {batch.schema.names} for a transform of {transform.reads}")
        frame = Frame(batch, [None if i is None else batch.column(i) for i in transform.places])
        try:
            for run in self._runs:
                run(frame)
            arrays = [frame.arrays[i] for i in transform.leave]
            if transform.last is not None:
                transform.last.run(frame, arrays)
            else:
                frame.passed.batches.append((0, pa.RecordBatch.from_arrays(arrays, schema=transform.schema)))
        except DataError as error:
            raise frame.placed(error).at(table=transform.table) from None
        except RowferryError as error:
            raise error.at(table=transform.table) from None
        return frame.passed

    def close(self) -> None:
        self._bench.close()


def open(
    spec: TableSpec,
    fields: Sequence[tuple[str, Type, bool]],
    *,
    table: str,
    started: datetime.datetime | str,
    folder: str | pathlib.Path,
    function: Callable[..., Any] | None = None,
    lengths: Mapping[str, int | None] | None = None,
) -> Transform:
    """Checks a table's rules against its columns and works out what leaves.

    fields: (name, type, nullable) of every source column. started: the job's start, which now() means. folder:
        what relative file names (and modules of ``python``) are relative to. function: a callable in the place of
        ``spec.python``. lengths: characters that the target's columns hold, for the rule ``truncate``.

    Raises ConfigError with table and column: an unknown column, an expression that does not parse or is not
    row-wise, a type that cannot be carried exactly, a look-up table with a key twice, a function that fails.
    """
    if isinstance(started, str):
        started = datetime.datetime.fromisoformat(started)
    if started.tzinfo is None:
        started = started.replace(tzinfo=datetime.UTC)
    builder = _Builder(spec, fields, table, started, pathlib.Path(folder), lengths)
    try:
        return builder.build(function)
    except ConfigError as error:
        raise error.at(table=table) from None
    finally:
        builder.bench.close()


class _Builder:
    """The columns so far, and the steps that lead to them."""

    def __init__(
        self, spec: TableSpec, fields: Sequence[tuple[str, Type, bool]], table: str, started: datetime.datetime,
        folder: pathlib.Path, lengths: Mapping[str, int | None] | None,
    ) -> None:  # fmt: skip
        self.spec = spec
        self.table = table
        self.folder = folder
        self.lengths = lengths
        self.sources = tuple(name for name, _, _ in fields)
        self.columns = [Column(OutColumn(n, t, nullable, n), frozenset((n,))) for n, t, nullable in fields]
        #: Source columns that a step reads, whether what it makes of them leaves or not.
        self.required: set[str] = set()
        self.steps: list[Step] = []
        self.bench = Bench()
        self.inputs: dict[str, str] = {}
        self.reads_start = False
        self._started = started
        self._parser: Parser | None = None

    def build(self, function: Callable[..., Any] | None) -> Transform:
        spec = self.spec
        for rule in spec.rules:
            self._rule(rule)
        for table in spec.lookups:
            self._lookup(table)
        self._set_and_where()
        self._casts()
        self._constants()
        leave = self._shape()
        given = function is not None or spec.python is not None
        if not leave:
            raise ConfigError("no column is left", hint="drop the table instead: leave it out of the copy")
        needed = self.required | {name for c in leave for name in self.columns[c[1]].deps}
        reads = tuple(name for name in self.sources if name in needed)
        if not reads:
            reads = self.sources[:1]  # rows have to be counted by something
        outs = tuple(self._renamed(index, name) for name, index in leave)
        outputs: tuple[Output, ...] = (Output(None, outs),)
        last = None
        if given:
            called = function if function is not None else callables.load(spec.python or "", self.folder)
            last = callables.Call(called, outs, self.table, spec.python_keeps_rows)
            outputs = last.outputs
        places = tuple(reads.index(name) if name in reads else None for name in self.sources)
        return Transform(
            self.table, reads, places, outputs, tuple(self.steps), tuple(index for _, index in leave), last,
            self.inputs, self.reads_start,
        )  # fmt: skip

    def _renamed(self, index: int, name: str) -> OutColumn:
        return msgspec.structs.replace(self.columns[index].out, name=name)

    # Columns by name.

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    def _index(self, name: str, what: str) -> int:
        names = self.names
        if name not in names:
            error = unknown(name, names)
            error.message = f"{what}: {error.message}"
            raise error
        return names.index(name)

    def _put(self, name: str, column: Column) -> int:
        """The place of a column that is set: that of the one of its name, or a new one at the end."""
        names = self.names
        if name in names:
            self.columns[names.index(name)] = column
            return names.index(name)
        self.columns.append(column)
        return len(names)

    # Parts.

    def _rule(self, rule: Any) -> None:
        plan = ready_made.plan(rule, [c.out for c in self.columns], table=self.table, lengths=self.lengths)
        before = {c.name: c for c in self.columns}
        read = frozenset(d for name in plan.reads if name in before for d in before[name].deps)
        self.required |= read
        self.inputs |= plan.inputs
        self.columns = [Column(out, before[out.name].deps if out.name in before else read) for out in plan.fields]
        self.steps.append(_Ruled(plan, [c.out for c in before.values()]))

    def _lookup(self, table: Any) -> None:
        from rowferry.stages import lookup

        plan = lookup.load(table, [c.out for c in self.columns], self.folder)
        deps = frozenset(d for i in plan.keys for d in self.columns[i].deps)
        self.required |= deps
        self.inputs |= plan.inputs
        places = [self._put(out.name, Column(out, deps)) for out in plan.taken]
        self.steps.append(_LookedUp(plan, places))

    def parser(self) -> Parser:
        if self._parser is None:
            self._parser = Parser(self.bench.connection, self._started)
        return self._parser

    def _asked(self, column: str | None, text: str, names: Sequence[str]) -> Asked:
        """An expression, read without DuckDB where that is enough. Raises ConfigError where DuckDB refuses it."""
        node = expression_syntax.read(text, names)
        if node is not None:
            return Asked(column, text, node, None)
        try:
            return Asked(column, text, None, self.parser().check(text, names))
        except ConfigError as error:
            raise error.at(column=column) from None

    def _work(self, asked: Sequence[Asked]) -> Work:
        self.reads_start |= any(one.reads_start for one in asked)
        fields = [expression_query.Field(c.name, c.out.type) for c in self.columns]
        return Work(fields, asked, self._started, self.parser)

    def _set_and_where(self) -> None:
        where = self.spec.where
        early = where is not None and _of_where(self._reads_nothing_set, where)
        if where is not None and early:
            _of_where(self._where, where)
        self._set()
        if where is not None and not early:
            _of_where(self._where, where)

    def _reads_nothing_set(self, where: str) -> bool:
        names = [*self.names, *(name for name in self.spec.set if name not in self.names)]
        reads = self._asked(None, where, names).reads
        return not {names[i] for i in reads} & set(self.spec.set)

    def _set(self) -> None:
        aliases: list[tuple[str, int]] = []
        worked: list[tuple[str, Asked]] = []
        for name, text in self.spec.set.items():
            one = self._asked(name, text, self.names)
            if one.alias is not None:
                aliases.append((name, one.alias))
            else:
                worked.append((name, one))
        if not self.spec.set:
            return
        work = self._work([one for _, one in worked]) if worked else None
        before = list(self.columns)
        places: list[int] = []
        for (name, _), made, reads in zip(worked, work.types if work else (), work.reads if work else (), strict=True):
            deps = frozenset(d for i in reads for d in before[i].deps)
            self.required |= deps
            places.append(self._put(name, Column(OutColumn(name, made), deps)))
        moved: list[tuple[int, int]] = []
        for name, index in aliases:
            out = msgspec.structs.replace(before[index].out, name=name)
            moved.append((self._put(name, Column(out, before[index].deps)), index))
        names = tuple(name for name, _ in worked)
        self.steps.append(_Set(work, names, tuple(places), tuple(moved), self.spec.set_on_error))

    def _where(self, text: str) -> None:
        one = self._asked(None, text, self.names)
        if one.alias is not None:
            _require_condition(text, self.columns[one.alias].out.type)
            # DuckDB gives no name to what is a column alone.
            one = one._replace(text=f"({text}) IS TRUE", checked=None)
        work = self._work([one])
        _require_condition(text, work.types[0])
        self.required |= {d for i in work.reads[0] for d in self.columns[i].deps}
        self.steps.append(_Where(work, self.spec.set_on_error))

    def _casts(self) -> None:
        for name, given in self.spec.cast.items():
            index = self._index(name, "cast")
            wanted = given if isinstance(given, Cast) else Cast(given)
            old = self.columns[index]
            try:
                to = parse_type(wanted.to)
            except ConfigError as error:
                raise error.at(column=name) from None
            policy = {"refuse": None, "null": "null", "quarantine": "null", "clamp": "clamp"}[wanted.on_error]
            way = conversion(old.out.type, to, (), policy)
            if isinstance(way, str):
                hint = f'round or format it by an expression: set = {{ {name} = "CAST({name} AS …)" }}'
                raise ConfigError(f"cast to {to}: {way}", column=name, hint=hint)
            if old.out.type == to:
                continue
            nullable = old.out.nullable or (policy == "null" and wanted.on_error != "quarantine")
            self.required |= old.deps
            self.columns[index] = Column(OutColumn(name, to, nullable), old.deps)
            self.steps.append(_Cast(name, index, way, wanted.on_error == "quarantine"))

    def _constants(self) -> None:
        for name, value in self.spec.constant.items():
            t = _type_of(value)
            place = self._put(name, Column(OutColumn(name, t, value is None), frozenset()))
            self.steps.append(_Constant(place, pa.scalar(value, t.arrow)))

    def _shape(self) -> list[tuple[str, int]]:
        """The columns that leave: their names and where they stand."""
        spec = self.spec
        dropped = {self._index(name, "drop") for name in spec.drop}
        new_names: dict[int, str] = {}
        for name, new in spec.rename.items():
            index = self._index(name, "rename")
            if index in dropped:
                raise ConfigError("it is dropped and renamed at once", column=name)
            if not new:
                raise ConfigError("a column needs a name", column=name)
            new_names[index] = new
        left = [(new_names.get(i, c.name), i) for i, c in enumerate(self.columns) if i not in dropped]
        names = [name for name, _ in left]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two columns would be called {name!r}", column=name)
        first: list[tuple[str, int]] = []
        for name in spec.order:
            if name not in names:
                error = unknown(name, names)
                error.message = f"order: {error.message}"
                raise error
            if left[names.index(name)] in first:
                raise ConfigError("order names it twice", column=name)
            first.append(left[names.index(name)])
        return first + [c for c in left if c not in first]


def _require_condition(text: str, given: Type) -> None:
    if given.kind != "bool":
        raise ConfigError(f"{text!r} is no condition: it gives {given}")


def _of_where(run: Callable[[str], Any], where: str) -> Any:
    """What ``run`` gives; a ConfigError of it says which part of the rules is at fault."""
    try:
        return run(where)
    except ConfigError as error:
        error.message = f"where: {error.message}"
        raise


def _type_of(value: str | int | float | bool | None) -> Type:
    if isinstance(value, bool):
        return Type("bool")
    if isinstance(value, int):
        if abs(value) > _INT64_MAX:
            raise ConfigError(f"the constant {value} has more than 64 bits", hint="write it as an expression of set")
        return Type("int64")
    return Type("float64") if isinstance(value, float) else Type("text")


# Steps.


class _Ruled(Step):
    def __init__(self, plan: ready_made.RulePlan, before: Sequence[OutColumn]) -> None:
        self._plan = plan
        self._schema = pa.schema([pa.field(c.name, c.type.arrow) for c in before])

    def bind(self, bench: Bench) -> Run:
        return self._run

    def _run(self, frame: Frame) -> None:
        arrays = [
            pa.nulls(frame.count, field.type) if array is None else array
            for array, field in zip(frame.arrays, self._schema, strict=True)
        ]
        outcome = self._plan.apply(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        missing = [array is None for array in frame.arrays]
        missing += [False] * (outcome.batch.num_columns - len(missing))
        frame.arrays = [None if no else a for a, no in zip(outcome.batch.columns, missing, strict=True)]
        for column, count in outcome.touched.items():
            frame.touch(column, count)
        frame.refuse(outcome.refused)


class _LookedUp(Step):
    def __init__(self, plan: Any, places: Sequence[int]) -> None:
        self._plan = plan
        self._places = places

    def bind(self, bench: Bench) -> Run:
        return self._run

    def _run(self, frame: Frame) -> None:
        taken, refused = self._plan.apply([frame.arrays[i] for i in self._plan.keys], frame.count)
        _place(frame, self._places, taken)
        frame.refuse(refused)


def _place(frame: Frame, places: Sequence[int], arrays: Sequence[pa.Array]) -> None:
    for place, array in zip(places, arrays, strict=True):
        while len(frame.arrays) <= place:
            frame.arrays.append(None)
        frame.arrays[place] = array


class _Set(Step):
    """Expressions over the columns so far, all at once."""

    def __init__(
        self, work: Work | None, names: tuple[str, ...], places: tuple[int, ...], moved: tuple[tuple[int, int], ...],
        on_error: str,
    ) -> None:  # fmt: skip
        self._work = work
        self._names = names
        self._places = places
        self._moved = moved
        self._on_error = on_error
        self.needs_duckdb = work is not None and work.needs_duckdb

    def bind(self, bench: Bench) -> Run:
        swift = bench.swift(self._work) if self._work is not None else None
        return lambda frame: self._run(frame, swift)

    def _run(self, frame: Frame, swift: Swift | None) -> None:
        before = list(frame.arrays)
        refused: list[tuple[int, str, str]] = []
        made: list[pa.Array] = []
        if swift is not None:
            made = _worked(frame, swift, self._names, self._on_error, refused)
        _place(frame, self._places, made)
        _place(frame, [to for to, _ in self._moved], [before[index] for _, index in self._moved])
        frame.refuse(refused)


def _worked(
    frame: Frame, swift: Swift, names: Sequence[str | None], on_error: str, refused: list[tuple[int, str, str]]
) -> list[pa.Array]:
    """The arrays of a step's expressions; rows on which one fails stop the job, become NULL or are set aside."""
    try:
        return swift.run(frame.arrays, frame.count)
    except expression_query.failures():
        return [_settled(frame, swift.whole, i, name, on_error, refused) for i, name in enumerate(names)]


def _settled(
    frame: Frame, query: Query, index: int, name: str | None, on_error: str, refused: list[tuple[int, str, str]]
) -> pa.Array:
    """The array of one expression, where one of several failed."""
    if on_error == "refuse":
        found = query.first_failure(index, frame.arrays, frame.count)
        if isinstance(found, tuple):
            raise query.error(index, frame.arrays, found, name)
        return found
    array, failed = query.settled(index, frame.arrays, frame.count)
    if on_error == "null":
        frame.touch(name or "where", len(failed))
    else:
        refused += [(row, name or "where", f"the expression fails: {why}".rstrip(" :")) for row, why in failed.items()]
    return array


class _Where(Step):
    def __init__(self, work: Work, on_error: str) -> None:
        self._work = work
        self._on_error = on_error
        self.needs_duckdb = work.needs_duckdb

    def bind(self, bench: Bench) -> Run:
        swift = bench.swift(self._work)
        return lambda frame: self._run(frame, swift)

    def _run(self, frame: Frame, swift: Swift) -> None:
        refused: list[tuple[int, str, str]] = []
        mask = pc.fill_null(_worked(frame, swift, [None], self._on_error, refused)[0], False)
        if refused:
            # A row whose condition cannot be told is set aside, not left out.
            aside = {row for row, _, _ in refused}
            told = pa.array([row not in aside for row in range(frame.count)], pa.bool_())
            frame.refuse(refused)
            mask = mask.filter(told)
        before = frame.count
        frame.keep(mask)
        frame.passed.filtered += before - frame.count


class _Cast(Step):
    def __init__(self, name: str, index: int, way: Conversion, quarantine: bool) -> None:
        self._name = name
        self._index = index
        self._way = way
        self._quarantine = quarantine

    def bind(self, bench: Bench) -> Run:
        return self._run

    def _run(self, frame: Frame) -> None:
        array = cast(pa.Array, frame.arrays[self._index])
        try:
            frame.arrays[self._index], count = self._way.apply(array)
        except DataError as error:
            error.hint = (
                "round or format it by an expression before (set), or say what becomes of such values: "
                f'cast = {{ {self._name} = {{ to = "{self._way.to}", on_error = "null" }} }} (or clamp, or quarantine)'
            )
            raise error.at(column=self._name) from None
        if not count:
            return
        if not self._quarantine:
            frame.touch(self._name, count)
            return
        lost = pc.and_(pc.is_valid(array), pc.is_null(frame.arrays[self._index]))
        reason = f"does not fit {self._way.to}"
        frame.refuse([(row, self._name, reason) for row in pc.indices_nonzero(lost).to_pylist()])


class _Constant(Step):
    def __init__(self, place: int, value: pa.Scalar) -> None:
        self._place = place
        self._value = value

    def bind(self, bench: Bench) -> Run:
        return self._run

    def _run(self, frame: Frame) -> None:
        array = pa.repeat(self._value, frame.count)
        _place(frame, [self._place], [array])
