# One cell of any type, brought to its comparison type and folded into one row's state.
#
# Every function takes a physical index that its caller has checked against the node's length;
# what only the values can tell (offsets of lists and texts) is checked here.

from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from arrow_c cimport bit_at
from digest_json cimport JSON_GOOD, Json, json_canonical
from digest_mix cimport *

# What a column is compared as (its comparison type).
cdef enum:
    OP_BOOL = 0
    OP_NUMBER = 1
    OP_NUMERIC = 2
    OP_FLOAT = 3
    OP_FLOAT_UNSIGNED_ZERO = 4
    OP_TEXT = 5
    OP_TEXT_OF_UUID = 6
    OP_BINARY = 7
    OP_DATE = 8
    OP_TIME = 9
    OP_TIMESTAMP = 10
    OP_DURATION = 11
    OP_INTERVAL = 12
    OP_UUID = 13
    OP_JSON = 14
    OP_LIST = 15
    OP_STRUCT = 16
    OP_MAP = 17

# How its values lie in memory.
cdef enum:
    LAYOUT_NULL = 0
    LAYOUT_BOOL = 1
    LAYOUT_I8 = 2
    LAYOUT_I16 = 3
    LAYOUT_I32 = 4
    LAYOUT_I64 = 5
    LAYOUT_U8 = 6
    LAYOUT_U16 = 7
    LAYOUT_U32 = 8
    LAYOUT_U64 = 9
    LAYOUT_F32 = 10
    LAYOUT_F64 = 11
    LAYOUT_D32 = 12
    LAYOUT_D64 = 13
    LAYOUT_D128 = 14
    LAYOUT_D256 = 15
    LAYOUT_BYTES_32 = 16
    LAYOUT_BYTES_64 = 17
    LAYOUT_BYTES_FIXED = 18
    LAYOUT_DATE_32 = 19
    LAYOUT_DATE_64 = 20
    LAYOUT_TIME_32 = 21
    LAYOUT_TIME_64 = 22
    LAYOUT_TIMESTAMP = 23
    LAYOUT_DURATION = 24
    LAYOUT_INTERVAL = 25
    LAYOUT_LIST_32 = 26
    LAYOUT_LIST_64 = 27
    LAYOUT_LIST_FIXED = 28
    LAYOUT_STRUCT = 29
    LAYOUT_MAP = 30

# What a loop answers.
cdef enum:
    GOOD = 0
    BAD_OFFSETS = 1
    BAD_DATE = 2
    BAD_MEMORY = 3
    NOT_A_NUMBER = 4          # never leaves this file

ctypedef struct Node:
    int op
    int scale                 # of NUMBER: digits after the point to which values are brought
    int child                 # index of the first child, or -1
    int sibling               # index of the next child of the same parent, or -1
    # Bound afresh for every batch; the buffers belong to the batch.
    int layout
    int unit                  # 0 s, 1 ms, 2 us, 3 ns
    int power                 # of NUMBER: scale minus the array's own; of NUMERIC: the array's own scale
    int64_t width             # bytes of one value, or values in a fixed-size list
    int64_t offset
    int64_t length            # logical elements that may be asked for
    const uint8_t* validity
    const uint8_t* data       # values, or offsets of texts and lists
    const uint8_t* payload    # bytes of texts
    const uint8_t* payload_end
    Json* json                # where JSON is written anew; the Hasher's


cdef inline void floor_divide(int64_t value, int unit, int64_t* seconds, int64_t* nanos) noexcept nogil:
    """Splits a count of units into floored seconds and nanoseconds 0 … 999,999,999."""
    cdef int64_t q = value, r = 0
    if unit == 1:
        q = value // 1000
        r = value - q * 1000
        if r < 0:
            q -= 1
            r += 1000
        r *= 1000000
    elif unit == 2:
        q = value // 1000000
        r = value - q * 1000000
        if r < 0:
            q -= 1
            r += 1000000
        r *= 1000
    elif unit == 3:
        q = value // 1000000000
        r = value - q * 1000000000
        if r < 0:
            q -= 1
            r += 1000000000
    seconds[0] = q
    nanos[0] = r


