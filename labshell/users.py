"""Researchers coming and going: each verb of the administrator's as steps that are undone if a later one fails.

Every step makes something so and is harmless twice, so a second add-user goes on where a crash stopped the
first. What was there before is never undone.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labshell import files, identity, policy
from labshell.containers import ssh_answers
from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.gateway import Gateway, Progress, Steps
from labshell.keys import PublicKey

log = logging.getLogger(__name__)
FORWARDED_BANNER_SECONDS = 5.0


@dataclass(frozen=True)
class NewUser:
    """What add-user was asked for; `limits` as Containers.clone() takes them."""

    name: str
    keys: tuple[PublicKey, ...]
    template: str
    port: int | None
    limits: dict[str, str]


class _Undo:
    """What to do, in reverse order, if the steps do not all succeed; failures on the way are collected."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._problems: list[str] = []

    def __enter__(self) -> None:
        self._stack.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def later(self, act: Callable[[str], object], name: str) -> None:
        self._stack.callback(self._try, act, name)

    def forget(self) -> None:
        self._stack.pop_all()

    def _try(self, act: Callable[[str], object], name: str) -> None:
        try:
            act(name)
        except LabshellError as error:
            log.exception("undoing failed", extra={"user": name})
            self._problems.append(str(error))

    @property
    def sentence(self) -> str:
        if self._problems:
            return "Not everything could be undone: " + " ".join(self._problems) + " Run remove-user to clean up."
        return "What the steps before it did has been undone."


