"""PostgreSQL as a target, beyond the contract of all adapters: what only it has."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import rowferry
import servers
from adapters import contract
from rowferry.adapters.postgres.control import lock_key
from rowferry.adapters.protocol import Block, Target, WriteRequest
from rowferry.errors import DataError, LedgerError, OutcomeUnknownError, RowferryError, TargetError
from rowferry.model import Bound, ChunkRow, Column, ColumnPlan, Comparison, Table, TableName, UserType
from rowferry.types import Type

pytestmark = pytest.mark.server

T = TableName(None, "t")


@pytest.fixture
def url(postgres_database: Callable[[], str]) -> str:
    return postgres_database()


@pytest.fixture
def sql(url: str) -> Iterator[Callable[..., Any]]:
    with psycopg.connect(url, autocommit=True) as connection:

        def run(statement: str, *params: Any) -> Any:
            cursor = connection.execute(statement.encode(), params or None)
            return cursor.fetchall() if cursor.description else None

        yield run


@pytest.fixture
def target(url: str) -> Iterator[Target]:
    with contract.target_at(url) as found:
        yield found


def plans(table: Table, names: Sequence[str] | None = None) -> tuple[ColumnPlan, ...]:
    """The way into an existing table, each column as its own type."""
    return tuple(
        ColumnPlan(c.name, c.type, c.name, c, Comparison(c.type, c.type, ""))
        for c in table.columns
        if names is None or c.name in names
    )


def described(target: Target, name: TableName = T) -> Table:
    table = target.describe(name)
    assert table is not None
    return table


def job_of(target: Target, chunks: int = 1) -> None:
    target.ledger.open(create=True)
    rows = [ChunkRow(0, n, Bound({})) for n in range(chunks)]
    target.ledger.create_job(contract.job_row(), [], rows)


def write(target: Target, table: Table, values: dict[str, list[Any]], mode: str = "append", key: Any = ()) -> int:
    """One chunk of rows, committed."""
    columns = plans(table, list(values))
    arrays = [pa.array(values[c.target], c.column.type.arrow) for c in columns]
    batch = pa.RecordBatch.from_arrays(arrays, names=[c.target for c in columns])
    target.ledger.open(create=True)
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        try:
            rows = writer.write(WriteRequest(table, table.name, columns, mode=mode, key=key), [Block(batch)])
            writer.commit()
        except RowferryError:
            writer.rollback()
            raise
        return rows


# --- values


def test_refused_value_names_column_and_row_and_leaves_the_writer_usable(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int CHECK (a > 0), b int NOT NULL)")
    table = described(target)
    for values, column in (({"a": [1, -1], "b": [1, 1]}, None), ({"a": [1], "b": [None]}, "b")):
        with pytest.raises(DataError) as caught:
            write(target, table, values)
        assert caught.value.table == "t" and not caught.value.transient
        assert column is None or caught.value.column == column
    assert sql("SELECT count(*) FROM t") == [(0,)]
    assert write(target, table, {"a": [1], "b": [2]}) == 1


def test_value_that_the_server_cannot_cast_is_a_data_error(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int, v inet)")
    with pytest.raises(DataError, match="no address"):
        write(target, described(target), {"id": [1], "v": ["no address"]})
    with pytest.raises(DataError, match="would read the text as '::1/128'"):  # it is not what would be read back
        write(target, described(target), {"id": [1], "v": ["::1"]})
    assert write(target, described(target), {"id": [1, 2], "v": ["::1/128", None]}) == 2
    assert sql("SELECT id, v::text FROM t ORDER BY id") == [(1, "::1/128"), (2, None)]


def test_deferred_constraint_fails_at_commit_as_a_data_error(target: Target, sql: Any) -> None:
    sql("CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE t (a int REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(DataError) as caught:
        write(target, described(target), {"a": [1]})
    assert caught.value.code == "23503" and sql("SELECT count(*) FROM t") == [(0,)]


def test_source_that_fails_in_mid_copy_leaves_nothing_and_the_writer_usable(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    job_of(target)

    def blocks() -> Iterator[Block]:
        yield Block(pa.RecordBatch.from_arrays([pa.array([1], pa.int32())], names=["a"]))
        raise RowferryError("the source is gone")

    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
        with pytest.raises(RowferryError, match="the source is gone"):
            writer.write(WriteRequest(table, T, plans(table)), blocks())
        writer.rollback()
        assert writer.claim(contract.JOB) is not None
        writer.rollback()
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_trigger_that_swallows_rows_is_found_by_the_count(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int, v inet)")
    sql("CREATE FUNCTION eat() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    sql("CREATE TRIGGER eat BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION eat()")
    assert described(target).triggers == ("eat",)
    for values in ({"id": [1]}, {"id": [1], "v": ["::1/128"]}):
        with pytest.raises(TargetError, match="took 0"):
            write(target, described(target), values)


def test_triggers_are_disabled_and_enabled_again(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a text); CREATE TABLE log (a text)")
    sql("CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := upper(NEW.a); RETURN NEW; END $$")
    sql("CREATE TRIGGER up BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION up()")
    sql("CREATE TRIGGER asleep BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION up()")
    sql("ALTER TABLE t DISABLE TRIGGER asleep")
    sql("CREATE RULE note AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.a)")
    table = described(target)
    assert table.triggers == ("note", "up")
    target.disable_triggers(table, True)
    assert described(target).triggers == ()
    write(target, table, {"a": ["abc"]})
    target.disable_triggers(table, False)
    assert described(target).triggers == ("note", "up"), "what was disabled before stays so"
    assert sql("SELECT a FROM t") == [("abc",)]


def test_triggers_that_always_fire_do_so_again(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a text); CREATE TABLE log (a text)")
    sql("CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := upper(NEW.a); RETURN NEW; END $$")
    for name, state in (("usual", "ENABLE"), ("always", "ENABLE ALWAYS"), ("copies", "ENABLE REPLICA")):
        sql(f"CREATE TRIGGER {name} BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION up()")
        sql(f"ALTER TABLE t {state} TRIGGER {name}")
    sql("CREATE RULE note AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.a)")
    sql("ALTER TABLE t ENABLE ALWAYS RULE note")
    states = "SELECT tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal UNION ALL "
    states += "SELECT rulename::text, ev_enabled::text FROM pg_rewrite WHERE rulename = 'note' ORDER BY 1"
    before = sql(states)
    assert before == [("always", "A"), ("copies", "R"), ("note", "A"), ("usual", "O")]
    table = described(target)
    target.disable_triggers(table, True)
    assert sql(states) == [("always", "D"), ("copies", "R"), ("note", "D"), ("usual", "D")]
    target.disable_triggers(table, False)
    assert sql(states) == before


# --- upsert


def test_upsert_into_identity_and_through_every_kind_of_column(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v inet, n numeric, kept text DEFAULT 'kept')")
    sql("INSERT INTO t (v, n) VALUES ('::1', 1), ('::2', 2)")
    table = described(target)
    values = {"id": [2, 3], "v": ["10.0.0.1/8", None], "n": ["2.50", "NaN"]}
    assert write(target, table, values, mode="upsert", key=("id",)) == 2
    assert sql("SELECT id, v::text, n::text, kept FROM t ORDER BY id") == [
        (1, "::1/128", "1", "kept"), (2, "10.0.0.1/8", "2.50", "kept"), (3, None, "NaN", "kept"),
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["citext", "text COLLATE loose"])
def test_upsert_writes_over_no_row_that_the_target_takes_for_another(target: Target, sql: Any, column: str) -> None:
    sql("CREATE EXTENSION IF NOT EXISTS citext")
    sql("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    sql(f"CREATE TABLE t (k {column} PRIMARY KEY, n int, v int)")
    sql("INSERT INTO t VALUES ('A', 1, 0), ('b', 2, 0)")
    with pytest.raises(DataError, match=r"the key 'a' would take the place of the row 'A'"):
        write(target, described(target), {"k": ["a", "b"], "n": [3, 4], "v": [1, 1]}, mode="upsert", key=("k",))
    assert sql("SELECT k::text, n FROM t ORDER BY n") == [("A", 1), ("b", 2)]
    assert write(target, described(target), {"k": ["A", "c"], "n": [5, 6], "v": [1, 1]}, "upsert", ("k",)) == 2
    assert sql("SELECT k::text, n FROM t ORDER BY n") == [("b", 2), ("A", 5), ("c", 6)]


def test_upsert_of_a_key_alone(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int, b int, PRIMARY KEY (a, b)); INSERT INTO t VALUES (1, 1)")
    assert write(target, described(target), {"a": [1, 2], "b": [1, 2]}, mode="upsert", key=("a", "b")) == 2
    assert sql("SELECT * FROM t ORDER BY a") == [(1, 1), (2, 2)]


# --- tables


def test_table_is_made_with_types_defaults_identity_and_schema(target: Target, sql: Any) -> None:
    mood = Type("enum", labels=("a", "b'"), native='postgresql:"S 1".mood')
    columns = (
        Column("id", Type("int32"), False, "integer", identity="always"),
        Column("s", Type("int64"), False, "bigint", identity="serial"),
        Column("m", mood, True, '"S 1".mood', default="'a'::\"S 1\".mood"),
        Column("x", Type("text", length=5), False, "character varying(5)", default="'it''s'::character varying"),
        Column("f", Type("int32"), True, "integer", default="nextval('x')"),
    )
    types = (UserType('"S 1"."mood"', "enum", "CREATE TYPE \"S 1\".\"mood\" AS ENUM ('a', 'b''')"),)
    table = Table(TableName("S 1", "t"), columns, ("id",), user_types=types)
    target.create_table(table, table.name, "postgres")
    target.create_table(table, table.name, "postgres")
    target.add_keys(table, table.name)
    target.add_keys(table, table.name)
    made = described(target, table.name)
    assert made.primary_key == ("id",)
    assert [(c.name, c.native, c.nullable, c.identity) for c in made.columns] == [
        ("id", "integer", False, "always"), ("s", "bigint", False, "by default"), ("m", '"S 1".mood', True, None),
        ("x", "character varying(5)", False, None), ("f", "integer", True, None),
    ]  # fmt: skip
    assert [c.default for c in made.columns][2:] == ["'a'::\"S 1\".mood", "'it''s'::character varying", None]
    other = Table(table.name, (Column("y", Type("int32"), True, "integer"),))
    with pytest.raises(TargetError, match="in the way"):
        target.create_table(other, other.name, "postgres")


def test_enum_that_came_through_another_engine_is_made_from_its_labels(target: Target, sql: Any) -> None:
    form = Type("enum", labels=("x", "y"), native="postgresql:public.shade")
    column = Column("v", form, True, "VARCHAR", forms=(form, Type("text")))
    planned = target.plan_column(column, form)
    assert isinstance(planned, Column) and planned.native == "public.shade"
    target.create_table(Table(T, (planned,)), T, "duckdb")
    assert sql("SELECT enum_range(NULL::shade)::text") == [("{x,y}",)]


@pytest.mark.parametrize("name", ["integer; DROP TABLE t; --", 'x"; DROP TABLE t; --', "integer DEFAULT 1"])
def test_type_s_name_from_a_file_is_never_run_as_sql(target: Target, sql: Any, name: str) -> None:
    sql("CREATE TABLE t (a int)")
    for kind in ("opaque", "enum"):
        form = Type(kind, labels=("x",) if kind == "enum" else (), native=f"postgresql:{name}")
        planned = target.plan_column(Column("v", form, True, name, forms=(form, Type("text"))), form)
        assert not isinstance(planned, Column)
    planned = target.plan_column(Column("v", Type("int32"), True, name, forms=(Type("int32"),)), Type("int32"))
    assert isinstance(planned, Column) and planned.native == "integer"
    forged = Table(TableName(None, "u"), (Column("v", Type("int32"), True, name),))
    with pytest.raises(RowferryError):
        target.create_table(forged, forged.name, "parquet")
    assert sql("SELECT to_regclass('t') IS NOT NULL, to_regclass('u') IS NULL") == [(True, True)]


def test_truncate_of_a_parent_by_foreign_key(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES t ON DELETE CASCADE)")
    sql("INSERT INTO t VALUES (1); INSERT INTO child VALUES (1)")
    with pytest.raises(TargetError, match="child"):
        target.truncate(T)
    assert sql("SELECT count(*) FROM child") == [(1,)], "rows of another table must not go with it"
    target.truncate(TableName(None, "child"))
    target.truncate(T)
    assert target.is_empty(T)


def test_truncate_leaves_the_children_by_inheritance(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int); CREATE TABLE child () INHERITS (t)")
    sql("INSERT INTO t VALUES (1); INSERT INTO child VALUES (2)")
    target.truncate(T)
    assert target.is_empty(T) and sql("SELECT a FROM child") == [(2,)]


def test_swap_keeps_grants_and_gives_the_key_its_name(target: Target, sql: Any) -> None:
    sql("DROP ROLE IF EXISTS ferry_reader")
    sql("CREATE ROLE ferry_reader; CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO ferry_reader")
    try:
        table = Table(T, (Column("id", Type("int32"), False, "integer", identity="by default"),), ("id",))
        loaded = TableName(None, "rowferry_new_0")
        target.create_table(table, loaded, "postgres")
        target.add_keys(table, loaded)
        target.swap(loaded, T)
        assert sql("SELECT has_table_privilege('ferry_reader', 't', 'SELECT')") == [(True,)]
        assert sql("SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass") == [("t_pkey",)]
        assert sql("SELECT pg_get_serial_sequence('t', 'id')") == [("public.t_id_seq",)]
    finally:
        sql("DROP OWNED BY ferry_reader")
        sql("DROP ROLE ferry_reader")


@pytest.mark.parametrize(
    "dependent", ["CREATE VIEW v AS SELECT id FROM t", "CREATE TABLE c (id int CONSTRAINT points REFERENCES t)"]
)
def test_swap_under_a_view_or_foreign_key_is_refused_by_name(target: Target, sql: Any, dependent: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE n (id int PRIMARY KEY)")
    sql(dependent)
    with pytest.raises(TargetError, match=r"view public\.v|points"):
        target.swap(TableName(None, "n"), T)
    assert sql("SELECT id FROM t") == [(1,)]


# --- sequences


def test_sequences_stand_above_the_largest_value_and_never_go_back(target: Target, sql: Any) -> None:
    sql("CREATE SEQUENCE own; CREATE SEQUENCE down INCREMENT -1")
    sql(
        "CREATE TABLE t (i int GENERATED ALWAYS AS IDENTITY, s serial, o bigint DEFAULT nextval('own'), "
        "d int DEFAULT nextval('down'), plain int)"
    )
    table = described(target)
    target.set_sequences(table)
    assert sql("INSERT INTO t DEFAULT VALUES RETURNING i, s, o, d") == [(1, 1, 1, -1)]
    sql("INSERT INTO t (i, s, o, d) OVERRIDING SYSTEM VALUE VALUES (50, 1000, 7, -30)")
    target.set_sequences(table)
    assert sql("INSERT INTO t DEFAULT VALUES RETURNING i, s, o, d") == [(51, 1001, 8, -31)]
    sql("SELECT setval('own', 500)")
    target.set_sequences(table)
    assert sql("SELECT nextval('own')") == [(501,)]


# --- the ledger and the lock


def test_ledger_schema_is_the_user_s_choice_and_no_source_lists_it(url: str, sql: Any) -> None:
    with contract.target_at(url, ledger_schema="My ledger") as target:
        assert not target.ledger.open(create=False)
        job_of(target)
        assert target.ledger.open(create=False) and len(target.ledger.jobs()) == 1
        with contextlib.closing(target.as_source()) as source:
            assert source.list_tables() == []
    assert sql('SELECT count(*) FROM "My ledger".chunks') == [(1,)]
    assert sql("SELECT to_regnamespace('rowferry')") == [(None,)]


def test_lock_is_one_process_s_and_goes_with_its_session(url: str, target: Target, sql: Any) -> None:
    with contract.target_at(url) as other:
        assert target.ledger.lock("j") and not other.ledger.lock("j") and other.ledger.lock("k")
        target.ledger.unlock("j")
        assert other.ledger.lock("j")
    # The server ends a session in its own time.
    until = time.monotonic() + 5
    while not all(target.ledger.lock(job) for job in "jk"):
        assert time.monotonic() < until
        time.sleep(0.05)


def end_other_sessions(sql: Any) -> None:
    sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )


def test_control_connection_comes_back_with_the_lock(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int)")
    job_of(target)
    assert target.ledger.lock("j")
    end_other_sessions(sql)
    assert len(target.ledger.jobs()) == 1 and target.is_empty(T)
    assert sql("SELECT pg_try_advisory_lock(%s)", lock_key("j")) == [(False,)]


def test_lock_that_another_took_meanwhile_is_an_error(target: Target, sql: Any) -> None:
    job_of(target)
    assert target.ledger.lock("j")
    end_other_sessions(sql)
    assert sql("SELECT pg_try_advisory_lock(%s)", lock_key("j")) == [(True,)]
    with pytest.raises(LedgerError, match="another process"):
        target.ledger.jobs()


def test_writer_that_was_cut_off_between_chunks_goes_on(target: Target, sql: Any) -> None:
    job_of(target, 2)
    with contextlib.closing(target.writer()) as writer:
        assert writer.pending(contract.JOB) == 2
        end_other_sessions(sql)
        chunk = writer.claim(contract.JOB)
        assert chunk is not None and chunk.number == 0
        writer.rollback()


def test_writer_that_was_cut_off_in_mid_chunk_is_transient_and_leaves_nothing(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    job_of(target)

    def blocks() -> Iterator[Block]:
        block = Block(pa.RecordBatch.from_arrays([pa.array([1] * 100_000, pa.int32())], names=["a"]))
        yield block
        end_other_sessions(sql)
        for _ in range(20):
            yield block

    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
        with pytest.raises(TargetError) as caught:
            writer.write(WriteRequest(table, T, plans(table)), blocks())
        assert caught.value.transient
        writer.rollback()
    assert sql("SELECT count(*) FROM t") == [(0,)]
    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
        writer.rollback()


def test_lost_answer_to_commit_is_settled_by_the_ledger(url: str, sql: Any, postgres_server: servers.Postgres) -> None:
    sql("CREATE TABLE t (a int)")
    proxy = servers.Proxy(postgres_server.host, postgres_server.port)
    through = url.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"
    with contract.target_at(through) as target:
        table = described(target)
        job_of(target, 2)
        with contextlib.closing(target.writer()) as writer:
            for number in range(2):
                chunk = writer.claim(contract.JOB)
                assert chunk is not None
                batch = pa.RecordBatch.from_arrays([pa.array([number], pa.int32())], names=["a"])
                assert writer.write(WriteRequest(table, T, plans(table)), [Block(batch)]) == 1
                writer.finish(contract.JOB, chunk)
                proxy.cut_at = b"COMMIT" if number == 0 else None
                if number == 0:
                    with pytest.raises(OutcomeUnknownError):
                        writer.commit()
                    assert writer.is_done(contract.JOB, chunk)
                else:
                    writer.commit()
    proxy.close()
    assert sql("SELECT a FROM t ORDER BY a") == [(0,), (1,)]
    assert sql("SELECT state, count(*) FROM rowferry.chunks GROUP BY 1") == [("done", 2)]


def test_deadlock_is_transient(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)")
    table = described(target)
    errors: list[RowferryError] = []
    barrier = threading.Barrier(2)

    def run(order: list[int]) -> None:
        with contextlib.closing(target.writer()) as writer:
            try:
                writer.claim("none")
                for key in order:
                    arrays = [pa.array([key], pa.int32()), pa.array([1], pa.int32())]
                    batch = pa.RecordBatch.from_arrays(arrays, names=["id", "v"])
                    request = WriteRequest(table, T, plans(table), mode="upsert", key=("id",))
                    writer.write(request, [Block(batch)])
                    if key == order[0]:
                        barrier.wait(10)
                writer.commit()
            except RowferryError as error:
                errors.append(error)
                writer.rollback()

    target.ledger.open(create=True)
    threads = [threading.Thread(target=run, args=(order,)) for order in ([1, 2], [2, 1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(e.code, e.transient) for e in errors] == [("40P01", True)]


def test_privileges_that_are_missing_are_named(url: str, sql: Any, postgres_server: servers.Postgres) -> None:
    sql("CREATE TABLE t (a int, v inet); DROP ROLE IF EXISTS ferry_guest")
    sql("CREATE ROLE ferry_guest LOGIN PASSWORD 'guest'")
    sql(f'REVOKE TEMP ON DATABASE "{url.rpartition("/")[2]}" FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC')
    try:
        guest = postgres_server.url_of(url.rpartition("/")[2], "ferry_guest", "guest")
        with contract.target_at(guest) as target:
            problems = target.missing_privileges([described(target)], [TableName(None, "n"), TableName("s", "n")])
        text = "\n".join(problems)
        for word in (
            "INSERT table t",
            "SELECT table t",
            "CREATE in schema public",
            "schema s",
            "rowferry",
            "TEMPORARY",
        ):
            assert word in text, text
    finally:
        sql("DROP OWNED BY ferry_guest")
        sql("DROP ROLE ferry_guest")


def test_read_only_database_is_named(url: str, sql: Any) -> None:
    sql(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET default_transaction_read_only = on')
    with contract.target_at(url) as target:
        assert any("read-only" in p for p in target.missing_privileges([], []))


# --- whole copies


def test_raw_copy_through_a_staging_table_and_by_every_mode(
    url: str, sql: Any, postgres_database: Callable[[], str]
) -> None:
    sql("CREATE TYPE pair AS (a int, b text)")
    sql("CREATE TABLE t (id int PRIMARY KEY, p pair, n numeric, v inet[], s serial)")
    sql("INSERT INTO t SELECT g, ROW(g, 'x')::pair, g / 10.0, '{::1}' FROM generate_series(1, 5000) g")
    other = postgres_database()
    for mode in ("create", "truncate", "replace", "upsert"):
        report = rowferry.copy(url, other, mode=mode, verify=True)
        assert report.equal is True, mode
    with psycopg.connect(other) as c:
        query = b"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM t"
        assert c.execute(query).fetchall() == sql(query.decode())
        assert c.execute("SELECT nextval(pg_get_serial_sequence('t', 's'))").fetchone() == (5001,)


def test_extension_s_types_bring_their_extension_along(
    url: str, sql: Any, postgres_database: Callable[[], str]
) -> None:
    if sql("SELECT count(*) FROM pg_available_extensions WHERE name IN ('citext', 'hstore')") != [(2,)]:
        pytest.skip("the server has no contrib extensions")
    sql("CREATE EXTENSION citext; CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext")
    sql("CREATE TABLE t (id citext PRIMARY KEY, h ext.hstore, a citext[])")
    sql("INSERT INTO t SELECT 'K' || g, ext.hstore('a', g::text), '{x,NULL}' FROM generate_series(1, 3000) g")
    other = postgres_database()
    assert rowferry.copy(url, other, verify=True).equal is True
    with psycopg.connect(other) as c:
        assert c.execute("SELECT count(*) FROM t WHERE id = 'k7' AND h::text = '\"a\"=>\"7\"'").fetchone() == (1,)


def test_columns_that_need_a_conversion_do_not_lose_digits_of_others(
    url: str, sql: Any, postgres_database: Callable[[], str]
) -> None:
    """One column is converted, so the rows are not handed on as they came; the numeric beside it is whole."""
    sql("CREATE TABLE t (id int PRIMARY KEY, n numeric)")
    sql("INSERT INTO t SELECT g, g::numeric / 7 FROM generate_series(1, 100) g")
    other = postgres_database()
    with psycopg.connect(other, autocommit=True) as c:
        c.execute("CREATE TABLE t (id bigint PRIMARY KEY, n numeric)")
    assert rowferry.copy(url, other, mode="append", verify=True).equal is True
    with psycopg.connect(other) as c:
        query = b"SELECT id, trim_scale(n)::text FROM t ORDER BY id"
        assert c.execute(query).fetchall() == sql(query.decode())


def test_copy_goes_on_through_a_restart_of_the_target(postgres_database: Callable[[], str]) -> None:
    """The target is ended as by a crash while the copy runs; every row arrives once."""
    server = servers.start(("fsync=on",))
    try:
        source, target = postgres_database(), server.database("restarted")
        with psycopg.connect(source, autocommit=True) as c:
            c.execute(
                "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 4) AS pad FROM generate_series(1, 400000) g"
            )
            c.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
        failed: list[BaseException] = []

        def copy() -> None:
            try:
                rowferry.copy(source, target, workers=2)
            except BaseException as error:  # noqa: BLE001 - shown below, in the test's own thread
                failed.append(error)

        thread = threading.Thread(target=copy)
        thread.start()
        for _ in range(400):
            with contextlib.suppress(psycopg.Error), psycopg.connect(target) as c:
                row = c.execute("SELECT count(*) FROM rowferry.chunks WHERE state = 'done'").fetchone()
                if row is not None and row[0]:
                    break
            threading.Event().wait(0.02)
        server.stop(signal.SIGQUIT)
        server.start()
        thread.join(60)
        assert not failed, failed
        with psycopg.connect(target) as c:
            assert c.execute("SELECT count(*), count(DISTINCT id) FROM t").fetchone() == (400_000, 400_000)
    finally:
        server.discard()
