"""The kernel's table of connections, which the host and all containers share: how much of it a container may fill.

Root in a container can forge both ends of a connection through its own forwarded ports, and the entry of an
established one stays for five days. So a container has at most CONNECTIONS of them in each direction, counted by the
kernel at every packet that would make an entry, before any rule accepts it. The kernel does not count closed ones;
those are bounded by the rate of new ones and by the seconds that they stay. A question to the host's DNS server makes
an entry of the host's own, so these have a rate, too.

The rules are a table of their own: a table that is loaded again counts from zero.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

TABLE = "labshell-limits"
CONNECTIONS = 4096
NEW_A_SECOND, NEW_AT_ONCE = 500, 5000
QUESTIONS_A_SECOND, QUESTIONS_AT_ONCE = 200, 1000
CLOSED_SECONDS, KERNELS_CLOSED_SECONDS = 10, 120  # how long an entry stays when its connection is closed (TIME_WAIT)
CLOSED_SETTING = "net/netfilter/nf_conntrack_tcp_timeout_time_wait"
NO_LIMITS = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
NETFILTER = 12
# From linux/netfilter/nfnetlink_conntrack.h.
DELETE, REQUEST_AND_ACKNOWLEDGE = 1 << 8 | 2, 0x5
TUPLE, IP, SOURCE, FILTER, FLAGS = {"origin": 1, "reply": 2}, 1, 1, 25, {"origin": 1, "reply": 2}
BY_SOURCE = 1
NESTED = 0x8000
NO_ENTRY = 2  # ENOENT


def limits(bridge: str) -> str:
    """The table as text for `nft -f`.

    A container's requests for an address come from 0.0.0.0 and would all be counted together, so they make no entry.
    A connection between two containers counts for the one that opens it.
    """
    sets = "".join(
        f"\n  set {name} {{\n    type ipv4_addr\n    size 65536\n    flags dynamic\n  }}"
        for name in ("questions", "new-from", "new-to", "open-from", "open-to")
    )
    questions = f"add @questions {{ {_rate('saddr', QUESTIONS_A_SECOND, QUESTIONS_AT_ONCE)} }} drop"
    too_many_from = _too_many(f'iifname "{bridge}"', "saddr", "from")
    return f"""{NO_LIMITS}table inet {TABLE} {{{sets}
  chain untracked {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip saddr 0.0.0.0 notrack
  }}
  chain to-host {{
    type filter hook input priority -10; policy accept;
    iifname "{bridge}" meta l4proto {{ tcp, udp }} th dport 53 {questions}
    {too_many_from}
  }}
  chain through-host {{
    type filter hook forward priority -10; policy accept;
    {too_many_from}
    {_too_many(f'iifname != "{bridge}" oifname "{bridge}"', "daddr", "to")}
  }}
}}
"""


def _too_many(packets: str, side: str, name: str) -> str:
    """The rate stands first: the kernel looks through all open ones to count them."""
    new = f"{packets} ct state new add"
    rate = _rate(side, NEW_A_SECOND, NEW_AT_ONCE)
    return f"""{new} @new-{name} {{ {rate} }} drop
    {new} @open-{name} {{ ip {side} ct count over {CONNECTIONS} }} drop"""


def _rate(side: str, a_second: int, at_once: int) -> str:
    return f"ip {side} limit rate over {a_second}/second burst {at_once} packets"


def forget(address: str) -> None:
    """Delete the entries of every connection from or to this container; OSError if the kernel refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.bind((0, 0))
        for side in TUPLE:
            kernel.send(_request(side, ipaddress.IPv4Address(address)))
            error = -struct.unpack_from("=i", kernel.recv(4096), 16)[0]
            if error not in (0, NO_ENTRY):
                raise OSError(error, os.strerror(error), address)


def _request(side: str, source: ipaddress.IPv4Address) -> bytes:
    """A netlink message: delete the entries whose packets of the origin, or of the reply, come from `source`.

    A kernel before 5.8 knows no such filter, and refuses the message for its incomplete tuple.
    """
    tuples = _attribute(TUPLE[side] | NESTED, _attribute(IP | NESTED, _attribute(SOURCE, source.packed)))
    wanted = {name: struct.pack("=I", BY_SOURCE if name == side else 0) for name in FLAGS}
    flags = b"".join(_attribute(FLAGS[name], value) for name, value in wanted.items())
    content = struct.pack("=BBH", socket.AF_INET, 0, 0) + tuples + _attribute(FILTER | NESTED, flags)
    return struct.pack("=IHHII", 16 + len(content), DELETE, REQUEST_AND_ACKNOWLEDGE, 1, 0) + content


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)
