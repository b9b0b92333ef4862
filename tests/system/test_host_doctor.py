"""labshell-admin doctor: each thing on the host that is not as it has to be is found, with its id and a remedy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testhost import CONFIG, POOL, Host

pytestmark = pytest.mark.root


def findings(host: Host) -> dict[str, dict[str, Any]]:
    """What is found, by id; the exit status is 1 if there is an error among it."""
    done = host.admin("doctor", "--json", check=False)
    found = {item["id"]: item for item in json.loads(done.stdout)}
    assert done.returncode == any(item["severity"] == "error" for item in found.values())
    return found


@contextlib.contextmanager
def broken(host: Host, change: str, back: str) -> Iterator[None]:
    """Broken while the block runs. What is only this host's is broken: of the kernel's limits a copy is lowered."""
    host.run(["sh", "-c", change])
    try:
        yield
    finally:
        host.run(["sh", "-c", back], check=False)  # the remedy has done it already, perhaps


def test_a_sound_host_has_nothing_to_find(host: Host, alice: str) -> None:
    host.admin("reconcile")
    host.recount_disks()
    assert findings(host) == {}
    assert host.admin("doctor").stdout == "No problems found.\n"


RECOUNT = f"btrfs quota rescan -w {POOL}"
THRESHOLD = f"/sys/fs/btrfs/$(findmnt --noheadings --output UUID {POOL})/qgroups/drop_subtree_threshold"
LEFT = Path(POOL, "containers-snapshots/bob/left")
NFT = "iptables-nft -w"
# The machine's own sshd is told to read its files again; and which template is meant only the administrator knows.
NOT_TYPED = ("template-missing", "sshd-open", "ports-overlap")
SHADOW = f"{POOL}/containers/template/rootfs/etc/shadow"


@pytest.mark.parametrize(
    ("id", "change", "back"),
    [
        ("ip-forward", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        (
            "inotify-few",
            "echo 4000 > /run/limit; mount --bind /run/limit /proc/sys/fs/inotify/max_user_instances",
            "umount /proc/sys/fs/inotify/max_user_instances",
        ),
        (
            "terminals-few",
            "echo 65000 > /run/limit; mount --bind /run/limit /proc/sys/kernel/pty/max",
            "umount /proc/sys/kernel/pty/max",
        ),
        ("dhcp-open", "lxc network unset lxdbr0 ipv4.dhcp.ranges", "lxc network set lxdbr0 ipv4.dhcp.ranges=10.83.0.240-10.83.0.254"),
        ("group-too-much", "groupadd -f docker; usermod -aG docker alice", "gpasswd -d alice docker"),
        ("shell-real", "usermod -s /bin/bash alice", "usermod -s /opt/labshell/bin/labshell alice"),
        ("home-writable", "chown alice /home/alice", "chown root /home/alice"),
        ("privileged", "lxc config set bob security.privileged=true", "lxc config set bob security.privileged=false"),
        ("ids-shared", "lxc config set bob security.idmap.isolated=false", "lxc config set bob security.idmap.isolated=true"),
        (
            "network-open",
            "lxc config device unset bob eth0 security.mac_filtering",
            "lxc config device set bob eth0 security.mac_filtering=true",
        ),
        (
            "disk-unbounded",  # as one of an earlier version is
            "lxc config device set bob root size=2GiB; lxc config unset bob security.syscalls.deny",
            "lxc config device unset bob root size",
        ),
        ("raw-config", "lxc config set bob raw.lxc=lxc.log.level=1", "lxc config unset bob raw.lxc"),
        ("owner-gone", "lxc config set bob user.labshell.owner=eve", "lxc config set bob user.labshell.owner=bob"),
        ("port-file-damaged", "cp /public/ports/bob /run/port; echo x > /public/ports/bob", "cp /run/port /public/ports/bob"),
        ("port-outside", "cp /public/ports/bob /run/port; echo 50000 > /public/ports/bob", "cp /run/port /public/ports/bob"),
        ("ports-overlap", "cp /public/ports/bob /run/port; cp /public/ports/alice /public/ports/bob", "cp /run/port /public/ports/bob; labshell-admin reconcile"),
        (
            "disk-limits-off",  # the kernel does not count while it drops more than it is told to
            f"lxc copy template counted; lxc config device override counted root size=1GiB; {RECOUNT}; echo 0 > {THRESHOLD}; "
            f"lxc delete counted; btrfs subvolume sync {POOL}; echo 3 > {THRESHOLD}",
            RECOUNT,
        ),
        (
            "snapshot-left",  # as LXD 5.0 leaves one on a full disk
            f"install -d -m 700 {LEFT.parent}; btrfs subvolume snapshot {POOL}/containers/bob {LEFT}",
            f"btrfs subvolume delete {LEFT}",
        ),
        (
            "mount-setuid",
            "mkdir -p /srv/lent; lxc config device add bob lent disk source=/srv/lent path=/lent",
            "lxc config device remove bob lent; umount /srv/lent; rmdir /srv/lent",
        ),
        (
            "template-missing",
            "cp /etc/labshell/labshell.toml /run/toml; sed -i '1i template = \"none-such\"' /etc/labshell/labshell.toml",
            "cp /run/toml /etc/labshell/labshell.toml",
        ),
        (
            "template-password",
            f"cp -a {SHADOW} /run/shadow; sed -i 's/^root:[^:]*/root:$6$x$y/' {SHADOW}",
            f"cp /run/shadow {SHADOW}",  # its owner is another since the remedy has started it
        ),
        (
            "sshd-open",
            "printf 'Match User alice\\nAllowTcpForwarding yes\\n' > /etc/ssh/sshd_config.d/00-aaa.conf",
            "rm /etc/ssh/sshd_config.d/00-aaa.conf",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_a_remedy_and_is_gone_when_it_is_right(
    host: Host, alice: str, bob: str, id: str, change: str, back: str
) -> None:
    with broken(host, change, back):
        found = findings(host)
        assert id in found
        assert found[id]["remedy"]
        assert found[id]["severity"] in ("error", "warning", "note")
        if id not in NOT_TYPED:
            host.run(["bash", "-c", found[id]["remedy"]], timeout=120)
            assert id not in findings(host)
    host.admin("reconcile")
    assert id not in findings(host)


def test_rules_that_differ_are_found_while_the_daemon_is_down(host: Host, alice: str) -> None:
    host.stop_daemon()
    host.run(["iptables-nft", "-w", "-D", "FORWARD", "-j", "LABSHELL-FORWARD"], check=False)  # from another test
    try:
        host.run(["iptables-legacy", "-w", "-t", "nat", "-F", "LABSHELL"])
        host.run(
            [
                "sh",
                "-c",
                "iptables-nft -w -N OTHER; iptables-nft -w -A FORWARD -j OTHER; iptables-nft -w -P FORWARD DROP",
            ]
        )
        found = findings(host)
        assert {"daemon-away", "rules-differ", "forward-drop"} <= set(found)
    finally:
        host.run(
            [
                "sh",
                "-c",
                "iptables-nft -w -P FORWARD ACCEPT; iptables-nft -w -D FORWARD -j OTHER; iptables-nft -w -X OTHER",
            ]
        )
        host.start_daemon()
    host.admin("reconcile")
    host.recount_disks()
    assert findings(host) == {}


def test_an_engine_that_is_away_is_a_finding_and_not_a_traceback(host: Host, alice: str) -> None:
    before = host.read(CONFIG)
    host.run(["tee", CONFIG], input='engine_socket = "/nowhere"\n')
    try:
        done = host.admin("doctor", check=False)
    finally:
        host.run(["tee", CONFIG], input=before)
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if not line.startswith(" ")] == ["engine-away"]
    assert "Traceback" not in done.stdout + done.stderr
