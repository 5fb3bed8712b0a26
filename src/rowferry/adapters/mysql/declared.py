"""A column's declared type, as information_schema spells it, and the canonical type that it is.

Everything is decided by the declared type alone: MySQL binds its values to it, but for the few
that ``census.py`` looks for (zero dates, an ENUM's invalid value, bytes that are no characters).
"""

from __future__ import annotations

import re

import msgspec

from rowferry.types import Type

#: Engine's name in ``Type.native``.
PREFIX = "mysql:"

_INTEGERS = {"tinyint": "8", "smallint": "16", "mediumint": "32", "int": "32", "bigint": "64"}
TEXT_NAMES = frozenset(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"))
LABELLED = frozenset(("enum", "set"))
#: What the server keeps as a 4-byte SRID and WKB.
SPATIAL = frozenset((
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
))  # fmt: skip
BLOBS = frozenset(("tinyblob", "blob", "mediumblob", "longblob"))
#: Types whose values leave and come back as text of the server's own.
TEXT_FORMED = frozenset(("inet4", "inet6"))
#: Types that hold a calendar date, so that it can be none.
DATED = frozenset(("date", "datetime", "timestamp"))
#: A form of TINYINT(1), taken where it is asked for (policy ``bool``).
BOOL = Type("bool")
_TIMED = {"datetime": "timestamp", "timestamp": "timestamptz", "time": "duration"}

_HEAD = re.compile(r"([a-z0-9_]+)(?:\((\d+)(?:,(-?\d+))?\))?")
_LABEL = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "b": "\b", "Z": "\x1a"}
_TAIL = re.compile(
    r"( unsigned)?( zerofill)?(?: CHARACTER SET (\w+) COLLATE (\w+))?(?: (?:REF_SYSTEM_ID=|SRID )(\d+))?"
)


class Declared(msgspec.Struct, frozen=True):
    """A declared type in its parts. ``size`` and ``scale`` are what stands in parentheses."""

    name: str
    size: int | None = None
    scale: int | None = None
    labels: tuple[str, ...] = ()
    unsigned: bool = False
    zerofill: bool = False
    charset: str | None = None
    collation: str | None = None
    srid: int | None = None

    def __str__(self) -> str:
        text = self.name
        if self.name in LABELLED:
            text += f"({','.join(map(label_literal, self.labels))})"
        elif self.size is not None:
            text += f"({self.size})" if self.scale is None else f"({self.size},{self.scale})"
        text += " unsigned" if self.unsigned else ""
        text += " zerofill" if self.zerofill else ""
        if self.charset is not None:
            text += f" CHARACTER SET {self.charset} COLLATE {self.collation}"
        return text if self.srid is None else f"{text} REF_SYSTEM_ID={self.srid}"


def label_literal(label: str) -> str:
    """A label as information_schema writes it: also a literal where backslashes escape, as sessions pin it."""
    out = label.replace("\\", "\\\\").replace("'", "''")
    return "'" + out.replace("\0", "\\0").replace("\n", "\\n").replace("\r", "\\r") + "'"


def unescaped(text: str) -> str:
    """What stands between a literal's quotes, as the text that it means."""
    return re.sub(r"''|\\(.)", lambda m: "'" if m[1] is None else _ESCAPES.get(m[1], m[1]), text, flags=re.DOTALL)


def parse(native: str) -> Declared | None:
    """The parts of a declared type; None where it is spelled otherwise than by information_schema and us.

    >>> parse("decimal(5,2) unsigned").unsigned
    True
    """
    labels: tuple[str, ...] = ()
    name = native.partition("(")[0]
    if name in LABELLED:
        found, rest = _labels(native[len(name) :])
        if found is None:
            return None
        labels, size, scale = found, None, None
    else:
        head = _HEAD.match(native)
        if head is None:
            return None
        name, rest = head[1], native[head.end() :]
        size = None if head[2] is None else int(head[2])
        scale = None if head[3] is None else int(head[3])
    tail = _TAIL.fullmatch(rest)
    if tail is None:
        return None
    srid = None if tail[5] is None else int(tail[5])
    return Declared(name, size, scale, labels, bool(tail[1]), bool(tail[2]), tail[3], tail[4], srid)


