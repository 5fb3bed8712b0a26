"""The nouns: frozen structs that every floor above speaks in. All go through ``types.dump``/``load``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

from rowferry.types import Type

K = TypeVar("K")


class Endpoint(msgspec.Struct, frozen=True):
    """A parsed URL (``endpoint.parse``). ``path`` is a file or folder; ``query`` the URL's options."""

    scheme: str
    engine: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    path: str | None = None
    query: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:  # the password shows nowhere, a traceback included
        return f"Endpoint({self.safe_url!r})"

    def option(self, name: str, default: str | None = None) -> str | None:
        return dict(self.query).get(name, default)

    @property
    def safe_url(self) -> str:
        """The URL without password and user: what may be shown and what a ledger holds."""
        if self.path is not None:
            return f"{self.scheme}:///{self.path}"
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host or ''}{port}/{self.database or ''}"


class TableName(msgspec.Struct, frozen=True):
    """A table's place in a database. ``schema`` is None in the engine's default namespace
    (PostgreSQL ``public``, DuckDB and SQLite ``main``, MySQL the URL's database, a folder itself)."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


#: The names that rowferry gives to tables of its own: ledger, side tables, staging. No other name is kept from
#: being copied, whatever it begins with. Read by Python and by PostgreSQL alike.
STAGING_NAME = "rowferry_(?:new|stage)_(?:[0-9a-z]{1,8}_)?[0-9]+"
OWN_NAME = f"(?:rowferry_(?:jobs|steps|chunks|columns|staged|batches|quarantine)|{STAGING_NAME})"


#: The table of rows that could not be carried.
QUARANTINE_NAME = "rowferry_quarantine"


def is_own(name: str) -> bool:
    """Whether a table of this name is rowferry's own, in an engine where its ledger stands beside the tables."""
    return re.fullmatch(OWN_NAME, name, re.IGNORECASE) is not None


class Refusal(msgspec.Struct, frozen=True):
    """Why a column (or a table, column None) cannot be carried exactly, and what may be chosen instead."""

    column: str | None
    reason: str
    #: Rows that are concerned; None where they were not counted.
    count: int | None = None
    #: Policies that the user may choose (``--policy TABLE.COLUMN=POLICY``): text, null, clamp, skip, quarantine.
    policies: tuple[str, ...] = ()


class Column(msgspec.Struct, frozen=True):
    """One column as its engine has it.

    As a source column, ``type`` is the form it is read in by default; ``forms`` are all the
    forms in which the source can give it, best first (``type`` among them). ``refusal`` says
    that the default form does not hold every value now in the table.
    """

    name: str
    type: Type
    nullable: bool = True
    #: The type as the engine declares it, without the engine's name: ``numeric(10,2)``.
    native: str = ""
    forms: tuple[Type, ...] = ()
    #: A default that is a plain literal, in the engine's own SQL (``'x'``, ``0``, ``true``).
    default: str | None = None
    #: Computed by the engine: never written.
    generated: bool = False
    #: ``always`` | ``by default`` | ``serial`` | ``auto``: filled by a sequence or the rowid.
    identity: str | None = None
    refusal: Refusal | None = None
    #: The engine compares texts here by something else than their bytes.
    collation: str | None = None


class UserType(msgspec.Struct, frozen=True):
    """An enum, domain or composite that columns need, for databases of the same engine.
    ``definition`` is the engine's own DDL; its order in ``Table.user_types`` is one in which it can be run."""

    name: str
    kind: str
    definition: str


