"""Host ports: port files, and which block is given to whom. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

PORT_FILE = re.compile(rb"[1-9][0-9]{0,4}\n")
SSH = 22


@dataclass(frozen=True)
class PortPool:
    """The host ports that are handed out: `first` to `last` inclusive, in blocks of `size`."""

    first: int
    last: int
    size: int

    def block(self, port: int) -> range:
        return range(port, port + self.size)

    def fits(self, port: int) -> bool:
        return self.first <= port and port + self.size - 1 <= self.last


def parse_port_file(content: bytes) -> int | None:
    """The port a file of /public holds, or None if the content is not one."""
    if not PORT_FILE.fullmatch(content):
        return None
    port = int(content)
    return port if port <= 65535 else None


def choose_block(pool: PortPool, start: int, blocks: Collection[int], busy: Collection[int]) -> int | None:
    """The first free block at or after `start`, going round once; None when nothing is free.

    `blocks` are first ports of blocks that are in use or quarantined, wherever they lie; `busy` are single ports
    that something else listens on. Blocks are counted from `pool.first`, so that neighbours never overlap.
    """
    taken, used = set(blocks), set(busy)
    count = (pool.last - pool.first + 1) // pool.size
    offset = max(0, -((pool.first - start) // pool.size))
    if offset >= count:
        offset = 0
    for step in range(count):
        port = pool.first + (offset + step) % count * pool.size
        overlapping = range(port - pool.size + 1, port + pool.size)
        if taken.isdisjoint(overlapping) and used.isdisjoint(pool.block(port)):
            return port
    return None


def conflict_with_block(pool: PortPool, port: int, blocks: Mapping[int, str], busy: Collection[int]) -> str | None:
    """Why the block at `port`, asked for by name, cannot be given; None if it can."""
    if not pool.fits(port):
        return f"its {pool.size} ports do not lie within {pool.first} to {pool.last}"
    overlap = overlap_of_block(pool, port, blocks)
    if overlap:
        return overlap
    return busy_in_block(pool, port, busy)


def busy_in_block(pool: PortPool, port: int, busy: Collection[int]) -> str | None:
    """Which port of a block something else has, as the end of a sentence; None if there is none."""
    used = sorted(set(pool.block(port)) & set(busy))
    return f"something on this machine listens on port {used[0]}" if used else None


def overlap_of_block(pool: PortPool, port: int, blocks: Mapping[int, str]) -> str | None:
    """Whose block the one at `port` would overlap, as the end of a sentence; None if there is none."""
    for first, holder in sorted(blocks.items()):
        if abs(first - port) < pool.size:
            return f"it overlaps the block of {holder}, {first} to {first + pool.size - 1}"
    return None
