"""The host itself: how loaded it is. Nothing here changes anything."""

from __future__ import annotations

import datetime
import pwd
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SSH_KEYS = Path("/etc/ssh")
PROC = Path("/proc")
OFTEN_WRITTEN = (Path("/var/log"), Path("/var/lib/labshell"), Path("/run/labshell"))
CLOCK_SLACK_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """How busy the host is: load averages over 1, 5 and 15 minutes, processors, memory in bytes."""

    averages: tuple[float, float, float]
    processors: int
    memory_used: int
    memory_total: int

    @property
    def share(self) -> float:
        """The last minute's load as a share of all processors: 1.0 is fully busy."""
        return self.averages[0] / max(1, self.processors)


def ssh_host_keys() -> list[str]:
    """The public keys of the host's own sshd: "ssh-ed25519 AAAA..."."""
    lines = (
        path.read_text(encoding="ascii", errors="replace") for path in sorted(SSH_KEYS.glob("ssh_host_*_key.pub"))
    )
    return [" ".join(line.split()[:2]) for line in lines]


def load() -> Load:
    memory = psutil.virtual_memory()
    return Load(psutil.getloadavg(), psutil.cpu_count() or 1, memory.total - memory.available, memory.total)


def is_folder(path: str) -> bool:
    return Path(path).is_dir()


def login_of(pid: int) -> str:
    """Who had logged in before a process became root's, by sudo or su; root if the system does not say."""
    try:
        uid = int((PROC / str(pid) / "loginuid").read_text())
        return pwd.getpwuid(uid).pw_name
    except (OSError, ValueError, KeyError, OverflowError):
        return "root"


def control_group(pid: int) -> str:
    """The control groups of a process of the host, as /proc has them; empty if it has ended."""
    try:
        return (PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def clock_is_behind() -> bool:
    """Whether a folder that is written often was written in what is now the future: the clock was set back."""
    moments = [path.stat().st_mtime for path in OFTEN_WRITTEN if path.exists()]
    return bool(moments) and max(moments) > time.time() + CLOCK_SLACK_SECONDS


def utc_time() -> str:
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M}"
