"""The network that containers are on: the engine's own bridge, or one of the host's on the lab's own network.

On the engine's bridge every container has an address that we pin. On the lab's network the lab's own DHCP server
gives the address, so what is pinned there is the hardware address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from labshell.engine import records
from labshell.engine.client import Engine
from labshell.engine.errors import Missing, translate_errors
from labshell.errors import LabshellError
from labshell.host import machine
from labshell.model.addresses import name_on_host, name_on_host_by_address

ANY_BRIDGE = dict.fromkeys(records.FENCES, "true")
# Not security.ipv6_filtering, which needs the kernel module br_netfilter: `guard` lets no IPv6 pass on this bridge.
OWN_BRIDGE = {**ANY_BRIDGE, "security.ipv4_filtering": "true"}


@dataclass(frozen=True)
class Bridge:
    """The bridge the containers are on: `address` is the gateway's own there, with prefix: 10.83.0.1/24.

    `strangers` is what its DHCP server assigns: spans of addresses, "10.83.0.240-10.83.0.254", with
    commas between several; nothing if that is the whole network.
    """

    name: str
    address: str
    strangers: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)  # the engine's own

    @property
    def gateway(self) -> str:
        """The gateway's address without its prefix."""
        return self.address.partition("/")[0]


class Network:
    """One network of the host's."""

    def __init__(self, engine: Engine, name: str, *, is_labs_own: bool = False) -> None:
        """`is_labs_own`: a bridge of the host's that the engine does not manage."""
        self._engine = engine
        self.name = name
        self.is_labs_own = is_labs_own

    def bridge(self) -> Bridge:
        if self.is_labs_own:
            return Bridge(self.name, machine.address_of(self.name))
        with translate_errors("", "be read"):
            try:
                network = self._engine.read("networks", self.name)
            except Missing:
                raise LabshellError(
                    "engine-network-missing",
                    "The engine has no network {network}; set network in labshell.toml.",
                    network=self.name,
                ) from None
        settings = network.get("config", {})
        address = settings.get("ipv4.address", "none")
        if "/" not in address:
            raise LabshellError(
                "engine-network-without-address",
                "The network {network} has no IPv4 address of its own; forwarding needs one.",
                network=self.name,
            )
        return Bridge(self.name, address, settings.get("ipv4.dhcp.ranges", ""), settings)

    def leases(self) -> list[tuple[str, str]]:
        """Hardware address and IPv4 address of each lease of the engine's own DHCP server; "" for the gateway's."""
        if self.is_labs_own:
            return []
        with translate_errors("", "be read"):
            leases = self._engine.read_all("networks", self.name, "leases")
        return [(lease.get("hwaddr", ""), lease["address"]) for lease in leases if ":" not in lease["address"]]

    def believed(self, address: str | None) -> str | None:
        """An address that a container on the lab's own network says it has: root in there can say anything.

        Connections are made to it, so it must be one of that network's, and not the host's own.
        """
        if not address:
            return None
        bridge = ipaddress.IPv4Interface(self.bridge().address)
        said = ipaddress.IPv4Address(address)
        return address if said in bridge.network and said != bridge.ip else None

    def nic(self, address: str | None, hardware_address: str) -> dict[str, str]:
        """The device that connects a container. On the engine's bridge the address is pinned, if there is one."""
        if self.is_labs_own:
            on_host = name_on_host(hardware_address)
            parts = {"nictype": "bridged", "parent": self.name, "hwaddr": hardware_address, "host_name": on_host}
            return {"type": "nic", "name": "eth0", **parts, **ANY_BRIDGE}
        pin = {"ipv4.address": address, "host_name": name_on_host_by_address(address)} if address else {}
        return {"type": "nic", "name": "eth0", "network": self.name, **pin, **OWN_BRIDGE}
