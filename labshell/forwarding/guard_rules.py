"""The text of the guard's nftables tables: what containers may reach, on either kind of bridge."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

from labshell.model.addresses import OUR_CABLES

TABLE = "labshell"
# DISCOVER, REQUEST and INFORM, as the first option (RFC 2131, offset 240). Not DECLINE and RELEASE: they say
# whose address is meant by a hardware address in the message, which may be another container's.
DHCP_REQUESTS = "@th,1984,24 { 0x350101, 0x350103, 0x350108 }"
# Every frame but IPv4 and ARP is dropped at the containers' ports of the bridge; one with a VLAN tag is neither.
ONLY_IPV4 = f"""
  chain arriving {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{OUR_CABLES}*" ether type != {{ ip, arp }} drop
  }}
  chain leaving {{
    type filter hook postrouting priority 300; policy accept;
    oifname "{OUR_CABLES}*" ether type != {{ ip, arp }} drop
  }}"""
FAMILIES = ("inet", "bridge")
# `forwarding` may have been changed since: a table that is not wanted any more is deleted.
NO_TABLE = "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in FAMILIES)


@dataclass(frozen=True)
class Networks:
    """What containers may never reach, and what they may though it would be closed automatically."""

    never: Collection[str] = ()
    may: Collection[str] = ()


@dataclass(frozen=True)
class Surroundings:
    """What is closed automatically on a host as it is now: these servers, and all that is not reached by `ways_out`.

    Without an uplink nothing says which interface leads where, and none is closed.
    """

    ways_out: Collection[str] = ()
    servers: Collection[str] = ()


def rules(bridge: str, networks: Networks, around: Surroundings, *, closed: bool) -> str:
    """The tables for the engine's own bridge, as text for `nft -f`: replaced as a whole, so never half there.

    The loopback rule is there even with the guard off: without it, letting the host itself reach forwarded
    ports on 127.0.0.1 would open the host's loopback services to containers. So are the rules that let only IPv4
    pass.
    """
    guard = f"""
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname "{bridge}" udp dport 67 {DHCP_REQUESTS} accept
    iifname "{bridge}" udp dport 67 drop
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" udp dport 53 accept
    iifname "{bridge}" tcp dport 53 accept
    iifname "{bridge}" icmp type {{ echo-request, destination-unreachable, time-exceeded }} accept
    iifname "{bridge}" drop
  }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" oifname "{bridge}" ct status dnat accept
    iifname "{bridge}" oifname "{bridge}" drop
    {_closed(f'iifname "{bridge}"', networks, around, bridge)}
  }}"""
    loopback = f"""
  chain loopback {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}"""
    return NO_TABLE + _table("inet", loopback + (guard if closed else "")) + _table("bridge", ONLY_IPV4)


def rules_on_labs_network(networks: Networks, *, closed: bool) -> str:
    """The same for a bridge of the host's on the lab's network, where only the containers' veth interfaces are ours.

    The rest of the lab is on that bridge, too, and reaches the host as before. Connections are not tracked there
    on every kernel, so what opens one is what is closed.
    """
    ports = f'iifname "{OUR_CABLES}*"'
    closed_networks = _closed(ports, Networks(never=networks.never), Surroundings(), "")
    forward = f"""
  chain forward {{
    type filter hook forward priority -5; policy accept;
    {closed_networks}
  }}"""
    guard = f"""
  chain input {{
    type filter hook input priority -5; policy accept;
    {ports} ether type arp accept
    {ports} meta l4proto {{ icmp, ipv6-icmp }} accept
    {ports} udp dport {{ 53, 67 }} accept
    {ports} tcp dport 53 accept
    {ports} tcp flags & (syn | ack) == syn drop
    {ports} meta l4proto tcp accept
    {ports} drop
  }}{forward if closed_networks else ""}"""
    return NO_TABLE + _table("bridge", guard if closed else "")


def _closed(incoming: str, networks: Networks, around: Surroundings, bridge: str) -> str:
    """Rules about what arrives as `incoming` says; the first that matches decides."""
    verdicts = ((networks.never, "drop"), (networks.may, "accept"), (around.servers, "drop"))
    lines = [f"{incoming} ip daddr {{ {_apart(listed)} }} {verdict}" for listed, verdict in verdicts if listed]
    if around.ways_out:
        ways = ", ".join(f'"{interface}"' for interface in (bridge, *around.ways_out))
        lines.append(f"{incoming} oifname != {{ {ways} }} drop")
    return "\n    ".join(lines)


def _apart(networks: Collection[str]) -> str:
    """Networks that do not overlap, which nft refuses in a set."""
    return ", ".join(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv4Network, networks))))


def _table(family: str, chains: str) -> str:
    return f"table {family} {TABLE} {{{chains}\n}}\n"


def tables_in(text: str) -> list[tuple[str, str]]:
    """Family and name of each table that the text for `nft -f` replaces or deletes."""
    return [(words[2], words[3]) for line in text.splitlines() if (words := line.split())[:2] == ["delete", "table"]]


def chains_in(text: str) -> set[tuple[str, str]]:
    """Family and name of each chain that the text for `nft -f` makes."""
    found, family = set(), ""
    for line in text.splitlines():
        if line.startswith("table ") and line.endswith("{"):
            family = line.split()[1]
        elif line.startswith("  chain "):
            found.add((family, line.split()[1]))
    return found
