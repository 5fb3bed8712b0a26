"""PostgreSQL's frontend/backend protocol 3.0, on the socket that pg8000 logged in with.

pg8000 does the start: TCP or unix socket, TLS, SCRAM. From then on the socket is ours: this is the
one module that touches the driver's private attributes (``_usock``, ``_sock``,
``_backend_key_data``), and ``tests/adapters/test_postgres_wire.py`` fails when they change. The
driver reads through a buffered file; whatever that has read ahead is taken over first.

Messages: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from rowferry.adapters.gathering import Gathering
from rowferry.limits import CELL_BYTES_MAX, SOCKET_READ_BYTES

_HEADER = struct.Struct("!ci")
_INT = struct.Struct("!i")
_SHORT = struct.Struct("!h")
#: Bytes of one CopyData message that we send at the most: large enough that its 5 bytes of header
#: are nothing, small enough that the server's buffer for one message stays small.
COPY_DATA_BYTES_MAX = 1 << 20
#: No message of a sane server is longer: a row of one cell of 1 GiB, and its header.
MESSAGE_BYTES_MAX = CELL_BYTES_MAX + (1 << 20)


class ConnectionLostError(Exception):
    """The connection broke, or what came over it is not the protocol; it is closed by now."""


class ServerError(Exception):
    """An ErrorResponse. ``fields``: by the protocol's letters (C: SQLSTATE, M, D, H, W: context, c: column …)."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", "unknown error"))
        self.fields = fields


class Result(msgspec.Struct):
    """What one statement gave: column type OIDs, rows of texts (None: NULL), and its command tag."""

    oids: list[int]
    rows: list[tuple[str | None, ...]]
    tag: str = ""

    @property
    def count(self) -> int:
        """Rows that the tag counts (``INSERT 0 5``, ``COPY 5``); 0 where it counts none."""
        last = self.tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0


