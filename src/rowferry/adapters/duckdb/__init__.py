"""DuckDB as source and as target: one database file, one process, many cursors."""

from __future__ import annotations

from rowferry import limits
from rowferry.adapters.duckdb.source import DuckdbSource
from rowferry.adapters.duckdb.target import DuckdbTarget
from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions
from rowferry.model import Endpoint

capabilities = Capabilities(
    engine="duckdb",
    server=False,
    parallel_writers=True,
    chunk_rows_min=limits.DUCKDB_CHUNK_ROWS_MIN,
    names_fold_case=True,
)


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    """Opens a database file read-only. Raises SourceError, ConfigError."""
    return DuckdbSource.open(endpoint)


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    """Opens a database file, which is made where it is absent. Raises TargetError, ConfigError."""
    return DuckdbTarget.open(endpoint, options)
