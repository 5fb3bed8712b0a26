"""The wire: what is taken from pg8000, statements and COPY on its socket, and the state it is left in."""

from __future__ import annotations

import pathlib
import re
import threading
from collections.abc import Callable, Iterator

import pg8000.core
import pg8000.native
import psycopg
import pytest

import servers
from rowferry import endpoint
from rowferry.adapters.postgres import session as session_module
from rowferry.adapters.postgres import wire as wire_module
from rowferry.adapters.postgres.connect import connect, parameters
from rowferry.adapters.postgres.session import Session, numbered
from rowferry.adapters.postgres.wire import ServerError, Wire, error_fields
from rowferry.errors import DataError, OutcomeUnknownError, SourceError, TargetError

pytestmark = pytest.mark.server


@pytest.fixture
def url(postgres_database: Callable[[], str]) -> str:
    return postgres_database()


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    found = connect(parameters(endpoint.parse(url)), TargetError)
    yield found
    found.close()


def test_pg8000_still_has_what_the_wire_takes_from_it(postgres_server: servers.Postgres) -> None:
    connection = pg8000.native.Connection(
        user=postgres_server.user, password=postgres_server.password, host=postgres_server.host,
        port=postgres_server.port, database="postgres", ssl_context=False,
    )  # fmt: skip
    for name in ("_usock", "_sock", "_backend_key_data", "parameter_statuses"):
        assert hasattr(connection, name), f"pg8000 {pg8000.core.ver} has no {name}; see wire.py"
    assert connection._sock.peek is not None
    taken = Wire(connection)
    assert taken.simple("SELECT 1")[0].rows == [("1",)]
    assert connection._usock is None and connection._sock is None, "the driver must not use the socket again"
    taken.close()


def test_private_attributes_of_the_driver_are_touched_in_wire_py_alone() -> None:
    folder = pathlib.Path(wire_module.__file__).parent
    for file in folder.glob("*.py"):
        found = re.findall(r"\._(?:usock|sock|backend_key_data|transaction_status)\b", file.read_text())
        if file.name != "wire.py":
            assert not found, f"{file.name} touches {found}"


def test_read_ahead_of_the_driver_is_not_lost(postgres_server: servers.Postgres) -> None:
    connection = pg8000.native.Connection(
        user=postgres_server.user, password=postgres_server.password, host=postgres_server.host,
        port=postgres_server.port, database="postgres", ssl_context=False,
    )  # fmt: skip
    # The answer to a statement that the driver sends and does not read lies in its buffer, once it has peeked.
    connection._usock.sendall(b"Q\0\0\0\x0dSELECT 7\0")
    connection._sock.peek(1)
    taken = Wire(connection)
    assert taken.until_ready()[0].rows == [("7",)]
    taken.close()


def test_values_come_as_python_values(session: Session) -> None:
    row = session.execute("SELECT 1::int2, 2::int8, 1.5::float8, true, NULL::int, 'x?y', ?::text", ("it's ?",))
    assert row == [(1, 2, 1.5, True, None, "x?y", "it's ?")]
    assert session.run("CREATE TEMP TABLE t AS SELECT * FROM generate_series(1, 5)") == 5


def test_placeholders_within_quotes_are_left_alone() -> None:
    assert numbered("""SELECT '?', "a?b", ?, '''?', ?""") == """SELECT '?', "a?b", $1, '''?', $2"""


def test_error_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(TargetError) as caught:
        session.execute("SELECT 1 FROM nowhere")
    assert caught.value.code == "42P01" and not caught.value.transient
    assert session.query("SELECT 1") == [(1,)]


def test_error_of_a_value_is_a_data_error(session: Session) -> None:
    with pytest.raises(DataError, match="out of range"):
        session.execute("SELECT ?::int2", (70000,))


def test_error_in_the_middle_of_copy_out_leaves_the_wire_ready(session: Session) -> None:
    wire = session.wire
    wire.copy_out("COPY (SELECT 10 / (5 - g) FROM generate_series(1, 9) g) TO STDOUT (FORMAT binary)")
    with pytest.raises(ServerError) as caught:
        wire.until_ready()
    assert caught.value.fields["C"] == "22012"
    assert session.query("SELECT 1") == [(1,)]


def test_error_in_the_middle_of_copy_in_leaves_the_wire_ready(session: Session) -> None:
    session.query("CREATE TEMP TABLE t (a int)")
    wire = session.wire
    wire.copy_in("COPY t FROM STDIN (FORMAT binary)")
    with pytest.raises(ServerError) as caught:
        for _ in range(1000):
            wire.copy_data(b"this is no COPY BINARY" * 50_000)
    assert caught.value.fields["C"] == "22P04"
    assert session.query("SELECT count(*) FROM t") == [(0,)]


def test_copy_that_is_given_up_is_undone(session: Session) -> None:
    session.query("CREATE TEMP TABLE t (a int)")
    session.wire.copy_in("COPY t FROM STDIN")
    session.wire.copy_data(b"1\n2\n")
    session.wire.copy_fail("no more")
    assert session.query("SELECT count(*) FROM t") == [(0,)]


def test_statement_that_would_wait_for_copy_data_does_not_hang(session: Session) -> None:
    session.query("CREATE TEMP TABLE t (a int)")
    with pytest.raises(TargetError) as caught:
        session.query("COPY t FROM STDIN")
    assert caught.value.code == "57014"
    assert session.query("SELECT 1") == [(1,)]


