"""Kept states of a container, by its researcher."""

from __future__ import annotations

import json
import subprocess

import pytest
from testhost import ENVIRONMENT, Host, wait_until

pytestmark = pytest.mark.root


def names(host: Host, user: str) -> list[str]:
    return [item["name"] for item in json.loads(host.client.ssh(user, "snapshot --json", check=True).stdout)]


def test_a_snapshot_brings_back_what_was_lost_and_keeps_todays_settings(host: Host, guest: str) -> None:
    host.client.ssh(guest, "run echo precious > thesis", check=True)
    assert "before" in host.client.ssh(guest, "snapshot create before", check=True).stdout
    host.client.ssh(guest, "run rm thesis; echo new > later", check=True)
    host.client.ssh(guest, "ports add 8888", check=True)
    host.run(["lxc", "config", "set", guest, "limits.memory=1GiB"])
    assert host.client.ssh(guest, "snapshot restore before").returncode == 2
    host.client.ssh(guest, "snapshot restore before --yes", check=True)
    assert host.client.ssh(guest, "run cat thesis; ls", check=True).stdout == "precious\nthesis\n"
    assert host.client.ssh(guest, "hostname", port=host.ssh_port(guest), check=True).stdout == f"{guest}\n"
    assert json.loads(host.client.ssh(guest, "ports --json", check=True).stdout)[0]["target"] == 8888
    assert "limits.memory: 1GiB" in host.run(["lxc", "config", "show", guest]).stdout
    host.client.ssh(guest, "snapshot delete before --yes", check=True)
    assert names(host, guest) == []


def test_going_back_gives_nobody_what_the_administrator_has_taken_away_since(host: Host, guest: str) -> None:
    host.run(["lxc", "config", "device", "add", guest, "data", "disk", "source=/srv", "path=/data"])
    host.run(["lxc", "config", "set", guest, "limits.processes=3000"])
    host.client.ssh(guest, "snapshot create with-data", check=True)
    host.run(["lxc", "config", "device", "remove", guest, "data"])
    host.run(["lxc", "config", "unset", guest, "limits.processes"])
    before = host.run(["lxc", "config", "show", guest]).stdout
    host.client.ssh(guest, "snapshot restore with-data --yes", check=True)
    after = host.run(["lxc", "config", "show", guest]).stdout
    lasting = [[line for line in shown.splitlines() if "volatile." not in line] for shown in (before, after)]
    assert lasting[0] == lasting[1]
    assert host.client.ssh(guest, "run test -e /data/.").returncode == 1


def test_a_key_that_was_removed_does_not_come_back_with_a_snapshot_or_an_old_container(
    host: Host, guest: str
) -> None:
    port, stolen, later = host.ssh_port(guest), host.client.make_key("stolen"), host.client.make_key("later")
    host.client.ssh(guest, "keys add", input=stolen.with_suffix(".pub").read_text(), check=True)
    host.client.ssh(guest, "snapshot create with-it", check=True)
    host.client.ssh(guest, "rebuild --force --yes", check=True, timeout=120)
    assert host.client.ssh(guest, "true", port=port, key=stolen).returncode == 0
    host.client.ssh(guest, "keys remove 2 --yes", check=True)
    host.client.ssh(guest, "keys add", input=later.with_suffix(".pub").read_text(), check=True)
    for verb in ("rebuild undo --force --yes", "snapshot restore with-it --yes"):
        host.client.ssh(guest, verb, check=True, timeout=120)
        assert host.client.ssh(guest, "true", port=port, key=stolen).returncode == 255, verb
        assert host.client.ssh(guest, "whoami", port=port, key=later).stdout == f"{guest}\n", verb
        assert host.client.ssh(guest, "true", port=port).returncode == 0, verb
    about = host.client.ssh(guest, "run stat -c '%U %G %a' .ssh .ssh/authorized_keys", check=True).stdout
    assert about == f"{guest} {guest} 700\n{guest} {guest} 600\n"


