"""Forwards: which rules there should be, and what a user may add to their own. Pure."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from labshell.errors import UsageError
from labshell.model.container import Container, OwnForward
from labshell.model.ports import SSH

FORWARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,19}", re.ASCII)
SPAN = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)
SPAN_SECONDS = {"m": 60, "h": 3600, "d": 86400}
LONGEST_SPAN = 366 * 86400


@dataclass(frozen=True, order=True)
class Forward:
    """One host port that leads to one port of one container."""

    port: int
    user: str
    address: str
    target: int = SSH
    source: str = ""  # a network that it is for, or empty for everybody

    @property
    def comment(self) -> str:
        return f"labshell:{self.user}"


@dataclass(frozen=True)
class Request:
    """What somebody says of a port of their container that is to be forwarded."""

    target: int
    name: str = ""  # "" is not said
    source: str | None = None  # "" is everybody, None not said
    until: int | None = None  # None is not said


def wanted_forwards(
    containers: Iterable[Container], uids: Mapping[str, int], ports: Mapping[str, int], size: int, now: float
) -> list[Forward]:
    """Every rule that should be live: owner, address and own forwards from the engine, port from /public.

    A container whose owner mark is not that of the account with its name gets none, nor one whose owner's time is
    over; a forward outside its owner's block of `size` ports, or whose time is over, is none. A port that two
    containers claim leads to neither: which of them is right only the administrator knows.
    """
    forwards = []
    today = datetime.date.fromtimestamp(now)  # noqa: DTZ012 - the last day ends at the host's own midnight
    for container in containers:
        if not container.may_be_used(today):
            continue
        user, address = container.name, container.address
        if container.is_service and address:
            forwards += [Forward(own.port, user, address, own.target, own.source) for own in container.forwards]
            continue
        if user not in ports or user not in uids or not container.belongs_to(user, uids[user]) or not address:
            continue
        forwards.append(Forward(ports[user], user, address))
        own_ports = range(ports[user] + 1, ports[user] + size)
        forwards += [
            Forward(own.port, user, address, own.target, own.source)
            for own in container.forwards
            if own.port in own_ports and not own.is_over(now)
        ]
    claims = Counter(port for _, port in {(forward.user, forward.port) for forward in forwards})
    return sorted(forward for forward in forwards if claims[forward.port] == 1)


def rivals(user: str, ports: Mapping[str, int], size: int) -> list[str]:
    """The other users whose blocks of `size` ports overlap the user's; a mistake in /public, if there are any."""
    return sorted(name for name, port in ports.items() if name != user and abs(port - ports[user]) < size)


def add_forward(
    forwards: Collection[OwnForward], block: range, wanted: Request, now: float, busy: Collection[int] = ()
) -> tuple[OwnForward, ...]:
    """The forwards with one more, on the lowest free port of the block after the first, which is for SSH.

    Ports in `busy` belong to something else on the host and are left out. A container port that is forwarded already
    keeps its host port and what is not said: name, time or network.
    """
    if not 1 <= wanted.target <= 65535:
        raise UsageError("target-port-invalid", "{target} is not a port number: 1 to 65535.", target=wanted.target)
    if wanted.target == SSH:
        raise UsageError(
            "ssh-port-already-forwarded",
            "Port 22 of the container is reached on port {port} already.",
            port=block.start,
        )
    if wanted.name and not FORWARD_NAME.fullmatch(wanted.name):
        raise UsageError("forward-name-invalid", "A name has up to 20 letters, digits and hyphens.")
    live = [own for own in forwards if not own.is_over(now)]
    same = [own for own in live if own.target == wanted.target and own.port in block]
    taken = {own.port for own in live}.union(busy)
    free = [port for port in block[1:] if port not in taken]
    if not same and not free:
        raise UsageError("own-ports-exhausted", "All your ports are in use, {first} to {last}; remove one first.",
                         first=block.start + 1, last=block.stop - 1)  # fmt: skip
    added = _changed(same[0] if same else OwnForward(free[0], wanted.target), wanted)
    others = [own for own in live if own.port != added.port]
    return tuple(sorted([*others, added], key=lambda own: own.port))


