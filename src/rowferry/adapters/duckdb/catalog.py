"""What is in a DuckDB database: tables, columns, keys, and the tags that remember source types.

``rowferry_columns`` (in ``main``) remembers, for columns that rowferry made, the source's declared
type, and the canonical type where DuckDB's own does not tell everything: ``inet`` as VARCHAR,
``varchar(10)``, ``jsonb``. A tag counts only while the column still has the type under which it was
written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from rowferry.adapters.duckdb.wire import Session
from rowferry.convert.duckdb_form import canonical, quote
from rowferry.errors import LedgerError
from rowferry.model import Column, ForeignKey, Refusal, Table, TableName, UserType, is_own
from rowferry.types import Type, dump, load

TAGS = "rowferry_columns"
MAIN = "main"
#: A default that means the same in any session: a number, a text, a truth value, or one of them cast.
_LITERAL = re.compile(
    r"(?:CAST\()?(?:'(?:[^']|'')*'|[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|NULL)(?: AS [A-Za-z0-9_ (),]+\))?",
    re.IGNORECASE,
)
#: Cells from here on are read few at a time: DuckDB gives whole vectors of up to 2,048 rows.
LONG_CELL_BYTES = 64 << 10
_HUGE = ("HUGEINT", "UHUGEINT")
_DECIMAL_38 = Type("decimal", precision=38, scale=0)
_TEXT = Type("text")


def schema_of(name: TableName) -> str:
    return MAIN if name.schema is None else name.schema


def qualified(name: TableName) -> str:
    """``"schema"."table"``."""
    return f"{quote(schema_of(name))}.{quote(name.name)}"


def _named(schema: str, name: str) -> TableName:
    return TableName(None if schema == MAIN else schema, name)


def list_tables(session: Session, views: bool = False) -> list[TableName]:
    """Base tables (or views) of all schemas of the open database, without rowferry's own, in name order."""
    kind = "view" if views else "table"
    rows = session.execute(
        f"SELECT schema_name, {kind}_name FROM duckdb_{kind}s() "
        "WHERE database_name = current_database() AND NOT internal AND NOT temporary "
        "ORDER BY 1, 2"
    )
    names = (_named(*row) for row in rows if not is_own(row[1]))
    return sorted(names, key=lambda n: (n.schema or "", n.name))


def exists(session: Session, name: TableName) -> bool:
    """Whether a table of exactly this name is there. DuckDB's names are equal without regard to case."""
    rows = session.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        "AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)",
        (schema_of(name), name.name),
    )
    return bool(rows)


def _kind(session: Session, name: TableName) -> str | None:
    for kind in ("table", "view"):
        rows = session.execute(
            f"SELECT 1 FROM duckdb_{kind}s() WHERE database_name = current_database() AND NOT temporary "
            f"AND schema_name = ? AND {kind}_name = ?",
            (schema_of(name), name.name),
        )
        if rows:
            return kind
    return None


def describe(session: Session, name: TableName, census: bool) -> Table | None:
    """The table or view as it is now; None where there is none of exactly this name."""
    kind = _kind(session, name)
    if kind is None:
        return None
    types = session.columns(f"SELECT * FROM {qualified(name)}")
    details = _details(session, name) if kind == "table" else {}
    tags, user_types = read_tags(session, name)
    primary, unique, foreign = _constraints(session, name)
    wide = _wide_integers(session, name, types) if census and kind == "table" else set()
    columns = tuple(_column(c, native, details.get(c), tags.get(c), c in wide) for c, native in types)
    required = {c.name for c in columns if not c.nullable}
    rows = _row_count(session, name) if kind == "table" else 0
    return Table(
        name=name,
        columns=columns,
        primary_key=primary,
        unique_keys=tuple(k for k in unique if set(k) <= required and k != primary),
        rows=rows,
        bytes=rows * _row_bytes(session, name, rows, types) if rows else 0,
        fingerprint=fingerprint(session, name),
        kind=kind,
        foreign_keys=foreign,
        triggers=_triggers(session, name),
        user_types=user_types,
    )


def fingerprint(session: Session, name: TableName) -> str:
    """A hash of names, types and nullability in their order; '' where there is no such table or view."""
    rows = session.execute(
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ? ORDER BY column_index",
        (schema_of(name), name.name),
    )
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:32] if rows else ""


def _details(session: Session, name: TableName) -> dict[str, tuple[Any, ...]]:
    """Column → (nullable, default, generated)."""
    rows = session.execute(
        "SELECT c.column_name, c.is_nullable, c.column_default, i.is_generated FROM duckdb_columns() c "
        "JOIN information_schema.columns i ON i.table_catalog = c.database_name AND i.table_schema = c.schema_name "
        "AND i.table_name = c.table_name AND i.column_name = c.column_name "
        "WHERE c.database_name = current_database() AND c.schema_name = ? AND c.table_name = ?",
        (schema_of(name), name.name),
    )
    return {row[0]: (bool(row[1]), row[2], row[3] == "ALWAYS") for row in rows}


