"""What the database holds, read from information_schema: tables, columns, keys, triggers.

All queries run in the pinned session (``session.py``). A TableName without a schema is in the
session's own database.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from rowferry.adapters.mysql import counting, defaults, tags
from rowferry.adapters.mysql.declared import PREFIX, SPATIAL, TEXT_NAMES, Declared, forms_of, parse, rounds
from rowferry.adapters.mysql.quoting import qualified, quote
from rowferry.adapters.mysql.session import Flavour, MysqlSession
from rowferry.model import Column, ForeignKey, Table, TableName, is_own
from rowferry.types import Type

SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")
#: MariaDB's tables with history are listed as a kind of their own; sequences are no tables of rows.
_TABLE_KINDS = ("BASE TABLE", "SYSTEM VERSIONED")
_VIEW_KINDS = ("VIEW",)
#: A collation that compares the bytes, and all of them: no padding, no two spellings of one character.
_BYTEWISE = re.compile(r"\w+_nopad_bin|utf8mb4_0900_bin|binary")

_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_type IN ({kinds}) AND {where} ORDER BY table_schema, table_name
"""
_TABLE = """
SELECT table_name, table_type, table_rows, data_length, create_time, create_options, engine
FROM information_schema.tables
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND table_type <> 'SEQUENCE'
"""
_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, extra, character_set_name, collation_name,
       generation_expression
FROM information_schema.columns
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? ORDER BY ordinal_position
"""
_JSON_CHECKS = """
SELECT check_clause FROM information_schema.check_constraints
WHERE constraint_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
_SRIDS = """
SELECT column_name, srs_id FROM information_schema.st_geometry_columns
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
_MARIADB_SRIDS = """
SELECT g_geometry_column, srid FROM information_schema.geometry_columns
WHERE g_table_schema = coalesce(?, DATABASE()) AND g_table_name = ?
"""
_KEYS = """
SELECT index_name, column_name, sub_part FROM information_schema.statistics
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND non_unique = 0
ORDER BY index_name, seq_in_index
"""
_FOREIGN_KEYS = """
SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name, DATABASE()
FROM information_schema.key_column_usage
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND referenced_table_name IS NOT NULL
ORDER BY constraint_name, ordinal_position
"""
_REFERENCES = """
SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name, referenced_column_name
FROM information_schema.key_column_usage
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND referenced_table_name IS NOT NULL
ORDER BY constraint_name, ordinal_position
"""
_TRIGGERS = """
SELECT trigger_name FROM information_schema.triggers
WHERE event_object_schema = coalesce(?, DATABASE()) AND event_object_table = ? ORDER BY 1
"""


def list_tables(session: MysqlSession, database: str | None) -> list[TableName]:
    """Base tables of ``database`` (without its name), rowferry's own left out; of all user databases for None."""
    return _listed(session, database, _TABLE_KINDS)


def list_views(session: MysqlSession, database: str | None) -> list[TableName]:
    return _listed(session, database, _VIEW_KINDS)


def _listed(session: MysqlSession, database: str | None, kinds: tuple[str, ...]) -> list[TableName]:
    where = "table_schema = ?" if database is not None else f"table_schema NOT IN ({', '.join('?' * 4)})"
    sql = _TABLES.format(kinds=", ".join(f"'{k}'" for k in kinds), where=where)
    rows = session.execute(sql, SYSTEM_DATABASES if database is None else (database,))
    names = (TableName(None if database is not None else str(schema), str(name)) for schema, name in rows)
    return sorted((n for n in names if not is_own(n.name)), key=lambda n: (n.schema or "", n.name))


class _Shape(msgspec.Struct, frozen=True):
    """A table's rows of information_schema. ``name`` as the server spells it."""

    name: str
    kind: str
    rows: int
    bytes: int
    created: str
    engine: str
    partitioned: bool
    columns: tuple[tuple[Any, ...], ...]

    @property
    def fingerprint(self) -> str:
        """Of names, types, nullability and what is generated; and, where a table has no snapshots, of the moment
        when it was made or altered. InnoDB itself refuses to read a table that was made anew under an older
        snapshot, and a new index, which changes that moment, too, is no reason to stop."""
        parts = [(c[1], c[2], c[3], c[6], c[7], is_generated(str(c[5]), c[8])) for c in self.columns]
        created = "" if self.engine == "InnoDB" else self.created
        return hashlib.blake2b(repr((self.name, created, parts)).encode(), digest_size=16).hexdigest()


