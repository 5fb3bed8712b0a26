"""--names and --match-names: what a name becomes, which names are one, and both on real databases."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rowferry
from rowferry import ConfigError, RefusedError, StoppedError
from rowferry.engine.progress import ChunkFinished
from rowferry.engine.spelling import fold, match_loosely, snake, speller

SNAKES = {
    "InvoiceLine": "invoice_line",
    "UnitPrice": "unit_price",
    "unit_price": "unit_price",
    "orderId": "order_id",
    # Acronyms are one word; their plural's s belongs to them.
    "HTTPServerID": "http_server_id",
    "XMLHttpRequest": "xml_http_request",
    "ID": "id",
    "URLs": "urls",
    "UserIDs": "user_ids",
    "VIPsOnly": "vips_only",
    "IsIn": "is_in",
    # Digits belong to the word before them.
    "MD5Sum": "md5_sum",
    "Address2": "address2",
    "Address2ID": "address2_id",
    "2ndLine": "2nd_line",
    "line2text": "line2text",
    # Without any small letter there are no words to be told apart.
    "ORDER_LINE2B": "order_line2b",
    "SHA256": "sha256",
    # Underscores stay as they are; what else stands between words becomes one.
    "_Private": "_private",
    "__Foo__Bar__": "__foo__bar__",
    "Order_Id": "order_id",
    "Order Details": "order_details",
    "Order - Id": "order_id",
    "Unit-Price": "unit_price",
    "dbo.OrderLine": "dbo_order_line",
    "Order _ Id": "order_id",
    # Other signs are part of the name.
    "Price$": "price$",
    "%Done": "%done",
    # Letters of all scripts.
    "GrößeInCm": "größe_in_cm",
    "ÉtatCivil": "état_civil",
    "E\u0301tatE\u0301tat": "e\u0301tat_e\u0301tat",
    "ДатаСоздания": "дата_создания",
    "名前Kana": "名前_kana",
    "名前": "名前",
    "": "",
}


@pytest.mark.parametrize(("name", "spelled"), SNAKES.items())
def test_snake_gives_what_the_documentation_says(name: str, spelled: str) -> None:
    assert snake(name) == spelled


def test_documentation_holds_the_examples() -> None:
    """Every example of docs/NAMES.md is true."""
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "NAMES.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) >= 8
    for _, name, spelled, *_ in rows:
        assert snake(name.strip(" `")) == spelled.strip(" `"), name


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=12))
@example("ΟδΟΣΑβ")
@example("İstanbulIıİ")
@example("ẞtraßeǅǆ")
@example("aA\u0301b")
def test_snake_any_name_is_stable_and_matches_itself_loosely(name: str) -> None:
    spelled = snake(name)
    assert snake(spelled) == spelled
    assert fold(spelled) == fold(name) == fold(name.lower())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["aB", "a_b", "AB", "c", "C_", "d"])), st.lists(st.sampled_from(["ab", "a_b", "C", "e"]))
)
def test_match_loosely_any_names_pairs_each_once_or_calls_them_ambiguous(ours: list[str], theirs: list[str]) -> None:
    found = match_loosely(ours, theirs, fold)
    assert len(set(found.pairs.values())) == len(found.pairs)
    for mine, its in found.pairs.items():
        assert fold(mine) == fold(its)
    told = set(found.pairs) | {n for mine, _ in found.ambiguous for n in mine}
    assert told == {n for n in ours if fold(n) in {fold(t) for t in theirs}}


def test_speller_knows_its_styles() -> None:
    assert [speller(style)("OrderLine") for style in ("as-is", "lower", "snake")] == [
        "OrderLine",
        "orderline",
        "order_line",
    ]


# --- copies ----------------------------------------------------------------------------------

SHOP = """
CREATE TABLE "InvoiceLine" ("InvoiceLineId" INTEGER PRIMARY KEY, "UnitPrice" NUMERIC(10,2) NOT NULL, "HTTPRef" TEXT);
INSERT INTO "InvoiceLine" VALUES (1, 0.99, 'a'), (2, 1.99, NULL), (3, 5, 'c ');
CREATE TABLE "MediaType" ("Name" TEXT, "KindID" INTEGER);
INSERT INTO "MediaType" VALUES ('mp3', 1), ('mp3', 1), ('aac', 2);
"""


class Shop:
    """A SQLite source, and targets of each kind that are looked at with plain drivers."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.path = folder / "shop.db"
        self.url = f"sqlite:///{self.path}"
        self.run(SHOP)

    def run(self, script: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    @property
    def duck(self) -> str:
        return f"duckdb:///{self.folder}/target.duckdb"

    def duck_rows(self, query: str) -> list[Any]:
        with duckdb.connect(str(self.folder / "target.duckdb")) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Shop:
    return Shop(tmp_path)


def pg(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows


@pytest.mark.parametrize(
    ("names", "table", "columns"),
    [
        ("as-is", "InvoiceLine", ["InvoiceLineId", "UnitPrice", "HTTPRef"]),
        ("lower", "invoiceline", ["invoicelineid", "unitprice", "httpref"]),
        ("snake", "invoice_line", ["invoice_line_id", "unit_price", "http_ref"]),
    ],
)
def test_copy_names_into_duckdb_makes_tables_columns_and_keys(
    shop: Shop, names: str, table: str, columns: list[str]
) -> None:
    report = rowferry.copy(shop.url, shop.duck, names=names, verify=True)
    assert report.tables[0].target == table
    made = shop.duck_rows(
        f"SELECT column_name FROM duckdb_columns() WHERE table_name = '{table}' ORDER BY column_index"
    )
    assert [name for (name,) in made] == columns
    (key,) = shop.duck_rows(
        f"SELECT constraint_column_names FROM duckdb_constraints() WHERE table_name = '{table}' "
        "AND constraint_type = 'PRIMARY KEY'"
    )
    assert key == ([columns[0]],)
    assert shop.duck_rows(f'SELECT * FROM "{table}" ORDER BY 1')[2][2] == "c "
    assert rowferry.verify(shop.url, shop.duck, match_names="loose").equal is True


@pytest.mark.server
def test_copy_names_into_postgres_every_mode_finds_the_tables_again(
    shop: Shop, postgres_database: Callable[[], str]
) -> None:
    url = postgres_database()
    rowferry.copy(shop.url, url, names="snake", verify=True)
    assert pg(url, "SELECT invoice_line_id, unit_price, http_ref FROM invoice_line WHERE invoice_line_id = 3")
    with pytest.raises(RefusedError, match="not empty"):
        rowferry.copy(shop.url, url, names="snake")
    shop.run('UPDATE "InvoiceLine" SET "HTTPRef" = \'new\' WHERE "InvoiceLineId" = 2')
    rowferry.copy(shop.url, url, names="snake", mode="upsert", tables=["InvoiceLine"], verify=True)
    assert pg(url, "SELECT http_ref FROM invoice_line ORDER BY invoice_line_id") == [("a",), ("new",), ("c ",)]
    for mode in ("truncate", "replace", "append"):
        tables = ["MediaType"] if mode == "append" else []
        rowferry.copy(shop.url, url, names="snake", mode=mode, tables=tables, verify=True)
    assert pg(url, "SELECT count(*) FROM media_type") == [(6,)]
    assert pg(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == [
        ("invoice_line",),
        ("media_type",),
    ]
    found = rowferry.verify(shop.url, url, match_names="loose", contained=True)
    assert found.equal is True
    assert [(t.source, t.target) for t in found.tables] == [
        ("InvoiceLine", "invoice_line"),
        ("MediaType", "media_type"),
    ]


@pytest.mark.server
def test_copy_names_from_postgres_to_postgres_hands_rows_on(postgres_database: Callable[[], str]) -> None:
    source, target = postgres_database(), postgres_database()
    pg(
        source,
        'CREATE SCHEMA "Sales"',
        'CREATE TABLE "Sales"."OrderLine" ("OrderId" bigint GENERATED ALWAYS AS IDENTITY, "LineNo" int, "Net" numeric, '
        'PRIMARY KEY ("OrderId", "LineNo"))',
        'INSERT INTO "Sales"."OrderLine" ("LineNo", "Net") SELECT i, i / 7.0 FROM generate_series(1, 1000) i',
    )
    rowferry.copy(source, target, names="snake", verify=True)
    assert pg(target, "SELECT count(*), sum(net) FROM sales.order_line") == pg(
        source, 'SELECT count(*), sum("Net") FROM "Sales"."OrderLine"'
    )
    assert pg(target, "INSERT INTO sales.order_line (line_no) VALUES (1) RETURNING order_id") == [(1001,)]
    found = rowferry.verify(source, target, match_names="loose")
    (row,) = found.tables[0].named
    assert (row.kind, row.key) == ("extra", {"order_id": "1001", "line_no": "1"})
    mended = rowferry.verify(source, target, match_names="loose", repair=True, delete_extra=True)
    assert mended.equal is True


def test_copy_names_new_name_of_table_wins_and_star_is_spelled(shop: Shop) -> None:
    report = rowferry.copy(shop.url, shop.duck, tables=["InvoiceLine:Lines", "Media*:my_*"], names="snake")
    assert [t.target for t in report.tables] == ["Lines", "my_media_type"]
    found = rowferry.verify(shop.url, shop.duck, tables=["InvoiceLine:Lines", "Media*:my_*"], match_names="loose")
    assert found.equal is True
    assert [t.target for t in found.tables] == ["Lines", "my_media_type"]


def test_copy_names_into_an_existing_table_of_that_spelling(shop: Shop) -> None:
    shop.duck_rows("CREATE TABLE media_type (kind_id INTEGER, note VARCHAR DEFAULT 'x', name VARCHAR)")
    rowferry.copy(shop.url, shop.duck, names="snake", tables=["MediaType"], verify=True)
    assert shop.duck_rows("SELECT * FROM media_type ORDER BY ALL") == [
        (1, "x", "mp3"),
        (1, "x", "mp3"),
        (2, "x", "aac"),
    ]
    with pytest.raises(RefusedError, match=r"'KindID': the target's table has no such column as 'kindid'"):
        rowferry.copy(shop.url, shop.duck, names="lower", tables=["MediaType:media_type"], mode="append")


def test_plan_names_collisions_are_refused_by_name(shop: Shop) -> None:
    shop.run(
        'CREATE TABLE "media_type" (x INTEGER); CREATE TABLE "Odd" ("UserId" TEXT, "user_id" TEXT, "User ID" TEXT);'
        'CREATE TABLE "RowferryJobs" (x INTEGER)'
    )
    plan = rowferry.plan(shop.url, shop.duck, names="snake")
    assert plan.exit_code == 2
    text = " ".join(plan.blockers)
    assert "'MediaType' and 'media_type' would both be named 'media_type'" in text
    assert "'rowferry_jobs': the name is kept for rowferry's own tables" in text
    plan = rowferry.plan(shop.url, shop.duck, names="snake", tables=["Odd"])
    (odd,) = [t for t in plan.tables if t.refusals]
    assert [(r.column, r.reason) for r in odd.refusals] == [
        ("user_id", "and 'UserId' would both be named 'user_id'"),
        ("User ID", "and 'UserId' would both be named 'user_id'"),
    ]
    with pytest.raises(RefusedError, match="would both be named"):
        rowferry.copy(shop.url, shop.duck, names="snake")
    assert not (shop.folder / "target.duckdb").exists()
    skipped = {"Odd.user_id": "skip", "Odd.User ID": "skip"}
    rowferry.copy(shop.url, shop.duck, names="snake", tables=["Odd"], policies=skipped)


def test_copy_names_collision_in_an_existing_table_is_refused(shop: Shop) -> None:
    shop.run('CREATE TABLE "Odd" ("UserId" TEXT, "user_id" TEXT)')
    shop.duck_rows("CREATE TABLE odd (user_id VARCHAR)")
    with pytest.raises(RefusedError, match="'user_id': and 'UserId' would both be named 'user_id'"):
        rowferry.copy(shop.url, shop.duck, names="snake", tables=["Odd"])


@pytest.mark.server
def test_plan_names_longer_than_the_target_holds_are_refused(shop: Shop, postgres_database: Callable[[], str]) -> None:
    """63 bytes as they are, and more with the underscores."""
    name = "Ab" * 31
    shop.run(f'CREATE TABLE "{name}" (x INTEGER); CREATE TABLE "T" ("{name}" INTEGER)')
    url = postgres_database()
    assert rowferry.plan(shop.url, url, tables=[name, "T"]).exit_code == 0
    plan = rowferry.plan(shop.url, url, tables=[name], names="snake")
    assert any("92 bytes long" in b for b in plan.blockers), plan.blockers
    plan = rowferry.plan(shop.url, url, tables=["T"], names="snake")
    (refusal,) = plan.tables[0].refusals
    assert refusal.column == name
    assert "92 bytes long" in refusal.reason


@pytest.mark.parametrize("how", ["resume", "again"])
def test_copy_that_was_stopped_goes_on_under_its_names(shop: Shop, how: str) -> None:
    stop = threading.Event()

    def event(event: object) -> None:
        if isinstance(event, ChunkFinished):
            stop.set()

    with pytest.raises(StoppedError):
        rowferry.copy(shop.url, shop.duck, names="snake", workers=1, on_event=event, stop=stop)
    if how == "resume":
        report = rowferry.resume(shop.duck, verify=True)
    else:
        # Another spelling finds no job to go on with, and the tables of its own are not there yet.
        assert rowferry.copy(shop.url, shop.duck, names="lower", tables=["MediaType"]).tables[0].chunks_taken_over == 0
        report = rowferry.copy(shop.url, shop.duck, names="snake", verify=True)
    assert report.equal is True
    assert sum(t.chunks_taken_over for t in report.tables) >= 1
    assert shop.duck_rows("SELECT count(*) FROM media_type") == [(3,)]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "sqlite"])
def test_copy_names_into_files_and_back(shop: Shop, kind: str) -> None:
    url = f"{kind}:///{shop.folder}/out.{kind}"
    report = rowferry.copy(shop.url, url, names="snake", verify=True)
    assert [t.target for t in report.tables] == ["invoice_line", "media_type"]
    assert rowferry.verify(shop.url, url, match_names="loose").equal is True
    assert rowferry.verify(url, shop.url, match_names="loose").equal is True
    rowferry.copy(shop.url, url, names="snake", mode="replace", verify=True)


def test_copy_another_spelling_is_another_job(shop: Shop) -> None:
    rowferry.copy(shop.url, shop.duck, names="snake", job="one")
    again = rowferry.copy(shop.url, shop.duck, names="snake", job="one")
    assert again.job == "one"
    with pytest.raises(ConfigError, match="another command"):
        rowferry.copy(shop.url, shop.duck, names="lower", job="one")
    with pytest.raises(ConfigError, match="unknown --names 'camel'"):
        rowferry.copy(shop.url, shop.duck, names="camel")


def test_command_line_and_config_say_the_names(shop: Shop) -> None:
    config = shop.folder / "job.toml"
    config.write_text('names = "snake"\nmatch_names = "loose"\ntables = ["MediaType"]\n')
    run = [sys.executable, "-m", "rowferry"]
    ends = [shop.url, shop.duck, "--config", str(config)]
    for arguments, expected in (
        ([*run, "plan", *ends], "MediaType → media_type"),
        ([*run, "copy", *ends, "--names", "lower"], "MediaType → mediatype"),
        ([*run, "verify", *ends], "MediaType → mediatype"),
        ([*run, "copy", *ends], "MediaType → media_type"),
    ):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, expected in done.stdout) == (0, True), done.stdout + done.stderr
    # Now the target has it twice.
    done = subprocess.run([*run, "verify", *ends], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'mediatype'" in done.stderr and "'media_type'" in done.stderr


# --- verify ----------------------------------------------------------------------------------


def loose(shop: Shop, **options: Any) -> rowferry.Report:
    return rowferry.verify(shop.url, shop.duck, match_names="loose", **options)


def test_verify_loose_names_the_key_of_a_changed_row_and_repairs_it(shop: Shop) -> None:
    rowferry.copy(shop.url, shop.duck, names="snake")
    shop.duck_rows("UPDATE invoice_line SET http_ref = 'c' WHERE invoice_line_id = 3")
    shop.duck_rows("DELETE FROM invoice_line WHERE invoice_line_id = 1")
    shop.duck_rows("INSERT INTO invoice_line VALUES (9, 1, NULL)")
    shop.duck_rows("DELETE FROM media_type WHERE name = 'aac'")
    found = loose(shop)
    assert found.exit_code == 1
    lines, kinds = found.tables
    assert (lines.missing, lines.extra, lines.changed) == (1, 1, 1)
    changed = next(row for row in lines.named if row.kind == "changed")
    assert changed.key == {"invoice_line_id": "3"}
    assert (changed.source, changed.target) == ({"http_ref": "c "}, {"http_ref": "c"})
    assert (kinds.missing, kinds.extra, kinds.changed) == (1, 0, 0)
    assert loose(shop, repair=True).exit_code == 1
    assert loose(shop, repair=True, delete_extra=True).exit_code == 0
    assert shop.duck_rows("SELECT http_ref FROM invoice_line ORDER BY 1 NULLS LAST") == [("a",), ("c ",), (None,)]


def test_verify_exact_says_that_loose_would_pair(shop: Shop) -> None:
    rowferry.copy(shop.url, shop.duck, names="snake", tables=["InvoiceLine", "MediaType:MediaType"])
    found = rowferry.verify(shop.url, shop.duck)
    assert found.exit_code == 1
    assert "'InvoiceLine' is called 'invoice_line' in the target" in " ".join(found.notes)
    (kinds,) = [t for t in found.tables if t.target == "MediaType"]
    assert kinds.equal is False
    assert any("--match-names loose" in reason for reason in kinds.not_compared)


def test_verify_loose_ambiguous_tables_are_refused_by_name_unless_told(shop: Shop) -> None:
    rowferry.copy(shop.url, shop.duck, names="snake")
    rowferry.copy(shop.url, shop.duck, names="lower")
    with pytest.raises(
        RefusedError, match="'InvoiceLine' of the source and 'invoice_line', 'invoiceline' of the target"
    ):
        loose(shop)
    found = loose(shop, tables=["InvoiceLine:invoiceline", "MediaType:media_type"])
    assert found.equal is True
    assert [t.target for t in found.tables] == ["invoiceline", "media_type"]


def test_verify_loose_ambiguous_columns_are_refused_by_name_unless_left_out(shop: Shop) -> None:
    shop.run(
        'CREATE TABLE "Odd" ("UserId" TEXT, "user_id" TEXT, v INTEGER); INSERT INTO "Odd" VALUES (\'a\', \'b\', 1)'
    )
    shop.duck_rows("CREATE TABLE odd AS SELECT 'b' user__id, 1 v")
    with pytest.raises(RefusedError, match="columns 'UserId', 'user_id' of the source and 'user__id' of the target"):
        loose(shop, tables=["Odd"])
    assert loose(shop, tables=["Odd"], policies={"Odd.UserId": "skip"}).equal is True
    assert loose(shop, tables=["Odd"], policies={"Odd.user_id": "skip"}).exit_code == 1
    both = {"Odd.user_id": "skip", "Odd.UserId": "skip"}
    assert loose(shop, tables=["Odd"], policies=both).equal is True


def test_verify_loose_same_names_on_both_sides_are_no_riddle(shop: Shop) -> None:
    target = shop.folder / "twin.db"
    shop.run('CREATE TABLE t (a_b INTEGER, ab INTEGER, "a_" INTEGER); INSERT INTO t VALUES (1, 2, 3)')
    shop.run("CREATE TABLE t_ (a_b INTEGER); INSERT INTO t_ VALUES (4)")
    target.write_bytes(shop.path.read_bytes())
    found = rowferry.verify(shop.url, f"sqlite:///{target}", match_names="loose")
    assert found.equal is True
    assert all(t.source == t.target for t in found.tables)


def test_verify_loose_key_of_the_target_alone_names_rows(shop: Shop) -> None:
    shop.run('CREATE TABLE "NoKey" ("RowId" INTEGER, "V" TEXT); INSERT INTO "NoKey" VALUES (1, \'a\'), (2, \'b\')')
    shop.duck_rows("CREATE TABLE no_key (v VARCHAR, row_id INTEGER PRIMARY KEY)")
    shop.duck_rows("INSERT INTO no_key VALUES ('a', 1), ('B', 2)")
    (table,) = loose(shop, tables=["NoKey"]).tables
    assert (table.missing, table.extra, table.changed) == (0, 0, 1)
    assert table.named[0].key == {"row_id": "2"}


def test_copy_append_under_names_verifies_what_was_added(shop: Shop) -> None:
    shop.duck_rows("CREATE TABLE media_type (name VARCHAR, kind_id INTEGER DEFAULT 0)")
    shop.duck_rows("INSERT INTO media_type VALUES ('old', 1)")
    report = rowferry.copy(shop.url, shop.duck, names="snake", tables=["MediaType"], mode="append", verify=True)
    assert report.equal is True
    assert shop.duck_rows("SELECT count(*) FROM media_type") == [(4,)]
    found = loose(shop, tables=["MediaType"])
    assert (found.exit_code, found.tables[0].extra) == (1, 1)
