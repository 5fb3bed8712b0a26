"""The README is true: its Python example runs, and what it says of commands and exit codes is what there is."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3

import duckdb
import pytest

from end_to_end import ferry
from rowferry import errors
from rowferry.cli import cli

README = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 25
    with contextlib.chdir(tmp_path), contextlib.closing(sqlite3.connect("shop.db")) as c:
        for table in ("orders", "customers", "unasked"):
            c.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v TEXT)")
            c.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(i, str(i)) for i in range(100)])
        c.commit()
        # The example's source is a server that is not here; all else is run as it stands.
        exec(code.replace("postgresql://me@localhost/shop", "sqlite:///shop.db"), {})
    said = capsys.readouterr().out
    assert "orders 100 rows" in said
    assert re.search(r"customers 100 100:[0-9a-f]{32} equal: True", said)
    assert "unasked" not in said


def test_config_example_runs(tmp_path: pathlib.Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "job.toml").write_text(text, encoding="utf-8")
    with contextlib.chdir(tmp_path), contextlib.closing(sqlite3.connect("shop.db")) as c:
        c.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        c.execute(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, first TEXT, last TEXT, email TEXT, credit NUMERIC(8,2), "
            "deleted_at TEXT, updated_at INTEGER)"
        )
        rows = [(i, f" F{i} ", "L", f"A{i % 10}@X.org", i, None if i % 2 else "x", i) for i in range(100)]
        c.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        c.commit()
        for command in ("plan", "copy", "verify"):
            ferry.run(command, "sqlite:///shop.db", "duckdb:///shop.duckdb", "--config", "job.toml", expect=0)
        with duckdb.connect("shop.duckdb") as target:
            found = target.execute("SELECT customer, email, full_name FROM customers ORDER BY 1").fetchall()
    assert found == [(i, f"a{i % 10}@x.org", f"F{i} L") for i in range(91, 100, 2)]


def test_commands_and_options_that_are_named_are_there() -> None:
    known = {name for command in cli.commands.values() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--help"}
    assert named - known == set()
    for name in re.findall(r"^rowferry (\w+) .*(?:://|…)", README, re.MULTILINE):
        assert name in cli.commands


def test_exit_codes_are_those_of_the_errors() -> None:
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", README, re.MULTILINE))
    assert set(rows) == {"0", "1", "2", "3", "4", "5", "6"}
    for error, word in (
        (errors.DataError, "refused"),
        (errors.ConfigError, "request"),
        (errors.SourceError, "source"),
        (errors.TargetError, "target"),
        (errors.StoppedError, "stopped"),
        (errors.RowferryError, "bug"),
    ):
        assert word in rows[str(error.exit_code)]


def test_links_lead_somewhere() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    documents = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
