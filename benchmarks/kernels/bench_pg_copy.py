"""PostgreSQL ↔ Arrow: what a million lineitem rows cost the client, beside ADBC.

    python benchmarks/kernels/bench_pg_copy.py [--rows 1000000] [--seed 42] [--url postgresql://…]

*read* is COPY TO STDOUT into Arrow batches, *write* Arrow batches into COPY FROM STDIN (an unlogged
table, in one transaction), both over loopback TCP and the adapter's own socket code; *with raw tuples*
keeps the rows' own bytes, too, as PostgreSQL → PostgreSQL does. *decode* and *encode* are the
kernels alone, on bytes in memory.
Baseline: adbc-driver-postgresql's reader and its ingest. Each line gives rows/s, bytes/s (of COPY
tuples), CPU seconds of the client per million rows, and the peak memory of the process so far.
Without --url a throw-away server is started, and stopped afterwards.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))

import lineitem
import servers
from measuring import measure
from rowferry._native.pg_copy import HEADER, TRAILER, Decoder, Encoder
from rowferry.adapters.buffers import assemble
from rowferry.adapters.postgres.source import Stream
from rowferry.adapters.postgres.wire import Wire
from rowferry.stages.digest import Digester, compare
from rowferry.types import from_arrow

REPEATS = 3
BATCH_BYTES = 1 << 20
FRAME_BYTES = 64 << 10
READ = "COPY lines TO STDOUT (FORMAT binary)"

Codec = tuple[str, dict[str, Any]]


def codecs() -> list[Codec]:
    names = {pa.int64(): "int8", pa.int32(): "int4", pa.date32(): "date"}
    found: list[Codec] = []
    for field in lineitem.SCHEMA:
        if pa.types.is_decimal(field.type):
            found.append(("numeric_decimal128", {"precision": 15, "scale": 2}))
        elif pa.types.is_string(field.type):
            found.append(("text" if field.name == "l_comment" else "char", {}))
        else:
            found.append((names[field.type], {}))
    return found


def connect(url: str) -> Wire:
    from pg8000.core import CoreConnection

    parts = urlsplit(url)
    database = parts.path[1:] or "postgres"
    return Wire(
        CoreConnection(parts.username, parts.hostname, database, parts.port or 5432, parts.password, ssl_context=False)
    )


def write(wire: Wire, encoder: Encoder, batches: Sequence[pa.RecordBatch], table: str) -> tuple[int, int]:
    wire.simple(f"BEGIN; TRUNCATE {table}")
    wire.copy_in(f"COPY {table} FROM STDIN (FORMAT binary)")
    wire.copy_data(HEADER)
    size = 0
    for batch in batches:
        tuples = encoder.encode(batch, FRAME_BYTES)
        size += len(tuples)
        wire.copy_frames(tuples)
    wire.copy_data(TRAILER)
    rows = wire.copy_done()
    assert rows == sum(batch.num_rows for batch in batches)
    wire.simple("COMMIT")
    return rows, size


def read(wire: Wire) -> tuple[int, int]:
    decoder = Decoder(codecs())
    wire.copy_out(READ)
    size = 0
    for taken in Stream(wire, decoder).batches(BATCH_BYTES):
        size += assemble(lineitem.SCHEMA, taken).nbytes
    return decoder.rows, size


def tally(wire: Wire) -> tuple[int, int]:
    """What PostgreSQL to PostgreSQL does: the digest of every row, and its tuples as they came."""
    decoder = Decoder(codecs())
    forms = [from_arrow(field.type) for field in lineitem.SCHEMA]
    pairs = [compare(t, t, source_engine="postgres", target_engine="postgres") for t in forms if t is not None]
    digester = Digester([p for p in pairs if p is not None], "source")
    intake = digester.intake(lineitem.SCHEMA)
    wire.copy_out(READ)
    size = sum(len(tuples) for _, tuples in Stream(wire, decoder).tallies(BATCH_BYTES, intake))
    return digester.digest.rows, size


def decode(stream: memoryview) -> tuple[int, int]:
    """The kernel alone, fed as a socket would."""
    decoder = Decoder(codecs())
    for start in range(0, len(stream), 256 << 10):
        piece = stream[start : start + (256 << 10)]
        decoder.buffer_view(len(piece))[: len(piece)] = piece
        decoder.received(len(piece))
        while decoder.buffered >= BATCH_BYTES and (taken := decoder.take(bytes_max=BATCH_BYTES)) is not None:
            assemble(lineitem.SCHEMA, taken)
    while (taken := decoder.take(bytes_max=BATCH_BYTES)) is not None:
        assemble(lineitem.SCHEMA, taken)
    decoder.finish()
    return decoder.rows, len(stream)


def encode(encoder: Encoder, batches: Sequence[pa.RecordBatch]) -> tuple[int, int]:
    return sum(batch.num_rows for batch in batches), sum(len(encoder.encode(batch, FRAME_BYTES)) for batch in batches)


def adbc_read(url: str, rows: int) -> tuple[int, int]:
    import adbc_driver_postgresql.dbapi

    size = 0
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM lines")
        for batch in cursor.fetch_record_batch():
            size += batch.nbytes
    return rows, size


def adbc_write(url: str, batches: Sequence[pa.RecordBatch]) -> tuple[int, int]:
    """Its own table: its ingest takes no numeric columns that exist already with all checks ours has."""
    import adbc_driver_postgresql.dbapi

    reader = pa.RecordBatchReader.from_batches(lineitem.SCHEMA, batches)
    with adbc_driver_postgresql.dbapi.connect(url) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest("adbc_lines", reader, mode="replace")
        connection.commit()
    return sum(batch.num_rows for batch in batches), sum(batch.nbytes for batch in batches)


def run(url: str, rows: int, seed: int, repeats: int) -> dict[str, float]:
    """Everything against one server; CPU s per million rows by name."""
    batches = list(lineitem.batches(rows, batch_rows=min(rows, 5_000), seed=seed))
    encoder = Encoder(codecs())
    stream = bytearray(b"d\0\0\0\x17" + bytes(HEADER))
    for batch in batches:
        stream += encoder.encode(batch, 150)  # below a row's length: one message a row, as the server sends
    stream += b"d\0\0\0\6\xff\xff"
    wire = connect(url)
    wire.simple(f"DROP TABLE IF EXISTS lines; CREATE UNLOGGED TABLE lines ({lineitem.DDL})")
    results = {
        "write": measure("write", lambda: write(wire, encoder, batches, "lines"), repeats),
        "read": measure("read", lambda: read(wire), repeats),
        "tally": measure("read, digest, raw tuples", lambda: tally(wire), repeats),
        "decode": measure("decode, kernel alone", lambda: decode(memoryview(stream)), repeats),
        "encode": measure("encode, kernel alone", lambda: encode(encoder, batches), repeats),
        "adbc read": measure("ADBC read", lambda: adbc_read(url, rows), repeats),
        "adbc write": measure("ADBC ingest", lambda: adbc_write(url, batches), repeats),
    }
    wire.simple("DROP TABLE lines; DROP TABLE adbc_lines")
    wire.close()
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--url", help="a database to make two tables in: lines and adbc_lines")
    options = parser.parse_args(arguments)
    print(f"{options.rows} rows of lineitem, 16 columns, seed {options.seed}, best of {REPEATS}")
    server = None if options.url else servers.start()
    try:
        results = run(options.url or server.database(), options.rows, options.seed, REPEATS)
    finally:
        if server is not None:
            server.discard()
    print(
        f"ADBC / ours: read {results['adbc read'] / results['read']:.1f}×, "
        f"write {results['adbc write'] / results['write']:.1f}×"
    )


if __name__ == "__main__":
    main()
