"""The snapshot verbs: kept states of a container. What a crash cuts off is recovered at the user's next request."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from labshell import shown
from labshell.engine import identity
from labshell.engine.errors import DiskFull
from labshell.engine.lifecycle import STOP_SECONDS
from labshell.engine.snapshots import KEEP, RESTORE
from labshell.errors import LabshellError, StillPending, UsageError
from labshell.language import mark
from labshell.model.keys import PublicKey
from labshell.model.snapshots import name_of_snapshot
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.steps import Progress, Steps
from labshell.wire.gateway import Snapshot

CREATING, RESTORING = "snapshot create", "snapshot restore"


class Snapshots:
    """One host's snapshots."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._containers = lab.containers
        self._unfinished = lab.unfinished

    def list(self, user: str, uid: int) -> list[Snapshot]:
        """The user's snapshots, oldest first."""
        self._containers.owned(user, uid)
        found = self._containers.snapshots.of(user)
        return [
            {
                "name": snapshot.name,
                "created": shown.rfc3339(snapshot.created) or snapshot.created,
                "size": snapshot.size,
            }
            for snapshot in found
        ]

    def create(self, user: str, uid: int, name: str) -> Steps[None]:
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            existing = [snapshot.name for snapshot in self._containers.snapshots.of(user)]
            now = self._lab.clock.now().strftime("%Y-%m-%d-%H%M%S")
            label = name_of_snapshot(name, existing, self._lab.config.snapshots_per_user, now)
            self._lifecycle.refuse_full_pool(container, KEEP)
            yield Progress("Keeping the container's state as {name}", {"name": label})
            with self._unfinished.work(user, CREATING, name=label):
                self._containers.snapshots.take(user, label)

    def restore(self, user: str, uid: int, name: str) -> Steps[None]:
        """Back to a snapshot: what changed since is gone. A container that ran runs again afterwards.

        It is stopped and started here and not by the engine, which would do both in one act that fails as a whole
        and says of a container that did not start again only that it "cannot be restored".
        """
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            self._existing(user, name)
            self._lifecycle.refuse_full_pool(container, RESTORE)
            self._containers.disks.check_limit(user, container.disk_limit, snapshot=name)
            was_running = container.state != "Stopped"
            if was_running:
                self._lab.closed.refuse_if_closed()
            public_keys = self._lab.accounts.keys_of(user)
            yield Progress("Going back to {name}", {"name": name})
            settings, over = self._containers.configuration.read(user), self._unfinished.work_of(user)
            if over is not None and over["verb"] == RESTORING:
                settings = over["settings"]  # what the container has now may be the snapshot's
            about = {"name": name, "settings": settings, "token": self._mark(user), "running": was_running}
            with self._unfinished.work(user, RESTORING, over=over, **about):
                self._containers.lifecycle.stop(user, STOP_SECONDS, force=True)
                failure = self._go_back(user, name)
                self._put_back(user, settings, public_keys, failure)
            try:
                if was_running:
                    yield from self._lifecycle.ensure_running(self._containers.owned(user, uid))
            except LabshellError:
                if failure is None:
                    raise
            if failure is not None:
                raise failure

    def _mark(self, user: str) -> str:
        """A mark that the restore takes away; empty if a full disk takes none, which going back is to empty."""
        token = secrets.token_hex(8)
        try:
            self._containers.marks.set_restoring(user, token)
        except DiskFull:
            return ""
        return token

    def _go_back(self, user: str, name: str) -> LabshellError | None:
        """Restore a stopped container; why not, if the engine could not and has let go of it."""
        try:
            self._containers.snapshots.restore(user, name)
        except StillPending:
            raise  # the engine may still be at it
        except LabshellError as error:
            return error
        return None

    def _put_back(
        self, user: str, settings: dict[str, Any], public_keys: Sequence[PublicKey], failure: LabshellError | None
    ) -> None:
        """Today's keys and settings again. If that fails after a restore, its note stays, and it is tried again."""
        try:
            identity.renew_keys(self._containers, user, user, public_keys)
            self._containers.configuration.put_back(user, settings)
        except LabshellError as error:
            if failure is None:
                raise StillPending.around(error, error.sentence, **error.values) from error

    def delete(self, user: str, uid: int, name: str) -> Steps[None]:
        with self._lab.locks.held(user):
            self._containers.owned(user, uid)
            self._existing(user, name)
            yield Progress("Deleting {name}", {"name": name})
            self._containers.snapshots.delete(user, name)

    def look(self, user: str, uid: int, name: str) -> Steps[None]:
        """Change nothing; UsageError if there is no such snapshot."""
        self._containers.owned(user, uid)
        self._existing(user, name)
        yield from ()

    def _existing(self, user: str, name: str) -> None:
        names = [snapshot.name for snapshot in self._containers.snapshots.of(user)]
        if not names:
            raise UsageError("snapshots-none", "You have no snapshots; `snapshot create` makes one.")
        if name not in names:
            raise UsageError(
                "snapshot-missing",
                "You have no snapshot {name}, but these: {names}",
                name=shown.plain(name)[:40],
                names=", ".join(names),
            )

    def recover_create(self, user: str, work: dict[str, Any]) -> None:
        self._containers.lifecycle.wait_until_idle(user)
        if work["name"] in [snapshot.name for snapshot in self._containers.snapshots.of(user)]:
            self._unfinished.settled(user, "snapshot create was interrupted, but {name} is kept.", name=work["name"])
        else:
            self._unfinished.settled(user, "snapshot create was interrupted: {name} was not kept.", name=work["name"])

    def recover_restore(self, user: str, work: dict[str, Any]) -> None:
        self._containers.lifecycle.wait_until_idle(user)
        was_restored = not self._containers.marks.is_restoring(user, work["token"])
        identity.renew_keys(self._containers, user, user, self._lab.accounts.keys_of(user))
        self._containers.configuration.put_back(user, work["settings"])
        if not work["token"]:
            sentence = mark(
                "snapshot restore was interrupted: your container is as it was before, or as at {name} already."
            )
        elif was_restored:
            sentence = mark("snapshot restore was interrupted, but your container is as it was at {name}.")
        else:
            sentence = mark("snapshot restore was interrupted: your container is as it was before.")
        self._unfinished.settled(user, sentence, name=work["name"])
        if work.get("running"):
            self._lifecycle.start_again(user)
