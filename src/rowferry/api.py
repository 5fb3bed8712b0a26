"""The public functions: what the command line does, from Python.

>>> import rowferry
>>> report = rowferry.copy("sqlite:///shop.db", "duckdb:///shop.duckdb", verify=True)
>>> report.tables[0].rows_committed
336776

Each function loads the part of the engine that it needs: a copy starts sooner without the verifier's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rowferry import endpoint, limits
from rowferry.engine.progress import Event, EventHandler
from rowferry.engine.report import JobSummary, PlanReport, Report
from rowferry.engine.request import Request

if TYPE_CHECKING:
    from rowferry.stages.spec import TableSpec


def _silent(event: Event) -> None:
    return None


def _request(source: str, target: str, options: Mapping[str, Any]) -> Request:
    given = dict(options)
    given["tables"] = tuple(given.get("tables") or ())
    if given.get("pause_while"):
        given["pause_while"] = tuple((side, sql) for side, sql in given["pause_while"])
    given["policies"] = tuple((given.get("policies") or {}).items())
    given["wheres"] = tuple((given.get("wheres") or {}).items())
    specs, functions = given.pop("specs", None), given.pop("transform", None)
    if specs or functions is not None:
        from rowferry import config

        given |= config.transforming(specs or {}, functions)
    return Request(source=endpoint.parse(source), target=endpoint.parse(target), **given)


def copy(
    source: str,
    target: str,
    *,
    tables: Sequence[str] = (),
    mode: str = "create",
    names: str = "as-is",
    workers: int = 2,
    where: str | None = None,
    wheres: Mapping[str, str] | None = None,
    policies: Mapping[str, str] | None = None,
    specs: Mapping[str, TableSpec | Mapping[str, Any]] | None = None,
    transform: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
    folder: str = "",
    verify: bool = False,
    no_verify: bool = False,
    require_snapshot: bool = False,
    job: str | None = None,
    join: bool = False,
    ledger_schema: str = "rowferry",
    target_triggers: str | None = None,
    named_max: int = limits.VERIFY_ROWS_NAMED,
    chunk_bytes: int | None = None,
    max_rows_per_s: float | None = None,
    max_mb_per_s: float | None = None,
    pause_while: Sequence[tuple[str, str]] = (),
    max_pause_s: float | None = None,
    max_errors: str | None = None,
    max_refused: str | None = None,
    on_error: str = "refuse",
    max_quarantined: int | None = None,
    keep_duplicates: str | None = None,
    max_dedup_mb: float | None = None,
    on_event: EventHandler = _silent,
    stop: threading.Event | None = None,
) -> Report:
    """Copies tables from ``source`` to ``target``, each row exactly once; goes on with an unfinished job.

    source, target: URLs. tables: ``NAME[:NEWNAME]``, globs allowed; none: all. mode: create,
    append, truncate, replace, upsert. names: how tables and columns are called in the target: as-is,
    lower or snake (docs/NAMES.md). wheres: SQL conditions on the source by table name.
    policies: ``{"table.column": "text" | "null" | "clamp" | "skip" | "quarantine"}``. specs: what happens to the
    rows of tables on their way, by table name or glob, as ``[table."NAME"]`` in a job.toml says it (docs/TRANSFORM.md);
    folder: what files named there are relative to. transform: a function RecordBatch → RecordBatch, or → list
    of (table, RecordBatch), by table name, or for all of them; no ledger can hold it, so that only the same
    call can go on with such a job. workers: threads, each with
    a connection to both sides. max_rows_per_s, max_mb_per_s (10^6 bytes): of all workers of
    this process together. pause_while: ``[("target", "SELECT …")]``, queries that must answer false;
    while one does not the job pauses, for ``max_pause_s`` at the most. max_errors, max_refused:
    ``"20/60s"``, failed tries of chunks and rows set aside that stop the job (docs/THROTTLE.md).
    on_error: ``quarantine`` sets rows that cannot be carried aside in the target (docs/QUARANTINE.md; the report's
    status is then ``quarantined``), ``max_quarantined`` of them at the most (None: 1,000).
    keep_duplicates: a Parquet file for the rows that a dedup leaves out; max_dedup_mb (10^6 bytes): memory for the
    keys of all dedups (None: 268), beyond which they go to temporary files (docs/DEDUP.md).
    stop: set it to stop the job at the next batch (StoppedError).

    Raises ConfigError (RefusedError where the plan refuses), SourceError, TargetError, DataError,
    StoppedError; DifferenceError where counts or digests do not agree at the end. Where a report
    could be made it is the error's ``report``.
    """
    options = {k: v for k, v in locals().items() if k not in ("source", "target", "on_event", "stop")}
    from rowferry.engine import supervisor

    return supervisor.copy(_request(source, target, options), on_event, stop or threading.Event())


def verify(
    source: str,
    target: str,
    *,
    tables: Sequence[str] = (),
    workers: int = 2,
    where: str | None = None,
    wheres: Mapping[str, str] | None = None,
    policies: Mapping[str, str] | None = None,
    specs: Mapping[str, TableSpec | Mapping[str, Any]] | None = None,
    transform: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
    folder: str = "",
    match_names: str = "exact",
    contained: bool = False,
    repair: bool = False,
    delete_extra: bool = False,
    independent: bool = False,
    max_dedup_mb: float | None = None,
    ledger_schema: str = "rowferry",
    target_triggers: str | None = None,
    named_max: int = limits.VERIFY_ROWS_NAMED,
    on_event: EventHandler = _silent,
    stop: threading.Event | None = None,
) -> Report:
    """Compares two databases row by row, whoever filled them; the report's ``equal`` is the verdict.

    match_names: ``loose`` ignores letter case and underscores when tables and columns are paired.
    contained: rows that only the target has are no difference. repair: make the target equal and
    compare again (extra rows go only with ``delete_extra``; triggers of the target are refused
    without ``target_triggers``, fire or disable). independent: read PostgreSQL with
    another decoder than the one that wrote it. Raises as :func:`copy`, but differences are no error.
    """
    options = {k: v for k, v in locals().items() if k not in ("source", "target", "on_event", "stop")}
    from rowferry.engine import verifier

    return verifier.verify(_request(source, target, options), on_event, stop or threading.Event())


def plan(
    source: str,
    target: str,
    *,
    tables: Sequence[str] = (),
    mode: str = "create",
    names: str = "as-is",
    workers: int = 2,
    where: str | None = None,
    wheres: Mapping[str, str] | None = None,
    policies: Mapping[str, str] | None = None,
    specs: Mapping[str, TableSpec | Mapping[str, Any]] | None = None,
    transform: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
    folder: str = "",
    require_snapshot: bool = False,
    ledger_schema: str = "rowferry",
    target_triggers: str | None = None,
    chunk_bytes: int | None = None,
    on_error: str = "refuse",
    max_quarantined: int | None = None,
) -> PlanReport:
    """What :func:`copy` with the same arguments would do and what it would refuse; writes nothing."""
    options = {k: v for k, v in locals().items() if k not in ("source", "target")}
    from rowferry.engine import previewer

    return previewer.preview(_request(source, target, options))


def resume(
    target: str,
    job: str | None = None,
    *,
    source: str | None = None,
    workers: int = 2,
    verify: bool = False,
    no_verify: bool = False,
    join: bool = False,
    max_quarantined: int | None = None,
    max_dedup_mb: float | None = None,
    ledger_schema: str = "rowferry",
    max_rows_per_s: float | None = None,
    max_mb_per_s: float | None = None,
    pause_while: Sequence[tuple[str, str]] = (),
    max_pause_s: float | None = None,
    max_errors: str | None = None,
    max_refused: str | None = None,
    on_event: EventHandler = _silent,
    stop: threading.Event | None = None,
) -> Report:
    """Goes on with a job by name (None: the latest unfinished one), with the options it was started with.

    source: the source's URL with its credentials, which no ledger holds. What held the job back does so
    again, unless it is given anew (0 and ``[("none", "")]`` lift it). Raises as :func:`copy`.
    """
    parsed = endpoint.parse(target)
    asked = Request(
        parsed, parsed, workers=workers, job=job, join=join, ledger_schema=ledger_schema, verify=verify,
        no_verify=no_verify, max_rows_per_s=max_rows_per_s, max_mb_per_s=max_mb_per_s,
        pause_while=tuple((side, sql) for side, sql in pause_while), max_pause_s=max_pause_s, max_errors=max_errors,
        max_refused=max_refused, max_quarantined=max_quarantined, max_dedup_mb=max_dedup_mb,
    )  # fmt: skip
    from rowferry.engine import jobs as engine_jobs
    from rowferry.engine import supervisor

    request = engine_jobs.request_of(asked, source)
    return supervisor.copy(request, on_event, stop or threading.Event(), command="resume")


def retry_quarantined(
    target: str,
    job: str | None = None,
    *,
    ledger_schema: str = "rowferry",
    on_event: EventHandler = _silent,
    stop: threading.Event | None = None,
) -> Report:
    """Sends the rows of the target's quarantine again, of one job or of all, after their cause was mended.

    Those that land leave the quarantine in the same transaction; the others stay with their new reason, and the
    report's ``exit_code`` is then 1 (its tables: ``rows_read`` tried, ``rows_committed`` landed,
    ``rows_quarantined`` left). Raises ConfigError for a job that is not there or not finished, TargetError,
    StoppedError.
    """
    parsed = endpoint.parse(target)
    from rowferry.engine import retry

    request = Request(parsed, parsed, job=job, ledger_schema=ledger_schema)
    return retry.retry(request, on_event, stop or threading.Event())


def jobs(target: str, *, ledger_schema: str = "rowferry") -> list[JobSummary]:
    """The jobs in a target's ledger, oldest first. One that cannot be read says so in its ``problem``."""
    parsed = endpoint.parse(target)
    from rowferry.engine import jobs as engine_jobs

    return engine_jobs.list_jobs(Request(parsed, parsed, ledger_schema=ledger_schema))
