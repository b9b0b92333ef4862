"""The engine's storage pools: how full they are, what is in each container, what the engine left behind.

A pool's folder is looked at only from the outside: never into what belongs to a container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labshell.engine.client import Engine
from labshell.engine.errors import translate_errors
from labshell.host import btrfs
from labshell.model.container import Container

RESERVE_BYTES = 256 << 20
CONTAINERS, SNAPSHOTS = "containers", "containers-snapshots"  # folders of a pool


class Pools:
    """The storage pools of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def spaces(self) -> Iterator[tuple[str, int, int]]:
        """Every pool with the bytes used and in all; 0 where the pool does not say."""
        for name in self._names():
            used, total = self.space(name)
            yield name, used, total

    def space(self, pool: str) -> tuple[int, int]:
        """Bytes used and in all; 0 where the pool does not say, or is not known."""
        if not pool:
            return 0, 0
        with translate_errors(pool, "be read"):
            answer = self._engine.read("storage-pools", pool, "resources")
        space = answer.get("space") or {}
        return space.get("used", 0), space.get("total", 0)

    def can_limit(self, pool: str) -> bool:
        """Whether a disk limit means anything there: in plain folders it does not."""
        with translate_errors(pool, "be read"):
            return bool(self._engine.read("storage-pools", pool)["driver"] != "dir")

    def is_full(self, pool: str) -> bool:
        """Whether less than RESERVE_BYTES are left."""
        used, total = self.space(pool)
        return bool(total) and total - used < RESERVE_BYTES

    def held(self, pool: str) -> dict[str, int]:
        """By name, the bytes in each container of a pool on btrfs that counts and is mounted here; elsewhere nothing.

        The engine's own figure leaves out what a container shares with its template or its snapshots, which its disk
        limit counts, and its archive.
        """
        return btrfs.referenced(self._folder(pool), CONTAINERS)

    def held_by(self, container: Container) -> int | None:
        """The bytes in one container, as held() has them."""
        return btrfs.referenced(self._folder(container.pool), CONTAINERS, container.name).get(container.name)

    def held_by_snapshot(self, container: Container, label: str) -> int | None:
        """The bytes in one of its snapshots, counted alike."""
        return btrfs.referenced(self._folder(container.pool), f"{SNAPSHOTS}/{container.name}", label).get(label)

    def snapshots_on_disk(self, container: Container) -> list[Path]:
        """Where a container's snapshots are on btrfs, if its pool is mounted here; the last part is the name."""
        folder = self._folder(container.pool) / SNAPSHOTS / container.name
        return sorted(path for path in folder.glob("*") if btrfs.is_subvolume(path))

    def has_on_disk(self, container: Container, label: str) -> bool:
        """Whether there is such a snapshot in the pool, known to the engine or not."""
        return label in [path.name for path in self.snapshots_on_disk(container)]

    def _names(self) -> list[str]:
        with translate_errors("", "be read"):
            return self._engine.names("storage-pools")

    def _folder(self, pool: str) -> Path:
        return self._engine.path.parent / "storage-pools" / pool
