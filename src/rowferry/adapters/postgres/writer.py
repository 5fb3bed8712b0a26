"""Rows into PostgreSQL: COPY … FROM STDIN BINARY, straight or through a temporary table."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from rowferry.adapters.postgres import failure, types
from rowferry.adapters.postgres.quoting import ident, idents, literal, qualified
from rowferry.adapters.postgres.session import Session
from rowferry.adapters.postgres.wire import ConnectionLostError, ServerError
from rowferry.adapters.protocol import Block, WriteRequest
from rowferry.adapters.servers import LedgerWriter
from rowferry.convert import value_text
from rowferry.errors import DataError, RowferryError, TargetError
from rowferry.model import ColumnPlan, TableName

if TYPE_CHECKING:
    from rowferry._native.pg_copy import Encoder

#: Bytes of one CopyData message that the encoder makes: a page of the server's own buffer.
FRAME_BYTES = 64 * 1024


class Way(msgspec.Struct, frozen=True):
    """How one request's rows go in: SQL around the COPY, and the codec of each field."""

    copy: str
    codecs: list[tuple[str, dict[str, Any]]]
    #: Makes the temporary table, if there is one, and moves its rows on.
    before: str | None = None
    after: str | None = None
    #: Finds a text that the server would read as another value: its column, the text, what became of it.
    proof: str | None = None
    #: Finds a staged key and the row of another key that the target takes for the same: citext, or a collation
    #: that is not deterministic. The merge would write over it.
    other: str | None = None
    #: The temporary table's column names → the target's.
    names: dict[str, str] = msgspec.field(default_factory=dict)


def plan_way(name: TableName, columns: Sequence[ColumnPlan], mode: str, key: Sequence[str]) -> Way:
    """The way of a request. Types without an encoder travel as text and are cast by the server."""
    codecs = [_codec(c) for c in columns]
    targets = [c.target for c in columns]
    staged = [c.column.type.kind in types.STAGED_KINDS for c in columns]
    if mode != "upsert" and not any(staged):
        return Way(f"COPY {qualified(name)} ({idents(targets)}) FROM STDIN (FORMAT binary)", codecs)
    names = [f"c{i}" for i in range(len(columns))]
    kinds = ["text" if s else c.column.native for c, s in zip(columns, staged, strict=True)]
    made = ", ".join(f"{n} {k}" for n, k in zip(names, kinds, strict=True))
    stage = "pg_temp." + ident("rowferry_" + hashlib.blake2b(made.encode(), digest_size=8).hexdigest())
    # A cast to the type alone, without its size: an explicit cast to varchar(3) would cut in silence.
    values = ", ".join(
        f"{n}::{_cast_type(c.column.native)}" if s else n for n, c, s in zip(names, columns, staged, strict=True)
    )
    # The server reads more than it writes ('xy' becomes a "char" of 'x'): what it would write otherwise was changed.
    changed = [
        f"SELECT '{n}', {n}, ({n}::{_cast_type(c.column.native)})::text FROM {stage} "
        f"WHERE ({n}::{_cast_type(c.column.native)})::text <> {n}"
        for n, c, s in zip(names, columns, staged, strict=True)
        if s
    ]
    after = f"INSERT INTO {qualified(name)} ({idents(targets)}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {stage}"
    if mode == "upsert":
        others = [t for t in targets if t not in key]
        changes = ", ".join(f"{ident(t)} = EXCLUDED.{ident(t)}" for t in others or key)
        after += f" ON CONFLICT ({idents(key)}) DO UPDATE SET {changes}"
    loose = [c.target for c in columns if mode == "upsert" and c.target in key and _is_loose(c)]
    return Way(
        copy=f"COPY {stage} ({', '.join(names)}) FROM STDIN (FORMAT binary)",
        codecs=codecs,
        before=f"CREATE TEMP TABLE IF NOT EXISTS {stage} ({made}) ON COMMIT DELETE ROWS; TRUNCATE {stage}",
        after=after,
        proof=" UNION ALL ".join(changed) + " LIMIT 1" if changed else None,
        other=_other_row(stage, name, columns, names, key, loose) if loose else None,
        names=dict(zip(names, targets, strict=True)),
    )


def _cast_type(native: str) -> str:
    name = types.bare(native)
    # Without a size "character" is character(1), and "bit" bit(1).
    element = {"character": "bpchar", "bit": "bit varying"}.get(name.removesuffix("[]"))
    return name if element is None else element + "[]" * name.endswith("[]")


def _codec(column: ColumnPlan) -> tuple[str, dict[str, Any]]:
    native = types.base_native(column.column.forms) or column.column.native
    name, params = types.codec(column.column.type, native)
    return ("wire" if name == "wire_numeric" else name), params


