"""Unique indexes that take different values for one (collations that are not deterministic, citext, char(n),
expressions, the server's own types), and which keys these are, asked of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters.colliding import KEYS, SqlTrial
from rowferry.adapters.postgres.quoting import ident, literal, qualified
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.writer import load, plan_way
from rowferry.adapters.protocol import Block, LooseKey
from rowferry.model import ColumnPlan, Table, TableName

#: The parts of each unique index that has one which is no plain value: expression or column, the collation it is
#: compared by, the operator that says equal, how it is loose. A type is one of those that compare by value (numbers
#: of all kinds, times, uuid, bytea, booleans, texts under a deterministic collation), or may be loose.
_INDEXES = """
WITH parts AS (
    SELECT i.indexrelid, i.indrelid, k.n, a.attname, pg_get_indexdef(i.indexrelid, k.n::int, false) AS sql,
           CASE WHEN co.oid IS NOT NULL
                THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END AS collation,
           (SELECT 'OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')' FROM pg_amop m
            JOIN pg_operator p ON p.oid = m.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace
            WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype AND m.amoprighttype = oc.opcintype
              AND m.amopstrategy = 3) AS equal,
           CASE WHEN k.attnum = 0 THEN pg_get_indexdef(i.indexrelid, k.n::int, false)
                WHEN NOT co.collisdeterministic
                THEN a.attname || ' by ' || quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
                WHEN t.typtype <> 'e' AND NOT b.oid = ANY ({by_value})
                THEN a.attname || ' as ' || format_type(a.atttypid, a.atttypmod)
           END AS how
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey, i.indclass, i.indcollation)
         WITH ORDINALITY k(attnum, opclass, coll, n)
    JOIN pg_opclass oc ON oc.oid = k.opclass
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
    LEFT JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN oc.opcintype ELSE t.oid END
    LEFT JOIN pg_collation co ON co.oid = k.coll LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
    WHERE i.indrelid = ANY (ARRAY[{tables}]) AND i.indisunique AND i.indisvalid AND k.n <= i.indnkeyatts)
SELECT i.indrelid::bigint, c.relname,
       (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (a.attnum = ANY (i.indkey::int2[]) OR EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))),
       json_agg(p.how ORDER BY p.n), json_agg(p.attname ORDER BY p.n), json_agg(p.sql ORDER BY p.n),
       json_agg(p.collation ORDER BY p.n), json_agg(p.equal ORDER BY p.n), pg_get_expr(i.indpred, i.indrelid), {nulls}
FROM parts p JOIN pg_index i ON i.indexrelid = p.indexrelid JOIN pg_class c ON c.oid = i.indexrelid
GROUP BY i.indexrelid, i.indrelid, c.relname, i.indkey::int2[], i.indpred{group}
HAVING bool_or(p.how IS NOT NULL) ORDER BY 1, 2
"""
#: bool, bytea, "char", name, int8, int2, int4, text, oid, float4, float8, varchar, date, time, timestamp,
#: timestamptz, timetz, bit, varbit, numeric, uuid.
_BY_VALUE = (16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 1043, 1082, 1083, 1114, 1184, 1266, 1560, 1562, 1700, 2950)


def loose_keys(session: Session, tables: Sequence[Table]) -> list[LooseKey]:
    """Of all tables in one query."""
    if not tables:
        return []
    places = [f"{literal(qualified(t.name))}::regclass" for t in tables]
    oids = session.query(f"SELECT {', '.join(f'{place}::bigint' for place in places)}")[0]
    named = dict(zip(oids, tables, strict=True))
    distinct = session.version >= 15
    sql = _INDEXES.format(
        tables=", ".join(places),
        by_value=f"ARRAY[{', '.join(map(str, _BY_VALUE))}]::oid[]",
        nulls="i.indnullsnotdistinct" if distinct else "false",
        group=", i.indnullsnotdistinct" if distinct else "",
    )
    return [_key(named[row[0]], row) for row in session.query(sql)]


def _key(table: Table, row: tuple[Any, ...]) -> LooseKey:
    _, name, columns, *lists, where, nulls = row
    how, names, sql, collations, equal = (msgspec.json.decode(text) for text in lists)
    parts = tuple(f"({s}) COLLATE {c}" if c is not None else f"({s})" for s, c in zip(sql, collations, strict=True))
    return LooseKey(
        table=table.name,
        name=str(name),
        columns=tuple(msgspec.json.decode(columns)),
        how=", ".join(h for h in how if h is not None),
        exact=tuple(n for n, h in zip(names, how, strict=True) if h is None),
        parts=parts,
        where=where,
        equal=tuple(e or "=" for e in equal),
        nulls=nulls is True,
    )


class PostgresTrial(SqlTrial):
    """The protocol's KeyTrial, in a transaction of a session of its own, which it closes."""

    def __init__(self, session: Session, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> None:
        self._session = session
        place = TableName("pg_temp", KEYS)
        spelled = " || ', ' || ".join(f"quote_nullable({ident(c.target)}::text)" for c in columns)
        super().__init__(key, qualified(place), qualified(table.name), f'({spelled}) COLLATE "C"')
        self._columns = columns
        self._way = plan_way(place, columns, "append", ())
        made = ", ".join(f"{ident(c.target)} {c.column.native}" for c in columns)
        session.begin()
        session.query(f"CREATE TEMP TABLE {KEYS} ({made}) ON COMMIT DROP")

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        load(self._session, self._way, self._columns, [Block(batch) for batch in batches], raw=False)

    def collisions(self, most: int, *, spellings: bool, held: str | None) -> Any:
        # Without figures the server might sort what it could hash, or join in the wrong order.
        self._session.query(f"ANALYZE {self._keys}")
        return super().collisions(most, spellings=spellings, held=held)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._session.query(sql)

    def close(self) -> None:
        self._session.close()
