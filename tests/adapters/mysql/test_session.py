"""One MySQL session: values in and out, transactions, failures as our own errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mysql_servers
from rowferry import endpoint
from rowferry.adapters.mysql import quoting
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.session import Flavour, MysqlSession
from rowferry.errors import DataError, OutcomeUnknownError, SourceError, TargetError
from servers import CANARY, Proxy

pytestmark = pytest.mark.server


@pytest.fixture
def connector(url: str) -> Connector:
    return Connector(parameters(endpoint.parse(url)), TargetError)


@pytest.fixture
def session(connector: Connector) -> Iterator[MysqlSession]:
    session = connector.connect()
    yield session
    session.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", Flavour(True, (10, 11, 19), "10.11.19-MariaDB-0+deb12u1-log")),
        ("11.8.2-MariaDB", Flavour(True, (11, 8, 2), "11.8.2-MariaDB")),
        ("8.4.3", Flavour(False, (8, 4, 3), "8.4.3")),
        ("8.0.28-0ubuntu0.20.04.3", Flavour(False, (8, 0, 28), "8.0.28-0ubuntu0.20.04.3")),
        ("8.0", Flavour(False, (8, 0, 0), "8.0")),
        ("mystery", Flavour(False, (0, 0, 0), "mystery")),
    ],
)
def test_flavour_of_a_greeting_is_the_servers_own(text: str, expected: Flavour) -> None:
    assert Flavour.parse(text) == expected


def test_parameters_of_every_kind_come_back_as_they_were(session: MysqlSession) -> None:
    given = ("it's \\ \" ` \0 \n\r\x1a é 🚢 ?", b"\0'\\\xff", 2**64 - 1, -(2**63), 1.5, None, "", True)
    sql = "SELECT ?, ?, ?, ?, ?, ?, ?, ?, '?', `?`.`a?` FROM (SELECT 'é\\'?' AS `a?`) AS `?`"
    assert session.execute(sql, given) == [(*given[:-1], 1, "?", "é'?")]


def test_placeholders_and_parameters_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer parameters"):
        quoting.filled("SELECT ?, ?", ("a",))
    with pytest.raises(ValueError, match="more parameters"):
        quoting.filled("SELECT '?'", ("a",))


def test_values_of_results_are_plain_python(session: MysqlSession) -> None:
    sql = "SELECT 1, 1.50, 1e0, DATE '0000-00-00', TIME '-838:00:00', x'00ff', b'101', NULL, CAST(1 AS UNSIGNED)"
    assert session.query(sql) == [(1, "1.50", 1.0, "0000-00-00", "-838:00:00", b"\0\xff", b"\x05", None, 1)]


def test_run_counts_rows_that_an_update_found(session: MysqlSession) -> None:
    session.query("CREATE TABLE t (a int, b int)")
    assert session.run("INSERT INTO t VALUES (?, ?), (2, 2)", (1, 1)) == 2
    assert session.run("UPDATE t SET b = 1") == 2
    assert session.run("DELETE FROM t WHERE a = ?", (1,)) == 1


def test_rollback_undoes_and_commit_keeps(session: MysqlSession, connector: Connector) -> None:
    session.query("CREATE TABLE t (a int) ENGINE=InnoDB")
    session.begin()
    session.run("INSERT INTO t VALUES (1)")
    session.rollback()
    session.begin()
    session.run("INSERT INTO t VALUES (2)")
    other = connector.connect()
    assert other.query("SELECT * FROM t") == []
    session.commit()
    assert other.query("SELECT * FROM t") == [(2,)]
    other.close()


@pytest.mark.parametrize(
    ("sql", "code", "kind", "transient"),
    [
        ("SELECT * FROM no_such_table", "1146/42S02", TargetError, False),
        ("SELEC 1", "1064/42000", TargetError, False),
        ("INSERT INTO t VALUES (1), (1)", "1062/23000", DataError, False),
        ("INSERT INTO t VALUES (70000)", "1264/22003", DataError, False),
        ("INSERT INTO t VALUES (NULL)", "1048/23000", DataError, False),
        ("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213", "1213/40001", TargetError, True),
        ("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205", "1205/HY000", TargetError, True),
        ("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1153", "1153/HY000", TargetError, False),
    ],
)
def test_server_errors_become_ours_with_code_and_sqlstate(
    session: MysqlSession, sql: str, code: str, kind: type[Exception], transient: bool
) -> None:
    session.query("CREATE TABLE t (a smallint NOT NULL PRIMARY KEY)")
    with pytest.raises(kind) as caught:
        session.query(sql)
    assert caught.value.code == code
    assert f"[{code}]" in str(caught.value)
    assert caught.value.transient is transient
    assert session.query("SELECT 1") == [(1,)]


def test_a_value_that_does_not_fit_names_its_column(session: MysqlSession) -> None:
    session.query("CREATE TABLE t (`odd ``name` tinyint)")
    with pytest.raises(DataError) as caught:
        session.query("INSERT INTO t VALUES (1000)")
    assert caught.value.column == "odd `name"


def test_a_killed_session_fails_as_lost_and_stays_closed(session: MysqlSession, connector: Connector) -> None:
    other = connector.connect()
    other.query(f"KILL {session.id}")
    with pytest.raises(TargetError) as caught:
        session.query("SELECT 1")
    assert caught.value.transient
    with pytest.raises(TargetError) as caught:
        session.query("SELECT 1")
    assert caught.value.transient
    assert session.closed and session.readable()
    session.rollback()
    session.close()
    other.close()


def test_an_idle_session_is_not_readable_until_the_server_leaves(session: MysqlSession, connector: Connector) -> None:
    assert not session.readable()
    other = connector.connect()
    other.query(f"KILL {session.id}")
    for _ in range(50):
        if session.readable():
            break
        other.query("SELECT SLEEP(0.05)")
    assert session.readable()
    other.close()


def test_cut_ends_a_statement_that_waits(session: MysqlSession, connector: Connector) -> None:
    import threading
    import time

    threading.Timer(0.3, connector.cut).start()
    began = time.monotonic()
    with pytest.raises(TargetError) as caught:
        session.query("SELECT SLEEP(30)")
    assert caught.value.transient
    assert time.monotonic() - began < 5
    with pytest.raises(TargetError, match="cut on request"):
        connector.connect()


def test_a_lost_answer_to_commit_is_an_unknown_outcome(mysql_server: mysql_servers.Mariadb, url: str) -> None:
    proxy = Proxy(mysql_server.host, mysql_server.port)
    try:
        through = url.replace(f":{mysql_server.port}/", f":{proxy.port}/") + "?ssl-mode=DISABLED"
        session = Connector(parameters(endpoint.parse(through)), TargetError).connect()
        session.query("CREATE TABLE t (a int) ENGINE=InnoDB")
        session.begin()
        session.run("INSERT INTO t VALUES (1)")
        proxy.cut_at = b"COMMIT"
        with pytest.raises(OutcomeUnknownError) as caught:
            session.commit()
        assert caught.value.transient and proxy.cuts == 1
        assert CANARY not in str(caught.value)
        session.close()
    finally:
        proxy.close()
    database = url.rpartition("/")[2]
    assert mysql_server.execute("SELECT a FROM t", database=database) == [(1,)]


def test_a_target_reads_committed_and_a_source_keeps_its_view(connector: Connector) -> None:
    source = Connector(connector.parameters, SourceError).connect()
    target = connector.connect()
    isolation = "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')"
    assert source.query(isolation)[0][1] == "REPEATABLE-READ"
    assert target.query(isolation)[0][1] == "READ-COMMITTED"
    source.close()
    target.close()
