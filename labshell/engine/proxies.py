"""Proxy devices of the engine: those that were made by hand, and ours where `forwarding` is "lxd-proxy".

Ours have `nat=true`, so the kernel moves the packets and the container sees who connects. They are named
labshell-port-PORT, and are derived like the rules of iptables: nothing else is kept in them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labshell.engine.client import Engine
from labshell.engine.errors import translate_errors
from labshell.errors import NoContainer
from labshell.model.forwards import Forward

log = logging.getLogger(__name__)
OWN = "labshell-port-"
Device = Mapping[str, str]


@dataclass(frozen=True)
class Proxy:
    """A proxy device that leads from a TCP port of the host into a container."""

    device: str
    port: int
    target: int


class Proxies:
    """The proxy devices of one engine's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ports_taken(self) -> set[int]:
        """Host ports that others' devices take."""
        return {
            port
            for instance in self._instances()
            for name, device in (instance.get("expanded_devices") or {}).items()
            if not name.startswith(OWN)
            for port in _ports(device, "listen")
        }

    def of(self, name: str) -> list[Proxy]:
        """Others' devices of a container that lead from a TCP port of the host into it."""
        with translate_errors(name, "be read"):
            devices = self._engine.read("instances", name)["expanded_devices"]
        found = []
        for key, device in devices.items():
            port, target = _port(device, "listen"), _port(device, "connect")
            if not key.startswith(OWN) and device.get("bind", "host") == "host" and port and target:
                found.append(Proxy(key, port, target))
        return sorted(found, key=lambda proxy: proxy.port)

    def remove(self, name: str, devices: Collection[str]) -> None:
        """Take devices away from a container, also those that come from a profile."""

        def change(_: object, local: dict[str, Any], __: object) -> None:
            local.update({device: {"type": "none"} for device in devices})

        if devices:
            self._engine.rewrite(name, change)

    def ours(self, address: str) -> list[Forward]:
        """The forwards that our devices make on this address of the host's."""
        return [
            _as_forward(instance["name"], name, device, address)
            for instance in self._instances()
            for name, device in _ours(instance["devices"]).items()
        ]

    def set_ours(self, name: str, wanted: Iterable[Forward], address: str) -> None:
        """Make our devices of one container those of `wanted`; nothing if there is no such container."""
        devices = {f"{OWN}{forward.port}": _device(forward, address) for forward in wanted}

        def change(_: object, local: dict[str, Any], __: object) -> None:
            for device in _ours(local):
                del local[device]
            local.update(devices)

        try:
            self._engine.rewrite(name, change)
        except NoContainer:
            log.info("no container for these forwards", extra={"container": name})

    def _instances(self) -> list[dict[str, Any]]:
        with translate_errors("", "be listed"):
            return self._engine.read_all("instances", recursion="1")


def drop_own(devices: dict[str, dict[str, str]]) -> None:
    """Without our own proxy devices, which hold the address that changes; they are made again when it is known."""
    for name in [name for name in devices if name.startswith(OWN)]:
        del devices[name]


def _ours(devices: Mapping[str, Device]) -> dict[str, Device]:
    return {name: device for name, device in devices.items() if name.startswith(OWN)}


def _device(forward: Forward, address: str) -> Device:
    return {
        "type": "proxy",
        "listen": f"tcp:{address}:{forward.port}",
        "connect": f"tcp:{forward.address}:{forward.target}",
        "nat": "true",
    }


def _as_forward(name: str, device: str, about: Device, address: str) -> Forward:
    """A device of ours as a value. One that is not in our form becomes a value that is never wanted."""
    port, target = _port(about, "listen"), _port(about, "connect")
    if port is not None and target is not None:
        forward = Forward(port, name, about["connect"].split(":")[1], target)
        if about == _device(forward, address) and device == f"{OWN}{port}":
            return forward
    return Forward(0, name, device, 0)


def _port(device: Device, side: str) -> int | None:
    """The TCP port of one side of a proxy device; None if it is another kind of device, or has several."""
    found = _ports(device, side)
    return found[0] if len(found) == 1 else None


def _ports(device: Device, side: str) -> list[int]:
    """The TCP ports of one side of a proxy device, "tcp:198.51.100.1:80,443-445"."""
    protocol, _, rest = device.get(side, "").partition(":")
    if device.get("type") != "proxy" or protocol != "tcp":
        return []
    spans = [part.partition("-") for part in rest.rpartition(":")[2].split(",")]
    return [
        port
        for first, _, last in spans
        if first.isdigit() and (last or first).isdigit()
        for port in range(int(first), int(last or first) + 1)
    ]
