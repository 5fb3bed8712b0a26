"""Every pair of engines: a table of all types with their extremes goes there and back and is what it was.

There and back are two copies by the public function, each proven by a re-read; the judgement is a
plain driver's: the engine's own text of every value in the first database and in the last. A
column that the plan refuses must be one of those that are named here.
"""

from __future__ import annotations

import contextlib
import decimal
import json
import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import rowferry
from adapters.extremes import TYPES, files_table
from adapters.quirks import QUIRKS, Parquet, Quirks, make_quirks, quoted

#: Columns that a pair refuses in one of its two copies, with the reason.
REFUSED: dict[tuple[str, str], set[str]] = {}
#: Pairs after which the declared types are also what they were: the native type travelled along.
TYPES_KEPT = {(name, name) for name in ("sqlite", "duckdb", "postgres", "mysql")} | {
    ("postgres", b) for b in ("parquet", "arrow", "duckdb", "sqlite")
}

PAIRS = [
    pytest.param(a, b, id=f"{a}-{b}", marks=[pytest.mark.server] if QUIRKS[a].server or QUIRKS[b].server else [])
    for a in QUIRKS
    for b in QUIRKS
]


#: What MySQL's floats cannot hold: they are finite, and its −0.0 is printed as 0.
MYSQL_UNFIT = {"'-0.0'", "'inf'", "'-inf'", "'Infinity'", "'-Infinity'", "9e999", "-9e999"}


def make(engine: Quirks, url: str, other: str) -> None:
    """The table ``t`` of all types, without the single values that ``other`` refuses in mid-copy
    (``test_contract.py`` holds it to that): SQLite keeps −0.0 as 0.0, PostgreSQL has no NUL in a text,
    MySQL neither −0.0 nor infinities."""
    sqlite = "sqlite" in (engine.engine, other)
    if isinstance(engine, Parquet):
        table = files_table(0.5 if sqlite or other == "mysql" else -0.0, 1.5 if other == "mysql" else float("inf"))
        engine.load(url, "t", table.append_column("row_", pa.array([0, 1, 2], pa.int32())))
        return
    unfit = {"'-0.0'", "-0.0"} if sqlite else set()
    unfit |= {"'a' || char(0) || 'b'"} if other == "postgres" else set()
    unfit |= MYSQL_UNFIT if other == "mysql" else set()
    types = TYPES[engine.engine]
    declared = ", ".join(f"{quoted(name)} {type_}" for name, (type_, _) in types.items())
    columns = [[v for v in literals if v not in unfit] for _, literals in types.values()]
    statements = [f"CREATE TABLE t (row_ INTEGER, {declared})"]
    for row in range(max(map(len, columns)) + 1):
        values = [literals[row] if row < len(literals) else "NULL" for literals in columns]
        statements.append(f"INSERT INTO t VALUES ({row}, {', '.join(values)})")
    engine.execute(url, *statements)


def dump(engine: Quirks, url: str) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Declared types and values of ``t`` in the engine's own text, by column, in the order of ``row_``."""
    path = url.partition(":///")[2]
    if isinstance(engine, Parquet):
        table = pa.concat_tables([engine._read(p) for p in engine.files(url, "t")]).sort_by("row_")
        return {f.name: str(f.type) for f in table.schema}, {n: table[n].to_pylist() for n in table.column_names}
    if engine.engine == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as c:
            types = {r[1]: r[2] for r in c.execute("PRAGMA table_info(t)")}
            shown = ", ".join(f"typeof({quoted(n)}) || ' ' || quote({quoted(n)})" for n in types)
            rows = c.execute(f"SELECT {shown} FROM t ORDER BY row_").fetchall()
    elif engine.engine == "duckdb":
        with contextlib.closing(duckdb.connect(path)) as c:
            c.execute("SET TimeZone = 'UTC'")
            types = {r[0]: r[1] for r in c.execute("DESCRIBE t").fetchall()}
            rows = c.execute(
                f"SELECT {', '.join(f'{quoted(n)}::VARCHAR' for n in types)} FROM t ORDER BY row_"
            ).fetchall()
    elif engine.engine == "mysql":
        types, rows = dump_mysql(engine, url)
    else:
        with engine._open(url) as c:  # type: ignore[attr-defined]
            c.execute("SET TimeZone = 'UTC'")
            found = c.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            ).fetchall()
            types = dict(found)
            rows = c.execute(f"SELECT {', '.join(f'{quoted(n)}::text' for n in types)} FROM t ORDER BY row_").fetchall()
    return types, {name: [row[i] for row in rows] for i, name in enumerate(types)}


