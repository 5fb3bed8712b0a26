"""A small part of DuckDB's grammar of expressions, read without DuckDB.

Loading DuckDB, opening one and asking its parser costs 0.1 s of CPU, a third of a copy of 300,000 rows. So plain
expressions are read here: names, constants, arithmetic, comparisons, AND, OR, NOT, IS NULL, BETWEEN, IN, CASE, CAST
and some functions. Whatever is not in this grammar to the letter, and whatever could be read in two ways, is left to
DuckDB (:func:`read` gives None); tests hold each tree that is given against that of DuckDB's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rowferry.errors import ConfigError
from rowferry.stages.expressions import resolve

#: Longer or deeper than this, DuckDB reads it (characters; levels of parentheses and the like).
_LENGTH_MAX = 4_000
_DEPTH_MAX = 40
_TOKEN = re.compile(
    r"[ \t\r\n]*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|\"(?P<name>(?:[^\"]|\"\")+)\"|'(?P<text>(?:[^']|'')*)'"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<mark>[(),]|::|[-+*/<>=~!@#%^&|`?$:;\[\]{}.\\]+))",
    re.ASCII,
)
#: A run of operator characters that is none of these is DuckDB's to take apart (a comment begins with one, too).
_MARKS = frozenset(("(", ")", ",", "::", "+", "-", "*", "/", "||", "=", "==", "<>", "!=", "<", "<=", ">", ">="))
_COMPARISONS = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
#: Words that DuckDB's grammar keeps to itself, so that a column of this name is called in quotes. A test holds them
#: against its own list.
KEYWORDS = frozenset(
    """
    all analyse analyze and anti any array as asc asof asymmetric at authorization between bigint binary bit boolean
    both by case cast char character check coalesce collate collation column columns concurrently constraint create
    cross current_catalog current_date current_role current_schema current_time current_timestamp current_user dec
    decimal default deferrable desc describe distinct do else end except exists extract false fetch float for
    foreign freeze from full generated glob grant group grouping grouping_id having ilike in initially inner inout
    int integer intersect interval into is isnull join lambda lateral leading left like limit localtime
    localtimestamp map national natural nchar none not notnull null nullif numeric offset on only or order out outer
    overlaps overlay pivot pivot_longer pivot_wider placing position positional precision primary qualify real
    references returning right row select semi session_user setof show similar smallint some struct substring
    summarize symmetric table tablesample then time timestamp to trailing treat trim true try_cast tuple union
    unique unpack unpivot user using values varchar variadic verbose when where window with xmlattributes xmlconcat
    xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()  # noqa: SIM905 - a list of 172 literals is no easier to read
)
#: Functions that are read here: how many arguments each takes, at the least and at the most.
_FUNCTIONS = {
    "lower": (1, 1), "upper": (1, 1), "trim": (1, 1), "ltrim": (1, 1), "rtrim": (1, 1), "concat": (1, 99),
    "coalesce": (1, 99), "nullif": (2, 2), "length": (1, 1), "replace": (3, 3), "left": (2, 2), "substr": (3, 3),
    "substring": (3, 3), "starts_with": (2, 2), "contains": (2, 2), "abs": (1, 1), "round": (1, 2), "year": (1, 1),
    "month": (1, 1), "day": (1, 1),
}  # fmt: skip
_PRESENT_CALLS = {"now": "TIMESTAMP WITH TIME ZONE", "today": "DATE"}
_PRESENT_WORDS = {"current_timestamp": "TIMESTAMP WITH TIME ZONE", "current_date": "DATE"}
#: SQL's names of types, as DuckDB calls them.
_TYPES = {
    "tinyint": "TINYINT", "int1": "TINYINT", "smallint": "SMALLINT", "int2": "SMALLINT", "short": "SMALLINT",
    "integer": "INTEGER", "int": "INTEGER", "int4": "INTEGER", "signed": "INTEGER", "bigint": "BIGINT",
    "int8": "BIGINT", "long": "BIGINT", "double": "DOUBLE", "float8": "DOUBLE", "varchar": "VARCHAR",
    "text": "VARCHAR", "string": "VARCHAR", "date": "DATE",
}  # fmt: skip


class Node(NamedTuple):
    """An expression: what it is, the name, constant or type that belongs to it, and what it is made of.

    column (index) · text · integer · decimal (its digits) · boolean · null · present (type) · cast, try_cast (type) ·
    call (function) · compare (operator) · and · or · not · is null · is not null · between · in · case (condition,
    value, …, else)
    """

    kind: str
    value: Any = None
    parts: tuple[Node, ...] = ()


class _Unread(Exception):
    """DuckDB has to read it."""


