"""MySQL's text protocol in slow, plain Python: the twin that ``rowferry._native.mysql_rows`` is held against.

It works on *plain values*, what an Arrow buffer holds: int for every integer, date, timestamp and
duration (as counted in the canonical type), float, bool, str, bytes, a list of str for a SET, and for a
decimal the integer of its unscaled value. It is written from the format's description, and shares no
code with the kernel.

Format: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html
"""

from __future__ import annotations

import calendar
import datetime
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any

Column = tuple[str, dict[str, Any]]

FULL = 0xFFFFFF
EOF = b"\xfe\x00\x00\x02\x00"
EPOCH = datetime.date(1970, 1, 1).toordinal()


class Malformed(ValueError):
    """The twin refuses; the kernel must, too."""


class Cut(ValueError):
    """The stream ends before the rows do."""


class Unfit(ValueError):
    """A date that no calendar has: NULL where the column says so, else refused."""


def check(holds: object, what: str) -> None:
    if not holds:
        raise Malformed(what)


# -- reading


def decode(stream: bytes, columns: list[Column], sequence: int = 0) -> tuple[list[tuple[Any, ...]], bytes]:
    """The rows of a whole stream, and the payload of the packet that ended them. Raises Malformed, Cut."""
    rows = []
    at = 0
    while True:
        payload, after, number, parts = packet(stream, at, sequence)
        if parts == 1 and payload[0] >= 0xFE:
            check(len(payload) <= 1 << 20, "the last packet's length")
            check(after == len(stream), "bytes after the end")
            return rows, payload
        check(number == sequence, "sequence")
        rows.append(row(payload, columns))
        at, sequence = after, (sequence + parts) % 256


def packet(stream: bytes, at: int, sequence: int) -> tuple[bytes, int, int, int]:
    """The payload of a packet and of those that continue it; where the next begins; its number; how many."""
    payload, first, parts, size = b"", 0, 0, FULL
    while size == FULL:
        if len(stream) < at + 4:
            raise Cut
        size, number = int.from_bytes(stream[at : at + 3], "little"), stream[at + 3]
        check(size or parts, "an empty packet")
        if not parts:
            if len(stream) < at + 5:
                raise Cut
            first = number
            # A server that hangs up says so by an ERR packet of number 0, at any time.
            check(number == sequence or (number == 0 and stream[at + 4] == 0xFF), "sequence")
        else:
            check(number == (first + parts) % 256, "sequence")
        parts += 1
        if size < FULL and len(stream) < at + 4 + size:
            raise Cut
        payload += stream[at + 4 : at + 4 + size]
        at += 4 + size
    return payload, at, first, parts


def row(payload: bytes, columns: list[Column]) -> tuple[Any, ...]:
    at, values = 0, []
    for column in columns:
        field, at = length_encoded(payload, at)
        values.append(None if field is None else value_of(column, field))
    check(at == len(payload), "fields")
    return tuple(values)


def length_encoded(data: bytes, at: int) -> tuple[bytes | None, int]:
    check(at < len(data), "fields")
    first = data[at]
    if first == 0xFB:
        return None, at + 1
    check(first != 0xFF, "length")
    extra = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    check(len(data) >= at + 1 + extra, "length")
    size = int.from_bytes(data[at + 1 : at + 1 + extra], "little") if extra else first
    begin = at + 1 + extra
    check(len(data) >= begin + size, "length")
    return data[begin : begin + size], begin + size


def value_of(column: Column, field: bytes) -> Any:
    """One field that is not NULL."""
    kind, params = column
    try:
        return DECODERS[kind](field, params)
    except Unfit:
        check(params.get("null_unfit"), "date")
        return None


def _matched(pattern: bytes, field: bytes) -> re.Match[bytes]:
    found = re.fullmatch(pattern, field, re.S)
    if found is None:
        raise Malformed(f"{field!r} is not {pattern!r}")
    return found


