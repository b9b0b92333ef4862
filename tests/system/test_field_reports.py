"""The five field reports that labshell replaces, row by row: each test is named for what a lab built by hand.

They are short and use what is there as its people would; the files beside this one go deeper. What needs hardware that
this machine has not got says so. docs/field-reports.md is the table of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pexpect
import pytest
import test_adoption
import test_forwarding
from test_adoption import hank  # noqa: F401 - a fixture
from test_documented_commands import commands
from test_forwarding import banner_from, banner_from_container
from test_idle_stop import let_pass, looked
from test_services import fetch, page  # noqa: F401 - page is a fixture
from test_templates_of_containers import PUBLISHED, published  # noqa: F401 - a fixture
from test_transfers import address, client, settings
from test_ways_in import labs_own_network
from testhost import ENVIRONMENT, TREE, Client, Completed, Host, wait_until

pytestmark = pytest.mark.root
SHARED = ("/srv/nas", "/srv/data")


@pytest.fixture(scope="module")
def fred(host: Host) -> Iterator[str]:
    """A researcher with everything that a profile can give: mounts, Docker, a desktop, limits."""
    host.run(["mkdir", "-p", *SHARED])
    host.run(["sh", "-c", "echo results > /srv/nas/results; echo images > /srv/data/images"])
    mounts = ["--mount", "/srv/nas:/nas:noshift", "--mount", "/srv/data:/data:ro:noshift"]
    limits = ["--disk", "2GiB", "--memory", "1GiB", "--processes", "500"]
    key = host.client.make_key("fred").with_suffix(".pub")
    host.admin("add-user", "fred", "--key", str(key), *mounts, *limits, "--nesting")
    port = host.ssh_port("fred")
    host.admin("set", "fred", "--desktop-port", str(port + 9))
    yield "fred"
    host.remove_user("fred")
    host.run(["rm", "-r", *SHARED])


@pytest.fixture(scope="module")
def fay(host: Host) -> Iterator[str]:
    """A researcher with what everybody gets."""
    host.add_user("fay")
    yield "fay"
    host.remove_user("fay")


@pytest.fixture(scope="module")
def desktop(host: Host) -> Iterator[str]:
    """A service as report 1 had one for a desktop: host port 10000 leads to VNC. 10001 is its SSH server."""
    host.admin("add-service", "desktop", "--forward", "10000:5901", "--forward", "10001:22", "--autostart")
    yield "desktop"
    host.admin("remove-service", "desktop", "--yes")


@pytest.fixture(scope="module")
def finn(host: Host) -> Iterator[str]:
    """A researcher with a password, a port of their choice and a template that has a proxy device: what was said."""
    ends = ["listen=tcp:127.0.0.1:7001", "connect=tcp:127.0.0.1:22"]
    host.run(["lxc", "copy", "template", "forwarded"])
    host.run(["lxc", "config", "device", "add", "forwarded", "old", "proxy", *ends])
    key = host.client.make_key("finn").with_suffix(".pub")
    wanted = ["--password", "--port", "29000", "--template", "forwarded"]
    yield host.admin("add-user", "finn", "--key", str(key), *wanted).stdout
    host.remove_user("finn")
    host.run(["lxc", "delete", "--force", "forwarded"])


@pytest.fixture(scope="module")
def ann_and_joann(host: Host) -> Iterator[tuple[int, int]]:
    """Two people who were added at the same time, where the range of ports is almost at its end: their ports."""
    before, names = host.read("/public/next-port"), ("ann", "joann")
    keys = [str(host.client.make_key(name).with_suffix(".pub")) for name in names]
    host.run(["tee", "/public/next-port"], input="29990\n")
    adding = [
        subprocess.Popen(
            host.argv(["labshell-admin", "add-user", name, "--key", key]), stdout=subprocess.DEVNULL, env=ENVIRONMENT
        )
        for name, key in zip(names, keys, strict=True)
    ]
    assert [process.wait(90) for process in adding] == [0, 0]
    host.run(["tee", "/public/next-port"], input=before)
    yield host.ssh_port("ann"), host.ssh_port("joann")
    for name in names:
        host.admin("remove-user", name, "--yes", "--no-archive", check=False)


class Boot(NamedTuple):
    """Everybody's address and port before and after, and whether somebody runs who did not run before."""

    before: dict[str, Any]
    after: dict[str, Any]
    state_of_stopped: str


@pytest.fixture(scope="module")
def after_boot(host: Host, fred: str, fay: str, desktop: str) -> Boot:
    """Engine, daemon and all containers stopped, the rules wiped, and both started. fay ran before, fred did not."""
    host.client.ssh(fred, "stop --yes", check=True)
    host.client.ssh(fay, "start", check=True)
    before = addresses_and_ports(host)
    banner = banner_from(host.client, host.client.gateway, 10001)
    assert (desktop, banner[:8]) == ("desktop", "SSH-2.0-")
    host.stop_daemon()
    host.run(["lxd", "shutdown", "--timeout", "60"], timeout=90)
    for wipe in ("iptables-legacy -t nat -F", "iptables-legacy -F", "nft flush ruleset"):
        host.run(wipe.split())
    start = f". {TREE}/scripts/steps.bash; start_by_hand lxd lxd --group lxd --logfile=/var/log/lxd/lxd.log"
    host.run(["bash", "-euo", "pipefail", "-c", f"{start}; wait_until 60 lxc query /1.0"], timeout=90)
    host.start_daemon()
    wait_until(lambda: show(host, fay)["state"] == "running", 30)
    boot = Boot(before, addresses_and_ports(host), show(host, fred)["state"])
    host.client.ssh(fred, "start", check=True)
    return boot


def addresses_and_ports(host: Host) -> dict[str, Any]:
    rows = json.loads(host.admin("list", "--json").stdout)
    return {row["user"]: (row["address"], row["port"]) for row in rows}


@contextlib.contextmanager
def elsewhere(host: Host, port: int) -> Iterator[None]:
    """A server outside that answers "elsewhere" at this port."""
    serve = f"$s=IO::Socket::INET->new(Listen=>5,LocalPort=>{port},ReuseAddr=>1);while($c=$s->accept){{print $c qq(elsewhere\\n);close $c}}"
    with host.other.background(["timeout", "30", "perl", "-MIO::Socket", "-e", serve]):
        wait_until(lambda: host.other.run(["ss", "-Hltn", f"sport = {port}"]).stdout, 5)
        yield


# Counts what root and researchers on this host ask a name server; what containers ask comes from somebody else.
ASKED = """
table ip asked {
  chain output {
    type filter hook output priority 0; policy accept;
    ip daddr 198.18.0.9 meta skuid { 0, 30000-59999 } counter
  }
}
"""


