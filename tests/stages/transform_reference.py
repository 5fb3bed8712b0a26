"""What a transform does, row by row in plain Python: slow, and plainly right."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]


class Expression(NamedTuple):
    """SQL, what it means in Python (a ValueError is a row on which it fails), and the columns that it reads."""

    sql: str
    run: Callable[[Row], Any]
    reads: tuple[str, ...]


def strict(function: Callable[..., Any], *names: str) -> Callable[[Row], Any]:
    """A function that gives NULL where one of its arguments is NULL, as SQL's operators do."""

    def run(row: Row) -> Any:
        values = [row[name] for name in names]
        return None if any(v is None for v in values) else function(*values)

    return run


def both(a: bool | None, b: bool | None) -> bool | None:
    """SQL's AND."""
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


class Outcome(NamedTuple):
    rows: list[Row]
    filtered: int
    touched: dict[str, int]
    #: The source row and the column that was at fault.
    refused: list[tuple[Row, str]]


class Gone(Exception):
    """A row that does not arrive; ``column`` None: it was left out."""

    def __init__(self, column: str | None) -> None:
        self.column = column


def narrowed(value: int, bits: int, policy: str) -> int | None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if low <= value <= high:
        return value
    return min(max(value, low), high) if policy == "clamp" else None


def rescaled(value: decimal.Decimal, scale: int) -> decimal.Decimal | None:
    rounded = value.quantize(decimal.Decimal(1).scaleb(-scale))
    return rounded if rounded == value else None


class Model:
    """One table's rules, as generated: SQL beside its meaning."""

    def __init__(self) -> None:
        self.lookup: tuple[dict[int, str], str] | None = None
        self.set: dict[str, Expression] = {}
        self.set_on_error = "null"
        self.where: Expression | None = None
        #: column → (type's text, bits or scale, policy)
        self.cast: dict[str, tuple[str, int, str]] = {}
        self.constant: dict[str, Any] = {}
        self.drop: tuple[str, ...] = ()
        self.rename: dict[str, str] = {}
        self.order: tuple[str, ...] = ()

    def run(self, rows: list[Row]) -> Outcome:
        outcome = Outcome([], 0, {}, [])
        filtered = 0
        for row in rows:
            try:
                outcome.rows.append(self._one(dict(row), outcome.touched))
            except Gone as gone:
                if gone.column is None:
                    filtered += 1
                else:
                    outcome.refused.append((row, gone.column))
        return outcome._replace(filtered=filtered)

    def _one(self, row: Row, touched: dict[str, int]) -> Row:
        if self.lookup is not None:
            table, missing = self.lookup
            found = table.get(row["k"])
            if row["k"] not in table and missing == "quarantine":
                raise Gone("k")
            row["found"] = found
        early = self.where is not None and not set(self.where.reads) & set(self.set)
        if early:
            self._filter(row)
        before = dict(row)
        failed: list[str] = []
        for name, expression in self.set.items():
            try:
                row[name] = expression.run(before)
            except ValueError:
                row[name] = None
                failed.append(name)
        if failed and self.set_on_error == "quarantine":
            raise Gone(failed[0])
        for name in failed:
            touched[name] = touched.get(name, 0) + 1
        if self.where is not None and not early:
            self._filter(row)
        for name, (_, size, policy) in self.cast.items():
            self._cast(row, name, size, policy, touched)
        row |= self.constant
        row = {self.rename.get(name, name): value for name, value in row.items() if name not in self.drop}
        return {name: row[name] for name in (*self.order, *(n for n in row if n not in self.order))}

    def _filter(self, row: Row) -> None:
        assert self.where is not None
        if self.where.run(row) is not True:
            raise Gone(None)

    def _cast(self, row: Row, name: str, size: int, policy: str, touched: dict[str, int]) -> None:
        value = row[name]
        if value is None:
            return
        near = rescaled(value, size) if isinstance(value, decimal.Decimal) else narrowed(value, size, policy)
        if near != value:
            if policy == "quarantine":
                raise Gone(name)
            touched[name] = touched.get(name, 0) + 1
        row[name] = near