def _integer(bits: int, signed: bool) -> Callable[[bytes, Any], int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def decode_one(field: bytes, _: Any) -> int:
        value = int(_matched(rb"-?[0-9]+", field).group())
        check(low <= value <= high, "range")
        return value

    return decode_one


def _bool(field: bytes, _: Any) -> bool:
    check(field in (b"0", b"1"), "bool")
    return field == b"1"


def _float64(field: bytes, _: Any) -> float:
    check(len(field) <= 400, "length")
    value = float(_matched(rb"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", field).group())
    check(abs(value) != float("inf"), "infinity")
    return value


def _float32(field: bytes, _: Any) -> float:
    value = _float64(field, None)
    try:
        narrow = float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise Malformed("float32") from None
    check(narrow == value, "float32")
    return narrow


def _decimal(field: bytes, params: dict[str, Any]) -> int:
    found = _matched(rb"(-?)([0-9]+)(?:\.([0-9]+))?", field)
    sign, whole, fraction = found.group(1), found.group(2), found.group(3) or b""
    scale = params["scale"]
    check(not fraction[scale:].strip(b"0"), "scale")
    value = int(whole + fraction[:scale].ljust(scale, b"0"))
    check(value < 10 ** params["precision"], "precision")
    return -value if sign else value


def _numeric(field: bytes, _: Any) -> str:
    return _matched(rb"-?[0-9]+(\.[0-9]+)?", field).group().decode()


def _text(field: bytes, _: Any) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise Malformed("utf-8") from error


def _fixed(field: bytes, params: dict[str, Any]) -> bytes:
    check(len(field) == params["length"], "length")
    return field


def _days(year: int, month: int, day: int) -> int:
    check(month <= 12 and day <= 31, "date")
    # The calendar repeats every 400 years, of 146,097 days; Python's begins with the year 1.
    like, cycle = (year, 0) if year else (400, 146_097)
    if not (month and day and day <= calendar.monthrange(like, month)[1]):
        raise Unfit
    return datetime.date(like, month, day).toordinal() - cycle - EPOCH


def _date(field: bytes, _: Any) -> int:
    year, month, day = _matched(rb"([0-9]{4})-([0-9]{2})-([0-9]{2})", field).groups()
    return _days(int(year), int(month), int(day))


CLOCK = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"


def _clock(hours: bytes, minutes: bytes, seconds: bytes, fraction: bytes | None) -> int:
    check(int(minutes) < 60 and int(seconds) < 60, "clock")
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return whole * 1_000_000 + int((fraction or b"").ljust(6, b"0"))


def _timestamp(field: bytes, _: Any) -> int:
    found = _matched(rb"([0-9]{4})-([0-9]{2})-([0-9]{2}) " + CLOCK, field).groups()
    micros = _clock(*found[3:])
    check(int(found[3]) < 24, "clock")
    return _days(int(found[0]), int(found[1]), int(found[2])) * 86_400_000_000 + micros


def _duration(field: bytes, _: Any) -> int:
    found = _matched(rb"(-?)([0-9]?)" + CLOCK, field).groups()
    micros = _clock(found[1] + found[2], *found[3:])
    check(micros <= 3_020_399_999_999, "time")
    return -micros if found[0] else micros


def _uuid(field: bytes, _: Any) -> bytes:
    _matched(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", field)
    return bytes.fromhex(field.replace(b"-", b"").decode())


def _bits(field: bytes, params: dict[str, Any]) -> str:
    bits = params["length"]
    check(len(field) == (bits + 7) // 8, "bits")
    text = "".join(f"{byte:08b}" for byte in field)
    check("1" not in text[:-bits], "bits")
    return text[-bits:]


def _set(field: bytes, _: Any) -> list[str]:
    return _text(field, None).split(",") if field else []


DECODERS: dict[str, Callable[[bytes, Any], Any]] = {
    **{f"int{bits}": _integer(bits, True) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": _integer(bits, False) for bits in (8, 16, 32, 64)},
    "bool": _bool,
    "float32": _float32,
    "float64": _float64,
    "decimal128": _decimal,
    "decimal256": _decimal,
    "numeric": _numeric,
    "text": _text,
    "char": lambda field, _: _text(field.rstrip(b" "), None),
    "binary": lambda field, _: field,
    "fixed": _fixed,
    "date": _date,
    "timestamp": _timestamp,
    "duration": _duration,
    "uuid": _uuid,
    "bits": _bits,
    "set": _set,
}


# -- writing, as a server does


def encode(rows: list[tuple[Any, ...]], columns: list[Column], sequence: int = 0, last: bytes = EOF) -> bytes:
    """The packets of rows of plain values, and of what ends them."""
    payloads = [
        b"".join(field(column, value) for column, value in zip(columns, values, strict=True)) for values in rows
    ]
    return framed([*payloads, last], sequence)


def framed(payloads: list[bytes], sequence: int = 0) -> bytes:
    """Payloads as packets; those of 16 MB and more in several."""
    out = []
    for payload in payloads:
        for start in range(0, len(payload) + 1, FULL):
            part = payload[start : start + FULL]
            out += [len(part).to_bytes(3, "little"), bytes([sequence % 256]), part]
            sequence += 1
    return b"".join(out)


def field(column: Column, value: Any) -> bytes:
    """A value as the length-encoded string of its text; None as NULL."""
    if value is None:
        return b"\xfb"
    return sized(text_of(column, value))


def sized(text: bytes) -> bytes:
    size = len(text)
    if size < 0xFB:
        return bytes([size]) + text
    for mark, extra in ((b"\xfc", 2), (b"\xfd", 3)):
        if size < 1 << 8 * extra:
            return mark + size.to_bytes(extra, "little") + text
    return b"\xfe" + size.to_bytes(8, "little") + text


def text_of(column: Column, value: Any) -> bytes:
    kind, params = column
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value)).encode() if kind == "uuid" else value
    if kind.startswith("decimal"):
        digits = str(abs(value)).rjust(params["scale"] + 1, "0")
        point = len(digits) - params["scale"]
        text = digits[:point] + ("." + digits[point:] if params["scale"] else "")
        return (("-" if value < 0 else "") + text).encode()
    if kind == "date":
        return _date_text(value)
    if kind == "timestamp":
        days, micros = divmod(value, 86_400_000_000)
        return _date_text(days) + b" " + _clock_text(micros)
    if kind == "duration":
        return (b"-" if value < 0 else b"") + _clock_text(abs(value))
    if kind == "bits":
        return int(value, 2).to_bytes((params["length"] + 7) // 8, "big")
    if kind == "set":
        return ",".join(value).encode()
    if kind == "bool":
        return b"1" if value else b"0"
    return (repr(value) if isinstance(value, float) else str(value)).encode()


def _date_text(days: int) -> bytes:
    if days + EPOCH > 0:
        return datetime.date.fromordinal(days + EPOCH).isoformat().encode()
    return b"0000" + datetime.date.fromordinal(days + EPOCH + 146_097).isoformat().encode()[4:]


def _clock_text(micros: int) -> bytes:
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return (text + (f".{fraction:06}" if fraction else "")).encode()