@pytest.mark.parametrize(
    "planted",
    [
        "rm -r .ssh; ln -s /etc .ssh",
        "rm .ssh/authorized_keys; ln -s /etc/passwd .ssh/authorized_keys",
        "rm .ssh/authorized_keys; mkfifo .ssh/authorized_keys",
        "rm -r .ssh; mkfifo .ssh",
        "rm -r .ssh",
        "rm .ssh/authorized_keys; mkdir -p .ssh/authorized_keys/x",
    ],
)
def test_what_lies_in_the_place_of_the_keys_neither_stops_a_restore_nor_is_written_through(
    host: Host, guest: str, planted: str
) -> None:
    passwd = host.client.ssh(guest, "run cat /etc/passwd", check=True).stdout
    host.client.ssh(guest, "run sudo sh", input=f"cd /home/{guest}; {planted}\n", check=True)
    host.client.ssh(guest, "snapshot create planted", check=True)
    host.client.ssh(guest, "snapshot restore planted --yes", check=True, timeout=60)
    assert host.client.ssh(guest, "run cat /etc/passwd", check=True).stdout == passwd
    works = host.client.ssh(guest, "true", port=host.ssh_port(guest)).returncode == 0
    assert works == ("mkdir" not in planted and "/etc .ssh" not in planted)


def test_a_snapshot_from_before_a_rebuild_that_was_taken_back_brings_the_container_back_at_its_address(
    host: Host, guest: str
) -> None:
    """Its card has another hardware address since, and the address's lease is that one's."""
    host.client.ssh(guest, "run echo precious > thesis", check=True)
    host.client.ssh(guest, "snapshot create before", check=True)
    host.client.ssh(guest, "rebuild --force --yes", check=True, timeout=120)
    host.client.ssh(guest, "rebuild undo --force --yes", check=True, timeout=120)
    for verb in ("snapshot restore before --yes", "restart --force --yes", "snapshot restore before --yes"):
        host.client.ssh(guest, verb, check=True, timeout=120)
        assert host.client.ssh(guest, "cat thesis", port=host.ssh_port(guest), check=True).stdout == "precious\n"


def test_a_user_keeps_three_and_the_fourth_gets_a_sentence(host: Host, guest: str) -> None:
    for name in ("a", "b", ""):
        host.client.ssh(guest, f"snapshot create {name}", check=True)
    done = host.client.ssh(guest, "snapshot create d")
    assert done.returncode == 2
    assert "delete one first: " in done.stderr
    assert len(names(host, guest)) == 3


@pytest.mark.parametrize(
    "words",
    [
        "create A",
        "create ../x",
        "create a/b",
        "restore none --yes",
        "delete none --yes",
        "restore",
        "frob",
        "create a b",
    ],
)
def test_a_wrong_request_changes_nothing(host: Host, alice_port: int, words: str) -> None:
    assert alice_port
    done = host.client.ssh("alice", f"snapshot {words}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert names(host, "alice") == []


@pytest.mark.parametrize("action", ["create", "restore"])
def test_a_daemon_killed_in_the_middle_leaves_the_old_state_or_the_new(host: Host, guest: str, action: str) -> None:
    host.client.ssh(guest, "run echo old > state", check=True)
    if action == "restore":
        host.client.ssh(guest, "snapshot create kept", check=True)
        host.client.ssh(guest, "run echo new > state", check=True)
    argv = host.client.argv(
        host.client.ssh_argv(guest, f"snapshot {action} kept" + (" --yes" if action == "restore" else ""))
    )
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as changing:
        wait_until(lambda: host.run(["pgrep", "-u", guest], check=False).stdout != "", 10)
        host.stop_daemon("KILL")
        assert changing.wait(30) in (0, 75)
    host.start_daemon()
    wait_until(lambda: host.client.ssh(guest, "start").returncode == 0, 60)
    assert host.client.ssh(guest, "run cat state", check=True).stdout in ("old\n", "new\n")
    assert names(host, guest) in ([], ["kept"])
