"""The connection to the container engine, through pylxd: who it is, how long it may take, how it fails.

pylxd's errors are strings and its calls have no time limit, so: every call has one, operations are started
without waiting and then waited for in steps, and every failure becomes one of our errors with a sentence.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

os.environ.setdefault("PYLXD_WARNINGS", "none")  # read by pylxd at import: unknown attributes are no news

import pylxd
import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.language import mark
from labshell.model.names import INSTANCE

Given = ParamSpec("Given")
Result = TypeVar("Result")
SOCKETS = ("/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket")
CALL_SECONDS = 15
COPY_SECONDS = 900
WAIT_STEP_SECONDS = 5
LONGEST_DETAIL = 4000  # characters of the engine's own words that root is shown
SETTLE_SECONDS = 4  # how long the engine may be busy finishing what has already happened
REWRITE_ATTEMPTS = 5
CHANGE = mark("be changed")
PRECONDITION_FAILED = 412  # HTTP: what was to be changed is not what was read


class Busy(TryAgain):
    """The engine is still at something else with this container."""


class DiskFull(LabshellError):
    """A container's own disk takes nothing any more, and so not what the engine writes beside its files."""


class GpuMissing(LabshellError):
    """A container does not start because of a GPU; without it, it would."""


class OperationFailed(Exception):
    """A background operation ended badly; the text is the engine's."""


FULL_POOL = mark("The storage pool is full, so the container cannot {action}. The administrator has to make room.")
FULL_DISK = mark(
    "The disk of the container is full or broken, so it cannot {action}. "
    "Delete files in it, go back to a snapshot, or ask the administrator for more disk."
)
LEFT_SNAPSHOT = mark(
    "The container {name} cannot {action}: the engine did not finish a snapshot of it. "
    "Tell the administrator, whom labshell-admin doctor shows how to remove that."
)
# What the engine says -> what the person reads. Matched by substring: the class and the HTTP status of a failed
# operation are always the same.
SENTENCES: tuple[tuple[str, type[LabshellError], str], ...] = (
    ("Instance not found", NoContainer, mark("There is no container {name}.")),
    ("No such object", NoContainer, mark("There is no container {name}.")),
    ("no space left on device", LabshellError, FULL_POOL),
    ("write failed", LabshellError, FULL_POOL),
    (
        "unable to limit requested quota group",
        LabshellError,
        mark(
            "There is more in the container {name} than its disk limit allows. "
            "The administrator's guide says how it gets another limit then."
        ),
    ),
    ("disk quota exceeded", DiskFull, FULL_DISK),
    ("Disk quota exceeded", DiskFull, FULL_DISK),  # as the programs say it that the engine calls
    ("saving config file for the container failed", DiskFull, FULL_DISK),  # liblxc could not write there
    ("is busy running", Busy, mark("The container is busy with something else; try again in a moment.")),
    ("forkfile.sock", Busy, mark("The container is busy with something else; try again in a moment.")),
    ("Instance is running", Busy, mark("The container is being started by somebody else; try again in a moment.")),
    (
        "In use",
        LabshellError,
        mark("The container cannot {action} until the administrator restarts the engine, which holds its disk."),
    ),
    (
        'Failed to start device "labshell-gpu',  # whatever the engine's words for the reason
        GpuMissing,
        mark("The container cannot {action}: a GPU it was given is not there. Tell the administrator."),
    ),
    (
        "Failed to detect requested GPU",
        GpuMissing,
        mark("The container cannot {action}: a GPU it was given is not there. Tell the administrator."),
    ),
    (
        "NVIDIA container tools",
        GpuMissing,
        mark("The container cannot {action}: the host's NVIDIA container tools are missing."),
    ),
    (
        "requires bridge netfilter",
        LabshellError,
        mark(
            "The container cannot {action}: the kernel module br_netfilter is not loaded or switched off. "
            "Tell the administrator."
        ),
    ),
    (
        "dmapping abilities",
        UsageError,
        mark("This kernel and this engine cannot map the ownership of a mount; add :noshift to it."),
    ),
    (
        "already defined on another NIC",
        LabshellError,
        mark("The container cannot {action}: another container has the same address. Tell the administrator."),
    ),
    (
        "Not enough uid/gid available",
        LabshellError,
        mark("The host has no ids left for another isolated container; enlarge root's range in /etc/subuid."),
    ),
    ("shutting down", TryAgain, mark("The container engine is being restarted; try again in a moment.")),
    ("database is closed", TryAgain, mark("The container engine is being restarted; try again in a moment.")),
    (
        "No root device could be found",
        LabshellError,
        mark("The container cannot {action}: no storage pool is known. Set pool in labshell.toml."),
    ),
    ("Cannot remove a volume that has snapshots", LabshellError, LEFT_SNAPSHOT),
    ("already exists", UsageError, mark("There is a container {name} already.")),
)


# What changes an instance: its config, its own devices, its root device.
Change = Callable[[dict[str, str], dict[str, Any], dict[str, str]], None]


@dataclass(frozen=True)
class About:
    """Which engine it is: "lxd" or "incus", and its version."""

    name: str
    version: str


