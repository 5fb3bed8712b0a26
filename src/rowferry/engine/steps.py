"""What is done once for a table, before and after its chunks; each a row of the ledger.

before the chunks    create, stage, truncate, triggers_off, baseline, trial
after all of them    merge, keys, attach, swap, sequences, triggers_on
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from rowferry.adapters.protocol import Target
from rowferry.engine.progress import EventHandler, StepFinished, StepStarted
from rowferry.errors import StoppedError
from rowferry.failpoints import passing
from rowferry.model import Digest, Plan, StepRow, TableName, TablePlan

BEFORE = frozenset(("create", "stage", "truncate", "triggers_off", "baseline", "trial", "quarantine"))


def _sets_aside(plan: Plan) -> bool:
    return bool(plan.tables and plan.options.get("quarantine"))


def steps_of(plan: Plan) -> list[StepRow]:
    """All steps of a plan in the order in which they run."""
    before: list[tuple[str, int]] = [("quarantine", plan.tables[0].index)] if _sets_aside(plan) else []
    after: list[tuple[str, int]] = []
    # What the old tables have is made before any is swapped, that of parents before that of their children.
    attaching = [t.index for t in sorted(plan.tables, key=lambda t: t.wave) if t.target.attachments]
    swaps: list[tuple[str, int]] = []
    # At the end rows are added to parents before their children, and a table that is replaced goes before those
    # that its foreign keys point to.
    for table in sorted(plan.tables, key=lambda t: -t.wave if plan.mode == "replace" else t.wave):
        i = table.index
        if not table.exists or (table.load_name and not table.staged):
            before.append(("create", i))
        if table.staged:
            before.append(("stage", i))
            after.append(("merge", i))
        if table.exists and plan.mode == "truncate":
            before.append(("truncate", i))
        if table.exists and table.target.triggers and plan.options.get("target_triggers") == "disable":
            before.append(("triggers_off", i))
            after.append(("triggers_on", i))
        if table.exists and plan.mode == "append" and (plan.options.get("verify") or table.target.volatile):
            before.append(("baseline", i))
        if not table.exists or (table.load_name and not table.staged):
            after.append(("keys", i))
        if table.load_name and not table.staged:
            swaps += [("swap", i), ("sequences", i)]
        else:
            after.append(("sequences", i))
    before += [("trial", i) for i in attaching]
    after += [("attach", i) for i in attaching] + swaps
    # Children are emptied before their parents, so that no foreign key stands in the way.
    order = {"truncate": 1}
    before.sort(key=lambda s: (order.get(s[0], 0), -plan.tables[s[1]].wave if s[0] == "truncate" else 0))
    return [StepRow(n, kind, table) for n, (kind, table) in enumerate([*before, *after])]


class StepRunner:
    """Runs steps that are not done yet, each with its mark in the ledger."""

    def __init__(
        self,
        job: str,
        plan: Plan,
        source_engine: str,
        target: Target,
        on_event: EventHandler,
        stop: threading.Event,
    ) -> None:
        self._job = job
        self._stop = stop
        self._plan = plan
        self._source_engine = source_engine
        self._target = target
        self._on_event = on_event

    def run(self, before: bool) -> None:
        """Runs all steps of one phase."""
        for step in self._target.ledger.steps(self._job):
            if step.state == "done" or (step.kind in BEFORE) != before:
                continue
            if self._stop.is_set():
                raise StoppedError("stopped on request")
            assert step.table is not None
            table = self._plan.tables[step.table]
            self._on_event(StepStarted(step.kind, str(table.source.name)))
            passing(f"before {step.kind}")
            detail = self._baseline(table) if step.kind == "baseline" else None
            make = self._quarantine() if step.kind == "quarantine" else None
            self._target.ledger.run_step(
                self._job,
                step,
                make or (lambda: self._act(step.kind, table, detail)),  # noqa: B023
            )
            passing(f"after {step.kind}")
            self._on_event(StepFinished(step.kind, str(table.source.name)))

    def _quarantine(self) -> Callable[[], None]:
        """Makes the table of rows that cannot be carried. It is planned before the step's transaction begins."""
        from rowferry.engine import quarantine

        return quarantine.maker(self._target, TableName(*self._plan.options["quarantine"]))

    def _act(self, kind: str, table: TablePlan, detail: dict[str, Any] | None) -> dict[str, Any] | None:
        target, name = self._target, table.load_name or table.target.name
        match kind:
            case "create" | "stage":
                target.create_table(table.target, name, self._source_engine)
            case "truncate":
                target.truncate(table.target.name)
            case "triggers_off" | "triggers_on":
                target.disable_triggers(table.target, kind == "triggers_off")
            case "keys":
                target.add_keys(table.target, name)
            case "trial" | "attach":
                places = {t.target.name: t.load_name for t in self._plan.tables if t.load_name is not None}
                target.attach(table.target, name, places, kind == "trial")
            case "merge":
                assert table.load_name is not None
                rows = target.merge(table.load_name, table.target, [c.target for c in table.columns])
                return {"rows": rows}
            case "swap":
                assert table.load_name is not None
                target.swap(table.load_name, table.target.name, table.target.attachments)
            case "sequences":
                target.set_sequences(table.target)
            case "baseline":
                return detail
            case _:
                raise AssertionError(f"unknown step {kind!r}")
        return None

    def _baseline(self, table: TablePlan) -> dict[str, Any]:
        """The target's digest before anything is appended."""
        from rowferry.engine.reread import digest_table
        from rowferry.engine.scan import reading

        with reading(self._target, 1) as written:
            return {"digest": str(digest_table(written, table, "target", 1, stop=self._stop))}


def baseline_of(steps: list[StepRow], table: int) -> Digest:
    """The digest that the target's table had before the job; nothing where it was not asked for."""
    for step in steps:
        if step.kind == "baseline" and step.table == table and "digest" in step.detail:
            return Digest.parse(step.detail["digest"])
    return Digest()


def reset_action(plan: Plan, table: TablePlan, target: Target) -> None:
    """Empties what was loaded of a table that is to be copied whole again, and of those that its chunks feed."""
    if plan.mode == "upsert":
        return  # the same keys are merged again
    for fed in reversed([t for t in plan.tables if table.index in (t.index, t.fed_by)]):
        target.truncate(fed.load_name or fed.target.name)


def _under_own_name(table: TablePlan, what: str, job_id: str) -> TablePlan:
    """The plan of a table that is loaded under another name: one of this job's own, since what an abandoned job left
    under its name is never added to."""
    name = TableName(table.target.name.schema, f"rowferry_{what}_{job_id[-8:]}_{table.index}")
    return msgspec.structs.replace(table, load_name=name, staged=what == "stage")


def loaded_as(table: TablePlan, gathered: bool, job_id: str) -> TablePlan:
    """The plan of a table with the name that it is loaded under.

    gathered: its rows are added to the target's all at once, at the end, since what has been added already could not
    be told from the target's own: where chunks are rows by their place, which are copied anew after a resume under
    another state of the source, and where claims of a dedup would be lost. Of a table that the job makes, all rows
    are its own.
    """
    if gathered and table.exists:
        return _under_own_name(table, "stage", job_id)
    return table if table.load_name is None else _under_own_name(table, "new", job_id)
