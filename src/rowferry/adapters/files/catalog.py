"""A folder as a database: which files are which table, and what their schemas and metadata say.

``name/`` holds the parts of table ``name``, ``schema@name/`` those of a table in another schema; both
parts of the name are percent-encoded (also dots, and an underscore in front), so any name fits and none
is taken for another. A file ``name.parquet`` in the folder itself is a table as well.
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa

from rowferry.adapters.files.types import type_in_file
from rowferry.adapters.files.wire import SUFFIXES, TABLE_KEY, DataFile, failures
from rowferry.convert import conversion
from rowferry.errors import ConfigError, RowferryError
from rowferry.model import QUARANTINE_NAME, Column, Refusal, Table, TableName, UserType
from rowferry.types import NATIVE_KEY, Type, dump

#: The folder of rowferry's own files, within the database's folder.
OWN = "_rowferry"
#: The file without rows that tells a table's schema, also where it has no parts yet.
SCHEMA_STEM = "schema"
#: Longest name of a file on the usual file systems, in bytes.
FILE_NAME_BYTES_MAX = 255
_TEXT = Type("text")


class TableNote(msgspec.Struct, frozen=True):
    """What a file remembers of its table beside the columns."""

    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()
    user_types: tuple[UserType, ...] = ()
    source: str = ""
    version: int = 1


def encode_name(name: TableName) -> str:
    """The folder of a table."""
    return _encode(name.name) if name.schema is None else f"{_encode(name.schema)}@{_encode(name.name)}"


def _encode(part: str) -> str:
    # An underscore or a dot in front means "not data" to most readers of such folders.
    encoded = quote(part, safe="").replace(".", "%2E")
    return f"%5F{encoded[1:]}" if encoded.startswith("_") else encoded


def decode_name(text: str) -> TableName:
    schema, at, name = text.partition("@")
    if not at or "@" in name or not schema or not name:
        return TableName(None, unquote(text))
    return TableName(unquote(schema), unquote(name))


class Folder:
    """One database of files. ``path`` may also be a single file, which is one table."""

    def __init__(self, path: str, file_format: str, error: type[RowferryError]) -> None:
        self.path = path
        self.format = file_format
        self.error = error

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.format][0]

    def is_data(self, name: str) -> bool:
        return name.endswith(SUFFIXES[self.format]) and not name.startswith((".", "_"))

    def folder_of(self, name: TableName) -> str:
        """Where the parts of a table that we write stand; those of the quarantine among rowferry's own files."""
        if name.name == QUARANTINE_NAME:
            return os.path.join(self.path, OWN, QUARANTINE_NAME)
        return os.path.join(self.path, encode_name(name))

    def tables(self) -> dict[TableName, str]:
        """Table → its folder or single file."""
        if os.path.isfile(self.path):
            return {TableName(None, _stem(os.path.basename(self.path))): self.path}
        found: dict[TableName, str] = {}
        with failures(self.error, self.path, "list"):
            entries = sorted(os.scandir(self.path), key=lambda e: e.name)
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if entry.is_dir():
                    if not any(self.is_data(n) or "=" in n for n in os.listdir(entry.path)):
                        continue
                    name = decode_name(entry.name)
                elif self.is_data(entry.name):
                    name = decode_name(_stem(entry.name))
                else:
                    continue
                if name in found:
                    raise ConfigError(
                        f"{os.path.basename(found[name])!r} and {entry.name!r} are both table {str(name)!r}"
                    )
                found[name] = entry.path
        return found

    def files(self, name: TableName) -> list[str]:
        """All files of a table, sorted by name; the schema file first. Empty where there is no such table."""
        place = self.folder_of(name) if name.name == QUARANTINE_NAME else self.tables().get(name)
        if place is None or not os.path.exists(place):
            return []
        if os.path.isfile(place):
            return [place]
        with failures(self.error, place, "list"):
            entries = sorted(os.listdir(place))
        hive = [e for e in entries if "=" in e and os.path.isdir(os.path.join(place, e))]
        if hive:
            raise ConfigError(
                f"folders partitioned by value ({hive[0]!r}) are not read: the values are not in the files",
                table=str(name),
                hint="read them with DuckDB's hive_partitioning into a DuckDB file, and copy that",
            )
        schema = SCHEMA_STEM + self.suffix
        return [os.path.join(place, e) for e in sorted(filter(self.is_data, entries), key=lambda e: (e != schema, e))]

    def open(self, path: str) -> DataFile:
        return DataFile(path, self.format, self.error)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def note_of(metadata: dict[bytes, bytes]) -> TableNote:
    """The note in a file's metadata; an empty one where there is none of ours."""
    try:
        return msgspec.json.decode(metadata[TABLE_KEY], type=TableNote)
    except (KeyError, msgspec.MsgspecError):
        return TableNote()


