# Encoder: Arrow batches as COPY BINARY tuples. Part of pg_copy.pyx.

# codec: (kind, the ways in which Arrow may hold its values)
WHOLE = (I_INTEGER, I_UNSIGNED)
TARGETS = {
    "bool": (K_BOOL, (I_BOOL,)), "int2": (K_INT2, WHOLE), "int4": (K_INT4, WHOLE), "int8": (K_INT8, WHOLE),
    "oid": (K_OID, WHOLE), "float4": (K_FLOAT4, (I_FLOAT32, I_FLOAT64)), "float8": (K_FLOAT8, (I_FLOAT32, I_FLOAT64)),
    "numeric": (K_DECIMAL128, (I_DECIMAL, I_TEXT, *WHOLE)), "jsonb": (K_JSONB, (I_TEXT,)),
    "bytea": (K_BINARY, (I_BINARY, I_FIXED_BINARY)), "wire": (K_BINARY, (I_BINARY, I_FIXED_BINARY)),
    "wire_numeric": (K_WIRE_NUMERIC, (I_BINARY,)),
    "date": (K_DATE, (I_DATE,)), "time": (K_TIME, (I_TIME,)), "timestamp": (K_TIMESTAMP, (I_TIMESTAMP,)),
    "timestamptz": (K_TIMESTAMP, (I_TIMESTAMP,)), "interval": (K_INTERVAL, (I_MONTH_DAY_NANO, I_DURATION)),
    "uuid": (K_UUID, (I_FIXED_BINARY,)), "bit": (K_BIT, (I_TEXT,)), "varbit": (K_BIT, (I_TEXT,)),
    "list": (K_LIST, (I_LIST,)),
    **{name: (K_TEXT, (I_TEXT,)) for name in ("text", "varchar", "bpchar", "char", "json", "xml", "enum", "name")},
}  # fmt: skip
# The reader's names for forms of numeric mean numeric here, so that one list of codecs serves both ways.
for name in ("numeric_decimal128", "numeric_decimal256", "numeric_text"):
    TARGETS[name] = TARGETS["numeric"]

cdef dict BOUNDS = {
    K_INT2: (-(2**15), 2**15 - 1), K_INT4: (-(2**31), 2**31 - 1), K_INT8: (-(2**63), 2**63 - 1), K_OID: (0, 2**32 - 1),
}  # fmt: skip

#: Arrow format: (how values are held, their bytes or their offsets', µs of a unit).
FORMATS = {
    "n": (I_NULL, 0, 0), "b": (I_BOOL, 0, 0), "c": (I_INTEGER, 1, 0), "s": (I_INTEGER, 2, 0), "i": (I_INTEGER, 4, 0),
    "l": (I_INTEGER, 8, 0), "C": (I_UNSIGNED, 1, 0), "S": (I_UNSIGNED, 2, 0), "I": (I_UNSIGNED, 4, 0),
    "L": (I_UNSIGNED, 8, 0), "f": (I_FLOAT32, 4, 0), "g": (I_FLOAT64, 8, 0), "u": (I_TEXT, 4, 0), "U": (I_TEXT, 8, 0),
    "z": (I_BINARY, 4, 0), "Z": (I_BINARY, 8, 0), "tdD": (I_DATE, 4, 0), "tts": (I_TIME, 4, 1000000),
    "ttm": (I_TIME, 4, 1000), "ttu": (I_TIME, 8, 1), "ttn": (I_TIME, 8, 0), "tss": (I_TIMESTAMP, 8, 1000000),
    "tsm": (I_TIMESTAMP, 8, 1000), "tsu": (I_TIMESTAMP, 8, 1), "tsn": (I_TIMESTAMP, 8, 0),
    "tDs": (I_DURATION, 8, 1000000), "tDm": (I_DURATION, 8, 1000), "tDu": (I_DURATION, 8, 1), "tDn": (I_DURATION, 8, 0),
    "tin": (I_MONTH_DAY_NANO, 16, 0), "+l": (I_LIST, 4, 0), "+L": (I_LIST, 8, 0),
}  # fmt: skip


cdef int plan_field(Field* field, str codec, dict params, int depth) except -1:
    """Fills in what a zeroed field's codec decides; raises ValueError for what is no codec."""
    known = TARGETS.get(codec)
    if known is None:
        raise ValueError(f"no codec {codec!r}")
    field.kind = known[0]
    if field.kind in BOUNDS:
        field.least, field.most = BOUNDS[field.kind]
    if field.kind == K_LIST:
        if depth == DEPTH_MAX:
            raise ValueError(f"lists nested deeper than {DEPTH_MAX}")
        inner, inner_params = params["inner"]
        field.element = params["element_oid"]
        field.child = <Field*> calloc(1, sizeof(Field))
        if field.child == NULL:
            raise MemoryError
        plan_field(field.child, inner, inner_params, depth + 1)
    return 0


