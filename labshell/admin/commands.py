"""What each command of labshell-admin asks the daemon for, and how it shows the answer."""

from __future__ import annotations

import argparse
import json
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labshell import language, shown, texts
from labshell.admin import note, user_card
from labshell.errors import LabshellError, UsageError
from labshell.model.settings import PROFILE, SETTINGS
from labshell.operations import plans
from labshell.shell import card, logins
from labshell.wire import protocol

WIDTH_WITHOUT_TERMINAL = 1000  # for programs: nothing is broken or cut
WIDE_COLUMNS = 110
NOTHING_CHANGED = "Nothing was changed."
SILENCE_SECONDS = 30  # the daemon says every few seconds that it is still at work

Options = argparse.Namespace


def ask(method: str, parameters: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The daemon's answer; `say` is told its progress meanwhile."""
    result: dict[str, Any] = {}
    for reply in protocol.call(protocol.ADMIN_SOCKET, f"{protocol.ADMIN}.{method}", parameters, SILENCE_SECONDS):
        if reply.get("progress"):
            say(shown.sentence(reply["progress"]))
        result = reply.get("result") or result
    return result


def call(method: str, parameters: dict[str, Any], options: Options) -> dict[str, Any]:
    """The daemon's answer, with its progress printed, unless only JSON is wanted."""

    said = ""

    def say(text: str) -> None:
        nonlocal said
        if text != said and not options.json:
            print(f"{text} …", flush=True)
        said = text

    return ask(method, parameters, say)


def change(method: str, parameters: dict[str, Any], options: Options, words: Callable[[dict[str, Any]], str]) -> None:
    """Have something changed, and say so: as JSON, or in `words` for the answer."""
    result = call(method, parameters, options)
    if options.json:
        show_json(result)
    else:
        print("\n".join([*result.get("would", ()), NOTHING_CHANGED]) if parameters.get("dry_run") else words(result))


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True))


def table(rows: list[dict[str, Any]], columns: list[str], folded: tuple[str, ...] = ()) -> None:
    """Rows under headers, without columns that are empty for everybody. Only `folded` ones are broken into lines."""
    filled = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in filled:
        drawn.add_column(column.upper().replace("_", " "), no_wrap=column not in folded, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(shown.plain("" if row.get(column) is None else row[column])) for column in filled))
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    Console(highlight=False, width=width).print(drawn)


def add_user(options: Options) -> None:
    parameters = {
        "name": options.name,
        "keys": [key_text(path) for path in options.key],
        "template": options.template,
        "port": options.port,
        "settings": settings_of(options),
        "password": options.password,
        "dry_run": options.dry_run,
    }
    change("AddUser", parameters, options, lambda added: _ready(added, options.language or language.configured()))


def _ready(added: dict[str, Any], users_language: str) -> str:
    """That the user is there; of a new one also a note to be mailed to them, in their language."""
    name, host = added["user"], added["host"]
    if added["was_there"]:
        return f"{name} is there already; nothing was changed. To change settings: labshell-admin set {name}"
    line = f"{name} is ready: ssh {name}@{host} starts the container, {card.way_in(added)} enters it."
    line += _shown_once(added)
    language.use(users_language or language.ENGLISH)
    text = note.note(added)
    language.use(language.ENGLISH)
    return f"{line}\n\nTo be mailed to {name}:\n\n{text}"


def _shown_once(result: dict[str, Any]) -> str:
    password = result.get("password")
    return f"\nPassword, shown this once and to be changed at the first login: {password}" if password else ""


def settings_of(options: Options) -> dict[str, str]:
    """The settings that were given as options, by their names."""
    given = {name: getattr(options, name.replace("-", "_"), None) for name in (*SETTINGS, PROFILE)}
    if options.mount:
        given["mounts"] = ",".join(options.mount)
    return {name: text for name, text in given.items() if text is not None}