def key_at(host: Host, port: int) -> str:
    """The SSH host key that a client is shown at a port of the gateway."""
    scan = ["ssh-keyscan", "-v", "-T", "30", "-t", "ed25519", "-p", str(port), host.client.gateway]
    return host.client.run(scan).stdout.split()[-1]


def inside(host: Host, user: str, line: str, *, check: bool = True) -> str:
    """What a line for the shell prints in somebody's container, asked over the forwarded port."""
    return host.client.ssh(user, line, port=host.ssh_port(user), check=check).stdout


def instance(host: Host, name: str) -> dict[str, Any]:
    return dict(json.loads(host.run(["lxc", "query", f"/1.0/instances/{name}"]).stdout))


def show(host: Host, name: str) -> dict[str, Any]:
    return dict(json.loads(host.admin("show", name, "--json").stdout))


# Report 1, 2017: LXC on Ubuntu 14.04 --------------------------------------------------------------------


def test_report_1_gpus_are_given_to_a_container_that_starts_without_them_too(host: Host, fay: str) -> None:
    """No NVIDIA hardware here: shown are the device, the start that does not fail, and the sentence."""
    host.client.ssh(fay, "stop --yes", check=True)
    host.admin("set", fay, "--gpus", "all")
    try:
        assert [device["type"] for device in instance(host, fay)["devices"].values()].count("gpu") == 1
        done = host.client.ssh(fay, "start", check=True)
        assert "runs without its GPU" in done.stdout + done.stderr
        assert inside(host, fay, "hostname") == "fay\n"
    finally:
        host.admin("set", fay, "--gpus", "none")


@pytest.mark.usefixtures("page")
def test_report_1_a_service_belongs_to_nobody_and_starts_at_boot(host: Host) -> None:
    wait_until(lambda: fetch(host) == "home page\n", 10)
    assert instance(host, "homepage")["config"]["boot.autostart"] == "true"
    assert host.run(["id", "homepage"], check=False).returncode != 0


@pytest.mark.usefixtures("page")
def test_report_1_a_service_is_backed_up_and_moved_whole(host: Host) -> None:
    host.run(["lxc", "export", "homepage", "/root/homepage.tar", "--compression", "none"], timeout=120)
    host.run(["lxc", "delete", "--force", "homepage"])
    host.admin("reconcile")
    assert "--dport 80 " not in host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
    host.run(["lxc", "import", "/root/homepage.tar"], timeout=120)
    host.run(["rm", "/root/homepage.tar"])
    host.run(["lxc", "start", "homepage"])
    [row] = json.loads(host.admin("list-services", "--json").stdout)
    assert (row["state"], row["forwards"]) == ("running", ["80:8080"])
    wait_until(lambda: "--dport 80 " in host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout)


def test_report_1_a_service_container_runs_again_after_a_boot_and_is_reached(host: Host, after_boot: Boot) -> None:
    assert after_boot.before
    wait_until(lambda: banner_from(host.client, host.client.gateway, 10001).startswith("SSH-2.0-"), 30)


def test_report_1_port_10000_of_the_host_leads_to_vnc(host: Host, desktop: str) -> None:
    """A stand-in listens where a VNC server would: the desktop itself is a download."""
    serve = "$s=IO::Socket::INET->new(Listen=>5,LocalPort=>5901,ReuseAddr=>1);while($c=$s->accept){print $c qq(RFB 003.008\\n);close $c}"
    line = f"setsid timeout 30 perl -MIO::Socket -e '{serve}' >/dev/null 2>&1 </dev/null &"
    host.run(["lxc", "exec", desktop, "--", "sh", "-c", line])
    wait_until(lambda: banner_from(host.client, host.client.gateway, 10000) == "RFB 003.008", 10)


def test_report_1_a_port_of_the_host_leads_to_a_desktop(host: Host, fred: str) -> None:
    """Report 4's 60611 -> 3389, too. A stand-in listens where xrdp would: the desktop itself is a download."""
    listener = "perl -MIO::Socket -e '$s=IO::Socket::INET->new(Listen=>1,LocalPort=>3389,ReuseAddr=>1);$c=$s->accept;print $c \"desktop\\n\"'"
    with host.client.background(host.client.ssh_argv(fred, f"run timeout 20 {listener}")):
        port = host.ssh_port(fred) + 9
        wait_until(lambda: banner_from(host.client, host.client.gateway, port) == "desktop", 15)


@pytest.mark.usefixtures("page")
def test_report_1_port_80_of_the_host_captures_nobody_elses_web_traffic(host: Host, fay: str) -> None:
    line = "perl -MIO::Socket -e '$s=IO::Socket::INET->new(Listen=>1,LocalPort=>80);$c=$s->accept;print $c qq(elsewhere\\n)'"
    with host.other.background(["timeout", "20", "sh", "-c", line]):
        wait_until(lambda: host.other.run(["ss", "-Hltn", "sport = 80"]).stdout, 5)
        assert banner_from_container(host, fay, host.other.address, 80) == "elsewhere"


# Report 2, 2020: LXC and the login shell ----------------------------------------------------------------


def test_report_2_a_login_starts_the_container_and_says_how_to_connect(host: Host, fay: str) -> None:
    host.client.ssh(fay, "stop --yes", check=True)
    card = host.client.ssh(fay, check=True).stdout
    port = host.read("/public/ports/fay").strip()
    assert f"ssh -p {port} fay@gateway" in card
    assert int(host.read("/public/next-port")) > int(port)
    assert inside(host, fay, "hostname") == "fay\n"


def test_report_2_users_are_root_inside_and_do_not_disturb_each_other(host: Host, fred: str, fay: str) -> None:
    assert inside(host, fay, "sudo id -u") == "0\n"
    assert inside(host, fay, "ls /home").split() == ["fay"]
    inside(host, fay, "nohup sleep 4321 >/dev/null 2>&1 &")
    assert "sleep 4321" not in inside(host, fred, "sudo ps -e -o args")
    assert banner_from_container(host, fay, show(host, fred)["address"], 22) == ""


def test_report_2_the_network_is_free_to_the_outside(host: Host, fay: str) -> None:
    assert banner_from_container(host, fay, host.other.address, 1) == ""
    listener = ["timeout", "20", "perl", "-MIO::Socket", "-e"]
    greet = "$s=IO::Socket::INET->new(Listen=>1,LocalPort=>9999);$c=$s->accept;print $c qq(outside\\n)"
    with host.other.background([*listener, greet]):
        wait_until(lambda: host.other.run(["ss", "-Hltn", "sport = 9999"]).stdout, 5)
        assert banner_from_container(host, fay, host.other.address, 9999) == "outside"


