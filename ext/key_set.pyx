"""An exact set of 128-bit keys, each with an owner, within a budget of memory: the native half of ``stages.dedup``.

Keys (16 bytes each: digests) are spread over partitions, each a table of its own (key_table.pxd) with a lock of its
own, so that several threads add at the same time and only one partition grows at a time. A partition that may not
grow any more is written to disk (key_runs.pxd) and begins anew; the set stays exact. The interpreter lock is
released while keys are looked up.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock,
    WAIT_LOCK,
)
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

import os

from key_runs cimport KEYS_FILE, KEYS_GOOD, KEYS_MEMORY, Runs, run_bytes, runs_find, runs_free, spill
from key_table cimport (
    FIRST_CAPACITY, OWNER_BITS_MAX, Slot, Table, Tables, bytes_of, grown_capacity, key_mix, key_word, owner_of,
    room_reserve, set_owner, slots_prefetch, table_find, table_put, tables_clear, tables_free, tables_grow,
)

cdef enum:
    # The first byte of a key says in which table it is.
    TABLES = 256
    # Parts that the keys of one table are sorted into, by their places in it; and those of all tables.
    REACH_BITS = 3
    CELLS = 2048
    # Keys that are sorted at once: 24 bytes each, which stay in the second-level cache.
    ASKED_MAX = 16384
    # Keys ahead for which memory is fetched while one is looked up.
    AHEAD = 12
    # More would grow in smaller steps and be waited for less; fewer fill large pages better.
    PARTITIONS = 16
#: The least budget: below, partitions would be written to disk with a few hundred keys each.
MEMORY_BYTES_MIN = 1 << 20
#: Keys of one call; their places are counted in 32 bits.
KEYS_MAX = 1 << 31
#: Rows that can be expected are fewer than this.
ROWS_MAX = 1 << 48
#: Owners are from 1 to this.
OWNER_MAX = OWNER_BITS_MAX
#: Earlier owners of one call: each costs a comparison where a key is held by somebody.
EARLIER_MAX = 100_000


# A key of a call, as it stands in a table, beside its row.
cdef struct Asked:
    uint64_t left
    uint64_t right
    uint32_t row
    uint32_t table


cdef struct Partition:
    PyThread_type_lock lock
    Tables tables
    Runs runs
    # Keys in the tables, and different keys, in memory and on disk.
    int64_t held
    int64_t keys
    # Rows that were asked about, to claim them.
    int64_t rows


cdef struct Job:
    # What is asked about all keys of a call.
    bint look         # only whether they are there
    uint32_t owner
    const uint32_t* earlier
    int earlier_count
    const char* folder
    # Rows that are expected in all calls together, 0 where nobody knows.
    int64_t rows_expected
    # Of the tables of a partition, while nothing of it is on disk and then; of its filters.
    int64_t first_bytes_max
    int64_t table_bytes_max
    int64_t filter_bytes_max
    uint8_t* bitmap
    int64_t kept


cdef inline bint may_take(const Job* job, uint32_t owner) noexcept nogil:
    """Whether a key with this owner was claimed by an earlier try of the one who asks."""
    cdef int i
    for i in range(job.earlier_count):
        if job.earlier[i] == owner:
            return True
    return False


cdef inline int64_t keys_expected(const Partition* part, const Job* job) noexcept nogil:
    """How many keys a table will have in the end, if rows to come are as often new as those that came."""
    return <int64_t> (<double> job.rows_expected / TABLES * part.keys / part.rows) if part.rows else 0


cdef int make_room(Partition* part, const Job* job) noexcept nogil:
    """Lets the tables take more keys: they grow or, where they may not, are written to disk."""
    cdef Tables* tables = &part.tables
    cdef int64_t bytes_max = job.table_bytes_max if part.runs.count else job.first_bytes_max
    cdef int64_t capacity
    cdef int code
    if tables.room == NULL:
        tables.room = room_reserve(job.first_bytes_max)
        if tables.room == NULL:
            return KEYS_MEMORY
        tables.reserved = job.first_bytes_max
    if tables.bytes:
        capacity = grown_capacity(tables, keys_expected(part, job), bytes_max)
    else:
        # Another one for each partition, so that they do not all grow at the same time: together they are as full as
        # one of them is on average.
        capacity = FIRST_CAPACITY + FIRST_CAPACITY * tables.number // (4 * TABLES)
    if part.held and (capacity == 0 or bytes_of(tables, capacity) > bytes_max):
        code = spill(&part.runs, tables, job.folder, job.filter_bytes_max)
        if code != KEYS_GOOD:
            return code
        part.held = 0
        if tables.bytes <= job.table_bytes_max:
            tables_clear(tables)
        else:
            tables_free(tables)
        return KEYS_GOOD
    return KEYS_GOOD if capacity and tables_grow(tables, capacity) else KEYS_MEMORY


cdef int put_key(Partition* part, Table* table, const Job* job, const Asked* key) noexcept nogil:
    """Puts a key that the table does not have, and did not take as it is."""
    cdef bint there
    cdef int code
    while True:
        code = make_room(part, job)
        if code != KEYS_GOOD:
            return code
        if table.keys != NULL and table_put(
            table, table_find(table, key.left, key.right, &there), key.left, key.right, job.owner
        ):
            return KEYS_GOOD


cdef int ask_key(Partition* part, Table* table, Job* job, const Asked* key) noexcept nogil:
    """Answers for one key in the bitmap."""
    cdef bint there = False
    cdef uint32_t owner = 0
    cdef Slot* slot = NULL
    cdef int code
    if table.keys != NULL:
        slot = table_find(table, key.left, key.right, &there)
    if there:
        owner = owner_of(slot)
    elif part.runs.count:
        code = runs_find(&part.runs, high_of(part, table, key), key.left << 56 | key.right >> 8, &owner)
        if code != KEYS_GOOD:
            return code
    if job.look:
        if owner == 0:
            return KEYS_GOOD
    elif owner and (owner == job.owner or not may_take(job, owner)):
        return KEYS_GOOD
    elif there:
        set_owner(slot, job.owner)
    else:
        # New, or newer than what is on disk, for which it stands from now on.
        if slot == NULL or not table_put(table, slot, key.left, key.right, job.owner):
            code = put_key(part, table, job, key)
            if code != KEYS_GOOD:
                return code
        part.held += 1
        part.keys += owner == 0
    job.bitmap[key.row >> 3] |= 1 << (key.row & 7)
    job.kept += 1
    return KEYS_GOOD


cdef inline uint64_t high_of(const Partition* part, const Table* table, const Asked* key) noexcept nogil:
    return <uint64_t> (part.tables.number + (table - part.tables.first)) << 56 | key.left >> 8


cdef int ask_all(
    Partition* parts, Table* tables, Job* job, const uint8_t* keys, int64_t first_row, int64_t count,
    Asked* asked, int* failed
) noexcept nogil:
    """Sorts the keys by table and roughly by place (those of one place in the order of their rows), and asks each
    partition.

    Neighbours in a table are so asked one after the other, which halves what the memory costs: most of it is not to
    find the bytes but the page that they are in.
    failed: errno, where the code is KEYS_FILE.
    """
    cdef int64_t ends[CELLS]
    cdef int64_t row, total = 0, size, j, end
    cdef uint64_t high, low
    cdef const Asked* key
    cdef int k, p, cell, cells_each = CELLS // PARTITIONS, code = KEYS_GOOD
    memset(ends, 0, sizeof(ends))
    for row in range(count):
        low = key_word(keys + 16 * row + 8)
        ends[key_mix(key_word(keys + 16 * row), low) >> (56 - REACH_BITS)] += 1
    for cell in range(CELLS):
        size = ends[cell]
        ends[cell] = total
        total += size
    for row in range(count):
        low = key_word(keys + 16 * row + 8)
        high = key_mix(key_word(keys + 16 * row), low)
        cell = <int> (high >> (56 - REACH_BITS))
        asked[ends[cell]].left = high << 8 | low >> 56
        asked[ends[cell]].right = low << 8
        asked[ends[cell]].row = <uint32_t> (first_row + row)
        asked[ends[cell]].table = <uint32_t> (high >> 56)
        ends[cell] += 1
    # Each owner begins elsewhere, so that threads seldom meet.
    for k in range(PARTITIONS):
        p = (job.owner * 29 + k) & (PARTITIONS - 1)
        j = ends[(p * cells_each) - 1] if p else 0
        end = ends[(p + 1) * cells_each - 1]
        if j == end:
            continue
        PyThread_acquire_lock(parts[p].lock, WAIT_LOCK)
        while j < end and code == KEYS_GOOD:
            if j + AHEAD < count:
                key = asked + j + AHEAD
                slots_prefetch(&tables[key.table].keys, &tables[key.table].capacity, key.left)
            parts[p].rows += not job.look
            code = ask_key(parts + p, tables + asked[j].table, job, asked + j)
            j += 1
        if code != KEYS_GOOD:
            failed[0] = errno
        PyThread_release_lock(parts[p].lock)
        if code != KEYS_GOOD:
            return code
    return KEYS_GOOD


cdef class KeySet:
    """An exact set of keys of 16 bytes, for several threads at once.

    memory_bytes: what it takes at the most, beside the growing of one partition for each thread that adds
        and a four-hundredth of what is on disk; from MEMORY_BYTES_MIN.
    folder: where temporary files are made when that is not enough; they have no names, and go with the process.
    rows_expected: how many rows all calls of ``claim`` will be about, as far as one knows (0: one does not).

    Raises ValueError for a budget that is too small, or a negative number of rows.
    """

    cdef Partition* parts
    cdef Table* tables
    cdef bytes folder
    cdef int64_t first_bytes_max
    cdef int64_t table_bytes_max
    cdef int64_t filter_bytes_max
    cdef int64_t rows_expected
    cdef object closed

    def __cinit__(self, memory_bytes, folder, rows_expected=0):
        cdef int i
        if memory_bytes < MEMORY_BYTES_MIN:
            raise ValueError(f"a key set needs {MEMORY_BYTES_MIN} bytes at least, not {memory_bytes}")
        if not 0 <= rows_expected < ROWS_MAX:
            raise ValueError(f"{rows_expected} rows")
        self.rows_expected = rows_expected
        self.folder = os.fsencode(folder)
        if b"\0" in self.folder:
            raise ValueError("a folder's name with a NUL in it")
        cdef int64_t share = memory_bytes // PARTITIONS
        # All but what their first filter will take; then five eighths for tables: ten bits in a filter stand for
        # twenty bytes in a table.
        self.first_bytes_max = share * 15 // 16
        self.table_bytes_max = share * 5 // 8
        self.filter_bytes_max = share - self.table_bytes_max
        self.closed = False
        self.parts = <Partition*> calloc(PARTITIONS, sizeof(Partition))
        self.tables = <Table*> calloc(TABLES, sizeof(Table))
        if self.parts == NULL or self.tables == NULL:
            raise MemoryError
        for i in range(PARTITIONS):
            self.parts[i].runs.fd = -1
            self.parts[i].tables.count = TABLES // PARTITIONS
            self.parts[i].tables.number = i * self.parts[i].tables.count
            self.parts[i].tables.first = self.tables + self.parts[i].tables.number
        for i in range(PARTITIONS):
            self.parts[i].lock = PyThread_allocate_lock()
            if self.parts[i].lock == NULL:
                raise MemoryError

    def __dealloc__(self):
        cdef int i
        if self.parts != NULL:
            for i in range(PARTITIONS):
                if self.tables != NULL:
                    tables_free(&self.parts[i].tables)
                runs_free(&self.parts[i].runs)
                if self.parts[i].lock != NULL:
                    PyThread_free_lock(self.parts[i].lock)
            free(self.parts)
        free(self.tables)

    cdef tuple _ask(self, const uint8_t[::1] keys, Job* job):
        cdef int64_t size = keys.shape[0]
        cdef int64_t count = size // 16, done = 0, some
        cdef int code = KEYS_GOOD, failed = 0
        cdef Asked* asked
        cdef const uint8_t* data = &keys[0] if size else NULL
        if size % 16:
            raise ValueError(f"{size} bytes are no keys of 16 bytes")
        if count >= KEYS_MAX:
            raise ValueError(f"{count} keys in one call")
        if self.closed:
            raise ValueError("the key set is closed")
        bitmap = PyBytes_FromStringAndSize(NULL, (count + 7) >> 3)
        job.bitmap = <uint8_t*> PyBytes_AS_STRING(bitmap)
        memset(job.bitmap, 0, (count + 7) >> 3)
        if count == 0:
            return bitmap, 0
        job.folder = PyBytes_AS_STRING(self.folder)
        job.rows_expected = self.rows_expected
        job.first_bytes_max = self.first_bytes_max
        job.table_bytes_max = self.table_bytes_max
        job.filter_bytes_max = self.filter_bytes_max
        asked = <Asked*> malloc((count if count < ASKED_MAX else ASKED_MAX) * sizeof(Asked))
        if asked == NULL:
            raise MemoryError
        with nogil:
            while done < count and code == KEYS_GOOD:
                some = count - done if count - done < ASKED_MAX else ASKED_MAX
                code = ask_all(
                    self.parts, self.tables, job, data + 16 * done, done, some, asked, &failed)
                done += some
        free(asked)
        if code == KEYS_FILE:
            raise OSError(failed, os.strerror(failed), os.fsdecode(self.folder))
        if code != KEYS_GOOD:
            raise MemoryError("no memory for a partition of a key set")
        return bitmap, job.kept

    def claim(self, const uint8_t[::1] keys not None, owner, earlier=()):
        """Claims n keys (16 n bytes) for an owner: (an Arrow bitmap of those that are its own now, their number).

        A key is kept where nobody has claimed it, or one of ``earlier``, owners whose claims it may take over
        (earlier tries of the same chunk). Of equal keys of a call the first is kept; one that the same owner
        has claimed in an earlier call is not.

        Raises ValueError: no whole keys, an owner that is none; OSError: a temporary file failed; MemoryError.
        After an error some keys may have been claimed.
        """
        cdef Job job
        cdef uint32_t* owners = NULL
        cdef int i
        memset(&job, 0, sizeof(job))
        if not 1 <= owner <= OWNER_MAX or any(not 1 <= e <= OWNER_MAX for e in earlier):
            raise ValueError(f"owners are from 1 to {OWNER_MAX}")
        if len(earlier) > EARLIER_MAX:
            raise ValueError(f"{len(earlier)} earlier owners")
        job.owner = owner
        job.earlier_count = len(earlier)
        try:
            if job.earlier_count:
                owners = <uint32_t*> malloc(job.earlier_count * sizeof(uint32_t))
                if owners == NULL:
                    raise MemoryError
                for i, e in enumerate(earlier):
                    owners[i] = e
                job.earlier = owners
            return self._ask(keys, &job)
        finally:
            free(owners)

    def contains(self, const uint8_t[::1] keys not None):
        """Of n keys (16 n bytes): (an Arrow bitmap of those that are in the set, their number). Raises as claim."""
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.look = True
        return self._ask(keys, &job)

    def __len__(self):
        cdef int i
        return sum(self.parts[i].keys for i in range(PARTITIONS))

    @property
    def memory_bytes(self):
        """Bytes of tables, filters and fences now."""
        cdef int i, j
        cdef int64_t total = 0
        for i in range(PARTITIONS):
            PyThread_acquire_lock(self.parts[i].lock, WAIT_LOCK)
            total += self.parts[i].tables.bytes
            for j in range(self.parts[i].runs.count):
                total += run_bytes(self.parts[i].runs.run + j)
            PyThread_release_lock(self.parts[i].lock)
        return total

    @property
    def disk_bytes(self):
        """Bytes of temporary files now."""
        cdef int i
        return sum(self.parts[i].runs.file_bytes for i in range(PARTITIONS))

    def close(self):
        """Gives memory and files back; the set can only be dropped then. Not while another thread uses it."""
        cdef int i
        self.closed = True
        for i in range(PARTITIONS):
            PyThread_acquire_lock(self.parts[i].lock, WAIT_LOCK)
            tables_free(&self.parts[i].tables)
            self.parts[i].held = 0
            runs_free(&self.parts[i].runs)
            PyThread_release_lock(self.parts[i].lock)
