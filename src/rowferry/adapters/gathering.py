"""Waits on a server's socket that end when much has come, and not at each of the server's small sends."""

from __future__ import annotations

import socket
import ssl

#: How much gathers before a reader is woken, and how long it may take (seconds): servers send 8 or 16 KiB at a time,
#: and each waking costs both sides a switch and a round of Python.
GATHER_BYTES = 192 << 10
GATHER_WAIT_S = 0.004


class Gathering:
    """One socket's waits. While it is on, nothing else is to be called that reads or sends: it would fail where it has
    to wait.

    patience_s: how long the socket waits where nothing is gathered; None: for ever.
    """

    def __init__(self, sock: socket.socket, patience_s: float | None) -> None:
        # Never under TLS, whose bytes are not the socket's.
        self._sock = None if isinstance(sock, ssl.SSLSocket) else sock
        self._patience_s = patience_s
        self.on = False

    def switch(self, on: bool) -> None:
        """Whether waits gather. Raises OSError."""
        if self._sock is None or on == self.on:
            return
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHER_BYTES if on else 1)
        self._sock.settimeout(GATHER_WAIT_S if on else self._patience_s)
        self.on = on

    def receive_into(self, view: memoryview) -> int:
        """recv_into of a socket that gathers. What comes slower (the end of the rows, a server that is thinking) waits
        a moment at the most. Raises OSError."""
        assert self._sock is not None
        try:
            return self._sock.recv_into(view)
        except TimeoutError:
            pass
        self.switch(False)
        count = self._sock.recv_into(view)
        self.switch(True)
        return count
