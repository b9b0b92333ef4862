"""What the tests of attacks and faults share: what a refused person may hear, and what has to be true afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

from testhost import POOL, Completed, Host

Case = TypeVar("Case")
REFUSED = {1, 2, 69, 75}
FULL = os.environ.get("LABSHELL_HOSTILE") == "full"  # every step and every count; otherwise a share of them


def share(cases: Iterable[Case], every: int) -> list[Case]:
    """Every n-th of the cases: the first, and so on. All of them in a full run."""
    return list(cases)[:: 1 if FULL else every]


def one_sentence(done: Completed) -> str:
    """The one sentence that a refused person reads, on standard error; nothing else is printed."""
    assert done.returncode in REFUSED, done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done
    assert "Traceback" not in lines[0]
    assert all(character.isprintable() for character in lines[0]), done
    return lines[0]


def served_or_told(done: Completed) -> str:
    """Nothing if the login did what it was asked to, or the one sentence."""
    return "" if done.returncode == 0 else one_sentence(done)


def works(host: Host, user: str, port: int) -> None:
    """`user` is in their own container, through the port they always had."""
    host.client.ssh(user, "start", check=True, timeout=120)
    assert host.ssh_port(user) == port
    assert host.client.ssh(user, "hostname", port=port, check=True).stdout == f"{user}\n"


def as_researcher(user: str, argv: Sequence[str]) -> list[str]:
    """A command on the gateway with no more rights than the login shell of `user`."""
    return ["setpriv", "--reuid", user, "--regid", "labshell", "--clear-groups", "--no-new-privs", *argv]


def engine_pid(host: Host) -> str:
    return host.read("/run/labshell/lxd.pid").strip()


def restart_engine(host: Host, seconds_away: float = 0) -> None:
    """Kill the engine and start it again, as its package's unit would; the containers go on."""
    host.run(["kill", "-KILL", engine_pid(host)])
    time.sleep(seconds_away)
    start = "start_by_hand lxd lxd --group lxd --logfile=/var/log/lxd/lxd.log; wait_until 60 timeout 5 lxc query /1.0"
    host.steps(start, timeout=90)


def limit_disk(host: Host, user: str) -> None:
    host.admin("set", user, "--disk", "1GiB")
    host.recount_disks()  # so that the limit is in force


def counted(host: Host, top: str) -> dict[str, int]:
    """By path, the bytes in each subvolume by btrfs's own program."""
    host.run(["btrfs", "filesystem", "sync", top])
    lines = host.run(["btrfs", "qgroup", "show", "--raw", top]).stdout.splitlines()
    return {line.split()[-1]: int(line.split()[1]) for line in lines if line.startswith("0/")}


def fill_beyond_its_limit(host: Host, user: str) -> None:
    """By a limit below what is there: on a disk that is merely full LXD 5.0 does what follows only now and then."""
    host.client.ssh(user, "run head -c 200M /dev/zero > big; sync", check=True)
    limit = counted(host, POOL)[f"containers/{user}"] - (100 << 20)
    host.run(["btrfs", "qgroup", "limit", str(limit), f"{POOL}/containers/{user}"])