def test_report_2_users_have_nothing_on_the_host(host: Host, fay: str) -> None:
    """Report 5's "no rights on the host", and the ancestors' groups sudo and lxd."""
    done = host.client.ssh(fay, "cat /etc/shadow")
    assert (done.returncode, done.stdout) == (2, "")
    assert host.client.ssh(fay, "run hostname", check=True).stdout == "fay\n"
    assert host.run(["id", "-nG", fay]).stdout == "labshell\n"
    assert "not allowed to run sudo" in host.run(["sudo", "-l", "-U", fay], check=False).stdout
    forward = host.client.ssh_argv(fay, options=["-W", "127.0.0.1:22"])
    assert "SSH-2.0" not in host.client.run(forward, check=False).stdout


def test_report_2_a_gpu_is_shared_by_several_at_once(host: Host, fred: str, fay: str) -> None:
    """Report 5's four cards for everybody, too. No such GPU here: shown is that nobody has it alone."""
    for user in (fred, fay):
        host.client.ssh(user, "stop --yes", check=True)
        for number, pci in enumerate(("0000:01:00.0", "0000:02:00.0")):
            device = [f"labshell-gpu{number}", "gpu", "gputype=physical", f"pci={pci}"]
            host.run(["lxc", "config", "device", "add", user, *device])
    try:
        rows = {row["user"]: row["gpus"] for row in json.loads(host.admin("list", "--json").stdout)}
        assert rows[fred] == rows[fay] == "0000:01:00.0,0000:02:00.0"
    finally:
        for user in (fred, fay):
            host.admin("set", user, "--gpus", "none")
            host.client.ssh(user, "start", check=True)


def test_report_2_overhead_is_negligible_since_labshell_is_not_on_the_way(host: Host, fay: str) -> None:
    """A connection to the port goes on and a new one arrives while there is no daemon and nothing of fay's runs."""
    host.stop_daemon()
    try:
        assert inside(host, fay, "hostname") == "fay\n"
        assert host.run(["pgrep", "-u", fay], check=False).stdout == ""
    finally:
        host.start_daemon()


def test_report_2_a_short_guide_tells_users_the_same_as_the_card(host: Host, fay: str) -> None:
    port = host.ssh_port(fay)
    first, second, copy, *_ = commands("docs/user-guide.md")
    assert first == "ssh alice@gpu1"
    card = host.client.ssh(fay, check=True).stdout
    assert second.replace("20010", str(port)).replace("alice@gpu1", "fay@gateway") in card
    assert copy.replace("20010", str(port)).replace("alice@gpu1", "fay@gateway").replace("data.csv", "FILE") in card
    assert len((TREE / "docs/user-guide.md").read_text().splitlines()) < 250


def test_report_2_a_nas_that_the_host_mounts_is_given_to_a_running_container(host: Host, fay: str) -> None:
    """A file system of its own stands in for NFS, which needs a server."""
    host.run(["mkdir", "-p", "/srv/nfs"])
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/srv/nfs"])
    try:
        host.run(["sh", "-c", "echo from the NAS > /srv/nfs/file"])
        host.admin("set", fay, "--mount", "/srv/nfs:/nas:noshift")
        assert inside(host, fay, "cat /nas/file") == "from the NAS\n"
        host.admin("set", fay, "--mount", "none")
        assert host.client.ssh(fay, "cat /nas/file", port=host.ssh_port(fay)).returncode != 0
    finally:
        host.run(["sh", "-c", "umount /srv/nfs && rmdir /srv/nfs"])


def test_report_2_a_nas_folder_of_the_host_is_in_the_container(host: Host, fred: str) -> None:
    """Reports 3 and 4: /data, and a shared directory."""
    assert inside(host, fred, "cat /nas/results /data/images") == "results\nimages\n"
    assert host.client.ssh(fred, "sudo touch /data/x", port=host.ssh_port(fred)).returncode != 0


def test_report_2_a_folder_that_is_missing_does_not_keep_a_container_from_starting(host: Host, fred: str) -> None:
    host.run(["mv", "/srv/nas", "/srv/away"])
    try:
        host.client.ssh(fred, "restart --yes", check=True)
        assert inside(host, fred, "cat /data/images") == "images\n"
    finally:
        host.run(["mv", "/srv/away", "/srv/nas"])
        host.client.ssh(fred, "restart --yes", check=True)


def test_report_2_scripts_add_a_person_and_delete_them(host: Host) -> None:
    key = host.client.make_key("flo").with_suffix(".pub")
    host.script("add-user", "flo", "--key", str(key))
    assert inside(host, "flo", "whoami") == "flo\n"
    host.script("remove-user", "flo", "--yes", "--no-archive")
    assert host.run(["id", "flo"], check=False).returncode != 0
    assert not host.exists("/public/ports/flo")


def test_report_2_a_clone_is_a_machine_of_its_own(host: Host, fred: str, fay: str) -> None:
    """Wish 8, and the ancestors' shared host keys: hardware address, id map, machine id, host keys, name."""

    def identity(user: str) -> list[str]:
        config = instance(host, user)["config"]
        files = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ecdsa_key.pub"
        return [
            config["volatile.eth0.hwaddr"],
            config["volatile.idmap.base"],
            *inside(host, user, files).splitlines(),
        ]

    assert set(identity(fred)).isdisjoint(identity(fay))
    assert "template" not in inside(host, fay, "cat /etc/hosts /etc/hostname")


def test_report_2_gpu_devices_that_are_missing_after_boot_are_made(host: Host) -> None:
    """/dev/nvidia-uvm; report 5's repair of libnvidia-container. With stand-ins for NVIDIA's tools, which see no GPU."""
    unit = host.read("/etc/systemd/system/labshell-gpus.service")
    assert re.search(r"^Before=.*\blxd\.service", unit, re.MULTILINE)
    tools = "for tool in nvidia-modprobe nvidia-container-cli; do printf '#!/bin/sh\\necho $0 $* >> /tmp/gpus\\n' > /usr/local/bin/$tool; chmod 755 /usr/local/bin/$tool; done"
    host.run(["sh", "-c", tools])
    try:
        host.run(["/opt/labshell/bin/prepare-gpus"])
        assert "nvidia-modprobe -u -c 0\n" in host.read("/tmp/gpus")
        assert "nvidia-container-cli --load-kmods info\n" in host.read("/tmp/gpus")
    finally:
        host.run(["sh", "-c", "rm -f /tmp/gpus /usr/local/bin/nvidia-*"])


