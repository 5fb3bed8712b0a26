"""Ready-made rules for personal data: hash (a token in the place of a value) and redact (less of it, or none).

The key of a hash comes from an environment variable and stays inside the functions made here: no struct, error,
plan or ledger holds it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import conversion, value_text
from rowferry.stages.flow import OutColumn
from rowferry.stages.ready_shapes import Action, Worked, free_text, wrong
from rowferry.stages.spec import Rule
from rowferry.types import Type

#: A key is a secret only if it cannot be tried out: 128 bits at the least (bytes).
KEY_BYTES_MIN = 16
#: BLAKE2b's own bound on its key (bytes).
BLAKE2B_KEY_BYTES_MAX = 64
TOKEN_BYTES = 32
#: A base32 token has 26 characters of 128 bits: among 10^12 values two are alike with probability 10^-15.
BASE32_BYTES = 16

#: Hex digits that tell keys apart in a ledger.
_MARK_DIGITS = 16

#: Kinds of which each value has one text, whatever the column's width, so that a token is the same everywhere.
_AS_TEXT = ("bool", "text", "char", "enum", "uuid", "opaque", "timetz", "date", "time", "timestamp", "timestamptz")
_NUMBERS = ("decimal", "numeric")
MASK = "*"
_HIDDEN = "***"


def hash(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """A token for each value: the same for the same value and key in every run, table and column; NULL stays NULL."""
    kind = column.type.kind
    if not (kind in _AS_TEXT or kind in _NUMBERS or kind == "binary" or column.type.is_integer):
        raise wrong(f"a value of type {column.type} has no one text that could be hashed", column, table)
    algorithm, encoding = rule.algorithm or "hmac-sha256", rule.encoding or "hex"
    if algorithm not in ("hmac-sha256", "blake2b"):
        raise wrong(f"algorithm is {algorithm!r}", column, table, hint="it is hmac-sha256 or blake2b")
    if encoding not in ("hex", "base32"):
        raise wrong(f"encoding is {encoding!r}", column, table, hint="it is hex or base32")
    key = _key(rule, algorithm, column, table)
    token = _tokens(algorithm, key)
    size = TOKEN_BYTES if encoding == "hex" else BASE32_BYTES
    type_ = Type("text", length=64 if encoding == "hex" else 26)

    def run(array: pa.Array) -> Worked:
        # Values that come again (foreign keys, towns) are hashed once a batch.
        encoded = _as_bytes(array, column.type).dictionary_encode()
        digests = b"".join(token(value)[:size] for value in encoded.dictionary.to_pylist())
        written = _hex(digests, size) if encoding == "hex" else _base32(digests, size)
        result = pc.take(written, encoded.indices)
        return Worked(result, len(result) - result.null_count)

    return Action(type_, run, inputs={f"key in {rule.key_env}": _mark(key)})


def _mark(key: bytes) -> str:
    """What tells one key from another: a token as the target holds thousands of, which tells as little of the key."""
    return hmac.digest(key, b"rowferry: which key this is", "sha256").hex()[:_MARK_DIGITS]


def _key(rule: Rule, algorithm: str, column: OutColumn, table: str) -> bytes:
    """The key itself. No message tells more of it than its length."""
    assert rule.key_env is not None
    value = os.environ.get(rule.key_env)
    if value is None:
        raise wrong(f"the environment has no {rule.key_env}, which key_env names", column, table)
    key = value.encode(errors="surrogateescape")
    if len(key) < KEY_BYTES_MIN:
        raise wrong(
            f"the key in {rule.key_env} has {len(key)} bytes",
            column,
            table,
            hint=f"give it {KEY_BYTES_MIN} or more, from a random source: openssl rand -hex 32",
        )
    if algorithm == "blake2b" and len(key) > BLAKE2B_KEY_BYTES_MAX:
        raise wrong(
            f"the key in {rule.key_env} has {len(key)} bytes, and blake2b takes {BLAKE2B_KEY_BYTES_MAX} at the most",
            column,
            table,
            hint="shorten it, or use hmac-sha256",
        )
    return key


def _tokens(algorithm: str, key: bytes) -> Callable[[bytes], bytes]:
    if algorithm == "blake2b":
        keyed = hashlib.blake2b(key=key, digest_size=TOKEN_BYTES)

        def blake2b(value: bytes) -> bytes:
            state = keyed.copy()
            state.update(value)
            return state.digest()

        return blake2b
    # HMAC of RFC 2104, with both of its states made once: hmac.digest makes them for each value, at 2.8 times the cost.
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def hmac_sha256(value: bytes) -> bytes:
        inside, outside = inner.copy(), outer.copy()
        inside.update(value)
        outside.update(inside.digest())
        return outside.digest()

    return hmac_sha256


def _as_bytes(array: pa.Array, type_: Type) -> pa.Array:
    """Each value's one text as bytes: integers, decimals and numerics of the same number are the same text."""
    kind = type_.kind
    if kind == "binary":
        return array.cast(pa.binary())
    if kind == "uuid":
        array = _converted(array, type_)
    elif type_.is_integer:
        array = array.cast(pa.utf8())
    elif kind in _NUMBERS:
        if kind == "decimal":
            array = _converted(array, type_, Type("numeric"))
        array = pc.replace_substring_regex(array, pattern=r"^(-?\d+\.\d*?)0+$", replacement=r"\1")
        array = pc.replace_substring_regex(array, pattern=r"\.$", replacement="")
        array = pc.replace_substring_regex(array, pattern="^-0$", replacement="0")
    elif not pa.types.is_string(array.type):
        texts = [value_text(array, row, type_) for row in range(len(array))]
        array = pa.array(texts, pa.utf8())
    return array.cast(pa.binary())


