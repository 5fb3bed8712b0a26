"""The command line: ``rowferry copy | verify | plan | resume | retry-quarantined | jobs``.

Exit codes: 0 all right; 1 the data differ or a value was refused in mid-copy; 2 the request is
wrong; 3 the source failed; 4 the target failed; 5 stopped, can be resumed; 6 a bug in rowferry.
Results go to standard output, errors to standard error, each in one line and without secrets.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec

from rowferry import __version__, redaction
from rowferry.errors import ConfigError, DifferenceError, LedgerError, RowferryError, StoppedError

MODES = ("create", "append", "truncate", "replace", "upsert")
EXIT_BUG = 6
EXIT_STOPPED = 5
EXIT_REQUEST = 2

Command = Callable[..., Any]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script. Never shows a traceback; exits with the code of the module's docstring."""
    # Rows live in Arrow buffers, which the collector does not track: with its usual threshold it would
    # mostly walk through what the imports left (a twentieth of a two-second copy's CPU, measured).
    gc.set_threshold(50_000, 20, 20)
    # Arrow's default pool keeps what it was given: 50–150 MiB more at the same CPU (measured over Parquet).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    given = list(sys.argv[1:] if arguments is None else arguments)
    redact = redaction.for_urls(a.partition("=")[2] if a.startswith("--") else a for a in given if "://" in a)
    code = _run(given, redact)
    if arguments is not None:
        sys.exit(code)
    # Everything is closed, and the process has nothing to say but its code: taking the interpreter apart, with all
    # that Arrow and the drivers have registered, would be a tenth of a small copy's time.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader went away
            stream.flush()
    os._exit(code)


