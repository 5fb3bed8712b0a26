"""Rows off PyMySQL's socket: what is borrowed from the driver, servers that break the protocol, early ends."""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT, FIELD_TYPE

from kernels import mysql_rows_reference as twin
from kernels.mysql_hostile_server import OK, Answer, HostileServer, definition, result
from rowferry.adapters.mysql import header
from rowferry.adapters.mysql import wire as wire_module
from rowferry.adapters.mysql.wire import Channel, read_batches
from rowferry.errors import DataError, SourceError
from rowferry.types import Type

INT = [Type("int32")]
INT_DEFINITION = definition("a", FIELD_TYPE.LONG)
ROW = twin.sized(b"1")
END = (twin.EOF,)

Serve = Callable[..., tuple[HostileServer, Any]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with its answer, and connects; every connection and server ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer | bytes, context: ssl.SSLContext | None = None, **options: Any) -> tuple[Any, Any]:
            def send(_: bytes, sock: socket.socket) -> None:
                assert isinstance(answer, bytes)
                sock.sendall(answer)

            server = HostileServer(send if isinstance(answer, bytes) else answer, context)
            stack.callback(server.close)
            connection = server.connect(**options)
            stack.callback(connection._force_close)
            return server, connection

        yield start


def read(connection: Any, fields: list[Type] = INT, names: list[str] | None = None, **options: Any) -> list[Any]:
    batches = list(
        read_batches(connection, "SELECT a", fields, names or [f"c{i}" for i in range(len(fields))], **options)
    )
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def is_usable(connection: Any) -> bool:
    """The hostile server answers the driver's SET, if anything."""
    connection.cursor().execute("SET x = 1")
    return bool(connection.open)


# ── what is borrowed from the driver ─────────────────────────────────────────────────────────────


def test_pymysql_still_has_what_the_wire_takes_from_it(serve: Serve) -> None:
    _, connection = serve(result([INT_DEFINITION], twin.framed([ROW, *END], 4)))
    for name in (
        "_sock", "_rfile", "_result", "_read_timeout", "_write_timeout", "_current_timeout", "_force_close",
        "client_flag", "server_capabilities", "server_status",
    ):  # fmt: skip
        assert hasattr(connection, name), f"PyMySQL {pymysql.__version__} has no {name}; see wire.py"
    assert isinstance(connection._sock, socket.socket)
    assert connection._rfile.peek is not None
    assert connection._current_timeout is connection._read_timeout is None
    assert connection._result is None
    connection.query("SELECT a")
    assert (connection._result.unbuffered_active, connection._result.has_next) == (False, 0)
    connection._force_close()
    assert connection._sock is None and connection._rfile is None and not connection.open
    assert connection._force_close() is None, "a second time does nothing"


def test_private_attributes_of_the_driver_are_touched_in_wire_py_alone() -> None:
    private = (
        r"\.(?:_sock|_rfile|_result|_read_timeout|_write_timeout|_current_timeout|_force_close|_next_seq_id|_closed)\b"
    )
    for file in pathlib.Path(wire_module.__file__).parent.glob("*.py"):
        found = [name for name in re.findall(private, file.read_text()) if name != "._closed"]
        assert file.name == "wire.py" or not found, f"{file.name} touches {found}"


def test_connection_is_the_drivers_again_after_the_last_row(serve: Serve) -> None:
    server, connection = serve(result([INT_DEFINITION], twin.framed([ROW, b"\xfb", b"\xfe\3\0\x22\0"], 4)))
    rows = read_batches(connection, "SELECT a", INT, ["a"])
    assert [batch.to_pylist() for batch in rows] == [[{"a": 1}, {"a": None}]]
    assert rows.warnings == 3
    assert connection.server_status == 0x22
    assert is_usable(connection)
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT again") == 2
    assert read(connection) == [(1,), (None,)]
    assert server.statements == [b"SELECT a", b"SELECT again", b"SELECT a"]


def test_nothing_is_sent_before_the_first_batch_is_asked_for(serve: Serve) -> None:
    server, connection = serve(b"")
    rows = read_batches(connection, "SELECT a", INT, ["a"])
    rows.close()
    assert is_usable(connection)
    assert server.statements == []


