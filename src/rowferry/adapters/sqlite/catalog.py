"""What a SQLite file holds: tables, columns, keys, and by a census what is really stored in them.

``rowferry_columns`` is a side table of ours: the canonical type of each column that rowferry made,
so that a ``numeric(30,10)``, an ``inet`` or an ``int4range`` comes back as what it was. A row of it
counts only while the column is declared as it was when the row was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from rowferry.adapters.sqlite.types import TEXT, candidates, forms_of, read_spec, target_type, value_default
from rowferry.adapters.sqlite.wire import Session, quote
from rowferry.errors import RowferryError
from rowferry.model import Column, ForeignKey, Refusal, Table, TableName, is_own
from rowferry.types import Type, dump, load

TAGS = "rowferry_columns"
#: What FTS3, 4, 5 and R*Tree add to a virtual table's name for the tables that hold its data.
_SHADOWS = (
    "_content", "_segments", "_segdir", "_docsize", "_stat", "_data", "_idx", "_config", "_node", "_rowid", "_parent",
)  # fmt: skip
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
#: Rows and bytes that a table is taken for where nothing was counted.
_ROWS_UNKNOWN = 0


class Shape(msgspec.Struct, frozen=True):
    """A table or view as the catalogue has it.

    columns: (name, declared, not null, default, place in the key, hidden). rowid: the name under which the
    rowid can be asked for, None where there is none. ipk: the column that is the rowid itself (INTEGER
    PRIMARY KEY).
    """

    name: str
    kind: str
    sql: str
    rootpage: int
    columns: tuple[tuple[str, str, bool, str | None, int, int], ...]
    rowid: str | None
    ipk: str | None

    @property
    def primary_key(self) -> tuple[str, ...]:
        keyed = sorted((c[4], c[0]) for c in self.columns if c[4])
        return tuple(name for _, name in keyed)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.name, self.sql, self.rootpage, self.columns)).encode()).hexdigest()[:32]


def list_tables(session: Session) -> list[TableName]:
    """Base tables without rowferry's and SQLite's own, without virtual tables and their shadows."""
    return [TableName(None, name) for name, kind in _kinds(session) if kind == "table"]


def list_views(session: Session) -> list[TableName]:
    """Views, and virtual tables (whose rows are their module's business)."""
    return [TableName(None, name) for name, kind in _kinds(session) if kind in ("view", "virtual")]


def _kinds(session: Session) -> list[tuple[str, str]]:
    rows = session.execute("SELECT name, type, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'view')")
    virtual = [name for name, _, sql in rows if sql[:14].upper() == "CREATE VIRTUAL"]
    out = []
    for name, kind, _ in rows:
        if name.lower().startswith("sqlite_") or is_own(name):
            continue
        # A virtual table keeps its data in shadow tables, named after it; other tables may be named like that too.
        if kind == "table" and any(name == v + suffix for v in virtual for suffix in _SHADOWS):
            continue
        out.append((name, "virtual" if name in virtual else kind))
    return sorted(out)


def shape_of(session: Session, name: TableName) -> Shape | None:
    """The table or view of this name (letter case as SQLite compares it); None where there is none."""
    if name.schema not in (None, "main"):
        return None
    found = session.execute(
        "SELECT name, type, coalesce(sql, ''), coalesce(rootpage, 0) FROM sqlite_master "
        "WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        (name.name,),
    )
    if not found:
        return None
    real, kind, sql, rootpage = found[0]
    rows = session.execute(f"PRAGMA main.table_xinfo({quote(real)})")
    # hidden 1: a hidden column of a virtual table, which SELECT * does not give either.
    columns = tuple((r[1], r[2] or "", bool(r[3]), r[4], int(r[5]), int(r[6])) for r in rows if r[6] != 1)
    virtual = kind == "table" and sql[:14].upper() == "CREATE VIRTUAL"
    rowid = None if kind == "view" or virtual else _rowid_name(session, real, columns)
    return Shape(
        real,
        "view" if kind == "view" or virtual else "table",
        sql,
        rootpage,
        columns,
        rowid,
        _ipk(session, real, columns, rowid),
    )


def _rowid_name(session: Session, name: str, columns: Sequence[Any]) -> str | None:
    taken = {c[0].lower() for c in columns}
    free = next((alias for alias in _ROWID_NAMES if alias not in taken), None)
    if free is None or _without_rowid(session, name):
        return None
    return free


def _without_rowid(session: Session, name: str) -> bool:
    """Such a table is its primary key's index: that index has no page of its own in the schema."""
    for row in session.execute(f"PRAGMA main.index_list({quote(name)})"):
        if row[3] == "pk":
            pages = session.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = ?", (row[1],))
            return not pages[0][0]
    return False


def _ipk(session: Session, name: str, columns: Sequence[Any], rowid: str | None) -> str | None:
    keyed = [c for c in columns if c[4]]
    if rowid is None or len(keyed) != 1 or keyed[0][1].upper() != "INTEGER":
        return None
    # INTEGER PRIMARY KEY DESC is no alias of the rowid and has an index.
    indexes = session.execute(f"PRAGMA main.index_list({quote(name)})")
    return None if any(row[3] == "pk" for row in indexes) else str(keyed[0][0])


def fingerprint(session: Session, name: TableName) -> str:
    shape = shape_of(session, name)
    return "" if shape is None else shape.fingerprint


def is_utf8(session: Session) -> bool:
    return session.execute("PRAGMA encoding") == [("UTF-8",)]


def describe(session: Session, name: TableName, *, census: bool, as_target: bool = False) -> Table | None:
    """The table; with ``census`` every column's type is one that all its values fit, or is refused.
    ``as_target``: types are what can be written so that it comes back."""
    shape = shape_of(session, name)
    if shape is None:
        return None
    tags = read_tags(session, shape)
    choices = [_choices(c, tags, as_target) for c in shape.columns]
    if census and shape.columns:
        rows, size, found = _census(session, shape, choices)
    else:
        rows, size = _estimate(session, shape)
        found = [(choice[0], None, 0) for choice in choices]
    columns = tuple(_column(shape, c, *f) for c, f in zip(shape.columns, found, strict=True))
    key = shape.primary_key
    if any(nulls for c, (_, _, nulls) in zip(shape.columns, found, strict=True) if c[0] in key):
        key = ()  # SQLite lets NULLs into a PRIMARY KEY that is not the rowid: such a key names no rows
    uniques, collations = _unique_keys(session, shape, columns)
    return Table(
        name=name,
        columns=tuple(msgspec.structs.replace(c, collation=collations.get(c.name)) for c in columns),
        primary_key=key,
        unique_keys=uniques,
        rows=rows,
        bytes=size,
        fingerprint=shape.fingerprint,
        kind=shape.kind,
        foreign_keys=_foreign_keys(session, shape),
        triggers=tuple(
            row[0]
            for row in session.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY name",
                (shape.name,),
            )
        ),
    )


