"""Expressions run by Arrow's kernels against DuckDB itself: the same types, values and errors, or DuckDB's own."""

from __future__ import annotations

import datetime
import decimal
import itertools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry.errors import ConfigError
from rowferry.stages import expression_query, expression_syntax, expressions
from rowferry.stages.expression_kernels import Compiled, compiled
from rowferry.stages.expression_query import Field, Plan, Query
from rowferry.stages.expression_work import Asked, Swift, Work, _worked
from rowferry.stages.expressions import Parser
from rowferry.types import Type

STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=datetime.UTC)
FIELDS = [
    Field("a", Type("text")), Field("b", Type("char", length=9)), Field("n", Type("int64")),
    Field("i", Type("int32")), Field("s", Type("int16")), Field("t", Type("int8")), Field("u", Type("uint32")),
    Field("v", Type("uint64")), Field("d", Type("decimal", precision=12, scale=2)),
    Field("e", Type("decimal", precision=18, scale=4)), Field("g", Type("decimal", precision=4, scale=0)),
    Field("h", Type("decimal", precision=38, scale=10)), Field("x", Type("float64")), Field("f", Type("float32")),
    Field("k", Type("bool")), Field("z", Type("date")), Field("w", Type("timestamptz", unit="us")),
    Field("o", Type("timestamp", unit="us")),
]  # fmt: skip
NAMES = [field.name for field in FIELDS]
TYPES = [field.type for field in FIELDS]


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    opened = expression_query.connect()
    yield opened
    opened.close()


def planned(connection: Any, *texts: str) -> Plan:
    parser = Parser(connection, STARTED)
    checked = [parser.check(text, NAMES) for text in texts]
    return expression_query.plan(connection, FIELDS, checked, [None] * len(texts))


def kernel_of(text: str) -> Compiled | None:
    node = expression_syntax.read(text, NAMES)
    # What is only a column never becomes an expression.
    return None if node is None or node.kind == "column" else compiled(node, TYPES, STARTED)


def work_of(connection: Any, *texts: str) -> Work:
    asked = [Asked(None, text, expression_syntax.read(text, NAMES), None) for text in texts]
    return Work(FIELDS, asked, STARTED, lambda: Parser(connection, STARTED))


_NAMES = itertools.count()


def query(connection: Any, plan: Plan, chosen: Any = None) -> Query:
    return Query(connection, f"test {next(_NAMES)}", plan, chosen)


def held_against_duckdb(connection: Any, text: str, rows: list[tuple[Any, ...]], cut: int = 0) -> bool:
    """Whether a kernel gave the values, which then are DuckDB's."""
    kernel = kernel_of(text)
    try:
        plan = planned(connection, text)
    except ConfigError:
        assert kernel is None, f"{text}: DuckDB refuses it"
        return False
    if kernel is None:
        return False
    assert kernel.type == plan.made[0].type, text
    assert kernel.reads == plan.checked[0].reads, text
    arrays = [array.slice(cut) for array in arrays_of(*rows)]
    got = _worked(kernel, arrays, len(arrays[0]))
    try:
        want = query(connection, plan).run(arrays, len(arrays[0]))[0]
    except duckdb.Error as error:
        assert got is None, f"{text}: DuckDB fails with {error}"
        return False
    if got is None:
        return False
    assert got.type == want.type, text
    assert bits(got) == bits(want), text
    return True


def arrays_of(*rows: tuple[Any, ...]) -> list[pa.Array]:
    """One array for each field. Dates and timestamps that Python does not have are given as the integers they are."""
    arrays = []
    for i, t in enumerate(TYPES):
        values: list[Any] = [row[i] for row in rows]
        if any(type(v) is int for v in values) and t.kind in ("date", "timestamp"):
            whole = pa.int32() if t.kind == "date" else pa.int64()
            own = pa.array([None if type(v) is int else v for v in values], t.arrow).view(whole).to_pylist()
            mixed = [v if type(v) is int else o for v, o in zip(values, own, strict=True)]
            arrays.append(pa.array(mixed, whole).view(t.arrow))
        else:
            arrays.append(pa.array(values, t.arrow))
    return arrays


