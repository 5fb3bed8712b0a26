"""A target's ledger from outside: its jobs, and the request that takes one of them up again."""

from __future__ import annotations

from typing import Any

import msgspec

from rowferry import endpoint
from rowferry.engine import opening
from rowferry.engine.report import JobSummary
from rowferry.engine.request import THROTTLES, Request
from rowferry.errors import ConfigError, LedgerError
from rowferry.model import ChunkRow, JobRow, Plan
from rowferry.types import load

#: The version of the plans that this version writes and reads, and what the command's options are in them.
PLAN_VERSION = 1
OPTIONS = frozenset(
    ("tables", "where", "wheres", "policies", "verify", "no_verify", "target_triggers", "require_snapshot")
)

#: ``resume --pause-while none``: the signals that the job was started with are not asked for any more.
NO_SIGNALS = ("none", "")


def plan_of(job: JobRow) -> Plan:
    """The job's plan. Raises LedgerError where it is none: another version of rowferry wrote it."""
    try:
        if not job.plan:
            raise ValueError("it is empty, or no JSON")
        plan: Plan = load(job.plan, Plan)
        if plan.version != PLAN_VERSION:
            raise ValueError(f"its version is {plan.version}, not {PLAN_VERSION}")
        if absent := OPTIONS - plan.options.keys():
            raise ValueError(f"it does not say {', '.join(sorted(absent))}")
        return plan
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LedgerError(
            f"the plan of job {job.name!r} cannot be read: {' '.join(str(error).split())[:200]}",
            hint="finish it with the version of rowferry that began it, or delete its row from the ledger's jobs",
        ) from None


def list_jobs(request: Request) -> list[JobSummary]:
    """All jobs of the target's ledger, oldest first; none where there is no ledger.

    A job that cannot be read says so in its ``problem``, and hides none of the others.
    """
    with opening.target_of(request, read_only=True) as target:
        if not target.ledger.open(create=False):
            return []
        out = []
        for job in target.ledger.jobs():
            try:
                out.append(_summary(job, plan_of(job), target.ledger.chunks(job.id)))
            except LedgerError as error:
                if error.transient:
                    raise
                source, target_url, mode = (str(job.plan.get(name, "?")) for name in ("source", "target", "mode"))
                out.append(
                    JobSummary(job.id, job.name, job.state, job.created, source, target_url, mode, problem=str(error))
                )
        return out


def _summary(job: JobRow, plan: Plan, chunks: list[ChunkRow]) -> JobSummary:
    done = [c for c in chunks if c.state == "done"]
    return JobSummary(
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


def request_of(asked: Request, source_url: str | None) -> Request:
    """The request that the job named by ``asked.job`` (None: the latest unfinished) was started with.

    The ledger holds no credentials: they come from ``source_url``, or from the environment.
    """
    with opening.target_of(asked, read_only=True) as target:
        jobs = target.ledger.jobs() if target.ledger.open(create=False) else []
    found = _choose(jobs, asked.job)
    plan = plan_of(found)
    options: dict[str, Any] = plan.options
    if functions := options.get("functions"):
        names = ", ".join(name for _, name in functions)
        raise ConfigError(
            f"job {found.name!r} was given functions ({names}), which no ledger holds",
            hint="make the same call of rowferry.copy again: it goes on with this job",
        )
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
        # Plans of before there was a choice do not say it.
        names=options.get("names", "as-is"),
        specs=tuple((a, b) for a, b in options.get("specs", ())),
        folder=options.get("folder", ""),
        on_error="quarantine" if options.get("quarantine") else "refuse",
        max_quarantined=options.get("max_quarantined") if asked.max_quarantined is None else asked.max_quarantined,
        target_triggers=options["target_triggers"],
        keep_duplicates=options.get("keep_duplicates"),
        max_dedup_mb=options.get("max_dedup_mb") if asked.max_dedup_mb is None else asked.max_dedup_mb,
        named_max=asked.named_max,
        **_throttles(asked, options),
    )


def _throttles(asked: Request, options: dict[str, Any]) -> dict[str, Any]:
    """What holds the job back: what is asked for now, else what it was started with. 0 (for signals: ``none``)
    lifts it."""
    given = {name: options.get(name) if (now := getattr(asked, name)) is None else now for name in THROTTLES}
    signals = asked.pause_while or tuple((side, sql) for side, sql in options.get("pause_while", ()))
    return given | {"pause_while": () if signals == (NO_SIGNALS,) else signals}


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
