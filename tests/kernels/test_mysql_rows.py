"""The kernel that reads MySQL's rows, one case each: cuts, broken packets, batches, memory."""

from __future__ import annotations

import gc
import pickle
import resource
import threading
from typing import Any

import pyarrow as pa
import pytest

from kernels import mysql_rows_reference as twin
from kernels.mysql_rows_golden import GOLDEN
from kernels.mysql_rows_values import decode_pieces, drain, exact, feed, rows_of, schema_of
from rowferry._native.mysql_rows import DecodeError, Decoder, FrameError
from rowferry.adapters.buffers import assemble

COLUMNS: list[twin.Column] = [
    ("int32", {}), ("decimal128", {"precision": 10, "scale": 2}), ("text", {}), ("date", {}), ("set", {}),
]  # fmt: skip
ROWS: list[tuple[Any, ...]] = [
    (1, -150, "one", 0, ["a", "b"]),
    (None, None, None, None, None),
    (-2, 0, "é" * 130, -719_528, []),
    (2147483647, 9_999_999_999, "", 2_932_896, ["ü"]),
]
INT: list[twin.Column] = [("int32", {})]
TEXT: list[twin.Column] = [("text", {})]


def one(value: Any) -> bytes:
    return twin.field(INT[0], value)


# ── cuts ─────────────────────────────────────────────────────────────────────────────────────────


def test_stream_cut_at_any_place_gives_the_same_rows() -> None:
    stream = twin.encode(ROWS, COLUMNS)
    for place in range(len(stream) + 1):
        assert decode_pieces([stream[:place], stream[place:]], COLUMNS) == (exact(ROWS), twin.EOF), place


def test_stream_byte_by_byte_gives_the_same_rows() -> None:
    stream = twin.encode(ROWS * 3, COLUMNS)
    pieces = [stream[at : at + 1] for at in range(len(stream))]
    assert decode_pieces(pieces, COLUMNS, rows_max=2) == (exact(ROWS * 3), twin.EOF)


def test_stream_that_ends_at_any_place_gives_no_row_that_is_not_whole() -> None:
    stream = twin.encode(ROWS, COLUMNS)
    for place in range(len(stream)):
        rows, last = decode_pieces([stream[:place]], COLUMNS, rows_max=1)
        assert last is None
        assert rows == exact(ROWS)[: len(rows)]


@pytest.mark.parametrize("size", [twin.FULL - 5, twin.FULL - 4, twin.FULL - 3, twin.FULL, 2 * twin.FULL + 7])
def test_row_of_16_mib_and_more_comes_in_several_packets(size: int) -> None:
    columns: list[twin.Column] = [("binary", {}), ("int32", {})]
    large = bytes(range(256)) * (size // 256) + bytes(size % 256)
    rows = [(b"x", 1), (large, 2), (b"y", 3), (large[::-1], 4)]
    stream = twin.encode(rows, columns, 250)
    piece = 3_000_001
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert decode_pieces(pieces, columns, 250) == (rows, twin.EOF)


def test_row_in_several_packets_cut_near_every_header_gives_the_same_row() -> None:
    row = twin.sized(bytes(2 * twin.FULL)) + one(5)
    stream = twin.framed([row, twin.EOF])
    columns: list[twin.Column] = [("binary", {}), *INT]
    for header in (twin.FULL + 4, 2 * (twin.FULL + 4)):
        for place in range(header - 2, header + 7):
            ((data, number),), last = decode_pieces([stream[:place], stream[place:]], columns)
            assert (len(data), number, last) == (2 * twin.FULL, 5, twin.EOF)


# ── what ends the rows ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "last", [twin.EOF, b"\xfe\0\0\2\0\0\0", b"\xfe\0\0\2\0\1\0session state" * 30, b"\xff\x15\x04#28000no"], ids=repr
)
def test_packet_that_ends_the_rows_is_given_as_it_came(last: bytes) -> None:
    rows, found = decode_pieces([twin.encode([(1,)], INT, 7, last)], INT, 7)
    assert (rows, found) == ([(1,)], last)


