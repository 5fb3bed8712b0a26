"""A rename, a cast and two expressions over lineitem: the transform stage, and beside it DuckDB's SQL and Polars.

    python benchmarks/kernels/bench_transform.py [--rows 1000000] [--batch-rows 16384] [--seed 42]

All get the same Arrow batches one after the other, as a copy does, and give Arrow batches; each on one thread.
*duckdb* prepares nothing and names all columns in one SELECT per batch, *polars* runs its lazy expressions per
batch; with *whole* both see all batches at once, as a script that holds the table in memory would. Their results
are held against the stage's, row for row. *numbers* and *choices* are two expressions of that kind each, of the stage
(which works them out by Arrow's kernels) and of DuckDB. *rules* are the ready-made rules alone. Each line gives
rows/s, bytes/s (of Arrow buffers), CPU seconds per million rows and peak memory of the process so far.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import sys
from collections.abc import Callable

# Before polars is imported: a copy's worker is one thread, and CPU seconds are compared.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("RF_BENCHMARK_KEY", "0123456789abcdef0123456789abcdef")

import duckdb
import polars
import pyarrow as pa

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lineitem
from measuring import measure_batches
from rowferry.stages import ready_made, transform
from rowferry.stages.flow import OutColumn
from rowferry.stages.spec import Rule, TableSpec
from rowferry.types import from_arrow

REPEATS = 3
STARTED = "2026-01-01T00:00:00+00:00"
#: What is asked of all three: l_comment is renamed, l_linenumber cast, two columns are worked out.
SPEC = TableSpec(
    set={"l_shipmode": "lower(trim(l_shipmode))", "l_status": "l_returnflag || '-' || l_linestatus"},
    cast={"l_linenumber": "int64"},
    rename={"l_comment": "remark"},
)
_KEPT = [name for name in lineitem.SCHEMA.names if name not in ("l_linenumber", "l_shipmode", "l_comment")]
SQL = f"""
select l_orderkey, l_partkey, l_suppkey, l_linenumber::bigint as l_linenumber, {", ".join(_KEPT[3:-1])},
  l_shipinstruct, lower(trim(l_shipmode)) as l_shipmode, l_comment as remark,
  l_returnflag || '-' || l_linestatus as l_status
