"""With CI set, a test that wants a server and is skipped has failed: nothing is left out in silence.

python -m pytest -p tests.plugins.no_skips
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    wants_server = item.get_closest_marker("server") or "postgres_server" in getattr(item, "fixturenames", ())
    if os.environ.get("CI") and wants_server and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a server test was skipped in CI: {report.longrepr}"
    return report
