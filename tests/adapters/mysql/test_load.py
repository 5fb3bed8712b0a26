"""LOAD DATA LOCAL over the driver's socket: no file but our own rows, no end of the data but the right one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymysql import err

import mysql_servers
from rowferry import endpoint
from rowferry.adapters.mysql import wire
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import RowferryError, TargetError

pytestmark = pytest.mark.server

INTO = "INTO TABLE t CHARACTER SET binary FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5C LINES TERMINATED BY 0x0A"


class Meddler:
    """A TCP proxy that changes the first answer which holds ``find``, before the client sees it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.change: Callable[[bytes], bytes | None] = lambda data: None
        #: All that the client has sent.
        self.sent = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_client:
                    self.sent += data
                else:
                    data = self.change(data) or data
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def session_at(url: str) -> Iterator[MysqlSession]:
    with contextlib.closing(Connector(parameters(endpoint.parse(url)), TargetError, local_infile=True).connect()) as s:
        yield s


@pytest.fixture
def session(url: str, sql: Any) -> Iterator[MysqlSession]:
    sql("CREATE TABLE t (a int, b varchar(100))")
    with session_at(url) as found:
        yield found


@pytest.fixture
def meddler(mysql_server: mysql_servers.Mariadb) -> Iterator[Meddler]:
    found = Meddler(mysql_server.port)
    yield found
    found.close()


def through(meddler: Meddler, url: str, mysql_server: mysql_servers.Mariadb) -> str:
    return url.replace(f":{mysql_server.port}/", f":{meddler.port}/") + "?ssl-mode=DISABLED"


def test_load_counts_what_the_server_took_and_leaves_the_connection_usable(session: MysqlSession, sql: Any) -> None:
    session.begin()
    done = wire.load_local(session.connection, INTO, [b"1\tx\n2\t", b"", memoryview(b"y\n3\t\\N\n")])
    assert done == wire.LoadOutcome(3, 0, 0, 0, True)
    assert session.execute("SELECT count(*) FROM t") == [(3,)]
    session.commit()
    assert sql("SELECT a, b FROM t ORDER BY a") == [(1, "x"), (2, "y"), (3, None)]


def test_load_of_nothing_is_no_rows(session: MysqlSession) -> None:
    session.begin()
    assert wire.load_local(session.connection, INTO, []) == wire.LoadOutcome(0, 0, 0, 0, True)
    session.rollback()


def test_load_of_what_the_server_changes_or_drops_says_so(session: MysqlSession, sql: Any) -> None:
    sql("ALTER TABLE t ADD PRIMARY KEY (a)")
    session.begin()
    done = wire.load_local(session.connection, INTO, [b"1\tx\n1\ty\n99999999999\tz\nno number\t\n"])
    assert (done.records, done.skipped) == (4, 1) and done.warnings >= 3
    session.rollback()
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_load_outside_of_a_transaction_says_that_it_was(session: MysqlSession) -> None:
    assert not wire.load_local(session.connection, INTO, [b"1\tx\n"]).in_transaction


def test_load_larger_than_a_packet_can_be_is_split(session: MysqlSession) -> None:
    row = b"7\t" + b"x" * 93 + b"\n"
    rows = 3 * wire.PACKET_BYTES_MAX // len(row) // 2
    session.begin()
    assert wire.load_local(session.connection, INTO, [row * rows]).records == rows
    assert session.execute("SELECT count(*), sum(length(b)) FROM t") == [(rows, str(93 * rows))]
    session.rollback()


def test_load_whose_rows_fail_closes_the_connection_and_leaves_nothing(session: MysqlSession, sql: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1\tx\n"
        raise RowferryError("no more")

    session.begin()
    with pytest.raises(RowferryError, match="no more"):
        wire.load_local(session.connection, INTO, pieces())
    assert session.closed
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_load_into_no_table_is_the_servers_error_and_sends_nothing(session: MysqlSession) -> None:
    def pieces() -> Iterator[bytes]:
        raise AssertionError("nobody asked")
        yield b""

    with pytest.raises(err.ProgrammingError):
        wire.load_local(session.connection, INTO.replace(" t ", " gone "), pieces())
    assert session.execute("SELECT 1") == [(1,)]


def test_server_that_ends_in_mid_load_is_a_lost_connection(
    session: MysqlSession, mysql_server: mysql_servers.Mariadb, sql: Any
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1\tx\n"
        mysql_server.execute(f"KILL {session.id}")
        for _ in range(10_000):
            yield b"2\ty\n" * 10_000

    session.begin()
    with pytest.raises(err.Error) as caught:
        wire.load_local(session.connection, INTO, pieces())
    error = session.error(caught.value)
    assert error.transient and session.closed
    assert sql("SELECT count(*) FROM t") == [(0,)]


# --- a server that asks for files


def requests_file(name: bytes) -> Callable[[bytes], bytes | None]:
    """Turns the server's next request for a file into one for another, once."""
    state = {"done": False}

    def change(data: bytes) -> bytes | None:
        if state["done"] or len(data) < 5 or data[4] != 0xFB:
            return None
        state["done"] = True
        return len(name + b"\xfb").to_bytes(3, "little") + data[3:4] + b"\xfb" + name

    return change


def test_request_for_another_file_is_refused_and_nothing_is_sent(
    session: MysqlSession, meddler: Meddler, mysql_server: mysql_servers.Mariadb, url: str, tmp_path: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-in-a-file")
    meddler.change = requests_file(str(secret).encode())
    with session_at(through(meddler, url, mysql_server)) as victim:
        victim.begin()
        with pytest.raises(err.OperationalError, match="another file"):
            wire.load_local(victim.connection, INTO, [b"1\tx\n"])
        assert victim.closed
    assert b"canary-in-a-file" not in meddler.sent and b"1\tx\n" not in meddler.sent


def answers_with_request(name: bytes, after: bytes) -> Callable[[bytes], bytes | None]:
    """Answers the query after which the server sends ``after`` with a request for a file."""

    def change(data: bytes) -> bytes | None:
        return (len(name) + 1).to_bytes(3, "little") + b"\x01\xfb" + name if after in data else None

    return change


def test_request_for_a_file_in_answer_to_any_query_is_refused(
    session: MysqlSession, meddler: Meddler, mysql_server: mysql_servers.Mariadb, url: str, tmp_path: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-in-a-file")
    with session_at(through(meddler, url, mysql_server)) as victim:
        meddler.change = answers_with_request(str(secret).encode(), b"a-needle")
        with pytest.raises(TargetError):
            victim.execute("SELECT 'a-needle'")
        meddler.change = lambda data: None
        assert victim.closed
    assert b"canary-in-a-file" not in meddler.sent


def test_server_that_does_not_ask_for_the_rows_is_an_error(
    session: MysqlSession, meddler: Meddler, mysql_server: mysql_servers.Mariadb, url: str
) -> None:
    ok = b"\x00\x00\x00\x02\x00\x00\x00"

    def change(data: bytes) -> bytes | None:
        return len(ok).to_bytes(3, "little") + data[3:4] + ok if len(data) > 5 and data[4] == 0xFB else None

    meddler.change = change
    with session_at(through(meddler, url, mysql_server)) as victim:
        victim.begin()
        with pytest.raises(err.OperationalError, match="did not ask"):
            wire.load_local(victim.connection, INTO, [b"1\tx\n"])
        assert victim.closed
