"""The first pass of ``keep = "first by"`` and ``"last by"``: which row wins of those that have the same key.

The order is total: the ordering column, then the row's digest. NULL loses to every value, whether the first is
kept or the last; NaN counts as greater than every number, −0.0 as 0.0, texts are ordered by their code points. So
the winners depend on the rows alone, not on workers or chunks. They are found once, before the job stands in the
ledger, and go into it with the job: a resume has the very same, also where the source has changed since.

DuckDB sorts what does not fit in memory, in a folder that is gone when the pass is over.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters.protocol import WINNERS, Source
from rowferry.engine.scan import Consumer, Side
from rowferry.engine.spool import Spool
from rowferry.engine.transfer import TableWay
from rowferry.errors import LedgerError, RefusedError, TargetError
from rowferry.model import StepRow, TablePlan
from rowferry.stages.candidates import Candidates
from rowferry.stages.dedup import Keys, TableDedup, way_of
from rowferry.stages.digest import Digester, digest_array, digest_bytes
from rowferry.stages.spec import Dedup
from rowferry.types import FLOATS, Type

#: Kinds whose values order as the integers that Arrow holds for them.
_COUNTED = frozenset(("date", "time", "timestamp", "timestamptz", "duration"))
_AS_THEY_ARE = frozenset(("bool", "text", "char", "binary", "uuid", *FLOATS))
#: DuckDB's widest decimal.
_DECIMAL_DIGITS_MAX = 38


def unordered(t: Type) -> str | None:
    """Why rows cannot be ordered by values of a type; None where they can."""
    if t.is_integer or t.kind in _AS_THEY_ARE or t.kind in _COUNTED:
        return None
    if t.kind == "decimal" and (t.precision or 0) <= _DECIMAL_DIGITS_MAX:
        return None
    if t.kind in ("decimal", "numeric"):
        return f'{t} has no bound within {_DECIMAL_DIGITS_MAX} digits; cast it: cast = {{ COLUMN = "decimal(38,6)" }}'
    return f"values of {t} have no order here; make a column of a number, a time or a text with set"


#: Key digests and row digests of some rows, 16 n bytes each.
Part = tuple[bytes, bytes]


def find(source: Source, plan: TablePlan, workers: int, stop: threading.Event | None = None) -> Iterator[Part]:
    """Reads the source once and gives the winners of keys that several rows have.

    Raises RefusedError: rows cannot be ordered by this column; what the readers and the transform raise.
    """
    dedup = msgspec.convert(plan.dedup, Dedup)
    way, name = way_of(dedup)
    assert name is not None
    place, column = next((i, c) for i, c in enumerate(plan.columns) if c.target == name)
    if (why := unordered(column.form)) is not None:
        raise RefusedError(f"dedup: {why}", table=str(plan.source.name), column=column.source)

    def value_of(batch: pa.RecordBatch, rows: bytes) -> pa.Array:
        return _orderable(batch.column(place), column.form)

    return ranked(source, plan, value_of, workers, stop, last=way == "last")


#: The value that a batch's rows are ordered by: of the batch as the transform gave it, and of its rows' digests.
ValueOf = Callable[[pa.RecordBatch, bytes], pa.Array]


def ranked(
    source: Source, plan: TablePlan, value_of: ValueOf, workers: int, stop: threading.Event | None, *, last: bool
) -> Iterator[Part]:
    """The rows that win, of the keys that several rows have, in parts.

    A row wins by the value, and among equal ones by its digest. Raises TargetError where a temporary file fails.
    """
    with tempfile.TemporaryDirectory(prefix="rowferry-winners-") as folder:
        candidates = Candidates(folder)
        try:
            _gather(source, plan, value_of, workers, stop, candidates)
            yield from candidates.winners(last=last)
        except TargetError as error:
            error.at(table=str(plan.source.name))
            raise
        finally:
            candidates.close()


def _gather(
    source: Source,
    plan: TablePlan,
    value_of: ValueOf,
    workers: int,
    stop: threading.Event | None,
    candidates: Candidates,
) -> None:
    """Hands the key digest, row digest and value of every row on."""
    way, by = TableWay(plan), msgspec.convert(plan.dedup, Dedup).by
    names = [c.target for c in plan.columns]

    def consumer() -> Consumer:
        keys = Keys(names, way.comparisons, by)
        digester = Digester(way.comparisons, "target")

        def take(batch: pa.RecordBatch) -> None:
            sent = way.convert(batch, {})
            rows = digester.rows(sent)[1]
            candidates.add(keys.of(sent), rows, value_of(batch, rows))

        return take

    with Side(source, plan, "source", workers, stop=stop) as side:
        side.scan([consumer() for _ in range(side.threads)])


def _orderable(values: pa.Array, form: Type) -> pa.Array:
    """Values as DuckDB orders them."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if form.kind in _COUNTED:
        counted = pa.int32() if values.type.bit_width == 32 else pa.int64()
        return values.view(counted).cast(pa.int64())
    return values


class Found:
    """The winners of some tables, until they are in the ledger: in memory while they are few, then in temporary
    files. Use as a context manager."""

    def __init__(self) -> None:
        self._parts: dict[int, Spool] = {}

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *_: object) -> None:
        for spool in self._parts.values():
            spool.close()

    def add(self, table: int, parts: Iterable[Part]) -> None:
        """All of a table. Raises TargetError where a temporary file fails."""
        spool = self._parts[table] = Spool()
        for part in parts:
            with _spooling():
                spool.add(pa.RecordBatch.from_arrays([digest_array(digests) for digests in part], names=["key", "row"]))

    def steps(self, first_number: int) -> Iterator[StepRow]:
        """The ledger's steps; each table has one at least, so that a resume can tell that its winners were looked
        for. Raises as ``add``."""
        number = itertools.count(first_number)
        for table, spool in self._parts.items():
            if not spool.rows:
                yield StepRow(next(number), WINNERS, table, "done", _packed(b"", b""))
            with _spooling():
                for batch in spool.batches():
                    part = _packed(digest_bytes(batch.column(0)), digest_bytes(batch.column(1)))
                    yield StepRow(next(number), WINNERS, table, "done", part)


@contextlib.contextmanager
def _spooling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"the winners of the dedup could not be kept in {tempfile.gettempdir()}: {error.strerror or error}",
            hint="make room there, or set TMPDIR to another folder",
        ) from error


def _packed(keys: bytes | memoryview, rows: bytes | memoryview) -> dict[str, str]:
    return {"keys": base64.b64encode(keys).decode(), "rows": base64.b64encode(rows).decode()}


def load(dedup: TableDedup, plan: TablePlan, details: Iterable[dict[str, Any]]) -> None:
    """Gives a table's winners out of what the ledger holds. Raises LedgerError where they are not there."""
    table, found = str(plan.source.name), False
    for detail in details:
        found = True
        try:
            keys, rows = (base64.b64decode(detail[name], validate=True) for name in ("keys", "rows"))
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"the winners of the dedup cannot be read: {error}", table=table) from None
        if len(keys) != len(rows) or len(keys) % 16:
            raise LedgerError("the winners of the dedup are not whole", table=table)
        dedup.rank(keys, rows)
    if not found:
        raise LedgerError("the ledger has lost the winners of the dedup", table=table)
