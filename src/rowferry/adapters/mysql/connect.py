"""Connecting as the native clients do: URL, then option files, then the environment, then their own defaults.

https://dev.mysql.com/doc/refman/8.4/en/connection-options.html, …/option-files.html and
https://mariadb.com/kb/en/mariadb-command-line-client/. Options are known in the clients' spelling
(``ssl-ca``) and in SQLAlchemy's and PyMySQL's (``ssl_ca``).
"""

from __future__ import annotations

import contextlib
import difflib
import getpass
import os
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from rowferry.adapters import servers
from rowferry.adapters.mysql import failure, option_files
from rowferry.errors import ConfigError, RowferryError
from rowferry.model import Endpoint

if TYPE_CHECKING:
    from rowferry.adapters.mysql.session import MysqlSession

#: Seconds to wait for a connection and its login where the user gave no connect_timeout.
CONNECT_TIMEOUT_S = 30.0
#: A connection that is silent this long is probed, every 10 s, 6 times: a cut network is noticed
#: in two minutes. Data that is sent and not acknowledged for as long ends it, too.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 60, 10, 6
SEND_TIMEOUT_MS = 120_000
#: Where Debian's servers, Red Hat's, and then MySQL's own builds have their socket.
SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")
SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")

#: Other spellings → the one that is meant.
_ALIASES = {
    "unix-socket": "socket",
    "passwd": "password",
    "db": "database",
    "ssl-verify-identity": "ssl-verify-server-cert",
    "ssl-check-hostname": "ssl-verify-server-cert",
    "tls": "ssl",
    "ssl-key-password": "ssl-passphrase",
    "tls-ca": "ssl-ca",
    "defaults-file": "read-default-file",
    "default-character-set": "charset",
    "init-connect": "init-command",
}
_KNOWN = frozenset((
    "host", "port", "user", "password", "database", "socket", "protocol", "connect-timeout", "bind-address", "charset",
    "init-command", "read-default-file", "read-default-group", "enable-cleartext-plugin", "program-name",
    "ssl", "ssl-mode", "ssl-disabled", "ssl-ca", "ssl-capath", "ssl-cert", "ssl-key", "ssl-passphrase", "ssl-cipher",
    "ssl-verify-cert", "ssl-verify-server-cert", "tls-version",
))  # fmt: skip
#: What a URL made for another program may hold and what changes nothing here.
_WITHOUT_EFFECT = frozenset(("local-infile", "use-unicode", "autocommit", "binary-prefix", "server-public-key-path"))


class Parameters(msgspec.Struct, frozen=True):
    """All that a connection needs. ``socket`` is a unix socket's path; without it TCP is meant."""

    host: str
    port: int
    user: str
    database: str | None
    timeout_s: float
    ssl_mode: str
    socket: str | None = None
    password: str | None = None
    ssl_ca: str | None = None
    ssl_capath: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    ssl_passphrase: str | None = None
    ssl_cipher: str | None = None
    tls_version: str | None = None
    bind_address: str | None = None
    init_command: str | None = None
    program_name: str = "rowferry"
    cleartext: bool = False

    def __repr__(self) -> str:  # what is secret shows nowhere, a traceback included
        return f"Parameters({self.place!r})"

    @property
    def place(self) -> str:
        """What may be shown."""
        where = self.socket or f"{self.host}:{self.port}"
        return f"{where}/{self.database or ''}"


def parameters(endpoint: Endpoint) -> Parameters:
    """Raises ConfigError for options that are unknown or cannot be honoured."""
    given: dict[str, str] = {}
    for name, value in endpoint.query:
        given[_known(name)] = value
    files = option_files.read(given.get("read-default-file"), given.get("read-default-group"))
    from_files = {_ALIASES.get(name, name): value for name, value in files.items()}

    def option(name: str, environment: str | None = None) -> str | None:
        value = given.get(name)
        if value is None:
            value = from_files.get(name)
        if not value and environment:
            value = os.environ.get(environment)
        return value or None

    if (option("charset") or "utf8mb4").lower() not in ("utf8mb4", "utf8", "auto") and "charset" in given:
        raise ConfigError("only charset=utf8mb4 is possible: rows travel in it, whatever the tables' own")
    host = given.get("host") or endpoint.host or option("host") or "localhost"
    port = endpoint.port or _port(option("port", "MYSQL_TCP_PORT") or "3306")
    ssl_mode = _ssl_mode(given, from_files)
    password = endpoint.password if endpoint.password is not None else option("password", "MYSQL_PWD")
    return Parameters(
        host=host,
        port=port,
        user=endpoint.user or option("user") or getpass.getuser(),
        database=endpoint.database or option("database"),
        timeout_s=_timeout(option("connect-timeout")),
        ssl_mode=ssl_mode,
        socket=_socket(given, from_files, endpoint, host),
        password=password,
        ssl_ca=option("ssl-ca"),
        ssl_capath=option("ssl-capath"),
        ssl_cert=option("ssl-cert"),
        ssl_key=option("ssl-key"),
        ssl_passphrase=option("ssl-passphrase"),
        ssl_cipher=option("ssl-cipher"),
        tls_version=option("tls-version"),
        bind_address=option("bind-address"),
        init_command=option("init-command"),
        program_name=option("program-name") or "rowferry",
        cleartext=_is_true(given.get("enable-cleartext-plugin", from_files.get("enable-cleartext-plugin", "0"))),
    )


