# One column of a block of rows: the fast ways for what tables mostly hold, the cell's way for the rest.
#
# A fast way first brings the block's values to words in L1, looking out for any value that needs more
# than the usual words (``odd``); if there is one, the whole block goes cell by cell.

from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int32_t, int64_t, uint64_t, uint8_t

from arrow_c cimport bit_at
from digest_cell cimport *
from digest_mix cimport *

# Rows whose state (two lanes), key state and words lie in L1 together: 6 × 4 KiB of 32.
cdef enum:
    BLOCK = 512


cdef inline void fold_words(int tag, const uint64_t* words, const uint8_t* validity, int64_t first, int n,
                            uint64_t* a, uint64_t* b) noexcept nogil:
    """Folds one word a row; rows that are not valid get the NULL cell, without a branch."""
    cdef uint64_t ta = RF_TAG[tag][0], tb = RF_TAG[tag][1], na = RF_TAG[TAG_NULL][0], nb = RF_TAG[TAG_NULL][1]
    cdef uint64_t ca = RF_MULTIPLIER[0], cb = RF_MULTIPLIER[1], mask
    cdef int i
    if validity == NULL:
        for i in range(n):
            a[i] = rf_mum(a[i] ^ words[i] ^ ta, ca)
            b[i] = rf_mum(b[i] ^ words[i] ^ tb, cb)
        return
    for i in range(n):
        mask = <uint64_t> 0 - <uint64_t> bit_at(validity, first + i)
        a[i] = rf_mum(a[i] ^ (((words[i] ^ ta) & mask) | (na & ~mask)), ca)
        b[i] = rf_mum(b[i] ^ (((words[i] ^ tb) & mask) | (nb & ~mask)), cb)


cdef inline void fold_pairs(int tag, const uint64_t* words, const uint64_t* seconds, const uint8_t* validity,
                            int64_t first, int n, uint64_t* a, uint64_t* b) noexcept nogil:
    """Folds two words a row (``words``, then ``seconds``)."""
    cdef int i
    for i in range(n):
        if validity == NULL or bit_at(validity, first + i):
            put(a + i, b + i, tag, words[i])
            more(a + i, b + i, seconds[i])
        else:
            put(a + i, b + i, TAG_NULL, 0)


cdef inline bint integer_words(Node* node, int64_t first, int n, uint64_t* words) noexcept nogil:
    """Integers and decimals as words; False if one of them needs more than one."""
    cdef const uint8_t* p = node.data
    cdef uint64_t odd = 0
    cdef int64_t power, product
    cdef int i, layout = node.layout
    if layout == LAYOUT_D128:
        p += 16 * first
        for i in range(n):
            words[i] = rf_u64(p + 16 * i)
            odd |= (<uint64_t> (rf_i64(p + 16 * i) >> 63)) ^ rf_u64(p + 16 * i + 8)
    elif layout == LAYOUT_I64 or layout == LAYOUT_D64:
        p += 8 * first
        for i in range(n):
            words[i] = rf_u64(p + 8 * i)
    elif layout == LAYOUT_I32 or layout == LAYOUT_D32:
        p += 4 * first
        for i in range(n):
            words[i] = <uint64_t> <int64_t> rf_i32(p + 4 * i)
    elif layout == LAYOUT_U64:
        p += 8 * first
        for i in range(n):
            words[i] = rf_u64(p + 8 * i)
            odd |= words[i] >> 63
    elif layout == LAYOUT_D256:
        return False
    else:
        for i in range(n):
            words[i] = <uint64_t> load_i64(node, first + i)
    if odd:
        return False
    if node.power > 0:
        if node.power > 18:
            return False
        power = <int64_t> RF_POWER[node.power][0]
        for i in range(n):
            odd |= <uint64_t> rf_scale_i64(<int64_t> words[i], power, &product)
            words[i] = <uint64_t> product
    return not odd


cdef inline bint float_words(Node* node, int64_t first, int n, uint64_t* words) noexcept nogil:
    """Floats as the bits of a double; False if there is a NaN."""
    cdef const uint8_t* p = node.data
    cdef double value, zero = 0.0 if node.op == OP_FLOAT_UNSIGNED_ZERO else -0.0  # x + −0.0 is x, −0.0 too
    cdef bint nan = False
    cdef int i
    for i in range(n):
        value = rf_f32(p + 4 * (first + i)) if node.layout == LAYOUT_F32 else rf_f64(p + 8 * (first + i))
        nan |= value != value
        words[i] = rf_bits(value + zero)
    return not nan


