"""remove-user: an archive, then everything that a user has is freed. Idempotent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from labshell.engine import identity
from labshell.errors import TryAgain, UsageError
from labshell.model import keys
from labshell.operations import plans
from labshell.operations.archives import Archives
from labshell.operations.lab import Lab
from labshell.operations.steps import NamedStep, Progress, Steps, Undo, do
from labshell.operations.user_operation import UserOperation
from labshell.wire.admin import RemovedUser


class RemoveUser(UserOperation):
    """Removing the users of one host."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._archives = Archives(lab.containers, Path(lab.config.archive))

    def remove(self, name: str, *, archive: bool = True, dry_run: bool = False) -> Steps[RemovedUser]:
        """Archive, then free everything: sessions, rules, container, port, keys, account. Idempotent."""
        self._users.refuse_unknown(name)
        container = self._containers.get(name)
        if container is not None and container.owner != name:
            raise UsageError(
                "container-not-managed", "The container {name} is not labshell's; nothing was removed.", name=name
            )
        undo = Undo("labshell-admin remove-user is to be run again.")
        with self._lab.locks.held(name):
            undo.later(self._host_accounts.unlock, name)
            archives = self._archives_of(name) if archive else {}
            self._archives.refuse_without_room(archives)
            paths = [str(path) for path in archives.values()]
            if dry_run:
                return {"archives": paths, "would": self._would_remove(name, paths)}
            yield from do(name, "removed", self._steps_to_keep(name, archives), undo)
            for step, act in self._steps_to_free(name):
                yield Progress(step)
                act()
        return {"archives": paths}

    def _would_remove(self, name: str, paths: Sequence[str]) -> list[str]:
        ports = self._user_ports.span(self._user_ports.of(name))
        containers = self._containers.all_of(name)
        days = self._config.port_quarantine_days
        return plans.to_remove(name, self._accounts.uid_of(name), containers, paths, ports, days)

    def _steps_to_keep(self, name: str, archives: Mapping[str, Path]) -> Iterator[NamedStep]:
        """Up to here nothing is lost: if one of these fails, the account is unlocked again."""
        if self._accounts.uid_of(name) is not None:
            yield "Locking the account", lambda: self._accounts.lock(name)
        yield "Stopping the container", lambda: self._stop_for_removal(name, self._config.stop_timeout_seconds)
        for instance, path in archives.items():
            yield "Archiving the container", partial(self._archives.write, instance, path, self._about(name))

    def _steps_to_free(self, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
        """The account, by which it is known that there is something to remove, is locked and goes last."""
        for instance in self._containers.all_of(name):
            yield "Deleting the container", partial(self._containers.lifecycle.delete, instance.name)
        yield "Removing the rules", lambda: self._firewall.forward_user(name)
        yield "Forgetting what was unfinished", lambda: self._host_accounts.forget_earlier(name)
        yield "Freeing the ports", lambda: self._ports.release(name)
        yield "Removing the account and its keys", lambda: self._accounts.remove(name)

    def _stop_for_removal(self, name: str, timeout_seconds: int) -> None:
        try:
            self._containers.lifecycle.stop(name, timeout_seconds)
        except TryAgain:
            self._containers.lifecycle.stop(name, timeout_seconds, force=True)

    def _archives_of(self, name: str) -> dict[str, Path]:
        """Which of the user's containers goes into which file: their own, and one kept from before a rebuild."""
        moment = self._lab.clock.now().strftime("%Y%m%dT%H%M%SZ")
        kept = [container.name for container in self._containers.all_of(name) if container.is_prepared]
        return {instance: self._archives.path_for(instance, moment) for instance in sorted(kept)}

    def _about(self, name: str) -> dict[str, Any]:
        """What restore() needs beside the container."""
        lines = [keys.line_on_host(key) for key in self._accounts.keys_of(name)]
        host_keys = identity.kept_host_keys(self._config.paths.host_keys / name)
        return {"keys": lines, "port": self._ports.port_of(name), "host_keys": host_keys}
