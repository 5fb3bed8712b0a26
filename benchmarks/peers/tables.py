"""The two tables that are copied: how each engine declares them, and what must be true of every copy.

A copy is right when its row count and one exact sum for each column are those of the Arrow batches that the
sources were filled from. The sums are asked for in the SQL of whatever engine holds the copy, by a plain driver:
integers and decimals are summed up, dates and times as days and microseconds since 1970, texts and bytes through
32 bits of their MD5, JSON through two of its values.
"""

from __future__ import annotations

import dataclasses
import decimal
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping

import duckdb
import pyarrow as pa

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import events
import lineitem

#: Engine → the sum of a column of each kind, in its SQL.
SUMS: Mapping[str, Mapping[str, str]] = {
    "postgres": {
        "count": "count({0})",
        "number": "sum({0})",
        "date": "sum({0}::date - date '1970-01-01')",
        "timestamptz": "sum((extract(epoch from {0}) * 1000000)::bigint)",
        "char": "sum(('x' || substr(md5(rtrim({0}::text)), 1, 8))::bit(32)::bigint)",
        "text": "sum(('x' || substr(md5({0}::text), 1, 8))::bit(32)::bigint)",
        "binary": "sum(('x' || substr(md5({0}), 1, 8))::bit(32)::bigint)",
        "json": "sum(({0}::jsonb->>'n')::bigint + ('x' || substr(md5({0}::jsonb->>'title'), 1, 8))::bit(32)::bigint)",
    },
    "mysql": {
        "count": "count({0})",
        "number": "sum({0})",
        "date": "sum(datediff({0}, '1970-01-01'))",
        "timestamptz": "sum(timestampdiff(microsecond, '1970-01-01', {0}))",
        "char": "sum(cast(conv(substr(md5(rtrim(convert({0} using utf8mb4))), 1, 8), 16, 10) as unsigned))",
        "text": "sum(cast(conv(substr(md5(convert({0} using utf8mb4)), 1, 8), 16, 10) as unsigned))",
        "binary": "sum(cast(conv(substr(md5({0}), 1, 8), 16, 10) as unsigned))",
        "json": "sum(cast(json_value({0}, '$.n') as signed) "
        "+ cast(conv(substr(md5(json_unquote(json_extract({0}, '$.title'))), 1, 8), 16, 10) as unsigned))",
    },
    "duckdb": {
        "count": "count({0})",
        "number": "sum({0})",
        "date": "sum(date_diff('day', date '1970-01-01', {0}::date))",
        "timestamptz": "sum(epoch_us({0}))",
        "char": "sum(('0x' || substr(md5(rtrim({0}::varchar)), 1, 8))::bigint)",
        "text": "sum(('0x' || substr(md5({0}::varchar), 1, 8))::bigint)",
        "binary": "sum(('0x' || substr(md5({0}::blob), 1, 8))::bigint)",
        "json": "sum(({0}->>'$.n')::bigint + ('0x' || substr(md5({0}->>'$.title'), 1, 8))::bigint)",
    },
}
#: What information_schema calls a type → its kind; a copy whose kinds differ says so.
KINDS: Mapping[str, str] = {
    **dict.fromkeys(("bigint", "integer", "int", "smallint", "hugeint", "int64", "int32"), "integer"),
    **dict.fromkeys(("numeric", "decimal"), "decimal"),
    **dict.fromkeys(("double precision", "double", "real", "float"), "double"),
    **dict.fromkeys(("character varying", "character", "char", "varchar", "text", "longtext", "mediumtext"), "text"),
    **dict.fromkeys(("timestamp with time zone", "timestamptz"), "timestamptz"),
    **dict.fromkeys(("timestamp without time zone", "timestamp", "datetime"), "timestamp"),
    **dict.fromkeys(("bytea", "blob", "longblob", "mediumblob", "varbinary", "binary"), "binary"),
    **dict.fromkeys(("json", "jsonb"), "json"),
}
#: Kinds whose sums are cheap.
CHEAP = frozenset(("number", "date", "timestamptz"))
#: A double's sum depends on the order of its rows; an exact type's does not.
DOUBLE_TOLERANCE = decimal.Decimal("1e-9")

