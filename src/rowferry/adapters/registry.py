"""Engines by name, imported when first asked for: a driver that is not used is not loaded."""

from __future__ import annotations

import importlib
from types import ModuleType

from rowferry.adapters.protocol import Capabilities, Source, SourceOptions, Target, TargetOptions
from rowferry.errors import ConfigError
from rowferry.model import Endpoint


def _adapter(engine: str) -> ModuleType:
    try:
        return importlib.import_module(f"rowferry.adapters.{engine}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the {engine} adapter needs the Python package {error.name!r}", hint="install it with pip"
        ) from None


def capabilities(engine: str) -> Capabilities:
    found: Capabilities = _adapter(engine).capabilities
    return found


def open_source(endpoint: Endpoint, options: SourceOptions) -> Source:
    source: Source = _adapter(endpoint.engine).open_source(endpoint, options)
    return source


def open_target(endpoint: Endpoint, options: TargetOptions) -> Target:
    target: Target = _adapter(endpoint.engine).open_target(endpoint, options)
    return target
