# PostgreSQL's numeric on the wire, to and from decimals and text.
#
# int16 count of digits, int16 weight, uint16 sign, uint16 dscale, then the digits: base 10000,
# the first worth 10000^weight. dscale is how many decimal digits are shown after the point.

from pg_wire cimport (
    E_DIGITS, E_LENGTH, E_NOT_FINITE, E_NUMERIC, E_PRECISION, E_SCALE, OK,
    load16, memcpy, memset, store16, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint64_t,
)


cdef extern from *:
    """
    #include <stdint.h>
    static const uint64_t RF_POW10[20] = {
      1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
      10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
      1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
      10000000000000000000ULL };

    /* 128-bit arithmetic stays in C: Cython takes the type for its declared 64-bit stand-in, and
       narrows a dividend to it. */
    static inline int rf_limbs_multiply_add(uint64_t* limbs, int size, uint64_t factor, uint64_t addend) {
      uint64_t carry = addend;
      for (int i = 0; i < size; i++) {
        unsigned __int128 wide = (unsigned __int128)limbs[i] * factor + carry;
        limbs[i] = (uint64_t)wide;
        carry = (uint64_t)(wide >> 64);
      }
      return carry != 0;
    }
    static inline uint64_t rf_limbs_divide(uint64_t* limbs, int size, uint64_t divisor) {
      uint64_t rest = 0;
      for (int i = size - 1; i >= 0; i--) {
        unsigned __int128 wide = (unsigned __int128)rest << 64 | limbs[i];
        limbs[i] = (uint64_t)(wide / divisor);
        rest = (uint64_t)(wide % divisor);
      }
      return rest;
    }
    """
    const uint64_t[20] POW10 "RF_POW10"
    # limbs (least significant first) = limbs × factor + addend; true where that overflows.
    bint limbs_multiply_add "rf_limbs_multiply_add"(
        uint64_t* limbs, int size, uint64_t factor, uint64_t addend) noexcept nogil
    # limbs = limbs ÷ divisor; gives the remainder.
    uint64_t limbs_divide "rf_limbs_divide"(uint64_t* limbs, int size, uint64_t divisor) noexcept nogil


cdef enum:
    NUMERIC_NEGATIVE = 0x4000
    NUMERIC_NAN = 0xC000
    NUMERIC_INFINITY = 0xD000
    NUMERIC_MINUS_INFINITY = 0xF000
    NUMERIC_SCALE_MAX = 0x3FFF
    #: Bytes that an encoded decimal of up to 76 digits needs at most: 8 + 2 × 21 groups, rounded up.
    NUMERIC_BYTES_MAX = 64
    LIMBS = 5


cdef struct Numeric:
    int count      # digits of base 10000, without zeros at either end
    int weight     # of the first of them
    int sign
    int dscale
    const uint8_t* digits


cdef inline int numeric_parse(const uint8_t* field, int32_t size, Numeric* n) noexcept nogil:
    """Checks a field's frame and strips zero groups; every digit is checked to be below 10000."""
    cdef int i, bad = 0
    if size < 8:
        return E_LENGTH
    n.count = load16(field)
    n.weight = <int16_t> load16(field + 2)
    n.sign = load16(field + 4)
    n.dscale = load16(field + 6)
    n.digits = field + 8
    if size != 8 + 2 * n.count:
        return E_LENGTH
    if n.dscale > NUMERIC_SCALE_MAX:
        return E_NUMERIC
    if n.sign != 0 and n.sign != NUMERIC_NEGATIVE:
        if n.sign == NUMERIC_NAN or n.sign == NUMERIC_INFINITY or n.sign == NUMERIC_MINUS_INFINITY:
            return E_NOT_FINITE
        return E_NUMERIC
    for i in range(n.count):
        bad |= load16(n.digits + 2 * i) > 9999
    if bad:
        return E_NUMERIC
    while n.count and load16(n.digits + 2 * n.count - 2) == 0:
        n.count -= 1
    while n.count and load16(n.digits) == 0:
        n.digits += 2
        n.count -= 1
        n.weight -= 1
    return OK


