# What a partition of a key set has written to disk: sorted runs of keys in an unlinked temporary file.
#
# Of each run there is in memory the first key of every block (16 bytes for 204 keys) and, where the budget allows,
# a filter of about ten bits a key: a key that is not there is nearly always known without the disk, one that is
# there costs one read of a block. Newer runs stand for older ones; too many are merged into one.

from libc.errno cimport EINTR, EIO, ENAMETOOLONG, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen

from key_table cimport Slot, Table, Tables, key_home, owner_of


cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdlib.h>
    #include <sys/types.h>
    #include <unistd.h>
    /* Packed: its alignment is 1, and a key on disk has 20 bytes. */
    typedef struct __attribute__((packed)) { uint64_t high; uint64_t low; uint32_t owner; } rf_key;
    static inline int rf_key_less(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
      return a < c || (a == c && b < d);
    }
    /* A file without a name: it is gone with the process, however that ends. */
    static inline int rf_unnamed_file(char* path) {
      int fd = mkstemp(path);
      if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        unlink(path);
      }
      return fd;
    }
    static inline void rf_set_errno(int value) { errno = value; }
    /* The bits that a key has in its word of a filter: four of 64. */
    static inline uint64_t rf_filter_bits(uint64_t low) {
      uint64_t x = low * 0xd6e8feb86659fd93ULL;
      return 1ULL << (x >> 58) | 1ULL << (x >> 52 & 63) | 1ULL << (x >> 46 & 63) | 1ULL << (x >> 40 & 63);
    }
    """
    ctypedef struct Key "rf_key":
        uint64_t high
        uint64_t low
        uint32_t owner
    bint key_less "rf_key_less"(uint64_t high, uint64_t low, uint64_t other_high, uint64_t other_low) noexcept
    int unnamed_file "rf_unnamed_file"(char* path) noexcept
    void set_errno "rf_set_errno"(int value) noexcept
    uint64_t filter_bits "rf_filter_bits"(uint64_t low) noexcept
    ssize_t pread(int fd, void* into, size_t size, int64_t offset) noexcept
    ssize_t pwrite(int fd, const void* data, size_t size, int64_t offset) noexcept
    int close_file "close"(int fd) noexcept


cdef enum:
    # Codes: what a function here and in key_set.pyx says beside how it went.
    KEYS_GOOD = 0
    KEYS_MEMORY = -1
    KEYS_FILE = -2     # errno says why

    KEY_BYTES = 20
    BLOCK_KEYS = 204
    BLOCK_BYTES = 4080   # BLOCK_KEYS × KEY_BYTES: one page of a disk
    RUNS_MAX = 6
    WRITE_BLOCKS = 16
    FILTER_BITS = 10
    PATH_BYTES_MAX = 4096


cdef struct Fence:
    uint64_t high
    uint64_t low


cdef struct Run:
    int64_t offset
    int64_t keys
    int64_t blocks
    Fence* fences
    uint64_t* filter
    int64_t filter_words


cdef struct Runs:
    int fd             # -1: nothing was written yet
    int count
    int64_t file_bytes
    Run run[RUNS_MAX]   # the oldest first


cdef inline int file_failed(int reason) noexcept nogil:
    set_errno(reason)
    return KEYS_FILE


cdef inline int read_whole(int fd, uint8_t* into, int64_t size, int64_t offset) noexcept nogil:
    cdef ssize_t got
    while size > 0:
        got = pread(fd, into, size, offset)
        if got < 0:
            if errno == EINTR:
                continue
            return KEYS_FILE
        if got == 0:
            return file_failed(EIO)
        into += got
        offset += got
        size -= got
    return KEYS_GOOD


cdef inline int write_whole(int fd, const uint8_t* data, int64_t size, int64_t offset) noexcept nogil:
    cdef ssize_t put
    while size > 0:
        put = pwrite(fd, data, size, offset)
        if put < 0:
            if errno == EINTR:
                continue
            return KEYS_FILE
        data += put
        offset += put
        size -= put
    return KEYS_GOOD


cdef inline int open_unnamed(const char* folder, int* fd) noexcept nogil:
    """A new temporary file in a folder, unlinked already."""
    cdef char path[PATH_BYTES_MAX]
    cdef size_t length = strlen(folder)
    cdef const char* name = "/rowferry-keys-XXXXXX"
    if length + 32 > PATH_BYTES_MAX:
        return file_failed(ENAMETOOLONG)
    memcpy(path, folder, length)
    memcpy(path + length, name, strlen(name) + 1)
    fd[0] = unnamed_file(path)
    return KEYS_GOOD if fd[0] >= 0 else KEYS_FILE


# --- keys of tables ------------------------------------------------------------------------------

# A place in tables.
cdef struct Walk:
    int table
    int64_t slot


cdef inline bint next_key(const Tables* tables, Walk* walk, Key* key) noexcept nogil:
    """The next key of the tables, in ascending order; False where there is none."""
    cdef const Table* table
    cdef const Slot* slot
    while walk.table < tables.count:
        table = tables.first + walk.table
        while walk.slot < table.slots:
            slot = table.keys + walk.slot
            walk.slot += 1
            if slot.tag:
                key.high = <uint64_t> (tables.number + walk.table) << 56 | slot.left >> 8
                key.low = slot.left << 56 | slot.right >> 8
                key.owner = owner_of(slot)
                return True
        walk.table += 1
        walk.slot = 0
    return False


cdef inline int64_t keys_of_tables(const Tables* tables) noexcept nogil:
    cdef int64_t total = 0
    cdef int i
    for i in range(tables.count):
        total += tables.first[i].count
    return total


# --- looking up ----------------------------------------------------------------------------------

cdef inline uint64_t filter_word(const Run* run, uint64_t high) noexcept nogil:
    """The word of a filter that a key has bits in; the first byte of a partition's keys is much the same."""
    return key_home(high << 8, run.filter_words)


