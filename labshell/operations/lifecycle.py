"""Starting and stopping a container, and ways into it, as steps over the effects.

A verb that takes time is a generator: it yields Progress for the caller who waits and returns its answer. One
lock per user, so that two logins make one start; nothing global is held while the engine works.
"""

from __future__ import annotations

import logging
import time

from labshell.engine import identity
from labshell.engine.errors import FULL_POOL, GpuMissing
from labshell.engine.invocation import Program, command_inside, environment_inside
from labshell.engine.lifecycle import ACTIONS
from labshell.engine.programs import RunningProgram, connect, run_inside
from labshell.errors import LabshellError, TryAgain
from labshell.host.tcp import ssh_answers
from labshell.language import mark
from labshell.model.container import Container
from labshell.operations.lab import Lab
from labshell.operations.report import Reports
from labshell.operations.steps import Progress, Steps
from labshell.operations.user_ports import UserPorts
from labshell.wire.gateway import ContainerReport

log = logging.getLogger(__name__)
CONNECT_SECONDS = 0.2  # an address that is not there yet answers nothing at all
LOOK_AGAIN_SECONDS = 2.0


def pause_after(seconds: float) -> float:
    """How long to wait before the next look at an SSH server that has not answered for so long, in seconds.

    A share of the time waited: next to nothing is added to a fast start, and a slow host is left to its work.
    """
    return min(1.0, max(0.02, seconds / 20))


