"""Rules of others in nftables, from what `nft --json list ruleset` says: what becomes of a packet, who takes a port.

Tables that the iptables program keeps are left to it. As with its rules, one that looks at something else than
interface, protocol and port decides nothing. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labshell.forwarding.packets import ACCEPT, DEEPEST, DROP, Packet

OURS = "labshell"
OF_IPTABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
FAMILIES = frozenset({"ip", "inet"})
NARROWS_NOTHING = frozenset({"counter", "comment", "log", "limit"})
VERDICTS = {"accept": ACCEPT, "drop": DROP, "reject": DROP}
Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Chain:
    """One chain of others' with its rules."""

    family: str
    table: str
    name: str
    hook: str
    policy: str
    rules: Sequence[Rule]

    @property
    def path(self) -> str:
        """As the nft program takes it."""
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True)
class Redirection:
    """A rule that leads ports of this host elsewhere."""

    path: str
    handle: int
    ports: Collection[int]

    @property
    def removal(self) -> str:
        return f"nft delete rule {self.path} handle {self.handle}"


def chains(text: str) -> list[Chain]:
    """Every chain of others' that IPv4 may come through."""
    items = json.loads(text or "{}").get("nftables", [])
    rules = [item["rule"] for item in items if "rule" in item]
    return [
        Chain(
            found["family"],
            found["table"],
            found["name"],
            hook=found.get("hook", ""),
            policy=found.get("policy", "accept"),
            rules=[rule for rule in rules if _place(rule, "chain") == _place(found, "name")],
        )
        for found in (item["chain"] for item in items if "chain" in item)
        if found["family"] in FAMILIES
        and found["table"] != OURS
        and not (found["family"] == "ip" and found["table"] in OF_IPTABLES)
    ]


def _place(item: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    return item["family"], item["table"], item[key]


def dropping(found: Collection[Chain], packet: Packet) -> list[Chain]:
    """The chains at the host's input that drop a packet."""
    return [
        chain
        for chain in found
        if chain.hook == "input" and (_walked(found, chain, packet, 0) or VERDICTS.get(chain.policy, ACCEPT)) == DROP
    ]


def _walked(found: Collection[Chain], chain: Chain, packet: Packet, depth: int) -> str | None:
    for rule in chain.rules:
        statements = [statement for statement in rule.get("expr", []) if not NARROWS_NOTHING & set(statement)]
        *matches, last = statements or [{}]
        if not all(_matches(match, packet) for match in matches):
            continue
        word = next(iter(last), "")
        if word in VERDICTS:
            return VERDICTS[word]
        if word == "return":
            return None
        if word in ("jump", "goto") and depth < DEEPEST:
            target = (chain.family, chain.table, last[word]["target"])
            below = next((other for other in found if (other.family, other.table, other.name) == target), None)
            said = _walked(found, below, packet, depth + 1) if below else None
            if said or word == "goto":
                return said
    return None


def _matches(statement: Mapping[str, Any], packet: Packet) -> bool:
    match = statement.get("match")
    if not match or match.get("op") not in ("==", "in"):
        return False
    known = {"iifname": packet.interface, "l4proto": packet.protocol, "protocol": packet.protocol}
    left, right = match["left"], match["right"]
    if "meta" in left and left["meta"]["key"] in known:
        return known[left["meta"]["key"]] in _strings(right)
    payload = left.get("payload", {})
    if payload.get("field") == "dport" and payload.get("protocol") in (packet.protocol, "th"):
        return packet.port in _ports(right)
    return (
        payload.get("protocol") == "ip" and payload.get("field") == "protocol" and packet.protocol in _strings(right)
    )


def _strings(right: Any) -> list[str]:
    return list(right["set"]) if isinstance(right, dict) and "set" in right else [right]


def _ports(right: Any) -> set[int]:
    found: set[int] = set()
    for item in right["set"] if isinstance(right, dict) and "set" in right else [right]:
        if isinstance(item, int):
            found.add(item)
        elif isinstance(item, dict) and "range" in item:
            found |= set(range(item["range"][0], item["range"][1] + 1))
    return found


def redirections(found: Collection[Chain], ports: Collection[int]) -> Iterator[Redirection]:
    """Rules of others that lead some of these TCP ports of the host away."""
    for chain in found:
        for rule in chain.rules:
            statements = rule.get("expr", [])
            if not any({"dnat", "redirect", "tproxy"} & set(statement) for statement in statements):
                continue
            matches = [statement["match"] for statement in statements if "match" in statement]
            listed = [match["right"] for match in matches if _field(match) == "dport" and _protocol(match) != "udp"]
            taken = set(ports).intersection(*map(_ports, listed)) if listed else set()
            if taken:
                yield Redirection(chain.path, rule["handle"], sorted(taken))


def _field(match: Mapping[str, Any]) -> str:
    return str(match["left"].get("payload", {}).get("field", ""))


def _protocol(match: Mapping[str, Any]) -> str:
    return str(match["left"].get("payload", {}).get("protocol", ""))
