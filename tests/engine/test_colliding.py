"""Keys that the target takes for one are found before the first row moves, by asking the target itself.

The judge is the target's own unique key: a plain driver inserts the same rows, and whether that fails is what the plan
has to say.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mysql_servers
import rowferry
import servers
from rowferry import DataError, RefusedError, RowferryError
from rowferry.engine.progress import JobStarted

Row = tuple[Any, ...]
#: What a test needs of a target: its URL, plain SQL on it, and what it says to a row that it does not take.
Sql = Callable[..., list[Row]]

CI = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
BASE = "CREATE COLLATION base (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, n integer, a {}, b {}, {})"
#: Name → (engine, statements that make the table).
TARGETS: dict[str, tuple[str, list[str]]] = {
    "sqlite NOCASE": ("sqlite", [TABLE.format("text COLLATE NOCASE", "text", "UNIQUE (a, b)")]),
    "sqlite index": ("sqlite", [
        TABLE.format("text", "text", "UNIQUE (id, a)"), "CREATE UNIQUE INDEX i ON t (n, b COLLATE RTRIM)"]),
    "mysql general_ci": ("mysql", [
        TABLE.format("varchar(40)", "text", "UNIQUE (a, n)") + " COLLATE utf8mb4_general_ci"]),
    "mysql unicode_ci": ("mysql", [
        TABLE.format("varchar(40)", "varchar(20)", "UNIQUE (a, b)") + " COLLATE utf8mb4_unicode_ci"]),
    "mysql padded": ("mysql", [TABLE.format("varchar(40)", "text", "UNIQUE (a)") + " COLLATE utf8mb4_bin"]),
    "mysql prefix": ("mysql", [
        TABLE.format("text", "varchar(20)", "UNIQUE (a(2), b)") + " COLLATE utf8mb4_nopad_bin"]),
    "mysql latin1": ("mysql", [
        TABLE.format("varchar(40) CHARACTER SET latin1 COLLATE latin1_german2_ci", "text", "UNIQUE (a)")]),
    "postgres ci": ("postgres", [CI, TABLE.format("text COLLATE ci", "text", "UNIQUE (a, b)")]),
    "postgres base": ("postgres", [
        BASE, TABLE.format("text COLLATE base", "varchar(20) COLLATE base", "UNIQUE (n, a, b)")]),
    "postgres citext": ("postgres", [
        "CREATE EXTENSION citext SCHEMA public", TABLE.format("citext", "text", "UNIQUE (b, a)")]),
    "postgres char": ("postgres", [TABLE.format("char(40)", "text", "UNIQUE (a)")]),
    "postgres index": ("postgres", [CI, TABLE.format("text", "text", "UNIQUE (id, a)"),
        "CREATE UNIQUE INDEX i ON t (n, a COLLATE ci) INCLUDE (b)"]),
    "postgres expression": ("postgres", [TABLE.format("text", "text", "UNIQUE (id, a)"),
        "CREATE UNIQUE INDEX i ON t (lower(a), (n + 1)) WHERE b IS NOT NULL"]),
    "postgres nulls": ("postgres", [CI, TABLE.format("text COLLATE ci", "text", "UNIQUE NULLS NOT DISTINCT (a, b)")]),
}  # fmt: skip
FAILURES = (sqlite3.IntegrityError, pymysql.err.IntegrityError, psycopg.errors.UniqueViolation)


@pytest.fixture
def made(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], tuple[str, Sql]]]:
    """Makes an empty target of an engine; gives its URL, and what runs SQL there by a plain driver."""
    with contextlib.ExitStack() as stack:

        def make(engine: str) -> tuple[str, Sql]:
            if engine == "sqlite":
                file = tmp_path / "target.db"
                lite = stack.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
                return f"sqlite:///{file}", lambda sql, rows=None: list(
                    lite.execute(sql) if rows is None else lite.executemany(sql, rows)
                )
            if engine == "mysql":
                url = request.getfixturevalue("mysql_database")()
                server: mysql_servers.Mariadb = request.getfixturevalue("mysql_server")
                my = stack.enter_context(contextlib.closing(server.connect(urlsplit(url).path[1:])))

                def run(sql: str, rows: Sequence[Row] | None = None) -> list[Row]:
                    with my.cursor() as cursor:
                        cursor.execute(sql) if rows is None else cursor.executemany(sql.replace("?", "%s"), rows)
                        return list(cursor.fetchall()) if rows is None else []

                return url, run
            url = request.getfixturevalue("postgres_database")()
            pg = stack.enter_context(psycopg.connect(url, autocommit=True))

            def query(sql: str, rows: Sequence[Row] | None = None) -> list[Row]:
                with pg.cursor() as cursor:
                    cursor.execute(sql) if rows is None else cursor.executemany(sql.replace("?", "%s"), rows)
                    return cursor.fetchall() if cursor.description and rows is None else []

            return url, query

        yield make


def source_of(folder: pathlib.Path, rows: Sequence[Row], columns: str = "n integer, a text, b text") -> str:
    """A SQLite file with the rows, numbered."""
    file = folder / "source.db"
    file.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as c, c:
        c.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})")
        marks = ", ".join("?" * len(columns.split(",")))
        c.executemany(f"INSERT INTO t VALUES (?, {marks})", [(i, *row) for i, row in enumerate(rows)])
    return f"sqlite:///{file}"


TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["a", "A", "a ", " a", "á", "Á", "a\u0301", "ä", "ae", "ß", "ss", "SS", "", " "]),
    st.sampled_from(["aa", "aab", "a\u00ad", "ﬁ", "fi", "it's", "back\\slash"]),
    st.text("aAbß \u0301é'\\\"", max_size=3),
)  # fmt: skip
#: What some key or other takes for the same text.
VARIANTS: list[Callable[[str], str]] = [
    str.upper, str.lower, lambda t: t + " ", lambda t: t.replace("ß", "ss"), str, lambda t: t + "a",
    lambda t: unicodedata.normalize("NFD", t), lambda t: unicodedata.normalize("NFD", t).replace("\u0301", ""),
]  # fmt: skip


def with_variants(rows: list[Row], ways: list[tuple[int, Callable[[str], str], Callable[[str], str]]]) -> list[Row]:
    """The rows, and some of them again with their texts spelled otherwise."""
    again = [(rows[i % len(rows)], one, other) for i, one, other in ways if rows]
    return rows + [(n, a and one(a), b and other(b)) for (n, a, b), one, other in again]


ROWS = st.builds(
    with_variants,
    st.lists(st.tuples(st.integers(0, 1), TEXTS, TEXTS), max_size=4),
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(VARIANTS), st.sampled_from([str, str, *VARIANTS])), max_size=3
    ),
)


@pytest.mark.server
@pytest.mark.parametrize("name", TARGETS)
def test_the_plan_says_what_the_target_s_own_key_says(
    name: str, made: Callable[[str], tuple[str, Sql]], tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    engine, statements = TARGETS[name]
    if name == "postgres nulls" and request.getfixturevalue("postgres_server").connect().info.server_version < 150000:
        pytest.skip("NULLS NOT DISTINCT is PostgreSQL's from 15 on")
    url, sql = made(engine)
    for statement in statements:
        sql(statement)
    judged = {True: 0, False: 0}

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=ROWS)
    def check(rows: list[Row]) -> None:
        if engine == "mysql" and "latin1" in name:
            rows = [r for r in rows if r[1] is None or r[1].isascii() or r[1] in ("á", "Á", "ä", "ß")]
        if name == "postgres char":  # a char(n) holds no spaces at the end: such values are refused by themselves
            rows = [(n, a and a.rstrip(" "), b) for n, a, b in rows]
        source = source_of(tmp_path, rows)
        taken = True
        try:
            sql("INSERT INTO t (id, n, a, b) VALUES (?, ?, ?, ?)", [(i, *row) for i, row in enumerate(rows)])
        except FAILURES:
            taken = False
        sql("DELETE FROM t")
        judged[taken] += 1
        report = rowferry.plan(source, url)
        reasons = "; ".join(report.blockers)
        assert (not report.blockers) == taken, (rows, reasons)
        assert taken or "takes keys of the source for one" in reasons

    check()
    assert judged[True]
    assert judged[False], "no keys collided: nothing was tried"


PAIRS = [
    ("sqlite", "a text COLLATE NOCASE PRIMARY KEY NOT NULL, v integer", "NOCASE"),
    ("mysql", "a varchar(40) COLLATE utf8mb4_general_ci PRIMARY KEY, v bigint", "utf8mb4_general_ci"),
    ("postgres", "a text COLLATE ci PRIMARY KEY, v bigint", "public.ci"),
]  # fmt: skip
ENGINES = pytest.mark.parametrize(("engine", "columns", "how"), PAIRS, ids=[p[0] for p in PAIRS])


def plain_source(folder: pathlib.Path, keys: Sequence[str]) -> str:
    """A table whose key is compared by its bytes."""
    file = folder / "source.db"
    file.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as c, c:
        c.execute("CREATE TABLE t (a text PRIMARY KEY NOT NULL, v integer)")
        c.executemany("INSERT INTO t VALUES (?, ?)", [(key, i) for i, key in enumerate(keys)])
    return f"sqlite:///{file}"


@pytest.fixture
def keyed(made: Callable[[str], tuple[str, Sql]]) -> Callable[[str, str], tuple[str, Sql]]:
    """A target with an empty table ``t`` of these columns."""

    def make(engine: str, columns: str) -> tuple[str, Sql]:
        url, sql = made(engine)
        if engine == "postgres":
            sql(CI)
        sql(f"CREATE TABLE t ({columns})")
        return url, sql

    return make


@pytest.mark.server
@ENGINES
def test_keys_that_are_one_are_refused_by_name_and_nothing_is_written(
    engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path
) -> None:
    url, sql = keyed(engine, columns)
    keys = [f"k{i}" for i in range(3000)] + [f"K{i}" for i in range(7)]
    source = plain_source(tmp_path, keys)
    with pytest.raises(RefusedError) as refused:
        rowferry.copy(source, url)
    said = str(refused.value)
    assert refused.value.exit_code == 2
    assert "7 such keys" in said
    assert "'K0' and 'k0'" in said
    assert "'K2' and 'k2', …" in said
    assert how in said
    assert "--on-error quarantine" in said
    assert rowferry.plan(source, url).exit_code == 2
    assert sql("SELECT count(*) FROM t") == [(0,)]
    assert rowferry.jobs(url) == []


@pytest.mark.server
@ENGINES
def test_keys_that_are_not_one_are_copied_and_the_report_says_what_was_asked(
    engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path
) -> None:
    url, sql = keyed(engine, columns)
    source = plain_source(tmp_path, [f"k{i}" for i in range(500)])
    planned = rowferry.plan(source, url)
    assert planned.exit_code == 0
    assert any("of 500 keys no two are one there" in note and how in note for note in planned.notes)
    report = rowferry.copy(source, url, verify=True)
    assert any("of 500 keys no two are one there" in note for note in report.notes)
    assert sql("SELECT count(*) FROM t") == [(500,)]


@pytest.mark.server
@ENGINES
def test_rows_of_the_target_count_too(engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path) -> None:
    url, sql = keyed(engine, columns)
    sql("INSERT INTO t VALUES ('B', 1), ('c', 2)")
    source = plain_source(tmp_path, ["a", "b", "c"])
    with pytest.raises(RefusedError, match=r"rows of the target have: 2 such keys \('b' and 'B', 'c' twice\)"):
        rowferry.copy(source, url, mode="append")
    # An upsert is meant to find its rows, but no other ones.
    with pytest.raises(RefusedError, match=r"rows of the target have: 1 such keys \('b' and 'B'\)"):
        rowferry.copy(source, url, mode="upsert")
    assert rowferry.copy(source, url, mode="upsert", where="a <> 'b'").exit_code == 0
    assert sql("SELECT a, v FROM t ORDER BY a") == [("a", 0), ("B", 1), ("c", 2)]
    assert rowferry.copy(source, url, mode="truncate").exit_code == 0
    assert sql("SELECT count(*) FROM t") == [(3,)]


@pytest.mark.server
@ENGINES
def test_a_row_that_comes_after_the_question_ends_in_the_target_s_own_error(
    engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path
) -> None:
    """Neither in an append nor in an upsert may a row take another's place."""
    url, sql = keyed(engine, columns)
    source = plain_source(tmp_path, ["a", "b"])

    def spoil(event: object) -> None:
        if isinstance(event, JobStarted):
            sql("INSERT INTO t VALUES ('B', 77)")

    for mode in ("append", "upsert"):
        sql("DELETE FROM t")
        with pytest.raises(DataError):
            rowferry.copy(source, url, mode=mode, on_event=spoil)
        assert sql("SELECT a, v FROM t") == [("B", 77)]


