"""URLs, as SQLAlchemy writes them: ``scheme://user:password@host:port/database?option=value``;
files as ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``parquet:///folder``."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote, urlsplit

from rowferry.errors import ConfigError
from rowferry.model import Endpoint

#: URL scheme → engine (the name of the adapter's folder).
ENGINES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
    "parquet": "files",
    "arrow": "files",
}
DEFAULT_PORTS = {"postgres": 5432, "mysql": 3306}
EMBEDDED = ("sqlite", "duckdb", "files")


def parse(url: str) -> Endpoint:
    """Parses a URL. Raises ConfigError, which never repeats the URL's password."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ConfigError("not a URL", hint=f"write it as SCHEME://…, with one of {', '.join(sorted(ENGINES))}")
    if scheme not in ENGINES:
        raise ConfigError(f"unknown scheme {scheme!r}", hint=f"known are {', '.join(sorted(ENGINES))}")
    engine = ENGINES[scheme]
    if engine in EMBEDDED:
        path, _, query = rest.partition("?")
        if not path.startswith("/") or len(path) < 2:
            raise ConfigError(f"{scheme} needs a path", hint=f"{scheme}:///relative or {scheme}:////absolute")
        return Endpoint(scheme, engine, path=unquote(path[1:]), query=tuple(parse_qsl(query, keep_blank_values=True)))
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port
    except ValueError:
        raise ConfigError(f"this {scheme} URL cannot be read", hint="percent-encode special characters in it") from None
    return Endpoint(
        scheme,
        engine,
        host=unquote(parts.hostname) if parts.hostname else None,
        port=port,
        user=unquote(parts.username) if parts.username is not None else None,
        password=unquote(parts.password) if parts.password is not None else None,
        database=unquote(parts.path[1:]) or None,
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )


def same_place(a: Endpoint, b: Endpoint) -> bool:
    """True where both URLs name one database (as far as the URLs and the file system tell)."""
    if a.path is not None and b.path is not None:
        return os.path.realpath(a.path) == os.path.realpath(b.path)
    if a.engine != b.engine or a.path is not None or b.path is not None:
        return False
    local = {None, "", "localhost", "127.0.0.1", "::1"}
    host_a, host_b = (x.option("host") or x.host for x in (a, b))
    same_host = host_a == host_b or (host_a in local and host_b in local)
    default = DEFAULT_PORTS.get(a.engine)
    return same_host and (a.port or default) == (b.port or default) and a.database == b.database
