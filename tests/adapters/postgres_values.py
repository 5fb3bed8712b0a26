"""Every PostgreSQL type with its extremes, as literals."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

TYPES_SQL = """
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN posint AS int CHECK (value > 0);
CREATE DOMAIN small_price AS numeric(6,2) NOT NULL;
CREATE TYPE pair AS (n int, t text);
CREATE TYPE nested AS (p pair, m mood[], d posint);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE SCHEMA "Odd Schema";
CREATE TYPE "Odd Schema"."my ""odd"" type" AS ENUM ('a', 'é𝄞');
"""

#: Named with a space, quotes, and what is not ASCII.
ODD_TYPE = '"Odd Schema"."my ""odd"" type"'

#: type → literals. Each becomes a table of (id, v) with a NULL at the end.
VALUES: dict[str, Sequence[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "xid": ["'4294967295'"],
    "real": ["'NaN'", "'-Infinity'", "1.17549435e-38", "1e-45", "3.4028235e38", "'-0.0'"],
    "double precision": ["'NaN'", "'Infinity'", "5e-324", "1.7976931348623157e308", "'-0.0'"],
    "numeric": [
        "'NaN'", "'Infinity'", "'-Infinity'", "0", "0.000", "1.50", "1e20000", "-0.000000000000000000000000000001",
        "123456789012345678901234567890123456789012345678901234567890.123456789", "10000", "99999999.0000",
    ],
    "numeric(10,2)": ["-12345678.90", "0", "0.01", "99999999.99"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789", "-0.0000000001"],
    "numeric(76,20)": ["-12345678901234567890123456789012345678901234567890123456.12345678901234567890"],
    "numeric(100,50)": ["1.50"],
    "numeric(3,5)": ["0.00999", "-0.00001"],
    "numeric(2,-3)": ["99000", "-1000"],
    "money": ["-12.34", "92233720368547758.07"],
    "char(5)": ["'ab'", "''", "'é€𝄞'"],
    "bpchar": ["'ab   '"],
    "varchar(10)": ["'é€𝄞'", "'ab   '"],
    "varchar": ["'x'"],
    "text": ["''", "repeat('x', 200000)", "E'a\\tb\\nc\\\\'"],
    "name": ["'n'"],
    '"char"': ["'c'", "''"],
    "bytea": ["'\\x00ff'", "''"],
    "date": ["'infinity'", "'-infinity'", "'4714-11-24 BC'", "'0044-03-15 BC'", "'5874897-12-31'"],
    "time": ["'24:00:00'", "'00:00:00.000001'"],
    "time(2)": ["'10:00:00.12'"],
    "timetz": ["'10:00:00.5+05:30'", "'24:00:00-15:59'"],
    "timestamp": ["'infinity'", "'4714-11-24 BC'", "'294276-12-31 23:59:59.999999'"],
    "timestamp(3)": ["'2020-01-01 00:00:00.123'"],
    "timestamptz": ["'-infinity'", "'2020-01-01 00:00:00.123456+02'", "'294276-12-31 23:59:59.999999+00'"],
    "interval": ["'1 mon'", "'30 days'", "'-178000000 years'", "'1 year -2 days 03:04:05.000006'", "'2562047788:00'"],
    "interval year to month": ["'1 year 2 mons'"],
    "interval second(3)": ["'5.123 s'"],
    "uuid": ["'9040cb98-ea97-434e-9746-7dc4a11ed1bb'"],
    "json": ["'{\"b\":1,\"a\":2, \"b\":3}'", "'\"\\u0000\"'"],
    "jsonb": ["'{\"b\":1.50,\"a\":null}'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
    "xml": ["'<a/>'"],
    "inet": ["'10.0.0.1/8'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(5)": ["B'10101'"],
    "bit(17)": ["B'10101010101010101'"],
    "varbit": ["B'1'", "B''"],
    "varbit(9)": ["B'101010101'"],
    "tsvector": ["'a:1 b:2'"],
    "tsquery": ["'a & b'"],
    "point": ["'(1,2)'"],
    "polygon": ["'((0,0),(1,1),(1,0))'"],
    "box": ["'(1,1),(0,0)'"],
    "circle": ["'<(0,0),1>'"],
    "line": ["'{1,2,3}'"],
    "lseg": ["'[(0,0),(1,1)]'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "int4range": ["'[1,5)'", "'empty'", "'(,)'"],
    "tstzrange": ["'[2020-01-01,)'"],
    "nummultirange": ["'{[1,2),[3,4)}'"],
    "span": ["'[1.5,2.5)'"],
    "int[]": ["'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[5:6]={7,8}'", "'{}'"],
    "int2vector": ["'1 2 3'"],
    "oidvector": ["'1 4294967295'"],
    "oid[]": ["'{4294967295}'"],
    "text[]": ["'{\"a,b\",NULL,\"\"}'"],
    "varchar(3)[]": ["'{abc}'"],
    "char(3)[]": ["'{a,NULL}'"],
    "bytea[]": ["ARRAY['\\x00'::bytea]"],
    "boolean[]": ["'{t,f,NULL}'"],
    "numeric[]": ["'{1.50,NaN}'"],
    "numeric(6,2)[]": ["'{1.50}'"],
    "uuid[]": ["'{9040cb98-ea97-434e-9746-7dc4a11ed1bb}'"],
    "jsonb[]": ["ARRAY['{}'::jsonb]"],
    "date[]": ["'{infinity}'"],
    "time[]": ["'{24:00}'"],
    "timestamptz[]": ["'{2020-01-01 00:00:00.000001+00,NULL}'"],
    "interval[]": ["'{1 mon}'"],
    "bit(3)[]": ["'{101}'"],
    "inet[]": ["'{::1}'"],
    "timetz[]": ["'{10:00+01}'"],
    "int4range[]": ["ARRAY['[1,2)'::int4range]"],
    "mood": ["'sad'", "'it''s \"ok\"'"],
    "mood[]": ["'{sad,NULL}'"],
    "posint": ["7"],
    "posint[]": ["'{7}'"],
    "pair": ["'(1,\"a,b\")'", "'(,)'"],
    "pair[]": ["ARRAY['(1,x)'::pair]"],
    "nested": ["ROW(ROW(1,'x')::pair, '{sad}'::mood[], 3)"],
    ODD_TYPE: ["'é𝄞'"],
    "regclass": ["'pg_class'"],
    "regtype": ["'int4'"],
    "pg_lsn": ["'16/B374D848'"],
    "txid_snapshot": ["'10:20:10,14,15'"],
    "tid": ["'(1,2)'"],
}  # fmt: skip


def make(url: str) -> dict[str, str]:
    """Makes a table t00 … for each type; gives table → type."""
    tables = {}
    with psycopg.connect(url, autocommit=True) as c:
        c.execute(TYPES_SQL)
        for number, (type_, literals) in enumerate(VALUES.items()):
            table = f"t{number:02d}"
            c.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v {type_})".encode())
            for i, value in enumerate([*literals, "NULL"]):
                c.execute(f"INSERT INTO {table} VALUES ({i}, CAST({value} AS {type_}))".encode())
            tables[table] = type_
    return tables


def dump(url: str, table: str) -> tuple[str, list[tuple[object, ...]]]:
    """The declared type of ``v``, and all rows as texts."""
    with psycopg.connect(url) as c:
        found = c.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'v'",
            (table,),
        ).fetchone()
        assert found is not None
        return str(found[0]), c.execute(f"SELECT id, v::text FROM {table} ORDER BY id".encode()).fetchall()
