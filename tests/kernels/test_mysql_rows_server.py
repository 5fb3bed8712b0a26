"""Rows of a real server: it still sends the golden bytes, and every end of a reading leaves things in order."""

from __future__ import annotations

import contextlib
import pathlib
import re
import resource
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

import mysql_servers
from kernels.mysql_rows_golden import GOLDEN
from rowferry.adapters.mysql.wire import Channel, Rows, read_batches
from rowferry.errors import DataError, SourceError
from rowferry.types import Type

pytestmark = pytest.mark.server

NUMBERS = "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_20000"
FIELDS = [Type("int64"), Type("text")]


@pytest.fixture
def connection(mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str]) -> Iterator[Any]:
    database = mysql_database().rpartition("/")[2]
    with contextlib.closing(mysql_server.connect(database)) as made:
        yield made
        if not made.open:
            made.connect()


def execute(connection: Any, *statements: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def rows_of(connection: Any, sql: str, fields: list[Type], **options: Any) -> list[tuple[Any, ...]]:
    found = read_batches(connection, sql, fields, [f"c{i}" for i in range(len(fields))], **options)
    return [tuple(row.values()) for batch in found for row in batch.to_pylist()]


def test_server_sends_the_golden_bytes(connection: Any) -> None:
    execute(connection, "SET sql_mode = 'ALLOW_INVALID_DATES'", "SET time_zone = '+00:00'")
    for made_by, _, field, _ in GOLDEN:
        stored, _, expression = made_by.partition(" [CAST")
        kind, value = split(stored)
        execute(connection, f"CREATE OR REPLACE TABLE g (c {kind})", f"INSERT INTO g VALUES ({value})")
        channel = Channel(connection)
        channel.command(f"SELECT {'CAST' + expression[:-1] if expression else 'c'} FROM g")
        packets = [channel.payload() for _ in range(5)]
        channel.give_back(channel.ok(packets[-1]))
        assert packets[3] == field, made_by


def split(stored: str) -> tuple[str, str]:
    """A column's type and the value in it: ``DECIMAL(10,2) UNSIGNED 1.5``."""
    found = re.fullmatch(
        r"([A-Z0-9]+(?:\((?:'[^']*'|[^')])*\))?(?: UNSIGNED| ZEROFILL| NULL(?= .)| CHARACTER SET \w+)*) (.+)",
        stored,
        re.S,
    )
    assert found, stored
    return found.group(1), found.group(2)


def test_every_type_side_by_side_with_nulls(connection: Any) -> None:
    execute(
        connection,
        "CREATE TABLE t (i INT, u BIGINT UNSIGNED, d DECIMAL(65,30), f FLOAT, b BIT(12), s SET('x','y'), j JSON, "
        "e ENUM('a','é') CHARACTER SET latin1, t TIME(6), ts TIMESTAMP(3) NULL, id UUID, p POINT, bin BINARY(3))",
        "INSERT INTO t VALUES (-1, 18446744073709551615, '-1.5', 16777217, 5, 'x,y', '{\"a\": 1}', 'é', "
        "'-838:59:59.999999', '2001-02-03 04:05:06.789', '123e4567-e89b-12d3-a456-426655440000', POINT(1,2), 'ab')",
        "INSERT INTO t VALUES ()",
    )
    fields = [
        Type("int32"), Type("uint64"), Type("decimal", precision=65, scale=30), Type("float32"), Type("bit", length=12),
        Type("list", element=Type("text")), Type("json"), Type("enum"), Type("duration"), Type("timestamptz"),
        Type("uuid"), Type("binary"), Type("binary", length=3, fixed=True),
    ]  # fmt: skip
    sql = "SELECT i, u, d, CAST(f AS DOUBLE), b, s, j, e, t, ts, id, p, bin FROM t"
    names = [f"c{i}" for i in range(len(fields))]
    (batch,) = read_batches(connection, sql, fields, names)
    batch.validate(full=True)
    first, second = batch.to_pylist()
    assert second == dict.fromkeys(names)
    assert (first["c0"], first["c1"], str(first["c2"])[:5], first["c3"]) == (-1, 2**64 - 1, "-1.50", 16777216.0)
    assert (first["c4"], first["c5"], first["c6"], first["c7"]) == ("000000000101", ["x", "y"], '{"a": 1}', "é")
    assert batch["c8"].view(pa.int64())[0].as_py() == -3_020_399_999_999
    assert first["c9"].isoformat() == "2001-02-03T04:05:06.789000+00:00"
    assert first["c10"].hex() == "123e4567e89b12d3a456426655440000"
    assert (len(first["c11"]), first["c12"]) == (25, b"ab\0")


def test_rows_come_whole_and_in_order_and_the_connection_goes_on(connection: Any) -> None:
    for _ in range(2):
        rows = rows_of(connection, NUMBERS, FIELDS)
        assert rows == [(i, "x" * 1000) for i in range(1, 20_001)]
        assert execute(connection, "SELECT 7") == [(7,)]


def test_statement_and_row_of_more_than_16_mib(connection: Any) -> None:
    """Both need several packets; the second row is whole again after them."""
    text = "y" * 20_000_000
    sql = f"SELECT REPEAT('x', 40000000), '{text}', 5 UNION ALL SELECT 'a', 'b', 6"
    rows = rows_of(connection, sql, [Type("text"), Type("text"), Type("int32")])
    assert [(len(a), len(b), n) for a, b, n in rows] == [(40_000_000, 20_000_000, 5), (1, 1, 6)]
    assert rows[0][1] == text


def test_many_columns(connection: Any) -> None:
    sql = "SELECT " + ", ".join(str(i) for i in range(3000)) + " UNION ALL SELECT " + ", ".join(["NULL"] * 3000)
    rows = rows_of(connection, sql, [Type("int32")] * 3000)
    assert rows == [tuple(range(3000)), (None,) * 3000]


def test_rows_through_tls_and_the_socket_are_the_same(mysql_server: mysql_servers.Mariadb) -> None:
    if mysql_server.folder is None:
        pytest.skip("the server that was given is not ours")
    expected = [(i, "x" * 1000) for i in range(1, 20_001)]
    with contextlib.closing(mysql_server.connect(ssl_ca=mysql_server.certificate)) as encrypted:
        assert isinstance(encrypted._sock, ssl.SSLSocket)
        assert rows_of(encrypted, _in_database(NUMBERS), FIELDS) == expected
        assert execute(encrypted, "SELECT 7") == [(7,)]
    with contextlib.closing(mysql_server.connect(unix_socket=mysql_server.socket)) as local:
        assert rows_of(local, _in_database(NUMBERS), FIELDS) == expected


def test_error_before_the_first_row_leaves_the_connection_usable(connection: Any) -> None:
    with pytest.raises(SourceError, match=r"\[1146/42S02\]") as caught:
        rows_of(connection, "SELECT a FROM nothing", [Type("int32")])
    assert not caught.value.transient
    assert execute(connection, "SELECT 7") == [(7,)]


def test_error_after_many_rows_leaves_the_connection_usable(connection: Any) -> None:
    sql = "SELECT seq, REPEAT('x', 100000), POW(10, seq) FROM seq_1_to_400"
    rows = read_batches(connection, sql, [*FIELDS, Type("float64")], ["seq", "x", "p"])
    count = 0
    with pytest.raises(SourceError, match=r"out of range.* \[1690/22003\]") as caught:
        for batch in rows:
            count += batch.num_rows
    assert count == 308
    assert not caught.value.transient
    assert execute(connection, "SELECT 7") == [(7,)]


def test_killed_query_is_an_error_and_leaves_the_connection_usable(
    connection: Any, mysql_server: mysql_servers.Mariadb
) -> None:
    rows = read_batches(connection, "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_100000000", FIELDS, ["a", "b"])
    next(rows)
    mysql_server.execute(f"KILL QUERY {connection.thread_id()}")
    with pytest.raises(SourceError, match=r"interrupted.* \[1317/70100\]") as caught:
        exhaust(rows)
    assert caught.value.transient
    assert execute(connection, "SELECT 7") == [(7,)]


def test_killed_connection_is_a_transient_error(connection: Any, mysql_server: mysql_servers.Mariadb) -> None:
    rows = read_batches(connection, "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_100000000", FIELDS, ["a", "b"])
    next(rows)
    mysql_server.execute(f"KILL {connection.thread_id()}")
    with pytest.raises(SourceError, match=r"connection|interrupted") as caught:
        exhaust(rows)
    assert caught.value.transient
    with pytest.raises(SourceError):
        rows_of(connection, "SELECT 1", [Type("int32")])
    assert not connection.open


def exhaust(rows: Rows) -> None:
    for _ in rows:
        pass


def wait_for_the_end_of(number: int, server: mysql_servers.Mariadb) -> None:
    until = time.monotonic() + 10
    while server.execute(f"SELECT id FROM information_schema.processlist WHERE id = {number}"):
        assert time.monotonic() < until, "the server goes on for nobody"
        time.sleep(0.02)


def test_idle_connection_that_the_server_has_left_is_a_transient_error(
    connection: Any, mysql_server: mysql_servers.Mariadb
) -> None:
    number = connection.thread_id()
    mysql_server.execute(f"KILL {number}")
    wait_for_the_end_of(number, mysql_server)
    with pytest.raises(SourceError) as caught:
        rows_of(connection, "SELECT 1", [Type("int32")])
    assert caught.value.transient
    assert not connection.open


def test_early_close_ends_the_statement_on_the_server(connection: Any, mysql_server: mysql_servers.Mariadb) -> None:
    number = connection.thread_id()
    rows = read_batches(connection, "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_100000000", FIELDS, ["a", "b"])
    next(rows)
    rows.close()
    assert not connection.open
    wait_for_the_end_of(number, mysql_server)


def test_warnings_of_the_statement_are_counted(connection: Any) -> None:
    rows = read_batches(connection, "SELECT CAST('abc' AS SIGNED)", [Type("int64")], ["a"])
    assert [batch.to_pylist() for batch in rows] == [[{"a": 0}]]
    assert rows.warnings == 1


def test_float_and_text_in_another_character_set_are_refused(connection: Any) -> None:
    execute(connection, "CREATE TABLE t (f FLOAT, s VARCHAR(5))", "INSERT INTO t VALUES (16777216, 'é')")
    with pytest.raises(SourceError, match="column of type 4"):
        rows_of(connection, "SELECT f FROM t", [Type("float32")])
    connection.connect()
    execute(connection, "SET character_set_results = latin1")
    with pytest.raises(SourceError, match=r"collation 8\) where text"):
        rows_of(connection, "SELECT s FROM t", [Type("text")])


def test_zero_dates_are_refused_or_null_and_counted_or_text(connection: Any) -> None:
    execute(
        connection,
        "SET sql_mode = 'ALLOW_INVALID_DATES'",
        "CREATE TABLE t (d DATE NOT NULL, ts DATETIME(3))",
        "INSERT INTO t VALUES ('0000-00-00', '2024-02-30 01:02:03'), ('2024-01-00', NULL), ('2024-01-02', NULL)",
    )
    fields = [Type("date"), Type("timestamp")]
    rows = read_batches(connection, "SELECT * FROM t", fields, ["d", "ts"], null_dates=[True, True])
    (batch,) = rows
    assert batch["d"].null_count == 2
    assert batch["ts"].null_count == 3
    assert rows.settled == [2, 1]
    assert rows_of(connection, "SELECT d, ts FROM t LIMIT 1", [Type("text")] * 2) == [
        ("0000-00-00", "2024-02-30 01:02:03.000")
    ]
    with pytest.raises(DataError, match=r"column 'c0'.*a zero or partial date \(value: '0000-00-00'\)"):
        rows_of(connection, "SELECT * FROM t", fields)


def test_memory_does_not_depend_on_the_number_of_rows(connection: Any) -> None:
    def read(rows: int) -> int:
        sql = f"SELECT seq, REPEAT('x', 200) FROM seq_1_to_{rows}"
        return sum(batch.num_rows for batch in read_batches(connection, sql, FIELDS, ["a", "b"]))

    assert read(20_000) == 20_000
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(400_000) == 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 16 << 10


def test_two_connections_in_two_threads(mysql_server: mysql_servers.Mariadb) -> None:
    found: list[int] = []

    def work() -> None:
        with contextlib.closing(mysql_server.connect()) as made:
            found.append(len(rows_of(made, _in_database(NUMBERS), FIELDS)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [20_000, 20_000]


def _in_database(sql: str) -> str:
    """The sequence engine's tables exist in any database."""
    return sql.replace("FROM seq_", "FROM mysql.seq_")


def test_benchmark_small_size_runs(mysql_database: Callable[[], str]) -> None:
    root = pathlib.Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_mysql_rows.py", "--rows", "3000", "--url", mysql_database()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert re.search(r"^read +[\d.]+ M rows/s", run.stdout, re.M)
    assert "PyMySQL / ours" in run.stdout
