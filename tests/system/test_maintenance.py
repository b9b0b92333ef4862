"""drain and undrain, as an administrator does before and after a new kernel or driver."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testhost import Host

pytestmark = pytest.mark.root


@pytest.fixture
def drained(host: Host, alice_port: int, bob_port: int) -> Iterator[None]:
    """Alice's container stopped, bob's running, and the host drained."""
    assert alice_port
    assert bob_port
    host.client.ssh("alice", "stop --yes", check=True)
    host.client.ssh("bob", "start", check=True)
    host.admin("drain", "--message", "new driver until 18:00.")
    yield
    host.admin("undrain")
    host.client.ssh("alice", "start", check=True)
    host.client.ssh("bob", "start", check=True)


def test_nothing_starts_any_more_and_whoever_runs_goes_on(host: Host, drained: None) -> None:
    done = host.client.ssh("alice", "start")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "labshell: New starts are disabled (maintenance): new driver until 18:00.\n"
    assert "new driver until 18:00." in host.client.ssh("alice", "status", check=True).stdout
    assert "new driver until 18:00." in host.client.ssh("alice", "doctor").stdout
    for verb in ("", "enter hostname", "rebuild --yes", "restart --yes"):
        assert host.client.ssh("alice", verb).returncode == 75
    assert host.client.ssh("bob", "run hostname", check=True).stdout == "bob\n"
    host.restart_daemon()
    assert host.client.ssh("alice", "start").returncode == 75
    host.admin("undrain")
    assert host.client.ssh("alice", "start").returncode == 0


def test_a_plan_lists_what_would_be_touched_and_changes_nothing(host: Host, bob_port: int) -> None:
    assert bob_port
    host.client.ssh("bob", "start", check=True)
    rows = json.loads(host.admin("drain", "--plan", "--json").stdout)["containers"]
    assert "bob" in [row["name"] for row in rows]
    assert host.client.ssh("bob", "restart --yes", check=True).returncode == 0


def test_stopping_keeps_everybodys_state_first_if_that_is_wanted(host: Host, drained: None) -> None:
    done = host.admin("drain", "--stop", "--snapshot")
    assert "were running" in done.stdout
    states = host.run(["lxc", "list", "--format", "csv", "--columns", "s"]).stdout.split()
    assert set(states) == {"STOPPED"}
    assert "Stopped 1 of " in done.stdout
    assert "start when they are used, or with: labshell-admin undrain --start" in host.admin("undrain").stdout
    assert "started" in host.admin("undrain", "--start").stdout
    assert host.client.ssh("bob", "status", check=True).stdout.split()[1] == "running"
    [kept] = json.loads(host.client.ssh("bob", "snapshot --json", check=True).stdout)
    assert kept["name"].startswith("before-maintenance-")
    host.client.ssh("bob", f"snapshot delete {kept['name']} --yes", check=True)


def test_the_administrator_starts_stops_and_looks_into_a_container(host: Host, guest: str) -> None:
    assert host.admin("stop", guest, "--dry-run").stdout.endswith("Nothing was changed.\n")
    assert host.client.ssh(guest, "run hostname", check=True).stdout == "guest\n"
    assert host.admin("stop", guest).stdout.endswith("guest is stopped.\n")
    assert host.admin("start", guest, "--dry-run").stdout.endswith("Nothing was changed.\n")
    assert json.loads(host.admin("start", guest, "--json").stdout) == {"name": guest, "state": "running"}
    assert host.client.ssh(guest, "hostname", port=host.ssh_port(guest), check=True).stdout == "guest\n"
    assert host.admin("enter", guest, "id", "-un").stdout == "root\n"
    assert host.admin("enter", guest, "exit 7", check=False).returncode == 7
    assert host.admin("stop", guest, "--force").stdout.endswith("guest is stopped.\n")
    host.admin("start", guest)


@pytest.mark.parametrize("command", ["start", "stop", "enter"])
@pytest.mark.parametrize("name", ["none-such", "template", "../x", "alice--new"])
def test_what_is_nobodys_is_refused_with_a_sentence(host: Host, alice: str, command: str, name: str) -> None:
    done = host.admin(command, name, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
