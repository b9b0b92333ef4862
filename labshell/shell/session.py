"""One login: what the person sees, what they asked for, and what the daemon answers.

Standard library only and little of it: every login pays for what is imported here.
"""

from __future__ import annotations

import os
import pwd

from labshell import __version__, language, shown
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.language import _
from labshell.shell import card, verbs
from labshell.wire import lean, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

SILENCE_SECONDS = 10.0  # the daemon says every few seconds that it is still at work
PATIENCE_SECONDS = 600
LONGEST_KEY = 32768
MAX_NAME_LENGTH = 40  # of a terminal's type or a language
# Python sets it so itself where the host does not have the locale that came.
COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
YES = (b"y", b"yes", "是".encode())
PASTE_SECONDS = 0.2  # between two lines of what is pasted
SNAPSHOT_METHODS = {
    "": "Snapshots", "create": "CreateSnapshot", "restore": "RestoreSnapshot", "delete": "DeleteSnapshot",
}  # fmt: skip
FORWARD_OPTIONS = {"name": "name", "for": "lasting", "from": "source"}  # the verb's options, the daemon's words


class Interrupted(BaseException):
    """Ctrl-C, or the end of the idle time."""


class Terminal:
    """Where the person is: what they see, and whether they can be asked."""

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
        self._has_progress = False

    def say(self, text: str) -> None:
        """Text on standard output; nobody there to read it ends the session quietly."""
        self.end_progress()
        _write(1, text)

    def complain(self, text: str) -> None:
        """One line on standard error, so that standard output stays what was asked for."""
        self.end_progress()
        _write(2, f"{text}\n")

    def progress(self, text: str) -> None:
        """What is happening now, on one line that the next one replaces; only where somebody watches."""
        if self.is_interactive and not self.is_quiet and os.environ["TERM"] != "dumb":
            _write(1, f"\r\033[K{text} ..." if self._has_progress else f"{text} ...")
            self._has_progress = True

    def end_progress(self) -> None:
        if self._has_progress:
            self._has_progress = False
            _write(1, "\r\033[K")


