"""The digest of docs/DIGEST.md once more, in plain Python: slow, and sharing nothing with the kernel.

It is the reference implementation that tests hold ``rowferry._native.row_digest`` to. It takes its
values one by one from pyarrow scalars, and its hash from Python integers.

>>> digest(["number(0)"], [pa.array([1, 2, None])])
'3:…'
"""

from __future__ import annotations

import decimal
import functools
import hashlib
import json
import math
import re
import struct
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

VERSION = 1
WORD = 2**64
MASK = WORD - 1
#: A cell: tagged first word, then further words (tag None).
Words = list[tuple[str | None, int]]


# --- the hash --------------------------------------------------------------------------------


@functools.cache
def constant(name: str, lane: int) -> int:
    data = hashlib.sha256(f"rowferry digest {VERSION} {name} lane {lane}".encode()).digest()
    value = struct.unpack("<Q", data[:8])[0]
    return value | 1 if name == "multiplier" else value


def mum(x: int, y: int) -> int:
    product = x * y
    return (product & MASK) ^ (product >> 64)


def finish(x: int) -> int:
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 33)


def row_digest(cells: Sequence[Words], seed: str = "row seed") -> int:
    """The digest of one row (or, with ``key seed``, of its key) from its cells."""
    lanes = []
    for lane in range(2):
        state = constant(seed, lane)
        words = [word for cell in cells for word in cell]
        for tag, word in [*words, ("end", len(cells))]:
            mixed = state ^ (word & MASK)
            if tag is not None:
                mixed ^= constant(f"tag {tag}", lane)
            state = mum(mixed, constant("multiplier", lane))
        lanes.append(finish(state))
    return lanes[1] << 64 | lanes[0]


# --- specs -----------------------------------------------------------------------------------


def parse_spec(spec: str) -> tuple[str, list[Any]]:
    """``map<text, number(2)>`` → ("map", [("text", []), ("number(2)", [])])."""
    if not spec.endswith(">"):
        return spec, []
    name, _, inside = spec[:-1].partition("<")
    parts, depth, start = [], 0, 0
    for i, c in enumerate(inside + ","):
        if c in "<(":
            depth += 1
        elif c in ">)":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(inside[start:i].strip())
            start = i + 1
    return name, [parse_spec(p) for p in parts if p]


# --- from a value to its cell ----------------------------------------------------------------


def cell(spec: tuple[str, list[Any]], scalar: pa.Scalar, is_uuid: bool = False) -> Words:
    """The words of one value brought to a comparison type. ``is_uuid``: 16 bytes that are a uuid."""
    if isinstance(scalar, pa.ExtensionScalar):
        is_uuid = is_uuid or scalar.type.extension_name == "arrow.uuid"
        scalar = scalar.value
    if isinstance(scalar, (pa.DictionaryScalar, pa.RunEndEncodedScalar)):
        scalar = scalar.value if isinstance(scalar, pa.DictionaryScalar) else scalar.as_py_scalar()
    if scalar is None or not scalar.is_valid:
        return [("null", 0)]
    name, inner = spec
    if name.startswith("number("):
        return number(int(name[7:-1]), scalar)
    if name.startswith("float"):
        return floating(scalar.as_py(), unsigned_zero=name != "float")
    if name.startswith("wire") or name == "binary":
        return octets("binary", scalar.as_py())
    if name == "text":
        value = scalar.as_py()
        return octets("text", str(uuid.UUID(bytes=value)).encode() if is_uuid else value.encode())
    if name == "list":
        return [("list", len(scalar)), *(w for i in scalar.values for w in cell(inner[0], i))]
    if name == "struct":
        return [("struct", len(inner)), *struct_words(inner, scalar)]
    if name == "map":
        entries = [[("struct", 2), *struct_words(inner, entry)] for entry in scalar.values]
        return [("map", len(entries)), *(w for entry in entries for w in entry)]
    simple = {
        "bool": lambda: [("bool", int(scalar.as_py()))],
        "numeric": lambda: numeric(scalar),
        "date": lambda: date(scalar),
        "time": lambda: moment("time", scalar),
        "timestamp": lambda: timestamp(scalar),
        "timestamptz": lambda: timestamp(scalar),
        "duration": lambda: moment("duration", scalar),
        "interval": lambda: interval(scalar),
        "uuid": lambda: list(zip(("uuid", None), struct.unpack("<QQ", scalar.as_py()), strict=True)),
        "json": lambda: octets("json", canonical_json(scalar.as_py())),
    }
    return simple[name]()


