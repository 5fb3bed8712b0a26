"""When the job began that a target's rows came by: what ``now()`` means to a ``verify --config``.

The rows of a copy hold the start of its job; a verification that took its own would find every one of them changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rowferry.adapters.protocol import Target
from rowferry.engine.jobs import plan_of
from rowferry.engine.request import Request
from rowferry.errors import ConfigError, LedgerError
from rowferry.model import JobRow, Table, TablePlan

#: (the source table, its transform as it was described for this command) → the start that it is to mean.
Begun = Callable[[Table, dict[str, Any]], str]


def begun_in(target: Target, request: Request, notes: list[str]) -> Begun:
    """Finds the start in the target's ledger, which is read when the first table needs it; says in ``notes`` which
    job it is."""
    jobs: list[tuple[JobRow, TablePlan, str]] = []
    read: list[bool] = []

    def begun(source: Table, described: dict[str, Any]) -> str:
        if not read:
            jobs.extend(_plans(target))
            read.append(True)
        same = [found for found in jobs if found[1].source.name == source.name and _alike(found[1], described)]
        # The same table of another source only where this one has no job: a replica, or another name of its server.
        same = [found for found in same if found[2] == request.source.safe_url] or same
        if not same:
            raise ConfigError(
                "now() and its kin mean the start of the copy, and the target's ledger has no job that copied this "
                "table by these rules",
                table=str(source.name),
                hint="verify with the config of the copy; or leave what reads now() out of it, and the column out of "
                "the comparison (--policy TABLE.COLUMN=skip)",
            )
        job, plan, _ = same[-1]
        assert plan.transform is not None
        started = str(plan.transform["started"])
        several = f", the last of {len(same)} by these rules" if len(same) > 1 else ""
        notes.append(f"table {str(source.name)!r}: now() is {started}, the start of job {job.name!r}{several}")
        return started

    return begun


def _plans(target: Target) -> list[tuple[JobRow, TablePlan, str]]:
    """All tables that jobs of the ledger have transformed, the oldest first, with their sources."""
    if not target.ledger.open(create=False):
        return []
    found = []
    for job in target.ledger.jobs():
        try:
            plan = plan_of(job)
        except LedgerError:  # of another version: it tells nothing here
            continue
        found += [(job, table, plan.source) for table in plan.tables if table.transform and not table.output]
    return found


def _alike(plan: TablePlan, described: dict[str, Any]) -> bool:
    """Whether a job's table was transformed by just these rules (a function given as an object: by its name)."""
    assert plan.transform is not None
    names = [(given["function"] or "").partition("#")[0] for given in (plan.transform, described)]
    rules = [msgspec.json.encode(given["spec"]) for given in (plan.transform, described)]
    return rules[0] == rules[1] and names[0] == names[1]