class Users:
    """The administrator's verbs on people."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._config = gateway.config
        self._accounts = gateway.accounts
        self._containers = gateway.containers
        self._ports = gateway.ports
        self._firewall = gateway.firewall

    # Adding --------------------------------------------------------------------------------------------

    def add(self, new: NewUser, *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Account, keys, container, port, identity, rules, start, and a banner through the forwarded port."""
        step, undo = "", _Undo()
        with self._gateway.locks.held(new.name):
            self._check(new)
            try:
                with undo:
                    undo.later(self._firewall.forward_user, new.name)
                    for step, act in self._steps_to_add(new, undo):
                        yield Progress(step)
                        if not dry_run:
                            yield from act()
                    undo.forget()
            except LabshellError as error:
                raise type(error)(
                    '{name} was not added: it failed at the step "{step}". {reason} {undone}',
                    name=new.name,
                    step=step,
                    reason=error,
                    undone=undo.sentence,
                ) from error
        return {} if dry_run else self.show(new.name)

    def _check(self, new: NewUser) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        policy.checked_name(new.name)
        if not new.keys:
            raise UsageError("{name} needs at least one public key: --key FILE.", name=new.name)
        self._accounts.uid_of(new.name)
        container = self._containers.get(new.name)
        if container is None or not container.is_prepared:
            self._containers.check_template(new.template)
        if container is not None and container.owner != new.name:
            raise UsageError(
                "There is a container {name} already that is not labshell's; rename it or choose another name.",
                name=new.name,
            )
        current = self._ports.port_of(new.name)
        if self._find(new.name).problem is None and set(self._accounts.keys_of(new.name)) != set(new.keys):
            raise UsageError("{name} exists already, with other keys; nothing was changed.", name=new.name)
        if new.port is not None and current is None:
            self._ports.check(new.port)
        elif new.port not in (None, current):
            raise UsageError("{name} already has port {port}.", name=new.name, port=current)

    def _steps_to_add(self, new: NewUser, undo: _Undo) -> Iterator[tuple[str, Callable[[], Steps[None]]]]:
        """The steps by the names the administrator reads, each registering how it is undone."""
        name = new.name

        def account() -> Steps[None]:
            if self._accounts.uid_of(name) is None:
                undo.later(self._accounts.remove, name)
            marked = {container.uid for container in self._containers.all() if container.uid is not None}
            self._accounts.ensure(name, marked)
            self._accounts.set_keys(name, list(new.keys))
            yield from ()

        def container() -> Steps[None]:
            uid = self._uid(name)
            existing = self._containers.get(name)
            if existing is not None and existing.is_prepared and existing.belongs_to(name, uid):
                return
            if existing is not None and existing.is_prepared:
                raise UsageError("The container {name} is of an earlier {name}; remove or rename it.", name=name)
            undo.later(self._containers.delete, name)
            self._containers.delete(name)  # an earlier add-user was cut off while it made this
            with self._gateway.choosing_address() as address:
                self._containers.clone(new.template, name, name, uid, address, new.limits)
            yield from ()

        def port() -> Steps[None]:
            if self._ports.port_of(name) is None:
                undo.later(self._ports.give_up, name)
            self._ports.ensure(name, new.port)
            yield from ()

        def write_identity() -> Steps[None]:
            existing = self._containers.get(name)
            if existing is None or existing.is_prepared:
                return
            self._containers.stop(name, self._config.stop_timeout_seconds, force=True)
            host_key = identity.write_identity(self._containers, name, hostname=name)
            self._containers.set_host_key(name, host_key)
            yield from ()

        def start() -> Steps[None]:
            existing = self._containers.owned(name, self._uid(name))
            yield from self._gateway.ensure_running(existing)
            identity.write_user(self._containers, name, name, list(new.keys))
            self._containers.mark_prepared(name)

        def rules() -> Steps[None]:
            self._firewall.forward_user(name)
            yield from ()

        yield "Making the account", account
        yield "Cloning the template", container
        yield "Giving the container its identity", write_identity
        yield "Reserving the ports", port
        yield "Starting the container", start
        yield "Installing the rules", rules
        yield "Connecting through the forwarded port", lambda: self._try_port(name)

    def _try_port(self, name: str) -> Steps[None]:
        """A banner through the rules themselves, on the gateway's own address on the bridge."""
        port = self._ports.port_of(name)
        gateway_address = self._containers.bridge().address.partition("/")[0]
        if port is None or not ssh_answers(gateway_address, port, FORWARDED_BANNER_SECONDS):
            raise LabshellError("No SSH server answers on port {port} of this host.", port=port)
        yield from ()

    def _uid(self, name: str) -> int:
        uid = self._accounts.uid_of(name)
        if uid is None:
            raise LabshellError("The account {name} has gone away meanwhile.", name=name)
        return uid

    # Removing ------------------------------------------------------------------------------------------

    def remove(self, name: str, *, archive: bool = True, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Archive, then free everything: sessions, rules, container, port, keys, account. Harmless twice."""
        policy.checked_name(name)
        if not self._is_known(name):
            raise UsageError("There is no user {name}.", name=name)
        container = self._containers.get(name)
        if container is not None and container.owner != name:
            raise UsageError("The container {name} is not labshell's; nothing was removed.", name=name)
        undo = _Undo()
        with self._gateway.locks.held(name), undo:
            undo.later(self._accounts.unlock, name)
            archives = self._archives_of(name) if archive else {}
            for step, act in self._steps_to_keep(name, archives):
                yield Progress(step)
                if not dry_run:
                    act()
            undo.forget()
            for step, act in self._steps_to_free(name):
                yield Progress(step)
                if not dry_run:
                    act()
        return {"archives": [str(path) for path in archives.values()]}

    def _steps_to_keep(self, name: str, archives: Mapping[str, Path]) -> Iterator[tuple[str, Callable[[], object]]]:
        """Up to here nothing is lost: if one of these fails, the account is unlocked again."""
        if self._accounts.uid_of(name) is not None:
            yield "Locking the account", lambda: self._accounts.lock(name)
        yield "Stopping the container", lambda: self._stop_for_removal(name, self._config.stop_timeout_seconds)
        for instance, path in archives.items():
            yield "Archiving the container", partial(self._archive, instance, path)

    def _steps_to_free(self, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
        for instance in self._containers.all_of(name):
            yield "Deleting the container", partial(self._containers.delete, instance.name)
        yield "Removing the account and its keys", lambda: self._accounts.remove(name)
        yield "Freeing the ports", lambda: self._ports.release(name)
        yield "Removing the rules", lambda: self._firewall.forward_user(name)
        yield "Forgetting what was unfinished", lambda: self._gateway.unfinished.remove(name)

    def _stop_for_removal(self, name: str, timeout_seconds: int) -> None:
        try:
            self._containers.stop(name, timeout_seconds)
        except TryAgain:
            self._containers.stop(name, timeout_seconds, force=True)

    def _is_known(self, name: str) -> bool:
        return (
            self._accounts.uid_of(name) is not None
            or self._ports.port_of(name) is not None
            or ((container := self._containers.get(name)) is not None and container.owner == name)
        )

    def _archives_of(self, name: str) -> dict[str, Path]:
        """Which of the user's containers goes into which file: their own, and one kept from before a rebuild."""
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        kept = [container.name for container in self._containers.all_of(name) if container.is_prepared]
        return {instance: self._config.paths.archive / f"{instance}-{moment}.tar.gz" for instance in sorted(kept)}

    def _archive(self, name: str, path: Path) -> None:
        """Write the archive and read it back to its end before anybody deletes anything."""
        files.ensure_folder(path.parent, 0o700)
        beside = path.with_name(f".{path.name}")
        try:
            self._containers.export(name, beside)
            with gzip.open(beside) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                found = {member.name.split("/")[1] for member in archive if "/" in member.name}
                while stream.read(1 << 20):  # to the very end, where the checksum is
                    pass
            if not found >= {"index.yaml", "container"}:
                raise LabshellError("The archive of {name} is not complete; nothing was deleted.", name=name)
            beside.rename(path)
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise LabshellError(
                "The archive of {name} could not be written and read back; nothing was deleted.", name=name
            ) from error
        finally:
            beside.unlink(missing_ok=True)
        log.info("archived", extra={"user": name, "path": str(path)})

    # Looking -------------------------------------------------------------------------------------------

    def list(self) -> list[dict[str, Any]]:
        """Every user by name: state, address, port; also who has only part of what a user needs."""
        uids = self._accounts.all()
        ports, damaged = self._ports.readable_ports()
        containers = {item.name: item for item in self._containers.all() if item.owner == item.name}
        names = sorted({*uids, *ports, *damaged, *containers})
        return [_Parts(name, uids.get(name), containers.get(name), ports.get(name)).row for name in names]

    def show(self, name: str) -> dict[str, Any]:
        """Everything about one user."""
        policy.checked_name(name)
        if not self._is_known(name):
            raise UsageError("There is no user {name}.", name=name)
        parts = self._find(name)
        if parts.uid is None or parts.container is None or parts.problem:
            raise NoContainer(
                "{name} is incomplete: {problem}. Run add-user again to complete it, or remove-user.",
                name=name,
                problem=parts.problem,
            )
        return {
            **self._gateway.status(name, parts.uid),
            "uid": parts.uid,
            "keys": [f"{key.kind} {key.fingerprint} {key.comment}".strip() for key in self._accounts.keys_of(name)],
            "rules_are_live": self._firewall.has_live_rules(parts.container, parts.uid, parts.port or 0),
        }

    def _find(self, name: str) -> _Parts:
        return _Parts(name, self._accounts.uid_of(name), self._containers.get(name), self._ports.port_of(name))


@dataclass(frozen=True)
class _Parts:
    """What there is of one user."""

    name: str
    uid: int | None
    container: policy.Container | None
    port: int | None

    @property
    def problem(self) -> str | None:
        """What is missing to make this a whole user; None if nothing is."""
        if self.uid is None:
            return "no account"
        if self.container is None:
            return "no container"
        if not self.container.belongs_to(self.name, self.uid):
            return "the container's owner mark is another's"
        if not self.container.is_prepared:
            return "the container was never finished"
        if self.port is None:
            return "no port, or a damaged port file"
        return None

    @property
    def row(self) -> dict[str, Any]:
        return {
            "user": self.name,
            "uid": self.uid,
            "state": self.container.state.lower() if self.container else "missing",
            "address": self.container.address if self.container else None,
            "port": self.port,
            "problem": self.problem,
        }
