"""How two columns are compared, and that equal values in different clothes give equal digests."""

from __future__ import annotations

import decimal
import threading
from typing import Any

import pyarrow as pa
import pytest

import reference
from rowferry.errors import DataError
from rowferry.limits import VERIFY_BUCKETS
from rowferry.model import Comparison, Digest
from rowferry.stages.digest import Digester, compare, merge_buckets, schema_id
from rowferry.types import FLOATS, INTEGERS, TEXTS, Field, Type

D = decimal.Decimal
INT, TEXT, NUMERIC, FLOAT = Type("int32"), Type("text"), Type("numeric"), Type("float64")
MONEY = Type("decimal", precision=10, scale=2)


def way(source: Type, target: Type, source_engine: str = "postgres", target_engine: str = "duckdb") -> Comparison:
    found = compare(source, target, source_engine=source_engine, target_engine=target_engine)
    assert found is not None
    return found


def digest(comparison: Comparison, array: pa.Array, side: str = "source") -> Digest:
    digester = Digester([comparison], side)
    digester.add(pa.RecordBatch.from_arrays([array], names=["x"]))
    return digester.digest


def days(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int32()).view(pa.date32())


def ticks(t: pa.DataType, *values: int | None) -> pa.Array:
    return pa.array(values, pa.int64()).view(t)


def repeat(array: pa.Array) -> pa.Array:
    """The same values as a slice out of the middle, whose bitmap begins within a byte."""
    return pa.concat_arrays([array, array, array]).slice(len(array), len(array))


def views(array: pa.Array) -> pa.Array:
    return array.cast(pa.string_view())


def run_ends(array: pa.Array) -> pa.Array:
    return pa.compute.run_end_encode(array)


UUIDS = [bytes(range(16)), None, bytes(16)]
UUID_TEXTS = ["00010203-0405-0607-0809-0a0b0c0d0e0f", None, "00000000-0000-0000-0000-000000000000"]


LIST, PAIR = Type("list", element=INT), Type("struct", fields=(Field("a", INT), Field("b", TEXT)))
MAP = Type("map", fields=(Field("key", TEXT), Field("value", INT)))
WORDS = ["a", None, "", "ünïcode and more than eight bytes"]
LISTS = [[1, None], None, []]
STRUCTS = [{"a": 1, "b": "x"}, None, {"a": None, "b": None}]

