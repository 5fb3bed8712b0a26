"""A target's ledger from outside: its jobs, and the request that takes one of them up again."""

from __future__ import annotations

from typing import Any

from rowferry import endpoint
from rowferry.engine import opening
from rowferry.engine.report import JobSummary
from rowferry.engine.request import Request
from rowferry.errors import ConfigError
from rowferry.model import JobRow, Plan
from rowferry.types import load


def list_jobs(request: Request) -> list[JobSummary]:
    """All jobs of the target's ledger, oldest first; none where there is no ledger."""
    with opening.target_of(request, read_only=True) as target:
        if not target.ledger.open(create=False):
            return []
        out = []
        for job in target.ledger.jobs():
            plan = load(job.plan, Plan)
            chunks = target.ledger.chunks(job.id)
            done = [c for c in chunks if c.state == "done"]
            out.append(
                JobSummary(
                    id=job.id,
                    name=job.name,
                    state=job.state,
                    created=job.created,
                    source=plan.source,
                    target=plan.target,
                    mode=plan.mode,
                    tables=len(plan.tables),
                    chunks=len(chunks),
                    chunks_done=len(done),
                    rows_committed=sum(c.rows_committed for c in done),
                )
            )
        return out


def request_of(asked: Request, source_url: str | None) -> Request:
    """The request that the job named by ``asked.job`` (None: the latest unfinished) was started with.

    The ledger holds no credentials: they come from ``source_url``, or from the environment.
    """
    with opening.target_of(asked, read_only=True) as target:
        jobs = target.ledger.jobs() if target.ledger.open(create=False) else []
    found = _choose(jobs, asked.job)
    plan = load(found.plan, Plan)
    options: dict[str, Any] = plan.options
    return Request(
        source=endpoint.parse(source_url or plan.source),
        target=asked.target,
        tables=tuple(options["tables"]),
        mode=plan.mode,
        workers=asked.workers,
        where=options["where"],
        wheres=tuple((a, b) for a, b in options["wheres"]),
        policies=tuple((a, b) for a, b in options["policies"]),
        verify=options["verify"] or asked.verify,
        no_verify=options["no_verify"] or asked.no_verify,
        require_snapshot=options["require_snapshot"],
        job=found.name,
        join=asked.join,
        ledger_schema=asked.ledger_schema,
        target_triggers=options["target_triggers"],
        named_max=asked.named_max,
    )


def _choose(jobs: list[JobRow], name: str | None) -> JobRow:
    if name is not None:
        named = [j for j in jobs if name in (j.name, j.id)]
        if not named:
            raise ConfigError(f"no job {name!r} in this ledger", hint="see: rowferry jobs TARGET")
        return named[-1]
    unfinished = [j for j in jobs if j.state != "finished"]
    if not unfinished:
        raise ConfigError("no unfinished job in this ledger", hint="see: rowferry jobs TARGET")
    return unfinished[-1]
