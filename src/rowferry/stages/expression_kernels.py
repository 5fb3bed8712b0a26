"""Expressions that Arrow's kernels work out just as DuckDB would, at a fraction of the cost and without loading it.

What :mod:`expression_syntax` reads is given a type and a kernel here, where DuckDB's rules are known to the letter:
texts (lower, upper, trim, ||, concat, replace, left, substring, length …), conditions, CASE, COALESCE, NULLIF, and
numbers by :mod:`expression_numbers`. Everything else is DuckDB's. So is each batch that holds a value on which a
kernel cannot decide: of texts beyond ASCII DuckDB's own tables say what is a space and which letter is the lower one
of which, and it alone says how a sum fails that overflows.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from rowferry import compute as pc
from rowferry.stages import expression_numbers as numbers
from rowferry.stages.expression_numbers import BOOL, LITERAL, NULL, TEXT, Kernel, Typed, Undecided, as_type, constant
from rowferry.stages.expression_query import refusal
from rowferry.stages.expression_syntax import Node, columns
from rowferry.types import FLOATS, Type

#: Unary functions of text: of ASCII DuckDB's trims take the space alone.
_ASCII: dict[str, Callable[[Any], Any]] = {
    "lower": lambda a: pc.ascii_lower(a),
    "upper": lambda a: pc.ascii_upper(a),
    "trim": lambda a: pc.ascii_trim(a, characters=" "),
    "ltrim": lambda a: pc.ascii_ltrim(a, characters=" "),
    "rtrim": lambda a: pc.ascii_rtrim(a, characters=" "),
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: pc.equal(a, b),
    "<>": lambda a, b: pc.not_equal(a, b),
    "<": lambda a, b: pc.less(a, b),
    "<=": lambda a, b: pc.less_equal(a, b),
    ">": lambda a, b: pc.greater(a, b),
    ">=": lambda a, b: pc.greater_equal(a, b),
}
_NUMBERS = ("+", "-", "*", "/", "abs", "round")
#: Days that every calendar has: the years 1 to 9999.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY_US = 86_400_000_000
#: Items of an IN that are compared one after the other.
_ITEMS_MAX = 8
_DECIMAL = re.compile(r"DECIMAL\(([0-9]+),([0-9]+)\)")
#: DuckDB's types of casts, but for decimals.
_TYPES = {
    "TINYINT": Type("int8"), "SMALLINT": Type("int16"), "INTEGER": Type("int32"), "BIGINT": Type("int64"),
    "DOUBLE": Type("float64"), "VARCHAR": TEXT,
}  # fmt: skip
#: Columns whose values are all the same within DuckDB.
_PLAIN = (*numbers._BITS, *FLOATS, "bool", "date")


class Compiled(NamedTuple):
    """An expression that needs no DuckDB while its kernel decides: what it gives, and the columns that it reads."""

    type: Type
    run: Kernel
    reads: tuple[int, ...]


def compiled(node: Node, types: Sequence[Type], started: datetime.datetime) -> Compiled | None:
    """The expression as kernels; None where DuckDB is needed. types: of the columns; started: what now() is."""
    try:
        made = _Compiler(types, started).typed(node, ascii_only=False)
        if made.type in (LITERAL, NULL):
            return None
    except Undecided:
        return None
    reads = tuple(sorted(columns(node)))
    if not reads and node.kind not in ("present", "text", "boolean"):
        return None
    return Compiled(made.type, made.run, reads)


class _Compiler:
    def __init__(self, types: Sequence[Type], started: datetime.datetime) -> None:
        self._types = types
        self._started = started.astimezone(datetime.UTC)

    def typed(self, node: Node, ascii_only: bool = False) -> Typed:
        """ascii_only: a function that depends on it stands above."""
        if node.kind == "column":
            return self._column(node.value, ascii_only)
        if node.kind == "text":
            if ascii_only and not node.value.isascii():
                raise Undecided
            return constant(node.value, TEXT)
        if node.kind == "integer":
            return Typed(LITERAL, _no_kernel, node.value)
        if node.kind == "decimal":
            return Typed(LITERAL, _no_kernel, numbers.digits(node.value))
        if node.kind == "boolean":
            return constant(node.value, BOOL)
        if node.kind == "null":
            return Typed(NULL, _no_kernel)
        if node.kind == "present":
            return self._present(node.value)
        if node.kind in ("cast", "try_cast"):
            return self._cast(node, ascii_only)
        if node.kind == "call":
            return self._call(node, ascii_only)
        if node.kind == "case":
            return self._case(node, ascii_only)
        return self._condition(node)

    def _column(self, index: int, ascii_only: bool) -> Typed:
        t = self._types[index]
        if t.kind in ("text", "char"):
            return Typed(TEXT, _ascii(index) if ascii_only else _column(index))
        if t.kind in _PLAIN:
            return Typed(Type(t.kind), _column(index))
        if t.kind == "decimal" and refusal(t) is None:
            return Typed(t, _column(index))
        if t.kind in ("timestamp", "timestamptz") and t.unit == "us":
            run = _column(index)
            return Typed(Type(t.kind, unit="us"), lambda arrays: _plain_times(run(arrays)))
        raise Undecided

    def _present(self, kind: str) -> Typed:
        if kind == "DATE":
            return constant(self._started.date(), Type("date"))
        return constant(self._started, Type("timestamptz", unit="us"))

    # Texts and numbers.

    def _call(self, node: Node, ascii_only: bool) -> Typed:
        name = node.value
        if name in _NUMBERS:
            return self._number(node, name)
        if name in ("year", "month", "day"):
            return self._date_part(node, name)
        if name in ("~~", "!~~"):
            return self._like(node)
        if name == "coalesce":
            return self._coalesce(node, ascii_only)
        if name == "nullif":
            return self._nullif(node, ascii_only)
        if name in _ASCII:
            function, inner = _ASCII[name], self._text(node.parts[0], ascii_only=True)
            return Typed(TEXT, lambda arrays: function(inner(arrays)))
        if name in ("||", "concat"):
            return self._joined(node, name, ascii_only)
        if name == "length":
            inner = self._text(node.parts[0], ascii_only=False)
            return Typed(Type("int64"), lambda arrays: pc.cast(pc.utf8_length(inner(arrays)), pa.int64()))
        if name == "replace":
            return self._replaced(node, ascii_only)
        if name in ("left", "substr", "substring"):
            return self._part(node, ascii_only)
        if name in ("starts_with", "contains"):
            inner, sought = self._text(node.parts[0], ascii_only=False), _constant_text(node.parts[1])
            search = {"starts_with": "starts_with", "contains": "match_substring"}[name]
            return Typed(BOOL, lambda arrays: getattr(pc, search)(inner(arrays), pattern=sought))
        raise Undecided

    def _number(self, node: Node, name: str) -> Typed:
        if name == "round":
            value, scale = self.typed(node.parts[0]), node.parts[1] if len(node.parts) > 1 else Node("integer", 0)
            return numbers.rounded(value, scale.value if scale.kind == "integer" else -1)
        parts = [self.typed(part) for part in node.parts]
        if len(parts) == 1:
            return numbers.negated(parts[0]) if name == "-" else numbers.absolute(parts[0])
        return numbers.divided(*parts) if name == "/" else numbers.arithmetic(name, *parts)

    def _date_part(self, node: Node, name: str) -> Typed:
        made = self.typed(node.parts[0])
        if made.type.kind != "date":
            raise Undecided
        return Typed(Type("int64"), lambda arrays: getattr(pc, name)(_plain_days(made.run(arrays))))

    def _like(self, node: Node) -> Typed:
        """DuckDB's LIKE knows no character that escapes, where none is given."""
        inner, pattern = self._text(node.parts[0], ascii_only=False), _constant_text(node.parts[1])
        if "\\" in pattern:
            raise Undecided
        if node.value == "~~":
            return Typed(BOOL, lambda arrays: pc.match_like(inner(arrays), pattern=pattern))
        return Typed(BOOL, lambda arrays: pc.invert(pc.match_like(inner(arrays), pattern=pattern)))

    def _text(self, node: Node, ascii_only: bool) -> Kernel:
        made = self.typed(node, ascii_only)
        if made.type != TEXT:
            raise Undecided
        return made.run

    def _joined(self, node: Node, name: str, ascii_only: bool) -> Typed:
        parts = [self._text(part, ascii_only) for part in _flat(node, name)]
        if name == "||":
            return Typed(TEXT, lambda arrays: pc.binary_join_element_wise(*(part(arrays) for part in parts), ""))
        # Not null_handling="skip": of a row of NULLs alone it makes no row at all (pyarrow 26).
        return Typed(
            TEXT, lambda arrays: pc.binary_join_element_wise(*(pc.fill_null(part(arrays), "") for part in parts), "")
        )

    def _replaced(self, node: Node, ascii_only: bool) -> Typed:
        inner, sought, new = self._text(node.parts[0], ascii_only), _constant_text(node.parts[1]), node.parts[2]
        if new.kind != "text" or (ascii_only and not new.value.isascii()):
            raise Undecided
        return Typed(TEXT, lambda arrays: pc.replace_substring(inner(arrays), pattern=sought, replacement=new.value))

    def _part(self, node: Node, ascii_only: bool) -> Typed:
        """left(text, count), substring(text, first, count) with plain positive numbers."""
        inner = self._text(node.parts[0], ascii_only)
        places = [part.value if part.kind == "integer" else -1 for part in node.parts[1:]]
        first, count = (1, *places)[-2:]
        if first < 1 or not 0 <= count <= 2**31 - 1 or first + count > 2**31:
            raise Undecided
        return Typed(
            TEXT, lambda arrays: pc.utf8_slice_codeunits(inner(arrays), start=first - 1, stop=first - 1 + count)
        )

    def _cast(self, node: Node, ascii_only: bool) -> Typed:
        """TRY_CAST is the same where nothing fails."""
        found = _DECIMAL.fullmatch(node.value)
        if node.value == "DATE":
            return self._as_date(node.parts[0])
        if node.value == "TIMESTAMP":
            return _time(node.parts[0], "timestamp")
        to = numbers.decimal_type(int(found[1]), int(found[2])) if found else _TYPES[node.value]
        return numbers.cast(self.typed(node.parts[0], ascii_only), to)

    def _as_date(self, node: Node) -> Typed:
        if node.kind == "text":
            return _date(node)
        made = self.typed(node)
        if made.type.kind != "timestamp":
            raise Undecided
        return Typed(Type("date"), lambda arrays: pc.cast(made.run(arrays), pa.date32()))

    # What chooses.

    def _coalesce(self, node: Node, ascii_only: bool) -> Typed:
        parts = [self.typed(part, ascii_only) for part in node.parts]
        t = numbers.common(parts)
        kernels = [as_type(part, t) for part in parts if part.type != NULL]
        return Typed(t, lambda arrays: pc.coalesce(*(kernel(arrays) for kernel in kernels)))

    def _nullif(self, node: Node, ascii_only: bool) -> Typed:
        one, other = (self.typed(part, ascii_only) for part in node.parts)
        if one.literal is not None or NULL in (one.type, other.type) or numbers.common((one, other)) != one.type:
            raise Undecided
        left, right = numbers.compared(one, other)
        null = pa.scalar(None, one.type.arrow)

        def run(arrays: Sequence[Any]) -> Any:
            value = one.run(arrays)
            return pc.if_else(pc.fill_null(pc.equal(left(arrays), right(arrays)), False), null, value)

        return Typed(one.type, run)

    def _case(self, node: Node, ascii_only: bool) -> Typed:
        conditions = [self._bool(part) for part in node.parts[:-1:2]]
        values = [self.typed(part, ascii_only) for part in (*node.parts[1::2], node.parts[-1])]
        t = numbers.common(values)
        null = pa.scalar(None, t.arrow)
        kernels = [(lambda _: null) if value.type == NULL else as_type(value, t) for value in values]

        def run(arrays: Sequence[Any]) -> Any:
            result = kernels[-1](arrays)
            for condition, kernel in zip(reversed(conditions), reversed(kernels[:-1]), strict=True):
                result = pc.if_else(pc.fill_null(condition(arrays), False), kernel(arrays), result)
            return result

        return Typed(t, run)

    # Conditions.

    def _bool(self, node: Node) -> Kernel:
        made = self.typed(node)
        if made.type != BOOL:
            raise Undecided
        return made.run

    def _condition(self, node: Node) -> Typed:
        if node.kind in ("and", "or"):
            return Typed(BOOL, self._connected(node))
        if node.kind == "not":
            inner = self._bool(node.parts[0])
            return Typed(BOOL, lambda arrays: pc.invert(inner(arrays)))
        if node.kind in ("is null", "is not null"):
            return Typed(BOOL, self._is_null(node))
        if node.kind == "compare":
            return Typed(BOOL, self._compared(node.value, *node.parts))
        if node.kind == "between":
            value, low, high = node.parts
            above, below = self._compared(">=", value, low), self._compared("<=", value, high)
            return Typed(BOOL, lambda arrays: pc.and_kleene(above(arrays), below(arrays)))
        if node.kind == "in":
            value, *items = node.parts
            if len(items) > _ITEMS_MAX:
                raise Undecided
            return Typed(BOOL, _either([self._compared("=", value, item) for item in items]))
        raise Undecided

    def _connected(self, node: Node) -> Kernel:
        parts = [self._bool(part) for part in node.parts]
        if node.kind == "or":
            return _either(parts)

        def run(arrays: Sequence[Any]) -> Any:
            result = parts[0](arrays)
            for part in parts[1:]:
                result = pc.and_kleene(result, part(arrays))
            return result

        return run

    def _is_null(self, node: Node) -> Kernel:
        inner = self._any_column(node.parts[0])
        if node.kind == "is null":
            return lambda arrays: pc.is_null(inner(arrays))
        return lambda arrays: pc.is_valid(inner(arrays))

    def _any_column(self, node: Node) -> Kernel:
        """Whether a column is NULL is seen without its values, whatever its type is within DuckDB."""
        if node.kind == "column" and refusal(self._types[node.value]) is None:
            return _column(node.value)
        made = self.typed(node)
        if made.type in (LITERAL, NULL):
            raise Undecided
        return made.run

    def _compared(self, operator: str, left: Node, right: Node) -> Kernel:
        parts = [self.typed(left), self.typed(right)]
        if NULL in (parts[0].type, parts[1].type):
            raise Undecided
        for index in (0, 1):
            # A text beside a date or a time is read as one.
            node, kind = (left, right)[index], parts[1 - index].type.kind
            if node.kind == "text" and kind in ("date", "timestamp", "timestamptz"):
                parts[index] = _date(node) if kind == "date" else _time(node, kind)
        function = _COMPARISONS[operator]
        one, other = numbers.compared(*parts)
        return lambda arrays: function(one(arrays), other(arrays))


