"""Before an upsert: no key may come twice. Within a chunk the target says so; in another chunk the later row
would take the place of the earlier one, and nothing would tell."""

from __future__ import annotations

import threading

import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters.protocol import Source
from rowferry.convert import value_text
from rowferry.engine.narrow import bucket_sums, flags_of, groups_of
from rowferry.engine.scan import Consumer, Side, key_is_read
from rowferry.errors import DataError
from rowferry.limits import VERIFY_BUCKETS
from rowferry.model import TablePlan
from rowferry.stages.digest import DIGEST, Digester, digest_array

#: Key digests that are held at once (16 bytes each, and as much again several times while they are counted).
KEYS_HELD = 1_000_000


def is_unique_by_itself(plan: TablePlan) -> bool:
    """Whether a key of the source already keeps the upsert's key unique."""
    names = {c.source: c.target for c in plan.columns}
    shape = plan.derived or plan.source
    keys = (shape.primary_key, *shape.unique_keys)
    return any(key and {names.get(n) for n in key} <= set(plan.key) for key in keys)


def may_merge(plan: TablePlan, mode: str) -> bool:
    """Whether an upsert's key is compared by the target so that different keys of the source can be one there
    (NOCASE, citext): then only the target, read again, can tell whether a row has taken another's place."""
    key = [plan.target.column(name) for name in plan.key] if mode == "upsert" else []
    return any(column.collation is not None or column.type.kind == "opaque" for column in key)


def require_unique_keys(source: Source, plan: TablePlan, workers: int, stop: threading.Event | None = None) -> None:
    """Reads the key columns of the source, in memory that does not grow with the table (once for every KEYS_HELD
    rows, and once more). Raises DataError for a key that comes more than once; what the readers raise."""
    if is_unique_by_itself(plan) or not key_is_read(plan):
        return
    with Side(source, plan, "source", workers, columns=plan.key, stop=stop) as side:
        digesters = [side.digester() for _ in range(side.threads)]
        side.scan([digester.add_buckets for digester in digesters])
        rows = [bucket.rows for bucket in bucket_sums(digesters)]
        for group in groups_of([i for i in range(VERIFY_BUCKETS) if rows[i] > 1], rows, KEYS_HELD):
            repeated = _repeated(side, flags_of(group))
            if len(repeated):
                raise _named(side, repeated)


def _repeated(side: Side, flags: bytes) -> pa.Array:
    parts: list[pa.Array] = []

    def consumer(digester: Digester) -> Consumer:
        def take(batch: pa.RecordBatch) -> None:
            kept = digester.select(batch, flags)
            if kept.num_rows:
                parts.append(digest_array(digester.rows(kept)[0]))

        return take

    side.scan([consumer(side.digester()) for _ in range(side.threads)])
    counted = pa.table({"key": pa.chunked_array(parts, DIGEST)}).group_by("key").aggregate([([], "count_all")])
    return counted.filter(pc.greater(counted["count_all"], 1))["key"].combine_chunks()


def _named(side: Side, repeated: pa.Array) -> DataError:
    """The error, with the first such key that is found again."""
    found: list[str] = []

    def consumer(digester: Digester) -> Consumer:
        def take(batch: pa.RecordBatch) -> None:
            if found:
                return
            row = pc.index(pc.is_in(digest_array(digester.rows(batch)[0]), value_set=repeated), True).as_py()
            if row >= 0:
                forms = [form for _, form in side.forms]
                found.append(", ".join(value_text(batch.column(i), row, f) or "NULL" for i, f in enumerate(forms)))

        return take

    side.scan([consumer(side.digester()) for _ in range(side.threads)])
    names = ", ".join(c.source for c in side.columns)
    error = DataError(
        f"{len(repeated):,} keys ({names}) come more than once in the source: an upsert takes each once",
        value=found[0] if found else None,
        hint="leave rows out with --where, or choose another mode",
    )
    error.at(table=str(side.table.name))
    return error
