# The shortest decimal digits that give a double back: Raffaello Giulietti's Schubfach
# ("The Schubfach way to render doubles", 2020), in words of 64 bits, without the GIL.
#
# The powers of ten (128 bits each, rounded up) are no table of this file: prepare_double_digits() works
# them out from Python's integers, once, when a module that uses them is imported (0.3 ms).

from libc.stdint cimport int32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    #define RF_TEN_LEAST (-292)
    #define RF_TEN_MOST 324
    static uint64_t RF_TENS[RF_TEN_MOST - RF_TEN_LEAST + 1][2];

    /* The upper 64 bits of g * c / 2^64 for a g of 128 bits, its lowest bit set where anything was cut off. */
    static inline uint64_t rf_round_to_odd(const uint64_t* g, uint64_t c) {
      unsigned __int128 low = (unsigned __int128) g[1] * c;
      unsigned __int128 high = (unsigned __int128) g[0] * c;
      uint64_t middle = (uint64_t) high + (uint64_t) (low >> 64);
      uint64_t top = (uint64_t) (high >> 64) + (middle < (uint64_t) high);
      return top | (middle > 1);
    }
    /* Shifts of negative numbers round down with every compiler that builds this. */
    static inline uint64_t rf_double_digits(uint64_t bits, int32_t* exponent) {
      const uint64_t fraction = bits & 0xFFFFFFFFFFFFFULL;
      const int32_t biased = (int32_t) (bits >> 52 & 0x7FF);
      uint64_t c = fraction, lower, upper, s, tenth, vb, vbl, vbr;
      const uint64_t* g;
      int32_t q = 1 - 1075, k, h;
      int closer, even, under, over;
      if (biased != 0) {
        c |= 1ULL << 52;
        q = biased - 1075;
        if (q <= 0 && q > -53 && (c & ((1ULL << -q) - 1)) == 0) {  /* a small integer */
          *exponent = 0;
          return c >> -q;
        }
      }
      even = (c & 1) == 0;
      closer = fraction == 0 && biased > 1;
      k = (q * 1262611 - (closer ? 524031 : 0)) >> 22;
      h = q + ((-k * 1741647) >> 19) + 1;
      g = RF_TENS[-k - RF_TEN_LEAST];
      vbl = rf_round_to_odd(g, (4 * c - 2 + closer) << h);
      vb = rf_round_to_odd(g, (4 * c) << h);
      vbr = rf_round_to_odd(g, (4 * c + 2) << h);
      lower = vbl + !even;
      upper = vbr - !even;
      s = vb / 4;
      if (s >= 10) {
        tenth = s / 10;
        under = lower <= 40 * tenth;
        over = 40 * tenth + 40 <= upper;
        if (under != over) {
          *exponent = k + 1;
          return tenth + over;
        }
      }
      *exponent = k;
      under = lower <= 4 * s;
      over = 4 * s + 4 <= upper;
      if (under != over)
        return s + over;
      return s + (vb > 4 * s + 2 || (vb == 4 * s + 2 && (s & 1)));
    }
    """
    uint64_t TENS "RF_TENS"[617][2]
    const int TEN_LEAST "RF_TEN_LEAST"
    const int TEN_MOST "RF_TEN_MOST"
    # digits × 10^exponent is the shortest decimal (the nearest of those) whose nearest double has these bits;
    # of a finite double that is not zero, without its sign. The digits may end in zeros.
    uint64_t double_digits "rf_double_digits"(uint64_t bits, int32_t* exponent) noexcept nogil


cdef inline int prepare_double_digits() except -1:
    """Fills the table of powers of ten: 10^k × 2^(127 − floor(log2 10^k)), rounded up."""
    for k in range(TEN_LEAST, TEN_MOST + 1):
        power = 10**abs(k)
        if k >= 0:
            shift = power.bit_length() - 128
            value = power << -shift if shift <= 0 else -(-power >> shift)
        else:
            value = -(-(1 << (power.bit_length() + 127)) // power)
        TENS[k - TEN_LEAST][0] = <uint64_t> (value >> 64)
        TENS[k - TEN_LEAST][1] = <uint64_t> (value & 0xFFFFFFFFFFFFFFFF)
    return 0
