"""Numbers without bounds into an engine that has none: how many digits a column's values have, so that it is made
of a decimal that holds them all."""

from __future__ import annotations

import msgspec

from rowferry.adapters.protocol import Digits, Measuring, Source
from rowferry.engine.request import Request
from rowferry.model import Column, Refusal, Table
from rowferry.types import Type

#: MySQL and its like keep nine digits in four bytes: room for more of them before the point costs next to nothing, and
#: rows that come while a job is resumed find it.
DIGITS_TOGETHER = 9
#: Of a column without a value: what holds most of what may come.
EMPTY_SCALE = 30


def measured(source: Source, table: Table, request: Request, digits_max: int) -> Table:
    """The table, whose columns of numbers without bounds have a decimal as their first form, or a refusal where a value
    is no number. Those with a policy of their own, and tables of sources that cannot tell, stay as they are.

    digits_max: digits of the target's decimals. Raises what the source raises.
    """
    wanted = [
        c.name
        for c in table.columns
        if c.type.kind == "numeric" and request.policy(str(table.name), c.name) not in ("text", "skip")
    ]
    if not wanted or not isinstance(source, Measuring):
        return table
    found = dict(zip(wanted, source.digits(table, wanted), strict=True))
    columns = (bounded(c, found[c.name], digits_max) if c.name in found else c for c in table.columns)
    return msgspec.structs.replace(table, columns=tuple(columns))


def bounded(column: Column, digits: Digits, digits_max: int) -> Column:
    """The column as a decimal of so many digits."""
    if digits.special:
        reason = "values that are no numbers (NaN, ±Infinity), which a decimal does not hold"
        return msgspec.structs.replace(
            column, refusal=Refusal(column.name, reason, digits.special, policies=("text", "skip"))
        )
    if digits.whole is None or digits.scale is None:
        precision, scale = digits_max, EMPTY_SCALE
    else:
        scale = digits.scale
        room = -(-max(digits.whole, 1) // DIGITS_TOGETHER) * DIGITS_TOGETHER
        precision = max(min(room + scale, digits_max), digits.whole + scale, 1)
    form = Type("decimal", precision=precision, scale=scale)
    return msgspec.structs.replace(column, type=form, forms=(form, *column.forms))
