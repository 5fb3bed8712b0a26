"""Ready-made rules: what a plan checks before the first row, and what on_error makes of a value that does not fit."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

from rowferry import types
from rowferry.errors import ConfigError, DataError
from rowferry.stages import ready_made
from rowferry.stages.flow import OutColumn
from rowferry.stages.spec import Rule
from rowferry.types import Type

TEXT = Type("text")
FIELDS = [
    OutColumn("id", Type("int64"), False, "id"),
    OutColumn("name", TEXT, False, "name"),
    OutColumn("email", Type("text", length=40), True, "email"),
    OutColumn("note*", TEXT, True, "note*"),
    OutColumn("at", Type("timestamp", unit="us"), True, "at"),
    OutColumn("seen", Type("timestamptz", unit="us"), True, "seen"),
    OutColumn("doc", Type("json"), True, "doc"),
    OutColumn("x", Type("float64"), True, "x"),
    OutColumn("raw", Type("binary"), True, "raw"),
    OutColumn("tags", Type("list", element=TEXT), True, "tags"),
]
KEY = "canary-0123456789-canary"


def rule(do: str, *columns: str, **arguments: Any) -> Rule:
    return Rule(columns, do, **arguments)


def plan(do: str, *columns: str, **arguments: Any) -> ready_made.RulePlan:
    return ready_made.plan(rule(do, *columns, **arguments), FIELDS, table="people")


def batch(**columns: Any) -> pa.RecordBatch:
    count = len(next(iter(columns.values())))
    arrays = [pa.array(columns.get(f.name, [None] * count), f.type.arrow) for f in FIELDS]
    return pa.RecordBatch.from_arrays(arrays, names=[f.name for f in FIELDS])


@pytest.mark.parametrize(
    ("do", "columns", "arguments", "said"),
    [
        ("trimm", ["name"], {}, "did you mean trim"),
        ("xyzzy", ["name"], {}, "there are trim"),
        ("trim", [], {}, "needs columns"),
        ("trim", ["nmae"], {}, "did you mean 'name'"),
        ("trim", ["zzz*"], {}, "no column matches 'zzz*'"),
        ("trim", ["id"], {}, "is for text, and this is int64"),
        ("trim", ["*"], {}, "is for text"),
        ("trim", ["name"], {"form": "NFC"}, "takes no form"),
        ("trim", ["name"], {"characters": ""}, "nothing would be trimmed"),
        ("trim", ["name"], {"on_error": "clamp"}, "no nearest value"),
        ("trim", ["name"], {"on_error": "ignore"}, "on_error is 'ignore'"),
        ("nul", ["name"], {"replacement": "\0"}, "holds U+0000 itself"),
        ("nul", ["id"], {}, "for text and JSON"),
        ("unicode", ["name"], {}, "needs form"),
        ("unicode", ["name"], {"form": "nfc"}, "it is one of NFC, NFD"),
        ("truncate", ["name"], {"length": 0}, "length is 0"),
        ("truncate", ["name"], {"length_bytes": -1}, "length_bytes is -1"),
        ("hash", ["name"], {}, "needs key_env"),
        ("hash", ["x"], {"key_env": "RF_TEST_KEY"}, "no one text"),
        ("hash", ["doc"], {"key_env": "RF_TEST_KEY"}, "no one text"),
        ("hash", ["name"], {"key_env": "RF_TEST_NONE"}, "the environment has no RF_TEST_NONE"),
        ("hash", ["name"], {"key_env": "RF_TEST_SHORT"}, "has 15 bytes"),
        ("hash", ["name"], {"key_env": "RF_TEST_LONG", "algorithm": "blake2b"}, "takes 64 at the most"),
        ("hash", ["name"], {"key_env": "RF_TEST_KEY", "algorithm": "md5"}, "it is hmac-sha256 or blake2b"),
        ("hash", ["name"], {"key_env": "RF_TEST_KEY", "encoding": "b64"}, "it is hex or base32"),
        ("redact", ["name"], {"how": "keep_last"}, "needs keep"),
        ("redact", ["name"], {"how": "keep_last", "keep": 0}, "needs keep"),
        ("redact", ["name"], {"how": "keep_last", "keep": 2, "replacement": "##"}, "one character"),
        ("redact", ["name"], {"how": "email", "keep": 2}, "takes no keep"),
        ("redact", ["name"], {"how": "shape", "replacement": "x"}, "takes no replacement"),
        ("redact", ["name"], {"how": "blur"}, "it is one of fixed"),
        ("redact", ["id"], {"replacement": "x"}, "is for text"),
        ("redact", ["id"], {"how": "email"}, "is for text"),
        ("redact", ["email"], {"replacement": "x" * 41}, "has 41 characters, and the column 40"),
        ("time_zone", ["name"], {"from_zone": "UTC"}, "for timestamp and timestamptz"),
        ("time_zone", ["at"], {"to_zone": "UTC"}, "needs from_zone"),
        ("time_zone", ["seen"], {}, "needs to_zone"),
        ("time_zone", ["seen"], {"from_zone": "UTC", "to_zone": "UTC"}, "no from_zone"),
        ("time_zone", ["seen"], {"to_zone": "UTC", "gap": "later"}, "gap and overlap say nothing"),
        ("time_zone", ["at"], {"from_zone": "Europe/Warsav"}, "Europe/Warsaw"),
        ("time_zone", ["at"], {"from_zone": "../../etc/passwd"}, "there is no time zone"),
        ("time_zone", ["at"], {"from_zone": "Europe"}, "there is no time zone"),
        ("time_zone", ["at"], {"from_zone": "tzdata.zi"}, "there is no time zone"),
        ("zero_date", ["at"], {}, "read it as text"),
        ("zero_date", ["id"], {}, "for dates as text"),
        ("zero_date", ["name"], {"replacement": "2020-02-30"}, "is no date"),
        ("zero_date", ["name"], {"replacement": "2020-02-20 10:00:00", "to": "date"}, "time of day"),
        ("zero_date", ["name"], {"to": "datetime"}, "it is text, date or timestamp"),
        ("json_take", ["doc"], {}, "needs paths"),
        ("json_take", ["doc", "name"], {"paths": {"a": "$.a"}}, "is for one column, and 2 match"),
        ("json_take", ["id"], {"paths": {"a": "$.a"}}, "for JSON and text"),
        ("json_take", ["doc"], {"paths": {"name": "$.a"}}, "a column 'name' already"),
        ("json_take", ["doc"], {"paths": {"a": "a.b"}}, "is no path"),
        ("json_take", ["doc"], {"paths": {"a": "$.a[x]"}}, "is no path"),
        ("json_take", ["doc"], {"paths": {"a": "$.a[-1]"}}, "is no path"),
        ("json_take", ["doc"], {"paths": {"a": "$..a"}}, "is no path"),
        ("json_take", ["doc"], {"paths": {"a": "$.a as intt"}}, "table 'people', column 'doc'"),
        ("json_take", ["doc"], {"paths": {"a": "$.a as date"}}, "take it as text and cast it"),
        ("json_take", ["doc"], {"paths": {"a": "$.a"}, "on_error": "clamp"}, "no nearest value"),
        ("json_put", ["name"], {}, "needs into"),
        ("json_put", ["name"], {"into": "doc"}, "a column 'doc' already"),
        ("json_put", ["raw"], {"into": "j"}, "has no JSON"),
        ("json_put", ["tags"], {"into": "j"}, "has no JSON"),
        ("json_put", ["name"], {"into": "j", "paths": {"a": "email"}}, "which columns does not"),
        ("json_put", ["name"], {"into": "j", "paths": {"$": "name"}}, "no member of an object"),
        ("json_put", ["name"], {"into": "j", "paths": {"$.a[0]": "name"}}, "no member of an object"),
        ("json_put", ["name", "id"], {"into": "j", "paths": {"id": "name"}}, "two columns would be the member 'id'"),
        ("json_put", ["name", "id"], {"into": "j", "paths": {"a": "name", "$.a.b": "id"}}, "a value and an object"),
        ("json_put", ["name", "id"], {"into": "j", "paths": {"$.a.b": "name", "a": "id"}}, "is there twice"),
    ],
)
def test_plan_with_a_wrong_rule_says_what_is_wrong(
    do: str, columns: list[str], arguments: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    monkeypatch.setenv("RF_TEST_SHORT", KEY[:15])
    monkeypatch.setenv("RF_TEST_LONG", KEY * 3)
    with pytest.raises(ConfigError) as caught:
        plan(do, *columns, **arguments)
    assert said in str(caught.value)
    assert "table 'people'" in str(caught.value)
    assert "canary" not in repr(caught.value) + str(caught.value)


def test_columns_are_globs_but_a_column_of_that_very_name_comes_first() -> None:
    assert plan("trim", "note*").reads == ("note*",)
    assert plan("trim", "n*", "[ef]mail").reads == ("name", "email", "note*")


@pytest.mark.parametrize(
    ("do", "columns", "arguments", "want"),
    [
        ("trim", ["email"], {}, [("email", "text(40)", True)]),
        ("trim", ["name"], {"on_error": "null"}, [("name", "text", True)]),
        ("truncate", ["email", "name"], {"length": 50}, [("name", "text(50)", False), ("email", "text(40)", True)]),
        ("truncate", ["email"], {"length_bytes": 8}, [("email", "text(8)", True)]),
        ("hash", ["id"], {"key_env": "RF_TEST_KEY"}, [("id", "text(64)", False)]),
        ("hash", ["id"], {"key_env": "RF_TEST_KEY", "encoding": "base32"}, [("id", "text(26)", False)]),
        ("redact", ["id", "name"], {}, [("id", "int64", True), ("name", "text", True)]),
        ("redact", ["name"], {"replacement": "x"}, [("name", "text", False)]),
        ("time_zone", ["at"], {"from_zone": "UTC"}, [("at", "timestamptz", True)]),
        ("time_zone", ["at"], {"from_zone": "UTC", "to_zone": "Asia/Tokyo"}, [("at", "timestamp", True)]),
        ("time_zone", ["seen"], {"to_zone": "Asia/Tokyo"}, [("seen", "timestamp", True)]),
        ("zero_date", ["name"], {}, [("name", "text", True)]),
        ("zero_date", ["name"], {"to": "date", "replacement": "1970-01-01"}, [("name", "date", False)]),
        ("json_take", ["doc"], {"paths": {"a": "$.a"}}, [("a", "text", True)]),
        ("json_take", ["doc"], {"paths": {"b": "$.b as decimal(5,2)"}}, [("b", "decimal(5,2)", True)]),
        ("json_put", ["id", "x"], {"into": "j"}, [("j", "json", False)]),
        ("json_put", ["id", "x"], {"into": "j", "on_error": "null"}, [("j", "json", True)]),
    ],
)  # fmt: skip
def test_plan_gives_the_types_that_batches_then_have(
    do: str, columns: list[str], arguments: dict[str, Any], want: list[tuple[str, str, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RF_TEST_KEY", KEY)
    made = plan(do, *columns, **arguments)
    new = [f for f in made.fields if f not in FIELDS]
    if do in ("trim", "redact"):  # a type that stays; what was touched comes from no column unchanged
        new = [f for f in made.fields if f.name in columns]
    assert [(f.name, str(f.type), f.nullable) for f in new] == want
    assert all(f.origin is None for f in new)
    for rows in (batch(id=[]), batch(id=[None] * 5), batch(id=[1, 2, 3]).slice(1, 1)):
        after = made.apply(rows)
        assert after.batch.num_rows == rows.num_rows
        assert after.batch.schema.names == [f.name for f in made.fields]
        assert [f.type for f in after.batch.schema] == [f.type.arrow for f in made.fields]
        after.batch.validate(full=True)


LONG = batch(id=[1, 2, 3, 4], email=["a" * 40, None, "ﷺ" * 4, "ok"])


def test_refuse_stops_with_table_column_value_and_row() -> None:
    with pytest.raises(DataError) as caught:
        plan("unicode", "email", form="NFKC").apply(LONG)
    assert (caught.value.table, caught.value.column) == ("people", "email")
    assert "'ﷺﷺﷺﷺ' in row 2 of its batch" in str(caught.value)
    assert "would have 72 characters" in str(caught.value)
    assert "clamp" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).value == caught.value.value


def test_null_quarantine_and_clamp_settle_the_same_value() -> None:
    null = plan("unicode", "email", form="NFKC", on_error="null").apply(LONG)
    assert null.batch["email"].to_pylist() == ["a" * 40, None, None, "ok"]
    assert (null.touched, null.refused) == ({"email": 2}, [])  # normalised, and made NULL
    aside = plan("unicode", "email", form="NFKC", on_error="quarantine").apply(LONG)
    assert aside.refused == [(2, "email", "would have 72 characters and does not fit text(40)")]
    assert aside.batch.num_rows == 4
    clamped = plan("unicode", "email", form="NFKC", on_error="clamp").apply(LONG)
    assert len(clamped.batch["email"][2].as_py()) == 40
    assert clamped.refused == []


def test_columns_that_no_rule_names_are_the_same_buffers() -> None:
    rows = batch(id=[1, 2], name=[" a", "b "], raw=[b"x", None])
    after = plan("trim", "name").apply(rows).batch
    for name in ("id", "raw"):
        assert [b and b.address for b in after[name].buffers()] == [b and b.address for b in rows[name].buffers()]


def test_a_rule_goes_through_json_and_back() -> None:
    one = rule("json_take", "doc", paths={"a": "$.a as int32"}, on_error="quarantine")
    assert types.load(types.dump(one), Rule) == one
