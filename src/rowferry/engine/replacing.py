"""What a table that is replaced has of its own, and what of it the table that takes its place will have.

Indexes, constraints, triggers, rights go over, by the target's own definitions. What cannot go over is a blocker:
an index or a foreign key whose loss nobody noticed is found out by the next slow query or the first orphan.
Columns are another matter: that they become the source's is what ``replace`` is chosen for. It is said all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowferry.adapters.protocol import Target
from rowferry.model import Attachment, Table, TablePlan

#: Objects that one note names by themselves.
NAMED_MAX = 20


def with_attachments(
    target: Target, plans: Sequence[TablePlan], blockers: list[str], notes: list[str]
) -> list[TablePlan]:
    """Adds to each table that is replaced what it takes over; appends to ``blockers`` what would be lost, and to
    ``notes`` what goes over or is lost without harm."""
    together = {p.target.name: p.target for p in plans if p.load_name is not None}
    out = []
    for plan in plans:
        if plan.load_name is None:
            out.append(plan)
            continue
        place = f"table {str(plan.target.name)!r} in the target"
        found = target.attachments(plan.target, together)
        kept = [a for a in found if a.problem is None]
        blockers += [
            f"{place}: replacing it would lose its {a}: {a.problem}; drop that first, or choose --mode truncate, which "
            "keeps the table as it is"
            for a in found
            if a.problem is not None and not a.minor
        ]
        notes += [f"{place}: replacing it loses its {a}: {a.problem}" for a in found if a.problem and a.minor]
        if kept:
            notes.append(f"{place}: the one that takes its place gets its {_named(kept)}")
        out.append(msgspec.structs.replace(plan, target=msgspec.structs.replace(plan.target, attachments=tuple(kept))))
    return out


def _named(attachments: Sequence[Attachment]) -> str:
    more = len(attachments) - NAMED_MAX
    return ", ".join(map(str, attachments[:NAMED_MAX])) + (f" and {more} more" if more > 0 else "")


def column_notes(old: Table, new: Table) -> list[str]:
    """What the columns of the table that is replaced have and the new one's have not."""
    there = {c.name: c for c in new.columns}
    said = []
    for column in old.columns:
        now = there.get(column.name)
        if now is None:
            said.append(f"column {column.name!r}")
            continue
        if column.generated and not now.generated:
            said.append(f"that {column.name!r} is computed")
        elif column.identity and not now.identity:
            said.append(f"the numbering of {column.name!r}")
        elif column.default is not None and now.default is None and not column.identity:
            said.append(f"the default of {column.name!r}")
        if not column.nullable and now.nullable:
            said.append(f"NOT NULL of {column.name!r}")
    if old.primary_key and old.primary_key != new.primary_key:
        now_key = f"({', '.join(new.primary_key)})" if new.primary_key else "none"
        said.append(f"the primary key ({', '.join(old.primary_key)}), which becomes {now_key}")
    if not said:
        return []
    return [f"table {str(old.name)!r} in the target: replacing it by the source's columns loses {', '.join(said)}"]