def test_server_that_ends_the_session_is_a_transient_error(session: Session, url: str) -> None:
    (pid,) = session.query("SELECT pg_backend_pid()")[0]
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        for _ in range(100):
            if session.wire.readable():
                break
            threading.Event().wait(0.02)
    with pytest.raises(TargetError) as caught:
        session.query("SELECT 1")
    assert caught.value.transient and caught.value.code in ("57P01", "08006")
    assert session.wire.closed
    with pytest.raises(TargetError):
        session.query("SELECT 1")


def test_commit_whose_answer_is_lost_is_unknown(postgres_server: servers.Postgres, url: str) -> None:
    proxy = servers.Proxy(postgres_server.host, postgres_server.port)
    through = url.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"
    session = connect(parameters(endpoint.parse(through)), TargetError)
    session.begin()
    session.query("CREATE TABLE public.t (a int)")
    proxy.cut_at = b"COMMIT"
    with pytest.raises(OutcomeUnknownError) as caught:
        session.commit()
    assert caught.value.transient and session.wire.closed and proxy.cuts == 1
    proxy.close()
    with psycopg.connect(url) as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (0,), "it was committed all the same"


def test_commit_of_a_failed_transaction_is_an_error(session: Session) -> None:
    session.begin()
    with pytest.raises(TargetError):
        session.query("SELECT 1 / 0 AS x, nowhere")
    with pytest.raises(TargetError, match="ROLLBACK"):
        session.commit()


def test_nul_in_a_statement_is_refused_before_it_is_sent(session: Session) -> None:
    with pytest.raises((TargetError, DataError)):
        session.query("SELECT 'a\0b'")
    assert session.query("SELECT 1") == [(1,)]


def test_fields_of_an_error_that_is_not_utf8_are_readable() -> None:
    assert error_fields(b"SERROR\0C22021\0Mbad \xff\0\0") == {"S": "ERROR", "C": "22021", "M": "bad \ufffd"}


@pytest.mark.parametrize("known", [False, True])
def test_hostile_settings_of_role_and_database_are_overruled(
    postgres_server: servers.Postgres, session: Session, url: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process's first session, which finds out what there is to set, and by those that follow."""
    version = session.wire.parameters["server_version"]
    assert session_module._KNOWN[version] >= {"search_path", "TimeZone", "statement_timeout", "jit"}
    if not known:
        monkeypatch.delitem(session_module._KNOWN, version)
    name = url.rpartition("/")[2]
    with postgres_server.connect() as c:
        c.execute("DROP ROLE IF EXISTS ferry_hostile")
        c.execute("CREATE ROLE ferry_hostile SUPERUSER LOGIN PASSWORD 'hostile'")
        for setting in (
            "statement_timeout = '1ms'", "search_path = evil, public", "DateStyle = 'SQL, DMY'",
            "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kathmandu'", "bytea_output = 'escape'",
            "extra_float_digits = -15", "standard_conforming_strings = off", "client_encoding = 'LATIN1'",
            "default_transaction_isolation = 'serializable'", "idle_in_transaction_session_timeout = '1ms'",
        ):  # fmt: skip
            c.execute(f"ALTER ROLE ferry_hostile SET {setting}".encode())
        c.execute(f"ALTER DATABASE \"{name}\" SET lock_timeout = '1ms'".encode())
    hostile = connect(parameters(endpoint.parse(postgres_server.url_of(name, "ferry_hostile", "hostile"))), SourceError)
    try:
        seen = hostile.query(
            "SELECT pg_sleep(0.05), current_setting('search_path'), '2020-02-01'::date::text, "
            "'1 mon 2 days'::interval::text, '2020-01-01 00:00+00'::timestamptz::text, '\\x00'::bytea::text, "
            "0.1::float8 + 0.2::float8, 'a\\b', current_setting('lock_timeout'), 'é'"
        )[0]
        assert seen[1:] == (
            "", "2020-02-01", "1 mon 2 days", "2020-01-01 00:00:00+00", "\\x00", 0.30000000000000004, "a\\b", "0", "é",
        )  # fmt: skip
    finally:
        hostile.close()
        with postgres_server.connect() as c:
            c.execute("DROP ROLE ferry_hostile")


def test_setting_that_another_server_of_the_version_lacks_is_left_out(
    session: Session, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = session.wire.parameters["server_version"]
    found = session_module._KNOWN[version]
    monkeypatch.setitem(session_module.PINNED, "no_such_setting", "1")
    monkeypatch.setitem(session_module._KNOWN, version, found | {"no_such_setting"})
    other = connect(parameters(endpoint.parse(url)), TargetError)
    try:
        assert other.query("SHOW TimeZone") == [("UTC",)]
        assert session_module._KNOWN[version] == found
    finally:
        other.close()


def test_every_session_has_the_same_settings(session: Session, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ", ".join(f"'{name.lower()}'" for name in session_module.PINNED)
    seen = []
    for first in (True, False):
        if first:
            monkeypatch.delitem(session_module._KNOWN, session.wire.parameters["server_version"])
        made = connect(parameters(endpoint.parse(url)), TargetError)
        seen.append(made.query(f"SELECT name, setting FROM pg_settings WHERE lower(name) IN ({names}) ORDER BY name"))
        made.close()
    assert seen[0] == seen[1]
    assert len(seen[0]) > 25
