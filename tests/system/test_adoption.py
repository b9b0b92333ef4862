"""Hosts set up by hand as the field reports describe, taken over as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import Completed, Host, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def hank(host: Host) -> Iterator[str]:
    """A container that an administrator made by hand, with its person's account and key inside."""
    (host.client.folder / "known_hosts").unlink(missing_ok=True)  # another hank's host key may be in it
    key = host.client.make_key("hank").with_suffix(".pub").read_text().strip()
    host.run(["lxc", "copy", "template", "hank"])
    for mark in json.loads(host.run(["lxc", "query", "/1.0/instances/hank"]).stdout)["config"]:
        if mark.startswith("user."):
            host.run(["lxc", "config", "unset", "hank", mark])
    host.run(["lxc", "start", "hank"])
    script = (
        "until ip route | grep -q default; do sleep 0.1; done; ssh-keygen -A >/dev/null; useradd -m -s /bin/bash hank; usermod -p '*' hank;"
        f"mkdir -p ~hank/.ssh; printf 'not a key\\n{key}\\n' > ~hank/.ssh/authorized_keys; chown -R hank: ~hank/.ssh; systemctl reset-failed ssh; systemctl restart ssh; hostname hank"
    )
    host.run(["lxc", "exec", "hank", "--", "sh", "-c", script])
    yield "hank"
    host.admin("remove-user", "hank", "--yes", "--no-archive", check=False)
    host.run(["lxc", "delete", "--force", "hank"], check=False)


def proxy(host: Host, name: str, listen: int, connect: int) -> None:
    ends = [f"listen=tcp:{host.client.gateway}:{listen}", f"connect=tcp:127.0.0.1:{connect}"]
    host.run(["lxc", "config", "device", "add", "hank", name, "proxy", *ends])


def by_hand(host: Host, port: int, *, check: bool = True) -> Completed:
    return host.client.ssh("hank", "whoami", port=port, check=check)


def planned(host: Host, name: str = "hank") -> dict[str, Any]:
    rows = json.loads(host.admin("import-host", "--plan", "--json").stdout)
    return next(row for row in rows if row["name"] == name)


def test_proxy_devices_become_rules_at_the_same_port_and_others_stay(host: Host, hank: str) -> None:
    """Report 4: two proxy devices a user; and report 5."""
    for name, listen, connect in (("ssh", 60601, 22), ("web", 60605, 8080), ("rdp", 60611, 3389)):
        proxy(host, name, listen, connect)
    wait_until(lambda: by_hand(host, 60601, check=False).stdout == "hank\n", 15)
    before = host.run(["lxc", "config", "show", hank]).stdout
    plan = planned(host)
    assert (plan["port"], plan["other_ports"], plan["problem"]) == (60601, ["60605:8080", "60611:3389"], None)
    host.admin("adopt", hank, "--dry-run")
    assert host.run(["lxc", "config", "show", hank]).stdout == before

    host.admin("import-host")
    assert by_hand(host, 60601).stdout == "hank\n"
    assert host.client.ssh(hank, "run whoami", check=True).stdout == "hank\n"
    about = json.loads(host.admin("show", hank, "--json").stdout)
    assert (about["port"], about["forwards"], about["address"]) == (60601, ["60605 -> 8080"], plan["address"])
    devices = json.loads(host.run(["lxc", "query", "/1.0/instances/hank"]).stdout)["devices"]
    assert [name for name, device in devices.items() if device["type"] == "proxy"] == ["rdp"]
    host.run(["lxc", "restart", "--force", hank])
    wait_until(lambda: by_hand(host, 60601, check=False).stdout == "hank\n", 15)
    assert host.admin("import-host").stdout == "Every container is labshell's already.\n"


