"""The bounded queue between a worker's reader and its writer: both sides work at once."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator

from rowferry import limits
from rowferry.adapters.protocol import Block


def close(blocks: Iterator[Block]) -> None:
    """Ends an iterator of blocks before its end, so that its reader is free again; not every one has to be told."""
    end = getattr(blocks, "close", None)
    if end is not None:
        end()


class Prefetch:
    """Runs an iterator of blocks in a thread of its own, at most ``bytes_max`` ahead of its consumer.

    A block larger than ``bytes_max`` passes alone. Use as a context manager: leaving it stops the
    thread, closes the iterator and waits for both, so that the reader is free again.

    cut: ends a wait of ``blocks`` from outside. It is called where a consumer left early and the next
    block does not come, so that a source that hangs never holds up a worker whose target has failed.
    """

    def __init__(self, blocks: Iterator[Block], bytes_max: int, cut: Callable[[], None] | None = None) -> None:
        self._blocks = blocks
        self._cut = cut
        self._bytes_max = bytes_max
        self._waiting: collections.deque[tuple[Block, int]] = collections.deque()
        self._bytes = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="rowferry-reader", daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._cut is not None:
            self._thread.join(limits.READER_GRACE_S)
            if self._thread.is_alive():
                self._cut()
        self._thread.join()

    def __iter__(self) -> Iterator[Block]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    if self._error is not None:
                        raise self._error
                    return
                block, size = self._waiting.popleft()
                self._bytes -= size
                self._changed.notify_all()
            yield block
            del block  # the next wait may be long: do not hold these rows meanwhile

    def _run(self) -> None:
        try:
            for block in self._blocks:
                size = block.batch.nbytes + (len(block.raw) if block.raw is not None else 0)
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closed or not self._waiting or self._bytes + size <= self._bytes_max  # noqa: B023
                    )
                    if self._closed:
                        break
                    self._waiting.append((block, size))
                    self._bytes += size
                    self._changed.notify_all()
                del block
        except BaseException as error:  # noqa: BLE001 - carried to the consumer's thread, which raises it
            self._error = error
        finally:
            try:
                close(self._blocks)
            except BaseException as error:  # noqa: BLE001 - as above; the first error is the one to tell
                self._error = self._error or error
            with self._changed:
                self._ended = True
                self._changed.notify_all()