def _column(name: str, native: Any, detail: tuple[Any, ...] | None, tag: Tag | None, too_wide: bool) -> Column:
    nullable, default, generated = detail or (True, None, False)
    serial = bool(default) and "nextval(" in str(default).lower()
    text = str(native)
    known = canonical(native)
    refusal = None
    forms: tuple[Type, ...]
    if known is None:
        refusal = Refusal(name, f"{text.split('(')[0]} has no exact form elsewhere", policies=("text", "skip"))
        known, forms = _TEXT, (_TEXT,)
    else:
        forms = (known,) if known.kind == "text" else (known, _TEXT)
        if text in _HUGE:
            forms = (known, _TEXT) if too_wide else (_DECIMAL_38, known, _TEXT)
    if tag is not None and tag.native == text and refusal is None:
        if tag.type is not None and tag.type.arrow == known.arrow:
            forms = (tag.type, *(f for f in forms if f != tag.type))
        text = tag.source or text
    return Column(
        name=name,
        type=forms[0],
        nullable=nullable,
        native=text,
        forms=forms,
        default=default if default and not generated and _LITERAL.fullmatch(default) else None,
        generated=generated,
        identity="serial" if serial else None,
        refusal=refusal,
    )


def _wide_integers(session: Session, name: TableName, types: list[tuple[str, Any]]) -> set[str]:
    """HUGEINT columns with a value of more than 38 digits."""
    columns = [c for c, native in types if str(native) in _HUGE]
    if not columns:
        return set()
    limit = "9" * 38
    natives = dict(types)
    tests = ", ".join(
        f"count(*) FILTER ({quote(c)} > {limit}"
        + (f" OR {quote(c)} < -{limit})" if str(natives[c]) == "HUGEINT" else ")")
        for c in columns
    )
    counts = session.execute(f"SELECT {tests} FROM {qualified(name)}")[0]
    return {c for c, count in zip(columns, counts, strict=True) if count}


def _constraints(
    session: Session, name: TableName
) -> tuple[tuple[str, ...], list[tuple[str, ...]], tuple[ForeignKey, ...]]:
    rows = session.execute(
        "SELECT constraint_type, constraint_column_names, constraint_name, referenced_table FROM duckdb_constraints() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY constraint_index",
        (schema_of(name), name.name),
    )
    primary: tuple[str, ...] = ()
    unique: list[tuple[str, ...]] = []
    foreign: list[ForeignKey] = []
    for kind, columns, constraint, parent in rows:
        if kind == "PRIMARY KEY":
            primary = tuple(columns)
        elif kind == "UNIQUE":
            unique.append(tuple(columns))
        elif kind == "FOREIGN KEY":
            # A foreign key stays within its schema.
            foreign.append(ForeignKey(str(constraint), tuple(columns), TableName(name.schema, str(parent))))
    return primary, unique, tuple(foreign)


def children(session: Session, name: TableName) -> list[tuple[TableName, tuple[str, ...]]]:
    """Other tables whose foreign keys point to the table, each key with its columns."""
    rows = session.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE database_name = current_database() "
        "AND constraint_type = 'FOREIGN KEY' AND schema_name = ? AND lower(referenced_table) = lower(?) "
        "AND table_name <> referenced_table ORDER BY ALL",
        (schema_of(name), name.name),
    )
    return [(TableName(name.schema, str(child)), tuple(columns)) for child, columns in rows]


def _triggers(session: Session, name: TableName) -> tuple[str, ...]:
    """DuckDB has triggers since 2.0; the versions before do not know the function."""
    known = session.execute("SELECT count(*) FROM duckdb_functions() WHERE function_name = 'duckdb_triggers'")
    if not known[0][0]:
        return ()
    rows = session.execute(
        "SELECT trigger_name FROM duckdb_triggers() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ? ORDER BY 1",
        (schema_of(name), name.name),
    )
    return tuple(str(row[0]) for row in rows)


def _row_count(session: Session, name: TableName) -> int:
    return int(session.execute(f"SELECT count(*) FROM {qualified(name)}")[0][0])


class Lengths(msgspec.Struct, frozen=True):
    """What DuckDB's statistics know of the texts and blobs of a column: bytes of the longest and of all."""

    longest: int
    total: int
    plain: bool


