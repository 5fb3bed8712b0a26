"""The ready-made rules of a job.toml (``rules = [{ columns = [...], do = "trim" }]``): checked once, run on each batch.

What each does and takes is in docs/READY_MADE.md. :func:`plan` checks a rule against the columns before the first
row; the plan's ``apply`` then works on record batches and keeps no state, so that any thread may run it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.value_text import value_text, visible
from rowferry.errors import ConfigError, DataError
from rowferry.selection import Part
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import Action, Made, Worked
from rowferry.stages.spec import Rule


class _Known(NamedTuple):
    """A rule: where its maker is, and which of Rule's fields it takes and needs beside ``columns`` and ``do``."""

    module: str
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    #: It works on several columns at once (a TableMaker), not on each by itself.
    joint: bool = False


_KNOWN = {
    "trim": _Known("ready_texts", ("characters", "side")),
    "nul": _Known("ready_texts", ("replacement",)),
    "unicode": _Known("ready_texts", ("form",), ("form",)),
    "truncate": _Known("ready_texts", ("length", "length_bytes")),
    "hash": _Known("ready_privacy", ("key_env", "algorithm", "encoding"), ("key_env",)),
    "redact": _Known("ready_privacy", ("how", "keep", "replacement")),
    "json_take": _Known("ready_json", ("paths",), ("paths",), joint=True),
    "json_put": _Known("ready_json", ("into", "paths"), ("into",), joint=True),
    "time_zone": _Known("ready_zones", ("from_zone", "to_zone", "gap", "overlap")),
    "zero_date": _Known("ready_dates", ("replacement", "to")),
}
_COMMON = ("columns", "do", "on_error")
#: Fields of Rule that say something (not None, not empty): the rule's arguments.
_FIELDS = tuple(f.name for f in msgspec.structs.fields(Rule) if f.name not in _COMMON)


class Outcome(msgspec.Struct):
    """What became of one batch: as many rows as before, in the plan's ``fields``.

    touched: values that were changed (or settled by ``on_error``), by column; those with none are left out.
    refused: (row, column, reason) under on_error = quarantine; the row is still in ``batch``, with NULL there.
    """

    batch: pa.RecordBatch
    touched: dict[str, int] = msgspec.field(default_factory=dict)
    refused: list[tuple[int, str, str]] = msgspec.field(default_factory=list)


class RulePlan:
    """One rule, checked: ``fields`` are the columns after it."""

    def __init__(self, rule: Rule, table: str, before: tuple[OutColumn, ...]) -> None:
        self.rule = rule
        self.table = table
        self.before = before
        self.fields = before
        self._actions: dict[int, Action] = {}
        self._made: Made | None = None
        #: The columns that the rule reads: all others pass as they are.
        self.reads: tuple[str, ...] = ()
        #: As ``flow.Stage.inputs``.
        self.inputs: dict[str, str] = {}

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """n rows with the columns ``before`` (canonical Arrow types) in, n rows with ``fields`` out.

        Raises DataError with table, column, value and row at a value that the rule cannot carry (on_error refuse).
        """
        arrays = list(batch.columns)
        outcome = Outcome(batch)
        for index, action in self._actions.items():
            worked = action.run(arrays[index])
            arrays[index] = self._settled(worked, self.fields[index], self.before[index], arrays[index], outcome)
        if self._made is not None:
            made, broken = self._made.run(batch)
            given = next(c for c in self.before if c.name == self.reads[0])
            array = batch.column(given.name)
            if broken:
                self._settled(Worked(array, 0, broken), given, given, array, outcome)
            for column, worked in zip(self._made.columns, made, strict=True):
                arrays.append(self._settled(worked, column, given, array, outcome))
        schema = pa.schema([pa.field(c.name, c.type.arrow) for c in self.fields])
        outcome.batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return outcome

    def _settled(
        self, worked: Worked, column: OutColumn, given: OutColumn, array: pa.Array, outcome: Outcome
    ) -> pa.Array:
        """The array with what ``on_error`` makes of the unfit values; counts them."""
        result, touched, unfit = worked.array, worked.touched, worked.unfit
        if unfit:
            on_error = self.rule.on_error
            if on_error == "refuse":
                raise self._error(min(unfit), unfit, column, given, array)
            if on_error == "quarantine":
                outcome.refused.extend((row, column.name, reason) for row, reason in sorted(unfit.items()))
            else:
                touched += len(unfit)
            if on_error != "clamp":
                mask = pa.array([row in unfit for row in range(len(result))], pa.bool_())
                result = pc.if_else(mask, pa.scalar(None, result.type), result)
        if touched:
            outcome.touched[column.name] = outcome.touched.get(column.name, 0) + touched
        return result

    def _error(
        self, row: int, unfit: dict[int, str], column: OutColumn, given: OutColumn, array: pa.Array
    ) -> DataError:
        shown = visible(value_text(array, row, given.type) or "NULL")
        return DataError(
            f"the rule {self.rule.do}: the value {unfit[row]}",
            table=self.table,
            column=column.name,
            value=f"'{shown}' in row {row} of its batch",
            hint="give the rule an on_error of null or quarantine"
            + (", or clamp" if any(a.clamps for a in self._actions.values()) else ""),
        )


