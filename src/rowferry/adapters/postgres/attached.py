"""What a table has beside its columns, by the server's own definitions: for the table that takes its place.

Indexes and constraints are made on the loaded table before the swap, under names that are free, so that nobody
waits for them and what does not hold is found while the old table still stands. The rest (triggers, rules,
policies, rights, comments …) goes over in the swap's own transaction, as it stands then.

Definitions name tables with their schema, since sessions have an empty search_path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from rowferry.adapters.postgres.quoting import ident, literal, qualified, table_name
from rowferry.errors import DataError, RefusedError, RowferryError, TargetError
from rowferry.model import Attachment, Table, TableName

#: Runs a statement on the target's control session.
Query = Callable[[str], list[tuple[Any, ...]]]

_UNKNOWN = "its definition is of a kind that is not known here"
#: What is made before the swap.
EARLY = ("index", "unique constraint", "exclusion constraint", "check constraint", "foreign key")

# The columns that an object hangs on; what hangs on a whole row is not told by name.
_COLUMNS_OF = """
(SELECT coalesce(json_agg(DISTINCT a.attname), '[]')::text FROM pg_depend d JOIN pg_attribute a
 ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.refclassid = 'pg_class'::regclass
 AND d.refobjid = {table}::regclass AND d.refobjsubid > 0 AND d.classid = '{catalog}'::regclass AND d.objid = {oid})
"""
_INDEXES = """
SELECT c.relname, format('CREATE %sINDEX %I ON %s ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname,
                         i.indrelid::regclass),
       pg_get_indexdef(i.indexrelid), i.indisunique, i.indisvalid, {columns}
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = {table}::regclass
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                  AND k.contype IN ('p', 'u', 'x'))
ORDER BY c.relname COLLATE "C"
"""
_CONSTRAINTS = """
SELECT k.conname, k.contype, pg_get_constraintdef(k.oid),
       CASE WHEN k.contype <> 'f' THEN {columns} ELSE
         (SELECT json_agg(a.attname)::text FROM pg_attribute a
          WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)) END,
       format('FOREIGN KEY (%s) REFERENCES ', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.n)
         FROM unnest(k.conkey) WITH ORDINALITY c(attnum, n)
         JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.attnum)), k.confrelid::regclass::text,
       n.nspname, p.relname,
       (SELECT json_agg(a.attname)::text FROM pg_attribute a
        WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)),
       EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = k.conindid AND i.indisprimary)
FROM pg_constraint k LEFT JOIN pg_class p ON p.oid = k.confrelid LEFT JOIN pg_namespace n ON n.oid = p.relnamespace
WHERE k.conrelid = {table}::regclass AND k.contype IN ('u', 'x', 'c', 'f')
ORDER BY k.contype = 'f', k.conname COLLATE "C"
"""
_CONSTRAINT_KINDS = {
    "u": "unique constraint", "x": "exclusion constraint", "c": "check constraint", "f": "foreign key"
}  # fmt: skip

# Each gives (name, statements that make it again under the table's own name, columns it hangs on as JSON).
_TRIGGERS = """
SELECT t.tgname, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE
         format('; ALTER TABLE %s %s TRIGGER %I', t.tgrelid::regclass,
                CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                t.tgname) END, {columns}
FROM pg_trigger t WHERE t.tgrelid = {table}::regclass AND NOT t.tgisinternal ORDER BY 1
"""
_RULES = """
SELECT r.rulename, rtrim(pg_get_ruledef(r.oid), '; ') || CASE r.ev_enabled WHEN 'O' THEN '' ELSE
         format('; ALTER TABLE %s %s RULE %I', r.ev_class::regclass,
                CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                r.rulename) END, {columns}
FROM pg_rewrite r WHERE r.ev_class = {table}::regclass AND r.rulename <> '_RETURN' ORDER BY 1
"""
_POLICIES = """
SELECT p.polname, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, p.polrelid::regclass,
         CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
         CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
           ELSE 'ALL' END,
         (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
          FROM unnest(p.polroles) r),
         ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
         ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'), {columns}
