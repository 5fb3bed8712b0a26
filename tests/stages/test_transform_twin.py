"""A transform against its row-by-row model: any rules, any batches, one worker or several."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowferry.stages import spec, transform
from rowferry.types import Type
from stages.transform_reference import Expression, Model, Row, both, strict

FIELDS = [
    ("id", Type("int64"), False),
    ("n", Type("int32"), True),
    ("t", Type("text"), True),
    ("T", Type("char", length=3), True),
    ("num", Type("text", length=4), True),
    ("d", Type("decimal", precision=10, scale=2), True),
    ("b", Type("bool"), True),
    ("k", Type("int64"), True),
]


def integer(text: str) -> int:
    if not text.isdigit():
        raise ValueError(text)
    return int(text)


def failing(row: Row) -> Any:
    if row["n"] == 3:
        raise ValueError("three")
    return row["n"]


EXPRESSIONS = [
    Expression("lower(trim(t))", strict(lambda t: t.strip(" ").lower(), "t"), ("t",)),
    Expression("t || '-{}' || N", strict(lambda t, n: f"{t}-{{}}{n}", "t", "n"), ("t", "n")),
    Expression('concat("T", t)', lambda r: (r["T"] or "") + (r["t"] or ""), ("T", "t")),
    Expression("coalesce(n, 0) + 1", lambda r: (r["n"] or 0) + 1, ("n",)),
    Expression("n > 3 AND b", lambda r: both(None if r["n"] is None else r["n"] > 3, r["b"]), ("n", "b")),
    Expression(
        "CASE WHEN n IS NULL THEN 'none' WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END",
        lambda r: "none" if r["n"] is None else "odd" if r["n"] % 2 else "even",
        ("n",),
    ),
    Expression("d * 2", strict(lambda d: d * 2, "d"), ("d",)),
    Expression("id", lambda r: r["id"], ("id",)),
    Expression("NULL", lambda r: None, ()),
    Expression("'x' || 1", lambda r: "x1", ()),
    Expression("CAST(num AS INTEGER)", strict(integer, "num"), ("num",)),
    Expression("if(n = 3, error('three'), n)", failing, ("n",)),
    Expression("list_sum(list_transform([n, 1], lambda v: v * 2))", lambda r: 2 + 2 * (r["n"] or 0), ("n",)),
]
CONDITIONS = [
    Expression("n > 3", strict(lambda n: n > 3, "n"), ("n",)),
    Expression("t IS NOT NULL", lambda r: r["t"] is not None, ("t",)),
    Expression("b", lambda r: r["b"], ("b",)),
    Expression("id % 3 <> 1", strict(lambda i: i % 3 != 1, "id"), ("id",)),
    Expression("made IS NULL OR id > 5", lambda r: r["made"] is None or r["id"] > 5, ("made", "id")),
    Expression("false", lambda r: False, ()),
]
texts = st.one_of(st.none(), st.text(alphabet="aB z1é", max_size=4))
rows = st.fixed_dictionaries(
    {
        "n": st.one_of(st.none(), st.integers(-200, 200), st.integers(0, 5)),
        "t": texts,
        "T": st.one_of(st.none(), st.sampled_from(["a", "Bc", ""])),
        "num": st.sampled_from(["1", "22", "x", "", None, "7"]),
        "d": st.one_of(st.none(), st.decimals(-1000, 1000, places=2, allow_nan=False)),
        "b": st.sampled_from([True, False, None]),
        "k": st.one_of(st.none(), st.integers(0, 6)),
    }
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    model = Model()
    names = [name for name, _, _ in FIELDS]
    if draw(st.booleans()):
        keys = draw(st.lists(st.integers(0, 6), unique=True, min_size=1))
        model.lookup = {k: f"v{k}" for k in keys}, draw(st.sampled_from(["null", "quarantine"]))
        names.append("found")
    targets = draw(st.lists(st.sampled_from(["made", "t", "other", "n"]), unique=True))
    model.set = {name: draw(st.sampled_from(EXPRESSIONS)) for name in targets}
    names += [name for name in targets if name not in names]
    model.set_on_error = draw(st.sampled_from(["null", "quarantine"]))
    # A condition is given the columns as set leaves them, so only those of the types that it is written for.
    fitting = [c for c in CONDITIONS if not set(c.reads) & (set(targets) - {"made"})]
    fitting = [c for c in fitting if "made" not in c.reads or "made" in targets]
    model.where = draw(st.one_of(st.none(), st.sampled_from(fitting)))
    if "n" not in targets and draw(st.booleans()):
        model.cast["n"] = "int8", 8, draw(st.sampled_from(["null", "quarantine", "clamp"]))
    if draw(st.booleans()):
        model.cast["d"] = "decimal(10,1)", 1, draw(st.sampled_from(["null", "quarantine"]))
    if draw(st.booleans()):
        model.constant = {draw(st.sampled_from(["c", "t"])): draw(st.sampled_from(["x", 5, True, None]))}
        names += [name for name in model.constant if name not in names]
    model.drop = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1)))
    left = [name for name in names if name not in model.drop]
    model.rename = {name: f"new {name}" for name in draw(st.lists(st.sampled_from(left), unique=True))}
    model.order = tuple(model.rename.get(n, n) for n in draw(st.lists(st.sampled_from(left), unique=True)))
    return model


def as_spec(model: Model) -> dict[str, Any]:
    data: dict[str, Any] = {
        "set": {name: e.sql for name, e in model.set.items()},
        "set_on_error": model.set_on_error,
        "cast": {name: {"to": to, "on_error": policy} for name, (to, _, policy) in model.cast.items()},
        "constant": model.constant,
        "drop": model.drop,
        "rename": model.rename,
        "order": model.order,
    }
    if model.where is not None:
        data["where"] = model.where.sql
    if model.lookup is not None:
        data["lookups"] = [
            {"file": "table.csv", "on": {"k": "key"}, "take": {"found": "value"}, "missing": model.lookup[1]}
        ]
    return data


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    model=models(), given_rows=st.lists(rows, max_size=30), cut=st.integers(1, 31), workers=st.sampled_from([1, 2, 5])
)
def test_transform_gives_the_rows_and_counts_of_its_row_by_row_model(
    tmp_path: pathlib.Path, model: Model, given_rows: list[Row], cut: int, workers: int
) -> None:
    source = [{name: (row | {"id": i})[name] for name, _, _ in FIELDS} for i, row in enumerate(given_rows)]
    if model.lookup is not None:
        lines = "".join(f"{k},{v}\n" for k, v in model.lookup[0].items())
        (tmp_path / "table.csv").write_text(f"key,value\n{lines}")
    stage = transform.open(
        spec.load(as_spec(model)), FIELDS, table="t", started=datetime.datetime.now(datetime.UTC), folder=tmp_path
    )
    expected = model.run(source)
    types = {name: t for name, t, _ in FIELDS}
    whole = pa.record_batch(
        [pa.array([row[name] for row in source], types[name].arrow) for name in stage.reads], names=list(stage.reads)
    )
    threads = [stage.worker() for _ in range(workers)]
    out: list[Row] = []
    filtered, touched, refused = 0, dict[str, int](), list[tuple[Row, str | None]]()
    for i, start in enumerate(range(0, len(source), cut)):
        passed = threads[i % workers].apply(whole.slice(start, cut))
        assert passed.generated == 0
        filtered += passed.filtered
        for column, count in passed.touched.items():
            touched[column] = touched.get(column, 0) + count
        for one in passed.refused:
            assert one.row.num_rows == 1
            refused.append((one.row.to_pylist()[0], one.column))
        for index, batch in passed.batches:
            assert index == 0
            assert [f.type for f in batch.schema] == [c.type.arrow for c in stage.outputs[0].columns]
            out += batch.to_pylist()
    for thread in threads:
        thread.close()
    assert out == expected.rows
    assert [list(row) for row in out[:1]] == [list(row) for row in expected.rows[:1]]
    assert (filtered, touched) == (expected.filtered, expected.touched)
    # A batch gives the rows of one part before those of the next: as a set they are the model's.
    reads = [{n: row[n] for n in stage.reads} for row, _ in expected.refused]
    want = sorted(zip(map(str, reads), (c for _, c in expected.refused), strict=True))
    assert sorted((str(row), column) for row, column in refused) == want
    assert len(source) == len(out) + filtered + len(refused)
