"""What holds one copy back and what counts its failures, kept over its attempts; loaded where there is need of it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from rowferry.adapters.protocol import Source, Target
from rowferry.engine.progress import EventHandler
from rowferry.engine.request import Request
from rowferry.errors import RowferryError

if TYPE_CHECKING:
    from rowferry.engine.breaker import Breaker
    from rowferry.engine.throttle import Throttle


class HeldBack:
    """``throttle`` is None where nothing holds the copy back."""

    def __init__(self, request: Request, on_event: EventHandler) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._breaker: Breaker | None = None
        self.throttle: Throttle | None = None
        if request.held_back:
            from rowferry.engine.throttle import Throttle

            self.throttle = Throttle(request, on_event)

    def check(self, source: Source, target: Target) -> None:
        """Before anything is written. Raises ConfigError for signals that cannot be asked."""
        if self.throttle is not None:
            self.throttle.check(source, target)

    def watching(
        self, source: Source, target: Target, stop: threading.Event
    ) -> contextlib.AbstractContextManager[None]:
        """While rows are read."""
        return contextlib.nullcontext() if self.throttle is None else self.throttle.watching(source, target, stop)

    def reads(self, source: Source, side: str = "source") -> Source:
        """As ``Throttle.reads``."""
        return source if self.throttle is None else self.throttle.reads(source, side)

    def notes(self) -> tuple[str, ...]:
        return self.throttle.notes() if self.throttle is not None else ()

    def failed(self, error: RowferryError, carried: int) -> None:
        """As ``Breaker.failed``."""
        self._counting().failed(error, carried)

    def refused(self, rows: int) -> None:
        """As ``Breaker.refused``."""
        if self._request.max_refused is not None:
            self._counting().refused(rows)

    def _counting(self) -> Breaker:
        """Made by the first failure: few copies have one."""
        from rowferry.engine.breaker import Breaker

        with self._lock:
            if self._breaker is None:
                r = self._request
                self._breaker = Breaker(r.max_errors, r.max_refused, r.workers)
            return self._breaker
