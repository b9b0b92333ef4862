"""What doctor of the host says about each container, and about users who have none."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labshell import shown
from labshell.doctor.findings import ERROR, NOTE, WARNING, Finding
from labshell.engine.disks import ROOM_BYTES
from labshell.errors import LabshellError
from labshell.host import machine
from labshell.host.tcp import ssh_answers
from labshell.model.container import Container
from labshell.operations import trial
from labshell.operations.lab import Lab

FULL, NEARLY_FULL = 0.95, 0.80
FULL_OF_ONE = 0.99
GIB = 1 << 30
LOOKS_AT_ONCE = 8
BOOT_SECONDS = 30
UNITS = Path("/etc/systemd/system")
OF_SSH = (
    *(f"multi-user.target.wants/{name}" for name in ("ssh.service", "sshd.service")),
    *(f"sockets.target.wants/{name}" for name in ("ssh.socket", "sshd.socket")),
)
ENABLE_SSH = "sh -c 'rm -f /etc/ssh/sshd_not_to_be_run; systemctl unmask ssh; systemctl enable --now ssh'"


def pools(lab: Lab) -> Iterator[Finding]:
    for name, used, total in lab.containers.pools.spaces():
        share = used / total if total else 0
        if share > NEARLY_FULL:
            yield Finding(
                "pool-full",
                ERROR if share > FULL else WARNING,
                f"The storage pool {name} is {share:.0%} full: containers do not start on a full pool. "
                "labshell-admin list --sort disk says who has most, and lxc storage info how large it is.",
                f"lxc storage info {name}",
                name,
            )
    for folder in machine.uncounted_file_systems():
        yield Finding(
            "disk-limits-off",
            WARNING,
            f"No disk limit is in force in {folder}: the kernel has lost count of who holds what.",
            f"btrfs quota rescan -w {folder}",
            folder,
        )


def template(lab: Lab) -> Iterator[Finding]:
    name = lab.config.template
    containers = lab.containers
    found = containers.get(name)
    if found is not None and found.owner is None and found.state != "Stopped":
        words = f"The template {name} runs, and nothing is cloned from it."
        yield Finding("template-runs", ERROR, words, f"lxc stop --force {name}", name)
        return
    try:
        containers.clones.check_template(name)
    except LabshellError as error:
        yield Finding("template-missing", ERROR, str(error), "labshell-admin template build", name)
        return
    shadow = containers.inside.read_file(name, "/etc/shadow", 1 << 20) if found else None
    for line in (shadow or b"").decode("utf-8", "replace").splitlines():
        user, _, rest = line.partition(":")
        if rest and not rest.startswith(("!", "*", ":")):
            yield Finding(
                "template-password",
                WARNING,
                f"{user} has a password in the template {name}.",
                f"lxc start {name}; lxc exec {name} -- usermod --lock {shlex.quote(user)}; lxc stop --force {name}",
                user,
            )


def missing(lab: Lab) -> Iterator[Finding]:
    """Accounts that have no container, or one that is not theirs."""
    found = {item.name: item for item in lab.containers.all()}
    for user, uid in lab.accounts.all().items():
        item = found.get(user)
        if lab.unfinished.work_of(user) is not None:
            continue  # a rebuild that was cut off: the next login brings it to an end
        if lab.accounts.is_locked(user):
            words = f"The removal of {user} did not come to its end."
            yield Finding("user-half", WARNING, words, f"labshell-admin remove-user {user} --yes", user)
        elif item is None:
            yield Finding(
                "container-missing",
                ERROR,
                f"{user} has an account and no container. This makes a new, empty one that the same keys open; with "
                "an archive instead: remove-user and restore-user.",
                f"labshell-admin add-user {user}",
                user,
            )
        elif not item.belongs_to(user, uid):
            yield Finding(
                "container-foreign",
                ERROR,
                f"The container {user} is not marked as that of the account {user}, who cannot use it. "
                "If it is theirs, this marks it.",
                f"lxc config set {user} user.labshell.owner={user} user.labshell.uid={uid}",
                user,
            )
        elif not item.is_prepared:
            words = f"The container {user} was never finished."
            yield Finding("user-half", ERROR, words, f"labshell-admin add-user {user}", user)


def each(lab: Lab) -> Iterator[Finding]:
    uids, items = lab.accounts.all(), lab.containers.all()
    for item in items:
        yield from _security(item)
        yield from _left_snapshots(lab, item)
        yield from _owner(item, uids)
        if item.is_in_use:
            yield from _start(item)
    yield from _full_disks(lab, items)
    users = [item for item in items if item.owner == item.name and item.name in uids]
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
        for found in threads.map(lambda item: _ssh(lab, item), users):
            yield from found


def _security(item: Container) -> Iterator[Finding]:
    name = item.name
    restart = f"lxc restart {name}" if item.state == "Running" else ""
    if item.config.get("security.privileged") == "true":
        yield Finding(
            "privileged",
            ERROR,
            f"The container {name} is privileged: root inside is root on this host.",
            "; ".join(filter(None, [f"lxc config set {name} security.privileged=false", restart])),
            name,
        )
    dangerous = [key for key in item.config if key.startswith("raw.")]
    if item.owner and dangerous:
        yield Finding(
            "raw-config",
            WARNING,
            f"The container {name} has {', '.join(dangerous)}.",
            "; ".join(f"lxc config unset {name} {key}" for key in dangerous),
            name,
        )
    for source in item.writable_mounts:
        if item.owner and machine.allows_setuid(source):
            folder = shlex.quote(source)
            yield Finding(
                "mount-setuid",
                WARNING,
                f"{name} can put setuid programs into {source}, which run on this host; "
                "nosuid,nodev in /etc/fstab is for good.",
                f"mountpoint -q {folder} || mount --bind {folder} {folder}; "
                f"mount -o remount,bind,nosuid,nodev {folder}",
                name,
            )
    if item.owner and item.config.get("security.idmap.isolated") != "true":
        yield Finding(
            "ids-shared",
            WARNING,
            f"The container {name} has no id map of its own: an escape from another container would be root here. "
            "At its next start the engine changes the owner of each of its files.",
            "; ".join(filter(None, [f"lxc config set {name} security.idmap.isolated=true", restart])),
            name,
        )
    if item.owner == name and not item.is_fenced:
        yield Finding(
            "network-open",
            WARNING,
            f"The container {name} can take addresses of others and bypass port isolation.",
            _restarted(name),
            name,
        )
    if item.is_in_use and item.disk_limit and not item.denies_calls:
        yield Finding(
            "disk-unbounded",
            WARNING,
            f"The container {name} can use more disk than its limit: it may make btrfs subvolumes.",
            _restarted(name),
            name,
        )


def _restarted(name: str) -> str:
    return f"labshell-admin stop {name}; labshell-admin start {name}"


def _owner(item: Container, uids: Mapping[str, int]) -> Iterator[Finding]:
    name = item.name
    if name == trial.NAME:
        words = f"The container {name} is of a trial: one that runs now, or one that was killed."
        yield Finding("trial-left", NOTE, words, "labshell-admin doctor --try", name)
    if not item.owner or item.owner in uids:
        return
    words = f"The container {name} is marked as {item.owner}'s, who has no account."
    remedy = f"lxc delete --force {name}"
    if name == item.owner:
        words += " If the same user comes back: labshell-admin adopt; if not, this makes an archive of it."
        remedy = f"labshell-admin remove-user {name} --yes"
    elif name in uids:
        words += f" If it is {name}'s, this marks it."
        remedy = f"lxc config set {name} user.labshell.owner={name} user.labshell.uid={uids[name]}"
    else:
        words += " This deletes it, with everything in it."
    yield Finding("owner-gone", WARNING, words, remedy, name)


def _start(item: Container) -> Iterator[Finding]:
    """What keeps one from starting, or from the network."""
    name = item.name
    if item.needs_bridge_netfilter and not machine.has_bridge_netfilter():
        yield Finding(
            "bridge-netfilter",
            WARNING,
            f"The container {name} does not start with this host: its network device has "
            "security.ipv6_filtering, and the kernel module br_netfilter is not loaded. A start by labshell "
            "removes that setting.",
            _restarted(name),
            name,
        )
    if item.gpus_aside:
        yield Finding(
            "gpu-aside",
            ERROR,
            f"The container {name} runs without its GPU, which could not be had. Look at nvidia-smi here.",
            _restarted(name),
            name,
        )
    if item.state == "Running" and item.port_on_host and not machine.is_connected(item.port_on_host):
        words = f"The container {name} is connected to nothing: its port {item.port_on_host} is on no bridge."
        yield Finding("network-cut", ERROR, words, _restarted(name), name)


def _full_disks(lab: Lab, items: list[Container]) -> Iterator[Finding]:
    """A container whose own disk is full does not start, and its user can only delete while it runs."""
    limited = [(item, limit) for item in items if (limit := shown.bytes_of(item.disk_limit))]
    held = {pool: lab.containers.pools.held(pool) for pool in {item.pool for item, _ in limited}}
    for item, limit in limited:
        used = held[item.pool].get(item.name, 0)
        if limit - used < max(ROOM_BYTES, limit * (1 - FULL_OF_ONE)) and item.owner == item.name:
            larger = limit // GIB + max(1, limit // (10 * GIB))
            state = "it does not start" if item.state == "Stopped" else "it would not start again"
            yield Finding(
                "disk-full",
                ERROR,
                f"The disk of {item.name} is full ({used / limit:.0%} of {item.disk_limit}): {state}. "
                "This gives room and starts it; then its user deletes.",
                f"labshell-admin set {item.name} --disk {larger}GiB; labshell-admin start {item.name}",
                item.name,
            )


def _ssh(lab: Lab, item: Container) -> list[Finding]:
    """An SSH server that does not answer, or would not at the next start."""
    name = item.name
    if item.state == "Running":
        if not item.address:
            return []
        if ssh_answers(item.address):
            return _logind(lab, name)
        if item.started_at is not None and lab.clock.seconds() - item.started_at < BOOT_SECONDS:
            return []
        words = f"No SSH server answers in the container {name}: its user cannot log in through the port."
        return [Finding("ssh-away", ERROR, words, f"lxc exec {name} -- {ENABLE_SSH}", name)]
    if item.state != "Stopped" or not _is_ssh_disabled(lab, name):
        return []
    words = f"The SSH server of the container {name} does not start with it: a start waits for it in vain."
    remedy = f"lxc start {name}; sleep 5; lxc exec {name} -- {ENABLE_SSH}"
    return [Finding("ssh-disabled", ERROR, words, remedy, name)]


def _logind(lab: Lab, name: str) -> list[Finding]:
    try:
        if not lab.containers.inside.logind_failed(name):
            return []
    except LabshellError:
        return []
    words = f"systemd-logind has failed in the container {name}: each login through its port waits for it."
    return [Finding("logind-failed", WARNING, words, _restarted(name), name)]


def _is_ssh_disabled(lab: Lab, name: str) -> bool:
    """Whether a stopped container has systemd, and no SSH server that it starts. Nothing in there is opened."""
    inside = lab.containers.inside
    try:
        if inside.entry(name, str(UNITS)) is None:
            return False
        if inside.entry(name, "/etc/ssh/sshd_not_to_be_run") is not None:
            return True
        unit = inside.entry(name, str(UNITS / "ssh.service"))
        if unit is not None and unit.kind == "symlink":  # to /dev/null: masked
            return True
        return not any(inside.entry(name, str(UNITS / path)) for path in OF_SSH)
    except LabshellError:
        return False


def _left_snapshots(lab: Lab, item: Container) -> Iterator[Finding]:
    there = lab.containers.pools.snapshots_on_disk(item)
    known = {snapshot.name for snapshot in lab.containers.snapshots.of(item.name)} if there else set()
    for path in there:
        if path.name not in known and path.exists():  # it may have been deleted between the two looks
            yield Finding(
                "snapshot-left",
                ERROR,
                f"The engine did not finish the snapshot {path.name} of {item.name}, which it cannot delete now.",
                f"btrfs subvolume delete {shlex.quote(str(path))}",
                item.name,
            )