def _either(parts: Sequence[Kernel]) -> Kernel:
    def run(arrays: Sequence[Any]) -> Any:
        result = parts[0](arrays)
        for part in parts[1:]:
            result = pc.or_kleene(result, part(arrays))
        return result

    return run


def _no_kernel(arrays: Sequence[Any]) -> Any:
    raise AssertionError("a literal that was given no type")


def _flat(node: Node, name: str) -> list[Node]:
    """The parts of a || b || c, however its parentheses are."""
    if node.kind != "call" or node.value != name:
        return [node]
    return [part for argument in node.parts for part in _flat(argument, name)]


def _constant_text(node: Node) -> str:
    if node.kind != "text" or not node.value:
        raise Undecided
    return str(node.value)


def _date(node: Node) -> Typed:
    if node.kind != "text" or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", node.value):
        raise Undecided
    try:
        return constant(datetime.date.fromisoformat(node.value), Type("date"))
    except ValueError:
        raise Undecided from None


def _time(node: Node, kind: str) -> Typed:
    """A time that a text spells plainly; of an instant in UTC, which is DuckDB's time zone here."""
    if node.kind != "text" or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2})?", node.value):
        raise Undecided
    try:
        time = datetime.datetime.fromisoformat(node.value)
    except ValueError:
        raise Undecided from None
    zone = datetime.UTC if kind == "timestamptz" else None
    return constant(time.replace(tzinfo=zone), Type(kind, unit="us"))


