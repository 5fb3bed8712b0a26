"""Arrow → MySQL: what a million lineitem rows cost the client, beside the driver's own way.

    python benchmarks/kernels/bench_mysql_load.py [--rows 1000000] [--seed 42] [--url mysql://…/database]

*encode* is the kernel alone, into memory. *load* feeds LOAD DATA LOCAL over loopback TCP as the adapter does,
*insert* sends multi-row INSERTs (what takes its place where the server has local_infile off); each into an
InnoDB table with its primary key, in one transaction. Baseline: PyMySQL's executemany, on a tenth of the rows.
Each line gives rows/s, bytes/s (of LOAD DATA's text), CPU seconds of the client per million rows, and the peak
memory of the process so far. Without --url a throw-away server is started, and stopped afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))

import lineitem
import mysql_servers
from measuring import measure
from rowferry import endpoint
from rowferry._native.mysql_load import LOAD_FORMAT, Encoder
from rowferry.adapters.mysql import wire
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import TargetError

BATCH_ROWS = 8192
BLOCK_BYTES = 1 << 20


def codecs() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for field in lineitem.SCHEMA:
        if pa.types.is_decimal(field.type):
            found.append(("decimal", {"required": True}))
        elif pa.types.is_string(field.type):
            found.append(("text", {"length": 44, "required": True}))
        else:
            found.append(("date" if pa.types.is_date(field.type) else "integer", {"required": True}))
    return found


def blocks(batches: list[pa.RecordBatch], *, sql: bool = False) -> Iterator[Any]:
    encoder = Encoder(codecs(), block_bytes=BLOCK_BYTES, sql=sql, row_bytes_max=BLOCK_BYTES if sql else 0)
    for batch in batches:
        encoder.begin(batch)
        while (block := encoder.fill()) is not None:
            yield block
    yield encoder.rest()


def encode(batches: list[pa.RecordBatch]) -> int:
    return sum(len(block) for block in blocks(batches))


def load(session: MysqlSession, batches: list[pa.RecordBatch]) -> int:
    rows = sum(b.num_rows for b in batches)
    session.begin()
    done = wire.load_local(session.connection, f"INTO TABLE `lines` {LOAD_FORMAT}", blocks(batches))
    session.commit()
    assert (done.records, done.deleted, done.skipped, done.warnings) == (rows, 0, 0, 0), done
    return rows


def insert(session: MysqlSession, batches: list[pa.RecordBatch]) -> int:
    session.begin()
    rows = 0
    for block in blocks(batches, sql=True):
        with memoryview(block) as view:
            rows += session.connection.query(b"INSERT INTO `lines` VALUES " + view)
    session.commit()
    return rows


def by_the_driver(url: str, batches: list[pa.RecordBatch]) -> int:
    p = parameters(endpoint.parse(url))
    rows = 0
    with pymysql.connect(
        host=p.host, port=p.port, user=p.user, password=p.password or "", database=p.database, charset="utf8mb4"
    ) as connection:
        for batch in batches:
            tuples = [tuple(row.values()) for row in batch.to_pylist()]
            marks = ", ".join(["%s"] * batch.num_columns)
            rows += connection.cursor().executemany(f"INSERT INTO `lines` VALUES ({marks})", tuples)
        connection.commit()
    return rows


def fresh(session: MysqlSession) -> None:
    session.query("DROP TABLE IF EXISTS `lines`")
    key = ", ".join(lineitem.PRIMARY_KEY)
    session.query(f"CREATE TABLE `lines` ({lineitem.DDL}, PRIMARY KEY ({key})) ENGINE=InnoDB CHARACTER SET utf8mb4")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=42)
    arguments.add_argument("--url")
    given = arguments.parse_args()
    batches = list(lineitem.batches(given.rows, batch_rows=BATCH_ROWS, seed=given.seed))
    size = encode(batches)
    print(f"{given.rows:,} rows, {size / given.rows:.1f} bytes of text each")
    measure("encode", lambda: (given.rows, encode(batches)))
    with contextlib.ExitStack() as stack:
        url = given.url
        if url is None:
            server = mysql_servers.start()
            stack.callback(server.discard)
            url = server.database()
        connector = Connector(parameters(endpoint.parse(url)), TargetError, local_infile=True)
        session = stack.enter_context(contextlib.closing(connector.connect()))
        fresh(session)
        measure("load", lambda: (load(session, batches), size))
        fresh(session)
        measure("insert", lambda: (insert(session, batches), size))
        fresh(session)
        few = batches[: max(1, len(batches) // 10)]
        part = sum(b.num_rows for b in few) / given.rows
        measure("PyMySQL's executemany", lambda: (by_the_driver(url, few), int(size * part)))
        session.query("DROP TABLE `lines`")


if __name__ == "__main__":
    main()
