"""The rows that differ, by name: which ones to show, and both sides' values as text."""

from __future__ import annotations

import collections
import threading

import msgspec
import pyarrow as pa

from rowferry import compute as pc
from rowferry.convert import value_text
from rowferry.engine.narrow import digests_of
from rowferry.engine.report import RowDifference
from rowferry.engine.scan import Consumer, Side
from rowferry.model import TablePlan
from rowferry.stages.digest import Digester

#: Different rows under one key that are looked at; more than two are there only where the key is not unique.
ROWS_PER_KEY_MAX = 16


class Seen(msgspec.Struct):
    """A row of one side: its values as text, the digest of each cell, and how often it was seen."""

    texts: tuple[str | None, ...]
    cells: tuple[bytes, ...]
    count: int = 0


def choose(entries: pa.Table, named_max: int) -> pa.Array:
    """The keys to name: at most ``named_max``, of each kind of difference some, in the order of the digests."""
    both = pc.and_(pc.greater(entries["source"], 0), pc.greater(entries["target"], 0))
    kinds = [
        both,
        pc.and_(pc.greater(entries["source"], 0), pc.invert(both)),
        pc.and_(pc.greater(entries["target"], 0), pc.invert(both)),
    ]
    lists = [entries["key"].filter(kind).slice(0, named_max).to_pylist() for kind in kinds]
    chosen: list[bytes] = []
    while len(chosen) < named_max and any(lists):
        for keys in lists:
            if keys and len(chosen) < named_max:
                chosen.append(keys.pop(0))
    return pa.array(sorted(chosen), pa.binary(16))


class Names:
    """Collects the rows of the chosen keys from batches of both sides. Thread-safe."""

    def __init__(self, plan: TablePlan, wanted: pa.Array) -> None:
        self._plan = plan
        self._wanted = wanted
        self._lock = threading.Lock()
        self._seen: dict[str, dict[bytes, dict[bytes, Seen]]] = {
            side: collections.defaultdict(dict) for side in ("source", "target")
        }

    def consumer(self, side: Side) -> Consumer:
        """Takes the wanted rows out of each batch of a side (with or without the readable columns)."""
        digester = side.digester()
        cells = [Digester([column.comparison], side.name) for column in side.columns]
        places = list(range(len(side.columns)))

        def take(batch: pa.RecordBatch) -> None:
            keys, rows = digests_of(digester, batch.select(places))
            mask = pc.is_in(keys, value_set=self._wanted)
            if pc.any(mask).as_py():
                kept = batch.filter(mask)
                self._note(side, cells, kept, keys.filter(mask).to_pylist(), rows.filter(mask).to_pylist())

        return take

    def _note(
        self, side: Side, cells: list[Digester], batch: pa.RecordBatch, keys: list[bytes], rows: list[bytes]
    ) -> None:
        for index, (key, row) in enumerate(zip(keys, rows, strict=True)):
            with self._lock:
                known = self._seen[side.name][key]
                if row not in known and len(known) < ROWS_PER_KEY_MAX:
                    known[row] = _seen(side, cells, batch.slice(index, 1))
                if row in known:
                    known[row].count += 1

    def differences(self) -> list[RowDifference]:
        """The chosen rows that differ, as they were seen."""
        out: list[RowDifference] = []
        for key in self._wanted.to_pylist():
            out += self._of_key(self._seen["source"].get(key, {}), self._seen["target"].get(key, {}))
        return out

    def _of_key(self, source: dict[bytes, Seen], target: dict[bytes, Seen]) -> list[RowDifference]:
        only_source = [(s, s.count - target[r].count if r in target else s.count) for r, s in source.items()]
        only_target = [(t, t.count - source[r].count if r in source else t.count) for r, t in target.items()]
        only_source = [(s, n) for s, n in only_source if n > 0]
        only_target = [(t, n) for t, n in only_target if n > 0]
        out: list[RowDifference] = []
        while only_source and only_target:
            (s, n), (t, m) = only_source.pop(0), only_target.pop(0)
            both = min(n, m)
            out.append(self._changed(s, t, both))
            if n > both:
                only_source.insert(0, (s, n - both))
            if m > both:
                only_target.insert(0, (t, m - both))
        out += [RowDifference("missing", self._key(s), self._row(s), None, n) for s, n in only_source]
        out += [RowDifference("extra", self._key(t), None, self._row(t), n) for t, n in only_target]
        return out

    def _changed(self, source: Seen, target: Seen, count: int) -> RowDifference:
        names = [c.target for c in self._plan.columns]
        places = [i for i, (a, b) in enumerate(zip(source.cells, target.cells, strict=True)) if a != b]
        return RowDifference(
            "changed",
            self._key(source),
            {names[i]: source.texts[i] for i in places},
            {names[i]: target.texts[i] for i in places},
            count,
        )

    def _key(self, row: Seen) -> dict[str, str | None]:
        values = self._row(row)
        return {name: values[name] for name in self._plan.key if name in values}

    def _row(self, row: Seen) -> dict[str, str | None]:
        return dict(zip((c.target for c in self._plan.columns), row.texts, strict=True))


def _seen(side: Side, cells: list[Digester], row: pa.RecordBatch) -> Seen:
    shown = [(i, form) for i, (_, form) in enumerate(side.forms)]
    if row.num_columns > len(shown):
        for place, (i, form) in enumerate(side.readable, len(shown)):
            shown[i] = (place, form)
    texts = tuple(value_text(row.column(place), 0, form) for place, form in shown)
    digests = tuple(
        digester.rows(pa.RecordBatch.from_arrays([row.column(i)], [str(i)]))[1] for i, digester in enumerate(cells)
    )
    return Seen(texts, digests)
