"""From the ledger's chunks to the report: counts that close, digests that add up."""

from __future__ import annotations

from collections.abc import Sequence

from rowferry.engine.progress import TableTotals
from rowferry.engine.report import TableReport
from rowferry.model import ChunkRow, Digest, Plan, TablePlan, add_counts
from rowferry.stages.digest import schema_id


def digest_of(chunks: Sequence[ChunkRow], which: str) -> Digest:
    """The sum of the chunks' ``read`` or ``sent`` digests."""
    total = Digest()
    for chunk in chunks:
        text = chunk.digest_read if which == "read" else chunk.digest_sent
        if text:
            total += Digest.parse(text)
    return total


def table_report(
    plan: TablePlan,
    chunks: Sequence[ChunkRow],
    taken_over: int = 0,
    retries: int = 0,
    span: tuple[float, float] = (0.0, 0.0),
) -> TableReport:
    """One table's report from all of its chunks, whoever copied them; ``span``: when this run's
    first chunk of it began and its last one ended (seconds)."""
    if plan.fed_by is not None:
        return _further_report(plan, chunks)
    done = [c for c in chunks if c.table == plan.index and c.state == "done"]
    rows_read = sum(c.rows_read for c in done)
    touched: dict[str, int] = {}
    for chunk in done:
        add_counts(touched, chunk.touched)

    def counted(what: str) -> int:
        return sum(int(c.counts.get(what, 0)) for c in done)

    return TableReport(
        source=str(plan.source.name),
        target=str(plan.target.name),
        rows_read=rows_read,
        rows_generated=counted("generated"),
        rows_filtered=counted("filtered"),
        rows_deduplicated=counted("deduplicated"),
        rows_quarantined=counted("quarantined"),
        rows_sent=digest_of(done, "sent").rows,
        rows_committed=sum(c.rows_committed for c in done),
        rows_fed=sum(int(fed["sent"]) + int(fed.get("quarantined", 0)) for c in done for fed in c.outputs()),
        staged=plan.transform is not None or plan.dedup is not None,
        bytes=sum(c.bytes for c in done),
        seconds=span[1] - span[0],
        digest_read=digest_of(done, "read"),
        digest_sent=digest_of(done, "sent"),
        schema_id=schema_id([c.comparison for c in plan.columns]),
        rules=rules_of(plan),
        chunks=sum(1 for c in chunks if c.table == plan.index),
        chunks_taken_over=taken_over,
        retries=retries,
        touched=touched,
    )


def table_totals(plan: Plan, chunks: Sequence[ChunkRow]) -> tuple[TableTotals, ...]:
    """What a run begins with, of each table that has chunks of its own."""
    out = []
    for table in (t for t in plan.tables if t.fed_by is None):
        mine = [c for c in chunks if c.table == table.index]
        done = [c for c in mine if c.state == "done"]
        rows = sum(c.rows_committed for c in done)
        out.append(
            TableTotals(str(table.source.name), table.source.rows, table.source.bytes, len(mine), len(done), rows)
        )
    return tuple(out)


def _further_report(plan: TablePlan, chunks: Sequence[ChunkRow]) -> TableReport:
    """The report of a table that another's chunks feed: a chunk commits all its tables or none of them."""
    done = [c for c in chunks if c.table == plan.fed_by and c.state == "done"]
    given = [fed for c in done for fed in c.outputs(plan.index)]
    digest = sum((Digest.parse(fed["digest"]) for fed in given), Digest())
    return TableReport(
        source=str(plan.source.name),
        target=str(plan.target.name),
        rows_sent=digest.rows,
        rows_quarantined=sum(int(fed.get("quarantined", 0)) for fed in given),
        rows_committed=sum(int(fed["sent"]) for fed in given),
        bytes=sum(int(fed["bytes"]) for fed in given),
        digest_sent=digest,
        schema_id=schema_id([c.comparison for c in plan.columns]),
        rules=rules_of(plan),
        staged=True,
        further=True,
    )


def rules_of(plan: TablePlan) -> tuple[str, ...]:
    """Every rule that a comparison of the table uses, with its column."""
    return tuple(f"{c.source}: {rule}" for c in plan.columns for rule in c.comparison.rules)


def digest_problem(report: TableReport) -> str | None:
    """Says if what was read is not what was sent, where nothing was meant to change on the way."""
    # Rows that were set aside are taken off chunk by chunk (worker).
    if report.touched or report.rows_quarantined or report.digest_read == report.digest_sent:
        return None
    return f"read {report.digest_read} but sent {report.digest_sent}: a conversion changed a value"
