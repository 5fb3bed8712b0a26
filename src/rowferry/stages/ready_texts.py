"""Ready-made rules for text: trim, nul, unicode, truncate. All count characters as code points."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import (
    FREE_TEXTS,
    Action,
    Worked,
    bounded,
    by_value,
    changed,
    free_text,
    replaced,
    wrong,
)
from rowferry.stages.spec import Rule

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
NUL = "\0"
#: One escape of a JSON text: read from the left, so that the backslash of ``\\\\u0000`` is not taken for its.
_JSON_ESCAPE = re.compile(r"\\(u0000|.)", re.DOTALL)


def trim(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """White space (as Unicode has it), or the given characters, off the ends of each value."""
    free_text(rule, column, table)
    if rule.characters == "":
        raise wrong("characters is empty, so that nothing would be trimmed", column, table)
    side = {"both": "", "left": "l", "right": "r"}[rule.side or "both"]
    name = f"utf8_{side}trim" if rule.characters is not None else f"utf8_{side}trim_whitespace"
    options = {"characters": rule.characters} if rule.characters is not None else {}

    def run(array: pa.Array) -> Worked:
        result = getattr(pc, name)(array, **options)
        return Worked(result, changed(array, result))

    return Action(column.type, run)


def nul(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """U+0000, which PostgreSQL cannot store, replaced (``replacement``) or taken out.

    In JSON it is the escape ``\\u0000``, and the replacement is escaped likewise.
    """
    if rule.replacement is not None and NUL in rule.replacement:
        raise wrong("the replacement holds U+0000 itself", column, table)
    if column.type.kind in ("json", "jsonb"):
        return Action(column.type, _json_nul(rule.replacement or ""))
    if column.type.kind not in FREE_TEXTS:
        raise wrong(f"the rule nul is for text and JSON, and this is {column.type}", column, table)
    replacement = rule.replacement or ""

    def run(array: pa.Array) -> Worked:
        # Arrow's kernels take the pattern by its length, so that a NUL is a character like any other.
        found = pc.match_substring(array, pattern=NUL)
        count = pc.sum(found).as_py() or 0
        if not count:
            return Worked(array)
        return Worked(pc.replace_substring(array, pattern=NUL, replacement=replacement), count)

    return Action(column.type, bounded(column.type, run), clamps=True)


def _json_nul(replacement: str) -> Callable[[pa.Array], Worked]:
    escaped = json.dumps(replacement, ensure_ascii=False)[1:-1]

    def clean(text: str) -> str:
        return _JSON_ESCAPE.sub(lambda found: escaped if found[1] == "u0000" else found[0], text)

    def run(array: pa.Array) -> Worked:
        suspects = pc.match_substring(array, pattern="\\u0000")
        result = by_value(array, suspects, clean)
        return Worked(result, changed(array, result))

    return run


def unicode(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """One of the four normalisation forms. Values of ASCII alone, which all forms leave as they are, cost little."""
    free_text(rule, column, table)
    if rule.form not in FORMS:
        raise wrong(f"form is {rule.form!r}", column, table, hint=f"it is one of {', '.join(FORMS)}")
    form = rule.form

    def run(array: pa.Array) -> Worked:
        ascii_only = pc.fill_null(pc.string_is_ascii(array), True)
        if pc.all(ascii_only).as_py() is not False:
            return Worked(array)
        others = pc.invert(ascii_only)
        before = array.filter(others)
        after = pc.utf8_normalize(before, form=form)
        count = changed(before, after)
        return Worked(replaced(array, others, after), count) if count else Worked(array)

    return Action(column.type, bounded(column.type, run), clamps=True)


def truncate(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """The first ``length`` characters, or as many as the target's column holds; ``length_bytes`` bounds their UTF-8.

    No character is split: where its last byte would not fit, it goes whole.
    """
    free_text(rule, column, table)
    for name, value in (("length", rule.length), ("length_bytes", rule.length_bytes)):
        if value is not None and value < 1:
            raise wrong(f"{name} is {value}", column, table, hint="it is 1 or more")
    length, size = rule.length, rule.length_bytes
    if length is None and size is None:
        length = target_length
    # As many bytes never hold more characters.
    most = min((n for n in (length, size, column.type.length) if n is not None), default=None)
    type_ = column.type if column.type.kind == "opaque" else msgspec.structs.replace(column.type, length=most)

    def run(array: pa.Array) -> Worked:
        result, count = array, 0
        if length is not None:
            long = pc.greater(pc.utf8_length(array), length)
            if pc.any(long).as_py():
                result = pc.utf8_slice_codeunits(array, 0, length)
        if size is not None:
            result = by_value(result, pc.greater(pc.binary_length(result), size), lambda text: _cut(text, size))
        if result is not array:
            count = changed(array, result)
        if column.type.kind == "char" and count:
            result = pc.utf8_rtrim(result, characters=" ")
        return Worked(result, count)

    return Action(type_, run)


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
