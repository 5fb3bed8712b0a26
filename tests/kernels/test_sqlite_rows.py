"""The SQLite kernels against golden cells, against their plain-Python twin, and against hostile input."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import importlib.util
import pathlib
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowferry._native import sqlite_rows, sqlite_write
from rowferry._native.sqlite_rows import SqliteFailure, UnfitValue
from rowferry.adapters.sqlite import nested, plain
from rowferry.adapters.sqlite.types import read_spec, write_spec
from rowferry.adapters.sqlite.wire import library
from rowferry.types import Type

D = decimal.Decimal
LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="this Python's SQLite shows no symbols")
FLAGS = 0x2 | 0x4 | 0x40

KINDS: dict[str, Type] = {
    str(t) + (f"/{t.unit}" if t.unit else ""): t
    for t in (
        *(Type(kind) for kind in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
        Type("float32"), Type("float64"), Type("decimal", precision=10, scale=2),
        Type("decimal", precision=18, scale=0),
        Type("decimal", precision=38, scale=10), Type("decimal", precision=76, scale=76), Type("text"),
        Type("text", length=3), Type("char", length=4), Type("binary"), Type("binary", length=2),
        Type("binary", length=3, fixed=True), Type("date"), Type("timestamp", unit="us"), Type("timestamp", unit="ns"),
        Type("timestamp", unit="s"), Type("timestamptz", unit="us"), Type("time", unit="us"), Type("time", unit="ns"),
        Type("duration", unit="us"), Type("duration", unit="ns"), Type("interval"), Type("uuid"), Type("json"),
        Type("numeric"), Type("varbit"),
    )
}  # fmt: skip


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Any]:
    assert LIBRARY is not None
    with contextlib.closing(sqlite_rows.Database(LIBRARY, f"file:{path}", FLAGS, 1000)) as database:
        yield database


def stored(value: Any) -> str:
    """SQL whose value has exactly this storage class: ``plain.Text`` is a TEXT of any bytes."""
    if isinstance(value, plain.Text):
        return f"CAST(x'{value.hex()}' AS TEXT)"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return {"inf": "9e999", "-inf": "-9e999"}.get(str(value), repr(value))
    return str(value)


def select_of(values: Sequence[Any]) -> str:
    return " UNION ALL ".join(f"SELECT {stored(v)}" for v in values)


def outcome(reader: Any, t: Type, loose: bool = False) -> Any:
    """Values of all batches, or what did not fit and where."""
    found: list[Any] = []
    try:
        while (batch := reader.next_batch(7, 1 << 20)) is not None:
            array = nested.array_of(Type("text") if loose else t, *[batch[0]], batch[1][0])
            # Arrow's full check knows no 24:00:00, which is a time of ours.
            array.validate(full=t.kind != "time")
            found += [None if not v.is_valid else bytes_of(v, t, loose) for v in array]
    except UnfitValue as unfit:
        return ("unfit", unfit.stored, unfit.shown)
    return found


def bytes_of(scalar: pa.Scalar, t: Type, loose: bool) -> Any:
    """A value as what its buffer holds: Python's datetime does not know every time."""
    if not loose and t.kind in ("date", "timestamp", "timestamptz", "time", "duration"):
        return scalar.value
    value = scalar.as_py()
    return struct.pack("<d", value) if isinstance(value, float) else value


def both(
    t: Type, values: Sequence[Any], tmp_path: pathlib.Path, *, loose: bool = False, null_unfit: bool = False
) -> tuple[Any, Any]:
    """What the kernel and its twin make of the values."""
    sql, spec = select_of(values), read_spec(t, loose=loose, null_unfit=null_unfit)
    with opened(tmp_path / "k.db") as database:
        native = outcome(sqlite_rows.Reader(database, sql, (), [spec], True), t, loose)
    with contextlib.closing(plain.PlainDatabase(f"file:{tmp_path / 'p.db'}", 1000)) as database:
        twin = outcome(plain.PlainReader(database, sql, (), [spec]), t, loose)
    return native, twin