def bits(array: pa.Array) -> list[Any]:
    """Values in a form in which NaN and −0.0 are themselves."""
    if pa.types.is_date(array.type):
        array = array.view(pa.int32())
    return [repr(v) if isinstance(v, float) else v for v in array.to_pylist()]


# Texts.

TEXT_EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "'x'", "''", "' Q '", "'é'", "'it''s'", "n::VARCHAR", "a::VARCHAR", "k::TEXT"]),
    lambda inner: (
        st.builds("{}({})".format, st.sampled_from(["lower", "UPPER", "trim", "ltrim", "rtrim"]), inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("concat({}, {})".format, inner, inner)
        | st.builds("coalesce({}, {})".format, inner, inner)
        | st.builds("replace({}, {}, {})".format, inner, st.sampled_from(["'x'", "'aa'", "''", "'ß'"]), inner)
        | st.builds("left({}, {})".format, inner, st.integers(-1, 3))
        | st.builds("substr({}, {}, {})".format, inner, st.integers(-1, 3), st.integers(-1, 3))
        | st.builds("nullif({}, {})".format, inner, inner)
        | st.builds("CASE WHEN contains({}, 'a') THEN {} ELSE {} END".format, inner, inner, inner)
        | st.builds("CASE WHEN starts_with({}, 'x') THEN {} END".format, inner, inner)
    ),
    max_leaves=5,
)
TEXTS = (
    st.none()
    | st.text(" aZ\t\0\n\x1f", max_size=5)
    | st.text(max_size=4)
    | st.sampled_from(
        ["ß", "İ", "\u00a0x", "ǅ", "aaa", "x", "e\u0301x", "👨‍👩‍👧", "12", "-7", " 5", "1.5", "+3", "1e2"]
    )
)


def whole(bits: int, signed: bool = True) -> Any:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.none() | st.integers(max(low, -9), 9) | st.sampled_from([low, high, low + 1, high // 3]) | (
        st.integers(low, high)
    )  # fmt: skip


def decimals(precision: int, scale: int) -> Any:
    most = 10**precision - 1
    return (st.none() | st.integers(-200, 200) | st.sampled_from([most, -most]) | st.integers(-most, most)).map(
        lambda v: None if v is None else decimal.Decimal(v).scaleb(-scale, decimal.Context(prec=60))
    )


def rows(tame: bool) -> Any:
    """Rows of all columns; tame ones make no expression fail, mostly."""
    if tame:
        small = st.none() | st.integers(-9, 9)
        counts = st.none() | st.integers(0, 9)
        parts = [TEXTS, TEXTS, small, small, small, small, counts, counts,
                 *(st.none() | st.decimals(-9, 9, places=places) for places in (2, 4, 0, 10)),
                 st.none() | st.floats(-9, 9), st.none() | st.floats(-9, 9, width=32)]  # fmt: skip
    else:
        parts = [TEXTS, TEXTS, whole(64), whole(32), whole(16), whole(8), whole(32, False), whole(64, False),
                 decimals(12, 2), decimals(18, 4), decimals(4, 0), decimals(38, 10),
                 st.none() | st.floats(), st.none() | st.floats(width=32)]  # fmt: skip
    dates = st.none() | st.dates() | st.sampled_from([datetime.date(2024, 2, 29), datetime.date(2024, 3, 1)])
    instants = st.none() | st.datetimes(datetime.datetime(1900, 1, 1), timezones=st.just(datetime.UTC))
    # Beyond what Python has: infinite ones, and those before the year 1.
    clocks = st.none() | st.datetimes() | st.sampled_from([2**63 - 1, -(2**63), -(10**17)])
    far = dates if tame else dates | st.sampled_from([2**31 - 1, -(2**31), -800_000, 3_000_000])
    return st.lists(st.tuples(*parts, st.none() | st.booleans(), far, instants, clocks), min_size=1, max_size=5)


ROWS = rows(tame=True) | rows(tame=False)


@settings(max_examples=150, deadline=None)
@given(TEXT_EXPRESSIONS, ROWS, st.integers(0, 2))
def test_any_text_expression_gives_what_duckdb_gives(connection: Any, expression: str, rows: Any, cut: int) -> None:
    held_against_duckdb(connection, expression, rows, cut if cut < len(rows) else 0)


# Numbers and conditions.

NUMBERS = ["n", "i", "s", "t", "u", "v", "d", "e", "g", "h", "x", "f", "1", "0", "-1", "7", "100", "40000",
           "3000000000", "1.5", "0.25", "10.00", "n", "i", "d", "e", "x"]  # fmt: skip
NUMBER_TYPES = ["TINYINT", "SMALLINT", "INT", "BIGINT", "DOUBLE", "DECIMAL(10,2)", "DECIMAL(18,4)", "DECIMAL(38,0)",
                "NUMERIC(5, 1)"]  # fmt: skip


def _numbers(inner: Any) -> Any:
    condition = st.builds("{} {} {}".format, inner, st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "!="]), inner)
    return (
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*"), inner)
        | st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner)
        | st.builds("{} / {}".format, inner, inner)
        | st.builds("-{}".format, inner)
        | st.builds("abs({})".format, inner)
        | st.builds("round({}, {})".format, inner, st.integers(-1, 4))
        | st.builds("CAST({} AS {})".format, inner, st.sampled_from(NUMBER_TYPES))
        | st.builds("TRY_CAST({} AS {})".format, inner, st.sampled_from(NUMBER_TYPES))
        | st.builds("({})::{}".format, inner, st.sampled_from(NUMBER_TYPES))
        | st.builds("coalesce({}, {})".format, inner, inner)
        | st.builds("nullif({}, {})".format, inner, inner)
        | st.builds("CASE WHEN {} THEN {} ELSE {} END".format, condition, inner, inner)
        | st.builds("CASE {} WHEN {} THEN {} END".format, inner, inner, inner)
        | st.sampled_from(
            [
                "length(a)",
                "CAST(a AS INT)",
                "a::BIGINT",
                "k::INT",
                "CAST(b AS SMALLINT)",
                "year(z)",
                "month(o::DATE)",
                "day(CAST(o AS DATE))",
            ]
        )
    )


