"""Folders of Parquet or Arrow IPC files as source and as target: one subfolder a table, one file a chunk."""

from __future__ import annotations

from rowferry.adapters.files.source import FilesSource
from rowferry.adapters.files.target import FilesTarget
from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions
from rowferry.model import Endpoint

capabilities = Capabilities(
    engine="files",
    server=False,
    parallel_writers=True,
    names_empty=True,
    modes=("create", "append", "truncate", "replace"),
)


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    """Opens a folder, or one file. Raises SourceError, ConfigError."""
    return FilesSource.open(endpoint)


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    """Opens a folder, which is made where it is absent. Raises TargetError, ConfigError."""
    return FilesTarget.open(endpoint, options)