def _plain_times(times: Any) -> Any:
    """Times, none of which is infinite or far off: some of ours are beyond DuckDB's."""
    extremes = pc.min_max(times.view(pa.int64())).as_py()
    first, last = _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US
    if extremes["min"] is not None and not first <= extremes["min"] <= extremes["max"] < last:
        raise Undecided
    return times


def _plain_days(dates: Any) -> Any:
    """Dates, none of which is infinite or far off."""
    if isinstance(dates, pa.Scalar):
        raise Undecided
    extremes = pc.min_max(dates.view(pa.int32())).as_py()
    if extremes["min"] is not None and not _FIRST_DAY <= extremes["min"] <= extremes["max"] <= _LAST_DAY:
        raise Undecided
    return dates


def _column(index: int) -> Kernel:
    return lambda arrays: arrays[index]


def _ascii(index: int) -> Kernel:
    def column(arrays: Sequence[Any]) -> Any:
        array = arrays[index]
        if not _is_ascii(array):
            raise Undecided
        return array

    return column


def _is_ascii(array: pa.Array) -> bool:
    """Whether no byte of the texts is beyond ASCII (what lies under a NULL counts, too)."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return True
    ends = memoryview(offsets).cast("i")
    return bytes(memoryview(data)[ends[array.offset] : ends[array.offset + len(array)]]).isascii()
