"""The conventional way: ConnectorX into Arrow, and that into DuckDB."""

import sys

import connectorx
import duckdb

source, target = sys.argv[1:3]
arrow_table = connectorx.read_sql(
    source, "select * from lineitem", return_type="arrow", partition_on="l_orderkey", partition_num=2
)
with duckdb.connect(target) as out:
    out.execute("create table lineitem as select * from arrow_table")
