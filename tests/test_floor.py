"""Floor 0: errors, endpoints, the JSON of the model."""

from __future__ import annotations

import pickle

import pytest

from rowferry import endpoint, errors
from rowferry.model import Bound, Column, Digest, Endpoint, Table, TableName
from rowferry.types import Field, Type, arrow_field, dump, load, type_of_field


@pytest.mark.parametrize(
    "error",
    [
        cls("failed", table="t", chunk=3, column="c", value="x", hint="do this", code="22003", transient=True)
        for cls in (errors.SourceError, errors.TargetError, errors.DataError, errors.LedgerError, errors.RefusedError)
    ],
)
def test_every_error_pickles_with_all_it_says(error: errors.RowferryError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.transient
    assert str(error) == "table 't', chunk 3, column 'c': failed (value: x) [22003]; do this"


def test_error_is_one_line_whatever_the_names_hold() -> None:
    assert "\n" not in str(errors.SourceError("two\nlines", table="a\nb"))


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {
        c.__name__: c.exit_code
        for c in vars(errors).values()
        if isinstance(c, type) and issubclass(c, errors.RowferryError)
    }
    assert codes["ConfigError"] == codes["RefusedError"] == 2
    assert codes["DataError"] == codes["DifferenceError"] == 1
    assert (codes["SourceError"], codes["TargetError"], codes["LedgerError"], codes["StoppedError"]) == (3, 4, 4, 5)


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("sqlite:///a.db", Endpoint("sqlite", "sqlite", path="a.db")),
        ("sqlite:////tmp/a%20b.db", Endpoint("sqlite", "sqlite", path="/tmp/a b.db")),
        (
            "postgresql://u:p%40s@h:5433/d?sslmode=require",
            Endpoint("postgresql", "postgres", "h", 5433, "u", "p@s", "d", query=(("sslmode", "require"),)),
        ),
        ("postgresql:///d", Endpoint("postgresql", "postgres", database="d")),
    ],
)
def test_urls_are_read_as_sqlalchemy_writes_them(url: str, want: Endpoint) -> None:
    assert endpoint.parse(url) == want


@pytest.mark.parametrize("url", ["", "nothing", "oracle://x/y", "sqlite://", "sqlite:///", "postgresql://h:port/d"])
def test_bad_urls_are_config_errors_that_do_not_repeat_them(url: str) -> None:
    with pytest.raises(errors.ConfigError):
        endpoint.parse(url)


def test_a_password_shows_neither_in_repr_nor_in_the_safe_url() -> None:
    parsed = endpoint.parse("postgresql://user:canary@h/d")
    assert "canary" not in repr(parsed)
    assert parsed.safe_url == "postgresql://h/d"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("sqlite:///a.db", "sqlite:///./a.db", True),
        ("sqlite:///a.db", "duckdb:///a.db", True),
        ("postgresql://x:1@localhost:5/d", "postgresql://y:2@127.0.0.1:5/d", True),
        ("postgresql://localhost:5/d", "postgresql://localhost:6/d", False),
        ("postgresql://localhost/d", "postgres://127.0.0.1:5432/d", True),
        ("postgresql://localhost/d", "postgresql://localhost/e", False),
    ],
)
def test_same_place_is_seen_through_its_spellings(a: str, b: str, same: bool) -> None:
    assert endpoint.same_place(endpoint.parse(a), endpoint.parse(b)) is same


def test_model_goes_through_json_unchanged() -> None:
    inner = Type("struct", fields=(Field("a", Type("list", element=Type("decimal", precision=40, scale=2))),))
    table = Table(TableName("s", "t"), (Column("c", inner, forms=(inner, Type("wire", native="x:y"))),), ("c",))
    assert load(dump(table), Table) == table
    assert load(dump(Bound({"lower": 1}, True)), Bound) == Bound({"lower": 1}, True)
    assert type_of_field(arrow_field("c", inner)) == inner


def test_digests_add_up_modulo_2_to_128() -> None:
    a, b = Digest(1, (1 << 128) - 1), Digest(2, 5)
    assert a + b == Digest(3, 4)
    assert (a + b) - b == a
    assert Digest.parse(str(a)) == a
