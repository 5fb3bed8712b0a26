# Decoder: COPY BINARY off a socket into Arrow buffers. Part of pg_copy.pyx.

cdef class Tuples:
    """Whole tuples as they came, without header, trailer and frames: a part of a slab, read-only."""

    cdef Slab slab
    cdef int64_t begin
    cdef int64_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.slab.data + self.begin, self.size, 1, flags)

    def __len__(self):
        return self.size


# codec: (kind, bytes of a value in the Arrow buffer; 0: offsets and bytes)
CODECS = {
    "bool": (K_BOOL, 1), "int2": (K_INT2, 2), "int4": (K_INT4, 4), "int8": (K_INT8, 8), "oid": (K_OID, 8),
    "float4": (K_FLOAT4, 4), "float8": (K_FLOAT8, 8),
    "numeric_decimal128": (K_DECIMAL128, 16), "numeric_decimal256": (K_DECIMAL256, 32),
    "numeric_text": (K_NUMERIC_TEXT, 0), "text": (K_TEXT, 0), "name": (K_TEXT, 0), "char": (K_CHAR, 0),
    "jsonb": (K_JSONB, 0), "bytea": (K_BINARY, 0), "wire": (K_BINARY, 0), "wire_numeric": (K_WIRE_NUMERIC, 0),
    "date": (K_DATE, 4), "time": (K_TIME, 8), "timestamp": (K_TIMESTAMP, 8), "timestamptz": (K_TIMESTAMP, 8),
    "interval": (K_INTERVAL, 16), "uuid": (K_UUID, 16), "bit": (K_BIT, 0), "varbit": (K_BIT, 0), "list": (K_LIST, 0),
}  # fmt: skip


cdef int prepare(Column* column, str codec, dict params, int depth) except -1:
    """Fills in a zeroed column from its codec; raises ValueError for what is no codec."""
    cdef int k, precision
    known = CODECS.get(codec)
    if known is None:
        raise ValueError(f"no codec {codec!r}")
    column.kind, column.width = known
    if column.kind == K_DECIMAL128 or column.kind == K_DECIMAL256:
        precision, column.scale = params["precision"], params["scale"]
        if not 0 <= column.scale <= precision or not 1 <= precision <= (38 if column.kind == K_DECIMAL128 else 76):
            raise ValueError(f"no {codec} of precision {precision}, scale {column.scale}")
        column.bound[0] = 1
        for k in range(precision):
            limbs_multiply_add(column.bound, 4, 10, 0)
    elif column.kind == K_LIST:
        if depth == DEPTH_MAX:
            raise ValueError(f"lists nested deeper than {DEPTH_MAX}")
        inner, inner_params = params["inner"]
        column.element = params.get("element_oid") or 0
        column.child = <Column*> calloc(1, sizeof(Column))
        if column.child == NULL:
            raise MemoryError
        prepare(column.child, inner, inner_params, depth + 1)
    return 0


cdef bint expands(Column* column) noexcept:
    """Whether a short field can become a long value."""
    if column.kind == K_LIST:
        return expands(column.child)
    return column.kind == K_NUMERIC_TEXT or column.kind == K_BIT


cdef int nodes_of(const Column* column) noexcept nogil:
    return 1 + (nodes_of(column.child) if column.child != NULL else 0)


cdef IntakeColumn* show(const Column* column, IntakeColumn* out) noexcept nogil:
    """Writes where a column and its children lie, from ``out`` on; gives what is behind them."""
    out.holds = INTAKE_BITS if column.kind == K_BOOL else INTAKE_VALUES
    out.width = column.width if out.holds == INTAKE_VALUES else 0
    out.rows = column.rows
    out.validity = column.validity if column.nulls else NULL
    out.data = column.data
    out.payload = NULL
    out.payload_size = 0
    if column.width == 0:
        out.holds = INTAKE_LISTS if column.child != NULL else INTAKE_TEXTS
        out.width = 0
        out.data = <const uint8_t*> column.offsets
    if out.holds == INTAKE_TEXTS:
        out.payload = column.data
        out.payload_size = column.data_used
    return out + 1 if column.child == NULL else show(column.child, out + 1)


