"""The kernel of the key set, against its twin and alone: owners, spilling, threads, errors, memory."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.key_set_reference import ReferenceKeySet, bits
from rowferry._native.key_set import EARLIER_MAX, MEMORY_BYTES_MIN, OWNER_MAX, ROWS_MAX, KeySet

MIB = 1 << 20


def keys_of(numbers: list[int]) -> bytes:
    return b"".join(n.to_bytes(16, "big") for n in numbers)


def both(kernel: KeySet, twin: ReferenceKeySet, keys: bytes, owner: int, earlier: tuple[int, ...] = ()) -> None:
    bitmap, kept = kernel.claim(keys, owner, earlier)
    expected = twin.claim(keys, owner, earlier)
    assert bits(bitmap, len(keys) // 16) == expected
    assert kept == sum(expected)
    assert len(kernel) == len(twin)


def test_claim_golden_bytes_first_of_equal_keys_is_kept(tmp_path: pathlib.Path) -> None:
    kernel = KeySet(MIB, str(tmp_path))
    assert kernel.claim(keys_of([1, 2, 1, 3, 2, 2**127, 0, 0, 9]), 1) == (bytes([0b01101011, 0b1]), 6)
    assert kernel.claim(keys_of([9, 10]), 2) == (bytes([0b10]), 1)
    assert kernel.contains(keys_of([10, 11, 0])) == (bytes([0b101]), 2)
    assert kernel.claim(b"", 1) == (b"", 0)
    assert len(kernel) == 7


def test_claim_by_a_later_try_takes_only_what_its_earlier_tries_had(tmp_path: pathlib.Path) -> None:
    kernel = KeySet(MIB, str(tmp_path))
    kernel.claim(keys_of([1, 2, 3]), 10)
    kernel.claim(keys_of([4]), 11)
    # 12 is another try of 10's chunk; 11 is another chunk. A second row of the same key is a duplicate.
    assert bits(kernel.claim(keys_of([1, 4, 1, 5, 3]), 12, (10,))[0], 5) == [True, False, False, True, True]
    # What 12 has taken 10 has no more.
    assert bits(kernel.claim(keys_of([1, 2]), 13, (10,))[0], 2) == [False, True]


operations = st.lists(
    st.tuples(
        st.lists(st.integers(0, 60), max_size=40),
        st.integers(1, 6),
        st.lists(st.integers(1, 6), max_size=3),
    ),
    max_size=12,
)


@given(operations)
@settings(max_examples=150, deadline=None)
def test_claim_any_calls_answer_as_the_twin(calls: list[tuple[list[int], int, list[int]]]) -> None:
    kernel, twin = KeySet(MIB, "/tmp"), ReferenceKeySet()
    for numbers, owner, earlier in calls:
        both(kernel, twin, keys_of(numbers), owner, tuple(earlier))
    assert bits(kernel.contains(keys_of(list(range(61))))[0], 61) == twin.contains(keys_of(list(range(61))))


@given(st.integers(0, 2**32), st.sampled_from([1, 7, 1000, 20_000]), st.sampled_from(["low", "high", "both", "even"]))
@settings(max_examples=12, deadline=None)
def test_claim_beyond_the_budget_answers_as_the_twin(seed: int, batch: int, spread: str) -> None:
    """A million bytes of budget, up to 120,000 keys with repeats, in the table, in runs and in merged runs."""
    rng = random.Random(seed)
    kernel, twin = KeySet(MEMORY_BYTES_MIN, "/tmp"), ReferenceKeySet()
    for owner in range(1, 1 + min(400, 120_000 // batch)):
        numbers = [rng.randrange(90_000) for _ in range(batch)]
        shift = {"low": 0, "high": 64, "both": 32, "even": 111}[spread]
        both(kernel, twin, keys_of([n << shift for n in numbers]), owner, tuple(range(max(1, owner - 3), owner)))
    kernel.close()


def test_claim_millions_of_keys_in_a_few_mb_stays_exact_and_bounded(tmp_path: pathlib.Path) -> None:
    rng = random.Random(7)
    kernel = KeySet(4 * MIB, str(tmp_path))
    parts = [rng.randbytes(16 * 65_536) for _ in range(30)]
    most = 0
    for number, part in enumerate(parts):
        bitmap, kept = kernel.claim(part, number + 1)
        assert kept == 65_536
        assert bitmap == b"\xff" * 8192
        most = max(most, kernel.memory_bytes)
    assert len(kernel) == 30 * 65_536
    assert kernel.disk_bytes > 20 * len(kernel) * 0.9
    assert most < 4 * MIB * 1.1
    for number in (0, 13, 29):
        assert kernel.claim(parts[number], 99) == (bytes(8192), 0)
        assert kernel.contains(parts[number])[1] == 65_536
        # A later try of the chunk that had them gets them again, once.
        assert kernel.claim(parts[number], 100 + number, (number + 1,))[1] == 65_536
        assert kernel.claim(parts[number], 200, (number + 1,))[1] == 0
    assert kernel.contains(rng.randbytes(16 * 10_000))[1] == 0
    assert list(tmp_path.iterdir()) == []
    kernel.close()
    assert kernel.disk_bytes == 0


@given(st.integers(0, 2**32), st.sampled_from([1, 1000, 60_000, 2**47]))
@settings(max_examples=8, deadline=None)
def test_claim_with_any_number_of_rows_expected_answers_as_the_twin(seed: int, rows: int) -> None:
    rng = random.Random(seed)
    kernel, twin = KeySet(4 * MIB, "/tmp", rows), ReferenceKeySet()
    for owner in range(1, 13):
        numbers = [rng.randrange(2**64) if rng.random() < 0.7 else rng.randrange(9000) for _ in range(5000)]
        both(kernel, twin, keys_of([n << 50 for n in numbers]), owner, (owner - 1,) if owner > 1 else ())
    assert kernel.memory_bytes < 4.4 * MIB


def test_key_set_that_knows_its_rows_takes_24_bytes_for_each_that_is_new(tmp_path: pathlib.Path) -> None:
    rng = random.Random(4)
    for repeats, bytes_each in ((1, 24), (4, 32)):  # repeats that come at once are taken for fewer than they are
        kernel = KeySet(256 * MIB, str(tmp_path), repeats * 20 * 65_536)
        for _ in range(20):
            part = rng.randbytes(16 * 65_536)
            for _ in range(repeats):
                kernel.claim(part, 1)
        assert len(kernel) == 20 * 65_536
        assert kernel.memory_bytes <= bytes_each * len(kernel)


def unmixed(high: int, low: int) -> bytes:
    """The key whose place is ``high``: rf_key_mix of ext/key_table.pxd, backwards."""
    mask = 2**64 - 1

    def unshifted(x: int) -> int:
        return x ^ x >> 33  # of 64 bits: twice the shift is beyond

    x = unshifted(high) * pow(0xC4CEB9FE1A85EC53, -1, 2**64) & mask
    x = unshifted(x) * pow(0xFF51AFD7ED558CCD, -1, 2**64) & mask
    return ((unshifted(x) - low * 0x9E3779B97F4A7C15) & mask).to_bytes(8, "big") + low.to_bytes(8, "big")


@pytest.mark.parametrize("high", [0, 2**64 - 1, 0x7F_FFFF_FFFF_FFFF_FF, 0x80_0000_0000_0000_00])
def test_claim_keys_that_all_have_one_place_answers_as_the_twin(high: int, tmp_path: pathlib.Path) -> None:
    """No capacity spreads them, and at a table's end there is no room for them."""
    rng, kernel, twin = random.Random(high), KeySet(MEMORY_BYTES_MIN, str(tmp_path)), ReferenceKeySet()
    lows = [rng.randrange(2**64 if n % 2 else 2**56) for n in range(3000)]
    for owner in range(1, 7):
        keys = b"".join(
            unmixed(max(0, high - n % 2 * (owner % 2)), low) for n, low in enumerate(rng.sample(lows, 1500))
        )
        both(kernel, twin, keys, owner, tuple(range(1, owner, 2)))
    assert bits(kernel.contains(keys)[0], len(keys) // 16) == twin.contains(keys)


def test_key_set_at_its_usual_load_takes_24_bytes_a_key(tmp_path: pathlib.Path) -> None:
    rng = random.Random(3)
    kernel = KeySet(256 * MIB, str(tmp_path))
    for _ in range(40):
        kernel.claim(rng.randbytes(16 * 65_536), 1)
        if len(kernel) > 1_000_000:
            assert kernel.memory_bytes <= 24.5 * len(kernel)
    assert kernel.memory_bytes <= 24 * len(kernel)


def test_claim_by_many_threads_each_key_has_one_owner(tmp_path: pathlib.Path) -> None:
    for budget in (MEMORY_BYTES_MIN, 64 * MIB):
        kernel = KeySet(budget, str(tmp_path))
        shared = [random.Random(n).randbytes(16 * 5000) for n in range(20)]
        won: dict[int, int] = {}

        def work(owner: int, kernel: KeySet = kernel, shared: list[bytes] = shared, won: dict[int, int] = won) -> None:
            parts = list(shared)
            random.Random(owner).shuffle(parts)
            won[owner] = sum(kernel.claim(part, owner)[1] for part in parts)

        threads = [threading.Thread(target=work, args=(owner,)) for owner in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 5
        assert sum(won.values()) == len(kernel) == 100_000


@pytest.mark.parametrize(
    ("keys", "owner", "earlier"),
    [
        (b"x" * 15, 1, ()),
        (b"", 0, ()),
        (b"", OWNER_MAX + 1, ()),
        (b"", -1, ()),
        (b"", 1, (0,)),
        (b"", 1, range(1, EARLIER_MAX + 2)),
    ],
)
def test_claim_of_what_makes_no_sense_is_refused(keys: bytes, owner: int, earlier: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        KeySet(MIB, "/tmp").claim(keys, owner, earlier)


def test_key_set_with_too_small_a_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="1048576"):
        KeySet(MEMORY_BYTES_MIN - 1, "/tmp")
    for rows in (-1, ROWS_MAX):
        with pytest.raises(ValueError, match="rows"):
            KeySet(MIB, "/tmp", rows)


def test_claim_after_close_is_refused(tmp_path: pathlib.Path) -> None:
    kernel = KeySet(MIB, str(tmp_path))
    kernel.close()
    with pytest.raises(ValueError, match="closed"):
        kernel.claim(bytes(16), 1)


def test_spill_where_the_folder_is_gone_raises_and_the_set_stays_exact(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "gone"
    kernel = KeySet(MEMORY_BYTES_MIN, str(folder))
    data = random.Random(1).randbytes(16 * 200_000)
    with pytest.raises(FileNotFoundError, match="gone"):
        kernel.claim(data, 1)
    had = len(kernel)
    assert 0 < had < 200_000
    folder.mkdir()
    # Those that were claimed before the error are claimed by owner 1; its next try takes them all.
    assert kernel.claim(data, 2, (1,))[1] == 200_000
    assert len(kernel) == 200_000


def test_spill_to_a_full_disk_raises_that_it_is_full(tmp_path: pathlib.Path) -> None:
    """A limit on the size of files is a full disk to the one who writes."""
    script = f"""
import errno, random, resource, signal
from rowferry._native.key_set import KeySet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
kernel = KeySet(1 << 20, {str(tmp_path)!r})
data = random.Random(1).randbytes(16 * 300_000)
try:
    kernel.claim(data, 1)
except OSError as error:
    assert error.errno == errno.EFBIG, error
else:
    raise SystemExit("no error")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert kernel.claim(data, 2, (1,))[1] == 300_000
assert kernel.claim(data, 3)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": "src"})


def test_read_of_a_file_that_was_cut_raises(tmp_path: pathlib.Path) -> None:
    kernel = KeySet(MEMORY_BYTES_MIN, str(tmp_path))
    before = set(os.listdir("/proc/self/fd"))
    data = random.Random(5).randbytes(16 * 200_000)
    kernel.claim(data, 1)
    mine = [fd for fd in set(os.listdir("/proc/self/fd")) - before if _is_deleted_file(fd, tmp_path)]
    assert mine
    for fd in mine:
        os.ftruncate(int(fd), 0)
    with pytest.raises(OSError, match="Input/output error"):
        kernel.contains(data)


def _is_deleted_file(fd: str, folder: pathlib.Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder))
    except OSError:
        return False


def test_benchmark_small_size_runs() -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_key_set.py", "--rows", "20000"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert "bytes a key of 15,000" in done.stdout
    assert "duckdb distinct" in done.stdout
