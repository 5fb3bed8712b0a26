"""The paths, and the ways to go them: rowferry, and for each peer the command that its users would type."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from urllib.parse import quote

from places import Login, Place, Server
from tables import Table

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers-venv"
#: What ``--install`` installs: pgloader from the system's packages, the rest into a venv of its own. Sling is
#: pinned to the last binary that came as a wheel (later ones download it when they are run); its DuckDB side
#: runs DuckDB's command line, dlt's MySQL side SQLAlchemy.
APT = ("pgloader",)
PIP = (
    "sling-linux-amd64==1.4.11", "duckdb-cli", "dlt[duckdb,postgres,sqlalchemy]>=1.31,<2", "connectorx>=0.4", "pandas",
    "pyarrow>=18", "pymysql[rsa]", "psycopg[binary]>=3.2", "adbc-driver-postgresql>=1.12", "adbc-driver-manager>=1.12",
    "duckdb>=1.1",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """One table from one place to another. ``folder`` is empty and the run's own."""

    source: Place
    target: Place
    table: Table
    workers: int
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to do a job: the command, and whether it finds the (empty) table in the target or makes it."""

    name: str
    command: Callable[[Job], list[str]]
    #: Why it cannot be gone here; None where it can.
    missing: Callable[[], str | None] = lambda: None
    table_made: bool = False
    tables: tuple[str, ...] = ("lineitem", "events")


@dataclasses.dataclass(frozen=True)
class Path:
    title: str
    source: str
    target: str
    ways: tuple[Way, ...]
    tables: tuple[str, ...] = ("lineitem", "events")


def environment(folder: pathlib.Path) -> dict[str, str]:
    """What every command runs under: nothing of a user's own settings, nothing sent home, times in UTC."""
    home = {name: str(folder) for name in ("HOME", "TMPDIR", "SLING_HOME_DIR", "DLT_DATA_DIR")}
    quiet = {"SLING_DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false", "PGTZ": "UTC", "TZ": "UTC"}
    found = sling_folder()
    more = {"DUCKDB_PATH": str(found["duckdb"])} if "duckdb" in found else {}
    return {**os.environ, **home, **quiet, **more}


@functools.cache
def python() -> str:
    """The interpreter of the peers: of their venv, else this one."""
    own = PEERS / "bin/python"
    return str(own if own.exists() else sys.executable)


@functools.cache
def sling_folder() -> Mapping[str, pathlib.Path]:
    """The binaries of Sling and of DuckDB's command line, as far as they are installed."""
    patterns = {"sling": "sling_linux_*/bin/sling-linux-*", "duckdb": "duckdb_cli/duckdb"}
    found = {}
    for name, pattern in patterns.items():
        for path in sorted(PEERS.glob(f"lib/python3*/site-packages/{pattern}")):
            path.chmod(path.stat().st_mode | 0o111)
            found[name] = path
    return found


def modules(*names: str) -> Callable[[], str | None]:
    """Whether Python modules are there."""

    def missing() -> str | None:
        code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {names!r})))"
        done = subprocess.run([python(), "-c", code], capture_output=True, check=False)
        return f"not installed: {' or '.join(names)}" if done.returncode else None

    return missing


def programs(*names: str) -> Callable[[], str | None]:
    """Whether programs are there."""

    def missing() -> str | None:
        lost = [name for name in names if shutil.which(name) is None and name not in sling_folder()]
        return f"not installed: {', '.join(lost)}" if lost else None

    return missing


def script(name: str) -> Callable[[Job], list[str]]:
    """A peer that is a library: the script of that name here."""

    def command(job: Job) -> list[str]:
        target = job.target.url if isinstance(job.target, Server) else str(job.target.path)  # type: ignore[attr-defined]
        source = job.source.url if isinstance(job.source, Server) else str(job.source.path)  # type: ignore[attr-defined]
        return [
            python(), str(HERE / name), source, target, job.table.name, ",".join(job.table.key),
            job.table.split_by or "", str(job.workers),
        ]  # fmt: skip

    return command


def rowferry(job: Job) -> list[str]:
    return [
        sys.executable, "-m", "rowferry", "copy", job.source.url, job.target.url, "--table", job.table.name,
        "--workers", str(job.workers), "--quiet",
    ]  # fmt: skip


def login_of(place: Place) -> tuple[Login, str]:
    assert isinstance(place, Server)
    return place.login, place.database


def psql(place: Place, sql: str) -> str:
    return f"psql -XqAt {shlex.quote(place.url)} -c {shlex.quote(sql)}"


def pipe_to_postgres(job: Job) -> list[str]:
    name, key = job.table.name, ", ".join(job.table.key)
    return ["bash", "-c", (
        f"set -o pipefail; {psql(job.source, f'copy {name} to stdout binary')} | "
        f"{psql(job.target, f'copy {name} from stdin binary')} && "
        f"{psql(job.target, f'alter table {name} add primary key ({key})')}"
    )]  # fmt: skip