def test_result_without_rows_gives_none() -> None:
    assert decode_pieces([twin.framed([twin.EOF])], INT) == ([], twin.EOF)


def test_error_packet_of_number_0_in_mid_stream_is_the_servers_farewell() -> None:
    decoder = Decoder(INT, 4096, 9)
    feed(decoder, twin.framed([one(1)], 9) + twin.framed([b"\xff\x1d\x04#08S01shutdown"], 0))
    assert drain(decoder, INT) == [(1,)]
    assert decoder.farewell
    assert decoder.last == b"\xff\x1d\x04#08S01shutdown"


def test_error_packet_in_its_turn_is_no_farewell() -> None:
    decoder = Decoder(INT, 4096, 9)
    feed(decoder, twin.framed([one(1), b"\xff\x1d\x04#08S01shutdown"], 9))
    assert drain(decoder, INT) == [(1,)]
    assert not decoder.farewell


# ── broken packets ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "an empty packet"),
        (b"\x011", "without exactly 2 fields"),
        (b"\x011\x012\x013", "without exactly 2 fields"),
        (b"\x011\x0512", "without exactly 2 fields"),
        (b"\xfc\x01", "without exactly 2 fields"),
        (b"\xfc\xff\xff1\xfb", "without exactly 2 fields"),
        (b"\xfd\xff\xff\xff1\xfb", "without exactly 2 fields"),
        (b"\x011\xfe\xff\xff\xff\xff\xff\xff\xff\xff", "without exactly 2 fields"),
        (b"\x011\xfe\x01\0\0\0\0\0\0\x801", "without exactly 2 fields"),
        (b"\x011\xff", "without exactly 2 fields"),
    ],
    ids=repr,
)
def test_row_that_does_not_fill_its_packet_is_refused(payload: bytes, message: str) -> None:
    two = INT * 2
    good = b"\x011\xfb"
    decoder = Decoder(two)
    feed(decoder, twin.framed([good, payload, good, twin.EOF]))
    taken = decoder.take()
    assert taken is not None and rows_of(assemble(schema_of(two), taken)) == [(1, None)]
    with pytest.raises(FrameError, match=message):
        drain(decoder, two)
    with pytest.raises(FrameError, match="failed before"):
        decoder.take()


def test_rows_before_a_broken_packet_are_given_first() -> None:
    decoder = Decoder(INT)
    feed(decoder, twin.framed([one(1), one(2), b""]))
    taken = decoder.take()
    assert taken is not None and rows_of(assemble(schema_of(INT), taken)) == [(1,), (2,)]
    with pytest.raises(FrameError, match="after row 2: an empty packet"):
        decoder.take()


@pytest.mark.parametrize("number", [0, 1, 3, 4, 255])
def test_packet_of_another_number_is_refused(number: int) -> None:
    stream = twin.framed([one(1), one(2)]) + twin.framed([one(3)], number)
    with pytest.raises(FrameError, match=f"packet number {number} came where 2 was due"):
        decode_pieces([stream], INT)


def test_packet_of_another_number_within_a_large_row_is_refused() -> None:
    stream = bytearray(twin.framed([twin.sized(bytes(twin.FULL))], 254))
    assert stream[twin.FULL + 4 + 3] == 255
    stream[twin.FULL + 4 + 3] = 7
    with pytest.raises(FrameError, match="packet number 7 came where 255 was due"):
        decode_pieces([bytes(stream)], [("binary", {})], 254)


def test_numbers_begin_anew_after_255() -> None:
    rows = [(i,) for i in range(700)]
    assert decode_pieces([twin.encode(rows, INT, 3)], INT, 3) == (rows, twin.EOF)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(FrameError, match="bytes after its end"):
        decode_pieces([twin.encode([(1,)], INT) + b"\x01"], INT)
    decoder = Decoder(INT)
    feed(decoder, twin.framed([twin.EOF]))
    assert decoder.take() is None
    feed(decoder, b"\0")
    with pytest.raises(FrameError, match="bytes after its end"):
        decoder.take()


