"""DDL of the enums, domains, composites and ranges that columns need, in an order in which it can run."""

from __future__ import annotations

from rowferry.adapters.postgres.quoting import ident, literal
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.types import FIRST_USER_OID, TypeRow
from rowferry.model import UserType

_ATTRIBUTES = """
SELECT a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0
            THEN quote_ident(n.nspname) || '.' || quote_ident(c.collname) END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE a.attrelid = {relation} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

_DOMAIN = """
SELECT format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
       CASE WHEN t.typcollation <> b.typcollation AND t.typcollation <> 0
            THEN quote_ident(n.nspname) || '.' || quote_ident(c.collname) END
FROM pg_type t JOIN pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_collation c ON c.oid = t.typcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE t.oid = {oid}
"""

_CHECKS = """
SELECT quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
WHERE contypid = {oid} AND contype = 'c' ORDER BY conname COLLATE "C"
"""

_EXTENSION = """
SELECT e.extname, n.nspname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE d.classid = 'pg_type'::regclass AND d.objid = {oid} AND d.deptype = 'e'
"""


def user_types(session: Session, types: dict[int, TypeRow], oids: list[int]) -> tuple[UserType, ...]:
    """What has to exist before a table with columns of these types can be made."""
    out: dict[int, UserType] = {}
    for oid in oids:
        _add(session, types, oid, out)
    return tuple(dict.fromkeys(out.values()))


def _add(session: Session, types: dict[int, TypeRow], oid: int, out: dict[int, UserType]) -> None:
    if oid < FIRST_USER_OID or oid in out:
        return
    row = types[oid]
    if row.kind == "b" and row.element:
        _add(session, types, row.element, out)
        return
    extension = session.query(_EXTENSION.format(oid=oid))
    name = f"{ident(row.schema)}.{ident(row.name)}"
    if extension:
        extension_name, schema = extension[0]
        sql = f"CREATE EXTENSION IF NOT EXISTS {ident(extension_name)} WITH SCHEMA {ident(schema)}"
        out[oid] = UserType(name, "extension", sql)
    elif row.kind == "e":
        labels = ", ".join(literal(label) for label in row.labels)
        out[oid] = UserType(name, "enum", f"CREATE TYPE {name} AS ENUM ({labels})")
    elif row.kind == "d":
        _add(session, types, row.base, out)
        out[oid] = UserType(name, "domain", _domain(session, oid, name))
    elif row.kind == "c":
        attributes = session.query(_ATTRIBUTES.format(relation=row.relation))
        for _, type_oid, _, _ in attributes:
            _add(session, types, type_oid, out)
        parts = ", ".join(f"{ident(n)} {t}{_collate(c)}" for n, _, t, c in attributes)
        out[oid] = UserType(name, "composite", f"CREATE TYPE {name} AS ({parts})")
    elif row.kind in ("r", "m"):
        _add(session, types, row.range_subtype, out)
        _add_range(session, oid, out)


def _domain(session: Session, oid: int, name: str) -> str:
    base, not_null, default, collation = session.query(_DOMAIN.format(oid=oid))[0]
    sql = f"CREATE DOMAIN {name} AS {base}{_collate(collation)}"
    if default is not None:
        sql += f" DEFAULT {default}"
    for constraint, definition in session.query(_CHECKS.format(oid=oid)):
        sql += f" CONSTRAINT {constraint} {definition}"
    return sql + (" NOT NULL" if not_null else "")


def _add_range(session: Session, oid: int, out: dict[int, UserType]) -> None:
    """A range and its multirange are made by one statement."""
    multirange = ", r.rngmultitypid" if session.version >= 14 else ", 0::oid"
    where = f"r.rngtypid = {oid}" + (f" OR r.rngmultitypid = {oid}" if session.version >= 14 else "")
    range_oid, subtype, name, multirange_oid = session.query(
        "SELECT r.rngtypid, format_type(r.rngsubtype, NULL), "
        "quote_ident(n.nspname) || '.' || quote_ident(t.typname)" + multirange + " FROM pg_range r "
        f"JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {where}"
    )[0]
    made = UserType(str(name), "range", f"CREATE TYPE {name} AS RANGE (subtype = {subtype})")
    out[range_oid] = made
    if multirange_oid:
        out[multirange_oid] = made


def _collate(collation: str | None) -> str:
    return f" COLLATE {collation}" if collation else ""
