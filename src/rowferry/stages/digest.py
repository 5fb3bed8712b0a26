"""Digests of batches: how two columns are compared, and the sums that prove that they hold the same rows.

The format is docs/DIGEST.md, the hash itself ``ext/row_digest.pyx``. Both sides of a pair of columns
are brought to one *comparison type* (a ``spec`` such as ``number(2)`` or ``list<text>``); digests may
be held against each other only under the same :func:`schema_id`.

>>> way = compare(Type("int32"), Type("decimal", precision=10, scale=2), source_engine="sqlite", target_engine="duckdb")
>>> way.spec
'number(2)'
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from rowferry import compute as pc
from rowferry._native import row_digest
from rowferry.convert.layout import plain_layout
from rowferry.errors import DataError
from rowferry.limits import VERIFY_BUCKETS
from rowferry.model import Comparison, Digest
from rowferry.types import FLOATS, TEXTS, Type, from_arrow

#: Version of the digest format; part of every schema id.
FORMAT_VERSION: int = row_digest.FORMAT_VERSION
#: The Arrow type of digests of rows and keys.
DIGEST = pa.binary(16)
#: Engines that cannot hold −0.0 (SQLite stores a whole REAL as an integer).
UNSIGNED_ZERO_ENGINES = ("sqlite",)
#: Digits that an integer brought to another scale may have; beyond, numbers are compared digit by digit.
NUMBER_DIGITS_MAX = 76

CHAR_RULE = "char(n) without its padding"
VALUE_RULE = "numbers by value, whatever their type"
UNIT_RULE = "times by value, whatever their unit"
ZERO_RULE = "−0.0 counts as 0.0, since SQLite cannot hold it"
FLOAT_RULE = (
    "a float counts as the number that its shortest decimal form spells, a whole one as its exact value; −0.0 as 0"
)
FLOAT_WIDTH_RULE = "float32 widened exactly"
TEXT_NUMBER_RULE = "a text counts as the number that it spells, if it spells one"
BOOL_RULE = "false counts as 0 and true as 1"
UUID_TEXT_RULE = "a uuid counts as its text in lower case"
UUID_BYTES_RULE = "a uuid counts as its 16 bytes"
DATE_RULE = "a date counts as its midnight"
TIME_RULE = "a time counts as the duration since midnight"
DURATION_RULE = "a duration counts as an interval without months and days"
JSON_RULE = "JSON by value: keys sorted, the last of duplicate keys, numbers by value"
TEXT_RULE = "by the text that stands for the value"
PLACE_RULE = "struct fields by their place"

#: From here on every float of the width is whole, and its shortest form may not be its value.
_WHOLE_FLOATS_FROM = {pa.float32(): 2.0**24, pa.float64(): 2.0**53}


class _Way(NamedTuple):
    spec: str
    rules: tuple[str, ...] = ()


def compare(source: Type, target: Type, *, source_engine: str, target_engine: str) -> Comparison | None:
    """How values of two types are compared; None where no value of one could equal one of the other.

    The spec is the type to which both are brought before they are hashed; the rules say in plain
    words what counts as equal that is not the same value of the same type.
    """
    unsigned_zero = source_engine in UNSIGNED_ZERO_ENGINES or target_engine in UNSIGNED_ZERO_ENGINES
    way = _pair(source, target, unsigned_zero, nested=False)
    if way is None:
        return None
    return Comparison(source, target, way.spec, tuple(dict.fromkeys(way.rules)))


def schema_id(comparisons: Sequence[Comparison]) -> str:
    """32 hex digits that name what a digest means: the format's version, the ordered specs and their rules."""
    lines = [f"rowferry digest {FORMAT_VERSION}", *("\t".join((c.spec, *c.rules)) for c in comparisons)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


# --- which comparison type -------------------------------------------------------------------


def _pair(source: Type, target: Type, unsigned_zero: bool, nested: bool) -> _Way | None:
    if source.kind in ("list", "struct", "map") or target.kind in ("list", "struct", "map"):
        return _nested_pair(source, target, unsigned_zero)
    kinds = {source.kind, target.kind}
    if all(_is_number(t) for t in (source, target)):
        return _number_pair(source, target, unsigned_zero, nested)
    if kinds <= {"text", "char"} | set(TEXTS):
        return _text_pair(source, target)
    if "bool" in kinds:
        return _bool_pair(source, target)
    if kinds & {"text", "char"}:
        return _pair_with_text(source, target)
    if "uuid" in kinds or "binary" in kinds:
        return _binary_pair(kinds)
    if "wire" in kinds:
        same = source.kind == target.kind and source.native == target.native
        return _Way(f"wire({_quoted(source.native or '')})") if same else None
    return _time_pair(source, target, nested)


def _quoted(text: str) -> str:
    """A name inside a spec: without the characters that a spec is made of."""
    return "".join(c if c not in "%(),<>" and c.isprintable() else f"%{ord(c):02x}" for c in text)


def _is_number(t: Type) -> bool:
    return t.is_integer or t.kind in FLOATS or t.kind in ("decimal", "numeric")


def _number_pair(source: Type, target: Type, unsigned_zero: bool, nested: bool) -> _Way | None:
    floats = [t.kind in FLOATS for t in (source, target)]
    if all(floats):
        rules = (FLOAT_WIDTH_RULE,) if source.kind != target.kind else ()
        return _Way("float(unsigned zero)", (*rules, ZERO_RULE)) if unsigned_zero else _Way("float", rules)
    if any(floats):
        # Inside lists and structs floats are never brought to text, so they have no common form there.
        return None if nested else _Way("numeric", (FLOAT_RULE,))
    same = (source.kind, source.scale) == (target.kind, target.scale)
    rules = () if same else (VALUE_RULE,)
    if "numeric" in (source.kind, target.kind):
        return _Way("numeric", rules)
    scale = max(source.scale or 0, target.scale or 0)
    digits = max((t.precision or 20) + scale - (t.scale or 0) for t in (source, target))
    if digits > NUMBER_DIGITS_MAX and not same:
        return _Way("numeric", rules)
    if same:
        scale = source.scale or 0
    return _Way(f"number({scale})", rules)


def _text_pair(source: Type, target: Type) -> _Way | None:
    kinds = {source.kind, target.kind}
    if kinds == {"numeric"}:
        return _Way("numeric")
    rules = (CHAR_RULE,) if "char" in kinds else ()
    if kinds == {"json", "jsonb"} or (source.kind in ("text", "char") and target.kind == "jsonb"):
        return _Way("json", (*rules, JSON_RULE))
    if kinds == {"opaque"} and source.native != target.native:
        return None
    plain = kinds <= {"text", "char"}
    if len(kinds) == 1 or plain or kinds == {"bit", "varbit"}:
        return _Way("text", rules)
    if kinds & {"text", "char"}:
        return _Way("text", (*rules, TEXT_RULE))
    return None


def _bool_pair(source: Type, target: Type) -> _Way | None:
    other = target if source.kind == "bool" else source
    if other.kind == "bool":
        return _Way("bool")
    return _Way("number(0)", (BOOL_RULE,)) if other.is_integer else None


def _pair_with_text(source: Type, target: Type) -> _Way | None:
    other = target if source.kind in ("text", "char") else source
    rules = (CHAR_RULE,) if "char" in (source.kind, target.kind) else ()
    if other.kind == "uuid":
        return _Way("text", (*rules, UUID_TEXT_RULE))
    if other.is_integer or other.kind == "decimal":
        return _Way("numeric", (*rules, TEXT_NUMBER_RULE))
    return None


def _binary_pair(kinds: set[str]) -> _Way | None:
    if kinds == {"uuid"}:
        return _Way("uuid")
    if kinds == {"binary"}:
        return _Way("binary")
    return _Way("binary", (UUID_BYTES_RULE,)) if kinds == {"uuid", "binary"} else None


def _time_pair(source: Type, target: Type, nested: bool) -> _Way | None:
    kinds = {source.kind, target.kind}
    if kinds == {"time", "duration"} and not nested:  # inside lists times are never brought to durations
        return _Way("duration", (TIME_RULE,))
    if kinds == {"date", "timestamp"}:
        return _Way("timestamp", (DATE_RULE,))
    if kinds == {"duration", "interval"}:
        return _Way("interval", (DURATION_RULE,))
    if len(kinds) == 1 and source.kind in ("date", "time", "timestamp", "timestamptz", "duration", "interval"):
        return _Way(source.kind, (UNIT_RULE,) if source.unit != target.unit else ())
    return None


def _nested_pair(source: Type, target: Type, unsigned_zero: bool) -> _Way | None:
    if source.kind != target.kind:
        return None
    if source.kind == "list":
        assert source.element is not None and target.element is not None
        inner = _pair(source.element, target.element, unsigned_zero, nested=True)
        return None if inner is None else _Way(f"list<{inner.spec}>", inner.rules)
    if len(source.fields) != len(target.fields):
        return None
    specs: list[str] = []
    rules: tuple[str, ...] = ()
    for mine, theirs in zip(source.fields, target.fields, strict=True):
        way = _pair(mine.type, theirs.type, unsigned_zero, nested=True)
        if way is None:
            return None
        specs.append(way.spec)
        rules += way.rules
        if source.kind == "struct" and mine.name != theirs.name:
            rules += (PLACE_RULE,)
    return _Way(f"{source.kind}<{', '.join(specs)}>", rules)


# --- from a spec to what the kernel runs ------------------------------------------------------

_Program = tuple[str, int, tuple[Any, ...]]
_SIMPLE = (
    "bool", "numeric", "float", "text", "binary", "date", "time", "timestamp", "duration", "interval", "uuid", "json",
)  # fmt: skip


def _program(spec: str, t: Type) -> _Program:
    """The kernel's column for a spec, on a side whose type is ``t``. Raises ValueError for no spec."""
    program, rest = _parse(spec, t)
    if rest:
        raise ValueError(f"not a comparison type: {spec!r}")
    return program


def _parse(spec: str, t: Type) -> tuple[_Program, str]:
    end = min((i for i in (spec.find(c) for c in "(<>,") if i >= 0), default=len(spec))
    name, rest = spec[:end], spec[end:]
    argument = ""
    if rest.startswith("("):
        argument, closed, rest = rest[1:].partition(")")
        if not closed:
            raise ValueError(f"not a comparison type: {spec!r}")
    if name in ("list", "struct", "map"):
        return _parse_nested(name, rest, t)
    if name == "number" and argument.lstrip("-").isdigit():
        return ("number", int(argument), ()), rest
    if (name, argument) == ("float", "unsigned zero"):
        return ("float unsigned zero", 0, ()), rest
    if name == "wire":
        return ("binary", 0, ()), rest
    if name == "timestamptz":
        return ("timestamp", 0, ()), rest
    if name == "text" and t.kind == "uuid":
        return ("text of uuid", 0, ()), rest
    if name in _SIMPLE and not argument:
        return (name, 0, ()), rest
    raise ValueError(f"not a comparison type: {spec!r}")


def _parse_nested(name: str, rest: str, t: Type) -> tuple[_Program, str]:
    inner = [t.element] if t.kind == "list" else [f.type for f in t.fields]
    children: list[_Program] = []
    if not rest.startswith("<"):
        raise ValueError(f"not a comparison type: {name}{rest}")
    rest = rest[1:]
    for place, child_type in enumerate(inner):
        assert child_type is not None
        if place:
            if not rest.startswith(", "):
                raise ValueError(f"a comparison type that does not fit {t}")
            rest = rest[2:]
        child, rest = _parse(rest, child_type)
        children.append(child)
    if not rest.startswith(">"):
        raise ValueError(f"a comparison type that does not fit {t}")
    if name == "map":
        return ("map", 0, (("struct", 0, tuple(children)),)), rest[1:]
    return (name, 0, tuple(children)), rest[1:]


# --- digesting --------------------------------------------------------------------------------


class Digester:
    """Sums the digests of batches of one side. One thread at a time; the interpreter lock is released.

    comparisons: of the k columns that every batch has, in their order.
    side: ``source`` | ``target``: whose types the batches carry.
    key: indices of the key columns, in the key's order; without them a row's bucket is of its digest.
    """

    def __init__(self, comparisons: Sequence[Comparison], side: str, key: Sequence[int] = ()) -> None:
        if side not in ("source", "target"):
            raise ValueError(f"side is source or target, not {side!r}")
        types = [c.source if side == "source" else c.target for c in comparisons]
        self._programs = [_program(c.spec, t) for c, t in zip(comparisons, types, strict=True)]
        self._hasher = row_digest.Hasher(self._programs, tuple(key), VERIFY_BUCKETS)
        self._schema: pa.Schema | None = None
        self._rare: list[int] = []

    @property
    def digest(self) -> Digest:
        """Of all rows given to :meth:`add`."""
        rows, total = self._hasher.result()
        return Digest(rows, total)

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds n rows × k columns. Raises DataError: the batch is malformed (nothing of it was added);
        TypeError: a column that cannot be brought to its comparison type."""
        self._call(self._hasher.add, batch)

    def intake(self, schema: pa.Schema) -> Any:
        """What a decoder adds rows to directly, a block at a time, without Arrow arrays between (ext/intake.pxd):
        k columns of these types. None where they cannot come that way, so that they must be given to :meth:`add`."""
        if len(schema) != len(self._programs):
            raise DataError(f"a batch of {len(schema)} columns, where {len(self._programs)} are compared")
        if any(_is_rare(field.type, self._programs[i]) for i, field in enumerate(schema)):
            return None
        return self._hasher.intake(schema)

    def add_buckets(self, batch: pa.RecordBatch) -> None:
        """Adds each row to its bucket. Raises as :meth:`add`; after a DataError the buckets are of no use."""
        self._call(self._hasher.add_buckets, batch)

    def buckets(self) -> list[Digest]:
        """The VERIFY_BUCKETS digests of what :meth:`add_buckets` was given; :func:`merge_buckets` adds up several."""
        return [Digest(rows, total) for rows, total in self._hasher.buckets()]

    def rows(self, batch: pa.RecordBatch) -> tuple[bytes, bytes, memoryview]:
        """(key digests, row digests, buckets) of n rows: 16 n bytes, 16 n bytes, n numbers (uint16).

        Without a key the key digests are the row digests. Adds nothing to any sum.
        """
        keys, rows, buckets = self._call(self._hasher.rows, batch)
        return keys, rows, memoryview(buckets).cast("H")

    def mask(self, batch: pa.RecordBatch, flags: bytes | bytearray) -> pa.BooleanArray:
        """n booleans: True where ``flags`` (VERIFY_BUCKETS bytes) is not 0 at the row's bucket."""
        bits = self._call(self._hasher.select, batch, flags)
        return pa.Array.from_buffers(pa.bool_(), batch.num_rows, [None, pa.py_buffer(bits)])

    def select(self, batch: pa.RecordBatch, flags: bytes | bytearray) -> pa.RecordBatch:
        """The rows of a batch whose bucket is flagged (see :meth:`mask`)."""
        return batch.filter(self.mask(batch, flags))

    def _call(self, method: Any, batch: pa.RecordBatch, *more: Any) -> Any:
        original = batch
        try:
            batch = self._plain(batch)
            sizes = [0 if b is None else b.size for column in batch.columns for b in column.buffers()]
            return method(batch, sizes, *more)
        except pa.ArrowInvalid as error:
            raise DataError(f"a batch that cannot be digested: {error}") from None
        except ValueError as error:
            if len(error.args) != 3:
                raise DataError(f"a batch that cannot be digested: {error}") from None
            message, column, row = error.args
            raise DataError(
                message, column=original.schema.field(column).name, value=f"row {row} of its batch"
            ) from None

    def _plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with its rare layouts (encodings, views, half floats) brought to plain ones."""
        schema = batch.schema
        if self._schema is None or not schema.equals(self._schema):
            if len(schema) != len(self._programs):
                raise DataError(f"a batch of {len(schema)} columns, where {len(self._programs)} are compared")
            self._rare = [i for i, field in enumerate(schema) if _is_rare(field.type, self._programs[i])]
            self._schema = schema
        if not self._rare:
            return batch
        arrays = list(batch.columns)
        for i in self._rare:
            arrays[i] = _plain_array(arrays[i], self._programs[i])
        return pa.RecordBatch.from_arrays(arrays, names=[str(i) for i in range(len(arrays))])


def digest_array(data: bytes) -> pa.Array:
    """16 n bytes as n digests; not copied."""
    return pa.Array.from_buffers(DIGEST, len(data) // 16, [None, pa.py_buffer(data)])


def digest_bytes(digests: pa.Array) -> memoryview:
    """n digests as 16 n bytes; not copied."""
    return memoryview(digests.buffers()[1]).cast("B")[16 * digests.offset : 16 * (digests.offset + len(digests))]


def merge_buckets(parts: Iterable[Sequence[Digest]]) -> list[Digest]:
    """Adds up the buckets of several Digesters (threads, chunks)."""
    total = [Digest()] * VERIFY_BUCKETS
    for part in parts:
        total = [a + b for a, b in zip(total, part, strict=True)]
    return total


def _is_rare(t: pa.DataType, program: _Program) -> bool:
    """True where the kernel does not read the layout itself."""
    if (program[0] == "numeric" and pa.types.is_floating(t)) or (program[0] == "duration" and pa.types.is_time(t)):
        return True
    if isinstance(t, pa.BaseExtensionType):
        return _is_rare(t.storage_type, program)
    if pa.types.is_nested(t) and not pa.types.is_run_end_encoded(t):
        if pa.types.is_list_view(t) or pa.types.is_large_list_view(t):
            return True
        fields = [t.field(i) for i in range(t.num_fields)] if not pa.types.is_map(t) else [t.key_field, t.item_field]
        return any(_is_rare(f.type, ("", 0, ())) for f in fields)
    return bool(
        pa.types.is_dictionary(t)
        or pa.types.is_run_end_encoded(t)
        or pa.types.is_string_view(t)
        or pa.types.is_binary_view(t)
        or pa.types.is_float16(t)
    )


def _plain_array(array: pa.Array, program: _Program) -> pa.Array:
    form = from_arrow(array.type)
    if form is None:
        raise TypeError(f"values of the Arrow type {array.type} cannot be digested")
    array = plain_layout(array, form)
    if program[0] == "numeric" and pa.types.is_floating(array.type):
        return _float_text(array)
    if program[0] == "duration" and pa.types.is_time(array.type):
        unit = "ns" if array.type.unit == "ns" else "us"
        return array.cast(pa.time64(unit)).view(pa.int64()).view(pa.duration(unit))
    return array


def _float_text(array: pa.Array) -> pa.Array:
    """Floats as the shortest decimals that read back as the same float; large whole ones in full."""
    text = array.cast(pa.string())
    whole = pc.and_(pc.greater_equal(pc.abs(array), _WHOLE_FLOATS_FROM[array.type]), pc.is_finite(array))
    if pc.any(whole).as_py():
        exact = pa.array([str(int(v)) for v in array.filter(whole).to_pylist()], pa.string())
        text = pc.replace_with_mask(text, whole, exact)
    return text
