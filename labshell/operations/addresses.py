"""Addresses for new containers, each given once while several are being made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from labshell.config import Config
from labshell.engine.containers import Containers
from labshell.host import files
from labshell.model.addresses import choose_address
from labshell.operations.unfinished import Unfinished


class Addresses:
    """The free addresses on the containers' bridge."""

    def __init__(self, config: Config, containers: Containers, unfinished: Unfinished) -> None:
        self._lock_file = config.paths.run / "addresses.lock"
        self._containers = containers
        self._unfinished = unfinished
        self._promised: set[str] = set()  # addresses of containers that are being made

    @contextlib.contextmanager
    def choosing(self) -> Iterator[str]:
        """A free address on the bridge, reserved while the block makes the container that has it.

        Empty where the lab's own network gives the addresses.
        """
        network = self._containers.network
        if network.is_labs_own:
            yield ""
            return
        with files.locked(self._lock_file):
            bridge = network.bridge()
            taken = set(self._promised)  # first: one that is made meanwhile is among the others' then
            taken |= self._containers.addresses.taken() | self._unfinished.addresses()
            address = choose_address(bridge.address, taken, bridge.strangers)
            self._promised.add(address)
        try:
            yield address
        finally:
            self._promised.discard(address)

    def next(self) -> str:
        """The address that choosing() would give now."""
        with self.choosing() as address:
            return address
