"""The notation of types in a configuration: ``decimal(12,2)``, ``varchar(20)``, ``timestamp(3)``, ``list<int64>``.

It is what a :class:`~rowferry.types.Type` prints as, with the usual SQL names beside it. docs/TRANSFORM.md has
the whole list.
"""

from __future__ import annotations

import re

from rowferry.errors import ConfigError
from rowferry.types import FLOATS, INTEGERS, Field, Type

#: SQL's and Arrow's names for kinds of ours.
_ALIASES = {
    "boolean": "bool", "tinyint": "int8", "smallint": "int16", "int": "int32", "integer": "int32", "int4": "int32",
    "bigint": "int64", "int2": "int16", "real": "float32", "float4": "float32",
    "double": "float64", "double precision": "float64", "float8": "float64", "varchar": "text", "string": "text",
    "character varying": "text", "character": "char", "bytea": "binary", "blob": "binary", "varbinary": "binary",
    "datetime": "timestamp", "timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp",
    "time with time zone": "timetz", "bit varying": "varbit",
}  # fmt: skip
#: Kinds that take no size at all.
_BARE = (*INTEGERS, *FLOATS, "bool", "date", "uuid", "json", "jsonb")
#: Kinds that take a length, and whether it has to be there.
_LENGTHS = {"text": False, "binary": False, "varbit": False, "char": True, "bit": True}
#: Kinds that take digits of fractional seconds.
_CLOCKS = ("time", "timestamp", "timestamptz", "duration", "interval", "timetz")
_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z_0-9]*)|([0-9]+)|'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|(.))", re.DOTALL)
#: Digits of a decimal at the most, and levels of nesting that a configuration may ask for.
_DIGITS_MAX = 76
_DEPTH_MAX = 32


