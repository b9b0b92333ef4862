"""The lines of ssh-config in the files that people have already, and what their programs do with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testhost import ENVIRONMENT, Completed, Host

pytestmark = pytest.mark.root

Type = Callable[..., Completed]  # a line of bash on the laptop, where GPU1 is the gateway's name


@pytest.fixture
def home(host: Host, alice_port: int, tmp_path: Path) -> Path:
    """Alice's home on her laptop, with her key under its usual name and the host keys of the lab."""
    assert alice_port
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(mode=0o700, parents=True)
    (folder / ".ssh/id_ed25519").write_text((host.client.folder / "alice").read_text())
    (folder / ".ssh/id_ed25519").chmod(0o600)
    (folder / ".ssh/known_hosts").write_text(host.client.ssh("alice", "known-hosts", check=True).stdout)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{host.client.gateway} {name_of(host)}\n")
    return folder


@pytest.fixture
def line(host: Host, home: Path) -> Iterator[Type]:
    """Type a line on the laptop; connections that it leaves open are closed at the end."""

    def run(text: str, *, check: bool = True) -> Completed:
        mounts = f"mount --bind {home} /root; mount --bind {home}/hosts /etc/hosts; cd"
        script = f"{mounts}; {text.replace('GPU1', name_of(host))}"
        argv = ["timeout", "60", "unshare", "--mount", "bash", "-uc", script]
        return host.client.run(argv, check=check, timeout=90, env=ENVIRONMENT)

    yield run
    for socket in home.glob(".ssh/cm-*"):
        run(f"ssh -o ControlPath=~/.ssh/{socket.name} -O exit GPU1", check=False)


def name_of(host: Host) -> str:
    return host.run(["hostname"]).stdout.strip()


def write_config(host: Host, home: Path, before: str = "", after: str = "") -> None:
    config = host.client.ssh("alice", "ssh-config", check=True).stdout
    (home / ".ssh/config").write_text(f"{before}{config}BatchMode yes\n{after}")


def test_the_container_has_a_name_of_its_own_and_the_gateway_keeps_its(host: Host, home: Path, line: Type) -> None:
    write_config(host, home, before="Host elsewhere\n    User nobody")  # an editor left no end of line
    assert line("ssh alice.GPU1 hostname").stdout == "alice\n"
    assert json.loads(line("ssh GPU1 status --json").stdout)["user"] == "alice"
    assert json.loads(line("ssh alice@GPU1 status --json").stdout)["user"] == "alice"
    done = line("ssh root@GPU1 hostname", check=False)
    assert (done.returncode, "Permission denied" in done.stderr) == (255, True)  # the host itself was asked
    assert line("ssh -G elsewhere | grep '^user '").stdout == "user nobody\n"


