"""The ready-made rules in plain Python, one value at a time, written from docs/READY_MADE.md.

Each takes a value and gives (value, touched) or raises ``Unfit``. Shares no code with the product.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import re
import unicodedata
import zoneinfo
from decimal import Decimal
from typing import Any

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
CYCLE_S = 146_097 * 86_400


class Unfit(Exception):
    pass


def trim(value: str, characters: str | None = None, side: str = "both") -> tuple[str, bool]:
    result = {"both": value.strip, "left": value.lstrip, "right": value.rstrip}[side](characters)
    return result, result != value


def nul(value: str, replacement: str = "", length: int | None = None) -> tuple[str, bool]:
    result = value.replace("\0", replacement)
    if length is not None and len(result) > length:
        raise Unfit
    return result, result != value


def normalised(value: str, form: Any, length: int | None = None) -> tuple[str, bool]:
    result = unicodedata.normalize(form, value)
    if length is not None and len(result) > length:
        raise Unfit
    return result, result != value


def truncate(value: str, length: int | None = None, length_bytes: int | None = None) -> tuple[str, bool]:
    result = value if length is None else value[:length]
    while length_bytes is not None and len(result.encode()) > length_bytes:
        result = result[:-1]
    return result, result != value


def token(value: Any, key: bytes, algorithm: str = "hmac-sha256", encoding: str = "hex") -> str:
    if isinstance(value, bytes):
        data = value
    elif isinstance(value, Decimal):
        text = format(value, "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        data = (b"0" if text == "-0" else text.encode()) or b"0"
    else:
        data = str(value).encode()
    if algorithm == "blake2b":
        digest = hashlib.blake2b(data, key=key, digest_size=32).digest()
    else:
        digest = hmac.new(key, data, hashlib.sha256).digest()
    return digest.hex() if encoding == "hex" else base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def redacted(value: str, how: str, keep: int | None = None, replacement: str | None = None) -> str | None:
    if how == "fixed":
        return replacement
    if how in ("keep_first", "keep_last"):
        assert keep is not None
        mask = replacement or "*"
        if len(value) <= keep:
            return mask * len(value)
        rest = len(value) - keep
        return value[:keep] + mask * rest if how == "keep_first" else mask * rest + value[-keep:]
    if how == "email":
        hidden = "***" if replacement is None else replacement
        return hidden + "@" + value.rpartition("@")[2] if "@" in value else hidden
    assert how == "shape"
    shapes = {"Lu": "X", "Lt": "X", "Ll": "x", "Lm": "x", "Lo": "x", "Nd": "0", "Nl": "0", "No": "0"}
    return "".join(shapes.get(unicodedata.category(c), c) for c in value)


def offset(instant_s: int, zone: zoneinfo.ZoneInfo) -> int:
    """By zoneinfo alone; years that datetime does not know are brought near by whole 400 years, or before all."""
    if instant_s < -62_135_596_800 + 2 * 86_400:
        instant_s = -62_135_596_800 + 2 * 86_400
    while instant_s > 253_402_300_799 - 2 * 86_400:
        instant_s -= CYCLE_S * max(1, (instant_s - 253_402_300_799) // CYCLE_S)
    found = (EPOCH + dt.timedelta(seconds=instant_s)).astimezone(zone).utcoffset()
    assert found is not None
    return int(found.total_seconds())


def to_wall(value: int, unit: int, zone: zoneinfo.ZoneInfo) -> int:
    if value in (-(2**63), 2**63 - 1):
        return value
    return _in_range(value + offset(value // unit, zone) * unit)


def to_instant(value: int, unit: int, zone: zoneinfo.ZoneInfo, gap: str, overlap: str) -> tuple[int, bool]:
    if value in (-(2**63), 2**63 - 1):
        return value, False
    wall = value // unit
    # Every offset that the zone has within two days, looked for hour by hour.
    offsets = {offset(wall + hour * 1800, zone) for hour in range(-96, 97)}
    fitting = sorted({wall - o for o in offsets if offset(wall - o, zone) == o})
    touched = len(fitting) != 1
    if len(fitting) == 1:
        chosen = fitting[0]
    elif fitting:
        if overlap == "refuse":
            raise Unfit
        chosen = fitting[0] if overlap == "earlier" else fitting[-1]
    else:
        if gap == "refuse":
            raise Unfit
        before = after = None
        for second in range(wall - 2 * 86_400, wall + 2 * 86_400, 900):
            a, b = offset(second, zone), offset(second + 900, zone)
            # The jump that leaps over this wall clock.
            if b > a and any(t + a <= wall < t + b for t in range(second, second + 901)):
                before, after = a, b
        assert before is not None and after is not None
        chosen = wall - (after if gap == "earlier" else before)
    return _in_range(chosen * unit + value % unit), touched


def _in_range(value: int) -> int:
    if not -(2**63) < value < 2**63 - 1:
        raise Unfit
    return value


def zero_date(value: str, replacement: str | None) -> tuple[str | None, bool]:
    zero = re.fullmatch(r"0000-00-00([ T]00:00:00(\.0{1,6})?)?", value, re.ASCII) is not None
    return (replacement, True) if zero else (value, False)


def taken(document: str, *steps: str | int) -> Any:
    """What stands at a path, as ``json`` reads it; None where nothing does."""
    here = json.loads(document)
    for step in steps:
        if isinstance(step, int):
            if not isinstance(here, list) or step >= len(here):
                return None
            here = here[step]
        else:
            if not isinstance(here, dict) or step not in here:
                return None
            here = here[step]
    return here
