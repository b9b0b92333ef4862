"""The login shell as a process: what it answers without a daemon, and what never happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from labshell.errors import TryAgain
from labshell.shell import actions, menu, verbs
from labshell.shell import main as shell
from labshell.shell.session import Session
from labshell.shell.terminal import Interrupted, Terminal

TREE = Path(__file__).resolve().parents[2]
START = f"import sys; sys.path.append({str(TREE)!r}); from labshell.shell.main import main; main()"
PROGRAM = ["/usr/bin/python3", "-ISXutf8", "-c", START]
SOCKET_IS_THERE = Path("/run/labshell/labshell.sock").exists()


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("argv", "original", "command"),
    [
        (["-labshell"], None, None),
        (["labshell", "-c", shell.FORCED_COMMAND], None, None),
        (["labshell", "-c", shell.FORCED_COMMAND], "status", "status"),
        (["labshell", "-c", shell.FORCED_COMMAND], "  ", None),
        (["labshell", "-c", "status --json"], "ignored", "status --json"),
        (["labshell", "-c", ""], None, None),
        (["labshell", "status", "--json"], None, "status --json"),
    ],
)
def test_what_was_asked_is_found_however_the_shell_was_called(
    argv: list[str], original: str | None, command: str | None
) -> None:
    environment = {} if original is None else {"SSH_ORIGINAL_COMMAND": original}
    assert shell.requested_command(argv, environment) == command


def test_help_and_version_need_no_daemon() -> None:
    assert "labshell 0." in run("-c", "version").stdout
    assert run("-c", "help").returncode == 0
    assert run("-c", "quit").stdout == ""
    assert run("-c", "help stop").stdout.startswith("stop [--force]")


@pytest.mark.parametrize("command", ["stop now", "status --x", "run", "help me", "ports add x"])
def test_wrong_usage_is_one_sentence_on_stderr_and_status_2(command: str) -> None:
    done = run("-c", command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("command", "error_id"),
    [
        ("status --json now", "argument-unknown"),
        ("stauts --json", "command-misspelled-after-ssh"),
        ("ports add --json", "argument-missing"),
        ("snapshot restore x --yse --json", "argument-misspelled"),
        ("ports add x --json", "port-invalid"),
        ("keys remove 1 \udc80 --json", "line-not-utf8"),
        ("ssh-config --json", "argument-unknown"),
        ("help --json", "argument-unknown"),
    ],
)
def test_with_json_an_error_is_one_line_of_json_and_standard_output_empty(command: str, error_id: str) -> None:
    done = run("-c", command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    error = json.loads(done.stderr)["error"]
    assert (error["id"], error["remedy"], list(error)) == (error_id, None, ["id", "message", "remedy"])
    assert error["message"]


@pytest.mark.parametrize("command", ["enter -- x --json", "run ls --json", "status --jsno"])
def test_an_option_of_a_programs_own_asks_for_no_json(command: str) -> None:
    assert run("-c", command).stderr.startswith("labshell: ")


@pytest.mark.skipif(SOCKET_IS_THERE and os.environ.get("CI") != "true", reason="a daemon runs here")
def test_an_absent_daemon_is_json_to_a_program() -> None:
    done = run("-c", "status --json")
    assert (done.returncode, done.stdout) == (75, "")
    assert json.loads(done.stderr)["error"]["id"] == "daemon-not-running"


def test_a_bug_and_an_interruption_have_ids_as_well(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for failure, error_id, status in ((ZeroDivisionError(), "bug-in-shell", 1), (Interrupted(), "interrupted", 130)):
        monkeypatch.setattr(shell, "harden", lambda: None)
        monkeypatch.setattr(shell.sys, "argv", ["labshell", "-c", "version --json"])
        monkeypatch.setattr(shell, "_reported", lambda _: "ref")
        monkeypatch.setattr(Session, "command", mock.Mock(side_effect=failure))
        monkeypatch.setattr(shell.os, "_exit", mock.Mock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            shell.main()
        said = capfd.readouterr()
        shell.os._exit.assert_called_once_with(status)  # type: ignore[attr-defined]
        assert (said.out, json.loads(said.err)["error"]["id"]) == ("", error_id)


NOTICE = {"sentence": "It runs {how} again.", "values": {"how": "now"}}


def session_with(replies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose daemon gives these reports, one to each question."""
    session = Session(Terminal())
    monkeypatch.setattr(session.terminal, "is_interactive", True)
    monkeypatch.setattr(session, "answer", lambda *_: replies.pop(0))
    return session


