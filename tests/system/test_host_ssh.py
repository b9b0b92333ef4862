"""What a researcher can make the host's sshd do: reach labshell, and nothing else.

Every refusal has its counterpart: the same attempt succeeds for an administrator, or it would prove nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from testhost import Client, Host, wait_until

pytestmark = pytest.mark.root

READ_BANNER = "exec 3<>/dev/tcp/127.0.0.1/{port} && timeout 5 head -c 4 <&3"
SOCKS_BANNER = r"""exec 3<>/dev/tcp/127.0.0.1/{port} && {{
printf '\x05\x01\x00' >&3; timeout 5 head -c 2 <&3 >/dev/null
printf '\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16' >&3; timeout 5 head -c 10 <&3 >/dev/null; timeout 5 head -c 4 <&3; }}"""
USER_SOCKET = "/run/labshell/labshell.sock"


@pytest.fixture(scope="module")
def warden(host: Host) -> Iterator[str]:
    """An administrator's account: an ordinary shell, not in group labshell."""
    public_key = host.client.make_key("warden").with_suffix(".pub").read_text()
    host.run(["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", "warden"])
    install = (
        "install -d -o warden -m 700 ~warden/.ssh && install -o warden -m 600 /dev/stdin ~warden/.ssh/authorized_keys"
    )
    host.run(["bash", "-c", install], input=public_key)
    yield "warden"
    host.run(["userdel", "--remove", "warden"], check=False)


@pytest.fixture(autouse=True, scope="module")
def drop_in_alone(host: Host, alice: str) -> Iterator[None]:
    """Without the restrictions in front of each key: sshd's drop-in has to hold by itself."""
    keys = f"/etc/labshell/keys/{alice}"
    before = host.read(keys)
    host.run(["install", "-m", "0644", "/dev/stdin", keys], input=before.replace("restrict,pty ", ""))
    assert "restrict" not in host.read(keys)
    yield
    host.run(["install", "-m", "0644", "/dev/stdin", keys], input=before)


@contextlib.contextmanager
def connected(client: Client, user: str, *options: str) -> Iterator[None]:
    """An ssh connection without a command, with these options, for the length of the block."""
    with client.background(client.ssh_argv(user, options=["-N", *options])):
        yield


def is_listening(client: Client, port: int) -> bool:
    return f":{port} " in client.run(["ss", "-ltn"]).stdout


def through(client: Client, user: str, *options: str, port: int, probe: str = READ_BANNER) -> str:
    """What comes back through a port that ssh opened on the client."""
    with connected(client, user, *options):
        wait_until(lambda: is_listening(client, port))
        return client.run(["bash", "-c", probe.format(port=port)], check=False).stdout


def uid(host: Host, user: str) -> str:
    return host.run(["id", "-u", user]).stdout.strip()


def owned(host: Host, user: str) -> str:
    """The files of this user's on the host, wherever one could be left, but those of sshd's own (ExposeAuthInfo)."""
    find = ["find", "/tmp", "/run", "/home", "/var/tmp", "/dev/shm", "-xdev", "-uid", uid(host, user), "!", "-name", "sshauth.*"]
    return host.run(find, check=False).stdout


def test_a_direct_channel_to_a_port_of_the_host_is_refused(host: Host, alice: str, warden: str) -> None:
    options = ["-W", "127.0.0.1:22"]
    assert host.client.ssh(warden, options=options).stdout.startswith("SSH-")
    refused = host.client.ssh(alice, options=options)
    assert refused.returncode != 0
    assert refused.stdout == ""


def test_local_forwarding_reaches_no_port_of_the_host(host: Host, alice: str, warden: str) -> None:
    options = ["-L", "7101:127.0.0.1:22"]
    assert through(host.client, warden, *options, port=7101) == "SSH-"
    assert through(host.client, alice, *options, port=7101) == ""


def test_local_forwarding_reaches_no_socket_of_the_host(host: Host, alice: str, warden: str) -> None:
    greeter = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/run/greeter'); s.listen(); import os\n"
    greeter += "os.chmod('/run/greeter', 0o777)\nwhile True: s.accept()[0].sendall(b'SSH-')"
    host.run(["bash", "-c", 'python3 -c "$0" >/dev/null 2>&1 & echo $! >/run/greeter.pid', greeter])
    try:
        wait_until(lambda: host.exists("/run/greeter"))
        options = ["-L", "7102:/run/greeter"]
        assert through(host.client, warden, *options, port=7102) == "SSH-"
        assert through(host.client, alice, *options, port=7102) == ""
    finally:
        host.run(["bash", "-c", "kill $(cat /run/greeter.pid); rm /run/greeter*"])