def text(value: str) -> plain.Text:
    return plain.Text(value.encode())


# --- golden cells ---------------------------------------------------------------------------------

FIT: list[tuple[Type, Any, Any]] = [
    (Type("bool"), 1, True),
    (Type("int8"), -128, -128),
    (Type("uint64"), 2**63 - 1, 2**63 - 1),
    (Type("float64"), 2**53, struct.pack("<d", 2.0**53)),
    (Type("float64"), float("inf"), struct.pack("<d", float("inf"))),
    (Type("float32"), 0.5, struct.pack("<d", 0.5)),
    (Type("decimal", precision=10, scale=2), 12345678.91, D("12345678.91")),
    (Type("decimal", precision=10, scale=2), -3, D("-3.00")),
    (Type("decimal", precision=10, scale=2), 1e-2, D("0.01")),
    (Type("decimal", precision=17, scale=2), 123456789012345.67, D("123456789012345.67")),
    (Type("decimal", precision=38, scale=0), 1e22, D(10) ** 22),
    (Type("decimal", precision=38, scale=10), text("-1234567890123456789012345678.0123456789"),
     D("-1234567890123456789012345678.0123456789")),
    (Type("decimal", precision=76, scale=0), text("9" * 76), D("9" * 76)),
    (Type("decimal", precision=10, scale=2), text("1.5000"), D("1.50")),
    (Type("text"), text("é€𝄞\0"), "é€𝄞\0"),
    (Type("char", length=4), text("ab   "), "ab"),
    (Type("binary"), b"", b""),
    (Type("date"), text("1970-01-02"), 1),
    (Type("date"), text("0000-02-29"), -719469),
    (Type("date"), text("-0001-01-01"), -719893),
    (Type("date"), text("+10000-01-01"), 2932897),
    (Type("date"), text("infinity"), 2**31 - 1),
    (Type("timestamp", unit="us"), text("1970-01-01T00:00"), 0),
    (Type("timestamp", unit="us"), text("1969-12-31 23:59:59.999999000"), -1),
    (Type("timestamp", unit="us"), text("-infinity"), -(2**63)),
    (Type("timestamptz", unit="us"), text("1970-01-01 02:00:00+02:00"), 0),
    (Type("timestamptz", unit="us"), text("1969-12-31T18:30:00-0530"), 0),
    (Type("timestamptz", unit="us"), text("1970-01-01 00:00:01Z"), 1_000_000),
    (Type("time", unit="us"), text("24:00:00"), 86_400_000_000),
    (Type("time", unit="us"), text("10:05"), 36_300_000_000),
    (Type("duration", unit="us"), text("PT-1.5S"), -1_500_000),
    (Type("duration", unit="us"), text("PT1H2M"), 3_720_000_000),
    (Type("interval"), text("P1Y2M-3W4DT-0.000000001S"), pa.MonthDayNano([14, -17, -1])),
    (Type("uuid"), text("9040cb98-ea97-434e-9746-7dc4a11ed1bb"), bytes.fromhex("9040cb98ea97434e97467dc4a11ed1bb")),
    (Type("uuid"), bytes(16), bytes(16)),
    (Type("json"), 12, "12"),
    (Type("numeric"), text("-0.50"), "-0.50"),
    (Type("numeric"), text("Infinity"), "Infinity"),
]  # fmt: skip

