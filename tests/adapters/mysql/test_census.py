"""Values that their declared type does not bind: found, counted, and read as NULL or as their own text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from rowferry import endpoint
from rowferry.adapters.mysql import catalog, connect, counting, open_source, types
from rowferry.adapters.mysql.census import FAITHFUL
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import ReadRequest, SourceOptions
from rowferry.errors import DataError, SourceError
from rowferry.model import Column, TableName

#: Written by clients that let anything pass.
LOOSE = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"


@pytest.fixture
def session(mysql_database: Callable[[], str]) -> Iterator[MysqlSession]:
    made = connect.connect(connect.parameters(endpoint.parse(mysql_database())), SourceError)
    yield made
    made.close()


def described(session: MysqlSession, name: str = "t") -> dict[str, Column]:
    table = catalog.describe(session, TableName(None, name), census=True)
    assert table is not None
    return {c.name: c for c in table.columns}


def counts(session: MysqlSession) -> dict[str, int | None]:
    return {name: c.refusal.count for name, c in described(session).items() if c.refusal is not None}


DATES = """
CREATE TABLE t (
  id int PRIMARY KEY, d date, dn date NOT NULL, dt datetime(3), ts timestamp NULL, tn timestamp(2) NOT NULL DEFAULT 0,
  ti time, y year, i int
)
"""


def filled(session: MysqlSession, *rows: str) -> None:
    session.query(LOOSE)
    session.query(DATES)
    for number, row in enumerate(rows):
        session.query(f"INSERT INTO t VALUES ({number}, {row})")


def test_zero_partial_and_impossible_dates_are_counted(session: MysqlSession) -> None:
    filled(
        session,
        "'0000-00-00', '0000-00-00', '0000-00-00', '0000-00-00', '0000-00-00', '-838:59:59', 0, 0",
        "'2020-00-10', '2020-02-00', '2020-00-00 10:11:12.5', '1970-01-01 00:00:01', '2020-01-01', '0:0:0', 1901, 0",
        "'2020-02-31', '2019-02-29', '2020-04-31 23:59:59', NULL, '2020-01-01', NULL, NULL, NULL",
        "NULL, '2020-02-29', NULL, NULL, '2020-01-01', NULL, NULL, NULL",
        "'0000-01-01', '9999-12-31', '0000-12-31 23:59:59.999', '2038-01-19 03:14:07', '2020-01-01', NULL, NULL, NULL",
        "'2020-12-31', '2020-11-30', '2020-01-28', '2020-02-29', '2020-01-01', NULL, NULL, NULL",
    )
    assert counts(session) == {"d": 3, "dn": 3, "dt": 3, "ts": 1, "tn": 1}
    refusal = described(session)["dn"].refusal
    assert refusal is not None
    assert refusal.policies[:2] == ("null", "text")
    assert "date" in refusal.reason


def test_dates_that_are_dates_are_not_refused(session: MysqlSession) -> None:
    filled(session, "'2020-02-29', '0001-01-01', '9999-12-31 23:59:59.999', NULL, '2020-01-01', '838:59:59', 0, 0")
    assert counts(session) == {}


def test_empty_table_has_no_refusal(session: MysqlSession) -> None:
    filled(session)
    assert counts(session) == {}


@pytest.mark.parametrize("strict", ["", "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE"])
def test_policy_null_gives_null_and_the_flag_counts_it_whatever_the_sql_mode(
    session: MysqlSession, strict: str
) -> None:
    filled(
        session,
        "'0000-00-00', '0000-00-00', '0000-00-00', '0000-00-00', '0000-00-00', NULL, NULL, 0",
        "'2020-02-31', '2020-02-00', '2020-00-00', NULL, '2020-01-01', NULL, NULL, 0",
        "'2020-02-28', '2020-02-28', '2020-02-28 01:02:03.25', '2020-02-28', '2020-02-28', NULL, NULL, 0",
    )
    session.query(f"SET SESSION sql_mode = '{strict}'")
    expected = {
        "d": [None, None, "2020-02-28"],
        "dn": [None, None, "2020-02-28"],
        "dt": [None, None, "2020-02-28 01:02:03.250"],
        "ts": [None, None, "2020-02-28 00:00:00"],
        "tn": [None, "2020-01-01 00:00:00.00", "2020-02-28 00:00:00.00"],
    }
    touched = {"d": 2, "dn": 2, "dt": 2, "ts": 1, "tn": 1}
    for name, column in described(session).items():
        flag = types.unfit_expression(column, column.type)
        if name not in expected:
            assert flag is None
            continue
        assert flag is not None
        assert not types.is_silent(column, column.type)
        read = types.select_expression(column, column.type, "null")
        rows = session.query(f"SELECT {read}, {flag} FROM t ORDER BY id")
        assert [row[0] for row in rows] == expected[name]
        assert sum(int(row[1]) for row in rows) == touched[name]
        assert all((row[1] == 0) or row[0] is None for row in rows)


def test_text_form_of_a_date_has_no_value_that_does_not_fit(session: MysqlSession) -> None:
    filled(session, "'0000-00-00', '2020-00-10', '0000-00-00', '0000-00-00', '0000-00-00', NULL, NULL, 0")
    for name, column in described(session).items():
        if column.refusal is None:
            continue
        text = column.forms[-1]
        assert types.unfit_expression(column, text) is None
        (row,) = session.query(f"SELECT {types.select_expression(column, text, 'text')}, `{name}` FROM t")
        assert row[0] == str(row[1])


def test_invalid_value_of_an_enum_is_counted_but_not_a_label_that_is_empty(session: MysqlSession) -> None:
    session.query(LOOSE)
    session.query("CREATE TABLE t (e enum('a','b'), f enum('','x') NOT NULL, s set('a'))")
    session.query("INSERT INTO t VALUES ('zzz', 'zzz', 'zzz'), ('a', '', ''), (NULL, 'x', NULL), ('', 'x', 'a')")
    assert counts(session) == {"e": 2}
    column = described(session)["e"]
    flag = types.unfit_expression(column, column.type)
    rows = session.query(f"SELECT {types.select_expression(column, column.type, 'null')}, {flag} FROM t")
    assert rows == [(None, 1), ("a", 0), (None, 0), (None, 1)]


#: Bytes that are no character of the set, beside some that are, with a true question mark among them.
LOSSY = {
    "ascii": (["ff41", "c3bc"], ["41", "3f", "413f42"]),
    "swe7": (["80"], ["41", "5b"]),
    "hebrew": (["c0"], ["e0", "3f"]),
    "greek": (["ff"], ["e1"]),
    "cp1250": (["8141"], ["8a", "3f"]),
    "cp1251": (["98"], ["c0"]),
    "cp1257": (["8a"], ["c0"]),
    "geostd8": (["81"], ["c0"]),
    "big5": (["c8fe"], ["a440", "3f"]),
    "sjis": (["fcfc"], ["5c", "3f"]),
    "gbk": (["fea0"], ["d2bb"]),
}


@pytest.mark.parametrize("charset", sorted(LOSSY))
def test_bytes_that_are_no_character_are_counted_and_read_as_null(session: MysqlSession, charset: str) -> None:
    bad, good = LOSSY[charset]
    session.query(f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, c varchar(20) CHARACTER SET {charset})")
    for value in (*bad, *good):
        session.query(f"INSERT INTO t (c) VALUES (CAST(x'{value}' AS BINARY))")
    assert counts(session) == {"c": len(bad)}
    column = described(session)["c"]
    assert column.refusal is not None
    assert column.refusal.policies == ("null", "quarantine", "skip")
    assert types.is_silent(column, column.type)
    flag = types.unfit_expression(column, column.type)
    rows = session.query(f"SELECT {types.select_expression(column, column.type, 'null')}, {flag} FROM t ORDER BY id")
    assert [row[1] for row in rows] == [1] * len(bad) + [0] * len(good)
    assert [row[0] is None for row in rows] == [True] * len(bad) + [False] * len(good)


def test_every_character_set_tells_or_keeps_every_byte(session: MysqlSession) -> None:
    """All one-byte values, and two-byte ones, of all character sets: those that come back as other bytes than
    were stored are counted where the server sent '?' for them, and the sets that are trusted have none."""
    sets = [str(row[0]) for row in session.query("SELECT character_set_name FROM information_schema.character_sets")]
    assert len(sets) > 30
    for charset in sets:
        if charset == "binary":
            continue
        session.query(LOOSE)
        session.query(f"CREATE OR REPLACE TABLE t (c varchar(9) CHARACTER SET {charset})")
        values = [bytes([b]) for b in range(256)]
        values += [bytes([a, b]) for a in range(0x80, 0x100, 3) for b in range(0x40, 0x100, 5)]
        session.query("INSERT INTO t VALUES " + ", ".join(f"(CAST(x'{v.hex()}' AS BINARY))" for v in values))
        back = f"CAST(CONVERT(CONVERT(c USING utf8mb4) USING {charset}) AS BINARY)"
        lost = session.query(
            f"SELECT count(*) FROM t WHERE {back} <> CAST(c AS BINARY) AND CONVERT(c USING utf8mb4) LIKE '%?%'"
        )[0][0]
        assert counts(session).get("c", 0) == lost, charset
        if charset in FAITHFUL:
            assert lost == 0, charset


def test_latin1_that_holds_utf8_is_what_latin1_says_it_is(session: MysqlSession) -> None:
    session.query("CREATE TABLE t (c varchar(9) CHARACTER SET latin1)")
    session.query("INSERT INTO t VALUES (CAST(x'c3bc81' AS BINARY))")
    assert counts(session) == {}
    assert session.query("SELECT c FROM t") == [("Ã¼\x81",)]


def test_view_is_looked_at_as_a_table_is(session: MysqlSession) -> None:
    filled(session, "'0000-00-00', '2020-01-01', NULL, NULL, '2020-01-01', NULL, NULL, 0")
    session.query("CREATE VIEW v AS SELECT id, d, dn FROM t")
    column = described(session, "v")["d"]
    assert column.refusal is not None
    assert column.refusal.count == 1


ODD_DATES = "ELT(1 + seq % 5, '2020-02-29', '0000-00-00', '2020-02-31', '2020-00-01', '2020-05-00')"


@pytest.mark.parametrize(
    "key", ["PRIMARY KEY (id)", "PRIMARY KEY (k, id)", "PRIMARY KEY (t)", "PRIMARY KEY (id, t)", "UNIQUE (id)"]
)
def test_several_sessions_count_together_what_one_counts(
    mysql_database: Callable[[], str], session: MysqlSession, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.query(LOOSE)
    session.query(
        f"CREATE TABLE t (id int NOT NULL, k smallint unsigned, t varchar(9), d date, n date NOT NULL, {key})"
    )
    session.query(f"INSERT INTO t SELECT seq * seq, seq % 3, seq, {ODD_DATES}, {ODD_DATES} FROM seq_1_to_1000")
    session.query("UPDATE t SET d = NULL WHERE id % 2 = 0")
    session.query("INSERT INTO t VALUES (-2147483648, 65535, 'a', '0000-00-00', '2020-01-01')")
    alone = counts(session)
    assert alone["n"] == 800
    assert 300 < (alone["d"] or 0) < 500
    table = catalog.describe(session, TableName(None, "t"))
    assert table is not None
    database = str(session.query("SELECT DATABASE()")[0][0])
    parameters = connect.parameters(endpoint.parse(mysql_database().rpartition("/")[0] + "/" + database))
    others = [connect.connect(parameters, SourceError) for _ in range(2)]
    try:
        large = msgspec.structs.replace(table, rows=counting.SHARED_FROM_ROWS)
        together = counting.looked_at(large, session, lambda: others)
        assert {c.name: c.refusal.count for c in together.columns if c.refusal is not None} == alone
        session.query("UPDATE t SET d = '2020-02-29', n = '2020-02-29'")
        assert counting.looked_at(large, session, lambda: others) == large
        others[1].close()
        if key.startswith(("PRIMARY KEY (id", "PRIMARY KEY (k")):  # ranges, for all sessions
            lost = threading.Event()  # the others wait, or they may have asked everything before it is its turn
            healthy, tried = MysqlSession.query, others[1]

            def query(self: MysqlSession, statement: str, *arguments: Any) -> Any:
                if self is tried:
                    lost.set()
                elif "MIN(" not in statement:  # the ranges come before the others are at work
                    assert lost.wait(30)
                return healthy(self, statement, *arguments)

            monkeypatch.setattr(MysqlSession, "query", query)
            with pytest.raises(SourceError):
                counting.looked_at(large, session, lambda: others)
            monkeypatch.undo()
    finally:
        for other in others:
            other.close()


def test_one_odd_value_anywhere_in_a_large_table_is_found_and_its_sessions_serve_the_snapshot(
    mysql_database: Callable[[], str],
) -> None:
    url = mysql_database()
    writer = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    source = open_source(endpoint.parse(url), SourceOptions(workers=3))
    mine = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()"
    try:
        writer.query(LOOSE)
        writer.query("CREATE TABLE t (id int PRIMARY KEY, d date, dt datetime(6) NOT NULL)")
        rows = 3 * counting.SHARED_FROM_ROWS
        writer.query(f"INSERT INTO t SELECT seq, '2020-12-31', '2020-02-29 23:59:59.9' FROM seq_1_to_{rows}")
        writer.query("ANALYZE TABLE t")
        for id_, column in ((1, "d"), (rows, "dt"), (rows // 2, "d")):
            writer.query(f"UPDATE t SET {column} = '2020-04-31' WHERE id = {id_}")
            table = source.describe(TableName(None, "t"), census=True)
            assert table is not None
            assert {c.name: c.refusal.count for c in table.columns if c.refusal is not None} == {column: 1}
            writer.query(f"UPDATE t SET {column} = '2020-04-30' WHERE id = {id_}")
        assert int(writer.query(mine)[0][0]) == 1 + 3
        source.open_snapshot(3)
        assert int(writer.query(mine)[0][0]) == 1 + 1 + 3 + 1
    finally:
        source.close()
        writer.close()


def test_names_of_any_kind_are_quoted(session: MysqlSession) -> None:
    session.query(LOOSE)
    session.query("CREATE TABLE `a``b \"c?` (`d``'?` date)")
    session.query("INSERT INTO `a``b \"c?` VALUES ('0000-00-00')")
    column = described(session, 'a`b "c?')["d`'?"]
    assert column.refusal is not None
    assert column.refusal.count == 1


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ("date", "'0000-00-00'"),
        ("date", "'2020-02-31'"),
        ("datetime(3)", "'2020-00-10'"),
        ("timestamp NULL", "0"),
        ("enum('a')", "'zzz'"),
        ("varchar(9) CHARACTER SET ascii", "CAST(x'ff' AS BINARY)"),
        ("enum('a','ä') CHARACTER SET latin1", "'zzz'"),
    ],
)
def test_value_that_came_after_the_census_is_refused_by_the_reader(
    mysql_database: Callable[[], str], definition: str, value: str
) -> None:
    url = mysql_database()
    name = TableName(None, "t")
    writer = connect.connect(connect.parameters(endpoint.parse(url)), SourceError)
    source = open_source(endpoint.parse(url), SourceOptions())
    try:
        writer.query(LOOSE)
        writer.query(f"CREATE TABLE t (id int PRIMARY KEY, c {definition})")
        writer.query("INSERT INTO t VALUES (1, NULL)")
        table = source.describe(name, census=True)
        assert table is not None
        assert table.columns[1].refusal is None
        writer.query(f"INSERT INTO t VALUES (2, {value})")
        source.open_snapshot(1)
        bound = source.split(table, None, 1 << 20, 0)[0]
        reader = source.reader()
        columns = tuple((c.name, c.type) for c in table.columns)
        with pytest.raises(DataError) as caught:
            list(reader.read(ReadRequest(table, columns, bound)))
        assert caught.value.column == "c"
        assert caught.value.table == "t"
        reader.close()
    finally:
        source.close()
        writer.close()
