"""Programs and files at the host's port 22: inside the container, byte for byte, and never on the host."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import pexpect
import pytest
from testhost import ENVIRONMENT, Completed, Host, wait_until

pytestmark = pytest.mark.root

ODD_NAMES = ["plain", "with space", "quote'quote", 'double"quote', "dollar$HOME", "semi;id", "-dash", "ümläut", "*"]


def settings(host: Host, name: str = "alice") -> list[str]:
    """The client's options, as every OpenSSH program takes them."""
    argv = host.client.ssh_argv(name)
    return ["-F", "none", *argv[argv.index("-o") : -1]]


def address(host: Host, name: str = "alice") -> str:
    return f"{name}@{host.client.gateway}"


def client(host: Host, argv: list[str], **options: object) -> Completed:
    return host.client.run(argv, env=ENVIRONMENT, timeout=180, **options)  # type: ignore[arg-type]


def tree(folder: Path, count: int) -> Path:
    """A folder with files of odd names, one large file, and `count` small ones."""
    (folder / "sub").mkdir(parents=True)
    for name in ODD_NAMES:
        (folder / name).write_bytes(os.urandom(1000))
    (folder / "large").write_bytes(os.urandom(5 << 20))
    for number in range(count):
        (folder / "sub" / f"{number:05}").write_bytes(str(number).encode())
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_run_gives_streams_and_exit_status_byte_for_byte(host: Host, alice_port: int) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "run", "cat; printf 'to\\0err\\377' >&2; exit 7"))
    payload = os.urandom(3 << 20)
    done = subprocess.run(argv, input=payload, capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.stdout == payload
    assert done.stderr == b"to\0err\xff"
    assert done.returncode == 7


def test_a_script_on_standard_input_is_not_thrown_away(host: Host, alice_port: int) -> None:
    assert alice_port
    done = host.client.ssh("alice", input="echo one\necho two\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "run bash < FILE" in done.stderr
    assert host.client.ssh("alice", "run bash", input="echo one; exit 3\n").stdout == "one\n"
    assert "Log in" in host.client.ssh("alice", input="", check=True).stdout


@pytest.mark.parametrize("status", [0, 1, 7, 130, 255])
def test_run_ends_with_the_programs_status_and_prints_nothing_else(host: Host, alice_port: int, status: int) -> None:
    assert alice_port
    done = host.client.ssh("alice", f"run exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_whatever_is_typed_after_run_arrives_or_is_refused_in_one_sentence(host: Host, alice_port: int) -> None:
    brackets = "[[ -n ${HOME} ]] && echo {a,{b,{c,d}}} \"{'x': [{'y': [1]}]}\""
    assert host.client.ssh("alice", f"run {brackets}", check=True).stdout == "a b c d {'x': [{'y': [1]}]}\n"
    for command, sentence in (("run : " + "x" * 70_000, "too long"), ("run echo \udcff", "not valid UTF-8")):
        done = host.client.ssh("alice", command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert sentence in done.stderr


def test_run_is_the_user_and_with_root_is_root_and_always_inside(host: Host, alice_port: int) -> None:
    assert alice_port
    assert host.client.ssh("alice", "run id -un; hostname; pwd", check=True).stdout == "alice\nalice\n/home/alice\n"
    assert host.client.ssh("alice", "run --root id -un; hostname", check=True).stdout == "root\nalice\n"


def test_run_starts_a_stopped_container(host: Host, alice_port: int) -> None:
    assert alice_port
    host.client.ssh("alice", "stop --yes", check=True)
    assert host.client.ssh("alice", "run hostname", check=True).stdout == "alice\n"


def test_enter_and_run_work_with_the_containers_network_and_sshd_broken(host: Host, guest: str) -> None:
    host.client.ssh(guest, "run --root systemctl disable --now ssh; ip link set eth0 down", check=True)
    assert host.client.ssh(guest, "run hostname", check=True).stdout == f"{guest}\n"


def test_sftp_scp_and_rsync_carry_a_tree_there_and_back(host: Host, alice_port: int, tmp_path: Path) -> None:
    assert alice_port
    sent = tree(tmp_path / "sent", 200)
    ssh = shlex.join(["ssh", *settings(host)])
    for number, (there, back) in enumerate([
        (["scp", *settings(host), "-qr", str(sent), f"{address(host)}:tree0"],
         ["scp", *settings(host), "-qr", f"{address(host)}:tree0", str(tmp_path / "back0")]),
        (["scp", "-O", *settings(host), "-qr", str(sent), f"{address(host)}:tree1"],
         ["scp", "-O", *settings(host), "-qr", f"{address(host)}:tree1", str(tmp_path / "back1")]),
        (["rsync", "-a", "-e", ssh, f"{sent}/", f"{address(host)}:tree2"],
         ["rsync", "-a", "-e", ssh, f"{address(host)}:tree2/", str(tmp_path / "back2")]),
    ]):  # fmt: skip
        client(host, there)
        client(host, back)
        assert digest(tmp_path / f"back{number}") == digest(sent), there[0]
    host.client.ssh("alice", "run rm -r tree0 tree1 tree2", check=True)
    assert host.run(["find", "/home/alice", "/tmp", "-user", "alice", "!", "-name", "sshauth.*"]).stdout == ""


def test_ten_thousand_small_files_arrive_by_rsync(host: Host, alice_port: int, tmp_path: Path) -> None:
    assert alice_port
    sent = tree(tmp_path / "sent", 10_000)
    (sent / "new\nline").write_text("only rsync can carry this name")
    ssh = shlex.join(["ssh", *settings(host)])
    client(host, ["rsync", "-a", "-e", ssh, f"{sent}/", f"{address(host)}:many"])
    assert host.client.ssh("alice", "run find many -type f -printf x | wc -c", check=True).stdout.strip() == "10011"
    client(host, ["rsync", "-a", "-e", ssh, f"{address(host)}:many/", str(tmp_path / "back")])
    assert digest(tmp_path / "back") == digest(sent)
    host.client.ssh("alice", "run rm -r many", check=True)


def test_sftp_gives_the_containers_files_and_not_the_hosts(host: Host, alice_port: int, tmp_path: Path) -> None:
    assert alice_port
    target = tmp_path / "hostname"
    client(host, ["sftp", *settings(host), "-q", f"{address(host)}:/etc/hostname", str(target)])
    assert target.read_text() == "alice\n"


@pytest.fixture
def laptop(host: Host, alice_port: int, tmp_path: Path) -> Path:
    """A laptop's ~/.ssh with what ssh-config and known-hosts say, and strict host key checking."""
    assert alice_port
    name = host.run(["hostname"]).stdout.strip()
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{host.client.gateway} {name}\n")
    config = host.client.ssh("alice", "ssh-config", check=True).stdout
    key = f"IdentityFile {host.client.folder / 'alice'}\nStrictHostKeyChecking yes\nUserKnownHostsFile {tmp_path}/known_hosts\n"
    # The second hop is a program of its own and reads the same file.
    (tmp_path / "config").write_text(config.replace("ssh -T", f"ssh -F {tmp_path}/config -T") + f"Host *\n{key}")
    (tmp_path / "known_hosts").write_text(host.client.ssh("alice", "known-hosts", check=True).stdout)
    return tmp_path


def on_laptop(host: Host, laptop: Path, *argv: str, check: bool = True, input: str | None = None) -> Completed:
    """A command on the laptop, where HOST is the container in the lines of ssh-config."""
    name = host.run(["hostname"]).stdout.strip()
    line = shlex.join(word.replace("HOST", f"alice.{name}") for word in argv)
    mount = f"mount --bind {laptop}/hosts /etc/hosts; exec {line}"
    return host.client.run(
        ["unshare", "--mount", "sh", "-c", mount], check=check, input=input, timeout=180, env=ENVIRONMENT
    )


def test_proxy_starts_the_container_and_carries_200_megabytes_there_and_back(host: Host, laptop: Path) -> None:
    """Where a campus firewall opens port 22 alone: with the lines of ssh-config, alice.HOST is the container."""
    host.client.ssh("alice", "stop --yes", check=True)
    config = ["-F", str(laptop / "config")]
    assert on_laptop(host, laptop, "ssh", *config, "HOST", "hostname").stdout == "alice\n"
    sent = laptop / "sent"
    sent.write_bytes(os.urandom(200 << 20))
    on_laptop(host, laptop, "scp", *config, "-q", str(sent), "HOST:proxied")
    on_laptop(host, laptop, "scp", *config, "-q", "HOST:proxied", str(laptop / "back"))
    assert filecmp.cmp(laptop / "back", sent, shallow=False)
    on_laptop(host, laptop, "ssh", *config, "HOST", "rm proxied")
    (laptop / "batch").write_text(f"put {laptop}/hosts uploaded\nrm uploaded\n")
    on_laptop(host, laptop, "sftp", *config, "-q", "-b", str(laptop / "batch"), "HOST")
    on_laptop(host, laptop, "rsync", "-e", shlex.join(["ssh", *config]), str(laptop / "hosts"), "HOST:synced")
    on_laptop(host, laptop, "ssh", *config, "HOST", "rm synced")


# What VS Code's Remote-SSH does: a shell script on standard input, a server on a port of its own choice inside,
# and connections to it through the client's SOCKS proxy (-D).
SERVER = """
exec perl -MIO::Socket -e '
    my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => 0);
    $| = 1; print "listening on ", $server->sockport, "\\n";
    while (my $client = $server->accept) { my $line = <$client>; print $client "editor got $line"; close $client; }
'
"""
THROUGH_SOCKS = """
import socket, sys
with socket.create_connection(("127.0.0.1", 7080), timeout=10) as connection:
    connection.sendall(b"\\5\\1\\0")
    assert connection.recv(2) == b"\\5\\0"
    connection.sendall(b"\\5\\1\\0\\1\\x7f\\0\\0\\1" + int(sys.argv[1]).to_bytes(2, "big"))
    assert connection.recv(10)[1] == 0
    connection.sendall(b"hello\\n")
    print(connection.makefile().readline(), end="")
"""


def test_an_editor_can_run_its_server_inside_and_reach_it_through_its_own_tunnel(host: Host, laptop: Path) -> None:
    name = host.run(["hostname"]).stdout.strip()
    (laptop / "server").write_text(SERVER)
    line = f"mount --bind {laptop}/hosts /etc/hosts; exec ssh -F {laptop}/config -T -D 7080 alice.{name} bash < {laptop}/server"
    with host.client.background(["unshare", "--mount", "sh", "-c", line], stdout=subprocess.PIPE) as editor:
        assert editor.stdout is not None
        words = editor.stdout.readline().split()
        assert words[:2] == ["listening", "on"]
        done = client(host, ["/usr/bin/python3", "-c", THROUGH_SOCKS, words[2]])
        assert done.stdout == "editor got hello\n"


def test_local_forwards_go_through_the_container_and_not_through_the_host(host: Host, laptop: Path) -> None:
    name = host.run(["hostname"]).stdout.strip()
    line = f"mount --bind {laptop}/hosts /etc/hosts; exec ssh -F {laptop}/config -N -L 7022:127.0.0.1:22 alice.{name}"
    with host.client.background(["unshare", "--mount", "sh", "-c", line], stdin=subprocess.DEVNULL):
        wait_until(
            lambda: (
                "SSH-2.0" in client(host, ["bash", "-c", "head -1 < /dev/tcp/127.0.0.1/7022"], check=False).stdout
            ),
            20,
        )


def test_proxy_passes_a_half_close_on(host: Host, alice_port: int) -> None:
    assert alice_port
    done = host.client.ssh("alice", "proxy", input="not ssh\n")
    assert done.stdout.startswith("SSH-2.0-")
    assert done.returncode == 0


def test_enter_is_a_real_terminal_whose_size_follows(host: Host, alice_port: int) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "enter", tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env=ENVIRONMENT, encoding="utf-8", timeout=30, dimensions=(33, 101))
    child.expect_exact("alice@alice:")
    child.sendline("stty size; tty")
    child.expect_exact("33 101")
    child.setwinsize(44, 122)
    child.sendline("sleep 1; stty size")
    child.expect_exact("44 122")
    child.sendline("sleep 100")
    child.send("\x03")
    child.sendline("echo still-$((40 + 2))")
    child.expect_exact("still-42")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5


def test_full_screen_programs_work_in_enter(host: Host, alice_port: int) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "enter", "less", "/etc/passwd", tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env=ENVIRONMENT, encoding="utf-8", timeout=30, dimensions=(10, 80))
    child.expect_exact("root:x:0:0")
    child.send("G")
    child.expect_exact("alice:x:1000")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize("tty", [True, False])
def test_a_dropped_connection_leaves_nothing_on_the_host_or_inside(host: Host, alice_port: int, *, tty: bool) -> None:
    assert alice_port
    argv = host.client.ssh_argv("alice", "enter", "sleep 4321", tty=tty)
    with host.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        wait_until(lambda: host.run(["pgrep", "-f", "^sleep 4321"], check=False).stdout != "", 20)
        session.kill()
    wait_until(lambda: host.run(["pgrep", "-f", "4321"], check=False).stdout == "", 20)


def test_git_reaches_a_repository_in_the_container(host: Host, alice_port: int, tmp_path: Path) -> None:
    assert alice_port
    done = host.client.ssh("alice", "git-upload-pack 'x'")
    assert done.returncode == 127
    assert "not found" in done.stderr  # by the shell; on a busy host the engine's client says no more than that
    for name in ("git", "git-upload-pack", "git-receive-pack"):  # one program under several names
        host.run(["lxc", "file", "push", "/usr/bin/git", f"alice/usr/local/bin/{name}"])
    make = "git init -q project && cd project && git config receive.denyCurrentBranch updateInstead"
    host.client.ssh("alice", f"run sh -c '{make}'", check=True)
    git, project = ["git", "-c", f"core.sshCommand={shlex.join(['ssh', *settings(host)])}"], tmp_path / "project"
    client(host, [*git, "clone", f"{address(host)}:project", str(project)])
    (project / "paper").write_text("draft\n")
    for arguments in (
        ["add", "paper"],
        ["-c", "user.name=A", "-c", "user.email=a@client", "commit", "-m", "x"],
        ["push"],
    ):
        client(host, [*git, "-C", str(project), *arguments])
    try:
        assert host.client.ssh("alice", "run cat project/paper", check=True).stdout == "draft\n"
    finally:
        host.client.ssh("alice", "run sudo rm -rf project /usr/local/bin/git*")
