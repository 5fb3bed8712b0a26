"""Opening the two ends of a run, and closing them whatever happens."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator

import msgspec

from rowferry import limits
from rowferry.adapters import registry
from rowferry.adapters.protocol import Placed, Source, SourceOptions, Target, TargetOptions
from rowferry.endpoint import same_place
from rowferry.engine.request import Request
from rowferry.errors import ConfigError


def check_ends(request: Request) -> None:
    """Raises ConfigError where source and target are one place."""
    if same_place(request.source, request.target):
        raise ConfigError("source and target are the same place", hint="name two different databases")


def check_places(source: Source, target: Target) -> None:
    """Raises ConfigError where source and target say themselves that they are one place: two names of a server
    are two URLs, and emptying the target would empty the source."""
    if not isinstance(source, Placed) or not isinstance(target, Placed):
        return
    (server, database), (other, into) = source.place(), target.place()
    if server == other and (database == into or database is None or into is None):
        raise ConfigError(
            "source and target are the same place, by another name",
            hint="name two different databases" if database is not None else "name the source's database in its URL",
        )


@contextlib.contextmanager
def source_of(request: Request) -> Iterator[Source]:
    options = SourceOptions(independent=request.independent, policies=dict(request.policies), workers=request.workers)
    source = registry.open_source(request.source, options)
    with contextlib.closing(source):
        yield source


@contextlib.contextmanager
def target_of(request: Request, *, read_only: bool = False) -> Iterator[Target]:
    options = TargetOptions(ledger_schema=request.ledger_schema, triggers=request.target_triggers, read_only=read_only)
    target = registry.open_target(request.target, options)
    with contextlib.closing(target):
        yield target


@contextlib.contextmanager
def target_to_plan_for(request: Request) -> Iterator[Target]:
    """The target as planning needs it: nothing is written there.

    A file or folder that is not there yet is planned for on an empty one in a temporary folder,
    so that a plan (or a copy that is refused) leaves nothing behind.
    """
    if request.target.path is None or os.path.exists(request.target.path):
        with target_of(request, read_only=True) as target:
            yield target
        return
    with tempfile.TemporaryDirectory(prefix="rowferry-plan-") as folder:
        scratch = msgspec.structs.replace(request.target, path=os.path.join(folder, "empty"))
        with target_of(msgspec.structs.replace(request, target=scratch)) as target:
            yield target


def lock_job(target: Target, key: str, stop: threading.Event, patience_s: float) -> bool:
    """Takes a job's lock, waiting a moment for the session of a process that has just died. False where another
    process holds it, or ``stop`` was set."""
    until = time.monotonic() + patience_s
    while not target.ledger.lock(key):
        if time.monotonic() >= until or stop.wait(limits.CLAIM_POLL_S):
            return False
    return True


class PlannedTarget:
    """A target that is planned for first and written after. A server is opened once, since opening writes nothing
    there; a file is closed between, so that a copy that is refused leaves none behind."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open = contextlib.ExitStack()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._left = False
        self._error: BaseException | None = None
        self._server = registry.capabilities(request.target.engine).server
        self._target: Target | None = None

    def __enter__(self) -> PlannedTarget:
        if self._server:
            # While the source is opened: either waits for its server.
            self._thread = threading.Thread(target=self._connect, name="rowferry-target", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._left = True
        self._open.close()

    def _connect(self) -> None:
        try:
            with contextlib.ExitStack() as opened:
                target = opened.enter_context(target_of(self._request))
                with self._lock:
                    if not self._left:  # else nobody wants it any more, and it is closed right away
                        self._target = target
                        self._open = opened.pop_all()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for the target
            self._error = error

    def to_plan_for(self) -> Target:
        if self._thread is None:
            self._target = self._open.enter_context(target_to_plan_for(self._request))
            return self._target
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._target is not None
        return self._target

    def to_write(self) -> Target:
        """The target to write to; what :meth:`to_plan_for` gave is of no use any more."""
        if self._target is None or not self._server:
            self._open.close()
            self._target = self._open.enter_context(target_of(self._request))
        return self._target
