"""A quarantined row's values come back as they were; which rows are set aside is what a row-by-row model says."""

from __future__ import annotations

import decimal
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry import convert
from rowferry.convert.value_json import day_number, from_json, to_json
from rowferry.convert.value_text import civil_date
from rowferry.errors import DataError
from rowferry.stages import quarantine as kept
from rowferry.types import Field, Type

INT64 = pa.int64()


def _ints(values: list[int | None], t: Type) -> pa.Array:
    return pa.array(values, pa.int32() if t.kind == "date" else INT64).view(t.arrow)


POINT = Type("struct", fields=(Field("x", Type("date")), Field("x", Type("list", element=Type("decimal", 9, 1)))))
EDGES: list[tuple[Type, pa.Array]] = [
    (Type("bool"), pa.array([True, None, False])),
    (Type("int8"), pa.array([-128, 127, None], pa.int8())),
    (Type("int64"), pa.array([-(2**63), 2**63 - 1, 2**53 + 1, None])),
    (Type("uint64"), pa.array([0, 2**64 - 1, None], pa.uint64())),
    (Type("float32"), pa.array([0.1, 1e-45, 3.4028235e38, float("inf"), None], pa.float32())),
    (Type("float64"), pa.array([0.1, 5e-324, -0.0, float("-inf"), None])),
    (Type("decimal", 50, 3), pa.array([decimal.Decimal("-1.500"), None], pa.decimal256(50, 3))),
    (Type("numeric"), pa.array(["-12.50", "NaN", "-Infinity", None])),
    (Type("date"), _ints([-(2**31), 2**31 - 1, -10_000_000, 2_932_897, 0, None], Type("date"))),
    (Type("timestamp", unit="us"), _ints([-(2**63), 2**63 - 1, -(2**62), 2**62 + 1, -1, None], Type("timestamp"))),
    (Type("timestamptz", unit="ns"), _ints([-(2**62), 1, None], Type("timestamptz", unit="ns"))),
    (Type("timestamp", unit="s"), _ints([-(2**40), 2**40, None], Type("timestamp", unit="s"))),
    (Type("time", unit="us"), _ints([86_400_000_000, 1, None], Type("time"))),
    (Type("duration", unit="us"), _ints([-(2**62), -1, None], Type("duration"))),
    (Type("interval"), pa.array([pa.MonthDayNano([-1, 2, -(2**60)]), None], pa.month_day_nano_interval())),
    (Type("uuid"), pa.array([bytes(range(16)), None], pa.binary(16))),
    (Type("binary"), pa.array([b"\0\xff", b"", None])),
    (Type("wire", native="postgresql:inet"), pa.array([b"\x02\x20\0\x04\x01\x02\x03\x04", None], pa.binary())),
    (Type("text"), pa.array(["a\0b", "\U0001f600\u2028", '"\\', "", None])),
    (Type("list", element=Type("int64")), pa.array([[1, None], None, []], pa.list_(pa.field("item", INT64)))),
]


@pytest.mark.parametrize(("type_", "array"), EDGES, ids=[str(t) for t, _ in EDGES])
def test_value_json_of_the_edges_gives_the_same_array_again(type_: Type, array: pa.Array) -> None:
    for part in (array, array.slice(1), array.slice(0, 0)):
        # Through a text, as it is kept, and in ASCII alone.
        text = json.dumps([to_json(part, i, type_) for i in range(len(part))])
        assert text.isascii()
        again = from_json(json.loads(text), type_)
        again.validate()
        assert again.type == type_.arrow
        assert again.equals(part)


def test_value_json_of_nan_and_negative_zero_keeps_them() -> None:
    again = from_json([to_json(pa.array([float("nan"), -0.0]), i, Type("float64")) for i in range(2)], Type("float64"))
    assert str(again[0].as_py()) == "nan"
    assert str(again[1].as_py()) == "-0.0"


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Type("list", element=POINT), [None, [], [["1999-01-01", ["1.5", None]], None, [None, None]]]),
        (
            Type("map", fields=(Field("key", Type("text")), Field("value", POINT))),
            [None, [], [["k", ["infinity", []]]]],
        ),
    ],
)
def test_value_json_of_nested_values_gives_the_same_again(type_: Type, value: list[Any]) -> None:
    array = from_json(value, type_)
    array.validate(full=True)
    assert [to_json(array, i, type_) for i in range(len(array))] == value


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Type("date"), "2024-13-1"),
        (Type("int64"), "12x"),
        (Type("binary"), "not base64!"),
        (Type("timestamp", unit="s"), "2024-01-01 00:00:00.5"),
        (Type("uuid"), "00"),
        (Type("struct", fields=(Field("a", Type("bool")),)), 7),
        (Type("int8"), 300),
        (Type("interval"), {"months": 1}),
    ],
)
def test_value_json_of_a_damaged_value_is_a_data_error(type_: Type, value: Any) -> None:
    with pytest.raises(DataError, match="a kept value is no"):
        from_json([value], type_)


@given(st.integers(-(2**31) + 1, 2**31 - 2))
def test_day_number_is_the_inverse_of_civil_date(day: int) -> None:
    assert day_number(*civil_date(day)) == day


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-300, 300)), max_size=60), st.integers(0, 5))
def test_sift_of_any_batch_sets_aside_what_a_row_by_row_model_does(values: list[int | None], offset: int) -> None:
    way = convert.conversion(Type("int16"), Type("int8"))
    assert not isinstance(way, str)
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.int16())], names=["n"]).slice(offset)
    values = values[offset:]
    found: list[tuple[int, str]] = []
    rest = kept.sift(batch, lambda rows: way.apply(rows.column(0)), lambda i, e: found.append((i, kept.reason_of(e))))
    unfit = [i for i, v in enumerate(values) if v is not None and not -128 <= v <= 127]
    assert [i for i, _ in found] == unfit
    assert rest.column(0).to_pylist() == [v for i, v in enumerate(values) if i not in unfit]
    for i, reason in found:
        assert reason == f"a value of type int16 does not fit int8 (value: {values[i]})"


def test_a_kept_row_is_made_again_with_all_its_columns() -> None:
    forms = [("id", Type("int64")), ("é\0", Type("text")), ("at", Type("timestamp", unit="us"))]
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1, 2**63 - 1]), pa.array(["x", "ü\0−"]), _ints([0, 2**63 - 1], Type("timestamp"))],
        names=[name for name, _ in forms],
    )
    row = kept.set_aside(batch, 1, forms, ["id"], kept.PASSED, "at", "lies − outside … Привет\n\0")
    assert row.row_key == '{"id": "9223372036854775807"}'
    assert row.reason.isascii()
    assert row.reason.isprintable()
    whole = kept.Kept("a", "a", "j", 0, "s", "t", 0, row.stage, row.row_key, row.column, row.reason, row.row_data)
    again = kept.kept_in(kept.batch_of([whole]))
    assert again == [whole]
    assert kept.rows_of(again, forms).equals(batch.slice(1, 1))


def test_a_kept_row_without_a_column_is_a_data_error() -> None:
    row = kept.Kept("a", "a", "j", 0, "s", "t", 0, kept.PASSED, None, None, "r", '{"id": "1"}')
    with pytest.raises(DataError, match="cannot be read"):
        kept.rows_of([row], [("other", Type("int64"))])
