"""Arrow batches as the text that MySQL loads: rows for LOAD DATA, or tuples of an INSERT.

Of LOAD DATA the statement must say (``LOAD_FORMAT``) ``CHARACTER SET binary FIELDS TERMINATED BY 0x09
ESCAPED BY 0x5C LINES TERMINATED BY 0x0A``: bytes are then taken as they are, whatever column they are for.
https://mariadb.com/kb/en/load-data-infile/ and https://dev.mysql.com/doc/refman/8.0/en/load-data.html

Batches come through the C Data Interface (``__arrow_c_array__``); the sizes of their buffers come beside, and
every offset is checked against them before it is used. The pure-Python twin is tests/kernels/mysql_load_reference.py.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo
from libc.stdint cimport INT32_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

import itertools

from arrow_c cimport (
    ArrowArray, ArrowSchema, array_of, at_f32, at_f64, at_i16, at_i32, at_i64, at_u16, at_u32, at_u64, bit_at,
    bytes_of, check_array, check_children, schema_of,
)
from double_digits cimport prepare_double_digits
from mysql_text cimport (
    escape_load, escape_sql, put_day, put_decimal_fast, put_double, put_hex, put_moment, put_padded,
    put_seconds_of_day, put_signed, put_unsigned,
)
from sqlite_values cimport INT64_BOTTOM, INT64_TOP, IPOW10, isfinite, put_uuid, utf8_characters

prepare_double_digits()

#: What LOAD DATA has to say of the format; hexadecimal, so that no sql_mode reads its quotes otherwise.
LOAD_FORMAT = "CHARACTER SET binary FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5C LINES TERMINATED BY 0x0A"

cdef enum:
    #: Room that is left before a cell of bounded length is written: the longest decimal has 160 characters.
    CELL_ROOM = 512
    #: Bytes of a block at the least and at the most.
    BLOCK_BYTES_MIN = 2 * CELL_ROOM
    BLOCK_BYTES_MAX = 1 << 30
    #: Bits of a bit string at the most: MySQL's BIT(64).
    BIT_MAX = 64

# How values are written.
cdef enum Kind:
    K_INTEGER, K_YEAR, K_FLOAT, K_DECIMAL, K_DATE, K_MOMENT, K_TIME, K_TEXT, K_BYTES, K_BIT, K_UUID_TEXT
    K_ENUM, K_SET

# How Arrow holds them.
cdef enum Input:
    I_NULL, I_BOOL, I_INTEGER, I_UNSIGNED, I_FLOAT32, I_FLOAT64, I_DECIMAL, I_TEXT, I_BINARY, I_FIXED, I_DATE, I_TIME
    I_TIMESTAMP, I_DURATION, I_LIST

cdef enum Code:
    OK, FULL, E_MEMORY, E_NULL, E_RANGE, E_NOT_FINITE, E_YEAR, E_FRACTION, E_TIME, E_LENGTH, E_FIXED, E_BIT, E_LABEL
    E_ORDER, E_ITEM_NULL, E_OFFSETS, E_ROW

REASONS = {
    E_NULL: "NULL, which the column does not take",
    E_RANGE: "an integer beyond the range of the column",
    E_NOT_FINITE: "NaN or infinity, which MySQL does not have",
    E_YEAR: "infinity, or a year beyond 0 to 9999",
    E_FRACTION: "more digits of the second than the column keeps",
    E_TIME: "a time beyond ±838:59:59.999999",
    E_LENGTH: "longer than the column",
    E_FIXED: "not as many bytes as the column has",
    E_BIT: "a bit string of another length, or with other characters than 0 and 1",
    E_LABEL: "none of the column's labels",
    E_ORDER: "labels that are repeated, or in another order than the column's",
    E_ITEM_NULL: "a NULL among the labels",
    E_OFFSETS: "Arrow offsets that descend or reach beyond their buffer",
    E_ROW: "a row larger than one statement can hold (max_allowed_packet)",
}  # fmt: skip

# codec: (kind, the ways in which Arrow may hold its values, the parameters it takes)
cdef dict CODECS = {
    "integer": (K_INTEGER, (I_INTEGER, I_UNSIGNED, I_BOOL), ("least", "most")),
    "year": (K_YEAR, (I_INTEGER, I_UNSIGNED), ()),
    "float": (K_FLOAT, (I_FLOAT32, I_FLOAT64), ()),
    "decimal": (K_DECIMAL, (I_DECIMAL,), ()),
    "date": (K_DATE, (I_DATE,), ()),
    "datetime": (K_MOMENT, (I_TIMESTAMP,), ("digits",)),
    "time": (K_TIME, (I_TIME, I_DURATION), ("digits",)),
    "text": (K_TEXT, (I_TEXT,), ("length",)),
    "bytes": (K_BYTES, (I_BINARY, I_FIXED), ("length", "fixed")),
    "bit": (K_BIT, (I_TEXT,), ("length",)),
    "uuid_text": (K_UUID_TEXT, (I_FIXED,), ()),
    "enum": (K_ENUM, (I_TEXT,), ("labels",)),
    "set": (K_SET, (I_LIST,), ("labels",)),
}

#: Arrow format: (how values are held, bytes of a value or an offset, digits of the second in its unit).
cdef dict FORMATS = {
    "n": (I_NULL, 0, 0), "b": (I_BOOL, 0, 0), "c": (I_INTEGER, 1, 0), "s": (I_INTEGER, 2, 0), "i": (I_INTEGER, 4, 0),
    "l": (I_INTEGER, 8, 0), "C": (I_UNSIGNED, 1, 0), "S": (I_UNSIGNED, 2, 0), "I": (I_UNSIGNED, 4, 0),
    "L": (I_UNSIGNED, 8, 0), "f": (I_FLOAT32, 4, 0), "g": (I_FLOAT64, 8, 0), "u": (I_TEXT, 4, 0), "z": (I_BINARY, 4, 0),
    "tdD": (I_DATE, 4, 0), "ttu": (I_TIME, 8, 6), "ttn": (I_TIME, 8, 9), "tss": (I_TIMESTAMP, 8, 0),
    "tsm": (I_TIMESTAMP, 8, 3), "tsu": (I_TIMESTAMP, 8, 6), "tsn": (I_TIMESTAMP, 8, 9), "tDs": (I_DURATION, 8, 0),
    "tDm": (I_DURATION, 8, 3), "tDu": (I_DURATION, 8, 6), "tDn": (I_DURATION, 8, 9), "+l": (I_LIST, 4, 0),
}  # fmt: skip


# One column (or a list's items) of the batch at hand. Owned are only the labels and the child.
cdef struct Field:
    int kind
    int input
    int width                 # bytes of a value; of an offset where the values have offsets
    int unit_digits           # of the second, in the values' unit
    int digits                # of the second, that the column keeps
    int scale                 # of decimals
    bint required             # NULL is refused
    bint bounded              # integers: least and most are looked at
    int64_t least
    uint64_t most
    int64_t length            # characters or bytes at the most; -1: unbounded
    bint fixed                # exactly ``length`` bytes
    const uint8_t* bits       # validity; NULL: all valid
    int64_t first             # of bitmaps and values
    const uint8_t* data
    const uint8_t* offsets    # of 32 bits
    int64_t data_size         # bytes (of a list: items) that offsets may reach
    uint8_t* labels           # all labels, one after the other
    int64_t* label_ends
    int label_count
    int32_t* slots            # hash table over labels: index + 1, or 0
    uint32_t slot_mask
    Field* child


include "encode_error.pxi"


cdef class Block:
    """Bytes of an encoder, given out by the buffer protocol. They change when the encoder goes on."""

    cdef Encoder owner
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.owner.out, self.size, 1, flags)
        self.owner.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.owner.exports -= 1

    def __len__(self):
        return self.size


include "mysql_load_bind.pxi"


cdef class Encoder:
    """Encodes Arrow batches for LOAD DATA, or (``sql``) as the tuples of INSERT … VALUES.

    columns: one (codec, params) for each column:
        integer (least, most: what the column takes), year, float (from float32 and float64), decimal, date,
        datetime and time (digits: of the second, 0 to 6), text (length: characters at the most), bytes (length,
        fixed), bit (length), uuid_text, enum and set (labels). Every codec takes ``required``: NULL is refused.
    block_bytes: size of the blocks that are given out. For LOAD DATA every block but the last is full, to within
        512 bytes or a set's length, wherever that cuts a row (or a value); for INSERT a block holds whole rows.
    row_bytes_max: for INSERT, what a block may grow to for the sake of one row.

    Memory: one block. Raises ValueError for what is no codec. One thread at a time; the GIL is released in the loop.

    >>> encoder = Encoder([("integer", {}), ("text", {"length": 20})])
    >>> encoder.begin(batch)
    >>> while (block := encoder.fill()) is not None:
    ...     send(block)
    >>> send(encoder.rest())
    """

    cdef Field* fields
    cdef int width
    cdef list columns
    cdef bint sql
    cdef char* out
    cdef int64_t used, capacity, growth_max
    cdef int exports
    cdef int64_t rows        # of the batch at hand
    cdef int64_t row         # where the next cell is
    cdef int column
    cdef int64_t at          # bytes of that cell that are written; -1: not begun
    cdef int64_t item        # a set: label at which its next item is looked for
    cdef object batch        # keeps the buffers alive
    cdef object capsules
    cdef bint busy
    #: Rows of which the last block holds the end.
    cdef readonly int64_t block_rows

    def __cinit__(self, list columns, *, int64_t block_bytes=1 << 20, bint sql=False, int64_t row_bytes_max=0):
        cdef int i
        self.columns = [(codec, dict(params)) for codec, params in columns]
        self.width = len(columns)
        self.sql = sql
        if not BLOCK_BYTES_MIN <= block_bytes <= BLOCK_BYTES_MAX or row_bytes_max > BLOCK_BYTES_MAX or not columns:
            raise ValueError(f"blocks of {block_bytes} bytes for {len(columns)} columns")
        self.capacity = block_bytes
        self.growth_max = max(row_bytes_max, block_bytes)
        self.out = <char*> malloc(<size_t> block_bytes)
        self.fields = <Field*> calloc(self.width, sizeof(Field))
        if self.fields == NULL or self.out == NULL:
            raise MemoryError
        for i, (codec, params) in enumerate(self.columns):
            plan_field(&self.fields[i], codec, params)

    def __dealloc__(self):
        cdef int i
        if self.fields != NULL:
            for i in range(self.width):
                free_field(&self.fields[i])
        free(self.fields)
        free(self.out)

    def begin(self, batch):
        """Takes a batch: n rows × k columns, a RecordBatch. Raises TypeError where a column's Arrow type is not for its
        codec, ValueError for one that is broken, RuntimeError where the one before is not used up."""
        cdef int i
        cdef ArrowSchema* schema
        cdef ArrowArray* array
        if self.busy or self.row < self.rows:
            raise RuntimeError("the batch before is not used up")
        capsules = batch.__arrow_c_array__()
        schema, array = schema_of(capsules[0]), array_of(capsules[1])
        check_array(schema, array, 0)
        if array.n_children != self.width:
            raise ValueError(f"a batch with {array.n_children} columns, expected {self.width}")
        check_children(schema, array, self.width)
        if schema.format != b"+s" or array.null_count > 0:
            raise TypeError("a batch of Arrow columns is expected, each row of it there")
        if array.offset != 0:
            raise ValueError("a struct with an offset")
        self.rows = self.row = 0
        columns = batch.columns
        for i in range(self.width):
            sizes = iter([0 if b is None else b.size for b in columns[i].buffers()])
            bind(&self.fields[i], self.columns[i], schema.children[i], array.children[i], array.length, sizes)
        self.batch, self.capsules = batch, capsules
        self.rows = array.length
        self.column = 0
        self.at = -1
        self.item = 0

    def fill(self):
        """The next full block; None where the batch is used up (what is left waits for more). Raises EncodeError."""
        cdef int code
        if self.busy:
            raise RuntimeError("an encoder is used by two threads at once")
        if self.exports:
            raise RuntimeError("the block before is still in use")
        self.busy = True
        try:
            with nogil:
                code = self.run()
        finally:
            self.busy = False
        if code == OK:
            self.batch = self.capsules = None
            return None
        if code == FULL:
            return self.give()
        row, column = self.row, self.column
        self.rows = self.row = 0
        self.batch = self.capsules = None
        if code == E_MEMORY:
            raise MemoryError
        raise EncodeError(row, column, REASONS[code])

    def rest(self):
        """What no block has held yet: empty where there is nothing."""
        if self.busy or self.exports:
            raise RuntimeError("the block before is still in use")
        if self.row < self.rows:
            raise RuntimeError("the batch is not used up")
        return self.give()

    cdef Block give(self):
        cdef Block block = Block.__new__(Block)
        block.owner = self
        block.size = self.used
        self.used = 0
        return block

    # ── the loop ─────────────────────────────────────────────────────────────────────────────

    cdef int run(self) noexcept nogil:
        """Writes until the block is full (FULL), the batch used up (OK), or a value does not fit."""
        cdef int code
        if self.used == 0:
            self.block_rows = 0
        while self.row < self.rows:
            code = self.write_row_sql() if self.sql else self.write_row()
            if code != OK:
                return code
            self.row += 1
            self.block_rows += 1
            self.column = 0
        return OK

    cdef int write_row(self) noexcept nogil:
        """The row from where it stands; FULL leaves it to be gone on with."""
        cdef int code, n
        cdef const Field* f
        cdef char* out
        while self.column < self.width:
            f = &self.fields[self.column]
            if self.at < 0:
                if self.capacity - self.used < CELL_ROOM:
                    return FULL
                if self.column:
                    self.out[self.used] = 9
                    self.used += 1
            out = self.out + self.used
            if f.input == I_NULL or (f.bits != NULL and not bit_at(f.bits, f.first + self.row)):
                if f.required:
                    return E_NULL
                memcpy(out, b"\\N", 2)
                self.used += 2
            elif f.kind >= K_TEXT:
                code = self.write_long(f)
                if code != OK:
                    return code
            else:
                n = short_cell(f, self.row, out)
                if n < 0:
                    return -n
                self.used += n
            self.at = -1
            self.column += 1
        self.out[self.used] = 10  # CELL_ROOM has left room for it
        self.used += 1
        return OK

    cdef int write_long(self, const Field* f) noexcept nogil:
        """A cell of any length, from where it stands."""
        cdef int64_t start = 0, n = 0, taken = 0
        cdef char* out = self.out + self.used
        cdef char[40] small
        cdef int code
        if f.kind == K_SET:
            return self.write_set(f)
        if f.kind == K_UUID_TEXT:
            self.used += put_uuid(out, f.data + 16 * (f.first + self.row))
            return OK
        code = span_at(f, f.first + self.row, &start, &n)
        if code != OK:
            return code
        if f.kind == K_BIT:
            code = pack_bits(f, f.data + start, n, <uint8_t*> small)
            if code != OK:
                return code
            self.used += escape_load(out, CELL_ROOM - 1, <uint8_t*> small, (f.length + 7) // 8, 8, &taken)
            return OK
        if self.at < 0:
            code = check_long(f, f.data + start, n)
            if code != OK:
                return code
            self.at = 0
        # One byte less than there is: the row's end needs it.
        start += self.at
        self.used += escape_load(
            out, self.capacity - self.used - 1, f.data + start, n - self.at, f.data_size - start, &taken
        )
        self.at += taken
        return OK if self.at == n else FULL

    cdef int write_set(self, const Field* f) noexcept nogil:
        """A list of labels, comma between them. A cell of at most 64 labels: it is written whole, or begun anew."""
        cdef int64_t start = 0, n = 0, k, from_ = 0, size = 0, begun = self.used, taken = 0
        cdef int least = 0
        cdef int code = span_at(f, f.first + self.row, &start, &n)
        if code != OK:
            return code
        if n > f.label_count:
            return E_ORDER
        for k in range(start, start + n):
            code = set_item(f, k, &least, &from_, &size)
            if code != OK:
                return code
            if 2 * size + 3 > self.capacity - self.used:
                self.used = begun
                if begun == 0:  # an empty block, and still no room
                    return E_LENGTH
                self.at = 0  # its tab is there already
                return FULL
            if k > start:
                self.out[self.used] = 44
                self.used += 1
            self.used += escape_load(
                self.out + self.used, self.capacity - self.used - 1, f.child.data + from_, size, size, &taken
            )
        return OK

    cdef int write_row_sql(self) noexcept nogil:
        """A whole tuple, the comma before it; FULL where it is for the next block."""
        cdef int64_t begun = self.used, needed
        cdef int code, n
        cdef const Field* f
        self.column = 0
        code = self.reserve(4)
        if code == OK and begun:
            self.out[self.used] = 44
            self.used += 1
        while code == OK and self.column < self.width:
            f = &self.fields[self.column]
            code = self.reserve(CELL_ROOM)
            if code != OK:
                break
            self.out[self.used] = 40 if self.column == 0 else 44
            self.used += 1
            if f.input == I_NULL or (f.bits != NULL and not bit_at(f.bits, f.first + self.row)):
                if f.required:
                    code = E_NULL
                    break
                memcpy(self.out + self.used, b"NULL", 4)
                self.used += 4
            elif f.kind >= K_TEXT:
                code = self.write_long_sql(f)
            else:
                n = self.write_short_sql(f)
                if n < 0:
                    code = -n
                else:
                    self.used += n
            if code == OK:
                self.column += 1
        if code == OK:
            code = self.reserve(2)
        if code == OK:
            self.out[self.used] = 41
            self.used += 1
            return OK
        self.used = begun
        if code == E_ROW and begun:
            return FULL
        return code

    cdef int reserve(self, int64_t bytes) noexcept nogil:
        """Room for so many bytes: a block that is one row so far grows, another one does not."""
        cdef int64_t wanted = self.used + bytes
        cdef char* grown
        if wanted <= self.capacity:
            return OK
        if self.block_rows or wanted > self.growth_max:
            return E_ROW
        wanted = min(max(wanted, 2 * self.capacity), self.growth_max)
        grown = <char*> realloc(self.out, <size_t> wanted)
        if grown == NULL:
            return E_MEMORY
        self.out = grown
        self.capacity = wanted
        return OK

    cdef int write_short_sql(self, const Field* f) noexcept nogil:
        """A number as it is, dates and times between quotes; the characters, or minus a code."""
        cdef char* out = self.out + self.used
        cdef int n
        if f.kind < K_DATE and f.kind != K_YEAR:
            return short_cell(f, self.row, out)
        n = short_cell(f, self.row, out + 1)
        if n < 0:
            return n
        out[0] = out[n + 1] = 39
        return n + 2

    cdef int write_long_sql(self, const Field* f) noexcept nogil:
        cdef int64_t start = 0, n = 0, k, from_ = 0, size = 0, length
        cdef char[40] small
        cdef int code = OK, least = 0
        if f.kind == K_UUID_TEXT:
            self.out[self.used] = 39
            self.used += 1 + put_uuid(self.out + self.used + 1, f.data + 16 * (f.first + self.row))
            self.out[self.used] = 39
            self.used += 1
            return OK
        code = span_at(f, f.first + self.row, &start, &n)
        if code != OK:
            return code
        if f.kind == K_SET:
            if n > f.label_count:
                return E_ORDER
            self.out[self.used] = 39
            self.used += 1
            for k in range(start, start + n):
                code = set_item(f, k, &least, &from_, &size)
                if code == OK:
                    code = self.reserve(2 * size + 2)
                if code != OK:
                    return code
                if k > start:
                    self.out[self.used] = 44
                    self.used += 1
                self.used += escape_sql(self.out + self.used, f.child.data + from_, size)
            self.out[self.used] = 39
            self.used += 1
            return self.reserve(0)
        if f.kind == K_BIT:
            code = pack_bits(f, f.data + start, n, <uint8_t*> small)
            if code != OK:
                return code
            length = (f.length + 7) // 8
            memcpy(self.out + self.used, b"X'", 2)
            self.used += 2 + put_hex(self.out + self.used + 2, <uint8_t*> small, length)
            self.out[self.used] = 39
            self.used += 1
            return OK
        code = check_long(f, f.data + start, n)
        if code == OK:
            code = self.reserve(2 * n + 4)
        if code != OK:
            return code
        if f.kind == K_BYTES:
            memcpy(self.out + self.used, b"X'", 2)
            self.used += 2 + put_hex(self.out + self.used + 2, f.data + start, n)
        else:
            self.out[self.used] = 39
            self.used += 1 + escape_sql(self.out + self.used + 1, f.data + start, n)
        self.out[self.used] = 39
        self.used += 1
        return OK