def load(session: Session, way: Way, columns: Sequence[ColumnPlan], blocks: Iterable[Block], raw: bool) -> int:
    """Sends all blocks in the session's open transaction; returns the rows that the target took.

    Raises TargetError, DataError; what ``blocks`` raises passes through, the COPY given up.
    """
    from rowferry._native.pg_copy import HEADER, TRAILER, EncodeError, Encoder

    wire = session.wire
    encoder: Encoder = Encoder(way.codecs)
    numerics = [i for i, c in enumerate(columns) if _is_wire_numeric(c)]
    sent, copying = 0, False
    batch: pa.RecordBatch | None = None
    try:
        if way.before:
            wire.simple(way.before)
        wire.copy_in(way.copy)
        copying = True
        wire.copy_data(HEADER)
        for block in blocks:
            batch = block.batch
            if raw:
                if block.raw is None:
                    raise TargetError("raw frames were asked for, and the source gave none")
                wire.copy_data(block.raw)
            else:
                wire.copy_frames(encoder.encode(_with_scales(batch, numerics), FRAME_BYTES))
            sent += batch.num_rows
        batch = None
        wire.copy_data(TRAILER)
        copying = False
        accepted = wire.copy_done()
        if way.proof and accepted == sent:
            _refuse_changed(wire.simple(way.proof)[-1].rows, way)
        if way.other and accepted == sent:
            _refuse_other(wire.simple(way.other)[-1].rows)
        if way.after and accepted == sent:
            accepted = wire.simple(way.after)[-1].count
    except ServerError as error:
        copying = False
        raise failure.from_server(error, TargetError, way.names) from None
    except ConnectionLostError as error:
        copying = False
        raise failure.from_loss(error, TargetError) from None
    except EncodeError as error:
        assert batch is not None
        raise _value_error(error, columns, batch) from None
    finally:
        if copying and not wire.closed:
            _give_up(session)
    if accepted != sent:
        raise TargetError(
            f"{sent:,} rows were sent and the server took {accepted:,}",
            hint="look for triggers or rules on the target table",
        )
    return accepted


def _is_loose(column: ColumnPlan) -> bool:
    """Whether the target may take two texts for one key."""
    return bool(column.column.collation) or types.bare(column.column.native).rpartition(".")[2] == "citext"


def _other_row(
    stage: str,
    name: TableName,
    columns: Sequence[ColumnPlan],
    names: Sequence[str],
    key: Sequence[str],
    loose: Sequence[str],
) -> str:
    sent = {c.target: f"s.{n}::{_cast_type(c.column.native)}" for n, c in zip(names, columns, strict=True)}
    natives = {c.target: types.bare(c.column.native) for c in columns}
    # With an empty search path the operators of an extension's type are found by their schema alone.
    equals = {k: f"OPERATOR({n.rpartition('.')[0]}.=)" if n.endswith(".citext") else "=" for k, n in natives.items()}
    same = " AND ".join(f"t.{ident(k)} {equals[k]} {sent[k]}" for k in key)
    other = " OR ".join(f't.{ident(k)}::text COLLATE "C" <> ({sent[k]})::text COLLATE "C"' for k in loose)
    shown = [" || ', ' || ".join(f"quote_literal({side}::text)" for side in sides) for sides in (
        [f"({sent[k]})" for k in loose], [f"t.{ident(k)}" for k in loose],
    )]  # fmt: skip
    return f"SELECT {shown[0]}, {shown[1]} FROM {stage} s JOIN {qualified(name)} t ON {same} WHERE {other} LIMIT 1"


def _refuse_other(rows: list[tuple[str | None, ...]]) -> None:
    for key, there in rows:
        raise DataError(
            f"the key {key} would take the place of the row {there}, which the target takes for the same",
            hint="give the target's key column a deterministic collation, or change the row",
        )


def _refuse_changed(rows: list[tuple[str | None, ...]], way: Way) -> None:
    for name, text, read in rows:
        raise DataError(
            f"the server would read the text as {(read or '')[:100]!r}",
            column=way.names[name or ""],
            value=repr((text or "")[:200]),
            hint="give the column a type of text, or write its values as PostgreSQL does",
        )


def _give_up(session: Session) -> None:
    """Ends a COPY whose rows will not come; the connection is closed where that fails."""
    try:
        session.wire.copy_fail("the rows will not come")
    except (ServerError, ConnectionLostError):
        session.wire.abandon()


