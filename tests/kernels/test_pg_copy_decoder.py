"""The decoder on streams cut anywhere, broken streams, other messages, and rows of any size."""

from __future__ import annotations

import concurrent.futures
import pickle
import struct
import threading
from typing import Any

import pyarrow as pa
import pytest

from kernels import pg_copy_reference as twin
from kernels.pg_copy_values import batch_of, decode_all, digester, drain, framed, schema_of, stream_of, tally_all
from rowferry._native.pg_copy import HEADER, TRAILER, DecodeError, Decoder, FrameError
from rowferry.adapters.buffers import assemble

INT: twin.Codec = ("int4", {})
TEXT: twin.Codec = ("text", {})
DECIMAL: twin.Codec = ("numeric_decimal128", {"precision": 10, "scale": 2})
INTS: twin.Codec = ("list", {"inner": INT, "element_oid": 23})
COLUMNS = [INT, TEXT, DECIMAL, INTS]
ROWS: list[tuple[Any, ...]] = [
    (1, "one", 150, [1, None]),
    (None, None, None, None),
    (-7, "zażółć", -1, []),
    (2**31 - 1, "", 0, [5]),
]


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!i", len(payload) + 4) + payload


# -- cuts


def test_decoder_stream_cut_at_every_byte_gives_the_same_rows() -> None:
    stream = stream_of(ROWS, COLUMNS)
    for cut in range(1, len(stream)):
        wire = framed(stream, [cut])
        for split in (cut, cut + 3, cut + 7):
            decoder = Decoder(COLUMNS)
            got = []
            for piece in (wire[:split], wire[split:]):
                assert decoder.feed_messages(piece) == len(piece)
                got += drain(decoder, COLUMNS)
            decoder.finish()
            assert got == ROWS


def test_decoder_fed_byte_by_byte_gives_the_rows() -> None:
    wire = framed(stream_of(ROWS, COLUMNS), range(0, 200, 13))
    decoder = Decoder(COLUMNS)
    got = []
    for i in range(len(wire)):
        decoder.feed_messages(wire[i : i + 1])
        got += drain(decoder, COLUMNS)
    decoder.finish()
    assert got == ROWS


def test_decoder_stream_that_ends_at_any_byte_is_refused() -> None:
    stream = stream_of(ROWS, COLUMNS)
    for end in range(len(stream)):
        with pytest.raises(FrameError):
            decode_all(stream[:end], COLUMNS)


def test_receive_socket_pieces_give_rows_and_messages_in_order() -> None:
    wire = memoryview(
        message(b"H", b"\1\0\1\0\1")
        + message(b"N", b"SNOTICE\0\0")
        + framed(stream_of(ROWS, COLUMNS), [19, 40])
        + message(b"c", b"")
        + message(b"C", b"COPY 4\0")
        + message(b"Z", b"I")
    )
    for size in (1, 3, 7, 64, 4096):
        at = 0

        def recv_into(view: memoryview, size: int = size) -> int:
            nonlocal at
            piece = wire[at : at + min(size, len(view))]
            view[: len(piece)] = piece
            at += len(piece)
            return len(piece)

        decoder = Decoder(COLUMNS)
        kinds, rows = [], []
        while decoder.receive(recv_into):
            while (other := decoder.message()) is not None:
                kinds.append(other)
            rows += drain(decoder, COLUMNS)
        decoder.finish()
        assert rows == ROWS
        assert kinds == [
            (b"H", b"\1\0\1\0\1"), (b"N", b"SNOTICE\0\0"), (b"c", b""), (b"C", b"COPY 4\0"), (b"Z", b"I"),
        ]  # fmt: skip


def test_feed_messages_other_message_is_left_to_the_caller() -> None:
    wire = framed(stream_of(ROWS, COLUMNS))
    decoder = Decoder(COLUMNS)
    assert decoder.feed_messages(wire + message(b"c", b"") + b"Z") == len(wire)
    assert decoder.feed_messages(message(b"c", b"")) == 0
    assert drain(decoder, COLUMNS) == ROWS
    decoder.finish()


# -- what take() gives


