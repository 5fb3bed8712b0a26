"""convert against a slow model that knows only Python's exact numbers, over values at every boundary."""

from __future__ import annotations

import decimal
import math
import re
import struct
import uuid
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowferry.convert import CHECKS, canonical_array, conversion, value_text
from rowferry.errors import DataError
from rowferry.stages.digest import Digester, compare
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    INTEGERS,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Field,
    Type,
)

D = decimal.Decimal
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def integer_ends(kind: str) -> tuple[int, int]:
    bits = int(kind.lstrip("uint"))
    return (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def array_of(values: list, t: Type) -> pa.Array:
    """Model values (times as integers) as a canonical array."""
    if t.kind in ("timestamp", "timestamptz", "time", "duration"):
        return pa.array(values, pa.int64()).view(t.arrow)
    if t.kind == "date":
        return pa.array(values, pa.int32()).view(t.arrow)
    if t.kind == "decimal":  # by their digits: pyarrow refuses 0.001 for decimal(2, 3)
        digits = [None if v is None else v.scaleb(t.scale, decimal.Context(prec=100)) for v in values]
        return pa.array(digits, dec(t.precision, 0).arrow).view(t.arrow)
    return pa.array(values, t.arrow)


def values_of(array: pa.Array, t: Type) -> list:
    if t.kind in ("timestamp", "timestamptz", "time", "duration"):
        return array.view(pa.int64()).to_pylist()
    if t.kind == "date":
        return array.view(pa.int32()).to_pylist()
    if t.kind == "interval":
        return [None if v is None else (v.months, v.days, v.nanoseconds) for v in array.to_pylist()]
    return array.to_pylist()


def validate(array: pa.Array, t: Type) -> None:
    array.validate(full=t.kind != "time")  # Arrow's full validation knows no 24:00:00


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and a == b


# --- the model: what a value becomes, or None where it has no exact form -------------------------


def exact(value: object) -> Fraction | None:
    """The number that a value is; None for NaN and infinities."""
    if isinstance(value, str):
        value = D(value)
    if isinstance(value, D):
        return Fraction(value) if value.is_finite() else None
    if isinstance(value, float):
        return Fraction(value) if math.isfinite(value) else None
    return Fraction(int(value))


def model(form: Type, to: Type, value: object) -> object:
    """The exact value in ``to``; None where there is none."""
    numbers = (*INTEGERS, "bool", "decimal", "numeric", "float32", "float64")
    if form.kind in numbers and to.kind in numbers:
        return model_number(form, to, value)
    if form.kind in ("text", "char"):
        return model_text(to, value)
    if form.kind == "date":
        return model_infinite(value, form, to) if to.kind == "date" else model_date(to, value)
    return model_time(form, to, value)


def model_number(form: Type, to: Type, value: object) -> object:
    number = exact(value)
    if to.kind in ("float32", "float64"):
        if isinstance(value, float):
            if not math.isfinite(value):
                return value
            narrow = (
                value if to.kind == "float64" or abs(value) > 3.5e38 else struct.unpack("f", struct.pack("f", value))[0]
            )
            return value if narrow == value and (to.kind == "float64" or abs(value) < 3.5e38) else None
        as_float = float(number)
        if to.kind == "float32":
            as_float = struct.unpack("f", struct.pack("f", as_float))[0]
        return as_float if Fraction(as_float) == number else None
    if number is None or (isinstance(value, float) and value == 0 and math.copysign(1, value) < 0):
        return None
    if to.kind == "bool":
        return bool(number) if number in (0, 1) else None
    if to.kind == "numeric":
        return format(value, "f") if isinstance(value, D) else str(value)
    if to.kind == "decimal":
        scaled = number * Fraction(10) ** to.scale
        fits = scaled.denominator == 1 and abs(scaled) < 10**to.precision
        return D(int(scaled)).scaleb(-to.scale, decimal.Context(prec=100)) if fits else None
    low, high = integer_ends(to.kind)
    return int(number) if number.denominator == 1 and low <= number <= high else None


def model_text(to: Type, value: str) -> object:
    if to.kind == "char" and value.endswith(" "):
        return None
    if to.kind in ("text", "char"):
        return value if to.length is None or len(value) <= to.length else None
    if to.kind == "uuid":
        try:
            parsed = uuid.UUID(value)
        except ValueError:
            return None
        return parsed.bytes if str(parsed) == value else None
    if to.kind == "enum":
        return value if value in to.labels else None
    if to.kind == "bit":
        return value if set(value) <= {"0", "1"} and len(value) == to.length else None
    return value if to.is_integer and re.fullmatch("0|-?[1-9][0-9]*", value) else None


def model_infinite(value: int, form: Type, to: Type) -> int | None:
    """An infinity of one storage as that of another; None where the value is finite."""
    ends = {"date": (DATE_MINUS_INFINITY, DATE_INFINITY)}
    low, high = ends.get(form.kind, (TIMESTAMP_MINUS_INFINITY, TIMESTAMP_INFINITY))
    to_low, to_high = ends.get(to.kind, (TIMESTAMP_MINUS_INFINITY, TIMESTAMP_INFINITY))
    return to_low if value == low else to_high if value == high else None


def model_date(to: Type, value: int) -> int | None:
    infinite = model_infinite(value, Type("date"), to)
    if infinite is not None:
        return infinite
    out = value * 86_400 * 10 ** DIGITS[to.unit or "us"]
    return out if TIMESTAMP_MINUS_INFINITY < out < TIMESTAMP_INFINITY else None


def model_time(form: Type, to: Type, value: int) -> object:
    stamp = form.kind in ("timestamp", "timestamptz")
    if stamp:
        infinite = model_infinite(value, form, to)
        if infinite is not None:
            return infinite
    seconds = Fraction(value, 10 ** DIGITS[form.unit or "us"])
    if to.kind == "date":
        days = seconds / 86_400
        fits = days.denominator == 1 and DATE_MINUS_INFINITY < days < DATE_INFINITY
        return int(days) if fits else None
    digits = 9 if to.kind == "interval" else DIGITS[to.unit or "us"]
    places = digits if to.precision is None else min(to.precision, digits)
    if (seconds * 10**places).denominator != 1:
        return None
    out = int(seconds * 10**digits)
    low, high = (TIMESTAMP_MINUS_INFINITY, TIMESTAMP_INFINITY) if stamp else (-(2**63) - 1, 2**63)
    if not low < out < high or (to.kind == "time" and not 0 <= seconds <= 86_400):
        return None
    return (0, 0, out) if to.kind == "interval" else out


# --- pairs and values ----------------------------------------------------------------------------


def dec(precision: int, scale: int) -> Type:
    return Type("decimal", precision=precision, scale=scale)


NUMBER_PAIRS = [
    *((Type(a), Type(b)) for a in INTEGERS for b in INTEGERS),
    *((Type(a), t) for a in INTEGERS for t in (dec(5, 2), dec(20, 0), dec(38, 19), dec(76, 40), dec(2, 3))),
    *((Type(a), Type(b)) for a in INTEGERS for b in ("numeric", "float32", "float64", "bool")),
    *((Type("bool"), Type(b)) for b in INTEGERS),
    *((dec(*a), dec(*b)) for a in ((5, 2), (20, 10), (50, 5)) for b in ((5, 2), (4, 0), (38, 10), (60, 30), (6, 3))),
    *((dec(*a), Type(b)) for a in ((5, 2), (20, 0), (50, 5)) for b in ("int8", "int64", "uint64", "numeric")),
    *((Type("numeric"), t) for t in (dec(5, 2), dec(60, 30), Type("int16"), Type("uint64"), Type("int64"))),
    (Type("float32"), Type("float64")),
    (Type("float64"), Type("float32")),
    *((Type("float64"), Type(b)) for b in ("int8", "int64", "uint64")),
    (Type("float32"), Type("int32")),
]
TIME_PAIRS = [
    *(
        (Type(kind, unit=a), Type(kind, unit=b, precision=p))
        for kind in ("timestamp", "timestamptz", "duration")
        for a in DIGITS
        for b in DIGITS
        for p in (None, 0, 3)
    ),
    *(
        (Type("time", unit=a), Type("time", unit=b, precision=p))
        for a in ("us", "ns")
        for b in ("us", "ns")
        for p in (None, 0)
    ),
    *((Type("date"), Type("timestamp", unit=u)) for u in DIGITS),
    *((Type("timestamp", unit=u), Type("date")) for u in DIGITS),
    *((Type("duration", unit=u), Type("interval", precision=p)) for u in DIGITS for p in (None, 6)),
    *(
        (Type("time", unit=u), Type("duration", unit=v, precision=p))
        for u in ("us", "ns")
        for v in DIGITS
        for p in (None, 0)
    ),
    *(
        (Type("duration", unit=v), Type("time", unit=u, precision=p))
        for u in ("us", "ns")
        for v in DIGITS
        for p in (None, 0)
    ),
]
TEXT_PAIRS = [
    (Type("text"), t)
    for t in (
        Type("text", length=3),
        Type("text"),
        Type("char", length=3),
        Type("uuid"),
        Type("enum", labels=("a", "b ", "")),
        Type("bit", length=3),
    )
]
TWO_POWERS = [s * (2**k + d) for k in (7, 8, 15, 16, 24, 31, 32, 53, 63, 64) for d in (-1, 0, 1) for s in (1, -1)]
TEN_POWERS = [s * (10**k + d) for k in (0, 1, 2, 3, 9, 18, 19, 20) for d in (-1, 0, 1) for s in (1, -1)]


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    ends = sorted({v for v in (*TWO_POWERS, *TEN_POWERS, 0, low, high, low + 1, high - 1) if low <= v <= high})
    return st.sampled_from(ends) | st.integers(low, high)


def decimals(precision: int, scale: int) -> st.SearchStrategy[D]:
    limit = 10**precision - 1
    context = decimal.Context(prec=100)
    return (
        integers(-limit, limit)
        .flatmap(
            lambda v: st.sampled_from(
                [v, v // 10**scale * 10**scale if abs(v // 10**scale * 10**scale) <= limit else v]
            )
        )
        .map(lambda v: D(v).scaleb(-scale, context))
    )


def values_for(form: Type) -> st.SearchStrategy:
    if form.is_integer:
        return integers(*integer_ends(form.kind))
    if form.kind == "bool":
        return st.booleans()
    if form.kind == "decimal":
        return decimals(form.precision, form.scale)
    if form.kind == "numeric":
        plain = decimals(40, 12).map(lambda v: format(v, "f")) | integers(-(10**20), 10**20).map(str)
        return plain | st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "12.00", "1.50", "999.99", "1000.00"])
    if form.kind in ("float32", "float64"):
        width = int(form.kind[5:])
        ends = [
            -0.0,
            0.0,
            1.0,
            127.0,
            -128.0,
            128.0,
            2.0**53,
            2.0**63,
            -(2.0**63),
            2.0**64,
            0.5,
            math.inf,
            -math.inf,
            math.nan,
        ]
        return st.sampled_from(ends) | st.floats(width=width) | st.integers(-300, 300).map(float)
    if form.kind == "text":
        words = ["", "a", "b ", "abc", "abcd", "ab ", "äöü", "äöüß", "𝄞𝄞𝄞", "101", "10", "1012", "  ", "abc  "]
        return (
            st.sampled_from(words)
            | st.text(max_size=5)
            | st.uuids().map(str)
            | st.uuids().map(lambda u: str(u).upper())
        )
    if form.kind == "date":
        return integers(-(2**31), 2**31 - 1) | st.integers(-800_000, 3_000_000)
    if form.kind == "time":
        day = 86_400 * 10 ** DIGITS[form.unit or "us"]
        return integers(0, day) | st.integers(0, 86_400).map(lambda s: s * 10 ** DIGITS[form.unit or "us"])
    whole = [10**k for k in range(10)] + [86_400 * 10**k for k in range(10)]
    rounded = st.tuples(integers(-(2**40), 2**40), st.sampled_from(whole)).map(lambda v: v[0] * v[1])
    return integers(-(2**63), 2**63 - 1) | rounded.filter(lambda v: abs(v) < 2**63)


