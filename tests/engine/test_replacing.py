"""Mode replace: what the old table has beside its columns goes over, or the plan refuses it by name."""

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
from rowferry import DataError, RefusedError, TargetError

SOURCE = (
    "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT)",
    "CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer INTEGER, total INTEGER, up INTEGER)",
    "INSERT INTO customer VALUES (1, 'a', 'a@x'), (2, 'b', 'b@x'), (3, 'c', NULL)",
    "INSERT INTO invoice VALUES (10, 1, 5, NULL), (11, 2, 7, 10), (12, 2, 9, 11)",
)


class Server:
    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    with contextlib.closing(sqlite3.connect(tmp_path / "source.db")) as c:
        for statement in SOURCE:
            c.execute(statement)
        c.commit()
    return f"sqlite:///{tmp_path}/source.db"


@pytest.fixture
def postgres(postgres_database: Callable[[], str]) -> Server:
    return Server(postgres_database())


OLD = """
CREATE TABLE customer (id int CONSTRAINT pk_customer PRIMARY KEY, name text NOT NULL DEFAULT 'x', email text,
                       CONSTRAINT one_email UNIQUE (email) DEFERRABLE, CHECK (length(name) < 10));
CREATE TABLE invoice (id int PRIMARY KEY, customer int, total int, up int,
  CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customer ON DELETE CASCADE,
  CONSTRAINT of_invoice FOREIGN KEY (up) REFERENCES invoice DEFERRABLE INITIALLY DEFERRED,
  EXCLUDE USING btree (id WITH =) WHERE (total > 100));
CREATE UNIQUE INDEX by_name ON customer (lower(name) DESC NULLS LAST) INCLUDE (email) WHERE id > 0;
CREATE INDEX "by ""total" ON invoice USING hash (total) WITH (fillfactor = 50);
CREATE TABLE log (t text);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.log VALUES (TG_NAME); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF total ON invoice FOR EACH ROW WHEN (NEW.total > 0)
  EXECUTE FUNCTION noted();
CREATE TRIGGER off AFTER INSERT ON invoice FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE invoice DISABLE TRIGGER off;
CREATE RULE quiet AS ON DELETE TO customer WHERE old.id = 1 DO INSTEAD NOTHING;
CREATE POLICY mine ON invoice AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (total > 0) WITH CHECK (total > 1);
ALTER TABLE invoice ENABLE ROW LEVEL SECURITY;
CREATE STATISTICS both_of ON customer, total FROM invoice;
ALTER TABLE invoice SET (autovacuum_vacuum_scale_factor = 0.5, toast_tuple_target = 200);
ALTER TABLE invoice REPLICA IDENTITY FULL;
COMMENT ON TABLE invoice IS 'all''s well'; COMMENT ON COLUMN invoice.total IS 'in cents';
COMMENT ON INDEX by_name IS 'names'; COMMENT ON CONSTRAINT of_customer ON invoice IS 'whose';
GRANT SELECT ON customer TO PUBLIC; GRANT UPDATE (email) ON customer TO PUBLIC;
CREATE PUBLICATION told FOR TABLE invoice;
"""
#: All that pg_catalog says of the two tables beside columns, in the server's own words.
STANDING = """
SELECT 'i', indexdef FROM pg_indexes WHERE tablename IN ('customer', 'invoice')
UNION ALL SELECT 'c', conrelid::regclass || conname || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
  WHERE conrelid IN ('customer'::regclass, 'invoice'::regclass)
UNION ALL SELECT 't', pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'r', definition FROM pg_rules WHERE schemaname = 'public'
UNION ALL SELECT 'p', p::text FROM pg_policies p
UNION ALL SELECT 's', pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
UNION ALL SELECT 'o', relname || relrowsecurity || relforcerowsecurity || relreplident::text || array(
  SELECT unnest(reloptions) ORDER BY 1)::text || coalesce(relacl::text, '') FROM pg_class
  WHERE relname IN ('customer', 'invoice')
UNION ALL SELECT 'd', objsubid || description FROM pg_description WHERE objoid >= 16384
UNION ALL SELECT 'a', attname || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384
UNION ALL SELECT 'u', tablename FROM pg_publication_tables
ORDER BY 1, 2
"""


