# Arrow buffers to COPY BINARY tuples: one value at a time, row by row, so that the output is
# written once and in order.

from arrow_c cimport at_f32, at_f64, at_i16, at_i32, at_i64, at_u16, at_u32, at_u64, bit_at
from pg_numeric cimport (
    LIMBS, NUMERIC_BYTES_MAX, numeric_from_limbs, numeric_from_text, numeric_from_word, numeric_show_all,
)
from pg_wire cimport (
    DATE_END, DATE_MIN, DAY_US, EPOCH_DAYS, EPOCH_US, FIELD_BYTES_MAX, I32_MAX, I32_MIN, I64_MAX, I64_MIN,
    K_BINARY, K_BIT, K_BOOL, K_DATE, K_FLOAT4, K_FLOAT8, K_INT2, K_INT4, K_INT8, K_INTERVAL, K_JSONB, K_LIST,
    K_NUMERIC_TEXT, K_DECIMAL128, K_OID, K_TEXT, K_TIME, K_TIMESTAMP, K_UUID, K_WIRE_NUMERIC,
    TIMESTAMP_END, TIMESTAMP_MIN,
    E_BIT_TEXT, E_DATE, E_FIELD, E_FLOAT, E_FRACTION, E_INTEGER, E_INTERVAL, E_MEMORY, E_NUL, E_OFFSETS, E_TIME,
    E_TIMESTAMP, OK,
    add64, grow, memcpy, memset, mul64, store16, store32, store64,
    int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t,
)
from libc.stdint cimport int8_t
from libc.string cimport memchr, memmove


cdef extern from *:
    const int64_t WORD_MAX "INT64_C(10000000000000000)"


# How Arrow holds the values of a field.
cdef enum Input:
    I_NULL, I_BOOL, I_INTEGER, I_UNSIGNED, I_FLOAT32, I_FLOAT64, I_DECIMAL, I_TEXT, I_BINARY, I_FIXED_BINARY
    I_DATE, I_TIME, I_TIMESTAMP, I_DURATION, I_MONTH_DAY_NANO, I_LIST


# Pairs that encode_rows writes itself, without encode_field's questions.
cdef enum Quick:
    Q_NONE, Q_INT32, Q_INT64, Q_DATE, Q_DECIMAL, Q_TEXT


# One column (or a list's items) of the batch at hand. Nothing in it is owned.
cdef struct Field:
    int kind
    int input
    int width                 # bytes of a value; of an offset where the values have offsets
    int scale                 # of decimals
    int64_t factor            # µs of one unit of time; 0: the unit is ns
    int64_t least             # of integers, what the target takes
    int64_t most
    uint32_t element          # type OID of a list's elements
    bint has_nul              # some text holds U+0000: look at each
    const uint8_t* validity
    int64_t offset            # of bitmaps; the other pointers stand at the first value
    const uint8_t* offsets
    const uint8_t* data
    int64_t data_size         # bytes (of a list: items) that offsets may reach
    int quick                 # the short way for the commonest pairs of input and target
    Field* child


cdef struct Output:
    uint8_t* data
    int64_t used
    int64_t size


cdef inline int reserve(Output* out, int64_t bytes) noexcept nogil:
    return OK if out.size - out.used >= bytes else grow(<void**> &out.data, &out.size, out.used + bytes)


cdef inline int64_t integer_at(const Field* f, int64_t i, bint* beyond) noexcept nogil:
    """The integer; ``beyond`` where it is a uint64 that int64 does not hold."""
    cdef uint64_t wide
    beyond[0] = False
    if f.input == I_UNSIGNED:
        if f.width == 8:
            wide = at_u64(f.data, i)
            beyond[0] = wide > <uint64_t> I64_MAX
            return <int64_t> wide
        if f.width == 4:
            return at_u32(f.data, i)
        return at_u16(f.data, i) if f.width == 2 else f.data[i]
    if f.width == 8:
        return at_i64(f.data, i)
    if f.width == 4:
        return at_i32(f.data, i)
    return at_i16(f.data, i) if f.width == 2 else (<const int8_t*> f.data)[i]


