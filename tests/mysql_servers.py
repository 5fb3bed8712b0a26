"""Throw-away MariaDB servers: real ones, in a temporary folder, on a free loopback port.

``ROWFERRY_TEST_MYSQL_URL`` (an all-powerful user's URL, without a database) takes the place of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pymysql

from servers import CANARY, USER, free_port

#: Fast, and safe enough for everything but a crash of the machine: the operating system keeps what
#: a killed server wrote.
FAST = ("innodb-flush-log-at-trx-commit=2", "sync-binlog=0", "skip-innodb-doublewrite", "innodb-flush-method=fsync")
#: As a server is that reads of it are to be proven on: with a binary log.
USUAL = ("log-bin=binlog", "binlog-format=ROW", "server-id=1", *FAST)


def find_program(name: str) -> str | None:
    """A server program's path: Debian has some of them in /usr/sbin, which not every PATH holds."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


@dataclasses.dataclass
class Mariadb:
    """A running server: ``url`` (a user of all privileges, no database), and where it was started by us its folder."""

    url: str
    host: str
    port: int
    user: str
    password: str
    folder: pathlib.Path | None = None
    process: subprocess.Popen[bytes] | None = None
    settings: Sequence[str] = ()
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _number: int = 0

    @property
    def socket(self) -> str:
        assert self.folder is not None, "a server given by ROWFERRY_TEST_MYSQL_URL has no folder of ours"
        return str(self.folder / "sock")

    @property
    def certificate(self) -> str:
        """The self-signed certificate of 127.0.0.1 and localhost, which is its own root."""
        assert self.folder is not None
        return str(self.folder / "server.crt")

    def url_of(self, database: str, user: str | None = None, password: str | None = None, options: str = "") -> str:
        user, password = user or self.user, password if password is not None else self.password
        login, place = (":".join(quote(p, safe="") for p in (user, password)), quote(database, safe=""))
        return f"mysql://{login}@{self.host}:{self.port}/{place}{options}"

    def connect(self, database: str | None = None, **options: Any) -> pymysql.connections.Connection[Any]:
        return pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=database,
            charset="utf8mb4", autocommit=True, **options,
        )  # fmt: skip

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Runs statements by a plain driver; gives the rows of the last."""
        with contextlib.closing(self.connect(database)) as c, c.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def database(self, name: str | None = None) -> str:
        """Drops and makes a database; gives its URL. Without a name it gets one of its own."""
        with self._lock:
            self._number += 1
            name = name or f"ferry_{os.getpid()}_{self._number}"
        self.execute(f"DROP DATABASE IF EXISTS {quoted(name)}", f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4")
        return self.url_of(name)

    def drop(self, name: str) -> None:
        # A test that left a transaction open must not make all others wait.
        self.execute("SET lock_wait_timeout = 20", f"DROP DATABASE IF EXISTS {quoted(name)}")

    @contextlib.contextmanager
    def account(self, name: str, password: str, *grants: str) -> Iterator[None]:
        """A user for a while; ``grants`` as ``SELECT ON *.*``."""
        who = "'" + name.replace("'", "''") + "'"
        secret = password.replace("\\", "\\\\").replace("'", "\\'")
        # A server may have an anonymous user of localhost, who would go first.
        hosts = ("%", "localhost")
        for host in hosts:
            self.execute(
                f"CREATE OR REPLACE USER {who}@'{host}' IDENTIFIED BY '{secret}'",
                *(f"GRANT {grant} TO {who}@'{host}'" for grant in grants),
            )
        try:
            yield
        finally:
            self.execute(*(f"DROP USER IF EXISTS {who}@'{host}'" for host in hosts))

    def start(self) -> None:
        """Starts the server of this folder and waits until it takes connections."""
        assert self.folder is not None
        program = find_program("mariadbd")
        assert program is not None
        options = [
            "--no-defaults", f"--datadir={self.folder / 'data'}", f"--socket={self.socket}", f"--port={self.port}",
            # Its own: a server that starts removes from there what looks like left-overs, others' tables too.
            f"--tmpdir={self.folder}",
            "--bind-address=127.0.0.1", *(["--user=mysql"] if os.geteuid() == 0 else []),
            *(f"--{setting}" for setting in self.settings),
        ]  # fmt: skip
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen([program, *options], stdout=log, stderr=log, start_new_session=True)
        self.wait()

    def wait(self) -> None:
        """Waits until the server takes connections (30 s at the most)."""
        for _ in range(300):
            try:
                self._connect_as_root().close()
                return
            except pymysql.err.OperationalError:
                if self.process is not None and self.process.poll() is not None:
                    break
                threading.Event().wait(0.1)
        assert self.folder is not None
        raise RuntimeError(f"MariaDB did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def _connect_as_root(self) -> pymysql.connections.Connection[Any]:
        return pymysql.connect(
            unix_socket=self.socket, user="root", autocommit=True, connect_timeout=5, charset="utf8mb4",
            # Whatever the globals say by now.
            init_command="SET SESSION tx_read_only = 0, sql_mode = '', max_statement_time = 0, sql_big_selects = 1, "
            "sql_select_limit = 18446744073709551615, completion_type = 0, system_versioning_asof = DEFAULT, "
            "foreign_key_checks = 1, unique_checks = 1, default_storage_engine = InnoDB",
        )  # fmt: skip

    def as_root(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements through the socket, as the user that no init_connect concerns."""
        with contextlib.closing(self._connect_as_root()) as c, c.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM: shutdown; SIGKILL: as if it had crashed."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def discard(self) -> None:
        """Stops a server of ours and removes its folder."""
        if self.folder is not None:
            try:
                self.stop(signal.SIGKILL)
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    def wait_for(self, primary: Mariadb) -> None:
        """Waits until this replica has what ``primary`` has committed by now (30 s at the most)."""
        file, position = primary.as_root("SHOW MASTER STATUS")[0][:2]
        if self.as_root(f"SELECT MASTER_POS_WAIT('{file}', {position}, 30)")[0][0] in (None, -1):
            raise RuntimeError(f"the replica is behind: {self.as_root('SHOW SLAVE STATUS')}")

    @contextlib.contextmanager
    def globals(self, **values: str) -> Iterator[None]:
        """Sets global variables for a while (values are SQL)."""
        before = {name: self.as_root(f"SELECT @@GLOBAL.{name}")[0][0] for name in values}
        self.as_root(*(f"SET GLOBAL {name} = {value}" for name, value in values.items()))
        try:
            yield
        finally:
            literal = {
                n: "DEFAULT" if v == "DEFAULT" else f"'{v}'" if isinstance(v, str) else str(v)
                for n, v in before.items()
            }
            self.as_root(*(f"SET GLOBAL {name} = {value}" for name, value in literal.items()))