def _shape(session: MysqlSession, name: TableName) -> _Shape | None:
    place = (name.schema, name.name)
    found = [row for row in session.execute(_TABLE, place) if _same_name(session, str(row[0]), name.name)]
    if not found:
        return None
    real, kind, rows, size, created, options, engine = found[0]
    columns = tuple(row for row in session.execute(_COLUMNS, place) if row[0] == real)
    if not columns:
        return None
    return _Shape(
        str(real),
        "view" if kind in _VIEW_KINDS else "table",
        int(rows or 0),
        int(size or 0),
        str(created),
        str(engine),
        "partitioned" in str(options or ""),
        columns,
    )


def _same_name(session: MysqlSession, real: str, asked: str) -> bool:
    """information_schema may compare names loosely; the server itself does so only where it is told to."""
    if session.variables.get("lower_case_table_names", "0") == "0":
        return real == asked
    return real.lower() == asked.lower()


def triggers(session: MysqlSession, name: TableName) -> tuple[str, ...]:
    """Names of the table's triggers, as far as this user may see them."""
    return tuple(str(row[0]) for row in session.execute(_TRIGGERS, (name.schema, name.name)))


def fingerprint(session: MysqlSession, name: TableName) -> str:
    """Changes when the columns do, or the table is dropped and made anew; '' where there is none."""
    shape = _shape(session, name)
    return "" if shape is None else shape.fingerprint


def describe(session: MysqlSession, name: TableName, *, census: bool = False, as_target: bool = False) -> Table | None:
    """The table or view; None where there is none of exactly this name.

    census: columns whose default form does not hold every value have a refusal with its count.
    as_target: ``Column.type`` is what can be written so that it comes back. Raises the session's error where
    the table may not be read.
    """
    shape = _shape(session, name)
    if shape is None:
        return None
    if not as_target:
        # Columns that this user may not read are not in information_schema at all: a table is read whole or not.
        session.query(f"SELECT * FROM {qualified(name)} LIMIT 0")
    place = (name.schema, shape.name)
    known = tags.read(session, name)
    jsons = _json_columns(session, place)
    srids = _srids(session, place, shape)
    columns = []
    for row in shape.columns:
        native = declared(row, row[1] in jsons, srids.get(str(row[1]), ""))
        columns.append(_column(session.flavour, row, native, known.get(str(row[1])), as_target))
    keys = _keys(session, place, {c.name for c in columns if not c.nullable})
    table = Table(
        name=name,
        columns=tuple(columns),
        primary_key=keys.pop("PRIMARY", ()),
        unique_keys=tuple(keys.values()),
        rows=shape.rows,
        bytes=shape.bytes,
        fingerprint=shape.fingerprint,
        kind="partitioned" if shape.partitioned else shape.kind,
        foreign_keys=_foreign_keys(session, place),
        triggers=triggers(session, TableName(*place)),
        volatile=as_target and shape.engine == "MEMORY",
    )
    return counting.looked_at(table, session) if census else table


def collations(session: MysqlSession) -> frozenset[str]:
    """The names of all collations that the server has."""
    table, column = "collations", "collation_name"
    if session.flavour.mariadb and session.flavour.version >= (10, 10, 0):
        # Those of many character sets stand in the other table without the set's name.
        table, column = "collation_character_set_applicability", "full_collation_name"
    return frozenset(str(row[0]) for row in session.query(f"SELECT {column} FROM information_schema.{table}"))


def declared(row: tuple[Any, ...], json: bool = False, srid: str = "") -> str:
    """A column's type as this adapter spells it: information_schema's, with the character set and collation
    said outright, and ``json`` for MariaDB's alias of a LONGTEXT."""
    column_type, charset, collation = str(row[2]), row[6], row[7]
    # MariaDB adds comments to the types of old files: mysql-5.3, and those of its own plugins.
    native = re.sub(r" /\*.*?\*/", "", column_type)
    if json and native == "longtext" and collation == "utf8mb4_bin":
        return "json"
    if charset is not None and native != "json":
        native += f" CHARACTER SET {charset} COLLATE {collation}"
    return native + srid


def _column(flavour: Flavour, row: tuple[Any, ...], native: str, tag: tags.Tag | None, as_target: bool) -> Column:
    _, name, _, nullable, default, extra, _, collation, expression = row
    d = parse(native)
    forms = (Type("opaque", native=PREFIX + native),) if d is None else forms_of(d, flavour.mariadb)
    if tag is not None and tags.same_native(tag.native, native):
        forms = (tag.type, *(f for f in forms if f != tag.type))
        kind = tag.type
    else:
        kind = written_type(d, forms[0], native) if as_target and d is not None else forms[0]
    generated = is_generated(str(extra), expression)
    plain = None if generated else defaults.plain(default, str(extra), d, flavour.mariadb)
    if as_target and plain is None and default not in (None, "NULL") and not generated:
        plain = str(default)  # only its presence counts there: the column can do without a value
    return Column(
        name=str(name),
        type=kind,
        nullable=nullable == "YES",
        native=native,
        forms=forms,
        default=plain,
        generated=generated,
        identity="auto" if "auto_increment" in str(extra).lower() else None,
        collation=_loose(d, collation),
    )


