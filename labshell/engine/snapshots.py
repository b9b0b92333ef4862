"""Snapshots of containers, in the engine."""

from __future__ import annotations

import contextlib

from pylxd.exceptions import NotFound

from labshell.engine import records
from labshell.engine.client import COPY_SECONDS, LEFT_SNAPSHOT, Engine, asking, patient
from labshell.engine.disks import Disks
from labshell.engine.instances import Instances
from labshell.errors import LabshellError
from labshell.language import mark
from labshell.model.snapshots import Snapshot

KEEP, RESTORE = mark("be kept"), mark("be restored")


class Snapshots:
    """The snapshots of one engine's containers."""

    def __init__(self, engine: Engine, instances: Instances, disks: Disks) -> None:
        self._engine = engine
        self._instances = instances
        self._disks = disks

    def of(self, name: str) -> list[Snapshot]:
        with asking(name, "be read"):
            items = self._engine.instance(name).snapshots.get(params={"recursion": 1}).json()["metadata"] or []
        found = [records.snapshot_of(item) for item in items]
        return sorted(found, key=lambda snapshot: snapshot.created)

    def take(self, name: str, label: str) -> None:
        """Keep the state of a container; DiskFull, and nothing is begun, if its own disk takes nothing any more.

        On a full disk LXD 5.0 makes a snapshot that it then does not know, and never deletes that container again. If
        it is asked for the same once more, it takes that one for the new one.
        """
        container = self._instances.get(name)
        if container is not None and self._instances.pools.has_on_disk(container, label):
            raise LabshellError(LEFT_SNAPSHOT, name=name, action=KEEP)
        patient(self._disks.try_write)(name, KEEP)
        with asking(name, KEEP):
            body = {"name": label, "stateful": False}
            self._engine.wait(self._engine.instance(name).snapshots.post(json=body), COPY_SECONDS)

    @patient
    def restore(self, name: str, label: str) -> None:
        """Take the files and settings of a stopped container back to a snapshot."""
        with asking(name, RESTORE):
            self._engine.wait(self._engine.instance(name).put(json={"restore": label}), COPY_SECONDS)

    def delete(self, name: str, label: str) -> None:
        with asking(name, "lose a snapshot"), contextlib.suppress(NotFound):
            self._engine.wait(self._engine.instance(name).snapshots[label].delete(), COPY_SECONDS)
