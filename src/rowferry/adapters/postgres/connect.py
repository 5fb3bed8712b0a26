"""Connecting as libpq does: URL, then environment, then ~/.pgpass, then libpq's own defaults.

https://www.postgresql.org/docs/current/libpq-connect.html (parameters), libpq-envars, libpq-pgpass, libpq-ssl.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import socket
import ssl
import stat
import struct
from pathlib import Path
from typing import Any

import msgspec

from rowferry.adapters.postgres import failure
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.wire import ServerError, Wire
from rowferry.errors import ConfigError, RowferryError
from rowferry.model import Endpoint

#: Seconds to wait for a connection where the user gave no connect_timeout (libpq waits for ever).
CONNECT_TIMEOUT_S = 30.0
#: A connection that is silent this long is probed, every 10 s, 6 times: a cut network is noticed
#: in two minutes. Data that is sent and not acknowledged for as long ends it, too.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 60, 10, 6
SEND_TIMEOUT_MS = 120_000
#: Where Debian's servers, and then PostgreSQL's own builds, have their sockets.
SOCKET_FOLDERS = ("/var/run/postgresql", "/tmp")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

#: URL option → environment variable. Options without one are known, too.
_OPTIONS = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslpassword": "",
    "sslsni": "PGSSLSNI",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "client_encoding": "",
    "keepalives": "",
    "fallback_application_name": "",
}


class Parameters(msgspec.Struct, frozen=True):
    """All that a connection needs. ``host`` is a name, an address, or a folder of unix sockets."""

    host: str
    port: int
    user: str
    database: str
    sslmode: str
    timeout_s: float
    application_name: str
    password: str | None = None
    options: str | None = None
    address: str | None = None
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: str | None = None

    @property
    def is_local(self) -> bool:
        return self.host.startswith(("/", "@"))

    def __repr__(self) -> str:  # what is secret shows nowhere, a traceback included
        return f"Parameters({self.place!r})"

    @property
    def place(self) -> str:
        """What may be shown."""
        return f"{self.host}:{self.port}/{self.database}"


def parameters(endpoint: Endpoint) -> Parameters:
    """Raises ConfigError for options that are unknown or cannot be honoured."""
    given = dict(endpoint.query)
    for name in given:
        if name not in _OPTIONS:
            raise ConfigError(
                f"unknown option {name!r} in the PostgreSQL URL", hint=f"known are {', '.join(sorted(_OPTIONS))}"
            )

    def option(name: str, default: str | None = None) -> str | None:
        value = given.get(name)
        if value is None and _OPTIONS[name]:
            value = os.environ.get(_OPTIONS[name])
        return value or default

    if os.environ.get("PGSERVICE"):
        raise ConfigError("PGSERVICE is not supported", hint="write the service's parameters into the URL")
    if option("gssencmode") == "require":
        raise ConfigError("gssencmode=require is not supported", hint="use TLS (sslmode)")
    host = given.get("host") or endpoint.host or option("host") or ""
    port = _port(str(endpoint.port) if endpoint.port else option("port", "5432") or "5432")
    if "," in host:
        raise ConfigError("several hosts in one URL are not supported", hint="name the one to connect to")
    if not host and not option("hostaddr"):
        host = _socket_folder(port)
    user = endpoint.user or option("user") or getpass.getuser()
    database = endpoint.database or option("dbname") or user
    sslmode = option("sslmode", "prefer") or "prefer"
    if sslmode not in SSL_MODES:
        raise ConfigError(f"unknown sslmode {sslmode!r}", hint=f"known are {', '.join(SSL_MODES)}")
    password = endpoint.password if endpoint.password is not None else option("password")
    if password is None:
        password = _from_passfile(option("passfile"), host, port, database, user)
    return Parameters(
        host=host or option("hostaddr") or "",
        port=port,
        user=user,
        database=database,
        sslmode=sslmode,
        timeout_s=_timeout(option("connect_timeout")),
        application_name=option("application_name") or given.get("fallback_application_name") or "rowferry",
        password=password,
        options=option("options"),
        address=option("hostaddr"),
        sslrootcert=option("sslrootcert"),
        sslcert=option("sslcert"),
        sslkey=option("sslkey"),
        sslpassword=option("sslpassword"),
    )


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"port {text!r} is no port number")
    return int(text)


def _timeout(text: str | None) -> float:
    if text is None:
        return CONNECT_TIMEOUT_S
    try:
        seconds = int(text)
    except ValueError:
        raise ConfigError(f"connect_timeout {text!r} is no number of seconds") from None
    # As libpq: 0 and less wait for ever; 1 is taken as 2.
    return max(seconds, 2) if seconds > 0 else 0.0


def _socket_folder(port: int) -> str:
    """The folder of a local server's socket; the usual one where there is none, so that the message names it."""
    for folder in SOCKET_FOLDERS:
        if os.path.exists(f"{folder}/.s.PGSQL.{port}"):
            return folder
    return SOCKET_FOLDERS[0] if os.path.isdir(SOCKET_FOLDERS[0]) else "localhost"