#: Each line: a pair of types, then arrays that all hold the same values; (array, side) where the side matters.
CLOTHES: dict[str, tuple[Type, Type, list[Any]]] = {
    "integers of any width": (
        INT,
        Type("int64"),
        [pa.array([1, None, -3], t) for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.decimal128(5, 0))],
    ),
    "unsigned": (
        Type("uint64"),
        Type("decimal", precision=20, scale=0),
        [pa.array([2**64 - 1, 0], pa.uint64()), pa.array([D(2**64 - 1), D(0)], pa.decimal128(20, 0))],
    ),
    "decimals of any width and scale": (
        MONEY,
        Type("decimal", precision=50, scale=4),
        [
            pa.array([D("1.5"), None, D("-0.25")], t)
            for t in (
                pa.decimal32(8, 2),
                pa.decimal64(15, 2),
                pa.decimal128(10, 2),
                pa.decimal128(20, 3),
                pa.decimal256(50, 4),
            )
        ],
    ),
    "numbers and texts of numbers": (
        MONEY,
        NUMERIC,
        [
            pa.array([D("1.50"), None, D(0), D(-300)], pa.decimal128(10, 2)),
            *(
                pa.array(v, pa.utf8())
                for v in (
                    ["1.50", None, "0", "-300"],
                    ["1.5", None, "-0.00", "-3e2"],
                    ["+001.500", None, ".0", "-300.0"],
                )
            ),
        ],
    ),
    "whole numbers and texts": (INT, TEXT, [pa.array([7, None, -7], pa.int32()), pa.array(["7", None, "-7.0"])]),
    "floats": (
        Type("float32"),
        FLOAT,
        [pa.array([1.5, None, float("nan"), -0.0], t) for t in (pa.float16(), pa.float32(), pa.float64())],
    ),
    "floats and decimals": (
        FLOAT,
        Type("decimal", precision=20, scale=3),
        [
            pa.array([0.1, None, -0.0, 1e15, 2.0**60]),
            pa.array([D("0.1"), None, D(0), D(10) ** 15, D(2) ** 60], pa.decimal128(38, 3)),
        ],
    ),
    "floats and integers": (
        FLOAT,
        Type("int64"),
        [pa.array([3.0, None, -(2.0**62)]), pa.array([3, None, -(2**62)], pa.int64())],
    ),
    "single floats and decimals": (
        Type("float32"),
        Type("decimal", precision=20, scale=3),
        [pa.array([0.1, 123456792.0], pa.float32()), pa.array([D("0.1"), D(123456792)], pa.decimal128(20, 3))],
    ),
    "booleans and integers": (
        Type("bool"),
        Type("int8"),
        [pa.array([True, None, False]), pa.array([1, None, 0], pa.int8())],
    ),
    "texts of any layout": (
        TEXT,
        TEXT,
        [
            pa.array(WORDS, pa.utf8()),
            pa.array(WORDS, pa.large_utf8()),
            views(pa.array(WORDS)),
            run_ends(pa.array(WORDS)),
            pa.array(WORDS).dictionary_encode(),
            pa.array(WORDS).cast(pa.dictionary(pa.int8(), pa.large_utf8())),
        ],
    ),
    "binaries of any layout": (
        Type("binary"),
        Type("binary", length=2, fixed=True),
        [pa.array([b"\0\1", None, b"ab"], t) for t in (pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view())],
    ),
    "dates": (Type("date"), Type("date"), [days(0, None, -400_000), days(0, None, -400_000).cast(pa.date64())]),
    "timestamps": (
        Type("timestamp", unit="s"),
        Type("timestamp", unit="ns"),
        [
            ticks(pa.timestamp(u), -5 * f, None, 0, 3 * f)
            for u, f in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
        ],
    ),
    "infinite timestamps": (
        Type("timestamptz", unit="us"),
        Type("timestamptz", unit="ns"),
        [
            ticks(pa.timestamp(u, z), 2**63 - 1, None, -(2**63))
            for u, z in (("s", "UTC"), ("us", "Asia/Tokyo"), ("ns", "UTC"))
        ],
    ),
    "dates as timestamps": (
        Type("date"),
        Type("timestamp"),
        [days(-1, None, 2**31 - 1, -(2**31)), ticks(pa.timestamp("us"), -86_400_000_000, None, 2**63 - 1, -(2**63))],
    ),
    "times": (
        Type("time"),
        Type("time", unit="ns"),
        [
            ticks(pa.time64("us"), 86_400_000_000, None),
            ticks(pa.time64("ns"), 86_400_000_000_000, None),
            pa.array([86_400, None], pa.int32()).view(pa.time32("s")),
            pa.array([86_400_000, None], pa.int32()).view(pa.time32("ms")),
        ],
    ),
    "durations": (
        Type("duration", unit="s"),
        Type("duration", unit="ns"),
        [ticks(pa.duration(u), -7 * f, None) for u, f in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))],
    ),
    "times as durations": (
        Type("time"),
        Type("duration"),
        [
            ticks(pa.time64("us"), 86_400_000_000, 1_500_000, None),
            ticks(pa.time64("ns"), 86_400_000_000_000, 1_500_000_000, None),
            pa.array([86_400_000, 1500, None], pa.int32()).view(pa.time32("ms")),
            (ticks(pa.duration("us"), 86_400_000_000, 1_500_000, None), "target"),
            (ticks(pa.duration("ms"), 86_400_000, 1500, None), "target"),
        ],
    ),
    "durations as intervals": (
        Type("duration"),
        Type("interval"),
        [ticks(pa.duration("us"), -7, None), pa.array([(0, 0, -7000), None], pa.month_day_nano_interval())],
    ),
    "uuids": (Type("uuid"), Type("uuid"), [pa.array(UUIDS, pa.binary(16)), pa.array(UUIDS, pa.uuid())]),
    "uuids as bytes": (Type("uuid"), Type("binary"), [pa.array(UUIDS, pa.binary(16)), pa.array(UUIDS, pa.binary())]),
    "uuids as text": (Type("uuid"), TEXT, [pa.array(UUIDS, pa.binary(16)), (pa.array(UUID_TEXTS), "target")]),
    "documents": (
        Type("json"),
        Type("jsonb"),
        [
            pa.array(['{"b": 1.0, "a": ["\\u00e9"]}', None]),
            pa.array(['{"a":["é"],"b":1}', None]).dictionary_encode(),
            pa.array(['{"a":0,"b":10e-1,"a":["é"]}', None], pa.json_(pa.utf8())),
        ],
    ),
    "lists": (
        LIST,
        Type("list", element=Type("int64")),
        [
            pa.array(LISTS, pa.list_(pa.int32())),
            pa.array(LISTS, pa.large_list(pa.int64())),
            pa.array(LISTS, pa.list_view(pa.int32())),
            pa.array(LISTS, pa.list_(pa.dictionary(pa.int8(), pa.int64()))),
        ],
    ),
    "fixed lists": (
        LIST,
        LIST,
        [pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), pa.array([[1, 2], None], pa.list_(pa.int32()))],
    ),
    "structs": (
        PAIR,
        PAIR,
        [
            pa.array(STRUCTS, pa.struct([("a", pa.int32()), ("b", pa.utf8())])),
            pa.array(STRUCTS, pa.struct([("a", pa.int64()), ("b", pa.string_view())])),
        ],
    ),
    "maps": (
        MAP,
        MAP,
        [pa.array([[("k", 1), ("l", None)], None, []], pa.map_(pa.utf8(), t)) for t in (pa.int8(), pa.int64())],
    ),
    "nothing but nulls": (TEXT, TEXT, [pa.nulls(5), pa.nulls(5, pa.utf8()), pa.nulls(5).cast(pa.large_utf8())]),
}


