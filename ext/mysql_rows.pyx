# MySQL's text protocol: the rows of a SELECT off a socket into Arrow buffers. The loops are in
# mysql_decode.pxd, the columns under construction in arrow_build.pxd.
#
# Format: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from arrow_build cimport BLOCK_ROWS, COLUMN_BYTES_MAX, SLACK, Column, grow
from double_parse cimport prepare_double_parse
from mysql_decode cimport *

REASONS = {
    E_MEMORY: "out of memory",
    E_SIZE: "a batch with 2 GiB or more in one column",
    E_INTEGER: "no integer of up to 64 bits",
    E_RANGE: "an integer beyond the range of its type",
    E_BOOL: "a boolean that is neither 0 nor 1",
    E_FLOAT: "no finite floating-point number",
    E_FLOAT32: "a number that float32 cannot hold exactly",
    E_DECIMAL: "no decimal of its precision and scale",
    E_NUMERIC: "no decimal number",
    E_UTF8: "text that is not UTF-8",
    E_LENGTH: "a value of another length than its type's",
    E_DATE: "no date",
    E_ZERO_DATE: "a zero or partial date",
    E_CALENDAR: "a day that its month does not have",
    E_TIMESTAMP: "no date and time",
    E_DURATION: "no time between -838:59:59.999999 and 838:59:59.999999",
    E_UUID: "no uuid",
    E_BITS: "a bit string of another length than its type's",
}  # fmt: skip

FRAME_REASONS = {
    WALK_SEQUENCE: "packet number {found} came where {expected} was due",
    WALK_FIELDS: "a row without exactly {columns} fields that fill its packet",
    WALK_EMPTY: "an empty packet among the rows",
    WALK_TOO_LONG: "a row of 2 GiB or more",
}

# kind: (number, bytes of a value in the Arrow buffer; 0: offsets and bytes)
KINDS = {
    "bool": (K_BOOL, 1), "int8": (K_INT8, 1), "int16": (K_INT16, 2), "int32": (K_INT32, 4), "int64": (K_INT64, 8),
    "uint8": (K_UINT8, 1), "uint16": (K_UINT16, 2), "uint32": (K_UINT32, 4), "uint64": (K_UINT64, 8),
    "float32": (K_FLOAT32, 4), "float64": (K_FLOAT64, 8), "decimal128": (K_DECIMAL, 16), "decimal256": (K_DECIMAL, 32),
    "numeric": (K_NUMERIC, 0), "text": (K_TEXT, 0), "char": (K_CHAR, 0), "binary": (K_BINARY, 0),
    "fixed": (K_FIXED, -1), "date": (K_DATE, 4), "timestamp": (K_TIMESTAMP, 8), "duration": (K_DURATION, 8),
    "uuid": (K_UUID, 16), "bits": (K_BITS, 0), "set": (K_SET, 0),
}  # fmt: skip

cdef enum:
    #: What ends the rows is an EOF, OK or ERR packet: far smaller in every server.
    LAST_BYTES_MAX = 1 << 20
    #: Columns that a SELECT can have are 4096; more is a mistake.
    COLUMNS_MAX = 65535

prepare_double_parse()


class FrameError(ValueError):
    """The stream is not the protocol's."""


class DecodeError(ValueError):
    """A field's value cannot be carried. ``row`` counts from 0 in the result, ``column`` in the row."""

    def __init__(self, row, column, reason, value):
        super().__init__(f"row {row}, column {column}: {reason} (value: {value!r})")
        self.row = row
        self.column = column
        self.reason = reason
        #: The first 64 bytes of the field.
        self.value = value

    def __reduce__(self):
        return DecodeError, (self.row, self.column, self.reason, self.value)


include "arrow_buffers.pxi"


