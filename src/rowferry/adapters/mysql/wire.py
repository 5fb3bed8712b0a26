"""MySQL's client/server protocol, on the socket that PyMySQL logged in with.

PyMySQL does the start: TCP or unix socket, TLS, authentication, character set. For a statement that
moves many rows its socket is borrowed (:class:`Channel`) and given back between two packets, so that
the driver can go on with it; where that cannot be, the connection is closed. This is the one module
that touches the driver's private parts (``_sock``, ``_rfile``, ``_result``, ``_read_timeout``,
``_write_timeout``, ``_current_timeout``, ``_force_close``), and
``tests/kernels/test_mysql_rows_wire.py`` fails when they change. The driver reads through a buffered
file; whatever that has read ahead is taken first.

Packets: https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html and
https://mariadb.com/kb/en/clientserver-protocol/
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import ssl
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from pymysql import err
from pymysql.constants import CLIENT, COMMAND, CR, SERVER_STATUS

from rowferry import limits
from rowferry.adapters.buffers import assemble
from rowferry.adapters.gathering import GATHER_BYTES, Gathering
from rowferry.adapters.mysql import failure, header
from rowferry.errors import DataError, SourceError
from rowferry.limits import SOCKET_READ_BYTES
from rowferry.types import Type

#: Payload of one packet at the most; one of exactly this length is continued in the next.
PACKET_BYTES_MAX = 0xFFFFFF
#: What rows are received into: decoded while it is still in the processor's cache.
SLAB_BYTES = 2 * SOCKET_READ_BYTES


# ── taking the socket ────────────────────────────────────────────────────────────────────────────


class Ok(msgspec.Struct, frozen=True):
    """An OK packet (or the EOF packet of older ends, with its counts at zero)."""

    affected_rows: int
    status: int
    warnings: int
    info: str

    @property
    def more_results(self) -> bool:
        return bool(self.status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)


class Channel:
    """The socket of an idle PyMySQL connection, borrowed for one statement. Used by one thread at a time.

    A failure of the socket or of the protocol closes the connection. Raises PyMySQL's exceptions
    (``failure.py`` makes ours of them): what the server says with its code and SQLSTATE, a lost
    connection as OperationalError(2013).
    """

    def __init__(self, connection: Any) -> None:
        if connection._sock is None:
            raise err.InterfaceError(CR.CR_SERVER_GONE_ERROR, "the connection is closed")
        result = connection._result
        if result is not None and (result.unbuffered_active or result.has_next):
            raise err.InterfaceError(CR.CR_COMMANDS_OUT_OF_SYNC, "another result is still being read")
        self.connection = connection
        self.deprecate_eof = bool(connection.client_flag & connection.server_capabilities & CLIENT.DEPRECATE_EOF)
        #: Number that the next packet bears, ours or the server's.
        self.sequence = 0
        self._sock: socket.socket = connection._sock
        self._gathering = Gathering(self._sock, connection._read_timeout)
        self._buffer = bytearray(self._read_ahead())
        self._at = 0

    def _read_ahead(self) -> bytes:
        """What the driver's buffered file holds: nothing, or what an idle server sends before it hangs up."""
        self._sock.settimeout(0)
        try:
            return bytes(self.connection._rfile.peek(1) or b"")
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError as error:
            raise self.lost(f"the connection broke: {error}") from None
        finally:
            self.connection._current_timeout = self.connection._read_timeout
            self._sock.settimeout(self.connection._read_timeout)

    def _patience(self, seconds: float | None) -> None:
        if self.connection._current_timeout != seconds:
            self._sock.settimeout(seconds)
            self.connection._current_timeout = seconds

    @property
    def closed(self) -> bool:
        return self.connection._sock is None

    def abandon(self) -> None:
        """Closes the connection without a word to the server, which ends what it was doing. Never raises."""
        self.connection._force_close()

    def lost(self, reason: str) -> err.OperationalError:
        """Closes the connection; the exception to raise."""
        self.abandon()
        return err.OperationalError(CR.CR_SERVER_LOST, reason)

    def give_back(self, ok: Ok) -> None:
        """Ends the loan after the last packet of a statement's answer."""
        if ok.more_results or self._at < len(self._buffer):
            raise self.lost("the server sent more than the answer to the statement")
        self.connection.server_status = ok.status

    # -- bytes

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        if self.closed:
            raise err.InterfaceError(CR.CR_SERVER_GONE_ERROR, "the connection is closed")
        try:
            self._patience(self.connection._write_timeout)
            for part in parts:
                self._sock.sendall(part)
        except OSError as error:
            raise self.lost(f"the connection broke while sending: {error}") from None

    def receive_into(self, view: memoryview) -> int:
        """Reads what has come (at least a byte) into ``view``; what was read ahead comes first."""
        if self._at < len(self._buffer):
            n = min(len(view), len(self._buffer) - self._at)
            view[:n] = self._buffer[self._at : self._at + n]
            self._at += n
            return n
        if self.closed:
            raise err.InterfaceError(CR.CR_SERVER_GONE_ERROR, "the connection is closed")
        try:
            if self._gathering.on:
                n = self._gathering.receive_into(view)
            else:
                self._patience(self.connection._read_timeout)
                n = self._sock.recv_into(view)
        except OSError as error:
            raise self.lost(f"the connection broke: {error}") from None
        if n == 0:
            raise self.lost("the server closed the connection")
        return n

    def gather(self, on: bool) -> None:
        """Whether :meth:`receive_into`, the only method to be called then, waits for more than a byte (``Gathering``).
        Nothing where the connection is closed."""
        if self.closed:
            return
        try:
            self._patience(self.connection._read_timeout)
            self._gathering.switch(on)
        except OSError as error:
            raise self.lost(f"the connection broke: {error}") from None

    def _need(self, n: int) -> None:
        """Has at least n unread bytes in the buffer."""
        if self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0
        piece = bytearray(SOCKET_READ_BYTES) if len(self._buffer) - self._at < n else b""
        while len(self._buffer) - self._at < n:
            if self.closed:
                raise err.InterfaceError(CR.CR_SERVER_GONE_ERROR, "the connection is closed")
            try:
                self._patience(self.connection._read_timeout)
                count = self._sock.recv_into(piece)
            except OSError as error:
                raise self.lost(f"the connection broke: {error}") from None
            if count == 0:
                raise self.lost("the server closed the connection")
            self._buffer += memoryview(piece)[:count]

    # -- packets

    def command(self, sql: str) -> None:
        """Sends COM_QUERY: the first packet of an exchange."""
        self.sequence = 0
        self.send_payload(bytes([COMMAND.COM_QUERY]) + sql.encode())

    def send_payload(self, payload: bytes) -> None:
        """Sends one payload, in as many packets as it needs."""
        for start in range(0, len(payload) + 1, PACKET_BYTES_MAX):
            part = payload[start : start + PACKET_BYTES_MAX]
            self.send(len(part).to_bytes(3, "little") + bytes([self.sequence]), part)
            self.sequence = (self.sequence + 1) & 0xFF

    def payload(self) -> bytes:
        """The payload of the next packet, which is no row. An ERR packet is raised."""
        self._need(4)
        size = int.from_bytes(self._buffer[self._at : self._at + 3], "little")
        number = self._buffer[self._at + 3]
        if size in (0, PACKET_BYTES_MAX):
            raise self.lost(f"the server sent a packet of {size} bytes where none is due")
        self._need(4 + size)
        payload = bytes(self._buffer[self._at + 4 : self._at + 4 + size])
        self._at += 4 + size
        if number != self.sequence:
            # A server that goes down, or kills this session, says so by a packet of number 0.
            if number == 0 and payload[0] == 0xFF:
                raise self.server_error(payload, last=True)
            raise self.lost(f"packet number {number} came where {self.sequence} was due")
        self.sequence = (self.sequence + 1) & 0xFF
        if payload[0] == 0xFF:
            raise self.server_error(payload)
        return payload

    def server_error(self, payload: bytes, last: bool = False) -> err.Error:
        """What an ERR packet says, as PyMySQL's exception. last: the server says no more, the connection is closed."""
        if last:
            self.abandon()
        if len(payload) < 3:
            return self.lost("the server sent a broken ERR packet")
        code = int.from_bytes(payload[1:3], "little")
        sqlstate, text = None, payload[3:]
        if text[:1] == b"#" and len(text) >= 6:
            sqlstate, text = text[1:6].decode("ascii", "replace"), text[6:]
        kind: type[err.Error] = err.error_map.get(code, err.OperationalError if code >= 1000 else err.InternalError)
        return kind(code, text.decode("utf-8", "replace"), sqlstate=sqlstate)

    def ok(self, payload: bytes) -> Ok:
        """An OK packet (its first byte: 0, or 0xFE at the end of rows), or an EOF packet, taken apart."""
        try:
            if payload[0] == 0xFE and not self.deprecate_eof:
                if len(payload) != 5:
                    raise IndexError
                return Ok(0, int.from_bytes(payload[3:5], "little"), int.from_bytes(payload[1:3], "little"), "")
            affected, at = length_encoded(payload, 1)
            _, at = length_encoded(payload, at)
            if len(payload) < at + 4:
                raise IndexError
        except IndexError:
            raise self.lost("the server sent a broken OK packet") from None
        status = int.from_bytes(payload[at : at + 2], "little")
        warnings = int.from_bytes(payload[at + 2 : at + 4], "little")
        return Ok(affected, status, warnings, payload[at + 4 :].decode("utf-8", "replace"))


