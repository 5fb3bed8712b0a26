"""The small grammar of expressions against DuckDB's own parser: the same tree, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowferry.stages import expression_query
from rowferry.stages.expression_syntax import _TYPES, KEYWORDS, Node, columns, read

NAMES = ["a", "B", "two words", "date", "year", "first", "value", 'qu"ote']


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    opened = expression_query.connect()
    yield opened
    opened.close()


def by_duckdb(connection: Any, text: str) -> Node | None:
    """What DuckDB reads; None where it is no expression, or holds what Node does not know."""
    answer = json.loads(connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}\n"]).fetchall()[0][0])
    if answer.get("error") or len(answer["statements"]) != 1:
        return None
    (chosen,) = answer["statements"][0]["node"]["select_list"]
    return translated(chosen)


def translated(node: dict[str, Any]) -> Node:
    kind = node["class"]
    assert not node.get("alias")
    if kind == "COLUMN_REF":
        (name,) = node["column_names"]
        if name.lower() in ("current_date", "current_timestamp"):
            return Node("present", {"current_date": "DATE"}.get(name.lower(), "TIMESTAMP WITH TIME ZONE"))
        (index,) = [i for i, other in enumerate(NAMES) if other.lower() == name.lower()]
        return Node("column", index)
    if kind == "CONSTANT":
        return constant(**node["literal"])
    if kind == "CAST":
        to = node["type_expr"]["type_name"].upper()
        sizes = [child["literal"]["text"] for child in node["type_expr"]["children"]]
        to = f"DECIMAL({','.join(sizes)})" if sizes else _TYPES.get(to.lower(), to)
        return Node("try_cast" if node["try_cast"] else "cast", to, (translated(node["child"]),))
    if kind == "COMPARISON":
        marks = {"EQUAL": "=", "NOTEQUAL": "<>", "LESSTHAN": "<", "GREATERTHAN": ">", "LESSTHANOREQUALTO": "<=",
                 "GREATERTHANOREQUALTO": ">="}  # fmt: skip
        sides = (translated(node["left"]), translated(node["right"]))
        return Node("compare", marks[node["type"].removeprefix("COMPARE_")], sides)
    if kind == "CONJUNCTION":
        joined = {"CONJUNCTION_AND": "and", "CONJUNCTION_OR": "or"}[node["type"]]
        parts = [translated(child) for child in node["children"]]
        flat = [inner for part in parts for inner in (part.parts if part.kind == joined else (part,))]
        return Node(joined, None, tuple(flat))
    if kind == "BETWEEN":
        return Node("between", None, tuple(translated(node[part]) for part in ("input", "lower", "upper")))
    if kind == "CASE":
        checks = [translated(check[part]) for check in node["case_checks"] for part in ("when_expr", "then_expr")]
        return Node("case", None, (*checks, translated(node["else_expr"])))
    if kind == "OPERATOR":
        parts = [translated(child) for child in node["children"]]
        called = {"OPERATOR_IS_NULL": "is null", "OPERATOR_IS_NOT_NULL": "is not null", "OPERATOR_NOT": "not",
                  "COMPARE_IN": "in"}  # fmt: skip
        if node["type"] == "OPERATOR_COALESCE":
            return Node("call", "coalesce", tuple(parts))
        return Node(called[node["type"]], None, tuple(parts))
    assert kind == "FUNCTION", node
    parts = [translated(argument["expression"]) for argument in node["arguments"]]
    assert not any(argument["name"] for argument in node["arguments"])
    assert node["qualified_name"]["path"] == [node["function_name"]]
    assert not (node["filter"] or node["distinct"] or node["order_bys"]["orders"])
    name = node["function_name"].lower()
    present = {"now": "TIMESTAMP WITH TIME ZONE", "today": "DATE"}
    return Node("present", present[name]) if name in present and not parts else Node("call", name, tuple(parts))


def constant(kind: str, text: str) -> Node:
    if kind == "INTEGER":
        return Node("integer", int(text))
    if kind == "BOOLEAN":
        return Node("boolean", text == "true")
    return {"NUMERIC": Node("decimal", text), "STRING": Node("text", text), "NULL_LITERAL": Node("null")}[kind]


LEAVES = st.sampled_from(
    ["a", "A", "b", '"B"', '"two words"', '"qu""ote"', "date", "YEAR", "first", "value", "1", "0", "-1", "1.5",
     "0.10", "9223372036854775807", "99999999999999999999", "'x'", "'it''s'", "''", "'é'", "TRUE", "false", "NULL",
     "now()", "CURRENT_DATE", "today()", "current_timestamp", "DATE '2020-01-01'", "- 2", "1e5", ".5", "$1", "e'x'",
     "5.", "x'00'"]
)  # fmt: skip
BINARY = ["+", "-", "*", "/", "||", "=", "==", "<>", "!=", "<", "<=", ">", ">=", "AND", "or", "%", "//", "^", "LIKE",
          "<=>", "->", "IS NOT DISTINCT FROM", "IN", "::", "COLLATE"]  # fmt: skip


def _wider(inner: Any) -> Any:
    space = st.sampled_from(["", " ", "  ", "\n"])
    return (
        st.builds("{}{}{}{}{}".format, inner, space, st.sampled_from(BINARY), space, inner)
        | st.builds("({})".format, inner)
        | st.builds("NOT {}".format, inner)
        | st.builds("-{}".format, inner)
        | st.builds("{} IS{}NULL".format, inner, st.sampled_from([" ", " NOT ", "  not\t"]))
        | st.builds("{} {}BETWEEN {} AND {}".format, inner, st.sampled_from(["", "not "]), inner, inner)
        | st.builds("{} {}IN ({}, {})".format, inner, st.sampled_from(["", "NOT "]), inner, inner)
        | st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner)
        | st.builds("case {} when {} then {} end".format, inner, inner, inner)
        | st.builds("CAST({} AS {})".format, inner, TYPES)
        | st.builds("try_cast({} as {})".format, inner, TYPES)
        | st.builds("{}::{}".format, inner, TYPES)
        | st.builds("{}({})".format, FUNCTIONS, inner)
        | st.builds("{}({},{})".format, FUNCTIONS, inner, inner)
        | st.builds("{}({} , {}, {})".format, FUNCTIONS, inner, inner, inner)
    )


TYPES = st.sampled_from(["INT", "Integer", "bigint", "DECIMAL(10,2)", "numeric( 5 , 0 )", "varchar", "TEXT", "double",
                         "date", "decimal", "varchar(10)", "double precision", "int[]", "decimal(39,1)"])  # fmt: skip
FUNCTIONS = st.sampled_from(["lower", "TRIM", "coalesce", "nullif", "concat", "replace", "substring", "left", "length",
                             "contains", "sum", "now", "round", "abs", "year"])  # fmt: skip
EXPRESSIONS = st.recursive(LEAVES, _wider, max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(EXPRESSIONS)
@example("a = b = 1")
@example("a - -1")
@example("a --1\n")
@example("a || b + 1")
@example("-1::int")
@example("- 1")
@example("a = 1 IS NULL")
@example("NOT a IS NULL AND a = 1 OR b = 2")
@example("a between 1 and 2 and b")
@example("lower(a) 'x'")
@example("date")
def test_tree_is_that_of_duckdbs_parser(connection: Any, text: str) -> None:
    found = read(text, NAMES)
    if found is not None:
        assert found == by_duckdb(connection, text), text


@settings(max_examples=600, deadline=None)
@given(EXPRESSIONS, st.integers(0, 60), st.integers(0, 3), st.text("aB1'\"()|+-*/<=>.,: \n%$;\\é_", max_size=3))
def test_tree_of_a_damaged_text_is_that_of_duckdbs_parser(
    connection: Any, text: str, at: int, length: int, put: str
) -> None:
    damaged = text[:at] + put + text[at + length :]
    found = read(damaged, NAMES)
    if found is not None:
        assert found == by_duckdb(connection, damaged), damaged


@pytest.mark.parametrize(
    "text",
    ["lower(trim(a))", "a || '-' || b", "a * b", "b + 1", "a > -1 AND NOT b IS NULL", "CASE a WHEN 1 THEN 'x' END",
     "CAST(a AS DECIMAL(12, 2))", "a::int + 2", '"two words" IN (1, 2)', "coalesce(a, 0) <> 5", "now()"],
)  # fmt: skip
def test_plain_expressions_are_read(connection: Any, text: str) -> None:
    assert read(text, NAMES) == by_duckdb(connection, text) is not None


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a +", "(a", "a)", "a, b", "a; b", "a -- b", "a /* b */", "nope", "a.b", "a[1]", "a::int[]", "x -> 1",
     "count(*)", "a AS b", "(" * 50 + "a" + ")" * 50, "'a", '"a', "a = ", "lower(a, a)", "lower()", "sum(a)", "a\0",
     "a" * 5000, "a ILIKE 'x'", "\u00a0a", "interval '1' day", "substring(a from 1)", "trim(both from a)"],
)  # fmt: skip
def test_other_texts_are_left_to_duckdb(text: str) -> None:
    assert read(text, NAMES) is None


def test_name_that_could_be_two_columns_is_left_to_duckdb() -> None:
    assert read("ab", ["aB", "Ab"]) is None
    assert read("Ab", ["aB", "Ab"]) == Node("column", 1)


def test_keywords_are_all_that_duckdb_keeps_to_itself() -> None:
    query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    assert {name for (name,) in duckdb.sql(query).fetchall()} <= KEYWORDS


def test_other_keywords_as_columns_are_read_as_by_duckdb(connection: Any) -> None:
    for (name,) in duckdb.sql("SELECT keyword_name FROM duckdb_keywords()").fetchall():
        for text in (f"{name} + 1", f"1 + {name}", f"lower({name})", f"{name} = {name} and {name} is null", name):
            found = read(text, [name])
            if found is None or not columns(found):  # true, null: no column, whatever there is
                continue
            tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}\n"]).fetchall()[0][0])
            assert not tree.get("error"), text
            assert str(tree).count("COLUMN_REF") == 2 * text.count(name), text
