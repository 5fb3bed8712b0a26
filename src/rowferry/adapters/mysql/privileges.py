"""What the user may do, from SHOW GRANTS: its own privileges and those of the roles that are active."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from rowferry.adapters.mysql.session import MysqlSession
from rowferry.model import Table, TableName

_NAME = r"(?:\*|`(?:[^`]|``)+`)"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?({_NAME})\.({_NAME}) (?:TO|FROM) ", re.S)
_COLUMNS = re.compile(r"\s*\([^)]*\)")
#: Who may write on a server that is read-only for all others.
_READ_ONLY_PASSES = ("SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN")


class Grant(msgspec.Struct, frozen=True):
    """database and table: patterns; None for all."""

    privileges: frozenset[str]
    database: str | None
    table: str | None
    revoked: bool = False

    def holds(self, privilege: str) -> bool:
        return privilege in self.privileges or "ALL PRIVILEGES" in self.privileges or "ALL" in self.privileges

    def concerns(self, database: str, table: str | None) -> bool:
        if self.database is not None and not _like(self.database, database):
            return False
        return self.table is None or self.table == table


def _like(pattern: str, name: str) -> bool:
    """Database names in grants are patterns: ``%`` and ``_``, escaped by a backslash."""
    if pattern == name:
        return True
    parts = re.findall(r"\\.|.", pattern, re.S)
    text = "".join(".*" if p == "%" else "." if p == "_" else re.escape(p[-1]) for p in parts)
    return re.fullmatch(text, name, re.S | re.I) is not None


def _bare(name: str) -> str | None:
    return None if name == "*" else name[1:-1].replace("``", "`")


def parse_grants(lines: Iterable[str]) -> list[Grant]:
    """Grants of roles themselves, of procedures and the like are left out, and those on single columns."""
    grants = []
    for line in lines:
        found = _GRANT.match(line)
        if found is None:
            continue
        names = {p.strip().upper() for p in _split(found[2]) if "(" not in p}
        grants.append(Grant(frozenset(names), _bare(found[3]), _bare(found[4]), found[1] == "REVOKE"))
    return grants


def _split(text: str) -> list[str]:
    """At commas outside of parentheses: ``SELECT (a, b), INSERT``."""
    return re.findall(r"[^,(]+(?:\([^)]*\))?", text)


def allows(grants: Sequence[Grant], privilege: str, database: str, table: str | None = None) -> bool:
    concerning = [g for g in grants if g.concerns(database, table)]
    if any(g.revoked and g.holds(privilege) for g in concerning):
        # MySQL's partial revokes: of a database's privileges out of those on all of them.
        concerning = [g for g in concerning if g.database is not None]
    return any(g.holds(privilege) for g in concerning if not g.revoked)


def missing(
    session: MysqlSession, database: str, tables: Sequence[Table], creating: Sequence[TableName], ledger: Sequence[str]
) -> list[str]:
    """What the user may not do and would have to, in plain words. ledger: names of rowferry's own tables."""
    user = session.execute("SELECT CURRENT_USER()")[0][0]
    grants = parse_grants(str(row[0]) for row in session.execute("SHOW GRANTS"))
    problems = []
    if _is_read_only(session) and not any(
        g.holds(p) for p in _READ_ONLY_PASSES for g in grants if g.database is None and not g.revoked
    ):
        problems.append("the server is read-only (a replica?)")
    if not grants:
        return problems  # nothing that could be understood: the server will say
    places = [TableName(database, name) for name in ledger]
    places += [TableName(name.schema or database, name.name) for name in creating]
    for schema in dict.fromkeys(str(place.schema) for place in places):
        names = [p.name for p in places if p.schema == schema]
        for privilege in ("CREATE", "SELECT", "INSERT", "UPDATE", "DELETE", "DROP"):
            refused = [n for n in names if not allows(grants, privilege, schema, n)]
            if refused:
                problems.append(f"user {user} may not {privilege} tables in database {schema}")
    for table in tables:
        schema = table.name.schema or database
        problems += [
            f"user {user} may not {privilege} table {table.name}"
            for privilege in ("INSERT", "SELECT")
            if not allows(grants, privilege, schema, table.name.name)
        ]
        # MySQL shows triggers to nobody else; MariaDB to all who may write.
        if not session.flavour.mariadb and not allows(grants, "TRIGGER", schema, table.name.name):
            problems.append(f"user {user} lacks TRIGGER on table {table.name}, so that its triggers would not be seen")
    return problems


def _is_read_only(session: MysqlSession) -> bool:
    rows = session.execute("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only')")
    return any(str(value).upper() not in ("OFF", "0", "NO_LOCK") for _, value in rows)
