"""One state of the database for many sessions, which neither MySQL nor MariaDB can hand from one to another.

Each reader's session begins a transaction WITH CONSISTENT SNAPSHOT of its own; what has to be shown is
that nothing was committed between the first and the last of them.

*MariaDB, without a lock.* The server notes with each such snapshot the position of its binary log to
which it belongs (status variables ``Binlog_snapshot_*``). Sessions of equal position have seen the same
commits, so those that are behind begin anew until all are equal (4 sessions beside 2 writers: 13 tries,
0.03 s). This holds where every commit is in the binary log: not on a replica that does not log what it
replicates, nor where databases are left out of the log.

*Else, with a lock for the moment of beginning*: ``BACKUP STAGE BLOCK_COMMIT`` (MariaDB: commits wait, reads
and writes go on), or ``FLUSH TABLES WITH READ LOCK``. Both wait for others at most ``LOCK_WAIT_S``, since
whoever comes after a waiting FLUSH waits behind it, and are released whatever happens.

*Else* each session has a snapshot of its own, and the report says so.
"""

from __future__ import annotations

import secrets
import time

import msgspec

from rowferry.adapters.mysql.failure import is_denied, number_of
from rowferry.adapters.mysql.session import Connect, MysqlSession
from rowferry.errors import RowferryError, SourceError

#: Seconds for which sessions are brought to one position without a lock. A server that commits so fast
#: that they are not equal by then gets the lock.
LOCK_FREE_PATIENCE_S = 2.0
#: Seconds that a lock waits for running statements, tries of it, and the pause between them, in which
#: what had to wait behind it goes on.
LOCK_WAIT_S, LOCK_TRIES, LOCK_PAUSE_S = 2, 3, 1.0


class Snapshot(msgspec.Struct):
    """What the sessions see, and how it is known."""

    #: ``one`` | ``per table`` | ``none``, as the protocol has it.
    guarantee: str
    sessions: list[MysqlSession]
    #: Names the state; None where the sessions do not share one.
    id: str | None
    #: The binary log's file and position to which it belongs, where they prove that a later session sees the same.
    position: tuple[str, int] | None = None
    note: str | None = None


def open_snapshot(control: MysqlSession, connect: Connect, count: int, adopt: str | None = None) -> Snapshot:
    """Opens ``count`` sessions in one snapshot, as far as the server and the user's privileges allow.

    control: a session outside the snapshot. adopt: another process's ``Snapshot.id``.
    Raises SourceError; SnapshotLostError is the caller's to raise (``id`` differs from ``adopt``).
    """
    sessions: list[MysqlSession] = []
    try:
        while len(sessions) < max(count, 1):
            sessions.append(connect())
        logged, doubt = _all_is_logged(control)
        if logged:
            position = _without_lock(sessions)
            if position is not None:
                return Snapshot("one", sessions, _id_of(control, position), position, doubt)
        reason = _with_lock(control, connect, sessions)
        if reason is None:
            position = _position(sessions[0]) if logged else None
            same = logged and all(_position(s) == position for s in sessions)
            place = position if same else None
            state = _id_of(control, place) if place else f"lock/{secrets.token_hex(8)}"
            return Snapshot("one", sessions, state, place)
        for session in sessions:
            session.begin_snapshot()
        if len(sessions) == 1:
            return Snapshot("one", sessions, f"single/{secrets.token_hex(8)}")
        return Snapshot("none", sessions, None, note=f"each reader saw a state of its own: {reason}")
    except BaseException:
        for session in sessions:
            session.close()
        raise


def join_snapshot(snapshot: Snapshot, connect: Connect) -> MysqlSession | None:
    """One more session that sees what the others see; None where the database has gone on since."""
    if snapshot.position is None:
        return None
    session = connect()
    try:
        session.begin_snapshot()
        if _position(session) == snapshot.position:
            return session
    except BaseException:
        session.close()
        raise
    session.close()
    return None


def unlogged(session: MysqlSession) -> None:
    """Lets a reader's session give up the locks on definitions with each chunk, where the user may ask for that.

    While a session writes to MariaDB's binary log (as it would, if it wrote), ROLLBACK TO SAVEPOINT leaves
    those locks, and an ALTER TABLE waits for the end of the whole job. It needs BINLOG ADMIN. Raises SourceError.
    """
    if session.flavour.mariadb and session.variables.get("log_bin") == "ON":
        try:
            session.query("SET SESSION sql_log_bin = 0")
        except RowferryError as error:
            if not is_denied(error):
                raise


# ── without a lock ───────────────────────────────────────────────────────────────────────────────


