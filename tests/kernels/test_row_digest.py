"""The digest kernel against fixed vectors, against the slow twin in reference.py, and against hostile arrays."""

from __future__ import annotations

import decimal
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference
from hashing import batch_of, kernel_rows, kernel_sum, program, sizes_of
from rowferry._native import row_digest
from rowferry._native.row_digest import Hasher

D = decimal.Decimal
MOD = 2**128

# --- fixed vectors: these may never change within a format version --------------------------------

#: (spec, Arrow array of one value, digest of the row that holds nothing else). Also in docs/DIGEST.md.
VECTORS: list[tuple[str, pa.Array, str]] = [
    ("text", pa.array([None], pa.utf8()), "f4ab4be9b73bca44717b1f682706bc5c"),
    ("bool", pa.array([True]), "4a422ebb0865017142965fec8afe56fa"),
    ("number(0)", pa.array([0], pa.int8()), "789ca378cd477a3c4cb146b3e6d92d95"),
    ("number(0)", pa.array([-1], pa.int64()), "5c123f97eba51d2fb0965e92fd0487af"),
    ("number(2)", pa.array([D("1.50")], pa.decimal128(10, 2)), "ab3410d11aa3c1c0b3c01ca58f1df0b4"),
    ("number(0)", pa.array([2**64 - 1], pa.uint64()), "8cf02e549357737b62d7e6ef8d8b17c1"),
    ("number(0)", pa.array([D(10) ** 50], pa.decimal256(60, 0)), "b9ba8c742001d27b4d6048f05e08ff85"),
    ("number(76)", pa.array([D(-(2**62))], pa.decimal128(19, 0)), "b64ec166e09231c37e5a5796edefe7dc"),
    ("numeric", pa.array(["-12.50"]), "5c2583b256647d0cb10156cb924c7cac"),
    ("numeric", pa.array(["0.00"]), "cd7803df2e59e560b5c57ef5b3e03505"),
    ("numeric", pa.array(["NaN"]), "fdeb757e5e7578981080c5449c8e4e97"),
    ("numeric", pa.array(["Infinity"]), "bd880ef23c30f3425557349a641b112e"),
    ("numeric", pa.array(["-Infinity"]), "19d3e15f217fe3b547943ee302a891e6"),
    ("numeric", pa.array(["1234567890123456789012345"]), "c006324836a7d4b6db6393caca38eaae"),
    ("float", pa.array([1.5]), "a635ffb4bc9012b65b68e96fa95be13f"),
    ("float", pa.array([-0.0]), "ef3f827c144132ce2f08dc281ad43e54"),
    ("float(unsigned zero)", pa.array([-0.0]), "45d9d4f5e7d3e1cb621fa503a0610744"),
    ("float", pa.array([float("nan")]), "d04eaf5cdf0c668a39e54124f4191762"),
    ("text", pa.array([""]), "82ba04b5e8de03173da7e66791397ee2"),
    ("text", pa.array(["rowferry"]), "046b26cca5bc83e1a0102f1eac452547"),
    ("text", pa.array(["über alle Meere"]), "e7b71b974219a14065811dc8ac8e88ef"),
    ("binary", pa.array([b"\x00\xff"]), "b2e2cd6feaafdeab1f22a5201da2bfa9"),
    ("date", pa.array([19000], pa.int32()).cast(pa.date32()), "c6a84c679dbee19c62190cb05b939dbd"),
    ("date", pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), "77c0b272e51c8ce515eb41a5cd592ca8"),
    ("time", pa.array([86_400_000_000], pa.int64()).cast(pa.time64("us")), "71ecf5432d5429c6c0a3e9f63031ea96"),
    ("timestamp", pa.array([-1], pa.int64()).cast(pa.timestamp("us")), "7cda4b7feee52e7a30a65dab1c4ffa05"),
    ("timestamp", pa.array([-(2**63)], pa.int64()).cast(pa.timestamp("us")), "d0a6a4dc615ed0db8528dd258397a7b7"),
    ("duration", pa.array([-1], pa.int64()).cast(pa.duration("ms")), "faac71a5f8f6458d44a9edfbbfa76c76"),
    ("interval", pa.array([(14, -3, 1_000)], pa.month_day_nano_interval()), "d80e29a63aa35f350b3d9e5fbfa5c688"),
    ("uuid", pa.array([bytes(range(16))], pa.binary(16)), "b3c50a387e8c39e10a21e491cd6c4005"),
    ("json", pa.array(['{"b": [1.50, "\\u00e9"], "a": null, "b": [15e-1, "é"]}']), "4ed4210f89c391bbf2194e0ddc34ab88"),
    ("json", pa.array(["{oops"]), "24ea1188aa859e476cf961b8d7e551f5"),
    ("list<text>", pa.array([["a", None, ""]], pa.list_(pa.utf8())), "df8df6b73abe59212f0dfbad10f4b3ed"),
    ("struct<number(0), text>", pa.array([{"x": 1, "y": "b"}]), "e55369a51725136bcc69908f21da76ca"),
    (
        "map<text, number(0)>",
        pa.array([[("k", 1)]], pa.map_(pa.utf8(), pa.int32())),
        "2e704632e98a7f2b406e3c4db0156609",
    ),
]


