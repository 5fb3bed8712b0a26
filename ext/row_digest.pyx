"""Row digests of Arrow batches: the native half of ``rowferry.stages.digest``; the format is docs/DIGEST.md.

A :class:`Hasher` is told once what each column is compared as, and is then given batches through the
Arrow C Data Interface. Column after column is folded into the states of 512 rows, which stay in L1.
The interpreter lock is released while rows are folded. One Hasher serves one thread at a time.

Nothing of a batch is trusted: counts of children and buffers, lengths, offsets, the sizes of buffers
(which the C structs do not hold, and which are therefore passed beside them) and each value's place
are checked; what does not fit raises ValueError, a format that is not known TypeError.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport INT32_MAX, int64_t, uint16_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import hashlib

from arrow_c cimport ArrowArray, ArrowSchema, array_of, bytes_of, schema_of
from digest_cell cimport *
from digest_column cimport BLOCK, fold_column
from digest_json cimport Json, json_canonical, json_free
from digest_mix cimport *
from intake cimport (
    INTAKE_BITS, INTAKE_BUSY, INTAKE_COLUMNS, INTAKE_LISTS, INTAKE_TEXTS, INTAKE_VALUES,
    Intake, IntakeColumn,
)

cdef extern from *:
    """
    static inline int rf_take_flag(int* flag) { return __atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE); }
    static inline void rf_give_flag(int* flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
    """
    # Sets a flag; whether it was set before.
    bint take_flag "rf_take_flag"(int* flag) noexcept nogil
    void give_flag "rf_give_flag"(int* flag) noexcept nogil


FORMAT_VERSION = 1

TAGS = (
    "null", "missing", "bool", "number 1", "number 2", "number 4", "number 8", "numeric", "numeric minus",
    "numeric nan", "numeric infinity", "numeric minus infinity", "float", "float nan", "text", "binary", "date",
    "time", "timestamp", "infinity", "minus infinity", "duration", "interval", "uuid", "json", "list", "struct",
    "map", "end",
)
OPERATIONS = {
    "bool": OP_BOOL, "number": OP_NUMBER, "numeric": OP_NUMERIC, "float": OP_FLOAT,
    "float unsigned zero": OP_FLOAT_UNSIGNED_ZERO, "text": OP_TEXT, "text of uuid": OP_TEXT_OF_UUID,
    "binary": OP_BINARY, "date": OP_DATE, "time": OP_TIME, "timestamp": OP_TIMESTAMP, "duration": OP_DURATION,
    "interval": OP_INTERVAL, "uuid": OP_UUID, "json": OP_JSON, "list": OP_LIST, "struct": OP_STRUCT, "map": OP_MAP,
}
cdef dict _OPERATION_NAMES = {op: name for name, op in OPERATIONS.items()}

#: Levels of nesting that a comparison type may have: bounds the recursion.
DEPTH_MAX = 64
#: Lengths and offsets beyond this are refused, so that no product with a width can overflow.
cdef int64_t LENGTH_MAX = 1 << 48

#: Bytes of memory for JSON documents that are kept from batch to batch.
cdef int64_t JSON_KEPT_BYTES = 1 << 20

cdef set _WHOLE = {LAYOUT_I8, LAYOUT_I16, LAYOUT_I32, LAYOUT_I64, LAYOUT_U8, LAYOUT_U16, LAYOUT_U32, LAYOUT_U64,
                   LAYOUT_D32, LAYOUT_D64, LAYOUT_D128, LAYOUT_D256}
cdef set _BYTES = {LAYOUT_BYTES_32, LAYOUT_BYTES_64}
cdef set _LISTS = {LAYOUT_LIST_32, LAYOUT_LIST_64, LAYOUT_LIST_FIXED}
cdef dict _LAYOUTS_OF = {
    OP_BOOL: {LAYOUT_BOOL},
    OP_NUMBER: _WHOLE | {LAYOUT_BOOL},
    OP_NUMERIC: _WHOLE | _BYTES,
    OP_FLOAT: {LAYOUT_F32, LAYOUT_F64},
    OP_FLOAT_UNSIGNED_ZERO: {LAYOUT_F32, LAYOUT_F64},
    OP_TEXT: _BYTES,
    OP_TEXT_OF_UUID: {LAYOUT_BYTES_FIXED},
    OP_BINARY: _BYTES | {LAYOUT_BYTES_FIXED},
    OP_DATE: {LAYOUT_DATE_32, LAYOUT_DATE_64},
    OP_TIME: {LAYOUT_TIME_32, LAYOUT_TIME_64},
    OP_TIMESTAMP: {LAYOUT_TIMESTAMP, LAYOUT_DATE_32, LAYOUT_DATE_64},
    OP_DURATION: {LAYOUT_DURATION},
    OP_INTERVAL: {LAYOUT_INTERVAL, LAYOUT_DURATION},
    OP_UUID: {LAYOUT_BYTES_FIXED},
    OP_JSON: _BYTES,
    OP_LIST: _LISTS,
    OP_STRUCT: {LAYOUT_STRUCT},
    OP_MAP: {LAYOUT_MAP},
}
# format → (layout, bytes of a value, unit)
cdef dict _PLAIN_FORMATS = {
    b"n": (LAYOUT_NULL, 0, 0), b"b": (LAYOUT_BOOL, 0, 0), b"c": (LAYOUT_I8, 1, 0), b"C": (LAYOUT_U8, 1, 0),
    b"s": (LAYOUT_I16, 2, 0), b"S": (LAYOUT_U16, 2, 0), b"i": (LAYOUT_I32, 4, 0), b"I": (LAYOUT_U32, 4, 0),
    b"l": (LAYOUT_I64, 8, 0), b"L": (LAYOUT_U64, 8, 0), b"f": (LAYOUT_F32, 4, 0), b"g": (LAYOUT_F64, 8, 0),
    b"u": (LAYOUT_BYTES_32, 4, 0), b"z": (LAYOUT_BYTES_32, 4, 0),
    b"U": (LAYOUT_BYTES_64, 8, 0), b"Z": (LAYOUT_BYTES_64, 8, 0),
    b"tdD": (LAYOUT_DATE_32, 4, 0), b"tdm": (LAYOUT_DATE_64, 8, 0),
    b"tts": (LAYOUT_TIME_32, 4, 0), b"ttm": (LAYOUT_TIME_32, 4, 1),
    b"ttu": (LAYOUT_TIME_64, 8, 2), b"ttn": (LAYOUT_TIME_64, 8, 3),
    b"tDs": (LAYOUT_DURATION, 8, 0), b"tDm": (LAYOUT_DURATION, 8, 1),
    b"tDu": (LAYOUT_DURATION, 8, 2), b"tDn": (LAYOUT_DURATION, 8, 3),
    b"tin": (LAYOUT_INTERVAL, 16, 0),
    b"+l": (LAYOUT_LIST_32, 4, 0), b"+L": (LAYOUT_LIST_64, 8, 0), b"+s": (LAYOUT_STRUCT, 0, 0),
    b"+m": (LAYOUT_MAP, 4, 0),
}
cdef dict _TIMESTAMP_UNITS = {b"tss:": 0, b"tsm:": 1, b"tsu:": 2, b"tsn:": 3}
cdef dict _DECIMAL_LAYOUTS = {32: (LAYOUT_D32, 4), 64: (LAYOUT_D64, 8), 128: (LAYOUT_D128, 16), 256: (LAYOUT_D256, 32)}


def constant(name: str, lane: int) -> int:
    """The 64-bit constant of a name: the first 8 bytes, little-endian, of a SHA-256."""
    text = f"rowferry digest {FORMAT_VERSION} {name} lane {lane}"
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return value | 1 if name == "multiplier" else value


def canonical_json(text: bytes) -> bytes:
    """A JSON document as it is hashed; what is no JSON: a byte FF and itself. For tests and messages."""
    cdef Json json
    cdef const uint8_t* p = <const uint8_t*> PyBytes_AS_STRING(text)
    cdef int64_t n = len(text)
    memset(&json, 0, sizeof(json))
    try:
        if json_canonical(&json, p, n) != 0:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*> json.out, json.size)
    finally:
        json_free(&json)


def _fill_constants():
    for lane in range(2):
        RF_MULTIPLIER[lane] = constant("multiplier", lane)
        RF_SEED[0][lane] = constant("row seed", lane)
        RF_SEED[1][lane] = constant("key seed", lane)
        for tag, name in enumerate(TAGS):
            RF_TAG[tag][lane] = constant(f"tag {name}", lane)
    for k in range(77):
        for limb in range(4):
            RF_POWER[k][limb] = (10**k >> (64 * limb)) & 0xFFFFFFFFFFFFFFFF


assert len(TAGS) == TAG_COUNT
_fill_constants()


cdef struct Bucket:
    uint64_t rows
    uint64_t low
    uint64_t high


cdef inline void tally(Bucket* bucket, uint64_t low, uint64_t high) noexcept nogil:
    bucket.rows += 1
    bucket.low += low
    bucket.high += high + (bucket.low < low)


cdef struct Output:
    # What to do with the digests of a block; NULL pointers are not wanted.
    Bucket* total
    Bucket* buckets
    uint64_t bucket_mask
    uint8_t* keys
    uint8_t* rows
    uint8_t* indices
    const uint8_t* flags
    uint8_t* selected


cdef inline void store(uint8_t* out, int64_t row, uint64_t low, uint64_t high) noexcept nogil:
    """A digest as 16 bytes, most significant first, so that bytes order as numbers do."""
    cdef int i
    for i in range(8):
        out[16 * row + i] = (high >> (56 - 8 * i)) & 255
        out[16 * row + 8 + i] = (low >> (56 - 8 * i)) & 255


# What an intake (see intake.pxd) adds to: nodes of its own, so that batches that the Hasher is given
# meanwhile bind others, and parts of the Hasher, which outlives it.
cdef struct Tally:
    Node* nodes
    int node_count
    const int* columns
    int column_count
    Bucket* total
    Json* json
    int* busy


cdef inline int held_by(int layout) noexcept nogil:
    """What a column of a layout holds; -1 for one that does not come by an intake."""
    if layout == LAYOUT_BOOL:
        return INTAKE_BITS
    if layout == LAYOUT_BYTES_32:
        return INTAKE_TEXTS
    if layout == LAYOUT_LIST_32:
        return INTAKE_LISTS
    if layout in (LAYOUT_NULL, LAYOUT_BYTES_64, LAYOUT_LIST_64, LAYOUT_LIST_FIXED, LAYOUT_STRUCT, LAYOUT_MAP):
        return -1
    return INTAKE_VALUES


cdef int bind_shown(Tally* tally_, const IntakeColumn* columns, int count) noexcept nogil:
    """Binds all nodes to a block of columns in the same order. Only what could be read wrongly is compared."""
    cdef Node* node
    cdef const IntakeColumn* shown
    cdef int i
    if count != tally_.node_count:
        return INTAKE_COLUMNS
    for i in range(count):
        node = tally_.nodes + i
        shown = columns + i
        if shown.holds != held_by(node.layout) or shown.rows < 0 or shown.payload_size < 0:
            return INTAKE_COLUMNS
        if shown.holds == INTAKE_VALUES and shown.width != node.width:
            return INTAKE_COLUMNS
        node.offset = 0
        node.length = shown.rows
        node.validity = shown.validity
        node.data = shown.data
        node.payload = shown.payload
        if node.layout == LAYOUT_BYTES_FIXED:
            node.payload_end = shown.data + shown.rows * shown.width
        else:
            node.payload_end = shown.payload + shown.payload_size if shown.payload_size else shown.payload
    return GOOD


cdef int take_in(Intake* self, const IntakeColumn* columns, int count, int64_t rows) noexcept nogil:
    """Adds a block of rows to the total of the Hasher that made the intake."""
    cdef Tally* into = <Tally*> self.state
    cdef int code
    if take_flag(into.busy):
        return INTAKE_BUSY
    code = add_shown(into, columns, count, rows)
    give_flag(into.busy)
    return code


cdef int add_shown(Tally* into, const IntakeColumn* columns, int count, int64_t rows) noexcept nogil:
    cdef uint64_t a[BLOCK]
    cdef uint64_t b[BLOCK]
    cdef uint64_t words[BLOCK]
    cdef uint64_t pairs[BLOCK]
    cdef int64_t done = 0, bad = 0
    cdef int n, i, j, code = bind_shown(into, columns, count)
    if code != GOOD:
        return code
    for j in range(into.column_count):
        if into.nodes[into.columns[j]].length != rows:
            return INTAKE_COLUMNS
    while done < rows:
        n = BLOCK if rows - done > BLOCK else <int> (rows - done)
        begin(a, b, n, 0)
        for j in range(into.column_count):
            code = fold_column(into.nodes, into.columns[j], done, n, words, pairs, a, b, &bad)
            if code != GOOD:
                return code
        end(a, b, n, into.column_count)
        for i in range(n):
            tally(into.total, a[i], b[i])
        done += n
    if into.json.capacity + into.json.spare_capacity > JSON_KEPT_BYTES:
        json_free(into.json)
    return GOOD


cdef void end_intake(object capsule) noexcept:
    cdef Intake* intake = <Intake*> PyCapsule_GetPointer(capsule, b"rowferry.intake")
    if intake != NULL:
        free((<Tally*> intake.state).nodes)
        free(intake.state)
        free(intake)
    Py_XDECREF(<PyObject*> PyCapsule_GetContext(capsule))


cdef class Hasher:
    """Digests batches whose column i is compared as ``columns[i]``.

    columns: nested tuples (operation, scale, children): operation of OPERATIONS; scale for ``number``;
        children: 1 of list, any of struct, 1 (a struct of key and value) of map, else none.
    key: indices of the key columns, in the key's order.
    bucket_count: a power of two, at most 65,536.

    Raises ValueError and TypeError for columns that make no sense.
    """

    cdef Node* nodes
    cdef int node_count
    cdef list column_nodes
    cdef int* columns
    cdef int* keys
    cdef int* key_indices
    cdef int column_count
    cdef int key_count
    cdef int bucket_count
    cdef Bucket total
    cdef Bucket* buckets_
    cdef Json json
    cdef int busy
    # While a batch is bound: sizes of its buffers, in the order of the tree.
    cdef object sizes
    cdef Py_ssize_t size_index

    def __cinit__(self, columns, key=(), bucket_count=4096):
        if not 0 < bucket_count <= 65536 or bucket_count & (bucket_count - 1):
            raise ValueError(f"bucket_count must be a power of two up to 65536, not {bucket_count}")
        columns = tuple(columns)
        key = tuple(key)
        self.bucket_count = bucket_count
        self.nodes = <Node*> calloc(max(1, sum(_size(c, 0) for c in columns)), sizeof(Node))
        self.columns = <int*> calloc(max(1, len(columns)), sizeof(int))
        self.keys = <int*> calloc(max(1, len(key)), sizeof(int))
        self.key_indices = <int*> calloc(max(1, len(key)), sizeof(int))
        self.buckets_ = <Bucket*> calloc(bucket_count, sizeof(Bucket))
        if self.nodes == NULL or self.columns == NULL or self.keys == NULL:
            raise MemoryError
        if self.key_indices == NULL or self.buckets_ == NULL:
            raise MemoryError
        for i, column in enumerate(columns):
            self.columns[i] = self._add_node(column)
        self.column_count = len(columns)
        for i, index in enumerate(key):
            if not 0 <= index < len(columns):
                raise ValueError(f"key column {index} of {len(columns)} columns")
            self.keys[i] = self.columns[index]
            self.key_indices[i] = index
        self.key_count = len(key)

    def __dealloc__(self):
        json_free(&self.json)
        free(self.nodes)
        free(self.columns)
        free(self.keys)
        free(self.key_indices)
        free(self.buckets_)

    cdef int _add_node(self, spec) except -1:
        operation, scale, children = spec
        cdef int index = self.node_count, child, last = -1
        cdef int op = OPERATIONS[operation]
        if op == OP_LIST or op == OP_MAP:
            if len(children) != 1 or (op == OP_MAP and (children[0][0] != "struct" or len(children[0][2]) != 2)):
                raise ValueError(f"{operation} of {children!r}")
        elif op != OP_STRUCT and children:
            raise ValueError(f"{operation} has no children")
        self.node_count += 1
        self.nodes[index].op = op
        self.nodes[index].scale = scale
        self.nodes[index].child = -1
        self.nodes[index].sibling = -1
        self.nodes[index].json = &self.json
        for inner in children:
            child = self._add_node(inner)
            if last < 0:
                self.nodes[index].child = child
            else:
                self.nodes[last].sibling = child
            last = child
        return index

    # --- binding: from the C structs to nodes, everything checked -------------------------------

    cdef const uint8_t* _buffer(self, ArrowArray* array, int64_t j, int64_t bytes_needed, int64_t* size) except? NULL:
        """Buffer j of an array; its size too. Raises ValueError where it has fewer bytes than are needed."""
        cdef const uint8_t* pointer = <const uint8_t*> array.buffers[j]
        if self.size_index >= len(self.sizes):
            raise ValueError("the batch has more buffers than sizes were given for")
        cdef int64_t bytes_there = self.sizes[self.size_index]
        self.size_index += 1
        if pointer == NULL:
            bytes_there = 0
        if bytes_there < bytes_needed:
            raise ValueError(f"an Arrow buffer of {bytes_there} bytes, {bytes_needed} are needed")
        size[0] = bytes_there
        return pointer

    cdef int _read_format(self, Node* node, ArrowSchema* schema) except -1:
        """Sets layout, width, unit and power from a format string."""
        if schema.format == NULL:
            raise ValueError("an Arrow schema without a format")
        cdef bytes text = schema.format
        node.power = 0
        if schema.dictionary != NULL:
            raise TypeError("a dictionary-encoded column must be decoded before it is digested")
        plain = _PLAIN_FORMATS.get(text)
        if plain is not None:
            node.layout, node.width, node.unit = plain
        elif text[:4] in _TIMESTAMP_UNITS:
            node.layout, node.width, node.unit = LAYOUT_TIMESTAMP, 8, _TIMESTAMP_UNITS[text[:4]]
        elif text.startswith(b"w:"):
            node.layout, node.width = LAYOUT_BYTES_FIXED, self._count(text[2:], text)
        elif text.startswith(b"+w:"):
            node.layout, node.width = LAYOUT_LIST_FIXED, self._count(text[3:], text)
        elif text.startswith(b"d:"):
            self._read_decimal(node, text)
        else:
            raise TypeError(f"the digest does not know the Arrow format {text!r}")
        if node.layout != LAYOUT_NULL and node.layout not in _LAYOUTS_OF[node.op]:
            raise TypeError(f"Arrow format {text.decode()!r} cannot be compared as {_OPERATION_NAMES[node.op]}")
        if node.op == OP_NUMBER:
            node.power = node.scale - node.power
            if not 0 <= node.power <= 76:
                raise TypeError(f"{text.decode()!r} cannot be brought to {node.scale} digits after the point")
        if (node.op == OP_UUID or node.op == OP_TEXT_OF_UUID) and node.layout == LAYOUT_BYTES_FIXED and node.width != 16:
            raise TypeError(f"a uuid has 16 bytes, not {node.width}")
        return 0

    def _count(self, digits, text):
        if not digits.isdigit() or int(digits) > INT32_MAX:
            raise ValueError(f"not an Arrow format: {text!r}")
        return int(digits)

    cdef int _read_decimal(self, Node* node, bytes text) except -1:
        try:
            parts = [int(part) for part in text[2:].split(b",")]
            if len(parts) == 2:
                parts.append(128)
            precision, scale, bits = parts
            node.layout, node.width = _DECIMAL_LAYOUTS[bits]
        except (ValueError, KeyError):
            raise ValueError(f"not an Arrow format: {text!r}") from None
        if not (1 <= precision <= 76 and -76 <= scale <= 76):
            raise ValueError(f"a decimal of precision {precision} and scale {scale}")
        node.power = scale
        return 0

    cdef int _bind(self, int index, ArrowSchema* schema, ArrowArray* array, int64_t length_needed) except -1:
        """Binds a node and its children to an array that must have ``length_needed`` elements."""
        cdef Node* node = self.nodes + index
        cdef int64_t reach, buffers, size = 0
        if schema.release == NULL or array.release == NULL:
            raise ValueError("a released Arrow array")
        if not (0 <= array.length <= LENGTH_MAX and 0 <= array.offset <= LENGTH_MAX):
            raise ValueError(f"an Arrow array of length {array.length} at offset {array.offset}")
        if array.length < length_needed:
            raise ValueError(f"an Arrow array of {array.length} elements, {length_needed} are needed")
        self._read_format(node, schema)
        node.offset = array.offset
        node.length = array.length
        node.validity = node.data = node.payload = node.payload_end = NULL
        reach = array.offset + array.length
        if node.layout == LAYOUT_NULL:
            self.size_index += 1  # pyarrow counts one absent buffer
            return 0
        buffers = 1 if node.layout in (LAYOUT_STRUCT, LAYOUT_LIST_FIXED) else 3 if node.layout in _BYTES else 2
        if array.n_buffers != buffers or array.buffers == NULL:
            raise ValueError(f"an Arrow array with {array.n_buffers} buffers, {buffers} are expected")
        if array.null_count == 0 or array.buffers[0] == NULL:
            self.size_index += 1
        else:
            node.validity = self._buffer(array, 0, (reach + 7) >> 3, &size)
        if node.layout == LAYOUT_BOOL:
            node.data = self._buffer(array, 1, (reach + 7) >> 3, &size)
        elif node.layout in _BYTES or node.layout in (LAYOUT_LIST_32, LAYOUT_LIST_64, LAYOUT_MAP):
            # An array without elements may come without offsets.
            node.data = self._buffer(array, 1, (reach + 1) * node.width if array.length else 0, &size)
        elif buffers == 2:
            node.data = self._buffer(array, 1, bytes_of(reach, node.width), &size)
        if buffers == 3:
            size = 0
            node.payload = self._buffer(array, 2, 0, &size)
            node.payload_end = node.payload + size
        elif node.layout == LAYOUT_BYTES_FIXED:
            node.payload_end = node.data + size
        self._bind_children(node, schema, array, reach)
        return 0

    cdef int _bind_children(self, Node* node, ArrowSchema* schema, ArrowArray* array, int64_t reach) except -1:
        cdef int child = node.child
        cdef int64_t expected = 0, i = 0, length_needed = 0
        while child >= 0:
            expected += 1
            child = self.nodes[child].sibling
        if array.n_children != expected or schema.n_children != expected:
            raise ValueError(f"an Arrow array with {array.n_children} children, {expected} are expected")
        if not expected:
            return 0
        if array.children == NULL or schema.children == NULL:
            raise ValueError("an Arrow array without its children")
        if node.layout == LAYOUT_STRUCT:
            node.width = expected
            length_needed = reach
        elif node.layout == LAYOUT_LIST_FIXED:
            if node.width and reach > LENGTH_MAX // node.width:
                raise ValueError("a fixed-size list that is too long")
            length_needed = reach * node.width
        child = node.child
        while child >= 0:
            if array.children[i] == NULL or schema.children[i] == NULL:
                raise ValueError("an Arrow array without its children")
            self._bind(child, schema.children[i], array.children[i], length_needed)
            child = self.nodes[child].sibling
            i += 1
        return 0

    cdef int _bind_batch(self, ArrowSchema* schema, ArrowArray* array) except -1:
        """Binds all columns to a batch, which is a struct array."""
        cdef int i
        if schema.release == NULL or array.release == NULL or schema.format == NULL:
            raise ValueError("a released Arrow batch")
        if (<bytes> schema.format) != b"+s":
            raise TypeError("a batch of Arrow columns is expected")
        if array.n_children != self.column_count or schema.n_children != self.column_count:
            raise ValueError(f"a batch of {array.n_children} columns, {self.column_count} are expected")
        if not (0 <= array.length <= LENGTH_MAX and 0 <= array.offset <= LENGTH_MAX):
            raise ValueError(f"an Arrow batch of length {array.length} at offset {array.offset}")
        if array.null_count > 0:
            raise ValueError("an Arrow batch with absent rows")
        if self.column_count and (array.children == NULL or schema.children == NULL):
            raise ValueError("an Arrow batch without its columns")
        for i in range(self.column_count):
            if array.children[i] == NULL or schema.children[i] == NULL:
                raise ValueError("an Arrow batch without its columns")
            self._bind(self.columns[i], schema.children[i], array.children[i], array.offset + array.length)
        if self.size_index != len(self.sizes):
            raise ValueError(f"{len(self.sizes)} sizes were given for a batch of {self.size_index} buffers")
        return 0

    # --- folding -------------------------------------------------------------------------------

    cdef int _fold(self, int64_t start, int64_t rows, Output out, int* column, int64_t* row) noexcept nogil:
        """Folds all rows, block by block, and hands the digests on; a code, with the place, on failure."""
        cdef uint64_t a[BLOCK]
        cdef uint64_t b[BLOCK]
        cdef uint64_t key_a[BLOCK]
        cdef uint64_t key_b[BLOCK]
        cdef uint64_t words[BLOCK]
        cdef uint64_t pairs[BLOCK]
        cdef bint want_rows = out.total != NULL or out.buckets != NULL or out.rows != NULL or self.key_count == 0
        cdef bint want_keys = self.key_count > 0 and out.total == NULL
        cdef int64_t done = 0, bad = 0
        cdef int n, i, j, code
        while done < rows:
            n = BLOCK if rows - done > BLOCK else <int> (rows - done)
            if want_rows:
                begin(a, b, n, 0)
                for j in range(self.column_count):
                    code = fold_column(self.nodes, self.columns[j], start + done, n, words, pairs, a, b, &bad)
                    if code != GOOD:
                        column[0] = j
                        row[0] = done + bad
                        return code
                end(a, b, n, self.column_count)
            if want_keys:
                begin(key_a, key_b, n, 1)
                for j in range(self.key_count):
                    code = fold_column(self.nodes, self.keys[j], start + done, n, words, pairs, key_a, key_b, &bad)
                    if code != GOOD:
                        column[0] = self.key_indices[j]
                        row[0] = done + bad
                        return code
                end(key_a, key_b, n, self.key_count)
            if want_keys:
                hand_on(&out, done, n, a, b, key_a, key_b)
            else:
                hand_on(&out, done, n, a, b, a, b)
            done += n
        return GOOD

    cdef object _open(self, batch, sizes, int64_t* start, int64_t* rows):
        """Binds a batch; returns the capsules, which own its structs and must outlive the fold."""
        if take_flag(&self.busy):
            raise RuntimeError("one Hasher serves one thread at a time")
        capsules = None
        try:
            capsules = batch.__arrow_c_array__()
            self.sizes = sizes
            self.size_index = 0
            self._bind_batch(schema_of(capsules[0]), array_of(capsules[1]))
            start[0] = array_of(capsules[1]).offset
            rows[0] = array_of(capsules[1]).length
        except BaseException:
            self.busy = False
            raise
        finally:
            self.sizes = None
        return capsules

    cdef int _run(self, int64_t start, int64_t rows, Output out) except -1:
        """Folds an opened batch without the interpreter lock."""
        cdef int code, column = 0
        cdef int64_t row = 0
        with nogil:
            code = self._fold(start, rows, out, &column, &row)
        if self.json.capacity + self.json.spare_capacity > JSON_KEPT_BYTES:
            json_free(&self.json)  # one large document must not be paid for to the end
        self.busy = False
        if code != GOOD:
            raise ValueError(_MESSAGES[code], column, row)
        return 0

    def add(self, batch, sizes):
        """Adds a batch's rows to the total (see :meth:`result`).

        batch: an object with ``__arrow_c_array__`` (n rows × the columns of this Hasher).
        sizes: bytes of each buffer of its columns, in the order of the tree (0 for an absent one).
        Raises ValueError: the batch is malformed; with (message, column, row) where a value is.
        TypeError: a format that its comparison type does not take. A batch that raises adds nothing.
        """
        cdef int64_t start = 0, rows = 0
        cdef Bucket sum_ = Bucket(0, 0, 0)
        capsules = self._open(batch, sizes, &start, &rows)
        cdef Output out
        memset(&out, 0, sizeof(out))
        out.total = &sum_
        self._run(start, rows, out)
        self.total.rows += sum_.rows
        self.total.low += sum_.low
        self.total.high += sum_.high + (self.total.low < sum_.low)
        return None

    def intake(self, schema):
        """A capsule through which a decoder adds rows to the total without building Arrow arrays (intake.pxd).

        schema: an object with ``__arrow_c_schema__``: the columns that will come. It, and all other use
            of this Hasher, belong to one thread at a time. None where a layout (nested but for plain lists,
            64-bit offsets) cannot come this way.
        Raises TypeError as :meth:`add`.
        """
        cdef Intake* intake
        cdef Tally* into
        cdef int i
        held = schema.__arrow_c_schema__()
        cdef ArrowSchema* struct = schema_of(held)
        if struct.n_children != self.column_count or (self.column_count and struct.children == NULL):
            raise ValueError(f"a schema of {struct.n_children} columns, {self.column_count} are expected")
        if take_flag(&self.busy):
            raise RuntimeError("one Hasher serves one thread at a time")
        try:
            for i in range(self.column_count):
                if not self._bind_format(self.columns[i], struct.children[i]):
                    return None
        finally:
            give_flag(&self.busy)
        intake = <Intake*> calloc(1, sizeof(Intake))
        into = <Tally*> calloc(1, sizeof(Tally))
        if into != NULL:
            into.nodes = <Node*> calloc(max(1, self.node_count), sizeof(Node))
        if intake == NULL or into == NULL or into.nodes == NULL:
            if into != NULL:
                free(into.nodes)
            free(intake)
            free(into)
            raise MemoryError
        memcpy(into.nodes, self.nodes, self.node_count * sizeof(Node))
        into.busy = &self.busy
        into.node_count = self.node_count
        into.columns = self.columns
        into.column_count = self.column_count
        into.total = &self.total
        into.json = &self.json
        intake.add = take_in
        intake.state = into
        capsule = PyCapsule_New(intake, b"rowferry.intake", end_intake)
        Py_INCREF(self)
        PyCapsule_SetContext(capsule, <void*> self)
        return capsule

    cdef int _bind_format(self, int index, ArrowSchema* schema) except -1:
        """Reads the formats of a node and of its items; 0 where such a layout does not come by an intake."""
        cdef Node* node = self.nodes + index
        if schema == NULL:
            raise ValueError("an Arrow schema without its columns")
        self._read_format(node, schema)
        if node.layout == LAYOUT_LIST_32 and schema.n_children == 1 and schema.children != NULL and node.child >= 0:
            return self._bind_format(node.child, schema.children[0])
        return node.child < 0 and held_by(node.layout) >= 0

    def add_buckets(self, batch, sizes):
        """Adds each row to the bucket of its key (of the whole row, without a key).

        Raises as :meth:`add`; after that the buckets are of no more use.
        """
        cdef int64_t start = 0, rows = 0
        capsules = self._open(batch, sizes, &start, &rows)
        cdef Output out
        memset(&out, 0, sizeof(out))
        out.buckets = self.buckets_
        out.bucket_mask = self.bucket_count - 1
        self._run(start, rows, out)
        return None

    def rows(self, batch, sizes):
        """(key digests, row digests, bucket indices) of n rows: 16 n, 16 n (both big-endian) and 2 n bytes
        (uint16, little-endian). Without a key the two digests are the same object. Raises as :meth:`add`."""
        cdef int64_t start = 0, rows = 0
        capsules = self._open(batch, sizes, &start, &rows)
        cdef Output out
        memset(&out, 0, sizeof(out))
        try:
            row_digests = PyBytes_FromStringAndSize(NULL, 16 * rows)
            key_digests = PyBytes_FromStringAndSize(NULL, 16 * rows) if self.key_count else row_digests
            indices = PyBytes_FromStringAndSize(NULL, 2 * rows)
        except BaseException:
            self.busy = False
            raise
        out.rows = <uint8_t*> PyBytes_AS_STRING(row_digests)
        out.keys = <uint8_t*> PyBytes_AS_STRING(key_digests) if self.key_count else NULL
        out.indices = <uint8_t*> PyBytes_AS_STRING(indices)
        out.bucket_mask = self.bucket_count - 1
        self._run(start, rows, out)
        return key_digests, row_digests, indices

    def select(self, batch, sizes, const uint8_t[::1] flags not None):
        """An Arrow bitmap (bytes, n bits) of the rows whose bucket b has ``flags[b] != 0``. Raises as :meth:`add`."""
        cdef int64_t start = 0, rows = 0
        if flags.shape[0] != self.bucket_count:
            raise ValueError(f"{flags.shape[0]} flags for {self.bucket_count} buckets")
        capsules = self._open(batch, sizes, &start, &rows)
        cdef Output out
        memset(&out, 0, sizeof(out))
        try:
            bitmap = PyBytes_FromStringAndSize(NULL, (rows + 7) >> 3)
        except BaseException:
            self.busy = False
            raise
        out.selected = <uint8_t*> PyBytes_AS_STRING(bitmap)
        memset(out.selected, 0, (rows + 7) >> 3)
        out.flags = &flags[0]
        out.bucket_mask = self.bucket_count - 1
        self._run(start, rows, out)
        return bitmap

    def result(self):
        """(rows, sum of row digests mod 2^128) of all that was added."""
        return self.total.rows, self.total.low | (<object> self.total.high << 64)

    def buckets(self):
        """A list of ``bucket_count`` pairs (rows, sum mod 2^128)."""
        cdef int i
        return [
            (self.buckets_[i].rows, self.buckets_[i].low | (<object> self.buckets_[i].high << 64))
            for i in range(self.bucket_count)
        ]


cdef dict _MESSAGES = {
    BAD_OFFSETS: "an Arrow offset that points outside its data",
    BAD_DATE: "a date64 that is not at midnight",
    BAD_MEMORY: "no memory for a JSON document",
}


cdef inline void begin(uint64_t* a, uint64_t* b, int n, int which) noexcept nogil:
    cdef int i
    for i in range(n):
        a[i] = RF_SEED[which][0]
        b[i] = RF_SEED[which][1]


cdef inline void end(uint64_t* a, uint64_t* b, int n, int columns) noexcept nogil:
    cdef int i
    for i in range(n):
        put(a + i, b + i, TAG_END, <uint64_t> columns)
        a[i] = rf_finish(a[i])
        b[i] = rf_finish(b[i])


cdef inline void hand_on(Output* out, int64_t done, int n, const uint64_t* a, const uint64_t* b,
                         const uint64_t* key_a, const uint64_t* key_b) noexcept nogil:
    """Gives the digests of rows done … done + n − 1 to whoever wants them. Lane 0 is the low half."""
    cdef int i
    cdef int64_t row
    cdef uint64_t bucket
    if out.total != NULL:
        for i in range(n):
            tally(out.total, a[i], b[i])
    if out.buckets != NULL:
        for i in range(n):
            tally(out.buckets + (key_a[i] & out.bucket_mask), a[i], b[i])
    if out.rows != NULL:
        for i in range(n):
            store(out.rows, done + i, a[i], b[i])
    if out.keys != NULL:
        for i in range(n):
            store(out.keys, done + i, key_a[i], key_b[i])
    if out.indices != NULL:
        for i in range(n):
            row = done + i
            bucket = key_a[i] & out.bucket_mask
            out.indices[2 * row] = bucket & 255
            out.indices[2 * row + 1] = bucket >> 8
    if out.flags != NULL:
        for i in range(n):
            row = done + i
            out.selected[row >> 3] |= (out.flags[key_a[i] & out.bucket_mask] != 0) << (row & 7)


def _size(spec, depth):
    """Nodes of a column; raises ValueError where it is nested too deeply."""
    if depth > DEPTH_MAX:
        raise ValueError(f"a column nested deeper than {DEPTH_MAX} levels")
    return 1 + sum(_size(child, depth + 1) for child in spec[2])