def test_ok_packet_instead_of_eof_is_understood_where_it_was_agreed_on(serve: Serve) -> None:
    last = b"\xfe\0\0\2\0\5\0"
    _, connection = serve(
        result([INT_DEFINITION], twin.framed([ROW, last], 3), deprecate_eof=True), client_flag=CLIENT.DEPRECATE_EOF
    )
    rows = read_batches(connection, "SELECT a", INT, ["a"])
    assert [batch.num_rows for batch in rows] == [1]
    assert rows.warnings == 5
    assert is_usable(connection)


def test_what_the_driver_has_read_ahead_is_taken_first(serve: Serve) -> None:
    """A server that hung up while nothing was asked said why; PyMySQL may have read it already."""
    farewell = twin.framed([b"\xff\xbf\x0f#HY000The client was disconnected because of inactivity"], 0)

    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(twin.framed([OK], 1) + farewell)

    _, connection = serve(answer)
    connection.query("DO 0")
    assert connection._rfile.peek(1)
    with pytest.raises(SourceError, match=r"because of inactivity \[4031/HY000\]") as caught:
        read(connection)
    assert caught.value.transient
    assert not connection.open


def test_closed_connection_and_unfinished_result_are_errors(serve: Serve) -> None:
    _, connection = serve(result([INT_DEFINITION], twin.framed([ROW, ROW, *END], 4)))
    cursor = connection.cursor(pymysql.cursors.SSCursor)
    cursor.execute("SELECT a")
    with pytest.raises(SourceError, match="another result is still being read"):
        read(connection)
    assert cursor.fetchall() == [(1,), (1,)], "that other result is not disturbed"
    connection.close()
    with pytest.raises(SourceError, match="the connection is closed") as caught:
        read(connection)
    assert caught.value.transient


def test_rows_through_tls_are_the_same(serve: Serve, tmp_path: pathlib.Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    texts = [twin.sized(str(i).encode()) for i in range(100_000)]
    _, connection = serve(result([INT_DEFINITION], twin.framed([*texts, *END], 4)), context)
    assert isinstance(connection._sock, ssl.SSLSocket)
    assert read(connection) == [(i,) for i in range(100_000)]
    assert is_usable(connection)


def test_read_timeout_of_the_driver_is_kept(serve: Serve) -> None:
    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(result([INT_DEFINITION], twin.framed([ROW], 4)))
        sock.recv(1)  # until the client hangs up

    _, connection = serve(answer, read_timeout=0.3)
    with pytest.raises(SourceError, match="timed out") as caught:
        read(connection)
    assert caught.value.transient
    assert not connection.open


# ── what the server refuses ──────────────────────────────────────────────────────────────────────


def test_error_packet_instead_of_a_result_leaves_the_connection_usable(serve: Serve) -> None:
    _, connection = serve(twin.framed([b"\xff\x7a\x04#42S02Table 'd.t' doesn't exist"], 1))
    with pytest.raises(SourceError, match=r"Table 'd.t' doesn't exist \[1146/42S02\]") as caught:
        read(connection)
    assert not caught.value.transient
    assert is_usable(connection)


def test_error_packet_in_mid_stream_comes_after_the_rows_before_it(serve: Serve) -> None:
    rows = twin.framed([ROW] * 5 + [b"\xff\xbd\x04#40001Deadlock found"], 4)
    _, connection = serve(result([INT_DEFINITION], rows))
    batches = read_batches(connection, "SELECT a", INT, ["a"])
    assert next(batches).num_rows == 5
    with pytest.raises(SourceError, match=r"Deadlock found \[1213/40001\]") as caught:
        next(batches)
    assert caught.value.transient
    assert is_usable(connection)


def test_farewell_in_mid_stream_closes_the_connection(serve: Serve) -> None:
    rows = twin.framed([ROW] * 5, 4) + twin.framed([b"\xff\x1d\x04#08S01Server shutdown in progress"], 0)
    _, connection = serve(result([INT_DEFINITION], rows))
    with pytest.raises(SourceError, match=r"shutdown in progress \[1053/08S01\]") as caught:
        read(connection)
    assert caught.value.transient
    assert not connection.open


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\xff\x01", b"\xff\x7a\x04", b"\xff\x7a\x04#42", b"\xff\x7a\x04\xff\xfe"]
)
def test_error_packet_that_is_cut_short_is_an_error_all_the_same(serve: Serve, payload: bytes) -> None:
    for rows in ([payload], [ROW, payload]):
        _, connection = serve(result([INT_DEFINITION], twin.framed(rows, 4)))
        with pytest.raises(SourceError):
            read(connection)