@pytest.mark.parametrize(("spec", "array", "expected"), VECTORS, ids=[f"{i}-{v[0]}" for i, v in enumerate(VECTORS)])
def test_vector_of_one_value_is_as_written_down(spec: str, array: pa.Array, expected: str) -> None:
    assert f"{kernel_rows([spec], [array])[1][0]:032x}" == expected
    assert f"{reference.row_digests([spec], [array])[0]:032x}" == expected


def test_vector_of_a_row_key_and_set_is_as_written_down() -> None:
    specs = ["number(0)", "text", "number(2)"]
    columns = [pa.array([1, 2]), pa.array(["one", None]), pa.array([D("1.10"), D("-2.20")], pa.decimal128(10, 2))]
    keys, rows = kernel_rows(specs, columns, key=[0])
    assert [f"{d:032x}" for d in (*keys, *rows)] == [
        "631a7b4a2acd826096810f5d2e97df75",
        "c65061e2189a5da142c8cf132222f1f4",
        "9acc0e996cc05e1184aea14f60c975ba",
        "3fc3e41193663d80bff1e7df610cc257",
    ]
    assert kernel_sum(specs, columns) == "2:da8ff2ab00269b9244a0892ec1d63811"
    assert reference.row_digests(specs, columns) == rows
    assert reference.row_digests(specs[:1], columns[:1], "key seed") == keys


def test_constants_are_as_written_down() -> None:
    names = ["multiplier", "row seed", "key seed", *(f"tag {t}" for t in row_digest.TAGS)]
    ours = [row_digest.constant(name, lane) for name in names for lane in (0, 1)]
    assert ours == [reference.constant(name, lane) for name in names for lane in (0, 1)]
    assert f"{ours[0]:016x}" == "a7b49582316f55db"
    assert len(set(ours)) == len(ours)


def test_document_holds_every_vector_and_constant() -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs" / "DIGEST.md").read_text()
    for spec, _, expected in VECTORS:
        assert f"| `{spec}` |" in text
        assert expected in text
    for tag in row_digest.TAGS:
        for lane in (0, 1):
            assert f"{row_digest.constant(f'tag {tag}', lane):016x}" in text


def test_rows_without_columns_are_counted() -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * 5, pa.struct([])))
    hasher = Hasher([])
    hasher.add(batch, [])
    assert hasher.result() == (5, 5 * reference.row_digest([]) % MOD)


# --- against the slow twin ------------------------------------------------------------------------

I64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**62, 10**18])
TEXT = st.text(max_size=40)


