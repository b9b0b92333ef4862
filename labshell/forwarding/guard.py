"""The host's side of the bridge, in an nftables table of our own: what containers may reach.

From a container only DNS, DHCP and forwarded ports answer on any address of the host, other containers only
through their forwarded ports, and closed networks not at all: those the administrator names, and by themselves
whatever lies behind another interface than the default route's, and the servers whose files the host has mounted.
Their connections leave with the host's address, so whoever trusts the host there would trust every researcher.

On the engine's own bridge, frames that are neither IPv4 nor ARP pass no container's port in either direction: the
closed networks and the forwards are IPv4. The engine's security.ipv6_filtering would do a part of that, but needs the
kernel module br_netfilter, which a stock Debian kernel does not load.

`labshell.forwarding.tracking` has the limits on a container's connections, which hold also with the guard off.

nftables, because `iptables -F` must not open the host. And because a packet has to pass both variants of iptables,
our accept rules go into the other variant too where Docker or ufw have set its FORWARD policy to DROP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labshell.errors import LabshellError
from labshell.forwarding import tracking
from labshell.host import files, host_program, machine
from labshell.model.addresses import OUR_CABLES

log = logging.getLogger(__name__)
BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
TABLE = "labshell"
CHAIN = "LABSHELL-FORWARD"
# DISCOVER, REQUEST and INFORM, as the first option (RFC 2131, offset 240). Not DECLINE and RELEASE: they say
# whose address is meant by a hardware address in the message, which may be another container's.
DHCP_REQUESTS = "@th,1984,24 { 0x350101, 0x350103, 0x350108 }"
INTERFACE = re.compile(r"[\w.-]{1,15}", re.ASCII)
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
    """What containers may never reach, and what they may though it would be closed by itself."""

    never: Collection[str] = ()
    may: Collection[str] = ()


@dataclass(frozen=True)
class Surroundings:
    """What is closed by itself on a host as it is now: these servers, and all that is not reached by `ways_out`.

    Without a way out nothing says which interface leads where, and none is closed.
    """

    ways_out: Collection[str] = ()
    servers: Collection[str] = ()


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
    """The same for a bridge of the host's on the lab's network, where only the containers' own cables are ours.

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


def _table(family: str, chains: str) -> str:
    return f"table {family} {TABLE} {{{chains}\n}}\n"


def _tables_in(text: str) -> list[tuple[str, str]]:
    """Family and name of each table that the text for `nft -f` replaces or deletes."""
    return [(words[2], words[3]) for line in text.splitlines() if (words := line.split())[:2] == ["delete", "table"]]


def _chains_in(text: str) -> set[tuple[str, str]]:
    """Family and name of each chain that the text for `nft -f` makes."""
    found, family = set(), ""
    for line in text.splitlines():
        if line.startswith("table ") and line.endswith("{"):
            family = line.split()[1]
        elif line.startswith("  chain "):
            found.add((family, line.split()[1]))
    return found


