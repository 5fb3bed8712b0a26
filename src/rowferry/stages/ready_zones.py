"""The ready-made rule time_zone: a wall clock to its instant, an instant to a wall clock, one wall clock to another."""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Callable

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert.times import INT64, UNIT_DIGITS, floor_divide
from rowferry.stages import zone_table
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import Action, Worked, replaced, rows_of, wrong
from rowferry.stages.spec import Rule
from rowferry.stages.zone_table import DAY_S, FIRST_DAY, LAST_DAY, Zone
from rowferry.types import TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, Type

#: One value by hand: seconds → (seconds, settled by a policy), or why there is none.
Slow = Callable[[int], tuple[int, bool] | str]


def time_zone(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """timestamp with from_zone → timestamptz; timestamptz with to_zone → timestamp; timestamp with both → timestamp.

    Infinities stay as they are; an instant beyond the range of the type is unfit.
    """
    type_ = column.type
    if type_.kind not in ("timestamp", "timestamptz"):
        raise wrong(f"the rule time_zone is for timestamp and timestamptz, and this is {type_}", column, table)
    if type_.kind == "timestamp" and rule.from_zone is None:
        raise wrong("a wall clock time needs from_zone, the zone that its clock was in", column, table)
    if type_.kind == "timestamptz" and (rule.from_zone is not None or rule.to_zone is None):
        raise wrong("an instant needs to_zone, the zone of the clock that is wanted, and no from_zone", column, table)
    if type_.kind == "timestamptz" and (rule.gap or rule.overlap):
        raise wrong("an instant has one wall clock time always, so that gap and overlap say nothing", column, table)
    runs = []
    if rule.from_zone is not None:
        runs.append(_to_instant(_zone(rule.from_zone, column, table), type_, rule.gap, rule.overlap))
        type_ = msgspec.structs.replace(type_, kind="timestamptz")
    if rule.to_zone is not None:
        runs.append(_to_wall(_zone(rule.to_zone, column, table), type_))
        type_ = msgspec.structs.replace(type_, kind="timestamp")
    to = type_.arrow

    def run(array: pa.Array) -> Worked:
        worked = Worked(array.view(INT64))
        for step in runs:
            after = step(worked.array)
            worked = Worked(after.array, worked.touched + after.touched, {**worked.unfit, **after.unfit})
        worked.array = worked.array.view(to)
        return worked

    return Action(type_, run)


def _zone(name: str, column: OutColumn, table: str) -> Zone:
    zone = zone_table.load(name)
    if zone is None:
        known = zoneinfo.available_timezones()
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "write it as Europe/Warsaw or UTC"
        if not known:
            hint = "this machine has no time zones: pip install tzdata"
        raise wrong(f"there is no time zone {name!r}", column, table, hint=hint)
    return zone


def _to_instant(zone: Zone, type_: Type, gap: str | None, overlap: str | None) -> Callable[[pa.Array], Worked]:
    def slow(wall_s: int) -> tuple[int, bool] | str:
        instants = zone.instants(wall_s)
        if len(instants) == 1:
            return instants[0], False
        policy = overlap if instants else gap
        if policy not in ("earlier", "later"):
            what = "is shown twice by" if instants else "is skipped by"
            name = "overlap" if instants else "gap"
            return f"{what} the clocks of {zone.name}: {name} = earlier or later would say which instant it is"
        if not instants:
            instants = list(zone.around_gap(wall_s))
        return instants[0 if policy == "earlier" else -1], True

    return lambda ints: _shifted(ints, type_, zone.wall_days, pc.subtract, slow)


def _to_wall(zone: Zone, type_: Type) -> Callable[[pa.Array], Worked]:
    def slow(instant_s: int) -> tuple[int, bool]:
        return instant_s + zone.offset(instant_s), False

    return lambda ints: _shifted(ints, type_, zone.instant_days, pc.add, slow)


def _shifted(
    ints: pa.Array, type_: Type, offsets: pa.Array, apply: Callable[[pa.Array, pa.Array], pa.Array], slow: Slow
) -> Worked:
    """Timestamps plus or minus their day's offset; by hand those of days on which it changes, and of far years."""
    unit = 10 ** UNIT_DIGITS[type_.unit or "us"]
    days = pc.subtract(floor_divide(ints, DAY_S * unit), FIRST_DAY)
    inside = pc.and_(pc.greater_equal(days, 0), pc.less(days, LAST_DAY - FIRST_DAY))
    found = pc.take(offsets, pc.if_else(inside, days, pa.scalar(None, INT64))).cast(INT64)
    result = apply(ints, pc.multiply(found, unit))
    if result.null_count == ints.null_count:
        return Worked(result)
    by_hand = pc.and_(pc.is_valid(ints), pc.is_null(result))
    worked = Worked(result)
    rows = rows_of(by_hand)
    values: list[int | None] = []
    for row, value in zip(rows, ints.filter(by_hand).to_pylist(), strict=True):
        values.append(_one(value, unit, slow, row, worked))
    worked.array = replaced(result, by_hand, pa.array(values, INT64))
    return worked


def _one(value: int, unit: int, slow: Slow, row: int, worked: Worked) -> int | None:
    if value in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY):
        return value
    seconds, fraction = divmod(value, unit)
    answer = slow(seconds)
    if isinstance(answer, str):
        worked.unfit[row] = answer
        return None
    shifted = answer[0] * unit + fraction
    # The ends themselves are infinities.
    if not TIMESTAMP_MINUS_INFINITY < shifted < TIMESTAMP_INFINITY:
        worked.unfit[row] = "lies beyond the range of timestamps in the other zone"
        return None
    worked.touched += answer[1]
    return shifted