def _choices(column: tuple[Any, ...], tags: dict[str, Type], as_target: bool) -> tuple[Type, ...]:
    name, declared = column[0], column[1]
    if name in tags:
        return (tags[name],)
    return (target_type(declared),) if as_target else candidates(declared)


def _column(shape: Shape, column: tuple[Any, ...], t: Type, refusal: Refusal | None, nulls: int) -> Column:
    name, declared, not_null, default, _, hidden = column
    return Column(
        name=name,
        type=t,
        nullable=not (not_null or name == shape.ipk),
        native=declared,
        forms=forms_of(t),
        default=value_default(default),
        generated=hidden in (2, 3),
        identity="auto" if name == shape.ipk else None,
        refusal=refusal,
    )


# ── the census ───────────────────────────────────────────────────────────────────────────────────


def _census(
    session: Session, shape: Shape, choices: Sequence[tuple[Type, ...]]
) -> tuple[int, int, list[tuple[Type, Refusal | None, int]]]:
    """(rows, bytes, for each column: the first type that all values fit or the refusal of the best, NULLs).

    One pass holds every column against its first candidate; a second one, only over the columns
    where that was not the answer, against the others.
    """
    utf8 = is_utf8(session)
    rows, counted = session.census(select(shape, range(len(choices))), [[read_spec(c[0])] for c in choices], utf8)
    open_ones = [i for i, (_, _, unfit) in enumerate(counted) if unfit[0] and len(choices[i]) > 1]
    others: dict[int, list[int]] = {}
    if open_ones:
        specs = [[read_spec(t) for t in choices[i][1:]] for i in open_ones]
        _, again = session.census(select(shape, open_ones), specs, utf8)
        others = {i: unfit for i, (_, _, unfit) in zip(open_ones, again, strict=True)}
    found: list[tuple[Type, Refusal | None, int]] = []
    for i, (stored, _, unfit) in enumerate(counted):
        fits = [*unfit, *others.get(i, [])]
        best = next((t for t, n in zip(choices[i], fits, strict=False) if not n), None)
        broken = _broken_json(session, shape, i) if best is not None and best.kind in ("json", "jsonb") else 0
        if broken:
            # The reader does not parse JSON, so it could not put NULL for what is none.
            refusal = msgspec.structs.replace(_refusal(shape, i, choices[i][0], stored, broken), policies=("text",))
            found.append((choices[i][0], refusal, stored["null"]))
        elif best is not None:
            found.append((best, None, stored["null"]))
        else:
            found.append((choices[i][0], _refusal(shape, i, choices[i][0], stored, unfit[0]), stored["null"]))
    return rows, sum(size for _, size, _ in counted) + rows * 4, found


