"""Cuts a table into chunks, and tries its condition, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from rowferry import limits
from rowferry.adapters import registry
from rowferry.adapters.protocol import ReadRequest, Source
from rowferry.engine.prefetch import close
from rowferry.engine.request import Request
from rowferry.engine.waves import own_keys
from rowferry.errors import ConfigError, RefusedError, SourceError
from rowferry.model import Bound, TablePlan

T = TypeVar("T")
#: More than any table has.
WHOLE_BYTES = 1 << 62


def cut(source: Source, table: TablePlan, request: Request) -> list[Bound]:
    """The chunks of a table: of the size that was asked for, or a little smaller where they then divide among the
    workers, so that none of them stands idle while another carries the last one.

    Raises ConfigError where the source does not take the table's condition; what the source raises.
    """
    caps = registry.capabilities(request.target.engine)
    if caps.self_references == "statement" and table.exists and own_keys(table):
        return _whole(source, table)
    chunk_bytes, rows_min = request.chunk_bytes or limits.CHUNK_BYTES, caps.chunk_rows_min
    if request.max_rows_per_s or request.max_mb_per_s:
        from rowferry.engine import throttle

        chunk_bytes, rows_min = throttle.chunk_size(request, table.source, chunk_bytes, rows_min)
    workers = request.workers
    chunks = -(-table.source.bytes // chunk_bytes)
    most = table.source.rows // rows_min if rows_min else chunks  # of chunks with as many rows as they should have
    if workers <= most < chunks:
        rows_min = table.source.rows // (most // workers * workers)
    elif chunks > workers:
        chunk_bytes = -(-table.source.bytes // (-(-chunks // workers) * workers))
    elif request.chunk_bytes is None and not request.held_back:
        # A smaller table is shared out, too, where each share is worth a transaction.
        shares = min(workers, table.source.bytes // limits.CHUNK_BYTES_MIN)
        chunk_bytes = -(-table.source.bytes // shares) if shares > chunks else chunk_bytes
    return _blaming(source, table, lambda: source.split(table.source, table.where, chunk_bytes, rows_min))


def _whole(source: Source, table: TablePlan) -> list[Bound]:
    """One chunk, which is one statement, within which rows may come before their parents."""
    bounds = _blaming(source, table, lambda: source.split(table.source, table.where, WHOLE_BYTES, 0))
    if len(bounds) > 1:
        raise RefusedError(
            f"the target's table has a foreign key to itself ({own_keys(table)[0].name}), and this source gives rows "
            "in several parts, in which some would come before their parents",
            table=str(table.target.name),
            hint="drop or disable it and add it again after the copy",
        )
    return bounds


def try_condition(source: Source, plan: TablePlan, bound: Bound) -> None:
    """Reads the first rows of a table with its condition, so that one that is no SQL of the source
    is found before anything is written. Raises as :func:`cut` does."""
    if plan.where is not None:
        _blaming(source, plan, lambda: _read_first(source, plan, bound))


def _blaming(source: Source, plan: TablePlan, do: Callable[[], T]) -> T:
    """Does what may fail for the table's condition, and says so where it does not fail without it."""
    try:
        return do()
    except SourceError as error:
        if plan.where is None or error.transient:
            raise
        plain = msgspec.structs.replace(plan, where=None)
        _read_first(source, plain, source.split(plan.source, None, limits.CHUNK_BYTES, 0)[0])
        raise ConfigError(
            f"the source does not take the condition of --where: {error.message}",
            table=str(plan.source.name),
            value=plan.where,
            code=error.code,
            hint="it is SQL of the source, as it stands behind WHERE",
        ) from None


def _read_first(source: Source, plan: TablePlan, bound: Bound) -> None:
    reader = source.reader()
    try:
        columns = plan.reads or tuple((c.source, c.form) for c in plan.columns)
        blocks = reader.read(ReadRequest(plan.source, columns, bound, plan.where))
        next(iter(blocks), None)
        close(blocks)
    finally:
        reader.close()
