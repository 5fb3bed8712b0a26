# Memory that the kernels read into and build Arrow columns in, given out by the buffer protocol. Included
# by each kernel that reads a server's rows; see arrow_build.pxd.

cdef class Buffer:
    """Bytes that a kernel made, given out by the buffer protocol; freed with the last view."""

    cdef uint8_t* data
    cdef Py_ssize_t size

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)

    def __len__(self):
        return self.size


cdef Buffer own(uint8_t* data, int64_t size, int64_t capacity):
    """Takes over allocated memory (which is freed with it), and gives back what is much too much."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef void* moved
    if data != NULL and capacity - size > 4096 + (size >> 2):
        moved = realloc(data, <size_t> (size + SLACK))
        if moved != NULL:
            data = <uint8_t*> moved
    if data == NULL:
        data = <uint8_t*> malloc(SLACK)
        if data == NULL:
            raise MemoryError
    buffer.data = data
    buffer.size = size
    return buffer


cdef enum:
    #: What a socket is read into: a batch, one read more, and room so that it seldom has to be moved.
    SLAB_BYTES = 2 << 20
    #: Slabs kept for later, 16 MiB in all: as many as the queues of two workers hold.
    SPARE_SLABS_MAX = 8
    #: Bytes of one column that are kept from block to block.
    EMPTY_BYTES_MAX = 1 << 20


# Slabs of the usual size that nobody uses at the moment: fresh memory costs a page fault every 4 KiB.
cdef uint8_t* spare_slabs[SPARE_SLABS_MAX]
cdef int spare_slab_count = 0


cdef class Slab:
    """Memory that a socket is read into. Views keep it alive after the decoder has moved on."""

    cdef uint8_t* data
    cdef int64_t size

    def __cinit__(self, int64_t size):
        global spare_slab_count
        if size < 1:
            raise ValueError(f"a slab of {size} bytes")
        if size == SLAB_BYTES and spare_slab_count:
            spare_slab_count -= 1
            self.data = spare_slabs[spare_slab_count]
        else:
            self.data = <uint8_t*> malloc(<size_t> (size + SLACK))
        if self.data == NULL:
            raise MemoryError
        memset(self.data + size, 0, SLACK)
        self.size = size

    def __dealloc__(self):
        global spare_slab_count
        if self.data != NULL and self.size == SLAB_BYTES and spare_slab_count < SPARE_SLABS_MAX:
            spare_slabs[spare_slab_count] = self.data
            spare_slab_count += 1
        else:
            free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)


cdef void drop(Column* column) noexcept:
    """Frees what a column has built (not the column)."""
    free(column.validity)
    free(column.offsets)
    free(column.data)
    column.validity = NULL
    column.offsets = NULL
    column.data = NULL
    column.validity_size = column.offsets_size = column.data_size = column.data_used = 0
    column.rows = column.nulls = 0
    if column.child != NULL:
        drop(column.child)


cdef void empty(Column* column) noexcept nogil:
    """Forgets what a column has built; its memory is built in again, unless a huge value has made it large."""
    column.rows = column.nulls = column.data_used = 0
    if column.data_size > EMPTY_BYTES_MAX:
        free(column.data)
        column.data = NULL
        column.data_size = 0
    if column.child != NULL:
        empty(column.child)


cdef void destroy(Column* column) noexcept:
    """Frees all that a column holds (not the column itself)."""
    drop(column)
    free(column.at)
    free(column.sizes)
    if column.child != NULL:
        destroy(column.child)
        free(column.child)


cdef int64_t built(Column* column) noexcept nogil:
    """Bytes of a column's data so far."""
    return column.data_used + (built(column.child) if column.child != NULL else 0)


cdef tuple hand_over(Column* column):
    """(rows, nulls, [validity or None, other buffers], child or None); the column starts anew."""
    cdef int64_t rows = column.rows, nulls = column.nulls
    buffers = [None]
    if column.validity != NULL:
        buffers[0] = own(column.validity, (rows + 7) // 8, column.validity_size)
        column.validity = NULL
    if column.width == 0:
        if column.offsets == NULL:  # a child that no list has reached
            if grow(<void**> &column.offsets, &column.offsets_size, 4):
                raise MemoryError
            column.offsets[0] = 0
        buffers.append(own(<uint8_t*> column.offsets, (rows + 1) * 4, column.offsets_size))
        column.offsets = NULL
    if column.child == NULL:
        buffers.append(own(column.data, column.data_used, column.data_size))
        column.data = NULL
    child = hand_over(column.child) if column.child != NULL else None
    # The sizes reached are where the next batch begins, so that it seldom has to grow.
    column.validity_size = column.offsets_size = column.data_size = column.data_used = 0
    column.rows = column.nulls = 0
    return rows, nulls, buffers, child
