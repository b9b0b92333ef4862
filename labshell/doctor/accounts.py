"""What doctor of the host says about the users' accounts: their keys, what sshd does for them, their ports."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labshell.doctor.findings import ERROR, NOTE, Finding
from labshell.errors import LabshellError
from labshell.host import host_services, machine
from labshell.model.keys import UnreadLine, readable
from labshell.model.ports import SSH
from labshell.operations.lab import Lab
from labshell.places import KEYS, LOGIN_SHELL

LOOKS_AT_ONCE = 4
# What sshd has to say of a user (sshd -T), whatever else is configured before or after our file.
SSHD = {
    "forcecommand": f"{LOGIN_SHELL} --ssh",
    "authorizedkeysfile": f"{KEYS}/%u",
    "allowtcpforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "allowagentforwarding": "no",
    "x11forwarding": "no",
    "permittunnel": "no",
    "permituserrc": "no",
    "permituserenvironment": "no",
    "passwordauthentication": "no",
}
DANGEROUS_GROUPS = frozenset(
    {"sudo", "wheel", "adm", "lxd", "lxc", "incus", "incus-admin", "docker", "libvirt", "disk", "kvm"}
)


def accounts(lab: Lab) -> Iterator[Finding]:
    for door in lab.accounts.doors():
        more = sorted(door.groups & DANGEROUS_GROUPS)
        if more:
            yield Finding(
                "group-too-much",
                ERROR,
                f"{door.user} is in the group {', '.join(more)}: root on this host.",
                "; ".join(f"gpasswd --delete {door.user} {group}" for group in more),
                door.user,
            )
        if door.shell != LOGIN_SHELL:
            yield Finding(
                "shell-real",
                ERROR,
                f"{door.user}'s login shell is {door.shell}, not labshell.",
                f"usermod --shell {LOGIN_SHELL} {door.user}",
                door.user,
            )
        if not door.is_home_safe:
            yield Finding(
                "home-writable",
                ERROR,
                f"{door.user} can write to {door.home}, which runs code on this host. Look what lies in it, too.",
                f"mkdir -p {door.home}; chown root:root {door.home}; chmod 755 {door.home}",
                door.user,
            )


def keys(lab: Lab) -> Iterator[Finding]:
    """Files that sshd would not take a key from, or take any key from."""
    folder = lab.config.paths.keys
    for path in (folder.parent, folder):
        problem = host_services.problem_of_folder(path)
        if problem:
            remedy = f"mkdir -p {path}; chown root:root {path}; chmod 755 {path}"
            yield Finding("keys-closed", ERROR, f"{path} {problem}: no user can log in.", remedy, str(path))
    for user in lab.accounts.all():
        yield from _keys_of(lab, user, folder / user)


def _keys_of(lab: Lab, user: str, path: Path) -> Iterator[Finding]:
    anew = f"labshell-admin set {user} --key FILE"
    problem = host_services.problem_of_file(path)
    if problem:
        copy = f"cp {path} {path}.new; chown root:root {path}.new; chmod 644 {path}.new; mv -T {path}.new {path}"
        remedy = copy if path.is_file() else f"rm -rf {path}; {anew}"
        yield Finding("keys-closed", ERROR, f"{path} {problem}: sshd takes no key from it.", remedy, user)
        return
    try:
        found = lab.accounts.keys_of(user)
    except LabshellError as error:
        yield Finding("keys-damaged", ERROR, str(error), anew, user)
        return
    for line in dict.fromkeys(found):
        if isinstance(line, UnreadLine):
            words = f"{path} has a line that is no public key: {line.comment}"
            yield Finding("keys-damaged", ERROR, words, f"labshell-admin keys {user} remove {line.fingerprint}", user)
    if not readable(found):
        yield Finding("keys-none", ERROR, f"{user} has no key, and cannot log in.", anew, user)


def sshd(lab: Lab) -> Iterator[Finding]:
    """What sshd really does for each user."""
    users = list(lab.accounts.all())
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
        for user, settings in zip(users, threads.map(machine.sshd_settings, users), strict=True):
            for key, wanted in SSHD.items():
                if settings.get(key, "").lower() != wanted.lower():
                    yield _open(user, key, settings.get(key, ""), wanted)


def _open(user: str, key: str, found: str, wanted: str) -> Finding:
    files = [path for path in host_services.sshd_files_before() if key in path.read_text(errors="replace").lower()]
    words = f"sshd has {key} {found!r} for {user}, not {wanted!r}."
    if not files:
        remedy = "scripts/setup-host"
        return Finding(
            "sshd-open", ERROR, f"{words} labshell's file is not what it was, or is not read.", remedy, user
        )
    # One that comes after labshell's has nothing to say about users: the first value wins.
    later = "; ".join(f"mv {path} {path.with_name('50-' + path.name)}" for path in files)
    return Finding(
        "sshd-open",
        ERROR,
        f"{words} {', '.join(map(str, files))} is read before 00-labshell.conf and says so; it must come later.",
        f"{later}; {host_services.reload_of_sshd()}",
        user,
    )


def ports(lab: Lab) -> Iterator[Finding]:
    """Files of /public, and who else claims what they say."""
    found, damaged = lab.ports.readable_ports()
    for user in damaged:
        yield _damaged(lab, user)
    holders: dict[int, str] = {}
    for user, port in found.items():
        if not lab.ports.fits(port):
            words = f"{user}'s port {port} lies outside port_range. It works; this gives another one."
            yield _needs_block(lab, "port-outside", NOTE, words, user)
        rival = next(((number, holders[number]) for number in lab.ports.block(port) if number in holders), None)
        if rival:
            words = f"The ports of {rival[1]} and {user} overlap at {rival[0]}: that port leads nowhere. "
            yield _needs_block(lab, "ports-overlap", ERROR, f"{words}This gives {user} another block.", user)
        holders |= dict.fromkeys(lab.ports.block(port), user)
    yield from _listeners(lab, holders)


def services(lab: Lab) -> Iterator[Finding]:
    """Ports of services inside a user's block: such a port leads to neither."""
    found, _ = lab.ports.readable_ports()
    holders = {port: user for user, first in found.items() for port in lab.ports.block(first)}
    for item in lab.containers.all():
        for own in item.forwards if item.is_service else ():
            if own.port in holders:
                user = holders[own.port]
                words = f"Port {own.port} is the service {item.name}'s and in the block of {user}: it leads nowhere. "
                yield _needs_block(lab, "ports-overlap", ERROR, f"{words}This gives {user} another block.", user)


