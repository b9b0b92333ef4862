"""doctor: check everything between a user and their container, one finding each."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import NamedTuple

from labshell.errors import LabshellError, NoContainer
from labshell.host import gpus, machine
from labshell.host.tcp import ssh_answers
from labshell.language import mark
from labshell.model.container import Container
from labshell.model.keys import readable
from labshell.model.usage import is_full
from labshell.operations.lab import Lab
from labshell.operations.steps import Progress, Steps
from labshell.wire import gateway

FULL = 0.9
ENDS_SOON = datetime.timedelta(days=14)
ASK_GPU = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
TELL_ADMINISTRATOR = Progress("Ask the administrator to look at it.")
START_THEN_DELETE = Progress("Start it: run `start` (space is reserved for it). Then delete files.")
DELETE_FIRST = Progress(
    "Delete files, and do not stop or restart before. Find the largest: run `sudo du -xh / | sort -h | tail`."
)
GOOD, BAD, UNKNOWN = "good", "bad", "unknown"


class Finding(NamedTuple):
    """The result of one check: good, bad or unknown, why, and what to do about it."""

    result: str
    finding: Progress
    remedy: Progress | None = None


class Doctor:
    """The checks on one researcher's side of a host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._containers = lab.containers

    def examine(self, user: str, uid: int) -> Steps[list[gateway.Finding]]:
        """Every check that applies."""
        found: list[gateway.Finding] = []
        for check, examine in self._checks(user, uid):
            yield Progress("Looking at: {check}", {"check": check})
            try:
                finding = examine()
            except LabshellError as error:
                finding = Finding(UNKNOWN, Progress(error.sentence, error.values), TELL_ADMINISTRATOR)
            remedy = finding.remedy.message if finding.remedy else None
            found.append(
                {"check": check, "result": finding.result, "finding": finding.finding.message, "remedy": remedy}
            )
        return found

    def _checks(self, user: str, uid: int) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """The checks by name, in the order in which one depends on the other."""
        yield mark("Account"), lambda: self._account(user)
        yield mark("Keys"), lambda: self._keys(user)
        try:
            container = self._containers.owned(user, uid)
        except NoContainer as error:
            because = Progress(error.sentence, error.values)
            yield mark("Container"), lambda: Finding(BAD, because, TELL_ADMINISTRATOR)
            return
        yield mark("Container"), lambda: _state(container, self._lab.closed.message)
        if self._lab.config.has_ports:
            yield mark("Address"), lambda: _address(container)
            yield mark("Port"), lambda: self._port(container, uid)
        elif container.state == "Running":
            yield mark("Address"), lambda: _address_from_lab(container)
        yield mark("Disk"), lambda: self._disk(container)
        yield mark("Clock"), _clock
        if container.state == "Running":
            yield mark("Host key"), lambda: self._host_key(container)
            yield mark("SSH server"), lambda: _ssh_server(container)
            yield mark("Sessions"), lambda: self._logind(container)
            if container.gpus != "none" or container.gpus_aside:
                yield mark("GPU"), lambda: self._gpu(container)

    def _account(self, user: str) -> Finding:
        door = self._lab.accounts.door(user)
        if not door.is_home_safe:
            return Finding(BAD, Progress("Your home on the host has a wrong owner or mode."), TELL_ADMINISTRATOR)
        last_day = self._lab.accounts.last_day(user)
        if last_day is not None and last_day - self._lab.clock.today() < ENDS_SOON:
            return Finding(BAD, Progress("Your account ends after {day}.", {"day": last_day.isoformat()}),
                           Progress("Ask the administrator for more time."))  # fmt: skip
        return Finding(GOOD, Progress("{user} is a user of this host.", {"user": user}))

    def _keys(self, user: str) -> Finding:
        keys = readable(self._lab.accounts.keys_of(user))
        if not keys:
            return Finding(BAD, Progress("You have no key to log in with."), Progress("Add one: run `keys add`."))
        return Finding(GOOD, Progress("You can log in with {count} keys.", {"count": str(len(keys))}))

    def _port(self, container: Container, uid: int) -> Finding:
        """The rules are there, and a connection to the port really passes them."""
        user = container.name
        port, firewall = self._lab.ports.port_of(user), self._lab.firewall
        if port is None:
            return Finding(BAD, Progress("You have no port yet."), Progress("Run `start` to get one."))
        if not firewall.has_live_rules(container, uid, port):
            return Finding(BAD, Progress("Firewall rules that forward port {port} to your container are missing.",
                                         {"port": str(port)}), Progress("Run `start` to restore them."))  # fmt: skip
        before = firewall.packets(user)
        answers = ssh_answers(firewall.address, port)
        if before is None:  # nobody counts; a server that does not answer at all is another finding
            arrives = answers or not ssh_answers(container.address or "")
        else:
            arrives = firewall.packets(user) != before
        if not arrives:
            taken = Progress("Another firewall rule takes the connections to port {port}.", {"port": str(port)})
            return Finding(BAD, taken, TELL_ADMINISTRATOR)
        return Finding(GOOD, Progress("Port {port} is forwarded to your container.", {"port": str(port)}))

    def _disk(self, container: Container) -> Finding:
        own = self._containers.disks.use_of(container)
        used, total = own or self._containers.pools.space(container.pool)
        if not used or not total:
            return Finding(UNKNOWN, Progress("The storage pool does not say how full the disk is."))
        share = {"percent": f"{used / total:.0%}"}
        if own is None:
            if used > FULL * total:
                return Finding(BAD, Progress("The lab's storage is {percent} full.", share), TELL_ADMINISTRATOR)
            return Finding(GOOD, Progress("The lab's storage is {percent} full.", share))
        if is_full(used, total):
            remedy = START_THEN_DELETE if container.state == "Stopped" else DELETE_FIRST
            return Finding(BAD, Progress("The disk is {percent} full.", share), remedy)
        if used > FULL * total:
            return Finding(BAD, Progress("The disk is {percent} full.", share),
                           Progress("Find the largest: run `sudo du -xh / | sort -h | tail`."))  # fmt: skip
        return Finding(GOOD, Progress("The disk is {percent} full.", share))

    def _host_key(self, container: Container) -> Finding:
        """What ssh will be shown against what the card shows."""
        if self._containers.inside.host_key(container.name) == " ".join(container.host_key.split()[:2]):
            return Finding(GOOD, Progress("The host key is the one on the card."))
        return Finding(BAD, Progress("The container's host key is not the one on the card."),
                       Progress("If you did not change it yourself, rebuild the container."))  # fmt: skip

    def _logind(self, container: Container) -> Finding:
        if self._containers.inside.logind_failed(container.name):
            return Finding(BAD, Progress("systemd-logind has failed, and each login waits for it."),
                           Progress("Start it: run `restart`."))  # fmt: skip
        return Finding(GOOD, Progress("systemd-logind has not failed."))

    def _gpu(self, container: Container) -> Finding:
        if container.gpus_aside:
            return Finding(BAD, Progress("It was started without its GPU, which is not there."), TELL_ADMINISTRATOR)
        status, output = self._containers.inside.ask(container.name, ASK_GPU, timeout_seconds=30)
        if "version mismatch" in output:
            return Finding(BAD, Progress("The NVIDIA driver in the container is of another version than the host's."),
                           Progress("Install version {version} inside, without its kernel module.",
                                    {"version": _driver_version()}))  # fmt: skip
        if "Failed to initialize NVML" in output:
            return Finding(BAD, Progress("The GPU has gone from the running container: Failed to initialize NVML."),
                           Progress("Bring it back: run `restart`."))  # fmt: skip
        if status != 0:
            return Finding(BAD, Progress("nvidia-smi does not work in the container."),
                           Progress("Install the NVIDIA driver inside, without its kernel module."))  # fmt: skip
        inside, host = output.split(maxsplit=1)[0] if output.strip() else "?", _driver_version()
        if host not in ("?", inside):
            return Finding(BAD, Progress("The NVIDIA driver in the container is {inside}, the host's is {host}.",
                                         {"inside": inside, "host": host}),
                           Progress("Install version {version} inside, without its kernel module.",
                                    {"version": host}))  # fmt: skip
        return Finding(GOOD, Progress("The GPU answers inside, driver {version}.", {"version": inside}))