from lines
"""
#: Further expressions, by kind: column → SQL.
KINDS = {
    "numbers": {"l_total": "l_quantity * l_extendedprice", "l_next": "l_linenumber + 1"},
    "choices": {
        "l_kind": "CASE WHEN l_quantity > 25 THEN 'large' ELSE 'small' END",
        "l_tax": "coalesce(l_tax, 0.00)",
    },
}
EXPRESSIONS = [
    polars.col("l_linenumber").cast(polars.Int64),
    polars.col("l_shipmode").str.strip_chars(" ").str.to_lowercase(),
    polars.concat_str("l_returnflag", polars.lit("-"), "l_linestatus").alias("l_status"),
]
RULES = {
    "rule trim": Rule(("l_comment",), "trim"),
    "rule unicode": Rule(("l_comment",), "unicode", form="NFC"),
    "rule truncate": Rule(("l_comment",), "truncate", length=20),
    "rule hash": Rule(("l_comment",), "hash", key_env="RF_BENCHMARK_KEY"),
    "rule blake2b": Rule(("l_comment",), "hash", key_env="RF_BENCHMARK_KEY", algorithm="blake2b"),
    "rule email": Rule(("l_comment",), "redact", how="email"),
    "rule json_put": Rule(("l_shipmode", "l_quantity", "l_orderkey"), "json_put", into="j"),
}


def opened(spec: TableSpec) -> transform.TransformWorker:
    fields = [(f.name, from_arrow(f.type), f.nullable) for f in lineitem.SCHEMA]
    stage = transform.open(spec, fields, table="lineitem", started=STARTED, folder=".")  # type: ignore[arg-type]
    assert stage.reads == tuple(lineitem.SCHEMA.names)
    return stage.worker()


@functools.cache
def worker() -> transform.TransformWorker:
    """Opened once, as in a copy: what that costs is measured end to end, not here."""
    return opened(SPEC)


@functools.cache
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def staged(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [out for batch in batches for _, out in worker().apply(batch).batches]


def duckdb_sql(batches: list[pa.RecordBatch], sql: str = SQL) -> list[pa.RecordBatch]:
    return [out for batch in batches for out in duckdb_whole([batch], sql)]


def duckdb_whole(batches: list[pa.RecordBatch], sql: str = SQL) -> list[pa.RecordBatch]:
    connection().register("lines", pa.Table.from_batches(batches))
    return list(connection().sql(sql).to_arrow_table().to_batches())


def kind(made: dict[str, str]) -> dict[str, Callable[[list[pa.RecordBatch]], list[pa.RecordBatch]]]:
    """Expressions of one kind, by the stage and by DuckDB."""
    stage = opened(TableSpec(set=made))
    added = [f"{text} as {name}" for name, text in made.items() if name not in lineitem.SCHEMA.names]
    columns = [f"{made[name]} as {name}" if name in made else name for name in lineitem.SCHEMA.names]
    sql = f"select {', '.join(columns + added)} from lines"
    return {
        "transform": lambda batches: [out for batch in batches for _, out in stage.apply(batch).batches],
        "duckdb": lambda batches: duckdb_sql(batches, sql),
    }


def polars_expressions(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [out for batch in batches for out in polars_whole([batch])]


def polars_whole(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    frame = polars.from_arrow(pa.Table.from_batches(batches))
    assert isinstance(frame, polars.DataFrame)
    # utf8 as a database's writer takes it, where polars itself has string views.
    done = frame.lazy().with_columns(EXPRESSIONS).rename({"l_comment": "remark"}).collect()
    return done.to_arrow(compat_level=polars.CompatLevel.oldest()).to_batches()


def ruled(rule: Rule) -> Callable[[list[pa.RecordBatch]], list[pa.RecordBatch]]:
    fields = [OutColumn(f.name, from_arrow(f.type), False) for f in lineitem.SCHEMA]  # type: ignore[arg-type]
    plan = ready_made.plan(rule, fields, table="lineitem")
    return lambda batches: [plan.apply(batch).batch for batch in batches]


def same(one: list[pa.RecordBatch], other: list[pa.RecordBatch]) -> bool:
    """Whether both hold the same rows in the same columns, whatever Arrow layout each has for them."""
    first, second = pa.Table.from_batches(one), pa.Table.from_batches(other)
    return first.equals(second.select(first.schema.names).cast(first.schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-rows", type=int, default=16_384)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    batches = list(lineitem.batches(options.rows, batch_rows=options.batch_rows, seed=options.seed))
    print(f"{options.rows} rows of lineitem, batches of {options.batch_rows}, seed {options.seed}")
    ways = {"transform": staged, "duckdb": duckdb_sql, "polars": polars_expressions,
            "duckdb, whole": duckdb_whole, "polars, whole": polars_whole}  # fmt: skip
    wanted = staged(batches[:3])
    assert all(same(wanted, way(batches[:3])) for way in ways.values())
    cost = {name: measure_batches(name, way, batches, REPEATS) for name, way in ways.items()}
    for name, made in KINDS.items():
        both = kind(made)
        assert same(both["transform"](batches[:3]), both["duckdb"](batches[:3]))
        for way, work in both.items():
            measure_batches(f"{way}, {name}", work, batches, REPEATS)
    for name, rule in RULES.items():
        measure_batches(name, ruled(rule), batches, REPEATS)
    print(f"duckdb / transform {cost['duckdb'] / cost['transform']:.1f}×, "
          f"polars / transform {cost['polars'] / cost['transform']:.1f}×")  # fmt: skip


if __name__ == "__main__":
    main()
