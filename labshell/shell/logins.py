"""The SSH connections to this host's own server: whose they are, which key opened them, and their end.

Read from /proc and from the file that sshd leaves for each connection (ExposeAuthInfo). Standard library only: the
login shell asks for its user's connections itself, and may end no others.
"""

from __future__ import annotations

import os

from labshell.wire.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_FILE = 65536


class Login:
    """One connection: sshd's process of the user's, where it comes from, and its key's fingerprint if known."""

    __slots__ = ("address", "fingerprint", "pid")

    def __init__(self, pid: int, address: str, fingerprint: str | None) -> None:
        self.pid = pid
        self.address = address
        self.fingerprint = fingerprint


def own_fingerprint() -> str | None:
    """The key that opened the connection of this process; None if sshd does not say."""
    return _fingerprint_in(os.environ.get("SSH_USER_AUTH", ""))


def of_user(uid: int) -> list[Login]:
    """All connections of a user's but the one of this process."""
    found = {pid: Login(pid, "", None) for pid, _ in _processes(uid, "sshd") if pid != os.getppid()}
    for pid, parent in _processes(uid, ""):
        if parent in found:
            words = _environment(pid)
            found[parent].address = words.get("SSH_CONNECTION", "").partition(" ")[0] or found[parent].address
            found[parent].fingerprint = _fingerprint_in(words.get("SSH_USER_AUTH", "")) or found[parent].fingerprint
    return list(found.values())


def end(logins: list[Login]) -> None:
    """End these connections, and with them what the login shells at their ends do."""
    for login in logins:
        try:
            os.kill(login.pid, signal.SIGTERM)
        except OSError:
            continue  # it has gone meanwhile


def _processes(uid: int, start: str) -> Iterator[tuple[int, int]]:
    """The user's processes on this host whose name begins with `start`, each with its parent; none of a container."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            about = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
        except OSError:
            continue
        is_of_host = len(about.get("NSpid", "").split()) == 1
        if is_of_host and about["Uid"].split()[0] == str(uid) and about["Name"].strip().startswith(start):
            yield int(pid), int(about["PPid"])


def _environment(pid: int) -> dict[str, str]:
    try:
        words = _read(f"/proc/{pid}/environ").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _fingerprint_in(path: str) -> str | None:
    """The fingerprint of the key in a file of sshd's: "publickey ssh-ed25519 AAAA..."; None if there is none."""
    try:
        words = _read(path).split()
    except OSError:
        return None
    import base64
    import hashlib

    try:
        blob = base64.b64decode(words[words.index("publickey") + 2], validate=True)
    except (ValueError, IndexError):
        return None
    if not blob:
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(LONGEST_FILE)