def _broken_json(session: Session, shape: Shape, place: int) -> int:
    """How many values of a column are no JSON, by SQLite's own parser (0 where it was built without one)."""
    if not session.execute("SELECT 1 FROM pragma_function_list WHERE name = 'json_valid'"):
        return 0
    column = f"t.{quote(shape.columns[place][0])}"
    counted = session.execute(
        f"SELECT count(*) FROM main.{quote(shape.name)} AS t WHERE {column} IS NOT NULL AND NOT json_valid({column})"
    )
    return int(counted[0][0])


def select(shape: Shape, places: Sequence[int] | range) -> str:
    columns = ", ".join(f"t.{quote(shape.columns[i][0])}" for i in places)
    return f"SELECT {columns} FROM main.{quote(shape.name)} AS t"


def _refusal(shape: Shape, place: int, t: Type, stored: dict[str, int], unfit: int) -> Refusal:
    name, declared = shape.columns[place][0], shape.columns[place][1]
    held = ", ".join(f"{count:,} {kind}" for kind, count in stored.items() if count and kind != "null")
    what = f"declared {declared}" if declared else "declared without a type"
    utf8 = " that are valid UTF-8" if t == TEXT and stored["text"] else ""
    reason = f"{what}, but not all values of {name!r} are {t}{utf8} (stored are {held})"
    return Refusal(name, reason, unfit, ("text", "null", "quarantine"))


def _estimate(session: Session, shape: Shape) -> tuple[int, int]:
    """Rows and bytes without reading the table: from ANALYZE where it ran, else from the rowids and the file."""
    rows = _ROWS_UNKNOWN
    if session.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'"):
        stats = session.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = ? COLLATE NOCASE LIMIT 1", (shape.name,))
        if stats and stats[0][0]:
            first = str(stats[0][0]).split()[0]
            rows = int(first) if first.isdigit() else 0
    if not rows and shape.rowid:
        table = f"main.{quote(shape.name)}"
        low = session.execute(f"SELECT {shape.rowid} FROM {table} ORDER BY {shape.rowid} LIMIT 1")
        high = session.execute(f"SELECT {shape.rowid} FROM {table} ORDER BY {shape.rowid} DESC LIMIT 1")
        rows = high[0][0] - low[0][0] + 1 if low else 0
    pages = session.execute("PRAGMA page_count")[0][0] * session.execute("PRAGMA page_size")[0][0]
    return rows, int(pages if rows else 0)


def _unique_keys(
    session: Session, shape: Shape, columns: Sequence[Column]
) -> tuple[tuple[tuple[str, ...], ...], dict[str, str]]:
    """Unique keys of NOT NULL columns, and the collations of key columns that are not SQLite's BINARY."""
    not_null = {c.name for c in columns if not c.nullable}
    keys: list[tuple[str, ...]] = []
    collations: dict[str, str] = {}
    for row in session.execute(f"PRAGMA main.index_list({quote(shape.name)})"):
        index, unique, origin, partial = row[1], row[2], row[3], row[4]
        if not unique or partial:
            continue
        parts = [p for p in session.execute(f"PRAGMA main.index_xinfo({quote(index)})") if p[5]]
        names = tuple(p[2] for p in parts)
        # Their names stand as the user wrote them, in whatever letter case.
        collations |= {p[2]: p[4] for p in parts if p[2] is not None and p[4].upper() != "BINARY"}
        if origin != "pk" and None not in names and set(names) <= not_null:
            keys.append(names)
    return tuple(sorted(keys)), collations


