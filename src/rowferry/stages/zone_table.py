"""A time zone's offsets as a table of days, so that whole columns of instants and wall clocks look them up.

Python's zoneinfo knows one datetime at a time, and only those of the years 1 to 9999; Arrow's own zones read the
transitions that stand in the file and not the rule after them, so that they end in 2037 or, with the files of today,
may end earlier. Here all comes from one TZif file (RFC 8536): the times of its transitions, and zoneinfo itself,
made from the very bytes, for what holds between and after them. As the Gregorian calendar repeats itself every 400
years, to the day of the week, the rule of the last years holds for any year.
"""

from __future__ import annotations

import bisect
import datetime as dt
import functools
import importlib.resources
import io
import itertools
import os
import struct
import zoneinfo
from array import array as machine_array

import pyarrow as pa

DAY_S = 86_400
#: 400 Gregorian years, which have 146,097 days or 20,871 weeks.
CYCLE_S = 146_097 * DAY_S
#: The days that the table holds: 1800-01-01 to 2200-01-01, longer than any zone has had transitions (days since 1970).
FIRST_DAY = -62_091
LAST_DAY = 84_006
#: zoneinfo refuses offsets of a day or more; twice that is more than any two of them differ.
REACH_S = 2 * DAY_S
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Beyond these the calendar of datetime ends, with room for an offset (seconds since 1970).
_LAST_S = 253_402_300_799 - REACH_S
_FIRST_S = -62_135_596_800 + REACH_S
_TZIF_HEADER = struct.Struct(">4sc15x6I")


