"""The small size of the benchmark beside the conventional ways: so that it does not rot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from end_to_end import ferry


@pytest.mark.server
def test_side_by_side_at_its_small_size_carries_every_row() -> None:
    """It checks the rows that arrive itself, and exits non-zero where a way fails."""
    done = subprocess.run(
        [sys.executable, str(ferry.ROOT / "benchmarks/peers/side_by_side.py"), "--scale", "0.001", "--runs", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for title in ("PostgreSQL → PostgreSQL", "PostgreSQL → DuckDB", "PostgreSQL → Parquet", "SQLite → DuckDB"):
        assert f"{title}: 6,000 rows" in done.stdout, done.stdout
