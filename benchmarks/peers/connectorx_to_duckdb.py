"""The conventional way: ConnectorX into Arrow, and that into DuckDB: as a table of the given columns with its key at
the end, or, without these, of whatever types ConnectorX gives."""

import sys

import connectorx_read
import duckdb

source, target, table, key, split_by, workers, *columns = sys.argv[1:]
arrow_table = connectorx_read.read(source, table, split_by, workers)
with duckdb.connect(target) as out:
    if columns:
        out.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        out.execute(f"create table {table} ({columns[0]})")
        out.execute(f"insert into {table} select * from arrow_table")
    else:
        out.execute(f"create table {table} as select * from arrow_table")
    if key:
        out.execute(f"alter table {table} add primary key ({key})")
