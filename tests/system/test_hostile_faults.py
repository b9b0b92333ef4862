"""Broken machines, for real: what a login says while something is broken, and that nothing is lost when it is not any more."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from hostile import FULL, engine_pid, one_sentence, restart_engine, served_or_told, share, works
from testhost import DAEMON, POOL, Host, wait_until

pytestmark = pytest.mark.root


@contextlib.contextmanager
def full(host: Host, folder: str) -> Iterator[None]:
    """The folder with its content, on a file system without a free byte."""
    kept = f"/root/kept{folder.replace('/', '-')}"
    host.run(["cp", "-a", folder, kept])
    kilobytes = int(host.run(["du", "-sk", folder]).stdout.split()[0]) + 4096
    host.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=755", "tmpfs", folder])
    try:
        host.run(["cp", "-a", f"{kept}/.", folder])
        host.run(["sh", "-c", f"cat /dev/zero > {folder}/.filler"], check=False)
        yield
    finally:
        host.run(["umount", folder])
        host.run(["rm", "-r", kept])


@contextlib.contextmanager
def read_only(host: Host, folder: str) -> Iterator[None]:
    host.run(["mount", "--bind", folder, folder])
    host.run(["mount", "-o", "remount,bind,ro", folder])
    try:
        yield
    finally:
        host.run(["umount", folder])


BROKEN = {"full": full, "read-only": read_only}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("folder", ["/public", "/etc/labshell", "/var/lib/labshell"])
def test_a_folder_that_cannot_be_written_keeps_nobody_from_what_they_have(
    host: Host, alice: str, alice_port: int, folder: str, how: str
) -> None:
    with BROKEN[how](host, folder):
        host.client.ssh(alice, "start", check=True)
        assert host.client.ssh(alice, "hostname", port=alice_port, check=True).stdout == "alice\n"
    works(host, alice, alice_port)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("folder", ["/public", "/etc/labshell", "/var/lib/labshell"])
def test_a_person_who_cannot_be_added_leaves_nothing_behind(host: Host, alice: str, folder: str, how: str) -> None:
    assert alice
    key = host.client.make_key("unlucky")
    with BROKEN[how](host, folder):
        done = host.admin("add-user", "unlucky", "--key", str(key.with_suffix(".pub")), check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr + done.stdout
        assert folder in done.stderr
    assert host.run(["getent", "passwd", "unlucky"], check=False).returncode != 0
    assert "unlucky" not in host.run(["lxc", "list", "--format", "csv"]).stdout
    assert not host.exists("/public/ports/unlucky")
    host.add_user("unlucky")
    host.remove_user("unlucky")


def test_an_engine_that_hangs_is_said_to_and_the_next_login_works(host: Host, alice: str, alice_port: int) -> None:
    host.run(["kill", "-STOP", engine_pid(host)])
    try:
        done = host.client.ssh(alice, "status", timeout=120)
        one_sentence(done)
    finally:
        host.run(["kill", "-CONT", engine_pid(host)])
    wait_until(lambda: host.client.ssh(alice, "status").returncode == 0, 60)
    works(host, alice, alice_port)


def test_a_held_firewall_lock_is_said_and_nothing_is_changed(host: Host, alice: str, alice_port: int) -> None:
    host.run(["iptables-legacy", "-w", "-t", "nat", "-F", "LABSHELL"])
    with host.client.background(host.argv(["flock", "--no-fork", "/run/xtables.lock", "sleep", "20"])):
        wait_until(lambda: not is_free(host, "/run/xtables.lock"))
        done = host.client.ssh(alice, "start", timeout=60)
        assert "holding the firewall" in one_sentence(done)
        wait_until(lambda: is_free(host, "/run/xtables.lock"), 30)
    works(host, alice, alice_port)


def is_free(host: Host, lock: str) -> bool:
    return host.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0


@pytest.mark.parametrize("how", share(["deleted", "down"], 2))
def test_a_bridge_that_is_gone_is_said_and_comes_back_with_the_engine(
    host: Host, alice: str, alice_port: int, guest: str, how: str
) -> None:
    port = host.ssh_port(guest)
    host.client.ssh(guest, "stop --yes", check=True)
    host.run(["ip", "link", *(["delete", "lxdbr0"] if how == "deleted" else ["set", "lxdbr0", "down"])])
    try:
        one_sentence(host.client.ssh(guest, "start", timeout=120))
        served_or_told(host.client.ssh(alice, "status", timeout=60))
        assert "Traceback" not in host.admin("doctor", check=False).stderr
    finally:
        restart_engine(host)
        host.run(["ip", "link", "set", "lxdbr0", "up"])
        running = host.run(["lxc", "list", "status=running", "--format", "csv", "--columns", "n"]).stdout.split()
        for name in running:  # also those of other tests' people: nothing is plugged in any more
            host.run(["lxc", "restart", "--force", name])
    for user, at in ((guest, port), (alice, alice_port)):
        host.client.ssh(user, "restart --force --yes", check=True, timeout=120)
        works(host, user, at)


def test_a_pool_that_cannot_be_written_is_said_and_nobody_is_half_added(
    host: Host, alice: str, alice_port: int, guest: str
) -> None:
    port, key = host.ssh_port(guest), str(host.client.make_key("unlucky").with_suffix(".pub"))
    host.client.ssh(guest, "stop --yes", check=True)
    with read_only(host, POOL):
        served_or_told(host.client.ssh(alice, "start", timeout=60))
        for verb in ("snapshot create one", "rebuild --yes", "start"):
            served_or_told(host.client.ssh(guest, verb, timeout=120))
        assert host.admin("add-user", "unlucky", "--key", key, check=False).returncode != 0
    assert host.run(["getent", "passwd", "unlucky"], check=False).returncode != 0
    assert "unlucky" not in host.run(["lxc", "list", "--format", "csv"]).stdout
    works(host, guest, port)
    works(host, alice, alice_port)


@pytest.mark.parametrize("moment", ["stopped", "restarted"])
def test_an_engine_that_is_stopped_or_restarted_in_the_middle_of_a_start(host: Host, guest: str, moment: str) -> None:
    port = host.ssh_port(guest)
    host.client.ssh(guest, "stop --yes", check=True)
    with host.client.background(host.client.argv(host.client.ssh_argv(guest, "start"))):
        time.sleep(0.4)
        restart_engine(host, seconds_away=4 if moment == "stopped" else 0)
    wait_until(lambda: not served_or_told(host.client.ssh(guest, "start", timeout=120)), 90)
    works(host, guest, port)


def test_a_port_that_a_killed_engine_left_behind_does_not_keep_a_container_from_starting(
    host: Host, guest: str
) -> None:
    port = host.ssh_port(guest)
    name = host.run(["lxc", "config", "device", "get", guest, "eth0", "host_name"]).stdout.strip()
    host.client.ssh(guest, "stop --yes", check=True)
    host.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "left"])
    works(host, guest, port)
    assert host.run(["ip", "link", "show", "left"], check=False).returncode != 0


def test_a_template_that_is_gone_is_said_and_the_container_stays(host: Host, guest: str) -> None:
    port = host.ssh_port(guest)
    host.client.ssh(guest, "run echo precious > thesis", check=True)
    host.run(["lxc", "move", "template", "elsewhere"])
    try:
        assert "template" in one_sentence(host.client.ssh(guest, "rebuild --yes", timeout=60))
        key = str(host.client.make_key("early").with_suffix(".pub"))
        assert "template" in one_sentence(host.admin("add-user", "early", "--key", key, check=False))
        assert host.run(["getent", "passwd", "early"], check=False).returncode != 0
    finally:
        host.run(["lxc", "move", "elsewhere", "template"])
    works(host, guest, port)
    assert host.client.ssh(guest, "run cat thesis", check=True).stdout == "precious\n"


@pytest.mark.parametrize("days", share([-400, 400], 2))
def test_a_clock_that_is_wrong_by_a_year_takes_nothing_from_anybody(
    host: Host, guest: str, alice: str, alice_port: int, days: int
) -> None:
    """Only the daemon's clock: the machine's is everybody's."""
    port = host.ssh_port(guest)
    host.client.ssh(guest, "snapshot create before", check=True)
    script = f"import time; now = time.time; time.time = lambda: now() + {days * 86400}\nfrom labshell.daemon.main import main; main()"
    host.run(["tee", "/usr/local/lib/wrong_clock.py"], input=script)
    host.restart_daemon("/opt/labshell/venv/bin/python -I /usr/local/lib/wrong_clock.py")
    try:
        for user, at in ((guest, port), (alice, alice_port)):
            works(host, user, at)
        host.client.ssh(guest, "rebuild --yes", check=True, timeout=120)
        host.admin("reconcile")
        host.add_user("timely")
        works(host, "timely", host.ssh_port("timely"))
        host.remove_user("timely")
    finally:
        host.run(["rm", "/usr/local/lib/wrong_clock.py"])
        host.restart_daemon()
    for user, at in ((guest, port), (alice, alice_port)):
        works(host, user, at)
    host.client.ssh(guest, "rebuild undo --yes", check=True, timeout=120)