@pytest.mark.parametrize(
    ("command", "reports"),
    [
        ("status --json", [{"notice": NOTICE}]),
        ("whoami --json", [{"user": "alice", "host": "gpu1", "state": "running", "notice": NOTICE}]),
        ("stop --yes --json", [{"state": "running", "disk_full": True, "notice": NOTICE}, {"notice": None}]),
        ("rebuild --yes --json", [{"notice": NOTICE}]),
        ("rebuild undo --yes --json", [{"notice": NOTICE}]),
    ],
)
def test_with_json_a_notice_is_in_the_report_and_nothing_on_standard_error(
    command: str, reports: list[dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    actions.run(session_with(reports, monkeypatch), verbs.parse(command))
    said = capfd.readouterr()
    assert (json.loads(said.out)["notice"], said.err) == (NOTICE, "")


def test_with_json_a_notice_that_came_before_a_failure_is_beside_the_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_with([{"state": "running", "notice": NOTICE}], monkeypatch)
    assert menu._do(session, "stop --json")
    said = capfd.readouterr()
    answer = json.loads(said.err)
    assert (said.out, answer["error"]["id"], answer["notice"]) == ("", "confirmation-required", NOTICE)
    assert menu._do(session, "stop now --json")
    assert list(json.loads(capfd.readouterr().err)) == ["error"]


def test_with_json_nobody_on_a_terminal_is_asked(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = TryAgain("shutdown-timeout", "It did not shut down.")
    session = session_with([], monkeypatch)
    monkeypatch.setattr(session, "ask", mock.Mock(side_effect=[{"state": "running"}, slow]))
    assert menu._do(session, "stop --yes --json")
    said = capfd.readouterr()
    assert (said.out, json.loads(said.err)["error"]["id"]) == ("", "shutdown-timeout")


def test_with_json_a_removed_key_is_the_list_and_nothing_else(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [{"address": "192.0.2.1", "is_known": True}]
    found = {"fingerprint": "SHA256:x", "key": {"kind": "ssh-ed25519"}, "is_last": False, "sessions": opened}
    session = session_with([found, []], monkeypatch)
    actions.run(session, verbs.parse("keys remove 1 --yes --json"))
    said = capfd.readouterr()
    assert (json.loads(said.out), said.err) == ([], "")


def test_an_interruption_in_the_menu_is_json_where_json_was_wanted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_with([], monkeypatch)
    monkeypatch.setattr(session, "ask", mock.Mock(side_effect=Interrupted))
    assert menu._do(session, "status")
    assert capfd.readouterr().err == "Interrupted; the server completes the operation.\n"
    assert menu._do(session, "status --json")
    assert json.loads(capfd.readouterr().err)["error"]["id"] == "interrupted-in-menu"


def test_in_the_menu_each_line_decides_for_itself(capfd: pytest.CaptureFixture[str]) -> None:
    session = Session(Terminal())
    for line, error_id in (
        ("status now --json", "argument-unknown"),
        ("frobnicate --json", "command-unknown-in-menu"),
    ):
        assert menu._do(session, line)
        assert json.loads(capfd.readouterr().err)["error"]["id"] == error_id
        assert menu._do(session, line.replace(" --json", ""))
        assert not capfd.readouterr().err.startswith("{")


@pytest.mark.skipif(SOCKET_IS_THERE and os.environ.get("CI") != "true", reason="a daemon runs here")
@pytest.mark.parametrize("command", ["status", "start --json", "run id", "scp -t x", "proxy", ""])
def test_an_absent_daemon_is_one_sentence_and_status_75(command: str) -> None:
    done = run("-c", command)
    assert (done.returncode, done.stdout) == (75, "")
    assert "daemon is not running" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["echo one\n", "\n\n#!/bin/sh\nls", "x" * 100_000])
def test_a_script_without_a_program_is_refused_before_anything_is_asked_of_the_daemon(
    script: str, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text(script)
    with (tmp_path / "script").open() as sent:  # all of it is there when the shell looks
        done = run(stdin=sent)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "run bash < FILE" in done.stderr


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_end_nothing_in_a_traceback(closed: tuple[int, ...]) -> None:
    script = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {script}', "sh", *PROGRAM, "-c", "help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


def test_a_full_disk_behind_stdout_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "-c", "help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP])
def test_a_signal_at_any_moment_is_no_traceback(number: signal.Signals) -> None:
    """Started as the shipped first line starts it: env ignores Ctrl-C and Ctrl-\\ until Python is ready."""
    env = ["/usr/bin/env", "--ignore-signal=INT", "--ignore-signal=QUIT"]
    running = []
    for _ in range(12):
        process = subprocess.Popen(
            [*env, *PROGRAM, "-c", "help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.send_signal(number)
        running.append(process)
    for process in running:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=30)
        assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    "act",
    ["os.system('true')", "__import__('subprocess').run(['true'])", "os.fork()", "os.execv('/bin/true', ['true'])"],
)
def test_a_program_started_by_mistake_ends_the_shell_instead(act: str) -> None:
    script = START.replace("main; main()", f"harden; import os; harden(); {act}; print('ran')")
    done = subprocess.run(
        ["/usr/bin/python3", "-ISc", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (77, "")


def test_json_is_quiet_for_its_own_verb_and_not_for_the_rest_of_a_menu() -> None:
    terminal: Any = SimpleNamespace(say=lambda text: None)
    session = Session(terminal)
    for line, is_quiet in (("version --json", True), ("version", False)):
        actions.run(session, verbs.parse(line))
        assert terminal.is_quiet == is_quiet


def key_sent(lines: bytes, command: str, *, on_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """What goes to the daemon as the key for `command`, with `lines` sent or pasted."""
    ours, theirs = os.openpty() if on_terminal else reversed(os.pipe())
    kept, sent = os.dup(0), {}
    terminal = SimpleNamespace(is_interactive=on_terminal, say=lambda _: None, style=None)
    session = Session(terminal)  # type: ignore[arg-type]

    def answer(_: str, parameters: dict[str, Any], __: str) -> list[object]:
        sent.update(parameters)
        return []

    monkeypatch.setattr(session, "answer", answer)
    try:
        os.dup2(theirs, 0)
        os.write(ours, lines)
        if not on_terminal:
            os.close(ours)
        session.command(command)
    finally:
        os.dup2(kept, 0)
        os.close(theirs)
    return str(sent["key"])


SSH2 = b"---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\nAAAA\nBBBB\n---- END SSH2 PUBLIC KEY ----\n"


@pytest.mark.parametrize("where", ["terminal", "pipe"])
@pytest.mark.parametrize("lines", [SSH2, b"ssh-ed25519 AAAA\nBBBB x\n", b"ssh-ed25519 AAAA x\n"])
def test_all_lines_of_a_key_that_is_pasted_or_sent_go_to_the_daemon(
    lines: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = key_sent(lines, "keys add --json", on_terminal=where == "terminal", monkeypatch=monkeypatch)
    assert sent == lines.decode()


def test_lines_pasted_behind_the_verb_belong_to_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    first, rest = SSH2.split(b"\n", 1)
    sent = key_sent(rest, f"keys add --json {first.decode()}", on_terminal=True, monkeypatch=monkeypatch)
    assert sent == SSH2.decode()


def test_a_key_with_a_comment_in_gbk_comes_undamaged_as_an_argument_and_on_standard_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "ssh-ed25519 AAAA alice@\u7535\u8111"
    command = os.fsdecode(f"keys add --json {key}".encode("gbk"))
    assert key_sent(b"", command, on_terminal=False, monkeypatch=monkeypatch).strip() == key
    sent = key_sent(f"{key}\n".encode("gbk"), "keys add --json", on_terminal=False, monkeypatch=monkeypatch)
    assert sent == f"{key}\n"
