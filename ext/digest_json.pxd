# JSON by value (docs/DIGEST.md, "JSON"): a document is written anew in one canonical form and hashed as bytes.
#
# A recursive descent writes straight into one growing buffer. The members of an object are written in
# the order they come in; at its end, if their keys are not in order, they are put in order there.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

# Levels of nesting; a document nested deeper is compared by its bytes, as one that is no JSON.
cdef enum:
    JSON_DEPTH_MAX = 512

cdef enum:
    JSON_GOOD = 0
    JSON_INVALID = 1
    JSON_NO_MEMORY = 2

ctypedef struct Member:
    int64_t start             # of its key's opening quote in the output
    int64_t key_end           # after the key's closing quote
    int64_t end               # after its value
    int64_t place             # in the document

ctypedef struct Json:
    const uint8_t* p
    const uint8_t* end
    uint8_t* out              # what is written; owned
    int64_t size
    int64_t capacity
    uint8_t* spare            # an object while it is put in order; owned
    int64_t spare_capacity
    Member* members           # of all objects that are open, innermost last; owned
    int64_t member_count
    int64_t member_capacity


cdef inline int reserve(uint8_t** buffer, int64_t* capacity, int64_t needed) noexcept nogil:
    cdef int64_t wanted = capacity[0]
    cdef uint8_t* grown
    if needed <= wanted:
        return JSON_GOOD
    wanted = needed + (needed >> 1) + 256
    grown = <uint8_t*> realloc(buffer[0], wanted)
    if grown == NULL:
        return JSON_NO_MEMORY
    buffer[0] = grown
    capacity[0] = wanted
    return JSON_GOOD


cdef inline int write_bytes(Json* j, const uint8_t* p, int64_t n) noexcept nogil:
    if n == 0:  # an empty text may have no address, which memcpy must not be given
        return JSON_GOOD
    if reserve(&j.out, &j.capacity, j.size + n) != JSON_GOOD:
        return JSON_NO_MEMORY
    memcpy(j.out + j.size, p, n)
    j.size += n
    return JSON_GOOD


cdef inline int write_byte(Json* j, uint8_t byte) noexcept nogil:
    if reserve(&j.out, &j.capacity, j.size + 1) != JSON_GOOD:
        return JSON_NO_MEMORY
    j.out[j.size] = byte
    j.size += 1
    return JSON_GOOD


cdef inline int write_character(Json* j, uint32_t c) noexcept nogil:
    """One code point: what JSON must escape escaped, all else as UTF-8 (a lone surrogate in three bytes, too)."""
    cdef uint8_t b[6]
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef int n
    if c == c'"' or c == c'\\':
        b[0] = c'\\'
        b[1] = <uint8_t> c
        n = 2
    elif c < 0x20:
        b[0] = c'\\'
        b[1] = c'u'
        b[2] = c'0'
        b[3] = c'0'
        b[4] = hexadecimal[c >> 4]
        b[5] = hexadecimal[c & 15]
        n = 6
    elif c < 0x80:
        b[0] = <uint8_t> c
        n = 1
    elif c < 0x800:
        b[0] = 0xC0 | (c >> 6)
        b[1] = 0x80 | (c & 63)
        n = 2
    elif c < 0x10000:
        b[0] = 0xE0 | (c >> 12)
        b[1] = 0x80 | ((c >> 6) & 63)
        b[2] = 0x80 | (c & 63)
        n = 3
    else:
        b[0] = 0xF0 | (c >> 18)
        b[1] = 0x80 | ((c >> 12) & 63)
        b[2] = 0x80 | ((c >> 6) & 63)
        b[3] = 0x80 | (c & 63)
        n = 4
    return write_bytes(j, b, n)


cdef inline void skip_space(Json* j) noexcept nogil:
    while j.p < j.end and (j.p[0] == c' ' or j.p[0] == c'\t' or j.p[0] == c'\n' or j.p[0] == c'\r'):
        j.p += 1


