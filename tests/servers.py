"""Throw-away PostgreSQL servers: real ones, in a temporary folder, on a free loopback port.

``ROWFERRY_TEST_POSTGRES_URL`` (a superuser's URL, without a database) takes the place of one.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import psycopg

#: In no output, log, report or ledger may this ever show.
CANARY = "canary-s3cret"
USER = "ferry"

#: Fast, and safe enough for everything but a crash of the machine: the operating system keeps what
#: a killed server wrote.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def find_programs() -> pathlib.Path | None:
    """The folder of initdb and postgres: the newest that Debian installed, else that of the PATH."""
    folders = sorted(
        pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return pathlib.Path(found).parent if found else None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclasses.dataclass
class Postgres:
    """A running server: ``url`` (superuser, no database), and where it was started by us its folder."""

    url: str
    host: str
    port: int
    user: str
    password: str
    folder: pathlib.Path | None = None
    process: subprocess.Popen[bytes] | None = None
    programs: pathlib.Path | None = None
    settings: Sequence[str] = ()
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _number: int = 0

    @property
    def socket_folder(self) -> str:
        assert self.folder is not None, "a server given by ROWFERRY_TEST_POSTGRES_URL has no folder of ours"
        return str(self.folder)

    @property
    def certificate(self) -> str:
        """The self-signed certificate of 127.0.0.1 and localhost, which is its own root."""
        assert self.folder is not None
        return str(self.folder / "server.crt")

    def url_of(self, database: str, user: str | None = None, password: str | None = None) -> str:
        user, password = user or self.user, password if password is not None else self.password
        return f"postgresql://{quote(user)}:{quote(password)}@{self.host}:{self.port}/{quote(database)}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url_of(database), autocommit=True)

    def database(self, name: str | None = None) -> str:
        """Drops and makes a database; gives its URL. Without a name it gets one of its own."""
        with self._lock:
            self._number += 1
            name = name or f"ferry_{os.getpid()}_{self._number}"
        quoted = '"' + name.replace('"', '""') + '"'
        with self.connect() as c:
            c.execute(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)".encode())
            c.execute(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8'".encode())
        return self.url_of(name)

    def drop(self, name: str) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        with self.connect() as c:
            c.execute(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)".encode())

    def start(self) -> None:
        """Starts the server of this folder and waits until it takes connections."""
        assert self.folder is not None and self.programs is not None
        options = [
            f"-p{self.port}", f"-k{self.folder}", "-clisten_addresses=127.0.0.1",
            *(f"-c{setting}" for setting in self.settings),
        ]  # fmt: skip
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [*as_owner(), str(self.programs / "postgres"), f"-D{self.folder / 'data'}", *options],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.wait()

    def wait(self) -> None:
        """Waits until the server takes connections (20 s at the most)."""
        assert self.folder is not None and self.programs is not None
        ready = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        for _ in range(200):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            if self.process is not None and self.process.poll() is not None:
                break
            threading.Event().wait(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown; SIGQUIT: as if it had crashed."""
        if self.process is not None:
            pid = int((self.folder / "data/postmaster.pid").read_text().split()[0]) if self.folder else 0
            if pid:
                os.kill(pid, how)
            self.process.wait(30)
            self.process = None

    def discard(self) -> None:
        """Stops a server of ours and removes its folder."""
        if self.folder is not None:
            try:
                self.stop(signal.SIGQUIT)
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)


class Proxy:
    """A TCP proxy in front of a server, for one connection at a time cut at a chosen word.

    ``cut_at``: the next message to the server that holds this word is passed on; once the server has
    answered, the client's connection is closed without the answer.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_at: bytes | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self._to)
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    try:
                        data = ready.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    if ready is client and self.cut_at is not None and self.cut_at in data:
                        self.cut_at = None
                        server.sendall(data)
                        server.recv(1 << 16)
                        self.cuts += 1
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        self._listener.close()


def as_owner() -> list[str]:
    """What precedes a server program: PostgreSQL does not run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []


def given(url: str) -> Postgres:
    """The server that ROWFERRY_TEST_POSTGRES_URL names."""
    parts = urlsplit(url)
    return Postgres(
        url.rstrip("/"), parts.hostname or "127.0.0.1", parts.port or 5432, parts.username or "", parts.password or ""
    )


def start(settings: Sequence[str] = FAST) -> Postgres:
    """Makes and starts a server: SCRAM passwords, TLS beside plain text, a unix socket in its folder."""
    programs = find_programs()
    if programs is None:
        raise RuntimeError("no PostgreSQL server programs here: run tools/prepare.sh postgres")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowferry-pg-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    (folder / "password").write_text(CANARY)
    (folder / "password").chmod(0o644)
    run = [*as_owner()]
    # No locale files are needed for C.UTF-8, and its order differs from that of bytes in nothing that matters here.
    subprocess.run(
        [*run, str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "--auth=scram-sha-256",
         f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (folder / "password").unlink()
    subprocess.run(
        [*run, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    port = free_port()
    server = Postgres(
        f"postgresql://{USER}:{CANARY}@127.0.0.1:{port}", "127.0.0.1", port, USER, CANARY, folder, None, programs,
        (
            "wal_level=logical", "max_connections=200", "shared_buffers=128MB", "log_min_messages=warning", "ssl=on",
            f"ssl_cert_file={folder / 'server.crt'}", f"ssl_key_file={folder / 'server.key'}", *settings,
        ),
    )  # fmt: skip
    try:
        server.start()
    except BaseException:
        server.discard()
        raise
    return server


def start_standby(primary: Postgres) -> Postgres:
    """A hot standby of a server of ours, streaming from it."""
    assert primary.folder is not None and primary.programs is not None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowferry-pg-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    environment = {**os.environ, "PGPASSWORD": primary.password}
    subprocess.run(
        [*as_owner(), str(primary.programs / "pg_basebackup"), "-h", "127.0.0.1", "-p", str(primary.port),
         "-U", primary.user, "-D", str(folder / "data"), "-R", "--checkpoint=fast", "--no-sync"],
        check=True, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    port = free_port()
    standby = Postgres(
        f"postgresql://{primary.user}:{primary.password}@127.0.0.1:{port}", "127.0.0.1", port, primary.user,
        primary.password, folder, None, primary.programs, (*primary.settings, "hot_standby=on"),
    )  # fmt: skip
    try:
        standby.start()
    except BaseException:
        standby.discard()
        raise
    return standby
