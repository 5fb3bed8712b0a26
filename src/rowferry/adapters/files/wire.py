"""Bytes on disk: files that appear whole or not at all, and reading either format through one face.

A file is written under ``NAME.tmp``, fsynced and renamed; then its folder is fsynced. Nothing that
a reader looks for ever ends in ``.tmp``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rowferry import compute as pc
from rowferry.adapters.files.types import PARQUET
from rowferry.errors import RowferryError
from rowferry.types import type_of_field

TEMPORARY = ".tmp"
SUFFIXES = {"parquet": (".parquet",), "arrow": (".arrow", ".feather")}
#: Metadata of a file that a chunk left: its job and its ledger row, as JSON.
CHUNK_KEY = b"rowferry.chunk"
#: Metadata of every file that rowferry wrote: keys and user types of its table, as JSON.
TABLE_KEY = b"rowferry.table"

#: A row group: large enough for encodings to pay, small enough that each of several writers holds
#: one in memory (beside its encoded copy).
ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 8 << 20
#: Longest declared text (characters) or binary (bytes) whose smallest and largest values a file states.
STATISTICS_LENGTH_MAX = 1000
#: A column gets a dictionary if a sample of its values holds at most this share of distinct ones:
#: zstd with dictionaries on such columns only wrote fastest and smallest (1.8 M rows per CPU s).
DICTIONARY_SAMPLE_ROWS = 4096
DICTIONARY_SHARE_MAX = 0.1
#: Bytes read at once from each column of a Parquet file, instead of a whole column chunk.
READ_BYTES = 1 << 20


def sync_folder(path: str) -> None:
    """Makes renames within a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(path: str) -> None:
    """Gives the finished ``path.tmp`` its name."""
    os.rename(path + TEMPORARY, path)
    sync_folder(os.path.dirname(path))


def write_json(path: str, value: Any) -> None:
    """Replaces a small file, atomically and durably."""
    write_lines(path, [value])


def write_lines(path: str, values: Iterable[Any]) -> None:
    """Replaces a file by one with a line of JSON for each value, atomically and durably; not where there is none."""
    rest = iter(values)
    for first in rest:
        with open(path + TEMPORARY, "w", encoding="utf-8") as out:
            for value in itertools.chain([first], rest):
                json.dump(value, out, ensure_ascii=False, separators=(",", ":"))
                out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        publish(path)


@contextlib.contextmanager
def failures(error: type[RowferryError], path: str, doing: str) -> Iterator[None]:
    """Failures of the system and of the format as ``error``, naming the file."""
    try:
        yield
    except pa.ArrowException as failure:
        raise error(f"cannot {doing} {path!r}: {_first_line(failure)}") from None
    except OSError as failure:
        raise error(f"cannot {doing} {path!r}: {failure.strerror or _first_line(failure)}") from None


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]


