"""The load kernel against a real server: what it encodes is what the server then has; the benchmark's small size."""

from __future__ import annotations

import pathlib
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import mysql_servers
from rowferry import endpoint
from rowferry._native.mysql_load import LOAD_FORMAT, Encoder
from rowferry.adapters.mysql import wire
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.errors import TargetError

pytestmark = pytest.mark.server


def load(url: str, columns: list[tuple[str, dict[str, Any]]], batch: pa.RecordBatch) -> wire.LoadOutcome:
    encoder = Encoder(columns, block_bytes=4096)

    def blocks() -> Any:
        encoder.begin(batch)
        while (block := encoder.fill()) is not None:
            yield block
        yield encoder.rest()

    session = Connector(parameters(endpoint.parse(url)), TargetError, local_infile=True).connect()
    try:
        session.begin()
        done = wire.load_local(session.connection, f"INTO TABLE t {LOAD_FORMAT}", blocks())
        session.commit()
        return done
    finally:
        session.close()


def test_any_double_and_float_comes_out_of_the_server_as_it_went_in(
    mysql_database: Callable[[], str], mysql_server: mysql_servers.Mariadb
) -> None:
    url = mysql_database()
    rng = random.Random(11)
    doubles = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(4000)]
    floats = [struct.unpack("<f", rng.randbytes(4))[0] for _ in range(4000)]
    rows = [
        (d, f)
        for d, f in zip(doubles, floats, strict=True)
        if d == d and f == f and abs(d) != float("inf") and abs(f) != float("inf")
    ]
    mysql_server.execute("CREATE TABLE t (id int, d double, f float)", database=url.rpartition("/")[2])
    batch = pa.record_batch(
        [pa.array(range(len(rows))), pa.array([d for d, _ in rows]), pa.array([f for _, f in rows], pa.float32())],
        names=["id", "d", "f"],
    )
    done = load(url, [("integer", {}), ("float", {}), ("float", {})], batch)
    assert (done.records, done.warnings, done.skipped) == (len(rows), 0, 0)
    found = mysql_server.execute("SELECT d, f * 1e0 FROM t ORDER BY id", database=url.rpartition("/")[2])
    assert found == rows


def test_any_bytes_come_out_of_the_server_as_they_went_in(
    mysql_database: Callable[[], str], mysql_server: mysql_servers.Mariadb
) -> None:
    url = mysql_database()
    rng = random.Random(12)
    special = b"\0\t\n\\N'\"\r\x1a,;|"
    values = [bytes(rng.choice(special) for _ in range(rng.randrange(20))) for _ in range(1000)]
    values += [rng.randbytes(rng.randrange(9000)) for _ in range(200)] + [bytes([i]) for i in range(256)]
    texts = ["".join(rng.choice("\0\t\n\\N'é𝄞 ") for _ in range(rng.randrange(30))) for _ in values]
    mysql_server.execute(
        "CREATE TABLE t (id int, b longblob, t longtext) CHARACTER SET utf8mb4", database=url.rpartition("/")[2]
    )
    batch = pa.record_batch([pa.array(range(len(values))), pa.array(values), pa.array(texts)], names=["id", "b", "t"])
    done = load(url, [("integer", {}), ("bytes", {}), ("text", {})], batch)
    assert (done.records, done.warnings, done.skipped) == (len(values), 0, 0)
    found = mysql_server.execute("SELECT b, t FROM t ORDER BY id", database=url.rpartition("/")[2])
    assert [b for b, _ in found] == values
    assert [t for _, t in found] == texts


def test_benchmark_small_size_runs(mysql_database: Callable[[], str]) -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_mysql_load.py", "--rows", "3000", "--url", mysql_database()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("CPU s per M rows") == 4
