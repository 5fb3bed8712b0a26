"""Row digests of lineitem: the kernel, and beside it two conventional ways to the same end.

    python benchmarks/kernels/bench_row_digest.py [--rows 2000000] [--batch-rows 65536] [--seed 42]

*python* hashes each row's values with hashlib.md5 and adds the numbers up, as a script would;
*duckdb* sums hash() over all columns on one thread (64 bits, and not the same on another engine).
Each line gives rows/s, bytes/s (of Arrow buffers), CPU seconds per million rows and peak memory.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import sys

import duckdb
import pyarrow as pa

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lineitem
from measuring import measure_batches
from rowferry.stages.digest import Digester, compare
from rowferry.types import from_arrow

#: Rows that the slowest way is given at the most: it makes about 0.1 M a second.
PYTHON_ROWS_MAX = 50_000
REPEATS = 3


def digester() -> Digester:
    types = [from_arrow(field.type) for field in lineitem.SCHEMA]
    pairs = [compare(t, t, source_engine="postgres", target_engine="duckdb") for t in types if t is not None]
    key = [lineitem.SCHEMA.get_field_index(name) for name in lineitem.PRIMARY_KEY]
    return Digester([pair for pair in pairs if pair is not None], "source", key)


def kernel(batches: list[pa.RecordBatch]) -> None:
    one = digester()
    for batch in batches:
        one.add(batch)


def kernel_buckets(batches: list[pa.RecordBatch]) -> None:
    one = digester()
    for batch in batches:
        one.add_buckets(batch)


def python_md5(batches: list[pa.RecordBatch]) -> None:
    total = 0
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            data = "\x1f".join(map(repr, row)).encode()
            total += int.from_bytes(hashlib.md5(data, usedforsecurity=False).digest(), "big")
    assert total


def duckdb_hash(batches: list[pa.RecordBatch]) -> None:
    connection = duckdb.connect(config={"threads": 1})
    connection.register("lines", pa.Table.from_batches(batches))
    columns = ", ".join(lineitem.SCHEMA.names)
    assert connection.execute(f"select sum(hash({columns})) from lines").fetchall()
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch-rows", type=int, default=lineitem.BATCH_ROWS)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    batches = list(lineitem.batches(options.rows, batch_rows=options.batch_rows, seed=options.seed))
    few = list(lineitem.batches(min(options.rows, PYTHON_ROWS_MAX), seed=options.seed))
    print(f"{options.rows} rows of lineitem, 16 columns, batches of {options.batch_rows}, seed {options.seed}")
    fast = measure_batches("kernel", kernel, batches, REPEATS)
    measure_batches("kernel, buckets", kernel_buckets, batches, REPEATS)
    slow = measure_batches("python md5", python_md5, few, REPEATS)
    vector = measure_batches("duckdb hash()", duckdb_hash, batches, REPEATS)
    print(f"kernel / python md5 {slow / fast:.0f}×, kernel / duckdb hash() {vector / fast:.1f}×")


if __name__ == "__main__":
    main()