def test_report_2_before_a_driver_upgrade_it_is_known_whom_it_touches(host: Host, fay: str) -> None:
    touched = {row["name"] for row in json.loads(host.admin("drain", "--plan", "--json").stdout)["containers"]}
    assert fay in touched
    host.client.ssh(fay, "stop --yes", check=True)
    host.admin("drain", "--message", "new driver until six.")
    try:
        done = host.client.ssh(fay, "start")
        assert (done.returncode, "new driver until six" in done.stderr) == (75, True)
    finally:
        host.admin("undrain")
    host.client.ssh(fay, "start", check=True)


# Report 3, 2023: LXD 5.0, bridged -----------------------------------------------------------------------


def test_report_3_a_container_on_the_labs_own_network_needs_no_port(host: Host) -> None:
    with contextlib.ExitStack() as cleanup:
        lab = labs_own_network(host, cleanup)
        cleanup.enter_context(host.configured('forwarding = "none"\nnetwork = "br0"'))
        key = lab.make_key("flora").with_suffix(".pub")
        host.admin("add-user", "flora", "--key", str(key))
        cleanup.callback(host.remove_user, "flora")
        address = json.loads(lab.ssh("flora", "status --json", check=True).stdout)["address"]
        assert address.startswith("198.18.6.")
        assert f"ssh flora@{address}\n" in lab.ssh("flora", check=True).stdout
        there = Client(lab.pid, lab.address, address, lab.folder)
        assert there.ssh("flora", "hostname", check=True).stdout == "flora\n"


def test_report_3_containers_reach_the_outside_under_ufw_without_a_rule_by_hand(host: Host, fay: str) -> None:
    """Wish 5, too: ufw and Docker leave the FORWARD policy at DROP."""
    host.run(["iptables", "-P", "FORWARD", "DROP"])
    try:
        host.admin("reconcile")
        with elsewhere(host, 8080):
            assert banner_from_container(host, fay, host.other.address, 8080) == "elsewhere"
        assert inside(host, fay, "hostname") == "fay\n"
    finally:
        host.run(["iptables", "-P", "FORWARD", "ACCEPT"])


@pytest.mark.parametrize(
    ("options", "packages", "left_out"),
    [
        ([], {"git", "vim", "nano", "python3", "locales", "xauth", "wget", "unzip"}, {"docker.io"}),
        (["--minimal"], {"less", "rsync"}, {"git", "vim", "locales"}),
        (["--with", "desktop"], {"git", "xfce4", "xrdp"}, {"docker.io"}),
        (["--with", "docker", "--minimal"], {"docker.io"}, {"git", "xrdp"}),
    ],
    ids=["usual", "minimal", "desktop", "docker"],
)
def test_report_3_a_template_with_a_desktop_or_docker_is_one_command(
    host: Host, options: list[str], packages: set[str], left_out: set[str]
) -> None:
    """Shown is what is asked of mmdebstrap, by a stand-in for it: the packages are hundreds of megabytes."""
    host.run(["tee", "/usr/local/bin/mmdebstrap"], input='#!/bin/sh\necho "asked: $*" >&2\nexit 1\n')
    host.run(["chmod", "755", "/usr/local/bin/mmdebstrap"])
    try:
        done = host.admin("template", "build", "--name", "wanted", *options, check=False)
        refused = host.admin("template", "build", "--rootfs", "/dev/null", "--minimal", check=False)
    finally:
        host.run(["rm", "/usr/local/bin/mmdebstrap"])
    asked = re.search(r"asked: .*--include=(\S+)", done.stderr)
    assert asked is not None, done.stderr
    assert packages | {"openssh-server", "sudo"} <= set(asked.group(1).split(","))
    assert left_out.isdisjoint(asked.group(1).split(","))
    assert (refused.returncode, "--rootfs is used as it is" in refused.stderr) == (2, True)


def test_report_3_a_row_says_name_desktop_or_not_docker_or_not(host: Host) -> None:
    key = host.client.make_key("flora").with_suffix(".pub").read_text().strip()
    wishes = host.client.folder / "wishes.csv"
    wishes.write_text(f"name,key,port,desktop-port,nesting\nflora,{key},29010,29015,yes\n")
    try:
        host.admin("import", str(wishes))
        assert instance(host, "flora")["config"]["security.nesting"] == "true"
        assert show(host, "flora")["forwards"] == ["29015 -> 3389 desktop"]
        assert inside(host, "flora", "whoami") == "flora\n"
    finally:
        host.admin("remove-user", "flora", "--yes", "--no-archive", check=False)


def test_report_3_a_container_cannot_use_more_disk_than_it_has(host: Host, fred: str) -> None:
    """Wish 9. btrfs here; zfs has no module in this kernel."""
    host.recount_disks()  # so that the limit is in force
    script = "dd if=/dev/urandom of=big bs=1M count=2200 2>&1; stat -c %s big; rm -f big"
    done = host.client.ssh(fred, script, port=host.ssh_port(fred), timeout=120)
    assert "Disk quota exceeded" in done.stdout
    assert inside(host, fred, "echo room > again; cat again") == "room\n"


@pytest.mark.usefixtures("published")
def test_report_3_several_templates_are_published_and_chosen_from(host: Host, fay: str) -> None:
    inside(host, fay, "sudo touch /opt/from-fay")
    host.admin("template", "publish", fay, PUBLISHED)
    assert PUBLISHED in host.admin("template", "list").stdout
    key = host.client.make_key("flora").with_suffix(".pub")
    host.admin("add-user", "flora", "--key", str(key), "--template", PUBLISHED)
    try:
        assert inside(host, "flora", "ls /opt; whoami") == "from-fay\nflora\n"
    finally:
        host.remove_user("flora")


def test_report_3_docker_needs_no_privileged_container(host: Host, fred: str) -> None:
    """Namespaces and an overlay inside, as Docker makes them; Docker itself is a download."""
    config = instance(host, fred)["config"]
    assert (config["security.nesting"], config["security.privileged"]) == ("true", "false")
    overlay = "mkdir -p l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && echo mounted"
    script = f"cd $(mktemp -d) && unshare --mount --pid --fork sh -c '{overlay}'"
    assert inside(host, fred, f"sudo sh -c {json.dumps(script).replace('$', chr(92) + '$')}") == "mounted\n"


def test_report_3_a_password_is_each_ones_own_and_changed_at_the_first_login(host: Host, finn: str) -> None:
    """Report 4's initial password per clone; report 5's "a host port, an account, a password"."""
    assert "password must be changed" in host.client.ssh("finn", "run sudo chage --list finn").stdout
    assert "Password change required" in host.client.ssh("finn", "id", port=host.ssh_port("finn")).stderr
    assert re.search(r"to be changed at the first login: \S{12,}\n", finn)


