"""The conventional way: ConnectorX into Arrow, that as text into a file, and PyMySQL's LOAD DATA LOCAL of it."""

import os
import sys
import tempfile
from urllib.parse import unquote, urlsplit

import connectorx_read
import pymysql
from copy_text import copy_text, is_bytes

source, target, table, _key, split_by, workers = sys.argv[1:]
arrow_table = connectorx_read.read(source, table, split_by, workers)
columns, sets = [], []
for field in arrow_table.schema:
    columns.append(f"@{field.name}" if is_bytes(field.type) else field.name)
    if is_bytes(field.type):
        sets.append(f"{field.name} = unhex(substr(@{field.name}, 3))")
parts = urlsplit(target)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "rows")
    with open(path, "wb") as file:
        for batch in arrow_table.to_batches(50_000):
            file.write(copy_text(batch))
    connection = pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=parts.path[1:], charset="utf8mb4", local_infile=True,
        init_command="set time_zone = '+00:00'",
    )  # fmt: skip
    with connection, connection.cursor() as cursor:
        cursor.execute(
            f"load data local infile '{path}' into table {table} character set utf8mb4 ({', '.join(columns)})"
            + (f" set {', '.join(sets)}" if sets else "")
        )
        connection.commit()