@pytest.mark.parametrize(("form", "to"), NUMBER_PAIRS + TIME_PAIRS + TEXT_PAIRS, ids=lambda t: f"{t}.{t.precision}")
def test_conversion_any_values_as_the_model(form: Type, to: Type) -> None:
    examples = 12

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.none() | values_for(form), max_size=45), st.integers(0, 5))
    def run(values: list, cut: int) -> None:
        check_against_model(form, to, values, cut)

    run()


def check_against_model(form: Type, to: Type, values: list, cut: int) -> None:
    array = array_of(values, form).slice(cut)  # an offset that is not 0
    values = values[cut:]
    expected = [None if v is None else model(form, to, v) for v in values]
    unfit = [i for i, (v, e) in enumerate(zip(values, expected, strict=True)) if v is not None and e is None]
    refusing = conversion(form, to)
    assert not isinstance(refusing, str)
    if unfit:
        assert not refusing.lossless
        with pytest.raises(DataError, match=f"in row {unfit[0]} of its batch"):
            refusing.apply(array)
    else:
        result, touched = refusing.apply(array)
        assert touched == 0
        check_result(result, to, expected)
        assert result is array or not refusing.identity
    nulled, touched = conversion(form, to, policy="null").apply(array)
    assert touched == len(unfit)
    check_result(nulled, to, expected)
    check_clamped(form, to, array, expected, unfit)
    check_digests(form, to, array, nulled, unfit)


