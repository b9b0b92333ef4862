"""The user's terminal: output, and whether it can ask."""

from __future__ import annotations

import os

from labshell import shown
from labshell.errors import LabshellError, UsageError
from labshell.shell import card, verbs
from labshell.wire import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labshell.wire.gateway import Progress

PATIENCE_SECONDS = 600
MAX_NAME_LENGTH = 40  # of a terminal's type or a language
YES = (b"y", b"yes", "是".encode())


class Interrupted(BaseException):
    """Ctrl-C, or the end of the idle time."""


class Terminal:
    """The user's terminal: what it shows, and whether it can ask."""

    def __init__(self) -> None:
        self.is_interactive = os.isatty(0) and os.isatty(1)
        self.is_dumb = os.environ.get("TERM") == "dumb"  # of a program, as a rule: Emacs is one
        # For a program inside, which may know more types than the host.
        self.kind = shown.plain(os.environ.get("TERM", "dumb"))[:MAX_NAME_LENGTH]
        if not shown.is_known_terminal(os.environ.get("TERM", "")):
            os.environ["TERM"] = "dumb"
        colour = os.isatty(1) and os.environ["TERM"] != "dumb" and not os.environ.get("NO_COLOR")
        self.style = card.Style(colour=colour)
        self.is_quiet = False  # for this verb: what is asked for is JSON and nothing else
        self.notice: Progress | None = None  # which waits for JSON to carry it
        self._has_progress = False

    def say(self, text: str) -> None:
        """Text on standard output; a closed output ends the session quietly."""
        self.end_progress()
        _write(1, text)

    def complain(self, text: str) -> None:
        """One line on standard error, so that standard output stays what was asked for."""
        self.end_progress()
        _write(2, f"{text}\n")

    def refuse(self, error: LabshellError, prefix: str = "") -> None:
        """An error on standard error: its sentence, or one line of JSON for this verb."""
        sentence = shown.error(error)
        if self.is_quiet:
            notice = {"notice": self.notice} if self.notice else {}
            self.complain(lean.dumps({"error": {"id": error.id, "message": sentence, "remedy": None}, **notice}))
        else:
            self.complain(f"{prefix}{sentence}")

    def progress(self, text: str) -> None:
        """What is happening now, on one line that the next one replaces; only on a terminal."""
        if self.is_interactive and not self.is_quiet and os.environ["TERM"] != "dumb":
            _write(1, f"\r\033[K{text} ..." if self._has_progress else f"{text} ...")
            self._has_progress = True

    def end_progress(self) -> None:
        if self._has_progress:
            self._has_progress = False
            _write(1, "\r\033[K")

    def confirm(self, question: str) -> bool:
        """Whether the answer is a yes. No other line, Ctrl-C, Ctrl-D or closed terminal is one."""
        self.say(f"{question} [y/N] ")
        try:
            answer = read_input(verbs.LONGEST_LINE)
        except (Interrupted, OSError):
            answer = b""
        if not answer.endswith(b"\n"):
            self.say("\n")
        return answer.strip().lower() in YES


def _write(descriptor: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os._exit(1)


def read_input(most: int) -> bytes:
    """What comes on standard input, within a time limit."""
    import select

    if not select.select([0], [], [], PATIENCE_SECONDS)[0]:
        raise UsageError("input-timeout", "No input for {minutes} minutes.", minutes=PATIENCE_SECONDS // 60)
    return os.read(0, most)
