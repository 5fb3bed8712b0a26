"""Which column a MySQL target makes for a canonical type, and what a column cannot take.

Texts are made in utf8mb4 under a collation that compares every byte and pads nothing, so that 'a', 'A',
'á' and 'a ' stay four keys. What MySQL has no type for stands in one that holds it exactly, and
``rowferry_columns`` (:mod:`tags`) remembers what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from rowferry.adapters.mysql import declared
from rowferry.adapters.mysql.declared import DATED, PREFIX, Declared, canonical, parse, read_type
from rowferry.adapters.mysql.tags import Tag
from rowferry.limits import MYSQL_DECIMAL_DIGITS_MAX
from rowferry.model import Column, Refusal
from rowferry.types import FLOATS, Type

#: Bytes of a row at the most, without what is in BLOBs and TEXTs.
ROW_BYTES_MAX = 65_535
#: Bytes of a key at the most (InnoDB, row format DYNAMIC).
KEY_BYTES_MAX = 3_072
#: utf8mb4 takes up to so many bytes for a character.
CHARACTER_BYTES_MAX = 4
VARCHAR_MAX = (ROW_BYTES_MAX - 2) // CHARACTER_BYTES_MAX
VARBINARY_MAX = ROW_BYTES_MAX - 3
CHAR_MAX = 255
ENUM_LABELS_MAX = 65_535
ENUM_LABEL_CHARACTERS_MAX = 255
BIT_MAX = 64
#: Longest ISO 8601 interval, and longest time with its zone.
INTERVAL_CHARACTERS, TIMETZ_CHARACTERS = 64, 32

_INTEGERS = {
    "bool": "tinyint(1)", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint",
    "uint8": "tinyint unsigned", "uint16": "smallint unsigned", "uint32": "int unsigned", "uint64": "bigint unsigned",
    "float32": "float", "float64": "double", "date": "date",
}  # fmt: skip
_NAMES = {"time": "time", "duration": "time", "timestamp": "datetime", "timestamptz": "datetime"}
#: Collations that both servers have had for long.
_COMMON = frozenset(("utf8mb4_bin", "utf8mb4_general_ci", "utf8mb4_unicode_ci", "latin1_swedish_ci", "latin1_bin"))
_UNIT_DIGITS = {"s": 0, "ms": 3}


class Server(Protocol):
    """What a target knows of its server (``session.Flavour``)."""

    @property
    def mariadb(self) -> bool: ...
    @property
    def version(self) -> tuple[int, int, int]: ...
    @property
    def has_uuid(self) -> bool: ...


def collation(server: Server) -> str:
    """The collation of texts that we make: by bytes, and without padding where the server has such a one."""
    if server.mariadb:
        return "utf8mb4_nopad_bin"
    return "utf8mb4_0900_bin" if server.version >= (8, 0, 17) else "utf8mb4_bin"


def plan_column(
    column: Column, form: Type, server: Server, *, collations: frozenset[str] = frozenset()
) -> Column | Refusal:
    """The column that is made for a source column read as ``form``: its DDL type and what it takes.

    collations: those that the server has, if they are known: a source's own is kept only among them.
    """
    kept = _kept(column, form, server, collations)
    planned = kept if kept is not None else _made(form, server)
    if isinstance(planned, str):
        return Refusal(column.name, planned, policies=("text", "skip"))
    native, t = planned
    d = parse(native)
    assert d is not None
    loose = d.collation if kept is not None and d.name in declared.TEXT_NAMES else None
    if kept is None and d.collation == "utf8mb4_bin":
        loose = d.collation
    return msgspec.structs.replace(
        column, native=native, type=t, forms=_remembered(column, form, t), generated=False, refusal=None,
        collation=loose,
    )  # fmt: skip


def _remembered(column: Column, form: Type, t: Type) -> tuple[Type, ...]:
    """Not forms to be written in: what is to be remembered of the source's column. The first is what the
    column is (a number that travels as text by policy is still a number), the second how it was declared."""
    numeric = form.kind == "text" and column.type.kind in ("numeric", "decimal")
    own = next((f for f in column.forms if f.native is not None), None)
    native = own.native if own is not None else column.native
    return (Type("numeric") if numeric else t, Type("opaque", native=native))


def _kept(column: Column, form: Type, server: Server, collations: frozenset[str]) -> tuple[str, Type] | None:
    """The source's own type, where it is one of this server's that means exactly the form."""
    native = column.native.removeprefix(PREFIX)
    if form.native is not None and form.native.startswith(PREFIX):
        native = form.native.removeprefix(PREFIX)
    d = parse(native)
    if d is None or not _is_spelled_out(d) or not _has(server, d, collations):
        return None
    if d.srid is not None:
        native = f"{d.name} REF_SYSTEM_ID={d.srid}" if server.mariadb else f"{d.name} SRID {d.srid}"
    own = read_type(d, server.mariadb)
    if form.kind == "opaque":
        # Only what came out of this very type goes back into it as the server's own text.
        return (native, form) if form in declared.forms_of(d, server.mariadb) else None
    if form != own or not _keeps(d):
        return None
    return native, Type("list", element=Type("enum", labels=d.labels)) if d.name == "set" else own


def _keeps(d: Declared) -> bool:
    """Whether a value that came out of such a column goes in again unchanged. A FLOAT(m,d) rounds to d places: to the
    same number again, where numbers of m digits are apart by more than those that the float can hold."""
    return not declared.rounds(d) or (d.size or 0) <= (7 if d.name == "float" else 15)


def _is_spelled_out(d: Declared) -> bool:
    """Whether this is a type as our own catalogue writes it: another engine's ``text`` has no character set
    (and no limit of 64 KiB), its ``char`` no bounds."""
    if d.name in declared.TEXT_NAMES or d.name in declared.LABELLED:
        return d.charset is not None and not declared.has_unknown_labels(d)
    return True


def _has(server: Server, d: Declared, collations: frozenset[str]) -> bool:
    if d.collation is not None and d.collation not in collations and d.collation not in _COMMON:
        return False
    if d.name == "decimal" and isinstance(_decimal(canonical(d), server), str):
        return False
    if (d.size or 0) > {"bit": BIT_MAX, "binary": CHAR_MAX, "varbinary": VARBINARY_MAX}.get(d.name, ROW_BYTES_MAX):
        return False
    newer = {"uuid": (10, 7), "inet6": (10, 5), "inet4": (10, 10), "vector": (11, 7)}
    if d.name in newer:
        return server.mariadb and server.version[:2] >= newer[d.name]
    return True


def _made(form: Type, server: Server) -> tuple[str, Type] | str:
    """(DDL type, what write takes) for a canonical type, or why there is none."""
    kind = form.kind
    if kind in _INTEGERS:
        return _INTEGERS[kind], form
    if kind in _NAMES:
        return _timed(form)
    if kind == "decimal":
        return _decimal(form, server)
    if kind in ("text", "char", "bit", "varbit", "enum"):
        return _text_like(form, server)
    if kind == "binary":
        return _binary(form)
    if kind == "uuid":
        return ("uuid" if server.has_uuid else "binary(16)"), form
    if kind in ("json", "jsonb"):
        return ("json", form) if server.mariadb else ("json", Type("jsonb"))
    if kind in ("list", "struct", "map"):
        return _nested(form, server)
    if kind in ("timetz", "interval"):
        return _varchar(TIMETZ_CHARACTERS if kind == "timetz" else INTERVAL_CHARACTERS, server), form
    if kind == "opaque":
        return f"longtext{_spelled(server)}", form
    if kind == "numeric":
        return "MySQL has no numeric without bounds"
    return f"MySQL has no type for {form}"


def _spelled(server: Server) -> str:
    return f" CHARACTER SET utf8mb4 COLLATE {collation(server)}"


def _varchar(length: int, server: Server) -> str:
    return f"varchar({length}){_spelled(server)}"


def _text_like(form: Type, server: Server) -> tuple[str, Type] | str:
    length = form.length
    if form.kind == "char" and length is not None and length <= CHAR_MAX:
        return f"char({length}){_spelled(server)}", form
    if form.kind == "bit" and length is not None and 1 <= length <= BIT_MAX:
        return f"bit({length})", form
    if form.kind == "enum":
        if _labels_fit(form):
            labels = ",".join(map(declared.label_literal, form.labels))
            return f"enum({labels}){_spelled(server)}", Type("enum", labels=form.labels)
        length = max(map(len, form.labels), default=None)
    if length is None or length > VARCHAR_MAX:
        return f"longtext{_spelled(server)}", form
    return _varchar(length, server), form


def _labels_fit(form: Type) -> bool:
    """MySQL cuts spaces off the end of labels, and shows those outside of the BMP as question marks."""
    labels = form.labels
    return (
        0 < len(labels) <= ENUM_LABELS_MAX
        and len(set(labels)) == len(labels)
        and not any(label.endswith(" ") or len(label) > ENUM_LABEL_CHARACTERS_MAX for label in labels)
        and not any(max(label, default="") > "\uffff" or "?" in label for label in labels)
    )


def _binary(form: Type) -> tuple[str, Type]:
    if form.length is None or form.length > VARBINARY_MAX:
        return "longblob", form
    if form.fixed and 0 < form.length <= CHAR_MAX:
        return f"binary({form.length})", form
    return f"varbinary({form.length})", form


def _decimal(form: Type, server: Server) -> tuple[str, Type] | str:
    assert form.precision is not None and form.scale is not None
    scale = max(form.scale, 0)
    precision = max(form.precision - min(form.scale, 0), scale, 1)
    scale_max = 38 if server.mariadb and server.version >= (10, 2, 1) else 30
    if precision > MYSQL_DECIMAL_DIGITS_MAX or scale > scale_max:
        return f"MySQL's decimals have {MYSQL_DECIMAL_DIGITS_MAX} digits at the most, {scale_max} after the point"
    return f"decimal({precision},{scale})", Type("decimal", precision=precision, scale=scale)


def _timed(form: Type) -> tuple[str, Type]:
    digits = form.precision if form.precision is not None else _UNIT_DIGITS.get(form.unit or "us", 6)
    digits = min(digits, 6)
    name = _NAMES[form.kind]
    t = Type(form.kind, precision=digits if digits < 6 else None, unit="us")
    return (f"{name}({digits})" if digits else name), t


def _nested(form: Type, server: Server) -> tuple[str, Type] | str:
    """As JSON text. MySQL's own JSON would make doubles of long numbers, so there it is a LONGTEXT."""
    problem = _nested_problem(form)
    if problem is not None:
        return problem
    return ("json" if server.mariadb else f"longtext{_spelled(server)}"), form