cdef class Decoder:
    """Decodes one COPY … TO STDOUT (FORMAT binary) stream into Arrow buffers.

    Bytes come in by :meth:`receive` (straight off a socket into the decoder's own memory) or
    :meth:`feed_messages`; whole rows go out by :meth:`take`. Memory: what was received and not yet
    taken, at least ``buffer_bytes``, at most the largest row and what :meth:`take` was not asked for.
    One thread at a time; the GIL is released while bytes are worked on. Rows go to :meth:`take` or
    to :meth:`tally`, not to both.

    columns: one (codec, params) for each field of a tuple. Codecs: bool int2 int4 int8 oid float4
        float8, numeric_decimal128 and numeric_decimal256 (``precision``, ``scale``), numeric_text,
        text name char jsonb bytea date time timestamp timestamptz interval uuid bit varbit, wire,
        wire_numeric, list (``inner``: (codec, params), ``element_oid``: checked unless 0).

    Raises ValueError for an unknown codec, FrameError and DecodeError as said at the methods; after
    one of these the decoder takes nothing more.

    >>> decoder = Decoder([("int4", {}), ("list", {"inner": ("text", {}), "element_oid": 25})])
    """

    cdef Column* columns
    cdef int width
    cdef int block_rows
    cdef uint32_t* at
    cdef int32_t* sizes
    cdef Slab slab
    cdef int64_t slab_bytes      # the usual size of the slab
    cdef int64_t start           # payload not yet taken: slab[start:stop]
    cdef int64_t stop
    cdef int64_t wire            # bytes not yet deframed: slab[wire:wire_end]
    cdef int64_t wire_end
    cdef int64_t message_left    # bytes of the present CopyData message still to come
    cdef bint header_read
    cdef readonly bint ended     # the trailer was read
    cdef bint closed             # CopyDone or an error: no CopyData may follow
    cdef bint failed
    cdef bint busy
    cdef readonly int64_t rows   # rows taken so far

    cdef IntakeColumn* shown     # the columns and their children, for an intake
    cdef int node_count

    def __cinit__(self, list columns, int64_t buffer_bytes=SLAB_BYTES):
        self.width = len(columns)
        if self.width > 32767:
            raise ValueError(f"{self.width} columns are more than a tuple can have")
        self.columns = <Column*> calloc(self.width + 1, sizeof(Column))
        self.at = <uint32_t*> malloc((self.width + 1) * BLOCK_ROWS * sizeof(uint32_t))
        self.sizes = <int32_t*> malloc((self.width + 1) * BLOCK_ROWS * sizeof(int32_t))
        if self.columns == NULL or self.at == NULL or self.sizes == NULL:
            raise MemoryError
        self.block_rows = BLOCK_ROWS
        for i, (codec, params) in enumerate(columns):
            prepare(&self.columns[i], codec, params, 0)
            self.node_count += nodes_of(&self.columns[i])
            if expands(&self.columns[i]):
                self.block_rows = 32  # so that take() can stop soon after its output has grown large
        self.shown = <IntakeColumn*> calloc(self.node_count + 1, sizeof(IntakeColumn))
        if self.shown == NULL:
            raise MemoryError
        self.slab_bytes = max(4096, buffer_bytes)
        self.slab = Slab(self.slab_bytes)

    def __dealloc__(self):
        cdef int c
        if self.columns != NULL:
            for c in range(self.width):
                destroy(&self.columns[c])
        free(self.columns)
        free(self.shown)
        free(self.at)
        free(self.sizes)

    @property
    def buffered(self):
        """Bytes of tuples received and not yet taken (the last of them perhaps in part)."""
        return self.stop - self.start

    def ready(self):
        """The same as ``buffered``: how much :meth:`take` can take at the most."""
        return self.stop - self.start

    def buffer_view(self, int64_t free_bytes_min=256 << 10):
        """A writable view of at least ``free_bytes_min`` bytes to ``recv_into``; then call :meth:`received`.

        The view is good until the next call of any method of the decoder.
        """
        self.enter()
        try:
            self.make_room(max(1, free_bytes_min))
            return memoryview(self.slab)[self.wire_end:]
        finally:
            self.busy = False

    def received(self, int64_t count):
        """Says that ``count`` bytes were written to the view; takes the payload out of its frames.

        Stops at the first message that is not CopyData: see :meth:`message`. Raises FrameError.
        """
        self.enter()
        try:
            if not 0 <= count <= self.slab.size - self.wire_end:
                raise ValueError(f"{count} bytes cannot have been received")
            self.wire_end += count
            self.deframe()
        finally:
            self.busy = False

    def receive(self, recv_into, int64_t free_bytes_min=256 << 10):
        """One ``recv_into(view)`` and :meth:`received`; gives its count, 0 at the end of the stream."""
        view = self.buffer_view(free_bytes_min)
        count = recv_into(view)
        view.release()
        self.received(count)
        return count

    def message(self):
        """The next message that is not CopyData as (type, payload), once it is complete, else None.

        Payload after it is taken out of its frames at once, so call this until it gives None.
        """
        cdef int64_t size
        self.enter()
        try:
            if self.message_left or self.wire_end - self.wire < 5 or self.slab.data[self.wire] == 100:
                return None
            size = load32(self.slab.data + self.wire + 1)
            if size < 4 or size > MESSAGE_BYTES_MAX:
                self.fail(f"a message of {size} bytes")
            if self.wire_end - self.wire < 1 + size:
                return None
            kind = PyBytes_FromStringAndSize(<char*> self.slab.data + self.wire, 1)
            payload = PyBytes_FromStringAndSize(<char*> self.slab.data + self.wire + 5, size - 4)
            self.wire += 1 + size
            if kind == b"c" or kind == b"E":
                self.closed = True
            self.deframe()
            return kind, payload
        finally:
            self.busy = False

    def feed_messages(self, data, n=None):
        """Takes CopyData messages from bytes in the protocol's framing, cut anywhere.

        Gives how many bytes were used: less than all where another message stands there, which is
        the caller's to read. Raises FrameError.
        """
        cdef const unsigned char[::1] view = memoryview(data)[:n].cast("B")
        cdef int64_t count = view.shape[0], rest
        self.enter()
        try:
            if count:
                self.make_room(count)
                memcpy(self.slab.data + self.wire_end, &view[0], count)
                self.wire_end += count
                self.deframe()
            if self.wire_end > self.wire and self.message_left == 0 and self.slab.data[self.wire] != 100:
                rest = self.wire_end - self.wire
                self.wire_end = self.wire
                return count - rest
            return count
        finally:
            self.busy = False

    def feed_rows(self, data):
        """Takes COPY BINARY without the protocol's framing (a file's bytes), cut anywhere."""
        cdef const unsigned char[::1] view = memoryview(data).cast("B")
        self.enter()
        try:
            if view.shape[0]:
                if self.wire != self.wire_end or self.message_left:
                    raise ValueError("a message is not complete")
                self.make_room(view.shape[0])
                memcpy(self.slab.data + self.wire_end, &view[0], view.shape[0])
                self.wire_end += view.shape[0]
                self.message_left = view.shape[0]
                self.deframe()
        finally:
            self.busy = False

    def take(self, int64_t rows_max=65536, int64_t bytes_max=1 << 20):
        """Decodes whole rows: (rows, columns), or None where no row is complete.

        rows_max, bytes_max: where to stop, in rows and in bytes of tuples; one row is taken at least.

        Each column is (length, nulls, [validity or None, offsets?, data?], child or None), the
        buffers in Arrow's order for ``pyarrow.Array.from_buffers``. Raises FrameError, DecodeError.
        """
        cdef int64_t taken = 0, used = 0, budget, total = 0
        cdef int result = WALK_FULL, code = OK, rows = 0, c
        self.enter()
        try:
            if not self.at_rows():
                return None
            rows_max = max(1, rows_max)
            budget = min(max(1, bytes_max), COLUMN_BYTES_MAX >> 1)
            with nogil:
                while taken < rows_max and result == WALK_FULL:
                    result = walk(
                        self.slab.data + self.start, self.stop - self.start, self.width,
                        <int> min(self.block_rows, rows_max - taken), budget - total, taken == 0,
                        self.at, self.sizes, &rows, &used,
                    )
                    for c in range(self.width if rows else 0):
                        code = decode_column(
                            &self.columns[c], self.slab.data + self.start,
                            self.at + c * BLOCK_ROWS, self.sizes + c * BLOCK_ROWS, rows,
                        )
                        if code != OK:
                            break
                    if code != OK:
                        break
                    self.start += used
                    total += used
                    taken += rows
                    if rows == 0 or total >= budget or self.outgrown(4 * budget):
                        break
            if code != OK:
                self.refuse(code, c, taken)
            self.look_at_end(result, taken)
            if taken == 0:
                return None
            self.rows += taken
            self.failed = True  # without memory to hand them over
            columns = [hand_over(&self.columns[c]) for c in range(self.width)]
            self.failed = False
            return taken, columns
        finally:
            self.busy = False

    def tally(self, intake):
        """Decodes all rows that are complete into an intake: (rows, tuples), or None where none is.

        intake: a capsule of ``Hasher.intake``, whose columns are this decoder's. Each block of rows is
            given to it while it lies in the cache; no Arrow buffer outlives its block.
        tuples: the rows as they came (a read-only buffer, which keeps its memory), to be handed on.

        Raises FrameError, DecodeError; ValueError where the intake takes other columns, RuntimeError where
        another thread is using it. What was added before one of these stays added.
        """
        cdef Intake* into = intake_of(intake)
        cdef IntakeColumn* place
        cdef int64_t taken = 0, used = 0, begin
        cdef int result = WALK_FULL, code = OK, rows = 0, c, refused = 0
        self.enter()
        try:
            if not self.at_rows():
                return None
            begin = self.start
            with nogil:
                while result == WALK_FULL:
                    result = walk(
                        self.slab.data + self.start, self.stop - self.start, self.width,
                        self.block_rows, COLUMN_BYTES_MAX, taken == 0, self.at, self.sizes, &rows, &used,
                    )
                    place = self.shown
                    for c in range(self.width if rows else 0):
                        code = decode_column(
                            &self.columns[c], self.slab.data + self.start,
                            self.at + c * BLOCK_ROWS, self.sizes + c * BLOCK_ROWS, rows,
                        )
                        if code != OK:
                            break
                        place = show(&self.columns[c], place)
                    if code != OK:
                        break
                    if rows:
                        refused = into.add(into, self.shown, self.node_count, rows)
                        if refused:
                            break
                    for c in range(self.width):
                        empty(&self.columns[c])
                    self.start += used
                    taken += rows
                    if rows == 0:
                        break
            if code != OK:
                self.refuse(code, c, taken)
            if refused:
                self.failed = True
                if refused == INTAKE_BUSY:
                    raise RuntimeError("an intake is used by two threads at once")
                raise ValueError(f"the intake does not take these columns ({refused})")
            self.look_at_end(result, taken)
            if taken == 0:
                return None
            self.rows += taken
            self.failed = True  # without memory to hand them on: they are in the digest already
            tuples = self.hand_on(begin, self.start - begin - 2 * (result == WALK_END))
            self.failed = False
            return taken, tuples
        finally:
            self.busy = False

    cdef bint at_rows(self) except -1:
        """Whether the header is read and the trailer is not."""
        if not self.header_read and not self.read_header():
            return False
        if self.ended:
            self.check_end()
            return False
        return True

    cdef int look_at_end(self, int result, int64_t taken) except -1:
        """Heeds what stopped the last walk; what is wrong with a later row is said when it is the first."""
        if result == WALK_END:
            self.ended = True
        elif result != WALK_FULL and result != WALK_MORE and taken == 0:
            self.fail_frame(result)
        if self.ended:
            self.check_end()
        return 0

    cdef Tuples hand_on(self, int64_t begin, int64_t size):
        """Gives a part of the slab away; what is behind it moves to a fresh one."""
        cdef Tuples tuples = Tuples.__new__(Tuples)
        cdef int64_t rest = (self.stop - self.start) + (self.wire_end - self.wire)
        tuples.slab = self.slab
        tuples.begin = begin
        tuples.size = size
        self.move_to(Slab(self.slab_bytes if rest <= self.slab_bytes >> 1 else 2 * rest))
        return tuples

    def finish(self):
        """Checks that the stream ended as it should: call it at CopyDone, after the last :meth:`take`.

        Raises FrameError where the trailer is missing or a row is not complete.
        """
        self.enter()
        try:
            if not self.header_read and not self.read_header():
                self.fail("it ended before its header")
            if not self.ended and self.stop - self.start >= 2 and load16(self.slab.data + self.start) == 0xFFFF:
                self.start += 2
                self.ended = True
            if not self.ended:
                self.fail("it ended in the middle of a row" if self.stop > self.start else "its trailer is missing")
            self.check_end()
        finally:
            self.busy = False

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("a decoder is used by two threads at once")
        if self.failed:
            raise FrameError("the decoder has failed before")
        self.busy = True
        return 0

    cdef bint outgrown(self, int64_t bytes_max) noexcept nogil:
        cdef int64_t total = 0
        cdef int c
        if self.block_rows == BLOCK_ROWS:
            return False
        for c in range(self.width):
            total += built(&self.columns[c])
        return total > bytes_max

    cdef int fail(self, str reason) except -1:
        self.failed = True
        raise FrameError(f"after row {self.rows} of the COPY stream: {reason}")

    cdef int fail_frame(self, int result) except -1:
        cdef int found = <int16_t> load16(self.slab.data + self.start)
        return self.fail(FRAME_REASONS[result].format(found=found, columns=self.width))

    cdef int refuse(self, int code, int c, int64_t taken) except -1:
        """Raises for field ``bad`` of column c in the block that was being decoded."""
        cdef int64_t bad = self.columns[c].bad
        cdef int size = max(0, self.sizes[c * BLOCK_ROWS + bad])
        cdef int k
        self.failed = True
        for k in range(self.width):
            drop(&self.columns[k])
        if code == E_MEMORY:
            raise MemoryError
        value = PyBytes_FromStringAndSize(
            <char*> self.slab.data + self.start + self.at[c * BLOCK_ROWS + bad], min(size, 64)
        )
        raise DecodeError(self.rows + taken + bad, c, REASONS[code], value.hex())

    cdef int check_end(self) except -1:
        if self.stop > self.start:
            return self.fail("bytes after its trailer")
        return 0

    cdef bint read_header(self) except -1:
        """Reads over the header: False where it is not complete."""
        cdef int64_t have = self.stop - self.start, extension
        cdef const uint8_t* data = self.slab.data + self.start
        if memcmp(data, b"PGCOPY\n\xff\r\n\x00", min(have, 11)) != 0:
            self.fail("it does not begin with the signature of COPY BINARY")
        if have < 19:
            return False
        if load32(data + 11) >> 16:  # bit 16 was the OID column of servers before 12
            self.fail(f"header flags {load32(data + 11):#x} are not known")
        extension = load32(data + 15)
        if extension > EXTENSION_BYTES_MAX:
            self.fail(f"a header extension of {extension} bytes")
        if have < 19 + extension:
            return False
        self.start += 19 + extension
        self.header_read = True
        return True

    cdef int move_to(self, Slab slab) except -1:
        """Moves what was received and not taken to the front of a slab, which may be the present one."""
        cdef int64_t payload = self.stop - self.start, wire = self.wire_end - self.wire
        memmove(slab.data, self.slab.data + self.start, payload)
        memmove(slab.data + payload, self.slab.data + self.wire, wire)
        self.slab = slab
        self.start = 0
        self.stop = self.wire = payload
        self.wire_end = payload + wire
        return 0

    cdef int make_room(self, int64_t wanted) except -1:
        """Makes ``wanted`` bytes free behind what was received, in a slab no larger than it must be."""
        cdef int64_t payload = self.stop - self.start, wire = self.wire_end - self.wire
        cdef int64_t needed = payload + wire + wanted
        cdef Slab slab
        if wanted > ROOM_BYTES_MAX:
            raise MemoryError
        if needed <= self.slab.size and self.slab.size <= 2 * max(needed, self.slab_bytes):
            if self.slab.size - self.wire_end >= wanted:
                return 0
            slab = self.slab
        else:  # a row larger than the slab doubles it; after such a row it shrinks again
            slab = Slab(max(self.slab_bytes, needed + (needed >> 1) if needed > self.slab_bytes else 0))
        return self.move_to(slab)

    cdef int deframe(self) except -1:
        """Moves the payload of CopyData messages together behind ``stop``, up to another message."""
        cdef bint broken
        with nogil:
            broken = self.deframe_all()
        if broken:
            self.fail("a CopyData message of a wrong length, or after the end")
        return 0

    cdef bint deframe_all(self) noexcept nogil:
        cdef uint8_t* data = self.slab.data
        cdef int64_t stop = self.stop, wire = self.wire, end = self.wire_end, left = self.message_left, size
        cdef bint broken = False
        while wire < end:
            if left == 0:
                if data[wire] != 100 or end - wire < 5:  # 'd'
                    break
                size = <int32_t> load32(data + wire + 1)
                if size < 4 or self.closed:
                    broken = True
                    break
                left = size - 4
                wire += 5
            size = left if left < end - wire else end - wire
            memmove(data + stop, data + wire, size)
            stop += size
            wire += size
            left -= size
        if wire == end:
            wire = end = stop
        self.stop = stop
        self.wire = wire
        self.wire_end = end
        self.message_left = left
        return broken