def _labels(text: str) -> tuple[tuple[str, ...] | None, str]:
    """The labels at the start of ``('a','b')…`` and what follows."""
    labels: list[str] = []
    place = 0
    while place < len(text) and text[place] in "(,":
        match = _LABEL.match(text, place + 1)
        if match is None:
            return None, text
        labels.append(unescaped(match[1]))
        place = match.end()
    if not labels or place >= len(text) or text[place] != ")":
        return None, text
    return tuple(labels), text[place + 1 :]


def has_unknown_labels(d: Declared) -> bool:
    """Whether a label may be another than is shown: information_schema writes them in three-byte UTF-8,
    and ``?`` for what that does not hold."""
    return any("?" in label for label in d.labels) and d.charset not in ("latin1", "ascii", "utf8mb3", "utf8")


def canonical(d: Declared) -> Type:
    """The canonical type of a column declared so; opaque for a type that we do not know."""
    if d.name in _INTEGERS:
        return Type(("uint" if d.unsigned else "int") + _INTEGERS[d.name])
    if d.name == "decimal":
        return Type("decimal", precision=d.size or 10, scale=d.scale or 0)
    if d.name in _TIMED:
        digits = d.size or 0
        return Type(_TIMED[d.name], precision=digits if digits < 6 else None, unit="us")
    if d.name in TEXT_NAMES:
        return Type("char" if d.name == "char" else "text", length=d.size)
    if d.name in LABELLED:
        return _labelled(d)
    if d.name == "binary":
        return Type("binary", length=d.size if d.size is not None else 1, fixed=True)
    if d.name == "varbinary":
        return Type("binary", length=d.size)
    if d.name == "vector" and d.size is not None:
        return Type("binary", length=4 * d.size, fixed=True, native=PREFIX + str(d))
    if d.name == "bit":
        return Type("bit", length=d.size or 1)
    if d.name in SPATIAL or d.name in BLOBS:
        # What they hold at most, and what the bytes mean, only the declared type says.
        return Type("binary", native=PREFIX + str(d))
    simple = {"float": "float32", "double": "float64", "date": "date", "year": "int16", "uuid": "uuid", "json": "json"}
    if d.name in simple:
        return Type(simple[d.name])
    return Type("opaque", native=PREFIX + str(d))


def read_type(d: Declared, mariadb: bool) -> Type:
    """The canonical type on one of the two servers: MySQL's JSON is a parsed document, whose keys are sorted and of
    whose equal keys the last stays, as of a jsonb; MariaDB's is its text."""
    return Type("jsonb") if d.name == "json" and not mariadb else canonical(d)


def _labelled(d: Declared) -> Type:
    if has_unknown_labels(d):
        return Type("text")
    if d.name == "enum":
        return Type("enum", labels=d.labels)
    # A set of the empty label and the empty set are both written ''.
    return Type("text") if "" in d.labels else Type("list", element=Type("text"))


def forms_of(d: Declared, mariadb: bool = True) -> tuple[Type, ...]:
    """All forms in which a column can be read, best first. The last is text: the server's own, tagged with
    the declared type, where the server reads that back as the same value."""
    best = read_type(d, mariadb)
    if d.name == "tinyint" and d.size == 1:
        # What most programs keep their truth values in; others keep 2 and −128 there.
        return (best, BOOL, Type("opaque", native=PREFIX + str(d)))
    if best.kind in ("text", "char", "json", "jsonb", "opaque", "binary"):
        return (best,)
    if best.kind in ("bit", "float32", "float64", "uuid", "enum"):
        # What the server would not take back as it is: digits of bits, an ENUM's invalid ''.
        return (best, Type("text"))
    return (best, Type("opaque", native=PREFIX + str(d)))


def rounds(d: Declared) -> bool:
    """Whether a column of this type rounds what is written to it in a way that no canonical type expresses."""
    return d.name in ("float", "double") and d.scale is not None


def is_number_of(d: Declared) -> bool:
    return d.name in _INTEGERS or d.name in ("decimal", "float", "double", "bit", "year")