def _run(arguments: list[str], redact: redaction.Redactor) -> int:
    try:
        code = cli.main(args=arguments, prog_name="rowferry", standalone_mode=False, obj=redact)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as wanted:
        return wanted.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return EXIT_REQUEST
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "rowferry"
        return _say(redact, error.format_message(), EXIT_REQUEST, f"see {command} --help")
    except click.ClickException as error:
        return _say(redact, error.format_message(), EXIT_REQUEST)
    except RowferryError as error:
        if error.exit_code == EXIT_BUG:
            return _bug(redact, error)
        return _say(redact, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say(redact, "stopped before anything was copied", EXIT_STOPPED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: becomes exit 6 and a file with the traceback
        return _bug(redact, error)


def _say(redact: redaction.Redactor, message: str, code: int, hint: str | None = None) -> int:
    line = " ".join(redact(message if hint is None else f"{message.rstrip('.')}; {hint}").split())
    print(f"rowferry: {line}", file=sys.stderr)
    return code


def _bug(redact: redaction.Redactor, error: BaseException) -> int:
    """One line, and the traceback in a file: nobody's terminal is flooded and nothing is lost."""
    import tempfile
    import traceback

    where = "no traceback could be written"
    try:
        text = redact("".join(traceback.format_exception(error)))
        handle, path = tempfile.mkstemp(prefix="rowferry-", suffix=".traceback.txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"rowferry {__version__}, Python {sys.version}\n{text}")
        where = f"the traceback is in {path}"
    except OSError as problem:
        where += f" ({problem.strerror})"
    summary = str(error) or "no message"
    return _say(
        redact, f"a bug in rowferry: {type(error).__name__}: {summary[:500]}; {where}; please report it", EXIT_BUG
    )


# --- options that several commands share ---------------------------------------------------


def _stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


_REPORT = click.option("--report", metavar="FILE.json", help="Write what happened as JSON.")
_SELECTING = _stack(
    click.option("--table", "tables", multiple=True, metavar="NAME[:NEWNAME]",
                 help="Only this table (repeatable); schema.table and globs work, a part in double quotes is literal."),
    click.option("--where", metavar="SQL", help="Only rows of this condition, in the source's own SQL."),
    click.option("--config", metavar="JOB.toml", help="Read tables, mode, names, workers, where, … from a file."),
    click.option("--policy", "policies", multiple=True, metavar="TABLE.COLUMN=POLICY",
                 help="What to do with values that do not fit: text, null, clamp, skip or quarantine; bool: TINYINT(1) "
                      "is carried as one (globs; repeatable)."),
    click.option("--ledger-schema", metavar="NAME", help="The PostgreSQL schema of the ledger (rowferry)."),
    _REPORT,
)  # fmt: skip
_SHOWING = _stack(
    click.option("--quiet", is_flag=True, help="Show nothing but errors."),
    click.option("--log-json", is_flag=True, help="One JSON line for each chunk instead of text."),
)
_WORKERS = click.option("--workers", type=click.IntRange(1, 64), help="Connections to each side that work at once (2).")
_LIMIT = click.option("--limit", type=click.IntRange(0, 100_000), help="How many differing rows are named (20).")
_NAMES = click.option("--names", type=click.Choice(["as-is", "lower", "snake"]),
                      help="How tables and columns are called in the target (as-is).")  # fmt: skip
_MATCH_NAMES = click.option("--match-names", type=click.Choice(["exact", "loose"]),
                            help="loose: letter case and underscores of names do not matter (exact).")  # fmt: skip
_TRIGGERS = click.option("--target-triggers", type=click.Choice(["fire", "disable"]),
                         help="What to do about user triggers and rules of target tables.")  # fmt: skip

_MAX_QUARANTINED = click.option("--max-quarantined", type=click.IntRange(min=0), metavar="N",
                                help="Stop, resumably, before more rows than that are set aside (1,000).")  # fmt: skip
_MAX_DEDUP_MB = click.option("--max-dedup-mb", type=click.FloatRange(min=0, min_open=True), metavar="N",
                             help="Megabytes for the keys of all dedups; more keys go to files in TMPDIR (268)."
                             )  # fmt: skip
_SETTING_ASIDE = _stack(
    click.option("--on-error", type=click.Choice(["refuse", "quarantine"]),
                 help="What becomes of rows that cannot be carried: the job stops, or they are set aside (refuse)."),
    _MAX_QUARANTINED,
)  # fmt: skip
_HOLDING_BACK = _stack(
    click.option("--max-rows-per-s", type=click.FloatRange(min=0), metavar="N",
                 help="Rows per second, of all workers of this process together."),
    click.option("--max-mb-per-s", type=click.FloatRange(min=0), metavar="N",
                 help="Megabytes per second, of all workers of this process together."),
    click.option("--pause-while", multiple=True, metavar="SIDE:SQL",
                 help="Pause while this query is true: source:SQL or target:SQL, for where it is asked (repeatable)."),
    click.option("--max-pause-s", type=click.FloatRange(min=0), metavar="SECONDS",
                 help="Stop, resumably, after a pause of so long (21,600)."),
    click.option("--max-errors", metavar="N/60s", help="Stop after so many failed tries of chunks in so long."),
    click.option("--max-refused", metavar="N/60s", help="Stop after so many rows were set aside in so long."),
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="rowferry %(version)s")
def cli() -> None:
    """Carries rows from one database to another, and proves that they arrived.

    URLs: postgresql://user@host/database, mysql://user@host/database (or mariadb://), sqlite:///file.db,
    duckdb:///file.db, parquet:///folder, arrow:///folder (three slashes: a relative path, four: an absolute one).
    """


@cli.command()
@click.argument("source")
@click.argument("target")
@_SELECTING
@_WORKERS
@click.option("--mode", type=click.Choice(MODES), help="What to do with tables that are there (create).")
@_NAMES
@click.option("--verify/--no-verify", "verify", default=None, help="Re-read the target and compare digests.")
@click.option("--job", metavar="NAME", help="Name the job; a finished job of this name is not run again.")
@click.option("--join", is_flag=True, help="Add this process's workers to the job that runs.")
@click.option("--require-snapshot", is_flag=True, help="Refuse unless all tables can be read in one snapshot.")
@_TRIGGERS
@_LIMIT
@_SETTING_ASIDE
@click.option("--keep-duplicates", metavar="FILE.parquet", type=click.Path(dir_okay=False),
              help="Write the rows that a dedup leaves out to this file.")  # fmt: skip
@_MAX_DEDUP_MB
@_HOLDING_BACK
@_SHOWING
@click.pass_obj
def copy(redact: redaction.Redactor, /, source: str, target: str, verify: bool | None, **options: Any) -> int:
    """Copies tables from SOURCE to TARGET; the same command again continues a copy that was cut short."""
    from rowferry import api, printout

    arguments = _arguments(options) | {"verify": bool(verify), "no_verify": verify is False}
    with _Run(redact, "copy", source, target, options) as run:
        run.call(partial(api.copy, source, target, **arguments), printout.copy_lines)
    return run.exit_code


@cli.command()
@click.argument("source")
@click.argument("target")
@_SELECTING
@_WORKERS
@_MATCH_NAMES
@click.option("--contained", is_flag=True, help="Ask only that every source row is in the target.")
@click.option("--repair", is_flag=True, help="Make the target equal, then verify again.")
@click.option("--delete-extra", is_flag=True, help="With --repair: also delete rows that the source has not.")
@click.option("--independent", is_flag=True, help="Read PostgreSQL with a second, independent decoder.")
@_MAX_DEDUP_MB
@_TRIGGERS
@_LIMIT
@_SHOWING
@click.pass_obj
def verify(redact: redaction.Redactor, /, source: str, target: str, **options: Any) -> int:
    """Compares SOURCE and TARGET row by row and names what differs; they may have been filled by any tool."""
    from rowferry import api, printout

    arguments = _arguments(options)
    with _Run(redact, "verify", source, target, options) as run:
        run.call(partial(api.verify, source, target, **arguments), printout.verify_lines)
    return run.exit_code


@cli.command()
@click.argument("source")
@click.argument("target")
@_SELECTING
@_WORKERS
@click.option("--mode", type=click.Choice(MODES), help="The mode that copy would be given (create).")
@_NAMES
@_SETTING_ASIDE
@_TRIGGERS
@click.pass_obj
def plan(redact: redaction.Redactor, /, source: str, target: str, **options: Any) -> int:
    """Says what copy would do, what could go wrong and how long it would take; writes nothing."""
    from rowferry import api, printout

    report = _report_path(options["report"])
    with _naming(options["config"]):
        found = api.plan(source, target, **_arguments(options))
    if report is not None:
        _write(report, redact.data(found.to_json()))
    _print(redact, printout.plan_lines(found))
    code: int = found.exit_code
    return _say(redact, "copy would refuse this, for what stands above", code) if code else code


@cli.command()
@click.argument("target")
@click.argument("job", required=False)
@click.option("--source", metavar="URL", help="The source, where the ledger's URL (it holds no password) will not do.")
@click.option("--ledger-schema", metavar="NAME", help="The PostgreSQL schema of the ledger (rowferry).")
@click.option("--verify/--no-verify", "verify", default=None, help="As for copy.")
@click.option("--join", is_flag=True, help="Add this process's workers to the job that runs.")
@_WORKERS
@_REPORT
@_MAX_QUARANTINED
@_MAX_DEDUP_MB
@_HOLDING_BACK
@_SHOWING
@click.pass_obj
def resume(redact: redaction.Redactor, /, target: str, job: str | None, verify: bool | None, **options: Any) -> int:
    """Continues an unfinished job of TARGET's ledger: the latest, or JOB."""
    from rowferry import api, printout

    arguments = _arguments(options)
    if verify is not None:
        arguments |= {"verify": verify, "no_verify": not verify}
    with _Run(redact, "resume", options["source"] or "", target, options) as run:
        run.call(partial(api.resume, target, job, **arguments), printout.copy_lines)
    return run.exit_code


@cli.command("retry-quarantined")
@click.argument("target")
@click.argument("job", required=False)
@click.option("--ledger-schema", metavar="NAME", help="The PostgreSQL schema of the ledger (rowferry).")
@_REPORT
@_SHOWING
@click.pass_obj
def retry_quarantined(redact: redaction.Redactor, /, target: str, job: str | None, **options: Any) -> int:
    """Sends rows of TARGET's quarantine again, of one JOB or of all, once their cause was mended."""
    from rowferry import api, printout

    arguments = _arguments(options)
    with _Run(redact, "retry-quarantined", "", target, options) as run:
        run.call(partial(api.retry_quarantined, target, job, **arguments), printout.retry_lines)
    return run.exit_code


@cli.command()
@click.argument("target")
@click.option("--ledger-schema", metavar="NAME", help="The PostgreSQL schema of the ledger (rowferry).")
@click.pass_obj
def jobs(redact: redaction.Redactor, /, target: str, **options: Any) -> int:
    """Lists the jobs of TARGET's ledger."""
    from rowferry import api, printout

    found = api.jobs(target, **_arguments(options))
    _print(redact, printout.job_lines(found))
    unreadable = sum(1 for job in found if job.problem)
    if not unreadable:
        return 0
    return _say(redact, f"{unreadable} of {len(found)} jobs of this ledger cannot be read", LedgerError.exit_code)


# --- running ---------------------------------------------------------------------------------

#: Options that are the command line's own and not arguments of the API.
_OWN = ("report", "quiet", "log_json", "limit", "config")


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as arguments of the API; what was not given comes from --config
    where that says it, else from the API's defaults."""
    given = {k: v for k, v in options.items() if k not in _OWN and v is not None and v is not False and v != ()}
    if "policies" in given:
        given["policies"] = dict(_policy(text) for text in given["policies"])
    if "pause_while" in given:
        given["pause_while"] = tuple(_signal(text) for text in given["pause_while"])
    if options.get("limit") is not None:
        given["named_max"] = options["limit"]
    if options.get("config"):
        read = _configured(options["config"], set(options))
        given = {k: v for k, v in read.items() if k != "wheres" or "where" not in given} | given
    return given


def _configured(path: str, known: set[str]) -> dict[str, Any]:
    """The arguments that a job.toml holds, for a command that knows these options."""
    from rowferry import config

    read = config.load(path)
    settings = ("tables", "mode", "names", "match_names", "workers", "policies", "on_error",
                "max_quarantined", "keep_duplicates", "max_dedup_mb", "max_rows_per_s", "max_mb_per_s", "max_pause_s",
                "max_errors", "max_refused")  # fmt: skip
    arguments = {k: v for k in settings if (v := getattr(read, k)) not in (None, (), {}) and k in known}
    if read.pause_while and "pause_while" in known:
        arguments["pause_while"] = tuple((p.side, p.sql) for p in read.pause_while)
    if read.table:
        arguments |= {"specs": read.table, "folder": os.path.dirname(os.path.abspath(path))}
    return arguments | ({"wheres": read.where} if read.where else {})


def _signal(text: str) -> tuple[str, str]:
    if text == "none":
        return ("none", "")
    side, colon, sql = text.partition(":")
    if not colon or side not in ("source", "target") or not sql.strip():
        raise ConfigError(f"--pause-while {text!r} is not source:SQL or target:SQL")
    return side, sql


def _policy(text: str) -> tuple[str, str]:
    column, equals, policy = text.rpartition("=")
    if not equals or not column or not policy:
        raise ConfigError(f"--policy {text!r} is not TABLE.COLUMN=POLICY")
    return column, policy


def _report_path(path: str | None) -> str | None:
    """Refuses now what could not be written hours later."""
    if path is None:
        return None
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ConfigError(f"the report {path!r} cannot be written", hint="its folder must be there and writable")
    return path


def _write(path: str, data: dict[str, Any]) -> None:
    from rowferry.engine import report

    try:
        report.write(path, data)
    except OSError as error:
        raise ConfigError(f"the report {path!r} could not be written: {error.strerror}") from None


def _print(redact: redaction.Redactor, lines: Sequence[str]) -> None:
    """A reader that went away (``| head``) changes nothing: what was asked for is done."""
    try:
        for line in lines:
            sys.stdout.write(redact(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _naming(config: str | None) -> Iterator[None]:
    """Errors about the rules of a table name the file that they were read from."""
    try:
        yield
    except RowferryError as error:
        if error.of_rules:
            error.config = config
        raise


class _Run:
    """One copy, verify or resume: progress, signals, the report, and what is printed at the end."""

    def __init__(
        self, redact: redaction.Redactor, command: str, source: str, target: str, options: dict[str, Any]
    ) -> None:
        from rowferry.engine import sinks

        self._redact = redact
        self._command = command
        self._source = source
        self._target = target
        self._config = options.get("config")
        self._report_path = _report_path(options["report"])
        self._silent = options["quiet"] or options["log_json"]
        if options["quiet"] and options["log_json"]:
            raise ConfigError("--quiet and --log-json exclude each other")
        self._stop = threading.Event()
        self._sink = sinks.make(sys.stdout, quiet=options["quiet"], log_json=options["log_json"], scrub=redact)
        self._signals = _stopping(self._stop)
        self._finished = False
        self.exit_code = 0

    def __enter__(self) -> _Run:
        self._signals.__enter__()
        self._sink.__enter__()
        return self

    def _event(self, event: Any) -> None:
        from rowferry.engine.progress import JobFinished

        self._finished = self._finished or isinstance(event, JobFinished)
        self._sink(event)

    def call(self, function: Callable[..., Any], lines: Callable[[Any], list[str]]) -> None:
        """Runs it; a difference that was found is a result to be shown, like any other."""
        try:
            with _naming(self._config):
                report = function(on_event=self._event, stop=self._stop)
        except DifferenceError as error:
            if error.report is None:
                raise
            report = error.report
        self._result(report, lines)

    def _result(self, report: Any, lines: Callable[[Any], list[str]]) -> None:
        """Prints and writes what came out."""
        from rowferry.engine.progress import JobFinished

        if not self._finished:
            self._event(JobFinished(report))
        self._sink.__exit__(None, None, None)
        self.exit_code = report.exit_code
        if not self._silent:
            _print(self._redact, lines(report))
        if self._report_path is not None:
            _write(self._report_path, self._redact.data(report.to_json()))
        if report.exit_code:
            _say(self._redact, report.error or _why(report), report.exit_code)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._sink.__exit__(None, None, None)
        self._signals.__exit__(None, None, None)
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """The report of a run that failed, for the log and the file; the error itself goes on to ``_run``."""
        if isinstance(error, StoppedError) and error.hint is None:
            error.hint = "the same command goes on where it stopped"
        if not isinstance(error, Exception):
            return
        from rowferry.engine.progress import JobFinished
        from rowferry.engine.report import Report

        code = error.exit_code if isinstance(error, RowferryError) else EXIT_BUG
        known: Report = getattr(error, "report", None) or Report(
            self._command, _safe(self._source), _safe(self._target)
        )
        status = known.status if known.status != "ok" else "stopped" if code == EXIT_STOPPED else "failed"
        message = " ".join(str(error).split())
        report = msgspec.structs.replace(known, status=status, exit_code=code, error=message)
        if not self._finished:
            self._event(JobFinished(report))
        if self._report_path is None:
            return
        try:
            _write(self._report_path, self._redact.data(report.to_json()))
        except ConfigError as problem:  # what stopped the run is the exit code; this is said beside it
            _say(self._redact, str(problem), problem.exit_code)


def _why(report: Any) -> str:
    """Why a run that ended in order exits with 1."""
    from rowferry import printout

    for table in report.tables:
        if table.equal is False:
            return f"source and target differ: table {table.target!r}: {printout.differences(table)}"
        unclosed = table.unclosed() if report.command not in ("verify", "retry-quarantined") else None
        if unclosed:
            return f"the counts do not close: table {table.source!r}: {unclosed}"
    return f"the run ended as {report.status!r}"


def _safe(url: str) -> str:
    from rowferry import endpoint

    try:
        return endpoint.parse(url).safe_url if url else ""
    except ConfigError:
        return ""


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the job to stop at the next safe place; a second SIGINT kills."""

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, kill)

    def kill(number: int, frame: FrameType | None) -> None:
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h")  # the live display had hidden the cursor
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