cdef inline int64_t four_hex(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The number in four hexadecimal digits, or −1."""
    cdef int64_t value = 0
    cdef int i
    cdef uint8_t c
    if end - p < 4:
        return -1
    for i in range(4):
        c = p[i]
        if c'0' <= c <= c'9':
            value = value * 16 + (c - c'0')
        elif c'a' <= (c | 0x20) <= c'f':
            value = value * 16 + ((c | 0x20) - c'a' + 10)
        else:
            return -1
    return value


cdef inline int json_escape(Json* j) noexcept nogil:
    """What follows a backslash."""
    cdef uint8_t c
    cdef int64_t code, low
    if j.p >= j.end:
        return JSON_INVALID
    c = j.p[0]
    j.p += 1
    if c == c'"' or c == c'\\' or c == c'/':
        return write_character(j, c)
    if c == c'b':
        return write_character(j, 8)
    if c == c'f':
        return write_character(j, 12)
    if c == c'n':
        return write_character(j, 10)
    if c == c'r':
        return write_character(j, 13)
    if c == c't':
        return write_character(j, 9)
    if c != c'u':
        return JSON_INVALID
    code = four_hex(j.p, j.end)
    if code < 0:
        return JSON_INVALID
    j.p += 4
    if 0xD800 <= code < 0xDC00 and j.end - j.p >= 6 and j.p[0] == c'\\' and j.p[1] == c'u':
        low = four_hex(j.p + 2, j.end)
        if 0xDC00 <= low < 0xE000:
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            j.p += 6
    return write_character(j, <uint32_t> code)


cdef inline int json_string(Json* j) noexcept nogil:
    """A string, from its opening quote."""
    cdef const uint8_t* run
    cdef int code
    j.p += 1
    if write_byte(j, c'"') != JSON_GOOD:
        return JSON_NO_MEMORY
    while True:
        run = j.p
        while j.p < j.end and j.p[0] >= 0x20 and j.p[0] != c'"' and j.p[0] != c'\\':
            j.p += 1
        if write_bytes(j, run, j.p - run) != JSON_GOOD:
            return JSON_NO_MEMORY
        if j.p >= j.end or j.p[0] < 0x20:
            return JSON_INVALID
        j.p += 1
        if (j.p - 1)[0] == c'"':
            return write_byte(j, c'"')
        code = json_escape(j)
        if code != JSON_GOOD:
            return code


cdef inline bint is_digit(Json* j) noexcept nogil:
    return j.p < j.end and c'0' <= j.p[0] <= c'9'


cdef inline int json_number(Json* j) noexcept nogil:
    """A number: its digits without zeros at either end, and, if it is not 0, ``e`` and the power of ten."""
    cdef bint minus = False, exponent_minus = False
    cdef const uint8_t* first = NULL
    cdef const uint8_t* last = NULL
    cdef const uint8_t* q
    cdef int64_t exponent = 0, after_last = 0, after_point = 0
    cdef uint8_t digits[24]
    cdef int at = 24
    if j.p[0] == c'-':
        minus = True
        j.p += 1
    if not is_digit(j) or (j.p[0] == c'0' and j.end - j.p > 1 and c'0' <= j.p[1] <= c'9'):
        return JSON_INVALID
    while j.p < j.end and (is_digit(j) or (j.p[0] == c'.' and after_point == 0)):
        if j.p[0] == c'.':
            after_point = 1
        else:
            if j.p[0] != c'0':
                if first == NULL:
                    first = j.p
                last = j.p
                after_last = 0
            else:
                after_last += 1
            if after_point:
                after_point += 1
        j.p += 1
    if after_point == 1:
        return JSON_INVALID
    if j.p < j.end and (j.p[0] | 0x20) == c'e':
        j.p += 1
        if j.p < j.end and (j.p[0] == c'-' or j.p[0] == c'+'):
            exponent_minus = j.p[0] == c'-'
            j.p += 1
        if not is_digit(j):
            return JSON_INVALID
        while is_digit(j):
            exponent = exponent * 10 + (j.p[0] - c'0')
            if exponent > 999999999:
                return JSON_INVALID
            j.p += 1
    if first == NULL:
        return write_byte(j, c'0')
    if minus and write_byte(j, c'-') != JSON_GOOD:
        return JSON_NO_MEMORY
    q = first
    while q <= last:
        if q[0] != c'.' and write_byte(j, q[0]) != JSON_GOOD:
            return JSON_NO_MEMORY
        q += 1
    exponent = (-exponent if exponent_minus else exponent) + after_last - (after_point - 1 if after_point else 0)
    if exponent == 0:
        return JSON_GOOD
    if write_byte(j, c'e') != JSON_GOOD or (exponent < 0 and write_byte(j, c'-') != JSON_GOOD):
        return JSON_NO_MEMORY
    if exponent < 0:
        exponent = -exponent
    while exponent:
        at -= 1
        digits[at] = c'0' + <uint8_t> (exponent % 10)
        exponent //= 10
    return write_bytes(j, digits + at, 24 - at)


cdef inline int json_word(Json* j, const char* word, int64_t size) noexcept nogil:
    if j.end - j.p < size or memcmp(j.p, word, size) != 0:
        return JSON_INVALID
    j.p += size
    return write_bytes(j, <const uint8_t*> word, size)


cdef inline int json_array(Json* j, int depth) noexcept nogil:
    cdef int code
    j.p += 1
    if write_byte(j, c'[') != JSON_GOOD:
        return JSON_NO_MEMORY
    skip_space(j)
    if j.p < j.end and j.p[0] == c']':
        j.p += 1
        return write_byte(j, c']')
    while True:
        code = json_value(j, depth + 1)
        if code != JSON_GOOD:
            return code
        skip_space(j)
        if j.p >= j.end or (j.p[0] != c',' and j.p[0] != c']'):
            return JSON_INVALID
        j.p += 1
        if write_byte(j, (j.p - 1)[0]) != JSON_GOOD:
            return JSON_NO_MEMORY
        if (j.p - 1)[0] == c']':
            return JSON_GOOD


cdef inline int json_member(Json* j, int depth) noexcept nogil:
    """One member of an object, noted in ``members``, without the comma."""
    cdef Member member
    cdef Member* grown
    cdef int64_t wanted
    cdef int code
    skip_space(j)
    if j.p >= j.end or j.p[0] != c'"':
        return JSON_INVALID
    member.start = j.size
    code = json_string(j)
    if code != JSON_GOOD:
        return code
    member.key_end = j.size
    skip_space(j)
    if j.p >= j.end or j.p[0] != c':':
        return JSON_INVALID
    j.p += 1
    if write_byte(j, c':') != JSON_GOOD:
        return JSON_NO_MEMORY
    code = json_value(j, depth + 1)
    if code != JSON_GOOD:
        return code
    member.end = j.size
    member.place = j.member_count
    if j.member_count == j.member_capacity:
        wanted = 2 * j.member_capacity + 16
        grown = <Member*> realloc(j.members, wanted * sizeof(Member))
        if grown == NULL:
            return JSON_NO_MEMORY
        j.members = grown
        j.member_capacity = wanted
    j.members[j.member_count] = member
    j.member_count += 1
    return JSON_GOOD


cdef inline int json_object(Json* j, int depth) noexcept nogil:
    cdef int64_t first = j.member_count, start = j.size
    cdef int code
    j.p += 1
    if write_byte(j, c'{') != JSON_GOOD:
        return JSON_NO_MEMORY
    skip_space(j)
    if j.p < j.end and j.p[0] == c'}':
        j.p += 1
        return write_byte(j, c'}')
    while True:
        code = json_member(j, depth)
        if code != JSON_GOOD:
            return code
        skip_space(j)
        if j.p >= j.end or (j.p[0] != c',' and j.p[0] != c'}'):
            return JSON_INVALID
        j.p += 1
        if write_byte(j, (j.p - 1)[0]) != JSON_GOOD:
            return JSON_NO_MEMORY
        if (j.p - 1)[0] == c'}':
            break
    code = order_members(j, start, first)
    j.member_count = first
    return code


cdef inline int compare_members(const Json* j, const Member* x, const Member* y) noexcept nogil:
    """By the written key without its quotes, then by the place in the document."""
    cdef int64_t n = x.key_end - x.start - 2, m = y.key_end - y.start - 2
    cdef int order = memcmp(j.out + x.start + 1, j.out + y.start + 1, n if n < m else m)
    if order == 0 and n != m:
        order = -1 if n < m else 1
    if order == 0:
        order = -1 if x.place < y.place else 1
    return order


cdef inline bint same_key(const Json* j, const Member* x, const Member* y) noexcept nogil:
    return (x.key_end - x.start == y.key_end - y.start
            and memcmp(j.out + x.start, j.out + y.start, x.key_end - x.start) == 0)


cdef inline void sift(Json* j, Member* members, int64_t root, int64_t count) noexcept nogil:
    cdef int64_t child
    cdef Member moved
    while 2 * root + 1 < count:
        child = 2 * root + 1
        if child + 1 < count and compare_members(j, members + child, members + child + 1) < 0:
            child += 1
        if compare_members(j, members + root, members + child) >= 0:
            return
        moved = members[root]
        members[root] = members[child]
        members[child] = moved
        root = child


cdef inline int order_members(Json* j, int64_t start, int64_t first) noexcept nogil:
    """Puts the object written from ``start`` in the order of its keys; of equal keys the last stays."""
    cdef Member* members = j.members + first
    cdef int64_t count = j.member_count - first, i, size = j.size - start, at
    cdef Member moved
    cdef bint ordered = True
    for i in range(1, count):
        if compare_members(j, members + i - 1, members + i) > 0 or same_key(j, members + i - 1, members + i):
            ordered = False
            break
    if ordered:
        return JSON_GOOD
    i = count // 2
    while i > 0:
        i -= 1
        sift(j, members, i, count)
    i = count
    while i > 1:
        i -= 1
        moved = members[0]
        members[0] = members[i]
        members[i] = moved
        sift(j, members, 0, i)
    if reserve(&j.spare, &j.spare_capacity, size) != JSON_GOOD:
        return JSON_NO_MEMORY
    at = 1
    j.spare[0] = c'{'
    for i in range(count):
        if i + 1 < count and same_key(j, members + i, members + i + 1):
            continue
        memcpy(j.spare + at, j.out + members[i].start, members[i].end - members[i].start)
        at += members[i].end - members[i].start
        j.spare[at] = c',' if i + 1 < count else c'}'
        at += 1
    memcpy(j.out + start, j.spare, at)
    j.size = start + at
    return JSON_GOOD


cdef inline int json_value(Json* j, int depth) noexcept nogil:
    if depth > JSON_DEPTH_MAX:
        return JSON_INVALID
    skip_space(j)
    if j.p >= j.end:
        return JSON_INVALID
    cdef uint8_t c = j.p[0]
    if c == c'"':
        return json_string(j)
    if c == c'{':
        return json_object(j, depth)
    if c == c'[':
        return json_array(j, depth)
    if c == c'-' or c'0' <= c <= c'9':
        return json_number(j)
    if c == c't':
        return json_word(j, b"true", 4)
    if c == c'f':
        return json_word(j, b"false", 5)
    if c == c'n':
        return json_word(j, b"null", 4)
    return JSON_INVALID


cdef inline int json_canonical(Json* j, const uint8_t* p, int64_t n) noexcept nogil:
    """Writes the document in ``out[0 … size − 1]``; what is no JSON as a byte FF and itself."""
    cdef int code
    j.p = p
    j.end = p + n
    j.size = 0
    j.member_count = 0
    code = json_value(j, 1)
    if code == JSON_GOOD:
        skip_space(j)
        if j.p != j.end:
            code = JSON_INVALID
    if code == JSON_INVALID:
        j.size = 0
        code = write_byte(j, 0xFF)
        if code == JSON_GOOD:
            code = write_bytes(j, p, n)
    return code


cdef inline void json_free(Json* j) noexcept nogil:
    free(j.out)
    free(j.spare)
    free(j.members)
    j.out = j.spare = NULL
    j.members = NULL
    j.capacity = j.spare_capacity = j.member_capacity = 0
