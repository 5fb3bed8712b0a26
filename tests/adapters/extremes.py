"""Every type of each engine with its extremes, in the engine's own SQL, for the round trips of ``test_pairs.py``.

``TYPES[engine]`` maps a column's name to (declared type, literals). Row n of the table holds the
n-th literal of each column, NULL where a column has fewer.
"""

from __future__ import annotations

import decimal
import uuid

import pyarrow as pa

TYPES: dict[str, dict[str, tuple[str, list[str]]]] = {
    "sqlite": {
        "int_": ("INTEGER", ["-9223372036854775808", "9223372036854775807", "0"]),
        "small": ("SMALLINT", ["-32768", "32767", "0"]),
        "real_": ("DOUBLE", ["1.7976931348623157e308", "5e-324", "0.1", "9e999", "-9e999"]),
        "text_": ("TEXT", ["''", "'é€𝄞🚢'", "'a' || char(0) || 'b'", "'  ends  '", "char(10) || char(9)", "'NULL'"]),
        "blob_": ("BLOB", ["x''", "x'00ff'", "zeroblob(1000)"]),
        "bool_": ("BOOLEAN", ["0", "1"]),
        "dec_": ("DECIMAL(10,2)", ["12345678.91", "-0.01", "0", "1.5"]),
        "date_": ("DATE", ["'2013-01-01'", "'0001-01-01'", "'9999-12-31'", "'1969-12-31'"]),
        "ts_": ("TIMESTAMP", ["'2013-01-01 10:00:00'", "'2020-02-29 23:59:59.999999'", "'1900-01-01 00:00:00.500000'"]),
        "none_": ("", ["NULL"]),
    },
    "duckdb": {
        "bool_": ("BOOLEAN", ["true", "false"]),
        "i8": ("TINYINT", ["-128", "127"]),
        "i16": ("SMALLINT", ["-32768", "32767"]),
        "i32": ("INTEGER", ["-2147483648", "2147483647"]),
        "i64": ("BIGINT", ["-9223372036854775808", "9223372036854775807"]),
        "u8": ("UTINYINT", ["0", "255"]),
        "u16": ("USMALLINT", ["0", "65535"]),
        "u32": ("UINTEGER", ["0", "4294967295"]),
        "u64": ("UBIGINT", ["0", "9223372036854775807"]),
        "f32": ("FLOAT", ["3.4028235e38", "1.17549435e-38", "'inf'", "'-0.0'"]),
        "f64": ("DOUBLE", ["1.7976931348623157e308", "5e-324", "'-inf'", "'-0.0'"]),
        "dec_small": ("DECIMAL(4,1)", ["-999.9", "0.1"]),
        "dec_large": ("DECIMAL(38,10)", ["9999999999999999999999999999.9999999999", "-0.0000000001"]),
        "text_": ("VARCHAR", ["''", "'é€𝄞🚢'", "repeat('x', 100000)", "'  ends  '"]),
        "blob_": ("BLOB", ["''::BLOB", "'\\x00\\xFF'::BLOB"]),
        "date_": ("DATE", ["'2013-01-01'", "'0001-01-01'", "'9999-12-31'"]),
        "time_": ("TIME", ["'00:00:00'", "'23:59:59.999999'"]),
        "ts_": ("TIMESTAMP", ["'2020-02-29 23:59:59.999999'", "'0001-01-01'", "'9999-12-31 23:59:59'"]),
        "tstz": ("TIMESTAMPTZ", ["'2020-02-29 23:59:59.999999+02'", "'1969-12-31 23:59:59+00'"]),
        "uuid_": ("UUID", ["'9040cb98-ea97-434e-9746-7dc4a11ed1bb'", "'00000000-0000-0000-0000-000000000000'"]),
        "json_": ("JSON", ['\'{"b":1.50, "a":null, "b":3}\'', "'[]'"]),
        "enum_": ("ENUM('sad', 'it''s \"ok\"')", ["'sad'", "'it''s \"ok\"'"]),
        "ints": ("INTEGER[]", ["[1, NULL, 3]", "[]"]),
    },
    "postgres": {
        "i16": ("smallint", ["-32768", "32767"]),
        "i32": ("integer", ["-2147483648", "2147483647"]),
        "i64": ("bigint", ["-9223372036854775808", "9223372036854775807"]),
        "f32": ("real", ["'Infinity'", "1.17549435e-38", "3.4028235e38"]),
        "f64": ("double precision", ["'-Infinity'", "5e-324", "1.7976931348623157e308", "'-0.0'"]),
        "dec_": ("numeric(10,2)", ["-12345678.90", "0.01", "1.50"]),
        "dec_large": ("numeric(38,10)", ["9999999999999999999999999999.9999999999", "-0.0000000001"]),
        "bool_": ("boolean", ["true", "false"]),
        "char_": ("char(5)", ["'ab'", "''"]),
        "varchar_": ("varchar(10)", ["'é€𝄞'", "''"]),
        "text_": ("text", ["''", "repeat('x',100000)", "E'a\\tb\\nc\\\\'", "'\\N'"]),
        "bytea_": ("bytea", ["'\\x00ff'", "''"]),
        "date_": ("date", ["'0001-01-01'", "'9999-12-31'", "'1969-12-31'"]),
        "ts_": ("timestamp", ["'0001-01-01'", "'9999-12-31 23:59:59.999999'"]),
        "tstz": ("timestamptz", ["'2020-01-01 00:00:00.123456+02'", "'1969-12-31 23:59:59+00'"]),
        "time_": ("time", ["'23:59:59.999999'", "'00:00:00.000001'"]),
        "interval_": ("interval", ["'1 mon'", "'30 days'", "'1 year -2 days 03:04:05.000006'"]),
        "uuid_": ("uuid", ["'9040cb98-ea97-434e-9746-7dc4a11ed1bb'"]),
        "json_": ("json", ['\'{"b":1,"a":2, "b":3}\'']),
        "jsonb_": ("jsonb", ['\'{"b":1.50,"a":null}\'']),
        "inet_": ("inet", ["'10.0.0.1/8'", "'::1'"]),
        "bit_": ("bit(5)", ["B'10101'"]),
        "varbit_": ("varbit", ["B'1'", "B''"]),
        "ints": ("int[]", ["'{1,NULL,3}'", "'{}'"]),
        "texts": ("text[]", ['\'{"a,b",NULL,""}\'']),
        "range_": ("int4range", ["'[1,5)'", "'empty'"]),
    },
}


