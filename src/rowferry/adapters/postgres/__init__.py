"""PostgreSQL, as source and as target (see README.md beside this file)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowferry import limits
from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions

if TYPE_CHECKING:
    from rowferry.model import Endpoint

capabilities = Capabilities(
    engine="postgres",
    server=True,
    parallel_writers=True,
    name_max=limits.POSTGRES_NAME_BYTES_MAX,
    raw_format="postgresql",
    savepoints=True,
    self_references="statement",
    ledger_schema=True,
    connects_ahead=True,
)


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    """Connects to the database that ``endpoint`` names. Raises SourceError, ConfigError."""
    from rowferry.adapters.postgres.source import PostgresSource

    return PostgresSource(endpoint, options)


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    """Connects to the database that ``endpoint`` names. Raises TargetError, ConfigError."""
    from rowferry.adapters.postgres.target import PostgresTarget

    return PostgresTarget(endpoint, options)
