"""The host itself: how loaded it is, what it is connected to. Nothing here changes anything."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from labshell import places
from labshell.errors import LabshellError
from labshell.host import btrfs, host_program
from labshell.host.clock import Clock
from labshell.model import keys
from labshell.model.usage import container_of_control_group

SSH_KEYS = Path("/etc/ssh")
INTERFACES = Path("/sys/class/net")
PROC = Path("/proc")
OFTEN_WRITTEN = (Path("/var/log"), Path(places.STATE), Path(places.RUN))
CLOCK_SLACK_SECONDS = 60
MOST_OF_PROCESS_BYTES = 16384
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "lustre"})
OWN_ADDRESS = re.compile("clientaddr=[^,]*")
IS_UP = 1  # IFF_UP
SOURCE = re.compile(r"\bsrc=([0-9.]+)")


@dataclass(frozen=True)
class Disk:
    """One file system of the host."""

    device: int
    free_bytes: int


@dataclass(frozen=True)
class Load:
    """How busy the host is: load averages over 1, 5 and 15 minutes, processors, memory in bytes."""

    averages: tuple[float, float, float]
    processors: int
    memory_used: int
    memory_total: int


def ssh_host_keys() -> list[str]:
    """The public keys of the host's own sshd: "ssh-ed25519 AAAA..."."""
    lines = (
        path.read_text(encoding="ascii", errors="replace") for path in sorted(SSH_KEYS.glob("ssh_host_*_key.pub"))
    )
    return [" ".join(line.split()[:2]) for line in lines]


def ssh_fingerprint() -> str | None:
    """The fingerprint that ssh shows on the first connection to the host: it prefers Ed25519 to the other kinds."""
    for line in sorted(ssh_host_keys(), key=lambda line: not line.startswith("ssh-ed25519")):
        with contextlib.suppress(LabshellError):  # a kind that no ssh of today asks about, or half a file
            return keys.parse(line).fingerprint
    return None


def load() -> Load:
    memory = psutil.virtual_memory()
    return Load(psutil.getloadavg(), psutil.cpu_count() or 1, memory.total - memory.available, memory.total)


def address_of(interface: str) -> str:
    """The first IPv4 address of a network interface, with its prefix: 192.0.2.10/24."""
    for item in psutil.net_if_addrs().get(interface, []):
        if item.family == socket.AF_INET:
            return str(ipaddress.IPv4Interface(f"{item.address}/{item.netmask}"))
    raise LabshellError(
        "interface-missing",
        "The host has no network interface {interface} with an IPv4 address.",
        interface=interface,
    )


def outside_interface() -> str:
    """The interface that the default route leads to."""
    interfaces = ways_out()
    if not interfaces:
        raise LabshellError(
            "default-route-missing", "This host has no default route; set listen_address in labshell.toml."
        )
    return interfaces[0]


def ways_out() -> list[str]:
    """The interfaces that the best default route leads to; none if there is no such route."""
    routes = [line.split() for line in (PROC / "net/route").read_text(encoding="ascii").splitlines()[1:]]
    defaults = [(int(metric), interface) for interface, to, _, _, _, _, metric, mask, *_ in routes
                if (to, mask) == ("00000000", "00000000") and interface != "*"]  # fmt: skip
    best = min(defaults, default=(0, ""))[0]
    return [interface for metric, interface in defaults if metric == best]


