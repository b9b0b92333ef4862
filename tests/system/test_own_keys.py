"""A researcher's public keys: one step for the host's account and the container."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from pathlib import Path

import pexpect
import pytest
from testhost import ENVIRONMENT, Host, wait_until

pytestmark = pytest.mark.root


def test_a_key_is_added_and_removed_on_the_host_and_in_the_container_together(host: Host, guest: str) -> None:
    key = host.client.make_key("second-laptop")
    public = key.with_suffix(".pub").read_text()
    port = host.ssh_port(guest)
    assert host.client.ssh(guest, "status", key=key).returncode == 255
    host.client.ssh(guest, "run echo '# mine' >> ~/.ssh/authorized_keys", check=True)
    assert len(json.loads(host.client.ssh(guest, "keys add --json", input=public, check=True).stdout)) == 2
    assert len(json.loads(host.client.ssh(guest, f"keys add --json {public}", check=True).stdout)) == 2
    assert host.client.ssh(guest, "status", key=key).returncode == 0
    assert host.client.ssh(guest, "hostname", port=port, key=key).stdout == f"{guest}\n"
    done = host.client.ssh(guest, "keys remove 1", key=key)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    host.client.ssh(guest, "keys remove 1 --yes", key=key, check=True)
    assert host.client.ssh(guest, "status").returncode == 255
    assert host.client.ssh(guest, "hostname", port=port).returncode == 255
    assert "# mine" in host.client.ssh(guest, "run cat .ssh/authorized_keys", key=key, check=True).stdout
    done = host.client.ssh(guest, "keys remove 1", key=key)
    assert done.returncode == 2
    assert "Your last key" in done.stdout
    assert host.client.ssh(guest, "status", key=key).returncode == 0


def test_options_that_make_a_key_weaker_count_on_the_host_in_the_container_and_through_proxy(
    host: Host, guest: str
) -> None:
    port = host.ssh_port(guest)
    here, elsewhere = host.client.make_key("here"), host.client.make_key("elsewhere")
    for key, network in ((here, "198.18.0.0/24"), (elsewhere, "192.0.2.0/24")):
        public = key.with_suffix(".pub").read_text()
        host.client.ssh(guest, "keys add", input=f'from="{network}" {public}', check=True)
    assert host.client.ssh(guest, "status", key=here).returncode == 0
    assert host.client.ssh(guest, "hostname", port=port, key=here).stdout == f"{guest}\n"
    proxy = " ".join(host.client.ssh_argv(guest, "proxy", key=here))
    assert (
        host.client.ssh(
            guest, "hostname", key=here, options=["-o", f"ProxyCommand={proxy}", "-o", f"HostKeyAlias={guest}-inside"]
        ).stdout
        == f"{guest}\n"
    )
    for number in (22, port):
        assert host.client.ssh(guest, "hostname", port=number, key=elsewhere).returncode == 255
    assert json.loads(host.client.ssh(guest, "keys --json").stdout)[1]["options"] == 'from="198.18.0.0/24"'


def test_what_is_no_public_key_is_refused_and_never_logged(host: Host, guest: str) -> None:
    private = host.client.make_key("careless").read_text()
    for text, word in (
        (private, "private key"),
        ("", "empty"),
        ("hello", "not a public key"),
        ('command="id" ssh-ed25519 AAAA', "option command"),
    ):
        done = host.client.ssh(guest, "keys add", input=text)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert word in done.stderr
    secret = private.splitlines()[2]
    assert secret not in host.read("/var/log/labshell/labshelld.log")
    assert len(json.loads(host.client.ssh(guest, "keys --json", check=True).stdout)) == 1


def test_nobody_has_more_keys_than_everything_can_take(host: Host, guest: str) -> None:
    file = f"/etc/labshell/keys/{guest}"
    before = host.read(file)
    host.run(["tee", file], input=before * (65536 // len(before)))
    key = host.client.make_key("one-more").with_suffix(".pub").read_text().strip()
    try:
        done = host.client.ssh(guest, f"keys add {key}")
        sentence = "labshell: Too many keys: the limit is 64 KiB of keys per user.\n"
        assert (done.returncode, done.stderr) == (2, sentence)
    finally:
        host.run(["tee", file], input=before)


def test_links_planted_in_the_container_lead_a_key_nowhere_on_the_host(host: Host, guest: str) -> None:
    public = host.client.make_key("planted").with_suffix(".pub").read_text()
    host.client.ssh(guest, "run rm -r .ssh; ln -s /etc .ssh", check=True)
    host.client.ssh(guest, "keys add", input=public)
    assert not host.exists("/etc/authorized_keys")
    host.client.ssh(guest, "run rm .ssh; mkdir .ssh; mkfifo .ssh/authorized_keys", check=True)
    done = host.client.ssh(guest, "keys add", input=public, timeout=90)
    assert "Traceback" not in done.stderr


def on_terminal(host: Host, user: str, command: str, answer: str, key: Path | None = None) -> str:
    """A command on a terminal, its questions answered: what was to be seen."""
    argv = host.client.argv(host.client.ssh_argv(user, command, tty=True, key=key))
    child = pexpect.spawn(argv[0], argv[1:], env=ENVIRONMENT, encoding="utf-8", timeout=30)
    seen = ""
    while child.expect([r"\[y/N\] ", pexpect.EOF]) == 0:
        seen += child.before
        child.sendline(answer)
    return seen + child.before


def test_keys_marks_the_key_of_this_login_and_asks_before_one_goes(host: Host, guest: str) -> None:
    key = host.client.make_key("old-pc")
    host.client.ssh(guest, "keys add", input=key.with_suffix(".pub").read_text(), check=True)
    listed = json.loads(host.client.ssh(guest, "keys --json", key=key, check=True).stdout)
    assert [(one["this_login"], one["only_inside"]) for one in listed] == [(False, False), (True, False)]
    assert host.client.ssh(guest, "keys", check=True).stdout.count("this login") == 1
    seen = on_terminal(host, guest, "keys remove old-pc@client", "n", key=key)
    assert "This is the key of this login." in seen
    assert "Nothing was changed." in seen
    assert host.client.ssh(guest, "status", key=key).returncode == 0
    assert "This is the key of" not in on_terminal(host, guest, "keys remove old-pc@client", "y")
    assert host.client.ssh(guest, "status", key=key).returncode == 255


@pytest.mark.parametrize("who", ["user", "administrator"])
def test_a_stolen_laptop_is_shut_out_by_one_command(host: Host, guest: str, who: str) -> None:
    """Its open sessions end too: on the host, idle ones among them, by proxy, and in the container; no others do."""
    stolen, port = host.client.make_key(f"stolen-{who}"), host.ssh_port(guest)
    host.client.ssh(guest, "keys add", input=stolen.with_suffix(".pub").read_text(), check=True)
    control = host.client.folder / f"cm-{who}"
    shared = ["-N", "-o", "ControlMaster=yes", "-o", f"ControlPath={control}"]
    lines = [
        host.client.ssh_argv(guest, tty=True, key=stolen),
        host.client.ssh_argv(guest, "run", "sleep", "300", key=stolen),
        host.client.ssh_argv(guest, key=stolen, options=shared),
        host.client.ssh_argv(guest, "sleep", "301", port=port, key=stolen),
        host.client.ssh_argv(guest, key=stolen, port=port, options=["-N"]),
    ]
    with contextlib.ExitStack() as stack:
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        opened = [stack.enter_context(host.client.background(line, **quiet)) for line in lines]
        own = stack.enter_context(
            host.client.background(host.client.ssh_argv(guest, "sleep", "302", port=port), **quiet)
        )
        wait_until(lambda: "302" in host.client.ssh(guest, "run ps ax").stdout and control.exists(), 30)
        wait_until(lambda: host.client.ssh(guest, "run ps ax").stdout.count(" [priv]") == 3, 30)
        asked = host.client.ssh(guest, "keys remove 2")
        assert asked.stdout.count("on the host") >= 3
        assert asked.stdout.count("in the container") == 2, asked.stdout
        assert [process.poll() for process in opened] == [None] * 5
        if who == "user":
            host.client.ssh(guest, f"keys remove stolen-{who}@client --end-sessions --yes", check=True)
        else:
            host.admin("keys", guest, "remove", f"stolen-{who}@client", "--end-sessions")
        wait_until(lambda: all(process.poll() is not None for process in opened), 20)
        assert own.poll() is None
    assert host.client.ssh(guest, "status", key=stolen).returncode == 255
    assert host.client.ssh(guest, "hostname", port=port, key=stolen).returncode == 255


def test_sessions_of_a_key_that_has_gone_can_still_be_ended(host: Host, guest: str) -> None:
    key, port = host.client.make_key("gone"), host.ssh_port(guest)
    host.client.ssh(guest, "keys add", input=key.with_suffix(".pub").read_text(), check=True)
    with host.client.background(host.client.ssh_argv(guest, "sleep", "303", port=port, key=key)) as opened:
        wait_until(lambda: "303" in host.client.ssh(guest, "run ps ax").stdout, 20)
        done = host.client.ssh(guest, "keys remove gone@client --yes", check=True)
        again = re.search(r"end them with: (keys remove SHA256:\S+ --end-sessions --yes)", done.stderr)
        assert again, done.stderr
        assert opened.poll() is None
        host.client.ssh(guest, again.group(1), check=True)
        wait_until(lambda: opened.poll() is not None, 20)
    done = host.client.ssh(guest, again.group(1))
    assert (done.returncode, "There is no key" in done.stderr) == (2, True)


def test_ssh_copy_id_ends_in_a_sentence_or_in_a_key_that_is_listed_as_it_is(host: Host, guest: str) -> None:
    key, port = host.client.make_key("copied"), host.ssh_port(guest)
    known = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={host.client.folder}/known_hosts"]
    copy = ["ssh-copy-id", *known, "-o", f"IdentityFile={host.client.folder / guest}", "-f", "-i", f"{key}.pub"]
    there = f"{guest}@{host.client.gateway}"
    (host.client.folder / ".ssh").mkdir(exist_ok=True)  # in which ssh-copy-id has its temporary files
    env = {**ENVIRONMENT, "HOME": str(host.client.folder)}
    done = host.client.run([*copy, there], check=False, env=env)
    assert f"ssh {guest}@gateway keys add < FILE.pub" in done.stderr
    host.client.run([*copy, "-p", str(port), there], env=env)
    assert host.client.ssh(guest, "hostname", port=port, key=key).stdout == f"{guest}\n"
    assert host.client.ssh(guest, "status", key=key).returncode == 255
    assert "only in the container" in host.client.ssh(guest, "keys", check=True).stdout
    assert json.loads(host.admin("keys", guest, "--json").stdout)["keys"][1]["only_inside"] is True
    host.client.ssh(guest, "keys remove copied@client --yes", check=True)
    assert host.client.ssh(guest, "hostname", port=port, key=key).returncode == 255


def test_the_administrator_lists_adds_and_removes_a_users_keys(host: Host, guest: str) -> None:
    key = host.client.make_key("by-root")
    host.admin("keys", guest, "add", str(key.with_suffix(".pub")))
    assert host.client.ssh(guest, "status", key=key).returncode == 0
    assert "by-root@client" in host.admin("keys", guest).stdout
    assert "by-root@client" not in host.admin("keys", guest, "remove", "by-root@client").stdout
    assert host.client.ssh(guest, "status", key=key).returncode == 255
    for words in (["remove"], ["remove", "nothing"], ["add", "/nowhere"], ["list", "1"]):
        done = host.admin("keys", guest, *words, check=False)
        assert (done.returncode, done.stdout.count("Traceback"), done.stderr.count("\n")) == (2, 0, 1)
    assert "There is no user" in host.admin("keys", "nobodyhere", check=False).stderr
    assert "keys remove" in host.admin("log").stdout
    last = host.admin("keys", guest, "remove", "1")
    assert "until an administrator adds one" in last.stdout
