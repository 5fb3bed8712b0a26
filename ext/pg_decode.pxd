# COPY BINARY tuples to Arrow buffers: the walk over tuples, and one loop per codec.
#
# A block of rows is walked once, which notes where every field lies; then each column's fields are
# decoded in one tight loop while the block is still in the cache.

from arrow_build cimport (
    BLOCK_ROWS, SLACK, Column, begin_offsets, bytes_of, copy_bytes, first_bad_utf8, mark_nulls, room_for_bits,
    room_for_fixed, row_of_element,
)
from pg_numeric cimport numeric_text_bound, numeric_to_decimal, numeric_to_text
from pg_wire cimport (
    COLUMN_BYTES_MAX, EPOCH_DAYS, EPOCH_US, FIELD_BYTES_MAX, DAY_US, I32_MAX, I32_MIN, I64_MAX, I64_MIN,
    K_BINARY, K_BIT, K_BOOL, K_CHAR, K_DATE, K_DECIMAL128, K_DECIMAL256, K_FLOAT4, K_FLOAT8, K_INT2, K_INT4, K_INT8,
    K_INTERVAL, K_JSONB, K_LIST, K_NUMERIC_TEXT, K_OID, K_TEXT, K_TIME, K_TIMESTAMP, K_UUID, K_WIRE_NUMERIC,
    E_ARRAY, E_BIT, E_BOOL, E_DATE, E_DIMENSIONS, E_ELEMENT, E_INTERVAL, E_JSONB, E_LENGTH, E_MEMORY, E_SIZE, E_TIME,
    E_TIMESTAMP, E_UTF8, OK,
    add64, free, grow, load16, load32, load64, memcpy, memset, mul64, realloc, store16,
    int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t,
)


cdef enum Walk:
    WALK_FULL          # as many rows or bytes as were asked for
    WALK_MORE          # the next row is not complete
    WALK_END           # the trailer was read
    WALK_FIELD_COUNT   # a tuple with another number of fields
    WALK_FIELD_LENGTH  # a field of negative length, or longer than 1 GiB − 1
    WALK_ROW_LENGTH    # a tuple of 2 GiB and more


cdef inline int walk(
    const uint8_t* base, int64_t end, int columns, int rows_max, int64_t bytes_max, bint first,
    uint32_t* at, int32_t* sizes, int* rows, int64_t* used
) noexcept nogil:
    """Notes where the fields of complete tuples lie (column-major, BLOCK_ROWS apart).

    Stops before a row that ends beyond bytes_max, unless it is the first of its batch.
    """
    cdef int64_t position = 0, begin = 0, size
    cdef int64_t slot
    cdef int r = 0, c, count
    used[0] = 0
    rows[0] = 0
    while r < rows_max:
        if end - position < 2:
            return WALK_MORE
        count = <int16_t> load16(base + position)
        position += 2
        if count != columns:
            if count != -1:
                return WALK_FIELD_COUNT
            used[0] = position
            return WALK_END
        slot = r
        for c in range(columns):
            if end - position < 4:
                return WALK_MORE
            size = <int32_t> load32(base + position)
            position += 4
            at[slot] = <uint32_t> position
            sizes[slot] = <int32_t> size
            slot += BLOCK_ROWS
            if size > 0:
                if size > FIELD_BYTES_MAX:
                    return WALK_FIELD_LENGTH
                if position + size - begin > COLUMN_BYTES_MAX:
                    return WALK_ROW_LENGTH
                if size > end - position:
                    return WALK_MORE
                position += size
            elif size < -1:
                return WALK_FIELD_LENGTH
        if position > bytes_max and not (first and r == 0):
            break
        r += 1
        begin = position
        rows[0] = r
        used[0] = position
    return WALK_FULL


