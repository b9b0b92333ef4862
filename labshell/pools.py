"""The engine's storage pools: how full they are, what is in each container, what the engine left behind.

A pool's folder is looked at only from the outside: never into what belongs to a container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labshell import btrfs, policy
from labshell.engine import Engine, asking

RESERVE_BYTES = 256 << 20


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
        """Bytes used and in all; 0 where the pool does not say."""
        with asking("", "be read"):
            answer = self._engine.api["storage-pools"][pool].resources.get().json()["metadata"]
        space = answer.get("space") or {}
        return space.get("used", 0), space.get("total", 0)

    def is_full(self, pool: str) -> bool:
        """Whether less than RESERVE_BYTES are left."""
        used, total = self.space(pool)
        return bool(total) and total - used < RESERVE_BYTES

    def held(self, pool: str, only: str | None = None) -> dict[str, int]:
        """By name, the bytes in each container, or in one only, of a pool on btrfs that counts and is mounted here.

        The engine's own figure leaves out what a container shares with its template or its snapshots, which its disk
        limit counts, and its archive.
        """
        return btrfs.referenced(self._folder(pool), "containers", only)

    def snapshots_on_disk(self) -> Iterator[Path]:
        """Where the snapshots of containers are, in pools on btrfs that are mounted here: .../CONTAINER/SNAPSHOT."""
        for pool in self._names():
            folder = self._folder(pool) / "containers-snapshots"
            # An underline is in the names of other projects' containers, which are not ours to look at.
            paths = [path for path in folder.glob("*/*") if policy.INSTANCE.fullmatch(path.parent.name)]
            yield from (path for path in sorted(paths) if btrfs.is_subvolume(path))

    def _names(self) -> list[str]:
        with asking("", "be read"):
            urls = self._engine.api["storage-pools"].get().json()["metadata"]
        return [url.rpartition("/")[2] for url in urls]

    def _folder(self, pool: str) -> Path:
        return self._engine.path.parent / "storage-pools" / pool