@pytest.mark.parametrize("path", ["%r@%h:%p", "%C"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_connections_that_are_shared_do_not_mix_gateway_and_container(
    host: Host, home: Path, line: Type, path: str, place: str
) -> None:
    shared = f"Host *\n    ControlMaster auto\n    ControlPath ~/.ssh/cm-{path}\n    ControlPersist 60\n"
    write_config(host, home, **{place: shared})
    for _ in range(2):
        done = line("ssh alice.GPU1 hostname")
        assert (done.stdout, done.stderr) == ("alice\n", "")
        assert json.loads(line("ssh GPU1 status --json").stdout)["user"] == "alice"
    assert len(list(home.glob(".ssh/cm-*"))) == 2
    done = line(
        "ssh -N -L 7022:localhost:22 alice.GPU1 & sleep 3; head -c 7 < /dev/tcp/127.0.0.1/7022; kill $!", check=False
    )
    assert done.stdout == "SSH-2.0"


def test_a_key_of_another_name_is_named_in_one_place(host: Host, home: Path, line: Type) -> None:
    (home / "k").mkdir()
    (home / ".ssh/id_ed25519").rename(home / "k/lab_key")
    write_config(host, home)
    assert line("ssh -i ~/k/lab_key GPU1 version").stdout.startswith("labshell")
    text = (home / ".ssh/config").read_text()
    (home / ".ssh/config").write_text(text.replace("# IdentityFile ~/.ssh/id_ed25519", "IdentityFile ~/k/lab_key"))
    assert line("ssh alice.GPU1 hostname").stdout == "alice\n"
    assert line("ssh GPU1 version").stdout.startswith("labshell")


def test_the_lines_of_several_hosts_and_users_live_in_one_file(host: Host, home: Path, line: Type) -> None:
    config = host.client.ssh("alice", "ssh-config", check=True).stdout
    other = config.replace(name_of(host), "gpu9").replace("alice", "asmith")
    bob = config.replace("alice", "bob")
    (home / ".ssh/config").write_text(other + config + bob)
    for user, name in (("asmith", "gpu9"), ("alice", "GPU1"), ("bob", "GPU1")):
        proxy = line(f"ssh -G {user}.{name} | grep ^proxycommand").stdout
        assert proxy.endswith(f" {user}@{name.replace('GPU1', name_of(host))} proxy\n")
        assert line(f"ssh -G {user}.{name} | grep '^user '").stdout == f"user {user}\n"
    assert line("ssh alice.GPU1 hostname").stdout == "alice\n"


def test_a_jump_goes_through_the_container_and_never_through_the_host(host: Host, home: Path, line: Type) -> None:
    write_config(host, home)
    through = "-o StrictHostKeyChecking=accept-new -o HostKeyAlias=inside"
    assert line(f"ssh {through} -J alice.GPU1 alice@localhost hostname").stdout == "alice\n"
    assert line(f"ssh {through} -J alice@GPU1 alice@localhost hostname", check=False).returncode == 255


def test_settings_for_all_hosts_that_the_gateway_refuses_bring_no_noise(host: Host, home: Path, line: Type) -> None:
    write_config(
        host, home, after="Host *\n    ForwardX11 yes\n    ForwardAgent yes\n    LocalForward 7099 localhost:22\n"
    )
    done = line("export DISPLAY=:9; ssh alice.GPU1 hostname")
    assert done.stdout == "alice\n"
    assert "gateway" not in done.stderr
    assert "Address already in use" not in done.stderr


def test_rsync_may_be_told_what_to_run_at_the_other_end(host: Host, home: Path, line: Type) -> None:
    (home / "sent").mkdir()
    (home / "sent/file").write_text("hello\n")
    line("rsync -a --rsync-path='sudo rsync' sent/ alice@GPU1:/root/sent/")
    line("rsync -a --rsync-path='mkdir -p deep/er && rsync' sent/ alice@GPU1:deep/er/")
    line("rsync -a --rsync-path=/usr/bin/rsync alice@GPU1:deep/er/file back")
    assert (home / "back").read_text() == "hello\n"
    assert host.client.ssh("alice", "run --root cat /root/sent/file", check=True).stdout == "hello\n"
    (home / "batch").write_text("get /root/sent/file asroot\n")
    line("sftp -s 'sudo /usr/lib/openssh/sftp-server' -b batch alice@GPU1")
    assert (home / "asroot").read_text() == "hello\n"
    host.client.ssh("alice", "run --root rm -r /root/sent /home/alice/deep", check=True)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("mosh-server new -s", "only TCP is forwarded; log in with: ssh -p PORT alice@GPU1"),
        ("ports add 60001 --udp", "Only TCP is forwarded"),
        ("ports add 60001/udp", "Only TCP is forwarded"),
        ("ports remove 60001/sctp", "not a port number"),
        ("/bin/sh -c 'echo ~'", "or ssh -p PORT alice@GPU1 /bin/sh"),
    ],
)
def test_a_program_that_cannot_work_here_gets_one_sentence_that_fits(
    host: Host, alice_port: int, command: str, sentence: str
) -> None:
    done = host.client.ssh("alice", command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence.replace("PORT", str(alice_port)).replace("GPU1", name_of(host)) in done.stderr


def test_a_program_that_takes_the_menu_for_a_shell_is_told_the_port_at_once(host: Host, alice_port: int) -> None:
    done = host.client.ssh("alice", tty=True, env={"TERM": "dumb"}, timeout=20)
    assert done.returncode == 2
    assert f"ssh -p {alice_port} alice@{name_of(host)}" in done.stdout + done.stderr
    assert "labshell> " not in done.stdout


def test_a_file_program_that_is_not_in_the_container_is_named_with_its_package(host: Host, alice_port: int) -> None:
    assert alice_port
    done = host.client.ssh("alice", "rdiff-backup server")
    assert done.returncode == 127
    assert done.stderr.endswith("install it there: sudo apt install rdiff-backup\n")
