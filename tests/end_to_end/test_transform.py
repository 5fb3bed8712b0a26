"""copy --config with transforms, between real databases, against a row-by-row model: any number of workers, kill -9."""

from __future__ import annotations

import json
import os
import pathlib
import random
import sqlite3
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pymysql
import pytest

from end_to_end import ferry

ROWS = 12_000
#: Random instants at which a copy is killed, for each pair.
INSTANTS = int(os.environ.get("ROWFERRY_TEST_KILLS", "6"))

CONFIG = """
tables = ["people"]

[table.people]
set = { mail = "lower(trim(mail))", full_name = "first || ' ' || last", cents = "CAST(n * 100 AS BIGINT)" }
where = "gone IS NULL"
drop = ["first", "gone"]
rename = { id = "person", last = "family" }
constant = { origin = "old" }
order = ["person", "full_name"]

[[table.people.lookups]]
file = "areas.csv"
on = { area = "code" }
take = { area_name = "name" }
missing = "null"
"""
AREAS = "code,name\n" + "".join(f"{i},Area {i}\n" for i in range(9))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "60000")


def people() -> list[tuple[Any, ...]]:
    """(id, first, last, mail, n, area, gone)"""
    return [
        (
            i, f"F{i}", None if i % 11 == 0 else f"Łast{i % 83}", f" Mail{i}@X.org ", i * 3, i % 10,
            "x" if i % 4 == 0 else None,
        )
        for i in range(ROWS)
    ]  # fmt: skip


def expected() -> list[tuple[Any, ...]]:
    """What the config makes of the rows, one by one (``WANTED``)."""
    return [
        (
            i, None if last is None else f"{first} {last}", last, mail.strip().lower(), n, area, n * 100,
            f"Area {area}" if area < 9 else None, "old",
        )
        for i, first, last, mail, n, area, gone in people()
        if gone is None
    ]  # fmt: skip


WANTED = "person, full_name, family, mail, n, area, cents, area_name, origin"
MAKE = (
    "create table people (id integer primary key, first varchar(40), last varchar(40), mail varchar(60), "
    "n integer, area integer, gone varchar(5))"
)


class Ends:
    def __init__(self, source: str, target: str, fresh: Callable[[], None], rows: Callable[[], list[Any]]) -> None:
        self.source, self.target, self.fresh, self.rows = source, target, fresh, rows


