"""What was asked for: one frozen request for each command, and the identity of a job."""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Callable
from typing import Any

import msgspec

from rowferry import limits
from rowferry.engine import spelling
from rowferry.errors import ConfigError
from rowferry.model import Endpoint

MODES = ("create", "append", "truncate", "replace", "upsert")
#: Fields of a Request that hold a job back, and are no part of its key.
THROTTLES = ("max_rows_per_s", "max_mb_per_s", "pause_while", "max_pause_s", "max_errors", "max_refused")
POLICIES = ("text", "null", "clamp", "skip", "bool", "quarantine")
ON_ERROR = ("refuse", "quarantine")


class Request(msgspec.Struct, frozen=True):
    """A copy, plan or verify. ``policies`` maps ``table.column`` patterns to a policy; the last match wins."""

    source: Endpoint
    target: Endpoint
    tables: tuple[str, ...] = ()
    mode: str = "create"
    #: How tables and columns are spelled that a copy makes or looks for in the target (spelling.NAMES).
    names: str = "as-is"
    #: Which names a verify takes for one (spelling.MATCHES).
    match_names: str = "exact"
    workers: int = 2
    #: Condition on the source: for all tables that were asked for, or by table.
    where: str | None = None
    wheres: tuple[tuple[str, str], ...] = ()
    policies: tuple[tuple[str, str], ...] = ()
    verify: bool = False
    no_verify: bool = False
    require_snapshot: bool = False
    job: str | None = None
    join: bool = False
    ledger_schema: str = "rowferry"
    target_triggers: str | None = None
    independent: bool = False
    contained: bool = False
    repair: bool = False
    delete_extra: bool = False
    named_max: int = 20
    chunk_bytes: int | None = None
    #: What holds the job back (docs/THROTTLE.md); no part of its key. 0 lifts what a job that is resumed was given.
    max_rows_per_s: float | None = None
    max_mb_per_s: float | None = None
    #: (source | target, a query that must answer false).
    pause_while: tuple[tuple[str, str], ...] = ()
    max_pause_s: float | None = None
    #: So many in so long, as ``20/60s``: failed tries of chunks, and rows that were set aside.
    max_errors: str | None = None
    max_refused: str | None = None
    #: What becomes of rows that cannot be carried: refuse (the job stops) | quarantine; and of how many at the most
    #: (None: limits.QUARANTINED_MAX), which is no part of the job's key.
    on_error: str = "refuse"
    max_quarantined: int | None = None
    #: Where the rows that a dedup leaves out are written (Parquet).
    keep_duplicates: str | None = None
    #: Memory for the keys of all dedups, in 10^6 bytes (None: limits.DEDUP_BYTES); no part of the job's key.
    max_dedup_mb: float | None = None
    #: What happens to the rows of tables on their way: (NAME as --table takes it, stages.spec.TableSpec as plain
    #: JSON), and the folder that files named there are relative to.
    specs: tuple[tuple[str, dict[str, Any]], ...] = ()
    folder: str = ""
    #: (NAME, function given as an object): which no ledger holds.
    functions: tuple[tuple[str, Callable[..., Any]], ...] = ()

    def check(self) -> None:
        """Raises ConfigError for what no run could mean."""
        if self.mode not in MODES:
            raise ConfigError(f"unknown mode {self.mode!r}", hint=f"one of {', '.join(MODES)}")
        for option, value, known in (
            ("--names", self.names, spelling.NAMES),
            ("--match-names", self.match_names, spelling.MATCHES),
        ):
            if value not in known:
                raise ConfigError(f"unknown {option} {value!r}", hint=f"one of {', '.join(known)}")
        if not 1 <= self.workers <= 64:
            raise ConfigError(f"{self.workers} workers", hint="from 1 to 64")
        for pattern, policy in self.policies:
            if policy not in POLICIES:
                raise ConfigError(f"unknown policy {policy!r} for {pattern!r}", hint=f"one of {', '.join(POLICIES)}")
        if self.delete_extra and not self.repair:
            raise ConfigError("--delete-extra goes with --repair")
        if self.on_error not in ON_ERROR:
            raise ConfigError(f"unknown --on-error {self.on_error!r}", hint=f"one of {', '.join(ON_ERROR)}")
        if self.max_quarantined is not None and self.max_quarantined < 0:
            raise ConfigError(f"--max-quarantined {self.max_quarantined}", hint="a number from 0")
        if self.max_dedup_mb is not None and not 0 < self.max_dedup_mb < math.inf:
            raise ConfigError(f"--max-dedup-mb {self.max_dedup_mb}", hint="a positive number")
        self._check_throttles()

    @property
    def unset_aside(self) -> list[str]:
        """Tables with a rule that sets rows aside, where the job does not."""
        if self.on_error == "quarantine":
            return []
        return [name for name, plain in self.specs if b':"quarantine"' in msgspec.json.encode(plain)]

    def _check_throttles(self) -> None:
        for option, value in (
            ("--max-rows-per-s", self.max_rows_per_s),
            ("--max-mb-per-s", self.max_mb_per_s),
            ("--max-pause-s", self.max_pause_s),
        ):
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{option} {value}", hint="a positive number")
        if len(self.pause_while) > limits.SIGNALS_MAX:
            raise ConfigError(f"{len(self.pause_while)} signals (--pause-while)", hint=f"at most {limits.SIGNALS_MAX}")
        for side, sql in self.pause_while:
            if side not in ("source", "target"):
                raise ConfigError(f"--pause-while: unknown side {side!r}", hint="source:SQL or target:SQL")
            if not sql.strip() or not (_stands_alone(sql, "") or _stands_alone(sql, "\\")):
                raise ConfigError(f"--pause-while {side}: no query", value=sql, hint="one SELECT of one value")
        if self.max_errors is not None or self.max_refused is not None:
            from rowferry.engine.breaker import Limit

            for option, text in (("--max-errors", self.max_errors), ("--max-refused", self.max_refused)):
                if text is not None:
                    Limit.parse(option, text)

    def throttles(self) -> dict[str, Any]:
        """What holds the job back, as a plan keeps it: a ``resume`` goes on as gently."""
        given = {name: getattr(self, name) for name in THROTTLES}
        return {name: value for name, value in given.items() if value}

    @property
    def transforms(self) -> bool:
        """Whether rows are transformed or deduplicated on their way."""
        return bool(self.specs or self.functions)

    @property
    def dedup_bytes(self) -> int:
        """Memory for the keys of all dedups."""
        return limits.DEDUP_BYTES if self.max_dedup_mb is None else int(self.max_dedup_mb * 1e6)

    @property
    def held_back(self) -> bool:
        """Whether anything holds the job back."""
        return bool(self.max_rows_per_s or self.max_mb_per_s or self.pause_while)

    def policy(self, table: str, column: str) -> str | None:
        """The policy for one column; patterns are globs on ``table.column`` or on ``column`` alone."""
        found = None
        for pattern, policy in self.policies:
            if pattern in (f"{table}.{column}", column) or fnmatch.fnmatchcase(f"{table}.{column}", pattern):
                found = policy
        return found

    def names_column(self, table: str, column: str) -> bool:
        """Whether a policy is for this column by its name, and not by a pattern that may fit others."""
        return any(pattern in (f"{table}.{column}", column) for pattern, _ in self.policies)

    def where_for(self, table: str) -> str | None:
        """The condition for one table. Raises ConfigError for what is no condition by itself."""
        where = dict(self.wheres).get(table, self.where)
        if where is not None and not (_stands_alone(where, "") or _stands_alone(where, "\\")):
            raise ConfigError(
                "the condition's parentheses or quotes do not close",
                table=table,
                hint="it is put beside the bounds of every chunk, and must not reach out of its own parentheses",
            )
        return where

    def job_key(self) -> str:
        """What makes two commands the same job: endpoints without credentials, tables, mode, names,
        where, policies; never workers, bounds, or how the result is shown."""
        identity: list[Any] = [
            self.source.safe_url,
            self.target.safe_url,
            sorted(self.tables),
            self.mode,
            self.names,
            self.where,
            sorted(self.wheres),
            list(self.policies),
            self.target_triggers,
        ]
        if self.on_error != "refuse":
            identity.append(self.on_error)
        if self.transforms:
            identity += [list(self.specs), [(name, name_of(function)) for name, function in self.functions]]
        return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in a ledger and in messages: ``module:name``."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module or '?'}:{name or type(function).__qualname__}"


def _stands_alone(where: str, escape: str) -> bool:
    """Whether a condition stays within the parentheses that it is put in: ``a) OR (b`` would undo the bounds of a
    chunk, and rows would be copied many times.

    escape: the character that escapes a quote, which depends on the dialect (``''`` none): what stands alone by
    either reading is left to the server to judge.
    """
    depth, quote, at = 0, "", 0
    while at < len(where):
        c = where[at]
        if quote:
            at += c == escape
            quote = "" if c == quote else quote
        elif c in "'\"`":
            quote = c
        elif c in "()":
            depth += 1 if c == "(" else -1
            if depth < 0:
                return False
        at += 1
    return depth == 0 and not quote