class ForeignKey(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    parent: TableName


class Attachment(msgspec.Struct, frozen=True):
    """What stands on an existing table beside its columns and its key (an index, a constraint, a trigger, a right),
    and shall stand on the one that takes its place. ``head`` and ``definition`` are the engine's own DDL, in the
    parts that its adapter puts together."""

    kind: str
    name: str
    definition: str = ""
    head: str = ""
    #: The table that a foreign key points to.
    parent: TableName | None = None
    #: Why it cannot be made on the table that takes its place.
    problem: str | None = None
    #: Nothing but comfort is lost with it: the plan says so, and goes on.
    minor: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    def of_columns(self, columns: Collection[str], have: Collection[str]) -> Attachment:
        """The same, knowing which columns it is of and which the table that takes its place has (``have``). It goes
        with its columns if all of them go; it is a problem if some do."""
        gone = [c for c in columns if c not in have]
        if not gone:
            return self
        if len(gone) == len(columns):
            return msgspec.structs.replace(self, problem=f"it goes with {', '.join(gone)}", minor=True)
        problem = f"it is of {', '.join(gone)}, which the table that takes its place has not"
        return msgspec.structs.replace(self, problem=problem, minor=False)


class Table(msgspec.Struct, frozen=True):
    """One table (a partitioned one by its root) as its engine has it."""

    name: TableName
    columns: tuple[Column, ...]
    #: The primary key's columns, in its order.
    primary_key: tuple[str, ...] = ()
    #: Unique keys whose columns are all NOT NULL (without the primary key): each can identify a row.
    unique_keys: tuple[tuple[str, ...], ...] = ()
    #: Estimates, from the catalogue where it has them: rows and bytes.
    rows: int = 0
    bytes: int = 0
    #: Changes when the table's columns do (names, types, order, nullability) or when it is dropped and made anew.
    fingerprint: str = ""
    #: ``table`` | ``partitioned`` | ``view`` | ``file``.
    kind: str = "table"
    foreign_keys: tuple[ForeignKey, ...] = ()
    #: User triggers and rules that would fire on a write, by name.
    triggers: tuple[str, ...] = ()
    #: Those of them that fire whatever a session says (PostgreSQL's ENABLE ALWAYS).
    triggers_always: tuple[str, ...] = ()
    user_types: tuple[UserType, ...] = ()
    #: As a target: a crash of its server empties it (UNLOGGED, MEMORY), whatever had been committed.
    volatile: bool = False
    #: Of a table that takes the place of another (mode replace): what that one has.
    attachments: tuple[Attachment, ...] = ()

    def column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def identifying_key(self) -> tuple[str, ...]:
        """The primary key, else the first unique key of NOT NULL columns, else nothing."""
        return self.primary_key or (self.unique_keys[0] if self.unique_keys else ())


class Bound(msgspec.Struct, frozen=True):
    """Which rows of a table a chunk holds. ``data`` is the source adapter's own (JSON values).

    physical: by the place of rows (ctid, rowid that is no key): true only of the very state that
        was planned, so that after a resume with another state the table is redone whole.
    rows, bytes: estimates.
    """

    data: dict[str, Any]
    physical: bool = False
    rows: int = 0
    bytes: int = 0


class Comparison(msgspec.Struct, frozen=True):
    """How two columns are compared: the comparison type to which both are brought before hashing
    (see docs/DIGEST.md), and the rules that were needed, in plain words for the report."""

    source: Type
    target: Type
    #: The comparison type, in the notation of docs/DIGEST.md; part of the schema id.
    spec: str
    rules: tuple[str, ...] = ()


class ColumnPlan(msgspec.Struct, frozen=True):
    """One column's way: read as ``form``, converted, written as the target column's type."""

    source: str
    form: Type
    target: str
    #: The target column (planned or existing).
    column: Column
    comparison: Comparison
    #: Policy for values that do not fit: None (refuse) | null | clamp; quarantine: those that cannot be read are set
    #: aside, and what the target's type does not hold is refused (which is then set aside as well).
    policy: str | None = None
    #: Checks that the target asks of every value (see convert.CHECKS).
    checks: tuple[str, ...] = ()


class TablePlan(msgspec.Struct, frozen=True):
    """One table's way from source to target."""

    index: int
    source: Table
    target: Table
    columns: tuple[ColumnPlan, ...]
    #: Tables of a wave begin when all of the wave before are loaded (foreign keys of the target).
    wave: int = 0
    where: str | None = None
    #: The target table stood before the job.
    exists: bool = False
    #: Target columns that identify a row on both sides (upsert, verify); empty: compared as a multiset.
    key: tuple[str, ...] = ()
    #: Source and target are of one engine and columns need no conversion: original bytes are handed on.
    raw: bool = False
    #: The name rows are loaded under, where it is not the target's (replace, staged append).
    load_name: TableName | None = None
    #: The same, for append of a physically split table: added in one transaction at the end.
    staged: bool = False
    #: What happens to the rows on their way (stages.spec.TableSpec as plain JSON). The names of ``columns`` are then
    #: those after the transform, and ``derived`` is the table that it makes of the source's.
    transform: dict[str, Any] | None = None
    #: Of rows that are alike one is kept (stages.spec.Dedup as plain JSON; its names are those after the transform).
    dedup: dict[str, Any] | None = None
    #: The (source column, form) pairs that are read, where that is not what ``columns`` says.
    reads: tuple[tuple[str, Type], ...] = ()
    derived: Table | None = None
    #: Source columns under the policy quarantine: rows whose values there cannot be read are set aside.
    unread: tuple[str, ...] = ()
    #: A further output of a transform: the index of the plan whose chunks feed it. It has no chunks of its own.
    fed_by: int | None = None
    #: Which output of the transform this is: 0, or of a fed table its number.
    output: int = 0


class Plan(msgspec.Struct, frozen=True):
    """All that a resume needs to go on as if nothing had happened. Holds no credentials."""

    source: str
    target: str
    mode: str
    tables: tuple[TablePlan, ...]
    options: dict[str, Any]
    version: int = 1


class Digest(msgspec.Struct, frozen=True):
    """The digest of a set of rows: how many, and the sum of their row digests mod 2^128."""

    rows: int = 0
    sum: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, (self.sum + other.sum) % (1 << 128))

    def __sub__(self, other: Digest) -> Digest:
        return Digest(self.rows - other.rows, (self.sum - other.sum) % (1 << 128))

    def __str__(self) -> str:
        return f"{self.rows}:{self.sum:032x}"

    @staticmethod
    def parse(text: str) -> Digest:
        rows, _, total = text.partition(":")
        return Digest(int(rows), int(total, 16))


