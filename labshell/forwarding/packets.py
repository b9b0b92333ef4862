"""What becomes of a packet in rules of others, as iptables-save writes them; and which rules take a port away. Pure.

A rule that looks at something else than interface, protocol and port (a source, a state) is passed by: about the
first packet of whoever it may be it decides nothing.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labshell.forwarding.rules import OUR_CHAIN, PORT_LIST, Saved, numbers

ACCEPT, DROP = "ACCEPT", "DROP"
ENDS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP}
REDIRECTION = re.compile(r"-j (?:DNAT --to-destination (?P<to>\S+)|REDIRECT|NETMAP|TPROXY)")
MATCHES = {"-i", "-p", "--dport", "--dports"}
HARMLESS = {"-m", "--comment", "-g", "-j", "--reject-with"}  # with their words they narrow nothing
LOGS = {"LOG", "NFLOG", "TRACE"}
DEEPEST = 16


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection to this host."""

    interface: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Redirection:
    """A rule that leads ports of this host elsewhere; `rule` as iptables-save has it, without "-A CHAIN "."""

    chain: str
    rule: str
    ports: Collection[int]
    to: str  # empty where it does not say

    @property
    def removal(self) -> str:
        """What the iptables program is told to take it away."""
        return f"-t nat -D {self.chain} {self.rule}"


def verdict(saved: Saved, chain: str, packet: Packet) -> str:
    """ACCEPT or DROP: what the filter table says of a packet; ACCEPT where there is no such chain."""
    chains = saved.chains("filter")
    return _walked(chains, chain, packet, 0) or saved.policies.get(("filter", chain), ACCEPT)


def _walked(chains: Mapping[str, Sequence[str]], chain: str, packet: Packet, depth: int) -> str | None:
    """What a chain says of a packet; None if nothing, or if it returns."""
    for rule in chains.get(chain, ()):
        words = shlex.split(rule)
        if not _matches(words, packet):
            continue
        target = next((after for word, after in itertools.pairwise(words) if word in ("-j", "-g")), "")
        if target == "RETURN":
            return None
        if target in ENDS:
            return ENDS[target]
        found = _walked(chains, target, packet, depth + 1) if depth < DEEPEST else None
        if found or "-g" in words:
            return found
    return None


def _matches(words: Sequence[str], packet: Packet) -> bool:
    """Whether a rule is surely about this packet."""
    position = 0
    while position < len(words):
        word = words[position]
        is_not = word == "!"
        position += is_not
        word, value = words[position], words[position + 1] if position + 1 < len(words) else ""
        if word in MATCHES:
            if _is_true(word, value, packet) == is_not:
                return False
        elif word not in HARMLESS or (word == "-j" and value in LOGS):
            return False
        position += 2
        if word == "-m" and value == "addrtype" and words[position : position + 2] == ["--dst-type", "LOCAL"]:
            position += 2
    return True


def _is_true(word: str, value: str, packet: Packet) -> bool:
    if word == "-i":
        return packet.interface.startswith(value[:-1]) if value.endswith("+") else packet.interface == value
    if word == "-p":
        return value in (packet.protocol, "all")
    return packet.port in numbers(value)


def redirections(saved: Saved, ports: Collection[int]) -> Iterator[Redirection]:
    """Rules of others that lead some of these TCP ports of the host away; one without a port leads all of them."""
    for chain, rules in saved.chains("nat").items():
        if OUR_CHAIN.fullmatch(chain) or chain == "POSTROUTING":
            continue
        for rule in rules:
            found, listed = REDIRECTION.search(rule), PORT_LIST.search(rule)
            if not found or "-p udp" in rule or (not listed and "-d " in rule):
                continue
            taken = set(ports) & numbers(listed.group(1)) if listed else set(ports)
            if taken:
                yield Redirection(chain, rule, sorted(taken), found["to"] or "")