@pytest.mark.server
def test_replace_in_postgres_keeps_all_that_the_tables_have(source: str, postgres: Server) -> None:
    postgres.run(OLD)
    postgres.run("INSERT INTO customer VALUES (9, 'old')", "INSERT INTO invoice VALUES (90, 9)")
    before = postgres.run(STANDING)
    assert len(before) > 25
    plan = rowferry.plan(source, postgres.url, mode="replace")
    assert not plan.blockers
    notes = "\n".join(plan.notes)
    for named in (
        "index 'by_name'", "index 'by \"total'", "unique constraint 'one_email'",
        "check constraint 'customer_name_check'",
        "foreign key 'of_customer'", "foreign key 'of_invoice'", "exclusion constraint 'invoice_id_excl'",
        "trigger 'note'", "trigger 'off'", "rule 'quiet'", "policy 'mine'", "statistics 'both_of'",
        "right of 'PUBLIC'", "comment on 'total'", "place in publication 'told'",
    ):  # fmt: skip
        assert named in notes, notes
    assert "loses the default of 'name'" in notes
    report = rowferry.copy(source, postgres.url, mode="replace", verify=True)
    assert set(plan.notes) <= set(report.notes)
    assert postgres.run(STANDING) == before
    assert postgres.run("SELECT id FROM invoice ORDER BY 1") == [(10,), (11,), (12,)]
    assert postgres.run("SELECT count(*) FROM log") == [(0,)], "triggers fire for none of the rows that are copied"
    assert "rowferry" not in str(
        postgres.run("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    )
    # And once more: what was made by the first copy is as good as what the user made.
    rowferry.copy(source, postgres.url, mode="replace", verify=True)
    assert postgres.run(STANDING) == before


@pytest.mark.server
def test_replace_in_postgres_gives_the_table_to_its_owner(source: str, postgres: Server) -> None:
    role = f"owner_{postgres.url.rpartition('/')[2]}"
    postgres.run(f"CREATE ROLE {role}", OLD, f"GRANT ALL ON SCHEMA public TO {role}")
    try:
        postgres.run(f"ALTER TABLE invoice OWNER TO {role}", "INSERT INTO customer VALUES (1, 'a'), (2, 'b')")
        rowferry.copy(source, postgres.url, mode="replace", tables=["invoice"])
        assert postgres.run("SELECT tableowner FROM pg_tables WHERE tablename = 'invoice'") == [(role,)]
    finally:
        postgres.run(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.mark.server
@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (("CREATE TABLE customer (id int, gone int)", "CREATE INDEX half ON customer (id, gone)"),
         "replacing it would lose its index 'half': it is of gone"),
        (("CREATE TABLE customer (id int, gone int, CHECK (id < gone))",),
         "replacing it would lose its check constraint 'customer_check': it is of gone"),
        (("CREATE TABLE customer (id int, name text) PARTITION BY RANGE (id)",),
         "replacing it would lose its partitioning 'customer'"),
        (("CREATE TABLE base (id int)", "CREATE TABLE customer (name text) INHERITS (base)"),
         "replacing it would lose its inheritance 'customer'"),
        (("CREATE TABLE customer (id int PRIMARY KEY, k int UNIQUE)",
          "CREATE TABLE invoice (id int, customer int REFERENCES customer (k))"),
         "replacing it would lose its foreign key 'invoice_customer_fkey': it points to (k) of 'customer'"),
    ],
)  # fmt: skip
def test_replace_in_postgres_of_what_cannot_go_over_is_refused_by_the_plan(
    source: str, postgres: Server, statements: tuple[str, ...], named: str
) -> None:
    postgres.run(*statements)
    plan = rowferry.plan(source, postgres.url, mode="replace")
    assert plan.exit_code == 2
    assert any(named in b for b in plan.blockers), plan.blockers
    with pytest.raises(RefusedError):
        rowferry.copy(source, postgres.url, mode="replace")
    assert rowferry.jobs(postgres.url) == []


@pytest.mark.server
def test_replace_in_postgres_of_an_index_whose_columns_all_go_says_so(source: str, postgres: Server) -> None:
    postgres.run("CREATE TABLE customer (id int PRIMARY KEY, gone int)", "CREATE INDEX by_gone ON customer (gone)")
    report = rowferry.copy(source, postgres.url, mode="replace", tables=["customer"])
    assert any("loses its index 'by_gone': it goes with gone" in n for n in report.notes)
    assert any("loses column 'gone'" in n for n in report.notes)


@pytest.mark.server
def test_replace_in_postgres_of_an_index_that_the_new_columns_do_not_allow_is_refused_before_rows_move(
    source: str, postgres: Server
) -> None:
    postgres.run("CREATE TABLE customer (id int, name tsvector)", "CREATE INDEX words ON customer USING gin (name)")
    with pytest.raises(RefusedError, match="its index 'words' cannot be made on the table that takes its place"):
        rowferry.copy(source, postgres.url, mode="replace", tables=["customer"])
    assert postgres.run("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attname = 'name' AND attrelid = "
                        "'customer'::regclass") == [("tsvector",)]  # fmt: skip


@pytest.mark.server
@pytest.mark.parametrize(
    "constraint", ["UNIQUE (total)", "CHECK (total < 9)", "FOREIGN KEY (customer) REFERENCES customer (id)"]
)
def test_replace_in_postgres_by_rows_that_break_a_constraint_leaves_the_old_table(
    source: str, postgres: Server, constraint: str, tmp_path: pathlib.Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "source.db")) as c:
        c.execute("INSERT INTO invoice VALUES (13, 77, 9, NULL)")
        c.commit()
    postgres.run("CREATE TABLE customer (id int PRIMARY KEY)", "INSERT INTO customer SELECT generate_series(1, 5)")
    postgres.run(f"CREATE TABLE invoice (id int, customer int, total int, CONSTRAINT kept {constraint})")
    postgres.run("INSERT INTO invoice VALUES (1, 1, 1)")
    with pytest.raises((DataError, TargetError), match="'kept' cannot be made on the table that takes its place"):
        rowferry.copy(source, postgres.url, mode="replace", tables=["invoice"])
    assert postgres.run("SELECT id FROM invoice") == [(1,)]
    assert postgres.run("SELECT conname FROM pg_constraint WHERE conrelid = 'invoice'::regclass") == [("kept",)]