# Damaged files ------------------------------------------------------------------------------------------

DAMAGES = {
    "emptied": "> {file}",
    "binary": "head -c 4096 /dev/urandom > {file}",
    "huge": "head -c 20M /dev/zero > {file}",
    "a folder": "rm {file} && mkdir {file}",
    "a link": "rm {file} && ln -s /etc/shadow {file}",
    "a link to nothing": "rm {file} && ln -s /nonexistent/x {file}",
    "gone": "rm {file}",
    "a line too many": "echo surplus >> {file}",
    "a fifo": "rm {file} && mkfifo {file}",
}


def state_files(host: Host, user: str) -> list[str]:
    """Every file that labshell keeps for itself or for `user`; what is somebody else's alone is left out."""
    find = "find /public /etc/labshell/keys /var/lib/labshell -type f ! -path '*/archive/*' ! -name '*.pub'"
    every = host.run(["sh", "-c", find]).stdout.split()
    people = set(host.run(["ls", "/public/ports"]).stdout.split()) - {user} | {"unlucky"}
    return sorted(name for name in every if name.rpartition("/")[2] not in people)


@contextlib.contextmanager
def damaged(host: Host, file: str, how: str) -> Iterator[None]:
    host.run(["cp", "-a", file, "/root/whole"])
    host.run(["sh", "-c", how.format(file=file)])
    try:
        yield
    finally:
        host.run(["rm", "-rf", file])
        host.run(["cp", "-a", "/root/whole", file])