def length_encoded(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer, and where the next field begins. Raises IndexError."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    if first in (0xFB, 0xFF):
        raise IndexError
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    if len(data) < at + 1 + size:
        raise IndexError
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def descriptor(connection: Any) -> int | None:
    """The number of the connection's socket, to wait for; None where it is closed."""
    sock = connection._sock
    return sock.fileno() if sock is not None and sock.fileno() >= 0 else None


def cut(connection: Any) -> None:
    """From another thread: what the connection waits for fails at once. Never raises."""
    # Not close(), which would leave a thread in recv waiting, and might hand its descriptor to another socket;
    # and not TLS's own shutdown, which changes the object that the thread is using.
    sock = connection._sock
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


class _Answer:
    """What a server answers to one SELECT. (It does not know its Rows, so that these end with their last user.)"""

    def __init__(
        self, connection: Any, fields: Sequence[Type], names: Sequence[str], null_dates: Sequence[bool]
    ) -> None:
        self._connection = connection
        self._fields = fields
        self._names = names
        self._decoder: Any = None
        self._kernel_columns = header.kernel_columns(fields, null_dates)
        self._schema = pa.schema([pa.field(n, t.arrow) for n, t in zip(names, fields, strict=True)])
        self.warnings = 0

    @property
    def settled(self) -> list[int]:
        return self._decoder.settled if self._decoder is not None else [0] * len(self._fields)

    def batches(self, sql: str, batch_bytes: int) -> Generator[pa.RecordBatch, None, None]:
        from rowferry._native.mysql_rows import DecodeError, FrameError

        channel = None
        complete = False
        try:
            channel = Channel(self._connection)
            channel.command(sql)
            self._begin(channel)
            yield from self._stream(channel, batch_bytes)
            complete = True
        except err.Error as error:
            # What the server refused as a whole packet leaves the connection in order.
            complete = error.args[0] != CR.CR_SERVER_LOST
            raise failure.from_driver(error, SourceError) from None
        except DecodeError as error:
            raise self._data_error(error) from None
        except FrameError as error:
            broken = err.OperationalError(CR.CR_MALFORMED_PACKET, f"the server's rows are broken: {error}")
            raise failure.from_driver(broken, SourceError) from None
        finally:
            # Rows that were left unread would be the answer to the next statement.
            if channel is not None and not complete:
                channel.abandon()

    def _begin(self, channel: Channel) -> None:
        """Reads the result's header and holds it against what was asked for."""
        from rowferry._native.mysql_rows import Decoder

        first = channel.payload()
        if first[0] in (0x00, 0xFB):
            # 0xFB asks for a file of ours, which nobody gets.
            channel.abandon()
            raise SourceError("the server answered a SELECT with something that is no result")
        try:
            count, at = length_encoded(first, 0)
        except IndexError:
            raise channel.lost("the server sent a broken result header") from None
        if count != len(self._fields) or at != len(first):
            channel.abandon()
            raise SourceError(f"the server gives {count} columns where {len(self._fields)} were asked for")
        for name, wanted in zip(self._names, self._fields, strict=True):
            try:
                found = header.ColumnDefinition.parse(channel.payload())
            except ValueError as error:
                raise channel.lost(f"the server sent {error}") from None
            reason = header.misfit(wanted, found)
            if reason is not None:
                channel.abandon()
                raise SourceError(reason, column=name)
        if not channel.deprecate_eof:
            channel.ok(self._expected_end(channel))
        self._decoder = Decoder(self._kernel_columns, SLAB_BYTES, channel.sequence)

    @staticmethod
    def _expected_end(channel: Channel) -> bytes:
        payload = channel.payload()
        if payload[0] != 0xFE:
            raise channel.lost("the server sent no end of the column definitions")
        return payload

    def _stream(self, channel: Channel, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        decoder = self._decoder
        try:
            yield from self._rows(channel, batch_bytes)
        finally:
            channel.gather(False)
        if decoder.last[0] == 0xFF:
            raise channel.server_error(decoder.last, last=decoder.farewell)
        ok = channel.ok(decoder.last)
        self.warnings = ok.warnings
        channel.give_back(ok)

    def _rows(self, channel: Channel, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        decoder = self._decoder
        received = 0
        while True:
            taken = decoder.take(limits.BATCH_ROWS_MAX, batch_bytes)
            if taken is not None:
                yield assemble(self._schema, taken)
            elif decoder.last is not None:
                return
            else:
                view = decoder.buffer_view(limits.SOCKET_READ_BYTES)
                count = channel.receive_into(view)
                view.release()
                decoder.received(count)
                received += count
                # Not from the first byte on: a small table would wait at its end for what never comes.
                if received >= GATHER_BYTES:
                    channel.gather(True)

    def _data_error(self, error: Any) -> DataError:
        value: bytes = error.value
        shown = value.decode("ascii", "replace")
        printable = shown.isprintable() and "\N{REPLACEMENT CHARACTER}" not in shown
        return DataError(
            f"{self._fields[error.column]}: {error.reason}",
            column=self._names[error.column],
            value=repr(shown) if printable and value else f"bytes {value.hex() or 'none'}",
        )


class Rows(Iterator[pa.RecordBatch]):
    """Batches of one SELECT; see :func:`read_batches`. Closing it before its end closes the connection."""

    def __init__(self, answer: _Answer, sql: str, batch_bytes: int) -> None:
        self._answer = answer
        self._batches = answer.batches(sql, batch_bytes)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Ends the reading; where rows are still to come, the connection is closed. Never raises."""
        self._batches.close()

    @property
    def settled(self) -> list[int]:
        """For each column how many zero, partial and impossible dates were read as NULL so far."""
        return self._answer.settled

    @property
    def warnings(self) -> int:
        """Warnings that the server counted, once the last batch was given."""
        return self._answer.warnings


def read_batches(
    connection: Any,
    sql: str,
    fields: Sequence[Type],
    names: Sequence[str],
    batch_bytes: int = limits.BATCH_BYTES,
    *,
    null_dates: Sequence[bool] = (),
) -> Rows:
    """Runs a SELECT on an idle PyMySQL connection; its rows as batches of about ``batch_bytes``, off the socket.

    fields, names: type and name of each of the SELECT's k columns. Integers, decimals and DOUBLE come as the
        server writes them, FLOAT has to be cast to DOUBLE, BIT as it is, SET as list<text>.
    null_dates: for each column whether zero, partial and impossible dates are read as NULL (and counted in
        ``Rows.settled``) instead of refused.

    Nothing is sent before the first batch is asked for. At the end of the rows, and after an error that the
    server reports, the connection can be used by the driver again; else it is closed, also where the iterator
    is closed early. Memory does not depend on the number of rows: a batch, and the largest row.

    Raises SourceError (transient where another try may succeed; what the server said with its code and
    SQLSTATE), DataError for a value that its type cannot hold, naming column and value; ValueError for a type
    that MySQL has no column for.
    """
    return Rows(_Answer(connection, fields, names, null_dates), sql, batch_bytes)


# ── LOAD DATA LOCAL ──────────────────────────────────────────────────────────────────────────────

#: Bytes of the server's own name for a file in its request at the most: ours has 41.
_REQUEST_BYTES_MAX = 64
#: "Records: 3  Deleted: 0  Skipped: 0  Warnings: 0", in whatever language; a byte of length goes before it.
_LOAD_INFO = re.compile(r"(\d+)\D+(\d+)\D+(\d+)\D+(\d+)\s*$")


class LoadOutcome(msgspec.Struct, frozen=True):
    """What the server says it made of the rows that were sent."""

    records: int
    deleted: int
    skipped: int
    warnings: int
    #: The transaction in which the statement was sent is still open.
    in_transaction: bool


def load_local(connection: Any, into: str, pieces: Iterable[bytes | bytearray | memoryview]) -> LoadOutcome:
    """Runs ``LOAD DATA LOCAL INFILE '…' <into>`` with the pieces as the file's content.

    The server names the file that it wants: that has to be the name which the statement bears, made up here
    and different each time. It is no file's: the answer is ``pieces``, whatever stands on this machine's disks.
    Each piece is a packet (larger ones several); it may change as soon as the next one is asked for.
    Where ``pieces`` raises, the connection is closed: an end of the data that the server would take for the
    right one is never sent. Raises PyMySQL's exceptions, as :class:`Channel`.
    """
    channel = Channel(connection)
    name = f"rowferry-{secrets.token_hex(16)}"
    channel.command(f"LOAD DATA LOCAL INFILE '{name}' {into}")
    request = channel.payload()
    if request != b"\xfb" + name.encode():
        if request[:1] != b"\xfb":
            raise channel.lost("the server did not ask for the rows of LOAD DATA")
        asked = request[1:_REQUEST_BYTES_MAX].decode("utf-8", "backslashreplace")
        raise channel.lost(f"the server asked for another file than the rows: {asked!r}; nothing was sent")
    try:
        for piece in pieces:
            _send_piece(channel, piece)
    except BaseException:
        channel.abandon()
        raise
    _send_packet(channel, b"")
    ok = channel.ok(channel.payload())
    found = _LOAD_INFO.search(ok.info)
    if found is None:
        raise channel.lost(f"the server did not count what it loaded: {ok.info[:100]!r}")
    channel.give_back(ok)
    records, deleted, skipped, warnings = (int(number) for number in found.groups())
    in_transaction = bool(ok.status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)
    return LoadOutcome(records, deleted, skipped, max(warnings, ok.warnings), in_transaction)


def _send_piece(channel: Channel, piece: bytes | bytearray | memoryview) -> None:
    with memoryview(piece) as view:
        # A packet of no bytes would end the data.
        for start in range(0, len(view), PACKET_BYTES_MAX - 1):
            with view[start : start + PACKET_BYTES_MAX - 1] as part:
                _send_packet(channel, part)


def _send_packet(channel: Channel, part: bytes | memoryview) -> None:
    channel.send(len(part).to_bytes(3, "little") + bytes([channel.sequence]), part)
    channel.sequence = (channel.sequence + 1) & 0xFF


def in_transaction(connection: Any) -> bool:
    """What the server said of it after the last statement."""
    return bool(connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def warning_count(connection: Any) -> int:
    """Warnings and notes that the last statement of the driver left."""
    return int(connection._result.warning_count) if connection._result is not None else 0