def check_result(result: pa.Array, to: Type, expected: list) -> None:
    validate(result, to)
    assert result.type.equals(to.arrow)
    got = values_of(result, to)
    assert len(got) == len(expected)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert same(a, b), (index, a, b)


def check_clamped(form: Type, to: Type, array: pa.Array, expected: list, unfit: list[int]) -> None:
    try:
        clamped, touched = conversion(form, to, policy="clamp").apply(array)
    except DataError as error:
        assert unfit and "no nearest value" in str(error)
        return
    assert touched == len(unfit)
    validate(clamped, to)
    got = values_of(clamped, to)
    for index, (value, want) in enumerate(zip(got, expected, strict=True)):
        if index in unfit:
            assert value is not None
        else:
            assert same(value, want)


def check_digests(form: Type, to: Type, array: pa.Array, converted: pa.Array, unfit: list[int]) -> None:
    """What was converted exactly is equal to verify too."""
    way = compare(form, to, source_engine="postgres", target_engine="duckdb")
    assert way is not None
    fitting = pa.array([i not in unfit for i in range(len(array))], pa.bool_())
    batches = [pa.RecordBatch.from_arrays([a.filter(fitting)], ["v"]) for a in (array, converted)]
    rows = [Digester([way], side).rows(b)[1] for side, b in zip(("source", "target"), batches, strict=True)]
    assert rows[0] == rows[1]


