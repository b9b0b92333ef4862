"""The five field reports that labshell replaces, row by row: each test is named for what a lab built by hand.

They are short and use what is there as its people would; the files beside this one go deeper. What needs hardware that
this machine has not got says so. docs/field-reports.md is the table of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import test_adoption
import test_forwarding
from test_adoption import hank  # noqa: F401 - a fixture
from test_forwarding import banner_from, banner_from_container
from test_services import fetch, page  # noqa: F401 - page is a fixture
from test_templates_of_containers import published  # noqa: F401 - a fixture
from test_ways_in import CONFIG, labs_own_network
from testhost import Completed, Host, wait_until

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
    host.client.ssh(fay, "stop", check=True)
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
    host.run(["lxc", "import", "/root/homepage.tar"], timeout=120)
    host.run(["rm", "/root/homepage.tar"])
    host.run(["lxc", "start", "homepage"])
    [row] = json.loads(host.admin("list-services", "--json").stdout)
    assert (row["state"], row["forwards"]) == ("running", ["80:8080"])
    wait_until(lambda: "--dport 80 " in host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout)


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
    host.client.ssh(fay, "stop", check=True)
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
    host.client.ssh(fay, "stop", check=True)
    host.admin("drain", "--message", "new driver until six.")
    try:
        done = host.client.ssh(fay, "start")
        assert (done.returncode, "new driver until six" in done.stderr) == (75, True)
    finally:
        host.admin("undrain")
    host.client.ssh(fay, "start", check=True)


# Report 3, 2023: LXD 5.0, bridged -----------------------------------------------------------------------


def test_report_3_a_container_on_the_labs_own_network_needs_no_port(host: Host) -> None:
    import contextlib

    from testhost import Client

    before = host.read(CONFIG)
    with contextlib.ExitStack() as cleanup:
        lab = labs_own_network(host, cleanup)
        cleanup.callback(host.restart_daemon)
        cleanup.callback(host.run, ["tee", CONFIG], input=before)
        host.run(["tee", CONFIG], input=f'{before}\nforwarding = "none"\nnetwork = "br0"\n')
        host.restart_daemon()
        key = lab.make_key("finn").with_suffix(".pub")
        host.admin("add-user", "finn", "--key", str(key))
        cleanup.callback(host.remove_user, "finn")
        address = json.loads(lab.ssh("finn", "status --json", check=True).stdout)["address"]
        assert address.startswith("198.18.6.")
        assert f"ssh finn@{address}\n" in lab.ssh("finn", check=True).stdout
        there = Client(lab.pid, lab.address, address, lab.folder)
        assert there.ssh("finn", "hostname", check=True).stdout == "finn\n"


def test_report_3_a_container_cannot_use_more_disk_than_it_has(host: Host, fred: str) -> None:
    """Wish 9. btrfs here; zfs has no module in this kernel."""
    script = "dd if=/dev/urandom of=big bs=1M count=2200 2>&1; stat -c %s big; rm -f big"
    done = host.client.ssh(fred, script, port=host.ssh_port(fred), timeout=120)
    assert "Disk quota exceeded" in done.stdout
    assert inside(host, fred, "echo room > again; cat again") == "room\n"


@pytest.mark.usefixtures("published")
def test_report_3_several_templates_are_published_and_chosen_from(host: Host, fay: str) -> None:
    inside(host, fay, "sudo touch /opt/from-fay")
    host.admin("template", "publish", fay, "published")
    assert "published" in host.admin("template", "list").stdout
    key = host.client.make_key("finn").with_suffix(".pub")
    host.admin("add-user", "finn", "--key", str(key), "--template", "published")
    try:
        assert inside(host, "finn", "ls /opt; whoami") == "from-fay\nfinn\n"
    finally:
        host.remove_user("finn")


def test_report_3_docker_needs_no_privileged_container(host: Host, fred: str) -> None:
    """Namespaces and an overlay inside, as Docker makes them; Docker itself is a download."""
    config = instance(host, fred)["config"]
    assert (config["security.nesting"], config["security.privileged"]) == ("true", "false")
    overlay = "mkdir -p l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && echo mounted"
    script = f"cd $(mktemp -d) && unshare --mount --pid --fork sh -c '{overlay}'"
    assert inside(host, fred, f"sudo sh -c {json.dumps(script).replace('$', chr(92) + '$')}") == "mounted\n"


def test_report_3_a_password_is_each_ones_own_and_changed_at_the_first_login(host: Host) -> None:
    """Report 4's initial password per clone; report 5's "a host port, an account, a password"."""
    key = host.client.make_key("finn").with_suffix(".pub")
    try:
        said = host.admin("add-user", "finn", "--key", str(key), "--password").stdout
        assert re.search(r"to be changed at the first login: \S{12,}\n", said)
        assert "password must be changed" in host.client.ssh("finn", "run sudo chage --list finn").stdout
        assert "Password change required" in host.client.ssh("finn", "id", port=host.ssh_port("finn")).stderr
    finally:
        host.admin("remove-user", "finn", "--yes", "--no-archive", check=False)


def test_report_3_the_hosts_own_sshd_may_be_on_another_port(host: Host, fay: str) -> None:
    before = host.read(CONFIG)
    host.run(["tee", CONFIG], input=f"{before}\nssh_port = 33\n")
    host.run(["/usr/sbin/sshd", "-p", "33", "-o", "PidFile=/run/sshd-33.pid"])
    try:
        host.restart_daemon()
        assert "    Port 33\n" in host.client.ssh(fay, "ssh-config", port=33, check=True).stdout
        assert "[gateway]:33 ssh-ed25519" in host.client.ssh(fay, "known-hosts", port=33, check=True).stdout
    finally:
        host.run(["sh", "-c", "kill $(cat /run/sshd-33.pid)"])
        host.run(["tee", CONFIG], input=before)
        host.restart_daemon()


def test_report_3_a_person_moves_with_everything_as_one_file(host: Host) -> None:
    host.add_user("finn")
    inside(host, "finn", "echo thesis > thesis")
    before = (host.ssh_port("finn"), host.client.ssh("finn", "keys --json", check=True).stdout)
    archive = json.loads(host.admin("remove-user", "finn", "--yes", "--json").stdout)["archives"][0]
    assert host.run(["lxc", "info", "finn"], check=False).returncode != 0
    host.admin("restore-user", archive)
    try:
        assert inside(host, "finn", "cat thesis") == "thesis\n"
        assert (host.ssh_port("finn"), host.client.ssh("finn", "keys --json", check=True).stdout) == before
    finally:
        host.run(["rm", archive])
        host.remove_user("finn")


# Report 4, 2020: LXD proxy devices ----------------------------------------------------------------------

test_report_4_containers_with_two_proxy_devices_are_taken_over = (
    test_adoption.test_proxy_devices_become_rules_at_the_same_port_and_others_stay
)
test_report_2_the_old_schemes_files_and_rules_are_taken_over = (
    test_adoption.test_port_files_and_rules_of_the_old_scheme_keep_their_number
)


def test_report_4_ports_may_be_proxy_devices_on_one_address_of_the_host(host: Host, fay: str) -> None:
    before = host.read(CONFIG)
    listen = f'forwarding = "lxd-proxy"\nlisten_address = "{host.client.gateway}"\n'
    host.run(["tee", CONFIG], input=f"{before}\n{listen}")
    try:
        host.restart_daemon()
        host.client.ssh(fay, "ports add 3389", check=True)
        devices = [name for name, about in instance(host, fay)["devices"].items() if about["type"] == "proxy"]
        port = host.ssh_port(fay)
        assert devices == [f"labshell-port-{port}", f"labshell-port-{port + 1}"]
        assert inside(host, fay, "hostname") == "fay\n"
        assert banner_from(host.other, host.other.gateway, port) == "ConnectionRefusedError"
        host.client.ssh(fay, "ports remove 3389", check=True)
    finally:
        host.run(["tee", CONFIG], input=before)
        host.restart_daemon()
    wait_until(lambda: "proxy" not in json.dumps(instance(host, fay)["devices"]), 10)
    wait_until(lambda: banner_from(host.client, host.client.gateway, host.ssh_port(fay)).startswith("SSH-2.0-"))
    assert inside(host, fay, "hostname") == "fay\n"


def test_report_4_one_gpu_of_several_is_chosen_by_its_address(host: Host, fay: str) -> None:
    """No such GPU here: shown is the device that the engine is given."""
    host.client.ssh(fay, "stop", check=True)
    host.admin("set", fay, "--gpus", "0000:01:00.0")
    devices = instance(host, fay)["devices"].values()
    assert [device["pci"] for device in devices if device["type"] == "gpu"] == ["0000:01:00.0"]
    host.admin("set", fay, "--gpus", "none")
    host.client.ssh(fay, "start", check=True)


def test_report_4_a_templates_proxy_devices_are_not_in_its_clones(host: Host) -> None:
    ends = ["listen=tcp:127.0.0.1:7001", "connect=tcp:127.0.0.1:22"]
    host.run(["lxc", "copy", "template", "forwarded"])
    host.run(["lxc", "config", "device", "add", "forwarded", "old", "proxy", *ends])
    key = host.client.make_key("finn").with_suffix(".pub")
    try:
        host.admin("add-user", "finn", "--key", str(key), "--template", "forwarded")
        assert "7001" not in json.dumps(instance(host, "finn")["expanded_devices"])
    finally:
        host.admin("remove-user", "finn", "--yes", "--no-archive", check=False)
        host.run(["lxc", "delete", "--force", "forwarded"])


def test_report_4_an_overview_of_all_containers_for_people_and_programs(host: Host, fred: str, fay: str) -> None:
    rows = {row["user"]: row for row in json.loads(host.admin("list", "--sort", "memory", "--json").stdout)}
    assert {rows[fred]["state"], rows[fay]["state"]} == {"running"}
    assert fay in host.admin("list").stdout


# Report 5, 2019: nvidia.runtime -------------------------------------------------------------------------


def test_report_5_each_gets_a_host_port_of_their_choice(host: Host) -> None:
    key = host.client.make_key("finn").with_suffix(".pub")
    host.admin("add-user", "finn", "--key", str(key), "--port", "29000")
    try:
        assert host.client.ssh("finn", "hostname", port=29000, check=True).stdout == "finn\n"
    finally:
        host.remove_user("finn")


def test_report_5_the_hosts_driver_is_used_and_none_is_installed_inside(host: Host, fay: str) -> None:
    """Wish 3, too: a stand-in for libnvidia-container fails as the real one does after a reboot; no GPU here."""
    before = host.read(CONFIG)
    host.run(["tee", CONFIG], input=f"{before}\nnvidia_runtime = true\n")
    stand_in = "#!/bin/sh\necho nvidia-container-cli: initialization error >&2\nexit 1\n"
    host.run(["tee", "/usr/local/bin/nvidia-container-cli"], input=stand_in)
    host.run(["chmod", "755", "/usr/local/bin/nvidia-container-cli"])
    try:
        host.restart_daemon()
        host.client.ssh(fay, "stop", check=True)
        host.admin("set", fay, "--gpus", "all")
        assert instance(host, fay)["config"]["nvidia.runtime"] == "true"
        done = host.client.ssh(fay, "start", check=True)
        assert "runs without its GPU" in done.stdout + done.stderr
        assert json.loads(host.client.ssh(fay, "status --json", check=True).stdout)["state"] == "running"
    finally:
        host.run(["tee", CONFIG], input=before)
        host.restart_daemon()
        host.admin("set", fay, "--gpus", "none")
        host.run(["rm", "/usr/local/bin/nvidia-container-cli"])


def test_report_5_a_pool_of_plain_folders_will_do(host: Host) -> None:
    before = host.read(CONFIG)
    host.run(["lxc", "storage", "create", "plain", "dir"])
    host.run(["tee", CONFIG], input=f'{before}\npool = "plain"\n')
    try:
        host.restart_daemon()
        host.add_user("finn")
        assert instance(host, "finn")["devices"]["root"]["pool"] == "plain"
        host.client.ssh("finn", "snapshot create one", check=True)
        assert inside(host, "finn", "hostname") == "finn\n"
    finally:
        host.admin("remove-user", "finn", "--yes", "--no-archive", check=False)
        host.run(["tee", CONFIG], input=before)
        host.restart_daemon()
        host.run(["lxc", "storage", "delete", "plain"])


def test_report_5_an_image_will_do_as_template(host: Host) -> None:
    host.run(["lxc", "publish", "template", "--alias", "dl-template", "--compression", "none"], timeout=120)
    key = host.client.make_key("finn").with_suffix(".pub")
    try:
        host.admin("add-user", "finn", "--key", str(key), "--template", "dl-template")
        assert inside(host, "finn", "hostname") == "finn\n"
    finally:
        host.admin("remove-user", "finn", "--yes", "--no-archive", check=False)
        host.run(["lxc", "image", "delete", "dl-template"])


# What their successors' users ask for -------------------------------------------------------------------

test_wish_5_docker_or_ufw_with_forward_drop_cut_nobody_off = (
    test_forwarding.test_a_host_whose_forward_policy_is_drop_still_forwards
)


def test_wish_4_port_and_address_are_the_same_after_everything_was_started_again(host: Host, fay: str) -> None:
    """tests/system/test_reboot.py does it with a whole host."""
    before = (show(host, fay)["address"], host.ssh_port(fay))
    host.client.ssh(fay, "stop", check=True)
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


def test_wish_7_start_returns_when_the_container_is_usable(host: Host, fay: str) -> None:
    host.client.ssh(fay, "stop", check=True)
    host.client.ssh(fay, "start", check=True)
    assert inside(host, fay, "hostname") == "fay\n"


def test_wish_10_a_job_without_a_terminal_is_not_idle_and_who_uses_what_is_shown(host: Host, fay: str) -> None:
    """tests/system/test_idle_stop.py lets weeks pass; per-process GPU owners need a GPU (tests/unit/test_gpus.py)."""
    host.admin("idle", "--json")
    inside(host, fay, "nohup timeout 8 sh -c 'while :; do :; done' >/dev/null 2>&1 &")
    time.sleep(2)
    row = next(row for row in json.loads(host.admin("idle", "--json").stdout) if row["user"] == fay)
    age = time.time() - time.mktime(time.strptime(row["idle_since"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone
    assert age < 60
    assert fay in host.client.ssh("alice", "usage", check=False).stdout or host.exists("/public/ports/alice") is False
    assert "no NVIDIA GPU" in host.client.ssh(fay, "gpus", check=True).stdout


# Bugs in the ancestors ----------------------------------------------------------------------------------


def test_ancestors_bug_the_container_sees_who_connects(host: Host, fay: str) -> None:
    assert inside(host, fay, "echo $SSH_CONNECTION").split()[0] == host.client.address


def test_ancestors_bug_a_flushed_firewall_locks_no_running_container_out(host: Host, fay: str) -> None:
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    host.client.ssh(fay, check=True)
    assert inside(host, fay, "hostname") == "fay\n"


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


def test_ancestors_bug_removing_ann_leaves_joann_alone(host: Host) -> None:
    for name in ("ann", "joann"):
        host.add_user(name)
    host.remove_user("ann")
    assert inside(host, "joann", "hostname") == "joann\n"
    host.remove_user("joann")
    assert "root:" in host.read("/etc/subuid")
