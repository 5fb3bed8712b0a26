"""What a command costs: wall seconds, CPU seconds of all its processes, its peak memory, CPU seconds of servers.

Run as a program, it runs a command and writes what that took: a small process of its own, since Linux hands
the peak memory of whoever starts a program on to it (see ``ru_maxrss`` in getrusage(2)).

    python -I -S cost.py OUT.json TIMEOUT_S COMMAND…
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: Of what a failing command printed, so many characters are kept.
SAID_MAX = 2_000


class FailedError(Exception):
    """The command ended with an error, or not in time; the text is what it said last."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one run. ``servers_cpu_s``: None where no server of it runs on this machine (or /proc hides it)."""

    wall_s: float
    #: User and system time of the command and of all its descendants that were waited for.
    client_cpu_s: float
    #: Resident memory of the largest process.
    peak_mib: float
    servers_cpu_s: float | None


def measure(
    command: Sequence[str], *, env: Mapping[str, str], timeout_s: float, server_ids: Iterable[int] = ()
) -> Cost:
    """Runs ``command`` to its end; ``server_ids`` are the processes (with all below them) that serve it.

    Raises: FailedError where it exits non-zero or takes longer than ``timeout_s``.
    """
    ids = tuple(server_ids)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", errors="replace") as said:
        out = pathlib.Path(folder, "cost.json")
        before_s = cpu_s_of(ids)
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, str(out), str(timeout_s), *command],
            stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(env), cwd=folder, check=False,
        )  # fmt: skip
        after_s = cpu_s_of(ids)
        if done.returncode or not out.exists():
            said.seek(0)
            text = said.read()[-SAID_MAX:]
            why = f"longer than {timeout_s:.0f} s" if done.returncode == 124 else f"exit {done.returncode}"
            raise FailedError(f"{why}\n{text.strip()}")
        taken = json.loads(out.read_text())
    return Cost(**taken, servers_cpu_s=after_s - before_s if ids else None)


def cpu_s_of(process_ids: Iterable[int]) -> float:
    """CPU seconds so far of these processes, of all that descend from them, and of what those have waited for."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            fields = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile; its parent's sums hold it now
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
    roots = set(process_ids)
    total = 0
    for process_id, ticks in used.items():
        at: int | None = process_id
        while at and at not in roots:
            at = parents.get(at)
        total += ticks if at else 0
    return total / _TICKS_PER_S


def listener_of(port: int) -> int | None:
    """The process on this machine that listens on a TCP port; None where there is none, or none may be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(PermissionError, FileNotFoundError, ProcessLookupError):
                if any(_link(handle.path) in inodes for handle in os.scandir(f"{entry.path}/fd")):
                    found.append(int(entry.name))
    return min(found, default=None)  # a child that has not closed it yet is younger


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _run(out: str, timeout_s: str, *command: str) -> int:
    began = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(float(timeout_s))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124
    wall_s = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {"wall_s": wall_s, "client_cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}
    pathlib.Path(out).write_text(json.dumps(cost))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_run(*sys.argv[1:]))
