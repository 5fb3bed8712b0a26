"""What is DuckDB's own: its types and their ends, casts that round, locks, long cells, tags, kills."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import rowferry
from adapters import contract
from adapters.contract import JOB, Ferry
from rowferry import endpoint
from rowferry.adapters.duckdb import types
from rowferry.adapters.duckdb.wire import Database, ProcessLock
from rowferry.convert import duckdb_form
from rowferry.errors import ConfigError, DataError, RefusedError, RowferryError, SourceError, TargetError
from rowferry.model import Bound, ChunkRow, Column, ColumnPlan, Comparison, Refusal, Table, TableName
from rowferry.types import Field, Type

T = TableName(None, "t")
SRC = pathlib.Path(__file__).resolve().parents[2] / "src"
ROOT_CAN_WRITE = os.geteuid() == 0


def make(path: pathlib.Path, *statements: str) -> str:
    with contextlib.closing(duckdb.connect(str(path))) as c:
        for statement in statements:
            c.execute(statement)
    return f"duckdb:///{path}"


def look(path: pathlib.Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(duckdb.connect(str(path), read_only=True)) as c:
        c.execute("SET TimeZone = 'UTC'")
        return c.execute(sql).fetchall()


def there(path: pathlib.Path, *statements: str, **how: Any) -> pathlib.Path:
    """The path of a copy of a database of these statements."""
    url = make(path / "a.db", *statements)
    report = rowferry.copy(url, f"duckdb:///{path / 'b.db'}", verify=True, **how)
    assert report.equal is True
    return path / "b.db"


# Types.

#: Expressions of each type's ends; both databases must print the same.
EXTREMES = {
    "hugeint": ["99999999999999999999999999999999999999::HUGEINT", "-1::HUGEINT"],
    "hugeint beyond": ["170141183460469231731687303715884105727::HUGEINT",
                       "(-170141183460469231731687303715884105728)::HUGEINT"],
    "uhugeint": ["340282366920938463463374607431768211455::UHUGEINT", "0::UHUGEINT"],
    "bignum": ["'-123456789012345678901234567890123456789012345678901234567890'::BIGNUM"],
    "ubigint": ["18446744073709551615::UBIGINT"],
    "decimal": ["'99999999999999999999999999999999999999'::DECIMAL(38,0)", "'-0.01'::DECIMAL(38,0)"],
    "decimal38": ["'0.00000000000000000000000000000000000001'::DECIMAL(38,38)"],
    "float": ["'nan'::FLOAT", "'-inf'::FLOAT", "'-0.0'::FLOAT"],
    "double": ["'nan'::DOUBLE", "5e-324", "1.7976931348623157e308", "'-0.0'::DOUBLE"],
    "date": ["'infinity'::DATE", "'-infinity'::DATE", "'5877642-06-25 (BC)'::DATE", "'5881580-07-10'::DATE"],
    "timestamp": ["'infinity'::TIMESTAMP", "'-infinity'::TIMESTAMP", "'290309-12-22 (BC) 00:00:00'::TIMESTAMP",
                  "'294247-01-10 04:00:54.775806'::TIMESTAMP"],
    "timestamp_s": ["'2020-01-01 00:00:01'::TIMESTAMP_S", "'infinity'::TIMESTAMP_S"],
    "timestamp_ms": ["'2020-01-01 00:00:01.123'::TIMESTAMP_MS", "'-infinity'::TIMESTAMP_MS"],
    "timestamp_ns": ["'2020-01-01 00:00:01.123456789'::TIMESTAMP_NS", "'infinity'::TIMESTAMP_NS"],
    "timestamptz": ["'-infinity'::TIMESTAMPTZ", "'2020-01-01 00:00:00.000001+02'::TIMESTAMPTZ"],
    "timestamptz_ns": ["'2020-01-01 00:00:00.000000001+00'::TIMESTAMPTZ_NS"],
    "time": ["'24:00:00'::TIME", "'00:00:00.000001'::TIME"],
    "time_ns": ["'23:59:59.999999999'::TIME_NS"],
    "timetz": ["'10:00:00.5+05:30'::TIMETZ", "'24:00:00-15:59:59'::TIMETZ"],
    "interval": ["INTERVAL '1 month -2 days 3.000001 seconds'", "INTERVAL '-178000000 years'"],
    "uuid": ["'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID"],
    "bit": ["'1'::BIT", "'0000000000000000001'::BIT"],
    "json": ['\'{"b":1.50, "a":null, "b":3}\'::JSON', "'\"text\"'::JSON", "'null'::JSON"],
    "text": ["''", "chr(0)", "repeat('é', 70000)"],
    "blob": ["'\\x00\\xFF'::BLOB", "''::BLOB"],
    "enum": ["'it''s'::ENUM('b', 'it''s', '')", "''::ENUM('b', 'it''s', '')"],
    "list": ["[1, NULL]", "[]::INTEGER[]"],
    "nested list": ["[['a', NULL], NULL, []]"],
    "list of uuid": ["['ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID, NULL]"],
    "list of dates": ["[DATE '-infinity', DATE 'infinity', NULL]", "[]::DATE[]"],
    "list of timetz": ["['10:00:00+01'::TIMETZ]"],
    "struct": ["{'a b': 1, 'C': {'u': '00000000-0000-0000-0000-000000000001'::UUID, 'd': DATE '-infinity'}, "
               "'size': 'x'::ENUM('x')}"],
    "map": ["MAP {'k': DATE '-infinity', 'l': NULL}"],
    "map of uuid": ["MAP {1: '00000000-0000-0000-0000-000000000001'::UUID}"],
    "array": ["[1, 2, NULL]::INTEGER[3]"],
    "geometry": ["'POINT (0.1 0.30000000000000004)'::GEOMETRY"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_every_type_arrives_with_its_ends(tmp_path: pathlib.Path, name: str) -> None:
    expressions = EXTREMES[name]
    rows = " UNION ALL ".join(f"SELECT {n} AS id, {e} AS v" for n, e in enumerate([*expressions, "NULL"]))
    kind = f"SELECT DISTINCT typeof(v) FROM ({' UNION ALL '.join(f'SELECT {e} AS v' for e in expressions)})"
    copy = there(tmp_path, f"CREATE TABLE t AS {rows}")
    shown = "SELECT id, v::VARCHAR FROM t ORDER BY id"
    assert look(copy, shown) == look(tmp_path / "a.db", shown)
    (declared,) = look(tmp_path / "a.db", "SELECT DISTINCT typeof(v) FROM t WHERE v IS NOT NULL")
    if name != "array":  # a list of any length is what the canonical types know
        assert look(copy, "SELECT DISTINCT typeof(v) FROM t WHERE v IS NOT NULL") == [declared], kind


@pytest.mark.parametrize(
    "expression", ["union_value(a := 1)", "1::VARIANT", "row(1, 2)"], ids=["union", "variant", "tuple"]
)
def test_a_type_without_exact_form_is_refused_by_name_and_can_go_as_text(
    tmp_path: pathlib.Path, expression: str
) -> None:
    url, target = make(tmp_path / "a.db", f"CREATE TABLE t AS SELECT {expression} AS odd"), tmp_path / "b.db"
    with pytest.raises(RefusedError, match="odd"):
        rowferry.copy(url, f"duckdb:///{target}")
    rowferry.copy(url, f"duckdb:///{target}", policies={"t.odd": "text"}, verify=True)
    assert look(target, "SELECT odd FROM t") == look(tmp_path / "a.db", "SELECT odd::VARCHAR FROM t")


def test_timestamps_that_would_invalidate_the_database_are_refused() -> None:
    early = pa.array([duckdb_form._MICROSECONDS_MIN - 1], pa.int64()).cast(pa.timestamp("us"))
    with pytest.raises(DataError, match="range"):
        duckdb_form.to_duckdb(early, Type("timestamp", unit="us"))
    seconds = pa.array([2**62], pa.int64()).cast(pa.timestamp("s"))
    with pytest.raises(DataError, match="range"):
        duckdb_form.to_duckdb(seconds, Type("timestamp", unit="s"))
    finite = pa.array([-(2**63) + 1], pa.int64()).cast(pa.timestamp("ns"))
    with pytest.raises(DataError):
        duckdb_form.to_duckdb(finite, Type("timestamp", unit="ns"))


def test_infinities_change_places_in_nested_slices() -> None:
    ends = [-(2**31), 2**31 - 1, 0, None]
    dates = pa.array(ends * 3, pa.int32()).cast(pa.date32())
    lists = pa.ListArray.from_arrays([0, 4, 4, 8, 12], dates, mask=pa.array([False, True, False, False]))
    form = Type("list", element=Type("date"))
    for array in (lists, lists.slice(1), lists.slice(2, 1), lists.slice(4)):
        stored = duckdb_form.to_duckdb(array.cast(form.arrow), form)
        assert duckdb_form.from_duckdb(stored, form).equals(array.cast(form.arrow))
    assert duckdb_form.to_duckdb(lists, form).flatten().cast(pa.int32()).to_pylist()[:2] == [-(2**31) + 1, 2**31 - 1]


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Type("decimal", precision=39, scale=0), "38"),
        (Type("numeric"), "bounds"),
        (Type("wire", native="postgresql:point"), "bytes"),
        (Type("list", element=Type("numeric")), "bounds"),
        (Type("struct", fields=(Field("a", Type("bool")), Field("A", Type("bool")))), "name"),
        (Type("struct"), "name"),
    ],
)
def test_what_duckdb_cannot_hold_is_refused_by_the_plan(form: Type, reason: str) -> None:
    planned = types.plan_type(form)
    assert isinstance(planned, Refusal)
    assert reason in planned.reason


def test_negative_and_large_scales_become_decimals_that_hold_them() -> None:
    assert types.plan_type(Type("decimal", precision=5, scale=-2)) == (
        "DECIMAL(7,0)",
        Type("decimal", precision=7, scale=0),
    )
    assert types.plan_type(Type("decimal", precision=3, scale=5)) == (
        "DECIMAL(5,5)",
        Type("decimal", precision=5, scale=5),
    )


# What an existing column makes of a value.


def into_existing(tmp_path: pathlib.Path, ddl: str, form: Type, value: Any) -> list[tuple[Any, ...]]:
    """Writes one value, in ``form``, to a column declared ``ddl``."""
    url = make(tmp_path / "t.db", f"CREATE TABLE t (v {ddl})")
    with contract.target_at(url) as target:
        table = target.describe(T)
        assert table is not None
        plan = ColumnPlan("v", form, "v", Column("v", form, native=ddl), Comparison(form, form, ""))
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        Ferry(target, table, (plan,)).carry([pa.RecordBatch.from_arrays([pa.array([value], form.arrow)], names=["v"])])
    return look(tmp_path / "t.db", "SELECT v::VARCHAR FROM t")


@pytest.mark.parametrize(
    ("ddl", "form", "value"),
    [
        ("BIT", Type("varbit"), ""),
        ("TIMETZ", Type("timetz"), "10:00:00+1"),
        ("TIMETZ", Type("timetz"), "10:00:00.1234567+00"),
        ("BIGNUM", Type("numeric"), "1.5"),
        ("DECIMAL(5,1)", Type("decimal", precision=10, scale=2), None),
        ("ENUM('a')", Type("enum", labels=("a", "b")), "b"),
        ("JSON", Type("json"), "{bad"),
        ("DATE", Type("text"), "2020-1-1"),
        ("INTEGER[2]", Type("list", element=Type("int32")), [1, 2, 3]),
    ],
)
def test_no_cast_of_duckdb_changes_a_value(tmp_path: pathlib.Path, ddl: str, form: Type, value: Any) -> None:
    if form.kind == "decimal":
        import decimal

        value = decimal.Decimal("12.34")
    with pytest.raises(DataError):
        into_existing(tmp_path, ddl, form, value)
    assert look(tmp_path / "t.db", "SELECT count(*) FROM t") == [(0,)]


def test_a_cast_that_holds_the_value_is_taken(tmp_path: pathlib.Path) -> None:
    for number, (ddl, form, value, shown) in enumerate(
        [
            ("TIMETZ", Type("timetz"), "10:00:00.5+05:30", "10:00:00.5+05:30"),
            ("BIT", Type("bit", length=3), "010", "010"),
            ("UHUGEINT", Type("numeric"), "340282366920938463463374607431768211455", None),
            ("JSON", Type("jsonb"), '{"a":  1}', None),
            ("INTEGER[2]", Type("list", element=Type("int32")), [1, 2], "[1, 2]"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert into_existing(folder, ddl, form, value) == [(shown or value,)]


def test_numeric_goes_as_text_by_policy_and_is_a_number_again(tmp_path: pathlib.Path) -> None:
    wide = Column("n", Type("numeric"), native="numeric", forms=(Type("numeric"), Type("text")))
    with contract.target_at(f"duckdb:///{tmp_path / 't.db'}") as target:
        assert isinstance(target.plan_column(wide, wide.type), Refusal)
        planned = target.plan_column(wide, Type("text"))
        assert isinstance(planned, Column)
        assert planned.native == "VARCHAR"
        target.create_table(Table(T, (planned,)), T, "postgres")
        found = target.describe(T)
        assert found is not None
        assert found.columns[0].type == Type("numeric")
        assert found.columns[0].native == "numeric"


def test_a_tag_is_forgotten_when_the_column_is_given_another_type(tmp_path: pathlib.Path) -> None:
    inet = Type("opaque", native="postgresql:inet")
    with contract.target_at(f"duckdb:///{tmp_path / 't.db'}") as target:
        planned = target.plan_column(Column("v", inet, native="inet", forms=(inet,)), inet)
        assert isinstance(planned, Column)
        target.create_table(Table(T, (planned,)), T, "postgres")
        assert contract.described(target.as_source(), "t").columns[0].type == inet
    make(tmp_path / "t.db", "ALTER TABLE t ALTER v TYPE BLOB USING v::BLOB")
    with contract.source_at(f"duckdb:///{tmp_path / 't.db'}") as source:
        assert contract.described(source, "t").columns[0].type == Type("binary")


# Shapes.


def test_describe_knows_defaults_generated_columns_keys_and_views(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE SEQUENCE sq",
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE t (id INTEGER DEFAULT nextval('sq'), a INTEGER NOT NULL DEFAULT 5, b INTEGER AS (a * 2), "
        "s VARCHAR NOT NULL DEFAULT 'x''y', w TIMESTAMP DEFAULT now(), p INTEGER REFERENCES p (id), "
        "PRIMARY KEY (s, a), UNIQUE (a), UNIQUE (w))",
        "CREATE VIEW v AS SELECT s, count(*) AS n FROM t GROUP BY s",
        "CREATE SCHEMA more",
        "CREATE TABLE more.t (x INTEGER)",
        "CREATE TEMP TABLE temporary (x INTEGER)",
    )
    with contract.source_at(url) as source:
        assert source.list_tables() == [TableName(None, "p"), T, TableName("more", "t")]
        assert source.list_views() == [TableName(None, "v")]
        table = contract.described(source, "t")
        assert (table.primary_key, table.unique_keys) == (("s", "a"), (("a",),))
        assert [k.columns for k in table.foreign_keys] == [("p",)]
        assert {c.name: c.default for c in table.columns} == {
            "id": None, "a": "5", "b": None, "s": "'x''y'", "w": None, "p": None,
        }  # fmt: skip
        assert [c.name for c in table.columns if c.generated] == ["b"]
        assert table.column("id").identity == "serial"
        assert contract.described(source, "v").kind == "view"


def test_a_view_is_read_by_name_in_one_chunk(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE VIEW v AS SELECT range AS id, range % 7 AS m FROM range(300000)")
    report = rowferry.copy(url, f"duckdb:///{tmp_path / 'b.db'}", tables=["v"], verify=True)
    assert report.tables[0].rows_committed == 300_000
    sums = "SELECT sum(id), sum(m) FROM v"
    assert look(tmp_path / "b.db", sums) == look(tmp_path / "a.db", sums)


def test_names_that_differ_in_case_alone_collide_by_name(tmp_path: pathlib.Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as c:
        c.execute("CREATE TABLE one (a INTEGER)")
        c.execute('CREATE TABLE "two" (a INTEGER)')
    with pytest.raises(ConfigError, match="ONE"):
        rowferry.copy(
            f"sqlite:///{tmp_path / 's.db'}", f"duckdb:///{tmp_path / 'd.db'}", tables=["one:two", "two:TWO", "one:ONE"]
        )


def test_rows_of_deleted_neighbours_are_split_and_read_once(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE TABLE t AS SELECT range::BIGINT AS id, repeat('x', 50) AS s FROM range(500000)",
        "DELETE FROM t WHERE id % 3 = 0 OR id BETWEEN 100000 AND 300000",
        "INSERT INTO t SELECT range + 1000000, 'late' FROM range(10)",
    )
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        bounds = source.split(table, None, 1 << 20, 0)
        assert len(bounds) > 5
        assert all(b.physical for b in bounds)
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader:
            ids = [
                i for b in bounds for x in contract.batches(reader, contract.request(table, b))
                for i in x.column(0).to_pylist()
            ]  # fmt: skip
    assert sorted(ids) == [r[0] for r in look(tmp_path / "a.db", "SELECT id FROM t ORDER BY id")]


def test_a_condition_that_is_no_sql_is_the_requests_fault(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT range AS id FROM range(10)")
    with contract.source_at(url) as source, pytest.raises(ConfigError, match="condition"):
        source.split(contract.described(source, "t"), "no such thing", 1 << 20, 0)
    assert contract.read_all(url, "t", where="id < 3 -- a comment") == [(0,), (1,), (2,)]


def test_a_column_that_overflows_the_default_form_is_an_error_and_not_another_number(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT 170141183460469231731687303715884105727::HUGEINT AS h")
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        assert table.column("h").type == Type("numeric"), "the census saw that 38 digits are too few"
        source.open_snapshot(1)
        small = (("h", Type("decimal", precision=38, scale=0)),)
        with contextlib.closing(source.reader()) as reader:
            with pytest.raises(DataError):
                contract.batches(reader, contract.request(table, Bound({}), columns=small))
            assert contract.values(contract.batches(reader, contract.request(table, Bound({})))) == [
                ("170141183460469231731687303715884105727",)
            ]


def test_cells_of_many_megabytes_arrive(tmp_path: pathlib.Path) -> None:
    copy = there(
        tmp_path,
        "CREATE TABLE t AS SELECT range AS id, 'short' AS s, 'b'::BLOB AS b FROM range(5000)",
        "INSERT INTO t VALUES (10000, repeat('0123456789', 3000000), NULL)",
        f"INSERT INTO t VALUES (10001, NULL, encode(repeat('é', {70 << 10})))",
        "INSERT INTO t VALUES (10002, NULL, NULL), (10003, '', ''::BLOB)",
    )
    sql = "SELECT count(*), sum(id), max(strlen(s)), max(octet_length(b)), sum(hash(s)), sum(hash(b)) FROM t"
    assert look(copy, sql) == look(tmp_path / "a.db", sql)


# Files, locks, options.


def test_another_process_that_holds_the_file_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "held.db"
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(TargetError, match=f"PID {other.pid}"), contract.target_at(f"duckdb:///{path}"):
            pass
        with pytest.raises(SourceError, match="in use by another process"), contract.source_at(f"duckdb:///{path}"):
            pass
        other.kill()
    with contract.target_at(f"duckdb:///{path}") as target:
        assert target.ledger.open(create=True)


def test_a_source_keeps_writers_out_so_that_all_readers_see_one_state(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT 1 AS id")
    with contract.source_at(url) as source:
        assert source.open_snapshot(2) == "one"
        assert source.snapshot_id() == source.state_token()
        code = "import duckdb, sys; duckdb.connect(sys.argv[1])"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.db")], capture_output=True, check=False)
        assert other.returncode != 0
    first = _token(url)
    assert _token(url) == first
    make(tmp_path / "a.db", "INSERT INTO t VALUES (2)")
    assert _token(url) != first


def _token(url: str) -> str | None:
    with contract.source_at(url) as source:
        return source.state_token()


def test_a_file_that_is_no_database_a_folder_and_a_missing_file_are_told_apart(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but a long enough text to have a header" * 100)
    for path, kind in (
        ("text.db", ConfigError), ("missing.db", SourceError), ("missing/x.db", SourceError), ("", ConfigError),
    ):  # fmt: skip
        with pytest.raises(kind), contract.source_at(f"duckdb:///{tmp_path / path}"):
            pass
    with pytest.raises(TargetError), contract.target_at(f"duckdb:///{tmp_path / 'missing' / 'x.db'}"):
        pass


@pytest.mark.parametrize("query", ["nonsense=1", "threads=many", "threads=0", "memory_limit=lots"])
def test_an_option_that_is_not_known_or_no_value_is_refused(tmp_path: pathlib.Path, query: str) -> None:
    with pytest.raises(ConfigError), contract.target_at(f"duckdb:///{tmp_path / 'a.db'}?{query}"):
        pass


def test_options_reach_the_database(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    with contract.target_at(f"duckdb:///{path}?memory_limit=100MB&threads=1&storage_version=v1.2.0") as target:
        target.create_table(Table(T, (Column("a", Type("int32"), native="INTEGER"),)), T, "duckdb")
    ((tags,),) = look(path, "SELECT tags FROM duckdb_databases() WHERE database_name = current_database()")
    assert "v1.2.0" in tags["storage_version"]
    with (
        pytest.raises(ConfigError, match="storage version"),
        contract.target_at(f"duckdb:///{path}?storage_version=v1.5.0"),
    ):
        pass


def test_code_from_the_network_is_never_loaded(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT 1 AS id")
    with contract.source_at(url) as source:
        found = source._control.execute(  # type: ignore[attr-defined]
            "SELECT current_setting('autoinstall_known_extensions'), current_setting('autoload_known_extensions'), "
            "current_setting('TimeZone')"
        )
    assert found == [(False, False, "UTC")]


def test_a_read_only_folder_is_a_missing_privilege(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir()
    make(folder / "t.db", "CREATE TABLE t (a INTEGER)")
    folder.chmod(0o555)
    try:
        with contract.target_at(f"duckdb:///{folder / 't.db'}", read_only=True) as target:
            missing = target.missing_privileges([], [])
        if ROOT_CAN_WRITE:  # root may write where the mode says no
            assert missing == []
        else:
            assert "folder" in missing[0]
    finally:
        folder.chmod(0o755)


def test_a_full_disk_is_a_target_error_and_leaves_whole_chunks_only(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        url = f"duckdb:///{place / 't.db'}"
        wide = "SELECT range AS id, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS s FROM range(1000000)"
        source = make(tmp_path / "a.db", f"CREATE TABLE t AS {wide}")
        with pytest.raises(TargetError) as caught:
            rowferry.copy(source, url, workers=1)
        assert caught.value.exit_code == 4
        subprocess.run(["mount", "-o", "remount,size=400m", str(place)], check=True)
        report = rowferry.copy(source, url, workers=1, verify=True)
        assert report.equal is True
        assert look(place / "t.db", "SELECT count(*), count(DISTINCT id) FROM t") == [(1_000_000, 1_000_000)]
    finally:
        subprocess.run(["umount", str(place)], check=True)


# Many writers.


def test_writers_in_parallel_commit_each_chunk_once(tmp_path: pathlib.Path) -> None:
    url = f"duckdb:///{tmp_path / 't.db'}"
    form = Type("int64")
    with contract.target_at(url) as target:
        planned = target.plan_column(Column("id", form, native="bigint", forms=(form,)), form)
        assert isinstance(planned, Column)
        table = Table(T, (planned,), primary_key=("id",))
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(*[0] * 24))
        target.create_table(table, T, "sqlite")
        target.add_keys(table, T)
        ferry = Ferry(target, table, (ColumnPlan("id", form, "id", planned, Comparison(form, form, "")),))
        errors: list[BaseException] = []

        def work() -> None:
            writer = target.writer()
            try:
                while (chunk := writer.claim(JOB)) is not None:
                    ids = pa.array(range(chunk.number * 5_000, (chunk.number + 1) * 5_000), pa.int64())
                    try:
                        ferry.write(writer, chunk, [pa.RecordBatch.from_arrays([ids], names=["id"])])
                        writer.finish(JOB, contract.finished(chunk, 5_000))
                        writer.commit()
                    except RowferryError as error:
                        writer.rollback()
                        if not error.transient:
                            raise
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
            finally:
                writer.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert {c.state for c in target.ledger.chunks(JOB)} == {"done"}
    assert look(tmp_path / "t.db", "SELECT count(*), count(DISTINCT id), max(id) FROM t") == [
        (120_000, 120_000, 119_999)
    ]


def test_an_error_of_the_sender_passes_through_duckdb_as_it_was(tmp_path: pathlib.Path) -> None:
    form = Type("int64")
    with contract.target_at(f"duckdb:///{tmp_path / 't.db'}") as target:
        planned = target.plan_column(Column("id", form, native="bigint"), form)
        assert isinstance(planned, Column)
        table = Table(T, (planned,))
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        target.create_table(table, T, "sqlite")
        sent = SourceError("the source went away", transient=True)

        def blocks() -> Any:
            yield contract.Block(pa.RecordBatch.from_arrays([pa.array([1], pa.int64())], names=["id"]))
            raise sent

        plan = ColumnPlan("id", form, "id", planned, Comparison(form, form, ""))
        with contextlib.closing(target.writer()) as writer:
            chunk = writer.claim(JOB)
            assert chunk is not None
            with pytest.raises(SourceError) as caught:
                writer.write(contract.WriteRequest(table, T, (plan,)), blocks())
            assert caught.value is sent
            writer.rollback()
        assert target.is_empty(T)


def test_the_lock_of_a_job_is_held_once_in_a_process(tmp_path: pathlib.Path) -> None:
    one, other = ProcessLock(str(tmp_path / "a")), ProcessLock(str(tmp_path / "a"))
    assert one.acquire("j")
    assert not other.acquire("j")
    assert other.acquire("k")
    one.release_all()
    assert other.acquire("j")
    other.release_all()


def test_a_key_that_the_rows_do_not_allow_is_named(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT 1 AS id FROM range(2)")
    with contract.target_at(url) as target:
        table = target.describe(T)
        assert table is not None
        keyed = Table(T, table.columns, primary_key=("id",))
        with pytest.raises(DataError, match=r"primary key \(id\)"):
            target.add_keys(keyed, T)


def test_a_key_that_needs_more_memory_than_the_limit_gets_it(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t AS SELECT md5(range::VARCHAR) AS id FROM range(2500000)")
    given = f"{url}?memory_limit=90MB"
    for place in (given, url):
        with contract.target_at(place) as target:
            table = target.describe(T)
            assert table is not None
            keyed = Table(T, table.columns, primary_key=("id",))
            if place == given:
                with pytest.raises(TargetError, match="memory_limit"):
                    target.add_keys(keyed, T)
            else:
                target.add_keys(keyed, T)
    assert look(tmp_path / "a.db", "SELECT has_primary_key FROM duckdb_tables()") == [(True,)]


KILLED = """
import sys, rowferry
print("begin", flush=True)
rowferry.copy(sys.argv[1], sys.argv[2], workers=2)
"""


def test_a_key_goes_into_the_file_at_once_and_not_through_the_log(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    log = tmp_path / "a.db.wal"
    with contextlib.closing(Database(endpoint.parse(f"duckdb:///{path}"), TargetError, read_only=False)) as database:
        session = database.session()
        session.execute("CREATE TABLE t AS SELECT range AS id, hash(range)::VARCHAR AS v FROM range(200000)")
        session.execute("CREATE TABLE u AS FROM t")
        session.execute("CHECKPOINT")
        for table, straight in (("t", True), ("u", False)):
            with database.straight_to_file() if straight else contextlib.nullcontext(), session.atomic():
                session.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (v)")
            size = log.stat().st_size if log.exists() else 0
            assert (size == 0) is straight
        session.execute("INSERT INTO t VALUES (-1, 'x')")
        assert log.stat().st_size > 0, "later commits go through the log again"
    assert look(path, "SELECT count(*) FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'") == [(2,)]


def test_a_key_beside_an_open_transaction_goes_through_the_log(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(Database(endpoint.parse(f"duckdb:///{path}"), TargetError, read_only=False)) as database:
        session, other = database.session(), database.session()
        session.execute("CREATE TABLE t AS SELECT range AS id FROM range(1000)")
        other.begin()
        assert other.execute("SELECT count(*) FROM t") == [(1000,)]
        with database.straight_to_file(), session.atomic():
            session.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
        other.rollback()
    with pytest.raises(duckdb.ConstraintException), contextlib.closing(duckdb.connect(str(path))) as c:
        c.execute("INSERT INTO t VALUES (7)")


def test_kill_9_at_any_time_leaves_whole_chunks_and_the_next_run_the_rest(tmp_path: pathlib.Path) -> None:
    source = make(
        tmp_path / "a.db",
        "CREATE TABLE t AS SELECT range::BIGINT AS id, md5(range::VARCHAR) AS s FROM range(1500000)",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
    )
    path = tmp_path / "b.db"
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    for wait in (0.3, 0.9, 1.5):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, source, f"duckdb:///{path}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        if path.exists():
            with contract.target_at(f"duckdb:///{path}") as target:
                done = _done(target.ledger)
                described = target.describe(T)
                assert sum(c.rows_committed for c in done) == (described.rows if described else 0)
    with contextlib.suppress(RefusedError):  # all three kills may have come too late
        rowferry.copy(source, f"duckdb:///{path}", workers=2)
    sql = "SELECT count(*), count(DISTINCT id), sum(id), sum(hash(s)) FROM t"
    assert look(path, sql) == look(tmp_path / "a.db", sql)
    assert look(path, "SELECT has_primary_key FROM duckdb_tables() WHERE table_name = 't'") == [(True,)]


def _done(ledger: Any) -> list[ChunkRow]:
    if not ledger.open(create=False):
        return []
    return [c for job in ledger.jobs() for c in ledger.chunks(job.id) if c.state == "done"]
