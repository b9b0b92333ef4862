"""Decisions: facts in, values out. Which name, which port, which address, which rules, who may.

Nothing here reads a file, a clock or the network; what it needs to know is an argument.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from labshell import shown
from labshell.errors import LabshellError, NotAllowed, UsageError
from labshell.model.keys import PublicKey

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", re.ASCII)
FULL_BYTES = 32 << 20  # a disk with less room than this is full: the engine and a boot write some MB
INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", re.ASCII)  # users, and what is kept beside theirs
EXISTING = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
PORT_FILE = re.compile(rb"[1-9][0-9]{0,4}\n")
RESERVED_NAMES = frozenset(
    {
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "nobody",
        "www-data",
        "backup",
        "list",
        "irc",
        "gnats",
        "sshd",
        "lxd",
        "lxc",
        "incus",
        "labshell",
        "template",
        "admin",
        "administrator",
        "sudo",
        "wheel",
        "adm",
        "docker",
        "localhost",
        "none",
        "self",
    }
)
SSH = 22
OUR_CABLES = "labsh"
SNAPSHOT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


def checked_name(name: object, *, of_service: bool = False) -> str:
    """`name` if a new user or service may be called that on Unix, in LXD and in DNS alike."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or "--" in name:
        if of_service:
            raise UsageError(
                "{name} cannot be the name of a service: 2 to 32 lower-case letters, digits and single hyphens, "
                "a letter first and no hyphen at the end.",
                name=repr(name)[:80],
            )
        raise UsageError(
            "{name} cannot be a user name: 2 to 32 lower-case letters, digits and single hyphens, "
            "a letter first and no hyphen at the end.",
            name=repr(name)[:80],
        )
    if name in RESERVED_NAMES:
        raise UsageError("{name} is a name the system itself uses; choose another.", name=name)
    return name


def existing_name(name: str) -> str:
    """`name` as it is if something may have been called that ever; UsageError says that there is nothing.

    It is safe as a file name and an argument, and no more: what an old or odd name belongs to can be removed.
    """
    if not EXISTING.fullmatch(name):
        raise UsageError("There is no user or service {name}.", name=repr(name)[:80])
    return name


def checked_template(name: str) -> str:
    """`name` if a template may be called that; reserved names may, it is no account."""
    if not NAME.fullmatch(name):
        raise UsageError("{name} cannot be the name of a template.", name=repr(name)[:80])
    return name


# Ports -------------------------------------------------------------------------------------------------


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

    `blocks` are first ports of blocks that are taken or resting, wherever they lie; `busy` are single ports
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
    """Whose block the one at `port` would overlap, as the end of a sentence; None if nobody's."""
    for first, holder in sorted(blocks.items()):
        if abs(first - port) < pool.size:
            return f"it overlaps the block of {holder}, {first} to {first + pool.size - 1}"
    return None


# Addresses ---------------------------------------------------------------------------------------------


def choose_address(bridge: str, taken: Collection[str], strangers: str = "", *, is_last: bool = False) -> str:
    """The lowest free IPv4 address on a bridge, or the highest with `is_last`.

    `bridge` is the gateway's own address with its prefix, as LXD writes it: "10.83.0.1/24"; so are `strangers`, the
    spans that its DHCP server gives to whoever asks: "10.83.0.240-10.83.0.254,10.83.0.20-10.83.0.29".
    """
    interface = ipaddress.IPv4Interface(bridge)
    used = {ipaddress.IPv4Address(address) for address in taken} | {interface.ip}
    spans = [span_of(span) for span in strangers.split(",") if span]
    first, last = (int(interface.network[at]) for at in (1, -2))
    for number in range(last, first - 1, -1) if is_last else range(first, last + 1):
        host = ipaddress.IPv4Address(number)
        if host not in used and not any(first <= host <= last for first, last in spans):
            return str(host)
    raise LabshellError("The bridge {network} has no free address left.", network=interface.network)


def span_of(span: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    """The first and the last address of "10.83.0.240-10.83.0.254"."""
    first, _, last = span.partition("-")
    return ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address(last.strip())


def hardware_address(chosen: bytes) -> str:
    """A hardware address out of the range of containers' with three chosen bytes."""
    return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in chosen)


def name_on_host(hardware_address: str) -> str:
    """What the host's end of a container's cable is called, so that the guard knows it: 11 of 15 letters."""
    return OUR_CABLES + hardware_address.replace(":", "")[-6:]


def name_on_host_by_address(address: str) -> str:
    """The same on a bridge where each container has an address of its own: 13 of 15 letters, and no two alike."""
    return OUR_CABLES + ipaddress.IPv4Address(address).packed.hex()


# Containers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnForward:
    """A forward of a user's own, as it is stored with the container. `until` is seconds since 1970, or None."""

    port: int
    target: int
    name: str = ""
    source: str = ""
    until: int | None = None

    def is_over(self, now: float) -> bool:
        return self.until is not None and self.until <= now


@dataclass(frozen=True)
class Hold:
    """Somebody's wish that their container is not stopped for being idle: until when, in seconds since 1970."""

    until: float
    reason: str = ""


