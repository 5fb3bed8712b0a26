"""The expressions of one step: by kernels where these can, in DuckDB otherwise; which is not even loaded where all of
them can (0.1 s of CPU, measured).

A :class:`Work` is made once for a table and shared by its workers, a :class:`Swift` runs it in one of them.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from rowferry.errors import ConfigError
from rowferry.stages import expression_query
from rowferry.stages.expression_kernels import Compiled, compiled
from rowferry.stages.expression_numbers import Undecided
from rowferry.stages.expression_query import Field, Plan, Query
from rowferry.stages.expression_syntax import Node, columns, has_present
from rowferry.stages.expressions import Checked, Parser


class Asked(NamedTuple):
    """An expression: of which column (None: of where), its text, and what has been read of it without DuckDB and
    by DuckDB."""

    column: str | None
    text: str
    node: Node | None
    checked: Checked | None

    @property
    def alias(self) -> int | None:
        """The column that it is and nothing else: its values pass as they are, whatever their type."""
        if self.node is not None:
            return int(self.node.value) if self.node.kind == "column" else None
        return self.checked.column if self.checked is not None else None

    @property
    def reads_start(self) -> bool:
        """Whether the job's start is in it."""
        return has_present(self.node) if self.node is not None else self.checked is not None and self.checked.present

    @property
    def reads(self) -> set[int]:
        if self.node is not None:
            return columns(self.node)
        return set(self.checked.reads) if self.checked is not None else set()


class Work:
    """Expressions over columns, with the types that they give."""

    def __init__(
        self, fields: Sequence[Field], asked: Sequence[Asked], started: datetime.datetime, parser: Callable[[], Parser]
    ) -> None:
        """Raises ConfigError for an expression that DuckDB refuses, or whose columns or result it cannot hold."""
        types = [field.type for field in fields]
        self.fields = tuple(fields)
        self._asked = tuple(asked)
        self._started = started
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self.kernels = [compiled(one.node, types, started) if one.node is not None else None for one in asked]
        if all(kernel is not None for kernel in self.kernels):
            self.types = tuple(kernel.type for kernel in self.kernels if kernel is not None)
            self.reads = tuple(kernel.reads for kernel in self.kernels if kernel is not None)
            return
        self._plan = plan = self._planned(parser())
        self.types = tuple(made.type for made in plan.made)
        self.reads = tuple(checked.reads for checked in plan.checked)
        self.kernels = [
            kernel if kernel is not None and kernel.type == made.type else None
            for kernel, made in zip(self.kernels, plan.made, strict=True)
        ]

    def _planned(self, parser: Parser) -> Plan:
        names = [field.name for field in self.fields]
        checked = []
        for one in self._asked:
            try:
                checked.append(one.checked or parser.check(one.text, names))
            except ConfigError as error:
                raise error.at(column=one.column) from None
        return expression_query.plan(parser.connection, self.fields, checked, [one.column for one in self._asked])

    @property
    def needs_duckdb(self) -> bool:
        """Whether every batch is DuckDB's work, at least in part."""
        return not all(self.kernels)

    def plan(self, connection: Any) -> Plan:
        """The same for DuckDB. Raises AssertionError where it would give other types than were promised."""
        with self._lock:
            if self._plan is None:
                plan = self._planned(Parser(connection, self._started))
                given = tuple(made.type for made in plan.made)
                if given != self.types:
                    texts = ", ".join(repr(one.text) for one in self._asked)
                    raise AssertionError(f"{texts}: planned as {self.types}, and DuckDB gives {given}")
                self._plan = plan
            return self._plan


class Swift:
    """A :class:`Work` in one worker, as a :class:`Query` runs it. DuckDB is opened when the first batch needs it.

    connection: gives the worker's DuckDB; name: one that no other of the worker has.
    """

    def __init__(self, work: Work, connection: Callable[[], Any], name: str) -> None:
        self._work = work
        self._connection = connection
        self._name = name
        self._queries: dict[tuple[int, ...], Query] = {}

    def _query(self, chosen: tuple[int, ...]) -> Query:
        if chosen not in self._queries:
            connection = self._connection()
            name = f"{self._name} {' '.join(map(str, chosen))}"
            self._queries[chosen] = Query(connection, name, self._work.plan(connection), chosen)
        return self._queries[chosen]

    @property
    def whole(self) -> Query:
        """All of it in DuckDB, which is asked what a failure was."""
        return self._query(tuple(range(len(self._work.kernels))))

    def run(self, arrays: Sequence[pa.Array | None], count: int) -> list[pa.Array]:
        """As :meth:`Query.run`."""
        if not count:
            return [pa.array([], t.arrow) for t in self._work.types]
        made = [_worked(kernel, arrays, count) for kernel in self._work.kernels]
        rest = tuple(index for index, array in enumerate(made) if array is None)
        if rest:
            for index, array in zip(rest, self._query(rest).run(arrays, count), strict=True):
                made[index] = array
        return made


def _worked(kernel: Compiled | None, arrays: Sequence[pa.Array | None], count: int) -> pa.Array | None:
    """What a kernel gives; None where DuckDB has to decide."""
    if kernel is None:
        return None
    try:
        made = kernel.run(arrays)
    except (Undecided, pa.ArrowException):  # of Arrow: a number that does not fit, more than 2 GiB of texts
        return None
    return pa.repeat(made, count) if isinstance(made, pa.Scalar) else made
