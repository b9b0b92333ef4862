"""The commands about users: add, set, keys, remove, restore, list, show."""

from __future__ import annotations

import pwd
import sys
from typing import Any

from rich.console import Console

from labshell import language, shown
from labshell.admin import note, user_card
from labshell.admin.answers import call, change, show_json, table
from labshell.admin.options import Options, confirm, key_text, settings_of
from labshell.errors import UsageError
from labshell.shell import answers, card, logins
from labshell.wire.admin import AddedUser, ChangedUser, FoundKey, RemovedKey, RemovedUser, RestoredUser, User, UserRow

WIDE_COLUMNS = 110
COLUMNS = ["user", "state", "address", "ports", "memory", "disk", "gpus", "last_login", "expires", "problem"]
SORTABLE = ["user", "state", "address", "port", "memory", "disk", "gpus", "last_login", "expires"]


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


def _ready(added: AddedUser, users_language: str) -> str:
    """That the user is there; of a new one also a note to be mailed to them, in their language."""
    user = added["user"]
    name, host = user["user"], user["host"]
    if added["was_there"]:
        return f"{name} is there already; nothing was changed. To change settings: labshell-admin set {name}"
    line = f"{name} is ready: ssh {name}@{host} starts the container, {card.way_in(user)} enters it."
    line += _shown_once(added)
    language.use(users_language or language.ENGLISH)
    text = note.note(user)
    language.use(language.ENGLISH)
    return f"{line}\n\nTo be mailed to {name}:\n\n{text}"


def _shown_once(result: AddedUser | ChangedUser) -> str:
    password = result.get("password")
    return f"\nPassword, shown this once and to be changed at the first login: {password}" if password else ""


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
        raise UsageError("set-without-change", "Say what to change: labshell-admin set --help lists it.")
    change("SetUser", parameters, options, _changed)


def _changed(after: ChangedUser) -> str:
    lines = [
        f"Changed {after['user']['user']}:",
        *(f"  {shown.plain(change['text'])}" for change in after["changes"]),
    ]
    if after["waits_for_restart"]:
        lines.append("nesting takes effect at the next restart.")
    return "\n".join(lines) + _shown_once(after)


def keys(options: Options) -> None:
    """List, add or remove a user's keys. The host's own connections are looked for, and ended, in this process."""
    name, which = options.name, options.which
    if (options.action == "list") != (which is None):
        raise UsageError("keys-without-key", "Say which key: labshell-admin keys --help shows how.")
    if options.action == "list":
        result = {"keys": call("UserKeys", {"name": name}, options)}
    elif options.action == "add":
        result = {"keys": call("AddUserKey", {"name": name, "key": key_text(which)}, options)}
    else:
        parameters = {"name": name, "which": which, "end_sessions": options.end_sessions}
        removed: RemovedKey = call("RemoveUserKey", parameters, options)
        result = {**removed, "open": _sessions_left(name, removed["found"], end=options.end_sessions)}
    if options.json:
        show_json(result)
        return
    print(answers.keys_text(result["keys"], card.Style(colour=False)), end="")
    if options.end_sessions:
        print("The sessions that it has opened are ended.")
    elif result.get("open"):
        again = f"labshell-admin keys {name} remove {result['found']['fingerprint']} --end-sessions"
        print(f"{result['open']} sessions are open that it has opened, or may have; to end them: {again}")


def _sessions_left(name: str, found: FoundKey, *, end: bool) -> int:
    """How many sessions a removed key has open on the host and inside; none once they are ended."""
    opened = logins.of_user(pwd.getpwnam(name).pw_uid)
    opened = [login for login in opened if login.fingerprint in (found["fingerprint"], None)]
    if end:
        logins.end(opened)
        return 0
    return len(opened) + len(found["sessions"])


def remove_user(options: Options) -> None:
    if not options.yes and not options.dry_run:
        confirm(options)
    parameters = {"name": options.name, "archive": not options.no_archive, "dry_run": options.dry_run}

    def words(gone: RemovedUser) -> str:
        return f"{options.name} is removed." + "".join(f" Archive: {path}" for path in gone["archives"])

    change("RemoveUser", parameters, options, words)


def restore_user(options: Options) -> None:
    parameters = {"archive": str(options.archive.absolute()), "dry_run": options.dry_run}

    def words(restored: RestoredUser) -> str:
        return f"{restored['user']['user']} is back: {card.way_in(restored['user'])}"

    change("RestoreUser", parameters, options, words)


def list_users(options: Options) -> None:
    users: list[UserRow] = call("List", {}, options)
    if options.json:
        show_json(users)
    elif users:
        users.sort(
            key=lambda user: _sortable(dict(user)[options.sort]),
            reverse=options.sort in ("memory", "disk", "last_login"),
        )
        is_narrow = sys.stdout.isatty() and Console().width < WIDE_COLUMNS
        columns = [column for column in COLUMNS if not (is_narrow and column in ("address", "memory"))]
        table([_shown(user) for user in users], columns, folded=("gpus", "problem"))
    else:
        print("There are no users yet; add one with: labshell-admin add-user NAME --key FILE")


def _sortable(value: Any) -> tuple[bool, Any]:
    """What is not known comes last, or first where the largest does."""
    return (value is not None, value if value is not None else 0)


def _shown(user: UserRow) -> dict[str, Any]:
    """A row to read: sizes and days instead of bytes and seconds."""
    row: dict[str, Any] = {**user}
    row["ports"] = f"{user['port']}-{user['last_port']}" if user["port"] else None
    for column in ("memory", "disk"):
        row[column] = shown.size(row[column]) if row[column] else None
    row["last_login"] = shown.moment(user["last_login"])[:10] if user["last_login"] else None
    row["gpus"] = None if user["gpus"] == "none" else user["gpus"]
    return row


def show_user(options: Options) -> None:
    about: User = call("Show", {"name": options.name}, options)
    if options.json:
        show_json(about)
        return
    print(user_card.text(about), end="")
