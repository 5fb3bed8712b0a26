"""Rows into MySQL: every value as it is, or refused by name; never rounded, cut, dropped or replaced in silence."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

import mysql_servers
from adapters import contract
from rowferry.adapters.mysql import loading
from rowferry.adapters.protocol import Block, Target, WriteRequest
from rowferry.errors import DataError, RowferryError, TargetError
from rowferry.model import Bound, ChunkRow, ColumnPlan, Comparison, Table, TableName

pytestmark = pytest.mark.server

T = TableName(None, "t")


@pytest.fixture(params=["load", "insert"])
def way(request: pytest.FixtureRequest, mysql_server: mysql_servers.Mariadb) -> Iterator[str]:
    """LOAD DATA LOCAL, and what takes its place where the server does not let it in."""
    with contextlib.ExitStack() as stack:
        if request.param == "insert":
            stack.enter_context(mysql_server.globals(local_infile="0"))
        yield request.param


def plans(table: Table, names: Sequence[str]) -> tuple[ColumnPlan, ...]:
    """The way into an existing table, each column as its own type."""
    return tuple(
        ColumnPlan(c.name, c.type, c.name, c, Comparison(c.type, c.type, "")) for c in map(table.column, names)
    )


def described(target: Target, name: TableName = T) -> Table:
    table = target.describe(name)
    assert table is not None
    return table


def blocks_of(columns: Sequence[ColumnPlan], values: dict[str, list[Any]], rows: int = 1000) -> Iterator[Block]:
    arrays = [pa.array(values[c.target], c.column.type.arrow) for c in columns]
    whole = pa.RecordBatch.from_arrays(arrays, names=[c.target for c in columns])
    for start in range(0, whole.num_rows, rows):
        yield Block(whole.slice(start, rows))


def write(
    target: Target, values: dict[str, list[Any]], mode: str = "append", key: tuple[str, ...] = (), rows: int = 1000
) -> int:
    """One chunk of rows, committed."""
    table = described(target)
    columns = plans(table, list(values))
    target.ledger.open(create=True)
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        try:
            count = writer.write(
                WriteRequest(table, table.name, columns, mode=mode, key=key), blocks_of(columns, values, rows)
            )
            writer.commit()
        except RowferryError:
            writer.rollback()
            raise
        return count


# --- values that arrive


def test_every_type_with_its_extremes_arrives_as_it_is(target: Target, sql: Any, way: str) -> None:
    d, dt = decimal.Decimal, datetime.datetime
    columns: dict[str, tuple[str, list[Any], str, list[Any]]] = {
        "i8": ("tinyint", [-128, 127], "i8", [-128, 127]),
        "u64": ("bigint unsigned", [0, 2**64 - 1], "u64", [0, 2**64 - 1]),
        "f32": ("float", [1.401298464324817e-45, -3.4028234663852886e38], "f32 * 1e0",
                [1.401298464324817e-45, -3.4028234663852886e38]),
        "f64": ("double", [5e-324, 0.1], "f64", [5e-324, 0.1]),
        "dec_": ("decimal(65,30)", [d("-12345678901234567890123456789012345.123456789012345678901234567891"), d(0)],
                 "dec_", [d("-12345678901234567890123456789012345.123456789012345678901234567891"), d(0)]),
        "date_": ("date", [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)], "cast(date_ as char)",
                  ["0001-01-01", "9999-12-31"]),
        "dt_": ("datetime(6)", [dt(1, 1, 1, 0, 0, 0, 1), dt(9999, 12, 31, 23, 59, 59, 999999)], "cast(dt_ as char)",
                ["0001-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999"]),
        "time_": ("time(6)", [-3020399999999, 3020399999999], "cast(time_ as char)",
                  ["-838:59:59.999999", "838:59:59.999999"]),
        "year_": ("year", [0, 2155], "year_", [0, 2155]),
        "bit_": ("bit(10)", ["0000000000", "1000000001"], "lpad(bin(bit_), 10, '0')", ["0000000000", "1000000001"]),
        "text_": ("longtext", ["\\N", "a\tb\nc\\d\0e'f\"g é€𝄞 \x1a \r\n "], "text_",
                  ["\\N", "a\tb\nc\\d\0e'f\"g é€𝄞 \x1a \r\n "]),
        "empty": ("varchar(3) character set utf8mb3", ["", "é  "], "empty", ["", "é  "]),
        "latin": ("varchar(5) character set latin1", ["é€", "\\t"], "hex(latin)", ["E980", "5C74"]),
        "ucs": ("text character set utf16", ["𝄞", ""], "hex(ucs)", ["D834DD1E", ""]),
        "blob_": ("blob", [bytes(range(256)), b""], "blob_", [bytes(range(256)), b""]),
        "fixed": ("binary(4)", [b"\0\0\0\0", b"\\\t\n\0"], "fixed", [b"\0\0\0\0", b"\\\t\n\0"]),
        "uuid_": ("uuid", [uuid.UUID(int=0).bytes, uuid.UUID(int=2**128 - 1).bytes], "uuid_",
                  [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))]),
        "enum_": ("enum('2','1','it''s','')", ["1", ""], "concat(enum_, ':', enum_ + 0)", ["1:2", ":4"]),
        "set_": ("set('a','b\\\\','c')", [["a", "c"], []], "set_", ["a,c", ""]),
        "json_": ("json", ['{"b": 1.50, "a": "\\"\\\\é"}', "[]"], "json_", ['{"b": 1.50, "a": "\\"\\\\é"}', "[]"]),
        "point_": ("point", [bytes.fromhex("e6100000" "0101000000" + "000000000000f03f" * 2), None], "st_srid(point_)",
                   [4326, None]),
        "ip": ("inet6", ["::1", "::ffff:1.2.3.4"], "ip", ["::1", "::ffff:1.2.3.4"]),
    }  # fmt: skip
    sql("CREATE TABLE t (" + ", ".join(f"{name} {kind}" for name, (kind, *_) in columns.items()) + ", no int)")
    values = {name: [*written, None] for name, (_, written, _, _) in columns.items()}
    assert write(target, {**values, "no": [0, 1, 2]}) == 3
    for name, (kind, _, seen, expected) in columns.items():
        found = [row[0] for row in sql(f"SELECT {seen} FROM t ORDER BY no")]
        assert found == [*expected, None], (name, kind)


def test_every_kind_of_block_boundary_leaves_the_rows_whole(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, t longtext, b longblob)")
    rows = 300
    texts = [("x\t\\" * (i * 37 % 5000))[: i * 37 % 9000] for i in range(rows)]
    blobs = [bytes([i % 256]) * (i * 91 % 7001) for i in range(rows)]
    texts[7], blobs[7] = "\n" * (3 << 20), b"\0" * (2 << 20)  # larger than a block, every byte escaped
    assert write(target, {"id": list(range(rows)), "t": texts, "b": blobs}, rows=17) == rows
    found = sql("SELECT id, md5(t), length(t), md5(b), length(b) FROM t ORDER BY id")
    assert [(i, length, size) for i, _, length, _, size in found] == [
        (i, len(texts[i]), len(blobs[i])) for i in range(rows)
    ]
    import hashlib

    for i, text_md5, _, blob_md5, _ in found:
        assert text_md5 == hashlib.md5(texts[i].encode()).hexdigest(), i
        assert blob_md5 == hashlib.md5(blobs[i]).hexdigest(), i


def test_row_0_of_an_auto_increment_column_stays_0(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, v int)")
    assert write(target, {"id": [0, 5, -3], "v": [1, 2, 3]}) == 3
    assert sql("SELECT id, v FROM t ORDER BY id") == [(-3, 3), (0, 1), (5, 2)]


def test_no_rows_are_none_and_leave_the_transaction_in_order(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int)")
    assert write(target, {"id": []}) == 0
    assert sql("SELECT count(*) FROM t") == [(0,)]


# --- values that do not fit


@pytest.mark.parametrize(
    ("ddl", "values", "column", "says"),
    [
        ("a mediumint", [1, 2**23], "a", "beyond the range"),
        ("a varchar(3)", ["abc", "ab  "], "a", "longer"),
        ("a varchar(3) character set latin1", ["abc", "ł"], "a", "Incorrect string value"),
        ("a varchar(3) character set utf8mb3", ["abc", "𝄞"], "a", "Incorrect string value"),
        ("a tinytext", ["a", "x" * 256], "a", "too long|truncated"),
        ("a enum('2','1')", ["1", "3"], "a", "labels"),
        ("a enum('a')", ["a", "A"], "a", "labels"),
        ("a set('a','b')", [["a"], ["b", "a"]], "a", "another order"),
        ("a set('a','b')", [["a"], ["a", "a"]], "a", "repeated"),
        ("a varbinary(3)", [b"abc", b"abcd"], "a", "longer"),
        ("a datetime", [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 0, 0, 0, 1)], "a", "digits"),
        ("a datetime(3)", [datetime.datetime(2020, 1, 1, 0, 0, 0, 1000), datetime.datetime(2020, 1, 1, 0, 0, 0, 1)],
         "a", "digits"),
        ("a timestamp(6) null", [datetime.datetime(2020, 1, 1), datetime.datetime(1969, 1, 1)], "a", "ncorrect|range"),
        ("a time", [0, 838 * 3_600_000_000 * 2], "a", "838"),
        ("a double", [1.0, float("nan")], "a", "NaN"),
        ("a int not null", [1, None], "a", "NULL"),
        ("a timestamp not null", [datetime.datetime(2020, 1, 1), None], "a", "NULL"),
        ("a int not null auto_increment primary key", [1, None], "a", "NULL"),
        ("a json", ["[]", "{"], "a", "CONSTRAINT"),
        ("a point", [bytes.fromhex("00000000" "0101000000" + "00" * 16), bytes.fromhex("00000000" "0109")], None,
         "geometry"),
        ("a inet6", ["::1", "0::1"], "a", "'::1'"),
        ("a int, check (a < 3)", [1, 3], None, "CONSTRAINT"),
        ("a int unique", [1, 1], None, "Duplicate"),
        ("a int references p (id)", [1, 2], None, "foreign key"),
    ],
)  # fmt: skip
def test_value_that_does_not_fit_is_a_data_error_that_names_it(
    target: Target, sql: Any, way: str, ddl: str, values: list[Any], column: str | None, says: str
) -> None:
    sql("CREATE TABLE p (id int PRIMARY KEY)", "INSERT INTO p VALUES (1)")
    sql(f"CREATE TABLE t (no int, {ddl})")
    # 1000 rows that fit, the one that does not, and more after it.
    good = values[0] if column is not None or "unique" not in ddl else None
    given = [good] * 999 + [values[0], values[1], good]
    if "primary key" in ddl:
        given = [*range(1, 1001), None, 2000]
    with pytest.raises(DataError, match=says) as caught:
        write(target, {"no": list(range(1002)), "a": given}, rows=70)
    assert caught.value.table == "t" and not caught.value.transient
    assert column is None or caught.value.column == column
    assert column is None or caught.value.value is not None
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_row_that_does_not_fit_is_named_by_its_number_and_key(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, a int, CHECK (a <> 7))")
    rows = 5000
    with pytest.raises(DataError) as caught:
        write(target, {"id": list(range(rows)), "a": [7 if i in (3210, 4444) else 0 for i in range(rows)]}, rows=999)
    assert "row 3,211 of this chunk" in str(caught.value) and "id='3210'" in str(caught.value), str(caught.value)
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_duplicate_of_a_row_in_an_earlier_part_is_found(
    target: Target, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PART_BYTES", 5000)
    sql("CREATE TABLE t (id int, PRIMARY KEY (id))")
    with pytest.raises(DataError, match=r"Duplicate entry '17'.* row 9,001 "):
        write(target, {"id": [*range(9000), 17, *range(9000, 9500)]}, rows=500)
    assert sql("SELECT count(*) FROM t") == [(0,)]
    assert write(target, {"id": list(range(9500))}, rows=500) == 9500


def test_collation_that_takes_two_keys_for_one_is_a_duplicate(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (k varchar(10) COLLATE utf8mb4_general_ci PRIMARY KEY)")
    with pytest.raises(DataError, match="Duplicate"):
        write(target, {"k": ["a", "á"]})
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_trigger_that_changes_or_refuses_is_not_overlooked(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int)")
    sql("CREATE TRIGGER no3 BEFORE INSERT ON t FOR EACH ROW IF NEW.id = 3 THEN SIGNAL SQLSTATE '45000' "
        "SET MESSAGE_TEXT = 'no threes'; END IF")  # fmt: skip
    assert described(target).triggers == ("no3",)
    with pytest.raises((DataError, TargetError), match="no threes"):
        write(target, {"id": [1, 2, 3, 4]})
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_source_that_fails_in_mid_copy_leaves_nothing_and_the_writer_usable(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    columns = plans(table, ["a"])
    target.ledger.open(create=True)
    target.ledger.create_job(contract.job_row(), [], [ChunkRow(0, 0, Bound({}))])

    def blocks() -> Iterator[Block]:
        yield from blocks_of(columns, {"a": list(range(100_000))}, 20_000)
        raise RowferryError("the source is gone")

    with contextlib.closing(target.writer()) as writer:
        assert writer.claim(contract.JOB) is not None
        with pytest.raises(RowferryError, match="the source is gone"):
            writer.write(WriteRequest(table, T, columns), blocks())
        writer.rollback()
        assert sql("SELECT count(*) FROM t") == [(0,)]
        assert writer.claim(contract.JOB) is not None
        writer.rollback()


# --- tables


def test_table_that_cannot_roll_back_is_refused(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int) ENGINE=MyISAM")
    with pytest.raises(TargetError, match="MyISAM has no transactions"):
        write(target, {"a": [1]})
    assert any("MyISAM" in problem for problem in target.missing_privileges([described(target)], []))


def test_column_that_changed_its_type_in_mid_job_takes_no_row(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a bigint)")
    table = described(target)
    columns = plans(table, ["a"])
    target.ledger.open(create=True)
    sql("ALTER TABLE t MODIFY a double")
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        with pytest.raises(TargetError, match="plan knew bigint"):
            writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"a": [1]}))
        writer.rollback()
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_trigger_that_is_made_in_mid_job_is_not_overlooked(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    columns = plans(table, ["a"])
    target.ledger.open(create=True)
    sql("CREATE TRIGGER doubling BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a * 2")
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        with pytest.raises(TargetError, match="trigger doubling was made while the job ran"):
            writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"a": [1]}))
        writer.rollback()
        assert sql("SELECT count(*) FROM t") == [(0,)]
        writer.claim("none")
        # The plan knew of it: the user chose that it fires.
        assert writer.write(WriteRequest(described(target), T, columns), blocks_of(columns, {"a": [1]})) == 1
        writer.commit()
    assert sql("SELECT a FROM t") == [(2,)]


def test_table_that_is_being_altered_is_waited_for_and_not_taken_for_gone(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int, b varchar(200))", "INSERT INTO t SELECT seq, repeat('x', 200) FROM seq_1_to_300000")
    table = described(target)
    columns = plans(table, ["a"])
    target.ledger.open(create=True)
    # While it lasts, information_schema has no columns of the table for a session in a transaction.
    alter = threading.Thread(target=sql, args=("ALTER TABLE t FORCE, ALGORITHM=COPY, LOCK=EXCLUSIVE",))
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        alter.start()
        while not sql("SELECT 1 FROM information_schema.processlist WHERE state = 'copy to tmp table'"):
            assert alter.is_alive(), "the table was altered too soon for this test"
        assert writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"a": [1]})) == 1
        writer.commit()
    alter.join()
    assert sql("SELECT count(*) FROM t") == [(300001,)]


def test_table_that_was_dropped_in_mid_job_is_told_as_such(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    target.ledger.open(create=True)
    sql("DROP TABLE t")
    with contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        with pytest.raises(TargetError, match=r"not there \(any more\); it was dropped .* start a new job"):
            writer.write(WriteRequest(table, T, plans(table, ["a"])), blocks_of(plans(table, ["a"]), {"a": [1]}))
        writer.rollback()


def test_server_without_local_infile_gets_inserts_and_the_target_says_so(
    target: Target, sql: Any, mysql_server: mysql_servers.Mariadb
) -> None:
    sql("CREATE TABLE t (a int)")
    assert write(target, {"a": [1, 2]}) == 2
    assert not any("INSERT" in note for note in target.notes())  # type: ignore[attr-defined]
    with mysql_server.globals(local_infile="0"):
        assert write(target, {"a": [3]}) == 1
    assert any("INSERT" in note for note in target.notes())  # type: ignore[attr-defined]
    assert sql("SELECT a FROM t ORDER BY a") == [(1,), (2,), (3,)]


def test_local_infile_that_is_turned_off_meanwhile_is_noticed_by_the_refusal(
    target: Target, sql: Any, mysql_server: mysql_servers.Mariadb
) -> None:
    sql("CREATE TABLE t (a int)")
    table = described(target)
    columns = plans(table, ["a"])
    target.ledger.open(create=True)
    with contextlib.closing(target.writer()) as writer, mysql_server.globals(local_infile="0"):
        writer.claim("none")
        assert writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"a": [1, 2, 3]})) == 3
        writer.commit()
    assert sql("SELECT count(*) FROM t") == [(3,)]
    assert any("INSERT" in note for note in target.notes())  # type: ignore[attr-defined]


# --- upsert


def test_upsert_changes_rows_that_are_there_and_adds_the_others(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v text, kept int DEFAULT 9)")
    sql("INSERT INTO t VALUES (1, 'old', 1), (2, 'same', 2)")
    assert write(target, {"id": [1, 2, 3], "v": ["new", "same", "added"]}, mode="upsert", key=("id",)) == 3
    assert sql("SELECT * FROM t ORDER BY id") == [(1, "new", 1), (2, "same", 2), (3, "added", 9)]


def test_upsert_of_nothing_but_keys_adds_those_that_are_missing(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (1, 1)")
    assert write(target, {"a": [1, 1], "b": [1, 2]}, mode="upsert", key=("a", "b")) == 2
    assert sql("SELECT * FROM t ORDER BY a, b") == [(1, 1), (1, 2)]


def test_upsert_of_a_key_that_comes_twice_is_refused(target: Target, sql: Any, way: str) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    with pytest.raises(DataError, match="more than once"):
        write(target, {"id": [1, 2, 1], "v": [1, 2, 3]}, mode="upsert", key=("id",))
    assert sql("SELECT count(*) FROM t") == [(0,)]


def test_upsert_does_not_change_a_row_that_another_unique_key_finds(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, mail varchar(20) UNIQUE, v int)")
    sql("INSERT INTO t VALUES (1, 'a@x', 1), (2, 'b@x', 2)")
    with pytest.raises(DataError, match="Duplicate entry 'b@x'"):
        write(target, {"id": [3], "mail": ["b@x"], "v": [3]}, mode="upsert", key=("id",))
    assert write(target, {"id": [2, 4], "mail": ["b@x", "d@x"], "v": [20, 40]}, mode="upsert", key=("id",)) == 2
    assert sql("SELECT * FROM t ORDER BY id") == [(1, "a@x", 1), (2, "b@x", 20), (4, "d@x", 40)]


@pytest.mark.parametrize(("there", "sent"), [("A", "a"), ("á", "a"), ("a", "a ")])
def test_upsert_does_not_change_a_row_that_a_collation_takes_for_another(
    target: Target, sql: Any, there: str, sent: str
) -> None:
    sql(
        "CREATE TABLE t (n int, k varchar(20) COLLATE utf8mb4_general_ci, v int, PRIMARY KEY (n, k))",
        f"INSERT INTO t VALUES (1, '{there}', 1)",
    )
    with pytest.raises(DataError, match="which the column's collation takes for the same"):
        write(target, {"n": [1], "k": [sent], "v": [2]}, mode="upsert", key=("n", "k"))
    assert sql("SELECT k, v FROM t") == [(there, 1)]
    assert write(target, {"n": [1, 2], "k": [there, sent], "v": [3, 4]}, mode="upsert", key=("n", "k")) == 2
    assert sql("SELECT k, v FROM t ORDER BY n") == [(there, 3), (sent, 4)]


def test_upsert_by_columns_without_a_unique_key_is_refused(target: Target, sql: Any) -> None:
    sql("CREATE TABLE t (id int, v int)")
    with pytest.raises(TargetError, match="no unique key"):
        write(target, {"id": [1], "v": [1]}, mode="upsert", key=("id",))


# --- locks of others


def test_row_that_another_session_holds_too_long_is_a_transient_error_and_undone(
    target: Target, sql: Any, way: str, mysql_server: mysql_servers.Mariadb, url: str
) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)")
    table = described(target)
    columns = plans(table, ["id"])
    target.ledger.open(create=True)
    target.ledger.create_job(contract.job_row(), [], [ChunkRow(0, 0, Bound({}))])
    with (
        contextlib.closing(mysql_server.connect(url.rpartition("/")[2])) as other,
        contextlib.closing(target.writer()) as writer,
    ):
        other.begin()
        other.cursor().execute("INSERT INTO t VALUES (500)")
        chunk = writer.claim(contract.JOB)
        assert chunk is not None
        writer._session.query("SET SESSION innodb_lock_wait_timeout = 1")  # type: ignore[attr-defined]
        with pytest.raises(TargetError, match="Lock wait timeout") as caught:
            writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"id": list(range(1000))}))
        assert caught.value.transient
        writer.rollback()
        other.rollback()
        assert sql("SELECT count(*) FROM t") == [(0,)] and not writer.is_done(contract.JOB, chunk)
        again = writer.claim(contract.JOB)
        assert again is not None
        assert writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"id": list(range(1000))})) == 1000
        writer.finish(contract.JOB, again)
        writer.commit()
    assert sql("SELECT count(*) FROM t") == [(1000,)]


def test_deadlock_is_a_transient_error_and_leaves_neither_rows_nor_mark(
    target: Target, sql: Any, way: str, mysql_server: mysql_servers.Mariadb, url: str
) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE big (id int PRIMARY KEY)")
    table = described(target)
    columns = plans(table, ["id"])
    target.ledger.open(create=True)
    target.ledger.create_job(contract.job_row(), [], [ChunkRow(0, 0, Bound({}))])
    failed: list[TargetError] = []
    with (
        contextlib.closing(mysql_server.connect(url.rpartition("/")[2])) as other,
        contextlib.closing(target.writer()) as writer,
    ):
        chunk = writer.claim(contract.JOB)
        assert chunk is not None
        writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"id": [1]}))
        other.begin()
        # What has changed more is not the victim.
        other.cursor().execute("INSERT INTO big SELECT seq FROM seq_1_to_5000")
        other.cursor().execute("INSERT INTO t VALUES (2)")

        def write_second() -> None:
            try:
                writer.write(WriteRequest(table, T, columns), blocks_of(columns, {"id": [2]}))
            except TargetError as error:
                failed.append(error)

        thread = threading.Thread(target=write_second)
        thread.start()
        waiting = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        for _ in range(200):
            if mysql_server.execute(waiting)[0][0]:
                break
            threading.Event().wait(0.02)
        other.cursor().execute("INSERT INTO t VALUES (1)")
        thread.join(30)
        assert len(failed) == 1 and failed[0].transient and "Deadlock" in str(failed[0]), failed
        writer.rollback()
        other.commit()
        assert not writer.is_done(contract.JOB, chunk)
    assert sql("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_value_larger_than_max_allowed_packet_goes_in_by_load_and_is_refused_by_insert(
    target: Target, sql: Any, way: str
) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, b longblob)")
    value = b"\0" * (70 << 20)  # the server's max_allowed_packet is 64 MiB
    if way == "load":
        assert write(target, {"id": [1, 2], "b": [value, b"x"]}) == 2
        assert sql("SELECT id, length(b) FROM t ORDER BY id") == [(1, len(value)), (2, 1)]
        return
    with pytest.raises(DataError, match="max_allowed_packet") as caught:
        write(target, {"id": [1, 2], "b": [b"x", value]})
    assert "row 2 of this chunk" in str(caught.value)
    assert sql("SELECT count(*) FROM t") == [(0,)]
