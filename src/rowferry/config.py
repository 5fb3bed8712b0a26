"""``--config job.toml``: the same things as on the command line, kept in a file.

    tables = ["flights", "sales.*:archive_*"]
    mode = "append"
    names = "snake"
    workers = 4

    [where]
    flights = "month = 1"

    [policies]
    "flights.tailnum" = "null"

What is also given on the command line (or as an argument) wins.
"""

from __future__ import annotations

import os
import tomllib
from typing import Annotated, Literal

import msgspec

from rowferry.errors import ConfigError

#: A job.toml is written by hand; what is larger than this is not one (bytes).
CONFIG_BYTES_MAX = 1 << 20


class JobConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job.toml can say. ``where`` is by source table, ``policies`` by ``table.column`` (globs)."""

    tables: tuple[str, ...] = ()
    mode: Literal["create", "append", "truncate", "replace", "upsert"] | None = None
    names: Literal["as-is", "lower", "snake"] | None = None
    match_names: Literal["exact", "loose"] | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    where: dict[str, str] = {}
    policies: dict[str, str] = {}


def load(path: str | os.PathLike[str]) -> JobConfig:
    """Reads a job.toml. Raises ConfigError, which names the file and the key."""
    try:
        with open(path, "rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"the config {os.fspath(path)!r} cannot be read: {error.strerror}") from None
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"the config {os.fspath(path)!r} is larger than {CONFIG_BYTES_MAX:,} bytes")
    try:
        data = tomllib.loads(raw.decode())
        return msgspec.convert(data, JobConfig)
    except UnicodeDecodeError:
        raise ConfigError(f"the config {os.fspath(path)!r} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the config {os.fspath(path)!r} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the config {os.fspath(path)!r}: {error}",
            hint="its keys are tables, mode, names, match_names, workers, where, policies",
        ) from None