cdef inline int run_find(int fd, const Run* run, uint64_t high, uint64_t low, uint32_t* owner) noexcept nogil:
    """The owner of a key in a run, 0 where it is not there."""
    cdef uint8_t block[BLOCK_BYTES]
    cdef const Key* keys = <const Key*> block
    cdef int64_t first = 0, last = run.blocks, middle, size
    cdef uint64_t bits
    cdef int code
    owner[0] = 0
    if run.filter_words:
        bits = filter_bits(low)
        if run.filter[filter_word(run, high)] & bits != bits:
            return KEYS_GOOD
    # The last block that does not begin beyond the key.
    while first < last:
        middle = (first + last) >> 1
        if key_less(high, low, run.fences[middle].high, run.fences[middle].low):
            last = middle
        else:
            first = middle + 1
    if first == 0:
        return KEYS_GOOD
    first -= 1
    size = run.keys - first * BLOCK_KEYS
    if size > BLOCK_KEYS:
        size = BLOCK_KEYS
    code = read_whole(fd, block, size * KEY_BYTES, run.offset + first * BLOCK_BYTES)
    if code != KEYS_GOOD:
        return code
    first = 0
    last = size
    while first < last:
        middle = (first + last) >> 1
        if key_less(keys[middle].high, keys[middle].low, high, low):
            first = middle + 1
        else:
            last = middle
    if first < size and keys[first].high == high and keys[first].low == low:
        owner[0] = keys[first].owner
    return KEYS_GOOD


cdef inline int runs_find(const Runs* runs, uint64_t high, uint64_t low, uint32_t* owner) noexcept nogil:
    """The owner of a key on disk, 0 where it is not there."""
    cdef int i, code
    owner[0] = 0
    for i in range(runs.count - 1, -1, -1):
        code = run_find(runs.fd, runs.run + i, high, low, owner)
        if code != KEYS_GOOD or owner[0]:
            return code
    return KEYS_GOOD


# --- writing a run -------------------------------------------------------------------------------

cdef struct Output:
    int fd
    Run run
    uint8_t* buffer
    int64_t buffered      # keys


