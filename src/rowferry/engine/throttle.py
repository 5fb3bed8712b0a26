"""Holding a copy back: rates that all workers of the process share, and signals that pause it.

    --max-rows-per-s, --max-mb-per-s     Bucket: each batch waits until what went before it is paid for
    --pause-while target:SQL             Signal: a thread that asks on a connection of its own, every few seconds

Workers come by between two batches (``paced``) and between two chunks (``between_chunks``). A signal that cannot be
read counts as bad: the job pauses rather than goes on blindly. docs/THROTTLE.md says what is held meanwhile.
"""

from __future__ import annotations

import contextlib
import decimal
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import msgspec

from rowferry import limits
from rowferry.adapters.protocol import Asker, Asking, Block, Reader, ReadRequest, Source, Target
from rowferry.engine.prefetch import close
from rowferry.engine.progress import EventHandler, Waiting, WentOn, plural
from rowferry.engine.request import Request
from rowferry.errors import ConfigError, RowferryError, SourceError, StoppedError, TargetError
from rowferry.model import ChunkRow, Table

#: Characters of a question, and of what went wrong with it, that messages show.
_SHOWN = 160


class GivenBackError(RowferryError):
    """A paused worker gives back the chunk that it holds: its rows are rolled back, and copied anew later."""


# --- rates -----------------------------------------------------------------------------------


