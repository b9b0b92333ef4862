"""Researchers coming and going: each verb of the administrator's as steps that are undone if a later one fails.

Every step makes something so and is harmless twice, so a second add-user goes on where a crash stopped the
first. What was there before is never undone.
"""

from __future__ import annotations

import datetime
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from labshell import shown
from labshell.engine import identity
from labshell.engine.records import Usage
from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.host import files, machine
from labshell.host.accounts import end_processes
from labshell.host.tcp import ssh_answers
from labshell.model import forwards, keys
from labshell.model.container import Container, OwnForward
from labshell.model.keys import PublicKey
from labshell.model.names import checked_name, existing_name
from labshell.model.settings import DESKTOP, DESKTOP_PORT, NONE, date_of, disk_size
from labshell.operations import plans
from labshell.operations.archives import Archives
from labshell.operations.gateway import Gateway, Progress, Steps
from labshell.operations.undo import NamedStep, Undo, do

PASSWORD_BYTES = 12
log = logging.getLogger(__name__)
FORWARDED_BANNER_SECONDS = 30.0
BANNER_STEP_SECONDS = 0.05
CLEAN_UP = "Run remove-user to clean up."
NO_PORT = "no port, or a damaged port file"


@dataclass(frozen=True)
class NewUser:
    """What add-user was asked for; `settings` as settings.checked() gives them."""

    name: str
    keys: tuple[PublicKey, ...]
    template: str
    port: int | None
    settings: Mapping[str, str]
    has_password: bool = False
    profile: str = ""


@dataclass(frozen=True)
class Change:
    """What set was asked for; `keys` take the place of all there are, none leaves them."""

    name: str
    settings: Mapping[str, str]
    keys: tuple[PublicKey, ...] = ()
    port: int | None = None
    has_password: bool = False
    profile: str = ""

    @property
    def is_about_door(self) -> bool:
        """Whether it changes who may log in on the host."""
        return bool(self.keys) or "expires" in self.settings

    @property
    def words(self) -> list[str]:
        given = {"keys": self.keys, "port": self.port, "password": self.has_password}
        return [*self.settings, *(word for word, value in given.items() if value)]


