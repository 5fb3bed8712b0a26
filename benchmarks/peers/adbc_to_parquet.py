"""The conventional way: ADBC's PostgreSQL reader written by pyarrow (numerics stay texts)."""

import pathlib
import sys

import adbc_driver_postgresql.dbapi
import pyarrow.parquet as pq

source, folder, table = sys.argv[1:4]
out = pathlib.Path(folder, table)
out.mkdir(parents=True)
with adbc_driver_postgresql.dbapi.connect(source) as connection, connection.cursor() as cursor:
    cursor.execute(f"select * from {table}")
    reader = cursor.fetch_record_batch()
    with pq.ParquetWriter(out / "part.parquet", reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