def note_metadata(note: TableNote) -> dict[bytes, bytes]:
    return {TABLE_KEY: msgspec.json.encode(dump(note))}


def describe(folder: Folder, name: TableName) -> Table | None:
    """The table that the files of this name make up. Raises where two files do not agree on the columns."""
    files = folder.files(name)
    if not files:
        return None
    columns: tuple[Column, ...] = ()
    note = TableNote()
    rows = size = 0
    for number, path in enumerate(files):
        file = folder.open(path)
        try:
            found = _columns(file.schema, path, folder.error)
            if number == 0:
                columns, note = found, note_of(file.metadata)
            elif [(c.name, c.type) for c in found] != [(c.name, c.type) for c in columns]:
                raise folder.error(
                    f"{path!r} and {files[0]!r} have different columns: {_difference(found, columns)}", table=str(name)
                )
            for group_rows, group_bytes in file.groups():
                rows += group_rows
                size += group_bytes
        finally:
            file.close()
    names = {c.name for c in columns}
    return Table(
        name=name,
        columns=columns,
        primary_key=note.primary_key if set(note.primary_key) <= names else (),
        unique_keys=tuple(k for k in note.unique_keys if set(k) <= names),
        rows=rows,
        bytes=size,
        fingerprint=_fingerprint(columns),
        kind="file",
        user_types=note.user_types,
    )


def fingerprint(folder: Folder, name: TableName) -> str:
    """A hash of the columns by the first file; '' where the table is gone."""
    files = folder.files(name)
    if not files:
        return ""
    file = folder.open(files[0])
    try:
        return _fingerprint(_columns(file.schema, files[0], folder.error))
    finally:
        file.close()


def _fingerprint(columns: tuple[Column, ...]) -> str:
    shape = msgspec.json.encode([(c.name, dump(c.type), c.nullable) for c in columns])
    return hashlib.sha256(shape).hexdigest()[:32]


def _difference(a: tuple[Column, ...], b: tuple[Column, ...]) -> str:
    one, other = ({c.name: str(c.type) for c in x} for x in (a, b))
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            return f"{name!r} is {one.get(name, 'absent')} and {other.get(name, 'absent')}"
    return "their order"


def describe_schema(folder: Folder, schema: pa.Schema, path: str) -> tuple[Column, ...]:
    """The columns of one file."""
    return _columns(schema, path, folder.error)


def _columns(schema: pa.Schema, path: str, error: type[RowferryError]) -> tuple[Column, ...]:
    if len(set(schema.names)) < len(schema.names):
        twice = next(n for n in schema.names if schema.names.count(n) > 1)
        raise error(f"{path!r} has two columns {twice!r}")
    return tuple(_column(field) for field in schema)


def _column(field: pa.Field) -> Column:
    t = type_in_file(field)
    native = (field.metadata or {}).get(NATIVE_KEY, b"").decode("utf-8", "replace").partition(":")[2]
    if t is None:
        refusal = Refusal(field.name, f"the Arrow type {field.type} has no form elsewhere", policies=("skip",))
        return Column(field.name, _TEXT, field.nullable, str(field.type), (_TEXT,), refusal=refusal)
    forms: tuple[Type, ...] = (t,)
    if t.kind != "text" and not isinstance(conversion(t, _TEXT), str):
        forms = (t, _TEXT)
    return Column(field.name, t, field.nullable, native or str(field.type), forms)