cdef inline bint span_at(const Field* f, int64_t i, int64_t* start, int64_t* size) noexcept nogil:
    """Where value i lies in ``data``; false where the offsets are impossible."""
    cdef int64_t end
    if f.input == I_FIXED_BINARY:
        start[0] = i * f.width
        size[0] = f.width
        return True
    if f.width == 4:
        start[0] = at_i32(f.offsets, i)
        end = at_i32(f.offsets, i + 1)
    else:
        start[0] = at_i64(f.offsets, i)
        end = at_i64(f.offsets, i + 1)
    size[0] = end - start[0]
    return 0 <= start[0] <= end <= f.data_size


cdef inline int micros_at(const Field* f, int64_t i, int64_t* micros) noexcept nogil:
    """A count of the field's unit as whole µs."""
    cdef int64_t value = at_i64(f.data, i) if f.width == 8 else at_i32(f.data, i)
    if f.factor == 0:
        micros[0] = value / 1000
        return E_FRACTION if micros[0] * 1000 != value else OK
    return E_TIMESTAMP if mul64(value, f.factor, micros) else OK


cdef inline int encode_integer(const Field* f, int64_t i, uint8_t* out, int* size) noexcept nogil:
    cdef bint beyond
    cdef int64_t value = integer_at(f, i, &beyond)
    if beyond or value < f.least or value > f.most:
        return E_INTEGER
    if f.kind == K_INT8:
        store64(out, <uint64_t> value)
        size[0] = 8
    elif f.kind == K_INT2:
        store16(out, <uint16_t> value)
        size[0] = 2
    else:
        store32(out, <uint32_t> value)
        size[0] = 4
    return OK


cdef inline int encode_decimal(const Field* f, int64_t i, uint8_t* out, int* size) noexcept nogil:
    """numeric from a decimal or an integer."""
    cdef uint64_t[LIMBS] limbs
    cdef uint64_t carry = 1
    cdef int64_t word
    cdef bint beyond, negative
    cdef int k, count = f.width >> 3
    if f.input != I_DECIMAL:
        word = integer_at(f, i, &beyond)
        negative = word < 0 and f.input == I_INTEGER
        size[0] = numeric_from_word(0 - <uint64_t> word if negative else <uint64_t> word, negative, 0, out)
        return OK
    memcpy(limbs, f.data + i * f.width, f.width)
    word = <int64_t> limbs[0]
    # Below 10^16 in either direction: a word holds it times 1000.
    if count == 2 and limbs[1] == <uint64_t> (word >> 63) and -WORD_MAX < word < WORD_MAX:
        size[0] = numeric_from_word(<uint64_t> (-word if word < 0 else word), word < 0, f.scale, out)
        return OK
    negative = <int64_t> limbs[count - 1] < 0
    if negative:
        for k in range(count):
            limbs[k] = ~limbs[k] + carry
            carry = carry and limbs[k] == 0
    for k in range(count, LIMBS):
        limbs[k] = 0
    size[0] = numeric_from_limbs(limbs, negative, f.scale, out)
    return OK


cdef inline int encode_moment(const Field* f, int64_t i, uint8_t* out, int* size) noexcept nogil:
    """date, time, timestamp: shifted to PostgreSQL's epoch, ±infinity kept, ranges checked as the server does."""
    cdef int64_t value
    cdef int code
    if f.kind == K_DATE:
        value = at_i32(f.data, i)
        size[0] = 4
        if value != I32_MAX and value != I32_MIN:
            value -= EPOCH_DAYS
            if value < DATE_MIN or value >= DATE_END:
                return E_DATE
        store32(out, <uint32_t> <int32_t> value)
        return OK
    size[0] = 8
    if f.kind == K_TIMESTAMP:
        value = at_i64(f.data, i)
        if value == I64_MAX or value == I64_MIN:
            store64(out, <uint64_t> value)
            return OK
    code = micros_at(f, i, &value)
    if code != OK:
        return code
    if f.kind == K_TIME:
        if value < 0 or value > DAY_US:
            return E_TIME
    elif add64(value, -EPOCH_US, &value) or value < TIMESTAMP_MIN or value >= TIMESTAMP_END:
        return E_TIMESTAMP
    store64(out, <uint64_t> value)
    return OK


