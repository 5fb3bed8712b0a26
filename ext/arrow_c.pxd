# The Arrow C Data Interface: its two structs, declared here so that no kernel needs Arrow's headers.
# https://arrow.apache.org/docs/format/CDataInterface.html
#
# The structs carry no buffer sizes. A kernel that must not read past a buffer takes the sizes
# beside them, from ``[b.size if b else 0 for b in column.buffers()]`` of every column, which
# walks the tree in the same order as the structs do.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t


cdef extern from *:
    """
    #ifndef ARROW_C_DATA_INTERFACE
    #define ARROW_C_DATA_INTERFACE
    struct ArrowSchema {
      const char* format;
      const char* name;
      const char* metadata;
      int64_t flags;
      int64_t n_children;
      struct ArrowSchema** children;
      struct ArrowSchema* dictionary;
      void (*release)(struct ArrowSchema*);
      void* private_data;
    };
    struct ArrowArray {
      int64_t length;
      int64_t null_count;
      int64_t offset;
      int64_t n_buffers;
      int64_t n_children;
      const void** buffers;
      struct ArrowArray** children;
      struct ArrowArray* dictionary;
      void (*release)(struct ArrowArray*);
      void* private_data;
    };
    #endif
    """
    cdef struct ArrowSchema:
        const char* format
        const char* name
        const char* metadata
        int64_t flags
        int64_t n_children
        ArrowSchema** children
        ArrowSchema* dictionary
        void (*release)(ArrowSchema*) noexcept
        void* private_data

    cdef struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void** buffers
        ArrowArray** children
        ArrowArray* dictionary
        void (*release)(ArrowArray*) noexcept
        void* private_data


cdef inline ArrowSchema* schema_of(object capsule) except NULL:
    """The schema in a capsule; the capsule keeps owning it."""
    return <ArrowSchema*> PyCapsule_GetPointer(capsule, b"arrow_schema")


cdef inline ArrowArray* array_of(object capsule) except NULL:
    """The array in a capsule; the capsule keeps owning it."""
    return <ArrowArray*> PyCapsule_GetPointer(capsule, b"arrow_array")


cdef inline bint bit_at(const uint8_t* bits, int64_t i) noexcept nogil:
    """Bit i of an Arrow bitmap (least significant bit first)."""
    return (bits[i >> 3] >> (i & 7)) & 1
