"""Connecting as the native clients do: URLs, option files, the environment, sockets, TLS."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

import mysql_servers
from rowferry import endpoint
from rowferry.adapters.mysql import option_files
from rowferry.adapters.mysql.connect import Parameters, connect, parameters
from rowferry.errors import ConfigError, RowferryError, SourceError
from servers import CANARY


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A home of its own, and none of the machine's option files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(option_files, "SYSTEM_FILES", ())
    for name in ("MYSQL_PWD", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MYSQL_HOST", "MYSQL_HOME", "MARIADB_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def parsed(url: str) -> Parameters:
    return parameters(endpoint.parse(url))


# ── parameters ───────────────────────────────────────────────────────────────────────────────────


def test_parameters_of_a_plain_url_have_the_clients_defaults() -> None:
    p = parsed("mysql://me:s%40fe@db.example/shop")
    assert (p.host, p.port, p.user, p.password, p.database) == ("db.example", 3306, "me", "s@fe", "shop")
    assert (p.socket, p.ssl_mode) == (None, "PREFERRED")
    assert "s@fe" not in repr(p)


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("", "PREFERRED"),
        ("?ssl-mode=DISABLED", "DISABLED"),
        ("?ssl_mode=verify_identity", "VERIFY_IDENTITY"),
        ("?ssl-mode=verify-ca", "VERIFY_CA"),
        ("?ssl=true", "REQUIRED"),
        ("?ssl=0", "DISABLED"),
        ("?ssl_disabled=true", "DISABLED"),
        ("?ssl_ca=/a.pem", "VERIFY_CA"),
        ("?ssl_ca=/a.pem&ssl_verify_cert=false", "REQUIRED"),
        ("?ssl_ca=/a.pem&ssl_verify_identity=true", "VERIFY_IDENTITY"),
        ("?ssl_ca=/a.pem&ssl_check_hostname=1", "VERIFY_IDENTITY"),
        ("?ssl-verify-server-cert", "VERIFY_IDENTITY"),
        ("?ssl-cert=/a.pem&ssl-key=/b.pem", "REQUIRED"),
        ("?ssl-ca=/a.pem&ssl-mode=REQUIRED", "REQUIRED"),
    ],
)
def test_ssl_mode_is_found_in_every_spelling(query: str, mode: str) -> None:
    assert parsed(f"mysql://me@db/shop{query}").ssl_mode == mode


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl-mod=REQUIRED", "did you mean ssl-mode"),
        ("ssl-mode=REQUIRE", "did you mean REQUIRED"),
        ("ssl-mode=maybe", "known are DISABLED"),
        ("conect_timeout=3", "did you mean connect-timeout"),
        ("wibble=1", "known are"),
        ("connect-timeout=soon", "no number of seconds"),
        ("protocol=pipe", "known are tcp and socket"),
        ("charset=latin1", "utf8mb4"),
        ("read_default_file=/no/such/file", "cannot be read"),
        ("tls-version=TLSv1.0&ssl-mode=REQUIRED", "names none"),
        ("ssl-ca=/no/such/file", "ssl-ca: /no/such/file is not there"),
        ("ssl-cert=/no/such/cert", "ssl-cert: /no/such/cert is not there"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        p = parsed(f"mysql://me:{CANARY}@127.0.0.1:1/shop?{query}")
        connect(p, SourceError)


def test_options_of_other_drivers_without_effect_are_taken() -> None:
    assert parsed("mysql://me@db/shop?charset=utf8mb4&local_infile=1&use_unicode=1&autocommit=true").host == "db"


def test_localhost_means_the_socket_unless_a_port_or_protocol_says_otherwise(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_UNIX_PORT", "/run/my.sock")
    assert parsed("mysql://me@localhost/d").socket == "/run/my.sock"
    assert parsed("mysql:///d").socket == "/run/my.sock"
    assert parsed("mysql://me@localhost:3306/d").socket is None
    assert parsed("mysql://me@localhost/d?protocol=tcp").socket is None
    assert parsed("mysql://me@127.0.0.1/d").socket is None
    assert parsed("mysql://me@db/d?unix_socket=/a/b.sock").socket == "/a/b.sock"
    (tmp_path / ".my.cnf").write_text("[client]\nsocket = /of/file.sock\nport=3399\n")
    assert parsed("mysql://me@localhost/d").socket == "/of/file.sock"
    assert parsed("mysql://me@db/d").port == 3399
    assert parsed("mysql://me@db:3307/d").port == 3307


def test_localhost_without_any_socket_is_tried_by_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowferry.adapters.mysql.connect.SOCKETS", ("/no/such.sock",))
    assert parsed("mysql://me@localhost/d").socket is None
    assert parsed("mysql://me@localhost/d?protocol=socket").socket == "/no/such.sock"


# ── option files ─────────────────────────────────────────────────────────────────────────────────

OPTIONS = """
# a comment
; another
[mysqld]
password = of the server
[client]
user="someone else"   # behind a value
password = 'se#cret'
loose-connect_timeout = 7
host = db.example# no space needed
ssl
!include more.cnf
!includedir folder
[mysqldump]
user = dumper
[rowferry]
database = "with\\sspace"
"""


@pytest.fixture
def option_file(home: pathlib.Path) -> pathlib.Path:
    (home / "more.cnf").write_text("[client]\nport=3333\nssl-ca=/more.pem\n")
    (home / "folder").mkdir()
    (home / "folder" / "a.cnf").write_text("[client]\nport=4444\n")
    (home / "folder" / "b.txt").write_text("[client]\nport=5555\n")
    (home / ".my.cnf").write_text(OPTIONS)
    (home / ".my.cnf").chmod(0o600)
    return home / ".my.cnf"


def test_option_files_are_read_as_the_client_reads_them(option_file: pathlib.Path) -> None:
    p = parsed("mysql://")
    assert (p.user, p.password, p.host, p.port) == ("someone else", "se#cret", "db.example", 4444)
    assert (p.timeout_s, p.database, p.ssl_ca) == (7.0, "with space", "/more.pem")
    ours = option_files.read(str(option_file))
    told = subprocess.run(
        ["my_print_defaults", f"--defaults-file={option_file}", "client", "rowferry"],
        capture_output=True, text=True, check=True, cwd=option_file.parent,
    ).stdout  # fmt: skip
    theirs = {
        option_files.option_name(name): value
        for name, _, value in (line.removeprefix("--").partition("=") for line in told.splitlines())
    }
    assert ours == theirs


def test_the_url_wins_over_files_and_files_over_the_environment(
    option_file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_PWD", "of the environment")
    monkeypatch.setenv("MYSQL_TCP_PORT", "3999")
    p = parsed("mysql://me:pw@other:1/d")
    assert (p.user, p.password, p.host, p.port, p.database) == ("me", "pw", "other", 1, "d")
    assert parsed("mysql://me@other/d").password == "se#cret"
    option_file.write_text("[client]\n")
    assert parsed("mysql://me@other/d").password == "of the environment"
    assert parsed("mysql://me@other/d").port == 3999
    assert parsed("mysql://me:@other/d").password == ""


def test_a_file_that_everybody_may_write_is_passed_over(option_file: pathlib.Path) -> None:
    option_file.chmod(0o666)
    assert parsed("mysql://me@other/d").password is None


def test_files_that_include_themselves_end(home: pathlib.Path) -> None:
    (home / ".my.cnf").write_text("[client]\nuser=x\n!include .my.cnf\n")
    assert parsed("mysql://other/d").user == "x"


# ── a real server ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.server
def test_socket_login_works_with_and_without_a_file(
    own_mysql_server: mysql_servers.Mariadb, home: pathlib.Path
) -> None:
    url = (
        f"mysql://{own_mysql_server.user}:{own_mysql_server.password}@localhost/mysql?socket={own_mysql_server.socket}"
    )
    session = connect(parsed(url), SourceError)
    assert session.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1] == ""
    session.close()
    (home / ".my.cnf").write_text(
        f"[client]\nuser={own_mysql_server.user}\npassword={own_mysql_server.password}\nsocket={own_mysql_server.socket}\n"
    )
    session = connect(parsed("mysql:///mysql"), SourceError)
    assert session.query("SELECT DATABASE()") == [("mysql",)]
    session.close()


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("ssl-mode=PREFERRED", True),
        ("ssl-mode=DISABLED", False),
        ("ssl-mode=REQUIRED", True),
        ("ssl-mode=VERIFY_CA&ssl-ca={ca}", True),
        ("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}", True),
        ("ssl_ca={ca}&ssl_verify_identity=true", True),
        ("ssl-mode=REQUIRED&tls-version=TLSv1.2", True),
    ],
)
def test_tls_is_as_ssl_mode_asks(own_mysql_server: mysql_servers.Mariadb, options: str, encrypted: bool) -> None:
    options = options.format(ca=own_mysql_server.certificate)
    session = connect(parsed(own_mysql_server.url_of("mysql", options=f"?{options}")), SourceError)
    cipher = session.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
    assert bool(cipher) is encrypted
    session.close()


@pytest.mark.server
@pytest.mark.parametrize("mode", ["PREFERRED", "REQUIRED"])
def test_login_that_looks_at_no_certificate_loads_none_of_the_machines(
    own_mysql_server: mysql_servers.Mariadb, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    for name in ("load_default_certs", "set_default_verify_paths", "load_verify_locations"):
        monkeypatch.setattr(f"ssl.SSLContext.{name}", lambda *given, name=name: loaded.append(name))
    session = connect(parsed(own_mysql_server.url_of("mysql", options=f"?ssl-mode={mode}")), SourceError)
    assert session.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
    session.close()
    assert loaded == []


@pytest.mark.server
@pytest.mark.parametrize("mode", ["VERIFY_CA", "VERIFY_IDENTITY"])
def test_a_certificate_of_nobody_known_is_refused_for_good(own_mysql_server: mysql_servers.Mariadb, mode: str) -> None:
    with pytest.raises(SourceError, match="certificate") as caught:
        connect(parsed(own_mysql_server.url_of("mysql", options=f"?ssl-mode={mode}")), SourceError)
    assert not caught.value.transient
    assert CANARY not in str(caught.value)


@pytest.mark.server
def test_a_certificate_of_another_name_is_refused_by_verify_identity_alone(
    own_mysql_server: mysql_servers.Mariadb,
) -> None:
    url = f"mysql://{own_mysql_server.user}:{CANARY}@127.1:{own_mysql_server.port}/mysql?ssl-ca={own_mysql_server.certificate}"
    connect(parsed(f"{url}&ssl-mode=VERIFY_CA"), SourceError).close()
    with pytest.raises(SourceError, match="certificate"):
        connect(parsed(f"{url}&ssl-mode=VERIFY_IDENTITY"), SourceError)


@pytest.mark.server
@pytest.mark.parametrize(
    ("user", "password", "database", "code"),
    [
        (None, "wrong-pass", "mysql", "1045/28000"),
        ("nobody", "x", "mysql", "1045/28000"),
        (None, None, "no_db", "1049"),
    ],
)
def test_a_wrong_login_is_told_by_code_and_never_by_password(
    mysql_server: mysql_servers.Mariadb, user: str | None, password: str | None, database: str, code: str
) -> None:
    with pytest.raises(SourceError) as caught:
        connect(parsed(mysql_server.url_of(database, user, password)), SourceError)
    assert not caught.value.transient
    assert code in str(caught.value)
    assert CANARY not in str(caught.value) and "wrong-pass" not in str(caught.value)


@pytest.mark.server
def test_passwords_of_every_character_work(mysql_server: mysql_servers.Mariadb) -> None:
    password = "pä:ß/🔑 @%'\\\"#"
    with mysql_server.account("o'dd", password):
        session = connect(parsed(mysql_server.url_of("", "o'dd", password)), SourceError)
        assert str(session.query("SELECT CURRENT_USER()")[0][0]).startswith("o'dd@")
        session.close()


def test_nobody_listening_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match="cannot connect to") as caught:
        connect(parsed(f"mysql://me:{CANARY}@127.0.0.1:{port}/d"), SourceError)
    assert caught.value.transient
    assert CANARY not in str(caught.value)


def _serve(answer: bytes) -> tuple[socket.socket, int]:
    """A server that greets with ``answer`` and says no more."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def run() -> None:
        client, _ = listener.accept()
        held.append(client)
        client.sendall(answer)
        client.recv(1 << 16)

    threading.Thread(target=run, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01\x00\x00\x00\x0a",
        b"\x05\x00\x00\x00\x0a8.4\x00",
        bytes.fromhex("4a0000000a") + b"not.a.version\0" + bytes(60),
    ],
)
def test_whoever_is_no_mysql_server_is_an_error_in_time(answer: bytes) -> None:
    listener, port = _serve(answer)
    began = time.monotonic()
    with listener, pytest.raises(RowferryError) as caught:
        connect(parsed(f"mysql://me:{CANARY}@127.0.0.1:{port}/d?connect-timeout=1"), SourceError)
    assert isinstance(caught.value, SourceError)
    assert time.monotonic() - began < 5
    assert CANARY not in str(caught.value)


