"""MySQL as a target, beyond the contract of all adapters: tables made, emptied, swapped, repaired; privileges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

import mysql_servers
import rowferry
from adapters import contract
from rowferry.adapters.mysql import privileges
from rowferry.adapters.protocol import Target
from rowferry.errors import ConfigError, DataError, RefusedError, TargetError
from rowferry.model import Column, ColumnPlan, Comparison, Refusal, Table, TableName
from rowferry.types import Field, Type

pytestmark = pytest.mark.server

T = TableName(None, "t")


def table_of(target: Target, columns: dict[str, Type], key: tuple[str, ...] = (), **options: Any) -> Table:
    """A table as the planner would have it made; ``options``: of each column, by its name."""
    made = []
    for name, kind in columns.items():
        planned = target.plan_column(Column(name, kind, forms=(kind,), **options.get(name, {})), kind)
        assert not isinstance(planned, Refusal), planned
        made.append(planned)
    return Table(T, tuple(made), primary_key=key)


def described(target: Target, name: TableName = T) -> Table:
    table = target.describe(name)
    assert table is not None
    return table


# --- tables made


def test_table_is_made_with_its_key_and_again_without_harm(target: Target, sql: Any) -> None:
    table = table_of(
        target,
        {
            "id": Type("int64"),
            "name": Type("text"),
            "at": Type("timestamptz", unit="us"),
            "bits": Type("bit", length=3),
        },
        ("id",),
        id={"nullable": False, "identity": "by default"},
        name={"default": "'x'"},
    )
    target.create_table(table, T, "postgres")
    target.create_table(table, T, "postgres")
    target.add_keys(table, T)
    found = described(target)
    assert found.primary_key == ("id",) and found.column("id").identity == "auto"
    assert [c.type for c in found.columns] == [c.type for c in table.columns]
    assert sql("SELECT engine, table_collation FROM information_schema.tables WHERE table_name = 't' "
               "AND table_schema = DATABASE()") == [("InnoDB", "utf8mb4_nopad_bin")]  # fmt: skip
    sql("INSERT INTO t (id) VALUES (DEFAULT)")
    assert sql("SELECT name FROM t") == [("x",)]


def test_table_of_another_shape_that_stands_in_the_way_is_refused(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int, v text)")
    with pytest.raises(TargetError, match="stands in the way"):
        target.create_table(table_of(target, {"id": Type("int64"), "v": Type("text")}), T, "postgres")


def test_default_that_means_nothing_to_mysql_is_left_out(target: Target, sql: Any) -> None:
    table = table_of(target, {"a": Type("int32"), "b": Type("date")}, a={"default": "'many'"}, b={"default": "'soon'"})
    target.create_table(table, T, "postgres")
    assert [c.default for c in described(target).columns] == [None, None]


def test_text_key_keeps_apart_what_differs_in_case_accents_and_spaces(target: Target, sql: Any) -> None:
    table = table_of(target, {"k": Type("text")}, ("k",), k={"nullable": False})
    target.create_table(table, T, "postgres")
    sql("INSERT INTO t VALUES ('a'), ('A'), ('á'), ('a '), ('')")
    assert sql("SELECT count(*) FROM t") == [(5,)]


def test_key_that_fits_no_index_is_refused(target: Target) -> None:
    long = Type("text", length=800)
    table = table_of(target, {"a": long, "b": long}, ("a", "b"), a={"nullable": False}, b={"nullable": False})
    with pytest.raises(RefusedError, match="3072 bytes"):
        target.create_table(table, T, "postgres")


def test_timestamp_that_is_kept_changes_with_nothing(target: Target, sql: Any, mysql_server: Any) -> None:
    column = Column("at", Type("timestamptz", precision=0, unit="us"), False, "timestamp",
                    (Type("timestamptz", precision=0, unit="us"),))  # fmt: skip
    planned = target.plan_column(column, column.type)
    assert isinstance(planned, Column) and planned.native == "timestamp"
    with (
        mysql_server.globals(explicit_defaults_for_timestamp="0"),
        contract.target_at(mysql_server.url_of(sql("SELECT DATABASE()")[0][0])) as other,
    ):
        other.create_table(Table(T, (planned, Column("n", Type("int32"), native="int"))), T, "mysql")
    assert "CURRENT_TIMESTAMP" not in sql("SHOW CREATE TABLE t")[0][1].upper()


# --- emptied, replaced


def test_truncate_of_a_parent_waits_until_its_children_have_no_rows(target: Any, sql: Any) -> None:
    sql("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, up int, FOREIGN KEY (up) REFERENCES t (id))")
    sql("CREATE TABLE c (id int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE)")
    sql("INSERT INTO t VALUES (1, NULL), (2, 1)", "INSERT INTO c VALUES (1, 1)")
    child = TableName(None, "c")
    assert target.obstacles(described(target), "truncate", []) != []
    assert target.obstacles(described(target), "truncate", [child]) == []
    with pytest.raises(TargetError, match="foreign key"):
        target.truncate(T)
    assert sql("SELECT count(*) FROM c") == [(1,)]
    target.truncate(child)
    target.truncate(T)
    target.truncate(T)
    assert target.is_empty(T)


def test_swap_goes_on_from_wherever_it_stopped(target: Any, sql: Any) -> None:
    loaded = TableName(None, "rowferry_new_deadbeef_0")
    sql("CREATE TABLE p (id int PRIMARY KEY)", "INSERT INTO p VALUES (1)")

    def prepare() -> Table:
        sql("DROP TABLE IF EXISTS t, rowferry_new_deadbeef_0, rowferry_stage_deadbeef_0")
        sql(
            "CREATE TABLE t (new int, more varchar(20), KEY more_first (more(3), new), UNIQUE KEY one (new), "
            "CONSTRAINT up FOREIGN KEY (new) REFERENCES p (id) ON DELETE CASCADE, CONSTRAINT few CHECK (new < 10)) "
            "COMMENT='it''s kept'"
        )
        made = table_of(target, {"new": Type("int32"), "more": Type("interval")})
        target.create_table(made, loaded, "postgres")
        sql("INSERT INTO rowferry_new_deadbeef_0 VALUES (1, 'P1M')")
        found = target.attachments(made, {})
        assert [(a.kind, a.name, a.problem) for a in found] == [
            ("index", "one", None), ("index", "more_first", None), ("check constraint", "few", None),
            ("foreign key", "up", None), ("comment on", "t", None),
        ]  # fmt: skip
        return msgspec.structs.replace(made, attachments=tuple(found))

    def go(table: Table) -> None:
        target.attach(table, loaded, {T: loaded}, False)
        target.swap(loaded, T, table.attachments)

    # Each statement in turn is the last one before a crash.
    for statements in range(1, 40):
        table = prepare()
        control, ran = target._definer._control, list[str]()
        original = control.execute

        def execute(text: str, params: Any = (), ran: Any = ran, original: Any = original, n: int = statements) -> Any:
            if len(ran) == n:
                raise TargetError("died here")
            ran.append(text)
            return original(text, params)

        control.execute = execute
        try:
            go(table)
        except TargetError as error:
            assert "died here" in str(error)
        finally:
            control.execute = original
        if sql("SHOW TABLES LIKE 'rowferry\\_new%'"):
            target.attach(table, loaded, {T: loaded}, False)
        target.swap(loaded, T, table.attachments)
        target.set_sequences(table)
        assert [row[0] for row in sql("SHOW TABLES")] == ["p", "rowferry_columns", "t"]
        assert described(target).column("more").type == Type("interval")
        shown = sql("SHOW CREATE TABLE t")[0][1]
        assert "COMMENT='it''s kept'" in shown and "rowferry" not in shown, shown
        for part in ("UNIQUE KEY `one` (`new`)", "KEY `more_first` (`more`(3),`new`)", "CONSTRAINT `few` CHECK",
                     "CONSTRAINT `up` FOREIGN KEY (`new`) REFERENCES `p` (`id`) ON DELETE CASCADE"):  # fmt: skip
            assert part in shown, shown
        assert sql("SELECT new FROM t") == [(1,)]
        if len(ran) < statements:
            return
    raise AssertionError("no end of statements")


def test_replace_keeps_indexes_and_foreign_keys_of_tables_that_go_together(
    sql: Any, url: str, postgres_database: Callable[[], str]
) -> None:
    import psycopg

    source = postgres_database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute("create table parent (id int primary key, v text)")
        c.execute("create table child (id int primary key, p int, up int)")
        c.execute("insert into parent select g, 'x' from generate_series(1, 50) g")
        c.execute("insert into child select g, g, 1 from generate_series(1, 50) g")
    sql("CREATE TABLE parent (id int PRIMARY KEY, v varchar(10), KEY v (v))")
    sql(
        "CREATE TABLE child (id int PRIMARY KEY, p int, up int, "
        "CONSTRAINT to_p FOREIGN KEY (p) REFERENCES parent (id), "
        "CONSTRAINT to_self FOREIGN KEY (up) REFERENCES child (id))",
        "INSERT INTO parent VALUES (7, 'old')",
    )
    report = rowferry.copy(source, url, mode="replace", verify=True)
    assert report.exit_code == 0
    child, parent = (sql(f"SHOW CREATE TABLE {t}")[0][1] for t in ("child", "parent"))
    assert "CONSTRAINT `to_p` FOREIGN KEY (`p`) REFERENCES `parent` (`id`)" in child, child
    assert "CONSTRAINT `to_self` FOREIGN KEY (`up`) REFERENCES `child` (`id`)" in child, child
    assert "KEY `v` (`v`" in parent and "rowferry" not in parent + child
    with pytest.raises(Exception, match="foreign key"):
        sql("DELETE FROM parent WHERE id = 3")


def test_replace_of_a_table_with_what_would_be_lost_is_refused(target: Any, sql: Any) -> None:
    sql(
        "CREATE TABLE t (a int, gone int, KEY of_gone (gone), KEY of_both (a, gone))",
        "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
    )
    made = table_of(target, {"a": Type("int32")})
    found = {(a.kind, a.name): (a.problem, a.minor) for a in target.attachments(made, {})}
    assert found["index", "of_gone"] == ("it goes with gone", True)
    assert "it is of gone" in (found["index", "of_both"][0] or "") and not found["index", "of_both"][1]
    assert found["trigger", "x"][0] and not found["trigger", "x"][1]
    sql("DROP TABLE t", "CREATE TABLE t (a int) PARTITION BY HASH (a) PARTITIONS 2")
    assert [a.kind for a in target.attachments(made, {})] == ["partitioning"]
    sql("DROP TABLE t", "CREATE TABLE t (a int, KEY later (a))")
    target.create_table(made, TableName(None, "rowferry_new_deadbeef_0"), "postgres")
    with pytest.raises(TargetError, match="made or changed on it since the job began"):
        target.swap(TableName(None, "rowferry_new_deadbeef_0"), T, ())
    assert sql("SHOW TABLES LIKE 't'") == [("t",)]


def test_trial_tells_what_cannot_be_made_and_leaves_nothing(target: Any, sql: Any) -> None:
    sql("CREATE TABLE t (a varchar(10), FULLTEXT KEY words (a))")
    made = table_of(target, {"a": Type("int32")})
    loaded = TableName(None, "rowferry_new_deadbeef_0")
    target.create_table(made, loaded, "postgres")
    table = msgspec.structs.replace(made, attachments=tuple(target.attachments(made, {})))
    with pytest.raises(RefusedError, match="index 'words' cannot be made"):
        target.attach(table, loaded, {}, True)
    assert {row[0] for row in sql("SHOW TABLES")} == {"t", loaded.name}


def test_swap_without_a_loaded_table_is_refused(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int)")
    with pytest.raises(TargetError, match="loaded table is not there"):
        target.swap(TableName(None, "rowferry_new_deadbeef_0"), T)


def test_swap_of_a_table_that_others_refer_to_is_refused(target: Any, sql: Any) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE c (t int, FOREIGN KEY (t) REFERENCES t (id))")
    sql("CREATE TABLE rowferry_new_deadbeef_0 (id int PRIMARY KEY)")
    assert target.obstacles(described(target), "replace", []) != []
    with pytest.raises(TargetError, match="foreign keys point to it"):
        target.swap(TableName(None, "rowferry_new_deadbeef_0"), T)


def test_auto_increment_goes_on_above_the_largest_value(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, v int)", "INSERT INTO t VALUES (1000, 1)")
    target.set_sequences(described(target))
    sql("INSERT INTO t (v) VALUES (2)")
    assert sql("SELECT max(id) FROM t") == [(1001,)]


def test_triggers_cannot_be_disabled_and_the_plan_says_so(sql: Any, url: str) -> None:
    sql("CREATE TABLE t (a int)", "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1")
    with contract.target_at(url, triggers="disable") as target:
        table = described(target)
        assert any("cannot disable" in problem for problem in target.missing_privileges([table], []))
        with pytest.raises(RefusedError, match="cannot disable"):
            target.disable_triggers(table, True)


def test_target_without_a_database_is_refused(mysql_server: mysql_servers.Mariadb) -> None:
    with pytest.raises(ConfigError, match="names no database"), contract.target_at(mysql_server.url_of("")):
        pass


# --- nested values and intervals, as text and back


def test_nested_values_and_intervals_arrive_and_compare_equal(
    sql: Any, url: str, postgres_database: Callable[[], str]
) -> None:
    import psycopg

    source = postgres_database()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute(
            "create table t (id int primary key, i interval, n int[], x text[], d numeric(30,10)[], z timestamptz[])"
        )
        c.execute(
            "insert into t values (1, '1 year 2 mons -3 days 04:05:06.789', '{1,NULL,3}', "
            '\'{"a,b","",NULL,"\\\\\\""}\', '
            "'{1.5,-99999999999999999999.0000000001}', '{\"2020-01-01 00:00:00.123456+02\",infinity}'), "
            "(2, '00:00:00', '{}', '{}', '{}', '{}'), (3, NULL, NULL, NULL, NULL, NULL), "
            "(4, '-1 mon', '{1}', '{é𝄞}', '{0}', '{-infinity}'), (5, '-00:00:00.000001', NULL, NULL, NULL, NULL)"
        )
    report = rowferry.copy(source, url, verify=True)
    assert report.exit_code == 0 and report.tables[0].rows_committed == 5
    assert sql("SELECT i, n, x FROM t WHERE id = 1") == [
        ("P14M-3DT14706.789S", "[1,null,3]", '["a,b","",null,"\\\\\\""]')
    ]


# --- repair


def plan_of(table: Table) -> tuple[ColumnPlan, ...]:
    return tuple(ColumnPlan(c.name, c.type, c.name, c, Comparison(c.type, c.type, "")) for c in table.columns)


def test_repair_deletes_and_inserts_in_one_transaction(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (k varchar(10) COLLATE utf8mb4_nopad_bin, n int, v text, PRIMARY KEY (k, n))")
    sql("INSERT INTO t VALUES ('a', 1, 'wrong'), ('b', 1, 'extra'), ('A', 1, 'stays')")
    table = described(target)
    keys = pa.RecordBatch.from_pydict({"k": ["a", "b"], "n": [1, 1]}, pa.schema([("k", pa.utf8()), ("n", pa.int32())]))
    schema = pa.schema([("k", pa.utf8()), ("n", pa.int32()), ("v", pa.utf8())])
    rows = pa.RecordBatch.from_pydict({"k": ["a", "c"], "n": [1, 2], "v": ["right", "new"]}, schema)
    assert target.repair(table, plan_of(table), ("k", "n"), keys, [rows]) == 2
    assert sql("SELECT * FROM t ORDER BY k, n") == [("A", 1, "stays"), ("a", 1, "right"), ("c", 2, "new")]
    with pytest.raises(DataError):
        target.repair(table, plan_of(table), ("k", "n"), keys, [rows, rows])
    assert sql("SELECT count(*) FROM t") == [(3,)]


def test_repair_deletes_no_row_that_a_collation_takes_for_another(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (k varchar(9) COLLATE utf8mb4_general_ci)", "INSERT INTO t VALUES ('a'), ('A'), ('a '), ('á')")
    table = target.describe(T)
    assert table is not None
    keys = pa.record_batch([pa.array(["A"])], names=["k"])
    target.repair(table, plan_of(table), ("k",), keys, [])
    assert sql("SELECT HEX(k) FROM t ORDER BY HEX(k)") == [("61",), ("6120",), ("C3A1",)]


def test_repair_of_a_row_that_others_refer_to_changes_it_in_its_place(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'wrong'), (2, 'extra')")
    sql("CREATE TABLE c (t int, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE)", "INSERT INTO c VALUES (1)")
    table = described(target)
    keys = pa.RecordBatch.from_pydict({"id": [1, 2]}, pa.schema([("id", pa.int32())]))
    rows = pa.RecordBatch.from_pydict({"id": [1], "v": ["right"]}, pa.schema([("id", pa.int32()), ("v", pa.utf8())]))
    assert target.repair(table, plan_of(table), ("id",), keys, [rows]) == 1
    assert sql("SELECT * FROM t") == [(1, "right")] and sql("SELECT count(*) FROM c") == [(1,)]


# --- privileges


@pytest.mark.parametrize(
    ("grants", "privilege", "database", "table", "expected"),
    [
        (["GRANT ALL PRIVILEGES ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*X'"], "CREATE", "d", "t", True),
        (["GRANT USAGE ON *.* TO `u`@`%`"], "INSERT", "d", "t", False),
        (["GRANT SELECT, INSERT ON `d`.* TO `u`@`%`"], "INSERT", "d", "t", True),
        (["GRANT SELECT, INSERT ON `d`.* TO `u`@`%`"], "INSERT", "e", "t", False),
        (["GRANT SELECT, INSERT ON `d\\_x`.* TO `u`@`%`"], "INSERT", "d_x", "t", True),
        (["GRANT SELECT, INSERT ON `d\\_x`.* TO `u`@`%`"], "INSERT", "dax", "t", False),
        (["GRANT INSERT ON `d%`.* TO `u`@`%`"], "INSERT", "data", "t", True),
        (["GRANT INSERT ON `d`.`t` TO `u`@`%`"], "INSERT", "d", "t", True),
        (["GRANT INSERT ON `d`.`t` TO `u`@`%`"], "INSERT", "d", "s", False),
        (["GRANT SELECT (a, b), INSERT (a) ON `d`.`t` TO `u`@`%`"], "INSERT", "d", "t", False),
        (["GRANT `admin` TO `u`@`%`", "GRANT INSERT ON `d`.* TO `admin`"], "INSERT", "d", "t", True),
        (["GRANT INSERT ON *.* TO `u`@`%`", "REVOKE INSERT ON `d`.* FROM `u`@`%`"], "INSERT", "d", "t", False),
        (["GRANT INSERT ON `a``b`.`c``d` TO `u`@`%`"], "INSERT", "a`b", "c`d", True),
    ],
)  # fmt: skip
def test_grants_are_understood(grants: list[str], privilege: str, database: str, table: str, expected: bool) -> None:
    assert privileges.allows(privileges.parse_grants(grants), privilege, database, table) is expected


def test_user_who_may_not_write_is_told_before_anything_is_written(
    sql: Any, url: str, mysql_server: mysql_servers.Mariadb
) -> None:
    database = url.rpartition("/")[2]
    sql("CREATE TABLE t (a int)")
    mysql_server.execute(
        "CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'pw'", f"GRANT SELECT ON `{database}`.* TO reader@'%'"
    )
    try:
        with contract.target_at(mysql_server.url_of(database, "reader", "pw")) as target:
            problems = target.missing_privileges([described(target)], [TableName(None, "new")])
        assert any("may not INSERT table t" in p for p in problems)
        assert any("may not CREATE tables in database" in p for p in problems)
        mysql_server.execute(
            f"GRANT CREATE, DROP, SELECT, INSERT, UPDATE, DELETE, ALTER ON `{database}`.* TO reader@'%'"
        )
        with contract.target_at(mysql_server.url_of(database, "reader", "pw")) as target:
            assert target.missing_privileges([described(target)], [TableName(None, "new")]) == []
    finally:
        mysql_server.execute("DROP USER reader@'%'")


def test_privilege_of_a_role_counts(sql: Any, url: str, mysql_server: mysql_servers.Mariadb) -> None:
    database = url.rpartition("/")[2]
    mysql_server.execute(
        "CREATE OR REPLACE ROLE writers", f"GRANT ALL ON `{database}`.* TO writers",
        "CREATE OR REPLACE USER member@'%' IDENTIFIED BY 'pw'", "GRANT writers TO member@'%'",
        "SET DEFAULT ROLE writers FOR member@'%'",
    )  # fmt: skip
    try:
        with contract.target_at(mysql_server.url_of(database, "member", "pw")) as target:
            assert target.missing_privileges([], [TableName(None, "new")]) == []
    finally:
        mysql_server.execute("DROP USER member@'%'", "DROP ROLE writers")


def test_struct_and_map_stand_as_json_and_come_back(target: Target) -> None:
    struct = Type("struct", fields=(Field("a", Type("int32")), Field("b", Type("text"))))
    table = table_of(target, {"s": struct})
    target.create_table(table, T, "duckdb")
    assert described(target).column("s").type == struct


def test_writer_that_is_closed_gives_its_chunk_back(target: Target) -> None:
    target.ledger.open(create=True)
    target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
        writer.rollback()


def test_source_and_target_that_are_one_place_by_two_names_are_refused(
    sql: Any, url: str, mysql_server: mysql_servers.Mariadb
) -> None:
    sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with pytest.raises(ConfigError, match="same place"):
        rowferry.copy(url, f"{url.partition('@')[0]}@localhost/{url.rpartition('/')[2]}?socket={mysql_server.socket}",
                      mode="truncate")  # fmt: skip
    everything = mysql_server.url_of("")
    with pytest.raises(ConfigError, match="same place"):
        rowferry.copy(everything, url, mode="truncate")
    assert sql("SELECT a FROM t") == [(1,)]
