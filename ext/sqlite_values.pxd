# SQLite's values and the texts that stand for dates, times, decimals, uuids: parsing and writing.
#
# Every parser takes (pointer, length), reads nothing beyond, and returns 1 where the text is whole and
# canonical, else 0. The pure-Python twin is rowferry.adapters.sqlite.plain.

from cpython.mem cimport PyMem_Free
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

cdef extern from *:
    """
    #define RF_DATE_INFINITY ((int64_t) INT32_MAX)
    #define RF_DATE_MINUS_INFINITY ((int64_t) INT32_MIN)
    typedef __int128 rf_int128;
    typedef unsigned __int128 rf_uint128;
    static const double RF_POW10[23] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
        1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static const int64_t RF_IPOW10[19] = {1LL, 10LL, 100LL, 1000LL, 10000LL, 100000LL, 1000000LL, 10000000LL,
        100000000LL, 1000000000LL, 10000000000LL, 100000000000LL, 1000000000000LL, 10000000000000LL,
        100000000000000LL, 1000000000000000LL, 10000000000000000LL, 100000000000000000LL, 1000000000000000000LL};
    static const int8_t RF_HEX_VALUES[256] = {
        ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
        ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16};
    """
    ctypedef long long int128 "rf_int128"
    ctypedef unsigned long long uint128 "rf_uint128"
    const double POW10 "RF_POW10"[23]
    const int64_t IPOW10 "RF_IPOW10"[19]
    # Of each byte that is a hexadecimal digit in lower case: its value, and 1; else 0.
    const int8_t HEX_VALUES "RF_HEX_VALUES"[256]
    # Of types.py: the largest and smallest integer of the storage are the infinities.
    const int64_t DATE_INFINITY_DAYS "RF_DATE_INFINITY"
    const int64_t DATE_MINUS_INFINITY_DAYS "RF_DATE_MINUS_INFINITY"
    const int64_t INT64_TOP "INT64_MAX"
    const int64_t INT64_BOTTOM "INT64_MIN"

cdef extern from "<math.h>" nogil:
    double fabs(double)
    long long llrint(double)
    bint isfinite(double)

cdef extern from "Python.h":
    char* PyOS_double_to_string(double value, char format_code, int precision, int flags, int* kind) except NULL

# 2^53: up to here every integer is a double of its own.
cdef enum:
    TEXT_BYTES_MAX = 400
    DAY_S = 86400


# ── UTF-8 ────────────────────────────────────────────────────────────────────────────────────────

cdef inline bint utf8_is_valid(const uint8_t* p, int64_t n) noexcept nogil:
    """Strict: no overlong forms, no surrogates, nothing above U+10FFFF."""
    cdef int64_t i = 0
    cdef uint64_t word
    cdef uint8_t c, d
    while i < n:
        while i + 8 <= n:
            memcpy(&word, p + i, 8)
            if word & 0x8080808080808080ULL:
                break
            i += 8
        if i >= n:
            return 1
        c = p[i]
        if c < 0x80:
            i += 1
        elif c < 0xC2:
            return 0
        elif c < 0xE0:
            if i + 2 > n or (p[i + 1] & 0xC0) != 0x80:
                return 0
            i += 2
        elif c < 0xF0:
            if i + 3 > n or (p[i + 1] & 0xC0) != 0x80 or (p[i + 2] & 0xC0) != 0x80:
                return 0
            d = p[i + 1]
            if (c == 0xE0 and d < 0xA0) or (c == 0xED and d >= 0xA0):
                return 0
            i += 3
        elif c < 0xF5:
            if i + 4 > n or (p[i + 1] & 0xC0) != 0x80 or (p[i + 2] & 0xC0) != 0x80 or (p[i + 3] & 0xC0) != 0x80:
                return 0
            d = p[i + 1]
            if (c == 0xF0 and d < 0x90) or (c == 0xF4 and d >= 0x90):
                return 0
            i += 4
        else:
            return 0
    return 1


cdef inline int64_t utf8_characters(const uint8_t* p, int64_t n) noexcept nogil:
    cdef int64_t i, count = 0
    for i in range(n):
        count += (p[i] & 0xC0) != 0x80
    return count


