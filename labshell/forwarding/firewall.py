"""What the live rules should be, from what is stored; and making them so, for one user or for all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from labshell.config import Config
from labshell.engine.containers import Containers
from labshell.engine.network import Bridge
from labshell.errors import TryAgain, UsageError
from labshell.forwarding import tracking
from labshell.forwarding.base import Adapter, NoForwards
from labshell.forwarding.guard import Guard
from labshell.forwarding.guard_rules import Networks
from labshell.forwarding.iptables import Forwarding
from labshell.forwarding.lxd_proxy import ProxyForwarding
from labshell.host import machine
from labshell.host.accounts import Accounts
from labshell.host.clock import Clock
from labshell.host.ports import PortRegistry
from labshell.model import forwards
from labshell.model.container import Container
from labshell.model.forwards import Difference, Forward
from labshell.model.ports import SSH

log = logging.getLogger(__name__)
ATTEMPTS = 5


class _Parts(NamedTuple):
    """What the rules are made with. `iptables` is asked about others' rules, whatever makes ours; `others` are the
    kinds of forwarding that are not configured, and may have left something.
    """

    adapter: Adapter
    iptables: Forwarding
    guard: Guard
    others: tuple[Adapter, ...]


class Firewall:
    """The rules of this host. Owner and address come from the engine, ports from /public, uids from the accounts."""

    def __init__(
        self, config: Config, accounts: Accounts, containers: Containers, ports: PortRegistry, clock: Clock
    ) -> None:
        self._config = config
        self._clock = clock
        self._accounts = accounts
        self._containers = containers
        self._ports = ports
        self._lock = threading.Lock()
        self._changes = 0  # how often a user's rules were changed: what was read before is old then
        self._parts: _Parts | None = None
        self._services: list[str] = []  # as of the last look at everything, which comes every few seconds
        self._is_tidy = False  # nothing of another kind of forwarding is left
        self._running: set[str] = set()  # addresses at the last look, and those whose entries were deleted
        self._forgotten: set[str] = set()

    def _on_network(self) -> _Parts:
        """The parts for the containers' bridge, looked up when first needed: the engine may start after us."""
        with self._lock:
            if self._parts is None:
                self._parts = self._make_parts()
            return self._parts

    def _make_parts(self) -> _Parts:
        bridge, config = self._containers.network.bridge(), self._config
        iptables = Forwarding(bridge.name, bridge.address, config.outside_interface)
        networks = Networks(never=config.guard_closed_networks, may=config.guard_open_networks)
        memory = config.paths.state / "ways-out"
        guard = Guard(bridge.name, networks, memory, closed=config.guard, is_labs_own=not config.has_ports)
        proxies = ProxyForwarding(self._containers.proxies, self._listen_address(bridge))
        if config.forwarding == "lxd-proxy":
            return _Parts(proxies, iptables, guard, ())
        if config.has_ports:
            return _Parts(iptables, iptables, guard, (proxies,))
        return _Parts(NoForwards(), iptables, guard, (iptables, proxies))

    def _listen_address(self, bridge: Bridge) -> str:
        """Where proxy devices listen."""
        config = self._config
        if config.forwarding != "lxd-proxy":
            return bridge.gateway
        interface = config.outside_interface or ("" if config.listen_address else machine.outside_interface())
        return config.listen_address or machine.address_of(interface).partition("/")[0]

    def ports_of_others(self) -> set[int]:
        """Host ports that rules of others lead away."""
        return self._on_network().iptables.other_ports()

    @property
    def address(self) -> str:
        """The host's address on which every forward can be tried."""
        return self._on_network().adapter.address

    def check_source(self, source: str | None) -> None:
        """Refuse a forward for one network only where that cannot be had."""
        if source and not self._on_network().adapter.can_limit_sources:
            raise UsageError("source-not-supported", "`--from` is not supported with forwarding = {kind}.",
                             kind=self._config.forwarding)  # fmt: skip

    def forward_user(self, user: str) -> None:
        """Make the live rules of one user equal to what is stored; without a container there are none."""
        self._forward(user, self._containers.get(user))

    def forward(self, container: Container) -> None:
        """The same, for a caller who has just read the container."""
        self._forward(container.name, container)

    def _forward(self, user: str, container: Container | None) -> None:
        uid, port = self._accounts.uid_of(user), self._ports.port_of(user)
        wanted = []
        if container and container.is_service:
            wanted = self._wanted_beside_users(container)
        elif container and uid is not None and port is not None:
            wanted = self._wanted_beside_rivals(container, uid, port)
        adapter = self._on_network().adapter
        with self._lock:
            change = adapter.apply_user(user, wanted)
            self._changes += bool(change)
        if change:
            log.info("rules changed", extra={"user": user, "removed": len(change.remove), "added": len(change.add)})

    def _wanted_beside_rivals(self, container: Container, uid: int, port: int) -> list[Forward]:
        """The rules of one user, without the ports that services and users with overlapping blocks claim."""
        user, (readable, _) = container.name, self._ports.readable_ports()
        ports = {**readable, user: port}
        names = forwards.rivals(user, ports, self._config.ports_per_user)
        uids = self._uids(names)
        return self._wanted_beside(container, [*names, *self._services], {**uids, user: uid}, ports)

    def _wanted_beside_users(self, service: Container) -> list[Forward]:
        """The rules of a service, without ports that users have."""
        ports, _ = self._ports.readable_ports()
        taken = {own.port for own in service.forwards}
        names = [name for name, first in ports.items() if not taken.isdisjoint(self._ports.block(first))]
        return self._wanted_beside(service, names, self._uids(names), ports)

    def _wanted_beside(
        self, container: Container, names: Iterable[str], uids: Mapping[str, int], ports: Mapping[str, int]
    ) -> list[Forward]:
        """The rules of one container, without ports that one of these others claims, too."""
        others = [other for name in names if (other := self._containers.get(name))]
        wanted = self._wanted([container, *others], uids, ports)
        return [forward for forward in wanted if forward.user == container.name]

    def _uids(self, users: Iterable[str]) -> dict[str, int]:
        return {user: uid for user in users if (uid := self._accounts.uid_of(user)) is not None}

    def live(self) -> list[Forward]:
        """The forwards that are live, whether wanted or not."""
        return self._on_network().adapter.live()

    def has_live_rules(self, container: Container, uid: int, port: int) -> bool:
        """Whether the rules of one user are exactly those that should be."""
        live = [forward for forward in self._on_network().adapter.live() if forward.user == container.name]
        return sorted(live) == self._wanted([container], {container.name: uid}, {container.name: port})

    def old_port(self, address: str) -> int | None:
        """The port that a rule made by hand forwards to SSH on this address."""
        return self._on_network().iptables.port_of_others(f"{address}:{SSH}")

    def ports_to(self, address: str) -> set[int]:
        """The host ports that rules made by hand forward to this address."""
        return self._on_network().iptables.ports_to(address)

    def packets(self, user: str) -> int | None:
        """How many connections the rules of one user have taken; None where they are not counted."""
        return self._on_network().adapter.packets(user)

    def forward_policies_that_drop(self) -> list[str]:
        """The variants of iptables whose FORWARD chain drops by default without a jump to our rules."""
        parts = self._on_network()
        found = ["iptables-legacy"] if parts.iptables.is_forward_dropping() else []
        return [*found, "iptables-nft"] if parts.guard.is_forward_dropping() else found

    def plan(self) -> Difference:
        """What reconcile() would change."""
        return forwards.difference(self._on_network().adapter.live(), self._everything_wanted(self._containers.all()))

    def reconcile(self) -> Difference:
        """Make the live rules equal to what is stored.

        No lock is held while the engine is asked. If a user's rules change meanwhile, what was read is old, and
        is read again.
        """
        parts = self._on_network()
        if parts.guard.ensure():
            around = parts.guard.around
            closed = {"ways_out": list(around.ways_out), "closed_servers": list(around.servers)}
            log.info("guard rules put back", extra=closed)
        if not self._is_tidy:
            for adapter in parts.others:
                adapter.remove_all()
            self._is_tidy = True
        if self._config.forwarding == "lxd-proxy":
            parts.iptables.apply([])  # what is around the forwards is needed for the engine's, too
        for _ in range(ATTEMPTS):
            before = self._changes
            containers = self._containers.all() if self._config.has_ports else []
            self._forget_stopped(containers)
            wanted = self._everything_wanted(containers)
            with self._lock:
                if before != self._changes:
                    continue
                change = parts.adapter.apply(wanted)
            if change:
                log.info("rules reconciled", extra={"removed": len(change.remove), "added": len(change.add)})
            return change
        raise TryAgain("firewall-keeps-changing", "The firewall rules keep changing; try again in a moment.")

    def _forget_stopped(self, containers: list[Container]) -> None:
        """Delete the connections of each container that has stopped or gone since the last look.

        Right after the look: of one that has been started since, new connections would break.
        """
        addresses = {item.address: item.state for item in containers if item.address}
        stopped = {address for address, state in addresses.items() if state == "Stopped"}
        running = set(addresses) - stopped
        self.forget((stopped | self._running) - running - self._forgotten)
        self._running, self._forgotten = running, stopped

    def forget(self, addresses: Iterable[str]) -> None:
        """Delete every connection from and to these containers; a kernel that refuses keeps them for their time."""
        if self._config.has_ports:
            try:
                for address in addresses:
                    tracking.forget(address)
            except OSError as error:
                log.warning("connections were not deleted", extra={"why": str(error)})

    def remove_all(self) -> None:
        """Take every rule of labshell's away."""
        parts = self._on_network()
        parts.adapter.remove_all()
        parts.iptables.remove_all()
        parts.guard.remove()

    def _everything_wanted(self, containers: list[Container]) -> list[Forward]:
        """Every rule that should be live; those of a user whose port file is damaged stay as they are."""
        if not self._config.has_ports:
            return []
        ports, damaged = self._ports.readable_ports()
        self._services = [item.name for item in containers if item.is_service]
        wanted = self._wanted(containers, self._accounts.all(), ports)
        if damaged:
            log.error("damaged port files", extra={"users": damaged})
            wanted += [forward for forward in self._on_network().adapter.live() if forward.user in damaged]
        return wanted

    def _wanted(
        self, containers: list[Container], uids: Mapping[str, int], ports: Mapping[str, int]
    ) -> list[Forward]:
        size, now = self._config.ports_per_user, self._clock.seconds()
        wanted = forwards.wanted_forwards(containers, uids, ports, size, now)
        # One that was for a network only, before `forwarding` was changed, is not opened to everybody.
        can_limit = self._on_network().adapter.can_limit_sources
        return [forward for forward in wanted if can_limit or not forward.source]