def test_take_limits_bound_rows_and_bytes() -> None:
    columns = [INT]
    rows = [(i,) for i in range(5000)]
    decoder = Decoder(columns)
    decoder.feed_rows(stream_of(rows, columns))
    assert decoder.buffered == 5000 * 10 + 19 + 2
    taken = decoder.take(700)
    assert taken is not None and taken[0] == 700
    taken = decoder.take(10_000, 99)
    assert taken is not None and taken[0] == 9
    taken = decoder.take(10_000, 3)  # a row is larger: one is taken
    assert taken is not None and taken[0] == 1
    assert (decoder.rows, decoder.ended) == (710, False)
    assert [row[0] for row in drain(decoder, columns)] == list(range(710, 5000))
    assert decoder.ended


def test_tally_gives_every_tuple_as_it_came_and_digests_it() -> None:
    decoder, into, batches = Decoder(COLUMNS), digester(COLUMNS), digester(COLUMNS)
    wire = framed(stream_of(ROWS, COLUMNS), [22, 50, 51])
    intake, raw = into.intake(schema_of(COLUMNS)), b""
    for at in range(len(wire)):  # a byte at a time: every row is taken by itself
        decoder.feed_messages(wire[at : at + 1])
        if (taken := decoder.tally(intake)) is not None:
            assert taken[0] == 1 and bytes(taken[1]) == twin.encode([ROWS[decoder.rows - 1]], COLUMNS)
            raw += bytes(taken[1])
    decoder.finish()
    batches.add(batch_of(ROWS, COLUMNS))
    assert raw == twin.encode(ROWS, COLUMNS)
    assert into.digest == batches.digest and into.digest.rows == len(ROWS)


def test_tally_tuples_outlive_the_decoder_and_are_read_only() -> None:
    decoder, into = Decoder(COLUMNS, 4096), digester(COLUMNS)
    wire = framed(stream_of(ROWS * 500, COLUMNS), range(100, 40_000, 100))
    intake, parts = into.intake(schema_of(COLUMNS)), []
    for at in range(0, len(wire), 3_000):
        decoder.feed_messages(wire[at : at + 3_000])
        if (taken := decoder.tally(intake)) is not None:
            parts.append(taken[1])
    decoder.finish()
    del decoder, intake, taken
    assert len(parts) > 10 and all(memoryview(part).readonly for part in parts)
    assert b"".join(bytes(part) for part in parts) == twin.encode(ROWS * 500, COLUMNS)
    assert into.digest.rows == 2000


def test_tally_a_row_larger_than_the_buffer_comes_whole() -> None:
    columns: list[twin.Codec] = [("int4", {}), ("text", {})]
    rows = [(1, "a"), (2, "b" * 5_000_000), (3, None), (4, "c")]
    decoder, into = Decoder(columns, 4096), digester(columns)
    wire = framed(stream_of(rows, columns))
    for at in range(0, len(wire), 100_000):
        decoder.feed_messages(wire[at : at + 100_000])
    assert tally_all(decoder, columns, into) == (4, twin.encode(rows, columns))
    expected = digester(columns)
    expected.add(batch_of(rows, columns))
    assert into.digest == expected.digest


@pytest.mark.parametrize(
    ("columns", "others"),
    [
        ([("int4", {})], [("int8", {})]),
        ([("int4", {})], [("int4", {}), ("int4", {})]),
        ([("text", {})], [("int4", {})]),
        ([("int4", {})], [("text", {})]),
        ([("list", {"inner": ("int4", {})})], [("int4", {})]),
        ([("list", {"inner": ("int4", {})})], [("list", {"inner": ("text", {})})]),
    ],
)
def test_tally_into_an_intake_of_other_columns_is_refused(columns: list[twin.Codec], others: list[twin.Codec]) -> None:
    """Their buffers would be misread: nothing of such a block is added."""
    decoder, into = Decoder(columns), digester(others)
    decoder.feed_rows(twin.HEADER + twin.encode([(None,)], columns) + twin.TRAILER)
    with pytest.raises(ValueError, match="does not take these columns"):
        decoder.tally(into.intake(schema_of(others)))
    assert into.digest.rows == 0
    with pytest.raises(FrameError, match="failed before"):
        decoder.take()


