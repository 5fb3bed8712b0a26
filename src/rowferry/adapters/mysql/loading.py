"""Rows into a table, strictly: LOAD DATA LOCAL (or INSERTs), the server's count of them, and the row that does not fit.

A chunk goes in as parts of about ``PART_BYTES``, each a statement behind a savepoint of its own, in one
transaction. A part's batches are held until the server has counted its rows: of a part that it did not
take as it was, the first row at fault is found by loading halves again, and named.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from pymysql import err

from rowferry.adapters.mysql import failure, nested, wire
from rowferry.adapters.mysql.declared import TEXT_FORMED
from rowferry.adapters.mysql.layout import Layout
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.protocol import Block
from rowferry.convert import value_text
from rowferry.errors import DataError, RowferryError, TargetError
from rowferry.limits import MIB
from rowferry.model import ColumnPlan

if TYPE_CHECKING:
    from rowferry._native.mysql_load import EncodeError, Encoder

#: Bytes of Arrow data in one statement, and thus held until the server has counted them.
PART_BYTES = 8 * MIB
#: Bytes of one packet of LOAD DATA, or of one INSERT: from 64 KiB to 4 MiB there was no difference (measured).
BLOCK_BYTES = MIB
#: What a statement needs beside its tuples.
STATEMENT_BYTES = 64 * 1024
#: LOCAL is not allowed: MariaDB's, MySQL's, and MySQL's for a session that has not asked for it.
_LOCAL_REFUSED = (1148, 4166, 3948, 2068)
#: Warnings that tell nothing of a row: a binary log of statements that may not be repeatable (1592).
HARMLESS = (1592,)
_ROW = re.compile(r"at row (\d+)\b")
#: … for column 'a' at row 3; for column `db`.`t`.`a`; CONSTRAINT `t.a` failed (a check of one column, as of JSON).
_COLUMN = re.compile(
    r"[Cc]olumn '((?:[^']|'')+)'|for column (?:`(?:[^`]|``)*`\.)*`((?:[^`]|``)+)`"
    r"|CONSTRAINT `(?:[^`.]|``)*\.((?:[^`]|``)+)` failed"
)


class Part(msgspec.Struct):
    """The batches of one statement. ``first`` is the number of its first row in the chunk."""

    first: int
    batches: list[pa.RecordBatch] = msgspec.field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

    def slice(self, start: int, end: int) -> list[pa.RecordBatch]:
        """Rows start to end."""
        out, at = [], 0
        for batch in self.batches:
            low, high = max(start - at, 0), min(end - at, batch.num_rows)
            if low < high:
                out.append(batch.slice(low, high - low))
            at += batch.num_rows
        return out

    def row(self, number: int) -> pa.RecordBatch:
        return self.slice(number, number + 1)[0]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a statement's rows: nothing in the way, or what the server said against them."""

    problem: str | None = None
    column: str | None = None
    #: Its number within the statement, from 0, where the server says it.
    row: int | None = None
    code: str | None = None
    #: Rows that are not in the table without a word about them.
    silent: bool = False


