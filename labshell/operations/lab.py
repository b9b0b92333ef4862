"""One host put together: the verbs over the real effects, for the daemon and an administrator's own commands."""

from __future__ import annotations

from labshell.config import Config
from labshell.engine.client import Engine
from labshell.engine.containers import containers_of
from labshell.host.accounts import Accounts
from labshell.host.ports import PortRegistry, listening_ports
from labshell.model.ports import PortPool
from labshell.operations.gateway import Gateway


def make_gateway(config: Config) -> Gateway:
    """The verbs over the real effects."""
    engine = Engine(config.engine_socket)
    containers = containers_of(config, engine)
    pool = PortPool(*config.port_range, config.ports_per_user)
    gateway: Gateway

    def busy_ports() -> set[int]:
        services = {own.port for item in containers.all() if item.is_service for own in item.forwards}
        return listening_ports() | containers.proxies.ports_taken() | gateway.firewall.ports_of_others() | services

    ports = PortRegistry(config.paths, pool, config.port_quarantine_days, listening=busy_ports)
    gateway = Gateway(config, Accounts(config.paths, config.uid_range), containers, ports)
    return gateway
