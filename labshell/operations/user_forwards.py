"""A user's own forwards: ports of their block that lead to a port of their container."""

from __future__ import annotations

from dataclasses import replace

from labshell.config import Config
from labshell.errors import LabshellError, UsageError
from labshell.host import container_listeners
from labshell.model import forwards
from labshell.model.container import Container, OwnForward
from labshell.model.listening import Listens
from labshell.operations.lab import Lab
from labshell.wire.gateway import Forward, Ports


def refuse_without_ports(config: Config) -> None:
    """For what is about ports of the host: on the lab's own network every port of a container is reached."""
    if not config.has_ports:
        raise UsageError(
            "ports-not-needed", "This container has an address of its own: every port of it is reached there."
        )


class UserForwards:
    """The users' own forwards on one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._containers = lab.containers

    def report(self, user: str, uid: int) -> Ports:
        """The user's block of ports, and their own forwards that are not over yet."""
        return self._report(self._containers.owned(user, uid))

    def _report(self, container: Container) -> Ports:
        config, user = self._lab.config, container.name
        port = self._lab.ports.port_of(user) if config.has_ports else None
        return {
            "host": config.shown_hostname,
            "has_ports": config.has_ports,
            "port": port,
            "last_port": self._lab.ports.block(port)[-1] if port else None,
            "forwards": self._list(container),
        }

    def _list(self, container: Container) -> list[Forward]:
        now = self._lab.clock.seconds()
        listens = self._listens(container) if container.forwards else None
        return [
            {
                "port": own.port,
                "target": own.target,
                "name": own.name or None,
                "source": own.source or None,
                "seconds_left": None if own.until is None else int(own.until - now),
                "listens": None if listens is None else listens.get(own.target, "nowhere"),
            }
            for own in container.forwards
            if not own.is_over(now)
        ]

    def _listens(self, container: Container) -> dict[int, Listens] | None:
        """How far each port inside is answered; None where that is not known, which hinders nothing else."""
        if container.state != "Running":
            return None
        try:
            pid = self._containers.first_process(container.name)
        except LabshellError:
            return None
        return container_listeners.of(pid) if pid else None

    def add(self, user: str, uid: int, target: int, name: str, lasting: str, source: str | None) -> Ports:
        """One more forward in the user's own block; live when this returns. A `source` of None is not said."""
        refuse_without_ports(self._lab.config)
        now = self._lab.clock.seconds()
        until = int(now) + forwards.seconds_of(lasting) if lasting else None
        wanted = forwards.Request(target, name, None if source is None else forwards.checked_source(source), until)
        self._lab.firewall.check_source(wanted.source)
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            port = self._lab.ports.ensure(user)
            own, block = container.forwards, self._lab.ports.block(port)
            busy = self._lab.ports.busy_beside(own)
            changed = self._change(container, forwards.add_forward(own, block, wanted, now, busy))
        return self._report(changed)

    def remove(self, user: str, uid: int, port: int) -> Ports:
        refuse_without_ports(self._lab.config)
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            changed = self._change(container, forwards.remove_forward(container.forwards, port))
        return self._report(changed)

    def _change(self, container: Container, own: tuple[OwnForward, ...]) -> Container:
        """Store the forwards and make them live; the container as it is then."""
        self._containers.marks.set_forwards(container.name, own)
        changed = replace(container, forwards=own)
        self._lab.firewall.forward(changed)
        return changed
