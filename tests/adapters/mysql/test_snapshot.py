"""One snapshot for all readers: without a lock, with one, or said plainly where there is none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pymysql
import pytest

import mysql_servers
from rowferry import endpoint
from rowferry.adapters.mysql import open_source, snapshot
from rowferry.adapters.mysql.connect import Connector, parameters
from rowferry.adapters.mysql.session import MysqlSession
from rowferry.adapters.mysql.source import MysqlSource
from rowferry.adapters.protocol import ReadRequest, SourceOptions
from rowferry.errors import RowferryError, SnapshotLostError, SourceError
from rowferry.model import Bound, TableName

pytestmark = pytest.mark.server

#: Two tables that every commit changes alike: whoever sees one state finds them equal.
TABLES = (
    "CREATE TABLE a (id int AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE b (id int AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB",
)


def source_of(url: str) -> MysqlSource:
    source = open_source(endpoint.parse(url), SourceOptions())
    assert isinstance(source, MysqlSource)
    return source


@contextlib.contextmanager
def writers(server: mysql_servers.Mariadb, database: str, count: int = 2) -> Iterator[None]:
    """Commits to both tables, as fast as they go."""
    stop = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        try:
            with contextlib.closing(server.connect(database)) as c, c.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("START TRANSACTION")
                    cursor.execute("INSERT INTO a VALUES ()")
                    cursor.execute("INSERT INTO b VALUES ()")
                    cursor.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.2)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def states(sessions: list[MysqlSession]) -> set[tuple[int, int]]:
    return {(s.query("SELECT COUNT(*) FROM a")[0][0], s.query("SELECT COUNT(*) FROM b")[0][0]) for s in sessions}


def wait_for_commits(control: MysqlSession, since: set[tuple[int, int]]) -> None:
    """Waits until the writers have gone on (30 s at the most)."""
    until = time.monotonic() + 30
    while states([control]) == since:
        assert time.monotonic() < until, "nobody writes"
        time.sleep(0.01)


def connector_of(url: str) -> Connector:
    return Connector(parameters(endpoint.parse(url)), SourceError)


def close_all(found: snapshot.Snapshot) -> None:
    for session in found.sessions:
        session.close()


@pytest.fixture
def url(mysql_server: mysql_servers.Mariadb, mysql_database: Callable[[], str]) -> str:
    made = mysql_database()
    mysql_server.execute(*TABLES, database=made.rpartition("/")[2])
    return made


@pytest.fixture
def reader_url(mysql_server: mysql_servers.Mariadb, url: str) -> Iterator[Callable[[str], str]]:
    """URLs of a user who may read the database, and has some global privileges."""
    database = url.rpartition("/")[2]
    user = f"reader_{database[-8:]}"
    with contextlib.ExitStack() as stack:

        def make(privileges: str) -> str:
            also = [f"{privileges} ON *.*"] if privileges else []
            stack.enter_context(mysql_server.account(user, "pw", f"SELECT ON `{database}`.*", *also))
            return mysql_server.url_of(database, user, "pw")

        yield make


def test_sessions_beside_writers_see_one_state_without_a_lock(
    mysql_server: mysql_servers.Mariadb, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(*_: object) -> str:
        raise AssertionError("a lock was asked for")

    monkeypatch.setattr(snapshot, "_with_lock", no_lock)
    monkeypatch.setattr(snapshot, "LOCK_FREE_PATIENCE_S", 30.0)  # a machine that runs other tests, too
    connector = connector_of(url)
    control = connector.connect()
    with writers(mysql_server, url.rpartition("/")[2]):
        found = snapshot.open_snapshot(control, connector.connect, 4)
        seen = states(found.sessions)
        wait_for_commits(control, seen)
        assert states(found.sessions) == seen
    assert found.guarantee == "one" and found.position is not None and found.note is None
    assert len(seen) == 1
    a, b = seen.pop()
    assert a == b > 0
    close_all(found)


@pytest.mark.parametrize("way", ["_block_commits", "_lock_tables"])
def test_sessions_begun_under_a_lock_see_one_state_and_the_lock_is_gone(
    mysql_server: mysql_servers.Mariadb, url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    used: list[str] = []
    for name in ("_block_commits", "_lock_tables"):
        real = getattr(snapshot, name)

        def spy(locker: MysqlSession, sessions: list[MysqlSession], name: str = name, real: object = real) -> None:
            if name != way:
                raise SourceError("not this one", code="1227/42000")
            used.append(name)
            real(locker, sessions)  # type: ignore[operator]

        monkeypatch.setattr(snapshot, name, spy)
    monkeypatch.setattr(snapshot, "_all_is_logged", lambda control: (False, None))
    connector = connector_of(url)
    control = connector.connect()
    with writers(mysql_server, url.rpartition("/")[2]):
        found = snapshot.open_snapshot(control, connector.connect, 3)
        seen = states(found.sessions)
        wait_for_commits(control, seen)  # writers go on: the lock is gone
    assert used == [way]
    assert found.guarantee == "one" and found.id is not None and found.id.startswith("lock/")
    assert len(seen) == 1 and len(set(seen.pop())) == 1
    close_all(found)


def test_a_lock_that_cannot_be_had_soon_is_given_up_and_released(
    mysql_server: mysql_servers.Mariadb, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_all_is_logged", lambda control: (False, None))
    monkeypatch.setattr(snapshot, "LOCK_WAIT_S", 1)
    monkeypatch.setattr(snapshot, "LOCK_PAUSE_S", 0.1)
    connector = connector_of(url)
    control = connector.connect()
    database = url.rpartition("/")[2]
    with contextlib.closing(mysql_server.connect(database)) as blocker:
        blocker.cursor().execute("LOCK TABLES a WRITE")  # FTWRL and BACKUP STAGE wait for it
        found = snapshot.open_snapshot(control, connector.connect, 2)
        assert found.guarantee == "none" and found.id is None
        assert found.note is not None and "each reader saw a state of its own" in found.note
        blocker.cursor().execute("UNLOCK TABLES")
    close_all(found)
    mysql_server.execute("INSERT INTO a VALUES ()", database=database)


@pytest.mark.parametrize(
    ("privileges", "logged", "guarantee", "note"),
    [
        ("", True, "one", "BINLOG MONITOR"),
        ("BINLOG MONITOR", True, "one", None),
        ("RELOAD", False, "one", None),
        ("", False, "none", "each reader saw a state of its own"),
    ],
)
def test_the_guarantee_follows_what_the_user_may_do(
    reader_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    privileges: str,
    logged: bool,
    guarantee: str,
    note: str | None,
) -> None:
    if not logged:
        monkeypatch.setattr(snapshot, "_all_is_logged", lambda control: (False, None))
    source = source_of(reader_url(privileges))
    assert source.open_snapshot(3) == guarantee
    said = source.snapshot_note()
    assert (said is None) if note is None else (said is not None and note in said)
    assert (source.snapshot_id() is None) is (guarantee == "none")
    source.close()


def test_a_single_session_needs_neither_log_nor_lock(
    reader_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_all_is_logged", lambda control: (False, None))
    connector = connector_of(reader_url(""))
    found = snapshot.open_snapshot(connector.connect(), connector.connect, 1)
    assert (found.guarantee, len(found.sessions)) == ("one", 1)
    close_all(found)


def test_tables_of_engines_without_snapshots_are_named(mysql_server: mysql_servers.Mariadb, url: str) -> None:
    mysql_server.execute(
        "CREATE TABLE m (id int) ENGINE=MyISAM", "CREATE TABLE r (id int) ENGINE=Aria", database=url.rpartition("/")[2]
    )
    source = source_of(url)
    source.describe(TableName(None, "a"))
    assert source.open_snapshot(2) == "one"
    assert source.snapshot_note() is None
    source.describe(TableName(None, "m"))
    source.describe(TableName(None, "r"))
    assert source.open_snapshot(2) == "none"
    note = source.snapshot_note()
    assert note is not None and "m (MyISAM)" in note and "r (Aria)" in note
    source.close()


def test_a_lost_session_is_replaced_where_nothing_was_committed_since(
    mysql_server: mysql_servers.Mariadb, url: str
) -> None:
    source = source_of(url)
    assert source.open_snapshot(1) == "one"
    readers = [source.take_session() for _ in range(1 + snapshot_spares())]
    for session in readers:
        mysql_server.execute(f"KILL {session.id}")
    again = source.take_session()
    assert states([again]) == {(0, 0)}
    source.leave_session(again)
    # A session that is idle and still in the snapshot is given again, whatever was committed meanwhile.
    mysql_server.execute("INSERT INTO a VALUES ()", database=url.rpartition("/")[2])
    assert source.take_session() is again
    assert states([again]) == {(0, 0)}
    with pytest.raises(SnapshotLostError) as caught:
        source.take_session()
    assert caught.value.transient
    again.close()
    source.close()


def snapshot_spares() -> int:
    from rowferry.adapters.mysql.source import SPARE_SESSIONS

    return SPARE_SESSIONS


def test_another_process_adopts_a_snapshot_while_nothing_is_committed(
    mysql_server: mysql_servers.Mariadb, url: str
) -> None:
    first, second, third = source_of(url), source_of(url), source_of(url)
    assert first.open_snapshot(2) == "one"
    assert second.open_snapshot(2, adopt=first.snapshot_id()) == "one"
    assert second.snapshot_id() == first.snapshot_id()
    mysql_server.execute("INSERT INTO a VALUES ()", database=url.rpartition("/")[2])
    with pytest.raises(SnapshotLostError):
        third.open_snapshot(2, adopt=first.snapshot_id())
    for source in (first, second, third):
        source.close()


def read_all(source: MysqlSource, name: str, *, after: Callable[[], object] = lambda: None) -> int:
    table = source.describe(TableName(None, name))
    assert table is not None
    source.open_snapshot(1)
    after()
    reader = source.reader()
    try:
        columns = tuple((c.name, c.type) for c in table.columns)
        return sum(block.batch.num_rows for block in reader.read(ReadRequest(table, columns, Bound({}))))
    finally:
        reader.close()
        source.close()


@pytest.mark.parametrize(
    "sql",
    ["ALTER TABLE a ADD COLUMN c int", "TRUNCATE TABLE a", "DROP TABLE a", "ALTER TABLE a ENGINE=InnoDB, FORCE"],
)
def test_a_table_altered_since_the_snapshot_is_no_empty_table(
    mysql_server: mysql_servers.Mariadb, url: str, sql: str
) -> None:
    database = url.rpartition("/")[2]
    mysql_server.execute("INSERT INTO a VALUES (), ()", database=database)
    source = source_of(url)
    try:
        rows = read_all(source, "a", after=lambda: mysql_server.execute(sql, database=database))
    except RowferryError as error:
        assert isinstance(error, SourceError)
        assert not error.transient
        assert error.table == "a"
    else:
        assert rows == 2  # an ALTER in place: the old rows are all there


@pytest.mark.parametrize("privileges", ["BINLOG ADMIN", ""])
def test_a_reader_holds_no_definition_between_two_chunks(
    mysql_server: mysql_servers.Mariadb, url: str, reader_url: Callable[[str], str], privileges: str
) -> None:
    database = url.rpartition("/")[2]
    source = source_of(reader_url(privileges))
    table = source.describe(TableName(None, "a"))
    assert table is not None
    source.open_snapshot(1)
    reader = source.reader()
    request = ReadRequest(table, (("id", table.column("id").type),), Bound({}))
    assert list(reader.read(request)) == []
    try:
        alter = "SET STATEMENT lock_wait_timeout = 2 FOR ALTER TABLE a ADD COLUMN c int"
        if privileges:
            mysql_server.execute(alter, database=database)
        else:  # MariaDB keeps the locks of a session that could write into its binary log
            with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
                mysql_server.execute(alter, database=database)
    finally:
        reader.close()
        source.close()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("log-bin=replica", "binlog-format=ROW"), ()])
def test_a_replica_can_be_the_source(own_mysql_server: mysql_servers.Mariadb, settings: tuple[str, ...]) -> None:
    primary, database = own_mysql_server, "replicated"
    primary.database(database)
    primary.execute(*TABLES, database=database)
    replica = mysql_servers.start_replica(primary, settings)
    try:
        replica.wait_for(primary)
        connector = connector_of(replica.url_of(database))
        control = connector.connect()
        # What it replicates is not in its own log, so that log's position proves nothing.
        assert snapshot._all_is_logged(control) == (False, None)
        with writers(primary, database):
            time.sleep(0.3)
            found = snapshot.open_snapshot(control, connector.connect, 4)
            seen = states(found.sessions)
        assert found.guarantee == "one"
        assert len(seen) == 1
        a, b = seen.pop()
        assert a == b > 0
        close_all(found)
    finally:
        replica.discard()
        primary.drop(database)


def test_a_server_without_a_binary_log_takes_the_lock(tmp_path: object) -> None:
    server = mysql_servers.start(mysql_servers.FAST)
    try:
        url = server.database("plain")
        server.execute(*TABLES, database="plain")
        source = source_of(url)
        with writers(server, "plain"):
            assert source.open_snapshot(3) == "one"
            sessions = [source.take_session() for _ in range(3)]
            assert len(states(sessions)) == 1
            for session in sessions:
                source.leave_session(session)
        assert (source.snapshot_id() or "").startswith("lock/")
        source.close()
    finally:
        server.discard()