@pytest.mark.parametrize("name", CLOTHES)
def test_equal_values_in_other_clothes_give_equal_digests(name: str) -> None:
    source, target, arrays = CLOTHES[name]
    comparison = way(source, target)
    seen = set()
    for item in arrays:
        array, side = item if isinstance(item, tuple) else (item, "source")
        seen.add(str(digest(comparison, array, side)))
        seen.add(str(digest(comparison, repeat(array), side)))
        chunks = [digest(comparison, array.slice(i, 1), side) for i in range(len(array))]
        seen.add(str(sum(chunks, Digest())))
    assert len(seen) == 1


def test_digest_is_the_reference_implementations() -> None:
    comparisons = [way(INT, INT), way(TEXT, TEXT), way(MONEY, MONEY), way(Type("uuid"), TEXT)]
    arrays = [
        pa.array([1, 2, None], pa.int32()),
        pa.array(["a", None, ""]),
        pa.array([D("1.50"), D(0), None], pa.decimal128(10, 2)),
        pa.array(UUIDS, pa.binary(16)),
    ]
    batch = pa.RecordBatch.from_arrays(arrays, names=list("abcd"))
    digester = Digester(comparisons, "source", key=[0])
    digester.add(batch)
    specs = [c.spec for c in comparisons]
    rows = reference.row_digests(specs, arrays, uuids=[3])
    assert digester.digest == Digest(3, sum(rows) % 2**128)
    keys, digests, buckets = digester.rows(batch)
    assert [int.from_bytes(digests[i : i + 16], "big") for i in (0, 16, 32)] == rows
    key_numbers = reference.row_digests(specs[:1], arrays[:1], "key seed")
    assert [int.from_bytes(keys[i : i + 16], "big") for i in (0, 16, 32)] == key_numbers
    assert buckets.tolist() == [k % VERIFY_BUCKETS for k in key_numbers]


def different(comparison: Comparison, *arrays: pa.Array) -> None:
    digests = [str(digest(comparison, a)) for a in arrays]
    assert len(set(digests)) == len(digests)


def test_null_and_empty_differ_in_every_type_that_has_an_empty_value() -> None:
    different(way(TEXT, TEXT), pa.array([""]), pa.nulls(1), pa.array([" "]), pa.array(["\0"]))
    different(way(Type("binary"), Type("binary")), pa.array([b""]), pa.nulls(1), pa.array([b"\0"]))
    t = pa.list_(pa.int32())
    different(way(LIST, LIST), pa.array([[]], t), pa.nulls(1), pa.array([[None]], t), pa.array([[0]], t))
    t = pa.struct([("a", pa.int32()), ("b", pa.utf8())])
    different(way(PAIR, PAIR), pa.array([{"a": None, "b": None}], t), pa.nulls(1), pa.array([{"a": None, "b": ""}], t))


