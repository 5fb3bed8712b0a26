"""The conventional way: ADBC's PostgreSQL reader handed straight to DuckDB."""

import sys

import adbc_driver_postgresql.dbapi
import duckdb

source, target = sys.argv[1:3]
with adbc_driver_postgresql.dbapi.connect(source) as connection, connection.cursor() as cursor:
    cursor.execute("select * from lineitem")
    reader = cursor.fetch_record_batch()
    with duckdb.connect(target) as out:
        # ADBC gives numerics as text; a table that is to be of use needs them as decimals again.
        out.execute(
            "create table lineitem as select * replace (l_quantity::decimal(15,2) as l_quantity, "
            "l_extendedprice::decimal(15,2) as l_extendedprice, l_discount::decimal(15,2) as l_discount, "
            "l_tax::decimal(15,2) as l_tax) from reader"
        )