cdef inline bint date_words(Node* node, int64_t first, int n, uint64_t* words) noexcept nogil:
    """Days as words; False if there is an infinity, or the layout is date64."""
    cdef const uint8_t* p = node.data + 4 * first
    cdef bint odd = False
    cdef int32_t value
    cdef int i
    if node.layout != LAYOUT_DATE_32:
        return False
    for i in range(n):
        value = rf_i32(p + 4 * i)
        odd |= (value == INT32_MAX) | (value == INT32_MIN)
        words[i] = <uint64_t> <int64_t> value
    return not odd


cdef inline bint timestamp_words(Node* node, int64_t first, int n, uint64_t* words, uint64_t* nanos) noexcept nogil:
    """Seconds and nanoseconds; False if there is an infinity, or dates are compared as timestamps."""
    cdef const uint8_t* p = node.data + 8 * first
    cdef bint odd = False
    cdef int64_t value, s, r
    cdef int i
    if node.layout != LAYOUT_TIMESTAMP:
        return False
    for i in range(n):
        value = rf_i64(p + 8 * i)
        odd |= (value == INT64_MAX) | (value == INT64_MIN)
        floor_divide(value, node.unit, &s, &r)
        words[i] = <uint64_t> s
        nanos[i] = <uint64_t> r
    return not odd


cdef inline int fold_texts(Node* node, int tag, int64_t first, int n, uint64_t* a, uint64_t* b,
                           int64_t* bad) noexcept nogil:
    """Texts with 32-bit offsets: all offsets of the block are checked before the first byte is read."""
    cdef const uint8_t* offsets = node.data + 4 * first
    cdef const uint8_t* payload = node.payload
    cdef const uint8_t* end = node.payload_end
    cdef const uint8_t* validity = node.validity
    cdef int32_t wrong = rf_i32(offsets), low, high
    cdef int i
    for i in range(n):
        wrong |= rf_i32(offsets + 4 * i + 4) | -<int32_t> (rf_i32(offsets + 4 * i + 4) < rf_i32(offsets + 4 * i))
    if wrong < 0 or rf_i32(offsets + 4 * n) > end - payload:
        bad[0] = 0
        return BAD_OFFSETS
    high = rf_i32(offsets)
    for i in range(n):
        low = high
        high = rf_i32(offsets + 4 * i + 4)
        if validity == NULL or bit_at(validity, first + i):
            put_bytes(a + i, b + i, tag, payload + low, high - low, end)
        else:
            put(a + i, b + i, TAG_NULL, 0)
    return GOOD


cdef inline int fold_column(Node* nodes, int index, int64_t start, int n, uint64_t* words, uint64_t* pairs,
                            uint64_t* a, uint64_t* b, int64_t* bad) noexcept nogil:
    """Folds rows start … start + n − 1 (n ≤ BLOCK) of a node into the states a[i], b[i].

    On a failure ``bad`` is the row within the block (the block's first where it is not known).
    """
    cdef Node* node = nodes + index
    cdef const uint8_t* validity = node.validity
    cdef int64_t first = start + node.offset
    cdef int op = node.op, i, code
    if node.layout == LAYOUT_NULL:
        for i in range(n):
            put(a + i, b + i, TAG_NULL, 0)
        return GOOD
    if op == OP_NUMBER:
        if integer_words(node, first, n, words):
            fold_words(TAG_NUMBER_1, words, validity, first, n, a, b)
            return GOOD
    elif op == OP_TEXT or op == OP_BINARY:
        if node.layout == LAYOUT_BYTES_32:
            return fold_texts(node, TAG_TEXT if op == OP_TEXT else TAG_BINARY, first, n, a, b, bad)
    elif op == OP_DATE:
        if date_words(node, first, n, words):
            fold_words(TAG_DATE, words, validity, first, n, a, b)
            return GOOD
    elif op == OP_TIMESTAMP:
        if timestamp_words(node, first, n, words, pairs):
            fold_pairs(TAG_TIMESTAMP, words, pairs, validity, first, n, a, b)
            return GOOD
    elif op == OP_FLOAT or op == OP_FLOAT_UNSIGNED_ZERO:
        if float_words(node, first, n, words):
            fold_words(TAG_FLOAT, words, validity, first, n, a, b)
            return GOOD
    elif op == OP_BOOL:
        for i in range(n):
            words[i] = bit_at(node.data, first + i)
        fold_words(TAG_BOOL, words, validity, first, n, a, b)
        return GOOD
    for i in range(n):
        code = cell(nodes, index, start + i, a + i, b + i)
        if code != GOOD:
            bad[0] = i
            return code
    return GOOD
