"""How a target table takes rows: which text stands for each of its columns, and the SQL around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rowferry.adapters.mysql import tags
from rowferry.adapters.mysql.catalog import declared
from rowferry.adapters.mysql.declared import BLOBS, SPATIAL, TEXT_FORMED, TEXT_NAMES, Declared, parse
from rowferry.adapters.mysql.quoting import qualified, quote, quotes
from rowferry.adapters.mysql.session import Flavour, MysqlSession
from rowferry.errors import RowferryError, TargetError
from rowferry.model import ColumnPlan, TableName

#: (codec, parameters) of ``_native.mysql_load``.
Codec = tuple[str, dict[str, Any]]

_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, extra, character_set_name, collation_name
FROM information_schema.columns WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?
"""
#: By itself: joined to the columns it would take twenty times as long (12 ms).
_ENGINE = "SELECT engine FROM information_schema.tables WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ?"
_TRANSACTIONS = "SELECT transactions FROM information_schema.engines WHERE engine = ?"
_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
#: Character sets whose bytes are those that we send; a column of another is filled through CONVERT.
_UTF8 = ("utf8mb4", "utf8mb3", "utf8")
_BYTES = frozenset(("binary", "varbinary", "vector", *BLOBS, *SPATIAL))
#: Ends of the collations under which texts of different bytes are never equal.
_BY_BYTES = ("_nopad_bin", "_0900_bin")
_LONG_TEXTS = frozenset((*TEXT_NAMES, "json"))


class Field(msgspec.Struct, frozen=True):
    """A column as the server has it now."""

    native: str
    declared: Declared
    nullable: bool


class Layout(msgspec.Struct, frozen=True):
    """One request's way into its table. ``fields`` are the table's columns that it fills, in its order."""

    name: TableName
    columns: tuple[ColumnPlan, ...]
    fields: tuple[Field, ...]
    codecs: tuple[Codec, ...]
    #: What follows LOAD DATA LOCAL INFILE '…'.
    load: str
    #: What precedes the tuples of an INSERT.
    insert: str

    def into(self, name: TableName) -> Layout:
        """The same for another table of the same columns."""
        load = self.load.replace(f"INTO TABLE {qualified(self.name)} ", f"INTO TABLE {qualified(name)} ", 1)
        insert = self.insert.replace(f"INTO {qualified(self.name)} ", f"INTO {qualified(name)} ", 1)
        return msgspec.structs.replace(self, name=name, load=load, insert=insert)


def fields_of(session: MysqlSession, name: TableName) -> dict[str, Field]:
    """The table's columns by name. Raises TargetError where it is gone, or cannot roll back."""
    fields: dict[str, Field] = {}
    place = (name.schema, name.name)
    for (engine,) in session.execute(_ENGINE, place):
        if session.execute(_TRANSACTIONS, (engine,)) != [("YES",)]:
            raise TargetError(
                f"the table's engine {engine} has no transactions: a chunk that failed could not be undone",
                table=str(name),
                hint=f"ALTER TABLE {qualified(name)} ENGINE=InnoDB",
            )
    rows = session.execute(_COLUMNS, place)
    if not rows:
        # information_schema passes over a table that somebody changes at this moment: this waits for the end of that.
        _require(session, name)
        rows = session.execute(_COLUMNS, place)
    for row in rows:
        native = declared(row)
        parsed = parse(native)
        if parsed is not None:
            fields[str(row[1])] = Field(native, parsed, row[3] == "YES")
    return fields


def same_bytes(way: Layout, key: Sequence[str], one: str, other: str) -> str | None:
    """SQL: the key's texts are the same in two tables (aliases) to the byte; None where equal texts always are.

    A collation takes texts for one that are two: 'a' and 'A', and where it pads, 'a' and 'a '.
    """
    loose = [
        f"CAST({one}.{quote(c.target)} AS BINARY) <=> CAST({other}.{quote(c.target)} AS BINARY)"
        for c, f in zip(way.columns, way.fields, strict=True)
        if c.target in key and f.declared.name in TEXT_NAMES and not (f.declared.collation or "").endswith(_BY_BYTES)
    ]
    return " AND ".join(loose) or None


def _require(session: MysqlSession, name: TableName) -> None:
    """Raises TargetError where there is no such table."""
    try:
        session.query(f"SELECT 1 FROM {qualified(name)} LIMIT 0")
    except RowferryError as error:
        if not (error.code or "").startswith("1146/"):
            raise
        raise TargetError(
            "the table is not there (any more)",
            table=str(name),
            hint="it was dropped while the job ran, and its rows are gone: start a new job (--job NAME)",
        ) from None


