"""Cutting a table into chunks: by integer key, by sampled key, by block, or not at all.

A bound's ``data`` is one of

    {}                                                     the whole table
    {"key": [[name, type], …], "low": […], "high": […]}    low ≤ key < high, as texts; null is open
    {"relation": [schema, name], "low": n, "high": n}      blocks low … high of one heap (ctid); null is open

Keys are compared by the server alone, with pg_catalog's operators, in the column's own collation:
boundaries come from its ORDER BY and go back into its row comparison, both of the key type's btree
family. Ends are open, so that rows which arrive later belong to a chunk, too.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec

from rowferry import limits
from rowferry.adapters.cuts import even_cuts
from rowferry.adapters.postgres.catalog import Catalog, from_table
from rowferry.adapters.postgres.quoting import ident, idents, literal, qualified
from rowferry.adapters.postgres.session import Session
from rowferry.model import Bound, Table, TableName

#: An integer key whose range is at most this many times its rows is cut by arithmetic: at worst, a
#: chunk then holds this many times what it should.
SPARSE_FACTOR = 2.0
#: Blocks that the sample reads per chunk: 20 of the 4,096 of a 32 MiB chunk keep chunks within a
#: third of their size, and reading a hundredth of the table costs little beside copying it.
SAMPLE_BLOCKS_PER_CHUNK = 20
#: Tid Range Scan came with 14; before it, every ctid chunk would read the whole table.
TID_RANGE_VERSION = 14

#: The planner takes one row in 200 for most conditions that it has no statistics of. Chunks that turn
#: out small cost little; one that turns out to be the table cannot be shared out.
WHERE_FRACTION_MIN = 0.2

_INTEGER_OIDS = (20, 21, 23)

_KEY_TYPES = """
SELECT a.attname, b.oid, format_type(b.oid, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END),
       b.typnamespace = 'pg_catalog'::regnamespace OR b.typtype = 'e',
       EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
               WHERE o.opcdefault AND (o.opcintype = b.oid OR b.typtype = 'e' OR b.typname = 'varchar'))
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = {table}::regclass AND a.attname = ANY ({names}::name[])
"""

_LEAVES = """
SELECT n.nspname, c.relname, c.relkind, pg_relation_size(c.oid), pg_table_size(c.oid),
       has_table_privilege(c.oid, 'SELECT') AND NOT c.relrowsecurity
FROM (SELECT {table}::regclass::oid AS oid UNION SELECT relid FROM pg_partition_tree({table}::regclass) WHERE isleaf) t
JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind <> 'p' ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""