cdef inline bint limbs_reach(const uint64_t* limbs, const uint64_t* bound, int size) noexcept nogil:
    """limbs >= bound."""
    cdef int i = size - 1
    while i >= 0:
        if limbs[i] != bound[i]:
            return limbs[i] > bound[i]
        i -= 1
    return True


cdef inline void decimal_store(uint8_t* out, int width, uint64_t* limbs, bint negative) noexcept nogil:
    """Two's complement of a magnitude, in ``width`` bytes (16 or 32)."""
    cdef uint64_t carry = 1
    cdef int i
    if negative:
        for i in range(4):
            limbs[i] = ~limbs[i] + carry
            carry = carry and limbs[i] == 0
    memcpy(out, limbs, width)


cdef inline int numeric_to_decimal(
    const uint8_t* field, int32_t size, int scale, const uint64_t* bound, int width, uint8_t* out
) noexcept nogil:
    """The value × 10^scale as an integer below ``bound`` (10^precision), exactly, or a code."""
    cdef Numeric n
    cdef uint64_t[LIMBS] limbs  # one more than a decimal has: the last group may reach beyond the scale
    cdef uint64_t small
    cdef int i, exponent, code, step
    code = numeric_parse(field, size, &n)
    if code != OK:
        return code
    if n.count == 0:
        memset(out, 0, width)
        return OK
    # The last group is worth 10^(4 × (weight − count + 1)).
    exponent = 4 * (n.weight - n.count + 1) + scale
    limbs[1] = limbs[2] = limbs[3] = limbs[4] = 0
    if exponent < -3:  # the last group is not zero, so that at most three of its digits are
        return E_SCALE
    if n.count <= 4 and exponent <= 18 - 4 * n.count:  # all below 10^18: one word
        small = 0
        for i in range(n.count):
            small = small * 10000 + load16(n.digits + 2 * i)
        if exponent >= 0:
            small *= POW10[exponent]
        else:  # by constants: a multiplication each
            limbs[0] = small
            if exponent == -2:
                small = small / 100
            elif exponent == -1:
                small = small / 10
            else:
                small = small / 1000
            if small * POW10[-exponent] != limbs[0]:
                return E_SCALE
        limbs[0] = small
    else:
        limbs[0] = 0
        for i in range(n.count):
            if limbs_multiply_add(limbs, LIMBS, 10000, load16(n.digits + 2 * i)):
                return E_PRECISION
        if exponent > 76:
            return E_PRECISION
        while exponent > 0:
            step = exponent if exponent < 19 else 19
            if limbs_multiply_add(limbs, LIMBS, POW10[step], 0):
                return E_PRECISION
            exponent -= step
        if exponent < 0 and limbs_divide(limbs, LIMBS, POW10[-exponent]) != 0:
            return E_SCALE
    if limbs[4] or limbs_reach(limbs, bound, 4):
        return E_PRECISION
    decimal_store(out, width, limbs, n.sign == NUMERIC_NEGATIVE)
    return OK


cdef inline int64_t numeric_text_bound(const uint8_t* field, int32_t size) noexcept nogil:
    """Characters that the text of a numeric needs at most."""
    cdef int weight
    if size < 8:
        return 0
    weight = <int16_t> load16(field + 2)
    return 16 + (4 * (weight + 1) if weight >= 0 else 0) + load16(field + 6)


cdef inline void group_text(int group, uint8_t* out) noexcept nogil:
    out[0] = <uint8_t> (48 + group / 1000)
    out[1] = <uint8_t> (48 + group / 100 % 10)
    out[2] = <uint8_t> (48 + group / 10 % 10)
    out[3] = <uint8_t> (48 + group % 10)


cdef inline int group_at(const Numeric* n, int weight) noexcept nogil:
    """The digit of base 10000 worth 10000^weight."""
    cdef int i = n.weight - weight
    return load16(n.digits + 2 * i) if 0 <= i < n.count else 0


