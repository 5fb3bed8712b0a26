"""Expressions run by Arrow's kernels against DuckDB itself: the same values for any text, or DuckDB's own."""

from __future__ import annotations

import datetime
import itertools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry.errors import ConfigError
from rowferry.stages import expression_query, expressions
from rowferry.stages.expression_kernels import Swift, compiled
from rowferry.stages.expression_query import Field, Plan, Query
from rowferry.stages.expressions import Parser
from rowferry.types import Type

FIELDS = [Field("a", Type("text")), Field("b", Type("char", length=9)), Field("n", Type("int64"))]
TYPES = [field.type for field in FIELDS]


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    opened = expression_query.connect()
    yield opened
    opened.close()


def planned(connection: Any, *texts: str) -> Plan:
    parser = Parser(connection, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    checked = [parser.check(text, [field.name for field in FIELDS]) for text in texts]
    return expression_query.plan(connection, FIELDS, checked, [None] * len(texts))


_NAMES = itertools.count()


def query(connection: Any, plan: Plan, chosen: Any = None) -> Query:
    return Query(connection, str(next(_NAMES)), plan, chosen)


def kernels(plan: Plan) -> list[Any]:
    return [compiled(c, TYPES, made.type) for c, made in zip(plan.checked, plan.made, strict=True)]


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "'x'", "''", "' Q '", "'é'", "'it''s'", "n::VARCHAR", "a::VARCHAR"]),
    lambda inner: (
        st.builds("{}({})".format, st.sampled_from(["lower", "UPPER", "trim", "ltrim", "rtrim"]), inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("concat({}, {})".format, inner, inner)
        | st.builds("coalesce({}, {})".format, inner, inner)
    ),
    max_leaves=5,
)
TEXTS = (
    st.none() | st.text(" aZ\t\0\n\x1f", max_size=5) | st.text(max_size=4) | st.sampled_from(["ß", "İ", "\u00a0x", "ǅ"])
)


@settings(max_examples=120, deadline=None)
@given(
    EXPRESSIONS, st.lists(st.tuples(TEXTS, TEXTS, st.none() | st.integers(-9, 9)), min_size=1, max_size=5),
    st.integers(0, 2),
)  # fmt: skip
def test_any_expression_gives_what_duckdb_gives(connection: Any, expression: str, rows: Any, cut: int) -> None:
    plan = planned(connection, f"({expression}) || ''" if expression in ("a", "b") else expression)
    made = kernels(plan)
    arrays = [pa.array([row[i] for row in rows], t.arrow).slice(cut) for i, t in enumerate(TYPES)]
    count = len(arrays[0])
    want = query(connection, plan).run(arrays, count)
    swift = Swift(plan, made, lambda plan, chosen: query(connection, plan, chosen))
    got = swift.run(arrays, count)
    assert got[0].to_pylist() == want[0].to_pylist()
    assert got[0].type == want[0].type


@pytest.mark.parametrize(
    ("expression", "swift"),
    [
        ("lower(trim(a))", True),
        ("a || '-' || b", True),
        ("concat(a, ' ', b)", True),
        ("coalesce(a, b, 'é')", True),
        ("a.lower()", True),
        ("lower(a || 'é')", False),
        ("trim(a, 'x')", False),
        ("a || n", False),
        ("n + 1", False),
        ("a = 'x'", False),
        ("'a' || 'b'", False),
        ("CASE WHEN n > 0 THEN a END", False),
        ("a::VARCHAR", False),
    ],
)
def test_kernels_are_made_of_what_they_can_and_of_nothing_else(connection: Any, expression: str, swift: bool) -> None:
    assert [kernel is not None for kernel in kernels(planned(connection, expression))] == [swift]


def test_batches_of_ascii_open_no_duckdb_and_others_do(connection: Any) -> None:
    plan = planned(connection, "lower(trim(a))", "a || '-' || b")
    opened: list[tuple[int, ...]] = []

    def opening(plan: Plan, chosen: tuple[int, ...]) -> Query:
        opened.append(chosen)
        return query(connection, plan, chosen)

    swift = Swift(plan, kernels(plan), opening)
    numbers = pa.array([1, 2], pa.int64())
    ascii_only = [pa.array([" A ", None]), pa.array(["ü", "y"]), numbers]
    assert [a.to_pylist() for a in swift.run(ascii_only, 2)] == [["a", None], [" A -ü", None]]
    assert opened == []
    beyond = [pa.array([" É\u3000", None]), pa.array(["x", "y"]), numbers]
    for _ in range(2):
        assert [a.to_pylist() for a in swift.run(beyond, 2)] == [["é", None], [" É\u3000-x", None]]
    assert opened == [(0,)]


def test_duckdb_runs_the_other_expressions_beside_them(connection: Any) -> None:
    plan = planned(connection, "n * 2", "upper(a)", "a = 'x'")
    swift = Swift(plan, kernels(plan), lambda plan, chosen: query(connection, plan, chosen))
    arrays = [pa.array(["x", "y"]), pa.array(["", ""]), pa.array([3, 4], pa.int64())]
    assert [a.to_pylist() for a in swift.run(arrays, 2)] == [[6, 8], ["X", "Y"], [True, False]]
    with pytest.raises(swift.failure):
        swift.run([arrays[0], arrays[1], pa.array([2**62, 1], pa.int64())], 2)
    assert swift.first_failure(0, [arrays[0], arrays[1], pa.array([1, 2**62], pa.int64())], 2)[0] == 1


@pytest.mark.parametrize("name", sorted(expressions.ROW_WISE))
def test_function_known_without_the_catalogue_is_one_that_the_catalogue_allows(
    connection: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "ROW_WISE", frozenset())
    parser = Parser(connection, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    parser.require_row_wise(name)
    with pytest.raises(ConfigError):
        parser.require_row_wise(f"{name}_there_is_none")


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