def integers_of(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def ints_as(t: pa.DataType, bits: int = 64) -> tuple[Any, Any]:
    storage = pa.int32() if bits == 32 else pa.int64()
    edges = st.sampled_from([0, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))])
    return integers_of(bits) | edges, lambda v: pa.array(v, storage).view(t)


def plain(t: pa.DataType) -> Any:
    return lambda values: pa.array(values, t)


def decimals(t: pa.DataType) -> tuple[Any, Any]:
    """Unscaled integers, and how they become an array of any width and scale (built from its bytes)."""
    limit, width = 10**t.precision - 1, t.bit_width // 8

    def make(values: list[int | None]) -> pa.Array:
        data = b"".join((v or 0).to_bytes(width, "little", signed=True) for v in values)
        valid = pa.array([v is not None for v in values], pa.bool_()).buffers()[1]
        return pa.Array.from_buffers(t, len(values), [valid, pa.py_buffer(data)])

    edges = st.sampled_from([limit, -limit, 0, min(limit, 2**63), -min(limit, 2**63 + 1)])
    return st.integers(-limit, limit) | st.integers(-1000, 1000) | edges, make


NUMBER_TEXT = st.from_regex(r"[+-]?(0{0,3}[0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,3})(e[+-]?[0-9]{1,3})?", fullmatch=True)
ODD_NUMBERS = ["NaN", "nan", "-nan", "Infinity", "-Infinity", "+inf", "-", ".", "", "1e", "1e99999999999", "0e5", "-0"]
NUMERIC_TEXT = NUMBER_TEXT | TEXT | st.sampled_from(ODD_NUMBERS)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | I64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=12,
)
ODD_JSON = ['{"a":1,"a":2,"\\u0061":3}', "[1e5,100000,1.0e+05,0.00,-0,1E-400]", '"\\ud800"', '"\\ud83d\\ude00"', "[01]",
            "[1,]", "nul", '"\x01"', "[]x", " {} ", "1e999999999", "1e1000000000"]  # fmt: skip
JSON_DUMPED = st.builds(
    lambda value, ascii_, indent: json.dumps(value, ensure_ascii=ascii_, indent=indent),
    JSON_VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)
JSON_TEXT = JSON_DUMPED | TEXT | st.sampled_from(ODD_JSON)
UUIDS = st.binary(min_size=16, max_size=16)

