"""The fixture ``engine``: each test of the contract runs once for every engine that it concerns.

``@pytest.mark.engines("sqlite", "duckdb")`` names those; without it all are meant.
"""

from __future__ import annotations

import pathlib

import pytest

from adapters.quirks import QUIRKS, Quirks, make_quirks


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("engines")
    names = marker.args if marker else tuple(QUIRKS)
    assert set(names) <= set(QUIRKS), names
    params = [pytest.param(n, marks=[pytest.mark.server] if QUIRKS[n].server else [], id=n) for n in names]
    metafunc.parametrize("engine", params, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Quirks:
    return make_quirks(request.param, tmp_path, request)
