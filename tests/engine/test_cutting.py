"""How many chunks a table becomes: none so small that its transaction costs more than its rows, and one for each
worker where that can be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mysql_servers
import rowferry


@pytest.mark.server
@pytest.mark.parametrize(("rows", "workers", "chunks"), [(3_000, 2, 1), (9_000, 2, 2), (9_000, 1, 1), (9_000, 8, 2)])
def test_table_smaller_than_a_chunk_is_shared_out_where_each_share_is_worth_it(
    mysql_server: mysql_servers.Mariadb,
    mysql_database: Callable[[], str],
    postgres_database: Callable[[], str],
    rows: int,
    workers: int,
    chunks: int,
) -> None:
    source, target = mysql_database(), postgres_database()
    mysql_server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c text CHARACTER SET latin1)",
        f"INSERT INTO t SELECT seq, repeat('x', 2000) FROM seq_1_to_{rows}",
        "ANALYZE TABLE t",
        database=source.rpartition("/")[2],
    )
    report = rowferry.copy(source, target, tables=["t"], workers=workers, verify=True)
    assert (report.tables[0].rows_committed, report.tables[0].chunks) == (rows, chunks)
    assert report.tables[0].equal