def _from_passfile(path: str | None, host: str, port: int, database: str, user: str) -> str | None:
    """The password that ~/.pgpass has for this connection. As libpq, a file that others may read is not used."""
    file = Path(path) if path else Path.home() / ".pgpass"
    try:
        mode = file.stat()
        if not stat.S_ISREG(mode.st_mode) or mode.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    # A socket in libpq's default folder is looked up as "localhost".
    host = "localhost" if host in SOCKET_FOLDERS else host
    wanted = (host, str(port), database, user)
    for line in lines:
        if line.startswith("#"):
            continue
        fields = _passfile_fields(line)
        if len(fields) >= 5 and all(f in ("*", w) for f, w in zip(fields[:4], wanted, strict=True)):
            return fields[4]
    return None


def _passfile_fields(line: str) -> list[str]:
    """The fields of a line: ``:`` separates, a backslash makes the next character plain."""
    fields, current, at = [], [], 0
    while at < len(line):
        if line[at] == "\\" and at + 1 < len(line):
            at += 1
            current.append(line[at])
        elif line[at] == ":":
            fields.append("".join(current))
            current = []
        else:
            current.append(line[at])
        at += 1
    return [*fields, "".join(current)]


def _home(name: str) -> str | None:
    path = Path.home() / ".postgresql" / name
    return str(path) if path.exists() else None


def tls_context(p: Parameters) -> ssl.SSLContext:
    """The TLS context that libpq would use. Raises ConfigError for files that are missing or too open."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    root = p.sslrootcert or _home("root.crt")
    verify = p.sslmode in ("verify-ca", "verify-full") or (p.sslmode == "require" and root is not None)
    context.check_hostname = p.sslmode == "verify-full" or root == "system"
    context.verify_mode = ssl.CERT_REQUIRED if verify or root == "system" else ssl.CERT_NONE
    try:
        if root == "system":
            context.load_default_certs()
        elif verify:
            if root is None or not os.path.exists(root):
                missing = root or "~/.postgresql/root.crt"
                raise ConfigError(
                    f"sslmode={p.sslmode} needs a root certificate, and {missing} is not there",
                    hint="give sslrootcert=FILE or sslrootcert=system",
                )
            context.load_verify_locations(root)
        certificate, key = p.sslcert or _home("postgresql.crt"), p.sslkey or _home("postgresql.key")
        if certificate and os.path.exists(certificate):
            _check_key(key)
            context.load_cert_chain(certificate, key, (lambda: p.sslpassword or ""))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"a TLS file cannot be used: {error}") from None
    return context


def _check_key(key: str | None) -> None:
    if key is None or not os.path.exists(key):
        raise ConfigError(f"the private key {key or '~/.postgresql/postgresql.key'} is not there")
    mode = os.stat(key)
    open_to = stat.S_IRWXO | (stat.S_IRWXG if mode.st_uid != 0 else stat.S_IWGRP | stat.S_IXGRP)
    if mode.st_mode & open_to:
        raise ConfigError(f"the private key {key} may be read by others", hint="chmod 600 it")


def connect(p: Parameters, role: type[RowferryError]) -> Session:
    """Opens a session. Raises ``role`` (transient where the server may come back) or ConfigError."""
    attempts = _attempts(p)
    for number, tls in enumerate(attempts):
        try:
            return Session(_login(p, tls), role)
        except _RefusedTlsError:
            if number + 1 == len(attempts):
                raise role(
                    f"{p.place} does not speak TLS, and sslmode={p.sslmode} asks for it", transient=False
                ) from None
        except ServerError as error:
            if error.fields.get("C") == "08P01" and "statement_timeout" in str(error):
                return Session(_login(p, tls, first_settings=False), role)
            # 28000: pg_hba.conf has no line for this user with (or without) TLS; libpq then tries the other.
            if error.fields.get("C") != "28000" or number + 1 == len(attempts):
                raise failure.from_server(error, role) from None
        except OSError as error:
            if isinstance(error, ssl.SSLError) and number + 1 < len(attempts):
                continue  # sslmode=prefer goes on without TLS
            reason = f"cannot connect to {p.place}: {_plain(error)}"
            # A certificate that does not fit will not fit the next time.
            raise role(reason, transient=not isinstance(error, ssl.SSLError), code="08001") from None
    raise AssertionError("no attempt was made")


def _attempts(p: Parameters) -> list[bool]:
    """Whether each attempt is with TLS, in libpq's order."""
    if p.is_local or p.sslmode == "disable":
        return [False]
    return {"allow": [False, True], "prefer": [True, False]}.get(p.sslmode, [True])


