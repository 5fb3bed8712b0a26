"""Ready-made rules against their twin in plain Python, value by value, on any batch and any slice of it."""

from __future__ import annotations

import datetime as dt
import json
import unicodedata
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowferry.stages import ready_made, zone_table
from rowferry.stages.flow import OutColumn
from rowferry.stages.spec import Rule
from rowferry.types import Type
from stages import ready_made_reference as twin

KEY = "canary-0123456789-canary"
QUICK = settings(max_examples=60, deadline=None)
#: Characters that Python's Unicode knows: of newer ones its tables say nothing. With NUL, 4-byte ones, marks.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn")) | st.sampled_from(
    " \t\0\u00a0\u3000é\u0301\u0344ﬁ①Ａ한𝔘😀\u1e9b\u0323@0.-\u0085\u1680"
)
TEXTS = st.text(CHARACTERS, max_size=12)


def columns_of(values: st.SearchStrategy[Any], max_size: int = 12) -> st.SearchStrategy[tuple[list[Any], int]]:
    """A column (NULLs among it) and how many rows of it are cut off in front, as of a slice."""
    return st.tuples(st.lists(st.none() | values, max_size=max_size), st.integers(0, 3))


def held(
    rule: Rule, type_: Type, column: tuple[list[Any], int], one: Callable[[Any], Any], length: int | None = None
) -> None:
    """The rule on quarantine gives what ``one`` gives: a value, (value, touched), or Unfit."""
    values, cut = column
    plan = ready_made.plan(rule, [OutColumn("c", type_)], table="t", lengths={"c": length})
    rows = pa.RecordBatch.from_arrays([pa.array(values, type_.arrow)], names=["c"]).slice(cut)
    outcome = plan.apply(rows)
    outcome.batch.validate(full=True)
    want: list[Any] = []
    touched, refused = 0, []
    for row, value in enumerate(values[cut:]):
        if value is None:
            want.append(None)
            continue
        try:
            result = one(value)
            result, changed = result if isinstance(result, tuple) else (result, True)
            want.append(result)
            touched += changed
        except twin.Unfit:
            want.append(None)
            refused.append(row)
    got = outcome.batch.column(0)
    if pa.types.is_timestamp(got.type):
        got = got.view(pa.int64())
    assert got.to_pylist() == want
    assert [row for row, _, _ in outcome.refused] == refused
    if not refused:
        assert outcome.touched == ({"c": touched} if touched else {})


@QUICK
@given(
    columns_of(TEXTS),
    st.sampled_from([None, " ", "é", "a\0", "-.[]^", "😀 "]),
    st.sampled_from(["both", "left", "right"]),
)
def test_trim_gives_what_the_twin_gives(column: Any, characters: str | None, side: Any) -> None:
    rule = Rule(("c",), "trim", characters=characters, side=side)
    held(rule, Type("text"), column, lambda v: twin.trim(v, characters, side))


@QUICK
@given(columns_of(TEXTS), st.sampled_from([None, "", "?", "\\0", "😀😀"]), st.sampled_from([None, 12]))
def test_nul_gives_what_the_twin_gives(column: Any, replacement: str | None, length: int | None) -> None:
    rule = Rule(("c",), "nul", replacement=replacement, on_error="quarantine")
    held(rule, Type("text", length=length), column, lambda v: twin.nul(v, replacement or "", length))


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c", "é", '"', "\0"]), inner),
    max_leaves=6,
)


@QUICK
@given(columns_of(JSONS.map(json.dumps)), st.sampled_from([None, "?", '"\n']))
def test_nul_in_json_goes_from_the_values_and_leaves_json(column: Any, replacement: str | None) -> None:
    rule = Rule(("c",), "nul", replacement=replacement)
    plan = ready_made.plan(rule, [OutColumn("c", Type("json"))], table="t")
    rows = pa.RecordBatch.from_arrays([pa.array(column[0], pa.utf8())], names=["c"])

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", replacement or "")
        if isinstance(value, list):
            return [clean(v) for v in value]
        return {clean(k): clean(v) for k, v in value.items()} if isinstance(value, dict) else value

    got = plan.apply(rows).batch["c"].to_pylist()
    assert [None if g is None else json.loads(g) for g in got] == [
        None if v is None else clean(json.loads(v)) for v in column[0]
    ]


