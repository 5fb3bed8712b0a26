"""repair on a real PostgreSQL target: what else hangs on the rows that are mended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import psycopg
import pytest

from rowferry import endpoint
from rowferry.adapters import postgres as adapter
from rowferry.adapters.protocol import SourceOptions, TargetOptions
from rowferry.engine.repair import repair
from rowferry.engine.verify import TableDifference, verify_tables
from rowferry.errors import TargetError
from rowferry.model import Column, ColumnPlan, TableName, TablePlan
from rowferry.stages.digest import compare

pytestmark = pytest.mark.server

PEOPLE = "CREATE TABLE people (id int PRIMARY KEY, name text, born timestamptz)"
ROWS = "INSERT INTO people SELECT i, 'n' || i, timestamptz 'epoch' + i * interval '1 day' FROM generate_series(1, 5) i"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, person int REFERENCES people ON DELETE CASCADE)"


def load(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def plan_column(ours: Column, theirs: Column, wire: bool) -> ColumnPlan:
    """Compared in the usual form, or as the bytes of the binary form where there is one."""
    form = next((f for f in ours.forms if wire and f.kind == "wire"), ours.type)
    to = form if form.kind == "wire" else theirs.type
    way = compare(form, to, source_engine="postgres", target_engine="postgres")
    assert way is not None
    return ColumnPlan(ours.name, form, theirs.name, msgspec.structs.replace(theirs, type=to), way)


def mend(
    source_url: str, target_url: str, table: str, delete_extra: bool = False, wire: bool = False
) -> tuple[TableDifference, int]:
    """What was found, and the rows touched; a comparison after the repair has to find nothing."""
    with (
        contextlib.closing(adapter.open_source(endpoint.parse(source_url), SourceOptions())) as source,
        contextlib.closing(adapter.open_target(endpoint.parse(target_url), TargetOptions())) as target,
    ):
        name = TableName(None, table)
        with contextlib.closing(target.as_source()) as written:
            ours, theirs = source.describe(name), written.describe(name)
            columns = tuple(plan_column(a, b, wire) for a, b in zip(ours.columns, theirs.columns, strict=True))
            plan = TablePlan(0, ours, theirs, columns, key=ours.primary_key)
            source.open_snapshot(2)
            written.open_snapshot(2)
            found = verify_tables(source, written, [plan], workers=2)[0]
        touched = repair(source, target, plan, found, delete_extra)
        with contextlib.closing(target.as_source()) as written:
            written.open_snapshot(2)
            assert verify_tables(source, written, [plan], contained=not delete_extra)[0].equal
    return found, touched


def test_repair_a_changed_row_that_others_refer_to_keeps_them(postgres_database: Callable[[], str]) -> None:
    source, target = postgres_database(), postgres_database()
    load(source, PEOPLE, ROWS)
    load(target, PEOPLE, ROWS, ORDERS, "INSERT INTO orders VALUES (10, 3), (11, 4)")
    load(target, "UPDATE people SET name = 'wrong' WHERE id = 3")
    found, touched = mend(source, target, "people")
    assert (found.changed, touched) == (1, 1)
    assert rows(target, "SELECT name FROM people WHERE id = 3") == [("n3",)]
    assert rows(target, "SELECT * FROM orders ORDER BY 1") == [(10, 3), (11, 4)]


def test_repair_unique_values_that_changed_places_are_put_right(postgres_database: Callable[[], str]) -> None:
    source, target = postgres_database(), postgres_database()
    for url in (source, target):
        load(url, PEOPLE, ROWS, "ALTER TABLE people ADD UNIQUE (name)")
    load(target, "UPDATE people SET name = 'x' || name WHERE id IN (1, 2)")
    load(target, "UPDATE people SET name = 'n' || (3 - id) WHERE id IN (1, 2)")
    load(target, "INSERT INTO people VALUES (99, 'extra')")
    found, touched = mend(source, target, "people", delete_extra=True)
    assert (found.changed, found.extra, touched) == (2, 1, 3)


def test_repair_rows_of_a_referenced_table_without_its_unique_key_are_refused(
    postgres_database: Callable[[], str],
) -> None:
    source, target = postgres_database(), postgres_database()
    load(source, "CREATE TABLE people (name text PRIMARY KEY, id int)", "INSERT INTO people VALUES ('a', 1)")
    load(target, "CREATE TABLE people (name text, id int UNIQUE)", "INSERT INTO people VALUES ('a', 2)")
    load(target, "CREATE TABLE orders (person int REFERENCES people (id) ON DELETE CASCADE)")
    load(target, "INSERT INTO orders VALUES (2)")
    with pytest.raises(TargetError, match="table 'people': its rows cannot be replaced: the foreign key"):
        mend(source, target, "people")
    assert rows(target, "SELECT * FROM orders") == [(2,)]


@pytest.mark.parametrize("wire", [False, True])
def test_repair_wire_and_opaque_columns_come_as_they_are(postgres_database: Callable[[], str], wire: bool) -> None:
    source, target = postgres_database(), postgres_database()
    table = (
        "CREATE TABLE t (id int PRIMARY KEY, b box, i inet, r int4range, n numeric, a int[], z timetz, at timestamp)"
    )
    for url in (source, target):
        load(url, table)
    load(
        source,
        "INSERT INTO t VALUES (1, '(1,2),(3,4)', '10.0.0.1/8', '[1,5)', 'NaN', '{1,NULL}', '10:00+05:30', 'infinity'),"
        " (2, NULL, NULL, NULL, NULL, NULL, NULL, '0044-03-15 BC')",
    )
    load(target, "INSERT INTO t VALUES (1, '(1,2),(3,5)', '10.0.0.2/8', '[1,6)', '1.50', '{1,2}', '10:00+05', NULL)")
    found, touched = mend(source, target, "t", wire=wire)
    assert (found.missing, found.changed, touched) == (1, 1, 2)
    changed = next(row for row in found.named if row.kind == "changed")
    assert changed.source["i"] == "10.0.0.1/8"
    assert changed.source["at"] == "infinity"
    assert (changed.source["n"], changed.target["n"]) == ("NaN", "1.50")
    assert (changed.source["b"], changed.target["b"]) == ("(3,4),(1,2)", "(3,5),(1,2)")
    query = "SELECT id, b::text, i::text, r::text, n::text, a::text, z::text, at::text FROM t ORDER BY id"
    assert rows(target, query) == rows(source, query)
