"""What an adapter is: the contract that ``tests/adapters`` holds every one to.

An adapter is the package ``rowferry.adapters.<engine>`` with

    capabilities: Capabilities
    open_source(endpoint: Endpoint, options: SourceOptions) -> Source
    open_target(endpoint: Endpoint, options: TargetOptions) -> Target

Rows travel as :class:`Block`. The batch of a Block has one column for each of
``ReadRequest.columns``, in that order, under the source column's name, in the canonical
Arrow type of the form that was asked for (``form.arrow``).

Every failure is a ``rowferry.errors`` error: SourceError from a Source or Reader, TargetError
from a Target or Writer (LedgerError from its ledger), DataError for a value, ConfigError for a
wrong request (no such file, unknown option). ``transient=True`` exactly where trying the chunk
again on a new connection may help. A driver's exception never escapes, nor a password.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
import pyarrow as pa

from rowferry.model import Attachment, Bound, ChunkRow, Column, ColumnPlan, JobRow, Refusal, StepRow, Table, TableName
from rowferry.types import Type


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do, known before a connection is opened."""

    engine: str
    #: Writers may be on several connections (and processes, machines) at once: the ledger is the queue.
    server: bool
    #: Several writers of one process can have open transactions at the same time.
    parallel_writers: bool
    modes: tuple[str, ...] = ("create", "append", "truncate", "replace", "upsert")
    #: Rows a chunk into this engine should hold at least (0: bytes alone decide).
    chunk_rows_min: int = 0
    #: Longest identifier, and whether it is counted in bytes (else characters); None: unbounded.
    name_max: int | None = None
    name_in_bytes: bool = True
    #: Names that differ only in letter case are the same name.
    names_fold_case: bool = False
    #: The same of the columns of one table alone.
    columns_fold_case: bool = False
    #: Regular expression of what no name of a table or column may have in it.
    names_unfit: str | None = None
    #: A column's name may be empty, as SQLite's may.
    names_empty: bool = False
    #: Schemas other than the default namespace can hold tables.
    schemas: bool = True
    #: Schemas are this engine's databases, and the one that it is connected to (``Placed.place``) is the default.
    schemas_are_databases: bool = False
    #: How rows come to a table with a foreign key to itself: in ``any`` order (foreign keys are not checked, and rows
    #: without a parent counted at the end), in one ``statement`` (checked at its end), or not at all ('').
    self_references: str = ""
    #: ``Writer.mark`` sets a savepoint; elsewhere ``undo`` goes back to the chunk's claim.
    savepoints: bool = False
    #: The ledger, and rowferry's other tables, stand in a schema of their own (``TargetOptions.ledger_schema``).
    ledger_schema: bool = False
    #: A reader may be opened before the snapshot is (and joins it later), and a writer before the ledger is there.
    connects_ahead: bool = False
    #: Digits of its decimals, where it has no number without bounds and columns of these are made by a look at their
    #: values; None: they are refused, or need none.
    measured_digits_max: int | None = None
    #: As a source it gives values that it cannot read as what stands there (``ReadRequest.unread``): the policy
    #: ``quarantine``.
    tells_unread: bool = False
    #: Engine whose raw frames this target takes and this source gives (``Block.raw``), if any.
    raw_format: str | None = None


class Digits(msgspec.Struct, frozen=True):
    """What numbers a column holds: the most digits before and behind the point (None: it holds none), and how many
    values are no numbers (NaN, ±Infinity)."""

    whole: int | None
    scale: int | None
    special: int = 0


class SourceOptions(msgspec.Struct, frozen=True):
    #: Text form for PostgreSQL columns the independent decoder cannot read truly, and so on.
    independent: bool = False
    #: Policies by column, ``{"table.column": "text"}``; a source needs them where they choose a form.
    policies: dict[str, str] = msgspec.field(default_factory=dict)
    #: Connections that the job may use at once.
    workers: int = 1


class TargetOptions(msgspec.Struct, frozen=True):
    ledger_schema: str = "rowferry"
    #: None | fire | disable: what to do about user triggers and rules of target tables.
    triggers: str | None = None
    #: A target that is only read (verify): nothing is created, not even a file or a ledger.
    read_only: bool = False