def _changed(own: OwnForward, wanted: Request) -> OwnForward:
    source = own.source if wanted.source is None else wanted.source
    until = own.until if wanted.until is None else wanted.until
    return replace(own, name=wanted.name or own.name, source=source, until=until)


def with_desktop(
    forwards: Collection[OwnForward], block: range, port: str, target: int, now: float, busy: Collection[int] = ()
) -> tuple[OwnForward, ...]:
    """The forwards with `port` of the block leading to a desktop, or with none that does.

    Ports in `busy` belong to something else on the host and are refused.
    """
    others = tuple(own for own in forwards if own.target != target)
    if port in ("", "none"):
        return others
    if int(port) not in block[1:]:
        raise UsageError("port-outside-block", "{port} is none of their ports, {first} to {last}.", port=port,
                         first=block.start + 1, last=block.stop - 1)  # fmt: skip
    if int(port) in [own.port for own in others if not own.is_over(now)]:
        raise UsageError(
            "port-already-forwarded", "{port} leads to another port of the container already.", port=port
        )
    if int(port) in busy:
        raise UsageError("port-taken", "Something on this machine has port {port} already.", port=port)
    wanted = OwnForward(int(port), target, "desktop")
    return tuple(sorted([*others, wanted], key=lambda own: own.port))


def within(forwards: Collection[OwnForward], block: range) -> tuple[OwnForward, ...]:
    """The forwards in the block after its first port; those from elsewhere on its free ports, while there are any."""
    kept = [own for own in forwards if own.port in block[1:]]
    free = (port for port in block[1:] if port not in {own.port for own in kept})
    elsewhere = (own for own in forwards if own not in kept)
    moved = [replace(own, port=port) for port, own in zip(free, elsewhere, strict=False)]
    return tuple(sorted([*kept, *moved], key=lambda own: own.port))


def remove_forward(forwards: Collection[OwnForward], port: int) -> tuple[OwnForward, ...]:
    """The forwards without the one on host port `port`, or to container port `port`."""
    left = tuple(own for own in forwards if port not in (own.port, own.target))
    if len(left) == len(forwards):
        raise UsageError("forward-missing", "None of your ports is {port} or leads to it.", port=port)
    return left


def seconds_of(text: str) -> int:
    """A time span as it is typed: 30m, 8h, 3d."""
    found = SPAN.fullmatch(text)
    seconds = int(found.group(1)) * SPAN_SECONDS[found.group(2)] if found else 0
    if not 0 < seconds <= LONGEST_SPAN:
        raise UsageError(
            "time-invalid", "{text} is not a time: write 30m, 8h or 3d, a year at most.", text=repr(text)[:40]
        )
    return seconds


def checked_source(text: str) -> str:
    """An IPv4 network or address as the firewall writes it; nothing for all of them, which is no limit."""
    try:
        network = ipaddress.IPv4Network(text)
        return str(network) if network.prefixlen else ""
    except ValueError:
        raise UsageError(
            "network-invalid", "{text} is not an IPv4 network: write 192.0.2.0/24.", text=repr(text)[:40]
        ) from None


@dataclass(frozen=True)
class Difference:
    """What to remove and what to add to make one list of forwards equal to another."""

    remove: tuple[Forward, ...]
    add: tuple[Forward, ...]

    def __bool__(self) -> bool:
        return bool(self.remove or self.add)


def difference(live: Iterable[Forward], wanted: Iterable[Forward]) -> Difference:
    """The change from `live` to `wanted`; a rule that is live twice is removed once."""
    missing = set(wanted)
    remove = []
    for forward in live:
        if forward in missing:
            missing.remove(forward)
        else:
            remove.append(forward)
    return Difference(tuple(remove), tuple(sorted(missing)))
