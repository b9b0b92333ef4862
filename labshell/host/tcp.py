"""Whether a server answers at an address."""

from __future__ import annotations

import socket

from labshell.model.ports import SSH

BANNER_SECONDS = 10.0


def ssh_answers(
    address: str, port: int = SSH, *, connect_seconds: float = 1.0, banner_seconds: float = BANNER_SECONDS
) -> bool:
    """Whether an SSH server shows its banner there.

    A server whose port is open gets `banner_seconds`: on a loaded host it forks late, and a look that leaves earlier
    leaves it another unfinished connection, until it takes none at all (MaxStartups).
    """
    try:
        with socket.create_connection((address, port), timeout=connect_seconds) as connection:
            connection.settimeout(banner_seconds)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