cdef inline int encode_interval(const Field* f, int64_t i, uint8_t* out, int* size) noexcept nogil:
    """months, days, ns (or a duration) → µs, days, months."""
    cdef const uint8_t* value = f.data + 16 * i
    cdef int64_t nanos, micros
    cdef int code
    cdef uint32_t months = 0, days = 0
    if f.input == I_DURATION:
        code = micros_at(f, i, &micros)
        if code != OK:
            return code if code == E_FRACTION else E_INTERVAL
    else:
        months = at_u32(value, 0)
        days = at_u32(value, 1)
        nanos = at_i64(value, 1)
        micros = nanos / 1000
        if micros * 1000 != nanos:
            return E_FRACTION
    store64(out, <uint64_t> micros)
    store32(out + 8, days)
    store32(out + 12, months)
    size[0] = 16
    return OK


cdef inline int encode_float(const Field* f, int64_t i, uint8_t* out, int* size) noexcept nogil:
    cdef double wide
    cdef float narrow
    cdef uint64_t bits
    cdef uint32_t bits32
    if f.kind == K_FLOAT4:
        if f.input == I_FLOAT32:
            bits32 = at_u32(f.data, i)
        else:
            wide = at_f64(f.data, i)
            narrow = <float> wide
            if <double> narrow != wide and wide == wide:
                return E_FLOAT
            memcpy(&bits32, &narrow, 4)
        store32(out, bits32)
        size[0] = 4
        return OK
    wide = at_f32(f.data, i) if f.input == I_FLOAT32 else at_f64(f.data, i)
    memcpy(&bits, &wide, 8)
    store64(out, bits)
    size[0] = 8
    return OK