class Splitter:
    """Cuts tables over one session. Reads only; what it finds is estimates and boundaries."""

    def __init__(self, session: Session, catalog: Catalog) -> None:
        self._session = session
        self._catalog = catalog

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        rows, width = self._catalog.estimate(table.name, "r" if table.kind == "table" else "p", where)
        size = table.bytes or rows * (width + 24)
        if where and table.rows:
            size = int(size * min(1.0, max(WHERE_FRACTION_MIN, rows / table.rows)))
        count = min(math.ceil(size / chunk_bytes), limits.CHUNKS_PER_TABLE_MAX)
        if chunk_rows_min:
            count = min(count, rows // chunk_rows_min)
        whole = [Bound({}, rows=rows, bytes=size)]
        if count <= 1 or table.kind not in ("table", "partitioned"):
            return whole
        # A target that wants a number of rows in each chunk is not given halves of it.
        bounds = self._by_key(table, where, rows, count, staggered=not chunk_rows_min)
        if bounds is None:
            bounds = self._by_block(table, count)
        if bounds is None:
            return whole
        return [Bound(data, physical, rows // len(bounds), size // len(bounds)) for data, physical in bounds]

    # -- by key

    def _by_key(
        self, table: Table, where: str | None, rows: int, count: int, *, staggered: bool
    ) -> list[tuple[dict[str, Any], bool]] | None:
        """Bounds by the first key that pg_catalog's own operators can compare; None where there is none."""
        for key in (table.primary_key, *table.unique_keys):
            types = self._key_types(table.name, key) if key else None
            if types is None:
                continue
            cuts = None
            if len(key) == 1 and types[0][1] in _INTEGER_OIDS:
                cuts = self._arithmetic(table, where, key[0], rows, count, staggered)
            if cuts is None:
                cuts = self._sampled(table, where, key, count)
            columns = [[name, type_] for name, (type_, _) in zip(key, types, strict=True)]
            ends = [None, *cuts, None]
            return [({"key": columns, "low": low, "high": high}, False) for low, high in itertools.pairwise(ends)]
        return None

    def _key_types(self, name: TableName, key: tuple[str, ...]) -> list[tuple[str, int]] | None:
        """(type to cast a boundary to, base type's OID) of each key column."""
        names = "ARRAY[" + ", ".join(literal(n) for n in key) + "]"
        sql = _KEY_TYPES.format(table=literal(qualified(name)), names=names)
        found = {r[0]: r for r in self._session.query(sql)}
        if any(n not in found or not found[n][3] or not found[n][4] for n in key):
            return None
        return [(found[n][2], found[n][1]) for n in key]

    def _arithmetic(
        self, table: Table, where: str | None, column: str, rows: int, count: int, staggered: bool
    ) -> list[list[str]] | None:
        """Even steps between the smallest and the largest key, where rows lie dense between them."""
        condition = f" WHERE ({where}\n)" if where else ""
        low, high = self._session.query(
            f"SELECT min({ident(column)}), max({ident(column)}) FROM {from_table(table)}{condition}"
        )[0]
        if low is None or high - low + 1 > SPARSE_FACTOR * max(rows, 1):
            return None if low is not None else []
        return [[str(cut)] for cut in even_cuts(low, high, count, staggered=staggered)]

    def _sampled(self, table: Table, where: str | None, key: tuple[str, ...], count: int) -> list[list[str]]:
        """Every n-th key of a sample of blocks, in the order of the server's own comparison."""
        blocks = self._blocks(table)
        percent = min(100.0, 100.0 * SAMPLE_BLOCKS_PER_CHUNK * count / max(blocks, 1))
        columns = idents(key)
        texts = ", ".join(f"{ident(k)}::text" for k in key)
        condition = f" WHERE ({where}\n)" if where else ""
        # SYSTEM takes whole blocks; a fixed seed cuts the same table the same way twice.
        sql = (
            f"SELECT json_build_array({texts}) FROM ("
            f"SELECT {columns}, row_number() OVER (ORDER BY {columns}) AS number, count(*) OVER () AS total "
            f"FROM {from_table(table)} TABLESAMPLE SYSTEM ({percent:.4f}) REPEATABLE (1){condition}) AS s "
            # The last row of each of ``count`` equal parts but the last: at most count − 1 rows.
            f"WHERE number * {count} / total > (number - 1) * {count} / total AND number < total "
            f"AND number > 1 ORDER BY {columns}"
        )
        return [msgspec.json.decode(r[0]) for r in self._session.query(sql)]

    def _blocks(self, table: Table) -> int:
        size = sum(int(r[3]) for r in self._leaves(table.name))
        return max(1, size // self._block_bytes())

    # -- by block

    def _leaves(self, name: TableName) -> list[tuple[Any, ...]]:
        return self._session.query(_LEAVES.format(table=literal(qualified(name))))

    def _block_bytes(self) -> int:
        return int(self._session.query("SELECT current_setting('block_size')::int")[0][0])

    def _by_block(self, table: Table, count: int) -> list[tuple[dict[str, Any], bool]] | None:
        """Ranges of blocks, each heap on its own: ctids of two partitions are the same numbers."""
        leaves = self._leaves(table.name)
        if any(not leaf[5] for leaf in leaves):
            return None  # its partitions may not be read one by one
        block_bytes = self._block_bytes()
        total = max(1, sum(leaf[4] for leaf in leaves))
        out: list[tuple[dict[str, Any], bool]] = []
        for schema, name, kind, heap_bytes, table_bytes, _ in leaves:
            parts = max(1, round(count * table_bytes / total))
            blocks = heap_bytes // block_bytes
            step = math.ceil(blocks / parts) if kind == "r" and self._session.version >= TID_RANGE_VERSION else 0
            cuts = list(range(step, blocks, step)) if step else []
            ends = [None, *cuts, None]
            out += [
                ({"relation": [schema, name], "low": low, "high": high}, True) for low, high in itertools.pairwise(ends)
            ]
        return out


def select_from(table: Table, bound: Bound, where: str | None) -> str:
    """``FROM … WHERE …`` of one chunk."""
    data = bound.data
    source = from_table(table)
    conditions = [f"({where}\n)"] if where else []  # the line break ends a comment that a condition may end with
    if "relation" in data:
        schema, name = data["relation"]
        source = f"ONLY {ident(schema)}.{ident(name)}"
        if data["low"] is not None:
            conditions.append(f"ctid >= '({int(data['low'])},0)'::tid")
        if data["high"] is not None:
            conditions.append(f"ctid < '({int(data['high'])},0)'::tid")
    elif "key" in data:
        columns = ", ".join(ident(name) for name, _ in data["key"])
        for end, operator in (("low", ">="), ("high", "<")):
            if data[end] is not None:
                conditions.append(f"({columns}) {operator} ({_values(data['key'], data[end])})")
    return f"FROM {source}" + (" WHERE " + " AND ".join(conditions) if conditions else "")


def _values(key: list[list[str]], values: list[str]) -> str:
    return ", ".join(f"{literal(v)}::{type_}" for (_, type_), v in zip(key, values, strict=True))
