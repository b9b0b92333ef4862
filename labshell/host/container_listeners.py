"""Where the programs of a container listen: the kernel's tables of its network namespace. Nothing is changed."""

from __future__ import annotations

from labshell.host.machine import PROC
from labshell.model import listening
from labshell.model.listening import Listens

TABLES = ("net/tcp", "net/tcp6")
MOST_BYTES = 1 << 18  # the kernel names those that listen first, and then connections, however many there are


def of(pid: int) -> dict[int, Listens] | None:
    """How far each TCP port is answered in the network namespace of a process; None if it has ended."""
    text = ""
    for table in TABLES:
        try:
            with (PROC / str(pid) / table).open(encoding="ascii", errors="replace") as file:
                text += file.read(MOST_BYTES)
        except FileNotFoundError:  # the process, or a kernel without IPv6
            continue
        except OSError:
            return None
    return listening.in_tables(text) if text else None