def test_tally_a_list_and_a_number_in_each_others_place_are_refused() -> None:
    """Both have values of four bytes, and here as many rows as the other: only what they are tells them apart."""
    numbers: twin.Codec = ("list", {"inner": ("int4", {}), "element_oid": 23})
    columns: list[twin.Codec] = [numbers, ("int4", {})]
    decoder, into = Decoder(columns), digester([("int4", {}), numbers])
    decoder.feed_rows(stream_of([([7], 1), ([8], 2)], columns))
    with pytest.raises(ValueError, match="does not take these columns"):
        decoder.tally(into.intake(schema_of([("int4", {}), numbers])))
    assert into.digest.rows == 0


def test_tally_goes_on_after_its_digest_was_given_batches_of_other_types() -> None:
    columns: list[twin.Codec] = [("int4", {})]
    rows = [(1,), (None,), (3,)]
    decoder, into, expected = Decoder(columns), digester(columns), digester(columns)
    intake = into.intake(schema_of(columns))
    other = pa.record_batch([pa.array([4, 5], pa.int64())], names=["c0"])
    into.add(other)
    decoder.feed_rows(stream_of(rows, columns))
    assert tally_all(decoder, columns, into)[0] == 3
    again = Decoder(columns)
    again.feed_rows(stream_of(rows, columns))
    into.add(other)
    assert again.tally(intake) is not None
    for batch in (other, batch_of(rows, columns), other, batch_of(rows, columns)):
        expected.add(batch)
    assert into.digest == expected.digest


def test_tally_by_two_threads_into_one_intake_is_said_or_adds_up() -> None:
    columns: list[twin.Codec] = [("int4", {}), ("text", {})]
    stream = stream_of([(n, "x" * 50) for n in range(500)], columns)
    stream = twin.HEADER + stream[len(twin.HEADER) : -len(twin.TRAILER)] * 200 + twin.TRAILER
    said = 0
    for _ in range(200):
        into = digester(columns)
        intake = into.intake(schema_of(columns))
        decoders = [Decoder(columns), Decoder(columns)]
        for decoder in decoders:
            decoder.feed_rows(stream)
        together = threading.Barrier(2)

        def work(decoder: Decoder, intake: Any = intake, together: threading.Barrier = together) -> bool:
            together.wait()
            try:
                decoder.tally(intake)
            except RuntimeError:
                return True
            return False

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            busy = sum(pool.map(work, decoders))
        said += busy
        assert into.digest.rows == 200_000 if not busy else 0 <= into.digest.rows < 200_000
        if said:
            break
    assert said


def test_tally_refuses_what_take_refuses() -> None:
    columns: list[twin.Codec] = [("int4", {}), ("text", {})]
    stream = bytearray(stream_of([(1, "a"), (2, "b")], columns))
    stream[-3] = 0xFF  # the last text is not UTF-8
    decoder, into = Decoder(columns), digester(columns)
    decoder.feed_rows(bytes(stream))
    with pytest.raises(DecodeError) as caught:
        decoder.tally(into.intake(schema_of(columns)))
    assert (caught.value.row, caught.value.column) == (1, 1)
    with pytest.raises(ValueError):
        decoder.tally("no capsule")


def test_take_batches_outlive_the_decoder() -> None:
    decoder = Decoder(COLUMNS)
    decoder.feed_rows(stream_of(ROWS * 500, COLUMNS))
    batches = []
    while (taken := decoder.take(300)) is not None:
        batches.append(assemble(schema_of(COLUMNS), taken))
    del decoder, taken
    table = pa.Table.from_batches(batches)
    table.validate(full=True)
    assert table.num_rows == 2000
    assert table.column(1).to_pylist() == ["one", None, "zażółć", ""] * 500
    assert table.column(3).to_pylist() == [[1, None], None, [], [5]] * 500


def test_take_no_columns_keeps_the_count_of_rows() -> None:
    assert decode_all(stream_of([()] * 70_000, []), []) == [()] * 70_000


def test_take_column_of_only_nulls_gives_nulls() -> None:
    for codec in (INT, TEXT, DECIMAL, INTS, ("bool", {}), ("uuid", {}), ("numeric_text", {}), ("varbit", {})):
        assert decode_all(stream_of([(None,)] * 1000, [codec]), [codec]) == [(None,)] * 1000


