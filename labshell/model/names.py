"""Names of users, services, templates and the containers beside theirs. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection

from labshell import shown
from labshell.errors import UsageError

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", re.ASCII)
INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", re.ASCII)  # users, and what is kept beside theirs
EXISTING = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
RESERVED_NAMES = frozenset(
    {
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "nobody",
        "www-data",
        "backup",
        "list",
        "irc",
        "gnats",
        "sshd",
        "lxd",
        "lxc",
        "incus",
        "labshell",
        "template",
        "admin",
        "administrator",
        "sudo",
        "wheel",
        "adm",
        "docker",
        "localhost",
        "none",
        "self",
    }
)


def checked_name(name: object, *, of_service: bool = False) -> str:
    """`name` if a new user or service may be called that on Unix, in LXD and in DNS alike."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or "--" in name:
        if of_service:
            raise UsageError(
                "service-name-invalid",
                "{name} cannot be the name of a service: use 2 to 32 lower-case letters, digits and single hyphens; "
                "it must start with a letter and not end with a hyphen.",
                name=repr(name)[:80],
            )
        raise UsageError(
            "user-name-invalid",
            "{name} cannot be a user name: use 2 to 32 lower-case letters, digits and single hyphens; "
            "it must start with a letter and not end with a hyphen.",
            name=repr(name)[:80],
        )
    if name in RESERVED_NAMES:
        raise UsageError("name-reserved", "{name} is a name the system itself uses; choose another.", name=name)
    return name


def existing_name(name: str) -> str:
    """`name` as it is if something may have been called that ever; UsageError says that there is nothing.

    It is safe as a file name and an argument, and no more: what an old or odd name belongs to can be removed.
    """
    if not EXISTING.fullmatch(name):
        raise UsageError("user-or-service-missing", "There is no user or service {name}.", name=repr(name)[:80])
    return name


def checked_template(name: str) -> str:
    """`name` if a template may be called that; reserved names may, it is no account."""
    if not NAME.fullmatch(name):
        raise UsageError("template-name-invalid", "{name} cannot be the name of a template.", name=repr(name)[:80])
    return name


def name_of_fresh(user: str) -> str:
    """The name of a container in the making, without an owner until then. Two hyphens are in no user's name."""
    return f"{user}--new"


def name_of_kept(user: str, now: datetime.datetime) -> str:
    """The name under which a rebuild puts a container aside at the moment `now` (UTC)."""
    return f"{user}--{now:%Y%m%d-%H%M%S}"


def moment_of_kept(name: str) -> str | None:
    """When a container was put aside, as RFC 3339 has it; None if `name` is not name_of_kept()'s."""
    try:
        moment = datetime.datetime.strptime(name.rpartition("--")[2], "%Y%m%d-%H%M%S")  # noqa: DTZ007 - it is UTC
    except ValueError:
        return None
    return f"{moment.isoformat()}Z"


def choose_template(wanted: str, marked: Collection[str], default: str) -> str:
    """The template a researcher may clone: the configured one, or one that is marked as a template."""
    offered = sorted({default, *marked})
    if wanted not in offered:
        raise UsageError(
            "template-not-offered",
            "There is no template {name}; there is: {offered}",
            name=shown.plain(wanted)[:60],
            offered=", ".join(offered),
        )
    return wanted
