"""What a researcher's verb does, as steps over the effects.

A verb that takes time is a generator: it yields Progress for the person who waits and returns its answer. One
lock per user, so that two logins make one start; nothing global is held while the engine works.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from labshell import shown
from labshell.config import Config
from labshell.engine import identity
from labshell.engine.client import FULL_POOL, GpuMissing
from labshell.engine.containers import Containers
from labshell.engine.invocation import Program, command_inside, environment_inside
from labshell.engine.lifecycle import ACTIONS
from labshell.engine.programs import RunningProgram, connect, run_inside
from labshell.engine.records import Usage
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.forwarding.firewall import Firewall
from labshell.host import files, gpus, machine
from labshell.host.accounts import Accounts, end_processes
from labshell.host.activity import Activity
from labshell.host.closed import Closed
from labshell.host.ports import PortRegistry
from labshell.host.tcp import ssh_answers
from labshell.language import mark
from labshell.model import forwards, idleness, keys
from labshell.model.addresses import choose_address
from labshell.model.container import Container, OwnForward
from labshell.model.keys import PublicKey
from labshell.model.names import moment_of_kept
from labshell.model.settings import addresses_of_gpus, mounts_of, refuse_more_processors
from labshell.model.usage import is_full
from labshell.operations.locks import StartQueue, UserLocks
from labshell.operations.unfinished import Unfinished

log = logging.getLogger(__name__)
T = TypeVar("T")
CONNECT_SECONDS = 0.2  # an address that is not there yet answers nothing at all
LOOK_AGAIN_SECONDS = 2.0


def pause_after(seconds: float) -> float:
    """How long to wait before the next look at an SSH server that has not answered for so long, in seconds.

    A share of the time waited: next to nothing is added to a fast start, and a slow host is left to its work.
    """
    return min(1.0, max(0.02, seconds / 20))


class Progress(NamedTuple):
    """One thing that is happening now: a template with named values, like an error's sentence."""

    sentence: str
    values: dict[str, str] = {}  # noqa: RUF012 - never changed: a NamedTuple's default


Steps = Generator[Progress, None, T]


