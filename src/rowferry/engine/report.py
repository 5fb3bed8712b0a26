"""What a run says at its end: the same from Python as in the JSON that ``--report`` writes.

    Report             a copy, a resume or a verify: endpoints, guarantee, tables, status
    ├── TableReport    counts, digests, differences of one table
    │   └── RowDifference   one row that differs, by key, with both values
    PlanReport         what a copy would do: PlannedTable, PlannedColumn, refusals
    JobSummary         one job of a ledger, for ``rowferry jobs``

All frozen; ``to_json()`` gives plain JSON values with every field, ``from_json()`` the inverse.
Nothing here holds credentials: endpoints are ``Endpoint.safe_url``.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import msgspec

from rowferry.model import Digest, Refusal

#: Version of the JSON form; a reader of old reports can tell them apart.
REPORT_VERSION = 1


class RowDifference(msgspec.Struct, frozen=True):
    """One row that differs. Values are as text; ``source`` is None for an extra row, ``target`` for a missing one.

    kind: missing | extra | changed. ``count``: how often more the row stands on that side, where a
    table without a key is compared as a multiset.
    """

    kind: str
    key: dict[str, str | None]
    source: dict[str, str | None] | None = None
    target: dict[str, str | None] | None = None
    count: int = 1


class TableReport(msgspec.Struct, frozen=True):
    """One table. Counts are of the whole job, also of chunks that an earlier process had finished.

    missing, extra, changed: None where the table was not verified. ``equal`` is the verdict of the
    verification (None: not verified; of ``--contained`` and upsert: contained).
    """

    source: str
    target: str
    rows_read: int = 0
    rows_generated: int = 0
    rows_sent: int = 0
    rows_filtered: int = 0
    rows_deduplicated: int = 0
    rows_quarantined: int = 0
    rows_committed: int = 0
    #: Rows of this source table that a transform gave to further tables, each of which has a report of its own.
    rows_fed: int = 0
    #: The rows passed a transform or a dedup, so that what was read is not what was sent; ``further``: this is one
    #: of the further tables, whose rows are counted with those of its source table.
    staged: bool = False
    further: bool = False
    #: Bytes of Arrow data that were sent.
    bytes: int = 0
    #: Seconds that workers spent on the table's chunks, added up (2 workers at once: 2 s a second).
    seconds: float = 0.0
    digest_read: Digest | None = None
    digest_sent: Digest | None = None
    digest_target: Digest | None = None
    schema_id: str = ""
    #: Every comparison rule that was applied, in plain words.
    rules: tuple[str, ...] = ()
    equal: bool | None = None
    missing: int | None = None
    extra: int | None = None
    changed: int | None = None
    #: Why the rows were not compared (then ``equal`` is False and the counts are None): columns that differ.
    not_compared: tuple[str, ...] = ()
    #: The first differing rows, at most as many as were asked for.
    named: tuple[RowDifference, ...] = ()
    #: Rows that --repair inserted or deleted.
    repaired: int = 0
    chunks: int = 0
    #: Chunks that were done already when this run began.
    chunks_taken_over: int = 0
    retries: int = 0
    #: Values that a policy touched, by column.
    touched: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def differences(self) -> int:
        return (self.missing or 0) + (self.extra or 0) + (self.changed or 0)

    def unclosed(self) -> str | None:
        """Says where the counts do not close; None if they do.

        read + generated = sent + filtered + deduplicated + quarantined, and sent = committed. What was sent to
        further tables counts with their source table.
        """
        left = self.rows_read + self.rows_generated
        sent = self.rows_sent + self.rows_fed
        right = sent + self.rows_filtered + self.rows_deduplicated + self.rows_quarantined
        if left != right and not self.further:
            return (
                f"{self.rows_read:,} rows read + {self.rows_generated:,} generated, but {sent:,} sent + "
                f"{self.rows_filtered:,} filtered + {self.rows_deduplicated:,} deduplicated + "
                f"{self.rows_quarantined:,} quarantined"
            )
        if self.rows_sent != self.rows_committed:
            return f"{self.rows_sent:,} rows sent, but {self.rows_committed:,} committed"
        return None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = _plain(self)
        for name in ("digest_read", "digest_sent", "digest_target"):
            digest = getattr(self, name)
            data[name] = None if digest is None else str(digest)
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> TableReport:
        # The digests are apart: msgspec refuses integers above 64 bits.
        read, sent, target = (data.get(f"digest_{side}") for side in ("read", "sent", "target"))
        rest = {k: v for k, v in data.items() if k not in ("digest_read", "digest_sent", "digest_target")}
        return msgspec.structs.replace(
            msgspec.convert(rest, TableReport),
            digest_read=None if read is None else Digest.parse(read),
            digest_sent=None if sent is None else Digest.parse(sent),
            digest_target=None if target is None else Digest.parse(target),
        )


class Report(msgspec.Struct, frozen=True):
    """The whole run. ``exit_code`` is what the command line exits with; ``status`` says it in a word:
    ok | different | quarantined | failed | stopped."""

    command: str
    source: str
    target: str
    job: str | None = None
    mode: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None
    #: one | per table | mixed | none; None where nothing was read.
    snapshot: str | None = None
    snapshot_note: str | None = None
    seconds: float = 0.0
    workers: int = 0
    tables: tuple[TableReport, ...] = ()
    #: Sentences that the reader should know: what was not carried over, what was skipped.
    notes: tuple[str, ...] = ()
    version: int = REPORT_VERSION

    @property
    def rows_committed(self) -> int:
        return sum(t.rows_committed for t in self.tables)

    @property
    def equal(self) -> bool | None:
        """The verdict over all tables; None where none was verified."""
        verdicts = [t.equal for t in self.tables if t.equal is not None]
        return all(verdicts) if verdicts else None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = _plain(self)
        data["tables"] = [t.to_json() for t in self.tables]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Report:
        tables = tuple(TableReport.from_json(t) for t in data.get("tables", ()))
        rest = {k: v for k, v in data.items() if k != "tables"}
        return msgspec.structs.replace(msgspec.convert(rest, Report), tables=tables)


class PlannedColumn(msgspec.Struct, frozen=True):
    """One column as it would travel. Types are as the engines spell them."""

    source: str
    source_type: str
    target: str
    target_type: str
    #: The canonical type in between.
    type: str = ""
    policy: str | None = None
    rules: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True):
    """A row of the source as it is, and what a transform makes of it: the first of ``rows`` rows, or nothing where it
    is left out. ``problem``: why it is refused. Values are as text."""

    before: dict[str, str | None]
    after: tuple[dict[str, str | None], ...] = ()
    rows: int = 0
    problem: str | None = None


class PlannedTable(msgspec.Struct, frozen=True):
    """One table as it would be copied; ``rows`` and ``bytes`` are estimates of the source's catalogue."""

    source: str
    target: str
    rows: int = 0
    bytes: int = 0
    chunks: int = 0
    wave: int = 0
    #: The target table stands already.
    exists: bool = False
    #: How the table is cut, or what it is compared by, where that is worth saying.
    key: tuple[str, ...] = ()
    columns: tuple[PlannedColumn, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    #: What happens to the rows on their way, a sentence each.
    passes: tuple[str, ...] = ()
    #: Of a table that is transformed: its first rows, before and after.
    samples: tuple[Sample, ...] = ()


class PlanReport(msgspec.Struct, frozen=True):
    """What ``copy`` would do; nothing was written. ``exit_code`` is 2 where copy would refuse."""

    source: str
    target: str
    mode: str
    tables: tuple[PlannedTable, ...] = ()
    #: What the users may not do and would have to, in plain words.
    missing_privileges: tuple[str, ...] = ()
    #: Other reasons for which copy would refuse (target not empty, triggers, cycles …).
    blockers: tuple[str, ...] = ()
    #: one | per table | none: the guarantee that the source can give.
    snapshot: str | None = None
    #: Rough estimate of the copy's wall clock; None where the sizes are not known.
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    version: int = REPORT_VERSION

    @property
    def refused(self) -> bool:
        return bool(self.blockers or self.missing_privileges or any(t.refusals for t in self.tables))

    @property
    def exit_code(self) -> int:
        return 2 if self.refused else 0

    def to_json(self) -> dict[str, Any]:
        return {"command": "plan", **_plain(self), "exit_code": self.exit_code}


class JobSummary(msgspec.Struct, frozen=True):
    """One job of a target's ledger. state: running | finished (running: unfinished, whether or not a
    process works on it now; ``alive`` says whether one does, None where that cannot be told)."""

    id: str
    name: str
    state: str
    created: str
    source: str
    target: str
    mode: str
    tables: int = 0
    chunks: int = 0
    chunks_done: int = 0
    rows_committed: int = 0
    alive: bool | None = None
    #: Why the job could not be read (another version of rowferry wrote it, its row was damaged).
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = _plain(self)
        return data


def write(path: str, data: dict[str, Any]) -> None:
    """Writes a report's JSON in one piece: whoever reads the file never sees half of it. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    handle, aside = tempfile.mkstemp(prefix=".rowferry-report-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(data, file, ensure_ascii=False, indent=2)
            file.write("\n")
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def _plain(value: Any) -> Any:
    """Structs, tuples and dicts as JSON values, every field present; a Digest as its text."""
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return round(value, 6) if isinstance(value, float) else value
