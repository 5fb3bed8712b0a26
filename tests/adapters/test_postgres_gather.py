"""What a COPY's rows are read with: woken for many bytes at once, and never waiting for bytes that do not come."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

from rowferry.adapters.gathering import GATHER_BYTES, GATHER_WAIT_S
from rowferry.adapters.postgres.wire import ConnectionLostError, Wire


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    return ours, theirs


@pytest.fixture(params=["tcp", "unix"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, socket.socket]]:
    """A wire that gathers, and the server's end of it."""
    ours, theirs = tcp() if request.param == "tcp" else socket.socketpair()
    found = wire_on(ours)
    found.gather(True)
    yield found, theirs
    found.abandon()
    theirs.close()


def wire_on(ours: socket.socket) -> Wire:
    """As after a login: the wire takes a connected socket and the driver's file over it."""
    return Wire(
        types.SimpleNamespace(_usock=ours, _sock=ours.makefile("rwb"), _backend_key_data=b"", parameter_statuses={})
    )


def read(wire: Wire, wanted: int) -> bytes:
    view, data = memoryview(bytearray(1 << 20)), bytearray()
    while len(data) < wanted:
        data += view[: wire.receive_into(view)]
    return bytes(data)


def later(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_few_bytes_come_soon_and_all_of_them(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    begun = time.monotonic()
    for n in range(50):
        server.sendall(bytes([n]) * (n + 1))
        assert read(wire, n + 1) == bytes([n]) * (n + 1)
    assert time.monotonic() - begun < 5


def test_many_bytes_in_small_sends_come_in_few_reads() -> None:
    ours, server = tcp()
    wire = wire_on(ours)
    wire.gather(True)

    def send() -> None:
        for n in range(1000):
            server.sendall(bytes([n % 251]) * 8192)
        server.close()

    sender, view, data, reads = later(send), memoryview(bytearray(1 << 20)), bytearray(), 0
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        while True:
            data += view[: wire.receive_into(view)]
            reads += 1
    sender.join()
    assert bytes(data) == b"".join(bytes([n % 251]) * 8192 for n in range(1000))
    assert reads < 500


def test_server_that_is_silent_for_long_is_waited_for(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    silence_s = 60 * GATHER_WAIT_S

    def send() -> None:
        time.sleep(silence_s)
        server.sendall(b"x")

    begun, sender = time.monotonic(), later(send)
    assert read(wire, 1) == b"x"
    sender.join()
    assert time.monotonic() - begun >= silence_s
    server.sendall(b"y" * (2 * GATHER_BYTES)) if wire._sock.family != socket.AF_UNIX else server.sendall(b"y" * 1000)
    assert read(wire, 1000)[:1000] == b"y" * 1000  # it gathers still


def test_what_is_read_after_gathering_waits_without_end(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    server.sendall(b"z")
    assert read(wire, 1) == b"z"
    wire.gather(False)

    def send() -> None:
        time.sleep(20 * GATHER_WAIT_S)
        server.sendall(b"Z" + struct.pack("!i", 5) + b"I")

    sender = later(send)
    assert wire.message() == (b"Z", b"I")
    sender.join()


@pytest.mark.parametrize("last", [b"", b"the end"])
def test_end_of_the_connection_is_told_after_its_last_bytes(ends: tuple[Wire, socket.socket], last: bytes) -> None:
    wire, server = ends
    server.sendall(last)
    server.close()
    assert read(wire, len(last)) == last
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        read(wire, 1)
    assert wire.closed
    for on in (True, False):
        with pytest.raises(ConnectionLostError, match="closed"):
            wire.gather(on)


def test_reset_of_the_connection_is_told_as_such() -> None:
    ours, server = tcp()
    wire = wire_on(ours)
    wire.gather(True)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender = later(lambda: (time.sleep(10 * GATHER_WAIT_S), server.close()))
    with pytest.raises(ConnectionLostError, match="broke"):
        read(wire, 1)
    sender.join()


def test_cut_from_another_thread_ends_the_wait_at_once(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    cutter = later(lambda: (time.sleep(20 * GATHER_WAIT_S), wire.cut()))
    with pytest.raises(ConnectionLostError):
        read(wire, 1)
    cutter.join(5)
    assert not cutter.is_alive()


def test_socket_that_is_gone_is_a_lost_connection_and_no_other_error() -> None:
    ours, server = tcp()
    wire = wire_on(ours)
    ours.close()
    with pytest.raises(ConnectionLostError, match="broke"):
        wire.gather(True)
    assert wire.closed
    server.close()


def test_tls_is_never_gathered() -> None:
    ours, server = tcp()
    context = ssl.create_default_context()
    wire = wire_on(context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False))
    wire.gather(True)
    assert wire._sock.gettimeout() is None
    assert wire._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    wire.abandon()
    server.close()