def test_take_nulls_at_every_place_of_a_bitmap_are_kept() -> None:
    for null in [*range(20), 511, 512, 513, 1023, 1024, 1499]:
        rows = [(None if i == null else i % 2 == 0, None if i == null else i) for i in range(1500)]
        columns: list[twin.Codec] = [("bool", {}), INT]
        assert decode_all(stream_of(rows, columns), columns) == rows


def test_take_expanding_values_end_the_batch_before_memory_does() -> None:
    """12 bytes on the wire can be 131,072 characters."""
    columns: list[twin.Codec] = [("numeric_text", {})]
    value = "1" + "0" * 131_000
    decoder = Decoder(columns)
    decoder.feed_rows(HEADER + twin.encode([(value,)], columns) * 500 + TRAILER)
    sizes = []
    while (taken := decoder.take()) is not None:
        batch = assemble(schema_of(columns), taken)
        assert batch.column(0)[0].as_py() == value
        sizes.append(batch.nbytes)
    assert decoder.rows == 500
    assert max(sizes) < 16 << 20


def test_decoder_wide_table_decodes() -> None:
    columns: list[twin.Codec] = [INT, TEXT] * 800
    rows = [tuple(v for i in range(800) for v in (i, f"c{i}"))] * 20
    assert decode_all(stream_of(rows, columns), columns) == rows


# -- memory


def test_decoder_huge_row_grows_the_buffer_and_gives_it_back() -> None:
    columns: list[twin.Codec] = [("bytea", {})]
    big = bytes(range(256)) * 80_000  # 20 MB
    wire = framed(HEADER + twin.encode([(b"a",), (big,), (b"b",)], columns))
    decoder = Decoder(columns, 1 << 16)
    got: list[Any] = []
    for at in range(0, len(wire), 100_000):
        piece = wire[at : at + 100_000]
        view = decoder.buffer_view(len(piece))
        view[: len(piece)] = piece
        decoder.received(len(piece))
        got += drain(decoder, columns)
    assert [row[0] for row in got] == [b"a", big, b"b"]
    assert len(decoder.buffer_view(1)) <= 1 << 16
    decoder.feed_messages(framed(twin.encode([(b"c",)], columns) + TRAILER))
    assert drain(decoder, columns) == [(b"c",)]
    decoder.finish()


@pytest.mark.parametrize("wanted", [2**48 + 1, 6 * 10**18, 7 * 10**18, 2**63 - 1])
def test_buffer_view_of_more_than_any_memory_is_refused(wanted: int) -> None:
    """Not made of a sum that overflows, in less room than what was received needs."""
    decoder = Decoder([TEXT], 4096)
    decoder.feed_rows(stream_of([("x" * 100_000,)], [TEXT]))
    with pytest.raises(MemoryError):
        decoder.buffer_view(wanted)
    assert drain(decoder, [TEXT]) == [("x" * 100_000,)]


def test_buffer_view_kept_too_long_is_not_freed_under_its_holder() -> None:
    decoder = Decoder([("bytea", {})], 4096)
    views = []
    for _ in range(6):
        view = decoder.buffer_view(1 << 16)
        view[:] = b"d" + struct.pack("!i", 1 << 20) + bytes(len(view) - 5) if not views else bytes(len(view))
        decoder.received(len(view))
        views.append(view)
    for view in views:
        view[:] = b"x" * len(view)
    assert all(bytes(view) == b"x" * len(view) for view in views)


def test_received_more_than_the_view_raises() -> None:
    decoder = Decoder([INT], 4096)
    room = len(decoder.buffer_view(1))
    with pytest.raises(ValueError, match="cannot have been received"):
        decoder.received(room + 1)
    with pytest.raises(ValueError, match="cannot have been received"):
        decoder.received(-1)


# -- broken streams


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (b"PGCOPY\n\xff\r\n\1" + bytes(8), "signature"),
        (b"SELECT 1", "signature"),
        (HEADER[:11] + struct.pack("!II", 1 << 16, 0), "flags"),
        (HEADER[:11] + struct.pack("!II", 0, 1 << 31), "extension"),
        (HEADER + b"\0\2", "2 fields, expected 1"),
        (HEADER + b"\0\0", "0 fields, expected 1"),
        (HEADER + b"\xff\xfe", "-2 fields"),
        (HEADER + b"\0\1\xff\xff\xff\xfe", "length"),
        (HEADER + b"\0\1\x80\0\0\0", "length"),
        (HEADER + b"\0\1\x7f\xff\xff\xff", "length"),
        (HEADER + TRAILER + b"\0", "bytes after its trailer"),
        (HEADER, "trailer is missing"),
        (HEADER + b"\0\1\0\0\0\4\0\0", "middle of a row"),
    ],
)
def test_decoder_broken_stream_raises_frame_error(stream: bytes, what: str) -> None:
    with pytest.raises(FrameError, match=what):
        decode_all(stream, [INT])


