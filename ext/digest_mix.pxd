# The mixing of the row digest (docs/DIGEST.md, "The hash"): two lanes of 64 bits, folded word by word.

from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint16_t, uint32_t, uint64_t, uint8_t


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the row digest reads Arrow buffers as little-endian words"
    #endif

    enum { RF_LANES = 2, RF_TAGS = 32, RF_POWERS = 77 };
    /* Filled once, at import, from SHA-256 of documented strings. */
    static uint64_t RF_TAG[RF_TAGS][RF_LANES];
    static uint64_t RF_MULTIPLIER[RF_LANES];
    static uint64_t RF_SEED[2][RF_LANES];          /* [0] of rows, [1] of keys */
    static uint64_t RF_POWER[RF_POWERS][4];        /* 10^k as four limbs, least significant first */

    static inline uint64_t rf_mum(uint64_t x, uint64_t y) {
      unsigned __int128 p = (unsigned __int128)x * y;
      return (uint64_t)p ^ (uint64_t)(p >> 64);
    }
    static inline uint64_t rf_finish(uint64_t x) {   /* murmur3's fmix64 */
      x ^= x >> 33; x *= 0xff51afd7ed558ccdULL;
      x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ULL;
      return x ^ (x >> 33);
    }
    /* Unaligned loads: a buffer's address is the producer's business. */
    #define RF_LOAD(name, type) \
      static inline type name(const uint8_t* p) { type v; memcpy(&v, p, sizeof v); return v; }
    RF_LOAD(rf_i8, int8_t)   RF_LOAD(rf_i16, int16_t)   RF_LOAD(rf_i32, int32_t)   RF_LOAD(rf_i64, int64_t)
    RF_LOAD(rf_u8, uint8_t)  RF_LOAD(rf_u16, uint16_t)  RF_LOAD(rf_u32, uint32_t)  RF_LOAD(rf_u64, uint64_t)
    RF_LOAD(rf_f32, float)   RF_LOAD(rf_f64, double)

    static inline uint64_t rf_bits(double v) { uint64_t w; memcpy(&w, &v, 8); return w; }

    /* The last 1–7 bytes of a text as a word padded with zeros. ``end`` is the end of the buffer. */
    static inline uint64_t rf_tail(const uint8_t* p, int64_t n, const uint8_t* end) {
      if (end - p >= 8) return rf_u64(p) & (~0ULL >> (64 - 8 * n));
      uint64_t w = 0;
      memcpy(&w, p, (size_t)n);
      return w;
    }

    static inline int rf_scale_i64(int64_t v, int64_t power, int64_t* out) {
      return __builtin_mul_overflow(v, power, out);
    }

    /* |product| of a four-limb magnitude and 10^k, eight limbs: cannot overflow. */
    static inline void rf_scale_limbs(const uint64_t v[4], int k, uint64_t out[8]) {
      memset(out, 0, 64);
      for (int i = 0; i < 4; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < 4; j++) {
          unsigned __int128 t = (unsigned __int128)v[i] * RF_POWER[k][j] + out[i + j] + carry;
          out[i + j] = (uint64_t)t;
          carry = (uint64_t)(t >> 64);
        }
        out[i + 4] = carry;
      }
    }
    static inline void rf_negate(uint64_t* limbs, int n) {
      unsigned char carry = 1;
      for (int i = 0; i < n; i++) {
        uint64_t t = ~limbs[i] + carry;
        carry = carry && t == 0;
        limbs[i] = t;
      }
    }
    /* Divides four limbs by 10^18 in place; returns the remainder. */
    static inline uint64_t rf_divide(uint64_t v[4]) {
      unsigned __int128 rest = 0;
      for (int i = 3; i >= 0; i--) {
        rest = (rest << 64) | v[i];
        v[i] = (uint64_t)(rest / 1000000000000000000ULL);
        rest %= 1000000000000000000ULL;
      }
      return (uint64_t)rest;
    }
    """
    uint64_t RF_TAG[32][2]
    uint64_t RF_MULTIPLIER[2]
    uint64_t RF_SEED[2][2]
    uint64_t RF_POWER[77][4]
    uint64_t rf_mum(uint64_t x, uint64_t y)
    uint64_t rf_finish(uint64_t x)
    int8_t rf_i8(const uint8_t* p)
    int16_t rf_i16(const uint8_t* p)
    int32_t rf_i32(const uint8_t* p)
    int64_t rf_i64(const uint8_t* p)
    uint8_t rf_u8(const uint8_t* p)
    uint16_t rf_u16(const uint8_t* p)
    uint32_t rf_u32(const uint8_t* p)
    uint64_t rf_u64(const uint8_t* p)
    float rf_f32(const uint8_t* p)
    double rf_f64(const uint8_t* p)
    uint64_t rf_bits(double v)
    uint64_t rf_tail(const uint8_t* p, int64_t n, const uint8_t* end)
    int rf_scale_i64(int64_t v, int64_t power, int64_t* out)
    void rf_scale_limbs(const uint64_t* v, int k, uint64_t* out)
    void rf_negate(uint64_t* limbs, int n)
    uint64_t rf_divide(uint64_t* v)


# Tags: what a cell's words mean. The order is part of the format (docs/DIGEST.md, "Tags").
cdef enum:
    TAG_NULL = 0
    TAG_MISSING = 1
    TAG_BOOL = 2
    TAG_NUMBER_1 = 3
    TAG_NUMBER_2 = 4
    TAG_NUMBER_4 = 5
    TAG_NUMBER_8 = 6
    TAG_NUMERIC = 7
    TAG_NUMERIC_MINUS = 8
    TAG_NUMERIC_NAN = 9
    TAG_NUMERIC_INFINITY = 10
    TAG_NUMERIC_MINUS_INFINITY = 11
    TAG_FLOAT = 12
    TAG_FLOAT_NAN = 13
    TAG_TEXT = 14
    TAG_BINARY = 15
    TAG_DATE = 16
    TAG_TIME = 17
    TAG_TIMESTAMP = 18
    TAG_INFINITY = 19
    TAG_MINUS_INFINITY = 20
    TAG_DURATION = 21
    TAG_INTERVAL = 22
    TAG_UUID = 23
    TAG_JSON = 24
    TAG_LIST = 25
    TAG_STRUCT = 26
    TAG_MAP = 27
    TAG_END = 28
    TAG_COUNT = 29


cdef inline void put(uint64_t* a, uint64_t* b, int tag, uint64_t word) noexcept nogil:
    """Folds the first word of a cell into both lanes of one row."""
    a[0] = rf_mum(a[0] ^ word ^ RF_TAG[tag][0], RF_MULTIPLIER[0])
    b[0] = rf_mum(b[0] ^ word ^ RF_TAG[tag][1], RF_MULTIPLIER[1])


cdef inline void more(uint64_t* a, uint64_t* b, uint64_t word) noexcept nogil:
    """Folds a further word of a cell."""
    a[0] = rf_mum(a[0] ^ word, RF_MULTIPLIER[0])
    b[0] = rf_mum(b[0] ^ word, RF_MULTIPLIER[1])


cdef inline void put_bytes(uint64_t* a, uint64_t* b, int tag, const uint8_t* p, int64_t n,
                           const uint8_t* end) noexcept nogil:
    """Folds n bytes: their count, then words of eight, the last padded with zeros."""
    cdef uint64_t x = a[0], y = b[0], ca = RF_MULTIPLIER[0], cb = RF_MULTIPLIER[1], word
    x = rf_mum(x ^ <uint64_t> n ^ RF_TAG[tag][0], ca)
    y = rf_mum(y ^ <uint64_t> n ^ RF_TAG[tag][1], cb)
    while n >= 8:
        word = rf_u64(p)
        x = rf_mum(x ^ word, ca)
        y = rf_mum(y ^ word, cb)
        p += 8
        n -= 8
    if n > 0:
        word = rf_tail(p, n, end)
        x = rf_mum(x ^ word, ca)
        y = rf_mum(y ^ word, cb)
    a[0] = x
    b[0] = y
