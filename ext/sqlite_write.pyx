"""Arrow batches into SQLite: bind and step one prepared statement a row, without Python's part.

Batches come through the C Data Interface (``__arrow_c_array__``); the sizes of their buffers come
beside, and every offset is checked against them before it is used.
"""

cimport cython
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

from arrow_c cimport ArrowArray, ArrowSchema, array_of, bit_at, schema_of
from sqlite_api cimport *
from sqlite_kinds cimport *
from sqlite_values cimport *

from rowferry._native.sqlite_rows import KINDS, SqliteFailure, UnfitValue

cdef enum:
    SCRATCH_BYTES = 256

cdef enum Ending:
    END_ROWS = 0
    END_FAILURE = 1
    END_UNFIT = 2
    END_BROKEN = 3

include "sqlite_library.pxi"


ctypedef struct Column:
    int kind
    int width
    int digits
    int scale
    # A decimal that is bound as a number (NUMERIC affinity, up to 15 digits), else as text.
    bint as_number
    # The column's affinity would turn a text that looks like a number into one.
    bint numeric_affinity
    const uint8_t* bits
    const uint8_t* data
    const int32_t* offsets
    int64_t data_bytes
    int64_t first
    int64_t length
    char scratch[SCRATCH_BYTES]


@cython.no_gc_clear  # the end of a statement needs its connection
cdef class Writer:
    """One prepared INSERT, UPSERT or DELETE with a parameter for each column.

    specs: (kind, width, digits, scale, as_number, numeric_affinity) for each. Used by one thread at a time, like its
    connection. Raises SqliteFailure.
    """

    cdef object database
    cdef sqlite3* db
    cdef sqlite3_stmt* statement
    cdef Column* columns
    cdef int count
    cdef int code
    cdef int bad
    cdef int64_t row
    cdef int64_t changed

    def __cinit__(self, object database, str sql, list specs):
        open_library(database.library)
        cdef int rc
        cdef bytes text = sql.encode("utf-8", "surrogateescape")
        cdef const char* start = text
        cdef int size = len(text) + 1
        self.database = database
        self.count = len(specs)
        self.columns = <Column*> calloc(max(1, self.count), sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        for i, (kind, width, digits, scale, as_number, numeric_affinity) in enumerate(specs):
            self.columns[i].kind = kind
            self.columns[i].width = width
            self.columns[i].digits = digits
            self.columns[i].scale = scale
            self.columns[i].as_number = as_number
            self.columns[i].numeric_affinity = numeric_affinity
            self.check_spec(&self.columns[i])
        self.db = <sqlite3*> <uintptr_t> database.address
        database.enter()
        try:
            rc = API.prepare_v2(self.db, start, size, &self.statement, NULL)
            if rc != SQLITE_OK:
                raise database.failure(rc)
            if API.bind_parameter_count(self.statement) != self.count:
                raise ValueError("the statement takes another number of columns")
        finally:
            database.leave()

    cdef int check_spec(self, Column* column) except -1:
        cdef int width
        width = {
            K_INT8: 1, K_INT16: 2, K_INT32: 4, K_INT64: 8, K_UINT8: 1, K_UINT16: 2, K_UINT32: 4, K_UINT64: 8,
            K_FLOAT32: 4, K_FLOAT64: 8, K_DATE: 4, K_TIMESTAMP: 8, K_TIMESTAMPTZ: 8, K_TIME: 8, K_DURATION: 8,
            K_INTERVAL: 16, K_UUID: 16, K_FIXED: column.width, K_DECIMAL: column.width, K_BOOL: 1,
        }.get(column.kind, 0)
        if column.width != width or width < 0 or not 0 <= column.digits <= 9 or not -76 <= column.scale <= 76:
            raise ValueError(f"no such column: kind {column.kind}, width {column.width}")
        if column.kind == K_DECIMAL:
            if width not in (16, 32) or (column.as_number and not (width == 16 and 0 <= column.scale <= 15)):
                raise ValueError("no such decimal")
        elif width == 0 and column.kind not in (K_TEXT, K_BINARY):
            raise ValueError(f"no such column: kind {column.kind}")
        return 0

    def __dealloc__(self):
        free(self.columns)
        if self.statement != NULL:
            self.database.release(<uintptr_t> self.statement)

    def close(self):
        if self.statement != NULL:
            statement = <uintptr_t> self.statement
            self.statement = NULL
            self.database.release(statement)

    def write(self, tuple capsules, list sizes):
        """Steps the statement once for each row of a batch; returns how many rows it changed.

        capsules: what ``batch.__arrow_c_array__()`` gave. sizes: for each column the sizes of its buffers (0 for
        none). Raises SqliteFailure; UnfitValue for a text that the column's affinity would turn into a number;
        ValueError for a batch that is not what the specs say.
        """
        cdef ArrowSchema* schema = schema_of(capsules[0])
        cdef ArrowArray* array = array_of(capsules[1])
        cdef int ending, i
        if self.statement == NULL:
            raise ValueError("the writer is closed")
        if array.n_children != self.count or schema.n_children != self.count or len(sizes) != self.count:
            raise ValueError(f"{array.n_children} columns, not {self.count}")
        if array.offset != 0 or array.length < 0:
            raise ValueError("a struct with an offset")
        for i in range(self.count):
            self.attach(&self.columns[i], array.children[i], schema.children[i].format, array.length, sizes[i])
        self.database.enter()
        try:
            with nogil:
                ending = self.step_all(array.length)
            API.clear_bindings(self.statement)
            if ending == END_FAILURE:
                raise self.database.failure(self.code)
            if ending == END_BROKEN:
                raise ValueError(f"column {self.bad}: a value or offset out of its range in row {self.row}")
            if ending == END_UNFIT:
                raise self.unfit()
            return self.changed
        finally:
            self.database.leave()

    cdef object unfit(self):
        cdef Column* column = &self.columns[self.bad]
        cdef int64_t start = column.offsets[column.first + self.row]
        cdef int64_t size = column.offsets[column.first + self.row + 1] - start
        text = (<const char*> column.data)[start:start + min(size, 64)]
        return UnfitValue(self.bad, "text", repr(text.decode("utf-8", "backslashreplace")), None)

    cdef int attach(self, Column* column, ArrowArray* array, const char* format, int64_t rows, object sizes) except -1:
        """Points a column at an array's buffers after checking that they are as long as its rows need."""
        cdef bint variable = column.width == 0
        cdef int64_t last
        given = format.decode("utf-8", "replace")
        if not self.is_format(column, given):
            raise ValueError(f"an array of Arrow format {given!r} for kind {column.kind}")
        if array.n_buffers != (3 if variable else 2) or len(sizes) != array.n_buffers or array.dictionary != NULL:
            raise ValueError("an array of another layout")
        if array.offset < 0 or array.length != rows:
            raise ValueError("an array of another length")
        last = array.offset + rows
        column.first = array.offset
        column.length = rows
        column.bits = <const uint8_t*> array.buffers[0] if array.null_count != 0 else NULL
        if column.bits != NULL and sizes[0] < (last + 7) // 8:
            raise ValueError("a validity bitmap that is too short")
        if variable:
            column.offsets = <const int32_t*> array.buffers[1]
            column.data = <const uint8_t*> array.buffers[2]
            column.data_bytes = sizes[2]
            if rows and (column.offsets == NULL or sizes[1] < (last + 1) * 4):
                raise ValueError("offsets that are too short")
        else:
            column.data = <const uint8_t*> array.buffers[1]
            column.data_bytes = sizes[1]
            needed = (last + 7) // 8 if column.kind == K_BOOL else last * column.width
            if rows and (column.data == NULL or sizes[1] < needed):
                raise ValueError("values that are too short")
        return 0

    cdef bint is_format(self, Column* column, str given):
        if column.kind == K_DECIMAL:
            return given.startswith("d:") and given.endswith(",256") == (column.width == 32)
        if column.kind in (K_FIXED, K_UUID):
            return given == f"w:{column.width}"
        if column.kind in (K_TIMESTAMP, K_TIMESTAMPTZ):
            return given.startswith("ts" + {0: "s", 3: "m", 6: "u", 9: "n"}.get(column.digits, "?"))
        if column.kind == K_DURATION:
            return given == "tD" + {0: "s", 3: "m", 6: "u", 9: "n"}.get(column.digits, "?")
        if column.kind == K_TIME:
            return given == "tt" + {6: "u", 9: "n"}.get(column.digits, "?")
        return given == {
            K_BOOL: "b", K_INT8: "c", K_INT16: "s", K_INT32: "i", K_INT64: "l", K_UINT8: "C", K_UINT16: "S",
            K_UINT32: "I", K_UINT64: "L", K_FLOAT32: "f", K_FLOAT64: "g", K_TEXT: "u", K_BINARY: "z", K_DATE: "tdD",
            K_INTERVAL: "tin",
        }[column.kind]

    cdef int step_all(self, int64_t rows) noexcept nogil:
        cdef int i, rc
        self.changed = 0
        for row in range(rows):
            self.row = row
            for i in range(self.count):
                rc = self.bind(i, row)
                if rc != SQLITE_OK:
                    self.bad = i
                    if rc < 0:
                        return -rc
                    self.code = rc
                    return END_FAILURE
            rc = API.step(self.statement)
            while rc == SQLITE_ROW:
                rc = API.step(self.statement)
            if rc != SQLITE_DONE:
                self.code = rc
                API.reset(self.statement)
                return END_FAILURE
            self.changed += API.changes(self.db)
            API.reset(self.statement)
        return END_ROWS

    cdef inline int bind_scratch(self, int i, int size) noexcept nogil:
        # The scratch lives until the column's next value: SQLite need not copy it (NULL: SQLITE_STATIC).
        return API.bind_text64(self.statement, i + 1, self.columns[i].scratch, size, NULL, 1)

    cdef int bind(self, int i, int64_t row) noexcept nogil:
        """Binds one cell; an SQLite code, or minus an Ending."""
        cdef Column* column = &self.columns[i]
        cdef int64_t place = column.first + row
        cdef int64_t start, end
        cdef const uint8_t* p
        cdef int kind = column.kind
        if column.bits != NULL and not bit_at(column.bits, place):
            return API.bind_null(self.statement, i + 1)
        if column.width == 0:
            start = column.offsets[place]
            end = column.offsets[place + 1]
            if start < 0 or end < start or end > column.data_bytes:
                return -END_BROKEN
            p = column.data + start if column.data != NULL else <const uint8_t*> b""
            if kind == K_TEXT:
                if column.numeric_affinity and looks_numeric(p, end - start):
                    return -END_UNFIT
                return API.bind_text64(self.statement, i + 1, <const char*> p, end - start, NULL, 1)
            if end == start:
                return API.bind_zeroblob(self.statement, i + 1, 0)
            return API.bind_blob64(self.statement, i + 1, p, end - start, NULL)
        if kind == K_BOOL:
            return API.bind_int64(self.statement, i + 1, bit_at(column.data, place))
        p = column.data + place * column.width
        if kind == K_INT64:
            return API.bind_int64(self.statement, i + 1, (<const int64_t*> p)[0])
        if kind == K_INT32:
            return API.bind_int64(self.statement, i + 1, (<const int32_t*> p)[0])
        if kind == K_INT16:
            return API.bind_int64(self.statement, i + 1, (<const int16_t*> p)[0])
        if kind == K_INT8:
            return API.bind_int64(self.statement, i + 1, (<const int8_t*> p)[0])
        if kind == K_UINT32:
            return API.bind_int64(self.statement, i + 1, (<const uint32_t*> p)[0])
        if kind == K_UINT16:
            return API.bind_int64(self.statement, i + 1, (<const uint16_t*> p)[0])
        if kind == K_UINT8:
            return API.bind_int64(self.statement, i + 1, p[0])
        if kind == K_UINT64:
            # The plan's check keeps 2^63 and more out; a value that came here all the same must not turn negative.
            if (<const uint64_t*> p)[0] > <uint64_t> INT64_TOP:
                return -END_BROKEN
            return API.bind_int64(self.statement, i + 1, <int64_t> (<const uint64_t*> p)[0])
        if kind == K_FLOAT64:
            return API.bind_double(self.statement, i + 1, (<const double*> p)[0])
        if kind == K_FLOAT32:
            return API.bind_double(self.statement, i + 1, <double> (<const float*> p)[0])
        if kind == K_DECIMAL:
            return self.bind_decimal(i, p)
        if kind == K_DATE:
            return self.bind_scratch(i, put_date_or_infinity(column.scratch, (<const int32_t*> p)[0]))
        if kind == K_TIMESTAMP or kind == K_TIMESTAMPTZ:
            return self.bind_scratch(
                i, put_timestamp(column.scratch, (<const int64_t*> p)[0], column.digits, kind == K_TIMESTAMPTZ)
            )
        if kind == K_TIME:
            start = (<const int64_t*> p)[0]
            if start < 0 or start > DAY_S * IPOW10[column.digits]:
                return -END_BROKEN
            return self.bind_scratch(i, put_clock(column.scratch, start, column.digits))
        if kind == K_DURATION:
            memcpy(column.scratch, b"PT", 2)
            return self.bind_scratch(i, 2 + put_seconds(column.scratch + 2, (<const int64_t*> p)[0], column.digits))
        if kind == K_INTERVAL:
            return self.bind_scratch(i, put_interval(
                column.scratch, (<const int32_t*> p)[0], (<const int32_t*> p)[1], (<const int64_t*> p)[1]
            ))
        if kind == K_UUID:
            return self.bind_scratch(i, put_uuid(column.scratch, p))
        return API.bind_blob64(self.statement, i + 1, p, column.width, NULL)

    cdef int bind_decimal(self, int i, const uint8_t* p) noexcept nogil:
        """As an integer or the nearest double, whose shortest form is the decimal again (up to 15 digits); else as text."""
        cdef Column* column = &self.columns[i]
        cdef int64_t low
        cdef int64_t high
        cdef int64_t one
        if not column.as_number:
            return self.bind_scratch(i, put_decimal(column.scratch, p, column.width, column.scale))
        low = (<const int64_t*> p)[0]
        high = (<const int64_t*> p)[1]
        if high != (low >> 63) or low >= IPOW10[15] or low <= -IPOW10[15]:
            return -END_BROKEN
        one = IPOW10[column.scale]
        if low % one == 0:
            return API.bind_int64(self.statement, i + 1, low // one)
        return API.bind_double(self.statement, i + 1, <double> low / <double> one)
