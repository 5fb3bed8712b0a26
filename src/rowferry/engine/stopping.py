"""A request to stop is heeded everywhere: also where a thread waits for a server that does not answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType

from rowferry import limits
from rowferry.adapters.protocol import Cuttable, Source, Target


class Cutter:
    """Cuts the connections of its ends, once ``stop`` has been set for longer than a batch usually takes.

    Use as a context manager around all that may wait; what then fails raises transient errors.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._left = threading.Event()
        self._ends: list[Cuttable] = []
        self._thread = threading.Thread(target=self._run, name="rowferry-cutter", daemon=True)

    def watch(self, end: Source | Target) -> None:
        """Adds an end; one that cannot be cut (a file) never waits for long."""
        if isinstance(end, Cuttable):
            self._ends.append(end)

    @staticmethod
    @contextlib.contextmanager
    def after(end: Source | Target, seconds: float) -> Iterator[None]:
        """Cuts the end's connections if what is done within takes longer."""
        timer = threading.Timer(max(seconds, 0), end.cut if isinstance(end, Cuttable) else lambda: None)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def __enter__(self) -> Cutter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._left.wait(0.1):
            if self._stop.is_set():
                break
        wait_s = limits.STOP_GRACE_S
        while not self._left.wait(wait_s):
            # Again and again: a connection may have been in the making.
            for end in list(self._ends):
                end.cut()
            wait_s = 0.5
