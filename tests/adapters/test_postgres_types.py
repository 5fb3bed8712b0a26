"""Every type, PostgreSQL to PostgreSQL: as original bytes, decoded and encoded again, and as text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pyarrow as pa
import pytest

import servers
from adapters import contract, postgres_values
from rowferry.adapters.postgres import types
from rowferry.adapters.protocol import Block, ReadRequest, Source, Target, WriteRequest
from rowferry.errors import DataError
from rowferry.model import Bound, ColumnPlan, Comparison, Refusal, Table, TableName
from rowferry.types import Type

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def filled(postgres_server: servers.Postgres) -> Iterator[tuple[str, dict[str, str]]]:
    url = postgres_server.database()
    yield url, postgres_values.make(url)
    postgres_server.drop(url.rpartition("/")[2])


@pytest.fixture(scope="module")
def source(filled: tuple[str, dict[str, str]]) -> Iterator[Source]:
    with contract.source_at(filled[0]) as found:
        found.open_snapshot(1)
        yield found


def carry(source: Source, target: Target, name: str, wanted: Callable[[tuple[Type, ...]], Type], raw: bool) -> int:
    """Copies one table in the form that ``wanted`` chooses for ``v``; gives the rows that arrived."""
    table = contract.described(source, name)
    chosen = [c.type if c.name == "id" else wanted(c.forms) for c in table.columns]
    columns = []
    for column, form in zip(table.columns, chosen, strict=True):
        into = target.plan_column(column, form)
        assert not isinstance(into, Refusal), f"{column.native} as {form}: {into}"
        assert into.native == column.native
        columns.append(ColumnPlan(column.name, form, column.name, into, Comparison(form, into.type, "")))
    made = Table(
        TableName(None, name), tuple(c.column for c in columns), table.primary_key, user_types=table.user_types
    )
    target.create_table(made, made.name, "postgres")
    intake = contract.intake_of(chosen) if raw else None
    request = ReadRequest(table, tuple((c.source, c.form) for c in columns), Bound({}), intake=intake)
    target.ledger.open(create=True)
    with contextlib.closing(source.reader()) as reader, contextlib.closing(target.writer()) as writer:
        writer.claim("none")
        rows = writer.write(WriteRequest(made, made.name, tuple(columns), raw=raw), reader.read(request))
        writer.commit()
    return rows


def wire_or_first(forms: tuple[Type, ...]) -> Type:
    return next((f for f in forms if f.kind == "wire"), forms[0])


def first(forms: tuple[Type, ...]) -> Type:
    return forms[0]


def text(forms: tuple[Type, ...]) -> Type:
    return next((f for f in forms if f.kind == "opaque"), forms[0])


#: Types of which some value has no decoded form; each is carried by its other forms.
NOT_DECODED = {
    "timestamp": "beyond the range",
    "timestamptz": "beyond the range",
    "interval": "beyond the range",
    "int[]": "one dimension",
}


@pytest.mark.parametrize("way", ["raw", "wire", "decoded", "text"])
def test_every_type_arrives_exact(
    way: str, filled: tuple[str, dict[str, str]], source: Source, postgres_database: Callable[[], str]
) -> None:
    url, tables = filled
    wanted = {"raw": wire_or_first, "wire": wire_or_first, "decoded": first, "text": text}[way]
    target_url = postgres_database()
    wrong = []
    with contract.target_at(target_url) as target:
        for name, type_ in tables.items():
            if way == "decoded" and type_ in NOT_DECODED:
                with pytest.raises(DataError, match=NOT_DECODED[type_]):
                    carry(source, target, name, wanted, False)
                continue
            carry(source, target, name, wanted, way == "raw")
            want, got = postgres_values.dump(url, name), postgres_values.dump(target_url, name)
            # Bytes that compare by value have no display scale: 1.50 and 1.5 are one numeric.
            if way == "wire" and type_ == "numeric":
                continue
            if want != got:
                wrong.append((type_, want, got))
    assert not wrong


def test_numerics_as_bytes_keep_every_digit(
    filled: tuple[str, dict[str, str]], source: Source, postgres_database: Callable[[], str]
) -> None:
    name = next(n for n, t in filled[1].items() if t == "numeric")
    url = postgres_database()
    with contract.target_at(url) as target:
        carry(source, target, name, wire_or_first, False)
    with psycopg.connect(filled[0]) as a, psycopg.connect(url) as b:
        query = f"SELECT id, trim_scale(v)::text FROM {name} ORDER BY id".encode()
        assert b.execute(query).fetchall() == a.execute(query).fetchall()


def test_every_type_gives_a_form_and_a_codec(filled: tuple[str, dict[str, str]], source: Source) -> None:
    for name, type_ in filled[1].items():
        column = contract.described(source, name).column("v")
        assert column.type == column.forms[0], type_
        native = types.base_native(column.forms)
        assert native, f"{type_} does not say that it is PostgreSQL's"
        for form in column.forms:
            types.codec(form, native)
            assert form.arrow is not None


def test_binary_forms_with_oids_of_one_database_are_not_offered(
    filled: tuple[str, dict[str, str]], source: Source
) -> None:
    by_type = {t: contract.described(source, n).column("v") for n, t in filled[1].items()}
    for type_ in ("mood[]", "posint[]", "pair", "pair[]", "nested", "regclass", "regtype"):
        assert [f.kind for f in by_type[type_].forms] == ["opaque"], type_
    for type_ in ("int[]", "inet", "nummultirange", "span", "mood", "posint", "numeric", "xml"):
        assert any(f.kind == "wire" for f in by_type[type_].forms), type_


def test_census_counts_arrays_that_are_no_lists(filled: tuple[str, dict[str, str]], source: Source) -> None:
    name = next(n for n, t in filled[1].items() if t == "int[]")
    refusal = contract.described(source, name).column("v").refusal
    assert refusal is not None and refusal.count == 2 and "text" in refusal.policies
    table = source.describe(TableName(None, name), census=False)
    assert table is not None and table.column("v").refusal is None
    other = next(n for n, t in filled[1].items() if t == "text[]")
    assert contract.described(source, other).column("v").refusal is None


def test_canonical_types_carry_precision_scale_and_length(filled: tuple[str, dict[str, str]], source: Source) -> None:
    want = {
        "numeric(10,2)": Type("decimal", precision=10, scale=2),
        "numeric(3,5)": Type("decimal", precision=5, scale=5),
        "numeric(2,-3)": Type("decimal", precision=5, scale=0),
        "numeric(76,20)": Type("decimal", precision=76, scale=20),
        "numeric(100,50)": Type("numeric"),
        "numeric": Type("numeric"),
        "varchar(10)": Type("text", length=10),
        "char(5)": Type("char", length=5),
        "bit(5)": Type("bit", length=5),
        "varbit(9)": Type("varbit", length=9),
        "varbit": Type("varbit"),
        "time(2)": Type("time", precision=2, unit="us"),
        "timestamp(3)": Type("timestamp", precision=3, unit="us"),
        "timestamptz": Type("timestamptz", unit="us"),
        "oid": Type("int64"),
        "posint": Type("int32"),
        "numeric(6,2)[]": Type("list", element=Type("decimal", precision=6, scale=2)),
        "mood": Type("enum", labels=("sad", 'it\'s "ok"'), native="postgresql:public.mood"),
    }
    for name, type_ in filled[1].items():
        if type_ in want:
            assert contract.described(source, name).column("v").type == want[type_], type_


@pytest.mark.parametrize("type_", ["numeric(2,-3)", "interval year to month"])
def test_target_column_that_rounds_takes_only_its_own_kind(type_: str, postgres_database: Callable[[], str]) -> None:
    url = postgres_database()
    with psycopg.connect(url, autocommit=True) as c:
        c.execute(f"CREATE TABLE t (v {type_})".encode())
    with contract.target_at(url) as target:
        table = target.describe(TableName(None, "t"))
        assert table is not None and [f.kind for f in table.column("v").forms] == ["wire"]


def test_independent_decoder_gives_the_same_values(filled: tuple[str, dict[str, str]], source: Source) -> None:
    """NaN is not equal to itself, so texts are compared."""
    with contract.source_at(filled[0], independent=True) as other:
        other.open_snapshot(1)
        with contextlib.closing(source.reader()) as ours, contextlib.closing(other.reader()) as theirs:
            for name, type_ in filled[1].items():
                if type_ in NOT_DECODED:
                    continue
                table = contract.described(source, name)
                request = contract.request(table, Bound({}))
                a = pa.Table.from_batches([b.batch for b in ours.read(request)])
                b = pa.Table.from_batches([b.batch for b in theirs.read(request)])
                assert repr([plain(c) for c in a.columns]) == repr([plain(c) for c in b.columns]), type_


def plain(column: pa.ChunkedArray) -> list[object]:
    """Values as Python's, dates and timestamps as their integers (infinity has no datetime)."""
    kind = column.type
    if pa.types.is_list(kind):
        return [None if v is None else plain(pa.chunked_array([v])) for v in (s.values for s in column)]
    if pa.types.is_date(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        column = pa.chunked_array([c.view(pa.int64()) for c in column.chunks], pa.int64())
    return list(column.to_pylist())


def test_value_without_a_decoded_form_names_column_and_way_out(
    filled: tuple[str, dict[str, str]], source: Source
) -> None:
    name = next(n for n, t in filled[1].items() if t == "timestamp")
    table = contract.described(source, name)
    with contextlib.closing(source.reader()) as reader:
        with pytest.raises(DataError) as caught:
            list(reader.read(contract.request(table, Bound({}))))
        assert caught.value.column == "v" and "text" in (caught.value.hint or "")
        # The reader goes on with another table.
        assert list(reader.read(contract.request(contract.described(source, "t00"), Bound({}))))


def test_block_keeps_rows_of_raw_frames_and_batch_together(filled: tuple[str, dict[str, str]], source: Source) -> None:
    table = contract.described(source, "t00")
    with contextlib.closing(source.reader()) as reader:
        blocks: list[Block] = list(
            reader.read(contract.request(table, Bound({}), intake=contract.intake_of([c.type for c in table.columns])))
        )
    assert sum(b.batch.num_rows for b in blocks) == 3 and all(len(memoryview(b.raw)) > 0 for b in blocks)


def test_types_that_are_not_asked_about_are_what_the_server_has(postgres_server: servers.Postgres) -> None:
    with postgres_server.connect() as connection:
        found = connection.execute(
            "SELECT t.oid::int8, n.nspname, t.typname, t.typtype::text, t.typbasetype::int8, t.typtypmod, "
            "t.typelem::int8, t.typrelid::int8, t.typsend <> 0 AND t.typreceive <> 0, 0 "
            "FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY (%s)",
            (list(types.OWN),),
        ).fetchall()
    assert {int(str(row[0])): types.TypeRow(*row) for row in found} == types.OWN  # type: ignore[arg-type]