def mounts() -> Iterator[tuple[str, str, str, str]]:
    """Source, folder, kind and options of every mount of the host."""
    for line in (PROC / "self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        source, folder, kind, options = line.split()[:4]
        yield source, folder, kind, options


def file_servers() -> list[str]:
    """The IPv4 addresses of the servers whose files this host has mounted, as the mounts themselves have them."""
    found = set()
    for source, _, kind, options in mounts():
        if kind in NETWORK_FILE_SYSTEMS:
            found |= set(re.findall(r"[0-9]+(?:\.[0-9]+){3}", f"{source} {OWN_ADDRESS.sub('', options)}"))
    return sorted(address for address in found if _is_ipv4(address))


def uncounted_file_systems() -> list[str]:
    """Where btrfs file systems are mounted whose limits are not in force: the kernel has stopped to count."""
    uncounted = {
        device.name
        for counts in btrfs.SYSFS.glob("*/qgroups")
        if btrfs.has_lost_count(counts)
        for device in (counts.parent / "devices").iterdir()
    }
    folders = {source: folder for source, folder, kind, _ in mounts() if kind == "btrfs"}
    return sorted(folder for source, folder in folders.items() if Path(source).resolve().name in uncounted)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether it is one, as far as this process may look: the engine may look further."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def disk_of(folder: Path) -> Disk | None:
    """The disk that a folder is on, or will be on; None if that cannot be told."""
    for path in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            space = os.statvfs(path)
            return Disk(os.stat(path).st_dev, space.f_bavail * space.f_frsize)
    return None


def allows_setuid(path: str) -> bool:
    """Whether setuid programs in this folder take effect: a mount without nosuid."""
    try:
        return not os.statvfs(path).f_flag & os.ST_NOSUID
    except OSError:
        return False


def remove_left_interface(name: str) -> bool:
    """Delete a network interface that nothing is connected to any more; whether there was one."""
    interface = INTERFACES / name
    if not name or not interface.exists():
        return False
    with contextlib.suppress(OSError):  # reading it fails where the interface is down
        if (interface / "carrier").read_text().strip() == "1":
            return False
    return host_program.run(["ip", "link", "delete", name]).returncode == 0


def has_bridge_netfilter() -> bool:
    """Whether the kernel module br_netfilter is there, and passes IPv6 on a bridge to the host's IPv6 rules."""
    try:
        return (PROC / "sys/net/bridge/bridge-nf-call-ip6tables").read_text().strip() == "1"
    except OSError:
        return False


def login_of(pid: int) -> str:
    """Who had logged in before a process became root's, by sudo or su; root if the system does not say."""
    try:
        uid = int((PROC / str(pid) / "loginuid").read_text())
        return pwd.getpwuid(uid).pw_name
    except (OSError, ValueError, KeyError, OverflowError):
        return "root"


def kernel_setting(name: str) -> str:
    """A setting of the kernel by its path below /proc/sys; empty if there is none of that name."""
    try:
        return (PROC / "sys" / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def sshd_settings(user: str) -> dict[str, str]:
    """What sshd would do for a user who comes from elsewhere: lower-case keyword -> value (sshd -T)."""
    argv = ["/usr/sbin/sshd", "-T", "-C", f"user={user},host=elsewhere,addr=192.0.2.1"]
    done = host_program.run(argv)
    if done.returncode != 0:
        raise LabshellError(
            "sshd-config-refused", "sshd refuses its own configuration: {why}.", why=host_program.reason_of(done)
        )
    return {key: value for key, _, value in (line.partition(" ") for line in done.stdout.splitlines())}


def subordinate_ids(user: str) -> int:
    """How many subordinate uids a user of the host has, in /etc/subuid."""
    try:
        lines = Path("/etc/subuid").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    ranges = [line.split(":") for line in lines]
    return sum(int(parts[2]) for parts in ranges if len(parts) == 3 and parts[0] == user and parts[2].isdigit())


def has_snap(name: str) -> bool:
    return (Path("/snap") / name / "current").exists()


def is_snap_held(name: str) -> bool:
    """Whether a snap is kept from refreshing itself (snap refresh --hold)."""
    try:
        return "held" in host_program.run(["snap", "list", name]).stdout
    except LabshellError:
        return False


def upgrades_nvidia_unattended(
    apt: Path = Path("/etc/apt/apt.conf.d"), modules: Path = Path("/proc/driver/nvidia")
) -> bool:
    """Whether the host's NVIDIA driver may be replaced by unattended upgrades."""
    if not modules.exists() or not apt.is_dir():
        return False
    text = "\n".join(path.read_text(errors="replace") for path in sorted(apt.iterdir()) if path.is_file())
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("//")]
    is_on = any(re.match(r'APT::Periodic::Unattended-Upgrade\s+"[1-9]', line) for line in lines)
    return is_on and not any(re.match(r'"(\^|\.\*)?(lib)?nvidia', line) for line in lines)


def control_group(pid: int) -> str:
    """The control groups of a process of the host, as /proc has them; empty if it has ended."""
    return _of_process(pid, "cgroup")


def _of_process(pid: int, file: str) -> str:
    """The beginning of a file of /proc/PID. The owner of the process decides how long a command line is."""
    try:
        with (PROC / str(pid) / file).open("rb") as stream:
            return stream.read(MOST_OF_PROCESS_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def people_at_work() -> tuple[set[int], set[str]]:
    """The uids that have a process on this host, and the containers with an open SSH login.

    OpenSSH's server names the process of a login after it: "sshd: alice@pts/0".
    """
    uids, containers = set(), set()
    for process in psutil.process_iter(["uids"]):
        if process.info["uids"] is not None:
            uids.add(process.info["uids"].real)
        if _of_process(process.pid, "comm").startswith("sshd") and "@" in _of_process(process.pid, "cmdline"):
            container = container_of_control_group(control_group(process.pid))
            if container:
                containers.add(container)
    return uids, containers


def clock_is_behind() -> bool:
    """Whether a folder that is written often was written in what is now the future: the clock was set back."""
    moments = [path.stat().st_mtime for path in OFTEN_WRITTEN if path.exists()]
    return bool(moments) and max(moments) > Clock().seconds() + CLOCK_SLACK_SECONDS


def utc_time() -> str:
    return f"{Clock().now():%Y-%m-%d %H:%M}"


def interface_state(name: str) -> str:
    """ "up" or "down", as it was set; empty if there is no such network interface."""
    try:
        flags = int((INTERFACES / name / "flags").read_text(), 16)
    except (OSError, ValueError):
        return ""
    return "up" if flags & IS_UP else "down"


def has_address(interface: str, address: str) -> bool:
    return address in [item.address for item in psutil.net_if_addrs().get(interface, [])]


def is_connected(interface: str) -> bool:
    """Whether a port of a container is on a bridge."""
    return (INTERFACES / interface / "master").exists()


def tracked_sources() -> Iterator[str]:
    """The source address of each connection that the kernel tracks, where it tells."""
    with contextlib.suppress(OSError), (PROC / "net/nf_conntrack").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = SOURCE.search(line)
            if found:
                yield found[1]