def test_the_daemons_socket_cannot_be_reached_around_labshell(host: Host, alice: str) -> None:
    ask = r"""exec 3<>/dev/tcp/127.0.0.1/{port} && {{
printf '{{"method":"org.varlink.service.GetInfo"}}\0' >&3; timeout 5 head -c 4 <&3 | tr '\0' .; }}"""
    assert through(host.client, alice, "-L", f"7103:{USER_SOCKET}", port=7103, probe=ask) == ""


def test_dynamic_forwarding_is_refused(host: Host, alice: str, warden: str) -> None:
    assert through(host.client, warden, "-D", "7104", port=7104, probe=SOCKS_BANNER) == "SSH-"
    assert through(host.client, alice, "-D", "7104", port=7104, probe=SOCKS_BANNER) == ""


def test_remote_forwarding_opens_no_port_on_the_host(host: Host, alice: str, warden: str) -> None:
    options = ["-R", "7105:127.0.0.1:9"]

    def is_open() -> bool:
        return ":7105 " in host.run(["ss", "-ltn"]).stdout

    with connected(host.client, warden, *options):
        wait_until(is_open)
    wait_until(lambda: not is_open())
    refused = host.client.ssh(alice, options=["-N", "-o", "ExitOnForwardFailure=yes", *options])
    assert refused.returncode != 0
    assert "remote port forwarding failed" in refused.stderr
    with connected(host.client, alice, *options):
        wait_until(lambda: uid(host, alice) in host.run(["ps", "-eo", "uid"]).stdout)
        assert not is_open()


def test_remote_forwarding_leaves_no_socket_on_the_host(host: Host, alice: str, warden: str) -> None:
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-R"]
    try:
        refused = host.client.ssh(alice, options=[*options, "/var/tmp/left-behind:127.0.0.1:9"])
        assert refused.returncode != 0
        assert not host.exists("/var/tmp/left-behind")
        assert owned(host, alice) == ""
    finally:
        host.run(["rm", "-f", "/var/tmp/left-behind"])
    with connected(host.client, warden, *options[1:], "/home/warden/socket:127.0.0.1:9"):
        wait_until(lambda: host.exists("/home/warden/socket"))


def test_no_tunnel_device_is_made(host: Host, alice: str) -> None:
    before = host.run(["ip", "-brief", "link"]).stdout
    done = host.client.ssh(alice, options=["-N", "-w", "any:any", "-o", "ExitOnForwardFailure=yes"])
    assert done.returncode != 0
    assert host.run(["ip", "-brief", "link"]).stdout == before


def test_x11_is_refused(host: Host, alice: str) -> None:
    done = host.client.ssh(alice, "status", options=["-Y"], env={"DISPLAY": "127.0.0.1:9"})
    assert "X11 forwarding request failed" in done.stderr
    assert ":6010 " not in host.run(["ss", "-ltn"]).stdout