# ── dates and times ──────────────────────────────────────────────────────────────────────────────

cdef inline int digits_at(const uint8_t* p, int64_t n, int count, int64_t* value) noexcept nogil:
    """Exactly ``count`` digits at p (at most 18)."""
    cdef int i
    cdef int64_t total = 0
    if n < count:
        return 0
    for i in range(count):
        if p[i] < 48 or p[i] > 57:
            return 0
        total = total * 10 + (p[i] - 48)
    value[0] = total
    return 1


cdef inline int64_t days_from_civil(int64_t y, int64_t m, int64_t d) noexcept nogil:
    """Days since 1970-01-01 in the Gregorian calendar, year 0 being 1 BC."""
    cdef int64_t era, yoe, doy, doe
    if m <= 2:
        y -= 1
    era = (y if y >= 0 else y - 399) // 400
    yoe = y - era * 400
    doy = (153 * (m - 3 if m > 2 else m + 9) + 2) // 5 + d - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    return era * 146097 + doe - 719468


cdef inline void civil_from_days(int64_t days, int64_t* year, int64_t* month, int64_t* day) noexcept nogil:
    cdef int64_t z = days + 719468
    cdef int64_t era = (z if z >= 0 else z - 146096) // 146097
    cdef int64_t doe = z - era * 146097
    cdef int64_t yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    cdef int64_t doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    cdef int64_t mp = (5 * doy + 2) // 153
    day[0] = doy - (153 * mp + 2) // 5 + 1
    month[0] = mp + 3 if mp < 10 else mp - 9
    year[0] = yoe + era * 400 + (1 if month[0] <= 2 else 0)


cdef inline int days_in_month(int64_t y, int64_t m) noexcept nogil:
    if m == 2:
        return 29 if (y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)) else 28
    return 30 if (m == 4 or m == 6 or m == 9 or m == 11) else 31


cdef inline int parse_date_at(const uint8_t* p, int64_t n, int64_t* days) noexcept nogil:
    """A date at the beginning of p: YYYY-MM-DD, or ISO 8601's expanded ±YYYYY…-MM-DD outside of the years 0 to 9999.
    Returns the bytes it takes, 0 where there is none."""
    cdef int64_t y, m, d
    cdef int used, sign = 0
    if n >= 10 and 48 <= p[0] <= 57:
        used = 4
        if not digits_at(p, n, 4, &y):
            return 0
    elif n > 6 and (p[0] == 43 or p[0] == 45):
        sign = 1 if p[0] == 43 else -1
        used = 1
        while used < n and used < 9 and 48 <= p[used] <= 57:
            used += 1
        if used < 5 or used > 8 or not digits_at(p + 1, n - 1, used - 1, &y):
            return 0
        # One spelling a year: a plus only above 9999, no zero in front of five digits and more.
        if used > 5 and p[1] == 48:
            return 0
        if (sign > 0 and y <= 9999) or (sign < 0 and y == 0):
            return 0
        y *= sign
    else:
        return 0
    if n - used < 6 or p[used] != 45 or p[used + 3] != 45:
        return 0
    if not digits_at(p + used + 1, 2, 2, &m) or not digits_at(p + used + 4, 2, 2, &d):
        return 0
    if m < 1 or m > 12 or d < 1 or d > days_in_month(y, m):
        return 0
    days[0] = days_from_civil(y, m, d)
    return used + 6


cdef inline int infinity_of(const uint8_t* p, int64_t n) noexcept nogil:
    """1 for infinity, −1 for -infinity, else 0."""
    if n == 8 and memcmp(p, b"infinity", 8) == 0:
        return 1
    if n == 9 and memcmp(p, b"-infinity", 9) == 0:
        return -1
    return 0


