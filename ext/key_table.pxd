# One partition of a key set in memory: an open-addressing table whose keys stand in ascending order.
#
# A key's home is its place on the line from 0 to 2^64, scaled to the table; it stands there or further right, with
# no empty slot between. So a search ends at the first greater key, growing is one sweep from left to right, and what
# is written to disk is sorted already. 16 bytes of key and 4 of owner: 20 bytes a slot, 22 to 24 a key.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>

    /* Packed: its alignment is 1, and a slot has 20 bytes. */
    typedef struct __attribute__((packed)) { uint64_t high; uint64_t low; uint32_t owner; } rf_key;

    static inline uint64_t rf_key_word(const uint8_t* p) {
      uint64_t v;
      memcpy(&v, p, sizeof v);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      v = __builtin_bswap64(v);
    #endif
      return v;
    }
    /* Digests are spread evenly as they are; keys that are not (numbers, in tests) are so after this. For each low
       word it maps high words one to one, so that no two keys become one. */
    static inline uint64_t rf_key_mix(uint64_t high, uint64_t low) {
      uint64_t x = high + low * 0x9e3779b97f4a7c15ULL;
      x ^= x >> 33; x *= 0xff51afd7ed558ccdULL;
      x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ULL;
      return x ^ (x >> 33);
    }
    static inline uint64_t rf_key_home(uint64_t high, uint64_t capacity) {
      return (uint64_t)(((unsigned __int128)high * capacity) >> 64);
    }
    static inline void rf_key_prefetch(const rf_key* keys, uint64_t i) {
      const char* p = (const char*)(keys + i);
      __builtin_prefetch(p, 1);
      __builtin_prefetch(p + 64, 1);
    }
    static inline int rf_key_less(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
      return a < c || (a == c && b < d);
    }
    """
    ctypedef struct Key "rf_key":
        uint64_t high
        uint64_t low
        uint32_t owner   # 0: the slot is empty
    uint64_t key_word "rf_key_word"(const uint8_t* p) noexcept
    uint64_t key_mix "rf_key_mix"(uint64_t high, uint64_t low) noexcept
    uint64_t key_home "rf_key_home"(uint64_t high, uint64_t capacity) noexcept
    void key_prefetch "rf_key_prefetch"(const Key* keys, uint64_t i) noexcept
    bint key_less "rf_key_less"(uint64_t high, uint64_t low, uint64_t other_high, uint64_t other_low) noexcept


cdef enum:
    KEY_BYTES = 20
    # Keys of a table that grows by doubling; larger ones grow by a sixth, so that they stay full.
    SMALL_KEYS = 4096
    FIRST_CAPACITY = 96
    # Tries to lay keys into a larger table: one is enough unless they are spread unevenly beyond all chance.
    LAYING_TRIES = 6


cdef struct Table:
    Key* keys
    int64_t capacity
    # Slots: the capacity and some for the keys that are pushed beyond it.
    int64_t slots
    int64_t count


cdef inline int64_t slots_of(int64_t capacity) noexcept nogil:
    cdef int64_t beyond = capacity >> 5
    return capacity + (beyond if beyond < 256 else 256) + 32


cdef inline int64_t table_find(const Table* table, uint64_t high, uint64_t low, bint* there) noexcept nogil:
    """The slot of a key, or the one before which it belongs (``slots`` if it is beyond the last)."""
    cdef int64_t i = <int64_t> key_home(high, table.capacity)
    cdef const Key* key
    there[0] = False
    while i < table.slots:
        key = table.keys + i
        if key.owner == 0:
            return i
        if key.high >= high and not key_less(key.high, key.low, high, low):
            there[0] = key.high == high and key.low == low
            return i
        i += 1
    return i


cdef inline bint table_put(Table* table, int64_t i, uint64_t high, uint64_t low, uint32_t owner) noexcept nogil:
    """Puts a key before slot i, where ``table_find`` said; False where the end of the table is in the way."""
    cdef int64_t empty = i
    while empty < table.slots and table.keys[empty].owner != 0:
        empty += 1
    if empty >= table.slots:
        return False
    if empty > i:
        memmove(table.keys + i + 1, table.keys + i, (empty - i) * KEY_BYTES)
    table.keys[i].high = high
    table.keys[i].low = low
    table.keys[i].owner = owner
    table.count += 1
    return True


cdef inline bint table_is_full(const Table* table) noexcept nogil:
    """At 92 of 100 slots: beyond, each new key would push a hundred others aside."""
    return table.count * 100 >= table.capacity * 92


cdef inline int64_t grown_capacity(const Table* table) noexcept nogil:
    return 2 * table.capacity if table.count < SMALL_KEYS else table.capacity + table.capacity // 6


cdef inline bint table_grow(Table* table, int64_t capacity) noexcept nogil:
    """Spreads all keys over this capacity, or a little more; False where there is no memory for it.

    In place: a second table beside it would be fresh memory, which costs more than the sweep itself.
    """
    cdef int64_t slots
    cdef Key* keys
    cdef int tries
    for tries in range(LAYING_TRIES):
        slots = slots_of(capacity)
        keys = <Key*> realloc(table.keys, slots * KEY_BYTES)
        if keys == NULL:
            return False
        table.keys = keys
        memset(keys + table.slots, 0, (slots - table.slots) * KEY_BYTES)
        table.slots = slots
        table.capacity = capacity
        pack_right(table)
        if lay_out(table):
            return True
        capacity = capacity + (capacity >> 2)
    return False


cdef inline void pack_right(Table* table) noexcept nogil:
    """Moves all keys to the end, in their order."""
    cdef int64_t i, to = table.slots
    for i in range(table.slots - 1, -1, -1):
        if table.keys[i].owner:
            to -= 1
            if to != i:
                table.keys[to] = table.keys[i]
                table.keys[i].owner = 0


cdef inline bint lay_out(Table* table) noexcept nogil:
    """Moves keys that stand at the end to their homes; False where some would not fit (all are there, in order)."""
    cdef int64_t i, at, last = -1
    for i in range(table.slots - table.count, table.slots):
        at = <int64_t> key_home(table.keys[i].high, table.capacity)
        if at <= last:
            at = last + 1
        if at > i:
            return False  # the keys that follow have no place any more
        if at != i:
            table.keys[at] = table.keys[i]
            table.keys[i].owner = 0
        last = at
    return True


cdef inline void table_free(Table* table) noexcept nogil:
    free(table.keys)
    table.keys = NULL
    table.capacity = table.slots = table.count = 0
