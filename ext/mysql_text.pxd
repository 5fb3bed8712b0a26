# Values as MySQL reads them: digits, dates, escaped bytes. Every writer is given room enough for the longest
# value it can make, or (escaped bytes) is told how much there is.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from arrow_c cimport at_i64
from double_digits cimport double_digits
from sqlite_values cimport DAY_S, IPOW10, put_decimal


cdef extern from *:
    """
    static const char RF_PAIRS[201] =
        "0001020304050607080910111213141516171819" "2021222324252627282930313233343536373839"
        "4041424344454647484950515253545556575859" "6061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    static const uint64_t RF_UPOW10[20] = {
        1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
        10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
        1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
        10000000000000000000ULL };
    /* The Gregorian date of a day counted from 0000-03-01, by multiplications: C. Neri and L. Schneider,
       "Euclidean affine functions and their application to calendar algorithms", 2022. Gives the day of the month. */
    static inline int rf_civil_day(uint32_t days, uint32_t* year, uint32_t* month) {
      const uint32_t n1 = 4 * days + 3, century = n1 / 146097, n2 = n1 % 146097 / 4 * 4 + 3;
      const uint64_t p2 = 2939745ULL * n2;
      const uint32_t of_century = (uint32_t) (p2 >> 32), of_year = (uint32_t) p2 / 2939745 / 4;
      const uint32_t n3 = 2141 * of_year + 197913, late = of_year >= 306;
      *year = 100 * century + of_century + late;
      *month = (n3 >> 16) - 12 * late;
      return (int) ((n3 & 0xFFFF) / 2141 + 1);
    }
    /* Whether any of eight bytes may have to be escaped in LOAD DATA's text: NUL, tab, newline (all below 11, a
       subtraction finds them), backslash (a zero after the exclusive or). */
    #define RF_BELOW_11(w) (((w) - 0x0B0B0B0B0B0B0B0BULL) & ~(w) & 0x8080808080808080ULL)
    #define RF_IS(w, byte) ((((w) ^ (byte * 0x0101010101010101ULL)) - 0x0101010101010101ULL) \\
                            & ~((w) ^ (byte * 0x0101010101010101ULL)) & 0x8080808080808080ULL)
    #define RF_LOAD_SPECIAL(w) (RF_BELOW_11(w) | RF_IS(w, 0x5C))
    #define RF_SQL_SPECIAL(w) (RF_IS(w, 0x00) | RF_IS(w, 0x5C) | RF_IS(w, 0x27))
    """
    const char* PAIRS "RF_PAIRS"
    const uint64_t UPOW10 "RF_UPOW10"[20]
    int leading_zeros "__builtin_clzll"(uint64_t value) noexcept nogil
    int civil_day "rf_civil_day"(uint32_t days, uint32_t* year, uint32_t* month) noexcept nogil
    uint64_t load_special "RF_LOAD_SPECIAL"(uint64_t word) noexcept nogil
    uint64_t sql_special "RF_SQL_SPECIAL"(uint64_t word) noexcept nogil


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────

cdef inline void put_pair(char* out, int value) noexcept nogil:
    memcpy(out, PAIRS + 2 * value, 2)


cdef inline int digits_of(uint64_t value) noexcept nogil:
    """How many decimal digits a value has: log10(2) is 1233 / 4096 as near as 64 bits need it."""
    cdef int guess = ((64 - leading_zeros(value | 1)) * 1233) >> 12
    return guess + 1 - (guess > 0 and (value | 1) < UPOW10[guess])


cdef inline int put_unsigned(char* out, uint64_t value) noexcept nogil:
    """Decimal digits, at most 20; gives how many."""
    cdef int count = digits_of(value), at = count
    cdef uint64_t rest
    while at >= 2:
        rest = value // 100
        at -= 2
        put_pair(out + at, <int> (value - rest * 100))
        value = rest
    if at:
        out[0] = <char> (48 + value)
    return count


cdef inline int put_signed(char* out, int64_t value) noexcept nogil:
    if value < 0:
        out[0] = 45
        return 1 + put_unsigned(out + 1, 0 - <uint64_t> value)
    return put_unsigned(out, <uint64_t> value)


