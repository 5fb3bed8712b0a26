"""Names and literals as PostgreSQL reads them (under standard_conforming_strings = on, which sessions pin)."""

from __future__ import annotations

from collections.abc import Iterable

from rowferry.model import TableName

DEFAULT_SCHEMA = "public"


def ident(name: str) -> str:
    """A quoted identifier. A NUL cannot be in one; the protocol layer refuses it."""
    return '"' + name.replace('"', '""') + '"'


def idents(names: Iterable[str]) -> str:
    return ", ".join(ident(n) for n in names)


def literal(text: str | None) -> str:
    """A string literal; backslashes are plain characters."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def schema_of(name: TableName) -> str:
    return name.schema if name.schema is not None else DEFAULT_SCHEMA


def qualified(name: TableName) -> str:
    return f"{ident(schema_of(name))}.{ident(name.name)}"


def table_name(schema: str, name: str) -> TableName:
    """A TableName as the model has it: the default namespace without its schema."""
    return TableName(None if schema == DEFAULT_SCHEMA else schema, name)
