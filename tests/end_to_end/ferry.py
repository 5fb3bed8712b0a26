"""Runs the command line as a user would: in a process of its own, looked at from outside."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from end_to_end import warm

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Run:
    """A finished run: exit code, what it printed, its report, and what it cost."""

    def __init__(
        self, code: int, output: str, report: dict[str, Any] | None, seconds: float, cpu_s: float, peak_mib: float
    ) -> None:
        self.code = code
        self.output = output
        self.report = report
        self.seconds = seconds
        self.cpu_s = cpu_s
        #: Peak resident memory of a process that was started cold. (Its ru_maxrss begins with what this process had
        #: when it was forked.)
        self.peak_mib = peak_mib

    def table(self, name: str) -> dict[str, Any]:
        assert self.report is not None, self.output
        return next(t for t in self.report["tables"] if t["source"] == name)


def start(*arguments: str, env: dict[str, str] | None = None, output: Any = None) -> subprocess.Popen[str]:
    """Starts the command; ``output`` takes both of its streams."""
    return subprocess.Popen(
        [sys.executable, "-m", "rowferry", *arguments],
        stdout=output or subprocess.DEVNULL,
        stderr=subprocess.STDOUT if output else subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        text=True,
        start_new_session=True,
    )


def _peak_mib(pid: int) -> float:
    """Peak resident memory of a process so far; 0 where it has ended, or has not yet become the command."""
    try:
        if b"rowferry" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return 0.0
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run(
    *arguments: str, env: dict[str, str] | None = None, timeout_s: float = 300, expect: int | None = None,
    cold: bool = False,
) -> Run:  # fmt: skip
    """Runs the command to its end; ``expect`` is the exit code that the test needs. cold: a process from the very
    start, whose memory is looked at; else one with the libraries loaded (``warm``)."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        path = pathlib.Path(folder, "report.json")
        report = ["--report", str(path)] if arguments[0] in ("copy", "verify", "plan", "resume") else []
        began = time.monotonic()
        take = _cold if cold else _warm
        code, cpu_s, peak_mib = take((*arguments, *report), env, output, timeout_s)
        output.seek(0)
        text = output.read()
        seen = json.loads(path.read_text()) if path.exists() else None
        finished = Run(code, text, seen, time.monotonic() - began, cpu_s, peak_mib)
    if expect is not None:
        assert finished.code == expect, f"exit {finished.code}, not {expect}: {finished.output[-2000:]}"
    return finished


def _cold(
    arguments: tuple[str, ...], env: dict[str, str] | None, output: Any, timeout_s: float
) -> tuple[int, float, float]:
    """Runs a command from its very start; gives exit code, CPU seconds and peak memory in MiB."""
    process = start(*arguments, env=env, output=output)
    deadline = time.monotonic() + timeout_s
    peak_mib = 0.0
    while True:
        peak_mib = max(peak_mib, _peak_mib(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise _late(arguments, timeout_s)
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, peak_mib


def _warm(
    arguments: tuple[str, ...], env: dict[str, str] | None, output: Any, timeout_s: float
) -> tuple[int, float, float]:
    """The same of one that begins with the libraries loaded, and whose memory nobody looks at."""
    process = warm.start(arguments, {**os.environ, **(env or {})}, output)
    ended = process.ended(timeout_s)
    if ended is None:
        process.kill()
        raise _late(arguments, timeout_s)
    return (*ended, 0.0)


def _late(arguments: tuple[str, ...], timeout_s: float) -> AssertionError:
    return AssertionError(f"rowferry {' '.join(arguments)} did not end within {timeout_s} s")


def run_and_kill(*arguments: str, after_s: float) -> int | None:
    """Starts the command and kills it with SIGKILL; returns its exit code if it had ended by itself."""
    process = warm.start(arguments, dict(os.environ), None)
    if (ended := process.ended(after_s)) is not None:
        return ended[0]
    code = process.kill()
    return None if code == -signal.SIGKILL else code


def kill_at_every_failpoint(arguments: list[str], fresh: Callable[[], None], check: Callable[[Run], None]) -> int:
    """Kills the command at its first, second, … numbered place, each time on a fresh target, and
    lets the same command end the job. Returns how many places there were."""
    for number in range(1, 500):
        fresh()
        killed = run(*arguments, env={"ROWFERRY_FAILPOINT": str(number)})
        if killed.code != -signal.SIGKILL:
            assert killed.code == 0, killed.output
            return number - 1
        again = run(*arguments)
        # Killed after its last step the job is finished, and the same command is a new one that a full target refuses.
        assert again.code in (0, 2), f"failpoint {number}: exit {again.code}: {again.output[-2000:]}"
        if again.code == 2:
            assert "not empty" in again.output, again.output
        check(again)
    raise AssertionError("no end of failpoints")