def layout_of(session: MysqlSession, name: TableName, columns: Sequence[ColumnPlan]) -> Layout:
    """How rows of these columns go into the table as it is now.

    Raises TargetError where a column is of another type than the plan knew.
    """
    known = fields_of(session, name)
    fields = []
    for column in columns:
        field = known.get(column.target)
        if field is None or not _is_planned(column, field):
            raise TargetError(
                f"the column is {field.native if field else 'gone'}, where the plan knew {column.column.native}: "
                "the table was changed while the job ran",
                table=str(name),
                column=column.target,
                hint="start a new job for the new shape",
            )
        fields.append(field)
    codecs = tuple(_codec(c, f) for c, f in zip(columns, fields, strict=True))
    targets = [c.target for c in columns]
    return Layout(
        name=name,
        columns=tuple(columns),
        fields=tuple(fields),
        codecs=codecs,
        load=_load(name, targets, fields, session.flavour),
        insert=f"INTO {qualified(name)} ({quotes(targets)}) VALUES ",
    )


def _is_planned(column: ColumnPlan, field: Field) -> bool:
    """Whether a column is what the plan knew; texts and bytes may have other bounds (those of now are kept to)."""
    if tags.same_native(column.column.native, field.native):
        return True
    planned = parse(column.column.native)
    if planned is None:
        return False
    for family in (_LONG_TEXTS, _BYTES - SPATIAL - {"binary"}):
        if planned.name in family and field.declared.name in family:
            return True
    same = planned.name == field.declared.name
    return same and planned.name in ("enum", "set") and planned.labels == field.declared.labels


def _load(name: TableName, targets: Sequence[str], fields: Sequence[Field], flavour: Flavour) -> str:
    from rowferry._native.mysql_load import LOAD_FORMAT

    places, settings = [], []
    for number, (target, field) in enumerate(zip(targets, fields, strict=True)):
        if _is_converted(field.declared, flavour):
            variable = f"@rowferry_{number}"
            places.append(variable)
            settings.append(f"{quote(target)} = CONVERT({variable} USING utf8mb4)")
        else:
            places.append(quote(target))
    setting = f" SET {', '.join(settings)}" if settings else ""
    return f"INTO TABLE {qualified(name)} {LOAD_FORMAT} ({', '.join(places)}){setting}"


def _is_converted(d: Declared, flavour: Flavour) -> bool:
    """Whether bare bytes would be taken for something else than the UTF-8 that they are: as characters of the
    column's own set, as the sixteen bytes of an address, or (MySQL's JSON) not at all."""
    if d.name in TEXT_FORMED:
        return True
    if d.name == "json":
        return not flavour.mariadb
    return d.charset is not None and d.charset not in _UTF8


def _codec(column: ColumnPlan, field: Field) -> Codec:
    """How a column's values are written (``_native.mysql_load``)."""
    d, kind = field.declared, column.column.type.kind
    params: dict[str, Any] = {} if field.nullable else {"required": True}
    if kind == "bool" or column.column.type.is_integer:
        if d.name == "year":
            return "year", params
        if d.name in _INTEGER_BITS:
            params |= _bounds(d)
        return "integer", params
    if kind in ("float32", "float64"):
        return "float", params
    if kind in ("decimal", "date"):
        return kind, params
    if kind in ("timestamp", "timestamptz"):
        return "datetime", {**params, "digits": d.size or 0}
    if kind in ("time", "duration") and d.name == "time":
        return "time", {**params, "digits": d.size or 0}
    if kind == "bit" and d.name == "bit":
        return "bit", {**params, "length": d.size or 1}
    if d.name in ("enum", "set"):
        return d.name, {**params, "labels": d.labels}
    if kind == "uuid" and d.name not in ("uuid", *_BYTES):
        return "uuid_text", params
    if kind in ("binary", "uuid", "wire"):
        return "bytes", params | _byte_bounds(d)
    return "text", {**params, "length": d.size if d.name in ("char", "varchar") else None}


def _bounds(d: Declared) -> dict[str, int]:
    bits = _INTEGER_BITS[d.name]
    if d.unsigned:
        return {"least": 0, "most": 2**bits - 1}
    return {"least": -(2 ** (bits - 1)), "most": 2 ** (bits - 1) - 1}


def _byte_bounds(d: Declared) -> dict[str, Any]:
    if d.name == "uuid":
        return {"length": 16, "fixed": True}
    if d.name == "binary":
        return {"length": d.size if d.size is not None else 1, "fixed": True}
    if d.name == "vector":
        return {"length": 4 * (d.size or 0), "fixed": True}
    return {"length": d.size if d.name == "varbinary" else None}
