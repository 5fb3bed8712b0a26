"""A table of events as web applications write them: Arrow batches, seeded, of any size, made here.

Seven columns, of what lineitem lacks: a random uuid as key, a timestamp with time zone (microseconds), JSON,
text of several scripts with everything that text formats must escape, bytes, and NULLs in three of them.

A batch depends on the seed, its place and its size alone::

    for batch in events.batches(100_000): ...
    reader = events.reader(1_000_000)            # a lazy pyarrow.RecordBatchReader
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator

import pyarrow as pa

ROWS_PER_SCALE_FACTOR = 1_000_000
BATCH_ROWS = 16_384
SCHEMA = pa.schema(
    [
        pa.field("e_id", pa.utf8(), False),  # a uuid's canonical text
        pa.field("e_at", pa.timestamp("us", "UTC"), False),
        pa.field("e_actor", pa.int64()),
        pa.field("e_kind", pa.utf8(), False),
        pa.field("e_payload", pa.utf8(), False),  # JSON
        pa.field("e_title", pa.utf8()),
        pa.field("e_body", pa.binary()),
    ]
)
PRIMARY_KEY = ("e_id",)

_FIRST_MICROSECOND = 1_577_836_800_000_000  # 2020-01-01
_SPAN_MICROSECONDS = 4 * 365 * 86_400_000_000
_KINDS = ("signup", "login", "view", "purchase", "refund", "logout")
#: Of one to four bytes a character; quotes, tabs, line ends, backslashes, and the words that stand for NULL.
_TITLES = (
    "plain ascii, comma and \"quotes\"", "Größenänderung übermäßig", "Съешь ещё этих мягких булок", "日本語の見出し",
    "emoji 🚢 → 🏝️", "tab\there", "two\nlines", "back\\slash \\N", "", "NULL", "\\.", "naïve café, 50 %", "العربية",
    "it's", "space after ", "x" * 120, "'; drop table events; --",
)  # fmt: skip
_NULL_ONE_IN = 16


def rows_of(scale_factor: float) -> int:
    """Rows of a scale factor (1: a million)."""
    return round(ROWS_PER_SCALE_FACTOR * scale_factor)


def batches(
    rows: int | None = None, *, scale_factor: float = 1.0, batch_rows: int = BATCH_ROWS, seed: int = 42
) -> Iterator[pa.RecordBatch]:
    """Streams ``rows`` rows (or those of ``scale_factor``) in batches of at most ``batch_rows``."""
    count = rows_of(scale_factor) if rows is None else rows
    for index, start in enumerate(range(0, count, batch_rows)):
        yield _batch(random.Random(f"{seed}/{index}"), start, min(batch_rows, count - start))


def reader(
    rows: int | None = None, *, scale_factor: float = 1.0, batch_rows: int = BATCH_ROWS, seed: int = 42
) -> pa.RecordBatchReader:
    """The same as a lazy reader, for whatever takes one."""
    stream = batches(rows, scale_factor=scale_factor, batch_rows=batch_rows, seed=seed)
    return pa.RecordBatchReader.from_batches(SCHEMA, stream)


def _batch(draw: random.Random, start: int, rows: int) -> pa.RecordBatch:
    def mostly(value: object) -> object:
        return value if draw.randrange(_NULL_ONE_IN) else None

    def payload(number: int) -> str:
        return json.dumps(
            {"n": number, "title": draw.choice(_TITLES), "ok": number % 3 == 0, "tags": ["a", "ß", None]},
            ensure_ascii=number % 2 == 0,
        )

    columns: list[list[object]] = [
        [str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(rows)],
        [_FIRST_MICROSECOND + draw.randrange(_SPAN_MICROSECONDS) for _ in range(rows)],
        [mostly(draw.randrange(-(2**63), 2**63)) for _ in range(rows)],
        [draw.choice(_KINDS) for _ in range(rows)],
        [payload(start + row) for row in range(rows)],
        [mostly(f"{draw.choice(_TITLES)}{row % 7 or ''}") for row in range(rows)],
        [mostly(draw.randbytes(draw.randrange(96))) for _ in range(rows)],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
