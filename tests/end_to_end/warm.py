"""Starts commands from a process that has the libraries loaded: half of what a short command costs is Python's start.

A command is a process of its own all the same: forked, in a session of its own, with the environment and the folder
that it is given, and it imports rowferry itself (what that reads of the environment is the command's). It is killed,
waited for and measured like any other. What a start costs, and how much memory a process has, is looked at in commands
that are started cold (``ferry.start``).

Run as a program this is the process that forks: ``python warm.py SOCKET``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import pathlib
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

#: What commands load, none of it rowferry's own, and nothing that starts a thread which would miss in a fork.
LIBRARIES = (
    "pyarrow", "pyarrow.compute", "pyarrow.parquet", "duckdb", "pg8000.native", "pymysql", "sqlite3", "ssl", "msgspec",
    "click", "rich.console", "rich.live", "rich.progress", "rich.table", "decimal", "uuid", "asyncio",
    "cryptography.hazmat.primitives.asymmetric.padding",
)  # fmt: skip
_MESSAGE_BYTES = 1 << 20


class Started:
    """A command that was started, in the manner of ``subprocess.Popen``."""

    def __init__(self, connection: socket.socket) -> None:
        # The process itself and not its number: who forked it also waits for it, and a number is soon another's.
        sent, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not sent:
            raise RuntimeError("the process that starts commands has gone")
        self._process = descriptors[0]
        self._connection = connection
        self._ended: dict[str, Any] | None = None

    def ended(self, wait_s: float | None) -> tuple[int, float] | None:
        """(exit code as ``Popen.returncode`` has it, CPU seconds) once it has ended; None after ``wait_s``."""
        if self._ended is None:
            self._connection.settimeout(wait_s)
            try:
                self._ended = _received(self._connection)
            except TimeoutError:
                return None
            self._connection.close()
            os.close(self._process)
        return os.waitstatus_to_exitcode(self._ended["status"]), self._ended["cpu_s"]

    def kill(self) -> int:
        """Kills it with SIGKILL; its exit code, which is another than that of a killed one if it was too late."""
        if self._ended is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself since
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        ended = self.ended(None)
        assert ended is not None
        return ended[0]


def start(arguments: tuple[str, ...], env: dict[str, str], output: Any) -> Started:
    """Starts ``rowferry ARGUMENTS``; ``output`` takes both of its streams (None: nobody does)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    message = json.dumps({"arguments": arguments, "env": env, "folder": os.getcwd()}).encode()
    with open(os.devnull, "w") if output is None else contextlib.nullcontext(output) as file:
        socket.send_fds(connection, [len(message).to_bytes(4, "big")], [file.fileno()])
        connection.sendall(message)
        return Started(connection)


@functools.cache
def _server() -> str:
    """The path of the forking process's socket; it is started once, and ends with this process."""
    folder = tempfile.mkdtemp(prefix="rowferry-warm-")
    path = os.path.join(folder, "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        # As the command line itself says it before it loads Arrow.
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system")},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.stdin.close)
    assert process.stdout.readline() == b"ready\n", "the process that starts commands did not start"
    return path


def _received(connection: socket.socket) -> dict[str, Any]:
    """One message: JSON in a line."""
    text = b""
    while not text.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            raise RuntimeError("the process that starts commands has gone")
        text += piece
    found: dict[str, Any] = json.loads(text)
    return found


# --- the process that forks ------------------------------------------------------------------


def serve(path: str) -> None:
    """Forks until nobody holds our standard input any more."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not any(name.split(".")[0] == "rowferry" for name in sys.modules)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ, None)
        selector.register(0, selectors.EVENT_READ, None)
        while True:
            for key, _ in selector.select():
                if key.fileobj == 0:
                    pathlib.Path(path).unlink(missing_ok=True)
                    pathlib.Path(path).parent.rmdir()
                    return
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    pid, process = _forked(connection, [listener, selector])
                    selector.register(process, selectors.EVENT_READ, (pid, connection))
                else:
                    _report(*key.data)
                    selector.unregister(key.fileobj)
                    os.close(key.fd)


def _forked(connection: socket.socket, ours: list[Any]) -> tuple[int, int]:
    """The command that is asked for on a connection: its number, and a descriptor of its process, which whoever
    asked is given too."""
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 1)
    left, text = int.from_bytes(size, "big"), b""
    while len(text) < left:
        text += connection.recv(min(left - len(text), _MESSAGE_BYTES))
    asked = json.loads(text)
    pid = os.fork()
    if not pid:
        for each in (*ours, connection):
            each.close()
        _become(asked["arguments"], asked["env"], asked["folder"], descriptors[0])
    os.close(descriptors[0])
    process = os.pidfd_open(pid)
    socket.send_fds(connection, [b"+"], [process])
    return pid, process


def _report(pid: int, connection: socket.socket) -> None:
    _, status, usage = os.wait4(pid, 0)
    with contextlib.suppress(OSError), connection:  # whoever asked may not want to know any more
        message = {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime}
        connection.sendall(json.dumps(message).encode() + b"\n")


def _become(arguments: list[str], env: dict[str, str], folder: str, output: int) -> None:
    """Runs the command in this process, as ``python -m rowferry`` does, and never returns."""
    code: Any = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        sys.path[0] = folder
        sys.argv = ["rowferry", *arguments]
        code = 0
        runpy.run_module("rowferry", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:  # noqa: BLE001 - what a plain interpreter would print at its end
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
