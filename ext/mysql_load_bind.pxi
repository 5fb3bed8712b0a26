# Columns of the encoder: what their codecs say, what a batch gives them, and their single cells. Part of
# mysql_load.pyx.


cdef int plan_field(Field* field, str codec, dict params) except -1:
    """Fills in what a zeroed field's codec decides; raises ValueError for what is no codec."""
    known = CODECS.get(codec)
    if known is None or set(params) - {"required", *known[2]}:
        raise ValueError(f"no codec {codec!r} with {sorted(params)}")
    field.kind = known[0]
    field.required = bool(params.get("required"))
    field.digits = params.get("digits", 6)
    field.length = -1 if params.get("length") is None else params["length"]
    field.fixed = bool(params.get("fixed"))
    if not 0 <= field.digits <= 6 or field.length < -1:
        raise ValueError(f"codec {codec!r} with {params}")
    if field.kind == K_BIT and not 1 <= field.length <= BIT_MAX:
        raise ValueError("a bit string has 1 to 64 bits")
    if field.kind == K_INTEGER and "least" in params:
        field.bounded = True
        field.least = params["least"]
        field.most = params["most"]
    if field.kind in (K_ENUM, K_SET):
        plan_labels(field, [label.encode() for label in params["labels"]])
    if field.kind == K_SET:
        field.child = <Field*> calloc(1, sizeof(Field))
        if field.child == NULL:
            raise MemoryError
        field.child.kind = K_TEXT
        field.child.length = -1
    return 0


cdef int plan_labels(Field* field, list labels) except -1:
    """Lays the labels out, and a hash table over them with at most half of its slots in use."""
    cdef bytes all_ = b"".join(labels)
    cdef int64_t end = 0
    cdef uint32_t slot
    cdef int i
    count = len(labels)
    if not 0 < count <= 65535 or len(set(labels)) != count:
        raise ValueError("labels that are none, too many, or not different")
    field.labels = <uint8_t*> malloc(len(all_) + 1)
    field.label_ends = <int64_t*> calloc(count + 1, sizeof(int64_t))
    field.slot_mask = (1 << (2 * count).bit_length()) - 1
    field.slots = <int32_t*> calloc(field.slot_mask + 1, sizeof(int32_t))
    if field.labels == NULL or field.label_ends == NULL or field.slots == NULL:
        raise MemoryError
    memcpy(field.labels, <const char*> all_, len(all_))
    field.label_count = count
    for i, label in enumerate(labels):
        slot = hash_of(field.labels + end, len(label)) & field.slot_mask
        while field.slots[slot]:
            slot = (slot + 1) & field.slot_mask
        field.slots[slot] = i + 1
        end += len(label)
        field.label_ends[i + 1] = end
    return 0


cdef void free_field(Field* field) noexcept:
    free(field.labels)
    free(field.label_ends)
    free(field.slots)
    if field.child != NULL:
        free_field(field.child)
        free(field.child)


cdef inline uint32_t hash_of(const uint8_t* p, int64_t n) noexcept nogil:
    """FNV-1a."""
    cdef uint32_t h = 2166136261
    cdef int64_t i
    for i in range(n):
        h = (h ^ p[i]) * 16777619
    return h


cdef inline int label_of(const Field* f, const uint8_t* p, int64_t n) noexcept nogil:
    """The label's index; -1 where the bytes are none."""
    cdef uint32_t slot = hash_of(p, n) & f.slot_mask
    cdef int i
    while f.slots[slot]:
        i = f.slots[slot] - 1
        if f.label_ends[i + 1] - f.label_ends[i] == n and memcmp(f.labels + f.label_ends[i], p, <size_t> n) == 0:
            return i
        slot = (slot + 1) & f.slot_mask
    return -1


cdef int read_format(Field* field, tuple codec, str form) except -1:
    """Sets how the values are held; raises TypeError where the codec does not take that."""
    plain = form.partition(":")[0] if form.startswith("ts") else form  # a timestamp's zone does not matter
    if plain in FORMATS:
        field.input, field.width, field.unit_digits = FORMATS[plain]
    elif form.startswith("w:") and form[2:].isdecimal() and int(form[2:]) <= INT32_MAX:
        field.input, field.width = I_FIXED, int(form[2:])
    elif form.startswith("d:") and form.count(",") in (1, 2):
        parts = [int(part) for part in form[2:].split(",")]
        field.input, field.scale, field.width = I_DECIMAL, parts[1], (parts[2] if len(parts) > 2 else 128) >> 3
        if field.width not in (16, 32) or not 0 <= field.scale <= 76:
            raise TypeError(f"codec {codec[0]!r} does not take a decimal of format {form!r}")
    else:
        raise TypeError(f"codec {codec[0]!r} does not take Arrow values of format {form!r}")
    if field.input != I_NULL and field.input not in CODECS[codec[0]][1] or (
        field.kind == K_UUID_TEXT and form not in ("w:16", "n")
    ):
        raise TypeError(f"codec {codec[0]!r} does not take Arrow values of format {form!r}")
    return 0


