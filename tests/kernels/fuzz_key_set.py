"""Any calls, owners and budgets against the twin, by several threads that share a set, for as long as you like:

PYTHONPATH=src:tests python tests/kernels/fuzz_key_set.py 60
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time

from kernels.key_set_reference import ReferenceKeySet, bits
from rowferry._native.key_set import MEMORY_BYTES_MIN, KeySet


def against_twin(rng: random.Random) -> int:
    """One set and its twin; returns the calls that were made."""
    memory_bytes, rows = MEMORY_BYTES_MIN * rng.choice([1, 1, 40]), rng.choice([0, 0, 1000, 10**6, 2**47])
    kernel, twin = KeySet(memory_bytes, tempfile.gettempdir(), rows), ReferenceKeySet()
    universe, shift = rng.choice([10, 5_000, 200_000]), rng.choice([0, 17, 60, 64, 100])
    calls = rng.randrange(1, 60)
    for owner in range(1, calls + 1):
        size = rng.choice([0, 1, 7, 64, 1000, 9000])
        keys = b"".join((rng.randrange(universe) << shift).to_bytes(16, "big") for _ in range(size))
        earlier = tuple(rng.randrange(1, owner + 1) for _ in range(rng.randrange(4)))
        if rng.random() < 0.3:
            assert bits(kernel.contains(keys)[0], size) == twin.contains(keys)
        else:
            bitmap, kept = kernel.claim(keys, owner, earlier)
            expected = twin.claim(keys, owner, earlier)
            assert bits(bitmap, size) == expected
            assert kept == sum(expected)
        assert len(kernel) == len(twin)
    if rng.random() < 0.5:
        kernel.close()
    return calls


def by_threads(rng: random.Random) -> int:
    """Five threads that claim the same keys: each key has one owner."""
    kernel = KeySet(MEMORY_BYTES_MIN, tempfile.gettempdir())
    parts = [rng.randbytes(16 * rng.randrange(1, 6000)) for _ in range(20)]
    won: list[int] = []

    def work(owner: int) -> None:
        won.append(sum(kernel.claim(part, owner)[1] for part in parts))

    threads = [threading.Thread(target=work, args=(owner,)) for owner in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 5
    assert sum(won) == len(kernel) == sum(len(part) for part in parts) // 16
    return 100


def main() -> None:
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    rng, until, calls = random.Random(seed), time.monotonic() + float(sys.argv[1]), 0
    while time.monotonic() < until:
        calls += by_threads(rng) if rng.random() < 0.2 else against_twin(rng)
    print(f"{calls} calls, seed {seed}: nothing found")


if __name__ == "__main__":
    main()