def test_near_values_differ() -> None:
    different(way(TEXT, TEXT), *(pa.array([t]) for t in ("a", "A", "a ", "á", "a\u0301")))
    different(
        way(NUMERIC, NUMERIC), *(pa.array([t]) for t in ("1", "-1", "10", "0.1", "NaN", "Infinity", "-Infinity", "0"))
    )
    us = pa.timestamp("us")
    different(
        way(Type("timestamp"), Type("timestamp")), *(ticks(us, v) for v in (0, 1, -1, 2**63 - 1, -(2**63), 10**6))
    )
    different(
        way(Type("json"), Type("jsonb")), *(pa.array([t]) for t in ("1", '"1"', "[1]", "null", "{}", "[]", "true"))
    )
    t = pa.month_day_nano_interval()
    months, as_days = pa.array([(1, 0, 0)], t), pa.array([(0, 30, 0)], t)
    different(way(Type("interval"), Type("interval")), months, as_days, pa.array([(0, 0, 30 * 86_400 * 10**9)], t))
    nested = Type("list", element=LIST)
    shapes = ([[1], [2]], [[1, 2]], [[1, 2], []], [[], [1, 2]], [[1], [], [2]])
    different(way(nested, nested), *(pa.array([v], pa.list_(pa.list_(pa.int32()))) for v in shapes))


def test_negative_zero_is_a_value_of_its_own_except_with_sqlite() -> None:
    plus, minus = pa.array([0.0]), pa.array([-0.0])
    assert digest(way(FLOAT, FLOAT), plus) != digest(way(FLOAT, FLOAT), minus)
    for engines in (("sqlite", "duckdb"), ("postgres", "sqlite")):
        folded = way(FLOAT, FLOAT, *engines)
        assert any("−0.0" in rule for rule in folded.rules)
        assert digest(folded, plus) == digest(folded, minus)
        assert digest(folded, pa.array([1.5])) != digest(folded, pa.array([-1.5]))


def test_nan_is_one_value_whatever_its_bits() -> None:
    odd = pa.array([0x7FF8000000000001, -1], pa.int64()).view(pa.float64())
    assert digest(way(FLOAT, FLOAT), odd) == digest(way(FLOAT, FLOAT), pa.array([float("nan")] * 2))


def test_scaling_beyond_a_width_never_wraps() -> None:
    wide = way(Type("int64"), Type("decimal", precision=38, scale=19))
    values = [2**62, -(2**62), 2**63 - 1, 0, 1]
    assert len({digest(wide, pa.array([v], pa.int64())) for v in values}) == len(values)
    as_decimal = pa.array([D(2**62)], pa.decimal256(50, 19))
    assert digest(wide, pa.array([2**62], pa.int64())) == digest(wide, as_decimal, "target")


def test_text_that_is_no_number_equals_only_itself() -> None:
    comparison = way(INT, TEXT)
    texts = ("x", "X", "", "1 ", " 1", "1", "0x1", "1e", "٣")
    assert len({digest(comparison, pa.array([t]), "target") for t in texts}) == len(texts)


# --- which types can be compared, and as what ------------------------------------------------------

ALL = [
    Type("bool"),
    *map(Type, INTEGERS),
    *map(Type, FLOATS),
    MONEY,
    Type("decimal", precision=76, scale=40),
    *map(Type, TEXTS),
    Type("binary"),
    Type("date"),
    Type("time"),
    Type("timestamp"),
    Type("timestamptz"),
    Type("duration"),
    Type("interval"),
    Type("uuid"),
    LIST,
    PAIR,
    MAP,
    Type("wire", native="postgresql:tsvector"),
    Type("opaque", native="postgresql:inet"),
]


@pytest.mark.parametrize("t", ALL, ids=str)
def test_every_type_is_compared_with_itself_without_a_rule(t: Type) -> None:
    comparison = way(t, t)
    assert comparison.rules == (("char(n) without its padding",) if t.kind == "char" else ())
    Digester([comparison], "source").add(pa.RecordBatch.from_arrays([pa.nulls(3, t.arrow)], names=["x"]))