cdef void destroy_field(Field* field) noexcept:
    if field.child != NULL:
        destroy_field(field.child)
        free(field.child)


cdef int read_format(Field* field, str codec, str form) except -1:
    """Sets how the values are held; raises TypeError where the codec does not take that."""
    plain = form.partition(":")[0] if form.startswith("ts") else form  # a timestamp's zone does not matter
    if plain in FORMATS:
        field.input, field.width, field.factor = FORMATS[plain]
    elif form.startswith("w:") and form[2:].isdecimal() and int(form[2:]) <= I32_MAX:
        field.input, field.width = I_FIXED_BINARY, int(form[2:])
    elif form.startswith("d:") and form.count(",") in (1, 2):
        parts = [int(part) for part in form[2:].split(",")]
        field.input, field.scale, field.width = I_DECIMAL, parts[1], (parts[2] if len(parts) > 2 else 128) >> 3
        if field.width not in (16, 32) or not 0 <= field.scale <= 76:
            raise TypeError(f"codec {codec!r} does not take a decimal of format {form!r}")
    else:
        raise TypeError(f"codec {codec!r} does not take Arrow values of format {form!r}")
    if field.input != I_NULL and field.input not in TARGETS[codec][1] or (
        field.kind == K_UUID and form not in ("w:16", "n")
    ):
        raise TypeError(f"codec {codec!r} does not take Arrow values of format {form!r}")
    if TARGETS[codec][0] == K_DECIMAL128:
        field.kind = K_NUMERIC_TEXT if field.input == I_TEXT else K_DECIMAL128
    return 0


cdef int64_t end_of(const Field* field, int64_t count) noexcept:
    """The last of count + 1 offsets."""
    return at_i32(field.offsets, count) if field.width == 4 else at_i64(field.offsets, count)


cdef int bind(Field* field, tuple codec, ArrowSchema* schema, ArrowArray* array, int64_t offset, int64_t length,
              object sizes) except -1:
    """Points a field at ``length`` values from ``offset`` on of an exported array.

    sizes: an iterator over the bytes of the array's buffers, as pyarrow names them, or None: then
    the producer is trusted with them.
    """
    cdef int64_t size, end, k, count
    cdef bint variable
    check_array(schema, array, offset + length)
    read_format(field, codec[0], schema.format.decode())
    offset += array.offset
    if schema.dictionary != NULL:
        raise TypeError(f"codec {codec[0]!r} does not take dictionaries")
    variable = field.input in (I_TEXT, I_BINARY, I_LIST)
    count = 1 if field.input == I_NULL else 3 if variable and field.input != I_LIST else 2
    known = list(itertools.islice(sizes, count)) if sizes is not None else None  # pyarrow: one of nulls, absent
    if known is not None and len(known) != count:
        raise ValueError("the batch has more buffers than sizes were given for")
    if field.input == I_NULL:
        return 0
    if array.n_buffers != count or array.buffers == NULL:
        raise ValueError(f"an Arrow array of format {schema.format.decode()!r} with {array.n_buffers} buffers")
    if array.buffers[0] == NULL and array.null_count > 0:
        raise ValueError("an Arrow array with nulls and no bitmap")
    field.validity = <const uint8_t*> array.buffers[0] if array.null_count != 0 else NULL
    field.offset = offset
    field.offsets = field.data = NULL
    field.has_nul = False
    bytes_of(offset + length + 1, field.width)
    if length and array.buffers[1] == NULL and not (field.input == I_FIXED_BINARY and field.width == 0):
        raise ValueError("an Arrow array without its buffer")
    if known is not None and length:
        size = (offset + length + 7) // 8
        if field.validity != NULL and known[0] < size:
            raise ValueError("an Arrow bitmap is shorter than its array")
        if field.input != I_BOOL:
            size = (offset + length + (1 if variable else 0)) * field.width
        if known[1] < size:
            raise ValueError("an Arrow buffer is shorter than its array")
    if not variable:
        field.data = <const uint8_t*> array.buffers[1]
        if field.input != I_BOOL and field.data != NULL:
            field.data += offset * field.width
        return 0
    if length:
        field.offsets = <const uint8_t*> array.buffers[1] + offset * field.width
    if field.input == I_LIST:
        check_children(schema, array, 1)
        check_array(schema.children[0], array.children[0], 0)
        field.data_size = array.children[0].length
        bind(field.child, tuple(codec[1]["inner"]), schema.children[0], array.children[0], 0, field.data_size, sizes)
        return 0
    field.data = <const uint8_t*> array.buffers[2]
    end = end_of(field, length) if length else 0
    field.data_size = known[2] if known is not None else end
    if field.data == NULL and field.data_size > 0:
        raise ValueError("an Arrow array without its data")
    if length and field.input == I_TEXT and field.data != NULL:
        k = end_of(field, 0)
        if 0 <= k < end <= field.data_size:
            field.has_nul = memchr(field.data + k, 0, <size_t> (end - k)) != NULL
    return 0


