"""What the kernels do, in plain Python over the standard ``sqlite3``: slower, and another pair of eyes.

Used where the C API of Python's own SQLite cannot be reached (a statically linked interpreter), and by
tests as the kernels' twin. Shapes are the kernels': a spec is ``(kind, width, digits, precision, scale,
length, null_unfit)``, a batch is ``(rows, [(null count, bits, offsets, data), …])``.
"""

from __future__ import annotations

import datetime
import re
import sqlite3
import struct
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rowferry._native.sqlite_rows import KINDS, SqliteFailure, UnfitValue
from rowferry.convert.value_text import civil_date
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
)

Spec = tuple[int, int, int, int, int, int, bool]
#: (kind, width, digits, scale, as number, numeric affinity)
WriteSpec = tuple[int, int, int, int, bool, bool]
_NAMES = {number: name for name, number in KINDS.items()}
_INT_FORMATS = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip
_FLOAT_INTEGER_MAX = 2**53
_DATE = re.compile(rb"(\d{4}|\+[1-9]\d{4,6}|-\d{4}|-[1-9]\d{4,6})-(\d\d)-(\d\d)", re.ASCII)
_CLOCK = re.compile(rb"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,30}))?)?", re.ASCII)
_OFFSET = re.compile(rb"Z|([+-])(\d\d)(?::?(\d\d))?", re.ASCII)
_INTERVAL = re.compile(
    rb"P(?:(-?\d{1,19})Y)?(?:(-?\d{1,19})M)?(?:(-?\d{1,19})W)?(?:(-?\d{1,19})D)?"
    rb"(?:T(?=[-\d])(?:(-?\d{1,19})H)?(?:(-?\d{1,19})M)?(?:(-?)(\d{1,19})(?:\.(\d{1,30}))?S)?)?",
    re.ASCII,
)
_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_DECIMAL = re.compile(rb"-?\d+(\.\d+)?", re.ASCII)
_NUMERIC = re.compile(rb"-?\d+(\.\d+)?|NaN|-?Infinity", re.ASCII)
_LOOKS_NUMERIC = re.compile(rb"(?=.*\d)[\d+\-.eE \t-\r\0]*", re.ASCII | re.DOTALL)


class Text(bytes):
    """The bytes of a stored TEXT (a BLOB comes as plain bytes)."""


class PlainDatabase:
    """One connection of the standard module, with the surface of the kernel's ``Database``."""

    def __init__(self, path: str, busy_ms: int) -> None:
        try:
            self.connection = sqlite3.connect(
                path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False, uri=True
            )
        except sqlite3.Error as error:
            raise failure_of(error) from None
        self.connection.text_factory = Text
        self.changes = 0

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            cursor = self.connection.execute(sql, list(params))
            rows = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeEncodeError) as error:
            raise failure_of(error) from None
        self.changes = max(cursor.rowcount, 0)
        return [tuple(v.decode("utf-8", "surrogateescape") if isinstance(v, Text) else v for v in r) for r in rows]

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_transaction

    def header(self) -> bytes:
        """Not within reach of the standard module without opening the file beside it."""
        return b""

    def interrupt(self) -> None:
        self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()


def failure_of(error: Exception) -> SqliteFailure:
    return SqliteFailure(getattr(error, "sqlite_errorcode", None) or 1, str(error))


class PlainReader:
    """The twin of the kernel's ``Reader``."""

    def __init__(self, database: PlainDatabase, sql: str, params: Sequence[Any], specs: Sequence[Spec]) -> None:
        self._specs = list(specs)
        self._settled = [0] * len(specs)
        try:
            self._cursor = database.connection.execute(sql, list(params))
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise failure_of(error) from None

    def next_batch(self, rows_max: int, bytes_max: int) -> tuple[int, list[Any]] | None:
        columns = [Filling(spec) for spec in self._specs]
        rows = size = 0
        while rows < rows_max and size < bytes_max:
            try:
                row = self._cursor.fetchone()
            except sqlite3.Error as error:
                raise failure_of(error) from None
            if row is None:
                break
            for index, column in enumerate(columns):
                value = decode(self._specs[index], row[index])
                if value is UNFIT:
                    if not self._specs[index][6]:
                        rowid = row[len(columns)] if len(row) > len(columns) else None
                        raise UnfitValue(index, stored_type(row[index]), shown(row[index]), rowid)
                    self._settled[index] += 1
                    value = None
                size += column.append(value)
            rows += 1
        return (rows, [c.parts() for c in columns]) if rows else None

    def settled(self) -> list[int]:
        return self._settled

    def close(self) -> None:
        self._cursor.close()


