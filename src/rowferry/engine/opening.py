"""Opening the two ends of a run, and closing them whatever happens."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import msgspec

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


class PlannedTarget:
    """A target that is planned for first and written after. A server is opened once, since opening writes nothing
    there; a file is closed between, so that a copy that is refused leaves none behind."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open = contextlib.ExitStack()
        self._server = registry.capabilities(request.target.engine).server
        self._target: Target | None = None

    def __enter__(self) -> PlannedTarget:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def to_plan_for(self) -> Target:
        opened = target_of(self._request) if self._server else target_to_plan_for(self._request)
        self._target = self._open.enter_context(opened)
        return self._target

    def to_write(self) -> Target:
        """The target to write to; what :meth:`to_plan_for` gave is of no use any more."""
        if self._target is None or not self._server:
            self._open.close()
            self._target = self._open.enter_context(target_of(self._request))
        return self._target
