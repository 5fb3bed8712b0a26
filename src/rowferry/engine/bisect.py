"""Which rows of a chunk the target refuses: trial loads that are undone, halved until single rows are left.

With savepoints, what has passed stays loaded while the next part is tried: every row is loaded at most log2 n times,
and a refused row costs 2 log2 n tries at the most; 4, where the target says which row it was. Without them (and for
an upsert, whose keys are only compared within one load) parts are first tried alone, each undone; then all that passed
is loaded at once, and if rows refuse each other, the shortest beginning that fails names the next one: log2 n loads of
up to n rows for each of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.engine.spool import Spool
from rowferry.engine.transfer import require_all
from rowferry.errors import DataError, RowferryError


def refuses_rows(error: BaseException) -> bool:
    """Whether the target refused rows, so that others of the same chunk may pass."""
    return isinstance(error, RowferryError) and not error.transient and (isinstance(error, DataError) or error.of_row)


class Sought(Spool):
    """A chunk's rows, among which refused ones are looked for. Raises DataError where they are more than
    ``limits.SPOOL_BYTES_MAX``."""

    def add(self, batch: pa.RecordBatch) -> None:
        super().add(batch)
        if self.bytes > limits.SPOOL_BYTES_MAX:
            raise DataError(
                f"its chunk is larger than the {limits.SPOOL_BYTES_MAX >> 20:,} MiB in which rows are looked for",
                hint="leave out --on-error quarantine, or mend the rows that the target refuses",
            )


class Loader(Protocol):
    """What a search does with a writer."""

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int: ...
    def mark(self) -> None: ...
    def undo(self) -> None: ...


class Search:
    """Loads the rows of a spool into the chunk's open transaction, those that the target refuses excepted.

    on_refused: called with each refused row's number and the error, in no set order; may raise to end the search.
    check: called before each try; raises where the job is to stop.
    """

    def __init__(
        self,
        writer: Loader,
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

    def load_again(self) -> None:
        """Loads what has passed once more, after it was undone."""
        self._write(self._passed(self._spool.rows))

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
        require_all(sum(end - start for start, end in ranges), accepted, str(self._request.table.name))
        return accepted