class Engine:
    """One engine, reached by its Unix socket; the first of the known places if none is given."""

    def __init__(self, socket: str = "") -> None:
        self.socket = socket
        self._lock = threading.Lock()
        self._connected: Any = None

    @property
    def api(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = self.new_client(CALL_SECONDS)
            return self._connected.api

    @property
    def path(self) -> Path:
        """The socket: the configured one, or the one that is there."""
        usual = map(Path, SOCKETS)
        return Path(self.socket) if self.socket else next(filter(Path.exists, usual), Path(SOCKETS[0]))

    def new_client(self, timeout_seconds: int) -> Any:
        client = pylxd.Client(endpoint="http+unix://" + quote(str(self.path), safe=""), timeout=timeout_seconds)
        client.api.session.trust_env = False  # no proxy and no .netrc, which it would look for each time
        return client

    def about(self) -> About:
        with asking("", "be read"):
            environment = self.api.get().json()["metadata"]["environment"]
        return About(environment["server"], environment["server_version"])

    def instance(self, name: str) -> Any:
        # The name becomes part of a URL, which pylxd does not quote.
        if not INSTANCE.fullmatch(name):
            raise UsageError("{name} is not the name of a container.", name=repr(name)[:80])
        return self.api.instances[name]

    def wait(self, answer: Any, timeout_seconds: int) -> dict[str, Any]:
        """Wait for a background operation, in steps short enough for the client's own time limit.

        The operation goes on in the engine after a TryAgain: whoever catches that reads the state again.
        """
        operation = answer.json()["operation"].rpartition("/")[2].partition("?")[0]
        deadline = time.monotonic() + timeout_seconds
        while True:
            step = max(1, min(WAIT_STEP_SECONDS, int(deadline - time.monotonic())))
            waiting = self.api.operations[operation].wait
            try:
                metadata = waiting.get(params={"timeout": step}).json()["metadata"]
            except LXDAPIException as error:
                if "context deadline exceeded" not in str(error):  # how Incus says "not yet"
                    raise
                metadata = {"status_code": 103}
            if metadata["status_code"] >= 400:
                raise OperationFailed(metadata.get("err", ""))
            if metadata["status_code"] == 200:
                return metadata.get("metadata") or {}
            if time.monotonic() > deadline:
                raise TryAgain(
                    "The container engine has not finished after {seconds} seconds; look again later.",
                    seconds=timeout_seconds,
                )

    def patch(self, name: str, config: Mapping[str, str]) -> None:
        """Set keys of an instance's config and leave all others as they are."""
        answer = self.instance(name).patch(json={"config": dict(config)})
        if answer.json().get("type") == "async":
            self.wait(answer, CALL_SECONDS)

    def rewrite(self, name: str, change: Change) -> None:
        """Change an instance's config and devices as a whole: a patch can take no device away.

        `change` gets config, the instance's own devices and its root device, wherever that comes from. What
        somebody else changed meanwhile is read again.
        """
        with asking(name, CHANGE):
            for attempt in range(REWRITE_ATTEMPTS):
                answer = self.instance(name).get()
                found = answer.json()["metadata"]
                config, devices = found["config"], found["devices"]
                change(config, devices, dict(found["expanded_devices"]["root"]))
                body = {key: found[key] for key in ("architecture", "ephemeral", "profiles", "description")}
                body |= {"config": {key: value for key, value in config.items() if value}, "devices": devices}
                try:
                    unless_changed = {"If-Match": answer.headers["ETag"]}
                    self.wait(self.instance(name).put(json=body, headers=unless_changed), CALL_SECONDS)
                except LXDAPIException as error:
                    if error.response.status_code != PRECONDITION_FAILED or attempt == REWRITE_ATTEMPTS - 1:
                        raise
                else:
                    return


def patient(act: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same, done again for a while where the engine is still finishing what has already happened."""

    @functools.wraps(act)
    def act_patiently(*arguments: Given.args, **options: Given.kwargs) -> Result:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return act(*arguments, **options)
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    return act_patiently


@contextlib.contextmanager
def asking(name: str, action: str) -> Iterator[None]:
    """Turn whatever the engine or pylxd raise into one of our errors. `action`: "cannot …"."""
    try:
        yield
    except NotFound as error:
        raise NoContainer("There is no container {name}.", name=name) from error
    except (LXDAPIException, OperationFailed) as error:
        failure = _error_for(str(error), name, action)
        failure.detail = str(error)[:LONGEST_DETAIL]
        raise failure from error
    except (requests.Timeout, TimeoutError) as error:
        raise TryAgain("The container engine does not answer; try again in a moment.") from error
    except (ClientConnectionFailed, OSError) as error:  # requests' own errors are OSErrors too
        raise TryAgain("The container engine is away; try again in a moment.") from error


def _error_for(message: str, name: str, action: str) -> LabshellError:
    for part, kind, sentence in SENTENCES:
        if part in message:
            return kind(sentence, name=name, action=action)
    return LabshellError(
        "The container engine could not do this: the container {name} cannot {action}. Tell the administrator.",
        name=name,
        action=action,
    )