cdef int prepare(Column* column, str kind, dict params) except -1:
    """Fills in a zeroed column; raises ValueError for what is no kind or does not fit it."""
    known = KINDS.get(kind)
    if known is None:
        raise ValueError(f"no kind {kind!r}")
    column.kind, column.width = known
    column.null_unfit = params.get("null_unfit", False)
    if column.kind == K_DECIMAL:
        column.length, column.scale = params["precision"], params["scale"]
        if not 0 <= column.scale <= column.length or not 1 <= column.length <= (38 if column.width == 16 else 76):
            raise ValueError(f"no {kind} of precision {column.length}, scale {column.scale}")
    elif column.kind == K_BITS:
        column.length = params["length"]
        if not 1 <= column.length <= 64:
            raise ValueError(f"no bit string of {column.length} bits")
    elif column.kind == K_FIXED:
        column.length = params["length"]
        if not 1 <= column.length <= 1 << 20:
            raise ValueError(f"no binary of {column.length} bytes")
        column.width = <int> column.length
    elif column.kind == K_SET:
        column.child = <Column*> calloc(1, sizeof(Column))
        if column.child == NULL:
            raise MemoryError
        column.child.kind = K_TEXT
    return 0


cdef int64_t least_bytes(Column* column) noexcept:
    """Bytes that a row needs in this column at least, however short its text is."""
    if column.kind == K_BITS:
        return 4 + column.length
    return column.width if column.width else 4