#: Columns of MySQL's extremes that come back from some engines as another type: how their text is read, so that
#: the value is compared (a SET as an array of JSON, a TIME as an interval, a YEAR as a number).
MYSQL_MEANS: dict[str, Callable[[str], Any]] = {
    "year_": int,
    "set_": lambda text: json.loads(text) if text.startswith("[") else text.split(",") if text else [],
    "time_": lambda text: microseconds(text),
    "f32": float,
    "json_": json.loads,
}


def microseconds(text: str) -> int:
    """Of ``-838:59:59.000000``, or of ISO 8601's ``PT-3020399S``."""
    if text.startswith("PT"):
        return int(decimal.Decimal(text[2:-1]) * 1_000_000)
    hours, minutes, seconds = text.lstrip("-").split(":")
    total = (int(hours) * 60 + int(minutes)) * 60_000_000 + int(decimal.Decimal(seconds) * 1_000_000)
    return -total if text.startswith("-") else total


def dump_mysql(engine: Quirks, url: str) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Types with their character sets, and values: floats as doubles, texts as text, the rest as its bytes."""
    with engine._open(url) as cursor:  # type: ignore[attr-defined]
        cursor.execute(
            "SELECT column_name, CONCAT_WS(' ', column_type, character_set_name), "
            "data_type RLIKE 'blob|binary|point|geometry|bit|uuid' FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 't' ORDER BY ordinal_position"
        )
        found = cursor.fetchall()
        shown = [
            f"HEX({quoted(n)})" if is_bytes else f"CAST({quoted(n)}{' * 1e0' * (t == 'float')} AS CHAR)"
            for n, t, is_bytes in found
        ]
        cursor.execute(f"SELECT {', '.join(shown)} FROM t ORDER BY row_")
        means = [MYSQL_MEANS.get(name, str) for name, _, _ in found]
        rows = [
            tuple(None if v is None else mean(v) for mean, v in zip(means, row, strict=True))
            for row in cursor.fetchall()
        ]
        return {name: type_ for name, type_, _ in found}, rows


def refused(source: str, target: str, policies: dict[str, str]) -> set[str]:
    plan = rowferry.plan(source, target, policies=policies)
    assert not plan.blockers
    assert not plan.missing_privileges
    found = {r.column for t in plan.tables for r in t.refusals}
    assert None not in found
    return {str(name) for name in found}


@pytest.mark.parametrize(("there", "between"), PAIRS)
def test_all_types_come_back_as_they_were(
    there: str, between: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    a, b = make_quirks(there, tmp_path, request), make_quirks(between, tmp_path, request)
    first, middle, last = a.url(), b.url(), a.url()
    make(a, first, between)
    skipped = refused(first, middle, {})
    policies = {f"t.{name}": "skip" for name in skipped}
    report = rowferry.copy(first, middle, policies=policies, verify=True)
    assert report.equal is True
    back = refused(middle, last, {})
    report = rowferry.copy(middle, last, policies={f"t.{name}": "skip" for name in back}, verify=True)
    assert report.equal is True
    types, values = dump(a, first)
    types_back, values_back = dump(a, last)
    left_out = skipped | back
    kept = [name for name in values if name not in left_out]
    assert {n: values_back[n] for n in kept} == {n: values[n] for n in kept}
    if (there, between) in TYPES_KEPT:
        assert {n: types_back[n] for n in kept} == {n: types[n] for n in kept}
    assert left_out == REFUSED.get((there, between), set()), f"refused there: {skipped}, back: {back}"