NUMBER_EXPRESSIONS = st.recursive(st.sampled_from(NUMBERS), _numbers, max_leaves=4)
OPERANDS = st.sampled_from(NUMBERS) | NUMBER_EXPRESSIONS


def _conditions(inner: Any) -> Any:
    return (
        st.builds("{} AND {}".format, inner, inner)
        | st.builds("({} OR {})".format, inner, inner)
        | st.builds("NOT ({})".format, inner)
        | st.builds("({}) IS NULL".format, inner)
        | st.builds("({}) = ({})".format, inner, inner)
    )


TIMES = st.sampled_from(
    ["o", "w", "z", "'2024-02-29'", "'2024-03-01 12:00:00'", "'2024-03-01T12:00'", "'2024-02-30'",
     "TIMESTAMP '1999-12-31'", "now()", "today()", "DATE '2000-01-01'", "timestamp '2024-03-01 24:00:00'",
     "coalesce(o, '2024-02-29')", "coalesce(o, TIMESTAMP '2024-02-29')", "coalesce(w, now())", "o::DATE",
     "CASE WHEN k THEN w END", "nullif(o, o)"]
)  # fmt: skip
CONDITIONS = st.recursive(
    st.builds("{} {} {}".format, OPERANDS, st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "=="]), OPERANDS)
    | st.builds("{} {} {}".format, st.sampled_from(["a", "b", "'x'", "lower(a)"]),
                st.sampled_from(["=", "<>", "<", ">="]), st.sampled_from(["a", "b", "'x'", "'é'", "upper(b)"]))
    | st.builds("z {} {}".format, st.sampled_from(["=", "<", ">="]),
                st.sampled_from(["DATE '2024-02-29'", "'2024-03-01'", "'2024-3-1'", "today()", "DATE '2024-02-30'"]))
    | st.builds("{} {} {}".format, TIMES, st.sampled_from(["=", "<>", "<", ">="]), TIMES)
    | st.builds("{} BETWEEN {} AND {}".format, TIMES, TIMES, TIMES)
    | st.builds("{} BETWEEN {} AND {}".format, OPERANDS, OPERANDS, OPERANDS)
    | st.builds("{} NOT IN ({}, {})".format, OPERANDS, OPERANDS, OPERANDS)
    | st.builds("a IN ({}, 'x')".format, st.sampled_from(["b", "'é'", "''", "NULL"]))
    | st.builds("{} IS NOT NULL".format, OPERANDS | st.sampled_from(["w", "z", "k", "a"]))
    | st.builds("{} {}LIKE {}".format, st.sampled_from(["a", "b", "upper(a)"]), st.sampled_from(["", "NOT "]),
                st.text("%_xaé\\\n.ZB ", min_size=0, max_size=4).map("'{}'".format))
    | st.sampled_from(["k", "o::DATE = z", "o::date < '2024-03-01'", "TRUE", "false", "starts_with(a, 'x')",
                        "w IS NULL"]),
    _conditions, max_leaves=4,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(NUMBER_EXPRESSIONS, ROWS, st.integers(0, 2))