@pytest.mark.server
@ENGINES
def test_dedup_by_a_key_that_is_compared_loosely(
    engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path
) -> None:
    url, sql = keyed(engine, columns)
    file = tmp_path / "source.db"
    with contextlib.closing(sqlite3.connect(file)) as c, c:
        c.execute("CREATE TABLE t (a text NOT NULL, v integer)")
        c.executemany("INSERT INTO t VALUES (?, ?)", [("x", 1), ("x", 2), ("y", 3)])
    source, specs = f"sqlite:///{file}", {"t": {"dedup": {"by": ["a"], "keep": "last by v"}}}
    report = rowferry.copy(source, url, specs=specs, verify=True)
    assert report.tables[0].rows_deduplicated == 1
    assert sql("SELECT a, v FROM t ORDER BY a") == [("x", 2), ("y", 3)]
    with contextlib.closing(sqlite3.connect(file)) as c, c:
        c.execute("INSERT INTO t VALUES ('X', 9)")
    with pytest.raises(RefusedError, match=r"1 such keys \('X' and 'x'\)"):
        rowferry.copy(source, url, specs=specs, mode="truncate")
    # Brought to one spelling before, they are one key to the dedup as well.
    specs["t"] |= {"set": {"a": "lower(a)"}}
    assert rowferry.copy(source, url, specs=specs, mode="truncate").tables[0].rows_deduplicated == 2
    assert sql("SELECT a, v FROM t ORDER BY a") == [("x", 9), ("y", 3)]


