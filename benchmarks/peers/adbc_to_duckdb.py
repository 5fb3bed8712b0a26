"""The conventional way: ADBC's PostgreSQL reader handed straight to DuckDB; the key at the end."""

import sys

import adbc_driver_postgresql.dbapi
import duckdb

source, target, table, key = sys.argv[1:5]
with adbc_driver_postgresql.dbapi.connect(source) as connection, connection.cursor() as cursor:
    cursor.execute(f"select * from {table}")
    reader = cursor.fetch_record_batch()
    # ADBC gives numerics as text; a table that is to be of use needs them as decimals again.
    replaced = {"lineitem": ("l_quantity", "l_extendedprice", "l_discount", "l_tax")}.get(table, ())
    casts = ", ".join(f"{name}::decimal(15,2) as {name}" for name in replaced)
    with duckdb.connect(target) as out:
        out.execute(f"create table {table} as select * {f'replace ({casts})' if casts else ''} from reader")
        out.execute(f"alter table {table} add primary key ({key})")