UNFIT: list[tuple[Type, Any]] = [
    (Type("bool"), 2),
    (Type("bool"), text("true")),
    (Type("int8"), 128),
    (Type("uint8"), -1),
    (Type("int64"), 2.0),
    (Type("int64"), text("12")),
    (Type("float64"), 2**53 + 1),
    (Type("float64"), text("1.5")),
    (Type("float32"), 0.1),
    (Type("decimal", precision=10, scale=2), 1.005),
    (Type("decimal", precision=10, scale=2), 0.1 + 0.2),
    (Type("decimal", precision=10, scale=2), 100_000_000),
    (Type("decimal", precision=10, scale=2), float("inf")),
    (Type("decimal", precision=10, scale=2), text("1.505")),
    (Type("decimal", precision=10, scale=2), text("1e2")),
    (Type("decimal", precision=10, scale=2), text(" 1")),
    (Type("decimal", precision=10, scale=2), text("1.")),
    (Type("decimal", precision=10, scale=2), text(".5")),
    (Type("decimal", precision=76, scale=0), text("1" + "0" * 76)),
    (Type("text"), plain.Text(b"\xff")),
    (Type("text"), plain.Text(b"\xed\xa0\x80")),
    (Type("text"), plain.Text(b"\xc0\x80")),
    (Type("text"), plain.Text(b"\xf4\x90\x80\x80")),
    (Type("text"), b"abc"),
    (Type("text"), 1),
    (Type("text", length=2), text("äöü")),
    (Type("binary"), text("abc")),
    (Type("binary", length=3, fixed=True), b"ab"),
    (Type("date"), text("2023-02-29")),
    (Type("date"), text("2023-1-1")),
    (Type("date"), text("2023-01-01 ")),
    (Type("date"), text("-0000-01-01")),
    (Type("date"), text("+2023-01-01")),
    (Type("date"), text("+9999999-12-31")),
    (Type("date"), text("")),
    (Type("date"), 19723),
    (Type("timestamp", unit="us"), text("2023-01-01")),
    (Type("timestamp", unit="us"), text("2023-01-01 24:00:00")),
    (Type("timestamp", unit="us"), text("2023-01-01 10:00:00Z")),
    (Type("timestamp", unit="us"), text("2023-01-01 10:00:00.0000001")),
    (Type("timestamp", unit="ns"), text("2300-01-01 00:00:00")),
    (Type("timestamptz", unit="us"), text("2023-01-01 10:00:00")),
    (Type("timestamptz", unit="us"), text("2023-01-01 10:00:00+16:00")),
    (Type("time", unit="us"), text("24:00:01")),
    (Type("time", unit="us"), text("10:60")),
    (Type("duration", unit="us"), text("P1D")),
    (Type("interval"), text("P")),
    (Type("interval"), text("PT")),
    (Type("interval"), text("P2147483648M")),
    (Type("uuid"), text("9040CB98-ea97-434e-9746-7dc4a11ed1bb")),
    (Type("json"), float("inf")),
    (Type("numeric"), text("1e5")),
    (Type("varbit"), text("012")),
]


@pytest.mark.parametrize(("t", "given_", "expected"), FIT, ids=lambda v: str(v)[:40])
def test_stored_value_that_fits_is_read_as_its_type(
    t: Type, given_: Any, expected: Any, tmp_path: pathlib.Path
) -> None:
    native, twin = both(t, [None, given_], tmp_path)
    assert native == [None, expected]
    assert twin == native


@pytest.mark.parametrize(("t", "given_"), UNFIT, ids=lambda v: str(v)[:40])
def test_stored_value_that_does_not_fit_stops_the_reader(t: Type, given_: Any, tmp_path: pathlib.Path) -> None:
    native, twin = both(t, [None, given_], tmp_path)
    assert native[0] == "unfit", native
    assert twin == native
    assert both(t, [None, given_], tmp_path, null_unfit=True) == ([None, None], [None, None])


def test_loose_text_takes_every_value(tmp_path: pathlib.Path) -> None:
    values = [1, -(2**63), 2.5, 1e20, float("-inf"), text("é"), plain.Text(b"\xff\x00"), b"", b"\x00\xff", None]
    expected = ["1", "-9223372036854775808", "2.5", "1e+20", "-inf", "é", "\\xff00", "\\x", "\\x00ff", None]
    assert both(Type("text"), values, tmp_path, loose=True) == (expected, expected)


# --- kernel and twin agree on anything ------------------------------------------------------------