# ── what breaks the protocol ─────────────────────────────────────────────────────────────────────

TWO = twin.sized(b"1") * 2
LONG = definition("n" * 300, FIELD_TYPE.LONG)
BROKEN: dict[str, tuple[bytes, str]] = {
    "an OK packet": (twin.framed([OK], 1), "no result"),
    "a request for a file": (twin.framed([b"\xfb/etc/passwd"], 1), "no result"),
    "two columns": (result([INT_DEFINITION] * 2, twin.framed([TWO, *END], 5)), "gives 2 columns where 1"),
    "no columns": (twin.framed([b"\xfe\0\0"], 1), "broken result header"),
    "a long count": (twin.framed([b"\x01\x01"], 1), "gives 1 columns where 1|columns"),
    "a definition that is cut": (twin.framed([b"\x01", INT_DEFINITION[:-14]], 1), "broken column definition"),
    "a definition of nothing": (twin.framed([b"\x01", b"\x03def"], 1), "broken column definition"),
    "a definition with a lying length": (
        twin.framed([b"\x01", b"\xfa" + INT_DEFINITION], 1), "broken column definition",
    ),
    "no end of the definitions": (twin.framed([b"\x01", INT_DEFINITION, ROW], 1), "no end of the column definitions"),
    "an empty packet in the header": (twin.framed([b""], 1), "packet of 0 bytes"),
    "a header of another number": (twin.framed([b"\x01"], 2), "packet number 2 came where 1 was due"),
    "a huge header": (b"\xff\xff\xff\x01", "packet of 16777215 bytes"),
    "a definition of another number": (
        twin.framed([b"\x01"], 1) + twin.framed([INT_DEFINITION], 7), "packet number 7 came where 2 was due",
    ),
    "a row of another number": (
        result([INT_DEFINITION], twin.framed([ROW], 4) + twin.framed([ROW], 6)), "packet number 6 came where 5 was due",
    ),
    "a row with two fields": (result([INT_DEFINITION], twin.framed([ROW, TWO], 4)), "exactly 1 fields"),
    "a row without fields": (result([INT_DEFINITION], twin.framed([ROW, b""], 4)), "empty packet"),
    "a field longer than its row": (result([INT_DEFINITION], twin.framed([b"\x05123"], 4)), "exactly 1 fields"),
    "a field of 2^63 bytes": (
        result([INT_DEFINITION], twin.framed([b"\xfe" + b"\xff" * 8 + b"1"], 4)), "exactly 1 fields|broken",
    ),
    "another result behind": (
        result([INT_DEFINITION], twin.framed([ROW, b"\xfe\0\0\x0a\0"], 4)), "more than the answer",
    ),
    "bytes behind the end": (result([INT_DEFINITION], twin.framed([ROW, *END], 4) + b"x"), "bytes after its end"),
    "an EOF packet that is cut": (result([INT_DEFINITION], twin.framed([ROW, b"\xfe\0"], 4)), "broken OK packet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_answer_is_a_source_error_and_closes_the_connection(serve: Serve, case: str) -> None:
    answer, message = BROKEN[case]
    server, connection = serve(answer)
    with pytest.raises(SourceError, match=message):
        read(connection)
    assert not connection.open
    assert server.statements == [b"SELECT a"], "no file was sent"


def test_server_that_hangs_up_at_any_byte_gives_no_row_that_is_not_whole() -> None:
    rows = twin.framed([twin.sized(b"12345"), twin.sized(b"67890"), *END], 4)
    whole = result([INT_DEFINITION], rows)
    for place in range(len(whole)):

        def answer(_: bytes, sock: socket.socket, place: int = place) -> None:
            sock.sendall(whole[:place])
            sock.shutdown(socket.SHUT_RDWR)

        server = HostileServer(answer)
        connection = server.connect()
        with pytest.raises(SourceError, match="the server closed the connection") as caught:
            read(connection)
        assert caught.value.transient
        assert not connection.open
        server.close()


def test_server_that_resets_the_connection_is_a_transient_error(serve: Serve) -> None:
    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(result([INT_DEFINITION], twin.framed([ROW] * 10, 4)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        raise ConnectionResetError

    _, connection = serve(answer)
    with pytest.raises(SourceError, match="connection") as caught:
        read(connection)
    assert caught.value.transient


# ── values and types ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "found", "text", "value"),
    [
        (Type("date"), definition("a", FIELD_TYPE.DATE), b"2024-00-10", "'2024-00-10'"),
        (Type("text"), definition("a", FIELD_TYPE.VAR_STRING, 45), b"caf\xe9", "bytes 636166e9"),
        (Type("int8"), definition("a", FIELD_TYPE.TINY), b"300", "'300'"),
        (Type("int8"), definition("a", FIELD_TYPE.TINY), b"", "bytes none"),
    ],
)
def test_value_that_its_type_cannot_hold_names_column_and_value(
    serve: Serve, kind: Type, found: bytes, text: bytes, value: str
) -> None:
    _, connection = serve(result([found], twin.framed([b"\xfb", twin.sized(text), *END], 4)))
    with pytest.raises(DataError) as caught:
        read(connection, [kind], ["price"])
    assert (caught.value.column, caught.value.value, caught.value.transient) == ("price", value, False)
    assert not connection.open, "rows that were not read would answer the next statement"


def test_dates_that_no_calendar_has_are_null_where_asked_and_counted(serve: Serve) -> None:
    fields = [Type("date"), Type("timestamp")]
    definitions = [definition("a", FIELD_TYPE.DATE), definition("b", FIELD_TYPE.DATETIME)]
    rows = [twin.sized(b"0000-00-00") + twin.sized(b"2024-01-01 00:00:00")] * 3
    _, connection = serve(result(definitions, twin.framed([*rows, *END], 5)))
    batches = read_batches(connection, "SELECT a", fields, ["a", "b"], null_dates=[True, True])
    assert [batch.column(0).null_count for batch in batches] == [3]
    assert batches.settled == [3, 0]
    with pytest.raises(DataError, match="a zero or partial date"):
        read(connection, fields, null_dates=[False, True])


STRING, BLOB = FIELD_TYPE.VAR_STRING, FIELD_TYPE.BLOB


@pytest.mark.parametrize(
    ("wanted", "kind", "charset", "fits"),
    [
        (Type("int32"), FIELD_TYPE.LONG, 63, True),
        (Type("int16"), FIELD_TYPE.YEAR, 63, True),
        (Type("int32"), FIELD_TYPE.DOUBLE, 63, False),
        (Type("int32"), STRING, 45, False),
        (Type("float32"), FIELD_TYPE.FLOAT, 63, False),
        (Type("float64"), FIELD_TYPE.FLOAT, 63, False),
        (Type("float32"), FIELD_TYPE.DOUBLE, 63, True),
        (Type("decimal", precision=5, scale=2), FIELD_TYPE.NEWDECIMAL, 63, True),
        (Type("decimal", precision=20, scale=0), FIELD_TYPE.LONGLONG, 63, True),
        (Type("decimal", precision=5, scale=2), FIELD_TYPE.DOUBLE, 63, False),
        (Type("text"), STRING, 45, True),
        (Type("text"), STRING, 255, True),  # MySQL 8: utf8mb4_0900_ai_ci
        (Type("text"), STRING, 2304, True),  # MariaDB 11: utf8mb4_uca1400_ai_ci
        (Type("text"), STRING, 1070, True),  # MariaDB: utf8mb4_nopad_bin
        (Type("text"), STRING, 33, True),
        (Type("text"), STRING, 11, True),
        (Type("text"), STRING, 8, False),  # latin1
        (Type("text"), STRING, 28, False),  # gbk
        (Type("text"), STRING, 2600, False),  # MariaDB: ucs2
        (Type("text"), STRING, 63, False),
        (Type("text"), BLOB, 63, False),
        (Type("text"), FIELD_TYPE.GEOMETRY, 63, False),
        (Type("text"), FIELD_TYPE.BIT, 63, False),
        (Type("text"), FIELD_TYPE.FLOAT, 63, False),
        (Type("text"), FIELD_TYPE.DATE, 63, True),
        (Type("json"), FIELD_TYPE.JSON, 63, True),
        (Type("json"), BLOB, 45, True),
        (Type("enum"), FIELD_TYPE.STRING, 45, True),
        (Type("binary"), BLOB, 63, True),
        (Type("binary"), FIELD_TYPE.GEOMETRY, 63, True),
        (Type("binary"), BLOB, 45, False),
        (Type("date"), FIELD_TYPE.DATE, 63, True),
        (Type("date"), FIELD_TYPE.DATETIME, 63, False),
        (Type("timestamp"), FIELD_TYPE.TIMESTAMP, 63, True),
        (Type("timestamptz"), FIELD_TYPE.DATETIME, 63, True),
        (Type("timestamp"), FIELD_TYPE.TIME, 63, False),
        (Type("duration"), FIELD_TYPE.TIME, 63, True),
        (Type("uuid"), FIELD_TYPE.STRING, 45, True),
        (Type("uuid"), FIELD_TYPE.STRING, 63, False),
        (Type("list", element=Type("text")), FIELD_TYPE.STRING, 45, True),
        (Type("list", element=Type("text")), FIELD_TYPE.LONG, 63, False),
    ],
    ids=str,
)
def test_column_of_the_result_fits_its_type_or_not(wanted: Type, kind: int, charset: int, fits: bool) -> None:
    found = header.ColumnDefinition.parse(definition("a", kind, charset))
    assert (header.misfit(wanted, found) is None) is fits


def test_bits_of_another_length_do_not_fit() -> None:
    found = header.ColumnDefinition.parse(definition("a", FIELD_TYPE.BIT, 63, 8))
    assert header.misfit(Type("bit", length=8), found) is None
    assert "BIT(8) where BIT(9)" in (header.misfit(Type("bit", length=9), found) or "")


def test_column_of_another_type_is_refused_before_the_first_row(serve: Serve) -> None:
    found = definition("a", FIELD_TYPE.FLOAT)
    _, connection = serve(result([found], twin.framed([twin.sized(b"16777200"), *END], 4)))
    with pytest.raises(SourceError, match="column 'price': the server gives a column of type 4") as caught:
        read(connection, [Type("float64")], ["price"])
    assert not caught.value.transient
    assert not connection.open


def test_definition_with_long_names_is_read() -> None:
    assert header.ColumnDefinition.parse(LONG).name == "n" * 300


def test_type_that_nothing_comes_as_is_refused_at_once(serve: Serve) -> None:
    server, connection = serve(b"")
    for kind in (Type("interval"), Type("struct"), Type("timestamp", unit="ns"), Type("bit")):
        with pytest.raises(ValueError, match="cannot be read as"):
            read_batches(connection, "SELECT a", [kind], ["a"])
    assert server.statements == []


# ── early ends ───────────────────────────────────────────────────────────────────────────────────


def test_early_close_closes_the_connection_and_never_raises(serve: Serve) -> None:
    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(result([INT_DEFINITION], twin.framed([ROW] * 1000, 4)))
        sock.recv(1)

    _, connection = serve(answer)
    rows = read_batches(connection, "SELECT a", INT, ["a"], 1000)
    assert next(rows).num_rows > 0
    rows.close()
    assert not connection.open
    rows.close()
    with pytest.raises(StopIteration):
        next(rows)


def test_rows_that_nobody_refers_to_any_more_close_the_connection(serve: Serve) -> None:
    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(result([INT_DEFINITION], twin.framed([ROW] * 1000, 4)))
        sock.recv(1)

    _, connection = serve(answer)
    rows = read_batches(connection, "SELECT a", INT, ["a"], 1000)
    next(rows)
    del rows
    assert not connection.open


def test_cut_from_another_thread_ends_the_reading_with_a_transient_error(serve: Serve) -> None:
    connections: list[Any] = []

    def answer(_: bytes, sock: socket.socket) -> None:
        sock.sendall(result([INT_DEFINITION], twin.framed([ROW], 4)))
        wire_module.cut(connections[0])
        sock.recv(1)

    _, connection = serve(answer)
    connections.append(connection)
    with pytest.raises(SourceError) as caught:
        read(connection)
    assert caught.value.transient
    wire_module.cut(connection)  # of a closed one: nothing


def test_channel_of_a_connection_in_use_leaves_it_alone(serve: Serve) -> None:
    _, connection = serve(twin.framed([OK], 1))
    channel = Channel(connection)
    channel.command("DO 0")
    ok = channel.ok(channel.payload())
    assert (ok.affected_rows, ok.warnings, ok.more_results) == (0, 0, False)
    channel.give_back(ok)
    assert is_usable(connection)
