"""How a program is started inside a container: its argument list, its terminal and its language. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from labshell.errors import UsageError
from labshell.language import LOCALE_NAMES

VALUE = re.compile(r"[A-Za-z0-9_.@:-]{1,40}", re.ASCII)  # no slash: glibc would take it for a path
KIND = re.compile(r"[A-Za-z0-9+.-]{1,40}", re.ASCII)
# The terminal types whose descriptions every Debian and Ubuntu has (ncurses-base).
DESCRIBED = frozenset((
    "Eterm", "Eterm-color", "ansi", "cygwin", "dumb", "linux", "rxvt", "rxvt-basic", "rxvt-unicode",
    "rxvt-unicode-256color", "screen", "screen-256color", "screen-256color-bce", "screen-bce", "screen-s", "screen-w",
    "screen.xterm-256color", "sun", "tmux", "tmux-256color", "vt100", "vt102", "vt220", "vt52", "xterm",
    "xterm-256color", "xterm-color", "xterm-mono", "xterm-r5", "xterm-r6", "xterm-vt220",
))  # fmt: skip
# By how the name of any other type begins, the described one that behaves most like it. The first that fits counts.
LIKE = (
    ("screen", "screen-256color"), ("tmux", "tmux-256color"), ("rxvt", "rxvt-unicode-256color"), ("linux", "linux"),
    ("vt1", "vt102"), ("vt", "vt220"), ("dumb", "dumb"), ("eterm", "Eterm-color"),
    *((name, "xterm-256color") for name in (
        "xterm", "alacritty", "contour", "foot", "ghostty", "gnome", "iterm", "kitty", "konsole", "mintty", "mlterm",
        "ms-terminal", "nsterm", "putty", "st-", "terminator", "vte", "wezterm",
    )),
)  # fmt: skip
OTHER = "vt100"
# runuser --login empties the environment but for TERM. One older than util-linux 2.35 cannot be told what to leave.
START = (
    f'case "$(runuser --help 2>&1)" in *--whitelist-environment*) '
    f'set -- --whitelist-environment={",".join(LOCALE_NAMES)} "$@";; esac; exec runuser "$@"'
)


@dataclass(frozen=True)
class Program:
    """What to run inside a container: a shell's command line, or nothing for a login shell."""

    command: str | None = None
    as_root: bool = False
    terminal: tuple[str, int, int] | None = None  # its type, rows, columns
    locale: Mapping[str, str] = field(default_factory=dict)  # LANG and its relatives


def checked_program(
    command: str | None, *, as_root: bool, terminal: tuple[str, int, int] | None, locale: Mapping[str, str]
) -> Program:
    """A program as a caller asks for it; what no program needs of a terminal or a language is left out."""
    if command is not None and "\0" in command:
        raise UsageError("command-character-invalid", "This command has a character that no command can have.")
    if terminal is not None:
        kind, rows, columns = terminal
        terminal = (described_terminal(kind), min(max(rows, 5), 500), min(max(columns, 20), 500))
    return Program(command or None, as_root, terminal, checked_locale(locale))


def described_terminal(kind: str) -> str:
    """A terminal type that the container knows: this one, or the one most like it."""
    if kind in DESCRIBED:
        return kind
    if not KIND.fullmatch(kind):
        return OTHER
    return next((described for beginning, described in LIKE if kind.lower().startswith(beginning)), OTHER)


def checked_locale(sent: Mapping[str, str]) -> dict[str, str]:
    """The language's variables, as sshd would hand them on; C.UTF-8 where none came that decides the coding."""
    taken = {name: sent[name] for name in LOCALE_NAMES if VALUE.fullmatch(sent.get(name, ""))}
    if not taken.keys() & {"LANG", "LC_ALL"}:
        taken["LANG"] = "C.UTF-8"
    return taken


def command_inside(user: str, program: Program) -> list[str]:
    """The argument list that the engine runs as root inside. The command line goes to the shell in there."""
    # Not su: it would not let in whoever has to change their password first.
    argv = ["/bin/sh", "-c", START, "labshell", "--login", "root" if program.as_root else user]
    if program.command is None:
        return argv
    # With a terminal, -c would start the command without one that Ctrl-C works on.
    return [*argv, "--session-command" if program.terminal else "--command", program.command]


def environment_inside(program: Program) -> dict[str, str]:
    """What the engine sets for it."""
    return {**program.locale, **({"TERM": program.terminal[0]} if program.terminal else {})}
