"""Looks for values that a declared type does not bind, before anything is copied: which columns, and how many.

Nearly always there are none, so they are looked for first, by cheap conditions and up to the first one found; only
then are they counted. A large table is looked at in ranges of its key by several sessions at once. Each sees the
present, before any snapshot: what comes later, the reader finds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rowferry.adapters.mysql import census
from rowferry.adapters.mysql.chunks import STALE_BELOW_ROWS, even_ranges, select_from
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.model import Bound, Table

#: Rows that are looked at in some 20 ms: below that, a second session is not worth its login.
SHARED_FROM_ROWS = 100_000
#: Ranges for each session, since keys are not evenly filled; and rows of a range of a large table, so that the
#: sessions end soon after one of them has found something.
RANGES_PER_SESSION, RANGE_ROWS = 4, 500_000
RANGES_MAX = 1_000


def looked_at(
    table: Table,
    session: MysqlSession,
    others: Callable[[], Sequence[MysqlSession]] = tuple,
    counted: Callable[[int], None] = lambda rows: None,
) -> Table:
    """The table, where columns whose default form does not hold every value have a refusal with its count.

    others: gives more sessions, for a table that is worth them. counted: is told the number of rows, where each was
    looked at. Raises the session's error.
    """
    tests = census.tests_of(table.columns, session.flavour.mariadb)
    if not tests:
        return table
    sessions = [session]
    if table.kind != "view" and table.rows >= SHARED_FROM_ROWS:
        sessions += others()
    bounds = _ranges(table, sessions)
    if not _has_doubtful(table, sessions, bounds, census.any_doubt(tests), counted):
        return table
    counts = census.counts_of(tests)
    parts = _answers(sessions, [f"SELECT {counts} {select_from(table, None, bound, None)}" for bound in bounds])
    sums = {test.column: sum(int(rows[0][i]) for rows in parts) for i, test in enumerate(tests)}
    columns = (
        msgspec.structs.replace(c, refusal=census.refusal_of(c, sums[c.name])) if sums.get(c.name) else c
        for c in table.columns
    )
    return msgspec.structs.replace(table, columns=tuple(columns))


def _has_doubtful(
    table: Table, sessions: Sequence[MysqlSession], bounds: Sequence[Bound], doubt: str, counted: Callable[[int], None]
) -> bool:
    if table.kind == "view" or table.rows >= STALE_BELOW_ROWS:
        first = [f"SELECT 1 {select_from(table, None, bound, doubt)} LIMIT 1" for bound in bounds]
        return any(_answers(sessions, first, until_any=True))
    # The server's count of so few rows may be out of date (chunks.py); each is looked at anyway, and so counted.
    both = f"SELECT COUNT(*), COUNT(CASE WHEN {doubt} THEN 1 END)"
    statements = [f"{both} {select_from(table, None, bound, None)}" for bound in bounds]
    whole = [rows[0] for rows in _answers(sessions, statements)]
    counted(sum(int(rows) for rows, _ in whole))
    return any(int(doubtful) for _, doubtful in whole)


def _ranges(table: Table, sessions: Sequence[MysqlSession]) -> list[Bound]:
    """The whole table for one session, ranges of its key for several."""
    if len(sessions) == 1:
        return [Bound({})]
    count = max(RANGES_PER_SESSION * len(sessions), min(table.rows // RANGE_ROWS, RANGES_MAX))
    return even_ranges(sessions[0], table, count)


Rows = list[tuple[Any, ...]]


def _answers(sessions: Sequence[MysqlSession], statements: Sequence[str], *, until_any: bool = False) -> list[Rows]:
    """What each statement gives, as far as it was run: ``until_any`` ends with the first one that gives a row.

    Raises the first error of any session.
    """
    answers: list[Rows] = []
    errors: list[BaseException] = []
    left = list(reversed(statements))
    lock = threading.Lock()

    def work(session: MysqlSession) -> None:
        try:
            while not errors:
                with lock:
                    if not left or (until_any and any(answers)):
                        return
                    statement = left.pop()
                rows = session.query(statement)
                with lock:
                    answers.append(rows)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    helpers = [threading.Thread(target=work, args=(s,), daemon=True) for s in sessions[1 : len(statements)]]
    for helper in helpers:
        helper.start()
    work(sessions[0])
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return answers
