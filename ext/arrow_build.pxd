# Arrow columns under construction: what the kernels that read a server's rows share. A block of rows
# is walked once, which notes where every field lies; then each column's fields are appended to its
# Column in one tight loop. The buffers are handed over by arrow_buffers.pxi.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset


cdef extern from *:
    # A row and a column's data in one batch are addressed with 31 bits.
    const int64_t COLUMN_BYTES_MAX "INT64_C(2147483647)"


cdef enum:
    #: Rows that are walked and then decoded together: with some 200 bytes a row, 100 KB of the cache.
    BLOCK_ROWS = 512
    #: Every buffer that is read from or written to has this many bytes beyond its end, so that
    #: short values are copied with whole words.
    SLACK = 32


# One column that is being built. Buffers grow; take() hands them over.
cdef struct Column:
    int kind
    int width             # bytes of a value in ``data``, 0 where it has offsets; bits for bool
    int scale
    uint64_t[4] bound     # of a decimal's magnitude: 10^precision
    uint32_t element      # type OID of a list's elements, 0 where any will do
    int64_t rows
    int64_t nulls
    uint8_t* validity
    int64_t validity_size
    int32_t* offsets
    int64_t offsets_size
    uint8_t* data
    int64_t data_used
    int64_t data_size
    Column* child
    uint32_t* at          # of a list: where its elements lie
    int64_t at_size
    int32_t* sizes
    int64_t sizes_size
    int64_t bad           # index in the last block of the value that is at fault
    int64_t length        # bits of a bit string, bytes of a value of fixed size
    bint null_unfit       # a value that the type cannot hold becomes null, and is counted
    int64_t settled       # how many became null in that way


cdef inline int grow(void** data, int64_t* capacity, int64_t needed) noexcept nogil:
    """Makes room for ``needed`` bytes (half as much again, so that appending is linear). True where there is none."""
    cdef int64_t wanted
    cdef void* moved
    if needed <= capacity[0]:
        return 0
    wanted = capacity[0] + (capacity[0] >> 1)
    if wanted < needed:
        wanted = needed
    if wanted < 256:
        wanted = 256
    moved = realloc(data[0], <size_t> wanted)
    if moved == NULL:
        return 1
    data[0] = moved
    capacity[0] = wanted
    return 0


cdef inline int mark_nulls(Column* column, const int32_t* sizes, int64_t n) noexcept nogil:
    """Appends n bits of validity; no bitmap is made before the first null. True: no memory."""
    cdef int64_t i, nulls = 0, row, before, wanted
    for i in range(n):
        nulls += sizes[i] < 0
    if nulls == 0 and column.validity == NULL:
        return 0
    wanted = (column.rows + n + 7) // 8
    before = (column.rows + 7) // 8
    if column.validity == NULL:
        if grow(<void**> &column.validity, &column.validity_size, wanted + SLACK):
            return 1
        memset(column.validity, 0xFF, before)
        if column.rows & 7:
            column.validity[before - 1] = <uint8_t> ((1 << (column.rows & 7)) - 1)
    elif grow(<void**> &column.validity, &column.validity_size, wanted + SLACK):
        return 1
    memset(column.validity + before, 0, wanted - before)
    for i in range(n):
        row = column.rows + i
        column.validity[row >> 3] |= <uint8_t> ((sizes[i] >= 0) << (row & 7))
    column.nulls += nulls
    return 0


cdef inline int begin_offsets(Column* column, int64_t n) noexcept nogil:
    """Room for n more offsets, the very first one set. True: no memory."""
    if grow(<void**> &column.offsets, &column.offsets_size, (column.rows + n + 1) * 4):
        return 1
    if column.rows == 0:
        column.offsets[0] = 0
    return 0


cdef inline int room_for_bits(Column* column, int64_t n) noexcept nogil:
    """Room for n more bits, which are zero. True: no memory."""
    cdef int64_t before = (column.rows + 7) // 8, wanted = (column.rows + n + 7) // 8
    if grow(<void**> &column.data, &column.data_size, wanted + SLACK):
        return 1
    memset(column.data + before, 0, wanted - before)
    column.data_used = wanted
    return 0


cdef inline uint8_t* room_for_fixed(Column* column, int64_t n, int width) noexcept nogil:
    """Room for n more values of one width: where the first of them goes. NULL: no memory."""
    if grow(<void**> &column.data, &column.data_size, (column.rows + n) * width + SLACK):
        return NULL
    column.data_used = (column.rows + n) * width
    return column.data + column.rows * width


cdef inline int64_t bytes_of(const int32_t* sizes, int64_t n) noexcept nogil:
    """The bytes of n fields, nulls left out."""
    cdef int64_t i, total = 0
    for i in range(n):
        total += sizes[i] if sizes[i] > 0 else 0
    return total


cdef inline int64_t first_bad_utf8(
    const uint8_t* data, int64_t begin, int64_t end, const int32_t* ends, int64_t n
) noexcept nogil:
    """Which of n texts, which lie one after the other from begin to end, is no UTF-8; −1 where all are."""
    cdef int64_t i
    if is_ascii(data + begin, end - begin):
        return -1
    for i in range(n):
        if not utf8_valid(data + begin, ends[i] - begin):
            return i
        begin = ends[i]
    return -1


cdef inline int64_t row_of_element(const Column* column, int64_t before, int64_t n) noexcept nogil:
    """Which of the last n rows holds the element that is at fault; before: elements of the rows before them."""
    cdef int64_t i = 0
    while i < n - 1 and column.offsets[column.rows + i + 1] - before <= column.child.bad:
        i += 1
    return i


cdef inline void copy_bytes(uint8_t* out, const uint8_t* value, int32_t size) noexcept nogil:
    """Copies a value; both sides have SLACK bytes beyond their ends."""
    if size <= 16:
        memcpy(out, value, 16)
    elif size <= 32:
        memcpy(out, value, 32)
    else:
        memcpy(out, value, size)


cdef inline bint utf8_valid(const uint8_t* text, int64_t size) noexcept nogil:
    """Whether the bytes are UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF)."""
    cdef int64_t i = 0
    cdef uint64_t word
    cdef uint8_t lead, second
    cdef int more, k
    while i < size:
        while i + 8 <= size:  # eight ASCII characters at once
            memcpy(&word, text + i, 8)
            if word & 0x8080808080808080ULL:
                break
            i += 8
        if i >= size:
            break
        lead = text[i]
        i += 1
        if lead < 0x80:
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else (2 if lead < 0xF0 else 3)
        if size - i < more:
            return False
        second = text[i]
        if (lead == 0xE0 and second < 0xA0) or (lead == 0xED and second > 0x9F) \
                or (lead == 0xF0 and second < 0x90) or (lead == 0xF4 and second > 0x8F):
            return False
        for k in range(more):
            if text[i + k] & 0xC0 != 0x80:
                return False
        i += more
    return True


cdef inline bint is_ascii(const uint8_t* text, int64_t size) noexcept nogil:
    cdef int64_t i
    cdef uint8_t high = 0
    for i in range(size):  # a plain loop, which the compiler turns into vectors
        high |= text[i]
    return high < 0x80
