"""What hangs on a table: with it a table can be neither dropped nor emptied, as little by us as by psql."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rowferry.adapters.postgres.quoting import literal, qualified, table_name
from rowferry.model import TableName

#: Runs a query on the target's control session.
Query = Callable[[str], list[tuple[Any, ...]]]

# A view hangs on its table by its rule: "rule _RETURN on view v" is view v. A key of a partition counts as its root's.
_DEPENDENTS = """
SELECT DISTINCT regexp_replace(pg_describe_object(d.classid, d.objid, 0), '^rule .?_RETURN.? on ', ''),
       n.nspname, c.relname
FROM pg_depend d
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_class c ON c.oid = coalesce(pg_partition_root(k.conrelid), k.conrelid)
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {table}::regclass AND d.deptype = 'n'
  AND d.classid IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass, 'pg_class'::regclass)
  AND k.conrelid IS DISTINCT FROM d.refobjid
  AND NOT (d.classid = 'pg_rewrite'::regclass
           AND EXISTS (SELECT FROM pg_rewrite w WHERE w.oid = d.objid AND w.ev_class = d.refobjid))
ORDER BY 1
"""
_REFERENCING = """
SELECT DISTINCT n.nspname, c.relname, r.nspname, t.relname, has_table_privilege(c.oid, 'SELECT')
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class t ON t.oid = coalesce(pg_partition_root(k.conrelid), k.conrelid)
JOIN pg_namespace r ON r.oid = t.relnamespace
WHERE k.contype = 'f' AND k.confrelid <> k.conrelid AND k.confrelid = {table}::regclass ORDER BY 1, 2
"""


def dependents(query: Query, name: TableName, together: Collection[TableName] = ()) -> list[str]:
    """The views, functions, inheriting tables and foreign keys of other tables without which the table cannot go.
    Keys of the tables ``together`` do not count: they go with those."""
    rows = query(_DEPENDENTS.format(table=literal(qualified(name))))
    return [text for text, schema, table in rows if table is None or table_name(schema, table) not in together]


def referencing(query: Query, name: TableName) -> list[tuple[TableName, TableName, bool]]:
    """The tables whose foreign keys point to the table: each, the root it is a partition of (or itself), and
    whether it may be read."""
    rows = query(_REFERENCING.format(table=literal(qualified(name))))
    return [(table_name(s, c), table_name(r, t), readable is True) for s, c, r, t, readable in rows]


def obstacles(query: Query, name: TableName, mode: str, together: Collection[TableName]) -> list[str]:
    """The protocol's Target.obstacles."""
    if mode == "replace":
        found = dependents(query, name, together)
        if not found:
            return []
        return [f"on it depend {', '.join(found)}, which cannot do without it; --mode truncate keeps them"]
    out = []
    for child, root, readable in referencing(query, name):
        if root in together:
            continue
        if not readable:
            out.append(f"a foreign key of {str(child)!r} points to it, and the rows there may not be read")
        elif query(f"SELECT EXISTS (SELECT FROM {qualified(child)})")[0][0] is True:
            out.append(
                f"rows of {str(child)!r} point to it by a foreign key, so it cannot be emptied; copy that table in "
                "the same job, empty it first, or choose --mode upsert"
            )
    return out
