"""Cuts tables into chunks: by an integer key, else by rowid (the order in which the file holds the rows),
else by the key whatever it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rowferry import limits
from rowferry.adapters.sqlite.catalog import Shape
from rowferry.adapters.sqlite.types import affinity
from rowferry.adapters.sqlite.wire import Session, quote
from rowferry.model import Bound, Table

#: Rowids count as dense, and are cut by arithmetic, while at most this many places are taken up by a row.
_PLACES_PER_ROW_MAX = 4


def split(session: Session, shape: Shape, table: Table, chunk_bytes: int, rows_min: int) -> list[Bound]:
    """Bounds that together hold each row once, with open head and tail."""
    place = _place(shape)
    rows_each = _rows_each(table, chunk_bytes, rows_min)
    if not place or table.rows <= rows_each:
        return [Bound({}, physical=False, rows=table.rows, bytes=table.bytes)]
    rows_each = max(rows_each, -(-table.rows // limits.CHUNKS_PER_TABLE_MAX))
    cuts = _dense_cuts(session, shape, place, table, rows_each) or _sampled_cuts(session, shape, place, rows_each)
    # A rowid that is no column may change under VACUUM: such chunks are true of this very state only.
    physical = shape.rowid is not None and shape.ipk is None and _integer_key(shape) is None
    ends = [None, *cuts, None]
    return [
        Bound(
            {"above": low, "upto": high},
            physical=physical,
            rows=min(rows_each, table.rows),
            bytes=min(chunk_bytes, table.bytes),
        )
        for low, high in itertools.pairwise(ends)
    ]


def _place(shape: Shape) -> tuple[str, ...]:
    """What rows are told apart and ordered by, in SQL; nothing for views."""
    if shape.kind == "view":
        return ()
    if (key := _integer_key(shape)) is not None:
        return (f"t.{quote(key)}",)
    if shape.rowid is not None:
        return (f"t.{shape.rowid}",)
    return tuple(f"t.{quote(name)}" for name in shape.primary_key)


def _integer_key(shape: Shape) -> str | None:
    """A primary key of one integer column without NULLs, which bounds can name for good: the rowid itself, or a
    BIGINT with an index. (Whatever else is stored in it, SQLite orders all values: each is in one range.)"""
    if shape.ipk is not None or len(shape.primary_key) != 1:
        return shape.ipk
    name, declared, not_null = next(c[:3] for c in shape.columns if c[0] == shape.primary_key[0])
    return name if not_null and affinity(declared) == "INTEGER" else None


def _rows_each(table: Table, chunk_bytes: int, rows_min: int) -> int:
    width = max(1, table.bytes // table.rows) if table.rows else 1
    return max(1, rows_min, chunk_bytes // width)


def _dense_cuts(
    session: Session, shape: Shape, place: tuple[str, ...], table: Table, rows_each: int
) -> list[list[Any]]:
    """Equal ranges of integers; nothing where they are too sparse for rows to be spread evenly."""
    if len(place) != 1:
        return []
    # Two statements: min and max in one would read the whole table.
    ends = [
        session.execute(f"SELECT {place[0]} FROM main.{quote(shape.name)} AS t ORDER BY 1 {order} LIMIT 1")
        for order in ("ASC", "DESC")
    ]
    low, high = (rows[0][0] if rows else None for rows in ends)
    if not isinstance(low, int) or not isinstance(high, int) or high - low + 1 > table.rows * _PLACES_PER_ROW_MAX:
        return []
    chunks = -(-table.rows // rows_each)
    step = -(-(high - low + 1) // chunks)
    return [[cut] for cut in range(low + step - 1, high, step)]


def _sampled_cuts(session: Session, shape: Shape, place: tuple[str, ...], rows_each: int) -> list[list[Any]]:
    """The place of every n-th row, in the order of the table's own tree; compared by SQLite alone."""
    columns = ", ".join(place)
    cuts: list[list[Any]] = []
    cut: list[Any] | None = None
    while True:
        test, params = condition(place, cut, None)
        rows = session.execute(
            f"SELECT {columns} FROM main.{quote(shape.name)} AS t WHERE {test} ORDER BY {columns} "
            f"LIMIT 1 OFFSET {rows_each - 1}",
            params,
        )
        if not rows:
            return cuts
        cut = [_to_json(v) for v in rows[0]]
        cuts.append(cut)


def condition(place: Sequence[str], above: Sequence[Any] | None, upto: Sequence[Any] | None) -> tuple[str, list[Any]]:
    """SQL and parameters of the rows beyond ``above`` up to and with ``upto``."""
    tests, params = [], []
    left = f"({', '.join(place)})" if len(place) > 1 else "".join(place)
    marks = ", ".join("?" * len(place))
    right = f"({marks})" if len(place) > 1 else marks
    if above is not None:
        tests.append(f"{left} > {right}")
        params += [_from_json(v) for v in above]
    if upto is not None:
        tests.append(f"{left} <= {right}")
        params += [_from_json(v) for v in upto]
    return " AND ".join(tests) or "1", params


def bound_condition(shape: Shape, bound: Bound) -> tuple[str, list[Any]]:
    """The SQL of one chunk."""
    return condition(_place(shape), bound.data.get("above"), bound.data.get("upto"))


def _to_json(value: Any) -> Any:
    """A key's value as JSON that keeps its stored type: floats and bytes are tagged."""
    if isinstance(value, float):
        return {"real": repr(value)}
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, str) and not _is_unicode(value):
        return {"text": value.encode("utf-8", "surrogateescape").hex()}
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "real" in value:
        return float(value["real"])
    data = bytes.fromhex(value.get("blob") or value.get("text") or "")
    return data if "blob" in value else data.decode("utf-8", "surrogateescape")
