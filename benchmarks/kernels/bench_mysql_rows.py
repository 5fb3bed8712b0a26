"""MariaDB → Arrow: what a million lineitem rows cost the client, beside PyMySQL's own cursor.

    python benchmarks/kernels/bench_mysql_rows.py [--rows 1000000] [--seed 42] [--url mysql://…]

*read* is a SELECT over loopback TCP into Arrow batches, *read, TLS* the same through TLS; *decode* is the
kernel alone, on bytes in memory. Baseline: PyMySQL's unbuffered cursor, whose rows are fetched and dropped
(no Arrow is made of them), over a tenth of the rows. Each line gives rows/s, bytes/s (of Arrow; decode and
the baseline: of packets), CPU seconds of the client per million rows, and the peak memory of the process
so far. Without --url a throw-away server is started, and stopped afterwards.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.csv
import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))

import lineitem
import mysql_servers
from measuring import measure
from rowferry._native.mysql_rows import Decoder
from rowferry.adapters.buffers import assemble
from rowferry.adapters.mysql import header, wire
from rowferry.types import Type, from_arrow

REPEATS = 3
BATCH_BYTES = 1 << 20
READ = "SELECT * FROM `lines`"
#: PyMySQL needs some 16 CPU seconds for a million rows.
BASELINE_PART = 10


def fields() -> list[Type]:
    found = [from_arrow(field.type) for field in lineitem.SCHEMA]
    assert all(found)
    return [t for t in found if t is not None]


def connect(url: str, **options: Any) -> pymysql.connections.Connection[Any]:
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=unquote(parts.path[1:]), charset="utf8mb4", autocommit=True,
        local_infile=True, **(options or {"ssl_disabled": True}),
    )  # fmt: skip


def load(connection: Any, rows: int, seed: int) -> None:
    """Makes and fills the table."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS `lines`")
        cursor.execute(f"CREATE TABLE `lines` ({lineitem.DDL})")
    for batch in lineitem.batches(rows, seed=seed):
        wire.load_local(connection, "INTO TABLE `lines` CHARACTER SET utf8mb4", texts(batch))


def texts(batch: pa.RecordBatch) -> Iterable[bytes]:
    """A batch as LOAD DATA's default text; lineitem has no NULLs and nothing to escape."""
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pyarrow.csv.write_csv(batch, sink, options)
    yield sink.getvalue().to_pybytes()


def read(connection: Any) -> tuple[int, int]:
    rows = size = 0
    for batch in wire.read_batches(connection, READ, fields(), lineitem.SCHEMA.names, BATCH_BYTES):
        rows += batch.num_rows
        size += batch.nbytes
    return rows, size


def packets(connection: Any, rows: int) -> tuple[bytes, int]:
    """The rows' packets as the server sends them, and the number that the first of them bears."""
    channel = wire.Channel(connection)
    channel.command(f"{READ} LIMIT {rows}")
    for _ in range(2 + len(lineitem.SCHEMA)):
        channel.payload()
    first, taken = channel.sequence, bytearray()
    while True:
        number = channel.sequence
        payload = channel.payload()
        taken += len(payload).to_bytes(3, "little") + bytes([number]) + payload
        if payload[0] == 0xFE:
            channel.give_back(channel.ok(payload))
            return bytes(taken), first


def decode(stream: bytes, first: int) -> tuple[int, int]:
    """The kernel alone, fed as a socket would."""
    decoder = Decoder(header.kernel_columns(fields(), ()), wire.SLAB_BYTES, first)
    view = memoryview(stream)
    at = rows = 0
    while decoder.last is None:
        room = decoder.buffer_view()
        size = min(len(room), len(view) - at)
        room[:size] = view[at : at + size]
        room.release()
        decoder.received(size)
        at += size
        while (taken := decoder.take(bytes_max=BATCH_BYTES)) is not None:
            rows += assemble(lineitem.SCHEMA, taken).num_rows
    return rows, len(stream)


def pymysql_read(connection: Any, rows: int, size: int) -> tuple[int, int]:
    """Its own cursor; ``size`` bytes of packets, which it does not tell."""
    count = 0
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute(f"{READ} LIMIT {rows}")
        for _ in cursor:
            count += 1
    return count, size


def run(url: str, rows: int, seed: int, repeats: int) -> dict[str, float]:
    """Everything against one server; CPU s per million rows by name."""
    connection = connect(url)
    load(connection, rows, seed)
    few = max(1, rows // BASELINE_PART)
    stream, first = packets(connection, few)
    results = {"read": measure("read", lambda: read(connection), repeats)}
    with connect(url, ssl_verify_cert=False, ssl_verify_identity=False) as encrypted:
        if encrypted._secure:
            results["read, TLS"] = measure("read, TLS", lambda: read(encrypted), repeats)
    results["decode"] = measure("decode, kernel alone", lambda: decode(stream, first), repeats)
    results["pymysql"] = measure("PyMySQL's cursor", lambda: pymysql_read(connection, few, len(stream)), 1)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE `lines`")
    connection.close()
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--url", help="a database to make a table in: lines")
    options = parser.parse_args(arguments)
    print(f"{options.rows} rows of lineitem, 16 columns, seed {options.seed}, best of {REPEATS}")
    if options.url:
        results = run(options.url, options.rows, options.seed, REPEATS)
    else:
        server = mysql_servers.start()
        try:
            results = run(server.database(), options.rows, options.seed, REPEATS)
        finally:
            server.discard()
    print(f"PyMySQL / ours: {results['pymysql'] / results['read']:.0f}×")


if __name__ == "__main__":
    main()
