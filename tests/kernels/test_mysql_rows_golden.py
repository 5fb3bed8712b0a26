"""Bytes that a server sent, and texts that none sends: what kernel and twin make of them."""

from __future__ import annotations

from typing import Any

import pytest

from kernels import mysql_rows_reference as twin
from kernels.mysql_rows_golden import GOLDEN, REFUSED
from kernels.mysql_rows_values import bits, decode_pieces
from rowferry._native.mysql_rows import DecodeError


@pytest.mark.parametrize(("made_by", "column", "field", "value"), GOLDEN, ids=lambda v: v if isinstance(v, str) else "")
def test_field_of_the_server_gives_its_value(made_by: str, column: twin.Column, field: bytes, value: Any) -> None:
    assert twin.row(field, [column]) == (value,)
    # Also behind and before others, whose bytes it must not touch.
    others: list[twin.Column] = [("text", {}), column, ("int64", {})]
    row = twin.sized(b"before") + field + twin.sized(b"-7")
    stream = twin.framed([row, row, twin.EOF])
    assert decode_pieces([stream], others) == ([("before", bits(value), -7)] * 2, twin.EOF)


@pytest.mark.parametrize(("column", "text"), REFUSED, ids=str)
def test_text_that_the_column_cannot_hold_is_refused_by_its_place(column: twin.Column, text: bytes) -> None:
    with pytest.raises(twin.Malformed):
        twin.value_of(column, text)
    rows = [twin.sized(b"1") + b"\xfb"] * 600 + [twin.sized(b"2") + twin.sized(text)]
    with pytest.raises(DecodeError) as caught:
        decode_pieces([twin.framed([*rows, twin.EOF])], [("int8", {}), column])
    assert (caught.value.row, caught.value.column) == (600, 1)
    assert caught.value.value == text[:64]


def test_every_kind_has_a_golden_field() -> None:
    kinds = {column[0] for _, column, field, _ in GOLDEN if field != b"\xfb"}
    assert kinds == set(twin.DECODERS)
