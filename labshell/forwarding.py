"""The iptables rules that lead host ports to containers, through python-iptables.

Desired state, not edits: apply(wanted) makes our chains equal to the list in one commit per table and does
nothing when nothing differs. Our chains are LABSHELL, LABSHELL-HAIRPIN and LABSHELL-FORWARD; outside them there is
one jump to each from the built-in chains, and nobody else's rule is ever touched.

python-iptables takes no lock and loses updates without an error, so the lock of the iptables tool is held
from reading to committing, and the result is read again. It keeps one table object per process, so one
lock of ours guards the module.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import iptc

from labshell import forwards
from labshell.errors import LabshellError, TryAgain
from labshell.forwards import Forward

XTABLES_LOCK = "/run/xtables.lock"
LOCK_SECONDS = 10
PORTS = "LABSHELL"
HAIRPIN = "LABSHELL-HAIRPIN"
ACCEPT = "LABSHELL-FORWARD"
NOTE = {"comment": "labshell"}

Rule = dict[str, Any]  # one rule in the notation of iptc.easy
_module_lock = threading.Lock()


@dataclass(frozen=True)
class _Chain:
    """One chain of ours: where it hangs and, for all but PORTS, what is in it."""

    table: str
    name: str
    jumps: dict[str, Rule]  # built-in chain -> the jump from it
    rules: tuple[Rule, ...] = ()


class Forwarding:
    """The live rules of this host for one bridge."""

    can_limit_sources = True

    def __init__(self, bridge: str, bridge_address: str, outside_interface: str = "") -> None:
        """`bridge_address` is the gateway's own address on the bridge with its prefix: "10.83.0.1/24"."""
        interface = ipaddress.IPv4Interface(bridge_address)
        self.address = str(interface.ip)
        self._chains = _chains(bridge, str(interface.network), outside_interface)

    def live(self) -> list[Forward]:
        """The forwards in our chain, whether wanted or not."""
        with _tables_locked():
            return _live()

    def is_forward_dropping(self) -> bool:
        """Whether FORWARD of the legacy variant drops by default, without a jump to our rules."""
        with _tables_locked():
            chain = iptc.Chain(iptc.Table(iptc.Table.FILTER), "FORWARD")
            policy = chain.get_policy()
            has_jump = any(_target(rule) == ACCEPT for rule in _rules(chain))
            return policy is not None and policy.name == "DROP" and not has_jump

    def packets(self, user: str) -> int | None:
        """How many connections the rules of one user have taken: only a connection's first packet comes here."""
        with _tables_locked():
            table = iptc.Table(iptc.Table.NAT)
            rules = iptc.Chain(table, PORTS).rules if table.is_chain(PORTS) else ()
            note = Forward(0, user, "").comment
            return sum(
                int(rule.get_counters()[0])
                for rule in rules
                if iptc.easy.decode_iptc_rule(rule).get("comment", {}).get("comment") == note
            )

    def other_ports(self) -> set[int]:
        """Ports that DNAT rules of others take: never hand these out."""
        with _tables_locked():
            ports = set()
            for chain in iptc.Table(iptc.Table.NAT).chains:
                if chain.name != PORTS:
                    ports |= {port for rule in _rules(chain) if (port := _dnat_port(rule)) is not None}
            return ports

    def port_of_others(self, destination: str) -> int | None:
        """The first port that a DNAT rule of others leads to "10.0.0.2:22"."""
        with _tables_locked():
            for chain in iptc.Table(iptc.Table.NAT).chains:
                for rule in _rules(chain) if chain.name != PORTS else ():
                    target = rule.get("target")
                    if isinstance(target, dict) and target.get("DNAT", {}).get("to-destination") == destination:
                        return _dnat_port(rule)
        return None

    def apply(self, wanted: Iterable[Forward]) -> forwards.Difference:
        """Make the live rules those in `wanted`, chains and jumps included. Returns what differed."""
        wanted = sorted(wanted)
        with _tables_locked():
            self._ensure_chains()
            change = forwards.difference(_live(), wanted)
            _change_forwards(change)
            return change

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> forwards.Difference:
        """The same for the forwards of one user, leaving everybody else's alone."""
        wanted = sorted(wanted)
        with _tables_locked():
            self._ensure_chains()
            change = forwards.difference([forward for forward in _live() if forward.user == user], wanted)
            _change_forwards(change)
            return change

    def remove_all(self) -> None:
        """Take away every rule, jump and chain of ours."""
        with _tables_locked():
            for wanted in self._chains:
                with _committing(wanted.table) as table:
                    for builtin in wanted.jumps:
                        _delete(iptc.Chain(table, builtin), lambda rule, name=wanted.name: _target(rule) == name)
                    if table.is_chain(wanted.name):
                        chain = iptc.Chain(table, wanted.name)
                        chain.flush()
                        table.delete_chain(wanted.name)

    def _ensure_chains(self) -> None:
        """Our chains and jumps as they should be; reads first and commits only what differs."""
        for wanted in self._chains:
            table = iptc.Table(wanted.table)
            missing = not table.is_chain(wanted.name)
            stale = {
                builtin: jump
                for builtin, jump in wanted.jumps.items()
                if [rule for rule in _rules(iptc.Chain(table, builtin)) if _target(rule) == wanted.name] != [jump]
            }
            wrong = wanted.name != PORTS and (
                missing or tuple(_rules(iptc.Chain(table, wanted.name))) != wanted.rules
            )
            if not (missing or stale or wrong):
                continue
            with _committing(wanted.table) as table:
                if missing:
                    table.create_chain(wanted.name)
                if wrong:
                    chain = iptc.Chain(table, wanted.name)
                    chain.flush()
                    for rule in wanted.rules:
                        chain.append_rule(_encode(rule))
                for builtin, jump in stale.items():
                    chain = iptc.Chain(table, builtin)
                    _delete(chain, lambda rule, name=wanted.name: _target(rule) == name)
                    chain.insert_rule(_encode(jump))


