"""A user's block of host ports: which it is, what leads through it, and moving it."""

from __future__ import annotations

import time
from dataclasses import replace

from labshell.errors import LabshellError
from labshell.host.tcp import ssh_answers
from labshell.model.container import Container, OwnForward
from labshell.operations.lab import Lab
from labshell.operations.steps import Steps

FORWARDED_BANNER_SECONDS = 30.0
BANNER_STEP_SECONDS = 0.05


class UserPorts:
    """The users' blocks of one host."""

    def __init__(self, lab: Lab) -> None:
        self._config = lab.config
        self._containers = lab.containers
        self._ports = lab.ports
        self._firewall = lab.firewall

    def of(self, user: str) -> int | None:
        """The user's SSH port, where host ports lead to the containers."""
        return self._ports.port_of(user) if self._config.has_ports else None

    def span(self, port: int | None) -> str:
        """The ports of a block: "22000-22009"; empty for none."""
        return f"{port}-{self._ports.block(port)[-1]}" if port else ""

    def make_reachable(self, container: Container) -> None:
        """Have the user's port and their own lead to the container. The caller holds the user's lock."""
        if self._config.has_ports:
            self._ports.ensure(container.name)
            self._firewall.forward(container)

    def move(self, container: Container, port: int) -> None:
        """Another block, with the user's own forwards at the same places in it. Idempotent."""
        name, forwards = container.name, container.forwards
        old = self._ports.port_of(name)
        if old is not None:
            forwards = self.move_forwards(name, forwards, old, port)
        try:
            self._ports.move(name, port)
        except LabshellError:
            if old is not None:
                self.move_forwards(name, forwards, port, old)
            raise

    def move_forwards(
        self, name: str, forwards: tuple[OwnForward, ...], old: int, port: int
    ) -> tuple[OwnForward, ...]:
        """The user's own forwards in the block at `old` to the same places in the one at `port`."""
        block = self._ports.block(old)
        moved = tuple(replace(one, port=one.port - old + port) if one.port in block else one for one in forwards)
        self._containers.marks.set_forwards(name, moved)
        return moved

    def try_port(self, user: str) -> Steps[None]:
        """A banner through the rules themselves. A server that has just been reloaded is away for a moment."""
        port = self._ports.port_of(user)
        deadline = time.monotonic() + FORWARDED_BANNER_SECONDS
        while port is None or not ssh_answers(self._firewall.address, port):
            if port is None or time.monotonic() > deadline:
                raise LabshellError(
                    "ssh-server-no-answer", "No SSH server answers on port {port} of this host.", port=port
                )
            time.sleep(BANNER_STEP_SECONDS)
        yield from ()
