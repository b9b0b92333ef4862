"""The programs of the host that labshell stands on, and files that they read. Nothing here changes anything."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from labshell.host import host_program, machine

SSHD_FILES, LABSHELLS_SSHD_FILE = Path("/etc/ssh/sshd_config.d"), "00-labshell.conf"
NO_RUN_FOLDER = "Missing privilege separation directory"
LXCFS, LXCFS_FOLDER = Path("/usr/bin/lxcfs"), Path("/var/lib/lxcfs")
SOCKET_SECONDS = 5


@dataclass(frozen=True)
class Listener:
    """A program of the host's that listens on a TCP port, and whose it is."""

    port: int
    program: str
    pid: int
    account: str


def listeners() -> list[Listener]:
    """Every program of the host's that listens, by port; one of the kernel's own has pid 0."""
    found = {}
    for item in psutil.net_connections(kind="tcp"):
        if item.laddr and item.status == psutil.CONN_LISTEN:
            program, account = "the kernel", "root"
            with contextlib.suppress(psutil.Error):
                if item.pid:
                    process = psutil.Process(item.pid)
                    program, account = process.name(), process.username()
            found[item.laddr.port] = Listener(item.laddr.port, program, item.pid or 0, account)
    return [found[port] for port in sorted(found)]


def has_systemd() -> bool:
    """Whether process 1 is systemd."""
    return Path("/run/systemd/system").is_dir()


def unit_states(units: Iterable[str]) -> dict[str, str]:
    """Unit -> "enabled", "disabled", "masked"…, as its files have it; empty for one that is not there."""
    return {unit: host_program.run(["systemctl", "--root=/", "is-enabled", unit]).stdout.strip() for unit in units}


def is_served(path: Path) -> bool:
    """Whether a program listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SOCKET_SECONDS)
        try:
            connection.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def sshd_refusal() -> str:
    """Why sshd does not take its own configuration; empty if it does. Its run folder is there only while it runs."""
    done = host_program.run(["/usr/sbin/sshd", "-t"])
    reason = host_program.reason_of(done)
    return "" if done.returncode == 0 or NO_RUN_FOLDER in reason else reason


def sshd_files_before() -> list[Path]:
    """The files that sshd reads before labshell's."""
    return sorted(path for path in SSHD_FILES.glob("*.conf") if path.name < LABSHELLS_SSHD_FILE)


def reload_of_sshd() -> str:
    """The command that has sshd read its configuration again."""
    return "systemctl reload ssh" if has_systemd() else "kill -HUP $(cat /run/sshd.pid)"


def is_lxcfs_away() -> bool:
    """Whether the host has lxcfs and does not run it; the LXD snap has its own."""
    if machine.has_snap("lxd") or not LXCFS.exists():
        return False
    is_mounted = any((folder, kind) == (str(LXCFS_FOLDER), "fuse.lxcfs") for _, folder, kind, _ in machine.mounts())
    # A program of its own: whoever asks a file system that hangs may wait for ever.
    return (
        not is_mounted
        or host_program.run(["timeout", "5", "stat", str(LXCFS_FOLDER / "proc/uptime")]).returncode != 0
    )


def is_ufw_on() -> bool:
    try:
        return "ENABLED=yes" in Path("/etc/ufw/ufw.conf").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False


def is_firewalld_on() -> bool:
    return Path("/run/firewalld").is_dir()


def problem_of_folder(path: Path) -> str:
    """What keeps sshd from reading files in a folder of root's, as the end of a sentence; empty if nothing does."""
    try:
        about = path.lstat()
    except OSError:
        return "is not there"
    if not stat.S_ISDIR(about.st_mode):
        return "is not a folder"
    return _problem(about, 0o001)


def problem_of_file(path: Path) -> str:
    """The same for a file that sshd reads as its user. One that is not there has no problem: it is empty."""
    try:
        about = path.lstat()
    except OSError:
        return ""
    if not stat.S_ISREG(about.st_mode):
        return "is not a file"
    if about.st_nlink != 1:
        return "has more than one hard link"
    return _problem(about, 0o004)


def _problem(about: os.stat_result, needed: int) -> str:
    if about.st_uid != 0:
        return "does not belong to root"
    if about.st_mode & 0o022:
        return "can be written to by others"
    return "cannot be read by its user" if about.st_mode & needed != needed else ""
