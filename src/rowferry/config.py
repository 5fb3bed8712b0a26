"""``--config job.toml``: the same things as on the command line, kept in a file.

    tables = ["flights", "sales.*:archive_*"]
    mode = "append"
    names = "snake"
    workers = 4

    [where]
    flights = "month = 1"

    [policies]
    "flights.tailnum" = "null"

    [table.flights]                 # what happens to the rows of this table on their way (docs/TRANSFORM.md)
    set = { carrier = "upper(trim(carrier))" }
    where = "distance > 0"
    drop = ["tailnum"]

    [[pause_while]]                 # wait as long as this query answers true
    side = "target"
    sql = "SELECT pg_is_in_recovery()"

What is also given on the command line (or as an argument) wins.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from rowferry.errors import ConfigError
from rowferry.stages import spec
from rowferry.stages.spec import TableSpec

#: A job.toml is written by hand; what is larger than this is not one (bytes).
CONFIG_BYTES_MAX = 1 << 20


class PauseWhile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query that must answer false: while it answers true the job waits."""

    side: Literal["source", "target"]
    sql: str


class JobConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job.toml can say. ``where`` and ``table`` are by source table, ``policies`` by ``table.column``: globs."""

    tables: tuple[str, ...] = ()
    mode: Literal["create", "append", "truncate", "replace", "upsert"] | None = None
    names: Literal["as-is", "lower", "snake"] | None = None
    match_names: Literal["exact", "loose"] | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    where: dict[str, str] = {}
    policies: dict[str, str] = {}
    on_error: Literal["refuse", "quarantine"] | None = None
    max_quarantined: Annotated[int, msgspec.Meta(ge=0)] | None = None
    keep_duplicates: str | None = None
    max_dedup_mb: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_rows_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_mb_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_pause_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    #: So many in so long: ``50/60s``.
    max_errors: str | None = None
    max_refused: str | None = None
    pause_while: tuple[PauseWhile, ...] = ()
    #: Source table, as --table takes it (globs) → what happens to its rows.
    table: dict[str, TableSpec] = {}


_FUNCTION = "it takes a RecordBatch, and gives a RecordBatch or a list of (table, RecordBatch)"

#: The shape that stands at a place within a table's section, for the names that it has.
_SHAPES: dict[str, type[msgspec.Struct]] = {
    "": TableSpec,
    "rules": spec.Rule,
    "lookups": spec.Lookup,
    "cast": spec.Cast,
    "dedup": spec.Dedup,
}


def load(path: str | os.PathLike[str]) -> JobConfig:
    """Reads a job.toml. Raises ConfigError, which names the file and the key."""
    name = f"the config {os.fspath(path)!r}"
    try:
        with open(path, "rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from None
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{name} is larger than {CONFIG_BYTES_MAX:,} bytes")
    try:
        data = tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not TOML: {error}") from None
    sections = data.pop("table", {})
    if not isinstance(sections, dict) or not all(isinstance(s, dict) for s in sections.values()):
        raise ConfigError(f"{name}: `table` holds sections", hint='a table\'s is headed [table."NAME"]')

    def below(key: str) -> type[msgspec.Struct]:
        return PauseWhile if key == "pause_while" else JobConfig

    read: JobConfig = _converted(data, JobConfig, f"{name}: ", below)
    tables = {key: table_spec(section, f'{name}: [table."{key}"] ') for key, section in sections.items()}
    return msgspec.structs.replace(read, table=tables) if tables else read


def table_spec(data: Mapping[str, Any] | TableSpec, place: str) -> TableSpec:
    """What happens to a table's rows, from plain values; ``place`` begins the message of a ConfigError."""
    if isinstance(data, TableSpec):
        return data
    found: TableSpec = _converted(dict(data), TableSpec, place, lambda part: _SHAPES.get(part, TableSpec))
    return found


def transforming(specs: Mapping[str, Any], functions: Any) -> dict[str, Any]:
    """The arguments of a Request for what the API was given: specs by table, functions by table or one for all."""
    plain = tuple((name, plain_spec(table_spec(data, f"specs[{name!r}]: "))) for name, data in specs.items())
    by_table = {"*.*": functions} if callable(functions) else dict(functions or {})
    for name, function in by_table.items():
        if not callable(function):
            raise ConfigError(f"transform[{name!r}] is {type(function).__name__}, not a function", hint=_FUNCTION)
    return {"specs": plain, "functions": tuple(by_table.items())}


def plain_spec(data: TableSpec) -> dict[str, Any]:
    """What was given of a spec, as plain JSON: what is left out has its usual value."""
    usual = msgspec.to_builtins(TableSpec())
    given: dict[str, Any] = msgspec.to_builtins(data)
    return {key: value for key, value in given.items() if value != usual[key]}


def _converted(data: dict[str, Any], shape: Any, place: str, shape_at: Callable[[str], type[msgspec.Struct]]) -> Any:
    """The data as ``shape``, key by key, so that a mistake names its key; ``shape_at``: what stands under a key."""
    known = {field.name: field.type for field in msgspec.structs.fields(shape)}
    for key, value in data.items():
        if key not in known:
            raise ConfigError(f"{place}there is no key {key!r}", hint=_near(key, known))
        try:
            msgspec.convert({key: value}, shape)
        except msgspec.ValidationError as error:
            what, where = _located(str(error), key, value)
            below = shape_at(key)
            if unknown := re.search(r"unknown field `(.+?)`", what):
                hint = _near(unknown[1], below.__struct_fields__)
                raise ConfigError(f"{place}{where}: there is no key {unknown[1]!r}", hint=hint) from None
            raise ConfigError(f"{place}{where}: {what}", hint=_choices(where, what, shape, below)) from None
    return msgspec.convert(data, shape)


def _located(message: str, key: str, value: Any) -> tuple[str, str]:
    """msgspec's message as (what, where); it writes ``[...]`` for a key of a table, of which the first bad one is
    looked up."""
    what, _, where = message.partition(" - at `$.")
    where = where.rstrip("`") or key
    if "[...]" in where and isinstance(value, dict):
        shape = str | spec.Cast if key == "cast" else str
        bad = [name for name, item in value.items() if not _is(item, shape)]
        where = where.replace("[...]", f".{bad[0] if bad else '?'}", 1)
    return what, where


def _is(value: Any, shape: Any) -> bool:
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return False
    return True


def _choices(where: str, what: str, *shapes: Any) -> str | None:
    """What a key of a few words can say, where it says another."""
    if "enum" not in what:
        return None
    name = re.split(r"[.\]]", where)[-1]
    for shape in shapes:
        for field in msgspec.structs.fields(shape):
            kinds = (field.type, *get_args(field.type))
            words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
            if field.name == name and words:
                return f"one of {', '.join(words)}"
    return None


def _near(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), 3, 0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"what can stand there: {', '.join(known)}"