def _chains(bridge: str, network: str, outside_interface: str) -> tuple[_Chain, ...]:
    """Our chains for a bridge.

    Destination-local on the jump is what keeps a rule for port 80 from capturing every container's outgoing
    web traffic. Only what came from the bridge or from loopback is masqueraded on its way to a container:
    its sshd must see everybody else's real address.
    """
    local: Rule = {"addrtype": {"dst-type": "LOCAL"}, "comment": NOTE, "target": PORTS}
    arriving = {"in-interface": outside_interface, **local} if outside_interface else local
    dnat: Rule = {"conntrack": {"ctstate": "DNAT"}}
    return (
        _Chain("nat", PORTS, {"PREROUTING": arriving, "OUTPUT": local}),
        _Chain(
            "nat",
            HAIRPIN,
            {"POSTROUTING": {"out-interface": bridge, "comment": NOTE, "target": HAIRPIN}},
            (
                {"src": network, **dnat, "target": "MASQUERADE"},
                {"src": "127.0.0.0/8", **dnat, "target": "MASQUERADE"},
            ),
        ),
        _Chain(
            "filter",
            ACCEPT,
            {"FORWARD": {"comment": NOTE, "target": ACCEPT}},
            (
                {"out-interface": bridge, **dnat, "target": "ACCEPT"},
                {"in-interface": bridge, **dnat, "target": "ACCEPT"},
            ),
        ),
    )


def _encode(rule: Rule) -> Any:
    return iptc.easy.encode_iptc_rule(rule)


def _rules(chain: Any) -> list[Rule]:
    """The rules of a chain, without their counters."""
    rules = []
    for rule in chain.rules:
        decoded = iptc.easy.decode_iptc_rule(rule)
        decoded.pop("counters", None)
        rules.append(decoded)
    return rules


def _target(rule: Rule) -> str:
    target = rule.get("target", "")
    return target if isinstance(target, str) else next(iter(target))


def _dnat_port(rule: Rule) -> int | None:
    port = str(rule.get("tcp", {}).get("dport", "")) if _target(rule) == "DNAT" else ""
    return int(port) if port.isdigit() else None


def _live() -> list[Forward]:
    table = iptc.Table(iptc.Table.NAT)
    if not table.is_chain(PORTS):
        return []
    return [_as_forward(rule) for rule in _rules(iptc.Chain(table, PORTS))]


def _as_forward(rule: Rule) -> Forward:
    """A rule of our chain as a value. One that is not in our form becomes a value nobody wants."""
    port = _dnat_port(rule)
    user = str(rule.get("comment", {}).get("comment", "")).removeprefix("labshell:")
    target = rule.get("target")
    destination = target.get("DNAT", {}).get("to-destination", "") if isinstance(target, dict) else ""
    address, _, target_port = destination.partition(":")
    if port is not None and target_port.isdigit():
        forward = Forward(port, user, address, int(target_port), rule.get("src", ""))
        if rule == _as_rule(forward):
            return forward
    return Forward(0, user, repr(sorted(rule)), 0)


def _as_rule(forward: Forward) -> Rule:
    rule: Rule = {
        "protocol": "tcp",
        "tcp": {"dport": str(forward.port)},
        "comment": {"comment": forward.comment},
        "target": {"DNAT": {"to-destination": f"{forward.address}:{forward.target}"}},
    }
    return {**rule, "src": forward.source} if forward.source else rule


def _change_forwards(change: forwards.Difference) -> None:
    if not change:
        return
    with _committing("nat") as table:
        chain = iptc.Chain(table, PORTS)
        gone = list(change.remove)
        for rule in chain.rules if gone else ():
            decoded = iptc.easy.decode_iptc_rule(rule)
            decoded.pop("counters", None)
            forward = _as_forward(decoded)
            if forward in gone:
                gone.remove(forward)
                chain.delete_rule(rule)
        for forward in change.add:
            chain.append_rule(_encode(_as_rule(forward)))
    live = set(_live())
    if not live.issuperset(change.add) or live & (set(change.remove) - set(change.add)):
        raise LabshellError("The firewall did not take the change; look at: iptables-legacy -t nat -S LABSHELL")


def _delete(chain: Any, chosen: Any) -> None:
    for rule in chain.rules:
        if chosen(iptc.easy.decode_iptc_rule(rule)):
            chain.delete_rule(rule)


@contextlib.contextmanager
def _committing(name: str) -> Iterator[Any]:
    """A table whose changes inside the block become live together, or not at all."""
    table = iptc.Table(name)
    table.autocommit = False
    try:
        yield table
        table.commit()
    finally:
        table.autocommit = True
        table.refresh()


@contextlib.contextmanager
def _tables_locked() -> Iterator[None]:
    """Hold the lock of the iptables tool, with fresh tables; python-iptables' errors become ours."""
    with _module_lock:
        descriptor = os.open(XTABLES_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _flock(descriptor)
            for name in ("nat", "filter"):
                iptc.Table(name).refresh()
            yield
        except (iptc.ip4tc.IPTCError, iptc.errors.XTablesError) as error:
            raise LabshellError("The firewall refused a change: {why}.", why=error) from error
        finally:
            os.close(descriptor)


def _flock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TryAgain("Another program is holding the firewall's lock; try again in a moment.") from None
            time.sleep(0.05)
        else:
            return
