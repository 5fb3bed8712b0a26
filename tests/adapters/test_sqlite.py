"""What is SQLite's own: loose values, locks, logs, rowids, affinities, and the types it only remembers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

import rowferry
from adapters import contract
from adapters.contract import JOB, Ferry
from end_to_end import ferry
from rowferry import endpoint
from rowferry.adapters.protocol import SourceOptions, TargetOptions
from rowferry.adapters.sqlite import open_source, open_target
from rowferry.adapters.sqlite.types import affinity, candidates
from rowferry.engine.progress import JobStarted
from rowferry.errors import ConfigError, DataError, RefusedError, RowferryError, SourceError, TargetError
from rowferry.model import Column, ColumnPlan, Comparison, Refusal, Table, TableName
from rowferry.types import Field, Type

T = TableName(None, "t")


@pytest.fixture(params=["native", "plain"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds with the kernels and with the standard module alone."""
    if request.param == "plain":
        monkeypatch.setenv("ROWFERRY_SQLITE_PLAIN", "1")
    return str(request.param)


def url_of(path: pathlib.Path) -> str:
    return f"sqlite:///{path}"


def make(path: pathlib.Path, *statements: str) -> str:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as c:
        for statement in statements:
            c.execute(statement)
    return url_of(path)


def rows(path: pathlib.Path, sql: str = "SELECT * FROM t") -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as c:
        return c.execute(sql).fetchall()


def column_of(url: str, name: str = "a", table: str = "t") -> Column:
    with contract.source_at(url) as source:
        return contract.described(source, table).column(name)


def read(url: str, name: str = "a", **policies: str) -> list[Any]:
    with contract.source_at(url, policies={f"t.{k}": v for k, v in policies.items()}) as source:
        table = contract.described(source, "t")
        column = table.column(name)
        form = column.forms[-1] if policies.get(name) == "text" else column.type
        bounds = source.split(table, None, 1 << 24, 0)
        with contextlib.closing(source.reader()) as reader:
            wanted = [contract.request(table, b, columns=((name, form),)) for b in bounds]
            return [v for w in wanted for b in contract.batches(reader, w) for v in plain_values(b.column(0))]


def plain_values(array: pa.Array) -> list[Any]:
    return (array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist()


# --- declared types and the census ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "values", "expected"),
    [
        ("INTEGER", "1, NULL", "int64"),
        ("BIGINT UNSIGNED", "1", "int64"),
        ("BOOLEAN", "0, 1, NULL", "bool"),
        ("BOOLEAN", "0, 2", "int64"),
        ("DECIMAL(10,2)", "1.25, 3, '4.5'", "decimal(10,2)"),
        ("NUMERIC(5)", "12345", "decimal(5,0)"),
        ("NUMERIC", "1, 2", "int64"),
        ("NUMERIC", "1, 2.5", "float64"),
        ("NUMERIC", "NULL", "int64"),
        ("DOUBLE PRECISION", "1, 2.5", "float64"),
        ("VARCHAR(3)", "'longer than three'", "text"),
        ("CLOB", "'x'", "text"),
        ("DATE", "'2023-02-28'", "date"),
        ("DATE", "'2023-02-28 10:00:00'", "timestamp"),
        ("DATE", "1700000000", "int64"),
        ("DATETIME", "'2023-02-28 10:00:00', '2023-02-28T10:00:00.5'", "timestamp"),
        ("DATETIME", "'2023-02-28 10:00:00.123456789'", "timestamp[ns]"),
        ("DATETIME", "'2023-02-28 10:00:00+01:00', '2023-02-28 10:00:00Z'", "timestamptz"),
        ("TIMESTAMPTZ", "'2023-02-28 10:00:00+01'", "timestamptz"),
        ("TIME", "'10:00', '23:59:59.5'", "time"),
        ("BLOB", "x'00', NULL", "binary"),
        ("UUID", "'9040cb98-ea97-434e-9746-7dc4a11ed1bb'", "uuid"),
        ("JSON", "'{}', 1", "json"),
        ("", "1, 2", "int64"),
        ("", "'a', 'b'", "text"),
        ("", "1.5, 2", "float64"),
        ("", "x'00'", "binary"),
        ("", "NULL, NULL", "text"),
    ],
)
def test_census_finds_the_type_that_all_values_fit(
    declared: str, values: str, expected: str, tmp_path: pathlib.Path
) -> None:
    listed = ", ".join(f"({v})" for v in values.split(", "))
    url = make(tmp_path / "a.db", f"CREATE TABLE t (a {declared})", f"INSERT INTO t VALUES {listed}")
    column = column_of(url)
    assert str(column.type) == expected
    assert column.refusal is None
    assert len(read(url)) == listed.count("(")


