"""What the contract suite has to know of each engine: how a plain driver fills it, looks at it and alters it.

Nothing here uses rowferry: what an adapter wrote is looked at with other eyes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

#: Names that break what concatenates SQL or paths. Each is below 63 bytes.
ODD_NAMES = (
    'we"ird; drop table t; -- é\n',
    "with space",
    "emoji 🚢 and tab\t",
    "per%cent%2F",
    "a.b",
    "select",
    "sla/sh",
    "é" * 31,
)


@dataclasses.dataclass
class Quirks:
    """One engine. ``place`` is a folder of its own; every :meth:`url` names a new, empty database."""

    place: pathlib.Path
    engine: ClassVar[str]
    scheme: ClassVar[str]
    #: Tables can have keys; names of another schema than the default one can be made.
    keys: ClassVar[bool] = True
    #: A table can be altered by SQL.
    alters: ClassVar[bool] = True
    #: A second process may have the database open while we write to it.
    shares: ClassVar[bool] = False
    #: A table without a key is cut into chunks, too.
    splits_keyless: ClassVar[bool] = True
    #: It is a server, which a fixture starts.
    server: ClassVar[bool] = False

    def url(self) -> str:
        raise NotImplementedError

    def possible(self, name: str) -> str:
        """One of ``ODD_NAMES``, or where the engine has no such names the nearest that it has."""
        return name

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        """Makes a table and fills it."""
        raise NotImplementedError

    def load_target(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        """The same, for a table that rows are to be added to."""
        self.load(url, name, table, key)

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        """All rows as plain Python values, in the order of their first column."""
        raise NotImplementedError

    def tables(self, url: str) -> list[str]:
        """Tables of the default namespace, rowferry's own among them."""
        raise NotImplementedError

    def execute(self, url: str, *statements: str) -> None:
        """Runs SQL in the engine's own dialect."""
        raise NotImplementedError


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def declared(field: pa.Field, names: dict[str, str]) -> str:
    t = field.type
    if pa.types.is_decimal(t):
        return f"DECIMAL({t.precision},{t.scale})"
    return names[str(t)]


def columns_sql(table: pa.Table, key: Sequence[str], names: dict[str, str]) -> str:
    parts = [
        f"{quoted(f.name)} {declared(f, names)}{'' if f.nullable and f.name not in key else ' NOT NULL'}"
        for f in table.schema
    ]
    if key:
        parts.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
    return ", ".join(parts)