@dataclass(frozen=True)
class Container:
    """What the engine knows about one container, in our words."""

    name: str
    state: str
    owner: str | None
    uid: int | None
    address: str | None
    pool: str = ""  # the storage pool that it is on
    is_pinned: bool = True  # the engine gives it this address and no other
    is_fenced: bool = True  # its port of the bridge takes no other address from it, and leads to no other container
    port_on_host: str = ""  # what its port of the bridge is called there, if that is fixed
    needs_bridge_netfilter: bool = False  # its port asks for a filter that needs that kernel module
    is_template: bool = False
    is_service: bool = False  # belongs to no person; its forwards take any port of the host
    is_prepared: bool = False
    gpus: str = "none"  # as the setting is written
    mounts: str = ""  # ours, as the setting is written
    template: str = ""  # that it was cloned from
    profile: str = ""  # of settings, that it was given last
    writable_mounts: tuple[str, ...] = ()  # folders of the host
    gpus_aside: bool = False  # it runs without its GPUs, which could not be had
    expires: datetime.date | None = None
    host_key: str = ""
    hold: Hold | None = None
    kept: str = ""  # the container that the last rebuild put aside
    started: str = ""
    forwards: tuple[OwnForward, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_in_use(self) -> bool:
        """Whether it is a user's or a service: no template, and none that a rebuild keeps or makes."""
        return self.owner == self.name or self.is_service

    @property
    def started_at(self) -> float | None:
        """When it was started last, in seconds since 1970; from what the engine says (RFC 3339, nanoseconds)."""
        try:
            moment = datetime.datetime.fromisoformat(self.started[:19]).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            return None
        return moment.timestamp()

    @property
    def has_old_port(self) -> bool:
        """Whether its port of the bridge is not what a clone's is now."""
        return not (self.is_pinned and self.is_fenced) or self.needs_bridge_netfilter

    def belongs_to(self, user: str, uid: int) -> bool:
        return self.name == user and self.owner == user and self.uid == uid

    def is_of_earlier(self, user: str, uid: int | None) -> bool:
        """Whether it was finished for somebody called `user` whose account is gone; `uid` is today's, if any."""
        return self.is_prepared and self.name == user and self.owner == user and (uid is None or self.uid != uid)

    def hold_at(self, now: float) -> Hold | None:
        """The hold that is not over yet."""
        return self.hold if self.hold and self.hold.until > now else None

    def may_be_used(self, today: datetime.date) -> bool:
        """Whether its owner's time is not over; `expires` is the last day."""
        return self.expires is None or today <= self.expires


def name_of_fresh(user: str) -> str:
    """The name of a container in the making: nobody's until it is renamed. Two hyphens are in no user's name."""
    return f"{user}--new"


def name_of_kept(user: str, now: datetime.datetime) -> str:
    """The name under which a rebuild puts a container aside at the moment `now` (UTC)."""
    return f"{user}--{now:%Y%m%d-%H%M%S}"


def moment_of_kept(name: str) -> str | None:
    """When a container was put aside, as RFC 3339 has it; None if `name` is not name_of_kept()'s."""
    try:
        moment = datetime.datetime.strptime(name.rpartition("--")[2], "%Y%m%d-%H%M%S")  # noqa: DTZ007 - it is UTC
    except ValueError:
        return None
    return f"{moment.isoformat()}Z"


def choose_template(wanted: str, marked: Collection[str], default: str) -> str:
    """The template a researcher may clone: the configured one, or one that is marked as a template."""
    offered = sorted({default, *marked})
    if wanted not in offered:
        raise UsageError("There is no template {name}; there is: {offered}", name=shown.plain(wanted)[:60],
                         offered=", ".join(offered))  # fmt: skip
    return wanted


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


# Snapshots ---------------------------------------------------------------------------------------------


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
        raise UsageError("{name} cannot be a snapshot's name: up to 32 small letters, digits and hyphens.",
                         name=repr(name)[:60])  # fmt: skip
    if name in existing:
        raise UsageError("There is a snapshot {name} already.", name=name)
    if len(existing) >= most:
        raise UsageError("You may keep {most} snapshots; delete one first: {names}", most=most,
                         names=", ".join(sorted(existing)))  # fmt: skip
    return name


# Keys --------------------------------------------------------------------------------------------------


def choose_key(listed: Sequence[PublicKey], which: str) -> PublicKey:
    """The key with that number in the list, counted from 1, or with that fingerprint or comment."""
    for number, key in enumerate(listed, start=1):
        if which in (str(number), key.fingerprint, key.fingerprint.removeprefix("SHA256:")):
            return key
    named = [key for key in listed if which and key.comment.split() == which.split()]
    if len(named) > 1:
        raise UsageError("There are {count} keys {which}; give a number or a fingerprint: keys lists them.",
                         count=len(named), which=shown.plain(which)[:60])  # fmt: skip
    if named:
        return named[0]
    raise UsageError("There is no key {which}; keys lists them.", which=shown.plain(which)[:60])


# Permission --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """Who is on the other end of a socket, as the kernel says."""

    uid: int
    name: str
    groups: frozenset[str] = frozenset()
    login: str = ""  # who had logged in before becoming this user, for the change log


def may_use_gateway(caller: Caller, group: str, uid_min: int = 1000) -> None:
    """Let researchers in and nobody else: not root, not system users, not container ids."""
    if caller.uid < uid_min or caller.uid >= 65534 or group not in caller.groups:
        raise NotAllowed("This account is not one of labshell's.")
