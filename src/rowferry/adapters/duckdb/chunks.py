"""Cuts a table into chunks by ranges of rowid: DuckDB reads a range without touching the others."""

from __future__ import annotations

import itertools

from rowferry import limits
from rowferry.adapters.duckdb.catalog import qualified
from rowferry.adapters.duckdb.wire import Session
from rowferry.model import Bound, Table

#: Rows of DuckDB's row groups: a range that begins on one reads none twice.
ROW_GROUP_ROWS = 122_880


def split(session: Session, table: Table, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
    """Bounds ``{"from": rowid or None, "to": rowid or None}``, half open, the ends of the table open.

    A view has no rowids and is one chunk.
    """
    whole = Bound({"from": None, "to": None}, rows=table.rows, bytes=table.bytes)
    if table.kind != "table" or not table.rows:
        return [whole]
    count, first, last = session.execute(f"SELECT count(*), min(rowid), max(rowid) FROM {qualified(table.name)}")[0]
    if not count:
        return [whole]
    row_bytes = max(table.bytes // table.rows, 1)
    rows = max(chunk_rows_min, chunk_bytes // row_bytes, 1)
    span = last - first + 1
    # Deleted rows leave gaps: a chunk of ``rows`` rows spans so many more rowids.
    step = max(rows * span // count, -(-span // limits.CHUNKS_PER_TABLE_MAX), 1)
    if step >= ROW_GROUP_ROWS:
        step -= step % ROW_GROUP_ROWS
    first -= first % ROW_GROUP_ROWS if step >= ROW_GROUP_ROWS else 0
    starts = list(range(first, last + 1, step))
    if len(starts) < 2:
        return [Bound({"from": None, "to": None}, rows=count, bytes=count * row_bytes)]
    edges: list[int | None] = [None, *starts[1:], None]
    bounds = []
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        covered = min(starts[index] + step, last + 1) - starts[index]
        estimate = max(covered * count // span, 0)
        bounds.append(Bound({"from": start, "to": end}, True, estimate, estimate * row_bytes))
    return bounds


def condition(bound: Bound, where: str | None) -> str:
    """The WHERE clause of a chunk ('' if it holds all)."""
    tests = []
    if bound.data.get("from") is not None:
        tests.append(f"rowid >= {int(bound.data['from'])}")
    if bound.data.get("to") is not None:
        tests.append(f"rowid < {int(bound.data['to'])}")
    if where:
        tests.append(f"(\n{where}\n)")  # on lines of its own: a comment at its end must not reach ours
    return f" WHERE {' AND '.join(tests)}" if tests else ""
