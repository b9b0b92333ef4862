"""One login: who it is, and what the daemon answers them.

Standard library only and little of it: every login pays for what is imported here.
"""

from __future__ import annotations

import os
import pwd

from labshell import language, places, shown
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.language import _
from labshell.shell import card, verbs
from labshell.shell.terminal import MAX_NAME_LENGTH
from labshell.wire import lean, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from labshell.shell.terminal import Terminal
    from labshell.wire.gateway import Report

SILENCE_SECONDS = 10.0  # the daemon says every few seconds that it is still at work
# Python sets it so itself where the host does not have the locale that came.
COERCED = ("C.UTF-8", "C.utf8", "UTF-8")


class Session:
    """One login: who it is, and what the daemon answers them."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.exit_status = 0
        self.user = pwd.getpwuid(os.getuid()).pw_name

    def command(self, command: str) -> None:
        """Run what was typed after `ssh HOST`."""
        from labshell.shell import actions, clients

        if command.split()[:2] == ["keys", "add"]:  # whose comment may be in the encoding of the user's computer
            actions.run(self, verbs.parse(command))
            return
        verbs.refuse_undecodable(command)
        name = command.split()[0]
        inside = clients.command_inside(command)
        if inside is not None:
            self.enter(inside)
            if self.exit_status == clients.NOT_FOUND:
                self.terminal.complain(clients.not_installed(command))
        elif verbs.ALIASES.get(name, name) in verbs.BY_NAME:
            actions.run(self, verbs.parse(command))
        else:
            raise self.refuse(command)

    def ask(self, method: str, parameters: dict[str, Any]) -> Report:
        """The report that a method of the daemon's answers with; a notice that comes along is shown beside it.

        The daemon says it once: where JSON is asked for it stays in the report, and in those that follow.
        """
        status: Report = self.answer(method, parameters, "status")
        notice = status.get("notice")
        if self.terminal.is_quiet:
            self.terminal.notice = notice or self.terminal.notice
            return {**status, "notice": self.terminal.notice} if self.terminal.notice else status
        if notice:
            self.terminal.complain(shown.sentence(notice))
        return status

    def answer(self, method: str, parameters: dict[str, Any], name: str) -> Any:
        """What the daemon answers under `name`, with progress shown meanwhile."""
        found = None
        for reply in self.replies(method, parameters):
            found = reply.get(name, found)
        if found is None:  # a daemon of another version: this program has been replaced, or is about to be
            raise TryAgain("being-updated", "labshell is being updated; try again in a minute.")
        return found

    def replies(self, method: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The daemon's replies but for its progress, which is shown."""
        call = f"{protocol.GATEWAY}.{method}"
        for reply in protocol.call(places.USER_SOCKET, call, parameters, SILENCE_SECONDS):
            if reply.get("progress"):
                self.terminal.progress(shown.sentence(reply["progress"]))
            elif reply:
                self.terminal.end_progress()
                yield reply

    def show(self, request: verbs.Request, method: str, name: str, text: Callable[[Any, card.Style], str]) -> Any:
        """What the daemon answers under `name`, printed as `text` says or as JSON."""
        answer = self.answer(method, {}, name)
        if not self.print_json(request, answer):
            self.terminal.say(text(answer, self.terminal.style))
        return answer

    def print_json(self, request: verbs.Request, answer: object) -> bool:
        """Print an answer as JSON, if that was asked for."""
        if "json" not in request.options:
            return False
        self.terminal.say(lean.dumps(answer) + "\n")
        return True

    def agree(self, request: verbs.Request, question: str) -> None:
        """Ask before something ends or is lost. LabshellError if the answer is not yes, with everything as it was."""
        if not self.terminal.is_interactive or self.terminal.is_quiet:
            raise UsageError(
                "confirmation-required", "Without a terminal, this command needs --yes: {usage}", usage=request.usage
            )
        if not self.terminal.confirm(question):
            raise LabshellError("confirmation-declined", "Nothing was changed.")

    def with_force(self, method: str, parameters: dict[str, Any], *, force: bool) -> Report:
        """Ask the daemon; a clean shutdown that did not work is offered again by force, on a terminal."""
        try:
            return self.ask(method, {**parameters, "force": force})
        except TryAgain as error:
            is_asked = self.terminal.is_interactive and not self.terminal.is_quiet
            if force or error.id != "shutdown-timeout" or not is_asked:
                raise
            self.terminal.complain(shown.error(error))
            if not self.terminal.confirm(_("Force stop?")):
                raise UsageError("force-stop-declined", "The container still runs.") from None
            return self.ask(method, {**parameters, "force": True})

    def enter(self, command: str, *, as_root: bool = False) -> None:
        """A program in the container on these streams; its exit status becomes ours."""
        from labshell.shell import streams

        terminal = None
        if os.isatty(0) and os.isatty(1):
            rows, columns = streams.size_of_terminal()
            terminal = {"type": self.terminal.kind, "rows": rows, "columns": columns}
        elif not command:
            raise UsageError(
                "enter-without-terminal",
                "Without a terminal, `enter` needs a command; for a shell run: ssh -t HOST enter",
            )
        sent = ((name, os.environ.get(name, "")) for name in language.LOCALE_NAMES)
        locale = {name: value for name, value in sent if value.isascii() and len(value) <= MAX_NAME_LENGTH}
        if locale.get("LC_CTYPE") in COERCED:
            del locale["LC_CTYPE"]
        parameters = {"command": command or None, "root": as_root, "terminal": terminal, "locale": locale}
        for reply in self.replies("Enter", parameters):
            if reply.get("attached") == 1:
                streams.relay_terminal(*reply["descriptors"])
            elif reply.get("attached"):
                streams.relay_streams(reply["descriptors"])
            self.exit_status = reply.get("exit_status") or 0

    def refuse_input(self) -> None:
        """UsageError if a script is there on standard input: a login without a command would throw it away."""
        if os.isatty(0):
            return
        import select

        try:
            has_come = select.select([0], [], [], 0)[0] and os.read(0, verbs.LONGEST_LINE).strip()
        except OSError:
            return
        if has_come:
            gateway = shown.gateway(self.user, os.uname().nodename)
            raise UsageError(
                "input-without-program",
                "A script on standard input needs a program: ssh {name} run bash < FILE",
                name=gateway,
            )

    def refuse(self, command: str) -> LabshellError:
        """The error for a command that is no verb: it names the right one, with the real host and port."""
        from labshell.shell import mistyped

        gateway, way_in = shown.gateway(self.user, os.uname().nodename), ""
        try:
            status = self.ask("Status", {})
            gateway, way_in = shown.gateway(status["user"], status["host"], status["host_port"]), card.way_in(status)
        except LabshellError:
            pass
        return mistyped.after_ssh(command, gateway, way_in, verbs.COMMANDS)
