"""The parts of a transform: which columns leave, what a policy does, and what is refused before the first row."""

from __future__ import annotations

import datetime
import pathlib
import pickle
import sys
import threading
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rowferry.errors import ConfigError, DataError
from rowferry.stages import spec, transform
from rowferry.stages.flow import OutColumn, Passed
from rowferry.stages.type_text import parse_type
from rowferry.types import Field, Type

STARTED = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
FIELDS = [
    ("id", Type("int64"), False),
    ("name", Type("text", length=20), False),
    ("price", Type("decimal", precision=10, scale=2), True),
    ("shape", Type("wire", native="postgresql:geometry"), True),
]
ROWS = pa.record_batch(
    [
        pa.array(range(6), pa.int64()),
        pa.array(["a", "b", "c", "d", "e", "f"]),
        pa.array(["1.10", "2.25", None, "4.00", "5.50", "6.01"]).cast(pa.decimal128(10, 2)),
        pa.array([b"\1"] * 6),
    ],
    names=["id", "name", "price", "shape"],
)


def opened(folder: pathlib.Path | str = ".", function: Any = None, **data: Any) -> transform.Transform:
    return transform.open(spec.load(data), FIELDS, table="public.t", started=STARTED, folder=folder, function=function)


def passed(stage: transform.Transform, rows: pa.RecordBatch = ROWS) -> Passed:
    worker = stage.worker()
    try:
        return worker.apply(rows.select(list(stage.reads)))
    finally:
        worker.close()


def only(result: Passed) -> dict[str, list[Any]]:
    ((index, batch),) = result.batches
    assert index == 0
    columns: dict[str, list[Any]] = batch.to_pydict()
    return columns


def test_column_that_no_rule_touches_leaves_in_its_own_buffers_and_needs_no_duckdb() -> None:
    stage = opened(rename={"name": "title"}, drop=["price"], order=["shape"])
    assert stage.outputs[0].columns == (
        OutColumn("shape", FIELDS[3][1], True, "shape"),
        OutColumn("id", FIELDS[0][1], False, "id"),
        OutColumn("title", FIELDS[1][1], False, "name"),
    )
    worker = stage.worker()
    batch = worker.apply(ROWS.select(list(stage.reads))).batches[0][1]
    for new, old in (("shape", "shape"), ("id", "id"), ("title", "name")):
        mine, its = batch.column(new).buffers(), ROWS.column(old).buffers()
        assert [b and b.address for b in mine] == [b and b.address for b in its]
    assert stage.batch_rows == 0 and worker._bench._connection is None
    # The same beside an expression over another column.
    beside = passed(opened(set={"more": "md5(name)"})).batches[0][1]
    assert beside.column("price").buffers()[1].address == ROWS.column("price").buffers()[1].address


def test_dropped_and_replaced_columns_that_nothing_reads_are_not_read() -> None:
    assert opened(drop=["shape", "price"]).reads == ("id", "name")
    assert opened(set={"shape": "'x'"}).reads == ("id", "name", "price")
    assert opened(constant={"name": "x"}, drop=["shape"]).reads == ("id", "price")
    assert opened(drop=["price", "shape"], where="price > 2").reads == ("id", "name", "price")
    assert opened(drop=["id", "name", "price", "shape"], constant={"one": 1}).reads == ("id",)
    assert only(passed(opened(drop=["id", "name", "price", "shape"], constant={"one": 1}))) == {"one": [1] * 6}


def test_set_sees_the_columns_before_it_all_at_once() -> None:
    stage = opened(set={"id": "name", "name": "id::TEXT || '!'", "old": "id"}, drop=["shape", "price"])
    assert only(passed(stage)) == {
        "id": list("abcdef"),
        "name": [f"{i}!" for i in range(6)],
        "old": list(range(6)),
    }
    assert [c.origin for c in stage.outputs[0].columns] == ["name", None, "id"]
    assert [c.nullable for c in stage.outputs[0].columns] == [False, True, False]


def test_where_over_source_columns_spares_the_expressions_the_rows_that_are_left_out() -> None:
    stage = opened(set={"ratio": "if(id = 0, error('zero'), 10 // id)"}, where="id > 1", drop=["price", "shape"])
    result = passed(stage)
    assert only(result)["ratio"] == [5, 3, 2, 2] and result.filtered == 2
    # A condition on what set makes needs it for every row.
    with pytest.raises(DataError, match="zero"):
        passed(opened(set={"ratio": "if(id = 0, error('zero'), 10 // id)"}, where="ratio > 1", drop=["shape"]))