class Filling:
    """One column of a batch in the making."""

    def __init__(self, spec: Spec) -> None:
        self._width = spec[1]
        self._is_bool = spec[0] == KINDS["bool"]
        self._values: list[bytes | None] = []

    def append(self, value: bytes | None) -> int:
        self._values.append(value)
        return self._width or 4 + len(value or b"")

    def parts(self) -> tuple[int, bytes | None, bytes | None, bytes]:
        nulls = sum(v is None for v in self._values)
        bits = _bitmap([v is not None for v in self._values]) if nulls else None
        if self._is_bool:
            return nulls, bits, None, _bitmap([v == b"\1" for v in self._values])
        if self._width:
            return nulls, bits, None, b"".join(bytes(self._width) if v is None else v for v in self._values)
        offsets = [0]
        for value in self._values:
            offsets.append(offsets[-1] + len(value or b""))
        return nulls, bits, struct.pack(f"<{len(offsets)}i", *offsets), b"".join(v or b"" for v in self._values)


def _bitmap(flags: Sequence[bool]) -> bytes:
    out = bytearray((len(flags) + 7) // 8)
    for index, flag in enumerate(flags):
        out[index >> 3] |= flag << (index & 7)
    return bytes(out)


def census(
    database: PlainDatabase, sql: str, params: Sequence[Any], candidates: Sequence[Sequence[Spec]]
) -> tuple[int, list[tuple[dict[str, int], int, list[int]]]]:
    """The twin of the kernel's ``census``."""
    stored = [dict.fromkeys(("integer", "real", "text", "blob", "null"), 0) for _ in candidates]
    sizes, unfit, rows = [0] * len(candidates), [[0] * len(c) for c in candidates], 0
    try:
        for row in database.connection.execute(sql, list(params)):
            rows += 1
            for i, value in enumerate(row):
                stored[i][stored_type(value)] += 1
                if value is None:
                    continue
                sizes[i] += len(value) if isinstance(value, bytes) else 8
                for k, spec in enumerate(candidates[i]):
                    unfit[i][k] += decode(spec, value) is UNFIT
    except sqlite3.Error as error:
        raise failure_of(error) from None
    return rows, list(zip(stored, sizes, unfit, strict=True))


def stored_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "real"
    return "text" if isinstance(value, Text) else "blob"


def shown(value: Any) -> str:
    if isinstance(value, Text):
        return repr(bytes(value[:64]).decode("utf-8", "backslashreplace")) + ("…" if len(value) > 64 else "")
    if isinstance(value, bytes):
        return "\\x" + value[:64].hex() + ("…" if len(value) > 64 else "")
    return repr(value)


# ── one cell: from what is stored to the bytes of its Arrow buffer ───────────────────────────────


class _Unfit:
    pass


UNFIT: Any = _Unfit()


def decode(spec: Spec, value: Any) -> Any:
    """bytes for the column's buffer, None for NULL, UNFIT where the stored value is not of the column's kind."""
    if value is None:
        return None
    kind = _NAMES[spec[0]]
    if isinstance(value, int):
        return _decode_int(kind, spec, value)
    if isinstance(value, float):
        return _decode_float(kind, spec, value)
    if isinstance(value, Text):
        return _decode_text(kind, spec, bytes(value))
    if kind == "binary":
        return value if spec[5] < 0 or len(value) <= spec[5] else UNFIT
    if kind in ("fixed", "uuid"):
        return value if len(value) == spec[1] else UNFIT
    return b"\\x" + value.hex().encode() if kind == "loose" else UNFIT


def _decode_int(kind: str, spec: Spec, value: int) -> Any:
    if kind == "bool":
        return bytes([value]) if value in (0, 1) else UNFIT
    if kind in _INT_FORMATS:
        return _packed(_INT_FORMATS[kind], value)
    if kind in ("float32", "float64"):
        return _decode_float(kind, spec, float(value)) if abs(value) <= _FLOAT_INTEGER_MAX else UNFIT
    if kind == "decimal":
        return _decimal(Decimal(value), spec)
    return str(value).encode() if kind in ("loose", "json", "numeric") else UNFIT


def _decode_float(kind: str, spec: Spec, value: float) -> Any:
    if kind == "float64":
        return struct.pack("<d", value)
    if kind == "float32":
        try:
            packed = struct.pack("<f", value)
        except OverflowError:
            return UNFIT
        return packed if struct.unpack("<f", packed)[0] == value else UNFIT
    finite = value - value == 0
    if kind == "decimal":
        return _decimal(Decimal(repr(value)), spec) if finite else UNFIT
    return repr(value).encode() if kind == "loose" or (kind == "json" and finite) else UNFIT


def _packed(code: str, value: int) -> Any:
    try:
        return struct.pack(f"<{code}", value)
    except struct.error:
        return UNFIT


def _decimal(value: Decimal, spec: Spec) -> Any:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    number, shift = int("".join(map(str, digits)) or "0"), spec[4] + exponent
    if number and shift > 80:
        return UNFIT
    if shift < 0:
        number, rest = divmod(number, 10 ** min(-shift, 400))
        if rest:
            return UNFIT
    else:
        number *= 10 ** min(shift, 80)
    if number >= 10 ** spec[3]:
        return UNFIT
    return (-number if sign else number).to_bytes(spec[1], "little", signed=True)


def _decode_text(kind: str, spec: Spec, data: bytes) -> Any:
    if kind in ("text", "loose", "json", "numeric", "char", "bits"):
        return _checked_text(kind, spec, data)
    if kind == "date":
        days = parse_date(data)
        return UNFIT if days is None else struct.pack("<i", days)
    if kind in ("timestamp", "timestamptz"):
        return _packed_or_unfit(parse_timestamp(data, spec[2], kind == "timestamptz"))
    if kind == "time":
        clock = _clock(_CLOCK.fullmatch(data), spec[2])
        return _packed_or_unfit(clock)
    if kind == "decimal":
        return _decimal(Decimal(data.decode()), spec) if len(data) <= 400 and _DECIMAL.fullmatch(data) else UNFIT
    if kind == "uuid":
        return uuid.UUID(data.decode()).bytes if _UUID.fullmatch(data) else UNFIT
    if kind in ("duration", "interval"):
        return _decode_interval(kind, spec, data)
    return UNFIT


def _packed_or_unfit(value: int | None) -> Any:
    return UNFIT if value is None else struct.pack("<q", value)


def _checked_text(kind: str, spec: Spec, data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return b"\\x" + data.hex().encode() if kind == "loose" else UNFIT
    if kind == "char":
        data, text = data.rstrip(b" "), text.rstrip(" ")
    if (kind == "numeric" and not _NUMERIC.fullmatch(data)) or (kind == "bits" and set(data) - {48, 49}):
        return UNFIT
    return data if spec[5] < 0 or len(text) <= spec[5] else UNFIT


def _days(match: re.Match[bytes] | None) -> int | None:
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups())
    # -0000 is no year of ours; a plus belongs to five digits and more, which the pattern says.
    if year == 0 and match[1].startswith(b"-"):
        return None
    try:
        # Python's calendar has the years 1 to 9999 only: 400 years are always 146,097 days.
        cycles = (year - 2000) // 400
        return (datetime.date(year - cycles * 400, month, day) - datetime.date(1970, 1, 1)).days + cycles * 146_097
    except ValueError:
        return None


def parse_date(data: bytes) -> int | None:
    if data in (b"infinity", b"-infinity"):
        return DATE_INFINITY if data == b"infinity" else DATE_MINUS_INFINITY
    days = _days(_DATE.fullmatch(data))
    return days if days is not None and DATE_MINUS_INFINITY < days < DATE_INFINITY else None


def _clock(match: re.Match[bytes] | None, digits: int) -> int | None:
    if match is None:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    fraction = match[4] or b""
    if fraction[digits:].strip(b"0"):
        return None
    units = int(fraction[:digits].ljust(digits, b"0") or b"0")
    if hour > 24 or minute > 59 or second > 59 or (hour == 24 and (minute or second or units)):
        return None
    return int((hour * 3600 + minute * 60 + second) * 10**digits + units)


def parse_timestamp(data: bytes, digits: int, zoned: bool) -> int | None:
    if data in (b"infinity", b"-infinity"):
        return TIMESTAMP_INFINITY if data == b"infinity" else TIMESTAMP_MINUS_INFINITY
    date = _DATE.match(data)
    days = _days(date)
    if date is None or days is None or data[date.end() : date.end() + 1] not in (b" ", b"T"):
        return None
    time = _CLOCK.match(data, date.end() + 1)
    clock = _clock(time, digits)
    if time is None or clock is None or clock >= 86_400 * 10**digits:
        return None
    rest, offset = data[time.end() :], 0
    if zoned:
        match = _OFFSET.fullmatch(rest)
        if match is None:
            return None
        if rest != b"Z":
            hours, minutes = int(match[2]), int(match[3] or 0)
            if hours > 15 or minutes > 59:
                return None
            offset = (hours * 3600 + minutes * 60) * (-1 if match[1] == b"-" else 1)
    elif rest:
        return None
    value = (days * 86_400 - offset) * 10**digits + clock
    return value if TIMESTAMP_MINUS_INFINITY < value < TIMESTAMP_INFINITY else None


def _decode_interval(kind: str, spec: Spec, data: bytes) -> Any:
    match = _INTERVAL.fullmatch(data)
    if match is None or not any(match.groups()):
        return UNFIT
    years, months, weeks, days, hours, minutes = (int(match[i] or 0) for i in range(1, 7))
    digits, fraction = spec[2], match[9] or b""
    if fraction[digits:].strip(b"0"):
        return UNFIT
    units = int(match[8] or 0) * 10**digits + int(fraction[:digits].ljust(digits, b"0") or b"0")
    if match[7] == b"-":
        units = -units
    units += (hours * 3600 + minutes * 60) * 10**digits
    months, days = years * 12 + months, weeks * 7 + days
    try:
        if kind == "duration":
            return UNFIT if months or days else struct.pack("<q", units)
        return struct.pack("<iiq", months, days, units)
    except struct.error:
        return UNFIT


# ── writing: from the raw integers of Arrow to what SQLite stores ────────────────────────────────


def date_text(days: int) -> str:
    if days in (DATE_INFINITY, DATE_MINUS_INFINITY):
        return "infinity" if days > 0 else "-infinity"
    year, month, day = civil_date(days)
    sign = "" if 0 <= year <= 9999 else "+" if year > 0 else "-"
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def clock_text(value: int, digits: int) -> str:
    seconds, fraction = divmod(value, 10**digits)
    tail = f".{fraction:0{digits}}" if fraction else ""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{tail}"


def timestamp_text(value: int, digits: int, zoned: bool) -> str:
    if value in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY):
        return "infinity" if value > 0 else "-infinity"
    days, rest = divmod(value, 86_400 * 10**digits)
    return f"{date_text(days)} {clock_text(rest, digits)}{'+00:00' if zoned else ''}"


