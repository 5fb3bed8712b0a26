"""SQL expressions of a transform: what is refused by name, which types pass exactly, and what a run can reach."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rowferry.errors import ConfigError, DataError, RowferryError
from rowferry.stages import expression_query, spec, transform
from rowferry.stages.expressions import Parser
from rowferry.types import DATE_INFINITY, DATE_MINUS_INFINITY, TIMESTAMP_INFINITY, Field, Type

STARTED = datetime.datetime(2026, 11, 23, 18, 30, 5, 250_000, tzinfo=datetime.UTC)
NAMES = ["x", "y", "A", "a", "Email", "two words", "current_date", "doc"]


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    connection = expression_query.connect()
    yield Parser(connection, STARTED)
    connection.close()


def worked(text: str, t: Type, values: pa.Array, **more: Any) -> tuple[Type, pa.Array]:
    """The type and the values of an expression over one column ``x``."""
    stage = transform.open(
        spec.load({"set": {"made": text}, **more}), [("x", t, True)], table="t", started=STARTED, folder="."
    )
    worker = stage.worker()
    try:
        passed = worker.apply(pa.record_batch([values], names=["x"]))
    finally:
        worker.close()
    return stage.outputs[0].columns[-1].type, passed.batches[0][1].column("made")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("random()", "does not give the same at every run"),
        ("uuid()", "does not give the same"),
        ("gen_random_uuid()", "does not give the same"),
        ("nextval('s')", "does not give the same"),
        ("current_setting('TimeZone')", "does not give the same"),
        ("getvariable('v')", "does not give the same"),
        ("list_transform(x, lambda v: random())", "does not give the same"),
        ("CASE WHEN false THEN random() END", "does not give the same"),
        ("ago(INTERVAL 1 DAY)", "the present of each query"),
        ("age(x)", "the present of each query"),
        ("version()", "DuckDB's version"),
        ("sum(x)", "more than its own row"),
        ("count(*)", "more than its own row"),
        ("max(x) FILTER (WHERE y > 1)", "more than its own row"),
        ("string_agg(x, ',' ORDER BY y)", "more than its own row"),
        ("row_number() OVER ()", "window"),
        ("sum(x) OVER (ORDER BY y)", "window"),
        ("(SELECT 1)", "subquery"),
        ("EXISTS (SELECT 1)", "subquery"),
        ("x IN (SELECT 1)", "subquery"),
        ("(SELECT content FROM read_text('/etc/passwd'))", "subquery"),
        ("unnest([1, 2])", "makes rows"),
        ("read_csv('/etc/passwd')", "makes rows"),
        ("*", "star"),
        ("COLUMNS('x')", "star"),
        ("#1", "positional"),
        ("DEFAULT", "default"),
        ("x, y", "more than one expression"),
        ("x FROM t", "more than one expression"),
        ("x WHERE y", "more than one expression"),
        ("x AS z", "more than one expression"),
        ("DISTINCT x", "more than one expression"),
        ("x LIMIT 1", "more than one expression"),
        ("x; DROP TABLE t", "no SQL expression"),
        ("x) FROM t -- ", "no SQL expression"),
        ("", "no SQL expression"),
        ("lower(", "no SQL expression"),
        ("nosuch(x)", "there is no function nosuch()"),
        ("lowre(x)", "did you mean lower"),
        ("emial", "did you mean 'Email'"),
        ("current_user", "no column 'current_user'"),
        ("main.lower(x)", "plain names"),
    ],
)
def test_expression_that_is_not_row_wise_and_the_same_at_every_run_is_refused_by_name(
    parser: Parser, text: str, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parser.check(text, NAMES)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("a", [3]), ("A", [2]), ("email", [4]), ('"two words" || x', [0, 5]), ("x.trim().lower()", [0]),
        ("list_transform([x], lambda y: y + a)", [0, 3]), ("[v + 1 FOR v IN [x, y] IF v > 1]", [0, 1]),
        ("doc ->> '$.a'", [7]), ("doc -> 'a' -> 'b'", [7]), ("x LIKE 'a!%' ESCAPE '!'", [0]), ("current_date", [6]),
        ("now()", []), ("'x'", []), ("extract(year FROM x)", [0]), ("x BETWEEN y AND a", [0, 1, 3]),
        ("CASE x WHEN 1 THEN y ELSE a END", [0, 1, 3]), ("TRY_CAST(x AS DECIMAL(10, 2))", [0]), ("TRY(1 / x)", [0]),
        ("if(x > 1, error('no'), y)", [0, 1]), ("list_sum([x, y])", [0, 1]), ("x -- a remark", [0]),
    ],
)  # fmt: skip
def test_row_wise_expression_is_taken_with_just_the_columns_that_it_names(
    parser: Parser, text: str, reads: list[int]
) -> None:
    assert list(parser.check(text, NAMES).reads) == reads


def test_name_that_fits_two_columns_in_other_letter_cases_is_refused(parser: Parser) -> None:
    with pytest.raises(ConfigError, match="could be any of 'aB', 'Ab'"):
        parser.check("ab", ["aB", "Ab"])


def test_expression_nested_without_end_is_refused_and_kills_nothing(parser: Parser) -> None:
    with pytest.raises(ConfigError):
        parser.check("(" * 3000 + "x" + ")" * 3000, NAMES)
    assert parser.check("x", NAMES).column == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now()", STARTED), ("current_timestamp", STARTED), ("transaction_timestamp()", STARTED),
        ("current_date", STARTED.date()), ("today()", STARTED.date()), ("localtime", STARTED.time()),
        ("localtimestamp", STARTED.replace(tzinfo=None)), ("current_localtimestamp()", STARTED.replace(tzinfo=None)),
        ("now() - INTERVAL 1 DAY", STARTED - datetime.timedelta(days=1)),
    ],
)  # fmt: skip
def test_present_is_the_start_of_the_job_in_each_worker(text: str, expected: Any) -> None:
    _, made = worked(text, Type("int64"), pa.array([1, 2]))
    assert made.to_pylist() == [expected, expected]


INTS = {f"int{bits}": [-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1, None] for bits in (8, 16, 32, 64)}
UINTS = {f"uint{bits}": [0, 2**bits - 1, None] for bits in (8, 16, 32, 64)}
US = 1_000_000


def temporal(t: Type, ints: list[int | None]) -> tuple[Type, pa.Array]:
    whole = pa.int32() if t.kind == "date" else pa.int64()
    return t, pa.array(ints, whole).view(t.arrow)


SAME = [
    *((Type(kind), pa.array(values, Type(kind).arrow)) for kind, values in (INTS | UINTS).items()),
    (Type("bool"), pa.array([True, False, None])),
    (Type("float64"), pa.array([1e308, -0.0, 5e-324, float("inf"), float("-inf"), None])),
    (Type("float32"), pa.array([3.4028234663852886e38, -0.0, 1e-45, None], pa.float32())),
    (Type("decimal", precision=38, scale=0), pa.array([Decimal(10**38 - 1), Decimal(1 - 10**38), None])),
    (Type("decimal", precision=12, scale=12), pa.array([Decimal("0.000000000001"), None], pa.decimal128(12, 12))),
    (Type("text"), pa.array(["", "a\0b", "ä€😀", " x ", None])),
    (Type("binary"), pa.array([b"", b"\0\xff", None])),
    (Type("json"), pa.array(['{"a":  1.0, "a": 2}', "null", None])),
    (Type("uuid"), pa.array([b"\xff" * 16, bytes(16), None], pa.binary(16))),
    temporal(Type("date"), [DATE_INFINITY, DATE_MINUS_INFINITY, 0, 2_932_896, -719_528, None]),
    temporal(Type("time", unit="us"), [0, 86_400 * US, 1, None]),
    temporal(Type("time", unit="ns"), [0, 86_399_999_999_999, 1, None]),
    temporal(Type("timestamp", unit="us"), [TIMESTAMP_INFINITY, -(2**63), 0, -1, 253_402_300_799_999_999, None]),
    temporal(Type("timestamp", unit="s"), [0, -1, 253_402_300_799, None]),
    temporal(Type("timestamp", unit="ms"), [0, -1, 253_402_300_799_999, None]),
    temporal(Type("timestamp", unit="ns"), [0, -1, 2**62 + 1, None]),
    temporal(Type("timestamptz", unit="us"), [TIMESTAMP_INFINITY, -(2**63), 0, -1, None]),
    temporal(Type("timestamptz", unit="ns"), [0, -1, 2**62 + 1, None]),
    (
        Type("interval", precision=6),
        pa.array([(1, -2, 3_000), (0, 0, -(2**62) // 1000 * 1000), None], pa.month_day_nano_interval()),
    ),
    (Type("list", element=Type("int64")), pa.array([[1, None], [], None], pa.list_(pa.int64()))),
    (
        Type("struct", fields=(Field("a", Type("int64")), Field("b", Type("text")))),
        pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int64()), ("b", pa.string())])),
    ),
    (
        Type("map", fields=(Field("key", Type("text")), Field("value", Type("int64")))),
        pa.array([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int64())),
    ),
]


@pytest.mark.parametrize(("t", "values"), SAME, ids=lambda v: str(v) if isinstance(v, Type) else "")
def test_value_that_passes_through_an_expression_is_the_same_to_the_last_bit(t: Type, values: pa.Array) -> None:
    made_type, made = worked("coalesce(x, NULL)", t, values)
    assert made_type == t
    assert made.equals(values.cast(t.arrow))
    # A slice that begins amid the buffers, too.
    assert worked("coalesce(x, NULL)", t, values.slice(1))[1].equals(values.slice(1).cast(t.arrow))


@pytest.mark.parametrize(
    ("t", "words"),
    [
        (Type("decimal", precision=39, scale=2), "38 digits"),
        (Type("decimal", precision=3, scale=5), "38 digits"),
        (Type("decimal", precision=3, scale=-2), "38 digits"),
        (Type("wire", native="postgresql:ltree"), "mean nothing"),
        (Type("list", element=Type("duration", unit="us")), "cannot be held exactly"),
        (Type("struct", fields=(Field("a", Type("text")), Field("A", Type("text")))), "name of its own"),
    ],
)
def test_column_that_duckdb_would_change_is_refused_before_the_first_row(t: Type, words: str) -> None:
    def opened(more: dict[str, Any]) -> transform.Transform:
        return transform.open(spec.load(more), [("x", t, True)], table="t", started=STARTED, folder=".")

    with pytest.raises(ConfigError, match=words) as caught:
        opened({"set": {"made": "coalesce(x, NULL)"}})
    assert caught.value.column == "made"
    # What does not enter DuckDB may be of any type.
    stage = opened({"set": {"other": "1", "copied": "x"}})
    assert stage.outputs[0].columns[0].type == stage.outputs[0].columns[2].type == t


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("x * 1::HUGEINT", "decimal(38,0)", Decimal(7)),
        ("x::UHUGEINT", "numeric", "7"),
        ("'101'::BIT", "varbit", "101"),
        ("'a'::ENUM('a', 'b')", "enum", "a"),
        ("NULL", "text", None),
        ("'10:00:00+05'::TIMETZ", "timetz", "10:00:00+05"),
        ("[x, NULL]", "list<int64>", [7, None]),
        ("array_value(x, x)", "list<int64>", [7, 7]),
        ("{'k': x}", "struct<k: int64>", {"k": 7}),
        ("1.50", "decimal(3,2)", Decimal("1.50")),
        ("to_json({'a': x})", "json", '{"a":7}'),
        ("x / 2", "float64", 3.5),
        ("x // 2", "int64", 3),
        ("x::TEXT || '!'", "text", "7!"),
        ("md5(x::TEXT)", "text", "8f14e45fceea167a5a36dedd4bea2543"),
    ],
)
def test_result_leaves_in_its_canonical_type(text: str, expected: str, value: Any) -> None:
    made_type, made = worked(text, Type("int64"), pa.array([7]))
    assert str(made_type) == expected
    assert made.type == made_type.arrow
    assert made.to_pylist() == [value]


@pytest.mark.parametrize(
    "text", ["union_value(a := x)", "x::VARIANT", "[INTERVAL 1 DAY]", "CAST('x' AS INT)", "lower(x, x)", "nope.x"]
)
def test_expression_that_gives_no_type_of_ours_or_fails_on_every_row_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        worked(text, Type("int64"), pa.array([1]))


@pytest.mark.parametrize(
    ("text", "t", "values", "row"),
    [
        ("CAST(x AS INT)", Type("text"), pa.array(["1"] * 700 + ["one"] + ["2"] * 90 + ["two"]), 700),
        ("x + 9223372036854775807", Type("int64"), pa.array([0, -1, None, 1, 1]), 3),
        ("CAST(x AS HUGEINT) * 100000000000000000000", Type("int64"), pa.array([1, 2**62]), 1),
        ("INTERVAL (x) HOURS", Type("int64"), pa.array([1, 10**9]), 1),
        ("coalesce(x, NULL)", Type("interval"), pa.array([(0, 0, 1000), (0, 0, 1)], pa.month_day_nano_interval()), 1),
        ("if(x = 3, error('three!'), x)", Type("int64"), pa.array([1, 2, 3]), 2),
        ("list_transform([x], lambda v: CAST(v AS INT))", Type("text"), pa.array(["1", None, "z"]), 2),
    ],
)
def test_expression_that_fails_stops_with_the_first_row_and_its_value(
    text: str, t: Type, values: pa.Array, row: int
) -> None:
    with pytest.raises(DataError) as caught:
        worked(text, t, values)
    assert caught.value.column == "made" and caught.value.table == "t"
    assert caught.value.value is not None and f"in row {row} of its batch" in caught.value.value
    assert "x = " in caught.value.value
    made = worked(text, t, values, set_on_error="null")[1]
    assert not made[row].is_valid and len(made) == len(values)
    assert made[:row].to_pylist() == worked(text, t, values.slice(0, row))[1].to_pylist()


@pytest.mark.parametrize("on_error", ["refuse", "null", "quarantine"])
def test_failure_of_duckdb_itself_stops_the_job_and_is_blamed_on_no_row(on_error: str) -> None:
    """One microsecond before its first timestamp DuckDB 2.0 breaks the whole database when it prints one."""
    values = pa.array([0, -9_223_372_022_400_000_001, 0])
    with pytest.raises(RowferryError, match="DuckDB itself failed") as caught:
        worked("CAST(make_timestamp(x) AS VARCHAR)", Type("int64"), values, set_on_error=on_error)
    assert not isinstance(caught.value, DataError) and caught.value.table == "t"


def test_connection_reaches_no_file_no_network_and_no_setting(tmp_path: pathlib.Path) -> None:
    import duckdb

    (tmp_path / "secret.csv").write_text("a\n1\n")
    connection = expression_query.connect()
    secret = pa.table({"a": [1]})  # a Python variable is no table either
    for statement in (
        f"SELECT * FROM '{tmp_path / 'secret.csv'}'",
        f"SELECT * FROM read_text('{tmp_path / 'secret.csv'}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'x.duckdb'}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET TimeZone = 'Europe/Paris'",
        "SELECT * FROM secret",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement).fetchall()
    assert secret.num_rows == 1 and [p.name for p in tmp_path.iterdir()] == ["secret.csv"]
    connection.close()