def _known(name: str) -> str:
    spelled = option_files.option_name(name)
    spelled = _ALIASES.get(spelled, spelled)
    if spelled not in _KNOWN and spelled not in _WITHOUT_EFFECT:
        near = difflib.get_close_matches(spelled, _KNOWN, 1)
        raise ConfigError(
            f"unknown option {name!r} in the MySQL URL",
            hint=f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(_KNOWN))}",
        )
    return spelled


def _is_true(text: str) -> bool:
    """An option that is there without a value is on."""
    return text.lower() not in ("0", "false", "off", "no")


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"port {text!r} is no port number")
    return int(text)


def _timeout(text: str | None) -> float:
    if text is None:
        return CONNECT_TIMEOUT_S
    if not text.isdigit():
        raise ConfigError(f"connect-timeout {text!r} is no number of seconds")
    return float(text)


def _ssl_mode(given: dict[str, str], files: dict[str, str]) -> str:
    """The mode as MySQL names it: said outright, or by the switches of MariaDB and of SQLAlchemy."""
    options = {**files, **given}
    if "ssl-mode" in options:
        mode = options["ssl-mode"].upper().replace("-", "_")
        if mode not in SSL_MODES:
            near = difflib.get_close_matches(mode, SSL_MODES, 1)
            raise ConfigError(
                f"unknown ssl-mode {options['ssl-mode']!r}",
                hint=f"did you mean {near[0]}?" if near else f"known are {', '.join(SSL_MODES)}",
            )
        return mode
    on = {
        n: _is_true(options[n])
        for n in ("ssl", "ssl-disabled", "ssl-verify-cert", "ssl-verify-server-cert")
        if n in options
    }
    if on.get("ssl-disabled") or on.get("ssl") is False:
        return "DISABLED"
    if on.get("ssl-verify-server-cert"):
        return "VERIFY_IDENTITY"
    # Who names a root certificate wants it to be looked at.
    if on.get("ssl-verify-cert") or (
        on.get("ssl-verify-cert") is None and ("ssl-ca" in options or "ssl-capath" in options)
    ):
        return "VERIFY_CA"
    if on.get("ssl") or any(name in options for name in ("ssl-ca", "ssl-capath", "ssl-cert", "ssl-key")):
        return "REQUIRED"
    return "PREFERRED"


def _socket(given: dict[str, str], files: dict[str, str], endpoint: Endpoint, host: str) -> str | None:
    """The unix socket's path, where one is meant: localhost without a port is, as for the native clients."""
    protocol = (given.get("protocol") or files.get("protocol") or "").upper()
    if protocol not in ("", "TCP", "SOCKET"):
        raise ConfigError(f"protocol {protocol.lower()!r} is not supported", hint="known are tcp and socket")
    if given.get("socket"):
        return given["socket"]
    if protocol == "TCP" or (protocol == "" and (host != "localhost" or endpoint.port or "port" in given)):
        return None
    path = files.get("socket") or os.environ.get("MYSQL_UNIX_PORT")
    if path:
        return path
    there = [s for s in SOCKETS if os.path.exists(s)]
    # No socket at all: the server may be in a container, with its port passed on.
    return there[0] if there else SOCKETS[0] if protocol == "SOCKET" else None


