# What the reading and the writing half of pg_copy share: byte order, limits of PostgreSQL's own
# types, and the codes of everything that can be wrong with a value.
#
# Format: https://www.postgresql.org/docs/15/sql-copy.html (binary format) and the *_send / *_recv
# functions of the server (src/backend/utils/adt).

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from arrow_build cimport COLUMN_BYTES_MAX, grow


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint16_t rf_load16(const uint8_t* p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
    static inline uint32_t rf_load32(const uint8_t* p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
    static inline uint64_t rf_load64(const uint8_t* p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
    static inline void rf_store16(uint8_t* p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
    static inline void rf_store32(uint8_t* p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
    static inline void rf_store64(uint8_t* p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
    static inline int rf_add64(int64_t a, int64_t b, int64_t* r) { return __builtin_add_overflow(a, b, r); }
    static inline int rf_mul64(int64_t a, int64_t b, int64_t* r) { return __builtin_mul_overflow(a, b, r); }
    """
    uint16_t load16 "rf_load16"(const uint8_t* p) noexcept nogil
    uint32_t load32 "rf_load32"(const uint8_t* p) noexcept nogil
    uint64_t load64 "rf_load64"(const uint8_t* p) noexcept nogil
    void store16 "rf_store16"(uint8_t* p, uint16_t v) noexcept nogil
    void store32 "rf_store32"(uint8_t* p, uint32_t v) noexcept nogil
    void store64 "rf_store64"(uint8_t* p, uint64_t v) noexcept nogil
    # The sum or product in r; true where it overflows.
    bint add64 "rf_add64"(int64_t a, int64_t b, int64_t* r) noexcept nogil
    bint mul64 "rf_mul64"(int64_t a, int64_t b, int64_t* r) noexcept nogil
    # PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
    const int64_t EPOCH_DAYS "10957"
    const int64_t EPOCH_US "INT64_C(946684800000000)"
    const int64_t DAY_US "INT64_C(86400000000)"
    # MIN_TIMESTAMP and END_TIMESTAMP of the server: 4714-11-24 BC inclusive to 294277 exclusive.
    const int64_t TIMESTAMP_MIN "INT64_C(-211813488000000000)"
    const int64_t TIMESTAMP_END "INT64_C(9223371331200000000)"
    # Days from 2000-01-01 of the same first day, and of the day after 5874897-12-31.
    const int64_t DATE_MIN "-2451545"
    const int64_t DATE_END "2145031949"
    const int64_t I64_MAX "INT64_MAX"
    const int64_t I64_MIN "INT64_MIN"
    const int32_t I32_MAX "INT32_MAX"
    const int32_t I32_MIN "INT32_MIN"
    # A field is addressed with 31 bits.
    const int64_t FIELD_BYTES_MAX "INT64_C(1073741823)"


# What the wire holds. The numbers are of this module alone.
cdef enum Kind:
    K_BOOL, K_INT2, K_INT4, K_INT8, K_OID, K_FLOAT4, K_FLOAT8
    K_DECIMAL128, K_DECIMAL256, K_NUMERIC_TEXT
    K_TEXT, K_CHAR, K_JSONB, K_BINARY, K_WIRE_NUMERIC
    K_DATE, K_TIME, K_TIMESTAMP, K_INTERVAL, K_UUID, K_BIT, K_LIST


# What can be wrong with one value (REASONS in pg_copy.pyx says it in words).
cdef enum Code:
    OK, E_MEMORY, E_LENGTH, E_BOOL, E_NUMERIC, E_NOT_FINITE, E_SCALE, E_PRECISION, E_UTF8, E_JSONB
    E_DATE, E_TIME, E_TIMESTAMP, E_INTERVAL, E_BIT, E_ARRAY, E_DIMENSIONS, E_ELEMENT, E_SIZE
    E_INTEGER, E_FLOAT, E_NUL, E_FRACTION, E_DIGITS, E_BIT_TEXT, E_OFFSETS, E_FIELD