FROM pg_policy p WHERE p.polrelid = {table}::regclass ORDER BY 1
"""
_ROW_SECURITY = """
SELECT v.what, format('ALTER TABLE %s %s ROW LEVEL SECURITY', c.oid::regclass, v.what), '[]'
FROM pg_class c
CROSS JOIN LATERAL (VALUES ('ENABLE', c.relrowsecurity), ('FORCE', c.relforcerowsecurity)) v(what, is_on)
WHERE c.oid = {table}::regclass AND v.is_on
"""
_STATISTICS = """
SELECT s.stxname, pg_get_statisticsobjdef(s.oid), {columns}
FROM pg_statistic_ext s WHERE s.stxrelid = {table}::regclass ORDER BY 1
"""
_OPTIONS = """
SELECT split_part(o, '=', 1), format('ALTER TABLE %s SET (%s = %L)', c.oid::regclass, split_part(o, '=', 1),
                                     substr(o, strpos(o, '=') + 1)), '[]'
FROM pg_class c CROSS JOIN LATERAL unnest(c.reloptions) o WHERE c.oid = {table}::regclass
UNION ALL
SELECT 'FULL or NOTHING', format('ALTER TABLE %s REPLICA IDENTITY %s', c.oid::regclass,
                     CASE c.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END), '[]'
FROM pg_class c WHERE c.oid = {table}::regclass AND c.relreplident IN ('f', 'n')
UNION ALL
SELECT x.relname, format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', c.oid::regclass, x.relname), '[]'
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident JOIN pg_class x ON x.oid = i.indexrelid
WHERE c.oid = {table}::regclass AND c.relreplident = 'i'
"""
_PUBLICATIONS = """
SELECT p.pubname, format('ALTER PUBLICATION %I ADD TABLE ONLY %s', p.pubname, r.prrelid::regclass), '[]', {narrowed}
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = {table}::regclass ORDER BY 1
"""
_GRANTS = """
SELECT CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
       format('GRANT %s%s ON %s TO %s%s', g.privilege_type, ' (' || quote_ident(o.attname) || ')', {table}::regclass,
              CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
              CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END),
       CASE WHEN o.attname IS NULL THEN '[]' ELSE json_build_array(o.attname)::text END
FROM (SELECT c.relacl AS acl, c.relowner, NULL::name AS attname FROM pg_class c WHERE c.oid = {table}::regclass
      UNION ALL SELECT a.attacl, c.relowner, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      WHERE a.attrelid = {table}::regclass AND a.attnum > 0 AND NOT a.attisdropped) o
CROSS JOIN LATERAL aclexplode(o.acl) g WHERE g.grantee <> o.relowner ORDER BY 1, 2
"""
_COMMENTS = """
SELECT coalesce(a.attname, c.relname), CASE WHEN a.attname IS NULL
         THEN format('COMMENT ON TABLE %s IS %L', c.oid::regclass, d.description)
         ELSE format('COMMENT ON COLUMN %s.%I IS %L', c.oid::regclass, a.attname, d.description) END,
       CASE WHEN a.attname IS NULL THEN '[]' ELSE json_build_array(a.attname)::text END
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
WHERE d.classoid = 'pg_class'::regclass AND d.objoid = {table}::regclass
UNION ALL
SELECT x.relname, format('COMMENT ON INDEX %I.%I IS %L', n.nspname, x.relname, d.description), '[]'
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = x.oid
WHERE i.indrelid = {table}::regclass AND NOT i.indisprimary
UNION ALL
SELECT k.conname, format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, k.conrelid::regclass, d.description), '[]'
FROM pg_constraint k JOIN pg_description d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = k.oid
WHERE k.conrelid = {table}::regclass AND k.contype IN ('u', 'x', 'c', 'f')
UNION ALL
SELECT t.tgname, format('COMMENT ON TRIGGER %I ON %s IS %L', t.tgname, t.tgrelid::regclass, d.description), '[]'
FROM pg_trigger t JOIN pg_description d ON d.classoid = 'pg_trigger'::regclass AND d.objoid = t.oid
WHERE t.tgrelid = {table}::regclass AND NOT t.tgisinternal
"""
_OWNER = """
SELECT pg_get_userbyid(c.relowner), format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, pg_get_userbyid(c.relowner)),
       '[]', pg_has_role(c.relowner, 'MEMBER')
