"""labshell-admin: the administrator's command. Everything that changes goes through the daemon's root socket."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labshell import __version__, protocol, shown, templates
from labshell.config import load
from labshell.containers import Containers
from labshell.engine import Engine
from labshell.errors import LabshellError, NotAllowed, UsageError

SILENCE_SECONDS = 30  # the daemon says every few seconds that it is still at work

Options = argparse.Namespace


def call(method: str, parameters: dict[str, Any], options: Options) -> dict[str, Any]:
    """The daemon's answer, with its progress shown meanwhile."""
    result: dict[str, Any] = {}
    for reply in protocol.call(protocol.ADMIN_SOCKET, f"{protocol.ADMIN}.{method}", parameters, SILENCE_SECONDS):
        if reply.get("progress") and not options.json:
            print(shown.sentence(reply["progress"]) + " …", flush=True)
        result = reply.get("result") or result
    return result


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True))


def table(rows: Iterable[dict[str, Any]], columns: list[str]) -> None:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column.upper().replace("_", " "))
    for row in rows:
        drawn.add_row(*(Text(shown.plain("" if row[column] is None else row[column])) for column in columns))
    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(drawn)


# Commands ----------------------------------------------------------------------------------------------


def add_user(options: Options) -> None:
    limits = {name: getattr(options, name) for name in ("cpu", "memory", "disk", "processes")}
    parameters = {
        "name": options.name,
        "keys": [_key_text(path) for path in options.key],
        "template": options.template,
        "port": options.port,
        "limits": {name: value for name, value in limits.items() if value is not None},
        "dry_run": options.dry_run,
    }
    result = call("AddUser", parameters, options)
    if options.json:
        show_json(result)
    elif options.dry_run:
        print("Nothing was changed.")
    else:
        host, port = result["host"], result["port"]
        print(f"{options.name} is ready: ssh {options.name}@{host} starts the container, ssh -p {port} enters it.")


def _key_text(path: str) -> str:
    """The public key in a file, or on standard input for "-". What is in it is for the daemon to judge."""
    try:
        content = sys.stdin.buffer.read(1 << 16) if path == "-" else Path(path).read_bytes()[: 1 << 16]
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("{path} is not a public key: it is not text.", path=path) from None
    except OSError as error:
        raise UsageError("{path} cannot be read: {why}.", path=path, why=error.strerror) from None


def remove_user(options: Options) -> None:
    if not options.yes and not options.dry_run:
        _confirm(options.name)
    parameters = {"name": options.name, "archive": not options.no_archive, "dry_run": options.dry_run}
    result = call("RemoveUser", parameters, options)
    if options.json:
        show_json(result)
    elif options.dry_run:
        print("Nothing was changed.")
    else:
        print(f"{options.name} is removed." + "".join(f" Archive: {path}" for path in result.get("archives", [])))


def _confirm(name: str) -> None:
    question = f"This removes {name} with everything in the container. Type the name to go on: "
    if not sys.stdin.isatty():
        raise UsageError("Without a terminal, say --yes to remove {name}.", name=name)
    if input(question).strip() != name:
        raise UsageError("Nothing was removed.")


def list_users(options: Options) -> None:
    users = call("List", {}, options).get("users", [])
    if options.json:
        show_json(users)
    elif users:
        table(users, ["user", "state", "address", "port", "problem"])
    else:
        print("There are no users yet; add one with: labshell-admin add-user NAME --key FILE")


def show_user(options: Options) -> None:
    about = call("Show", {"name": options.name}, options)
    if options.json:
        show_json(about)
        return
    for key, value in about.items():
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            label = key.replace("_", " ") if number == 0 else ""
            print(f"{label:20} {shown.plain('-' if item is None else item)}")


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


def template_build(options: Options) -> None:
    config = load()
    engine = Engine(config.engine_socket)
    containers = Containers(engine, config.network, config.pool)
    for step in templates.build(engine, containers, options.name or config.template, options.rootfs):
        print(f"{step} …", flush=True)
    print(f"The template {options.name or config.template} is ready.")


# The command line --------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Every command; what it does is in its help, which is also what the manual is made from."""
    top = argparse.ArgumentParser(prog="labshell-admin", description="Administer the researchers of this host.")
    top.add_argument("--version", action="version", version=f"labshell-admin {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Options], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run, json=False)
        if name != "template":
            added.add_argument("--json", action="store_true", help="answer with JSON")
        return added

    add = command("add-user", add_user, "Give a person an account, a container, ports and rules.")
    add.add_argument("name")
    add.add_argument("--key", action="append", required=True, metavar="FILE", help="public key file, - for stdin")
    add.add_argument("--template", help="clone this stopped container instead of the configured one")
    add.add_argument("--port", type=int, help="SSH port, instead of the next free block")
    for limit, example in (("cpu", "8"), ("memory", "64GiB"), ("disk", "200GiB"), ("processes", "4096")):
        add.add_argument(f"--{limit}", metavar=example, help=f"limit, instead of the configured {limit}")
    add.add_argument("--dry-run", action="store_true", help="check everything and show the steps")

    remove = command("remove-user", remove_user, "Archive a person's container and free everything they have.")
    remove.add_argument("name")
    remove.add_argument("--no-archive", action="store_true", help="delete the container without an archive")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.add_argument("--dry-run", action="store_true", help="show the steps")

    command("list", list_users, "List everybody: state, address, port, what is wrong.")
    command("show", show_user, "Show everything about one person.").add_argument("name")
    plan = command("reconcile", reconcile, "Make the live rules equal to what is stored.")
    plan.add_argument("--plan", action="store_true", help="only say what would change")

    template = command("template", lambda _: None, "Templates that new containers are cloned from.")
    verbs = template.add_subparsers(metavar="COMMAND", required=True)
    build = verbs.add_parser("build", help="build a template from this machine's own apt sources")
    build.add_argument("--name", help="instead of the configured name")
    build.add_argument("--rootfs", type=Path, metavar="TAR", help="use this root file system")
    build.set_defaults(run=template_build)
    return top


def main() -> None:
    options = parser().parse_args()
    try:
        if os.geteuid() != 0:
            raise NotAllowed("labshell-admin is for root: put sudo in front.")
        options.run(options)
        sys.stdout.flush()
    except LabshellError as error:
        print(f"labshell-admin: {shown.plain(error)}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("\nlabshell-admin: interrupted; what the daemon has begun it finishes.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
