"""SQLite as source and as target: one file, the library that Python itself uses, native kernels for the rows."""

from __future__ import annotations

from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions
from rowferry.adapters.sqlite.source import SqliteSource
from rowferry.adapters.sqlite.target import SqliteTarget
from rowferry.model import Endpoint

capabilities = Capabilities(
    engine="sqlite",
    server=False,
    parallel_writers=False,
    names_fold_case=True,
    names_empty=True,
    schemas=False,
    savepoints=True,
    self_references="any",
    tells_unread=True,
)


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    """Opens a database file to read; never makes one. Raises SourceError, ConfigError."""
    return SqliteSource.open(endpoint, options)


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    """Opens a database file, which is made where it is absent. Raises TargetError, ConfigError."""
    return SqliteTarget.open(endpoint, options)
