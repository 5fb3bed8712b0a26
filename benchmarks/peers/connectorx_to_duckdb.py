"""The conventional way: ConnectorX into Arrow, and that into DuckDB; the key, where one is asked for, at the end."""

import sys

import connectorx_read
import duckdb

source, target, table, key, split_by, workers = sys.argv[1:]
arrow_table = connectorx_read.read(source, table, split_by, workers)
with duckdb.connect(target) as out:
    out.execute(f"create table {table} as select * from arrow_table")
    if key:
        out.execute(f"alter table {table} add primary key ({key})")
