"""What doctor of the host says about the programs that labshell stands on: the engine, the daemon, sshd, lxcfs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labshell import places
from labshell.doctor.findings import ERROR, WARNING, Finding
from labshell.engine.client import Engine
from labshell.errors import LabshellError
from labshell.host import host_services, machine
from labshell.operations.lab import Lab
from labshell.wire import protocol

OLDEST_ENGINE = (5, 0)
IDS_OF_A_CONTAINER = 65536
FEWEST_FREE = 5
SET_UP = "scripts/setup-host"  # starts what does not run where process 1 is not systemd
DAEMON_UNITS = ("labshelld.socket", "labshelld-admin.socket", "labshelld.service")
# What has to start at boot; of each line one is enough. The others are where the distribution has them so.
AT_BOOT = (
    *((unit,) for unit in DAEMON_UNITS),
    ("ssh.service", "ssh.socket", "sshd.service"),
    ("lxd.socket", "lxd.service", "snap.lxd.daemon.service", "incus.socket"),
    ("lxcfs.service",),
)
NOT_AT_BOOT = frozenset({"disabled", "masked"})


def _started(*units: str, verb: str = "start") -> str:
    return f"systemctl {verb} {' '.join(units)}" if host_services.has_systemd() else SET_UP


def engine_away(engine: Engine) -> Iterator[Finding]:
    """That the engine does not answer: then nothing that depends on it is looked at."""
    try:
        engine.about()
    except LabshellError as error:
        is_snap = machine.has_snap("lxd")
        unit = "snap.lxd.daemon" if is_snap else "lxd"
        is_there = host_services.is_served(engine.path)
        words = (
            f"LXD does not answer at {engine.path}."
            if is_there
            else f"LXD is not running: nothing listens on {engine.path}."
        )
        detail = f" {error.detail}" if error.detail else ""
        remedy = _started(unit, verb="restart" if is_there else "start")
        yield Finding(
            "engine-away", ERROR, f"{words}{detail} Users' containers go on, but nothing can be started.", remedy
        )


def engine(lab: Lab) -> Iterator[Finding]:
    about = lab.engine.about()
    numbers = tuple(int(part) for part in about.version.split(".")[:2] if part.isdigit())
    if about.name == "lxd" and numbers < OLDEST_ENGINE:
        yield Finding("engine-old", ERROR, f"LXD {about.version} is older than 5.0.", "apt-get install lxd")
    if machine.has_snap("lxd") and not machine.is_snap_held("lxd"):
        yield Finding(
            "snap-refresh",
            WARNING,
            "The LXD snap refreshes itself, and may end every container then.",
            "snap refresh --hold lxd",
        )
    isolated = [item for item in lab.containers.all() if item.config.get("security.idmap.isolated") == "true"]
    room = machine.subordinate_ids("root") // IDS_OF_A_CONTAINER
    if room - len(isolated) < FEWEST_FREE:
        yield Finding(
            "ids-few",
            WARNING,
            f"There are ids for {room} isolated containers, and {len(isolated)} there already: root's range in "
            "/etc/subuid and /etc/subgid is small. Restart the engine afterwards.",
            SET_UP,
        )


def daemon(lab: Lab) -> Iterator[Finding]:
    restart = _started(*DAEMON_UNITS, verb="restart")
    if not host_services.is_served(Path(places.ADMIN_SOCKET)):
        yield Finding("daemon-away", ERROR, "labshelld does not run. Why: journalctl -u labshelld -e", restart)
        return
    try:
        nothing = {"count": 0, "only_errors": False}
        list(protocol.call(places.ADMIN_SOCKET, f"{protocol.ADMIN}.Log", nothing, timeout_seconds=10))
    except LabshellError as error:
        words = f"labshelld does not answer as it should: {error} Why: journalctl -u labshelld -e"
        yield Finding("daemon-away", ERROR, words, restart)


def sshd(lab: Lab) -> Iterator[Finding]:
    """The host's SSH server: that it runs, and that it would start again."""
    refusal = host_services.sshd_refusal()
    if refusal:
        yield Finding(
            "sshd-config",
            ERROR,
            f"sshd refuses its own configuration, and does not start again: {refusal}. Correct what it names.",
            "sshd -t",
        )
    port = lab.config.ssh_port
    if not any(one.port == port or one.program == "sshd" for one in host_services.listeners()):
        by_hand = "mkdir -p /run/sshd; /usr/sbin/sshd"
        remedy = _started("ssh") if host_services.has_systemd() else by_hand
        yield Finding("sshd-away", ERROR, f"sshd is not running: nothing listens on port {port}.", remedy)


def lxcfs(lab: Lab) -> Iterator[Finding]:
    if host_services.is_lxcfs_away():
        yield Finding(
            "lxcfs-away",
            ERROR,
            "lxcfs does not run: containers see the whole host's memory and processors, or no /proc/meminfo at all. "
            "Stop and start running containers afterwards.",
            _started("lxcfs", verb="restart"),
        )


def at_boot(lab: Lab) -> Iterator[Finding]:
    """Units that would not start with the host."""
    if not host_services.has_systemd():
        return
    for alternatives in AT_BOOT:
        states = host_services.unit_states(alternatives)
        there = {unit: state for unit, state in states.items() if state}
        if not there and alternatives[0] in DAEMON_UNITS:
            yield Finding("not-at-boot", ERROR, f"There is no unit {alternatives[0]}.", SET_UP, alternatives[0])
        elif there and NOT_AT_BOOT.issuperset(there.values()):
            unit = next(iter(there))
            unmask = f"systemctl unmask {unit}; " if there[unit] == "masked" else ""
            yield Finding(
                "not-at-boot",
                ERROR,
                f"{unit} is {there[unit]}: it does not start with this host.",
                f"{unmask}systemctl enable {unit}",
                unit,
            )


def nvidia(lab: Lab) -> Iterator[Finding]:
    if machine.upgrades_nvidia_unattended():
        file = "/etc/apt/apt.conf.d/60-labshell-nvidia"
        yield Finding(
            "nvidia-unattended",
            WARNING,
            "unattended-upgrades may replace the NVIDIA driver, which breaks every container at once.",
            f"""echo 'Unattended-Upgrade::Package-Blacklist {{ "nvidia"; "libnvidia"; }};' > {file}""",
        )
