"""The users' accounts on the host, as far as their containers have a say in them."""

from __future__ import annotations

from labshell.errors import LabshellError
from labshell.host import files, machine
from labshell.host.accounts import end_processes
from labshell.model.keys import PublicKey
from labshell.operations.lab import Lab


class HostAccounts:
    """The accounts of one host beside its containers."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._accounts = lab.accounts

    def make(self, user: str, public_keys: list[PublicKey]) -> int:
        """An account that these keys open, made if there is none; its uid, which no container is marked with."""
        uid = self._accounts.ensure(user, self._marked())
        self._accounts.set_keys(user, public_keys)
        return uid

    def next_uid(self) -> int:
        """The uid that make() would give to a new account."""
        return self._accounts.next_uid(self._marked())

    def _marked(self) -> set[int]:
        return {item.uid for item in self._lab.containers.all() if item.uid is not None}

    def uid(self, user: str) -> int:
        uid = self._accounts.uid_of(user)
        if uid is None:
            raise LabshellError("account-gone", "The account {name} has gone away meanwhile.", name=user)
        return uid

    def unlock(self, user: str) -> None:
        container = self._lab.containers.get(user)
        self._accounts.unlock(user, container.expires if container else None)

    def forget_earlier(self, user: str) -> None:
        """Host keys and notes, which are nothing for the next user of that name."""
        self._lab.unfinished.remove(user)
        files.remove(self._lab.config.paths.host_keys / user)


def end_expired(lab: Lab) -> None:
    """End what users whose last day is over still have running: sshd checks that day at login only."""
    uids, _ = machine.people_at_work()
    for item in lab.containers.all():
        if item.uid in uids and item.owner == item.name and not item.may_be_used(lab.clock.today()):
            end_processes(item.uid)
