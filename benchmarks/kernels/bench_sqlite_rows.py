"""SQLite ↔ Arrow: what a million lineitem rows cost, beside the ways that do without a kernel.

    python benchmarks/kernels/bench_sqlite_rows.py [--rows 1000000] [--seed 42]

*read* steps a SELECT into Arrow batches of 1 MiB; *census* is the pass that decides the types;
*write* binds and steps INSERTs of Arrow batches, one transaction. Baselines: ``fetchmany`` of the
standard ``sqlite3`` into ``pa.array``, and ``executemany`` of zipped columns. Each line gives
rows/s, bytes/s of the file, CPU seconds per million rows, and the peak memory of the process so far.
The small size of it runs as a test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable

import pyarrow as pa

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lineitem
from measuring import measure
from rowferry import limits
from rowferry.adapters.sqlite import nested
from rowferry.adapters.sqlite.source import SqliteSource
from rowferry.adapters.sqlite.target import Load
from rowferry.adapters.sqlite.types import read_spec
from rowferry.adapters.sqlite.wire import File, Session
from rowferry.endpoint import parse
from rowferry.errors import SourceError, TargetError
from rowferry.model import Column
from rowferry.types import from_arrow

MARKS = ", ".join("?" * len(lineitem.SCHEMA))
COLUMNS = ", ".join(f.name for f in lineitem.SCHEMA)
DECLARED = dict(part.strip().split()[:2] for part in lineitem.DDL.replace("\n", " ").split(", "))


def columns() -> list[Column]:
    found = []
    for field in lineitem.SCHEMA:
        t = from_arrow(field.type)
        assert t is not None
        found.append(Column(field.name, t, native=DECLARED[field.name]))
    return found


def session_at(path: pathlib.Path, *, create: bool = False) -> Session:
    kind = TargetError if create else SourceError
    return File(parse(f"sqlite:///{path}"), kind, read_only=not create, create=create).session()


def write_kernel(path: pathlib.Path, batches: Iterable[pa.RecordBatch]) -> int:
    with contextlib.closing(session_at(path, create=True)) as session:
        session.execute(f"CREATE TABLE lineitem ({lineitem.DDL})")
        session.begin()
        rows = Load(session, f"INSERT INTO lineitem VALUES ({MARKS})", columns()).write(batches)
        session.commit()
        return rows


def write_executemany(path: pathlib.Path, batches: Iterable[pa.RecordBatch]) -> int:
    rows = 0
    with contextlib.closing(sqlite3.connect(path)) as c:
        c.execute(f"CREATE TABLE lineitem ({lineitem.DDL})")
        for batch in batches:
            values = []
            for column in batch.columns:
                if pa.types.is_decimal(column.type):
                    column = column.cast(pa.float64())
                elif pa.types.is_date(column.type):
                    column = column.cast(pa.string())
                values.append(column.to_pylist())
            c.executemany(f"INSERT INTO lineitem VALUES ({MARKS})", zip(*values, strict=True))
            rows += batch.num_rows
        c.commit()
    return rows


def read_kernel(path: pathlib.Path) -> int:
    rows = 0
    types = [c.type for c in columns()]
    schema = pa.schema([pa.field(c.name, c.type.arrow) for c in columns()])
    with contextlib.closing(session_at(path)) as session:
        reader = session.reader(f"SELECT {COLUMNS} FROM lineitem", (), [read_spec(t) for t in types], True)
        while (batch := reader.next_batch(limits.BATCH_ROWS_MAX, limits.BATCH_BYTES)) is not None:
            arrays = [nested.array_of(t, batch[0], part) for t, part in zip(types, batch[1], strict=True)]
            rows += pa.RecordBatch.from_arrays(arrays, schema=schema).num_rows
    return rows


def read_census(path: pathlib.Path) -> int:
    with contextlib.closing(SqliteSource(File(parse(f"sqlite:///{path}"), SourceError, read_only=True), {})) as source:
        table = source.describe(source.list_tables()[0])
        assert table is not None
        assert not any(c.refusal for c in table.columns)
        return table.rows


def read_fetchmany(path: pathlib.Path) -> int:
    rows = 0
    types = [f.type if pa.types.is_integer(f.type) or pa.types.is_string(f.type) else None for f in lineitem.SCHEMA]
    with contextlib.closing(sqlite3.connect(path)) as c:
        cursor = c.execute(f"SELECT {COLUMNS} FROM lineitem")
        while part := cursor.fetchmany(10_000):
            for values, t in zip(zip(*part, strict=True), types, strict=True):
                # Decimals come as floats, whole ones as integers; dates as texts.
                pa.array([float(v) for v in values]) if t is None and not isinstance(values[0], str) else pa.array(
                    values, t
                )
            rows += len(part)
    return rows


def run(rows: int, seed: int = 42, repeats: int = 3) -> dict[str, float]:
    """CPU seconds per million rows, by what was measured."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "lineitem.db")
        given = list(lineitem.batches(rows=rows, seed=seed))

        def write(writer: Callable[[pathlib.Path, Iterable[pa.RecordBatch]], int]) -> tuple[int, int]:
            path.unlink(missing_ok=True)
            return writer(path, given), os.path.getsize(path)

        def read(reader: Callable[[pathlib.Path], int]) -> tuple[int, int]:
            return reader(path), os.path.getsize(path)

        for name, work in (
            ("write: executemany", lambda: write(write_executemany)),
            ("write: kernel", lambda: write(write_kernel)),
            ("census", lambda: read(read_census)),
            ("read: kernel", lambda: read(read_kernel)),
            ("read: fetchmany", lambda: read(read_fetchmany)),
        ):
            found[name] = measure(name, work, repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    run(arguments.rows, arguments.seed)


if __name__ == "__main__":
    main()
