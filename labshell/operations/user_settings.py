"""What a user's container is given: limits, devices, a desktop's port, the last day; checked against this host."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from labshell.errors import UsageError
from labshell.host import gpus, machine
from labshell.host.accounts import end_processes
from labshell.model import forwards
from labshell.model.container import OwnForward
from labshell.model.settings import (
    DESKTOP,
    DESKTOP_PORT,
    addresses_of_gpus,
    date_of,
    mounts_of,
    refuse_more_processors,
)
from labshell.operations.host_accounts import HostAccounts
from labshell.operations.lab import Lab
from labshell.operations.user_forwards import refuse_without_ports

PASSWORD_BYTES = 12


def new_password() -> str:
    """A random one, to be shown once."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def on_this_host(settings: Mapping[str, str], given: Collection[str]) -> dict[str, str]:
    """Settings with GPUs by their addresses; UsageError for what this host has not got.

    Only what was `given` is compared with the processors: labshell.toml may be the same on several hosts.
    """
    checked = dict(settings)
    if "gpus" in checked:
        checked["gpus"] = addresses_of_gpus(checked["gpus"], gpus.installed())
    if "cpu" in given:
        refuse_more_processors(checked["cpu"], machine.load().processors)
    return checked


def refuse_missing_folders(settings: Mapping[str, str]) -> None:
    """A folder that is to be mounted is there now; at a start it may be missing, and nothing is mounted then."""
    for mount in mounts_of(settings):
        if not machine.is_folder(mount.source):
            raise UsageError("mount-source-missing", "There is no folder {path} on the host.", path=mount.source)


class UserSettings:
    """Giving settings to the users of one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._host_accounts = HostAccounts(lab)

    def apply(self, name: str, settings: Mapping[str, str]) -> None:
        """Settings to the container and the user's forwards."""
        wanted = self.with_desktop(name, settings)
        if wanted is not None:
            self._lab.containers.marks.set_forwards(name, wanted)
        self._lab.containers.configuration.apply(name, settings)

    def with_desktop(self, name: str, settings: Mapping[str, str]) -> tuple[OwnForward, ...] | None:
        """The user's forwards with what is said about a desktop; None if nothing is. Changes nothing."""
        if DESKTOP_PORT not in settings:
            return None
        if settings[DESKTOP_PORT] not in ("", "none"):
            refuse_without_ports(self._lab.config)
        ports = self._lab.ports
        port = ports.port_of(name)
        if port is None:
            return None
        own = self._lab.containers.owned(name, self._host_accounts.uid(name)).forwards
        now, busy = self._lab.clock.seconds(), ports.busy_beside(own)
        return forwards.with_desktop(own, ports.block(port), settings[DESKTOP_PORT], DESKTOP, now, busy)

    def set_expiry(self, name: str, settings: Mapping[str, str]) -> None:
        if "expires" not in settings:
            return
        last_day = date_of(settings["expires"])
        self._lab.accounts.set_expiry(name, last_day)
        if last_day is not None and last_day < self._lab.clock.today():
            end_processes(self._host_accounts.uid(name))