def test_decoder_header_extension_is_read_over() -> None:
    stream = HEADER[:11] + struct.pack("!II", 0xFFFF, 5) + b"extra" + b"\0\1\0\0\0\4\0\0\0\7" + TRAILER
    for cut in range(len(stream)):
        decoder = Decoder([INT])
        decoder.feed_rows(stream[:cut])
        got = drain(decoder, [INT])
        decoder.feed_rows(stream[cut:])
        got += drain(decoder, [INT])
        decoder.finish()
        assert got == [(7,)]


@pytest.mark.parametrize("size", [0, 3, 0x80000000, 0xFFFFFFFF])
def test_decoder_frame_of_impossible_length_raises(size: int) -> None:
    with pytest.raises(FrameError, match="wrong length"):
        Decoder([INT]).feed_messages(b"d" + struct.pack("!I", size))


@pytest.mark.parametrize("size", [0, 3, 1 << 25, 0xFFFFFFFF])
def test_message_of_impossible_length_raises(size: int) -> None:
    decoder = Decoder([INT])
    wire = b"E" + struct.pack("!I", size)
    view = decoder.buffer_view(64)
    view[:5] = wire
    decoder.received(5)
    with pytest.raises(FrameError, match="a message of"):
        decoder.message()


def test_decoder_data_after_copy_done_raises() -> None:
    decoder = Decoder([INT])
    wire = message(b"c", b"") + framed(HEADER)
    view = decoder.buffer_view(64)
    view[: len(wire)] = wire
    decoder.received(len(wire))
    with pytest.raises(FrameError, match="after the end"):
        decoder.message()


def test_decoder_after_a_failure_takes_nothing_more() -> None:
    decoder = Decoder([INT])
    with pytest.raises(FrameError):
        decoder.feed_rows(b"NOT COPY BINARY")
        decoder.take()
    for call in (decoder.take, decoder.finish, decoder.message, lambda: decoder.feed_rows(b"")):
        with pytest.raises(FrameError, match="failed before"):
            call()


# -- values


