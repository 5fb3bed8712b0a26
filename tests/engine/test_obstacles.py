"""What hangs on a target table is found by the plan: nothing is written, and the steps never meet it."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import psycopg
import pytest

import rowferry
from rowferry import RefusedError

TABLES = (
    "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer (id))",
)
ROWS = ("INSERT INTO customer VALUES (1, 'a'), (2, 'b')", "INSERT INTO invoice VALUES (10, 1), (11, 2)")


class End:
    """A source or a target of one engine, looked at with its plain driver."""

    def __init__(self, engine: str, url: str, folder: pathlib.Path) -> None:
        self.engine, self.url, self.folder = engine, url, folder

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        connection: Any
        if self.engine == "postgres":
            connection = psycopg.connect(self.url, autocommit=True)
        elif self.engine == "sqlite":
            connection = sqlite3.connect(self.folder / "target.db")
        else:
            connection = duckdb.connect(str(self.folder / "target.duckdb"))
        rows: list[tuple[Any, ...]] = []
        with contextlib.closing(connection):
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        return rows


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.server), "sqlite", "duckdb"])
def target(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> End:
    engine = request.param
    if engine == "postgres":
        return End(engine, request.getfixturevalue("postgres_database")(), tmp_path)
    file = "target.db" if engine == "sqlite" else "target.duckdb"
    return End(engine, f"{engine}:///{tmp_path}/{file}", tmp_path)


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with contextlib.closing(sqlite3.connect(tmp_path / "source.db")) as c:
        for statement in (*TABLES, *ROWS, "INSERT INTO customer VALUES (3, 'c')"):
            c.execute(statement)
        c.commit()
    return f"sqlite:///{tmp_path}/source.db"


def refused(source: str, target: End, mode: str, tables: list[str], *words: str) -> None:
    """Refused by plan and copy alike, and not a row or table of the target is another one."""
    before = target.run("SELECT * FROM customer ORDER BY 1"), target.run("SELECT * FROM invoice ORDER BY 1")
    plan = rowferry.plan(source, target.url, mode=mode, tables=tables)
    assert plan.exit_code == 2
    for word in words:
        assert any(word in b for b in plan.blockers), plan.blockers
    with pytest.raises(RefusedError, match="'customer' in the target"):
        rowferry.copy(source, target.url, mode=mode, tables=tables)
    assert rowferry.jobs(target.url) == []
    after = target.run("SELECT * FROM customer ORDER BY 1"), target.run("SELECT * FROM invoice ORDER BY 1")
    assert before == after


def test_truncate_of_a_parent_whose_children_stay_is_refused_by_the_plan(source: str, target: End) -> None:
    target.run(*TABLES, *ROWS)
    refused(source, target, "truncate", ["customer"], "'invoice'", "copy that table in the same job")


def test_truncate_of_a_parent_with_its_children_is_done(source: str, target: End) -> None:
    target.run(*TABLES, *ROWS)
    rowferry.copy(source, target.url, mode="truncate", verify=True)
    assert target.run("SELECT count(*) FROM customer") == [(3,)]


def test_truncate_of_a_parent_whose_children_are_empty_is_done(source: str, target: End) -> None:
    target.run(*TABLES, ROWS[0])
    rowferry.copy(source, target.url, mode="truncate", tables=["customer"], verify=True)
    assert target.run("SELECT count(*) FROM customer") == [(3,)]


def test_replace_of_a_parent_whose_children_stay_is_refused_by_the_plan(source: str, target: End) -> None:
    target.run(*TABLES, *ROWS)
    refused(source, target, "replace", ["customer"], "invoice")


def test_replace_of_a_parent_with_its_children_is_done(source: str, target: End) -> None:
    """Whichever is first by name: the child is swapped first. Its foreign key is kept (test_replacing)."""
    target.run(*TABLES, *ROWS)
    if target.engine == "duckdb":
        with pytest.raises(RefusedError, match="foreign keys do not follow a renamed table"):
            rowferry.copy(source, target.url, mode="replace")
        return
    rowferry.copy(source, target.url, mode="replace", verify=True)
    assert target.run("SELECT count(*) FROM customer") == [(3,)]
    assert target.run("SELECT count(*) FROM invoice") == [(2,)]


@pytest.mark.server
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW named AS SELECT name FROM customer", "view public.named"),
        ("CREATE MATERIALIZED VIEW named AS SELECT name FROM customer", "materialized view public.named"),
        ("CREATE TABLE better (rank int) INHERITS (customer)", "table public.better"),
        (
            "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM customer; END",
            "function public.total()",
        ),
    ],
)
def test_replace_of_a_table_with_dependents_names_them(
    source: str, postgres_database: Callable[[], str], tmp_path: pathlib.Path, statement: str, named: str
) -> None:
    target = End("postgres", postgres_database(), tmp_path)
    target.run(*TABLES, *ROWS, "DELETE FROM invoice", "ALTER TABLE invoice DROP CONSTRAINT invoice_customer_fkey")
    target.run(statement)
    refused(source, target, "replace", ["customer"], named, "--mode truncate keeps them")
    rowferry.copy(source, target.url, mode="truncate", tables=["customer"], verify=True)


@pytest.mark.server
def test_truncate_of_a_parent_of_partitions_counts_their_root(
    source: str, postgres_database: Callable[[], str], tmp_path: pathlib.Path
) -> None:
    target = End("postgres", postgres_database(), tmp_path)
    target.run(
        TABLES[0],
        "CREATE TABLE invoice (id int, customer int REFERENCES customer) PARTITION BY RANGE (id)",
        "CREATE TABLE invoice_low PARTITION OF invoice FOR VALUES FROM (0) TO (11)",
        "CREATE TABLE invoice_high PARTITION OF invoice FOR VALUES FROM (11) TO (100)",
        *ROWS,
    )
    refused(source, target, "truncate", ["customer"], "'invoice'")
    rowferry.copy(source, target.url, mode="truncate", verify=True)


@pytest.mark.server
def test_truncate_of_a_parent_whose_children_may_not_be_read_is_refused(
    source: str, postgres_server: Any, postgres_database: Callable[[], str], tmp_path: pathlib.Path
) -> None:
    target = End("postgres", postgres_database(), tmp_path)
    role = f"clerk_{target.url.rpartition('/')[2]}"
    target.run(*TABLES, *ROWS, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    database = target.url.rpartition("/")[2]
    try:
        target.run(
            f"GRANT CREATE ON DATABASE {database} TO {role}",
            f"GRANT ALL ON customer TO {role}; ALTER TABLE customer OWNER TO {role}",
        )
        plan = rowferry.plan(source, postgres_server.url_of(database, role, "x"), mode="truncate", tables=["customer"])
        assert any("'invoice' points to it, and the rows there may not be read" in b for b in plan.blockers)
    finally:
        target.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_replace_in_sqlite_of_a_table_whose_index_does_not_fit_is_refused(source: str, tmp_path: pathlib.Path) -> None:
    target = End("sqlite", f"sqlite:///{tmp_path}/target.db", tmp_path)
    target.run("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, old TEXT)", TABLES[1])
    target.run("CREATE INDEX by_old ON customer (name, old)", "CREATE INDEX by_name ON customer (lower(name), id)")
    refused(source, target, "replace", ["customer"], "its index 'by_old': it is of old")
    target.run("DROP INDEX by_old")
    rowferry.copy(source, target.url, mode="replace", tables=["customer"], verify=True)
    assert target.run("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'customer'") == [("by_name",)]


@pytest.mark.server
def test_replace_of_tables_whose_foreign_keys_form_a_circle_is_refused_by_the_plan(
    source: str, postgres_database: Callable[[], str], tmp_path: pathlib.Path
) -> None:
    target = End("postgres", postgres_database(), tmp_path)
    target.run(*TABLES, "ALTER TABLE customer ADD last int REFERENCES invoice, ADD mentor int REFERENCES customer")
    plan = rowferry.plan(source, target.url, mode="replace")
    assert any("form a cycle among customer, invoice" in b for b in plan.blockers), plan.blockers
    # One that points to its own table goes with it.
    target.run("ALTER TABLE customer DROP last")
    rowferry.copy(source, target.url, mode="replace", verify=True)
