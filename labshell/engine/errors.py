"""How the engine fails, and the sentence that the user reads instead of the engine's own words."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from labshell.errors import LabshellError, NoContainer, StillPending, TryAgain, UsageError
from labshell.language import mark

Given = ParamSpec("Given")
Result = TypeVar("Result")
LONGEST_DETAIL = 4000  # characters of the engine's own words that root is shown
SETTLE_SECONDS = 4  # how long the engine may be busy finishing what has already happened
CHANGE = mark("be changed")


class Busy(TryAgain):
    """The engine is still at something else with this container."""


class DiskFull(LabshellError):
    """A container's own disk takes nothing any more, and so not what the engine writes beside its files."""


class GpuMissing(LabshellError):
    """A container does not start because of a GPU; without it, it would."""


class EngineError(Exception):
    """A request to the engine failed; `translate_errors` makes one of our errors of it."""


class Missing(EngineError):
    """The engine has no such thing."""


class OperationFailed(EngineError):
    """The engine refused a request, or a background operation ended badly; the text is the engine's."""


class Unreachable(EngineError):
    """The engine cannot be reached."""


class TimedOut(EngineError):
    """The engine did not answer in time."""


FULL_POOL = (
    "storage-pool-full",
    mark("The storage pool is full, so the container cannot {action}. Ask the administrator to make room."),
)
FULL_DISK = (
    "container-disk-full",
    mark(
        "The disk of the container is full or broken, so it cannot {action}. "
        "Delete files in it, go back to a snapshot, or ask the administrator for more disk."
    ),
)
LEFT_SNAPSHOT = (
    "snapshot-unfinished",
    mark(
        "The container {name} cannot {action}: the engine did not finish a snapshot of it. "
        "Tell the administrator, whom labshell-admin doctor shows how to remove that."
    ),
)
# What the engine says -> the error's kind and id, and what the person reads. Matched by substring: the class and the
# HTTP status of a failed operation are always the same.
SENTENCES: tuple[tuple[str, type[LabshellError], str, str], ...] = (
    ("Instance not found", NoContainer, "container-missing", mark("There is no container {name}.")),
    ("No such object", NoContainer, "container-missing", mark("There is no container {name}.")),
    ("no space left on device", LabshellError, *FULL_POOL),
    ("write failed", LabshellError, *FULL_POOL),
    (
        "unable to limit requested quota group",
        LabshellError,
        "disk-limit-exceeded",
        mark(
            "There is more in the container {name} than its disk limit allows. "
            "The administrator's guide says how it gets another limit then."
        ),
    ),
    ("disk quota exceeded", DiskFull, *FULL_DISK),
    ("Disk quota exceeded", DiskFull, *FULL_DISK),  # as the programs say it that the engine calls
    ("saving config file for the container failed", DiskFull, *FULL_DISK),  # liblxc could not write there
    (
        "is busy running",
        Busy,
        "container-busy",
        mark("The container is busy with something else; try again in a moment."),
    ),
    (
        "forkfile.sock",
        Busy,
        "container-busy",
        mark("The container is busy with something else; try again in a moment."),
    ),
    (
        "Instance is running",
        Busy,
        "container-starting",
        mark("Another command is starting the container; try again in a moment."),
    ),
    (
        "In use",
        LabshellError,
        "container-disk-held",
        mark("The container cannot {action} until the administrator restarts the engine, which holds its disk."),
    ),
    (
        'Failed to start device "labshell-gpu',  # whatever the engine's words for the reason
        GpuMissing,
        "gpu-missing",
        mark("The container cannot {action}: a GPU it was given is not there. Tell the administrator."),
    ),
    (
        "Failed to detect requested GPU",
        GpuMissing,
        "gpu-missing",
        mark("The container cannot {action}: a GPU it was given is not there. Tell the administrator."),
    ),
    (
        "NVIDIA container tools",
        GpuMissing,
        "gpu-tools-missing",
        mark("The container cannot {action}: the host's NVIDIA container tools are missing."),
    ),
    (
        "requires bridge netfilter",
        LabshellError,
        "kernel-module-missing",
        mark(
            "The container cannot {action}: the kernel module br_netfilter is not loaded or switched off. "
            "Tell the administrator."
        ),
    ),
    (
        "dmapping abilities",
        UsageError,
        "idmapped-mounts-unsupported",
        mark("Idmapped mounts are not supported by this kernel and engine; add :noshift to the mount."),
    ),
    (
        "already defined on another NIC",
        LabshellError,
        "container-address-taken",
        mark("The container cannot {action}: another container has the same address. Tell the administrator."),
    ),
    (
        "Not enough uid/gid available",
        LabshellError,
        "subuid-range-exhausted",
        mark("The host has no ids left for another isolated container; enlarge root's range in /etc/subuid."),
    ),
    (
        "shutting down",
        StillPending,
        "engine-restarting",
        mark("The container engine is being restarted; try again in a moment."),
    ),
    (
        "database is closed",
        StillPending,
        "engine-restarting",
        mark("The container engine is being restarted; try again in a moment."),
    ),
    (
        "No root device could be found",
        LabshellError,
        "storage-pool-unknown",
        mark("The container cannot {action}: no storage pool is known. Set pool in labshell.toml."),
    ),
    ("Cannot remove a volume that has snapshots", LabshellError, *LEFT_SNAPSHOT),
    ("already exists", UsageError, "container-exists", mark("There is a container {name} already.")),
)


def retry_while_busy(act: Callable[Given, Result]) -> Callable[Given, Result]:
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
def translate_errors(name: str, action: str) -> Iterator[None]:
    """Turn the engine's errors into one of our errors. `action`: "cannot …"."""
    try:
        yield
    except Missing as error:
        raise NoContainer("container-missing", "There is no container {name}.", name=name) from error
    except OperationFailed as error:
        failure = _error_for(str(error), name, action)
        failure.detail = str(error)[:LONGEST_DETAIL]
        raise failure from error
    except (TimedOut, TimeoutError) as error:
        raise StillPending(
            "engine-no-answer", "The container engine does not answer; try again in a moment."
        ) from error
    except (Unreachable, OSError) as error:
        raise StillPending("engine-unreachable", "Cannot connect to LXD; try again in a moment.") from error


def _error_for(message: str, name: str, action: str) -> LabshellError:
    for part, kind, error_id, sentence in SENTENCES:
        if part in message:
            return kind(error_id, sentence, name=name, action=action)
    return LabshellError(
        "engine-refused",
        "The container engine could not do this: the container {name} cannot {action}. Tell the administrator.",
        name=name,
        action=action,
    )