class Zone:
    """One zone. Instants and wall clocks are seconds since 1970-01-01 00:00 (of UTC, of the wall)."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self._info = zoneinfo.ZoneInfo.from_file(io.BytesIO(data), key=name)
        written = _transition_times(data)
        times = [t for t in written if _FIRST_S < t < _LAST_S]
        times += self._ruled(max(times[-1] if times else FIRST_DAY * DAY_S, FIRST_DAY * DAY_S), LAST_DAY * DAY_S)
        # What zoneinfo makes of each instant, so that its reading of the file is ours.
        self._times = [t for t in dict.fromkeys(times) if self._probe(t - 1) != self._probe(t)]
        self._offsets = [self._probe(_FIRST_S), *(self._probe(t) for t in self._times)]

    def _probe(self, instant_s: int) -> int:
        offset = (_EPOCH + dt.timedelta(seconds=instant_s)).astimezone(self._info).utcoffset()
        assert offset is not None
        return offset.days * DAY_S + offset.seconds

    def _ruled(self, start_s: int, end_s: int) -> list[int]:
        """The transitions after those of the file, by its rule: at the most one in ten days."""
        times: list[int] = []
        step = 10 * DAY_S
        for low in range(start_s, end_s, step):
            high = low + step
            before = self._probe(low)
            if self._probe(high) == before:
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self._probe(middle) == before else (low, middle)
            times.append(high)
        return times

    def offset(self, instant_s: int) -> int:
        """Seconds that the wall clock is ahead of UTC at any instant."""
        if instant_s >= LAST_DAY * DAY_S:
            # The rule repeats itself with the calendar: the same instant of the 400 years before the table's end.
            instant_s = (instant_s - LAST_DAY * DAY_S) % CYCLE_S + LAST_DAY * DAY_S
            return self._probe(instant_s)
        return self._offsets[bisect.bisect_right(self._times, instant_s)]

    def instants(self, wall_s: int) -> list[int]:
        """The instants at which the wall clock shows this: one, none (it skips it) or two or more, ascending."""
        offsets = {self.offset(wall_s + shift) for shift in (-REACH_S, REACH_S)}
        offsets.update(self._near(wall_s))
        return sorted(wall_s - offset for offset in offsets if self.offset(wall_s - offset) == offset)

    def around_gap(self, wall_s: int) -> tuple[int, int]:
        """For a wall clock that is skipped: it by the offset after the gap, and by the one before (which is later)."""
        offsets = [self.offset(wall_s - REACH_S), *self._near(wall_s), self.offset(wall_s + REACH_S)]
        # The gap is between two offsets that follow each other: with one the clock is before it, with the other behind.
        for before, after in itertools.pairwise(offsets):
            if before < after and self.offset(wall_s - after) == before and self.offset(wall_s - before) == after:
                return wall_s - after, wall_s - before
        return wall_s - max(offsets), wall_s - min(offsets)

    def _near(self, wall_s: int) -> list[int]:
        """The offsets that begin within the reach of a wall clock, in order."""
        if wall_s >= LAST_DAY * DAY_S - REACH_S:
            return []
        low = bisect.bisect_left(self._times, wall_s - REACH_S)
        high = bisect.bisect_right(self._times, wall_s + REACH_S)
        return self._offsets[low + 1 : high + 1]

    @functools.cached_property
    def instant_days(self) -> pa.Array:
        """For each day of UTC from FIRST_DAY on: the offset that holds for all of it, NULL where it changes."""
        return self._days([(t, t) for t in self._times])

    @functools.cached_property
    def wall_days(self) -> pa.Array:
        """For each day of the wall: the offset of all its clocks, NULL where some are skipped or had twice."""
        spans = []
        for place, t in enumerate(self._times):
            before, after = self._offsets[place], self._offsets[place + 1]
            spans.append((t + min(before, after), t + max(before, after)))
        return self._days(spans)

    def _days(self, spans: list[tuple[int, int]]) -> pa.Array:
        """Day → offset, from the spans (seconds) in which the offsets follow each other."""
        offsets, valid = machine_array("i"), bytearray()
        day = FIRST_DAY
        for place, (low, high) in enumerate(spans):
            first, last = low // DAY_S, high // DAY_S
            if last < FIRST_DAY or first >= LAST_DAY:
                continue
            plain = max(0, first - day)
            offsets.extend(machine_array("i", [self._offsets[place]]) * plain)
            valid += b"\1" * plain
            day += plain
            mixed = max(0, last + 1 - day)
            offsets.extend(machine_array("i", [0]) * mixed)
            valid += b"\0" * mixed
            day += mixed
        rest = max(0, LAST_DAY - day)
        offsets.extend(machine_array("i", [self._offsets[-1]]) * rest)
        valid += b"\1" * rest
        count = LAST_DAY - FIRST_DAY
        flags = pa.Array.from_buffers(pa.uint8(), count, [None, pa.py_buffer(bytes(valid[:count]))]).cast(pa.bool_())
        return pa.Array.from_buffers(pa.int32(), count, [flags.buffers()[1], pa.py_buffer(offsets)])


def _transition_times(data: bytes) -> list[int]:
    """The times of a TZif file's transitions; of its 64-bit part where it has one. Raises ValueError."""

    def header(at: int) -> tuple[bytes, list[int]]:
        if len(data) < at + _TZIF_HEADER.size:
            raise ValueError("it ends within its header")
        magic, version, *counts = _TZIF_HEADER.unpack_from(data, at)
        if magic != b"TZif":
            raise ValueError("it is no TZif file")
        return version, counts

    version, (isutc, isstd, leaps, times, types, letters) = header(0)
    at, width = _TZIF_HEADER.size, 4
    if version >= b"2":
        at += times * 5 + types * 6 + letters + leaps * 8 + isstd + isutc
        _, (_, _, _, times, _, _) = header(at)
        at, width = at + _TZIF_HEADER.size, 8
    if len(data) < at + times * width:
        raise ValueError("it ends within its transitions")
    return list(struct.unpack_from(f">{times}{'q' if width == 8 else 'l'}", data, at))


def _read(name: str) -> bytes | None:
    """A zone's file, from where zoneinfo looks: the system's folders, then the package tzdata."""
    parts = name.split("/")
    # The rules of zoneinfo for a key, which is joined to folders here: relative, and nothing but itself.
    if not name or any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
        return None
    for folder in zoneinfo.TZPATH:
        path = os.path.join(folder, *parts)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read()
    try:
        resource = importlib.resources.files("tzdata").joinpath("zoneinfo", *parts)
        return resource.read_bytes() if resource.is_file() else None
    except (ModuleNotFoundError, OSError):
        return None


@functools.lru_cache(maxsize=32)
def load(name: str) -> Zone | None:
    """The zone of an IANA name (``Europe/Warsaw``, ``UTC``); None where there is none, or its file is no zone's."""
    data = _read(name)
    if data is None:
        return None
    try:
        return Zone(name, data)
    except ValueError:
        return None