def test_any_number_expression_gives_what_duckdb_gives(connection: Any, expression: str, rows: Any, cut: int) -> None:
    held_against_duckdb(connection, expression, rows, cut if cut < len(rows) else 0)


@settings(max_examples=250, deadline=None)
@given(CONDITIONS, ROWS, st.integers(0, 2))
def test_any_condition_gives_what_duckdb_gives(connection: Any, expression: str, rows: Any, cut: int) -> None:
    held_against_duckdb(connection, expression, rows, cut if cut < len(rows) else 0)


ROW = (" Aé", "b", 5, 4, 3, 2, 1, 1, decimal.Decimal("1.50"), decimal.Decimal("2.2500"), decimal.Decimal(7),
       decimal.Decimal("0.5"), 0.5, 0.25, True, datetime.date(2024, 2, 29), STARTED,
       STARTED.replace(tzinfo=None))  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "swift"),
    [
        ("lower(trim(b))", True), ("a || '-' || b", True), ("concat(a, ' ', b)", True), ("coalesce(a, b, 'é')", True),
        ("a::VARCHAR", True), ("a = 'x'", True), ("CASE WHEN n > 0 THEN a END", True), ("n + 1", True),
        ("i + 1", True), ("s * 2", True), ("n - i", True), ("d * d", True), ("d + e", True), ("d * 1.5", True),
        ("x * 2", True), ("x + 0.5", True), ("CAST(n AS INT)", True), ("n::VARCHAR", True),
        ("d::DECIMAL(18,4)", True), ("d::DECIMAL(10,1)", True), ("d::INT", True), ("CAST('1' || '2' AS INT)", False),
        ("length(a)", True), ("n IS NULL", True), ("w IS NOT NULL", True), ("n > 3 AND d < 2.5 OR NOT k", True),
        ("now()", True), ("today()", True), ("z >= '2024-01-01'", True), ("coalesce(n, 0)", True),
        ("nullif(a, '')", True), ("CASE WHEN n > 0 THEN 1 ELSE 0 END", True),
        ("CASE n WHEN 1 THEN 'one' WHEN 5 THEN 'five' END", True), ("n BETWEEN 1 AND 9", True),
        ("n IN (1, 2, 5)", True), ("d * n", True), ("d > 0", True), ("n / i", True), ("d / 1.5", True), ("-n", True),
        ("abs(d)", True), ("round(d * 1.19, 2)", True), ("a LIKE '%A_'", True), ("year(z)", True), ("o::DATE", True),
        ("o >= '2024-01-01'", True), ("w < '2024-01-01 10:00:00'", True), ("d * -1.5", True), ("n = -1", True),
        ("lower(a || 'é')", False), ("trim(a, 'x')", False), ("a || n", False), ("'a' || 'b'", False),
        ("a.lower()", False), ("n = 'x'", False), ("md5(a)", False), ("round(x, 2)", False), ("n + 1 -- one", False),
        ("n =-1", False), ("n + 1 || ''", False), ("random()", False),
    ],
)  # fmt: skip
def test_kernels_are_made_of_what_they_can_and_of_nothing_else(connection: Any, expression: str, swift: bool) -> None:
    kernel = kernel_of(expression)
    assert (kernel is not None) == swift
    if swift and not expression.startswith("lower"):
        assert held_against_duckdb(connection, expression, [ROW, (None,) * len(FIELDS), ROW])


