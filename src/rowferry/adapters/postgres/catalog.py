"""What the database holds, read from pg_catalog: tables, columns, keys, triggers, user types.

All queries run under the pinned empty search_path, so that ``format_type`` and ``pg_get_expr``
write user types with their schema, and operators are pg_catalog's own.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec
from msgspec.structs import replace

from rowferry.adapters.postgres import types
from rowferry.adapters.postgres.quoting import ident, literal, qualified, schema_of, table_name
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.types import TypeRow
from rowferry.adapters.postgres.user_types import user_types
from rowferry.model import STAGING_NAME, Column, ForeignKey, Refusal, Table, TableName
from rowferry.types import Type

#: A default that pg_get_expr writes as one literal, perhaps cast. Anything else may be a function.
LITERAL_DEFAULT = re.compile(
    r"""(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|NULL|E?'(?:[^'\\]|''|\\.)*')"""
    r"""(?:::(?:[a-z_][\w ]*|"(?:[^"]|"")*")(?:\.(?:\w+|"(?:[^"]|"")*"))?"""
    r"""(?:\([\d,]+\))?(?: with(?:out)? time zone)?(?:\[\])?)?""",
    re.S,
)

_RELATIONS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = ANY ('{kinds}') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND n.nspname <> {ledger}
  AND c.relname !~ {staging}
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
ORDER BY n.nspname = 'public' DESC, n.nspname COLLATE "C", c.relname COLLATE "C"
"""

_TABLE = """
SELECT c.oid, c.relkind, coalesce(pg_table_size(c.oid), 0), c.relpersistence = 'u', c.relhastriggers OR c.relhasrules
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ? AND c.relname = ? AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

#: The same of a partitioned table's partitions: bytes, and whether any is unlogged.
_PARTITIONS = """
SELECT coalesce(sum(pg_table_size(u.oid)) FILTER (WHERE i.isleaf), 0)::bigint, bool_or(u.relpersistence = 'u')
FROM pg_partition_tree({oid}) i JOIN pg_class u ON u.oid = i.relid
"""

