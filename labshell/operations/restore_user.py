"""restore-user: a removed user comes back from an archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labshell.engine import identity
from labshell.errors import UsageError
from labshell.model import keys
from labshell.model.names import checked_name
from labshell.operations.archives import Archives
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.steps import CLEAN_UP, NamedStep, Steps, Undo, do
from labshell.operations.user_operation import UserOperation
from labshell.wire.admin import RestoredUser


class RestoreUser(UserOperation):
    """Restoring the users of one host."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._archives = Archives(lab.containers, Path(lab.config.archive))
        self._lifecycle = Lifecycle(lab)

    def restore(self, archive: str, *, dry_run: bool = False) -> Steps[RestoredUser]:
        """Restore a user from an archive: data, keys, own forwards and, if it is free, the same port."""
        path, undo = Path(archive), Undo(CLEAN_UP)
        name = checked_name(self._archives.user_in(path))
        with self._lab.locks.held(name):
            if self._users.is_known(name) or self._containers.get(name) is not None:
                raise UsageError("restored-name-taken", "There is a user or a container {name} already.", name=name)
            self._lab.closed.refuse_if_closed()
            if dry_run:
                return self._plan_to_restore(name, path)
            undo.later(self._firewall.forward_user, name)
            yield from do(name, "restored", self._steps_to_restore(name, path, undo), undo)
        return {"user": self._users.show(name)}

    def _plan_to_restore(self, name: str, path: Path) -> RestoredUser:
        uid, address = self._host_accounts.next_uid(), self._lab.addresses.next()
        at = f" at {address}" if address else ""
        would = [
            f"Would import {path} as the container {name}{at}, with the limits that it had.",
            f"Would make the account {name} (uid {uid}) with the keys that it had.",
            *([f"Would give {name} the same ports as before if they are free."] if self._config.has_ports else []),
            f"Would start the container {name} and wait for its SSH server.",
        ]
        return {"plan": {"user": name, "uid": uid, "address": address}, "would": would}

    def _steps_to_restore(self, name: str, path: Path, undo: Undo) -> Iterator[NamedStep]:
        about: dict[str, Any] = {}

        def container() -> None:
            undo.later(self._containers.lifecycle.delete, name)
            self._containers.backups.restore(name, path)
            about.update(self._archives.about(name))
            if not about.get("keys"):
                raise UsageError(
                    "archive-without-keys", "{path} was not made by labshell: it has no keys in it.", path=path
                )

        def account() -> None:
            undo.later(self._accounts.give_up, name)
            undo.later(self._host_accounts.forget_earlier, name)
            public_keys = keys.readable(keys.parse_authorized_keys("\n".join(about["keys"])))
            uid = self._host_accounts.make(name, public_keys)
            if about.get("host_keys"):  # for a rebuild
                identity.save_host_keys(self._config.paths.host_keys / name, about["host_keys"])
            with self._lab.addresses.choosing() as address:
                self._containers.configuration.give_to(name, name, uid, address)
            identity.renew_keys(self._containers, name, name, public_keys)
            self._host_accounts.unlock(name)

        def port() -> None:
            undo.later(self._ports.give_up, name)
            old = about["port"]
            try:
                self._ports.ensure(name, old, even_resting=True)
            except UsageError:
                given = self._ports.ensure(name)
                container = self._containers.owned(name, self._host_accounts.uid(name))
                self._user_ports.move_forwards(name, container.forwards, old, given)

        def start() -> Steps[None]:
            yield from self._lifecycle.ensure_running(self._containers.owned(name, self._host_accounts.uid(name)))
            self._firewall.forward_user(name)

        yield "Importing the archive", container
        yield "Making the account", account
        if self._config.has_ports:
            yield "Reserving the ports", port
        yield "Starting the container", start
        if self._config.has_ports:
            yield "Connecting through the forwarded port", lambda: self._user_ports.try_port(name)
