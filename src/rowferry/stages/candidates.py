"""Rows that have the same key, and which of them comes first in an order: sorted by DuckDB, in files of its own where
they do not fit in memory."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from collections.abc import Iterator

import pyarrow as pa

from rowferry import limits
from rowferry.errors import TargetError
from rowferry.stages.digest import digest_array


class Candidates:
    """All rows' digests and ordering values, in a database of their own in a folder. Thread-safe.

    Raises TargetError where a temporary file fails.
    """

    def __init__(self, folder: str) -> None:
        import duckdb

        self._folder = folder
        self._error = duckdb.Error
        with self._failing():
            self._connection = duckdb.connect(
                str(pathlib.Path(folder) / "candidates.duckdb"),
                config={"memory_limit": limits.WINNERS_MEMORY, "threads": 2, "temp_directory": folder},
            )
        self._lock = threading.Lock()
        self._made = False

    def add(self, keys: bytes, rows: bytes, values: pa.Array) -> None:
        """n rows: 16 n bytes of key digests, as many of row digests, and n values, of one type in all calls."""
        part = pa.table({"key": digest_array(keys), "row": digest_array(rows), "value": values})
        with self._lock, self._failing():
            self._connection.register("part", part)
            what = "INSERT INTO candidates" if self._made else "CREATE TABLE candidates AS"
            self._connection.execute(f"{what} SELECT * FROM part")
            self._connection.unregister("part")
            self._made = True

    def winners(self, *, last: bool) -> Iterator[tuple[bytes, bytes]]:
        """(keys, rows) of those that win, in parts; in the order of the keys, so that they are the same each time."""
        if not self._made:
            return
        # A key of one row alone needs no entry. Only of the others the values are sorted.
        with self._failing():
            found = self._connection.sql(
                f"""SELECT key, row FROM (
                        SELECT key, row, row_number() OVER (
                            PARTITION BY key ORDER BY value {"DESC" if last else "ASC"} NULLS LAST, row
                        ) AS place
                        FROM candidates SEMI JOIN (
                            SELECT key FROM candidates GROUP BY key HAVING count(*) > 1
                        ) AS contested USING (key)
                    ) WHERE place = 1 ORDER BY key"""
            ).to_arrow_reader(limits.WINNERS_PER_STEP)
            for batch in found:
                if batch.num_rows:
                    yield b"".join(batch.column(0).to_pylist()), b"".join(batch.column(1).to_pylist())

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise TargetError(
                f"the winners of the dedup could not be sorted in {self._folder}: {error}",
                hint="make room there, or set TMPDIR to another folder",
            ) from error

    def close(self) -> None:
        self._connection.close()