@pytest.mark.parametrize(
    ("policy", "prices", "touched", "refused"),
    [
        ("null", ["1.1", None, None, "4.0", "5.5", None], {"price": 2}, []),
        ("clamp", ["1.1", "2.2", None, "4.0", "5.5", "6.0"], {"price": 2}, []),
        ("quarantine", ["1.1", None, "4.0", "5.5"], {}, [1, 5]),
    ],
)
def test_cast_policy_settles_values_that_do_not_fit(
    policy: str, prices: list[str | None], touched: dict[str, int], refused: list[int]
) -> None:
    stage = opened(cast={"price": {"to": "decimal(9,1)", "on_error": policy}, "id": "int16"})
    result = passed(stage)
    assert only(result)["price"] == [None if p is None else Decimal(p) for p in prices]
    assert result.touched == touched
    assert [r.row.column("id")[0].as_py() for r in result.refused] == refused
    assert all(r.column == "price" and r.reason == "does not fit decimal(9,1)" for r in result.refused)
    assert all(r.row.schema.names == list(stage.reads) for r in result.refused)
    assert [(str(c.type), c.origin) for c in stage.outputs[0].columns[:3]] == [
        ("int16", None), ("text(20)", "name"), ("decimal(9,1)", None),
    ]  # fmt: skip


def test_cast_that_refuses_names_the_row_as_it_was_read_though_rows_were_left_out_before() -> None:
    stage = opened(where="id > 1", cast={"price": "decimal(9,1)"})
    with pytest.raises(DataError) as caught:
        passed(stage)
    assert caught.value.value == "6.01 in row 5 of its batch"
    assert (caught.value.table, caught.value.column) == ("public.t", "price")


def test_row_set_aside_is_given_as_it_was_read() -> None:
    stage = opened(where="id <> 2", set={"n": "CAST(name AS INT)"}, set_on_error="quarantine", drop=["shape"])
    result = passed(stage)
    assert only(result)["n"] == []
    assert [r.row.to_pylist()[0]["id"] for r in result.refused] == [0, 1, 3, 4, 5]
    assert result.filtered == 1 and "Could not convert string 'a'" in result.refused[0].reason


def test_many_failing_rows_are_all_told_though_only_some_are_explained() -> None:
    rows = pa.record_batch([pa.array(["x" if i % 2 else str(i) for i in range(1000)])], names=["t"])
    stage = transform.open(
        spec.load({"set": {"n": "CAST(t AS INT)"}, "set_on_error": "quarantine"}), [("t", Type("text"), True)],
        table="t", started=STARTED, folder=".",
    )  # fmt: skip
    result = stage.worker().apply(rows)
    assert only(result)["n"] == list(range(0, 1000, 2))
    assert len(result.refused) == 500
    assert all(r.reason.startswith("the expression fails") for r in result.refused)


def test_constants_have_the_types_of_their_values() -> None:
    stage = opened(constant={"a": "x", "b": 7, "c": 1.5, "d": True, "e": None}, drop=["price", "shape", "name"])
    assert [(str(c.type), c.nullable) for c in stage.outputs[0].columns[1:]] == [
        ("text", False), ("int64", False), ("float64", False), ("bool", False), ("text", True),
    ]  # fmt: skip
    made = only(passed(stage))
    assert [made[n][0] for n in "abcde"] == ["x", 7, 1.5, True, None]


def test_batch_without_rows_passes() -> None:
    stage = opened(set={"more": "md5(name)", "n": "1"}, where="id > 2", cast={"price": "decimal(9,1)"})
    assert only(passed(stage, ROWS.slice(0, 0)))["more"] == []


def test_rules_come_before_expressions_and_set_rows_aside_with_their_reason() -> None:
    stage = opened(
        rules=[{"columns": ["name"], "do": "truncate", "length": 1, "on_error": "refuse"}],
        set={"twice": "name || name"}, drop=["shape", "price"],
    )  # fmt: skip
    long = pa.record_batch([ROWS.column("id"), pa.array(["abc"] * 6)], names=["id", "name"])
    result = passed(stage, long)
    assert only(result)["twice"] == ["aa"] * 6
    assert result.touched == {"name": 6}