def struct_words(inner: list[Any], scalar: Any) -> Words:
    return [w for i, spec in enumerate(inner) for w in cell(spec, scalar[i])]


def octets(tag: str, data: bytes) -> Words:
    padded = data + bytes(-len(data) % 8)
    return [(tag, len(data)), *((None, w) for w in struct.unpack(f"<{len(padded) // 8}Q", padded))]


def unscaled(scalar: pa.Scalar) -> tuple[int, int]:
    """(integer, scale) of an integer, bool or decimal."""
    value = scalar.as_py()
    if not isinstance(value, decimal.Decimal):
        return int(value), 0
    sign, digits, exponent = value.as_tuple()
    integer = int("".join(map(str, digits))) * 10 ** (int(exponent) + scalar.type.scale)
    return -integer if sign else integer, scalar.type.scale


def number(scale: int, scalar: pa.Scalar) -> Words:
    value, own = unscaled(scalar)
    value *= 10 ** (scale - own)
    for words in (1, 2, 4, 8):
        if -(2 ** (64 * words - 1)) <= value < 2 ** (64 * words - 1):
            split = [value >> (64 * i) & MASK for i in range(words)]
            return [(f"number {words}", split[0]), *((None, w) for w in split[1:])]
    raise AssertionError("a number beyond 512 bits")


def digits_words(minus: bool, digits: str, exponent: int) -> Words:
    """±digits × 10^exponent, whatever zeros the digits have at their ends."""
    digits = digits.lstrip("0")
    short = digits.rstrip("0")
    if not short:
        return [("numeric", 0)]
    exponent += len(digits) - len(short)
    groups = [short[i : i + 18].ljust(18, "0") for i in range(0, len(short), 18)]
    first = ("numeric minus" if minus else "numeric", len(short))
    return [first, (None, exponent), *((None, int(group)) for group in groups)]


def numeric(scalar: pa.Scalar) -> Words:
    value = scalar.as_py()
    if isinstance(value, float):
        value = shortest(value, pa.types.is_float32(scalar.type))
    if not isinstance(value, str):
        integer, scale = unscaled(scalar)
        return digits_words(integer < 0, str(abs(integer)), -scale)
    if re.fullmatch("nan", value, re.I):
        return [("numeric nan", 0)]
    if found := re.fullmatch("([+-]?)inf(inity)?", value, re.I):
        return [("numeric minus infinity" if found[1] == "-" else "numeric infinity", 0)]
    found = re.fullmatch(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)0*([0-9]{1,9}))?", value)
    if not found or not (found[2] or found[3]):
        return octets("text", value.encode())
    fraction = found[3] or ""
    exponent = int((found[4] or "") + found[5]) if found[5] else 0
    return digits_words(found[1] == "-", found[2] + fraction, exponent - len(fraction))


