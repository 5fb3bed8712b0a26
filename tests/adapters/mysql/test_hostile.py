"""A server whose globals, and whose init_connect, would change every answer: ours do not change."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

import pytest

import mysql_servers
import rowferry
from rowferry import endpoint
from rowferry.adapters.mysql.connect import connect, parameters
from rowferry.adapters.mysql.session import PINNED, SQL_MODE
from rowferry.errors import SourceError, TargetError

pytestmark = pytest.mark.server

HOSTILE = {
    "autocommit": "0",
    "auto_increment_increment": "7",
    "check_constraint_checks": "0",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "character_set_server": "latin1",
    "collation_server": "latin1_german1_ci",
    "completion_type": "'RELEASE'",
    "default_regex_flags": "'EXTENDED'",
    "default_storage_engine": "MyISAM",
    "default_week_format": "3",
    "div_precision_increment": "0",
    "explicit_defaults_for_timestamp": "0",
    "foreign_key_checks": "0",
    "group_concat_max_len": "4",
    "idle_transaction_timeout": "1",
    "idle_readonly_transaction_timeout": "1",
    "idle_write_transaction_timeout": "1",
    "innodb_lock_wait_timeout": "1",
    "innodb_strict_mode": "0",
    "lc_messages": "'de_DE'",
    "lc_time_names": "'ja_JP'",
    "lock_wait_timeout": "1",
    "low_priority_updates": "1",
    "max_error_count": "0",
    "max_join_size": "1",
    "max_sort_length": "64",
    "max_statement_time": "0.001",
    "net_read_timeout": "1",
    "net_write_timeout": "1",
    "note_verbosity": "'basic,unusable_keys,explain'",
    "old_mode": "'ZERO_DATE_TIME_CAST,NO_DUP_KEY_WARNINGS_WITH_IGNORE'",
    "sort_buffer_size": "1024",
    "sql_auto_is_null": "1",
    "sql_big_selects": "0",
    "sql_buffer_result": "1",
    "sql_if_exists": "1",
    "sql_mode": "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE,"
    "NO_ZERO_IN_DATE,HIGH_NOT_PRECEDENCE,IGNORE_SPACE,EMPTY_STRING_IS_NULL,TIME_ROUND_FRACTIONAL,SIMULTANEOUS_ASSIGNMENT'",
    "sql_notes": "0",
    "sql_quote_show_create": "0",
    "sql_safe_updates": "1",
    "sql_select_limit": "1",
    "sql_warnings": "1",
    "system_versioning_asof": "'2001-02-03 04:05:06'",
    "time_zone": "'-11:00'",
    "tx_isolation": "'READ-UNCOMMITTED'",
    "tx_read_only": "1",
    "unique_checks": "0",
    "wait_timeout": "1",
}
INIT_CONNECT = "SET sql_select_limit = 2, autocommit = 0, @@session.time_zone = '+05:00', sql_mode = 'ANSI'"

TABLE = r"""
CREATE TABLE t (
    id bigint unsigned NOT NULL PRIMARY KEY, name varchar(40) COLLATE utf8mb4_general_ci, fixed char(10),
    at timestamp(6) NOT NULL, day date, ratio double, half float, amount decimal(30, 10), bits bit(5),
    raw varbinary(20), doc json, kinds set('a', 'b'), kind enum('x', ''), span time(3), year_ year,
    empty_ varchar(5) NOT NULL
) ENGINE=InnoDB
"""
ROWS = r"""
INSERT INTO t SELECT seq * 3, CONCAT('naïve 🚢 "', seq, '\\'), 'pad',
    '2020-01-02 03:04:05.678901' + INTERVAL seq SECOND, '2020-02-28' + INTERVAL seq DAY,
    seq / 7, 16777216 + seq, seq * 1.0000000001, seq MOD 32, UNHEX(MD5(seq)),
    CONCAT('{"a": ', seq, '}'), 'a,b', 'x', SEC_TO_TIME(seq * 7), 2000 + seq MOD 100, '' FROM seq_1_to_5000
