"""MySQL's types and the canonical ones: how a column is read, what is made for one, what it cannot take.

The declared types are in :mod:`declared`, what their values may hold nevertheless in :mod:`census`, the
types that a target makes in :mod:`making`.
"""

from __future__ import annotations

from rowferry.adapters.mysql.census import FAITHFUL, unfit_condition
from rowferry.adapters.mysql.declared import LABELLED, TEXT_FORMED, TEXT_NAMES, Declared, parse
from rowferry.adapters.mysql.making import checks, plan_column, table_natives, tags_of
from rowferry.adapters.mysql.quoting import quote
from rowferry.model import Column
from rowferry.types import Type

__all__ = [
    "carrier", "checks", "is_silent", "plan_column", "select_expression", "table_natives", "tags_of",
    "unfit_expression", "unread_expression",
]  # fmt: skip


def select_expression(column: Column, form: Type, policy: str | None = None) -> str:
    """The SQL with which a source reads a column in one of its forms.

    The result is text in utf8mb4 (numbers as digits, times as ``2020-01-02 03:04:05.678``, a SET as ``a,b``),
    but raw bytes for binary, bit and spatial columns. FLOATs come as the digits of the same number as a
    DOUBLE. Under the policy ``null`` a value that the form cannot hold is NULL
    (:func:`unfit_expression` says which).
    """
    name = quote(column.name)
    d = parse(column.native)
    plain = name if d is None else _plain(name, d, form)
    if policy != "null":
        return plain
    unfit = unfit_condition(column.name, column.native, form)
    return plain if unfit is None else f"CASE WHEN {unfit} THEN NULL ELSE {plain} END"


def unfit_expression(column: Column, form: Type) -> str | None:
    """SQL that is 1 where the column's value cannot be had in this form, else 0; None where that cannot be.

    A reader selects it beside the column: under the policy ``null`` its sum is how many values the policy
    touched. Without a policy a 1 is an error, where :func:`is_silent`.
    """
    unfit = unfit_condition(column.name, column.native, form)
    return None if unfit is None else f"CASE WHEN {unfit} THEN 1 ELSE 0 END"


def unread_expression(column: Column, form: Type) -> str:
    """SQL that is the text of a value that the form cannot hold, NULL for all others: bytes of another character set
    as ``\\x…``, all else as the server writes it."""
    unfit = unfit_condition(column.name, column.native, form)
    name = quote(column.name)
    stored = f"CONCAT(_utf8mb4 X'5C78', LOWER(HEX({name})))" if is_silent(column, form) else f"CAST({name} AS CHAR)"
    return f"CASE WHEN {unfit or '0'} THEN {stored} END"


def is_silent(column: Column, form: Type) -> bool:
    """Whether a value that does not fit looks like one that does once it is sent: only the column's
    :func:`unfit_expression` tells. (A zero date does not, nor an ENUM's '': who reads them sees what they are.)"""
    d = parse(column.native)
    lossy = d is not None and d.charset is not None and d.charset not in FAITHFUL
    return lossy and unfit_condition(column.name, column.native, form) is not None


def _plain(name: str, d: Declared, form: Type) -> str:
    text = form.kind in ("text", "opaque")
    if d.name == "float" or (d.name == "double" and d.scale is not None):
        # As text a FLOAT has six digits and a DOUBLE(m,n) n decimals; times 1e0 it is a plain DOUBLE.
        return f"CAST({name} * 1e0 AS CHAR)" if text else f"{name} * 1e0"
    if d.name in TEXT_NAMES or d.name in LABELLED or d.name == "json":
        return name
    if text and d.name == "bit":
        return f"LPAD(BIN({name}), {d.size or 1}, '0')"
    if text or d.name in TEXT_FORMED:
        return f"CAST({name} AS CHAR)"
    return name


def carrier(column: Column, form: Type) -> Type:
    """The type as which the decoder takes what :func:`select_expression` gives, where that is not the form
    itself: what stands in a column of another type than its own."""
    d = parse(column.native)
    name = "" if d is None else d.name
    if form.kind == "time":
        return Type("duration", precision=form.precision, unit="us")
    if form.kind == "uuid" and name == "binary":
        return Type("binary", length=16, fixed=True)
    if form.kind == "jsonb":
        return Type("json")
    if form.kind in ("bit", "varbit") and name != "bit":
        return Type("text")
    if form.kind == "interval" or (form.kind in ("list", "struct", "map") and name != "set"):
        return Type("text")
    return form
