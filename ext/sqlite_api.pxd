# SQLite's C API, taken at run time out of the very library that Python's own sqlite3 uses.
#
# Two copies of SQLite in one process drop each other's POSIX locks when one of them closes a file,
# so the library is not linked: dlopen(_sqlite3.__file__) and dlsym find the symbols that are loaded.
# https://www.sqlite.org/howtocorrupt.html (2.2.1); https://www.sqlite.org/c3ref/intro.html

from libc.stdint cimport int64_t, uint64_t

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* filename, int flags)
    void* dlsym(void* handle, const char* symbol)
    const char* dlerror()
    int RTLD_NOW
    int RTLD_LOCAL

cdef extern from *:
    """
    typedef struct sqlite3 sqlite3;
    typedef struct sqlite3_stmt sqlite3_stmt;
    typedef struct sqlite3_value sqlite3_value;
    """
    ctypedef struct sqlite3:
        pass

    ctypedef struct sqlite3_stmt:
        pass

    ctypedef struct sqlite3_value:
        pass

ctypedef struct sqlite3_io_methods:
    int iVersion
    int (*xClose)(void*) noexcept nogil
    int (*xRead)(void*, void*, int, int64_t) noexcept nogil

ctypedef struct sqlite3_file:
    const sqlite3_io_methods* pMethods

cdef enum:
    SQLITE_OK = 0
    SQLITE_ROW = 100
    SQLITE_DONE = 101
    SQLITE_INTEGER = 1
    SQLITE_FLOAT = 2
    SQLITE_TEXT = 3
    SQLITE_BLOB = 4
    SQLITE_NULL = 5
    SQLITE_OPEN_NOMUTEX = 0x00008000
    SQLITE_FCNTL_FILE_POINTER = 7
    SQLITE_DBCONFIG_ENABLE_TRIGGER = 1003
    SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE = 1006
    SQLITE_DBCONFIG_DQS_DML = 1013
    SQLITE_DBCONFIG_DQS_DDL = 1014

ctypedef struct SqliteApi:
    const char* (*libversion)() noexcept nogil
    int (*open_v2)(const char*, sqlite3**, int, const char*) noexcept nogil
    int (*close_v2)(sqlite3*) noexcept nogil
    const char* (*errmsg)(sqlite3*) noexcept nogil
    int (*extended_errcode)(sqlite3*) noexcept nogil
    int (*extended_result_codes)(sqlite3*, int) noexcept nogil
    int (*busy_timeout)(sqlite3*, int) noexcept nogil
    void (*interrupt)(sqlite3*) noexcept nogil
    int (*get_autocommit)(sqlite3*) noexcept nogil
    int (*changes)(sqlite3*) noexcept nogil
    int (*db_config)(sqlite3*, int, ...) noexcept nogil
    int (*file_control)(sqlite3*, const char*, int, void*) noexcept nogil
    int (*prepare_v2)(sqlite3*, const char*, int, sqlite3_stmt**, const char**) noexcept nogil
    int (*step)(sqlite3_stmt*) noexcept nogil
    int (*reset)(sqlite3_stmt*) noexcept nogil
    int (*finalize)(sqlite3_stmt*) noexcept nogil
    int (*clear_bindings)(sqlite3_stmt*) noexcept nogil
    int (*bind_parameter_count)(sqlite3_stmt*) noexcept nogil
    int (*bind_null)(sqlite3_stmt*, int) noexcept nogil
    int (*bind_int64)(sqlite3_stmt*, int, int64_t) noexcept nogil
    int (*bind_double)(sqlite3_stmt*, int, double) noexcept nogil
    int (*bind_text64)(sqlite3_stmt*, int, const char*, uint64_t, void (*)(void*) noexcept nogil, unsigned char) noexcept nogil
    int (*bind_blob64)(sqlite3_stmt*, int, const void*, uint64_t, void (*)(void*) noexcept nogil) noexcept nogil
    int (*bind_zeroblob)(sqlite3_stmt*, int, int) noexcept nogil
    int (*column_count)(sqlite3_stmt*) noexcept nogil
    int (*column_type)(sqlite3_stmt*, int) noexcept nogil
    int64_t (*column_int64)(sqlite3_stmt*, int) noexcept nogil
    double (*column_double)(sqlite3_stmt*, int) noexcept nogil
    const void* (*column_blob)(sqlite3_stmt*, int) noexcept nogil
    const unsigned char* (*column_text)(sqlite3_stmt*, int) noexcept nogil
    int (*column_bytes)(sqlite3_stmt*, int) noexcept nogil
    sqlite3_value* (*column_value)(sqlite3_stmt*, int) noexcept nogil
    int (*value_type)(sqlite3_value*) noexcept nogil
    int64_t (*value_int64)(sqlite3_value*) noexcept nogil
    double (*value_double)(sqlite3_value*) noexcept nogil
    const void* (*value_blob)(sqlite3_value*) noexcept nogil
    const unsigned char* (*value_text)(sqlite3_value*) noexcept nogil
    int (*value_bytes)(sqlite3_value*) noexcept nogil


