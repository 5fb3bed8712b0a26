"""The order in which tables are loaded: foreign keys of the target want parents before their children."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowferry.model import ForeignKey, TableName, TablePlan


def with_waves(plans: Sequence[TablePlan], blockers: list[str], self_references: str = "") -> list[TablePlan]:
    """Gives existing target tables the waves of their foreign keys; a cycle becomes a blocker that names it, and so
    does a key to its own table, unless the target has a way for that (``Capabilities.self_references``)."""
    standing = [p for p in plans if p.exists]
    for plan in () if self_references else standing:
        if names := sorted(k.name for k in own_keys(plan)):
            blockers.append(
                f"table {str(plan.target.name)!r} in the target has a foreign key to itself ({', '.join(names)}), "
                "which would refuse rows that come before their parents; drop or disable it and add it again after "
                "the copy"
            )
    waves, stuck = waves_of(standing)
    if stuck:
        keys = sorted({k.name for p in stuck for k in _keys_within(p, {s.target.name for s in stuck})})
        blockers.append(
            f"foreign keys of the target form a cycle among {', '.join(sorted(str(p.target.name) for p in stuck))} "
            f"({', '.join(keys)}); drop or disable one and add it again after the copy"
        )
    out = [msgspec.structs.replace(p, wave=waves.get(p.target.name, 0)) for p in plans]
    for plan in out:
        if plan.fed_by is not None and plan.wave != out[plan.fed_by].wave:
            blockers.append(
                f"tables {str(plan.target.name)!r} and {str(out[plan.fed_by].target.name)!r} are loaded together, and "
                "foreign keys of the target want one of them later; drop these and add them again after the copy"
            )
    return out


def waves_of(plans: Sequence[TablePlan]) -> tuple[dict[TableName, int], list[TablePlan]]:
    """The wave of each target table, so that parents come before their children; and the tables that
    have none, since foreign keys among them form a cycle. (A key from one to itself asks for nothing of others.)"""
    names = {p.target.name for p in plans}
    waves: dict[TableName, int] = {}
    left = list(plans)
    while left:
        ready = [p for p in left if all(k.parent in waves for k in _keys_within(p, names))]
        if not ready:
            return waves, left
        waves |= {p.target.name: max((waves[k.parent] + 1 for k in _keys_within(p, names)), default=0) for p in ready}
        left = [p for p in left if p.target.name not in waves]
    return waves, []


def _keys_within(plan: TablePlan, tables: set[TableName]) -> list[ForeignKey]:
    return [k for k in plan.target.foreign_keys if k.parent in tables and k.parent != plan.target.name]


def own_keys(plan: TablePlan) -> list[ForeignKey]:
    """The foreign keys of the target table that point to itself."""
    return [k for k in plan.target.foreign_keys if k.parent == plan.target.name]