@pytest.mark.parametrize(
    ("codec", "field", "reason"),
    [
        (INT, b"\0\0\0", "length"),
        (("bool", {}), b"\2", "neither 0 nor 1"),
        (("bool", {}), b"", "length"),
        (TEXT, b"\xff", "UTF-8"),
        (TEXT, b"a" * 40 + b"\xe2\x82", "UTF-8"),
        (TEXT, b"\xed\xa0\x80", "UTF-8"),
        (TEXT, b"\xc0\x80", "UTF-8"),
        (TEXT, b"\xf4\x90\x80\x80", "UTF-8"),
        (("jsonb", {}), b"", "length"),
        (("jsonb", {}), b"\2{}", "version"),
        (("uuid", {}), bytes(15), "length"),
        (DECIMAL, bytes(7), "length"),
        (DECIMAL, b"\0\1\0\0\0\0\0\0", "length"),
        (DECIMAL, b"\0\1\0\0\0\0\0\0\x27\x10", "malformed numeric"),
        (DECIMAL, b"\0\1\0\0\0\1\0\0\0\1", "malformed numeric"),
        (("numeric_text", {}), b"\0\1\0\0\0\0\x40\0\0\1", "malformed numeric"),
        (("numeric_text", {}), b"\0\1\xff\xff\0\0\0\1\0\1", "malformed numeric"),
        (("time", {}), struct.pack("!q", 86_400_000_001), "24:00"),
        (("date", {}), struct.pack("!i", 2**31 - 2), "date"),
        (("bit", {}), b"\0\0\0\x09\xff", "bit string"),
        (("bit", {}), b"\xff\xff\xff\xff", "bit string"),
        (("bit", {}), b"\0\0", "length"),
        (INTS, bytes(11), "length"),
        (INTS, struct.pack("!iii", 0, 2, 23), "malformed array"),
        (INTS, struct.pack("!iii", -1, 0, 23), "malformed array"),
        (INTS, struct.pack("!iii", 7, 0, 23), "malformed array"),
        (INTS, struct.pack("!iiiii", 1, 0, 23, 1, 1), "malformed array"),
        (INTS, struct.pack("!iiiii", 1, 0, 23, 2**31 - 1, 1), "malformed array"),
        (INTS, struct.pack("!iiiii", 1, 0, 23, -1, 1), "malformed array"),
        (INTS, struct.pack("!iiiiii", 1, 0, 23, 1, 1, 5), "malformed array"),
        (INTS, struct.pack("!iiiiiii", 1, 0, 23, 1, 1, -1, 9), "malformed array"),
        (INTS, struct.pack("!iiiiiih", 1, 0, 23, 1, 1, 2, 9), "length"),
        (("wire_numeric", {}), b"\0\0\0", "length"),
    ],
)
def test_decoder_broken_value_names_row_column_and_bytes(codec: twin.Codec, field: bytes, reason: str) -> None:
    """In the 1,000th row of a batch, behind a column that is right."""
    good = b"\0\2\0\0\0\4\0\0\0\1\xff\xff\xff\xff"
    bad = b"\0\2\0\0\0\4\0\0\0\1" + struct.pack("!i", len(field)) + field
    with pytest.raises(DecodeError, match=reason) as caught:
        decode_all(HEADER + good * 999 + bad + good * 10 + TRAILER, [INT, codec])
    assert (caught.value.row, caught.value.column) == (999, 1)
    assert caught.value.value_hex == field[:64].hex()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.row, copy.reason) == (str(caught.value), 999, caught.value.reason)


def test_decoder_broken_item_names_the_row_of_its_list() -> None:
    codec: twin.Codec = ("list", {"inner": ("bool", {}), "element_oid": 16})
    rows = twin.encode([([],), ([True, None],), (None,), ([False],)], [codec])
    bad = bytearray(rows)
    bad[-1] = 7
    with pytest.raises(DecodeError, match="neither 0 nor 1") as caught:
        decode_all(HEADER + bytes(bad) + TRAILER, [codec])
    assert caught.value.row == 3


def test_decoder_rows_before_a_later_batchs_bad_value_are_given() -> None:
    columns = [INT]
    decoder = Decoder(columns)
    decoder.feed_rows(HEADER + twin.encode([(i,) for i in range(10)], columns) + b"\0\1\0\0\0\1\0")
    assert len(drain_some := decoder.take(10) or ()) and drain_some[0] == 10
    with pytest.raises(DecodeError, match="length") as caught:
        decoder.take()
    assert caught.value.row == 10


@pytest.mark.parametrize(
    "columns",
    [
        [("int3", {})],
        [("numeric_decimal128", {"precision": 39, "scale": 0})],
        [("numeric_decimal256", {"precision": 77, "scale": 0})],
        [("numeric_decimal128", {"precision": 5, "scale": 6})],
        [("numeric_decimal128", {"precision": 5, "scale": -1})],
        [("list", {"inner": ("nothing", {}), "element_oid": 0})],
        [INT] * 32768,
    ],
)
def test_decoder_impossible_columns_raise(columns: list[twin.Codec]) -> None:
    with pytest.raises(ValueError):
        Decoder(columns)


def test_assemble_other_schema_raises() -> None:
    for columns, wrong in [
        ([INT], pa.int64()),
        ([INT], pa.utf8()),
        ([TEXT], pa.int32()),
        ([("bool", {})], pa.int8()),
        ([INTS], pa.utf8()),
        ([DECIMAL], pa.decimal256(40, 2)),
    ]:
        rows = [(None,)] * 9
        decoder = Decoder(columns)
        decoder.feed_rows(stream_of(rows, columns))
        taken = decoder.take()
        assert taken is not None
        with pytest.raises(ValueError):
            assemble(pa.schema([pa.field("a", wrong)]), taken)
        with pytest.raises(ValueError):
            assemble(pa.schema([]), taken)