def frame_prefix(int64_t count):
    """The five bytes that make ``count`` bytes after them one CopyData message."""
    cdef uint8_t[5] prefix
    if not 0 <= count <= FIELD_BYTES_MAX - 4:
        raise ValueError(f"{count} bytes do not go into one message")
    prefix[0] = 100
    store32(&prefix[1], <uint32_t> (count + 4))
    return PyBytes_FromStringAndSize(<char*> prefix, 5)


cdef class Encoder:
    """Encodes Arrow batches as COPY BINARY tuples for COPY … FROM STDIN (FORMAT binary).

    columns: one (codec, params) for each column: bool int2 int4 int8 oid (from any integer), float4
        (from float32, or float64 that it holds exactly), float8, numeric (from decimal128/256,
        integers and canonical text), text varchar bpchar char json xml enum name, jsonb, bytea, date,
        time, timestamp, timestamptz, interval (from month_day_nano or duration), uuid, bit varbit
        (from text), list (``inner``, ``element_oid``), wire (the field's bytes), wire_numeric (a numeric's, with
        the smallest dscale that shows all its digits).

    Raises ValueError for an unknown codec. One thread at a time; the GIL is released in the loop.

    >>> encoder = Encoder([("int4", {}), ("text", {})])
    >>> socket.sendall(encoder.encode(batch, frame_bytes=65536))
    """

    cdef Field* fields
    cdef int width
    cdef list columns
    cdef int64_t estimate    # bytes of the batch before
    cdef bint busy

    def __cinit__(self, list columns):
        self.columns = [(codec, dict(params)) for codec, params in columns]
        self.width = len(columns)
        if self.width > 32767:
            raise ValueError(f"{self.width} columns are more than a tuple can have")
        self.fields = <Field*> calloc(self.width + 1, sizeof(Field))
        if self.fields == NULL:
            raise MemoryError
        for i, (codec, params) in enumerate(self.columns):
            plan_field(&self.fields[i], codec, params, 0)

    def __dealloc__(self):
        cdef int c
        if self.fields != NULL:
            for c in range(self.width):
                destroy_field(&self.fields[c])
        free(self.fields)

    def encode(self, batch, int64_t frame_bytes=0):
        """The batch's rows as tuples: a buffer without header and trailer.

        batch: n rows × k columns, anything with ``__arrow_c_array__`` that is a struct (a RecordBatch).
        frame_bytes: above 0, the tuples come in CopyData messages of about that many bytes (at most
            twice, or one row), ready for the socket; 0: bare tuples.

        Raises TypeError where a column's Arrow type is not for its codec, EncodeError for a value.
        """
        cdef Output out
        cdef int64_t row = 0
        cdef int column = 0, code
        cdef ArrowSchema* schema
        cdef ArrowArray* array
        if self.busy:
            raise RuntimeError("an encoder is used by two threads at once")
        self.busy = True
        try:
            schema_capsule, array_capsule = batch.__arrow_c_array__()
            schema, array = schema_of(schema_capsule), array_of(array_capsule)
            self.bind_all(batch, schema, array)
            out.used = 0
            out.size = max(4096, self.estimate + (self.estimate >> 3))
            out.data = <uint8_t*> malloc(<size_t> out.size)
            if out.data == NULL:
                raise MemoryError
            with nogil:
                code = encode_rows(
                    self.fields, self.width, array.length, max(0, frame_bytes), &out, &row, &column
                )
            if code != OK:
                free(out.data)
                if code == E_MEMORY:
                    raise MemoryError
                raise EncodeError(row, column, REASONS[code])
            self.estimate = min(out.used, 16 << 20)
            return own(out.data, out.used, out.size)
        finally:
            self.busy = False

    cdef int bind_all(self, batch, ArrowSchema* schema, ArrowArray* array) except -1:
        cdef int c
        check_array(schema, array, 0)
        if schema.format != b"+s":
            raise TypeError("a batch of columns is needed")
        if array.n_children != self.width or schema.n_children != self.width:
            raise ValueError(f"a batch with {array.n_children} columns, expected {self.width}")
        check_children(schema, array, self.width)
        if array.n_buffers and array.buffers != NULL and array.buffers[0] != NULL and array.null_count != 0:
            raise ValueError("a batch whose rows may be null")
        columns = getattr(batch, "columns", None)
        for c in range(self.width):
            sizes = None
            if columns is not None:
                sizes = iter([0 if buffer is None else buffer.size for buffer in columns[c].buffers()])
            self.fields[c].quick = 0
            bind(
                &self.fields[c], self.columns[c], schema.children[c], array.children[c],
                array.offset, array.length, sizes,
            )
            self.fields[c].quick = quick_way(&self.fields[c])
        return 0