cdef inline void* symbol(void* library, const char* name) except NULL:
    cdef void* found = dlsym(library, name)
    if found == NULL:
        raise ImportError(f"Python's own SQLite library does not show {name.decode()}")
    return found


cdef inline int load_api(SqliteApi* api, bytes path) except -1:
    """Fills the table from the shared object at ``path`` (empty: the process itself). The handle is never closed."""
    cdef const char* name = NULL
    if path:
        name = path
    cdef void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError(f"Python's own SQLite library cannot be opened: {dlerror().decode(errors='replace')}")
    api.libversion = <const char* (*)() noexcept nogil> symbol(library, b"sqlite3_libversion")
    api.open_v2 = <int (*)(const char*, sqlite3**, int, const char*) noexcept nogil> symbol(library, b"sqlite3_open_v2")
    api.close_v2 = <int (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_close_v2")
    api.errmsg = <const char* (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_errmsg")
    api.extended_errcode = <int (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_extended_errcode")
    api.extended_result_codes = <int (*)(sqlite3*, int) noexcept nogil> symbol(
        library, b"sqlite3_extended_result_codes"
    )
    api.busy_timeout = <int (*)(sqlite3*, int) noexcept nogil> symbol(library, b"sqlite3_busy_timeout")
    api.interrupt = <void (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_interrupt")
    api.get_autocommit = <int (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_get_autocommit")
    api.changes = <int (*)(sqlite3*) noexcept nogil> symbol(library, b"sqlite3_changes")
    api.db_config = <int (*)(sqlite3*, int, ...) noexcept nogil> symbol(library, b"sqlite3_db_config")
    api.file_control = <int (*)(sqlite3*, const char*, int, void*) noexcept nogil> symbol(
        library, b"sqlite3_file_control"
    )
    api.prepare_v2 = <int (*)(sqlite3*, const char*, int, sqlite3_stmt**, const char**) noexcept nogil> symbol(
        library, b"sqlite3_prepare_v2"
    )
    api.step = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_step")
    api.reset = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_reset")
    api.finalize = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_finalize")
    api.clear_bindings = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_clear_bindings")
    api.bind_parameter_count = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_bind_parameter_count")
    api.bind_null = <int (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_bind_null")
    api.bind_int64 = <int (*)(sqlite3_stmt*, int, int64_t) noexcept nogil> symbol(library, b"sqlite3_bind_int64")
    api.bind_double = <int (*)(sqlite3_stmt*, int, double) noexcept nogil> symbol(library, b"sqlite3_bind_double")
    api.bind_text64 = <int (*)(sqlite3_stmt*, int, const char*, uint64_t, void (*)(void*) noexcept nogil, unsigned char) noexcept nogil> symbol(
        library, b"sqlite3_bind_text64"
    )
    api.bind_blob64 = <int (*)(sqlite3_stmt*, int, const void*, uint64_t, void (*)(void*) noexcept nogil) noexcept nogil> symbol(
        library, b"sqlite3_bind_blob64"
    )
    api.bind_zeroblob = <int (*)(sqlite3_stmt*, int, int) noexcept nogil> symbol(library, b"sqlite3_bind_zeroblob")
    api.column_count = <int (*)(sqlite3_stmt*) noexcept nogil> symbol(library, b"sqlite3_column_count")
    api.column_type = <int (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_type")
    api.column_int64 = <int64_t (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_int64")
    api.column_double = <double (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_double")
    api.column_blob = <const void* (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_blob")
    api.column_text = <const unsigned char* (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_text")
    api.column_bytes = <int (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_bytes")
    api.column_value = <sqlite3_value* (*)(sqlite3_stmt*, int) noexcept nogil> symbol(library, b"sqlite3_column_value")
    api.value_type = <int (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_type")
    api.value_int64 = <int64_t (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_int64")
    api.value_double = <double (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_double")
    api.value_blob = <const void* (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_blob")
    api.value_text = <const unsigned char* (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_text")
    api.value_bytes = <int (*)(sqlite3_value*) noexcept nogil> symbol(library, b"sqlite3_value_bytes")
    return 0
