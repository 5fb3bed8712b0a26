# Text to the nearest double, without the GIL and exactly as strtod in the C locale: Daniel Lemire's "Number
# Parsing at a Gigabyte per Second" (2021) where 19 digits say all, else strtod_l itself.
#
# The powers of five (128 bits each) are no table of this file: prepare_double_parse() works them out from
# Python's integers, once, when a module that uses them is imported (0.3 ms).

from libc.stdint cimport int64_t, uint64_t, uint8_t


cdef extern from *:
    """
    #include <locale.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #ifdef __APPLE__
    #include <xlocale.h>
    #endif
    #define RF_FIVE_LEAST (-342)
    #define RF_FIVE_MOST 308
    /* The longest that a server writes: DOUBLE(255,30) has 309 digits, a point and 30 more. */
    #define RF_DOUBLE_TEXT_MAX 400
    static uint64_t RF_FIVES[RF_FIVE_MOST - RF_FIVE_LEAST + 1][2];
    static locale_t RF_C_LOCALE;
    static const double RF_SMALL_TENS[23] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
        1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

    static inline double rf_double_of(uint64_t bits) { double d; memcpy(&d, &bits, 8); return d; }

    /* w * 10^q as the bits of a double, without its sign; w has at most 19 digits. */
    static inline uint64_t rf_scaled_double(uint64_t w, int64_t q) {
      const uint64_t infinity = 0x7FFULL << 52;
      if (w == 0 || q < RF_FIVE_LEAST) return 0;
      if (q > RF_FIVE_MOST) return infinity;
      const int lz = __builtin_clzll(w);
      w <<= lz;
      const uint64_t* five = RF_FIVES[q - RF_FIVE_LEAST];
      const unsigned __int128 first = (unsigned __int128) w * five[0];
      uint64_t high = (uint64_t) (first >> 64), low = (uint64_t) first;
      if ((high & 0x1FF) == 0x1FF) {  /* the bits that decide may still change */
        const uint64_t more = (uint64_t) (((unsigned __int128) w * five[1]) >> 64);
        low += more;
        if (low < more) high++;
      }
      const int upper = (int) (high >> 63);
      uint64_t mantissa = high >> (upper + 9);
      /* floor(log2(10^q)), by a multiplication that is exact for these q. */
      int64_t power = (((152170 + 65536) * q) >> 16) + 63 + upper - lz + 1023;
      if (power <= 0) {  /* subnormal */
        if (-power + 1 >= 64) return 0;
        mantissa >>= -power + 1;
        mantissa += mantissa & 1;
        mantissa >>= 1;
        return mantissa;  /* one that was rounded up to 2^52 is the least normal one */
      }
      if (low <= 1 && q >= -4 && q <= 23 && (mantissa & 3) == 1 && (mantissa << (upper + 9)) == high)
        mantissa &= ~1ULL;  /* exactly half way: to the even one */
      mantissa += mantissa & 1;
      mantissa >>= 1;
      if (mantissa >= (2ULL << 52)) {
        mantissa = 1ULL << 52;
        power++;
      }
      mantissa &= ~(1ULL << 52);
      return power >= 0x7FF ? infinity : (uint64_t) power << 52 | mantissa;
    }

    /* -?digits[.digits][e[+-]digits], all of it, and finite; else 0. */
    static inline int rf_parse_double(const uint8_t* p, int64_t n, double* out) {
      const int negative = n > 0 && p[0] == '-';
      int64_t i = negative, begin, q = 0, e = 0;
      uint64_t w = 0;
      int digits = 0, sign = 1;
      if (n > RF_DOUBLE_TEXT_MAX) return 0;
      for (begin = i; i < n && p[i] >= '0' && p[i] <= '9'; i++) {
        if (digits < 19) w = w * 10 + (p[i] - '0'); else q++;
        digits += w != 0;
      }
      if (i == begin) return 0;
      if (i < n && p[i] == '.') {
        for (begin = ++i; i < n && p[i] >= '0' && p[i] <= '9'; i++) {
          if (digits < 19) { w = w * 10 + (p[i] - '0'); q--; }
          digits += w != 0;
        }
        if (i == begin) return 0;
      }
      if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        i++;
        if (i < n && (p[i] == '-' || p[i] == '+')) sign = p[i++] == '-' ? -1 : 1;
        for (begin = i; i < n && p[i] >= '0' && p[i] <= '9'; i++) if (e < 100000) e = e * 10 + (p[i] - '0');
        if (i == begin) return 0;
        q += sign * e;
      }
      if (i != n) return 0;
      double value;
      if (digits > 19) {
        char text[RF_DOUBLE_TEXT_MAX + 1];
        memcpy(text, p, (size_t) n);
        text[n] = 0;
        *out = strtod_l(text, NULL, RF_C_LOCALE);
        return *out - *out == 0;
      }
      if (w <= 1ULL << 53 && q >= -22 && q <= 22) {  /* both exact, so that one operation rounds rightly */
        value = (double) w;
        value = q < 0 ? value / RF_SMALL_TENS[-q] : value * RF_SMALL_TENS[q];
      } else {
        value = rf_double_of(rf_scaled_double(w, q));
        if (value - value != 0) return 0;
      }
      *out = negative ? -value : value;
      return 1;
    }
    static inline int rf_prepare_locale(void) {
      if (RF_C_LOCALE == (locale_t) 0) RF_C_LOCALE = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
      return RF_C_LOCALE != (locale_t) 0;
    }
    """
    uint64_t FIVES "RF_FIVES"[651][2]
    bint parse_double "rf_parse_double"(const uint8_t* p, int64_t n, double* out) noexcept nogil
    bint prepare_locale "rf_prepare_locale"() noexcept


cdef inline int prepare_double_parse() except -1:
    """Fills in the powers of five from 10^-342 to 10^308, rounded down (below 10^0: up, as the paper has them)."""
    cdef int i
    for i in range(651):
        q = i - 342
        if q < 0:
            divisor = 5 ** -q
            z = divisor.bit_length()
            value = (1 << (z + 127 if q >= -27 else 2 * z + 128)) // divisor + 1
            value >>= max(0, value.bit_length() - 128)
        else:
            value = 5**q
            surplus = value.bit_length() - 128
            value = value >> surplus if surplus > 0 else value << -surplus
        FIVES[i][0] = <uint64_t> (value >> 64)
        FIVES[i][1] = <uint64_t> (value & 0xFFFFFFFFFFFFFFFF)
    if not prepare_locale():
        raise MemoryError
    return 0
