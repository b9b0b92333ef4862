"""labshell-admin: the administrator's command. Everything that changes goes through the daemon's root socket."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

from labshell import __version__, language, shown
from labshell.admin import adoption, answers, containers, csv_import, services, this_host, users
from labshell.admin.options import Options
from labshell.engine import recipes
from labshell.errors import Cancelled, LabshellError, NotAllowed, TryAgain, UsageError
from labshell.model.settings import DESKTOP_PORT, SETTINGS

OF_PEOPLE = (DESKTOP_PORT, "expires")  # settings that a service has no use for
OVERVIEW = """\
labshell-admin COMMAND [OPTION...]       each COMMAND has --help

Users
  list, show                   all users; one with every setting
  add-user, import             one user; a class from a table
  set                          limits, GPUs, mounts, keys, port, last day
  remove-user, restore-user    into an archive and back
  adopt, import-host           take over containers made by hand
Services
  list-services, add-service, remove-service
Containers
  start, stop, enter           one container; enter is a root shell
  drain, undrain               before and after maintenance
  idle                         who uses their container
This host
  doctor                       what is wrong, with the remedies
  log                          the audit log
  reconcile                    restore the firewall rules
  template                     build, list, update, publish
"""
TEMPLATE_HELP = "clone this template instead of the configured one"


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong command or option with the one that was probably meant."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            kind = "command" if self.prog == "labshell-admin" else f"{self.prog.rpartition(' ')[2]} command"
            self.error(f"there is no {kind} {shown.plain(value)!r}{_meant(value, action.choices)}")
        super()._check_value(action, value)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            asked = getattr(options, "asked", self)
            known = [text for action in asked._actions for text in action.option_strings]
            wrong = next((text for text in rest if text.startswith("-")), rest[0])
            asked.error(f"{shown.plain(wrong)!r} is not expected{_meant(wrong.partition('=')[0], known)}")
        return options

    def error(self, message: str) -> NoReturn:
        """One line, and where to read more."""
        problem = message.rstrip(".")
        error = UsageError(
            "arguments-invalid", "{problem}. More: {command} --help", problem=problem, command=self.prog
        )
        self.exit(error.status, answers.failure(error, as_json="--json" in sys.argv))


class _Top(_Parser):
    """labshell-admin itself, whose help is the list of commands in groups."""

    def format_help(self) -> str:
        return OVERVIEW


def _meant(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def parser() -> argparse.ArgumentParser:
    """Every command; what it does is in its help, which is also what the manual is made from."""
    top = _Top(prog="labshell-admin", description="Administer the researchers of this host.")
    top.add_argument("--version", action="version", version=f"labshell-admin {__version__}")
    known = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Callable[[Options], None], text: str) -> argparse.ArgumentParser:
        added = known.add_parser(name, help=text, description=text)
        added.set_defaults(run=run, json=False, asked=added)
        if name not in ("template", "enter"):
            added.add_argument("--json", action="store_true", help="answer with JSON")
        return added

    add = command("add-user", users.add_user, "Give a user an account, a container, ports and rules.")
    add.add_argument("name")
    add.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="public key file, - for stdin; without, the keys of an account that is there",
    )
    add.add_argument("--template", help=TEMPLATE_HELP)
    add.add_argument("--port", type=int, help="SSH port, instead of the next free block")
    add.add_argument(
        "--password", action="store_true", help="also a random password, shown once, to be changed at once"
    )
    add.add_argument(
        "--language", choices=language.LANGUAGES, help="of the note to the user; the host's own language without this"
    )
    _add_settings(add)
    _add_dry_run(add, "check everything and show the steps")

    remove = command(
        "remove-user", users.remove_user, "Archive a user's container and free their account, ports and rules."
    )
    remove.add_argument("name")
    remove.add_argument("--no-archive", action="store_true", help="delete the container without an archive")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    _add_dry_run(remove, "show the steps")

    restore = command("restore-user", users.restore_user, "Restore a removed user from their archive.")
    restore.add_argument("archive", type=Path)
    _add_dry_run(restore, "check the archive and show the steps")

    change = command("set", users.set_user, "Change the settings of a user's container.")
    change.add_argument("name")
    change.add_argument("--key", action="append", metavar="FILE", help="public key file instead of all their keys")
    change.add_argument("--port", type=int, help="another SSH port; their own ports move along")
    change.add_argument("--password", action="store_true", help="a new random password, shown once")
    _add_settings(change)
    _add_dry_run(change)

    keys = command("keys", users.keys, "List, add or remove a user's public keys.")
    keys.add_argument("name")
    keys.add_argument("action", nargs="?", choices=("list", "add", "remove"), default="list")
    keys.add_argument(
        "which", nargs="?", metavar="KEY", help="add: a file, - for stdin; remove: a number, fingerprint or comment"
    )
    keys.add_argument("--end-sessions", action="store_true", help="with remove: end the sessions it has opened, too")

    many = command("import", csv_import.import_users, "Add a whole class from a CSV file; safe to run again.")
    many.add_argument(
        "file", type=Path, help="columns: name, key (the key or its file), and any of add-user's settings"
    )
    _add_dry_run(many, "check every row and change nothing")

    service = command(
        "add-service", services.add_service, "Make a service container (no owner), such as a web server."
    )
    service.add_argument("name")
    service.add_argument(
        "--forward",
        action="append",
        required=True,
        metavar="80:80",
        help="a port of the host, forwarded to one of the service; repeatable",
    )
    service.add_argument("--autostart", action="store_true", help="start it when the host starts")
    service.add_argument("--template", help=TEMPLATE_HELP)
    _add_settings(service, without=OF_PEOPLE)
    _add_dry_run(service, "check everything and show the steps")
    gone = command(
        "remove-service", services.remove_service, "Delete a service's container and its rules; no archive."
    )
    gone.add_argument("name")
    gone.add_argument("--yes", action="store_true", help="do not ask")
    _add_dry_run(gone, "show the steps")
    command("list-services", services.list_services, "List the services: state, address, forwards.")

    adopt = command(
        "adopt", adoption.adopt, "Take over a container that was made by hand, with its address and ports."
    )
    adopt.add_argument("name")
    adopt.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="public key file; without, the keys inside are taken",
    )
    _add_dry_run(adopt, "check everything and show the steps")
    host = command("import-host", adoption.import_host, "Take over every container that was made by hand.")
    host.add_argument("--returning", action="store_true", help="also those of users whose accounts are gone")
    host.add_argument("--plan", action="store_true", help="only show the containers and what would be done")
    start = command("start", containers.start, "Start the container of a user or a service.")
    start.add_argument("name")
    _add_dry_run(start)
    stop = command("stop", containers.stop, "Shut down the container of a user or a service.")
    stop.add_argument("name")
    stop.add_argument("--force", action="store_true", help="end it at once, without a clean shutdown")
    _add_dry_run(stop)
    enter = command("enter", _here("enter"), "A shell in a container, as root, even if its network is broken.")
    enter.add_argument("name")
    enter.add_argument("command", nargs=argparse.REMAINDER, help="a command instead of a shell")
    drain = command("drain", containers.drain, "Before maintenance: disable new starts, and list what runs.")
    drain.add_argument(
        "--message", default="maintenance; try again later.", help="message shown to users who try to start"
    )
    drain.add_argument("--stop", action="store_true", help="also stop everything, cleanly")
    drain.add_argument("--snapshot", action="store_true", help="with --stop: keep each one's state before")
    drain.add_argument("--plan", action="store_true", help="only list what it would touch")
    undrain = command("undrain", containers.undrain, "After maintenance: enable starts.")
    undrain.add_argument("--start", action="store_true", help="also start those that drain has stopped")
    idle = command("idle", containers.idle, "List who uses their container, the longest idle first.")
    idle.add_argument("--stop", action="store_true", help="stop those whose time is over by idle_stop_days")
    check = command("doctor", _here("doctor"), "Check this host, and name the remedy for each problem.")
    check.add_argument(
        "--try",
        dest="try_it",
        action="store_true",
        help="instead: make a container from the template, log in to it, look from inside, and remove it again",
    )
    listing = command("list", users.list_users, "List all users: state, address, ports, usage, problems.")
    listing.add_argument("--sort", choices=users.SORTABLE, default="user", help="the column to sort by")
    log = command("log", this_host.show_log, "Show the audit log.")
    log.add_argument(
        "-n", dest="count", type=int, default=50, metavar="COUNT", help="how many changes, the last ones"
    )
    log.add_argument("--errors", action="store_true", help="only what failed")
    command("show", users.show_user, "Show everything about one user.").add_argument("name")
    plan = command("reconcile", this_host.reconcile, "Make the live rules equal to what is stored.")
    plan.add_argument("--plan", action="store_true", help="only say what would change")

    template = command("template", lambda _: None, "Templates that new containers are cloned from.")
    verbs = template.add_subparsers(metavar="COMMAND", required=True)
    build = verbs.add_parser("build", help="build a template from this machine's own apt sources")
    build.add_argument("--name", help="instead of the configured name")
    build.add_argument("--rootfs", type=Path, metavar="TAR", help="use this root file system")
    build.add_argument(
        "--release", default="", help="a Debian release that the apt sources have, instead of this host's"
    )
    build.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        choices=tuple(recipes.EXTRAS),
        help="what to add; repeatable",
    )
    build.add_argument("--minimal", action="store_true", help="no editors, tools, locales and package lists")
    _add_dry_run(build)
    build.set_defaults(run=_here("template_build"))
    publish = verbs.add_parser("publish", help="make a template of a container, without keys, histories and marks")
    publish.add_argument("container")
    publish.add_argument("name", help="of the new template")
    _add_dry_run(publish)
    publish.set_defaults(run=_here("template_publish"))
    update = verbs.add_parser("update", help="bring a template's packages up to date; containers stay as they are")
    update.add_argument("--name", help="instead of the configured name")
    update.add_argument("--run", dest="command", default=recipes.UPDATE, help="another command, as root inside")
    _add_dry_run(update)
    update.set_defaults(run=_here("template_update"))
    every = verbs.add_parser("list", help="list the templates")
    every.add_argument("--json", action="store_true", help="answer with JSON")
    every.set_defaults(run=_here("template_list"))
    for verb in (build, publish, update, every):
        verb.set_defaults(asked=verb)
    return top


def _add_dry_run(parser: argparse.ArgumentParser, text: str = "check everything and change nothing") -> None:
    parser.add_argument("--dry-run", action="store_true", help=text)


def _here(name: str) -> Callable[[Options], None]:
    """One of `local`'s commands, loaded when it is used."""

    def run(options: Options) -> None:
        from labshell.admin import local

        getattr(local, name)(options)

    return run


