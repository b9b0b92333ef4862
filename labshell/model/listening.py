"""From how far a port of a container is answered, by the kernel's tables of TCP sockets. Pure."""

from __future__ import annotations

import ipaddress
from typing import Literal

Listens = Literal["everywhere", "localhost", "nowhere"]
LISTEN = "0A"  # the state in /proc/net/tcp: TCP_LISTEN of the kernel's include/net/tcp_states.h


def in_tables(text: str) -> dict[int, Listens]:
    """Who reaches each port on which something listens, by lines of /proc/net/tcp and tcp6."""
    found: dict[int, Listens] = {}
    for line in text.splitlines():
        columns = line.split()
        if len(columns) > 3 and columns[3] == LISTEN:
            address, _, port = columns[1].partition(":")
            if not _address(address).is_loopback:
                found[int(port, 16)] = "everywhere"
            else:
                found.setdefault(int(port, 16), "localhost")
    return found


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as those tables have it: 32-bit words in the order of the host's bytes, here the lowest first."""
    packed = b"".join(bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8))
    address = ipaddress.ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address