cdef inline void load_limbs(Node* node, int64_t i, uint64_t* v) noexcept nogil:
    """The integer at i as four limbs in two's complement."""
    cdef const uint8_t* p = node.data
    cdef int layout = node.layout
    cdef int64_t one = 0
    if layout == LAYOUT_D256:
        p += 32 * i
        v[0] = rf_u64(p)
        v[1] = rf_u64(p + 8)
        v[2] = rf_u64(p + 16)
        v[3] = rf_u64(p + 24)
        return
    if layout == LAYOUT_D128:
        p += 16 * i
        v[0] = rf_u64(p)
        v[1] = rf_u64(p + 8)
        v[2] = v[3] = <uint64_t> 0 - (v[1] >> 63)
        return
    if layout == LAYOUT_U64:
        v[0] = rf_u64(p + 8 * i)
        v[1] = v[2] = v[3] = 0
        return
    one = load_i64(node, i)
    v[0] = <uint64_t> one
    v[1] = v[2] = v[3] = <uint64_t> 0 - (v[0] >> 63)


cdef inline int64_t load_i64(Node* node, int64_t i) noexcept nogil:
    """The integer at i of a layout of at most 64 bits (of uint64, its bits)."""
    cdef const uint8_t* p = node.data
    cdef int layout = node.layout
    if layout == LAYOUT_I64 or layout == LAYOUT_U64 or layout == LAYOUT_D64:
        return rf_i64(p + 8 * i)
    if layout == LAYOUT_I32 or layout == LAYOUT_D32:
        return rf_i32(p + 4 * i)
    if layout == LAYOUT_I16:
        return rf_i16(p + 2 * i)
    if layout == LAYOUT_I8:
        return rf_i8(p + i)
    if layout == LAYOUT_U32:
        return rf_u32(p + 4 * i)
    if layout == LAYOUT_U16:
        return rf_u16(p + 2 * i)
    if layout == LAYOUT_U8:
        return rf_u8(p + i)
    return bit_at(p, i)


cdef inline bint extends(const uint64_t* v, int n) noexcept nogil:
    """True if limbs n … 7 only repeat the sign of limb n − 1."""
    cdef uint64_t sign = <uint64_t> 0 - (v[n - 1] >> 63)
    cdef int i
    for i in range(n, 8):
        if v[i] != sign:
            return False
    return True


