"""Snapshots and their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from labshell.errors import UsageError

SNAPSHOT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


@dataclass(frozen=True)
class Snapshot:
    """A kept state of a container; `created` as the engine writes it, `size` in bytes where the pool knows."""

    name: str
    created: str
    size: int | None = None


def name_of_snapshot(name: str, existing: Collection[str], most: int, now: str) -> str:
    """A name for one more snapshot: `name`, or `now` if that is empty. UsageError if there may be none."""
    name = name or now
    if not SNAPSHOT.fullmatch(name):
        raise UsageError(
            "snapshot-name-invalid",
            "{name} cannot be a snapshot's name: use up to 32 lower-case letters, digits and hyphens.",
            name=repr(name)[:60],
        )
    if name in existing:
        raise UsageError("snapshot-name-taken", "There is a snapshot {name} already.", name=name)
    if len(existing) >= most:
        raise UsageError("snapshots-too-many", "You may keep {most} snapshots; delete one first: {names}", most=most,
                         names=", ".join(sorted(existing)))  # fmt: skip
    return name
