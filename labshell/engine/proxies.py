"""Proxy devices of the engine: those that people have made by hand, and ours where `forwarding` is "lxd-proxy".

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
from labshell.errors import LabshellError, NoContainer
from labshell.model import forwards
from labshell.model.forwards import Difference, Forward

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

    def ours(self) -> dict[str, dict[str, Device]]:
        """Our devices, by container."""
        found = {instance["name"]: _ours(instance["devices"]) for instance in self._instances()}
        return {name: devices for name, devices in found.items() if devices}

    def set_ours(self, name: str, wanted: Mapping[str, Device]) -> None:
        """Make our devices of one container those in `wanted`; nothing if there is no such container."""

        def change(_: object, local: dict[str, Any], __: object) -> None:
            for device in _ours(local):
                del local[device]
            local.update(wanted)

        try:
            self._engine.rewrite(name, change)
        except NoContainer:
            log.info("no container for these forwards", extra={"container": name})

    def _instances(self) -> list[dict[str, Any]]:
        with translate_errors("", "be listed"):
            return self._engine.read_all("instances", recursion="1")


class ProxyForwarding:
    """Forwards as proxy devices: what `Forwarding` does with iptables, for the same callers."""

    can_limit_sources = False

    def __init__(self, proxies: Proxies, address: str) -> None:
        """`address` is the host's own that the devices listen on: with nat the engine takes no wildcard."""
        self._proxies = proxies
        self.address = address

    def live(self) -> list[Forward]:
        return [
            self._as_forward(name, device, about)
            for name, devices in self._proxies.ours().items()
            for device, about in devices.items()
        ]

    def packets(self, user: str) -> int | None:
        """The engine's rules count nothing."""
        return None

    def apply(self, wanted: Iterable[Forward]) -> Difference:
        """Make the devices those of `wanted`. A container that cannot be changed now does not keep the others."""
        wanted = [forward for forward in wanted if not forward.source]
        change = forwards.difference(self.live(), wanted)
        for user in sorted({forward.user for forward in (*change.remove, *change.add)}):
            try:
                self._write(user, wanted)
            except LabshellError as error:
                log.warning("forwards not changed", extra={"container": user, "why": str(error)})
        return change

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> Difference:
        wanted = [forward for forward in wanted if not forward.source]
        change = forwards.difference([forward for forward in self.live() if forward.user == user], wanted)
        if change:
            self._write(user, wanted)
        return change

    def remove_all(self) -> None:
        self.apply([])

    def _write(self, user: str, wanted: Iterable[Forward]) -> None:
        own = [forward for forward in wanted if forward.user == user]
        self._proxies.set_ours(user, {f"{OWN}{forward.port}": self._device(forward) for forward in own})

    def _device(self, forward: Forward) -> Device:
        return {
            "type": "proxy",
            "listen": f"tcp:{self.address}:{forward.port}",
            "connect": f"tcp:{forward.address}:{forward.target}",
            "nat": "true",
        }

    def _as_forward(self, name: str, device: str, about: Device) -> Forward:
        """A device of ours as a value. One that is not in our form becomes a value nobody wants."""
        port, target = _port(about, "listen"), _port(about, "connect")
        if port is not None and target is not None:
            forward = Forward(port, name, about["connect"].split(":")[1], target)
            if about == self._device(forward) and device == f"{OWN}{port}":
                return forward
        return Forward(0, name, device, 0)


def drop_own(devices: dict[str, dict[str, str]]) -> None:
    """Without our own proxy devices, which hold the address that changes; they are made again when it is known."""
    for name in [name for name in devices if name.startswith(OWN)]:
        del devices[name]


def _ours(devices: Mapping[str, Device]) -> dict[str, Device]:
    return {name: device for name, device in devices.items() if name.startswith(OWN)}


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