class Block(msgspec.Struct, frozen=True):
    """Some rows. ``raw`` holds the same rows as the engine's own frames, where an intake was given: the
    batch then says how many they are, and has no columns."""

    batch: pa.RecordBatch
    raw: Any = None
    #: Column → values of these rows that the source gave as NULL, since they do not fit and its policy is null.
    touched: dict[str, int] | None = None


class ReadRequest(msgspec.Struct, frozen=True):
    table: Table
    #: (source column, form) pairs; forms are of ``Column.forms``.
    columns: tuple[tuple[str, Type], ...]
    bound: Bound
    #: SQL condition on the source, in its own dialect.
    where: str | None = None
    batch_bytes: int = 1 << 20
    #: Columns of which a batch has one more, a text, behind the others: what stands in the database where that is no
    #: value of the column's form (the column itself has a NULL there), else NULL. For sources that ``tell_unread``.
    unread: tuple[str, ...] = ()
    #: Of ``Digester.intake``, for a source with a ``raw_format``: the frames themselves are wanted, and every
    #: row of a block is added to the intake before the block is given.
    intake: Any = None


class WriteRequest(msgspec.Struct, frozen=True):
    """Rows for one chunk. ``columns[i].column`` is the target column of batch column i, in whose
    canonical type (``column.type.arrow``) the batch carries it."""

    table: Table
    #: The name to load under (``table.name`` unless staged).
    name: TableName
    columns: tuple[ColumnPlan, ...]
    #: append: plain insert. upsert: by ``key`` (target column names).
    mode: str = "append"
    key: tuple[str, ...] = ()
    raw: bool = False
    #: For the target's own naming of things that belong to one chunk (files, staging tables).
    job: str = ""
    table_index: int = 0
    chunk: int = 0


@runtime_checkable
class Cuttable(Protocol):
    """A source, target or reader whose connections can be cut from another thread."""

    def cut(self) -> None:
        """Whatever waits for a server now, or tries to connect, fails at once with a transient error.
        Called while the owner's own thread is in the middle of something. Never raises."""


@runtime_checkable
class Expecting(Protocol):
    """A source that can get its snapshot's connection ready ahead."""

    def expect_snapshot(self) -> None:
        """``open_snapshot`` will be called soon. Returns at once, and raises nothing."""


@runtime_checkable
class Placed(Protocol):
    """A source or target that knows where it is, whatever name or way its URL gives."""

    def place(self) -> tuple[str, str | None]:
        """The server (engine included) and the database in it; None for all databases of the server."""


@runtime_checkable
class Orphaning(Protocol):
    """A target that takes rows whose foreign keys point nowhere."""

    def orphans(self, name: TableName) -> list[str]:
        """Of each foreign key of the table how many rows have no parent, in words; nothing where all have one."""


@runtime_checkable
class Measuring(Protocol):
    """A source whose numbers may have no bounds, and that can say how large they are."""

    def digits(self, table: Table, columns: Sequence[str]) -> list[Digits]:
        """For each of these columns; looks at every row, as the table is now. Raises SourceError."""


@runtime_checkable
class Noting(Protocol):
    """A target with something to say in the report about how it went."""

    def notes(self) -> tuple[str, ...]:
        """Sentences, each once, about what was done otherwise than usual (rows by INSERT, say)."""


@runtime_checkable
class Folding(Protocol):
    """A target whose server has to be asked whether letter case tells two tables' names apart."""

    def folds_names(self) -> bool:
        """Whether names of tables that differ in letter case alone are one table's, on this server."""


