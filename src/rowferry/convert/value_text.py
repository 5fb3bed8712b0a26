"""One value of a canonical array as text, for messages and lists of differences: any value, never an error."""

from __future__ import annotations

import pyarrow as pa

from rowferry.convert.times import UNIT_DIGITS, interval_parts
from rowferry.types import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    FLOATS,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    Type,
)

#: Characters of a value that a message shows at most.
SHOWN_CHARACTERS = 200
_DAYS_400_YEARS = 146_097


def value_text(array: pa.Array, index: int, type_: Type) -> str | None:
    """The value in row ``index`` of an array in ``type_.arrow``; None for NULL. Long ones are cut, saying so."""
    text = _text(array, index, type_)
    if text is None or len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def visible(text: str) -> str:
    """The text with its control characters, on which a terminal would act, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(array: pa.Array, index: int, t: Type) -> str | None:
    scalar = array[index]
    if not scalar.is_valid:
        return None
    if t.kind == "bool":
        return "true" if scalar.as_py() else "false"
    if t.kind == "decimal":
        return format(scalar.as_py(), "f")
    if t.kind in FLOATS:
        return _float_text(scalar)
    if t.kind in ("binary", "wire"):
        return _bytes_text(scalar.as_buffer() if hasattr(scalar, "as_buffer") else scalar.as_py())
    if t.kind == "uuid":
        digits = scalar.as_py().hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    if t.kind == "date":
        return date_text(scalar.value)
    if t.kind in ("timestamp", "timestamptz"):
        return timestamp_text(scalar.value, t)
    if t.kind in ("time", "duration"):
        return clock_text(scalar.value, UNIT_DIGITS[t.unit or "us"])
    if t.kind == "interval":
        return _interval_text(array.slice(index, 1))
    if t.kind in ("list", "struct", "map"):
        return _nested_text(array, index, t)
    return str(scalar.as_py())


def _float_text(scalar: pa.Scalar) -> str:
    if scalar.type == pa.float32():
        # The shortest digits that give the same float32, not those of its widened double.
        return str(scalar.cast(pa.string()).as_py())
    return repr(scalar.as_py())


def _bytes_text(data: bytes | pa.Buffer) -> str:
    view = memoryview(data)
    if len(view) * 2 <= SHOWN_CHARACTERS:
        return "\\x" + view.hex()
    return f"\\x{view[: SHOWN_CHARACTERS // 2 - 20].hex()}… ({len(view)} bytes)"


def date_text(days: int) -> str:
    if days == DATE_INFINITY:
        return "infinity"
    if days == DATE_MINUS_INFINITY:
        return "-infinity"
    year, month, day = civil_date(days)
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}{era}"


def civil_date(days: int) -> tuple[int, int, int]:
    """Year (0 is 1 BC), month and day of a day counted from 1970-01-01, in the Gregorian calendar.

    Python's datetime knows the years 1 to 9999 only. The algorithm counts from 0000-03-01 in eras
    of 400 years, which all have 146,097 days.
    """
    era, of_era = divmod(days + 719_468, _DAYS_400_YEARS)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day


def timestamp_text(value: int, t: Type) -> str:
    if value == TIMESTAMP_INFINITY:
        return "infinity"
    if value == TIMESTAMP_MINUS_INFINITY:
        return "-infinity"
    digits = UNIT_DIGITS[t.unit or "us"]
    days, rest = divmod(value, 86_400 * 10**digits)
    date, _, era = date_text(days).partition(" ")
    zone = "+00" if t.kind == "timestamptz" else ""
    return f"{date} {clock_text(rest, digits)}{zone}{' ' + era if era else ''}"


def clock_text(value: int, digits: int) -> str:
    sign = "-" if value < 0 else ""
    seconds, fraction = divmod(abs(value), 10**digits)
    tail = f".{fraction:0{digits}}".rstrip("0") if fraction else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{tail}"


def _interval_text(array: pa.Array) -> str:
    words, nanoseconds = interval_parts(array)
    raw = words.tobytes()
    months = int.from_bytes(raw[:4], "little", signed=True)
    days = int.from_bytes(raw[4:], "little", signed=True)
    parts = [f"{months} mons"] if months else []
    parts += [f"{days} days"] if days else []
    clock = nanoseconds[0].as_py()
    if clock or not parts:
        parts.append(clock_text(clock, 9))
    return " ".join(parts)


def _nested_text(array: pa.Array, index: int, t: Type) -> str:
    if t.kind == "struct":
        inner = [
            f"{field.name}: {_shown(array.slice(index, 1).field(place), 0, field.type)}"
            for place, field in enumerate(t.fields)
        ]
        return "{" + ", ".join(inner) + "}"
    start, end = array.offsets[index].as_py(), array.offsets[index + 1].as_py()
    # Elements that would be cut away anyway are not written.
    last = min(end, start + SHOWN_CHARACTERS)
    more = [f"… ({end - start} elements)"] if last < end else []
    if t.kind == "map":
        key, value = t.fields
        pairs = [f"{_shown(array.keys, i, key.type)}: {_shown(array.items, i, value.type)}" for i in range(start, last)]
        return "{" + ", ".join(pairs + more) + "}"
    assert t.element is not None
    return "[" + ", ".join([_shown(array.values, i, t.element) for i in range(start, last)] + more) + "]"


def _shown(array: pa.Array, index: int, t: Type) -> str:
    text = _text(array, index, t)
    return "NULL" if text is None else text