cdef inline int put_padded(char* out, uint64_t value, int width) noexcept nogil:
    """Exactly ``width`` digits of a value that has no more."""
    cdef int at = width
    cdef uint64_t rest
    while at >= 2:
        rest = value // 100
        at -= 2
        put_pair(out + at, <int> (value - rest * 100))
        value = rest
    if at:
        out[0] = <char> (48 + value % 10)
    return width


cdef inline int put_decimal_fast(char* out, const uint8_t* p, int width, int scale) noexcept nogil:
    """A decimal of ``width`` bytes with all digits of its scale (0 to 76); at most 160 characters."""
    cdef int64_t low = at_i64(p, 0)
    cdef uint64_t magnitude, whole
    cdef int k = 0
    if width != 16 or at_i64(p, 1) != low >> 63 or scale > 18 or low == <int64_t> (1ULL << 63):
        return put_decimal(out, p, width, scale)
    magnitude = <uint64_t> low
    if low < 0:
        magnitude = 0 - magnitude
        out[0] = 45
        k = 1
    if scale == 2:  # by a constant: a multiplication instead of a division
        whole = magnitude // 100
        k += put_unsigned(out + k, whole)
        out[k] = 46
        put_pair(out + k + 1, <int> (magnitude - whole * 100))
        return k + 3
    if scale == 0:
        return k + put_unsigned(out + k, magnitude)
    whole = magnitude // <uint64_t> IPOW10[scale]
    k += put_unsigned(out + k, whole)
    out[k] = 46
    return k + 1 + put_padded(out + k + 1, magnitude - whole * <uint64_t> IPOW10[scale], scale)


cdef inline int put_double(char* out, double value) noexcept nogil:
    """The shortest digits of a finite double, as ``-125e-1``; at most 24 characters."""
    cdef uint64_t bits, digits
    cdef int32_t exponent
    cdef int k = 0
    memcpy(&bits, &value, 8)
    if bits >> 63:
        out[0] = 45
        k = 1
    bits &= 0x7FFFFFFFFFFFFFFFULL
    if bits == 0:
        # A bare -0 would be read as an integer, which has no such zero.
        memcpy(out + k, b"0e0", 3)
        return k + 3
    digits = double_digits(bits, &exponent)
    # Zeros at the end: at most sixteen.
    if digits % 100000000 == 0:
        digits = digits // 100000000
        exponent += 8
    if digits % 10000 == 0:
        digits = digits // 10000
        exponent += 4
    if digits % 100 == 0:
        digits = digits // 100
        exponent += 2
    while digits % 10 == 0:
        digits = digits // 10
        exponent += 1
    k += put_unsigned(out + k, digits)
    out[k] = 101
    return k + 1 + put_signed(out + k + 1, exponent)


# ── dates and times ──────────────────────────────────────────────────────────────────────────────