class _RefusedTlsError(Exception):
    pass


def _plain(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _login(p: Parameters, tls: bool, first_settings: bool = True) -> Wire:
    """One login by pg8000. Raises OSError, ServerError, ConfigError, _RefusedTlsError.

    first_settings: with what has to be set before the first statement (a pooler may refuse to pass it on).
    """
    from pg8000.exceptions import DatabaseError, InterfaceError
    from pg8000.native import Connection

    sock = _open_socket(p)
    arguments: dict[str, Any] = {
        "user": p.user,
        "database": p.database,
        "password": p.password,
        "application_name": p.application_name,
        # Before the first statement: a timeout of the role's could end the one that pins the settings.
        "startup_params": ({"statement_timeout": "0"} if first_settings else {})
        | ({"options": p.options} if p.options else {}),
    }
    try:
        if tls:
            sock = _start_tls(sock, p)
        # The host is only what pg8000 would connect to; it is given a socket that is connected.
        connection = Connection(sock=sock, host=p.host, ssl_context=False, **arguments)
        return Wire(connection)
    except DatabaseError as error:
        sock.close()
        raise ServerError(error.args[0] if isinstance(error.args[0], dict) else {"M": str(error)}) from None
    except InterfaceError as error:
        sock.close()
        raise OSError(str(error)) from None
    except AttributeError:
        sock.close()
        if p.password is None:  # pg8000 runs into this where the server asks for a password and there is none
            raise ServerError({"C": "28P01", "M": "the server asks for a password and none was given"}) from None
        raise
    except (KeyError, struct.error):
        # pg8000 looks up what the first byte means: whoever answers here speaks another protocol.
        sock.close()
        raise OSError("what answers there is no PostgreSQL server") from None
    except Exception as error:
        sock.close()
        if type(error).__module__.startswith("scramp"):  # the server could not prove that it knows the password
            raise ServerError({"C": "28P01", "M": f"authentication failed: {error}"}) from None
        raise
    except BaseException:
        sock.close()
        raise


def _open_socket(p: Parameters) -> socket.socket:
    timeout = p.timeout_s or None
    if p.is_local:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = f"{p.host}/.s.PGSQL.{p.port}"
        try:
            sock.settimeout(timeout)
            sock.connect("\0" + path[1:] if p.host.startswith("@") else path)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"socket {path}: {_plain(error)}") from None
        return sock
    sock = socket.create_connection((p.address or p.host, p.port), timeout)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if ipaddress.ip_address(sock.getpeername()[0]).is_loopback and hasattr(socket, "TCP_CONGESTION"):
        # BBR, the default of some systems, paces what needs no pacing here, at 2 % of all CPU time.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
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


def _start_tls(sock: socket.socket, p: Parameters) -> socket.socket:
    """Asks for TLS (SSLRequest) and shakes hands. Raises _RefusedTlsError where there is none and must be."""
    # Where TLS is only preferred, its context (0.3 ms) is made for a server that speaks it.
    context = tls_context(p) if p.sslmode != "prefer" else None
    sock.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
    answer = sock.recv(1)
    if answer == b"N" and p.sslmode == "prefer":
        return sock  # as libpq does: the same connection goes on without TLS
    if answer != b"S":
        raise _RefusedTlsError
    return (context or tls_context(p)).wrap_socket(sock, server_hostname=p.host)