def seconds_text(value: int, digits: int) -> str:
    seconds, fraction = divmod(abs(value), 10**digits)
    return f"{'-' if value < 0 else ''}{seconds}{f'.{fraction:0{digits}}' if fraction else ''}S"


def interval_text(months: int, days: int, nanoseconds: int) -> str:
    parts = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    return f"P{parts}" + (f"T{seconds_text(nanoseconds, 9)}" if nanoseconds or not parts else "")


def looks_numeric(data: bytes) -> bool:
    """Whether an affinity could make a number of the text (errs to yes)."""
    return _LOOKS_NUMERIC.fullmatch(data) is not None


class PlainWriter:
    """The twin of the write kernel: the same values by ``executemany``."""

    def __init__(self, database: PlainDatabase, sql: str, specs: Sequence[WriteSpec]) -> None:
        self._database = database
        self._sql = sql
        self._specs = list(specs)

    def write(self, batch: pa.RecordBatch) -> int:
        columns = [encode(spec, batch.column(i)) for i, spec in enumerate(self._specs)]
        for index, (spec, values) in enumerate(zip(self._specs, columns, strict=True)):
            if spec[0] == KINDS["text"] and spec[5]:
                for value in values:
                    if value is not None and looks_numeric(value.encode()):
                        raise UnfitValue(index, "text", repr(value[:64]), None)
        try:
            cursor = self._database.connection.executemany(self._sql, zip(*columns, strict=True))
        except (sqlite3.Error, OverflowError) as error:
            raise failure_of(error) from None
        return max(cursor.rowcount, 0)

    def close(self) -> None:
        """Nothing is held."""