cdef inline int decode_bytes(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """text, char, jsonb, binary, wire_numeric: offsets and bytes."""
    cdef int64_t i, total = bytes_of(sizes, n), used = column.data_used, first
    cdef int32_t size
    cdef const uint8_t* value
    cdef uint8_t* out
    cdef int32_t* ends = column.offsets + column.rows + 1
    cdef int kind = column.kind
    if used + total > COLUMN_BYTES_MAX:
        return E_SIZE
    if grow(<void**> &column.data, &column.data_size, used + total + SLACK):
        return E_MEMORY
    out = column.data
    for i in range(n):
        size = sizes[i]
        if size > 0:
            value = base + at[i]
            if kind == K_CHAR:
                while size > 0 and value[size - 1] == 32:
                    size -= 1
            elif kind == K_JSONB:
                if value[0] != 1:
                    column.bad = i
                    return E_JSONB
                value += 1
                size -= 1
            copy_bytes(out + used, value, size)
            if kind == K_WIRE_NUMERIC:
                if size < 8:
                    column.bad = i
                    return E_LENGTH
                store16(out + used + 6, 0)
            used += size
        elif size == 0 and (kind == K_JSONB or kind == K_WIRE_NUMERIC):
            column.bad = i
            return E_LENGTH
        ends[i] = <int32_t> used
    first = column.data_used
    column.data_used = used
    if kind != K_BINARY and kind != K_WIRE_NUMERIC:
        i = first_bad_utf8(out, first, used, ends, n)
        if i >= 0:
            column.bad = i
            return E_UTF8
    return OK


cdef inline int decode_numeric_text(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    cdef int64_t i, written, used = column.data_used
    cdef int code
    for i in range(n):
        if sizes[i] >= 0:
            column.bad = i
            written = numeric_text_bound(base + at[i], sizes[i])
            if used + written > COLUMN_BYTES_MAX:
                return E_SIZE
            if grow(<void**> &column.data, &column.data_size, used + written + SLACK):
                return E_MEMORY
            code = numeric_to_text(base + at[i], sizes[i], column.data + used, &written)
            if code != OK:
                return code
            used += written
        column.offsets[column.rows + i + 1] = <int32_t> used
    column.data_used = used
    return OK


cdef inline int decode_bits(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """bit and varbit: int32 count of bits, then the bits, the first in the highest place."""
    cdef int64_t i, k, bits, used = column.data_used
    cdef const uint8_t* value
    cdef uint8_t* out
    for i in range(n):
        if sizes[i] >= 0:
            column.bad = i
            if sizes[i] < 4:
                return E_LENGTH
            value = base + at[i]
            bits = <int32_t> load32(value)
            if bits < 0 or sizes[i] != 4 + (bits + 7) // 8:
                return E_BIT
            if used + bits > COLUMN_BYTES_MAX:
                return E_SIZE
            if grow(<void**> &column.data, &column.data_size, used + bits + SLACK):
                return E_MEMORY
            out = column.data + used
            for k in range(bits):
                out[k] = 48 + ((value[4 + (k >> 3)] >> (7 - (k & 7))) & 1)
            used += bits
        column.offsets[column.rows + i + 1] = <int32_t> used
    column.data_used = used
    return OK


cdef inline int timestamp_from_wire(int64_t wire, int64_t* out) noexcept nogil:
    if wire == I64_MAX or wire == I64_MIN:  # ±infinity
        out[0] = wire
        return OK
    if add64(wire, EPOCH_US, out) or out[0] == I64_MAX or out[0] == I64_MIN:
        return E_TIMESTAMP
    return OK


cdef inline int decode_fixed(
    Column* column, int kind, int width, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """Every codec of one width on both sides; the value of a null is zero."""
    cdef int code = OK
    cdef int64_t i, wide
    cdef int32_t narrow, expected
    cdef uint8_t* out
    cdef const uint8_t* value
    expected = 4 if kind == K_OID else width
    out = room_for_fixed(column, n, width)
    if out == NULL:
        return E_MEMORY
    for i in range(n):
        value = base + at[i]
        if sizes[i] != expected and kind != K_DECIMAL128 and kind != K_DECIMAL256:
            if sizes[i] >= 0:
                column.bad = i
                return E_LENGTH
            memset(out, 0, width)
        elif kind == K_INT4 or kind == K_FLOAT4:
            (<uint32_t*> out)[0] = load32(value)
        elif kind == K_INT8 or kind == K_FLOAT8:
            (<uint64_t*> out)[0] = load64(value)
        elif kind == K_INT2:
            (<uint16_t*> out)[0] = load16(value)
        elif kind == K_OID:
            (<int64_t*> out)[0] = <int64_t> load32(value)
        elif kind == K_UUID:
            memcpy(out, value, 16)
        elif kind == K_DATE:
            narrow = <int32_t> load32(value)
            if narrow != I32_MAX and narrow != I32_MIN:
                wide = <int64_t> narrow + EPOCH_DAYS
                if wide >= I32_MAX:
                    code = E_DATE
                narrow = <int32_t> wide
            (<int32_t*> out)[0] = narrow
        elif kind == K_TIMESTAMP:
            code = timestamp_from_wire(<int64_t> load64(value), <int64_t*> out)
        elif kind == K_TIME:
            wide = <int64_t> load64(value)
            if wide < 0 or wide > DAY_US:
                code = E_TIME
            (<int64_t*> out)[0] = wide
        elif kind == K_INTERVAL:  # µs, days, months → months, days, ns
            (<uint32_t*> out)[0] = load32(value + 12)
            (<uint32_t*> out)[1] = load32(value + 8)
            if mul64(<int64_t> load64(value), 1000, <int64_t*> (out + 8)):
                code = E_INTERVAL
        elif sizes[i] < 0:
            memset(out, 0, width)
        else:
            code = numeric_to_decimal(value, sizes[i], column.scale, column.bound, width, out)
        if code != OK:
            column.bad = i
            return code
        out += width
    return OK


cdef inline int decode_bools(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    cdef int64_t i, row
    cdef uint8_t value
    if room_for_bits(column, n):
        return E_MEMORY
    for i in range(n):
        if sizes[i] == 1:
            value = (base + at[i])[0]
            if value > 1:
                column.bad = i
                return E_BOOL
            row = column.rows + i
            column.data[row >> 3] |= <uint8_t> (value << (row & 7))
        elif sizes[i] >= 0:
            column.bad = i
            return E_LENGTH
    return OK


cdef inline int list_elements(
    Column* column, const uint8_t* base, int64_t start, int64_t size, int64_t* count
) noexcept nogil:
    """Notes where one array's elements lie, appending to column.at from element count[0] on."""
    cdef int64_t dimensions, n, k, position, end = start + size
    cdef int64_t item
    if size < 12:
        return E_LENGTH
    dimensions = <int32_t> load32(base + start)
    if load32(base + start + 4) > 1:
        return E_ARRAY
    if column.element != 0 and load32(base + start + 8) != column.element:
        return E_ELEMENT
    if dimensions == 0:
        return OK if size == 12 else E_ARRAY
    if dimensions != 1:
        return E_DIMENSIONS if 0 < dimensions <= 6 else E_ARRAY
    if size < 20:
        return E_LENGTH
    n = <int32_t> load32(base + start + 12)
    if load32(base + start + 16) != 1:
        return E_DIMENSIONS
    if n < 0 or n > (size - 20) // 4:  # every element has a length of its own
        return E_ARRAY
    if grow(<void**> &column.at, &column.at_size, (count[0] + n) * 4) \
            or grow(<void**> &column.sizes, &column.sizes_size, (count[0] + n) * 4):
        return E_MEMORY
    position = start + 20
    for k in range(n):
        if end - position < 4:
            return E_ARRAY
        item = <int32_t> load32(base + position)
        position += 4
        if item < -1 or item > end - position:
            return E_ARRAY
        column.at[count[0] + k] = <uint32_t> position
        column.sizes[count[0] + k] = <int32_t> item
        if item > 0:
            position += item
    if position != end:
        return E_ARRAY
    count[0] += n
    return OK


cdef inline int decode_lists(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    cdef int64_t i, count = 0, before = column.child.rows
    cdef int code
    for i in range(n):
        if sizes[i] >= 0:
            code = list_elements(column, base, at[i], sizes[i], &count)
            if code != OK:
                column.bad = i
                return code
            if before + count > COLUMN_BYTES_MAX:
                column.bad = i
                return E_SIZE
        column.offsets[column.rows + i + 1] = <int32_t> (before + count)
    code = decode_column(column.child, base, column.at, column.sizes, count)
    if code != OK:  # the row whose element it is
        column.bad = row_of_element(column, before, n)
    return code


cdef inline int decode_column(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """Appends n fields to a column: OK, or what is wrong with field ``column.bad``."""
    cdef int kind = column.kind, code
    column.bad = 0
    if mark_nulls(column, sizes, n):
        return E_MEMORY
    if column.width == 0:
        if begin_offsets(column, n):
            return E_MEMORY
    if kind == K_LIST:
        code = decode_lists(column, base, at, sizes, n)
    elif kind == K_NUMERIC_TEXT:
        code = decode_numeric_text(column, base, at, sizes, n)
    elif kind == K_BIT:
        code = decode_bits(column, base, at, sizes, n)
    elif kind == K_BOOL:
        code = decode_bools(column, base, at, sizes, n)
    elif column.width == 0:
        code = decode_bytes(column, base, at, sizes, n)
    # A call with constants becomes a loop of its own.
    elif kind == K_INT4:
        code = decode_fixed(column, K_INT4, 4, base, at, sizes, n)
    elif kind == K_INT8:
        code = decode_fixed(column, K_INT8, 8, base, at, sizes, n)
    elif kind == K_DATE:
        code = decode_fixed(column, K_DATE, 4, base, at, sizes, n)
    elif kind == K_TIMESTAMP:
        code = decode_fixed(column, K_TIMESTAMP, 8, base, at, sizes, n)
    elif kind == K_DECIMAL128:
        code = decode_fixed(column, K_DECIMAL128, 16, base, at, sizes, n)
    else:
        code = decode_fixed(column, kind, column.width, base, at, sizes, n)
    if code == OK:
        column.rows += n
    return code
