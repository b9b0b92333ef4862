"""The iptables rules that lead host ports to containers, by the iptables tool itself.

Desired state, not edits: what differs from it is changed in one commit per table, and nothing is done when nothing
differs. Our chains are LABSHELL and those whose names begin so; outside them there is one jump to each from the
built-in chains, and no other rule is ever touched.

The tool holds the lock of the firewall from reading to committing, so no update of anybody's is lost. Between our own
look and its commit something may change: so the result is read again, and what then differs is changed again.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable

from labshell.errors import LabshellError, TryAgain
from labshell.forwarding import rules
from labshell.host import host_program
from labshell.model import forwards
from labshell.model.forwards import Forward

log = logging.getLogger(__name__)
LOCK_SECONDS = "10"
LOCK_IS_HELD = 4  # the tool's exit status
ATTEMPTS = 4


class Forwarding:
    """The live rules of this host for one bridge."""

    can_limit_sources = True

    def __init__(self, bridge: str, bridge_address: str, outside_interface: str = "") -> None:
        """`bridge_address` is the gateway's own address on the bridge with its prefix: "10.83.0.1/24"."""
        interface = ipaddress.IPv4Interface(bridge_address)
        self.address = str(interface.ip)
        self._around = rules.around(bridge, str(interface.network), outside_interface)

    def live(self) -> list[Forward]:
        """The forwards in our chains, whether wanted or not."""
        return rules.live_forwards(_saved())

    def is_forward_dropping(self) -> bool:
        """Whether FORWARD of the legacy variant drops by default, without a jump to our rules."""
        return rules.is_forward_dropping(_saved())

    def packets(self, user: str) -> int | None:
        """How many connections the rules of one user have taken: only a connection's first packet comes here."""
        return rules.packets(_save("-t", "nat", "-c"), user)

    def other_ports(self) -> set[int]:
        """Ports that DNAT rules of others take: never hand these out."""
        return {port for _, ports in rules.redirections_of_others(_saved()) for port in ports}

    def port_of_others(self, destination: str) -> int | None:
        """The first port that a DNAT rule of others leads to "10.0.0.2:22"."""
        found = (ports for where, ports in rules.redirections_of_others(_saved()) if where == destination)
        return min(next(found, ()), default=None)

    def ports_to(self, address: str) -> set[int]:
        """Ports that DNAT rules of others lead to an address."""
        every = rules.redirections_of_others(_saved())
        return {port for where, ports in every if where.partition(":")[0] == address for port in ports}

    def apply(self, wanted: Iterable[Forward]) -> forwards.Difference:
        """Make the live rules those in `wanted`, chains and jumps included. Returns what differed."""
        wanted = sorted(wanted)
        chains = rules.forwarding(wanted)
        before = self._make(lambda _: chains)
        return forwards.difference(rules.live_forwards(before), wanted)

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> forwards.Difference:
        """The same for the forwards of one user, leaving all others alone."""
        wanted = sorted(wanted)
        before = self._make(lambda live: rules.with_user(live, user, wanted))
        return forwards.difference(rules.live_forwards(before, user), wanted)

    def remove_all(self) -> None:
        """Take away every rule, jump and chain of ours."""
        _restore(rules.change(_saved(), {}))

    def _make(self, chains: Callable[[rules.Saved], rules.Chains]) -> rules.Saved:
        """Make everything of ours what it should be, with these chains of forwards; what was live before."""
        before = live = _saved()
        for attempt in range(ATTEMPTS):
            wanted = {**self._around, "nat": {**self._around["nat"], **chains(live)}}
            change = rules.change(live, wanted)
            if not change:
                return before
            refusal = _restore(change, may_fail=attempt < ATTEMPTS - 1)
            if refusal:
                log.info("rules were changed meanwhile", extra={"why": refusal})
            live = _saved()
        raise LabshellError(
            "firewall-change-lost", "The firewall did not take the change; look at: iptables-legacy-save -t nat"
        )


def _saved() -> rules.Saved:
    return rules.parse(_save())


def saved_by(program: str) -> rules.Saved:
    """The rules of "iptables-legacy" or "iptables-nft"; none where it has none to tell."""
    try:
        done = host_program.run([f"{program}-save"])
    except LabshellError:
        return rules.parse("")
    return rules.parse(done.stdout if done.returncode == 0 else "")


def _save(*options: str) -> str:
    done = host_program.run(["iptables-legacy-save", *options])
    if done.returncode != 0:
        raise LabshellError(
            "firewall-unreadable", "The firewall cannot be read: {why}.", why=host_program.reason_of(done)
        )
    return done.stdout


def _restore(change: str, *, may_fail: bool = False) -> str:
    """Commit a change, if there is one; why it was refused, if it may be."""
    done = host_program.run(["iptables-legacy-restore", "--noflush", "--wait", LOCK_SECONDS], change)
    if done.returncode == LOCK_IS_HELD:
        raise TryAgain("firewall-locked", "Another program is holding the firewall's lock; try again in a moment.")
    if done.returncode != 0 and not may_fail:
        raise LabshellError(
            "firewall-refused", "The firewall refused a change: {why}.", why=host_program.reason_of(done)
        )
    return host_program.reason_of(done) if done.returncode else ""