def _greeting(plugin: bytes) -> bytes:
    """A MySQL 8 greeting without TLS."""
    body = b"\x0a8.4.3\0" + bytes(4) + b"12345678\0" + b"\xff\xf7" + b"\xff\x02\x00" + b"\xff\xdf" + b"\x15" + bytes(10)
    body += b"123456789012\0" + plugin + b"\0"
    return len(body).to_bytes(3, "little") + b"\0" + body


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"dialog"])
def test_a_server_that_asks_for_the_bare_password_does_not_get_it(plugin: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def run() -> None:
        client, _ = listener.accept()
        client.sendall(_greeting(b"mysql_native_password"))
        got.append(client.recv(1 << 16))
        switch = b"\xfe" + plugin + b"\0" + b"\x02Password: "
        client.sendall(len(switch).to_bytes(3, "little") + b"\x02" + switch)
        got.append(client.recv(1 << 16))
        client.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    url = f"mysql://me:{CANARY}@127.0.0.1:{listener.getsockname()[1]}/d?ssl-mode=DISABLED&connect-timeout=3"
    with listener, pytest.raises(ConfigError, match="clear text"):
        connect(parsed(url), SourceError)
    thread.join(5)
    assert CANARY.encode() not in b"".join(got)


@pytest.mark.server
def test_init_command_runs_before_the_session_is_pinned(mysql_database: Callable[[], str]) -> None:
    url = mysql_database() + "?init-command=SET%20sql_select_limit%3D1,%20@mine%3D7"
    session = connect(parsed(url), SourceError)
    assert session.query("SELECT @mine UNION ALL SELECT @mine") == [(7,), (7,)]
    session.close()
