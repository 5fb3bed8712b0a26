"""How names are spelled: what ``--names`` makes of one, and which ones ``--match-names loose`` takes for one.

The rules are written down for users in docs/NAMES.md; they depend on the name alone, never on the
machine's locale, and on no other name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

from rowferry.adapters.protocol import Capabilities
from rowferry.model import TableName, is_own

#: What ``--names`` and ``--match-names`` can be; the first of each is the default.
NAMES = ("as-is", "lower", "snake")
MATCHES = ("exact", "loose")

#: What stands between words beside an underscore. Other signs ($, #, %) are part of a name.
_SEPARATORS = re.compile(r"[\s./\\:-]+")
_AROUND_UNDERSCORES = re.compile(r"[\s./\\:-]*(_+)[\s./\\:-]*")

T = TypeVar("T", bound=Hashable)


def speller(style: str) -> Callable[[str], str]:
    """The function that spells one name (of a table, a schema or a column) in a style of NAMES."""
    spellers: dict[str, Callable[[str], str]] = {"as-is": str, "lower": str.lower, "snake": snake}
    return spellers[style]


def respelled(name: TableName, spell: Callable[[str], str]) -> TableName:
    """A table's name with both of its parts spelled anew."""
    return TableName(None if name.schema is None else spell(name.schema), spell(name.name))


def snake(name: str) -> str:
    """``HTTPServerID`` → ``http_server_id``: words in lower case with underscores between them.

    A word begins where a capital follows something that is none, and at the last of several capitals
    where a small letter follows it (``URLs`` is one word nevertheless). A name without any small
    letter has only the words that it shows by separators: ``ORDER_LINE2B`` → ``order_line2b``.
    """
    text = _SEPARATORS.sub("_", _AROUND_UNDERSCORES.sub(r"\1", name))
    kinds = _kinds(text)
    if "l" not in kinds:
        return text.lower()
    starts = [i for i in range(1, len(text)) if _begins_word(kinds, i, text)]
    parts = [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]
    return "_".join(parts).lower()


def _kinds(text: str) -> str:
    """One letter for each character: U capital, l small, o other letter, d digit, _ underscore, x anything else.
    A combining mark is what it stands on."""
    kinds: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Lu", "Lt"):
            kinds.append("U")
        elif category == "Ll":
            kinds.append("l")
        elif category.startswith("M") and kinds:
            kinds.append(kinds[-1])
        else:
            kinds.append("_" if character == "_" else "o" if category[0] == "L" else "d" if category[0] == "N" else "x")
    return "".join(kinds)


def _begins_word(kinds: str, i: int, text: str) -> bool:
    if kinds[i] != "U" or unicodedata.category(text[i]).startswith("M"):
        return False
    before = kinds[i - 1]
    if before in "lod":
        return True
    # The last capital before a small letter: HTTP|Server. Marks belong to their letters.
    after = i + 1
    while after < len(text) and unicodedata.category(text[after]).startswith("M"):
        after += 1
    if before != "U" or after >= len(text) or kinds[after] != "l":
        return False
    # A plural's s ends its word: URLs, UserIDs, VIPsOnly.
    plural = text[after] == "s" and (after + 1 == len(text) or kinds[after + 1] not in "lo")
    return not plural


def fold(name: str) -> str:
    """What two names have in common that differ only in letter case, underscores and what ``snake`` writes
    as underscores."""
    return _SEPARATORS.sub("", name.replace("_", "")).casefold()


def fold_table(name: TableName) -> tuple[str | None, str]:
    return None if name.schema is None else fold(name.schema), fold(name.name)


class Matched(msgspec.Struct, Generic[T], frozen=True):
    """Names of the source → names of the target, and the groups (ours, theirs) of which none can be told."""

    pairs: dict[T, T]
    ambiguous: list[tuple[list[T], list[T]]]


def match_loosely(ours: Sequence[T], theirs: Sequence[T], key: Callable[[T], Hashable]) -> Matched[T]:
    """Pairs the names whose ``key`` is the same.

    Several names of one key are no riddle where both sides have the very same ones; else they are
    ambiguous, even if one of them has its like on the other side: which one was meant is the user's to say.
    """
    groups: dict[Hashable, tuple[list[T], list[T]]] = {}
    for side, names in enumerate((ours, theirs)):
        for name in dict.fromkeys(names):
            groups.setdefault(key(name), ([], []))[side].append(name)
    matched: Matched[T] = Matched({}, [])
    for mine, others in groups.values():
        if not mine or not others:
            continue
        if set(mine) == set(others):
            matched.pairs.update((name, name) for name in mine)
        elif len(mine) == len(others) == 1:
            matched.pairs[mine[0]] = others[0]
        else:
            matched.ambiguous.append((mine, others))
    return matched


def name_problems(names: Sequence[tuple[TableName, TableName]], caps: Capabilities) -> list[str]:
    """Target names that are too long, need schemas that are not there, or collide. names: (source, target)."""
    problems = []
    seen: dict[tuple[str | None, str], tuple[TableName, TableName]] = {}
    for source, name in names:
        if name.schema is not None and not caps.schemas:
            problems.append(
                f"table {str(name)!r}: {caps.engine} has no schemas; give it a name with --table {name}:NEWNAME"
            )
        if is_own(name.name):
            problems.append(f"table {str(name)!r}: the name is kept for rowferry's own tables; give it another")
        folded = (name.schema, name.name)
        if caps.names_fold_case:
            folded = (name.schema and name.schema.lower(), name.name.lower())
        if folded in seen:
            one, its = seen[folded]
            what = f"would both be named {str(name)!r}" if its == name else f"would have one name in {caps.engine}"
            problems.append(f"tables {str(one)!r} and {str(source)!r} {what}; rename one with --table NAME:NEWNAME")
        seen[folded] = (source, name)
        problems += [f"table {str(name)!r}: {p}" for p in length_problem(name.name, caps)]
    return problems


def length_problem(name: str, caps: Capabilities) -> list[str]:
    """Why the target takes no such name, of a table or a column; nothing if it does."""
    if not name and not caps.names_empty:
        return [f"{caps.engine} has no empty names"]
    if caps.names_unfit is not None and (found := re.search(caps.names_unfit, name)):
        return [f"the name {name[:20]!r} has {found[0]!r} in it, which {caps.engine} does not take there"]
    if caps.name_max is None:
        return []
    length = len(name.encode()) if caps.name_in_bytes else len(name)
    if length <= caps.name_max:
        return []
    return [
        f"the name {name[:20]!r}… is {length} {'bytes' if caps.name_in_bytes else 'characters'} long; "
        f"{caps.engine} holds {caps.name_max}"
    ]