cdef inline int number_cell(Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """An integer at the pair's scale, in the least of 1, 2, 4, 8 words that holds it."""
    cdef uint64_t v[8]
    cdef uint64_t product[8]
    cdef uint64_t sign
    cdef int j
    load_limbs(node, i, v)
    sign = v[3] >> 63
    if node.power > 0:
        if sign:
            rf_negate(v, 4)
        rf_scale_limbs(v, node.power, product)
        if sign:
            rf_negate(product, 8)
    else:
        for j in range(4):
            product[j] = v[j]
            product[4 + j] = <uint64_t> 0 - sign
    cdef int words = 8
    if extends(product, 1):
        words = 1
    elif extends(product, 2):
        words = 2
    elif extends(product, 4):
        words = 4
    put(a, b, TAG_NUMBER_1 + (0 if words == 1 else 1 if words == 2 else 2 if words == 4 else 3), product[0])
    for j in range(1, words):
        more(a, b, product[j])
    return GOOD


cdef inline void digits_cell(bint minus, const uint8_t* first, const uint8_t* last, int64_t count, int64_t exponent,
                             uint64_t* a, uint64_t* b) noexcept nogil:
    """±digits × 10^exponent; ``first`` … ``last`` are its first and last non-zero digits, a point may lie between."""
    cdef uint64_t group = 0
    cdef int in_group = 0
    put(a, b, TAG_NUMERIC_MINUS if minus else TAG_NUMERIC, <uint64_t> count)
    more(a, b, <uint64_t> exponent)
    while first <= last:
        if first[0] != c'.':
            group = group * 10 + (first[0] - c'0')
            in_group += 1
            if in_group == 18:
                more(a, b, group)
                group = 0
                in_group = 0
        first += 1
    if in_group:
        while in_group < 18:
            group *= 10
            in_group += 1
        more(a, b, group)


cdef inline bint spells(const uint8_t* p, int64_t n, const char* word, int64_t size) noexcept nogil:
    """True if the n bytes spell ``word`` (lower case, ``size`` letters) in any case."""
    cdef int64_t i
    if n != size:
        return False
    for i in range(n):
        if (p[i] | 0x20) != <uint8_t> word[i]:
            return False
    return True


cdef inline int numeric_text_cell(const uint8_t* p, int64_t n, uint64_t* a, uint64_t* b) noexcept nogil:
    """A decimal number as text: sign, digits, point, exponent; NaN, Infinity, inf in any case."""
    cdef const uint8_t* end = p + n
    cdef const uint8_t* first = NULL
    cdef const uint8_t* last = NULL
    cdef bint minus = False, signed_ = False, point = False, exponent_minus = False
    cdef int64_t digits = 0, count = 0, count_to_last = 0, after_last = 0, shift = 0, exponent = 0, exponent_digits = 0
    if n > 0 and (p[0] == c'-' or p[0] == c'+'):
        minus = p[0] == c'-'
        signed_ = True
        p += 1
    if spells(p, end - p, b"nan", 3) and not signed_:
        put(a, b, TAG_NUMERIC_NAN, 0)
        return GOOD
    if spells(p, end - p, b"infinity", 8) or spells(p, end - p, b"inf", 3):
        put(a, b, TAG_NUMERIC_MINUS_INFINITY if minus else TAG_NUMERIC_INFINITY, 0)
        return GOOD
    while p < end:
        if p[0] == c'.':
            if point:
                return NOT_A_NUMBER
            point = True
        elif c'0' <= p[0] <= c'9':
            digits += 1
            if first != NULL or p[0] != c'0':
                if first == NULL:
                    first = p
                count += 1
            if p[0] != c'0':
                last = p
                count_to_last = count
            if point:
                shift += 1
        else:
            break
        p += 1
    if digits == 0:
        return NOT_A_NUMBER
    if p < end:
        if p[0] != c'e' and p[0] != c'E':
            return NOT_A_NUMBER
        p += 1
        if p < end and (p[0] == c'-' or p[0] == c'+'):
            exponent_minus = p[0] == c'-'
            p += 1
        while p < end and c'0' <= p[0] <= c'9' and exponent <= 999999999:
            exponent = exponent * 10 + (p[0] - c'0')
            exponent_digits += 1
            p += 1
        if p < end or exponent_digits == 0 or exponent > 999999999:
            return NOT_A_NUMBER
    if first == NULL:
        put(a, b, TAG_NUMERIC, 0)
        return GOOD
    after_last = count - count_to_last
    exponent = (-exponent if exponent_minus else exponent) - shift + after_last
    digits_cell(minus, first, last, count_to_last, exponent, a, b)
    return GOOD


cdef inline int numeric_integer_cell(Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """An integer or decimal as NUMERIC: its digits, without zeros at either end."""
    cdef uint64_t v[4]
    cdef uint8_t text[90]
    cdef uint64_t rest
    cdef bint minus
    cdef int at = 90, j, last = 89
    load_limbs(node, i, v)
    minus = v[3] >> 63
    if minus:
        rf_negate(v, 4)
    while v[0] | v[1] | v[2] | v[3]:
        rest = rf_divide(v)
        for j in range(18):
            at -= 1
            text[at] = c'0' + <uint8_t> (rest % 10)
            rest //= 10
    while at < 90 and text[at] == c'0':
        at += 1
    if at == 90:
        put(a, b, TAG_NUMERIC, 0)
        return GOOD
    while text[last] == c'0':
        last -= 1
    digits_cell(minus, text + at, text + last, last - at + 1, (89 - last) - node.power, a, b)
    return GOOD


cdef inline int span(Node* node, int64_t i, const uint8_t** start, int64_t* size) noexcept nogil:
    """The bytes of a text or binary value at i."""
    cdef int64_t low, high
    if node.layout == LAYOUT_BYTES_FIXED:
        start[0] = node.data + node.width * i
        size[0] = node.width
        return GOOD
    if node.layout == LAYOUT_BYTES_32:
        low = rf_i32(node.data + 4 * i)
        high = rf_i32(node.data + 4 * i + 4)
    else:
        low = rf_i64(node.data + 8 * i)
        high = rf_i64(node.data + 8 * i + 8)
    if low < 0 or high < low or high > node.payload_end - node.payload:
        return BAD_OFFSETS
    start[0] = node.payload + low
    size[0] = high - low
    return GOOD


cdef inline int bytes_cell(Node* node, int64_t i, int tag, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef const uint8_t* p
    cdef int64_t n
    cdef int code = span(node, i, &p, &n)
    if code == GOOD:
        put_bytes(a, b, tag, p, n, node.payload_end)
    return code


cdef inline int json_cell(Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef const uint8_t* p
    cdef int64_t n
    cdef int code = span(node, i, &p, &n)
    if code != GOOD:
        return code
    if json_canonical(node.json, p, n) != JSON_GOOD:
        return BAD_MEMORY
    put_bytes(a, b, TAG_JSON, node.json.out, node.json.size, node.json.out + node.json.size)
    return GOOD


cdef inline void uuid_text_cell(const uint8_t* p, uint64_t* a, uint64_t* b) noexcept nogil:
    """A uuid as its text in lower case: 8-4-4-4-12."""
    cdef uint8_t text[36]
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef int i, at = 0
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = c'-'
            at += 1
        text[at] = hexadecimal[p[i] >> 4]
        text[at + 1] = hexadecimal[p[i] & 15]
        at += 2
    put_bytes(a, b, TAG_TEXT, text, 36, text + 36)


cdef inline int moment_cell(Node* node, int64_t i, int tag, uint64_t* a, uint64_t* b) noexcept nogil:
    """TIME, TIMESTAMP, DURATION: floored seconds, nanoseconds."""
    cdef int64_t value, seconds, nanos
    if node.layout == LAYOUT_DATE_32 or node.layout == LAYOUT_DATE_64:
        return date_cell(node, i, tag, a, b)
    if node.layout == LAYOUT_TIME_32:
        value = rf_i32(node.data + 4 * i)
    else:
        value = rf_i64(node.data + 8 * i)
    if tag == TAG_TIMESTAMP:
        if value == INT64_MAX:
            put(a, b, TAG_INFINITY, 0)
            return GOOD
        if value == INT64_MIN:
            put(a, b, TAG_MINUS_INFINITY, 0)
            return GOOD
    floor_divide(value, node.unit, &seconds, &nanos)
    put(a, b, tag, <uint64_t> seconds)
    more(a, b, <uint64_t> nanos)
    return GOOD


cdef inline int date_cell(Node* node, int64_t i, int tag, uint64_t* a, uint64_t* b) noexcept nogil:
    """DATE: days; as TIMESTAMP: the seconds of its midnight."""
    cdef int64_t value
    cdef bint high, low
    if node.layout == LAYOUT_DATE_32:
        value = rf_i32(node.data + 4 * i)
        high = value == INT32_MAX
        low = value == INT32_MIN
    else:
        value = rf_i64(node.data + 8 * i)
        high = value == INT64_MAX
        low = value == INT64_MIN
    if high or low:
        put(a, b, TAG_INFINITY if high else TAG_MINUS_INFINITY, 0)
        return GOOD
    if node.layout == LAYOUT_DATE_64:
        if value % 86400000 != 0:
            return BAD_DATE
        value = value // 86400000
    if tag == TAG_DATE:
        put(a, b, TAG_DATE, <uint64_t> value)
    else:
        put(a, b, tag, <uint64_t> (value * 86400))
        more(a, b, 0)
    return GOOD


cdef inline int interval_cell(Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """INTERVAL: months and days in one word, nanoseconds; a duration has neither months nor days."""
    cdef const uint8_t* p
    cdef int64_t factor, nanos
    if node.layout == LAYOUT_INTERVAL:
        p = node.data + 16 * i
        put(a, b, TAG_INTERVAL, rf_u64(p))
        more(a, b, rf_u64(p + 8))
        return GOOD
    factor = 1000000000 if node.unit == 0 else 1000000 if node.unit == 1 else 1000 if node.unit == 2 else 1
    if rf_scale_i64(rf_i64(node.data + 8 * i), factor, &nanos):
        # No interval can hold it, so it must equal none.
        return moment_cell(node, i, TAG_DURATION, a, b)
    put(a, b, TAG_INTERVAL, 0)
    more(a, b, <uint64_t> nanos)
    return GOOD


cdef inline int float_cell(Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef double value = rf_f32(node.data + 4 * i) if node.layout == LAYOUT_F32 else rf_f64(node.data + 8 * i)
    if value != value:
        put(a, b, TAG_FLOAT_NAN, 0)
    elif node.op == OP_FLOAT_UNSIGNED_ZERO:
        put(a, b, TAG_FLOAT, rf_bits(value + 0.0))  # −0.0 + 0.0 is 0.0
    else:
        put(a, b, TAG_FLOAT, rf_bits(value))
    return GOOD


cdef inline int list_cell(Node* nodes, Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """LIST, MAP: the count, then the cells in their order (of a map, structs of key and value)."""
    cdef int64_t low, high
    cdef int code
    if node.layout == LAYOUT_LIST_FIXED:
        low = node.width * i
        high = low + node.width
    elif node.layout == LAYOUT_LIST_64:
        low = rf_i64(node.data + 8 * i)
        high = rf_i64(node.data + 8 * i + 8)
    else:
        low = rf_i32(node.data + 4 * i)
        high = rf_i32(node.data + 4 * i + 4)
    if low < 0 or high < low or high > nodes[node.child].length:
        return BAD_OFFSETS
    put(a, b, TAG_MAP if node.op == OP_MAP else TAG_LIST, <uint64_t> (high - low))
    while low < high:
        code = cell(nodes, node.child, low, a, b)
        if code != GOOD:
            return code
        low += 1
    return GOOD


cdef inline int struct_cell(Node* nodes, Node* node, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """STRUCT: the count of fields, then their cells."""
    cdef int child = node.child, code
    put(a, b, TAG_STRUCT, <uint64_t> node.width)
    while child >= 0:
        code = cell(nodes, child, i, a, b)
        if code != GOOD:
            return code
        child = nodes[child].sibling
    return GOOD


cdef inline int cell(Node* nodes, int index, int64_t i, uint64_t* a, uint64_t* b) noexcept nogil:
    """Folds the cell at logical index i of a node, whatever it is, into one row's state."""
    cdef Node* node = nodes + index
    cdef const uint8_t* p
    cdef int64_t n
    cdef int op = node.op, code
    i += node.offset
    if node.layout == LAYOUT_NULL or (node.validity != NULL and not bit_at(node.validity, i)):
        put(a, b, TAG_NULL, 0)
        return GOOD
    if op == OP_TEXT:
        return bytes_cell(node, i, TAG_TEXT, a, b)
    if op == OP_NUMBER:
        return number_cell(node, i, a, b)
    if op == OP_FLOAT or op == OP_FLOAT_UNSIGNED_ZERO:
        return float_cell(node, i, a, b)
    if op == OP_DATE:
        return date_cell(node, i, TAG_DATE, a, b)
    if op == OP_TIMESTAMP:
        return moment_cell(node, i, TAG_TIMESTAMP, a, b)
    if op == OP_BOOL:
        put(a, b, TAG_BOOL, bit_at(node.data, i))
        return GOOD
    if op == OP_NUMERIC:
        if node.layout == LAYOUT_BYTES_32 or node.layout == LAYOUT_BYTES_64:
            code = span(node, i, &p, &n)
            if code == GOOD and numeric_text_cell(p, n, a, b) == NOT_A_NUMBER:
                # It equals no number, and another text only if that has the same bytes.
                put_bytes(a, b, TAG_TEXT, p, n, node.payload_end)
            return code
        return numeric_integer_cell(node, i, a, b)
    if op == OP_UUID:
        put(a, b, TAG_UUID, rf_u64(node.data + 16 * i))
        more(a, b, rf_u64(node.data + 16 * i + 8))
        return GOOD
    if op == OP_TEXT_OF_UUID:
        uuid_text_cell(node.data + 16 * i, a, b)
        return GOOD
    if op == OP_BINARY:
        return bytes_cell(node, i, TAG_BINARY, a, b)
    if op == OP_JSON:
        return json_cell(node, i, a, b)
    if op == OP_TIME:
        return moment_cell(node, i, TAG_TIME, a, b)
    if op == OP_DURATION:
        return moment_cell(node, i, TAG_DURATION, a, b)
    if op == OP_INTERVAL:
        return interval_cell(node, i, a, b)
    if op == OP_STRUCT:
        # A struct's children lie at its own physical places.
        return struct_cell(nodes, node, i, a, b)
    return list_cell(nodes, node, i, a, b)
