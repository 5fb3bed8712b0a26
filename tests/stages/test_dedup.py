"""The dedup stage against a row-by-row model: claims, tries that are rolled back, winners, odd values in keys."""

from __future__ import annotations

import pathlib
import random
import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry.errors import ConfigError, TargetError
from rowferry.model import Comparison
from rowferry.stages.dedup import Keys, TableDedup, way_of
from rowferry.stages.digest import Digester, compare
from rowferry.stages.spec import Dedup
from rowferry.types import Type

TYPES = {"k": Type("int64"), "f": Type("float64"), "t": Type("text")}
SCHEMA = pa.schema([pa.field(name, t.arrow) for name, t in TYPES.items()])


def comparisons() -> list[Comparison]:
    found = [compare(t, t, source_engine="postgres", target_engine="duckdb") for t in TYPES.values()]
    return [c for c in found if c is not None]


def batch_of(rows: list[tuple[object, object, object]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    arrays = [pa.array(list(c), f.type, from_pandas=False) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def table_of(by: tuple[str, ...] = ("k",), memory_bytes: int = 1 << 20, **more: object) -> TableDedup:
    return TableDedup(Dedup(by=by), list(TYPES), comparisons(), memory_bytes, **more)  # type: ignore[arg-type]


def rows_of(batch: pa.RecordBatch) -> list[tuple[object, ...]]:
    return list(zip(*(c.to_pylist() for c in batch.columns), strict=True))


def model_key(row: tuple[object, ...], by: tuple[str, ...]) -> tuple[object, ...]:
    """As SQL's DISTINCT: NaN is like NaN, −0.0 like 0.0, NULL like NULL."""
    values = [v for name, v in zip(TYPES, row, strict=True) if not by or name in by]
    return tuple("nan" if isinstance(v, float) and v != v else v for v in values)


values = st.tuples(
    st.one_of(st.none(), st.integers(0, 4)),
    st.sampled_from([None, 0.0, -0.0, 1.5, float("nan")]),
    st.sampled_from([None, "", "a", "A"]),
)


@given(st.lists(st.lists(values, max_size=12), max_size=6), st.sampled_from([(), ("k",), ("f",), ("t", "k")]))
@settings(max_examples=150, deadline=None)
def test_filter_any_keeps_the_first_of_each_key(parts: list[list], by: tuple[str, ...]) -> None:  # type: ignore[type-arg]
    table = table_of(by)
    seen: set[tuple[object, ...]] = set()
    for number, rows in enumerate(parts):
        one = table.begin(number)
        kept = rows_of(one.filter(batch_of(rows)))
        expected = []
        for row in rows:
            if model_key(row, by) not in seen:
                seen.add(model_key(row, by))
                expected.append(row)
        assert [repr(r) for r in kept] == [repr(r) for r in expected]
        assert one.dropped == len(rows) - len(expected)
        one.commit()
    table.close()


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 5]),
    st.integers(1, 12),
    st.floats(0, 0.8),
)
@settings(max_examples=40, deadline=None)
def test_chunks_that_roll_back_and_die_leave_one_row_of_each_key(
    seed: int, workers: int, chunk_count: int, failing: float
) -> None:
    """Threads take chunks in any order; tries fail; the process dies and is begun again with what was committed."""
    rng = random.Random(seed)
    chunks = [
        [(rng.randrange(15), 0.5, f"{number}/{i}") for i in range(rng.randrange(10))] for number in range(chunk_count)
    ]
    wanted = {row[0] for chunk in chunks for row in chunk}
    committed: dict[int, list[tuple[object, ...]]] = {}
    lock = threading.Lock()
    for life in range(4):
        table = table_of()
        keys = table.keys()
        for rows in committed.values():
            table.know(keys.of(batch_of(rows)))  # type: ignore[arg-type]
        todo = [n for n in range(chunk_count) if n not in committed]
        rng.shuffle(todo)
        lives = [random.Random(f"{seed} {life} {worker}") for worker in range(workers)]

        def work(
            chance: random.Random, table: TableDedup = table, todo: list[int] = todo, last: bool = life == 3
        ) -> None:
            while True:
                with lock:
                    if not todo or (not last and chance.random() < 0.15):
                        return  # killed here: what is claimed and not committed is forgotten
                    number = todo.pop()
                one = table.begin(number)
                kept = rows_of(one.filter(batch_of(chunks[number])))
                if chance.random() < failing and not last:
                    one.rollback()
                    with lock:
                        todo.append(number)
                    continue
                with lock:
                    committed[number] = kept
                one.commit()

        threads = [threading.Thread(target=work, args=(chance,)) for chance in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        table.close()
    kept = [row for rows in committed.values() for row in rows]
    assert len(committed) == chunk_count
    assert sorted(row[0] for row in kept) == sorted(wanted)
    assert set(kept) <= {row for chunk in chunks for row in chunk}


def test_filter_with_winners_keeps_them_and_rows_without_rivals_and_one_of_twins() -> None:
    rows = [(1, 1.0, "loses"), (1, 2.0, "wins"), (2, 0.0, "alone"), (1, 2.0, "wins"), (3, 0.0, "x"), (3, 0.0, "x")]
    table = table_of(ranked=True)
    names = list(TYPES)
    chosen = batch_of([rows[1], rows[4]])
    keys = Keys(names, comparisons(), ("k",)).of(chosen)
    table.rank(keys, Digester(comparisons(), "target").rows(chosen)[1])
    one, other = table.begin(0), table.begin(1)
    assert rows_of(one.filter(batch_of(rows[:3]))) == rows[1:3]
    assert rows_of(other.filter(batch_of(rows[3:]))) == [rows[4]]
    assert (one.dropped, other.dropped) == (1, 2)
    # The first chunk is rolled back: its next try has its rows again, and others do not.
    one.rollback()
    assert rows_of(table.begin(2).filter(batch_of(rows[3:4]))) == []
    assert rows_of(table.begin(0).filter(batch_of(rows[:3]))) == rows[1:3]
    # Known from the target: the twin is a duplicate for everybody.
    again = table_of(ranked=True)
    again.rank(keys, Digester(comparisons(), "target").rows(chosen)[1])
    again.know(again.keys().of(batch_of([rows[1]])))
    assert rows_of(again.begin(1).filter(batch_of(rows[3:]))) == [rows[4]]


def test_filter_where_the_temporary_folder_fails_says_so(tmp_path: pathlib.Path) -> None:
    table = table_of(folder=str(tmp_path / "gone"))
    rows = pa.RecordBatch.from_arrays(
        [pa.array(range(200_000), pa.int64()), pa.nulls(200_000, pa.float64()), pa.nulls(200_000, pa.string())],
        schema=SCHEMA,
    )
    with pytest.raises(TargetError, match=r"gone: No such file or directory.*TMPDIR"):
        table.begin(0).filter(rows)


@pytest.mark.parametrize("keep", ["", "first", "last by ", "any by x", "newest by x"])
def test_keep_that_is_no_way_is_refused(keep: str) -> None:
    with pytest.raises(ConfigError, match="first by COLUMN"):
        way_of(Dedup(keep=keep))


def test_keep_is_parsed() -> None:
    assert way_of(Dedup()) == ("any", None)
    assert way_of(Dedup(keep="last by updated by")) == ("last", "updated by")
