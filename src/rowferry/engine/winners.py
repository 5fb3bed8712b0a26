"""The first pass of ``keep = "first by"`` and ``"last by"``: which row wins of those that have the same key.

The order is total: the ordering column, then the row's digest. NULL loses to every value, whether the first is
kept or the last; NaN counts as greater than every number, −0.0 as 0.0, texts are ordered by their code points. So
the winners depend on the rows alone, not on workers or chunks. They are found once, before the job stands in the
ledger, and go into it with the job: a resume has the very same, also where the source has changed since.

DuckDB sorts what does not fit in memory, in a folder that is gone when the pass is over.
"""

from __future__ import annotations

import base64
import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pyarrow as pa

from rowferry.adapters.protocol import Source
from rowferry.engine.scan import Consumer, Side
from rowferry.engine.transfer import TableWay
from rowferry.errors import LedgerError, RefusedError, TargetError
from rowferry.model import StepRow, TablePlan
from rowferry.stages.candidates import Candidates
from rowferry.stages.dedup import Keys, TableDedup, way_of
from rowferry.stages.digest import Digester
from rowferry.stages.spec import Dedup
from rowferry.types import FLOATS, Type

#: The kind of the ledger's steps that hold winners; they are done when they are made.
KIND = "winners"

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


def find(source: Source, plan: TablePlan, workers: int, stop: threading.Event | None = None) -> list[dict[str, str]]:
    """Reads the source once and returns what the ledger's steps hold: the winners of keys that several rows have.

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

    return [_packed(*part) for part in ranked(source, plan, value_of, workers, stop, last=way == "last")]


#: The value that a batch's rows are ordered by: of the batch as the transform gave it, and of its rows' digests.
ValueOf = Callable[[pa.RecordBatch, bytes], pa.Array]


def ranked(
    source: Source, plan: TablePlan, value_of: ValueOf, workers: int, stop: threading.Event | None, *, last: bool
) -> list[tuple[bytes, bytes]]:
    """(key digests, row digests) of the rows that win, of the keys that several rows have, in parts.

    A row wins by the value, and among equal ones by its digest. Raises TargetError where a temporary file fails.
    """
    with tempfile.TemporaryDirectory(prefix="rowferry-winners-") as folder:
        candidates = Candidates(folder)
        try:
            _gather(source, plan, value_of, workers, stop, candidates)
            return list(candidates.winners(last=last))
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


def _packed(keys: bytes, rows: bytes) -> dict[str, str]:
    return {"keys": base64.b64encode(keys).decode(), "rows": base64.b64encode(rows).decode()}


def steps_of(found: dict[int, list[dict[str, str]]], first_number: int) -> list[StepRow]:
    """The ledger's steps for winners by table; each table has one at least, so that a resume can tell that they
    were looked for."""
    out: list[StepRow] = []
    for table, parts in found.items():
        for part in parts or [_packed(b"", b"")]:
            out.append(StepRow(first_number + len(out), KIND, table, "done", part))
    return out


def load(dedup: TableDedup, plan: TablePlan, steps: Iterable[StepRow]) -> None:
    """Gives a table's winners out of the ledger. Raises LedgerError where they are not there."""
    assert dedup.winners is not None
    mine = [step for step in steps if step.kind == KIND and step.table == plan.index]
    if not mine:
        raise LedgerError("the ledger has lost the winners of the dedup", table=str(plan.source.name))
    for step in mine:
        try:
            parts = unpacked([step.detail])
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"the winners of the dedup cannot be read: {error}", table=str(plan.source.name)
            ) from None
        for keys, rows in parts:
            if len(keys) != len(rows) or len(keys) % 16:
                raise LedgerError("the winners of the dedup are not whole", table=str(plan.source.name))
            dedup.rank(keys, rows)


def unpacked(parts: Iterable[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """(keys, rows) of what :func:`find` returned."""
    return [
        (base64.b64decode(part["keys"], validate=True), base64.b64decode(part["rows"], validate=True)) for part in parts
    ]