cdef inline bint parse_date(const uint8_t* p, int64_t n, int32_t* out) noexcept nogil:
    cdef int64_t days
    cdef int infinite = infinity_of(p, n)
    if infinite:
        out[0] = <int32_t> (DATE_INFINITY_DAYS if infinite > 0 else DATE_MINUS_INFINITY_DAYS)
        return 1
    if parse_date_at(p, n, &days) != n or n == 0:
        return 0
    if days <= DATE_MINUS_INFINITY_DAYS or days >= DATE_INFINITY_DAYS:
        return 0
    out[0] = <int32_t> days
    return 1


cdef inline int parse_clock_at(const uint8_t* p, int64_t n, int digits, int64_t* value, bint* full) noexcept nogil:
    """HH:MM[:SS[.fraction]] at the beginning of p, in units of 10^-digits s. Digits of the fraction beyond those must be
    zeros. ``full`` says 24:00:00. Returns the bytes it takes, 0 where there is none."""
    cdef int64_t h, m, s = 0, fraction = 0
    cdef int used = 5, i
    if n < 5 or not digits_at(p, n, 2, &h) or p[2] != 58 or not digits_at(p + 3, n - 3, 2, &m):
        return 0
    if n >= 8 and p[5] == 58:
        if not digits_at(p + 6, n - 6, 2, &s):
            return 0
        used = 8
        if n > 9 and p[8] == 46:
            i = 0
            while 9 + i < n and 48 <= p[9 + i] <= 57:
                if i < digits:
                    fraction = fraction * 10 + (p[9 + i] - 48)
                elif p[9 + i] != 48:
                    return 0
                i += 1
                if i > 30:
                    return 0
            if i == 0:
                return 0
            used = 9 + i
            while i < digits:
                fraction *= 10
                i += 1
    if h > 24 or m > 59 or s > 59 or (h == 24 and (m or s or fraction)):
        return 0
    full[0] = h == 24
    value[0] = (h * 3600 + m * 60 + s) * IPOW10[digits] + fraction
    return used


cdef inline bint parse_time(const uint8_t* p, int64_t n, int digits, int64_t* out) noexcept nogil:
    cdef bint full
    return n > 0 and parse_clock_at(p, n, digits, out, &full) == n


cdef inline int parse_offset(const uint8_t* p, int64_t n, int64_t* seconds) noexcept nogil:
    """Z or ±HH[[:]MM], which has to be all of p."""
    cdef int64_t h, m = 0
    if n == 1 and p[0] == 90:
        seconds[0] = 0
        return 1
    if n < 3 or (p[0] != 43 and p[0] != 45) or not digits_at(p + 1, n - 1, 2, &h):
        return 0
    if n == 6 and p[3] == 58:
        if not digits_at(p + 4, 2, 2, &m):
            return 0
    elif n == 5:
        if not digits_at(p + 3, 2, 2, &m):
            return 0
    elif n != 3:
        return 0
    if h > 15 or m > 59:
        return 0
    seconds[0] = (h * 3600 + m * 60) * (1 if p[0] == 43 else -1)
    return 1


cdef inline bint parse_timestamp(const uint8_t* p, int64_t n, int digits, bint zoned, int64_t* out) noexcept nogil:
    """A date, a space or T, a time of day and, where ``zoned``, an offset; in units of 10^-digits s since 1970."""
    cdef int64_t days, clock, offset = 0
    cdef int used, more
    cdef bint full
    cdef int128 total
    cdef int infinite = infinity_of(p, n)
    if infinite:
        out[0] = INT64_TOP if infinite > 0 else INT64_BOTTOM
        return 1
    used = parse_date_at(p, n, &days)
    if used == 0 or used >= n or (p[used] != 32 and p[used] != 84):
        return 0
    used += 1
    more = parse_clock_at(p + used, n - used, digits, &clock, &full)
    if more == 0 or full:
        return 0
    used += more
    if zoned:
        if not parse_offset(p + used, n - used, &offset):
            return 0
    elif used != n:
        return 0
    total = <int128> (days * DAY_S - offset) * IPOW10[digits] + clock
    if total <= <int128> INT64_BOTTOM or total >= <int128> INT64_TOP:
        return 0
    out[0] = <int64_t> total
    return 1