cdef inline int numeric_to_text(const uint8_t* field, int32_t size, uint8_t* out, int64_t* written) noexcept nogil:
    """The text that the server itself prints; dscale is kept. ``out`` has numeric_text_bound bytes."""
    cdef Numeric n
    cdef uint8_t* at = out
    cdef uint8_t[4] group
    cdef int code = numeric_parse(field, size, &n)
    cdef int weight, i, left, take
    if code == E_NOT_FINITE:
        if n.count:
            return E_NUMERIC
        if n.sign == NUMERIC_NAN:
            memcpy(out, b"NaN", 3)
            written[0] = 3
        elif n.sign == NUMERIC_INFINITY:
            memcpy(out, b"Infinity", 8)
            written[0] = 8
        else:
            memcpy(out, b"-Infinity", 9)
            written[0] = 9
        return OK
    if code != OK:
        return code
    if n.count and n.sign == NUMERIC_NEGATIVE:
        at[0] = 45
        at += 1
    if n.count == 0 or n.weight < 0:
        at[0] = 48
        at += 1
    else:
        group_text(group_at(&n, n.weight), group)
        i = 0
        while group[i] == 48:  # the first group is not zero
            i += 1
        memcpy(at, &group[i], 4 - i)
        at += 4 - i
        weight = n.weight - 1
        while weight >= 0:
            group_text(group_at(&n, weight), at)
            at += 4
            weight -= 1
    if n.count and 4 * (n.count - 1 - n.weight) > n.dscale:
        # The last group reaches beyond dscale, which is right only if it ends in zeros there.
        left = 4 * (n.count - 1 - n.weight) - n.dscale
        if left > 3 or group_at(&n, n.weight - n.count + 1) % <int> POW10[left] != 0:
            return E_NUMERIC
    if n.dscale:
        at[0] = 46
        at += 1
        left = n.dscale
        weight = -1
        while left > 0:
            group_text(group_at(&n, weight), group)
            take = left if left < 4 else 4
            memcpy(at, group, take)
            at += take
            left -= take
            weight -= 1
    written[0] = at - out
    return OK


cdef inline int numeric_show_all(uint8_t* field, int32_t size) noexcept nogil:
    """Gives a field that came without its dscale (wire_numeric) the smallest that shows all its digits:
    the server cuts off what lies beyond."""
    cdef Numeric n
    cdef int last, scale
    cdef int code = numeric_parse(field, size, &n)
    if code == E_NOT_FINITE and size == 8:
        return OK
    if code != OK:
        return E_NUMERIC
    if n.count == 0:
        return OK
    scale = 4 * (n.count - 1 - n.weight)
    last = load16(n.digits + 2 * n.count - 2)  # not zero
    while last % 10 == 0:
        last = last / 10
        scale -= 1
    if scale > NUMERIC_SCALE_MAX:
        return E_NUMERIC
    store16(field + 6, <uint16_t> scale if scale > 0 else 0)
    return OK


cdef inline int numeric_write(
    uint8_t* out, const uint16_t* groups, int count, int fraction_groups, bint negative, int dscale
) noexcept nogil:
    """A field from its groups, least significant first; gives its bytes."""
    cdef int low = 0, i
    while count > 0 and groups[count - 1] == 0:
        count -= 1
    while low < count and groups[low] == 0:
        low += 1
    store16(out, <uint16_t> (count - low))
    store16(out + 2, <uint16_t> (count - 1 - fraction_groups if count else 0))
    store16(out + 4, NUMERIC_NEGATIVE if negative and count else 0)
    store16(out + 6, <uint16_t> dscale)
    for i in range(count - low):
        store16(out + 8 + 2 * i, groups[count - 1 - i])
    return 8 + 2 * (count - low)


