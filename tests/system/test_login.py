"""A researcher's login, through the real sshd, from another machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pexpect
import pytest
from hostile import as_researcher
from testhost import ENVIRONMENT, Host, wait_until

from labshell.model import keys

pytestmark = pytest.mark.root


def state_of(host: Host, name: str) -> str:
    return host.run(["lxc", "list", "--format", "csv", "--columns", "s", f"^{name}$"]).stdout.strip()


def processes_of(host: Host, name: str) -> list[str]:
    return host.run(["ps", "-u", name, "-o", "args="], check=False).stdout.split("\n")[:-1]


@contextlib.contextmanager
def menu(
    host: Host, name: str = "alice", term: str = "xterm-256color", columns: int = 80, rows: int = 40
) -> Iterator[pexpect.spawn[str]]:
    """A menu in a terminal, whose session ends with the block however it ends."""
    argv = host.client.argv(host.client.ssh_argv(name, tty=True))
    child = pexpect.spawn(
        argv[0], argv[1:], env={**ENVIRONMENT, "TERM": term}, encoding="utf-8",
        codec_errors="replace", timeout=30, dimensions=(rows, columns),
    )
    try:
        child.expect_exact("labshell> ")
        yield child
    finally:
        child.close(force=True)


def send_bytes(child: pexpect.spawn[str], data: bytes) -> None:
    """What no text can be: pexpect would refuse it."""
    os.write(child.child_fd, data)


def test_a_login_starts_a_stopped_container_and_shows_how_to_connect(host: Host, alice_port: int) -> None:
    host.run(["lxc", "stop", "--force", "alice"])
    done = host.client.ssh("alice", check=True)
    assert state_of(host, "alice") == "RUNNING"
    assert f"ssh -p {alice_port} alice@" in done.stdout
    assert f"scp -P {alice_port} FILE alice@" in done.stdout
    assert "SHA256:" in done.stdout
    assert done.stderr == ""
    assert host.client.ssh("alice", "hostname", port=alice_port, check=True).stdout == "alice\n"


def test_json_is_json_on_a_terminal_too(host: Host, alice_port: int) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "usage --json", tty=True))
    output = str(
        pexpect.run(" ".join(map(shlex.quote, argv)), env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8")
    )
    assert json.loads(output.partition("Connection to")[0])["report"]["user"] == "alice"


def test_the_card_shows_the_host_key_that_the_container_really_has(host: Host, alice_port: int) -> None:
    shown = host.client.ssh("alice", "status --json", check=True)
    scanned = host.client.run(["ssh-keyscan", "-t", "ed25519", "-p", str(alice_port), host.client.gateway]).stdout
    assert json.loads(shown.stdout)["host_key"] in scanned


def test_the_card_fits_a_terminal_of_80_columns(host: Host, alice_port: int) -> None:
    card = host.client.ssh("alice", check=True).stdout
    assert str(alice_port) in card
    assert max(len(line) for line in card.splitlines()) <= 80


def test_stop_start_and_restart_do_what_they_say_and_answer_in_json(host: Host, alice_port: int) -> None:
    assert alice_port
    verbs = {"stop --yes": "stopped", "start": "running", "restart --yes": "running", "status": "running"}
    for verb, state in verbs.items():
        answer = json.loads(host.client.ssh("alice", f"{verb} --json", check=True).stdout)
        assert answer["state"] == state
        assert state_of(host, "alice") == state.upper()


def test_a_frozen_container_is_thawed_by_a_login(host: Host, alice_port: int) -> None:
    host.run(["lxc", "pause", "alice"])
    assert "running" in host.client.ssh("alice", check=True).stdout
    assert host.client.ssh("alice", "hostname", port=alice_port, check=True).stdout == "alice\n"


def test_two_logins_at_once_make_one_start_and_both_get_the_card(host: Host, alice_port: int) -> None:
    host.run(["lxc", "stop", "--force", "alice"])
    argv = host.client.argv(host.client.ssh_argv("alice"))
    logins = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) for _ in range(3)]
    cards = [login.communicate(timeout=60)[0] for login in logins]
    assert all(f"ssh -p {alice_port}" in card for card in cards)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("nonsense", "Unknown command: nonsense (see `help`)"),
        ("status; id", "Unknown command: status;. Did you mean: ssh "),
        ("stauts", "Did you mean: ssh "),
        ("$(id)", "Unknown command: $(id)"),
        ("stop now", "stop does not take now"),
        ("status --verbose", "status does not take --verbose"),
        ("run", "run: an argument is missing"),
        ("enter --fast", "enter does not take --fast"),
        ("\x1b[31mred", "Unknown command: "),
    ],
)
def test_anything_unknown_gets_one_sentence_on_stderr_and_status_2(
    host: Host, alice_port: int, command: str, sentence: str
) -> None:
    assert alice_port
    done = host.client.ssh("alice", command)
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_a_stopped_daemon_means_one_sentence_and_status_75(host: Host, alice_port: int) -> None:
    assert alice_port
    host.stop_daemon()
    try:
        done = host.client.ssh("alice", "status")
        assert done.returncode == 75
        assert "daemon is not running" in done.stderr
        assert done.stderr.count("\n") == 1
        asked = host.client.ssh("alice", "status --json")
        assert (asked.returncode, asked.stdout) == (75, "")
        assert json.loads(asked.stderr)["error"]["id"] == "daemon-not-running"
        told = json.loads(host.admin("list", "--json", check=False).stderr)["error"]
        assert (told["id"], told["remedy"]) == ("daemon-not-running", "systemctl start labshelld")
        assert host.client.ssh("alice", "help").returncode == 0
    finally:
        host.start_daemon()
    assert host.client.ssh("alice", "status").returncode == 0


def test_a_hung_engine_means_one_sentence_and_status_75(host: Host, alice_port: int) -> None:
    assert alice_port
    pid = host.run(["pgrep", "-o", "-x", "lxd"]).stdout.strip()
    host.run(["kill", "-STOP", pid])
    try:
        done = host.client.ssh("alice", "status", timeout=30)
        assert done.returncode == 75
        assert done.stderr.count("\n") == 1
    finally:
        host.run(["kill", "-CONT", pid])
    wait_until(lambda: host.client.ssh("alice", "status").returncode == 0, 30)


def test_a_container_that_is_gone_means_status_69(host: Host) -> None:
    host.add_user("dave")
    host.run(["lxc", "delete", "--force", "dave"])
    done = host.client.ssh("dave")
    assert done.returncode == 69
    assert "no container" in done.stderr
    host.remove_user("dave")


def test_a_container_with_a_false_owner_mark_is_not_used(host: Host, alice_port: int) -> None:
    assert alice_port
    mark = host.run(["lxc", "config", "get", "alice", "user.labshell.uid"]).stdout.strip()
    host.run(["lxc", "config", "set", "alice", "user.labshell.uid", "12345"])
    try:
        assert host.client.ssh("alice", "status").returncode == 69
        host.admin("reconcile")
        rules = host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
        assert "labshell:alice" not in rules
    finally:
        host.run(["lxc", "config", "set", "alice", "user.labshell.uid", mark])
        host.admin("reconcile")


def test_a_damaged_port_file_stops_nobody_else_and_is_never_overwritten(
    host: Host, alice_port: int, bob_port: int
) -> None:
    host.run(["sh", "-c", "printf '0x50' > /public/ports/alice"])
    try:
        done = host.client.ssh("alice")
        assert done.returncode == 1
        assert "/public/ports/alice" in done.stderr
        host.admin("reconcile")
        rules = host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
        assert f"--dport {alice_port} " in rules
        assert f"--dport {bob_port} " in rules
        assert host.read("/public/ports/alice") == "0x50"
        assert host.client.ssh("bob").returncode == 0
    finally:
        host.run(["sh", "-c", f"echo {alice_port} > /public/ports/alice"])


def test_nothing_is_executed_for_a_login_but_the_login_shell_itself(host: Host, alice_port: int) -> None:
    assert alice_port
    trace = "/tmp/labshell-trace"
    host.run(
        ["strace", "-f", "-qq", "-o", trace, "-e", "trace=execve,execveat,fork,vfork,clone", "setpriv", "--reuid", "alice",
         "--regid", "labshell", "--clear-groups", "/opt/labshell/bin/labshell", "-c", "status"],
    )  # fmt: skip
    calls = [line.split(None, 1)[1] for line in host.read(trace).splitlines() if "exec" in line and " = 0" in line]
    host.run(["rm", trace])
    programs = [call.split('"')[1] for call in calls]
    assert programs[1:] == ["/opt/labshell/bin/labshell", "/usr/bin/python3"]


@pytest.mark.parametrize("rows", [24, 31])
def test_the_log_in_command_and_both_fingerprints_are_on_a_first_screen_with_few_rows(
    host: Host, alice_port: int, rows: int
) -> None:
    with menu(host, rows=rows) as child:
        screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.before or "").split("\n")[1 - rows :]
    text = "\n".join(screen)
    assert f"ssh -p {alice_port} alice@" in text
    for port in (22, alice_port):
        scanned = host.client.run(["ssh-keyscan", "-t", "ed25519", "-p", str(port), host.client.gateway]).stdout
        assert keys.parse(scanned.split(None, 1)[1]).fingerprint in text


# The menu ---------------------------------------------------------------------------------------------


def test_the_menu_takes_verbs_by_name_and_number_until_ctrl_d(host: Host, alice_port: int) -> None:
    with menu(host) as child:
        child.sendline("status")
        child.expect(rf"SSH port\s+(\x1b\[0m)?{alice_port}")
        child.expect_exact("labshell> ")
        child.sendline("1")
        child.expect(rf"SSH port\s+(\x1b\[0m)?{alice_port}")
        child.expect_exact("labshell> ")
        child.sendline("?")
        child.expect_exact("shut it down and start it again")
        child.expect_exact("labshell> ")
        child.sendline("nonsense")
        child.expect_exact("Unknown command: nonsense")
        child.expect_exact("labshell> ")
        child.sendeof()
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


def test_whatever_is_typed_into_the_menu_it_goes_on_with_one_sentence(host: Host, alice_port: int) -> None:
    assert alice_port
    lines = {
        "stauts": "Did you mean `status`?", "16": "from 1 to 15", "ls": "`enter` opens one", "ssh -p 20010 alice@gpu1": "your own computer",
        "status --help": "status [--json]", "help stop": "stop [--force]", "x" * 3000: "Unknown command: xxx",
        "run \x80": "UTF-8", "snapshot rm a": "snapshot delete", "\x01\x02": "\r\n",
    }  # fmt: skip
    with menu(host) as child:
        for line, part in lines.items():
            send_bytes(child, f"{line}\r".encode("latin-1"))
            child.expect_exact(part)
            child.expect_exact("labshell> ")
        child.sendline("q")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
        assert "reference" not in (child.before or "")


@pytest.mark.parametrize("answer", ["n\r", "\r", "\x04", "\x03", "maybe\r", "yes please\r", "\x00\x80\xff\r", "y" * 4000 + "\r"])
def test_whatever_is_not_a_yes_changes_nothing_and_says_so_on_its_own_line(
    host: Host, alice_port: int, answer: str
) -> None:
    assert alice_port
    with menu(host) as child:
        child.sendline("stop")
        child.expect_exact("[y/N] ")
        send_bytes(child, answer.encode("latin-1"))
        child.expect(r"\nNothing was changed\.")
        child.expect_exact("labshell> ")
        child.sendline("q")
        child.expect(pexpect.EOF)
    assert state_of(host, "alice") == "RUNNING"


def test_what_ends_or_deletes_something_needs_a_yes_and_nobody_is_asked_about_what_is_not_there(
    host: Host, alice_port: int
) -> None:
    assert alice_port
    host.client.ssh("alice", "snapshot create there", check=True)
    for command in ("stop", "restart", "stop --json", "snapshot delete there", "snapshot restore there", "rebuild"):
        done = host.client.ssh("alice", command)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "--yes" in done.stderr
    assert state_of(host, "alice") == "RUNNING"
    with menu(host) as child:
        for command, sentence in {
            "snapshot restore nix": "You have no snapshot nix, but these: there",
            "snapshot delete nix": "You have no snapshot nix, but these: there",
            "rebuild undo": "No container is kept from before a rebuild.",
            "rebuild forget": "No container is kept from before a rebuild.",
            "rebuild --template nix": "nix",
        }.items():
            child.sendline(command)
            child.expect_exact(sentence)
            child.expect_exact("labshell> ")
            assert "[y/N]" not in (child.before or "")
    argv = host.client.argv(host.client.ssh_argv("alice", "stop", tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8", timeout=30)
    child.expect_exact("[y/N] ")
    child.sendline("no")
    child.expect_exact("labshell: Nothing was changed.")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    host.client.ssh("alice", "snapshot delete there --yes", check=True)
    assert host.client.ssh("alice", "snapshot restore there").stderr == (
        "labshell: You have no snapshots; `snapshot create` makes one.\n"
    )


def test_tab_completes_a_verb_in_the_menu(host: Host, alice_port: int) -> None:
    with menu(host) as child:
        child.send("statu\t\r")
        child.expect(rf"SSH port\s+(\x1b\[0m)?{alice_port}")
        child.expect_exact("labshell> ")
        child.send("snapshot rest\tnone --y\t\r")
        child.expect_exact("You have no snapshots;")
        child.sendline("quit")
        child.expect(pexpect.EOF)


@pytest.mark.parametrize("key", ["\x03", "\x1a", "\x1c", "\x1b[A", "\x1b[200~", "\x00", "\x80"])
def test_no_key_leaves_a_traceback_or_a_shell(host: Host, alice_port: int, key: str) -> None:
    assert alice_port
    with menu(host) as child:
        for _ in range(3):
            child.send(key)
        child.sendline("")
        child.sendline("version")
        child.expect_exact("labshell 0.", timeout=15)
        child.sendline("quit")
        child.expect(pexpect.EOF)
        assert "Traceback" not in (child.before or "")


def test_ctrl_c_while_something_runs_comes_back_to_the_menu(host: Host, alice_port: int) -> None:
    assert alice_port
    with menu(host) as child:
        child.sendline("restart")
        child.expect_exact("[y/N] ")
        child.sendline("")
        child.expect_exact("Nothing was changed.")
        child.expect_exact("labshell> ")
        child.sendline("restart --yes")
        child.expect_exact("Stopping your container")
        child.send("\x03")
        child.expect_exact("Interrupted; the server completes the operation.")
        child.expect_exact("labshell> ")
        child.sendline("quit")
        child.expect(pexpect.EOF)
        wait_until(lambda: host.client.ssh("alice", "start").returncode == 0, 60)
        assert state_of(host, "alice") == "RUNNING"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_client_that_goes_away_leaves_no_process_on_the_host(
    host: Host, alice_port: int, number: signal.Signals
) -> None:
    assert alice_port
    with menu(host) as child:
        child.kill(number)
        child.close(force=True)
        wait_until(lambda: not [line for line in processes_of(host, "alice") if "labshell" in line], 15)


def test_an_unknown_terminal_gets_a_menu_without_escapes(host: Host, alice_port: int) -> None:
    with menu(host, term="../../evil") as child:
        child.sendline("status")
        child.expect(rf"SSH port\s+(\x1b\[0m)?{alice_port}")
        assert "\x1b[3" not in (child.before or "")
        child.sendline("quit")
        child.expect(pexpect.EOF)


def test_closed_output_ends_the_session_quietly(host: Host, alice_port: int) -> None:
    assert alice_port
    program = "exec 1>&-; exec /opt/labshell/bin/labshell -c status"
    for script in (program, program.replace("1>&-", "0<&- 1>&- 2>&-"), program.replace("1>&-", "1>/dev/full")):
        done = host.run(as_researcher("alice", ["sh", "-c", script]), check=False)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr
