# The Arrow C Data Interface: its two structs, declared here so that no kernel needs Arrow's headers.
# https://arrow.apache.org/docs/format/CDataInterface.html
#
# The structs carry no buffer sizes. A kernel that must not read past a buffer takes the sizes
# beside them, from ``[b.size if b else 0 for b in column.buffers()]`` of every column, which
# walks the tree in the same order as the structs do.

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t


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


cdef extern from *:
    """
    #include <string.h>
    /* Value i of a buffer, whose address need not be a multiple of the value's width. */
    #define RF_AT(name, type) static inline type name(const void* p, int64_t i) { \
      type v; memcpy(&v, (const char*)p + i * (int64_t)sizeof v, sizeof v); return v; }
    RF_AT(rf_at_i16, int16_t)   RF_AT(rf_at_i32, int32_t)   RF_AT(rf_at_i64, int64_t)
    RF_AT(rf_at_u16, uint16_t)  RF_AT(rf_at_u32, uint32_t)  RF_AT(rf_at_u64, uint64_t)
    RF_AT(rf_at_f32, float)     RF_AT(rf_at_f64, double)
    """
    # Lengths and offsets beyond this are refused: sums of them do not overflow; products: see bytes_of.
    const int64_t ARROW_LENGTH_MAX "(INT64_C(1) << 48)"
    int16_t at_i16 "rf_at_i16"(const void* p, int64_t i) noexcept nogil
    int32_t at_i32 "rf_at_i32"(const void* p, int64_t i) noexcept nogil
    int64_t at_i64 "rf_at_i64"(const void* p, int64_t i) noexcept nogil
    uint16_t at_u16 "rf_at_u16"(const void* p, int64_t i) noexcept nogil
    uint32_t at_u32 "rf_at_u32"(const void* p, int64_t i) noexcept nogil
    uint64_t at_u64 "rf_at_u64"(const void* p, int64_t i) noexcept nogil
    float at_f32 "rf_at_f32"(const void* p, int64_t i) noexcept nogil
    double at_f64 "rf_at_f64"(const void* p, int64_t i) noexcept nogil


cdef inline int check_array(ArrowSchema* schema, ArrowArray* array, int64_t length) except -1:
    """Raises ValueError where the structs are absent or released, or hold no ``length`` values at a sane offset."""
    if schema == NULL or array == NULL or schema.release == NULL or array.release == NULL or schema.format == NULL:
        raise ValueError("an Arrow array that is absent, or released")
    if not (0 <= array.offset <= ARROW_LENGTH_MAX and 0 <= array.length <= ARROW_LENGTH_MAX):
        raise ValueError(f"an Arrow array of length {array.length} at offset {array.offset}")
    if not 0 <= length <= array.length:
        raise ValueError("an Arrow array is shorter than its batch")
    return 0


cdef inline int check_children(ArrowSchema* schema, ArrowArray* array, int64_t count) except -1:
    """Raises ValueError where a checked array has not that many children."""
    if array.n_children != count or schema.n_children != count:
        raise ValueError(f"an Arrow array with {array.n_children} children, {count} are expected")
    if count and (array.children == NULL or schema.children == NULL):
        raise ValueError("an Arrow array without its children")
    return 0


cdef inline int64_t bytes_of(int64_t values, int64_t width) except -1:
    """values × width. Raises ValueError where no memory can hold so much."""
    if width < 0 or (width and values > (<int64_t> 1 << 62) // width):
        raise ValueError(f"an Arrow array of {values} values of {width} bytes")
    return values * width


cdef inline bint bit_at(const uint8_t* bits, int64_t i) noexcept nogil:
    """Bit i of an Arrow bitmap (least significant bit first)."""
    return (bits[i >> 3] >> (i & 7)) & 1
