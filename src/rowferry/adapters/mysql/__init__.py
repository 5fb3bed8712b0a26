"""MySQL and MariaDB, as source and as target (see README.md beside this file)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowferry import limits
from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions

if TYPE_CHECKING:
    from rowferry.model import Endpoint

capabilities = Capabilities(
    engine="mysql",
    server=True,
    parallel_writers=True,
    name_max=limits.MYSQL_NAME_CHARACTERS_MAX,
    name_in_bytes=False,
    columns_fold_case=True,
    schemas_are_databases=True,
    savepoints=True,
    measured_digits_max=limits.MYSQL_DECIMAL_DIGITS_MAX,
    self_references="any",
    tells_unread=True,
    # The server keeps names in three-byte UTF-8, and takes none that ends in a space of ASCII's.
    names_unfit="[\\0\U00010000-\U0010ffff]|[ \\t\\n\\v\\f\\r]$",
)


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    """Connects to the database that ``endpoint`` names. Raises SourceError, ConfigError."""
    from rowferry.adapters.mysql.source import MysqlSource

    return MysqlSource(endpoint, options)


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    """Connects to the database that ``endpoint`` names. Raises TargetError, ConfigError."""
    from rowferry.adapters.mysql.target import MysqlTarget

    return MysqlTarget(endpoint, options)