@pytest.mark.server
@ENGINES
def test_dedup_against_the_target_leaves_out_its_own_spelling_alone(
    engine: str, columns: str, how: str, keyed: Any, tmp_path: pathlib.Path
) -> None:
    url, sql = keyed(engine, columns)
    sql("INSERT INTO t VALUES ('a', 100)")
    specs = {"t": {"dedup": {"by": ["a"], "against_target": True}}}
    report = rowferry.copy(plain_source(tmp_path, ["a", "b"]), url, specs=specs, mode="append")
    assert report.tables[0].rows_deduplicated == 1
    with pytest.raises(RefusedError, match=r"'A' and 'a'"):
        rowferry.copy(plain_source(tmp_path, ["A", "b"]), url, specs=specs, mode="append")


@pytest.mark.server
def test_what_the_source_s_own_keys_keep_apart_is_not_asked(
    tmp_path: pathlib.Path, mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str],
    postgres_server: servers.Postgres, postgres_database: Callable[[], str],
) -> None:  # fmt: skip
    my = [mysql_database(), mysql_database()]
    for url in my:
        mysql_server.execute(
            "CREATE TABLE t (a varchar(9) COLLATE utf8mb4_general_ci, n int NOT NULL UNIQUE, PRIMARY KEY (a, n))",
            database=urlsplit(url).path[1:],
        )
    pg = [postgres_database(), postgres_database()]
    for url in pg:
        with psycopg.connect(url, autocommit=True) as c:
            for statement in (CI, "CREATE TABLE t (a text COLLATE ci PRIMARY KEY, b text)",
                              "CREATE UNIQUE INDEX i ON t (lower(b))"):  # fmt: skip
                c.execute(statement)
    lite = [f"sqlite:///{tmp_path}/{name}.db" for name in "ab"]
    for name in "ab":
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db")) as c, c:
            c.execute("CREATE TABLE t (a text COLLATE NOCASE PRIMARY KEY NOT NULL, b text UNIQUE COLLATE RTRIM)")
    for source, target in (my, pg, lite):
        report = rowferry.plan(source, target)
        assert report.exit_code == 0
        assert not [note for note in report.notes if "unique key" in note]