cdef inline int numeric_from_word(uint64_t magnitude, bint negative, int scale, uint8_t* out) noexcept nogil:
    """A field from magnitude × 10^−scale; magnitude × 1000 must fit a word. Gives its bytes."""
    cdef uint16_t[8] groups
    cdef int count = 0
    magnitude *= POW10[-scale & 3]  # so that the fraction is whole groups
    while magnitude:
        groups[count] = <uint16_t> (magnitude % 10000)
        magnitude = magnitude / 10000
        count += 1
    return numeric_write(out, groups, count, (scale + 3) >> 2, negative, scale)


cdef inline int numeric_from_limbs(uint64_t* limbs, bint negative, int scale, uint8_t* out) noexcept nogil:
    """The same for LIMBS limbs (which it uses up); ``out`` has NUMERIC_BYTES_MAX bytes."""
    cdef uint16_t[4 * LIMBS + 8] groups
    cdef uint64_t chunk
    cdef int count = 0, i, top = LIMBS
    limbs_multiply_add(limbs, LIMBS, POW10[-scale & 3], 0)
    while True:
        while top and limbs[top - 1] == 0:
            top -= 1
        if top == 0:
            break
        chunk = limbs_divide(limbs, top, 10000000000000000)
        for i in range(4):
            groups[count] = <uint16_t> (chunk % 10000)
            chunk = chunk / 10000
            count += 1
    return numeric_write(out, groups, count, (scale + 3) >> 2, negative, scale)


cdef inline int numeric_from_text(const uint8_t* text, int64_t size, uint8_t* out, int64_t* written) noexcept nogil:
    """A field from canonical text; ``out`` has 16 + size bytes. dscale is the digits after the point."""
    cdef bint negative = False
    cdef int64_t i, whole_size, point, count = 0, groups_whole, groups, first, j
    cdef int64_t k
    cdef int group
    cdef int64_t fraction_size
    written[0] = 8
    memset(out, 0, 8)
    if (size == 3 and text[0] == 78 and text[1] == 97 and text[2] == 78):
        store16(out + 4, NUMERIC_NAN)
        return OK
    if size and text[0] == 45:
        negative = True
        text += 1
        size -= 1
    if size == 8 and text[0] == 73:
        if text[1] == 110 and text[2] == 102 and text[3] == 105 and text[4] == 110 and text[5] == 105 \
                and text[6] == 116 and text[7] == 121:
            store16(out + 4, NUMERIC_MINUS_INFINITY if negative else NUMERIC_INFINITY)
            store16(out + 6, 0)
            return OK
        return E_DIGITS
    point = size
    for i in range(size):
        if text[i] == 46 and point == size:
            point = i
        elif text[i] < 48 or text[i] > 57:
            return E_DIGITS
    fraction_size = size - point - 1 if point < size else 0
    if point + fraction_size == 0:
        return E_DIGITS
    if fraction_size > NUMERIC_SCALE_MAX:
        return E_PRECISION
    i = 0
    while i < point and text[i] == 48:
        i += 1
    whole_size = point - i
    groups_whole = (whole_size + 3) >> 2
    if groups_whole > 32768:
        return E_PRECISION
    groups = groups_whole + ((fraction_size + 3) >> 2)
    first = -1
    for k in range(groups):
        group = 0
        # The positions of this group's four digits, counted from the point (left of it below zero).
        for j in range(4 * (k - groups_whole), 4 * (k - groups_whole) + 4):
            group *= 10
            if j < 0:
                if -j <= whole_size:
                    group += text[point + j] - 48
            elif j < fraction_size:
                group += text[point + 1 + j] - 48
        if first < 0:
            if group == 0:
                continue
            first = k
        store16(out + 8 + 2 * (k - first), <uint16_t> group)
        count = k - first + 1
    while count and load16(out + 6 + 2 * count) == 0:
        count -= 1
    store16(out, <uint16_t> count)
    store16(out + 2, <uint16_t> (groups_whole - 1 - first if count else 0))
    store16(out + 4, NUMERIC_NEGATIVE if negative and count else 0)
    store16(out + 6, <uint16_t> fraction_size)
    written[0] = 8 + 2 * count
    return OK