"""


@pytest.fixture
def hostile(own_mysql_server: mysql_servers.Mariadb) -> Iterator[contextlib.AbstractContextManager[None]]:
    """The hostile settings as a context, and a plain user whom init_connect concerns."""
    own_mysql_server.as_root("CREATE OR REPLACE DATABASE hostile CHARACTER SET utf8mb4")
    with own_mysql_server.account("plain", "plain-pw", "ALL ON hostile.*"):
        yield own_mysql_server.globals(**HOSTILE, init_connect=f'"{INIT_CONNECT}"')
        own_mysql_server.as_root("DROP DATABASE hostile")


def url_of(server: mysql_servers.Mariadb) -> str:
    return server.url_of("hostile", "plain", "plain-pw")


def test_every_pinned_variable_is_as_pinned(
    own_mysql_server: mysql_servers.Mariadb, hostile: contextlib.AbstractContextManager[None]
) -> None:
    p = parameters(endpoint.parse(url_of(own_mysql_server)))
    names = [*PINNED, "tx_isolation", "tx_read_only"]
    sql = f"SHOW SESSION VARIABLES WHERE Variable_name IN ({', '.join(repr(n) for n in names)})"
    told = []
    friendly = connect(p, SourceError)
    told.append(friendly.query(sql))
    friendly.close()
    with hostile:
        session = connect(p, SourceError)
        told.append(session.query(sql))
        session.close()
    assert told[0] == told[1]
    values = dict(told[1])
    assert set(values["sql_mode"].split(",")) == set(SQL_MODE.split(","))
    assert values["sql_select_limit"] == "18446744073709551615"
    assert (values["time_zone"], values["system_versioning_asof"]) == ("+00:00", "DEFAULT")
    # Every variable that a hostile server could change is one that the server has.
    assert {n for n in HOSTILE if n in PINNED} <= set(values)


@pytest.mark.parametrize("role", [SourceError, TargetError])
def test_an_idle_session_outlives_hostile_timeouts(
    own_mysql_server: mysql_servers.Mariadb,
    hostile: contextlib.AbstractContextManager[None],
    role: type[SourceError] | type[TargetError],
) -> None:
    with hostile:
        session = connect(parameters(endpoint.parse(url_of(own_mysql_server))), role)
        session.begin_snapshot() if role is SourceError else session.begin()
        time.sleep(2.5)
        assert session.query("SELECT 1 UNION ALL SELECT 2") == [(1,), (2,)]
        session.close()


def test_a_copy_from_a_hostile_server_is_the_same_copy(
    own_mysql_server: mysql_servers.Mariadb, hostile: contextlib.AbstractContextManager[None], tmp_path: pathlib.Path
) -> None:
    own_mysql_server.execute(TABLE, ROWS, database="hostile")
    url = url_of(own_mysql_server)
    friendly = rowferry.copy(url, f"duckdb:///{tmp_path}/friendly.duckdb")
    with hostile:
        report = rowferry.copy(url, f"duckdb:///{tmp_path}/hostile.duckdb", verify=True)
        verified = rowferry.verify(url, f"duckdb:///{tmp_path}/friendly.duckdb")
    assert report.error is None and verified.error is None
    assert report.tables[0].rows_read == 5000
    assert report.tables[0].digest_read == friendly.tables[0].digest_read
    assert report.snapshot == friendly.snapshot == "one"


def test_a_where_means_the_same_on_a_hostile_server(
    own_mysql_server: mysql_servers.Mariadb, hostile: contextlib.AbstractContextManager[None], tmp_path: pathlib.Path
) -> None:
    own_mysql_server.execute(TABLE, ROWS, database="hostile")
    where = 'name LIKE "%5\\\\\\\\" AND at < "2020-01-02 04:00:00" AND NOT kind = "" || id = 3'
    with hostile:
        report = rowferry.copy(url_of(own_mysql_server), f"duckdb:///{tmp_path}/h.duckdb", tables=["t"], where=where)
    expected = own_mysql_server.execute(f"SELECT COUNT(*) FROM t WHERE {where}", database="hostile")[0][0]
    assert report.tables[0].rows_read == expected > 1


def test_a_copy_into_a_hostile_server_is_the_same_copy(
    own_mysql_server: mysql_servers.Mariadb, hostile: contextlib.AbstractContextManager[None], tmp_path: pathlib.Path
) -> None:
    """Rows of every length, a row 0 of an AUTO_INCREMENT, empty texts, and two chunks' worth of them."""
    own_mysql_server.execute(TABLE, ROWS, database="hostile")
    own_mysql_server.execute(
        "CREATE TABLE counted (id int AUTO_INCREMENT PRIMARY KEY, v varchar(9) NOT NULL)",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO counted VALUES (0, ''), (1, 'x'), (7, ' \\' ')",
        database="hostile",
    )
    url = url_of(own_mysql_server)
    origin = f"parquet:///{tmp_path}/origin"
    rowferry.copy(url, origin)
    expected = own_mysql_server.execute("CHECKSUM TABLE t, counted", database="hostile")
    own_mysql_server.execute("DROP TABLE t, counted", database="hostile")
    with hostile:
        report = rowferry.copy(origin, url, verify=True)
        assert report.equal is True
        again = rowferry.copy(origin, url, mode="truncate", verify=True)
        assert again.equal is True
    assert {t.rows_committed for t in report.tables} == {3, 5000}
    assert own_mysql_server.execute("CHECKSUM TABLE t, counted", database="hostile") == expected
    engines = "SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = 'hostile'"
    assert own_mysql_server.execute(engines) == [("InnoDB",)]