class Gateway:
    """The verbs of one host."""

    def __init__(self, config: Config, accounts: Accounts, containers: Containers, ports: PortRegistry) -> None:
        self.config = config
        self.accounts = accounts
        self.containers = containers
        self.ports = ports
        self.locks = UserLocks(config.start_timeout_seconds + config.stop_timeout_seconds)
        self._starts = StartQueue(config.parallel_starts)
        self._promised: set[str] = set()  # addresses of containers that are being made
        self.unfinished = Unfinished(config.paths.state / "unfinished")
        self.closed = Closed(config.paths.state / "closed")
        self.activity = Activity(config.paths.state / "activity.json")
        # By verb: brings what a crash cut off to one end or the other, and leaves a notice. The verb's own module
        # says how.
        self.settlers: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self.firewall = Firewall(config, accounts, containers, ports)

    # Researchers' verbs --------------------------------------------------------------------------------

    def status(self, user: str, uid: int) -> dict[str, Any]:
        """Everything the card shows; starts nothing."""
        return self._report(*self.containers.owned_with_usage(user, uid))

    def settle(self, user: str) -> Steps[None]:
        """Bring to an end what a crash cut off. Whoever is at work for this user just now does it themselves.

        If it cannot be done now, the next request tries again; what was asked for goes on, it may be the way out.
        """
        if self.unfinished.work_of(user) is None:
            return
        with contextlib.suppress(TryAgain), self.locks.held(user, timeout_seconds=0):
            work = self.unfinished.work_of(user)
            if work is not None:
                yield Progress("Finishing what was interrupted")
                try:
                    self.settlers[work["verb"]](user, work)
                except LabshellError as error:
                    log.warning("not settled", extra={"user": user, "verb": work["verb"], "why": str(error)})

    def settle_first(self, user: str) -> Steps[None]:
        """The same for whoever changes what settling would put back."""
        yield from self.settle(user)
        self.unfinished.refuse_open(user)

    def start(self, user: str, uid: int) -> Steps[dict[str, Any]]:
        """Start if stopped, with the user's port leading to it."""
        self.accounts.note_login(user)
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            if (yield from self.ensure_running(container)):
                container = self.containers.owned(user, uid)
            self.make_reachable(user)
        return self._report(container)

    def stop(self, user: str, uid: int, *, force: bool = False) -> Steps[dict[str, Any]]:
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            yield Progress("Stopping your container")
            self.stop_container(container, force=force)
        return self.status(user, uid)

    def restart(self, user: str, uid: int, *, force: bool = False) -> Steps[dict[str, Any]]:
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            self.closed.refuse_if_closed()
            self.refuse_full_pool(container)
            yield Progress("Stopping your container")
            self.stop_container(container, force=force)
            yield from self.ensure_running(self.containers.owned(user, uid))
            return self.ready(user, uid)

    def enter(self, user: str, uid: int, wanted: Program) -> Steps[RunningProgram]:
        """A program inside the container, through the engine: works with its network and sshd broken."""
        container = self.containers.owned(user, uid)
        if container.state != "Running":
            with self.locks.held(user):
                container = self.containers.owned(user, uid)
                yield from self.ensure_started(container)
        return run_inside(
            self.config.engine_socket, self.config.paths.state, user, command_inside(user, wanted),
            terminal=wanted.terminal, environment=environment_inside(wanted),
        )  # fmt: skip

    def proxy(self, user: str, uid: int) -> Steps[int]:
        """A TCP connection to the container's SSH server, started first if it is stopped: a descriptor."""
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            if (yield from self.ensure_running(container)):
                container = self.containers.owned(user, uid)
        if not container.address:
            raise LabshellError("Your container has no address; ask the administrator to look at it.")
        return connect(container.address)

    def forwards(self, user: str, uid: int) -> list[dict[str, Any]]:
        """The user's own forwards that are not over yet."""
        now = time.time()
        return [
            {
                "port": own.port,
                "target": own.target,
                "name": own.name or None,
                "source": own.source or None,
                "seconds_left": None if own.until is None else int(own.until - now),
            }
            for own in self.containers.owned(user, uid).forwards
            if not own.is_over(now)
        ]

    def add_forward(self, user: str, uid: int, target: int, name: str, lasting: str, source: str) -> None:
        """One more forward in the user's own block; live when this returns."""
        self.refuse_without_ports()
        now = time.time()
        until = int(now) + forwards.seconds_of(lasting) if lasting else None
        wanted = OwnForward(0, target, name, forwards.checked_source(source) if source else "", until)
        self.firewall.check_source(wanted.source)
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            port = self.ports.ensure(user)
            own, block = container.forwards, self.ports.block(port)
            busy = self.ports.busy_beside(own)
            self.containers.marks.set_forwards(user, forwards.add_forward(own, block, wanted, now, busy))
            self.firewall.forward_user(user)

    def remove_forward(self, user: str, uid: int, port: int) -> None:
        self.refuse_without_ports()
        with self.locks.held(user):
            container = self.containers.owned(user, uid)
            self.containers.marks.set_forwards(user, forwards.remove_forward(container.forwards, port))
            self.firewall.forward_user(user)

    # Steps others use ----------------------------------------------------------------------------------

    def stop_container(self, container: Container, *, force: bool = False) -> None:
        """Stop it and delete its connections from the host's table."""
        self.containers.lifecycle.stop(container.name, self.config.stop_timeout_seconds, force=force)
        if container.address:
            self.firewall.forget([container.address])

    def ensure_running(self, container: Container) -> Steps[bool]:
        """Start or thaw, then wait until SSH answers; whether there was anything to do.

        The caller holds the user's lock, so a container that runs has been waited for.
        """
        deadline = time.monotonic() + self.config.start_timeout_seconds
        if not (yield from self.ensure_started(container, deadline)):
            return False
        yield Progress("Waiting for its SSH server")
        self.wait_for_ssh(container, deadline)
        return True

    def ensure_started(self, container: Container, deadline: float | None = None) -> Steps[bool]:
        """Start or thaw; whether there was anything to do."""
        deadline = deadline or time.monotonic() + self.config.start_timeout_seconds
        if container.state == "Running":
            return False
        if container.state not in ("Stopped", "Frozen"):
            raise TryAgain("The container is {state} just now; try again in a moment.", state=container.state.lower())
        self.closed.refuse_if_closed()
        self.refuse_full_pool(container)
        with self._starts.ticket() as ticket:
            for place in self._starts.places(ticket, deadline):
                yield Progress("Waiting to start: place {place} in the queue", {"place": str(place)})
            yield Progress("Starting the container")
            self._start(container, deadline)
        return True

    def _start(self, container: Container, deadline: float) -> None:
        """Start it; without its GPUs, if it is they that hinder it. They are tried again at the next start."""
        name, seconds = container.name, max(1, int(deadline - time.monotonic()))
        if container.state == "Stopped" and container.address and container.has_old_port:
            self.containers.addresses.assign(name, container.address)
        if container.state == "Stopped":
            self._write_units(name)
        if container.gpus_aside:
            self.containers.configuration.bring_gpus_back(name)
        try:
            self.containers.lifecycle.start(name, seconds)
        except GpuMissing as error:
            log.warning("started without its GPUs", extra={"container": name, "why": str(error)})
            self.containers.configuration.put_gpus_aside(name)
            self.containers.lifecycle.start(name, seconds)
            notice = mark("Your container runs without its GPU, which is not there. Tell the administrator.")
            self.unfinished.tell(container.owner or name, notice)

    def _write_units(self, name: str) -> None:
        """For a container of an earlier version; it starts without them, too."""
        try:
            identity.write_units(self.containers, name)
        except LabshellError as error:
            log.warning("the settings for its units are not written", extra={"container": name, "why": str(error)})

    def wait_for_ssh(self, container: Container, deadline: float) -> None:
        """Until port 22 shows a banner: the engine's own start returns long before that."""
        address, waits_for_address = container.address, self.containers.network.is_labs_own
        if not address and not waits_for_address:
            return
        began, times_stopped = time.monotonic(), 0
        look_again = began + LOOK_AGAIN_SECONDS
        while not address or not ssh_answers(address, connect_seconds=CONNECT_SECONDS):
            if waits_for_address:
                address = self.containers.addresses.current(container.name)
            if time.monotonic() > look_again:
                now = self.containers.get(container.name)
                # One look is not enough: a busy engine may call a running container stopped for a moment.
                times_stopped = 0 if now is not None and now.state == "Running" else times_stopped + 1
                if times_stopped == 2:
                    raise LabshellError(
                        "The container stopped again right after its start; "
                        "the administrator finds the reason in its console log."
                    )
                look_again = time.monotonic() + LOOK_AGAIN_SECONDS
            if time.monotonic() > deadline and not address:
                raise TryAgain(
                    "The container runs, but the network has given it no address in {seconds} seconds. "
                    "enter gets you in all the same.",
                    seconds=self.config.start_timeout_seconds,
                )
            if time.monotonic() > deadline:
                raise TryAgain(
                    "The container runs, but its SSH server has not answered in {seconds} seconds. "
                    "enter gets you in all the same.",
                    seconds=self.config.start_timeout_seconds,
                )
            time.sleep(pause_after(time.monotonic() - began) if address else CONNECT_SECONDS)

    def refuse_full_pool(self, container: Container, action: str = ACTIONS["start"]) -> None:
        """A full pool makes a start fail, and a restart stop what it cannot start again: look first."""
        if self.containers.pools.is_full(container.pool):
            raise LabshellError(FULL_POOL, action=action)

    @contextlib.contextmanager
    def choosing_address(self) -> Iterator[str]:
        """A free address on the bridge, reserved while the block makes the container that has it.

        Empty where the lab's own network gives the addresses.
        """
        network = self.containers.network
        if network.is_labs_own:
            yield ""
            return
        with files.locked(self.config.paths.run / "addresses.lock"):
            bridge = network.bridge()
            taken = set(self._promised)  # first: one that is made meanwhile is among the others' then
            taken |= self.containers.addresses.taken() | self.unfinished.addresses()
            address = choose_address(bridge.address, taken, bridge.strangers)
            self._promised.add(address)
        try:
            yield address
        finally:
            self._promised.discard(address)

    def ready(self, user: str, uid: int) -> dict[str, Any]:
        """The report on a container that runs, with the user's port leading to it."""
        self.make_reachable(user)
        return self.status(user, uid)

    def make_reachable(self, user: str) -> None:
        """Have the user's port and their own lead to the container. The caller holds the user's lock."""
        if self.config.has_ports:
            self.ports.ensure(user)
            self.firewall.forward_user(user)

    def port_of(self, user: str) -> int | None:
        """The user's SSH port, where host ports lead to the containers."""
        return self.ports.port_of(user) if self.config.has_ports else None

    def end_expired(self) -> None:
        """End what people whose last day is over still have running: sshd asks for that day at the door only."""
        uids, _ = machine.people_at_work()
        for item in self.containers.all():
            if item.uid in uids and item.owner == item.name and not item.may_be_used(machine.today()):
                end_processes(item.uid)

    def make_account(self, user: str, public_keys: list[PublicKey]) -> int:
        """An account that these keys open, made if there is none; its uid, which no container is marked with."""
        marked = {item.uid for item in self.containers.all() if item.uid is not None}
        uid = self.accounts.ensure(user, marked)
        self.accounts.set_keys(user, public_keys)
        return uid

    def next_uid(self) -> int:
        """The uid that make_account() would give to a new account."""
        return self.accounts.next_uid({item.uid for item in self.containers.all() if item.uid is not None})

    def refuse_without_ports(self) -> None:
        """For what is about ports of the host: on the lab's own network every port of a container is reached."""
        if not self.config.has_ports:
            raise UsageError("This container has an address of its own: every port of it is reached there.")

    def refuse_missing_folders(self, settings: Mapping[str, str]) -> None:
        """A folder that is to be mounted is there now; at a start it may be missing, and nothing is mounted then."""
        for mount in mounts_of(settings):
            if not machine.is_folder(mount.source):
                raise UsageError("There is no folder {path} on the host.", path=mount.source)

    def on_this_host(self, settings: Mapping[str, str], given: Collection[str]) -> dict[str, str]:
        """Settings with GPUs by their addresses; UsageError for what this host has not got.

        Only what was `given` is compared with the processors: labshell.toml may be the same on several hosts.
        """
        checked = dict(settings)
        if "gpus" in checked:
            checked["gpus"] = addresses_of_gpus(checked["gpus"], gpus.installed())
        if "cpu" in given:
            refuse_more_processors(checked["cpu"], machine.load().processors)
        return checked

    def _report(self, container: Container, usage: Usage | None = None) -> dict[str, Any]:
        """The answer of every verb that reports; its shape is in the .varlink file."""
        running = container.state in ("Running", "Frozen")
        if usage is None and running:
            usage = self.containers.usage(container)
        disk = usage.disk if usage else self.containers.pools.held_by(container)
        load = machine.load()
        port = self.port_of(container.name)
        last_active = self.activity.read().get(container.name)
        hold = container.hold_at(time.time())
        due = idleness.stops_at(last_active, self.config.idle_stop_days, container.hold) if last_active else None
        is_near = running and due is not None and due - time.time() < idleness.WARN_SECONDS
        fingerprint = keys.parse(container.host_key).fingerprint if container.host_key else None
        return {
            "user": container.name,
            "host": self.config.shown_hostname,
            "host_port": self.config.ssh_port,
            "menu_idle_minutes": self.config.menu_idle_minutes,
            "state": container.state.lower(),
            "address": container.address,
            "has_ports": self.config.has_ports,
            "port": port,
            "last_port": self.ports.block(port)[-1] if port else None,
            "host_key": container.host_key or None,
            "fingerprint": fingerprint,
            "gateway_fingerprint": machine.ssh_fingerprint(),
            "uptime_seconds": _seconds_since(container.started_at) if running else None,
            "cpu_limit": container.config.get("limits.cpu") or None,
            "memory_used": usage.memory if usage and running else None,
            "memory_limit": container.config.get("limits.memory") or None,
            "disk_used": disk,
            "disk_limit": container.config.get("disk") or None,
            "disk_full": is_full(disk or 0, shown.bytes_of(container.config.get("disk", "")) or 0),
            "processes": usage.processes if usage and running else None,
            "host_load": round(load.averages[0], 2),
            "host_processors": load.processors,
            "host_memory_used": load.memory_used,
            "host_memory_total": load.memory_total,
            "maintenance": self.closed.message,
            "idle_stop_days": self.config.idle_stop_days,
            "stops_at": idleness.written(max(due, time.time())) if due and is_near else None,
            "held_until": idleness.written(hold.until) if hold else None,
            "held_for": hold.reason or None if hold else None,
            "kept": moment_of_kept(container.kept),
        }


def _seconds_since(moment: float | None) -> int | None:
    return None if moment is None else max(0, int(time.time() - moment))
