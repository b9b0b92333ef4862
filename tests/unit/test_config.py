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
SINGLE = sorted(config.KEYS - {"profile"})  # which is tables


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    text = re.sub(r"^#(\w+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
    assert config.parse(text) == Config()
    shown = set(re.findall(r"^#(\w+) = ", SHIPPED.read_text(), re.MULTILINE))
    assert shown == {item.name for item in fields(Config)} - {"paths", "profile"}
    assert config.load(SHIPPED) == Config()


@pytest.mark.parametrize("key", SINGLE)
def test_the_shipped_file_shows_a_key_once_as_a_comment_with_its_default(key: str) -> None:
    lines = re.findall(rf"^#({key} = .*)$", SHIPPED.read_text(), re.MULTILINE)
    assert len(lines) == 1
    [(taken, value)] = config.tomllib.loads(lines[0]).items()
    default = getattr(Config(), key)
    assert taken == key
    assert (tuple(value) if isinstance(value, list) else value) == default
    assert type(value) is (list if isinstance(default, tuple) else type(default))


def test_profiles_are_tables_of_texts_and_numbers() -> None:
    example = "".join(re.findall(r"^#   (.*\n)", SHIPPED.read_text(), re.MULTILINE))
    wanted = {"cpu": "16", "memory": "128GiB", "gpus": "all", "mounts": "/data:/data:ro"}
    assert config.parse(example).profile == {"phd": wanted}
    for text in (
        "profile = 1",
        "[profile]\nphd = 1",
        "[profile.PHD]\ncpu = 1",
        "[profile.phd]\ncpu = 1.5",
        "[[profile]]",
    ):
        with pytest.raises(LabshellError, match="line 1: profile: "):
            config.parse(text)


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
     ('archive = "/var/lib/labshell/archives"', "uninstall"), ('archive = "/srv/../opt/labshell/kept"', "uninstall"),
     ('guard_closed_networks = ["x"]', "x"), ("guard_closed_networks = 1", "list of networks"), ("[ssh_port]\na = 1", "must be a number")],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key_and_line(line: str, reason: str) -> None:
    with pytest.raises(LabshellError, match=reason) as caught:
        config.parse(f"# a comment\n\n{line}\n", "labshell.toml")
    assert "labshell.toml, line 3: " in str(caught.value)


WRONG = {str: "1", int: '"1"', bool: '"true"', tuple: '"10.0.0.0/8"'}


@pytest.mark.parametrize("key", SINGLE)
def test_a_wrong_type_is_named_with_its_key_and_line(key: str) -> None:
    wrong = {WRONG[type(getattr(Config(), key))], "1.5", "1979-05-27", "[true]", "{ a = 1 }", "[[1, 2]]"}
    for value in sorted(wrong):
        with pytest.raises(LabshellError) as caught:
            config.parse(f"# {key} = 1\n\n{key} = {value}\n", "/etc/x.toml")
        assert str(caught.value).startswith(f"/etc/x.toml, line 3: {key}: this must be ")


@pytest.mark.parametrize("key", sorted(config.LIMITS))
def test_a_number_is_taken_within_its_limits_and_refused_beyond_them(key: str) -> None:
    low, high = config.LIMITS[key]
    for value in (low, high):
        assert getattr(config.parse(f"{key} = {value}"), key) == value
    for value in (low - 1, high + 1, -(10**30), 10**30):
        with pytest.raises(LabshellError, match=f"line 1: {key}: this must lie between {low} and {high}"):
            config.parse(f"{key} = {value}")


@pytest.mark.parametrize("key", sorted(config.RANGES))
def test_a_range_is_taken_within_its_limits_and_refused_beyond_them(key: str) -> None:
    low, high = config.RANGES[key]
    assert getattr(config.parse(f"{key} = [{low}, {high}]"), key) == (low, high)
    for first, last in ((low - 1, high), (low, high + 1), (high, low), (low, low)):
        with pytest.raises(LabshellError, match=f"line 1: {key}: the first must be less than the last"):
            config.parse(f"{key} = [{first}, {last}]")
    for value in ("[]", "[20000]", '["20000", "20001"]', "[20000, 20001.0]", "[true, 20001]"):
        with pytest.raises(LabshellError, match=f"line 1: {key}: this must be two numbers"):
            config.parse(f"{key} = {value}")


