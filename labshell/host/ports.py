"""The port registry: /public/next-port and /public/ports/USER, as the scheme it grew from has them.

One lock around every change. A file that is not what it should be stops allocation with its name and the
remedy; it is never overwritten.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections.abc import Callable, Collection, Mapping

import psutil

from labshell.config import Paths
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.host import files
from labshell.host.clock import Clock
from labshell.host.quarantine import Quarantine
from labshell.host.watch import Watch
from labshell.model.container import OwnForward
from labshell.model.names import checked_name
from labshell.model.ports import (
    PortPool,
    busy_in_block,
    choose_block,
    conflict_with_block,
    overlap_of_block,
    parse_port_file,
)


def listening_ports() -> set[int]:
    """Every TCP port that something on this machine listens on."""
    connections = psutil.net_connections(kind="tcp")
    return {item.laddr.port for item in connections if item.laddr and item.status == psutil.CONN_LISTEN}


class PortRegistry:
    """Who has which block of host ports. Safe for several processes at once."""

    def __init__(
        self,
        paths: Paths,
        pool: PortPool,
        quarantine_days: int,
        *,
        listening: Callable[[], Collection[int]] = listening_ports,
        clock: Clock | None = None,
    ) -> None:
        self._paths = paths
        self._pool = pool
        self._quarantine = Quarantine(paths.state, quarantine_days, clock or Clock())
        self._listening = listening
        self._lock = paths.run / "ports.lock"
        self._watch = Watch(paths.ports)
        self._reading = threading.Lock()
        self._known: dict[str, int] = {}
        self._damaged: set[str] = set()

    def block(self, port: int) -> range:
        """The block of the user whose SSH port is `port`."""
        return self._pool.block(port)

    def fits(self, port: int) -> bool:
        """Whether the block at `port` lies among those that are handed out."""
        return self._pool.fits(port)

    def is_handed_out(self, port: int) -> bool:
        """Whether a port lies in a block that has, or may have, an owner."""
        return self._pool.first <= port <= self._pool.last

    def free_block(self) -> int:
        """The first port of the block that would be given next. Nothing is written down."""
        return self._choose()

    def port_of(self, user: str) -> int | None:
        """The user's SSH port, the first of their block."""
        path = self._paths.ports / user
        content = files.read(path)
        if content is None:
            return None
        port = parse_port_file(content)
        if port is None:
            raise LabshellError(
                "user-port-file-damaged",
                "{path} does not hold a port number. Write the right one into it "
                "(iptables-legacy-save -t nat shows the live rule), or remove the file to give a new port.",
                path=path,
                user=user,
            )
        return port

    def all_ports(self) -> dict[str, int]:
        """The SSH port of every user."""
        ports, damaged = self.readable_ports()
        for user in damaged:
            self.port_of(user)  # says what is wrong with it
        return ports

    def readable_ports(self) -> tuple[dict[str, int], list[str]]:
        """The SSH port of every user whose file is sound, and the users whose file is not; reads what has changed."""
        with self._reading:
            changed = self._watch.changed()
            if changed is None:
                self._known, self._damaged, changed = {}, set(), self._names()
            for user in changed:
                if not user.startswith("."):
                    self._read_again(user)
            return dict(self._known), sorted(self._damaged)

    def _read_again(self, user: str) -> None:
        self._known.pop(user, None)
        self._damaged.discard(user)
        try:
            port = self.port_of(user)
        except LabshellError:
            self._damaged.add(user)
        else:
            if port is not None:
                self._known[user] = port

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self._paths.ports))
        except FileNotFoundError:
            return set()

    def resting(self) -> dict[int, datetime.datetime]:
        """Blocks of removed users that are not handed out yet, and until when."""
        return self._quarantine.blocks()

    def check(self, user: str, port: int, *, even_resting: bool = False) -> None:
        """Refuse an SSH port asked for by number that `user` could not be given, in the place of what they have."""
        others = self._blocks_of_others(user)
        if not even_resting:
            others |= dict.fromkeys(self.resting(), "a removed user")
        reason = conflict_with_block(self._pool, port, others, self._listening())
        if reason:
            raise UsageError("port-not-usable", "Port {port} cannot be given: {reason}.", port=port, reason=reason)

    def _blocks_of_others(self, user: str) -> dict[int, str]:
        """The blocks of all others: first port -> owner."""
        return {first: holder for holder, first in self.all_ports().items() if holder != user}

    def busy_beside(self, own: Collection[OwnForward]) -> set[int]:
        """Ports of the host that belong to something else than these forwards, which may be live."""
        return set(self._listening()) - {forward.port for forward in own}

    def check_single(self, port: int) -> None:
        """Refuse a port for a service that has an owner, is quarantined, or is in use by another program."""
        for holder, first in self.all_ports().items():
            if port in self._pool.block(first):
                raise UsageError(
                    "port-of-another-user", "Port {port} is one of {holder}'s.", port=port, holder=holder
                )
        if any(port in self._pool.block(first) for first in self.resting()):
            raise UsageError("port-quarantined", "Port {port} is in quarantine: a removed user had it.", port=port)
        if port in self._listening():
            raise UsageError("port-taken", "Something on this machine has port {port} already.", port=port)

    def ensure(self, user: str, port: int | None = None, *, even_resting: bool = False) -> int:
        """The user's SSH port, allocated now if they have none; `port` asks for one by number.

        `even_resting` is for the user whose port it was: bookmarks that lead to it are theirs.
        """
        checked_name(user)
        with files.locked(self._lock):
            current = self.port_of(user)
            if current is not None:
                if port not in (None, current):
                    raise UsageError(
                        "port-already-assigned", "{user} already has port {port}.", user=user, port=current
                    )
                return current
            if port is not None:
                self.check(user, port, even_resting=even_resting)
                self._write(user, port)
                return port
            chosen = self._choose()
            self._write(user, chosen)
            following = chosen + self._pool.size
            self._write_next(following if self._pool.fits(following) else self._pool.first)
            return chosen

    def next_port(self) -> int:
        """The port that ensure() would give to a new user."""
        with files.locked(self._lock):
            return self._choose()

    def move(self, user: str, port: int) -> None:
        """Give the user another block; the previous one goes into quarantine."""
        with files.locked(self._lock):
            self.check(user, port)
            old = self.port_of(user)
            if old is not None and old != port:
                self._quarantine.add(old)
            self._write(user, port)

    def check_adopt(
        self, user: str, port: int, others: Mapping[int, str] | None = None, own: Collection[int] = ()
    ) -> None:
        """Refuse a port from before labshell that cannot stay `user`'s: another user has a port of its block.

        `others` are blocks that are about to be taken over, too: first port -> whose. `own` are ports that lead to
        `user` already, whatever listens there for that.
        """
        blocks = self._blocks_of_others(user) | dict(others or {})
        busy = set(self._listening()) - set(own)
        reason = overlap_of_block(self._pool, port, blocks) or busy_in_block(self._pool, port, busy)
        if reason:
            raise UsageError("port-not-keepable", "Port {port} cannot be kept: {reason}.", port=port, reason=reason)

    def adopt(self, user: str, port: int, own: Collection[int] = ()) -> None:
        """Keep a port from before labshell, wherever it lies, if it has no other owner."""
        checked_name(user)
        with files.locked(self._lock):
            if self.port_of(user) == port:
                return
            self.check_adopt(user, port, own=own)
            self._write(user, port)

    def spare_port(self) -> int:
        """The last free port, for a moment: nothing is written down. The first ones are given next."""
        blocks = [*self.readable_ports()[0].values(), *self.resting()]
        used = {port for first in blocks for port in self._pool.block(first)} | set(self._listening())
        found = next((port for port in range(self._pool.last, self._pool.first - 1, -1) if port not in used), None)
        if found is None:
            first, last = self._pool.first, self._pool.last
            raise TryAgain("port-free-none", "No port from {first} to {last} is free.", first=first, last=last)
        return found

    def release(self, user: str) -> None:
        """Take the user's block back; it is quarantined before another user may get it."""
        with files.locked(self._lock):
            port = self.port_of(user)
            if port is None:
                return
            self._quarantine.add(port)
            files.remove(self._paths.ports / user)

    def give_up(self, user: str) -> None:
        """Undo an unused allocation: the block is the next to be given."""
        with files.locked(self._lock):
            content = files.read(self._paths.ports / user)
            files.remove(self._paths.ports / user)
            port = parse_port_file(content or b"")
            with contextlib.suppress(LabshellError):  # a damaged next-port is named when a port is wanted
                if port is not None and self._pool.fits(port) and port < self._start():
                    self._write_next(port)

    def _start(self) -> int:
        """Where the search for a free block begins."""
        content = files.read(self._paths.next_port)
        start = self._pool.first if content is None else parse_port_file(content)
        if start is None:
            raise LabshellError(
                "next-port-file-damaged",
                "{path} does not hold a port number. No port was given. Write {first} into it to go on: "
                "ports in use are never given twice.",
                path=self._paths.next_port,
                first=self._pool.first,
            )
        return start

    def _choose(self) -> int:
        start = self._start()
        blocks = {*self.all_ports().values(), *self.resting()}
        port = choose_block(self._pool, start, blocks, self._listening())
        if port is None:
            raise TryAgain(
                "port-range-exhausted",
                "Every block of ports from {first} to {last} is in use or quarantined; widen port_range.",
                first=self._pool.first,
                last=self._pool.last,
            )
        return port

    def _write(self, user: str, port: int) -> None:
        """The user's file first: after a crash between the two, next-port is merely behind."""
        files.ensure_folder(self._paths.public)
        files.ensure_folder(self._paths.ports)
        files.write(self._paths.ports / user, f"{port}\n".encode())

    def _write_next(self, port: int) -> None:
        files.write(self._paths.next_port, f"{port}\n".encode())
