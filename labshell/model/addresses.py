"""Addresses on the bridge, hardware addresses and the names of the host's veth interfaces. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from labshell.errors import LabshellError

OUR_CABLES = "labsh"


def choose_address(bridge: str, taken: Collection[str], strangers: str = "", *, is_last: bool = False) -> str:
    """The lowest free IPv4 address on a bridge, or the highest with `is_last`.

    `bridge` is the gateway's own address with its prefix, as LXD writes it: "10.83.0.1/24"; so are `strangers`, the
    spans that its DHCP server assigns: "10.83.0.240-10.83.0.254,10.83.0.20-10.83.0.29".
    """
    interface = ipaddress.IPv4Interface(bridge)
    used = {ipaddress.IPv4Address(address) for address in taken} | {interface.ip}
    spans = [span_of(span) for span in strangers.split(",") if span]
    first, last = (int(interface.network[at]) for at in (1, -2))
    for number in range(last, first - 1, -1) if is_last else range(first, last + 1):
        host = ipaddress.IPv4Address(number)
        if host not in used and not any(first <= host <= last for first, last in spans):
            return str(host)
    raise LabshellError(
        "bridge-addresses-exhausted", "The bridge {network} has no free address left.", network=interface.network
    )


def span_of(span: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    """The first and the last address of "10.83.0.240-10.83.0.254"."""
    first, _, last = span.partition("-")
    return ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address(last.strip())


def hardware_address(chosen: bytes) -> str:
    """A hardware address out of the range of containers' with three chosen bytes."""
    return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in chosen)


def name_on_host(hardware_address: str) -> str:
    """The name of the host's veth interface of a container, by which the guard knows it: 11 of 15 letters."""
    return OUR_CABLES + hardware_address.replace(":", "")[-6:]


def name_on_host_by_address(address: str) -> str:
    """The same on a bridge where each container has an address of its own: 13 of 15 letters, and no two alike."""
    return OUR_CABLES + ipaddress.IPv4Address(address).packed.hex()