def encode(spec: WriteSpec, array: pa.Array) -> list[Any]:
    """n Arrow values as what SQLite stores: int, float, str, bytes or None."""
    kind, digits = _NAMES[spec[0]], spec[2]
    if kind in ("text", "binary", "fixed", "bool", "float32", "float64", *_INT_FORMATS):
        values: list[Any] = array.to_pylist()
        return values
    if kind == "decimal":
        return [None if v is None else _encode_decimal(v, spec[4]) for v in array.to_pylist()]
    if kind == "uuid":
        return [None if v is None else str(uuid.UUID(bytes=v)) for v in array.to_pylist()]
    if kind == "interval":
        return [None if v is None else interval_text(v.months, v.days, v.nanoseconds) for v in array.to_pylist()]
    raw = array.view(pa.int32() if kind == "date" else pa.int64()).to_pylist()
    if kind == "date":
        return [None if v is None else date_text(v) for v in raw]
    if kind == "time":
        return [None if v is None else clock_text(v, digits) for v in raw]
    if kind == "duration":
        return [None if v is None else f"PT{seconds_text(v, digits)}" for v in raw]
    return [None if v is None else timestamp_text(v, digits, kind == "timestamptz") for v in raw]


def _encode_decimal(value: Decimal, as_number: bool) -> Any:
    if not as_number:
        return format(value, "f")
    return int(value) if value == value.to_integral_value() else float(value)
