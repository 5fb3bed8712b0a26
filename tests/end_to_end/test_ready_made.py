"""copy --config with ready-made rules, MySQL to PostgreSQL: zero dates, hashing keys, the target's lengths."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import pathlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

from end_to_end import ferry

KEY = "canary-4711-canary-4711"
CONFIG = """
mode = "append"
policies = { "people.born" = "text" }

[table.people]
rules = [
  { columns = ["name"], do = "nul", replacement = "?" },
  { columns = ["name"], do = "trim" },
  { columns = ["name"], do = "truncate" },
  { columns = ["mail", "parent"], do = "hash", key_env = "RF_PEOPLE_KEY" },
  { columns = ["at"], do = "time_zone", from_zone = "Europe/Warsaw", gap = "later", overlap = "earlier" },
  { columns = ["born"], do = "zero_date", to = "date" },
  { columns = ["doc"], do = "json_take", paths = { b = "$.a.b[1] as decimal(5,2)", c = "$.c" } },
  { columns = ["id", "name"], do = "json_put", into = "both", paths = { "$.who.name" = "name" } },
]
drop = ["doc"]
rename = { name = "called" }
"""
SOURCE = (
    "create table people (id integer primary key, name varchar(40), mail varchar(60), parent varchar(60), "
    "at datetime(6), born date, doc json) character set utf8mb4"
)
TARGET = (
    "create table people (id integer primary key, called varchar(8), mail text, parent text, at timestamptz, "
    "born date, b numeric(5,2), c text, both_of json)"
)
ROWS = [
    (1, "  Ann\0  ", "ann@x.org", None, "2024-03-31 02:30:00", "0000-00-00", '{"a": {"b": [1, 2.50]}, "c": "é"}'),
    (2, None, "bob@x.org", "ann@x.org", "2024-10-27 02:30:00.25", "2020-02-29", '{"c": null}'),
    (3, "ein überlanger Name", None, "bob@x.org", None, None, None),
]


def token(text: str | None) -> str | None:
    return None if text is None else hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.server
def test_ready_made_rules_between_servers_give_what_they_promise(
    mysql_database: Callable[[], str], postgres_database: Callable[[], str], tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, target = mysql_database(), postgres_database()
    url = urlsplit(source)
    with pymysql.connect(
        host=url.hostname, port=url.port, user=url.username, password=url.password or "", database=url.path[1:],
        charset="utf8mb4", autocommit=True,
    ) as c, c.cursor() as cursor:  # fmt: skip
        cursor.execute("set sql_mode = ''")
        cursor.execute(SOURCE)
        cursor.executemany("insert into people values (%s, %s, %s, %s, %s, %s, %s)", ROWS)
    with psycopg.connect(target, autocommit=True) as c:
        c.execute(TARGET.replace("both_of", '"both"'))
    config = tmp_path / "job.toml"
    config.write_text(CONFIG)

    monkeypatch.delenv("RF_PEOPLE_KEY", raising=False)
    refused = ferry.run("copy", source, target, "--config", str(config), expect=2)
    assert "the environment has no RF_PEOPLE_KEY" in refused.output

    monkeypatch.setenv("RF_PEOPLE_KEY", KEY)
    shown = ferry.run("plan", source, target, "--config", str(config), expect=0)
    done = ferry.run("copy", source, target, "--config", str(config), "--verify", expect=0)
    table = done.table("people")
    assert table["equal"] is True
    assert table["touched"] == {"name": 3, "mail": 2, "parent": 2, "at": 2, "born": 1}
    again = ferry.run("verify", source, target, "--config", str(config), expect=0)
    with psycopg.connect(target, autocommit=True) as c:
        c.execute("set timezone = 'UTC'")
        rows: list[Any] = c.execute(
            'select id, called, mail, parent, at, born, b, c, "both"::text from people order by 1'
        ).fetchall()
        kept = [c.execute(f"select t::text from rowferry.{name} t").fetchall() for name in ("jobs", "steps", "chunks")]
    utc = datetime.UTC
    assert rows == [
        (1, "Ann?", token("ann@x.org"), None, datetime.datetime(2024, 3, 31, 1, 30, tzinfo=utc), None,
         Decimal("2.50"), "é", '{"who":{"name":"Ann?"},"id":1}'),
        (2, None, token("bob@x.org"), token("ann@x.org"), datetime.datetime(2024, 10, 27, 0, 30, 0, 250000, tzinfo=utc),
         datetime.date(2020, 2, 29), None, None, '{"who":{"name":null},"id":2}'),
        (3, "ein über", None, token("bob@x.org"), None, None, None, None, '{"who":{"name":"ein über"},"id":3}'),
    ]  # fmt: skip
    everything = shown.output + done.output + again.output + json.dumps(done.report) + str(kept)
    assert "canary" not in everything.replace(source, "").replace(target, "")