def set_user(options: Options) -> None:
    parameters = {
        "name": options.name,
        "settings": settings_of(options),
        "keys": [key_text(path) for path in options.key or ()],
        "port": options.port,
        "password": options.password,
        "dry_run": options.dry_run,
    }
    if not any(parameters[name] for name in ("settings", "keys", "port", "password")):
        raise UsageError("Say what to change: labshell-admin set --help lists it.")
    change("SetUser", parameters, options, _changed)


def _changed(after: dict[str, Any]) -> str:
    lines = [f"Changed {after['user']}:", *(f"  {shown.plain(change['text'])}" for change in after["changes"])]
    if after["waits_for_restart"]:
        lines.append("nesting takes effect at the next restart.")
    return "\n".join(lines) + _shown_once(after)


def keys(options: Options) -> None:
    """A person's keys, or one more or less. The host's own connections are looked for, and ended, in this process."""
    name, which = options.name, options.which
    if (options.action == "list") != (which is None):
        raise UsageError("Say which key: labshell-admin keys --help shows how.")
    if options.action == "list":
        result = call("UserKeys", {"name": name}, options)
    elif options.action == "add":
        result = call("AddUserKey", {"name": name, "key": key_text(which)}, options)
    else:
        parameters = {"name": name, "which": which, "end_sessions": options.end_sessions}
        result = call("RemoveUserKey", parameters, options)
        result["open"] = _sessions_left(name, result, end=options.end_sessions)
    if options.json:
        show_json(result)
        return
    print(card.keys_text(result["keys"], card.Style(colour=False)), end="")
    if options.end_sessions:
        print("The sessions that it has opened are ended.")
    elif result.get("open"):
        again = f"labshell-admin keys {name} remove {result['found']['fingerprint']} --end-sessions"
        print(f"{result['open']} sessions are open that it has opened, or may have; to end them: {again}")


def _sessions_left(name: str, result: dict[str, Any], *, end: bool) -> int:
    """How many sessions a removed key has open on the host and inside; none once they are ended."""
    opened = logins.of_user(pwd.getpwnam(name).pw_uid)
    opened = [login for login in opened if login.fingerprint in (result["found"]["fingerprint"], None)]
    if end:
        logins.end(opened)
        return 0
    return len(opened) + len(result["found"]["sessions"])


def key_text(path: str) -> str:
    """The public key in a file, or on standard input for "-". What is in it is for the daemon to judge."""
    try:
        return texts.decoded(sys.stdin.buffer.read(1 << 16) if path == "-" else Path(path).read_bytes()[: 1 << 16])
    except OSError as error:
        raise UsageError("{path} cannot be read: {why}.", path=path, why=error.strerror) from None


def remove_user(options: Options) -> None:
    if not options.yes and not options.dry_run:
        _confirm(options.name)
    parameters = {"name": options.name, "archive": not options.no_archive, "dry_run": options.dry_run}
    change(
        "RemoveUser",
        parameters,
        options,
        lambda gone: f"{options.name} is removed." + "".join(f" Archive: {path}" for path in gone["archives"]),
    )


def _confirm(name: str) -> None:
    question = f"This removes {name} with everything in the container. Type the name to go on: "
    if not sys.stdin.isatty():
        raise UsageError("Without a terminal, say --yes to remove {name}.", name=name)
    if input(question).strip() != name:
        raise UsageError("Nothing was removed.")


COLUMNS = ["user", "state", "address", "ports", "memory", "disk", "gpus", "last_login", "expires", "problem"]
SORTABLE = ["user", "state", "address", "port", "memory", "disk", "gpus", "last_login", "expires"]


def _sortable(value: Any) -> tuple[bool, Any]:
    """What is not known comes last, or first where the largest does."""
    return (value is not None, value if value is not None else 0)


def _shown(user: dict[str, Any]) -> dict[str, Any]:
    """A row for people: sizes and days instead of bytes and seconds."""
    row = dict(user)
    row["ports"] = f"{user['port']}-{user['last_port']}" if user["port"] else None
    for column in ("memory", "disk"):
        row[column] = shown.size(user[column]) if user[column] else None
    row["last_login"] = shown.moment(user["last_login"])[:10] if user["last_login"] else None
    row["gpus"] = None if user["gpus"] == "none" else user["gpus"]
    return row


