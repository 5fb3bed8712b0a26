"""The ledger of a folder: ``_rowferry/plan.json`` for jobs, steps and bounds; the files for the rest.

The plan is renamed into place before the first row moves. A chunk is done when its file stands: the
file's own metadata holds the chunk's row, so that rows and ledger cannot disagree. When the job is
finished, the rows are written into the plan, since later jobs may replace the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from rowferry.adapters.files.catalog import OWN, Folder
from rowferry.adapters.files.wire import TEMPORARY, failures, publish, sync_folder, write_json, write_lines
from rowferry.adapters.protocol import WINNERS
from rowferry.errors import LedgerError
from rowferry.model import ChunkRow, JobRow, StepRow, TableName
from rowferry.types import dump

_VERSION = 1
#: What the names of journals begin with (see ``settle``).
JOURNAL = "retry-"
#: ``part-JOB-TABLE-CHUNK.parquet``
_PART = re.compile(r"part-(.+)-(\d+)-(\d+)\.[a-z]+(?:\.tmp)?")


def part_name(job: str, table: int, chunk: int, suffix: str) -> str:
    return f"part-{_file_safe(job)}-{table:03}-{chunk:06}{suffix}"


def _file_safe(job: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", job)


def settle(folder: Folder) -> None:
    """Carries out what stands in journals: transactions of several files, committed but for the files' names.
    Raises OSError."""
    own = os.path.join(folder.path, OWN)
    if not os.path.isdir(own):
        return
    for name in sorted(n for n in os.listdir(own) if n.startswith(JOURNAL) and n.endswith(".json")):
        path = os.path.join(own, name)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            with open(path, encoding="utf-8") as file:
                journal = json.load(file)
            for part in journal["publish"]:
                with contextlib.suppress(FileNotFoundError):
                    publish(os.path.join(folder.path, part))
            os.unlink(path)
            sync_folder(own)


class FilesLedger:
    """The protocol's Ledger in a folder."""

    def __init__(self, folder: Folder, on_change: Callable[[str], None]) -> None:
        self._folder = folder
        self._own = os.path.join(folder.path, OWN)
        self._path = os.path.join(self._own, "plan.json")
        self._on_change = on_change
        self._locks: dict[str, int] = {}
        #: Of the jobs whose chunks were asked for: what the chunks of each table feed beside its own.
        self._fed: dict[str, dict[int, list[tuple[int, TableName]]]] = {}

    def open(self, create: bool) -> bool:
        if os.path.exists(self._path):
            return True
        if not create:
            return False
        with failures(LedgerError, self._own, "create"):
            os.makedirs(self._own, exist_ok=True)
        with self._changing():
            pass
        return True

    # The plan file.

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
            if found["version"] != _VERSION:
                raise LedgerError(f"{self._path!r} is of version {found['version']}, not {_VERSION}")
            return dict(found)
        except FileNotFoundError:
            return {"version": _VERSION, "jobs": {}}
        except OSError as error:
            raise LedgerError(f"cannot read {self._path!r}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{self._path!r} cannot be understood: {error}") from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The plan, to be changed; other processes that want to change it wait."""
        descriptor = self._descriptor("plan.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            plan = self._read()
            yield plan
            with failures(LedgerError, self._path, "write"):
                write_json(self._path, plan)
        finally:
            os.close(descriptor)

    def _descriptor(self, name: str) -> int:
        path = os.path.join(self._own, name)
        with failures(LedgerError, path, "open"):
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def _entry(self, plan: dict[str, Any], job: str) -> dict[str, Any]:
        try:
            return dict(plan["jobs"][job])
        except KeyError:
            raise LedgerError(f"the ledger has no job {job!r}", hint=f"was {self._path!r} replaced?") from None

    def jobs(self) -> list[JobRow]:
        entries = self._read()["jobs"].values()
        try:
            found = [msgspec.convert(e["job"], JobRow) for e in entries]
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise LedgerError(f"{self._path!r} cannot be understood: {error}") from None
        return sorted(found, key=lambda j: (j.created, j.id))

    # Locks: flock dies with its process, and keeps out other openers in the same process as well.

    def lock(self, job: str) -> bool:
        if job in self._locks:
            return False
        descriptor = self._descriptor(f"job-{_file_safe(job)}.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[job] = descriptor
        with failures(LedgerError, self._own, "settle"):
            settle(self._folder)
        self._clean(job)
        return True

    def unlock(self, job: str) -> None:
        descriptor = self._locks.pop(job, None)
        if descriptor is not None:
            os.close(descriptor)

    def unlock_all(self) -> None:
        for job in tuple(self._locks):
            self.unlock(job)

    def _clean(self, job: str) -> None:
        """Removes what a killed process left half-written: all ``.tmp`` files whose job nobody holds.

        job: what was locked. A lock is on a job's key, a part's name has the job's id.
        """
        keys = {_file_safe(id): _file_safe(entry["job"]["key"]) for id, entry in self._read()["jobs"].items()}
        for place in (e.path for e in os.scandir(self._folder.path) if e.is_dir() and e.name != OWN):
            for name in os.listdir(place):
                if not name.endswith(TEMPORARY):
                    continue
                match = _PART.fullmatch(name)
                owner = keys.get(match.group(1), match.group(1)) if match else None
                if owner == _file_safe(job) or self._is_orphan(owner):
                    with failures(LedgerError, name, "remove"), contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(place, name))

    def _is_orphan(self, owner: str | None) -> bool:
        if owner is None:
            return False
        path = os.path.join(self._own, f"job-{owner}.lock")
        if not os.path.exists(path):
            return True
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)

    # Jobs.

    def create_job(self, job: JobRow, steps: Iterable[StepRow], chunks: Sequence[ChunkRow]) -> None:
        kept: list[StepRow] = []

        def winners() -> Iterator[dict[str, Any]]:
            for step in steps:
                if step.kind == WINNERS:
                    yield {"table": step.table, "detail": step.detail}
                else:
                    kept.append(step)

        path = self._winners_path(job.id)
        with failures(LedgerError, path, "write"):
            # In a file of their own, for the plan is read and written as a whole; before it, so that who knows of the
            # job finds them.
            write_lines(path, winners())
        with self._changing() as plan:
            if job.id in plan["jobs"]:
                raise LedgerError(f"the ledger has a job {job.id!r} already")
            plan["jobs"][job.id] = {"job": dump(job), "steps": dump(kept), "chunks": dump(list(chunks))}
        self._on_change(job.id)

    def _winners_path(self, job: str) -> str:
        return os.path.join(self._own, f"winners-{_file_safe(job)}.jsonl")

    def winners(self, job: str, table: int) -> Iterator[dict[str, Any]]:
        path = self._winners_path(job)
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    found = json.loads(line)
                    if found["table"] == table:
                        yield found["detail"]
        except FileNotFoundError:
            return
        except OSError as error:
            raise LedgerError(f"cannot read {path!r}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{path!r} cannot be understood: {error}") from None

    def steps(self, job: str) -> list[StepRow]:
        entry = self._entry(self._read(), job)
        return sorted(msgspec.convert(entry["steps"], list[StepRow]), key=lambda s: s.number)

    def run_step(self, job: str, step: StepRow, action: Callable[[], dict[str, Any] | None]) -> None:
        known = {s.number: s for s in self.steps(job)}
        if step.number not in known:
            raise LedgerError(f"the ledger has lost step {step.number} ({step.kind})")
        if known[step.number].state == "done":
            return
        detail = {**step.detail, **(action() or {})}
        with self._changing() as plan:
            for stored in self._entry(plan, job)["steps"]:
                if stored["number"] == step.number:
                    stored.update(state="done", detail=dump(detail))

    def chunks(self, job: str) -> list[ChunkRow]:
        entry = self._entry(self._read(), job)
        planned = sorted(msgspec.convert(entry["chunks"], list[ChunkRow]), key=lambda c: (c.table, c.number))
        self._fed[job] = _fed(entry)
        if entry["job"]["state"] == "finished":
            return planned
        standing = self._standing(job, entry)
        found = []
        for chunk in planned:
            path = standing.get((chunk.table, chunk.number))
            found.append(self._from_file(path, job, chunk) if path is not None else chunk)
        return found

    def _standing(self, job: str, entry: dict[str, Any]) -> dict[tuple[int, int], str]:
        """(table, chunk) → its file, of all that stand."""
        found: dict[tuple[int, int], str] = {}
        for place in self._places(entry):
            if not os.path.isdir(place):
                continue
            with failures(LedgerError, place, "list"):
                names = os.listdir(place)
            for name in names:
                match = _PART.fullmatch(name)
                if match and match.group(1) == _file_safe(job) and self._folder.is_data(name):
                    found[int(match.group(2)), int(match.group(3))] = os.path.join(place, name)
        return found

    def fed_by(self, job: str, table: int) -> list[tuple[int, TableName]]:
        """The further tables that get rows out of a table's chunks: each with its index, and the name that it is
        loaded under. Known once the job's chunks were asked for."""
        return self._fed.get(job, {}).get(table, [])

    def _places(self, entry: dict[str, Any]) -> list[str]:
        """The folders where chunks of the job can stand: each table's own, and the one it is loaded under."""
        names: list[TableName] = []
        for table in entry["job"].get("plan", {}).get("tables", ()):
            names += [
                TableName(place.get("schema"), place["name"])
                for place in (table["target"]["name"], table.get("load_name"))
                if place
            ]
        return [self._folder.folder_of(name) for name in names] or [
            e.path for e in os.scandir(self._folder.path) if e.is_dir() and e.name != OWN
        ]

    def _from_file(self, path: str, job: str, planned: ChunkRow) -> ChunkRow:
        file = self._folder.open(path)
        try:
            note = json.loads(file.chunk_metadata() or b"null")
        except ValueError:
            note = None
        finally:
            file.close()
        if not isinstance(note, dict) or note.get("job") != job:
            raise LedgerError(f"{path!r} stands in the place of a chunk, but is not of this job")
        chunk = msgspec.convert(note["chunk"], ChunkRow)
        if (chunk.table, chunk.number) != (planned.table, planned.number):
            raise LedgerError(f"{path!r} holds chunk {chunk.number} of table {chunk.table}", chunk=planned.number)
        return msgspec.structs.replace(chunk, bound=planned.bound, wave=planned.wave, state="done")

    def is_done(self, job: str, chunk: ChunkRow) -> bool:
        entry = self._entry(self._read(), job)
        return (chunk.table, chunk.number) in self._standing(job, entry)

    def add_chunks(self, job: str, chunks: Sequence[ChunkRow]) -> None:
        with self._changing() as plan:
            self._entry(plan, job)["chunks"].extend(dump(list(chunks)))
        self._on_change(job)

    def redo_table(self, job: str, table: int, action: Callable[[], None]) -> None:
        action()
        left = [key for key in self._standing(job, self._entry(self._read(), job)) if key[0] == table]
        if left:
            raise LedgerError(f"{len(left)} files of the table still stand after it was emptied")
        self._on_change(job)

    def set_token(self, job: str, token: str | None) -> None:
        with self._changing() as plan:
            self._entry(plan, job)["job"]["token"] = token

    def finish_job(self, job: str, report: dict[str, Any]) -> None:
        done = self.chunks(job)
        with self._changing() as plan:
            entry = plan["jobs"][job]
            entry["job"].update(state="finished", report=dump(report))
            entry["chunks"] = dump(done)
        with failures(LedgerError, self._own, "clean"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._winners_path(job))


def _fed(entry: dict[str, Any]) -> dict[int, list[tuple[int, TableName]]]:
    found: dict[int, list[tuple[int, TableName]]] = {}
    for table in entry["job"].get("plan", {}).get("tables", ()):
        if table.get("fed_by") is not None:
            place = table.get("load_name") or table["target"]["name"]
            name = TableName(place.get("schema"), place["name"])
            found.setdefault(table["fed_by"], []).append((table["index"], name))
    return found
