"""The settings of a user's container, as an administrator writes them: in options, in a profile, in a row of a table.

A setting is a name and a text, so that all three say the same thing in the same words. Pure.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from labshell.config import CPU, SIZE
from labshell.errors import UsageError
from labshell.shown import bytes_of

ADDRESS_ON_PCI = re.compile(r"([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
PATH = re.compile(r"(/[A-Za-z0-9._+@-]+)+", re.ASCII)
GPU_INDEX = re.compile(r"[0-9]{1,3}", re.ASCII)
GPU_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)
NONE = "none"
GPU, MOUNT = "labshell-gpu", "labshell-mount"  # how the devices that are ours begin; others are left alone
SIZES = ("memory", "disk")
# With less systemd, its helpers and sshd do not come up: with 100 processes every unit failed on a stock Debian.
LEAST = {"memory": "128MiB", "processes": "200"}
DESKTOP = 3389  # where xrdp listens
DESKTOP_PORT = "desktop-port"
LIMITS = {"cpu": "limits.cpu", "memory": "limits.memory", "processes": "limits.processes"}


@dataclass(frozen=True)
class Setting:
    """One setting: an example for the error message, and what it is."""

    example: str
    about: str


SETTINGS = {
    "cpu": Setting("8, or 0-7", "CPU count (8) or CPU set (0-7)"),
    "memory": Setting("64GiB", "memory"),
    "disk": Setting("200GiB", "disk space, where the pool can limit it"),
    "processes": Setting("4096", "processes"),
    "gpus": Setting("0,1 or 0000:01:00.0 or all or none", "GPUs by number, UUID or PCI address"),
    "mounts": Setting("/data:/data or /data:/data:ro", "folders of the host"),
    "nesting": Setting("yes or no", "Docker inside the container"),
    DESKTOP_PORT: Setting("20019, or none", "one of the user's own ports, forwarded to a desktop (3389)"),
    "expires": Setting("2027-09-30, or none", "the last day on which the user may log in"),
}
PROFILE = "profile"


class NamedGpu(Protocol):
    """One GPU of the host by its names."""

    @property
    def address(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def index(self) -> int | None: ...
    @property
    def uuid(self) -> str: ...


@dataclass(frozen=True)
class Mount:
    """A folder of the host inside a container. `shift`: files are owned inside as they are outside."""

    source: str
    target: str
    is_read_only: bool = False
    shift: bool = True


def merged(
    profiles: Mapping[str, Mapping[str, str]], defaults: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """`given` before its profile before `defaults`, all checked."""
    given = dict(given)
    name = given.pop(PROFILE, "")
    if name and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise UsageError(
            "profile-missing",
            "There is no profile {name} in labshell.toml; there is: {known}",
            name=name,
            known=known,
        )
    return checked({**defaults, **profiles.get(name, {}), **given})


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """The settings, if each is one and possible; UsageError names the first that is not."""
    for name, text in given.items():
        if name not in SETTINGS:
            raise UsageError("setting-unknown", "There is no setting {name}; there is: {known}", name=repr(name)[:40],
                             known=", ".join(SETTINGS))  # fmt: skip
        if name in SIZES and NUMBER.fullmatch(text):
            raise UsageError(
                "setting-unit-missing",
                "{value} has no unit for {name}: write {value}GiB or {value}MiB.",
                value=text,
                name=name,
            )
        if name == "mounts" and not _is_possible(name, text):
            wrong = next(part for part in text.split(",") if not _mount(part))
            raise UsageError(
                "mount-invalid",
                "{value} is not possible for mounts: write {example}. Both are absolute paths, the host's first; "
                "--mount takes one, and can be repeated.",
                value=repr(wrong)[:60],
                example=SETTINGS[name].example,
            )
        if not _is_possible(name, text):
            raise UsageError(
                "setting-value-invalid",
                "{value} is not possible for {name}: write {example}.",
                value=repr(text)[:60],
                name=name,
                example=SETTINGS[name].example,
            )
        if name in LEAST and text not in ("", NONE) and _amount(text) < _amount(LEAST[name]):
            raise UsageError(
                "setting-too-small",
                "{value} is too little for {name}: a container does not boot with less than {least}.",
                value=text,
                name=name,
                least=LEAST[name],
            )
    return dict(given)


def _amount(text: str) -> int:
    """A size in bytes, or a number."""
    return int(text) if text.isdigit() else bytes_of(text) or 0


def _is_gpu(text: str) -> bool:
    return any(form.fullmatch(text) for form in (ADDRESS_ON_PCI, GPU_INDEX, GPU_UUID))


def addresses_of_gpus(text: str, installed: Sequence[NamedGpu]) -> str:
    """The setting `gpus` with every GPU by its address on PCI; UsageError names the first that the host lacks."""
    if text in ("", NONE, "all"):
        return text
    by_name: dict[str, str] = {}
    for gpu in installed:
        by_name[gpu.address] = by_name[gpu.address.removeprefix("0000:")] = gpu.address
        by_name |= {str(gpu.index): gpu.address} if gpu.index is not None else {}
        by_name |= {gpu.uuid.lower(): gpu.address} if gpu.uuid else {}
    found = []
    for part in text.split(","):
        name = part.lower()
        address = by_name.get(str(int(name)) if GPU_INDEX.fullmatch(name) else name)
        if address is None:
            names = ", ".join(map(_name_of_gpu, installed)) or "none"
            raise UsageError(
                "gpu-missing-on-host", "There is no GPU {gpu}; this host has: {known}", gpu=part, known=names
            )
        found.append(address)
    return ",".join(dict.fromkeys(found))


def _name_of_gpu(gpu: NamedGpu) -> str:
    return gpu.address if gpu.index is None else f"{gpu.index} ({gpu.model}, {gpu.address})"


def _is_possible(name: str, text: str) -> bool:
    if text in ("", NONE) and name != "nesting":
        return True
    if name == "gpus":
        return text == "all" or all(_is_gpu(part) for part in text.split(","))
    if name == "mounts":
        return all(_mount(part) for part in text.split(","))
    if name == "nesting":
        return text in ("yes", "no")
    if name == "expires":
        return date_of(text) is not None
    pattern = {"cpu": CPU, "memory": SIZE, "disk": SIZE}.get(name, NUMBER)
    return bool(pattern.fullmatch(text))


def refuse_more_processors(cpu: str, there: int) -> None:
    """Refuse a limit that names processors this host has not got."""
    if cpu in ("", NONE):
        return
    wanted = int(cpu.rpartition("-")[2]) + ("-" in cpu)
    if wanted > there:
        raise UsageError(
            "cpu-not-on-host", "cpu {cpu} is not possible: this host has {count} processors.", cpu=cpu, count=there
        )


def date_of(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def mounts_of(settings: Mapping[str, str]) -> list[Mount]:
    """The folders of the host that a container gets."""
    text = settings.get("mounts", "")
    return [mount for part in text.split(",") if text not in ("", NONE) and (mount := _mount(part))]


def _mount(text: str) -> Mount | None:
    source, _, rest = text.partition(":")
    target, *flags = rest.split(":")
    if not PATH.fullmatch(source) or not PATH.fullmatch(target) or ".." in f"{source}/{target}".split("/"):
        return None
    if set(flags) - {"ro", "noshift"} or target in ("/", "/etc", "/usr", "/proc", "/sys", "/dev", "/run"):
        return None
    return Mount(source, target, "ro" in flags, "noshift" not in flags)


def engine_config(settings: Mapping[str, str], *, nvidia_runtime: bool) -> dict[str, str]:
    """The engine's config keys that these settings decide; an empty value takes a key away."""
    config = {LIMITS[name]: _value(text) for name, text in settings.items() if name in LIMITS}
    if "nesting" in settings:
        config["security.nesting"] = "true" if settings["nesting"] == "yes" else "false"
    if "gpus" in settings and nvidia_runtime:
        wanted = bool(_value(settings["gpus"]))
        config["nvidia.runtime"] = "true" if wanted else ""
        config["nvidia.driver.capabilities"] = "all" if wanted else ""
    return config