def test_clamp_numbers_the_nearest_value() -> None:
    nearest = conversion(dec(6, 2), Type("int8"), policy="clamp")
    array = pa.array([D("2.50"), D("3.50"), D("-2.51"), D("900.00"), D("-900.00"), None], dec(6, 2).arrow)
    assert nearest.apply(array)[0].to_pylist() == [2, 4, -3, 127, -128, None]
    texts = pa.array(["1.234", "1.235", "99999", "-99999", "Infinity"])
    got = conversion(Type("numeric"), dec(5, 2), policy="clamp").apply(texts)[0].to_pylist()
    assert got == [D("1.23"), D("1.24"), D("999.99"), D("-999.99"), D("999.99")]


#: Numbers that, taken modulo 2**128 or 2**256 (by Arrow, without a word), are others that fit.
WRAPPING = [
    (Type("numeric"), Type("decimal", precision=30, scale=2), str(10**999)),
    (Type("numeric"), Type("decimal", precision=38, scale=0), str(2**128 + 1)),
    (Type("numeric"), Type("decimal", precision=38, scale=0), f"-{2**128 * 977 + 12}"),
    (Type("numeric"), Type("decimal", precision=76, scale=0), str(2**256 * 31 + 5)),
    (Type("numeric"), Type("decimal", precision=76, scale=38), str(2**256 // 10**38 * 3 + 1)),
    (
        Type("text"),
        Type("int64"),
        "881091186613226734659198364819328480208310337356994793198370700027380997538942287877",
    ),
    (
        Type("text"),
        Type("int16"),
        "3931764602135960275389038010114206883400822588427180340836865502801788970338925389283324",
    ),
    (
        Type("decimal", precision=38, scale=2),
        Type("decimal", precision=38, scale=20),
        D("884899826670096702418996132667082.63"),
    ),
    (
        Type("decimal", precision=60, scale=20),
        Type("decimal", precision=76, scale=38),
        D("4652115951436709364114926138202304949890.30592676836525305077"),
    ),
]


@pytest.mark.parametrize(("form", "to", "value"), WRAPPING)
def test_conversion_number_that_would_wrap_around_is_refused(form: Type, to: Type, value: object) -> None:
    way = conversion(form, to)
    assert not isinstance(way, str)
    with pytest.raises(DataError):
        way.apply(pa.array([value], form.arrow))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**38 - 1) | st.integers(10, 3 * 10**20).map(lambda n: 2**128 // n),
    st.sampled_from([0, 2, 10]),
    st.integers(1, 28),
    st.sampled_from([20, 30, 38, 39, 76]),
)
def test_conversion_to_a_larger_scale_is_exact_or_refused(whole: int, scale: int, up: int, precision: int) -> None:
    form, to = Type("decimal", precision=38, scale=scale), Type("decimal", precision=precision, scale=scale + up)
    if precision < scale + up:
        return
    value = D(whole).scaleb(-scale, decimal.Context(prec=80))
    way = conversion(form, to)
    assert not isinstance(way, str)
    fits = whole * 10**up < 10**precision
    try:
        assert way.apply(pa.array([value], form.arrow))[0][0].as_py() == value
        assert fits
    except DataError:
        assert not fits


def test_conversion_many_rows_one_bad_value_found_by_bisection() -> None:
    values = list(range(50_000))
    values[31_337] = 2**40
    nulled, touched = conversion(Type("int64"), Type("int32"), policy="null").apply(pa.array(values))
    assert touched == 1
    assert nulled.null_count == 1
    assert nulled[31_337].as_py() is None
    assert nulled[31_338].as_py() == 31_338


@pytest.mark.parametrize(
    ("form", "to"),
    [
        (Type("timestamp"), Type("timestamptz")),
        (Type("timestamptz"), Type("date")),
        (Type("float64"), dec(10, 2)),
        (Type("float64"), Type("numeric")),
        (dec(10, 2), Type("float64")),
        (Type("text"), Type("date")),
        (Type("date"), Type("text")),
        (Type("binary"), Type("text")),
        (Type("opaque", native="postgresql:inet"), Type("opaque", native="postgresql:cidr")),
        (Type("wire", native="postgresql:box"), Type("wire", native="postgresql:lseg")),
        (Type("wire", native="postgresql:box"), Type("binary")),
        (Type("bit", length=3), Type("bit", length=4)),
        (Type("binary", length=3, fixed=True), Type("binary", length=4, fixed=True)),
        (Type("list", element=Type("int8")), Type("int8")),
        (Type("list", element=Type("text")), Type("list", element=Type("date"))),
        (Type("struct", fields=(Field("a", Type("int8")),)), Type("struct", fields=(Field("b", Type("int8")),))),
        (Type("json"), Type("uuid")),
    ],
    ids=str,
)
def test_conversion_pair_without_exact_way_says_why(form: Type, to: Type) -> None:
    reason = conversion(form, to)
    assert isinstance(reason, str)
    assert reason


@pytest.mark.parametrize(
    ("form", "to"),
    [
        (Type("text", length=5), Type("text", length=9)),
        (Type("char", length=5), Type("text")),
        (Type("timetz"), Type("text")),
        (Type("enum", labels=("a",)), Type("enum", labels=("b", "a"))),
        (Type("json"), Type("text")),
        (Type("varbit", length=3), Type("varbit", length=4)),
        (Type("timestamp", precision=3), Type("timestamp", precision=6)),
        (Type("list", element=Type("text", length=3)), Type("list", element=Type("text"))),
        (Type("binary"), Type("binary")),
    ],
    ids=str,
)
def test_conversion_wider_type_is_identity(form: Type, to: Type) -> None:
    way = conversion(form, to)
    assert not isinstance(way, str)
    assert way.identity
    assert way.lossless
    array = pa.nulls(3, form.arrow)
    assert way.apply(array) == (array, 0)
    assert way.apply(array)[0] is array


@pytest.mark.parametrize("to", [Type("opaque", native="postgresql:inet"), Type("jsonb"), Type("timetz")], ids=str)
def test_conversion_text_that_the_server_judges_passes_but_is_not_lossless(to: Type) -> None:
    way = conversion(Type("text"), to)
    assert not isinstance(way, str)
    assert way.identity
    assert not way.lossless


# --- nested ----------------------------------------------------------------------------------------


def test_list_elements_one_bad_element_names_its_row() -> None:
    form, to = Type("list", element=Type("int32")), Type("list", element=Type("int8"))
    array = pa.array([[9], [1, 2], None, [], [None, 300], [-1000]], form.arrow).slice(1)
    with pytest.raises(DataError, match=r"\[NULL, 300\] in row 3 of its batch"):
        conversion(form, to).apply(array)
    nulled, touched = conversion(form, to, policy="null").apply(array)
    assert (nulled.to_pylist(), touched) == ([[1, 2], None, [], None, None], 2)
    clamped, touched = conversion(form, to, policy="clamp").apply(array)
    assert (clamped.to_pylist(), touched) == ([[1, 2], None, [], [None, 127], [-128]], 2)


def test_list_bad_value_beneath_a_null_is_no_value() -> None:
    offsets, valid = pa.array([0, 1, 2], pa.int32()), pa.array([True, False])
    array = pa.ListArray.from_arrays(offsets, pa.array([1, 300], pa.int32()), mask=pa.compute.invert(valid))
    form, to = Type("list", element=Type("int32")), Type("list", element=Type("int8"))
    result, touched = conversion(form, to).apply(array)
    assert (result.to_pylist(), touched) == ([[1], None], 0)


def test_struct_and_map_convert_field_by_field() -> None:
    form = Type("struct", fields=(Field("a", Type("int32")), Field("b", Type("text"))))
    to = Type("struct", fields=(Field("a", Type("int8")), Field("b", Type("text", length=2))))
    array = pa.array([{"a": 0, "b": ""}, {"a": 1, "b": "xyz"}, None, {"a": None, "b": None}], form.arrow).slice(1)
    clamped, touched = conversion(form, to, policy="clamp").apply(array)
    assert (clamped.to_pylist(), touched) == ([{"a": 1, "b": "xy"}, None, {"a": None, "b": None}], 1)
    form = Type("map", fields=(Field("key", Type("int32")), Field("value", Type("text"))))
    to = Type("map", fields=(Field("key", Type("int8")), Field("value", Type("text"))))
    array = pa.array([[(0, "")], [(1, "x")], None, [(300, "y"), (2, "z")]], form.arrow).slice(1)
    nulled, touched = conversion(form, to, policy="null").apply(array)
    assert (nulled.to_pylist(), touched) == ([[(1, "x")], None, None], 1)
    with pytest.raises(DataError, match="no nearest value"):
        conversion(form, to, policy="clamp").apply(array)


# --- checks ----------------------------------------------------------------------------------------

DAY_US = 86_400_000_000
CHECKED = [
    ("finite_time", Type("timestamp"), [0, None, 5, -(10**18)], [TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY]),
    ("finite_time", Type("date"), [0, None, 5], [DATE_INFINITY, DATE_MINUS_INFINITY]),
    ("year_1_9999", Type("date"), [-719_162, 2_932_896, DATE_INFINITY, None], [-719_163, 2_932_897]),
    (
        "year_1_9999",
        Type("timestamptz"),
        [-62_135_596_800_000_000, 253_402_300_799_999_999, TIMESTAMP_INFINITY],
        [-62_135_596_800_000_001, 253_402_300_800_000_000],
    ),
    ("year_0_9999", Type("date"), [-719_528, 2_932_896, DATE_INFINITY, None], [-719_529, 2_932_897]),
    (
        "year_0_9999",
        Type("timestamp"),
        [-62_167_219_200_000_000, 253_402_300_799_999_999, TIMESTAMP_MINUS_INFINITY],
        [-62_167_219_200_000_001, 253_402_300_800_000_000],
    ),
    ("year_type", Type("int16"), [0, 1901, 2155, None], [-1, 1, 99, 1900, 2156]),
    ("no_nan", Type("float64"), [0.0, -0.0, math.inf, None], [math.nan]),
    ("no_negative_zero", Type("float32"), [0.0, 1.0, math.nan, None], [-0.0]),
    ("finite_number", Type("float64"), [0.0, 1e300, None], [math.nan, math.inf, -math.inf]),
    ("finite_number", Type("numeric"), ["0", "-1.5", None], ["NaN", "Infinity", "-Infinity"]),
    ("no_nul", Type("text"), ["", "0", "ä", None], ["\0", "a\0b"]),
    ("no_escaped_nul", Type("jsonb"), ['"\\\\u0000"', '"u0000"', None], ['"\\u0000"', '"a\\\\\\u0000"']),
    (
        "json_doubles",
        Type("jsonb"),
        [
            "{}",
            "[18446744073709551615, -9223372036854775808, 1.10, 1e23, 0.1]",
            '"1.00000000000000000001"',
            "1E5",
            None,
        ],
        [
            "[18446744073709551616]",
            '{"a": 0.12345678901234567891}',
            "1e400",
            "-9223372036854775809",
            "1.00000000000000001",
        ],
    ),
    ("fits_int64", Type("uint64"), [0, 2**63 - 1, None], [2**63, 2**64 - 1]),
    ("below_24h", Type("time"), [0, DAY_US - 1, None], [DAY_US]),
]


@pytest.mark.parametrize(("name", "t", "good", "bad"), CHECKED, ids=lambda v: v if isinstance(v, str) else "")
def test_check_passes_the_good_and_finds_the_bad(name: str, t: Type, good: list, bad: list) -> None:
    way = conversion(t, t, [name])
    assert not isinstance(way, str)
    assert not way.identity
    array = array_of(good, t)
    assert way.apply(array) == (array, 0) or math.nan in good
    assert CHECKS[name](array) is None
    for value in bad:
        with pytest.raises(DataError, match=f"in row {len(good)} of its batch"):
            way.apply(array_of([None, *good, value], t).slice(1))
    mixed = array_of([*good, *bad], t)
    nulled, touched = conversion(t, t, [name], "null").apply(mixed)
    assert touched == len(bad)
    assert all(same(a, b) for a, b in zip(values_of(nulled.slice(0, len(good)), t), good, strict=True))
    assert nulled.slice(len(good)).null_count == len(bad)


@pytest.mark.parametrize(("name", "t", "good", "bad"), CHECKED, ids=lambda v: v if isinstance(v, str) else "")
def test_check_inside_a_list_concerns_its_row(name: str, t: Type, good: list, bad: list) -> None:
    nested = Type("list", element=t)
    elements = array_of([*good, bad[0]], t)
    offsets = pa.array([0, len(good), len(good), len(good) + 1], pa.int32())
    array = pa.ListArray.from_arrays(offsets, elements)
    with pytest.raises(DataError, match="in row 2 of its batch"):
        conversion(nested, nested, [name]).apply(array)


def test_check_control_characters_are_written_as_escapes() -> None:
    with pytest.raises(DataError, match=r"value: 'a\\x1b\[2J\\x00' in row 0"):
        conversion(Type("text"), Type("text"), ["no_nul"]).apply(pa.array(["a\x1b[2J\0"]))


def test_check_of_another_type_is_dropped() -> None:
    way = conversion(Type("int32"), Type("int32"), ["no_nan", "no_nul", "finite_time"])
    assert not isinstance(way, str)
    assert way.identity


def test_check_clamped_becomes_the_nearest_that_passes() -> None:
    t = Type("uint64")
    got, touched = conversion(t, t, ["fits_int64"], "clamp").apply(pa.array([2**64 - 1, 1], pa.uint64()))
    assert (got.to_pylist(), touched) == ([2**63 - 1, 1], 1)
    t = Type("float64")
    got, _ = conversion(t, t, ["no_negative_zero"], "clamp").apply(pa.array([-0.0]))
    assert math.copysign(1, got[0].as_py()) == 1
    with pytest.raises(DataError, match="no nearest value"):
        conversion(t, t, ["no_nan"], "clamp").apply(pa.array([math.nan]))


# --- layouts ---------------------------------------------------------------------------------------

TEXT, INT8_LIST = Type("text"), Type("list", element=Type("int8"))
LAYOUTS = [
    (pa.array(["x", "a", None], pa.large_string()), TEXT, ["x", "a", None]),
    (pa.array(["x", "a", None], pa.string_view()), TEXT, ["x", "a", None]),
    (pa.array(["x", "a", None, "a"]).dictionary_encode(), TEXT, ["x", "a", None, "a"]),
    (pa.compute.run_end_encode(pa.array(["a", "a", None])), TEXT, ["a", "a", None]),
    (pa.array([b"x", None], pa.large_binary()), Type("binary"), [b"x", None]),
    (pa.array([[9], [1], [2, 3], None], pa.list_view(pa.int8())), INT8_LIST, [[9], [1], [2, 3], None]),
    (pa.array([[9, 9], [1, 2], None], pa.list_(pa.int8(), 2)), INT8_LIST, [[9, 9], [1, 2], None]),
    (pa.array([[9], None, [1, 2]], pa.large_list(pa.field("e", pa.int8(), False))), INT8_LIST, [[9], None, [1, 2]]),
    (pa.array([1.5, None], pa.float16()), Type("float32"), [1.5, None]),
    (pa.array([D("1.5"), None], pa.decimal32(5, 2)), dec(5, 2), [D("1.50"), None]),
    (pa.array([D("1.5"), None], pa.decimal256(5, 2)), dec(5, 2), [D("1.50"), None]),
    (pa.array([1, None], pa.time32("s")), Type("time"), [1_000_000, None]),
    (pa.array([86_400_000, None], pa.int64()).view(pa.date64()), Type("date"), [1, None]),
    (pa.array([5, None], pa.int64()).view(pa.timestamp("us", "Europe/Berlin")), Type("timestamptz"), [5, None]),
    (pa.array([5, None], pa.int64()).view(pa.timestamp("ms")), Type("timestamp"), [5000, None]),
    (pa.array([2**63 - 1], pa.int64()).view(pa.timestamp("ms")), Type("timestamp"), [TIMESTAMP_INFINITY]),
    (pa.nulls(2), dec(5, 2), [None, None]),
    (pa.nulls(2), TEXT, [None, None]),
    (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, None], pa.binary(16))),
        Type("uuid"),
        [b"a" * 16, None],
    ),
    (
        pa.array([{"a": "x"}, None], pa.struct([("a", pa.large_string())])),
        Type("struct", fields=(Field("a", TEXT),)),
        [{"a": "x"}, None],
    ),
    (
        pa.array([[("a", 1)], None, []], pa.map_(pa.large_string(), pa.int8())),
        Type("map", fields=(Field("key", TEXT), Field("value", Type("int8")))),
        [[("a", 1)], None, []],
    ),
    (pa.array([b"abc", None], pa.binary()), TEXT, ["abc", None]),
    (pa.array([1, 2], pa.int32()), Type("int64"), [1, 2]),
]