def _damaged(lab: Lab, user: str) -> Finding:
    path = lab.config.paths.ports / user
    live = [one.port for one in lab.firewall.live() if one.user == user and one.target == SSH]
    remedy = f"echo {live[0]} > {path}" if live else f"rm -rf {path}; labshell-admin start {user}"
    words = f"The live rule has {live[0]}." if live else "No rule is live; this gives a new port."
    return Finding("port-file-damaged", ERROR, f"{path} does not hold a port number. {words}", remedy, user)


def _listeners(lab: Lab, holders: dict[int, str]) -> Iterator[Finding]:
    for one in host_services.listeners():
        what = f"{one.program} (pid {one.pid}, account {one.account}) listens on port {one.port} of this host"
        if one.port in holders:
            user = holders[one.port]
            words = f"{what}, which is in the block of {user}: one of the two is not reached there. "
            yield _needs_block(lab, "port-listener", ERROR, f"{words}This gives {user} another block.", user)
        elif lab.ports.is_handed_out(one.port):
            yield Finding(
                "port-left-out",
                NOTE,
                f"{what}, inside port_range. labshell does not assign that block; this ends the program.",
                f"kill {one.pid}",
                one.program,
            )


def _needs_block(lab: Lab, kind: str, severity: str, words: str, user: str) -> Finding:
    """A finding whose remedy gives a user another block."""
    try:
        port = str(lab.ports.free_block())
    except LabshellError:
        port = "PORT"
    return Finding(kind, severity, words, f"labshell-admin set {user} --port {port}", user)