class Users:
    """The administrator's verbs on people."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._config = gateway.config
        self._accounts = gateway.accounts
        self._containers = gateway.containers
        self._ports = gateway.ports
        self._firewall = gateway.firewall
        self._archives = Archives(gateway.containers, Path(gateway.config.archive))

    # Adding --------------------------------------------------------------------------------------------

    def add(self, new: NewUser, *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Account, keys, container, port, identity, rules, start, and a banner through the forwarded port."""
        undo = Undo(CLEAN_UP)
        password = secrets.token_urlsafe(PASSWORD_BYTES) if new.has_password else ""
        with self._gateway.locks.held(new.name):
            if not new.keys and self._accounts.uid_of(checked_name(new.name)) is not None:
                new = replace(new, keys=tuple(self._accounts.keys_of(new.name)))
            self._check(new)
            if self._find(new.name).problem is None and not self._accounts.is_locked(new.name):
                return {**self.show(new.name), "was_there": True}
            if dry_run:
                return self._plan_to_add(new)
            undo.later(self._firewall.forward_user, new.name)
            yield from do(new.name, "added", self._steps_to_add(new, password, undo), undo)
        about = {"was_there": False, **({"password": password} if password else {})}
        return {**self.show(new.name), **about}

    def _plan_to_add(self, new: NewUser) -> dict[str, Any]:
        """What add() would do: the values, and the sentences with them."""
        name = new.name
        uid, container = self._accounts.uid_of(name), self._containers.get(name)
        is_new = container is None or not container.is_prepared
        address = container.address if container and not is_new else self._next_address()
        port = self._port_to_give(name, new.port)
        about = plans.NewAccount(
            name,
            uid or self._gateway.next_uid(),
            address or "",
            self._span(port),
            is_account_new=uid is None,
            is_container_new=is_new,
        )
        would = plans.to_add(about, new.template, new.keys, new.settings, has_password=new.has_password)
        return {
            "was_there": False, "user": name, "uid": about.uid, "address": address, "port": port,
            "last_port": self._ports.block(port)[-1] if port else None, "template": new.template,
            "settings": {key: text or NONE for key, text in new.settings.items()}, "would": would,
        }  # fmt: skip

    def _port_to_give(self, name: str, asked: int | None) -> int | None:
        if not self._config.has_ports:
            return None
        return self._ports.port_of(name) or asked or self._ports.next_port()

    def _next_address(self) -> str:
        with self._gateway.choosing_address() as address:
            return address

    def _span(self, port: int | None) -> str:
        """The ports of a block: "22000-22009"; empty for none."""
        return f"{port}-{self._ports.block(port)[-1]}" if port else ""

    def _check(self, new: NewUser) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        checked_name(new.name)
        if not new.keys:
            raise UsageError("{name} needs at least one public key: --key FILE.", name=new.name)
        keys.check_amount(new.keys)
        uid = self._accounts.uid_of(new.name)
        container = self._containers.get(new.name)
        if container is None or not container.is_prepared:
            self._containers.clones.check_template(new.template)
        if container is not None and container.owner != new.name:
            raise UsageError(
                "There is a container {name} already that is not labshell's; rename it or choose another name.",
                name=new.name,
            )
        if container is not None and container.is_of_earlier(new.name, uid):
            raise UsageError(
                "The container {name} is of a {name} whose account is gone. The same person gets it back with "
                "labshell-admin adopt {name} --key FILE; remove-user makes an archive of it and frees the name.",
                name=new.name,
            )
        self._gateway.refuse_missing_folders(new.settings)
        self._refuse_past(new.settings)
        if container is None or not container.is_prepared:
            self._gateway.closed.refuse_if_closed()
        if new.port is not None or new.settings.get(DESKTOP_PORT):
            self._gateway.refuse_without_ports()
        current = self._ports.port_of(new.name)
        was_whole = uid is not None and container is not None and container.is_prepared
        is_left = self._accounts.is_locked(new.name)  # by a removal that did not come to its end
        if was_whole and not is_left and set(self._accounts.keys_of(new.name)) != set(new.keys):
            raise UsageError("{name} exists already, with other keys; nothing was changed.", name=new.name)
        if new.port is not None and current is None:
            self._ports.check(new.name, new.port)
        elif new.port not in (None, current):
            raise UsageError("{name} already has port {port}.", name=new.name, port=current)

    def _refuse_past(self, settings: Mapping[str, str]) -> None:
        """Nobody is added whose last day is over: the account would let nobody in."""
        last_day = date_of(settings.get("expires", ""))
        if last_day is not None and last_day < machine.today():
            raise UsageError("{day} is over; expires is the last day on which the user may log in.", day=last_day)

    def _steps_to_add(self, new: NewUser, password: str, undo: Undo) -> Iterator[NamedStep]:
        """The steps by the names the administrator reads, each registering how it is undone."""
        name = new.name

        def account() -> None:
            is_left = self._accounts.is_locked(name)  # by a removal that did not come to its end
            is_new = self._accounts.uid_of(name) is None
            if is_new or is_left:
                undo.later(self._accounts.give_up if is_new else self._accounts.lock, name)
                self._forget_earlier(name)
            self._gateway.make_account(name, list(new.keys))
            if is_left:
                self._unlock(name)

        def container() -> None:
            existing = self._containers.get(name)
            if existing is not None and existing.is_prepared:
                return
            undo.later(self._containers.lifecycle.delete, name)
            self._containers.lifecycle.delete(name)  # an earlier add-user was cut off while it made this
            with self._gateway.choosing_address() as address:
                self._containers.clones.make(new.template, name, name, self._uid(name), address)

        def settings() -> None:
            existing = self._containers.get(name)
            if existing is not None and not existing.is_prepared:
                self._apply(name, new.settings)
                if new.profile:
                    self._containers.marks.set_profile(name, new.profile)
                self._set_expiry(name, new.settings)

        def port() -> None:
            if self._ports.port_of(name) is None:
                undo.later(self._ports.give_up, name)
            self._ports.ensure(name, new.port)

        def write_identity() -> None:
            existing = self._containers.get(name)
            if existing is None or existing.is_prepared:
                return
            self._containers.lifecycle.stop(name, self._config.stop_timeout_seconds, force=True)
            host_key = identity.write_identity(
                self._containers, name, hostname=name, keys_file=self._config.paths.host_keys / name
            )
            self._containers.marks.set_host_key(name, host_key)

        def start() -> Steps[None]:
            existing = self._containers.owned(name, self._uid(name))
            yield from self._gateway.ensure_running(existing)
            if not existing.is_prepared:
                identity.write_user(self._containers, name, name, list(new.keys))
                if password:
                    identity.set_password(self._containers, name, name, password)
                self._containers.marks.set_prepared(name)

        def rules() -> None:
            self._firewall.forward_user(name)

        yield "Making the account", account
        if self._config.has_ports:
            yield "Reserving the ports", port
        yield "Cloning the template", container
        yield "Giving the container its identity", write_identity
        yield "Giving it its limits and devices", settings
        yield "Starting the container", start
        if self._config.has_ports:
            yield "Installing the rules", rules
            yield "Connecting through the forwarded port", lambda: self._try_port(name)

    def _try_port(self, name: str) -> Steps[None]:
        """A banner through the rules themselves. A server that has just been reloaded is away for a moment."""
        port = self._ports.port_of(name)
        deadline = time.monotonic() + FORWARDED_BANNER_SECONDS
        while port is None or not ssh_answers(self._firewall.address, port):
            if port is None or time.monotonic() > deadline:
                raise LabshellError("No SSH server answers on port {port} of this host.", port=port)
            time.sleep(BANNER_STEP_SECONDS)
        yield from ()

    def set(self, wanted: Change, *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Change what one person has, while their container runs where the engine can.

        The host's own door comes first: nothing that is wrong with the container keeps it open.
        """
        name = wanted.name
        with self._gateway.locks.held(name):
            self._refuse_unknown(name)
            if self._accounts.uid_of(name) is None or self._accounts.is_locked(name):
                self.show(name)  # which says what is missing
            self._check_change(wanted)
            changes = [change.row for change in self._changes(wanted)]
            if dry_run:
                would = [f"Would change {row['text']}." for row in changes]
                return {**self.show(name), "waits_for_restart": False, "changes": changes, "would": would}
            yield Progress("Changing {settings}", {"settings": ", ".join(wanted.words)})
            self._change_door(wanted)
        try:
            yield from self._gateway.settle_first(name)
            before = self.show(name)
            with self._gateway.locks.held(name):
                about = yield from self._change_container(wanted)
        except LabshellError as error:
            if not wanted.is_about_door:
                raise
            kind = LabshellError if isinstance(error, UsageError) else type(error)
            raise kind(
                "The host lets {name} in as asked from now on, but not everything else was done. {reason}",
                name=name,
                reason=error,
            ) from error
        waits = "nesting" in wanted.settings and before["state"] == "running"
        return {**self.show(name), **about, "waits_for_restart": waits, "changes": changes}

    def _changes(self, wanted: Change) -> list[plans.Change]:
        """What becomes of everything that is asked for; nothing is done yet."""
        container = self._containers.get(wanted.name)
        before = plans.held(container) if container else {}
        found = plans.changes(before, wanted.settings)
        if wanted.keys:
            try:
                old = plans.key_names(self._accounts.keys_of(wanted.name))
            except LabshellError:
                old = "a damaged file"  # which this replaces
            found.append(plans.Change("keys", old, plans.key_names(wanted.keys)))
        if wanted.port is not None:
            found.append(plans.Change("ports", self._span(self._ports.port_of(wanted.name)), self._span(wanted.port)))
        if wanted.has_password:
            found.append(plans.Change("password", "the one of before", "a new one, shown once"))
        return found

    def _check_change(self, wanted: Change) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        keys.check_amount(wanted.keys)
        self._gateway.refuse_missing_folders(wanted.settings)
        self._with_desktop(wanted.name, wanted.settings)
        self._containers.disks.check_limit(wanted.name, disk_size(wanted.settings) or "")
        if wanted.port is not None:
            self._gateway.refuse_without_ports()
            self._ports.check(wanted.name, wanted.port)

    def _change_door(self, wanted: Change) -> None:
        if wanted.keys:
            self._accounts.set_keys(wanted.name, list(wanted.keys))
        self._set_expiry(wanted.name, wanted.settings)

    def _change_container(self, wanted: Change) -> Steps[dict[str, Any]]:
        if wanted.settings:
            self._apply(wanted.name, wanted.settings)
        if wanted.profile:
            self._containers.marks.set_profile(wanted.name, wanted.profile)
        if wanted.port is not None:
            self._move_port(wanted.name, wanted.port)
        self._firewall.forward_user(wanted.name)
        return (yield from self._change_inside(wanted))

    def _move_port(self, name: str, port: int) -> None:
        """Another block, with the person's own forwards at the same places in it. Harmless twice."""
        old = self._ports.port_of(name)
        if old is not None:
            self._move_forwards(name, old, port)
        try:
            self._ports.move(name, port)
        except LabshellError:
            if old is not None:
                self._move_forwards(name, port, old)
            raise

    def _move_forwards(self, name: str, old: int, port: int) -> None:
        """The person's own forwards in the block at `old` to the same places in the one at `port`."""
        own = self._containers.owned(name, self._uid(name)).forwards
        block = self._ports.block(old)
        moved = [replace(one, port=one.port - old + port) if one.port in block else one for one in own]
        self._containers.marks.set_forwards(name, moved)

    def _change_inside(self, wanted: Change) -> Steps[dict[str, Any]]:
        """Keys and password, which are in the container, too: it is started for them."""
        name = wanted.name
        if wanted.keys or wanted.has_password:
            yield from self._gateway.ensure_running(self._containers.owned(name, self._uid(name)))
        if wanted.keys:
            identity.set_keys(self._containers, name, list(wanted.keys))
        if not wanted.has_password:
            return {}
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        identity.set_password(self._containers, name, name, password)
        return {"password": password}

    def _apply(self, name: str, settings: Mapping[str, str]) -> None:
        """Settings to the container and the person's forwards."""
        wanted = self._with_desktop(name, settings)
        if wanted is not None:
            self._containers.marks.set_forwards(name, wanted)
        self._containers.configuration.apply(name, settings)

    def _with_desktop(self, name: str, settings: Mapping[str, str]) -> tuple[OwnForward, ...] | None:
        """The person's forwards with what is said about a desktop; None if nothing is. Changes nothing."""
        if DESKTOP_PORT not in settings:
            return None
        if settings[DESKTOP_PORT] not in ("", "none"):
            self._gateway.refuse_without_ports()
        port = self._ports.port_of(name)
        if port is None:
            return None
        own, block = self._containers.owned(name, self._uid(name)).forwards, self._ports.block(port)
        busy = self._ports.busy_beside(own)
        return forwards.with_desktop(own, block, settings[DESKTOP_PORT], DESKTOP, time.time(), busy)

    def _set_expiry(self, name: str, settings: Mapping[str, str]) -> None:
        if "expires" not in settings:
            return
        last_day = date_of(settings["expires"])
        self._accounts.set_expiry(name, last_day)
        if last_day is not None and last_day < machine.today():
            end_processes(self._uid(name))

    def _uid(self, name: str) -> int:
        uid = self._accounts.uid_of(name)
        if uid is None:
            raise LabshellError("The account {name} has gone away meanwhile.", name=name)
        return uid

    # Removing ------------------------------------------------------------------------------------------

    def remove(self, name: str, *, archive: bool = True, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Archive, then free everything: sessions, rules, container, port, keys, account. Harmless twice."""
        self._refuse_unknown(name)
        container = self._containers.get(name)
        if container is not None and container.owner != name:
            raise UsageError("The container {name} is not labshell's; nothing was removed.", name=name)
        undo = Undo("labshell-admin remove-user is to be run again.")
        with self._gateway.locks.held(name):
            undo.later(self._unlock, name)
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
        ports = self._span(self._gateway.port_of(name))
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
        yield "Forgetting what was unfinished", lambda: self._forget_earlier(name)
        yield "Freeing the ports", lambda: self._ports.release(name)
        yield "Removing the account and its keys", lambda: self._accounts.remove(name)

    def _forget_earlier(self, name: str) -> None:
        """Host keys and notes, which are nothing for the next person of that name."""
        self._gateway.unfinished.remove(name)
        files.remove(self._config.paths.host_keys / name)

    def _stop_for_removal(self, name: str, timeout_seconds: int) -> None:
        try:
            self._containers.lifecycle.stop(name, timeout_seconds)
        except TryAgain:
            self._containers.lifecycle.stop(name, timeout_seconds, force=True)

    def _refuse_unknown(self, name: str) -> None:
        """Refuse a name that is no user's, an account of the host's own included."""
        existing_name(name)
        try:
            is_known = self._is_known(name)
        except UsageError:
            raise UsageError("There is no user {name}: it is an existing system account.", name=name) from None
        if not is_known:
            raise UsageError("There is no user {name}.", name=name)

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
        return {instance: self._archives.path_for(instance, moment) for instance in sorted(kept)}

    def _about(self, name: str) -> dict[str, Any]:
        """What restore() needs beside the container."""
        lines = [keys.line_on_host(key) for key in self._accounts.keys_of(name)]
        host_keys = identity.kept_host_keys(self._config.paths.host_keys / name)
        return {"keys": lines, "port": self._ports.port_of(name), "host_keys": host_keys}

    def _unlock(self, name: str) -> None:
        container = self._containers.get(name)
        self._accounts.unlock(name, container.expires if container else None)

    def restore(self, archive: str, *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Bring somebody back from an archive: data, keys, own forwards and, if it is free, the same port."""
        path, undo = Path(archive), Undo(CLEAN_UP)
        name = checked_name(self._archives.user_in(path))
        with self._gateway.locks.held(name):
            if self._is_known(name) or self._containers.get(name) is not None:
                raise UsageError("There is a user or a container {name} already.", name=name)
            self._gateway.closed.refuse_if_closed()
            if dry_run:
                return self._plan_to_restore(name, path)
            undo.later(self._firewall.forward_user, name)
            yield from do(name, "restored", self._steps_to_restore(name, path, undo), undo)
        return self.show(name)

    def _plan_to_restore(self, name: str, path: Path) -> dict[str, Any]:
        uid, address = self._gateway.next_uid(), self._next_address()
        at = f" at {address}" if address else ""
        would = [
            f"Would import {path} as the container {name}{at}, with the limits that it had.",
            f"Would make the account {name} (uid {uid}) with the keys that it had.",
            *([f"Would give {name} the same ports as before if they are free."] if self._config.has_ports else []),
            f"Would start the container {name} and wait for its SSH server.",
        ]
        return {"user": name, "uid": uid, "address": address, "would": would}

    def _steps_to_restore(self, name: str, path: Path, undo: Undo) -> Iterator[NamedStep]:
        about: dict[str, Any] = {}

        def container() -> None:
            undo.later(self._containers.lifecycle.delete, name)
            self._containers.backups.restore(name, path)
            about.update(self._archives.about(name))
            if not about.get("keys"):
                raise UsageError("{path} was not made by labshell: it has no keys in it.", path=path)

        def account() -> None:
            undo.later(self._accounts.give_up, name)
            undo.later(self._forget_earlier, name)
            public_keys = keys.parse_authorized_keys("\n".join(about["keys"]))
            uid = self._gateway.make_account(name, public_keys)
            if about.get("host_keys"):  # for a rebuild
                identity.save_host_keys(self._config.paths.host_keys / name, about["host_keys"])
            with self._gateway.choosing_address() as address:
                self._containers.configuration.give_to(name, name, uid, address)
            identity.renew_keys(self._containers, name, name, public_keys)
            self._unlock(name)

        def port() -> None:
            undo.later(self._ports.give_up, name)
            old = about["port"]
            try:
                self._ports.ensure(name, old, even_resting=True)
            except UsageError:
                self._move_forwards(name, old, self._ports.ensure(name))

        def start() -> Steps[None]:
            yield from self._gateway.ensure_running(self._containers.owned(name, self._uid(name)))
            self._firewall.forward_user(name)

        yield "Importing the archive", container
        yield "Making the account", account
        if self._config.has_ports:
            yield "Reserving the ports", port
        yield "Starting the container", start
        if self._config.has_ports:
            yield "Connecting through the forwarded port", lambda: self._try_port(name)

    # Looking -------------------------------------------------------------------------------------------

    def list(self) -> list[dict[str, Any]]:
        """Every user by name, with what they have and use; also who has only part of what a user needs."""
        uids = self._accounts.all()
        ports, damaged = self._ports.readable_ports() if self._config.has_ports else ({}, [])
        found = {
            item.name: (item, used) for item, used in self._containers.all_with_usage() if item.owner == item.name
        }
        names = sorted({*uids, *ports, *damaged, *found})
        return [self._row(name, uids.get(name), ports.get(name), *found.get(name, (None, None))) for name in names]

    def _row(
        self, name: str, uid: int | None, port: int | None, container: Container | None, used: Usage | None
    ) -> dict[str, Any]:
        parts = _Parts(name, uid, container, port, self._config.has_ports)
        return {
            **parts.row,
            "last_port": self._ports.block(port)[-1] if port else None,
            "memory": used.memory if used else None,
            "disk": used.disk if used else None,
            "gpus": container.gpus if container else None,
            "last_login": self._accounts.last_login(name),
            "expires": container.expires.isoformat() if container and container.expires else None,
        }

    def show(self, name: str) -> dict[str, Any]:
        """Everything about one user."""
        self._refuse_unknown(name)
        parts = self._find(name)
        if parts.uid is None or parts.container is None or parts.problem:
            raise NoContainer(
                "{name} is incomplete: {problem}. Run {remedy} to complete it, or remove-user.",
                name=name,
                problem=parts.problem,
                remedy=parts.remedy,
            )
        return {
            **self._gateway.status(name, parts.uid),
            "uid": parts.uid,
            "keys": [f"{key.kind} {key.fingerprint} {key.comment}".strip() for key in self._accounts.keys_of(name)],
            "gpus": parts.container.gpus,
            "expires": parts.container.expires.isoformat() if parts.container.expires else None,
            "last_login": self._accounts.last_login(name),
            "forwards": [f"{own.port} -> {own.target} {own.name}".strip() for own in parts.container.forwards],
            "settings": plans.held(parts.container),
            "template": parts.container.template or None,
            "profile": parts.container.profile or None,
            "snapshots": [
                {"name": kept.name, "created": shown.rfc3339(kept.created)}
                for kept in self._containers.snapshots.of(name)
            ],
            "rules_are_live": self._firewall.has_live_rules(parts.container, parts.uid, parts.port or 0),
        }

    def _find(self, name: str) -> _Parts:
        uid, port = self._accounts.uid_of(name), self._gateway.port_of(name)
        return _Parts(name, uid, self._containers.get(name), port, self._config.has_ports)


@dataclass(frozen=True)
class _Parts:
    """What there is of one user."""

    name: str
    uid: int | None
    container: Container | None
    port: int | None
    has_ports: bool

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
        if self.port is None and self.has_ports:
            return NO_PORT
        return None

    @property
    def remedy(self) -> str:
        """The command that makes it whole."""
        if self.container is not None and self.container.is_of_earlier(self.name, self.uid):
            return "adopt"
        return "start" if self.problem == NO_PORT else "add-user again"

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
