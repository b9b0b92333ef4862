"""labshell.toml: every key has a default, every mistake is named with its line."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from labshell import config
from labshell.config import Config
from labshell.errors import LabshellError

SHIPPED = Path(__file__).resolve().parents[2] / "etc/labshell.toml"


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    text = re.sub(r"^#(\w+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
    assert config.parse(text) == Config()
    shown = set(re.findall(r"^#(\w+) = ", SHIPPED.read_text(), re.MULTILINE))
    assert shown == {item.name for item in fields(Config)} - {"paths"}
    assert config.load(SHIPPED) == Config()


def test_a_missing_file_means_every_default(tmp_path: Path) -> None:
    assert config.load(tmp_path / "none.toml") == Config()


def test_values_are_taken() -> None:
    loaded = config.parse('hostname = "gpu1.lab"\nport_range = [30000, 30999]\nguard = false\nmemory = "64GiB"\n')
    assert (loaded.shown_hostname, loaded.port_range, loaded.guard, loaded.memory) == (
        "gpu1.lab",
        (30000, 30999),
        False,
        "64GiB",
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [("prot_range = [1, 2]", "no such key"), ('ssh_port = "22"', "must be a number"), ("ssh_port = true", "must be a number"),
     ("guard = 1", "must be true or false"), ("ssh_port = 0", "between 1 and 65535"), ("port_range = [5, 4]", "less than"),
     ("port_range = [1, 2, 3]", "two numbers"), ("port_range = 20000", "two numbers"), ("uid_range = [0, 10]", "between 1000"),
     ('forwarding = "magic"', "not possible"), ('memory = "lots"', "not possible"), ('network = "a/b"', "not possible"),
     ('guard_closed_networks = ["x"]', "x"), ("guard_closed_networks = 1", "list of networks"), ("[ssh_port]\na = 1", "must be a number")],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key_and_line(line: str, reason: str) -> None:
    with pytest.raises(LabshellError, match=reason) as caught:
        config.parse(f"# a comment\n\n{line}\n", "labshell.toml")
    assert "labshell.toml, line 3: " in str(caught.value)


@pytest.mark.parametrize("text", ["= 3", "a = ", "guard = true\nguard = false", "\x00"])
def test_a_file_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(LabshellError, match="not valid TOML"):
        config.parse(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labshell.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LabshellError, match="cannot be read"):
        config.load(path)
