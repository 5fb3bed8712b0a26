"""Which tables, and under which names: the language of ``--table NAME[:NEWNAME]``.

``NAME`` is ``table`` or ``schema.table``; each part may hold the globs ``*``, ``?`` and
``[abc]``, and a part in double quotes is literal (``""`` stands for one quote). ``*`` in an
unquoted part of ``NEWNAME`` stands for the source table's own name: ``'sales.*:sales_*'``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence

import msgspec

from rowferry.errors import ConfigError
from rowferry.model import TableName

#: The default namespace by its real name; in a TableName it is None.
DEFAULT_SCHEMAS = {"postgres": "public", "duckdb": "main", "sqlite": "main"}


class Part(msgspec.Struct, frozen=True):
    """One part of a name; ``literal``: it was quoted, so that nothing in it is a glob."""

    text: str
    literal: bool = False

    @property
    def is_glob(self) -> bool:
        return not self.literal and any(c in self.text for c in "*?[")

    def matches(self, name: str) -> bool:
        if self.is_glob:
            return re.fullmatch(fnmatch.translate(self.text), name) is not None
        return self.text == name


class Selector(msgspec.Struct, frozen=True):
    """One ``--table``. ``text`` is as it was written, for messages."""

    text: str
    schema: Part | None
    name: Part
    new_schema: Part | None = None
    new_name: Part | None = None

    @property
    def is_glob(self) -> bool:
        return self.name.is_glob or (self.schema is not None and self.schema.is_glob)

    def matches(self, table: TableName, default_schemas: Collection[str] = ()) -> bool:
        """Whether the table is meant. Without a schema only the default namespace is."""
        if not self.name.matches(table.name):
            return False
        if self.schema is None:
            return table.schema is None
        if table.schema is not None:
            return self.schema.matches(table.schema)
        return self.schema.text == "*" or any(self.schema.matches(s) for s in default_schemas)

    def renamed(self, table: TableName, spell: Callable[[str], str] = str) -> TableName | None:
        """The new name for this table; None where it keeps its own. ``spell``: how ``*`` writes the source's names."""
        if self.new_name is None:
            return None
        name = _fill(self.new_name, spell(table.name))
        schema = None if self.new_schema is None else _fill(self.new_schema, spell(table.schema or ""))
        return TableName(schema, name)


def parse(text: str) -> Selector:
    """Parses one ``NAME[:NEWNAME]``. Raises ConfigError."""
    old, colon = _name(text, 0)
    new: list[Part] = []
    if colon < len(text):
        new, end = _name(text, colon + 1)
        if end < len(text):
            raise ConfigError(
                f"--table {text!r} has more than one ':'", hint="put names that hold ':' in double quotes"
            )
    return Selector(
        text,
        old[0] if len(old) == 2 else None,
        old[-1],
        new[0] if len(new) == 2 else None,
        new[-1] if new else None,
    )


def _name(text: str, start: int) -> tuple[list[Part], int]:
    """Reads ``part[.part]`` from ``start``; returns where it ended: at a ':' outside quotes or at the end."""
    parts: list[Part] = []
    at = start
    while True:
        if at < len(text) and text[at] == '"':
            part, at = _quoted(text, at)
        else:
            end = at
            while end < len(text) and text[end] not in '.:"':
                end += 1
            part, at = Part(text[at:end]), end
        if not part.text:
            raise ConfigError(f"--table {text!r} holds an empty name", hint="write NAME, SCHEMA.NAME or NAME:NEWNAME")
        parts.append(part)
        if at >= len(text) or text[at] == ":":
            break
        if text[at] != ".":
            raise ConfigError(
                f"--table {text!r} cannot be read at character {at + 1}", hint="a part is quoted whole or not at all"
            )
        at += 1
    if len(parts) > 2:
        raise ConfigError(
            f"--table {text!r} has more than two parts", hint='write SCHEMA.NAME; quote a name with dots: "a.b"'
        )
    return parts, at


def _quoted(text: str, start: int) -> tuple[Part, int]:
    out: list[str] = []
    at = start + 1
    while at < len(text):
        if text[at] != '"':
            out.append(text[at])
            at += 1
        elif text[at + 1 : at + 2] == '"':
            out.append('"')
            at += 2
        else:
            return Part("".join(out), literal=True), at + 1
    raise ConfigError(f"--table {text!r} has an unclosed double quote")


def _fill(part: Part, name: str) -> str:
    return part.text if part.literal else part.text.replace("*", name)


def select(
    selectors: Sequence[Selector],
    names: Sequence[TableName],
    *,
    by_name_only: Sequence[TableName] = (),
    source_engine: str | None = None,
    target_engine: str | None = None,
    spell: Callable[[str], str] = str,
) -> list[tuple[TableName, TableName | None]]:
    """The tables meant, in the order of ``names``, each with its new name (None: its own).

    names: what a copy of everything would take; by_name_only: views and foreign tables, which no
    glob selects. No selectors: all of ``names``. spell: what ``*`` in a new name makes of the source's.
    The engines map the default namespace's real name (``public.t``) onto it. Raises ConfigError where
    a selector matches nothing, where one table would get two names, or two tables one.
    """
    if not selectors:
        return [(name, None) for name in names]
    default = DEFAULT_SCHEMAS.get(source_engine or "")
    defaults = (default,) if default else () if source_engine else tuple(set(DEFAULT_SCHEMAS.values()))
    chosen: dict[TableName, TableName | None] = {}
    for selector in selectors:
        candidates = list(names) if selector.is_glob else [*names, *by_name_only]
        matched = [name for name in candidates if selector.matches(name, defaults)]
        if not matched:
            raise ConfigError(f"no table matches {selector.text!r}", hint=_near(selector, [*names, *by_name_only]))
        for name in matched:
            new = in_default(selector.renamed(name, spell), target_engine)
            if name in chosen and new is not None and chosen[name] not in (None, new):
                raise ConfigError(f"two names are given to it: {chosen[name]} and {new}", table=str(name))
            chosen[name] = new or chosen.get(name)
    taken: dict[TableName, TableName] = {}
    for name, new in chosen.items():
        other = taken.setdefault(new or name, name)
        if other != name:
            raise ConfigError(f"{other} and {name} would both become {new or name}", hint="give them different names")
    return [(name, chosen[name]) for name in dict.fromkeys([*names, *by_name_only]) if name in chosen]


def in_default(name: TableName | None, engine: str | None) -> TableName | None:
    """The name without its schema, where that is the real name of the engine's default namespace."""
    if name is not None and engine is not None and name.schema == DEFAULT_SCHEMAS.get(engine, object()):
        return TableName(None, name.name)
    return name


def _near(selector: Selector, names: Sequence[TableName]) -> str:
    if not names:
        return "the source holds no tables"
    texts = {str(name): name for name in names}
    wanted = selector.name.text if selector.schema is None else f"{selector.schema.text}.{selector.name.text}"
    import difflib  # only for a name that is not there

    near = [t for t, n in texts.items() if n.name == selector.name.text] or difflib.get_close_matches(wanted, texts, 3)
    if near:
        return f"did you mean {', '.join(repr(n) for n in near[:3])}?"
    shown = sorted(texts)[:5]
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return f"the source has {', '.join(repr(s) for s in shown)}{more}"
