# Rows of MySQL's text protocol to Arrow columns: the walk over packets, and one loop per kind of column.
#
# A packet is three bytes of length (least first), a sequence number, and the payload; a row's payload is,
# for each column, 0xFB (NULL) or a length-encoded string. A payload of 2^24 − 1 bytes is continued in the
# next packet. What begins with 0xFE or 0xFF is no row but the end of the rows, or an error: no row's first
# field of 16 MB and more (0xFE) fits one packet.
#
# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

from arrow_build cimport (
    BLOCK_ROWS, COLUMN_BYTES_MAX, SLACK, Column, begin_offsets, bytes_of, copy_bytes, first_bad_utf8, grow, mark_nulls,
    room_for_bits, room_for_fixed, row_of_element,
)
from double_parse cimport parse_double
from sqlite_values cimport days_in_month, limbs_mul_add, limbs_negate, parse_decimal, parse_uuid


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint32_t rf_packet_head(const uint8_t* p) { uint32_t v; memcpy(&v, p, 4); return v; }
    static inline uint64_t rf_length_bytes(const uint8_t* p, int n) { uint64_t v = 0; memcpy(&v, p, n); return v; }
    static const uint64_t RF_WHOLE_TENS[20] = {
      1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
      10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
      1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
      10000000000000000000ULL };

    /* The number in a word of eight ASCII digits, the first in its lowest byte; 0 where one is none. */
    static inline int rf_eight_digits(uint64_t x, uint64_t* value) {
      if (((x & 0xF0F0F0F0F0F0F0F0ULL) | (((x + 0x0606060606060606ULL) & 0xF0F0F0F0F0F0F0F0ULL) >> 4))
          != 0x3333333333333333ULL) return 0;
      x = (x & 0x0F0F0F0F0F0F0F0FULL) * 2561 >> 8;
      x = (x & 0x00FF00FF00FF00FFULL) * 6553601 >> 16;
      *value = (x & 0x0000FFFF0000FFFFULL) * 42949672960001ULL >> 32;
      return 1;
    }
    /* One to eight digits at p, where eight bytes can be read. */
    static inline int rf_short_digits(const uint8_t* p, int64_t n, uint64_t* value) {
      uint64_t x;
      memcpy(&x, p, 8);
      if (n < 8) x = x << (64 - 8 * n) | 0x3030303030303030ULL >> (8 * n);
      return rf_eight_digits(x, value);
    }
    /* All n bytes at p are digits, and the number fits a word; else 0. Reads up to eight bytes beyond. */
    static inline int rf_digits(const uint8_t* p, int64_t n, uint64_t* value) {
      uint64_t low, middle, high;
      if (n <= 8) return n > 0 && rf_short_digits(p, n, value);
      while (n > 20) {  /* ZEROFILL: up to 255 digits */
        if (*p != '0') return 0;
        p++;
        n--;
      }
      if (!rf_short_digits(p + n - 8, 8, &low)) return 0;
      if (n <= 16) {
        if (!rf_short_digits(p, n - 8, &high)) return 0;
        *value = high * 100000000ULL + low;
        return 1;
      }
      if (!rf_short_digits(p + n - 16, 8, &middle) || !rf_short_digits(p, n - 16, &high)) return 0;
      return !__builtin_mul_overflow(high, 10000000000000000ULL, &high)
          && !__builtin_add_overflow(high, middle * 100000000ULL + low, value);
    }
    /* YYYY?MM?DD as eight digits, whatever stands between them. */
    static inline int rf_date_digits(const uint8_t* p, uint64_t* value) {
      uint32_t year;
      uint16_t month, day;
      memcpy(&year, p, 4);
      memcpy(&month, p + 5, 2);
      memcpy(&day, p + 8, 2);
      return rf_eight_digits((uint64_t) day << 48 | (uint64_t) month << 32 | year, value);
    }
    /* HH?MM?SS in the same way, as hours * 10000 + minutes * 100 + seconds. */
    static inline int rf_clock_digits(const uint8_t* p, uint64_t* value) {
      uint16_t h, m, s;
      memcpy(&h, p, 2);
      memcpy(&m, p + 3, 2);
      memcpy(&s, p + 6, 2);
      return rf_eight_digits((uint64_t) s << 48 | (uint64_t) m << 32 | (uint64_t) h << 16 | 0x3030, value);
    }
    """
    uint32_t packet_head "rf_packet_head"(const uint8_t* p) noexcept nogil
    uint64_t length_bytes "rf_length_bytes"(const uint8_t* p, int n) noexcept nogil
    const uint64_t[20] WHOLE_TENS "RF_WHOLE_TENS"
    bint short_digits "rf_short_digits"(const uint8_t* p, int64_t n, uint64_t* value) noexcept nogil
    bint digits "rf_digits"(const uint8_t* p, int64_t n, uint64_t* value) noexcept nogil
    bint date_digits "rf_date_digits"(const uint8_t* p, uint64_t* value) noexcept nogil
    bint clock_digits "rf_clock_digits"(const uint8_t* p, uint64_t* value) noexcept nogil
    const int64_t DAY_US "INT64_C(86400000000)"
    # TIME's own limit, 838:59:59.999999, in µs.
    const int64_t TIME_US_MAX "INT64_C(3020399999999)"


cdef enum:
    PACKET_FULL = 0xFFFFFF


# Kinds of columns. The numbers are of this module alone.
cdef enum Kind:
    K_BOOL, K_INT8, K_INT16, K_INT32, K_INT64, K_UINT8, K_UINT16, K_UINT32, K_UINT64, K_FLOAT32, K_FLOAT64
    K_DECIMAL, K_NUMERIC, K_TEXT, K_CHAR, K_BINARY, K_FIXED, K_DATE, K_TIMESTAMP, K_DURATION, K_UUID, K_BITS, K_SET


# What can be wrong with one value (REASONS in mysql_rows.pyx says it in words).
cdef enum Code:
    OK, E_MEMORY, E_SIZE, E_INTEGER, E_RANGE, E_BOOL, E_FLOAT, E_FLOAT32, E_DECIMAL, E_NUMERIC, E_UTF8
    E_LENGTH, E_DATE, E_ZERO_DATE, E_CALENDAR, E_TIMESTAMP, E_DURATION, E_UUID, E_BITS


cdef enum Walk:
    WALK_FULL          # as many rows or bytes as were asked for
    WALK_MORE          # the next packet is not complete
    WALK_LARGE         # the next row is in more than one packet
    WALK_END           # the end of the rows
    WALK_ERROR         # an ERR packet
    WALK_SEQUENCE      # a wrong sequence number
    WALK_FIELDS        # a row whose fields do not fill its packet, or do not fit
    WALK_EMPTY         # an empty packet
    WALK_TOO_LONG      # a row of 2 GiB and more


cdef inline int walk_row(
    const uint8_t* base, int64_t position, int64_t end, int columns, int64_t slot, uint32_t* at, int32_t* sizes
) noexcept nogil:
    """Notes where the fields of one row lie. False where they do not fill it exactly."""
    cdef int c, n
    cdef uint64_t size
    for c in range(columns):
        if position >= end:
            return False
        size = base[position]
        position += 1
        if size >= 0xFB:
            if size == 0xFB:
                at[slot] = <uint32_t> position
                sizes[slot] = -1
                slot += BLOCK_ROWS
                continue
            n = 2 if size == 0xFC else 3 if size == 0xFD else 8
            if size == 0xFF or end - position < n:
                return False
            size = length_bytes(base + position, n)
            position += n
        if size > <uint64_t> (end - position):
            return False
        at[slot] = <uint32_t> position
        sizes[slot] = <int32_t> size
        slot += BLOCK_ROWS
        position += <int64_t> size
    return position == end


cdef inline int walk(
    const uint8_t* base, int64_t end, int columns, int rows_max, int64_t bytes_max, bint first,
    uint32_t* at, int32_t* sizes, int* rows, int64_t* used, uint8_t* sequence
) noexcept nogil:
    """Notes where the fields of complete rows lie (column-major, BLOCK_ROWS apart).

    Stops before a row that ends beyond bytes_max, unless it is the first of its batch.
    """
    cdef int64_t position = 0
    cdef uint32_t head, size
    cdef int r = 0
    used[0] = 0
    rows[0] = 0
    while r < rows_max:
        if end - position < 5:
            if end - position == 4 and packet_head(base + position) & 0xFFFFFF == 0:
                return WALK_EMPTY
            return WALK_MORE
        head = packet_head(base + position)
        size = head & 0xFFFFFF
        if (head >> 24) != sequence[0] and not (head >> 24 == 0 and base[position + 4] == 0xFF):
            return WALK_SEQUENCE
        if size == PACKET_FULL:
            return WALK_LARGE
        if size == 0:
            return WALK_EMPTY
        if end - position - 4 < size:
            return WALK_MORE
        if base[position + 4] >= 0xFE:
            return WALK_END if base[position + 4] == 0xFE else WALK_ERROR
        if position + 4 + size > bytes_max and not (first and r == 0):
            break
        if not walk_row(base, position + 4, position + 4 + size, columns, r, at, sizes):
            return WALK_FIELDS
        position += 4 + size
        sequence[0] = <uint8_t> (sequence[0] + 1)
        r += 1
        rows[0] = r
        used[0] = position
    return WALK_FULL


# ── one value ────────────────────────────────────────────────────────────────────────────────────

cdef inline int decode_integer(int kind, const uint8_t* value, int32_t size, uint8_t* out) noexcept nogil:
    cdef bint negative = size > 0 and value[0] == 45
    cdef uint64_t magnitude, most
    cdef int64_t number
    if not digits(value + negative, size - negative, &magnitude):
        return E_INTEGER
    if kind >= K_UINT8:
        most = 0xFF if kind == K_UINT8 else 0xFFFF if kind == K_UINT16 else 0xFFFFFFFF if kind == K_UINT32 \
            else 0xFFFFFFFFFFFFFFFF
        if magnitude > most or (negative and magnitude):
            return E_RANGE
        number = <int64_t> magnitude
    else:
        most = 0x7F if kind == K_INT8 else 0x7FFF if kind == K_INT16 else 0x7FFFFFFF if kind == K_INT32 \
            else 0x7FFFFFFFFFFFFFFF
        if magnitude > most + negative:
            return E_RANGE
        number = <int64_t> (0 - magnitude if negative else magnitude)
    if kind == K_INT64 or kind == K_UINT64:
        (<int64_t*> out)[0] = number
    elif kind == K_INT32 or kind == K_UINT32:
        (<int32_t*> out)[0] = <int32_t> number
    elif kind == K_INT16 or kind == K_UINT16:
        (<int16_t*> out)[0] = <int16_t> number
    else:
        (<int8_t*> out)[0] = <int8_t> number
    return OK


cdef inline int decode_float(int kind, const uint8_t* value, int32_t size, uint8_t* out) noexcept nogil:
    cdef double number
    if not parse_double(value, size, &number):
        return E_FLOAT
    if kind == K_FLOAT64:
        (<double*> out)[0] = number
        return OK
    # CAST(… AS DOUBLE) of a FLOAT is one of the floats; FLOAT's own text, of six digits, hardly ever is.
    (<float*> out)[0] = <float> number
    return OK if <double> (<float*> out)[0] == number else E_FLOAT32


cdef inline bint add_digits(uint64_t* limbs, const uint8_t* p, int64_t n) noexcept nogil:
    """limbs = limbs × 10^n + the number of n digits."""
    cdef uint64_t part
    cdef int64_t take
    while n > 0:
        take = n if n <= 16 else (n & 15 if n & 15 else 16)
        if not digits(p, take, &part):
            return False
        limbs_mul_add(limbs, WHOLE_TENS[take], part)
        p += take
        n -= take
    return True


cdef inline bint plain_decimal(
    const Column* column, int width, const uint8_t* value, int32_t size, uint8_t* out
) noexcept nogil:
    """A decimal as the server writes a column: all of its scale's digits are there. False for any other text."""
    cdef uint64_t[4] limbs
    cdef uint64_t whole, part = 0
    cdef int scale = column.scale
    cdef bint negative = size > 0 and value[0] == 45
    cdef const uint8_t* p = value + negative
    cdef int64_t before = size - negative - scale - (scale > 0)  # digits before the point
    cdef int64_t narrow
    if before < 1 or (scale and p[before] != 46):
        return False
    while before > 1 and p[0] == 48:
        p += 1
        before -= 1
    if before + scale > column.length and not (before == 1 and p[0] == 48):
        return False
    if before + scale <= 18:
        if not digits(p, before, &whole) or (scale and not digits(p + before + 1, scale, &part)):
            return False
        narrow = <int64_t> (whole * WHOLE_TENS[scale] + part)
        if negative:
            narrow = -narrow
        (<int64_t*> out)[0] = narrow
        (<int64_t*> out)[1] = narrow >> 63
        if width == 32:
            (<int64_t*> out)[2] = narrow >> 63
            (<int64_t*> out)[3] = narrow >> 63
        return True
    memset(limbs, 0, 32)
    if not add_digits(limbs, p, before) or not add_digits(limbs, p + before + 1, scale):
        return False
    if negative:
        limbs_negate(limbs)
    memcpy(out, limbs, width)
    return True