class Bucket:
    """Lets so much through in a second, for all threads together, in the order in which they come.

    A batch is paid for before it passes, from the first one on, so that no time has more than its share; of time
    that was not used a moment may be made up for.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._clock = clock
        self._lock = threading.Lock()
        #: When all that was let through is paid for; None before the first.
        self._paid_at: float | None = None

    def take(self, amount: float) -> float:
        """Counts ``amount``, and returns how many seconds it has to wait first."""
        with self._lock:
            now = self._clock()
            begin = now if self._paid_at is None else max(self._paid_at, now - limits.PACE_CREDIT_S)
            self._paid_at = min(begin + amount / self.per_s, now + limits.PACE_WAIT_MAX_S)
            return max(self._paid_at - now, 0.0)


class Pace:
    """The rates of a request: rows, bytes, or both."""

    def __init__(self, rows_per_s: float | None, mb_per_s: float | None) -> None:
        self._rows = Bucket(rows_per_s) if rows_per_s else None
        self._bytes = Bucket(mb_per_s * 1e6) if mb_per_s else None

    @property
    def buckets(self) -> bool:
        return self._rows is not None or self._bytes is not None

    def wait_s(self, rows: int, size: int) -> float:
        """Counts a batch; how long it has to wait."""
        return max(
            self._rows.take(rows) if self._rows else 0.0,
            self._bytes.take(size) if self._bytes else 0.0,
        )

    def rows_of(self, rows: int, size: int, seconds: float) -> int:
        """How many of these rows may pass in some seconds; one at the least."""
        share = 1.0
        if self._rows:
            share = min(share, self._rows.per_s * seconds / rows)
        if self._bytes and size:
            share = min(share, self._bytes.per_s * seconds / size)
        return max(1, math.ceil(rows * share)) if share < 1 else rows

    def words(self) -> str:
        rows = [f"{self._rows.per_s:,.10g} rows/s"] if self._rows else []
        size = [f"{self._bytes.per_s / 1e6:,.10g} MB/s"] if self._bytes else []
        return " and ".join(rows + size)


def bytes_for(request: Request, table: Table, seconds: float) -> float:
    """Bytes of a table that the rates of a request let through in some seconds; infinite without rates."""
    size = math.inf
    if request.max_mb_per_s:
        size = request.max_mb_per_s * 1e6 * seconds
    if request.max_rows_per_s and table.rows > 0 and table.bytes > 0:
        size = min(size, request.max_rows_per_s * seconds * table.bytes / table.rows)
    return size


def chunk_size(request: Request, table: Table, usual_bytes: int, usual_rows_min: int) -> tuple[int, int]:
    """Bytes of the chunks of a table, and rows that they hold at the least: a chunk's transaction is not to be open
    for minutes."""
    size = max(bytes_for(request, table, limits.PACE_CHUNK_S), limits.PACE_CHUNK_BYTES_MIN)
    size = int(min(usual_bytes, size))
    rows = size * table.rows // table.bytes if table.bytes > 0 else usual_rows_min
    return size, max(1, min(usual_rows_min, rows)) if usual_rows_min else 0


# --- signals ---------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """What a signal said: good, paused, or unread; and why, in words."""

    kind: Literal["good", "paused", "unread"]
    why: str = ""
    #: What went wrong where it could not be read.
    error: RowferryError | None = None


_UNASKED = Answer("unread", "it has not answered yet")


def read(rows: Sequence[Sequence[object]]) -> Answer:
    """What the rows of a question mean. Raises ConfigError for a result that can mean nothing."""
    if not rows:
        return Answer("good")
    if len(rows[0]) != 1:
        raise ConfigError(f"it gives {len(rows[0])} columns", hint="it has to give one")
    if len(rows) > 1:
        raise ConfigError("it gives several rows", hint="ask SELECT EXISTS (…), or count them")
    value = rows[0][0]
    if value is None:
        return Answer("unread", "it answered NULL, which is neither true nor false")
    if (number := _number(value)) is None:
        shown = str(value)[:_SHOWN]
        raise ConfigError("its answer is neither true nor false nor a number", value=shown, hint="compare it: … > 10")
    if math.isnan(number):
        return Answer("unread", "it answered NaN, which is neither true nor false")
    return Answer("paused", "it is true" if value is True else f"it is {value}") if number else Answer("good")


def _number(value: object) -> float | None:
    """Numbers and truth values; a decimal may come as its text."""
    if isinstance(value, (bool, int, float, decimal.Decimal)):
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(decimal.InvalidOperation):
            return float(decimal.Decimal(value))
    return None


class Signal:
    """One question to one side, and its latest answer."""

    def __init__(self, side: str, sql: str, end: Source | Target) -> None:
        if not isinstance(end, Asking):
            raise ConfigError(
                f"--pause-while {side}: the {side} cannot be asked", value=_short(sql), hint="files answer no SQL"
            )
        self.name = f"{side}: {_short(sql)}"
        self._side = side
        self._sql = sql
        self._asker: Asker = end.asker()
        self._answer = _UNASKED
        self._answered_at = time.monotonic()

    def ask(self) -> Answer:
        """Asks now. Raises ConfigError for what no time will make readable: no SQL, no such table, two columns."""
        late = threading.Timer(limits.SIGNAL_TIMEOUT_S + 2.0, self._asker.cut)
        late.daemon = True
        late.start()
        try:
            answer = read(self._asker.ask(self._sql))
        except ConfigError as error:
            error.message = f"--pause-while {self.name}: {error.message}"
            raise
        except RowferryError as error:
            if not error.transient:
                raise ConfigError(
                    f"--pause-while {self.name}: {error.message}", code=error.code, hint=error.hint
                ) from error
            answer = Answer("unread", f"it cannot be read: {error}"[:_SHOWN], error)
        finally:
            late.cancel()
        return self._keep(answer)

    def _keep(self, answer: Answer) -> Answer:
        self._answer, self._answered_at = answer, time.monotonic()
        return answer

    def ask_again(self) -> None:
        """Asks while the job runs: whatever goes wrong counts as bad, and may be mended meanwhile."""
        try:
            self.ask()
        except ConfigError as error:
            why = error.message.removeprefix(f"--pause-while {self.name}: ")
            self._keep(Answer("unread", f"it cannot be read: {why}"[:_SHOWN], error))

    @property
    def answer(self) -> Answer:
        """The latest answer; one that is too old counts as none."""
        age_s = time.monotonic() - self._answered_at
        if (self._answer.kind == "good" or self._answer is _UNASKED) and age_s > limits.SIGNAL_STALE_S:
            return Answer("unread", "it has not answered for a while")
        return self._answer

    def given_up(self, after_s: float) -> RowferryError:
        """What stops a job whose signal could not be read for too long: the side failed, not the request."""
        role = TargetError if self._side == "target" else SourceError
        error = self._answer.error
        return role(
            f"paused for longer than {after_s:,.10g} s, since a signal could not be read: {self.name}: "
            f"{self.answer.why}",
            code=error.code if error else None,
            hint="mend the question or what it asks, and the same command goes on",
        )

    def cut(self) -> None:
        self._asker.cut()

    def close(self) -> None:
        self._asker.close()


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


class Watch:
    """Asks all signals while workers run, tells of pauses, and knows how long the present one has lasted."""

    def __init__(self, signals: Sequence[Signal], on_event: EventHandler) -> None:
        self._signals = signals
        self._on_event = on_event
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(s,), name="rowferry-signal", daemon=True) for s in signals
        ]
        self._paused_at: float | None = None
        self._unread_at: dict[str, float] = {}
        #: What no signal may raise: a mistake of ours, which must neither be lost nor let the job go on.
        self._broken: BaseException | None = None
        self._said: tuple[str, ...] = ()
        self._said_at = 0.0
        #: Pauses that are over, and how long they were together.
        self.count = 0
        self.seconds = 0.0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for signal in self._signals:
            signal.cut()
        for thread in self._threads:
            thread.join(limits.STOP_GRACE_S)  # one that is just connecting closes by itself what it gets
        self._broken = None  # whoever met it has raised it
        with self._lock:
            if self._paused_at is not None:
                self._over()

    def _run(self, signal: Signal) -> None:
        try:
            while not self._ended.is_set():
                signal.ask_again()
                if not self._ended.is_set():
                    self.look()
                self._ended.wait(limits.SIGNAL_EVERY_S)
        except BaseException as error:  # noqa: BLE001 - raised in the workers
            self._broken = error
        finally:
            signal.close()

    def look(self) -> bool:
        """Whether workers have to wait; says so where that has changed."""
        if self._broken is not None:
            raise self._broken
        if self._paused_at is None and all(s.answer.kind == "good" for s in self._signals):
            return False  # as nearly always: without the lock
        with self._lock:
            now = time.monotonic()
            seen = [(s, s.answer) for s in self._signals]
            # Until the first answer there is nothing to say, and no pause that could last too long.
            waits = any(a is _UNASKED for _, a in seen)
            bad = [(s, a) for s, a in seen if a.kind != "good" and a is not _UNASKED]
            unread = {s.name for s, a in bad if a.kind == "unread"}
            self._unread_at = {name: self._unread_at.get(name, now) for name in unread}
            if not bad:
                if self._paused_at is not None and not waits:
                    self._over()
                return waits
            if self._paused_at is None:
                self._paused_at, self._said_at = now, -math.inf
            self._say(bad, now)
            return True

    def _over(self) -> None:
        assert self._paused_at is not None
        seconds = time.monotonic() - self._paused_at
        if self._said:
            self.count += 1
            self.seconds += seconds
            if not self._ended.is_set():
                self._on_event(WentOn("all signals are good", seconds))
        self._paused_at, self._said = None, ()

    def _say(self, bad: Sequence[tuple[Signal, Answer]], now: float) -> None:
        # Which signals, and whether they are true or cannot be read; not each new number that they answer.
        what = tuple(f"{s.name} {a.kind}" for s, a in bad)
        if self._ended.is_set() or (what == self._said and now - self._said_at < limits.PAUSE_SAID_EVERY_S):
            return
        again = what == self._said and self._paused_at is not None
        self._said, self._said_at = what, now
        lasted = f" for {now - self._paused_at:,.0f} s" if again and self._paused_at is not None else ""
        self._on_event(Waiting(f"paused{lasted}: " + "; ".join(f"{s.name}: {a.why}" for s, a in bad)))

    def check_patience(self, max_pause_s: float) -> None:
        """Raises what stops a job that has been paused for too long."""
        with self._lock:
            now = time.monotonic()
            for signal in self._signals:
                since = self._unread_at.get(signal.name)
                patience_s = min(limits.PAUSE_UNREAD_MAX_S, max_pause_s)
                if since is not None and now - since > patience_s:
                    raise signal.given_up(patience_s)
            if self._paused_at is not None and now - self._paused_at > max_pause_s:
                why = "; ".join(f"{s.name}: {a.why}" for s in self._signals if (a := s.answer).kind != "good")
                raise StoppedError(f"paused for longer than {max_pause_s:,.10g} s (--max-pause-s): {why}")


# --- what workers meet -----------------------------------------------------------------------


class Throttle:
    """What holds one copy back, kept over its attempts. One for all workers of the process."""

    def __init__(self, request: Request, on_event: EventHandler) -> None:
        self._request = request
        self._on_event = on_event
        #: The source's, and the target's where that is read: each side gives so much, and no more.
        self._paces = {side: Pace(request.max_rows_per_s, request.max_mb_per_s) for side in ("source", "target")}
        self._pace = self._paces["source"]
        self._max_pause_s = limits.PAUSE_MAX_S if request.max_pause_s is None else request.max_pause_s
        self._watch: Watch | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._checked = False
        self._paced_s = 0.0
        self._pauses, self._paused_s, self._given_back = 0, 0.0, 0
        #: How often a chunk was given back: (table, number) → times.
        self._patience: dict[tuple[int, int], int] = {}

    def check(self, source: Source, target: Target) -> None:
        """Asks each signal once, before anything is written. Raises ConfigError for what cannot be read at all;
        a signal that is true, or a side that does not answer just now, is waited for later."""
        if self._checked:
            return
        for signal in self._signals(source, target):
            try:
                signal.ask()
            finally:
                signal.close()
        self._checked = True

    def _signals(self, source: Source, target: Target) -> list[Signal]:
        ends: dict[str, Source | Target] = {"source": source, "target": target}
        return [Signal(side, sql, ends[side]) for side, sql in self._request.pause_while]

    @contextlib.contextmanager
    def watching(self, source: Source, target: Target, stop: threading.Event) -> Iterator[None]:
        """While rows are read: asks the signals. stop: ends the waits of who reads them, the workers' own say."""
        self._stop = stop
        if not self._request.pause_while:
            yield
            return
        self._watch = Watch(self._signals(source, target), self._on_event)
        self._watch.start()
        try:
            yield
        finally:
            self._watch.end()
            self._pauses += self._watch.count
            self._paused_s += self._watch.seconds
            self._watch = None

    def gave_back(self, error: RowferryError) -> bool:
        """Whether a chunk failed only since its worker gave it back: no try of it is counted."""
        if not isinstance(error, GivenBackError):
            return False
        self._on_event(Waiting(f"table {error.table!r}, chunk {error.chunk}: {error.message}"))
        return True

    def between_chunks(self) -> None:
        """Waits while the job is paused. The worker holds no chunk and no transaction on the target.
        Raises StoppedError, or what stops a job that was paused for too long."""
        watch = self._watch
        while watch is not None and watch.look():
            watch.check_patience(self._max_pause_s)
            if self._stop.wait(limits.PAUSE_POLL_S):
                raise StoppedError("stopped")

    @property
    def paces(self) -> bool:
        """Whether there is a rate to be kept."""
        return self._pace.buckets

    def batch_bytes(self, table: Table) -> int:
        """How large the batches of a table are to be asked for."""
        size = bytes_for(self._request, table, limits.PACE_PIECE_S)
        return int(max(min(limits.BATCH_BYTES, size), limits.PACE_CHUNK_BYTES_MIN))

    def paced(self, blocks: Iterable[Block], chunk: ChunkRow) -> Iterator[Block]:
        """The blocks of a chunk, none sooner than it may. Raises StoppedError, GivenBackError, or what stops a job."""
        for block in blocks:
            for piece in self._pieces(block):
                self._wait(piece, self._pace)
                self._hold(chunk)
                yield piece

    def reads(self, source: Source, side: str) -> Source:
        """The source, or the target as one, whose readers are held back, too: for what is read of it beside the copy.
        Who reads holds no transaction on the target, and waits as long as a pause lasts."""
        return cast(Source, _HeldSource(source, self, side))

    def passing(self, blocks: Iterable[Block], side: str) -> Iterator[Block]:
        """The blocks of such a read, none sooner than it may. Raises as :meth:`between_chunks`."""
        pace = self._paces[side]
        for block in blocks:
            for piece in self._pieces(block):
                self._wait(piece, pace)
                self.between_chunks()
                yield piece

    def _pieces(self, block: Block) -> Iterator[Block]:
        """A block cut into what may pass at a time. Frames of an engine's own are not cut: they come small enough."""
        batch = block.batch
        rows = batch.num_rows
        step = self._pace.rows_of(rows, batch.nbytes, limits.PACE_PIECE_S) if rows and block.raw is None else rows
        if step >= rows:
            yield block
            return
        for first in range(0, rows, step):
            # What the source settled is counted once.
            yield Block(batch.slice(first, step), touched=block.touched if first == 0 else None)

    def _wait(self, block: Block, pace: Pace) -> None:
        if not pace.buckets:
            return
        size = block.batch.nbytes if block.raw is None else len(block.raw)
        wait_s = pace.wait_s(block.batch.num_rows, size)
        if wait_s <= 0:
            return
        with self._lock:
            first = not self._paced_s
            self._paced_s += wait_s
        if first:
            self._on_event(Waiting(f"held to {self._pace.words()}, all workers together"))
        if self._stop.wait(wait_s):
            raise StoppedError("stopped")

    def _hold(self, chunk: ChunkRow) -> None:
        """Waits in the middle of a chunk: its transaction stays open, for a bounded time."""
        watch = self._watch
        if watch is None or not watch.look():
            return
        key = (chunk.table, chunk.number)
        hold_s = min(limits.PAUSE_HOLD_S * 2 ** self._patience.get(key, 0), limits.PAUSE_HOLD_MAX_S)
        until = time.monotonic() + hold_s
        while watch.look():
            watch.check_patience(self._max_pause_s)
            if time.monotonic() >= until:
                with self._lock:
                    self._patience[key] = self._patience.get(key, 0) + 1
                    self._given_back += 1
                raise GivenBackError(f"given back after a pause of {hold_s:g} s, and copied anew when it is over")
            if self._stop.wait(limits.PAUSE_POLL_S):
                raise StoppedError("stopped")

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        out = []
        if self._paced_s:
            out.append(f"held to {self._pace.words()}: the workers waited {self._paced_s:,.1f} s, taken together")
        if self._pauses:
            back = f"; half-copied and given back: {plural(self._given_back, 'chunk')}" if self._given_back else ""
            asked = "; ".join(f"{side}: {_short(sql)}" for side, sql in self._request.pause_while)
            out.append(f"paused {plural(self._pauses, 'time')}, {self._paused_s:,.1f} s together ({asked}){back}")
        return tuple(out)


class _HeldSource:
    """A source that gives its rows no sooner than it may; in all else the source itself."""

    def __init__(self, source: Source, throttle: Throttle, side: str) -> None:
        self._source = source
        self._throttle = throttle
        self._side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def reader(self) -> Reader:
        return cast(Reader, _HeldReader(self._source.reader(), self._throttle, self._side))


class _HeldReader:
    def __init__(self, reader: Reader, throttle: Throttle, side: str) -> None:
        self._reader = reader
        self._throttle = throttle
        self._side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read(self, request: ReadRequest) -> Iterator[Block]:
        blocks = self._reader.read(request)
        try:
            yield from self._throttle.passing(blocks, self._side)
        finally:
            close(blocks)
