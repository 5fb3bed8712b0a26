# How one kernel gives rows to another without Arrow arrays between them: a block of columns at a
# time, still in the cache. A decoder fills IntakeColumns in pre-order (a list, then its items);
# whoever takes them in (the digest) hands out a capsule that holds an Intake.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t


# What ``data`` of a column holds.
cdef enum:
    INTAKE_VALUES   # of ``width`` bytes each
    INTAKE_BITS
    INTAKE_TEXTS    # rows + 1 offsets of 32 bits, which point into ``payload``
    INTAKE_LISTS    # rows + 1 offsets of 32 bits, which count rows of the column that follows


cdef struct IntakeColumn:
    int holds
    int64_t width             # of values; else 0
    int64_t rows
    const uint8_t* validity   # an Arrow bitmap; NULL: nothing is null
    const uint8_t* data
    const uint8_t* payload    # bytes of texts
    int64_t payload_size


# What ``add`` answers, beside codes of a value that are its own.
cdef enum:
    INTAKE_GOOD = 0
    INTAKE_COLUMNS = 1000   # columns that are not those it was made for
    INTAKE_BUSY = 1001      # another thread is using it


cdef struct Intake:
    # Adds ``rows`` rows; INTAKE_GOOD, or what is wrong (then the total is to be given up).
    int (*add)(Intake* self, const IntakeColumn* columns, int count, int64_t rows) noexcept nogil
    void* state


cdef inline Intake* intake_of(object capsule) except NULL:
    """The intake in a capsule, which keeps owning it."""
    return <Intake*> PyCapsule_GetPointer(capsule, b"rowferry.intake")
