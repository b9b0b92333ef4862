"""Every user of the host, with what they have and use; also who has only a part of what a user needs."""

from __future__ import annotations

from dataclasses import dataclass

from labshell import shown
from labshell.engine.records import Usage
from labshell.errors import NoContainer, UsageError
from labshell.model.container import Container
from labshell.model.names import existing_name
from labshell.operations import plans
from labshell.operations.lab import Lab
from labshell.operations.report import Reports
from labshell.operations.user_ports import UserPorts
from labshell.wire.admin import User, UserRow

NO_PORT = "no port, or a damaged port file"


@dataclass(frozen=True)
class UserParts:
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

    def whole(self) -> tuple[int, Container]:
        """Their uid and their container; NoContainer says what is missing."""
        if self.uid is None or self.container is None or self.problem:
            raise NoContainer(
                "user-incomplete",
                "{name} is incomplete: {problem}. Run {remedy} to complete it, or remove-user.",
                name=self.name,
                problem=self.problem,
                remedy=self.remedy,
            )
        return self.uid, self.container

    @property
    def remedy(self) -> str:
        """The command that makes it whole."""
        if self.container is not None and self.container.is_of_earlier(self.name, self.uid):
            return "adopt"
        return "start" if self.problem == NO_PORT else "add-user again"


class Users:
    """The users of one host."""

    def __init__(self, lab: Lab) -> None:
        self._config = lab.config
        self._accounts = lab.accounts
        self._containers = lab.containers
        self._ports = lab.ports
        self._firewall = lab.firewall
        self._user_ports = UserPorts(lab)
        self._reports = Reports(lab)

    def list(self) -> list[UserRow]:
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
    ) -> UserRow:
        parts = UserParts(name, uid, container, port, self._config.has_ports)
        return {
            "user": name,
            "uid": uid,
            "state": container.state.lower() if container else "missing",
            "address": container.address if container else None,
            "port": port,
            "problem": parts.problem,
            "last_port": self._ports.block(port)[-1] if port else None,
            "memory": used.memory if used else None,
            "disk": used.disk if used else None,
            "gpus": container.gpus if container else None,
            "last_login": self._accounts.last_login(name),
            "expires": container.expires.isoformat() if container and container.expires else None,
        }

    def show(self, name: str) -> User:
        """Everything about one user."""
        self.refuse_unknown(name)
        return self.about(self.find(name))

    def about(self, parts: UserParts) -> User:
        """The same, for a caller who has just read the container."""
        name, (uid, container) = parts.name, parts.whole()
        return {
            **self._reports.of(container, self._containers.usage(container)),
            "uid": uid,
            "keys": [f"{key.kind} {key.fingerprint} {key.comment}".strip() for key in self._accounts.keys_of(name)],
            "gpus": container.gpus,
            "expires": container.expires.isoformat() if container.expires else None,
            "last_login": self._accounts.last_login(name),
            "forwards": [f"{own.port} -> {own.target} {own.name}".strip() for own in container.forwards],
            "settings": plans.held(container),
            "template": container.template or None,
            "profile": container.profile or None,
            "snapshots": [
                {"name": kept.name, "created": shown.rfc3339(kept.created)}
                for kept in self._containers.snapshots.of(name)
            ],
            "rules_are_live": self._firewall.has_live_rules(container, uid, parts.port or 0),
        }

    def find(self, name: str) -> UserParts:
        """What there is of one user."""
        return self.parts(name, self._containers.get(name))

    def parts(self, name: str, container: Container | None) -> UserParts:
        """The same, for a caller who has just read the container."""
        uid, port = self._accounts.uid_of(name), self._user_ports.of(name)
        return UserParts(name, uid, container, port, self._config.has_ports)

    def refuse_unknown(self, name: str) -> None:
        """Refuse a name that is no user's, an account of the host's own included."""
        existing_name(name)
        try:
            is_known = self.is_known(name)
        except UsageError:
            raise UsageError(
                "user-is-system-account", "There is no user {name}: it is an existing system account.", name=name
            ) from None
        if not is_known:
            raise UsageError("user-missing", "There is no user {name}.", name=name)

    def is_known(self, name: str) -> bool:
        return (
            self._accounts.uid_of(name) is not None
            or self._ports.port_of(name) is not None
            or ((container := self._containers.get(name)) is not None and container.owner == name)
        )
