"""The conventional way: ConnectorX into Arrow, and that into DuckDB."""

import sys

import connectorx_read
import duckdb

source, target, table, _key, split_by, workers = sys.argv[1:]
arrow_table = connectorx_read.read(source, table, split_by, workers)
with duckdb.connect(target) as out:
    out.execute(f"create table {table} as select * from arrow_table")