def plan(
    rule: Rule, fields: Sequence[OutColumn], *, table: str, lengths: Mapping[str, int | None] | None = None
) -> RulePlan:
    """Checks a rule against the columns that it meets, and works out those after it.

    lengths: what the target's columns hold (characters), by our names, for ``truncate`` without a length; a
        column that is not there has no bound. Raises ConfigError: an unknown rule, a column that is not there,
        arguments that the rule does not take or needs, a type that it is not for, a key that is missing.
    """
    known = _known(rule, table)
    _check_arguments(rule, known, table)
    chosen = _columns(rule, fields, table)
    result = RulePlan(rule, table, tuple(fields))
    result.reads = tuple(fields[index].name for index in chosen)
    maker: Callable[..., Any] = getattr(importlib.import_module(f"rowferry.stages.{known.module}"), rule.do)
    if known.joint:
        if rule.on_error == "clamp":
            raise _no_clamp(rule, table, None)
        result._made = made = maker(rule, [fields[i] for i in chosen], fields, table)
        result.fields = (*fields, *_nullable(rule, made.columns))
        return result
    after = list(fields)
    for index in chosen:
        column = fields[index]
        action: Action = maker(rule, column, table, (lengths or {}).get(column.name))
        if rule.on_error == "clamp" and not action.clamps:
            raise _no_clamp(rule, table, column.name)
        result._actions[index] = action
        result.inputs |= action.inputs
        nullable = column.nullable or action.makes_null or rule.on_error in ("null", "quarantine")
        after[index] = OutColumn(column.name, action.type, nullable)
    result.fields = tuple(after)
    return result


def _no_clamp(rule: Rule, table: str, column: str | None) -> ConfigError:
    return ConfigError(
        f"the rule {rule.do} has no nearest value that on_error = clamp could take",
        table=table,
        column=column,
        hint="it is refuse, null or quarantine",
    )


def _nullable(rule: Rule, columns: Sequence[OutColumn]) -> list[OutColumn]:
    may = rule.on_error in ("null", "quarantine")
    return [msgspec.structs.replace(c, nullable=c.nullable or may) for c in columns]


def _known(rule: Rule, table: str) -> _Known:
    known = _KNOWN.get(rule.do)
    if known is None:
        near = difflib.get_close_matches(rule.do, _KNOWN, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_KNOWN)}"
        raise ConfigError(f"there is no rule {rule.do!r}", table=table, hint=hint)
    return known


def _check_arguments(rule: Rule, known: _Known, table: str) -> None:
    given = [name for name in _FIELDS if getattr(rule, name) not in (None, {})]
    for name in given:
        if name not in known.takes:
            takes = f"it takes {', '.join(known.takes)}" if known.takes else "it takes none"
            raise ConfigError(f"the rule {rule.do} takes no {name}", table=table, hint=takes)
    for name in known.needs:
        if name not in given:
            raise ConfigError(f"the rule {rule.do} needs {name}", table=table)
    if rule.on_error not in ("refuse", "null", "quarantine", "clamp"):
        raise ConfigError(f"on_error is {rule.on_error!r}", table=table, hint="it is refuse, null, quarantine or clamp")


def _columns(rule: Rule, fields: Sequence[OutColumn], table: str) -> list[int]:
    """The places of the columns meant, in the table's order. A name that a column has is that column, never a glob."""
    if isinstance(rule.columns, str) or not rule.columns:
        raise ConfigError(f"the rule {rule.do} needs columns, a list of names or globs", table=table)
    names = [field.name for field in fields]
    chosen: set[int] = set()
    for text in rule.columns:
        part = Part(text, literal=text in names)
        matched = [index for index, name in enumerate(names) if part.matches(name)]
        if not matched:
            near = difflib.get_close_matches(text, names, 3)
            shown = ", ".join(repr(n) for n in names[:8]) + (" …" if len(names) > 8 else "")
            hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"the columns are {shown}"
            raise ConfigError(f"the rule {rule.do}: no column matches {text!r}", table=table, hint=hint)
        chosen.update(matched)
    return sorted(chosen)
