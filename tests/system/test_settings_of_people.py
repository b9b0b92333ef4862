"""What one person gets, given at the start, from a profile, and changed while their container runs."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from testhost import ENVIRONMENT, Host, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def dora(host: Host) -> Iterator[str]:
    """A name that is free, and is free again afterwards."""
    host.client.make_key("dora")
    host.run(["mkdir", "-p", "/srv/data"])
    host.run(["sh", "-c", "echo shared > /srv/data/readme"])
    yield "dora"
    host.admin("remove-user", "dora", "--yes", "--no-archive", check=False)
    host.run(["rm", "-r", "/srv/data"])


def add(host: Host, *options: str, check: bool = True) -> Any:
    key = host.client.folder / "dora.pub"
    return host.admin("add-user", "dora", "--key", str(key), *options, check=check)


def show(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.admin("show", "dora", "--json").stdout))


def config(host: Host) -> dict[str, str]:
    item = json.loads(host.run(["lxc", "query", "/1.0/instances/dora"]).stdout)
    return {
        **item["config"],
        **{f"{name}.{key}": text for name, device in item["devices"].items() for key, text in device.items()},
    }


def test_everything_is_given_at_once_and_shown(host: Host, alice: str, dora: str) -> None:
    port = 23000
    tomorrow = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2)).date().isoformat()
    add(host, "--cpu", "1", "--memory", "1GiB", "--disk", "5GiB", "--processes", "500", "--nesting", "--expires", tomorrow,
        "--mount", "/srv/data:/data:ro:noshift", "--mount", "/srv:/srv/host:noshift", "--port", str(port), "--desktop-port", str(port + 5))  # fmt: skip
    found = config(host)
    assert (found["limits.cpu"], found["limits.memory"], found["limits.processes"]) == ("1", "1GiB", "500")
    assert (found["security.nesting"], found["security.privileged"]) == ("true", "false")
    assert found["root.size"] == "5GiB"
    assert found["labshell-mount0.readonly"] == "true"
    assert found["labshell-mount1.required"] == "false"
    assert host.client.ssh(dora, "run cat /data/readme; nproc", check=True).stdout == "shared\n1\n"
    assert host.client.ssh(dora, "run sudo touch /data/x").returncode == 1
    about = show(host)
    assert about["expires"] == tomorrow
    assert about["forwards"] == [f"{port + 5} -> 3389 desktop"]
    assert about["last_login"] is None
    host.client.ssh(dora, check=True)
    assert show(host)["last_login"].startswith("20")


def test_a_profile_is_a_set_of_them_and_an_option_comes_before_it(host: Host, dora: str) -> None:
    profile = '[profile.guest]\ncpu = 1\nmemory = "512MiB"\nmounts = "/srv/data:/data:noshift"'
    with host.configured(profile):
        done = add(host, "--profile", "phd", check=False)
        assert done.returncode == 2
        assert "no profile phd in labshell.toml; there is: guest" in done.stderr
        add(host, "--profile", "guest", "--memory", "1GiB")
    found = config(host)
    assert (found["limits.cpu"], found["limits.memory"], found["labshell-mount0.path"]) == ("1", "1GiB", "/data")


def test_set_changes_a_running_container_at_once_and_survives_a_rebuild(host: Host, dora: str) -> None:
    add(host)
    started = json.loads(host.client.ssh(dora, "status --json", check=True).stdout)["uptime_seconds"]
    done = host.admin("set", dora, "--memory", "1GiB", "--cpu", "1", "--mount", "/srv/data:/data:noshift").stdout
    assert "Changed dora:\n" in done
    assert "  mounts: none -> /srv/data at /data (owners unchanged)\n" in done
    assert "-> 1.0 GiB\n" in done
    card = host.admin("show", dora).stdout
    assert " of 1.0 GiB\n" in card
    assert "  mounts        /srv/data at /data (owners unchanged)\n" in card
    inside = host.client.ssh(dora, "run cat /data/readme; grep MemTotal /proc/meminfo", check=True).stdout
    assert inside.startswith("shared\nMemTotal:        1048576 kB")
    assert config(host)["limits.cpu"] == "1"  # LXD deals processors out later, sometimes at the next start only
    assert json.loads(host.client.ssh(dora, "status --json").stdout)["uptime_seconds"] >= started
    host.client.ssh(dora, "rebuild --yes", check=True, timeout=120)
    assert host.client.ssh(dora, "run cat /data/readme; nproc", check=True).stdout == "shared\n1\n"
    host.admin("set", dora, "--memory", "none", "--mount", "none")
    assert host.client.ssh(dora, "run ls /data/readme").returncode == 2
    assert "limits.memory" not in config(host)
    answer = json.loads(host.admin("set", dora, "--nesting", "--json").stdout)
    assert answer["waits_for_restart"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cpu", "lots"], "not possible for cpu: write 8, or 0-7"),
        (["--gpus", "99"], "There is no GPU 99; this host has: "),
        (["--gpus", "0000:ff:1f.7"], "There is no GPU 0000:ff:1f.7; this host has: "),
        (["--gpus", "first"], "not possible for gpus"),
        (["--cpu", "9999"], "cpu 9999 is not possible: this host has "),
        (["--memory", "5"], "5 has no unit for memory: write 5GiB or 5MiB"),
        (["--mount", "/srv/none:/x"], "no folder /srv/none on the host"),
        (["--mount", "/srv/data"], "not possible for mounts"),
        (["--mount", "/srv/data:/etc"], "not possible for mounts"),
        (["--expires", "2027-02-30"], "not possible for expires"),
        (["--desktop-port", "22"], "none of their ports"),
        (["--profile", "none-such"], "no profile none-such"),
        (["--nesting", "maybe"], "not possible for nesting"),
        ([], "Say what to change"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_changes_nothing(
    host: Host, alice: str, options: list[str], sentence: str
) -> None:
    before = host.run(["lxc", "config", "show", alice]).stdout
    done = host.admin("set", alice, *options, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sentence in done.stderr
    assert host.run(["lxc", "config", "show", alice]).stdout == before


def test_a_gpu_that_is_not_there_does_not_keep_a_container_from_starting(host: Host, dora: str) -> None:
    add(host, "--gpus", "all")
    done = host.client.ssh(dora, check=True)
    assert done.stderr == "Your container runs without its GPU, which is not there. Tell the administrator.\n"
    found = host.client.ssh(dora, "doctor")
    assert found.returncode == 1
    assert "It was started without its GPU" in found.stdout
    again = host.client.ssh(dora, "restart --yes", check=True)
    assert again.stderr.startswith("Your container runs without its GPU")
    asked = host.client.ssh(dora, "restart --yes --json", check=True)
    assert json.loads(asked.stdout)["notice"]["sentence"].startswith("Your container runs without its GPU")
    assert asked.stderr == ""
    assert host.client.ssh(dora, "status", check=True).stderr == ""
    host.admin("set", dora, "--gpus", "none")
    host.client.ssh(dora, "restart --yes", check=True)
    assert host.client.ssh(dora, "doctor").returncode == 0


def test_whoever_has_expired_is_locked_out_of_host_and_port_and_loses_nothing(host: Host, dora: str) -> None:
    add(host)
    port = host.ssh_port(dora)
    host.client.ssh(dora, "run echo precious > thesis", check=True)
    host.admin("set", dora, "--expires", "2020-01-01")
    assert host.client.ssh(dora, "status").returncode == 255
    assert host.client.ssh(dora, "hostname", port=port).returncode == 255
    assert host.admin("reconcile", "--plan").stdout == "Firewall rules are up to date.\n"
    host.admin("set", dora, "--expires", "none")
    assert host.client.ssh(dora, "run cat thesis", check=True).stdout == "precious\n"
    assert host.client.ssh(dora, "hostname", port=port, check=True).stdout == "dora\n"


def test_a_password_is_shown_once_opens_the_container_and_must_be_changed(host: Host, dora: str) -> None:
    made = json.loads(add(host, "--password", "--json").stdout)
    password = made["password"]
    assert len(password) == 16
    assert "password" not in show(host)
    assert password not in host.admin("log").stdout + host.read("/var/log/labshell/labshelld.log")
    argv = ["ssh", "-F", "none", "-p", str(made["port"]), "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", f"dora@{host.client.gateway}"]  # fmt: skip
    child = pexpect.spawn("nsenter", host.client.argv(argv)[1:], env=ENVIRONMENT, encoding="utf-8", timeout=20)
    child.expect("assword:")
    child.sendline(password)
    child.expect("required to change your password")
    child.expect("urrent password:")
    child.sendline(password)
    for _ in range(2):
        child.expect("ew password:")
        child.sendline("correct-horse-battery-7")
    child.expect([pexpect.EOF, r"dora:~\$ "])
    child.close(force=True)
    assert host.client.ssh(dora, "run hostname", check=True).stdout == "dora\n"


def test_whoever_has_lost_their_key_comes_in_again_with_another(host: Host, dora: str) -> None:
    port = json.loads(add(host, "--json").stdout)["port"]
    other = host.client.make_key("dora-new")
    host.admin("set", dora, "--key", str(other.with_suffix(".pub")))
    for at in (22, port):
        line = "run hostname" if at == 22 else "hostname"
        assert host.client.ssh(dora, line, port=at, key=other, check=True).stdout == "dora\n"
        assert host.client.ssh(dora, line, port=at).returncode == 255
    password = json.loads(host.admin("set", dora, "--password", "--json").stdout)["password"]
    assert len(password) == 16
    assert "must be changed" in host.client.ssh(dora, "run sudo chage -l dora", key=other).stdout
    assert password not in host.admin("log").stdout


def test_a_damaged_port_file_keeps_nobodys_door_open(host: Host, dora: str) -> None:
    """The lost key opens nothing any more, whatever else is wrong with them."""
    add(host)
    port = host.read("/public/ports/dora")
    found = str(host.client.make_key("dora-found").with_suffix(".pub"))
    host.run(["sh", "-c", "echo damaged > /public/ports/dora"])
    try:
        done = host.admin("set", dora, "--key", found, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "Host access updated" in done.stderr
        assert Path(found).read_text().split()[1] in host.read("/etc/labshell/keys/dora")
        assert host.client.ssh(dora, "status").returncode == 255
    finally:
        host.run(["sh", "-c", f"echo {port.strip()} > /public/ports/dora"])
    host.admin("set", dora, "--key", found)


def test_another_port_takes_the_persons_own_ports_along(host: Host, alice_port: int, dora: str) -> None:
    old = json.loads(add(host, "--json").stdout)["port"]
    host.client.ssh(dora, "ports add 8080", check=True)
    before = (show(host)["port"], show(host)["forwards"])
    for wrong in (alice_port, alice_port + 3, 80, 70000):
        done = host.admin("set", dora, "--port", str(wrong), check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (show(host)["port"], show(host)["forwards"]) == before
    host.admin("set", dora, "--port", "29900", "--dry-run")
    assert show(host)["port"] == old
    host.admin("set", dora, "--port", "29900")
    assert host.client.ssh(dora, "hostname", port=29900, check=True).stdout == "dora\n"
    assert show(host)["forwards"] == ["29901 -> 8080"]
    assert host.client.ssh(dora, "hostname", port=old).returncode == 255
    assert str(old) in host.read("/var/lib/labshell/resting-ports.json")


def test_list_has_a_column_for_each_thing_and_sorts_by_it(host: Host, alice: str, bob: str) -> None:
    for column in ("user", "state", "address", "port", "memory", "disk", "gpus", "last_login", "expires"):
        rows = json.loads(host.admin("list", "--sort", column, "--json").stdout)
        assert {alice, bob} <= {row["user"] for row in rows}
        assert column in rows[0]
    shown = host.admin("list").stdout
    assert re.search(rf"^alice\s+\w+\s+10\.83\.0\.\d+\s+{host.ssh_port(alice)}-", shown, re.MULTILINE)


def test_the_log_says_who_did_what_and_what_became_of_it(host: Host, alice: str) -> None:
    host.admin("set", alice, "--processes", "4000")
    host.admin("set", alice, "--cpu", "1", "--dry-run")
    host.admin("set", "nobody-there", "--cpu", "1", check=False)
    *_, done, failed = json.loads(host.admin("log", "--json", "-n", "2").stdout)
    assert (done["who"], done["verb"], done["subject"], done["processes"], done["result"]) == (
        "root",
        "set",
        alice,
        "4000",
        "done",
    )
    assert (failed["subject"], failed["result"]) == ("nobody-there", "There is no user nobody-there.")
    assert host.run(["stat", "-c", "%a", "/var/lib/labshell/changes.log"]).stdout == "600\n"


def test_a_removed_person_comes_back_with_data_keys_forwards_and_the_same_port(host: Host, dora: str) -> None:
    add(host, "--memory", "1GiB")
    port, host_keys = host.ssh_port(dora), host.read("/var/lib/labshell/host-keys/dora")
    host.client.ssh(dora, "run echo precious > thesis", check=True)
    host.client.ssh(dora, "ports add 8888", check=True)
    of_inside = host.client.make_key("of-inside")
    public = of_inside.with_suffix(".pub").read_text()
    host.client.ssh(dora, "run cat >> .ssh/authorized_keys", input=public, check=True)
    [archive] = json.loads(host.admin("remove-user", dora, "--yes", "--json").stdout)["archives"]
    try:
        assert host.client.ssh(dora, "status").returncode == 255
        host.admin("restore-user", archive, "--dry-run")
        assert "dora" not in host.admin("list").stdout
        done = host.admin("restore-user", "/etc/hostname", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        host.admin("restore-user", archive)
        assert host.ssh_port(dora) == port
        assert host.read("/var/lib/labshell/host-keys/dora") == host_keys  # for a rebuild
        assert host.client.ssh(dora, "run cat thesis", check=True).stdout == "precious\n"
        assert host.client.ssh(dora, "hostname", port=port, check=True).stdout == "dora\n"
        assert host.client.ssh(dora, "true", port=port, key=of_inside).returncode == 255
        assert json.loads(host.client.ssh(dora, "ports --json").stdout)[0]["target"] == 8888
        assert show(host)["memory_limit"] == "1GiB"
        done = host.admin("restore-user", archive, check=False)
        assert "There is a user or a container dora already." in done.stderr

        host.admin("remove-user", dora, "--yes", "--no-archive")
        listener = ["perl", "-MIO::Socket", "-e",
                    f"my $s = IO::Socket::INET->new(Listen => 1, LocalPort => {port}) or die; sleep 120"]  # fmt: skip
        with host.background(listener):
            wait_until(lambda: "LISTEN" in host.run(["ss", "-Hltn", f"sport = {port}"]).stdout, 5)
            host.admin("restore-user", archive)
        now = host.ssh_port(dora)
        assert now != port
        assert [own["port"] for own in json.loads(host.client.ssh(dora, "ports --json").stdout)] == [now + 1]
    finally:
        host.run(["rm", archive])


def test_an_archive_that_is_cut_off_restores_nobody(host: Host, dora: str) -> None:
    host.run(["sh", "-c", "head -c 100000 /dev/urandom | gzip > /tmp/cut.tar.gz"])
    done = host.admin("restore-user", "/tmp/cut.tar.gz", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    wait_until(lambda: dora not in host.admin("list").stdout, 5)