def list_users(options: Options) -> None:
    users = call("List", {}, options).get("users", [])
    if options.json:
        show_json(users)
    elif users:
        users.sort(
            key=lambda user: _sortable(user[options.sort]), reverse=options.sort in ("memory", "disk", "last_login")
        )
        is_narrow = sys.stdout.isatty() and Console().width < WIDE_COLUMNS
        columns = [column for column in COLUMNS if not (is_narrow and column in ("address", "memory"))]
        table([_shown(user) for user in users], columns, folded=("gpus", "problem"))
    else:
        print("There are no users yet; add one with: labshell-admin add-user NAME --key FILE")


def show_user(options: Options) -> None:
    about = call("Show", {"name": options.name}, options)
    if options.json:
        show_json(about)
        return
    print(user_card.text(about), end="")


def reconcile(options: Options) -> None:
    change = call("Reconcile", {"plan": options.plan}, options)
    if options.json:
        show_json(change)
        return
    words = ("would be removed", "would be added") if options.plan else ("removed", "added")
    for key, word in zip(("remove", "add"), words, strict=True):
        for rule in change.get(key, []):
            print(f"{word}: port {rule['port']} -> {shown.plain(rule['to'])} ({shown.plain(rule['user'])})")
    if not any(change.values()):
        print("The live rules are as they should be.")


def add_service(options: Options) -> None:
    parameters = {
        "name": options.name,
        "forwards": options.forward,
        "template": options.template,
        "settings": settings_of(options),
        "autostart": options.autostart,
        "dry_run": options.dry_run,
    }
    change(
        "AddService", parameters, options, lambda made: f"{made['service']} runs: lxc exec {made['service']} -- bash"
    )


def remove_service(options: Options) -> None:
    if not options.yes and not options.dry_run:
        _confirm(options.name)
    parameters = {"name": options.name, "dry_run": options.dry_run}
    change("RemoveService", parameters, options, lambda _: f"{options.name} is removed.")


def list_services(options: Options) -> None:
    services = call("ListServices", {}, options).get("services", [])
    if options.json:
        show_json(services)
    elif services:
        rows = [
            {**row, "forwards": " ".join(row["forwards"]), "autostart": "yes" if row["autostart"] else ""}
            for row in services
        ]
        table(rows, ["service", "state", "address", "forwards", "autostart"])
    else:
        print("There are no services; add one with: labshell-admin add-service NAME --forward 80:80")


def adopt(options: Options) -> None:
    parameters = {"name": options.name, "keys": [key_text(path) for path in options.key], "dry_run": options.dry_run}
    text = f"{options.name} is labshell's now: labshell-admin show {options.name}"
    change("Adopt", parameters, options, lambda _: text)


def import_host(options: Options) -> None:
    """Everything that was made by hand: shown with --plan, else taken over one by one."""
    found = call("AdoptionPlan", {}, options).get("containers", [])
    for row in found:
        if row["returning"] and not options.returning:  # somebody may have deleted the account to keep them out
            row["problem"] = "its person's account is gone; --returning brings them back"
    outcomes, failed = [], 0
    for row in found if not options.plan else ():
        if row["problem"]:
            outcomes.append({**row, "result": row["problem"]})
            continue
        try:
            call("Adopt", {"name": row["name"], "keys": [], "dry_run": False}, options)
            outcomes.append({**row, "result": "taken over"})
        except LabshellError as error:
            failed += 1
            outcomes.append({**row, "result": str(error)})
    rows = outcomes or found
    if options.json:
        show_json(rows)
    elif rows:
        shown_rows = [{**row, "other_ports": " ".join(row["other_ports"])} for row in rows]
        columns = ["name", "state", "address", "port", "other_ports", "result" if outcomes else "problem"]
        table(shown_rows, columns, folded=("problem", "result"))
    else:
        print("Every container is labshell's already.")
    if failed:
        raise LabshellError("{count} of {all} were not taken over.", count=failed, all=len(outcomes))


