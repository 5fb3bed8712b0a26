"""job.toml: what it can say, and that mistakes name the file and the key."""

import pathlib

import pytest

from rowferry import config
from rowferry.errors import ConfigError
from rowferry.stages import spec


def written(folder: pathlib.Path, text: str | bytes) -> pathlib.Path:
    path = folder / "job.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_load_reads_all_keys(tmp_path: pathlib.Path) -> None:
    path = written(
        tmp_path,
        """
        tables = ["flights", "sales.*:archive_*"]
        mode = "append"
        names = "snake"
        match_names = "loose"
        workers = 4
        [where]
        flights = "month = 1"
        [policies]
        "flights.tailnum" = "null"
        """,
    )
    read = config.load(path)
    assert read.tables == ("flights", "sales.*:archive_*")
    assert (read.mode, read.names, read.match_names, read.workers) == ("append", "snake", "loose", 4)
    assert read.where == {"flights": "month = 1"}
    assert read.policies == {"flights.tailnum": "null"}


def test_load_of_an_empty_file_says_nothing(tmp_path: pathlib.Path) -> None:
    assert config.load(written(tmp_path, "")) == config.JobConfig()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tabels = []", "tabels"),
        ("workers = 0", "workers"),
        ('workers = "four"', "workers"),
        ('mode = "overwrite"', "mode"),
        ("[where]\nflights = 1", "where"),
        ("tables = [1]", "tables"),
        ("tables = [", "not TOML"),
        (b"mode = '\xff'", "UTF-8"),
    ],
)
def test_load_of_a_mistake_names_file_and_key(tmp_path: pathlib.Path, text: str | bytes, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text))
    assert "job.toml" in str(caught.value)
    assert named in str(caught.value)


def test_load_of_a_missing_or_huge_file_is_a_config_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        config.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="larger"):
        config.load(written(tmp_path, "#" * (config.CONFIG_BYTES_MAX + 1)))


def test_load_reads_what_happens_to_the_rows_of_tables(tmp_path: pathlib.Path) -> None:
    path = written(
        tmp_path,
        """
        on_error = "quarantine"
        max_quarantined = 10
        max_dedup_mb = 64
        max_rows_per_s = 5000
        max_mb_per_s = 1.5
        max_errors = "50/60s"
        [[pause_while]]
        side = "target"
        sql = "SELECT true"
        [table."sales.customers"]
        set = { email = "lower(email)" }
        where = "gone IS NULL"
        rename = { id = "customer" }
        cast = { price = "decimal(12,2)", age = { to = "int16", on_error = "null" } }
        rules = [{ columns = ["name*"], do = "trim" }]
        [table."sales.customers".dedup]
        by = ["customer"]
        keep = "last by updated_at"
        """,
    )
    read = config.load(path)
    assert (read.on_error, read.max_quarantined, read.max_rows_per_s, read.max_mb_per_s) == (
        "quarantine",
        10,
        5000,
        1.5,
    )
    assert read.max_dedup_mb == 64
    assert (read.max_errors, read.pause_while) == ("50/60s", (config.PauseWhile("target", "SELECT true"),))
    assert read.table == {
        "sales.customers": spec.TableSpec(
            set={"email": "lower(email)"},
            where="gone IS NULL",
            rename={"id": "customer"},
            cast={"price": "decimal(12,2)", "age": spec.Cast("int16", "null")},
            rules=(spec.Rule(("name*",), "trim"),),
            dedup=spec.Dedup(("customer",), "last by updated_at"),
        )
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wokers = 1", "no key 'wokers'; did you mean workers?"),
        ('[table.a]\nwheer = "x"', "[table.\"a\"] there is no key 'wheer'; did you mean where?"),
        ("[table.a]\nset = { x = 1 }", '[table."a"] set.x: Expected `str`, got `int`'),
        ('[table.a]\ncast = { b = "int", x = { too = "int" } }', "cast.x: there is no key 'too'; did you mean to?"),
        ('[table.a]\nrules = [{ columns = ["a"], doo = "trim" }]', "rules[0]: there is no key 'doo'; did you mean do?"),
        ('[table.a]\ncast = { x = { to = "int", on_error = "nul" } }', "one of refuse, null, quarantine, clamp"),
        ('[[pause_while]]\nside = "both"\nsql = "x"', "pause_while[0].side: Invalid enum value 'both'; one of source"),
        ("max_rows_per_s = 0", "max_rows_per_s"),
        ("max_quarantined = -1", "max_quarantined"),
        ("max_dedup_mb = 0", "max_dedup_mb"),
        ('on_error = "skip"', "one of refuse, quarantine"),
        ("table = 1", '[table."NAME"]'),
        ("[table.a]\nzzz = 1", "what can stand there: rules, lookups"),
    ],
)
def test_load_of_a_mistake_says_what_would_be_right(tmp_path: pathlib.Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text))
    assert "job.toml" in str(caught.value)
    assert said in str(caught.value)