def error_fields(payload: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse."""
    return {
        part[:1].decode("ascii", "replace"): part[1:].decode("utf-8", "replace")
        for part in bytes(payload).split(b"\0")
        if part
    }


def _take_over(connection: Any) -> tuple[socket.socket, bytes, bytes]:
    """The socket of a pg8000 connection that is logged in and idle, what the driver has read ahead,
    and its backend key."""
    sock: socket.socket = connection._usock
    file = connection._sock
    sock.settimeout(0)
    try:
        ahead = bytes(file.peek(1) or b"")
    except (BlockingIOError, ssl.SSLWantReadError):
        ahead = b""
    sock.settimeout(None)
    key = bytes(connection._backend_key_data or b"")
    # The driver must never read from or close this socket again. Closing its file leaves the socket open.
    connection._usock = connection._sock = None
    file.close()
    return sock, ahead, key


class Wire:
    """One connection after its login. Used by one thread at a time.

    Any failure of the socket or of the protocol closes it and raises ConnectionLostError; an
    ErrorResponse raises ServerError once the server is ready again.
    """

    def __init__(self, connection: Any) -> None:
        self.parameters: dict[str, str] = dict(connection.parameter_statuses)
        self._sock, ahead, self.backend_key = _take_over(connection)
        self._buffer = bytearray(ahead)
        self._at = 0
        self.closed = False
        self._gathering = Gathering(self._sock, None)
        #: I: idle, T: in a transaction, E: in a failed one.
        self.status = "I"
        if self._sock.family in (socket.AF_INET, socket.AF_INET6):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- bytes

    def _lost(self, reason: str) -> ConnectionLostError:
        self.abandon()
        return ConnectionLostError(reason)

    def abandon(self) -> None:
        """Closes the socket without a word to the server, which rolls back what was open."""
        if not self.closed:
            self.closed = True
            self._sock.close()

    def cut(self) -> None:
        """From another thread: what this connection waits for fails at once. Never raises."""
        # Not close(), which would leave a thread in recv waiting, and might hand its descriptor to another socket;
        # and not TLS's own shutdown, which changes the object that the thread is using.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the session. Never raises."""
        if not self.closed:
            # Where the other side is gone already, that is what we want.
            with contextlib.suppress(OSError):
                self._sock.settimeout(1)
                self._sock.sendall(b"X\0\0\0\4")
            self.abandon()

    def send(self, *parts: bytes | memoryview) -> None:
        if self.closed:
            raise ConnectionLostError("the connection is closed")
        try:
            for part in parts:
                self._sock.sendall(part)
        except OSError as error:
            raise self._lost(f"the connection broke while sending: {error}") from None

    def receive_into(self, view: memoryview) -> int:
        """Reads what has come (at least a byte) into ``view``; what was buffered already comes first."""
        if self.closed:
            raise ConnectionLostError("the connection is closed")
        if self._at < len(self._buffer):
            n = min(len(view), len(self._buffer) - self._at)
            view[:n] = self._buffer[self._at : self._at + n]
            self._at += n
            return n
        try:
            n = self._gathering.receive_into(view) if self._gathering.on else self._sock.recv_into(view)
        except OSError as error:
            raise self._lost(f"the connection broke: {error}") from None
        if n == 0:
            raise self._lost("the server closed the connection")
        return n

    def gather(self, on: bool) -> None:
        """Whether :meth:`receive_into` waits for more than the server's sends of 8 KiB (``Gathering``)."""
        if self.closed:
            raise ConnectionLostError("the connection is closed")
        try:
            self._gathering.switch(on)
        except OSError as error:
            raise self._lost(f"the connection broke: {error}") from None

    def give_back(self, data: bytes) -> None:
        """Puts bytes that were read too far back in front."""
        self._buffer = bytearray(data) + self._buffer[self._at :]
        self._at = 0

    def _need(self, n: int) -> None:
        """Has at least n unread bytes in the buffer."""
        if self._at and self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0
        while len(self._buffer) - self._at < n:
            if self.closed:
                raise ConnectionLostError("the connection is closed")
            try:
                data = self._sock.recv(SOCKET_READ_BYTES)
            except OSError as error:
                raise self._lost(f"the connection broke: {error}") from None
            if not data:
                raise self._lost("the server closed the connection")
            self._buffer += data

    def readable(self) -> bool:
        """Whether something has come that was not asked for (an error, or the end). Never waits.

        Only a read can tell: a TLS record may be a session ticket, which is no data.
        """
        if self.closed or self._at < len(self._buffer):
            return True
        try:
            self._sock.settimeout(0)
            try:
                data = self._sock.recv(SOCKET_READ_BYTES)
            finally:
                self._sock.settimeout(None)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            self.abandon()
            return True
        if not data:
            self.abandon()
        self._buffer += data
        return True

    # -- messages

    def message(self) -> tuple[bytes, bytes]:
        """The next message (its type, its payload). Notices and changed parameters are taken in passing."""
        while True:
            self._need(5)
            kind, length = _HEADER.unpack_from(self._buffer, self._at)
            if length < 4 or length > MESSAGE_BYTES_MAX:
                raise self._lost(f"the server sent a message of {length} bytes: not the protocol")
            self._need(1 + length)
            payload = bytes(self._buffer[self._at + 5 : self._at + 1 + length])
            self._at += 1 + length
            if kind == b"S":
                name, value = payload.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode("utf-8", "replace")
            elif kind == b"E":
                fields = error_fields(payload)
                # FATAL and PANIC: nothing follows but the end.
                if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
                    self.abandon()
                    raise ServerError(fields)
                return kind, payload
            elif kind not in (b"N", b"A"):
                return kind, payload

    def until_ready(self) -> list[Result]:
        """Collects results up to ReadyForQuery; then raises the first ServerError, if there was one."""
        results: list[Result] = []
        current = Result([], [])
        error: ServerError | None = None
        while True:
            kind, payload = self.message()
            if kind == b"D":
                current.rows.append(_data_row(payload))
            elif kind == b"T":
                current.oids = _row_description(payload)
            elif kind == b"C":
                current.tag = payload[:-1].decode()
                results.append(current)
                current = Result([], [])
            elif kind == b"E":
                error = error or ServerError(error_fields(payload))
            elif kind == b"Z":
                self.status = payload.decode()
                if error is not None:
                    raise error
                return results
            elif kind == b"G":
                # A statement text that turned out to be COPY FROM STDIN: refuse, do not hang.
                self.send(b"f" + _INT.pack(4 + 1) + b"\0")
            elif kind not in (b"1", b"2", b"3", b"n", b"t", b"I", b"s", b"H", b"d", b"c"):
                raise self._lost(f"the server sent a message of type {kind!r} that was not expected")

    def simple(self, sql: str) -> list[Result]:
        """Runs statements without parameters by the simple query protocol, in one round trip."""
        self.send(_query(sql))
        return self.until_ready()

    def extended(self, sql: str, params: Sequence[str | None]) -> Result:
        """Runs one statement with parameters $1 … as texts whose types the server infers, in one round trip."""
        text = sql.encode()
        bind = bytearray(b"\0\0" + _SHORT.pack(0) + struct.pack("!H", len(params)))
        for value in params:
            if value is None:
                bind += _INT.pack(-1)
            else:
                data = value.encode()
                bind += _INT.pack(len(data)) + data
        bind += _SHORT.pack(0)
        self.send(
            _framed(b"P", b"\0" + text + b"\0" + _SHORT.pack(0))
            + _framed(b"B", bind)
            + _framed(b"D", b"P\0")
            + _framed(b"E", b"\0" + _INT.pack(0))
            + _framed(b"S", b"")
        )
        results = self.until_ready()
        return results[-1] if results else Result([], [])

    # -- COPY

    def copy_out(self, sql: str) -> None:
        """Sends statements of which one is COPY … TO STDOUT, and reads up to its CopyOutResponse.

        What follows is read by the caller (:meth:`receive_into`), who gives back what is no CopyData
        and ends with :meth:`until_ready`. Raises ServerError, and the connection is ready again.
        """
        self.send(_query(sql))
        while True:
            kind, payload = self.message()
            if kind == b"H":
                return
            if kind == b"E":
                self._raise_when_ready(ServerError(error_fields(payload)))
            if kind == b"Z":
                self.status = payload.decode()
                raise self._lost("the server did not begin to copy")

    def copy_in(self, sql: str) -> None:
        """Sends a COPY … FROM STDIN and reads up to its CopyInResponse."""
        self.send(_query(sql))
        kind, payload = self.message()
        if kind == b"E":
            self._raise_when_ready(ServerError(error_fields(payload)))
        if kind != b"G":
            raise self._lost("the server did not begin to copy")

    def copy_data(self, data: Any) -> None:
        """Sends bytes of a COPY … FROM STDIN. Raises what the server says against it as soon as it does."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), COPY_DATA_BYTES_MAX):
            self._heed_error()
            part = view[start : start + COPY_DATA_BYTES_MAX]
            self.send(b"d" + _INT.pack(len(part) + 4), part)

    def copy_frames(self, data: Any) -> None:
        """The same for bytes that are CopyData messages already."""
        self._heed_error()
        self.send(memoryview(data).cast("B"))

    def _heed_error(self) -> None:
        """Raises what the server has sent against the COPY; called only between whole messages of ours.
        Nothing else comes meanwhile: no notices are let through."""
        if not self.readable():
            return
        kind, payload = self.message()
        if kind == b"E":
            self._raise_when_ready(ServerError(error_fields(payload)))
        raise self._lost(f"the server sent {kind!r} during COPY")

    def copy_done(self) -> int:
        """Ends a COPY … FROM STDIN; returns the rows that the server counted."""
        self.send(_framed(b"c", b""))
        results = self.until_ready()
        if not results or not results[-1].tag.startswith("COPY "):
            raise self._lost("the server did not say how many rows it copied")
        return results[-1].count

    def copy_fail(self, reason: str) -> None:
        """Gives up a COPY … FROM STDIN: the server undoes it."""
        self.send(_framed(b"f", reason.encode() + b"\0"))
        try:
            self.until_ready()
        except ServerError as error:
            if error.fields.get("C") != "57014":
                raise

    def _raise_when_ready(self, error: ServerError) -> None:
        """Reads to ReadyForQuery, so that the connection can be used again, and raises the first error."""
        try:
            self.until_ready()
        except ServerError:
            raise error from None
        raise error

    def messages_until_ready(self) -> Iterator[tuple[bytes, bytes]]:
        """The raw messages up to and with ReadyForQuery."""
        while True:
            kind, payload = self.message()
            if kind == b"Z":
                self.status = payload.decode()
            yield kind, payload
            if kind == b"Z":
                return


def _framed(kind: bytes, payload: bytes | bytearray) -> bytes:
    return kind + _INT.pack(len(payload) + 4) + payload


def _query(sql: str) -> bytes:
    data = sql.encode()
    if b"\0" in data:
        raise ServerError({"C": "22021", "M": "a statement cannot hold a NUL byte"})
    return _framed(b"Q", data + b"\0")


def _row_description(payload: bytes) -> list[int]:
    (count,) = struct.unpack_from("!H", payload)
    at, oids = 2, []
    for _ in range(count):
        at = payload.index(b"\0", at) + 1
        oids.append(struct.unpack_from("!I", payload, at + 6)[0])
        at += 18
    return oids


def _data_row(payload: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!H", payload)
    row: list[str | None] = []
    at = 2
    for _ in range(count):
        (length,) = _INT.unpack_from(payload, at)
        at += 4
        if length < 0:
            row.append(None)
        else:
            row.append(payload[at : at + length].decode())
            at += length
    return tuple(row)