_digits = st.integers(0, 10**20).map(str)
_pieces = st.sampled_from(
    ["P", "T", "Y", "M", "W", "D", "H", "S", "-", "+", ":", ".", " ", "Z", "0", "00", "1", "9", "12", "59", "60",
     "2023", "10000", "0001", "infinity", "NaN", "e", "é", "\0", "1970-01-01", "2024-02-29", "23:59:59", ".000001"]
)  # fmt: skip
_texts = st.one_of(
    st.lists(_pieces, max_size=8).map("".join),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))).map(str),
    st.times().map(str),
    st.uuids().map(str),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.text(max_size=6),
    _digits,
)
_values = st.one_of(
    st.none(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.integers(-300, 300),
    st.floats(allow_nan=False),
    st.decimals(-(10**9), 10**9, places=3).map(float),
    st.integers(-(10**17), 10**17).map(lambda n: n / 100),
    _texts.map(text),
    st.binary(max_size=18).map(plain.Text),
    st.binary(max_size=18),
)
_hypothesis = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("name", KINDS)
@_hypothesis
@given(values=st.lists(_values, min_size=1, max_size=12))
def test_kernel_and_twin_read_the_same(name: str, tmp_path: pathlib.Path, values: list[Any]) -> None:
    native, twin = both(KINDS[name], values, tmp_path)
    assert native == twin
    native, twin = both(KINDS[name], values, tmp_path, null_unfit=True)
    assert native == twin


@_hypothesis
@given(values=st.lists(_values, min_size=1, max_size=12))
def test_kernel_and_twin_read_loose_text_the_same(tmp_path: pathlib.Path, values: list[Any]) -> None:
    native, twin = both(Type("text"), values, tmp_path, loose=True)
    assert native == twin


@_hypothesis
@given(values=st.lists(_values, min_size=1, max_size=20))
def test_census_counts_what_the_reader_would_stop_at(tmp_path: pathlib.Path, values: list[Any]) -> None:
    candidates = [[read_spec(t) for t in KINDS.values()]]
    with opened(tmp_path / "k.db") as database:
        native = sqlite_rows.census(database, select_of(values), (), candidates)
    with contextlib.closing(plain.PlainDatabase(f"file:{tmp_path / 'p.db'}", 1000)) as twin_database:
        twin = plain.census(twin_database, select_of(values), (), candidates)
    assert native == twin
    rows, [(held, _, unfit)] = native
    assert rows == len(values) == sum(held.values())
    for t, count in zip(KINDS.values(), unfit, strict=True):
        read, _ = both(t, values, tmp_path)
        assert (count > 0) == (read[:1] == ("unfit",))


# --- writing --------------------------------------------------------------------------------------

WRITE: list[tuple[str, pa.Array, Type]] = [
    ("INTEGER", pa.array([-128, None, 127], pa.int8()), Type("int8")),
    ("INTEGER", pa.array([0, 2**63 - 1], pa.uint64()), Type("uint64")),
    ("BOOLEAN", pa.array([True, None, False]), Type("bool")),
    ("REAL", pa.array([0.1, float("inf"), 5e-324, None]), Type("float64")),
    ("REAL", pa.array([0.1, None], pa.float32()), Type("float32")),
    ("DECIMAL(15,2)", pa.array([D("9999999999999.99"), D("-0.01"), D("7.00"), None], pa.decimal128(15, 2)),
     Type("decimal", precision=15, scale=2)),
    ("DECIMAL_TEXT(38,10)", pa.array([D("-0.0000000001"), D("1234567890123456789012345678"), None],
                                     pa.decimal128(38, 10)), Type("decimal", precision=38, scale=10)),
    ("DECIMAL_TEXT(76,76)", pa.array([D("-0." + "9" * 76), D(0)], pa.decimal256(76, 76)),
     Type("decimal", precision=76, scale=76)),
    ("TEXT", pa.array(["", None, "é\0x", "12"]), Type("text")),
    ("BLOB", pa.array([b"", None, b"\0\xff"]), Type("binary")),
    ("BLOB", pa.array([b"abc", None], pa.binary(3)), Type("binary", length=3, fixed=True)),
    ("DATE", pa.array([0, -719893, -1, 2932897, 2**31 - 1, -(2**31), 2**31 - 2, None], pa.int32()).cast(pa.date32()),
     Type("date")),
    ("TIMESTAMP", pa.array([0, -1, 2**63 - 1, -(2**63), 2**63 - 2, -62135596800000001, None]).cast(pa.timestamp("us")),
     Type("timestamp", unit="us")),
    ("TIMESTAMPTZ", pa.array([1, -1, None]).cast(pa.timestamp("ns", "UTC")), Type("timestamptz", unit="ns")),
    ("TIME", pa.array([0, 86_400_000_000, 1, None]).cast(pa.time64("us")), Type("time", unit="us")),
    ("TEXT", pa.array([-1, 2**63 - 1, -(2**63), 0, None]).cast(pa.duration("us")), Type("duration", unit="us")),
    ("TEXT", pa.array([pa.MonthDayNano([14, -3, 5]), pa.MonthDayNano([-(2**31), 2**31 - 1, -(2**63)]),
                       pa.MonthDayNano([0, 0, 0]), None]), Type("interval")),
    ("UUID", pa.array([bytes(range(16)), None], pa.binary(16)), Type("uuid")),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "array", "t"), WRITE, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize("offset", [0, 1])
def test_written_values_are_the_twins_and_come_back(
    declared: str, array: pa.Array, t: Type, offset: int, tmp_path: pathlib.Path
) -> None:
    array = pa.concat_arrays([array.slice(0, offset), array]).slice(offset)
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    spec = write_spec(t, declared)
    with opened(tmp_path / "k.db") as database:
        database.execute(f"CREATE TABLE t (a {declared})")
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [spec])
        sizes = [[b.size if b else 0 for b in array.buffers()]]
        assert writer.write(batch.__arrow_c_array__(), sizes) == len(array)
        native = database.execute("SELECT typeof(a), a FROM t ORDER BY rowid")
        back = outcome(sqlite_rows.Reader(database, "SELECT a FROM t ORDER BY rowid", (), [read_spec(t)], True), t)
    with contextlib.closing(plain.PlainDatabase(f"file:{tmp_path / 'p.db'}", 1000)) as twin:
        twin.execute(f"CREATE TABLE t (a {declared})")
        assert plain.PlainWriter(twin, "INSERT INTO t VALUES (?)", [spec]).write(batch) == len(array)
        assert twin.execute("SELECT typeof(a), a FROM t ORDER BY rowid") == native
    assert back == [None if not v.is_valid else bytes_of(v, t, False) for v in array]


