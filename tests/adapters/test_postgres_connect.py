"""Connections behave as libpq's: URL, environment, ~/.pgpass, unix sockets, TLS."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest

import mysql_servers
import servers
from rowferry import endpoint
from rowferry.adapters.postgres.connect import Parameters, connect, parameters
from rowferry.errors import ConfigError, SourceError, TargetError


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """No PG… variables, and an empty home."""
    import os

    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def of(url: str) -> Parameters:
    return parameters(endpoint.parse(url))


def can_connect(p: Parameters) -> bool:
    session = connect(p, SourceError)
    try:
        return session.query("SELECT 1") == [(1,)]
    finally:
        session.close()


def uses_tls(p: Parameters) -> bool:
    session = connect(p, SourceError)
    try:
        return session.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
    finally:
        session.close()


# --- parameters


def test_url_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGUSER", "someone")
    monkeypatch.setenv("PGDATABASE", "something")
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("PGSSLMODE", "disable")
    found = of("postgresql://me:mine@here:7000/db?sslmode=require")
    assert (found.host, found.port, found.user, found.database, found.password, found.sslmode) == (
        "here", 7000, "me", "db", "mine", "require",
    )  # fmt: skip
    found = of("postgresql://")
    assert (found.host, found.port, found.user, found.database, found.password, found.sslmode) == (
        "elsewhere", 6000, "someone", "something", "secret", "disable",
    )  # fmt: skip


def test_database_is_the_user_where_none_is_given() -> None:
    assert of("postgresql://ann@h").database == "ann"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db?sslmode=perhaps",
        "postgresql://h/db?port=0",
        "postgresql://h/db?connect_timeout=soon",
        "postgresql://h/db?nonsense=1",
        "postgresql://h/db?host=a,b",
        "postgresql://h/db?gssencmode=require",
    ],
)
def test_options_that_cannot_be_honoured_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        of(url)


def test_password_is_in_no_repr() -> None:
    assert "canary" not in repr(of("postgresql://u:canary@h/db"))


def passfile(folder: pathlib.Path, text: str, mode: int = 0o600) -> pathlib.Path:
    file = folder / ".pgpass"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_pgpass_first_line_that_fits_is_taken(tmp_path: pathlib.Path) -> None:
    passfile(tmp_path, "# comment\nh:5432:other:u:no\nh:*:db:u:pa\\:ss\\\\w\n*:*:*:*:late\n")
    assert of("postgresql://u@h/db").password == "pa:ss\\w"
    assert of("postgresql://u@h/another").password == "late"
    assert of("postgresql://u:given@h/db").password == "given"


def test_pgpass_that_others_may_read_is_not_used(tmp_path: pathlib.Path) -> None:
    passfile(tmp_path, "*:*:*:*:secret\n", 0o644)
    assert of("postgresql://u@h/db").password is None


def test_passfile_is_found_by_the_environment(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "elsewhere"
    file.write_text("*:*:*:*:there\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert of("postgresql://u@h/db").password == "there"


# --- connections


@pytest.mark.server
def test_wrong_password_is_an_error_of_the_side_and_not_shown(postgres_server: servers.Postgres) -> None:
    for role in (SourceError, TargetError):
        with pytest.raises(role) as caught:
            connect(of(postgres_server.url_of("postgres", password="wr0ng-canary")), role)
        assert caught.value.code == "28P01" and not caught.value.transient
        assert "canary" not in str(caught.value) and "canary" not in repr(caught.value.__context__)


@pytest.mark.server
def test_missing_password_says_so(postgres_server: servers.Postgres) -> None:
    with pytest.raises(SourceError, match="none was given"):
        connect(
            of(f"postgresql://{postgres_server.user}@{postgres_server.host}:{postgres_server.port}/postgres"),
            SourceError,
        )


@pytest.mark.server
def test_missing_database_is_an_error(postgres_server: servers.Postgres) -> None:
    with pytest.raises(SourceError) as caught:
        connect(of(postgres_server.url_of("no such database")), SourceError)
    assert caught.value.code == "3D000" and not caught.value.transient


def test_port_without_a_server_is_transient() -> None:
    with pytest.raises(SourceError) as caught:
        connect(of(f"postgresql://u:p@127.0.0.1:{servers.free_port()}/x"), SourceError)
    assert caught.value.transient


@pytest.mark.server
def test_password_by_pgpass_and_environment(
    postgres_server: servers.Postgres, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = f"postgresql://{postgres_server.user}@{postgres_server.host}:{postgres_server.port}/postgres"
    passfile(tmp_path, f"{postgres_server.host}:{postgres_server.port}:*:*:{postgres_server.password}\n")
    assert can_connect(of(bare))
    (tmp_path / ".pgpass").unlink()
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    assert can_connect(of(bare))


def own(server: servers.Postgres) -> servers.Postgres:
    if server.folder is None:
        pytest.skip("the given server has no socket folder or certificate of ours")
    return server


@pytest.mark.server
def test_unix_socket_by_option_and_by_environment(
    postgres_server: servers.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own(postgres_server)
    monkeypatch.setenv("PGPASSWORD", server.password)
    url = f"postgresql://{server.user}@/postgres?host={server.socket_folder}&port={server.port}"
    assert can_connect(of(url)) and not uses_tls(of(url))
    monkeypatch.setenv("PGHOST", server.socket_folder)
    monkeypatch.setenv("PGPORT", str(server.port))
    assert can_connect(of(f"postgresql://{server.user}@/postgres"))


@pytest.mark.server
def test_sslmodes_against_a_server_with_a_self_signed_certificate(
    postgres_server: servers.Postgres, tmp_path: pathlib.Path
) -> None:
    server = own(postgres_server)
    url = server.url_of("postgres")
    assert not uses_tls(of(url + "?sslmode=disable")) and not uses_tls(of(url + "?sslmode=allow"))
    assert uses_tls(of(url)) and uses_tls(of(url + "?sslmode=prefer")) and uses_tls(of(url + "?sslmode=require"))
    trusted = f"sslrootcert={server.certificate}"
    assert uses_tls(of(f"{url}?sslmode=verify-ca&{trusted}")) and uses_tls(of(f"{url}?sslmode=verify-full&{trusted}"))
    with pytest.raises(ConfigError, match="root certificate"):
        connect(of(url + "?sslmode=verify-full"), SourceError)
    other = tmp_path / "other.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other",
         "-keyout", str(tmp_path / "other.key"), "-out", str(other)],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for mode in ("verify-ca", "verify-full", "require"):
        with pytest.raises(SourceError, match="certificate") as caught:
            connect(of(f"{url}?sslmode={mode}&sslrootcert={other}"), SourceError)
        assert not caught.value.transient


@pytest.mark.server
def test_verify_full_looks_at_the_name(postgres_server: servers.Postgres) -> None:
    server = own(postgres_server)
    url = f"postgresql://{server.user}:{server.password}@ip6-localhost:{server.port}/postgres"
    p = of(f"{url}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={server.certificate}")
    with pytest.raises(SourceError, match=r"[Hh]ostname"):
        connect(p, SourceError)
    assert uses_tls(of(f"{url}?hostaddr=127.0.0.1&sslmode=verify-ca&sslrootcert={server.certificate}"))


@pytest.mark.server
def test_copy_over_tls_is_the_same_as_without(
    postgres_server: servers.Postgres, postgres_database: Callable[[], str]
) -> None:
    import psycopg

    from rowferry.adapters import postgres
    from rowferry.adapters.protocol import ReadRequest, SourceOptions
    from rowferry.model import Bound, TableName

    url = postgres_database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS v FROM generate_series(1, 20000) g")
    seen = []
    for mode in ("disable", "require"):
        source = postgres.open_source(endpoint.parse(f"{url}?sslmode={mode}"), SourceOptions())
        table = source.describe(TableName(None, "t"))
        assert table is not None
        reader = source.reader()
        request = ReadRequest(table, tuple((c.name, c.type) for c in table.columns), Bound({}))
        seen.append([row for block in reader.read(request) for row in block.batch.to_pylist()])
        reader.close()
        source.close()
    assert len(seen[0]) == 20_000 and seen[0] == seen[1]


@pytest.mark.server
def test_another_engines_server_at_the_port_is_no_bug_of_ours(mysql_server: mysql_servers.Mariadb) -> None:
    for sslmode in ("disable", "prefer"):
        url = f"postgresql://me:{servers.CANARY}@{mysql_server.host}:{mysql_server.port}/shop?sslmode={sslmode}"
        with pytest.raises(SourceError, match=f"cannot connect to {mysql_server.host}:{mysql_server.port}"):
            connect(parameters(endpoint.parse(url)), SourceError)