cdef inline int signed_at(const uint8_t* p, int64_t n, int digits, int128* value, int* scale) noexcept nogil:
    """[-]digits[.digits], counted in 10^-digits; ``scale`` is 1 where there was a point. Returns the bytes taken or 0."""
    cdef int i = 0, fraction = 0
    cdef bint negative = 0
    cdef int128 total = 0
    scale[0] = 0
    if n and p[0] == 45:
        negative = 1
        i = 1
    if i >= n or p[i] < 48 or p[i] > 57:
        return 0
    while i < n and 48 <= p[i] <= 57:
        total = total * 10 + (p[i] - 48)
        i += 1
        if i > 20:
            return 0
    if i < n and p[i] == 46:
        scale[0] = 1
        i += 1
        while i < n and 48 <= p[i] <= 57:
            if fraction < digits:
                total = total * 10 + (p[i] - 48)
            elif p[i] != 48:
                return 0
            fraction += 1
            i += 1
            if fraction > 30:
                return 0
        if fraction == 0:
            return 0
    while fraction < digits:
        total *= 10
        fraction += 1
    value[0] = -total if negative else total
    return i


cdef inline bint parse_interval(
    const uint8_t* p, int64_t n, int digits, int128* months, int128* days, int128* units
) noexcept nogil:
    """ISO 8601 with a sign for each part: P[nY][nM][nW][nD][T[nH][nM][n.nS]], each at most once and in that order."""
    cdef int i = 1, used, has_point, rank, last = 0
    cdef int128 value, one = IPOW10[digits]
    cdef bint clock = 0
    cdef uint8_t c
    months[0] = 0
    days[0] = 0
    units[0] = 0
    if n < 3 or p[0] != 80:
        return 0
    while i < n:
        if p[i] == 84 and not clock:
            clock = 1
            i += 1
            if i >= n:
                return 0
            continue
        used = signed_at(p + i, n - i, digits, &value, &has_point)
        if used == 0 or i + used >= n:
            return 0
        c = p[i + used]
        if has_point and not (clock and c == 83):
            return 0
        if not clock:
            rank = 1 if c == 89 else 2 if c == 77 else 3 if c == 87 else 4 if c == 68 else 0
        else:
            rank = 5 if c == 72 else 6 if c == 77 else 7 if c == 83 else 0
        if rank <= last:
            return 0
        last = rank
        if rank == 7:
            units[0] += value
        elif rank == 6:
            units[0] += value * 60
        elif rank == 5:
            units[0] += value * 3600
        else:
            value = value // one
            if rank == 1:
                months[0] += value * 12
            elif rank == 2:
                months[0] += value
            elif rank == 3:
                days[0] += value * 7
            else:
                days[0] += value
        i += used + 1
    return last > 0


cdef inline bint parse_uuid(const uint8_t* p, int64_t n, uint8_t* out) noexcept nogil:
    """8-4-4-4-12 hexadecimal digits in lower case: the one canonical spelling (RFC 9562)."""
    cdef int i = 0, k, high, low, wrong = 0
    if n != 36 or p[8] != 45 or p[13] != 45 or p[18] != 45 or p[23] != 45:
        return 0
    # Digits and letters follow each other at random: a branch on them would be guessed wrongly half the time.
    for k in range(16):
        i += k == 4 or k == 6 or k == 8 or k == 10
        high = HEX_VALUES[p[i]] - 1
        low = HEX_VALUES[p[i + 1]] - 1
        wrong |= high | low
        out[k] = <uint8_t> (high * 16 + low)
        i += 2
    return wrong >= 0


# ── decimals: four limbs of 64 bits, least significant first ─────────────────────────────────────

cdef inline void limbs_mul_add(uint64_t* limbs, uint64_t factor, uint64_t more) noexcept nogil:
    cdef int i
    cdef uint128 carry = more
    for i in range(4):
        carry += <uint128> limbs[i] * factor
        limbs[i] = <uint64_t> carry
        carry >>= 64


cdef inline void limbs_negate(uint64_t* limbs) noexcept nogil:
    cdef int i
    cdef uint128 carry = 1
    for i in range(4):
        carry += <uint64_t> (~limbs[i])
        limbs[i] = <uint64_t> carry
        carry >>= 64


