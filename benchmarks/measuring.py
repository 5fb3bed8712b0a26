"""What the kernels' benchmarks print of a piece of work: its best wall and CPU time, and the process's peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import pyarrow as pa


def measure(name: str, work: Callable[[], tuple[int, int]], repeats: int = 1, what: str = "rows") -> float:
    """Prints the best of the repeats; returns its CPU seconds per million rows (``what``).

    work: does it once, and gives rows and bytes (0: they would say nothing). Peak memory is that of the process so far.
    """
    wall_s = cpu_s = float("inf")
    rows = size = 0
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        rows, size = work()
        wall_s, cpu_s = min(wall_s, time.perf_counter() - wall), min(cpu_s, time.process_time() - cpu)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = f" {size / wall_s / 2**20:8.0f} MiB/s" if size else ""
    print(
        f"{name:<24} {rows / wall_s / 1e6:8.2f} M {what}/s{speed} {cpu_s / rows * 1e6:8.3f} CPU s per M {what}"
        f"   peak {peak_mib:.0f} MiB"
    )
    return cpu_s / rows * 1e6


def measure_batches(
    name: str, work: Callable[[list[pa.RecordBatch]], object], batches: list[pa.RecordBatch], repeats: int = 1
) -> float:
    """The same of work on batches; the bytes are those of their Arrow buffers."""
    given = sum(b.num_rows for b in batches), sum(b.nbytes for b in batches)

    def once() -> tuple[int, int]:
        work(batches)
        return given

    return measure(name, once, repeats)
