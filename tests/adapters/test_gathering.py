"""Waits that end when much has come: fewer of them, and none that waits for what does not come."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rowferry.adapters.gathering import GATHER_BYTES, GATHER_WAIT_S, Gathering

PIECE = b"x" * 16_384


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's end and ours, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    with ours, server:
        yield server, ours


def received(gathering: Gathering, size: int) -> int:
    """Reads so many bytes; in how many pieces they came."""
    view, pieces = memoryview(bytearray(1 << 20)), 0
    while size:
        count = gathering.receive_into(view[: min(size, len(view))])
        assert count
        size -= count
        pieces += 1
    return pieces


def test_small_sends_are_received_many_at_a_time(pair: tuple[socket.socket, socket.socket]) -> None:
    server, ours = pair
    gathering = Gathering(ours, 5.0)
    gathering.switch(True)
    sends = 640
    sender = threading.Thread(target=lambda: [server.sendall(PIECE) for _ in range(sends)])
    sender.start()
    pieces = received(gathering, sends * len(PIECE))
    sender.join()
    assert pieces <= sends // 3


def test_what_comes_slowly_is_waited_for_a_moment_at_the_most(pair: tuple[socket.socket, socket.socket]) -> None:
    server, ours = pair
    gathering = Gathering(ours, 5.0)
    gathering.switch(True)
    view = memoryview(bytearray(1 << 20))
    for _ in range(5):
        server.sendall(b"abc")
        began = time.monotonic()
        assert gathering.receive_into(view) == 3
        assert time.monotonic() - began < 2.5  # half of the patience, on a machine that does other things too
        assert gathering.on


def test_a_server_that_is_thinking_is_waited_for_as_long_as_without_gathering(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, ours = pair
    gathering = Gathering(ours, 0.2)
    gathering.switch(True)
    view = memoryview(bytearray(8))
    timer = threading.Timer(0.05, server.sendall, (b"late",))
    timer.start()
    assert gathering.receive_into(view) == 4
    timer.join()
    with pytest.raises(TimeoutError):
        gathering.receive_into(view)


def test_a_server_that_hangs_up_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    server, ours = pair
    gathering = Gathering(ours, 5.0)
    gathering.switch(True)
    server.close()
    assert gathering.receive_into(memoryview(bytearray(8))) == 0


def test_a_socket_that_gathers_no_more_waits_for_a_byte_again(pair: tuple[socket.socket, socket.socket]) -> None:
    server, ours = pair
    gathering = Gathering(ours, 3.0)
    for on in (True, False):
        gathering.switch(on)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == (GATHER_BYTES if on else 1)
        assert ours.gettimeout() == (GATHER_WAIT_S if on else 3.0)
    server.sendall(b"a")
    assert ours.recv(8) == b"a"
