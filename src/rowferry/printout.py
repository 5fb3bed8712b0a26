"""What the command line prints at the end of a run: plain text, aligned, the same in a pipe as at a terminal."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterable, Sequence

from rowferry.engine.progress import count, plural, printable, rate
from rowferry.engine.report import JobSummary, PlannedTable, PlanReport, Report, RowDifference, Sample, TableReport

#: Characters of one value that are shown of a differing row; the report holds all of it.
VALUE_SHOWN_MAX = 80
#: Tables that the table at the end of a copy lists; with more, those that went well are summed up.
TABLES_SHOWN_MAX = 200


def copy_lines(report: Report) -> list[str]:
    """The table at the end of a copy: rows, how fast they came, whether digests are equal."""
    shown = list(report.tables)
    if len(shown) > TABLES_SHOWN_MAX:
        shown = [t for t in shown if t.equal is False or t.unclosed()][:TABLES_SHOWN_MAX]
    rows = [
        (
            _arrow_name(t),
            count(t.rows_committed),
            # Where chunks were taken over, this run's seconds are not those of all rows.
            rate(t.rows_committed, t.seconds) if not t.chunks_taken_over else "",
            f"{t.bytes / t.seconds / 1e6:,.1f}" if t.seconds > 0 and t.bytes and not t.chunks_taken_over else "",
            _verdict(t),
            _remarks(t),
        )
        for t in shown
    ]
    lines = aligned(("table", "rows", "rows/s", "MB/s", "digests", ""), rows, right=(1, 2, 3)) if rows else []
    if len(shown) < len(report.tables):
        lines.append(f"… and {len(report.tables) - len(shown):,} tables that went well")
    lines += difference_lines(report)
    return [*lines, *_notes(report.notes, report.snapshot_note), copy_summary(report)]


def copy_summary(report: Report) -> str:
    """One line: ``5 tables, 367,687 rows in 1.3 s, 282,836 rows/s; digests equal; snapshot: one``."""
    tables = plural(len(report.tables), "table")
    rows = report.rows_committed
    speed = f", {rate(rows, report.seconds)} rows/s" if report.seconds > 0 else ""
    verdict = {None: "not verified", True: "digests equal", False: "DIGESTS DIFFER"}[report.equal]
    snapshot = f"; snapshot: {report.snapshot}" if report.snapshot else ""
    return f"{tables}, {count(rows)} rows in {report.seconds:.1f} s{speed}; {verdict}{snapshot}"


def retry_lines(report: Report) -> list[str]:
    """What became of quarantined rows that were sent again."""
    rows = [
        (
            _arrow_name(t),
            count(t.rows_read),
            count(t.rows_committed),
            count(t.rows_quarantined),
            "; ".join(
                f"{count(rows)} left out{why}"
                for rows, why in (
                    (t.rows_filtered, " by the transform"),
                    (t.rows_deduplicated, ": rows of the same key have landed"),
                )
                if rows
            ),
        )
        for t in report.tables
    ]
    lines = aligned(("table", "tried", "landed", "stay", ""), rows, right=(1, 2, 3)) if rows else []
    landed = sum(t.rows_committed for t in report.tables)
    left = sum(t.rows_quarantined for t in report.tables)
    said = f"{plural(landed, 'row')} landed, {count(left)} stay" if rows else "the quarantine is empty"
    return [*lines, *_notes(report.notes, None), f"{said}; {report.seconds:.1f} s"]


def verify_lines(report: Report) -> list[str]:
    """What a verification found, table by table, with the first differing rows."""
    rows = [
        (
            _arrow_name(t),
            count(t.digest_read.rows if t.digest_read else t.rows_read) if not t.not_compared else "-",
            count(t.digest_target.rows) if t.digest_target else "-",
            _verdict(t),
            f"repaired {plural(t.repaired, 'row')}" if t.repaired else "",
        )
        for t in report.tables
    ]
    lines = aligned(("table", "source rows", "target rows", "digests", ""), rows, right=(1, 2)) if rows else []
    lines += difference_lines(report)
    rules = sorted({rule for t in report.tables for rule in t.rules})
    lines += [f"under the rule: {printable(rule)}" for rule in rules]
    verdict = {None: "nothing was compared", True: "equal", False: "DIFFERENT"}[report.equal]
    snapshot = f"; snapshot: {report.snapshot}" if report.snapshot else ""
    lines += _notes(report.notes, report.snapshot_note)
    return [*lines, f"{plural(len(rows), 'table')} in {report.seconds:.1f} s: {verdict}{snapshot}"]


def difference_lines(report: Report) -> list[str]:
    """The differing rows, by key, with both values."""
    lines: list[str] = []
    for t in report.tables:
        if t.equal is not False and not t.named:
            continue
        lines.append(f"{printable(t.target)}: {differences(t)}")
        lines += [f"  {_row(row)}" for row in t.named]
        unnamed = t.differences - len(t.named)
        if unnamed > 0:
            lines.append(f"  … and {count(unnamed)} more")
    return lines


def differences(table: TableReport) -> str:
    """``1 missing, 0 extra, 2 changed``."""
    if table.not_compared:
        return f"not compared: {', '.join(map(printable, table.not_compared))}"
    if table.missing is None and table.extra is None and table.changed is None:
        return "digests differ"
    return f"{count(table.missing or 0)} missing, {count(table.extra or 0)} extra, {count(table.changed or 0)} changed"


def _row(row: RowDifference) -> str:
    key = ", ".join(f"{printable(name)}={_value(value)}" for name, value in row.key.items())
    times = f" ({row.count} times)" if row.count != 1 else ""
    if row.kind == "changed" and row.source is not None and row.target is not None:
        names = [n for n in row.source if row.source[n] != row.target.get(n)] or list(row.source)
        what = ", ".join(f"{printable(n)} {_value(row.source[n])} → {_value(row.target.get(n))}" for n in names)
    else:
        values = row.source if row.source is not None else row.target or {}
        what = ", ".join(f"{printable(n)}={_value(v)}" for n, v in values.items() if n not in row.key)
    return f"{row.kind:<8} {key}{times}{': ' if what and key else ''}{what}"


def _value(value: str | None) -> str:
    """A value with its ends visible: in quotes, control characters escaped, cut when it is long."""
    if value is None:
        return "NULL"
    cut = value if len(value) <= VALUE_SHOWN_MAX else value[: VALUE_SHOWN_MAX - 1] + "…"
    more = "" if cut == value else f" ({len(value):,} characters)"
    return printable(json.dumps(cut, ensure_ascii=False)) + more


def plan_lines(plan: PlanReport) -> list[str]:
    """Types, estimates, chunks, refusals: all that a copy would do."""
    lines = [f"{plan.mode}: {plan.source} to {plan.target}; snapshot: {plan.snapshot or 'unknown'}"]
    for t in plan.tables:
        lines += ["", *_plan_table(t)]
    if plan.missing_privileges or plan.blockers:
        lines.append("")
    lines += [f"blocked: {printable(b)}" for b in plan.blockers]
    lines += [f"missing privilege: {printable(p)}" for p in plan.missing_privileges]
    lines += ["", *_notes(plan.notes, None)]
    rows, size = sum(t.rows for t in plan.tables), sum(t.bytes for t in plan.tables)
    how_long = f", about {plan.seconds:,.0f} s" if plan.seconds is not None else ""
    chunks = sum(t.chunks for t in plan.tables)
    verdict = "copy would refuse" if plan.refused else "nothing stands in the way"
    size_words = f"about {count(rows)} rows, {size / 1e6:,.1f} MB, {plural(chunks, 'chunk')}{how_long}"
    lines.append(f"{plural(len(plan.tables), 'table')}, {size_words}; {verdict}")
    return lines


def _plan_table(t: PlannedTable) -> list[str]:
    name = printable(t.source) if t.source == t.target else f"{printable(t.source)} → {printable(t.target)}"
    key = f", key {', '.join(map(printable, t.key))}" if t.key else ", no key"
    there = ", the target table stands already" if t.exists else ""
    lines = [f"{name}: about {count(t.rows)} rows, {t.bytes / 1e6:,.1f} MB, {plural(t.chunks, 'chunk')}{key}{there}"]
    columns = [
        (
            "",
            printable(c.source) if c.source == c.target else f"{printable(c.source)} → {printable(c.target)}",
            printable(c.source_type),
            printable(c.target_type),
            printable("; ".join([*([f"policy {c.policy}"] if c.policy else []), *c.rules])),
        )
        for c in t.columns
    ]
    lines += aligned(None, columns)
    lines += [f"  {printable(sentence)}" for sentence in t.passes]
    for r in t.refusals:
        column = f"column {printable(repr(r.column))}: " if r.column is not None else ""
        rows = "" if r.count is None else f" ({count(r.count)} rows)"
        choices = f"; policies to choose from: {', '.join(r.policies)}" if r.policies else ""
        lines.append(f"  REFUSED {column}{printable(r.reason)}{rows}{choices}")
    for sample in t.samples:
        lines += _sample(sample)
    return lines


def _sample(sample: Sample) -> list[str]:
    """A row before and after: columns that stay as they are are shown before alone."""
    lines = [f"  before  {_values(sample.before)}"]
    for after in sample.after:
        changed = {k: v for k, v in after.items() if k not in sample.before or sample.before[k] != v}
        gone = [k for k in sample.before if k not in after]
        without = f"  without {', '.join(map(printable, gone))}" if gone else ""
        lines.append(f"  after   {_values(changed) if changed else 'unchanged'}{without}")
    if sample.problem is not None:
        lines.append(f"  after   REFUSED: {printable(sample.problem)}")
    elif not sample.after:
        lines.append("  after   left out")
    elif sample.rows > len(sample.after):
        lines.append(f"          and {count(sample.rows - len(sample.after))} more rows")
    return lines


def _values(row: dict[str, str | None]) -> str:
    return "  ".join(f"{printable(k)}={'NULL' if v is None else printable(repr(v))}" for k, v in row.items())


def job_lines(jobs: Sequence[JobSummary]) -> list[str]:
    """One line for each job of a ledger, oldest first."""
    if not jobs:
        return ["no jobs"]
    rows = [
        (
            j.name if j.name == j.id or not j.name else f"{j.name} ({j.id})",
            f"{j.state}{' (at work)' if j.alive and j.state != 'finished' else ''}",
            j.created,
            j.mode,
            f"{count(j.chunks_done)}/{count(j.chunks)}" if not j.problem else "?",
            count(j.rows_committed) if not j.problem else "?",
            f"UNREADABLE: {printable(j.problem)}" if j.problem else f"{printable(j.source)} → {printable(j.target)}",
        )
        for j in jobs
    ]
    return aligned(("job", "state", "created", "mode", "chunks", "rows", "way"), rows, right=(4, 5))


def _arrow_name(t: TableReport) -> str:
    name = t.source if t.source == t.target else f"{t.source} → {t.target}"
    return printable(name)


def _verdict(t: TableReport) -> str:
    digest = t.digest_target or t.digest_sent or t.digest_read
    short = f" ({digest.sum:032x}"[:10] + "…)" if digest is not None else ""
    if t.equal is None:
        if t.digest_sent is not None and t.digest_read == t.digest_sent:
            return "read = sent" + short
        return "-"
    if not t.equal:
        return "DIFFERENT"
    # A set that is contained in another has not the same digest as the whole.
    same = t.digest_target is None or t.digest_target in (t.digest_sent, t.digest_read)
    return ("equal" + short) if same else "contained"


def _remarks(t: TableReport) -> str:
    said = []
    if t.chunks_taken_over:
        said.append(f"{count(t.chunks_taken_over)} of {count(t.chunks)} chunks taken over")
    if t.retries:
        said.append(plural(t.retries, "retry"))
    if t.touched:
        said.append("touched by policy: " + ", ".join(f"{printable(c)} {count(n)}" for c, n in t.touched.items()))
    said += _changes(t)
    unclosed = t.unclosed()
    if unclosed:
        said.append(unclosed)
    return "; ".join(said)


def _changes(t: TableReport) -> list[str]:
    """What became of rows that were read and not sent, and how many came from elsewhere, where any did."""
    counts = [
        (t.rows_generated, "generated"),
        (t.rows_filtered, "filtered"),
        (t.rows_deduplicated, "deduplicated"),
        (t.rows_quarantined, "quarantined"),
        (t.rows_fed, "to further tables"),
    ]
    said = [f"{count(n)} {what}" for n, what in counts if n]
    return [", ".join([f"{count(t.rows_read)} read", *said])] if said else []


def _notes(notes: Iterable[str], snapshot_note: str | None) -> list[str]:
    return [f"note: {printable(n)}" for n in [*notes, *([snapshot_note] if snapshot_note else [])]]


def aligned(head: Sequence[str] | None, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns under each other; ``right``: the indexes of columns that are set to the right.

    Long cells are not cut: a terminal wraps them, a pipe keeps them. Only the widths are bounded.
    """
    everything = [*([head] if head else []), *rows]
    if not everything:
        return []
    limit = max(20, shutil.get_terminal_size((120, 24)).columns // 2)
    widths = [min(limit, max(_width(row[i]) for row in everything)) for i in range(len(everything[0]))]
    lines = []
    for row in everything:
        cells = []
        for index, cell in enumerate(row):
            fill = " " * max(0, widths[index] - _width(cell))
            cells.append(fill + cell if index in right else cell + fill)
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Cells of a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
