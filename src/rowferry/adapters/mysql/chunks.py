"""Cutting a table into chunks: by integer key, by walking along a key's index, or not at all.

A bound's ``data`` is one of

    {}                                                     the whole table
    {"key": [[name, how], …], "low": […], "high": […]}     low ≤ key < high; null is open

Keys are compared by the server alone. A boundary that is no number is one that the server itself
found in its own order, and goes back to it as it came: ``how`` says in which form.

    integer    digits                            decimal   digits
    temporal   text of a date or time            hex       bytes, as x'…'
    text:C:L   bytes in the column's character set C, compared by its collation L
    plain      text of a type with a text form of its own (uuid, inet6)

Ends are open, so that rows which arrive later belong to a chunk, too. Row comparisons are written
out column by column, since neither MySQL nor MariaDB reads a range of an index for ``(a, b) > (1, 2)``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rowferry import limits
from rowferry.adapters.cuts import even_cuts
from rowferry.adapters.mysql.quoting import literal, qualified, quote
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.errors import LedgerError
from rowferry.model import Bound, Table, TableName

#: An integer key whose range is at most this many times its rows is cut by arithmetic: at worst, a
#: chunk then holds this many times what it should. (The server's count of rows may be off by a half.)
SPARSE_FACTOR = 3.0
#: The first column of a longer key is cut by arithmetic where one of its values has, as the server
#: reckons, at most this part of a chunk's rows.
LEADING_SHARE_MAX = 0.05
#: The part of a chunk that the last but one takes in, where nothing but that would be left for the last.
REMAINDER_SHARE = 0.02
#: Chunks of a longer key whose rows the server is asked to reckon (some 0.3 ms each), and how many times too
#: large one of them may be: beyond that its first column is too uneven for arithmetic.
RECKONED_MAX, UNEVEN_FACTOR = 2_000, 4.0
#: The optimizer's guess at a condition that it has no statistics of is arbitrary. Chunks that turn out
#: small cost little; one that turns out to be the table cannot be shared out.
WHERE_FRACTION_MIN = 0.2
#: A table that was just loaded has a count of 0 until its statistics are made, some ten seconds later. A
#: count below the first number is checked: is there a row beyond twice the count and the second number?
STALE_BELOW_ROWS, STALE_ROWS = 200_000, 1_000
#: Rows whose width is measured where the server's numbers are out of date.
SAMPLE_ROWS = 1_000
#: The least that a row is taken to need: InnoDB's own header, and a column or two.
ROW_BYTES_MIN = 24

_INTEGERS = frozenset(("tinyint", "smallint", "mediumint", "int", "bigint", "year"))
_TEMPORAL = frozenset(("date", "datetime", "timestamp", "time"))
_TEXTS = frozenset(("char", "varchar"))
_BYTES = frozenset(("binary", "varbinary"))
_PLAIN = frozenset(("uuid", "inet6", "inet4"))

_STATUS = """
SELECT table_rows, data_length, avg_row_length FROM information_schema.tables
WHERE table_schema = {database} AND table_name = {name}
"""
#: collation: A or D, for the direction; usable: the optimizer may use it, and FORCE INDEX name it.
_INDEXES = """
SELECT index_name, column_name, sub_part, cardinality, index_type, collation, {usable}
FROM information_schema.statistics
WHERE table_schema = {database} AND table_name = {name} AND non_unique = 0 ORDER BY index_name, seq_in_index
"""
_COLUMNS = """
SELECT column_name, data_type, character_set_name, collation_name FROM information_schema.columns
WHERE table_schema = {database} AND table_name = {name}
"""


class Splitter:
    """Cuts tables over one session, outside the snapshot. Reads only; what it finds is estimates and boundaries."""

    def __init__(self, session: MysqlSession, database: str, counted: Mapping[TableName, int] | None = None) -> None:
        """counted: rows of tables that have just been counted."""
        self._session = session
        self._database = database
        self._counted = counted or {}

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        if table.kind == "view":
            return [Bound({}, rows=table.rows, bytes=table.bytes)]
        rows, size = self._size(table)
        width = max(size / max(rows, 1), ROW_BYTES_MIN)
        share = self._share(table, where) if where else 1.0
        rows_per_chunk = max(int(chunk_bytes / width / share), 1)
        if chunk_rows_min:
            rows_per_chunk = max(rows_per_chunk, int(chunk_rows_min / share))
        rows_per_chunk = max(rows_per_chunk, math.ceil(rows / limits.CHUNKS_PER_TABLE_MAX))
        # A target that wants a number of rows in each chunk is not given halves of it.
        cuts, key = self._cuts(table, rows, rows_per_chunk, staggered=not chunk_rows_min)
        ends = [None, *cuts, None]
        part_rows, part_bytes = int(rows * share) // (len(cuts) + 1), int(size * share) // (len(cuts) + 1)
        if not cuts:
            return [Bound({}, rows=part_rows, bytes=part_bytes)]
        return [
            Bound({"key": key, "low": low, "high": high}, rows=part_rows, bytes=part_bytes)
            for low, high in itertools.pairwise(ends)
        ]

    # -- how large

    def _size(self, table: Table) -> tuple[int, int]:
        """Estimates of rows and bytes: the server's, unless a look at the table shows that they are out of date."""
        found = self._session.query(_STATUS.format(**self._place(table.name)))
        rows, size = (int(found[0][0] or 0), int(found[0][1] or 0)) if found else (0, 0)
        # A table of a few pages has a length of whole pages, which says nothing of its rows.
        beyond = 2 * rows + STALE_ROWS
        counted = self._counted.get(table.name)
        if counted is not None:
            is_known = counted <= beyond and size >= counted * ROW_BYTES_MIN
            return counted, size if is_known else int(counted * self._width(table))
        if rows < STALE_BELOW_ROWS and self._has_more_than(table, beyond):
            while self._has_more_than(table, 4 * beyond):
                beyond *= 4
            return 2 * beyond, int(2 * beyond * self._width(table))
        if size < rows * ROW_BYTES_MIN:
            size = int(rows * self._width(table))  # the count is newer than the length
        return rows, size

    def _has_more_than(self, table: Table, rows: int) -> bool:
        sql = f"SELECT 1 FROM {self._from(table)} LIMIT 1 OFFSET {rows}"
        return bool(self._session.query(sql))

    def _width(self, table: Table) -> float:
        """Bytes of a row, by the first ones."""
        lengths = " + ".join(f"COALESCE(LENGTH({quote(c.name)}), 0) + 1" for c in table.columns)
        names = ", ".join(quote(c.name) for c in table.columns)
        sql = f"SELECT AVG({lengths}) FROM (SELECT {names} FROM {self._from(table)} LIMIT {SAMPLE_ROWS}) AS s"
        return max(float(self._session.query(sql)[0][0] or 0), ROW_BYTES_MIN)

    def _share(self, table: Table, where: str) -> float:
        """Which part of the rows the optimizer expects a condition to leave."""
        all_rows = f"SELECT 1 FROM {self._from(table)}"
        fraction = self._expected(f"{all_rows} WHERE ({where}\n)") / self._expected(all_rows)
        return min(1.0, max(WHERE_FRACTION_MIN, fraction))

    def _expected(self, sql: str) -> float:
        """Rows that EXPLAIN expects of a statement over one table (1 where it says nothing)."""
        explain = "EXPLAIN EXTENDED" if self._session.flavour.mariadb else "EXPLAIN"
        names, rows = self._session.table(f"{explain} {sql}")
        if not rows:
            return 1.0
        row = dict(zip(names, rows[0], strict=True))
        return max(float(row.get("rows") or 1) * float(row.get("filtered") or 100) / 100, 1.0)

    def _place(self, name: TableName) -> dict[str, str]:
        return {"database": literal(name.schema or self._database), "name": literal(name.name)}

    def _from(self, table: Table) -> str:
        return qualified(table.name, self._database)

    # -- where to cut

    def _cuts(
        self, table: Table, rows: int, rows_per_chunk: int, *, staggered: bool
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Boundaries by the first key that can be cut along, and that key; no boundaries where there is none."""
        if rows <= rows_per_chunk:
            return [], []
        columns = {str(r[0]): r for r in self._session.query(_COLUMNS.format(**self._place(table.name)))}
        indexes = self._indexes(table.name)
        for key in (table.primary_key, *table.unique_keys):
            hows = [_how(columns[name]) if name in columns else None for name in key]
            index = indexes.get(tuple(key))
            if not key or index is None or None in hows:
                continue
            described = [[name, str(how)] for name, how in zip(key, hows, strict=True)]
            if described[0][1] == "integer":
                cuts = self._arithmetic(table, key, index[1], rows, rows_per_chunk, staggered)
                if cuts is not None:
                    return cuts, described[:1]
            return self._walk(table, described, index[0], rows_per_chunk), described
        return [], []

    def _indexes(self, name: TableName) -> dict[tuple[str, ...], tuple[str, int]]:
        """Columns of each unique index that can be walked along (whole columns, all in one direction) → its name,
        and how many values its first column has."""
        flavour, usable = self._session.flavour, "'YES'"
        if flavour.mariadb and flavour.version >= (10, 6, 0):
            usable = "IF(ignored = 'YES', 'NO', 'YES')"
        elif not flavour.mariadb and flavour.version >= (8, 0, 0):
            usable = "is_visible"
        found: dict[str, list[tuple[Any, ...]]] = {}
        for row in self._session.query(_INDEXES.format(usable=usable, **self._place(name))):
            found.setdefault(str(row[0]), []).append(row)
        out: dict[tuple[str, ...], tuple[str, int]] = {}
        for index, parts in found.items():
            whole = all(part[1] is not None and part[2] is None and str(part[4]) == "BTREE" for part in parts)
            if whole and len({part[5] for part in parts}) == 1 and parts[0][6] == "YES":
                out.setdefault(tuple(str(part[1]) for part in parts), (index, int(parts[0][3] or 0)))
        return out

    def _arithmetic(
        self, table: Table, key: Sequence[str], values: int, rows: int, rows_per_chunk: int, staggered: bool
    ) -> list[list[str]] | None:
        """Even steps of the key's first column between its smallest and largest value, where rows lie
        densely and evenly between them; None where they do not."""
        column = quote(key[0])
        low, high = self._session.query(f"SELECT MIN({column}), MAX({column}) FROM {self._from(table)}")[0]
        if low is None:
            return []
        reach = int(high) - int(low) + 1
        if reach > SPARSE_FACTOR * max(rows, 1):
            return None
        if len(key) > 1 and rows / max(values, 1) > LEADING_SHARE_MAX * rows_per_chunk:
            return None
        # A remainder of a few rows is not worth a chunk.
        count = min(math.ceil(rows / rows_per_chunk - REMAINDER_SHARE), reach)
        cuts = [[str(cut)] for cut in even_cuts(int(low), int(high), count, staggered=staggered)]
        if len(key) > 1 and self._largest(table, key[0], cuts) > UNEVEN_FACTOR * rows_per_chunk:
            return None
        return cuts

    def _largest(self, table: Table, column: str, cuts: list[list[str]]) -> float:
        """Rows that the server expects, from a look at the index, in the largest of the chunks."""
        described = [[column, "integer"]]
        largest = 0.0
        for low, high in itertools.pairwise([None, *cuts[:RECKONED_MAX], None]):
            bound = Bound({"key": described, "low": low, "high": high})
            largest = max(largest, self._expected(f"SELECT 1 {select_from(table, self._database, bound, None)}"))
        return largest

    def _walk(self, table: Table, key: list[list[str]], index: str, rows_per_chunk: int) -> list[list[str]]:
        """Every n-th key along its index, in the server's own order: reads the index once, and sends the cuts only."""
        source = f"{self._from(table)} FORCE INDEX ({quote(index)})"
        taken = ", ".join(_taken(name, how) for name, how in key)
        order = ", ".join(quote(name) for name, _ in key)
        cuts: list[list[str]] = []
        while len(cuts) < limits.CHUNKS_PER_TABLE_MAX:
            condition = f" WHERE {_beyond(key, cuts[-1], '>=')}" if cuts else ""
            sql = f"SELECT {taken} FROM {source}{condition} ORDER BY {order} LIMIT 1 OFFSET {rows_per_chunk}"
            found = self._session.query(sql)
            if not found:
                break
            cuts.append([_text(value) for value in found[0]])
        return cuts


def even_ranges(session: MysqlSession, table: Table, count: int) -> list[Bound]:
    """At most ``count`` ranges of equal width of the primary key's first column; the table where that is no integer."""
    native = table.column(table.primary_key[0]).native if table.primary_key else ""
    if re.match("[a-z]*", native)[0] not in _INTEGERS or count < 2:  # type: ignore[index]
        return [Bound({})]
    name = table.primary_key[0]
    low, high = session.query(f"SELECT MIN({quote(name)}), MAX({quote(name)}) FROM {qualified(table.name)}")[0]
    if low is None:
        return [Bound({})]
    cuts = [[str(cut)] for cut in even_cuts(int(low), int(high), min(count, int(high) - int(low) + 1))]
    key = [[name, "integer"]]
    return [Bound({"key": key, "low": a, "high": b}) for a, b in itertools.pairwise([None, *cuts, None])]


def _how(column: tuple[Any, ...]) -> str | None:
    """In which form boundaries of a column travel; None where they do not (floats: their text is rounded)."""
    _, kind, charset, collation = column
    kind = str(kind).lower()
    if kind in _INTEGERS:
        return "integer"
    if kind == "decimal":
        return "decimal"
    if kind in _TEMPORAL:
        return "temporal"
    if kind in _TEXTS and charset and collation:
        return f"text:{charset}:{collation}"
    if kind in _BYTES:
        return "hex"
    return "plain" if kind in _PLAIN else None


def _taken(name: str, how: str) -> str:
    return f"HEX({quote(name)})" if how == "hex" or how.startswith("text:") else quote(name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _value(how: str, value: str) -> str:
    """A boundary as the server reads it. Raises ValueError for what no server gave (a tampered ledger)."""
    kind, _, rest = how.partition(":")
    if kind == "integer":
        return str(int(value))
    if kind == "decimal":
        if not value.lstrip("-").replace(".", "", 1).isdigit():
            raise ValueError(f"the boundary {value!r} is no decimal")
        return value
    if kind == "hex":
        return f"x'{bytes.fromhex(value).hex()}'"
    if kind == "text":
        charset, _, collation = rest.partition(":")
        if not (charset + collation).replace("_", "").isalnum():
            raise ValueError(f"{charset} and {collation} are no character set and collation")
        return f"_{charset} x'{bytes.fromhex(value).hex()}' COLLATE {collation}"
    return literal(value)


def _beyond(key: Sequence[Sequence[str]], values: Sequence[str], operator: str) -> str:
    """``(a, b, c) operator (x, y, z)``, operator ``>=`` or ``<``, so that an index can be read for it.

    ``a >= x AND (a > x OR (a = x AND (b > y OR (b = y AND c >= z))))``: the first condition gives the range.
    """
    strict = operator[0]
    (name, how), *others = key
    column, value = quote(name), _value(how, values[0])
    if not others:
        return f"{column} {operator} {value}"
    within = _beyond(others, values[1:], operator)
    return f"({column} {strict}= {value} AND ({column} {strict} {value} OR ({column} = {value} AND {within})))"


def select_from(table: Table, database: str | None, bound: Bound, where: str | None) -> str:
    """``FROM … WHERE …`` of one chunk. Raises LedgerError for a bound that was tampered with."""
    conditions = [f"({where}\n)"] if where else []  # the line break ends a comment that a condition may end with
    data = bound.data
    source = qualified(table.name, database)
    if "key" in data:
        key = data["key"]
        # Of two chunks, each is "more than half of the table" to an optimizer that then reads all of it twice.
        if tuple(name for name, _ in key) == table.primary_key[: len(key)]:
            source += " FORCE INDEX (PRIMARY)"
        try:
            if data["low"] is not None:
                conditions.append(_beyond(key, data["low"], ">="))
            if data["high"] is not None:
                conditions.append(_beyond(key, data["high"], "<"))
        except (ValueError, IndexError) as error:
            raise LedgerError(f"the ledger holds a bound that is none: {error}", table=str(table.name)) from None
    return f"FROM {source}" + (" WHERE " + " AND ".join(conditions) if conditions else "")
