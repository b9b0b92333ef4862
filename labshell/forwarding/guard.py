"""The host's side of the bridge, in an nftables table of our own: what containers may reach.

From a container only DNS, DHCP and forwarded ports answer on any address of the host, other containers only
through their forwarded ports, and closed networks not at all: those the administrator names, and by themselves
whatever lies behind another interface than the default route's, and the servers whose files the host has mounted.
Their connections leave with the host's address, so a machine that trusts the host there would trust every user.

On the engine's own bridge, frames that are neither IPv4 nor ARP pass no container's port in either direction: the
closed networks and the forwards are IPv4. The engine's security.ipv6_filtering would do a part of that, but needs the
kernel module br_netfilter, which a stock Debian kernel does not load.

`labshell.forwarding.tracking` has the limits on a container's connections, which hold also with the guard off.

nftables, because `iptables -F` must not open the host. And because a packet has to pass both variants of iptables,
our accept rules go into the other variant too where Docker or ufw have set its FORWARD policy to DROP.
"""

from __future__ import annotations

from pathlib import Path

from labshell.forwarding import guard_rules, nft, tracking
from labshell.forwarding.guard_rules import Networks, Surroundings
from labshell.forwarding.kernel_settings import KernelSettings
from labshell.forwarding.nft_variant import NftVariant
from labshell.forwarding.surroundings import Lookout


class Guard:
    """The tables and their companions on this host for one bridge."""

    def __init__(
        self, bridge: str, networks: Networks, memory: Path, *, closed: bool, is_labs_own: bool = False
    ) -> None:
        """`memory` is the file that holds the last uplinks over a reboot."""
        self._bridge = bridge
        self._networks = networks
        self._closed = closed
        self._is_labs_own = is_labs_own
        self._lookout = Lookout(memory)
        self._settings = KernelSettings(bridge)
        self._nft_variant = NftVariant(bridge)
        self._loaded: set[str] = set()

    @property
    def around(self) -> Surroundings:
        """What was around at the last look."""
        return self._lookout.around

    def ensure(self) -> bool:
        """Make the tables what they should be and open what it makes safe to open; True if it was not so."""
        changed = self._ensure_tables()
        if self._is_labs_own:
            return changed
        self._settings.ensure()
        return self._nft_variant.ensure() or changed

    def _ensure_tables(self) -> bool:
        """Load what differs, and only that: the limits count from zero when they are loaded."""
        wanted = self._wanted()
        changed = [
            text
            for text in wanted
            if text not in self._loaded or nft.live_chains(text) != guard_rules.chains_in(text)
        ]
        for text in changed:
            nft.load(text)
        self._loaded = set(wanted)
        return bool(changed)

    def _wanted(self) -> list[str]:
        """The tables as they should be now: interfaces and mounts come and go.

        On the lab's own network a container comes to a server as itself and not as the host, so nothing is closed by
        itself.
        """
        if self._is_labs_own:
            return [guard_rules.rules_on_labs_network(self._networks, closed=self._closed), tracking.NO_LIMITS]
        self._lookout.look()
        return [
            guard_rules.rules(self._bridge, self._networks, self.around, closed=self._closed),
            tracking.limits(self._bridge),
        ]

    def remove(self) -> None:
        """Take the tables and their companions away."""
        nft.load(guard_rules.NO_TABLE + tracking.NO_LIMITS)
        if not self._is_labs_own:
            self._settings.remove()
            self._nft_variant.remove()

    def is_forward_dropping(self) -> bool:
        """Whether FORWARD of the nftables variant of iptables drops by default, without our rules."""
        return self._nft_variant.is_forward_dropping()
