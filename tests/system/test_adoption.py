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


def planned(host: Host) -> dict[str, Any]:
    rows = json.loads(host.admin("import-host", "--plan", "--json").stdout)
    return next(row for row in rows if row["name"] == "hank")


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
    host.client.ssh(hank, "start", check=True)
    assert by_hand(host, 60601).stdout == "hank\n"
    assert host.admin("import-host").stdout == "Every container is labshell's already.\n"


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