@pytest.mark.server
def test_replace_in_postgres_of_a_table_that_got_an_index_meanwhile_stops_before_the_swap(
    source: str, postgres: Server
) -> None:
    postgres.run("CREATE TABLE customer (id int PRIMARY KEY, name text)", "INSERT INTO customer VALUES (9, 'old')")

    def on_event(event: Any) -> None:
        if type(event).__name__ == "StepFinished" and event.kind == "keys":
            postgres.run("CREATE INDEX later ON customer (name)")

    with pytest.raises(TargetError, match=r"made or changed on it since the job began.*index 'later'"):
        rowferry.copy(source, postgres.url, mode="replace", tables=["customer"], on_event=on_event)
    assert postgres.run("SELECT id FROM customer") == [(9,)]
    postgres.run("DROP INDEX later")
    rowferry.copy(source, postgres.url, mode="replace", tables=["customer"])
    assert postgres.run("SELECT count(*) FROM customer") == [(3,)]


# --- SQLite ---------------------------------------------------------------------------------------


def sqlite_run(path: pathlib.Path, *statements: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as c:
        for statement in statements:
            rows = c.execute(statement).fetchall()
        c.commit()
    return rows


def test_replace_in_sqlite_keeps_constraints_indexes_and_triggers(source: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "target.db"
    sqlite_run(
        path,
        "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE COLLATE NOCASE)",
        "CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer ON DELETE CASCADE, total, "
        "up INTEGER REFERENCES invoice (id), UNIQUE (customer, total))",
        "CREATE INDEX by_total ON invoice (total DESC) WHERE total > 0",
        "CREATE TABLE log (t)",
        "CREATE TRIGGER note AFTER INSERT ON invoice BEGIN INSERT INTO log VALUES (new.id); END",
    )
    plan = rowferry.plan(source, f"sqlite:///{path}", mode="replace")
    assert not plan.blockers
    for named in ("unique constraint 'email'", "unique constraint 'customer, total'",
                  "foreign key '(customer) to",
                  "foreign key '(up) to invoice'", "index 'by_total'", "trigger 'note'",
                  "property 'COLLATE'"):  # fmt: skip
        assert any(named in n for n in plan.notes), plan.notes
    for _ in range(2):
        rowferry.copy(source, f"sqlite:///{path}", mode="replace", verify=True)
        keys = sqlite_run(path, 'SELECT "table", "from", "to", on_delete FROM pragma_foreign_key_list(\'invoice\')')
        assert sorted(keys, key=str) == [
            ("customer", "customer", None, "CASCADE"),
            ("invoice", "up", "id", "NO ACTION"),
        ]
        assert sqlite_run(path, "SELECT count(*) FROM pragma_index_list('invoice') WHERE origin = 'u'") == [(1,)]
        assert sqlite_run(path, "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql > ''") == [
            ("by_total",), ("note",)
        ]  # fmt: skip
        assert sqlite_run(path, "SELECT count(*) FROM log") == [(0,)]
        with pytest.raises(sqlite3.IntegrityError):  # NOCASE is kept with the constraint
            sqlite_run(path, "INSERT INTO customer VALUES (8, 'x', 'A@X')")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("CREATE TABLE customer (id INTEGER, name TEXT CHECK (name <> 'CHECK ('))", "its CHECK constraint 'customer'"),
        ("CREATE TABLE customer (id INTEGER UNIQUE ON CONFLICT REPLACE, name)", "its ON CONFLICT clause 'customer'"),
        ("CREATE TABLE customer (id INTEGER REFERENCES o DEFERRABLE INITIALLY DEFERRED, name)", "deferred constraint"),
        (
            "CREATE TABLE customer (id INTEGER, gone, UNIQUE (id, gone))",
            "its unique constraint 'id, gone': it is of gone",
        ),
    ],
)
def test_replace_in_sqlite_of_what_stands_in_the_text_alone_is_refused(
    source: str, tmp_path: pathlib.Path, table: str, named: str
) -> None:
    path = tmp_path / "target.db"
    sqlite_run(path, table)
    plan = rowferry.plan(source, f"sqlite:///{path}", mode="replace", tables=["customer"])
    assert any(named in b for b in plan.blockers), plan.blockers
    sqlite_run(
        path, "DROP TABLE customer", "CREATE TABLE customer (id, \"CHECK (\" /* CHECK ( */ DEFAULT 'ON CONFLICT')"
    )
    assert not rowferry.plan(source, f"sqlite:///{path}", mode="replace", tables=["customer"]).blockers


