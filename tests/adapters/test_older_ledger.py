"""A ledger that an older version made has no counts: its unfinished jobs can be read, and gone on with."""

from __future__ import annotations

import pytest

from adapters import contract
from adapters.contract import JOB
from adapters.quirks import Quirks
from adapters.test_contract import batch_of, ferry_to


@pytest.mark.engines("sqlite", "duckdb", "postgres", "mysql")  # of files, a chunk's row is in its file as it was
def test_a_ledger_without_counts_is_read_as_it_is_and_gone_on_with(engine: Quirks) -> None:
    url = engine.url()
    with ferry_to(url, engine, waves=(0, 0)) as ferry:
        first = ferry.carry(batch_of(20))
    schema = "rowferry." if engine.engine == "postgres" else "rowferry_"
    engine.execute(url, f"ALTER TABLE {schema}chunks DROP COLUMN counts")
    with contract.target_at(url, read_only=True) as target:
        assert target.ledger.open(create=False)
        done, todo = target.ledger.chunks(JOB)
        assert (done.state, done.rows_committed, done.counts, todo.state) == ("done", 20, {}, "todo")
    with contract.target_at(url) as target:
        assert target.ledger.open(create=False)
        assert target.ledger.open(create=True)
        contract.Ferry(target, ferry.table, ferry.columns).carry(batch_of(20, 20))
        chunks = target.ledger.chunks(JOB)
    assert [c.counts.get("filtered") for c in chunks] == [None, 3]
    assert first.number == 0
    assert [r[0] for r in engine.rows(url, "t")] == list(range(40))
