"""Snapshots of containers, in the engine."""

from __future__ import annotations

import contextlib

from labshell.engine import records
from labshell.engine.client import Engine
from labshell.engine.disks import Disks
from labshell.engine.errors import LEFT_SNAPSHOT, Missing, retry_while_busy, translate_errors
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
        with translate_errors(name, "be read"):
            items = self._engine.read_all("instances", name, "snapshots", recursion="1")
        found = [records.snapshot_of(item) for item in items]
        return sorted(found, key=lambda snapshot: snapshot.created)

    def take(self, name: str, label: str) -> None:
        """Keep the state of a container; DiskFull, and nothing is begun, if its own disk takes nothing any more.

        On a full disk LXD 5.0 makes a snapshot that it then does not know, and never deletes that container again. If
        it is asked for the same once more, it takes that one for the new one.
        """
        container = self._instances.get(name)
        if container is not None and self._instances.pools.has_on_disk(container, label):
            raise LabshellError(*LEFT_SNAPSHOT, name=name, action=KEEP)
        retry_while_busy(self._disks.try_write)(name, KEEP)
        with translate_errors(name, KEEP):
            body = {"name": label, "stateful": False}
            self._engine.post("instances", name, "snapshots", body=body)

    @retry_while_busy
    def restore(self, name: str, label: str) -> None:
        """Take the files and settings of a stopped container back to a snapshot."""
        with translate_errors(name, RESTORE):
            self._engine.put("instances", name, body={"restore": label})

    def delete(self, name: str, label: str) -> None:
        with translate_errors(name, "lose a snapshot"), contextlib.suppress(Missing):
            self._engine.delete("instances", name, "snapshots", label)