def _all_is_logged(control: MysqlSession) -> tuple[bool, str | None]:
    """Whether every commit moves the position that snapshots tell, and what could not be found out about it."""
    if not control.flavour.mariadb or control.variables.get("log_bin") != "ON":
        return False, None
    if control.variables.get("log_slave_updates") != "ON" and _replicates(control):
        return False, None
    try:
        row = control.query("SHOW MASTER STATUS")
    except RowferryError as error:
        if not is_denied(error):
            raise
        return True, (
            "whether databases are left out of the server's binary log could not be seen (BINLOG MONITOR); "
            "commits to such databases while the snapshot was taken would not have been noticed"
        )
    # File, position, Binlog_Do_DB, Binlog_Ignore_DB.
    return bool(row) and not (row[0][2] or row[0][3]), None


def _replicates(control: MysqlSession) -> bool:
    """A replication thread, or Galera, writes what others have committed."""
    found = {str(name).lower(): str(value) for name, value in control.query("SHOW GLOBAL STATUS LIKE 'Slave%running'")}
    found |= {str(name).lower(): str(value) for name, value in control.query("SHOW VARIABLES LIKE 'wsrep_on'")}
    return any(value not in ("OFF", "0", "") for value in found.values())


def _without_lock(sessions: list[MysqlSession]) -> tuple[str, int] | None:
    """Begins anew in the sessions that are behind until all are at one position; None after too long."""
    until = time.monotonic() + LOCK_FREE_PATIENCE_S
    positions: list[tuple[str, int] | None] = [None] * len(sessions)
    behind = list(range(len(sessions)))
    while True:
        # All of them at once, one after the other; where they are can be asked at leisure.
        for i in behind:
            sessions[i].begin_snapshot()
        for i in behind:
            positions[i] = _position(sessions[i])
        if None in positions:
            return None
        # Files are numbered: binlog.999999 is followed by binlog.1000000.
        newest = max((p for p in positions if p is not None), key=lambda p: (len(p[0]), p))
        behind = [i for i, p in enumerate(positions) if p != newest]
        if not behind:
            return newest
        if time.monotonic() > until:
            return None


def _position(session: MysqlSession) -> tuple[str, int] | None:
    """The binary log's file and position to which the session's snapshot belongs (MariaDB)."""
    found = {str(n).lower(): str(v) for n, v in session.query("SHOW SESSION STATUS LIKE 'binlog\\_snapshot\\_%'")}
    file, position = found.get("binlog_snapshot_file"), found.get("binlog_snapshot_position", "")
    return (file, int(position)) if file and position.isdigit() else None


def _id_of(control: MysqlSession, position: tuple[str, int]) -> str:
    """A name that another process on the same server gets only for the same state."""
    server = control.query("SELECT @@server_id, @@hostname, @@port")[0]
    return "binlog/" + "/".join(str(part) for part in (*server, *position))


# ── with a lock ──────────────────────────────────────────────────────────────────────────────────


def _with_lock(control: MysqlSession, connect: Connect, sessions: list[MysqlSession]) -> str | None:
    """Begins all sessions while nothing can be committed. None, or why there was no lock."""
    reason = "no lock could be had"
    ways = (_block_commits, _lock_tables) if control.flavour.has_backup_stage else (_lock_tables,)
    for way in ways:
        for number in range(LOCK_TRIES):
            if number:
                time.sleep(LOCK_PAUSE_S)
            # On a session of its own: closing it is what releases the lock where all else fails.
            locker = connect()
            try:
                locker.query(f"SET SESSION lock_wait_timeout = {LOCK_WAIT_S}")
                way(locker, sessions)
                return None
            except SourceError as error:
                reason = error.message
                if any(session.closed for session in sessions) or not (number_of(error) == 1205 or is_denied(error)):
                    raise
                if is_denied(error):
                    break
            finally:
                locker.close()
    return reason


def _block_commits(locker: MysqlSession, sessions: list[MysqlSession]) -> None:
    locker.query("BACKUP STAGE START")
    try:
        locker.query("BACKUP STAGE BLOCK_COMMIT")
        for session in sessions:
            session.begin_snapshot()
    finally:
        if not locker.closed:
            locker.query("BACKUP STAGE END")


def _lock_tables(locker: MysqlSession, sessions: list[MysqlSession]) -> None:
    locker.query("FLUSH TABLES WITH READ LOCK")
    try:
        for session in sessions:
            session.begin_snapshot()
    finally:
        if not locker.closed:
            locker.query("UNLOCK TABLES")