def _converted(array: pa.Array, form: Type, to: Type | None = None) -> pa.Array:
    way = conversion(form, to or Type("text"))
    assert not isinstance(way, str)
    return way.apply(array)[0]


def _hex(digests: bytes, size: int) -> pa.Array:
    return _texts(digests.hex().encode(), 2 * size, len(digests) // size)


def _base32(digests: bytes, size: int) -> pa.Array:
    pieces: Iterable[bytes] = (digests[at : at + size] for at in range(0, len(digests), size))
    written = b"".join(base64.b32encode(piece)[:26] for piece in pieces)
    return _texts(written.lower(), 26, len(digests) // size)


def _texts(data: bytes, width: int, count: int) -> pa.Array:
    fixed = pa.Array.from_buffers(pa.binary(width), count, [None, pa.py_buffer(data)])
    return fixed.cast(pa.binary()).cast(pa.utf8())


def redact(rule: Rule, column: OutColumn, table: str, target_length: int | None) -> Action:
    """Less of each value, or nothing; NULL stays NULL. ``how`` says what is left (docs/READY_MADE.md)."""
    how = rule.how or "fixed"
    makers = {"fixed": _fixed, "keep_first": _kept, "keep_last": _kept, "email": _email, "shape": _shape}
    if how not in makers:
        raise wrong(f"how is {how!r}", column, table, hint=f"it is one of {', '.join(makers)}")
    if how not in ("keep_first", "keep_last") and rule.keep is not None:
        raise wrong(f"how = {how} takes no keep", column, table)
    if how == "shape" and rule.replacement is not None:
        raise wrong("how = shape takes no replacement", column, table)
    if how != "fixed" or rule.replacement is not None:
        free_text(rule, column, table)
    return makers[how](rule, column, table)


def _fixed(rule: Rule, column: OutColumn, table: str) -> Action:
    """The same value for all; without a replacement NULL, which any type has."""
    if rule.replacement is None:
        null = pa.scalar(None, column.type.arrow)

        def clear(array: pa.Array) -> Worked:
            return Worked(pa.repeat(null, len(array)), len(array) - array.null_count)

        return Action(column.type, clear, makes_null=True)
    value = rule.replacement.rstrip(" ") if column.type.kind == "char" else rule.replacement
    length = column.type.length
    if length is not None and len(value) > length:
        raise wrong(f"the replacement has {len(value)} characters, and the column {length}", column, table)

    def run(array: pa.Array) -> Worked:
        return Worked(pc.if_else(pc.is_valid(array), value, array), len(array) - array.null_count)

    return Action(_text_type(column), run)


def _kept(rule: Rule, column: OutColumn, table: str) -> Action:
    """The first or last ``keep`` characters; one mask for each of the others. What has no more than ``keep``
    characters would stand there whole, so all of it is masked."""
    if rule.keep is None or rule.keep < 1:
        raise wrong(f"how = {rule.how} needs keep, the number of characters (1 or more)", column, table)
    mask, keep = MASK if rule.replacement is None else rule.replacement, rule.keep
    if len(mask) != 1:
        raise wrong(f"the replacement {mask!r} is to stand for one character", column, table)
    last = rule.how == "keep_last"

    def run(array: pa.Array) -> Worked:
        lengths = pc.utf8_length(array)
        hidden = pc.if_else(pc.greater(lengths, keep), pc.subtract(lengths, keep), lengths)
        masks = pc.binary_repeat(pa.scalar(mask), hidden)
        if last:
            rest = pc.utf8_slice_codeunits(array, -keep)
            parts = (masks, rest)
        else:
            rest = pc.utf8_slice_codeunits(array, 0, keep)
            parts = (rest, masks)
        result = pc.if_else(pc.greater(lengths, keep), pc.binary_join_element_wise(*parts, ""), masks)
        return Worked(result, len(array) - array.null_count)

    return Action(_text_type(column), run)


def _email(rule: Rule, column: OutColumn, table: str) -> Action:
    """``***@example.com``: what stands before the last @ goes; a value without one goes whole."""
    hidden = _HIDDEN if rule.replacement is None else rule.replacement
    type_ = _text_type(column)
    if type_.length is not None:
        # What is hidden may have been shorter than what stands for it.
        type_ = msgspec.structs.replace(type_, length=type_.length + len(hidden))

    def run(array: pa.Array) -> Worked:
        domain = pc.replace_substring_regex(array, pattern=r"(?s)^.*@", replacement="@")
        domain = pc.if_else(pc.match_substring(array, pattern="@"), domain, pc.if_else(pc.is_valid(array), "", array))
        return Worked(pc.binary_join_element_wise(hidden, domain, ""), len(array) - array.null_count)

    return Action(type_, run)


#: Letters become x and X, digits 0; what stands between them is left.
_SHAPES = ((r"[\p{Lu}\p{Lt}]", "X"), (r"[\p{Ll}\p{Lm}\p{Lo}]", "x"), (r"\p{N}", "0"))


def _shape(rule: Rule, column: OutColumn, table: str) -> Action:
    def run(array: pa.Array) -> Worked:
        result = array
        for pattern, letter in _SHAPES:
            result = pc.replace_substring_regex(result, pattern=pattern, replacement=letter)
        return Worked(result, len(array) - array.null_count)

    return Action(_text_type(column), run)


def _text_type(column: OutColumn) -> Type:
    """What is left of an engine's own type is plain text."""
    return Type("text") if column.type.kind == "opaque" else column.type