cdef int bind(
    Field* field, tuple codec, ArrowSchema* schema, ArrowArray* array, int64_t length, object sizes
) except -1:
    """Points a field at ``length`` values of an exported array, after checking that its buffers are as long as they
    have to be. sizes: an iterator over the bytes of the array's buffers and its children's."""
    cdef int64_t last, count
    cdef bint variable
    check_array(schema, array, length)
    read_format(field, codec, schema.format.decode())
    if schema.dictionary != NULL or array.dictionary != NULL:
        raise TypeError(f"codec {codec[0]!r} does not take dictionaries")
    variable = field.input in (I_TEXT, I_BINARY, I_LIST)
    count = 1 if field.input == I_NULL else 3 if variable and field.input != I_LIST else 2
    known = list(itertools.islice(sizes, count))  # pyarrow counts one absent buffer of nulls
    if len(known) != count:
        raise ValueError("the batch has more buffers than sizes were given for")
    if field.input == I_NULL:
        return 0
    if array.n_buffers != count or array.buffers == NULL:
        raise ValueError(f"an Arrow array of format {schema.format.decode()!r} with {array.n_buffers} buffers")
    last = array.offset + length
    field.first = array.offset
    if array.buffers[0] == NULL and array.null_count > 0:
        raise ValueError("an Arrow array with nulls and no bitmap")
    field.bits = <const uint8_t*> array.buffers[0] if array.null_count != 0 else NULL
    if field.bits != NULL and known[0] < (last + 7) // 8:
        raise ValueError("an Arrow bitmap is shorter than its array")
    field.data = <const uint8_t*> array.buffers[1]
    field.offsets = NULL
    if not variable:
        needed = (last + 7) // 8 if field.input == I_BOOL else bytes_of(last, field.width)
        if length and needed and (field.data == NULL or known[1] < needed):
            raise ValueError("an Arrow buffer is shorter than its array")
        field.data_size = known[1]
        return 0
    field.offsets = <const uint8_t*> array.buffers[1]
    if length and (field.offsets == NULL or known[1] < (last + 1) * 4):
        raise ValueError("an Arrow buffer is shorter than its array")
    if field.input == I_LIST:
        check_children(schema, array, 1)
        check_array(schema.children[0], array.children[0], 0)
        field.data = NULL
        field.data_size = array.children[0].length
        bind(field.child, ("text", {}), schema.children[0], array.children[0], field.data_size, sizes)
        if field.child.input == I_NULL and field.data_size:
            raise ValueError("a list of nulls")
        return 0
    field.data = <const uint8_t*> array.buffers[2]
    field.data_size = known[2] if field.data != NULL else 0
    return 0


# ── single cells ─────────────────────────────────────────────────────────────────────────────────

cdef inline int span_at(const Field* f, int64_t i, int64_t* start, int64_t* size) noexcept nogil:
    """Where value i lies in ``data`` (a list's: among its items)."""
    cdef int64_t end
    if f.input == I_FIXED:
        start[0] = i * f.width
        size[0] = f.width
        return OK
    start[0] = at_i32(f.offsets, i)
    end = at_i32(f.offsets, i + 1)
    size[0] = end - start[0]
    return OK if 0 <= start[0] <= end <= f.data_size else E_OFFSETS


cdef inline int set_item(const Field* f, int64_t k, int* least, int64_t* start, int64_t* size) noexcept nogil:
    """Where item k of a set's list lies: a label at index least[0] or later; least[0] is then the next."""
    cdef int code, label
    if f.child.bits != NULL and not bit_at(f.child.bits, f.child.first + k):
        return E_ITEM_NULL
    code = span_at(f.child, f.child.first + k, start, size)
    if code != OK:
        return code
    label = label_of(f, f.child.data + start[0], size[0])
    if label < 0:
        return E_LABEL
    if label < least[0]:
        return E_ORDER
    least[0] = label + 1
    return OK


