# PostgreSQL's COPY BINARY, both ways: Decoder (socket bytes → Arrow buffers) and Encoder (Arrow
# batches → tuples). Their classes are in the two .pxi, their loops in pg_decode.pxd, pg_encode.pxd
# and pg_numeric.pxd.
#
# Format: https://www.postgresql.org/docs/15/sql-copy.html ("Binary Format") and
# https://www.postgresql.org/docs/15/protocol-message-formats.html (CopyData, 'd').

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr, memcmp, memmove

import itertools

from arrow_c cimport (
    ArrowArray, ArrowSchema, array_of, at_i32, at_i64, bytes_of, check_array, check_children, schema_of,
)
from intake cimport (
    INTAKE_BITS, INTAKE_BUSY, INTAKE_LISTS, INTAKE_TEXTS, INTAKE_VALUES,
    Intake, IntakeColumn, intake_of,
)
from arrow_build cimport BLOCK_ROWS, SLACK, Column
from pg_decode cimport (
    WALK_END, WALK_FIELD_COUNT, WALK_FIELD_LENGTH, WALK_FULL, WALK_MORE, WALK_ROW_LENGTH,
    decode_column, walk,
)
from pg_encode cimport (
    I_BINARY, I_BOOL, I_DATE, I_DECIMAL, I_DURATION, I_FIXED_BINARY, I_FLOAT32, I_FLOAT64, I_INTEGER, I_LIST,
    I_MONTH_DAY_NANO, I_NULL, I_TEXT, I_TIME, I_TIMESTAMP, I_UNSIGNED,
    Field, Output, encode_rows, quick_way,
)
from pg_numeric cimport limbs_multiply_add
from pg_wire cimport *

#: What precedes and follows the tuples of a COPY BINARY stream (no flags, no extension).
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"

REASONS = {
    E_MEMORY: "out of memory",
    E_LENGTH: "the field's length does not fit its type",
    E_BOOL: "a boolean that is neither 0 nor 1",
    E_NUMERIC: "a malformed numeric",
    E_NOT_FINITE: "NaN or infinity, which a decimal does not have",
    E_SCALE: "more digits after the point than the decimal's scale",
    E_PRECISION: "more digits than the decimal's precision",
    E_UTF8: "text that is not UTF-8",
    E_JSONB: "jsonb of an unknown version",
    E_DATE: "a date beyond the range of 32-bit days since 1970",
    E_TIME: "a time beyond 24:00",
    E_TIMESTAMP: "a timestamp beyond the range of 64-bit microseconds",
    E_INTERVAL: "an interval beyond the range of 64-bit nanoseconds",
    E_BIT: "a malformed bit string",
    E_ARRAY: "a malformed array",
    E_DIMENSIONS: "an array that has not one dimension with lower bound 1",
    E_ELEMENT: "an array of another element type",
    E_SIZE: "a batch with 2 GiB or more in one column",
    E_INTEGER: "an integer beyond the range of the target type",
    E_FLOAT: "a float64 that float4 cannot hold exactly",
    E_NUL: "text with U+0000, which PostgreSQL cannot store",
    E_FRACTION: "nanoseconds that are no whole microseconds",
    E_DIGITS: "text that is no canonical numeric",
    E_BIT_TEXT: "a bit string with other characters than 0 and 1",
    E_OFFSETS: "Arrow offsets that descend or reach beyond their buffer",
    E_FIELD: "a value of 1 GiB or more",
}  # fmt: skip

FRAME_REASONS = {
    WALK_FIELD_COUNT: "a tuple with {found} fields, expected {columns}",
    WALK_FIELD_LENGTH: "a field with a length below -1 or above 1 GiB",
    WALK_ROW_LENGTH: "a tuple of 2 GiB or more",
}

cdef extern from *:
    #: No machine has as much: sums of it and of what is there do not overflow.
    const int64_t ROOM_BYTES_MAX "(INT64_C(1) << 48)"

cdef enum:
    #: Messages other than CopyData are errors and notices; more than this is a broken stream.
    MESSAGE_BYTES_MAX = 16 << 20
    #: The header's extension area is empty in every known server.
    EXTENSION_BYTES_MAX = 1 << 20
    #: Arrays nest by domains over arrays only; deeper is a mistake.
    DEPTH_MAX = 8


class FrameError(ValueError):
    """The stream is not COPY BINARY, or was cut off."""


class DecodeError(ValueError):
    """A field's value cannot be carried. ``row`` counts from 0 in the stream, ``column`` in the row."""

    def __init__(self, row, column, reason, value_hex):
        super().__init__(f"row {row}, column {column}: {reason} (bytes: {value_hex or 'none'})")
        self.row = row
        self.column = column
        self.reason = reason
        #: The first 64 bytes of the field, in hexadecimal.
        self.value_hex = value_hex

    def __reduce__(self):
        return DecodeError, (self.row, self.column, self.reason, self.value_hex)


include "encode_error.pxi"
include "arrow_buffers.pxi"
include "pg_copy_decoder.pxi"
include "pg_copy_encoder.pxi"
