"""A researcher's own forwards and the laptop's files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from testhost import ENVIRONMENT, Host, wait_until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def page(host: Host, alice_port: int) -> Iterator[int]:
    """Something that answers on port 8888 of alice's container: its sshd, moved there too."""
    assert alice_port
    settings = "/etc/ssh/sshd_config.d/90-test.conf"
    host.client.ssh(
        "alice", f"run --root printf 'Port 22\\nPort 8888\\n' > {settings}; systemctl restart ssh", check=True
    )
    yield 8888
    host.client.ssh("alice", f"run --root rm {settings}; systemctl restart ssh", check=True)


@pytest.fixture
def web_page(host: Host, page: int) -> Iterator[int]:
    """The same, and no forward is left afterwards."""
    yield page
    for forward in json.loads(host.client.ssh("alice", "ports --json", check=True).stdout):
        host.client.ssh("alice", f"ports remove {forward['port']}", check=True)


def answers(host: Host, port: int, *, other: bool = False) -> bool:
    place = host.other if other else host.client
    script = f'exec 3<>/dev/tcp/{place.gateway}/{port} && read -r -t 3 line <&3; echo "$line"'
    return place.run(["timeout", "5", "bash", "-c", script], check=False).stdout.startswith("SSH-2.0")


def test_an_own_forward_works_lasts_over_a_restart_and_is_removed(host: Host, alice_port: int, web_page: int) -> None:
    shown = host.client.ssh("alice", f"ports add {web_page} --name jupyter", check=True).stdout
    assert f":{alice_port + 1} is forwarded to port {web_page}" in shown
    assert "jupyter" in shown
    assert answers(host, alice_port + 1)
    host.restart_daemon()
    host.run(["iptables-legacy", "-t", "nat", "-F", "LABSHELL"])
    host.admin("reconcile")
    assert answers(host, alice_port + 1)
    host.client.ssh("alice", f"ports remove {web_page}", check=True)
    assert not answers(host, alice_port + 1)
    assert json.loads(host.client.ssh("alice", "ports --json", check=True).stdout) == []


def test_whom_a_program_inside_answers_is_said(host: Host, web_page: int) -> None:
    def listens() -> str | None:
        [forward] = json.loads(host.client.ssh("alice", "ports --json", check=True).stdout)
        return str(forward["listens"])

    assert "listens" not in host.client.ssh("alice", f"ports add {web_page}", check=True).stdout
    assert listens() == "everywhere"
    host.client.ssh("alice", f"ports remove {web_page}", check=True)
    shown = host.client.ssh("alice", "ports add 8889", check=True).stdout
    assert ("nothing listens on port 8889 yet" in shown, listens()) == (True, "nowhere")
    serve = "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, pack_sockaddr_in(8889, INADDR_LOOPBACK)); listen(S, 1); sleep 20"
    with host.client.background(host.client.ssh_argv("alice", f"run exec perl -e '{serve}'")):
        wait_until(lambda: listens() == "localhost")
        assert "listens on localhost only" in host.client.ssh("alice", "ports", check=True).stdout


def test_a_port_on_which_the_host_listens_is_not_handed_out(host: Host, alice_port: int, web_page: int) -> None:
    listen = f"import socket, sys; s = socket.create_server(('127.0.0.1', {alice_port + 1})); print('on', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with host.background(["/usr/bin/python3", "-c", listen], **pipes) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "on\n"
        host.client.ssh("alice", f"ports add {web_page}", check=True)
        taken = host.admin("set", "alice", "--desktop-port", str(alice_port + 1), check=False)
        service.communicate(timeout=20)  # it ends with its standard input
    assert (taken.returncode, f"has port {alice_port + 1} already" in taken.stderr) == (2, True)
    assert not answers(host, alice_port + 1)
    assert answers(host, alice_port + 2)


def test_a_port_that_two_users_files_hold_leads_to_neither(host: Host, alice_port: int, bob_port: int) -> None:
    """Whatever the next login or reconcile makes of it; each has their own again when the file is right again."""
    mine = {user: host.ssh_port(user) for user in ("alice", "bob")}
    host.run(["tee", "/public/ports/bob"], input=f"{alice_port}\n")
    try:
        host.admin("reconcile")
        for user in ("alice", "bob"):
            host.client.ssh(user, "start", check=True)
            assert not answers(host, alice_port)
            assert not answers(host, bob_port)
    finally:
        host.run(["tee", "/public/ports/bob"], input=f"{bob_port}\n")
        host.admin("reconcile")
    for user, port in mine.items():
        assert host.client.ssh(user, "hostname", port=port, check=True).stdout == f"{user}\n"


