"""verify --repair with --target-triggers disable: the triggers are enabled again on every way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import rowferry
from rowferry import RowferryError, StoppedError, TargetError

pytestmark = pytest.mark.server

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE)"
TRIGGER = (
    "CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    "CREATE TRIGGER quiet BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION quiet()",
)


def run(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def enabled(url: str) -> bool:
    return run(url, "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'quiet'") == [("O",)]


@pytest.fixture
def ends(postgres_database: Callable[[], str]) -> tuple[str, str]:
    source, target = postgres_database(), postgres_database()
    run(source, TABLE, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    run(target, TABLE, "INSERT INTO t VALUES (1, 'a')", *TRIGGER)
    return source, target


def repair(ends: tuple[str, str], stop: threading.Event | None = None) -> rowferry.Report:
    return rowferry.verify(*ends, repair=True, target_triggers="disable", stop=stop)


def test_triggers_are_enabled_after_a_repair(ends: tuple[str, str]) -> None:
    assert repair(ends).equal is True
    assert enabled(ends[1])


def test_triggers_are_enabled_after_a_repair_that_the_target_refuses(ends: tuple[str, str]) -> None:
    run(ends[1], "ALTER TABLE t ADD CHECK (id < 2)")
    with pytest.raises(RowferryError, match="t_id_check"):
        repair(ends)
    assert enabled(ends[1])


@pytest.mark.parametrize("locked", [False, True])
def test_triggers_are_enabled_after_a_repair_that_is_stopped_or_it_is_said(ends: tuple[str, str], locked: bool) -> None:
    """The repair waits for a row of another session as it is stopped, and its connections are cut."""
    run(ends[1], "CREATE TABLE p (id int PRIMARY KEY)", "INSERT INTO p VALUES (1), (2)")
    run(ends[1], "ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES p")
    stop, raised = threading.Event(), list[BaseException]()

    def go() -> None:
        try:
            repair(ends, stop)
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=go)
    with psycopg.connect(ends[1]) as other:
        other.execute("SELECT * FROM p WHERE id = 2 FOR UPDATE")
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until = time.monotonic() + 30
        while run(ends[1], waiting) == [(0,)]:
            assert time.monotonic() < until, raised
            time.sleep(0.02)
        assert not enabled(ends[1])
        if locked:
            other.execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        assert isinstance(raised[0], StoppedError)
        said = "triggers of table 't' could not be enabled again: quiet" in str(raised[0])
        assert (said, enabled(ends[1])) == ((True, False) if locked else (False, True))


def test_repair_whose_target_cannot_be_read_again_is_the_targets_failure(
    ends: tuple[str, str], postgres_server: Any
) -> None:
    """The role loses its right to log in when the repair begins: exit 4, not 3."""
    database = ends[1].rpartition("/")[2]
    role = f"mender_{database}"
    run(ends[1], f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'x'", "UPDATE t SET v = 'z'")
    try:

        def on_event(event: Any) -> None:
            if type(event).__name__ == "VerifyFinished":
                run(ends[1], f"ALTER ROLE {role} NOLOGIN")

        with pytest.raises(TargetError, match="not permitted to log in") as raised:
            rowferry.verify(
                ends[0],
                postgres_server.url_of(database, role, "x"),
                repair=True,
                target_triggers="fire",
                on_event=on_event,
            )
        assert raised.value.exit_code == 4
    finally:
        run(ends[1], f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")
