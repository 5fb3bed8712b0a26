"""The conventional way: ConnectorX into Arrow, that as text into psycopg's COPY; the key at the end."""

import sys

import connectorx_read
import psycopg
from copy_text import copy_text

source, target, table, key, split_by, workers = sys.argv[1:]
arrow_table = connectorx_read.read(source, table, split_by, workers)
with psycopg.connect(target) as connection:
    with connection.cursor().copy(f"copy {table} ({', '.join(arrow_table.column_names)}) from stdin") as copy:
        for batch in arrow_table.to_batches(50_000):
            copy.write(copy_text(batch))
    connection.execute(f"alter table {table} add primary key ({key})")
