"""Bytes that PostgreSQL 15.18 sent, each with the SQL that made them, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from kernels import pg_copy_reference as twin
from kernels.pg_copy_values import bits, decode_all, encode_all
from rowferry._native.pg_copy import HEADER, TRAILER, DecodeError

#: COPY (SELECT <sql>) TO STDOUT (FORMAT binary): codec, the field with its length, the plain value.
GOLDEN: list[tuple[str, twin.Codec, str, Any]] = [
    ("true", ("bool", {}), "0000000101", True),
    ("false", ("bool", {}), "0000000100", False),
    ("NULL::bool", ("bool", {}), "ffffffff", None),
    ("(-32768)::int2", ("int2", {}), "000000028000", -32768),
    ("32767::int2", ("int2", {}), "000000027fff", 32767),
    ("(-2147483648)::int4", ("int4", {}), "0000000480000000", -2147483648),
    ("2147483647::int4", ("int4", {}), "000000047fffffff", 2147483647),
    ("(-9223372036854775808)::int8", ("int8", {}), "000000088000000000000000", -9223372036854775808),
    ("9223372036854775807::int8", ("int8", {}), "000000087fffffffffffffff", 9223372036854775807),
    ("4294967295::oid", ("oid", {}), "00000004ffffffff", 4294967295),
    ("12.345::money", ("int8", {}), "0000000800000000000004d3", 1235),
    ("12.5::float4", ("float4", {}), "0000000441480000", 12.5),
    ("'-0'::float4", ("float4", {}), "0000000480000000", -0.0),
    ("'Infinity'::float4", ("float4", {}), "000000047f800000", float("inf")),
    ("5e-324::float8", ("float8", {}), "000000080000000000000001", 5e-324),
    ("'NaN'::float8", ("float8", {}), "000000087ff8000000000000", float("nan")),
    ("1.7976931348623157e308::float8", ("float8", {}), "000000087fefffffffffffff", 1.7976931348623157e308),
    ("1.50::numeric", ("numeric_decimal128", {"precision": 10, "scale": 2}), "0000000c000200000000000200011388", 150),
    ("1.50::numeric", ("numeric_text", {}), "0000000c000200000000000200011388", "1.50"),
    ("1.5::numeric", ("numeric_decimal128", {"precision": 10, "scale": 2}), "0000000c000200000000000100011388", 150),
    ("(-0.0001)::numeric", ("numeric_decimal128", {"precision": 4, "scale": 4}), "0000000a0001ffff400000040001", -1),
    ("(-0.0001)::numeric", ("numeric_text", {}), "0000000a0001ffff400000040001", "-0.0001"),
    (
        "100000000::numeric",
        ("numeric_decimal128", {"precision": 9, "scale": 0}),
        "0000000a00010002000000000001",
        100000000,
    ),
    ("100000000::numeric", ("numeric_text", {}), "0000000a00010002000000000001", "100000000"),
    ("0.00::numeric", ("numeric_decimal128", {"precision": 3, "scale": 2}), "000000080000000000000002", 0),
    ("0.00::numeric", ("numeric_text", {}), "000000080000000000000002", "0.00"),
    ("0::numeric", ("numeric_text", {}), "000000080000000000000000", "0"),
    (
        "12345678901234567890123456789012345.678::numeric",
        ("numeric_decimal128", {"precision": 38, "scale": 3}),
        "0000001c000a000800000003007b11d722c509291a85007b11d722c509291a7c",
        12345678901234567890123456789012345678,
    ),
    (
        "12345678901234567890123456789012345.678::numeric",
        ("numeric_text", {}),
        "0000001c000a000800000003007b11d722c509291a85007b11d722c509291a7c",
        "12345678901234567890123456789012345.678",
    ),
    (
        "(-99999999999999999999999999999999999999)::numeric",
        ("numeric_decimal128", {"precision": 38, "scale": 0}),
        "0000001c000a0009400000000063270f270f270f270f270f270f270f270f270f",
        -99999999999999999999999999999999999999,
    ),
    (
        "9999999999999999999999999999999999999999999999999999999999999999999999999999::numeric",
        ("numeric_decimal256", {"precision": 76, "scale": 0}),
        "0000002e0013001200000000270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f270f",
        9999999999999999999999999999999999999999999999999999999999999999999999999999,
    ),
    ("1e-20::numeric", ("numeric_text", {}), "0000000a0001fffb000000140001", "0.00000000000000000001"),
    ("1e20::numeric", ("numeric_text", {}), "0000000a00010005000000000001", "100000000000000000000"),
    ("1000000.000001::numeric", ("numeric_text", {}), "0000001000040001000000060064000000000064", "1000000.000001"),
    ("'NaN'::numeric", ("numeric_text", {}), "0000000800000000c0000000", "NaN"),
    ("'Infinity'::numeric", ("numeric_text", {}), "0000000800000000d0000020", "Infinity"),
    ("'-Infinity'::numeric", ("numeric_text", {}), "0000000800000000f0000020", "-Infinity"),
    (
        "1.50::numeric",
        ("wire_numeric", {}),
        "0000000c000200000000000200011388",
        b"\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x13\x88",
    ),
    ("'zażółć 🙂'::text", ("text", {}), "0000000f7a61c5bcc3b3c582c48720f09f9982", "zażółć 🙂"),
    ("''::text", ("text", {}), "00000000", ""),
    ("'ab'::char(5)", ("char", {}), "000000056162202020", "ab"),
    ("'     '::char(5)", ("char", {}), "000000052020202020", ""),
    ("'ab  '::varchar(9)", ("text", {}), "0000000461622020", "ab  "),
    ("'pg_class'::name", ("name", {}), "0000000870675f636c617373", "pg_class"),
    ("'{\"a\":  1}'::json", ("text", {}), "000000097b2261223a2020317d", '{"a":  1}'),
    ("'{\"a\": 1}'::jsonb", ("jsonb", {}), "00000009017b2261223a20317d", '{"a": 1}'),
    ("'<a/>'::xml", ("text", {}), "000000043c612f3e", "<a/>"),
    ("'\\x00ff'::bytea", ("bytea", {}), "0000000200ff", b"\x00\xff"),
    ("''::bytea", ("bytea", {}), "00000000", b""),
    ("'1970-01-01'::date", ("date", {}), "00000004ffffd533", 0),
    ("'4714-11-24 BC'::date", ("date", {}), "00000004ffda97a7", -2440588),
    ("'5874897-12-31'::date", ("date", {}), "000000047fda970c", 2145042905),
    ("'infinity'::date", ("date", {}), "000000047fffffff", 2147483647),
    ("'-infinity'::date", ("date", {}), "0000000480000000", -2147483648),
    ("'00:00'::time", ("time", {}), "000000080000000000000000", 0),
    ("'24:00'::time", ("time", {}), "00000008000000141dd76000", 86400000000),
    ("'23:59:59.999999'::time", ("time", {}), "00000008000000141dd75fff", 86399999999),
    ("'1970-01-01 00:00:00.000001'::timestamp", ("timestamp", {}), "00000008fffca2fec4c82001", 1),
    ("'4714-11-24 00:00 BC'::timestamp", ("timestamp", {}), "00000008fd0f7cc1411fa000", -210866803200000000),
    ("'infinity'::timestamptz", ("timestamptz", {}), "000000087fffffffffffffff", 9223372036854775807),
    ("'-infinity'::timestamp", ("timestamp", {}), "000000088000000000000000", -9223372036854775808),
    ("'1970-01-01 05:30+05:30'::timestamptz", ("timestamptz", {}), "00000008fffca2fec4c82000", 0),
    ("'294246-12-31 23:59:59.999999'::timestamp", ("timestamp", {}), "000000087ffca2465aa35fff", 9223371244799999999),
    (
        "'1 month -2 days 3.5 seconds'::interval",
        ("interval", {}),
        "0000001000000000003567e0fffffffe00000001",
        (1, -2, 3500000000),
    ),
    ("'-178000000 years'::interval", ("interval", {}), "0000001000000000000000000000000080af3a00", (-2136000000, 0, 0)),
    (
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        ("uuid", {}),
        "00000010a0eebc999c0b4ef8bb6d6bb9bd380a11",
        b"\xa0\xee\xbc\x99\x9c\x0bN\xf8\xbbmk\xb9\xbd8\n\x11",
    ),
    ("B'101'", ("bit", {}), "0000000500000003a0", "101"),
    ("B'110011001'::varbit", ("varbit", {}), "0000000600000009cc80", "110011001"),
    ("''::varbit", ("varbit", {}), "0000000400000000", ""),
    (
        "ARRAY[1,NULL,3]",
        ("list", {"inner": ("int4", {}), "element_oid": 23}),
        "0000002800000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
        [1, None, 3],
    ),
    ("'{}'::int4[]", ("list", {"inner": ("int4", {}), "element_oid": 23}), "0000000c000000000000000000000017", []),
    ("NULL::int4[]", ("list", {"inner": ("int4", {}), "element_oid": 23}), "ffffffff", None),
    (
        "ARRAY['a','',NULL]",
        ("list", {"inner": ("text", {}), "element_oid": 25}),
        "000000210000000100000001000000190000000300000001000000016100000000ffffffff",
        ["a", "", None],
    ),
    (
        "ARRAY[1.50,-2.00]::numeric[]",
        ("list", {"inner": ("numeric_decimal128", {"precision": 10, "scale": 2}), "element_oid": 1700}),
        "000000320000000100000000000006a400000002000000010000000c0002000000000002000113880000000a00010000400000020002",
        [150, -200],
    ),
    (
        "ARRAY[true,false,NULL]",
        ("list", {"inner": ("bool", {}), "element_oid": 16}),
        "00000022000000010000000100000010000000030000000100000001010000000100ffffffff",
        [True, False, None],
    ),
    (
        "ARRAY['infinity','1970-01-01']::date[]",
        ("list", {"inner": ("date", {}), "element_oid": 1082}),
        "0000002400000001000000000000043a0000000200000001000000047fffffff00000004ffffd533",
        [2147483647, 0],
    ),
    ("inet '10.0.0.1/8'", ("wire", {}), "00000008020800040a000001", b"\x02\x08\x00\x04\n\x00\x00\x01"),
]
#: Fields that are read but written otherwise: padding, a dscale of infinity, fewer digits than the scale.
NOT_SENT_BACK = ("char(5)", "wire_numeric", "'Infinity'::numeric", "'-Infinity'::numeric", "1.5::numeric")


def decimal(precision: int, scale: int) -> twin.Codec:
    return "numeric_decimal128", {"precision": precision, "scale": scale}


REFUSED: list[tuple[str, twin.Codec, str, str]] = [
    ("1.235::numeric", decimal(10, 2), "0000000c00020000000000030001092e", "scale"),
    ("1000::numeric", decimal(3, 0), "0000000a000100000000000003e8", "precision"),
    ("'NaN'::numeric", decimal(3, 0), "0000000800000000c0000000", "NaN"),
    ("'294247-01-10 04:00:54.775807'::timestamp", ("timestamp", {}), "000000087ffca2fec4c81fff", "timestamp"),
    ("'294276-12-31 23:59:59.999999'::timestamp", ("timestamp", {}), "000000087fffff5bb3b29fff", "timestamp"),
    ("'2562047788:00:54.775807'::interval", ("interval", {}), "000000107fffffffffffffff0000000000000000", "interval"),
    ("'[0:1]={1,2}'::int4[]", ("list", {"inner": ("int4", {}), "element_oid": 23}),
     "000000240000000100000000000000170000000200000000000000040000000100000004"
     "00000002", "lower bound"),
    ("'{{1,2}}'::int4[]", ("list", {"inner": ("int4", {}), "element_oid": 23}),
     "0000002c0000000200000000000000170000000100000001000000020000000100000004"
     "000000010000000400000002", "dimension"),
    ("ARRAY[1]", ("list", {"inner": ("int4", {}), "element_oid": 20}),
     "0000001c0000000100000000000000170000000100000001000000040000"
     "0001", "element type"),
]  # fmt: skip


def stream(field: str) -> bytes:
    return bytes(HEADER) + b"\0\1" + bytes.fromhex(field) + bytes(TRAILER)


@pytest.mark.parametrize(("sql", "codec", "field", "value"), GOLDEN, ids=[f"{g[0]} {g[1][0]}" for g in GOLDEN])
def test_decoder_servers_bytes_give_the_value(sql: str, codec: twin.Codec, field: str, value: Any) -> None:
    assert decode_all(stream(field), [codec]) == [(bits(value),)]
    assert bits(twin.decode(stream(field), [codec])[0][0]) == bits(value)


@pytest.mark.parametrize(
    ("sql", "codec", "field", "value"),
    [g for g in GOLDEN if not any(part in g[0] or part in g[1][0] for part in NOT_SENT_BACK)],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_encoder_value_gives_the_servers_bytes(sql: str, codec: twin.Codec, field: str, value: Any) -> None:
    encoded = encode_all([(value,)], [codec])
    assert encoded.hex() == "0001" + field


@pytest.mark.parametrize(("sql", "codec", "field", "reason"), REFUSED, ids=[r[0] for r in REFUSED])
def test_decoder_value_that_does_not_fit_raises(sql: str, codec: twin.Codec, field: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as caught:
        decode_all(stream(field), [codec])
    assert (caught.value.row, caught.value.column) == (0, 0)
    assert field.startswith(f"{len(bytes.fromhex(field)) - 4:08x}")
    assert caught.value.value_hex == field[8:136]
    with pytest.raises(twin.Malformed):
        twin.decode(stream(field), [codec])
