"""A fresh container in the place of the old one, by its researcher."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from testhost import ENVIRONMENT, Host, wait_until

pytestmark = pytest.mark.root


def status(host: Host, user: str) -> dict[str, Any]:
    return dict(json.loads(host.client.ssh(user, "status --json", check=True).stdout))


def instances(host: Host, user: str) -> dict[str, str]:
    """The instances whose names begin with the user's, and their states."""
    rows = host.run(["lxc", "list", "--format", "csv", "--columns", "ns"]).stdout.split()
    return {name: state for name, state in (row.split(",") for row in rows) if name.startswith(user)}


def files(host: Host, user: str) -> list[str]:
    return host.client.ssh(user, "run ls", check=True).stdout.split()


def test_rebuild_gives_a_fresh_container_with_the_same_keys_address_ports_and_host_key(
    host: Host, guest: str
) -> None:
    port = host.ssh_port(guest)
    host.run(["lxc", "config", "set", guest, "limits.memory=1GiB"])
    host.client.ssh(guest, "ports add 8888 --name jupyter", check=True)
    assert host.client.ssh(guest, "hostname", port=port, check=True).stdout == f"{guest}\n"
    host.client.ssh(guest, "run echo precious > thesis; sudo touch /etc/broken", check=True)
    before = status(host, guest)
    done = host.client.ssh(guest, "rebuild --yes", check=True, timeout=120)
    assert "the container from before the rebuild" in done.stdout
    after = status(host, guest)
    for key in ("address", "port", "host_key", "fingerprint", "memory_limit"):
        assert after[key] == before[key] is not None
    strict = ["-o", "StrictHostKeyChecking=yes"]
    inside = host.client.ssh(guest, "hostname; ls /etc/broken; cat /etc/machine-id", port=port, options=strict)
    assert inside.stdout.startswith(f"{guest}\n")
    assert "cannot access '/etc/broken'" in inside.stderr
    assert json.loads(host.client.ssh(guest, "ports --json", check=True).stdout)[0]["name"] == "jupyter"
    assert json.loads(host.admin("reconcile", "--plan", "--json").stdout) == {"remove": [], "add": []}
    assert files(host, guest) == []

    host.client.ssh(guest, "run echo newer > paper", check=True)
    host.client.ssh(guest, "rebuild undo --yes", check=True, timeout=120)
    assert files(host, guest) == ["thesis"]
    assert host.client.ssh(guest, "hostname", port=port, options=strict).stdout == f"{guest}\n"
    host.client.ssh(guest, "rebuild undo --yes", check=True, timeout=120)
    assert files(host, guest) == ["paper"]

    host.client.ssh(guest, "rebuild forget --yes", check=True)
    assert instances(host, guest) == {guest: "RUNNING"}
    done = host.client.ssh(guest, "rebuild undo --yes")
    assert (done.returncode, done.stderr) == (2, "labshell: No container is kept from before a rebuild.\n")


def test_what_was_taken_away_meanwhile_does_not_come_back_with_the_old_container(host: Host, guest: str) -> None:
    host.run(["mkdir", "-p", "/srv/shared"])
    given = [
        "--memory",
        "1GiB",
        "--disk",
        "8GiB",
        "--mount",
        "/srv/shared:/shared:noshift",
        "--expires",
        "2031-09-30",
    ]
    host.admin("set", guest, *given)
    host.client.ssh(guest, "rebuild --yes", check=True, timeout=120)
    assert host.client.ssh(guest, "run mountpoint /shared").returncode == 0
    host.admin("set", guest, "--memory", "none", "--disk", "none", "--mount", "none", "--expires", "none")
    before = json.loads(host.run(["lxc", "query", f"/1.0/instances/{guest}"]).stdout)
    host.client.ssh(guest, "rebuild undo --yes", check=True, timeout=120)
    assert host.client.ssh(guest, "run mountpoint /shared").returncode != 0
    after = json.loads(host.run(["lxc", "query", f"/1.0/instances/{guest}"]).stdout)
    assert after["devices"].keys() == before["devices"].keys()
    assert "size" not in after["devices"]["root"]
    limits = ("limits.memory", "user.labshell.expires")
    assert [after["config"].get(key, "") for key in limits] == ["", ""]


