"""What containers use of the host: processors, disk, and whose a process is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

# A disk with less room than this is full: the engine and a boot write some MB. It is more than the reserve of a disk
# (engine.reserve), so that a full one from which that has just been deleted for a start still counts as full.
FULL_BYTES = 48 << 20
OUTERMOST_CONTAINER = re.compile(r"^\d+:[^:]*:(?:/[^/\n]*?)*?/lxc\.payload\.([^/\n]+)", re.MULTILINE)


def container_of_control_group(text: str) -> str | None:
    """The container of a process, from its control groups; None for one of the host's own.

    Inside its own part of the tree a container may make groups with any name, so the outermost one counts.
    """
    found = OUTERMOST_CONTAINER.search(text)
    return found.group(1) if found else None


def processors_used(
    before: Mapping[str, float | None], after: Mapping[str, float | None], seconds: float
) -> dict[str, float]:
    """How many processors each container kept busy, from its CPU seconds at two moments that far apart."""
    busy = {}
    for name, end in after.items():
        start = before.get(name)
        if start is not None and end is not None:
            busy[name] = round(max(0.0, end - start) / seconds, 2)
    return busy


def is_full(used: int, total: int) -> bool:
    """Whether a disk has so little left that a start may fail on it."""
    return bool(total) and total - used < FULL_BYTES
