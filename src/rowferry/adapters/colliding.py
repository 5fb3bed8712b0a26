"""What the key trials of all engines share: what is asked of the temporary table that the keys stand in."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rowferry.adapters.protocol import Collisions, LooseKey

#: The temporary table's name.
KEYS = "rowferry_keys"


class SqlTrial(abc.ABC):
    """The protocol's KeyTrial in SQL. ``keys`` and ``there`` are the temporary table and the target's, in quotes.

    spelled: SQL of a row's key as one text, which is compared by its bytes.
    """

    #: What follows the SELECT of groups, of which there are nearly as many as rows.
    hint = ""

    def __init__(self, key: LooseKey, keys: str, there: str, spelled: str) -> None:
        self._key = key
        self._keys = keys
        self._there = there
        self._spelled = spelled

    @abc.abstractmethod
    def add(self, batches: Sequence[pa.RecordBatch]) -> None: ...

    @abc.abstractmethod
    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs a SELECT in the session of the temporary table."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def collisions(self, most: int, *, spellings: bool, held: str | None) -> Collisions:
        """As the protocol says; groups of keys that are one are counted, not their rows."""
        count, shown = self._counted(self._groups(spellings), most)
        there, there_shown = (0, ()) if held is None else self._counted(self._pairs(held == "other"), most)
        return Collisions(count, shown, there, there_shown)

    def _counted(self, sql: str, most: int) -> tuple[int, tuple[tuple[str, str], ...]]:
        rows = self._rows(f"{sql} ORDER BY 1, 2 LIMIT {most + 1}")
        count = len(rows) if len(rows) <= most else int(self._rows(f"SELECT COUNT(*) FROM ({sql}) AS found")[0][0])
        return count, tuple((str(one), str(other)) for one, other in rows[:most])

    def _groups(self, spellings: bool) -> str:
        # Two keys are spelled alike if the first and the last in the order of bytes are.
        wanted = f"MIN({self._spelled}) <> MAX({self._spelled})" if spellings else "COUNT(*) > 1"
        return (
            f"SELECT {self.hint}MIN({self._spelled}) AS one, MAX({self._spelled}) AS other FROM {self._keys}"
            f"{self._condition()} GROUP BY {', '.join(self._key.parts)} HAVING {wanted}"
        )

    def _pairs(self, other: bool) -> str:
        """Keys that rows of the table have: found by its own index, once for each key."""
        parts = ", ".join(f"{part} AS p{i}" for i, part in enumerate(self._key.parts))
        sides = [
            f"(SELECT {parts}, {self._spelled} AS spelled FROM {table}{self._condition()}) AS {alias}"
            for table, alias in ((self._keys, "k"), (self._there, "t"))
        ]
        equal = self._key.equal or ("=",) * len(self._key.parts)
        same = " AND ".join(f"k.p{i} {sign} t.p{i}" for i, sign in enumerate(equal))
        more = " WHERE k.spelled <> t.spelled" if other else ""
        return f"SELECT DISTINCT k.spelled AS one, t.spelled AS other FROM {sides[0]} JOIN {sides[1]} ON {same}{more}"

    def _condition(self) -> str:
        tests = [] if self._key.nulls else [f"{part} IS NOT NULL" for part in self._key.parts]
        tests += [f"({self._key.where})"] if self._key.where else []
        return f" WHERE {' AND '.join(tests)}" if tests else ""
