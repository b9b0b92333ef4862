"""What is reached from where: TCP connections of the host's own, and a guest who logs in with a key made for it."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from labshell.errors import LabshellError
from labshell.host import host_program

CONNECT_SECONDS = 3
PACKAGE_SERVER = re.compile(r"\b(https?)://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(?=[/\s]|$)")
USUAL_PORTS = {"http": 80, "https": 443}
# In a container: the targets that a connection is made to, all at once.
REACHED = """
for target in {targets}; do
    (timeout {seconds} bash -c 'exec 3<> /dev/tcp/'"$target" 2> /dev/null && echo "$target") &
done
wait
"""


class Target(NamedTuple):
    """A TCP port of an address, or of a name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_reached(target: Target) -> bool:
    """Whether the host itself can connect there."""
    try:
        with socket.create_connection(target, timeout=CONNECT_SECONDS):
            return True
    except (OSError, UnicodeError):
        return False


def package_servers(texts: Collection[str]) -> list[Target]:
    """The servers that apt's sources name, in their order, each once."""
    lines = (line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = (PACKAGE_SERVER.search(line) for line in lines)
    return list(dict.fromkeys(Target(one[2], int(one[3] or USUAL_PORTS[one[1]])) for one in found if one))


def services_of_host() -> list[Target]:
    """What listens on this host for others, on each of its addresses that a container may try."""
    addresses = [
        item.address
        for interface in psutil.net_if_addrs().values()
        for item in interface
        if item.family == socket.AF_INET and not item.address.startswith("127.")
    ]
    found = set()
    for item in psutil.net_connections(kind="tcp"):
        if item.laddr and item.status == psutil.CONN_LISTEN:
            listens = addresses if item.laddr.ip in ("0.0.0.0", "::") else [item.laddr.ip]  # noqa: S104 - is compared
            found |= {Target(address, item.laddr.port) for address in listens if address in addresses}
    return sorted(found)


class Guest:
    """A client with the only key to a container, which logs in with OpenSSH's own client."""

    def __init__(self, folder: Path, user: str) -> None:
        self._folder = folder
        self._user = user
        private = ed25519.Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (folder / "key").touch(0o600)
        (folder / "key").write_bytes(pem)
        self.key = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def run(self, target: Target, host_key: str, command: str) -> str:
        """What a command printed in the container that shows this host key at `target`."""
        (self._folder / "known_hosts").write_text(f"container {host_key}\n", encoding="ascii")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "GlobalKnownHostsFile": "none",
            "HostKeyAlias": "container",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self._folder / "key"),
            "IdentityAgent": "none",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._folder / "known_hosts"),
        }
        argv = ["ssh", "-F", "none", "-T", "-p", str(target.port)]
        argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = host_program.run([*argv, f"{self._user}@{target.host}", command])
        if done.returncode != 0:
            raise LabshellError("ssh-probe-failed", "SSH says: {why}.", why=host_program.reason_of(done))
        return done.stdout

    def reached(self, way_in: Target, host_key: str, targets: Collection[Target]) -> list[Target]:
        """Which of the targets can be connected to from inside."""
        words = " ".join(shlex.quote(f"{target.host}/{target.port}") for target in targets)
        printed = self.run(way_in, host_key, REACHED.format(targets=words, seconds=CONNECT_SECONDS)).split()
        return [target for target in targets if f"{target.host}/{target.port}" in printed]


@contextmanager
def guest(user: str, folder: Path) -> Iterator[Guest]:
    """A guest with a new key in `folder`, which is gone at the end of the block."""
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    folder.mkdir(mode=0o700)
    try:
        yield Guest(folder, user)
    finally:
        shutil.rmtree(folder)