def test_a_second_rebuild_lets_the_first_old_container_go_and_removal_takes_all(host: Host) -> None:
    host.add_user("twice")
    try:
        for _ in range(2):
            host.client.ssh("twice", "rebuild --yes", check=True, timeout=120)
        assert len(instances(host, "twice")) == 2
    finally:
        removed = json.loads(host.admin("remove-user", "twice", "--yes", "--json").stdout)
    assert len(removed["archives"]) == 2
    for archive in removed["archives"]:
        host.run(["rm", archive])
    assert instances(host, "twice") == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "needs --yes"),
        ("undo", "No container is kept"),
        ("forget", "No container is kept"),
        ("forget --yes", "No container is kept"),
        ("--template bob --yes", "There is no template bob"),
        ("--template ../x --yes", "There is no template ../x"),
        ("--template", "needs a value"),
        ("frob --yes", "does not take frob"),
    ],
)
def test_a_wrong_request_changes_nothing(host: Host, alice_port: int, bob: str, words: str, sentence: str) -> None:
    assert alice_port
    assert bob
    done = host.client.ssh("alice", f"rebuild {words}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert instances(host, "alice") == {"alice": "RUNNING"}


def test_what_the_owner_has_done_to_the_host_keys_neither_stops_a_rebuild_nor_changes_them(
    host: Host, guest: str
) -> None:
    """A FIFO or a device where a key should be: whoever read it would wait for ever."""
    plant = (
        "rm /etc/ssh/ssh_host_*; mkfifo /etc/ssh/ssh_host_ed25519_key; ln -s /dev/zero /etc/ssh/ssh_host_ecdsa_key"
    )
    before = status(host, guest)["host_key"]
    host.client.ssh(guest, f"run sudo sh -c '{plant}; mkfifo /etc/ssh/ssh_host_ed25519_key.pub'", check=True)
    assert "Host key" in host.client.ssh(guest, "doctor", timeout=60).stdout
    host.client.ssh(guest, "rebuild --yes", check=True, timeout=120)
    scanned = host.client.run(["ssh-keyscan", "-t", "ed25519", "-p", str(host.ssh_port(guest)), host.client.gateway])
    assert status(host, guest)["host_key"] == before
    assert before in scanned.stdout
    host.client.ssh(guest, "rebuild forget --yes", check=True, timeout=60)


@pytest.mark.parametrize("moment", ["the new one is there", "the new one runs", "the old one has moved out"])
def test_a_daemon_killed_in_a_rebuild_leaves_the_old_container_or_the_new_and_says_which(
    host: Host, guest: str, moment: str
) -> None:
    host.client.ssh(guest, "run echo precious > thesis", check=True)
    argv = host.client.argv(host.client.ssh_argv(guest, "rebuild --yes"))

    def is_reached() -> bool:
        found = instances(host, guest)
        return {
            "the new one is there": f"{guest}--new" in found,
            "the new one runs": found.get(f"{guest}--new") == "RUNNING",
            "the old one has moved out": any(name.startswith(f"{guest}--2") for name in found),
        }[moment]

    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as rebuilding:
        wait_until(is_reached, 60)
        host.stop_daemon("KILL")
        assert rebuilding.wait(30) in (0, 75)
    host.start_daemon()
    done = host.client.ssh(guest, timeout=120)
    assert done.returncode == 0, done.stderr
    if files(host, guest) == ["thesis"]:
        assert done.stderr == "rebuild was interrupted: your container is as it was before.\n"
        assert list(instances(host, guest)) == [guest]
    else:
        assert "your new container is there" in done.stderr
        host.client.ssh(guest, "rebuild undo --yes", check=True, timeout=120)
        assert files(host, guest) == ["thesis"]
    assert host.client.ssh(guest, "status").stderr == ""
    assert host.client.ssh(guest, "hostname", port=host.ssh_port(guest)).stdout == f"{guest}\n"
