"""rowferry beside the conventional way, on the same data, in one run.

    python benchmarks/peers/side_by_side.py [--scale 0.2] [--runs 3] [--only pg_pg,pg_duckdb,sqlite_duckdb,pg_parquet]

Data: lineitem (16 columns) of benchmarks/lineitem.py, fixed seed, no download. Each way runs in a
process of its own, in turn; printed are the medians of wall seconds, client CPU seconds per
million rows and peak memory, and the ratio of the walls (conventional / rowferry). CPU of the
servers is not in it: a psql pipe's client is both of its processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import psycopg

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import lineitem  # noqa: E402 - found through the line above
import servers  # noqa: E402 - likewise

DDL = """create table lineitem (l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null,
 l_linenumber integer not null, l_quantity decimal(15,2) not null, l_extendedprice decimal(15,2) not null,
 l_discount decimal(15,2) not null, l_tax decimal(15,2) not null, l_returnflag {char1} not null,
 l_linestatus {char1} not null, l_shipdate date not null, l_commitdate date not null, l_receiptdate date not null,
 l_shipinstruct {char25} not null, l_shipmode {char10} not null, l_comment varchar(44) not null,
 primary key (l_orderkey, l_linenumber))"""
#: A server as one runs it: durable, with room for a bulk load between two checkpoints.
SETTINGS = ("shared_buffers=1GB", "max_wal_size=8GB", "wal_level=replica")
PG_DDL = DDL.format(char1="char(1)", char10="char(10)", char25="char(25)")


@dataclasses.dataclass(slots=True)
class Cost:
    """What one run took: wall and client CPU seconds, peak memory of its largest process in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclasses.dataclass(slots=True)
class Way:
    """One way to do a job: a command, and what must be done before each of its runs."""

    name: str
    command: list[str]
    before: Callable[[], None]
    #: Counts the rows that arrived.
    rows: Callable[[], int]


def measure(command: list[str]) -> Cost:
    """Runs a command; its CPU is that of all its processes. Raises where it fails."""
    with tempfile.TemporaryFile("w+") as output:
        before = os.times()
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        after = os.times()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command[0]} … failed with {process.returncode}:\n{output.read()[-2000:]}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall_s, cpu_s, usage.ru_maxrss / 1024)