@pytest.mark.parametrize("damage", share(DAMAGES, 3))
def test_a_damaged_file_ends_in_a_container_or_one_sentence_and_harms_nobody_else(
    host: Host, alice: str, alice_port: int, guest: str, damage: str
) -> None:
    port, key = host.ssh_port(guest), host.client.make_key("unlucky").with_suffix(".pub")
    host.client.ssh(guest, "ports add 8080", check=True)
    host.run(["tee", "/var/lib/labshell/activity.json"], input="{}")
    shadow = host.read("/etc/shadow")
    files = state_files(host, guest)
    assert f"/public/ports/{guest}" in files
    for file in files:
        with damaged(host, file, DAMAGES[damage]):
            done = host.client.ssh(guest, "start", timeout=60)
            if done.returncode != 255 or not file.startswith("/etc/labshell/keys"):
                served_or_told(done)
            assert served_or_told(host.client.ssh(alice, "start", timeout=60)) == "", file
            host.client.ssh(alice, "true", port=alice_port, check=True)
            if "port" in file:
                served_or_told(host.admin("add-user", "unlucky", "--key", str(key), check=False))
                assert host.admin("doctor", check=False).returncode in (0, 1)
        host.admin("remove-user", "unlucky", "--yes", "--no-archive", check=False)
    assert host.read("/etc/shadow") == shadow
    works(host, guest, port)
    assert host.client.ssh(guest, "ports", check=True).stdout.count("to port 8080") == 1


@pytest.mark.parametrize("file", ["/public/ports/guest", "/public/next-port", "/etc/labshell/labshell.toml"])
def test_a_file_cut_at_any_length_gives_the_right_port_or_a_sentence(
    host: Host, alice: str, alice_port: int, guest: str, file: str
) -> None:
    port, whole = host.ssh_port(guest), host.read(file)
    lengths = range(0, len(whole), 1 if len(whole) < 10 else len(whole) // (30 if FULL else 3))
    for length in lengths:
        with damaged(host, file, f"truncate --size {length} {{file}}"):
            if file.endswith(".toml"):
                host.stop_daemon()
                host.steps(f"start_by_hand labshelld {DAEMON}; wait_until 5 is_stopped labshelld", check=False)
            served_or_told(host.client.ssh(guest, "start"))
            served_or_told(host.client.ssh(alice, "start"))
            assert "Traceback" not in host.admin("doctor", check=False).stderr
        if file.endswith(".toml"):
            host.stop_daemon()
            host.start_daemon()
    works(host, guest, port)
    works(host, alice, alice_port)


def test_everything_killed_at_once_comes_back_with_the_same_ports(host: Host, alice: str, alice_port: int) -> None:
    before = host.run(["sh", "-c", "cd /public/ports && grep -r ."]).stdout
    host.stop_daemon("KILL")
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    host.run(["nft", "delete", "table", "inet", "labshell"], check=False)
    host.run(["rm", "-f", "/run/labshell/labshell.sock", "/run/labshell/admin.sock"])
    done = host.client.ssh(alice, "start")
    assert re.search("not running|administrator", one_sentence(done))
    host.start_daemon()
    works(host, alice, alice_port)
    assert host.run(["sh", "-c", "cd /public/ports && grep -r ."]).stdout == before
