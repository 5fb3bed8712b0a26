"""job.toml: what it can say, and that mistakes name the file and the key."""

import pathlib

import pytest

from rowferry import config
from rowferry.errors import ConfigError


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