def test_a_stopped_one_is_fenced_in_at_once_and_one_on_another_network_is_left_alone(host: Host, hank: str) -> None:
    host.run(["lxc", "stop", "--force", hank])
    host.run(["lxc", "network", "create", "elsewhere", "ipv4.address=10.99.0.1/24", "ipv6.address=none"])
    try:
        host.run(["lxc", "copy", hank, "hanna"])
        host.run(
            ["lxc", "config", "device", "add", "hanna", "eth0", "nic", "network=elsewhere", "ipv4.address=10.99.0.7"]
        )
        problem = "its address 10.99.0.7 is not one of lxdbr0: connect it to that network first"
        assert planned(host, "hanna")["problem"] == problem
    finally:
        host.run(["lxc", "delete", "hanna"], check=False)
        host.run(["lxc", "network", "delete", "elsewhere"])
    done = host.admin("import-host", check=False)
    assert (done.returncode, done.stderr) == (1, "labshell-admin: 1 of 1 were not taken over.\n")
    assert "No key of hank's was found inside" in " ".join(done.stdout.split())
    address = planned(host)["address"]
    host.admin("adopt", hank, "--key", str(host.client.folder / "hank.pub"))
    found = json.loads(host.run(["lxc", "query", "/1.0/instances/hank"]).stdout)
    nic = found["devices"]["eth0"]
    assert (nic["ipv4.address"], nic["security.mac_filtering"], nic["security.port_isolation"]) == (
        address,
        "true",
        "true",
    )
    assert int(found["config"]["limits.processes"]) > 0
    assert host.client.ssh(hank, "run whoami", check=True).stdout == "hank\n"
    assert "network-open" not in host.admin("doctor", "--json", check=False).stdout


def test_port_files_and_rules_of_the_old_scheme_keep_their_number(host: Host, hank: str) -> None:
    """Report 2: a rule by hand and a file under /public."""
    address = planned(host)["address"]
    rule = ["PREROUTING", "-p", "tcp", "--dport", "2011", "-j", "DNAT", "--to-destination", f"{address}:22"]
    host.run(["iptables-legacy", "-w", "-t", "nat", "-A", *rule])
    try:
        assert planned(host)["port"] == 2011
        host.run(["sh", "-c", "echo 2011 > /public/ports/hank"])
        host.admin("adopt", hank)
        foreign = host.run(["iptables-legacy", "-t", "nat", "-S", "PREROUTING"]).stdout
        assert f"--dport 2011 -j DNAT --to-destination {address}:22" in foreign
    finally:
        host.run(["iptables-legacy", "-w", "-t", "nat", "-D", *rule])
    assert host.read("/public/ports/hank") == "2011\n"
    assert by_hand(host, 2011).stdout == "hank\n"


def test_an_address_is_the_engines_word_and_not_the_containers(host: Host, hank: str, alice: str) -> None:
    """Root inside says that it has another's address, or the gateway's: a port that leads there would be a way around the guard."""
    own = planned(host)["address"]
    [others] = [row["address"] for row in json.loads(host.admin("list", "--json").stdout) if row["user"] == alice]
    host.run(["lxc", "exec", hank, "--", "sh", "-c", f"ip addr flush dev eth0; ip addr add {others}/24 dev eth0"])
    assert others in host.run(["lxc", "list", hank, "-f", "csv", "-c", "4"]).stdout
    assert planned(host)["address"] == own


