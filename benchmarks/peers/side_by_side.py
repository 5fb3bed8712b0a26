"""rowferry beside its peers: the same data, in turn, in one run, each result looked at.

    python benchmarks/peers/side_by_side.py --install          once: the peers, into benchmarks/.peers-venv
    python benchmarks/peers/side_by_side.py [--scale 0.3] [--paths mysql_pg,pg_mysql,…] [--tables lineitem,events]
        [--ways pipe,ConnectorX,…] [--runs 3] [--once-over 120] [--workers 2] [--json OUT.json]
        [--postgres URL|own] [--mysql URL|own]

Scale 1 is 6 million rows of lineitem and 1 million of events, made here from a fixed seed. Servers: users of all
privileges on them; ``own`` starts throw-away ones. Databases are made, and dropped at the end; nothing else there
is touched. Every way runs in a process of its own, from an empty target, ``--runs`` times in turn. Printed are
medians (peak: the largest): wall seconds, rows/s, client CPU seconds per million rows (of all its processes), server
CPU seconds per million rows (of all processes of both servers until the client ended: nobody else should use them),
the former over the latter, peak memory of the largest client process, the wall time over rowferry's, and what
became of the data ("exact", or which types the copy has instead, or what is wrong). Exits 1 where
rowferry fails or is not exact; a peer that fails has a line that says why. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT / "tests"))

import cost  # noqa: E402 - found through sys.path
import places  # noqa: E402
import tables  # noqa: E402
import ways  # noqa: E402

POSTGRES = os.environ.get("ROWFERRY_BENCHMARK_POSTGRES_URL", "postgresql://rf:canary-s3cret@127.0.0.1:15432")
MYSQL = os.environ.get("ROWFERRY_BENCHMARK_MYSQL_URL", "mysql://rf:canary-s3cret@127.0.0.1:13306")
#: Servers of our own, as one runs them: durable, with room for a bulk load between two checkpoints.
POSTGRES_SETTINGS = ("shared_buffers=1GB", "max_wal_size=8GB", "wal_level=replica")
MYSQL_SETTINGS = ("innodb-buffer-pool-size=1G", "innodb-log-file-size=1G", "max-allowed-packet=256M")
HEADER = ("wall s", "rows/s", "client CPU s/M", "server CPU s/M", "client/server", "peak MiB", "× rowferry")
SAID_MAX = 300


@dataclasses.dataclass
class Result:
    """What one way did on one path with one table."""

    path: str
    table: str
    way: str
    rows: int
    costs: list[cost.Cost] = dataclasses.field(default_factory=list)
    #: '' exact; other types; ``WRONG: …``; ``FAILED: …``; ``not run: …``.
    outcome: str = ""

    @property
    def wall_s(self) -> float | None:
        return statistics.median(c.wall_s for c in self.costs) if self.costs else None

    def per_million(self, what: str) -> float | None:
        values = [getattr(c, what) for c in self.costs]
        return statistics.median(values) / self.rows * 1e6 if values and None not in values else None

    def cells(self, base_wall_s: float | None) -> list[str]:
        wall_s, client, servers = self.wall_s, self.per_million("client_cpu_s"), self.per_million("servers_cpu_s")
        if wall_s is None:
            return [""] * len(HEADER)
        return [
            f"{wall_s:.2f}", f"{self.rows / wall_s:,.0f}", f"{client:.2f}",
            "–" if servers is None else f"{servers:.2f}",
            f"{client / servers:.2f}" if client and servers else "–", f"{max(c.peak_mib for c in self.costs):.0f}",
            f"{wall_s / base_wall_s:.2f}" if base_wall_s else "–",
        ]  # fmt: skip

    def as_json(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "wall_s_median": self.wall_s, "outcome": self.outcome or "exact"}


class Bench:
    """The places of one run, each filled when it is first needed, all dropped at the end."""

    def __init__(self, given: argparse.Namespace, folder: pathlib.Path) -> None:
        self.given = given
        self.folder = folder
        self._places: dict[tuple[str, str], places.Place] = {}
        self._filled: set[tuple[str, str]] = set()
        self._expected: dict[str, tables.Sums] = {}

    def place(self, engine: str, role: str) -> places.Place:
        if (engine, role) not in self._places:
            database = f"rowferry_side_{role}_{os.getpid()}"
            made: dict[str, places.Place] = {
                "postgres": lambda: places.Postgres(self.given.postgres, database),
                "mysql": lambda: places.Mysql(self.given.mysql, database),
                "duckdb": lambda: places.Duckdb("duckdb", self.folder / f"{role}.duckdb"),
                "parquet": lambda: places.Parquet("parquet", self.folder / f"{role}.parquet"),
                "sqlite": lambda: places.Sqlite("sqlite", self.folder / f"{role}.sqlite"),
            }
            self._places[engine, role] = made[engine]()
        return self._places[engine, role]

    def source(self, engine: str, table: tables.Table, rows: int) -> places.Place:
        """The source, filled with ``table`` and found to hold it."""
        place = self.place(engine, "source")
        if (engine, table.name) in self._filled:
            return place
        print(f"filling {engine}: {rows:,} rows of {table.name}", file=sys.stderr, flush=True)
        if not any(filled == engine for filled, _ in self._filled):
            place.fresh(table, made=False)
        if isinstance(place, places.Sqlite):
            place.load(table, rows)
        elif isinstance(place, places.Server):
            path = self.folder / "rows.txt"
            places.write_text(table, rows, path)
            place.load(table, path)
            path.unlink()
            found, types = place.look(table)
            if (outcome := table.compare(found, self.expected(table, rows), types)).startswith("WRONG"):
                raise SystemExit(f"{engine} was not filled rightly with {table.name}: {outcome}")
        self._filled.add((engine, table.name))
        return place

    def expected(self, table: tables.Table, rows: int) -> tables.Sums:
        if table.name not in self._expected:
            self._expected[table.name] = tables.expected(table, rows)
        return self._expected[table.name]

    def discard(self) -> None:
        for place in self._places.values():
            place.discard()

    def run(self, path: ways.Path, table: tables.Table) -> list[Result]:
        """All ways of a path, in turn."""
        rows = table.rows_of(self.given.scale)
        source, target = self.source(path.source, table, rows), self.place(path.target, "target")
        asked = [way for way in path.ways if way is ways.ROWFERRY or any(part in way.name for part in self.given.ways)]
        results = [Result(path.title, table.name, way.name, rows) for way in asked]
        for way, result in zip(asked, results, strict=True):
            if reason := way.missing():
                result.outcome = f"not run: {reason}"
        for _ in range(self.given.runs):
            for way, result in zip(asked, results, strict=True):
                slow = any(c.wall_s > self.given.once_over for c in result.costs)
                if not slow and not result.outcome.startswith(("not run", "FAILED")):
                    self.once(way, result, source, target, table)
        return results

    def once(
        self, way: ways.Way, result: Result, source: places.Place, target: places.Place, table: tables.Table
    ) -> None:
        """One run of one way, from an empty target; what comes of it goes into ``result``."""
        print(f"  {result.path}, {table.name}: {way.name} …", file=sys.stderr, flush=True)
        target.fresh(table, made=way.table_made)
        places.settle()
        servers = {place.server_id for place in (source, target) if place.server_id is not None}
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            job = ways.Job(source, target, table, self.given.workers, pathlib.Path(own))
            try:
                taken = cost.measure(
                    way.command(job), env=ways.environment(job.folder), timeout_s=self.given.timeout, server_ids=servers
                )
            except cost.FailedError as error:
                result.outcome = f"FAILED: {error}"
                return
        # Every value of the first run's copy is looked at; of the later ones' the rows, numbers and dates.
        first = not result.costs
        looked = table if first else table.brief()
        result.costs.append(taken)
        try:
            found, types = target.look(looked)
            outcome = looked.compare(found, looked.sums_of(table, self.expected(table, result.rows)), types)
        except Exception as error:  # noqa: BLE001 - whatever a driver says of what a peer left
            outcome = f"WRONG: cannot be looked at as the source can: {error}"
        if first or (outcome.startswith("WRONG") and not result.outcome.startswith("WRONG")):
            result.outcome = outcome


def show(results: list[Result]) -> None:
    """One path's table."""
    first = results[0]
    print(f"\n{first.path}, {first.table}: {first.rows:,} rows, medians of {max(len(r.costs) for r in results)} runs")
    name_width = max(len(r.way) for r in results)
    widths = [max(9, len(h)) for h in HEADER]
    print("  ".join([" " * (name_width + 2), *(h.rjust(w) for h, w in zip(HEADER, widths, strict=True))]))
    for r in results:
        cells = [c.rjust(w) for c, w in zip(r.cells(first.wall_s), widths, strict=True)]
        fewer = f" ({len(r.costs)} run)" if r.costs and len(r.costs) < len(first.costs) else ""
        print("  ".join([f"  {r.way.ljust(name_width)}", *cells, gist(r.outcome or "exact") + fewer]), flush=True)


