"""Many logins and many people who come and go leave nothing: no memory, descriptor, thread, rule, lock, instance or file.

LABSHELL_HOSTILE=full: 1,000 logins and 200 comings and goings.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from hostile import FULL, works
from testhost import ENVIRONMENT, Host, exit_status, wait_until

pytestmark = pytest.mark.root
LOGINS, CYCLES = (1000, 200) if FULL else (80, 6)
WARM_UP, AT_ONCE = 40, 4
GROWTH = 1.10
FOLDERS = "/public /etc/labshell /run/labshell /var/lib/labshell /home /run/user"


def memory(host: Host) -> int:
    """Kilobytes of the daemon's own: what it shares with others is no leak of its."""
    rollup = host.read(f"/proc/{host.daemon_pid()}/smaps_rollup")
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(("Private_Dirty", "Swap:")))


def belongings(host: Host) -> dict[str, str]:
    """Everything that must be as it was, by what it is."""
    daemon = f"/proc/{host.daemon_pid()}"
    looks = {
        "descriptors": f"ls {daemon}/fd | wc -l",
        "threads": f"grep Threads {daemon}/status",
        "locks": f"grep -cw {host.daemon_pid()} /proc/locks; ls /run/labshell",
        "rules": "iptables-legacy-save | grep ^-A | sort; nft list tables | sort",
        "instances": "lxc list --format csv --columns n | sort",
        # Those that go on; the engine's own look for new images and instance types is not ours.
        "operations": "lxc operation list --format csv | grep ,RUNNING, | cut -d, -f3 | grep -v -e types -e images",
        "files": f"find {FOLDERS} -xdev 2>/dev/null | sort",
        "accounts": "cut -d: -f1 /etc/passwd; cut -d: -f1 /etc/group",
        "interfaces": "ls /sys/class/net | grep -c veth",
        # A container's own come and go; their users are numbers here.
        "processes": "ps -e -o user=,comm= | grep -v -e '^[0-9]' -e 'ps$' -e 'sh$' -e grep -e sort -e uniq | sort | uniq -c",
    }
    return {name: host.run(["sh", "-c", look], check=False).stdout for name, look in looks.items()}


def differences(before: dict[str, str], now: dict[str, str]) -> dict[str, list[str]]:
    """The lines that are new or gone, by what they are about."""
    lines = {name: set(before[name].splitlines()) ^ set(now[name].splitlines()) for name in before}
    return {name: sorted(different) for name, different in lines.items() if different}


def logins(host: Host, user: str, count: int) -> None:
    argv = host.client.argv(host.client.ssh_argv(user, "status"))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(count // AT_ONCE):
        every = [subprocess.Popen(argv, env=ENVIRONMENT, **quiet) for _ in range(AT_ONCE)]  # type: ignore[call-overload]
        assert [exit_status(process, 60) for process in every] == [0] * AT_ONCE


def cycles(host: Host, count: int) -> None:
    for _ in range(count):
        host.add_user("coming")
        host.client.ssh("coming", "ports add 8080", check=True)
        host.remove_user("coming")


@pytest.mark.parametrize(
    ("act", "count", "warm_up"),
    [
        (lambda host, count: logins(host, "alice", count), LOGINS, WARM_UP),
        (cycles, CYCLES, max(2, CYCLES // 10)),
    ],
    ids=["logins", "comings and goings"],
)
def test_nothing_grows(
    host: Host, alice: str, alice_port: int, act: Callable[[Host, int], None], count: int, warm_up: int
) -> None:
    host.restart_daemon()
    works(host, alice, alice_port)
    act(host, warm_up)
    wait_until(lambda: not host.run(["pgrep", "-u", alice], check=False).stdout, 20)
    before, kilobytes = belongings(host), memory(host)
    act(host, count)
    wait_until(lambda: not host.run(["pgrep", "-u", alice], check=False).stdout, 20)
    for _ in range(10):  # the engine has work of its own now and then
        different = differences(before, belongings(host))
        if not different:
            break
        time.sleep(2)
    after = memory(host)
    print(f"{count}: {kilobytes} kB before, {after} kB after")  # noqa: T201 - for docs/security.md
    assert different == {}
    assert after < kilobytes * GROWTH
