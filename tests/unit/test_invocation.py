"""How a program is started inside: its argument list, a terminal the container knows, the caller's language."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labshell import language
from labshell.engine import invocation
from labshell.errors import UsageError


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("xterm", "xterm"), ("xterm-256color", "xterm-256color"), ("vt220", "vt220"), ("dumb", "dumb"), ("linux", "linux"),
        ("xterm-kitty", "xterm-256color"), ("alacritty", "xterm-256color"), ("foot-extra", "xterm-256color"), ("xterm-ghostty", "xterm-256color"),
        ("wezterm", "xterm-256color"), ("st-256color", "xterm-256color"), ("iTerm2.app", "xterm-256color"), ("putty-256color", "xterm-256color"),
        ("tmux-direct", "tmux-256color"), ("screen.linux", "screen-256color"), ("rxvt-unicode-24bit", "rxvt-unicode-256color"), ("vt420", "vt220"),
        ("vtx", "vt220"), ("wyse60", "vt100"), ("", "vt100"), ("xterm\n", "vt100"), ("xterm\x1b[2J", "vt100"), ("xterm/../x", "vt100"),
        ("x" * 100, "vt100"), ("vt\uff11\uff10\uff10", "vt100"),
    ],
)  # fmt: skip
def test_a_terminal_is_one_that_the_container_knows(kind: str, taken: str) -> None:
    assert invocation.described_terminal(kind) == taken
    assert taken in invocation.DESCRIBED


@pytest.mark.parametrize("kind", sorted({invocation.OTHER, *(described for _, described in invocation.LIKE)}))
def test_every_terminal_that_stands_for_another_is_described_in_a_plain_debian(kind: str) -> None:
    assert kind in invocation.DESCRIBED
    assert subprocess.run(["/usr/bin/infocmp", kind], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("size", "taken"), [((24, 80), (24, 80)), ((0, 0), (5, 20)), ((501, 10**9), (500, 500))])
def test_a_terminal_has_a_size_within_reason(size: tuple[int, int], taken: tuple[int, int]) -> None:
    program = invocation.checked_program(None, as_root=False, terminal=("xterm", *size), locale={})
    assert program.terminal == ("xterm", *taken)


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ({}, {"LANG": "C.UTF-8"}),
        ({"LANG": "zh_CN.UTF-8"}, {"LANG": "zh_CN.UTF-8"}),
        ({"LC_ALL": "de_DE@euro"}, {"LC_ALL": "de_DE@euro"}),
        ({"LC_TIME": "en_GB.UTF-8"}, {"LC_TIME": "en_GB.UTF-8", "LANG": "C.UTF-8"}),
        ({"LANG": "", "LC_ALL": ""}, {"LANG": "C.UTF-8"}),
        ({"LANG": "../../etc/passwd", "LC_EVIL": "x", "PATH": "x"}, {"LANG": "C.UTF-8"}),
        ({"LANG": "zh_CN.UTF-8\n"}, {"LANG": "C.UTF-8"}),
        ({"LANG": "A" * 10_000, "LANGUAGE": "zh:en"}, {"LANGUAGE": "zh:en", "LANG": "C.UTF-8"}),
    ],
)
def test_the_language_is_handed_on_and_nothing_else_is(sent: dict[str, str], taken: dict[str, str]) -> None:
    program = invocation.checked_program(None, as_root=False, terminal=None, locale=sent)
    assert invocation.environment_inside(program) == taken


@pytest.mark.parametrize("command", ["id", "-x", "--help", "", "a\nb", "$(id); `id`", "\u00fcn\u00ef", " "])
@pytest.mark.parametrize("as_root", [True, False])
@pytest.mark.parametrize("terminal", [None, ("xterm", 24, 80)])
def test_whatever_the_command_it_is_the_value_of_runusers_option(
    command: str, *, as_root: bool, terminal: tuple[str, int, int] | None
) -> None:
    program = invocation.checked_program(command, as_root=as_root, terminal=terminal, locale={})
    option = "--session-command" if terminal else "--command"
    shell, flag, script, name, *argv = invocation.command_inside("alice", program)
    assert (shell, flag, script, name) == ("/bin/sh", "-c", invocation.START, "labshell")
    assert argv == ["--login", "root" if as_root else "alice", *([option, command] if command else [])]


@pytest.mark.parametrize("knows", [True, False], ids=["new", "old"])
def test_runuser_is_told_what_to_leave_where_it_can_be_told(tmp_path: Path, *, knows: bool) -> None:
    """An old one gets the same arguments without that option."""
    shows = "--whitelist-environment" if knows else "--login"
    runuser = tmp_path / "runuser"
    runuser.write_text(f'#!/bin/sh\n[ "$1" = --help ] && echo "{shows}" && exit\nprintf "%s\\n" "$@"\n')
    runuser.chmod(0o755)
    program = invocation.checked_program("echo  'a b'", as_root=False, terminal=None, locale={})
    argv = invocation.command_inside("alice", program)
    done = subprocess.run(argv, env={"PATH": f"{tmp_path}"}, capture_output=True, text=True, check=True)
    option = [f"--whitelist-environment={','.join(language.LOCALE_NAMES)}"] if knows else []
    assert done.stdout.splitlines() == [*option, "--login", "alice", "--command", "echo  'a b'"]


def test_a_command_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError):
        invocation.checked_program("a\0b", as_root=False, terminal=None, locale={})
