"""The paths, and the ways to go them: rowferry, and for each peer the command that its users would type."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from urllib.parse import quote

from places import Files, Login, Place, Server
from tables import Table

HERE = pathlib.Path(__file__).resolve().parent
PEERS = pathlib.Path(os.environ.get("ROWFERRY_BENCHMARK_PEERS", HERE.parent / ".peers-venv"))
#: What ``--install`` installs: pgloader from the system's packages, the rest into a venv of its own. Sling is
#: pinned to the last binary that came as a wheel (later ones fetch theirs when they are run).
APT = ("pgloader",)
PIP = (
    "sling-linux-amd64==1.4.11" if platform.machine() == "x86_64" else "sling-linux-arm64==1.4.11",
    "dlt[duckdb,postgres,sqlalchemy]>=1.31,<2", "connectorx>=0.4", "pandas", "pyarrow>=18", "pymysql[rsa]",
    "psycopg[binary]>=3.2", "adbc-driver-postgresql>=1.12", "adbc-driver-manager>=1.12", "duckdb>=2.0",
)  # fmt: skip
#: DuckDB's command line (Sling's DuckDB side is that, too) and the extensions for it, which must be of its version.
PIP_ALONE = (
    "duckdb-cli==1.5.5", "duckdb-extension-json==1.5.5", "duckdb-extension-httpfs==1.5.5",
    "duckdb-extension-mysql-scanner==1.5.5",
    "duckdb-extension-postgres-scanner==1.5.5",
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
    machine = {"x86_64": "linux_amd64", "aarch64": "linux_arm64"}.get(platform.machine(), platform.machine())
    for extension in found("duckdb_extension_*/extensions/*/*.duckdb_extension"):
        there = folder / ".duckdb/extensions" / extension.parent.name / machine
        there.mkdir(parents=True, exist_ok=True)
        (there / extension.name).symlink_to(extension)
    sling_uses = {"DUCKDB_PATH": str(found(DUCKDB_PROGRAM)[0])} if found(DUCKDB_PROGRAM) else {}
    return {**os.environ, **home, **quiet, **sling_uses}


@functools.cache
def python() -> str:
    """The interpreter of the peers: of their venv, else this one."""
    own = PEERS / "bin/python"
    return str(own if own.exists() else sys.executable)


@functools.cache
def found(pattern: str) -> tuple[pathlib.Path, ...]:
    """Files of the peers' packages; programs among them are made runnable."""
    paths = tuple(sorted(PEERS.glob(f"lib/python3*/site-packages/{pattern}")))
    for path in paths:
        if pattern in (SLING_PROGRAM, DUCKDB_PROGRAM):
            path.chmod(path.stat().st_mode | 0o111)
    return paths


#: Programs that come in packages.
SLING_PROGRAM = "sling_linux_*/bin/sling-linux-*"
DUCKDB_PROGRAM = "duckdb_cli/duckdb"
DUCKDB_SCANNER = "duckdb_extension_{0}_scanner/extensions/*/*.duckdb_extension"


def modules(*names: str) -> Callable[[], str | None]:
    """Whether Python modules are there."""

    def missing() -> str | None:
        code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {names!r})))"
        done = subprocess.run([python(), "-c", code], capture_output=True, check=False)
        return f"not installed: {' or '.join(names)}" if done.returncode else None

    return missing


def programs(*names: str) -> Callable[[], str | None]:
    """Whether programs (or, by a pattern, files of the peers' packages) are there."""

    def missing() -> str | None:
        lost = [name for name in names if not (found(name) if "/" in name else shutil.which(name))]
        return f"not installed: {', '.join(lost)}" if lost else None

    return missing


def script(name: str, *, with_key: bool = True, with_columns: bool = False) -> Callable[[Job], list[str]]:
    """A peer that is a library: the script of that name here; ``with_key``: it makes the primary key, too, and
    ``with_columns`` the types that rowferry makes."""

    def command(job: Job) -> list[str]:
        source, target = (str(p.path) if isinstance(p, Files) else p.url for p in (job.source, job.target))
        return [
            python(), str(HERE / name), source, target, job.table.name,
            ",".join(job.table.key) if with_key else "",
            job.table.split_by or "", str(job.workers), *([job.table.ddl[job.target.engine]] if with_columns else []),
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
        f"MYSQL_PWD={shlex.quote(login.password)} mariadb --no-defaults -h {login.host} -P {login.port} "
        f"-u {shlex.quote(login.user)} --local-infile=1 --default-character-set=utf8mb4 {database} "
        f"-e {shlex.quote(load)}"
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
        str(found(SLING_PROGRAM)[0]), "run", "--src-conn", url(job.source), "--src-stream", stream(job.source),
        "--tgt-conn", url(job.target), "--tgt-object", stream(job.target), "--mode", "full-refresh",
    ]  # fmt: skip


