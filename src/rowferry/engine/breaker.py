"""The circuit breaker: stops a job in which too much fails, before every chunk has used up its own tries.

A chunk that fails is tried again a bounded number of times (``limits.CHUNK_TRIES``), and stays so. What the breaker
adds is the sum over all chunks: ``--max-errors 20/60s`` allows 20 failures within any 60 seconds, ``--max-errors 20``
that many in the whole run. ``--max-refused`` counts rows that were set aside (quarantined) in the same way.
"""

from __future__ import annotations

import collections
import re
import threading
import time
from collections.abc import Callable

import msgspec

from rowferry import limits
from rowferry.errors import ConfigError, DataError, RowferryError

_LIMIT = re.compile(r"(\d{1,12})(?:/(\d{1,6}(?:\.\d{1,3})?)(s|m|h)?)?", re.ASCII)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Limit(msgspec.Struct, frozen=True):
    """So many are allowed within any ``window_s`` seconds; None: in the whole run."""

    count: int
    window_s: float | None = None

    @staticmethod
    def parse(option: str, text: str) -> Limit:
        """``20``, ``20/60s``, ``500/10m``, ``5/1h``. Raises ConfigError."""
        found = _LIMIT.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"{option} {text!r} is no limit", hint="write N, or N/60s, N/10m, N/1h")
        if found[2] is None:
            return Limit(int(found[1]))
        window_s = float(found[2]) * _UNITS_S[found[3] or "s"]
        if window_s <= 0:
            raise ConfigError(f"{option} {text!r}: a window of no time", hint="write N/60s, N/10m, N/1h")
        return Limit(int(found[1]), window_s)

    @property
    def within(self) -> str:
        return "in this run" if self.window_s is None else f"within {self.window_s:g} s"


class _Counter:
    """How many of something there were within a window."""

    def __init__(self, window_s: float | None) -> None:
        self._window_s = window_s
        self._seen: collections.deque[tuple[float, int]] = collections.deque()
        self.count = 0

    def add(self, number: int, now: float) -> int:
        self.count += number
        if self._window_s is None:
            return self.count
        if number:
            self._seen.append((now, number))
        while self._seen and self._seen[0][0] < now - self._window_s:
            self.count -= self._seen.popleft()[1]
        return self.count


class Breaker:
    """Counts what failed in all workers of the process; kept over the job's attempts. Safe in threads.

    errors, refused: the limits that were given; without ``errors`` a generous one stands, that counts only while
    more chunks fail than land.
    """

    def __init__(
        self, errors: str | None, refused: str | None, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._given = errors is not None
        usual = Limit(
            max(limits.BREAKER_ERRORS_MIN, limits.BREAKER_ERRORS_PER_WORKER * workers), limits.BREAKER_WINDOW_S
        )
        self._errors = Limit.parse("--max-errors", errors) if errors is not None else usual
        self._refused = Limit.parse("--max-refused", refused) if refused is not None else None
        self._failed, self._landed = _Counter(self._errors.window_s), _Counter(self._errors.window_s)
        self._rows = _Counter(self._refused.window_s if self._refused else None)
        self._carried = 0
        self._clock = clock
        self._lock = threading.Lock()

    def failed(self, error: RowferryError, carried: int) -> None:
        """A chunk has failed and would be tried again. Raises the error, terminal, where that is one too many.

        carried: chunks that have landed in this attempt of the job (the next one counts from 0 again).
        """
        with self._lock:
            now = self._clock()
            since = carried - self._carried if carried >= self._carried else carried
            self._carried = carried
            count, landed = self._failed.add(1, now), self._landed.add(since, now)
        if count <= self._errors.count or (not self._given and landed >= count):
            return
        error.message = (
            f"too many failures: {count:,} tries of chunks failed {self._errors.within} and {landed:,} chunks landed; "
            f"the last: {error.message}"
        )
        allowed = "--max-errors allows" if self._given else "while more fail than land, allowed are"
        error.hint = f"{allowed} {self._errors.count:,}; mend the cause, and the same command goes on"
        error.transient = False
        raise error

    def refused(self, rows: int) -> None:
        """A chunk has landed of which so many rows were set aside. Raises DataError where those are too many."""
        if not rows or self._refused is None:
            return
        with self._lock:
            count = self._rows.add(rows, self._clock())
        if count > self._refused.count:
            raise DataError(
                f"too many rows were set aside: {count:,} {self._refused.within}",
                hint=f"--max-refused allows {self._refused.count:,}; look at them, and the same command goes on",
            )