cdef inline int put_day(char* out, int64_t days) noexcept nogil:
    """YYYY-MM-DD; 0 where the year is not in 0 to 9999."""
    cdef uint32_t year, month, day
    if days < -719528 or days > 2932896:
        return 0
    # Counted from 400 years before 0000-03-01, so that no day is negative.
    day = <uint32_t> civil_day(<uint32_t> (days + 719468 + 146097), &year, &month)
    year -= 400
    put_pair(out, <int> (year // 100))
    put_pair(out + 2, <int> (year % 100))
    out[4] = 45
    put_pair(out + 5, <int> month)
    out[7] = 45
    put_pair(out + 8, <int> day)
    return 10


cdef inline int put_seconds_of_day(char* out, int64_t value, int unit_digits, int digits) noexcept nogil:
    """HH:MM:SS and ``digits`` (at most 6) of the fraction, from units of 10^-unit_digits s; the hours may have three
    digits. 0 where the value has more digits than those: the server would round."""
    cdef uint64_t one = <uint64_t> IPOW10[unit_digits]
    cdef uint64_t seconds = <uint64_t> value // one
    cdef uint64_t fraction = <uint64_t> value - seconds * one
    cdef uint64_t kept
    cdef int minutes = <int> (seconds // 60 % 60), k = 2
    cdef int hours = <int> (seconds // 3600)
    if hours > 99:
        k = put_unsigned(out, hours)
    else:
        put_pair(out, hours)
    out[k] = 58
    put_pair(out + k + 1, minutes)
    out[k + 3] = 58
    put_pair(out + k + 4, <int> (seconds % 60))
    k += 6
    if fraction == 0:
        return k
    if digits < unit_digits:
        kept = fraction // <uint64_t> IPOW10[unit_digits - digits]
        if kept * <uint64_t> IPOW10[unit_digits - digits] != fraction:
            return 0
        fraction = kept
    else:
        digits = unit_digits
    out[k] = 46
    return k + 1 + put_padded(out + k + 1, fraction, digits)


cdef inline int put_moment(char* out, int64_t value, int unit_digits, int digits) noexcept nogil:
    """YYYY-MM-DD HH:MM:SS[.fraction]; 0 where the year is not in 0 to 9999, -1 where digits would be lost."""
    cdef int64_t day = DAY_S * IPOW10[unit_digits]
    cdef int64_t days = value // day, rest
    cdef int k
    rest = value - days * day
    if rest < 0:
        rest += day
        days -= 1
    if put_day(out, days) == 0:
        return 0
    out[10] = 32
    k = put_seconds_of_day(out + 11, rest, unit_digits, digits)
    return 11 + k if k else -1


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────

cdef inline int64_t escape_load(
    char* out, int64_t room, const uint8_t* p, int64_t n, int64_t readable, int64_t* taken
) noexcept nogil:
    """As many of n bytes as fit into ``room``, escaped for LOAD DATA with tab, newline and backslash as its
    terminators and escape; gives the bytes written, and in ``taken`` the bytes of p that they stand for.
    ``readable`` (n or more) bytes of p may be looked at."""
    cdef int64_t i = 0, k = 0
    cdef int64_t end
    cdef uint64_t word, mask
    cdef uint8_t c
    while i < n and k + 2 <= room:
        while i + 8 <= n and k + 8 <= room:
            memcpy(&word, p + i, 8)
            memcpy(out + k, &word, 8)
            if load_special(word):
                break
            i += 8
            k += 8
        if n - 8 < i < n and i + 8 <= readable and k + 8 <= room:
            # The last bytes, with others after them that are not looked at (and overwritten by what follows).
            memcpy(&word, p + i, 8)
            memcpy(out + k, &word, 8)
            mask = (<uint64_t> 1 << (8 * (n - i))) - 1
            if not load_special((word & mask) | (0x7878787878787878ULL & ~mask)):
                k += n - i
                i = n
                break
        end = i + 8 if i + 8 < n else n
        while i < end and k + 2 <= room:
            c = p[i]
            i += 1
            if c > 10 and c != 92:
                out[k] = <char> c
                k += 1
                continue
            if c == 0:
                out[k] = 92
                out[k + 1] = 48
                k += 2
            elif c == 9 or c == 10 or c == 92:
                out[k] = 92
                out[k + 1] = 116 if c == 9 else 110 if c == 10 else 92
                k += 2
            else:
                out[k] = <char> c
                k += 1
    taken[0] = i
    return k


cdef inline int64_t escape_sql(char* out, const uint8_t* p, int64_t n) noexcept nogil:
    """All n bytes, escaped for a string literal between single quotes; ``out`` has room for twice as many."""
    cdef int64_t i = 0, k = 0, end
    cdef uint64_t word
    cdef uint8_t c
    while i < n:
        while i + 8 <= n:
            memcpy(&word, p + i, 8)
            memcpy(out + k, &word, 8)
            if sql_special(word):
                break
            i += 8
            k += 8
        end = i + 8 if i + 8 < n else n
        while i < end:
            c = p[i]
            i += 1
            if c == 0 or c == 39 or c == 92:
                out[k] = 92
                k += 1
                c = 48 if c == 0 else c
            out[k] = <char> c
            k += 1
    return k


cdef inline int64_t put_hex(char* out, const uint8_t* p, int64_t n) noexcept nogil:
    """Two digits for each byte."""
    cdef int64_t i
    cdef const char* digits = b"0123456789abcdef"
    for i in range(n):
        out[2 * i] = digits[p[i] >> 4]
        out[2 * i + 1] = digits[p[i] & 15]
    return 2 * n