def given(url: str) -> Mariadb:
    """The server that ROWFERRY_TEST_MYSQL_URL names."""
    parts = urlsplit(url)
    return Mariadb(
        url.rstrip("/"), parts.hostname or "127.0.0.1", parts.port or 3306, unquote(parts.username or ""),
        unquote(parts.password or ""),
    )  # fmt: skip


def start(settings: Sequence[str] = USUAL) -> Mariadb:
    """Makes and starts a server: passwords, TLS beside plain text, a unix socket in its folder."""
    install = find_program("mariadb-install-db")
    if install is None or find_program("mariadbd") is None:
        raise RuntimeError("no MariaDB server programs here: run tools/prepare.sh mariadb")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowferry-my-"))
    folder.chmod(0o755)
    owner = ["--user=mysql"] if os.geteuid() == 0 else []
    if owner:
        shutil.chown(folder, "mysql", "mysql")
    try:
        made = subprocess.run(
            [install, "--no-defaults", *owner, f"--datadir={folder / 'data'}", "--skip-test-db",
             f"--tmpdir={folder}",
             "--auth-root-authentication-method=normal", "--innodb-log-file-size=96M", "--innodb-use-native-aio=OFF"],
            check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {made.stdout[-2000:]}")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if owner:
            shutil.chown(folder / "server.key", "mysql", "mysql")
        port = free_port()
        server = Mariadb(
            f"mysql://{USER}:{CANARY}@127.0.0.1:{port}", "127.0.0.1", port, USER, CANARY, folder, None,
            (
                # The system has only so many native ones for all processes together.
                "innodb-use-native-aio=OFF", "local-infile=ON", "max-allowed-packet=64M",
                "innodb-buffer-pool-size=256M", "innodb-log-file-size=96M",
                "max-connections=200", f"ssl-cert={folder / 'server.crt'}", f"ssl-key={folder / 'server.key'}",
                *settings,
            ),
        )  # fmt: skip
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        server.start()
        for host in ("%", "localhost"):
            server.as_root(
                "SET sql_log_bin = 0",  # a replica has its own
                f"CREATE USER '{USER}'@'{host}' IDENTIFIED BY '{CANARY}'",
                f"GRANT ALL ON *.* TO '{USER}'@'{host}' WITH GRANT OPTION",
            )
    except BaseException:
        server.discard()
        raise
    return server


def start_replica(primary: Mariadb, settings: Sequence[str] = ()) -> Mariadb:
    """A server that replicates ``primary`` from its first event on."""
    replica = start(("server-id=2", "read-only=ON", *FAST, *settings))
    try:
        file = primary.as_root("SHOW BINARY LOGS")[0][0]
        replica.as_root(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='{primary.user}', "
            f"MASTER_PASSWORD='{primary.password}', MASTER_LOG_FILE='{file}', MASTER_LOG_POS=4, MASTER_USE_GTID=no",
            "START SLAVE",
        )
    except BaseException:
        replica.discard()
        raise
    return replica
