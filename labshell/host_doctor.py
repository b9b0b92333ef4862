"""labshell-admin doctor: what on this host is not as it has to be, each with an id, how bad it is, and the remedy.

It runs in the administrator's own command and not in the daemon, so that it works when the daemon does not. It
changes nothing.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator

from labshell import kernel_doctor, machine, policy, protocol, trial
from labshell.accounts import Accounts
from labshell.config import LOGIN_SHELL, Config
from labshell.containers import containers_of
from labshell.engine import Engine
from labshell.errors import LabshellError
from labshell.findings import ERROR, NOTE, WARNING, Finding
from labshell.firewall import Firewall
from labshell.policy import Container
from labshell.ports import PortRegistry

log = logging.getLogger(__name__)
FULL, NEARLY_FULL = 0.95, 0.80
OLDEST_ENGINE = (5, 0)
IDS_OF_A_CONTAINER = 65536
FEWEST_INOTIFY_INSTANCES = 4096  # systemd in a container takes eight
# What sshd has to say of a researcher (sshd -T), whatever else is configured before or after our file.
SSHD = {
    "forcecommand": f"{LOGIN_SHELL} --ssh",
    "authorizedkeysfile": "/etc/labshell/keys/%u",
    "allowtcpforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "allowagentforwarding": "no",
    "x11forwarding": "no",
    "permittunnel": "no",
    "permituserrc": "no",
    "permituserenvironment": "no",
    "passwordauthentication": "no",
}
DANGEROUS_GROUPS = frozenset(
    {"sudo", "wheel", "adm", "lxd", "lxc", "incus", "incus-admin", "docker", "libvirt", "disk", "kvm"}
)


class HostDoctor:
    """The checks of one host."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engine = Engine(config.engine_socket)
        self._containers = containers_of(config, self._engine)
        self._accounts = Accounts(config.paths, config.uid_range)
        pool = policy.PortPool(*config.port_range, config.ports_per_user)
        self._ports = PortRegistry(config.paths, pool, config.port_quarantine_days)
        self._pool = pool
        self._firewall = Firewall(config, self._accounts, self._containers, self._ports)

    def examine(self) -> Iterator[Finding]:
        """Every finding. A check that cannot be made is a finding, too."""
        for name, check in self._checks():
            try:
                yield from check()
            except LabshellError as error:
                yield Finding(
                    f"{name}-unknown", ERROR, f"This could not be looked at: {error}", "See the sentence itself."
                )

    def _checks(self) -> Iterator[tuple[str, Callable[[], Iterator[Finding]]]]:
        yield "daemon", self._daemon
        yield "engine", self._engine_itself
        yield "kernel", kernel_doctor.findings
        yield "pool", self._pools
        yield "template", self._template
        yield "network", self._network
        yield "rules", self._rules
        yield "ports", self._port_files
        yield "people", self._people
        yield "sshd", self._sshd
        yield "containers", self._all_containers
        yield "nvidia", self._nvidia

    def _daemon(self) -> Iterator[Finding]:
        try:
            list(protocol.call(protocol.ADMIN_SOCKET, f"{protocol.ADMIN}.Log", {"count": 0}, timeout_seconds=10))
        except LabshellError as error:
            yield Finding("daemon-away", ERROR, str(error), "systemctl restart labshelld; journalctl -u labshelld")

    def _engine_itself(self) -> Iterator[Finding]:
        about = self._engine.about()
        numbers = tuple(int(part) for part in about.version.split(".")[:2] if part.isdigit())
        if about.name == "lxd" and numbers < OLDEST_ENGINE:
            yield Finding("engine-old", ERROR, f"LXD {about.version} is older than 5.0.", "Upgrade LXD.")
        if machine.has_snap("lxd") and not machine.is_snap_held("lxd"):
            yield Finding(
                "snap-refresh",
                WARNING,
                "The LXD snap refreshes itself, and may end every container then.",
                "snap refresh --hold lxd",
            )
        instances = machine.kernel_setting("fs/inotify/max_user_instances")
        if instances.isdigit() and int(instances) < FEWEST_INOTIFY_INSTANCES:
            yield Finding(
                "inotify-few",
                ERROR,
                f"The kernel gives out {instances} inotify instances, enough for {int(instances) // 8} containers.",
                "sysctl --load /etc/sysctl.d/60-labshell.conf; a later file of /etc/sysctl.d may have lowered it",
            )
        used = len([item for item in self._containers.all() if item.config.get("security.idmap.isolated") == "true"])
        room = machine.subordinate_ids("root") // IDS_OF_A_CONTAINER
        if room - used < 5:
            yield Finding(
                "ids-few",
                WARNING,
                f"There are ids for {room} isolated containers, and {used} there already.",
                "Enlarge root's range in /etc/subuid and /etc/subgid, and restart the engine.",
            )

    def _pools(self) -> Iterator[Finding]:
        for name, used, total in self._containers.pools.spaces():
            share = used / total if total else 0
            if share > NEARLY_FULL:
                severity = ERROR if share > FULL else WARNING
                yield Finding(
                    "pool-full",
                    severity,
                    f"The storage pool {name} is {share:.0%} full.",
                    "Make room, or enlarge it: containers do not start on a full pool.",
                    name,
                )
        for folder in machine.uncounted_file_systems():
            yield Finding(
                "disk-limits-off",
                WARNING,
                f"No disk limit is in force in {folder}: the kernel has lost count of who holds what.",
                f"btrfs quota rescan {folder}",
                folder,
            )

    def _template(self) -> Iterator[Finding]:
        name = self._config.template
        try:
            self._containers.check_template(name)
        except LabshellError as error:
            yield Finding("template-missing", ERROR, str(error), "labshell-admin template build", name)
            return
        template = self._containers.get(name)
        shadow = self._containers.inside.read_file(name, "/etc/shadow", 1 << 20) if template else None
        for line in (shadow or b"").decode("utf-8", "replace").splitlines():
            user, _, rest = line.partition(":")
            if rest and not rest.startswith(("!", "*", ":")):
                yield Finding(
                    "template-password",
                    WARNING,
                    f"{user} has a password in the template {name}.",
                    f"Lock it: lxc start {name}; lxc exec {name} -- usermod --lock {user}; lxc stop {name}",
                    user,
                )

    def _network(self) -> Iterator[Finding]:
        bridge = self._containers.network.bridge()
        if not bridge.strangers and not self._containers.network.is_labs_own:
            yield Finding(
                "dhcp-open",
                WARNING,
                f"A container that asks {bridge.name} for addresses as many machines takes those of new containers.",
                f"lxc network set {bridge.name} ipv4.dhcp.ranges=FIRST-LAST, a few that labshell then leaves alone",
            )
        if machine.kernel_setting("net/ipv4/ip_forward") != "1":
            yield Finding(
                "ip-forward",
                ERROR,
                "The kernel forwards no packets, so no container is reachable.",
                "sysctl -w net.ipv4.ip_forward=1, and for good in /etc/sysctl.d",
            )
        for variant in self._firewall.forward_policies_that_drop():
            yield Finding(
                "forward-drop",
                ERROR,
                f"FORWARD drops by default ({variant}: Docker or ufw), without our rules.",
                "labshell-admin reconcile puts them there; if ufw is in front: ufw route allow to any",
            )
        if not self._config.guard:
            yield Finding(
                "guard-off",
                WARNING,
                "The guard is off: containers reach every service of this host.",
                "guard = true in /etc/labshell/labshell.toml",
            )

    def _rules(self) -> Iterator[Finding]:
        plan = self._firewall.plan()
        if plan:
            yield Finding(
                "rules-differ",
                WARNING,
                f"{len(plan.remove)} live rules should not be there, and {len(plan.add)} are missing.",
                "labshell-admin reconcile; with --plan it shows them",
            )

    def _port_files(self) -> Iterator[Finding]:
        ports, damaged = self._ports.readable_ports()
        for user in damaged:
            yield Finding(
                "port-file-damaged",
                ERROR,
                f"/public/ports/{user} does not hold a port number.",
                "Write the right one into it: iptables-legacy-save -t nat shows the live rule.",
                user,
            )
        holders: dict[int, str] = {}
        for user, port in ports.items():
            if not self._pool.fits(port):
                yield Finding(
                    "port-outside",
                    NOTE,
                    f"{user}'s port {port} lies outside port_range.",
                    "It works; widen port_range if it should be one of the handed-out ones.",
                    user,
                )
            for number in self._pool.block(port):
                if number in holders:
                    yield Finding(
                        "ports-overlap",
                        ERROR,
                        f"The ports of {holders[number]} and {user} overlap at {number}: that port leads nowhere.",
                        f"Give one of them another block: rm /public/ports/{user}, and labshell-admin start {user}",
                        user,
                    )
                    break
            holders |= dict.fromkeys(self._pool.block(port), user)

    def _people(self) -> Iterator[Finding]:
        for door in self._accounts.doors():
            more = sorted(door.groups & DANGEROUS_GROUPS)
            if more:
                yield Finding(
                    "group-too-much",
                    ERROR,
                    f"{door.user} is in the group {', '.join(more)}: root on this host.",
                    f"gpasswd --delete {door.user} {more[0]}",
                    door.user,
                )
            if door.shell != LOGIN_SHELL:
                yield Finding(
                    "shell-real",
                    ERROR,
                    f"{door.user}'s login shell is {door.shell}, not labshell.",
                    f"usermod --shell {LOGIN_SHELL} {door.user}",
                    door.user,
                )
            if not door.is_home_safe:
                yield Finding(
                    "home-writable",
                    ERROR,
                    f"{door.user} can write to {door.home}, which runs code on this host.",
                    f"chown root:root {door.home}; chmod 755 {door.home}; and empty it",
                    door.user,
                )

    def _sshd(self) -> Iterator[Finding]:
        for user in list(self._accounts.all())[:3]:
            settings = machine.sshd_settings(user)
            for key, wanted in SSHD.items():
                if settings.get(key, "").lower() != wanted.lower():
                    yield Finding(
                        "sshd-open",
                        ERROR,
                        f"sshd has {key} {settings.get(key, '')!r} for {user}, not {wanted!r}.",
                        "Another file comes before /etc/ssh/sshd_config.d/00-labshell.conf, or it is not read: "
                        "run scripts/setup-host again, then sshd -T -C user=NAME",
                        user,
                    )

    def _all_containers(self) -> Iterator[Finding]:
        uids = self._accounts.all()
        for item in self._containers.all():
            yield from self._container(item, uids)

    def _container(self, item: Container, uids: dict[str, int]) -> Iterator[Finding]:
        name = item.name
        if item.config.get("security.privileged") == "true":
            yield Finding(
                "privileged",
                ERROR,
                f"The container {name} is privileged: root inside is root on this host.",
                f"lxc config set {name} security.privileged=false, and restart it",
                name,
            )
        dangerous = [key for key in item.config if key.startswith("raw.")]
        if item.owner and dangerous:
            yield Finding(
                "raw-config",
                WARNING,
                f"The container {name} has {', '.join(dangerous)}.",
                f"lxc config unset {name} {dangerous[0]}",
                name,
            )
        yield from self._left_snapshots(item)
        if name == trial.NAME:
            yield Finding(
                "trial-left",
                NOTE,
                f"The container {name} is of a trial: one that runs now, or one that was killed.",
                "labshell-admin doctor --try",
                name,
            )
        if item.owner and item.owner not in uids:
            if item.name == item.owner:
                remedy = f"labshell-admin adopt {name} if the same person comes back, remove-user {name} if not"
            else:
                remedy = f"lxc delete --force {name}, when nobody needs what is in it"
            yield Finding(
                "owner-gone",
                WARNING,
                f"The container {name} is marked as {item.owner}'s, who has no account.",
                remedy,
                name,
            )
        for source in item.writable_mounts:
            if item.owner and machine.allows_setuid(source):
                yield Finding(
                    "mount-setuid",
                    WARNING,
                    f"{name} can put setuid programs into {source}, which run on this host.",
                    f"Mount {source} with nosuid,nodev on this host.",
                    name,
                )
        if item.owner and item.config.get("security.idmap.isolated") != "true":
            yield Finding(
                "ids-shared",
                WARNING,
                f"The container {name} has no id map of its own: who breaks out of another one is root in it.",
                f"lxc config set {name} security.idmap.isolated=true, and restart it: the engine re-owns its files",
                name,
            )
        if item.owner == name and not item.is_fenced:
            yield Finding(
                "network-open",
                WARNING,
                f"The container {name} can take addresses of others and reach them beside their ports.",
                f"labshell-admin stop {name}, and labshell-admin start {name}",
                name,
            )
        if item.owner == name and item.needs_bridge_netfilter and not machine.has_bridge_netfilter():
            yield Finding(
                "bridge-netfilter",
                WARNING,
                f"The container {name} does not start with this host: its network device has "
                "security.ipv6_filtering, and the kernel module br_netfilter is not loaded.",
                f"labshell-admin stop {name}, and labshell-admin start {name}, which removes that setting",
                name,
            )
        if item.gpus_aside:
            yield Finding(
                "gpu-aside",
                ERROR,
                f"The container {name} runs without its GPU, which could not be had.",
                "Look at nvidia-smi on this host; then restart the container.",
                name,
            )

    def _left_snapshots(self, item: Container) -> Iterator[Finding]:
        there = self._containers.pools.snapshots_on_disk(item)
        known = {snapshot.name for snapshot in self._containers.snapshots(item.name)} if there else set()
        for path in there:
            if path.name not in known and path.exists():  # it may have been deleted between the two looks
                yield Finding(
                    "snapshot-left",
                    ERROR,
                    f"The engine did not finish the snapshot {path.name} of {item.name}, which it cannot delete now.",
                    f"btrfs subvolume delete {shlex.quote(str(path))}",
                    item.name,
                )

    def _nvidia(self) -> Iterator[Finding]:
        if machine.upgrades_nvidia_unattended():
            yield Finding(
                "nvidia-unattended",
                WARNING,
                "unattended-upgrades may replace the NVIDIA driver, which breaks every container at once.",
                'Add "nvidia"; to Unattended-Upgrade::Package-Blacklist',
            )