cdef inline int encode_bytes(const Field* f, int64_t i, Output* out) noexcept nogil:
    """text, jsonb, bytea, raw wire, and what is made of text: bit strings and numerics."""
    cdef int64_t start, size, written, k
    cdef const uint8_t* value
    cdef uint8_t* at
    cdef int code
    if not span_at(f, i, &start, &size):
        return E_OFFSETS
    if size >= FIELD_BYTES_MAX:
        return E_FIELD
    value = f.data + start
    if reserve(out, size + 32):
        return E_MEMORY
    at = out.data + out.used
    written = size
    if f.has_nul and size and memchr(value, 0, <size_t> size) != NULL:
        return E_NUL
    if f.kind == K_TEXT or f.kind == K_BINARY:
        memcpy(at + 4, value, size)
    elif f.kind == K_WIRE_NUMERIC:
        memcpy(at + 4, value, size)
        code = numeric_show_all(at + 4, <int32_t> size)
        if code != OK:
            return code
    elif f.kind == K_JSONB:  # a version number goes before it
        at[4] = 1
        memcpy(at + 5, value, size)
        written = size + 1
    elif f.kind == K_NUMERIC_TEXT:
        code = numeric_from_text(value, size, at + 4, &written)
        if code != OK:
            return code
    else:  # K_BIT
        written = 4 + (size + 7) // 8
        store32(at + 4, <uint32_t> size)
        memset(at + 8, 0, (size + 7) // 8)
        for k in range(size):
            if value[k] != 48 and value[k] != 49:
                return E_BIT_TEXT
            at[8 + (k >> 3)] |= <uint8_t> ((value[k] & 1) << (7 - (k & 7)))
    store32(at, <uint32_t> written)
    out.used += 4 + written
    return OK


cdef inline int encode_list(const Field* f, int64_t i, Output* out) noexcept nogil:
    """A one-dimensional array with lower bound 1; an empty one has no dimension."""
    cdef int64_t start, size, k, begin = out.used
    cdef uint32_t nulls = 0
    cdef int code
    if not span_at(f, i, &start, &size):
        return E_OFFSETS
    if size > I32_MAX:
        return E_FIELD
    if reserve(out, 24):
        return E_MEMORY
    out.used += 24 if size else 16
    for k in range(start, start + size):
        nulls |= f.child.input == I_NULL or (
            f.child.validity != NULL and not bit_at(f.child.validity, f.child.offset + k)
        )
        code = encode_field(f.child, k, out)
        if code != OK:
            return code
        if out.used - begin > FIELD_BYTES_MAX:
            return E_FIELD
    store32(out.data + begin, <uint32_t> (out.used - begin - 4))
    store32(out.data + begin + 4, 1 if size else 0)
    store32(out.data + begin + 8, nulls)
    store32(out.data + begin + 12, f.element)
    if size:
        store32(out.data + begin + 16, <uint32_t> size)
        store32(out.data + begin + 20, 1)
    return OK


cdef inline int encode_field(const Field* f, int64_t i, Output* out) noexcept nogil:
    """Appends value i with its length; OK or what is wrong with it."""
    cdef int kind = f.kind, code, size = 0
    cdef uint8_t* at
    if reserve(out, NUMERIC_BYTES_MAX + 8):
        return E_MEMORY
    at = out.data + out.used
    if f.input == I_NULL or (f.validity != NULL and not bit_at(f.validity, f.offset + i)):
        store32(at, 0xFFFFFFFF)
        out.used += 4
        return OK
    if kind == K_TEXT or kind == K_BINARY or kind == K_JSONB or kind == K_NUMERIC_TEXT or kind == K_BIT \
            or kind == K_WIRE_NUMERIC:
        return encode_bytes(f, i, out)
    if kind == K_DECIMAL128:
        code = encode_decimal(f, i, at + 4, &size)
    elif kind == K_INT4 or kind == K_INT8 or kind == K_INT2 or kind == K_OID:
        code = encode_integer(f, i, at + 4, &size)
    elif kind == K_DATE or kind == K_TIMESTAMP or kind == K_TIME:
        code = encode_moment(f, i, at + 4, &size)
    elif kind == K_FLOAT8 or kind == K_FLOAT4:
        code = encode_float(f, i, at + 4, &size)
    elif kind == K_BOOL:
        (at + 4)[0] = bit_at(f.data, f.offset + i)
        size = 1
        code = OK
    elif kind == K_UUID:
        memcpy(at + 4, f.data + 16 * i, 16)
        size = 16
        code = OK
    elif kind == K_INTERVAL:
        code = encode_interval(f, i, at + 4, &size)
    else:
        return encode_list(f, i, out)
    store32(at, <uint32_t> size)
    out.used += 4 + size
    return code


cdef inline int split_frame(Output* out, int64_t* begin, int64_t piece_bytes) noexcept nogil:
    """Ends the CopyData message that began at begin[0] (its five bytes are left free there).

    A body much longer than piece_bytes (a large row) becomes several messages: the server holds
    each message whole in its memory.
    """
    cdef int64_t body = out.used - begin[0] - 5
    cdef int64_t pieces = 1 if body <= 2 * piece_bytes else (body + piece_bytes - 1) // piece_bytes, k, size
    cdef uint8_t* first
    if pieces > 1:
        if reserve(out, 5 * (pieces - 1)):
            return E_MEMORY
    first = out.data + begin[0]
    k = pieces - 1
    while k >= 0:  # from the last, so that nothing is overwritten
        size = body - k * piece_bytes if k == pieces - 1 else piece_bytes
        if k:
            memmove(first + k * (piece_bytes + 5) + 5, first + 5 + k * piece_bytes, <size_t> size)
        (first + k * (piece_bytes + 5))[0] = 100  # 'd'
        store32(first + k * (piece_bytes + 5) + 1, <uint32_t> (size + 4))
        k -= 1
    out.used += 5 * (pieces - 1)
    begin[0] = out.used
    return OK


cdef inline int quick_way(const Field* f) noexcept nogil:
    """Which of the short ways is right for a bound field."""
    if f.kind == K_INT4 and f.input == I_INTEGER and f.width == 4:
        return Q_INT32
    if f.kind == K_INT8 and f.input == I_INTEGER and f.width == 8:
        return Q_INT64
    if f.kind == K_DATE and f.input == I_DATE:
        return Q_DATE
    if f.kind == K_DECIMAL128 and f.input == I_DECIMAL and f.width == 16:
        return Q_DECIMAL
    if f.kind == K_TEXT and f.input == I_TEXT and f.width == 4 and not f.has_nul:
        return Q_TEXT
    return Q_NONE


cdef inline int encode_row(const Field* fields, int columns, int64_t r, Output* out, int* column) noexcept nogil:
    """Appends one tuple; ``column`` is the one at fault. Room for every column's fixed part is there
    before each quick write, because a reserve is made for all of them."""
    cdef int64_t room = 2 + columns * (NUMERIC_BYTES_MAX + 8), value, size, start
    cdef const Field* f
    cdef uint8_t* at
    cdef int c, code, length, quick
    if reserve(out, room):
        return E_MEMORY
    at = out.data + out.used
    store16(at, <uint16_t> columns)
    at += 2
    for c in range(columns):
        f = &fields[c]
        quick = f.quick
        if quick == Q_NONE or (f.validity != NULL and not bit_at(f.validity, f.offset + r)):
            quick = Q_NONE
        elif quick == Q_INT32:
            store32(at, 4)
            store32(at + 4, at_u32(f.data, r))
            at += 8
            continue
        elif quick == Q_INT64:
            store32(at, 8)
            store64(at + 4, at_u64(f.data, r))
            at += 12
            continue
        elif quick == Q_DATE:
            value = at_i32(f.data, r) - EPOCH_DAYS
            if DATE_MIN <= value < DATE_END:  # else ±infinity, or beyond the range
                store32(at, 4)
                store32(at + 4, <uint32_t> value)
                at += 8
                continue
        elif quick == Q_DECIMAL:
            value = at_i64(f.data, 2 * r)
            if -WORD_MAX < value < WORD_MAX and at_i64(f.data, 2 * r + 1) == value >> 63:
                length = numeric_from_word(<uint64_t> (-value if value < 0 else value), value < 0, f.scale, at + 4)
                store32(at, <uint32_t> length)
                at += 4 + length
                continue
        else:  # Q_TEXT
            start = at_i32(f.offsets, r)
            size = at_i32(f.offsets, r + 1) - start
            if start < 0 or size < 0 or start + size > f.data_size:
                column[0] = c
                return E_OFFSETS
            if size <= 32 or at + size + room <= out.data + out.size:
                # Every column left reserves 72 bytes, and this one needs no more than 36 of its own.
                store32(at, <uint32_t> size)
                memcpy(at + 4, f.data + start, size)
                at += 4 + size
                continue
        out.used = at - out.data
        code = encode_field(f, r, out)
        if code == OK and reserve(out, room):
            code = E_MEMORY
        if code != OK:
            column[0] = c
            return code
        at = out.data + out.used
    out.used = at - out.data
    return OK


cdef inline int encode_rows(
    const Field* fields, int columns, int64_t rows, int64_t piece_bytes, Output* out, int64_t* row, int* column
) noexcept nogil:
    """All rows of a batch; with piece_bytes, in CopyData messages of about that size."""
    cdef int64_t r, begin = 0
    cdef int code
    for r in range(rows):
        if piece_bytes and out.used == begin:
            if reserve(out, 5):
                return E_MEMORY
            out.used += 5
        code = encode_row(fields, columns, r, out, column)
        if code != OK:
            row[0] = r
            return code
        if piece_bytes and out.used - begin >= piece_bytes and split_frame(out, &begin, piece_bytes):
            return E_MEMORY
    if piece_bytes and out.used > begin and split_frame(out, &begin, piece_bytes):
        return E_MEMORY
    return OK
