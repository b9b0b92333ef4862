"""The addresses of containers: which are taken, which one a container has, and its network device."""

from __future__ import annotations

import secrets

from labshell.engine import records
from labshell.engine.client import Engine
from labshell.engine.errors import translate_errors
from labshell.engine.instances import Instances
from labshell.engine.network import Network
from labshell.engine.proxies import drop_own
from labshell.model import addresses


class Addresses:
    """The addresses of one engine's containers."""

    def __init__(self, engine: Engine, instances: Instances) -> None:
        self._engine = engine
        self._instances = instances
        self._network = instances.network

    def taken(self) -> set[str]:
        """Addresses on the bridge that are pinned or leased to any instance."""
        pinned = {container.address for container in self._instances.all() if container.address}
        return pinned | {address for _, address in self._network.leases()}

    def current(self, name: str) -> str | None:
        """The IPv4 address of a container: the engine's DHCP server's word, not its own but on the lab's network."""
        with translate_errors(name, "be read"):
            if self._network.is_labs_own:
                return self._network.believed(records.current_address(self._engine.read("instances", name, "state")))
            hardware_address = records.hardware_address(self._engine.read("instances", name))
        leases = self._network.leases() if hardware_address else []
        return next((address for owner, address in leases if owner == hardware_address), None)

    def assign(self, name: str, address: str | None) -> None:
        """Connect a stopped container to the network, with this address pinned where addresses are pinned."""
        self._engine.rewrite(name, lambda config, devices, _: connect(self._network, config, devices, address))

    def take_off_network(self, name: str) -> None:
        """Leave a stopped container without a network, so that it holds no address."""

        def change(_: object, devices: dict[str, dict[str, str]], __: object) -> None:
            drop_own(devices)
            devices["eth0"] = {"type": "none"}

        self._engine.rewrite(name, change)


def connect(
    network: Network, config: dict[str, str], devices: dict[str, dict[str, str]], address: str | None
) -> None:
    """Give an instance's config and devices a network device, with this address pinned where addresses are pinned."""
    hardware_address = config.get(records.HARDWARE_ADDRESS) or addresses.hardware_address(secrets.token_bytes(3))
    config.update({records.HARDWARE_ADDRESS: hardware_address, records.ADDRESS: ""})
    drop_own(devices)
    devices["eth0"] = network.nic(address, hardware_address)