def _state(container: Container, maintenance: str | None) -> Finding:
    if container.state == "Running":
        return Finding(GOOD, Progress("It is yours and runs."))
    remedy = Progress("Start it: run `start`.")
    if maintenance is not None:
        remedy = Progress(
            "New starts are disabled (maintenance), try again later: {message}", {"message": maintenance}
        )
    return Finding(BAD, Progress("It is yours and does not run."), remedy)


def _address(container: Container) -> Finding:
    if container.address:
        return Finding(GOOD, Progress("{address}, always the same.", {"address": container.address}))
    return Finding(BAD, Progress("It has no fixed address, so no port can lead to it."), TELL_ADMINISTRATOR)


def _address_from_lab(container: Container) -> Finding:
    if container.address:
        return Finding(GOOD, Progress("{address}, given by the lab's network.", {"address": container.address}))
    return Finding(BAD, Progress("The lab's network has given it no address."),
                   Progress("Run `enter`, and there `sudo systemctl restart networking`."))  # fmt: skip


def _ssh_server(container: Container) -> Finding:
    if container.address and ssh_answers(container.address):
        return Finding(GOOD, Progress("It answers."))
    return Finding(BAD, Progress("It does not answer."),
                   Progress("Run `enter`, and there `sudo systemctl restart ssh`."))  # fmt: skip


def _clock() -> Finding:
    if machine.clock_is_behind():
        return Finding(BAD, Progress("The host's clock is behind the time at which it last wrote a file."),
                       TELL_ADMINISTRATOR)  # fmt: skip
    return Finding(GOOD, Progress("It is the host's: {time} UTC.", {"time": machine.utc_time()}))


def _driver_version() -> str:
    try:
        return gpus.driver_version()
    except gpus.NoGpus:
        return "?"