@_hypothesis
@given(numbers=st.lists(st.integers(-(10**15) + 1, 10**15 - 1), min_size=1, max_size=30), scale=st.integers(0, 15))
def test_decimals_of_15_digits_come_back_out_of_a_numeric_column(
    numbers: list[int], scale: int, tmp_path: pathlib.Path
) -> None:
    t = Type("decimal", precision=15, scale=scale)
    array = pa.array([D(n).scaleb(-scale) for n in numbers], pa.decimal128(15, scale))
    with opened(pathlib.Path(":memory:")) as database:
        database.execute(f"CREATE TABLE t (a DECIMAL(15,{scale}))")
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [write_spec(t, f"DECIMAL(15,{scale})")])
        batch = pa.RecordBatch.from_arrays([array], names=["a"])
        writer.write(batch.__arrow_c_array__(), [[b.size if b else 0 for b in array.buffers()]])
        read = outcome(sqlite_rows.Reader(database, "SELECT a FROM t ORDER BY rowid", (), [read_spec(t)], True), t)
    assert read == array.to_pylist()


def test_text_that_an_affinity_would_turn_into_a_number_is_refused() -> None:
    t = Type("text")
    with opened(pathlib.Path(":memory:")) as database:
        database.execute("CREATE TABLE t (a NUMERIC)")
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [write_spec(t, "NUMERIC")])
        for bad in ("12", " 1.5e3 ", "-0", "007", "1\n"):
            array = pa.array(["fine", bad])
            batch = pa.RecordBatch.from_arrays([array], names=["a"])
            with pytest.raises(UnfitValue) as caught:
                writer.write(batch.__arrow_c_array__(), [[b.size if b else 0 for b in array.buffers()]])
            assert caught.value.column == 0
        assert {r[0] for r in database.execute("SELECT DISTINCT typeof(a) FROM t")} == {"text"}


