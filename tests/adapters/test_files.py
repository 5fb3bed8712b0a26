"""What is the files' own: foreign schemas, names, footers as ledger, kills, changes under way, repairs."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rowferry
from adapters import contract
from adapters.contract import JOB, Ferry
from rowferry.adapters.files import catalog, ledger, types, wire
from rowferry.adapters.files.wire import PartWriter
from rowferry.errors import ConfigError, DataError, LedgerError, RefusedError, RowferryError, SourceError, TargetError
from rowferry.model import Column, ColumnPlan, Comparison, Refusal, Table, TableName, UserType
from rowferry.types import Field, Type

T = TableName(None, "t")
SRC = pathlib.Path(__file__).resolve().parents[2] / "src"
FORMATS = ("parquet", "arrow")


@pytest.fixture(params=FORMATS)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(path: pathlib.Path, table: pa.Table, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, **how)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema, **how) as writer:
            writer.write_table(table, max_chunksize=100)


def read(folder: pathlib.Path) -> pa.Table:
    """All parts of a folder, by pyarrow alone."""
    tables = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".parquet":
            tables.append(pq.ParquetFile(path).read())
        elif path.suffix == ".arrow":
            with pa.OSFile(str(path)) as file:
                tables.append(pa.ipc.open_file(file).read_all())
    return pa.concat_tables(t.replace_schema_metadata() for t in tables)


def made(target: Any, name: TableName, forms: dict[str, Type], **more: Any) -> tuple[Table, tuple[ColumnPlan, ...]]:
    """A new table of columns in these forms, and the way into it."""
    plans = []
    for column, form in forms.items():
        planned = target.plan_column(Column(column, form, native=str(form), forms=(form,)), form)
        assert isinstance(planned, Column), planned
        plans.append(ColumnPlan(column, form, column, planned, Comparison(form, planned.type, "")))
    table = Table(name, tuple(p.column for p in plans), **more)
    target.create_table(table, name, "postgres")
    return table, tuple(plans)


# Types.

FORMS: dict[str, tuple[Type, list[Any]]] = {
    "bool": (Type("bool"), [True, False]),
    "u64": (Type("uint64"), [2**64 - 1, 0]),
    "f32": (Type("float32"), [float("-inf"), -0.0]),
    "f64": (Type("float64"), [5e-324, 1.7976931348623157e308]),
    "decimal": (Type("decimal", precision=38, scale=10), [decimal.Decimal("9" * 28 + "." + "9" * 10)]),
    "decimal256": (Type("decimal", precision=76, scale=30), [decimal.Decimal("-" + "9" * 46 + "." + "9" * 30)]),
    "numeric": (Type("numeric"), ["NaN", "-Infinity", "0.000000000000000000000000000000000000000001"]),
    "text": (Type("text", length=10), ["", "a\0b", "é€𝄞🚢"]),
    "char": (Type("char", length=5), ["ab"]),
    "binary": (Type("binary"), [b"", b"\x00\xff"]),
    "fixed": (Type("binary", length=3, fixed=True), [b"abc"]),
    "date": (Type("date"), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "time": (Type("time", precision=3), [datetime.time(23, 59, 59, 999000)]),
    "time_ns": (Type("time", unit="ns"), [86_399_999_999_999]),
    "timetz": (Type("timetz"), ["24:00:00-15:59:59"]),
    "ts_s": (Type("timestamp", unit="s"), [-62135596800, 0]),
    "ts_ns": (Type("timestamp", unit="ns"), [-(2**63) + 1, 2**63 - 2]),
    "tstz": (Type("timestamptz", unit="us", precision=3), [-210866803200000000, 2**63 - 2]),
    "duration": (Type("duration", unit="ns"), [2**63 - 1, -(2**63)]),
    "interval": (Type("interval"), [(2**31 - 1, -(2**31), -(2**63)), (0, 0, 0), (-1, 2, 3)]),
    "uuid": (Type("uuid"), [uuid.UUID(int=2**128 - 1).bytes]),
    "json": (Type("json"), ['{"b": 1,"a":2, "b":3}']),
    "jsonb": (Type("jsonb"), ['{"a": 1}']),
    "enum": (Type("enum", labels=("sad", "it's"), native="postgresql:mood"), ["it's"]),
    "bit": (Type("bit", length=3), ["010"]),
    "varbit": (Type("varbit"), [""]),
    "inet": (Type("opaque", native="postgresql:inet"), ["10.0.0.1/8"]),
    "list": (Type("list", element=Type("uuid")), [[uuid.UUID(int=1).bytes, None], []]),
    "intervals": (Type("list", element=Type("interval")), [[(1, 2, 3), None], []]),
    "struct": (
        Type("struct", fields=(Field("i", Type("interval")), Field("l", Type("list", element=Type("text"))))),
        [{"i": (1, 2, 3), "l": ["x", None]}, {"i": None, "l": None}],
    ),
    "map": (Type("map", fields=(Field("key", Type("text")), Field("value", Type("uuid")))), [[("k", b"0" * 16)], []]),
}


def array_of(form: Type, values: list[Any]) -> pa.Array:
    if form.kind in ("timestamp", "timestamptz", "time", "duration") and isinstance(values[0], int):
        return pa.array([*values, None], pa.int64()).cast(form.arrow)
    return pa.array([*values, None], form.arrow)


@pytest.mark.parametrize("name", FORMS)
def test_every_type_comes_back_as_what_it_was(tmp_path: pathlib.Path, scheme: str, name: str) -> None:
    form, values = FORMS[name]
    array = array_of(form, values)
    url = f"{scheme}:///{tmp_path / 'x'}"
    with contract.target_at(url) as target:
        table, plans = made(target, T, {"v": form})
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        Ferry(target, table, plans).carry([pa.RecordBatch.from_arrays([array], names=["v"])])
        described = target.describe(T)
        assert described is not None
        assert described.columns[0].type == form
    with contract.source_at(url) as source:
        found = contract.described(source, "t")
        assert (found.columns[0].type, found.columns[0].native) == (form, str(form))
        source.open_snapshot(1)
        (bound,) = source.split(found, None, 1 << 20, 0)
        with contextlib.closing(source.reader()) as reader:
            (batch,) = contract.batches(reader, contract.request(found, bound))
    assert batch.column(0).equals(array)


def test_duckdb_reads_our_parquet_with_its_logical_types(tmp_path: pathlib.Path) -> None:
    forms = {k: FORMS[k][0] for k in ("uuid", "decimal", "date", "ts_ns", "text", "list")}
    with contract.target_at(f"parquet:///{tmp_path / 'x'}") as target:
        table, plans = made(target, T, forms)
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        arrays = [array_of(form, FORMS[k][1][:1]) for k, form in forms.items()]
        Ferry(target, table, plans).carry([pa.RecordBatch.from_arrays(arrays, names=list(forms))])
    place = f"read_parquet('{tmp_path}/x/t/*.parquet')"
    with contextlib.closing(duckdb.connect()) as c:
        assert [r[1] for r in c.execute(f"DESCRIBE FROM {place}").fetchall()] == [
            "UUID", "DECIMAL(38,10)", "DATE", "TIMESTAMP_NS", "VARCHAR", "UUID[]",
        ]  # fmt: skip
        assert c.execute(
            f'SELECT uuid::VARCHAR, "decimal"::VARCHAR FROM {place} WHERE uuid IS NOT NULL'
        ).fetchall() == [("ffffffff-ffff-ffff-ffff-ffffffffffff", "9" * 28 + "." + "9" * 10)]


#: A stranger's column, and what it is as a canonical one.
FOREIGN: dict[str, tuple[pa.Array, list[Any], str]] = {
    "large_string": (pa.array(["a", None], pa.large_string()), ["a", None], "text"),
    "string_view": (pa.array(["a long enough view", None], pa.string_view()), ["a long enough view", None], "text"),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"], "text"),
    "large_binary": (pa.array([b"a", None], pa.large_binary()), [b"a", None], "binary"),
    "date64": (pa.array([86_400_000, None], pa.date64()), [datetime.date(1970, 1, 2), None], "date"),
    "time32": (pa.array([1, None], pa.time32("s")), [datetime.time(0, 0, 1), None], "time"),
    "float16": (pa.array([1.5, None], pa.float16()), [1.5, None], "float32"),
    "null": (pa.nulls(2), [None, None], "text"),
    "timestamp in a zone": (
        pa.array([0, None], pa.timestamp("ms", "Europe/Paris")),
        [datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), None],
        "timestamptz",
    ),
    "large_list": (pa.array([[1, None], None, []], pa.large_list(pa.int8())), [[1, None], None, []], "list"),
    "fixed_size_list": (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None], "list"),
    "nested": (
        pa.array([{"a": [{"b": "x"}]}, None], pa.struct([("a", pa.large_list(pa.struct([("b", pa.large_string())])))])),
        [{"a": [{"b": "x"}]}, None],
        "struct",
    ),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.large_string(), pa.int8())), [[("k", 1)], None], "map"),
    "decimal32": (
        pa.array([decimal.Decimal("1.5"), None], pa.decimal32(5, 1)),
        [decimal.Decimal("1.5"), None],
        "decimal",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_strangers_arrow_type_is_read_as_what_it_holds(tmp_path: pathlib.Path, scheme: str, name: str) -> None:
    array, values, kind = FOREIGN[name]
    table = pa.table({"v": array})
    try:
        write(tmp_path / f"t.{scheme}", table)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        assert scheme == "parquet", error  # not every Arrow type exists there
        return
    with contract.source_at(f"{scheme}:///{tmp_path}") as source:
        assert contract.described(source, "t").columns[0].type.kind == kind
    rows = [value for (value,) in contract.read_all(f"{scheme}:///{tmp_path}", "t")]
    assert len(rows) == len(values)
    assert all(value in rows for value in values)


def test_a_type_without_form_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    write(tmp_path / "in" / "t.arrow", pa.table({"id": [1, 2], "odd": union}))
    with pytest.raises(RefusedError, match="odd"):
        rowferry.copy(f"arrow:///{tmp_path / 'in'}", f"parquet:///{tmp_path / 'out'}")
    rowferry.copy(f"arrow:///{tmp_path / 'in'}", f"parquet:///{tmp_path / 'out'}", policies={"t.odd": "skip"})
    assert read(tmp_path / "out" / "t").to_pydict() == {"id": [1, 2]}


def test_another_tools_metadata_under_our_key_decides_nothing(tmp_path: pathlib.Path) -> None:
    for number, tag in enumerate((b"{bad", b'{"kind":"int64"}', b'{"kind":"struct"}', b"\xff", b'{"kind":"no such"}')):
        field = pa.field("v", pa.utf8(), metadata={b"rowferry.type": tag})
        write(tmp_path / f"t{number}.parquet", pa.table({"v": ["a"]}, schema=pa.schema([field])))
        with contract.source_at(f"parquet:///{tmp_path}") as source:
            assert contract.described(source, f"t{number}").columns[0].type == Type("text")


def test_infinite_times_are_refused_and_go_as_null_by_policy(tmp_path: pathlib.Path, scheme: str) -> None:
    with contextlib.closing(duckdb.connect(str(tmp_path / "a.db"))) as c:
        c.execute("CREATE TABLE t AS SELECT 1 AS id, 'infinity'::TIMESTAMP AS at")
    source, target = f"duckdb:///{tmp_path / 'a.db'}", f"{scheme}:///{tmp_path / 'x'}"
    with pytest.raises(RowferryError, match="infinite"):
        rowferry.copy(source, target)
    rowferry.copy(source, f"{target}null", policies={"t.at": "null"})
    assert read(tmp_path / "xnull" / "t").to_pydict() == {"id": [1], "at": [None]}
    rowferry.copy(source, f"{target}text", policies={"t.at": "text"})
    assert read(tmp_path / "xtext" / "t").to_pydict() == {"id": [1], "at": ["infinity"]}


def test_an_interval_that_is_none_is_an_error_and_not_another_interval() -> None:
    for text in ("", "1 day", "P1Y", "P99999999999M", "P9999999999M", "PT9223372037S", "P1MT1.0000000001S"):
        if text:
            with pytest.raises(DataError):
                types.decode(pa.array([text]), Type("interval"))


@pytest.mark.parametrize(
    "form", [Type("wire", native="postgresql:point"), Type("struct"), Type("list", element=Type("struct"))]
)
def test_what_parquet_cannot_hold_is_refused(form: Type) -> None:
    assert isinstance(types.plan_type(form, "parquet"), Refusal)


# Folders.


@pytest.mark.parametrize(
    "name",
    [
        T, TableName("s", "t"), TableName("s.x", "a.b@c"), TableName(None, "a.b"), TableName(None, "_hidden"),
        TableName(None, ".."), TableName("_s", "schema"), TableName(None, "é/🚢\n%2F"), TableName(None, "CON "),
    ],
    ids=str,
)  # fmt: skip
def test_any_name_is_a_folder_of_its_own(tmp_path: pathlib.Path, scheme: str, name: TableName) -> None:
    folder = catalog.encode_name(name)
    assert catalog.decode_name(folder) == name
    assert "/" not in folder
    assert not folder.startswith((".", "_"))
    with contract.target_at(f"{scheme}:///{tmp_path / 'x'}") as target:
        made(target, name, {"v": Type("int32")}, primary_key=("v",))
    with contract.source_at(f"{scheme}:///{tmp_path / 'x'}") as source:
        assert source.list_tables() == [name], "an empty table shows, too"
        found = source.describe(name)
        assert found is not None
        assert (found.primary_key, found.rows) == (("v",), 0)
    assert [p.name for p in (tmp_path / "x").iterdir()] == [folder]


def test_a_name_too_long_for_a_folder_is_refused_by_the_plan(tmp_path: pathlib.Path) -> None:
    with contract.target_at(f"parquet:///{tmp_path / 'x'}") as target:
        assert target.missing_privileges([], [TableName(None, "é" * 60)])
        assert not target.missing_privileges([], [TableName(None, "e" * 200)])


def test_keys_and_user_types_travel_in_the_files(tmp_path: pathlib.Path, scheme: str) -> None:
    mood = UserType("mood", "enum", "CREATE TYPE mood AS ENUM ('sad')")
    with contract.target_at(f"{scheme}:///{tmp_path / 'x'}") as target:
        made(
            target,
            T,
            {"a": Type("int32"), "b": Type("text")},
            primary_key=("b", "a"),
            unique_keys=(("a",),),
            user_types=(mood,),
        )
        found = target.describe(T)
        assert found is not None
        assert (found.primary_key, found.unique_keys, found.user_types) == (("b", "a"), (("a",),), (mood,))


def test_files_that_do_not_agree_are_an_error_that_names_both(tmp_path: pathlib.Path, scheme: str) -> None:
    write(tmp_path / "t" / f"a.{scheme}", pa.table({"v": [1]}))
    write(tmp_path / "t" / f"b.{scheme}", pa.table({"v": ["x"]}))
    with (
        contract.source_at(f"{scheme}:///{tmp_path}") as source,
        pytest.raises(SourceError, match=r"b\.\w+'.*a\.\w+'.*'v'"),
    ):
        source.describe(T)


def test_a_folder_partitioned_by_value_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t" / "year=2020" / "a.parquet", pa.table({"v": [1]}))
    with contract.source_at(f"parquet:///{tmp_path}") as source, pytest.raises(ConfigError, match="year=2020"):
        source.describe(T)


def test_two_places_of_one_table_are_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"v": [1]}))
    write(tmp_path / "t" / "a.parquet", pa.table({"v": [1]}))
    with contract.source_at(f"parquet:///{tmp_path}") as source, pytest.raises(ConfigError, match="both table 't'"):
        source.list_tables()


def test_a_single_file_is_a_source(tmp_path: pathlib.Path, scheme: str) -> None:
    write(tmp_path / f"one.{scheme}", pa.table({"v": [1, 2]}))
    assert contract.read_all(f"{scheme}:///{tmp_path / f'one.{scheme}'}", "one") == [(1,), (2,)]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"ARROW1\0\0" + b"x" * 100, os.urandom(1000)], ids=["empty", "p", "a", "random"]
)
def test_a_file_that_is_none_of_ours_is_a_source_error_that_names_it(
    tmp_path: pathlib.Path, scheme: str, content: bytes
) -> None:
    (tmp_path / f"t.{scheme}").write_bytes(content)
    with contract.source_at(f"{scheme}:///{tmp_path}") as source, pytest.raises(SourceError, match=f"t.{scheme}"):
        source.describe(T)


def test_a_file_damaged_in_the_middle_is_a_source_error_that_names_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.parquet"
    write(path, pa.table({"v": [os.urandom(50).hex() for _ in range(20_000)]}), compression="zstd")
    with contract.source_at(f"parquet:///{tmp_path}") as source:
        table = contract.described(source, "t")
        data = bytearray(path.read_bytes())
        data[1000:200_000] = os.urandom(199_000)
        path.write_bytes(data)
        with contextlib.closing(source.reader()) as reader, pytest.raises(SourceError, match=r"t\.parquet"):
            contract.batches(reader, contract.request(table, source.split(table, None, 1 << 30, 0)[0]))


def test_missing_paths_and_wrong_kinds_are_told_apart(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    for url, kind in (("missing", SourceError), ("text.txt", ConfigError), (".?x=1", ConfigError)):
        with pytest.raises(kind), contract.source_at(f"parquet:///{tmp_path}/{url}"):
            pass
    with pytest.raises(ConfigError), contract.target_at(f"parquet:///{tmp_path / 'text.txt'}"):
        pass
    with pytest.raises(TargetError), contract.target_at(f"parquet:///{tmp_path / 'text.txt' / 'below'}"):
        pass


def test_a_condition_is_refused_with_a_way_out(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"v": [1]}))
    with contract.source_at(f"parquet:///{tmp_path}") as source, pytest.raises(ConfigError, match="DuckDB"):
        source.split(contract.described(source, "t"), "v > 0", 1 << 20, 0)


# One state.


def test_a_file_that_changes_in_mid_copy_stops_it(tmp_path: pathlib.Path, scheme: str) -> None:
    for part in "ab":
        write(tmp_path / "t" / f"{part}.{scheme}", pa.table({"v": range(1000)}))
    with contract.source_at(f"{scheme}:///{tmp_path}") as source:
        table = contract.described(source, "t")
        assert source.open_snapshot(1) == "one"
        bounds = source.split(table, None, 1, 0)
        assert len(bounds) > 1
        write(tmp_path / "t" / f"c.{scheme}", pa.table({"v": [7]}))
        os.rename(tmp_path / "t" / f"c.{scheme}", tmp_path / "t" / f"b.{scheme}")
        with contextlib.closing(source.reader()) as reader:
            assert contract.batches(reader, contract.request(table, bounds[0]))
            with pytest.raises(SourceError, match="changed"):
                contract.batches(reader, contract.request(table, bounds[-1]))


def test_the_state_is_the_same_only_while_nothing_changed(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"v": [1]}))
    with contract.source_at(f"parquet:///{tmp_path}") as source:
        first = source.state_token()
        assert source.state_token() == first
        write(tmp_path / "u.parquet", pa.table({"v": [1]}))
        second = source.state_token()
        write(tmp_path / "t.parquet", pa.table({"v": [2]}))
        assert len({first, second, source.state_token()}) == 3


# The ledger.


def carried(tmp_path: pathlib.Path, scheme: str, rows: int = 10) -> tuple[str, pathlib.Path]:
    url = f"{scheme}:///{tmp_path / 'x'}"
    with contract.target_at(url) as target:
        table, plans = made(target, T, {"v": Type("int64")})
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0, 0))
        Ferry(target, table, plans).carry([pa.RecordBatch.from_arrays([pa.array(range(rows))], names=["v"])])
    return url, tmp_path / "x"


def test_a_chunk_is_done_exactly_while_its_file_stands(tmp_path: pathlib.Path, scheme: str) -> None:
    url, folder = carried(tmp_path, scheme)
    (part,) = folder.glob("t/part-*")
    with contract.target_at(url) as target:
        first, second = target.ledger.chunks(JOB)
        assert (first.state, first.rows_committed, first.digest_sent, first.touched) == (
            "done", 10, f"10:{(1 << 127) + 5:032x}", {"ä": 2},
        )  # fmt: skip
        assert second.state == "todo"
        part.unlink()
        assert [c.state for c in target.ledger.chunks(JOB)] == ["todo", "todo"]


def test_a_chunk_without_rows_leaves_a_file(tmp_path: pathlib.Path, scheme: str) -> None:
    url, folder = carried(tmp_path, scheme, rows=0)
    assert len(list(folder.glob("t/part-*"))) == 1
    assert contract.read_all(url, "t") == []


def test_a_strangers_file_in_the_place_of_a_chunk_is_a_ledger_error(tmp_path: pathlib.Path, scheme: str) -> None:
    url, folder = carried(tmp_path, scheme)
    (part,) = folder.glob("t/part-*")
    write(part, pa.table({"v": [1]}))
    with contract.target_at(url) as target, pytest.raises(LedgerError, match="part-"):
        target.ledger.chunks(JOB)


def test_a_plan_that_cannot_be_understood_is_a_ledger_error(tmp_path: pathlib.Path) -> None:
    url, folder = carried(tmp_path, "parquet")
    plan = folder / "_rowferry" / "plan.json"
    for text in ("{bad", '{"version":99,"jobs":{}}', "[]", '{"version":1,"jobs":{"j":{"job":3}}}'):
        plan.write_text(text)
        with contract.target_at(url) as target, pytest.raises(LedgerError, match=r"plan\.json"):
            target.ledger.jobs()


def test_a_finished_job_keeps_its_chunks_when_the_files_are_gone(tmp_path: pathlib.Path) -> None:
    url, folder = carried(tmp_path, "parquet")
    with contract.target_at(url) as target:
        target.ledger.finish_job(JOB, {"status": "ok"})
        target.drop(T)
        assert [c.rows_committed for c in target.ledger.chunks(JOB)] == [10, 0]
    assert sorted(p.name for p in folder.iterdir()) == ["_rowferry"]


def test_what_a_killed_writer_left_is_cleaned_and_what_a_living_one_writes_is_not(
    tmp_path: pathlib.Path, scheme: str
) -> None:
    url, folder = carried(tmp_path, scheme)
    dead = folder / "t" / f"part-gone-000-000000.{scheme}.tmp"
    alive = folder / "t" / f"part-alive-000-000000.{scheme}.tmp"
    other = folder / "t" / "notes.tmp"
    dead.write_text("half")
    other.write_text("whole")
    with contract.target_at(url) as holder, contract.target_at(url) as target:
        assert holder.ledger.lock("alive")
        alive.write_text("half")
        assert target.ledger.lock("mine")
        assert not target.ledger.lock("alive")
    assert not dead.exists()
    assert alive.exists()
    assert other.exists(), "not ours to remove"


KILLED = """
import sys, rowferry
print("begin", flush=True)
rowferry.copy(sys.argv[1], sys.argv[2], workers=2)
"""


def test_kill_9_at_any_time_leaves_no_bad_file_and_the_next_run_the_rest(tmp_path: pathlib.Path, scheme: str) -> None:
    with contextlib.closing(duckdb.connect(str(tmp_path / "a.db"))) as c:
        c.execute("CREATE TABLE t AS SELECT range::BIGINT AS id, md5(range::VARCHAR) AS s FROM range(1500000)")
        want = c.execute("SELECT count(*), count(DISTINCT id), sum(id), sum(hash(s)) FROM t").fetchall()
    source, place = f"duckdb:///{tmp_path / 'a.db'}", tmp_path / "x"
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    for wait in (0.4, 0.7, 1.0, 1.3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, source, f"{scheme}:///{place}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        if (place / "t").is_dir():
            assert read(place / "t").num_rows >= 0, "every file with a name can be read"
    with contextlib.suppress(RefusedError):  # all kills may have come too late
        rowferry.copy(source, f"{scheme}:///{place}", workers=2)
    table = read(place / "t")
    with contextlib.closing(duckdb.connect()) as c:
        c.register("t", table)
        assert c.execute("SELECT count(*), count(DISTINCT id), sum(id), sum(hash(s)) FROM t").fetchall() == want
    assert not list(place.rglob("*.tmp"))
    assert json.loads((place / "_rowferry" / "plan.json").read_text())["version"] == 1


def test_a_full_disk_is_a_target_error_and_leaves_whole_files_only(tmp_path: pathlib.Path, scheme: str) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        with contextlib.closing(duckdb.connect(str(tmp_path / "a.db"))) as c:
            c.execute(
                "CREATE TABLE t AS SELECT range AS id, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS s "
                "FROM range(500000)"
            )
        source, url = f"duckdb:///{tmp_path / 'a.db'}", f"{scheme}:///{place / 'x'}"
        with pytest.raises(TargetError) as caught:
            rowferry.copy(source, url, workers=1)
        assert caught.value.exit_code == 4
        assert read(place / "x" / "t").num_rows < 500_000
        subprocess.run(["mount", "-o", "remount,size=400m", str(place)], check=True)
        report = rowferry.copy(source, url, workers=1, verify=True)
        assert report.equal is True
        assert read(place / "x" / "t").num_rows == 500_000
    finally:
        subprocess.run(["umount", str(place)], check=True)


# Modes and repairs.


def test_append_adds_files_and_replace_puts_others_in_their_place(tmp_path: pathlib.Path, scheme: str) -> None:
    def load(first: int, **how: Any) -> list[int]:
        folder = tmp_path / f"in{first}"
        write(folder / f"t.{scheme}", pa.table({"v": range(first, first + 300)}))
        rowferry.copy(f"{scheme}:///{folder}", f"{scheme}:///{tmp_path / 'x'}", verify=True, **how)
        return sorted(read(tmp_path / "x" / "t")["v"].to_pylist())

    assert load(0) == list(range(300))
    with pytest.raises(ConfigError):
        load(0)
    assert load(1000, mode="append") == [*range(300), *range(1000, 1300)]
    assert load(2000, mode="replace") == list(range(2000, 2300))
    assert load(3000, mode="truncate") == list(range(3000, 3300))
    with pytest.raises(ConfigError, match="upsert"):
        load(4000, mode="upsert")
    assert not [p for p in (tmp_path / "x").iterdir() if p.name not in ("t", "_rowferry")]


def test_rows_are_added_to_a_strangers_folder_in_its_columns(tmp_path: pathlib.Path) -> None:
    foreign = pa.table({"s": pa.array(["a"], pa.large_string()), "n": pa.array([1], pa.int32()), "more": [1.5]})
    write(tmp_path / "x" / "t" / "foreign.parquet", foreign)
    with contract.target_at(f"parquet:///{tmp_path / 'x'}") as target:
        table = target.describe(T)
        assert table is not None
        plans = tuple(
            ColumnPlan(c, f, c, Column(c, f), Comparison(f, f, ""))
            for c, f in (("n", Type("int32")), ("s", Type("text")))
        )
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        batch = pa.RecordBatch.from_arrays([pa.array([2], pa.int32()), pa.array(["b"])], names=["n", "s"])
        Ferry(target, table, plans).carry([batch])
    assert contract.read_all(f"parquet:///{tmp_path / 'x'}", "t") == [("a", 1, 1.5), ("b", 2, None)]


def test_repair_rewrites_only_the_files_that_hold_the_rows(tmp_path: pathlib.Path, scheme: str) -> None:
    url = f"{scheme}:///{tmp_path / 'x'}"
    forms = {"at": Type("timestamp", unit="ns"), "k": Type("uuid"), "v": Type("interval")}

    def batch(ids: list[int]) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [
                pa.array([i * 1000 for i in ids], pa.int64()).cast(pa.timestamp("ns")),
                pa.array([uuid.UUID(int=i).bytes for i in ids], pa.binary(16)),
                pa.array([(i, 0, 0) for i in ids], pa.month_day_nano_interval()),
            ],
            names=list(forms),
        )

    with contract.target_at(url) as target:
        table, plans = made(target, T, forms, primary_key=("at", "k"))
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0, 0))
        ferry = Ferry(target, table, plans)
        ferry.carry([batch(list(range(100)))])
        ferry.carry([batch(list(range(100, 200)))])
        before = {p.name: p.stat().st_ino for p in (tmp_path / "x" / "t").iterdir()}
        doomed = batch([3, 5, 999]).select(["at", "k"])
        assert target.repair(table, plans, ("at", "k"), doomed, [batch([300, 301])]) == 2
        assert [c.rows_committed for c in target.ledger.chunks(JOB)] == [100, 100], "still done, not copied again"
    after = {p.name: p.stat().st_ino for p in (tmp_path / "x" / "t").iterdir()}
    assert sum(before[n] != after[n] for n in before) == 1
    assert len(after) == len(before) + 1
    months = [row[2].months for row in contract.read_all(url, "t")]
    assert months == [i for i in range(200) if i not in (3, 5)] + [300, 301]


def test_a_swap_cut_off_between_its_renames_is_finished_by_the_next(tmp_path: pathlib.Path) -> None:
    with contract.target_at(f"parquet:///{tmp_path / 'x'}") as target:
        loaded = TableName(None, "rowferry_new_0")
        made(target, T, {"old": Type("int32")})
        made(target, loaded, {"new": Type("int32")})
        target.drop(T)  # the first of the two, then a crash
        for _ in range(2):
            target.swap(loaded, T)
            found = target.describe(T)
            assert found is not None
            assert [c.name for c in found.columns] == ["new"]


# Writing.


def test_a_part_is_invisible_until_it_is_published_and_gone_when_abandoned(tmp_path: pathlib.Path, scheme: str) -> None:
    path = str(tmp_path / f"p.{scheme}")
    schema = pa.schema([("v", pa.int64())])
    for publish in (False, True):
        part = PartWriter(path, scheme, schema)
        part.add(pa.RecordBatch.from_arrays([pa.array([1])], schema=schema))
        part.finish(b"{}")
        assert not os.path.exists(path)
        if publish:
            wire.publish(path)
        else:
            part.abandon()
    assert [p.name for p in tmp_path.iterdir()] == [f"p.{scheme}"]


def test_row_groups_are_bounded_in_bytes_and_dictionaries_are_for_few_values(tmp_path: pathlib.Path) -> None:
    schema = pa.schema([("few", pa.utf8()), ("many", pa.utf8()), ("wide", pa.utf8())])
    part = PartWriter(str(tmp_path / "p.parquet"), "parquet", schema)
    for n in range(40):
        many = [f"{n}-{i}" for i in range(1000)]
        part.add(
            pa.RecordBatch.from_arrays(
                [pa.array(["x"] * 1000), pa.array(many), pa.array([m * 100 for m in many])], schema=schema
            )
        )
    part.finish()
    wire.publish(part.path)
    meta = pq.ParquetFile(part.path).metadata
    assert meta.num_row_groups > 1
    first = meta.row_group(0)
    assert first.total_byte_size < 2 * wire.ROW_GROUP_BYTES
    assert [first.column(i).has_dictionary_page for i in range(3)] == [True, False, False]
    assert {first.column(i).compression for i in range(3)} == {"ZSTD"}


def test_reading_a_large_file_is_bounded_by_the_batch(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "t.parquet", pa.table({"v": [f"{i:0>1000}" for i in range(20_000)]}), row_group_size=20_000)
    with contract.source_at(f"parquet:///{tmp_path}") as source:
        table = contract.described(source, "t")
        source.open_snapshot(1)
        (bound,) = source.split(table, None, 1 << 20, 0)
        before = pa.total_allocated_bytes()
        peak = 0
        with contextlib.closing(source.reader()) as reader:
            for block in reader.read(contract.request(table, bound)):
                peak = max(peak, pa.total_allocated_bytes() - before)
                assert block.batch.nbytes < 4 << 20
    assert peak < 16 << 20, f"{peak >> 20} MiB for 20 MB"


def test_parts_of_a_job_that_another_process_carries_are_left_alone(tmp_path: pathlib.Path) -> None:
    url = f"parquet:///{tmp_path / 'x'}"
    with contract.target_at(url) as running, contract.target_at(url) as starting:
        running.ledger.open(True)
        running.ledger.create_job(contract.job_row("job-a", "key-a"), [], [])
        running.ledger.create_job(contract.job_row("job-b", "key-b"), [], [])
        assert running.ledger.lock("key-a")
        (tmp_path / "x" / "t").mkdir()
        jobs = ("job-a", "job-b", "job-gone")
        parts = {j: tmp_path / "x" / "t" / ledger.part_name(j, 0, 0, ".parquet.tmp") for j in jobs}
        for part in parts.values():
            part.write_bytes(b"half")
        assert starting.ledger.lock("key-b")
        assert {j for j, part in parts.items() if part.exists()} == {"job-a"}
        running.ledger.unlock("key-a")
        starting.ledger.unlock("key-b")
        assert starting.ledger.lock("key-c")
        assert not parts["job-a"].exists()