def test_the_agent_stays_at_home(host: Host, alice: str, warden: str, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with host.client.background(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL):
        wait_until(agent.exists)
        env = {"SSH_AUTH_SOCK": str(agent)}
        shown = host.client.ssh(warden, "echo $SSH_AUTH_SOCK", options=["-A"], env=env).stdout
        assert shown.startswith("/tmp/ssh-")
        session = ["env", f"SSH_AUTH_SOCK={agent}", *host.client.ssh_argv(alice, tty=True, options=["-A"])]
        with host.client.background(session, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() != ""  # the session runs, and would have its agent by now
            assert owned(host, alice) == ""


@contextlib.contextmanager
def planted(host: Host, user: str, content: dict[str, str]) -> Iterator[None]:
    """Files in a home, as its user would have put them there if they could."""
    home = f"/home/{user}"
    try:
        for name, text in content.items():
            host.run(["install", "-D", "-m", "0644", "/dev/stdin", f"{home}/{name}"], input=text)
        yield
    finally:
        host.run(["rm", "-rf", *(f"{home}/{name.partition('/')[0]}" for name in content)])


def test_a_researchers_home_is_empty_and_roots(host: Host, alice: str) -> None:
    assert (
        host.run(["stat", "-c", "%U:%G %a", "/home", f"/home/{alice}"]).stdout.split("\n")[:2]
        == ["root:root 755"] * 2
    )
    assert host.run(["ls", "-A", f"/home/{alice}"]).stdout == ""


def test_files_in_a_home_run_nothing_and_set_nothing(host: Host, alice: str) -> None:
    evil = "LD_PRELOAD=/nowhere/evil.so\nPYTHONINSPECT=1\n"
    files = {
        ".ssh/rc": "touch /var/tmp/rc-ran\n",
        ".ssh/environment": evil,
        ".pam_environment": evil,
        ".profile": "touch /var/tmp/rc-ran\n",
        ".bashrc": "touch /var/tmp/rc-ran\n",
    }
    with planted(host, alice, files):
        try:
            for command in ([], ["status"]):
                done = host.client.ssh(alice, *command)
                assert done.returncode == 0, done
                assert "evil.so" not in done.stdout + done.stderr  # the loader complains when it is told to load it
                assert not host.exists("/var/tmp/rc-ran")
        finally:
            host.run(["rm", "-f", "/var/tmp/rc-ran"])


def test_the_rc_file_of_an_administrator_still_runs(host: Host, warden: str) -> None:
    with planted(host, warden, {".ssh/rc": "touch /home/warden/rc-ran\n"}):
        # planted by root, but readable, which is what sshd asks for
        host.run(["chown", "-R", "warden", "/home/warden/.ssh"])
        public_key = host.client.make_key("warden").with_suffix(".pub").read_text()
        host.run(
            ["install", "-o", "warden", "-m", "600", "/dev/stdin", "/home/warden/.ssh/authorized_keys"],
            input=public_key,
        )
        host.client.ssh(warden, "true", check=True)
        assert host.exists("/home/warden/rc-ran")
    host.run(
        ["install", "-D", "-o", "warden", "-m", "600", "/dev/stdin", "/home/warden/.ssh/authorized_keys"],
        input=public_key,
    )
    host.run(["chown", "warden", "/home/warden/.ssh"])


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONINSPECT", "PYTHONPATH", "BASH_ENV", "LC_EVIL", "TERMCAP"])
def test_a_client_sends_no_variable_but_the_language(host: Host, alice: str, name: str) -> None:
    plain = host.client.ssh(alice, "status", "--json")
    done = host.client.ssh(alice, "status", "--json", options=["-o", f"SetEnv={name}=/nowhere/evil.so"])
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)


@pytest.mark.parametrize(
    "command", ["/bin/sh", "bash -i", "sh -c id", "$(id)", "`id`", "status; id", "status | id", "x\nid"]
)
def test_no_program_of_the_host_runs(host: Host, alice: str, command: str) -> None:
    done = host.client.ssh(alice, command)
    assert done.returncode != 0
    assert "uid=" not in done.stdout + done.stderr


def test_an_administrator_is_not_affected(host: Host, warden: str) -> None:
    done = host.client.ssh(warden, "id -un; tty || true", check=True)
    assert done.stdout.splitlines()[0] == "warden"
    sent: Sequence[str] = ["-o", "SetEnv=LC_EVIL=arrives"]
    assert host.client.ssh(warden, "echo $LC_EVIL", options=sent).stdout == "arrives\n"
    assert (
        host.client.ssh(warden, tty=True, input="echo in a shell of $USER; exit\n").stdout.count(
            "in a shell of warden"
        )
        == 1
    )


def test_one_persons_logins_are_counted(host: Host, alice_port: int) -> None:
    """What a login may start as that person on the host: sshd has the limit before it starts the login shell."""
    assert alice_port
    with host.client.background(host.client.ssh_argv("alice", "run sleep 60")):
        wait_until(lambda: host.run(["pgrep", "-u", "alice", "sshd"], check=False).stdout != "", 15)
        [pid, *_] = host.run(["pgrep", "-u", "alice", "sshd"]).stdout.split()
        assert "Max processes             512                  512" in host.read(f"/proc/{pid}/limits")
