"""The lab's containers: read as a whole, and changed by the part that is for it."""

from __future__ import annotations

from pathlib import Path

from labshell.config import Config
from labshell.engine.addresses import Addresses
from labshell.engine.backups import Backups
from labshell.engine.client import Engine
from labshell.engine.clone import Clones
from labshell.engine.configuration import Configuration
from labshell.engine.disks import Disks
from labshell.engine.inside import Inside
from labshell.engine.instances import Instances
from labshell.engine.lifecycle import Lifecycle
from labshell.engine.marks import Marks
from labshell.engine.network import Network
from labshell.engine.proxies import Proxies
from labshell.engine.snapshots import Snapshots


class Containers(Instances):
    """The containers of one engine: `get`, `owned` and `all` read them, `lifecycle.start` starts one, and so on."""

    def __init__(
        self, engine: Engine, network: Network, pool: str, state: Path, *, nvidia_runtime: bool = False
    ) -> None:
        super().__init__(engine, network)
        self.addresses = Addresses(engine, self)
        self.backups = Backups(engine, pool)
        self.clones = Clones(engine, self, pool)
        self.disks = Disks(engine, self)
        self.configuration = Configuration(engine, network, self.disks, nvidia_runtime=nvidia_runtime)
        self.inside = Inside(engine, state)
        self.lifecycle = Lifecycle(engine, self, self.disks)
        self.marks = Marks(engine)
        self.proxies = Proxies(engine)
        self.snapshots = Snapshots(engine, self, self.disks)


def containers_of(config: Config, engine: Engine) -> Containers:
    """The containers of the host that a configuration describes."""
    network = Network(engine, config.network, is_labs_own=not config.has_ports)
    return Containers(engine, network, config.pool, config.paths.state, nvidia_runtime=config.nvidia_runtime)