class Loader:
    """Loads into one table in the session's open transaction."""

    def __init__(self, session: MysqlSession, layout: Layout, *, local: bool = True) -> None:
        self._session = session
        self._layout = layout
        #: Columns that name a row in messages.
        self.key: tuple[str, ...] = ()
        self._nested = [i for i, c in enumerate(layout.columns) if _is_rendered(c, layout.codecs[i][0])]
        self._addresses = [i for i, f in enumerate(layout.fields) if f.declared.name in TEXT_FORMED]
        #: LOAD DATA LOCAL is used; else INSERTs.
        self.local = local and session.variables.get("local_infile", "ON").upper() in ("ON", "1")

    def load(self, blocks: Iterable[Block]) -> int:
        """Sends all blocks; returns how many rows the server took: all that were sent.

        Raises TargetError, DataError; what ``blocks`` raises passes through, and the connection may be closed by then.
        """
        batches = (block.batch for block in blocks if block.batch.num_rows)
        total = 0
        pending = next(batches, None)
        while pending is not None:
            part = Part(first=total)
            pending = self._load_part(part, pending, batches)
            total += part.rows
        return total

    def _load_part(self, part: Part, first: pa.RecordBatch, more: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        """One statement; gives the batch that is left for the next one."""
        left: list[pa.RecordBatch] = []

        def stream() -> Iterator[pa.RecordBatch]:
            batch: pa.RecordBatch | None = first
            while batch is not None:
                rendered = self._rendered(batch)
                part.add(rendered)
                yield rendered
                batch = next(more, None)
                if batch is not None and part.bytes >= PART_BYTES:
                    left.append(batch)
                    return

        self._session.query("SAVEPOINT rowferry_part")
        try:
            outcome = self._send(stream(), lambda: part.rows, part.first)
        except LocalRefusedError:
            # Nothing was sent: the statement was refused before its rows were asked for.
            self.local = False
            outcome = self._send(stream(), lambda: part.rows, part.first)
        if outcome.problem is not None:
            raise self._find(part, outcome)
        return left[0] if left else None

    def _rendered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with JSON texts for what is nested, and texts for intervals. Raises DataError for an address
        that the server would spell otherwise: it is not what would be read back."""
        for i in self._addresses:
            for number, text in enumerate(batch.column(i).to_pylist()):
                if text is not None and _spelled(text) != text:
                    raise self._data_error(
                        f"the server would read the address as {_spelled(text)!r}",
                        self._layout.columns[i],
                        batch.slice(number, 1),
                    )
        for i in self._nested:
            texts = nested.to_text(batch.column(i), self._layout.columns[i].column.type)
            batch = batch.set_column(i, pa.field(batch.schema.field(i).name, texts.type), texts)
        return batch

    # ── one statement ────────────────────────────────────────────────────────────────────────

    def _send(self, batches: Iterable[pa.RecordBatch], rows: Callable[[], int], first: int) -> Outcome:
        """Runs one LOAD DATA, or as many INSERTs as are needed. Raises TargetError where it is no row's fault.

        rows: says afterwards how many there were. first: the number of the first of them in the chunk.
        """
        try:
            return self._send_local(batches, rows, first) if self.local else self._send_inserts(batches, first)
        except err.Error as error:
            if self.local and failure.code_of(error) in _LOCAL_REFUSED:
                raise LocalRefusedError from None
            found = self._session.error(error)
            if not isinstance(found, DataError) or self._session.closed:
                raise found from None
            return Outcome(found.message, _column_of(found.message), _row_of(found.message), found.code)
        except OSError as error:
            raise self._session.error(error) from None

    def _send_local(self, batches: Iterable[pa.RecordBatch], rows: Callable[[], int], first: int) -> Outcome:
        session = self._session
        encoder = self._encoder(sql=False)
        done = wire.load_local(session.connection, self._layout.load, self._blocks(encoder, batches, first))
        if not done.in_transaction:
            raise TargetError("the server ended the transaction while rows were loaded")
        sent = rows()
        if (done.records, done.deleted, done.skipped, done.warnings) == (sent, 0, 0, 0):
            return Outcome()
        if (done.records, done.deleted, done.skipped) == (sent, 0, 0) and _are_harmless(session, done.warnings):
            return Outcome()
        said = _warnings(session)
        counts = (
            f"of {sent:,} rows sent the server counted {done.records:,}, deleted {done.deleted:,}, skipped "
            f"{done.skipped:,} and gave {done.warnings:,} warnings"
        )
        return said or Outcome(counts, silent=True)

    def _send_inserts(self, batches: Iterable[pa.RecordBatch], first: int) -> Outcome:
        session = self._session
        encoder = self._encoder(sql=True)
        head = f"INSERT {self._layout.insert}".encode()
        for block in self._blocks(encoder, batches, first):
            rows = encoder.block_rows
            with memoryview(block) as view:
                statement = head + view
            accepted = session.connection.query(statement)
            if not wire.in_transaction(session.connection):
                raise TargetError("the server ended the transaction while rows were inserted")
            warned = wire.warning_count(session.connection)
            if accepted != rows or (warned and not _are_harmless(session, warned)):
                counts = f"of {rows:,} rows sent the server counted {accepted:,}"
                return _warnings(session) or Outcome(counts, silent=True)
        return Outcome()

    def _encoder(self, *, sql: bool) -> Encoder:
        from rowferry._native.mysql_load import Encoder

        packet = int(self._session.variables.get("max_allowed_packet", 16 * MIB))
        # A packet's own four bytes, and what an INSERT says before its tuples, have to fit as well.
        most = max(packet - STATEMENT_BYTES, packet // 2, 1024)
        return Encoder(
            list(self._layout.codecs),
            block_bytes=min(BLOCK_BYTES, most),
            sql=sql,
            row_bytes_max=min(most, 1 << 30) if sql else 0,
        )

    def _blocks(self, encoder: Encoder, batches: Iterable[pa.RecordBatch], first: int) -> Iterator[Any]:
        from rowferry._native.mysql_load import EncodeError

        for batch in batches:
            encoder.begin(batch)
            try:
                while (block := encoder.fill()) is not None:
                    yield block
            except EncodeError as error:
                raise self._value_error(error, batch, first) from None
            first += batch.num_rows
        rest = encoder.rest()
        if len(rest):
            yield rest

    def _value_error(self, error: EncodeError, batch: pa.RecordBatch, first: int) -> DataError:
        column = self._layout.columns[error.column]
        return self._data_error(
            f"does not fit {self._layout.fields[error.column].native}: {error.reason}, "
            f"row {first + error.row + 1:,} of this chunk",
            column,
            batch.slice(error.row, 1),
        )

    # ── the row that does not fit ────────────────────────────────────────────────────────────

    def _find(self, part: Part, outcome: Outcome) -> RowferryError:
        """The error that names the part's first row at fault."""
        session = self._session
        session.query("ROLLBACK TO SAVEPOINT rowferry_part")
        if self.local and outcome.row is not None and outcome.row < part.rows:
            return self._row_error(part, outcome.row, outcome)
        low, high = 0, part.rows
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(part, low, middle).problem is None:
                low = middle  # they stay: what follows may collide with them
            else:
                high = middle
        alone = self._try(part, low, high)
        if alone.problem is None:
            return TargetError(
                f"{outcome.problem}; taken one by one, each row was accepted",
                code=outcome.code,
                hint="look for triggers or rules on the target table",
            )
        return self._row_error(part, low, alone)

    def _try(self, part: Part, start: int, end: int) -> Outcome:
        """Loads rows start to end; they stay where all is right."""
        self._session.query("SAVEPOINT rowferry_try")
        outcome = self._send(part.slice(start, end), lambda: end - start, part.first + start)
        if outcome.problem is not None:
            self._session.query("ROLLBACK TO SAVEPOINT rowferry_try")
        return outcome

    def _row_error(self, part: Part, number: int, outcome: Outcome) -> DataError:
        column = next((c for c in self._layout.columns if c.target == outcome.column), None)
        error = self._data_error(
            f"{outcome.problem}, row {part.first + number + 1:,} of this chunk", column, part.row(number)
        )
        error.code = outcome.code
        error.row = part.first + number
        return error

    def _data_error(self, message: str, column: ColumnPlan | None, row: pa.RecordBatch) -> DataError:
        """With the value and, where the row has them, its key's values."""
        columns = self._layout.columns
        keys = [i for i, c in enumerate(columns) if c is not column and c.column.name in self.key]
        shown = ", ".join(f"{columns[i].target}={_shown(row, i, columns[i])}" for i in keys)
        value = None
        if column is not None:
            value = _shown(row, next(i for i, c in enumerate(columns) if c is column), column)
        return DataError(
            f"{message} (key {shown})" if shown else message,
            column=column.source if column is not None else None,
            value=value,
            hint="change the value in the source, leave the row out with --where, or give the column another type",
        )


class LocalRefusedError(Exception):
    """The server does not take LOAD DATA LOCAL; its rows can go in by INSERT."""


def _spelled(address: str) -> str | None:
    """An address of inet4 or inet6 as the server writes it; None where it is none."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return socket.inet_ntop(family, socket.inet_pton(family, address))
    return None


def _is_rendered(column: ColumnPlan, codec: str) -> bool:
    return column.column.type.kind in ("list", "struct", "map", "interval") and codec != "set"


def _shown(row: pa.RecordBatch, index: int, column: ColumnPlan) -> str:
    array = row.column(index)
    kind = column.column.type
    if array.type != kind.arrow:  # rendered as text already
        text = array[0].as_py()
        return "NULL" if text is None else repr(str(text)[:200])
    found = value_text(array, 0, kind)
    return "NULL" if found is None else repr(found)


def _column_of(message: str) -> str | None:
    found = _COLUMN.search(message)
    return None if found is None else next(name for name in found.groups() if name).replace("``", "`")


def _row_of(message: str) -> int | None:
    found = _ROW.search(message)
    return int(found[1]) - 1 if found and int(found[1]) > 0 else None


def _are_harmless(session: MysqlSession, count: int) -> bool:
    """Whether all warnings of the last statement are of a kind that no value is concerned by."""
    codes = [int(row[1]) for row in session.execute("SHOW WARNINGS LIMIT 64")]
    return len(codes) == count and all(code in HARMLESS for code in codes)


def _warnings(session: MysqlSession) -> Outcome | None:
    """What the last statement was warned of: the first that names a row, else the first warning, else a note."""
    rows = session.execute("SHOW WARNINGS LIMIT 64")
    if not rows:
        return None
    texts: Sequence[tuple[str, int, str]] = [(str(level), int(code), str(text)) for level, code, text in rows]
    ranked = sorted(texts, key=lambda w: (_row_of(w[2]) is None, w[0] == "Note"))
    _, code, text = ranked[0]
    return Outcome(text, _column_of(text), _row_of(text), f"{code}/01000")
