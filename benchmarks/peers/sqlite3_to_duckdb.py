"""The conventional way: the standard library's sqlite3 in pieces, through pyarrow, into DuckDB."""

import sqlite3
import sys

import duckdb
import pyarrow as pa

source, target = sys.argv[1:3]
connection = sqlite3.connect(source)
cursor = connection.execute("select * from lineitem")
names = [d[0] for d in cursor.description]
with duckdb.connect(target) as out:
    made = False
    while rows := cursor.fetchmany(50_000):
        piece = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        if made:
            out.execute("insert into lineitem select * from piece")
        else:
            out.execute("create table lineitem as select * from piece")
            made = True