@pytest.mark.parametrize("source", ALL, ids=str)
def test_every_comparison_digests_both_sides_and_names_its_rules(source: Type) -> None:
    compared = 0
    for target in ALL:
        comparison = compare(source, target, source_engine="postgres", target_engine="duckdb")
        if comparison is None:
            continue
        compared += 1
        assert source == target or comparison.rules or {source.kind, target.kind} <= {"bit", "varbit"}
        for side, t in (("source", source), ("target", target)):
            digester = Digester([comparison], side)
            digester.add(pa.RecordBatch.from_arrays([pa.nulls(4, t.arrow)], names=["x"]))
            assert str(digester.digest) == reference.digest([comparison.spec], [pa.nulls(4)])
    assert compared


@pytest.mark.parametrize(
    ("source", "target", "spec"),
    [
        (INT, MONEY, "number(2)"),
        (MONEY, Type("decimal", precision=40, scale=6), "number(6)"),
        (INT, NUMERIC, "numeric"),
        (INT, FLOAT, "numeric"),
        (Type("decimal", precision=76, scale=0), Type("decimal", precision=76, scale=70), "numeric"),
        (Type("decimal", precision=76, scale=70), Type("decimal", precision=76, scale=70), "number(70)"),
        (Type("char", length=4), TEXT, "text"),
        (Type("enum"), TEXT, "text"),
        (Type("json"), Type("json"), "text"),
        (Type("jsonb"), Type("jsonb"), "text"),
        (Type("json"), Type("jsonb"), "json"),
        (Type("jsonb"), TEXT, "text"),
        (TEXT, Type("jsonb"), "json"),
        (TEXT, Type("json"), "text"),
        (LIST, LIST, "list<number(0)>"),
        (PAIR, PAIR, "struct<number(0), text>"),
        (MAP, MAP, "map<text, number(0)>"),
        (Type("list", element=PAIR), Type("list", element=PAIR), "list<struct<number(0), text>>"),
        (Type("date"), Type("timestamp"), "timestamp"),
        (Type("timestamptz"), Type("timestamptz"), "timestamptz"),
        (
            Type("wire", native="postgresql:a(b,c)"),
            Type("wire", native="postgresql:a(b,c)"),
            "wire(postgresql:a%28b%2cc%29)",
        ),
    ],
    ids=str,
)
def test_pair_is_compared_as(source: Type, target: Type, spec: str) -> None:
    assert way(source, target).spec == spec
    Digester([way(source, target)], "source")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Type("uuid"), INT),
        (Type("date"), TEXT),
        (Type("timestamp"), Type("timestamptz")),
        (Type("binary"), TEXT),
        (Type("bool"), TEXT),
        (LIST, TEXT),
        (LIST, INT),
        (PAIR, Type("struct", fields=(Field("a", INT),))),
        (Type("date"), Type("timestamptz")),
        (Type("opaque", native="postgresql:inet"), Type("opaque", native="postgresql:cidr")),
        (Type("enum"), Type("json")),
        (Type("wire", native="postgresql:a"), Type("wire", native="postgresql:b")),
        (Type("wire", native="postgresql:a"), Type("binary")),
        (Type("list", element=FLOAT), Type("list", element=MONEY)),
    ],
    ids=str,
)
def test_pair_cannot_be_compared(source: Type, target: Type) -> None:
    assert compare(source, target, source_engine="postgres", target_engine="duckdb") is None


def test_schema_id_names_specs_rules_and_order_but_no_names_or_types() -> None:
    ints, money, texts = way(INT, INT), way(INT, MONEY), way(TEXT, TEXT)
    ids = [schema_id(c) for c in ([ints, texts], [texts, ints], [money, texts], [ints], [])]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in ids)
    assert schema_id([way(INT, INT)]) == schema_id([way(Type("int64"), Type("int64"))])
    assert schema_id([way(FLOAT, FLOAT)]) != schema_id([way(FLOAT, FLOAT, "sqlite")])
    assert schema_id([way(INT, INT), way(TEXT, TEXT)]) == "e807e332ea6aa4d2cc998e3ad8a43a9c"


# --- digesters ------------------------------------------------------------------------------------