cdef inline int output_open(Output* out, int fd, int64_t offset, int64_t keys_max, int64_t filter_bytes) noexcept nogil:
    """keys_max: at least as many as will come; filter_bytes: what a filter may take at the most."""
    cdef int64_t words = (keys_max * FILTER_BITS + 63) >> 6
    memset(out, 0, sizeof(Output))
    out.fd = fd
    out.run.offset = offset
    out.run.fences = <Fence*> calloc((keys_max + BLOCK_KEYS - 1) // BLOCK_KEYS + 1, sizeof(Fence))
    out.buffer = <uint8_t*> malloc(WRITE_BLOCKS * BLOCK_BYTES)
    if words > filter_bytes >> 3:
        words = filter_bytes >> 3
    if words > 0:
        out.run.filter = <uint64_t*> calloc(words, 8)
        out.run.filter_words = words if out.run.filter != NULL else 0
    return KEYS_GOOD if out.run.fences != NULL and out.buffer != NULL else KEYS_MEMORY


cdef inline int output_flush(Output* out) noexcept nogil:
    cdef int64_t at = out.run.offset + (out.run.keys - out.buffered) * KEY_BYTES
    cdef int code = write_whole(out.fd, out.buffer, out.buffered * KEY_BYTES, at)
    out.buffered = 0
    return code


cdef inline int output_put(Output* out, const Key* key) noexcept nogil:
    if out.run.keys % BLOCK_KEYS == 0:
        out.run.fences[out.run.blocks].high = key.high
        out.run.fences[out.run.blocks].low = key.low
        out.run.blocks += 1
    if out.run.filter_words:
        out.run.filter[filter_word(&out.run, key.high)] |= filter_bits(key.low)
    (<Key*> out.buffer)[out.buffered] = key[0]
    out.buffered += 1
    out.run.keys += 1
    if out.buffered == WRITE_BLOCKS * BLOCK_KEYS:
        return output_flush(out)
    return KEYS_GOOD


cdef inline void run_free(Run* run) noexcept nogil:
    free(run.fences)
    free(run.filter)
    memset(run, 0, sizeof(Run))


cdef inline void output_abandon(Output* out) noexcept nogil:
    free(out.buffer)
    out.buffer = NULL
    run_free(&out.run)


cdef inline int64_t run_bytes(const Run* run) noexcept nogil:
    """Memory that a run takes beside what is on disk."""
    return run.blocks * <int64_t> sizeof(Fence) + run.filter_words * 8


# --- spilling ------------------------------------------------------------------------------------

cdef inline int write_tables(Runs* runs, const Tables* tables, int64_t filter_bytes) noexcept nogil:
    """Appends tables as a run. Where it fails, the runs are as they were."""
    cdef Output out
    cdef Walk walk
    cdef Key key
    cdef int code = output_open(&out, runs.fd, runs.file_bytes, keys_of_tables(tables), filter_bytes)
    memset(&walk, 0, sizeof(walk))
    while code == KEYS_GOOD and next_key(tables, &walk, &key):
        code = output_put(&out, &key)
    if code == KEYS_GOOD:
        code = output_flush(&out)
    if code != KEYS_GOOD:
        output_abandon(&out)
        return code
    free(out.buffer)
    runs.run[runs.count] = out.run
    runs.count += 1
    # The next run begins at a page of its own.
    runs.file_bytes += (out.run.keys * KEY_BYTES + 4095) & ~<int64_t> 4095
    return KEYS_GOOD


# One of the sorted inputs of a merge.
cdef struct Input:
    uint8_t* block
    int64_t at
    int64_t there
    int64_t next_block


cdef inline int input_fill(Input* input_, int fd, const Run* run) noexcept nogil:
    cdef int64_t left = run.keys - input_.next_block * BLOCK_KEYS
    input_.at = 0
    input_.there = left if left < BLOCK_KEYS else BLOCK_KEYS
    if left <= 0:
        input_.there = 0
        return KEYS_GOOD
    input_.next_block += 1
    return read_whole(
        fd, input_.block, input_.there * KEY_BYTES, run.offset + (input_.next_block - 1) * BLOCK_BYTES
    )


cdef inline int merge_into(Runs* runs, const Tables* tables, Output* out, Input* inputs) noexcept nogil:
    """Writes all runs and the tables as one run: of a key that comes several times the newest."""
    cdef Walk walk
    cdef Key newest, taken
    cdef const Key* best
    cdef const Key* one
    cdef int i, code
    cdef bint there
    memset(&walk, 0, sizeof(walk))
    there = next_key(tables, &walk, &newest)
    for i in range(runs.count):
        code = input_fill(inputs + i, runs.fd, runs.run + i)
        if code != KEYS_GOOD:
            return code
    while True:
        best = &newest if there else NULL
        for i in range(runs.count - 1, -1, -1):
            if inputs[i].at < inputs[i].there:
                one = (<const Key*> inputs[i].block) + inputs[i].at
                if best == NULL or key_less(one.high, one.low, best.high, best.low):
                    best = one
        if best == NULL:
            return output_flush(out)
        taken = best[0]
        code = output_put(out, &taken)
        if code != KEYS_GOOD:
            return code
        if there and newest.high == taken.high and newest.low == taken.low:
            there = next_key(tables, &walk, &newest)
        for i in range(runs.count):
            if inputs[i].at < inputs[i].there:
                one = (<const Key*> inputs[i].block) + inputs[i].at
                if one.high == taken.high and one.low == taken.low:
                    inputs[i].at += 1
                    if inputs[i].at == inputs[i].there:
                        code = input_fill(inputs + i, runs.fd, runs.run + i)
                        if code != KEYS_GOOD:
                            return code


cdef inline int merge_runs(
    Runs* runs, const Tables* tables, const char* folder, int64_t filter_bytes
) noexcept nogil:
    """Merges all runs and the tables into one run in a new file. Where it fails, the runs stay, slower to search."""
    cdef Output out
    cdef Input inputs[RUNS_MAX]
    cdef int64_t keys_max = keys_of_tables(tables)
    cdef uint8_t* blocks
    cdef int fd = -1, i, code = open_unnamed(folder, &fd)
    if code != KEYS_GOOD:
        return code
    for i in range(runs.count):
        keys_max += runs.run[i].keys
        # Their filters make room for the new one.
        free(runs.run[i].filter)
        runs.run[i].filter = NULL
        runs.run[i].filter_words = 0
    memset(inputs, 0, sizeof(inputs))
    blocks = <uint8_t*> malloc(RUNS_MAX * BLOCK_BYTES)
    code = output_open(&out, fd, 0, keys_max, filter_bytes)
    if blocks == NULL:
        code = KEYS_MEMORY
    if code == KEYS_GOOD:
        for i in range(runs.count):
            inputs[i].block = blocks + i * BLOCK_BYTES
        code = merge_into(runs, tables, &out, inputs)
    free(blocks)
    if code != KEYS_GOOD:
        output_abandon(&out)
        close_file(fd)
        return code
    free(out.buffer)
    for i in range(runs.count):
        run_free(runs.run + i)
    close_file(runs.fd)
    runs.fd = fd
    runs.run[0] = out.run
    runs.count = 1
    runs.file_bytes = (out.run.keys * KEY_BYTES + 4095) & ~<int64_t> 4095
    return KEYS_GOOD


cdef inline int spill(Runs* runs, const Tables* tables, const char* folder, int64_t filter_bytes_max) noexcept nogil:
    """Writes tables to disk, as a run of its own or together with those that are there."""
    cdef int64_t left = filter_bytes_max
    cdef int i, code
    if runs.count == RUNS_MAX:
        return merge_runs(runs, tables, folder, filter_bytes_max)
    if runs.fd < 0:
        code = open_unnamed(folder, &runs.fd)
        if code != KEYS_GOOD:
            runs.fd = -1
            return code
    for i in range(runs.count):
        left -= run_bytes(runs.run + i)
    return write_tables(runs, tables, left if left > 0 else 0)


cdef inline void runs_free(Runs* runs) noexcept nogil:
    cdef int i
    for i in range(runs.count):
        run_free(runs.run + i)
    runs.count = 0
    if runs.fd >= 0:
        close_file(runs.fd)
    runs.fd = -1
    runs.file_bytes = 0