Sums = tuple[decimal.Decimal, ...]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column; ``kind`` is a key of SUMS (and decides how it is written as text)."""

    name: str
    kind: str
    #: The kind of its type, a value of KINDS (or information_schema's own word).
    type_kind: str


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    #: Engine → what stands between the parentheses of CREATE TABLE, the key left out.
    ddl: Mapping[str, str]
    rows_of: Callable[[float], int]
    batches: Callable[[int], Iterator[pa.RecordBatch]]
    #: A column of integers by which a reader can be split, where there is one.
    split_by: str | None
    #: What MySQL's LOAD DATA must be told to read PostgreSQL's COPY text of it.
    load_clause: str = ""

    def create(self, engine: str, *, with_key: bool) -> str:
        key = f", primary key ({', '.join(self.key)})" if with_key else ""
        return f"create table {self.name} ({self.ddl[engine]}{key})"

    def brief(self) -> Table:
        """The same, looked at less closely: without the columns whose sum takes an MD5 of every value."""
        return dataclasses.replace(self, columns=tuple(c for c in self.columns if c.kind in CHEAP))

    def sums_of(self, whole: Table, sums: Sums) -> Sums:
        """Of the sums of ``whole``, those of this table's columns."""
        at = {column.name: 1 + 2 * index for index, column in enumerate(whole.columns)}
        return (sums[0], *(sums[at[c.name] + more] for c in self.columns for more in (0, 1)))

    def sums_query(self, engine: str, place: str, types: Mapping[str, str] | None = None) -> str:
        """SELECT of the row count and two numbers for each column (values that are there; their sum). ``types``, as
        for ``compare``: numbers that a copy has as texts are cast."""
        terms = ["count(*)"]
        for column in self.columns:
            text = column.kind == "number" and KINDS.get((types or {}).get(column.name, "")) == "text"
            name = f"cast({column.name} as decimal(38, 2))" if text else column.name
            terms += [SUMS[engine][kind].format(name) for kind in ("count", column.kind)]
        return f"select {', '.join(terms)} from {place}"

    def compare(self, found: Sums, wanted: Sums, types: Mapping[str, str]) -> str:
        """What is not as it was: '' (all exact), else what a person should know; starts with ``WRONG`` where values
        were lost or changed. ``types``: column → information_schema's type of the copy."""
        wrong, as_others = [], {}
        if found[0] != wanted[0]:
            return f"WRONG: {found[0]:,} rows, not {wanted[0]:,}"
        for index, column in enumerate(self.columns):
            kind = KINDS.get(types[column.name], types[column.name])
            if kind != column.type_kind and (column.type_kind, kind) not in SAME:
                as_others[f"{column.type_kind} as {kind}"] = True
            for what, place in (("values there", 1 + 2 * index), ("sum", 2 + 2 * index)):
                tolerance = abs(wanted[place]) * DOUBLE_TOLERANCE if kind == "double" else 0
                if abs(found[place] - wanted[place]) > tolerance:
                    wrong.append(f"{column.name} ({what} {found[place]}, not {wanted[place]})")
                    break
        if wrong:
            return f"WRONG: {'; '.join(wrong)}"
        return ", ".join(as_others)


#: Types that are as good as each other: MySQL's DATETIME holds what its TIMESTAMP holds, its JSON is a LONGTEXT.
SAME = {("timestamptz", "timestamp"), ("json", "text")}


def expected(table: Table, rows: int) -> Sums:
    """The sums of the batches themselves."""
    total: Sums = ()
    with duckdb.connect(config={"threads": 1}) as connection:
        for batch in table.batches(rows):
            connection.register("batch", pa.Table.from_batches([batch]))
            found = exact(connection.execute(table.sums_query("duckdb", "batch")).fetchall()[0])
            total = tuple(a + b for a, b in zip(total, found, strict=True)) if total else found
    return total


def exact(row: tuple[object, ...]) -> Sums:
    """Whatever numbers a driver gives, as decimals; a NULL (the sum of nothing) is 0."""
    return tuple(decimal.Decimal(0) if value is None else decimal.Decimal(str(value)) for value in row)


def _lineitem() -> Table:
    columns = []
    for field in lineitem.SCHEMA:
        if pa.types.is_decimal(field.type):
            kinds = ("number", "decimal")
        elif pa.types.is_integer(field.type):
            kinds = ("number", "integer")
        elif pa.types.is_date(field.type):
            kinds = ("date", "date")
        else:
            # char(n) may come with its padding or without it: its spaces at the end are none of its value.
            kinds = ("text" if field.name == "l_comment" else "char", "text")
        columns.append(Column(field.name, *kinds))
    # SQLite's and DuckDB's char(n) is a text like any other.
    ddl = dict.fromkeys(("postgres", "mysql", "sqlite", "duckdb"), lineitem.DDL)
    return Table(
        "lineitem", tuple(columns), lineitem.PRIMARY_KEY, ddl, lineitem.rows_of,
        lambda rows: lineitem.batches(rows), "l_orderkey",
    )  # fmt: skip


def _events() -> Table:
    columns = (
        Column("e_id", "text", "uuid"), Column("e_at", "timestamptz", "timestamptz"),
        Column("e_actor", "number", "integer"), Column("e_kind", "text", "text"), Column("e_payload", "json", "json"),
        Column("e_title", "text", "text"), Column("e_body", "binary", "binary"),
    )  # fmt: skip
    ddl = {
        "postgres": "e_id uuid not null, e_at timestamptz not null, e_actor bigint, e_kind varchar(16) not null, "
        "e_payload jsonb not null, e_title text, e_body bytea",
        "mysql": "e_id uuid not null, e_at timestamp(6) not null default '2000-01-01', e_actor bigint, "
        "e_kind varchar(16) not null, e_payload json not null, e_title text, e_body blob",
        "duckdb": "e_id uuid not null, e_at timestamptz not null, e_actor bigint, e_kind varchar not null, "
        "e_payload json not null, e_title varchar, e_body blob",
    }
    return Table(
        "events", columns, events.PRIMARY_KEY, ddl, events.rows_of, lambda rows: events.batches(rows), None,
        "(e_id, @at, e_actor, e_kind, e_payload, e_title, @body) "
        "set e_at = replace(@at, '+00', ''), e_body = unhex(substr(@body, 3))",
    )  # fmt: skip


TABLES: Mapping[str, Table] = {table.name: table for table in (_lineitem(), _events())}