def test_buckets_of_threads_add_up_to_those_of_one() -> None:
    comparisons = [way(INT, INT), way(TEXT, TEXT)]
    batches = [
        pa.RecordBatch.from_arrays(
            [pa.array(range(i, i + 9000), pa.int32()), pa.array([str(i)] * 9000)], names=["a", "b"]
        )
        for i in range(0, 36_000, 9000)
    ]
    alone = Digester(comparisons, "source", [0])
    parts = [Digester(comparisons, "target", [0]) for _ in range(4)]
    for batch in batches:
        alone.add_buckets(batch)
        alone.add(batch)
    threads = [threading.Thread(target=p.add_buckets, args=(b,)) for p, b in zip(parts, batches, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    merged = merge_buckets(p.buckets() for p in parts)
    assert merged == alone.buckets()
    assert len(merged) == VERIFY_BUCKETS
    assert sum(merged, Digest()) == alone.digest


def test_selection_gives_exactly_the_rows_of_the_flagged_buckets() -> None:
    digester = Digester([way(INT, INT), way(TEXT, TEXT)], "source", [0])
    batch = pa.RecordBatch.from_arrays([pa.array(range(3000), pa.int32()), pa.array(["x"] * 3000)], names=["a", "b"])
    _, _, buckets = digester.rows(batch)
    flags = bytearray(VERIFY_BUCKETS)
    for bucket in buckets[:5]:
        flags[bucket] = 1
    expected = [i for i in range(3000) if flags[buckets[i]]]
    assert digester.select(batch, flags).column(0).to_pylist() == expected
    assert digester.mask(batch, bytes(VERIFY_BUCKETS)).to_pylist() == [False] * 3000
    assert len(expected) >= 5
    with pytest.raises(DataError):
        digester.mask(batch, b"\1")


def test_key_order_and_side_of_the_key_do_not_depend_on_types() -> None:
    source = Digester([way(INT, MONEY), way(TEXT, TEXT)], "source", [1, 0])
    target = Digester([way(INT, MONEY), way(TEXT, TEXT)], "target", [1, 0])
    other = Digester([way(INT, MONEY), way(TEXT, TEXT)], "source", [0, 1])
    texts = pa.array(["a", "b"])
    mine = pa.RecordBatch.from_arrays([pa.array([1, 2], pa.int32()), texts], names=["n", "t"])
    theirs = pa.RecordBatch.from_arrays([pa.array([D(1), D(2)], pa.decimal128(10, 2)), texts], names=["N", "T"])
    assert source.rows(mine)[:2] == target.rows(theirs)[:2]
    assert source.rows(mine)[0] != other.rows(mine)[0]
    assert source.rows(mine)[1] == other.rows(mine)[1]


def test_bad_values_and_batches_raise_and_leave_the_sum_alone() -> None:
    digester = Digester([way(Type("date"), Type("date"))], "source")
    bad = pa.RecordBatch.from_arrays([ticks(pa.date64(), 0, 1)], names=["born"])
    with pytest.raises(DataError) as caught:
        digester.add(bad)
    assert caught.value.column == "born"
    assert "row 1" in str(caught.value)
    with pytest.raises(TypeError):
        digester.add(pa.RecordBatch.from_arrays([pa.array(["2020-01-01"])], names=["born"]))
    with pytest.raises(DataError):
        digester.add(pa.RecordBatch.from_arrays([days(1), days(1)], names=["a", "b"]))
    assert digester.digest == Digest()
    digester.add(pa.RecordBatch.from_arrays([days(1)], names=["born"]))
    assert digester.digest.rows == 1


def test_batches_of_changing_layouts_are_each_read_as_they_are() -> None:
    digester = Digester([way(TEXT, TEXT)], "source")
    plain = pa.array(["a", "b"])
    for array in (plain, plain.dictionary_encode(), views(plain), plain.cast(pa.large_utf8()), plain):
        digester.add(pa.RecordBatch.from_arrays([array], names=["x"]))
    assert digester.digest == sum([digest(way(TEXT, TEXT), plain)] * 5, Digest())


def test_wrong_side_and_wrong_spec_are_refused() -> None:
    with pytest.raises(ValueError):
        Digester([way(INT, INT)], "middle")
    for spec in (
        "",
        "nonsense",
        "number(x)",
        "number(2",
        "list<text",
        "list<text>x",
        "struct<text>",
        "text(3)",
        "float(5)",
    ):
        with pytest.raises(ValueError):
            Digester([Comparison(PAIR, PAIR, spec)], "source")
