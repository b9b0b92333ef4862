"""A whole host with systemd as process 1, set up as shipped, that is rebooted and loses power.

It is a container of the test host's engine, with an engine of its own inside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator

import pytest
from testhost import CACHE, TREE, CommandFailed, Completed, Host, filling_cache, recipe, wait_until, wheels

pytestmark = pytest.mark.root
LAB = "lab-host"
PACKAGES = re.search(r"^packages=\((.*?)\)", (TREE / "scripts/setup-host").read_text(), re.MULTILINE | re.DOTALL)
# systemd expects cpu and cpuacct together; on a kernel with both kinds of control groups they may be apart.
CONTROL_GROUPS = """\
[Unit]
DefaultDependencies=no
Before=lxcfs.service lxd.service lxd.socket
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cd /sys/fs/cgroup; [ -L cpu ] || exit 0; mount -o remount,rw /sys/fs/cgroup; \
rm -f cpu cpuacct net_cls net_prio; rmdir cpu,cpuacct net_cls,net_prio hugetlb perf_event; \
mkdir cpu cpuacct; mount -t cgroup -o cpu cgroup cpu; mount -t cgroup -o cpuacct cgroup cpuacct'
[Install]
WantedBy=sysinit.target
"""


class Lab:
    """The host inside, reached through the outer engine."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def run(self, *argv: str, check: bool = True, input: str | None = None, timeout: float = 300) -> Completed:
        command = ["lxc", "exec", LAB, "--env", "LANG=C.UTF-8", "--", *argv]
        return self.host.run(command, check=check, input=input, timeout=timeout)

    def ssh(self, user: str, *command: str, port: int = 22, check: bool = True) -> Completed:
        options = (
            "-F none -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        )
        argv = ["ssh", *options.split(), "-i", "/root/.ssh/id_ed25519", "-p", str(port), f"{user}@localhost"]
        return self.run(*argv, *command, check=check)

    def port(self, user: str) -> int:
        return int(self.run("cat", f"/public/ports/{user}").stdout)

    def wait_for_boot(self) -> None:
        def is_up() -> bool:
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return state in ("running", "degraded")

        wait_until(is_up, 90)


@pytest.fixture(scope="module")
def lab(host: Host) -> Iterator[Lab]:
    """Set up, with a template, alice who runs, bob who is stopped, and a service."""
    rootfs = lab_rootfs(host)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(host.run, ["lxc", "image", "delete", LAB], check=False)
        cleanup.callback(host.run, ["lxc", "delete", "--force", LAB], check=False)
        metadata = host.client.folder / "metadata.yaml"
        archive = host.client.folder / "metadata.tar"
        metadata.write_text("architecture: x86_64\ncreation_date: 1700000000\nproperties: {description: lab}\n")
        host.run(["tar", "-C", str(metadata.parent), "-cf", str(archive), metadata.name])
        host.run(["lxc", "image", "import", str(archive), str(rootfs), "--alias", LAB], timeout=300)
        settings = ["-c", "security.nesting=true", "-c", "security.privileged=true"]
        host.run(["lxc", "init", LAB, LAB, *settings], timeout=300)
        for name, source in (("tree", TREE), ("wheels", wheels()), ("cache", CACHE)):
            device = [f"source={source}", f"path=/shipped/{name}", "readonly=true"]
            host.run(["lxc", "config", "device", "add", LAB, name, "disk", *device])
        inside = Lab(host)
        host.run(["lxc", "start", LAB])
        inside.wait_for_boot()
        inside.run("tee", "/etc/systemd/system/control-groups.service", input=CONTROL_GROUPS)
        inside.run("systemctl", "enable", "--now", "control-groups.service")
        inside.run("/shipped/tree/scripts/setup-host", "--wheels", "/shipped/wheels")
        inside.run("labshell-admin", "template", "build", "--rootfs", f"/shipped/cache/rootfs-{recipe()}.tar")
        inside.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
        for name in ("alice", "bob"):
            inside.run("labshell-admin", "add-user", name, "--key", "/root/.ssh/id_ed25519.pub")
        inside.run("labshell-admin", "add-service", "homepage", "--forward", "8088:22", "--autostart")
        inside.ssh("alice", "ports add 2222 --name second")
        inside.ssh("bob", "stop --yes")
        yield inside


def lab_rootfs(host: Host) -> object:
    """A Debian with everything that setup-host would install; made once and kept for other runs."""
    assert PACKAGES is not None
    packages = f"{PACKAGES.group(1)} lxd lxd-client lxcfs python3 openssh-client kmod".replace("\n", " ")
    number = hashlib.sha256(packages.encode()).hexdigest()[:8]
    rootfs = CACHE / f"lab-{recipe()}-{number}.tar"
    with filling_cache():
        if not rootfs.exists():
            part = rootfs.with_suffix(".part.tar")
            build = (
                f"from pathlib import Path; from labshell.engine import recipes, templates; recipes.EXTRAS['lab'] = {packages!r}; "
                f"templates.build_rootfs(Path('{part}'), recipes.Recipe(extras=('lab',), minimal=True))"
            )
            host.run(["/opt/labshell/venv/bin/python", "-Ic", build], outside_network=True, timeout=900)
            part.rename(rootfs)
            for older in sorted(CACHE.glob("lab-*.tar"), key=lambda path: path.stat().st_mtime)[:-1]:
                older.unlink()
    return rootfs


def test_the_daemon_runs_under_systemd_in_its_sandbox(lab: Lab) -> None:
    assert lab.run("systemctl", "is-active", "labshelld", "labshelld.socket").stdout == "active\nactive\n"
    assert lab.ssh("alice", "run hostname").stdout == "alice\n"
    assert lab.ssh("alice", "snapshot create one --json").returncode == 0
    assert lab.ssh("alice", "rebuild --yes --force --json").returncode == 0
    assert lab.ssh("alice", "rebuild undo --yes --force --json").returncode == 0
    journal = lab.run("journalctl", "-u", "labshelld", "-o", "cat", "--no-pager").stdout
    assert '"event": "ready"' in journal
    assert "Traceback" not in journal
    assert '"bug"' not in journal


def test_a_daemon_that_was_stopped_comes_with_the_next_request(lab: Lab) -> None:
    lab.run("systemctl", "stop", "labshelld.service")
    assert json.loads(lab.ssh("alice", "status --json").stdout)["user"] == "alice"
    lab.run("systemctl", "kill", "--signal=KILL", "labshelld.service")
    assert json.loads(lab.ssh("alice", "status --json").stdout)["user"] == "alice"


@pytest.mark.parametrize("how", ["reboot", "power loss"])
def test_after_a_reboot_everything_is_back_without_a_login(lab: Lab, how: str) -> None:
    lab.ssh("alice", "start")
    key = lab.ssh("alice", "known-hosts").stdout
    lab.ssh("alice", "run sh -c 'date > kept; sync'")
    lab.host.run(["lxc", "restart", LAB, *(["--force"] if how == "power loss" else [])], timeout=180)
    lab.wait_for_boot()

    def is_back() -> bool:
        try:
            return lab.ssh("alice", "cat kept", port=lab.port("alice")).returncode == 0
        except CommandFailed:
            return False

    wait_until(is_back, 90)
    keyscan = ["ssh-keyscan", "-4", "-t", "ed25519", "-p", "8088", "127.0.0.1"]
    wait_until(lambda: "ssh-ed25519" in lab.run(*keyscan, check=False).stdout, 60)
    assert lab.ssh("alice", "hostname", port=lab.port("alice")).stdout == "alice\n"
    assert lab.ssh("alice", "known-hosts").stdout == key
    people = {row["user"]: row for row in json.loads(lab.run("labshell-admin", "list", "--json").stdout)}
    assert {name: row["state"] for name, row in people.items()} == {"alice": "running", "bob": "stopped"}
    assert [row["problem"] for row in people.values()] == [None, None]
    forwards = json.loads(lab.ssh("alice", "ports --json").stdout)
    rules = lab.run("iptables-legacy", "-t", "nat", "-S", "LABSHELL").stdout
    assert rules.count("-A LABSHELL ") == 4  # alice's two, bob's, the service's
    assert f"--dport {forwards[0]['port']} " in rules
    bad = json.loads(lab.run("labshell-admin", "doctor", "--json", check=False).stdout)
    assert [found for found in bad if found["severity"] == "error"] == []


def test_archives_go_to_the_configured_folder_through_the_sandbox(lab: Lab) -> None:
    lab.run("sh", "-c", "sed -i '1i archive = \"/srv/archives\"' /etc/labshell/labshell.toml")
    lab.run("/shipped/tree/scripts/setup-host", "--wheels", "/shipped/wheels")
    answer = json.loads(lab.run("labshell-admin", "remove-user", "bob", "--yes", "--json").stdout)
    assert answer["archives"][0].startswith("/srv/archives/bob-")
    lab.run("labshell-admin", "restore-user", answer["archives"][0])
    assert lab.ssh("bob", "run hostname").stdout == "bob\n"


def test_uninstall_leaves_a_host_without_us(lab: Lab) -> None:
    lab.run("/shipped/tree/scripts/uninstall", "--yes")
    units = lab.run("systemctl", "list-unit-files", "labshell*", "--no-legend", check=False).stdout
    assert (units, lab.run("id", "alice", check=False).returncode) == ("", 1)
    assert "LABSHELL" not in lab.run("iptables-legacy-save").stdout