def test_last_packet_of_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(FrameError, match="packet of 2000000 bytes"):
        decode_pieces([twin.framed([b"\xff" + bytes(1_999_999)])], INT)


def test_count_of_received_bytes_that_cannot_be_is_refused() -> None:
    decoder = Decoder(INT)
    room = len(decoder.buffer_view(10))
    for count in (-1, room + 1):
        with pytest.raises(ValueError, match="cannot have been received"):
            decoder.received(count)


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def test_error_names_row_and_column_over_batches_and_pickles() -> None:
    good = twin.sized(b"1")
    decoder = Decoder(INT)
    feed(decoder, twin.framed([*[good] * 1500, twin.sized(b"4294967296"), twin.EOF]))
    with pytest.raises(DecodeError) as caught:
        drain(decoder, INT, rows_max=1000)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.row, error.column, error.value) == (1500, 0, b"4294967296")
    assert "row 1500, column 0: an integer beyond the range of its type" in str(error)


def test_error_in_a_set_names_the_row_whose_member_it_is() -> None:
    rows = [twin.sized(b"a,b"), b"\xfb", b"\0", twin.sized(b"c,\xff,d"), twin.sized(b"e")]
    with pytest.raises(DecodeError, match="row 3, column 0: text that is not UTF-8"):
        decode_pieces([twin.framed([*rows, twin.EOF])], [("set", {})])


def test_dates_that_no_calendar_has_become_null_where_asked_and_are_counted() -> None:
    columns: list[twin.Column] = [("date", {"null_unfit": True}), ("timestamp", {"null_unfit": True})]
    texts = [
        (b"0000-00-00", b"2024-01-01 00:00:00"), (b"2024-00-05", b"0000-00-00 00:00:00.000000"),
        (b"2023-02-29", b"2024-02-29 00:00:00"), (b"2024-02-29", b"2024-04-31 10:00:00"),
    ]  # fmt: skip
    decoder = Decoder(columns)
    feed(decoder, twin.framed([*(twin.sized(a) + twin.sized(b) for a, b in texts), b"\xfb\xfb", twin.EOF]))
    rows = drain(decoder, columns)
    assert [row[0] for row in rows] == [None, None, None, 19_782, None]
    assert [row[1] is None for row in rows] == [False, True, False, True, True]
    assert decoder.settled == [3, 2], "what was NULL already is not counted"


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("nothing", {}), ("decimal128", {"precision": 39, "scale": 0}), ("decimal128", {"precision": 5, "scale": 6}),
        ("decimal256", {"precision": 77, "scale": 0}), ("bits", {"length": 0}), ("bits", {"length": 65}),
        ("fixed", {"length": 0}),
    ],
)  # fmt: skip
def test_column_that_there_cannot_be_is_refused(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no "):
        Decoder([(kind, params)])


def test_result_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="0 columns"):
        Decoder([])


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


def test_batches_end_where_asked() -> None:
    rows = [(f"{i:096}",) for i in range(1000)]
    stream = twin.encode(rows, TEXT)
    for rows_max, bytes_max, expected in ((65536, 10_000, 99), (7, 1 << 20, 7), (65536, 1, 1)):
        decoder = Decoder(TEXT)
        feed(decoder, stream)
        sizes = []
        while (taken := decoder.take(rows_max, bytes_max)) is not None:
            sizes.append(taken[0])
        assert sum(sizes) == 1000
        assert set(sizes[:-1]) == {expected}


def test_batch_is_given_only_once_it_is_full_or_the_rows_end() -> None:
    decoder = Decoder(TEXT)
    stream = twin.encode([("x" * 100,)] * 10, TEXT)
    feed(decoder, stream[:-9])
    assert decoder.take(100, 1 << 20) is None
    feed(decoder, stream[-9:])
    taken = decoder.take(100, 1 << 20)
    assert taken is not None and taken[0] == 10