def sqlite_to_duckdb(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    with sqlite3.connect(folder / "source.db") as c:
        c.execute(MAKE)
        c.executemany("insert into people values (?, ?, ?, ?, ?, ?, ?)", people())
    c.close()
    target = folder / "target.duckdb"

    def fresh() -> None:
        for path in folder.glob("target.duckdb*"):
            path.unlink()

    def rows() -> list[Any]:
        with duckdb.connect(str(target), read_only=True) as c:
            return c.execute(f"select {WANTED} from people order by 1").fetchall()

    return Ends(f"sqlite:///{folder / 'source.db'}", f"duckdb:///{target}", fresh, rows)


def _into_postgres(request: pytest.FixtureRequest, source: str) -> Ends:
    server = request.getfixturevalue("postgres_server")
    target = request.getfixturevalue("postgres_database")()

    def fresh() -> None:
        server.database(target.rpartition("/")[2])

    def rows() -> list[Any]:
        with psycopg.connect(target) as c:
            return c.execute(f"select {WANTED} from people order by 1").fetchall()

    return Ends(source, target, fresh, rows)


def postgres_to_postgres(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    source = request.getfixturevalue("postgres_database")()
    with psycopg.connect(source, autocommit=True) as c:
        c.execute(MAKE)
        with c.cursor() as cursor, cursor.copy("copy people from stdin") as copy:
            for row in people():
                copy.write_row(row)
        c.execute("analyze people")
    return _into_postgres(request, source)


def mysql_to_postgres(request: pytest.FixtureRequest, folder: pathlib.Path) -> Ends:
    source = request.getfixturevalue("mysql_database")()
    url = urlsplit(source)
    with pymysql.connect(
        host=url.hostname, port=url.port, user=url.username, password=url.password or "", database=url.path[1:],
        charset="utf8mb4", autocommit=True,
    ) as c, c.cursor() as cursor:  # fmt: skip
        cursor.execute(MAKE + " character set utf8mb4 collate utf8mb4_bin")
        cursor.executemany("insert into people values (%s, %s, %s, %s, %s, %s, %s)", people())
        cursor.execute("analyze table people")
    return _into_postgres(request, source)


PAIRS = [
    pytest.param(sqlite_to_duckdb, id="sqlite_duckdb"),
    pytest.param(postgres_to_postgres, id="postgres_postgres", marks=pytest.mark.server),
    pytest.param(mysql_to_postgres, id="mysql_postgres", marks=pytest.mark.server),
]
MakeEnds = Callable[[pytest.FixtureRequest, pathlib.Path], Ends]


def config_in(folder: pathlib.Path, text: str = CONFIG) -> str:
    (folder / "areas.csv").write_text(AREAS)
    (folder / "job.toml").write_text(text)
    return str(folder / "job.toml")


@pytest.mark.parametrize("make", PAIRS)
def test_any_number_of_workers_gives_what_the_model_gives(
    make: MakeEnds, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    ends, config = make(request, tmp_path), config_in(tmp_path)
    digests = set()
    for workers in (1, 2, 5):
        ends.fresh()
        run = ferry.run(
            "copy", ends.source, ends.target, "--config", config, "--verify", "--workers", str(workers), expect=0
        )
        table = run.table("people")
        assert ends.rows() == expected()
        assert (table["rows_read"], table["rows_filtered"]) == (ROWS, ROWS - len(expected()))
        assert table["rows_committed"] == table["rows_sent"] == len(expected())
        assert table["chunks"] > 3
        assert table["equal"] is True
        digests.add((table["digest_read"], table["digest_sent"], table["digest_target"]))
    assert len(digests) == 1
    assert "3,000 filtered" in run.output
    again = ferry.run("verify", ends.source, ends.target, "--config", config, expect=0)
    assert again.table("people")["equal"] is True


@pytest.mark.slow
@pytest.mark.parametrize("make", PAIRS)
def test_kill_at_random_instants_then_again_ends_exact(
    make: MakeEnds, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    ends, config = make(request, tmp_path), config_in(tmp_path)
    arguments = ["copy", ends.source, ends.target, "--config", config, "--workers", "2"]
    ends.fresh()
    full_s = ferry.run(*arguments, expect=0).seconds
    for seed in range(INSTANTS):
        ends.fresh()
        rng = random.Random(f"{make} {seed}")
        for _ in range(2):
            ferry.run_and_kill(*arguments, after_s=rng.uniform(0.3, 1.0) * full_s)
        again = ferry.run(*arguments)
        assert again.code in (0, 2), f"instant {seed}: {again.output[-2000:]}"
        assert ends.rows() == expected()
        if again.code == 0:
            table = again.table("people")
            assert (table["rows_read"], table["rows_filtered"]) == (ROWS, ROWS - len(expected()))


@pytest.mark.parametrize("make", PAIRS[:2])
def test_kill_after_some_chunks_then_resume_by_name_counts_all_of_them(
    make: MakeEnds, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    ends, config = make(request, tmp_path), config_in(tmp_path)
    arguments = ["copy", ends.source, ends.target, "--config", config, "--job", "nightly", "--workers", "1"]
    killed = ferry.run(*arguments, env={"ROWFERRY_FAILPOINT": "committed:3"})
    assert killed.code == -9
    # The config is not read again: what it said stands with the job.
    pathlib.Path(config).unlink()
    again = ferry.run("resume", ends.target, "nightly", "--source", ends.source, "--verify", expect=0)
    table = again.table("people")
    assert table["chunks_taken_over"] >= 2
    assert (table["rows_read"], table["rows_filtered"]) == (ROWS, ROWS - len(expected()))
    assert table["equal"] is True
    assert ends.rows() == expected()


@pytest.mark.slow
@pytest.mark.parametrize("make", PAIRS)
def test_several_tables_out_of_one_survive_a_kill_at_every_place(
    make: MakeEnds, request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = make(request, tmp_path)
    monkeypatch.setenv("ROWFERRY_CHUNK_BYTES", "400000")  # two chunks: each step before, between and after
    (tmp_path / "parting.py").write_text(
        "import pyarrow as pa\n"
        "def part(batch):\n"
        "    gone = pa.array([v is not None for v in batch.column('gone').to_pylist()], pa.bool_())\n"
        "    kept = pa.array([not v for v in gone.to_pylist()], pa.bool_())\n"
        "    return [(None, batch.filter(kept)), ('gone', batch.filter(gone).select(['id', 'gone']))]\n"
    )
    config = config_in(tmp_path, '[table.people]\npython = "parting:part"\npython_keeps_rows = false\n')
    arguments = ["copy", ends.source, ends.target, "--config", config, "--workers", "2", "--verify"]

    def check(run: Any) -> None:
        own = "(select count(*) from people), (select count(distinct id) from people)"
        query = f"select {own}, count(*), count(distinct id) from gone"
        if ends.target.startswith("duckdb"):
            with duckdb.connect(ends.target.removeprefix("duckdb:///"), read_only=True) as c:
                found = c.execute(query).fetchone()
        else:
            with psycopg.connect(ends.target) as p:
                found = p.execute(query).fetchone()
        gone = ROWS // 4
        assert found == (ROWS - gone, ROWS - gone, gone, gone)

    assert ferry.kill_at_every_failpoint(arguments, ends.fresh, check) > 12


def test_plan_with_a_config_shows_rows_before_and_after(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    ends, config = sqlite_to_duckdb(request, tmp_path), config_in(tmp_path)
    run = ferry.run("plan", ends.source, ends.target, "--config", config, expect=0)
    assert "before  id='1'" in run.output
    assert "after   person='1'" in run.output
    assert run.report is not None
    samples = run.report["tables"][0]["samples"]
    assert [len(s["after"]) for s in samples] == [0, 1, 1]
    assert json.loads(json.dumps(samples[1]["after"][0]))["full_name"] == "F1 Łast1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[table.peple]\ndrop = ['gone']", "means none of the tables"),
        ("[table.people]\nset = { x = 'nope' }", "no column 'nope'"),
        ("[table.people]\nset = { x = '1 +' }", "is no SQL expression"),
        ("[table.people]\ndrop = ['id']", "is of the primary key"),
        ("[table.people]\nwhere = 'gone IS'", "'gone IS' is no SQL expression"),
        ("[table.people]\nwere = 'true'", "did you mean where"),
        ("[table.people.dedup]\nby = ['nope']", "no column 'nope'"),
        ("[[table.people.lookups]]\nfile = 'twice.csv'\non = { area = 'code' }\ntake = { x = 'name' }", "twice.csv"),
    ],
)
def test_a_mistake_in_the_config_exits_with_2_and_writes_nothing(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest, text: str, said: str
) -> None:
    ends, config = sqlite_to_duckdb(request, tmp_path), config_in(tmp_path, text)
    (tmp_path / "twice.csv").write_text("code,name\n1,a\n1,b\n")
    run = ferry.run("copy", ends.source, ends.target, "--config", config, expect=2)
    assert said in run.output
    assert len(run.output.splitlines()) == 1
    assert not (tmp_path / "target.duckdb").exists()