def _nested_problem(form: Type) -> str | None:
    if form.kind == "wire":
        return f"MySQL has no place for {form}"
    if form.kind == "struct" and len({f.name for f in form.fields}) != len(form.fields):
        return "two fields of a struct have one name, which a JSON object cannot hold"
    inner = [f.type for f in form.fields] + ([form.element] if form.element else [])
    return next((p for p in map(_nested_problem, inner) if p is not None), None)


def checks(column: Column, server: Server) -> tuple[str, ...]:
    """Names of convert.CHECKS for a column of a MySQL target: what the server would take and change without a
    warning, or not tell apart from another value."""
    d = parse(column.native)
    names: list[str] = []
    if d is not None and d.name in DATED:
        names += ["finite_time", "year_0_9999"]
    if column.type.kind in FLOATS:
        # MariaDB stores −0.0 as 0.0 without a word.
        names += ["finite_number", "no_negative_zero"]
    if d is not None and d.name == "year":
        names.append("year_type")
    if d is not None and d.name == "json" and not server.mariadb:
        # MySQL keeps the document, not its text: what is no 64-bit integer becomes a double.
        names.append("json_doubles")
    return tuple(names)


def tags_of(columns: Sequence[Column], natives: Mapping[str, str], server: Server) -> dict[str, Tag]:
    """What the types of columns that are made (``natives``, as :func:`table_natives` gives them) do not tell
    of what stands in them."""
    tags = {}
    for column in columns:
        native = natives[column.name]
        remembered = column.forms[0] if column.forms else column.type
        d = parse(native)
        told = None if d is None else read_type(d, server.mariadb)
        if remembered.kind == "opaque" and (remembered.native or "").startswith(PREFIX):
            continue  # it travelled as its own text: the column itself says what it is
        if remembered != told and not (d is not None and d.name == "set"):
            tags[column.name] = Tag(native, remembered)
    return tags


