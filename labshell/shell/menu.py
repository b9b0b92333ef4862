"""The menu, for a login with a terminal: the verbs by number or name until the user leaves.

Loaded only when there is a terminal. readline gives history and completion; it is kept from reading any file,
and knows only the terminals we know.
"""

from __future__ import annotations

import os
import signal

from labshell.errors import Cancelled, LabshellError
from labshell.language import _
from labshell.shell import actions, verbs
from labshell.shell.card import Style
from labshell.shell.session import Session
from labshell.shell.terminal import Interrupted

ROWS_OF_THE_LIST = 32  # with the card above it, the list with a line for each verb needs as many
COLUMNS_OF_A_CHOICE = 15
CHOICES = tuple(verb for verb in verbs.VERBS if verb.in_menu)


def run(session: Session, idle_minutes: int) -> None:
    """Ask and do until quit, Ctrl-D, or `idle_minutes` of silence."""
    _prepare_line_editor()
    signal.signal(signal.SIGALRM, _leave)
    session.terminal.say(_choices(session))
    while True:
        try:
            line = _read_line(session, idle_minutes)
        except Interrupted:
            session.terminal.say("\n")
            continue
        if line is None:
            session.terminal.say("\n")
            return
        if not line.strip():
            session.terminal.say(_choices(session))
        elif not _do(session, _named(line)):
            return


def _do(session: Session, line: str) -> bool:
    """Do one line; whether the menu goes on."""
    try:
        session.terminal.is_quiet, session.terminal.notice = verbs.wants_json(line), None
        request = _request(line)
        if request.verb.name == "quit":
            return False
        actions.run(session, request)
        session.exit_status = 0
    except LabshellError as error:
        session.terminal.refuse(error)
    except Interrupted:
        session.terminal.refuse(Cancelled("interrupted-in-menu", "Interrupted; the server completes the operation."))
    return True


def _request(line: str) -> verbs.Request:
    """What a line asks for. UsageError: of a line that belongs elsewhere, it says where."""
    if verbs.ALIASES.get(line.split()[0], line.split()[0]) not in verbs.BY_NAME:
        from labshell.shell import mistyped

        raise mistyped.in_menu(line, len(CHOICES), verbs.COMMANDS)
    if line.split()[:2] != ["keys", "add"]:
        verbs.refuse_undecodable(line)
    return verbs.parse(line)


def _choices(session: Session) -> str:
    columns, rows = _size_of_window()
    if rows < ROWS_OF_THE_LIST:
        return short_choices(columns, session.terminal.style)
    return choices(session.terminal.style)


def _size_of_window() -> tuple[int, int]:
    """Columns and rows; a usual size if the terminal does not say."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        return 80, 24
    return columns or 80, rows or 24


def choices(style: Style) -> str:
    """Every choice with what it does."""
    lines = [
        f" {style.bold(f'{number:2}')}  {verb.name:10}{_(verb.summary)}" for number, verb in enumerate(CHOICES, 1)
    ]
    return "\n".join(lines) + "\n"


def short_choices(columns: int, style: Style) -> str:
    """The choices side by side, for a window in which the list would push the card out of sight."""
    cells = [f" {style.bold(f'{number:2}')}  {verb.name:10}" for number, verb in enumerate(CHOICES, 1)]
    in_a_row = max(1, columns // COLUMNS_OF_A_CHOICE)
    rows = ["".join(cells[first : first + in_a_row]).rstrip() for first in range(0, len(cells), in_a_row)]
    return "\n".join([*rows, "  " + _("`help` describes each command."), ""])


def _named(line: str) -> str:
    """The line with the number of a choice replaced by its verb."""
    first, _, rest = line.strip().partition(" ")
    if first.isascii() and first.isdigit() and 1 <= int(first[:4]) <= len(CHOICES):
        return f"{CHOICES[int(first) - 1].name} {rest}"
    return line


def _read_line(session: Session, idle_minutes: int) -> str | None:
    """One line; None at the end of the input or of the idle time."""
    signal.alarm(idle_minutes * 60)
    try:
        line = input("labshell> ")
    except EOFError:
        return None
    except TimeoutError:
        silence = _("No input for {minutes} minutes; the container keeps running.")
        session.terminal.say("\n" + silence.format(minutes=idle_minutes))
        return None
    finally:
        signal.alarm(0)
    return line


def _words_after(line: str) -> list[str]:
    """What may come next: a verb, or after one its actions and options."""
    first, blank, _ = line.lstrip().partition(" ")
    if not blank:
        return [verb.name for verb in CHOICES]
    verb = verbs.BY_NAME.get(first)
    forms = verb.forms if verb else ()
    words = [*(form.action for form in forms), *(f"--{name}" for form in forms for name in form.options)]
    return [word for word in dict.fromkeys(words) if word]


def _leave(*_: object) -> None:
    raise TimeoutError


def _prepare_line_editor() -> None:
    os.environ.update(INPUTRC=os.devnull, HOME="/nonexistent", TERMINFO="", TERMINFO_DIRS="")
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        found = [word + " " for word in _words_after(readline.get_line_buffer()) if word.startswith(text)]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    # A bracketed paste that never ends would swallow every line that follows.
    readline.parse_and_bind("set enable-bracketed-paste off")
    readline.parse_and_bind(r'"\e[200~": redraw-current-line')
    readline.set_auto_history(True)
