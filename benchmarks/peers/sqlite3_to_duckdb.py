"""The conventional way: the standard library's sqlite3 in pieces, through pyarrow, into DuckDB; the key at the end."""

import sqlite3
import sys

import duckdb
import pyarrow as pa

source, target, table, key = sys.argv[1:5]
connection = sqlite3.connect(source)
cursor = connection.execute(f"select * from {table}")
names = [d[0] for d in cursor.description]
with duckdb.connect(target) as out:
    made = False
    while rows := cursor.fetchmany(50_000):
        piece = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        if made:
            out.execute(f"insert into {table} select * from piece")
        else:
            out.execute(f"create table {table} as select * from piece")
            made = True
    out.execute(f"alter table {table} add primary key ({key})")
