"""dlt as its documentation has it for speed: sql_database with Arrow batches, into the destination of that engine."""

import sys
from urllib.parse import urlsplit

import dlt
import sqlalchemy
from dlt.sources.sql_database import sql_table

source, target, table = sys.argv[1:4]


def with_driver(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{ {'mysql': 'mysql+pymysql', 'postgresql': 'postgresql+psycopg2'}[scheme] }://{rest}"


file_format = None
if target.startswith("postgresql:"):
    destination, dataset = dlt.destinations.postgres(target), "public"
    file_format = "parquet"  # through ADBC: faster than its CSV, and bytes pass, too
elif target.startswith("mysql:"):
    destination = dlt.destinations.sqlalchemy(sqlalchemy.create_engine(with_driver(target)))
    dataset = urlsplit(target).path[1:]
else:
    destination, dataset = dlt.destinations.duckdb(target), "main"
rows = sql_table(credentials=with_driver(source), table=table, backend="pyarrow", chunk_size=50_000)
pipeline = dlt.pipeline("side_by_side", destination=destination, dataset_name=dataset)
pipeline.run(rows, write_disposition="replace", loader_file_format=file_format).raise_on_failed_jobs()
