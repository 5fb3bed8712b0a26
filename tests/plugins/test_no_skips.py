"""The plugin itself: in CI a skipped server test fails the run, another skipped test does not."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.mark.server
def test_with_server(): pytest.skip("no server")

@pytest.fixture
def postgres_server(): pytest.skip("no programs")

def test_by_fixture(postgres_server): pass

def test_other(): pytest.skip("not here")
"""


@pytest.mark.parametrize(("ci", "code", "words"), [("", 0, "3 skipped"), ("true", 1, "1 failed, 1 skipped, 1 error")])
def test_skipped_server_tests_fail_in_ci_only(tmp_path: pathlib.Path, ci: str, code: int, words: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = server: wants a server\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.plugins.no_skips", "--rootdir", str(tmp_path), "-c",
         str(tmp_path / "pytest.ini"), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "CI": ci}, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert words in done.stdout.splitlines()[-1]
