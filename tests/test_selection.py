"""``--table``: what is meant by a name, a glob, quotes and a new name."""

import pytest

from rowferry import selection
from rowferry.errors import ConfigError
from rowferry.model import TableName
from rowferry.selection import Part, Selector


def n(name: str, schema: str | None = None) -> TableName:
    return TableName(schema, name)


NAMES = [n("a.b"), n("Flights"), n("flights"), n("x", "sales"), n("y", "sales"), n('q"t'), n("st*r"), n("with:colon")]
VIEWS = [n("a_view"), n("v", "sales")]


def chosen(*texts: str, **engines: str) -> list[tuple[str, str | None]]:
    found = selection.select([selection.parse(t) for t in texts], NAMES, by_name_only=VIEWS, **engines)
    return [(str(old), None if new is None else str(new)) for old, new in found]


def test_parse_reads_parts_quotes_and_new_name() -> None:
    text = 'sales."a.b:""c*":main.new_*'
    wanted = Selector(text, Part("sales"), Part('a.b:"c*', True), Part("main"), Part("new_*"))
    assert selection.parse(text) == wanted


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a.b.c", '"a', 'a"b"', '"a"b', "a:", ":b", "a:b:c", "a:b.c.d", '""', 'a:""']
)
def test_parse_of_what_is_no_name_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        selection.parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("flights", ["flights"]),  # letter case counts
        ('"a.b"', ["a.b"]),
        ('"q""t"', ['q"t']),
        ('"with:colon"', ["with:colon"]),
        ('"st*r"', ["st*r"]),  # literal: no glob
        ("st*r", ["st*r"]),
        ("*lights", ["Flights", "flights"]),
        ("[fF]lights", ["Flights", "flights"]),
        ("sales.x", ["sales.x"]),
        ("sales.*", ["sales.x", "sales.y"]),
        ("s*.?", ["sales.x", "sales.y"]),
        ("a_view", ["a_view"]),
        ("sales.v", ["sales.v"]),
    ],
)
def test_select_finds_what_is_meant(text: str, wanted: list[str]) -> None:
    assert [old for old, _ in chosen(text)] == wanted


def test_select_without_selectors_is_all_tables_and_no_view() -> None:
    assert selection.select([], NAMES, by_name_only=VIEWS) == [(name, None) for name in NAMES]


def test_select_by_glob_takes_no_view() -> None:
    assert all("view" not in old for old, _ in chosen("*"))
    assert [old for old, _ in chosen("sales.*")] == ["sales.x", "sales.y"]


def test_select_of_the_default_namespace_by_its_name() -> None:
    assert [old for old, _ in chosen("public.flights", source_engine="postgres")] == ["flights"]
    assert [old for old, _ in chosen("main.flights", source_engine="duckdb")] == ["flights"]
    with pytest.raises(ConfigError):
        chosen("main.flights", source_engine="postgres")


def test_select_gives_new_names() -> None:
    assert chosen("flights:f") == [("flights", "f")]
    assert chosen("flights:old.f") == [("flights", "old.f")]
    assert chosen("sales.*:sales_*") == [("sales.x", "sales_x"), ("sales.y", "sales_y")]
    assert chosen('flights:"*"') == [("flights", "*")]
    assert chosen("flights:public.f", target_engine="postgres") == [("flights", "f")]
    assert chosen("flights:main.f", target_engine="postgres") == [("flights", "main.f")]


def test_select_of_one_table_twice_keeps_the_new_name() -> None:
    assert ("flights", "f") in chosen("*", "flights:f")
    assert ("flights", "f") in chosen("flights:f", "*")
    assert len(chosen("flights", "flights")) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ("nope",),
        ("x",),  # only sales.x is there
        ("flights:a", "flights:b"),
        ("sales.*:one",),
        ("flights:Flights", "Flights"),
        ("flights", "nope*"),
    ],
)
def test_select_of_what_cannot_be_is_a_config_error(texts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        chosen(*texts)


def test_select_of_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(ConfigError, match="flights"):
        chosen("fligths")
    with pytest.raises(ConfigError, match=r"sales\.x"):
        chosen("x")
