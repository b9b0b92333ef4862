"""doctor, usage and gpus, by a researcher whose things are broken one after the other."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import Host, wait_until

pytestmark = pytest.mark.root


def bad(host: Host, user: str) -> dict[str, Any]:
    """The findings that are not good, by check; the exit status says whether there are any."""
    done = host.client.ssh(user, "doctor --json")
    found = {item["check"]: item for item in json.loads(done.stdout) if item["result"] == "bad"}
    assert done.returncode == bool(found), done.stderr
    return found


def test_a_sound_container_has_a_line_for_each_check_and_all_are_good(host: Host, alice_port: int) -> None:
    done = host.client.ssh("alice", "doctor", check=True)
    assert f"Port {alice_port} is forwarded to your container." in done.stdout
    labels = re.findall(r"^  good    (\S+(?: \S+)*)  ", done.stdout, re.MULTILINE)
    checks = [item["check"] for item in json.loads(host.client.ssh("alice", "doctor --json").stdout)]
    assert labels == checks
    assert checks == [
        "Account", "Keys", "Container", "Address", "Port", "Disk", "Clock", "Host key", "SSH server", "Sessions",
    ]  # fmt: skip
    assert max(map(len, done.stdout.splitlines())) <= 80


def without_rules(host: Host, user: str) -> bool:
    """Whether doctor misses the rules, and says what to do. The daemon may be quicker in putting them back."""
    host.run(["iptables-legacy", "-t", "nat", "-F", "LABSHELL"])
    found = bad(host, user).get("Port")
    return found is not None and "start" in found["remedy"]["sentence"]


def test_each_thing_that_is_broken_is_named_with_its_remedy(host: Host, guest: str) -> None:
    port = host.ssh_port(guest)
    host.client.ssh(guest, "run sudo systemctl stop ssh", check=True)
    assert "systemctl restart ssh" in bad(host, guest)["SSH server"]["remedy"]["sentence"]
    host.client.ssh(guest, "run sudo systemctl start ssh", check=True)
    host.client.ssh(guest, "run sudo ssh-keygen -A; sudo rm /etc/ssh/ssh_host_ed25519_key.pub", check=True)
    assert set(bad(host, guest)) == {"Host key"}
    host.client.ssh(
        guest,
        "run sudo sh -c 'ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key > /etc/ssh/ssh_host_ed25519_key.pub'",
        check=True,
    )
    assert bad(host, guest) == {}
    wait_until(lambda: without_rules(host, guest))
    host.client.ssh(guest, "start", check=True)
    with foreign_rule(host, port):
        assert "Another firewall rule takes" in bad(host, guest)["Port"]["finding"]["sentence"]
    assert bad(host, guest) == {}
    host.client.ssh(guest, "stop --yes", check=True)
    found = bad(host, guest)
    assert set(found) >= {"Container"}
    assert "start" in found["Container"]["remedy"]["sentence"]


@contextlib.contextmanager
def foreign_rule(host: Host, port: int) -> Iterator[None]:
    """Somebody else's rule for the same port, which comes first."""
    rule = ["OUTPUT", "-p", "tcp", "--dport", str(port), "-j", "REDIRECT", "--to-ports", "9"]
    host.run(["iptables-legacy", "-w", "-t", "nat", "-I", *rule])
    try:
        yield
    finally:
        host.run(["iptables-legacy", "-w", "-t", "nat", "-D", *rule])


def test_usage_shows_who_is_at_work_and_how_much_and_not_what_they_run(host: Host, alice_port: int, bob: str) -> None:
    assert alice_port
    program = "thesis-of-bob"
    host.client.ssh(
        bob,
        f"run setsid sh -c 'exec -a {program} timeout 20 sh -c \"while :; do :; done\"' >/dev/null 2>&1 &",
        check=True,
    )
    done = host.client.ssh("alice", "usage --json", check=True)
    usage = json.loads(done.stdout)
    other = next(item for item in usage["others"] if item["user"] == bob)
    assert other["memory"] > 1 << 20
    assert usage["report"]["user"] == "alice"
    assert program not in done.stdout
    shown = host.client.ssh("alice", "usage", check=True).stdout
    assert bob in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_host_without_nvidia_says_so_in_a_sentence(host: Host, alice_port: int) -> None:
    assert alice_port
    done = host.client.ssh("alice", "gpus", check=True)
    assert done.stdout == "  This host has no NVIDIA GPU, or its driver is not loaded.\n"
    assert json.loads(host.client.ssh("alice", "gpus --json", check=True).stdout)["gpus"] == []