def pipe_to_mysql(job: Job) -> list[str]:
    login, database = login_of(job.target)
    load = (
        f"set time_zone = '+00:00'; load data local infile '/dev/stdin' into table {job.table.name} "
        f"character set utf8mb4 {job.table.load_clause}"
    )
    return ["bash", "-c", (
        f"set -o pipefail; {psql(job.source, f'copy {job.table.name} to stdout')} | "
        f"MYSQL_PWD={shlex.quote(login.password)} mysql --no-defaults -h {login.host} -P {login.port} "
        f"-u {shlex.quote(login.user)} --local-infile=1 --default-character-set=utf8mb4 -e {shlex.quote(load)} {database}"
    )]  # fmt: skip


def pgloader(job: Job) -> list[str]:
    (source, database), (target, target_database) = login_of(job.source), login_of(job.target)
    file = job.folder / "job.load"
    # Its own defaults, but for the number of workers and the schema (it makes one named as the source's database).
    file.write_text(
        f"LOAD DATABASE FROM mysql://{source.user}:{quote(source.password)}@{source.host}:{source.port}/{database}\n"
        f"INTO postgresql://{target.user}:{quote(target.password)}@{target.host}:{target.port}/{target_database}\n"
        f"WITH workers = {2 * job.workers}, concurrency = 1\n"
        f"INCLUDING ONLY TABLE NAMES MATCHING '{job.table.name}'\n"
        f"ALTER SCHEMA '{database}' RENAME TO 'public';\n"
    )
    return ["pgloader", "--on-error-stop", str(file)]


def sling(job: Job) -> list[str]:
    def url(place: Place) -> str:
        return f"{place.url}?sslmode=disable" if place.engine == "postgres" else place.url

    def stream(place: Place) -> str:
        schema = {"postgres": "public", "duckdb": "main"}.get(place.engine) or login_of(place)[1]
        return f"{schema}.{job.table.name}"

    return [
        str(sling_folder()["sling"]), "run", "--src-conn", url(job.source), "--src-stream", stream(job.source),
        "--tgt-conn", url(job.target), "--tgt-object", stream(job.target), "--mode", "full-refresh",
    ]  # fmt: skip


ROWFERRY = Way("rowferry, with digests", rowferry)
SLING = Way("Sling 1.4", sling, programs("sling"))
SLING_DUCKDB = Way("Sling 1.4", sling, programs("sling", "duckdb"))
DLT = Way("dlt", script("dlt_copy.py"), modules("dlt", "sqlalchemy"))

PATHS: Mapping[str, Path] = {
    "pg_pg": Path("PostgreSQL → PostgreSQL", "postgres", "postgres", (
        ROWFERRY,
        Way("psql | psql, binary", pipe_to_postgres, programs("psql"), table_made=True),
    )),
    "pg_duckdb": Path("PostgreSQL → DuckDB", "postgres", "duckdb", (
        ROWFERRY,
        Way("ADBC → DuckDB", script("adbc_to_duckdb.py"), modules("adbc_driver_postgresql", "duckdb")),
        Way("ConnectorX → DuckDB", script("connectorx_to_duckdb.py"), modules("connectorx", "duckdb")),
    )),
    "pg_parquet": Path("PostgreSQL → Parquet", "postgres", "parquet", (
        ROWFERRY,
        Way("ADBC → pyarrow", script("adbc_to_parquet.py"), modules("adbc_driver_postgresql", "pyarrow")),
    )),
    "sqlite_duckdb": Path("SQLite → DuckDB", "sqlite", "duckdb", (
        ROWFERRY,
        Way("sqlite3 + pyarrow", script("sqlite3_to_duckdb.py"), modules("pyarrow", "duckdb")),
    ), tables=("lineitem",)),
    "mysql_pg": Path("MySQL → PostgreSQL", "mysql", "postgres", (
        ROWFERRY,
        Way("pgloader", pgloader, programs("pgloader")),
        SLING,
        DLT,
        Way("ConnectorX → COPY", script("connectorx_to_postgres.py"), modules("connectorx", "psycopg"), table_made=True),
    )),
    "pg_mysql": Path("PostgreSQL → MySQL", "postgres", "mysql", (
        ROWFERRY,
        Way("psql | mysql LOAD DATA", pipe_to_mysql, programs("psql", "mysql"), table_made=True),
        SLING,
        DLT,
        Way("ConnectorX → LOAD DATA", script("connectorx_to_mysql.py"), modules("connectorx", "pymysql"),
            table_made=True),
    )),
    "mysql_duckdb": Path("MySQL → DuckDB", "mysql", "duckdb", (
        ROWFERRY,
        SLING_DUCKDB,
        DLT,
        Way("ConnectorX → DuckDB", script("connectorx_to_duckdb.py"), modules("connectorx", "duckdb")),
    )),
}  # fmt: skip


def install() -> None:
    """Installs the peers, each for itself: what cannot be had is said later, in its line.

    Raises: nothing for a peer that fails; its installer has printed why.
    """
    for name in APT:
        if shutil.which(name) is None:
            subprocess.run(["apt-get", "install", "-y", "-qq", name], stdout=subprocess.DEVNULL, check=False)
    if not (PEERS / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    for name in PIP:
        subprocess.run([str(PEERS / "bin/pip"), "install", "--disable-pip-version-check", "-q", name], check=False)
