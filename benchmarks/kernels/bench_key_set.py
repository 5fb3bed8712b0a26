"""Keys of a dedup: the kernel's set, and beside it DuckDB's DISTINCT, Polars' unique and Python's set.

    python benchmarks/kernels/bench_key_set.py [--rows 10000000] [--batch-rows 65536] [--seed 42] [--copy]

All get the same bigints, of which every fourth is a repeat; the kernel gets their digests too (*digest + set*), as a
copy does, or digests that are there already: *set*; *set, rows told*, where it is told how many come, as by a copy;
*set, all known*; *set, 8 MiB*, a budget that makes it go to disk. DuckDB and Polars run on one thread and are asked
which are different, not which row is the first of its key. Each line gives keys/s, CPU seconds per million keys and
peak memory. ``--copy`` measures what a dedup on one bigint key adds to the client's CPU of a copy through Arrow (SQLite
→ Parquet, 4 columns), where the keys ascend, and where they come in any order.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import duckdb
import pyarrow as pa

from rowferry._native.key_set import KeySet
from rowferry.stages.dedup import Keys
from rowferry.stages.digest import compare
from rowferry.types import Type

REPEATS = 3
#: Keys that a Python set is given at the most: ten million would take it a gigabyte.
PYTHON_KEYS_MAX = 2_000_000
MIB = 1 << 20
#: How the keys of a copy come, and the column that has them.
KEY_OF = {"ascending": "k", "in any order": "r"}


def numbers_of(rows: int, seed: int) -> array[int]:
    """Every fourth a repeat of an earlier one."""
    rng = random.Random(seed)
    numbers = array("q", rng.randbytes(8 * rows))
    for i in range(3, rows, 4):
        numbers[i] = numbers[rng.randrange(i)]
    return numbers


def batches_of(numbers: array[int], batch_rows: int) -> list[pa.RecordBatch]:
    column = pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
    return pa.Table.from_arrays([column], names=["k"]).to_batches(max_chunksize=batch_rows)


def keys_of() -> Keys:
    way = compare(Type("int64"), Type("int64"), source_engine="postgres", target_engine="duckdb")
    assert way is not None
    return Keys(["k"], [way], ["k"])


def claimed(digests: list[bytes], memory_bytes: int = 1 << 30, passes: int = 1, rows_expected: int = 0) -> KeySet:
    kernel = KeySet(memory_bytes, tempfile.gettempdir(), rows_expected)
    for owner in range(1, passes + 1):
        for part in digests:
            kernel.claim(part, owner)
    return kernel


def digested_and_claimed(batches: list[pa.RecordBatch]) -> int:
    keys, kernel = keys_of(), KeySet(1 << 30, tempfile.gettempdir())
    for batch in batches:
        kernel.claim(keys.of(batch), 1)
    return len(kernel)


def duckdb_distinct(batches: list[pa.RecordBatch]) -> int:
    connection = duckdb.connect(config={"threads": 1})
    connection.register("numbers", pa.Table.from_batches(batches))
    row = connection.execute("select count(*) from (select distinct k from numbers)").fetchone()
    connection.close()
    assert row is not None
    return int(row[0])


def polars_unique(batches: list[pa.RecordBatch]) -> int:
    import polars

    return int(polars.from_arrow(pa.Table.from_batches(batches)).unique(subset=["k"]).height)  # type: ignore[union-attr]


def python_set(batches: list[pa.RecordBatch]) -> int:
    seen: set[int] = set()
    for batch in batches:
        seen.update(batch.column(0).to_pylist())
    return len(seen)


def measure(name: str, work: Callable[[], object], keys: int) -> float:
    """Prints the best of REPEATS; returns its keys per CPU second."""
    best_wall_s = best_cpu_s = float("inf")
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        best_wall_s = min(best_wall_s, time.perf_counter() - wall)
        best_cpu_s = min(best_cpu_s, time.process_time() - cpu)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:<18} {keys / best_wall_s / 1e6:8.2f} M keys/s {best_cpu_s / keys * 1e6:8.3f} CPU s per M keys"
        f"   peak {peak_mib:.0f} MiB"
    )
    return keys / best_cpu_s


def copy_cost(rows: int, seed: int) -> dict[str, float]:
    """What a dedup on one bigint key adds to the client's CPU, as a share of the copy's, by how the keys come; the best
    of some runs each."""
    with tempfile.TemporaryDirectory() as folder:
        rng, source = random.Random(seed), pathlib.Path(folder, "a.db")
        with sqlite3.connect(source) as c:
            c.execute("create table t (id integer primary key, k bigint not null, r bigint not null, s text not null)")
            c.executemany(
                "insert into t values (?, ?, ?, ?)",
                ((i, i * 7, rng.randrange(1 << 62), f"text of row {i}") for i in range(rows)),
            )
        c.close()
        texts = {"plain": ""} | {way: f'[table.t.dedup]\nby = ["{k}"]\n' for way, k in KEY_OF.items()}
        best = dict.fromkeys(texts, float("inf"))
        for number in range(2 * REPEATS):
            for name, text in texts.items():
                config, out = pathlib.Path(folder, f"{name}.toml"), pathlib.Path(folder, f"{name}{number}")
                config.write_text(text)
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                command = [sys.executable, "-m", "rowferry", "copy", f"sqlite:///{source}", f"parquet:///{out}"]
                subprocess.run([*command, "--config", str(config), "--quiet"], check=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                best[name] = min(best[name], used)
        print(json.dumps({"rows": rows, **{f"{n}_cpu_s": round(s, 3) for n, s in best.items()}}))
        return {way: best[way] / best["plain"] - 1 for way in KEY_OF}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--batch-rows", type=int, default=65_536)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--copy", action="store_true")
    options = parser.parse_args()
    if options.copy:
        for way, share in copy_cost(options.rows, options.seed).items():
            print(f"dedup adds {100 * share:.1f} % to the client's CPU where keys are {way}")
        return
    batches = batches_of(numbers_of(options.rows, options.seed), options.batch_rows)
    keys = keys_of()
    digests = [keys.of(batch) for batch in batches]
    print(f"{options.rows} bigints, every fourth a repeat, batches of {options.batch_rows}, seed {options.seed}")
    fast = measure("set", lambda: claimed(digests), options.rows)
    told = functools.partial(claimed, digests, rows_expected=options.rows)
    measure("set, rows told", told, options.rows)
    measure("set, all known", lambda: claimed(digests, passes=2), 2 * options.rows)
    measure("set, 8 MiB", lambda: claimed(digests, 8 * MIB), options.rows)
    measure("digest + set", lambda: digested_and_claimed(batches), options.rows)
    for name, work in (("", lambda: claimed(digests)), (", rows told", told)):
        kernel = work()
        print(f"{kernel.memory_bytes / len(kernel):.1f} bytes a key of {len(kernel):,}{name}")
    few = batches[: max(1, PYTHON_KEYS_MAX // options.batch_rows)]
    peers = {"duckdb distinct": (duckdb_distinct, batches), "python set": (python_set, few)}
    try:
        import polars  # noqa: F401

        peers["polars unique"] = (polars_unique, batches)
    except ImportError:
        print("polars is not installed")
    for name, (work, given) in peers.items():
        rows = sum(b.num_rows for b in given)
        other = measure(name, lambda work=work, given=given: work(given), rows)  # type: ignore[misc]
        print(f"{'':<18} set / {name} {fast / other:.1f}×")


if __name__ == "__main__":
    main()
