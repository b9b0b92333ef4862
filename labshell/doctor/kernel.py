"""What doctor of the host says about the kernel's tables that all containers share: too small, or nearly used up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from labshell.doctor.findings import ERROR, WARNING, Finding
from labshell.host import machine

NEARLY_USED_UP = 0.80
FEWEST_TERMINALS = 65536  # in /etc/sysctl.d/60-labshell.conf, too
FEWEST_INOTIFY_INSTANCES = 4096  # systemd in a container takes eight
LOAD_SETTINGS = "sysctl --ignore --load /etc/sysctl.d/60-labshell.conf"


def findings(addresses: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Every finding about these tables. `addresses` are the containers': address -> name."""
    yield from _terminals()
    yield from _inotify()
    yield from _connections(addresses or {})
    if machine.kernel_setting("net/ipv4/ip_forward") != "1":
        yield Finding(
            "ip-forward",
            ERROR,
            "The kernel forwards no packets, so no container is reachable. "
            "Look which file of /etc/sysctl.d sets it, so that it holds after a reboot.",
            "sysctl -w net.ipv4.ip_forward=1",
        )


def _terminals() -> Iterator[Finding]:
    """The kernel keeps the last `reserve` of them for programs outside containers."""
    limit, used, reserve = (_number(f"kernel/pty/{name}") for name in ("max", "nr", "reserve"))
    if limit is None:
        return
    if limit < FEWEST_TERMINALS:
        yield Finding(
            "terminals-few",
            WARNING,
            f"The kernel allows {limit} terminals on the whole host; one container can use up all of them. "
            "If it happens again, a later file of /etc/sysctl.d lowers it.",
            LOAD_SETTINGS,
        )
    if used is not None and used > NEARLY_USED_UP * (limit - (reserve or 0)):
        yield Finding(
            "terminals-used-up",
            ERROR,
            f"{used} of {limit} terminals are open on this host; at the limit no login gets one. Whose they are: "
            "find /proc/[0-9]*/fd -lname '*ptmx' 2>/dev/null | cut -d/ -f3 | uniq -c | sort -n | tail; "
            "/proc/PID/cgroup names the container, which labshell-admin stop ends.",
            f"sysctl -w kernel.pty.max={limit * 2}",
        )


def _inotify() -> Iterator[Finding]:
    instances = _number("fs/inotify/max_user_instances")
    if instances is not None and instances < FEWEST_INOTIFY_INSTANCES:
        yield Finding(
            "inotify-few",
            ERROR,
            f"The kernel gives out {instances} inotify instances, enough for {instances // 8} containers. "
            "If it happens again, a later file of /etc/sysctl.d lowers it.",
            LOAD_SETTINGS,
        )


def _connections(addresses: Mapping[str, str]) -> Iterator[Finding]:
    """At the limit the kernel drops the first packet of every new connection."""
    limit, used = (_number(f"net/netfilter/nf_conntrack_{name}") for name in ("max", "count"))
    if limit and used is not None and used > NEARLY_USED_UP * limit:
        most = Counter(addresses[one] for one in machine.tracked_sources() if one in addresses).most_common(1)
        whose = f" {most[0][1]} are of the container {most[0][0]}: labshell-admin stop ends it." if most else ""
        yield Finding(
            "connections-used-up",
            ERROR,
            f"The kernel tracks {used} connections, of {limit} at most; at the limit no login gets through.{whose}",
            f"sysctl -w net.netfilter.nf_conntrack_max={limit * 2}",
        )


def _number(setting: str) -> int | None:
    text = machine.kernel_setting(setting)
    return int(text) if text.isdigit() else None