@pytest.mark.server
def test_two_indexes_of_one_column_are_two_keys(tmp_path: pathlib.Path) -> None:
    """The source's key that compares by bytes says nothing of its other one's NOCASE."""
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as c, c:
        c.execute("CREATE TABLE t (a text PRIMARY KEY NOT NULL, n integer NOT NULL)")
        c.execute("CREATE UNIQUE INDEX i ON t (a COLLATE NOCASE, n)")
        c.executemany("INSERT INTO t VALUES (?, ?)", [("x", 1), ("X", 2)])
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as c, c:
        c.execute("CREATE TABLE t (a text COLLATE NOCASE PRIMARY KEY NOT NULL, n integer NOT NULL)")
    with pytest.raises(RefusedError, match="'X' and 'x'"):
        rowferry.copy(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db")


@pytest.mark.server
def test_where_no_temporary_table_may_be_made_it_is_said(
    tmp_path: pathlib.Path, mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str]
) -> None:
    name = urlsplit(mysql_database()).path[1:]
    mysql_server.execute(
        "CREATE TABLE t (a varchar(9) COLLATE utf8mb4_general_ci PRIMARY KEY, v bigint)", database=name
    )
    grants = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, LOCK TABLES"
    with mysql_server.account("no_temp", "canary-s3cret", f"{grants} ON `{name}`.*"):
        url = mysql_server.url_of(name, "no_temp", "canary-s3cret")
        source = plain_source(tmp_path, ["a", "b"])
        specs = {"t": {"dedup": {"by": ["a"]}}}
        with pytest.raises(RefusedError, match="could not be asked"):
            rowferry.copy(source, url, specs=specs)
        report = rowferry.copy(source, url)
        assert any("could not be asked" in note and "the key itself refuses them" in note for note in report.notes)