def _value_error(error: Any, columns: Sequence[ColumnPlan], batch: pa.RecordBatch) -> DataError:
    column = columns[error.column]
    type_ = column.column.type
    value = value_text(batch.column(error.column), error.row, type_) if type_.kind != "list" else None
    return DataError(
        f"does not fit {column.column.native}: {error.reason}",
        column=column.source,
        value=repr(value)[:200] if value is not None else None,
    )


def _is_wire_numeric(column: ColumnPlan) -> bool:
    type_ = column.column.type
    return type_.kind == "wire" and types.bare((type_.native or "").removeprefix(types.PREFIX)) == "numeric"


def _with_scales(batch: pa.RecordBatch, numerics: list[int]) -> pa.RecordBatch:
    """The batch with a display scale in its numerics: they are read without one, so that they compare
    by value, and the server cuts digits beyond the scale that it is given."""
    for index in numerics:
        column = pa.array([None if v is None else _with_scale(v) for v in batch.column(index).to_pylist()], pa.binary())
        batch = batch.set_column(index, batch.schema.field(index), column)
    return batch


def _with_scale(value: bytes) -> bytes:
    """The smallest display scale that shows all digits of a binary numeric."""
    digits, weight, sign, _ = struct.unpack_from("!hhHH", value)
    if sign not in (0, 0x4000) or digits == 0:
        return value
    (last,) = struct.unpack_from("!H", value, 6 + 2 * digits)
    zeros = 0
    while zeros < 4 and last % 10 == 0:
        last //= 10
        zeros += 1
    scale = max(0, 4 * (digits - weight - 1) - zeros)
    return value[:6] + struct.pack("!H", scale) + value[8:]


def _narrower(now: str, native: str) -> bool:
    """Whether a column of one type has got another size: COPY rounds a numeric(10,2) into a numeric(10,1)."""
    sizes = [re.search(r"\(([\d, -]+)\)", text) for text in (now, native)]
    have, had = (m.group(1).replace(" ", "").removesuffix(",0") if m else None for m in sizes)
    # Without a size character and bit have one place.
    return have is not None and have != had and (had is not None or have != "1")


class PostgresWriter(LedgerWriter[Session]):
    """The protocol's Writer: one connection, one chunk at a time."""

    def write(self, request: WriteRequest, blocks: Iterable[Block]) -> int:
        way = plan_way(request.name, request.columns, request.mode, request.key)
        try:
            # Before the rows for the sake of the message; after them nobody can change it until we commit.
            self._check_types(request)
            rows = load(self._session, way, request.columns, blocks, request.raw)
            self._check_types(request)
            return rows
        except RowferryError as error:
            if isinstance(error, DataError) and not self._session.closed:
                # Changed just before the COPY got its lock: then that is what the rows did not fit.
                if self._marked:
                    self.undo()
                else:
                    self._session.rollback()
                self._check_types(request)
            if isinstance(error, (TargetError, DataError)):
                error.at(table=str(request.name))
            raise

    def mark(self) -> None:
        if self._marked:
            self._session.query("RELEASE SAVEPOINT rowferry_mark; SAVEPOINT rowferry_mark")
        else:
            # A constraint that waits for COMMIT would refuse the chunk then, and name no row.
            self._session.query("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT rowferry_mark")
        self._marked = True

    def _place(self, name: TableName, column: str) -> tuple[str, str]:
        return qualified(name), ident(column)

    def _check_types(self, request: WriteRequest) -> None:
        """Raises TargetError where columns are not of the types that the plan knew: COPY BINARY checks
        nothing but widths, and would take a bigint's bytes for a timestamp's."""
        natives = ", ".join(
            f"({literal(c.target)}, {literal(c.column.native)}, {literal(types.bare(c.column.native))})"
            for c in request.columns
        )
        place = literal(qualified(request.name))
        found = self._session.query(
            "SELECT v.name, v.native, format_type(a.atttypid, a.atttypmod), a.atttypid = to_regtype(v.bare) "
            f"FROM (VALUES {natives}) AS v(name, native, bare) LEFT JOIN pg_attribute a ON a.attrelid = "
            f"to_regclass({place}) AND a.attname = v.name AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE a.attname IS NULL OR format_type(a.atttypid, a.atttypmod) <> v.native "
            "ORDER BY a.attname IS NOT NULL, a.atttypid IS NOT DISTINCT FROM to_regtype(v.bare)"
        )
        for name, native, now, same in found:
            if same is True and not _narrower(now, native):
                continue  # another spelling
            raise TargetError(
                f"the column is {now or 'gone'}, where the plan knew {native}: the table was changed while the job ran",
                column=str(name),
                hint="start a new job for the new shape",
            )