@pytest.mark.parametrize(
    ("declared", "values", "count", "as_text", "as_null"),
    [
        ("INTEGER", "(1), ('abc'), (2.5), (NULL), (x'ff')", 3, ["1", "abc", "2.5", None, "\\xff"],
         [1, None, None, None, None]),
        ("TEXT", "('a'), (x'00ff')", 1, ["a", "\\x00ff"], ["a", None]),
        ("TEXT", "('a'), (cast(x'ff41' AS TEXT))", 1, ["a", "\\xff41"], ["a", None]),
        ("REAL", "(1.5), ('x')", 1, ["1.5", "x"], [1.5, None]),
        ("DECIMAL(10,2)", "(1.25), (1.255)", 1, ["1.25", "1.255"], None),
        ("DATETIME", "('2023-01-01 00:00:00'), (17)", 1, ["2023-01-01 00:00:00", "17"], None),
        ("UUID", "('9040CB98-EA97-434E-9746-7DC4A11ED1BB')", 1, ["9040CB98-EA97-434E-9746-7DC4A11ED1BB"], [None]),
        ("", "(1), ('a')", 1, ["1", "a"], [None, "a"]),
        ("JSON", "('{}'), ('{\"a\":')", 1, ["{}", '{"a":'], None),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_with_count_and_policies(
    declared: str, values: str, count: int, as_text: list[Any], as_null: Any, tmp_path: pathlib.Path
) -> None:
    url = make(tmp_path / "a.db", f"CREATE TABLE t (a {declared})", f"INSERT INTO t VALUES {values}")
    refusal = column_of(url).refusal
    assert refusal is not None
    assert refusal.count == count
    # Whether a text is JSON is looked at by the census alone: the reader could not put NULL in its place.
    assert refusal.policies == (("text",) if declared == "JSON" else ("text", "null", "quarantine"))
    assert refusal.column == "a"
    assert read(url, a="text") == as_text
    if as_null is not None:
        assert read(url, a="null") == as_null
    if declared == "JSON":
        return
    with pytest.raises(DataError) as caught:
        read(url)
    assert caught.value.column == "a"
    assert "rowid" in str(caught.value)


def test_value_that_turns_up_after_the_census_stops_the_reader_by_rowid(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    url = make(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)", "INSERT INTO t VALUES (7, 1)")
    with contract.source_at(url) as source:
        table = contract.described(source, "t")
        make(path, "INSERT INTO t VALUES (8, 'x')")
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader:
            [bound] = source.split(table, None, 1 << 20, 0)
            with pytest.raises(DataError, match=r"rowid 8"):
                contract.batches(reader, contract.request(table, bound))


def test_values_that_the_null_policy_took_are_counted(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1), ('x'), ('y')")
    (table,) = rowferry.copy(url, url_of(tmp_path / "b.db"), policies={"t.a": "null"}).tables
    assert table.touched == {"a": 2}
    assert rows(tmp_path / "b.db") == [(1,), (None,), (None,)]


@pytest.mark.parametrize("name", ["INTERVAL", "FLOATING POINT", "CHARINT", "STRING", "decimal(5,2)", "BLOBBY", ""])
def test_affinity_is_sqlites_own(name: str) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as c:
        c.execute(f"CREATE TABLE t (a {name})")
        c.execute("INSERT INTO t VALUES ('1'), (1), (2.0), (1.5)")
        seen = [r[0] for r in c.execute("SELECT typeof(a) FROM t")]
    expected = {
        "INTEGER": ["integer", "integer", "integer", "real"],
        "NUMERIC": ["integer", "integer", "integer", "real"],
        "TEXT": ["text", "text", "text", "text"],
        "REAL": ["real", "real", "real", "real"],
        "BLOB": ["text", "integer", "real", "real"],
    }[affinity(name)]
    assert seen == expected
    assert candidates(name)


# --- shapes of tables -----------------------------------------------------------------------------


def test_generated_columns_are_read_and_never_written(tmp_path: pathlib.Path) -> None:
    ddl = "CREATE TABLE t (a INTEGER, b INTEGER AS (a * 2) VIRTUAL, c TEXT AS ('x' || a) STORED)"
    url = make(tmp_path / "a.db", ddl, "INSERT INTO t (a) VALUES (1), (2)")
    with contract.source_at(url) as source:
        assert [c.generated for c in contract.described(source, "t").columns] == [False, True, True]
    rowferry.copy(url, url_of(tmp_path / "plain.db"), verify=True)
    assert rows(tmp_path / "plain.db") == [(1, 2, "x1"), (2, 4, "x2")]
    make(tmp_path / "b.db", ddl)
    rowferry.copy(url, url_of(tmp_path / "b.db"))
    assert rows(tmp_path / "b.db") == [(1, 2, "x1"), (2, 4, "x2")]


def test_views_and_virtual_tables_come_by_name_only_and_shadow_tables_never(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE TABLE t (a INTEGER)",
        "INSERT INTO t VALUES (1)",
        "CREATE VIEW v AS SELECT a + 1 AS b FROM t",
        "CREATE VIRTUAL TABLE words USING fts5(word)",
        "INSERT INTO words VALUES ('hello')",
    )
    with contract.source_at(url) as source:
        assert source.list_tables() == [T]
        assert source.list_views() == [TableName(None, "v"), TableName(None, "words")]
    report = rowferry.copy(url, url_of(tmp_path / "b.db"), tables=["v", "words"], verify=True)
    assert report.equal
    assert rows(tmp_path / "b.db", "SELECT * FROM v") == [(2,)]
    assert rows(tmp_path / "b.db", "SELECT * FROM words") == [("hello",)]


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
SHAPES = {
    "ipk": "CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT)",
    "ipk desc": "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, b TEXT)",
    "bigint": "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, b TEXT)",
    "no key": "CREATE TABLE t (id INTEGER, b TEXT)",
    "rowid taken": "CREATE TABLE t (rowid TEXT, b TEXT)",
    "all rowids taken": "CREATE TABLE t (rowid INTEGER, oid TEXT, _rowid_ TEXT)",
    "without rowid": "CREATE TABLE t (id INTEGER, b TEXT, PRIMARY KEY (b, id)) WITHOUT ROWID",
    "mixed key": "CREATE TABLE t (id ANY, b TEXT, PRIMARY KEY (id)) WITHOUT ROWID",
    "strict": "CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT) STRICT",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_split_and_read_whole(shape: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    columns = {"rowid taken": "rowid, b", "all rowids taken": "rowid, oid"}.get(shape, "id, b")
    value = "CASE i % 4 WHEN 0 THEN i WHEN 1 THEN i + 0.5 WHEN 2 THEN 'k' || i ELSE cast(i AS BLOB) END"
    first = value if shape == "mixed key" else "i * 7"
    url = make(path, SHAPES[shape], f"INSERT INTO t ({columns}) {NUMBERS} SELECT {first}, 'text ' || i FROM n")
    policies = {"t.id": "text"} if shape == "mixed key" else {}
    with contract.source_at(url, policies=policies) as source:
        table = contract.described(source, "t")
        forms = tuple((c.name, c.forms[-1]) for c in table.columns)
        bounds = source.split(table, None, 20_000, 0)
        source.open_snapshot(1)
        with contextlib.closing(source.reader()) as reader:
            found = [
                b for bound in bounds for b in contract.batches(reader, contract.request(table, bound, columns=forms))
            ]
    assert sum(b.num_rows for b in found) == 5000
    assert len({tuple(r.values()) for b in found for r in b.to_pylist()}) == 5000
    if shape != "all rowids taken":
        assert len(bounds) > 3
    assert any(b.physical for b in bounds) == (shape in ("ipk desc", "no key", "rowid taken"))


def test_null_in_a_primary_key_is_no_key(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a TEXT PRIMARY KEY)", "INSERT INTO t VALUES (NULL), (NULL), ('x')")
    with contract.source_at(url) as source:
        assert contract.described(source, "t").primary_key == ()
    report = rowferry.copy(url, url_of(tmp_path / "b.db"), verify=True)
    assert report.equal


def test_where_with_a_comment_stays_within_its_chunk(tmp_path: pathlib.Path, library: str) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1), (2), (3)")
    rowferry.copy(url, url_of(tmp_path / "b.db"), where="a > 1 -- and more", verify=True)
    assert rows(tmp_path / "b.db") == [(2,), (3,)]
    # The standard module takes a name in double quotes that is no column for a text, and says nothing.
    for bad in ("nope = 1", "1); DROP TABLE t; --", *(['"nope" = 1'] if library == "native" else [])):
        with pytest.raises(RowferryError):
            rowferry.copy(url, url_of(tmp_path / "c.db"), where=bad)
    assert len(rows(tmp_path / "a.db")) == 3


# --- files, locks, snapshots ----------------------------------------------------------------------


def test_missing_file_is_a_source_error_and_is_not_made(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SourceError, match="no file"), contract.source_at(url_of(tmp_path / "a.db")):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"not a database at all" * 100, os.urandom(8192), b"SQLite format 3\0" + bytes(4096)])
def test_file_that_is_no_database_is_an_error_of_its_side(data: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(data)
    with pytest.raises(SourceError), contract.source_at(url_of(path)) as source:
        source.list_tables()
    with pytest.raises(TargetError), contract.target_at(url_of(path)) as target:
        target.ledger.open(create=True)
    assert path.read_bytes() == data


def test_folder_and_unknown_option_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SourceError, match="folder"):
        open_source(endpoint.parse(url_of(tmp_path)), SourceOptions())
    for option in ("mode=memory", "timeout=x"):
        with pytest.raises(ConfigError):
            open_target(endpoint.parse(f"sqlite:///{tmp_path}/a.db?{option}"), TargetOptions())


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_read_only_file_in_a_read_only_folder_is_read(journal: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "ro"
    folder.mkdir()
    url = make(
        folder / "a.db", f"PRAGMA journal_mode = {journal}", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (5)"
    )
    os.chmod(folder / "a.db", 0o444)
    os.chmod(folder, 0o555)
    try:
        with as_nobody(tmp_path):
            assert not os.access(folder / "a.db", os.W_OK, effective_ids=True)
            with contract.source_at(url) as source:
                table = contract.described(source, "t")
                assert source.open_snapshot(2) == "one"
                assert "did not change" in (source.snapshot_note() or "")
                [bound] = source.split(table, None, 1 << 20, 0)
                with contextlib.closing(source.reader()) as reader:
                    assert contract.values(contract.batches(reader, contract.request(table, bound))) == [(5,)]
    finally:
        os.chmod(folder, 0o755)
    assert sorted(p.name for p in folder.iterdir()) == ["a.db"]


@contextlib.contextmanager
def as_nobody(place: pathlib.Path) -> Iterator[None]:
    """Without root's right to write everything."""
    if os.geteuid() != 0:
        yield
        return
    for folder in [place, *place.parents]:
        os.chmod(folder, folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_readers_share_one_state_while_another_process_writes(journal: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    url = make(path, f"PRAGMA journal_mode = {journal}", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (0)")
    stop = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as c:
            while not stop.is_set():
                with contextlib.suppress(sqlite3.OperationalError):
                    c.execute("INSERT INTO t SELECT max(a) + 1 FROM t")
                time.sleep(0.002)

    thread = threading.Thread(target=write)

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 30
        while rows(path, "SELECT count(*) FROM t")[0][0] < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    thread.start()
    try:
        wait_for(5)
        with contract.source_at(url) as source:
            table = contract.described(source, "t")
            assert source.open_snapshot(3) == "one"
            if journal == "wal":  # without a log our readers keep the other from committing
                wait_for(rows(path, "SELECT count(*) FROM t")[0][0] + 5)
            [bound] = source.split(table, None, 1 << 30, 0)
            counts = set()
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    reader = stack.enter_context(contextlib.closing(source.reader()))
                    counts.add(sum(b.num_rows for b in contract.batches(reader, contract.request(table, bound))))
            # A reader that comes back (after an error, say) still sees the same.
            with contextlib.closing(source.reader()) as reader:
                counts.add(sum(b.num_rows for b in contract.batches(reader, contract.request(table, bound))))
            assert len(counts) == 1
    finally:
        stop.set()
        thread.join()


def test_state_token_changes_with_the_data_and_not_with_reading(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    for journal in ("delete", "wal"):
        url = make(path, f"PRAGMA journal_mode = {journal}", "CREATE TABLE IF NOT EXISTS t (a INTEGER)")
        with contract.source_at(url) as source:
            before = source.state_token()
            source.describe(T)
            assert source.state_token() == before
        with contract.source_at(url) as source:
            assert source.state_token() == before
            make(path, "INSERT INTO t VALUES (1)")
            assert source.state_token() != before


@contextlib.contextmanager
def locked(path: pathlib.Path, mode: str = "EXCLUSIVE") -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as c:
        c.execute(f"BEGIN {mode}")
        yield
        c.execute("ROLLBACK")


def test_locked_database_is_a_passing_error_of_its_side(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    url = make(path, "CREATE TABLE t (a INTEGER)") + "?timeout=0.05"
    with locked(path), pytest.raises(SourceError, match="locked") as caught, contract.source_at(url):
        raise AssertionError
    assert caught.value.transient
    with contract.target_at(url) as target, locked(path, "IMMEDIATE"):
        with pytest.raises(TargetError, match="locked") as caught_target:
            target.ledger.open(create=True)
        assert caught_target.value.transient


def test_job_lock_is_one_for_the_file_and_dies_with_its_process(tmp_path: pathlib.Path) -> None:
    url = url_of(tmp_path / "a.db")
    with contract.target_at(url) as one, contract.target_at(url) as two:
        assert one.ledger.lock("job")
        assert one.ledger.lock("job")
        assert not two.ledger.lock("job")
        assert not two.ledger.lock("another")
        one.ledger.unlock("job")
        assert two.ledger.lock("job")
    assert not list(tmp_path.glob("*lock"))


# --- as a target ----------------------------------------------------------------------------------


def into(path: pathlib.Path, ddl: str, source: str, **how: Any) -> Any:
    make(path, ddl)
    return rowferry.copy(source, url_of(path), **how)


@pytest.mark.parametrize(
    ("declared", "source", "value"),
    [
        ("TEXT", "TEXT", "'12'"),
        ("NUMERIC(20,2)", "NUMERIC(20,2)", "1.25"),
        ("BLOB", "BLOB", "x'00'"),
        ("INTEGER", "INTEGER", "9223372036854775807"),
        ("REAL", "REAL", "1e300"),
        ("DATE", "DATE", "'2023-01-01'"),
        ("ANY", "TEXT", "'x'"),
    ],
)
def test_value_that_fits_an_existing_column_comes_back(
    declared: str, source: str, value: str, tmp_path: pathlib.Path
) -> None:
    url = make(tmp_path / "a.db", f"CREATE TABLE t (a {source})", f"INSERT INTO t VALUES ({value})")
    if declared == "ANY":
        with pytest.raises(RowferryError):
            into(tmp_path / "b.db", f"CREATE TABLE t (a {declared})", url)
        return
    assert into(tmp_path / "b.db", f"CREATE TABLE t (a {declared})", url, verify=True).equal
    assert rows(tmp_path / "b.db") == rows(tmp_path / "a.db")


@pytest.mark.parametrize(
    ("declared", "source", "value"),
    [
        ("INTEGER", "TEXT", "'012'"),
        ("NUMERIC", "TEXT", "'1e3'"),
        ("JSON", "JSON_TEXT", "'1.50'"),
        ("NUMERIC(20,2)", "DECIMAL_TEXT(20,2)", "'123456789012345678.25'"),
        ("REAL", "INTEGER", "9007199254740993"),
        ("DATE", "TEXT", "'20230101'"),
    ],
)
def test_value_that_an_existing_column_would_change_is_refused(
    declared: str, source: str, value: str, tmp_path: pathlib.Path
) -> None:
    url = make(tmp_path / "a.db", f"CREATE TABLE t (a {source})", f"INSERT INTO t VALUES ({value})")
    with pytest.raises((DataError, ConfigError)):
        into(tmp_path / "b.db", f"CREATE TABLE t (a {declared})", url)
    assert rows(tmp_path / "b.db") == []


def test_strict_table_takes_its_types(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE TABLE t (a INTEGER, b TEXT, c REAL, d BLOB)",
        "INSERT INTO t VALUES (1, 'x', 2.5, x'00')",
    )
    assert into(tmp_path / "b.db", "CREATE TABLE t (a INT, b TEXT, c REAL, d BLOB) STRICT", url, verify=True).equal


def test_constraints_own_conflict_clauses_do_not_lose_rows(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1), (1), (2)")
    for clause in ("IGNORE", "REPLACE"):
        with pytest.raises(DataError, match="UNIQUE"):
            into(tmp_path / f"{clause}.db", f"CREATE TABLE t (a INTEGER UNIQUE ON CONFLICT {clause})", url)
        assert rows(tmp_path / f"{clause}.db") == []


TRIGGER = "CREATE TRIGGER loud BEFORE INSERT ON t BEGIN SELECT RAISE(IGNORE) WHERE new.a = 2; END"


def test_triggers_are_a_blocker_and_can_be_disabled(tmp_path: pathlib.Path, library: str) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1), (2)")
    target = make(tmp_path / "b.db", "CREATE TABLE t (a INTEGER)", TRIGGER)
    with pytest.raises(ConfigError, match="loud"):
        rowferry.copy(url, target)
    with pytest.raises(RowferryError, match="accepted"):
        rowferry.copy(url, target, target_triggers="fire", job="fire")
    assert rows(tmp_path / "b.db") == []
    if library == "plain":
        with pytest.raises(ConfigError, match="triggers"):
            rowferry.copy(url, target, target_triggers="disable", job="off")
        return
    assert rowferry.copy(url, target, target_triggers="disable", verify=True, job="off").equal
    assert rows(tmp_path / "b.db", "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'") == [(1,)]


def test_replace_keeps_indexes_and_triggers(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (a INTEGER, b TEXT)", "INSERT INTO t VALUES (1, 'x')")
    target = make(
        tmp_path / "b.db", "CREATE TABLE t (a INTEGER, b TEXT)", "INSERT INTO t VALUES (9, 'old')",
        "CREATE INDEX by_b ON t (b)", "CREATE VIEW v AS SELECT a FROM t",
    )  # fmt: skip
    assert rowferry.copy(url, target, mode="replace", verify=True).equal
    assert rows(tmp_path / "b.db") == [(1, "x")]
    assert rows(tmp_path / "b.db", "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 't'") == [
        ("by_b",)
    ]
    assert rows(tmp_path / "b.db", "SELECT * FROM v") == [(1,)]


def test_upsert_merges_by_key_and_refuses_keys_sent_twice(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db", "CREATE TABLE t (k TEXT NOT NULL, v INTEGER)", "INSERT INTO t VALUES ('a', 1), ('b', 2)"
    )
    target = make(
        tmp_path / "b.db", "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v INTEGER)",
        "INSERT INTO t VALUES ('b', 0), ('c', 3)",
    )  # fmt: skip
    report = rowferry.copy(url, target, mode="upsert", verify=True)
    assert report.tables[0].rows_committed == 2
    assert rows(tmp_path / "b.db", "SELECT * FROM t ORDER BY k") == [("a", 1), ("b", 2), ("c", 3)]
    make(tmp_path / "a.db", "INSERT INTO t VALUES ('a', 7)")
    with pytest.raises(DataError, match="more than once"):
        rowferry.copy(url, target, mode="upsert", job="again")
    assert rows(tmp_path / "b.db", "SELECT * FROM t ORDER BY k") == [("a", 1), ("b", 2), ("c", 3)]


def test_upsert_writes_over_no_row_that_a_collation_takes_for_another(tmp_path: pathlib.Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (k TEXT NOT NULL UNIQUE, v INTEGER)", "INSERT INTO t VALUES ('a', 1)")
    target = make(
        tmp_path / "b.db", "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v INTEGER)",
        "INSERT INTO t VALUES ('A', 0)",
    )  # fmt: skip
    with pytest.raises(RefusedError, match=r"\('a' and 'A'\)"):
        rowferry.copy(url, target, mode="upsert")
    assert rows(tmp_path / "b.db", "SELECT * FROM t") == [("A", 0)]
    make(tmp_path / "b.db", "UPDATE t SET k = 'a'")

    def spell_otherwise(event: object) -> None:
        if isinstance(event, JobStarted):  # the question was answered
            make(tmp_path / "b.db", "UPDATE t SET k = 'A'")

    with pytest.raises(DataError, match="key 'a' would take the place of the row 'A'"):
        rowferry.copy(url, target, mode="upsert", on_event=spell_otherwise)
    assert rows(tmp_path / "b.db", "SELECT * FROM t") == [("A", 0)]


@pytest.mark.parametrize("name", ["read-only", "no folder"])
def test_target_that_cannot_be_written_is_a_target_error(name: str, tmp_path: pathlib.Path) -> None:
    if name == "no folder":
        with pytest.raises(TargetError), contract.target_at(url_of(tmp_path / "none" / "a.db")):
            raise AssertionError
        return
    url = make(tmp_path / "a.db", "CREATE TABLE t (a)")
    with contract.target_at(url, read_only=True) as target, pytest.raises(TargetError, match=r"read-only|readonly"):
        target.ledger.open(create=True)


def test_full_disk_is_a_terminal_target_error_and_leaves_no_half_chunk(tmp_path: pathlib.Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        url = make(
            tmp_path / "a.db", "CREATE TABLE t (a BLOB)", f"INSERT INTO t {NUMBERS} SELECT randomblob(1000) FROM n"
        )
        with pytest.raises(TargetError, match="full") as caught:
            rowferry.copy(url, url_of(mount / "b.db"))
        assert not caught.value.transient
        assert rows(mount / "b.db", "SELECT count(*) FROM t") == [(0,)]
    finally:
        subprocess.run(["umount", mount], check=True)


def test_repair_deletes_and_inserts_by_key(tmp_path: pathlib.Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE TABLE t (k DECIMAL(5,1) PRIMARY KEY NOT NULL, v TEXT)",
        "INSERT INTO t VALUES (1.5, 'x'), (2, 'y')",
    )
    target = make(
        tmp_path / "b.db",
        "CREATE TABLE t (k DECIMAL(5,1) PRIMARY KEY NOT NULL, v TEXT)",
        "INSERT INTO t VALUES (1.5, 'wrong'), (9, 'z')",
    )
    report = rowferry.verify(url, target, repair=True, delete_extra=True)
    assert report.equal
    assert rows(tmp_path / "b.db", "SELECT * FROM t ORDER BY k") == [(1.5, "x"), (2, "y")]


# --- types that SQLite only remembers -------------------------------------------------------------

REMEMBERED: list[tuple[Type, Sequence[Any]]] = [
    (Type("int8"), [-128, None, 127]),
    (Type("uint64"), [0, 2**63 - 1]),
    (Type("float32"), [0.5, None]),
    (Type("decimal", precision=38, scale=10), ["1234567890123456789012345678.0123456789", None]),
    (Type("decimal", precision=60, scale=2), ["1" * 58 + ".25"]),
    (Type("numeric"), ["-12.50", "NaN", "Infinity", None]),
    (Type("text", length=5), ["abcde", ""]),
    (Type("char", length=5), ["ab"]),
    (Type("binary", length=3, fixed=True), [b"abc"]),
    (Type("date"), [-719893, 2**31 - 1, -(2**31), 2932897]),
    (Type("timestamp", unit="ns"), [1, -1, 2**63 - 1]),
    (Type("timestamptz", unit="us"), [1, -(2**63), -62135596800000001]),
    (Type("time", unit="us"), [86_400_000_000, 1]),
    (Type("timetz"), ["10:00:00.5+05:30"]),
    (Type("duration", unit="us"), [-1, 2**63 - 1]),
    (Type("interval"), [pa.MonthDayNano([14, -3, -5]), pa.MonthDayNano([0, 0, 0]), None]),
    (Type("uuid"), [bytes(range(16))]),
    (Type("json"), ['{"b": 1, "a":1.50}', "12", "null"]),
    (Type("jsonb"), ["[1, 2]"]),
    (Type("enum", labels=("1", "it's")), ["1", "it's"]),
    (Type("bit", length=5), ["00101"]),
    (Type("varbit"), ["", "1"]),
    (Type("opaque", native="postgresql:inet"), ["10.0.0.1/8"]),
    (Type("list", element=Type("int32")), [[1, None, 3], [], None]),
    (Type("list", element=Type("float64")), [[1.5, float("inf"), 1e300]]),
    (Type("list", element=Type("list", element=Type("text"))), [[["a,b", None], [], None]]),
    (Type("list", element=Type("decimal", precision=20, scale=2)), [["1.50", None]]),
    (Type("list", element=Type("timestamp", unit="us")), [[0, 2**63 - 1, None]]),
    (Type("struct", fields=(Field("a", Type("int64")), Field("b c", Type("binary")))), [{"a": 1, "b c": b"\0"}, None]),
    (Type("map", fields=(Field("key", Type("text")), Field("value", Type("uuid")))),
     [[("k", bytes(16)), ("l", None)], []]),
]  # fmt: skip


def array_of(values: Sequence[Any], t: Type) -> pa.Array:
    if t.kind == "decimal":
        return pa.array(values).cast(t.arrow)
    if t.kind == "list" and t.element is not None and t.element.kind in ("decimal", "timestamp"):
        return pa.array(values).cast(pa.list_(pa.field("item", t.element.arrow)))
    if t.kind in ("date", "timestamp", "timestamptz", "time", "duration"):
        return pa.array(values, pa.int32() if t.kind == "date" else pa.int64()).view(t.arrow)
    return pa.array(values, t.arrow)


@pytest.mark.parametrize(("t", "values"), REMEMBERED, ids=[str(t)[:40] for t, _ in REMEMBERED])
def test_type_that_sqlite_does_not_have_comes_back_as_it_was(
    t: Type, values: Sequence[Any], tmp_path: pathlib.Path
) -> None:
    url = url_of(tmp_path / "a.db")
    array = array_of(values, t)
    given = Column("a", t, True, "whatever", (t,))
    with contract.target_at(url) as target:
        planned = target.plan_column(given, t)
        assert isinstance(planned, Column), planned
        table = Table(T, (planned,))
        target.create_table(table, T, "postgres")
        target.ledger.open(create=True)
        target.ledger.create_job(contract.job_row(), [], contract.chunk_rows(0))
        plan = ColumnPlan("a", t, "a", planned, Comparison(t, planned.type, ""), None, target.checks(planned))
        Ferry(target, table, (plan,)).carry([pa.RecordBatch.from_arrays([array], names=["a"])], job=JOB)
        again = target.describe(T)
        assert again is not None
        assert again.columns[0].type == t
    with contract.source_at(url) as source:
        described = contract.described(source, "t")
        assert described.columns[0].type == t
        assert described.columns[0].refusal is None
        [bound] = source.split(described, None, 1 << 20, 0)
        with contextlib.closing(source.reader()) as reader:
            [block] = list(reader.read(contract.request(described, bound)))
    assert block.batch.column(0).equals(array)


def test_recorded_type_counts_only_while_the_column_is_declared_so(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.db"
    with contract.target_at(url_of(path)) as target:
        planned = target.plan_column(Column("a", Type("interval")), Type("interval"))
        assert isinstance(planned, Column)
        target.create_table(Table(T, (planned,)), T, "postgres")
    assert column_of(url_of(path)).type.kind == "interval"
    make(path, "DROP TABLE t", "CREATE TABLE t (a VARCHAR)")
    assert column_of(url_of(path)).type.kind == "text"


def test_forms_without_a_place_are_refused(tmp_path: pathlib.Path) -> None:
    twice = Type("struct", fields=(Field("a", Type("int64")), Field("a", Type("int64"))))
    with contract.target_at(url_of(tmp_path / "a.db")) as target:
        for form in (Type("wire", native="postgresql:box"), twice, Type("list", element=twice)):
            assert isinstance(target.plan_column(Column("a", form), form), Refusal)
        floats = target.plan_column(Column("a", Type("float64")), Type("float64"))
        assert isinstance(floats, Column)
        assert target.checks(floats) == ("no_nan", "no_negative_zero")


def test_second_worker_reads_ahead_while_the_first_writes(tmp_path: pathlib.Path) -> None:
    """Two writers of one process take turns; neither waits for the other with its hands in its lap."""
    url = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT)",
               f"INSERT INTO t {NUMBERS} SELECT i, printf('%0500d', i) FROM n")  # fmt: skip
    report = rowferry.copy(url, url_of(tmp_path / "b.db"), workers=4, chunk_bytes=100_000, verify=True)
    assert report.equal
    assert report.tables[0].chunks > 10
    assert rows(tmp_path / "b.db", "SELECT count(*), sum(id) FROM t") == [(5000, 5000 * 5001 // 2)]


def test_kill_9_at_any_instant_then_the_same_command_ends_exact(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "60000")
    url = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER, b TEXT)",
               f"INSERT INTO t {NUMBERS} SELECT i, printf('%0200d', i) FROM n")  # fmt: skip
    target = tmp_path / "b.db"
    for after_s in (0.35, 0.5, 0.6, 0.7) if library == "native" else (0.6,):
        for left in tmp_path.glob("b.db*"):
            left.unlink()
        ended = ferry.run_and_kill("copy", url, url_of(target), after_s=after_s)
        assert ended in (0, None)
        again = ferry.run("copy", url, url_of(target), "--verify")
        # Killed after its last step the job is finished: the same command is a new one, that a full target refuses.
        assert again.code == 0 or (again.code == 2 and "not empty" in again.output), again.output
        assert rows(target, "SELECT count(*), count(DISTINCT id), sum(id) FROM t") == [(5000, 5000, 5000 * 5001 // 2)]
        assert again.code == 2 or not list(tmp_path.glob("*lock"))