def test_nul_in_json_does_not_take_an_escaped_backslash_for_its_own() -> None:
    texts = [r'"\\u0000"', r'"\\\u0000"', r'"\u0000\u0000"', r'"\"\u0000"', r'"u0000"']
    plan = ready_made.plan(Rule(("c",), "nul"), [OutColumn("c", Type("json"))], table="t")
    after = plan.apply(pa.record_batch([pa.array(texts)], names=["c"]))
    assert after.batch["c"].to_pylist() == [r'"\\u0000"', r'"\\"', '""', r'"\""', '"u0000"']
    assert after.touched == {"c": 3}


@QUICK
@given(columns_of(TEXTS), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.sampled_from([None, 12]))
def test_unicode_gives_what_the_twin_gives(column: Any, form: str, length: int | None) -> None:
    rule = Rule(("c",), "unicode", form=form, on_error="quarantine")
    held(rule, Type("text", length=length), column, lambda v: twin.normalised(v, form, length))


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_of_every_character_that_python_knows(form: Any) -> None:
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cs", "Cn")]
    held(Rule(("c",), "unicode", form=form), Type("text"), (known, 0), lambda v: twin.normalised(v, form))


@QUICK
@given(
    columns_of(TEXTS), st.none() | st.integers(1, 14), st.none() | st.integers(1, 30), st.none() | st.integers(1, 14)
)
def test_truncate_gives_what_the_twin_gives(column: Any, length: Any, size: Any, target: Any) -> None:
    rule = Rule(("c",), "truncate", length=length, length_bytes=size)
    bound = target if length is None and size is None else length
    held(rule, Type("text"), column, lambda v: twin.truncate(v, bound, size), target)


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "blake2b"])
@pytest.mark.parametrize("encoding", ["hex", "base32"])
@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (Type("text"), TEXTS),
        (Type("int64"), st.sampled_from([-(2**63), 2**63 - 1, 0]) | st.integers(-99, 99)),
        (Type("uint64"), st.sampled_from([2**64 - 1]) | st.integers(0, 99)),
        (Type("int8"), st.integers(-128, 127)),
        (Type("decimal", precision=20, scale=3), st.decimals(-(10**9), 10**9, places=3)),
        (Type("decimal", precision=40, scale=0), st.integers(-(10**39), 10**39).map(Decimal)),
        (Type("decimal", precision=5, scale=5), st.decimals(Decimal("-0.9"), Decimal("0.9"), places=5)),
        (Type("binary"), st.binary(max_size=9)),
        (Type("binary", length=3, fixed=True), st.binary(min_size=3, max_size=3)),
    ],
    ids=str,
)
def test_hash_gives_what_the_twin_gives(
    type_: Type, values: Any, algorithm: Any, encoding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    rule = Rule(("c",), "hash", key_env="RF_TEST_KEY", algorithm=algorithm, encoding=encoding)

    @settings(max_examples=15, deadline=None)
    @given(columns_of(values))
    def run(column: Any) -> None:
        held(rule, type_, column, lambda v: (twin.token(v, KEY.encode(), algorithm, encoding), True))

    run()


@pytest.mark.parametrize("length", [16, 63, 64, 65, 200])
def test_hash_with_a_key_of_any_length_is_the_hmac_of_the_standard(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "ключ-0123456789" * 20
    key = key.encode()[:length].decode(errors="ignore").ljust(16, "x")
    monkeypatch.setenv("RF_TEST_KEY", key)
    rule = Rule(("c",), "hash", key_env="RF_TEST_KEY")
    held(rule, Type("text"), (["", "a", "é" * 99], 0), lambda v: twin.token(v, key.encode()))


def test_hash_of_one_value_is_one_token_whatever_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    kinds = [
        (Type("int32"), 7), (Type("int64"), 7), (Type("text"), "7"), (Type("char", length=4), "7"),
        (Type("decimal", precision=9, scale=2), Decimal("7.00")), (Type("numeric"), "7.0"), (Type("numeric"), "7"),
    ]  # fmt: skip
    fields = [OutColumn(f"c{i}", t) for i, (t, _) in enumerate(kinds)]
    rows = pa.record_batch([pa.array([v], t.arrow) for t, v in kinds], names=[f.name for f in fields])
    rule = Rule(("*",), "hash", key_env="RF_TEST_KEY")
    plan = ready_made.plan(rule, fields, table="t")
    tokens = {column[0].as_py() for column in plan.apply(rows).batch.columns}
    assert tokens == {twin.token("7", KEY.encode())}
    again = ready_made.plan(rule, fields, table="other").apply(rows).batch
    assert {column[0].as_py() for column in again.columns} == tokens
    monkeypatch.setenv("RF_TEST_KEY", KEY + "!")
    other = ready_made.plan(rule, fields, table="t").apply(rows).batch
    assert other["c0"][0].as_py() not in tokens
    # Neither the plan nor what it is made of shows the key.
    assert "canary" not in repr(plan) + repr(plan.rule) + repr(vars(plan))


def test_hash_of_uuids_dates_and_times_is_that_of_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    cases = [
        (Type("uuid"), bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (Type("date"), dt.date(2020, 2, 29), "2020-02-29"),
        (Type("timestamp"), dt.datetime(2020, 2, 29, 1, 2, 3, 400000), "2020-02-29 01:02:03.4"),
        (Type("bool"), True, "true"),
        (Type("numeric"), "-0.00", "0"),
        (Type("numeric"), "NaN", "NaN"),
        (Type("numeric"), "100", "100"),
    ]
    for type_, value, text in cases:
        rule, token = Rule(("c",), "hash", key_env="RF_TEST_KEY"), twin.token(text, KEY.encode())
        held(rule, type_, ([value, None], 0), lambda _, token=token: token)


@QUICK
@given(
    columns_of(TEXTS | st.sampled_from(["a@b.c", "@", "a@b@c", "a\n@x", "Ünï-123-ß"])),
    st.sampled_from([("fixed", None, "gone"), ("fixed", None, None), ("keep_first", 2, None), ("keep_last", 3, "#"),
                     ("keep_last", 1, "😀"), ("email", None, None), ("email", None, "")]),
)  # fmt: skip
def test_redact_gives_what_the_twin_gives(column: Any, how: Any) -> None:
    rule = Rule(("c",), "redact", how=how[0], keep=how[1], replacement=how[2])
    held(rule, Type("text"), column, lambda v: (twin.redacted(v, *how), True))


def test_redact_to_the_shape_gives_what_the_twin_gives() -> None:
    # What Unicode took in after Python's tables was made may differ: these ranges have long been full.
    known = [
        chr(c) for c in (*range(1, 0x250), *range(0x391, 0x3A2), *range(0x410, 0x450), 0x5D0, 0x4E00, 0x661, 0x1F600)
    ]
    column = (["Ab-12 cD.ß", "", None, *known], 0)
    held(Rule(("c",), "redact", how="shape"), Type("text"), column, lambda v: (twin.redacted(v, "shape"), True))


ZONES = ["Europe/Warsaw", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca",
         "America/St_Johns", "Europe/Dublin", "Asia/Kathmandu", "UTC", "Antarctica/Troll"]  # fmt: skip


def seconds_of(zone: str) -> st.SearchStrategy[int]:
    """Around the zone's changes, and anywhere in the years −5000 to 20000."""
    times = zone_table.load(zone)._times or [0]  # type: ignore[union-attr]
    far = [253_402_300_799, -62_135_596_800, -62_167_219_200, 84_006 * 86_400, -62_091 * 86_400, 2**38]
    near = st.tuples(st.sampled_from(times + far), st.integers(-100_000, 100_000)).map(sum)
    return near | st.integers(-220_000_000_000, 570_000_000_000)


@pytest.mark.parametrize("name", ZONES)
def test_time_zone_gives_what_the_twin_gives(name: str) -> None:
    zone = zoneinfo.ZoneInfo(name)

    @settings(max_examples=25, deadline=None)
    @given(
        columns_of(st.tuples(seconds_of(name), st.integers(0, 999_999)).map(lambda t: t[0] * 10**6 + t[1])),
        st.sampled_from(["refuse", "earlier", "later"]),
        st.sampled_from(["refuse", "earlier", "later"]),
    )
    def run(column: Any, gap: Any, overlap: Any) -> None:
        there = Rule(("c",), "time_zone", to_zone=name)
        held(there, Type("timestamptz"), column, lambda v: (twin.to_wall(v, 10**6, zone), False))
        back = Rule(("c",), "time_zone", from_zone=name, gap=gap, overlap=overlap, on_error="quarantine")
        held(back, Type("timestamp"), column, lambda v: twin.to_instant(v, 10**6, zone, gap, overlap))

    run()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_time_zone_of_the_ends_of_int64_keeps_infinities_and_refuses_what_lies_beyond(unit: str) -> None:
    zone = zoneinfo.ZoneInfo("Asia/Tokyo")
    ends = [-(2**63), -(2**63) + 1, -(2**63) + 10**9, 2**63 - 2, 2**63 - 10**9, 2**63 - 1, None, 0]
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    there = Rule(("c",), "time_zone", to_zone="Asia/Tokyo", on_error="quarantine")
    held(there, Type("timestamptz", unit=unit), (ends, 0), lambda v: (twin.to_wall(v, scale, zone), False))
    back = Rule(("c",), "time_zone", from_zone="Asia/Tokyo", on_error="quarantine")
    held(back, Type("timestamp", unit=unit), (ends, 0), lambda v: twin.to_instant(v, scale, zone, "refuse", "refuse"))


def test_time_zone_of_gaps_and_overlaps_is_what_the_docs_say() -> None:
    def instants(gap: Any, overlap: Any) -> list[str]:
        rule = Rule(("c",), "time_zone", from_zone="Europe/Warsaw", gap=gap, overlap=overlap)
        plan = ready_made.plan(rule, [OutColumn("c", Type("timestamp"))], table="t")
        walls = [dt.datetime(2024, 3, 31, 2, 30), dt.datetime(2024, 10, 27, 2, 30), dt.datetime(2024, 7, 1)]
        outcome = plan.apply(pa.record_batch([pa.array(walls, pa.timestamp("us"))], names=["c"]))
        assert outcome.touched == {"c": 2}
        return [f"{t:%m-%d %H:%M}" for t in outcome.batch["c"].to_pylist()]

    assert instants("earlier", "later") == ["03-31 00:30", "10-27 01:30", "06-30 22:00"]
    assert instants("later", "earlier") == ["03-31 01:30", "10-27 00:30", "06-30 22:00"]


def test_every_zone_of_this_machine_loads() -> None:
    names = sorted(zoneinfo.available_timezones())[::20]
    assert len(names) > 20
    for name in names:
        zone = zone_table.load.__wrapped__(name)
        assert zone is not None, name
        assert zone.offset(1_720_000_000) == twin.offset(1_720_000_000, zoneinfo.ZoneInfo(name)), name


@pytest.mark.parametrize("data", [b"", b"TZif", b"nope" * 20, b"TZif2" + b"\xff" * 60, b"TZif2" + bytes(39)])
def test_a_broken_zone_file_is_no_zone(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zone_table, "_read", lambda name: data)
    assert zone_table.load.__wrapped__("Broken/Zone") is None


@QUICK
@given(
    columns_of(st.sampled_from(["0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00.000", "0000-00-00 00:00:01",
                                "0000-00-00 00:00:00.0000000", "2020-00-01", "x", "", "0000-00-00\n"]) | TEXTS),
    st.sampled_from([None, "1970-01-01"]),
)  # fmt: skip
def test_zero_date_gives_what_the_twin_gives(column: Any, replacement: str | None) -> None:
    rule = Rule(("c",), "zero_date", replacement=replacement)
    held(rule, Type("text"), column, lambda v: twin.zero_date(v, replacement))


@pytest.mark.parametrize("to", ["date", "timestamp"])
def test_zero_date_to_dates_reads_dates_and_nothing_else(to: str) -> None:
    texts = ["2020-02-29", "0000-00-00", "2021-02-29", "2020-00-15", "9999-12-31", "0001-01-01", None, " 2020-01-01",
             "2020-01-01 00:00:00", "2020-01-01 10:11:12.345678", "2020-01-01 10:11", "2020-01-01 24:00:00",
             "x"] * 9  # fmt: skip
    rule = Rule(("c",), "zero_date", to=to, on_error="quarantine")

    def one(text: str) -> Any:
        if text.startswith("0000"):
            return None, True
        if len(text) == 16 or text.startswith(" "):
            raise twin.Unfit
        try:
            value = dt.datetime.fromisoformat(text)
        except ValueError:
            raise twin.Unfit from None
        if to == "date":
            if value.time() != dt.time():
                raise twin.Unfit
            return value.date(), False
        return (value - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1), False

    held(rule, Type("text"), (texts, 2), one)


@QUICK
@given(columns_of(JSONS.map(json.dumps) | st.sampled_from(["nope", "", "[1,]", '{"a":', "NaN", '"\\ud800"'])))
def test_json_take_gives_what_stands_there(column: Any) -> None:
    paths = {"whole": ("$ as json",), "a": ("$.a as json", "a"), "deep": ('$."b c"[1].a as json', "b c", 1, "a"),
             "nul": ('$."\\u0000" as json', "\0"), "first": ("$[0] as json", 0)}  # fmt: skip
    rule = Rule(("c",), "json_take", paths={n: p[0] for n, p in paths.items()}, on_error="quarantine")
    plan = ready_made.plan(rule, [OutColumn("c", Type("text"))], table="t")
    values, cut = column
    outcome = plan.apply(pa.record_batch([pa.array(values, pa.utf8())], names=["c"]).slice(cut))
    broken = {row for row, _, _ in outcome.refused}
    for row, text in enumerate(values[cut:]):
        for name, (_, *steps) in paths.items():
            got = outcome.batch[name][row].as_py()
            if text is None or row in broken:
                assert got is None
            else:
                assert (None if got is None else json.loads(got)) == twin.taken(text, *steps)
        assert (row in broken) == (text in ("nope", "", "[1,]", '{"a":', "NaN", '"\\ud800"'))


def test_json_take_of_types_is_exact_or_unfit() -> None:
    documents = [f'{{"v": {v}}}' for v in (
        "1", "1.0", "1e2", "-0", "1.50", "true", '"17"', '"x"', "null", "[1]", "1e999", "12345678901234567890123",
        "0.1", '"1.5"', "1e-999999999", "2147483648")]  # fmt: skip
    want: dict[str, list[Any]] = {
        "text": ["1", "1.0", "1e2", "-0", "1.50", "true", "17", "x", None, "[1]", "1e999", "12345678901234567890123",
                 "0.1", "1.5", "1e-999999999", "2147483648"],
        "int32": [1, 1, 100, 0, "!", "!", 17, "!", None, "!", "!", "!", "!", "!", "!", "!"],
        "decimal(30,2)": [Decimal(1), Decimal(1), Decimal(100), Decimal(0), Decimal("1.5"), "!", Decimal(17), "!", None,
                          "!", "!", Decimal("12345678901234567890123"), Decimal("0.1"), Decimal("1.5"), "!",
                          Decimal(2147483648)],
        "bool": ["!", "!", "!", "!", "!", True, "!", "!", None, "!", "!", "!", "!", "!", "!", "!"],
        "float64": [1.0, 1.0, 100.0, -0.0, 1.5, "!", "!", "!", None, "!", "!", 12345678901234567890123.0, 0.1, "!",
                    0.0, 2147483648.0],
    }  # fmt: skip
    rows = pa.record_batch([pa.array(documents)], names=["c"])
    for type_text, values in want.items():
        rule = Rule(("c",), "json_take", paths={"v": f"$.v as {type_text}"}, on_error="quarantine")
        outcome = ready_made.plan(rule, [OutColumn("c", Type("json"))], table="t").apply(rows)
        refused = {row for row, _, _ in outcome.refused}
        got = [("!" if row in refused else v) for row, v in enumerate(outcome.batch["v"].to_pylist())]
        assert got == values, type_text


def test_json_take_knows_a_name_however_the_document_writes_it() -> None:
    documents = ['{"\\u0061b": 1}', '{"ab": 1, "ab": 2}', '{"Ab": 1}', ' \n{ "ab" :\t3 }']
    for path in ({"v": "$.ab"}, {"v": "$.ab", "w": '$."x\\"y"'}):
        plan = ready_made.plan(Rule(("c",), "json_take", paths=path), [OutColumn("c", Type("json"))], table="t")
        taken = plan.apply(pa.record_batch([pa.array(documents)], names=["c"])).batch["v"]
        assert taken.to_pylist() == ["1", "2", None, "3"]


def test_json_take_of_nesting_without_end_is_unfit_and_no_crash() -> None:
    rule = Rule(("c",), "json_take", paths={"v": "$[0]"}, on_error="null")
    plan = ready_made.plan(rule, [OutColumn("c", Type("json"))], table="t")
    outcome = plan.apply(pa.record_batch([pa.array(["[" * 300_000, "[7]"])], names=["c"]))
    assert outcome.batch["v"].to_pylist() == [None, "7"]


PUT = {
    "i": (Type("int64"), st.integers(-(2**63), 2**63 - 1)),
    "t": (Type("text"), TEXTS),
    "b": (Type("bool"), st.booleans()),
    "d": (Type("decimal", precision=12, scale=2), st.decimals(-(10**9), 10**9, places=2)),
    "f": (Type("float64"), st.floats()),
    "j": (Type("json"), JSONS.map(json.dumps)),
    "at": (Type("timestamp"), st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))),
}


@QUICK
@given(st.lists(st.tuples(*(st.none() | values for _, values in PUT.values())), max_size=6), st.integers(0, 2))
def test_json_put_holds_every_value_exactly(rows: list[tuple[Any, ...]], cut: int) -> None:
    fields = [OutColumn(name, type_) for name, (type_, _) in PUT.items()]
    rule = Rule(tuple(PUT), "json_put", into="o", paths={'$.in."a b"': "t", "$.in.i": "i"}, on_error="quarantine")
    plan = ready_made.plan(rule, fields, table="t")
    columns = [pa.array([row[i] for row in rows], f.type.arrow) for i, f in enumerate(fields)]
    outcome = plan.apply(pa.record_batch(columns, names=list(PUT)).slice(cut))
    aside = {row for row, _, _ in outcome.refused}
    for row, (i, t, b, d, f, j, at) in enumerate(rows[cut:]):
        no_number = f is not None and (f != f or f in (float("inf"), float("-inf")))
        assert (row in aside) == no_number
        if row in aside:
            continue
        got = json.loads(outcome.batch["o"][row].as_py(), parse_float=Decimal)
        assert list(got) == ["in", "b", "d", "f", "j", "at"]
        assert got["in"] == {"a b": t, "i": i}
        assert (got["b"], got["d"]) == (b, d)
        assert got["f"] is f is None or float(got["f"]) == f
        assert got["j"] == (None if j is None else json.loads(j, parse_float=Decimal))
        assert (got["at"] is None) == (at is None)


def test_json_put_of_no_rows_is_no_rows() -> None:
    plan = ready_made.plan(Rule(("a",), "json_put", into="o"), [OutColumn("a", Type("text"))], table="t")
    assert plan.apply(pa.record_batch([pa.array([], pa.utf8())], names=["a"])).batch["o"].to_pylist() == []
