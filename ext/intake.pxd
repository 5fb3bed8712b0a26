# How one kernel gives rows to another without Arrow arrays between them: a block of columns at a
# time, still in the cache. A decoder fills IntakeColumns in pre-order (a list, then its items);
# whoever takes them in (the digest) hands out a capsule that holds an Intake.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t


cdef struct IntakeColumn:
    int64_t rows
    int64_t width             # bytes of a value in ``data``: 4 for offsets, 0 for bits
    const uint8_t* validity   # an Arrow bitmap; NULL: nothing is null
    const uint8_t* data       # values, or rows + 1 offsets of 32 bits
    const uint8_t* payload    # bytes of texts
    int64_t payload_size      # −1 where there are none


cdef struct Intake:
    # Adds ``rows`` rows; 0, or what is wrong with them (then they are to be given up).
    int (*add)(Intake* self, const IntakeColumn* columns, int count, int64_t rows) noexcept nogil
    void* state


cdef inline Intake* intake_of(object capsule) except NULL:
    """The intake in a capsule, which keeps owning it."""
    return <Intake*> PyCapsule_GetPointer(capsule, b"rowferry.intake")