cdef inline int check_long(const Field* f, const uint8_t* p, int64_t n) noexcept nogil:
    """Whether a text or bytes fit their column."""
    if f.kind == K_ENUM:
        return OK if label_of(f, p, n) >= 0 else E_LABEL
    if f.length < 0:
        return OK
    if f.kind == K_BYTES:
        if f.fixed:
            return OK if n == f.length else E_FIXED
        return OK if n <= f.length else E_LENGTH
    return OK if n <= f.length or utf8_characters(p, n) <= f.length else E_LENGTH


cdef inline int pack_bits(const Field* f, const uint8_t* p, int64_t n, uint8_t* out) noexcept nogil:
    """A text of 0 and 1 as the bytes of a BIT(n): the last bit is the least of the last byte."""
    cdef int64_t i, place
    cdef int size = <int> ((f.length + 7) // 8)
    if n != f.length:
        return E_BIT
    for i in range(size):
        out[i] = 0
    for i in range(n):
        if p[i] != 48 and p[i] != 49:
            return E_BIT
        place = n - 1 - i
        out[size - 1 - (place >> 3)] |= <uint8_t> ((p[i] & 1) << (place & 7))
    return OK


cdef inline int integer_cell(const Field* f, int64_t i, char* out) noexcept nogil:
    cdef int64_t value
    cdef uint64_t wide
    if f.input == I_BOOL:
        out[0] = <char> (48 + bit_at(f.data, i))
        return 1
    if f.input == I_UNSIGNED:
        if f.width == 8:
            wide = at_u64(f.data, i)
        elif f.width == 4:
            wide = at_u32(f.data, i)
        else:
            wide = at_u16(f.data, i) if f.width == 2 else f.data[i]
        if f.bounded and wide > f.most:
            return -E_RANGE
        if f.kind == K_YEAR:
            return -E_RANGE if wide > 9999 else put_padded(out, wide, 4)
        return put_unsigned(out, wide)
    if f.width == 8:
        value = at_i64(f.data, i)
    elif f.width == 4:
        value = at_i32(f.data, i)
    else:
        value = at_i16(f.data, i) if f.width == 2 else (<const int8_t*> f.data)[i]
    if f.bounded and (value < f.least or (value > 0 and <uint64_t> value > f.most)):
        return -E_RANGE
    if f.kind == K_YEAR:
        # As text 0 is the year 2000, 0000 the year 0.
        return -E_RANGE if value < 0 or value > 9999 else put_padded(out, <uint64_t> value, 4)
    return put_signed(out, value)


cdef inline int time_cell(const Field* f, int64_t i, char* out) noexcept nogil:
    cdef int64_t value = at_i64(f.data, i)
    cdef int64_t one = IPOW10[f.unit_digits]
    cdef int k = 0, n
    # 838:59:59.999999; one more second of any unit is beyond it.
    if value <= -3020400 * one or value >= 3020400 * one:
        return -E_TIME
    if value < 0:
        out[0] = 45
        k = 1
        value = -value
    n = put_seconds_of_day(out + k, value, f.unit_digits, f.digits)
    return k + n if n else -E_FRACTION


cdef inline int short_cell(const Field* f, int64_t row, char* out) noexcept nogil:
    """A cell of bounded length; its characters, or minus a code."""
    cdef int64_t i = f.first + row, moment
    cdef double value
    cdef int n
    if f.kind == K_INTEGER or f.kind == K_YEAR:
        return integer_cell(f, i, out)
    if f.kind == K_DECIMAL:
        return put_decimal_fast(out, f.data + i * f.width, f.width, f.scale)
    if f.kind == K_DATE:
        n = put_day(out, at_i32(f.data, i))
        return n if n else -E_YEAR
    if f.kind == K_MOMENT:
        moment = at_i64(f.data, i)
        if moment == INT64_TOP or moment == INT64_BOTTOM:
            return -E_YEAR
        n = put_moment(out, moment, f.unit_digits, f.digits)
        return n if n > 0 else -E_YEAR if n == 0 else -E_FRACTION
    if f.kind == K_FLOAT:
        # A float's digits are those of the double that it is: the nearest float of that is itself again.
        value = at_f32(f.data, i) if f.input == I_FLOAT32 else at_f64(f.data, i)
        return put_double(out, value) if isfinite(value) else -E_NOT_FINITE
    return time_cell(f, i, out)
