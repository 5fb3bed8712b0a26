# One stored value into what its column's Arrow buffer holds. Included by sqlite_rows.pyx, whose API,
# kinds and structs it uses (a .pxd could not see the table of SQLite's functions).

cdef inline int cell_bytes(sqlite3_value* value, bint text, bint utf8, Cell* cell) noexcept nogil:
    """The bytes of a TEXT or BLOB cell, without a copy. 0 where SQLite had no memory for them."""
    if text and not utf8:
        cell.p = API.value_text(value)
    else:
        cell.p = <const uint8_t*> API.value_blob(value)
    cell.n = API.value_bytes(value)
    return cell.p != NULL or cell.n == 0


cdef inline int store_int(const Spec* spec, int64_t value, uint8_t* out) noexcept nogil:
    if spec.kind == K_INT64:
        (<int64_t*> out)[0] = value
    elif spec.kind == K_INT32:
        if value < -2147483648LL or value > 2147483647:
            return UNFIT
        (<int32_t*> out)[0] = <int32_t> value
    elif spec.kind == K_INT16:
        if value < -32768 or value > 32767:
            return UNFIT
        (<int16_t*> out)[0] = <int16_t> value
    elif spec.kind == K_INT8:
        if value < -128 or value > 127:
            return UNFIT
        (<int8_t*> out)[0] = <int8_t> value
    elif spec.kind == K_UINT64:
        if value < 0:
            return UNFIT
        (<uint64_t*> out)[0] = <uint64_t> value
    elif spec.kind == K_UINT32:
        if value < 0 or value > 4294967295LL:
            return UNFIT
        (<uint32_t*> out)[0] = <uint32_t> value
    elif spec.kind == K_UINT16:
        if value < 0 or value > 65535:
            return UNFIT
        (<uint16_t*> out)[0] = <uint16_t> value
    else:
        if value < 0 or value > 255:
            return UNFIT
        out[0] = <uint8_t> value
    return IS_FIXED


cdef inline int store_number(const Spec* spec, int kind, int64_t i, double d, uint8_t* out) noexcept nogil:
    """A stored INTEGER (i) or REAL (d) in a fixed-width column."""
    cdef uint64_t limbs[4]
    if spec.kind == K_BOOL:
        if kind != SQLITE_INTEGER or i < 0 or i > 1:
            return UNFIT
        out[0] = <uint8_t> i
    elif spec.kind <= K_UINT64:
        return store_int(spec, i, out) if kind == SQLITE_INTEGER else UNFIT
    elif spec.kind == K_FLOAT64 or spec.kind == K_FLOAT32:
        if kind == SQLITE_INTEGER:
            if i < -9007199254740992LL or i > 9007199254740992LL:
                return UNFIT
            d = <double> i
        if spec.kind == K_FLOAT64:
            (<double*> out)[0] = d
        else:
            if <double> (<float> d) != d:
                return UNFIT
            (<float*> out)[0] = <float> d
    elif spec.kind == K_DECIMAL:
        if kind == SQLITE_INTEGER:
            if not decimal_of_int(i, spec.precision, spec.scale, limbs):
                return UNFIT
        elif not decimal_of_double(d, spec.precision, spec.scale, limbs):
            return UNFIT
        memcpy(out, limbs, spec.width)
    else:
        return UNFIT
    return IS_FIXED


cdef inline int store_text(const Spec* spec, const uint8_t* p, int64_t n, uint8_t* out) noexcept nogil:
    """A stored TEXT in a fixed-width column."""
    cdef uint64_t limbs[4]
    cdef int128 months, days, units
    cdef int kind = spec.kind
    if n == 0:
        return UNFIT
    if kind == K_DATE:
        return IS_FIXED if parse_date(p, n, <int32_t*> out) else UNFIT
    if kind == K_TIMESTAMP or kind == K_TIMESTAMPTZ:
        return IS_FIXED if parse_timestamp(p, n, spec.digits, kind == K_TIMESTAMPTZ, <int64_t*> out) else UNFIT
    if kind == K_TIME:
        return IS_FIXED if parse_time(p, n, spec.digits, <int64_t*> out) else UNFIT
    if kind == K_DECIMAL:
        if not parse_decimal(p, n, spec.precision, spec.scale, limbs):
            return UNFIT
        memcpy(out, limbs, spec.width)
        return IS_FIXED
    if kind == K_UUID:
        return IS_FIXED if parse_uuid(p, n, out) else UNFIT
    if kind == K_DURATION or kind == K_INTERVAL:
        if not parse_interval(p, n, spec.digits, &months, &days, &units):
            return UNFIT
        if units < <int128> INT64_BOTTOM or units > <int128> INT64_TOP:
            return UNFIT
        if kind == K_DURATION:
            if months != 0 or days != 0:
                return UNFIT
            (<int64_t*> out)[0] = <int64_t> units
            return IS_FIXED
        if months < -2147483648LL or months > 2147483647 or days < -2147483648LL or days > 2147483647:
            return UNFIT
        (<int32_t*> out)[0] = <int32_t> months
        (<int32_t*> out)[1] = <int32_t> days
        (<int64_t*> out)[1] = <int64_t> units
        return IS_FIXED
    return UNFIT


