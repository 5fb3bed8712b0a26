"""A server that speaks MySQL's protocol as far as the login, and then sends whatever a test wants.

PyMySQL logs in for real (with TLS where asked for); what it then sends and how the client is hung up on
is the test's. No server that can be installed breaks its own packets.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from kernels import mysql_rows_reference as twin

OK = b"\0\0\0\2\0\0\0"
CAPABILITIES = CLIENT.CAPABILITIES | CLIENT.DEPRECATE_EOF | CLIENT.LOCAL_FILES

#: What the server does with a statement: it is given the statement and the socket.
Answer = Callable[[bytes, socket.socket], None]


def greeting(capabilities: int) -> bytes:
    low, high = (capabilities & 0xFFFF).to_bytes(2, "little"), (capabilities >> 16).to_bytes(2, "little")
    start = b"\x0a8.4.0-hostile\0" + (7).to_bytes(4, "little") + b"12345678\0" + low + b"\x2d\2\0" + high
    return start + b"\x15" + bytes(10) + b"123456789012\0" + b"mysql_native_password\0"


def definition(name: str, kind: int, charset: int = 63, length: int = 20, decimals: int = 0) -> bytes:
    """A column definition packet's payload."""
    texts = (b"def", b"db", b"t", b"t", name.encode(), name.encode())
    fixed = charset.to_bytes(2, "little") + length.to_bytes(4, "little") + bytes([kind, 0, 0, decimals, 0, 0])
    return b"".join(twin.sized(text) for text in texts) + b"\x0c" + fixed


def result(definitions: list[bytes], rows: bytes, deprecate_eof: bool = False) -> bytes:
    """A whole answer: header, definitions, and then ``rows``, whose first packet bears the number that is due."""
    header = [bytes([len(definitions)]), *definitions, *([] if deprecate_eof else [twin.EOF])]
    return twin.framed(header, 1) + rows


class HostileServer:
    """Takes one connection. ``statements`` are those that were answered by ``answer``."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.statements: list[bytes] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def connect(self, **options: Any) -> pymysql.connections.Connection[Any]:
        host, port = self._listener.getsockname()
        return pymysql.connect(
            host=host, port=port, user="u", password="p", charset="utf8mb4", autocommit=None,
            ssl_disabled=self._context is None, **options,
        )  # fmt: skip

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _serve(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # closed before anybody came
            return
        try:
            with sock, contextlib.suppress(ConnectionError, ssl.SSLEOFError):  # the client may hang up at any time
                self._talk(sock)
        except (OSError, AssertionError, ValueError) as error:
            self.failure = error

    def _talk(self, sock: socket.socket) -> None:
        number = 0
        sock.sendall(twin.framed([greeting(CAPABILITIES | (CLIENT.SSL if self._context else 0))], number))
        reply = receive_packet(sock)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
            reply = receive_packet(sock)
        assert reply is not None
        sock.sendall(twin.framed([OK], 3 if self._context else 2))
        while (packet := receive_packet(sock)) is not None and packet[:1] == b"\x03":
            if packet.startswith(b"\x03SET "):
                sock.sendall(twin.framed([OK], 1))
            else:
                self.statements.append(packet[1:])
                self._answer(packet[1:], sock)


def receive_packet(sock: socket.socket) -> bytes | None:
    """One packet of the client's (those of these tests fit one); None at its end."""
    header = receive(sock, 4)
    return None if header is None else receive(sock, int.from_bytes(header[:3], "little"))


def receive(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            return None
        data += part
    return data