class Asker(Protocol):
    """A connection on which a user's question is asked again and again. Used by one thread (``cut`` apart)."""

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The first rows (two at the most) of one SELECT, as the database is now; numbers and truth values as
        Python's, where the driver gives them so. Nothing that writes is run. Raises the side's error, transient
        where another moment may have an answer (lost connection, timeout after ``limits.SIGNAL_TIMEOUT_S``).
        A lost connection is made again by the next call."""

    def cut(self) -> None:
        """From another thread: what is asked now fails at once. Never raises."""

    def close(self) -> None: ...


@runtime_checkable
class Asking(Protocol):
    """A source or target that can be asked how it is (--pause-while)."""

    def asker(self) -> Asker:
        """A connection of its own, which takes no part in what is copied; opened by the first question."""


class LooseKey(msgspec.Struct, frozen=True):
    """A unique key under which different values can be one: 'a' and 'A', 'a' and 'a ', what begins alike."""

    table: TableName
    name: str
    #: The table's columns that it is made of.
    columns: tuple[str, ...]
    #: How it compares, in plain words: ``email by NOCASE``.
    how: str
    #: Those of ``columns`` that it compares by their values alone.
    exact: tuple[str, ...] = ()
    #: The adapter's own: the SQL of each part, and the condition of the rows that the key holds for. Equal in two
    #: databases of one engine: compared alike.
    parts: tuple[str, ...] = ()
    where: str | None = None
    #: The adapter's own: the SQL that says that two parts are equal, where it is not ``=``.
    equal: tuple[str, ...] = ()
    #: NULLs are equal, too.
    nulls: bool = False
    #: Why the server cannot be asked about it.
    unasked: str | None = None


class Collisions(msgspec.Struct, frozen=True):
    """Keys that are one key: how many, and two spellings of the first ones, as literals.
    The same of keys that a row of the table has already (sent, there)."""

    count: int = 0
    shown: tuple[tuple[str, str], ...] = ()
    held: int = 0
    held_shown: tuple[tuple[str, str], ...] = ()


class KeyTrial(Protocol):
    """Keys that are held against each other by the server that will have to take them. They stand in a temporary
    table of a session of its own: nothing of it stays. Used by one thread at a time (``Target.cut`` apart)."""

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Keys: a column for each of the key's, in its type. Raises TargetError, DataError."""

    def collisions(self, most: int, *, spellings: bool, held: str | None) -> Collisions:
        """What collides; at most ``most`` pairs are shown. spellings: a key that comes again to the letter counts
        for nothing. held: rows of the table count too: ``any`` that has the key, ``other`` that spell it otherwise.
        Raises TargetError."""

    def close(self) -> None: ...


@runtime_checkable
class Loose(Protocol):
    """A source or target whose unique keys may take different values for one."""

    def loose_keys(self, tables: Sequence[Table]) -> list[LooseKey]:
        """Those unique keys of existing tables, nullable ones included."""


@runtime_checkable
class Comparing(Loose, Protocol):
    """A target that can be asked which keys those are."""

    def key_trial(self, table: Table, key: LooseKey, columns: Sequence[ColumnPlan]) -> KeyTrial:
        """columns: those of the key, in its order. Raises TargetError, also where it may make no temporary table."""


class Reader(Protocol):
    """One connection of a source, in the source's snapshot. Used by one thread at a time."""

    def read(self, request: ReadRequest) -> Iterator[Block]:
        """Streams the rows of one chunk, each row once, in memory that does not depend on the table.

        Closing the iterator early leaves the reader usable or closed, never half-way. An empty
        chunk yields nothing. Raises SourceError, DataError.
        """

    def fingerprint(self, name: TableName) -> str:
        """The table's fingerprint now; '' where the table is gone."""

    def close(self) -> None: ...


class Source(Protocol):
    """A source database. Opening it connects, so that a wrong password shows at once."""

    def list_tables(self) -> list[TableName]:
        """All base tables of user schemas, in name order; a partitioned table once, by its root.
        rowferry's own tables (the ledger's schema, ``model.OWN_NAME``) never."""

    def list_views(self) -> list[TableName]:
        """Views and foreign tables, which are copied only by name."""

    def describe(self, name: TableName, *, census: bool = True) -> Table | None:
        """The table; None where there is none (or it may not be read: SourceError).
        With ``census`` the values are looked at where declared types do not bind them."""

    def state_token(self) -> str | None:
        """Names the state of the whole database, equal only if nothing changed; None where unknowable."""

    def open_snapshot(self, readers: int, adopt: str | None = None) -> str:
        """Fixes the state that all readers will see; returns ``one`` | ``per table`` | ``none``.
        Called once, after describe, before chunks and readers. ``adopt``: another process's
        ``snapshot_id`` to share instead of a new one (SourceError where it is gone; ignored by
        sources whose snapshots have no names)."""

    def snapshot_id(self) -> str | None:
        """The snapshot's name for the ledger: chunks of equal id saw one state."""

    def split(self, table: Table, where: str | None, chunk_bytes: int, chunk_rows_min: int) -> list[Bound]:
        """Cuts the table into chunks that together hold each row once, also rows that arrive
        later, NULL keys and the ends; at least one chunk. Never a text key compared outside the server."""

    def reader(self) -> Reader: ...

    def snapshot_note(self) -> str | None:
        """A sentence for the report where the guarantee needs one."""

    def close(self) -> None: ...


