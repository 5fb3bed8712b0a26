"""The ledger in an SQL database: the same three tables everywhere, on the adapter's own session.

``jobs`` (one row a job: its plan and, at the end, its report), ``steps`` (what is done once) and
``chunks`` (the unit of copying: bound, state, rows, digests). A chunk's row is updated in the very
transaction that loads its rows; that is what makes the copy exactly-once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from rowferry.adapters.protocol import WINNERS
from rowferry.adapters.transactions import transaction
from rowferry.errors import LedgerError, OutcomeUnknownError, RowferryError, SnapshotLostError
from rowferry.model import Bound, ChunkRow, JobRow, StepRow
from rowferry.types import dump


class SqlSession(Protocol):
    """One connection, as the ledger needs it. Placeholders are ``?``; failures are TargetErrors."""

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement and returns its rows."""

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Runs one INSERT, UPDATE or DELETE and returns how many rows it touched."""

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class JobLock(Protocol):
    """A lock that dies with its process."""

    def acquire(self, job: str) -> bool: ...
    def release(self, job: str) -> None: ...


class LedgerNames(msgspec.Struct, frozen=True):
    """Where the ledger stands: three table names, quoted and qualified as the engine needs."""

    jobs: str
    steps: str
    chunks: str
    #: Statements that make room for them (CREATE SCHEMA …), run before the tables are made.
    before: tuple[str, ...] = ()
    #: The engine's name of a text column that can hold a plan, and of one that can be a key.
    text: str = "text"
    key_text: str = "text"
    #: Index (job, state, wave …) that a claim reads: its CREATE statement, or nothing.
    index: str | None = None
    primary_keys: bool = True
    #: What keeps a row from being changed by others until the transaction's end, where there are others.
    share: str = ""
    #: What takes a row for this transaction alone, passing over rows that others hold where the engine can.
    claim: str = " FOR UPDATE SKIP LOCKED"
    #: The name of the jobs' column ``key``, as the engine needs it quoted.
    key: str = "key"
    #: What the engine wants to be told of each table (ENGINE=…), and more definitions within the chunks' table.
    table_options: str = ""
    chunks_more: str = ""

    def ddl(self) -> list[str]:
        """Statements that create what is absent, in their order."""
        t, k = self.text, self.key_text

        def keys(columns: str) -> str:
            return f", PRIMARY KEY ({columns})" if self.primary_keys else ""

        return [
            *self.before,
            f"CREATE TABLE IF NOT EXISTS {self.jobs} (id {k} NOT NULL, name {t} NOT NULL, "
            f"{self.key} {k} NOT NULL, state {k} NOT NULL, created {k} NOT NULL, token {t}, plan {t} NOT NULL, "
            f"report {t}{keys('id')}){self.table_options}",
            f"CREATE TABLE IF NOT EXISTS {self.steps} (job {k} NOT NULL, number integer NOT NULL, kind {k} NOT NULL, "
            f"table_index integer, state {k} NOT NULL, detail {t} NOT NULL"
            f"{keys('job, number')}){self.table_options}",
            f"CREATE TABLE IF NOT EXISTS {self.chunks} (job {k} NOT NULL, table_index integer NOT NULL, "
            f"number integer NOT NULL, wave integer NOT NULL, state {k} NOT NULL, bound {t} NOT NULL, "
            f"rows_read bigint, rows_committed bigint, bytes bigint, digest_read {k}, digest_sent {k}, touched {t}, "
            f"snapshot {t}, seconds double precision, counts {t}{keys('job, table_index, number')}{self.chunks_more})"
            f"{self.table_options}",
            *([self.index] if self.index else []),
        ]


_CHUNK_COLUMNS = (
    "table_index, number, wave, state, bound, rows_read, rows_committed, bytes, digest_read, digest_sent, touched, "
    "snapshot, seconds, counts"
)
#: The same where the ledger was made before there were counts: none of its chunks has any.
_OLDER_CHUNK_COLUMNS = _CHUNK_COLUMNS.replace(", counts", ", NULL")


def encode(value: Any) -> str:
    return msgspec.json.encode(dump(value)).decode()


def chunk_from_row(row: Sequence[Any]) -> ChunkRow:
    """A ChunkRow from a row of ``_CHUNK_COLUMNS``. Raises LedgerError where it is not one."""
    try:
        return ChunkRow(
            table=int(row[0]),
            number=int(row[1]),
            wave=int(row[2]),
            state=str(row[3]),
            bound=msgspec.json.decode(row[4], type=Bound),
            rows_read=int(row[5] or 0),
            rows_committed=int(row[6] or 0),
            bytes=int(row[7] or 0),
            digest_read=row[8],
            digest_sent=row[9],
            touched=msgspec.json.decode(row[10]) if row[10] else {},
            snapshot=row[11],
            seconds=float(row[12] or 0),
            counts=msgspec.json.decode(row[13], type=dict[str, Any]) if row[13] else {},
        )
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise LedgerError(f"the ledger holds a chunk that cannot be read: {error}") from None


def job_from_row(row: Sequence[Any]) -> JobRow:
    """A JobRow from (id, name, key, state, created, plan, token, report). Raises LedgerError where it is not one.

    A plan or report that is no JSON is an empty one: it is that job's own trouble, and not that of the others.
    """
    try:
        return JobRow(
            id=row[0],
            name=row[1],
            key=row[2],
            state=row[3],
            created=row[4],
            plan=_decoded(row[5]) or {},
            token=row[6],
            report=_decoded(row[7]) if row[7] else None,
        )
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise LedgerError(f"the ledger holds a job that cannot be read, {row[1]!r}: {error}") from None


def _decoded(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    return found


def claim(session: SqlSession, names: LedgerNames, job: str) -> ChunkRow | None:
    """Locks one ``todo`` chunk of the lowest wave that is not done; inside an open transaction of
    a server. A chunk that another transaction holds is still ``todo`` to us, so its wave keeps
    later waves back."""
    rows = session.execute(
        f"SELECT {_CHUNK_COLUMNS} FROM {names.chunks} WHERE job = ? AND state = 'todo' AND wave = "
        f"(SELECT min(wave) FROM {names.chunks} WHERE job = ? AND state = 'todo') "
        f"ORDER BY table_index, number LIMIT 1{names.claim}",
        (job, job),
    )
    return chunk_from_row(rows[0]) if rows else None


def pending(session: SqlSession, names: LedgerNames, job: str) -> int:
    """Chunks of the job that are not done."""
    return int(session.execute(f"SELECT count(*) FROM {names.chunks} WHERE job = ? AND state = 'todo'", (job,))[0][0])


def finish(session: SqlSession, names: LedgerNames, job: str, chunk: ChunkRow) -> None:
    """Marks a chunk done with its results, in the transaction that loaded its rows.

    Raises SnapshotLostError where the job has gone on to another state of the source meanwhile: these
    rows were read under the old one.
    """
    if names.share and chunk.snapshot is not None:
        token = session.execute(f"SELECT token FROM {names.jobs} WHERE id = ?{names.share}", (job,))
        if token and token[0][0] not in (None, chunk.snapshot):
            raise SnapshotLostError("another process has taken the job up under a new snapshot", chunk=chunk.number)
    touched = session.run(
        f"UPDATE {names.chunks} SET state = 'done', rows_read = ?, rows_committed = ?, bytes = ?, digest_read = ?, "
        "digest_sent = ?, touched = ?, snapshot = ?, seconds = ?, counts = ? "
        "WHERE job = ? AND table_index = ? AND number = ? AND state = 'todo'",
        (
            chunk.rows_read,
            chunk.rows_committed,
            chunk.bytes,
            chunk.digest_read,
            chunk.digest_sent,
            encode(chunk.touched),
            chunk.snapshot,
            chunk.seconds,
            encode(chunk.counts) if chunk.counts else None,
            job,
            chunk.table,
            chunk.number,
        ),
    )
    if touched != 1:
        raise LedgerError(
            f"the ledger has {touched} rows 'todo' for this chunk, not 1: another process finished it",
            chunk=chunk.number,
            transient=True,
        )


def is_done(session: SqlSession, names: LedgerNames, job: str, chunk: ChunkRow) -> bool:
    rows = session.execute(
        f"SELECT state FROM {names.chunks} WHERE job = ? AND table_index = ? AND number = ?",
        (job, chunk.table, chunk.number),
    )
    if len(rows) != 1:
        raise LedgerError("the ledger has lost this chunk", chunk=chunk.number, hint="was its schema dropped?")
    return str(rows[0][0]) == "done"


class SqlLedger:
    """The protocol's Ledger on the target's control session.

    transactional_ddl: the engine's DDL can be rolled back, so a step and its mark are one transaction.
    transactional_steps: kinds of steps that are no DDL, and are one transaction with their mark all the same.
    on_change: called with a job's id when its chunks were added or reset (an in-memory queue forgets).
    """

    def __init__(
        self,
        session: SqlSession,
        names: LedgerNames,
        lock: JobLock,
        *,
        exists: Callable[[], bool],
        transactional_ddl: bool = True,
        transactional_steps: frozenset[str] = frozenset(),
        on_change: Callable[[str], None] = lambda job: None,
    ) -> None:
        self._session = session
        self._names = names
        self._lock = lock
        self._exists = exists
        self._transactional_ddl = transactional_ddl
        self._transactional_steps = transactional_steps
        self._on_change = on_change
        #: Whether the chunks' table has its column ``counts``; None until that was looked up.
        self._counts: bool | None = None

    def open(self, create: bool) -> bool:
        if self._exists():
            self._upgrade(create)
            return True
        if not create:
            return False
        try:
            with transaction(self._session):
                for statement in self._names.ddl():
                    self._session.execute(statement)
        except OutcomeUnknownError:
            raise
        except Exception:
            # Two processes may have started at once: CREATE … IF NOT EXISTS can still collide in the catalogue.
            if not self._exists():
                raise
        self._counts = True
        return True

    def _upgrade(self, change: bool) -> None:
        """Looks whether the ledger is of an older version, and brings it up to this one if it may be changed, so
        that a job that is unfinished there can be gone on with."""
        if self._counts is None:
            self._counts = self._has_counts()
        if change and not self._counts:
            try:
                with transaction(self._session):
                    self._session.execute(f"ALTER TABLE {self._names.chunks} ADD COLUMN counts {self._names.text}")
            except OutcomeUnknownError:
                raise
            except Exception:
                # Another process may have done it meanwhile.
                if not self._has_counts():
                    raise
            self._counts = True

    def _has_counts(self) -> bool:
        try:
            self._session.execute(f"SELECT counts FROM {self._names.chunks} LIMIT 0")
        except RowferryError as error:
            if error.transient:
                raise
            return False
        return True

    def jobs(self) -> list[JobRow]:
        rows = self._session.execute(
            f"SELECT id, name, {self._names.key}, state, created, plan, token, report FROM {self._names.jobs} "
            "ORDER BY created, id"
        )
        return [job_from_row(row) for row in rows]

    def lock(self, job: str) -> bool:
        return self._lock.acquire(job)

    def unlock(self, job: str) -> None:
        self._lock.release(job)

    def create_job(self, job: JobRow, steps: Iterable[StepRow], chunks: Sequence[ChunkRow]) -> None:
        with transaction(self._session):
            self._session.run(
                f"INSERT INTO {self._names.jobs} (id, name, {self._names.key}, state, created, plan, token, report) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.name, job.key, job.state, job.created, encode(job.plan), job.token, None),
            )
            for step in steps:
                self._session.run(
                    f"INSERT INTO {self._names.steps} (job, number, kind, table_index, state, detail) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (job.id, step.number, step.kind, step.table, step.state, encode(step.detail)),
                )
            self._insert_chunks(job.id, chunks)
        self._on_change(job.id)

    def _insert_chunks(self, job: str, chunks: Sequence[ChunkRow]) -> None:
        # Many rows a statement: a round trip each would make a plan of 10,000 chunks take seconds.
        for start in range(0, len(chunks), 100):
            part = chunks[start : start + 100]
            values: list[Any] = []
            for chunk in part:
                values += [job, chunk.table, chunk.number, chunk.wave, chunk.state, encode(chunk.bound)]
            self._session.run(
                f"INSERT INTO {self._names.chunks} (job, table_index, number, wave, state, bound) VALUES "
                + ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(part)),
                values,
            )

    def chunks(self, job: str) -> list[ChunkRow]:
        columns = _OLDER_CHUNK_COLUMNS if self._counts is False else _CHUNK_COLUMNS
        rows = self._session.execute(
            f"SELECT {columns} FROM {self._names.chunks} WHERE job = ? ORDER BY table_index, number", (job,)
        )
        return [chunk_from_row(row) for row in rows]

    def steps(self, job: str) -> list[StepRow]:
        rows = self._session.execute(
            f"SELECT number, kind, table_index, state, detail FROM {self._names.steps} "
            "WHERE job = ? AND kind <> ? ORDER BY number",
            (job, WINNERS),
        )
        try:
            return [
                StepRow(int(r[0]), r[1], None if r[2] is None else int(r[2]), r[3], msgspec.json.decode(r[4]))
                for r in rows
            ]
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise LedgerError(f"the ledger holds a step that cannot be read: {error}") from None

    def winners(self, job: str, table: int) -> Iterator[dict[str, Any]]:
        which = f"FROM {self._names.steps} WHERE job = ? AND kind = ? AND table_index = ?"
        for (number,) in self._session.execute(f"SELECT number {which} ORDER BY number", (job, WINNERS, table)):
            for (detail,) in self._session.execute(
                f"SELECT detail {which} AND number = ?", (job, WINNERS, table, int(number))
            ):
                try:
                    yield msgspec.json.decode(detail, type=dict[str, Any])
                except msgspec.MsgspecError as error:
                    raise LedgerError(f"the ledger holds a step that cannot be read: {error}") from None

    def run_step(self, job: str, step: StepRow, action: Callable[[], dict[str, Any] | None]) -> None:
        if self._transactional_ddl or step.kind in self._transactional_steps:
            with transaction(self._session):
                if self._step_is_done(job, step):
                    return
                self._mark_step(job, step, action())
        elif not self._step_is_done(job, step):
            detail = action()
            with transaction(self._session):
                self._mark_step(job, step, detail)

    def _step_is_done(self, job: str, step: StepRow) -> bool:
        rows = self._session.execute(
            f"SELECT state FROM {self._names.steps} WHERE job = ? AND number = ?", (job, step.number)
        )
        if len(rows) != 1:
            raise LedgerError(f"the ledger has lost step {step.number} ({step.kind})")
        return str(rows[0][0]) == "done"

    def _mark_step(self, job: str, step: StepRow, detail: dict[str, Any] | None) -> None:
        self._session.run(
            f"UPDATE {self._names.steps} SET state = 'done', detail = ? WHERE job = ? AND number = ?",
            (encode({**step.detail, **(detail or {})}), job, step.number),
        )

    def add_chunks(self, job: str, chunks: Sequence[ChunkRow]) -> None:
        with transaction(self._session):
            self._insert_chunks(job, chunks)
        self._on_change(job)

    def redo_table(self, job: str, table: int, action: Callable[[], None]) -> None:
        if not self._transactional_ddl:
            action()
        with transaction(self._session):
            if self._transactional_ddl:
                action()
            self._session.run(
                f"UPDATE {self._names.chunks} SET state = 'todo', rows_read = NULL, rows_committed = NULL, "
                "bytes = NULL, digest_read = NULL, digest_sent = NULL, touched = NULL, snapshot = NULL, "
                "seconds = NULL, counts = NULL WHERE job = ? AND table_index = ?",
                (job, table),
            )
        self._on_change(job)

    def set_token(self, job: str, token: str | None) -> None:
        with transaction(self._session):
            self._session.run(f"UPDATE {self._names.jobs} SET token = ? WHERE id = ?", (token, job))

    def finish_job(self, job: str, report: dict[str, Any]) -> None:
        with transaction(self._session):
            # A server that came back as its lagging standby has lost what was done last, rows and marks alike.
            left = pending(self._session, self._names, job)
            steps = f"SELECT count(*) FROM {self._names.steps} WHERE job = ? AND state <> 'done'"
            if left or self._session.execute(steps, (job,))[0][0]:
                raise LedgerError(f"{left} chunks, or steps, that were done are not done any more", transient=True)
            self._session.run(
                f"UPDATE {self._names.jobs} SET state = 'finished', report = ? WHERE id = ?", (encode(report), job)
            )
