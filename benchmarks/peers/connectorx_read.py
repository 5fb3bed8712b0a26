"""ConnectorX's reading, shared by the scripts that use it: the whole table as one Arrow table."""

from __future__ import annotations

import connectorx
import pyarrow as pa


def read(source: str, table: str, split_by: str, workers: str) -> pa.Table:
    split = {"partition_on": split_by, "partition_num": int(workers)} if split_by else {}
    return connectorx.read_sql(source, f"select * from {table}", return_type="arrow", **split)
