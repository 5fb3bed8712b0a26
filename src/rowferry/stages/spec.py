"""What is to happen to the rows of a table on their way, as it stands in a job.toml or is given from Python.

Only shapes and their meaning: ``stages/transform.py``, ``stages/ready_made.py`` and ``stages/dedup.py`` carry it
out. All columns named here are the source's, under the names that they have there, until a table's own rules
give them others. The order in which the parts apply is that of the fields of :class:`TableSpec`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: What becomes of a row (or value) that a rule cannot carry.
OnError = Literal["refuse", "null", "quarantine", "clamp"]


class Cast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column brought to another canonical type, in the notation of docs/TRANSFORM.md: ``decimal(12,2)``.

    on_error: refuse stops the job, null and clamp (the nearest value that fits) are counted per column,
    quarantine sets the row aside.
    """

    to: str
    on_error: OnError = "refuse"


class Lookup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Columns taken from a table in a CSV or Parquet file, held in memory: each row finds at most one of its.

    on: our column → its column; take: the new column → its column. The file's key must be unique.
    missing: what becomes of a row that finds none.
    """

    file: str
    on: dict[str, str]
    take: dict[str, str]
    missing: Literal["refuse", "null", "quarantine"] = "refuse"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ready-made rule for some columns (globs): ``do`` names it, the other fields are its arguments
    (which of them it takes is checked by ``ready_made``)."""

    columns: tuple[str, ...]
    do: str
    #: time_zone: the zone that a wall clock is in, and the one that it is brought to (IANA names).
    from_zone: str | None = None
    to_zone: str | None = None
    #: time_zone: what a wall clock means that the zone skips, and one that it has twice; None is refuse.
    gap: Literal["refuse", "earlier", "later"] | None = None
    overlap: Literal["refuse", "earlier", "later"] | None = None
    #: unicode: NFC | NFD | NFKC | NFKD.
    form: str | None = None
    #: trim: the characters that go (None: all white space), and from which end (None: from both).
    characters: str | None = None
    side: Literal["both", "left", "right"] | None = None
    #: nul: what stands in the place of U+0000; redact: what stands in the place of the value, or of each of its
    #: characters (None: NULL, or the rule's own); zero_date: the date (None: NULL).
    replacement: str | None = None
    #: hash: name of the environment variable that holds the key; the key itself is never in a config.
    key_env: str | None = None
    #: hash: how the key goes in (None: hmac-sha256), and how the token is written (None: hex).
    algorithm: Literal["hmac-sha256", "blake2b"] | None = None
    encoding: Literal["hex", "base32"] | None = None
    #: redact: what is left of a value (None: nothing), and of how many characters.
    how: Literal["fixed", "keep_first", "keep_last", "email", "shape"] | None = None
    keep: int | None = None
    #: truncate: characters; None: what the target's column holds.
    length: int | None = None
    #: truncate: bytes of UTF-8, beside or instead of characters.
    length_bytes: int | None = None
    #: zero_date: the type of what comes out (None: text, as it went in): date, timestamp.
    to: str | None = None
    #: json_take: new column → path (``$.a.b[0]``, ``$.a as int64``); json_put: the new column's members → our
    #: columns.
    paths: dict[str, str] = {}
    into: str | None = None
    on_error: OnError = "refuse"


class Dedup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of rows that are alike in ``by`` (names after the transform; none: the whole row) one is kept.

    keep: ``any``, or ``first by COLUMN`` or ``last by COLUMN`` (a column after the transform).
    against_target: rows whose key the target held before the job are dropped too (only with ``any``).
    """

    by: tuple[str, ...] = ()
    keep: str = "any"
    against_target: bool = False


class TableSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that happens to one source table's rows; the parts apply in this order."""

    #: Ready-made cleaning, one after the other, on the source's columns.
    rules: tuple[Rule, ...] = ()
    lookups: tuple[Lookup, ...] = ()
    #: New or changed columns: SQL expressions over the columns so far (row-wise, deterministic), all at once.
    set: dict[str, str] = {}
    #: What becomes of a row on which one of these expressions (or ``where``) fails: NULL is counted.
    set_on_error: Literal["refuse", "null", "quarantine"] = "refuse"
    #: Rows for which this is not true are left out, and counted as filtered. It sees the columns after ``set``.
    where: str | None = None
    #: Column → type, or a Cast.
    cast: dict[str, str | Cast] = {}
    #: Columns of one value.
    constant: dict[str, str | int | float | bool | None] = {}
    drop: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    #: These columns first, in this order; the others after them as they are.
    order: tuple[str, ...] = ()
    #: ``module:function``: RecordBatch → RecordBatch, or → list of (target table, RecordBatch).
    python: str | None = None
    #: The function gives as many rows as it takes; false: it may add or leave out rows (counted).
    python_keeps_rows: bool = True
    dedup: Dedup | None = None

    @property
    def transforms(self) -> bool:
        """Whether anything but the dedup is asked for."""
        return self != TableSpec(dedup=self.dedup)


def load(data: Any) -> TableSpec:
    """A TableSpec from plain JSON values; raises ``msgspec.ValidationError`` naming the path."""
    return msgspec.convert(data, TableSpec)