def lengths(session: Session, name: TableName, types: Sequence[tuple[str, Any]]) -> dict[str, Lengths]:
    """Column → lengths, of the columns that hold texts or blobs (nested ones as well). Reads no rows."""
    kinds = {c: str(native.id) for c, native in types if _may_be_long(native)}
    if not kinds:
        return {}
    # The statistics of the segments: stats() on the columns themselves would read rows.
    rows = session.execute(
        "SELECT column_name, max(longest), sum(total) FROM (SELECT column_name, "
        "TRY_CAST(regexp_extract(CAST(stats AS VARCHAR), 'max_string_length[^0-9]+([0-9]+)', 1) AS BIGINT) AS longest, "
        "TRY_CAST(regexp_extract(CAST(stats AS VARCHAR), 'total_string_length[^0-9]+([0-9]+)', 1) AS BIGINT) AS total "
        "FROM pragma_storage_info(?)) WHERE longest IS NOT NULL GROUP BY column_name",
        (qualified(name),),
    )
    return {
        column: Lengths(int(longest), int(total or 0), kinds[column] in ("varchar", "blob"))
        for column, longest, total in rows
        if column in kinds
    }


def _may_be_long(native: Any) -> bool:
    return str(native.id) in ("varchar", "blob", "list", "array", "struct", "map", "variant", "geometry")


def _row_bytes(session: Session, name: TableName, rows: int, types: Sequence[tuple[str, Any]]) -> int:
    """Bytes of a row in Arrow, by a sample of three places; by statistics where a sample could be huge."""
    known = lengths(session, name, types)
    if any(c.longest > LONG_CELL_BYTES for c in known.values()):
        return max(sum(c.total for c in known.values()) // rows + 8 * len(types), 1)
    sampled = size = 0
    for start in {0, rows // 2, max(rows - 1024, 0)}:
        sql = f"SELECT * FROM {qualified(name)} WHERE rowid >= {start} AND rowid < {start + 1024}"
        for batch in session.stream(sql, 1024):
            sampled += batch.num_rows
            size += batch.get_total_buffer_size()
    return max(size // sampled, 1) if sampled else 1


# Tags.


def has_tags(session: Session) -> bool:
    return exists(session, TableName(None, TAGS))


class Tag(msgspec.Struct, frozen=True):
    """native: DuckDB's type of the column when it was made. type: the canonical type, where that says
    more. source: the type as the source declared it."""

    native: str
    type: Type | None = None
    source: str | None = None


def read_tags(session: Session, name: TableName) -> tuple[dict[str, Tag], tuple[UserType, ...]]:
    """The tag of each column that has one, and the source's user types."""
    if not has_tags(session):
        return {}, ()
    rows = session.execute(
        f"SELECT column_name, native, type, source FROM {quote(MAIN)}.{TAGS} WHERE schema_name = ? AND table_name = ?",
        (schema_of(name), name.name),
    )
    tags: dict[str, Tag] = {}
    user_types: tuple[UserType, ...] = ()
    try:
        for column, native, text, source in rows:
            if column is None:
                user_types = load(msgspec.json.decode(text), tuple[UserType, ...])
            else:
                kept = msgspec.json.decode(text, type=Type) if text else None
                tags[column] = Tag(native, kept, source.partition(":")[2] if source else None)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"{TAGS} cannot be read: {error}", table=str(name), hint=f"drop {TAGS}") from None
    return tags, user_types


def write_tags(session: Session, name: TableName, tags: dict[str, Tag], user_types: tuple[UserType, ...]) -> None:
    """Replaces the tags of a table."""
    if not (tags or user_types or has_tags(session)):
        return
    session.execute(
        f"CREATE TABLE IF NOT EXISTS {quote(MAIN)}.{TAGS} "
        "(schema_name VARCHAR NOT NULL, table_name VARCHAR NOT NULL, column_name VARCHAR, native VARCHAR, "
        "type VARCHAR, source VARCHAR)"
    )
    forget_tags(session, name)
    insert = f"INSERT INTO {quote(MAIN)}.{TAGS} VALUES (?, ?, ?, ?, ?, ?)"
    place = (schema_of(name), name.name)
    for column, tag in tags.items():
        kept = None if tag.type is None else msgspec.json.encode(dump(tag.type)).decode()
        session.run(insert, (*place, column, tag.native, kept, tag.source))
    if user_types:
        session.run(insert, (*place, None, None, msgspec.json.encode(dump(user_types)).decode(), None))


def forget_tags(session: Session, name: TableName) -> None:
    if has_tags(session):
        session.run(
            f"DELETE FROM {quote(MAIN)}.{TAGS} WHERE schema_name = ? AND table_name = ?", (schema_of(name), name.name)
        )


def move_tags(session: Session, old: TableName, new: TableName) -> None:
    forget_tags(session, new)
    if has_tags(session):
        session.run(
            f"UPDATE {quote(MAIN)}.{TAGS} SET schema_name = ?, table_name = ? WHERE schema_name = ? AND table_name = ?",
            (schema_of(new), new.name, schema_of(old), old.name),
        )
