"""Configuration: one frozen value, read once from /etc/labshell/labshell.toml and passed down.

Every key has a default. An unknown key, a wrong type or a value out of range is an error that names the key
and its line, never a guess.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from labshell import places
from labshell.errors import LabshellError
from labshell.language import LANGUAGES

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - Python 3.10
    import tomli as tomllib

GROUP = "labshell"
FORWARDING_KINDS = ("iptables", "lxd-proxy", "none")


@dataclass(frozen=True)
class Paths:
    """Where things lie. Not configurable on a lab's machine; tests point it elsewhere."""

    public: Path = Path(places.PUBLIC)
    keys: Path = Path(places.KEYS)
    run: Path = Path(places.RUN)
    state: Path = Path(places.STATE)
    homes: Path = Path("/home")

    @property
    def host_keys(self) -> Path:
        """The containers' SSH host keys, private ones too, by user."""
        return self.state / "host-keys"

    @property
    def next_port(self) -> Path:
        return self.public / "next-port"

    @property
    def ports(self) -> Path:
        return self.public / Path(places.PORTS).name

    @property
    def user_socket(self) -> Path:
        return self.run / Path(places.USER_SOCKET).name

    @property
    def admin_socket(self) -> Path:
        return self.run / Path(places.ADMIN_SOCKET).name

    @property
    def language_file(self) -> Path:
        return self.run / Path(places.LANGUAGE_FILE).name


@dataclass(frozen=True)
class Config:
    """Every key of labshell.toml with its default; the comments are in etc/labshell.toml."""

    hostname: str = ""
    ssh_port: int = 22
    language: str = ""

    engine_socket: str = ""
    network: str = "lxdbr0"
    pool: str = ""
    template: str = "template"

    port_range: tuple[int, int] = (20000, 29999)
    ports_per_user: int = 10
    port_quarantine_days: int = 30
    uid_range: tuple[int, int] = (30000, 59999)

    forwarding: str = "iptables"
    outside_interface: str = ""
    listen_address: str = ""
    guard: bool = True
    guard_closed_networks: tuple[str, ...] = ("169.254.0.0/16",)
    guard_open_networks: tuple[str, ...] = ()

    cpu: str = ""
    memory: str = ""
    disk: str = ""
    processes: int = 4096
    nvidia_runtime: bool = False
    profile: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    archive: str = places.ARCHIVE
    snapshots_per_user: int = 3

    idle_stop_days: int = 0
    keep_days: int = 30

    parallel_starts: int = 4
    start_timeout_seconds: int = 50
    stop_timeout_seconds: int = 30
    reconcile_seconds: int = 30
    menu_idle_minutes: int = 60

    paths: Paths = field(default_factory=Paths)

    @property
    def has_ports(self) -> bool:
        """Whether host ports lead to the containers; else they have addresses on the lab's own network."""
        return self.forwarding != "none"

    @property
    def shown_hostname(self) -> str:
        return self.hostname or socket.gethostname()


KEYS = {item.name for item in fields(Config)} - {"paths"}
LIMITS = {
    "ssh_port": (1, 65535),
    "ports_per_user": (1, 1000),
    "port_quarantine_days": (0, 36500),
    "processes": (64, 1_000_000),
    "snapshots_per_user": (0, 1000),
    "idle_stop_days": (0, 3650),
    "keep_days": (1, 366),
    "parallel_starts": (1, 1000),
    "start_timeout_seconds": (1, 3600),
    "stop_timeout_seconds": (1, 3600),
    "reconcile_seconds": (1, 86400),
    "menu_idle_minutes": (1, 100_000),
}
RANGES = {"port_range": (1024, 65535), "uid_range": (1000, 2_000_000_000)}
PROFILE_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
SIZE = re.compile(r"[1-9][0-9]{0,8}(MiB|GiB|TiB|MB|GB|TB)")
CPU = re.compile(r"[1-9][0-9]{0,4}|[0-9]{1,4}-[0-9]{1,4}")
PATTERNS = {
    "hostname": re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)?"),
    "language": re.compile("|".join(("", *LANGUAGES))),
    "engine_socket": re.compile(r"(/[A-Za-z0-9._/-]{1,100})?"),
    "network": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"),
    "pool": re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?"),
    "archive": re.compile(r"(/[A-Za-z0-9._-]{1,100}){1,20}", re.ASCII),
    "template": re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]"),
    "listen_address": re.compile(r"([0-9]{1,3}(\.[0-9]{1,3}){3})?", re.ASCII),
    "outside_interface": re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,14})?"),
    "forwarding": re.compile("|".join(FORWARDING_KINDS)),
    "cpu": re.compile(f"({CPU.pattern})?"),
    "memory": re.compile(f"({SIZE.pattern})?"),
    "disk": re.compile(f"({SIZE.pattern})?"),
}