def test_report_3_the_hosts_own_sshd_may_be_on_another_port(host: Host, fay: str) -> None:
    host.run(["/usr/sbin/sshd", "-p", "33", "-o", "PidFile=/run/sshd-33.pid"])
    try:
        with host.configured("ssh_port = 33"):
            assert "    Port 33\n" in host.client.ssh(fay, "ssh-config", port=33, check=True).stdout
            assert "[gateway]:33 ssh-ed25519" in host.client.ssh(fay, "known-hosts", port=33, check=True).stdout
    finally:
        host.run(["sh", "-c", "kill $(cat /run/sshd-33.pid)"])


def test_report_3_a_person_moves_with_everything_as_one_file(host: Host) -> None:
    host.add_user("flora")
    inside(host, "flora", "echo thesis > thesis")
    before = (host.ssh_port("flora"), host.client.ssh("flora", "keys --json", check=True).stdout)
    archive = json.loads(host.admin("remove-user", "flora", "--yes", "--json").stdout)["archives"][0]
    assert host.run(["lxc", "info", "flora"], check=False).returncode != 0
    host.admin("restore-user", archive)
    try:
        assert inside(host, "flora", "cat thesis") == "thesis\n"
        assert (host.ssh_port("flora"), host.client.ssh("flora", "keys --json", check=True).stdout) == before
    finally:
        host.run(["rm", archive])
        host.remove_user("flora")


# Report 4, 2020: LXD proxy devices ----------------------------------------------------------------------

test_report_4_containers_with_two_proxy_devices_are_taken_over = (
    test_adoption.test_proxy_devices_become_rules_at_the_same_port_and_others_stay
)
test_report_2_the_old_schemes_files_and_rules_are_taken_over = (
    test_adoption.test_port_files_and_rules_of_the_old_scheme_keep_their_number
)


def test_report_4_ports_may_be_proxy_devices_on_one_address_of_the_host(host: Host, fay: str) -> None:
    host.client.ssh(fay, "ports add 8081 --from 192.0.2.0/24", check=True)
    with host.configured(f'forwarding = "lxd-proxy"\nlisten_address = "{host.client.gateway}"'):
        host.client.ssh(fay, "start", check=True)
        # The engine's devices cannot limit who connects: what was for one network only is not opened to everybody.
        assert len([device for device in instance(host, fay)["devices"].values() if device["type"] == "proxy"]) == 1
        assert host.admin("reconcile").stdout == "Firewall rules are up to date.\n"
        host.client.ssh(fay, "ports remove 8081", check=True)
        host.client.ssh(fay, "ports add 3389", check=True)
        devices = [name for name, about in instance(host, fay)["devices"].items() if about["type"] == "proxy"]
        port = host.ssh_port(fay)
        assert devices == [f"labshell-port-{port}", f"labshell-port-{port + 1}"]
        assert inside(host, fay, "hostname") == "fay\n"
        assert banner_from(host.other, host.other.gateway, port) == "ConnectionRefusedError"
        host.client.ssh(fay, "ports remove 3389", check=True)
    wait_until(lambda: "proxy" not in json.dumps(instance(host, fay)["devices"]), 10)
    wait_until(lambda: banner_from(host.client, host.client.gateway, host.ssh_port(fay)).startswith("SSH-2.0-"))
    assert inside(host, fay, "hostname") == "fay\n"


def test_report_4_each_ones_ports_lie_together_and_the_next_ones_begin_after_them(
    host: Host, fred: str, fay: str
) -> None:
    """As 60601 and 60611 of one user, and 60621 of the next."""
    blocks = {user: set(range(host.ssh_port(user), host.ssh_port(user) + 10)) for user in (fred, fay)}
    assert blocks[fred].isdisjoint(blocks[fay])
    [desktop_port] = [int(text.split()[0]) for text in show(host, fred)["forwards"]]
    assert desktop_port in blocks[fred]
    taken = host.admin("set", fay, "--desktop-port", str(desktop_port), check=False)
    assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)


def test_report_4_one_gpu_of_several_is_chosen_by_its_address(host: Host, fay: str) -> None:
    """No such GPU here: it is refused, and a container that had it starts without it."""
    host.client.ssh(fay, "stop --yes", check=True)
    address = "0000:01:00.0"
    done = host.admin("set", fay, "--gpus", address, check=False)
    assert done.stderr.startswith(f"labshell-admin: There is no GPU {address}; this host has: ")
    device = ["labshell-gpu0", "gpu", "gputype=physical", f"pci={address}"]
    host.run(["lxc", "config", "device", "add", fay, *device])
    assert host.admin("start", fay).stdout.endswith(f"{fay} is running.\n")  # without it, whatever the engine said
    host.admin("set", fay, "--gpus", "none")
    assert "labshell-gpu0" not in instance(host, fay)["devices"]
    host.client.ssh(fay, "start", check=True)


@pytest.mark.usefixtures("finn")
def test_report_4_a_templates_proxy_devices_are_not_in_its_clones(host: Host) -> None:
    """finn's template is a stopped container that was copied with lxc and has one."""
    assert "7001" in json.dumps(instance(host, "forwarded")["devices"])
    assert "7001" not in json.dumps(instance(host, "finn")["expanded_devices"])


def test_report_4_an_overview_of_all_containers_for_people_and_programs(host: Host, fred: str, fay: str) -> None:
    rows = {row["user"]: row for row in json.loads(host.admin("list", "--sort", "memory", "--json").stdout)}
    assert {rows[fred]["state"], rows[fay]["state"]} == {"running"}
    assert fay in host.admin("list").stdout


# Report 5, 2019: nvidia.runtime -------------------------------------------------------------------------


@pytest.mark.usefixtures("finn")
def test_report_5_each_gets_a_host_port_of_their_choice(host: Host) -> None:
    assert host.ssh_port("finn") == 29000
    assert banner_from(host.client, host.client.gateway, 29000).startswith("SSH-2.0-")


def test_report_5_the_hosts_driver_is_used_and_none_is_installed_inside(host: Host, fay: str) -> None:
    """Wish 3, too: a stand-in for libnvidia-container fails as the real one does after a reboot; no GPU here."""
    stand_in = "#!/bin/sh\necho nvidia-container-cli: initialization error >&2\nexit 1\n"
    host.run(["tee", "/usr/local/bin/nvidia-container-cli"], input=stand_in)
    host.run(["chmod", "755", "/usr/local/bin/nvidia-container-cli"])
    try:
        with host.configured("nvidia_runtime = true"):
            host.client.ssh(fay, "stop --yes", check=True)
            host.admin("set", fay, "--gpus", "all")
            assert instance(host, fay)["config"]["nvidia.runtime"] == "true"
            done = host.client.ssh(fay, "start", check=True)
            assert "runs without its GPU" in done.stdout + done.stderr
            assert json.loads(host.client.ssh(fay, "status --json", check=True).stdout)["state"] == "running"
    finally:
        host.admin("set", fay, "--gpus", "none")
        host.run(["rm", "/usr/local/bin/nvidia-container-cli"])


