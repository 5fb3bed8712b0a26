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

from key_runs cimport (
    KEYS_FILE, KEYS_GOOD, KEYS_MEMORY, Runs, run_bytes, runs_find, runs_free, spill,
)
from key_table cimport (
    FIRST_CAPACITY, KEY_BYTES, Table, grown_capacity, key_home, key_mix, key_prefetch, key_word, slots_of, table_find, table_free,
    table_grow, table_is_full, table_put,
)

#: Partitions of a set with a budget of at least this many bytes, and of a smaller one.
cdef int64_t MANY_BYTES = 32 << 20
cdef int PARTITIONS = 64
cdef int PARTITIONS_FEW = 16
# Parts that the keys of one partition are sorted into, by their places in its table; and those of all partitions.
cdef enum:
    REACH_BITS = 5
    CELLS_MAX = 2048
    # Keys that are sorted at once: 24 bytes each, which stay in the second-level cache.
    ASKED_MAX = 16384
#: The least budget: below, partitions would be written to disk with a few hundred keys each.
MEMORY_BYTES_MIN = 1 << 20
#: Keys of one call; their places are counted in 32 bits.
KEYS_MAX = 1 << 31
#: Owners are from 1 to this.
OWNER_MAX = 0xFFFFFFFF
#: Earlier owners of one call: each costs a comparison where a key is held by somebody.
EARLIER_MAX = 100_000
#: Keys ahead for which memory is fetched while one is looked up.
cdef int AHEAD = 12


# A key of a call, beside its row.
cdef struct Asked:
    uint64_t high
    uint64_t low
    int64_t row


cdef struct Partition:
    PyThread_type_lock lock
    Table table
    Runs runs
    # Another one for each partition, so that they do not all grow at the same time: together they are as full as
    # one of them is on average.
    int64_t first_capacity
    # Different keys, in memory and on disk.
    int64_t keys


cdef struct Job:
    # What is asked about all keys of a call.
    bint look         # only whether they are there
    uint32_t owner
    const uint32_t* earlier
    int earlier_count
    const char* folder
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


cdef int make_room(Partition* part, const Job* job) noexcept nogil:
    """Lets the table take one more key: it grows or, where it may not, is written to disk."""
    cdef int64_t capacity = grown_capacity(&part.table) if part.table.capacity else part.first_capacity
    cdef int code
    if part.table.count and slots_of(capacity) * KEY_BYTES > job.table_bytes_max:
        code = spill(&part.runs, &part.table, job.folder, job.filter_bytes_max)
        if code != KEYS_GOOD:
            return code
        # The slots stay for the keys to come.
        part.table.count = 0
        memset(part.table.keys, 0, part.table.slots * KEY_BYTES)
        return KEYS_GOOD
    return KEYS_GOOD if table_grow(&part.table, capacity) else KEYS_MEMORY


cdef int put_key(Partition* part, const Job* job, const Asked* key) noexcept nogil:
    """Puts a key that the table does not have."""
    cdef bint there
    cdef int code
    cdef int64_t i
    while True:
        if not table_is_full(&part.table):
            i = table_find(&part.table, key.high, key.low, &there)
            if table_put(&part.table, i, key.high, key.low, job.owner):
                return KEYS_GOOD
        code = make_room(part, job)
        if code != KEYS_GOOD:
            return code


cdef int ask_key(Partition* part, Job* job, const Asked* key) noexcept nogil:
    """Answers for one key in the bitmap."""
    cdef bint there = False
    cdef uint32_t owner = 0
    cdef int64_t i = 0
    cdef int code
    if part.table.count:
        i = table_find(&part.table, key.high, key.low, &there)
    if there:
        owner = part.table.keys[i].owner
    elif part.runs.count:
        code = runs_find(&part.runs, key.high, key.low, &owner)
        if code != KEYS_GOOD:
            return code
    if job.look:
        if owner == 0:
            return KEYS_GOOD
    elif owner == 0:
        if part.table.count == 0 or table_is_full(&part.table) or not table_put(
            &part.table, i, key.high, key.low, job.owner
        ):
            code = put_key(part, job, key)
            if code != KEYS_GOOD:
                return code
        part.keys += 1
    elif owner == job.owner or not may_take(job, owner):
        return KEYS_GOOD
    elif there:
        part.table.keys[i].owner = job.owner
    else:
        # Newer than what is on disk, it stands for that.
        code = put_key(part, job, key)
        if code != KEYS_GOOD:
            return code
    job.bitmap[key.row >> 3] |= 1 << (key.row & 7)
    job.kept += 1
    return KEYS_GOOD


cdef int ask_partition(Partition* part, Job* job, const Asked* keys, int64_t count, int* failed) noexcept nogil:
    cdef int64_t j
    cdef int code = KEYS_GOOD
    PyThread_acquire_lock(part.lock, WAIT_LOCK)
    for j in range(count):
        if j + AHEAD < count and part.table.count:
            key_prefetch(part.table.keys, key_home(keys[j + AHEAD].high, part.table.capacity))
        code = ask_key(part, job, keys + j)
        if code != KEYS_GOOD:
            failed[0] = errno
            break
    PyThread_release_lock(part.lock)
    return code


cdef inline int cell_of(uint64_t high, int part_count) noexcept nogil:
    """Where a key is sorted to: by partition, and within one by the first bits of its place."""
    return <int> ((high & (part_count - 1)) << REACH_BITS | high >> (64 - REACH_BITS))