def test_workers_in_several_threads_give_the_same() -> None:
    stage = opened(set={"h": "md5(name || id)"}, where="id % 2 = 0", drop=["shape"])
    expected = only(passed(stage))
    results: list[dict[str, list[Any]]] = []

    def work() -> None:
        for _ in range(5):
            results.append(only(passed(stage)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 20


@pytest.mark.parametrize(
    ("data", "words", "column"),
    [
        ({"drop": ["nmae"]}, "drop: there is no column 'nmae'; did you mean 'name'?", None),
        ({"rename": {"x": "y"}}, "rename: there is no column 'x'", None),
        ({"cast": {"x": "int64"}}, "cast: there is no column 'x'", None),
        ({"order": ["x"]}, "order: there is no column 'x'", None),
        ({"order": ["name"], "rename": {"name": "title"}}, "order: there is no column 'name'", None),
        ({"order": ["id", "id"]}, "order names it twice", "id"),
        ({"rename": {"id": "name"}}, "two columns would be called 'name'", "name"),
        ({"rename": {"id": ""}}, "needs a name", "id"),
        ({"rename": {"id": "x"}, "drop": ["id"]}, "dropped and renamed", "id"),
        ({"drop": ["id", "name", "price", "shape"]}, "no column is left", None),
        ({"cast": {"id": "int99"}}, "there is no type 'int99'", "id"),
        ({"cast": {"name": "date"}}, "no exact way", "name"),
        ({"cast": {"price": "float64"}}, "no exact form in binary floating point", "price"),
        ({"set": {"new": "nope + 1"}}, "there is no column 'nope'", "new"),
        ({"set": {"new": "id +"}}, "no SQL expression", "new"),
        ({"set": {"new": "lower(id, id)"}}, "Binder Error", "new"),
        ({"set": {"new": "shape"}, "where": "shape = 'x'"}, "mean nothing to DuckDB", None),
        ({"where": "id + 1"}, "is no condition: it gives int64", None),
        ({"where": "id"}, "is no condition: it gives int64", None),
        ({"where": "id > 1 LIMIT 1"}, "more than one expression", None),
        ({"constant": {"x": 2**64}}, "more than 64 bits", None),
        ({"rules": [{"columns": ["zzz"], "do": "trim"}]}, "zzz", None),
    ],
)
def test_rule_that_cannot_hold_is_refused_before_the_first_row(
    data: dict[str, Any], words: str, column: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(**data)
    assert words in str(caught.value)
    assert caught.value.table == "public.t"
    if column is not None:
        assert caught.value.column == column
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "t"),
    [
        ("decimal(12,2)", Type("decimal", precision=12, scale=2)),
        ("numeric(5)", Type("decimal", precision=5, scale=0)),
        ("numeric", Type("numeric")),
        ("varchar(20)", Type("text", length=20)),
        ("TEXT", Type("text")),
        ("timestamp(3)", Type("timestamp", precision=3, unit="us")),
        ("timestamp[ms]", Type("timestamp", unit="ms")),
        ("timestamp(9)", Type("timestamp", unit="ns")),
        ("timestamp(0) with time zone", Type("timestamptz", precision=0, unit="us")),
        ("double precision", Type("float64")),
        ("bigint", Type("int64")),
        ("bytea", Type("binary")),
        ("char(3)", Type("char", length=3)),
        ("list< list<int8> >", Type("list", element=Type("list", element=Type("int8")))),
        ('struct<a: int8, "b c": text>', Type("struct", fields=(Field("a", Type("int8")), Field("b c", Type("text"))))),
        ("map<key: text, value: date>", Type("map", fields=(Field("key", Type("text")), Field("value", Type("date"))))),
        ("enum('a', 'it''s')", Type("enum", labels=("a", "it's"))),
        ("interval(6)", Type("interval", precision=6)),
    ],
)
def test_type_text_names_its_type(text: str, t: Type) -> None:
    assert parse_type(text) == t
    assert t.arrow is not None


@pytest.mark.parametrize(
    "text",
    ["", "int99", "decimal", "decimal(0)", "decimal(77,1)", "decimal(3,4)", "decimal(3,-1)", "char", "varchar(0)",
     "timestamp(10)", "timestamp(6)[ms]", "timestamp[us", "int32(4)", "list<>", "list<int64", "struct<a int64>",
     "map<key: text>", "enum('a','a')", "enum(a)", "int32 x", "float", "uuid[us]", "list<" * 40 + "int8" + ">" * 40],
)  # fmt: skip
def test_text_that_is_no_type_is_refused_with_what_is_wrong(text: str) -> None:
    with pytest.raises(ConfigError, match="is no type"):
        parse_type(text)


# Look-up tables.


def looked_up(folder: pathlib.Path, csv: str | bytes, **more: Any) -> transform.Transform:
    (folder / "names.csv").write_bytes(csv if isinstance(csv, bytes) else csv.encode())
    given = {"file": "names.csv", "on": {"id": "code"}, "take": {"label": "label"}, **more}
    return opened(folder, lookups=[given], drop=["shape", "price", "name"])


def test_lookup_takes_values_as_the_file_has_them(tmp_path: pathlib.Path) -> None:
    csv = 'code,label,rest\n0,007,\n1,"a, ""b""\nc",\n2,,\n3,"",\n4,é,\n5,x,\n'
    assert only(passed(looked_up(tmp_path, csv))) == {
        "id": list(range(6)), "label": ["007", 'a, "b"\nc', None, "", "é", "x"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "labels"), [("null", ["z", None, None, None, None, "f"]), ("quarantine", ["z", "f"])]
)
def test_row_that_finds_nothing_is_settled_by_missing(
    tmp_path: pathlib.Path, missing: str, labels: list[str | None]
) -> None:
    result = passed(looked_up(tmp_path, "code,label\n0,z\n5,f\n99,y\n", missing=missing))
    assert only(result)["label"] == labels
    assert [r.row.column("id")[0].as_py() for r in result.refused] == ([] if missing == "null" else [1, 2, 3, 4])
    with pytest.raises(DataError, match="no such key") as caught:
        passed(looked_up(tmp_path, "code,label\n0,z\n5,f\n"))
    assert caught.value.value == "id = '1' in row 1 of its batch"


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        ("code,label\n1,a\n2,b\n1,c\n", "has a key twice, in its rows 1 and 3"),
        ("code,label\n1,a\n01,b\n", "a value is no int64"),
        ("code,label\n1,a\nx,b\n", "a value is no int64"),
        ("code,label\n1,a\n,b\n", "no value in the key column 'code' of its row 2"),
        ("kode,label\n1,a\n", "there is no column 'code'; did you mean 'kode'?"),
        ("code,label,label\n1,a,b\n", "several columns 'label'"),
        ("code,label\n1,a\n2\n", "cannot be read"),
        ("", "cannot be read"),
        (b"code,label\n1,\xff\n", "cannot be read"),
    ],
)
def test_lookup_table_that_is_not_clear_is_refused(tmp_path: pathlib.Path, csv: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        looked_up(tmp_path, csv)
    assert words in str(caught.value)
    assert "names.csv" in str(caught.value)


def test_lookup_in_parquet_by_several_columns_replaces_a_column(tmp_path: pathlib.Path) -> None:
    from pyarrow import parquet

    table = pa.table(
        {
            "i": pa.array([0, 1, 1], pa.int16()),
            "n": ["a", "b", "z"],
            "p": pa.array([Decimal("0.5"), None, Decimal("9.1")]),
        }
    )
    parquet.write_table(table, tmp_path / "prices.parquet")
    given = {"file": "prices.parquet", "on": {"id": "i", "name": "n"}, "take": {"price": "p"}, "missing": "null"}
    stage = opened(tmp_path, lookups=[given], drop=["shape"], set={"known": "price IS NOT NULL"})
    assert only(passed(stage, ROWS.slice(0, 3))) == {
        "id": [0, 1, 2], "name": ["a", "b", "c"], "price": [Decimal("0.5"), None, None], "known": [True, False, False],
    }  # fmt: skip
    assert "price" not in stage.reads and str(stage.outputs[0].columns[2].type) == "decimal(2,1)"


# Functions.


def with_city(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column("city", pa.array(["Ulm"] * batch.num_rows, pa.string()))


def test_function_gives_types_on_no_rows_and_columns_keep_theirs() -> None:
    stage = opened(function=with_city, drop=["shape"])
    assert [(c.name, str(c.type)) for c in stage.outputs[0].columns] == [
        ("id", "int64"), ("name", "text(20)"), ("price", "decimal(10,2)"), ("city", "text"),
    ]  # fmt: skip
    assert only(passed(stage))["city"] == ["Ulm"] * 6


def test_function_that_gives_several_tables_feeds_each(tmp_path: pathlib.Path) -> None:
    (tmp_path / "parting_rows.py").write_text(
        "import pyarrow as pa\n"
        "def part(b):\n"
        "    odd = pa.array([i % 2 == 1 for i in b.column('id').to_pylist()], pa.bool_())\n"
        "    even = pa.array([i % 2 == 0 for i in b.column('id').to_pylist()], pa.bool_())\n"
        "    return [('odd', b.filter(odd).select(['id'])), ('public.t', b.filter(even))]\n"
    )
    try:
        stage = opened(tmp_path, python="parting_rows:part", drop=["shape"])
        assert [o.table for o in stage.outputs] == [None, "odd"]
        result = passed(stage)
        assert [(i, b.column("id").to_pylist()) for i, b in result.batches] == [(0, [0, 2, 4]), (1, [1, 3, 5])]
        assert (result.filtered, result.generated) == (0, 0)
    finally:
        sys.path.remove(str(tmp_path.resolve()))
        del sys.modules["parting_rows"]


def test_function_may_change_the_number_of_rows_where_it_says_so() -> None:
    half = opened(function=lambda b: b.slice(0, b.num_rows // 2), python_keeps_rows=False, drop=["shape"])
    assert (passed(half).filtered, passed(half).generated) == (3, 0)
    double = opened(
        function=lambda b: pa.Table.from_batches([b, b]).combine_chunks().to_batches()[0] if b.num_rows else b,
        python_keeps_rows=False, drop=["shape"],
    )  # fmt: skip
    assert (passed(double).filtered, passed(double).generated) == (0, 6)
    with pytest.raises(DataError, match="makes 0 rows of 1"):
        passed(opened(function=lambda b: b.slice(0, b.num_rows // 2), drop=["shape"]))


def fails_on_three(batch: pa.RecordBatch) -> pa.RecordBatch:
    if 3 in batch.column("id").to_pylist():
        raise KeyError("three")
    return batch


def test_function_that_raises_stops_with_the_first_offending_row() -> None:
    with pytest.raises(DataError) as caught:
        passed(opened(function=fails_on_three, drop=["shape"], where="id <> 1"))
    assert "KeyError: 'three'" in str(caught.value)
    assert caught.value.value == "id = '3', name = 'd', price = '4.00' in row 3 of its batch"
    assert caught.value.table == "public.t"


def test_function_that_fails_only_on_the_whole_batch_names_no_row() -> None:
    def picky(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows > 5:
            raise RuntimeError("too many")
        return batch

    with pytest.raises(DataError, match="too many") as caught:
        passed(opened(function=picky, drop=["shape"]))
    assert caught.value.value is None


def changing(change: Any) -> Any:
    """A function that is what it says on no rows, and something else on rows."""
    return lambda batch: change(batch) if batch.num_rows else batch


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.set_column(0, "id", b.column(0).cast(pa.int32())), "gives int32, on no rows int64"),
        (lambda b: b.select(["id"]), "gives the columns id, on no rows id, name, price"),
        (lambda b: b.set_column(0, "id", pa.nulls(b.num_rows, pa.int64())), "gives NULL where its schema has none"),
        (lambda b: b.set_column(1, "name", pa.array(["x" * 21] * b.num_rows)), "does not fit text(20)"),
        (lambda b: [("other", b)], "gives the table 'other'"),
        (lambda b: b.to_pydict(), "gives dict, not a RecordBatch"),
        (lambda b: [b], "in its list, not a RecordBatch"),
        (lambda b: [(None, b), ("public.t", b)], "twice"),
    ],
)
def test_function_that_gives_something_else_than_on_no_rows_stops_the_job(change: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        passed(opened(function=changing(change), drop=["shape"]))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda b: None, "gives NoneType"),
        (lambda b: b.select([]), "columns without names of their own"),
        (lambda b: pa.record_batch([pa.array([])], names=["x"]), "gives the type null"),
        (lambda b: pa.record_batch([pa.array([1])], names=["x"]), "makes 1 rows of none"),
        (lambda b: b.column("nope"), "fails on no rows: KeyError"),
        (lambda b: [], "gives no table"),
        (lambda: None, "fails on no rows: TypeError"),
    ],
)
def test_function_that_gives_no_types_is_refused_before_the_first_row(function: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(function=function)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nocolon", "not of the form module:function"),
        ("no_such_module_x:f", "No module named 'no_such_module_x'"),
        ("json:nope", "has no 'nope'"),
        ("json:__name__", "cannot be called"),
    ],
)
def test_function_that_is_not_found_is_refused(tmp_path: pathlib.Path, path: str, words: str) -> None:
    try:
        with pytest.raises(ConfigError) as caught:
            opened(tmp_path, python=path)
        assert words in str(caught.value)
    finally:
        if str(tmp_path.resolve()) in sys.path:
            sys.path.remove(str(tmp_path.resolve()))