def test_report_5_a_gpu_that_cannot_be_prepared_is_named_in_the_log_of_the_boot(host: Host) -> None:
    """A stand-in for nvidia-container-cli, which fails as the real one does after a reboot."""
    host.run(["tee", "/usr/local/bin/nvidia-container-cli"], input="#!/bin/sh\nexit 1\n")
    host.run(["chmod", "755", "/usr/local/bin/nvidia-container-cli"])
    try:
        done = host.run(["/opt/labshell/bin/prepare-gpus"], check=False)
        assert (done.returncode, done.stderr) == (1, "failed: nvidia-container-cli --load-kmods info\n")
    finally:
        host.run(["rm", "/usr/local/bin/nvidia-container-cli"])
    assert host.run(["/opt/labshell/bin/prepare-gpus"]).stderr == ""


def test_report_5_after_a_boot_whoever_ran_runs_and_whoever_was_stopped_is_stopped(
    host: Host, after_boot: Boot
) -> None:
    """No script with a list of names and a password in it."""
    assert after_boot.state_of_stopped == "stopped"
    wait_until(lambda: banner_from(host.client, host.client.gateway, host.ssh_port("fay")).startswith("SSH-2.0-"), 30)
    assert '"ready"' in host.read("/var/log/labshell/labshelld.log")


def test_report_5_a_script_allocates_container_account_address_and_port(host: Host, fred: str, fay: str) -> None:
    """The heading in the report is empty: its author wanted one."""
    rows = [row for row in json.loads(host.admin("list", "--json").stdout) if row["user"] in (fred, fay)]
    assert [row["problem"] for row in rows] == [None, None]
    for what in ("address", "port"):
        assert len({row[what] for row in rows} - {None}) == 2
    key = str(host.client.folder / "fay.pub")
    steps = host.script("add-user", "flo", "--key", key, "--dry-run").stdout
    for word in ("account", "ports", "clone", "SSH server"):
        assert word in steps
    assert host.run(["id", "flo"], check=False).returncode != 0


def test_report_5_a_pool_of_plain_folders_and_an_image_as_template_will_do(host: Host) -> None:
    host.run(["lxc", "storage", "create", "plain", "dir"])
    host.run(["lxc", "publish", "template", "--alias", "dl-template", "--compression", "none"], timeout=120)
    try:
        with host.configured('pool = "plain"'):
            host.add_user("flora", "--template", "dl-template")
            assert instance(host, "flora")["devices"]["root"]["pool"] == "plain"
            assert inside(host, "flora", "hostname") == "flora\n"
    finally:
        host.admin("remove-user", "flora", "--yes", "--no-archive", check=False)
        host.run(["lxc", "image", "delete", "dl-template"])
        host.run(["lxc", "storage", "delete", "plain"])


# What their successors' users ask for -------------------------------------------------------------------


@pytest.fixture
def had_gpu(host: Host, fay: str) -> Iterator[str]:
    """fay's container as it would be with a GPU since its start, by the engine's own records: there is none here."""

    def record(change: str) -> None:
        host.run(["lxd", "sql", "global", change])

    record(
        "INSERT INTO instances_devices (instance_id, name, type) SELECT id, 'gpu-of-test', 6 FROM instances WHERE name = 'fay'"
    )
    record(
        "INSERT INTO instances_devices_config (instance_device_id, key, value) SELECT id, 'gputype', 'physical' FROM instances_devices WHERE name = 'gpu-of-test'"
    )
    try:
        yield fay
    finally:
        inside(host, fay, "sudo rm -f /usr/local/bin/nvidia-smi")
        record("DELETE FROM instances_devices WHERE name = 'gpu-of-test'")


def told_when_nvidia_smi_says(host: Host, user: str, words: str) -> str:
    """What doctor tells somebody in whose container nvidia-smi fails with these words."""
    script = f"printf '#!/bin/sh\\necho {words}; exit 9\\n' | sudo tee /usr/local/bin/nvidia-smi; sudo chmod 755 /usr/local/bin/nvidia-smi"
    inside(host, user, script)
    done = host.client.ssh(user, "doctor")
    assert done.returncode == 1
    return " ".join(done.stdout.split())


def test_wish_1_whoever_loses_the_gpu_is_told_why_and_what_to_do(host: Host, had_gpu: str) -> None:
    """With a stand-in for nvidia-smi. What keeps it from happening, labshell-gpus.service, makes links for a driver."""
    told = told_when_nvidia_smi_says(host, had_gpu, "Failed to initialize NVML: Unknown Error")
    assert "The GPU has gone from the running container: Failed to initialize NVML." in told
    assert "Bring it back: run `restart`." in told


def test_wish_2_a_driver_of_another_version_inside_is_named(host: Host, had_gpu: str) -> None:
    """With a stand-in for nvidia-smi; there is no driver here whose version could be said."""
    told = told_when_nvidia_smi_says(host, had_gpu, "Failed to initialize NVML: Driver/library version mismatch")
    assert "The NVIDIA driver in the container is of another version than the host's." in told
    assert "inside, without its kernel module." in told


def test_wish_3_a_container_whose_gpu_is_gone_starts_every_time_and_its_owner_knows(host: Host, fay: str) -> None:
    host.client.ssh(fay, "stop --yes", check=True)
    host.admin("set", fay, "--gpus", "all")
    try:
        for verb in ("start", "restart --yes"):
            assert "runs without its GPU" in host.client.ssh(fay, verb, check=True).stderr
        assert "gpu-aside" in host.admin("doctor", check=False).stdout
    finally:
        host.admin("set", fay, "--gpus", "none")
    host.client.ssh(fay, "restart --yes", check=True)
    assert host.client.ssh(fay, "doctor").returncode == 0


def test_wish_4_forwards_are_back_after_everything_was_restarted(host: Host, after_boot: Boot) -> None:
    assert after_boot.before == after_boot.after
    wait_until(lambda: banner_from(host.client, host.client.gateway, host.ssh_port("fay")).startswith("SSH-2.0-"), 30)
    assert inside(host, "fay", "hostname") == "fay\n"


