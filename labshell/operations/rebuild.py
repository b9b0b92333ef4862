"""rebuild: a new container from the template in the place of the old one, which is kept until the owner lets it go.

The new one is made and tried beside the old one, which goes on running meanwhile. Only then do they change
places, by two renames. So at no moment is the user's data in one copy that is being worked on, and after a crash
the names alone tell on which side of the change we are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from labshell.engine import identity
from labshell.errors import LabshellError, NoContainer, StillPending, TryAgain, UsageError
from labshell.language import mark
from labshell.model.container import Container
from labshell.model.names import choose_template, name_of_fresh, name_of_kept
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.report import Reports
from labshell.operations.steps import Progress, Steps
from labshell.wire.gateway import ContainerReport

log = logging.getLogger(__name__)
REBUILD, UNDO = "rebuild", "rebuild undo"


class Rebuild:
    """The rebuild verbs of one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._reports = Reports(lab)
        self._config = lab.config
        self._containers = lab.containers
        self._unfinished = lab.unfinished

    def rebuild(self, user: str, uid: int, template: str, *, force: bool) -> Steps[ContainerReport]:
        """A fresh container with the user's keys, address, ports, limits and SSH host keys.

        `template` is one of the marked ones, or empty for the configured one. The old container is kept, stopped,
        under another name; one that was kept before is deleted at the very end.
        """
        with self._lab.locks.held(user):
            old = self._containers.owned(user, uid)
            template = self._chosen(template)
            self._refuse_changing(template)
            self._lab.closed.refuse_if_closed()
            self._lifecycle.refuse_full_pool(old)
            fresh, kept = name_of_fresh(user), self._name_to_keep(user)
            about = {**_about(old, fresh, kept), "superseded": old.kept}
            self._containers.disks.try_write(user)
            with self._recovering(user, REBUILD, **about):
                try:
                    yield from self._make(old, uid, template, fresh)
                    self._containers.disks.check_limit(fresh, old.disk_limit)
                    self._containers.disks.try_write(user)
                    yield Progress("Stopping your container")
                    self._containers.lifecycle.stop(user, self._config.stop_timeout_seconds, force=force)
                except StillPending:
                    raise
                except LabshellError:
                    self._containers.lifecycle.delete(fresh)
                    self._unfinished.forget(user)
                    raise
                yield Progress("Putting the new container in its place")
                # Not before: two containers cannot have the same proxy device.
                self._containers.configuration.take_over(user, fresh, only=False)
                self._change_places(user, incoming=fresh, outgoing=kept, address=old.address)
                self._forget(old.kept)
                yield from self._lifecycle.ensure_running(self._containers.owned(user, uid))
            return self._lifecycle.ready(user, uid)

    def undo(self, user: str, uid: int, *, force: bool) -> Steps[ContainerReport]:
        """The container that the last rebuild kept comes back; the one there now is kept in its stead."""
        with self._lab.locks.held(user):
            current = self._containers.owned(user, uid)
            back, kept = self._kept_of(current), self._name_to_keep(user)
            self._lab.closed.refuse_if_closed()
            self._unfinished.refuse_open(user)
            self._containers.disks.try_write(user)
            self._containers.disks.check_limit(back, current.disk_limit)
            identity.renew_keys(self._containers, back, user, self._lab.accounts.keys_of(user))
            yield Progress("Stopping your container")
            self._containers.lifecycle.stop(user, self._config.stop_timeout_seconds, force=force)
            yield Progress("Putting the old container in its place")
            with self._recovering(user, UNDO, **_about(current, back, kept)):
                self._containers.configuration.take_over(user, back, only=True)
                self._change_places(user, incoming=back, outgoing=kept, address=current.address)
                yield from self._lifecycle.ensure_running(self._containers.owned(user, uid))
            return self._lifecycle.ready(user, uid)

    def forget(self, user: str, uid: int) -> Steps[ContainerReport]:
        """Delete the container that the last rebuild kept."""
        with self._lab.locks.held(user):
            kept = self._kept_of(self._containers.owned(user, uid))
            yield Progress("Deleting the container kept from before the rebuild")
            self._containers.lifecycle.delete(kept)
            self._containers.marks.set_kept(user, "")
        return self._reports.status(user, uid)

    def look_at_template(self, user: str, uid: int, template: str) -> Steps[ContainerReport]:
        """Change nothing; UsageError if a rebuild would find no such template."""
        self._containers.owned(user, uid)
        self._chosen(template)
        yield from ()
        return self._reports.status(user, uid)

    def look_at_kept(self, user: str, uid: int) -> Steps[ContainerReport]:
        """Change nothing; UsageError if no container is kept."""
        self._kept_of(self._containers.owned(user, uid))
        yield from ()
        return self._reports.status(user, uid)

    def _chosen(self, template: str) -> str:
        usual = self._config.template
        return choose_template(template or usual, self._containers.templates(), usual)

    def _make(self, old: Container, uid: int, template: str, fresh: str) -> Steps[None]:
        """The new container beside the old one, with another address for now, tried and stopped."""
        user = old.name
        yield Progress("Cloning the template {template}", {"template": template})
        self._containers.lifecycle.delete(fresh)
        with self._lab.addresses.choosing() as address:
            self._containers.clones.make(template, fresh, user, uid, address)
        yield Progress("Giving it your keys, your ports and your host keys")
        keys_file = self._config.paths.host_keys / user
        public = identity.write_identity(self._containers, fresh, hostname=user, keys_file=keys_file)
        self._containers.marks.set_host_key(fresh, public)
        made = self._containers.get(fresh)
        if made is None:
            raise NoContainer("container-missing", "There is no container {name}.", name=fresh)
        yield from self._lifecycle.ensure_running(made)
        identity.write_user(self._containers, fresh, user, self._lab.accounts.keys_of(user))
        self._containers.marks.set_prepared(fresh)
        self._containers.lifecycle.stop(fresh, self._config.stop_timeout_seconds, force=True)

    def _change_places(self, user: str, *, incoming: str, outgoing: str, address: str | None) -> None:
        """`incoming` becomes the user's container and the one they have becomes `outgoing`; both are stopped.

        An address may be pinned once only, or neither container starts.
        """
        self._containers.marks.set_kept(user, "")
        self._containers.addresses.take_off_network(user)
        self._containers.lifecycle.rename(user, outgoing)
        self._move_in(user, incoming=incoming, outgoing=outgoing, address=address)

    def _move_in(self, user: str, *, incoming: str, outgoing: str, address: str | None) -> None:
        self._containers.addresses.assign(incoming, address)
        self._containers.marks.set_kept(incoming, outgoing)
        self._containers.lifecycle.rename(incoming, user)

    @contextlib.contextmanager
    def _recovering(self, user: str, verb: str, **about: Any) -> Iterator[None]:
        """Note the work. If something in it fails, it is settled at once; if that fails, too, at the next request."""
        with self._unfinished.work(user, verb, **about):
            try:
                yield
            except StillPending:
                raise
            except LabshellError as error:
                work = self._unfinished.work_of(user)
                try:
                    if work is not None:
                        self.recover(user, work)
                except LabshellError as other:
                    log.warning("not settled", extra={"user": user, "verb": verb, "why": str(other)})
                    raise StillPending.around(error, error.sentence, **error.values) from error
                raise

    def recover(self, user: str, work: dict[str, Any]) -> None:
        """If the old container had moved out, the new one moves in; else everything is as it was.

        If a container ran before, the user's runs afterwards.
        """
        incoming, outgoing, address = work["incoming"], work["outgoing"], work["address"]
        for name in (user, incoming, outgoing):
            self._containers.lifecycle.wait_until_idle(name)
        if self._containers.get(outgoing) is not None:
            if self._containers.get(user) is None:
                self._move_in(user, incoming=incoming, outgoing=outgoing, address=address)
            self._forget(work.get("superseded", ""))
            sentence = (
                mark(
                    "rebuild was interrupted, but your new container is there; rebuild undo brings the old one back."
                )
                if work["verb"] == REBUILD
                else mark("rebuild undo was interrupted, but your old container is back.")
            )
        else:
            self._containers.addresses.assign(user, address)
            if work["verb"] == REBUILD:
                self._containers.lifecycle.delete(incoming)
            self._containers.marks.set_kept(user, work["superseded"] if work["verb"] == REBUILD else incoming)
            sentence = mark("{verb} was interrupted: your container is as it was before.")
        self._unfinished.settled(user, sentence, verb=work["verb"])
        if work.get("running"):
            self._lifecycle.start_again(user)

    def _refuse_changing(self, template: str) -> None:
        now = self._containers.get(template)
        if now is not None and now.state != "Stopped":
            raise TryAgain(
                "template-changing", "The template {name} is being changed; try again later.", name=template
            )

    def _kept_of(self, container: Container) -> str:
        if not container.kept or self._containers.get(container.kept) is None:
            raise UsageError("kept-container-missing", "No container is kept from before a rebuild.")
        return container.kept

    def _forget(self, kept: str) -> None:
        """The container of the rebuild before the last one; if it stays, it takes room and nothing else."""
        try:
            if kept:
                self._containers.lifecycle.delete(kept)
        except LabshellError as error:
            log.warning("not deleted", extra={"container": kept, "why": str(error)})

    def _name_to_keep(self, user: str) -> str:
        return name_of_kept(user, self._lab.clock.now())


def _about(container: Container, incoming: str, outgoing: str) -> dict[str, Any]:
    """What recovering needs to know of a change of places with the user's container as it is now."""
    was_running = container.state != "Stopped"
    return {"incoming": incoming, "outgoing": outgoing, "address": container.address, "running": was_running}
