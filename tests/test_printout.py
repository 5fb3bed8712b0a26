"""What is printed at the end: rows, verdicts, differing rows with their ends visible."""

from rowferry import printout
from rowferry.engine.report import (
    JobSummary,
    PlannedColumn,
    PlannedTable,
    PlanReport,
    Report,
    RowDifference,
    TableReport,
)
from rowferry.model import Digest, Refusal


def table(**more: object) -> TableReport:
    d = Digest(336_776, 5)
    base = {"rows_read": 336_776, "rows_sent": 336_776, "rows_committed": 336_776, "seconds": 0.5, "bytes": 10**8}
    return TableReport("flights", "flights", digest_read=d, digest_sent=d, **(base | more))  # type: ignore[arg-type]


def test_copy_shows_rows_speed_and_equal_digests() -> None:
    verified = table(equal=True, digest_target=Digest(336_776, 5))
    report = Report("copy", "a", "b", seconds=1.0, snapshot="one", tables=(verified,))
    text = "\n".join(printout.copy_lines(report))
    assert "336,776" in text
    assert "673,552" in text, "rows/s of a worker"
    assert "equal" in text
    summary = "1 table, 336,776 rows in 1.0 s, 336,776 rows/s; digests equal; snapshot: one"
    assert printout.copy_summary(report) == summary


def test_copy_without_verification_does_not_claim_it() -> None:
    text = "\n".join(printout.copy_lines(Report("copy", "a", "b", tables=(table(),))))
    assert "not verified" in text
    assert "digests equal" not in text


def test_differences_are_named_with_both_values_and_visible_ends() -> None:
    rows = (
        RowDifference(
            "changed", {"id": "777"}, {"id": "777", "v": "abc", "w": "same"}, {"id": "777", "v": "abc ", "w": "same"}
        ),
        RowDifference("missing", {"id": "123456"}, {"id": "123456", "v": None}),
        RowDifference("extra", {"id": "999999"}, None, {"id": "999999", "v": "x\n" * 100}),
    )
    report = Report("verify", "a", "b", tables=(table(equal=False, missing=1, extra=1, changed=5, named=rows),))
    lines = printout.verify_lines(report)
    text = "\n".join(lines)
    assert 'v "abc" → "abc "' in text
    assert "same" not in text, "columns that agree are not repeated"
    assert 'missing  id="123456": v=NULL' in text
    assert "(200 characters)" in text
    assert "… and 4 more" in text
    assert "DIFFERENT" in text
    assert all("\n" not in line for line in lines)


def test_plan_shows_types_estimates_and_refusals() -> None:
    column = PlannedColumn("n", "numeric", "n", "VARCHAR", policy="text", rules=("as text",))
    refusal = Refusal("x\n", "timetz has no form", 12, ("text", "skip"))
    planned = PlannedTable("t", "u", 1_000, 10**6, 2, columns=(column,), refusals=(refusal,))
    plan = PlanReport("a", "b", "create", (planned,), missing_privileges=("INSERT on t",), seconds=3.2)
    text = "\n".join(printout.plan_lines(plan))
    for wanted in ("t → u", "about 1,000 rows", "numeric", "VARCHAR", "policy text", "REFUSED", "12 rows", "text, skip",
                   "INSERT on t", "copy would refuse", "about 3 s"):  # fmt: skip
        assert wanted in text


def test_jobs_are_listed() -> None:
    assert printout.job_lines([]) == ["no jobs"]
    lines = printout.job_lines([JobSummary("id1", "name", "running", "2026", "a", "b", "create", 1, 10, 4, 500, True)])
    assert "name (id1)" in lines[1]
    assert "4/10" in lines[1]


def test_alignment_counts_wide_and_combining_characters() -> None:
    lines = printout.aligned(None, [("数据", "x"), ("é́a", "x"), ("abcd", "x")])
    assert [line.index("x") for line in lines] == [4, 7, 6]