def parse_type(text: str) -> Type:
    """The canonical type that a text names. Raises ConfigError saying what is wrong with it.

    >>> str(parse_type("list<decimal(12,2)>"))
    'list<decimal(12,2)>'
    """
    reader = _Reader(text)
    found = reader.type(0)
    if reader.peek() is not None:
        raise reader.wrong(f"{reader.peek()!r} is too much")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        for match in _TOKEN.finditer(text.strip()):
            word, number, quoted, name, other = match.groups()
            if word is not None:
                self._tokens.append(("word", word))
            elif number is not None:
                self._tokens.append(("number", number))
            elif quoted is not None:
                self._tokens.append(("quoted", quoted.replace("''", "'")))
            elif name is not None:
                self._tokens.append(("name", name.replace('""', '"')))
            else:
                self._tokens.append(("mark", other))
        self._at = 0

    def wrong(self, why: str) -> ConfigError:
        hint = "types are written as decimal(12,2), varchar(20), timestamp(3), list<int64> (docs/TRANSFORM.md)"
        return ConfigError(f"{self._text!r} is no type: {why}", hint=hint)

    def peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _take(self, *kinds: str, what: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] not in kinds:
            seen = self.peek()
            raise self.wrong(f"{what} is missing" + ("" if seen is None else f" before {seen!r}"))
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _mark(self, mark: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == ("mark", mark):
            self._at += 1
            return True
        return False

    def _need(self, mark: str) -> None:
        if not self._mark(mark):
            seen = self.peek()
            raise self.wrong(f"{mark!r} is missing" + ("" if seen is None else f" before {seen!r}"))

    def type(self, depth: int) -> Type:
        if depth > _DEPTH_MAX:
            raise self.wrong(f"nested deeper than {_DEPTH_MAX} levels")
        name = self._take("word", what="the name of a type").lower()
        while self._at < len(self._tokens) and self._tokens[self._at][0] == "word":
            name += " " + self._tokens[self._at][1].lower()  # double precision, timestamp with time zone
            self._at += 1
        kind = _ALIASES.get(name, name)
        if kind in ("list", "struct", "map"):
            return self._nested(kind, depth)
        if kind == "enum":
            return self._enum()
        sizes = self._sizes()
        unit = self._unit()
        if "with time zone" not in name and self._at < len(self._tokens) and self._tokens[self._at][0] == "word":
            # timestamp(3) with time zone: the size stands in the middle
            tail = []
            while self._at < len(self._tokens) and self._tokens[self._at][0] == "word":
                tail.append(self._tokens[self._at][1].lower())
                self._at += 1
            kind = _ALIASES.get(f"{name} {' '.join(tail)}", "")
            if not kind:
                raise self.wrong(f"{' '.join(tail)!r} is too much")
        return self._made(kind, name, sizes, unit)

    def _sizes(self) -> list[int]:
        if not self._mark("("):
            return []
        sizes = [int(self._take("number", what="a number"))]
        while self._mark(","):
            sign = -1 if self._mark("-") else 1
            sizes.append(sign * int(self._take("number", what="a number")))
        self._need(")")
        return sizes

    def _unit(self) -> str | None:
        if not self._mark("["):
            return None
        unit = self._take("word", what="a unit")
        self._need("]")
        if unit not in _UNITS:
            raise self.wrong(f"the unit {unit!r} is none of s, ms, us, ns")
        return unit

    def _nested(self, kind: str, depth: int) -> Type:
        self._need("<")
        if kind == "list":
            element = self.type(depth + 1)
            self._need(">")
            return Type("list", element=element)
        fields = [self._field(depth)]
        while self._mark(","):
            fields.append(self._field(depth))
        self._need(">")
        if kind == "map" and len(fields) != 2:
            raise self.wrong("a map has two parts: map<key: text, value: int64>")
        return Type(kind, fields=tuple(fields))

    def _field(self, depth: int) -> Field:
        name = self._take("word", "name", what="the name of a field")
        self._need(":")
        return Field(name, self.type(depth + 1))

    def _enum(self) -> Type:
        self._need("(")
        labels = [self._take("quoted", what="a label in quotes")]
        while self._mark(","):
            labels.append(self._take("quoted", what="a label in quotes"))
        self._need(")")
        if len(set(labels)) < len(labels):
            raise self.wrong("a label stands there twice")
        return Type("enum", labels=tuple(labels))

    def _made(self, kind: str, name: str, sizes: list[int], unit: str | None) -> Type:
        if kind in ("numeric", "decimal") and (sizes or kind == "decimal"):
            return self._decimal(sizes, unit)
        if unit is not None and kind not in _CLOCKS:
            raise self.wrong(f"{name} has no unit")
        if kind == "numeric" or kind in _BARE:
            if sizes:
                raise self.wrong(f"{name} has no size")
            return Type(kind)
        if kind in _LENGTHS:
            if len(sizes) > 1 or (not sizes and _LENGTHS[kind]) or (sizes and sizes[0] < 1):
                raise self.wrong(f"{name} takes one length from 1 on")
            return Type(kind, length=sizes[0] if sizes else None)
        if kind in _CLOCKS:
            return self._clock(kind, name, sizes, unit)
        raise self.wrong(f"there is no type {name!r}")

    def _decimal(self, sizes: list[int], unit: str | None) -> Type:
        if unit is not None or len(sizes) not in (1, 2):
            raise self.wrong("a decimal takes its digits and its scale: decimal(12,2)")
        precision, scale = sizes[0], sizes[1] if len(sizes) == 2 else 0
        if not 1 <= precision <= _DIGITS_MAX or not 0 <= scale <= precision:
            raise self.wrong(f"a decimal has 1 to {_DIGITS_MAX} digits, and 0 to all of them after the point")
        return Type("decimal", precision=precision, scale=scale)

    def _clock(self, kind: str, name: str, sizes: list[int], unit: str | None) -> Type:
        digits = sizes[0] if sizes else None
        if len(sizes) > 1 or (digits is not None and not 0 <= digits <= 9):
            raise self.wrong(f"{name} takes 0 to 9 digits of fractional seconds")
        if kind in ("timetz", "interval"):
            most = 6 if kind == "timetz" else 9
            if unit is not None or (digits is not None and digits > most):
                raise self.wrong(f"{name} takes 0 to {most} digits of fractional seconds and no unit")
            return Type(kind, precision=digits)
        if unit is None:
            unit = "ns" if digits is not None and digits > 6 else "us"
        if kind == "time" and unit not in ("us", "ns"):
            raise self.wrong("the unit of a time is us or ns")
        if digits is not None and digits > _UNITS[unit]:
            raise self.wrong(f"{digits} digits of fractional seconds are more than the unit {unit} has")
        return Type(kind, precision=None if digits == _UNITS[unit] else digits, unit=unit)
