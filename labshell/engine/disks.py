"""The disk of a container that has a limit: how full it is, and room on it for the engine to write."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from labshell import shown
from labshell.engine.client import Engine
from labshell.engine.errors import CHANGE, DiskFull, retry_while_busy, translate_errors
from labshell.engine.instances import Instances
from labshell.engine.reserve import PARTS, WHOLE, Reserve
from labshell.errors import LabshellError, UsageError
from labshell.model import usage
from labshell.model.container import Container

log = logging.getLogger(__name__)
ROOM_BYTES = 4 << 20  # what has to be left on a disk for the engine to write there


class Disks:
    """The disks of one engine's containers."""

    def __init__(self, engine: Engine, instances: Instances) -> None:
        self._engine = engine
        self._instances = instances
        self._pools = instances.pools
        self._reserve = Reserve(engine)

    def use_of(self, container: Container) -> tuple[int, int] | None:
        """Bytes used and in all of the container's own disk; None if it has no limit, or the pool can set none."""
        limit = shown.bytes_of(container.disk_limit)
        used = self._instances.usage(container).disk if limit else None
        return (used, limit) if used and limit else None

    def is_full(self, container: Container) -> bool:
        """Whether a container has a disk limit, and next to nothing is left of it."""
        return usage.is_full(*(self.use_of(container) or (0, 0)))

    def check_limit(self, name: str, size: str, snapshot: str = "") -> None:
        """Refuse a disk limit that is less than what is in a container, or in one of its snapshots, on btrfs.

        LXD 5.0 sets it there, says that it could not, and cannot take it back. "" is no limit.
        """
        limit = shown.bytes_of(size)
        if limit is None:
            return
        container = self._instances.get(name)
        if container is None:
            return
        held = self._pools.held_by_snapshot(container, snapshot) if snapshot else self._pools.held_by(container)
        if held is not None and limit < held + ROOM_BYTES:
            raise UsageError(
                "disk-limit-too-small",
                "A disk limit of {size} is too little for {name}, in which there are {held}.",
                size=size,
                name=snapshot or name,
                held=shown.size(held),
            )

    def try_write(self, name: str, action: str = CHANGE) -> None:
        """Have the engine write what it writes on the container's disk at every change; DiskFull if it cannot.

        A start that fails on a full disk makes LXD 5.0 count it as in use until the engine is restarted, and then it
        restores no snapshot there, which would make room.
        """
        with translate_errors(name, action):
            self._engine.patch(name, {})

    def free_reserve_if_full(self, name: str) -> None:
        container = self._instances.get(name)
        if container is not None and self.is_full(container):
            self._reserve.free(name)

    def keep_reserve_unless_full(self, name: str) -> None:
        container = self._instances.get(name)
        if container is not None and not self.is_full(container):
            self._keep_reserve(container, (WHOLE, *PARTS))

    def make_room(self, container: Container, action: str) -> bool:
        """Have room for a start on a disk that has a limit; whether its reserve had to be given up for it."""
        name = container.name
        is_given_up = self.is_full(container) and self._reserve.free(name)
        try:
            retry_while_busy(self.try_write)(name, action)
        except DiskFull:  # the figure may be some seconds old
            if is_given_up or not self._reserve.free(name):
                raise
            is_given_up = True
            retry_while_busy(self.try_write)(name, action)
        used, total = self.use_of(container) or (0, 5 * WHOLE)  # not counted yet: the first limit of a pool
        if total - used > 4 * WHOLE and not is_given_up:
            self._keep_reserve(container, (WHOLE,))
        return is_given_up

    def keep_reserve_in_parts(self, container: Container) -> None:
        """Have a reserve again after a start on a full disk: the most that fits."""
        self._keep_reserve(container, PARTS)

    def _keep_reserve(self, container: Container, sizes: Sequence[int]) -> None:
        """Have a reserve again. Without one the container works, so no failure is anything but logged."""
        with contextlib.suppress(LabshellError):
            if not self._pools.can_limit(container.pool) or self._reserve.keep(container.name, sizes):
                return
        log.warning("no reserve on its disk", extra={"container": container.name})