class DataFile:
    """One file opened for reading. A *group* is a row group of Parquet, a record batch of Arrow IPC.

    Raises ``error`` naming the file, where it is missing, cut off or no such file at all.
    """

    def __init__(self, path: str, file_format: str, error: type[RowferryError]) -> None:
        self.path = path
        self._error = error
        self._parquet: Any = None
        self._file: Any = None
        with failures(error, path, "read"):
            self._file = pa.OSFile(path)
            try:
                if file_format == PARQUET:
                    self._parquet = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=READ_BYTES)
                    self.schema: pa.Schema = self._parquet.schema_arrow
                    self.metadata: dict[bytes, bytes] = dict(self._parquet.metadata.metadata or {})
                else:
                    self._ipc = pa.ipc.open_file(self._file)
                    self.schema = self._ipc.schema
                    self.metadata = dict(self.schema.metadata or {})
            except BaseException:
                self._file.close()
                raise

    @property
    def group_count(self) -> int:
        return int(self._parquet.num_row_groups if self._parquet else self._ipc.num_record_batches)

    def groups(self) -> list[tuple[int, int]]:
        """(rows, bytes in memory) of each group."""
        with failures(self._error, self.path, "read"):
            if self._parquet:
                meta = self._parquet.metadata
                return [
                    (meta.row_group(i).num_rows, meta.row_group(i).total_byte_size) for i in range(meta.num_row_groups)
                ]
            # Mapped, a batch that is not compressed is counted without being read.
            with pa.memory_map(self.path) as mapped:
                reader = pa.ipc.open_file(mapped)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                return [(batch.num_rows, batch.nbytes) for batch in batches]

    def chunk_metadata(self) -> bytes | None:
        """What :class:`PartWriter` was given at its end."""
        with failures(self._error, self.path, "read"):
            if self._parquet:
                return self.metadata.get(CHUNK_KEY)
            last = self._ipc.num_record_batches - 1
            if last < 0:
                return None
            custom = self._ipc.get_batch_with_custom_metadata(last).custom_metadata
            return dict(custom).get(CHUNK_KEY) if custom else None

    def batches(self, columns: Sequence[str], first: int, last: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The groups from first to last (exclusive), in batches of at most ``batch_rows`` rows."""
        with failures(self._error, self.path, "read"):
            if self._parquet:
                if first < last:
                    yield from self._parquet.iter_batches(
                        batch_rows, row_groups=list(range(first, last)), columns=list(columns), use_threads=False
                    )
                return
            for i in range(first, last):
                batch = self._ipc.get_batch(i).select(list(columns))
                for start in range(0, batch.num_rows, batch_rows):
                    yield batch.slice(start, batch_rows)

    def close(self) -> None:
        self._file.close()


class PartWriter:
    """Writes one file of a schema under ``path.tmp``: batches, then the end's metadata, then ``publish``.

    Holds at most one row group of ROW_GROUP_BYTES or ROW_GROUP_ROWS (one batch more), and its encoded copy.
    """

    def __init__(self, path: str, file_format: str, schema: pa.Schema) -> None:
        self.path = path
        self._format = file_format
        self.schema = schema
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._writer: Any = None
        self._sink: Any = None
        self.rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _open(self, sample: pa.RecordBatch | None) -> None:
        self._sink = pa.OSFile(self.path + TEMPORARY, "wb")
        if self._format != PARQUET:
            self._writer = pa.ipc.new_file(self._sink, self.schema)
            return
        self._writer = pq.ParquetWriter(
            self._sink,
            self.schema,
            version="2.6",
            compression="zstd",
            use_dictionary=_few_values(sample) if sample is not None else False,
            write_statistics=_of_bounded_size(self.schema),
        )

    def _flush(self) -> None:
        if self._writer is None:
            self._open(self._held[0] if self._held else None)
        if not self._held:
            return
        table = pa.Table.from_batches(self._held, self.schema)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        if self._format == PARQUET:
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        else:
            for batch in table.to_batches():
                self._writer.write_batch(batch)

    def finish(self, chunk: bytes | None = None) -> None:
        """Writes what is held and the chunk's metadata, closes and fsyncs; the file is still ``.tmp``."""
        self._flush()
        if chunk is not None and self._format == PARQUET:
            self._writer.add_key_value_metadata({CHUNK_KEY: chunk})
        elif chunk is not None:
            # The metadata of the schema stands before the rows: what is known after them goes with
            # an empty last batch.
            empty = pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in self.schema], schema=self.schema)
            self._writer.write_batch(empty, custom_metadata={CHUNK_KEY: chunk})
        self._writer.close()
        self._writer = None
        self._sink.close()
        self._sink = None
        sync_file(self.path + TEMPORARY)

    def abandon(self) -> None:
        """Removes what was written. Never raises."""
        for part in (self._writer, self._sink):
            # Closing writes: on a full disk it fails again, and the file goes anyway.
            with contextlib.suppress(OSError, pa.ArrowException):
                if part is not None:
                    part.close()
        self._writer = self._sink = None
        self._held = []
        with contextlib.suppress(OSError):
            os.unlink(self.path + TEMPORARY)


def _of_bounded_size(schema: pa.Schema) -> list[str] | bool:
    """Columns that get statistics: those whose values are small. Of a cell of 100 MB the writer would
    hold its smallest and largest value several times over (570 MB, measured)."""
    names = []
    for field in schema:
        tagged = type_of_field(field)
        length = tagged.length if tagged is not None else None
        fixed = not pa.types.is_nested(field.type) and not pa.types.is_string(field.type)
        if (fixed and not pa.types.is_binary(field.type)) or (length is not None and length <= STATISTICS_LENGTH_MAX):
            names.append(field.name)
    return names or False


def _few_values(batch: pa.RecordBatch) -> list[str] | bool:
    """Names of plain columns whose values repeat."""
    rows = min(batch.num_rows, DICTIONARY_SAMPLE_ROWS)
    found = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_string(field.type) or pa.types.is_integer(field.type) or pa.types.is_date(field.type):
            distinct = pc.count_distinct(column.slice(0, rows)).as_py()
            if rows and distinct <= max(1, rows * DICTIONARY_SHARE_MAX):
                found.append(field.name)
    return found or False