def read(text: str, names: Sequence[str]) -> Node | None:
    """The tree of an expression over columns of these names; None where only DuckDB can tell.

    >>> read("lower(a)", ["a"])
    Node(kind='call', value='lower', parts=(Node(kind='column', value=0, parts=()),))
    """
    try:
        reader = _Reader(text, names)
        node = reader.expression()
        reader.need_end()
        return node
    except _Unread:
        return None


def columns(node: Node) -> set[int]:
    """The columns that it reads."""
    own = {int(node.value)} if node.kind == "column" else set()
    return own.union(*map(columns, node.parts))


def has_present(node: Node) -> bool:
    """Whether the job's start is in it."""
    return node.kind == "present" or any(map(has_present, node.parts))


class _Reader:
    """Recursive descent, one method for each level of precedence, the loosest first."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self._names = names
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    # Tokens.

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _mark(self, *marks: str) -> str | None:
        kind, token = self._peek()
        if kind == "mark" and token in marks:
            self._at += 1
            return token
        return None

    def _word(self, *words: str) -> bool:
        """Takes these words where all of them come next."""
        ahead = self._tokens[self._at : self._at + len(words)]
        if [(kind, token.lower()) for kind, token in ahead] != [("word", word) for word in words]:
            return False
        self._at += len(words)
        return True

    def _need(self, mark: str) -> None:
        if self._mark(mark) is None:
            raise _Unread

    def need_end(self) -> None:
        if self._peek()[0] != "end":
            raise _Unread

    # Levels.

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise _Unread
        parts = [self._conjunction()]
        while self._word("or"):
            parts.append(self._conjunction())
        self._depth -= 1
        return _joined("or", parts)

    def _conjunction(self) -> Node:
        parts = [self._negation()]
        while self._word("and"):
            parts.append(self._negation())
        return _joined("and", parts)

    def _negation(self) -> Node:
        if self._word("not"):
            return Node("not", None, (self._negation(),))
        return self._predicate()

    def _predicate(self) -> Node:
        """One comparison at the most: what a = b = c or a = b IS NULL mean is not decided here."""
        left, _ = self._operand()
        if mark := self._mark(*_COMPARISONS):
            return Node("compare", _COMPARISONS[mark], (left, self._operand()[0]))
        if self._word("is", "null"):
            return Node("is null", None, (left,))
        if self._word("is", "not", "null"):
            return Node("is not null", None, (left,))
        if self._word("between"):
            return self._between(left)
        if self._word("not", "between"):
            return Node("not", None, (self._between(left),))
        if self._word("like"):
            return Node("call", "~~", (left, self._operand()[0]))
        if self._word("not", "like"):
            return Node("call", "!~~", (left, self._operand()[0]))
        if self._word("in"):
            return self._in(left)
        if self._word("not", "in"):
            return Node("not", None, (self._in(left),))
        return left

    def _between(self, left: Node) -> Node:
        low, _ = self._operand()
        if not self._word("and"):
            raise _Unread
        return Node("between", None, (left, low, self._operand()[0]))

    def _in(self, left: Node) -> Node:
        self._need("(")
        parts = [left, self.expression()]
        while self._mark(","):
            parts.append(self.expression())
        self._need(")")
        return Node("in", None, tuple(parts))

    def _operand(self) -> tuple[Node, bool]:
        """A sum, or texts put together: not both at once without parentheses. And whether it is a single term."""
        left, single = self._sum()
        while self._mark("||"):
            right, alone = self._sum()
            if not (single and alone):
                raise _Unread
            left = Node("call", "||", (left, right))
        return left, single

    def _sum(self) -> tuple[Node, bool]:
        left, single = self._product()
        while mark := self._mark("+", "-"):
            left, single = Node("call", mark, (left, self._product()[0])), False
        return left, single

    def _product(self) -> tuple[Node, bool]:
        left, single = self._signed()
        while mark := self._mark("*", "/"):
            left, single = Node("call", mark, (left, self._signed()[0])), False
        return left, single

    def _signed(self) -> tuple[Node, bool]:
        if self._mark("-") is None:
            return self._term(), True
        kind, token = self._peek()
        node = self._term()
        if kind == "number" and node.kind != "cast":
            return Node("decimal", f"-{token}") if "." in token else _integer(-int(token)), False
        if node.kind in ("integer", "decimal"):  # -(1)
            raise _Unread
        return Node("call", "-", (node,)), False

    def _term(self) -> Node:
        node = self._primary()
        while self._mark("::"):
            node = Node("cast", self._type(), (node,))
        return node

    def _primary(self) -> Node:
        kind, token = self._peek()
        self._at += 1
        if kind == "number":
            return Node("decimal", token) if "." in token else _integer(int(token))
        if kind == "text":
            return Node("text", token)
        if kind == "name":
            if self._peek() == ("mark", "("):
                raise _Unread
            return self._column(token)
        if kind == "mark" and token == "(":
            node = self.expression()
            self._need(")")
            return node
        if kind == "word":
            return self._worded(token)
        raise _Unread

    def _worded(self, token: str) -> Node:
        word = token.lower()
        kind, following = self._peek()
        if word in ("true", "false"):
            return Node("boolean", word == "true")
        if word == "null":
            return Node("null")
        if word == "case":
            return self._case()
        if word in ("cast", "try_cast") and self._mark("("):
            return self._cast(word)
        if word in ("date", "timestamp") and kind == "text":
            self._at += 1
            return Node("cast", word.upper(), (Node("text", following),))
        if (kind, following) == ("mark", "("):
            return self._call(word)
        if word in _PRESENT_WORDS and not any(name.casefold() == word for name in self._names):
            return Node("present", _PRESENT_WORDS[word])
        if word in KEYWORDS:
            raise _Unread
        return self._column(token)

    def _column(self, name: str) -> Node:
        try:
            index = resolve(name, self._names)
        except ConfigError:  # which of several is meant: DuckDB's way says so, with the whole expression
            index = None
        if index is None:
            raise _Unread
        return Node("column", index)

    def _case(self) -> Node:
        base = None if self._ahead("when") else self.expression()
        parts: list[Node] = []
        while self._word("when"):
            condition = self.expression()
            parts.append(condition if base is None else Node("compare", "=", (base, condition)))
            if not self._word("then"):
                raise _Unread
            parts.append(self.expression())
        parts.append(self.expression() if self._word("else") else Node("null"))
        if len(parts) < 3 or not self._word("end"):
            raise _Unread
        return Node("case", None, tuple(parts))

    def _ahead(self, word: str) -> bool:
        kind, token = self._peek()
        return kind == "word" and token.lower() == word

    def _cast(self, word: str) -> Node:
        inner = self.expression()
        if not self._word("as"):
            raise _Unread
        name = self._type()
        self._need(")")
        return Node(word, name, (inner,))

    def _type(self) -> str:
        kind, token = self._peek()
        self._at += 1
        name = token.lower() if kind == "word" else ""
        if name in ("decimal", "numeric"):
            return self._decimal()
        if name not in _TYPES or self._peek() == ("mark", "(") or (self._peek()[0] == "word" and self._wide()):
            raise _Unread
        return _TYPES[name]

    def _wide(self) -> bool:
        """Whether the next word belongs to the type's name."""
        return self._peek()[1].lower() in ("precision", "varying", "with", "without", "array")

    def _decimal(self) -> str:
        self._need("(")
        kind, digits = self._peek()
        self._at += 1
        self._need(",")
        other, scale = self._peek()
        self._at += 1
        self._need(")")
        if kind != "number" or other != "number" or "." in digits + scale:
            raise _Unread
        if not 1 <= int(digits) <= 38 or int(scale) > int(digits):
            raise _Unread
        return f"DECIMAL({int(digits)},{int(scale)})"

    def _call(self, name: str) -> Node:
        self._need("(")
        if name in _PRESENT_CALLS:
            self._need(")")
            return Node("present", _PRESENT_CALLS[name])
        if name not in _FUNCTIONS:
            raise _Unread
        parts = [self.expression()]
        while self._mark(","):
            parts.append(self.expression())
        self._need(")")
        least, most = _FUNCTIONS[name]
        if not least <= len(parts) <= most:
            raise _Unread
        return Node("call", name, tuple(parts))


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each: word, name (in quotes), text, number, mark. Raises _Unread for anything else."""
    if len(text) > _LENGTH_MAX or "\0" in text:
        raise _Unread
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip(" \t\r\n"))
    while at < end:
        match = _TOKEN.match(text, at, end)
        if match is None:
            raise _Unread
        kind = str(match.lastgroup)
        token = match[kind]
        if kind == "mark" and token not in _MARKS:
            raise _Unread
        # 1a, 1.e5, e'x', 'a' 'b': what stands together without a space may be one word to DuckDB.
        if kind != "mark" and found and found[-1][0] != "mark" and match.start(kind) - (kind in ("name", "text")) == at:
            raise _Unread
        found.append((kind, token.replace("''", "'") if kind == "text" else token.replace('""', '"')))
        at = match.end()
    return found


def _joined(kind: str, parts: list[Node]) -> Node:
    """a AND b AND c as one, however its parentheses are."""
    if len(parts) == 1:
        return parts[0]
    flat = [inner for part in parts for inner in (part.parts if part.kind == kind else (part,))]
    return Node(kind, None, tuple(flat))


def _integer(value: int) -> Node:
    if not -(2**63) <= value < 2**63:
        raise _Unread
    return Node("integer", value)