def _foreign_keys(session: Session, shape: Shape) -> tuple[ForeignKey, ...]:
    found: dict[int, tuple[str, list[str]]] = {}
    for row in session.execute(f"PRAGMA main.foreign_key_list({quote(shape.name)})"):
        found.setdefault(row[0], (row[2], []))[1].append(row[3])
    return tuple(
        ForeignKey(f"{shape.name}_fk{number}", tuple(columns), TableName(None, parent))
        for number, (parent, columns) in sorted(found.items())
    )


def orphans(session: Session, name: TableName) -> list[str]:
    """For each foreign key of the table whose rows do not all have a parent: how many have none, in words."""
    shape = shape_of(session, name)
    if shape is None or not (keys := _foreign_keys(session, shape)):
        return []
    try:
        rows = session.execute(
            'SELECT fkid, count(*), min("rowid"), "parent" FROM pragma_foreign_key_check(?) GROUP BY fkid, "parent"',
            (shape.name,),
        )
    except RowferryError as error:
        if error.transient:
            raise
        return [f"its foreign keys could not be checked: {error.message}"]
    return [
        f"{count:,} rows have no parent in {parent!r} (foreign key {', '.join(keys[number].columns)}"
        + ("" if first is None else f"; the first has rowid {first}")
        + "), which SQLite lets pass"
        for number, count, first, parent in rows
    ]


def children_with_rows(session: Session, name: TableName, without: Collection[TableName]) -> list[str]:
    """Tables with rows that refer to the table by a declared foreign key, enforced or not."""
    left_out = {n.name.lower() for n in (name, *without)}
    tables = [row[0] for row in session.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    out = []
    for table in sorted(t for t in tables if t.lower() not in left_out):
        keys: dict[int, list[str]] = {}
        for row in session.execute(f"PRAGMA main.foreign_key_list({quote(table)})"):
            if row[2].lower() == name.name.lower():
                keys.setdefault(row[0], []).append(row[3])
        for columns in keys.values():
            test = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns)
            if session.execute(f"SELECT 1 FROM main.{quote(table)} WHERE {test} LIMIT 1"):
                out.append(table)
                break
    return out


def made_indexes(session: Session, name: str) -> list[tuple[str, set[str]]]:
    """The table's CREATE INDEXes, each with the columns that it names itself (not those within expressions)."""
    rows = session.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ? COLLATE NOCASE "
        "ORDER BY name",
        (name,),
    )
    return [
        (index, {row[2] for row in session.execute(f"PRAGMA main.index_info({quote(index)})") if row[2] is not None})
        for (index,) in rows
    ]


# ── rowferry_columns ─────────────────────────────────────────────────────────────────────────────


def has_tags(session: Session) -> bool:
    return bool(session.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TAGS,)))


def read_tags(session: Session, shape: Shape) -> dict[str, Type]:
    """The recorded type of each column that is still declared as it was."""
    if not has_tags(session):
        return {}
    declared = {c[0]: c[1] for c in shape.columns}
    tags = {}
    for name, text, recorded in session.execute(
        f'SELECT "column", type, declared FROM {TAGS} WHERE "table" = ? COLLATE NOCASE', (shape.name,)
    ):
        if declared.get(name) != recorded:
            continue
        try:
            tags[name] = load(msgspec.json.decode(text), Type)
        except msgspec.MsgspecError:
            continue  # written by another version: the declared type decides
    return tags


def write_tags(session: Session, name: TableName, columns: Sequence[Column]) -> None:
    session.execute(
        f'CREATE TABLE IF NOT EXISTS {TAGS} ("table" TEXT NOT NULL, "column" TEXT NOT NULL, type TEXT NOT NULL, '
        'native TEXT, declared TEXT NOT NULL, PRIMARY KEY ("table", "column"))'
    )
    forget_tags(session, name)
    for column in columns:
        session.execute(
            f"INSERT INTO {TAGS} VALUES (?, ?, ?, ?, ?)",
            (
                name.name,
                column.name,
                msgspec.json.encode(dump(column.type)).decode(),
                column.type.native,
                column.native,
            ),
        )


def forget_tags(session: Session, name: TableName) -> None:
    if has_tags(session):
        session.execute(f'DELETE FROM {TAGS} WHERE "table" = ? COLLATE NOCASE', (name.name,))


def move_tags(session: Session, old: TableName, new: TableName) -> None:
    if has_tags(session):
        forget_tags(session, new)
        session.execute(f'UPDATE {TAGS} SET "table" = ? WHERE "table" = ? COLLATE NOCASE', (new.name, old.name))
