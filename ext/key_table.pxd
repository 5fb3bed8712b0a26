# One of the 256 tables of a key set: open addressing, with the keys in ascending order.
#
# A key's home is its place on the line from 0 to 2^64, scaled to the table; it stands there or further right, with
# no empty slot between. So a search ends at the first greater key, growing is one sweep, and what is written to disk
# is sorted already. The first byte of a key says in which table it is, and need not stand in it: 15 bytes of key and
# 3 of owner make a slot of 18, 22 to 24 a key.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memmove, memset


cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>

    #define RF_PAGE ((size_t)4096)
    #define RF_ROUNDED(n, page) (((n) + (page) - 1) & ~((page) - 1))

    /* Addresses for so many bytes, without memory as yet; NULL where there are none. */
    static inline void* rf_room_reserve(size_t bytes) {
      void* p = mmap(NULL, RF_ROUNDED(bytes, RF_PAGE), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      return p == MAP_FAILED ? NULL : p;
    }
    /* Memory for the reserved bytes from ``before`` to ``bytes``, all of them 0. It is asked for at once, which is much
       cheaper than fault by fault; a system that does not know how gives it then. */
    static inline int rf_room_grow(void* start, size_t before, size_t bytes) {
      char* p = (char*)start;
      size_t from = RF_ROUNDED(before, RF_PAGE), to = RF_ROUNDED(bytes, RF_PAGE);
      if (to == from) return 1;
      if (mprotect(p + from, to - from, PROT_READ | PROT_WRITE) != 0) return 0;
    #ifdef __linux__
      (void)madvise(p + from, to - from, MADV_POPULATE_WRITE);
    #endif
      return 1;
    }
    static inline void rf_room_free(void* start, size_t reserved) {
      munmap(start, RF_ROUNDED(reserved, RF_PAGE));
    }

    /* Packed: its alignment is 1, and a slot has 18 bytes. left: the last 56 bits of the high word, and the first 8 of
       the low one; right: the last 56 of that, and the last 8 of the owner; tag: the rest of the owner and 1, so that
       it is 0 in an empty slot alone. */
    typedef struct __attribute__((packed)) { uint64_t left; uint64_t right; uint16_t tag; } rf_slot;

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
    static inline uint64_t rf_key_home(uint64_t left, uint64_t capacity) {
      return (uint64_t)(((unsigned __int128)left * capacity) >> 64);
    }
    /* What stands at a key's home and some keys beyond, while another thread may move the table: a wrong address does
       no harm here. */
    static inline void rf_slots_prefetch(rf_slot* const* keys, const int64_t* capacity, uint64_t left) {
      const char* p = (const char*)__atomic_load_n(keys, __ATOMIC_RELAXED);
      p += sizeof(rf_slot) * rf_key_home(left, (uint64_t)__atomic_load_n(capacity, __ATOMIC_RELAXED));
      __builtin_prefetch(p, 1);
      __builtin_prefetch(p + 64, 1);
      __builtin_prefetch(p + 128, 1);
      __builtin_prefetch(p + 192, 1);
    }
    """
    ctypedef struct Slot "rf_slot":
        uint64_t left
        uint64_t right
        uint16_t tag
    void* room_reserve "rf_room_reserve"(size_t bytes_) noexcept
    bint room_grow "rf_room_grow"(void* start, size_t before, size_t bytes_) noexcept
    void room_free "rf_room_free"(void* start, size_t reserved) noexcept
    uint64_t key_word "rf_key_word"(const uint8_t* p) noexcept
    uint64_t key_mix "rf_key_mix"(uint64_t high, uint64_t low) noexcept
    uint64_t key_home "rf_key_home"(uint64_t left, uint64_t capacity) noexcept
    void slots_prefetch "rf_slots_prefetch"(Slot* const* keys, const int64_t* capacity, uint64_t left) noexcept


cdef enum:
    SLOT_BYTES = 18
    # Owners are from 1 to this: 24 bits, of which the tag leaves out one combination.
    OWNER_BITS_MAX = 0xFFFEFF
    # Slots of a table that grows by doubling; larger ones grow by a quarter, so that they stay full.
    SMALL_SLOTS = 512
    FIRST_CAPACITY = 48
    # By how much a table may grow at once towards what is expected of it, after so few keys.
    GROWTH_MAX = 16
    # Tries to find a capacity in which all keys have a place: one is enough unless they are spread unevenly beyond all
    # chance.
    FITTING_TRIES = 6


cdef struct Table:
    # ``slots`` of them, and one more that stays empty, at which every search ends.
    Slot* keys
    int64_t capacity
    # The capacity and some for the keys that are pushed beyond it.
    int64_t slots
    int64_t count
    # With so many keys it has to grow.
    int64_t count_max


# The tables of a partition, of the same capacity, one behind the other: the keys ascend through all of them.
cdef struct Tables:
    Table* first
    int count
    # Of the first, among all tables of the set.
    int number
    # Where they stand: so many bytes of addresses, of which the first have memory.
    void* room
    int64_t reserved
    int64_t bytes


cdef inline int64_t slots_of(int64_t capacity) noexcept nogil:
    cdef int64_t beyond = capacity >> 5
    return capacity + (beyond if beyond < 32 else 32) + 8


cdef inline int64_t bytes_of(const Tables* tables, int64_t capacity) noexcept nogil:
    return (slots_of(capacity) + 1) * SLOT_BYTES * tables.count


cdef inline uint32_t owner_of(const Slot* slot) noexcept nogil:
    """0: the slot is empty."""
    return <uint32_t> (slot.tag - 1) << 8 | <uint32_t> (slot.right & 0xFF) if slot.tag else 0


cdef inline void set_owner(Slot* slot, uint32_t owner) noexcept nogil:
    slot.right = (slot.right & ~<uint64_t> 0xFF) | (owner & 0xFF)
    slot.tag = <uint16_t> ((owner >> 8) + 1)


cdef inline Slot* table_find(const Table* table, uint64_t left, uint64_t right, bint* there) noexcept nogil:
    """The slot of a key, or the one before which it belongs, which may be the one beyond the last.

    right: the last 56 bits of the key in its first 56, the others 0. The table has slots.
    """
    cdef Slot* slot = table.keys + key_home(left, table.capacity)
    cdef uint64_t mine
    there[0] = False
    while slot.tag and slot.left < left:
        slot += 1
    while slot.tag and slot.left == left:
        mine = slot.right & ~<uint64_t> 0xFF
        if mine >= right:
            there[0] = mine == right
            break
        slot += 1
    return slot


cdef inline bint table_put(Table* table, Slot* slot, uint64_t left, uint64_t right, uint32_t owner) noexcept nogil:
    """Puts a key before a slot, where ``table_find`` said; False where the table is full, or its end in the way."""
    cdef Slot* empty = slot
    if table.count >= table.count_max:
        return False
    while empty.tag:
        empty += 1
    if empty == table.keys + table.slots:
        return False
    if empty != slot:
        memmove(slot + 1, slot, <char*> empty - <char*> slot)
    slot.left = left
    slot.right = right
    set_owner(slot, owner)
    table.count += 1
    return True


# --- growing -------------------------------------------------------------------------------------

cdef inline int64_t place_of_last(const Slot* keys, int64_t count, int64_t capacity) noexcept nogil:
    """Where the last of these keys stands in a table of this capacity, if there is nothing before the first."""
    cdef int64_t k, home, place = -1
    for k in range(count):
        home = <int64_t> key_home(keys[k].left, capacity)
        place = home if home > place else place + 1
    return place


cdef inline bint all_fit(const Tables* tables, int64_t capacity) noexcept nogil:
    """Whether the last keys of each table have their places within it."""
    cdef const Table* table
    cdef int64_t start, end
    cdef int t
    for t in range(tables.count):
        table = tables.first + t
        end = table.slots
        while end > 0 and table.keys[end - 1].tag == 0:
            end -= 1
        start = end
        while start > 0 and table.keys[start - 1].tag:
            start -= 1
        if end and place_of_last(table.keys + start, end - start, capacity) >= slots_of(capacity):
            return False
    return True


cdef inline int64_t capacity_in(const Tables* tables, int64_t bytes_) noexcept nogil:
    """The largest capacity of tables that take so many bytes together."""
    cdef int64_t slots = bytes_ // (SLOT_BYTES * tables.count) - 1
    cdef int64_t capacity = slots - 8 - (slots >> 5 if slots >> 5 < 32 else 32)
    return capacity if capacity > FIRST_CAPACITY else FIRST_CAPACITY


cdef inline int64_t grown_capacity(const Tables* tables, int64_t keys_each, int64_t bytes_max) noexcept nogil:
    """The next capacity in which all keys have a place, if possible within so many bytes; 0 where there is none.

    keys_each: how many keys a table is expected to have in the end, 0 where nobody knows: each step that is left out
    saves moving all keys once.
    """
    # Of evenly spread keys no table of a partition has more than its share and a few standard deviations.
    cdef int64_t wanted = (keys_each + (keys_each >> 5) + 32) * 100 // 87 if keys_each else 0
    cdef int64_t capacity = tables.first.capacity, least = capacity + capacity // 8
    cdef int tries
    if wanted > GROWTH_MAX * capacity:
        wanted = GROWTH_MAX * capacity
    capacity = 2 * capacity if capacity < SMALL_SLOTS else capacity + capacity // 4
    if wanted > capacity:
        capacity = wanted
    if bytes_of(tables, capacity) > bytes_max:
        capacity = capacity_in(tables, bytes_max)
    for tries in range(FITTING_TRIES):
        if capacity >= least and all_fit(tables, capacity):
            return capacity
        capacity += (capacity >> 2) + 1
    return 0


cdef inline bint tables_grow(Tables* tables, int64_t capacity) noexcept nogil:
    """Spreads all keys over tables of this capacity, which is one that ``grown_capacity`` gave; False where there is
    no memory for it. In place: fresh memory costs more than the sweep."""
    cdef int64_t slots = slots_of(capacity), bytes_ = bytes_of(tables, capacity)
    cdef Table* table
    cdef Slot* to
    cdef int t
    if bytes_ > tables.reserved or not room_grow(tables.room, tables.bytes, bytes_):
        return False
    tables.bytes = bytes_
    for t in range(tables.count - 1, -1, -1):
        table = tables.first + t
        to = <Slot*> tables.room + t * (slots + 1)
        if table.count:
            move_keys(table.keys, table.slots, to, capacity)
        table.keys = to
        table.capacity = capacity
        table.slots = slots
        # Beyond 87 of 100 slots each new key would push some thirty others aside.
        table.count_max = capacity - capacity * 13 // 100
    return True


cdef inline void move_keys(Slot* keys, int64_t i, Slot* to, int64_t capacity) noexcept nogil:
    """Moves the keys of a table, those before slot i, into one of a larger capacity that begins at the same slot or
    further right, in one sweep from right to left.

    It goes cluster by cluster (keys side by side): since all homes are stretched alike, none is pushed to where the
    next cluster begins, and none to where a key still stands that was not moved. All slots between are empty.
    """
    cdef int64_t end, count, home, place, k
    cdef Slot* packed
    cdef char* left
    while True:
        while i > 0 and keys[i - 1].tag == 0:
            i -= 1
        if i == 0:
            return
        end = i
        while i > 0 and keys[i - 1].tag:
            i -= 1
        count = end - i
        # All of it to the right, so that its last key is in its place, and then each of the others to its own.
        packed = to + place_of_last(keys + i, count, capacity) - (count - 1)
        if packed != keys + i:
            memmove(packed, keys + i, count * SLOT_BYTES)
            left = <char*> (packed if packed < keys + end else keys + end)
            memset(keys + i, 0, left - <char*> (keys + i))
        place = -1
        for k in range(count):
            home = <int64_t> key_home(packed[k].left, capacity)
            place = home if home > place else place + 1
            if to + place != packed + k:
                to[place] = packed[k]
                packed[k].tag = 0


cdef inline void tables_clear(Tables* tables) noexcept nogil:
    """Forgets all keys; the slots stay for those to come."""
    cdef int t
    memset(tables.room, 0, tables.bytes)
    for t in range(tables.count):
        tables.first[t].count = 0


cdef inline void tables_free(Tables* tables) noexcept nogil:
    """Gives all memory back; the addresses, too."""
    if tables.room != NULL:
        room_free(tables.room, tables.reserved)
    tables.room = NULL
    tables.bytes = 0
    memset(tables.first, 0, tables.count * sizeof(Table))
