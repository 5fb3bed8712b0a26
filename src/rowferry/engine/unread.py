"""Values that the source's reader cannot read, under the policy ``quarantine``: their rows are taken out where they
are read, and set aside with what stands there.

A reader gives NULL for such a value, and in a column of its own what the database holds (``ReadRequest.unread``).
"""

from __future__ import annotations

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters import registry
from rowferry.engine.request import Request
from rowferry.errors import ConfigError
from rowferry.model import TablePlan

POLICY = "quarantine"


def with_columns(plan: TablePlan, request: Request) -> TablePlan:
    """The plan, knowing which columns of its source are under the policy. Raises ConfigError for a source that
    cannot tell what it does not read."""
    reads = plan.reads or tuple((c.source, c.form) for c in plan.columns)
    table = str(plan.source.name)
    names = tuple(name for name, _ in reads if request.policy(table, name) == POLICY)
    if names and not registry.capabilities(request.source.engine).tells_unread:
        raise ConfigError(
            f"the policy {POLICY} is for values that a source cannot read, and {request.source.engine} reads all",
            table=table,
            column=names[0],
            hint="what does not fit the target is set aside by --on-error quarantine alone",
        )
    return msgspec.structs.replace(plan, unread=names) if names else plan


def parted(batch: pa.RecordBatch, unread: tuple[str, ...]) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """The rows of a batch that could be read, in its columns without those of ``ReadRequest.unread``; and the others
    (None: there are none), with them."""
    columns = batch.num_columns - len(unread)
    read = batch.select(list(range(columns)))
    told = [batch.column(columns + i) for i in range(len(unread))]
    if all(array.null_count == len(array) for array in told):
        return read, None
    bad = told[0].is_valid()
    for array in told[1:]:
        bad = pc.or_(bad, array.is_valid())
    return read.filter(pc.invert(bad)), batch.filter(bad)
