"""What information_schema says of tables, views, keys, defaults and what may not be seen at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rowferry import endpoint
from rowferry.adapters.mysql import catalog, connect, defaults, tags
from rowferry.adapters.mysql.declared import parse
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import LedgerError, SourceError
from rowferry.model import Column, ForeignKey, Table, TableName
from rowferry.types import Type


@pytest.fixture
def session(url: str) -> Iterator[MysqlSession]:
    made = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    yield made
    made.close()


@pytest.fixture
def database(url: str) -> str:
    return url.rpartition("/")[2]


def described(session: MysqlSession, name: str = "t", as_target: bool = False) -> Table:
    table = catalog.describe(session, TableName(None, name), as_target=as_target)
    assert table is not None
    return table


def columns(session: MysqlSession, *definitions: str) -> tuple[Column, ...]:
    session.query(f"CREATE OR REPLACE TABLE t ({', '.join(definitions)})")
    return described(session).columns


def names(found: list[TableName]) -> list[str]:
    return [str(n) for n in found]


def test_list_has_tables_and_views_each_once_and_nothing_else(session: MysqlSession, database: str) -> None:
    session.query("CREATE TABLE b (a int)")
    session.query("CREATE TABLE B (a int)")
    session.query("CREATE TABLE parts (a int PRIMARY KEY) PARTITION BY HASH (a) PARTITIONS 3")
    session.query("CREATE TABLE history (a int) WITH SYSTEM VERSIONING")
    session.query("CREATE SEQUENCE numbers")
    session.query("CREATE TEMPORARY TABLE for_now (a int)")
    session.query("CREATE VIEW seen AS SELECT * FROM b")
    for own in ("rowferry_jobs", "rowferry_columns", "rowferry_new_1"):
        session.query(f"CREATE TABLE {own} (a int)")
    session.query("CREATE TABLE rowferry_mine (a int)")
    assert names(catalog.list_tables(session, database)) == ["B", "b", "history", "parts", "rowferry_mine"]
    assert names(catalog.list_views(session, database)) == ["seen"]
    everywhere = catalog.list_tables(session, None)
    assert TableName(database, "history") in everywhere
    assert not {n.schema for n in everywhere} & set(catalog.SYSTEM_DATABASES)
    for gone in ("numbers", "none", "for_now"):
        assert catalog.describe(session, TableName(None, gone)) is None
        assert catalog.fingerprint(session, TableName(None, gone)) == ""


def test_table_of_another_database_is_described_by_its_name(
    session: MysqlSession, mysql_database: Callable[[], str]
) -> None:
    other = mysql_database().rpartition("/")[2]
    session.query(f"CREATE TABLE {other}.t (a int PRIMARY KEY)")
    session.query(f"CREATE TABLE c (a int PRIMARY KEY, FOREIGN KEY up (a) REFERENCES {other}.t (a))")
    table = catalog.describe(session, TableName(other, "t"))
    assert table is not None
    assert table.primary_key == ("a",)
    assert described(session, "c").foreign_keys == (ForeignKey("up", ("a",), TableName(other, "t")),)
    assert catalog.describe(session, TableName(None, "t")) is None
    assert catalog.describe(session, TableName("no_such", "t")) is None


def test_name_in_other_letters_is_another_table(session: MysqlSession) -> None:
    session.query("CREATE TABLE Tt (a int)")
    assert catalog.describe(session, TableName(None, "Tt")) is not None
    assert catalog.describe(session, TableName(None, "tt")) is None
    assert catalog.describe(session, TableName(None, "Tt ")) is None


def test_keys_are_whole_columns_that_are_not_null(session: MysqlSession) -> None:
    session.query(
        "CREATE TABLE t (b int, a int, u int NOT NULL, n int NULL, x varchar(9) NOT NULL, y text NOT NULL, "
        "PRIMARY KEY (a, b), UNIQUE KEY k1 (u, x), UNIQUE KEY k2 (n), UNIQUE KEY k3 (x(3)), UNIQUE KEY k4 (y), "
        "KEY k5 (u))"
    )
    table = described(session)
    assert table.primary_key == ("a", "b")
    assert table.unique_keys == (("u", "x"), ("y",))
    session.query("CREATE OR REPLACE TABLE t (x text NOT NULL, PRIMARY KEY (x(10)))")
    table = described(session)
    assert table.identifying_key == ()


def test_foreign_keys_and_triggers_are_told(session: MysqlSession) -> None:
    session.query("CREATE TABLE p (a int, b int, PRIMARY KEY (a, b))")
    session.query(
        "CREATE TABLE t (x int, y int, z int PRIMARY KEY, CONSTRAINT c2 FOREIGN KEY (x, y) REFERENCES p (a, b), "
        "CONSTRAINT c1 FOREIGN KEY (x) REFERENCES t (z))"
    )
    session.query("CREATE TRIGGER later AFTER INSERT ON t FOR EACH ROW SET @a = 1")
    session.query("CREATE TRIGGER before_it BEFORE INSERT ON t FOR EACH ROW SET NEW.x = 1")
    table = described(session)
    assert table.foreign_keys == (
        ForeignKey("c1", ("x",), TableName(None, "t")),
        ForeignKey("c2", ("x", "y"), TableName(None, "p")),
    )
    assert table.triggers == ("before_it", "later")


def test_generated_invisible_and_numbered_columns_are_told(session: MysqlSession) -> None:
    made = columns(
        session,
        "id int NOT NULL AUTO_INCREMENT PRIMARY KEY",
        "a int",
        "s int AS (a + 1) STORED",
        "v int AS (a + 2) VIRTUAL",
        "hidden int INVISIBLE DEFAULT 7",
        "changed timestamp NOT NULL DEFAULT current_timestamp ON UPDATE current_timestamp",
        "e int DEFAULT (1 + 1)",
    )
    assert [c.name for c in made] == ["id", "a", "s", "v", "hidden", "changed", "e"]
    assert [c.generated for c in made] == [False, False, True, True, False, False, False]
    assert [c.identity for c in made] == ["auto", *[None] * 6]
    assert [c.default for c in made] == [None, None, None, None, "7", None, None]
    assert [c.nullable for c in made] == [False, True, True, True, True, False, True]
    as_target = described(session, as_target=True)
    assert [c.default is not None for c in as_target.columns] == [False, False, False, False, True, True, True]


def test_default_value_of_an_existing_target_is_known_to_be_there(session: MysqlSession) -> None:
    session.query("CREATE TABLE t (a int NOT NULL, b varchar(36) NOT NULL DEFAULT (uuid()), c int NULL)")
    assert [c.default is not None for c in described(session, as_target=True).columns] == [False, True, False]


def test_row_start_and_end_of_a_versioned_table_are_generated(session: MysqlSession) -> None:
    session.query(
        "CREATE TABLE t (id int PRIMARY KEY, v int, s timestamp(6) GENERATED ALWAYS AS ROW START, "
        "e timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING"
    )
    session.query("INSERT INTO t (id, v) VALUES (1, 1)")
    session.query("UPDATE t SET v = 2")
    table = described(session)
    assert [(c.name, c.generated) for c in table.columns] == [("id", False), ("v", False), ("s", True), ("e", True)]
    assert session.query("SELECT id, v FROM t") == [(1, 2)]
    session.query("CREATE TABLE u (id int PRIMARY KEY) WITH SYSTEM VERSIONING")
    assert [c.name for c in described(session, "u").columns] == ["id"]


def test_kind_and_estimates_are_those_of_the_server(session: MysqlSession) -> None:
    session.query("CREATE TABLE t (a int PRIMARY KEY, b varchar(100)) PARTITION BY HASH (a) PARTITIONS 2")
    session.query("INSERT INTO t SELECT seq, repeat('x', 100) FROM seq_1_to_5000")
    session.query("ANALYZE TABLE t")
    table = described(session)
    assert table.kind == "partitioned"
    assert 3000 < table.rows < 8000
    assert table.bytes > 300_000
    session.query("CREATE VIEW v AS SELECT * FROM t")
    assert described(session, "v").kind == "view"
    assert [c.native for c in described(session, "v").columns] == ["int(11)", table.columns[1].native]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD c int",
        "ALTER TABLE t DROP b",
        "ALTER TABLE t MODIFY b varchar(11)",
        "ALTER TABLE t MODIFY b varchar(10) NOT NULL",
        "ALTER TABLE t MODIFY b varchar(10) CHARACTER SET latin1",
        "ALTER TABLE t CHANGE b c varchar(10)",
        "ALTER TABLE t MODIFY b varchar(10) FIRST",
    ],
)
def test_fingerprint_changes_with_the_columns(session: MysqlSession, change: str) -> None:
    name = TableName(None, "t")
    session.query("CREATE TABLE t (a int PRIMARY KEY, b varchar(10) CHARACTER SET utf8mb4)")
    before = catalog.fingerprint(session, name)
    assert described(session).fingerprint == before
    session.query("INSERT INTO t (a, b) VALUES (1, 'x')")
    session.query("ANALYZE TABLE t")
    session.query("DO SLEEP(1.1)")  # the server knows the second in which a table was altered
    session.query("ALTER TABLE t ADD INDEX (b), COMMENT 'altered'")
    assert catalog.fingerprint(session, name) == before, "an index changes nothing of what is read"
    session.query(change)
    assert catalog.fingerprint(session, name) != before


@pytest.mark.parametrize(("kind", "volatile"), [("MEMORY", True), ("InnoDB", False), ("MyISAM", False)])
def test_a_target_that_its_servers_end_empties_is_volatile(session: MysqlSession, kind: str, volatile: bool) -> None:
    session.query(f"CREATE TABLE t (a int PRIMARY KEY) ENGINE={kind}")
    table = catalog.describe(session, TableName(None, "t"), as_target=True)
    assert table is not None
    assert table.volatile is volatile


def test_fingerprint_of_a_table_without_snapshots_made_anew_is_another(session: MysqlSession) -> None:
    name = TableName(None, "t")
    session.query("CREATE TABLE t (a int) ENGINE=MyISAM")
    before = catalog.fingerprint(session, name)
    session.query("DROP TABLE t")
    assert catalog.fingerprint(session, name) == ""
    session.query("DO SLEEP(1.1)")  # the server knows the second in which a table was made
    session.query("CREATE TABLE t (a int) ENGINE=MyISAM")
    assert catalog.fingerprint(session, name) != before


def test_json_is_told_from_a_long_text(session: MysqlSession) -> None:
    made = columns(
        session,
        "j json",
        "k json NOT NULL",
        "c longtext CHECK (json_valid(c))",
        "t longtext",
        "b longtext CHECK (json_valid(t) AND json_valid(b))",
        "`o``d` json",
    )
    assert [(c.native.partition(" ")[0], c.type.kind) for c in made] == [
        ("json", "json"),
        ("json", "json"),
        ("longtext", "text"),
        ("longtext", "text"),
        ("longtext", "text"),
        ("json", "json"),
    ]


@pytest.mark.parametrize(
    ("collation", "loose"),
    [
        ("utf8mb4_nopad_bin", False),
        ("latin1_nopad_bin", False),
        ("utf8mb4_bin", True),
        ("utf8mb4_general_ci", True),
        ("utf8mb4_unicode_nopad_ci", True),
        ("utf8mb4_uca1400_as_cs", True),
    ],
)
def test_collation_is_told_where_it_is_not_the_bytes(session: MysqlSession, collation: str, loose: bool) -> None:
    charset = collation.partition("_")[0]
    definition = f"c varchar(9) CHARACTER SET {charset} COLLATE {collation}"
    (column,) = columns(session, definition)
    assert column.collation == (collation if loose else None)
    assert column.native == definition.removeprefix("c ")
    session.query("CREATE OR REPLACE TABLE t (c varbinary(9), d int, e enum('a') COLLATE utf8mb4_general_ci)")
    assert {c.collation for c in described(session).columns} == {None}


#: (column definition, the default as one literal).
DEFAULTS = [
    ("int DEFAULT -5", "-5"),
    ("bigint unsigned DEFAULT 18446744073709551615", "18446744073709551615"),
    ("decimal(6,2) DEFAULT 1.5", "1.50"),
    ("double DEFAULT 1.5e100", "1.5e100"),
    ("tinyint(1) DEFAULT true", "1"),
    ("int DEFAULT NULL", None),
    ("int", None),
    ("varchar(20) DEFAULT ''", "''"),
    ("varchar(20) DEFAULT 'NULL'", "'NULL'"),
    ("varchar(20) DEFAULT 'it''s'", "'it''s'"),
    ("varchar(20) DEFAULT 'a\\\\b\\nc'", "'a\\\\b\nc'"),
    ("varchar(20) DEFAULT 'current_timestamp()'", "'current_timestamp()'"),
    ("varchar(20) CHARACTER SET latin1 DEFAULT _latin1'x'", "'x'"),
    ("varchar(20) DEFAULT 5", "'5'"),
    ("varchar(40) DEFAULT (uuid())", None),
    ("varchar(40) DEFAULT concat('a', 'b')", None),
    ("char(3) DEFAULT 'é'", "'é'"),
    ("date DEFAULT '2020-01-02'", "'2020-01-02'"),
    ("date DEFAULT '0000-00-00'", "_utf8mb4'0000-00-00'"),
    ("datetime DEFAULT '2020-00-01 00:00:00'", "_utf8mb4'2020-00-01 00:00:00'"),
    ("datetime(3) DEFAULT '2020-01-02 03:04:05.678'", "'2020-01-02 03:04:05.678'"),
    ("datetime DEFAULT current_timestamp", None),
    ("time DEFAULT '-10:00:00'", "'-10:00:00'"),
    ("year DEFAULT 2020", "2020"),
    ("bit(3) DEFAULT b'101'", "b'101'"),
    ("enum('a','it''s') DEFAULT 'it''s'", "'it''s'"),
    ("set('a','b') DEFAULT 'a,b'", "_utf8mb4'a,b'"),
    ("varbinary(9) DEFAULT x'00ff'", None),
    ("blob DEFAULT 'x'", None),
    ("text DEFAULT 'x'", "'x'"),
    ("uuid DEFAULT '123e4567-e89b-12d3-a456-426614174000'", "'123e4567-e89b-12d3-a456-426614174000'"),
    ("json DEFAULT '{}'", "'{}'"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "literal"), DEFAULTS)
def test_default_is_one_literal_and_makes_the_same_column(
    session: MysqlSession, definition: str, literal: str | None
) -> None:
    session.query("SET SESSION sql_mode = ''")
    (column,) = columns(session, f"c {definition}")
    assert column.default == literal
    if literal is None:
        return
    session.query(f"CREATE TABLE u (c {column.native} DEFAULT {literal})")
    shown = session.query(
        "SELECT count(DISTINCT column_default), count(*) FROM information_schema.columns "
        "WHERE table_schema = DATABASE()"
    )
    assert shown == [(1, 2)]
    session.query("INSERT INTO u VALUES (DEFAULT)")
    session.query("INSERT INTO t VALUES (DEFAULT)")
    assert session.query("SELECT HEX(c) FROM t") == session.query("SELECT HEX(c) FROM u")


@pytest.mark.parametrize(
    ("native", "default", "extra", "literal"),
    [
        ("int", "5", "", "5"),
        ("int", None, "", None),
        ("varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "it's", "", "'it''s'"),
        ("varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "5", "", "'5'"),
        ("varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "uuid()", "DEFAULT_GENERATED", None),
        ("varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "a\\b", "", "'a\\\\b'"),
        ("varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "", "", "''"),
        ("datetime", "CURRENT_TIMESTAMP", "DEFAULT_GENERATED", None),
        ("timestamp", "CURRENT_TIMESTAMP", "on update CURRENT_TIMESTAMP", None),
        ("datetime", "2020-01-01 00:00:00", "", "'2020-01-01 00:00:00'"),
        ("datetime", "0000-00-00 00:00:00", "", "_utf8mb4'0000-00-00 00:00:00'"),
        ("date", "2020-02-31", "", "_utf8mb4'2020-02-31'"),
        ("bit(3)", "b'101'", "", "b'101'"),
        ("varbinary(3)", "0x00FF", "", None),
        ("decimal(5,2)", "1.50", "", "1.50"),
    ],
)
def test_default_as_mysql_tells_it(native: str, default: str | None, extra: str, literal: str | None) -> None:
    assert defaults.plain(default, extra, parse(native), mariadb=False) == literal


def test_default_generated_of_mysql_is_no_generated_column() -> None:
    row = ("t", "c", "varchar(36)", "NO", "uuid()", "DEFAULT_GENERATED", "utf8mb4", "utf8mb4_0900_ai_ci", "")
    assert not catalog.is_generated(row[5], row[8])
    assert catalog.is_generated("STORED GENERATED", "(`a` + 1)")
    assert catalog.declared(row) == "varchar(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci"
    json = ("t", "c", "json", "NO", None, "", None, None, "")
    assert catalog.declared(json) == "json"


def test_tags_that_cannot_be_read_are_the_ledgers_failure(session: MysqlSession) -> None:
    name = TableName(None, "t")
    session.query("CREATE TABLE t (c datetime(6))")
    tags.write(session, name, {"c": tags.Tag("datetime(6)", Type("timestamptz", unit="us"))})
    session.query("UPDATE rowferry_columns SET type = '{\"kind\": 5}'")
    with pytest.raises(LedgerError, match="rowferry_columns"):
        catalog.describe(session, name)


def test_tags_are_not_made_where_there_is_nothing_to_remember(session: MysqlSession, database: str) -> None:
    tags.write(session, TableName(None, "t"), {})
    assert session.query(f"SELECT count(*) FROM information_schema.tables WHERE table_schema = '{database}'") == [(0,)]


def test_collations_are_those_that_columns_can_name(session: MysqlSession) -> None:
    known = catalog.collations(session)
    assert {"utf8mb4_nopad_bin", "latin1_swedish_ci", "utf8mb4_uca1400_ai_ci"} <= known


def test_table_of_which_only_some_columns_may_be_read_is_refused(
    session: MysqlSession, url: str, database: str
) -> None:
    """information_schema shows such a user the columns that it may read, as if there were no others."""
    session.query("CREATE TABLE t (a int, b int)")
    user = f"some_{database}"[:32]
    for host in ("%", "localhost"):  # an anonymous user of localhost would be taken for the first one
        session.query(f"CREATE USER {user}@'{host}' IDENTIFIED BY 'half'")
        session.query(f"GRANT SELECT (a), INSERT (a) ON {database}.t TO {user}@'{host}'")
    try:
        parameters = connect.parameters(
            endpoint.parse(url.replace(url.split("//")[1].partition("@")[0], f"{user}:half"))
        )
        half = connect.connect(parameters, SourceError)
        try:
            with pytest.raises(SourceError, match="SELECT command denied"):
                catalog.describe(half, TableName(None, "t"))
            target = catalog.describe(half, TableName(None, "t"), as_target=True)
            assert target is not None
            assert [c.name for c in target.columns] == ["a"]
        finally:
            half.close()
    finally:
        for host in ("%", "localhost"):
            session.query(f"DROP USER {user}@'{host}'")