cdef inline uint64_t limbs_div(uint64_t* limbs, uint64_t divisor) noexcept nogil:
    """Divides in place; returns the remainder."""
    cdef int i
    cdef uint128 rest = 0
    for i in range(3, -1, -1):
        rest = (rest << 64) | limbs[i]
        limbs[i] = <uint64_t> (rest // divisor)
        rest = rest % divisor
    return <uint64_t> rest


cdef inline bint parse_decimal(const uint8_t* p, int64_t n, int precision, int scale, uint64_t* limbs) noexcept nogil:
    """-?digits[.digits] as an integer of 10^-scale with at most ``precision`` digits, in two's complement."""
    cdef int64_t i = 0
    cdef int fraction = 0, significant = 0
    cdef bint negative = 0, point = 0, any_digit = 0
    memset(limbs, 0, 32)
    if n and p[0] == 45:
        negative = 1
        i = 1
    if i >= n or n > TEXT_BYTES_MAX or p[i] == 46 or p[n - 1] == 46:
        return 0
    while i < n:
        if p[i] == 46:
            if point:
                return 0
            point = 1
        elif p[i] < 48 or p[i] > 57:
            return 0
        else:
            any_digit = 1
            if point and fraction >= scale:
                if p[i] != 48:
                    return 0
            else:
                if significant or p[i] != 48:
                    significant += 1
                if significant > precision:
                    return 0
                limbs_mul_add(limbs, 10, p[i] - 48)
                fraction += point
        i += 1
    if not any_digit:
        return 0
    while fraction < scale:
        if significant:
            significant += 1
            if significant > precision:
                return 0
        limbs_mul_add(limbs, 10, 0)
        fraction += 1
    if negative:
        limbs_negate(limbs)
    return 1


cdef inline int double_text(double value, char* out) noexcept nogil:
    """The shortest text that gives the same double (as Python's repr) in out (TEXT_BYTES_MAX bytes); its length."""
    cdef char* made
    cdef size_t length
    with gil:
        try:
            made = PyOS_double_to_string(value, b"r", 0, 2, NULL)  # 2: Py_DTSF_ADD_DOT_0
        except MemoryError:
            return 0
        length = strlen(made)
        if length >= TEXT_BYTES_MAX:
            length = 0
        memcpy(out, made, length)
        PyMem_Free(made)
    return <int> length


cdef inline int plain_digits(double value, char* out) noexcept nogil:
    """The shortest text of a finite double without an exponent; its length, 0 where it is longer than TEXT_BYTES_MAX."""
    cdef char text[TEXT_BYTES_MAX]
    cdef char digits[32]
    cdef int n = double_text(value, text), i = 0, count = 0, point = -1, exponent = 0, sign = 1, k = 0, place
    if n == 0:
        return 0
    if text[0] == 45:
        out[0] = 45
        k = 1
        i = 1
    while i < n and text[i] != 101:
        if text[i] == 46:
            point = count
        elif count < 32:
            digits[count] = text[i]
            count += 1
        i += 1
    if point < 0:
        point = count
    if i < n:
        i += 1
        if text[i] == 45:
            sign = -1
        if text[i] == 45 or text[i] == 43:
            i += 1
        while i < n:
            exponent = exponent * 10 + (text[i] - 48)
            i += 1
    place = point + sign * exponent
    if place < -360 or place > 360:
        return 0
    if place <= 0:
        out[k] = 48
        k += 1
    for i in range(place if place > 0 else 0):
        out[k] = digits[i] if i < count else 48
        k += 1
    if count > place:
        out[k] = 46
        k += 1
        for i in range(place, 0):
            out[k] = 48
            k += 1
        for i in range(place if place > 0 else 0, count):
            out[k] = digits[i]
            k += 1
    return k


cdef inline bint decimal_of_double(double value, int precision, int scale, uint64_t* limbs) noexcept nogil:
    """The decimal whose digits are the shortest form of ``value``, where that has at most ``scale`` decimals.

    Up to 15 digits no two decimals share a double, so that n / 10^scale == value proves that n's digits
    are the shortest ones (both are exact doubles, and the division is rounded correctly); beyond, the
    shortest form is written out and parsed.
    """
    cdef double scaled
    cdef long long n
    cdef int64_t top
    cdef char text[TEXT_BYTES_MAX * 2]
    cdef int length
    if not isfinite(value):
        return 0
    if 0 <= scale <= 22:
        scaled = value * POW10[scale]
        if fabs(scaled) < 1e15:
            n = llrint(scaled)
            if <double> n / POW10[scale] != value:
                return 0
            if precision < 18:
                top = IPOW10[precision]
                if n >= top or n <= -top:
                    return 0
            limbs[0] = <uint64_t> n
            limbs[1] = limbs[2] = limbs[3] = 0xFFFFFFFFFFFFFFFFULL if n < 0 else 0
            return 1
    length = plain_digits(value, text)
    return length > 0 and parse_decimal(<const uint8_t*> text, length, precision, scale, limbs)


cdef inline bint decimal_of_int(int64_t value, int precision, int scale, uint64_t* limbs) noexcept nogil:
    cdef uint64_t magnitude = <uint64_t> value if value >= 0 else 0 - <uint64_t> value
    cdef uint64_t rest = magnitude
    cdef int digits = 0, i
    while rest:
        rest //= 10
        digits += 1
    if digits and digits + scale > precision:
        return 0
    limbs[0] = magnitude
    limbs[1] = limbs[2] = limbs[3] = 0
    if magnitude:
        for i in range(scale):
            limbs_mul_add(limbs, 10, 0)
    if value < 0:
        limbs_negate(limbs)
    return 1


cdef inline bint looks_numeric(const uint8_t* p, int64_t n) noexcept nogil:
    """Whether NUMERIC affinity could turn the text into a number (it takes blanks around and exponents): errs to yes."""
    cdef int64_t i
    cdef bint digit = 0
    for i in range(n):
        if 48 <= p[i] <= 57:
            digit = 1
        elif not (p[i] == 43 or p[i] == 45 or p[i] == 46 or p[i] == 101 or p[i] == 69 or p[i] == 32 or 9 <= p[i] <= 13
                  or p[i] == 0):
            return 0
    return digit


# ── writing ──────────────────────────────────────────────────────────────────────────────────────

cdef inline int put_digits(char* out, uint64_t value, int width) noexcept nogil:
    """At least ``width`` digits; returns how many."""
    cdef char back[24]
    cdef int count = 0, i
    while value or count < width:
        back[count] = <char> (48 + value % 10)
        value //= 10
        count += 1
    for i in range(count):
        out[i] = back[count - 1 - i]
    return count


cdef inline int put_date(char* out, int64_t days) noexcept nogil:
    cdef int64_t y, m, d
    cdef int k = 0
    civil_from_days(days, &y, &m, &d)
    if y > 9999 or y < 0:
        out[0] = 43 if y > 0 else 45
        k = 1
    k += put_digits(out + k, <uint64_t> (y if y >= 0 else -y), 4)
    out[k] = 45
    k += 1
    k += put_digits(out + k, <uint64_t> m, 2)
    out[k] = 45
    k += 1
    return k + put_digits(out + k, <uint64_t> d, 2)


cdef inline int put_clock(char* out, int64_t value, int digits) noexcept nogil:
    """HH:MM:SS and, where it is not zero, all ``digits`` of the fraction."""
    cdef int64_t seconds = value // IPOW10[digits]
    cdef int64_t fraction = value - seconds * IPOW10[digits]
    cdef int k = put_digits(out, <uint64_t> (seconds // 3600), 2)
    out[k] = 58
    k += 1
    k += put_digits(out + k, <uint64_t> (seconds // 60 % 60), 2)
    out[k] = 58
    k += 1
    k += put_digits(out + k, <uint64_t> (seconds % 60), 2)
    if fraction:
        out[k] = 46
        k += 1
        k += put_digits(out + k, <uint64_t> fraction, digits)
    return k


cdef inline int put_infinity(char* out, bint negative) noexcept nogil:
    if negative:
        memcpy(out, b"-infinity", 9)
        return 9
    memcpy(out, b"infinity", 8)
    return 8


cdef inline int put_date_or_infinity(char* out, int32_t days) noexcept nogil:
    if days == DATE_INFINITY_DAYS or days == DATE_MINUS_INFINITY_DAYS:
        return put_infinity(out, days < 0)
    return put_date(out, days)


cdef inline int put_timestamp(char* out, int64_t value, int digits, bint zoned) noexcept nogil:
    cdef int64_t day, days, rest
    cdef int k
    if value == INT64_TOP or value == INT64_BOTTOM:
        return put_infinity(out, value < 0)
    day = DAY_S * IPOW10[digits]
    days = value // day
    rest = value - days * day
    if rest < 0:
        rest += day
        days -= 1
    k = put_date(out, days)
    out[k] = 32
    k += 1
    k += put_clock(out + k, rest, digits)
    if zoned:
        memcpy(out + k, b"+00:00", 6)
        k += 6
    return k


cdef inline int put_seconds(char* out, int64_t value, int digits) noexcept nogil:
    """[-]s[.fraction]S"""
    cdef uint64_t magnitude = <uint64_t> value if value >= 0 else 0 - <uint64_t> value
    cdef uint64_t one = <uint64_t> IPOW10[digits]
    cdef int k = 0
    if value < 0:
        out[0] = 45
        k = 1
    k += put_digits(out + k, magnitude // one, 1)
    if magnitude % one:
        out[k] = 46
        k += 1
        k += put_digits(out + k, magnitude % one, digits)
    out[k] = 83
    return k + 1


cdef inline int put_part(char* out, int64_t value, char letter) noexcept nogil:
    cdef int k = 0
    if value < 0:
        out[0] = 45
        k = 1
        value = -value
    k += put_digits(out + k, <uint64_t> value, 1)
    out[k] = letter
    return k + 1


cdef inline int put_interval(char* out, int32_t months, int32_t days, int64_t ns) noexcept nogil:
    """P14M3DT4.500000000S: months, days and seconds, each with its own sign; zeros are left out (PT0S)."""
    cdef int k = 1
    out[0] = 80
    if months:
        k += put_part(out + k, months, 77)
    if days:
        k += put_part(out + k, days, 68)
    if ns or k == 1:
        out[k] = 84
        k += 1
        k += put_seconds(out + k, ns, 9)
    return k


cdef inline int put_uuid(char* out, const uint8_t* p) noexcept nogil:
    cdef int i, k = 0, half, digit
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[k] = 45
            k += 1
        for half in range(2):
            digit = p[i] & 15 if half else p[i] >> 4
            out[k] = <char> (48 + digit if digit < 10 else 87 + digit)
            k += 1
    return k


cdef inline int put_decimal(char* out, const uint8_t* p, int width, int scale) noexcept nogil:
    """A decimal of ``width`` bytes (16 or 32) with its scale; at most 160 characters for |scale| up to 76."""
    cdef uint64_t limbs[4]
    cdef char back[96]
    cdef int count = 0, k = 0, i
    cdef bint negative = (p[width - 1] & 0x80) != 0
    memset(limbs, 0xFF if negative else 0, 32)
    memcpy(limbs, p, width)
    if negative:
        limbs_negate(limbs)
        out[0] = 45
        k = 1
    while limbs[0] or limbs[1] or limbs[2] or limbs[3]:
        back[count] = <char> (48 + limbs_div(limbs, 10))
        count += 1
    while count <= scale:
        back[count] = 48
        count += 1
    if count == 0:
        back[0] = 48
        count = 1
    for i in range(count - 1, -1, -1):
        out[k] = back[i]
        k += 1
        if i == scale and scale > 0:
            out[k] = 46
            k += 1
    if scale < 0 and not (count == 1 and back[0] == 48):
        for i in range(-scale):
            out[k] = 48
            k += 1
    return k
