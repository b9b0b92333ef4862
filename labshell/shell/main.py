"""The login shell: every user's only access to the host. It holds no power and runs no program.

It finds out what was asked (an SSH command, or nothing) and hands it to the session. No traceback ever reaches
a user.
"""

from __future__ import annotations

import os
import resource
import sys

from labshell import language, places
from labshell.errors import Cancelled, LabshellError, TryAgain, UsageError
from labshell.shell import card, verbs
from labshell.shell.session import Session
from labshell.shell.terminal import Interrupted, Terminal
from labshell.wire import lean
from labshell.wire.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FORCED_COMMAND = f"{places.LOGIN_SHELL} --ssh"  # what ForceCommand in the sshd drop-in says
LIMITS = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_NOFILE, 64))
FORBIDDEN_EVENTS = frozenset({
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn", "subprocess.Popen",
})  # fmt: skip


def harden() -> None:
    """No signal, closed descriptor or slip of ours becomes a traceback, a core or a program."""
    sys.addaudithook(_refuse_programs)
    for number in (signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    for limit, most in LIMITS:  # what is lower already stays so
        _, already = resource.getrlimit(limit)
        value = most if already == resource.RLIM_INFINITY else min(most, already)
        resource.setrlimit(limit, (value, value))
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    signal.signal(signal.SIGINT, interrupt)


def _refuse_programs(event: str, _: object) -> None:
    if event in FORBIDDEN_EVENTS:
        os._exit(77)


def interrupt(*_: object) -> None:
    raise Interrupted


def login(session: Session) -> None:
    """A login without a command: start, the card, and the menu where there is a terminal.

    A program that takes the menu for a shell would wait for a prompt that never comes: it gets an error.
    """
    session.refuse_input()
    status = session.ask("Start", {})
    session.refuse_input()  # ssh may have sent it meanwhile
    if session.terminal.is_interactive and session.terminal.is_dumb:
        raise UsageError(
            "terminal-dumb",
            "This terminal is of type dumb, which the menu cannot use. Log in to the container with: {way_in}",
            way_in=card.way_in(status) or "enter",
        )
    session.terminal.say(card.card(status, session.terminal.style))
    if session.terminal.is_interactive:
        from labshell.shell import menu

        menu.run(session, status["menu_idle_minutes"])


def requested_command(argv: list[str], environment: Mapping[str, str]) -> str | None:
    """What sshd or the caller wants run; None for a plain login."""
    command = argv[2] if len(argv) == 3 and argv[1] == "-c" else " ".join(argv[1:]) or None
    if command in (FORCED_COMMAND, "--ssh"):
        command = environment.get("SSH_ORIGINAL_COMMAND")
    return command if command and command.strip() else None


def main() -> None:
    harden()
    terminal = Terminal()
    try:
        language.use(language.choose(os.environ, language.configured()))
        command = requested_command(sys.argv, os.environ)
        terminal.is_quiet = command is not None and verbs.wants_json(command)
        session = Session(terminal)
        if command is None:
            login(session)
        else:
            session.command(command)
        status = session.exit_status
    except LabshellError as error:
        terminal.refuse(error, "labshell: ")
        status = error.status
    except BrokenPipeError:
        status = 1
    except Interrupted:
        stopped = Cancelled("interrupted", "interrupted; the server completes the operation.")
        terminal.refuse(stopped, "labshell: ")
        status = stopped.status
    except ImportError as error:  # a module that is loaded for one verb, while it is being installed
        _reported(error)
        updating = TryAgain("being-updated", "labshell is being updated; try again in a minute.")
        terminal.refuse(updating, "labshell: ")
        status = updating.status
    except BaseException as error:  # noqa: BLE001 - the last line before the user
        bug = LabshellError(
            "bug-in-shell",
            "something went wrong here; please give the administrator the reference {reference}.",
            reference=_reported(error),
        )
        terminal.refuse(bug, "labshell: ")
        status = 1
    os._exit(status)


def _reported(error: BaseException) -> str:
    """Put a bug into the system's log; the reference that finds it there."""
    import syslog
    import traceback

    reference = f"{os.getpid():x}-{os.urandom(3).hex()}"
    trace = traceback.format_exception(error)
    syslog.openlog("labshell")
    syslog.syslog(syslog.LOG_ERR, lean.dumps({"reference": reference, "cause": "".join(trace)}))
    return reference
