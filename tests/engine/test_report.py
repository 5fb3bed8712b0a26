"""The report: JSON with every field of the design, there and back."""

import json
import pathlib

import pytest

from rowferry.engine import report as reports
from rowferry.engine.report import PlannedTable, PlanReport, Report, RowDifference, TableReport
from rowferry.model import Digest, Refusal

FULL = Report(
    "copy", "sqlite:///a", "duckdb:///b", job="j", mode="append", status="different", exit_code=1, error="e",
    snapshot="one", seconds=1.5, workers=2, notes=("n",),
    tables=(
        TableReport(
            "s.t", "t", rows_read=10, rows_sent=10, rows_committed=10, bytes=800, seconds=0.5,
            digest_read=Digest(10, 2**127 + 3), digest_sent=Digest(10, 2**128 - 1), schema_id="abc", rules=("r",),
            equal=False, missing=1, extra=0, changed=1, chunks=3, chunks_taken_over=1, retries=2, touched={"c": 4},
            named=(
                RowDifference("changed", {"id": "1"}, {"v": "a"}, {"v": None}), RowDifference("missing", {"id": "2"}),
            ),
        ),
    ),
)  # fmt: skip


def test_report_goes_to_json_and_back() -> None:
    assert Report.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


def test_json_has_every_field_that_the_design_names() -> None:
    data = FULL.to_json()
    assert {"job", "source", "target", "snapshot", "seconds", "tables", "status", "exit_code", "error"} <= set(data)
    (table,) = data["tables"]
    counts = ("read", "generated", "sent", "filtered", "deduplicated", "quarantined", "committed")
    wanted = {f"rows_{c}" for c in counts} | {f"digest_{d}" for d in ("read", "sent", "target")}
    wanted |= {"source", "target", "bytes", "seconds", "schema_id", "rules", "missing", "extra", "changed", "chunks"}
    wanted |= {"chunks_taken_over", "retries", "touched", "named"}
    assert wanted <= set(table)
    assert table["digest_sent"] == "10:" + "f" * 32
    assert table["digest_target"] is None


@pytest.mark.parametrize(
    ("counts", "closed"),
    [
        ({"rows_read": 5, "rows_sent": 5, "rows_committed": 5}, True),
        ({"rows_read": 5, "rows_generated": 2, "rows_sent": 4, "rows_filtered": 1, "rows_deduplicated": 1,
          "rows_quarantined": 1, "rows_committed": 4}, True),
        ({"rows_read": 5, "rows_sent": 4, "rows_committed": 4}, False),
        ({"rows_read": 5, "rows_sent": 5, "rows_committed": 4}, False),
    ],
)  # fmt: skip
def test_counts_close_or_say_where_not(counts: dict[str, int], closed: bool) -> None:
    assert (TableReport("t", "t", **counts).unclosed() is None) == closed  # type: ignore[arg-type]


def test_plan_refuses_for_each_reason_alone() -> None:
    assert PlanReport("a", "b", "create").exit_code == 0
    refusal = Refusal("c", "no form", 5, ("text",))
    for refused in (
        PlanReport("a", "b", "create", tables=(PlannedTable("t", "t", refusals=(refusal,)),)),
        PlanReport("a", "b", "create", blockers=("not empty",)),
        PlanReport("a", "b", "create", missing_privileges=("INSERT on t",)),
    ):
        assert refused.exit_code == 2
        assert json.loads(json.dumps(refused.to_json()))["exit_code"] == 2


def test_write_replaces_the_file_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    reports.write(str(path), {"text": "lone \udcff surrogate", "é": 1})
    assert json.loads(path.read_text())["é"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    with pytest.raises(OSError, match="absent"):
        reports.write(str(tmp_path / "absent" / "r.json"), {})