#: The kind of the steps that hold which rows win of those with the same key (a megabyte or two each). They are done
#: when they are made.
WINNERS = "winners"


class Ledger(Protocol):
    """The job's memory, kept in the target. All methods are on the target's control connection
    and commit before they return."""

    def open(self, create: bool) -> bool:
        """True if a ledger is there (made, if ``create``)."""

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first (``plan`` and ``report`` included)."""

    def lock(self, job: str) -> bool:
        """Takes the job's lock until ``unlock`` or the death of this process; False if another holds it."""

    def unlock(self, job: str) -> None: ...

    def create_job(self, job: JobRow, steps: Iterable[StepRow], chunks: Sequence[ChunkRow]) -> None:
        """All of it in one transaction. ``steps`` are taken one after the other: together they may be larger than
        memory."""

    def chunks(self, job: str) -> list[ChunkRow]: ...

    def steps(self, job: str) -> list[StepRow]:
        """All but those of the kind WINNERS, of which there may be more than memory holds."""

    def winners(self, job: str, table: int) -> Iterator[dict[str, Any]]:
        """What the steps of the kind WINNERS hold for a table, one after the other, in their order."""

    def run_step(self, job: str, step: StepRow, action: Callable[[], dict[str, Any] | None]) -> None:
        """Runs ``action`` and marks the step done with what it returned merged into its detail.
        In one transaction where the engine's DDL is transactional; elsewhere ``action`` is
        idempotent and the step is marked after it. A step that is done already is not run."""

    def add_chunks(self, job: str, chunks: Sequence[ChunkRow]) -> None: ...

    def redo_table(self, job: str, table: int, action: Callable[[], None]) -> None:
        """Marks all chunks of the table todo again (results cleared) and runs ``action`` (which
        empties what was loaded), in one transaction where the engine can; else action first."""

    def set_token(self, job: str, token: str | None) -> None: ...

    def finish_job(self, job: str, report: dict[str, Any]) -> None: ...


class Writer(Protocol):
    """One connection of a target. One chunk at a time:
    claim → write → finish → commit, or rollback at any point."""

    def claim(self, job: str) -> ChunkRow | None:
        """Begins a transaction and takes one ``todo`` chunk of the lowest wave that still has chunks
        that are not done (SELECT … FOR UPDATE SKIP LOCKED on a server, a queue in memory elsewhere).
        None: nothing to take now. Where chunks of that wave are held by others, ``pending`` tells."""

    def pending(self, job: str) -> int:
        """Chunks not done yet, including those that others hold (read outside any transaction)."""

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        """Loads all blocks; returns the rows the server says it accepted. Raises TargetError, DataError.
        May be called again in the same transaction, for rows of another table or more of the same."""

    def mark(self) -> None:
        """Sets the point to which ``undo`` goes back. Only where rows may be refused one by one (quarantine)."""

    def undo(self) -> None:
        """Undoes what was written since the last ``mark``, or since the claim where the engine has no savepoints
        (``Capabilities.savepoints``), also after a failed ``write``; the chunk stays claimed. Raises TargetError."""

    def begin(self) -> None:
        """Begins a transaction without a chunk, for ``write``, ``remove`` and ``commit``."""

    def remove(self, name: TableName, column: str, values: Sequence[str]) -> int:
        """Deletes the rows of one of rowferry's own tables whose ``column`` (a text) is among ``values``, in the
        open transaction; returns how many."""

    def finish(self, job: str, chunk: ChunkRow) -> None:
        """Writes the chunk's row (state done, rows, digests) in the same transaction as its rows."""

    def commit(self) -> None:
        """Raises OutcomeUnknownError where the answer was lost."""

    def rollback(self) -> None:
        """Undoes the chunk and gives it back; closes the connection where that fails. Never raises."""

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        """Reads the ledger, on a fresh connection if need be (after OutcomeUnknownError)."""

    def close(self) -> None: ...