def test_a_port_that_is_too_near_to_somebodys_is_said_in_the_plan_and_nothing_is_changed(
    host: Host, hank: str, alice: str
) -> None:
    """Report 5 numbers people one by one; here each has a block of ports."""
    near = host.ssh_port(alice) + 1
    proxy(host, "ssh", near, 22)
    before = host.run(["lxc", "config", "show", hank]).stdout
    sentence = f"Port {near} cannot be kept: it overlaps the block of alice"
    assert planned(host)["problem"].startswith(sentence)
    done = host.admin("adopt", hank, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sentence in done.stderr
    assert host.run(["lxc", "config", "show", hank]).stdout == before
    assert host.run(["id", hank], check=False).returncode == 1

    host.run(["lxc", "copy", hank, "hanna"])
    try:
        for name, port in ((hank, 60622), ("hanna", 60621)):
            host.run(["lxc", "config", "device", "set", name, "ssh", f"listen=tcp:{host.client.gateway}:{port}"])
        host.run(["lxc", "start", "hanna"])
        wait_until(lambda: "10." in host.run(["lxc", "list", "hanna", "-f", "csv", "-c", "4"]).stdout, 20)
        in_its_block = "Port 60621 cannot be kept: something on this machine listens on port 60622"
        assert planned(host, "hanna")["problem"] == in_its_block  # it is hank's, who may keep it
        assert planned(host)["problem"] is None
    finally:
        host.run(["lxc", "delete", "--force", "hanna"])
    assert planned(host)["problem"] is None


def test_what_is_done_is_undone_when_a_later_step_fails(host: Host, hank: str) -> None:
    for name, listen, connect in (("ssh", 60601, 22), ("web", 60605, 8080)):
        proxy(host, name, listen, connect)
    before = host.run(["lxc", "config", "show", hank]).stdout
    host.run(["mount", "--bind", "-o", "ro", "/public", "/public"])
    host.run(["mount", "-o", "remount,bind,ro", "/public"])
    try:
        done = host.admin("adopt", hank, check=False)
    finally:
        host.run(["umount", "/public"])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert 'hank was not taken over: it failed at the step "Taking over its ports".' in done.stderr
    assert "What the steps before it did has been undone." in done.stderr
    assert host.run(["lxc", "config", "show", hank]).stdout == before
    assert host.run(["id", hank], check=False).returncode == 1
    assert planned(host)["problem"] is None
    wait_until(lambda: by_hand(host, 60601, check=False).stdout == "hank\n", 15)


def test_a_person_whose_account_is_gone_gets_the_container_back_and_nobody_else_does(host: Host, hank: str) -> None:
    key = str(host.client.folder / "hank.pub")
    host.admin("adopt", hank)
    host.client.ssh(hank, "ports add 8888", check=True)
    port, uid = host.ssh_port(hank), json.loads(host.admin("show", hank, "--json").stdout)["uid"]
    host.run(["userdel", hank])
    done = host.admin("add-user", hank, "--key", key, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "labshell-admin adopt hank" in done.stderr
    assert "Run adopt to complete it" in host.admin("show", hank, check=False).stderr
    assert "--returning brings it back" in host.admin("import-host").stdout
    assert host.run(["id", hank], check=False).returncode == 1
    host.admin("import-host", "--returning")
    about = json.loads(host.admin("show", hank, "--json").stdout)
    assert (about["port"], about["forwards"]) == (port, [f"{port + 1} -> 8888"])
    assert about["uid"] > uid
    assert by_hand(host, port).stdout == "hank\n"
    host.run(["sh", "-c", "userdel hank; echo 60700 > /public/ports/hank"])  # as if the old one were lost
    host.admin("adopt", hank)
    assert json.loads(host.admin("show", hank, "--json").stdout)["forwards"] == ["60701 -> 8888"]


def test_what_cannot_be_taken_over_is_said_and_nothing_is_changed(host: Host, hank: str, alice: str) -> None:
    before = host.run(["lxc", "config", "show", hank]).stdout
    for name, sentence in (
        (alice, "labshell's already"),
        ("template", "the system itself uses"),
        ("none-such", "There is no container"),
    ):
        done = host.admin("adopt", name, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert sentence in done.stderr
    host.run(["lxc", "exec", hank, "--", "rm", "/home/hank/.ssh/authorized_keys"])
    done = host.admin("adopt", hank, check=False)
    assert done.returncode == 2
    assert "give one with --key FILE" in done.stderr
    assert host.run(["lxc", "config", "show", hank]).stdout == before
    host.admin("adopt", hank, "--key", str(host.client.folder / "hank.pub"))
    assert host.client.ssh(hank, "run whoami", check=True).stdout == "hank\n"