test_wish_5_docker_or_ufw_with_forward_drop_cut_nobody_off = (
    test_forwarding.test_a_host_whose_forward_policy_is_drop_still_forwards
)


def test_wish_4_port_and_address_are_the_same_after_everything_was_started_again(host: Host, fay: str) -> None:
    """tests/system/test_reboot.py does it with a whole host."""
    before = (show(host, fay)["address"], host.ssh_port(fay))
    host.client.ssh(fay, "stop --yes", check=True)
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    host.restart_daemon()
    host.client.ssh(fay, "start", check=True)
    assert (show(host, fay)["address"], host.ssh_port(fay)) == before
    assert inside(host, fay, "hostname") == "fay\n"


def test_wish_6_a_program_on_the_laptop_gets_its_own_bytes_and_nothing_else(host: Host, fay: str) -> None:
    """What VS Code's Remote-SSH does first: a script on standard input of a shell, through `proxy` or the port."""
    script = "printf 'ready\\n'; uname -s; exit 7\n"
    for port, command in ((host.ssh_port(fay), "sh"), (22, "run sh")):
        done = host.client.ssh(fay, command, port=port, input=script)
        assert (done.returncode, done.stdout, done.stderr) == (7, "ready\nLinux\n", "")


@pytest.mark.parametrize("way", ["the host's port", "one's own port"])
def test_wish_6_scp_sftp_and_rsync_work(host: Host, fay: str, tmp_path: Path, way: str) -> None:
    options = [*settings(host, fay), "-o", f"Port={22 if way == 'the hosts port' else host.ssh_port(fay)}"]
    there = address(host, fay)
    (tmp_path / "figure").write_text("figure\n")
    (tmp_path / "batch").write_text(f"put {tmp_path}/figure by-sftp\n")
    client(host, ["scp", *options, "-q", f"{tmp_path}/figure", f"{there}:by-scp"])
    client(host, ["sftp", *options, "-q", "-b", f"{tmp_path}/batch", there])
    client(host, ["rsync", "-e", shlex.join(["ssh", *options]), f"{tmp_path}/figure", f"{there}:by-rsync"])
    assert inside(host, fay, "cat by-*; rm by-scp by-sftp by-rsync") == "figure\n" * 3


def test_wish_6_a_tunnel_reaches_what_listens_inside(host: Host, fay: str) -> None:
    tunnel = ["-N", "-L", "7021:127.0.0.1:22"]
    with host.client.background(host.client.ssh_argv(fay, port=host.ssh_port(fay), options=tunnel)):
        wait_until(lambda: banner_from(host.client, "127.0.0.1", 7021).startswith("SSH-2.0-"), 10)


def test_wish_7_start_returns_when_the_container_is_usable(host: Host, fay: str) -> None:
    host.client.ssh(fay, "stop --yes", check=True)
    host.client.ssh(fay, "start", check=True)
    assert inside(host, fay, "hostname") == "fay\n"


def test_wish_8_clones_share_no_machine_id_address_or_host_key(host: Host, fred: str, fay: str) -> None:
    for file in ("/etc/machine-id", "/sys/class/net/eth0/address", "/etc/ssh/ssh_host_ecdsa_key.pub"):
        assert inside(host, fred, f"cat {file}") != inside(host, fay, f"cat {file}") != ""
    assert show(host, fred)["address"] != show(host, fay)["address"]


