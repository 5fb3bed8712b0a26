"""Where rows come from and go to: databases of this benchmark's own, made, filled, looked at and dropped by plain
drivers (psycopg, PyMySQL, sqlite3, duckdb), never by rowferry."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import cost
import duckdb
import psycopg
import pyarrow as pa
import pymysql
from copy_text import copy_text
from tables import Sums, Table, exact

#: Types of a copy by column, as information_schema calls them (lower case, without lengths).
Types = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Login:
    """A server's URL in its parts."""

    host: str
    port: int
    user: str
    password: str


@dataclasses.dataclass
class Place:
    """One database (or file, or folder). ``url`` is what rowferry is given."""

    url: str
    engine = ""
    server_id: int | None = None

    def fresh(self, table: Table, *, made: bool) -> None:
        """Empties it; ``made``: with the empty table in it."""
        raise NotImplementedError

    def look(self, table: Table) -> tuple[Sums, Types]:
        """What stands in the copy of ``table``."""
        raise NotImplementedError

    def discard(self) -> None:
        """Removes it."""
        raise NotImplementedError


class Server(Place):
    """A database of a server; ``server_id`` is the server's process, where it is one of this machine."""

    def __init__(self, url: str, database: str) -> None:
        super().__init__(f"{url.rstrip('/')}/{quote(database)}")
        parts = urlsplit(url)
        self.database = database
        self.login = Login(
            parts.hostname or "127.0.0.1", parts.port or self.port_usual, unquote(parts.username or ""),
            unquote(parts.password or ""),
        )  # fmt: skip
        if self.login.host in ("127.0.0.1", "localhost", "::1"):
            self.server_id = cost.listener_of(self.login.port)

    port_usual = 0

    def load(self, table: Table, text: pathlib.Path) -> None:
        """Makes the table and fills it from a file of COPY text."""
        raise NotImplementedError


class Postgres(Server):
    engine = "postgres"
    port_usual = 5432

    def connect(self, database: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            host=self.login.host, port=self.login.port, user=self.login.user, password=self.login.password,
            dbname=database, autocommit=True,
        )  # fmt: skip
        connection.execute("set time zone 'UTC'")
        return connection

    def fresh(self, table: Table, *, made: bool) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"drop database if exists {self.database} with (force)")
            connection.execute(f"create database {self.database} encoding 'UTF8' template template0")
            # What the run before left to be written is not this one's to write.
            connection.execute("checkpoint")
        if made:
            # A bulk load's key comes after its rows: the command adds it.
            with self.connect(self.database) as connection:
                connection.execute(table.create("postgres", with_key=False))

    def load(self, table: Table, text: pathlib.Path) -> None:
        with self.connect(self.database) as connection, text.open("rb") as file:
            connection.execute(table.create("postgres", with_key=False))
            with connection.cursor().copy(f"copy {table.name} from stdin") as copy:
                while piece := file.read(1 << 20):
                    copy.write(piece)
            connection.execute(f"alter table {table.name} add primary key ({', '.join(table.key)})")
            connection.execute(f"vacuum analyze {table.name}")

    def look(self, table: Table) -> tuple[Sums, Types]:
        with self.connect(self.database) as connection:
            types = connection.execute(
                "select column_name, data_type from information_schema.columns where table_schema = 'public' "
                "and table_name = %s",
                (table.name,),
            ).fetchall()
            found = connection.execute(table.sums_query("postgres", f"public.{table.name}", dict(types))).fetchone()
        return exact(found or ()), dict(types)

    def discard(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"drop database if exists {self.database} with (force)")


class Mysql(Server):
    engine = "mysql"
    port_usual = 3306

    def connect(self, database: str | None = None) -> pymysql.connections.Connection[Any]:
        return pymysql.connect(
            host=self.login.host, port=self.login.port, user=self.login.user, password=self.login.password,
            database=database, autocommit=True, charset="utf8mb4", local_infile=True,
            init_command="set time_zone = '+00:00'",
        )  # fmt: skip

    def run(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def fresh(self, table: Table, *, made: bool) -> None:
        self.run(f"drop database if exists {self.database}", f"create database {self.database} character set utf8mb4")
        if made:
            # InnoDB keeps rows in the order of their key: it stands before the rows come.
            self.run(table.create("mysql", with_key=True), database=self.database)

    def load(self, table: Table, text: pathlib.Path) -> None:
        self.run(
            table.create("mysql", with_key=True),
            f"load data local infile '{text}' into table {table.name} character set utf8mb4 {table.load_clause}",
            f"analyze table {table.name}",
            database=self.database,
        )

    def look(self, table: Table) -> tuple[Sums, Types]:
        types = self.run(
            "select lower(column_name), data_type from information_schema.columns "
            f"where table_schema = '{self.database}' and table_name = '{table.name}'"
        )
        found = self.run(table.sums_query("mysql", table.name, dict(types)), database=self.database)
        return exact(found[0]), dict(types)

    def discard(self) -> None:
        self.run(f"drop database if exists {self.database}")


class Files(Place):
    """A file or folder of an embedded engine."""

    def __init__(self, scheme: str, path: pathlib.Path) -> None:
        super().__init__(f"{scheme}:///{path}")
        self.path = path

    def fresh(self, table: Table, *, made: bool) -> None:
        self.discard()

    def discard(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path)
        for file in self.path.parent.glob(self.path.name + "*"):
            file.unlink()


class Duckdb(Files):
    engine = "duckdb"

    def look(self, table: Table) -> tuple[Sums, Types]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            return _look(connection, table, f"main.{table.name}")


class Parquet(Files):
    engine = "parquet"

    def look(self, table: Table) -> tuple[Sums, Types]:
        with duckdb.connect() as connection:
            return _look(connection, table, f"(from read_parquet('{self.path}/{table.name}/*.parquet'))")


class Sqlite(Files):
    engine = "sqlite"

    def load(self, table: Table, rows: int) -> None:
        """Makes the table and fills it from the batches; decimals and dates as text."""
        marks = ", ".join("?" * len(table.columns))
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute(table.create("sqlite", with_key=True))
            for batch in table.batches(rows):
                columns = [c if pa.types.is_integer(c.type) else c.cast(pa.utf8()) for c in batch.columns]
                values = zip(*(c.to_pylist() for c in columns), strict=True)
                connection.executemany(f"insert into {table.name} values ({marks})", values)
            connection.commit()


def _look(connection: duckdb.DuckDBPyConnection, table: Table, place: str) -> tuple[Sums, Types]:
    connection.execute("set timezone = 'UTC'")
    types = {
        row[0].lower(): row[1].partition("(")[0].lower()
        for row in connection.execute(f"describe select * from {place}").fetchall()
    }
    return exact(connection.execute(table.sums_query("duckdb", place, types)).fetchall()[0]), types


def write_text(table: Table, rows: int, path: pathlib.Path) -> None:
    """The table's rows as COPY text; the user of a server on this machine may read them."""
    with path.open("wb") as file:
        for batch in table.batches(rows):
            file.write(copy_text(batch))
    os.chmod(path, 0o644)


def settle() -> None:
    """Writes out what runs before left in the machine's cache: no run pays for another's."""
    subprocess.run(["sync"], check=True)