def drain(options: Options) -> None:
    parameters = {
        "message": options.message,
        "stop": options.stop,
        "snapshot": options.snapshot,
        "plan": options.plan,
    }
    result = call("Drain", parameters, options)
    if options.json:
        show_json(result)
    else:
        _show_drained(result, options)
    if result["failed"]:
        raise LabshellError("{count} of {all} containers were not stopped.",
                            count=len(result["failed"]), all=len(result["containers"]))  # fmt: skip


def _show_drained(result: dict[str, Any], options: Options) -> None:
    rows = [
        {
            **row,
            "memory": shown.size(row["memory"]),
            "gpus": row["gpus"].replace("none", ""),
            "started": shown.moment(row["started"]) if row["started"] else "",
        }
        for row in result["containers"]
    ]
    words = "would be touched" if options.plan else "were running" if options.stop else "still run"
    print(f"{len(rows)} containers {words}.")
    if rows:
        table(rows, ["name", "kind", "started", "processes", "memory", "gpus", "held_for"])
    for item in result["failed"]:
        print(f"{shown.plain(item['name'])} was not stopped: {shown.plain(item['why'])}")
    if result.get("is_ended_early"):
        print(f"undrain ended it: {len(result['stopped'])} of {len(rows)} were stopped.")
    elif not options.plan:
        print("Nothing starts any more until: labshell-admin undrain")


def start(options: Options) -> None:
    parameters = {"name": options.name, "dry_run": options.dry_run}
    change("StartContainer", parameters, options, lambda now: f"{now['name']} is {now['state']}.")


def stop(options: Options) -> None:
    parameters = {"name": options.name, "force": options.force, "dry_run": options.dry_run}
    change("StopContainer", parameters, options, lambda now: f"{now['name']} is {now['state']}.")


def idle(options: Options) -> None:
    rows = call("Idle", {"stop": options.stop}, options)["containers"]
    if options.json:
        show_json(rows)
        return
    for row in rows:
        for column in ("idle_since", "stops_at", "held_until"):
            row[column] = shown.moment(row[column]) if row[column] else None
        row["idle_since"] = row["idle_since"] or "not measured yet"
        row["was_stopped"] = "stopped" if row.get("was_stopped") else ""
    columns = ["user", "idle_since", "stops_at", "held_until", "held_for", *(["was_stopped"] if options.stop else [])]
    table(rows, columns, folded=("held_for",))
    if options.stop and not any(row["was_stopped"] for row in rows):
        print("No container has been idle for long enough.")


def undrain(options: Options) -> None:
    result = call("Undrain", {"start": options.start}, options)
    if options.json:
        show_json(result)
    else:
        _show_undrained(result)
    if result["failed"]:
        raise LabshellError("{count} containers were not started.", count=len(result["failed"]))


def _show_undrained(result: dict[str, Any]) -> None:
    print("Containers can start again.")
    if result["started"]:
        print(f"{plans.counted(len(result['started']), 'container')} started.")
    for item in result["failed"]:
        print(f"{shown.plain(item['name'])} was not started: {shown.plain(item['why'])}")
    if result["stopped"] and not result["failed"]:
        count = plans.counted(len(result["stopped"]), "container")
        print(f"{count} that drain has stopped start when they are used, or with: labshell-admin undrain --start")


def restore_user(options: Options) -> None:
    parameters = {"archive": str(options.archive.absolute()), "dry_run": options.dry_run}
    change(
        "RestoreUser",
        parameters,
        options,
        lambda now: f"{now['user']} is back: {card.way_in(now)}",
    )


def show_log(options: Options) -> None:
    changes = call("Log", {"count": options.count, "only_errors": options.errors}, options).get("changes", [])
    if options.json:
        show_json(changes)
        return
    known = ("time", "who", "verb", "subject", "result")
    rows = []
    for change in changes:
        given = ", ".join(f"{name} {text}" for name, text in change.items() if name not in known)
        moment = {"time": shown.moment(change["time"])} if change.get("time") else {}
        rows.append({**{name: change.get(name, "") for name in known}, "given": given, **moment})
    table(rows, ["time", "who", "verb", "subject", "given", "result"], folded=("given", "result"))
