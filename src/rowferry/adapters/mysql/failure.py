"""What a server, PyMySQL or a lost connection said, as rowferry's own errors.

Codes: https://mariadb.com/kb/en/mariadb-error-code-reference/ and
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
"""

from __future__ import annotations

import re

from pymysql import err

from rowferry.errors import DataError, RowferryError, SourceError, TargetError

#: The connection is gone: the client's own codes, shutdowns, KILL, a session that the server ended.
_LOST = frozenset((
    1053,  # server shutdown in progress
    1077, 1078, 1079,  # normal shutdown, signal, shutdown complete
    1152, 1184,  # aborted connection
    1153,  # a packet bigger than max_allowed_packet closes the connection, too (but see _TERMINAL)
    1156, 1157, 1158, 1159, 1160, 1161,  # packets out of order, timeouts while reading or writing one
    1927, 1317,  # connection was killed; query was interrupted
    2002, 2003, 2006, 2013, 2014, 2027, 2055,  # the client's: no connection, gone, lost, malformed packet
    3169, 4031,  # session was killed; disconnected for inactivity (MySQL 8)
))  # fmt: skip

#: The same chunk may succeed on another try: locks, deadlocks, full resources, a server that is busy starting.
_RETRIED = frozenset((
    1021, 1037, 1038, 1041,  # disk full, out of memory, of sort memory, of resources
    1040, 1135, 1203, 1226,  # too many connections, no thread, a user's limits
    1205, 1213, 1020,  # lock wait timeout, deadlock, record has changed since last read
    1114,  # table is full: the disk's, or a limit that somebody raises
    1412,  # table definition has changed: for a writer's transaction; a source's error is terminal (see below)
    1615,  # prepared statement needs to be re-prepared
    1637, 1180, 1181,  # too many transactions, error during COMMIT, during ROLLBACK
    1689, 3572,  # NOWAIT, or a lock of the engine's
    1836, 3100,  # read-only mode while switching over; a plugin stopped the commit (group replication)
    1047,  # Galera: the node is not ready
    1969, 3024,  # a statement's timeout, which our sessions have none of: somebody ended it
))  # fmt: skip

_TERMINAL = frozenset((1153,))

#: What speaks of a value, where a target says it.
_DATA = frozenset((
    1048, 1062, 1263, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 1411, 1416, 1425, 1426, 1427, 1441, 1451, 1452,
    1586, 1690, 1216, 1217, 3140, 3141, 3144, 3157, 3158, 3819, 4025, 1300, 1977,
))  # fmt: skip

#: What refuses one row of many without being about its values: SIGNAL in a trigger, a row that is too large.
_ROW_CODES = frozenset((1644, 1645, 1646, 1118, 139))

_DENIED = frozenset((1044, 1045, 1130, 1141, 1142, 1143, 1227, 1370, 1410, 1698, 1820, 1862, 3118, 4151))

_HINTS = {
    1040: "the server's max_connections is reached: use fewer --workers",
    1044: "grant the privilege, or connect as another user",
    1045: "check user and password (URL, ~/.my.cnf, MYSQL_PWD)",
    1021: "the server's disk is full: make room and run the same command again",
    1114: "the server's disk is full, or a limit of its tablespace: make room and run the same command again",
    1130: "the server does not let this host in",
    1142: "grant the privilege, or connect as another user",
    1143: "grant the privilege, or connect as another user",
    1153: "raise the server's max_allowed_packet",
    1227: "grant the privilege, or connect as another user",
    1290: "the server, or this user, may only read",
    1698: "check user and password (URL, ~/.my.cnf, MYSQL_PWD)",
    1820: "the user has to set a new password first",
    1862: "the user's password has expired",
    1412: "run the same command again",
}
_COLUMN = re.compile(r"[Cc]olumn '((?:[^']|'')+)'|for column (?:`[^`]*`\.)*`((?:[^`]|``)+)`")
_ROW = re.compile(r"at row (\d+)\b")


def is_transient(code: int) -> bool:
    return (code in _LOST or code in _RETRIED) and code not in _TERMINAL


def is_loss(code: int) -> bool:
    """The connection is gone, or may be: the outcome of what was asked last is not known."""
    return code in _LOST or code == 0


def code_of(error: BaseException) -> int:
    """The server's or the client library's number; 0 where there is none (a closed connection)."""
    number = error.args[0] if error.args else 0
    # PyMySQL reads the number as a signed one.
    return number % 65536 if isinstance(number, int) else 0


def from_driver(error: BaseException, role: type[RowferryError]) -> RowferryError:
    """PyMySQL's exception as ``role`` (SourceError, TargetError, LedgerError), or DataError where a value is at fault.

    The text ends in ``[code/SQLSTATE]``; a number that is the client's own has no SQLSTATE but HY000.
    """
    code = code_of(error)
    message = str(error.args[1]) if len(error.args) > 1 and error.args[1] else ""
    if isinstance(error, err.InterfaceError) and code == 0:
        code, message = 2006, message or "the connection is closed"
    message = message or "unknown error"
    sqlstate = getattr(error, "sqlstate", None) or ("28000" if code in (1045, 1698) else "HY000")
    kind = role
    if issubclass(role, TargetError) and code in _DATA:
        kind = DataError
    column = _COLUMN.search(message) if kind is DataError else None
    made = kind(
        message,
        column=(column.group(1) or column.group(2)) if column else None,
        code=f"{code}/{sqlstate}",
        hint=_HINTS.get(code),
        # A snapshot in which the table has another definition will not get its old one back.
        transient=is_transient(code) and not (code == 1412 and issubclass(role, SourceError)),
    )
    made.of_row = issubclass(role, TargetError) and code in _ROW_CODES
    return made


def is_denied(error: RowferryError) -> bool:
    """The server refuses for want of a privilege or a password."""
    return number_of(error) in _DENIED


def number_of(error: RowferryError) -> int:
    """The server's number in an error of :func:`from_driver`; 0 where there is none."""
    number = (error.code or "").partition("/")[0]
    return int(number) if number.isdigit() else 0
