"""MySQL's types and ours, both ways: what is read as what, by which SQL, and what is made for what."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pymysql
import pytest

from rowferry import endpoint
from rowferry.adapters.mysql import catalog, connect, making, tags, types
from rowferry.adapters.mysql.declared import canonical, forms_of, parse
from rowferry.adapters.mysql.session import Flavour, MysqlSession
from rowferry.convert import CHECKS
from rowferry.errors import SourceError
from rowferry.model import Column, Refusal, TableName
from rowferry.types import Field, Type

MARIADB = Flavour.parse("10.11.6-MariaDB")
MARIADB_OLD = Flavour.parse("10.3.39-MariaDB")
MYSQL = Flavour.parse("8.4.3")
MYSQL_OLD = Flavour.parse("5.7.44")
NOPAD = " CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
LATIN1 = " CHARACTER SET latin1 COLLATE latin1_swedish_ci"

#: (declared type, character set and collation, SQL literals, what the default form's expression gives as text).
EVERY_TYPE: list[tuple[str, str, str, list[str], list[str | bytes | None]]] = [
    ("tinyint(1)", "", "int8", ["2", "-128", "127"], ["2", "-128", "127"]),
    ("tinyint(3) unsigned zerofill", "", "uint8", ["7", "255"], ["007", "255"]),
    ("smallint(6)", "", "int16", ["-32768"], ["-32768"]),
    ("mediumint(8) unsigned", "", "uint32", ["16777215"], ["16777215"]),
    ("int(11)", "", "int32", ["-2147483648"], ["-2147483648"]),
    ("bigint(20)", "", "int64", ["-9223372036854775808"], ["-9223372036854775808"]),
    ("bigint(20) unsigned", "", "uint64", ["18446744073709551615"], ["18446744073709551615"]),
    ("decimal(65,30)", "", "decimal(65,30)", ["-" + "9" * 35 + "." + "9" * 30], ["-" + "9" * 35 + "." + "9" * 30]),
    ("decimal(5,2) unsigned", "", "decimal(5,2)", ["1.5"], ["1.50"]),
    ("float", "", "float32", ["16777217", "1.4e-45"], ["16777216", "1.401298464324817e-45"]),
    ("float(7,3)", "", "float32", ["1234.567"], ["1234.5670166015625"]),
    ("double", "", "float64", ["5e-324", "1.7976931348623157e308"], ["5e-324", "1.7976931348623157e308"]),
    ("double(20,5)", "", "float64", ["123456789012345.12345"], ["123456789012345.12"]),
    ("date", "", "date", ["'0001-01-01'", "'9999-12-31'"], ["0001-01-01", "9999-12-31"]),
    ("datetime", "", "timestamp(0)", ["'2020-02-29 23:59:59'"], ["2020-02-29 23:59:59"]),
    ("datetime(6)", "", "timestamp", ["'9999-12-31 23:59:59.999999'"], ["9999-12-31 23:59:59.999999"]),
    ("timestamp(3)", "", "timestamptz(3)", ["'2038-01-19 03:14:07.999'"], ["2038-01-19 03:14:07.999"]),
    ("time(6)", "", "duration", ["'-838:59:59.999999'", "'24:00:00'"], ["-838:59:59.999999", "24:00:00.000000"]),
    ("time", "", "duration(0)", ["'838:59:59'"], ["838:59:59"]),
    ("year(4)", "", "int16", ["0", "1901", "2155"], ["0000", "1901", "2155"]),
    ("bit(10)", "", "bit(10)", ["b'101'"], [b"\x00\x05"]),
    ("bit(64)", "", "bit(64)", ["~0"], [b"\xff" * 8]),
    ("enum('a','it''s','x,y','ü\\\\','?','')", LATIN1, "enum", ["'x,y'", "'ü\\\\'", "''"], ["x,y", "ü\\", ""]),
    ("set('p','q','r s')", LATIN1, "list<text>", ["'r s,p'", "''"], ["p,r s", ""]),
    ("char(10)", LATIN1, "char(10)", ["'é  '"], ["é"]),
    ("varchar(20)", " CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci", "text(20)", ["'日  '"], ["日  "]),
    ("varchar(20)", " CHARACTER SET ucs2 COLLATE ucs2_general_ci", "text(20)", ["'日é'"], ["日é"]),
    ("varchar(20)", " CHARACTER SET utf16 COLLATE utf16_general_ci", "text(20)", ["'😀'"], ["😀"]),
    ("varchar(20)", " CHARACTER SET big5 COLLATE big5_chinese_ci", "text(20)", ["'一'"], ["一"]),
    ("longtext", " CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", "text", ["'a\\0b😀'"], ["a\0b😀"]),
    ("tinytext", LATIN1, "text", ["x'80'"], ["€"]),
    ("binary(4)", "", "binary(4)", ["x'00ff'"], [b"\x00\xff\x00\x00"]),
    ("varbinary(5)", "", "binary(5)", ["x'00ff20'"], [b"\x00\xff "]),
    ("blob", "", "binary", ["x''"], [b""]),
    ("json", "", "json", ['\'{"b": 1.50, "a": 1, "a": 2}\''], ['{"b": 1.50, "a": 1, "a": 2}']),
    ("point", "", "binary", ["ST_GeomFromText('POINT(1 2)', 4326)"],
     [bytes.fromhex("E61000000101000000000000000000F03F0000000000000040")]),
    ("uuid", "", "uuid", ["'123E4567-E89B-12D3-A456-426614174000'"], ["123e4567-e89b-12d3-a456-426614174000"]),
    ("inet4", "", "opaque mysql:inet4", ["'1.2.3.4'"], ["1.2.3.4"]),
    ("inet6", "", "opaque mysql:inet6", ["'::ffff:1.2.3.4'"], ["::ffff:1.2.3.4"]),
]  # fmt: skip
IDS = [f"{t[0]}{t[1].replace(' CHARACTER SET ', ' ').partition(' COLLATE')[0]}" for t in EVERY_TYPE]


@pytest.fixture
def session(url: str) -> Iterator[MysqlSession]:
    made = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    yield made
    made.close()


@pytest.fixture
def plain(url: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """A driver that gives every value as the server sends it: text, or bytes where the server says binary."""
    e = endpoint.parse(url)
    connection = pymysql.connect(
        host=e.host, port=e.port or 3306, user=e.user, password=e.password or "", database=e.database,
        charset="utf8mb4", autocommit=True, conv={}, init_command="SET time_zone = '+00:00', sql_mode = ''",
    )  # fmt: skip

    def run(sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    yield run
    connection.close()


@pytest.mark.parametrize(("native", "charset", "kind", "literals", "sent"), EVERY_TYPE, ids=IDS)
def test_select_expression_of_every_type_gives_its_values(
    native: str, charset: str, kind: str, literals: list[str], sent: list[str | bytes | None],
    session: MysqlSession, plain: Callable[[str], list[tuple[Any, ...]]],
) -> None:  # fmt: skip
    plain(f"CREATE TABLE t (id int primary key auto_increment, `c`` d` {native}{charset})")
    for literal in literals:
        plain(f"INSERT INTO t (`c`` d`) VALUES ({literal})")
    plain("INSERT INTO t (`c`` d`) VALUES (NULL)")
    table = catalog.describe(session, TableName(None, "t"), census=True)
    assert table is not None
    column = table.columns[1]
    assert str(column.type) == kind
    assert column.refusal is None
    assert column.type == column.forms[0]
    assert tags.same_native(column.native, native + charset)
    got = [row[0] for row in plain(f"SELECT {types.select_expression(column, column.type)} FROM t ORDER BY id")]
    assert got == [*sent, None]
    for form in column.forms[1:]:
        texts = plain(f"SELECT {types.select_expression(column, form)} FROM t ORDER BY id")
        assert all(isinstance(row[0], str) for row in texts[:-1]), "a text form is text"
        assert texts[-1] == (None,)


@pytest.mark.parametrize(
    ("native", "literal", "text"),
    [
        ("float", "0.1", "0.10000000149011612"),
        ("bit(10)", "b'101'", "0000000101"),
        ("year(4)", "0", "0000"),
        ("date", "'2020-00-10'", "2020-00-10"),
        ("datetime(3)", "'0000-00-00'", "0000-00-00 00:00:00.000"),
        ("timestamp", "'0000-00-00'", "0000-00-00 00:00:00"),
        ("time(2)", "'-0:00:00.01'", "-00:00:00.01"),
        ("enum('a')", "'zzz'", ""),
        ("uuid", "'123E4567-E89B-12D3-A456-426614174000'", "123e4567-e89b-12d3-a456-426614174000"),
    ],
)
def test_text_form_is_the_servers_own_text(
    native: str, literal: str, text: str, session: MysqlSession, plain: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    plain(f"CREATE TABLE t (c {native} NULL)")
    plain(f"INSERT INTO t VALUES ({literal})")
    table = catalog.describe(session, TableName(None, "t"))
    assert table is not None
    column = table.columns[0]
    assert plain(f"SELECT {types.select_expression(column, column.forms[-1])} FROM t") == [(text,)]


@pytest.mark.parametrize("native", [t[0] + t[1] for t in EVERY_TYPE])
def test_parse_of_a_declared_type_prints_the_same(native: str) -> None:
    d = parse(native)
    assert d is not None
    assert str(d) == native


@pytest.mark.parametrize(
    "native", ["character varying(10)", "numeric(10,2)[]", "enum(a)", "enum('a'", "INTEGER", "", "set()"]
)
def test_parse_of_anothers_spelling_is_none(native: str) -> None:
    assert parse(native) is None


def test_labels_with_quotes_and_backslashes_are_read_as_they_are() -> None:
    d = parse(r"enum('a\\b','c\nd','e''f','g\0h','x,y',')')" + LATIN1)
    assert d is not None
    assert d.labels == ("a\\b", "c\nd", "e'f", "g\0h", "x,y", ")")


def test_enum_whose_labels_cannot_be_told_is_text() -> None:
    d = parse("enum('?','a') CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    assert d is not None
    assert canonical(d) == Type("text")


def test_set_with_an_empty_label_is_text_since_the_empty_set_looks_the_same() -> None:
    d = parse("set('','a')" + LATIN1)
    assert d is not None
    assert forms_of(d) == (Type("text"),)


# ── what is made ─────────────────────────────────────────────────────────────────────────────────

TEXT_LIST = Type("list", element=Type("text"))
#: (form, DDL type on MariaDB, what is written).
MADE: list[tuple[Type, str, Type | None]] = [
    (Type("bool"), "tinyint(1)", None),
    (Type("int8"), "tinyint", None),
    (Type("uint16"), "smallint unsigned", None),
    (Type("uint64"), "bigint unsigned", None),
    (Type("float32"), "float", None),
    (Type("float64"), "double", None),
    (Type("decimal", precision=65, scale=30), "decimal(65,30)", None),
    (Type("decimal", precision=38, scale=38), "decimal(38,38)", None),
    (Type("decimal", precision=2, scale=-3), "decimal(5,0)", Type("decimal", precision=5, scale=0)),
    (Type("text"), "longtext" + NOPAD, None),
    (Type("text", length=10), "varchar(10)" + NOPAD, None),
    (Type("text", length=16383), "varchar(16383)" + NOPAD, None),
    (Type("text", length=16384), "longtext" + NOPAD, None),
    (Type("char", length=255), "char(255)" + NOPAD, None),
    (Type("char", length=256), "varchar(256)" + NOPAD, None),
    (Type("char"), "longtext" + NOPAD, None),
    (Type("binary"), "longblob", None),
    (Type("binary", length=16, fixed=True), "binary(16)", None),
    (Type("binary", length=300, fixed=True), "varbinary(300)", None),
    (Type("binary", length=70_000), "longblob", None),
    (Type("date"), "date", None),
    (Type("time", unit="us"), "time(6)", None),
    (Type("time", precision=0, unit="us"), "time", None),
    (Type("time", unit="ns"), "time(6)", Type("time", unit="us")),
    (Type("timestamp", unit="us"), "datetime(6)", None),
    (Type("timestamp", precision=3, unit="us"), "datetime(3)", None),
    (Type("timestamp", unit="s"), "datetime", Type("timestamp", precision=0, unit="us")),
    (Type("timestamptz", unit="us"), "datetime(6)", None),
    (Type("timestamptz", unit="ms"), "datetime(3)", Type("timestamptz", precision=3, unit="us")),
    (Type("duration", unit="us"), "time(6)", None),
    (Type("timetz"), "varchar(32)" + NOPAD, None),
    (Type("interval"), "varchar(64)" + NOPAD, None),
    (Type("uuid"), "uuid", None),
    (Type("json"), "json", None),
    (Type("jsonb"), "json", None),
    (TEXT_LIST, "json", None),
    (Type("struct", fields=(Field("a", Type("int8")),)), "json", None),
    (Type("enum", labels=("a", "A", "it's\\")), r"enum('a','A','it''s\\')" + NOPAD, None),
    (Type("enum", labels=("a ", "b")), "varchar(2)" + NOPAD, None),
    (Type("enum", labels=("😀",)), "varchar(1)" + NOPAD, None),
    (Type("enum"), "longtext" + NOPAD, None),
    (Type("enum", labels=("a",), native="postgresql:mood"), "enum('a')" + NOPAD, Type("enum", labels=("a",))),
    (Type("bit", length=64), "bit(64)", None),
    (Type("bit", length=65), "varchar(65)" + NOPAD, None),
    (Type("varbit"), "longtext" + NOPAD, None),
    (Type("opaque", native="postgresql:inet"), "longtext" + NOPAD, None),
]  # fmt: skip


@pytest.mark.parametrize(("form", "native", "written"), MADE, ids=[str(m[0]) for m in MADE])
def test_made_column_is_what_the_server_makes_and_is_told_again(
    form: Type, native: str, written: Type | None, session: MysqlSession
) -> None:
    planned = types.plan_column(Column("c", form, native="theirs"), form, MARIADB)
    assert isinstance(planned, Column)
    assert planned.native == native
    assert planned.type == (written or form)
    assert planned.collation is None
    name = TableName(None, "t")
    session.query(f"CREATE TABLE t (c {native} NULL) ENGINE=InnoDB")
    tags.write(session, name, types.tags_of((planned,), {"c": native}, session.flavour))
    for as_target in (False, True):
        table = catalog.describe(session, name, as_target=as_target)
        assert table is not None
        assert tags.same_native(table.columns[0].native, native)
        assert table.columns[0].type == planned.type


@pytest.mark.parametrize(("native", "charset", "kind", "literals", "sent"), EVERY_TYPE, ids=IDS)
def test_source_of_the_same_engine_keeps_its_declared_type(
    native: str, charset: str, kind: str, literals: list[str], sent: list[object], session: MysqlSession
) -> None:
    session.query(f"CREATE TABLE t (c {native}{charset} NULL)")
    described = catalog.describe(session, TableName(None, "t"))
    assert described is not None
    column = described.columns[0]
    planned = types.plan_column(column, column.type, session.flavour, collations=catalog.collations(session))
    assert isinstance(planned, Column)
    if native == "double(20,5)":  # rounds what is written, perhaps to another double than it rounded to before
        assert planned.native == native.partition("(")[0]
    else:
        assert planned.native == column.native
    if native.startswith("set"):
        assert planned.type == Type("list", element=Type("enum", labels=("p", "q", "r s")))
    else:
        assert planned.type == column.type
    assert types.tags_of((planned,), {"c": planned.native}, session.flavour) == {}
    text = column.forms[-1]
    if text.kind == "opaque":
        assert isinstance(kept := types.plan_column(column, text, session.flavour), Column)
        assert (kept.native, kept.type) == (column.native, text)


@pytest.mark.parametrize(
    ("native", "form"),
    [
        ("text", Type("text")),  # PostgreSQL's has no limit, MySQL's 64 KiB
        ("blob", Type("binary")),
        ("point", Type("opaque", native="postgresql:point")),
        ("bit(100)", Type("bit", length=100)),
        ("decimal(70,2)", Type("decimal", precision=70, scale=2)),
        ("timestamp without time zone", Type("timestamp", unit="us")),
    ],
)
def test_type_of_another_engine_is_not_taken_for_ours_by_its_name(native: str, form: Type) -> None:
    planned = types.plan_column(Column("c", form, native=native, forms=(form,)), form, MARIADB)
    assert isinstance(planned, Refusal) or planned.native != native


def test_type_that_came_from_mysql_through_a_file_is_made_again() -> None:
    for native in ("mysql:mediumint(8) unsigned", "mediumint(8) unsigned"):
        planned = types.plan_column(Column("c", Type("uint32"), native=native), Type("uint32"), MARIADB)
        assert isinstance(planned, Column)
        assert planned.native == "mediumint(8) unsigned"
    point = Type("binary", native="mysql:point")
    planned = types.plan_column(Column("c", point, native="BLOB"), point, MARIADB)
    assert isinstance(planned, Column)
    assert planned.native == "point"


def test_collation_that_the_server_does_not_have_gives_way_to_ours() -> None:
    native = "varchar(5) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci"
    column = Column("c", Type("text", length=5), native=native, forms=(Type("text", length=5),))
    planned = types.plan_column(column, column.type, MARIADB, collations=frozenset(("utf8mb4_bin",)))
    assert isinstance(planned, Column)
    assert planned.native == "varchar(5)" + NOPAD
    kept = types.plan_column(column, column.type, MYSQL, collations=frozenset(("utf8mb4_0900_ai_ci",)))
    assert isinstance(kept, Column)
    assert (kept.native, kept.collation) == (native, "utf8mb4_0900_ai_ci")


@pytest.mark.parametrize(
    ("server", "form", "native"),
    [
        (MYSQL, Type("text"), "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"),
        (MYSQL_OLD, Type("text"), "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
        (MYSQL, Type("uuid"), "binary(16)"),
        (MARIADB_OLD, Type("uuid"), "binary(16)"),
        (MYSQL, Type("json"), "json"),
        (MYSQL, TEXT_LIST, "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"),
        (MYSQL, Type("opaque", native="mysql:inet6"), "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"),
    ],
)
def test_made_column_of_another_server_is_one_that_it_has(server: Flavour, form: Type, native: str) -> None:
    planned = types.plan_column(Column("c", form), form, server)
    assert isinstance(planned, Column)
    assert planned.native == native
    assert (planned.collation is not None) == (server is MYSQL_OLD)


def test_json_of_mysql_is_compared_by_value() -> None:
    planned = types.plan_column(Column("c", Type("json")), Type("json"), MYSQL)
    assert isinstance(planned, Column)
    assert planned.type == Type("jsonb")


@pytest.mark.parametrize(
    ("form", "server"),
    [
        (Type("numeric"), MARIADB),
        (Type("decimal", precision=66, scale=0), MARIADB),
        (Type("decimal", precision=50, scale=39), MARIADB),
        (Type("decimal", precision=50, scale=31), MYSQL),
        (Type("wire", native="postgresql:inet"), MARIADB),
        (Type("struct", fields=(Field("a", Type("int8")), Field("a", Type("int8")))), MARIADB),
        (Type("list", element=Type("wire", native="postgresql:inet")), MARIADB),
    ],
)
def test_form_without_an_exact_type_is_refused(form: Type, server: Flavour) -> None:
    planned = types.plan_column(Column("c", form), form, server)
    assert isinstance(planned, Refusal)
    assert "skip" in planned.policies


def test_number_that_travels_as_text_is_remembered_as_a_number() -> None:
    column = Column("c", Type("numeric"), native="numeric", forms=(Type("numeric"), Type("text")))
    planned = types.plan_column(column, Type("text"), MARIADB)
    assert isinstance(planned, Column)
    made = types.tags_of((planned,), {"c": planned.native}, MARIADB)
    assert made == {"c": tags.Tag(planned.native, Type("numeric"))}


def test_checks_are_known_and_concern_what_the_server_changes_in_silence() -> None:
    forms = [m[0] for m in MADE]
    planned = [types.plan_column(Column("c", form), form, MARIADB) for form in forms]
    names = {
        form.kind: types.checks(p, MARIADB) for form, p in zip(forms, planned, strict=True) if isinstance(p, Column)
    }
    assert {n for checks in names.values() for n in checks} <= CHECKS.keys()
    assert "finite_number" in names["float64"]
    assert "no_negative_zero" in names["float32"]
    assert "finite_time" in names["timestamptz"]
    assert "finite_time" in names["date"]
    assert names["text"] == names["json"] == ()
    year = Column("y", Type("int16"), native="year(4)")
    assert types.checks(year, MARIADB) == ("year_type",)
    assert types.checks(Column("j", Type("jsonb"), native="json"), MYSQL) == ("json_doubles",)


@pytest.mark.parametrize("native", ["float(7,3)", "double(10,2)", "float(5,2) unsigned", "enum('?')" + NOPAD])
def test_column_that_changes_values_takes_none(native: str, session: MysqlSession) -> None:
    session.query(f"CREATE TABLE t (c {native} NULL)")
    table = catalog.describe(session, TableName(None, "t"), as_target=True)
    assert table is not None
    assert table.columns[0].type.kind == "wire"


# ── a whole table ────────────────────────────────────────────────────────────────────────────────


def planned_columns(**forms: Type) -> list[Column]:
    out = []
    for name, form in forms.items():
        column = types.plan_column(Column(name, form), form, MARIADB)
        assert isinstance(column, Column)
        out.append(column)
    return out


def created(session: MysqlSession, natives: dict[str, str], key: tuple[str, ...]) -> None:
    columns = ", ".join(f"`{n}` {t} {'NOT NULL' if n in key else 'NULL'}" for n, t in natives.items())
    primary = f", PRIMARY KEY ({', '.join(key)})" if key else ""
    session.query(f"CREATE OR REPLACE TABLE t ({columns}{primary}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC")


def test_text_in_a_key_becomes_a_varchar_that_fits(session: MysqlSession) -> None:
    columns = planned_columns(a=Type("text"), b=Type("int64"), c=Type("binary"), d=Type("text"))
    for key, a, c in ((("a",), 768, None), (("a", "b"), 766, None), (("a", "c"), 384, 1536), (("c", "b"), None, 3064)):
        natives = types.table_natives(columns, key)
        assert isinstance(natives, dict)
        assert natives["a"] == (f"varchar({a})" if a else "longtext") + NOPAD
        assert natives["c"] == (f"varbinary({c})" if c else "longblob")
        assert natives["d"] == "longtext" + NOPAD
        created(session, natives, key)


def test_text_key_keeps_letters_case_accents_and_spaces_apart(session: MysqlSession) -> None:
    natives = types.table_natives(planned_columns(a=Type("text")), ("a",))
    assert isinstance(natives, dict)
    created(session, natives, ("a",))
    session.query("INSERT INTO t VALUES ('a'), ('A'), ('a '), ('á'), (''), (' '), ('a\\0')")
    assert session.query("SELECT count(*) FROM t") == [(7,)]


def test_row_that_is_too_long_keeps_its_shortest_varchars(session: MysqlSession) -> None:
    lengths = {"a": 10_000, "b": 5_000, "c": 4_000, "d": 300}
    columns = planned_columns(**{n: Type("text", length=length) for n, length in lengths.items()})
    natives = types.table_natives(columns, ())
    assert isinstance(natives, dict)
    assert [t.partition(" ")[0] for t in natives.values()] == [
        "longtext",
        "varchar(5000)",
        "varchar(4000)",
        "varchar(300)",
    ]
    created(session, natives, ())
    many = planned_columns(**{f"c{i}": Type("text", length=255) for i in range(150)})
    natives = types.table_natives(many, ())
    assert isinstance(natives, dict)
    created(session, natives, ())
    kept = sum(t.startswith("varchar") for t in natives.values())
    assert kept > 50
    assert types.tags_of(many, natives, MARIADB).keys() == {n for n, t in natives.items() if t.startswith("longtext")}


@pytest.mark.parametrize("room", [0, 1, 7, 100])
def test_row_of_just_the_largest_size_is_made(room: int, session: MysqlSession) -> None:
    columns = planned_columns(a=Type("text", length=16_383 - room), b=Type("int8"), c=Type("timestamp", unit="us"))
    natives = types.table_natives(columns, ())
    assert isinstance(natives, dict)
    created(session, natives, ())


@pytest.mark.parametrize("native", ["varchar(3072)" + LATIN1, "varchar(1536) CHARACTER SET gbk COLLATE gbk_chinese_ci"])
def test_key_of_the_largest_size_in_its_character_set_is_made(native: str, session: MysqlSession) -> None:
    column = Column("a", Type("text"), native=native)
    assert types.table_natives((column,), ("a",)) == {"a": native}
    created(session, {"a": native}, ("a",))


def test_json_in_a_key_becomes_a_varchar(session: MysqlSession) -> None:
    natives = types.table_natives(planned_columns(a=TEXT_LIST, b=Type("json")), ("a",))
    assert natives == {"a": "varchar(768) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "b": "json"}
    created(session, natives, ("a",))


def test_key_that_is_too_long_says_so() -> None:
    columns = planned_columns(a=Type("text", length=1000))
    assert "3072" in str(types.table_natives(columns, ("a",)))


@pytest.mark.parametrize(
    ("native", "form", "carrier"),
    [
        ("time(6)", Type("time", unit="us"), Type("duration", unit="us")),
        ("binary(16)", Type("uuid"), Type("binary", length=16, fixed=True)),
        ("uuid", Type("uuid"), Type("uuid")),
        ("json", Type("jsonb"), Type("json")),
        ("varchar(70)" + NOPAD, Type("bit", length=70), Type("text")),
        ("bit(7)", Type("bit", length=7), Type("bit", length=7)),
        ("json", TEXT_LIST, Type("text")),
        ("set('a')" + LATIN1, TEXT_LIST, TEXT_LIST),
        ("varchar(64)" + NOPAD, Type("interval"), Type("text")),
        ("datetime(6)", Type("timestamptz", unit="us"), Type("timestamptz", unit="us")),
    ],
)
def test_carrier_is_what_the_column_itself_holds(native: str, form: Type, carrier: Type) -> None:
    assert types.carrier(Column("c", form, native=native), form) == carrier


def test_tag_counts_only_while_the_column_is_as_it_was(session: MysqlSession) -> None:
    name = TableName(None, "t")
    session.query("CREATE TABLE t (c datetime(6), d tinyint(1))")
    kept = {"c": tags.Tag("datetime(6)", Type("timestamptz", unit="us")), "d": tags.Tag("tinyint(1)", Type("bool"))}
    tags.write(session, name, kept)
    assert tags.read(session, name) == kept
    session.query("ALTER TABLE t MODIFY d int")
    table = catalog.describe(session, name)
    assert table is not None
    assert [c.type for c in table.columns] == [Type("timestamptz", unit="us"), Type("int32")]
    session.query("RENAME TABLE t TO u")
    tags.move(session, name, TableName(None, "u"))
    assert tags.read(session, name) == {}
    assert tags.read(session, TableName(None, "u")) == kept
    tags.forget(session, TableName(None, "u"))
    assert tags.read(session, TableName(None, "u")) == {}


def test_planned_column_is_no_generated_one() -> None:
    column = msgspec.structs.replace(Column("c", Type("int32"), native="int(11)"), generated=True)
    planned = types.plan_column(column, Type("int32"), MARIADB)
    assert isinstance(planned, Column)
    assert not planned.generated
    assert making.collation(MARIADB) == "utf8mb4_nopad_bin"
