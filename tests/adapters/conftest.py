"""The fixture ``engine``: each test of the contract runs once for every engine."""

from __future__ import annotations

import pathlib

import pytest

from adapters.quirks import QUIRKS, Quirks, make_quirks

ENGINES = [pytest.param(name, marks=[pytest.mark.server] if name == "postgres" else []) for name in QUIRKS]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Quirks:
    return make_quirks(request.param, tmp_path, request)
