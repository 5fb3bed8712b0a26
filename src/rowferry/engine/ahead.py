"""The workers' connections, opened while the job is planned and its tables are made: a login waits for the server,
and there is one for each reader and each writer."""

from __future__ import annotations

import threading
from types import TracebackType

from rowferry.adapters import registry
from rowferry.adapters.protocol import Expecting, Reader, Source, Target, Writer
from rowferry.engine.request import Request
from rowferry.errors import RowferryError

#: What a worker begins with; None: it opens that itself.
Pair = tuple[Writer | None, Reader | None]


class Ahead:
    """Opens a pair for each worker in a thread of its own, from entering on. Leaving it closes what nobody took.

    What cannot be opened is left to the worker, which tries again when its turn comes and says what is wrong.
    """

    def __init__(self, request: Request, source: Source, target: Target) -> None:
        can = registry.capabilities(request.source.engine).connects_ahead
        self._source = source if can else None
        self._target = target if registry.capabilities(request.target.engine).connects_ahead else None
        self._coming = request.workers if self._source or self._target else 0
        self._ready: list[Pair] = []
        self._left = False
        self._changed = threading.Condition()

    def __enter__(self) -> Ahead:
        if isinstance(self._source, Expecting):
            self._source.expect_snapshot()
        for number in range(self._coming):
            threading.Thread(target=self._run, name=f"rowferry-ahead-{number}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            # Who is still waiting for a server closes what it gets by itself.
            self._left = True
            pairs = self._ready
            self._ready = []
            self._changed.notify_all()
        for pair in pairs:
            _close(*pair)

    def take(self) -> Pair:
        """A pair that no other worker has; waits for one that is in the making."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or not self._coming or self._left)
            return self._ready.pop() if self._ready else (None, None)

    def _run(self) -> None:
        writer: Writer | None = None
        reader: Reader | None = None
        try:
            writer = self._target.writer() if self._target is not None else None
            reader = self._source.reader() if self._source is not None else None
        except RowferryError:
            _close(writer, reader)
            writer = reader = None
        finally:
            with self._changed:
                self._coming -= 1
                keep = not self._left and (writer is not None or reader is not None)
                if keep:
                    self._ready.append((writer, reader))
                self._changed.notify_all()
            if not keep:
                _close(writer, reader)


def _close(writer: Writer | None, reader: Reader | None) -> None:
    if writer is not None:
        writer.close()
    if reader is not None:
        reader.close()