#: (spec, strategy of values, how a list of them becomes an array)
COLUMNS: list[tuple[str, Any, Any]] = [
    ("bool", st.booleans(), plain(pa.bool_())),
    ("number(0)", st.booleans(), plain(pa.bool_())),
    *[("number(0)", integers_of(b), plain(getattr(pa, f"int{b}")())) for b in (8, 16, 32, 64)],
    *[("number(3)", integers_of(b, False), plain(getattr(pa, f"uint{b}")())) for b in (8, 16, 32, 64)],
    ("number(0)", integers_of(64, False), plain(pa.uint64())),
    ("number(20)", I64, plain(pa.int64())),
    ("number(76)", I64, plain(pa.int64())),
    ("number(2)", *decimals(pa.decimal32(7, 2))),
    ("number(4)", *decimals(pa.decimal64(15, 2))),
    ("number(2)", *decimals(pa.decimal128(15, 2))),
    ("number(30)", *decimals(pa.decimal128(38, 10))),
    ("number(0)", *decimals(pa.decimal128(20, -5))),
    ("number(5)", *decimals(pa.decimal256(76, 5))),
    ("number(70)", *decimals(pa.decimal256(60, 3))),
    ("numeric", I64, plain(pa.int64())),
    ("numeric", integers_of(64, False), plain(pa.uint64())),
    ("numeric", *decimals(pa.decimal128(38, 10))),
    ("numeric", *decimals(pa.decimal256(76, -10))),
    ("numeric", NUMERIC_TEXT, plain(pa.utf8())),
    ("numeric", NUMERIC_TEXT, plain(pa.large_utf8())),
    ("float", st.floats(), plain(pa.float64())),
    ("float", st.floats(width=32), plain(pa.float32())),
    ("float(unsigned zero)", st.floats() | st.just(-0.0), plain(pa.float64())),
    ("float(unsigned zero)", st.floats(width=32), plain(pa.float32())),
    ("text", TEXT, plain(pa.utf8())),
    ("text", TEXT, plain(pa.large_utf8())),
    ("binary", st.binary(max_size=30), plain(pa.binary())),
    ("binary", st.binary(max_size=30), plain(pa.large_binary())),
    ("binary", st.binary(min_size=5, max_size=5), plain(pa.binary(5))),
    ("uuid", UUIDS, plain(pa.binary(16))),
    ("date", *ints_as(pa.date32(), 32)),
    ("date", st.integers(-(10**6), 10**6).map(lambda d: d * 86_400_000) | st.sampled_from([2**63 - 1, -(2**63)]),
     lambda v: pa.array(v, pa.int64()).view(pa.date64())),
    ("timestamp", *ints_as(pa.date32(), 32)),
    *[("timestamp", *ints_as(pa.timestamp(u))) for u in ("s", "ms", "us", "ns")],
    ("timestamp", *ints_as(pa.timestamp("us", "Europe/Berlin"))),
    *[("time", integers_of(32), lambda v, u=u: pa.array(v, pa.int32()).view(pa.time32(u))) for u in ("s", "ms")],
    *[("time", *ints_as(pa.time64(u))) for u in ("us", "ns")],
    *[("duration", *ints_as(pa.duration(u))) for u in ("s", "ms", "us", "ns")],
    *[("interval", *ints_as(pa.duration(u))) for u in ("s", "us", "ns")],
    ("interval", st.tuples(integers_of(32), integers_of(32), I64), plain(pa.month_day_nano_interval())),
    ("json", JSON_TEXT, plain(pa.utf8())),
    ("json", JSON_TEXT, plain(pa.large_utf8())),
    ("text", st.none(), plain(pa.null())),
    ("list<number(0)>", st.lists(I64 | st.none(), max_size=4), plain(pa.list_(pa.int64()))),
    ("list<text>", st.lists(TEXT | st.none(), max_size=3), plain(pa.large_list(pa.utf8()))),
    ("list<number(0)>", st.lists(integers_of(8), min_size=2, max_size=2), plain(pa.list_(pa.int8(), 2))),
    ("list<list<json>>", st.lists(st.lists(JSON_TEXT, max_size=2) | st.none(), max_size=2),
     plain(pa.list_(pa.list_(pa.utf8())))),
    ("struct<text, list<bool>>",
     st.fixed_dictionaries({"a": TEXT | st.none(), "b": st.lists(st.booleans(), max_size=9) | st.none()}),
     plain(pa.struct([("a", pa.utf8()), ("b", pa.list_(pa.bool_()))]))),
    ("list<struct<number(1), date>>",
     st.lists(st.fixed_dictionaries({"a": integers_of(16), "b": st.dates() | st.none()}) | st.none(), max_size=3),
     plain(pa.list_(pa.struct([("a", pa.int16()), ("b", pa.date32())])))),
    ("map<text, float>", st.lists(st.tuples(TEXT, st.floats() | st.none()), max_size=3),
     plain(pa.map_(pa.utf8(), pa.float64()))),
]  # fmt: skip


@st.composite
def columns(draw: Any) -> tuple[list[str], list[pa.Array]]:
    """One to four columns of 0–12 rows, each sliced out of a longer array at a place of its own."""
    rows = draw(st.integers(0, 12))
    specs, arrays = [], []
    for _ in range(draw(st.integers(1, 4))):
        spec, values, make = draw(st.sampled_from(COLUMNS))
        before, after = draw(st.integers(0, 9)), draw(st.integers(0, 2))
        nullable = values | st.none() if draw(st.booleans()) else values
        whole = make(draw(st.lists(nullable, min_size=rows + before + after, max_size=rows + before + after)))
        specs.append(spec)
        arrays.append(whole.slice(before, rows))
    return specs, arrays


QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(columns())
def test_digests_of_any_columns_equal_the_twins(made: tuple[list[str], list[pa.Array]]) -> None:
    specs, arrays = made
    assert kernel_rows(specs, arrays)[1] == reference.row_digests(specs, arrays)


@pytest.mark.parametrize("number", range(len(COLUMNS)), ids=[f"{i}-{c[0]}" for i, c in enumerate(COLUMNS)])
def test_each_column_type_in_blocks_equals_the_twins(number: int) -> None:
    """A few hundred rows around the block's length, so that fast ways and their ends are met."""
    spec, values, make = COLUMNS[number]
    pool: list[Any] = []

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(values, min_size=1, max_size=4))
    def collect(some: list[Any]) -> None:
        pool.extend(some)

    collect()
    choose = random.Random(number)
    for nulls in (False, True):
        drawn = [None if nulls and choose.random() < 0.3 else choose.choice(pool) for _ in range(530)]
        array = make(drawn).slice(3)
        assert kernel_rows([spec], [array])[1] == reference.row_digests([spec], [array])


@QUICK
@given(JSON_TEXT)
def test_json_is_written_as_the_twin_writes_it(text: str) -> None:
    assert row_digest.canonical_json(text.encode()) == reference.canonical_json(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (' {"b" : 1.50, "a":[true ,false,null]}\n', '{"a":[true,false,null],"b":15e-1}'),
        ('{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'),
        ('{"b":{"y":1,"x":{}},"a":{"d":1,"d":2}}', '{"a":{"d":2},"b":{"x":{},"y":1}}'),
        ("-0.0e7", "0"),
        ("100.0", "1e2"),
        ("-1.25E+3", "-125e1"),
        ('"\\u00e9\\/\\u001f\\""', '"é/\\u001f\\""'),
    ],
)
def test_json_is_written_in_one_form(text: str, canonical: str) -> None:
    assert row_digest.canonical_json(text.encode()).decode() == canonical


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"}', "[1 2]", "NaN", "1.", ".5", "+1", "--1", "'a'", '"\\x"', "1e", '"', "\x00"]
)
def test_what_is_no_json_is_its_own_bytes(text: str) -> None:
    assert row_digest.canonical_json(text.encode()) == b"\xff" + text.encode()


def test_json_nested_to_the_limit_is_json_and_beyond_it_bytes() -> None:
    deep, deeper = b"[" * 512 + b"]" * 512, b"[" * 513 + b"]" * 513
    assert row_digest.canonical_json(b" " + deep) == deep
    assert row_digest.canonical_json(deeper) == b"\xff" + deeper
    assert row_digest.canonical_json(b"[" * 10_000_000).startswith(b"\xff")


def test_json_object_of_many_keys_is_ordered() -> None:
    keys = [f"k{i}" for i in range(5000)]
    random.Random(1).shuffle(keys)
    text = "{" + ",".join(f'"{k}":{i}' for i, k in enumerate(keys * 2)) + "}"
    assert row_digest.canonical_json(text.encode()) == reference.canonical_json(text)


# --- sums, buckets, selection ---------------------------------------------------------------------


@QUICK
@given(columns(), st.integers(0, 12))
def test_digests_add_up_however_rows_are_split_and_ordered(made: tuple[list[str], list[pa.Array]], cut: int) -> None:
    specs, arrays = made
    whole = batch_of(arrays)
    programs = [program(s) for s in specs]
    at_once, in_parts, backwards = Hasher(programs), Hasher(programs), Hasher(programs)
    at_once.add(whole, sizes_of(whole))
    for part in (whole.slice(cut), whole.slice(0, cut)):
        in_parts.add(part, sizes_of(part))
    for i in reversed(range(whole.num_rows)):
        row = whole.slice(i, 1)
        backwards.add(row, sizes_of(row))
    assert at_once.result() == in_parts.result() == backwards.result()