class Lifecycle:
    """Starts, stops and ways in on one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._config = lab.config
        self._accounts = lab.accounts
        self._containers = lab.containers
        self._user_ports = UserPorts(lab)
        self._reports = Reports(lab)

    def start(self, user: str, uid: int) -> Steps[ContainerReport]:
        """Start if stopped, with the user's port leading to it."""
        self._accounts.note_login(user)
        with self._lab.locks.held(user):
            container, usage = self._containers.owned_with_usage(user, uid)
            if (yield from self.ensure_running(container)):
                container, usage = self._containers.owned_with_usage(user, uid)
            self._user_ports.make_reachable(container)
        return self._reports.of(container, usage)

    def stop(self, user: str, uid: int, *, force: bool = False) -> Steps[ContainerReport]:
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            yield Progress("Stopping your container")
            self.stop_container(container, force=force)
        return self._reports.status(user, uid)

    def restart(self, user: str, uid: int, *, force: bool = False) -> Steps[ContainerReport]:
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            self._lab.closed.refuse_if_closed()
            self.refuse_full_pool(container)
            yield Progress("Stopping your container")
            self.stop_container(container, force=force)
            yield from self.ensure_running(self._containers.owned(user, uid))
            return self.ready(user, uid)

    def enter(self, user: str, uid: int, wanted: Program) -> Steps[RunningProgram]:
        """A program inside the container, through the engine: works with its network and sshd broken."""
        container = self._containers.owned(user, uid)
        if container.state != "Running":
            with self._lab.locks.held(user):
                container = self._containers.owned(user, uid)
                yield from self.ensure_started(container)
        return run_inside(
            self._config.engine_socket, self._config.paths.state, user, command_inside(user, wanted),
            terminal=wanted.terminal, environment=environment_inside(wanted),
        )  # fmt: skip

    def proxy(self, user: str, uid: int) -> Steps[int]:
        """A TCP connection to the container's SSH server, started first if it is stopped: a descriptor."""
        with self._lab.locks.held(user):
            container = self._containers.owned(user, uid)
            if (yield from self.ensure_running(container)):
                container = self._containers.owned(user, uid)
        if not container.address:
            raise LabshellError(
                "container-without-address", "Your container has no address; ask the administrator to look at it."
            )
        return connect(container.address)

    # Steps others use ----------------------------------------------------------------------------------

    def stop_container(self, container: Container, *, force: bool = False) -> None:
        """Stop it and delete its connections from the host's table."""
        self._containers.lifecycle.stop(container.name, self._config.stop_timeout_seconds, force=force)
        if container.address:
            self._lab.firewall.forget([container.address])

    def ensure_running(self, container: Container) -> Steps[bool]:
        """Start or thaw, then wait until SSH answers; whether there was anything to do.

        The caller holds the user's lock, so a container that runs has been waited for.
        """
        deadline = time.monotonic() + self._config.start_timeout_seconds
        if not (yield from self.ensure_started(container, deadline)):
            return False
        yield Progress("Waiting for its SSH server")
        self.wait_for_ssh(container, deadline)
        return True

    def start_again(self, user: str) -> None:
        """Start a container that ran before what was refused or interrupted; if it cannot, the next login does."""
        try:
            container = self._containers.get(user)
            if container is None:
                return
            for _ in self.ensure_running(container):
                pass
            self._user_ports.make_reachable(container)
        except LabshellError as error:
            log.warning("not started again", extra={"user": user, "why": str(error)})

    def ensure_started(self, container: Container, deadline: float | None = None) -> Steps[bool]:
        """Start or thaw; whether there was anything to do."""
        deadline = deadline or time.monotonic() + self._config.start_timeout_seconds
        if container.state == "Running":
            return False
        if container.state not in ("Stopped", "Frozen"):
            raise TryAgain(
                "container-state-changing",
                "The container is {state}; try again in a moment.",
                state=container.state.lower(),
            )
        self._lab.closed.refuse_if_closed()
        self.refuse_full_pool(container)
        with self._lab.starts.ticket() as ticket:
            for place in self._lab.starts.places(ticket, deadline):
                yield Progress("Waiting to start: place {place} in the queue", {"place": str(place)})
            yield Progress("Starting the container")
            self._start(container, deadline)
        return True

    def _start(self, container: Container, deadline: float) -> None:
        """Start it; without its GPUs, if it is they that hinder it. They are tried again at the next start."""
        name, seconds = container.name, max(1, int(deadline - time.monotonic()))
        if container.state == "Stopped" and container.address and container.has_old_port:
            self._containers.addresses.assign(name, container.address)
        if container.state == "Stopped":
            self._bring_up_to_date(container)
        if container.gpus_aside:
            self._containers.configuration.bring_gpus_back(name)
        try:
            self._containers.lifecycle.start(name, seconds)
        except GpuMissing as error:
            log.warning("started without its GPUs", extra={"container": name, "why": str(error)})
            self._containers.configuration.put_gpus_aside(name)
            self._containers.lifecycle.start(name, seconds)
            notice = mark("Your container runs without its GPU, which is not there. Tell the administrator.")
            self._lab.unfinished.tell(container.owner or name, notice)

    def _bring_up_to_date(self, container: Container) -> None:
        """For one of an earlier version; it starts without that, too: its disk may be full."""
        try:
            if not container.denies_calls:
                self._containers.configuration.deny_calls(container.name)
            identity.write_units(self._containers, container.name)
        except LabshellError as error:
            log.warning("not brought up to date", extra={"container": container.name, "why": str(error)})

    def wait_for_ssh(self, container: Container, deadline: float) -> None:
        """Until port 22 shows a banner: the engine's own start returns long before that."""
        address, waits_for_address = container.address, self._containers.network.is_labs_own
        if not address and not waits_for_address:
            return
        began, times_stopped = time.monotonic(), 0
        look_again = began + LOOK_AGAIN_SECONDS
        while not address or not ssh_answers(address, connect_seconds=CONNECT_SECONDS):
            if waits_for_address:
                address = self._containers.addresses.current(container.name)
            if time.monotonic() > look_again:
                now = self._containers.get(container.name)
                # One look is not enough: a busy engine may call a running container stopped for a moment.
                times_stopped = 0 if now is not None and now.state == "Running" else times_stopped + 1
                if times_stopped == 2:
                    raise LabshellError(
                        "container-stopped-after-start",
                        "The container stopped again right after its start; "
                        "the administrator finds the reason in its console log.",
                    )
                look_again = time.monotonic() + LOOK_AGAIN_SECONDS
            if time.monotonic() > deadline and not address:
                raise TryAgain(
                    "container-address-timeout",
                    "The container runs, but the network has assigned no address in {seconds} seconds. "
                    "`enter` still works.",
                    seconds=self._config.start_timeout_seconds,
                )
            if time.monotonic() > deadline:
                raise TryAgain(
                    "container-ssh-timeout",
                    "The container runs, but its SSH server has not answered in {seconds} seconds. "
                    "`enter` still works.",
                    seconds=self._config.start_timeout_seconds,
                )
            time.sleep(pause_after(time.monotonic() - began) if address else CONNECT_SECONDS)

    def refuse_full_pool(self, container: Container, action: str = ACTIONS["start"]) -> None:
        """A full pool makes a start fail, and a restart stop what it cannot start again: look first."""
        if self._containers.pools.is_full(container.pool):
            raise LabshellError(*FULL_POOL, action=action)

    def ready(self, user: str, uid: int) -> ContainerReport:
        """The report on a container that runs, with the user's port leading to it."""
        container, usage = self._containers.owned_with_usage(user, uid)
        self._user_ports.make_reachable(container)
        return self._reports.of(container, usage)