cdef inline int decode_decimal(
    const Column* column, int width, const uint8_t* value, int32_t size, uint8_t* out
) noexcept nogil:
    cdef uint64_t[4] limbs
    if plain_decimal(column, width, value, size, out):
        return OK
    # An expression's: fewer digits after the point, or more that are zeros.
    if not parse_decimal(value, size, <int> column.length, column.scale, limbs):
        return E_DECIMAL
    memcpy(out, limbs, width)
    return OK


cdef inline int days_of(const uint8_t* value, int64_t* days) noexcept nogil:
    """YYYY-MM-DD as days since 1970-01-01, of the Gregorian calendar in the years 0 to 9999."""
    cdef uint64_t number
    cdef int64_t year, month, day
    if value[4] != 45 or value[7] != 45 or not date_digits(value, &number):
        return E_DATE
    year = <int64_t> (number // 10000)
    month = <int64_t> (number // 100 % 100)
    day = <int64_t> (number % 100)
    if month == 0 or day == 0:
        return E_ZERO_DATE if month <= 12 and day <= 31 else E_DATE
    if month > 12 or day > 31:
        return E_DATE
    if day > 28 and day > days_in_month(year, month):
        return E_CALENDAR
    # Years begin in March; 400 of them are 146,097 days, and are added so that none is negative.
    year += 400
    if month <= 2:
        year -= 1
        month += 12
    days[0] = year * 365 + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1 \
        - 719468 - 146097
    return OK


cdef inline int clock_us(const uint8_t* value, int32_t size, int64_t hours, int64_t* us) noexcept nogil:
    """HH:MM:SS[.f…] with one to six digits of a fraction, after ``hours`` hundreds of hours, in µs."""
    cdef uint64_t clock, fraction = 0
    cdef int64_t minutes, seconds
    if size < 8 or value[2] != 58 or value[5] != 58 or not clock_digits(value, &clock):
        return False
    minutes = <int64_t> (clock // 100 % 100)
    seconds = <int64_t> (clock % 100)
    if minutes > 59 or seconds > 59:
        return False
    if size > 8:
        if size < 10 or size > 15 or value[8] != 46 or not short_digits(value + 9, size - 9, &fraction):
            return False
        fraction *= WHOLE_TENS[15 - size]
    us[0] = ((hours * 100 + <int64_t> (clock // 10000)) * 3600 + minutes * 60 + seconds) * 1000000 + <int64_t> fraction
    return True


cdef inline int decode_date(const uint8_t* value, int32_t size, uint8_t* out) noexcept nogil:
    cdef int64_t days
    cdef int code
    if size != 10:
        return E_DATE
    code = days_of(value, &days)
    if code == OK:
        (<int32_t*> out)[0] = <int32_t> days
    return code


cdef inline int decode_timestamp(const uint8_t* value, int32_t size, uint8_t* out) noexcept nogil:
    cdef int64_t days, us
    cdef int code
    if size < 19 or value[10] != 32 or not clock_us(value + 11, size - 11, 0, &us) or us >= DAY_US:
        return E_TIMESTAMP
    code = days_of(value, &days)
    if code == OK:
        (<int64_t*> out)[0] = days * DAY_US + us
    return code if code != E_DATE else E_TIMESTAMP


cdef inline int decode_duration(const uint8_t* value, int32_t size, uint8_t* out) noexcept nogil:
    """[-]HH:MM:SS[.f…] or [-]HHH:MM:SS[.f…], up to 838:59:59.999999."""
    cdef bint negative = size > 0 and value[0] == 45
    cdef int64_t us, hundreds = 0
    value += negative
    size -= negative
    if size >= 9 and value[3] == 58:
        hundreds = <int64_t> value[0] - 48
        if hundreds < 0 or hundreds > 9:
            return E_DURATION
        value += 1
        size -= 1
    if not clock_us(value, size, hundreds, &us) or us > TIME_US_MAX:
        return E_DURATION
    (<int64_t*> out)[0] = -us if negative else us
    return OK


# ── one column ───────────────────────────────────────────────────────────────────────────────────

cdef inline int decode_fixed(
    Column* column, int kind, int width, const uint8_t* base, const uint32_t* at, int32_t* sizes, int64_t n
) noexcept nogil:
    """Every kind whose values have one width in Arrow; the value of a null is zero."""
    cdef int code = OK
    cdef int64_t i
    cdef int32_t size
    cdef uint8_t* out
    cdef const uint8_t* value
    out = room_for_fixed(column, n, width)
    if out == NULL:
        return E_MEMORY
    for i in range(n):
        value = base + at[i]
        size = sizes[i]
        if size < 0:
            memset(out, 0, width)
        elif kind <= K_UINT64:
            code = decode_integer(kind, value, size, out)
        elif kind <= K_FLOAT64:
            code = decode_float(kind, value, size, out)
        elif kind == K_DECIMAL:
            code = decode_decimal(column, width, value, size, out)
        elif kind == K_DATE:
            code = decode_date(value, size, out)
        elif kind == K_TIMESTAMP:
            code = decode_timestamp(value, size, out)
        elif kind == K_DURATION:
            code = decode_duration(value, size, out)
        elif kind == K_UUID:
            code = OK if parse_uuid(value, size, out) else E_UUID
        elif size == width:
            memcpy(out, value, width)
        else:
            code = E_LENGTH
        if code != OK:
            if not (column.null_unfit and (code == E_ZERO_DATE or code == E_CALENDAR)):
                column.bad = i
                return code
            code = OK
            sizes[i] = -1
            column.settled += 1
            memset(out, 0, width)
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
        if sizes[i] >= 0:
            value = <uint8_t> (base[at[i]] - 48)
            if sizes[i] != 1 or value > 1:
                column.bad = i
                return E_BOOL
            row = column.rows + i
            column.data[row >> 3] |= <uint8_t> (value << (row & 7))
    return OK


cdef inline bint is_numeric(const uint8_t* p, int64_t n) noexcept nogil:
    """-?digits[.digits]"""
    cdef int64_t i = 1 if n > 0 and p[0] == 45 else 0
    cdef int64_t begin = i
    while i < n and 48 <= p[i] <= 57:
        i += 1
    if i == begin:
        return False
    if i < n and p[i] == 46:
        i += 1
        begin = i
        while i < n and 48 <= p[i] <= 57:
            i += 1
        if i == begin:
            return False
    return i == n


cdef inline int decode_bytes(
    Column* column, int kind, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """Texts and bytes: offsets and data."""
    cdef int64_t i, total = bytes_of(sizes, n), used = column.data_used, first = column.data_used
    cdef int32_t size
    cdef uint8_t* out
    cdef int32_t* ends = column.offsets + column.rows + 1
    if used + total > COLUMN_BYTES_MAX:
        return E_SIZE
    if grow(<void**> &column.data, &column.data_size, used + total + SLACK):
        return E_MEMORY
    out = column.data
    for i in range(n):
        size = sizes[i]
        if size > 0:
            if kind == K_CHAR:
                while size > 0 and base[at[i] + size - 1] == 32:
                    size -= 1
            copy_bytes(out + used, base + at[i], size)
            used += size
        ends[i] = <int32_t> used
    column.data_used = used
    if kind == K_NUMERIC:
        for i in range(n):
            if sizes[i] >= 0 and not is_numeric(base + at[i], sizes[i]):
                column.bad = i
                return E_NUMERIC
    elif kind != K_BINARY:
        i = first_bad_utf8(out, first, used, ends, n)
        if i >= 0:
            column.bad = i
            return E_UTF8
    return OK


cdef inline int decode_bits(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """BIT(length): its bits in whole bytes, the highest first, after zeros."""
    cdef int64_t i, k, used = column.data_used, bits = column.length, spare = (8 - bits % 8) % 8
    cdef const uint8_t* value
    cdef uint8_t* out
    if used + n * bits > COLUMN_BYTES_MAX:
        return E_SIZE
    if grow(<void**> &column.data, &column.data_size, used + n * bits + SLACK):
        return E_MEMORY
    for i in range(n):
        if sizes[i] >= 0:
            value = base + at[i]
            if sizes[i] != (bits + 7) // 8 or value[0] >> (8 - spare):
                column.bad = i
                return E_BITS
            out = column.data + used
            for k in range(bits):
                out[k] = 48 + ((value[(k + spare) >> 3] >> (7 - ((k + spare) & 7))) & 1)
            used += bits
        column.offsets[column.rows + i + 1] = <int32_t> used
    column.data_used = used
    return OK


cdef inline int decode_sets(
    Column* column, const uint8_t* base, const uint32_t* at, const int32_t* sizes, int64_t n
) noexcept nogil:
    """SET: its members with commas between them, of which no member can have one."""
    cdef int64_t i, k, begin, end, members, count = 0, before = column.child.rows
    cdef int code
    for i in range(n):
        if sizes[i] > 0:
            begin = at[i]
            end = begin + sizes[i]
            members = 1
            for k in range(begin, end):
                members += base[k] == 44
            if grow(<void**> &column.at, &column.at_size, (count + members) * 4) \
                    or grow(<void**> &column.sizes, &column.sizes_size, (count + members) * 4):
                return E_MEMORY
            for k in range(begin, end + 1):
                if k == end or base[k] == 44:
                    column.at[count] = <uint32_t> begin
                    column.sizes[count] = <int32_t> (k - begin)
                    count += 1
                    begin = k + 1
            if before + count > COLUMN_BYTES_MAX:
                column.bad = i
                return E_SIZE
        column.offsets[column.rows + i + 1] = <int32_t> (before + count)
    code = decode_column(column.child, base, column.at, column.sizes, count)
    if code != OK:  # the row whose element it is
        column.bad = row_of_element(column, before, n)
    return code


cdef inline int decode_column(
    Column* column, const uint8_t* base, const uint32_t* at, int32_t* sizes, int64_t n
) noexcept nogil:
    """Appends n fields to a column: OK, or what is wrong with field ``column.bad``."""
    cdef int kind = column.kind, code
    column.bad = 0
    if column.width == 0:
        if begin_offsets(column, n):
            return E_MEMORY
    if kind == K_SET:
        code = decode_sets(column, base, at, sizes, n)
    elif kind == K_BITS:
        code = decode_bits(column, base, at, sizes, n)
    elif kind == K_BOOL:
        code = decode_bools(column, base, at, sizes, n)
    # A call with constants becomes a loop of its own.
    elif kind == K_TEXT:
        code = decode_bytes(column, K_TEXT, base, at, sizes, n)
    elif column.width == 0:
        code = decode_bytes(column, kind, base, at, sizes, n)
    elif kind == K_INT64:
        code = decode_fixed(column, K_INT64, 8, base, at, sizes, n)
    elif kind == K_INT32:
        code = decode_fixed(column, K_INT32, 4, base, at, sizes, n)
    elif kind == K_FLOAT64:
        code = decode_fixed(column, K_FLOAT64, 8, base, at, sizes, n)
    elif kind == K_DECIMAL and column.width == 16:
        code = decode_fixed(column, K_DECIMAL, 16, base, at, sizes, n)
    elif kind == K_DATE:
        code = decode_fixed(column, K_DATE, 4, base, at, sizes, n)
    elif kind == K_TIMESTAMP:
        code = decode_fixed(column, K_TIMESTAMP, 8, base, at, sizes, n)
    else:
        code = decode_fixed(column, kind, column.width, base, at, sizes, n)
    # What was settled is a null by now.
    if code == OK and mark_nulls(column, sizes, n):
        code = E_MEMORY
    if code == OK:
        column.rows += n
    return code