@pytest.mark.parametrize(("array", "t", "expected"), LAYOUTS, ids=lambda v: str(getattr(v, "type", "")))
def test_canonical_array_any_layout_keeps_the_values(array: pa.Array, t: Type, expected: list) -> None:
    for cut in (0, 1):
        plain = canonical_array(array.slice(cut), t)
        plain.validate(full=True)
        assert plain.type.equals(t.arrow)
        assert values_of(plain, t) == expected[cut:]
    chunked = pa.chunked_array([array.slice(0, 1), array.slice(1)])
    assert values_of(canonical_array(chunked, t), t) == expected


def test_canonical_array_that_fits_is_not_copied() -> None:
    array = pa.array(["a"])
    assert canonical_array(array, TEXT) is array


@pytest.mark.parametrize(
    ("array", "t"),
    [
        (pa.array([b"\xff"]), TEXT),
        (pa.array([1], pa.int64()).view(pa.date64()), Type("date")),
        (pa.array([300]), Type("int8")),
        (pa.array([5], pa.int64()).view(pa.timestamp("us")), Type("timestamptz")),
        (pa.array(["x"]), Type("date")),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), Type("int64")),
    ],
    ids=lambda v: str(getattr(v, "type", "")),
)
def test_canonical_array_value_that_would_change_is_refused(array: pa.Array, t: Type) -> None:
    with pytest.raises(DataError):
        canonical_array(array, t)


