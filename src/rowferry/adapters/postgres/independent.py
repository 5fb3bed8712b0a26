"""The second decoder: adbc-driver-postgresql, written by others, so that a mistake that our encoder
and decoder shared would show.

What it does not read truly (measured with 1.13: infinite dates and timestamps, times at 24:00,
numerics that are not finite, arrays of several dimensions, bit strings, oids above 2^31, ranges,
network and geometric types) is not left to it: the server gives those columns as text or as plain
integers, which it does read truly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from rowferry import compute as pc
from rowferry.adapters.postgres.chunks import select_from
from rowferry.adapters.postgres.connect import Parameters
from rowferry.adapters.postgres.failure import is_transient
from rowferry.adapters.postgres.quoting import ident
from rowferry.adapters.postgres.session import pin_sql
from rowferry.adapters.protocol import Block, ReadRequest
from rowferry.convert import canonical_array, conversion
from rowferry.errors import ConfigError, SourceError
from rowferry.model import Table, TableName
from rowferry.types import DATE_INFINITY, DATE_MINUS_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY, Type

#: extract() gives an exact numeric from here on, and a double before.
VERSION_MIN = 14
#: The driver's own name for "bytes of one batch".
_BATCH_OPTION = "adbc.postgresql.batch_size_hint_bytes"

#: Kinds that the driver reads truly as they are.
_TRUE_KINDS = frozenset(
    ("bool", "int16", "int32", "float32", "float64", "text", "char", "binary", "json", "enum", "interval")
)
_MICROSECONDS = "(extract(epoch FROM {c}) * 1000000)::int8"
#: SQL that gives a value in a type that the driver reads truly; the rest is cast to text.
_TIMESTAMP = (
    f"CASE WHEN isfinite({{c}}) THEN {_MICROSECONDS} WHEN {{c}} = 'infinity' THEN {TIMESTAMP_INFINITY} "
    f"WHEN {{c}} = '-infinity' THEN ({TIMESTAMP_MINUS_INFINITY})::int8 END"
)
_EXPRESSIONS = {
    "int64": "{c}::int8",
    "date": "CASE WHEN isfinite({c}) THEN {c} - '1970-01-01'::date "
    f"WHEN {{c}} = 'infinity' THEN {DATE_INFINITY} WHEN {{c}} = '-infinity' THEN {DATE_MINUS_INFINITY} END",
    "time": _MICROSECONDS,
    "timestamp": _TIMESTAMP,
    "timestamptz": _TIMESTAMP,
}
_INTEGER_KINDS = frozenset(("date", "time", "timestamp", "timestamptz"))


def expression(column: str, form: Type) -> str:
    """What is selected for a form of a column (an SQL expression)."""
    if form.kind == "list":
        assert form.element is not None
        if form.element.kind in _TRUE_KINDS - {"char", "enum", "interval"}:
            return column
        element = expression("u.x", form.element)
        # unnest() of a one-dimensional array, counted: the order is the array's.
        return (
            f"CASE WHEN {column} IS NOT NULL THEN "
            f"ARRAY(SELECT {element} FROM unnest({column}) WITH ORDINALITY AS u(x, n) ORDER BY u.n) END"
        )
    if form.kind in _TRUE_KINDS:
        return f"{column}::text" if form.kind in ("enum", "json") else column
    return _EXPRESSIONS.get(form.kind, "{c}::text").replace("{c}", column)


def restore(array: pa.Array, form: Type) -> pa.Array:
    """What the driver gave for :func:`expression`, as the form's Arrow type."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if form.kind == "list":
        assert form.element is not None
        values = restore(array.values, form.element)
        mask = array.is_null() if array.null_count else None
        lists = pa.ListArray.from_arrays(array.offsets, values, mask=mask)
        return lists.cast(form.arrow)
    if form.kind in _INTEGER_KINDS:
        storage = pa.int32() if form.kind == "date" else pa.int64()
        return array.cast(storage).view(form.arrow)
    if form.kind == "char":
        return pc.utf8_rtrim(array, " ")
    if form.kind in ("decimal", "uuid"):
        way = conversion(Type("numeric" if form.kind == "decimal" else "text"), form)
        if isinstance(way, str):
            raise ConfigError(f"--independent cannot read {form}: {way}")
        return way.apply(array)[0]
    return canonical_array(array, form)