# --- hostile input and misuse ---------------------------------------------------------------------


def test_batch_that_is_not_what_the_specs_say_is_an_error() -> None:
    with opened(pathlib.Path(":memory:")) as database:
        database.execute("CREATE TABLE t (a)")
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [write_spec(Type("int64"), "INTEGER")])
        for array in (pa.array(["x"]), pa.array([1], pa.int32()), pa.array([[1]])):
            batch = pa.RecordBatch.from_arrays([array], names=["a"])
            with pytest.raises(ValueError, match="Arrow format"):
                writer.write(batch.__arrow_c_array__(), [[b.size if b else 0 for b in array.buffers()]])
        array = pa.array([1, 2, 3])
        batch = pa.RecordBatch.from_arrays([array], names=["a"])
        with pytest.raises(ValueError, match="too short"):
            writer.write(batch.__arrow_c_array__(), [[0, 16]])


@pytest.mark.parametrize("offsets", [[0, 5, 3], [-1, 0, 1], [0, 1, 100], [2**31 - 1, 0, 0]])
def test_offsets_beyond_the_data_are_an_error(offsets: list[int]) -> None:
    written = bytearray(struct.pack("<3i", 0, 2, 5))
    array = pa.Array.from_buffers(pa.utf8(), 2, [None, pa.py_buffer(written), pa.py_buffer(b"abcde")])
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    written[:] = struct.pack("<3i", *offsets)  # pyarrow itself would not make such an array
    with opened(pathlib.Path(":memory:")) as database:
        database.execute("CREATE TABLE t (a)")
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [write_spec(Type("text"), "TEXT")])
        with pytest.raises(ValueError, match="range"):
            writer.write(batch.__arrow_c_array__(), [[0, 12, 5]])


@pytest.mark.parametrize(
    "spec",
    [(0, 8, 0, 0, 0, -1, False), (99, 8, 0, 0, 0, -1, False), (5, 4, 0, 0, 0, -1, False), (18, 8, 10, 0, 0, -1, False),
     (12, 16, 0, 77, 0, -1, False), (12, 24, 0, 5, 0, -1, False), (16, 0, 0, 0, 0, 0, False),
     (13, 8, 0, 0, 0, -1, False)],
)  # fmt: skip
def test_spec_that_no_decoder_has_is_an_error(spec: Any) -> None:
    with opened(pathlib.Path(":memory:")) as database, pytest.raises(ValueError, match=r"no such|width"):
        sqlite_rows.Reader(database, "SELECT 1", (), [spec], True)


def test_failures_of_sqlite_carry_their_code() -> None:
    with opened(pathlib.Path(":memory:")) as database:
        for sql in ("SELECT nope", 'SELECT "nope"', "SELECT 1; SELECT 2", "", "-- nothing"):
            with pytest.raises(SqliteFailure) as caught:
                database.execute(sql)
            assert caught.value.code == 1
        with pytest.raises(SqliteFailure):
            database.execute("SELECT ?")
        assert database.execute("SELECT 1") == [(1,)]