def _write(descriptor: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os._exit(1)


def _goes_on(pasted: bytes) -> bool:
    """Whether more lines of a key that is pasted follow: they are there already, or its END line is still missing."""
    import select

    if select.select([0], [], [], PASTE_SECONDS)[0]:
        return True
    return b"BEGIN " in pasted and b"END " not in pasted and not pasted.endswith(b"\n\n")


def _read(most: int) -> bytes:
    """What comes on standard input; nobody holds a login open by saying nothing."""
    import select

    if not select.select([0], [], [], PATIENCE_SECONDS)[0]:
        raise UsageError("Nothing was typed or sent for {minutes} minutes.", minutes=PATIENCE_SECONDS // 60)
    return os.read(0, most)


class Session:
    """One login: who it is, and what the daemon answers them."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.exit_status = 0
        self.user = pwd.getpwuid(os.getuid()).pw_name

    def run(self, request: verbs.Request) -> None:
        """Do one verb and print what it says."""
        handlers = {
            "status": self._state, "start": self._state, "stop": self._state, "restart": self._state,
            "enter": self._enter, "run": self._enter, "proxy": self._proxy, "ports": self._ports, "keys": self._keys,
            "snapshot": self._snapshot, "rebuild": self._rebuild, "keep": self._keep,
            "usage": self._usage, "gpus": self._gpus, "doctor": self._doctor,
            "ssh-config": self._laptop, "known-hosts": self._laptop, "help": self._help, "version": self._version,
        }  # fmt: skip
        self.terminal.is_quiet = "json" in request.options
        if request.verb.name != "quit":
            handlers[request.verb.name](request)

    def _help(self, request: verbs.Request) -> None:
        self.terminal.say(verbs.help_text(*request.arguments))

    def _version(self, request: verbs.Request) -> None:
        if not self._json(request, {"version": __version__}):
            self.terminal.say(f"labshell {__version__}\n")

    def _laptop(self, request: verbs.Request) -> None:
        from labshell.shell import laptop

        status = self.ask("Status", {})
        if request.verb.name == "ssh-config":
            self.terminal.say(laptop.ssh_config(status))
        else:
            self.terminal.say(laptop.known_hosts(status, self.answer("GatewayKeys", {}, "keys")))

    def _enter(self, request: verbs.Request) -> None:
        command = request.arguments[0] if request.arguments else ""
        self.enter(command, as_root="root" in request.options)

    def _json(self, request: verbs.Request, answer: object) -> bool:
        """Print an answer as JSON, if that was asked for."""
        if "json" not in request.options:
            return False
        self.terminal.say(lean.dumps(answer) + "\n")
        return True

    def _state(self, request: verbs.Request) -> None:
        name = request.verb.name
        if name in ("stop", "restart"):
            now = self.ask("Status", {})
            if now.get("disk_full"):
                warning = _("The disk of your container is full. Delete files first: it may not start again.")
                self.terminal.complain(warning)
            if "yes" not in request.options and now["state"] != "stopped":
                self.agree(request, _("Everything that runs in your container ends. Go on?"))
            status = self._with_force(name.capitalize(), {}, force="force" in request.options)
        else:
            status = self.ask(name.capitalize(), {})
        if self._json(request, status):
            return
        show = card.card if name in ("start", "restart") else card.status_text
        self.terminal.say(show(status, self.terminal.style))

    def _ports(self, request: verbs.Request) -> None:
        if request.action == "add":
            options = {name: request.options.get(option) for option, name in FORWARD_OPTIONS.items()}
            self.answer("AddForward", {"target": _number(request.arguments[0]), **options}, "forwards")
        elif request.action == "remove":
            self.answer("RemoveForward", {"port": _number(request.arguments[0])}, "forwards")
        status, forwards = self.ask("Status", {}), self.answer("Forwards", {}, "forwards")
        if not self._json(request, forwards):
            self.terminal.say(card.forwards_text(status, forwards, self.terminal.style))

    def _snapshot(self, request: verbs.Request) -> None:
        name = request.arguments[0] if request.arguments else None
        warnings = {
            "restore": _("Everything changed since {name} is lost, and what runs ends. Go on?"),
            "delete": _("{name} is lost for good. Go on?"),
        }
        method, parameters = SNAPSHOT_METHODS[request.action], {"name": name} if request.action else {}
        if request.action in warnings and "yes" not in request.options:
            self.ask(method, {**parameters, "dry_run": True})
            self.agree(request, warnings[request.action].format(name=name))
        snapshots = self.answer(method, parameters, "snapshots")
        if not self._json(request, snapshots):
            self.terminal.say(card.snapshots_text(snapshots, self.terminal.style))

    def _rebuild(self, request: verbs.Request) -> None:
        warnings = {
            "": _(
                "Everything in your container is put aside and what runs ends; rebuild undo brings it back. Go on?"
            ),
            "undo": _("The container from before the rebuild comes back, and what runs ends. Go on?"),
            "forget": _("The container from before the rebuild is lost for good. Go on?"),
        }
        method, parameters = {
            "": ("Rebuild", {"template": request.options.get("template")}),
            "undo": ("UndoRebuild", {}),
            "forget": ("ForgetKept", {}),
        }[request.action]
        force = {"force": False} if request.action != "forget" else {}
        if "yes" not in request.options:
            self.ask(method, {**parameters, **force, "dry_run": True})
            self.agree(request, warnings[request.action])
        if force:
            status = self._with_force(method, parameters, force="force" in request.options)
        else:
            status = self.ask(method, parameters)
        if not self._json(request, status):
            self.terminal.say(card.status_text(status, self.terminal.style))

    def _keep(self, request: verbs.Request) -> None:
        if request.action == "off":
            status = self.ask("Release", {})
        elif request.arguments:
            lasting, *reason = request.arguments
            status = self.ask("Hold", {"lasting": lasting, "reason": reason[0].strip("'\"") if reason else None})
        else:
            status = self.ask("Status", {})
        if not self._json(request, status):
            self.terminal.say(card.keep_text(status, self.terminal.style))

    def _usage(self, request: verbs.Request) -> None:
        self._show(request, "ReportUsage", "usage", card.usage_text)

    def _gpus(self, request: verbs.Request) -> None:
        self._show(request, "Gpus", "gpus", card.gpus_text)

    def _show(self, request: verbs.Request, method: str, name: str, text: Callable[[Any, card.Style], str]) -> Any:
        """What the daemon answers under `name`, printed as `text` says or as JSON."""
        answer = self.answer(method, {}, name)
        if not self._json(request, answer):
            self.terminal.say(text(answer, self.terminal.style))
        return answer

    def _doctor(self, request: verbs.Request) -> None:
        """The findings; the exit status is 1 if one of them is bad."""
        findings = self._show(request, "Doctor", "findings", card.doctor_text)
        self.exit_status = int(any(found["result"] == "bad" for found in findings))

    def agree(self, request: verbs.Request, question: str) -> None:
        """Ask before something ends or is lost. LabshellError if the answer is not yes, with everything as it was."""
        if not self.terminal.is_interactive or self.terminal.is_quiet:
            raise UsageError("Without a question on a terminal, this needs --yes: {usage}", usage=request.usage)
        if not self.confirm(question):
            raise LabshellError("Nothing was changed.")

    def _keys(self, request: verbs.Request) -> None:
        from labshell.shell import logins

        if request.action == "add":
            text = self._read_key(request.arguments[0] if request.arguments else "")
            keys = self.answer("AddKey", {"key": text}, "keys")
        elif request.action == "remove":
            from labshell.shell import key_removal

            keys = key_removal.remove(self, request)
        else:
            keys = self.answer("Keys", {}, "keys")
        own = logins.own_fingerprint()
        keys = [{**key, "this_login": key["fingerprint"] == own} for key in keys]
        if not self._json(request, keys):
            self.terminal.say(card.keys_text(keys, self.terminal.style))

    def _read_key(self, given: str) -> str:
        """A key that was given as an argument, comes on standard input or is pasted, in one line or several."""
        from labshell import texts

        interactive = self.terminal.is_interactive
        if interactive and not given:
            self.terminal.say(_("Paste the public key, then press Enter: "))
        data = os.fsencode(f"{given}\n") if given else _read(LONGEST_KEY)
        while data and len(data) < LONGEST_KEY and (_goes_on(data) if interactive else not given):
            if not (chunk := _read(LONGEST_KEY)):
                break
            data += chunk
        return texts.decoded(data)

    def _with_force(self, method: str, parameters: dict[str, Any], *, force: bool) -> Mapping[str, Any]:
        """Ask the daemon; a clean shutdown that did not work is offered again by force, if somebody is there."""
        try:
            return self.ask(method, {**parameters, "force": force})
        except TryAgain as error:
            if force or "--force" not in error.sentence or not self.terminal.is_interactive:
                raise
            self.terminal.complain(shown.error(error))
            if not self.confirm(_("Stop it the hard way?")):
                raise UsageError("The container still runs.") from None
            return self.ask(method, {**parameters, "force": True})

    def ask(self, method: str, parameters: dict[str, Any]) -> Mapping[str, Any]:
        """The report that a method of the daemon's answers with; a notice that comes along is shown beside it."""
        status: Mapping[str, Any] = self.answer(method, parameters, "status") or {}
        if status.get("notice"):
            self.terminal.complain(shown.sentence(status["notice"]))
        return status

    def answer(self, method: str, parameters: dict[str, Any], name: str) -> Any:
        """What the daemon answers under `name`, with progress shown meanwhile."""
        found = None
        for reply in self.replies(method, parameters):
            found = reply.get(name, found)
        return found

    def replies(self, method: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The daemon's replies but for its progress, which is shown."""
        call = f"{protocol.GATEWAY}.{method}"
        for reply in protocol.call(protocol.USER_SOCKET, call, parameters, SILENCE_SECONDS):
            if reply.get("progress"):
                self.terminal.progress(shown.sentence(reply["progress"]))
            elif reply:
                self.terminal.end_progress()
                yield reply

    def enter(self, command: str, *, as_root: bool = False) -> None:
        """A program in the container on these streams; its exit status becomes ours."""
        from labshell.shell import streams

        terminal = None
        if os.isatty(0) and os.isatty(1):
            rows, columns = streams.size_of_terminal()
            terminal = {"type": self.terminal.kind, "rows": rows, "columns": columns}
        elif not command:
            raise UsageError("Without a terminal, enter needs a command; with one, say: ssh -t HOST enter")
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

    def _proxy(self, _: verbs.Request) -> None:
        """Standard input and output as a connection to the container's SSH server."""
        from labshell.shell import streams

        descriptors = self.answer("Proxy", {}, "descriptors")  # the daemon is done with us before any byte moves
        streams.relay_connection(*descriptors)

    def confirm(self, question: str) -> bool:
        """Whether the answer is a yes. No other line, Ctrl-C, Ctrl-D or closed terminal is one."""
        self.terminal.say(f"{question} [y/N] ")
        try:
            answer = _read(verbs.LONGEST_LINE)
        except (Interrupted, OSError):
            answer = b""
        if not answer.endswith(b"\n"):
            self.terminal.say("\n")
        return answer.strip().lower() in YES

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
            raise UsageError("A script on standard input needs a program: ssh {name} run bash < FILE", name=gateway)

    def refuse(self, command: str) -> LabshellError:
        """The error for a command that is no verb: it names the right one, with the real host and port."""
        from labshell.shell import mistyped

        gateway, way_in = shown.gateway(self.user, os.uname().nodename), ""
        try:
            status = self.ask("Status", {})
            gateway, way_in = shown.gateway(status["user"], status["host"], status["host_port"]), card.way_in(status)
        except LabshellError:
            pass
        return UsageError("{refusal}", refusal=mistyped.after_ssh(command, gateway, way_in, verbs.COMMANDS))

    def command(self, command: str) -> None:
        """Run what was typed after `ssh HOST`."""
        from labshell.shell import clients

        if command.split()[:2] == ["keys", "add"]:  # whose comment may be in the encoding of the user's computer
            self.run(verbs.parse(command))
            return
        verbs.refuse_undecodable(command)
        name = command.split()[0]
        inside = clients.command_inside(command)
        if inside is not None:
            self.enter(inside)
            if self.exit_status == clients.NOT_FOUND:
                self.terminal.complain(clients.not_installed(command))
        elif verbs.ALIASES.get(name, name) in verbs.BY_NAME:
            self.run(verbs.parse(command))
        else:
            raise self.refuse(command)


def _number(word: str) -> int:
    word, _, protocol = word.partition("/")
    if protocol == "udp":
        raise UsageError("Only TCP is forwarded: there are no ports for UDP.")
    if protocol not in ("", "tcp") or not (word.isascii() and word.isdigit() and len(word) <= 5):
        raise UsageError("{word} is not a port number.", word=shown.plain(word)[:40])
    return int(word)