def test_batch_of_wide_columns_with_short_texts_keeps_to_its_bytes() -> None:
    columns: list[twin.Column] = [("decimal256", {"precision": 65, "scale": 0})] * 20
    decoder = Decoder(columns)
    feed(decoder, twin.encode([(None,) * 20] * 5000, columns))
    batches = []
    while (taken := decoder.take(65536, 1 << 20)) is not None:
        batches.append(assemble(schema_of(columns), taken))
    assert sum(batch.num_rows for batch in batches) == 5000
    assert max(batch.nbytes for batch in batches) < 1.1 * (1 << 20)


def test_all_golden_columns_side_by_side_give_their_values() -> None:
    columns = [column for _, column, _, _ in GOLDEN]
    payload = b"".join(field for _, _, field, _ in GOLDEN)
    nulls = b"\xfb" * len(columns)
    rows, last = decode_pieces([twin.framed([payload, nulls, payload, twin.EOF])], columns)
    values = exact([tuple(value for *_, value in GOLDEN)])
    assert rows == [*values, (None,) * len(columns), *values]
    assert last == twin.EOF


def test_batches_live_on_after_the_decoder() -> None:
    decoder = Decoder(COLUMNS)
    feed(decoder, twin.encode(ROWS * 100, COLUMNS))
    taken = decoder.take()
    assert taken is not None
    batch = assemble(schema_of(COLUMNS), taken)
    del decoder, taken
    gc.collect()
    assert rows_of(batch) == exact(ROWS * 100)


def test_assemble_another_type_is_refused() -> None:
    decoder = Decoder(INT)
    feed(decoder, twin.encode([(1,), (2,)], INT))
    taken = decoder.take()
    assert taken is not None
    for wrong in (pa.int64(), pa.utf8(), pa.bool_()):
        with pytest.raises(ValueError, match=r"were decoded|Non-fixed"):
            assemble(pa.schema([pa.field("a", wrong)]), taken)
    with pytest.raises(ValueError, match="columns were decoded"):
        assemble(pa.schema([]), taken)


# ── memory and threads ───────────────────────────────────────────────────────────────────────────


def test_memory_does_not_grow_with_the_rows_nor_stay_after_a_large_one() -> None:
    columns: list[twin.Column] = [("text", {}), ("int64", {}), ("set", {})]
    payload = b"".join(twin.sized(text) for text in (b"x" * 90, b"123456789", b"a,b"))
    large = b"".join(twin.sized(text) for text in (b"x" * (8 << 20), b"1", b"a"))

    def read(rows: int) -> int:
        decoder = Decoder(columns, 64 << 10)
        count, sequence = 0, 0
        for at in range(0, rows, 500):
            payloads = [payload] * 500 + ([large] if at == 1000 else [])
            feed(decoder, twin.framed(payloads, sequence))
            sequence = (sequence + len(payloads)) % 256
            while (taken := decoder.take(65536, 1 << 20)) is not None:
                count += taken[0]
        assert len(decoder.buffer_view(1000)) <= 200 << 10, "the slab of the large row is given back"
        return count

    read(5_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(200_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


def test_failing_again_and_again_keeps_memory_flat() -> None:
    bad = twin.framed([twin.sized(b"x" * 50_000) + one(1), twin.sized(b"\xff") + one(2)])
    columns: list[twin.Column] = [("text", {}), *INT]

    def fail() -> None:
        for _ in range(300):
            with pytest.raises(DecodeError):
                decode_pieces([bad], columns)

    fail()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        fail()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10


def test_two_threads_at_once_are_an_error_and_no_crash() -> None:
    rows = [("x" * 2000,)] * 3000
    decoder = Decoder(TEXT)
    feed(decoder, twin.encode(rows, TEXT))
    counts: list[int] = []
    refused: list[BaseException] = []

    def work() -> None:
        while True:
            try:
                taken = decoder.take(500, 1 << 30)
            except RuntimeError as error:
                refused.append(error)
                continue
            if taken is None:
                return
            counts.append(taken[0])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(counts) == 3000
    assert all("two threads" in str(error) for error in refused)
