"""Keys that the target would take for one: asked of the target's server before the first row moves.

A unique key may compare its texts by less than their bytes ('a' and 'A', 'a' and 'a ', 'ß' and 'ss'). What it takes
for one only the server knows that will have to take it, so nothing is guessed: the keys of the source, as they would
be sent, go into a temporary table there and are grouped as the key would group them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Collisions, Comparing, Loose, LooseKey, Source, Target
from rowferry.engine.request import Request
from rowferry.engine.scan import Side
from rowferry.engine.transfer import TableWay
from rowferry.errors import DataError, TargetError
from rowferry.model import TablePlan

#: Pairs of keys that a refusal names.
KEYS_SHOWN = 3
#: Characters of each.
KEY_SHOWN = 100
#: Bytes of keys that are sent at once.
PART_BYTES = 8 * limits.MIB

Say = Callable[[str], None]


class Answers(msgspec.Struct):
    """What asking came to: why the copy is refused, and what the report should say."""

    blockers: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


def questions(
    source: Source, keys: Sequence[LooseKey], plans: Sequence[TablePlan], request: Request
) -> list[tuple[TablePlan, LooseKey]]:
    """The target's loose keys that the source's own keys do not keep from colliding."""
    by_name = {plan.target.name: plan for plan in plans}
    asked = [(by_name[key.table], key) for key in keys]
    # A row that the target refuses is set aside by name; what a dedup has claimed for it is not known to others.
    asked = [(p, k) for p, k in asked if p.dedup is not None or request.on_error != "quarantine"]
    asked = [(p, k) for p, k in asked if not _is_kept_by_values(p, k)]
    if not asked or request.source.engine != request.target.engine or not isinstance(source, Loose):
        return asked
    plain = list({p.source.name: p.source for p, _ in asked if p.transform is None}.values())
    theirs = source.loose_keys(plain)
    return [(p, k) for p, k in asked if not any(_is_kept_alike(p, k, t) for t in theirs)]


def _is_kept_by_values(plan: TablePlan, key: LooseKey) -> bool:
    """Whether a key of the source is among those columns that the target's key compares by value."""
    shape = plan.derived or plan.source
    same = {c.source for c in plan.columns if c.target in key.exact and c.policy is None}
    return any(unique and same.issuperset(unique) for unique in (shape.primary_key, *shape.unique_keys))


def _is_kept_alike(plan: TablePlan, key: LooseKey, theirs: LooseKey) -> bool:
    """Whether a key of the source's table compares the very same columns in the very same way."""
    if plan.transform is not None or theirs.table != plan.source.name or theirs.unasked is not None:
        return False
    unchanged = {c.target for c in plan.columns if c.source == c.target and c.policy is None}
    alike = (theirs.columns, theirs.parts, theirs.where, theirs.nulls) == (key.columns, key.parts, key.where, key.nulls)
    return alike and unchanged.issuperset(key.columns)


def ask(
    source: Source,
    target: Target,
    asked: Sequence[tuple[TablePlan, LooseKey]],
    request: Request,
    stop: threading.Event | None = None,
    say: Say = lambda text: None,
) -> Answers:
    """Asks about all keys. The source's snapshot is open. Raises what the source's readers raise, and TargetError
    where another try may have an answer."""
    out = Answers()
    for plan, key in asked:
        name = f"table {str(plan.source.name)!r}: "
        what = f"the target's unique key {key.name!r} ({', '.join(key.columns)}) compares {key.how}"
        why = key.unasked or _unsent(plan, key)
        if why is None:
            say(f"{name}{what}: its keys are held against each other there")
            began = time.monotonic()
            try:
                rows, found = _compared(source, target, plan, key, request, stop)
            except (DataError, TargetError) as error:
                if error.transient:
                    raise
                why = error.message
            else:
                out.blockers += [f"{name}{what}, {sentence}" for sentence in _sentences(found)]
                took = time.monotonic() - began
                if not found.count and not found.held:
                    out.notes.append(f"{name}{what}: of {rows:,} keys no two are one there (asked in {took:.1f} s)")
                continue
        unasked = f"{what}, and which keys are one there could not be asked: {why}"
        if plan.dedup is not None and _is_by(plan, key):
            out.blockers.append(
                f"{name}{unasked}; bring them to one spelling into a column that is compared by its bytes"
            )
        else:
            out.notes.append(f"{name}{unasked}; the key itself refuses them")
    return out


