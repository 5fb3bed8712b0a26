"""COPY BINARY in slow, plain Python: the twin that ``rowferry._native.pg_copy`` is held against.

It works on *plain values*, what an Arrow buffer holds: int for every integer, date, time and
timestamp (as counted in the canonical type), float, bool, str, bytes, ``(months, days, ns)`` for an
interval, a list for a list, and for a decimal the integer of its unscaled value. It is written
from the format's description, and shares no code with the kernel.

Format: https://www.postgresql.org/docs/15/sql-copy.html
"""

from __future__ import annotations

import re
import struct
from typing import Any

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
I32, I64 = 2**31 - 1, 2**63 - 1
EPOCH_DAYS, EPOCH_US = 10_957, 946_684_800_000_000

Codec = tuple[str, dict[str, Any]]


class Malformed(ValueError):
    """The twin refuses; the kernel must, too."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Malformed(what)


# -- reading


def decode(stream: bytes, columns: list[Codec]) -> list[tuple[Any, ...]]:
    """Every row of a whole stream with header and trailer."""
    return [
        tuple(None if field is None else decode_value(codec, field) for codec, field in zip(columns, row, strict=True))
        for row in split(stream, len(columns))
    ]


def split(stream: bytes, columns: int) -> list[list[bytes | None]]:
    """The fields of every row of a whole stream."""
    check(stream[:11] == HEADER[:11] and len(stream) >= 19, "signature")
    flags, extension = struct.unpack_from("!II", stream, 11)
    check(flags < 1 << 16 and extension <= 1 << 20, "header")
    at = 19 + extension
    rows: list[list[bytes | None]] = []
    while True:
        check(len(stream) >= at + 2, "cut off")
        (count,) = struct.unpack_from("!h", stream, at)
        at += 2
        if count != columns:
            check(count == -1, "field count")
            check(at == len(stream), "bytes after the trailer")
            return rows
        row: list[bytes | None] = []
        for _ in range(columns):
            field, at = sized(stream, at)
            row.append(field)
        rows.append(row)


def sized(data: bytes, at: int) -> tuple[bytes | None, int]:
    """A field or element with its int32 length before it, and where the next begins."""
    check(len(data) >= at + 4, "cut off")
    (size,) = struct.unpack_from("!i", data, at)
    check(-1 <= size <= len(data) - at - 4 and size < 1 << 30, "length")
    return (None, at + 4) if size < 0 else (data[at + 4 : at + 4 + size], at + 4 + size)


FIXED = {"int2": "!h", "int4": "!i", "int8": "!q", "oid": "!I", "float4": "!f", "float8": "!d"}


def decode_value(codec: Codec, field: bytes) -> Any:
    """One field that is not null."""
    name, params = codec
    if name in FIXED:
        check(len(field) == struct.calcsize(FIXED[name]), "length")
        return struct.unpack(FIXED[name], field)[0]
    return DECODERS[name](field, params)


def _bool(field: bytes, _: Any) -> bool:
    check(field in (b"\0", b"\1"), "bool")
    return field == b"\1"


def _numeric(field: bytes) -> tuple[str, list[int], int, int]:
    """(sign or special, digits of base 10000, weight, dscale)."""
    check(len(field) >= 8, "length")
    count, weight, sign, dscale = struct.unpack_from("!HhHH", field)
    check(len(field) == 8 + 2 * count and dscale <= 0x3FFF, "length")
    groups = list(struct.unpack(f"!{count}H", field[8:]))
    special = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}.get(sign)
    if special:
        return special, groups, 0, 0
    check(sign in (0, 0x4000), "sign")
    check(all(group < 10_000 for group in groups), "digit")
    return "-" if sign else "", groups, weight, dscale


def _decimal(field: bytes, params: dict[str, Any]) -> int:
    sign, groups, weight, _ = _numeric(field)
    check(sign in ("", "-"), "not finite")
    integer = 0
    for group in groups:
        integer = integer * 10_000 + group
    integer *= 10 ** params["scale"]
    places = 4 * (len(groups) - 1 - weight)
    if places < 0:
        integer *= 10**-places
    else:
        check(integer % 10**places == 0, "scale")
        integer //= 10**places
    check(integer < 10 ** params["precision"], "precision")
    return -integer if sign else integer


def _numeric_text(field: bytes, _: Any) -> str:
    sign, groups, weight, dscale = _numeric(field)
    if sign not in ("", "-"):
        check(not groups, "special with digits")
        return sign
    digits = "".join(f"{group:04}" for group in groups)
    point = 4 * (weight + 1)
    digits, point = ("0" * -point + digits, 0) if point < 0 else (digits.ljust(point, "0"), point)
    whole, fraction = digits[:point].lstrip("0") or "0", digits[point:]
    check(not fraction[dscale:].strip("0"), "digits beyond dscale")
    fraction = fraction[:dscale].ljust(dscale, "0")
    return (sign if any(groups) else "") + whole + ("." + fraction if dscale else "")


def _text(field: bytes, _: Any) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise Malformed("utf-8") from error


def _jsonb(field: bytes, _: Any) -> str:
    check(field[:1] == b"\1", "version")
    return _text(field[1:], None)


def _wire_numeric(field: bytes, _: Any) -> bytes:
    check(len(field) >= 8, "length")
    return field[:6] + b"\0\0" + field[8:]


def _date(field: bytes, _: Any) -> int:
    check(len(field) == 4, "length")
    (days,) = struct.unpack("!i", field)
    if days in (I32, -I32 - 1):
        return int(days)
    check(days + EPOCH_DAYS < I32, "date")
    return int(days + EPOCH_DAYS)


def _time(field: bytes, _: Any) -> int:
    check(len(field) == 8, "length")
    (micros,) = struct.unpack("!q", field)
    check(0 <= micros <= 86_400_000_000, "time")
    return int(micros)


def _timestamp(field: bytes, _: Any) -> int:
    check(len(field) == 8, "length")
    (micros,) = struct.unpack("!q", field)
    if micros in (I64, -I64 - 1):
        return int(micros)
    check(micros + EPOCH_US < I64, "timestamp")
    return int(micros + EPOCH_US)


def _interval(field: bytes, _: Any) -> tuple[int, int, int]:
    check(len(field) == 16, "length")
    micros, days, months = struct.unpack("!qii", field)
    check(-I64 - 1 <= micros * 1000 <= I64, "interval")
    return months, days, micros * 1000


def _uuid(field: bytes, _: Any) -> bytes:
    check(len(field) == 16, "length")
    return field


def _bit(field: bytes, _: Any) -> str:
    check(len(field) >= 4, "length")
    (bits,) = struct.unpack_from("!i", field)
    check(bits >= 0 and len(field) == 4 + (bits + 7) // 8, "bits")
    return "".join(f"{byte:08b}" for byte in field[4:])[:bits]


def _list(field: bytes, params: dict[str, Any]) -> list[Any]:
    check(len(field) >= 12, "length")
    dimensions, flags, element = struct.unpack_from("!iII", field)
    check(flags <= 1, "flags")
    check(not params.get("element_oid") or params["element_oid"] == element, "element type")
    if dimensions == 0:
        check(len(field) == 12, "length")
        return []
    check(dimensions == 1 and len(field) >= 20, "dimensions")
    count, lower = struct.unpack_from("!ii", field, 12)
    check(lower == 1 and count >= 0, "lower bound")
    at, items = 20, []
    for _ in range(count):
        item, at = sized(field, at)
        items.append(None if item is None else decode_value(params["inner"], item))
    check(at == len(field), "length")
    return items


DECODERS: dict[str, Any] = {
    "bool": _bool,
    "numeric_decimal128": _decimal,
    "numeric_decimal256": _decimal,
    "numeric_text": _numeric_text,
    "text": _text,
    "name": _text,
    "char": lambda field, _: _text(field.rstrip(b" "), None),
    "jsonb": _jsonb,
    "bytea": lambda field, _: field,
    "wire": lambda field, _: field,
    "wire_numeric": _wire_numeric,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "interval": _interval,
    "uuid": _uuid,
    "bit": _bit,
    "varbit": _bit,
    "list": _list,
}


# -- writing


def encode(rows: list[tuple[Any, ...]], columns: list[Codec]) -> bytes:
    """The tuples of rows, without header and trailer."""
    out = b""
    for row in rows:
        out += struct.pack("!h", len(columns)) + b"".join(
            encode_sized(codec, value) for codec, value in zip(columns, row, strict=True)
        )
    return out


def encode_sized(codec: Codec, value: Any) -> bytes:
    if value is None:
        return b"\xff\xff\xff\xff"
    field = encode_value(codec, value)
    return struct.pack("!i", len(field)) + field


def encode_value(codec: Codec, value: Any) -> bytes:
    """One value that is not null."""
    name, params = codec
    if name in FIXED:
        return struct.pack(FIXED[name], value)
    if name == "bool":
        return b"\1" if value else b"\0"
    if name in ("numeric_decimal128", "numeric_decimal256"):
        sign, digits = ("-" if value < 0 else ""), str(abs(value)).rjust(params["scale"] + 1, "0")
        point = len(digits) - params["scale"]
        return encode_numeric(sign + digits[:point] + ("." + digits[point:] if params["scale"] else ""))
    if name == "numeric_text":
        return encode_numeric(value)
    if name in ("text", "name", "char"):
        check("\0" not in value, "U+0000")
        return bytes(value.encode())
    if name == "jsonb":
        check("\0" not in value, "U+0000")
        return b"\1" + value.encode()
    if name in ("bytea", "wire", "uuid"):
        return bytes(value)
    if name == "date":
        if abs(value + 0.5) < I32:
            check(-2_451_545 <= value - EPOCH_DAYS < 2_145_031_949, "date")
            value -= EPOCH_DAYS
        return struct.pack("!i", value)
    if name == "time":
        check(0 <= value <= 86_400_000_000, "time")
        return struct.pack("!q", value)
    if name in ("timestamp", "timestamptz"):
        if value not in (I64, -I64 - 1):
            value -= EPOCH_US
            check(-211_813_488_000_000_000 <= value < 9_223_371_331_200_000_000, "timestamp")
        return struct.pack("!q", value)
    if name == "interval":
        months, days, nanos = value
        check(nanos % 1000 == 0, "fraction")
        return struct.pack("!qii", nanos // 1000, days, months)
    if name in ("bit", "varbit"):
        check(set(value) <= {"0", "1"}, "bit")
        packed = bytes(int(value[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(value), 8))
        return struct.pack("!i", len(value)) + packed
    assert name == "list"
    items = b"".join(encode_sized(params["inner"], item) for item in value)
    head = struct.pack("!iiI", 1 if value else 0, None in value, params["element_oid"])
    return head + (struct.pack("!ii", len(value), 1) if value else b"") + items


def encode_numeric(text: str) -> bytes:
    """A numeric's field from its canonical text."""
    specials = {"NaN": 0xC000, "Infinity": 0xD000, "-Infinity": 0xF000}
    if text in specials:
        return struct.pack("!HhHH", 0, 0, specials[text], 0)
    match = re.fullmatch(r"(-?)(\d*)(?:\.(\d*))?", text, re.ASCII)
    check(match is not None, "numeric text")
    assert match is not None
    sign, whole, fraction = match[1], match[2], match[3] or ""
    check(bool(whole or fraction), "no digit")
    whole = whole.rjust((len(whole) + 3) // 4 * 4, "0")
    padded = whole + fraction.ljust((len(fraction) + 3) // 4 * 4, "0")
    groups = [int(padded[i : i + 4]) for i in range(0, len(padded), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        weight, sign = 0, ""
    head = struct.pack("!HhHH", len(groups), weight, 0x4000 if sign else 0, len(fraction))
    return head + struct.pack(f"!{len(groups)}H", *groups)