def test_a_forward_for_one_network_is_closed_to_the_others(host: Host, alice_port: int, web_page: int) -> None:
    host.client.ssh("alice", f"ports add {web_page} --from 198.18.0.0/24", check=True)
    assert answers(host, alice_port + 1)
    assert not answers(host, alice_port + 1, other=True)


def test_a_forward_for_every_network_is_one_without_a_limit(host: Host, alice_port: int, web_page: int) -> None:
    for limit in ("198.18.0.0/24", "0.0.0.0/0"):
        host.client.ssh("alice", f"ports add {web_page} --from {limit}", check=True)
    assert answers(host, alice_port + 1, other=True)
    assert host.admin("reconcile").stdout == "Firewall rules are up to date.\n"


def test_a_forward_ends_with_its_time(host: Host, alice_port: int, web_page: int) -> None:
    host.client.ssh("alice", f"ports add {web_page} --for 1m", check=True)
    assert answers(host, alice_port + 1)
    stored = json.loads(host.run(["lxc", "config", "get", "alice", "user.labshell.forwards"]).stdout)
    stored[0]["until"] -= 60
    host.run(["lxc", "config", "set", "alice", "user.labshell.forwards", json.dumps(stored)])
    wait_until(lambda: not answers(host, alice_port + 1), 45)
    assert json.loads(host.client.ssh("alice", "ports --json", check=True).stdout) == []


def test_several_at_once_get_a_port_each_and_one_too_many_gets_a_sentence(
    host: Host, alice_port: int, web_page: int
) -> None:
    commands = [host.client.argv(host.client.ssh_argv("alice", f"ports add {5000 + number}")) for number in range(6)]
    adding = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=ENVIRONMENT) for argv in commands]
    assert [process.wait(60) for process in adding] == [0] * 6
    for number in range(6, 9):
        host.client.ssh("alice", f"ports add {5000 + number}", check=True)
    done = host.client.ssh("alice", "ports add 5009")
    assert done.returncode == 2
    assert "All your ports are in use" in done.stderr
    ports = {forward["port"] for forward in json.loads(host.client.ssh("alice", "ports --json", check=True).stdout)}
    assert ports == set(range(alice_port + 1, alice_port + 10))
    assert web_page not in ports


@pytest.mark.parametrize(
    "words",
    [
        "add",
        "add x",
        "add 0",
        "add 70000",
        "add 22",
        "add 80 --for ever",
        "add 80 --from x",
        "add 80 --name a/b",
        "remove 1",
        "frobnicate",
    ],
)
def test_a_wrong_request_changes_nothing(host: Host, alice_port: int, words: str) -> None:
    assert alice_port
    done = host.client.ssh("alice", f"ports {words}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert json.loads(host.client.ssh("alice", "ports --json", check=True).stdout) == []


def test_the_laptops_files_work_as_they_are_printed(host: Host, alice_port: int) -> None:
    """`ssh alice.HOST` starts the container and logs in, with nothing asked and nothing believed."""
    assert alice_port
    name = host.run(["hostname"]).stdout.strip()
    folder = host.client.folder
    config = host.client.ssh("alice", "ssh-config", check=True).stdout
    known = folder / "exact_known_hosts"
    known.write_text(host.client.ssh("alice", "known-hosts", check=True).stdout)
    file = folder / "exact_config"
    config = config.replace("ssh -T", f"ssh -F {file} -T")
    gateway = f"Host {name}\nHostName {host.client.gateway}\nHostKeyAlias {name}\n"
    strict = f"StrictHostKeyChecking yes\nBatchMode yes\nUserKnownHostsFile {known}\nIdentityFile {folder / 'alice'}\nLogLevel ERROR\n"
    file.write_text(f"{gateway}{config}Host *\n{strict}")
    host.client.ssh("alice", "stop --yes", check=True)
    ssh = ["ssh", "-F", str(file)]
    assert host.client.run([*ssh, f"alice.{name}", "hostname"], env=ENVIRONMENT).stdout == "alice\n"
    direct = ["-o", f"HostKeyAlias=[{name}]:{alice_port}", "-p", str(alice_port)]
    assert host.client.run([*ssh, *direct, name, "hostname"], env=ENVIRONMENT).stdout == "alice\n"