class Guard:
    """The tables and their companions on this host for one bridge."""

    def __init__(
        self, bridge: str, networks: Networks, memory: Path, *, closed: bool, is_labs_own: bool = False
    ) -> None:
        """`memory` is the file that holds the last ways out over a reboot."""
        self._bridge = bridge
        self._memory = memory
        self._networks = networks
        self._closed = closed
        self._is_labs_own = is_labs_own
        self.around = Surroundings()
        self._loaded: set[str] = set()
        self._has_warned = False

    def ensure(self) -> bool:
        """Make the tables what they should be and open what it makes safe to open; True if it was not so."""
        changed = self._ensure_tables()
        if self._is_labs_own:
            return changed
        _set_at_most(tracking.CLOSED_SETTING, tracking.CLOSED_SECONDS)
        self._allow_loopback()
        self._route_between_containers()
        return self._accept_beside_drop() or changed

    def _ensure_tables(self) -> bool:
        """Load what differs, and only that: the limits count from zero when they are loaded."""
        wanted = self._wanted()
        changed = [text for text in wanted if text not in self._loaded or _live_chains(text) != _chains_in(text)]
        for text in changed:
            _run(["nft", "-f", "-"], text)
        self._loaded = set(wanted)
        return bool(changed)

    def _wanted(self) -> list[str]:
        """The tables as they should be now: interfaces and mounts come and go.

        On the lab's own network a container comes to a server as itself and not as the host, so nothing is closed by
        itself.
        """
        if self._is_labs_own:
            return [rules_on_labs_network(self._networks, closed=self._closed), tracking.NO_LIMITS]
        self.look_around()
        return [
            rules(self._bridge, self._networks, self.around, closed=self._closed),
            tracking.limits(self._bridge),
        ]

    def look_around(self) -> None:
        """See what is around now. Without a way out, as at boot before the network is up, the last one holds."""
        last = self.around.ways_out or self._remembered()
        found = machine.ways_out()
        if found and found != last:
            with contextlib.suppress(LabshellError):  # a full disk: the rules of now are right all the same
                files.write(self._memory, "\n".join(found).encode())
        self.around = Surroundings(found or last, machine.file_servers())

    def _remembered(self) -> list[str]:
        """None if the file is damaged; what is no interface's name would break the rules."""
        content = b""
        with contextlib.suppress(LabshellError):
            content = files.read(self._memory) or b""
        return [name for name in content.decode("ascii", "replace").split() if INTERFACE.fullmatch(name)]

    def remove(self) -> None:
        _run(["nft", "-f", "-"], NO_TABLE + tracking.NO_LIMITS)
        if self._is_labs_own:
            return
        if machine.kernel_setting(tracking.CLOSED_SETTING) == str(tracking.CLOSED_SECONDS):
            _set(machine.PROC / "sys" / tracking.CLOSED_SETTING, str(tracking.KERNELS_CLOSED_SECONDS))
        self._set_route_localnet("0")
        if self._other_forward_policy() is not None:
            _run(["iptables-nft", "-w", "-D", "FORWARD", "-j", CHAIN], may_fail=True)
            _run(["iptables-nft", "-w", "-F", CHAIN], may_fail=True)
            _run(["iptables-nft", "-w", "-X", CHAIN], may_fail=True)

    def _allow_loopback(self) -> None:
        """Let `ssh -p PORT localhost` on the host reach the container: safe behind the loopback chain."""
        self._set_route_localnet("1")

    def _route_between_containers(self) -> None:
        """Let a container reach forwarded ports on the gateway, another's or its own.

        With br_netfilter on, the kernel turns such a packet round inside the bridge, where port isolation drops
        it. The switch is for all bridges of the host, so it is left alone where there are others, which may
        need it (Docker, Kubernetes).
        """
        others = [path for path in Path("/sys/class/net").glob("*/bridge") if path.parent.name != self._bridge]
        if BRIDGE_NETFILTER.exists() and BRIDGE_NETFILTER.read_text().strip() != "0":
            if not others:
                _set(BRIDGE_NETFILTER, "0")
            elif not self._has_warned:
                self._has_warned = True
                log.warning(
                    "containers cannot reach forwarded ports of this host: net.bridge.bridge-nf-call-iptables is 1"
                )

    def _set_route_localnet(self, value: str) -> None:
        _set(Path(f"/proc/sys/net/ipv4/conf/{self._bridge}/route_localnet"), value)

    def is_forward_dropping(self) -> bool:
        """Whether FORWARD of the nftables variant drops by default, without our rules."""
        if self._other_forward_policy() != "drop":
            return False
        return _run(["iptables-nft", "-w", "-C", "FORWARD", "-j", CHAIN], may_fail=True) is None

    def _other_forward_policy(self) -> str | None:
        """The policy of FORWARD in the nftables variant of iptables; None if there is no such chain."""
        listing = _run(["nft", "-j", "list", "chain", "ip", "filter", "FORWARD"], may_fail=True)
        if not listing:
            return None
        chains: list[dict[str, Any]] = [item["chain"] for item in json.loads(listing)["nftables"] if "chain" in item]
        return str(chains[0].get("policy", "accept")) if chains else None

    def _accept_beside_drop(self) -> bool:
        """Our accept rules in the other variant if its policy is DROP: DNATed traffic, and containers' own."""
        if not self.is_forward_dropping():
            return False
        restore = f"""*filter
:{CHAIN} - [0:0]
-A {CHAIN} -o {self._bridge} -m conntrack --ctstate DNAT -j ACCEPT
-A {CHAIN} -i {self._bridge} -j ACCEPT
-A {CHAIN} -o {self._bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j {CHAIN}
COMMIT
"""
        _run(["iptables-nft-restore", "--noflush", "-w"], restore)
        return True


def ruleset() -> str:
    """Every rule of nftables, as JSON; empty where nft cannot tell."""
    return _run(["nft", "--json", "list", "ruleset"], may_fail=True) or ""


def _live_chains(text: str) -> set[tuple[str, str]]:
    """Family and name of each chain with rules in it that is there now, of the tables that `text` replaces."""
    found = set()
    for family, table in _tables_in(text):
        listing = _run(["nft", "-j", "-t", "list", "table", family, table], may_fail=True)
        if listing:
            rules_there = (item["rule"] for item in json.loads(listing)["nftables"] if "rule" in item)
            found |= {(family, rule["chain"]) for rule in rules_there}
    return found


def _set_at_most(setting: str, value: int) -> None:
    """Lower a kernel setting of the network to `value`; an administrator's smaller one stays."""
    now = machine.kernel_setting(setting)
    if now.isdigit() and int(now) > value:
        _set(machine.PROC / "sys" / setting, str(value))


def _set(setting: Path, value: str) -> None:
    """Make a kernel setting what it should be; one that is not there is nobody's."""
    try:
        if setting.read_text().strip() != value:
            setting.write_text(value)
    except OSError as error:
        if setting.exists():
            raise LabshellError("{path} cannot be changed: {why}.", path=setting, why=error.strerror) from error


def _run(argv: list[str], text: str = "", *, may_fail: bool = False) -> str | None:
    """What a firewall program printed; None if it failed and may."""
    done = host_program.run(argv, text)
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    raise LabshellError(
        "{program} refused the host's own rules: {reason}.", program=argv[0], reason=host_program.reason_of(done)
    )
