"""What a server or a lost connection said, as rowferry's own errors."""

from __future__ import annotations

import re

from rowferry.adapters.postgres.wire import ConnectionLostError, ServerError
from rowferry.errors import DataError, RowferryError, SourceError, TargetError

#: SQLSTATE classes after which the same chunk may succeed on a new connection: connection
#: exceptions, resources (disk, memory, connections), an operator's intervention other than a cancel.
_TRANSIENT_CLASSES = ("08", "53")
#: Serialization failure, deadlock, lock not available, and shutdowns (57P01–57P05).
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05")
#: Classes that speak of a value: data exceptions, integrity constraints, a WITH CHECK OPTION.
_DATA_CLASSES = ("22", "23", "44")
#: Texts that no UTF-8 client can be sent: the only errors of a source that are a value's.
_SOURCE_DATA_CODES = ("22021", "22P05")

#: Classes that speak of one row of many without being about its values: what a trigger raises, an index row that
#: is too large, and the codes that are users' own (RAISE … USING ERRCODE).
_ROW_CLASSES = re.compile("P0|54|[I-OQ-WYZ].")
#: A value of the type name, too: COPY into it refuses what is longer than 63 bytes by this code.
_NAME_TOO_LONG = "42622"

#: ON CONFLICT DO UPDATE would change one row twice.
_TWICE = "21000"

_HINTS = {
    "42501": "grant the privilege, or connect as another user",
    "25006": "the server, or this user, may only read",
    "53100": "make room on the server's disk",
    "28P01": "check user and password (URL, PGPASSWORD, ~/.pgpass)",
    "28000": "check the server's pg_hba.conf",
}
_COPY_CONTEXT = re.compile(r'^COPY .+?, line (\d+)(?:, column (.+?))?(?:: "(.*)")?$', re.S)


def is_transient(code: str) -> bool:
    return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES


def from_server(error: ServerError, role: type[RowferryError], columns: dict[str, str] | None = None) -> RowferryError:
    """The error of ``role`` (SourceError, TargetError, LedgerError), or a DataError where a value is at fault.

    columns: names of a staging table's columns → the names a user knows.
    """
    fields = error.fields
    code = fields.get("C", "")
    message = fields.get("M", "unknown error")
    if fields.get("D"):
        message += f" ({_shortened(fields['D'])})"
    column, value = fields.get("c"), None
    context = _COPY_CONTEXT.match((fields.get("W") or "").split("\n")[0])
    if context:
        column = column or context.group(2)
        value = context.group(3)
        message += f", row {context.group(1)} of this chunk"
    if column and columns:
        column = columns.get(column, column)
    kind: type[RowferryError] = role
    if code == _TWICE and issubclass(role, TargetError):
        return DataError("a key was sent more than once: an upsert takes each once", code=code)
    if (issubclass(role, TargetError) and (code[:2] in _DATA_CLASSES or code == _NAME_TOO_LONG)) or (
        issubclass(role, SourceError) and code in _SOURCE_DATA_CODES
    ):
        kind = DataError
    made = kind(
        message,
        column=column,
        value=_shortened(value) if value is not None else None,
        code=code or None,
        hint=fields.get("H") or _HINTS.get(code),
        transient=is_transient(code),
    )
    made.row = int(context.group(1)) - 1 if context else None
    made.of_row = issubclass(role, TargetError) and _ROW_CLASSES.fullmatch(code[:2]) is not None
    return made


def from_loss(error: ConnectionLostError, role: type[RowferryError]) -> RowferryError:
    return role(str(error), code="08006", transient=True)


def _shortened(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[:length] + "…"