cdef inline bint is_numeric_text(const uint8_t* p, int64_t n) noexcept nogil:
    """-?digits[.digits], NaN, Infinity or -Infinity."""
    cdef int64_t i = 0, digits = 0
    if (n == 3 and memcmp(p, b"NaN", 3) == 0) or (n == 8 and memcmp(p, b"Infinity", 8) == 0):
        return 1
    if n == 9 and memcmp(p, b"-Infinity", 9) == 0:
        return 1
    if n and p[0] == 45:
        i = 1
    while i < n and 48 <= p[i] <= 57:
        i += 1
        digits += 1
    if digits == 0:
        return 0
    if i < n and p[i] == 46:
        i += 1
        if i == n:
            return 0
        while i < n and 48 <= p[i] <= 57:
            i += 1
    return i == n


cdef inline int check_text(const Spec* spec, Cell* cell) noexcept nogil:
    """A stored TEXT in a column of texts: UTF-8, within its length, of its kind's alphabet."""
    cdef int64_t i
    if not utf8_is_valid(cell.p, cell.n):
        return UNFIT
    if spec.kind == K_CHAR:
        while cell.n and cell.p[cell.n - 1] == 32:
            cell.n -= 1
    elif spec.kind == K_NUMERIC:
        if not is_numeric_text(cell.p, cell.n):
            return UNFIT
    elif spec.kind == K_BITS:
        for i in range(cell.n):
            if cell.p[i] != 48 and cell.p[i] != 49:
                return UNFIT
    if spec.length >= 0 and cell.n > spec.length and utf8_characters(cell.p, cell.n) > spec.length:
        return UNFIT
    return IS_VARIABLE


cdef inline int number_text(const Spec* spec, int kind, int64_t i, double d, char* scratch, Cell* cell) noexcept nogil:
    """A stored number in a column of texts that take numbers (loose, json, numeric)."""
    cdef int n = 0
    if spec.kind == K_LOOSE or spec.kind == K_JSON or (spec.kind == K_NUMERIC and kind == SQLITE_INTEGER):
        if kind == SQLITE_INTEGER:
            if i < 0:
                scratch[0] = 45
                n = 1
            n += put_digits(scratch + n, <uint64_t> i if i >= 0 else 0 - <uint64_t> i, 1)
        elif spec.kind == K_LOOSE or isfinite(d):
            n = double_text(d, scratch)
            if n == 0:
                return NO_MEMORY
        else:
            return UNFIT
        cell.p = <const uint8_t*> scratch
        cell.n = n
        return IS_VARIABLE
    return UNFIT


cdef int decode(
    const Spec* spec, sqlite3_value* value, bint utf8, uint8_t* out, char* scratch, Cell* cell
) noexcept nogil:
    """One cell: into ``out`` (up to 32 bytes) where its column is of fixed width, else as bytes in ``cell``,
    which hold until the next step.

    ``value`` is one of column_value, whose use is safe for the one thread that has the connection; asking the
    statement for the type, the value and the length would take its lock three times.
    """
    cdef int kind = API.value_type(value)
    cdef int found
    cdef int64_t whole = 0
    cdef double real = 0
    if kind == SQLITE_NULL:
        return IS_NULL
    if kind == SQLITE_INTEGER or kind == SQLITE_FLOAT:
        if kind == SQLITE_INTEGER:
            whole = API.value_int64(value)
        else:
            real = API.value_double(value)
        if spec.kind <= K_DECIMAL:
            return store_number(spec, kind, whole, real, out)
        return number_text(spec, kind, whole, real, scratch, cell)
    if not cell_bytes(value, kind == SQLITE_TEXT, utf8, cell):
        return NO_MEMORY
    if kind == SQLITE_TEXT:
        if spec.width:
            return store_text(spec, cell.p, cell.n, out)
        if spec.kind == K_BINARY:
            return UNFIT
        found = check_text(spec, cell)
        return IS_HEX if found == UNFIT and spec.kind == K_LOOSE else found
    if spec.kind == K_BINARY:
        return IS_VARIABLE if spec.length < 0 or cell.n <= spec.length else UNFIT
    if spec.kind == K_FIXED or spec.kind == K_UUID:
        if cell.n != spec.width:
            return UNFIT
        memcpy(out, cell.p, cell.n)
        return IS_FIXED
    return IS_HEX if spec.kind == K_LOOSE else UNFIT


cdef int read_spec(Spec* spec, object given) except -1:
    """From (kind, width, digits, precision, scale, length, null_unfit); refuses what the decoders could not hold."""
    kind, width, digits, precision, scale, length, null_unfit = given
    spec.kind = kind
    spec.width = width
    spec.digits = digits
    spec.precision = precision
    spec.scale = scale
    spec.length = length
    spec.null_unfit = null_unfit
    if not 1 <= spec.kind <= K_LAST or not 0 <= spec.digits <= 9:
        raise ValueError(f"no such column: {given!r}")
    if spec.kind == K_DECIMAL and not (spec.width in (16, 32) and 1 <= spec.precision <= 76 and 0 <= spec.scale <= 76):
        raise ValueError(f"no such decimal: {given!r}")
    expected = {
        K_BOOL: 1, K_INT8: 1, K_INT16: 2, K_INT32: 4, K_INT64: 8, K_UINT8: 1, K_UINT16: 2, K_UINT32: 4, K_UINT64: 8,
        K_FLOAT32: 4, K_FLOAT64: 8, K_DATE: 4, K_TIMESTAMP: 8, K_TIMESTAMPTZ: 8, K_TIME: 8, K_DURATION: 8,
        K_INTERVAL: 16, K_UUID: 16, K_DECIMAL: spec.width, K_FIXED: spec.width,
    }.get(spec.kind, 0)
    if spec.width != expected or spec.width < 0 or (spec.kind == K_FIXED and spec.width < 1):
        raise ValueError(f"a wrong width: {given!r}")
    return 0