def shortest(value: float, single: bool) -> str:
    """The fewest digits that read back as the same float of its width; a whole number exactly."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value):
        return str(int(value))
    if not single:
        return repr(value)
    for digits in range(1, 18):
        text = f"{value:.{digits}g}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return text
    raise AssertionError(value)


def floating(value: float, unsigned_zero: bool) -> Words:
    if math.isnan(value):
        return [("float nan", 0)]
    if value == 0 and unsigned_zero:
        value = 0.0
    return [("float", struct.unpack("<Q", struct.pack("<d", value))[0])]


INFINITIES = {"max": [("infinity", 0)], "min": [("minus infinity", 0)]}
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def infinity(value: int, bits: int) -> Words | None:
    if value == 2 ** (bits - 1) - 1:
        return INFINITIES["max"]
    return INFINITIES["min"] if value == -(2 ** (bits - 1)) else None


def days_of(scalar: pa.Scalar) -> int:
    return int(scalar.value) if pa.types.is_date32(scalar.type) else int(scalar.value) // 86_400_000


def date_infinity(scalar: pa.Scalar) -> Words | None:
    return infinity(scalar.value, 32 if pa.types.is_date32(scalar.type) else 64)


def date(scalar: pa.Scalar) -> Words:
    return date_infinity(scalar) or [("date", days_of(scalar))]


def moment(tag: str, scalar: pa.Scalar) -> Words:
    seconds, rest = divmod(scalar.value, UNITS[scalar.type.unit])
    return [(tag, seconds), (None, rest * (10**9 // UNITS[scalar.type.unit]))]


def timestamp(scalar: pa.Scalar) -> Words:
    if pa.types.is_date(scalar.type):
        return date_infinity(scalar) or [("timestamp", days_of(scalar) * 86_400), (None, 0)]
    return infinity(scalar.value, 64) or moment("timestamp", scalar)


def interval(scalar: pa.Scalar) -> Words:
    if pa.types.is_duration(scalar.type):
        nanos = scalar.value * (10**9 // UNITS[scalar.type.unit])
        if not -(2**63) <= nanos < 2**63:
            return moment("duration", scalar)
        return [("interval", 0), (None, nanos)]
    months, days, nanos = scalar.as_py()
    return [("interval", (months & 0xFFFFFFFF) | (days & 0xFFFFFFFF) << 32), (None, nanos)]


# --- JSON ------------------------------------------------------------------------------------

JSON_DEPTH_MAX = 512
JSON_ESCAPES = {'"': '\\"', "\\": "\\\\"} | {chr(i): f"\\u{i:04x}" for i in range(32)}


class JsonNumber(str):
    """A JSON number as it was written."""


def canonical_json(text: str) -> bytes:
    try:
        document = json.loads(text, parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=no_constant)
        return json_text(document, 1).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return b"\xff" + text.encode("utf-8", "surrogatepass")


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def json_text(value: Any, depth: int) -> str:
    if depth > JSON_DEPTH_MAX:
        raise ValueError("too deep")
    if isinstance(value, JsonNumber):
        return json_number(value)
    if isinstance(value, str):
        return '"' + "".join(JSON_ESCAPES.get(c, c) for c in value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(json_text(v, depth + 1) for v in value) + "]"
    if isinstance(value, dict):
        members = {json_text(str(k), 1): json_text(v, depth + 1) for k, v in value.items()}
        ordered = sorted(members.items(), key=lambda m: m[0][1:-1].encode("utf-8", "surrogatepass"))
        return "{" + ",".join(f"{k}:{v}" for k, v in ordered) + "}"
    return {None: "null", True: "true", False: "false"}[value]


def json_number(text: str) -> str:
    mantissa, _, power = text.lower().partition("e")
    exponent = int(power) if power else 0
    if abs(exponent) > 999_999_999:
        raise ValueError("an exponent that is too large")
    minus = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    short = digits.rstrip("0")
    exponent += len(digits) - len(short) - len(fraction)
    if not short:
        return "0"
    return f"{minus}{short}" + (f"e{exponent}" if exponent else "")


# --- sets of rows ----------------------------------------------------------------------------


def row_digests(
    specs: Sequence[str], columns: Sequence[pa.Array], seed: str = "row seed", uuids: Sequence[int] = ()
) -> list[int]:
    """The digests of all rows of equally long columns. ``uuids``: indices of columns that hold uuids."""
    parsed = [parse_spec(s) for s in specs]
    rows = len(columns[0]) if columns else 0
    return [
        row_digest([cell(s, c[i], j in uuids) for j, (s, c) in enumerate(zip(parsed, columns, strict=True))], seed)
        for i in range(rows)
    ]


def digest(specs: Sequence[str], columns: Sequence[pa.Array]) -> str:
    """``rows:sum`` as model.Digest writes it."""
    rows = row_digests(specs, columns)
    return f"{len(rows)}:{sum(rows) % 2**128:032x}"
