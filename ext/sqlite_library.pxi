# Python's own SQLite library, opened once for each kernel that calls it (see sqlite_api.pxd).

cdef SqliteApi API
cdef bint API_LOADED = False


cdef int open_library(str library) except -1:
    """Finds the functions. Raises ImportError where the library has not all of them."""
    global API_LOADED
    if not API_LOADED:
        load_api(&API, library.encode())
        API_LOADED = True
    return 0