def test_wish_9_a_pool_that_fills_up_is_found_by_doctor(host: Host) -> None:
    host.run(["mkdir", "-p", "/srv/tiny"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", "/srv/tiny"])
    try:
        host.run(["lxc", "storage", "create", "tiny", "dir", "source=/srv/tiny"])
        host.run(["fallocate", "-l", "19M", "/srv/tiny/data"])
        found = [
            row for row in json.loads(host.admin("doctor", "--json", check=False).stdout) if row["id"] == "pool-full"
        ]
        assert [row["subject"] for row in found] == ["tiny"]
        assert found[0]["remedy"]
    finally:
        host.run(["lxc", "storage", "delete", "tiny"], check=False)
        host.run(["sh", "-c", "umount /srv/tiny && rmdir /srv/tiny"])


def test_wish_9_a_shared_folder_has_its_owners_inside_or_the_administrator_hears_why_not(
    host: Host, fred: str, fay: str
) -> None:
    """LXD 5.0.2 cannot map owners on kernels from 6.9; where it can, a file of uid 1000 is uid 1000's inside."""
    assert fred  # whose folder it is
    host.run(["sh", "-c", "touch /srv/data/mine; chown 1000 /srv/data/mine"])
    done = host.admin("set", fay, "--mount", "/srv/data:/shared", check=False)
    try:
        if done.returncode == 0:
            assert inside(host, fay, "stat -c %u /shared/mine") == "1000\n"
        else:
            assert ":noshift" in done.stderr
            host.admin("set", fay, "--mount", "/srv/data:/shared:noshift")
            assert inside(host, fay, "stat -c %U /shared/mine") == "nobody\n"
    finally:
        host.admin("set", fay, "--mount", "none")
        host.run(["rm", "/srv/data/mine"])


def test_wish_10_a_user_cannot_give_themselves_a_gpu(host: Host, fred: str, fay: str) -> None:
    """Not as root inside, not with Docker's permissions (fred), not from the gateway, not from the engine's socket."""
    for user in (fred, fay):
        made = host.client.ssh(user, "sudo mknod /tmp/nvidia0 c 195 0", port=host.ssh_port(user))
        assert (made.returncode, "Operation not permitted" in made.stderr) == (1, True)
        assert host.client.ssh(user, "ls /dev/lxd/sock", port=host.ssh_port(user)).returncode != 0
        assert host.client.ssh(user, "set --gpus all").returncode == 2


def test_wish_10_an_idle_container_with_a_job_without_a_terminal_is_not_stopped(host: Host, fay: str) -> None:
    """Eight days pass by changing what the daemon remembers; the job begins then."""
    with host.configured("idle_stop_days = 7"):
        let_pass(host, fay, 8)
        inside(host, fay, "nohup timeout 30 sh -c 'while :; do :; done' >/dev/null 2>&1 &")
        looked(host)
        time.sleep(1)
        assert looked(host, "--stop")[fay]["was_stopped"] is False
        assert show(host, fay)["state"] == "running"


def test_wish_10_a_job_without_a_terminal_is_not_idle_and_who_uses_what_is_shown(
    host: Host, fred: str, fay: str
) -> None:
    """tests/system/test_idle_stop.py lets weeks pass; per-process GPU owners need a GPU (tests/unit/test_gpus.py)."""
    host.admin("idle", "--json")
    inside(host, fay, "nohup timeout 8 sh -c 'while :; do :; done' >/dev/null 2>&1 &")
    time.sleep(2)
    row = next(row for row in json.loads(host.admin("idle", "--json").stdout) if row["user"] == fay)
    age = time.time() - time.mktime(time.strptime(row["idle_since"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone
    assert age < 60
    assert fay in host.client.ssh(fred, "usage", check=True).stdout
    assert "no NVIDIA GPU" in host.client.ssh(fay, "gpus", check=True).stdout


# Bugs in the ancestors ----------------------------------------------------------------------------------


def test_ancestors_bug_a_users_port_number_elsewhere_is_not_captured(host: Host, fred: str, fay: str) -> None:
    """A DNAT rule without an interface or a destination takes every connection to that port, outgoing ones too."""
    port = host.ssh_port(fred)
    with elsewhere(host, port):
        assert banner_from_container(host, fay, host.other.address, port) == "elsewhere"


def test_ancestors_bug_the_container_sees_who_connects(host: Host, fay: str) -> None:
    assert inside(host, fay, "echo $SSH_CONNECTION").split()[0] == host.client.address


def test_ancestors_bug_a_flushed_firewall_locks_no_running_container_out(host: Host, fred: str, fay: str) -> None:
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    for user in (fred, fay):  # each login puts back that user's rules; the daemon's next look all of them
        host.client.ssh(user, check=True)
        assert inside(host, user, "hostname") == f"{user}\n"


def test_ancestors_bug_port_80_and_port_8080_are_two_ports(host: Host, fay: str) -> None:
    for target in (8080, 80):
        host.client.ssh(fay, f"ports add {target}", check=True)
    host.client.ssh(fay, "ports remove 80", check=True)
    targets = [row["target"] for row in json.loads(host.client.ssh(fay, "ports --json", check=True).stdout)]
    assert targets == [8080]
    host.client.ssh(fay, "ports remove 8080", check=True)


def test_ancestors_bug_nothing_is_deleted_before_the_archive_is_whole(host: Host, fay: str) -> None:
    host.run(["mkdir", "-p", "/var/lib/labshell/archive"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/var/lib/labshell/archive"])
    try:
        done: Completed = host.admin("remove-user", fay, "--yes", check=False)
        assert done.returncode != 0
    finally:
        host.run(["umount", "/var/lib/labshell/archive"])
    host.client.ssh(fay, "start", check=True)
    assert inside(host, fay, "hostname") == "fay\n"


def test_ancestors_bug_there_is_more_than_one_snapshot(host: Host, fay: str) -> None:
    for name in ("one", "two"):
        host.client.ssh(fay, f"snapshot create {name}", check=True)
    assert len(json.loads(host.client.ssh(fay, "snapshot --json", check=True).stdout)) == 2


def test_ancestors_bug_two_at_once_at_the_end_of_the_range_get_two_ports_within_it(
    host: Host, ann_and_joann: tuple[int, int]
) -> None:
    """The next port was the largest plus one, without a lock, and went on past the end."""
    assert len(set(ann_and_joann)) == 2
    assert all(20000 <= port <= 29990 for port in ann_and_joann)
    assert [inside(host, name, "hostname") for name in ("ann", "joann")] == ["ann\n", "joann\n"]


def test_ancestors_bug_a_removal_is_confirmed_with_the_name_of_who_is_removed(host: Host, fay: str) -> None:
    """Not with a word that is the same for everybody; and not at all in a script without --yes."""
    argv = host.argv(["labshell-admin", "remove-user", fay])
    child = pexpect.spawn(argv[0], argv[1:], env=ENVIRONMENT, encoding="utf-8", timeout=20)
    child.expect_exact("Type the name to go on: ")
    child.sendline("yes")
    child.expect_exact("Nothing was removed.")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert host.admin("remove-user", fay, check=False).returncode == 2
    assert inside(host, fay, "hostname") == "fay\n"


@pytest.mark.usefixtures("ann_and_joann")
def test_ancestors_bug_subuid_and_everything_else_of_a_longer_name_survives(host: Host) -> None:
    host.run(["sh", "-c", "echo joann:700000:65536 | tee -a /etc/subuid >> /etc/subgid"])
    try:
        host.remove_user("ann")
        for file in ("/etc/subuid", "/etc/subgid", "/etc/passwd"):
            assert re.search(r"^joann:", host.read(file), re.MULTILINE)
        assert inside(host, "joann", "hostname") == "joann\n"
        assert host.client.ssh("joann", "run hostname", check=True).stdout == "joann\n"
    finally:
        host.run(["sed", "-i", "/^joann:700000:/d", "/etc/subuid", "/etc/subgid"])


def test_ancestors_bug_no_user_is_in_a_group_that_is_root(host: Host, fred: str, fay: str) -> None:
    for user in (fred, fay):
        assert host.run(["id", "-nG", user]).stdout == "labshell\n"
        engine = ["setpriv", f"--reuid={user}", "--regid=labshell", "--clear-groups", "lxc", "list"]
        assert host.run(engine, check=False).returncode != 0
    assert (
        host.run(["grep", "-rlE", "^(fred|fay|%labshell)", "/etc/sudoers", "/etc/sudoers.d"], check=False).stdout
        == ""
    )


def test_ancestors_bug_no_container_has_the_templates_ssh_host_keys(host: Host, fred: str, fay: str) -> None:
    """Each client is shown another key, and the template has none that could be shared."""
    assert key_at(host, host.ssh_port(fred)) != key_at(host, host.ssh_port(fay))
    pulled = host.run(["lxc", "file", "pull", "template/etc/ssh/ssh_host_ed25519_key", "-"], check=False)
    assert pulled.returncode != 0


def test_ancestors_bug_a_login_needs_no_web_server_and_no_name_server(host: Host, fay: str) -> None:
    """Nothing is sent to the name server that there is, so nobody waits for one that there is not."""
    host.run(["sh", "-c", "cp /etc/resolv.conf /run/resolv; echo nameserver 198.18.0.9 > /etc/resolv.conf"])
    host.run(["nft", "-f", "-"], input=ASKED)
    try:
        assert "ssh -p" in host.client.ssh(fay, check=True).stdout
        assert inside(host, fay, "hostname") == "fay\n"
        assert "packets 0 " in host.run(["nft", "list", "table", "ip", "asked"]).stdout
        host.run(["getent", "ahosts", "elsewhere.example"], check=False)
        assert "packets 0 " not in host.run(["nft", "list", "table", "ip", "asked"]).stdout
    finally:
        host.run(["nft", "delete", "table", "ip", "asked"])
        host.run(["sh", "-c", "cat /run/resolv > /etc/resolv.conf"])
