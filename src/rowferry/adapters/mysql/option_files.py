"""The option files of the native clients: /etc/my.cnf, /etc/mysql/my.cnf, ~/.my.cnf, with their !include.

Syntax: https://dev.mysql.com/doc/refman/8.4/en/option-files.html and
https://mariadb.com/kb/en/configuring-mariadb-with-option-files/. A file that cannot be read, or that
everybody may write to, is passed over, as the clients do.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rowferry.errors import ConfigError

#: The groups that every client program reads, and one for what only rowferry is to see.
GROUPS = ("client", "client-server", "client-mariadb", "rowferry")
#: In this order; what comes later wins.
SYSTEM_FILES = ("/etc/my.cnf", "/etc/mysql/my.cnf")
#: Files that include each other without end are stopped here, as the clients do.
DEPTH_MAX = 10

_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "\\": "\\", "s": " ", '"': '"', "'": "'"}


def default_files() -> list[Path]:
    folder = os.environ.get("MARIADB_HOME") or os.environ.get("MYSQL_HOME")
    files = [Path(f) for f in SYSTEM_FILES] + ([Path(folder) / "my.cnf"] if folder else [])
    return [*files, Path.home() / ".my.cnf"]


def read(given: str | None = None, group: str | None = None) -> dict[str, str]:
    """The options of all files, by name (lower case, with hyphens); an option without a value is ''.

    given: this one file in place of the usual ones; ConfigError where it is not there.
    group: one more group to read (``[client]`` and its kin are always).
    """
    if given is not None and not os.access(given, os.R_OK):
        raise ConfigError(f"the option file {given} cannot be read")
    out: dict[str, str] = {}
    groups = GROUPS + ((group,) if group else ())
    for path in [Path(given)] if given is not None else default_files():
        _read_file(path, groups, out, 0)
    return out


def _read_file(path: Path, groups: tuple[str, ...], out: dict[str, str], depth: int) -> None:
    if depth >= DEPTH_MAX:
        return
    try:
        mode = path.stat()
        if not stat.S_ISREG(mode.st_mode) or mode.st_mode & stat.S_IWOTH:
            return
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    within = False
    for raw in lines:
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("!includedir"):
            for file in _folder(path, line[len("!includedir") :].strip()):
                _read_file(file, groups, out, depth + 1)
        elif line.startswith("!include"):
            _read_file(path.parent / line[len("!include") :].strip(), groups, out, depth + 1)
        elif line.startswith("["):
            within = line[1:].partition("]")[0].strip() in groups
        elif within:
            name, _, value = line.partition("=")
            out[option_name(name)] = _value(value.strip())


def _folder(path: Path, name: str) -> list[Path]:
    folder = path.parent / name
    try:
        return sorted(f for f in folder.iterdir() if f.suffix == ".cnf")
    except OSError:
        return []


def option_name(name: str) -> str:
    return name.strip().lower().replace("_", "-").removeprefix("loose-")


def _value(text: str) -> str:
    """A value without its quotes and without a comment behind it; its escapes replaced."""
    quote = ""
    for at, c in enumerate(text):
        if c in "'\"" and (at == 0 or text[at - 1] != "\\"):
            quote = "" if c == quote else (quote or c)
        elif c == "#" and not quote:
            text = text[:at].rstrip()
            break
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    out, at = [], 0
    while at < len(text):
        c = text[at]
        if c == "\\" and at + 1 < len(text):
            # An escape that is none keeps its backslash, for the paths of Windows.
            c = _ESCAPES.get(text[at + 1], c + text[at + 1])
            at += 1
        out.append(c)
        at += 1
    return "".join(out)
