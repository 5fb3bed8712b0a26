"""The benchmark of a whole copy through a transform, at a small size: every way of it works."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import duckdb
import pyarrow as pa

ROOT = pathlib.Path(__file__).parents[1]


def test_benchmark_of_a_copy_through_a_transform_runs_at_a_small_size(tmp_path: pathlib.Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import lineitem
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    with duckdb.connect(str(tmp_path / "source.duckdb")) as c:
        c.register("lines", pa.Table.from_batches(lineitem.batches(2_000, batch_rows=1_000, seed=1)))
        c.execute("create table lineitem as select * from lines")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/transform_copy.py", f"duckdb:///{tmp_path}/source.duckdb",
         f"duckdb:///{tmp_path}/target.duckdb", "lineitem", "--rounds", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ways = [line.split()[0] for line in done.stdout.splitlines()]
    assert ways == ["raw", "arrow", "text", "numbers", "choices", "duckdb"]
    with duckdb.connect(str(tmp_path / "target.duckdb"), read_only=True) as c:
        assert c.execute("select count(*), count(l_total) from transform_copy").fetchall() == [(2_000, 2_000)]