# --- text for people -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "value", "text"),
    [
        (Type("date"), DATE_INFINITY, "infinity"),
        (Type("date"), -719_528, "0001-01-01 BC"),
        (Type("date"), DATE_INFINITY - 1, "5881580-07-10"),
        (Type("date"), 19_782, "2024-02-29"),
        (Type("timestamp"), TIMESTAMP_MINUS_INFINITY, "-infinity"),
        (Type("timestamp"), -1, "1969-12-31 23:59:59.999999"),
        (Type("timestamptz"), 2**62, "148108-07-06 14:00:27.387904+00"),
        (Type("timestamp"), -62_167_219_200_000_000 - 1, "0002-12-31 23:59:59.999999 BC"),
        (Type("time"), DAY_US, "24:00:00"),
        (Type("duration"), -1_500_000, "-00:00:01.5"),
        (Type("float32"), 0.1, "0.1"),
        (Type("float64"), 1e300, "1e+300"),
        (Type("binary"), b"\x00\xff", "\\x00ff"),
        (Type("uuid"), bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (Type("text"), "", ""),
        (Type("list", element=TEXT), ["a", None], "[a, NULL]"),
        (Type("bool"), True, "true"),
        (dec(12, 9), D("1E-9"), "0.000000001"),
        (Type("text"), None, None),
    ],
    ids=str,
)
def test_value_text_any_value_is_readable(t: Type, value: object, text: str | None) -> None:
    assert value_text(array_of([None, value], t).slice(1), 0, t) == text


def test_value_text_long_values_are_cut() -> None:
    shown = value_text(pa.array(["x" * 100_000]), 0, TEXT)
    assert shown is not None
    assert len(shown) < 250
    assert "100000 characters" in shown
    shown = value_text(pa.array([b"x" * 100_000]), 0, Type("binary"))
    assert shown is not None
    assert len(shown) < 250


@SETTINGS
@given(st.integers(-(2**31) + 1, 2**31 - 2))
def test_value_text_dates_in_pythons_range_as_pythons(days: int) -> None:
    import datetime

    days %= 3_652_059
    date = datetime.date(1, 1, 1) + datetime.timedelta(days=days)
    assert value_text(array_of([days - 719_162], Type("date")), 0, Type("date")) == date.isoformat()


def test_clamp_is_proposed_only_where_there_is_a_nearest_value() -> None:
    with pytest.raises(DataError) as nul:
        conversion(Type("text"), Type("text"), ["no_nul"]).apply(pa.array(["a\0b"]))
    assert "policy null, or text" in str(nul.value) and "clamp" not in str(nul.value)
    with pytest.raises(DataError, match="policy null or clamp, or text"):
        conversion(Type("int32"), Type("int8")).apply(pa.array([300], pa.int32()))