def row(**values: Any) -> tuple[Any, ...]:
    return tuple(values.get(name) for name in NAMES)


def test_batches_of_ascii_open_no_duckdb_and_others_do(connection: Any) -> None:
    opened: list[int] = []

    def opening() -> Any:
        opened.append(1)
        return connection

    swift = Swift(work_of(None, "lower(trim(a))", "a || '-' || b"), opening, "ascii")
    ascii_only = arrays_of(row(a=" A ", b="ü"), row(b="y"))
    assert [a.to_pylist() for a in swift.run(ascii_only, 2)] == [["a", None], [" A -ü", None]]
    assert opened == []
    beyond = arrays_of(row(a=" É\u3000", b="x"), row(b="y"))
    for _ in range(2):
        assert [a.to_pylist() for a in swift.run(beyond, 2)] == [["é", None], [" É\u3000-x", None]]
    assert opened == [1]


def test_duckdb_runs_the_other_expressions_beside_them(connection: Any) -> None:
    swift = Swift(work_of(connection, "n % 2", "upper(a)", "n * 2"), lambda: connection, "beside")
    assert swift._work.needs_duckdb
    arrays = arrays_of(row(a="x", n=-3), row(a="y", n=4))
    assert [a.to_pylist() for a in swift.run(arrays, 2)] == [[-1, 0], ["X", "Y"], [-6, 8]]


def test_number_that_overflows_fails_in_duckdbs_words(connection: Any) -> None:
    swift = Swift(work_of(None, "n * 2", "upper(a)"), lambda: connection, "overflow")
    arrays = arrays_of(row(a="x", n=1), row(a="y", n=2**62))
    with pytest.raises(expression_query.failures()):
        swift.run(arrays, 2)
    failure = swift.whole.first_failure(0, arrays, 2)
    assert isinstance(failure, tuple)
    assert failure[0] == 1
    assert "Overflow in multiplication" in failure[1]


def test_work_that_duckdb_types_otherwise_than_promised_stops(connection: Any) -> None:
    work = work_of(None, "n * 2")
    work.types = (Type("int32"),)
    with pytest.raises(AssertionError, match="planned as"):
        work.plan(connection)


@pytest.mark.parametrize("name", sorted(expressions.ROW_WISE))
def test_function_known_without_the_catalogue_is_one_that_the_catalogue_allows(
    connection: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "ROW_WISE", frozenset())
    parser = Parser(connection, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    parser.require_row_wise(name)
    with pytest.raises(ConfigError):
        parser.require_row_wise(f"{name}_there_is_none")


def test_transform_of_plain_expressions_loads_no_duckdb() -> None:
    code = """
import sys, pyarrow as pa
from rowferry.stages import spec, transform
from rowferry.types import Type
rules = spec.load({
    "set": {"total": "qty * price", "label": "upper(trim(a)) || '-' || b", "at": "now()"}, "where": "gone IS NULL",
    "cast": {"qty": "int64"}, "rename": {"a": "name"},
})
fields = [("qty", Type("int32"), True), ("price", Type("decimal", precision=12, scale=2), True),
          ("a", Type("text"), True), ("b", Type("text"), True), ("gone", Type("timestamptz", unit="us"), True)]
stage = transform.open(rules, fields, table="t", started="2026-01-01T00:00:00+00:00", folder=".")
worker = stage.worker()
batch = pa.RecordBatch.from_arrays(
    [pa.array([2, 3], t.arrow) if t.kind != "text" else pa.array(["x", "y"]) for _, t, _ in fields[:4]]
    + [pa.array([None, 1], fields[4][1].arrow)], names=[name for name, _, _ in fields])
print([str(c.type) for c in stage.outputs[0].columns], worker.apply(batch).batches[0][1].to_pylist())
assert "duckdb" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "'total': Decimal('4.00')" in done.stdout


def test_benchmark_runs_at_a_small_size_and_all_ways_agree() -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "benchmarks/kernels/bench_transform.py", "--rows", "20000", "--batch-rows", "4096"],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ratio = re.search(r"duckdb / transform ([\d.]+)×", done.stdout)
    assert ratio is not None
    assert float(ratio[1]) > 1.5