def test_batches_end_at_their_rows_and_bytes(tmp_path: pathlib.Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
    sql = f"{numbers} SELECT i, printf('%0100d', i) FROM n"
    specs = [read_spec(Type("int64")), read_spec(Type("text"))]
    with opened(tmp_path / "k.db") as database:
        reader = sqlite_rows.Reader(database, sql, (), specs, True)
        sizes = []
        while (batch := reader.next_batch(1000, 1 << 30)) is not None:
            sizes.append(batch[0])
        assert sizes == [1000] * 10
        reader = sqlite_rows.Reader(database, sql, (), specs, True)
        sizes = []
        while (batch := reader.next_batch(1 << 20, 56_000)) is not None:
            sizes.append(batch[0])
        assert sizes == [500] * 20
        assert reader.next_batch(10, 10) is None


def test_closing_a_database_in_the_middle_of_a_read_is_no_crash(tmp_path: pathlib.Path) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with opened(tmp_path / "k.db") as database:
        reader = sqlite_rows.Reader(database, sql, (), [read_spec(Type("int64"))], True)
        errors: list[BaseException] = []

        def run() -> None:
            try:
                while True:
                    reader.next_batch(1 << 16, 1 << 30)
            except SqliteFailure as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while not errors and reader is not None:
            database.close()
            thread.join(0.05)
            if not thread.is_alive():
                break
        thread.join(10)
        assert not thread.is_alive()
        assert errors


def test_two_threads_on_one_connection_are_an_error_not_a_crash(tmp_path: pathlib.Path) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i FROM n"
    with opened(tmp_path / "k.db") as database:
        reader = sqlite_rows.Reader(database, sql, (), [read_spec(Type("int64"))], True)
        thread = threading.Thread(target=lambda: reader.next_batch(1 << 30, 1 << 40))
        thread.start()
        seen = 0
        while thread.is_alive() and not seen:
            try:
                database.execute("SELECT 1")
            except SqliteFailure as error:
                seen += "another thread" in error.message
        thread.join()
        assert seen


def test_lock_of_the_standard_module_survives_our_close(tmp_path: pathlib.Path) -> None:
    """Two copies of SQLite in one process would drop it: a second process could then write into a transaction."""
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as mine:
        mine.execute("CREATE TABLE t (a)")
        mine.execute("BEGIN IMMEDIATE")
        mine.execute("INSERT INTO t VALUES (1)")
        with opened(path) as database:
            assert database.execute("SELECT count(*) FROM t") == [(0,)]
            reader = sqlite_rows.Reader(database, "SELECT a FROM t", (), [read_spec(Type("int64"))], True)
            assert reader.next_batch(10, 10) is None
        assert _other_process_writes(path) == "database is locked"
        mine.execute("COMMIT")
    assert _other_process_writes(path) == "ok"


def _other_process_writes(path: pathlib.Path) -> str:
    code = (
        "import sqlite3, sys\n"
        "try:\n"
        "    c = sqlite3.connect(sys.argv[1], timeout=0.1)\n"
        "    c.execute('INSERT INTO t VALUES (2)'); c.commit(); print('ok')\n"
        "except sqlite3.OperationalError as e:\n"
        "    print(e)\n"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True).stdout.strip()


def test_cell_of_100_mb_is_read_and_written_with_one_copy_each(tmp_path: pathlib.Path) -> None:
    size = 100_000_000
    with opened(tmp_path / "k.db") as database:
        database.execute("CREATE TABLE t (a BLOB)")
        database.execute("INSERT INTO t VALUES (zeroblob(?))", (size,))
        reader = sqlite_rows.Reader(database, "SELECT a FROM t", (), [read_spec(Type("binary"))], True)
        rows, [part] = reader.next_batch(10, 1 << 20)
        array = nested.array_of(Type("binary"), rows, part)
        assert array.buffers()[2].size == size
        batch = pa.RecordBatch.from_arrays([array], names=["a"])
        writer = sqlite_write.Writer(database, "INSERT INTO t VALUES (?)", [write_spec(Type("binary"), "BLOB")])
        assert writer.write(batch.__arrow_c_array__(), [[b.size if b else 0 for b in array.buffers()]]) == 1
        assert database.execute("SELECT sum(length(a)) FROM t") == [(2 * size,)]


def test_benchmark_runs_at_its_small_size(capsys: pytest.CaptureFixture[str]) -> None:
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "kernels" / "bench_sqlite_rows.py"
    spec = importlib.util.spec_from_file_location("bench_sqlite_rows", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.run(2_000, repeats=1)
    assert set(found) == {"write: executemany", "write: kernel", "census", "read: kernel", "read: fetchmany"}
    assert capsys.readouterr().out.count("CPU s per M rows") == 5
