"""Reads one side of a table with several threads, each with its own reader, and hands every batch on."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator

import pyarrow as pa

from rowferry import limits
from rowferry.adapters.protocol import Reader, ReadRequest, Source, Target
from rowferry.errors import RowferryError, SourceError, StoppedError, TargetError
from rowferry.model import Bound, Table, TablePlan
from rowferry.stages.digest import Digester
from rowferry.types import Type

#: Called with a batch of the plan's columns; each thread of a scan has one of its own.
Consumer = Callable[[pa.RecordBatch], None]
#: Gives consumers for one scan that hand on only some of the rows.
Sieve = Callable[[list[Consumer]], list[Consumer]]


class Side:
    """One side of one table pair. Use as a context manager: leaving it closes the readers.

    A scan reads the whole table once; several scans use the same readers, hence the same snapshot.
    ``columns`` (target names, None: all of the plan) narrows what is read. ``sieve`` (of all columns) stands before
    the consumers of each scan.
    """

    def __init__(
        self,
        source: Source,
        plan: TablePlan,
        side: str,
        workers: int,
        *,
        columns: tuple[str, ...] | None = None,
        stop: threading.Event | None = None,
        sieve: Sieve | None = None,
    ) -> None:
        self.name = side
        self._sieve = sieve
        self.plan = plan
        table, forms, self._where = side_of(plan, side)
        self.table = table
        #: What the source's rows pass before they are rows of the plan's columns: (source table, what is read of it).
        self._passes = (plan.source, plan.reads) if side == "source" and plan.transform is not None else None
        kept = list(range(len(plan.columns)))
        if columns is not None:
            places = {c.target: i for i, c in enumerate(plan.columns)}
            kept = [places[name] for name in columns]
        self.columns = tuple(plan.columns[i] for i in kept)
        self.forms = tuple(forms[i] for i in kept)
        #: (column's index, form) of columns that are compared as wire bytes, in a form that people can read.
        self.readable = tuple(
            (i, next((f for f in table.column(name).forms if f.kind != "wire"), form))
            for i, (name, form) in enumerate(self.forms)
            if form.kind == "wire"
        )
        places = {c.target: i for i, c in enumerate(self.columns)}
        #: Indices of the key columns among ``columns``; empty where the table is compared as a multiset.
        self.key = tuple(places[name] for name in plan.key if name in places) if key_is_read(plan) else ()
        self._source = source
        self._workers = workers
        self._stop = stop
        self._readers: list[Reader] = []
        self._left_out: list[int] = []
        with self._blamed():
            self._bounds = source.split(plan.source if self._passes else table, self._where, limits.CHUNK_BYTES, 0)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for reader in self._readers:
                stack.callback(reader.close)
            self._readers = []

    def digester(self) -> Digester:
        """A digester of this side's columns; one for each thread."""
        return Digester([c.comparison for c in self.columns], self.name, self.key)

    def scan(
        self, consumers: list[Consumer], others: list[BaseException] | None = None, *, readable: bool = False
    ) -> None:
        """Reads every row once; consumer i sees the batches of thread i. Raises what a thread raised.

        others: a list shared with a scan of the other side, so that an error there ends this one.
        readable: batches have the columns of ``readable`` after the others.
        """
        if self._sieve is not None:
            consumers = self._sieve(consumers)
        self._left_out = []
        forms = self.forms
        if readable:
            forms += tuple((forms[i][0], form) for i, form in self.readable)
        errors: list[BaseException] = [] if others is None else others
        todo = collections.deque(self._bounds)
        with self._blamed():
            while len(self._readers) < min(len(consumers), len(self._bounds)):
                self._readers.append(self._source.reader())
        own: list[BaseException] = []

        def run(reader: Reader, consumer: Consumer) -> None:
            try:
                self._read(reader, consumer, forms, todo, errors)
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                own.append(error)
                errors.append(error)

        threads = [
            threading.Thread(target=run, args=pair, name=f"rowferry-scan-{self.name}")
            for pair in zip(self._readers, consumers, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if own:
            with self._blamed():
                raise own[0]

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Errors name the table; what fails while the target is read is the target's failure."""
        try:
            with blamed_on_target() if self.name == "target" else contextlib.nullcontext():
                yield
        except RowferryError as error:
            error.at(table=str(self.table.name))
            raise

    def _read(
        self,
        reader: Reader,
        consumer: Consumer,
        forms: tuple[tuple[str, Type], ...],
        todo: collections.deque[Bound],
        errors: list[BaseException],
    ) -> None:
        table, reads = (self.table, forms) if self._passes is None else self._passes
        unread = self.plan.unread if self.name == "source" else ()
        wanted = len(reads)
        if unread:
            reads += self._unasked(reads)
        with self._passing(consumer) as take:
            while not errors:
                try:
                    bound = todo.popleft()
                except IndexError:
                    return
                for block in reader.read(
                    ReadRequest(table, reads, bound, self._where, limits.BATCH_BYTES, unread=unread)
                ):
                    if self._stop is not None and self._stop.is_set():
                        raise StoppedError("stopped on request")
                    if errors:
                        return
                    take(block.batch if not unread else self._readable(block.batch, wanted))

    def _unasked(self, reads: tuple[tuple[str, Type], ...]) -> tuple[tuple[str, Type], ...]:
        """Columns of which it has to be known whether their values can be read, and which are not asked for."""
        asked = {name for name, _ in reads}
        return tuple((c.source, c.form) for c in self.plan.columns if c.source in set(self.plan.unread) - asked)

    def _readable(self, batch: pa.RecordBatch, wanted: int) -> pa.RecordBatch:
        """The first columns of the rows that the source could read: a copy sets the others aside."""
        from rowferry.engine.unread import parted

        readable = parted(batch, self.plan.unread)[0].select(list(range(wanted)))
        self._left_out.append(batch.num_rows - readable.num_rows)
        return readable

    @contextlib.contextmanager
    def _passing(self, consumer: Consumer) -> Iterator[Consumer]:
        """What takes the batches that are read: of a table that is transformed, the consumer sees the rows that come
        out for this one."""
        if self._passes is None:
            yield consumer
            return
        from rowferry.engine import transforming

        assert self.plan.transform is not None
        places = [name for name, _ in self.forms]
        with contextlib.closing(transforming.stage_of(self.plan.transform, str(self.table.name)).worker()) as stage:

            def take(read: pa.RecordBatch) -> None:
                passed = stage.apply(read)
                self._left_out.append(len(passed.refused))
                for output, batch in passed.batches:
                    if output == self.plan.output and batch.num_rows:
                        consumer(batch.select(places))

            yield take

    @property
    def left_out(self) -> int:
        """Rows that the last scan did not hand on, since a copy by the same rules would have set them aside."""
        return sum(self._left_out)

    @property
    def threads(self) -> int:
        """How many consumers a scan can use."""
        return max(1, min(self._workers, len(self._bounds)))


@contextlib.contextmanager
def blamed_on_target() -> Iterator[None]:
    """What fails while the target is read is the target's failure."""
    try:
        yield
    except SourceError as error:
        blamed = TargetError(error.message)
        blamed.__dict__.update(error.__dict__)
        raise blamed from error


@contextlib.contextmanager
def reading(target: Target, readers: int) -> Iterator[Source]:
    """The target as a source, its snapshot open; closed at the end. That it fails is the target's failure."""
    with blamed_on_target():
        written = target.as_source()
    with contextlib.closing(written):
        with blamed_on_target():
            written.open_snapshot(readers)
        yield written


def side_of(plan: TablePlan, side: str) -> tuple[Table, tuple[tuple[str, Type], ...], str | None]:
    """The table of one side, its (column, form) pairs in the plan's order, and its condition."""
    if side == "source":
        return plan.derived or plan.source, tuple((c.source, c.form) for c in plan.columns), plan.where
    return plan.target, tuple((c.target, c.column.type) for c in plan.columns), None


def key_is_read(plan: TablePlan) -> bool:
    """Whether the plan's key can tell its rows apart: all its columns are compared."""
    compared = {c.target for c in plan.columns}
    return bool(plan.key) and set(plan.key) <= compared


def scan_both(
    source: Side, target: Side, consumers_of: Callable[[Side], list[Consumer]], *, readable: bool = False
) -> None:
    """Scans both sides at the same time. Raises the first error of either."""
    errors: list[BaseException] = []
    failures: list[BaseException] = []

    def run(side: Side, consumers: list[Consumer]) -> None:
        try:
            side.scan(consumers, errors, readable=readable)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(side, consumers_of(side))) for side in (source, target)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