class Target(Protocol):
    """A target database. Opening it connects (and, unless read_only, creates a missing file or folder)."""

    ledger: Ledger

    def describe(self, name: TableName) -> Table | None:
        """As Source.describe, for an existing target table; columns' ``type`` is what ``write`` takes."""

    def is_empty(self, name: TableName) -> bool: ...

    def plan_column(self, column: Column, form: Type) -> Column | Refusal:
        """The column that this engine would create for a source column read as ``form``: its
        ``native`` DDL type and canonical ``type`` (what ``write`` will take)."""

    def checks(self, column: Column) -> tuple[str, ...]:
        """Names of convert.CHECKS that every value for this target column must pass, beyond what
        converting to ``column.type`` checks and what the writer itself refuses with a DataError."""

    def missing_privileges(self, tables: Sequence[Table], creating: Sequence[TableName]) -> list[str]:
        """What this user may not do and would have to, in plain words; empty if all is right."""

    def obstacles(self, table: Table, mode: str, together: Collection[TableName]) -> list[str]:
        """Why the existing table of this name cannot be emptied (mode ``truncate``) or replaced by ``table``
        (mode ``replace``), in plain words; nothing if it can. together: the tables that the job empties
        or replaces too, children (by foreign keys) before their parents."""

    def attachments(self, table: Table, together: Mapping[TableName, Table]) -> list[Attachment]:
        """What the existing table of this name has beside its columns and its key, for ``table`` that is to take its
        place (mode ``replace``). One with a ``problem`` could not be made there. together: the tables that the job
        replaces too, as they will be."""

    def create_table(self, table: Table, name: TableName, source_engine: str) -> None:
        """Columns, NOT NULL, plain defaults, user types (if the source is of the same engine, or the
        types came from it), and the key only where it cannot be added later. Idempotent in a job."""

    def add_keys(self, table: Table, name: TableName) -> None:
        """The primary key, where create_table left it out. Idempotent."""

    def truncate(self, name: TableName) -> None: ...

    def drop(self, name: TableName) -> None:
        """Drops a table that rowferry made (staging, the old one of a swap), if it is there."""

    def attach(self, table: Table, loaded: TableName, places: Mapping[TableName, TableName], trial: bool) -> None:
        """Makes those of ``table.attachments`` that can be made before the swap on ``loaded``. Idempotent.
        trial: on the table that is still empty, only to see whether they can be made; nothing of it stays.
        places: the names under which the tables that the job replaces are loaded."""

    def swap(self, loaded: TableName, name: TableName, attachments: Sequence[Attachment] = ()) -> None:
        """Puts ``loaded`` in the place of ``name`` (mode replace), as near to atomic as the engine can, with all that
        the old table has. Raises TargetError where that is not what ``attachments`` says and would be lost."""

    def merge(self, staged: TableName, table: Table, columns: Sequence[str]) -> int:
        """Adds all rows of ``staged`` to ``table`` and drops ``staged``; returns rows added."""

    def set_sequences(self, table: Table) -> None:
        """Puts sequences and identities of the table above its largest value."""

    def disable_triggers(self, table: Table, disable: bool) -> None: ...

    def writer(self) -> Writer: ...

    def repair(
        self,
        table: Table,
        columns: tuple[ColumnPlan, ...],
        key: Sequence[str],
        delete: pa.RecordBatch | None,
        insert: Sequence[pa.RecordBatch],
    ) -> int:
        """In one transaction: deletes the rows of ``delete``'s keys, inserts ``insert``; returns rows inserted."""

    def as_source(self) -> Source:
        """The same database to read from (for verification), in the same process."""

    def close(self) -> None: ...