def gist(outcome: str) -> str:
    """An outcome as one line: of what a failing command said, the last line that names an error."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", outcome).splitlines()]
    telling = [line for line in lines[1:] if re.search("error|fail|cannot|invalid|mismatch", line, re.IGNORECASE)]
    text = f"{lines[0]} … {telling[-1]}" if telling else " ".join(lines)
    return text if len(text) <= SAID_MAX else f"{text[: SAID_MAX // 3]} … {text[-SAID_MAX * 2 // 3 :]}"


@contextlib.contextmanager
def own_servers(given: argparse.Namespace) -> Iterator[None]:
    """Starts what is to be started for this run alone, and puts its URL into ``given``."""
    with contextlib.ExitStack() as stack:
        if given.postgres == "own":
            import servers

            postgres = servers.start(POSTGRES_SETTINGS)
            stack.callback(postgres.discard)
            given.postgres = postgres.url
        if given.mysql == "own":
            import mysql_servers

            mysql = mysql_servers.start(MYSQL_SETTINGS)
            stack.callback(mysql.discard)
            given.mysql = mysql.url
        yield


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    def names(known: dict[str, object]) -> object:
        def parse(text: str) -> list[str]:
            found = text.split(",")
            if unknown := set(found) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
            return found

        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.3)
    parser.add_argument("--ways", type=lambda text: text.split(","), default=[""], help="parts of names of peers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once-over", type=float, default=120, metavar="S", help="what takes longer runs once only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--paths", type=names(dict(ways.PATHS)), default=list(ways.PATHS))  # type: ignore[arg-type]
    parser.add_argument("--tables", type=names(dict(tables.TABLES)), default=list(tables.TABLES))  # type: ignore[arg-type]
    parser.add_argument("--postgres", default=POSTGRES, metavar="URL|own")
    parser.add_argument("--mysql", default=MYSQL, metavar="URL|own")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that one run may take")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--install", action="store_true", help="install the peers, and end")
    return parser.parse_args(given)


def main() -> int:
    given = arguments()
    # Told to end, it leaves no server behind that would run beside whatever is measured next.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.install:
        ways.install()
        return 0
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="rowferry-bench-") as folder, own_servers(given):
        bench = Bench(given, pathlib.Path(folder))
        try:
            for path in (ways.PATHS[name] for name in given.paths):
                for table in (tables.TABLES[name] for name in given.tables if name in path.tables):
                    results += (found := bench.run(path, table))
                    show(found)
        finally:
            bench.discard()
            if given.json:
                given.json.write_text(json.dumps([r.as_json() for r in results], indent=1, ensure_ascii=False))
    ours = [r for r in results if r.way == ways.ROWFERRY.name]
    return int(any(r.outcome for r in ours))


if __name__ == "__main__":
    sys.exit(main())