def tls_context(p: Parameters) -> ssl.SSLContext:
    """The TLS context that ``ssl-mode`` asks for. Raises ConfigError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = p.ssl_mode == "VERIFY_IDENTITY"
    verify = p.ssl_mode in ("VERIFY_CA", "VERIFY_IDENTITY")
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    # The certificates that MySQL makes for itself lack an extension that this flag asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if p.tls_version:
        _limit_versions(context, p.tls_version)
    for option, path in (("ssl-ca", p.ssl_ca), ("ssl-capath", p.ssl_capath), ("ssl-cert", p.ssl_cert),
                         ("ssl-key", p.ssl_key)):  # fmt: skip
        if path and not os.access(path, os.R_OK):
            raise ConfigError(f"{option}: {path} is not there, or may not be read")
    try:
        if verify and not (p.ssl_ca or p.ssl_capath):
            context.load_default_certs()
        elif verify:
            context.load_verify_locations(p.ssl_ca, p.ssl_capath)
        if p.ssl_cert:
            context.load_cert_chain(p.ssl_cert, p.ssl_key, (lambda: p.ssl_passphrase or ""))
        if p.ssl_cipher:
            context.set_ciphers(p.ssl_cipher)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"a TLS option cannot be used: {error}") from None
    return context


def _limit_versions(context: ssl.SSLContext, text: str) -> None:
    known = {"TLSV1.2": ssl.TLSVersion.TLSv1_2, "TLSV1.3": ssl.TLSVersion.TLSv1_3}
    versions = [known.get(v.strip().upper()) for v in text.split(",")]
    found = [v for v in versions if v is not None]
    if not found:
        raise ConfigError(f"tls-version {text!r} names none of TLSv1.2, TLSv1.3")
    context.minimum_version, context.maximum_version = min(found), max(found)


def connect(p: Parameters, role: type[RowferryError], *, local_infile: bool = False) -> MysqlSession:
    """Opens a session. Raises ``role`` (transient where the server may come back) or ConfigError.

    local_infile: the server may ask for a LOAD DATA LOCAL's rows (:mod:`wire` answers for no file but ours).
    """
    from pymysql import err

    from rowferry.adapters.mysql.session import MysqlSession

    try:
        return MysqlSession(_login(p, local_infile), role)
    except err.Error as error:
        origin = getattr(error, "original_exception", None)
        if isinstance(origin, ssl.SSLError):
            # A certificate that does not fit will not fit the next time.
            raise role(f"cannot connect to {p.place}: TLS: {_plain(origin)}", code="2026/HY000") from None
        found = failure.from_driver(error, role)
        if failure.number_of(found) in (2003, 2006, 2013):
            found.message = f"cannot connect to {p.place}: {found.message}"
        raise found from None
    except OSError as error:
        raise role(f"cannot connect to {p.place}: {_plain(error)}", code="2003/HY000", transient=True) from None


def _plain(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _login(p: Parameters, local_infile: bool) -> Any:
    """One login by PyMySQL, on a socket of ours. Raises its errors, OSError, ConfigError."""
    from pymysql.connections import Connection
    from pymysql.constants import CLIENT

    from rowferry.adapters.mysql.session import DECODERS

    # PREFERRED on a unix socket is without TLS, as the native clients have it.
    mode = "DISABLED" if p.socket and p.ssl_mode == "PREFERRED" else p.ssl_mode
    tls: dict[str, Any] = {"ssl_disabled": True}
    if mode not in ("DISABLED", "PREFERRED"):
        tls = {"ssl": tls_context(p)}
    connection = Connection(
        host=p.host,
        port=p.port,
        user=p.user,
        # PyMySQL would write it in Latin-1; what a terminal gives to the native client is UTF-8.
        password=(p.password or "").encode(),
        database=p.database,
        unix_socket=p.socket,
        charset="utf8mb4",
        conv=DECODERS,
        # The driver's own answer to a server that asks for a file stays off: it opens whatever file is named.
        client_flag=CLIENT.FOUND_ROWS | (CLIENT.LOCAL_FILES if local_infile else 0),
        init_command=p.init_command,
        autocommit=None,
        program_name=p.program_name,
        defer_connect=True,
        auth_plugin_map={} if p.cleartext else {"mysql_clear_password": _Refused, "dialog": _Refused},
        **tls,
    )
    if mode == "PREFERRED":
        # The driver's own context for it loads all of the machine's certificates (20 ms of CPU a login, of which a
        # copy has half a dozen), and looks at none of them.
        connection.ssl, connection.ctx = True, tls_context(p)
    sock = _open_socket(p)
    try:
        with _deadline(sock, p.timeout_s), warnings.catch_warnings(action="ignore"):
            connection.connect(sock)
    except (RuntimeError, ValueError, AssertionError, IndexError, struct.error) as error:
        # Not a server of this protocol, or a way to log in that PyMySQL lacks a library for.
        raise OSError(f"the login failed: {error}") from None
    finally:
        if not connection.open:
            sock.close()
    return connection


class _Refused:
    """Stands for ways of logging in that hand the bare password to whoever answers at the address."""

    def __init__(self, connection: Any) -> None:
        pass

    def authenticate(self, packet: Any) -> None:
        raise ConfigError(
            "the server asks for the password in clear text",
            hint="give enable-cleartext-plugin=1 in the URL where that is meant, with ssl-mode=VERIFY_IDENTITY",
        )


@contextlib.contextmanager
def _deadline(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Ends what waits for the socket after so many seconds. (The driver's own would hold for the whole session.)"""
    if not seconds:
        yield
        return
    own = sock.dup()  # TLS takes the other one over
    passed = threading.Event()

    def end() -> None:
        passed.set()
        with contextlib.suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if passed.is_set():
            raise TimeoutError(f"no login within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
        own.close()


def _open_socket(p: Parameters) -> socket.socket:
    timeout = p.timeout_s or None
    if p.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(p.socket)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"socket {p.socket}: {_plain(error)}") from None
        return sock
    origin = (p.bind_address, 0) if p.bind_address else None
    sock = socket.create_connection((p.host, p.port), timeout, origin)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", SEND_TIMEOUT_MS),
    ):
        if hasattr(socket, name):  # not every system has every one of them
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


class Connector(servers.Connector["MysqlSession"]):
    """Opens sessions to one place, and can cut all of them from another thread."""

    def __init__(self, p: Parameters, role: type[RowferryError], *, local_infile: bool = False) -> None:
        super().__init__(role)
        self.parameters = p
        self._local_infile = local_infile

    def _new(self) -> MysqlSession:
        return connect(self.parameters, self._role, local_infile=self._local_infile)
