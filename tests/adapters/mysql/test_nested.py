"""Lists, structs and maps as JSON text and intervals as ISO 8601: there and back, and texts that are none."""

from __future__ import annotations

import decimal
from typing import Any

import pyarrow as pa
import pytest

from rowferry.adapters.mysql import nested
from rowferry.errors import DataError
from rowferry.types import Field, Type

DAY_US = 86_400_000_000

#: Leaves with values that JSON has no number for, in their storage's integers where Python has none.
LEAVES: list[tuple[Type, list[Any], pa.DataType | None]] = [
    (Type("bool"), [True, False, None], None),
    (Type("int64"), [-(2**63), 2**63 - 1, None], None),
    (Type("uint64"), [2**64 - 1, 0], None),
    (Type("float64"), [0.1, -0.0, 1e300, float("inf"), float("-inf"), 3.0, None], None),
    (Type("float32"), [0.5, 1.401298464324817e-45, float("inf")], None),
    (Type("decimal", precision=50, scale=10), [decimal.Decimal("-99999999999999999999.0000000001"), None], None),
    (Type("numeric"), ["NaN", "-12.50", None], None),
    (Type("text"), ["", 'é𝄞"\\\n\0', None], None),
    (Type("binary"), [b"", b"\0\xff", None], None),
    (Type("uuid"), [bytes(range(16)), None], None),
    (Type("date"), [0, -719_528, -800_000, 2_932_896, 5_000_000, 2**31 - 1, -(2**31), None], pa.int32()),
    (Type("timestamp", unit="us"), [0, -1, 123_456, -70_000 * DAY_US * 365, 2**63 - 1, -(2**63), None], pa.int64()),
    (Type("timestamptz", unit="ns"), [1, -1, None], pa.int64()),
    (Type("timestamp", unit="s"), [253_402_300_799], pa.int64()),
    (Type("time", unit="us"), [0, DAY_US, DAY_US - 1, None], pa.int64()),
    (Type("duration", unit="us"), [-3_020_399_999_999, 1, None], pa.int64()),
    (Type("interval"), [pa.MonthDayNano((14, -3, 4_000_000_005)), pa.MonthDayNano((0, 0, -1)), None], None),
    (Type("interval"), [pa.MonthDayNano((-(2**31) + 1, 2**31 - 1, -(2**63) + 1)), pa.MonthDayNano((0, 0, 0))], None),
]  # fmt: skip


def leaf_array(t: Type, values: list[Any], storage: pa.DataType | None) -> pa.Array:
    return pa.array(values, storage).view(t.arrow) if storage is not None else pa.array(values, t.arrow)


@pytest.mark.parametrize(("leaf", "values", "storage"), LEAVES)
def test_list_of_any_leaf_comes_back_as_it_was(leaf: Type, values: list[Any], storage: pa.DataType | None) -> None:
    items = leaf_array(leaf, values, storage)
    t = Type("list", element=leaf)
    lists = pa.ListArray.from_arrays(pa.array([0, None, 1, 1, len(values)], pa.int32()), items, type=t.arrow)
    again = nested.from_json(nested.to_json(lists, t), t)
    assert again.type == lists.type
    # Compared by their storage: NaN and dates beyond Python's are values, too.
    assert again.is_valid().equals(lists.is_valid())
    assert str(again.flatten()) == str(lists.flatten())
    assert nested.from_json(nested.to_json(lists.slice(2), t), t).is_valid().equals(lists.slice(2).is_valid())


def test_structs_maps_and_lists_within_each_other_come_back() -> None:
    inner = Type("struct", fields=(Field("a", Type("int32")), Field("b c", Type("text"))))
    t = Type("list", element=Type("map", fields=(Field("key", Type("text")), Field("value", inner))))
    values = [[[("k", {"a": 1, "b c": None}), ("l", None)], None, []], None, []]
    array = pa.array(values, t.arrow)
    texts = nested.to_json(array, t)
    assert texts.to_pylist() == ['[[["k",{"a":1,"b c":null}],["l",null]],null,[]]', None, "[]"]
    assert nested.from_json(texts, t).equals(array)


@pytest.mark.parametrize(
    ("text", "t"),
    [
        ("{", Type("list", element=Type("int32"))),
        ("1", Type("list", element=Type("int32"))),
        ("[true]", Type("list", element=Type("int32"))),
        ("[1.5]", Type("list", element=Type("int32"))),
        ("[2147483648]", Type("list", element=Type("int32"))),
        ("[1]", Type("list", element=Type("text"))),
        ("[1]", Type("list", element=Type("bool"))),
        ("[NaN]", Type("list", element=Type("float64"))),
        ('["1e5x"]', Type("list", element=Type("decimal", precision=5, scale=2))),
        ('["123456"]', Type("list", element=Type("decimal", precision=5, scale=2))),
        ('["2020-13-01"]', Type("list", element=Type("date"))),
        ('["2020-01-01 10:00:00.1234567"]', Type("list", element=Type("timestamp", unit="us"))),
        ('["10:00"]', Type("list", element=Type("time", unit="us"))),
        ('["xyz"]', Type("list", element=Type("uuid"))),
        ('["P"]', Type("list", element=Type("interval"))),
        ('{"a":1}', Type("struct", fields=(Field("b", Type("int32")),))),
        ("[" * 100_000, Type("list", element=Type("int32"))),
    ],
)
def test_text_that_is_no_such_value_is_a_data_error(text: str, t: Type) -> None:
    with pytest.raises(DataError):
        nested.from_json(pa.array([text]), t)


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1", "P1Y", "P1MT", "PT1.S", "PT1.0000000001S", "P1M ", "P99999999999M", "P1D1M", "1M"]
)
def test_text_that_is_no_interval_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError):
        nested.intervals_from_text(pa.array([text]))