def files_table(zero: float) -> pa.Table:
    """The same for files: every plain Arrow type."""
    d = decimal.Decimal
    dictionary = pa.array(["b", "a", "b"]).dictionary_encode()
    columns = {
        "bool_": pa.array([True, False, None]),
        "i8": pa.array([-128, 127, None], pa.int8()),
        "i64": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
        "u32": pa.array([0, 2**32 - 1, None], pa.uint32()),
        "u64": pa.array([0, 2**63 - 1, None], pa.uint64()),
        "f32": pa.array([float("inf"), zero, None], pa.float32()),
        "f64": pa.array([5e-324, 1.7976931348623157e308, None], pa.float64()),
        "dec_": pa.array([d("-12345678.90"), d("0.01"), None], pa.decimal128(10, 2)),
        "dec_large": pa.array([d("9999999999999999999999999999.9999999999"), d(0), None], pa.decimal128(38, 10)),
        "text_": pa.array(["", "é€𝄞🚢", None]),
        "large_text": pa.array(["x" * 1000, "", None], pa.large_string()),
        "dict_": dictionary,
        "blob_": pa.array([b"", b"\x00\xff", None]),
        "fixed": pa.array([b"1234", b"\x00\x00\x00\x00", None], pa.binary(4)),
        "date_": pa.array([-719162, 2932896, None], pa.int32()).cast(pa.date32()),
        "ts_us": pa.array([-62135596800000000, 253402300799999999, None], pa.int64()).cast(pa.timestamp("us")),
        "ts_utc": pa.array([1582925445123456, 0, None], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "time_": pa.array([0, 86399999999, None], pa.int64()).cast(pa.time64("us")),
        "ints": pa.array([[1, None, 3], [], None], pa.list_(pa.int32())),
        "uuid_": pa.array([uuid.UUID(int=5).bytes, uuid.UUID(int=2**128 - 1).bytes, None], pa.binary(16)),
    }
    return pa.table(columns)
