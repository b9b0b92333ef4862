"""What each verb asks the daemon for, and how its answer is shown.

Loaded when a command or the menu needs it: a login without a terminal does not.
"""

from __future__ import annotations

from labshell import __version__, shown
from labshell.errors import UsageError
from labshell.language import _
from labshell.shell import answers, card, verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from labshell.shell.session import Session
    from labshell.shell.verbs import Request

    Action = Callable[[Session, Request], None]

SNAPSHOT_METHODS = {
    "": "Snapshots", "create": "CreateSnapshot", "restore": "RestoreSnapshot", "delete": "DeleteSnapshot",
}  # fmt: skip
FORWARD_OPTIONS = {"name": "name", "for": "lasting", "from": "source"}  # the verb's options, the daemon's words


ACTIONS: dict[str, Action] = {}


def run(session: Session, request: Request) -> None:
    """Do one verb and print what it says."""
    session.terminal.is_quiet, session.terminal.notice = "json" in request.options, None
    if request.verb.name != "quit":
        ACTIONS[request.verb.name](session, request)


def action(*names: str) -> Callable[[Action], Action]:
    """The function that it stands above does the verbs of these names."""

    def registered(function: Action) -> Action:
        ACTIONS.update(dict.fromkeys(names, function))
        return function

    return registered


@action("status", "start", "stop", "restart")
def _state(session: Session, request: Request) -> None:
    name = request.verb.name
    if name in ("stop", "restart"):
        now = session.ask("Status", {})
        if now.get("disk_full") and not session.terminal.is_quiet:  # JSON says so itself
            warning = _("The disk of your container is full. Delete files first: it may not start again.")
            session.terminal.complain(warning)
        if "yes" not in request.options and now["state"] != "stopped":
            session.agree(request, _("All programs in your container will end. Continue?"))
        status = session.with_force(name.capitalize(), {}, force="force" in request.options)
    else:
        status = session.ask(name.capitalize(), {})
    if session.print_json(request, status):
        return
    show = card.card if name in ("start", "restart") else card.status_text
    session.terminal.say(show(status, session.terminal.style))


@action("enter", "run")
def _enter(session: Session, request: Request) -> None:
    command = request.arguments[0] if request.arguments else ""
    session.enter(command, as_root="root" in request.options)


@action("proxy")
def _proxy(session: Session, _: Request) -> None:
    """Standard input and output as a connection to the container's SSH server."""
    from labshell.shell import streams

    descriptors = session.answer("Proxy", {}, "descriptors")  # the daemon is done with us before any byte moves
    streams.relay_connection(*descriptors)


@action("ports")
def _ports(session: Session, request: Request) -> None:
    method, parameters = "Forwards", {}
    if request.action == "add":
        options = {name: request.options.get(option) for option, name in FORWARD_OPTIONS.items()}
        method, parameters = "AddForward", {"target": _number(request.arguments[0]), **options}
    elif request.action == "remove":
        method, parameters = "RemoveForward", {"port": _number(request.arguments[0])}
    ports = session.answer(method, parameters, "ports")
    if not session.print_json(request, ports["forwards"]):
        session.terminal.say(answers.forwards_text(ports, session.terminal.style))


@action("keys")
def _keys(session: Session, request: Request) -> None:
    from labshell.shell import keys

    keys.keys(session, request)


@action("snapshot")
def _snapshot(session: Session, request: Request) -> None:
    name = request.arguments[0] if request.arguments else None
    warnings = {
        "restore": _("Changes since {name} will be lost and all programs will end. Continue?"),
        "delete": _("{name} will be deleted permanently. Continue?"),
    }
    method, parameters = SNAPSHOT_METHODS[request.action], {"name": name} if request.action else {}
    if request.action in warnings and "yes" not in request.options:
        session.answer(method, {**parameters, "dry_run": True}, "snapshots")
        session.agree(request, warnings[request.action].format(name=name))
    snapshots = session.answer(method, parameters, "snapshots")
    if not session.print_json(request, snapshots):
        session.terminal.say(answers.snapshots_text(snapshots, session.terminal.style))


@action("rebuild")
def _rebuild(session: Session, request: Request) -> None:
    warnings = {
        "": _(
            "Your container will be set aside and all its programs will end; `rebuild undo` brings it back. Continue?"
        ),
        "undo": _("The container from before the rebuild will come back and all programs will end. Continue?"),
        "forget": _("The container from before the rebuild will be deleted permanently. Continue?"),
    }
    method, parameters = {
        "": ("Rebuild", {"template": request.options.get("template")}),
        "undo": ("UndoRebuild", {}),
        "forget": ("ForgetKept", {}),
    }[request.action]
    force = {"force": False} if request.action != "forget" else {}
    if "yes" not in request.options:
        session.ask(method, {**parameters, **force, "dry_run": True})
        session.agree(request, warnings[request.action])
    if force:
        status = session.with_force(method, parameters, force="force" in request.options)
    else:
        status = session.ask(method, parameters)
    if not session.print_json(request, status):
        session.terminal.say(card.status_text(status, session.terminal.style))


@action("keep")
def _keep(session: Session, request: Request) -> None:
    if request.action == "off":
        status = session.ask("Release", {})
    elif request.arguments:
        lasting, *reason = request.arguments
        status = session.ask("Hold", {"lasting": lasting, "reason": reason[0].strip("'\"") if reason else None})
    else:
        status = session.ask("Status", {})
    if not session.print_json(request, status):
        session.terminal.say(answers.keep_text(status, session.terminal.style))


@action("usage")
def _usage(session: Session, request: Request) -> None:
    session.show(request, "ReportUsage", "usage", answers.usage_text)


@action("gpus")
def _gpus(session: Session, request: Request) -> None:
    session.show(request, "Gpus", "gpus", answers.gpus_text)


@action("doctor")
def _doctor(session: Session, request: Request) -> None:
    """The findings; the exit status is 1 if one of them is bad."""
    findings = session.show(request, "Doctor", "findings", answers.doctor_text)
    session.exit_status = int(any(found["result"] == "bad" for found in findings))


@action("ssh-config", "known-hosts")
def _laptop(session: Session, request: Request) -> None:
    from labshell.shell import laptop

    status = session.ask("Status", {})
    if request.verb.name == "ssh-config":
        session.terminal.say(laptop.ssh_config(status))
    else:
        session.terminal.say(laptop.known_hosts(status, session.answer("GatewayKeys", {}, "keys")))


@action("help")
def _help(session: Session, request: Request) -> None:
    session.terminal.say(verbs.help_text(*request.arguments))


@action("whoami")
def _whoami(session: Session, request: Request) -> None:
    status = session.ask("Status", {})
    about: answers.WhoAmI = {
        "user": status["user"], "host": status["host"], "state": status["state"], "address": status.get("address"),
        "port": status.get("port"), "notice": status.get("notice"), "container": status["user"],
        "version": __version__,
    }  # fmt: skip
    if not session.print_json(request, about):
        session.terminal.say(answers.whoami_text(about, session.terminal.style))


@action("version")
def _version(session: Session, request: Request) -> None:
    if not session.print_json(request, {"version": __version__}):
        session.terminal.say(f"labshell {__version__}\n")


def _number(word: str) -> int:
    word, _, protocol = word.partition("/")
    if protocol == "udp":
        raise UsageError("udp-not-forwarded", "Only TCP is forwarded: there are no ports for UDP.")
    if protocol not in ("", "tcp") or not (word.isascii() and word.isdigit() and len(word) <= 5):
        raise UsageError("port-invalid", "{word} is not a port number.", word=shown.plain(word)[:40])
    return int(word)