def _unsent(plan: TablePlan, key: LooseKey) -> str | None:
    """Why the key cannot be made of what is sent."""
    sent = {c.target for c in plan.columns}
    missing = [name for name in key.columns if name not in sent]
    return f"its column {missing[0]!r} is not sent" if missing else None


def _is_by(plan: TablePlan, key: LooseKey) -> bool:
    """Whether the table's dedup tells rows apart by what the key may take for one."""
    assert plan.dedup is not None
    by = plan.dedup["by"] or [c.target for c in plan.columns]
    return not set(by).isdisjoint(set(key.columns) - set(key.exact))


def _compared(
    source: Source, target: Target, plan: TablePlan, key: LooseKey, request: Request, stop: threading.Event | None
) -> tuple[int, Collisions]:
    """How many keys there are, and which collide."""
    assert isinstance(target, Comparing)
    with Side(source, plan, "source", request.workers, columns=key.columns, stop=stop) as side:
        way = TableWay(msgspec.structs.replace(plan, columns=side.columns))
        with contextlib.closing(target.key_trial(plan.target, key, side.columns)) as trial:
            lock = threading.Lock()
            parts = [_Part(way, lambda batches: _send(trial.add, batches, lock)) for _ in range(side.threads)]
            side.scan([part.take for part in parts])
            for part in parts:
                part.flush()
            rows = sum(part.rows for part in parts)
            # Of keys that are spelled alike a dedup leaves one.
            spellings, held = plan.dedup is not None, _held(plan, key, request.mode)
            return rows, trial.collisions(KEYS_SHOWN, spellings=spellings, held=held)


def _held(plan: TablePlan, key: LooseKey, mode: str) -> str | None:
    """Which of the target's own rows stand in the way (``KeyTrial.collisions``)."""
    if mode == "append" and not key.nulls:
        return "other" if plan.dedup is not None and plan.dedup["against_target"] else "any"
    # A row that is found by another key than the upsert's own is the target's to refuse.
    return "other" if mode == "upsert" and set(plan.key) == set(key.columns) else None


def _send(
    add: Callable[[Sequence[pa.RecordBatch]], None], batches: Sequence[pa.RecordBatch], lock: threading.Lock
) -> None:
    with lock:
        add(batches)


class _Part:
    """One thread's keys on their way, sent some megabytes at a time."""

    def __init__(self, way: TableWay, send: Callable[[Sequence[pa.RecordBatch]], None]) -> None:
        self._way = way
        self._send = send
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self.rows = 0

    def take(self, batch: pa.RecordBatch) -> None:
        converted = self._way.convert(batch, {})
        self._held.append(converted)
        self._bytes += converted.nbytes
        self.rows += converted.num_rows
        if self._bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._send(self._held)
            self._held, self._bytes = [], 0


def _sentences(found: Collisions) -> list[str]:
    """What collides and what may be done, a sentence for each kind."""
    out = []
    if found.count:
        out.append(
            f"and takes keys of the source for one: {_shown(found.count, found.shown)}; bring them to one spelling "
            "in the source or by a transform, keep one of each by a dedup of a column that spells them alike, leave "
            "rows out with --where, set them aside with --on-error quarantine, or let the key compare bytes"
        )
    if found.held:
        out.append(
            f"and takes keys of the source for keys that rows of the target have: "
            f"{_shown(found.held, found.held_shown)}; leave these rows out with --where, or spell them as there"
        )
    return out


def _shown(count: int, pairs: Sequence[tuple[str, str]]) -> str:
    named = ", ".join(
        f"{_cut(one)} twice" if one == other else f"{_cut(one)} and {_cut(other)}" for one, other in pairs
    )
    return f"{count:,} such keys ({named}{', …' if count > len(pairs) else ''})"


def _cut(key: str) -> str:
    return key if len(key) <= KEY_SHOWN else f"{key[:KEY_SHOWN]}…"
