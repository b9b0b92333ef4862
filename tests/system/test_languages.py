"""The language that ssh sends, then the configured one; in sentences, in the menu, and with the daemon down."""

from __future__ import annotations

import re

import pexpect
import pytest
from testhost import ENVIRONMENT, Host

pytestmark = pytest.mark.root

CHINESE = re.compile(r"[\u4e00-\u9fff]")
SEND = ["-o", "SendEnv=LANG LC_ALL LC_MESSAGES"]


@pytest.mark.parametrize(
    ("sent", "is_chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "zh_CN.utf8", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LANG": "zh_CN.GB18030"}, False),
        ({"LANG": "../../../etc/passwd"}, False),
        ({"LANG": "zh_CN.UTF-8\n%s"}, False),
    ],
)
def test_the_language_is_the_one_that_ssh_sends(
    host: Host, alice_port: int, sent: dict[str, str], *, is_chinese: bool
) -> None:
    assert alice_port
    done = host.client.ssh("alice", "status", options=SEND, env={"LANG": "", **sent}, check=True)
    assert bool(CHINESE.search(done.stdout)) == is_chinese
    wrong = host.client.ssh("alice", "snapshot restore none --yes", options=SEND, env={"LANG": "", **sent})
    assert bool(CHINESE.search(wrong.stderr)) == is_chinese
    assert wrong.returncode == 2


def test_every_verb_answers_in_chinese_and_its_json_stays_the_same(host: Host, alice_port: int) -> None:
    assert alice_port
    in_chinese = {"options": SEND, "env": {"LC_ALL": "zh_CN.UTF-8"}}
    for verb in ("", "status", "ports", "snapshot", "usage", "gpus", "doctor", "help", "help rebuild"):
        shown = host.client.ssh("alice", verb, **in_chinese).stdout  # type: ignore[arg-type]
        words = set(re.findall(r"\b(the|of|and|is|your|container|processes|memory|free|running|from)\b", shown))
        assert not words, f"{verb}: {words}"
        assert CHINESE.search(shown), verb
    for verb in ("version --json", "ports --json", "keys --json"):
        plain = host.client.ssh("alice", verb, check=True).stdout
        assert host.client.ssh("alice", verb, **in_chinese).stdout == plain  # type: ignore[arg-type]


def test_the_menu_is_in_chinese_with_columns_that_line_up(host: Host, alice_port: int) -> None:
    argv = host.client.argv(host.client.ssh_argv("alice", tty=True, options=SEND))
    env = {**ENVIRONMENT, "LC_ALL": "zh_CN.UTF-8"}
    child = pexpect.spawn(argv[0], argv[1:], env=env, encoding="utf-8", timeout=30, dimensions=(40, 80))
    try:
        child.expect_exact("labshell> ")
        assert f"ssh -p {alice_port} alice@" in child.before
        child.sendline("nonsense")
        child.expect_exact("未知命令：nonsense")
        child.sendline("stop")
        child.expect_exact("继续吗？ [y/N] ")
        child.sendline("否")
        child.expect_exact("labshell> ")
        child.sendline("quit")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


SEND_ALL = ["-o", "SendEnv=LANG LC_*"]


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ({"LANG": ""}, {"LANG": "C.UTF-8"}),
        ({"LANG": "zh_CN.UTF-8"}, {"LANG": "zh_CN.UTF-8"}),
        ({"LANG": "en_US.UTF-8", "LC_TIME": "de_DE.UTF-8"}, {"LANG": "en_US.UTF-8", "LC_TIME": "de_DE.UTF-8"}),
        ({"LANG": "../../x", "LC_EVIL": "x"}, {"LANG": "C.UTF-8"}),
    ],
)
def test_a_program_inside_gets_the_language_that_ssh_sends(
    host: Host, alice_port: int, sent: dict[str, str], arrives: dict[str, str]
) -> None:
    assert alice_port
    for verb in ("run", "run --root", "enter"):
        done = host.client.ssh("alice", f"{verb} env", options=SEND_ALL, env=sent, check=True)
        found = dict(line.split("=", 1) for line in done.stdout.splitlines() if re.match(r"(LANG|LC_\w+)=", line))
        assert found == arrives


@pytest.mark.parametrize("kind", ["xterm-kitty", "alacritty", "wezterm", "tmux-direct", "xterm-256color", "vt420", "dumb", "strange"])
def test_clear_and_less_know_every_terminal_through_enter(host: Host, alice_port: int, kind: str) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "run tput cols && echo $TERM is known && sleep 1", tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env={**ENVIRONMENT, "TERM": kind}, encoding="utf-8", timeout=30)
    child.expect_exact(" is known")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_chinese_that_is_typed_into_enter_arrives(host: Host, alice_port: int) -> None:
    assert alice_port
    argv = host.client.argv(host.client.ssh_argv("alice", "enter", tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8", timeout=30)
    child.expect_exact("$ ")
    child.sendline("printf '[%s]' \u4f60\u597d; exit 7")
    child.expect_exact("[\u4f60\u597d]")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


def test_without_a_daemon_the_sentence_is_in_the_persons_language(host: Host, alice_port: int) -> None:
    assert alice_port
    host.stop_daemon()
    try:
        done = host.client.ssh("alice", "status", options=SEND, env={"LC_ALL": "zh_CN.UTF-8"})
    finally:
        host.start_daemon()
    assert (done.returncode, done.stderr) == (75, "labshell: labshell 守护进程没有运行，请告诉管理员。\n")


def test_where_ssh_sends_none_the_configured_language_is_used(host: Host, alice_port: int) -> None:
    assert alice_port
    host.run(
        [
            "sh",
            "-c",
            "cp /etc/labshell/labshell.toml /tmp/before; echo 'language = \"zh_CN\"' >> /etc/labshell/labshell.toml",
        ]
    )
    try:
        host.restart_daemon()
        assert CHINESE.search(host.client.ssh("alice", "status", check=True).stdout)
        english = host.client.ssh("alice", "status", options=SEND, env={"LC_ALL": "en_GB.UTF-8"}, check=True).stdout
        assert not CHINESE.search(english)
    finally:
        host.run(["cp", "/tmp/before", "/etc/labshell/labshell.toml"])
        host.restart_daemon()
    assert not CHINESE.search(host.client.ssh("alice", "status", check=True).stdout)