def duckdb_scanner(job: Job) -> list[str]:
    """DuckDB's command line reading the other server by its own extension."""
    login, database = login_of(job.source)
    kind, name = ("MYSQL", "database") if job.source.engine == "mysql" else ("POSTGRES", "dbname")
    place = f"host={login.host} port={login.port} user={login.user} password={login.password} {name}={database}"
    schema = database if kind == "MYSQL" else "public"
    sql = (
        f"load {kind.lower()}_scanner; set timezone = 'UTC'; attach '{place}' as source (type {kind}, read_only); "
        f"create table main.{job.table.name} as select * from source.{schema}.{job.table.name}; "
        f"alter table main.{job.table.name} add primary key ({', '.join(job.table.key)});"
    )
    target = job.target
    assert isinstance(target, Files)
    return [str(found(DUCKDB_PROGRAM)[0]), "-bail", str(target.path), "-c", sql]


ROWFERRY = Way("rowferry, with digests", rowferry)
SLING = Way("Sling 1.4", sling, programs(SLING_PROGRAM))
SLING_DUCKDB = Way("Sling 1.4", sling, programs(SLING_PROGRAM, DUCKDB_PROGRAM))
DLT = Way("dlt", script("dlt_copy.py"), modules("dlt", "sqlalchemy"))
CONNECTORX_DUCKDB = Way(
    "ConnectorX → DuckDB, equal result", script("connectorx_to_duckdb.py", with_columns=True),
    modules("connectorx", "duckdb"),
)  # fmt: skip
CONNECTORX_DUCKDB_AS_IT_COMES = Way(
    "ConnectorX → DuckDB, as it comes", script("connectorx_to_duckdb.py", with_key=False),
    modules("connectorx", "duckdb"),
)  # fmt: skip

PATHS: Mapping[str, Path] = {
    "pg_pg": Path("PostgreSQL → PostgreSQL", "postgres", "postgres", (
        ROWFERRY,
        Way("psql | psql, binary", pipe_to_postgres, programs("psql"), table_made=True),
    )),
    "pg_duckdb": Path("PostgreSQL → DuckDB", "postgres", "duckdb", (
        ROWFERRY,
        Way("ADBC → DuckDB", script("adbc_to_duckdb.py"), modules("adbc_driver_postgresql", "duckdb")),
        CONNECTORX_DUCKDB,
        CONNECTORX_DUCKDB_AS_IT_COMES,
        Way("DuckDB's own scanner", duckdb_scanner, programs(DUCKDB_PROGRAM, DUCKDB_SCANNER.format("postgres"))),
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
        Way("ConnectorX → COPY", script("connectorx_to_postgres.py"), modules("connectorx", "psycopg"),
            table_made=True),
    )),
    "pg_mysql": Path("PostgreSQL → MySQL", "postgres", "mysql", (
        ROWFERRY,
        Way("psql | mariadb LOAD DATA", pipe_to_mysql, programs("psql", "mariadb"), table_made=True),
        SLING,
        DLT,
        Way("ConnectorX → LOAD DATA", script("connectorx_to_mysql.py"), modules("connectorx", "pymysql"),
            table_made=True),
    )),
    "mysql_duckdb": Path("MySQL → DuckDB", "mysql", "duckdb", (
        ROWFERRY,
        SLING_DUCKDB,
        DLT,
        CONNECTORX_DUCKDB,
        CONNECTORX_DUCKDB_AS_IT_COMES,
        Way("DuckDB's own scanner", duckdb_scanner, programs(DUCKDB_PROGRAM, DUCKDB_SCANNER.format("mysql"))),
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
    pip = [str(PEERS / "bin/pip"), "install", "--disable-pip-version-check", "-q"]
    for name in PIP:
        subprocess.run([*pip, name], check=False)
    for name in PIP_ALONE:
        subprocess.run([*pip, "--no-deps", name], check=False)