def ordered(rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    return sorted((tuple(r) for r in rows), key=lambda r: (r[0] is None, r[0] if r[0] is not None else 0))


SQL_NAMES = {
    "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE PRECISION", "string": "TEXT",
    "bool": "BOOLEAN", "date32[day]": "DATE", "timestamp[us]": "TIMESTAMP", "binary": "BLOB",
}  # fmt: skip


class Sqlite(Quirks):
    engine, scheme, shares = "sqlite", "sqlite", True

    def url(self) -> str:
        return f"sqlite:///{self.place / (uuid.uuid4().hex + '.db')}"

    @contextlib.contextmanager
    def _open(self, url: str) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            yield connection
            connection.commit()

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        with self._open(url) as c:
            c.execute(f"CREATE TABLE {quoted(name)} ({columns_sql(table, key, SQL_NAMES | {'int64': 'INTEGER'})})")
            marks = ", ".join("?" * table.num_columns)
            texts = [
                [None if v is None else str(v) if not isinstance(v, (int, float, str, bytes)) else v for v in row]
                for row in zip(*(c.to_pylist() for c in table.columns), strict=True)
            ]
            c.executemany(f"INSERT INTO {quoted(name)} VALUES ({marks})", texts)

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        with self._open(url) as c:
            return ordered(c.execute(f"SELECT * FROM {quoted(name)}").fetchall())

    def tables(self, url: str) -> list[str]:
        with self._open(url) as c:
            return [r[0] for r in c.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]

    def execute(self, url: str, *statements: str) -> None:
        with self._open(url) as c:
            for statement in statements:
                c.execute(statement)


class Duckdb(Quirks):
    engine, scheme = "duckdb", "duckdb"

    def url(self) -> str:
        return f"duckdb:///{self.place / (uuid.uuid4().hex + '.db')}"

    @contextlib.contextmanager
    def _open(self, url: str) -> Iterator[duckdb.DuckDBPyConnection]:
        with contextlib.closing(duckdb.connect(url.removeprefix("duckdb:///"))) as connection:
            yield connection

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        with self._open(url) as c:
            c.execute(f"CREATE TABLE {quoted(name)} ({columns_sql(table, key, SQL_NAMES)})")
            c.register("given", table)
            c.execute(f"INSERT INTO {quoted(name)} SELECT * FROM given")

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        with self._open(url) as c:
            return ordered(c.execute(f"SELECT * FROM {quoted(name)}").fetchall())

    def tables(self, url: str) -> list[str]:
        with self._open(url) as c:
            found = c.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1").fetchall()
            return [r[0] for r in found]

    def execute(self, url: str, *statements: str) -> None:
        with self._open(url) as c:
            for statement in statements:
                c.execute(statement)


def encoded(name: str) -> str:
    """A table's name as that of a file or folder; a plain dot parts schema and table."""
    return quote(name, safe="").replace(".", "%2E")


class Parquet(Quirks):
    """A folder with a file, or a folder of files, for each table."""

    engine, scheme, keys, alters, shares = "files", "parquet", False, False, True

    def url(self) -> str:
        folder = self.place / uuid.uuid4().hex
        folder.mkdir()
        return f"{self.scheme}:///{folder}"

    def folder(self, url: str) -> pathlib.Path:
        return pathlib.Path(url.removeprefix(f"{self.scheme}:///"))

    def _write(self, table: pa.Table, path: pathlib.Path) -> None:
        pa.parquet.write_table(table, path, row_group_size=1_000)

    def _read(self, path: pathlib.Path) -> pa.Table:
        return pa.parquet.ParquetFile(path).read()

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        self._write(table, self.folder(url) / f"{encoded(name)}.{self.scheme}")

    def load_target(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        """A folder of two files: a table that is a single file is not added to."""
        place = self.folder(url) / encoded(name)
        place.mkdir()
        self._write(table.slice(0, 1), place / f"a.{self.scheme}")
        self._write(table.slice(1), place / f"b.{self.scheme}")

    def files(self, url: str, name: str) -> list[pathlib.Path]:
        place = self.folder(url) / encoded(name)
        single = self.folder(url) / f"{encoded(name)}.{self.scheme}"
        return ([single] if single.exists() else []) + sorted(place.glob(f"*.{self.scheme}"))

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        parts = [self._read(path) for path in self.files(url, name)]
        rows = [row for part in parts for row in zip(*(c.to_pylist() for c in part.columns), strict=True)]
        return ordered(rows)

    def tables(self, url: str) -> list[str]:
        return sorted(unquote(p.stem if p.is_file() else p.name) for p in self.folder(url).iterdir())

    def replace(self, url: str, name: str, table: pa.Table) -> None:
        """Another table in the place of this one."""
        for path in self.files(url, name):
            path.unlink()
        shutil.rmtree(self.folder(url) / encoded(name), ignore_errors=True)
        self.load(url, name, table)


class ArrowFiles(Parquet):
    scheme = "arrow"

    def _write(self, table: pa.Table, path: pathlib.Path) -> None:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=1_000)

    def _read(self, path: pathlib.Path) -> pa.Table:
        with pa.OSFile(str(path), "rb") as file:
            return pa.ipc.open_file(file).read_all()


@dataclasses.dataclass
class Postgres(Quirks):
    """``make_database`` gives the URL of a new, empty database on a real server."""

    engine: ClassVar[str] = "postgres"
    scheme: ClassVar[str] = "postgresql"
    shares: ClassVar[bool] = True
    server: ClassVar[bool] = True
    make_database: Any = None

    def url(self) -> str:
        url: str = self.make_database()
        return url

    @contextlib.contextmanager
    def _open(self, url: str) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            yield connection

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        names = SQL_NAMES | {"binary": "BYTEA"}
        with self._open(url) as c, c.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {quoted(name)} ({columns_sql(table, key, names)})")
            with cursor.copy(f"COPY {quoted(name)} FROM STDIN") as copy:
                for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                    copy.write_row(row)
            cursor.execute(f"ANALYZE {quoted(name)}")

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        with self._open(url) as c:
            return ordered(c.execute(f"SELECT * FROM {quoted(name)}").fetchall())

    def tables(self, url: str) -> list[str]:
        with self._open(url) as c:
            found = c.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
            return [r[0] for r in found]

    def execute(self, url: str, *statements: str) -> None:
        with self._open(url) as c:
            for statement in statements:
                c.execute(statement)


@dataclasses.dataclass
class Mysql(Quirks):
    """``make_database`` gives the URL of a new, empty database on a real server (MariaDB).

    SQL runs under ANSI_QUOTES, so that names are quoted as elsewhere.
    """

    engine: ClassVar[str] = "mysql"
    splits_keyless: ClassVar[bool] = False
    scheme: ClassVar[str] = "mysql"
    shares: ClassVar[bool] = True
    server: ClassVar[bool] = True
    make_database: Any = None

    def url(self) -> str:
        url: str = self.make_database()
        return url

    @contextlib.contextmanager
    def _open(self, url: str) -> Iterator[Any]:
        import pymysql

        parts = urlsplit(url)
        connection = pymysql.connect(
            host=parts.hostname, port=parts.port or 3306, user=unquote(parts.username or ""),
            password=unquote(parts.password or ""), database=unquote(parts.path[1:]), charset="utf8mb4",
            sql_mode="ANSI_QUOTES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES",
            init_command="SET time_zone = '+00:00'", autocommit=True,
        )  # fmt: skip
        with contextlib.closing(connection), connection.cursor() as cursor:
            yield cursor

    def possible(self, name: str) -> str:
        # Identifiers are of the Basic Multilingual Plane, and do not end in a space of any kind.
        return name.replace("🚢", "⛴").rstrip()

    def load(self, url: str, name: str, table: pa.Table, key: Sequence[str] = ()) -> None:
        names = SQL_NAMES | {"string": "LONGTEXT", "binary": "LONGBLOB", "timestamp[us]": "DATETIME(6)"}
        names |= {"int8": "TINYINT", "uint64": "BIGINT UNSIGNED"}
        columns = [
            f"{quoted(f.name)} "
            + ("VARCHAR(190)" if f.name in key and pa.types.is_string(f.type) else declared(f, names))
            + ("" if f.nullable and f.name not in key else " NOT NULL")
            for f in table.schema
        ]
        columns += [f"PRIMARY KEY ({', '.join(map(quoted, key))})"] if key else []
        with self._open(url) as cursor:
            cursor.execute(f"CREATE TABLE {quoted(name)} ({', '.join(columns)}) COLLATE utf8mb4_bin")
            marks = ", ".join(["%s"] * table.num_columns)
            rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            table_name = quoted(name).replace("%", "%%")
            cursor.executemany(f"INSERT INTO {table_name} VALUES ({marks})", rows)
            cursor.execute(f"ANALYZE TABLE {quoted(name)}")

    def rows(self, url: str, name: str) -> list[tuple[Any, ...]]:
        with self._open(url) as cursor:
            cursor.execute(f"SELECT * FROM {quoted(name)}")
            return ordered(cursor.fetchall())

    def tables(self, url: str) -> list[str]:
        with self._open(url) as cursor:
            cursor.execute("SHOW TABLES")
            return sorted(row[0] for row in cursor.fetchall())

    def execute(self, url: str, *statements: str) -> None:
        with self._open(url) as cursor:
            for statement in statements:
                cursor.execute(statement)


QUIRKS: dict[str, type[Quirks]] = {
    "sqlite": Sqlite, "duckdb": Duckdb, "parquet": Parquet, "arrow": ArrowFiles, "postgres": Postgres,
    "mysql": Mysql,
}  # fmt: skip


def make_quirks(name: str, place: pathlib.Path, request: pytest.FixtureRequest) -> Quirks:
    if name == "postgres":
        return Postgres(place, make_database=request.getfixturevalue("postgres_database"))
    if name == "mysql":
        return Mysql(place, make_database=request.getfixturevalue("mysql_database"))
    return QUIRKS[name](place)
