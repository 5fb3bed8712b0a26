"""Which rows of a chunk the target refuses: trial loads that are undone, halved until single rows are left.

With savepoints, what has passed stays loaded while the next part is tried: every row is loaded at most log2 n times,
and a refused row costs 2 log2 n tries at the most; 4, where the target says which row it was. Without them (and for
an upsert, whose keys are only compared within one load) parts are first tried alone, each undone; then all that passed
is loaded at once, and if rows refuse each other, the shortest beginning that fails names the next one: log2 n loads of
up to n rows for each of those.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Block, Writer, WriteRequest
from rowferry.errors import DataError, LedgerError, RowferryError


def refuses_rows(error: BaseException) -> bool:
    """Whether the target refused rows, so that others of the same chunk may pass."""
    return isinstance(error, RowferryError) and not error.transient and (isinstance(error, DataError) or error.of_row)


class Spool:
    """Batches of one schema in a temporary file, read back by ranges of rows; in no process's own memory.

    Use as a context manager. Raises DataError where it would need more than ``limits.SPOOL_BYTES_MAX``.
    """

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(prefix="rowferry-spool-")
        self._file = os.fdopen(handle, "w+b")
        os.unlink(path)  # it goes with the process, whatever ends it
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None
        #: Row number of each batch's first row, and of the end.
        self._starts = [0]

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader = self._writer = None
        self._file.close()

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._file, batch.schema)
        self._writer.write_batch(batch)
        self._starts.append(self._starts[-1] + batch.num_rows)
        if self._file.tell() > limits.SPOOL_BYTES_MAX:
            raise DataError(
                f"its chunk is larger than the {limits.SPOOL_BYTES_MAX >> 20:,} MiB in which rows are looked for",
                hint="leave out --on-error quarantine, or mend the rows that the target refuses",
            )

    @property
    def rows(self) -> int:
        return self._starts[-1]

    def batches(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """The rows from ``start`` up to ``end``, in their order. Adding is over then."""
        if self._writer is not None and self._reader is None:
            self._writer.close()
            self._file.flush()
            self._reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        for number, (first, last) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            if first < end and last > start:
                assert self._reader is not None
                batch = self._reader.get_batch(number)
                low, high = max(start, first) - first, min(end, last) - first
                yield batch.slice(low, high - low)


class Search:
    """Loads the rows of a spool into the chunk's open transaction, those that the target refuses excepted.

    on_refused: called with each refused row's number and the error, in no set order; may raise to end the search.
    check: called before each try; raises where the job is to stop.
    """

    def __init__(
        self,
        writer: Writer,
        request: WriteRequest,
        spool: Spool,
        on_refused: Callable[[int, RowferryError], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._request = request
        self._spool = spool
        self._on_refused = on_refused
        self._check = check
        self.refused: set[int] = set()
        self.tries = 0
        #: Refused rows of a table that refers to itself: their parents may come in a later part.
        self._later: dict[int, RowferryError] | None = (
            {} if any(key.parent == request.table.name for key in request.table.foreign_keys) else None
        )

    def load(self, savepoints: bool) -> int:
        """Returns the rows that are loaded. The transaction is as the claim left it (or ``mark``)."""
        if not self._spool.rows:
            return self._write([])
        if savepoints and self._request.mode != "upsert":
            self._keep(0, self._spool.rows)
            self._try_orphans_again()
        else:
            self._later = None
            self._alone(0, self._spool.rows)
            self._together()
        return self._spool.rows - len(self.refused)

    def _keep(self, start: int, end: int) -> None:
        """What passes stays."""
        todo = [(start, end)]
        while todo:
            start, end = todo.pop()
            self._writer.mark()
            error = self._try([(start, end)])
            if error is None:
                continue
            self._writer.undo()
            todo += reversed(self._parted(start, end, error))

    def _try_orphans_again(self) -> None:
        """Rows whose parents have come after them pass now, in as many rounds as that brings any."""
        left, self._later = self._later or {}, None
        landed = True
        while left and landed:
            landed = False
            for row in sorted(left):
                self._writer.mark()
                error = self._try([(row, row + 1)])
                if error is None:
                    landed = True
                    del left[row]
                    self.refused.discard(row)
                else:
                    self._writer.undo()
                    left[row] = error
        for row, error in sorted(left.items()):
            self._refuse(row, error)

    def _alone(self, start: int, end: int) -> None:
        """Finds the rows that are refused by themselves; nothing stays."""
        todo = [(start, end)]
        while todo:
            start, end = todo.pop()
            error = self._try([(start, end)])
            self._writer.undo()
            if error is not None:
                todo += reversed(self._parted(start, end, error))

    def _parted(self, start: int, end: int, error: RowferryError) -> list[tuple[int, int]]:
        """What to try next of a range that was refused: around the row that the target named, or its halves. A single
        row is one of those that are looked for."""
        if end - start == 1:
            self._refuse(start, error)
            return []
        if error.row is not None and 0 <= error.row < end - start:
            row = start + error.row
            ranges = [(start, row), (row, row + 1), (row + 1, end)]
        else:
            half = (start + end) // 2
            ranges = [(start, half), (half, end)]
        return [(a, b) for a, b in ranges if a < b]

    def _together(self) -> None:
        """Loads all that passed alone; rows that refuse each other are found one after the other."""
        while True:
            error = self._try(self._passed(self._spool.rows))
            if error is None:
                return
            self._writer.undo()
            # Up to ``low`` all pass together, up to ``high`` they do not.
            low, high = 0, self._spool.rows
            while high - low > 1:
                middle = (low + high) // 2
                found = self._try(self._passed(middle))
                self._writer.undo()
                low, high, error = (middle, high, error) if found is None else (low, middle, found)
            self._refuse(high - 1, error)

    def _passed(self, end: int) -> list[tuple[int, int]]:
        """Ranges of the rows before ``end`` that are not refused."""
        out, start = [], 0
        for row in sorted(r for r in self.refused if r < end):
            if row > start:
                out.append((start, row))
            start = row + 1
        return [*out, (start, end)] if start < end else out

    def _refuse(self, row: int, error: RowferryError) -> None:
        self.refused.add(row)
        if self._later is not None:
            self._later[row] = error
        else:
            self._on_refused(row, error)

    def _try(self, ranges: Sequence[tuple[int, int]]) -> RowferryError | None:
        """Loads ranges of rows in one write; returns why the target refused them."""
        self._check()
        self.tries += 1
        if self.tries > limits.BISECT_TRIES_MAX:
            raise DataError(
                f"the target refuses so many rows of this chunk that {limits.BISECT_TRIES_MAX:,} trial loads did not "
                f"find them all ({len(self.refused):,} until now)",
                hint="mend their cause, or leave them out with --where",
            )
        try:
            self._write(ranges)
        except RowferryError as error:
            if not refuses_rows(error):
                raise
            return error
        return None

    def _write(self, ranges: Sequence[tuple[int, int]]) -> int:
        blocks = (Block(batch) for start, end in ranges for batch in self._spool.batches(start, end))
        accepted = self._writer.write(self._request, blocks)
        sent = sum(end - start for start, end in ranges)
        if accepted != sent:
            raise LedgerError(
                f"{sent:,} rows were sent and the target accepted {accepted:,}; rolled back",
                hint="look for triggers, rules or rewrites on the target table",
            )
        return accepted
