"""SQLite rows to Arrow buffers, on handles of the very SQLite library that Python uses.

``Database`` opens a file and runs small statements; ``Reader`` steps a SELECT and fills Arrow
buffers by each column's canonical type, strictly: a stored value that is not of that type stops it;
``census`` counts, by the same code, how many values of each column would not fit which types.

Nothing here trusts the file: texts are checked to be UTF-8, every length comes from SQLite, and a
handle that two threads use at once is an error, not a crash. No Arrow library is linked; the
buffers become arrays through the buffer protocol.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from sqlite_api cimport *
from sqlite_kinds cimport *
from sqlite_values cimport *

#: Number of each kind of column, as ``Reader`` and ``Writer`` take it.
KINDS = {
    "bool": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint8": 6, "uint16": 7, "uint32": 8, "uint64": 9,
    "float32": 10, "float64": 11, "decimal": 12, "text": 13, "loose": 14, "binary": 15, "fixed": 16, "date": 17,
    "timestamp": 18, "timestamptz": 19, "time": 20, "duration": 21, "interval": 22, "uuid": 23, "json": 24,
    "numeric": 25, "char": 26, "bits": 27,
}

# What a decoder made of a cell.
cdef enum Outcome:
    IS_NULL = 0
    IS_FIXED = 1
    IS_VARIABLE = 2
    IS_HEX = 3
    UNFIT = 4
    NO_MEMORY = 5

# How a fill ended.
cdef enum Ending:
    END_ROWS = 0
    END_BATCH = 1
    END_FAILURE = 2
    END_UNFIT = 3
    END_MEMORY = 4

cdef enum:
    SCRATCH_BYTES = TEXT_BYTES_MAX * 2
    SHOWN_BYTES = 64

# Offsets of an Arrow string are 32 bits: no column of a batch may hold more.
cdef int64_t VARIABLE_BYTES_MAX = 0x7FFFFFFF

_STORED = {SQLITE_INTEGER: "integer", SQLITE_FLOAT: "real", SQLITE_TEXT: "text", SQLITE_BLOB: "blob"}


include "sqlite_library.pxi"


class SqliteFailure(Exception):
    """SQLite said no. ``code`` is its extended result code, ``message`` its own words."""

    def __init__(self, int code, str message):
        super().__init__(message)
        self.code = code
        self.message = message


class UnfitValue(Exception):
    """A stored value is not of its column's type.

    column: its place in the SELECT. stored: integer | real | text | blob. shown: its beginning.
    rowid: the row, where the SELECT's last column beyond the asked ones is the rowid.
    """

    def __init__(self, int column, str stored, str shown, object rowid):
        super().__init__(f"column {column}: {stored} {shown}")
        self.column = column
        self.stored = stored
        self.shown = shown
        self.rowid = rowid


ctypedef struct Spec:
    int kind
    int width
    int digits
    int precision
    int scale
    int64_t length
    bint null_unfit


ctypedef struct Column:
    Spec spec
    uint8_t* bits
    uint8_t* data
    int32_t* offsets
    int64_t used
    int64_t room
    int64_t nulls
    int64_t settled


ctypedef struct Cell:
    const uint8_t* p
    int64_t n


def library_version(str library):
    """Version of the SQLite at that shared object. Raises ImportError where its symbols are not seen."""
    open_library(library)
    return API.libversion().decode()


cdef class Buffer:
    """Memory of ours, given to Arrow through the buffer protocol; freed with the last user."""

    cdef uint8_t* p
    cdef Py_ssize_t n

    def __dealloc__(self):
        free(self.p)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.p if self.p != NULL else <void*> b"", self.n, 1, flags)


cdef Buffer owned(void* p, int64_t n):
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.p = <uint8_t*> p
    buffer.n = n
    return buffer


cdef class Database:
    """One connection. Used by one thread at a time; closing it from another waits for that one to come back.

    path: a file name or ``file:`` URI (``flags`` as sqlite3_open_v2 takes them). busy_ms: how long a locked
    database is waited for. Raises SqliteFailure, ImportError.
    """

    cdef sqlite3* db
    cdef bint active
    cdef bint closing
    cdef list leftover
    cdef readonly str library

    def __cinit__(self, str library, str path, int flags, int busy_ms, bint triggers=True, bint checkpoint=True):
        open_library(library)
        self.library = library
        self.leftover = []
        cdef bytes name = path.encode("utf-8", "surrogateescape")
        if b"\0" in name:
            raise SqliteFailure(14, "a file name cannot hold a NUL")
        cdef int rc
        cdef const char* c_name = name
        with nogil:
            rc = API.open_v2(c_name, &self.db, flags | SQLITE_OPEN_NOMUTEX, NULL)
        if rc != SQLITE_OK:
            failure = self._failure(rc)
            API.close_v2(self.db)
            self.db = NULL
            raise failure
        API.extended_result_codes(self.db, 1)
        API.busy_timeout(self.db, busy_ms)
        # A name in double quotes that is no column must be an error, not a text (SQLite's DQS misfeature).
        API.db_config(self.db, SQLITE_DBCONFIG_DQS_DML, 0, <int*> NULL)
        API.db_config(self.db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1 if triggers else 0, <int*> NULL)
        # Who only reads leaves the log as it is: folding it into the file would look like a change of it.
        API.db_config(self.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0 if checkpoint else 1, <int*> NULL)

    def __dealloc__(self):
        if self.db != NULL:
            API.close_v2(self.db)

    @property
    def address(self):
        """The sqlite3* as an integer, for the write kernel."""
        if self.db == NULL:
            raise SqliteFailure(21, "the database is closed")
        return <uintptr_t> self.db

    cdef object _failure(self, int rc):
        if self.db == NULL:
            return SqliteFailure(rc, "out of memory")
        message = API.errmsg(self.db).decode("utf-8", "replace")
        return SqliteFailure(rc, message)

    def failure(self, int rc):
        """The exception for a result code of a statement of this connection."""
        return self._failure(rc)

    cpdef enter(self):
        """Takes the connection for one call; another thread that is inside is a mistake of the caller."""
        if self.db == NULL or self.closing:
            raise SqliteFailure(21, "the database is closed")
        if self.active:
            raise SqliteFailure(21, "the connection is used by another thread at this moment")
        self.active = True

    cpdef leave(self):
        self.active = False
        while self.leftover:
            API.finalize(<sqlite3_stmt*> <uintptr_t> self.leftover.pop())
        if self.closing:
            self.close()

    cpdef release(self, uintptr_t statement):
        """Finalizes a statement, now or when the call that is in the connection comes back."""
        if self.active:
            self.leftover.append(statement)
        else:
            API.finalize(<sqlite3_stmt*> statement)

    def close(self):
        if self.db == NULL:
            return
        if self.active:
            self.closing = True
            API.interrupt(self.db)
            return
        API.close_v2(self.db)
        self.db = NULL

    def interrupt(self):
        if self.db != NULL:
            API.interrupt(self.db)

    @property
    def in_transaction(self):
        return self.db != NULL and not API.get_autocommit(self.db)

    @property
    def changes(self):
        """Rows that the last INSERT, UPDATE or DELETE touched."""
        return API.changes(self.db) if self.db != NULL else 0

    cdef sqlite3_stmt* prepare(self, str sql, object params) except NULL:
        """A statement with its parameters bound; the connection has been entered."""
        cdef bytes text = sql.encode("utf-8", "surrogateescape")
        cdef sqlite3_stmt* statement = NULL
        cdef const char* tail = NULL
        cdef const char* start = text
        cdef Py_ssize_t size = len(text)
        cdef int rc
        if size > 0x7FFFFFF0:
            raise SqliteFailure(18, "the statement is too long")
        with nogil:
            rc = API.prepare_v2(self.db, start, <int> size + 1, &statement, &tail)
        if rc != SQLITE_OK:
            raise self._failure(rc)
        if statement == NULL or text[tail - start:].strip():
            API.finalize(statement)
            raise SqliteFailure(1, "not exactly one statement")
        try:
            if API.bind_parameter_count(statement) != len(params):
                raise SqliteFailure(25, f"{API.bind_parameter_count(statement)} parameters, {len(params)} values")
            for index, value in enumerate(params, 1):
                self._bind(statement, index, value)
        except BaseException:
            API.finalize(statement)
            raise
        return statement

    cdef int _bind(self, sqlite3_stmt* statement, int index, object value) except -1:
        cdef int rc
        cdef bytes data
        if value is None:
            rc = API.bind_null(statement, index)
        elif isinstance(value, int):
            rc = API.bind_int64(statement, index, value)
        elif isinstance(value, float):
            rc = API.bind_double(statement, index, value)
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogateescape")
            rc = API.bind_text64(statement, index, data, len(data), <void (*)(void*) noexcept nogil> <intptr_t> -1, 1)
        elif isinstance(value, bytes):
            data = value
            rc = (API.bind_blob64(statement, index, <const char*> data, len(data), <void (*)(void*) noexcept nogil> <intptr_t> -1)
                  if data else API.bind_zeroblob(statement, index, 0))
        else:
            raise TypeError(f"a {type(value).__name__} cannot be a parameter")
        if rc != SQLITE_OK:
            raise self._failure(rc)
        return 0

    def execute(self, str sql, object params=()):
        """Runs one statement; returns its rows as tuples of None, int, float, str, bytes."""
        cdef sqlite3_stmt* statement
        cdef int rc
        cdef list rows = []
        self.enter()
        try:
            statement = self.prepare(sql, params)
            try:
                while True:
                    with nogil:
                        rc = API.step(statement)
                    if rc == SQLITE_DONE:
                        return rows
                    if rc != SQLITE_ROW:
                        raise self._failure(rc)
                    rows.append(tuple([value_of(statement, i) for i in range(API.column_count(statement))]))
            finally:
                API.finalize(statement)
        finally:
            self.leave()

    def header(self):
        """The first 100 bytes of the file, read through SQLite's own file handle; b'' where it is shorter.

        (Opening and closing the file beside SQLite would drop all locks that this process holds on it.)
        """
        cdef sqlite3_file* file = NULL
        cdef char buffer[100]
        self.enter()
        try:
            if API.file_control(self.db, b"main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK or file == NULL:
                return b""
            if file.pMethods == NULL or file.pMethods.xRead(file, buffer, 100, 0) != SQLITE_OK:
                return b""
            return buffer[:100]
        finally:
            self.leave()



cdef object value_of(sqlite3_stmt* statement, int i):
    cdef int kind = API.column_type(statement, i)
    cdef const uint8_t* p
    if kind == SQLITE_INTEGER:
        return API.column_int64(statement, i)
    if kind == SQLITE_FLOAT:
        return API.column_double(statement, i)
    if kind == SQLITE_NULL:
        return None
    if kind == SQLITE_TEXT:
        p = API.column_text(statement, i)
        return PyBytes_FromStringAndSize(<const char*> p, API.column_bytes(statement, i)).decode("utf-8", "surrogateescape")
    p = <const uint8_t*> API.column_blob(statement, i)
    return PyBytes_FromStringAndSize(<const char*> p, API.column_bytes(statement, i))


include "sqlite_cells.pxi"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────

@cython.no_gc_clear  # the end of a statement needs its connection
cdef class Reader:
    """A SELECT being stepped; ``next_batch`` fills Arrow buffers.

    specs: for each of the first columns (kind, width, digits, precision, scale, length, null_unfit). If the SELECT has
    one column more, it is the rowid, for messages. utf8: the database's encoding is UTF-8 (texts are not copied then).
    """

    cdef Database database
    cdef sqlite3_stmt* statement
    cdef Column* columns
    cdef int count
    cdef bint utf8
    cdef bint has_rowid
    cdef bint done
    cdef bint began
    cdef int64_t capacity
    cdef int64_t rows
    cdef int64_t bytes
    cdef int64_t hint
    cdef int bad
    cdef int code

    def __cinit__(self, Database database, str sql, object params, list specs, bint utf8=True):
        self.database = database
        self.count = len(specs)
        self.utf8 = utf8
        self.hint = 256
        self.columns = <Column*> calloc(max(1, self.count), sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        for i, spec in enumerate(specs):
            read_spec(&self.columns[i].spec, spec)
        database.enter()
        try:
            self.statement = database.prepare(sql, params)
            if not self.count <= API.column_count(self.statement) <= self.count + 1:
                raise ValueError("the SELECT gives another number of columns")
            self.has_rowid = API.column_count(self.statement) == self.count + 1
        finally:
            database.leave()

    def __dealloc__(self):
        self.clear()
        free(self.columns)
        if self.statement != NULL:
            self.database.release(<uintptr_t> self.statement)

    def close(self):
        """Ends the statement (and, outside of a transaction, its read lock)."""
        if self.statement != NULL:
            statement = <uintptr_t> self.statement
            self.statement = NULL
            self.done = True
            self.database.release(statement)

    cdef void clear(self) noexcept:
        cdef int i
        if self.columns == NULL:
            return
        for i in range(self.count):
            free(self.columns[i].bits)
            free(self.columns[i].data)
            free(self.columns[i].offsets)
            self.columns[i].bits = self.columns[i].data = NULL
            self.columns[i].offsets = NULL

    def settled(self):
        """For each column, how many unfit values were read as NULL so far (where ``null_unfit``)."""
        return [self.columns[i].settled for i in range(self.count)]

    def next_batch(self, int64_t rows_max, int64_t bytes_max):
        """The next rows: (row count, [(null count, bits | None, offsets | None, data), …]), or None at the end.

        A batch ends at ``rows_max`` rows or with the row that reaches ``bytes_max`` bytes. Raises SqliteFailure,
        UnfitValue (the rows before it in the batch are lost with it), MemoryError.
        """
        cdef int ending
        if self.done:
            return None
        self.database.enter()
        try:
            if rows_max < 1 or bytes_max < 1:
                raise ValueError("a batch of nothing")
            with nogil:
                ending = self.fill(rows_max, bytes_max)
            if ending == END_ROWS or ending == END_FAILURE:
                self.done = True
            if ending == END_FAILURE:
                raise self.database._failure(self.code)
            if ending == END_MEMORY:
                self.done = True
                raise MemoryError
            if ending == END_UNFIT:
                self.done = True
                raise self.unfit()
            return self.take() if self.rows else None
        finally:
            self.clear()
            self.database.leave()

    cdef object unfit(self):
        cdef Cell cell
        kind = API.column_type(self.statement, self.bad)
        rowid = None
        if self.has_rowid and API.column_type(self.statement, self.count) == SQLITE_INTEGER:
            rowid = API.column_int64(self.statement, self.count)
        if kind == SQLITE_INTEGER:
            shown = str(API.column_int64(self.statement, self.bad))
        elif kind == SQLITE_FLOAT:
            shown = repr(API.column_double(self.statement, self.bad))
        elif not cell_bytes(API.column_value(self.statement, self.bad), kind == SQLITE_TEXT, self.utf8, &cell):
            shown = "…"
        else:
            data = PyBytes_FromStringAndSize(<const char*> cell.p, min(cell.n, SHOWN_BYTES))
            more = "…" if cell.n > SHOWN_BYTES else ""
            shown = (repr(data.decode("utf-8", "backslashreplace")) if kind == SQLITE_TEXT else "\\x" + data.hex()) + more
        return UnfitValue(self.bad, _STORED[kind], shown, rowid)

    cdef object take(self):
        """The filled buffers, which from now on belong to their Python objects."""
        cdef Column* column
        cdef int i
        parts = []
        for i in range(self.count):
            column = &self.columns[i]
            bits = offsets = None
            if column.nulls:
                bits = owned(column.bits, (self.rows + 7) // 8)
                column.bits = NULL
            if column.offsets != NULL:
                offsets = owned(column.offsets, (self.rows + 1) * 4)
                column.offsets = NULL
                size = column.used
            else:
                size = (self.rows + 7) // 8 if column.spec.kind == K_BOOL else self.rows * column.spec.width
            data = owned(column.data, size)
            column.data = NULL
            parts.append((column.nulls, bits, offsets, data))
        self.hint = min(self.rows + self.rows // 8 + 8, 65536)
        return self.rows, parts

    cdef int begin(self) noexcept nogil:
        """Fresh buffers for ``hint`` rows."""
        cdef Column* column
        cdef int i
        self.capacity = (self.hint + 7) & ~7
        self.rows = 0
        self.bytes = 0
        for i in range(self.count):
            column = &self.columns[i]
            column.nulls = 0
            column.used = 0
            column.bits = <uint8_t*> calloc(self.capacity // 8, 1)
            if column.bits == NULL:
                return 0
            if column.spec.width == 0:
                column.offsets = <int32_t*> malloc((self.capacity + 1) * 4)
                column.room = self.capacity * 8
                column.data = <uint8_t*> malloc(column.room)
                if column.offsets == NULL:
                    return 0
                column.offsets[0] = 0
            elif column.spec.kind == K_BOOL:
                column.data = <uint8_t*> calloc(self.capacity // 8, 1)
            else:
                column.data = <uint8_t*> malloc(self.capacity * column.spec.width)
            if column.data == NULL:
                return 0
        return 1

    cdef int grow(self) noexcept nogil:
        """Twice the rows."""
        cdef Column* column
        cdef int64_t more = self.capacity * 2
        cdef void* p
        cdef int i
        for i in range(self.count):
            column = &self.columns[i]
            p = realloc(column.bits, more // 8)
            if p == NULL:
                return 0
            column.bits = <uint8_t*> p
            memset(column.bits + self.capacity // 8, 0, self.capacity // 8)
            if column.spec.width == 0:
                p = realloc(column.offsets, (more + 1) * 4)
                if p == NULL:
                    return 0
                column.offsets = <int32_t*> p
            elif column.spec.kind == K_BOOL:
                p = realloc(column.data, more // 8)
                if p == NULL:
                    return 0
                column.data = <uint8_t*> p
                memset(column.data + self.capacity // 8, 0, self.capacity // 8)
            else:
                p = realloc(column.data, more * column.spec.width)
                if p == NULL:
                    return 0
                column.data = <uint8_t*> p
        self.capacity = more
        return 1

    cdef int append(self, Column* column, const uint8_t* p, int64_t n, bint hex) noexcept nogil:
        """Adds n bytes (as \\x and hexadecimal digits where ``hex``) to a column of texts or blobs."""
        cdef int64_t size = 2 + 2 * n if hex else n
        cdef int64_t room, i
        cdef void* grown
        cdef uint8_t* out
        cdef int digit
        if column.used + size > VARIABLE_BYTES_MAX:
            return 0
        if column.used + size > column.room:
            room = column.room * 2
            if room < column.used + size:
                room = column.used + size
            grown = realloc(column.data, room)
            if grown == NULL:
                return 0
            column.data = <uint8_t*> grown
            column.room = room
        out = column.data + column.used
        if hex:
            out[0] = 92
            out[1] = 120
            for i in range(n):
                digit = p[i] >> 4
                out[2 + 2 * i] = <uint8_t> (48 + digit if digit < 10 else 87 + digit)
                digit = p[i] & 15
                out[3 + 2 * i] = <uint8_t> (48 + digit if digit < 10 else 87 + digit)
        elif n:
            memcpy(out, p, n)
        column.used += size
        self.bytes += size
        return 1

    cdef int fill(self, int64_t rows_max, int64_t bytes_max) noexcept nogil:
        cdef int rc, i, ending
        if not self.begin():
            return END_MEMORY
        while True:
            if self.rows >= rows_max or self.bytes >= bytes_max:
                return END_BATCH
            rc = API.step(self.statement)
            if rc == SQLITE_DONE:
                return END_ROWS
            if rc != SQLITE_ROW:
                self.code = rc
                return END_FAILURE
            if self.rows == self.capacity and not self.grow():
                return END_MEMORY
            for i in range(self.count):
                ending = self.put(i)
                if ending != END_ROWS:
                    return ending
            self.rows += 1

    cdef inline int put(self, int i) noexcept nogil:
        """Cell i of the current row, into its column."""
        cdef Column* column = &self.columns[i]
        cdef Cell cell
        cdef char scratch[SCRATCH_BYTES]
        cdef uint8_t one
        cdef int64_t row = self.rows
        cdef int width = column.spec.width
        cdef int found
        cdef uint8_t* out = column.data + row * width if width and column.spec.kind != K_BOOL else &one
        found = decode(&column.spec, API.column_value(self.statement, i), self.utf8, out, scratch, &cell)
        if found == UNFIT and column.spec.null_unfit:
            column.settled += 1
            found = IS_NULL
        if found == UNFIT:
            self.bad = i
            return END_UNFIT
        if found == NO_MEMORY:
            return END_MEMORY
        self.bytes += width if width else 4
        if found == IS_NULL:
            column.nulls += 1
            if width and column.spec.kind != K_BOOL:
                memset(out, 0, width)
        else:
            column.bits[row >> 3] |= <uint8_t> (1 << (row & 7))
            if column.spec.kind == K_BOOL:
                column.data[row >> 3] |= <uint8_t> (one << (row & 7))
            elif found != IS_FIXED and not self.append(column, cell.p, cell.n, found == IS_HEX):
                return END_MEMORY
        if width == 0:
            column.offsets[row + 1] = <int32_t> column.used
        return END_ROWS


# ── the census ───────────────────────────────────────────────────────────────────────────────────

ctypedef struct Tally:
    int64_t stored[6]
    int64_t bytes


cdef class _Census:
    """Counts over one SELECT; see ``census``."""

    cdef Spec* specs
    cdef int64_t* unfit
    cdef int* first
    cdef Tally* tallies
    cdef int count
    cdef int64_t rows
    cdef int code

    def __cinit__(self, list candidates):
        cdef int k = 0
        self.count = len(candidates)
        total = sum(len(c) for c in candidates)
        self.specs = <Spec*> calloc(max(1, total), sizeof(Spec))
        self.unfit = <int64_t*> calloc(max(1, total), 8)
        self.first = <int*> calloc(self.count + 1, sizeof(int))
        self.tallies = <Tally*> calloc(max(1, self.count), sizeof(Tally))
        if self.specs == NULL or self.unfit == NULL or self.first == NULL or self.tallies == NULL:
            raise MemoryError
        for i, column in enumerate(candidates):
            self.first[i] = k
            for spec in column:
                read_spec(&self.specs[k], spec)
                k += 1
        self.first[self.count] = k

    def __dealloc__(self):
        free(self.specs)
        free(self.unfit)
        free(self.first)
        free(self.tallies)

    cdef int run(self, sqlite3_stmt* statement, bint utf8, uint8_t* out) noexcept nogil:
        """``out`` has room for the widest fixed column."""
        cdef char scratch[SCRATCH_BYTES]
        cdef Cell cell
        cdef sqlite3_value* value
        cdef int rc, i, k, kind, found
        while True:
            rc = API.step(statement)
            if rc == SQLITE_DONE:
                return END_ROWS
            if rc != SQLITE_ROW:
                self.code = rc
                return END_FAILURE
            self.rows += 1
            for i in range(self.count):
                value = API.column_value(statement, i)
                kind = API.value_type(value)
                self.tallies[i].stored[kind if 0 < kind < 6 else 0] += 1
                if kind == SQLITE_NULL:
                    continue
                for k in range(self.first[i], self.first[i + 1]):
                    found = decode(&self.specs[k], value, utf8, out, scratch, &cell)
                    if found == NO_MEMORY:
                        return END_MEMORY
                    if found == UNFIT:
                        self.unfit[k] += 1
                if kind == SQLITE_TEXT or kind == SQLITE_BLOB:
                    self.tallies[i].bytes += API.value_bytes(value)
                else:
                    self.tallies[i].bytes += 8


def census(Database database, str sql, object params, list candidates, bint utf8=True):
    """Counts the stored values of each column of a SELECT and, for each of its candidate specs, those that do not fit.

    Returns (rows, [({integer, real, text, blob, null: count}, bytes, [unfit of each candidate]), …]).
    Raises SqliteFailure.
    """
    cdef _Census tally = _Census(candidates)
    cdef sqlite3_stmt* statement
    cdef uint8_t* out
    cdef int ending
    widest = max([spec[1] for column in candidates for spec in column], default=0) + 32
    database.enter()
    try:
        statement = database.prepare(sql, params)
        out = <uint8_t*> malloc(widest)
        try:
            if out == NULL:
                raise MemoryError
            if API.column_count(statement) != tally.count:
                raise ValueError("the SELECT gives another number of columns")
            with nogil:
                ending = tally.run(statement, utf8, out)
            if ending == END_FAILURE:
                raise database._failure(tally.code)
            if ending == END_MEMORY:
                raise MemoryError
        finally:
            free(out)
            API.finalize(statement)
    finally:
        database.leave()
    columns = []
    for i in range(tally.count):
        stored = {
            "integer": tally.tallies[i].stored[SQLITE_INTEGER],
            "real": tally.tallies[i].stored[SQLITE_FLOAT],
            "text": tally.tallies[i].stored[SQLITE_TEXT],
            "blob": tally.tallies[i].stored[SQLITE_BLOB],
            "null": tally.tallies[i].stored[SQLITE_NULL],
        }
        unfit = [tally.unfit[k] for k in range(tally.first[i], tally.first[i + 1])]
        columns.append((stored, tally.tallies[i].bytes, unfit))
    return tally.rows, columns
