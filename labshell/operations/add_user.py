"""add-user: account, keys, container, ports, identity, rules, start; undone in reverse if a step fails.

Every step makes something so and is idempotent, so a second add-user goes on where a crash stopped the
first. What was there before is never undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from labshell.engine import identity
from labshell.errors import UsageError
from labshell.model import keys
from labshell.model.container import Container
from labshell.model.keys import PublicKey
from labshell.model.names import checked_name
from labshell.model.settings import DESKTOP_PORT, NONE, date_of
from labshell.operations import plans
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.steps import CLEAN_UP, NamedStep, Steps, Undo, do
from labshell.operations.user_forwards import refuse_without_ports
from labshell.operations.user_operation import UserOperation
from labshell.operations.user_settings import UserSettings, new_password, refuse_missing_folders
from labshell.wire.admin import AddedUser, UserPlan


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


class AddUser(UserOperation):
    """Adding users to one host."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._settings = UserSettings(lab)
        self._lifecycle = Lifecycle(lab)

    def add(self, new: NewUser, *, dry_run: bool = False) -> Steps[AddedUser]:
        """Account, keys, container, port, identity, rules, start, and a banner through the forwarded port."""
        undo = Undo(CLEAN_UP)
        password = new_password() if new.has_password else ""
        with self._lab.locks.held(new.name):
            if not new.keys and self._accounts.uid_of(checked_name(new.name)) is not None:
                new = replace(new, keys=tuple(self._accounts.keys_of(new.name)))
            found = self._containers.get(new.name)
            self._check(new, found)
            parts = self._users.parts(new.name, found)
            if parts.problem is None and not self._accounts.is_locked(new.name):
                return {"user": self._users.about(parts), "was_there": True}
            if dry_run:
                return self._plan_to_add(new, found)
            undo.later(self._firewall.forward_user, new.name)
            steps = self._steps_to_add(new, password, undo, is_new=_is_to_be_made(found))
            yield from do(new.name, "added", steps, undo)
        added: AddedUser = {"user": self._users.show(new.name), "was_there": False}
        if password:
            added["password"] = password
        return added

    def _plan_to_add(self, new: NewUser, container: Container | None) -> AddedUser:
        """What add() would do: the values, and the sentences with them."""
        name = new.name
        uid, is_new = self._accounts.uid_of(name), _is_to_be_made(container)
        address = container.address if container and not is_new else self._lab.addresses.next()
        port = self._port_to_give(name, new.port)
        about = plans.NewAccount(
            name,
            uid or self._host_accounts.next_uid(),
            address or "",
            self._user_ports.span(port),
            is_account_new=uid is None,
            is_container_new=is_new,
        )
        would = plans.to_add(about, new.template, new.keys, new.settings, has_password=new.has_password)
        plan: UserPlan = {
            "user": name, "uid": about.uid, "address": address, "port": port,
            "last_port": self._ports.block(port)[-1] if port else None, "template": new.template,
            "settings": {key: text or NONE for key, text in new.settings.items()},
        }  # fmt: skip
        return {"was_there": False, "plan": plan, "would": would}

    def _port_to_give(self, name: str, asked: int | None) -> int | None:
        if not self._config.has_ports:
            return None
        return self._ports.port_of(name) or asked or self._ports.next_port()

    def _check(self, new: NewUser, container: Container | None) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        checked_name(new.name)
        if not new.keys:
            raise UsageError("user-key-required", "{name} needs at least one public key: --key FILE.", name=new.name)
        keys.check_amount(new.keys)
        uid = self._accounts.uid_of(new.name)
        if _is_to_be_made(container):
            self._containers.clones.check_template(new.template)
        if container is not None and container.owner != new.name:
            raise UsageError(
                "container-name-foreign",
                "There is a container {name} already that is not labshell's; rename it or choose another name.",
                name=new.name,
            )
        if container is not None and container.is_of_earlier(new.name, uid):
            raise UsageError(
                "container-of-former-user",
                "The container {name} is of a {name} whose account is gone. The same user gets it back with "
                "labshell-admin adopt {name} --key FILE; remove-user makes an archive of it and frees the name.",
                name=new.name,
            )
        refuse_missing_folders(new.settings)
        self._refuse_past(new.settings)
        if _is_to_be_made(container):
            self._lab.closed.refuse_if_closed()
        if new.port is not None or new.settings.get(DESKTOP_PORT):
            refuse_without_ports(self._config)
        current = self._ports.port_of(new.name)
        was_whole = uid is not None and container is not None and container.is_prepared
        is_left = self._accounts.is_locked(new.name)  # by a removal that did not come to its end
        if was_whole and not is_left and set(self._accounts.keys_of(new.name)) != set(new.keys):
            raise UsageError(
                "user-exists-with-other-keys",
                "{name} exists already, with other keys; nothing was changed.",
                name=new.name,
            )
        if new.port is not None and current is None:
            self._ports.check(new.name, new.port)
        elif new.port not in (None, current):
            raise UsageError(
                "user-exists-with-other-port", "{name} already has port {port}.", name=new.name, port=current
            )

    def _refuse_past(self, settings: Mapping[str, str]) -> None:
        """Refuse a user whose last day is over: the account could not log in."""
        last_day = date_of(settings.get("expires", ""))
        if last_day is not None and last_day < self._lab.clock.today():
            raise UsageError(
                "last-day-over", "{day} is over; expires is the last day on which the user may log in.", day=last_day
            )

    def _steps_to_add(self, new: NewUser, password: str, undo: Undo, *, is_new: bool) -> Iterator[NamedStep]:
        """The steps by the names the administrator reads, each registering how it is undone.

        `is_new`: the container is made; otherwise it is there and only what is around it is missing.
        """
        name = new.name
        made: Container

        def account() -> None:
            is_left = self._accounts.is_locked(name)  # by a removal that did not come to its end
            is_missing = self._accounts.uid_of(name) is None
            if is_missing or is_left:
                undo.later(self._accounts.give_up if is_missing else self._accounts.lock, name)
                self._host_accounts.forget_earlier(name)
            self._host_accounts.make(name, list(new.keys))
            if is_left:
                self._host_accounts.unlock(name)

        def container() -> None:
            undo.later(self._containers.lifecycle.delete, name)
            self._containers.lifecycle.delete(name)  # an earlier add-user was cut off while it made this
            with self._lab.addresses.choosing() as address:
                self._containers.clones.make(new.template, name, name, self._host_accounts.uid(name), address)

        def settings() -> None:
            self._settings.apply(name, new.settings)
            if new.profile:
                self._containers.marks.set_profile(name, new.profile)
            self._settings.set_expiry(name, new.settings)

        def port() -> None:
            if self._ports.port_of(name) is None:
                undo.later(self._ports.give_up, name)
            self._ports.ensure(name, new.port)

        def write_identity() -> None:
            self._containers.lifecycle.stop(name, self._config.stop_timeout_seconds, force=True)
            host_key = identity.write_identity(
                self._containers, name, hostname=name, keys_file=self._config.paths.host_keys / name
            )
            self._containers.marks.set_host_key(name, host_key)

        def start() -> Steps[None]:
            nonlocal made
            made = self._containers.owned(name, self._host_accounts.uid(name))
            yield from self._lifecycle.ensure_running(made)
            if is_new:
                identity.write_user(self._containers, name, name, list(new.keys))
                if password:
                    identity.set_password(self._containers, name, name, password)
                self._containers.marks.set_prepared(name)

        def rules() -> None:
            self._firewall.forward(made)

        yield "Making the account", account
        if self._config.has_ports:
            yield "Reserving the ports", port
        yield "Cloning the template", container if is_new else _nothing
        yield "Giving the container its identity", write_identity if is_new else _nothing
        yield "Giving it its limits and devices", settings if is_new else _nothing
        yield "Starting the container", start
        if self._config.has_ports:
            yield "Installing the rules", rules
            yield "Connecting through the forwarded port", lambda: self._user_ports.try_port(name)


def _is_to_be_made(container: Container | None) -> bool:
    """Whether there is none, or only what an add-user has left that was cut off."""
    return container is None or not container.is_prepared


def _nothing() -> None:
    """The step of a container that is there already."""