def written_type(d: Declared, kind: Type, native: str) -> Type:
    """What a column that was there before takes, so that the same value comes back."""
    if rounds(d) or (d.name == "enum" and kind.kind == "text"):
        # No canonical value goes in unchanged but what came out of such a column.
        return Type("wire", native=PREFIX + native)
    if d.name == "set":
        return Type("list", element=Type("enum", labels=d.labels))
    return kind


def _loose(d: Declared | None, collation: Any) -> str | None:
    """A column's collation, where it is not the comparison of all bytes; ENUMs compare by number."""
    if collation is None or d is None or d.name not in TEXT_NAMES:
        return None
    return None if _BYTEWISE.fullmatch(str(collation)) else str(collation)


def is_generated(extra: str, expression: Any) -> bool:
    # MySQL's DEFAULT_GENERATED is a default that is an expression: such a column is written as any other.
    return bool(expression) or re.search(r"\b(?:STORED|VIRTUAL|PERSISTENT) GENERATED\b", extra) is not None


def _json_columns(session: MysqlSession, place: tuple[str | None, str]) -> set[str]:
    """MariaDB's JSON is LONGTEXT with a check."""
    if not session.flavour.mariadb or session.flavour.version < (10, 4, 3):
        return set()
    clauses = (
        re.fullmatch(r"json_valid\(`((?:[^`]|``)+)`\)", str(row[0])) for row in session.execute(_JSON_CHECKS, place)
    )
    return {match[1].replace("``", "`") for match in clauses if match}


def _srids(session: MysqlSession, place: tuple[str | None, str], shape: _Shape) -> dict[str, str]:
    """How spatial columns that are bound to one reference system say so in DDL."""
    if not any(str(row[2]).partition("(")[0] in SPATIAL for row in shape.columns):
        return {}
    if session.flavour.mariadb:
        return {
            str(column): f" REF_SYSTEM_ID={srid}" for column, srid in session.execute(_MARIADB_SRIDS, place) if srid
        }
    return {str(column): f" SRID {srid}" for column, srid in session.execute(_SRIDS, place) if srid is not None}


def _keys(session: MysqlSession, place: tuple[str | None, str], required: set[str]) -> dict[str, tuple[str, ...]]:
    """Unique keys by name whose columns are all whole (no prefix, no expression) and NOT NULL."""
    parts: dict[str, list[tuple[str | None, Any]]] = {}
    for index, column, prefix in session.execute(_KEYS, place):
        parts.setdefault(str(index), []).append((None if column is None else str(column), prefix))
    return {
        index: tuple(str(column) for column, _ in columns)
        for index, columns in parts.items()
        if all(column in required and prefix is None for column, prefix in columns)
    }


def orphans(session: MysqlSession, name: TableName) -> list[str]:
    """Of a table with a foreign key to itself, whose keys are not checked while rows arrive: how many rows have no
    parent, by foreign key and in words. Nothing for any other table."""
    keys: dict[str, tuple[TableName, list[tuple[str, str]]]] = {}
    for constraint, column, schema, parent, referenced in session.execute(_REFERENCES, (name.schema, name.name)):
        pointed = TableName(str(schema), str(parent))
        keys.setdefault(str(constraint), (pointed, []))[1].append((str(column), str(referenced)))
    here = str(session.query("SELECT DATABASE()")[0][0])
    if all(parent != TableName(name.schema or here, name.name) for parent, _ in keys.values()):
        return []
    found = []
    for constraint, (parent, columns) in keys.items():
        given = " AND ".join(f"NOT ISNULL(c.{quote(column)})" for column, _ in columns)
        same = " AND ".join(f"p.{quote(theirs)} = c.{quote(ours)}" for ours, theirs in columns)
        sql = f"SELECT COUNT(*) FROM {qualified(name)} c WHERE {given} "
        sql += f"AND NOT EXISTS (SELECT 1 FROM {qualified(parent)} p WHERE {same})"
        if count := int(session.query(sql)[0][0]):
            found.append(f"{count:,} rows have no parent in {parent.name!r} (foreign key {constraint})")
    return found


def _foreign_keys(session: MysqlSession, place: tuple[str | None, str]) -> tuple[ForeignKey, ...]:
    found: dict[str, tuple[TableName, list[str]]] = {}
    for constraint, column, schema, parent, here in session.execute(_FOREIGN_KEYS, place):
        name = TableName(None if schema == here else str(schema), str(parent))
        found.setdefault(str(constraint), (name, []))[1].append(str(column))
    return tuple(ForeignKey(k, tuple(columns), parent) for k, (parent, columns) in found.items())