FROM pg_class c WHERE c.oid = {table}::regclass AND pg_get_userbyid(c.relowner) <> current_user
"""
_KIND = """
SELECT c.relkind = 'p', c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid),
       (SELECT k.conname FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
FROM pg_class c WHERE c.oid = {table}::regclass
"""
#: In the order in which they go over; the owner last, who may do what we may not any more.
_LATE = (
    ("trigger", _TRIGGERS, "pg_trigger", "t.oid"),
    ("rule", _RULES, "pg_rewrite", "r.oid"),
    ("policy", _POLICIES, "pg_policy", "p.oid"),
    ("row level security", _ROW_SECURITY, "", ""),
    ("statistics", _STATISTICS, "pg_statistic_ext", "s.oid"),
    ("setting", _OPTIONS, "", ""),
    ("comment on", _COMMENTS, "", ""),
    ("right of", _GRANTS, "", ""),
)


class Attachments:
    """Reads and makes them over the target's control session, which pins an empty search_path."""

    def __init__(self, query: Query, version: int) -> None:
        self._query = query
        self._version = version

    def of(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        """The protocol's Target.attachments."""
        partitioned, child, _ = self._query(_KIND.format(table=literal(qualified(table.name))))[0]
        if partitioned is True:
            reason = "the table that takes its place would be a plain one"
            return [Attachment("partitioning", table.name.name, problem=reason)]
        if child is True:
            reason = "the table that takes its place would stand by itself"
            return [Attachment("inheritance", table.name.name, problem=reason)]
        return [*self.early(table, together), *self.late(table)]

    # -- what is made before the swap

    def early(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        """Indexes and constraints, those that foreign keys may need first."""
        have = {c.name for c in table.columns}
        return [*self._indexes(table.name, have), *self._constraints(table, together, have)]

    def _indexes(self, name: TableName, have: set[str]) -> list[Attachment]:
        out = []
        for index, head, whole, unique, valid, columns in self._query(_filled(_INDEXES, name, "pg_class", "c.oid")):
            kind = "CREATE UNIQUE INDEX" if unique is True else "CREATE INDEX"
            found = Attachment("index", str(index), str(whole)[len(str(head)) :], kind)
            if valid is not True:
                found = msgspec.structs.replace(found, problem="it is not valid, so that no query uses it", minor=True)
            elif not str(whole).startswith(str(head)):
                found = msgspec.structs.replace(found, problem=_UNKNOWN)
            else:
                found = found.of_columns(_names(columns), have)
            out.append(found)
        return out

    def _constraints(self, table: Table, together: Mapping[TableName, Table], have: set[str]) -> list[Attachment]:
        out = []
        rows = self._query(_filled(_CONSTRAINTS, table.name, "pg_constraint", "k.oid"))
        for name, kind, whole, columns, head, place, schema, parent, referred, by_key in rows:
            found = Attachment(_CONSTRAINT_KINDS[kind], str(name), str(whole))
            if kind == "f":
                start = f"{head}{place}"
                named = table_name(str(schema), str(parent))
                problem = _unreferable(named, _names(referred), by_key is True, together)
                if not str(whole).startswith(start):
                    problem = _UNKNOWN
                found = Attachment("foreign key", str(name), str(whole)[len(start) :], str(head), named, problem)
            out.append(found.of_columns(_names(columns), have))
        return out

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """Makes indexes and constraints on the loaded table; in the caller's transaction.

        trial: only to see that they can be made of its columns (foreign keys apart, whose parents have no keys yet).
        Raises RefusedError then; else what the server says of the rows, with the name of what they break.
        """
        if trial:
            self._query("SAVEPOINT rowferry_trial")
        else:
            # With the default of 64 MB the keys of two million rows are sorted on disk.
            self._query(
                "SELECT set_config('maintenance_work_mem', greatest(setting::bigint, 262144)::text || 'kB', true) "
                "FROM pg_settings WHERE name = 'maintenance_work_mem'"
            )
        for number, attachment in enumerate(table.attachments):
            if attachment.kind in EARLY and not (trial and attachment.kind == "foreign key"):
                try:
                    self._query(_made(attachment, number, loaded, places))
                except RowferryError as error:
                    raise _about(error, attachment, table.name, trial) from None
        if trial:
            self._query("ROLLBACK TO SAVEPOINT rowferry_trial")

    # -- what goes over in the swap

    def late(self, table: Table) -> list[Attachment]:
        """Triggers, rules, policies, settings, comments, rights, publications, the owner."""
        have = {c.name for c in table.columns}
        out = []
        for kind, sql, catalog, oid in _LATE:
            for name, statement, columns in self._query(_filled(sql, table.name, catalog, oid)):
                found = Attachment(kind, str(name), str(statement)).of_columns(_names(columns), have)
                if found.problem is None or kind not in ("comment on", "right of"):
                    out.append(found)  # what is said of a column goes with the column, without a word
        narrowed = "r.prqual IS NOT NULL OR r.prattrs IS NOT NULL" if self._version >= 15 else "false"
        for name, statement, _, part in self._query(_filled(_PUBLICATIONS, table.name, narrowed=narrowed)):
            problem = "it publishes some of the columns or rows only" if part is True else None
            out.append(Attachment("place in publication", str(name), str(statement), problem=problem))
        for name, statement, _, member in self._query(_filled(_OWNER, table.name)):
            problem = None if member is True else "this user is not a member of that role"
            out.append(Attachment("owner", str(name), str(statement), problem=problem, minor=True))
        return out

    def key_name(self, name: TableName) -> str | None:
        """What the primary key's constraint is called."""
        found = self._query(_KIND.format(table=literal(qualified(name))))[0][2]
        return None if found is None else str(found)

    def settle(
        self, attachments: Sequence[Attachment], late: Sequence[Attachment], loaded: TableName, name: TableName
    ) -> None:
        """The table has its own name now: what was made before gets its own too, and the rest is made."""
        for number, attachment in enumerate(attachments):
            aside = _aside(loaded, number)
            if attachment.kind == "index":
                place = qualified(TableName(name.schema, aside))
                self._query(f"ALTER INDEX {place} RENAME TO {ident(attachment.name)}")
            elif attachment.kind in ("unique constraint", "exclusion constraint"):
                to = ident(attachment.name)
                self._query(f"ALTER TABLE {qualified(name)} RENAME CONSTRAINT {ident(aside)} TO {to}")
        for attachment in late:
            if attachment.problem is None:
                try:
                    self._query(attachment.definition)
                except RowferryError as error:
                    raise _about(error, attachment, name, False) from None

    def lost(self, table: Table, known: Sequence[Attachment]) -> list[str]:
        """What stands on the old table now and was not there, or was another, when the plan was made."""
        planned = {(a.kind, a.name, a.definition) for a in known}
        early = [a for a in self.early(table, {}) if not a.minor and (a.kind, a.name, a.definition) not in planned]
        return [str(a) for a in (*early, *(a for a in self.late(table) if a.problem and not a.minor))]


def _filled(sql: str, name: TableName, catalog: str = "", oid: str = "", narrowed: str = "") -> str:
    table = literal(qualified(name))
    columns = _COLUMNS_OF.format(table=table, catalog=catalog, oid=oid) if catalog else ""
    return sql.format(table=table, columns=columns, narrowed=narrowed)


def _names(listed: Any) -> list[str]:
    return list(msgspec.json.decode(listed or "[]", type=list[str]))


def _unreferable(
    parent: TableName, columns: list[str], by_key: bool, together: Mapping[TableName, Table]
) -> str | None:
    """Why a foreign key could not point to its parent, where that is replaced too. by_key: to its primary key."""
    table = together.get(parent)
    if table is None:
        return None
    lacking = not set(columns) <= {c.name for c in table.columns}
    if lacking or (by_key and set(columns) != set(table.primary_key)):
        return (
            f"it points to ({', '.join(columns)}) of {str(parent)!r}, which is no key of the table that replaces that"
        )
    return None


def _aside(loaded: TableName, number: int) -> str:
    """A free name for what is made before the swap."""
    return f"{loaded.name}_a{number}"


def _made(attachment: Attachment, number: int, loaded: TableName, places: Mapping[TableName, TableName]) -> str:
    """The statement that makes an index or a constraint on the loaded table. The names of indexes (and of the
    constraints that have one) are shared by a schema's tables, so that theirs are still taken."""
    aside, table = ident(_aside(loaded, number)), qualified(loaded)
    match attachment.kind:
        case "index":
            return f"{attachment.head} {aside} ON {table} {attachment.definition}"
        case "unique constraint" | "exclusion constraint":
            return f"ALTER TABLE {table} ADD CONSTRAINT {aside} {attachment.definition}"
    start = f"ALTER TABLE {table} ADD CONSTRAINT {ident(attachment.name)} "
    if attachment.parent is None:
        return start + attachment.definition
    parent = qualified(places.get(attachment.parent, attachment.parent))
    return f"{start}{attachment.head}{parent}{attachment.definition}"


def _about(error: RowferryError, attachment: Attachment, name: TableName, trial: bool) -> RowferryError:
    if error.transient:
        return error
    message = f"its {attachment} cannot be made on the table that takes its place: {error.message}"
    kind = RefusedError if trial else DataError if isinstance(error, DataError) else TargetError
    hint = "drop it first, or choose --mode truncate, which keeps the table as it is"
    return kind(message, table=str(name), code=error.code, hint=hint)