def _add_settings(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """An option for each setting, and for a profile of them."""
    parser.add_argument(
        "--profile", metavar="NAME", help="a set of settings from labshell.toml; explicit options override it"
    )
    for name, setting in SETTINGS.items():
        if name in without:
            continue
        if name == "mounts":
            parser.add_argument(
                "--mount", action="append", metavar="SRC:DST[:ro]", help=f"{setting.about}; repeatable"
            )
        elif name == "nesting":
            parser.add_argument("--nesting", nargs="?", const="yes", metavar="yes|no", help=setting.about)
        else:
            parser.add_argument(f"--{name}", metavar=setting.example.partition(",")[0], help=setting.about)


def main() -> None:
    if len(sys.argv) == 1:
        print(OVERVIEW, end="")
        sys.exit(2)
    options = parser().parse_args()
    logging.getLogger("labshell").addHandler(logging.NullHandler())  # a log line is no answer
    try:
        if os.geteuid() != 0:
            raise NotAllowed("not-root", "labshell-admin must run as root: use sudo.")
        options.run(options)
        sys.stdout.flush()
    except LabshellError as error:
        sys.stderr.write(answers.failure(error, as_json=options.json))
        sys.exit(error.status)
    except ImportError as error:  # a module that is loaded for one command, while it is being installed
        updating = TryAgain(
            "installation-incomplete",
            "labshell is being updated; try again in a minute, or run scripts/setup-host again: {reason}.",
            reason=error,
        )
        sys.stderr.write(answers.failure(updating, as_json=options.json))
        sys.exit(updating.status)
    except KeyboardInterrupt:
        stopped = Cancelled("interrupted", "interrupted; the server completes the operation.")
        sys.stderr.write(("" if options.json else "\n") + answers.failure(stopped, as_json=options.json))
        sys.exit(stopped.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
