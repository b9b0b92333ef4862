"""What doctor of the host says about the containers' network, and of rules, labshell's and others'."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from labshell.doctor.findings import ERROR, WARNING, Finding
from labshell.errors import LabshellError
from labshell.forwarding import iptables, nft, nft_rules, packets
from labshell.forwarding.packets import Packet
from labshell.host import host_services, machine, probe
from labshell.host.probe import Target
from labshell.operations.lab import Lab

VARIANTS = ("iptables-legacy", "iptables-nft")
ADDRESSES_FOR_ALL = 15
DNS, DHCP = 53, 67


def network(lab: Lab) -> Iterator[Finding]:
    """The bridge and what the engine does for it. A network that is missing is the last finding about it."""
    containers = lab.containers
    try:
        bridge = containers.network.bridge()
    except LabshellError as error:
        yield Finding("network-missing", ERROR, str(error), "scripts/setup-host", lab.config.network)
        return
    if containers.network.is_labs_own:
        return
    # The engine makes everything of a network anew when it is changed.
    renew = (
        f"lxc network set {bridge.name} dns.mode=none; "
        f"lxc network set {bridge.name} dns.mode={bridge.settings.get('dns.mode', 'managed')}"
    )
    state = machine.interface_state(bridge.name)
    if not state or not machine.has_address(bridge.name, bridge.gateway):
        yield Finding(
            "network-down",
            ERROR,
            f"The containers' bridge {bridge.name} is not there, or has not its address. Running containers "
            "are connected to nothing: stop and start them afterwards.",
            renew,
            bridge.name,
        )
    elif state == "down":
        remedy = f"ip link set {bridge.name} up"
        yield Finding("network-down", ERROR, f"The containers' bridge {bridge.name} is down.", remedy, bridge.name)
    elif not probe.is_reached(Target(bridge.gateway, DNS)):
        yield Finding(
            "network-dns",
            ERROR,
            f"The engine's name and DHCP server does not answer on {bridge.gateway}, "
            "so containers get neither address nor names.",
            renew,
            bridge.name,
        )
    if not bridge.strangers:
        yield _open_dhcp(bridge.name, bridge.address)


def _open_dhcp(name: str, address: str) -> Finding:
    last = ipaddress.IPv4Interface(address).network.broadcast_address - 1
    span = f"{last - ADDRESSES_FOR_ALL + 1}-{last}"
    return Finding(
        "dhcp-open",
        WARNING,
        f"One container can exhaust the DHCP range of {name}, and new containers then get no address.",
        f"lxc network set {name} ipv4.dhcp.ranges={span}",
    )


def rules(lab: Lab) -> Iterator[Finding]:
    """Rules that are missing, or in the way."""
    for variant in lab.firewall.forward_policies_that_drop():
        yield Finding(
            "forward-drop",
            ERROR,
            f"FORWARD drops by default ({variant}: Docker or ufw), without our rules. "
            "If ufw is in front, also: ufw route allow to any",
            "labshell-admin reconcile",
        )
    if not lab.config.guard:
        yield Finding(
            "guard-off",
            WARNING,
            "The guard is off: containers reach every service of this host. Restart labshelld afterwards.",
            "sed -i 's/^ *guard *= *false/guard = true/' /etc/labshell/labshell.toml",
        )
    plan = lab.firewall.plan()
    if plan:
        yield Finding(
            "rules-differ",
            WARNING,
            f"{len(plan.remove)} live rules should not be there, and {len(plan.add)} are missing; "
            "labshell-admin reconcile --plan shows them.",
            "labshell-admin reconcile",
        )
    if not lab.containers.network.is_labs_own:
        yield from _input(lab.config.network)


def _input(bridge: str) -> Iterator[Finding]:
    """What drops the containers' requests for an address and for names, at the host's input."""
    asked = {DHCP: "addresses", DNS: "names"}
    for variant in VARIANTS:
        saved = iptables.saved_by(variant)
        closed = [
            port for port in asked if packets.verdict(saved, "INPUT", Packet(bridge, "udp", port)) == packets.DROP
        ]
        if closed:
            opening = f"{variant} -w -I INPUT -i {bridge} -j ACCEPT"
            yield _input_dropped(f"INPUT of {variant}", [asked[port] for port in closed], bridge, opening)
    chains = nft_rules.chains(nft.ruleset())
    dropping: dict[str, list[str]] = {}
    for port, what in asked.items():
        for chain in nft_rules.dropping(chains, Packet(bridge, "udp", port)):
            dropping.setdefault(chain.path, []).append(what)
    for path, what_is_closed in dropping.items():
        opening = f"nft insert rule {path} iifname {bridge} accept"
        yield _input_dropped(f"the chain {path}", what_is_closed, bridge, opening)


def _input_dropped(where: str, closed: list[str], bridge: str, opening: str) -> Finding:
    if host_services.is_ufw_on():
        opening = f"ufw allow in on {bridge}"
    elif host_services.is_firewalld_on():
        opening = f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
    return Finding(
        "input-drop",
        ERROR,
        f"{where} drops what containers ask this host for: {' and '.join(closed)}. What else they reach of this host "
        "is the guard's matter.",
        opening,
        bridge,
    )


def redirections(lab: Lab) -> Iterator[Finding]:
    """Rules of others that lead ports of users, of services, or the host's own SSH port elsewhere."""
    whose = _whose_ports(lab)
    own = {f"{item.address}:{port}" for item in lab.containers.all() if item.address for port in (22, "")}
    for variant in VARIANTS:
        for found in packets.redirections(iptables.saved_by(variant), whose):
            if found.to not in own:
                yield _redirected(found.ports, whose, f"{variant} -w {found.removal}")
    for rule in nft_rules.redirections(nft_rules.chains(nft.ruleset()), whose):
        yield _redirected(rule.ports, whose, rule.removal)


def _whose_ports(lab: Lab) -> dict[int, str]:
    ports, _ = lab.ports.readable_ports()
    whose = {port: user for user, first in ports.items() for port in lab.ports.block(first)}
    for item in lab.containers.all():
        if item.is_service:
            whose |= {own.port: f"the service {item.name}" for own in item.forwards}
    return whose | {lab.config.ssh_port: "this host's SSH server"}


def _redirected(ports: object, whose: Mapping[int, str], removal: str) -> Finding:
    listed = sorted(ports)  # type: ignore[call-overload]
    users = sorted({whose[port] for port in listed})
    numbers = f"port {listed[0]}" if len(listed) == 1 else f"ports {listed[0]} to {listed[-1]}"
    return Finding(
        "port-led-away",
        ERROR,
        f"A rule that is not labshell's leads {numbers} of {', '.join(users[:5])} elsewhere. "
        "Look also for what puts it there at boot.",
        removal,
        users[0],
    )