def conninfo(p: Parameters) -> str:
    """libpq's connection string. Holds the password: never shown."""
    given: dict[str, Any] = {
        "host": p.host, "hostaddr": p.address, "port": p.port, "user": p.user, "password": p.password,
        "dbname": p.database, "sslmode": p.sslmode, "sslrootcert": p.sslrootcert, "sslcert": p.sslcert,
        "sslkey": p.sslkey, "sslpassword": p.sslpassword, "application_name": p.application_name,
        "options": p.options, "connect_timeout": int(p.timeout_s) or None,
    }  # fmt: skip
    return " ".join(
        f"{name}='" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
        for name, value in given.items()
        if value is not None
    )


class Snapshot(Protocol):
    """What the reader needs of its source: where it is, and the state that all readers see."""

    @property
    def parameters(self) -> Parameters: ...
    @property
    def version(self) -> int: ...
    def begin_sql(self) -> str: ...
    def fingerprint(self, name: TableName) -> str: ...
    def check_unchanged(self, table: Table) -> None: ...


class IndependentReader:
    """The protocol's Reader over ADBC."""

    def __init__(self, source: Snapshot) -> None:
        self._source = source
        self._connection: Any = None
        if source.version < VERSION_MIN:
            raise ConfigError(f"--independent needs PostgreSQL {VERSION_MIN} or newer as the source")

    def fingerprint(self, name: TableName) -> str:
        return self._source.fingerprint(name)

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def _open(self) -> Any:
        if self._connection is None:
            try:
                from adbc_driver_postgresql import dbapi
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"--independent needs the Python package {error.name!r}", hint="pip install rowferry[independent]"
                ) from None
            # autocommit: transactions are ours to begin, with the snapshot as their first statement.
            self._connection = dbapi.connect(conninfo(self._source.parameters), autocommit=True)
            with self._connection.cursor() as cursor:
                for statement in pin_sql().split("; "):  # it prepares what it runs: one statement at a time
                    cursor.execute(statement)
                    cursor.fetchall()
        return self._connection

    def read(self, request: ReadRequest) -> Iterator[Block]:
        if request.intake is not None:
            raise ConfigError("--independent reads no raw frames")
        table = request.table
        for name, form in request.columns:
            if form.kind == "wire":
                raise ConfigError(f"--independent cannot read column {name} as raw bytes")
        forms = [form for _, form in request.columns]
        schema = pa.schema([pa.field(name, form.arrow) for name, form in request.columns])
        selected = ", ".join(
            f"{expression(ident(name), form)} AS c{i}" for i, (name, form) in enumerate(request.columns)
        )
        sql = f"SELECT {selected} {select_from(table, request.bound, request.where)}"
        done = False
        try:
            for batch in self._batches(table, sql, request.batch_bytes):
                arrays = [restore(array, form) for array, form in zip(batch.columns, forms, strict=True)]
                if batch.num_rows:
                    yield Block(pa.RecordBatch.from_arrays(arrays, schema=schema))
            self._source.check_unchanged(table)
            done = True
        finally:
            if not done:
                self.close()

    def _batches(self, table: Table, sql: str, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        connection = self._call(table, self._open)
        with connection.cursor() as cursor:
            for statement in self._source.begin_sql().split("; "):
                self._call(table, lambda: cursor.execute(statement))  # noqa: B023 - called at once
            cursor.adbc_statement.set_options(**{_BATCH_OPTION: str(batch_bytes)})
            self._call(table, lambda: cursor.execute(sql))
            reader = cursor.fetch_record_batch()
            while (batch := self._call(table, lambda: next(reader, None))) is not None:
                yield batch
            self._call(table, lambda: cursor.execute("COMMIT"))

    def _call(self, table: Table, action: Callable[[], Any]) -> Any:
        """Runs an action of the driver; its errors become ours."""
        try:
            return action()
        except (ConfigError, StopIteration):
            raise
        except Exception as error:
            if not type(error).__module__.startswith(("adbc_driver_manager", "pyarrow")):
                raise
            code = getattr(error, "sqlstate", None)
            password = self._source.parameters.password
            message = " ".join(str(error).split())
            if password:
                message = message.replace(password, "…")
            raise SourceError(
                message, table=str(table.name), code=code, transient=is_transient(code or "08000")
            ) from None
