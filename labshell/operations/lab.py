"""One host put together: what every operation works on, made once and passed down.

An operation keeps nothing that another one needs: what they share is here.
"""

from __future__ import annotations

from dataclasses import dataclass

from labshell.config import Config
from labshell.engine.client import Engine
from labshell.engine.containers import Containers, containers_of
from labshell.forwarding.firewall import Firewall
from labshell.host.accounts import Accounts
from labshell.host.activity import Activity
from labshell.host.changes import ChangeLog
from labshell.host.clock import Clock
from labshell.host.closed import Closed
from labshell.host.ports import PortRegistry, listening_ports
from labshell.model.ports import PortPool
from labshell.operations.addresses import Addresses
from labshell.operations.locks import StartQueue, UserLocks
from labshell.operations.unfinished import Unfinished


@dataclass(frozen=True)
class Lab:
    """The outside things of one host, and what its operations share."""

    config: Config
    engine: Engine
    accounts: Accounts
    containers: Containers
    ports: PortRegistry
    firewall: Firewall
    locks: UserLocks
    starts: StartQueue
    addresses: Addresses
    unfinished: Unfinished
    closed: Closed
    activity: Activity
    changes: ChangeLog
    clock: Clock


def build(config: Config) -> Lab:
    """The lab over the real effects. Nothing is asked or changed yet."""
    engine = Engine(config.engine_socket)
    accounts, containers = Accounts(config.paths, config.uid_range), containers_of(config, engine)
    clock = Clock()
    firewall: Firewall

    def busy_ports() -> set[int]:
        services = {own.port for item in containers.all() if item.is_service for own in item.forwards}
        return listening_ports() | containers.proxies.ports_taken() | firewall.ports_of_others() | services

    pool = PortPool(*config.port_range, config.ports_per_user)
    ports = PortRegistry(config.paths, pool, config.port_quarantine_days, listening=busy_ports, clock=clock)
    firewall = Firewall(config, accounts, containers, ports, clock)
    return assemble(config, engine, accounts, containers, ports, firewall, clock)


def assemble(
    config: Config,
    engine: Engine,
    accounts: Accounts,
    containers: Containers,
    ports: PortRegistry,
    firewall: Firewall,
    clock: Clock,
) -> Lab:
    """A lab over these outside things, with locks and notes of its own."""
    state = config.paths.state
    unfinished = Unfinished(state / "unfinished")
    return Lab(
        config=config,
        engine=engine,
        accounts=accounts,
        containers=containers,
        ports=ports,
        firewall=firewall,
        locks=UserLocks(config.start_timeout_seconds + config.stop_timeout_seconds),
        starts=StartQueue(config.parallel_starts),
        addresses=Addresses(config, containers, unfinished),
        unfinished=unfinished,
        closed=Closed(state / "closed"),
        activity=Activity(state / "activity.json"),
        changes=ChangeLog(state / "changes.log", clock),
        clock=clock,
    )