@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 5000])
def test_buckets_rows_and_selection_agree(rows: int) -> None:
    keys_column = pa.array([i % 700 for i in range(rows)], pa.int32())
    batch = batch_of([keys_column, pa.array([f"v{i}" for i in range(rows)], pa.utf8())])
    programs = [("number", 0, ()), ("text", 0, ())]
    for key in ([0], [1, 0], []):
        hasher = Hasher(programs, key, 64)
        hasher.add(batch, sizes_of(batch))
        hasher.add_buckets(batch, sizes_of(batch))
        keys, digests, indices = hasher.rows(batch, sizes_of(batch))
        numbers = struct.unpack(f"<{rows}H", indices)
        assert numbers == tuple(keys[16 * i + 15] & 63 for i in range(rows))
        expected = [[0, 0] for _ in range(64)]
        for i, bucket in enumerate(numbers):
            expected[bucket][0] += 1
            expected[bucket][1] = (expected[bucket][1] + int.from_bytes(digests[16 * i : 16 * i + 16], "big")) % MOD
        assert hasher.buckets() == [tuple(e) for e in expected]
        assert hasher.result() == (rows, sum(e[1] for e in expected) % MOD)
        flags = bytes(i % 3 == 0 for i in range(64))
        bits = hasher.select(batch, sizes_of(batch), flags)
        assert [bits[i // 8] >> i % 8 & 1 for i in range(rows)] == [flags[b] for b in numbers]


def test_pairs_that_cancel_under_xor_do_not_under_the_sum() -> None:
    def total(values: list[str]) -> str:
        return kernel_sum(["text"], [pa.array(values, pa.utf8())])

    assert len({total(v) for v in ([], ["a", "a"], ["b", "b"], ["a", "b"], ["a", "a", "a"], ["a"])}) == 6


def test_a_moved_value_and_a_swapped_pair_are_seen() -> None:
    def row(*values: Any) -> int:
        return kernel_rows(["text"] * len(values), [pa.array([v], pa.utf8()) for v in values])[1][0]

    different = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("ab",), ("a", "b", None), (None, "a", "b"),
                 ("a", None, "b"), ("a", "b", "")]  # fmt: skip
    assert len({row(*values) for values in different}) == len(different)


def test_no_two_of_a_million_similar_rows_collide() -> None:
    rows = 1_000_000
    batch = batch_of([pa.array(range(rows), pa.int64()), pa.array([i % 10 for i in range(rows)], pa.int8())])
    _, digests, _ = Hasher([("number", 0, ())] * 2).rows(batch, sizes_of(batch))
    words = memoryview(digests).cast("Q")
    for lane in (0, 1):
        assert len(set(words[lane::2])) == rows


def test_interpreter_goes_on_while_rows_are_folded() -> None:
    batch = batch_of([pa.array(range(4096), pa.int64()).take(pa.array(list(range(4096)) * 800))] * 4)
    hasher = Hasher([("number", 0, ())] * 4)
    thread = threading.Thread(target=hasher.add, args=(batch, sizes_of(batch)))
    thread.start()
    steps = 0
    while thread.is_alive():
        steps += 1
    assert hasher.result()[0] == 4096 * 800
    # Were the lock held for the 13 million cells, this loop would have got no turn at all.
    assert steps > 100


def test_one_hasher_in_two_threads_is_refused_or_serial() -> None:
    batch = batch_of([pa.array(range(200_000), pa.int64())])
    hasher = Hasher([("number", 0, ())])
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(50):
            try:
                hasher.add(batch, sizes_of(batch))
                outcomes.append("added")
            except RuntimeError:
                outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 150
    assert hasher.result()[0] == 200_000 * outcomes.count("added")


def test_benchmark_runs_at_a_small_size_and_beats_plain_python() -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_row_digest.py", "--rows", "20000"],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ratio = re.search(r"kernel / python md5 (\d+)×", done.stdout)
    assert ratio is not None
    assert int(ratio[1]) > 5