def test_every_number_has_limits_every_range_too_and_every_text_a_pattern() -> None:
    kinds: dict[type, set[str]] = {}
    for key in config.KEYS:
        kinds.setdefault(type(getattr(Config(), key)), set()).add(key)
    assert kinds[int] == set(config.LIMITS)
    assert kinds[str] == set(config.PATTERNS)
    assert kinds[tuple] == {*config.RANGES, "guard_closed_networks", "guard_open_networks"}


@pytest.mark.parametrize("key", sorted(config.PATTERNS))
@pytest.mark.parametrize("value", ["a b", "../etc", "a\\nb", "-x", "$(id)", "a\\u0000", "x" * 300, "\\u0661", "a\\n"])
def test_no_text_can_be_more_than_a_name(key: str, value: str) -> None:
    with pytest.raises(LabshellError, match=f"line 1: {key}: .* is not possible here"):
        config.parse(f'{key} = "{value}"')


@pytest.mark.parametrize(
    ("key", "value"),
    [("hostname", "gpu1.lab.example.org"), ("engine_socket", "/var/snap/lxd/common/lxd/unix.socket"), ("network", "br-lab.0"), ("pool", "fast_1"),
     ("template", "cuda-12"), ("outside_interface", "enp3s0.100"), ("forwarding", "iptables"), ("cpu", "8"), ("cpu", "0-7"), ("memory", "64GiB"), ("disk", "1TB")],
)  # fmt: skip
def test_a_possible_text_is_taken(key: str, value: str) -> None:
    assert getattr(config.parse(f'{key} = "{value}"'), key) == value


@pytest.mark.parametrize("key", ["guard_closed_networks", "guard_open_networks"])
def test_networks_are_taken_and_refused_with_the_one_that_is_none(key: str) -> None:
    loaded = config.parse(f'{key} = ["10.0.0.0/8", "192.0.2.7"]')
    assert getattr(loaded, key) == ("10.0.0.0/8", "192.0.2.7/32")
    assert getattr(config.parse(f"{key} = []"), key) == ()
    # IPv6: the rules are IPv4's, and nft would refuse all of them for one network of the other family.
    for network in ("10.0.0.1/8", "10.0.0.0/33", "storage", "", "fd00::/8"):
        with pytest.raises(LabshellError, match=f"line 1: {key}: .*{network}"):
            config.parse(f'{key} = ["10.0.0.0/8", "{network}"]')


@pytest.mark.parametrize(
    "line",
    ["extra = 1", '"extra" = 1', "  extra=1", "[extra]\na = 1", "extra.a = 1", "paths = 1", "[paths]\nrun = '/tmp'"],
)
def test_an_unknown_key_is_named_with_its_line_however_it_is_written(line: str) -> None:
    key = "paths" if "paths" in line else "extra"
    with pytest.raises(LabshellError, match=f"line 4: {key}: there is no such key"):
        config.parse(f"# extra = 0\n# paths = 0\nssh_port = 22\n{line}\n")


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "labshell.toml"
    for text in ("a = ", "extra = 1\n", "ssh_port = 0\n"):
        path.write_text(text)
        with pytest.raises(LabshellError, match=re.escape(str(path))):
            config.load(path)
    with pytest.raises(LabshellError, match=re.escape(str(tmp_path)) + " cannot be read"):
        config.load(tmp_path)


def test_broken_toml_is_refused_with_its_line() -> None:
    with pytest.raises(LabshellError, match=r"not valid TOML: .*line 2"):
        config.parse("guard = true\nguard = = false\n")


@pytest.mark.parametrize("text", ["= 3", "a = ", "guard = true\nguard = false", "\x00"])
def test_a_file_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(LabshellError, match="not valid TOML"):
        config.parse(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labshell.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LabshellError, match="cannot be read"):
        config.load(path)