class ChunkRow(msgspec.Struct, frozen=True):
    """A chunk as the ledger holds it. state: todo | done."""

    table: int
    number: int
    bound: Bound
    wave: int = 0
    state: str = "todo"
    rows_read: int = 0
    rows_committed: int = 0
    bytes: int = 0
    digest_read: str | None = None
    digest_sent: str | None = None
    #: Values that a policy touched, by column.
    touched: dict[str, int] = msgspec.field(default_factory=dict)
    snapshot: str | None = None
    seconds: float = 0.0
    #: Counts that a plain copy has not: generated, filtered, deduplicated, quarantined (rows of the source table),
    #: and ``outputs``: of each further table that the chunk feeds, by its plan's index, ``{sent, digest, bytes}``, and
    #: ``quarantined`` where rows of it were.
    counts: dict[str, Any] = msgspec.field(default_factory=dict)

    def outputs(self, table: int | None = None) -> list[dict[str, Any]]:
        """What the chunk gave to further tables, or to the one of that index."""
        outputs: dict[str, dict[str, Any]] = self.counts.get("outputs", {})
        return [given for index, given in outputs.items() if table is None or index == str(table)]

    @property
    def rows_quarantined(self) -> int:
        """Of all tables that the chunk feeds."""
        return sum(int(counts.get("quarantined", 0)) for counts in (self.counts, *self.outputs()))


class StepRow(msgspec.Struct, frozen=True):
    """A step beside the chunks (create, truncate, keys, swap, merge …), done once. state: todo | done."""

    number: int
    kind: str
    table: int | None = None
    state: str = "todo"
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class JobRow(msgspec.Struct, frozen=True):
    """A job as the ledger holds it. state: running | finished."""

    id: str
    name: str
    key: str
    state: str
    created: str
    plan: dict[str, Any]
    #: What the source said of its state when the chunks were cut (``Source.state_token``).
    token: str | None = None
    report: dict[str, Any] | None = None


def add_counts(into: dict[K, int], more: Mapping[K, int]) -> None:
    """Adds counts to those of the same columns (or tables)."""
    for what, count in more.items():
        into[what] = into.get(what, 0) + count