cdef int ask_all(
    Partition* parts, int part_count, Job* job, const uint8_t* keys, int64_t first_row, int64_t count, Asked* asked,
    int* failed
) noexcept nogil:
    """Sorts the keys by partition and roughly by place (those of one place in the order of their rows), and asks each
    partition.

    Neighbours in a table are so asked one after the other, which halves what the memory costs: most of it is not to
    find the bytes but the page that they are in.
    failed: errno, where the code is KEYS_FILE.
    """
    cdef int64_t ends[CELLS_MAX]
    cdef int64_t row, total = 0, size, start
    cdef uint64_t high, low
    cdef int p, k, first, code, cell
    memset(ends, 0, sizeof(ends))
    for row in range(count):
        low = key_word(keys + 16 * row + 8)
        ends[cell_of(key_mix(key_word(keys + 16 * row), low), part_count)] += 1
    for cell in range(part_count << REACH_BITS):
        size = ends[cell]
        ends[cell] = total
        total += size
    for row in range(count):
        low = key_word(keys + 16 * row + 8)
        high = key_mix(key_word(keys + 16 * row), low)
        cell = cell_of(high, part_count)
        asked[ends[cell]].high = high
        asked[ends[cell]].low = low
        asked[ends[cell]].row = first_row + row
        ends[cell] += 1
    # Each owner begins elsewhere, so that threads seldom meet.
    first = (job.owner * 29) & (part_count - 1)
    for k in range(part_count):
        p = (first + k) & (part_count - 1)
        start = ends[(p << REACH_BITS) - 1] if p else 0
        size = ends[(p + 1 << REACH_BITS) - 1] - start
        if size:
            code = ask_partition(parts + p, job, asked + start, size, failed)
            if code != KEYS_GOOD:
                return code
    return KEYS_GOOD


cdef class KeySet:
    """An exact set of keys of 16 bytes, for several threads at once.

    memory_bytes: what it takes at the most, beside the growing of one partition for each thread that adds
        and a four-hundredth of what is on disk; from MEMORY_BYTES_MIN.
    folder: where temporary files are made when that is not enough; they have no names, and go with the process.

    Raises ValueError for a budget that is too small.
    """

    cdef Partition* parts
    cdef int part_count
    cdef bytes folder
    cdef int64_t table_bytes_max
    cdef int64_t filter_bytes_max
    cdef object closed

    def __cinit__(self, memory_bytes, folder):
        cdef int i
        if memory_bytes < MEMORY_BYTES_MIN:
            raise ValueError(f"a key set needs {MEMORY_BYTES_MIN} bytes at least, not {memory_bytes}")
        self.folder = os.fsencode(folder)
        if b"\0" in self.folder:
            raise ValueError("a folder's name with a NUL in it")
        self.part_count = PARTITIONS if memory_bytes >= MANY_BYTES else PARTITIONS_FEW
        cdef int64_t share = memory_bytes // self.part_count
        # Five eighths for tables: ten bits in a filter stand for twenty bytes in a table.
        self.table_bytes_max = share * 5 // 8
        self.filter_bytes_max = share - self.table_bytes_max
        self.closed = False
        self.parts = <Partition*> calloc(self.part_count, sizeof(Partition))
        if self.parts == NULL:
            raise MemoryError
        for i in range(self.part_count):
            self.parts[i].runs.fd = -1
            self.parts[i].first_capacity = FIRST_CAPACITY + FIRST_CAPACITY * i // (6 * self.part_count)
        for i in range(self.part_count):
            self.parts[i].lock = PyThread_allocate_lock()
            if self.parts[i].lock == NULL:
                raise MemoryError

    def __dealloc__(self):
        cdef int i
        if self.parts == NULL:
            return
        for i in range(self.part_count):
            table_free(&self.parts[i].table)
            runs_free(&self.parts[i].runs)
            if self.parts[i].lock != NULL:
                PyThread_free_lock(self.parts[i].lock)
        free(self.parts)

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
        job.table_bytes_max = self.table_bytes_max
        job.filter_bytes_max = self.filter_bytes_max
        asked = <Asked*> malloc((count if count < ASKED_MAX else ASKED_MAX) * sizeof(Asked))
        if asked == NULL:
            raise MemoryError
        with nogil:
            while done < count and code == KEYS_GOOD:
                some = count - done if count - done < ASKED_MAX else ASKED_MAX
                code = ask_all(self.parts, self.part_count, job, data + 16 * done, done, some, asked, &failed)
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
        return sum(self.parts[i].keys for i in range(self.part_count))

    @property
    def memory_bytes(self):
        """Bytes of tables, filters and fences now."""
        cdef int i, j
        cdef int64_t total = 0
        for i in range(self.part_count):
            PyThread_acquire_lock(self.parts[i].lock, WAIT_LOCK)
            total += self.parts[i].table.slots * KEY_BYTES
            for j in range(self.parts[i].runs.count):
                total += run_bytes(self.parts[i].runs.run + j)
            PyThread_release_lock(self.parts[i].lock)
        return total

    @property
    def disk_bytes(self):
        """Bytes of temporary files now."""
        cdef int i
        return sum(self.parts[i].runs.file_bytes for i in range(self.part_count))

    def close(self):
        """Gives memory and files back; the set can only be dropped then. Not while another thread uses it."""
        cdef int i
        self.closed = True
        for i in range(self.part_count):
            PyThread_acquire_lock(self.parts[i].lock, WAIT_LOCK)
            table_free(&self.parts[i].table)
            runs_free(&self.parts[i].runs)
            PyThread_release_lock(self.parts[i].lock)
