"""The slow twin of ``rowferry._native.mysql_load``: plain Python, written from MySQL's manual and not from the kernel.

Columns are (codec, params) as the kernel's; rows are tuples of what pyarrow takes for the columns' Arrow
types (times as integers of their unit).
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

Codec = tuple[str, dict[str, Any]]

DAY_US = 86_400_000_000
#: Days of 0000-01-01 and 9999-12-31, counted from 1970-01-01.
FIRST_DAY, LAST_DAY = -719_528, 2_932_896
ESCAPES = {0: b"\\0", 9: b"\\t", 10: b"\\n", 92: b"\\\\"}


class Refused(Exception):
    """A value that does not fit; ``args``: row, column."""


def encode_load(rows: Sequence[tuple[Any, ...]], columns: Sequence[Codec], types: Sequence[pa.DataType]) -> bytes:
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for place, (value, codec, t) in enumerate(zip(row, columns, types, strict=True)):
            try:
                plain = cell(value, codec, t)
            except ValueError as error:
                raise Refused(number, place) from error
            cells.append(b"\\N" if plain is None else b"".join(ESCAPES.get(c, bytes([c])) for c in plain))
        lines.append(b"\t".join(cells) + b"\n")
    return b"".join(lines)


def encode_sql(rows: Sequence[tuple[Any, ...]], columns: Sequence[Codec], types: Sequence[pa.DataType]) -> bytes:
    """The tuples of an INSERT."""
    out = []
    for number, row in enumerate(rows):
        cells = []
        for place, (value, codec, t) in enumerate(zip(row, columns, types, strict=True)):
            try:
                plain = cell(value, codec, t)
            except ValueError as error:
                raise Refused(number, place) from error
            cells.append(b"NULL" if plain is None else literal(plain, codec[0]))
        out.append(b"(" + b",".join(cells) + b")")
    return b",".join(out)


def literal(plain: bytes, codec: str) -> bytes:
    if codec in ("integer", "float", "decimal"):
        return plain
    if codec in ("bytes", "bit"):
        return b"X'" + plain.hex().encode() + b"'"
    return b"'" + plain.replace(b"\\", b"\\\\").replace(b"'", b"\\'").replace(b"\0", b"\\0") + b"'"


def decode_load(data: bytes) -> list[list[bytes | None]]:
    """LOAD DATA's text as the server reads it: rows of cells, None for NULL."""
    rows: list[list[bytes | None]] = []
    row: list[bytes | None] = []
    value, null, i = bytearray(), False, 0
    while i < len(data):
        c = data[i]
        if c == 92:
            i += 1
            after = data[i : i + 1]
            null = after == b"N" and not value
            value += {b"0": b"\0", b"t": b"\t", b"n": b"\n", b"N": b""}.get(after, after)
        elif c in b"\t\n":
            row.append(None if null else bytes(value))
            value, null = bytearray(), False
            if c == 10:
                rows.append(row)
                row = []
        else:
            value.append(c)
        i += 1
    assert not row and not value, "the last line is not ended"
    return rows


def cell(value: Any, codec: Codec, t: pa.DataType) -> bytes | None:
    """The bytes that stand for a value, unescaped. Raises ValueError where it does not fit."""
    name, params = codec
    if value is None:
        if params.get("required"):
            raise ValueError("NULL")
        return None
    match name:
        case "integer" | "year":
            return whole(int(value), name, params)
        case "float":
            return floating(float(value))
        case "decimal":
            # quantize and copy_sign keep the digits; the text never has an exponent.
            return format(
                decimal.Decimal(value).quantize(decimal.Decimal(1).scaleb(-t.scale), context=WIDE), "f"
            ).encode()
        case "date":
            return day(value)
        case "datetime":
            return moment(value, t, params["digits"])
        case "time":
            return clock(value, t, params["digits"])
        case "text":
            return bounded(value.encode(), len(value), params.get("length"))
        case "bytes":
            if params.get("fixed") and len(value) != params["length"]:
                raise ValueError("another length")
            return bounded(bytes(value), len(value), params.get("length"))
        case "bit":
            if len(value) != params["length"] or set(value) - {"0", "1"}:
                raise ValueError("no such bits")
            return int(value, 2).to_bytes((len(value) + 7) // 8, "big")
        case "uuid_text":
            digits = bytes(value).hex()
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode()
        case "enum":
            if value not in params["labels"]:
                raise ValueError("no label")
            return str(value).encode()
        case "set":
            places = [list(params["labels"]).index(label) for label in value]
            if sorted(set(places)) != places:
                raise ValueError("another order")
            return ",".join(value).encode()
    raise AssertionError(name)


WIDE = decimal.Context(prec=100)


def bounded(data: bytes, length: int, most: int | None) -> bytes:
    if most is not None and length > most:
        raise ValueError("longer")
    return data


def whole(value: int, name: str, params: dict[str, Any]) -> bytes:
    if name == "year":
        if not 0 <= value <= 9999:
            raise ValueError("no year")
        return f"{value:04}".encode()
    if "least" in params and not params["least"] <= value <= params["most"]:
        raise ValueError("beyond the range")
    return str(value).encode()


def floating(value: float) -> bytes:
    """The digits of repr(), as an integer and a power of ten."""
    if not math.isfinite(value):
        raise ValueError("not finite")
    sign = "-" if math.copysign(1, value) < 0 else ""
    digits, _, exponent = repr(abs(value)).partition("e")
    before, _, after = digits.partition(".")
    power = int(exponent or 0) - len(after)
    number = int(before + after)
    if number == 0:
        return f"{sign}0e0".encode()
    while number % 10 == 0:
        number, power = number // 10, power + 1
    return f"{sign}{number}e{power}".encode()


def day(days: int) -> bytes:
    if not FIRST_DAY <= days <= LAST_DAY:
        raise ValueError("no such year")
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return (
        f"{era * 400 + year_of_era + (month <= 2):04}-{month:02}-{of_year - (153 * shifted + 2) // 5 + 1:02}".encode()
    )


UNITS = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}


def of_day(value: int, one: int, digits: int) -> bytes:
    seconds, fraction = divmod(value, one)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if fraction:
        places = len(str(one)) - 1
        shown = f"{fraction:0{places}}"
        if shown[digits:].strip("0"):
            raise ValueError("more digits")
        text += "." + shown[: min(digits, places)]
    return text.encode()


def moment(value: int, t: pa.DataType, digits: int) -> bytes:
    if value in (2**63 - 1, -(2**63)):
        raise ValueError("infinity")
    one = UNITS[t.unit]
    days, rest = divmod(value, 86_400 * one)
    return day(days) + b" " + of_day(rest, one, digits)


def clock(value: int, t: pa.DataType, digits: int) -> bytes:
    one = UNITS[t.unit]
    if abs(value) >= (838 * 3600 + 59 * 60 + 60) * one:
        raise ValueError("too long")
    return (b"-" if value < 0 else b"") + of_day(abs(value), one, digits)
