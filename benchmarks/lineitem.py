"""TPC-H-lineitem-shaped Arrow batches, seeded, of any scale factor, made here and not downloaded.

Sixteen columns in TPC-H's order, types and widths: four decimals (15,2), three dates, char(1), char(10),
char(25) without their padding, varchar(44). Orders have one to seven lines; keys are sparse as dbgen's
are (8 of every 32). The values are not dbgen's, only their distributions are near them.

A batch depends on the seed, its place and its size alone, so a stream holds one batch in memory and
can be made again::

    for batch in lineitem.batches(scale_factor=0.1): ...
    reader = lineitem.reader(6_000_000)          # a lazy pyarrow.RecordBatchReader
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

ROWS_PER_SCALE_FACTOR = 6_000_000
BATCH_ROWS = 65_536
SCHEMA = pa.schema(
    [
        pa.field("l_orderkey", pa.int64(), False),
        pa.field("l_partkey", pa.int64(), False),
        pa.field("l_suppkey", pa.int64(), False),
        pa.field("l_linenumber", pa.int32(), False),
        pa.field("l_quantity", pa.decimal128(15, 2), False),
        pa.field("l_extendedprice", pa.decimal128(15, 2), False),
        pa.field("l_discount", pa.decimal128(15, 2), False),
        pa.field("l_tax", pa.decimal128(15, 2), False),
        pa.field("l_returnflag", pa.utf8(), False),
        pa.field("l_linestatus", pa.utf8(), False),
        pa.field("l_shipdate", pa.date32(), False),
        pa.field("l_commitdate", pa.date32(), False),
        pa.field("l_receiptdate", pa.date32(), False),
        pa.field("l_shipinstruct", pa.utf8(), False),
        pa.field("l_shipmode", pa.utf8(), False),
        pa.field("l_comment", pa.utf8(), False),
    ]
)
#: The key that TPC-H declares.
PRIMARY_KEY = ("l_orderkey", "l_linenumber")
#: Columns as PostgreSQL, DuckDB and SQLite write TPC-H's types.
DDL = """
l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
l_quantity decimal(15,2) not null, l_extendedprice decimal(15,2) not null, l_discount decimal(15,2) not null,
l_tax decimal(15,2) not null, l_returnflag char(1) not null, l_linestatus char(1) not null,
l_shipdate date not null, l_commitdate date not null, l_receiptdate date not null,
l_shipinstruct char(25) not null, l_shipmode char(10) not null, l_comment varchar(44) not null
""".strip()

_INSTRUCTIONS = ("DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN")
_MODES = ("REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB")
_WORDS = (
    "furiously carefully quickly blithely slyly ironic final bold regular special express pending silent even "
    "unusual deposits requests accounts packages foxes ideas theodolites instructions dependencies pinto beans "
    "sleep wake are cajole haggle nag use boost affix detect integrate among above according to the after"
)
_FIRST_DAY = 8036  # 1992-01-02
_CURRENT_DAY = 9298  # 1995-06-17: TPC-H's "today", which decides flag and status
_PHRASES = 4096


def rows_of(scale_factor: float) -> int:
    """Rows of a scale factor (1: about 6 million)."""
    return round(ROWS_PER_SCALE_FACTOR * scale_factor)


def batches(
    rows: int | None = None, *, scale_factor: float = 1.0, batch_rows: int = BATCH_ROWS, seed: int = 42
) -> Iterator[pa.RecordBatch]:
    """Streams ``rows`` rows (or those of ``scale_factor``) in batches of at most ``batch_rows``."""
    count = rows_of(scale_factor) if rows is None else rows
    tools = _Tools(seed, min(batch_rows, count))
    for index, start in enumerate(range(0, count, batch_rows)):
        yield _batch(tools, index, start, min(batch_rows, count - start))


def reader(
    rows: int | None = None, *, scale_factor: float = 1.0, batch_rows: int = BATCH_ROWS, seed: int = 42
) -> pa.RecordBatchReader:
    """The same as a lazy reader, for whatever takes one."""
    stream = batches(rows, scale_factor=scale_factor, batch_rows=batch_rows, seed=seed)
    return pa.RecordBatchReader.from_batches(SCHEMA, stream)


class _Tools:
    """What all batches of a stream share: row numbers 0 … n − 1, the cycle of orders, comments to draw from."""

    def __init__(self, seed: int, rows: int) -> None:
        self.seed = seed
        self.numbers = pa.array(range(rows), pa.int64())
        # Orders have one to seven lines, four on average, in a fixed cycle of 28 rows.
        sizes = (4, 1, 7, 3, 6, 2, 5)
        self.order_in_cycle = pa.array([order for order, size in enumerate(sizes) for _ in range(size)], pa.int64())
        self.line_in_order = pa.array([line for size in sizes for line in range(1, size + 1)], pa.int32())
        # Comments have 10–43 characters, about 27 on average, as dbgen's have.
        draw = random.Random(seed)
        text = " ".join(draw.choices(_WORDS.split(), k=20_000))
        starts = [draw.randrange(len(text) - 44) for _ in range(_PHRASES)]
        self.phrases = pa.array([text[start : start + draw.randrange(10, 44)] for start in starts], pa.utf8())


def _batch(tools: _Tools, index: int, start: int, rows: int) -> pa.RecordBatch:
    column = 0

    def uniform(low: int, high: int) -> pa.Array:
        """rows integers low … high − 1; each call has a seed of its own."""
        nonlocal column
        column += 1
        drawn = pc.random(rows, initializer=hash((tools.seed, index, column)))
        return pc.add(pc.cast(pc.floor(pc.multiply(drawn, high - low)), pa.int64()), low)

    def choose(values: tuple[str, ...], places: pa.Array) -> pa.Array:
        return pa.array(values, pa.utf8()).take(places)

    position = pc.add(tools.numbers.slice(0, rows), start)
    in_cycle = _modulo(position, 28)
    order = pc.add(pc.multiply(pc.divide(position, 28), 7), tools.order_in_cycle.take(in_cycle))
    part_key = uniform(1, 200_001)
    quantity = uniform(1, 51)
    ship_day = uniform(_FIRST_DAY, _FIRST_DAY + 2526)
    receipt_day = pc.add(ship_day, uniform(1, 31))
    # What was received by "today" was returned or accepted; the rest is neither yet.
    returned = pc.if_else(pc.greater(receipt_day, _CURRENT_DAY), 1, pc.multiply(uniform(0, 2), 2))
    comment = pc.binary_join_element_wise(
        tools.phrases.take(uniform(0, _PHRASES)), pc.cast(uniform(0, 10_000), pa.utf8()), ""
    )
    arrays = [
        pc.add(pc.add(pc.multiply(pc.divide(order, 8), 32), _modulo(order, 8)), 1),
        part_key,
        pc.add(_modulo(pc.add(pc.multiply(part_key, 7), uniform(0, 4)), 10_000), 1),
        tools.line_in_order.take(in_cycle),
        _decimals(pc.multiply(quantity, 100)),
        _decimals(pc.multiply(quantity, pc.add(_modulo(part_key, 110_000), 90_000))),
        _decimals(uniform(0, 11)),
        _decimals(uniform(0, 9)),
        choose(("A", "N", "R"), returned),
        choose(("O", "F"), pc.cast(pc.less_equal(ship_day, _CURRENT_DAY), pa.int8())),
        _dates(ship_day),
        _dates(pc.add(ship_day, uniform(-60, 61))),
        _dates(receipt_day),
        choose(_INSTRUCTIONS, uniform(0, len(_INSTRUCTIONS))),
        choose(_MODES, uniform(0, len(_MODES))),
        pc.utf8_slice_codeunits(comment, 0, 44),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _modulo(numbers: pa.Array, by: int) -> pa.Array:
    """numbers mod by, of numbers ≥ 0."""
    return pc.subtract(numbers, pc.multiply(pc.divide(numbers, by), by))


def _decimals(cents: pa.Array) -> pa.Array:
    """int64 hundredths as decimal128(15,2)."""
    whole = pc.cast(cents, pa.decimal128(19, 0))
    return pa.Array.from_buffers(pa.decimal128(15, 2), len(whole), whole.buffers(), offset=whole.offset)


def _dates(days: pa.Array) -> pa.Array:
    return pc.cast(pc.cast(days, pa.int32()), pa.date32())
