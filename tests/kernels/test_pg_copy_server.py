"""The kernels against a real server: what it sends is read, what is written it takes as the same value."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from kernels import pg_copy_reference as twin
from kernels.pg_copy_values import batch_of, bits, decode_all, digester, drain, encode_all, schema_of, tally_all
from kernels.test_pg_copy_golden import GOLDEN, REFUSED
from rowferry._native.pg_copy import HEADER, TRAILER, DecodeError, Decoder, Encoder
from rowferry.adapters.buffers import assemble

pytestmark = pytest.mark.server
#: Read for comparing only.
READ_ONLY = ("wire_numeric",)


@pytest.fixture
def connection(postgres_database: Callable[[], str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_database(), autocommit=True) as c:
        c.execute("SET timezone = 'UTC'")
        yield c


def copy_out(connection: psycopg.Connection[Any], query: str) -> bytes:
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)".encode()) as copy:
        return b"".join(bytes(data) for data in copy)


def copy_in(connection: psycopg.Connection[Any], table: str, tuples: Any) -> int:
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)".encode()) as copy:
            copy.write(HEADER)
            copy.write(bytes(tuples))
            copy.write(TRAILER)
        return cursor.rowcount


def count_different(connection: psycopg.Connection[Any]) -> Any:
    """Rows that only one of the tables a and b has."""
    query = b"SELECT count(*) FROM ((TABLE a EXCEPT TABLE b) UNION ALL (TABLE b EXCEPT TABLE a)) x"
    return connection.execute(query).fetchone()[0]  # type: ignore[index]


def test_golden_fields_are_what_this_server_sends(connection: psycopg.Connection[Any]) -> None:
    for sql, codec, field, value in GOLDEN:
        stream = copy_out(connection, f"SELECT {sql}")
        assert decode_all(stream, [codec]) == [(bits(value),)], sql
        assert stream == HEADER + b"\0\1" + bytes.fromhex(field) + TRAILER, sql


def test_refused_fields_are_what_this_server_sends(connection: psycopg.Connection[Any]) -> None:
    for sql, codec, field, reason in REFUSED:
        stream = copy_out(connection, f"SELECT {sql}")
        assert stream == HEADER + b"\0\1" + bytes.fromhex(field) + TRAILER, sql
        with pytest.raises(DecodeError, match=reason):
            decode_all(stream, [codec])


def test_encoded_golden_values_are_the_same_to_the_server(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE EXTENSION IF NOT EXISTS plpgsql")
    for sql, codec, _, value in GOLDEN:
        if codec[0] in READ_ONLY:
            continue
        connection.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT {sql} AS a".encode())
        assert copy_in(connection, "t", encode_all([(value,), (None,)], [codec])) == 2
        # As text, so that what compares equal (1.5 and 1.50, -0 and 0) has to be the same in print, too.
        texts = [row[0] for row in connection.execute("SELECT a::text FROM t ORDER BY ctid")]
        expected = "1.50" if (sql, codec[0]) == ("1.5::numeric", "numeric_decimal128") else texts[0]
        assert texts == [texts[0], expected, None], sql


EXTREMES: list[tuple[str, twin.Codec, list[Any]]] = [
    ("date", ("date", {}), [-2_451_545 + 10_957, 2_145_031_948 + 10_957]),
    ("timestamp", ("timestamp", {}), [-210_866_803_200_000_000, 2**63 - 2]),
    ("time", ("time", {}), [0, 86_400_000_000]),
    ("interval", ("interval", {}), [(2**31 - 1, 2**31 - 1, 2**63 - 808), (-(2**31), -(2**31), -(2**63) + 808)]),
    ("numeric", ("numeric_text", {}), ["9" * 131_072 + "." + "9" * 16_383, "-0." + "0" * 16_382 + "1"]),
    ("numeric(76,38)", ("numeric_decimal256", {"precision": 76, "scale": 38}), [10**76 - 1, 1 - 10**76]),
    ("float4", ("float4", {}), [2.0**-149, 3.4028234663852886e38]),
    ("varbit", ("varbit", {}), ["1" * 100_003, ""]),
    ("text", ("text", {}), ["\U0010ffff\ud7ff\x01", "x" * 3_000_000]),
    ("bytea", ("bytea", {}), [bytes(range(256)) * 10_000, b""]),
    ("text[]", ("list", {"inner": ("text", {}), "element_oid": 25}), [["NULL", None, ""] * 5_000, []]),
]  # fmt: skip


@pytest.mark.parametrize(("native", "codec", "values"), EXTREMES, ids=[e[0] for e in EXTREMES])
def test_round_trip_extremes_come_back(
    connection: psycopg.Connection[Any], native: str, codec: twin.Codec, values: list[Any]
) -> None:
    connection.execute(f"CREATE TABLE t (a {native})".encode())
    rows = [(value,) for value in [*values, None]]
    assert copy_in(connection, "t", encode_all(rows, [codec])) == len(rows)
    assert decode_all(copy_out(connection, "SELECT a FROM t"), [codec]) == [(bits(row[0]),) for row in rows]


def test_raw_tuples_are_taken_by_the_server_as_they_are(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "CREATE TABLE a AS SELECT i, repeat('x', i % 50) AS t, i::numeric / 7 AS n, "
        "ARRAY[[i, 1], [2, 3]] AS m, int4range(i, i + 9) AS r, '10.0.0.1'::inet AS h FROM generate_series(1, 20000) i"
    )
    connection.execute("CREATE TABLE b (LIKE a)")
    columns: list[twin.Codec] = [("int4", {}), ("text", {}), ("wire_numeric", {}), *[("wire", {})] * 3]
    decoder = Decoder(columns)
    decoder.feed_rows(copy_out(connection, "SELECT * FROM a"))
    into = digester(columns)
    rows, tuples = tally_all(decoder, columns, into)
    assert copy_in(connection, "b", tuples) == rows == decoder.rows == into.digest.rows == 20_000
    assert count_different(connection) == 0


def test_arrow_of_a_whole_table_comes_back_as_it_was(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "CREATE TABLE a AS SELECT i::int8 AS k, nullif(i % 3, 0)::int2 AS s, (i * 1.01)::numeric(12,2) AS n, "
        "md5(i::text)::uuid AS u, to_timestamp(i * 1e4) AS z, make_interval(days => i) AS v, "
        "CASE WHEN i % 5 > 0 THEN ARRAY[i, NULL] END AS l, i % 2 = 0 AS b, i::float8 / 3 AS f, "
        "jsonb_build_object('i', i) AS j, i::bit(9)::varbit AS w FROM generate_series(1, 30000) i"
    )
    connection.execute("CREATE TABLE b (LIKE a)")
    columns: list[twin.Codec] = [
        ("int8", {}), ("int2", {}), ("numeric_decimal128", {"precision": 12, "scale": 2}), ("uuid", {}),
        ("timestamptz", {}), ("interval", {}), ("list", {"inner": ("int4", {}), "element_oid": 23}), ("bool", {}),
        ("float8", {}), ("jsonb", {}), ("varbit", {}),
    ]  # fmt: skip
    decoder, encoder = Decoder(columns), Encoder(columns)
    decoder.feed_rows(copy_out(connection, "SELECT * FROM a"))
    while (taken := decoder.take(7_000)) is not None:
        assert copy_in(connection, "b", encoder.encode(assemble(schema_of(columns), taken))) == taken[0]
    decoder.finish()
    assert count_different(connection) == 0
    assert connection.execute("SELECT count(*) FROM b").fetchone() == (30_000,)


def test_encoded_values_beyond_the_servers_range_are_refused_by_both(connection: psycopg.Connection[Any]) -> None:
    """The encoder's bounds are the server's: one beyond, written by hand, is refused there, too."""
    beyond = [
        ("date", "!i", 2_145_031_949), ("date", "!i", -2_451_546), ("time", "!q", 86_400_000_001),
        ("timestamp", "!q", 9_223_371_331_200_000_000), ("timestamp", "!q", -211_813_488_000_000_001),
    ]  # fmt: skip
    for native, form, value in beyond:
        connection.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (a {native})".encode())
        field = twin.struct.pack(form, value)
        with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
            copy_in(connection, "t", b"\0\1" + len(field).to_bytes(4, "big") + field)


def test_benchmark_small_size_runs(postgres_database: Callable[[], str]) -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_pg_copy.py", "--rows", "3000", "--url", postgres_database()],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root / "src")},
    )  # fmt: skip
    assert "ADBC / ours: read" in done.stdout


def test_helpers_agree_on_an_empty_table(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE t (a int4)")
    columns: list[twin.Codec] = [("int4", {})]
    decoder = Decoder(columns)
    decoder.feed_rows(copy_out(connection, "SELECT a FROM t"))
    assert drain(decoder, columns) == []
    decoder.finish()
    assert copy_in(connection, "t", Encoder(columns).encode(batch_of([], columns))) == 0