OWN_FOLDERS = tuple(
    f"{folder}/" for folder in (places.ETC, places.OPT, places.RUN, places.STATE, places.LOG, places.PORTS)
)


def load(path: Path = Path(places.CONFIG_FILE)) -> Config:
    """Read `path`; a missing file means every default."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise LabshellError("file-unreadable", "{path} cannot be read: {why}.", path=path, why=error) from error
    return parse(text, str(path))


def parse(text: str, source: str = "labshell.toml") -> Config:
    """The configuration that `text` (TOML) describes. `source` is named in errors."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LabshellError(
            "config-not-toml", "{source} is not valid TOML: {why}.", source=source, why=error
        ) from error
    values = {}
    for key, value in table.items():
        try:
            values[key] = _checked(key, value)
        except ValueError as error:
            raise LabshellError(
                "config-value-invalid",
                "{source}, line {line}: {key}: {why}.",
                source=source,
                line=_line_of(key, text),
                key=key,
                why=error,
            ) from None
    return Config(**values)


def _checked(key: str, value: Any) -> Any:
    """`value` as the field `key` holds it, or ValueError with the reason."""
    if key not in KEYS:
        raise ValueError("there is no such key")
    if key == "profile":
        return _checked_profiles(value)
    default = getattr(Config, key)
    if isinstance(default, tuple):
        return _checked_tuple(key, value)
    if type(value) is not type(default):
        raise ValueError(f"this must be {_kind(default)}, not {_kind(value)}")
    if key in LIMITS:
        low, high = LIMITS[key]
        if not low <= value <= high:
            raise ValueError(f"this must lie between {low} and {high}")
    if key in PATTERNS and not PATTERNS[key].fullmatch(value):
        raise ValueError(f"{value!r} is not possible here")
    if key == "archive" and not _survives_uninstall(value):
        raise ValueError("this lies in a folder that uninstall deletes")
    if key == "listen_address" and value:
        ipaddress.IPv4Address(value)
    return value


def _survives_uninstall(folder: str) -> bool:
    """Whether archives in there are still there when labshell is gone."""
    path = os.path.normpath(folder) + "/"
    return path.startswith(f"{Config.archive}/") or not path.startswith(OWN_FOLDERS)


def _checked_tuple(key: str, value: Any) -> tuple[Any, ...]:
    if key in RANGES:
        low, high = RANGES[key]
        if not (isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value)):
            raise ValueError("this must be two numbers, [first, last]")
        if not low <= value[0] < value[1] <= high:
            raise ValueError(f"the first must be less than the last, both between {low} and {high}")
        return tuple(value)
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ValueError("this must be a list of networks")
    networks = [ipaddress.ip_network(item) for item in value]
    for network in networks:
        if network.version != 4:
            raise ValueError(f"{network} is not an IPv4 network, and the rules are IPv4's")
    return tuple(map(str, networks))


def _checked_profiles(value: Any) -> dict[str, dict[str, str]]:
    """Named sets of settings; what the settings are is checked where they are used."""
    if not isinstance(value, dict):
        raise ValueError("this must be tables: [profile.phd]")
    for name, table in value.items():
        if not PROFILE_NAME.fullmatch(name) or not isinstance(table, dict):
            raise ValueError(f"{name!r} is not a profile: write [profile.phd]")
        for key, text in table.items():
            if type(text) not in (str, int):
                raise ValueError(f"{key} of {name!r} must be a text or a number, not {_kind(text)}")
    return {name: {key: str(text) for key, text in table.items()} for name, table in value.items()}


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", str: "a text", float: "a decimal number", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date")


def _line_of(key: str, text: str) -> int:
    """The line on which `key` is set: tomllib does not say."""
    pattern = re.compile(rf"""\s*\[{{0,2}}\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return 1
