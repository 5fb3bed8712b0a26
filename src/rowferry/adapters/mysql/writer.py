"""The protocol's Writer: one connection, one chunk at a time; rows and ledger row in one transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from rowferry.adapters import sql_ledger
from rowferry.adapters.mysql import catalog, layout
from rowferry.adapters.mysql.connect import Connector
from rowferry.adapters.mysql.control import JobLocks
from rowferry.adapters.mysql.layout import Layout
from rowferry.adapters.mysql.loading import HARMLESS, Loader
from rowferry.adapters.mysql.quoting import qualified, quote, quotes
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.adapters.servers import LedgerWriter
from rowferry.adapters.sql_ledger import LedgerNames
from rowferry.errors import DataError, TargetError
from rowferry.model import ChunkRow, ColumnPlan, Table, TableName

#: The temporary table that an upsert's rows are staged in: its columns and unique keys are the target's.
STAGE = "rowferry_staged"

#: How long a chunk that seems to be held by others is looked for again after a connection was lost.
UNDOING_S = 2.0

_UNIQUE_KEYS = """
SELECT index_name, column_name, sub_part FROM information_schema.statistics
WHERE table_schema = coalesce(?, DATABASE()) AND table_name = ? AND non_unique = 0
ORDER BY index_name, seq_in_index
"""


@contextlib.contextmanager
def unchecked(session: MysqlSession, table: Table) -> Iterator[None]:
    """Foreign keys are not checked where one of the table's points to itself: InnoDB checks row by row, and rows come
    before their parents. Whether all have one is looked at in the end (``catalog.orphans``)."""
    if all(key.parent != table.name for key in table.foreign_keys):
        yield
        return
    session.query("SET SESSION foreign_key_checks = 0")
    try:
        yield
    finally:
        if not session.closed:
            session.query("SET SESSION foreign_key_checks = 1")


def put(
    session: MysqlSession,
    name: TableName,
    columns: Sequence[ColumnPlan],
    blocks: Iterable[Block],
    *,
    mode: str = "append",
    key: Sequence[str] = (),
    shown_key: Sequence[str] = (),
    triggers: Collection[str] = (),
    local: bool = True,
    on_inserts: Callable[[], None] = lambda: None,
) -> int:
    """Loads all blocks in the session's open transaction; returns the rows that the target took.

    mode: append | upsert (by ``key``, through a temporary table). triggers: those that may fire.
    on_inserts: called where the server does not take LOAD DATA LOCAL. Raises TargetError, DataError; what
    ``blocks`` raises passes through.
    """
    way = layout.layout_of(session, name, columns)
    into = way
    if mode == "upsert":
        into = way.into(TableName(None, STAGE))
        _make_stage(session, name)
    loader = Loader(session, into, local=local)
    loader.key = tuple(key or shown_key)
    if not loader.local:
        on_inserts()
    was_local = loader.local
    try:
        rows = loader.load(blocks)
    except DataError as error:
        if mode == "upsert" and (error.code or "").startswith("1062/"):
            error.message = f"a key was sent more than once: an upsert takes each once ({error.message})"
        raise
    finally:
        if was_local and not loader.local:
            on_inserts()
    if mode == "upsert":
        _merge_stage(session, way, key, rows)
    # Its locks (metadata) are held until the end of the transaction: nobody can change the table any more.
    if layout.layout_of(session, name, columns) != way:
        raise TargetError(
            "the table was changed while the job ran", table=str(name), hint="start a new job for the new shape"
        )
    if new := [t for t in catalog.triggers(session, name) if t not in triggers]:
        raise TargetError(
            f"trigger {new[0]} was made while the job ran: it could have changed what arrived",
            table=str(name),
            hint="drop it and run the same command again, or start a new job with --target-triggers fire",
        )
    return rows


def _make_stage(session: MysqlSession, name: TableName) -> None:
    # Neither statement ends a transaction, for the table is temporary.
    session.query(f"DROP TEMPORARY TABLE IF EXISTS {quote(STAGE)}")
    session.query(f"CREATE TEMPORARY TABLE {quote(STAGE)} LIKE {qualified(name)}")


def _merge_stage(session: MysqlSession, way: Layout, key: Sequence[str], sent: int) -> None:
    """Moves the staged rows on, those whose key is there taking the place of the old ones."""
    staged = int(session.execute(f"SELECT count(*) FROM {quote(STAGE)}")[0][0])
    if staged != sent:
        raise TargetError(f"{sent:,} rows were sent, and {staged:,} are staged")
    table, stage = qualified(way.name), quote(STAGE)
    targets = [c.target for c in way.columns]
    values = ", ".join(f"s.{quote(t)}" for t in targets)
    others = [t for t in targets if t not in key]
    changes = ", ".join(f"t.{quote(t)} = s.{quote(t)}" for t in others)
    same = " AND ".join(f"t.{quote(k)} = s.{quote(k)}" for k in key)
    _refuse_other_rows(session, way, key, same)
    if _has_other_keys(session, way.name, key):
        # ON DUPLICATE KEY would also take a row that another unique key finds, and change that one without a word:
        # here such a row is a duplicate, which is an error.
        if changes:
            _strictly(session, f"UPDATE {table} t JOIN {stage} s ON {same} SET {changes}")
        _strictly(
            session,
            f"INSERT INTO {table} ({quotes(targets)}) SELECT {values} FROM {stage} s LEFT JOIN {table} t ON {same} "
            f"WHERE t.{quote(key[0])} IS NULL",
        )
    else:
        changes = ", ".join(f"{quote(t)} = s.{quote(t)}" for t in others or key)
        _strictly(
            session,
            f"INSERT INTO {table} ({quotes(targets)}) SELECT {values} FROM {stage} s ON DUPLICATE KEY UPDATE {changes}",
        )
    session.query(f"DROP TEMPORARY TABLE {stage}")


def _refuse_other_rows(session: MysqlSession, way: Layout, key: Sequence[str], same: str) -> None:
    """Raises DataError where a staged key finds a row of another key, which the collation takes for the same."""
    exact = layout.same_bytes(way, key, "t", "s")
    if exact is None:
        return
    keys = ", ".join(f"{alias}.{quote(k)}" for alias in ("s", "t") for k in key)
    found = session.execute(
        f"SELECT {keys} FROM {quote(STAGE)} s JOIN {qualified(way.name)} t ON {same} WHERE NOT ({exact}) LIMIT 1"
    )
    for row in found:
        sent, there = (", ".join(repr(v) for v in part) for part in (row[: len(key)], row[len(key) :]))
        raise DataError(
            f"the key {sent} would take the place of the row {there}, which the column's collation takes for the same",
            column=key[0] if len(key) == 1 else None,
            hint="give the target's key column a collation of bytes (utf8mb4_nopad_bin), or change the row",
        )


def _strictly(session: MysqlSession, sql: str) -> None:
    """A statement that may not leave a warning."""
    session.run(sql)
    for _, code, text in session.execute("SHOW WARNINGS LIMIT 64"):
        if int(code) not in HARMLESS:
            raise DataError(f"the server would change a value: {text}", code=f"{code}/01000")


def _has_other_keys(session: MysqlSession, name: TableName, key: Sequence[str]) -> bool:
    """Whether the table has a unique key that is not exactly ``key``. Raises TargetError where none is."""
    found: dict[str, list[str | None]] = {}
    for index, column, part in session.execute(_UNIQUE_KEYS, (name.schema, name.name)):
        # A prefix or an expression is another key than the column.
        found.setdefault(str(index), []).append(None if column is None or part is not None else str(column))
    matching = [index for index, columns in found.items() if None not in columns and set(columns) == set(key)]
    if not matching:
        raise TargetError(f"the table has no unique key ({', '.join(key)}) to find its rows by", table=str(name))
    return len(found) > len(matching)


class MysqlWriter(LedgerWriter[MysqlSession]):
    """One connection of a MySQL target."""

    def __init__(
        self,
        connector: Connector,
        names: LedgerNames,
        locks: JobLocks,
        on_inserts: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(connector, names)
        self._locks = locks
        self._on_inserts = on_inserts
        self._local = True
        #: Until then the server may still undo what a connection of ours that was cut off had loaded, and hold its
        #: chunk (monotonic seconds).
        self._undoing_until = 0.0

    def _reconnected(self) -> None:
        self._undoing_until = time.monotonic() + UNDOING_S

    def claim(self, job: str) -> ChunkRow | None:
        self._marked = False
        while True:
            self._locks.keep()
            session = self._alive()
            session.begin()
            chunk = sql_ledger.claim(session, self._names, job)
            if chunk is not None or time.monotonic() >= self._undoing_until:
                return chunk
            session.rollback()
            if not self.pending(job):
                self._undoing_until = 0.0
            time.sleep(UNDOING_S / 20)

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        try:
            with unchecked(self._session, request.table):
                return put(
                    self._session,
                    request.name,
                    request.columns,
                    blocks,
                    mode=request.mode,
                    key=request.key,
                    shown_key=request.table.identifying_key,
                    triggers=request.table.triggers if request.name == request.table.name else (),
                    local=self._local,
                    on_inserts=self._no_local,
                )
        except (TargetError, DataError) as error:
            error.at(table=str(request.name))
            raise

    def _place(self, name: TableName, column: str) -> tuple[str, str]:
        return qualified(name), quote(column)

    def _no_local(self) -> None:
        self._local = False
        self._on_inserts()
