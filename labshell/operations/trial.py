"""labshell-admin doctor --try: a container is made, logged in to, looked at from inside, and removed again.

It is a service's container under a name that nobody else can have, so its port gets its rules as every port does;
and no account, no block of ports and no uid is used up. Whatever happens, it is removed; what a kill leaves is
removed by the next trial.
"""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labshell.engine import identity, records, templates
from labshell.errors import LabshellError
from labshell.host import files, probe
from labshell.host.probe import Guest, Target
from labshell.model import keys
from labshell.model.addresses import choose_address
from labshell.model.container import OwnForward
from labshell.model.ports import SSH
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle

NAME = "labshell--try"  # two hyphens are in no user's name, and labshell is reserved
USER = "guest"
DNS = 53
MOST_NEIGHBOURS = 8
GOOD, BAD, NOT_TRIED = "good", "bad", "not tried"
# What the engine would show of itself in a container, if devlxd were not off.
ENGINE_INSIDE = "ls -d /dev/lxd /dev/incus 2> /dev/null || true"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How one step ended; `detail` says why, where that is not plain."""

    step: str
    seconds: float
    result: str = GOOD
    detail: str = ""


class NotTried(Exception):
    """A step has nothing to try here; the text says why."""


class Trial:
    """One trial on one host. `begin` is told each step before it, and `end` its outcome."""

    def __init__(self, lab: Lab, begin: Callable[[str], None], end: Callable[[Outcome], None]) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._config = lab.config
        self._containers = lab.containers
        self._begin = begin
        self._end = end
        self._way_in = Target("", SSH)
        self._host_key = ""

    def check(self) -> None:
        """Refuse before anything is changed."""
        self._containers.clones.check_template(self._config.template)
        container = self._containers.get(NAME)
        if container is not None and records.FORWARDS not in container.config:
            raise LabshellError(
                "trial-name-foreign", "There is a container {name} that is not labshell's; rename it.", name=NAME
            )

    def run(self) -> bool:
        """Every step, and the removal in any case; whether all was well."""
        run = self._config.paths.run
        with files.locked(run / "try.lock"), probe.guest(USER, run / "try") as guest:
            self.check()
            is_good = False
            try:
                is_good = self._look(guest)
            finally:
                with _undisturbed():
                    is_removed = self._step("Removing it, its rules and its keys", self._remove)
        return is_good and is_removed

    def _look(self, guest: Guest) -> bool:
        """The steps that need each other, then the independent ones."""
        way = "through a port of this host" if self._config.has_ports else "at its own address"
        needed = {
            f"Making a container from the template {self._config.template}": self._make,
            "Starting it and waiting for its SSH server": lambda: self._start(guest),
            f"Logging in {way}": lambda: self._log_in(guest),
        }
        looks = {
            "Asking this host's name server": self._ask_name_server,
            "Reaching the outside": self._reach_outside,
            "Other containers are closed to it": self._try_neighbours,
            "This host's services are closed to it": self._try_host,
            "The container engine is closed to it": self._try_engine,
        }
        is_good = all(self._step(step, act) for step, act in needed.items())
        for step, look in looks.items() if is_good else ():
            is_good &= self._step(step, partial(look, guest))
        return is_good

    def _step(self, step: str, act: Callable[[], None]) -> bool:
        self._begin(step)
        began, result, detail = time.monotonic(), GOOD, ""
        try:
            act()
        except NotTried as reason:
            result, detail = NOT_TRIED, str(reason)
        except LabshellError as error:
            result, detail = BAD, " ".join([str(error), error.detail]).strip()
        except BaseException:
            self._end(Outcome(step, time.monotonic() - began, BAD, "Interrupted."))
            raise
        self._end(Outcome(step, time.monotonic() - began, result, detail))
        return result != BAD

    def _make(self) -> None:
        self._remove()  # what a trial has left that was killed
        bridge = None if self._containers.network.is_labs_own else self._containers.network.bridge()
        address = ""
        if bridge:
            # The last one: the daemon may be giving out the first ones at this moment.
            taken = self._containers.addresses.taken()
            address = choose_address(bridge.address, taken, bridge.strangers, is_last=True)
        self._containers.clones.make(self._config.template, NAME, "", None, address)
        self._containers.marks.set_service(NAME, autostart=False)
        keys_file = self._config.paths.host_keys / NAME
        self._host_key = identity.write_identity(self._containers, NAME, hostname=NAME, keys_file=keys_file)
        if self._config.has_ports:
            self._way_in = Target(self._lab.firewall.address, self._lab.ports.spare_port())
            self._containers.marks.set_forwards(NAME, [OwnForward(self._way_in.port, SSH)])

    def _start(self, guest: Guest) -> None:
        seconds = self._config.start_timeout_seconds
        self._containers.lifecycle.start(NAME, seconds)
        container = self._containers.get(NAME)
        if container is None:
            raise LabshellError("trial-container-gone", "It has gone away meanwhile.")
        self._lifecycle.wait_for_ssh(container, time.monotonic() + seconds)
        identity.write_user(self._containers, NAME, USER, [keys.parse(guest.key)])

    def _log_in(self, guest: Guest) -> None:
        if self._config.has_ports:
            self._lab.firewall.forward_user(NAME)
        else:
            self._way_in = Target(self._containers.addresses.current(NAME) or "", SSH)
        found = guest.run(self._way_in, self._host_key, "hostname").strip()
        if found != NAME:
            raise LabshellError("trial-port-misdirected", "This leads to {name}.", name=repr(found)[:80])

    def _ask_name_server(self, guest: Guest) -> None:
        if self._containers.network.is_labs_own:
            raise NotTried("The lab's own network has its own.")
        server = Target(self._containers.network.bridge().gateway, DNS)
        if not self._reached(guest, [server]):
            raise LabshellError(
                "trial-server-unreachable",
                "No connection to {server}: look whether the engine's network is up, "
                "and whether a firewall on this host drops what comes from {bridge}.",
                server=server, bridge=self._config.network,
            )  # fmt: skip

    def _reach_outside(self, guest: Guest) -> None:
        sources = [path.read_text(errors="replace") for path in _apt_sources()]
        servers = [one for one in probe.package_servers(sources) if not self._is_closed(one)]
        reached = next((one for one in servers if probe.is_reached(one)), None)
        if reached is None:
            raise NotTried("This host itself reaches none of the servers that its apt sources name.")
        if not self._reached(guest, [reached]):
            raise LabshellError(
                "trial-container-offline", "This host reaches {server}, and the container does not.", server=reached
            )

    def _is_closed(self, target: Target) -> bool:
        """Whether the administrator has closed the network of an address."""
        try:
            address = ipaddress.IPv4Address(target.host)
        except ValueError:
            return False
        return any(address in ipaddress.IPv4Network(network) for network in self._config.guard_closed_networks)

    def _try_neighbours(self, guest: Guest) -> None:
        running = [item for item in self._containers.all() if item.state == "Running" and item.name != NAME]
        known = [Target(item.address, SSH) for item in running if item.address]
        listening = [target for target in known if probe.is_reached(target)][:MOST_NEIGHBOURS]
        if not listening:
            raise NotTried("No other container runs.")
        self._refuse_reached(guest, listening)

    def _try_host(self, guest: Guest) -> None:
        bridge = self._containers.network.bridge()
        open_to_all = Target(bridge.gateway, DNS)
        services = [target for target in probe.services_of_host() if target != open_to_all]
        if not services:
            raise NotTried("No service of this host listens on a network.")
        self._refuse_reached(guest, services)

    def _refuse_reached(self, guest: Guest, targets: list[Target]) -> None:
        if not self._config.guard:
            raise NotTried("The guard is off: guard = true in /etc/labshell/labshell.toml closes them.")
        reached = self._reached(guest, targets)
        if reached:
            raise LabshellError(
                "trial-isolation-broken",
                "It reaches {targets}. Run labshell-admin reconcile, and look at: nft list table inet labshell",
                targets=", ".join(map(str, reached)),
            )

    def _try_engine(self, guest: Guest) -> None:
        found = guest.run(self._way_in, self._host_key, ENGINE_INSIDE).split()
        if found:
            raise LabshellError(
                "trial-engine-socket-exposed",
                "The engine's socket is in the container: {paths}.",
                paths=", ".join(found),
            )

    def _reached(self, guest: Guest, targets: list[Target]) -> list[Target]:
        return guest.reached(self._way_in, self._host_key, targets)

    def _remove(self) -> None:
        """Idempotent. The engine may still be making it, if that was interrupted."""
        self._containers.lifecycle.wait_until_idle(NAME)
        self._containers.lifecycle.delete(NAME)
        self._lab.firewall.forward_user(NAME)
        files.remove(self._config.paths.host_keys / NAME)


def _apt_sources() -> list[Path]:
    """Every file in which apt is told where packages come from."""
    files_there = [templates.SOURCES / "sources.list", *sorted((templates.SOURCES / "sources.list.d").glob("*"))]
    return [path for path in files_there if path.suffix in (".list", ".sources") and path.is_file()]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal ends this process, nor the programs that it starts, while the block runs."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
