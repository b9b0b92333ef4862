"""What the live rules should be, from what is stored; and making them so, for one user or for everybody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from labshell import forwards, policy
from labshell.accounts import Accounts
from labshell.config import Config
from labshell.containers import Containers
from labshell.errors import TryAgain
from labshell.forwarding import Forwarding
from labshell.forwards import Difference, Forward
from labshell.guard import Guard
from labshell.policy import Container
from labshell.ports import PortRegistry

log = logging.getLogger(__name__)
ATTEMPTS = 5


class Firewall:
    """The rules of this host. Owner and address come from the engine, ports from /public, uids from the accounts."""

    def __init__(self, config: Config, accounts: Accounts, containers: Containers, ports: PortRegistry) -> None:
        self._config = config
        self._accounts = accounts
        self._containers = containers
        self._ports = ports
        self._lock = threading.Lock()
        self._changes = 0  # how often a user's rules were changed: what was read before is old then
        self._adapters: tuple[Forwarding, Guard] | None = None

    def _on_network(self) -> tuple[Forwarding, Guard]:
        """The adapters for the engine's bridge, looked up when first needed: the engine may start after us."""
        with self._lock:
            if self._adapters is None:
                bridge, config = self._containers.bridge(), self._config
                self._adapters = (
                    Forwarding(bridge.name, bridge.address, config.outside_interface),
                    Guard(bridge.name, config.guard_closed_networks, closed=config.guard),
                )
            return self._adapters

    def ports_of_others(self) -> set[int]:
        """Host ports that rules of others lead away."""
        return self._on_network()[0].other_ports()

    def forward_user(self, user: str) -> None:
        """Make the live rules of one user equal to what is stored."""
        container = self._containers.get(user)
        uid, port = self._accounts.uid_of(user), self._ports.port_of(user)
        wanted = []
        if container and container.is_service:
            wanted = self._wanted([container], {}, {})
        elif container and uid is not None and port is not None:
            wanted = self._wanted([container], {user: uid}, {user: port})
        forwarding, _ = self._on_network()
        with self._lock:
            self._changes += 1
            change = forwarding.apply_user(user, wanted)
        if change:
            log.info("rules changed", extra={"user": user, "removed": len(change.remove), "added": len(change.add)})

    def has_live_rules(self, container: Container, uid: int, port: int) -> bool:
        """Whether the rules of one user are exactly those that should be."""
        live = [forward for forward in self._on_network()[0].live() if forward.user == container.name]
        return live == self._wanted([container], {container.name: uid}, {container.name: port})

    def old_port(self, address: str) -> int | None:
        """The port that somebody's own rule leads to SSH on this address."""
        return self._on_network()[0].port_of_others(f"{address}:{policy.SSH}")

    def packets(self, user: str) -> int:
        """How many connections the rules of one user have taken."""
        return self._on_network()[0].packets(user)

    def forward_policies_that_drop(self) -> list[str]:
        """The variants of iptables whose FORWARD chain drops by default without a jump to our rules."""
        forwarding, guard = self._on_network()
        found = ["iptables-legacy"] if forwarding.is_forward_dropping() else []
        return [*found, "iptables-nft"] if guard.is_forward_dropping() else found

    def plan(self) -> Difference:
        """What reconcile() would change."""
        return self._on_network()[0].plan(self._everything_wanted())

    def reconcile(self) -> Difference:
        """Make the live rules equal to what is stored.

        No lock is held while the engine is asked. If a user's rules change meanwhile, what was read is old, and
        is read again.
        """
        forwarding, guard = self._on_network()
        if guard.ensure():
            log.info("guard rules put back")
        for _ in range(ATTEMPTS):
            before = self._changes
            wanted = self._everything_wanted()
            with self._lock:
                if before != self._changes:
                    continue
                change = forwarding.apply(wanted)
            if change:
                log.info("rules reconciled", extra={"removed": len(change.remove), "added": len(change.add)})
            return change
        raise TryAgain("The rules are being changed all the time; try again in a moment.")

    def remove_all(self) -> None:
        """Take every rule of labshell's away."""
        forwarding, guard = self._on_network()
        forwarding.remove_all()
        guard.remove()

    def _everything_wanted(self) -> list[Forward]:
        """Every rule that should be live; those of a user whose port file is damaged stay as they are."""
        ports, damaged = self._ports.readable_ports()
        wanted = self._wanted(self._containers.all(), self._accounts.all(), ports)
        if damaged:
            log.error("damaged port files", extra={"users": damaged})
            wanted += [forward for forward in self._on_network()[0].live() if forward.user in damaged]
        return wanted

    def _wanted(
        self, containers: list[Container], uids: Mapping[str, int], ports: Mapping[str, int]
    ) -> list[Forward]:
        return forwards.wanted_forwards(containers, uids, ports, self._config.ports_per_user, time.time())