def test_what_sqlite_cannot_be_asked_is_refused_for_a_dedup_and_noted_else(tmp_path: pathlib.Path) -> None:
    source = plain_source(tmp_path, ["a", "b"])
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as c, c:
        c.execute("CREATE TABLE t (a text NOT NULL, v integer)")
        c.execute("CREATE UNIQUE INDEX i ON t (a COLLATE NOCASE) WHERE v > 0")
    url = f"sqlite:///{tmp_path}/b.db"
    with pytest.raises(RefusedError, match="could not be asked"):
        rowferry.copy(source, url, specs={"t": {"dedup": {"by": ["a"]}}})
    assert any("could not be asked" in note for note in rowferry.copy(source, url).notes)


@pytest.mark.server
def test_rows_that_collide_are_set_aside_where_that_is_asked_for(
    tmp_path: pathlib.Path, keyed: Callable[[str, str], tuple[str, Sql]]
) -> None:
    url, sql = keyed("mysql", PAIRS[1][1])
    report = rowferry.copy(plain_source(tmp_path, ["a", "A", "b"]), url, on_error="quarantine")
    assert report.status == "quarantined"
    assert sql("SELECT count(*) FROM t") == [(2,)]


@pytest.mark.server
def test_many_keys_are_asked_about_by_several_threads(
    tmp_path: pathlib.Path, keyed: Callable[[str, str], tuple[str, Sql]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rowferry import limits
    from rowferry.engine import colliding

    monkeypatch.setattr(limits, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(colliding, "PART_BYTES", 1 << 14)
    url, _ = keyed("postgres", PAIRS[2][1])
    keys = [f"{'k' * 50}{i}" for i in range(20_000)]
    notes = rowferry.plan(plain_source(tmp_path, keys), url, workers=3).notes
    assert any("of 20,000 keys no two are one there" in note for note in notes)
    with pytest.raises(RowferryError, match="1 such keys"):
        rowferry.copy(plain_source(tmp_path, [*keys, "K" * 50 + "19999"]), url, workers=3)


def test_asking_reads_no_faster_than_the_rate(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as c, c:
        c.execute("CREATE TABLE t (a text COLLATE NOCASE PRIMARY KEY NOT NULL, v integer)")
    source = plain_source(tmp_path, [f"k{i}" for i in range(2_000)])
    report = rowferry.copy(source, f"sqlite:///{tmp_path}/b.db", max_rows_per_s=2_000)
    assert report.seconds >= 2, "2,000 keys, and then 2,000 rows"


@pytest.mark.server
def test_long_keys_are_compared_whole_and_shown_in_part(
    keyed: Callable[[str, str], tuple[str, Sql]], tmp_path: pathlib.Path
) -> None:
    url, _ = keyed("mysql", "a longtext COLLATE utf8mb4_general_ci NOT NULL UNIQUE, v bigint")
    long = "x" * 70_000
    blockers = rowferry.plan(plain_source(tmp_path, [long + "a", long.upper() + "A", long + "b"]), url).blockers
    assert "1 such keys ('XXX" in blockers[0]
    assert len(blockers[0]) < 1_000