# --- DuckDB ---------------------------------------------------------------------------------------


def duckdb_run(path: pathlib.Path, *statements: str) -> list[Any]:
    with contextlib.closing(duckdb.connect(str(path))) as c:
        for statement in statements:
            rows = c.execute(statement).fetchall()
    return rows


STANDING_DUCKDB = """
SELECT constraint_text FROM duckdb_constraints() WHERE constraint_type <> 'NOT NULL' AND table_name !~ 'rowferry.*'
UNION ALL SELECT sql FROM duckdb_indexes() UNION ALL SELECT sql FROM duckdb_triggers()
UNION ALL SELECT comment FROM duckdb_indexes() UNION ALL SELECT comment FROM duckdb_tables() WHERE comment IS NOT NULL
UNION ALL SELECT comment FROM duckdb_columns() WHERE comment IS NOT NULL ORDER BY ALL
"""


def test_replace_in_duckdb_keeps_constraints_indexes_triggers_and_comments(source: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "target.duckdb"
    duckdb_run(
        path,
        "CREATE TABLE customer (id BIGINT PRIMARY KEY)",
        "INSERT INTO customer VALUES (1), (2)",
        "CREATE TABLE invoice (id BIGINT PRIMARY KEY, customer BIGINT REFERENCES customer (id), total BIGINT, "
        "up BIGINT, UNIQUE (total, id), CHECK (total < 1000))",
        "CREATE UNIQUE INDEX by_total ON invoice (total, (id + 1))",
        "CREATE TABLE log (t INT)",
        "CREATE TRIGGER note AFTER INSERT ON invoice FOR EACH STATEMENT INSERT INTO log VALUES (1)",
        "COMMENT ON TABLE invoice IS 'all''s well'",
        "COMMENT ON COLUMN invoice.total IS 'in cents'",
        "COMMENT ON INDEX by_total IS 'totals'",
    )
    before = duckdb_run(path, STANDING_DUCKDB)
    for _ in range(2):
        report = rowferry.copy(source, f"duckdb:///{path}", mode="replace", tables=["invoice"], verify=True)
        for named in ("unique constraint", "check constraint", "foreign key", "index 'by_total'", "trigger 'note'",
                      "comment on 'total'"):  # fmt: skip
            assert any(named in n for n in report.notes), report.notes
        assert duckdb_run(path, STANDING_DUCKDB) == before
        assert duckdb_run(path, "SELECT count(*) FROM log") == [(0,)]
        assert duckdb_run(path, "SELECT count(*) FROM invoice") == [(3,)]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE invoice (id INT PRIMARY KEY, up INT REFERENCES invoice (id))", "foreign keys do not follow"),
        ("CREATE TABLE invoice (id INT, gone INT, CHECK (id < gone))", "its check constraint"),
        (
            "CREATE TABLE invoice (id INT, gone INT); CREATE INDEX half ON invoice (gone, id)",
            "index 'half': it is of gone",
        ),
    ],
)
def test_replace_in_duckdb_of_what_cannot_go_over_is_refused_by_the_plan(
    source: str, tmp_path: pathlib.Path, statement: str, named: str
) -> None:
    path = tmp_path / "target.duckdb"
    duckdb_run(path, statement)
    plan = rowferry.plan(source, f"duckdb:///{path}", mode="replace", tables=["invoice"])
    assert any(named in b for b in plan.blockers), plan.blockers
