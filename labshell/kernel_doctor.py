"""What doctor of the host says about the kernel's tables that all containers share: too small, or nearly used up."""

from __future__ import annotations

from collections.abc import Iterator

from labshell import machine
from labshell.findings import ERROR, WARNING, Finding

NEARLY_USED_UP = 0.80
FEWEST_TERMINALS = 65536  # in /etc/sysctl.d/60-labshell.conf, too


def findings() -> Iterator[Finding]:
    """Every finding about these tables."""
    yield from _terminals()


def _terminals() -> Iterator[Finding]:
    """The kernel keeps the last `reserve` of them for programs outside containers."""
    limit, used, reserve = (_number(f"kernel/pty/{name}") for name in ("max", "nr", "reserve"))
    if limit is None:
        return
    if limit < FEWEST_TERMINALS:
        yield Finding(
            "terminals-few",
            WARNING,
            f"The kernel allows {limit} terminals on the whole host; one container can use up all of them.",
            "sysctl --load /etc/sysctl.d/60-labshell.conf; a later file of /etc/sysctl.d may have lowered it",
        )
    if used is not None and used > NEARLY_USED_UP * (limit - (reserve or 0)):
        yield Finding(
            "terminals-used-up",
            ERROR,
            f"{used} of {limit} terminals are open on this host; at the limit no login gets one.",
            "Count them by process: find /proc/[0-9]*/fd -lname '*ptmx' 2>/dev/null | cut -d/ -f3 | uniq -c | "
            "sort -n | tail; /proc/PID/cgroup names the container; then: labshell-admin stop USER",
        )


def _number(setting: str) -> int | None:
    text = machine.kernel_setting(setting)
    return int(text) if text.isdigit() else None