cdef class Decoder:
    """Decodes the rows of one result of the text protocol into Arrow buffers.

    Bytes come in by :meth:`buffer_view` and :meth:`received` (straight off a socket into the decoder's
    own memory), beginning with the packet after the column definitions; batches go out by
    :meth:`take`. Memory: ``buffer_bytes`` of packets, or the largest row, and the batch. One thread at a time; the GIL is released while bytes are worked on.

    columns: one (kind, params) for each field of a row. Kinds: bool int8 … uint64 float32 float64,
        decimal128 and decimal256 (``precision``, ``scale``), numeric (text), text char binary, fixed
        (``length`` bytes), date timestamp (both take ``null_unfit``: zero and partial dates become
        NULL and are counted) duration uuid, bits (``length``), set.
    sequence: number of the packet that comes first.

    Raises ValueError for an unknown kind, FrameError and DecodeError as said at the methods; after one
    of these the decoder takes nothing more.

    >>> decoder = Decoder([("int32", {}), ("decimal128", {"precision": 10, "scale": 2})], 1 << 20, sequence=4)
    """

    cdef Column* columns
    cdef int width
    cdef int64_t row_bytes       # that a row needs at least in the Arrow buffers
    cdef uint32_t* at
    cdef int32_t* sizes
    cdef Slab slab
    cdef int64_t slab_bytes      # the usual size of the slab
    cdef int64_t start           # not yet decoded: slab[start:stop]
    cdef int64_t stop
    cdef int64_t large_bytes     # payload of the row at ``start`` that is in several packets, as far as they are joined
    cdef bint large_more         # its next packet's header is still to be read
    cdef uint8_t number
    cdef bint failed
    cdef bint busy
    cdef int64_t pending         # rows that are decoded and not yet taken
    cdef int64_t pending_bytes   # of their packets
    cdef readonly int64_t rows   # rows taken so far
    #: Payload of the packet that ended the rows (EOF, OK, ERR); None before.
    cdef readonly object last
    #: Whether that packet came out of turn, with the number 0: the server says no more.
    cdef readonly bint farewell

    def __cinit__(self, list columns, int64_t buffer_bytes=1 << 20, int sequence=0):
        self.width = len(columns)
        if not 1 <= self.width <= COLUMNS_MAX:
            raise ValueError(f"a row cannot have {self.width} columns")
        self.columns = <Column*> calloc(self.width, sizeof(Column))
        self.at = <uint32_t*> malloc(self.width * BLOCK_ROWS * sizeof(uint32_t))
        self.sizes = <int32_t*> malloc(self.width * BLOCK_ROWS * sizeof(int32_t))
        if self.columns == NULL or self.at == NULL or self.sizes == NULL:
            raise MemoryError
        for i, (kind, params) in enumerate(columns):
            prepare(&self.columns[i], kind, params)
            self.row_bytes += least_bytes(&self.columns[i])
        self.slab_bytes = max(4096, buffer_bytes)
        self.slab = Slab(self.slab_bytes)
        self.number = <uint8_t> sequence

    def __dealloc__(self):
        cdef int c
        if self.columns != NULL:
            for c in range(self.width):
                destroy(&self.columns[c])
        free(self.columns)
        free(self.at)
        free(self.sizes)

    @property
    def buffered(self):
        """Bytes received and not yet decoded."""
        return self.stop - self.start

    @property
    def settled(self):
        """For each column how many zero and partial dates became NULL."""
        return [self.columns[c].settled for c in range(self.width)]

    def buffer_view(self, int64_t free_bytes_min=256 << 10):
        """A writable view of at least ``free_bytes_min`` bytes to ``recv_into``; then call :meth:`received`.

        The view is good until the next call of any method of the decoder.
        """
        self.enter()
        try:
            self.make_room(max(1, free_bytes_min))
            return memoryview(self.slab)[self.stop:]
        finally:
            self.busy = False

    def received(self, int64_t count):
        """Says that ``count`` bytes were written to the view."""
        self.enter()
        try:
            if not 0 <= count <= self.slab.size - self.stop:
                raise ValueError(f"{count} bytes cannot have been received")
            self.stop += count
        finally:
            self.busy = False

    def take(self, int64_t rows_max=65536, int64_t bytes_max=1 << 20):
        """Decodes the rows that have come: (rows, columns) once they are a batch, else None: receive more, unless
        the rows have ended (``last``).

        rows_max, bytes_max: where a batch ends, in rows and in bytes of packets, or of Arrow buffers where those
        need more; it has one row at least.

        Each column is (length, nulls, [validity or None, offsets?, data?], child or None), the
        buffers in Arrow's order for ``pyarrow.Array.from_buffers``. Raises FrameError, DecodeError.
        """
        cdef int64_t budget
        cdef int result = WALK_FULL, code, c = 0
        self.enter()
        try:
            if self.last is not None:
                self.check_end()
                return None
            budget = min(max(1, bytes_max), COLUMN_BYTES_MAX >> 1)
            with nogil:
                code = self.decode(max(1, min(rows_max, budget // self.row_bytes)), budget, &result, &c)
            if code != OK:
                self.refuse(code, c)
            if result == WALK_END or result == WALK_ERROR:
                self.end()
            elif result == WALK_MORE:
                return None
            elif result >= WALK_SEQUENCE and self.pending == 0:
                self.fail_frame(result)
            if self.pending == 0:
                return None
            rows = self.pending
            self.rows += rows
            self.pending = self.pending_bytes = 0
            return rows, [hand_over(&self.columns[c]) for c in range(self.width)]
        finally:
            self.busy = False

    cdef int decode(self, int64_t rows_max, int64_t budget, int* result, int* column) noexcept nogil:
        """Adds rows to the pending batch until it is full, or ``result`` is another than WALK_FULL. A code, and where
        it is not OK the column."""
        cdef int64_t used = 0
        cdef int rows, c, code
        while self.pending < rows_max and self.pending_bytes < budget and result[0] == WALK_FULL:
            rows = 0
            if self.large_bytes:
                result[0] = WALK_LARGE
            else:
                result[0] = walk(
                    self.slab.data + self.start, self.stop - self.start, self.width,
                    <int> min(<int64_t> BLOCK_ROWS, rows_max - self.pending), budget - self.pending_bytes,
                    self.pending == 0, self.at, self.sizes, &rows, &used, &self.number,
                )
            if result[0] == WALK_LARGE and rows == 0:
                if self.pending:
                    break
                result[0] = self.large(&rows, &used)
            if rows == 0:
                break
            for c in range(self.width):
                code = decode_column(
                    &self.columns[c], self.slab.data + self.start,
                    self.at + c * BLOCK_ROWS, self.sizes + c * BLOCK_ROWS, rows,
                )
                if code != OK:
                    column[0] = c
                    return code
            self.start += used
            self.pending_bytes += used
            self.pending += rows
            if result[0] == WALK_LARGE:
                break
        return OK

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("a decoder is used by two threads at once")
        if self.failed:
            raise FrameError("the decoder has failed before")
        self.busy = True
        return 0

    cdef int fail(self, str reason) except -1:
        self.failed = True
        raise FrameError(f"after row {self.rows + self.pending}: {reason}")

    cdef int fail_frame(self, int result) except -1:
        found = self.slab.data[self.start + 3]
        return self.fail(FRAME_REASONS[result].format(found=found, expected=self.number, columns=self.width))

    cdef int refuse(self, int code, int c) except -1:
        """Raises for field ``bad`` of column c in the block that was being decoded."""
        cdef int64_t bad = self.columns[c].bad
        cdef int size = max(0, self.sizes[c * BLOCK_ROWS + bad])
        cdef int k
        self.failed = True
        for k in range(self.width):
            drop(&self.columns[k])
        if code == E_MEMORY:
            raise MemoryError
        value = PyBytes_FromStringAndSize(
            <char*> self.slab.data + self.start + self.at[c * BLOCK_ROWS + bad], min(size, 64)
        )
        raise DecodeError(self.rows + self.pending + bad, c, REASONS[code], value)

    cdef int end(self) except -1:
        """Takes the packet that ends the rows."""
        cdef uint8_t* data = self.slab.data + self.start
        cdef int64_t size = packet_head(data) & 0xFFFFFF
        if size > LAST_BYTES_MAX:
            self.fail(f"an EOF or ERR packet of {size} bytes")
        self.last = PyBytes_FromStringAndSize(<char*> data + 4, size)
        self.farewell = data[3] != self.number
        self.number = data[3] + 1
        self.start += 4 + size
        return self.check_end()

    cdef int check_end(self) except -1:
        if self.stop > self.start:
            return self.fail("bytes after its end")
        return 0

    cdef int large(self, int* rows, int64_t* used) noexcept nogil:
        """The row at ``start`` that is in several packets: joins what has come of them; once the last is there, it is
        walked as one row. (Its first header stays in front, so that the payload need not be moved.)"""
        cdef int64_t position
        cdef uint32_t head
        rows[0] = 0
        if self.large_bytes == 0:
            self.large_bytes = PACKET_FULL
            self.large_more = True
            self.number += 1
        while self.large_more:
            position = self.start + 4 + self.large_bytes
            if self.stop - position < 4:
                return WALK_MORE
            head = packet_head(self.slab.data + position)
            if head >> 24 != self.number:
                # Where the message looks for the number that came.
                self.slab.data[self.start + 3] = <uint8_t> (head >> 24)
                return WALK_SEQUENCE
            memmove(self.slab.data + position, self.slab.data + position + 4, self.stop - position - 4)
            self.stop -= 4
            self.number += 1
            self.large_bytes += head & 0xFFFFFF
            self.large_more = head & 0xFFFFFF == PACKET_FULL
            if self.large_bytes > COLUMN_BYTES_MAX - 4:
                self.large_bytes = 0
                return WALK_TOO_LONG
        if self.stop - self.start - 4 < self.large_bytes:
            return WALK_MORE
        used[0] = 4 + self.large_bytes
        self.large_bytes = 0
        if not walk_row(self.slab.data + self.start, 4, used[0], self.width, 0, self.at, self.sizes):
            return WALK_FIELDS
        rows[0] = 1
        return WALK_FULL

    cdef int make_room(self, int64_t wanted) except -1:
        """Makes ``wanted`` bytes free behind what was received, in a slab no larger than it must be."""
        cdef int64_t have = self.stop - self.start
        cdef int64_t needed = have + wanted
        cdef Slab slab
        if needed <= self.slab.size and self.slab.size <= 2 * max(needed, self.slab_bytes):
            if self.slab.size - self.stop >= wanted:
                return 0
            slab = self.slab
        else:  # a row larger than the slab doubles it; after such a row it shrinks again
            slab = Slab(max(self.slab_bytes, needed + (needed >> 1) if needed > self.slab_bytes else 0))
        memmove(slab.data, self.slab.data + self.start, have)
        self.slab = slab
        self.start = 0
        self.stop = have
        return 0