_COLUMNS = """
SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, format_type(a.atttypid, a.atttypmod),
       a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid),
       CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0
            THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END,
       EXISTS (SELECT FROM pg_depend p JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
               WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

#: What a fingerprint is of, in the places that _COLUMNS has for it; asked before and after each chunk.
_SHAPE = """
SELECT c.oid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, NULL, NULL, a.attgenerated
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = {schema} AND c.relname = {name} ORDER BY a.attnum
"""

#: Only keys that hold at every moment and for every row: not partial, not of expressions, not deferrable.
_KEYS = """
SELECT i.indisprimary, (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
  AND 0 <> ALL (i.indkey::int2[])
  AND (i.indisprimary OR NOT EXISTS (
        SELECT FROM unnest(i.indkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.n <= i.indnkeyatts AND NOT a.attnotnull))
ORDER BY i.indisprimary DESC, i.indnkeyatts, ic.relname COLLATE "C"
"""

_FOREIGN_KEYS = """
SELECT k.conname, (SELECT json_agg(a.attname ORDER BY c.n) FROM unnest(k.conkey) WITH ORDINALITY c(attnum, n)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.attnum), n.nspname, p.relname
FROM pg_constraint k JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
WHERE k.conrelid = {oid} AND k.contype = 'f' ORDER BY k.conname COLLATE "C"
"""

_TRIGGERS = """
WITH tree(oid) AS (SELECT {oid}::oid UNION SELECT relid FROM pg_partition_tree({oid}))
SELECT name, bool_or(state = 'A') FROM (
    SELECT tgname::text, tgenabled FROM pg_trigger JOIN tree ON tgrelid = tree.oid WHERE NOT tgisinternal
    UNION ALL SELECT rulename::text, ev_enabled FROM pg_rewrite JOIN tree ON ev_class = tree.oid
    WHERE rulename <> '_RETURN' AND ev_type <> '1') AS found(name, state)
WHERE state IN ('O', 'A') GROUP BY name ORDER BY name COLLATE "C"
"""

_TYPES = """
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod, t.typelem, t.typrelid,
       t.typsend <> 0 AND t.typreceive <> 0,
       coalesce((SELECT rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid {multirange}), 0)::oid,
       CASE WHEN t.typtype = 'e' THEN
         (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)::text END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
"""


def _type_row(*row: Any) -> TypeRow:
    return TypeRow(*(*row[:-1], tuple(msgspec.json.decode(row[-1])) if row[-1] else ()))


class Catalog:
    """Reads descriptions over one session. ``ledger_schema`` is never listed."""

    def __init__(self, session: Session, ledger_schema: str = "rowferry") -> None:
        self._session = session
        self._ledger_schema = ledger_schema
        self._types: dict[int, TypeRow] = dict(types.OWN)

    def names(self, kinds: str) -> list[TableName]:
        """Relations of user schemas by relkind (``rp``: tables; ``vmf``: views and foreign tables)."""
        sql = _RELATIONS.format(
            kinds="{" + ",".join(kinds) + "}",
            ledger=literal(self._ledger_schema),
            staging=literal(f"^{STAGING_NAME}$"),
        )
        return [table_name(schema, name) for schema, name in self._session.query(sql)]

    def types(self, needed: set[int]) -> dict[int, TypeRow]:
        """pg_type by OID: those of the server's own that are needed (of 600 that there are), and what they are made
        of; or all, where a type of a user's is needed that is not known (it may have been made meanwhile)."""
        while missing := needed - self._types.keys():
            own = all(oid < types.FIRST_USER_OID for oid in missing)
            multirange = "OR r.rngmultitypid = t.oid" if self._session.version >= 14 else ""
            where = f"WHERE t.oid = ANY ('{{{','.join(map(str, sorted(missing)))}}}'::oid[])" if own else ""
            rows = [_type_row(*r) for r in self._session.query(_TYPES.format(multirange=multirange) + where)]
            self._types.update((r.oid, r) for r in rows)
            if not own or len(rows) < len(missing):
                break
            needed = {oid for r in rows for oid in (r.base, r.element, r.range_subtype) if oid}
        return self._types

    def use(self, session: Session) -> None:
        """Goes on over another session of the same database."""
        self._session = session

    def forget_types(self) -> None:
        self._types = dict(types.OWN)

    def describe(self, name: TableName, *, census: bool = False, as_target: bool = False) -> Table | None:
        """The table, or None. census: arrays are looked at. as_target: ``type`` is what can be written."""
        found = self._session.execute(_TABLE, (schema_of(name), name.name))
        if not found:
            return None
        oid, kind, size, unlogged, hooked = found[0]
        if kind == "p":
            size, unlogged = self._session.query(_PARTITIONS.format(oid=oid))[0]
        rows = self._session.query(_COLUMNS.format(oid=oid))
        self.types({r[2] for r in rows})
        columns, arrays = [], []
        for row in rows:
            column, listed = self._column(row, as_target)
            columns.append(column)
            if listed:
                arrays.append(column.name)
        keys = self._session.query(_KEYS.format(oid=oid))
        # A plain table without any says so; of a partitioned one it is the partitions that have them.
        triggers = self._session.query(_TRIGGERS.format(oid=oid)) if hooked or kind != "r" else []
        table = Table(
            name=name,
            columns=tuple(columns),
            primary_key=next((tuple(msgspec.json.decode(k)) for primary, k in keys if primary), ()),
            unique_keys=tuple(tuple(msgspec.json.decode(k)) for primary, k in keys if not primary),
            rows=0 if as_target or not columns else self.estimate(name, kind)[0],
            bytes=size,
            fingerprint=fingerprint(oid, rows),
            kind={"r": "table", "p": "partitioned"}.get(kind, "view"),
            foreign_keys=tuple(
                ForeignKey(k, tuple(msgspec.json.decode(c)), table_name(s, p))
                for k, c, s, p in self._session.query(_FOREIGN_KEYS.format(oid=oid))
            ),
            triggers=tuple(trigger for trigger, _ in triggers),
            triggers_always=tuple(trigger for trigger, always in triggers if always is True),
            user_types=user_types(self._session, self._types, [r[2] for r in rows]),
            volatile=as_target and unlogged is True,
        )
        return self._with_census(table, arrays) if census and arrays else table

    def _column(self, row: tuple[Any, ...], as_target: bool) -> tuple[Column, bool]:
        """A column, and whether its default form is a list (whose arrays a census looks at)."""
        _, name, oid, typmod, not_null, native, identity, generated, default, collation, sequence = row
        base, base_typmod = self._base(oid, typmod)
        base_native = native if base == oid else self._format(base, base_typmod)
        found = types.column_forms(self._types, base, base_typmod, base_native)
        forms = found.forms
        if as_target and types.is_rounding(base, base_typmod):
            # No canonical value goes in unchanged but what already was in such a column.
            forms = tuple(f for f in forms if f.kind == "wire")
        kind = {"a": "always", "d": "by default"}.get(identity) or ("serial" if sequence else None)
        plain = default if default and not generated and LITERAL_DEFAULT.fullmatch(default) else None
        if as_target and default and plain is None and not generated and kind is None:
            plain = default  # only its presence counts there: the column can do without a value
        column = Column(
            name=name,
            type=forms[0],
            nullable=not not_null,
            native=native,
            forms=forms,
            default=plain,
            generated=generated != "",
            identity=kind,
            collation=collation,
        )
        return column, found.is_array

    def _base(self, oid: int, typmod: int) -> tuple[int, int]:
        """The type under all domains, and its typmod."""
        row = self._types[oid]
        while row.kind == "d":
            oid, typmod = row.base, row.base_typmod if row.base_typmod != -1 else typmod
            row = self._types[oid]
        return oid, typmod

    def forms_of(self, oid: int, native: str) -> tuple[Type, ...]:
        """The forms of a column of this type, whose name is ``native``."""
        self.types({oid})
        base, typmod = self._base(oid, types.typmod_of(oid, native))
        return types.column_forms(self._types, base, typmod, self._format(base, typmod)).forms

    def _format(self, oid: int, typmod: int) -> str:
        return str(self._session.query(f"SELECT format_type({oid}, {typmod})")[0][0])

    def estimate(self, name: TableName, kind: str, where: str | None = None) -> tuple[int, int]:
        """Rows and bytes a row, as the planner estimates them: right also where the table was never analysed."""
        condition = f" WHERE ({where}\n)" if where else ""
        sql = f"EXPLAIN (FORMAT JSON) SELECT * FROM {from_clause(name, kind)}{condition}"
        text = self._session.query(sql)[0][0]
        plan = msgspec.json.decode(text)[0]["Plan"]
        return int(plan["Plan Rows"]), int(plan["Plan Width"])

    def _with_census(self, table: Table, arrays: list[str]) -> Table:
        """Counts arrays that are no lists: of several dimensions, or not counted from 1."""
        counts = ", ".join(
            f"count(*) FILTER (WHERE array_ndims({ident(a)}) > 1 OR array_lower({ident(a)}, 1) <> 1)" for a in arrays
        )
        sql = f"SELECT {counts} FROM {from_table(table)}"
        found = dict(zip(arrays, self._session.query(sql)[0], strict=True))
        reason = "arrays of several dimensions, or with a lower bound other than 1, are no lists"
        return replace(
            table,
            columns=tuple(
                replace(c, refusal=Refusal(c.name, reason, found[c.name], ("text", "skip"))) if found.get(c.name) else c
                for c in table.columns
            ),
        )

    def fingerprint(self, name: TableName) -> str:
        """The table's fingerprint now; '' where it is gone."""
        return fingerprint_of(self._session.query(shape_sql(name)))


def shape_sql(name: TableName) -> str:
    """Asks for what :func:`fingerprint_of` takes."""
    return _SHAPE.format(schema=literal(schema_of(name)), name=literal(name.name))


def fingerprint_of(shape: list[tuple[Any, ...]]) -> str:
    """The fingerprint of a table; '' where there is none."""
    return fingerprint(shape[0][0], [row[1:] for row in shape if row[1] is not None]) if shape else ""


def from_clause(name: TableName, kind: str) -> str:
    """The table in FROM. A parent by inheritance gives its own rows alone: its children are tables of
    their own, and each row is copied once. A partitioned table gives all of its partitions' rows."""
    return f"ONLY {qualified(name)}" if kind == "r" else qualified(name)


def from_table(table: Table) -> str:
    return from_clause(table.name, "r" if table.kind == "table" else "p")


def fingerprint(oid: int, columns: list[tuple[Any, ...]]) -> str:
    """Of the relation's OID and its columns' numbers, names, types and nullability."""
    text = repr((oid, [(c[0], c[1], c[2], c[3], c[4], c[7]) for c in columns]))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