def compare(title: str, ways: list[Way], runs: int, want_rows: int) -> None:
    """Runs the ways in turn, ``runs`` times each, and prints medians and ratios; the first is rowferry."""
    costs: dict[str, list[Cost]] = {way.name: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            way.before()
            costs[way.name].append(measure(way.command))
            if (rows := way.rows()) != want_rows:
                raise SystemExit(f"{title}, {way.name}: {rows} rows arrived, not {want_rows}")
    print(f"\n{title}: {want_rows:,} rows, {runs} runs each, medians")
    print(f"  {'':26} {'wall s':>8} {'rows/s':>10} {'CPU s/M rows':>13} {'peak MiB':>9} {'wall ratio':>11}")
    base = statistics.median(c.wall_s for c in costs[ways[0].name])
    for way in ways:
        wall_s = statistics.median(c.wall_s for c in costs[way.name])
        cpu = statistics.median(c.cpu_s for c in costs[way.name]) / want_rows * 1e6
        peak = max(c.peak_mib for c in costs[way.name])
        ratio = "" if way is ways[0] else f"{wall_s / base:.2f} ×"
        print(f"  {way.name:26} {wall_s:8.2f} {want_rows / wall_s:10,.0f} {cpu:13.2f} {peak:9.0f} {ratio:>11}")


def rowferry(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rowferry", "copy", *arguments, "--quiet"]


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks/peers" / script), *arguments]


def load_postgres(url: str, scale: float) -> int:
    """Fills lineitem through psycopg's text COPY; returns its rows."""
    import io

    import pyarrow.csv

    rows = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PG_DDL.replace(",\n primary key (l_orderkey, l_linenumber)", ""))
        with connection.cursor().copy("copy lineitem from stdin (format csv)") as copy:
            for batch in lineitem.batches(scale_factor=scale):
                buffer = io.BytesIO()
                pyarrow.csv.write_csv(batch, buffer, pyarrow.csv.WriteOptions(include_header=False))
                copy.write(buffer.getvalue())
                rows += batch.num_rows
        connection.execute("alter table lineitem add primary key (l_orderkey, l_linenumber)")
        connection.execute("vacuum analyze lineitem")
    return rows


def load_sqlite(path: pathlib.Path, scale: float) -> int:
    rows = 0
    connection = sqlite3.connect(path)
    connection.execute(DDL.format(char1="text", char10="text", char25="text"))
    for batch in lineitem.batches(scale_factor=scale):
        columns = [c.cast("string") if str(c.type).startswith(("dec", "date")) else c for c in batch.columns]
        marks = ", ".join("?" * len(columns))
        connection.executemany(
            f"insert into lineitem values ({marks})",
            zip(*(c.to_pylist() for c in columns), strict=True),
        )
        rows += batch.num_rows
    connection.commit()
    connection.close()
    return rows


def count_postgres(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from lineitem").fetchone()
        return int(row[0]) if row else -1


def count_duckdb(path: pathlib.Path) -> int:
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        row = connection.execute("select count(*) from lineitem").fetchone()
        return int(row[0]) if row else -1


def count_parquet(folder: pathlib.Path) -> int:
    import pyarrow.dataset

    return int(pyarrow.dataset.dataset(folder / "lineitem", format="parquet").count_rows())


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.2, help="TPC-H scale factor: 1 is 6 million rows")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--only", default="pg_pg,pg_duckdb,pg_parquet,sqlite_duckdb")
    given = parser.parse_args()
    only = given.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        if any(name.startswith("pg_") for name in only):
            server = servers.start(SETTINGS)
            try:
                postgres_benchmarks(server, here, given, only)
            finally:
                server.discard()
        if "sqlite_duckdb" in only:
            rows = load_sqlite(here / "lineitem.db", given.scale)
            target = here / "target.duckdb"
            compare(
                "SQLite → DuckDB",
                [
                    Way(
                        "rowferry",
                        rowferry(f"sqlite:///{here}/lineitem.db", f"duckdb:///{target}", "--workers", given.workers),
                        lambda: remove(target),
                        lambda: count_duckdb(target),
                    ),
                    Way(
                        "sqlite3 + pyarrow",
                        python("sqlite3_to_duckdb.py", str(here / "lineitem.db"), str(target)),
                        lambda: remove(target),
                        lambda: count_duckdb(target),
                    ),
                ],
                given.runs,
                rows,
            )


def postgres_benchmarks(
    server: servers.Postgres, here: pathlib.Path, given: argparse.Namespace, only: list[str]
) -> None:
    source = server.database("bench_source")
    rows = load_postgres(source, given.scale)
    urls = {"target": ""}

    def fresh(ddl: bool = False) -> None:
        urls["target"] = server.database("bench_target")
        if ddl:
            with psycopg.connect(urls["target"], autocommit=True) as connection:
                connection.execute(PG_DDL.replace(",\n primary key (l_orderkey, l_linenumber)", ""))

    fresh()
    target_url = urls["target"]
    pipe = (
        f"set -o pipefail; psql -XqAt '{source}' -c 'copy lineitem to stdout binary' | "
        f"psql -XqAt '{target_url}' -c 'copy lineitem from stdin binary' && "
        f"psql -XqAt '{target_url}' -c 'alter table lineitem add primary key (l_orderkey, l_linenumber)'"
    )
    if "pg_pg" in only:
        compare(
            "PostgreSQL → PostgreSQL",
            [
                Way(
                    "rowferry, with digests",
                    rowferry(source, target_url, "--workers", given.workers),
                    fresh,
                    lambda: count_postgres(target_url),
                ),
                Way(
                    "psql | psql, binary", ["bash", "-c", pipe], lambda: fresh(True), lambda: count_postgres(target_url)
                ),
            ],
            given.runs,
            rows,
        )
    duck = here / "target.duckdb"
    if "pg_duckdb" in only:
        ways = [
            Way(
                "rowferry, with digests",
                rowferry(source, f"duckdb:///{duck}", "--workers", given.workers),
                lambda: remove(duck),
                lambda: count_duckdb(duck),
            ),
            Way(
                "ADBC reader → DuckDB",
                python("adbc_to_duckdb.py", source, str(duck)),
                lambda: remove(duck),
                lambda: count_duckdb(duck),
            ),
        ]
        try:
            import connectorx  # noqa: F401 - only whether it is there
        except ImportError:
            print("ConnectorX is not installed: left out (pip install rowferry[benchmark])")
        else:
            ways.append(
                Way(
                    "ConnectorX → DuckDB",
                    python("connectorx_to_duckdb.py", source, str(duck)),
                    lambda: remove(duck),
                    lambda: count_duckdb(duck),
                )
            )
        compare("PostgreSQL → DuckDB", ways, given.runs, rows)
    if "pg_parquet" in only:
        folder = here / "parquet"
        compare(
            "PostgreSQL → Parquet",
            [
                Way(
                    "rowferry, with digests",
                    rowferry(source, f"parquet:///{folder}", "--workers", given.workers),
                    lambda: remove(folder),
                    lambda: count_parquet(folder),
                ),
                Way(
                    "ADBC reader → pyarrow",
                    python("adbc_to_parquet.py", source, str(folder)),
                    lambda: remove(folder),
                    lambda: count_parquet(folder),
                ),
            ],
            given.runs,
            rows,
        )


if __name__ == "__main__":
    main()