# ── what only the whole table tells ──────────────────────────────────────────────────────────────


def table_natives(columns: Sequence[Column], key: Sequence[str]) -> dict[str, str] | str:
    """The DDL type of each column as it is made in this table: that of the plan, but

    * a LONGTEXT or LONGBLOB of the primary key becomes a VARCHAR or VARBINARY that fits a key,
    * VARCHARs and VARBINARYs, longest first, become LONGTEXTs and LONGBLOBs until the row fits.

    A text says why the key cannot be made.
    """
    natives = {c.name: c.native for c in columns}
    parsed = {name: parse(native) for name, native in natives.items()}
    long_ones = [n for n in key if (d := parsed[n]) is not None and d.name in ("longtext", "longblob", "json")]
    room = KEY_BYTES_MAX - sum(_key_bytes(parsed[n]) for n in key if n not in long_ones)
    for name in long_ones:
        d = parsed[name]
        assert d is not None
        each = min(room // len(long_ones), KEY_BYTES_MAX)
        size = each if d.name == "longblob" else each // CHARACTER_BYTES_MAX
        if size < 1:
            return f"a key has {KEY_BYTES_MAX} bytes at the most: there is no room left for {name!r}"
        if d.name == "json":
            d = msgspec.structs.replace(d, charset="utf8mb4", collation="utf8mb4_bin")
        parsed[name] = msgspec.structs.replace(d, name="varbinary" if d.name == "longblob" else "varchar", size=size)
    if not long_ones and room < 0:
        return f"a key has {KEY_BYTES_MAX} bytes at the most, and ({', '.join(key)}) would have {KEY_BYTES_MAX - room}"
    while sum(_row_bytes(d) for d in parsed.values()) > ROW_BYTES_MAX - len(parsed) // 8 - 1:
        free = [
            (d.size or 0, n) for n, d in parsed.items() if d and d.name in ("varchar", "varbinary") and n not in key
        ]
        if not free:
            break
        name = max(free)[1]
        d = parsed[name]
        assert d is not None
        parsed[name] = msgspec.structs.replace(d, name="longtext" if d.name == "varchar" else "longblob", size=None)
    return {name: natives[name] if d is None or str(d) == natives[name] else str(d) for name, d in parsed.items()}


_FIXED_BYTES = {
    "tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8, "float": 4, "double": 8, "date": 3, "year": 1,
    "datetime": 8, "timestamp": 7, "time": 6, "uuid": 16, "inet4": 4, "inet6": 16, "enum": 2, "set": 8, "bit": 8,
}  # fmt: skip


_WIDTHS = {
    "utf8mb4": 4, "utf16": 4, "utf16le": 4, "utf32": 4, "gb18030": 4, "utf8mb3": 3, "utf8": 3, "ujis": 3, "eucjpms": 3,
    "big5": 2, "gbk": 2, "gb2312": 2, "sjis": 2, "cp932": 2, "euckr": 2, "ucs2": 2,
}  # fmt: skip


def _width(d: Declared) -> int:
    """Bytes of a character of a CHAR or VARCHAR at the most."""
    return _WIDTHS.get(d.charset or "utf8mb4", 1)


def _row_bytes(d: Declared | None) -> int:
    if d is None:
        return 12
    if d.name in ("char", "varchar"):
        return (d.size or 0) * _width(d) + 2
    if d.name in ("binary", "varbinary"):
        return (d.size or 0) + 2
    if d.name == "decimal":
        return ((d.size or 10) // 9 + 2) * 4
    # A BLOB's or TEXT's own bytes are elsewhere: the row holds its length and a pointer.
    return _FIXED_BYTES.get(d.name, 12)


def _key_bytes(d: Declared | None) -> int:
    return _row_bytes(d) - (2 if d is not None and d.name in ("char", "varchar", "binary", "varbinary") else 0)
