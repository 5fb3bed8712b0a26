"""Cuts a table of files into chunks: runs of whole groups (Parquet row groups, Arrow batches)."""

from __future__ import annotations

import os
from typing import Any

from rowferry import limits
from rowferry.adapters.files.catalog import Folder
from rowferry.model import Bound, Table


def split(folder: Folder, table: Table, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
    """Bounds ``{"parts": [[file name, first group, last group (exclusive)], …]}``, or ``{"parts": None}``
    for all that the table has. A group is never cut: it is read in batches anyway."""
    # Many small files: chunks grow rather than become too many for the ledger.
    chunk_bytes = max(chunk_bytes, table.bytes // limits.CHUNKS_PER_TABLE_MAX)
    bounds: list[Bound] = []
    parts: list[list[Any]] = []
    rows = size = 0
    for path in folder.files(table.name):
        file = folder.open(path)
        try:
            groups = file.groups()
        finally:
            file.close()
        name = os.path.basename(path)
        for number, (group_rows, group_bytes) in enumerate(groups):
            if not group_rows:
                continue
            if parts and size + group_bytes > chunk_bytes and rows >= chunk_rows_min:
                bounds.append(Bound({"parts": parts}, True, rows, size))
                parts, rows, size = [], 0, 0
            if parts and parts[-1][0] == name and parts[-1][2] == number:
                parts[-1][2] = number + 1
            else:
                parts.append([name, number, number + 1])
            rows += group_rows
            size += group_bytes
    if not bounds:
        return [Bound({"parts": None}, rows=rows, bytes=size)]
    if parts:
        bounds.append(Bound({"parts": parts}, True, rows, size))
    return bounds
