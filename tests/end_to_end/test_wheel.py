"""The wheel: it builds in a clean environment, holds every kernel, and works where nothing else of ours is."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: What a source checkout has and a build needs; nothing that was built before.
TAKEN = ("ext", "src", "LICENSE", "README.md", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml", "setup.py")

#: A copy by the installed package; its argument is where it must have been installed.
SCRIPT = """
import sqlite3, sys
import rowferry
assert rowferry.__file__.startswith(sys.argv[1]), rowferry.__file__
with sqlite3.connect("a.db") as c:
    c.execute("create table t (id integer primary key, v text)")
    c.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(1000)])
c.close()
report = rowferry.copy("sqlite:///a.db", "duckdb:///b.db", verify=True)
assert report.equal and report.rows_committed == 1000
"""


@pytest.mark.slow
def test_wheel_builds_in_a_clean_environment_and_copies(tmp_path: pathlib.Path) -> None:
    tree, site = tmp_path / "tree", tmp_path / "site"
    tree.mkdir()
    for name in TAKEN:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
            )
        else:
            shutil.copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(tree)], check=True, timeout=850)
    (wheel,) = tmp_path.glob("rowferry-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for kernel in (ROOT / "ext").glob("*.pyx"):
        assert any(n.startswith(f"rowferry/_native/{kernel.stem}.") and n.endswith(".so") for n in names), kernel.stem
    assert "rowferry/py.typed" in names
    assert not any(n.startswith(("tests", "benchmarks", "demo")) for n in names)

    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=120)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-c", SCRIPT, str(site)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)
