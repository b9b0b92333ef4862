"""set: change what one user has, while their container runs where the engine can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labshell.engine import identity
from labshell.errors import LabshellError, UsageError
from labshell.model import keys
from labshell.model.container import Container
from labshell.model.keys import PublicKey
from labshell.model.settings import disk_size
from labshell.operations import plans
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.recovery import Recovery
from labshell.operations.steps import Progress, Steps
from labshell.operations.user_forwards import refuse_without_ports
from labshell.operations.user_operation import UserOperation
from labshell.operations.user_settings import UserSettings, new_password, refuse_missing_folders
from labshell.wire.admin import ChangedUser


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


class SetUser(UserOperation):
    """Changing the users of one host."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._settings = UserSettings(lab)
        self._lifecycle = Lifecycle(lab)
        self._recovery = Recovery(lab)

    def set(self, wanted: Change, *, dry_run: bool = False) -> Steps[ChangedUser]:
        """Change what one user has, while their container runs where the engine can.

        Access to the host comes first: nothing that is wrong with the container keeps it open.
        """
        name = wanted.name
        with self._lab.locks.held(name):
            self._users.refuse_unknown(name)
            container = self._containers.get(name)  # and not the port, whose file may be damaged
            if self._accounts.uid_of(name) is None or self._accounts.is_locked(name):
                self._users.parts(name, container).whole()
            self._check_change(wanted)
            changes = [change.row for change in self._changes(wanted, container)]
            if dry_run:
                would = [f"Would change {row['text']}." for row in changes]
                about = self._users.about(self._users.parts(name, container))
                return {"user": about, "waits_for_restart": False, "changes": changes, "would": would}
            yield Progress("Changing {settings}", {"settings": ", ".join(wanted.words)})
            self._change_door(wanted)
        try:
            yield from self._recovery.recover_first(name)
            with self._lab.locks.held(name):
                _, before = self._users.find(name).whole()
                password = yield from self._change_container(wanted)
        except LabshellError as error:
            if not wanted.is_about_door:
                raise
            kind = LabshellError if isinstance(error, UsageError) else type(error)
            raise kind.around(
                error,
                "Host access updated; updating the container failed. {reason}",
                name=name,
                reason=error,
            ) from error
        waits = "nesting" in wanted.settings and before.state == "Running"
        now = self._users.show(name)
        if password:
            return {"user": now, "password": password, "waits_for_restart": waits, "changes": changes}
        return {"user": now, "waits_for_restart": waits, "changes": changes}

    def _changes(self, wanted: Change, container: Container | None) -> list[plans.Change]:
        """What becomes of everything that is asked for; nothing is done yet."""
        before = plans.held(container) if container else {}
        found = plans.changes(before, wanted.settings)
        if wanted.keys:
            try:
                old = plans.key_names(self._accounts.keys_of(wanted.name))
            except LabshellError:
                old = "a damaged file"  # which this replaces
            found.append(plans.Change("keys", old, plans.key_names(wanted.keys)))
        if wanted.port is not None:
            old = self._user_ports.span(self._ports.port_of(wanted.name))
            found.append(plans.Change("ports", old, self._user_ports.span(wanted.port)))
        if wanted.has_password:
            found.append(plans.Change("password", "the one of before", "a new one, shown once"))
        return found

    def _check_change(self, wanted: Change) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        keys.check_amount(wanted.keys)
        refuse_missing_folders(wanted.settings)
        self._settings.with_desktop(wanted.name, wanted.settings)
        self._containers.disks.check_limit(wanted.name, disk_size(wanted.settings) or "")
        if wanted.port is not None:
            refuse_without_ports(self._config)
            self._ports.check(wanted.name, wanted.port)

    def _change_door(self, wanted: Change) -> None:
        if wanted.keys:
            self._accounts.set_keys(wanted.name, list(wanted.keys))
        self._settings.set_expiry(wanted.name, wanted.settings)

    def _change_container(self, wanted: Change) -> Steps[str]:
        """Everything but access to the host; the new password, empty if none was asked for."""
        if wanted.settings:
            self._settings.apply(wanted.name, wanted.settings)
        if wanted.profile:
            self._containers.marks.set_profile(wanted.name, wanted.profile)
        if wanted.port is not None:
            container = self._containers.owned(wanted.name, self._host_accounts.uid(wanted.name))
            self._user_ports.move(container, wanted.port)
        self._firewall.forward_user(wanted.name)
        return (yield from self._change_inside(wanted))

    def _change_inside(self, wanted: Change) -> Steps[str]:
        """Keys and password, which are in the container, too: it is started for them."""
        name = wanted.name
        if wanted.keys or wanted.has_password:
            container = self._containers.owned(name, self._host_accounts.uid(name))
            yield from self._lifecycle.ensure_running(container)
        if wanted.keys:
            identity.set_keys(self._containers, name, list(wanted.keys))
        if not wanted.has_password:
            return ""
        password = new_password()
        identity.set_password(self._containers, name, name, password)
        return password