def engine_devices(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The engine's devices of ours that these settings ask for, by name."""
    devices = {}
    gpus = _value(settings.get("gpus", ""))
    for number, address in enumerate(gpus.split(",") if gpus else []):
        which = {} if address == "all" else {"pci": address if address.count(":") == 2 else f"0000:{address}"}
        devices[f"{GPU}{number}"] = {"type": "gpu", "gputype": "physical", **which}
    for number, mount in enumerate(mounts_of(settings)):
        device = {"type": "disk", "source": mount.source, "path": mount.target, "required": "false"}
        if mount.is_read_only:
            device["readonly"] = "true"
        if mount.shift:
            device["shift"] = "true"
        devices[f"{MOUNT}{number}"] = device
    return devices


def replaced_devices(settings: Mapping[str, str]) -> tuple[str, ...]:
    """How the names of those devices begin that these settings replace."""
    return tuple(prefix for name, prefix in (("gpus", GPU), ("mounts", MOUNT)) if name in settings)


def disk_size(settings: Mapping[str, str]) -> str | None:
    """The size of the root disk; empty for no limit, None if nothing is said of it."""
    return _value(settings["disk"]) if "disk" in settings else None


def gpus_in(devices: Collection[Mapping[str, str]]) -> str:
    """The GPUs that a container's devices give it, as the setting is written."""
    addresses = [device.get("pci") or "all" for device in devices if device.get("type") == "gpu"]
    return ",".join(addresses) or NONE


def mounts_in(devices: Mapping[str, Mapping[str, str]]) -> str:
    """The folders of the host that a container's devices give it, as the setting is written."""
    ours = [devices[name] for name in sorted(devices, key=lambda name: (len(name), name)) if name.startswith(MOUNT)]
    return ",".join(map(_written_mount, ours))


def _written_mount(device: Mapping[str, str]) -> str:
    flags = (":ro" if device.get("readonly") else "") + ("" if device.get("shift") == "true" else ":noshift")
    return f"{device.get('source')}:{device.get('path')}{flags}"


def _value(text: str) -> str:
    return "" if text == NONE else text
